"""setup_logging: JSON lines for machines, coloured ones for people, a file that rotates."""

from __future__ import annotations

import io
import json
import logging
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import watchkeep
from watchkeep import guard, log_setup, names
from watchkeep.testing import Capture

log = logging.getLogger("app.setup")


class Hostile:
    def __str__(self) -> str:
        raise RuntimeError("no text")

    __repr__ = __len__ = __str__  # type: ignore[assignment]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def put_back() -> Iterator[None]:
    """Leave the root logger as it was."""
    root = logging.getLogger()
    level, handlers = root.level, list(root.handlers)
    yield
    while log_setup._ours:
        log_setup._ours.pop().close()
    root.handlers[:] = handlers
    root.setLevel(level)


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_a_json_line_has_its_fields_in_order(watchkeep_capture: Capture) -> None:
    """Timestamp, level, logger, message, then ids, source and every extra field by its own name."""
    from opentelemetry import trace

    stream = io.StringIO()
    watchkeep.setup_logging("INFO", json_format=True, stream=stream)
    span = trace.NonRecordingSpan(trace.SpanContext(0xABC, 0xDEF, False, trace.TraceFlags(1)))
    with watchkeep.correlation("req-1"), trace.use_span(span):
        log.info("took %s", "long", extra={"duration_ms": 12.5, names.GEN_AI_AGENT_NAME: "qa"})
    (line,) = lines(stream)
    assert list(line)[:4] == ["timestamp", "level", "logger", "message"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", line["timestamp"])
    assert (line["level"], line["logger"], line["message"]) == ("INFO", "app.setup", "took long")
    assert (line["trace_id"], line["span_id"], line["trace_flags"]) == (f"{0xABC:032x}", f"{0xDEF:016x}", "01")
    assert line["correlation_id"] == line[names.AGENT_RUNTIME_CORRELATION_ID] == "req-1"
    assert (line["duration_ms"], line[names.GEN_AI_AGENT_NAME]) == (12.5, "qa")
    assert line[names.CODE_FILE_PATH] == __file__


def test_every_value_makes_one_line_of_json() -> None:
    """Whatever is in a record, the line is one line and JSON, and control characters are escaped."""
    stream = io.StringIO()
    watchkeep.setup_logging(json_format=True, stream=stream)
    nest: list[Any] = []
    nest.append(nest)
    extra = {"nan": float("nan"), "bytes": b"\xff", "hostile": Hostile(), "nest": nest, "line": "a\r\nb\u2028c\x9b1m"}
    log.info("\x1b[2J and \x9b2J and \u2028 and \ud800", extra=extra)
    assert len(stream.getvalue().splitlines()) == 1
    assert stream.getvalue().rstrip("\n").replace("\ud800", "").isprintable()
    (line,) = lines(stream)
    assert line["message"] == "\x1b[2J and \x9b2J and \u2028 and \ud800"
    assert (line["nan"], line["hostile"], line["nest"]) == ("nan", "<Hostile>", ["<recursive>"])


def test_an_exception_is_three_attributes() -> None:
    """Type, message and stack trace, on the app's own output."""
    stream = io.StringIO()
    watchkeep.setup_logging(json_format=True, stream=stream)
    try:
        raise LookupError("not there")
    except LookupError:
        log.exception("failed")
    (line,) = lines(stream)
    assert (line[names.EXCEPTION_TYPE], line[names.EXCEPTION_MESSAGE]) == ("LookupError", "not there")
    assert "not there" in line[names.EXCEPTION_STACKTRACE].splitlines()[-1]


def test_a_line_for_people_cannot_act_on_the_terminal() -> None:
    """Escape sequences are shown, not sent, and a second line of a message does not look like a record."""
    stream = Terminal()
    watchkeep.setup_logging(stream=stream)
    log.warning(
        "clear \x1b[2J\n12:00:00.000 INFO forged \x9b", extra={"correlation_id": "a\r\nb", "note": "\x1b]0;x\x07"}
    )
    text = stream.getvalue()
    first, second = text.splitlines()
    assert re.sub(r"\x1b\[[\d;]*m", "", text).replace("\n", "").isprintable()
    assert second.startswith("    12:00")
    assert "\x1b[33mWARNING" in first


def test_colours_only_for_terminals(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file, a pipe and NO_COLOR get plain text."""
    plain, asked = io.StringIO(), Terminal()
    watchkeep.setup_logging(stream=plain)
    log.error("plain")
    monkeypatch.setenv("NO_COLOR", "1")
    watchkeep.setup_logging(stream=asked)
    log.error("asked")
    assert "\x1b" not in plain.getvalue() + asked.getvalue()
    assert plain.getvalue().endswith(f"ERROR    app.setup  plain  [{watchkeep.correlation_id()}]\n")


def test_a_second_call_replaces_the_first(tmp_path: Path) -> None:
    """Each line is written once, and the app's own handlers stay."""
    first, second = io.StringIO(), io.StringIO()
    own = logging.NullHandler()
    logging.getLogger().addHandler(own)
    watchkeep.setup_logging(stream=first)
    watchkeep.setup_logging(logging.DEBUG, stream=second, log_file=tmp_path / "app.log")
    log.debug("once")
    assert first.getvalue() == ""
    assert second.getvalue().count("once") == (tmp_path / "app.log").read_text().count("once") == 1
    assert own in logging.getLogger().handlers


def test_a_file_rotates(tmp_path: Path) -> None:
    """The file is made with its folder, cut at its size, and only so many old ones are kept."""
    file = tmp_path / "logs" / "app.log"
    watchkeep.setup_logging(json_format=True, log_file=file, max_bytes=2000, backup_count=2, stream=io.StringIO())
    for number in range(40):
        log.info("line %d \udc80", number)
    assert sorted(each.name for each in file.parent.iterdir()) == ["app.log", "app.log.1", "app.log.2"]
    assert all(each.stat().st_size <= 2000 for each in file.parent.iterdir())
    assert json.loads(file.read_text().splitlines()[-1])["message"] == "line 39 \udc80"


def test_a_file_that_cannot_be_written_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The app gets one clear line, and its lines on the stream."""
    said: list[str] = []
    monkeypatch.setattr(guard, "warn", lambda _, text: said.append(text))
    (tmp_path / "taken").write_text("")
    stream = io.StringIO()
    watchkeep.setup_logging("loud", log_file=tmp_path / "taken" / "app.log", stream=stream)
    log.info("goes on")
    assert "goes on" in stream.getvalue()
    assert "cannot be written" in said[0]
    assert "'loud' is no level" in said[1]


def test_it_works_without_instrumentation() -> None:
    """In a process that nobody watches the lines still carry a correlation ID; the launcher's wins."""
    code = "import logging, watchkeep; watchkeep.setup_logging(json_format=True); logging.info('hi')"
    environment = {**os.environ, "WATCHKEEP_CORRELATION_ID": "run-9", "WATCHKEEP_ENABLED": "false"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=30)
    assert json.loads(done.stderr)["correlation_id"] == "run-9"

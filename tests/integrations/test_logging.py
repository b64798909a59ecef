"""logging: every line carries the ids and is shipped, and the app prints what it printed without us."""

from __future__ import annotations

import json
import logging
import os
import statistics
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import watchkeep
from support import log_app
from support.otlp_sink import OtlpSink
from watchkeep import context, names
from watchkeep.testing import Capture

APP = Path(log_app.__file__)
LAUNCHER = (sys.executable, "-m", "watchkeep", "run", "--")
SEVERITY = {5: "DEBUG", 9: "INFO", 13: "WARN", 17: "ERROR", 21: "FATAL"}


def environment(sink: OtlpSink, **extra: str) -> dict[str, str]:
    kept = {name: text for name, text in os.environ.items() if not name.startswith(("OTEL_", "WATCHKEEP_"))}
    return {**kept, "OTEL_EXPORTER_OTLP_ENDPOINT": sink.endpoint, **extra}


def run(sink: OtlpSink, *command: str, **extra: str) -> tuple[bytes, bytes, int]:
    done = subprocess.run(command, env=environment(sink, **extra), capture_output=True, timeout=60, check=False)
    return done.stdout, done.stderr, done.returncode


@pytest.fixture(scope="module")
def sink() -> Iterator[OtlpSink]:
    with OtlpSink() as started:
        yield started


def shipped(sink: OtlpSink) -> list[str]:
    return [f"{item.message.severity_text} {item.scope}: {item.body}" for item in sink.logs()]


@pytest.mark.parametrize("name", log_app.SHIPPED)
def test_the_app_prints_what_it_printed_without_us(sink: OtlpSink, name: str) -> None:
    """Byte for byte the same on both streams, with the same exit code; and every line arrives."""
    bare = run(sink, sys.executable, str(APP), name)
    sink.forget()
    watched = run(sink, *LAUNCHER, sys.executable, str(APP), name)
    assert watched == bare
    wanted = list(log_app.SHIPPED[name])
    found = shipped(sink)
    if name == "ten_megabytes":
        assert len(found) == 1
        assert found[0].startswith(wanted[0])
        assert found[0].endswith("...[10000000 characters]")
        assert len(found[0]) < 9000
    else:
        assert found == wanted


def test_a_line_says_where_it_comes_from(sink: OtlpSink) -> None:
    """The record that arrives has severity, source, the app's fields, and the correlation ID the app gave."""
    sink.forget()
    run(sink, *LAUNCHER, sys.executable, str(APP), "extra_of_the_app")
    mine, adapted = sink.logs()
    assert mine.message.severity_number == 13
    assert mine.attributes[names.AGENT_RUNTIME_CORRELATION_ID] == "req-7"
    assert adapted.attributes[names.AGENT_RUNTIME_CORRELATION_ID] == "req-8"
    assert mine.attributes["order"] == 5
    assert mine.attributes[names.CODE_FUNCTION_NAME] == "extra_of_the_app"
    assert mine.attributes[names.CODE_FILE_PATH] == str(APP)


def test_a_forged_correlation_id_is_not_taken(sink: OtlpSink) -> None:
    """An ID with a line feed stays in the app's own output and is replaced on the way out."""
    sink.forget()
    run(sink, *LAUNCHER, sys.executable, str(APP), "line_feeds", WATCHKEEP_CORRELATION_ID="run-1")
    (line,) = sink.logs()
    assert line.attributes[names.AGENT_RUNTIME_CORRELATION_ID] == "run-1"


def test_an_exception_has_type_and_stack_and_no_text(sink: OtlpSink) -> None:
    """Without content capture neither the message nor the source line of an exception leaves the process."""
    sink.forget()
    run(sink, *LAUNCHER, sys.executable, str(APP), "basic_config")
    attributes = sink.logs()[-1].attributes
    assert attributes[names.EXCEPTION_TYPE] == "ValueError"
    assert names.EXCEPTION_MESSAGE not in attributes
    assert attributes[names.EXCEPTION_STACKTRACE].startswith("Traceback (most recent call last):\n  File ")
    assert "too small" not in attributes[names.EXCEPTION_STACKTRACE]


def test_with_content_the_text_is_there(sink: OtlpSink) -> None:
    """With content capture the exception's message is shipped too."""
    sink.forget()
    variable = "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT"
    run(sink, *LAUNCHER, sys.executable, str(APP), "basic_config", **{variable: "SPAN_ONLY"})
    attributes = sink.logs()[-1].attributes
    assert attributes[names.EXCEPTION_MESSAGE] == "too small"
    assert attributes[names.EXCEPTION_STACKTRACE].endswith("ValueError: too small\n")


@pytest.mark.parametrize("switch", ["WATCHKEEP_APP_LOGS", "WATCHKEEP_LOGS"])
def test_shipping_can_be_switched_off(sink: OtlpSink, switch: str) -> None:
    """With either switch off no line leaves the process."""
    sink.forget()
    run(sink, *LAUNCHER, sys.executable, str(APP), "basic_config", **{switch: "false"})
    assert sink.logs() == []


def test_importing_logging_costs_nothing() -> None:
    """A process that imports logging and logs nothing loads little of us: its start takes at most 15 ms more."""
    code = "import logging, sys, os; print(len([m for m in sys.modules if m.startswith('watchkeep')]), *os.times()[:2])"
    kept = {name: text for name, text in os.environ.items() if not name.startswith(("OTEL_", "WATCHKEEP_"))}
    site = str(Path(watchkeep.__file__).parent / "_site")

    def seconds(**extra: str) -> float:
        command = [sys.executable, "-c", code]
        done = subprocess.run(command, env={**kept, **extra}, capture_output=True, text=True, timeout=30, check=True)
        loaded, user, system = done.stdout.split()
        assert int(loaded) < 12
        return float(user) + float(system)

    bare, watched = [], []
    for _ in range(9):
        bare.append(seconds())
        watched.append(seconds(PYTHONPATH=site))
    assert statistics.median(watched) - statistics.median(bare) <= 0.025  # os.times has a resolution of 10 ms


# -- ids, in this process -------------------------------------------------------------------------------


class Keep(logging.Handler):
    """Keeps the records it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[Any] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)


@pytest.fixture
def log() -> Iterator[logging.Logger]:
    logger = logging.getLogger("app.ids")
    logger.setLevel("DEBUG")
    handler = Keep()
    logger.addHandler(handler)
    logger.propagate = False
    yield logger
    logger.removeHandler(handler)
    logger.propagate = True


@pytest.fixture
def records(log: logging.Logger) -> list[Any]:
    handler = log.handlers[0]
    assert isinstance(handler, Keep)
    return handler.records


def test_a_line_inside_a_span_has_its_ids(watchkeep_capture: Capture, log: logging.Logger, records: list[Any]) -> None:
    """The record for the app's formats and the one that is shipped name the span that is current."""
    from opentelemetry import trace

    parent = trace.NonRecordingSpan(trace.SpanContext(0xABC, 0xDEF, False, trace.TraceFlags(1)))
    with trace.use_span(parent):
        log.info("inside")
    log.info("outside")
    inside, outside = watchkeep_capture.logs()
    assert (inside.trace_id, inside.span_id, inside.flags) == (0xABC, 0xDEF, 1)
    assert (records[0].trace_id, records[0].span_id) == (f"{0xABC:032x}", f"{0xDEF:016x}")
    assert (outside.trace_id, outside.span_id, outside.flags) == (0, 0, 0)
    assert (records[1].trace_id, records[1].span_id) == ("", "")


def test_correlation_and_session_stand_on_the_line(
    watchkeep_capture: Capture, log: logging.Logger, records: list[Any]
) -> None:
    """What this context knows is on the record and on the line, by its registry names."""
    with watchkeep.correlation("req-1"), context.entities(**{names.GEN_AI_AGENT_NAME: "qa", names.SESSION_ID: "s-1"}):
        log.info("known")
    (line,) = watchkeep_capture.logs()
    assert line.attributes[names.AGENT_RUNTIME_CORRELATION_ID] == records[0].correlation_id == "req-1"
    assert line.attributes[names.GEN_AI_AGENT_NAME] == "qa"
    assert line.attributes[names.SESSION_ID] == "s-1"


def test_the_apps_own_id_is_read_back(watchkeep_capture: Capture, log: logging.Logger) -> None:
    """An ID given in `extra` becomes ours in that context, and in no other thread's."""

    def work() -> None:
        log.info("first", extra={"correlation_id": "own-1"})
        seen.append(watchkeep.correlation_id())

    seen: list[str] = []
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == ["own-1"]
    assert watchkeep.correlation_id() == context.process_correlation_id()
    with watchkeep.correlation("set-1"):
        log.info("second", extra={"correlation_id": "own-2"})
        assert watchkeep.correlation_id() == "set-1"
    context.adopt(context.process_correlation_id())


def test_an_id_set_by_a_handlers_filter_wins(watchkeep_capture: Capture, log: logging.Logger) -> None:
    """A filter that writes the app's ID on the record, as correlation libraries do, says what is shipped."""

    def stamp(record: logging.LogRecord) -> bool:
        record.correlation_id = "filter-1"
        return True

    log.handlers[0].addFilter(stamp)
    log.info("stamped")
    (line,) = watchkeep_capture.logs()
    assert line.attributes[names.AGENT_RUNTIME_CORRELATION_ID] == "filter-1"


def test_a_json_formatter_prints_the_ids(watchkeep_capture: Capture, log: logging.Logger, records: list[Any]) -> None:
    """A formatter that prints unknown fields shows them without being changed."""
    log.info("as json", extra={"order": 5})
    known = set(logging.makeLogRecord({}).__dict__)
    printed = json.loads(json.dumps({key: value for key, value in records[0].__dict__.items() if key not in known}))
    assert printed["order"] == 5
    assert printed["correlation_id"] == watchkeep.correlation_id()
    assert {"trace_id", "span_id"} <= set(printed)


@pytest.mark.parametrize("name", ["watchkeep", "watchkeep.x", "opentelemetry.sdk.trace"])
def test_lines_about_telemetry_are_not_shipped(watchkeep_capture: Capture, name: str) -> None:
    """Our own lines, and those of OpenTelemetry's exporters, would feed themselves."""
    logger = logging.getLogger(name)
    logger.addHandler(logging.NullHandler())
    logger.warning("cannot send")
    assert watchkeep_capture.logs() == []


def test_sdk_debug_lines_are_not_shipped(watchkeep_capture: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    """SDKs print requests and answers at DEBUG: without content capture these lines stay here, others go."""
    for name in ("openai._base_client", "httpcore.http11", "app.other"):
        logger = logging.getLogger(name)
        monkeypatch.setattr(logger, "propagate", False)
        monkeypatch.setattr(logger, "level", logging.DEBUG)
        monkeypatch.setattr(logger, "_cache", {})
        logger.debug("Request options: %s", {"messages": "a prompt"})
        logger.info("Retrying")
    found = [(log.scope.name, log.severity_text) for log in watchkeep_capture.logs()]
    assert found == [
        ("openai._base_client", "INFO"),
        ("httpcore.http11", "INFO"),
        ("app.other", "DEBUG"),
        ("app.other", "INFO"),
    ]


def test_what_an_exporter_causes_is_not_shipped(watchkeep_capture: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    """An HTTP client's lines while telemetry is sent would be telemetry again, without end."""
    from opentelemetry import context as otel

    logger = logging.getLogger("urllib3.connectionpool")
    monkeypatch.setattr(logger, "propagate", False)
    logger.warning("retrying for the app")
    token = otel.attach(otel.set_value(otel._SUPPRESS_INSTRUMENTATION_KEY, True))
    logger.warning("retrying for the exporter")
    logging.getLogger("app.ids").warning("the app's own")
    otel.detach(token)
    assert [line.body for line in watchkeep_capture.logs()] == ["retrying for the app", "the app's own"]


def test_a_dead_end_point_says_little(sink: OtlpSink) -> None:
    """With a DEBUG handler on root and nobody to send to, the app's output grows by a few lines of ours at most."""
    dead = "http://127.0.0.1:9"
    code = (
        "import logging, time; logging.basicConfig(level=0)\nfor _ in range(100): logging.debug('x'); time.sleep(0.02)"
    )
    out, err, status = run(sink, *LAUNCHER, sys.executable, "-c", code, OTEL_EXPORTER_OTLP_ENDPOINT=dead)
    lines = err.splitlines()
    assert (out, status) == (b"", 0)
    assert lines.count(b"DEBUG:root:x") == 100
    assert len(lines) <= 103
    assert all(line.startswith(b"watchkeep: ") for line in lines if line != b"DEBUG:root:x")


def test_what_a_provider_says_is_not_shipped(watchkeep_capture: Capture, log: logging.Logger) -> None:
    """The text of an SDK's exception, given as argument or written into the line, is replaced by its class."""
    import openai

    error = openai.OpenAIError("invalid prompt: my secret idea")
    log.error("failed: %s", error)
    try:
        raise error
    except openai.OpenAIError as caught:
        log.exception(f"failed: {caught}")
        try:
            raise RuntimeError("agent failed") from caught
        except RuntimeError as outer:
            log.error(f"{outer}: {outer.__cause__}", exc_info=True)
    lines = watchkeep_capture.logs()
    assert [line.body for line in lines] == ["failed: <OpenAIError>"] * 2 + ["agent failed: <OpenAIError>"]
    assert "secret" not in repr(lines)


def test_secrets_are_masked(watchkeep_capture: Capture, log: logging.Logger) -> None:
    """A key in the text, or beside a telling name in `extra`, does not leave the process."""
    log.info("using sk-abcdefghijklmnopqrstuvwx1234", extra={"api_key": "plain words", "order": 5})
    (line,) = watchkeep_capture.logs()
    assert "abcdefghij" not in repr(line)
    assert "plain words" not in repr(line)
    assert line.attributes["order"] == 5


def test_a_record_of_another_process_is_not_shipped_twice(watchkeep_capture: Capture, log: logging.Logger) -> None:
    """What came through a queue from a watched process was shipped there."""
    log.info("made here")
    record = log.handlers[0].records[0]  # type: ignore[attr-defined]
    record.process = os.getpid() + 1
    log.handle(record)
    assert len(watchkeep_capture.logs()) == 1


def test_nothing_is_added_to_loggers(watchkeep_capture: Capture) -> None:
    """No handler on root, no record factory, no filter: two methods are wrapped, and given back."""
    make, call = logging.Logger.makeRecord, logging.Logger.callHandlers
    handlers = list(logging.getLogger().handlers)
    logging.getLogger("app.first").debug("wakes nothing")
    assert logging.getLogRecordFactory() is logging.LogRecord
    assert logging.getLogger().handlers == handlers
    assert (make, call) == (logging.Logger.makeRecord, logging.Logger.callHandlers)


# -- for the contract: what an app does with it ---------------------------------------------------------


def _lines(_: Any) -> list[str]:
    logger, handler = logging.Logger("exercise", "INFO"), Keep()
    logger.addHandler(handler)
    logger.info("one %d", 1)
    logger.warning("two", extra={"correlation_id": "x"})
    logger.debug("none")
    return [f"{record.levelname} {record.getMessage()} {record.funcName}" for record in handler.records]


def _collision(_: Any) -> None:
    logging.Logger("exercise").warning("no", extra={"message": "taken"})


def _raising(_: Any) -> None:
    logger = logging.Logger("exercise")
    logger.addHandler(log_app.Raising())
    logger.warning("it raises")


EXERCISES: list[Callable[[Any], Any]] = [_lines, _collision, _raising]

"""A log line on its way: its form, its bounds, and the app's own LoggerProvider."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support.otlp_sink import OtlpSink
from watchkeep import logs, names, raised, runtime
from watchkeep.testing import Capture

APP = str(Path(__file__).parent / "support" / "log_provider_app.py")
LAUNCHER = (sys.executable, "-m", "watchkeep", "run", "--")
BOTH = ["one 1", "two"]


@pytest.fixture(scope="module")
def sinks() -> Iterator[tuple[OtlpSink, OtlpSink]]:
    """Our end point, and the app's own."""
    with OtlpSink() as ours, OtlpSink() as own:
        yield ours, own


def run(sinks: tuple[OtlpSink, OtlpSink], *launcher: str, **extra: str) -> tuple[list[Any], list[Any]]:
    """Run the app to its end; return the lines that reached our end point, and the app's own."""
    ours, own = sinks
    kept = {name: text for name, text in os.environ.items() if not name.startswith(("OTEL_", "WATCHKEEP_"))}
    environment = {**kept, "OTEL_EXPORTER_OTLP_ENDPOINT": ours.endpoint, **extra}
    ours.forget()
    own.forget()
    done = subprocess.run(
        [*launcher, sys.executable, APP], env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr) == (0, "INFO:app.work:one 1\n")
    return sorted(item.body for item in ours.logs()), sorted(item.body for item in own.logs())


def test_a_provider_of_the_apps_gets_every_line(sinks: tuple[OtlpSink, OtlpSink]) -> None:
    """Where the app set a LoggerProvider its exporter sees each line once, and so do we."""
    assert run(sinks, *LAUNCHER, PROVIDER=sinks[1].endpoint) == (BOTH, BOTH)


def test_what_the_app_hands_over_itself_is_not_doubled(sinks: tuple[OtlpSink, OtlpSink]) -> None:
    """A LoggingHandler of the app's passes lines on already; ours add those that it misses."""
    assert run(sinks, *LAUNCHER, PROVIDER=sinks[1].endpoint, HANDLER="1") == (BOTH, BOTH)


def test_a_handler_without_a_provider(sinks: tuple[OtlpSink, OtlpSink]) -> None:
    """A LoggingHandler that would reach our provider finds that we have its lines."""
    assert run(sinks, *LAUNCHER, HANDLER="1") == (BOTH, [])


def test_one_end_point_gets_every_line_once(sinks: tuple[OtlpSink, OtlpSink]) -> None:
    """Where the app sends to our end point itself, the way out is the app's."""
    assert run(sinks, *LAUNCHER, PROVIDER=sinks[0].endpoint, HANDLER="1") == (BOTH, [])


def test_in_code_the_apps_provider_is_the_way_out(sinks: tuple[OtlpSink, OtlpSink]) -> None:
    """With `instrument()` we join nothing unasked: the lines go where the app sends them."""
    assert run(sinks, CODE="1", PROVIDER=sinks[1].endpoint, HANDLER="1") == ([], BOTH)


@pytest.mark.parametrize(
    "name",
    [
        *("LiteLLM", "LiteLLM Router", "LiteLLM Proxy", "litellm.main", "websockets.client", "instructor", "ollama"),
        *("pydantic_ai.models", "llama_index.core.llms", "autogen_core.events", "dspy.clients.lm", "crewai.agents"),
        *("strands.event_loop", "smolagents", "langchain_anthropic.chat_models", "langchain_community.llms"),
        *("langchain_google_genai", "langchain_of_tomorrow", "openai._base_client", "httpcore.http11"),
    ],
)
def test_debug_lines_of_libraries_that_quote_prompts_stay_here(watchkeep_capture: Capture, name: str) -> None:
    """Their DEBUG lines are not shipped without content capture; what they say above DEBUG is."""
    logger = logging.getLogger(name)
    for level in (logging.DEBUG, logging.INFO):
        made = logging.LogRecord(name, level, "/lib.py", 1, "line at %d", (level,), None)
        logs.identify(made)
        logs.take(logger, made)
    assert [line.body for line in watchkeep_capture.logs()] == ["line at 20"]


@pytest.mark.parametrize("name", ["app", "openai_of_mine", "LiteLLM of mine", "mylangchain_x", "root"])
def test_debug_lines_of_the_app_are_shipped(watchkeep_capture: Capture, name: str) -> None:
    """A logger that is only called like one of theirs is the app's."""
    made = logging.LogRecord(name, logging.DEBUG, "/app.py", 1, "line", (), None)
    logs.identify(made)
    logs.take(logging.getLogger(name), made)
    assert [line.body for line in watchkeep_capture.logs()] == ["line"]


# -- its form --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("level", "number"),
    [(-5, 0), (0, 0), (5, 4), (10, 5), (15, 8), (20, 9), (25, 12), (30, 13), (40, 17), (50, 21), (60, 24), (999, 24)],
)
def test_severity(level: int, number: int) -> None:
    """Levels map to OTLP's ranges: ten levels of logging are four numbers."""
    assert logs.severity(level) == number


def record(**fields: Any) -> logging.LogRecord:
    made = logging.LogRecord("app.form", 20, "/app.py", 7, "text", (), None, "work")
    made.__dict__.update(fields)
    return made


class Hostile:
    """Whatever is asked of it, it raises."""

    def __getattribute__(self, name: str) -> Any:
        raise RuntimeError(name)

    def __str__(self) -> str:
        raise RuntimeError("no text")

    __repr__ = __len__ = __bool__ = __hash__ = __iter__ = __index__ = __str__  # type: ignore[assignment]


class Tricky(str):
    def __str__(self) -> str:
        raise RuntimeError("no text")

    __len__ = __mod__ = __eq__ = __hash__ = __format__ = __str__  # type: ignore[assignment]


@pytest.mark.parametrize(
    ("fields", "body"),
    [
        ({"msg": Hostile()}, "<Hostile>"),
        ({"msg": Tricky("a %s"), "args": (Tricky("b"),)}, "a b"),
        ({"msg": "%s", "args": (Hostile(),)}, "<Hostile>"),
        ({"msg": "%(a)s", "args": {"a": Hostile()}}, "<Hostile>"),
        ({"msg": "%d", "args": (Hostile(),)}, "%d"),
        ({"msg": "%s %s", "args": (1,)}, "%s %s"),
        ({"msg": "%*d", "args": (10**9, 1)}, "%*d"),
        ({"msg": "%1000000000d", "args": (1,)}, "%1000000000d"),
        ({"msg": "%s", "args": Hostile()}, "%s"),
        ({"msg": None}, None),
        ({"msg": ["a", 1]}, ["a", 1]),
        ({"msg": "%s", "args": (ValueError("why"),)}, "why"),
        ({"msg": "%s", "args": (KeyError(Hostile()),)}, "<KeyError>"),
        ({"msg": "text", "extra": Hostile(), "nan": float("nan")}, "text"),
        ({"msg": "text", "message": Hostile(), "exc_info": (None, None, None)}, "text"),
    ],
)
def test_whatever_a_record_holds(watchkeep_capture: Capture, fields: dict[str, Any], body: Any) -> None:
    """No object of the app's is asked for anything, and the line can be encoded."""
    from watchkeep.export.encode import log_bytes

    line = logs.line(record(**fields))
    assert line.body == body
    assert log_bytes(line)


def test_what_a_handler_formatted_is_taken(watchkeep_capture: Capture) -> None:
    """The text is made once: by the app's formatter, where there is one."""
    assert logs.line(record(msg="%s", args=("a",), message="as printed")).body == "as printed"


def test_a_long_line_is_cut(watchkeep_capture: Capture) -> None:
    """Ten megabytes of text and of a field become two values of the usual size."""
    line = logs.line(record(msg="x" * 10_000_000, more="y" * 10_000_000))
    assert len(line.body) <= 8192
    assert len(line.attributes["more"]) <= 8192


def test_the_setting_says_how_long() -> None:
    """`value_max_bytes` bounds text and fields of a line."""
    from dataclasses import replace

    from watchkeep.config import load
    from watchkeep.testing import capture

    with capture(replace(load().config, value_max_bytes=100)):
        line = logs.line(record(msg="x" * 1000, more="y" * 1000))
    with capture():
        assert len(logs.line(record(msg="x" * 1000)).body) == 1000
    assert (len(line.body), len(line.attributes["more"])) == (100, 100)


def test_what_we_say_is_not_the_apps(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """A warning of the export goes to stderr, never to the handlers that the app has chosen."""
    from watchkeep.export.voice import Voice

    ours, seen = logging.getLogger("watchkeep"), []
    monkeypatch.setattr(ours, "handlers", [])
    monkeypatch.setattr(ours, "propagate", True)
    monkeypatch.setattr(logging.getLogger(), "filters", [])
    handler = logging.Handler()
    monkeypatch.setattr(handler, "emit", seen.append)
    monkeypatch.setattr(logging.getLogger(), "handlers", [handler])
    voice = Voice()
    monkeypatch.setattr(voice, "_news", lambda _: {("traces", "queue_full"): 3})
    voice.speak([])
    assert seen == []
    assert "watchkeep: Lost: 3 spans" in capsys.readouterr().err


@pytest.mark.parametrize("ids", [{"trace_id": "x"}, {"trace_id": None}, {"trace_id": "1" * 99, "span_id": "2"}])
def test_ids_of_the_apps_own_are_not_ours(watchkeep_capture: Capture, ids: dict[str, Any]) -> None:
    """What the app writes under these names is not taken for a span, unless it is one."""
    line = logs.line(record(correlation_id="a", span_id="b") if not ids else record(correlation_id="a", **ids))
    assert (line.trace_id, line.span_id) == (0, 0)


def test_a_deep_traceback_is_bounded() -> None:
    """Of a recursion the innermost frames remain, and causes are told."""

    def dive(depth: int) -> None:
        if depth == 0:
            raise ValueError("secret")
        dive(depth - 1)

    try:
        try:
            dive(500)
        except ValueError as cause:
            raise RuntimeError("outer") from cause
    except RuntimeError as error:
        found = raised.attributes_of(error, error.__traceback__, content=False)
    stack = found[names.EXCEPTION_STACKTRACE]
    assert stack.count("  File ") < 50
    assert "frames before]" in stack
    assert stack.index("ValueError") < stack.index("RuntimeError")
    assert "secret" not in stack


def test_lines_while_the_pipeline_is_made_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits for a pipeline that another thread makes, and no line is lost by that."""
    from watchkeep.config import load

    monkeypatch.setenv("OTEL_LOGS_EXPORTER", "otlp")
    before = runtime.replace(None)
    captured = Capture()
    config = load().config
    inside, go_on = threading.Event(), threading.Event()
    real = runtime.Runtime

    def slow(_: Any) -> Any:
        inside.set()
        logs.take(logging.getLogger("app.form"), record(msg="from the maker"))
        go_on.wait(10)
        return real(config, captured)

    monkeypatch.setattr(runtime, "Runtime", slow)
    monkeypatch.setattr(runtime, "config", lambda: config)
    try:
        thread = threading.Thread(target=runtime.get)
        thread.start()
        inside.wait(10)
        logs.take(logging.getLogger("app.form"), record(msg="from another"))
        go_on.set()
        thread.join()
        captured._drain = runtime.get().emitter.drain
        assert [line.body for line in captured.logs()] == ["from the maker", "from another"]
    finally:
        runtime.replace(before)

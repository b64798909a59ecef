"""`--console`: each finished trace as a tree on stderr: bars, attempts, waits, ledger, blame, tokens.

A trace is printed when its root has ended. Spans that come later, or whose root lives in another
process, are printed once nothing was added to them for a while, and at exit.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, TextIO

from watchkeep import names
from watchkeep.export.model import STATUS_ERROR, SpanData

_REMOTE = 0x200  # OTLP's flag: the parent is another process's span
_PATIENCE = 3.0  # seconds that a trace without its root may wait for more
_MAX_TRACES, _MAX_SPANS = 256, 512
_TREE, _BAR = 46, 30  # columns
_COLOURS = {"error": "31", "dim": "2", "bold": "1", "wait": "33", "phase": "36"}
_PREFIX = {True: ("├─ ", "└─ ", "│  ", "   "), False: ("|- ", "`- ", "|  ", "   ")}
_BLOCK = {True: "█", False: "#"}
_THIN = {True: "·", False: "."}


class Trace:
    """The spans of one trace, as far as they have ended."""

    __slots__ = ("ended", "spans", "touched")

    def __init__(self) -> None:
        self.spans: list[SpanData] = []
        self.ended = False
        self.touched = 0.0


class Line(NamedTuple):
    """One span of the tree, ready to be laid out."""

    span: SpanData
    lead: str


class Console:
    """Collects spans by trace and prints the trees."""

    def __init__(self, stream: TextIO | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self.stream = stream
        self.clock = clock
        self.traces: dict[int, Trace] = {}

    def add_spans(self, spans: list[SpanData]) -> None:
        """Take finished spans; print every trace whose root is among them, and those that waited long enough."""
        now = self.clock()
        for span in spans:
            self._take(span, now)
        for trace_id, trace in list(self.traces.items()):
            if trace.ended or now - trace.touched > _PATIENCE:
                self._print(self.traces.pop(trace_id))

    def close(self) -> None:
        """Print what is left."""
        for trace_id in list(self.traces):
            self._print(self.traces.pop(trace_id))

    def forget(self) -> None:
        """Drop what is left: in a forked child it is the parent's to print."""
        self.traces = {}

    def _take(self, span: SpanData, now: float) -> None:
        trace = self.traces.get(span.trace_id)
        if trace is None:
            if len(self.traces) >= _MAX_TRACES:
                self._print(self.traces.pop(next(iter(self.traces))))
            trace = self.traces[span.trace_id] = Trace()
        trace.touched = now
        trace.ended = trace.ended or span.parent_id == 0 or bool(span.flags & _REMOTE)
        if len(trace.spans) < _MAX_SPANS:
            trace.spans.append(span)

    def _print(self, trace: Trace) -> None:
        stream = self.stream or sys.stderr
        try:
            stream.write("".join(f"{line}\n" for line in render(trace.spans, Paint(stream))))
            stream.flush()
        except (OSError, ValueError):
            return  # a closed or broken stderr takes no trees


class Paint:
    """What the stream can show: colours on a terminal, block characters where its encoding has them."""

    __slots__ = ("colours", "unicode")

    def __init__(self, stream: Any) -> None:
        self.colours = bool(getattr(stream, "isatty", bool)()) and not os.environ.get("NO_COLOR")
        self.unicode = "utf" in (getattr(stream, "encoding", "") or "").lower()

    def __call__(self, text: str, style: str) -> str:
        """Return `text` in a style, where the stream shows styles."""
        return f"\x1b[{_COLOURS[style]}m{text}\x1b[0m" if self.colours else text


def render(spans: list[SpanData], paint: Paint) -> Iterator[str]:
    """Yield the lines of one trace."""
    start = min(span.start_ns for span in spans)
    whole = max(max(span.end_ns for span in spans) - start, 1)
    for line in _lines(spans, paint.unicode):
        yield _row(line, start, whole, paint)
        ledger = _ledger(line.span)
        if ledger:
            indent = " " * (len(line.lead) + 2)
            yield paint(f"{indent}{ledger}", "phase")
    correlation = next((_text(s, names.AGENT_RUNTIME_CORRELATION_ID) for s in reversed(spans)), "")
    yield paint(f"  correlation {correlation or '-'}  trace {spans[0].trace_id:032x}", "dim")


def _lines(spans: list[SpanData], unicode: bool) -> Iterator[Line]:
    known = {span.span_id for span in spans}
    children: dict[int, list[SpanData]] = {}
    for span in sorted(spans, key=lambda span: (span.start_ns, -span.end_ns)):
        children.setdefault(span.parent_id if span.parent_id in known else 0, []).append(span)
    tee, corner, pipe, blank = _PREFIX[unicode]

    def below(parent: int, lead: str) -> Iterator[Line]:
        last = len(children.get(parent, ())) - 1
        for index, span in enumerate(children.get(parent, ())):
            yield Line(span, lead + (corner if index == last else tee))
            yield from below(span.span_id, lead + (blank if index == last else pipe))

    for span in children.get(0, ()):
        yield Line(span, "")
        yield from below(span.span_id, "")


def _row(line: Line, start: int, whole: int, paint: Paint) -> str:
    span = line.span
    failed = span.status_code == STATUS_ERROR
    title = f"{line.lead}{safe(_title(span))}"
    tree = f"{title[:_TREE]:<{_TREE}}"
    bar = _bar(span, start, whole, paint.unicode)
    style = "error" if failed else "wait" if _is_wait(span) else "bold" if not line.lead else ""
    shown = f"{tree} {bar} {_seconds(span):>9}"
    facts = "  ".join(_facts(span))
    return (paint(shown, style) if style else shown) + (f"  {safe(facts)}" if facts else "")


def _title(span: SpanData) -> str:
    attempt = span.attributes.get(names.RESILIENCE_RETRY_ATTEMPT)
    return f"{span.name} #{attempt + 1}" if isinstance(attempt, int) else span.name


def _is_wait(span: SpanData) -> bool:
    return span.name.startswith((names.POOL_WAIT.prefix, names.RETRY.prefix))


def _bar(span: SpanData, start: int, whole: int, unicode: bool) -> str:
    first = min((span.start_ns - start) * _BAR // whole, _BAR - 1)
    last = max(first + 1, -(-(span.end_ns - start) * _BAR // whole))
    return _THIN[unicode] * first + _BLOCK[unicode] * (last - first) + _THIN[unicode] * (_BAR - last)


def _seconds(span: SpanData) -> str:
    spent = (span.end_ns - span.start_ns) / 1e9
    return f"{spent:.2f} s" if spent >= 1 else f"{spent * 1e3:.1f} ms"


def _facts(span: SpanData) -> Iterator[str]:
    attributes = span.attributes
    status = attributes.get(names.HTTP_RESPONSE_STATUS_CODE)
    if status and str(status) != attributes.get(names.ERROR_TYPE):
        yield str(status)
    if (delay := attributes.get(names.RESILIENCE_RETRY_DELAY)) is not None:
        yield f"after {delay:.2f} s of back-off"
    if attributes.get(names.RESILIENCE_POOL_CONNECTION_REUSED) is False:
        yield "new connection"
    yield from _breaker_facts(attributes)
    if (error := attributes.get(names.ERROR_TYPE)) is not None:
        origin = attributes.get(names.RESILIENCE_FAULT_ORIGIN)
        yield f"{error} ({origin}'s fault)" if origin else str(error)
    if (outcome := attributes.get(names.AGENT_RUNTIME_STREAM_OUTCOME)) is not None:
        yield f"stream {outcome}"
    yield from _token_facts(attributes)


def _breaker_facts(attributes: dict[str, Any]) -> Iterator[str]:
    state = attributes.get(names.RESILIENCE_CIRCUIT_BREAKER_STATE)
    before = attributes.get(names.RESILIENCE_CIRCUIT_BREAKER_PREVIOUS_STATE)
    if state and before:
        yield f"{before} -> {state}"
    elif state and attributes.get(names.RESILIENCE_CIRCUIT_BREAKER_OUTCOME) == "rejected":
        yield f"rejected, {state}"


def _token_facts(attributes: dict[str, Any]) -> Iterator[str]:
    given, made = (attributes.get(key) for key in (names.GEN_AI_USAGE_INPUT_TOKENS, names.GEN_AI_USAGE_OUTPUT_TOKENS))
    if given is not None or made is not None:
        yield f"{'?' if given is None else given} -> {'?' if made is None else made} tokens"


def _ledger(span: SpanData) -> str:
    spent = {
        phase: value
        for phase, key in names.PHASE_KEYS.items()
        if isinstance(value := span.attributes.get(key), float) and value >= 0.0005
    }
    whole = sum(spent.values())
    parts = sorted(spent.items(), key=lambda item: -item[1])
    return "time: " + ", ".join(f"{phase} {_part(value, whole)}" for phase, value in parts) if parts else ""


def _part(value: float, whole: float) -> str:
    shown = f"{value:.2f} s" if value >= 1 else f"{value * 1e3:.0f} ms"
    return f"{shown} ({value / whole:.0%})"


def _text(span: SpanData, key: str) -> str:
    value = span.attributes.get(key)
    return value if isinstance(value, str) else ""


def safe(text: str) -> str:
    """Return `text` without what a terminal would act on: control, bidi and line separator characters."""
    return text if text.isprintable() else "".join(c if c.isprintable() else f"\\u{ord(c):04x}" for c in text)

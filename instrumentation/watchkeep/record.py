"""What one operation knows: identity, times, attributes, outcome. It opens once and closes exactly once.

A record costs the caller a few assignments; everything that is derived from it (final attributes, metrics,
the exported span) is made later by the emitter, off the request path.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, NamedTuple

from watchkeep import clock, context, guard, logical, names, runtime, tracing
from watchkeep.export.model import Scope
from watchkeep.export.sanitise import clean_attributes
from watchkeep.names import Metric, Span

if TYPE_CHECKING:
    from opentelemetry.trace import TraceState

    from watchkeep.blame import Blame
    from watchkeep.emit import Emitter
    from watchkeep.export.model import LogData


class Measure(NamedTuple):
    """One metric of a record: `value` returns the measurement, several of them, or None for none."""

    metric: Metric
    value: Callable[[Any], float | list[float] | None]
    extra: dict[str, Any] | None = None  # labels that the span does not carry


class Record:
    """One operation of ours: a span and its measurements.

    `attributes` are the span's; readers add to them until the record closes. `error` is
    (error.type, origin) once the operation failed.
    """

    __slots__ = (
        "__weakref__",
        "app_span",
        "attributes",
        "begin",
        "closed",
        "correlation",
        "end",
        "entity",
        "error",
        "message",
        "parent_id",
        "remote_parent",
        "sampled",
        "scope",
        "span",
        "span_id",
        "start_ns",
        "tokens",
        "trace_id",
        "trace_state",
        "visible",
    )

    begin: int
    correlation: str
    end: int
    entity: dict[str, Any]
    parent_id: int
    remote_parent: bool
    sampled: bool
    span_id: int
    start_ns: int
    trace_id: int
    trace_state: TraceState

    measures: Any = ()
    """What it is measured by: a tuple of `Measure`, or a property that gives one."""

    ours = False
    """Whether every value was made by us: then nothing in it has to be cut, masked or replaced."""

    def __init__(self, span: Span, scope: Scope, attributes: dict[str, Any]) -> None:
        self.span = span
        self.scope = scope
        self.attributes = attributes
        self.error: Blame | None = None
        self.message = ""
        self.closed = False
        self.visible = True
        self.tokens: tuple[Any, ...] | None = None
        self.app_span: Any = None

    def open(self, parent: Record | None = None, since: int = 0) -> None:
        """Start: take the time, the correlation ID and a place in the trace (below `parent`, else what is current).

        `since` is the monotonic time of a start in the past, for what turned out to be an operation later.
        """
        if parent is not None:
            self.correlation = parent.correlation
        else:
            self.correlation = context.correlation_id()
            if context.logical.get() is not None:
                logical.mark(self.attributes)
        self.entity = context.entity.get()
        self.start_ns = clock.wall()
        self.begin = clock.monotonic()
        if since:
            self.start_ns -= self.begin - since
            self.begin = since
        tracing.place(self, parent)

    def fail(self, blame: Blame, message: str = "") -> None:
        """Note why the operation failed."""
        self.error = blame
        self.message = message

    def close(self, now: int = 0) -> bool:
        """End the record and hand it to the emitter; only the first call counts."""
        if self.closed:
            return False
        self.closed = True
        self.end = now or clock.monotonic()
        emitter = runtime.emitter()
        if guard.collecting():
            emitter.put_off(self.deliver, emitter)
        else:
            self.deliver(emitter)
        return True

    def deliver(self, emitter: Emitter) -> None:
        """End the span that the app's provider made, and hand the closed record to the emitter."""
        if self.app_span is not None:
            tracing.finish(self)
        emitter.put(self)

    def complete(self) -> None:
        """Write the attributes that are only known at the end; called once."""
        attributes = self.attributes
        attributes[names.AGENT_RUNTIME_CORRELATION_ID] = self.correlation
        if self.entity:
            for key, value in self.entity.items():
                attributes.setdefault(key, value)
        if self.error is not None:
            attributes[names.ERROR_TYPE], attributes[names.RESILIENCE_FAULT_ORIGIN] = self.error
        if not self.ours:
            self.attributes = clean_attributes(attributes)

    def told(self) -> Iterable[LogData]:
        """Return what it says in log records once it is complete."""
        return ()

    @property
    def seconds(self) -> float:
        """How long it took."""
        return (self.end - self.begin) / 1e9

    @property
    def end_ns(self) -> int:
        """The wall time of the end: the start plus monotonic time."""
        return self.start_ns + self.end - self.begin


def seconds(record: Record) -> float:
    """The duration, as the value of a `Measure`."""
    return record.seconds

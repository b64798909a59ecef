"""A span that becomes one only when somebody asks for its ids: a retry that may pass at once, a task in a thread."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from opentelemetry import trace

from watchkeep import guard
from watchkeep.tracing import LiveSpan, span_of

if TYPE_CHECKING:
    from watchkeep.record import Record


class PendingSpan(LiveSpan):
    """Stands where an operation may prove to be a span: it becomes one when something is to be below it.

    `find(make)` returns its record, which it makes where that is asked for and still possible. What the app adds to
    the current span lands where it would without us, on the span around, while that records; it opens nothing.
    """

    __slots__ = ("_find", "outer")

    outer: trace.Span

    def __init__(self, outer: trace.Span, find: Callable[[bool], Record | None]) -> None:
        self.outer = outer
        self._find = find

    def known(self) -> trace.Span | None:
        """Return the span that it has become, without making it one."""
        record = self._find(False)
        return None if record is None else span_of(record)

    def get_span_context(self) -> trace.SpanContext:
        """Return the ids, which makes it a span; those of the span around where it cannot be one."""
        record = guard.run(self._find, True)
        return (self.outer if record is None else span_of(record)).get_span_context()

    def is_recording(self) -> bool:
        """Whether attributes are taken: by the span around, else by the operation."""
        return self._taker().is_recording()

    def _taker(self) -> trace.Span:
        if self.outer.is_recording():
            return self.outer
        return self.known() or self.outer

    def set_attribute(self, key: str, value: Any) -> None:
        """Add one attribute."""
        self._taker().set_attribute(key, value)

    def set_attributes(self, attributes: Mapping[str, Any]) -> None:
        """Add attributes."""
        self._taker().set_attributes(dict(attributes))

    def add_event(self, name: str, attributes: Any = None, timestamp: int | None = None) -> None:
        """Add an event."""
        self._taker().add_event(name, attributes, timestamp)

    def update_name(self, name: str) -> None:
        """Rename the span around."""
        self.outer.update_name(name)

    def set_status(self, status: Any, description: str | None = None) -> None:
        """Set the status of the span around."""
        self.outer.set_status(status, description)

    def record_exception(self, exception: BaseException, *args: Any, **kwargs: Any) -> None:
        """Record an exception on the span around."""
        self.outer.record_exception(exception, *args, **kwargs)


def known(span: trace.Span) -> trace.Span:
    """Return the innermost span that is one by now, from `span` outwards; nothing becomes one."""
    while isinstance(span, PendingSpan):
        found = span.known()
        if found is not None:
            return found
        span = span.outer
    return span

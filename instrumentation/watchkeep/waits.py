"""Waiting before a call: for a thread of an executor, for a permit of a limiter.

Such a wait is measured always and a span only inside a trace; on the innermost operation of ours around it stands
how long it was, so that the time before an LLM call is accounted for like the time within.
"""

from __future__ import annotations

from typing import Any

from opentelemetry import trace

from watchkeep import context, names, pending, runtime
from watchkeep.export.model import Scope
from watchkeep.logical import here
from watchkeep.names import Span
from watchkeep.record import Record

NOTICEABLE_NS = 1_000_000  # a thread that is free takes less to wake up


class Measured(Record):
    """An operation that is measured, and a span only once it was opened."""

    __slots__ = ()

    def __init__(self, span: Span, scope: Scope, attributes: dict[str, Any]) -> None:
        super().__init__(span, scope, attributes)
        self.visible = self.sampled = False
        self.trace_id = self.span_id = self.start_ns = self.begin = 0

    def open(self, parent: Record | None = None, since: int = 0) -> None:
        """Become a span."""
        self.visible = True
        super().open(parent, since)

    def complete(self) -> None:
        """Write what is only known at the end."""
        if self.visible:
            super().complete()
        elif self.error is not None:
            self.attributes[names.ERROR_TYPE] = self.error[0]


def in_a_trace() -> bool:
    """Whether what begins here belongs to something that has begun before."""
    return context.current.get() is not None or traced(trace.get_current_span()) or here() is not None


def traced(span: trace.Span) -> bool:
    """Whether a span is one, without making it one."""
    return pending.known(span).get_span_context().is_valid


def before_a_call(phase: str, scope: Scope, waited: int, around: Record | None) -> None:
    """Note a wait (ns) before a call, and put it on the operation that was under way around it."""
    if waited < NOTICEABLE_NS:
        return
    spent, key = waited / 1e9, names.PHASE_KEYS[phase]
    runtime.emitter().measure(names.METRIC_RESILIENCE_CALL_TIME, scope, {names.RESILIENCE_CALL_PHASE: phase}, spent)
    if around is not None and not around.closed:
        around.attributes[key] = around.attributes.get(key, 0.0) + spent

"""Where a span lives: in our own pipeline, or in the tracer provider that the app brought.

In ours, a record carries its ids itself and a `LiveSpan` stands for it in OpenTelemetry's context. When
the app set a provider, the same record becomes a span of that provider, so that the app's processors and
exporters see it; ours then sees it as a further reader of that pipeline (providers.py).
"""

from __future__ import annotations

import os
import random
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.trace.status import Status, StatusCode

from watchkeep import context, guard, runtime
from watchkeep.logical import here

if TYPE_CHECKING:
    from watchkeep.export.model import Scope
    from watchkeep.record import Record

SAMPLED = trace.TraceFlags(trace.TraceFlags.SAMPLED | 2)  # 2: the trace id is random (W3C trace context level 2)
UNSAMPLED = trace.TraceFlags(2)
_KINDS = {1: trace.SpanKind.INTERNAL, 2: trace.SpanKind.SERVER, 3: trace.SpanKind.CLIENT}
_NO_STATE = trace.TraceState()

# An own generator: apps seed the global one, and equal seeds in two processes would make equal ids.
_random = random.Random(os.urandom(32))  # noqa: S311 - ids, not secrets


def _reseed() -> None:
    _random.seed(os.urandom(32))


os.register_at_fork(after_in_child=_reseed)


def new_span_id() -> int:
    """Return a random span id."""
    return _random.getrandbits(64) or 1


def new_trace_id() -> int:
    """Return a random trace id."""
    return _random.getrandbits(128) or 1


class LiveSpan(trace.Span):
    """An open record in OpenTelemetry's context: what the app adds to the current span lands on the record."""

    __slots__ = ("_context", "_record")

    outer: trace.Span | None = None  # of one that stands before another (pending.py): that other

    def __init__(self, record: Record, span_context: trace.SpanContext) -> None:
        self._record = record
        self._context = span_context

    def get_span_context(self) -> trace.SpanContext:
        """Return the ids."""
        return self._context

    def is_recording(self) -> bool:
        """Whether attributes are still taken."""
        return self._record.sampled and not self._record.closed

    def set_attribute(self, key: str, value: Any) -> None:
        """Add one attribute to the record."""
        if self.is_recording():
            self._record.attributes[key] = value

    def set_attributes(self, attributes: Mapping[str, Any]) -> None:
        """Add attributes to the record."""
        if self.is_recording():
            self._record.attributes.update(attributes)

    def add_event(self, name: str, attributes: Any = None, timestamp: int | None = None) -> None:
        """Leave span events alone: ours are log records."""

    def update_name(self, name: str) -> None:
        """Keep the standard name."""

    def set_status(self, status: Any, description: str | None = None) -> None:
        """Keep the outcome that we saw."""

    def record_exception(self, exception: BaseException, *args: Any, **kwargs: Any) -> None:
        """Leave exceptions to the hook that saw them."""

    def end(self, end_time: int | None = None) -> None:
        """Leave the end to the record."""


def place(record: Record, parent: Record | None) -> None:
    """Give a record its ids: below `parent`, else below the span that is current in OpenTelemetry's context."""
    if parent is not None:
        record.trace_id, record.parent_id = parent.trace_id, parent.span_id
        record.trace_state, record.remote_parent = parent.trace_state, False
        sampled: bool | None = parent.sampled
    else:
        sampled = _place_below_current(record)
    provider = trace._TRACER_PROVIDER
    if provider is not None and record.visible:
        guard.run(_place_in_app, record, parent, provider)
    if record.app_span is None:
        record.span_id = new_span_id()
        record.sampled = _sample(record, sampled)


def _place_below_current(record: Record) -> bool | None:
    found = trace.get_current_span().get_span_context()
    if found.trace_id:
        record.trace_id, record.parent_id = found.trace_id, found.span_id
        record.trace_state, record.remote_parent = found.trace_state, found.is_remote
        return bool(found.trace_flags & 1)
    logical = here()
    record.trace_id, record.parent_id = new_trace_id() if logical is None else logical.trace_id(new_trace_id), 0
    record.trace_state, record.remote_parent = _NO_STATE, False
    return None


def _sample(record: Record, parent: bool | None) -> bool:
    sampler = runtime.sampler()
    if sampler is None:
        return parent is not False
    return sampler(parent, record.trace_id, record.span.name(record.attributes), record.span.kind, record.attributes)


_tracers: dict[Scope, tuple[trace.TracerProvider, trace.Tracer]] = {}  # of the provider that is set


def _tracer(provider: trace.TracerProvider, scope: Scope) -> trace.Tracer:
    found = _tracers.get(scope)
    if found is None or found[0] is not provider:
        from watchkeep.providers import joining

        joining.saw("traces", provider)  # a test may have put it there past the API's function
        tracer = provider.get_tracer(scope.name, scope.version or None, scope.schema_url or None)
        found = _tracers[scope] = provider, tracer
    return found[1]


def _place_in_app(record: Record, parent: Record | None, provider: trace.TracerProvider) -> None:
    below = None
    if parent is not None:
        below = trace.set_span_in_context(span_of(parent))
    span = _tracer(provider, record.scope).start_span(
        record.span.name(record.attributes),
        context=below,
        kind=_KINDS[record.span.kind],
        attributes=record.attributes,
        start_time=record.start_ns,
        record_exception=False,
        set_status_on_exception=False,
    )
    found = span.get_span_context()
    if not found.is_valid:  # a provider that makes nothing
        return
    record.trace_id, record.span_id = found.trace_id, found.span_id
    record.trace_state, record.sampled = found.trace_state, bool(found.trace_flags & 1)
    record.app_span = span


_LLM_OPERATIONS = frozenset(("chat", "text_completion", "generate_content", "embeddings"))
_LLM_MARKS = ("llm.request.type", "llm.model_name")  # of instrumentations with names of their own


def owner_of_llm_span() -> trace.Span | None:
    """Return the current span when another instrumentation made it for the LLM call that is about to begin."""
    span = trace.get_current_span()
    while isinstance(span, LiveSpan) and span.outer is not None:
        span = span.outer
    if isinstance(span, LiveSpan) or not span.is_recording():
        return None
    attributes = getattr(span, "attributes", None) or {}
    if attributes.get("gen_ai.operation.name") in _LLM_OPERATIONS:
        return span
    return span if any(mark in attributes for mark in _LLM_MARKS) else None


def span_of(record: Record) -> trace.Span:
    """Return the OpenTelemetry span that stands for an open record."""
    owner = getattr(record, "owner", None)
    if owner is not None:
        return owner  # type: ignore[no-any-return]
    if record.app_span is not None:
        return record.app_span  # type: ignore[no-any-return]
    return LiveSpan(record, span_context(record))


def span_context(record: Record) -> trace.SpanContext:
    """Return the ids of a record as OpenTelemetry's span context."""
    flags = SAMPLED if record.sampled else UNSAMPLED
    return trace.SpanContext(record.trace_id, record.span_id, False, flags, record.trace_state)


def attach(record: Record) -> None:
    """Make the record the current span and the current operation here, until `detach` in the same context."""
    token = otel_context.attach(trace.set_span_in_context(span_of(record)))
    record.tokens = (token, context.current.set(record))


def detach(record: Record) -> None:
    """Undo `attach`."""
    tokens, record.tokens = record.tokens, None
    if tokens is not None:
        otel_context._RUNTIME_CONTEXT.detach(tokens[0])
        context.current.reset(tokens[1])


def write(span: trace.Span, attributes: Mapping[str, Any]) -> None:
    """Put attributes on a span of somebody else's, unless it has ended."""
    if span.is_recording():
        span.set_attributes(attributes)


def finish(record: Record) -> None:
    """End the span that the app's provider made for a record."""
    guard.run(_finish, record, record.app_span)


def _finish(record: Record, span: trace.Span) -> None:
    record.complete()
    span.set_attributes(record.attributes)
    span.update_name(record.span.name(record.attributes))
    if record.error is not None:
        span.set_status(Status(StatusCode.ERROR, record.message or None))
    span.end(end_time=record.end_ns)

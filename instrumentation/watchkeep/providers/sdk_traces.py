"""The SDK's spans, handed to our pipeline: from a provider of ours, or read along in the app's."""

from __future__ import annotations

from typing import Any

from opentelemetry.context import Context
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, Span, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.id_generator import IdGenerator

from watchkeep import context, guard, names, runtime, tracing
from watchkeep.emit import Foreign
from watchkeep.export.model import SpanData
from watchkeep.export.sdk import span_data


class Ids(IdGenerator):
    """Ids from the same source as our own spans have."""

    def generate_span_id(self) -> int:
        """Return a new span id."""
        return tracing.new_span_id()

    def generate_trace_id(self) -> int:
        """Return a new trace id."""
        return tracing.new_trace_id()

    def is_trace_id_random(self) -> bool:
        """Say that every bit of it is random."""
        return True


class OwnSpans(SpanProcessor):
    """Puts correlation on the spans that others make with our provider, and sends them with our resource."""

    @guard.guarded
    def on_start(self, span: Span, parent_context: Context | None = None) -> None:  # noqa: ARG002
        """Say what the span belongs to."""
        span.set_attribute(names.AGENT_RUNTIME_CORRELATION_ID, context.correlation_id())
        span.set_attributes(context.entity_attributes())

    @guard.guarded
    def on_end(self, span: ReadableSpan) -> None:
        """Take the span."""
        take(span, _with_our_resource)


class JoinedSpans(SpanProcessor):
    """Reads along in the app's provider, as long as the app does not send to our end point itself."""

    def __init__(self, overlap: Any) -> None:
        self.overlap = overlap

    @guard.guarded
    def on_end(self, span: ReadableSpan) -> None:
        """Take the span."""
        if not self.overlap():
            take(span, span_data)


def take(span: ReadableSpan, convert: Any) -> None:
    """Hand a sampled span over; it is converted off the app's path."""
    if span.context is not None and span.context.trace_flags.sampled:
        runtime.emitter().put(Foreign(convert, span))


def _with_our_resource(span: ReadableSpan) -> SpanData:
    made = span_data(span)
    made.resource = None
    return made


def make(resource: Resource) -> TracerProvider:
    """Return a provider whose spans go through our pipeline, sampled as the environment says."""
    provider = TracerProvider(resource=resource, id_generator=Ids(), shutdown_on_exit=False)
    provider.add_span_processor(OwnSpans())
    return provider

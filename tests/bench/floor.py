"""The floor, as anybody would write it by hand with OpenTelemetry: a span, three histogram records, official export."""

from __future__ import annotations

import time
from collections.abc import Callable

from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import SpanKind

_spans = TracerProvider()
_spans.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
_metrics = MeterProvider([PeriodicExportingMetricReader(OTLPMetricExporter())])
_tracer = _spans.get_tracer("floor")
_meter = _metrics.get_meter("floor")
_duration = _meter.create_histogram("gen_ai.client.operation.duration", unit="s")
_tokens = _meter.create_histogram("gen_ai.client.token.usage", unit="{token}")
_LABELS = {
    "gen_ai.operation.name": "chat",
    "gen_ai.provider.name": "openai",
    "gen_ai.request.model": "bench",
    "server.address": "127.0.0.1",
}
_ATTRIBUTES = {
    **_LABELS,
    "server.port": 80,
    "gen_ai.request.temperature": 0.7,
    "gen_ai.request.max_tokens": 800,
    "gen_ai.request.top_p": 1.0,
    "gen_ai.output.type": "text",
    "gen_ai.response.id": "chatcmpl-1",
    "gen_ai.response.model": "bench",
    "gen_ai.response.finish_reasons": ["stop"],
    "gen_ai.usage.input_tokens": 10,
    "gen_ai.usage.output_tokens": 20,
    "correlation.id": "0123456789abcdef0123456789abcdef",
}


def observed(call: Callable[[], None]) -> Callable[[], None]:
    """Put the floor around a workload."""

    def inner() -> None:
        start = time.perf_counter()
        with _tracer.start_as_current_span("chat bench", kind=SpanKind.CLIENT, attributes=_ATTRIBUTES):
            call()
            _duration.record(time.perf_counter() - start, _LABELS)
            _tokens.record(10, {**_LABELS, "gen_ai.token.type": "input"})
            _tokens.record(20, {**_LABELS, "gen_ai.token.type": "output"})

    return inner


def flush() -> None:
    """Send everything."""
    _spans.force_flush()
    _metrics.force_flush()

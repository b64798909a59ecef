"""What was captured, made into the SDK's own objects and encoded by the official encoder, to compare bytes."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from opentelemetry._logs import LogRecord, SeverityNumber
from opentelemetry.exporter.otlp.proto.common._log_encoder import encode_logs as official_logs
from opentelemetry.exporter.otlp.proto.common.metrics_encoder import encode_metrics as official_metrics
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans as official_spans
from opentelemetry.sdk._logs import ReadableLogRecord
from opentelemetry.sdk.metrics import export as sdk
from opentelemetry.sdk.metrics._internal.exemplar import Exemplar
from opentelemetry.sdk.resources import Resource as SdkResource
from opentelemetry.sdk.trace import Event, ReadableSpan
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import Link, SpanContext, SpanKind, Status, StatusCode, TraceFlags, TraceState

from watchkeep.export.encode import encode_logs, encode_metrics, encode_spans
from watchkeep.export.model import LogData, MetricData, Resource, Scope, SpanData

RESOURCE = Resource({"service.name": "captured"})
_SDK_RESOURCE = SdkResource(RESOURCE.attributes)
_KINDS = {1: SpanKind.INTERNAL, 2: SpanKind.SERVER, 3: SpanKind.CLIENT, 4: SpanKind.PRODUCER, 5: SpanKind.CONSUMER}
_CODES = {0: StatusCode.UNSET, 1: StatusCode.OK, 2: StatusCode.ERROR}
_REMOTE = 0x200


def differences(spans: list[SpanData], logs: list[LogData], metrics: list[MetricData]) -> list[str]:
    """Return which of the three signals our encoder writes in other bytes than the official one."""
    ours = {
        "spans": encode_spans(_ungrouped(spans), RESOURCE),
        "logs": encode_logs(_ungrouped(logs), RESOURCE),
        "metrics": encode_metrics(_ungrouped(metrics), RESOURCE),
    }
    theirs = {
        "spans": official_spans([_span(span) for span in _ungrouped(spans)]).SerializeToString(),
        "logs": official_logs([_log(log) for log in _ungrouped(logs)]).SerializeToString(),
        "metrics": official_metrics(_metrics(_ungrouped(metrics))).SerializeToString(),
    }
    return [signal for signal in ours if ours[signal] != theirs[signal]]


def _ungrouped(items: Iterable[Any]) -> list[Any]:
    """Only what lives under our own resource: the SDK's objects carry theirs."""
    return [item for item in items if item.resource is None]


def _scope(scope: Scope) -> InstrumentationScope:
    return InstrumentationScope(scope.name, scope.version, scope.schema_url, dict(scope.attributes))


def _context(trace_id: int, span_id: int, remote: bool = False, state: str = "") -> SpanContext:
    return SpanContext(trace_id, span_id, remote, TraceFlags(1), TraceState.from_header([state]) if state else None)


def _span(span: SpanData) -> ReadableSpan:
    parent = _context(span.trace_id, span.parent_id, bool(span.flags & _REMOTE)) if span.parent_id else None
    return ReadableSpan(
        name=span.name,
        context=_context(span.trace_id, span.span_id, state=span.trace_state),
        parent=parent,
        resource=_SDK_RESOURCE,
        attributes=span.attributes,
        events=[Event(each.name, each.attributes, each.time_ns) for each in span.events],
        links=[Link(_context(each.trace_id, each.span_id), each.attributes) for each in span.links],
        kind=_KINDS[span.kind],
        status=Status(_CODES[span.status_code], span.status_message or None),
        start_time=span.start_ns,
        end_time=span.end_ns,
        instrumentation_scope=_scope(span.scope),
    )


def _log(log: LogData) -> ReadableLogRecord:
    record = LogRecord(
        timestamp=log.time_ns,
        observed_timestamp=log.observed_ns,
        severity_text=log.severity_text,
        severity_number=SeverityNumber(log.severity_number),
        body=log.body,
        attributes=log.attributes,
        event_name=log.event_name or None,
    )
    record.trace_id, record.span_id = log.trace_id, log.span_id
    record.trace_flags = TraceFlags(log.flags)
    return ReadableLogRecord(record, _SDK_RESOURCE, _scope(log.scope))


def _metrics(metrics: list[MetricData]) -> sdk.MetricsData:
    scopes: dict[Scope, list[sdk.Metric]] = {}
    for metric in metrics:
        scopes.setdefault(metric.scope, []).append(
            sdk.Metric(metric.name, metric.description, metric.unit, _data(metric))
        )
    grouped = [sdk.ScopeMetrics(_scope(scope), found, scope.schema_url) for scope, found in scopes.items()]
    return sdk.MetricsData([sdk.ResourceMetrics(_SDK_RESOURCE, grouped, "")])


def _data(metric: MetricData) -> Any:
    temporality = sdk.AggregationTemporality(metric.temporality)
    if metric.kind == "histogram":
        return sdk.Histogram([_histogram(point) for point in metric.points], temporality)
    points = [
        sdk.NumberDataPoint(point.attributes, point.start_ns or None, point.time_ns, point.value, _exemplars(point))
        for point in metric.points
    ]
    return sdk.Gauge(points) if metric.kind == "gauge" else sdk.Sum(points, temporality, metric.monotonic)


def _histogram(point: Any) -> sdk.HistogramDataPoint:
    return sdk.HistogramDataPoint(
        point.attributes, point.start_ns, point.time_ns, point.count, point.sum, point.counts, point.bounds,
        point.min, point.max, _exemplars(point),
    )  # fmt: skip


def _exemplars(point: Any) -> list[Exemplar]:
    return [Exemplar(e.attributes, e.value, e.time_ns, e.span_id, e.trace_id) for e in point.exemplars]

"""What the OpenTelemetry SDK hands to an exporter, turned into our model.

Follows the official encoder, so that an app's own spans look the same whoever sends them: the flags carry
only "is the parent remote", and a link's trace state is left out.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from watchkeep.export.model import (
    CUMULATIVE,
    Event,
    Exemplar,
    ExponentialPoint,
    HistogramPoint,
    Link,
    LogData,
    MetricData,
    NumberPoint,
    Resource,
    Scope,
    SpanData,
)

if TYPE_CHECKING:
    from opentelemetry.sdk._logs import ReadableLogRecord
    from opentelemetry.sdk.metrics.export import Metric, MetricsData
    from opentelemetry.sdk.resources import Resource as SdkResource
    from opentelemetry.sdk.trace import ReadableSpan
    from opentelemetry.sdk.util.instrumentation import InstrumentationScope

_HAS_REMOTE, _IS_REMOTE = 0x100, 0x200
_KINDS = {
    "Sum": "sum",
    "Gauge": "gauge",
    "Histogram": "histogram",
    "ExponentialHistogram": "exponential_histogram",
}
_NO_SCOPE = Scope("")

_resources: dict[int, tuple[Any, Resource]] = {}  # by identity: hashing an SDK resource dumps it as JSON


def resource_data(resource: SdkResource) -> Resource:
    """Turn a resource into ours, the same one each time."""
    known = _resources.get(id(resource))
    if known is None or known[0] is not resource:
        if len(_resources) > 16:
            _resources.clear()
        known = _resources[id(resource)] = (
            resource,
            Resource(dict(resource.attributes), resource.schema_url or ""),
        )
    return known[1]


def scope_data(scope: InstrumentationScope | None) -> Scope:
    """Turn an instrumentation scope into ours."""
    if not scope:
        return _NO_SCOPE
    named = tuple((key, _hashable(value)) for key, value in (scope.attributes or {}).items())
    return Scope(scope.name or "", scope.version or "", scope.schema_url or "", named)


def _hashable(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return tuple(map(_hashable, value))
    return str(type(value)) if isinstance(value, Mapping) else value


def span_data(span: ReadableSpan) -> SpanData:
    """Turn an ended SDK span into ours."""
    context = span.get_span_context()
    assert context is not None  # noqa: S101  a span that has ended has one
    parent = span.parent
    return SpanData(
        name=span.name,
        trace_id=context.trace_id,
        span_id=context.span_id,
        parent_id=parent.span_id if parent else 0,
        kind=span.kind.value + 1,
        start_ns=span.start_time or 0,
        end_ns=span.end_time or 0,
        attributes=dict(span.attributes or {}),
        scope=scope_data(span.instrumentation_scope),
        status_code=span.status.status_code.value,
        status_message=span.status.description or "",
        trace_state=_trace_state(context.trace_state),
        flags=_flags(parent),
        events=tuple(map(_event, span.events)) if span.events else (),
        links=tuple(map(_link, span.links)) if span.links else (),
        dropped_attributes=span.dropped_attributes,
        dropped_events=span.dropped_events,
        dropped_links=span.dropped_links,
        resource=resource_data(span.resource),
    )


def _trace_state(state: Mapping[str, str] | None) -> str:
    return ",".join(f"{key}={value}" for key, value in state.items()) if state else ""


def _flags(context: Any) -> int:
    return _HAS_REMOTE | _IS_REMOTE if context and context.is_remote else _HAS_REMOTE


def _event(event: Any) -> Event:
    return Event(event.name, event.timestamp or 0, dict(event.attributes or {}), event.dropped_attributes)


def _link(link: Any) -> Link:
    return Link(
        link.context.trace_id,
        link.context.span_id,
        flags=_flags(link.context),
        attributes=dict(link.attributes or {}),
        dropped_attributes=link.dropped_attributes,
    )


def log_data(record: ReadableLogRecord) -> LogData:
    """Turn an SDK log record into ours."""
    log = record.log_record
    return LogData(
        time_ns=log.timestamp or 0,
        observed_ns=log.observed_timestamp or 0,
        severity_number=getattr(log.severity_number, "value", None) or 0,
        severity_text=log.severity_text or "",
        body=log.body,
        attributes=dict(log.attributes or {}),
        scope=scope_data(record.instrumentation_scope),
        event_name=log.event_name or "",
        trace_id=log.trace_id or 0,
        span_id=log.span_id or 0,
        flags=int(log.trace_flags or 0),
        dropped_attributes=record.dropped_attributes,
        resource=resource_data(record.resource),
    )


def metrics_data(data: MetricsData) -> list[MetricData]:
    """Turn a collection of the SDK into ours, in its order."""
    out = []
    for of_resource in data.resource_metrics:
        resource = resource_data(of_resource.resource)
        for of_scope in of_resource.scope_metrics:
            scope = scope_data(of_scope.scope)
            out += [_metric(metric, scope, resource) for metric in of_scope.metrics]
    return out


def _metric(metric: Metric, scope: Scope, resource: Resource) -> MetricData:
    data: Any = metric.data
    kind = _KINDS[type(data).__name__]
    return MetricData(
        name=metric.name,
        unit=metric.unit or "",
        description=metric.description or "",
        kind=kind,
        points=[_POINTS[kind](point) for point in data.data_points],
        scope=scope,
        monotonic=bool(getattr(data, "is_monotonic", False)),
        temporality=int(getattr(data, "aggregation_temporality", CUMULATIVE)),
        resource=resource,
    )


def _number(point: Any) -> NumberPoint:
    return NumberPoint(
        dict(point.attributes or {}),
        point.start_time_unix_nano or 0,
        point.time_unix_nano or 0,
        point.value,
        _exemplars(point.exemplars),
    )


def _gauge(point: Any) -> NumberPoint:
    made = _number(point)
    made.start_ns = 0  # a gauge has none on the wire
    return made


def _histogram(point: Any) -> HistogramPoint:
    return HistogramPoint(
        dict(point.attributes or {}),
        point.start_time_unix_nano or 0,
        point.time_unix_nano or 0,
        point.count,
        point.sum,
        tuple(point.bucket_counts),
        tuple(point.explicit_bounds),
        point.min,
        point.max,
        _exemplars(point.exemplars),
    )


def _exponential(point: Any) -> ExponentialPoint:
    return ExponentialPoint(
        dict(point.attributes or {}),
        point.start_time_unix_nano or 0,
        point.time_unix_nano or 0,
        point.count,
        point.sum,
        point.scale,
        point.zero_count,
        point.positive.offset,
        tuple(point.positive.bucket_counts or ()),
        point.negative.offset,
        tuple(point.negative.bucket_counts or ()),
        point.min,
        point.max,
        _exemplars(point.exemplars),
    )


_POINTS: dict[str, Any] = {
    "sum": _number,
    "gauge": _gauge,
    "histogram": _histogram,
    "exponential_histogram": _exponential,
}


def _exemplars(exemplars: Sequence[Any]) -> tuple[Exemplar, ...]:
    return tuple(map(_exemplar, exemplars)) if exemplars else ()


def _exemplar(one: Any) -> Exemplar:
    together = one.span_id is not None and one.trace_id is not None
    return Exemplar(
        one.time_unix_nano,
        one.value,
        one.trace_id if together else 0,
        one.span_id if together else 0,
        dict(one.filtered_attributes or {}),
    )


def spans_data(spans: Iterable[ReadableSpan]) -> list[SpanData]:
    """Turn ended SDK spans into ours."""
    return [span_data(span) for span in spans]


def logs_data(records: Iterable[ReadableLogRecord]) -> list[LogData]:
    """Turn SDK log records into ours."""
    return [log_data(record) for record in records]

"""The exporter about itself: OpenTelemetry's own metrics for exporters and processors."""

from __future__ import annotations

import time
from collections import Counter
from typing import Any, NamedTuple

from watchkeep import names
from watchkeep.export.lane import Lane
from watchkeep.export.ledger import QUEUE_FULL, SUPERSEDED, Ledger
from watchkeep.export.model import MetricData, NumberPoint, Scope
from watchkeep.export.queue import ItemQueue
from watchkeep.names import Metric
from watchkeep.version import __version__

SCOPE = Scope("watchkeep.export", __version__, names.SCHEMA_CORE)


class OfQueue(NamedTuple):
    """The metrics of a queue."""

    component: str
    processed: Metric
    size: Metric
    capacity: Metric


class Kind(NamedTuple):
    """The metrics of one signal's way out."""

    component: str
    exported: Metric
    inflight: Metric
    queue: OfQueue | None = None


KINDS = {
    "traces": Kind(
        "otlp_http_span_exporter",
        names.METRIC_OTEL_SDK_EXPORTER_SPAN_EXPORTED,
        names.METRIC_OTEL_SDK_EXPORTER_SPAN_INFLIGHT,
        OfQueue(
            "batching_span_processor",
            names.METRIC_OTEL_SDK_PROCESSOR_SPAN_PROCESSED,
            names.METRIC_OTEL_SDK_PROCESSOR_SPAN_QUEUE_SIZE,
            names.METRIC_OTEL_SDK_PROCESSOR_SPAN_QUEUE_CAPACITY,
        ),
    ),
    "logs": Kind(
        "otlp_http_log_exporter",
        names.METRIC_OTEL_SDK_EXPORTER_LOG_EXPORTED,
        names.METRIC_OTEL_SDK_EXPORTER_LOG_INFLIGHT,
        OfQueue(
            "batching_log_processor",
            names.METRIC_OTEL_SDK_PROCESSOR_LOG_PROCESSED,
            names.METRIC_OTEL_SDK_PROCESSOR_LOG_QUEUE_SIZE,
            names.METRIC_OTEL_SDK_PROCESSOR_LOG_QUEUE_CAPACITY,
        ),
    ),
    "metrics": Kind(
        "otlp_http_metric_exporter",
        names.METRIC_OTEL_SDK_EXPORTER_METRIC_DATA_POINT_EXPORTED,
        names.METRIC_OTEL_SDK_EXPORTER_METRIC_DATA_POINT_INFLIGHT,
    ),
}


def of_lane(lane: Lane, queue: ItemQueue[Any] | None, start_ns: int) -> list[MetricData]:
    """Describe one lane and its queue."""
    kind = KINDS[lane.target.signal]
    now = time.time_ns()
    exporter = kind.component.replace("http", lane.target.protocol.partition("/")[0])
    where = {
        names.OTEL_COMPONENT_TYPE: exporter,
        names.OTEL_COMPONENT_NAME: f"{exporter}/0",
        names.SERVER_ADDRESS: lane.target.host,
        names.SERVER_PORT: lane.target.port,
    }
    ledger = lane.ledger
    found = [
        _metric(kind.exported, _outcomes(ledger, where, start_ns, now)),
        _metric(kind.inflight, [NumberPoint(where, start_ns, now, ledger.inflight)]),
    ]
    if kind.queue is not None and queue is not None:
        found += _of_queue(kind.queue, queue, ledger, start_ns, now)
    return found


def _outcomes(ledger: Ledger, where: dict[str, Any], start_ns: int, now: int) -> list[NumberPoint]:
    failed: Counter[str] = Counter()
    for (reason, error), number in list(ledger.lost.items()):
        if reason not in (QUEUE_FULL, SUPERSEDED):
            failed[error] += number
    points = [NumberPoint(where, start_ns, now, ledger.delivered)]
    return points + [
        NumberPoint({**where, names.ERROR_TYPE: error}, start_ns, now, number) for error, number in failed.items()
    ]


def _of_queue(kind: OfQueue, queue: ItemQueue[Any], ledger: Ledger, start_ns: int, now: int) -> list[MetricData]:
    where = {names.OTEL_COMPONENT_TYPE: kind.component, names.OTEL_COMPONENT_NAME: f"{kind.component}/0"}
    full = ledger.lost[QUEUE_FULL, QUEUE_FULL]
    handed = max(0, ledger.sent - full - len(queue))
    processed = [
        NumberPoint(where, start_ns, now, handed),
        NumberPoint({**where, names.ERROR_TYPE: QUEUE_FULL}, start_ns, now, full),
    ]
    return [
        _metric(kind.processed, processed),
        _metric(kind.size, [NumberPoint(where, start_ns, now, len(queue))]),
        _metric(kind.capacity, [NumberPoint(where, start_ns, now, queue.capacity)]),
    ]


def _metric(metric: Metric, points: list[NumberPoint]) -> MetricData:
    monotonic = metric.instrument == "counter"
    return MetricData(metric.name, metric.unit, metric.meaning, "sum", points, SCOPE, monotonic)

"""The SDK's metrics, read when our pipeline collects: from a provider of ours, or along in the app's."""

from __future__ import annotations

from typing import Any

from opentelemetry.sdk.metrics import Histogram, MeterProvider
from opentelemetry.sdk.metrics.export import MetricReader, MetricsData
from opentelemetry.sdk.metrics.view import Aggregation, ExponentialBucketHistogramAggregation
from opentelemetry.sdk.resources import Resource

from watchkeep import runtime
from watchkeep.emit import OURS
from watchkeep.export.model import MetricData
from watchkeep.export.sdk import metrics_data


class Reader(MetricReader):
    """Reads everything as cumulative sums; the pipeline makes deltas of it where they are asked for."""

    def __init__(self) -> None:
        super().__init__(preferred_aggregation=_aggregation())
        self._found: list[MetricData] = []

    def read(self) -> list[MetricData]:
        """Return what there is now, with our resource."""
        found = self._read()
        for metric in found:
            metric.resource = None
        return found

    def read_along(self) -> list[MetricData]:
        """Return what there is now in the app's provider, but for what we showed to it: that we send ourselves."""
        return [metric for metric in self._read() if not metric.scope.name.startswith(OURS)]

    def _read(self) -> list[MetricData]:
        self.collect()
        found, self._found = self._found, []
        return found

    def _receive_metrics(self, metrics_data: MetricsData, *_: Any, **__: Any) -> None:
        self._found = _converted(metrics_data)

    def force_flush(self, timeout_millis: float = 10_000) -> bool:  # noqa: ARG002 - the SDK's signature
        """Do nothing: the pipeline asks when it needs them."""
        return True

    def shutdown(self, timeout_millis: float = 30_000, **_: Any) -> None:
        """Do nothing: the pipeline has its own end."""


def _converted(data: MetricsData) -> list[MetricData]:
    return metrics_data(data)


def _aggregation() -> dict[type, Aggregation] | None:
    settings = getattr(runtime.get().pipeline, "settings", None)
    if settings is not None and settings.exponential:
        return {Histogram: ExponentialBucketHistogramAggregation()}
    return None


def make(resource: Resource) -> tuple[MeterProvider, Reader]:
    """Return a provider and the reader that our pipeline collects through."""
    reader = Reader()
    return MeterProvider(metric_readers=(reader,), resource=resource, shutdown_on_exit=False), reader

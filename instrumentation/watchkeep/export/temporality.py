"""Cumulative metrics turned into deltas, for receivers that ask for them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from watchkeep.export.model import CUMULATIVE, DELTA, HistogramPoint, MetricData, NumberPoint

_Key = tuple[Any, ...]


class Deltas:
    """Remembers the last collection and gives what was added since; gauges and up-down sums stay."""

    def __init__(self) -> None:
        self._last: dict[_Key, Any] = {}

    def convert(self, metrics: list[MetricData]) -> list[MetricData]:
        """Turn a cumulative collection into what was added since the last one."""
        seen: dict[_Key, Any] = {}
        converted = [self._metric(metric, seen) for metric in metrics]
        self._last = seen
        return [metric for metric in converted if metric.points]

    def _metric(self, metric: MetricData, seen: dict[_Key, Any]) -> MetricData:
        subtract = _SUBTRACT.get(metric.kind)
        kept = metric.kind == "sum" and not metric.monotonic
        if subtract is None or kept or metric.temporality != CUMULATIVE:
            return metric
        points = []
        for point in metric.points:
            key = metric.scope, metric.name, _labels(point.attributes)
            before = self._last.get(key)
            seen[key] = point
            points.append(point if before is None or _restarted(before, point) else subtract(before, point))
        return replace(metric, points=points, temporality=DELTA)


def _labels(attributes: dict[str, Any]) -> tuple[str, ...]:
    return tuple(sorted(f"{key}={type(value).__name__}:{value!r}" for key, value in attributes.items()))


def _restarted(before: Any, point: Any) -> bool:
    return bool(before.start_ns != point.start_ns)


def _number(before: NumberPoint, point: NumberPoint) -> NumberPoint:
    return replace(point, start_ns=before.time_ns, value=point.value - before.value)


def _histogram(before: HistogramPoint, point: HistogramPoint) -> HistogramPoint:
    if before.bounds != point.bounds:
        return point
    return replace(
        point,
        start_ns=before.time_ns,
        count=point.count - before.count,
        sum=None if point.sum is None or before.sum is None else point.sum - before.sum,
        counts=tuple(now - then for now, then in zip(point.counts, before.counts, strict=True)),
        min=None,  # of the whole time, not of this part of it
        max=None,
    )


_SUBTRACT: dict[str, Callable[[Any, Any], Any]] = {"sum": _number, "histogram": _histogram}

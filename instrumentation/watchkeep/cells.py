"""All metric state, in plain cells of ours: bounded label sets, bucket counts, exemplars, zero series.

Cells are written by one drainer at a time (emit.py holds the lock), read by our exporter as cumulative
points, and shown to an app's own MeterProvider by observable instruments. Counts are exact: nothing here
is written on a request path.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable
from typing import Any

from watchkeep import app, clock, guard, names
from watchkeep.export.model import Exemplar, HistogramPoint, MetricData, NumberPoint, Scope
from watchkeep.names import Metric

Labels = tuple[Any, ...]
Observation = tuple[Labels, float]
Observer = Callable[[], Iterable[Observation]]

_MODEL_LABELS = frozenset((names.GEN_AI_REQUEST_MODEL, names.GEN_AI_RESPONSE_MODEL))
_ERROR_TYPE_CAP = 50


class Number:
    """The value of one series of a counter, an updowncounter or a gauge."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value: float = 0

    def add(self, value: float, *_: int) -> None:
        """Add to the value; it takes no exemplar."""
        self.value += value


class Histogram:
    """The buckets of one series, with the last exemplar of each bucket since the last reading."""

    __slots__ = ("bounds", "count", "counts", "exemplars", "max", "min", "sum")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.count = 0
        self.sum: float = 0
        self.min: float | None = None
        self.max: float | None = None
        self.exemplars: dict[int, Exemplar] = {}

    def add(self, value: float, trace_id: int = 0, span_id: int = 0, at: int = 0) -> None:
        """Record one measurement; with a trace id it becomes its bucket's exemplar."""
        index = bisect_left(self.bounds, value)
        self.counts[index] += 1
        self.count += 1
        self.sum += value
        if self.min is None or value < self.min:
            self.min = value
        if self.max is None or value > self.max:
            self.max = value
        if trace_id:
            self.exemplars[index] = Exemplar(at, value, trace_id, span_id)


class Series:
    """All series of one metric in one scope. Labels beyond their cap become `_OTHER`."""

    __slots__ = ("caps", "cells", "make", "metric", "scope", "seen")

    def __init__(self, metric: Metric, scope: Scope, label_cap: int, model_cap: int) -> None:
        self.metric = metric
        self.scope = scope
        self.cells: dict[Labels, Any] = {}
        self.caps = tuple(_cap(label, label_cap, model_cap) for label in metric.labels)
        self.seen: tuple[set[Any], ...] = tuple(set() for _ in metric.labels)
        buckets = metric.buckets
        self.make: Callable[[], Any] = (lambda: Histogram(buckets)) if buckets else Number

    def cell(self, labels: Labels) -> Any:
        """Return the cell of these label values (in the metric's order; None = absent)."""
        cell = self.cells.get(labels)
        if cell is None:
            bounded = self._bounded(labels)
            cell = self.cells.get(bounded)
            if cell is None:
                cell = self.cells[bounded] = self.make()
        return cell

    def add(self, labels: Labels, value: float, trace_id: int = 0, span_id: int = 0, at: int = 0) -> None:
        """Record one measurement, here and where the app brought a MeterProvider of its own."""
        self.cell(labels).add(value, trace_id, span_id, at)
        if app.show is not None:
            app.show(self.metric, self.scope, _attributes(self.metric, self._bounded(labels)), value, trace_id, span_id)

    def _bounded(self, labels: Labels) -> Labels:
        kept = []
        for value, cap, seen in zip(labels, self.caps, self.seen, strict=True):
            if value is not None and value not in seen:
                if len(seen) >= cap:
                    value = names.OTHER if isinstance(value, str) else None
                else:
                    seen.add(value)
            kept.append(value)
        return tuple(kept)


# What is asked at collection time belongs to the process, whichever pipeline is in place.
_observers: dict[tuple[Metric, Scope], dict[Observer, None]] = {}


def observe(metric: Metric, scope: Scope, observer: Observer) -> None:
    """Ask `observer` at each collection; where two give the same labels, limits show the smallest, others add up."""
    _observers.setdefault((metric, scope), {}).setdefault(observer)  # one step: threads name the same one at once
    if app.show_observed is not None:
        app.show_observed(metric, scope)


def forget(scope: Scope) -> None:
    """Drop the observers of a scope (its integration was uninstalled)."""
    for key in list(_observers):
        if key[1] == scope:
            _observers.pop(key, None)


def observed() -> list[tuple[Metric, Scope]]:
    """Return what is asked at collection time."""
    return list(_observers)


def observed_points(metric: Metric, scope: Scope) -> list[tuple[dict[str, Any], float]]:
    """Ask the observers of one metric; labels by key."""
    return [(_attributes(metric, labels), value) for labels, value in observations(metric, scope).items()]


def observations(metric: Metric, scope: Scope) -> dict[Labels, float]:
    """Ask the observers of one metric."""
    found: dict[Labels, float] = {}
    smallest = metric.name.endswith((".limit", ".idle.max", ".threshold"))
    for observer in list(_observers.get((metric, scope), ())):
        for labels, value in guard.run(_ask, observer) or ():
            old = found.get(labels)
            if old is None:
                found[labels] = value
            else:
                found[labels] = min(old, value) if smallest else old + value
    return found


def _ask(observer: Observer) -> list[Observation]:
    return list(observer())


def _cap(label: str, label_cap: int, model_cap: int) -> int:
    if label in _MODEL_LABELS:
        return model_cap
    return _ERROR_TYPE_CAP if label == names.ERROR_TYPE else label_cap


class Cells:
    """Every series of this process."""

    def __init__(self, label_cap: int = 100, model_cap: int = 50) -> None:
        self.label_cap = label_cap
        self.model_cap = model_cap
        self.start_ns = clock.wall()
        self.series: dict[tuple[str, Scope], Series] = {}

    def of(self, metric: Metric, scope: Scope) -> Series:
        """Return the series of `metric` in `scope`."""
        key = (metric.name, scope)
        series = self.series.get(key)
        if series is None:
            series = self.series.setdefault(key, Series(metric, scope, self.label_cap, self.model_cap))
        return series

    def add(self, metric: Metric, scope: Scope, labels: dict[str, Any], value: float = 1) -> None:
        """Add to one series, labels by key; 0 makes the series exist."""
        self.of(metric, scope).add(tuple(labels.get(key) for key in metric.labels), value)

    def reset(self) -> None:
        """Start at zero, as a forked child must: what the parent counted is the parent's."""
        self.start_ns = clock.wall()
        self.series.clear()

    def collect(self) -> list[MetricData]:
        """Return every metric as cumulative points; exemplars are handed over once."""
        now = clock.wall()
        found = [self._data(series, now) for series in list(self.series.values()) if series.cells]
        for metric, scope in list(_observers):
            points = [
                NumberPoint(_attributes(metric, labels), self._start(metric), now, value)
                for labels, value in observations(metric, scope).items()
            ]
            if points:
                found.append(_metric_data(metric, scope, points))
        return found

    def _start(self, metric: Metric) -> int:
        return 0 if metric.instrument == "gauge" else self.start_ns

    def _data(self, series: Series, now: int) -> MetricData:
        metric = series.metric
        point = self._histogram_point if metric.buckets else self._number_point
        points = [point(metric, labels, cell, now) for labels, cell in list(series.cells.items())]
        return _metric_data(metric, series.scope, points)

    def _number_point(self, metric: Metric, labels: Labels, cell: Number, now: int) -> Any:
        return NumberPoint(_attributes(metric, labels), self._start(metric), now, cell.value)

    def _histogram_point(self, metric: Metric, labels: Labels, cell: Histogram, now: int) -> Any:
        exemplars, cell.exemplars = tuple(cell.exemplars.values()), {}
        return HistogramPoint(
            _attributes(metric, labels),
            self.start_ns,
            now,
            cell.count,
            cell.sum,
            tuple(cell.counts),
            cell.bounds,
            cell.min,
            cell.max,
            exemplars,
        )


def _attributes(metric: Metric, labels: Labels) -> dict[str, Any]:
    return {key: value for key, value in zip(metric.labels, labels, strict=True) if value is not None}


def _metric_data(metric: Metric, scope: Scope, points: list[Any]) -> MetricData:
    kind = {"histogram": "histogram", "gauge": "gauge"}.get(metric.instrument, "sum")
    return MetricData(
        metric.name, metric.unit, metric.meaning, kind, points, scope, monotonic=metric.instrument == "counter"
    )

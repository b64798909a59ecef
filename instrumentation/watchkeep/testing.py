"""Capture all three signals in memory, for your tests and ours.

    def test_my_agent(watchkeep_capture):
        run_my_agent()
        spans = watchkeep_capture.spans()

`watchkeep_capture` is a pytest fixture; `capture()` is the same as a context manager. Nothing is sent.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from watchkeep.config import Config
    from watchkeep.export.model import LogData, MetricData, SpanData


def _matches(point: Any, labels: dict[str, Any]) -> bool:
    known = {key.replace(".", "_"): value for key, value in point.attributes.items()}
    return all(known.get(key) == value for key, value in labels.items())


def _amount(point: Any) -> float:
    return point.count if hasattr(point, "count") else point.value  # type: ignore[no-any-return]


class Discard:
    """A pipeline that forgets everything."""

    def add_spans(self, spans: list[SpanData]) -> None:
        """Forget them."""

    def add_logs(self, logs: list[LogData]) -> None:
        """Forget them."""

    def start(self) -> None:
        """Do nothing: there is no thread."""

    def flush(self, timeout: float = 3.0) -> bool:
        """Do nothing."""
        return True

    def shutdown(self, timeout: float = 3.0) -> bool:
        """Do nothing."""
        return True


class Capture:
    """What was recorded while it was in place; every reader first takes in what is pending."""

    def __init__(self) -> None:
        self._spans: list[SpanData] = []
        self._logs: list[LogData] = []
        self._drain: Callable[[], None] = lambda: None
        self._collect: Callable[[], list[MetricData]] = list

    def add_spans(self, spans: list[SpanData]) -> None:
        """Take spans from the emitter."""
        self._spans.extend(spans)

    def add_logs(self, logs: list[LogData]) -> None:
        """Take log records from the emitter."""
        self._logs.extend(logs)

    def start(self) -> None:
        """Do nothing: there is no thread."""

    def flush(self, timeout: float = 3.0) -> bool:
        """Take in what is pending."""
        self._drain()
        return True

    def shutdown(self, timeout: float = 3.0) -> bool:
        """Take in what is pending."""
        return self.flush(timeout)

    def spans(self, name: str | None = None) -> list[SpanData]:
        """Return the finished spans in the order of their ends, all or those whose name begins with `name`."""
        self._drain()
        return [span for span in self._spans if name is None or span.name.startswith(name)]

    def logs(self, event: str | None = None) -> list[LogData]:
        """Return the log records, all or those of one event."""
        self._drain()
        return [log for log in self._logs if event is None or log.event_name == event]

    def metrics(self) -> dict[str, MetricData]:
        """Return the metrics by name; where several scopes share a name, their points are together."""
        self._drain()
        found: dict[str, MetricData] = {}
        for metric in self._collect():
            if metric.name in found:
                found[metric.name].points.extend(metric.points)
            else:
                found[metric.name] = metric
        return found

    def points(self, metric: str, **labels: Any) -> list[Any]:
        """Return the points of a metric whose labels match; write a label's dots as underscores."""
        data = self.metrics().get(metric)
        return [point for point in (data.points if data is not None else ()) if _matches(point, labels)]

    def value(self, metric: str, **labels: Any) -> float:
        """Return the sum of a metric's matching points (of a histogram: the number of measurements)."""
        return float(sum(_amount(point) for point in self.points(metric, **labels)))

    def clear(self) -> None:
        """Forget spans and logs."""
        self._drain()
        self._spans.clear()
        self._logs.clear()


@contextmanager
def capture(config: Config | None = None) -> Iterator[Capture]:
    """Capture what is recorded inside a ``with`` block, with the environment's settings or `config`."""
    from watchkeep import runtime
    from watchkeep.config import load

    captured = Capture()
    made = runtime.Runtime(config or load().config, captured)
    captured._drain = made.emitter.drain
    captured._collect = made.collect
    before = runtime.replace(made)
    try:
        yield captured
    finally:
        # A process that captured once sends nothing by itself afterwards.
        runtime.replace(before or runtime.Runtime(made.config, Discard()))


START_NS = 1_700_000_000_000_000_000
STEP_NS = 1_000_000


@contextmanager
def fixed() -> Iterator[None]:
    """Fix both clocks and the ids inside a ``with`` block, so that what is captured can be compared whole.

    Wall time begins at `START_NS`; each reading of a clock is `STEP_NS` after the last; ids count from 1.
    """
    from watchkeep import clock, tracing

    readings, ids = itertools.count(1), itertools.count(1)
    before = clock.wall, clock.monotonic, tracing.new_trace_id, tracing.new_span_id
    clock.wall = lambda: START_NS + next(readings) * STEP_NS
    clock.monotonic = lambda: next(readings) * STEP_NS
    tracing.new_trace_id = tracing.new_span_id = lambda: next(ids)
    try:
        yield
    finally:
        clock.wall, clock.monotonic, tracing.new_trace_id, tracing.new_span_id = before


try:
    import pytest
except ImportError:  # only the fixture needs it
    pass
else:

    @pytest.fixture
    def watchkeep_capture() -> Iterator[Capture]:
        """Capture all three signals of one test."""
        import watchkeep

        with capture() as captured:
            watchkeep.instrument()
            yield captured

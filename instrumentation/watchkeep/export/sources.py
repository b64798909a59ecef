"""Where a lane's batches come from: a queue of items, or a collection of metrics."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from typing import Generic, TypeVar

from watchkeep.export.encode import Encoded, encode_each
from watchkeep.export.encode_metrics import metric_bytes
from watchkeep.export.lane import Batch
from watchkeep.export.ledger import ENCODE, QUEUE_FULL, SUPERSEDED, Ledger
from watchkeep.export.model import LogData, MetricData, SpanData
from watchkeep.export.queue import ItemQueue

T = TypeVar("T", SpanData, LogData)

_SLICE = 32  # items encoded before the interpreter's lock is offered to the app: some 0.3 ms
_MAX_POINTS = 512
_MAX_WAITING = 32  # delta collections that wait for the receiver


class QueueSource(Generic[T]):
    """Takes batches from a queue and encodes them, a slice at a time."""

    def __init__(
        self, queue: ItemQueue[T], encoder: Callable[[T], bytes], ledger: Ledger, most: int, size: int
    ) -> None:
        self.queue: ItemQueue[T] = queue
        self.encoder: Callable[[T], bytes] = encoder
        self.ledger = ledger
        self.most = most
        self.size = size

    def __call__(self) -> Batch | None:
        """Make the next batch; None when nothing waits."""
        taken = self.queue.take(self.most, self.size)
        items: list[Encoded] = []
        for start in range(0, len(taken), _SLICE):
            items += encode_each(self.encoder, taken[start : start + _SLICE])
            time.sleep(0)
        self.ledger.lose(ENCODE, len(taken) - len(items))
        if taken and not items:
            return self()
        return Batch(items, self.size) if items else None


class MetricSource:
    """Turns a collection of metrics into batches; a newer cumulative one replaces what waits."""

    def __init__(self, ledger: Ledger, size: int, cumulative: bool) -> None:
        self.ledger = ledger
        self.size = size
        self.cumulative = cumulative
        self.waiting: deque[Batch] = deque()

    def add(self, metrics: list[MetricData]) -> None:
        """Queue one collection."""
        if self.cumulative:
            self.drop(SUPERSEDED, 0)
        points: list[Encoded] = []
        for metric in metrics:
            for piece in pieces(metric):
                points += self._encoded(piece)
        if points:
            self.waiting.append(Batch(points, self.size))
        self.drop(QUEUE_FULL, _MAX_WAITING)

    def _encoded(self, metric: MetricData) -> list[Encoded]:
        weight = len(metric.points)
        self.ledger.take(weight)
        made = encode_each(metric_bytes, (metric,))
        if not made:
            self.ledger.lose(ENCODE, weight)
        time.sleep(0)
        return [one._replace(weight=weight) for one in made]

    def drop(self, reason: str, keep: int) -> None:
        """Give up the oldest collections, so that at most `keep` wait."""
        while len(self.waiting) > keep:
            self.ledger.lose(reason, self.waiting.popleft().weight())

    def close(self) -> int:
        """Count what waits as lost at the end."""
        with self.ledger.lock:
            self.waiting.clear()
            return self.ledger.close()

    def __call__(self) -> Batch | None:
        """Give the next batch."""
        return self.waiting.popleft() if self.waiting else None


def pieces(metric: MetricData) -> list[MetricData]:
    """Cut a metric with many points, so that no request is unbounded."""
    if len(metric.points) <= _MAX_POINTS:
        return [metric] if metric.points else []
    starts = range(0, len(metric.points), _MAX_POINTS)
    return [replace(metric, points=metric.points[start : start + _MAX_POINTS]) for start in starts]

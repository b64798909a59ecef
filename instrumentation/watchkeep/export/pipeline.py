"""Takes spans, log records and metrics and delivers them: bounded, off the app's path, honest about losses.

add_spans/add_logs -> queue.py -> worker.py (each second) -> sources.py (encode) -> lane.py (send, split, try again)
"""

from __future__ import annotations

import time
from _thread import allocate_lock
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any

from watchkeep import guard
from watchkeep.export import health, lifecycle
from watchkeep.export.encode import log_bytes, span_bytes
from watchkeep.export.gate import Gate
from watchkeep.export.lane import Batch, Lane, Sender
from watchkeep.export.ledger import SUPERSEDED, Ledger
from watchkeep.export.model import LogData, MetricData, Resource, SpanData
from watchkeep.export.queue import ItemQueue
from watchkeep.export.send import HttpSender
from watchkeep.export.settings import GRPC, LOGS, METRICS, TRACES, ExportSettings, Target
from watchkeep.export.sources import MetricSource, QueueSource
from watchkeep.export.temporality import Deltas
from watchkeep.export.voice import Voice
from watchkeep.export.worker import Flush, Worker

Sink = Callable[[str, list[Any]], None]  # signal and items, in the worker's thread

_TICK = 1.0
_MAX_FOR_SINKS = 4096
_NEVER = float("inf")
_LEAST_PAUSE = 0.01
_STUCK = 0.3  # seconds without a sign of the worker
_GRACE = 1 / 3  # of the time to shut down, before a request that hangs is cut off


class Pipeline:
    """The way out of one process."""

    def __init__(
        self,
        settings: ExportSettings,
        resource: Resource,
        *,
        drain: Callable[[], None],
        collect: Callable[[], list[MetricData]],
        spans_enabled: bool = True,
        logs_enabled: bool = True,
        metrics_enabled: bool = True,
        sinks: Iterable[Sink] = (),
        at_end: Callable[[], None] | None = None,
    ) -> None:
        self.settings = settings
        self.resource = resource
        self.drain = drain
        self.collect = collect
        self.enabled = {TRACES: spans_enabled, LOGS: logs_enabled, METRICS: metrics_enabled}
        self.sinks = tuple(sinks)
        self.at_end = at_end  # called when the sinks have had everything
        self.started = False
        self._make()

    def _make(self) -> None:
        """Make all that a forked child must not share with its parent."""
        self.start_ns = time.time_ns()
        self.closed = False
        self._complete = True
        self._origins: dict[str, Gate] = {}
        self._for_sinks: deque[tuple[str, list[Any]]] = deque(maxlen=_MAX_FOR_SINKS)
        self._working = allocate_lock()
        self._draining = allocate_lock()
        self._voice = Voice()
        self._deltas = Deltas() if self.settings.temporality != "cumulative" else None
        self._first_record = False
        self._metrics_due = time.monotonic() + self.settings.metric_interval
        self._make_lanes()
        self._worker = Worker(self._work, self._pause)

    def _make_lanes(self) -> None:
        settings = self.settings
        ledgers = {signal: Ledger() for signal in (TRACES, LOGS, METRICS)}
        both = self.enabled[TRACES] and self.enabled[LOGS]
        share = settings.queue_bytes // 4 if both else settings.queue_bytes
        self.spans = ItemQueue[SpanData](ledgers[TRACES], settings.queue_bytes - share * both, settings.span_items)
        self.logs = ItemQueue[LogData](ledgers[LOGS], share, settings.log_items)
        self.metrics = MetricSource(ledgers[METRICS], settings.batch_bytes, self._deltas is None)
        size = settings.batch_bytes
        sources: dict[str, Callable[[], Batch | None]] = {
            TRACES: QueueSource(self.spans, span_bytes, ledgers[TRACES], settings.span_batch, size),
            LOGS: QueueSource(self.logs, log_bytes, ledgers[LOGS], settings.log_batch, size),
            METRICS: self.metrics,
        }
        self.lanes = {
            signal: self._lane(getattr(settings, signal), ledgers[signal], source)
            for signal, source in sources.items()
            if self.enabled[signal]
        }

    def _lane(self, target: Target, ledger: Ledger, source: Callable[[], Batch | None]) -> Lane:
        origin = self._origins.setdefault(target.origin, Gate())
        return Lane(
            target,
            _sender(target),
            ledger,
            self.resource,
            origin,
            next_batch=source,
            max_age=self.settings.max_age,
        )

    # What the app's threads call: nothing here waits or raises.

    def add_spans(self, spans: list[SpanData]) -> None:
        """Take ended spans; never waits, never raises."""
        guard.run(self._add, TRACES, self.spans, self.settings.span_batch, spans)

    def add_logs(self, logs: list[LogData]) -> None:
        """Take log records; never waits, never raises."""
        guard.run(self._add, LOGS, self.logs, self.settings.log_batch, logs)

    def _add(self, signal: str, queue: ItemQueue[Any], batch: int, items: list[Any]) -> None:
        if not items:
            return
        if not self._first_record:
            self._first_record = True
            self._metrics_due = min(self._metrics_due, time.monotonic() + _TICK)
        if self.sinks:
            self._for_sinks.append((signal, items))
        if signal in self.lanes:
            queue.put(items)
            if len(queue) >= batch and self.lanes[signal].open():
                self._worker.wake()

    def wake(self) -> None:
        """Let the worker look at once; may be called by a finalizer."""
        self._worker.wake()

    def start(self) -> None:
        """Park the worker and the exit hooks; again is the same as once."""
        if not self.started and not self.closed:
            self.started = True
            guard.run(self._prepare)
            self._worker.start()
            lifecycle.watch(self)

    def flush(self, timeout: float = 3.0) -> bool:
        """Send all that is there; return whether it all arrived within `timeout` seconds, False after a shutdown."""
        if self.closed:
            return False
        flush = Flush(timeout)
        guard.run(self._finish, flush)
        return flush.complete

    def shutdown(self, timeout: float = 3.0, inline: bool = True) -> bool:
        """Send all that is there and stop; return whether nothing was lost at the end, again and again the same.

        `inline` false: the worker alone may run the app's or our locks, as in a signal handler.
        """
        if self.closed:
            return self._complete
        self.closed = True
        flush = Flush(timeout, final=True)
        if inline or self._worker.alive():
            guard.run(self._finish, flush)
        if inline and not flush.drained.set:
            guard.run(self._drain)
            self._end_sinks()
        lifecycle.forget(self)
        left = self._close()
        if self.started:
            self._voice.last_words(list(self.lanes.values()))
        self._complete = flush.complete and not left
        return self._complete

    def again(self) -> Pipeline:
        """Return a pipeline that goes on where this one was shut down; what ended since is counted as lost here."""
        guard.run(self._drain)
        made = Pipeline(
            self.settings,
            self.resource,
            drain=self.drain,
            collect=self.collect,
            spans_enabled=self.enabled[TRACES],
            logs_enabled=self.enabled[LOGS],
            metrics_enabled=self.enabled[METRICS],
            sinks=self.sinks,
            at_end=self.at_end,
        )
        made._deltas = self._deltas
        made._first_record = self._first_record
        return made

    def _finish(self, flush: Flush) -> None:
        if not self._worker.alive() or self._worker.here():
            self._work(flush)
            return
        self._worker.ask(flush)
        if flush.final:
            self._cut_off(flush)
        flush.done.wait(flush.deadline)

    def _cut_off(self, flush: Flush) -> None:
        """End a request that has hung since before the shutdown, so that other end points get their turn."""
        busy = [lane for lane in self.lanes.values() if lane.busy]
        now = time.monotonic()
        if busy and not flush.drained.wait(now + (flush.deadline - now) * _GRACE):
            for lane in busy:
                lane.sender.abort()

    def _close(self) -> int:
        left = self.spans.close() + self.logs.close() + self.metrics.close()
        for lane in self.lanes.values():
            if lane.busy:
                lane.sender.abort()  # the worker still holds it
            else:
                lane.sender.close()
        return left

    def interrupted(self) -> bool:
        """Tell whether the caller, a signal handler, stands on a lock that the worker needs to go on."""
        ledgers = [lane.ledger for lane in self.lanes.values()]
        if not all(ledger.free() for ledger in ledgers):
            return True
        if not self._worker.alive():
            return False
        flush = Flush(self.settings.exit_timeout)
        self._worker.ask(flush)
        drained = flush.drained.wait(time.monotonic() + _STUCK)
        return not drained and not any(lane.busy for lane in self.lanes.values())

    # What the worker does.

    def _work(self, flush: Flush | None) -> None:
        left = flush.deadline - time.monotonic() if flush is not None else 3600.0
        if not self._working.acquire(timeout=max(0.0, left)):
            return
        try:
            if flush is None:
                self._tick()
            else:
                flush.complete = self._flush(flush)
        finally:
            self._working.release()

    def _prepare(self) -> None:
        """Import here, not in the worker: a fork in the middle of its import would leave the child a locked module."""
        for lane in self.lanes.values():
            lane.sender.prepare()

    def _pause(self) -> float:
        """Tell for how long nothing is due: a second, less where a shorter rhythm is set or a gate opens sooner."""
        now = time.monotonic()
        settings = self.settings
        moments = [now + min(_TICK, settings.span_delay, settings.log_delay, settings.metric_interval)]
        moments += [lane.ready_at() for lane in self.lanes.values() if lane.pending is not None]
        return max(_LEAST_PAUSE, min(moments) - now)

    def _tick(self) -> None:
        """Send what is due; while batches are full, go on, unless somebody asks for something."""
        busy = True
        while busy and not self._worker.asked():
            self._drain()
            self._collect_when_due()
            steps = [lane.step(_NEVER) for lane in self._due_lanes()]
            busy = any(steps)
        self._voice.speak(list(self.lanes.values()))

    def _due_lanes(self) -> list[Lane]:
        """Spans and logs may ask for a slower rhythm than ours, unless a batch is full."""
        now = time.monotonic()
        settings, size = self.settings, self.settings.batch_bytes
        full = {
            TRACES: len(self.spans) >= settings.span_batch or self.spans.bytes >= size,
            LOGS: len(self.logs) >= settings.log_batch or self.logs.bytes >= size,
        }
        delays = {TRACES: settings.span_delay, LOGS: settings.log_delay}
        due = []
        for signal, lane in self.lanes.items():
            if now >= lane.due or full.get(signal) or lane.pending is not None:
                lane.due = now + delays.get(signal, 0.0) * 0.99
                due.append(lane)
        return due

    def _flush(self, flush: Flush) -> bool:
        self._drain()
        if flush.final:
            self._end_sinks()
        flush.drained.now()
        lost = self._lost()
        if METRICS not in self.lanes:
            self._collect()
        complete = self._pump_all(flush.deadline)
        return complete and self._lost() == lost

    def _pump_all(self, deadline: float) -> bool:
        """Empty every lane; a host that does not answer is asked once, and last if it has failed before."""
        left: list[Lane] = []
        dead: set[str] = set()
        lanes = sorted(self.lanes.values(), key=lambda lane: lane.origin.failures)
        for lane in lanes:
            name = lane.target.origin
            if lane.target.signal == METRICS:
                self._collect()  # late, so that it counts what the others have just delivered
            if name in dead or not lane.pump(self._share(lanes, dead, deadline)):
                left.append(lane)
                if lane.origin.failures:
                    dead.add(name)
        return self._pump_again(left, deadline)

    def _share(self, lanes: list[Lane], dead: set[str], deadline: float) -> float:
        """Give each host its part of the time, so that one that hangs leaves some to the others."""
        hosts = {lane.target.origin for lane in lanes} - dead
        now = time.monotonic()
        return now + max(0.0, deadline - now) / max(1, len(hosts))

    def _pump_again(self, left: list[Lane], deadline: float) -> bool:
        """Ask receivers that said when to come back once more, as long as time is left."""
        while left:
            lane = min(left, key=lambda one: one.gate.until)
            again = lane.gate.until
            if lane.origin.failures or not lane.gate.failures or again >= deadline:
                return False
            time.sleep(max(0.0, again - time.monotonic()))
            if lane.pump(deadline):
                left.remove(lane)
        return True

    def _drain(self) -> None:
        if self._draining.acquire(False):
            try:
                guard.run(self.drain)
            finally:
                self._draining.release()
        while self._for_sinks:
            self._sink(*self._for_sinks.popleft())

    def _sink(self, signal: str, items: list[Any]) -> None:
        for sink in self.sinks:
            guard.run(sink, signal, items)

    def _end_sinks(self) -> None:
        if self.at_end is not None:
            guard.run(self.at_end)

    def _collect_when_due(self) -> None:
        now = time.monotonic()
        if now >= self._metrics_due:
            self._metrics_due = now + self.settings.metric_interval
            self._collect()

    def _collect(self) -> None:
        lane = self.lanes.get(METRICS)
        if lane is None and not self.sinks:
            return
        metrics = list(guard.run(self.collect) or ())
        if metrics or self._first_record:
            metrics += self.health()
        if metrics:
            self._sink(METRICS, metrics)
        if lane is None:
            return
        if self._deltas is not None:
            metrics = self._deltas.convert(metrics)
        elif lane.pending is not None:
            lane.ledger.lose(SUPERSEDED, lane.pending.weight())
            lane.pending = None
        self.metrics.add(metrics)

    # What it says about itself.

    def counts(self) -> dict[str, dict[str, Any]]:
        """Give, for each signal, what was sent, delivered, lost by reason and still waits."""
        queued: dict[str, Callable[[], int]] = {TRACES: self.spans.__len__, LOGS: self.logs.__len__}
        return {signal: lane.ledger.snapshot(queued.get(signal, lambda: 0)) for signal, lane in self.lanes.items()}

    def health(self) -> list[MetricData]:
        """Describe exporters and queues in OpenTelemetry's own metrics."""
        queues: dict[str, ItemQueue[Any]] = {TRACES: self.spans, LOGS: self.logs}
        found = []
        for signal, lane in self.lanes.items():
            found += health.of_lane(lane, queues.get(signal), self.start_ns)
        return found

    def _lost(self) -> int:
        return sum(
            number
            for lane in self.lanes.values()
            for reason, number in lane.ledger.reasons().items()
            if reason != SUPERSEDED
        )

    def after_fork(self) -> None:
        """Begin anew in a forked child: the parent delivers what it had."""
        for lane in self.lanes.values():
            lane.sender.close()
        self._make()
        if self.started:
            self._worker.start()


def _sender(target: Target) -> Sender:
    if target.protocol == GRPC:
        from watchkeep.export.send_grpc import GrpcSender

        return GrpcSender(target)
    return HttpSender(target)

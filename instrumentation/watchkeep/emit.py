"""Record -> span, metrics, log: driven by names.py and by the measures that each kind of record declares.

A closing record is appended to a deque, which neither locks nor waits; the export thread turns it into
what is exported. Under overload the closing thread does that work itself, so that no count is lost.
"""

from __future__ import annotations

import sys
import threading
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from watchkeep import app, clock, guard, names, runtime
from watchkeep.export.model import STATUS_ERROR, LogData, Scope, SpanData
from watchkeep.export.sanitise import clean_span
from watchkeep.names import Event, Metric
from watchkeep.raised import without_texts
from watchkeep.record import Record

if TYPE_CHECKING:
    from watchkeep.cells import Cells

_HAS_REMOTE, _IS_REMOTE = 0x100, 0x200  # OTLP's span flags
_MAX_PENDING = 2048
_MAX_LEFT = 1 << 14
_SWEEP_EVERY = 5.0  # seconds
_SEVERITY_TEXT = {names.DEBUG: "DEBUG", names.INFO: "INFO", names.WARN: "WARN", names.ERROR: "ERROR"}


class Measurement(NamedTuple):
    """One measurement outside a record; labels by key, 0 makes a series exist."""

    metric: Metric
    scope: Scope
    labels: dict[str, Any]
    value: float = 1


class Foreign(NamedTuple):
    """A span that somebody else made with the SDK, and what turns it into ours."""

    convert: Callable[[Any], SpanData]
    span: Any


Item = Record | Measurement | LogData | Foreign
OURS = "watchkeep."
"""What the names of our scopes begin with."""


class Emitter:
    """Takes closed records and turns them into spans, measurements and log records."""

    def __init__(self, cells: Cells, sink: Any) -> None:
        self.cells = cells
        self.sink = sink
        self.pending: deque[Item] = deque()
        self.left: deque[Callable[[], None]] = deque(maxlen=_MAX_LEFT)
        self.draining = threading.Lock()
        self.swept = 0

    def reset(self) -> None:
        """Forget what is pending, as a forked child must."""
        self.pending = deque()
        self.left.clear()
        self.draining = threading.Lock()

    def put(self, item: Item) -> None:
        """Take one item; never blocks."""
        self.pending.append(item)
        if len(self.pending) > _MAX_PENDING and not guard.collecting():
            self.drain(wait=0)

    def put_off(self, function: Callable[..., None], *args: Any) -> None:
        """Take what a finalizer would call in the app: it runs under any lock that its thread holds, so we call it."""
        self.left.append(partial(function, *args))
        wake = getattr(self.sink, "wake", None)
        if wake is not None:
            wake()

    def measure(self, metric: Metric, scope: Scope, labels: dict[str, Any], value: float = 1) -> None:
        """Take one measurement."""
        self.put(Measurement(metric, scope, labels, value))

    def event(
        self,
        event: Event,
        scope: Scope,
        attributes: dict[str, Any],
        record: Record | None = None,
        severity: int = 0,
    ) -> None:
        """Take one event: a log record with an EventName, in the place of `record`."""
        from watchkeep import context

        now = clock.wall()
        attributes[names.AGENT_RUNTIME_CORRELATION_ID] = record.correlation if record else context.correlation_id()
        log = LogData(now, now, severity or event.severity, "", None, attributes, scope, event.name)
        log.severity_text = _SEVERITY_TEXT[log.severity_number]
        if record is not None:
            log.trace_id, log.span_id, log.flags = record.trace_id, record.span_id, int(record.sampled)
        self.log(log)

    def log(self, log: LogData) -> None:
        """Take one log record."""
        # At once, as spans are made in the app's provider at once: it may be shut down before we drain.
        if guard.collecting():
            self.put_off(self.log, log)
        elif _is_for_us(log):
            self.put(log)

    def drain(self, wait: float = -1) -> None:
        """Turn what is pending into spans, cells and logs; one thread at a time, others go on after `wait` seconds."""
        if wait:
            self._catch_up()  # without our lock: the app may wait for us under one of its own
        if not self.draining.acquire(timeout=wait):
            return
        try:
            if wait:
                guard.run(self._sweep)
            self._drain()
        finally:
            self.draining.release()

    def _catch_up(self) -> None:
        left = self.left
        for _ in range(len(left)):
            try:
                call = left.popleft()
            except IndexError:  # another thread drains, too
                return
            guard.run(call)

    def _sweep(self) -> None:
        # Streams that nobody reads any more are ended here, because nothing else happens to them.
        llm = sys.modules.get("watchkeep.llm")
        if llm is None:
            return
        max_age, now = runtime.config().stream_max_age, clock.monotonic()
        if now - self.swept >= min(_SWEEP_EVERY, max_age / 2) * 1e9:
            self.swept = now
            llm.sweep(max_age)

    def _drain(self) -> None:
        spans: list[SpanData] = []
        logs: list[LogData] = []
        pending = self.pending
        for _ in range(len(pending)):
            guard.run(self._take, pending.popleft(), spans, logs)
        if spans:
            self.sink.add_spans(spans)
        if logs:
            self.sink.add_logs(logs)

    def _take(self, item: Item, spans: list[SpanData], logs: list[LogData]) -> None:
        if isinstance(item, Record):
            self._take_record(item, spans, logs)
        elif isinstance(item, Measurement):
            self.cells.add(item.metric, item.scope, item.labels, item.value)
        elif isinstance(item, Foreign):
            spans.append(clean_span(without_texts(item.convert(item.span))))
        else:
            logs.append(item)

    def _take_record(self, record: Record, spans: list[SpanData], logs: list[LogData]) -> None:
        if record.app_span is None:
            record.complete()
        if record.sampled and record.visible and (record.app_span is None or app.spans_are_ours):
            spans.append(span_data(record))
        self._measure(record)
        logs += filter(_is_for_us, record.told())

    def _measure(self, record: Record) -> None:
        cells, scope, attributes = self.cells, record.scope, record.attributes
        trace_id = record.trace_id if record.sampled else 0
        known: dict[int, tuple[Any, ...]] = {}
        labels: tuple[Any, ...] | None
        for metric, value_of, extra in record.measures:
            value = value_of(record)
            if value is None:
                continue
            if extra is not None:
                labels = tuple([extra[key] if key in extra else attributes.get(key) for key in metric.labels])
            else:
                labels = known.get(id(metric.labels))
                if labels is None:
                    labels = known[id(metric.labels)] = _labels(metric, attributes)
            series = cells.of(metric, scope)
            for one in value if type(value) is list else (value,):
                series.add(labels, one, trace_id, record.span_id, record.start_ns)


def _is_for_us(log: LogData) -> bool:
    return app.show_log is None or app.show_log(log, False)


def _labels(metric: Metric, attributes: dict[str, Any]) -> tuple[Any, ...]:
    return tuple([attributes.get(key) for key in metric.labels])


def span_data(record: Record) -> SpanData:
    """Return the exported form of a closed record."""
    attributes = record.attributes
    data = SpanData(
        record.span.name(attributes),
        record.trace_id,
        record.span_id,
        record.parent_id,
        record.span.kind,
        record.start_ns,
        record.end_ns,
        attributes,
        record.scope,
    )
    data.flags = _HAS_REMOTE | _IS_REMOTE if record.remote_parent else _HAS_REMOTE
    if record.trace_state:
        data.trace_state = record.trace_state.to_header()
    if record.error is not None:
        data.status_code = STATUS_ERROR
        data.status_message = record.message
    return data

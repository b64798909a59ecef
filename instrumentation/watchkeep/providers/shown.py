"""Our measurements and events in the app's own providers, so that its exporters see them as we do.

A measurement is recorded through the API when the emitter takes it, inside its span for the exemplar; what we
only ask at collection is an observable instrument.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import Any

from opentelemetry import trace
from opentelemetry._logs import LogRecord, SeverityNumber
from opentelemetry.context import Context
from opentelemetry.metrics import CallbackOptions, Observation

from watchkeep import cells, guard, integrations, runtime
from watchkeep.export.model import LogData, Scope
from watchkeep.names import Metric
from watchkeep.tracing import SAMPLED

_NOWHERE = Context()
_WAIT = 0.5  # seconds that a collection of the app's waits for what another thread is just taking in

_CREATE = {
    "counter": ("create_counter", "add"),
    "updowncounter": ("create_up_down_counter", "add"),
    "histogram": ("create_histogram", "record"),
    "gauge": ("create_gauge", "set"),
}
_CREATE_OBSERVABLE = {
    "counter": "create_observable_counter",
    "updowncounter": "create_observable_up_down_counter",
    "gauge": "create_observable_gauge",
}


def _inside(trace_id: int, span_id: int, flags: trace.TraceFlags = SAMPLED) -> Context:
    if not trace_id:
        return _NOWHERE
    span = trace.NonRecordingSpan(trace.SpanContext(trace_id, span_id, False, flags))
    return trace.set_span_in_context(span, _NOWHERE)


class ShownMetrics:
    """Our metrics in the app's MeterProvider."""

    def __init__(self, provider: Any) -> None:
        self.provider = provider
        self.instruments: dict[tuple[str, Scope], Any] = {}
        self.observed: set[tuple[str, Scope]] = set()
        self.meters: dict[Scope, Any] = {}

    def record(
        self, metric: Metric, scope: Scope, labels: dict[str, Any], value: float, trace_id: int, span_id: int
    ) -> None:
        """Record one measurement."""
        key = (metric.name, scope)
        take = self.instruments.get(key)
        if take is None:
            take = self.instruments[key] = self._instrument(metric, scope)
        guard.run(take, value, labels, _inside(trace_id, span_id))

    def _instrument(self, metric: Metric, scope: Scope) -> Any:
        create, take = _CREATE[metric.instrument]
        buckets = {"explicit_bucket_boundaries_advisory": list(metric.buckets)} if metric.buckets else {}
        made = getattr(self.meter(scope), create)(metric.name, metric.unit, metric.meaning, **buckets)
        return getattr(made, take)

    def meter(self, scope: Scope) -> Any:
        """Return the meter of one of our scopes."""
        found = self.meters.get(scope)
        if found is None:
            found = self.provider.get_meter(scope.name, scope.version or None, scope.schema_url or None)
            self.meters[scope] = found
        return found

    def begin(self) -> None:
        """Show all that is there so far."""
        for scope in list(integrations.scopes):
            guard.run(self.meter, scope)
        for metric, scope in cells.observed():
            guard.run(self.observe, metric, scope)

    def observe(self, metric: Metric, scope: Scope) -> None:
        """Let the app's collections ask what ours ask."""
        key = (metric.name, scope)
        if key not in self.observed:
            self.observed.add(key)
            create = getattr(self.meter(scope), _CREATE_OBSERVABLE[metric.instrument])
            create(metric.name, [partial(_ask, metric, scope)], metric.unit, metric.meaning)


def _ask(metric: Metric, scope: Scope, _: CallbackOptions) -> Iterable[Observation]:
    # The app's reader comes to its sums after all callbacks: what has closed by now is in them.
    guard.run(runtime.emitter().drain, wait=_WAIT)
    found = guard.run(cells.observed_points, metric, scope) or ()
    return [Observation(value, labels) for labels, value in found]


class ShownLogs:
    """Our events in the app's LoggerProvider."""

    def __init__(self, provider: Any) -> None:
        self.provider = provider

    def emit(self, log: LogData) -> None:
        """Emit one event, in the place where it happened."""
        scope = log.scope
        logger = self.provider.get_logger(scope.name, scope.version or None, scope.schema_url or None)
        record = LogRecord(
            timestamp=log.time_ns,
            observed_timestamp=log.observed_ns,
            context=_inside(log.trace_id, log.span_id, trace.TraceFlags(log.flags)),
            severity_text=log.severity_text,
            severity_number=SeverityNumber(log.severity_number),
            body=log.body,
            attributes=dict(log.attributes),
            event_name=log.event_name,
        )
        logger.emit(record)

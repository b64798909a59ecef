"""Our own SDK providers: for what others make while the app has set no provider. The SDK loads at first use."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from watchkeep import runtime

if TYPE_CHECKING:
    from opentelemetry.sdk._logs import LoggerProvider
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.trace import TracerProvider

    from watchkeep.export.model import MetricData

active = False  # while we stand behind the API

_traces: TracerProvider | None = None
_logs: LoggerProvider | None = None
_metrics: tuple[Any, Any, Any] | None = None  # runtime, provider, reader: what was counted belongs to one pipeline


def _wanted(signal: str) -> bool:
    return active and bool(getattr(runtime.config(), signal))


def tracer_provider() -> TracerProvider | None:
    """Return ours, None when spans are switched off."""
    global _traces
    if _traces is None and _wanted("traces"):
        from watchkeep.providers.sdk_traces import make

        _traces = make(_resource())
    return _traces if active else None


def logger_provider() -> LoggerProvider | None:
    """Return ours, None when log records are switched off."""
    global _logs
    if _logs is None and _wanted("logs"):
        from watchkeep.providers.sdk_logs import make

        _logs = make(_resource())
    return _logs if active else None


def meter_provider() -> MeterProvider | None:
    """Return ours, None when metrics are switched off."""
    global _metrics
    if not active:
        return None
    place = runtime.get()
    found = _metrics
    if (found is None or found[0] is not place) and _wanted("metrics"):
        from watchkeep.providers import fallback
        from watchkeep.providers.sdk_metrics import make

        found = _metrics = (place, *make(_resource()))
        fallback.show_observables(found[1])
    return found[1] if found is not None else None


def made_meter_provider() -> MeterProvider | None:
    """Return ours if there is one already."""
    found = _metrics
    return found[1] if found is not None and found[0] is runtime.started() else None


def _resource() -> Any:
    from opentelemetry.sdk.resources import Resource

    from watchkeep.resource import resource

    return Resource(resource().attributes)


def read_metrics() -> list[MetricData]:
    """Return what others counted with our provider; once more after the app has set its own, then no more."""
    global _metrics
    from watchkeep.providers import app_provider, fallback

    theirs = app_provider("metrics")
    if theirs is None and fallback.has_observables():
        meter_provider()
    found = _metrics
    if found is None or found[0] is not runtime.started():
        return []
    if theirs is not None:
        _metrics = None
    return found[2].read()  # type: ignore[no-any-return]


def _reset_in_child() -> None:
    global _metrics
    _metrics = None  # what the parent counted is the parent's


os.register_at_fork(after_in_child=_reset_in_child)


def forget() -> None:
    """Drop the providers."""
    global _traces, _logs, _metrics
    _traces = _logs = _metrics = None

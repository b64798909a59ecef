"""Meters whose instruments find their provider at each use: the app's once it has set one, else ours."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

from opentelemetry import metrics
from opentelemetry.metrics import CallbackT

from watchkeep import guard
from watchkeep.providers import app_provider, fallback, own

_NOOP = metrics.NoOpMeterProvider()
_Scope = tuple[str, "str | None", "str | None"]


def _place() -> Any:
    return app_provider("metrics") or guard.run(own.meter_provider) or _NOOP


class _Delegate:
    """A synchronous instrument that stands for the real one."""

    def __init__(self, meter: _Scope, create: str, name: str, arguments: dict[str, Any]) -> None:
        self.meter = meter
        self.create = create
        self.name = name
        self.arguments = arguments
        self.found: tuple[Any, Any] = (None, None)

    def real(self) -> Any:
        """Return the instrument of the provider that holds now."""
        place = _place()
        found = self.found
        if found[0] is not place:
            made = getattr(place.get_meter(*self.meter), self.create)(self.name, **self.arguments)
            found = self.found = (place, made)
        return found[1]


class _Counter(_Delegate, metrics.Counter):
    def add(self, amount: float, attributes: Any = None, context: Any = None) -> None:
        self.real().add(amount, attributes, context)


class _UpDownCounter(_Delegate, metrics.UpDownCounter):
    def add(self, amount: float, attributes: Any = None, context: Any = None) -> None:
        self.real().add(amount, attributes, context)


class _Histogram(_Delegate, metrics.Histogram):
    def record(self, amount: float, attributes: Any = None, context: Any = None) -> None:
        self.real().record(amount, attributes, context)


class _Gauge(_Delegate, metrics._Gauge):
    def set(self, amount: float, attributes: Any = None, context: Any = None) -> None:
        self.real().set(amount, attributes, context)


class Meter(metrics.Meter):
    """A meter that stands for the real ones."""

    @property
    def scope(self) -> _Scope:
        """What the real meters are asked for by."""
        return (self._name, self._version, self._schema_url)

    def create_counter(self, name: str, unit: str = "", description: str = "") -> metrics.Counter:
        """Return a counter."""
        return _Counter(self.scope, "create_counter", name, {"unit": unit, "description": description})

    def create_up_down_counter(self, name: str, unit: str = "", description: str = "") -> metrics.UpDownCounter:
        """Return an up-down counter."""
        return _UpDownCounter(self.scope, "create_up_down_counter", name, {"unit": unit, "description": description})

    def create_gauge(self, name: str, unit: str = "", description: str = "") -> metrics._Gauge:
        """Return a gauge."""
        return _Gauge(self.scope, "create_gauge", name, {"unit": unit, "description": description})

    def create_histogram(
        self,
        name: str,
        unit: str = "",
        description: str = "",
        *,
        explicit_bucket_boundaries_advisory: Sequence[float] | None = None,
    ) -> metrics.Histogram:
        """Return a histogram."""
        arguments = {"unit": unit, "description": description}
        bounds = {"explicit_bucket_boundaries_advisory": explicit_bucket_boundaries_advisory}
        return _Histogram(self.scope, "create_histogram", name, {**arguments, **bounds})

    def create_observable_counter(
        self, name: str, callbacks: Sequence[CallbackT] | None = None, unit: str = "", description: str = ""
    ) -> metrics.ObservableCounter:
        """Let a counter be asked at each collection."""
        fallback.remember_observable("create_observable_counter", self.scope, name, callbacks, unit, description)
        return metrics.NoOpObservableCounter(name, callbacks, unit, description)

    def create_observable_up_down_counter(
        self, name: str, callbacks: Sequence[CallbackT] | None = None, unit: str = "", description: str = ""
    ) -> metrics.ObservableUpDownCounter:
        """Let an up-down counter be asked at each collection."""
        create = "create_observable_up_down_counter"
        fallback.remember_observable(create, self.scope, name, callbacks, unit, description)
        return metrics.NoOpObservableUpDownCounter(name, callbacks, unit, description)

    def create_observable_gauge(
        self, name: str, callbacks: Sequence[CallbackT] | None = None, unit: str = "", description: str = ""
    ) -> metrics.ObservableGauge:
        """Let a gauge be asked at each collection."""
        fallback.remember_observable("create_observable_gauge", self.scope, name, callbacks, unit, description)
        return metrics.NoOpObservableGauge(name, callbacks, unit, description)


@cache
def provider_class(api: Any) -> type[metrics.MeterProvider]:
    """Return the class of our stand-in; it is one of the API's proxies to whoever looks."""

    class DelegatingMeterProvider(api._ProxyMeterProvider):  # type: ignore[misc]
        """Gives out meters of the app's provider once it has set one, before that ones that delegate."""

        def get_meter(
            self, name: str, version: str | None = None, schema_url: str | None = None, attributes: Any = None
        ) -> metrics.Meter:
            theirs = app_provider("metrics")
            if theirs is not None:
                return theirs.get_meter(name, version, schema_url, attributes)  # type: ignore[no-any-return]
            return Meter(name, version, schema_url)

        def on_set_meter_provider(self, meter_provider: metrics.MeterProvider) -> None:
            guard.run(fallback.show_observables, meter_provider)

    return DelegatingMeterProvider

"""What OpenTelemetry's API gives out while the app has set no provider: tracers, meters and loggers of ours.

The global variables stay empty, so the app's own provider wins whenever it comes. The API's proxies for
tracers and loggers look again at each use; those for meters settle once, so ours stand in their place.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from typing import Any

from watchkeep import guard
from watchkeep.providers import own

_undo: dict[str, Callable[[], None]] = {}


def place(signal: str, api: Any) -> None:
    """Stand behind the API of one signal, which is the module `api`."""
    own.active = True
    if signal not in _undo:
        _undo[signal] = _PLACES[signal](api)


def take_away() -> None:
    """Give the API its own objects back."""
    own.active = False
    while _undo:
        _undo.popitem()[1]()
    own.forget()


def _behind_tracers(api: Any) -> Callable[[], None]:
    return _behind(api.ProxyTracer, "_tracer", "_noop_tracer", own.tracer_provider, "get_tracer")


def _behind_loggers(api: Any) -> Callable[[], None]:
    return _behind(api.ProxyLogger, "_logger", "_noop_logger", own.logger_provider, "get_logger")


_NAMES = ("_name", "_version", "_schema_url", "_attributes")
_NAMES_OF_TRACERS = (
    "_instrumenting_module_name",
    "_instrumenting_library_version",
    "_schema_url",
    "_attributes",
)


def _behind(proxy: Any, attribute: str, idle: str, provider_of: Callable[[], Any], get: str) -> Callable[[], None]:
    """Let a proxy use our provider where it would do nothing."""
    original = vars(proxy)[attribute]
    known: weakref.WeakKeyDictionary[Any, tuple[Any, Any]] = weakref.WeakKeyDictionary()

    def ours(self: Any) -> Any:
        provider = provider_of()
        if provider is None:
            return None
        found = known.get(self)
        if found is None or found[0] is not provider:
            keys = _NAMES_OF_TRACERS if hasattr(self, _NAMES_OF_TRACERS[0]) else _NAMES
            made = getattr(provider, get)(*(getattr(self, key, None) for key in keys))
            found = known[self] = (provider, made)
        return found[1]

    def resolved(self: Any) -> Any:
        found = original.fget(self)
        return found if found is not getattr(self, idle) else guard.run(ours, self) or found

    setattr(proxy, attribute, property(resolved))
    return lambda: setattr(proxy, attribute, original)


# -- meters -----------------------------------------------------------------------------------------------


def _behind_meters(api: Any) -> Callable[[], None]:
    from watchkeep.providers.delegating import provider_class

    original = api._PROXY_METER_PROVIDER
    ours = provider_class(api)()
    api._PROXY_METER_PROVIDER = ours
    if api._METER_PROVIDER is None:
        original.on_set_meter_provider(ours)  # proxies that were given out before

    def undo() -> None:
        api._PROXY_METER_PROVIDER = original
        if original._real_meter_provider is ours:
            original._real_meter_provider = None

    return undo


_PLACES: dict[str, Callable[[Any], Callable[[], None]]] = {
    "traces": _behind_tracers,
    "metrics": _behind_meters,
    "logs": _behind_loggers,
}

_observables: list[tuple[str, tuple[Any, ...], str, tuple[Any, ...], str, str]] = []


def remember_observable(
    create: str, meter: tuple[Any, ...], name: str, callbacks: Sequence[Any] | None, unit: str, description: str
) -> None:
    """Keep what is to be asked at collection, for our provider and for the app's."""
    from watchkeep.providers import app_provider

    entry = (create, meter, name, tuple(callbacks or ()), unit, description)
    if entry in _observables:  # the API's proxies make their instruments again each time that we come
        return
    _observables.append(entry)
    provider = app_provider("metrics") or own.made_meter_provider()
    if provider is not None:
        _show(provider, entry)


def has_observables() -> bool:
    """Tell whether anybody wants to be asked at collection."""
    return bool(_observables)


def show_observables(provider: Any) -> None:
    """Let a new provider ask what the others asked."""
    for entry in list(_observables):
        guard.run(_show, provider, entry)


def _show(provider: Any, entry: tuple[Any, ...]) -> None:
    create, meter, name, callbacks, unit, description = entry
    getattr(provider.get_meter(*meter), create)(name, callbacks, unit, description)

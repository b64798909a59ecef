"""Providers: nothing global is claimed; ours stand behind the app's, and join them as a further reader.

Whoever asks OpenTelemetry's API for a tracer, meter or logger gets one that resolves at each use: to the
app's provider once it has set one, else to ours (fallback.py). When the app sets its own, our measurements
and events are shown to it too, and we read along in it (joining.py). Each signal is decided alone.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, NamedTuple

from watchkeep import guard, patching
from watchkeep.hook import Target
from watchkeep.patching import Patch

if TYPE_CHECKING:
    from watchkeep.cells import Cells
    from watchkeep.export.model import MetricData


class Place(NamedTuple):
    """Where OpenTelemetry's API keeps the provider of one signal."""

    signal: str
    module: str  # that holds the variable
    setter: str
    variable: str


PLACES = {
    "opentelemetry.trace": Place("traces", "opentelemetry.trace", "_set_tracer_provider", "_TRACER_PROVIDER"),
    "opentelemetry.metrics": Place(
        "metrics", "opentelemetry.metrics._internal", "_set_meter_provider", "_METER_PROVIDER"
    ),
    "opentelemetry._logs": Place("logs", "opentelemetry._logs._internal", "_set_logger_provider", "_LOGGER_PROVIDER"),
}
_patches: dict[str, Patch] = {}


def watch(package: str) -> None:
    """Stand behind the API in `package`, and hear of the provider that the app sets there, or has set."""
    from watchkeep.providers import fallback

    place = PLACES[package]
    fallback.place(place.signal, sys.modules[place.module])
    if package not in _patches:
        made = patching.patch(Target(f"{place.module}:{place.setter}", lambda *_: place, lambda *_: _look(place)))
        if made is not None:
            _patches[package] = made
    guard.run(_look, place)


def _look(place: Place) -> None:
    provider = getattr(sys.modules[place.module], place.variable, None)
    if provider is not None:
        from watchkeep.providers import joining

        joining.saw(place.signal, provider)


def leave() -> None:
    """Give everything back and read along nowhere any more."""
    from watchkeep.providers import fallback, joining

    while _patches:
        patching.unpatch(_patches.popitem()[1])
    fallback.take_away()
    joining.leave()


def collect(cells: Cells) -> list[MetricData]:
    """Return our own metrics where it is on us to send them, and those of others that are read by us."""
    from watchkeep.providers import joining, own

    found = joining.cells_to_send(cells)
    for read in (own.read_metrics, joining.read_metrics):
        found += guard.run(read) or ()
    return found


def app_provider(signal: str) -> Any:
    """Return the provider that the app set for a signal, None without one."""
    for place in PLACES.values():
        if place.signal == signal:
            return getattr(sys.modules.get(place.module), place.variable, None)
    return None

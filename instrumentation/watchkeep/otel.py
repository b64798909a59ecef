"""The doors that OpenTelemetry's own launcher knocks at: distro, configurator, pre-instrument, instrumentor.

They do what `watchkeep run` does, for `opentelemetry-instrument app.py` and for code that calls
`WatchkeepInstrumentor().instrument()`. No global provider is set up behind any of them.
"""

from __future__ import annotations

import os
from collections.abc import Collection
from importlib.metadata import EntryPoint
from typing import Any

from opentelemetry.instrumentation.distro import BaseDistro
from opentelemetry.instrumentation.instrumentor import BaseInstrumentor

from watchkeep import auto, guard, official


class WatchkeepDistro(BaseDistro):  # type: ignore[misc]  # its package ships no types
    """Loads each instrumentor when its library is imported, and guarded: one that fails stops nobody."""

    _known: dict[str, official.Instrumentor] | None = None

    def _configure(self, **_: Any) -> None:
        os.environ.setdefault("OTEL_SEMCONV_STABILITY_OPT_IN", "http")

    def load_instrumentor(self, entry_point: EntryPoint, **arguments: Any) -> None:
        """Wait for the instrumentor's library; skip the layers that are ours."""
        if auto.switched_off(os.environ) or entry_point.value.startswith(official.OURS):
            return
        guard.run(self._wait, entry_point, arguments)

    def _wait(self, entry_point: EntryPoint, arguments: dict[str, Any]) -> None:
        known = self._installed().get(entry_point.value)
        if known is not None:
            known.wait(**arguments)
        else:  # installed in a way that only importlib.metadata understands
            official.Instrumentor(entry_point.name, entry_point.value, "another folder", ()).load(**arguments)

    def _installed(self) -> dict[str, official.Instrumentor]:
        if self._known is None:
            import sys

            self._known = {each.value: each for each in official.find(sys.path)}
        return self._known


class WatchkeepConfigurator:
    """Sets up no global provider; ours starts with the first library that we watch."""

    def configure(self, **_: Any) -> None:
        """Start watching for imports."""
        guard.run(auto.start, "otel")


def pre_instrument() -> None:
    """Start watching for imports, whichever distro was chosen."""
    guard.run(auto.start, "otel")


class WatchkeepInstrumentor(BaseInstrumentor):  # type: ignore[misc]  # its package ships no types
    """`watchkeep.instrument()` and `watchkeep.uninstrument()` as OpenTelemetry spells them."""

    def instrumentation_dependencies(self) -> Collection[str]:
        """Name none: each integration looks for its library itself."""
        return ()

    def _instrument(self, **_: Any) -> None:
        import watchkeep

        watchkeep.instrument()

    def _uninstrument(self, **_: Any) -> None:
        import watchkeep

        watchkeep.uninstrument()

"""The app's own providers: what is ours is shown to them, and under `watchkeep run` we read along in them.

Spans of ours live in the app's TracerProvider, so reading along brings them back with all others.
Measurements and events of ours are shown to the app's providers and sent by us directly, so reading along
passes over them. Where the app sends to our end point itself, the way out is the app's alone.
"""

from __future__ import annotations

import atexit
from typing import TYPE_CHECKING, Any

from watchkeep import app, auto, guard, names, runtime
from watchkeep.providers import endpoints

if TYPE_CHECKING:
    from watchkeep.cells import Cells
    from watchkeep.export.model import MetricData

_WAIT = 1.0
_UNKNOWN = "unknown_service"

_joined: dict[str, Joined] = {}


class Joined:
    """The provider that the app set for one signal."""

    def __init__(self, signal: str, provider: Any) -> None:
        self.signal = signal
        self.provider = provider
        self.reader: Any = None
        self.overlap = endpoints.Overlap(signal, provider)
        self.before: list[MetricData] = []  # what we had measured when the app set it, where it is on the app from then

    def read_along(self) -> bool:
        """Tell whether we read along: the app lets us, and does not send to our end point itself."""
        return self.reader is not None and not self.overlap()


def wanted() -> bool:
    """Tell whether we read along in the app's pipeline: as it was set, else only where a launcher started us."""
    asked = runtime.config().join
    return asked if asked is not None else auto.source() in ("run", "otel")


def saw(signal: str, provider: Any) -> None:
    """Take note of a provider that the app set."""
    known = _joined.get(signal)
    if known is not None and known.provider is provider:
        return
    runtime.get()
    found = _joined[signal] = Joined(signal, provider)
    if wanted():
        found.reader = guard.run(_READERS[signal], found)
        guard.run(_take_name, provider)
    guard.run(_SHOWS[signal], found)


def joined(signal: str) -> Joined | None:
    """Return what is known of the app's provider for a signal."""
    return _joined.get(signal)


def _take_name(provider: Any) -> None:
    """Be the service that the app says it is, where nobody told us a name: one process, one service."""
    ours = getattr(runtime.get().pipeline, "resource", None)
    theirs = getattr(provider, "resource", None) or getattr(getattr(provider, "_sdk_config", None), "resource", None)
    if ours is None or theirs is None or not ours.attributes[names.SERVICE_NAME].startswith(_UNKNOWN):
        return
    merged = {**theirs.attributes, **ours.attributes}
    merged[names.SERVICE_NAME] = theirs.attributes.get(names.SERVICE_NAME) or merged[names.SERVICE_NAME]
    ours.attributes = merged  # in one step: it may be being sent just now


# -- reading along ------------------------------------------------------------------------------------------


def _read_spans(found: Joined) -> Any:
    if not hasattr(found.provider, "add_span_processor"):
        return None
    from watchkeep.providers.sdk_traces import JoinedSpans

    reader = JoinedSpans(found.overlap)
    found.provider.add_span_processor(reader)
    return reader


def _read_logs(found: Joined) -> Any:
    if not hasattr(found.provider, "add_log_record_processor"):
        return None
    from watchkeep.providers.sdk_logs import JoinedLogs

    reader = JoinedLogs(found.overlap)
    found.provider.add_log_record_processor(reader)
    return reader


def _read_metrics(found: Joined) -> Any:
    if not hasattr(found.provider, "add_metric_reader"):
        return None
    from watchkeep.providers.sdk_metrics import Reader

    reader = Reader()
    found.provider.add_metric_reader(reader)
    return reader


_READERS = {"traces": _read_spans, "metrics": _read_metrics, "logs": _read_logs}


def cells_to_send(cells: Cells) -> list[MetricData]:
    """Return what is ours to send of our own metrics: nothing where the app's MeterProvider is their only way out."""
    found = _joined.get("metrics")
    if found is None or _sends_too(found):
        return cells.collect()
    before, found.before = found.before, []
    return before


def _sends_too(found: Joined) -> bool:
    """Tell whether what we show to the app is ours to send, too."""
    return wanted() and not found.overlap()


def read_metrics() -> list[MetricData]:
    """Return the metrics of the app's own meters, where we read along."""
    found = _joined.get("metrics")
    return list(found.reader.read_along()) if found is not None and found.read_along() else []


# -- showing ours -------------------------------------------------------------------------------------------


def _show_spans(found: Joined) -> None:
    app.spans_are_ours = found.reader is None and wanted()
    atexit.register(_drain)  # later than the provider's own hook, hence run before it


def _show_metrics(found: Joined) -> None:
    from watchkeep.providers.shown import ShownMetrics

    # What closed before the app set its provider is not recorded with it, nor lost.
    _drain()
    cells = runtime.cells()
    if cells.series and not _sends_too(found):
        found.before = cells.collect()
    shown = ShownMetrics(found.provider)
    app.show, app.show_observed, app.show_scope = (
        shown.record,
        guard.guarded(shown.observe),
        guard.guarded(shown.meter),
    )
    shown.begin()
    atexit.register(_drain)


def _drain() -> None:
    guard.run(runtime.emitter().drain, wait=_WAIT)


def _show_logs(found: Joined) -> None:
    from watchkeep.providers.shown import ShownLogs

    shown = ShownLogs(found.provider)

    def show(log: Any, already: bool) -> bool:
        if not already:
            guard.run(shown.emit, log)
        return _sends_too(found)

    app.show_log = show


_SHOWS = {"traces": _show_spans, "metrics": _show_metrics, "logs": _show_logs}


# -- leaving ------------------------------------------------------------------------------------------------


def leave() -> None:
    """Read along nowhere and show nothing any more."""
    app.show = app.show_observed = app.show_scope = app.show_log = None
    atexit.unregister(_drain)
    app.spans_are_ours = False
    for signal, found in list(_joined.items()):
        if found.reader is not None:
            guard.run(_LEAVES[signal], found)
        del _joined[signal]


def _leave_spans(found: Joined) -> None:
    _without(found.provider._active_span_processor, "_span_processors", found.reader)


def _leave_logs(found: Joined) -> None:
    _without(found.provider._multi_log_record_processor, "_log_record_processors", found.reader)


def _leave_metrics(found: Joined) -> None:
    found.provider.remove_metric_reader(found.reader)


def _without(several: Any, name: str, reader: Any) -> None:
    with several._lock:
        setattr(several, name, tuple(each for each in getattr(several, name) if each is not reader))


_LEAVES = {"traces": _leave_spans, "metrics": _leave_metrics, "logs": _leave_logs}

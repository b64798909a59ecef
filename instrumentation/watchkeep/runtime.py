"""The running pieces, made at first use: configuration, cells, emitter, sampler, export pipeline.

Nothing here starts before the first target library is imported or the first record closes.
"""

from __future__ import annotations

import os
import sys
import threading
from typing import TYPE_CHECKING, Any

from watchkeep import guard

if TYPE_CHECKING:
    from watchkeep.cells import Cells
    from watchkeep.config import Config
    from watchkeep.console import Console
    from watchkeep.emit import Emitter
    from watchkeep.export.model import MetricData
    from watchkeep.sampling import Decide

_lock = threading.RLock()
_starting = False
_current: Runtime | None = None


class Runtime:
    """Configuration, cells, emitter and pipeline of this process."""

    def __init__(self, config: Config, sink: Any = None) -> None:
        from watchkeep.cells import Cells
        from watchkeep.emit import Emitter
        from watchkeep.export import sanitise
        from watchkeep.sampling import from_environment

        self.config = config
        sanitise.configure(config.value_max_bytes)
        self.cells: Cells = Cells(config.label_cap, config.model_cap)
        self.sampler: Decide | None = from_environment()
        self.emitter: Emitter = Emitter(self.cells, None)
        self.console = _console() if sink is None and config.prints("traces") else None
        self.pipeline: Any = sink if sink is not None else self._pipeline()
        self.emitter.sink = self.pipeline

    def _pipeline(self) -> Any:
        from dataclasses import replace as replace_fields

        from watchkeep.export.pipeline import Pipeline
        from watchkeep.export.settings import from_environment
        from watchkeep.resource import follow, resource

        config = self.config
        settings = replace_fields(
            from_environment(os.environ),
            queue_bytes=config.queue_bytes,
            exit_timeout=config.exit_timeout,
            sigterm=config.sigterm,
        )
        for error in settings.errors:
            guard.logger().warning("watchkeep: %s", error)
        return Pipeline(
            settings,
            follow(resource()),
            drain=self.emitter.drain,
            collect=self.collect,
            spans_enabled=config.exports("traces"),
            logs_enabled=config.exports("logs"),
            metrics_enabled=config.exports("metrics"),
            sinks=(self._show,) if self.console is not None else (),
            at_end=self.console.close if self.console is not None else None,
        )

    def _show(self, signal: str, items: list[Any]) -> None:
        if signal == "traces" and self.console is not None:
            self.console.add_spans(items)

    def resume(self) -> None:
        """Send again after a shutdown: what is counted goes on, what ended in between is not sent."""
        if getattr(self.pipeline, "closed", False):
            self.pipeline = self.emitter.sink = self.pipeline.again()
            self.pipeline.start()

    def collect(self) -> list[MetricData]:
        """Return all metrics that are ours to send: our cells, and those of others who have no way out of their own."""
        from watchkeep import providers

        return providers.collect(self.cells)

    def after_fork(self) -> None:
        """Start with nothing of the parent's: it delivers what it had, and its counts are its own."""
        self.emitter.reset()
        self.cells.reset()
        if self.console is not None:
            self.console.forget()


def _console() -> Console:
    from watchkeep.console import Console

    return Console()


def _in_child() -> None:
    global _lock, _starting
    _lock, _starting = threading.RLock(), False  # a thread of the parent's may have held it
    if _current is not None:
        guard.run(_current.after_fork)


os.register_at_fork(after_in_child=_in_child)


def config() -> Config:
    """Return the configuration, read at first use."""
    found = _current
    if found is not None:
        return found.config
    from watchkeep.config import current

    return current()


def get() -> Runtime:
    """Return the running pieces; the first call makes and starts them."""
    found = _current
    return found if found is not None else _start()


def _start() -> Runtime:
    global _current, _starting
    with _lock:
        if _current is None:
            _starting = True
            try:
                made = Runtime(config())
                _read_correlation_from(made.config.correlation_source)
                made.pipeline.start()
                _current = made
            finally:
                _starting = False
            _release_lines()
        return _current


def _release_lines() -> None:
    logs = sys.modules.get("watchkeep.logs")
    if logs is not None:
        guard.run(logs.release)


def offer() -> Emitter | None:
    """Return the emitter without waiting: None while the running pieces are just being made."""
    found = _current
    if found is not None:
        return found.emitter
    if not _lock.acquire(blocking=False):
        return None
    try:
        return None if _starting else get().emitter
    finally:
        _lock.release()


def _read_correlation_from(path: str) -> None:
    """Let the app's own ContextVar, named in the settings, say the correlation ID; it is looked up when asked."""
    if not path:
        return
    import sys

    from watchkeep import context

    module, _, name = path.replace(":", ".").rpartition(".")

    def source() -> object:
        variable = getattr(sys.modules.get(module), name, None)
        return variable.get(None) if variable is not None else None

    context.set_source(source)


def started() -> Runtime | None:
    """Return the running pieces when there are any."""
    return _current


def replace(other: Runtime | None) -> Runtime | None:
    """Put other pieces in place (tests capture this way); return what ran before."""
    global _current
    before, _current = _current, other
    return before


def emitter() -> Emitter:
    """Return the emitter."""
    found = _current
    return (found if found is not None else _start()).emitter


def cells() -> Cells:
    """Return the cells."""
    return get().cells


def sampler() -> Decide | None:
    """Return the sampler, None for the default."""
    return get().sampler


def resume() -> None:
    """Begin to send again where `shutdown()` has ended it; otherwise change nothing."""
    found = _current
    if found is not None:
        with _lock:
            found.resume()


def flush(timeout: float = 3.0) -> bool:
    """Send what has ended so far; return whether all of it was delivered within `timeout` seconds.

    False after `shutdown()`: nothing is sent any more, until `instrument()` begins anew.
    """
    found = _current
    return True if found is None else bool(found.pipeline.flush(timeout))


def shutdown(timeout: float = 3.0) -> bool:
    """Send what has ended and stop exporting; return whether all was delivered within `timeout` seconds.

    What ends later is not sent. A second call changes nothing and returns the same; `instrument()` begins anew.
    """
    found = _current
    return True if found is None else bool(found.pipeline.shutdown(timeout))

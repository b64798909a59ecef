"""The one thread that works: parked as a daemon, woken by the clock, by a full batch or by a flush.

Everything a signal handler or another thread touches here is a C primitive (`SimpleQueue`, a bare lock):
`threading.Event` holds a lock of its own for a moment, and a handler that interrupts just then hangs.
"""

from __future__ import annotations

import sys
import threading
import time
from _thread import allocate_lock
from collections.abc import Callable
from queue import Empty, SimpleQueue

from watchkeep import guard


class Flush:
    """Somebody waits until all that is there has been sent, or until a moment."""

    def __init__(self, timeout: float, final: bool = False) -> None:
        self.deadline = time.monotonic() + timeout
        self.final = final
        self.complete = False
        self.drained = Mark()
        self.done = Mark()


class Mark:
    """Something that happens once and can be waited for."""

    def __init__(self) -> None:
        self._lock = allocate_lock()
        self._lock.acquire()
        self.set = False

    def now(self) -> None:
        """It has happened."""
        if not self.set:
            self.set = True
            self._lock.release()

    def wait(self, until: float) -> bool:
        """Wait for it until a moment; return whether it has happened."""
        if self._lock.acquire(timeout=max(0.0, until - time.monotonic())):
            self._lock.release()
        return self.set


class Worker:
    """Calls `work` after each `pause`, and for each flush, one at a time."""

    def __init__(self, work: Callable[[Flush | None], None], pause: Callable[[], float]) -> None:
        self.work = work
        self.pause = pause
        self._asked: SimpleQueue[Flush | None] = SimpleQueue()
        self._thread: threading.Thread | None = None
        self._woken = False

    def start(self) -> None:
        """Park the thread; where none can be started any more, the exit hook works alone."""
        thread = threading.Thread(target=self._run, name="watchkeep-export", daemon=True)
        try:
            thread.start()
        except RuntimeError:
            return
        self._thread = thread

    def alive(self) -> bool:
        """Tell whether somebody will take what is asked."""
        return self._thread is not None and self._thread.is_alive()

    def here(self) -> bool:
        """Tell whether the caller is the worker itself."""
        return self._thread is threading.current_thread()

    def wake(self) -> None:
        """Work now; asking twice is no more than asking once."""
        if not self._woken:
            self._woken = True
            self._asked.put(None)

    def asked(self) -> bool:
        """Tell whether somebody waits."""
        return not self._asked.empty()

    def ask(self, flush: Flush) -> None:
        """Hand over a flush."""
        self._asked.put(flush)

    def _run(self) -> None:
        suppress_own_telemetry()
        while True:
            asked = self._next()
            try:
                guard.run(self.work, asked)
            finally:
                if asked is not None:
                    asked.done.now()
            if asked is not None and asked.final:
                return

    def _next(self) -> Flush | None:
        try:
            asked = self._asked.get(timeout=max(0.0, self.pause()))
        except Empty:
            asked = None
        self._woken = False
        return asked


def suppress_own_telemetry() -> None:
    """What this thread sends is not traced, by us or by anybody who follows OpenTelemetry's convention."""
    context = sys.modules.get("opentelemetry.context")
    key = getattr(context, "_SUPPRESS_INSTRUMENTATION_KEY", None)
    if context is not None and key is not None:
        context.attach(context.set_value(key, True))

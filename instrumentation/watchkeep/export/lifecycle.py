"""The ends and splits of a process: normal end, SIGTERM, fork, multiprocessing.

`os._exit` and SIGKILL are out of reach, and so is a main thread inside a long C call until that returns.
"""

from __future__ import annotations

import atexit
import os
import signal
import sys
import threading
import time
from typing import TYPE_CHECKING

from watchkeep import auto, guard

if TYPE_CHECKING:
    from types import FrameType

    from watchkeep.export.pipeline import Pipeline

_watched: set[Pipeline] = set()
_hooked = False


def watch(pipeline: Pipeline) -> None:
    """Make sure that `pipeline` is emptied when the process ends, and starts anew in its children."""
    _watched.add(pipeline)
    _hook()
    guard.run(_join_multiprocessing, pipeline)
    if pipeline.settings.sigterm:
        guard.run(_install)


def _hook() -> None:
    global _hooked
    if _hooked:
        return
    _hooked = True
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=_in_child)
    # Handlers run last in, first out: one from before the app's own sees also what those make.
    if not auto.ends_with_us():
        atexit.register(end)


def end() -> None:
    """Empty every pipeline within one limit, at the end of the process."""
    _shut_down(list(_watched), time.monotonic())


def forget(pipeline: Pipeline) -> None:
    """Undo `watch`."""
    _watched.discard(pipeline)
    if not _watched:
        guard.run(_uninstall)


def _in_child() -> None:
    for pipeline in list(_watched):
        guard.run(pipeline.after_fork)
        guard.run(_join_multiprocessing, pipeline)


def _join_multiprocessing(pipeline: Pipeline) -> None:
    """Children of multiprocessing leave by `os._exit`, past atexit: they run finalizers instead.

    A child first forgets the finalizers it inherited, then runs what was registered for after the fork.
    """
    util = sys.modules.get("multiprocessing.util")
    process = sys.modules.get("multiprocessing.process")
    if util is None or process is None:
        return
    util.register_after_fork(pipeline, _finalize)
    if process.parent_process() is not None:
        _finalize(pipeline)


def _finalize(pipeline: Pipeline) -> None:
    util = sys.modules["multiprocessing.util"]
    timeout = pipeline.settings.exit_timeout
    util.Finalize(None, pipeline.shutdown, args=(timeout,), exitpriority=-100)


# SIGTERM, where its action was the default.

_installed = False
_attempts = 0
_since = 0.0
_MOST = 4
_AGAIN = 0.02


def _install() -> None:
    global _installed
    if threading.current_thread() is not threading.main_thread():
        return
    if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        signal.signal(signal.SIGTERM, _on_term)
        _installed = True


def _uninstall() -> None:
    global _installed
    if not _installed or threading.current_thread() is not threading.main_thread():
        return
    _installed = False
    if signal.getsignal(signal.SIGTERM) is _on_term:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _on_term(number: int, _frame: FrameType | None) -> None:
    """Deliver what there is, then die of the signal as if we had not been there."""
    if guard.run(_put_off, number):
        return
    guard.run(_deliver)
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)


def _put_off(number: int) -> bool:
    """Come back in a moment when the signal hit the main thread inside our own code, on a lock we need."""
    global _attempts, _since
    _since = _since or time.monotonic()
    _attempts += 1
    stuck = [pipeline for pipeline in list(_watched) if pipeline.interrupted()]
    if _attempts > _MOST or not stuck:
        return False

    def again() -> None:
        time.sleep(_AGAIN)
        os.kill(os.getpid(), number)

    threading.Thread(target=again, name="watchkeep-sigterm", daemon=True).start()
    return True


def _deliver() -> None:
    _shut_down(list(_watched), _since or time.monotonic(), inline=False)


def _shut_down(pipelines: list[Pipeline], since: float, inline: bool = True) -> None:
    deadline = since + max((pipeline.settings.exit_timeout for pipeline in pipelines), default=0)
    for pipeline in pipelines:
        guard.run(pipeline.shutdown, max(0.0, deadline - time.monotonic()), inline)

"""The process itself: CPU, memory, threads, descriptors, page faults, garbage collections.

Nothing is hooked and nothing is kept: each value is read when metrics are collected, from /proc/self,
`resource` and `gc`. It comes with the first integration that has a library (installer.py). Where there is
no /proc (macOS), memory is the peak, threads are those Python knows, and virtual memory is left out.
"""

from __future__ import annotations

import gc
import os
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

from watchkeep import cells, names
from watchkeep.cells import Observation
from watchkeep.integrations import Integration, scope

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]

SCOPE = scope("process", names.SCHEMA_CORE)

_LINUX = sys.platform == "linux"
_DESCRIPTORS = "/proc/self/fd" if _LINUX else "/dev/fd"
_GENERATION_KEYS = {
    names.METRIC_CPYTHON_GC_COLLECTIONS: "collections",
    names.METRIC_CPYTHON_GC_COLLECTED_OBJECTS: "collected",
    names.METRIC_CPYTHON_GC_UNCOLLECTABLE_OBJECTS: "uncollectable",
}
_MIN_INTERVAL = 1.0  # s; a share of less time than that says nothing


class _Own:
    """What belongs to this process and not to the one that it was forked from."""

    def __init__(self, gc_before: list[dict[str, int]]) -> None:
        self.gc_before = gc_before
        self.began = time.monotonic()
        self.read_at = self.began
        self.cpu = _cpu()
        self.utilization: tuple[float, float] | None = None


def _cpu() -> tuple[float, float]:
    if resource is None:
        return os.times()[:2]
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime, used.ru_stime


_own = _Own([])


def _in_child() -> None:
    global _own
    _own = _Own(gc.get_stats())


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)


# -- CPU ---------------------------------------------------------------------------------------------------


def _cpu_time() -> Iterator[Observation]:
    user, system = _cpu()
    yield ("user",), user
    yield ("system",), system


def _cpu_utilization() -> Iterator[Observation]:
    user, system = _utilization()
    yield ("user",), user
    yield ("system",), system


def _utilization() -> tuple[float, float]:
    # Two readers (our exporter and the app's) ask at their own times: what is fresh serves both.
    now, own = time.monotonic(), _own
    elapsed = now - own.read_at
    if own.utilization is not None and elapsed < _MIN_INTERVAL:
        return own.utilization
    used, before = _cpu(), own.cpu
    available = max(elapsed, 1e-3) * _cpus()
    own.utilization = ((used[0] - before[0]) / available, (used[1] - before[1]) / available)
    own.read_at, own.cpu = now, used
    return own.utilization


def _cpus() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


# -- /proc/self/stat ---------------------------------------------------------------------------------------


def _stat() -> list[bytes]:
    # The fields of proc_pid_stat(5) from the third on: the second, the name, may hold anything.
    with open("/proc/self/stat", "rb") as file:
        return file.read().rpartition(b")")[2].split()


def _memory_usage() -> Iterator[Observation]:
    if _LINUX:
        yield (), int(_stat()[21]) * os.sysconf("SC_PAGE_SIZE")
    elif resource is not None:
        yield (), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _memory_virtual() -> Iterator[Observation]:
    if _LINUX:
        yield (), int(_stat()[20])


def _threads() -> Iterator[Observation]:
    yield (), int(_stat()[17]) if _LINUX else threading.active_count()


def _uptime() -> Iterator[Observation]:
    if _LINUX:
        started = int(_stat()[19]) / os.sysconf("SC_CLK_TCK")
        yield (), max(0.0, time.clock_gettime(time.CLOCK_BOOTTIME) - started)
    else:
        yield (), time.monotonic() - _own.began


def _descriptors() -> Iterator[Observation]:
    if os.path.isdir(_DESCRIPTORS):
        yield (), len(os.listdir(_DESCRIPTORS)) - 1  # without the one that lists them


# -- resource and gc -----------------------------------------------------------------------------------------


def _context_switches() -> Iterator[Observation]:
    if resource is not None:
        used = resource.getrusage(resource.RUSAGE_SELF)
        yield ("voluntary",), used.ru_nvcsw
        yield ("involuntary",), used.ru_nivcsw


def _paging_faults() -> Iterator[Observation]:
    if resource is not None:
        used = resource.getrusage(resource.RUSAGE_SELF)
        yield ("major",), used.ru_majflt
        yield ("minor",), used.ru_minflt


def _collections(key: str) -> Any:
    def observe() -> Iterator[Observation]:
        before = _own.gc_before
        for generation, found in enumerate(gc.get_stats()):
            yield (generation,), found[key] - (before[generation][key] if before else 0)

    return observe


_OBSERVERS = {
    names.METRIC_PROCESS_CPU_TIME: _cpu_time,
    names.METRIC_PROCESS_CPU_UTILIZATION: _cpu_utilization,
    names.METRIC_PROCESS_MEMORY_USAGE: _memory_usage,
    names.METRIC_PROCESS_MEMORY_VIRTUAL: _memory_virtual,
    names.METRIC_PROCESS_THREAD_COUNT: _threads,
    names.METRIC_PROCESS_UNIX_FILE_DESCRIPTOR_COUNT: _descriptors,
    names.METRIC_PROCESS_CONTEXT_SWITCHES: _context_switches,
    names.METRIC_PROCESS_PAGING_FAULTS: _paging_faults,
    names.METRIC_PROCESS_UPTIME: _uptime,
    **{metric: _collections(key) for metric, key in _GENERATION_KEYS.items()},
}


def _started(_: str) -> None:
    for metric, observer in _OBSERVERS.items():
        cells.observe(metric, SCOPE, observer)


def _stopped() -> None:
    cells.forget(SCOPE)


INTEGRATION = Integration(name="process", scope=SCOPE, targets=(), started=_started, stopped=_stopped)

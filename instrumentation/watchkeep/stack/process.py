"""Processes that outlive us, told apart by id and start time, so that a reused id is never signalled."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from pathlib import Path
from typing import NamedTuple

_PROC = Path("/proc")
_STARTED, _STATE, _RSS = 21, 2, 23  # fields of /proc/<pid>/stat, see proc(5), less one
_POLL = 0.05


class Process(NamedTuple):
    """A process as a file remembers it."""

    pid: int
    started: str

    @classmethod
    def of(cls, pid: int) -> Process:
        """Remember a process that runs now."""
        return cls(pid, _started(pid) or "gone")

    @property
    def alive(self) -> bool:
        """Whether that very process still runs."""
        return self.pid > 0 and _started(self.pid) == self.started

    def send(self, number: int) -> bool:
        """Send a signal; False when that process is gone."""
        try:
            handle = os.pidfd_open(self.pid)
        except AttributeError:  # a system without them: between look and signal an id may, in theory, be reused
            return self.alive and _kill(self.pid, number)
        except OSError:
            return False
        try:
            if not self.alive:
                return False
            signal.pidfd_send_signal(handle, number)
        except OSError:
            return False
        finally:
            os.close(handle)
        return True

    def wait(self, seconds: float) -> bool:
        """Wait for the end of the process; False when it still runs after `seconds`."""
        end = time.monotonic() + seconds
        while self.alive:
            if time.monotonic() >= end:
                return False
            time.sleep(_POLL)
        return True

    def stop(self, grace: float) -> bool:
        """End it with SIGTERM, and after `grace` seconds with SIGKILL; True when SIGTERM was enough."""
        self.send(signal.SIGTERM)
        if self.wait(grace):
            return True
        self.send(signal.SIGKILL)
        self.wait(5)
        return False

    @property
    def memory(self) -> int:
        """Resident memory in bytes; 0 where it cannot be told."""
        fields = _stat(self.pid)
        if fields:
            return int(fields[_RSS]) * os.sysconf("SC_PAGE_SIZE")
        text = _ps(self.pid, "rss=")
        return int(text) * 1024 if text.isdigit() else 0


def _kill(pid: int, number: int) -> bool:
    with contextlib.suppress(OSError):
        os.kill(pid, number)
        return True
    return False


def _started(pid: int) -> str:
    """Return what tells this process from a later one of the same id; empty when it is gone or a zombie."""
    fields = _stat(pid)
    if fields:
        return "" if fields[_STATE] in ("Z", "X") else f"{_boot()}-{fields[_STARTED]}"
    if (_PROC / "self" / "stat").exists():
        return ""
    return "" if _ps(pid, "stat=").startswith("Z") else _ps(pid, "lstart=")


def _stat(pid: int) -> list[str]:
    try:
        text = (_PROC / str(pid) / "stat").read_text("utf-8", "replace")
    except OSError:
        return []
    before, _, after = text.rpartition(")")  # a command's name may hold blanks and parentheses
    return [*before.split(" (", 1), *after.split()]


def _boot() -> str:
    try:
        return (_PROC / "sys" / "kernel" / "random" / "boot_id").read_text("ascii").strip()
    except OSError:
        return ""


def _ps(pid: int, column: str) -> str:
    try:
        done = subprocess.run(  # noqa: S603 - fixed words and a number
            ["ps", "-o", column, "-p", str(pid)],  # noqa: S607
            capture_output=True,
            text=True,
            check=False,
        )
    except OSError:
        return ""
    return done.stdout.strip()

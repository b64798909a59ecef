"""The time ledger: every nanosecond of a call belongs to exactly one phase.

A phase is entered, never added: leaving one and entering the next share a single clock reading, so
that no phase is negative and their sum is the span by construction.
"""

from __future__ import annotations

from watchkeep import clock
from watchkeep.names import PHASE_KEYS


class Ledger:
    """Splits the time since `now` into phases (names.PHASES), in nanoseconds."""

    __slots__ = ("mark", "phase", "times", "total")

    def __init__(self, now: int) -> None:
        self.mark = now
        self.phase = "other"
        self.times: dict[str, int] = {}
        self.total = self.times

    def enter(self, phase: str, now: int = 0) -> int:
        """Give the time since the last mark to the phase it was spent in; return the new mark."""
        if not now:
            now = clock.monotonic()
        times = self.times
        last = self.phase
        times[last] = times.get(last, 0) + now - self.mark
        self.mark = now
        self.phase = phase
        return now

    def stop(self) -> int:
        """Let the call end here: what a left-over body still reports is no part of it; return the end."""
        now = self.enter("other")
        self.total = dict(self.times)
        return now

    def add(self, phase: str, spent: int) -> None:
        """Give a phase time that was measured in place and that `enter` did not see."""
        if spent:
            self.times[phase] = self.times.get(phase, 0) + spent

    def seconds(self) -> dict[str, float]:
        """Return the phases that took time, as span attributes in seconds."""
        return {PHASE_KEYS[phase]: spent / 1e9 for phase, spent in self.total.items() if spent}

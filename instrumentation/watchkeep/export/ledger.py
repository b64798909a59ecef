"""What became of every item: sent = delivered + waiting + lost, by reason."""

from __future__ import annotations

from _thread import allocate_lock
from collections import Counter
from collections.abc import Callable
from typing import Any

QUEUE_FULL, REJECTED, EXPIRED, ENCODE, SHUTDOWN, SUPERSEDED = (
    "queue_full",  # newer ones needed the room
    "rejected",  # the receiver refused them
    "expired",  # tried for too long
    "encode",  # a fault of ours
    "shutdown",  # the process ended first
    "superseded",  # cumulative points that newer ones replace: nothing is missing in the end
)


class Ledger:
    """The counts of one signal. The lock is held for a few instructions only, never while waiting."""

    def __init__(self) -> None:
        self.lock = allocate_lock()
        self.sent = 0
        self.delivered = 0
        self.inflight = 0  # taken from the queue, fate unknown
        self.lost: Counter[tuple[str, str]] = Counter()  # by reason and error.type
        self.closed = False

    def take(self, number: int) -> None:
        """Count items that appear without a queue."""
        with self.lock:
            self.sent += number
            self.inflight += number

    def deliver(self, number: int) -> None:
        """Count items that the receiver took."""
        with self.lock:
            if not self.closed:
                self.delivered += number
                self.inflight -= number

    def lose(self, reason: str, number: int, error: str = "") -> None:
        """Count items in flight that will never arrive."""
        with self.lock:
            if number and not self.closed:
                self.lost[reason, error or reason] += number
                self.inflight -= number

    def close(self, waiting: int = 0) -> int:
        """Count all that is left as lost at the end; what comes of a request still on its way no longer counts."""
        left = self.inflight + waiting
        self.closed = True
        self.inflight = 0
        if left:
            self.lost[SHUTDOWN, SHUTDOWN] += left
        return left

    def snapshot(self, queued: Callable[[], int]) -> dict[str, Any]:
        """Give all counts of one moment, with what is still queued."""
        held = self.lock.acquire(timeout=0.2)  # a signal handler may stand on it
        try:
            return {
                "sent": self.sent,
                "delivered": self.delivered,
                "lost": self.reasons(),
                "waiting": queued() + self.inflight,
            }
        finally:
            if held:
                self.lock.release()

    def free(self) -> bool:
        """Tell whether the lock can be had; it is never held for long, except by a thread that was interrupted."""
        if not self.lock.acquire(timeout=0.05):
            return False
        self.lock.release()
        return True

    def reasons(self) -> dict[str, int]:
        """Give the lost ones by reason."""
        found: Counter[str] = Counter()
        for (reason, _), number in list(self.lost.items()):
            found[reason] += number
        return dict(found)

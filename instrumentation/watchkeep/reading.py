"""How a streamed body was read, from nothing but stamps: asked, arrived, asked, arrived, ...

A body stamps twice a chunk and does no arithmetic; that is done here, once, when the stream ends. A chunk
is what one read brought.
"""

from __future__ import annotations

from collections.abc import Iterable
from operator import sub

FOLD_ABOVE = 20_000  # stamps that an open stream may hold before they are summed up


class Reading:
    """Sums of a stream's stamps, in nanoseconds: waiting for data, held by the consumer, gaps between arrivals."""

    __slots__ = ("begun", "chunks", "consumer", "first", "gap_max", "gaps", "last", "stream", "taken")

    def __init__(self, keep_gaps: bool = False) -> None:
        self.chunks = self.consumer = self.first = self.gap_max = self.last = self.stream = 0
        self.gaps: list[int] | None = [] if keep_gaps else None
        self.begun: int | None = None  # the first of the stamps that were summed up last
        self.taken = 0  # how many those were

    def take(self, stamps: list[int]) -> None:
        """Sum up stamps that begin with an asking; an odd number ends with one that was not answered."""
        asked, arrived = stamps[0::2], stamps[1::2]
        if self.chunks and asked:
            self.consumer += asked[0] - self.last
        waited = sum(arrived) - sum(asked[: len(arrived)])
        self.stream += waited
        if asked:
            self.consumer += stamps[-1] - stamps[0] - waited
        if arrived:
            self._arrivals([self.last, *arrived] if self.chunks else arrived)
            self.chunks += len(arrived)

    def _arrivals(self, arrived: list[int]) -> None:
        gaps: Iterable[int] = map(sub, arrived[1:], arrived)
        if self.gaps is not None:
            gaps = list(gaps)
            self.gaps.extend(gaps)
        self.gap_max = max(self.gap_max, max(gaps, default=0))
        self.first = self.first or arrived[0]
        self.last = arrived[-1]

    def after(self, stamps: list[int]) -> Reading:
        """Return new sums that hold these stamps, too; those that were summed up last may still be among them.

        New ones, because the thread that folds a long stream and one that ends it may both do this at once.
        """
        if self.taken and stamps and stamps[0] is self.begun:  # the very object: another stamp may be as late
            stamps = stamps[self.taken :]
        made = Reading()
        if self.chunks:
            made.chunks, made.consumer, made.stream = self.chunks, self.consumer, self.stream
            made.first, made.last, made.gap_max = self.first, self.last, self.gap_max
        if self.gaps is not None:
            made.gaps = self.gaps.copy()
        if stamps:
            made.begun, made.taken = stamps[0], len(stamps)
            made.take(stamps)
        return made

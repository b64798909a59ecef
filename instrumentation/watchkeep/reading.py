"""How a streamed body was read, from nothing but stamps: asked, arrived, asked, arrived, ...

A body stamps twice a chunk and does no arithmetic; that is done here, once, when the stream ends. A chunk
is what one read brought.
"""

from __future__ import annotations

from operator import sub

FOLD_ABOVE = 20_000  # stamps that an open stream may hold before they are summed up


class Reading:
    """Sums of a stream's stamps, in nanoseconds: waiting for data, held by the consumer, gaps between arrivals."""

    __slots__ = ("chunks", "consumer", "first", "gap_max", "gaps", "last", "stream")

    def __init__(self, keep_gaps: bool = False) -> None:
        self.chunks = self.consumer = self.first = self.gap_max = self.last = self.stream = 0
        self.gaps: list[int] | None = [] if keep_gaps else None

    def take(self, stamps: list[int]) -> None:
        """Sum up stamps that begin with an asking; an odd number ends with one that was not answered."""
        asked, arrived = stamps[0::2], stamps[1::2]
        if self.chunks and asked:
            self.consumer += asked[0] - self.last
        self.stream += sum(arrived) - sum(asked[: len(arrived)])
        self.consumer += sum(asked[1:]) - sum(arrived[: max(len(asked) - 1, 0)])
        if arrived:
            self._arrivals([self.last, *arrived] if self.chunks else arrived)
            self.chunks += len(arrived)

    def _arrivals(self, arrived: list[int]) -> None:
        gaps = list(map(sub, arrived[1:], arrived))
        self.gap_max = max(self.gap_max, max(gaps, default=0))
        if self.gaps is not None:
            self.gaps.extend(gaps)
        self.first = self.first or arrived[0]
        self.last = arrived[-1]

    def fold(self, stamps: list[int]) -> None:
        """Sum up what a long stream has stamped so far; its reader goes on appending meanwhile."""
        done = len(stamps) // 2 * 2
        self.take(stamps[:done])
        del stamps[:done]

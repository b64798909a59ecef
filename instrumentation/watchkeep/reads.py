"""What is kept of a body while the app reads it: all of it up to a megabyte, of a larger one its head and its end."""

from __future__ import annotations

from collections import deque

from watchkeep import guard

LIMIT = 1 << 20
"""Bytes of memory that the reads of one body may take."""

_HALF = LIMIT // 2
_EACH = 48  # bytes that an object takes beside its content
_PIECE = 1 << 16  # as large as a read usually is; a larger one is taken in pieces


class Reads(deque[bytes]):
    """The last reads of a body; what they push out fills `head`, and after that is forgotten (`cut`)."""

    def __init__(self) -> None:
        super().__init__()
        self.head: list[bytes] = []
        self.room = _HALF
        self.size = 0
        self.cut = False

    @guard.guarded
    def append(self, data: bytes) -> None:
        """Take one read."""
        if len(data) <= _PIECE:
            self._take(data)
        else:
            for start in range(0, len(data), _PIECE):
                self._take(data[start : start + _PIECE])

    def _take(self, data: bytes) -> None:
        super().append(data)
        self.size += len(data) + _EACH
        while self.size > _HALF:
            oldest = self.popleft()
            taken = len(oldest) + _EACH
            self.size -= taken
            if self.room > 0:
                self.room -= taken
                self.head.append(oldest)
            else:
                self.cut = True

    def kept(self) -> list[bytes]:
        """Return all that is kept, in order."""
        return [*self.head, *self]


def ends(content: bytes) -> list[bytes]:
    """Return a body that was read at once; of a large one its head and its end, so that the rest can be let go."""
    return [content] if len(content) <= LIMIT else [content[:_HALF], content[-_HALF:]]

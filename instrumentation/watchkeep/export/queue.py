"""What waits to be sent: bounded in bytes, oldest dropped first, prompts dropped before spans.

Adding never waits. Items land in an inbox whose append is atomic; whoever holds the lock moves them on, and
looks again after letting go, or takes the next batch, so that an item left by a thread that found the lock taken (or by
a signal handler or finaliser that interrupted the very thread that holds it) is never stranded.
"""

from __future__ import annotations

from collections import deque
from sys import getsizeof
from typing import Any, Generic, TypeVar

from watchkeep import guard, names
from watchkeep.export.ledger import QUEUE_FULL, SHUTDOWN, Ledger
from watchkeep.export.model import LogData, SpanData

T = TypeVar("T", SpanData, LogData)

CONTENT = frozenset(
    (
        names.GEN_AI_INPUT_MESSAGES,
        names.GEN_AI_OUTPUT_MESSAGES,
        names.GEN_AI_SYSTEM_INSTRUCTIONS,
        names.GEN_AI_TOOL_DEFINITIONS,
        names.GEN_AI_TOOL_CALL_ARGUMENTS,
        names.GEN_AI_TOOL_CALL_RESULT,
    )
)
_BASE = 600  # an item without attributes
_EACH = 90  # an attribute's place in a dict, and a short value
_RICH = 1500  # under this, dropping content would not be worth the loss


class _Entry(Generic[T]):
    __slots__ = ("item", "size")

    def __init__(self, item: T, size: int) -> None:
        self.item: T = item
        self.size = size


class ItemQueue(Generic[T]):
    """The waiting items of one signal."""

    def __init__(self, ledger: Ledger, limit: int, most: int | None = None) -> None:
        self.ledger = ledger
        self.limit = limit
        self.most = most
        self.bytes = 0
        self._inbox: deque[list[T]] = deque()
        self._entries: deque[_Entry[T]] = deque()
        self._rich: deque[_Entry[T]] = deque()  # those with content, in the same order

    def __len__(self) -> int:
        return len(self._entries)

    def put(self, items: list[T]) -> None:
        """Add items; never waits."""
        self._inbox.append(items)
        lock = self.ledger.lock
        while self._inbox and lock.acquire(False):
            try:
                self._admit()
            finally:
                lock.release()

    def _admit(self) -> None:
        while self._inbox:
            items = self._inbox.popleft()
            self.ledger.sent += len(items)
            if self.ledger.closed:
                self.ledger.lost[SHUTDOWN, SHUTDOWN] += len(items)
            else:
                for item in items:
                    self._enter(item)
        if self.bytes > self.limit or (self.most is not None and len(self._entries) > self.most):
            self._make_room()

    def _enter(self, item: T) -> None:
        size = guard.run(size_of, item) or _BASE
        entry = _Entry(item, size)
        self.bytes += size
        self._entries.append(entry)
        if size > _RICH and not CONTENT.isdisjoint(item.attributes):
            self._rich.append(entry)

    def _make_room(self) -> None:
        while self.bytes > self.limit and self._rich:
            self._strip(self._rich.popleft())
        while self._entries and (self.bytes > self.limit or (self.most is not None and len(self._entries) > self.most)):
            self._pop()
            self.ledger.lost[QUEUE_FULL, QUEUE_FULL] += 1

    def _strip(self, entry: _Entry[T]) -> None:
        """Drop the content; a new dict, since the old one may be shared."""
        item = entry.item
        kept = {key: value for key, value in item.attributes.items() if key not in CONTENT}
        item.dropped_attributes += len(item.attributes) - len(kept)
        item.attributes = kept
        size = guard.run(size_of, item) or _BASE
        self.bytes += size - entry.size
        entry.size = size

    def _pop(self) -> _Entry[T]:
        entry = self._entries.popleft()
        self.bytes -= entry.size
        if self._rich and self._rich[0] is entry:
            self._rich.popleft()
        return entry

    def take(self, most: int, size: int) -> list[T]:
        """Take the oldest items, up to a number and about a size; they are in flight from now on."""
        taken: list[T] = []
        with self.ledger.lock:
            self._admit()  # what came while somebody else, such as the ledger, held the lock
            while self._entries and len(taken) < most and (size > 0 or not taken):
                entry = self._pop()
                size -= entry.size
                taken.append(entry.item)
            self.ledger.inflight += len(taken)
        return taken

    def close(self) -> int:
        """Count what waits as lost at the end, and take no more."""
        held = self.ledger.lock.acquire(timeout=0.2)  # a signal handler may stand on it
        self._admit()
        left = self.ledger.close(len(self._entries))
        self._entries.clear()
        self._rich.clear()
        self.bytes = 0
        if held:
            self.ledger.lock.release()
        return left

    @property
    def capacity(self) -> int:
        """Estimate how many items fit, from the mean size of those that wait."""
        if self.most is not None:
            return self.most
        waiting = len(self._entries)
        return max(waiting, int(self.limit * waiting / self.bytes)) if self.bytes > 0 else self.limit // 2048


def size_of(item: SpanData | LogData) -> int:
    """Estimate the memory of an item: exact for long strings, which are what fills it."""
    size = _BASE + _weight(item.attributes, 0)
    if type(item) is SpanData:
        for event in item.events:
            size += _EACH + _weight(event.attributes, 0)
        return size + _EACH * len(item.links)
    return size + _weight(getattr(item, "body", None), 0)


def _weight(value: Any, depth: int) -> int:
    kind = type(value)
    if kind is str or kind is bytes:
        return len(value) if len(value) < 64 else getsizeof(value)
    if depth > 8:
        return _EACH
    if kind is dict:
        return sum([_EACH + _weight(each, depth + 1) for each in value.values()])
    if kind is list or kind is tuple:
        return sum([_EACH + _weight(each, depth + 1) for each in value])
    return 0

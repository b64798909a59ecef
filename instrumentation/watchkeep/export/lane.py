"""One signal on its way from its queue to its end point: batches, splitting, trying again."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from typing import Protocol

from watchkeep.export.encode import Encoded, request
from watchkeep.export.gate import Gate
from watchkeep.export.ledger import EXPIRED, REJECTED, Ledger
from watchkeep.export.model import Resource
from watchkeep.export.partial import rejected
from watchkeep.export.send import Reply
from watchkeep.export.settings import Target

_PATIENCE = 64  # refusals one batch may cost while none of its parts is taken
_IMPATIENCE = 4  # the same, after a batch of which nothing was taken


class Sender(Protocol):
    """Sends one request; see send.py."""

    def prepare(self) -> None: ...

    def send(self, body: bytes, deadline: float) -> Reply: ...

    def close(self) -> None: ...

    def abort(self) -> None: ...


class Batch:
    """Encoded items that go in one request, until a refusal splits them."""

    __slots__ = ("first_try", "parts")

    def __init__(self, items: list[Encoded], size: int) -> None:
        self.parts: deque[list[Encoded]] = deque(_cut(items, size))
        self.first_try: float | None = None

    def weight(self) -> int:
        """Count the items, or points, that have not arrived."""
        return sum(weight_of(part) for part in self.parts)


def weight_of(part: list[Encoded]) -> int:
    """Count the spans, records or points of a request."""
    return sum(item.weight for item in part)


def _cut(items: list[Encoded], size: int) -> list[list[Encoded]]:
    parts: list[list[Encoded]] = []
    room = 0
    for item in items:
        room -= len(item.data) + 8
        if room < 0 or not parts:
            parts.append([])
            room = size - len(item.data) - 8
        parts[-1].append(item)
    return parts


class Lane:
    """Sends one signal; used by one thread at a time."""

    def __init__(
        self,
        target: Target,
        sender: Sender,
        ledger: Ledger,
        resource: Resource,
        origin: Gate,
        *,
        next_batch: Callable[[], Batch | None],
        max_age: float,
    ) -> None:
        self.target = target
        self.sender = sender
        self.ledger = ledger
        self.resource = resource
        self.origin = origin  # shared by all that goes to this host: a dead one is found once
        self.gate = Gate()
        self.next_batch = next_batch
        self.max_age = max_age
        self.pending: Batch | None = None
        self.busy = False
        self.due = 0.0
        self.last_success = 0.0
        self._patience = _PATIENCE

    def open(self) -> bool:
        """Tell whether a request may be made now."""
        return self.gate.open() and self.origin.open()

    def ready_at(self) -> float:
        """Tell when a request may be made again."""
        return max(self.gate.until, self.origin.until)

    def step(self, deadline: float, force: bool = False) -> bool | None:
        """Send one batch: True when it is dealt with, False when it has to wait, None when there is none."""
        if not (self.gate.open(force) and (force or self.origin.open())):
            self._expire()
            return False
        batch = self.pending or self.next_batch()
        if batch is None:
            return None
        self.pending = batch
        if not self._send(batch, deadline):
            self._expire()
            return False
        self.pending = None
        return True

    def pump(self, deadline: float) -> bool:
        """Send all that waits, passing over our own pauses; return whether nothing is left."""
        while True:
            found = self.step(deadline, force=True)
            if not found:
                return found is None

    def _send(self, batch: Batch, deadline: float) -> bool:
        """Send the parts of a batch; return False when it has to be tried again."""
        now = time.monotonic()
        batch.first_try = batch.first_try or now
        patience, taken = self._patience, False
        while batch.parts:
            if time.monotonic() >= deadline:
                return False
            reply = self._post(batch.parts[0], deadline)
            if reply.retryable:
                return False
            part = batch.parts.popleft()
            if reply.delivered:
                taken = True
                patience += _PATIENCE
                self._deliver(part, reply)
            else:
                patience -= 1
                self._refused(batch, part, reply, split=patience > 0)
        self._patience = _PATIENCE if taken else _IMPATIENCE
        return True

    def _refused(self, batch: Batch, part: list[Encoded], reply: Reply, split: bool) -> None:
        """Halve what was refused, until the item that is to blame stands alone."""
        if reply.splittable and split and len(part) > 1:
            middle = len(part) // 2
            batch.parts.extendleft((part[middle:], part[:middle]))
        else:
            self.ledger.lose(REJECTED, weight_of(part), reply.error)

    def _post(self, part: list[Encoded], deadline: float) -> Reply:
        body = request(part, self.resource)
        self.busy = True
        try:
            reply = self.sender.send(body, min(deadline, time.monotonic() + self.target.timeout))
        finally:
            self.busy = False
        self._learn(reply)
        return reply

    def _learn(self, reply: Reply) -> None:
        if reply.status == 0:
            self.origin.failed(reply.error)
        elif reply.retryable:
            self.origin.passed()
            self.gate.failed(reply.error, reply.retry_after)
        else:
            self.origin.passed()
            self.gate.passed()

    def _deliver(self, part: list[Encoded], reply: Reply) -> None:
        weight = weight_of(part)
        refused, _ = rejected(reply.body) if reply.body else (0, "")
        refused = min(max(refused, 0), weight)
        self.last_success = time.time()
        self.ledger.deliver(weight - refused)
        self.ledger.lose(REJECTED, refused, REJECTED)

    def _expire(self) -> None:
        batch = self.pending
        if batch is None or batch.first_try is None or time.monotonic() - batch.first_try < self.max_age:
            return
        error = self.gate.error or self.origin.error or EXPIRED
        self.ledger.lose(EXPIRED, batch.weight(), error)
        self.pending = None

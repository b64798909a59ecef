"""The end of a streamed call is the end of its body, whichever way that comes.

The response keeps its own stream class: `wrap` makes a subclass of the same module's byte stream, so that
the client's own checks hold. Nothing is attached to a context across a ``yield``.
"""

from __future__ import annotations

import re
import sys
from collections import deque
from collections.abc import AsyncIterator, Iterable, Iterator
from typing import Any

from watchkeep import answer, blame, clock, guard, names, operation_logs
from watchkeep.blame import Blame
from watchkeep.llm import LLMCall, message_of
from watchkeep.reads import Reads

LINK = "watchkeep.call"
"""Key in a response's extensions under which its call is found."""

_TAIL = 8  # reads of an event stream that are kept: its end says how it ended and what it cost
_DONE = b"[DONE]"
_END = 1024  # bytes at the end of a stream in which it says that it is done
_ERROR_EVENT = re.compile(rb"""(?:\A|\n)(?:event: ?error\b|data: ?\{\s*"error": ?["{])""")
_FAILED_EVENT = re.compile(rb"(?:\A|\n)event: ?response\.failed\b")
_FINAL_EVENT = re.compile(rb"(?:\A|\n)event: ?response\.(?:completed|incomplete)\b")
_SAID = (names.ERROR_EVENT, names.PROVIDER)

_classes: dict[tuple[type, type], type] = {}


def said_failed(parts: Iterable[bytes]) -> bool:
    """Tell whether an event among the last reads says that the call failed."""
    return any(
        (b"error" in part and _ERROR_EVENT.search(part)) or (b"failed" in part and _FAILED_EVENT.search(part))
        for part in list(parts)[-_TAIL:]
    )


def said_done(parts: list[bytes]) -> bool:
    """Tell whether the last reads say that nothing more comes: a client may close then, before it reads the end."""
    return bool(parts) and (_DONE in parts[-1][-_END:] or _FINAL_EVENT.search(parts[-1]) is not None)


class Watched:
    """What sync and async bodies share: the first end counts."""

    call: LLMCall
    stream: Any
    parts: deque[bytes]
    whole: bool
    encoded: bool

    def start(self, stream: Any, call: LLMCall, whole: bool, encoded: bool) -> None:
        """Watch `stream` for `call`; keep the last reads for parsing, or what fits where the end is not enough."""
        self.stream = stream
        self.call = call
        self.whole = whole
        self.encoded = encoded and bool(call.attributes.get(names.GEN_AI_REQUEST_STREAM))
        call.ended_badly = said_failed
        self.parts = call.tail = Reads() if whole else deque(maxlen=_TAIL)

    def kept(self) -> list[bytes]:
        """Return what is kept of the reads; those of a stream as they were before they were encoded."""
        parts = self.parts
        if not isinstance(parts, Reads):
            return list(parts)
        if not self.encoded:
            return parts.kept()
        self.encoded = False
        self.parts = Reads()
        self.parts.append(answer.plain(parts.head if parts.cut else parts.kept()))
        return self.parts.kept()

    def end(self, outcome: str, failed: Blame | None = None, message: str = "") -> None:
        """End the call, and leave to it what is to be parsed."""
        call = self.call
        if call.closed:
            return
        parts = self.kept()
        if failed is None and said_failed(parts):
            outcome, failed, message = "failed", _SAID, "the stream said that the call failed"
        if outcome == "drained" or not self.whole or call.attributes.get(names.GEN_AI_REQUEST_STREAM):
            call.body = parts
        call.end_stream(outcome, failed, message)

    def drained(self) -> None:
        """The body came to its end."""
        self.end("drained")

    def broke(self, error: BaseException) -> None:
        """Reading the body raised."""
        if isinstance(error, GeneratorExit):
            return  # the iterator was dropped: close() or the collector tells how
        found = blame.of_exception(error, "stream")
        outcome = "cancelled" if found[0] == names.CANCELLED else "failed"
        if not self.call.closed:
            operation_logs.exception(self.call, error)
        self.end(outcome, found, message_of(error))

    def closed(self) -> None:
        """The body was closed: after its end, early, by a generator being collected, or by an error on top."""
        call = self.call
        if call.closed:
            return
        error = sys.exc_info()[1]
        if said_done(self.kept()):
            self.end("drained")
        elif isinstance(error, GeneratorExit):
            self.end("abandoned")
        elif error is not None and blame.of_exception(error)[0] == names.CANCELLED:
            self.end("cancelled", (names.CANCELLED, names.CLIENT_FAULT), type(error).__name__)
        else:
            self.end("closed_early")

    def dropped(self) -> None:
        """Nobody refers to the body any more."""
        try:
            raise GeneratorExit  # what a generator sees that is dropped: all below knows by it who calls
        except GeneratorExit:
            self.end("abandoned")


_drained = guard.guarded(Watched.drained)
_broke = guard.guarded(Watched.broke)
_closed = guard.guarded(Watched.closed)
_dropped = guard.guarded(Watched.dropped)


# What stands between two `yield`s runs once for every read of a stream: two stamps, and the arithmetic comes later.


class SyncBody(Watched):
    """A body read by ``for``."""

    def __iter__(self) -> Iterator[bytes]:
        keep, stamp, now = self.parts.append, self.call.stamps.append, clock.monotonic
        self.call.ask()
        try:
            for data in self.stream:
                stamp(now())
                keep(data)
                yield data
                stamp(now())
        except BaseException as error:
            _broke(self, error)
            raise
        _drained(self)

    def close(self) -> None:
        """Close the app's stream, then note the end."""
        try:
            self.stream.close()
        finally:
            _closed(self)


class AsyncBody(Watched):
    """A body read by ``async for``."""

    async def __aiter__(self) -> AsyncIterator[bytes]:
        keep, stamp, now = self.parts.append, self.call.stamps.append, clock.monotonic
        self.call.ask()
        try:
            async for data in self.stream:
                stamp(now())
                keep(data)
                yield data
                stamp(now())
        except BaseException as error:
            _broke(self, error)
            raise
        _drained(self)

    async def aclose(self) -> None:
        """Close the app's stream, then note the end."""
        try:
            await self.stream.aclose()
        finally:
            _closed(self)


def _forward(self: Any, name: str) -> Any:
    if name == "stream":
        raise AttributeError(name)
    return getattr(self.stream, name)


def _drop(self: Any) -> None:
    if "call" in self.__dict__:
        _dropped(self)


def wrap(stream: Any, call: LLMCall, headers: Any) -> Any:
    """Return `stream` watched for `call`, of a subclass of the byte stream class that it has."""
    kind = AsyncBody if hasattr(stream, "__aiter__") else SyncBody
    base = _byte_stream(type(stream), kind)
    made = _classes.get((base, kind))
    if made is None:
        members = {"__getattr__": _forward, "__del__": _drop, "__module__": __name__}
        made = _classes[(base, kind)] = type(f"Watched{base.__name__}", (kind, base), members)
    body: Any = object.__new__(made)
    encoded = headers.get("content-encoding", "identity") != "identity"
    several = names.GEN_AI_REQUEST_CHOICE_COUNT in call.attributes or call.kept is not None
    body.start(stream, call, encoded or several or "json" in headers.get("content-type", ""), encoded)
    return body


def _byte_stream(kind: type, ours: type) -> type:
    wanted = "AsyncByteStream" if ours is AsyncBody else "SyncByteStream"
    return next((base for base in kind.__mro__ if base.__name__ == wanted), object)

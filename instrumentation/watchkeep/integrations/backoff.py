"""backoff: `on_exception` and `on_predicate`, sync and async.

A decorated function is a closure, and backoff keeps no object that could be asked for it: we stand around each
closure as it is made, so functions that were decorated before we came are not seen. `_call_handlers` tells of
each wait before it is made; the length of the wait is the planned one.
"""

from __future__ import annotations

import sys
from functools import partial
from typing import Any, NamedTuple

from watchkeep import clock, context, names, origin, retries
from watchkeep.hook import Target
from watchkeep.integrations import Integration, scope
from watchkeep.retries import RetryCall

SCOPE = scope("backoff", names.SCHEMA_EXTENSION)

_watching = False  # what was decorated while we were there stays ours, and is passed through once we are gone


class Policy(NamedTuple):
    """What a decorator was told."""

    target: Any
    errors: Any  # the exceptions that it retries on; None: it judges results
    max_tries: Any
    max_time: Any
    asks: bool  # the app has a function that may give up on an error
    on_giveup: Any  # the very list that is called when it gives up


class BackoffCall(RetryCall):
    """One operation under a backoff decorator."""

    __slots__ = ("gave_up", "kind", "until")

    def __init__(self, kind: Policy) -> None:
        super().__init__(SCOPE)
        self.kind = kind
        self.gave_up: tuple[int, float] | None = None  # tries, seconds
        self.until = 0  # the planned end of its last wait

    def policy(self) -> str:
        """Return the decorated function's name."""
        return origin.function_name(self.kind.target)

    def max_attempts(self) -> int | None:
        """Return the tries after which it gives up, where that is a plain number."""
        most = self.kind.max_tries
        return most if type(most) is int else None

    def will_wait(self, delay: float, error: BaseException | None) -> None:
        """It will wait, and then try: nothing tells of that try, so it is counted now."""
        self.schedule(delay, error)
        self.until = clock.monotonic() + round(delay * 1e9)
        self.begin_try(delay)

    def exhausted(self) -> bool:
        """Whether it gave up for want of tries or time, as far as can be told from its numbers."""
        if self.gave_up is None:
            return False
        kind, (tries, elapsed) = self.kind, self.gave_up
        timed_out = isinstance(kind.max_time, int | float) and elapsed >= kind.max_time
        return not kind.asks or tries == kind.max_tries or timed_out


# -- a decorated function -------------------------------------------------------------------------------------


def _decorated(made: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Target:
    # What it was told is read from the closure: the same names in every version, however they were passed.
    cells = zip(made.__code__.co_freevars, made.__closure__, strict=True)
    told = {name: cell.cell_contents for name, cell in cells}
    asks = getattr(told.get("giveup"), "__module__", "") != "backoff._decorator"
    policy = Policy(told["target"], told.get("exception"), told["max_tries"], told["max_time"], asks, told["on_giveup"])
    return Target("backoff:decorated", partial(_begins, policy), _returned, _raised)


def _begins(policy: Policy, args: tuple[Any, ...], kwargs: dict[str, Any]) -> BackoffCall | None:
    if not _watching or retries.within() is not None:
        return None
    call = BackoffCall(policy)
    call.begin()
    call.begin_try()
    return call


def _returned(call: BackoffCall, _: Any) -> None:
    call.finish(exhausted=call.gave_up is not None)


def _raised(call: BackoffCall, error: BaseException) -> None:
    if call.until > clock.monotonic():
        call.tries -= 1  # cut short while it waited: the try that was counted never began
    expected = call.kind.errors is not None and isinstance(error, call.kind.errors)
    call.finish(expected and call.exhausted(), error)


# -- what it tells its handlers ------------------------------------------------------------------------------------


def _told(args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    call = context.logical.get()
    if type(call) is not BackoffCall:
        return
    wait, kind = kwargs.get("wait"), call.kind
    if wait is not None:
        call.will_wait(float(wait), sys.exception() if kind.errors is not None else None)
    elif args[0] is kind.on_giveup:
        call.gave_up = _tries(*args, **kwargs)


def _tries(_: Any, target: Any, args: Any, kwargs: Any, tries: int, elapsed: float, **__: Any) -> tuple[int, float]:
    return tries, elapsed


# -- the library -----------------------------------------------------------------------------------------------------


def _started(_: str) -> None:
    global _watching
    _watching = True


def _stopped() -> None:
    global _watching
    _watching = False


def _targets(module: str) -> tuple[Target, ...]:
    return (
        Target(f"backoff.{module}:retry_exception", around=_decorated),
        Target(f"backoff.{module}:retry_predicate", around=_decorated),
        Target(f"backoff.{module}:_call_handlers", chunk=_told),
    )


INTEGRATION = Integration(
    name="backoff",
    scope=SCOPE,
    targets=(*_targets("_sync"), *_targets("_async")),
    supported={"backoff": ("1.11", "3")},
    started=_started,
    stopped=_stopped,
)

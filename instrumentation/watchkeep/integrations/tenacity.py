"""tenacity: decorators, `Retrying()(f)`, `for attempt in Retrying()`, sync, async and tornado; stamina's loops too.

`iter` is where every form asks what comes next: a try, a wait, or the end. `__call__` tells of what ends a wait
(a cancelled sleep), `AttemptManager.__exit__` of a block that the app leaves with `return` or `break`: then
nobody asks again. A block whose policy may still refuse a result ends when it asks again, or is dropped.

Inside an LLM call tenacity is the SDK's own loop (google-genai's): its waits are the call's back-off.
"""

from __future__ import annotations

import sys
from typing import Any

from watchkeep import clock, context, names, origin, retries
from watchkeep.export.model import Scope
from watchkeep.hook import Target
from watchkeep.integrations import Integration, scope
from watchkeep.retries import Handle, Place, RetryCall, Within

SCOPE = scope("tenacity", names.SCHEMA_EXTENSION)
LIBRARY = "tenacity"
NAMED = "__watchkeep_policy__"
"""On a `before_sleep`: (policy's name, scope) of a library that is built on tenacity and made this loop."""
_OURS = ("", SCOPE)
_KEY = "_watchkeep"
_LAYERS = ("tenacity", "stamina", "watchkeep.")
_WRAPPERS = ("sync_gen_inner", "async_gen_inner")  # stamina's, around generator functions


class TenacityCall(RetryCall):
    """One operation under a `tenacity.BaseRetrying`."""

    __slots__ = ("function", "given", "place", "retrying")

    def __init__(self, retrying: Any, function: Any, library: Scope) -> None:
        super().__init__(library)
        self.retrying = retrying
        self.function = function
        self.given = ""
        self.place: Place | None = None  # of a block

    def policy(self) -> str:
        """Return the function's name, else the one that the loop was given, or that of where the block stands."""
        if self.function is not None:
            return origin.function_name(self.function)
        place = self.place.name if self.place is not None else ""
        return self.given or _text(getattr(self.retrying, "_name", "")) or place or self.library.name.rpartition(".")[2]

    def max_attempts(self) -> int | None:
        """Return the attempts after which the policy stops."""
        return _most(self.retrying.stop)


def _most(stop: Any) -> int | None:
    kind = type(stop).__name__
    if kind == "stop_after_attempt":
        found = stop.max_attempt_number
        return found if type(found) is int else None
    if kind in ("stop_any", "stop_all"):
        each = [most for most in map(_most, stop.stops) if most is not None]
        if kind == "stop_any":
            return min(each, default=None)
        return max(each) if each and len(each) == len(stop.stops) else None
    return None


# -- the turns of a loop -----------------------------------------------------------------------------------

Turn = tuple[Any, Any]  # what the loop is to us, and tenacity's state of it


def _turn_begins(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Turn | None:
    state = args[1] if len(args) > 1 else kwargs["retry_state"]
    held: Any = getattr(state, _KEY, None)
    if held is None:
        if state.outcome is not None:
            return None  # it began before we were there
        held = _begin(args[0], state)
        setattr(state, _KEY, held)
    call = held.call if type(held) is Handle else held
    return None if call.over else (call, state)


def _begin(retrying: Any, state: Any) -> TenacityCall | Handle | Within:
    around = retries.within()
    if around is not None:
        return Within(around)
    given, library = getattr(retrying.before_sleep, NAMED, _OURS)
    call = TenacityCall(retrying, state.fn, library)
    if state.fn is not None:
        call.begin()
        return call
    call.given = given
    call.place = place = retries.place_of_loop(_LAYERS, _WRAPPERS)
    if not place.yields:  # else it would stand around what the one does who is given the items
        call.begin()
    return Handle(call)


def _text(value: Any) -> str:
    return str.__str__(value) if isinstance(value, str) else ""


def _turn_ends(turn: Turn, do: Any) -> None:
    call, state = turn
    library = sys.modules[LIBRARY]
    kind = type(do)
    if kind is library.DoAttempt:
        if type(call) is not Within:
            _begin_try(call, state)
    elif kind is library.DoSleep:
        if type(call) is Within:
            call.schedule(float(do))
        else:
            call.schedule(float(do), _error(state))
    elif type(call) is not Within:
        # What is given back is a result, unless the policy gave up and the app's own callback made it.
        stopped = call.retrying.retry_error_callback is not None and _stopped(call.retrying, state)
        call.finish(stopped, _error(state) if stopped else None)


def _begin_try(call: TenacityCall, state: Any) -> None:
    if state.fn is None:
        held = getattr(state, _KEY)
        if held.ended:  # the app refused the result of a block that it had left
            held.ended = 0
            call.enter()
    call.begin_try()


def _turn_raised(turn: Turn, error: BaseException) -> None:
    call, state = turn
    if type(call) is Within:
        return
    last, stopped = _error(state), _stopped(call.retrying, state)
    # tenacity raises the last error or its RetryError; anything else came out of one of the app's callbacks.
    tenacitys = error is last or isinstance(error, call.retrying.retry_error_cls)
    call.finish(stopped and tenacitys, last if tenacitys and last is not None else error)


def _error(state: Any) -> BaseException | None:
    outcome = state.outcome
    found: BaseException | None = outcome.exception() if outcome is not None else None
    return found


def _stopped(retrying: Any, state: Any) -> bool:
    turn = getattr(retrying, "iter_state", None)
    if turn is not None:
        return bool(turn.stop_run_result)
    # Before 8.3 the stop is asked right after it notes this.
    noted = retrying.statistics.get("delay_since_first_attempt")
    return noted is not None and noted == state.seconds_since_start


# -- blocks, and waits that are cut short ------------------------------------------------------------------------


def _block_ends(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Handle | None:
    if args[1] is not None:
        return None  # it raised: the loop will ask what to do
    held = getattr(args[0].retry_state, _KEY, None)
    return held if type(held) is Handle and not held.call.over else None


def _block_ended(held: Handle, _: Any) -> None:
    call: Any = held.call
    if _takes_every_result(call.retrying.retry):
        call.finish()
    else:
        held.ended = clock.monotonic()
        call.leave()


def _takes_every_result(policy: Any) -> bool:
    library, kind = sys.modules[LIBRARY], type(policy)
    if kind in (library.retry_any, library.retry_all):
        return all(map(_takes_every_result, policy.retries))
    if kind.__module__ == "stamina._core":
        return True  # its only other policy, which asks about exceptions
    return kind.__call__ in (library.retry_if_exception.__call__, library.retry_if_exception_cause_type.__call__)


def _call_begins(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    return args[0]


def _call_returned(retrying: Any, _: Any) -> None:
    # Over already, unless we were taken out in its midst.
    call = context.logical.get()
    if type(call) is TenacityCall and call.retrying is retrying:
        call.finish()


def _call_raised(retrying: Any, error: BaseException) -> None:
    call = context.logical.get()
    if type(call) is TenacityCall and call.retrying is retrying:
        call.finish(error=error)


INTEGRATION = Integration(
    name="tenacity",
    scope=SCOPE,
    targets=(
        Target("tenacity:BaseRetrying.iter", _turn_begins, _turn_ends, _turn_raised),
        Target("tenacity:AsyncRetrying.iter", _turn_begins, _turn_ends, _turn_raised),
        Target("tenacity:Retrying.__call__", _call_begins, _call_returned, _call_raised, needed=False),
        Target("tenacity:AsyncRetrying.__call__", _call_begins, _call_returned, _call_raised, needed=False),
        Target("tenacity:AttemptManager.__exit__", _block_ends, _block_ended),
    ),
    supported={"tenacity": ("8.1", "10")},
)

"""pybreaker: every transition, every rejection, every call through a breaker, whoever made the breaker and when.

What the library counts is what we count: `_handle_error` and `_inc_counter` tell a failure from an ignored
exception. The call that trips a breaker raises CircuitBreakerError too, but it ran: it is a failure. The
half-open step calls `call` again from within: that is the same call. An `async def` under a breaker is a
misuse, said once, and counted neither as a success nor as anything else. The lock wait of a breaker with a
remote storage includes that it reads its state there.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable
from types import AsyncGeneratorType, CoroutineType
from typing import Any

from watchkeep import breaker, context, guard, names, origin
from watchkeep.breaker import OPEN, Breaker, BreakerCall, Reading
from watchkeep.hook import Target
from watchkeep.integrations import Integration, scope

SCOPE = scope("pybreaker", names.SCHEMA_EXTENSION)
LIBRARY = "pybreaker"
_NEVER_RUN = (CoroutineType, AsyncGeneratorType)
_CALLING = "CircuitBreaker.calling.<locals>._wrapper"


def _ours(state: str) -> str:
    return state.replace("-", "_")


class PyBreaker(Breaker):
    """A `pybreaker.CircuitBreaker`; `state` and `current_state` may ask a remote storage, so they are left alone."""

    __slots__ = ()

    scope = SCOPE

    def given_name(self, thing: Any) -> str | None:
        """Return the name that the app gave it."""
        name = thing._name
        return str.__str__(name) if isinstance(name, str) else None

    def read(self, thing: Any) -> Reading:
        """Read what the breaker has in memory."""
        return Reading(_ours(thing._state._name), float(thing._fail_max), float(thing._reset_timeout))

    def opened_when(self, thing: Any) -> float | None:
        """Return when it opened, where the storage is memory."""
        opened = getattr(thing._state_storage, "_opened_at", None) if _in_memory(thing) else None
        return opened.timestamp() if opened is not None else None


def _in_memory(thing: Any) -> bool:
    return type(thing._state_storage) is sys.modules[LIBRARY].CircuitMemoryStorage


def _known(thing: Any) -> Breaker:
    return breaker.known(thing) or breaker.register(PyBreaker, thing)


def _active(state: Any) -> BreakerCall | None:
    return breaker.active(_known(state._breaker))


# -- breakers and their states ---------------------------------------------------------------------------


def _creation(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    return args[0]


def _created(thing: Any, _: None) -> None:
    made = origin.site(thing, LIBRARY)
    breaker.register(PyBreaker, thing, made.module, made.place)


def _change_begins(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Breaker, str, str, int | None] | None:
    thing, state, previous, notify = _change(*args, **kwargs)
    if not notify or previous is None or previous._name == state:
        return None
    # Read before the new state resets it; a remote storage is not asked.
    failures = thing._state_storage._fail_counter if _in_memory(thing) else None
    return _known(thing), _ours(previous._name), _ours(state), failures


def _change(
    thing: Any, new_state: str, prev_state: Any = None, notify: bool = False, **_: Any
) -> tuple[Any, str, Any, bool]:
    return thing, new_state, prev_state, notify


def _changed(change: tuple[Breaker, str, str, int | None], _: Any) -> None:
    found, previous, state, failures = change
    found.changed(previous, state, failures)


# -- calls -----------------------------------------------------------------------------------------------


def _begins(args: tuple[Any, ...], kwargs: dict[str, Any]) -> BreakerCall | None:
    found = _known(args[0])
    around = context.logical.get()
    if isinstance(around, BreakerCall) and around.breaker is found and not around.runs and not around.over:
        return None  # the half-open step, within its own call
    call = BreakerCall(found, args[1] if len(args) > 1 else kwargs.get("func"))
    call.enter()
    return call


def _returned(call: BreakerCall, result: Any) -> None:
    call.leave()
    if call.deferred:
        return
    if type(result) in _NEVER_RUN:
        call.misuse()
    call.finish()


def _raised(call: BreakerCall, error: BaseException) -> None:
    call.leave()
    call.finish(error)


def _promised(call: BreakerCall, future: Any) -> None:
    # The future is not asked for its exception: asyncio would take it for handled.
    call.leave()
    future.add_done_callback(lambda _: guard.run(call.finish))


def _lets_through(args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    state = args[0]
    call = _active(state)
    if call is not None:
        call.locked()
        if state._name != OPEN:
            call.let_through(_ours(state._name))


def _open_asked(args: tuple[Any, ...], kwargs: dict[str, Any]) -> BreakerCall | None:
    call = _active(args[0])
    if call is not None:
        call.locked()
    return call


def _open_refused(call: BreakerCall, error: BaseException) -> None:
    if not call.runs and isinstance(error, sys.modules[LIBRARY].CircuitBreakerError):
        call.rejected = True


def _function_raised(args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    call = _active(args[0])
    if call is not None:
        call.failed(args[1] if len(args) > 1 else kwargs["exc"])


def _failure_counted(args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    call = breaker.active(_known(args[0]))
    if call is not None:
        call.counted()


# -- generators, and `calling()`, which is one --------------------------------------------------------------


class Follower:
    """Stands before a generator under a breaker, and before the state that will judge it.

    The breaker's own `generator_call` is the only one to see it. A chat made by the generator is inside the
    call while the generator runs; for `calling()`, whose generator only yields, while it is suspended.
    """

    __slots__ = ("_block", "_call", "_generator", "_state")

    def __init__(self, state: Any, generator: Any, call: BreakerCall) -> None:
        self._state = state
        self._generator = generator
        self._call = call
        self._block = generator.gi_code.co_qualname == _CALLING

    def __getattr__(self, name: str) -> Any:
        return getattr(self._state, name)

    def __next__(self) -> Any:
        return self._resume(self._generator.__next__)

    def send(self, value: Any) -> Any:
        """Resume the generator."""
        return self._resume(self._generator.send, value)

    def throw(self, error: BaseException) -> Any:
        """Raise in the generator."""
        return self._resume(self._generator.throw, error)

    def _resume(self, function: Callable[..., Any], *args: Any) -> Any:
        guard.run(self._call.enter)
        try:
            return function(*args)
        finally:
            if not self._block or self._call.over:
                guard.run(self._call.leave)

    def _handle_success(self) -> Any:
        return self._judge(self._state._handle_success)

    def _handle_error(self, *args: Any, **kwargs: Any) -> Any:
        return self._judge(self._state._handle_error, *args, **kwargs)

    def _judge(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        guard.run(self._call.enter)
        try:
            return function(*args, **kwargs)
        finally:
            guard.run(self._call.leave)
            guard.run(self._call.finish)


def _follow(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, ...]:
    state, generator = args
    call = _active(state)
    if call is None:
        return args
    follower = Follower(state, generator, call)
    call.deferred = True
    return follower, follower


# -- the library ----------------------------------------------------------------------------------------


def _started(_: str) -> None:
    breaker.observe(SCOPE)
    library: Any = sys.modules[LIBRARY]
    if getattr(library.__spec__, "_initializing", False):
        return  # it is being imported: there are none yet
    kind = library.CircuitBreaker
    for thing in gc.get_objects():
        if issubclass(type(thing), kind) and "_throw_new_error_on_trip" in vars(thing):
            _known(thing)


def _stopped() -> None:
    breaker.forget(SCOPE)


INTEGRATION = Integration(
    name="pybreaker",
    scope=SCOPE,
    targets=(
        Target("pybreaker:CircuitBreaker.__init__", _creation, _created),
        Target("pybreaker:CircuitBreaker._create_new_state", _change_begins, _changed),
        Target("pybreaker:CircuitBreaker.call", _begins, _returned, _raised),
        Target("pybreaker:CircuitBreaker.call_async", _begins, _promised, _raised),
        Target("pybreaker:CircuitBreaker.acall", _begins, _returned, _raised, sometimes=True),
        Target("pybreaker:CircuitBreaker._inc_counter", chunk=_failure_counted),
        Target("pybreaker:CircuitBreakerState.call", chunk=_lets_through),
        Target("pybreaker:CircuitBreakerState.call_async", chunk=_lets_through),
        Target("pybreaker:CircuitBreakerState.acall", chunk=_lets_through, sometimes=True),
        Target("pybreaker:CircuitBreakerState._handle_error", chunk=_function_raised),
        Target("pybreaker:CircuitBreakerState.generator_call", swap=_follow),
        Target("pybreaker:CircuitOpenState.before_call", _open_asked, None, _open_refused),
    ),
    supported={"pybreaker": ("1.2", "2")},
    started=_started,
    stopped=_stopped,
)

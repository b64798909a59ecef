"""THE HOT PATH: wrap a target; sync and async calls in one place, streams through their bodies.

An integration says what to wrap and gives readers. The app's own function runs unguarded, and its result
or exception goes straight back to the app; the readers run under the guard and return nothing it will see.

    before(args, kwargs) -> state    what this call belongs to; None: not ours, nothing more happens
    after(state, result)             it returned
    error(state, exception)          it raised (cancellation too); the same exception goes on to the app
    chunk(args, kwargs)              before every call of a busy function: no state, no after
    swap(args, kwargs) -> args       what the function is given instead of `args`, to stand before one of them;
                                     `error(args, exception)` may go with it
    around(made, args, kwargs)       a target for `made`, a function that the wrapped one made: around each of its calls
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import update_wrapper
from inspect import iscoroutinefunction
from typing import Any, NamedTuple

from watchkeep import guard

Function = Callable[..., Any]
TAG = "__watchkeep__"
"""Under which a wrapper carries its switch."""


class Target(NamedTuple):
    """One function to wrap: ``path`` is ``module:Class.function``, readers are described above."""

    path: str
    before: Callable[[tuple[Any, ...], dict[str, Any]], Any] | None = None
    after: Callable[[Any, Any], None] | None = None
    error: Callable[[Any, BaseException], None] | None = None
    chunk: Callable[[tuple[Any, ...], dict[str, Any]], None] | None = None
    needed: bool = True  # False: without this seam there is a documented second best
    swap: Callable[[tuple[Any, ...], dict[str, Any]], tuple[Any, ...] | None] | None = None
    sometimes: bool = False  # True: only some supported versions have it, and its absence is no news
    hidden: bool = False  # True: the wrapper's frame counts as the module's own, where that looks at the stack
    around: Callable[[Any, tuple[Any, ...], dict[str, Any]], Target | None] | None = None

    @property
    def module(self) -> str:
        """The module that must be imported before the target exists."""
        return self.path.partition(":")[0]


def wrapped(target: Target, original: Function) -> Function:
    """Return `original` wrapped with the target's readers."""
    if target.swap is not None:
        wrapper = _with_other(target, target.swap, original)
    elif target.around is not None:
        wrapper = _maker(target.around, original)
    elif target.chunk is not None:
        wrapper = guard.before_each(target.chunk, original)
    elif iscoroutinefunction(original):
        wrapper = _async_call(target, original)
    else:
        wrapper = _call(target, original)
    update_wrapper(wrapper, original)
    if target.hidden:
        hide(wrapper, sys.modules[target.module])
    setattr(wrapper, TAG, Switch(wrapper))
    return wrapper


class Switch:
    """Lets a wrapper go straight to its original for ever, wherever somebody still holds it.

    The wrapper pays nothing for it while it is on: its first reader is exchanged, no flag is looked at.
    """

    __slots__ = ("_look", "on")

    def __init__(self, wrapper: Any) -> None:
        self._look = wrapper.__closure__[wrapper.__code__.co_freevars.index("look")]
        self.on = True

    def off(self) -> None:
        """Stop looking; calls that have begun still end as they would."""
        self.on = False
        self._look.cell_contents = _nothing


def hide(wrapper: Any, module: Any) -> None:
    """Let the frames of `wrapper` count as `module`'s own for code that tells frames by their file."""
    wrapper.__code__ = wrapper.__code__.replace(co_filename=module.__file__)


def _call(target: Target, original: Function) -> Function:
    look, done, failed = _readers(target)

    def call(*args: Any, **kwargs: Any) -> Any:
        state = look(args, kwargs)
        if state is None:
            return original(*args, **kwargs)
        try:
            result = original(*args, **kwargs)
        except BaseException as exception:
            failed(state, exception)
            raise
        done(state, result)
        return result

    return call


def _async_call(target: Target, original: Function) -> Function:
    look, done, failed = _readers(target)

    async def call(*args: Any, **kwargs: Any) -> Any:
        state = look(args, kwargs)
        if state is None:
            return await original(*args, **kwargs)
        try:
            result = await original(*args, **kwargs)
        except BaseException as exception:
            failed(state, exception)
            raise
        done(state, result)
        return result

    return call


def _with_other(target: Target, swap: Function, original: Function) -> Function:
    look, failed = guard.reader(swap), guard.reader(target.error or _nothing)

    def call(*args: Any, **kwargs: Any) -> Any:
        given = look(args, kwargs) or args
        try:
            return original(*given, **kwargs)
        except BaseException as exception:
            failed(given, exception)
            raise

    return call


def _maker(around: Function, original: Function) -> Function:
    look = guard.guarded(around)

    def call(*args: Any, **kwargs: Any) -> Any:
        made = original(*args, **kwargs)
        target = look(made, args, kwargs)
        return made if target is None else guard.run(_in_its_place, target, made) or made

    return call


def _in_its_place(target: Target, made: Function) -> Function:
    wrapper = wrapped(target, made)
    if "__wrapped__" in made.__dict__:
        wrapper.__dict__["__wrapped__"] = made.__dict__["__wrapped__"]  # it looks like what it stands for
    return wrapper


def _readers(target: Target) -> tuple[Function, Function, Function]:
    return (
        guard.reader(target.before or _nothing),
        guard.reader(target.after or _nothing),
        guard.reader(target.error or _nothing),
    )


def _nothing(*_: Any) -> None:
    return None

"""The only broad ``except`` of the package but for its start: a fault of ours is silent for users and loud under test.

Cancellation, ``KeyboardInterrupt`` and ``SystemExit`` are not ``Exception`` and pass untouched.
The guarded function returns nothing that the app will see, so the app's own result and exception
never travel through here (the OpenTelemetry specification, error handling principles).
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from functools import wraps
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

if TYPE_CHECKING:
    from logging import Logger

P = ParamSpec("P")
T = TypeVar("T")

_WARN_EVERY = 60.0

raising = False  # tests set it: then a fault of ours fails the test instead of being reported
faults = 0

_last_report: dict[str, float] = {}


def run(function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T | None:
    """Call `function`; when it fails, report that and return None."""
    try:
        return function(*args, **kwargs)
    except Exception as error:
        failed(function, error)
        return None


def guarded(function: Callable[P, T]) -> Callable[P, T | None]:
    """Make `function` return None where it would raise."""

    @wraps(function)
    def inner(*args: P.args, **kwargs: P.kwargs) -> T | None:
        try:
            return function(*args, **kwargs)
        except Exception as error:
            failed(function, error)
            return None

    return inner


def reader(function: Callable[[Any, Any], T]) -> Callable[[Any, Any], T | None]:
    """Do the same for a reader of the hot path, which takes two arguments: nothing is packed and unpacked."""

    def inner(one: Any, other: Any) -> T | None:
        try:
            return function(one, other)
        except Exception as error:
            failed(function, error)
            return None

    return inner


def before_each(look: Callable[..., object], function: Callable[P, T]) -> Callable[P, T]:
    """Call `look(args, kwargs)` before every call of `function`: one layer, for functions called per chunk."""

    def call(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            look(args, kwargs)
        except Exception as error:
            failed(look, error)
        return function(*args, **kwargs)

    return call


def collecting() -> bool:
    """Tell whether a finalizer may be what runs here: under any lock that this thread holds, the app's too."""
    return isinstance(sys.exception(), GeneratorExit)


def failed(function: Callable[..., object], error: Exception) -> None:
    """Count a fault of ours and say so, once a minute for each place; raise it under test."""
    global faults
    faults += 1
    if raising:
        raise error
    try:
        where = getattr(function, "__qualname__", None) or type(function).__qualname__
        warn(
            where,
            f"{where} failed with {type(error).__name__}; your app goes on without this piece of telemetry. "
            "Please report it, with the output of `watchkeep doctor`.",
        )
    except Exception:
        return


def warn(where: str, text: str) -> None:
    """Write one line of advice to stderr, once a minute for each place."""
    now = time.monotonic()
    if now - _last_report.get(where, -_WARN_EVERY) >= _WARN_EVERY:
        _last_report[where] = now
        logger().warning("watchkeep: %s", text)


def logger() -> Logger:
    """Return our own logger; it never passes lines on to the app's handlers, unless the app says so."""
    import logging

    ours = logging.getLogger("watchkeep")
    if not ours.handlers and ours.propagate:
        ours.addHandler(logging.StreamHandler())
        ours.propagate = False
    return ours

"""aiolimiter: the app's rate limiters, and each request that had to wait for capacity.

`limit` is the `max_rate` that the app gave, in requests per its `time_period`. Its permits are not given back, so
there are none that are held. It is named as a semaphore is: by its global, else by where it is made.
"""

from __future__ import annotations

from typing import Any

from watchkeep import limiters, names, origin
from watchkeep.hook import Target
from watchkeep.integrations import Integration, scope
from watchkeep.limiters import RATE, Limiter, Request, known

SCOPE = scope("aiolimiter", names.SCHEMA_EXTENSION)


class RateLimiter(Limiter):
    """An `aiolimiter.AsyncLimiter`."""

    __slots__ = ()

    scope = SCOPE
    kind = RATE

    def limit(self, thing: Any) -> float:
        """Return how many requests it lets through in its period."""
        return float(thing.max_rate)


def _creation(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    return args[0]


def _created(thing: Any, _: None) -> None:
    site = origin.site(thing, "aiolimiter")
    _register(thing, site.module, site.library or site.place)


def _register(thing: Any, module: str, place: str) -> Limiter:
    return limiters.register(RateLimiter, thing, module, place or type(thing).__name__, float(thing.max_rate))


def _begins(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Request:
    # `has_capacity` is not asked: it makes the bucket leak.
    return limiters.request(known.get(id(args[0])) or _register(args[0], "", ""))


def _started(_: str) -> None:
    limiters.observe(SCOPE)


def _stopped() -> None:
    limiters.forget(SCOPE)


INTEGRATION = Integration(
    name="aiolimiter",
    scope=SCOPE,
    targets=(
        Target("aiolimiter.leakybucket:AsyncLimiter.__init__", _creation, _created),
        Target("aiolimiter.leakybucket:AsyncLimiter.acquire", _begins, limiters.acquired, limiters.failed),
    ),
    supported={"aiolimiter": ("1.0", "2")},
    started=_started,
    stopped=_stopped,
)

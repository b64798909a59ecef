"""asyncio: the app's own semaphores, their permits, and each request that had to wait for one.

Libraries use semaphores for themselves: only one that the app's code makes is watched, and none that is made with 0,
which is a signal and no limit. It is named by the global of its module that it is bound to, else by where it is made.
One made before we came is not watched, since nobody can tell whose it is.
"""

from __future__ import annotations

from typing import Any

from watchkeep import limiters, names, origin
from watchkeep.hook import Target
from watchkeep.integrations import Integration, scope
from watchkeep.limiters import CONCURRENCY, Limiter, Request, known

SCOPE = scope("asyncio", names.SCHEMA_EXTENSION)


class Semaphore(Limiter):
    """An `asyncio.Semaphore`, bounded or not."""

    __slots__ = ()

    scope = SCOPE
    kind = CONCURRENCY

    def limit(self, _: Any) -> float:
        """Return what it was made with."""
        return self.last_limit

    def held(self, thing: Any) -> float:
        """Return how many permits are held; more may have been given back than were taken."""
        return float(max(0, self.last_limit - thing._value))


def _creation(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    return args[0]


def _created(semaphore: Any, _: None) -> None:
    site = origin.site(semaphore, "asyncio")
    if not site.library and site.place and semaphore._value > 0:
        limiters.register(Semaphore, semaphore, site.module, site.place, semaphore._value)


def _begins(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Request | None:
    semaphore = args[0]
    limiter = known.get(id(semaphore))
    if limiter is None:
        return None
    if semaphore._value > 0 and not semaphore._waiters:  # it will be given a permit at once, and cannot fail
        limiter.acquired += 1
        return None
    return limiters.request(limiter)


def _started(_: str) -> None:
    limiters.observe(SCOPE)


def _stopped() -> None:
    limiters.forget(SCOPE)


INTEGRATION = Integration(
    name="asyncio",
    scope=SCOPE,
    targets=(
        Target("asyncio.locks:Semaphore.__init__", _creation, _created),
        Target("asyncio.locks:Semaphore.acquire", _begins, limiters.acquired, limiters.failed),
    ),
    at_first_call=True,
    started=_started,
    stopped=_stopped,
)

"""anyio: the limiter of its worker threads, of which each event loop has one.

Its state is read when somebody collects. The limiter is found by the public `current_default_thread_limiter()`, in
the event loop, at a call of `to_thread.run_sync`; one that the app gives for a single call is not.
"""

from __future__ import annotations

import sys
from typing import Any

from watchkeep import limiters, names
from watchkeep.hook import Target
from watchkeep.integrations import Integration, scope
from watchkeep.limiters import CONCURRENCY, Limiter, known

SCOPE = scope("anyio", names.SCHEMA_EXTENSION)
NAME = "anyio.to_thread"


class ThreadLimiter(Limiter):
    """The default `anyio.CapacityLimiter` of one event loop's worker threads."""

    __slots__ = ()

    scope = SCOPE
    kind = CONCURRENCY
    counts = False

    def limit(self, thing: Any) -> float:
        """Return how many threads may work at once."""
        return float(thing.total_tokens)

    def held(self, thing: Any) -> float:
        """Return how many threads work."""
        return float(thing.borrowed_tokens)

    def queued(self, thing: Any) -> float:
        """Return how many calls wait for a thread."""
        return float(thing.statistics().tasks_waiting)


def _runs(args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    if kwargs.get("limiter") is not None:
        return
    default = sys.modules["anyio.to_thread"].current_default_thread_limiter()
    if id(default) not in known:
        limiters.register(ThreadLimiter, default, "", NAME, float(default.total_tokens))


def _started(_: str) -> None:
    limiters.observe(SCOPE)


def _stopped() -> None:
    limiters.forget(SCOPE)


INTEGRATION = Integration(
    name="anyio",
    scope=SCOPE,
    targets=(Target("anyio.to_thread:run_sync", _runs),),
    supported={"anyio": ("3.0", "5")},
    started=_started,
    stopped=_stopped,
)

"""Which connections of an HTTP pool are healthy, and why the pool gave the others up.

A connection is unhealthy when the latest request on it failed by the network's or the provider's fault. A pool
drops such a connection at once, and one that could not be opened never was in it, so the pool itself looks empty
in an outage. Therefore the outage is kept by the pool's name, until a request is answered again: while it lasts,
connections opened since it began have proven nothing and are unhealthy, and where there is none, one stands for
those that could not be had (docs/decisions.md, Pools).
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from typing import Any

from watchkeep import blame, clock, names

STATES = HEALTHY, UNHEALTHY = "healthy", "unhealthy"
REASONS = ("max_age", "idle", "unhealthy", "closed")
_KNOWN_FOR = 300_000_000_000  # ns after the last failure: a pool that nobody uses says nothing for longer
_MAX_OUTAGES = 100
_MAX_LAYERS = 4  # a proxy's connection holds the pool's, which holds the protocol's
_NEVER_OPEN = frozenset(("CONNECTING", "CONNECTION FAILED"))  # what the public `info()` of such a connection says


class Outage:
    """No request through the pools of one name was answered since the first of these failures."""

    __slots__ = ("latest", "since")

    def __init__(self, now: int) -> None:
        self.since = self.latest = now


ongoing: dict[str, Outage] = {}
"""By the name of the pools; those that nobody asked about for long are still in it."""
os.register_at_fork(after_in_child=ongoing.clear)


def failed(name: str) -> None:
    """Note that a request through a pool of this name failed."""
    now = clock.monotonic()
    outage = ongoing.get(name)
    if outage is not None and now - outage.latest < _KNOWN_FOR:
        outage.latest = now
    elif outage is not None or len(ongoing) < _MAX_OUTAGES or _forgot_one(now):
        ongoing[name] = Outage(now)


def answered(name: str) -> None:
    """Note that a request through a pool of this name was answered."""
    ongoing.pop(name, None)


def outage(name: str) -> Outage | None:
    """Return the outage of the pools of this name, if there is one."""
    found = ongoing.get(name)
    return found if found is not None and clock.monotonic() - found.latest < _KNOWN_FOR else None


def outages() -> Iterator[str]:
    """Return the names of the pools that are out now."""
    return (name for name in list(ongoing) if outage(name) is not None)


def _forgot_one(now: int) -> bool:
    for name, old in list(ongoing.items()):
        if now - old.latest >= _KNOWN_FOR:
            return ongoing.pop(name, None) is not None
    return False


def is_its_fault(error: BaseException) -> bool:
    """Whether a connection is the worse for this exception: not for a cancelled, waiting or malformed request."""
    if type(error).__name__ == "LocalProtocolError":
        return False
    return blame.of_exception(error)[1] != names.CLIENT_FAULT


def health(born: int | None, idle: bool, marked: bool, out: Outage | None) -> str:
    """Return the health of an open connection; `born` is when it was opened, None while it is being opened."""
    unproven = out is not None and not idle and (born is None or born >= out.since)
    return UNHEALTHY if marked or unproven else HEALTHY


# -- what the pool gives up ---------------------------------------------------------------------------------


def given_up(had: list[Any], has: list[Any]) -> list[Any]:
    """Return the connections that a pool had and has no more."""
    kept = set(map(id, has))
    return [connection for connection in had if id(connection) not in kept]


def reason(connection: Any, failed: bool) -> str:
    """Return why the pool gave up a connection, "" when it never was open; `failed`: its latest request did.

    To be asked before the pool closes it.
    """
    if connection.info() in _NEVER_OPEN:
        return ""
    if connection.is_closed():
        return "unhealthy" if failed else "closed"
    # It is open and idle: unused for too long, closed by the server meanwhile, or in the way of others.
    return "closed" if not _keep_alive_is_over(connection) and connection.has_expired() else "idle"


def _keep_alive_is_over(connection: Any) -> bool:
    for _ in range(_MAX_LAYERS):
        below = getattr(connection, "_connection", None)
        if below is None:
            break
        connection = below
    expires = getattr(connection, "_expire_at", None)
    return expires is not None and time.monotonic() > expires  # the clock that the pool compares it with

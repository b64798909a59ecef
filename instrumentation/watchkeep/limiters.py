"""What limiters have in common, whatever library they are from: names, permits, and each request that had to wait.

A request that finds a permit at once costs an addition. One that waits is measured, and a span inside a trace. The
app's limiters are only referred to weakly; those of one name share their series, which stay when they are gone.
"""

from __future__ import annotations

import os
import weakref
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from functools import partial
from math import isfinite
from typing import Any, ClassVar, NamedTuple

from watchkeep import blame, cells, clock, context, names, origin, runtime, waits
from watchkeep.cells import Observation
from watchkeep.export.model import Scope
from watchkeep.record import Measure, seconds

CONCURRENCY, RATE = "concurrency", "rate"
ACQUIRED, CANCELLED = RESULTS = ("acquired", "cancelled")
_FREE_NS = 100_000  # a permit that is free is had in less: no wait


class Limiter(ABC):
    """One limiter of the app's. A library's subclass has `scope`, `kind` and what is read from it."""

    __slots__ = ("_name", "acquired", "cancelled", "last_limit", "reference", "site", "waiting")

    scope: ClassVar[Scope]
    kind: ClassVar[str]
    counts: ClassVar[bool] = True  # whether its requests are seen, and not only its state

    def __init__(self, reference: weakref.ref[Any], module: str, place: str, limit: float) -> None:
        self.reference = reference
        self.site = module, place
        self.acquired = self.cancelled = self.waiting = 0
        self.last_limit = limit
        self._name = ""

    @abstractmethod
    def limit(self, thing: Any, /) -> float:
        """Return how many permits it gives."""

    def held(self, _: Any, /) -> float | None:
        """Return how many permits are held, None where it has none to give back."""
        return None

    def queued(self, _: Any, /) -> float:
        """Return how many requests wait."""
        return self.waiting

    @property
    def name(self) -> str:
        """The name on every span and series: found when first asked for, the same from then on."""
        if not self._name:
            module, place = self.site
            thing = self.reference()
            self._name = (origin.bound_in(module, thing) if thing is not None else "") or place
        return self._name

    def waited(self, begin: int, result: str) -> None:
        """A request has its permit, or was cancelled, after it has waited since `begin`."""
        now = clock.monotonic()
        if result == ACQUIRED:
            self.acquired += 1
            if now - begin < _FREE_NS:
                return
        else:
            self.cancelled += 1
        wait = Wait(self, result)
        if waits.in_a_trace():
            wait.open(since=begin)
        else:
            wait.begin = begin
        if result == CANCELLED:
            wait.fail((names.CANCELLED, names.CLIENT_FAULT))
        wait.close(now)
        around = context.current.get()
        if wait.visible and context.call.get() is None:  # inside a call it is a part of that call's own time
            waits.before_a_call("limiter", self.scope, now - begin, around)


class Wait(waits.Measured):
    """One request that had to wait: the span `wait_for_permit`."""

    __slots__ = ()

    measures = (Measure(names.METRIC_RESILIENCE_LIMITER_REQUEST_TIME_IN_QUEUE, seconds),)

    def __init__(self, limiter: Limiter, result: str) -> None:
        attributes = {
            names.RESILIENCE_LIMITER_NAME: limiter.name,
            names.RESILIENCE_LIMITER_TYPE: limiter.kind,
            names.RESILIENCE_LIMITER_RESULT: result,
        }
        super().__init__(names.LIMITER_WAIT, limiter.scope, attributes)


class Request(NamedTuple):
    """One request to a limiter that may have to wait."""

    limiter: Limiter
    begin: int


def request(limiter: Limiter) -> Request:
    """Begin a request that may have to wait."""
    limiter.waiting += 1
    return Request(limiter, clock.monotonic())


def acquired(request: Request, _: Any) -> None:
    """The request has its permit."""
    request.limiter.waiting -= 1
    request.limiter.waited(request.begin, ACQUIRED)


def failed(request: Request, error: BaseException) -> None:
    """The request was cancelled, or made wrongly, which is no request."""
    request.limiter.waiting -= 1
    if blame.of_exception(error)[0] == names.CANCELLED:
        request.limiter.waited(request.begin, CANCELLED)


# -- the limiters of this process ------------------------------------------------------------------------

Key = tuple[str, str]  # name and type

known: dict[int, Limiter] = {}
"""By identity; one that is gone leaves at once, so that what is found is alive."""
_gone: dict[Scope, dict[Key, dict[str, float]]] = {}


def register(kind: Callable[..., Limiter], thing: Any, module: str, place: str, limit: float) -> Limiter:
    """Know a limiter from now on, until the app drops it."""
    key = id(thing)
    made: list[Limiter] = []

    def gone(_: Any) -> None:
        if known.get(key) is made[0]:
            del known[key]
        _keep(made[0])

    made.append(kind(weakref.ref(thing, gone), module, place, limit))
    known[key] = made[0]
    return made[0]


def _keep(limiter: Limiter) -> None:
    # In a finalizer, under any lock of the app's: plain dictionaries only.
    kept = _gone.setdefault(limiter.scope, {})
    key = limiter.name, limiter.kind
    if key not in kept and len(kept) >= runtime.config().label_cap:
        key = names.OTHER, limiter.kind
    found = kept.setdefault(key, {})
    found["limit"] = limiter.last_limit
    if limiter.counts:
        found[ACQUIRED] = found.get(ACQUIRED, 0) + limiter.acquired
        found[CANCELLED] = found.get(CANCELLED, 0) + limiter.cancelled


def forget(scope: Scope) -> None:
    """Show the limiters of a library no more; those that there are stay known, for they are made but once."""
    cells.forget(scope)


def observe(scope: Scope) -> None:
    """Show the limiters of a library at each collection."""
    cells.observe(names.METRIC_RESILIENCE_LIMITER_REQUESTS, scope, partial(_requests, scope))
    cells.observe(names.METRIC_RESILIENCE_LIMITER_LIMIT, scope, partial(_limits, scope))
    cells.observe(names.METRIC_RESILIENCE_LIMITER_QUEUED_REQUESTS, scope, partial(_queues, scope))
    cells.observe(names.METRIC_RESILIENCE_LIMITER_ACTIVE_REQUEST_LEASES, scope, partial(_leases, scope))


def _each(scope: Scope) -> Iterator[tuple[Key, Limiter, Any]]:
    cap, seen = runtime.config().label_cap, set(_gone.get(scope, ()))
    for limiter in list(known.values()):
        thing = limiter.reference()
        if thing is None or limiter.scope != scope:
            continue
        key = limiter.name, limiter.kind
        if key in seen or len(seen) < cap:
            seen.add(key)
            yield key, limiter, thing
        else:
            yield (names.OTHER, limiter.kind), limiter, thing


def _requests(scope: Scope) -> Iterator[Observation]:
    for key, kept in list(_gone.get(scope, {}).items()):
        for result in RESULTS if ACQUIRED in kept else ():
            yield (*key, result), kept[result]
    for key, limiter, _ in _each(scope):
        if limiter.counts:
            yield (*key, ACQUIRED), limiter.acquired
            yield (*key, CANCELLED), limiter.cancelled


def _limits(scope: Scope) -> Iterator[Observation]:
    # As with executors: each is used by whoever made it, so those of one name add up.
    found: dict[Key, float] = {}
    for key, limiter, thing in _each(scope):
        found[key] = found.get(key, 0) + limiter.limit(thing)
    for key, kept in list(_gone.get(scope, {}).items()):
        found.setdefault(key, kept["limit"])
    yield from ((key, limit) for key, limit in found.items() if isfinite(limit))


def _queues(scope: Scope) -> Iterator[Observation]:
    for key in list(_gone.get(scope, ())):
        yield key, 0
    for key, limiter, thing in _each(scope):
        yield key, limiter.queued(thing)


def _leases(scope: Scope) -> Iterator[Observation]:
    for key, limiter, thing in _each(scope):
        held = limiter.held(thing)
        if held is not None:
            yield key, held
    for key in list(_gone.get(scope, ())):
        if key[1] == CONCURRENCY:
            yield key, 0


def _in_child() -> None:
    # What the parent counted is the parent's, and who waits there is not here.
    _gone.clear()
    for limiter in known.values():
        limiter.acquired = limiter.cancelled = limiter.waiting = 0


os.register_at_fork(after_in_child=_in_child)

"""What circuit breakers have in common, whatever library they are from: names, states, calls, spans, series.

An integration subclasses `Breaker`, which says how one of that library is read, and tells a `BreakerCall`
what happens. The app's breakers are only referred to weakly, and never asked for anything that costs I/O.
"""

from __future__ import annotations

import sys
import weakref
from abc import ABC, abstractmethod
from collections.abc import Iterator
from functools import partial
from typing import Any, ClassVar, NamedTuple

from watchkeep import cells, clock, context, guard, names, origin, runtime
from watchkeep.blame import Blame, of_exception
from watchkeep.cells import Observation
from watchkeep.export.model import Scope
from watchkeep.llm import message_of
from watchkeep.logical import Logical
from watchkeep.record import Record

CLOSED, HALF_OPEN, OPEN = STATES = ("closed", "half_open", "open")  # from the best to the worst
SUCCESS, FAILURE, IGNORED, REJECTED = OUTCOMES = ("success", "failure", "ignored", "rejected")
_CYCLE = ((CLOSED, OPEN), (OPEN, HALF_OPEN), (HALF_OPEN, CLOSED), (HALF_OPEN, OPEN))
_FREE_NS = 100_000  # taking a lock that nobody holds takes less: no wait
_LOCK = names.PHASE_KEYS["breaker_lock"]


class Reading(NamedTuple):
    """What a breaker says of itself."""

    state: str
    threshold: float
    reset_timeout: float


class Breaker(ABC):
    """One breaker of the app's. A library's subclass has `scope` and the four readers."""

    __slots__ = ("_name", "announced", "last", "misused", "module", "opened", "opened_at", "reference", "site")

    scope: ClassVar[Scope]

    def __init__(self, reference: weakref.ref[Any], module: str, site: str) -> None:
        self.reference = reference
        self.module = module  # where it was made, as far as we saw that
        self.site = site
        self.opened = 0  # monotonic time since which it is open; 0: unknown
        self.opened_at = 0.0  # the same on the wall clock, in seconds
        self.announced = 0
        self.last: tuple[dict[str, Any], Scope | None] | None = None  # the last chat made through it
        self.misused: set[str] = set()
        self._name = ""

    @abstractmethod
    def given_name(self, thing: Any) -> str | None:
        """Return the name that the app gave it."""

    @abstractmethod
    def read(self, thing: Any) -> Reading:
        """Read it, without I/O and without a change of its state."""

    @abstractmethod
    def opened_when(self, thing: Any) -> float | None:
        """Return when it opened, in Unix seconds, where that is known without I/O."""

    @property
    def name(self) -> str:
        """The name on every span and series: found at the first call or collection, the same from then on."""
        if not self._name:
            self._name = guard.run(self._find_name) or self.site or "CircuitBreaker"
            self.announce()
        return self._name

    def _find_name(self) -> str:
        thing = self.reference()
        return self.given_name(thing) or _global_name(thing, self.module) or self.site or type(thing).__name__

    def announce(self) -> None:
        """Let every counter whose labels are known exist at 0, once for each set of cells."""
        born = runtime.cells().start_ns
        if self.announced == born:
            return
        self.announced = born
        measure, labels = runtime.emitter().measure, self.labels()
        for outcome in OUTCOMES:
            error = {names.ERROR_TYPE: names.CIRCUIT_OPEN} if outcome == REJECTED else {}
            counted = {**labels, names.RESILIENCE_CIRCUIT_BREAKER_OUTCOME: outcome, **error}
            measure(names.METRIC_RESILIENCE_CIRCUIT_BREAKER_CALLS, self.scope, counted, 0)
        for previous, state in _CYCLE:
            measure(names.METRIC_RESILIENCE_CIRCUIT_BREAKER_TRANSITIONS, self.scope, self.labels(state, previous), 0)

    def labels(self, state: str = "", previous: str = "") -> dict[str, Any]:
        """Return its name, and its states where given, by key."""
        found: dict[str, Any] = {names.RESILIENCE_CIRCUIT_BREAKER_NAME: self.name}
        if state:
            found[names.RESILIENCE_CIRCUIT_BREAKER_STATE] = state
        if previous:
            found[names.RESILIENCE_CIRCUIT_BREAKER_PREVIOUS_STATE] = previous
        return found

    def found(self, thing: Any) -> None:
        """Take in a breaker as we meet it: it may be open already."""
        if self.read(thing).state == OPEN:
            since = self.opened_when(thing)
            if since is not None:
                self.opened_at = since
                self.opened = clock.monotonic() - max(0, clock.wall() - round(since * 1e9))

    def changed(self, previous: str, state: str, failures: int | None) -> None:
        """Note a change of state, made by a call or by hand."""
        emitter, labels, now = runtime.emitter(), self.labels(state, previous), clock.monotonic()
        emitter.measure(names.METRIC_RESILIENCE_CIRCUIT_BREAKER_TRANSITIONS, self.scope, labels)
        self._time_open(state, now)
        call = active(self)
        change = Passage(self, dict(labels))
        change.open(since=call.begin if call is not None else now)
        change.at = now
        if failures is not None:
            labels = {**labels, names.RESILIENCE_CIRCUIT_BREAKER_FAILURE_COUNT: failures}
        severity = names.WARN if state == OPEN else names.INFO
        emitter.event(names.EVENT_BREAKER_STATE_CHANGE, self.scope, dict(labels), change, severity)
        if call is not None:
            call.changes.append(change)
        else:
            change.end_with(SUCCESS, now)

    def _time_open(self, state: str, now: int) -> None:
        opened, self.opened, self.opened_at = self.opened, 0, 0.0
        if state == OPEN:
            self.opened, self.opened_at = now, clock.wall() / 1e9
        elif opened:
            spent, metric = (now - opened) / 1e9, names.METRIC_RESILIENCE_CIRCUIT_BREAKER_OPEN_DURATION
            runtime.emitter().measure(metric, self.scope, self.labels(), spent)


class Passage(Record):
    """A call that changed the state or was turned away, or a change by hand: the span `circuit_breaker`."""

    __slots__ = ("at",)

    at: int

    def __init__(self, breaker: Breaker, attributes: dict[str, Any]) -> None:
        super().__init__(names.CIRCUIT_BREAKER, breaker.scope, attributes)

    def end_with(self, outcome: str, now: int, error: Blame | None = None, message: str = "") -> None:
        """Close it with the outcome of its call."""
        self.attributes[names.RESILIENCE_CIRCUIT_BREAKER_OUTCOME] = outcome
        if error is not None:
            self.fail(error, message)
        self.close(now)


class BreakerCall(Logical):
    """One call through a breaker, from the app's call until the breaker has judged it."""

    __slots__ = ("begin", "breaker", "changes", "deferred", "exception", "function", "misused", "outcome", "rejected",
                 "runs", "waited")  # fmt: skip

    def __init__(self, breaker: Breaker, function: Any) -> None:
        self.begin = clock.monotonic()
        super().__init__()
        self.breaker = breaker
        self.function = function
        self.changes: list[Passage] = []
        self.exception: BaseException | None = None  # the function's own
        self.outcome = ""  # as the breaker counted it
        self.rejected = False
        self.runs = False  # the breaker let it through
        self.waited = False
        self.deferred = False  # it goes on after the breaker's own call returned: a generator
        self.misused = False

    def locked(self) -> None:
        """The breaker's lock is ours: what came before was waiting for it."""
        if self.waited:
            return
        self.waited = True
        wait = clock.monotonic() - self.begin
        breaker, emitter, spent = self.breaker, runtime.emitter(), wait / 1e9
        metric = names.METRIC_RESILIENCE_CIRCUIT_BREAKER_LOCK_WAIT_TIME
        emitter.measure(metric, breaker.scope, breaker.labels(), spent)
        if wait < _FREE_NS:
            return
        labels = {names.RESILIENCE_CALL_PHASE: "breaker_lock"}
        emitter.measure(names.METRIC_RESILIENCE_CALL_TIME, breaker.scope, labels, spent)
        around = context.current.get()
        if around is not None and not around.closed:
            around.attributes[_LOCK] = around.attributes.get(_LOCK, 0.0) + spent

    def let_through(self, state: str) -> None:
        """The function will run; operations opened inside it say in which state."""
        self.runs = True
        self.marks = self.breaker.labels(state)

    def failed(self, error: BaseException) -> None:
        """The function raised, which the breaker ignores unless it counts it next."""
        self.exception = error
        self.outcome = IGNORED

    def counted(self) -> None:
        """The breaker counted a failure."""
        self.outcome = FAILURE

    def misuse(self) -> None:
        """The function was not run but made a coroutine: the breaker counts a success before it begins."""
        self.misused = True
        breaker, function = self.breaker, _function_name(self.function)
        if function in breaker.misused:
            return
        breaker.misused.add(function)
        attributes = {**breaker.labels(), names.CODE_FUNCTION_NAME: function}
        runtime.emitter().event(names.EVENT_BREAKER_MISUSE, breaker.scope, attributes, context.current.get())
        guard.warn(
            f"misuse of {breaker.name} by {function}",
            f"circuit breaker {breaker.name} does not protect {function}: it is an async def, of which the breaker "
            "only sees that a coroutine was made, so it never opens. Use `with breaker.calling():` inside it.",
        )

    def finish(self, error: BaseException | None = None) -> None:
        """The breaker has judged the call."""
        if self.over:
            return
        error, self.exception, self.function = self.exception or error, None, None
        breaker = self.breaker
        outcome = self._judged(error)
        fault = self._fault(outcome, error)
        if outcome == REJECTED and breaker.last is not None:
            self.saw(*breaker.last, fault)
        elif self.labels is not None:
            breaker.last = self.labels, self.scope
        if self.end():
            self.count(fault, breaker.scope)
        if not self.misused:
            labels = {**breaker.labels(), names.RESILIENCE_CIRCUIT_BREAKER_OUTCOME: outcome}
            labels[names.ERROR_TYPE] = fault[0] if fault is not None else None
            runtime.emitter().measure(names.METRIC_RESILIENCE_CIRCUIT_BREAKER_CALLS, breaker.scope, labels)
        if self.changes or outcome == REJECTED:
            self._end_spans(outcome, fault, message_of(error) if error is not None else "")

    def _judged(self, error: BaseException | None) -> str:
        if self.rejected and not self.runs:
            return REJECTED
        return self.outcome or (SUCCESS if error is None else IGNORED)

    def _fault(self, outcome: str, error: BaseException | None) -> Blame | None:
        if outcome == REJECTED:
            return names.CIRCUIT_OPEN, names.CLIENT_FAULT
        if outcome == SUCCESS or error is None:
            return None
        # The chat knows what its tries met; the exception only says how the SDK calls it.
        return self.error or of_exception(error)

    def _end_spans(self, outcome: str, fault: Blame | None, message: str) -> None:
        # Each change ends when it was made; the last thing that happened is as long as the call.
        passages, self.changes = self.changes, []
        if outcome == REJECTED:
            rejection = Passage(self.breaker, self.breaker.labels(OPEN))
            rejection.open(since=self.begin)
            passages.append(rejection)
        passages[-1].at = clock.monotonic()
        for passage in passages:
            passage.end_with(outcome, passage.at, fault, message)


def active(breaker: Breaker) -> BreakerCall | None:
    """Return the innermost call through `breaker` that is being made here."""
    found = context.logical.get()
    while found is not None:
        if isinstance(found, BreakerCall) and found.breaker is breaker and not found.over:
            return found
        found = found.outer
    return None


def _function_name(function: Any) -> str:
    name = getattr(function, "__qualname__", None)
    module = getattr(function, "__module__", None)
    if not isinstance(name, str):
        return type(function).__qualname__
    return f"{module}.{name}" if isinstance(module, str) else name


# -- the breakers of this process ----------------------------------------------------------------------

_known: dict[int, Breaker] = {}


def known(thing: Any) -> Breaker | None:
    """Return what we know of a breaker."""
    found = _known.get(id(thing))
    return found if found is not None and found.reference() is thing else None


def register(kind: type[Breaker], thing: Any, module: str = "", site: str = "") -> Breaker:
    """Know a breaker from now on, until the app drops it."""
    key = id(thing)
    made = kind(weakref.ref(thing, lambda _: _known.pop(key, None)), module, site)
    found = _known.setdefault(key, made)
    if found is made:
        guard.run(found.found, thing)
    return found


def forget(scope: Scope) -> None:
    """Know the breakers of a library no more."""
    for key, breaker in list(_known.items()):
        if breaker.scope == scope:
            _known.pop(key, None)
    cells.forget(scope)


def observe(scope: Scope) -> None:
    """Show the breakers of a library at each collection."""
    cells.observe(names.METRIC_RESILIENCE_CIRCUIT_BREAKER_STATUS, scope, partial(_statuses, scope))
    cells.observe(names.METRIC_RESILIENCE_CIRCUIT_BREAKER_FAILURE_THRESHOLD, scope, partial(_thresholds, scope))
    cells.observe(names.METRIC_RESILIENCE_CIRCUIT_BREAKER_NEXT_PROBE_TIME, scope, partial(_next_probes, scope))


def _each(scope: Scope) -> Iterator[tuple[str, Breaker, Reading]]:
    cap = runtime.config().label_cap
    seen: set[str] = set()
    for breaker in list(_known.values()):
        thing = breaker.reference()
        if thing is None or breaker.scope != scope:
            continue
        reading = guard.run(breaker.read, thing)
        if reading is not None:
            name = breaker.name
            breaker.announce()
            if name in seen or len(seen) < cap:
                seen.add(name)
                yield name, breaker, reading
            else:
                yield names.OTHER, breaker, reading


def _statuses(scope: Scope) -> Iterator[Observation]:
    worst: dict[str, int] = {}
    for name, _, reading in _each(scope):
        worst[name] = max(worst.get(name, 0), STATES.index(reading.state))
    for name, rank in worst.items():
        for state in STATES:
            yield (name, state), int(state == STATES[rank])


def _thresholds(scope: Scope) -> Iterator[Observation]:
    for name, _, reading in _each(scope):
        yield (name,), reading.threshold


def _next_probes(scope: Scope) -> Iterator[Observation]:
    latest: dict[str, float] = {}
    for name, breaker, reading in _each(scope):
        if reading.state != OPEN:
            latest.setdefault(name, 0)
        elif breaker.opened_at:
            latest[name] = max(latest.get(name, 0), breaker.opened_at + reading.reset_timeout)
    for name, at in latest.items():
        yield (name,), at


# -- names of breakers that were given none ----------------------------------------------------------------


def _global_name(thing: Any, made_in: str) -> str:
    modules = [made_in, *(name for name in list(sys.modules) if name != "__main__"), "__main__"]
    return next(filter(None, (origin.bound_in(name, thing) for name in modules)), "")

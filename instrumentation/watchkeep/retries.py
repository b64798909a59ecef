"""What retry loops above an SDK have in common, whatever library they are from: names, tries, waits, spans, counts.

An integration subclasses `RetryCall` and tells it what happens. The span `retry {policy}` is made when it is
needed: something inside asks whose child it is, or a wait is scheduled. A loop that passes at its first try and
has nothing of interest inside makes none, and is not measured.
"""

from __future__ import annotations

import sys
from abc import abstractmethod
from inspect import CO_ASYNC_GENERATOR, CO_GENERATOR
from types import CodeType, FrameType
from typing import Any, NamedTuple

from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.trace.propagation import _SPAN_KEY

from watchkeep import clock, context, guard, names, runtime
from watchkeep.blame import Blame, of_exception
from watchkeep.export.model import Scope
from watchkeep.llm import LLMCall, message_of
from watchkeep.logical import Logical
from watchkeep.pending import PendingSpan
from watchkeep.record import Measure, Record, seconds

SUCCEEDED, EXHAUSTED, NOT_RETRYABLE, CANCELLED = "succeeded", "exhausted", "not_retryable", "cancelled"
SUCCEEDED_AFTER_RETRY = "succeeded_after_retry"
_CANCELLED = (names.CANCELLED, names.CLIENT_FAULT)
_YIELDS = CO_GENERATOR | CO_ASYNC_GENERATOR


class RetryOperation(Record):
    """One operation under a retry policy: the span `retry {policy}` around its tries."""

    __slots__ = ("tries",)

    tries: int

    def __init__(self, scope: Scope, attributes: dict[str, Any]) -> None:
        super().__init__(names.RETRY, scope, attributes)
        self.tries = 0

    measures = (
        Measure(names.METRIC_RESILIENCE_RETRY_OPERATION_DURATION, seconds),
        Measure(names.METRIC_RESILIENCE_RETRY_OPERATION_ATTEMPTS, lambda record: record.tries),
    )


class RetryCall(Logical):
    """One operation under a retry policy, from its first try until the library gives up or gives back."""

    __slots__ = ("_around", "_inside", "_records", "begun", "library", "span", "tries", "waiting")

    def __init__(self, library: Scope) -> None:
        self.begun = clock.monotonic()
        super().__init__()
        self.library = library
        self.tries = 0
        self.waiting: tuple[int, Blame | None] | None = None  # since when, and why
        self.span: PendingSpan | None = None
        self._around = otel_context.get_current()
        self._inside: otel_context.Context | None = None
        self._records: list[RetryOperation] = []

    @abstractmethod
    def policy(self) -> str:
        """Return the policy's name: that of the function that is tried, or the library's."""

    @abstractmethod
    def max_attempts(self) -> int | None:
        """Return how often the policy tries at most, where it says so."""

    # -- where it stands: around its tries, so that what they open is below its span ----------------------

    def begin(self) -> None:
        """Stand around what is done here from the very beginning, until `leave`."""
        around = self._around
        outer: Any = around.get(_SPAN_KEY, trace.INVALID_SPAN)
        span = self.span = PendingSpan(outer, self._find)
        inside = self._inside = otel_context.Context({**around, _SPAN_KEY: span})
        self.before = self.outer
        context.logical.set(self)
        otel_context._RUNTIME_CONTEXT.attach(inside)

    def enter(self) -> None:
        """Stand there again, if it ever did."""
        if self._inside is not None:
            super().enter()
            otel_context._RUNTIME_CONTEXT.attach(self._inside)

    def leave(self) -> None:
        """Undo `enter`, by value: a block may be left in another context than the one it was entered in."""
        span = self.span
        if span is None:
            return
        if context.logical.get() is self:
            context.logical.set(self.before)
        found = otel_context.get_current()
        if found is self._inside:
            otel_context._RUNTIME_CONTEXT.attach(self._around)
        elif trace.get_current_span(found) is span:  # the app has put something of its own beside it
            otel_context._RUNTIME_CONTEXT.attach(trace.set_span_in_context(span.outer, found))

    def operation(self) -> RetryOperation | None:
        """Return its span's record, made now if it was not."""
        return guard.run(self._find, True)

    def _find(self, make: bool) -> RetryOperation | None:
        if self._records:
            return self._records[0]
        if not make or self.over:  # over: a task that it left behind asks
            return None
        attributes: dict[str, Any] = {names.RESILIENCE_POLICY_NAME: self.policy()}
        most = self.max_attempts()
        if most is not None:
            attributes[names.RESILIENCE_RETRY_MAX_ATTEMPTS] = most
        made = RetryOperation(self.library, attributes)
        found, logical = otel_context.get_current(), context.logical.get()
        otel_context._RUNTIME_CONTEXT.attach(self._around)
        context.logical.set(self.outer)
        try:
            made.open(since=self.begun)
        finally:
            context.logical.set(logical)
            otel_context._RUNTIME_CONTEXT.attach(found)
        self._records.append(made)  # two threads may be here at once: the first that comes is taken
        return self._records[0]

    # -- what the library does ---------------------------------------------------------------------------

    def begin_try(self, waited: float | None = None) -> None:
        """A try begins: the first, or the one after a wait; `waited`: as long as that was, where it is known."""
        self.marks = {names.RESILIENCE_RETRY_ATTEMPT: self.tries}
        self.tries += 1
        if self.waiting is not None:
            since, fault = self.waiting
            self.waiting = None
            self._count_retry((clock.monotonic() - since) / 1e9 if waited is None else waited, fault)
        self.error = None

    def schedule(self, delay: float, error: BaseException | None) -> None:
        """It will wait `delay` seconds and try again; `error` ended the last try, None: its result was refused."""
        fault = self._fault(error) if error is not None else None
        self.waiting = clock.monotonic(), fault
        record = self.operation()
        attributes = {
            names.RESILIENCE_POLICY_NAME: self._name(record),
            names.RESILIENCE_RETRY_ATTEMPT: self.tries,
            names.RESILIENCE_RETRY_DELAY: delay,
            names.ERROR_TYPE: fault[0] if fault is not None else names.OTHER,
        }
        runtime.emitter().event(names.EVENT_RETRY_SCHEDULED, self.library, attributes, record)

    def _name(self, record: RetryOperation | None) -> str:
        return str(record.attributes[names.RESILIENCE_POLICY_NAME]) if record is not None else self.policy()

    def _count_retry(self, waited: float, fault: Blame | None) -> None:
        emitter, labels = runtime.emitter(), {names.RESILIENCE_POLICY_NAME: self._name(self.operation())}
        emitter.measure(names.METRIC_RESILIENCE_RETRY_DELAY, self.library, labels, waited)
        if self.labels is None:
            return  # of no LLM call: retries are told per call, and would be of nobody's
        counted = {
            **labels,
            names.ERROR_TYPE: fault[0] if fault is not None else None,
            names.GEN_AI_REQUEST_MODEL: self.labels.get(names.GEN_AI_REQUEST_MODEL),
        }
        emitter.measure(names.METRIC_RESILIENCE_RETRY_RETRIES, self.library, counted)

    def _fault(self, error: BaseException) -> Blame:
        # The chat knows what its tries met; the exception only says how the SDK calls it.
        found = of_exception(error)
        return found if found[0] == names.CANCELLED else self.error or found

    # -- its end -----------------------------------------------------------------------------------------

    def finish(self, exhausted: bool = False, error: BaseException | None = None) -> None:
        """It gave back a result (its last one, when `exhausted`), or the app gets an exception; only the first counts.

        `error` is the last real one, not the one that a library wraps around it.
        """
        if error is None:
            if self._over():
                self._close(EXHAUSTED if exhausted else self._success())
            return
        fault = self._fault(error)
        result = CANCELLED if fault[0] == names.CANCELLED else EXHAUSTED if exhausted else NOT_RETRYABLE
        if self._over(fault):
            self._close(result, fault, message_of(error))

    def drop(self, now: int, well: bool) -> None:
        """Nobody goes on with it: after a try that went well, or in the midst of one, or of a wait."""
        fault = None if well else _CANCELLED
        if self._over(fault):
            self._close(self._success() if well else CANCELLED, fault, "", now)

    def _success(self) -> str:
        return SUCCEEDED if self.tries < 2 else SUCCEEDED_AFTER_RETRY

    def _over(self, fault: Blame | None = None) -> bool:
        # Whether there is a span to close.
        if self.over:
            return False
        self.leave()
        self.span = self._inside = None
        if self.end():
            self.count(fault, self.library)
        return bool(self._records)

    def _close(self, result: str, fault: Blame | None = None, message: str = "", now: int = 0) -> None:
        record = self._records[0]
        record.attributes[names.RESILIENCE_RETRY_RESULT] = result
        record.tries = self.tries
        if fault is not None:
            record.fail(fault, message)
        record.close(now)


class Within:
    """The place of a `RetryCall` inside an LLM call: the SDK itself retries with the library, so the call tells."""

    __slots__ = ("call",)

    over = False

    def __init__(self, call: LLMCall) -> None:
        self.call = call

    def schedule(self, delay: float) -> None:
        """The SDK will wait and send again."""
        if not self.call.closed and not self.call.inside:
            self.call.back_off(delay)


class Handle:
    """Held by what lives as long as the loop: when that goes without a word, so has the loop."""

    __slots__ = ("call", "ended")

    def __init__(self, call: RetryCall) -> None:
        self.call = call
        self.ended = 0  # when a try went well, after which the app may have left the loop

    def __del__(self) -> None:
        call = self.call
        if not call.over and guard is not None and clock is not None:  # at the very end, modules are gone first
            guard.run(self._drop, call)

    def _drop(self, call: RetryCall) -> None:
        call.leave()
        now = self.ended or clock.monotonic()
        runtime.emitter().put_off(call.drop, now, bool(self.ended))


def within() -> LLMCall | None:
    """Return the LLM call that is being made here."""
    call = context.call.get()
    return call if call is not None and not call.closed else None


class Place(NamedTuple):
    """Where a loop stands in the app's code: in which function, and whether that yields in its midst."""

    module: Any
    code: CodeType | None
    yields: bool

    @property
    def name(self) -> str:
        """The qualified name of the function; "" outside of any."""
        return f"{self.module}.{self.code.co_qualname}" if self.code and self.code.co_name != "<module>" else ""


def place_of_loop(libraries: tuple[str, ...], wrappers: tuple[str, ...] = ()) -> Place:
    """Return the place of the loop that runs now: the innermost frame whose module's name begins otherwise.

    `wrappers` are the functions of a library that are such a place themselves: generators made from the app's.
    """
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        module, code = frame.f_globals.get("__name__"), frame.f_code
        if not str(module).startswith(libraries):
            return Place(module, code, bool(code.co_flags & _YIELDS))
        if code.co_name in wrappers:
            return Place(None, None, True)
        frame = frame.f_back
    return Place(None, None, False)

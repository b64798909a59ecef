"""pybreaker as an app uses it: every state, every way to call, breakers of any age, with fakes and with real chats."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import importlib.util
import logging
import sys
import threading
import time
import types
import weakref
from contextlib import contextmanager, suppress

import openai
import pybreaker
import pytest

import watchkeep
from watchkeep import breaker as breakers
from watchkeep import context, names
from watchkeep.integrations.pybreaker import INTEGRATION, SCOPE
from watchkeep.record import Record

STATUS = names.METRIC_RESILIENCE_CIRCUIT_BREAKER_STATUS.name
TRANSITIONS = names.METRIC_RESILIENCE_CIRCUIT_BREAKER_TRANSITIONS.name
CALLS = names.METRIC_RESILIENCE_CIRCUIT_BREAKER_CALLS.name
OPEN_DURATION = names.METRIC_RESILIENCE_CIRCUIT_BREAKER_OPEN_DURATION.name
LOCK_WAIT = names.METRIC_RESILIENCE_CIRCUIT_BREAKER_LOCK_WAIT_TIME.name
THRESHOLD = names.METRIC_RESILIENCE_CIRCUIT_BREAKER_FAILURE_THRESHOLD.name
NEXT_PROBE = names.METRIC_RESILIENCE_CIRCUIT_BREAKER_NEXT_PROBE_TIME.name
LOGICAL_CALLS = names.METRIC_RESILIENCE_CALLS.name
PHASE_TIME = names.METRIC_RESILIENCE_CALL_TIME.name
STATE_CHANGE = names.EVENT_BREAKER_STATE_CHANGE.name
MISUSE = names.EVENT_BREAKER_MISUSE.name
LOCK_KEY = names.PHASE_KEYS["breaker_lock"]
CYCLE = {("closed", "open"), ("open", "half_open"), ("half_open", "closed"), ("half_open", "open")}

at_module_level = pybreaker.CircuitBreaker()


class BrokenError(Exception):
    """What a provider that is down makes of a call."""


def fail():
    raise BrokenError


def work():
    return "done"


def times(how_many, breaker, function):
    """Call through a breaker, whatever comes of it."""
    for _ in range(how_many):
        with suppress(BrokenError, pybreaker.CircuitBreakerError, openai.OpenAIError):
            breaker.call(function)


def status(capture, name):
    return {
        point.attributes[names.RESILIENCE_CIRCUIT_BREAKER_STATE]: point.value
        for point in capture.points(STATUS, resilience_circuit_breaker_name=name)
    }


def one_of(state):
    return {each: int(each == state) for each in ("closed", "half_open", "open")}


def outcomes(capture, name):
    found = {}
    for point in capture.points(CALLS, resilience_circuit_breaker_name=name):
        outcome = point.attributes[names.RESILIENCE_CIRCUIT_BREAKER_OUTCOME]
        found[outcome] = found.get(outcome, 0) + point.value
    return {outcome: value for outcome, value in found.items() if value}


def transitions(capture, name):
    """The transitions counted, as (previous state, state)."""
    return {
        (
            point.attributes[names.RESILIENCE_CIRCUIT_BREAKER_PREVIOUS_STATE],
            point.attributes[names.RESILIENCE_CIRCUIT_BREAKER_STATE],
        ): point.value
        for point in capture.points(TRANSITIONS, resilience_circuit_breaker_name=name)
    }


def told(span):
    """(previous state, state, outcome) of a breaker's span."""
    get = span.attributes.get
    return (
        get(names.RESILIENCE_CIRCUIT_BREAKER_PREVIOUS_STATE),
        get(names.RESILIENCE_CIRCUIT_BREAKER_STATE),
        get(names.RESILIENCE_CIRCUIT_BREAKER_OUTCOME),
    )


def seconds(span):
    return (span.end_ns - span.start_ns) / 1e9


def logical_calls(capture):
    """`resilience.calls` by (error.type, origin)."""
    return {
        (point.attributes.get(names.ERROR_TYPE), point.attributes.get(names.RESILIENCE_FAULT_ORIGIN)): point.value
        for point in capture.points(LOGICAL_CALLS)
    }


@contextmanager
def enclosing():
    """An operation of ours around the calls."""
    from watchkeep import tracing

    record = Record(
        names.EXECUTE_TOOL, SCOPE, {names.GEN_AI_OPERATION_NAME: "execute_tool", names.GEN_AI_TOOL_NAME: "t"}
    )
    record.open()
    tracing.attach(record)
    try:
        yield record
    finally:
        tracing.detach(record)
        record.close()


@pytest.fixture
def chat(llm_server):
    client = openai.OpenAI(base_url=llm_server.base_url, api_key="sk-test", max_retries=0)

    def create(**options):
        return client.chat.completions.create(
            model="gpt-4o-mini", messages=[{"role": "user", "content": "hi"}], **options
        )

    yield create
    client.close()


def every_way(server):
    """Calls, blocks and generators, through all states."""
    breaker = pybreaker.CircuitBreaker(fail_max=2, reset_timeout=0.05, name="every-way")

    @breaker
    def numbers():
        yield 1

    def block():
        with breaker.calling():
            return "block"

    seen = []
    for function in (work, fail, fail, work, time.sleep, fail, time.sleep, numbers, block):
        if function is time.sleep:
            time.sleep(0.06)
        elif function is block:
            seen.append(block())
        elif function is numbers:
            seen.append(list(numbers()))
        else:
            try:
                seen.append(breaker.call(function))
            except Exception as error:
                seen.append(f"{type(error).__name__} {error}")
        seen.append((breaker.current_state, breaker.fail_counter))
    return seen


def around_chats(server):
    """Chats through a breaker: answered, streamed, failing, then rejected."""
    server.plan(["ok", "ok", {"status": 500, "times": 2}])
    breaker = pybreaker.CircuitBreaker(fail_max=2, reset_timeout=60)
    client = openai.OpenAI(base_url=server.base_url, api_key="sk-test", max_retries=0)
    create = breaker(client.chat.completions.create)
    asked = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "hi"}]}
    seen = [create(**asked).choices[0].message.content, len(list(create(**asked, stream=True)))]
    for _ in range(3):
        try:
            create(**asked)
        except Exception as error:
            seen.append(type(error).__name__)
    return seen


def cancelled(server):
    """A block that is cancelled."""

    async def use():
        with pybreaker.CircuitBreaker(name="cancelled").calling():
            asyncio.current_task().cancel()
            await asyncio.sleep(1)

    return asyncio.run(use())


def misused(server):
    """An `async def` under a breaker."""

    @pybreaker.CircuitBreaker(name="misused")
    async def function():
        return "done"

    return asyncio.run(function())


EXERCISES = (every_way, around_chats, cancelled, misused)


# -- states ------------------------------------------------------------------------------------------------


def test_the_way_round_is_seen_as_spans_counters_events_and_series(watchkeep_capture):
    """From closed -> open -> half_open -> closed: each change once in every signal, and the series follow."""
    breaker = pybreaker.CircuitBreaker(fail_max=2, reset_timeout=0.05, name="round")
    assert status(watchkeep_capture, "round") == one_of("closed")
    times(2, breaker, fail)
    assert status(watchkeep_capture, "round") == one_of("open")
    time.sleep(0.06)
    assert breaker.call(work) == "done"
    assert status(watchkeep_capture, "round") == one_of("closed")

    spans = watchkeep_capture.spans("circuit_breaker round")
    assert [told(span) for span in spans] == [
        ("closed", "open", "failure"),
        ("open", "half_open", "success"),
        ("half_open", "closed", "success"),
    ]
    assert [span.attributes.get(names.ERROR_TYPE) for span in spans] == ["BrokenError", None, None]
    seen = transitions(watchkeep_capture, "round")
    assert seen == {change: int(change != ("half_open", "open")) for change in CYCLE}
    events = watchkeep_capture.logs(STATE_CHANGE)
    assert [event.attributes[names.RESILIENCE_CIRCUIT_BREAKER_STATE] for event in events] == [
        "open",
        "half_open",
        "closed",
    ]
    assert [event.severity_number for event in events] == [names.WARN, names.INFO, names.INFO]
    assert [event.attributes[names.RESILIENCE_CIRCUIT_BREAKER_FAILURE_COUNT] for event in events] == [2, 2, 0]
    assert [event.span_id for event in events] == [span.span_id for span in spans]
    assert outcomes(watchkeep_capture, "round") == {"failure": 2, "success": 1}


def test_a_probe_that_fails_opens_it_again(watchkeep_capture):
    """From closed -> open -> half_open -> open: the probe is one failure, and the second stay open is timed anew."""
    breaker = pybreaker.CircuitBreaker(fail_max=1, reset_timeout=0.05, name="again")
    times(1, breaker, fail)
    time.sleep(0.06)
    times(1, breaker, fail)
    assert status(watchkeep_capture, "again") == one_of("open")
    assert [told(span) for span in watchkeep_capture.spans("circuit_breaker again")] == [
        ("closed", "open", "failure"),
        ("open", "half_open", "failure"),
        ("half_open", "open", "failure"),
    ]
    assert outcomes(watchkeep_capture, "again") == {"failure": 2}
    time.sleep(0.06)
    breaker.call(work)
    (point,) = watchkeep_capture.points(OPEN_DURATION, resilience_circuit_breaker_name="again")
    assert point.count == 2
    assert 0.1 < point.sum < 1


def test_half_open_is_shown_until_enough_probes_went_well(watchkeep_capture):
    """With a success threshold of two, the first probe leaves it half open, and its span is as long as the call."""
    breaker = pybreaker.CircuitBreaker(fail_max=1, reset_timeout=0, success_threshold=2, name="careful")
    times(1, breaker, fail)
    breaker.call(time.sleep, 0.03)
    assert status(watchkeep_capture, "careful") == one_of("half_open")
    probe = watchkeep_capture.spans("circuit_breaker careful")[-1]
    assert told(probe) == ("open", "half_open", "success")
    assert seconds(probe) >= 0.03
    breaker.call(work)
    assert status(watchkeep_capture, "careful") == one_of("closed")


def test_an_open_breaker_rejects_at_once(watchkeep_capture):
    """A rejection is a span of the client's fault, counted as rejected; the function is not run."""
    breaker = pybreaker.CircuitBreaker(fail_max=1, reset_timeout=60, name="shut")
    times(1, breaker, fail)
    watchkeep_capture.clear()
    ran = []
    with pytest.raises(pybreaker.CircuitBreakerError):
        breaker.call(ran.append, 1)
    (span,) = watchkeep_capture.spans("circuit_breaker shut")
    assert told(span) == (None, "open", "rejected")
    assert span.attributes[names.ERROR_TYPE] == names.CIRCUIT_OPEN
    assert span.attributes[names.RESILIENCE_FAULT_ORIGIN] == names.CLIENT_FAULT
    assert outcomes(watchkeep_capture, "shut") == {"failure": 1, "rejected": 1}
    rejected = watchkeep_capture.points(CALLS, error_type=names.CIRCUIT_OPEN, resilience_circuit_breaker_name="shut")
    assert [point.value for point in rejected] == [1]
    assert not ran
    assert watchkeep_capture.logs(STATE_CHANGE) == []


@pytest.mark.parametrize("throws_new", [True, False])
def test_the_call_that_trips_is_a_failure_once(watchkeep_capture, throws_new):
    """It raises CircuitBreakerError, or its own error, but it ran: one failure, no rejection."""
    breaker = pybreaker.CircuitBreaker(fail_max=1, name="trip", throw_new_error_on_trip=throws_new)
    with pytest.raises(pybreaker.CircuitBreakerError if throws_new else BrokenError):
        breaker.call(fail)
    assert outcomes(watchkeep_capture, "trip") == {"failure": 1}
    (span,) = watchkeep_capture.spans("circuit_breaker trip")
    assert span.attributes[names.ERROR_TYPE] == "BrokenError"


def test_a_change_by_hand_is_a_span_without_length(watchkeep_capture):
    """open(), half_open() and close() called by the app: three spans of no length; closing twice is no change."""
    breaker = pybreaker.CircuitBreaker(name="by-hand")
    breaker.open()
    breaker.half_open()
    breaker.close()
    breaker.close()
    spans = watchkeep_capture.spans("circuit_breaker by-hand")
    assert [told(span)[1] for span in spans] == ["open", "half_open", "closed"]
    assert {seconds(span) for span in spans} == {0}
    assert sum(transitions(watchkeep_capture, "by-hand").values()) == 3


def test_a_call_that_passes_makes_no_span(watchkeep_capture):
    """A call without a change only counts."""
    breaker = pybreaker.CircuitBreaker(name="quiet")
    assert breaker.call(work) == "done"
    assert watchkeep_capture.spans() == []
    assert outcomes(watchkeep_capture, "quiet") == {"success": 1}


def test_excluded_exceptions_are_ignored_not_failed(watchkeep_capture):
    """By class or by function: the same object comes out, counted as ignored, and the breaker stays closed."""
    judged = []

    def harmless(error):
        judged.append(error)
        return error.args == ("harmless",)

    breaker = pybreaker.CircuitBreaker(fail_max=1, exclude=[KeyError, harmless], name="choosy")
    for error in (KeyError("k"), ValueError("harmless")):
        with pytest.raises(type(error)) as caught:
            breaker.call(_raiser(error))
        assert caught.value is error
    assert outcomes(watchkeep_capture, "choosy") == {"ignored": 2}
    assert status(watchkeep_capture, "choosy") == one_of("closed")
    assert len(judged) == 1  # the app's own function is asked as often as without us


def _raiser(error):
    def function():
        raise error

    return function


def test_threshold_and_next_probe(watchkeep_capture):
    """The threshold is a gauge; the next probe is a Unix time while open, else 0."""
    breaker = pybreaker.CircuitBreaker(fail_max=3, reset_timeout=30, name="gauged")
    assert watchkeep_capture.value(THRESHOLD, resilience_circuit_breaker_name="gauged") == 3
    assert watchkeep_capture.value(NEXT_PROBE, resilience_circuit_breaker_name="gauged") == 0
    times(3, breaker, fail)
    due = watchkeep_capture.value(NEXT_PROBE, resilience_circuit_breaker_name="gauged")
    assert due == pytest.approx(time.time() + 30, abs=2)


def test_series_are_there_before_the_first_call(watchkeep_capture):
    """A breaker that was only made shows its three states, and its counters at 0."""
    breaker = pybreaker.CircuitBreaker(name="fresh")
    assert status(watchkeep_capture, "fresh") == one_of("closed")
    assert transitions(watchkeep_capture, "fresh") == dict.fromkeys(CYCLE, 0)
    zeros = watchkeep_capture.points(CALLS, resilience_circuit_breaker_name="fresh")
    assert {point.attributes[names.RESILIENCE_CIRCUIT_BREAKER_OUTCOME] for point in zeros} == set(breakers.OUTCOMES)
    assert {point.value for point in zeros} == {0}
    assert breaker.current_state == "closed"


# -- ways to call --------------------------------------------------------------------------------------------


def test_a_decorated_function_is_seen(watchkeep_capture):
    """`@breaker` counts each call."""
    breaker = pybreaker.CircuitBreaker(name="decorator")

    @breaker
    def function(value):
        return value

    assert function(3) == 3
    assert outcomes(watchkeep_capture, "decorator") == {"success": 1}


def test_a_with_block_is_seen(watchkeep_capture):
    """`calling()` counts the block once, by how it ends; what it raises is the same object."""
    breaker = pybreaker.CircuitBreaker(fail_max=2, reset_timeout=60, name="block")
    with breaker.calling():
        pass
    error = BrokenError()
    with pytest.raises(BrokenError) as caught, breaker.calling():
        raise error
    assert caught.value is error
    with pytest.raises(pybreaker.CircuitBreakerError), breaker.calling():
        raise error
    with pytest.raises(pybreaker.CircuitBreakerError), breaker.calling():
        pytest.fail("the block of a rejected call must not run")
    assert outcomes(watchkeep_capture, "block") == {"success": 1, "failure": 2, "rejected": 1}
    assert [told(span)[2] for span in watchkeep_capture.spans("circuit_breaker block")] == ["failure", "rejected"]


def test_a_with_block_around_an_await(watchkeep_capture):
    """In asyncio, concurrent blocks are each one call, and leave nothing behind in the context."""
    breaker = pybreaker.CircuitBreaker(fail_max=9, name="awaiting")

    async def block(ok):
        with suppress(BrokenError), breaker.calling():
            await asyncio.sleep(0.01)
            if not ok:
                raise BrokenError
        return context.logical.get()

    async def all_of_them():
        return await asyncio.gather(*(block(ok) for ok in (True, False, True)))

    assert asyncio.run(all_of_them()) == [None, None, None]
    assert outcomes(watchkeep_capture, "awaiting") == {"success": 2, "failure": 1}


def test_a_block_left_in_another_context_leaves_nothing_that_counts(watchkeep_capture):
    """A block across a yield, entered in one context and left in another: over is over, and nothing piles up."""
    breaker = pybreaker.CircuitBreaker(name="across")

    def across():
        with breaker.calling():
            yield

    for _ in range(20):
        block = across()
        next(block)
        contextvars.Context().run(next, block, None)
    left = context.logical.get()
    context.logical.set(None)
    assert left.over
    assert left.before is None
    assert outcomes(watchkeep_capture, "across") == {"success": 20}


def test_a_generator_is_judged_at_its_end(watchkeep_capture):
    """A decorated generator is one call: counted when it is drained, fails or is closed; never read, not at all."""
    breaker = pybreaker.CircuitBreaker(fail_max=9, name="generator")

    @breaker
    def numbers(fails=False):
        yield 1
        if fails:
            raise BrokenError
        yield 2

    assert isinstance(numbers(), types.GeneratorType)
    drained = numbers()
    assert next(drained) == 1
    assert context.logical.get() is None
    assert outcomes(watchkeep_capture, "generator") == {}
    assert list(drained) == [2]
    assert outcomes(watchkeep_capture, "generator") == {"success": 1}
    with pytest.raises(BrokenError):
        list(numbers(fails=True))
    closed = numbers()
    next(closed)
    closed.close()  # pybreaker itself counts a failure
    assert breaker.fail_counter == 2
    assert outcomes(watchkeep_capture, "generator") == {"success": 1, "failure": 2}


def test_a_breaker_inside_itself_is_two_calls(watchkeep_capture):
    """A protected function that calls through the same breaker makes two calls; only the half-open step is one."""
    breaker = pybreaker.CircuitBreaker(name="nested")
    breaker.call(lambda: breaker.call(work))
    assert outcomes(watchkeep_capture, "nested") == {"success": 2}


@pytest.mark.parametrize("kind", ["coroutine", "generator"])
def test_an_async_def_under_a_breaker_is_a_misuse(watchkeep_capture, caplog, kind):
    """One event and one warning for the function; its calls are not counted as protected, and run as before."""
    breaker = pybreaker.CircuitBreaker(fail_max=1, name=f"misused-{kind}")

    @breaker
    async def coroutine():
        raise BrokenError

    @breaker
    async def generator():
        raise BrokenError
        yield

    async def use():
        for _ in range(3):
            with pytest.raises(BrokenError):
                await (coroutine() if kind == "coroutine" else anext(generator()))

    logger = logging.getLogger("watchkeep")
    logger.addHandler(caplog.handler)
    try:
        asyncio.run(use())
    finally:
        logger.removeHandler(caplog.handler)
    (event,) = watchkeep_capture.logs(MISUSE)
    assert event.severity_number == names.WARN
    assert event.attributes[names.CODE_FUNCTION_NAME].endswith(f"<locals>.{kind}")
    assert event.attributes[names.RESILIENCE_CIRCUIT_BREAKER_NAME] == breaker.name
    lines = {id(record): record.getMessage() for record in caplog.records if breaker.name in record.getMessage()}
    (line,) = lines.values()
    assert "calling()" in line
    assert outcomes(watchkeep_capture, breaker.name) == {}
    assert breaker.current_state == "closed"


@pytest.mark.skipif(importlib.util.find_spec("tornado") is None, reason="tornado is not installed: call_async needs it")
def test_tornado_calls_are_judged_when_their_future_is_done(watchkeep_capture):
    """`call_async`: success, failure, trip and rejection, each once."""
    from tornado import gen

    breaker = pybreaker.CircuitBreaker(fail_max=2, reset_timeout=60, name="tornado")

    @gen.coroutine
    def later(ok):
        yield gen.sleep(0.01)
        if not ok:
            raise BrokenError
        return "done"

    async def use():
        assert await breaker.call_async(later, True) == "done"
        for expected in (BrokenError, pybreaker.CircuitBreakerError, pybreaker.CircuitBreakerError):
            with pytest.raises(expected):
                await breaker.call_async(later, False)
        await asyncio.sleep(0)  # the futures' callbacks

    asyncio.run(use())
    assert outcomes(watchkeep_capture, "tornado") == {"success": 1, "failure": 2, "rejected": 1}
    assert [told(span) for span in watchkeep_capture.spans("circuit_breaker tornado")] == [
        ("closed", "open", "failure"),
        (None, "open", "rejected"),
    ]


# -- the lock ---------------------------------------------------------------------------------------------------


def test_the_wait_for_the_lock_stands_on_the_operation_that_waited(watchkeep_capture):
    """The library holds its lock while a call runs: the second caller's wait is measured, on its operation too."""
    breaker = pybreaker.CircuitBreaker(name="locked")
    started = threading.Event()

    def slow():
        started.set()
        time.sleep(0.2)

    first = threading.Thread(target=breaker.call, args=(slow,))
    first.start()
    assert started.wait(5)
    with enclosing() as record:
        breaker.call(work)
    first.join()
    waited = record.attributes[LOCK_KEY]
    assert waited == pytest.approx(0.2, abs=0.1)
    assert watchkeep_capture.value(PHASE_TIME, resilience_call_phase="breaker_lock") == pytest.approx(waited)
    (point,) = watchkeep_capture.points(LOCK_WAIT, resilience_circuit_breaker_name="locked")
    assert point.count == 2
    assert point.sum == pytest.approx(waited, abs=0.01)


def test_a_free_lock_is_no_wait(watchkeep_capture):
    """Without contention the histogram says next to nothing, and the operation has no such phase."""
    breaker = pybreaker.CircuitBreaker(name="free")
    times(1, breaker, work)
    with enclosing() as record:
        for _ in range(5):
            breaker.call(work)
    assert record.attributes.get(LOCK_KEY, 0) < 0.05  # microseconds; a busy machine may halt us in between
    (point,) = watchkeep_capture.points(LOCK_WAIT, resilience_circuit_breaker_name="free")
    assert point.count == 6
    assert point.sum < 0.05


# -- names ------------------------------------------------------------------------------------------------------


def test_a_breaker_without_a_name_has_that_of_its_global(watchkeep_capture):
    """The module and the global it is bound to, also where it was made before us."""
    at_module_level.call(work)
    name = f"{__name__}.at_module_level"
    assert outcomes(watchkeep_capture, name) == {"success": 1}
    assert status(watchkeep_capture, name) == one_of("closed")


def test_a_name_is_frozen_at_the_first_call(watchkeep_capture):
    """A name given before the first call is taken; one given later does not split the series."""
    breaker = pybreaker.CircuitBreaker(name="made")
    breaker.name = "renamed"
    breaker.call(work)
    breaker.name = "too late"
    breaker.call(work)
    assert outcomes(watchkeep_capture, "renamed") == {"success": 2}
    assert not status(watchkeep_capture, "made")
    assert not status(watchkeep_capture, "too late")


def test_a_breaker_bound_nowhere_is_named_by_where_it_was_made(watchkeep_capture):
    """Module, function and line of the app's code, also for a subclass; never an id."""

    class Mine(pybreaker.CircuitBreaker):
        def __init__(self):
            super().__init__(fail_max=7)

    breaker = Mine()
    breaker.call(work)
    (point,) = [
        point
        for point in watchkeep_capture.points(THRESHOLD)
        if point.value == 7 and "made_before" not in point.attributes[names.RESILIENCE_CIRCUIT_BREAKER_NAME]
    ]
    name = point.attributes[names.RESILIENCE_CIRCUIT_BREAKER_NAME]
    function = "test_a_breaker_bound_nowhere_is_named_by_where_it_was_made"
    line = sys._getframe().f_code.co_firstlineno
    assert name.startswith(f"{__name__}.{function}:")
    assert line < int(name.rpartition(":")[2]) < line + 12


def test_same_named_breakers_show_the_worst_state(watchkeep_capture):
    """One open among three of a name is shown as open; the smallest threshold holds; calls add up."""
    same = [pybreaker.CircuitBreaker(fail_max=fail_max, name="same") for fail_max in (4, 2, 3)]
    for breaker in same:
        breaker.call(work)
    same[1].open()
    assert status(watchkeep_capture, "same") == one_of("open")
    assert watchkeep_capture.value(THRESHOLD, resilience_circuit_breaker_name="same") == 2
    assert watchkeep_capture.value(NEXT_PROBE, resilience_circuit_breaker_name="same") > time.time()
    assert outcomes(watchkeep_capture, "same") == {"success": 3}
    same[1].half_open()
    assert status(watchkeep_capture, "same") == one_of("half_open")


# -- breakers of any age ------------------------------------------------------------------------------------------


def test_breakers_made_before_us_are_found(watchkeep_capture):
    """A closed and an open one, made before instrument(): series at once, time open from its own stamp."""
    watchkeep.uninstrument()
    old = pybreaker.CircuitBreaker(name="made_before")
    opened = pybreaker.CircuitBreaker(reset_timeout=0.05, name="made_before_open")
    opened.open()
    time.sleep(0.06)
    watchkeep.instrument()
    assert status(watchkeep_capture, "made_before") == one_of("closed")
    assert status(watchkeep_capture, "made_before_open") == one_of("open")
    due = watchkeep_capture.value(NEXT_PROBE, resilience_circuit_breaker_name="made_before_open")
    assert due == pytest.approx(time.time(), abs=1)
    opened.call(work)
    old.call(work)
    assert outcomes(watchkeep_capture, "made_before") == {"success": 1}
    (point,) = watchkeep_capture.points(OPEN_DURATION, resilience_circuit_breaker_name="made_before_open")
    assert point.count == 1
    assert 0.05 < point.sum < 1


def test_a_breaker_that_the_scan_missed_is_known_from_its_first_call(watchkeep_capture):
    """The registry may not have it (gc.freeze, for one): its first call brings it in."""
    breaker = pybreaker.CircuitBreaker(name="missed")
    breakers._known.pop(id(breaker))
    assert not status(watchkeep_capture, "missed")
    breaker.call(work)
    assert status(watchkeep_capture, "missed") == one_of("closed")


def test_breakers_are_not_kept_alive(watchkeep_capture):
    """A breaker that the app drops goes at once, with its series; so do its function and its exception."""

    class Heavy:
        def __call__(self):
            raise BrokenError

    breaker, heavy = pybreaker.CircuitBreaker(fail_max=9, name="dropped"), Heavy()
    times(1, breaker, heavy)
    gc.collect()
    gone = weakref.ref(breaker), weakref.ref(heavy)
    watchkeep_capture.metrics()
    known = len(breakers._known)
    gc.disable()
    try:
        del heavy
        key = id(breaker)
        breaker.__dict__.pop("_state")  # the library's own cycle
        del breaker
        assert [reference() for reference in gone] == [None, None]
    finally:
        gc.enable()
    assert key not in breakers._known
    assert len(breakers._known) == known - 1
    assert not status(watchkeep_capture, "dropped")


def test_uninstall_gives_back_the_same_objects():
    """Every seam is the very object that it was, and nothing is watched any more."""
    watchkeep.uninstrument()
    before = _seams()
    watchkeep.instrument()
    assert any(before[path] is not found for path, found in _seams().items())
    watchkeep.uninstrument()
    assert _seams() == before
    breaker = pybreaker.CircuitBreaker(name="unwatched")
    breaker.call(work)
    assert breakers.known(breaker) is None


def _seams():
    found = {}
    for target in INTEGRATION.targets:
        owner, _, name = target.path.partition(":")[2].partition(".")
        found[target.path] = vars(getattr(pybreaker, owner)).get(name)
    return found


# -- storages -------------------------------------------------------------------------------------------------------


class CountingStorage(pybreaker.CircuitBreakerStorage):
    """Shared by the breakers of several processes, like the one in redis: every look at it is a round trip."""

    def __init__(self):
        super().__init__("counting")
        self.values = {"state": "closed", "counter": 0, "success_counter": 0, "opened_at": None}
        self.trips = 0

    def increment_counter(self):
        self.trips += 1
        self.values["counter"] += 1

    def increment_success_counter(self):
        self.trips += 1
        self.values["success_counter"] += 1

    def reset_counter(self):
        self.trips += 1
        self.values["counter"] = 0

    def reset_success_counter(self):
        self.trips += 1
        self.values["success_counter"] = 0


def _round_trip(key):
    def read(self):
        self.trips += 1
        return self.values[key]

    def write(self, value):
        self.trips += 1
        self.values[key] = value

    return property(read, write)


for _key in ("state", "counter", "success_counter", "opened_at"):
    setattr(CountingStorage, _key, _round_trip(_key))
CountingStorage.__abstractmethods__ = frozenset()


def _through_a_remote_storage():
    storage = CountingStorage()
    breaker = pybreaker.CircuitBreaker(fail_max=2, reset_timeout=0, state_storage=storage, name="remote")
    times(2, breaker, fail)
    breaker.call(work)
    return storage, breaker


def test_we_make_no_round_trip_of_our_own(watchkeep_capture):
    """A storage is asked exactly as often as without us, through a whole cycle, and never by a collection."""
    storage, breaker = _through_a_remote_storage()
    watched = storage.trips
    assert status(watchkeep_capture, "remote") == one_of("closed")
    watchkeep_capture.metrics()
    assert storage.trips == watched
    events = watchkeep_capture.logs(STATE_CHANGE)
    assert len(events) == 3
    assert not any(names.RESILIENCE_CIRCUIT_BREAKER_FAILURE_COUNT in event.attributes for event in events)
    watchkeep.uninstrument()
    bare, _ = _through_a_remote_storage()
    assert bare.trips == watched
    assert breaker.current_state == "closed"


def test_a_change_made_elsewhere_is_seen_at_the_next_call(watchkeep_capture):
    """Another process opened it: our next call finds out, is rejected, and says both."""
    storage = CountingStorage()
    ours, theirs = (
        pybreaker.CircuitBreaker(reset_timeout=60, state_storage=storage, name=name) for name in ("ours", "theirs")
    )
    theirs.open()
    assert status(watchkeep_capture, "ours") == one_of("closed")
    times(1, ours, work)
    assert status(watchkeep_capture, "ours") == one_of("open")
    assert [told(span) for span in watchkeep_capture.spans("circuit_breaker ours")] == [
        ("closed", "open", "rejected"),
        (None, "open", "rejected"),
    ]


# -- the app is left alone ----------------------------------------------------------------------------


def test_listeners_and_counts_are_the_app_s_own(watchkeep_capture):
    """Listeners are called as often and in the same order as without us, and none is added."""

    class Diary(pybreaker.CircuitBreakerListener):
        def __init__(self):
            self.lines = []

        def before_call(self, cb, func, *args, **kwargs):
            self.lines.append("before_call")

        def failure(self, cb, exc):
            self.lines.append(f"failure {cb.fail_counter}")

        def success(self, cb):
            self.lines.append("success")

        def state_change(self, cb, old_state, new_state):
            self.lines.append(f"{old_state.name} -> {new_state.name}")

    def cycle():
        diary = Diary()
        breaker = pybreaker.CircuitBreaker(fail_max=2, reset_timeout=0, listeners=[diary], name="listened")
        times(2, breaker, fail)
        times(2, breaker, work)
        assert breaker.listeners == (diary,)
        return diary.lines

    watched = cycle()
    watchkeep.uninstrument()
    assert watched == cycle()


def test_a_listener_that_raises_is_the_app_s_own_fault(watchkeep_capture):
    """Its error comes out as it does without us; the function did not run, and nothing is called a success."""

    class Careless(pybreaker.CircuitBreakerListener):
        def before_call(self, cb, func, *args, **kwargs):
            raise LookupError("listener")

    breaker = pybreaker.CircuitBreaker(listeners=[Careless()], name="careless")
    with pytest.raises(LookupError):
        breaker.call(work)
    assert outcomes(watchkeep_capture, "careless") == {"ignored": 1}


# -- around real chats --------------------------------------------------------------------------------


def test_a_chat_inside_says_which_breaker_in_which_state(watchkeep_capture, chat):
    """Name and state stand on the chat, by call, block and generator; not on its tries, nor on a chat outside."""
    breaker = pybreaker.CircuitBreaker(fail_max=1, reset_timeout=0, success_threshold=5, name="llm")

    @breaker
    def stream():
        yield from chat(stream=True)

    breaker.call(chat)
    times(1, breaker, fail)
    with breaker.calling():
        chat()
    list(stream())
    chat()
    marks = [
        (
            span.attributes.get(names.RESILIENCE_CIRCUIT_BREAKER_NAME),
            span.attributes.get(names.RESILIENCE_CIRCUIT_BREAKER_STATE),
        )
        for span in watchkeep_capture.spans("chat")
    ]
    assert marks == [("llm", "closed"), ("llm", "half_open"), ("llm", "half_open"), (None, None)]
    assert not any(names.RESILIENCE_CIRCUIT_BREAKER_NAME in span.attributes for span in watchkeep_capture.spans("POST"))


def test_logical_calls_are_complete_when_the_breaker_rejects_everything(watchkeep_capture, llm_server, chat):
    """Two provider faults, one of them trips, then only rejections: five calls, each with its own blame."""
    llm_server.plan({"default": 500})
    breaker = pybreaker.CircuitBreaker(fail_max=2, reset_timeout=60, name="down")
    times(5, breaker, chat)
    assert logical_calls(watchkeep_capture) == {
        ("500", names.PROVIDER): 2,
        (names.CIRCUIT_OPEN, names.CLIENT_FAULT): 3,
    }
    models = {point.attributes[names.GEN_AI_REQUEST_MODEL] for point in watchkeep_capture.points(LOGICAL_CALLS)}
    assert models == {"gpt-4o-mini"}
    failures = watchkeep_capture.points(CALLS, error_type="500", resilience_circuit_breaker_outcome="failure")
    assert [point.value for point in failures] == [2]
    assert len(llm_server.log) == 2


def test_a_logical_call_is_counted_once_at_the_outermost(watchkeep_capture, llm_server, chat):
    """Retries above the SDK inside a breaker inside a breaker are one call, with the outcome of the whole."""
    llm_server.plan([500, "ok", "ok"])
    inner = pybreaker.CircuitBreaker(fail_max=9, name="inner")
    outer = pybreaker.CircuitBreaker(fail_max=9, name="outer")

    def twice():
        try:
            return inner.call(chat)
        except openai.InternalServerError:
            return inner.call(chat)

    outer.call(twice)
    chat()
    assert logical_calls(watchkeep_capture) == {(None, None): 2}
    assert outcomes(watchkeep_capture, "inner") == {"failure": 1, "success": 1}
    assert outcomes(watchkeep_capture, "outer") == {"success": 1}


def test_a_breaker_without_a_chat_is_no_logical_call(watchkeep_capture):
    """A breaker around a database has its own counters, but no part in `resilience.calls`."""
    breaker = pybreaker.CircuitBreaker(fail_max=1, name="database")
    breaker.call(work)
    times(2, breaker, fail)
    assert logical_calls(watchkeep_capture) == {}


def test_a_stream_that_outlives_its_breaker_counts_itself(watchkeep_capture, llm_server, chat):
    """The breaker lets go of a stream at once; the logical call is counted at the stream's end, as that was."""
    llm_server.plan(["ok", "cut"])
    breaker = pybreaker.CircuitBreaker(fail_max=9, name="streaming")
    stream = breaker.call(chat, stream=True)
    assert logical_calls(watchkeep_capture) == {}
    list(stream)
    assert logical_calls(watchkeep_capture) == {(None, None): 1}
    with pytest.raises(openai.APIConnectionError):
        list(breaker.call(chat, stream=True))
    cut = {key: value for key, value in logical_calls(watchkeep_capture).items() if key != (None, None)}
    assert [(origin, value) for (_, origin), value in cut.items()] == [(names.PROVIDER, 1)]
    assert outcomes(watchkeep_capture, "streaming") == {"success": 2}


def test_a_chat_and_a_stream_that_outlives_the_breaker_are_one_call(watchkeep_capture, chat):
    """A first chat is answered, a second one is streamed to the app: one logical call, counted when that ends."""
    breaker = pybreaker.CircuitBreaker(name="both")

    def look_and_stream():
        chat()
        return chat(stream=True)

    stream = breaker.call(look_and_stream)
    assert logical_calls(watchkeep_capture) == {}
    list(stream)
    assert logical_calls(watchkeep_capture) == {(None, None): 1}


def test_a_task_that_outlives_its_block_counts_itself(watchkeep_capture, llm_server):
    """A task inherits the block's context; each chat after the block's end is a call of its own, without marks."""
    breaker = pybreaker.CircuitBreaker(name="left")

    async def use():
        async with openai.AsyncOpenAI(base_url=llm_server.base_url, api_key="sk-test", max_retries=0) as client:

            async def later(event):
                await event.wait()
                for _ in range(2):
                    await client.chat.completions.create(
                        model="gpt-4o-mini", messages=[{"role": "user", "content": "hi"}]
                    )

            event = asyncio.Event()
            with breaker.calling():
                task = asyncio.create_task(later(event))
                await asyncio.sleep(0)
            event.set()
            await task

    asyncio.run(use())
    chats = watchkeep_capture.spans("chat")
    assert not any(names.RESILIENCE_CIRCUIT_BREAKER_NAME in span.attributes for span in chats)
    assert logical_calls(watchkeep_capture) == {(None, None): 2}


def test_a_chat_in_an_async_block_is_inside_it(watchkeep_capture, llm_server):
    """`with breaker.calling(): await …` with the async client: marked, folded into one call, blamed right."""
    llm_server.plan([429, "ok"])
    breaker = pybreaker.CircuitBreaker(fail_max=9, name="async")

    async def use():
        async with openai.AsyncOpenAI(base_url=llm_server.base_url, api_key="sk-test", max_retries=0) as client:
            for _ in range(2):
                with suppress(openai.RateLimitError), breaker.calling():
                    await client.chat.completions.create(
                        model="gpt-4o-mini", messages=[{"role": "user", "content": "hi"}]
                    )

    asyncio.run(use())
    chats = watchkeep_capture.spans("chat")
    assert [span.attributes[names.RESILIENCE_CIRCUIT_BREAKER_NAME] for span in chats] == ["async", "async"]
    assert logical_calls(watchkeep_capture) == {("429", names.PROVIDER): 1, (None, None): 1}


def test_the_exception_of_a_chat_is_the_same_object(watchkeep_capture, llm_server, chat):
    """What the SDK raised is what the app catches around the breaker."""
    llm_server.plan({"default": 400})
    raised = []

    def keep():
        try:
            return chat()
        except openai.BadRequestError as error:
            raised.append(error)
            raise

    breaker = pybreaker.CircuitBreaker(exclude=[openai.BadRequestError], name="identity")
    with pytest.raises(openai.BadRequestError) as caught:
        breaker.call(keep)
    assert caught.value is raised[0]
    assert logical_calls(watchkeep_capture) == {("400", names.CLIENT_FAULT): 1}
    assert outcomes(watchkeep_capture, "identity") == {"ignored": 1}


def test_spans_of_a_breaker_share_the_trace_of_what_is_around(watchkeep_capture, llm_server, chat):
    """Inside an operation of ours, the rejection and the chats are its children, with one correlation ID."""
    llm_server.plan({"default": 500})
    breaker = pybreaker.CircuitBreaker(fail_max=1, reset_timeout=60, name="traced")
    with watchkeep.correlation("run-7"), enclosing() as record:
        times(2, breaker, chat)
    spans = [*watchkeep_capture.spans("circuit_breaker traced"), *watchkeep_capture.spans("chat")]
    assert len(spans) == 3
    assert {span.parent_id for span in spans} == {record.span_id}
    everything = [*watchkeep_capture.spans(), *watchkeep_capture.logs(STATE_CHANGE)]
    assert {each.attributes[names.AGENT_RUNTIME_CORRELATION_ID] for each in everything} == {"run-7"}


def test_a_change_and_the_chat_that_caused_it_are_one_trace(watchkeep_capture, llm_server):
    """Without an operation around them, the breaker's span and its chat are two roots of one trace."""
    import openai

    llm_server.plan([{"status": 500}])
    client = openai.OpenAI(base_url=llm_server.base_url, api_key="sk", max_retries=0)
    breaker = pybreaker.CircuitBreaker(fail_max=1, name="one-trace")
    with pytest.raises(pybreaker.CircuitBreakerError):
        breaker.call(client.chat.completions.create, model="gpt-4o", messages=[{"role": "user", "content": "hi"}])
    (chat,), (change,) = watchkeep_capture.spans("chat"), watchkeep_capture.spans("circuit_breaker")
    assert chat.trace_id == change.trace_id
    assert chat.parent_id == change.parent_id == 0

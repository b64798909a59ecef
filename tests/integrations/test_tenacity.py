"""tenacity as an app uses it: every form, every end, with the app's own callbacks, around real chats."""

from __future__ import annotations

import asyncio
import gc
import logging
from dataclasses import replace
from functools import partial

import openai
import pybreaker
import pytest
import tenacity
from opentelemetry import context as otel_context
from opentelemetry import trace
from tenacity import AsyncRetrying, RetryError, Retrying, retry, stop_after_attempt, stop_after_delay, wait_fixed

import watchkeep
from support.retried import (
    DELAY,
    INPUT_TOKENS,
    RETRIES,
    Flaky,
    FlakyError,
    achatting,
    below,
    chatting,
    logical_calls,
    nothing,
    only,
    operations,
    scheduled,
    told,
    tries,
)
from watchkeep import guard, installer, names
from watchkeep.integrations.tenacity import INTEGRATION, SCOPE
from watchkeep.logical import here
from watchkeep.record import Record

QUICK = {"wait": wait_fixed(0.001), "stop": stop_after_attempt(3)}
HERE = __name__


@pytest.fixture
def chat(llm_server):
    with chatting(llm_server) as ask:
        yield ask


@pytest.fixture(autouse=True)
def left_as_it_was():
    """Nothing of ours is left standing in the app's context."""
    yield
    assert here() is None
    assert trace.get_current_span() is trace.INVALID_SPAN


# -- what the contract test runs --------------------------------------------------------------------------


def every_form(server):
    """Decorator, call and block, that pass, recover and give up, with statistics and callbacks."""
    diary = []
    kept = {
        "before": lambda state: diary.append(f"before {state.attempt_number}"),
        "after": lambda state: diary.append(f"after {state.attempt_number}"),
        "before_sleep": lambda state: diary.append(f"sleep {state.next_action.sleep} {state.outcome.failed}"),
        "sleep": lambda seconds: diary.append(f"slept {seconds}"),
        "wait": wait_fixed(0.001),
    }

    def seen(function, *args):
        try:
            diary.append(type(function(*args)).__name__)
        except Exception as error:
            diary.append(f"{type(error).__name__} {error.__class__.__mro__[1].__name__}")

    for failures in (0, 1, 5):
        function = Flaky(failures)
        decorated = retry(**kept, stop=stop_after_attempt(3))(lambda f=function: f())
        seen(decorated)
        diary.append(sorted(decorated.retry.statistics))
        seen(decorated.retry_with(stop=stop_after_attempt(1)))
        retrying = Retrying(**kept, stop=stop_after_attempt(2), reraise=True)
        seen(retrying, Flaky(failures))
        diary.append((retrying.statistics["attempt_number"], retrying.statistics["idle_for"]))
        flaky = Flaky(failures)

        def block(flaky=flaky):
            for attempt in Retrying(**kept, stop=stop_after_attempt(2)):
                with attempt:
                    return flaky()
            return "left"

        seen(block)
    return diary


def around_chats(server):
    """Chats that fail, recover and are refused, sync and async."""
    server.plan([500, "ok", {"status": 500, "times": 3}, 400])
    diary = []
    with chatting(server) as ask:
        asking = retry(**QUICK, retry=tenacity.retry_if_exception_type(openai.InternalServerError), reraise=True)(ask)
        for _ in range(3):
            try:
                diary.append(asking().choices[0].message.content)
            except openai.OpenAIError as error:
                diary.append(type(error).__name__)

    async def use(ask):
        async for attempt in AsyncRetrying(**QUICK):
            with attempt:
                diary.append((await ask()).choices[0].message.content)
        return diary

    server.plan([500, "ok"])
    return achatting(server, use)


def cancelled(server):
    """A wait that is cancelled."""

    async def use():
        @retry(wait=wait_fixed(5))
        async def failing():
            raise FlakyError

        task = asyncio.create_task(failing())
        await asyncio.sleep(0.01)
        task.cancel()
        await task

    return asyncio.run(use())


EXERCISES = (every_form, around_chats, cancelled)


# -- tries, waits and ends ----------------------------------------------------------------------------------


def test_each_try_is_a_chat_under_one_retry(watchkeep_capture, llm_server, chat):
    """500, 429, ok: three chats with their numbers under one span, two waits, one logical call that went well."""
    llm_server.plan([500, 429, "ok"])

    @retry(**QUICK)
    def ask():
        return chat()

    ask()
    span, policy = only(watchkeep_capture), f"{HERE}.{test_each_try_is_a_chat_under_one_retry.__name__}.<locals>.ask"
    assert told(span) == (policy, "succeeded_after_retry", None)
    assert span.attributes[names.RESILIENCE_RETRY_MAX_ATTEMPTS] == 3
    assert tries(below(watchkeep_capture, span)) == [(0, "500"), (1, "429"), (2, None)]
    assert scheduled(watchkeep_capture, policy) == [(1, "500", 0.001), (2, "429", 0.001)]
    assert operations(watchkeep_capture) == {(policy, "succeeded_after_retry"): (1, 3)}
    assert logical_calls(watchkeep_capture) == {(None, None): 1}
    retried = {
        (point.attributes[names.ERROR_TYPE], point.attributes[names.GEN_AI_REQUEST_MODEL]): point.value
        for point in watchkeep_capture.points(RETRIES, resilience_policy_name=policy)
    }
    assert retried == {("500", "gpt-4o-mini"): 1, ("429", "gpt-4o-mini"): 1}
    (delay,) = watchkeep_capture.points(DELAY, resilience_policy_name=policy)
    assert delay.count == 2
    assert 0.002 <= delay.sum < 1


def test_the_events_are_the_retry_s(watchkeep_capture, llm_server, chat):
    """An announced wait stands in the trace of the operation that waits, with its correlation ID."""
    llm_server.plan([500, "ok"])
    with watchkeep.correlation("run-9"):
        Retrying(**QUICK)(chat)
    span, (event,) = only(watchkeep_capture), watchkeep_capture.logs(names.EVENT_RETRY_SCHEDULED.name)
    assert (event.trace_id, event.span_id) == (span.trace_id, span.span_id)
    assert event.attributes[names.AGENT_RUNTIME_CORRELATION_ID] == "run-9"


def test_a_first_try_that_passes_is_a_retry_of_one(watchkeep_capture, chat):
    """With a chat inside, an operation that needs no retry is measured too: rates need the good ones."""
    Retrying(**QUICK)(chat)
    span = only(watchkeep_capture)
    assert told(span)[1] == "succeeded"
    assert tries(below(watchkeep_capture, span)) == [(0, None)]
    assert list(operations(watchkeep_capture).values()) == [(1, 1)]


def test_a_loop_that_passes_without_a_chat_leaves_no_trace(watchkeep_capture):
    """A database's loop that needs no retry is neither a span nor a measurement."""
    flaky = Flaky(0)
    assert Retrying(**QUICK)(flaky) is flaky.result
    for attempt in Retrying(**QUICK):
        with attempt:
            flaky()
    assert nothing(watchkeep_capture)


def test_a_loop_that_retries_without_a_chat_is_seen(watchkeep_capture):
    """A wait is a wait, whatever it was for; it is no logical call, and no retry of one."""
    flaky = Flaky(1)
    assert Retrying(**QUICK)(flaky) is flaky.result
    assert told(only(watchkeep_capture))[1] == "succeeded_after_retry"
    assert [event[:2] for event in scheduled(watchkeep_capture, "support.retried.Flaky")] == [(1, "FlakyError")]
    assert operations(watchkeep_capture) == {("support.retried.Flaky", "succeeded_after_retry"): (1, 2)}
    assert watchkeep_capture.value(DELAY) == 1
    assert watchkeep_capture.points(RETRIES) == []
    assert logical_calls(watchkeep_capture) == {}


@pytest.mark.parametrize("reraise", [True, False])
def test_giving_up_keeps_the_last_real_error(watchkeep_capture, llm_server, chat, reraise):
    """Exhausted: the provider's status and blame, not RetryError; one failed logical call."""
    llm_server.plan({"default": 503})
    with pytest.raises(openai.InternalServerError if reraise else RetryError):
        Retrying(**QUICK, reraise=reraise)(chat)
    span = only(watchkeep_capture)
    assert told(span)[1:] == ("exhausted", "503")
    assert span.attributes[names.RESILIENCE_FAULT_ORIGIN] == names.PROVIDER
    assert logical_calls(watchkeep_capture) == {("503", names.PROVIDER): 1}
    assert len(llm_server.log) == 3


@pytest.mark.parametrize("reraise", [True, False])
def test_an_error_that_is_not_retried_says_so(watchkeep_capture, llm_server, chat, reraise):
    """A bad request ends it at once."""
    llm_server.plan({"default": 400})
    policy = tenacity.retry_if_exception_type(openai.InternalServerError)
    with pytest.raises(openai.BadRequestError):
        Retrying(**QUICK, retry=policy, reraise=reraise)(chat)
    assert told(only(watchkeep_capture))[1:] == ("not_retryable", "400")
    assert logical_calls(watchkeep_capture) == {("400", names.CLIENT_FAULT): 1}


def test_an_error_of_the_app_after_a_good_chat_is_the_app_s(watchkeep_capture, llm_server, chat):
    """500, then an answer that the app cannot read: the operation fails with the app's error, not with the old 500."""
    llm_server.plan([500, "ok"])
    answers = []

    def read():
        answers.append(chat())
        raise LookupError

    policy = tenacity.retry_if_exception_type(openai.InternalServerError)
    with pytest.raises(LookupError):
        Retrying(**QUICK, retry=policy)(read)
    assert told(only(watchkeep_capture))[1:] == ("not_retryable", "LookupError")
    assert logical_calls(watchkeep_capture) == {("LookupError", names.CLIENT_FAULT): 1}


def test_a_result_that_is_refused_is_tried_again(watchkeep_capture, chat):
    """A policy on results: the waits have no error; giving up is exhausted, what tenacity raises is the error."""
    refused = tenacity.retry_if_result(lambda answer: True)
    with pytest.raises(RetryError):
        Retrying(**QUICK, retry=refused)(chat)
    span = only(watchkeep_capture)
    assert told(span)[1:] == ("exhausted", "RetryError")
    assert tries(below(watchkeep_capture, span)) == [(0, None), (1, None), (2, None)]
    assert [event[1] for event in scheduled(watchkeep_capture, told(span)[0])] == [names.OTHER] * 2


@pytest.mark.parametrize("failing", [True, False])
def test_a_callback_instead_of_an_error_is_still_exhausted(watchkeep_capture, llm_server, chat, failing):
    """`retry_error_callback` gives the app a result; the operation gave up all the same."""
    llm_server.plan({"default": 500 if failing else "ok"})
    policy = tenacity.retry_if_exception_type() | tenacity.retry_if_result(lambda answer: True)
    made = object()
    assert Retrying(**QUICK, retry=policy, retry_error_callback=lambda state: made)(chat) is made
    assert told(only(watchkeep_capture))[1:] == ("exhausted", "500" if failing else None)
    last = Retrying(**QUICK, retry=policy, retry_error_callback=lambda state: state.outcome)(chat)
    assert last.failed is failing


def test_a_callback_of_the_app_that_raises_is_the_app_s_error(watchkeep_capture):
    """Its error comes out as it does without us, and is no exhausted policy."""

    def careless(state):
        raise LookupError

    with pytest.raises(LookupError):
        Retrying(**QUICK, before_sleep=careless)(Flaky(1))
    assert nothing(watchkeep_capture)


@pytest.mark.parametrize(
    ("stop", "most"),
    [
        (stop_after_attempt(4), 4),
        (stop_after_attempt(4) | stop_after_delay(60), 4),
        (stop_after_attempt(4) & stop_after_attempt(6), 6),
        (stop_after_attempt(4) & stop_after_delay(0), None),
        (stop_after_delay(60), None),
        (lambda retry_state: False, None),
    ],
)
def test_the_most_attempts_are_told_where_the_policy_says(watchkeep_capture, stop, most):
    """Alone, with a time limit, or not at all."""
    Retrying(stop=stop, wait=wait_fixed(0))(Flaky(1))
    assert only(watchkeep_capture).attributes.get(names.RESILIENCE_RETRY_MAX_ATTEMPTS) == most


# -- forms ---------------------------------------------------------------------------------------------------


def in_a_block(ask):
    for attempt in Retrying(**QUICK):
        with attempt:
            answer = ask()
    return answer


def returned_from_a_block(ask):
    for attempt in Retrying(**QUICK):
        with attempt:
            return ask()
    return None


def broken_out_of(ask):
    for attempt in Retrying(**QUICK, retry=tenacity.retry_if_exception(lambda error: True)):
        with attempt:
            answer = ask()
            break
    return answer


def judged_after_a_block(ask):
    for attempt in Retrying(**QUICK, retry=tenacity.retry_if_exception_type() | tenacity.retry_if_result(is_none)):
        with attempt:
            answer = ask()
        if not attempt.retry_state.outcome.failed:
            attempt.retry_state.set_result(answer)
    return answer


def returned_although_it_may_be_judged(ask):
    for attempt in Retrying(**QUICK, retry=tenacity.retry_if_exception_type() | tenacity.retry_if_result(is_none)):
        with attempt:
            return ask()
    return None


def is_none(value):
    return value is None


BLOCKS = (
    in_a_block, returned_from_a_block, broken_out_of, judged_after_a_block, returned_although_it_may_be_judged
)  # fmt: skip


@pytest.mark.parametrize("use", BLOCKS, ids=lambda use: use.__name__)
def test_a_block_is_named_by_its_function_and_ends_with_it(watchkeep_capture, llm_server, chat, use):
    """However a block is left: two chats, one operation that went well, and what comes later is not inside."""
    llm_server.plan([500, "ok", "ok"])
    assert use(chat).choices
    watchkeep_capture.flush()
    chat()
    span = only(watchkeep_capture)
    assert told(span) == (f"{HERE}.{use.__name__}", "succeeded_after_retry", None)
    assert tries(below(watchkeep_capture, span)) == [(0, "500"), (1, None)]
    assert watchkeep_capture.spans("chat")[-1].parent_id == 0
    assert logical_calls(watchkeep_capture) == {(None, None): 2}


def test_a_result_set_after_the_block_may_be_refused(watchkeep_capture, chat):
    """The app judges what the block made: it is tried again, under the same span."""
    left = [None, None, "good"]
    for attempt in Retrying(**QUICK, retry=tenacity.retry_if_result(is_none)):
        with attempt:
            chat()
        attempt.retry_state.set_result(left.pop(0))
    span = only(watchkeep_capture)
    assert told(span)[1] == "succeeded_after_retry"
    assert tries(below(watchkeep_capture, span)) == [(0, None), (1, None), (2, None)]


def test_a_block_that_gives_up_is_exhausted(watchkeep_capture, llm_server, chat):
    """The error comes out of the loop."""
    llm_server.plan({"default": 500})
    with pytest.raises(RetryError) as caught:
        in_a_block(chat)
    assert isinstance(caught.value.__cause__, openai.InternalServerError)
    assert told(only(watchkeep_capture))[1:] == ("exhausted", "500")
    assert logical_calls(watchkeep_capture) == {("500", names.PROVIDER): 1}


def test_a_loop_that_the_app_named_has_that_name(watchkeep_capture):
    """`Retrying(name=…)`, which newer versions have."""
    try:
        retrying = Retrying(**QUICK, name="invoices")
    except TypeError:
        pytest.skip("this tenacity has no names")
    flaky = Flaky(1)
    for attempt in retrying:
        with attempt:
            flaky()
    assert told(only(watchkeep_capture))[0] == "invoices"


@pytest.mark.parametrize("asked", ["bound method", "partial", "object"])
def test_a_policy_is_named_by_what_it_calls(watchkeep_capture, asked):
    """The qualified name of a function or method, also inside a partial; else that of the type."""

    class Client:
        def __init__(self):
            self.flaky = Flaky(1)

        def fetch(self, *_):
            return self.flaky()

    client = Client()
    called, end = {
        "bound method": (client.fetch, "<locals>.Client.fetch"),
        "partial": (partial(partial(client.fetch, 1), 2), "<locals>.Client.fetch"),
        "object": (Flaky(1), "support.retried.Flaky"),
    }[asked]
    Retrying(**QUICK)(called)
    assert told(only(watchkeep_capture))[0].endswith(end)


async def adecorated(ask):
    @retry(**QUICK)
    async def asking():
        return await ask()

    return await asking()


async def acalled(ask):
    return await AsyncRetrying(**QUICK)(ask)


async def in_an_async_block(ask):
    async for attempt in AsyncRetrying(**QUICK):
        with attempt:
            answer = await ask()
    return answer


async def returned_from_an_async_block(ask):
    async for attempt in AsyncRetrying(**QUICK):
        with attempt:
            return await ask()
    return None


@pytest.mark.parametrize(
    "use",
    [adecorated, acalled, in_an_async_block, returned_from_an_async_block],
    ids=lambda use: use.__name__,
)
def test_the_async_forms_are_the_same(watchkeep_capture, llm_server, use):
    """Decorator, call and block: two chats under one span, one logical call."""
    llm_server.plan([500, "ok"])
    assert achatting(llm_server, use).choices
    span = only(watchkeep_capture)
    assert told(span)[1:] == ("succeeded_after_retry", None)
    assert tries(below(watchkeep_capture, span)) == [(0, "500"), (1, None)]
    assert logical_calls(watchkeep_capture) == {(None, None): 1}


def test_concurrent_operations_do_not_mix(watchkeep_capture, llm_server):
    """Fifty tasks through one decorated function: each chat under its own span, fifty calls."""
    llm_server.plan({"steps": [{"status": 500, "times": 50}], "default": "ok"})

    async def use(ask):
        @retry(wait=wait_fixed(0.001))
        async def asking():
            return await ask()

        return await asyncio.gather(*(asking() for _ in range(50)))

    assert len(achatting(llm_server, use)) == 50
    spans = watchkeep_capture.spans("retry ")
    assert len(spans) == 50
    assert len({span.trace_id for span in spans}) == 50
    chats = watchkeep_capture.spans("chat")
    assert len(chats) == len(llm_server.log)
    assert sum(len(below(watchkeep_capture, span)) for span in spans) == len(chats)
    assert logical_calls(watchkeep_capture) == {(None, None): 50}


def test_tornado_s_form_is_seen(watchkeep_capture, llm_server):
    """`@retry` on a tornado coroutine."""
    gen = pytest.importorskip("tornado.gen")
    if not hasattr(tenacity, "TornadoRetrying"):
        pytest.skip("tenacity came without tornado")
    llm_server.plan([500, "ok"])

    async def use(ask):
        @retry(**QUICK)
        @gen.coroutine
        def asking():
            return (yield ask())

        return await asking()

    achatting(llm_server, use)
    span = only(watchkeep_capture)
    assert told(span)[1] == "succeeded_after_retry"
    assert tries(below(watchkeep_capture, span)) == [(0, "500"), (1, None)]


def test_a_block_in_a_generator_stands_around_nothing(watchkeep_capture, llm_server, chat):
    """What is yielded is used outside: chats there are not inside the loop, whose retries are seen all the same."""
    llm_server.plan([500, "ok", "ok"])

    def items():
        for attempt in Retrying(**QUICK):
            with attempt:
                yield chat()

    for _ in items():
        chat()
    assert told(only(watchkeep_capture)) == (
        f"{HERE}.{test_a_block_in_a_generator_stands_around_nothing.__name__}.<locals>.items",
        "succeeded_after_retry",
        None,
    )
    assert {span.parent_id for span in watchkeep_capture.spans("chat")} == {0}


# -- what ends it from outside ---------------------------------------------------------------------------------


def test_a_cancelled_wait_is_cancelled(watchkeep_capture, llm_server):
    """The task is cancelled while it waits: one try, no retry counted, and it is nobody's fault but ours."""
    llm_server.plan({"default": 500})

    async def use(ask):
        task = asyncio.create_task(AsyncRetrying(wait=wait_fixed(30))(ask))
        for _ in range(500):
            if watchkeep_capture.logs(names.EVENT_RETRY_SCHEDULED.name):
                break
            await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    achatting(llm_server, use)
    assert told(only(watchkeep_capture))[1:] == ("cancelled", names.CANCELLED)
    assert list(operations(watchkeep_capture).values()) == [(1, 1)]
    assert watchkeep_capture.points(RETRIES) == []
    assert logical_calls(watchkeep_capture) == {(names.CANCELLED, names.CLIENT_FAULT): 1}


def test_a_cancelled_try_is_cancelled(watchkeep_capture, llm_server):
    """Cancelled while the model is being asked."""
    llm_server.plan([{"delay": 5}])

    async def use(ask):
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(AsyncRetrying(**QUICK)(ask), 0.2)

    achatting(llm_server, use)
    assert told(only(watchkeep_capture))[1:] == ("cancelled", names.CANCELLED)


def test_an_interrupted_wait_in_a_block_ends_when_the_loop_is_dropped(watchkeep_capture):
    """Ctrl-C in `sleep`: tenacity asks nobody, so the loop's own end tells."""

    def interrupted(seconds):
        raise KeyboardInterrupt

    def use():
        for attempt in Retrying(sleep=interrupted):
            with attempt:
                raise FlakyError

    with pytest.raises(KeyboardInterrupt):
        use()
    gc.collect()
    assert told(only(watchkeep_capture))[1:] == ("cancelled", names.CANCELLED)


# -- nested, and around other layers ------------------------------------------------------------------------------


def test_nested_retries_count_each_at_its_layer(watchkeep_capture, llm_server):
    """Loops in loops around an SDK that retries: one call, each layer's tries and retries, tokens once."""
    llm_server.plan([*[{"status": 500, "retry_after_ms": 1}] * 5, "ok"])
    with chatting(llm_server, max_retries=1) as ask:

        @retry(wait=wait_fixed(0), stop=stop_after_attempt(2), reraise=True)
        def inner():
            return ask()

        @retry(wait=wait_fixed(0), stop=stop_after_attempt(2), reraise=True)
        def outer():
            return inner()

        answer = outer()
    prefix = f"{HERE}.{test_nested_retries_count_each_at_its_layer.__name__}.<locals>."
    assert len(llm_server.log) == 6
    assert len(watchkeep_capture.spans("POST")) == 6
    assert operations(watchkeep_capture) == {
        (prefix + "outer", "succeeded_after_retry"): (1, 2),
        (prefix + "inner", "exhausted"): (1, 2),
        (prefix + "inner", "succeeded"): (1, 1),
    }
    retried = {
        policy: watchkeep_capture.value(RETRIES, resilience_policy_name=policy)
        for policy in ("openai", prefix + "inner", prefix + "outer")
    }
    assert retried == {"openai": 3, prefix + "inner": 1, prefix + "outer": 1}
    assert logical_calls(watchkeep_capture) == {(None, None): 1}
    assert watchkeep_capture.value(INPUT_TOKENS) == answer.usage.prompt_tokens
    (top,) = watchkeep_capture.spans(f"retry {prefix}outer")
    inners = below(watchkeep_capture, top, f"retry {prefix}inner")
    assert tries(inners) == [(0, "500"), (1, None)]
    assert [len(below(watchkeep_capture, span)) for span in inners] == [2, 1]


def test_a_breaker_inside_a_retry(watchkeep_capture, llm_server, chat):
    """A breaker in each try: one failed call, the rejection at its end, and a chat says try and breaker."""
    llm_server.plan({"default": 500})
    breaker = pybreaker.CircuitBreaker(fail_max=2, reset_timeout=60, name="llm")
    with pytest.raises(pybreaker.CircuitBreakerError):
        Retrying(**QUICK, reraise=True)(breaker.call, chat)
    span = only(watchkeep_capture)
    assert told(span)[1:] == ("exhausted", names.CIRCUIT_OPEN)
    chats = below(watchkeep_capture, span)
    assert tries(chats) == [(0, "500"), (1, "500")]
    assert {each.attributes[names.RESILIENCE_CIRCUIT_BREAKER_NAME] for each in chats} == {"llm"}
    assert names.RESILIENCE_CIRCUIT_BREAKER_NAME not in span.attributes
    assert len(below(watchkeep_capture, span, "circuit_breaker")) == 2
    assert logical_calls(watchkeep_capture) == {(names.CIRCUIT_OPEN, names.CLIENT_FAULT): 1}


def test_a_retry_inside_a_breaker(watchkeep_capture, llm_server, chat):
    """All tries in one call of the breaker: the breaker counts the call once, and stands on the retry's span."""
    llm_server.plan([500, "ok"])
    breaker = pybreaker.CircuitBreaker(name="llm")
    breaker.call(Retrying(**QUICK), chat)
    span = only(watchkeep_capture)
    assert span.attributes[names.RESILIENCE_CIRCUIT_BREAKER_NAME] == "llm"
    assert tries(below(watchkeep_capture, span)) == [(0, "500"), (1, None)]
    assert logical_calls(watchkeep_capture) == {(None, None): 1}


def test_a_stream_that_outlives_its_retry_counts_itself(watchkeep_capture, llm_server, chat):
    """The retry ends when it hands the stream over; the logical call is counted at the stream's end."""
    llm_server.plan([500, "ok"])
    stream = Retrying(**QUICK)(chat, stream=True)
    assert told(only(watchkeep_capture))[1] == "succeeded_after_retry"
    assert logical_calls(watchkeep_capture) == {}
    list(stream)
    assert logical_calls(watchkeep_capture) == {(None, None): 1}
    assert tries(below(watchkeep_capture, only(watchkeep_capture))) == [(0, "500"), (1, None)]


def test_a_task_that_a_try_leaves_behind_is_on_its_own(watchkeep_capture, llm_server):
    """A chat that begins after the loop is over is a call of its own, and hangs from no span that is never made."""

    async def use(ask):
        async def later():
            await asyncio.sleep(0.05)
            await ask()

        async def leaves():
            return asyncio.create_task(later())

        await (await AsyncRetrying(**QUICK)(leaves))

    achatting(llm_server, use)
    assert watchkeep_capture.spans("retry ") == []
    assert [span.parent_id for span in watchkeep_capture.spans("chat")] == [0]
    assert logical_calls(watchkeep_capture) == {(None, None): 1}


def test_inside_an_llm_call_it_is_the_sdk_s_own_loop(watchkeep_capture, llm_server):
    """An SDK that is built on tenacity: its waits are the call's back-off; no span, no policy above the SDK."""
    from watchkeep.integrations import openai as integration
    from watchkeep.llm import InferenceCall, enter, leave

    attributes = {names.GEN_AI_OPERATION_NAME: "chat", names.GEN_AI_PROVIDER_NAME: "openai"}
    call = InferenceCall(names.INFERENCE, integration.SCOPE, attributes, "sdk")
    call.open()
    token = enter(call)
    Retrying(wait=wait_fixed(0.02))(Flaky(1))
    leave(call, token)
    call.finish()
    assert watchkeep_capture.spans("retry ") == []
    assert [event[:1] for event in scheduled(watchkeep_capture, "sdk")] == [(1,)]
    (span,) = watchkeep_capture.spans("chat")
    assert span.attributes[names.PHASE_KEYS["backoff"]] >= 0.02
    assert operations(watchkeep_capture) == {}


# -- the app's own traces ---------------------------------------------------------------------------------------


def test_the_app_s_span_inside_a_try_hangs_from_the_retry(watchkeep_capture, llm_server, chat):
    """Retry > the app's span > chat, in the first try as in the second."""
    llm_server.plan([500, "ok"])
    tracer = trace.get_tracer("app")

    def ask():
        with tracer.start_as_current_span("asking"):
            return chat()

    Retrying(**QUICK)(ask)
    span = only(watchkeep_capture)
    asking = below(watchkeep_capture, span, "asking")
    assert len(asking) == 2
    assert [len(below(watchkeep_capture, each)) for each in asking] == [1, 1]


def test_attributes_for_the_current_span_land_where_they_did(watchkeep_capture):
    """What the app sets on its current span inside a try is on its own span, not on ours."""
    tracer = trace.get_tracer("app")
    flaky = Flaky(1)

    def work():
        trace.get_current_span().set_attribute("tier", "gold")
        trace.get_current_span().set_attributes({"seats": 3})
        return flaky()

    with tracer.start_as_current_span("request"):
        Retrying(**QUICK)(work)
    (request,), span = watchkeep_capture.spans("request"), only(watchkeep_capture)
    assert (request.attributes["tier"], request.attributes["seats"]) == ("gold", 3)
    assert "tier" not in span.attributes
    assert span.parent_id == request.span_id


def test_what_the_app_attaches_inside_a_try_stays(watchkeep_capture, chat):
    """A value that a try puts into OpenTelemetry's context is there afterwards, and our span is not."""

    def work():
        otel_context.attach(otel_context.set_value("app", "kept"))
        return chat()

    before = otel_context.get_current()
    try:
        Retrying(**QUICK)(work)
        assert otel_context.get_value("app") == "kept"
        assert trace.get_current_span() is trace.INVALID_SPAN
    finally:
        otel_context.attach(before)


def test_log_lines_of_a_try_make_no_span_of_it(watchkeep_capture, caplog):
    """A loop in which something is only logged stays unseen; in one that waits, lines are the retry's."""
    caplog.set_level(logging.INFO)
    flaky = Flaky(0)

    def work():
        logging.getLogger("app").info("trying")
        return flaky()

    Retrying(**QUICK)(work)
    assert nothing(watchkeep_capture)
    flaky.left, flaky.raised, flaky.calls = 1, [FlakyError()], 0
    Retrying(**QUICK)(work)
    lines = [log for log in watchkeep_capture.logs() if log.body == "trying"]
    assert [line.span_id for line in lines] == [0, 0, only(watchkeep_capture).span_id]


def test_operations_inside_are_its_children(watchkeep_capture):
    """A tool that runs inside a try hangs from the retry, with the number of the try."""

    def tool():
        record = Record(
            names.EXECUTE_TOOL, SCOPE, {names.GEN_AI_OPERATION_NAME: "execute_tool", names.GEN_AI_TOOL_NAME: "t"}
        )
        record.open()
        record.close()

    Retrying(**QUICK)(tool)
    assert tries(below(watchkeep_capture, only(watchkeep_capture), "execute_tool")) == [(0, None)]


# -- the app is left alone ------------------------------------------------------------------------------------


def test_results_exceptions_and_statistics_are_the_app_s(watchkeep_capture):
    """The same objects come out, and statistics are those of the bare run."""
    flaky = Flaky(2)
    retrying = Retrying(**QUICK)
    assert retrying(flaky) is flaky.result
    assert retrying.statistics["attempt_number"] == 3
    assert retrying.statistics["idle_for"] == pytest.approx(0.002)
    failing = Flaky(3)
    with pytest.raises(FlakyError) as caught:
        Retrying(**QUICK, reraise=True)(failing)
    assert caught.value is failing.raised[2]
    with pytest.raises(RetryError) as wrapped:
        Retrying(**QUICK)(Flaky(3))
    assert wrapped.value.last_attempt.attempt_number == 3


def test_a_loop_that_began_before_us_goes_on_alone(watchkeep_capture):
    """Put in place in the midst of a loop, we leave that loop alone."""
    flaky = Flaky(1)
    watchkeep.uninstrument()
    for attempt in Retrying(**QUICK):
        with attempt:
            watchkeep.instrument()
            flaky()
    assert nothing(watchkeep_capture)
    assert Retrying(**QUICK)(flaky) is flaky.result


@pytest.mark.parametrize("form", ["call", "block"])
def test_taken_out_in_the_midst_nothing_is_left(watchkeep_capture, form):
    """A loop that outlives us leaves nothing of ours behind, and the app gets its result."""
    flaky = Flaky(1)

    def work():
        watchkeep.uninstrument()
        return flaky()

    try:
        assert (Retrying(**QUICK)(work) if form == "call" else in_a_block(work)) is flaky.result
    finally:
        watchkeep.instrument()
    flaky.raised.clear()  # their tracebacks hold the loop
    gc.collect()


def test_a_policy_that_cannot_be_read_does_not_reach_the_app(watchkeep_capture, monkeypatch):
    """A stop whose numbers raise is a fault of ours: it is counted, and the app goes on."""
    monkeypatch.setattr(guard, "raising", False)
    flaky, before = Flaky(1), guard.faults
    stop = stop_after_attempt(3)
    retrying = Retrying(stop=tenacity.stop_any(stop), wait=wait_fixed(0))
    del stop.max_attempt_number
    stop.__class__ = type("stop_after_attempt", (tenacity.stop.stop_base,), {"__call__": lambda self, state: False})
    assert retrying(flaky) is flaky.result
    assert guard.faults > before


@pytest.mark.parametrize("gone", range(len(INTEGRATION.targets)), ids=lambda gone: INTEGRATION.targets[gone].path)
def test_a_seam_that_is_gone_is_one_line(watchkeep_capture, monkeypatch, capsys, gone):
    """A future version without one of the seams: one line of advice, and the app goes on, retried as ever."""
    watchkeep.uninstrument()
    targets = list(INTEGRATION.targets)
    targets[gone] = targets[gone]._replace(path=f"{targets[gone].path}_of_old")
    monkeypatch.setattr(guard, "_last_report", {})
    said = []
    monkeypatch.setattr(guard.logger(), "warning", lambda text, *args: said.append(text % args))
    try:
        installer.install_integration(replace(INTEGRATION, targets=tuple(targets)))
        assert [targets[gone].path in line for line in said] == [True]
        flaky = Flaky(1)
        assert in_a_block(flaky) is flaky.result
        flaky = Flaky(1)
        assert Retrying(**QUICK)(flaky) is flaky.result
    finally:
        installer.uninstall_all()
        watchkeep.instrument()

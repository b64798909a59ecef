"""backoff as an app uses it: on exceptions and on results, sync and async, with the app's own handlers."""

from __future__ import annotations

import asyncio
import inspect
import pickle

import backoff
import openai
import pytest

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
from watchkeep import names
from watchkeep.integrations.backoff import SCOPE
from watchkeep.logical import here

QUICK = {"interval": 0.001, "jitter": None}
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


def on_error(function, error=FlakyError, **settings):
    return backoff.on_exception(backoff.constant, error, **{**QUICK, **settings})(function)


def on_result(function, refused, **settings):
    return backoff.on_predicate(backoff.constant, refused, **{**QUICK, **settings})(function)


def calling(flaky):
    """A function, as a decorator wants one."""

    def function():
        return flaky()

    return function


def acalling(flaky):
    async def afunction():
        return flaky()

    return afunction


# -- what the contract test runs -------------------------------------------------------------------------


def every_form(server):
    """Both decorators, sync and async, that pass, recover, give up and are not retried, with handlers."""
    diary = []

    def seen(use, *handed):
        try:
            diary.append(type(use()).__name__)
        except Exception as error:
            diary.append(f"{type(error).__name__} {error}")

    def told_of(kind):
        return lambda details: diary.append(
            (kind, details["tries"], details.get("wait"), details["args"], details["target"].__name__)
        )

    handlers = {f"on_{kind}": told_of(kind) for kind in ("success", "backoff", "giveup")}
    for failures in (0, 1, 5):
        for error in (FlakyError, LookupError):
            seen(on_error(calling(Flaky(failures)), error, max_tries=3, **handlers))
            function = on_error(acalling(Flaky(failures)), error, max_tries=3, **handlers)
            seen(lambda function=function: asyncio.run(function()))
        seen(on_error(calling(Flaky(failures)), max_tries=3, giveup=lambda error: True, **handlers))
    left = [1, 2, 3, 4]
    seen(on_result(lambda: left.pop(0), lambda value: value < 3, **handlers))
    seen(on_result(lambda: None, lambda value: value is None, max_tries=2, **handlers))
    return diary


def around_chats(server):
    """Chats that fail, recover and are refused, sync and async."""
    server.plan([500, "ok", {"status": 500, "times": 3}, 400])
    diary = []
    with chatting(server) as ask:
        asking = on_error(ask, openai.InternalServerError, max_tries=3)
        for _ in range(3):
            try:
                diary.append(asking().choices[0].message.content)
            except openai.OpenAIError as error:
                diary.append(type(error).__name__)
    server.plan([500, "ok"])

    async def use(ask):
        diary.append((await on_error(ask, openai.OpenAIError)()).choices[0].message.content)
        return diary

    return achatting(server, use)


def cancelled(server):
    """A wait that is cancelled."""

    async def use():
        task = asyncio.create_task(on_error(acalling(Flaky(9)), interval=5)())
        await asyncio.sleep(0.01)
        task.cancel()
        await task

    return asyncio.run(use())


EXERCISES = (every_form, around_chats, cancelled)


# -- tries, waits and ends -------------------------------------------------------------------------------------


def test_each_try_is_a_chat_under_one_retry(watchkeep_capture, llm_server, chat):
    """500, 429, ok: three chats with their numbers under one span, two waits, one logical call that went well."""
    llm_server.plan([500, 429, "ok"])

    @backoff.on_exception(backoff.constant, openai.OpenAIError, max_tries=4, **QUICK)
    def ask():
        return chat()

    ask()
    span, policy = only(watchkeep_capture), f"{HERE}.{test_each_try_is_a_chat_under_one_retry.__name__}.<locals>.ask"
    assert told(span) == (policy, "succeeded_after_retry", None)
    assert span.scope == SCOPE
    assert span.attributes[names.RESILIENCE_RETRY_MAX_ATTEMPTS] == 4
    assert tries(below(watchkeep_capture, span)) == [(0, "500"), (1, "429"), (2, None)]
    assert scheduled(watchkeep_capture, policy) == [(1, "500", 0.001), (2, "429", 0.001)]
    assert operations(watchkeep_capture) == {(policy, "succeeded_after_retry"): (1, 3)}
    assert watchkeep_capture.value(RETRIES, resilience_policy_name=policy) == 2
    (delay,) = watchkeep_capture.points(DELAY, resilience_policy_name=policy)
    assert (delay.count, delay.sum) == (2, pytest.approx(0.002))
    assert logical_calls(watchkeep_capture) == {(None, None): 1}


def test_an_async_function_is_the_same(watchkeep_capture, llm_server):
    """Awaited tries are under one span, in concurrent tasks as well."""
    llm_server.plan({"steps": [{"status": 500, "times": 10}], "default": "ok"})

    async def use(ask):
        asking = on_error(ask, openai.OpenAIError)
        return await asyncio.gather(*(asking() for _ in range(10)))

    achatting(llm_server, use)
    spans = watchkeep_capture.spans("retry ")
    assert len(spans) == 10
    assert sum(len(below(watchkeep_capture, span)) for span in spans) == len(llm_server.log) == 20
    assert logical_calls(watchkeep_capture) == {(None, None): 10}


def test_a_result_that_is_refused_is_tried_again(watchkeep_capture, chat):
    """`on_predicate`: waits without an error, and a last result that the app gets when it gives up."""
    answers = []

    def ask():
        answers.append(chat())
        return answers[-1]

    assert on_result(ask, lambda answer: True, max_tries=3)() is answers[2]
    span = only(watchkeep_capture)
    assert told(span)[1:] == ("exhausted", None)
    assert tries(below(watchkeep_capture, span)) == [(0, None), (1, None), (2, None)]
    assert [event[1] for event in scheduled(watchkeep_capture, told(span)[0])] == [names.OTHER] * 2
    assert logical_calls(watchkeep_capture) == {(None, None): 1}


@pytest.mark.parametrize("form", [calling, acalling])
@pytest.mark.parametrize(
    ("settings", "result"),
    [
        ({"max_tries": 2}, "exhausted"),
        ({"max_tries": lambda: 2}, "exhausted"),
        ({"max_time": 0}, "exhausted"),
        ({"max_tries": 2, "giveup": lambda error: False}, "exhausted"),
        ({"max_tries": 9, "giveup": lambda error: True}, "not_retryable"),
    ],
    ids=["tries", "tries by a function", "time", "tries, with giveup", "giveup"],
)
def test_why_it_gave_up(watchkeep_capture, form, settings, result):
    """For want of tries or time it is exhausted; where the app said so, not retryable; the error is the app's own."""
    flaky = Flaky(9)
    function = on_error(form(flaky), **settings)
    with pytest.raises(FlakyError) as caught:
        asyncio.run(function()) if form is acalling else function()
    assert caught.value is flaky.raised[flaky.calls - 1]
    if flaky.calls == 1:  # nothing was retried, and no model was asked
        assert nothing(watchkeep_capture)
    else:
        assert told(only(watchkeep_capture))[1:] == (result, "FlakyError")


def test_why_it_gave_up_around_chats(watchkeep_capture, llm_server, chat):
    """`giveup` on the first try is not retryable; another error than those expected neither."""
    llm_server.plan({"default": 503})
    for function in (
        on_error(chat, openai.OpenAIError, giveup=lambda error: True),
        on_error(chat, openai.BadRequestError),
        on_error(chat, openai.OpenAIError, max_time=0),
    ):
        with pytest.raises(openai.InternalServerError):
            function()
    ends = [told(span)[1:] for span in watchkeep_capture.spans("retry ")]
    assert ends == [("not_retryable", "503"), ("not_retryable", "503"), ("exhausted", "503")]
    assert logical_calls(watchkeep_capture) == {("503", names.PROVIDER): 3}


def test_giving_up_without_an_error_is_still_exhausted(watchkeep_capture, llm_server, chat):
    """`raise_on_giveup=False`, which newer versions have: the app gets None."""
    if "raise_on_giveup" not in inspect.signature(backoff.on_exception).parameters:
        pytest.skip("this backoff always raises")
    llm_server.plan({"default": 500})
    assert on_error(chat, openai.OpenAIError, max_tries=2, raise_on_giveup=False)() is None
    assert told(only(watchkeep_capture))[1] == "exhausted"


def test_a_chat_in_the_app_s_handler_of_the_error_is_not_inside(watchkeep_capture, llm_server, chat):
    """The fallback that an app asks when a retry has failed is a call of its own."""
    llm_server.plan([400, "ok"])
    try:
        on_error(chat, openai.InternalServerError)()
    except openai.BadRequestError:
        chat()
    span = only(watchkeep_capture)
    assert told(span)[1:] == ("not_retryable", "400")
    assert len(below(watchkeep_capture, span)) == 1
    assert logical_calls(watchkeep_capture) == {("400", names.CLIENT_FAULT): 1, (None, None): 1}


def test_a_loop_that_passes_without_a_chat_leaves_no_trace(watchkeep_capture):
    """Nothing was retried and no model was asked."""
    flaky = Flaky(0)
    assert on_error(calling(flaky))() is flaky.result
    assert nothing(watchkeep_capture)


def test_a_cancelled_wait_is_cancelled(watchkeep_capture, llm_server):
    """One try was made; the one that was waited for never began."""
    llm_server.plan({"default": 500})

    async def use(ask):
        task = asyncio.create_task(on_error(ask, openai.OpenAIError, interval=30)())
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


def test_nested_retries_count_each_at_its_layer(watchkeep_capture, llm_server):
    """Two decorators around an SDK that retries: one call, each layer's tries, tokens once."""
    llm_server.plan([*[{"status": 500, "retry_after_ms": 1}] * 5, "ok"])
    with chatting(llm_server, max_retries=1) as ask:

        @backoff.on_exception(backoff.constant, openai.OpenAIError, max_tries=2, **QUICK)
        @backoff.on_exception(backoff.constant, openai.OpenAIError, max_tries=2, **QUICK)
        def twice():
            return ask()

        answer = twice()
    policy = f"{HERE}.{test_nested_retries_count_each_at_its_layer.__name__}.<locals>.twice"
    assert operations(watchkeep_capture) == {
        (policy, "exhausted"): (1, 2),
        (policy, "succeeded"): (1, 1),
        (policy, "succeeded_after_retry"): (1, 2),
    }
    assert len(watchkeep_capture.spans("POST")) == 6
    assert watchkeep_capture.value(RETRIES, resilience_policy_name="openai") == 3
    assert watchkeep_capture.value(RETRIES, resilience_policy_name=policy) == 2
    assert logical_calls(watchkeep_capture) == {(None, None): 1}
    assert watchkeep_capture.value(INPUT_TOKENS) == answer.usage.prompt_tokens


# -- the app is left alone ------------------------------------------------------------------------------------------


@on_error
def pickled():
    return "result"


def test_a_decorated_function_looks_as_without_us(watchkeep_capture):
    """Its name, signature, kind and what it wraps are those that backoff gives it."""

    def plain(a, b=1):
        """Say something."""

    async def coroutine(a):
        pass

    function = on_error(plain)
    assert function.__wrapped__ is plain
    assert inspect.signature(function) == inspect.signature(plain)
    assert (function.__name__, function.__doc__, function.__module__) == ("plain", "Say something.", HERE)
    assert inspect.iscoroutinefunction(on_error(coroutine))
    assert not inspect.iscoroutinefunction(function)
    assert pickle.loads(pickle.dumps(pickled)) is pickled


def test_handlers_get_the_app_s_own_objects(watchkeep_capture):
    """The target, its arguments and the error in a handler's details are the app's."""
    seen, flaky, argument = [], Flaky(1), object()

    def target(given):
        return flaky()

    on_error(target, on_backoff=seen.append)(argument)
    assert seen[0]["target"] is target
    assert seen[0]["args"][0] is argument


def test_decorated_while_watched_it_passes_once_we_are_gone(watchkeep_capture):
    """Taken out, we leave a function behind that does nothing of ours."""
    flaky = Flaky(1)
    function = on_error(calling(flaky))
    watchkeep.uninstrument()
    assert function() is flaky.result
    assert nothing(watchkeep_capture)

"""stamina as an app uses it: its loops are tenacity's, seen once, by stamina's names."""

from __future__ import annotations

import asyncio
import inspect

import openai
import pytest
import stamina

from support.retried import (
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
from watchkeep import names, patching
from watchkeep.integrations.stamina import SCOPE
from watchkeep.logical import here

QUICK = {"wait_initial": 0.001, "wait_max": 0.002, "wait_jitter": 0, "timeout": None}
HERE = __name__


@pytest.fixture
def chat(llm_server):
    with chatting(llm_server) as ask:
        yield ask


def every_form(server):
    """Decorated functions and blocks, sync and async, that pass, recover, give up and are not retried."""
    seen = []

    def tried(flaky, on):
        @stamina.retry(on=on, attempts=3, **QUICK)
        def function():
            return flaky()

        @stamina.retry(on=on, attempts=3, **QUICK)
        async def afunction():
            return flaky()

        def block():
            for attempt in stamina.retry_context(on=on, attempts=3, **QUICK):
                with attempt:
                    return flaky()
            return None

        for use in (function, lambda: asyncio.run(afunction()), block):
            try:
                seen.append(use() is flaky.result)
            except FlakyError as error:
                seen.append(str(error))
        seen.append(flaky.calls)

    for failures in (0, 1, 7):
        for on in (FlakyError, LookupError):
            tried(Flaky(failures), on)
    return seen


def inactive(server):
    """Switched off: one attempt."""
    stamina.set_active(False)
    try:
        stamina.retry(on=FlakyError, attempts=3, **QUICK)(Flaky(1))()
    finally:
        stamina.set_active(True)


EXERCISES = (every_form, inactive)


def test_each_try_is_a_chat_under_one_retry(watchkeep_capture, llm_server, chat):
    """One layer, not two: a single span with stamina's name and scope, its tries, waits and end."""
    llm_server.plan([500, 429, "ok"])

    @stamina.retry(on=openai.OpenAIError, attempts=5, **QUICK)
    def ask():
        return chat()

    ask()
    span, policy = only(watchkeep_capture), f"{HERE}.{test_each_try_is_a_chat_under_one_retry.__name__}.<locals>.ask"
    assert told(span) == (policy, "succeeded_after_retry", None)
    assert span.scope == SCOPE
    assert span.attributes[names.RESILIENCE_RETRY_MAX_ATTEMPTS] == 5
    assert tries(below(watchkeep_capture, span)) == [(0, "500"), (1, "429"), (2, None)]
    assert scheduled(watchkeep_capture, policy) == [(1, "500", 0.001), (2, "429", 0.002)]
    assert operations(watchkeep_capture) == {(policy, "succeeded_after_retry"): (1, 3)}
    assert logical_calls(watchkeep_capture) == {(None, None): 1}


def test_an_async_function_is_the_same(watchkeep_capture, llm_server):
    """Awaited tries are under one span."""
    llm_server.plan([500, "ok"])

    async def use(ask):
        @stamina.retry(on=openai.OpenAIError, **QUICK)
        async def asking():
            return await ask()

        return await asking()

    achatting(llm_server, use)
    span = only(watchkeep_capture)
    assert told(span)[0].endswith("use.<locals>.asking")
    assert tries(below(watchkeep_capture, span)) == [(0, "500"), (1, None)]
    assert logical_calls(watchkeep_capture) == {(None, None): 1}


def test_a_function_that_was_decorated_before_is_seen(watchkeep_capture, llm_server, chat):
    """What was decorated when nobody watched is watched like any other."""
    llm_server.plan([500, "ok"])
    assert made_before(chat).choices
    assert told(only(watchkeep_capture))[0] == f"{HERE}.made_before"


@stamina.retry(on=openai.OpenAIError, **QUICK)
def made_before(ask):
    return ask()


@stamina.retry(on=FlakyError, **QUICK)
def made_to_fail(flaky):
    return flaky()


def blocked(chat):
    for attempt in stamina.retry_context(on=openai.OpenAIError, **QUICK):
        with attempt:
            return chat()
    return None


def test_a_block_is_named_by_its_function(watchkeep_capture, llm_server, chat):
    """A block has no name of its own; what comes after it is not inside."""
    llm_server.plan([500, "ok", "ok"])
    blocked(chat)
    assert here() is None
    chat()
    span = only(watchkeep_capture)
    assert told(span) == (f"{HERE}.blocked", "succeeded_after_retry", None)
    assert tries(below(watchkeep_capture, span)) == [(0, "500"), (1, None)]


def test_a_caller_is_named_by_who_uses_it(watchkeep_capture, llm_server, chat):
    """`RetryingCaller`, which newer versions have."""
    if not hasattr(stamina, "RetryingCaller"):
        pytest.skip("this stamina has no callers")
    llm_server.plan([500, "ok"])
    stamina.RetryingCaller(**QUICK)(openai.OpenAIError, chat)
    assert told(only(watchkeep_capture))[0] == f"{HERE}.{test_a_caller_is_named_by_who_uses_it.__name__}"


def test_a_retried_generator_stands_around_nothing(watchkeep_capture, llm_server, chat):
    """What a generator function yields is used outside: chats there are not inside the loop."""
    llm_server.plan([500, "ok", "ok"])

    @stamina.retry(on=openai.OpenAIError, **QUICK)
    def items():
        yield chat()

    if not inspect.isgeneratorfunction(items):
        pytest.skip("this stamina retries no generators")
    for _ in items():
        chat()
    assert told(only(watchkeep_capture))[0].endswith("<locals>.items")
    assert {span.parent_id for span in watchkeep_capture.spans("chat")} == {0}


@pytest.mark.parametrize(("error", "result"), [(FlakyError, "exhausted"), (LookupError, "not_retryable")])
def test_how_it_ends(watchkeep_capture, error, result):
    """The app's own exception comes out; exhausted where it was expected, else not retryable."""
    flaky = Flaky(3, error)
    flaky.raised[0] = FlakyError("first")
    with pytest.raises(error) as caught:
        stamina.retry(on=FlakyError, attempts=3, **QUICK)(flaky)()
    assert caught.value is flaky.raised[2 if error is FlakyError else 1]
    assert told(only(watchkeep_capture))[1:] == (result, error.__name__)


def test_a_loop_that_passes_without_a_chat_leaves_no_trace(watchkeep_capture):
    """Nothing was retried and no model was asked."""
    flaky = Flaky(0)
    assert stamina.retry(on=FlakyError, **QUICK)(flaky)() is flaky.result
    assert nothing(watchkeep_capture)


def test_the_app_s_hooks_are_called_as_without_us(watchkeep_capture):
    """Hooks get the details that stamina makes, and none of ours is among them."""
    seen = []
    before = stamina.instrumentation.get_on_retry_hooks()
    stamina.instrumentation.set_on_retry_hooks([seen.append])
    try:
        made_to_fail(Flaky(1))
        assert len(stamina.instrumentation.get_on_retry_hooks()) == 1
    finally:
        stamina.instrumentation.set_on_retry_hooks(before)
    assert [(details.retry_num, details.wait_for, details.name) for details in seen] == [
        (1, 0.001, f"{HERE}.made_to_fail")
    ]


def test_without_its_seam_the_loop_is_seen_by_its_place(watchkeep_capture, llm_server, chat, monkeypatch):
    """A future version that names its loops elsewhere: tenacity's integration still sees them."""
    import stamina._core

    monkeypatch.setattr(stamina._core, "_make_before_sleep", inspect.unwrap(stamina._core._make_before_sleep))
    assert not patching.is_ours(stamina._core._make_before_sleep)
    llm_server.plan([500, "ok"])
    made_before(chat)
    span = only(watchkeep_capture)
    assert told(span)[0] == f"{HERE}.{test_without_its_seam_the_loop_is_seen_by_its_place.__name__}"
    assert tries(below(watchkeep_capture, span)) == [(0, "500"), (1, None)]

"""The correlation ID: one per process, per request where said, through threads, tasks and executors."""

import asyncio
import contextvars
import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import openai
import pytest
from opentelemetry import baggage
from opentelemetry import context as otel_context

import watchkeep
from watchkeep import context, names

KEY = names.AGENT_RUNTIME_CORRELATION_ID
MESSAGES = [{"role": "user", "content": "hi"}]
HOSTILE = ("", "a b", "x\r\nX-Evil: 1", "\udc80", "a" * 129, "ü", "a\x00", 7, None)


@pytest.fixture(autouse=True)
def fresh():
    """Every test begins in a context without an ID of its own."""
    yield
    context._correlation.set(None)
    context.set_source(None)


def ask(server):
    client = openai.OpenAI(base_url=server.base_url, api_key="sk")
    client.chat.completions.create(model="gpt-4o", messages=MESSAGES)


def ids(capture):
    return {span.attributes[KEY] for span in capture.spans()}


def test_without_a_word_it_is_the_process_s(watchkeep_capture, llm_server):
    """Every span of a process that says nothing carries one and the same ID."""
    ask(llm_server)
    ask(llm_server)
    assert ids(watchkeep_capture) == {context.process_correlation_id()}


def test_a_request_sets_its_own(watchkeep_capture, llm_server):
    """What is set holds for every span made in this context, and no longer than its block."""
    with watchkeep.correlation("request-1") as said:
        assert said == "request-1"
        ask(llm_server)
    assert ids(watchkeep_capture) == {"request-1"}
    assert watchkeep.correlation_id() == context.process_correlation_id()


@pytest.mark.parametrize("value", HOSTILE)
def test_what_could_be_injected_is_not_taken(value):
    """Line ends, spaces, odd characters and lengths are refused with a line, and the ID stays."""
    watchkeep.set_correlation_id("before")
    assert watchkeep.set_correlation_id(value) is None
    assert watchkeep.correlation_id() == "before"


def test_tasks_and_executors_carry_it(watchkeep_capture, llm_server):
    """Each task has its own ID; a thread of an executor that is given the context has its caller's."""

    async def one(name):
        watchkeep.set_correlation_id(name)
        client = openai.AsyncOpenAI(base_url=llm_server.base_url, api_key="sk")
        await client.chat.completions.create(model="gpt-4o", messages=MESSAGES)
        await asyncio.to_thread(ask, llm_server)

    async def main():
        await asyncio.gather(one("task-1"), one("task-2"))

    asyncio.run(main())
    chats = [span.attributes[KEY] for span in watchkeep_capture.spans("chat")]
    assert sorted(chats) == ["task-1", "task-1", "task-2", "task-2"]


def test_a_stream_keeps_the_id_it_began_with(watchkeep_capture, llm_server):
    """A stream that is read elsewhere belongs to the request that asked for it."""
    client = openai.OpenAI(base_url=llm_server.base_url, api_key="sk")
    with watchkeep.correlation("asked"):
        stream = client.chat.completions.create(model="gpt-4o", messages=MESSAGES, stream=True)
    reader = threading.Thread(target=lambda: list(stream))
    reader.start()
    reader.join()
    assert ids(watchkeep_capture) == {"asked"}


def test_baggage_says_it_where_nothing_else_does():
    """A correlation ID that came in as baggage holds."""
    token = otel_context.attach(baggage.set_baggage(context.BAGGAGE_KEY, "from-upstream"))
    try:
        assert watchkeep.correlation_id() == "from-upstream"
    finally:
        otel_context.detach(token)


def test_the_app_s_own_variable_says_it():
    """A ContextVar of the app's is read, and a hostile value in it is not taken."""
    own = contextvars.ContextVar("request_id", default="own-1")
    context.set_source(own.get)
    assert watchkeep.correlation_id() == "own-1"
    own.set("bad\r\nvalue")
    assert watchkeep.correlation_id() == context.process_correlation_id()


def test_session_and_conversation_stand_on_spans_and_not_on_labels(watchkeep_capture, llm_server):
    """What the app says of session and conversation goes along; the user's id only where the setting is on."""
    with ThreadPoolExecutor(1) as pool:
        run = contextvars.copy_context().run

        def work():
            watchkeep.set_session("session-1", "conversation-1", "user-1")
            ask(llm_server)

        pool.submit(run, work).result()
    (chat,) = watchkeep_capture.spans("chat")
    assert chat.attributes[names.SESSION_ID] == "session-1"
    assert chat.attributes[names.GEN_AI_CONVERSATION_ID] == "conversation-1"
    assert "user-1" not in repr(watchkeep_capture.spans())
    assert "session-1" not in repr(watchkeep_capture.metrics())


def test_a_child_process_has_its_parent_s_id():
    """The ID goes down to children by the environment that `watchkeep run` sets."""
    code = "from watchkeep import context; print(context.process_correlation_id())"
    environment = {**os.environ, context.ENVIRONMENT_KEY: "run-7"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == "run-7\n"


def test_the_settings_name_the_app_s_variable():
    """`WATCHKEEP_CORRELATION_SOURCE` is enough: no code of the app changes."""
    code = (
        "import contextvars, sys, types\n"
        "own = sys.modules['own'] = types.ModuleType('own')\n"
        "own.request_id = contextvars.ContextVar('request_id'); own.request_id.set('from-the-app')\n"
        "import watchkeep, openai; watchkeep.instrument(); print(watchkeep.correlation_id())"
    )
    environment = {**os.environ, "WATCHKEEP_CORRELATION_SOURCE": "own:request_id"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == "from-the-app\n", done.stderr

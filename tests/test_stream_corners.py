"""Ends of a stream or call that come from where nobody looks: hooks, forks, the collector, another thread."""

import asyncio
import gc
import json
import os
import subprocess
import sys
from pathlib import Path

import httpx2
import openai
import pytest

from support.versions import environment
from watchkeep import llm, names

MESSAGES = [{"role": "user", "content": "hi"}]
OUTCOME = names.AGENT_RUNTIME_STREAM_OUTCOME


def ask(server, **http):
    client = openai.OpenAI(base_url=server.base_url, api_key="sk", http_client=httpx2.Client(**http))
    usage = {"include_usage": True}
    return client.chat.completions.create(model="gpt-4o", messages=MESSAGES, stream=True, stream_options=usage)


def test_a_stream_that_a_hook_read_is_drained_with_its_tokens(watchkeep_capture, llm_server):
    """An app's own logging hook reads the body first: the call ends then, whole."""
    stream = ask(llm_server, event_hooks={"response": [lambda response: response.read()]})
    (chat,) = watchkeep_capture.spans("chat")
    assert chat.attributes[OUTCOME] == "drained"
    assert chat.attributes[names.GEN_AI_USAGE_OUTPUT_TOKENS] > 0
    assert list(stream)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this platform does not fork")
def test_a_forked_child_does_not_end_its_parent_s_streams(watchkeep_capture, llm_server):
    """What is open at a fork is the parent's to tell; the child's sweep finds nothing."""
    stream = ask(llm_server)
    next(iter(stream))
    child = os.fork()
    if child == 0:
        llm.sweep(0.0)
        os._exit(len(watchkeep_capture.spans("chat")))
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    list(stream)
    assert [span.attributes[OUTCOME] for span in watchkeep_capture.spans("chat")] == ["drained"]


class Never(httpx2.AsyncBaseTransport):
    """A provider that does not answer, and that nothing but the call refers to."""

    async def handle_async_request(self, request):
        await asyncio.get_running_loop().create_future()


def test_a_task_that_the_collector_ends_is_a_cancelled_call(watchkeep_capture):
    """A pending task is destroyed, in another context than its own: its call is counted, as cancelled."""

    async def call():
        http = httpx2.AsyncClient(transport=Never())
        client = openai.AsyncOpenAI(base_url="http://x/v1", api_key="sk", http_client=http)
        await client.chat.completions.create(model="gpt-4o", messages=MESSAGES)

    async def begin():
        task = asyncio.ensure_future(call())
        task._log_destroy_pending = False
        await asyncio.sleep(1)

    loop = asyncio.new_event_loop()
    loop.run_until_complete(begin())
    loop.close()
    gc.collect()
    (chat,) = watchkeep_capture.spans("chat")
    assert chat.attributes[names.ERROR_TYPE] == names.CANCELLED
    assert watchkeep_capture.value(names.METRIC_RESILIENCE_CALLS.name) == 1


def test_a_call_ends_once_however_many_end_it(watchkeep_capture, llm_server):
    """The sweep and the reader both end it: one span, whose phases add up to it."""
    stream = ask(llm_server)
    next(iter(stream))
    (call,) = [each for each in llm.open_streams.values() if not each.closed]
    llm.sweep(0.0)
    call.end_stream("drained")
    list(stream)
    (chat,) = watchkeep_capture.spans("chat")
    assert chat.attributes[OUTCOME] == "abandoned"
    phases = [value for key, value in chat.attributes.items() if key.startswith(f"{names.RESILIENCE_CALL_TIME}.")]
    assert round(sum(phases) * 1e9) == chat.end_ns - chat.start_ns


COLLECTED = Path(__file__).parent / "support" / "collected_app.py"
MILLISECOND = 1_000_000


@pytest.mark.parametrize("way", ["read", "unread", "task"])
def test_the_collector_may_run_while_the_app_s_span_processor_is_locked(way):
    """What the collector ends is handed to the app's provider later, once, and dated when it was collected."""
    command = [sys.executable, str(COLLECTED), way]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=20, check=True)
    found = json.loads(done.stdout)
    (chat,) = [span for span in found["spans"] if span["name"].startswith("chat")]
    if way == "task":
        assert chat["attributes"][names.ERROR_TYPE] == names.CANCELLED
    else:
        assert chat["attributes"][OUTCOME] == "abandoned"
    assert found["before"] - MILLISECOND <= chat["end"] <= found["after"] + MILLISECOND
    phases = [value for key, value in chat["attributes"].items() if key.startswith(f"{names.RESILIENCE_CALL_TIME}.")]
    assert len(phases) > 1
    assert done.stderr == ""

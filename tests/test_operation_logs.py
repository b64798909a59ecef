"""One log record for each finished LLM call where it is asked for, and the standard event for each exception."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import openai
import pytest

import watchkeep
from llm_server import LLMServer
from support.catalogue import violations
from watchkeep import names
from watchkeep.config import load
from watchkeep.testing import Capture, capture

HELLO: Any = [{"role": "user", "content": "hi"}]
EXCEPTION = names.EVENT_EXCEPTION.name


@pytest.fixture
def captured() -> Iterator[Capture]:
    """Capture with operation logs on."""
    with capture(replace(load().config, operation_logs=True)) as made:
        watchkeep.instrument()
        yield made
        assert not violations(made.spans(), made.logs(), made.metrics().values())


@pytest.fixture
def client(llm_server: LLMServer) -> openai.OpenAI:
    return openai.OpenAI(base_url=llm_server.base_url, api_key="sk-test", max_retries=1)


def test_a_finished_call_is_one_line(captured: Capture, client: openai.OpenAI, llm_server: LLMServer) -> None:
    """INFO with operation, model, seconds, attempts and tokens, in the place of its span."""
    llm_server.plan([{"status": 429, "headers": {"retry-after-ms": "20"}}, {"usage": {"prompt": 12, "completion": 34}}])
    client.chat.completions.create(model="gpt-4o", messages=HELLO, temperature=0.5, max_tokens=9)
    (span,) = captured.spans("chat")
    begun, line = captured.logs("")
    seconds = (span.end_ns - span.start_ns) / 1e9
    assert line.body == f"chat gpt-4o took {seconds:.2f}s, 2 attempts, 12 in / 34 out tokens"
    assert (line.severity_number, line.severity_text, line.time_ns) == (9, "INFO", span.end_ns)
    assert (line.trace_id, line.span_id, line.flags) == (span.trace_id, span.span_id, 1)
    assert line.attributes[names.GEN_AI_USAGE_OUTPUT_TOKENS] == 34
    assert line.attributes[names.HTTP_REQUEST_RESEND_COUNT] == 1
    assert line.attributes[names.AGENT_RUNTIME_CORRELATION_ID] == watchkeep.correlation_id()
    assert (begun.body, begun.severity_number) == ("chat gpt-4o started", 5)
    assert begun.attributes[names.GEN_AI_REQUEST_TEMPERATURE] == 0.5
    assert begun.attributes[names.GEN_AI_REQUEST_MAX_TOKENS] == 9
    assert begun.attributes[names.AGENT_RUNTIME_EXECUTION_PATH] == "direct"
    assert begun.span_id == span.span_id


def test_a_failed_call_is_an_error(captured: Capture, client: openai.OpenAI, llm_server: LLMServer) -> None:
    """ERROR with the elapsed time and whose fault it was."""
    llm_server.plan([500, 500])
    with pytest.raises(openai.InternalServerError):
        client.chat.completions.create(model="gpt-4o", messages=HELLO)
    (span,) = captured.spans("chat")
    line = captured.logs("")[-1]
    seconds = (span.end_ns - span.start_ns) / 1e9
    assert line.body == f"chat gpt-4o failed after {seconds:.2f}s, 2 attempts: 500 (provider)"
    assert (line.severity_number, line.severity_text) == (17, "ERROR")
    assert line.attributes[names.RESILIENCE_FAULT_ORIGIN] == "provider"


def test_a_call_in_a_pool_says_so(captured: Capture, client: openai.OpenAI) -> None:
    """The path is that of the thread that makes the call."""
    with ThreadPoolExecutor(1) as pool:
        pool.submit(client.chat.completions.create, model="gpt-4o", messages=HELLO).result()
    assert captured.logs("")[0].attributes[names.AGENT_RUNTIME_EXECUTION_PATH] == "thread_pool"


def test_off_by_default(watchkeep_capture: Capture, client: openai.OpenAI) -> None:
    """Without the setting a call that goes well says nothing."""
    client.chat.completions.create(model="gpt-4o", messages=HELLO)
    assert watchkeep_capture.logs() == []


def test_an_exception_is_the_standard_event(
    watchkeep_capture: Capture, client: openai.OpenAI, llm_server: LLMServer
) -> None:
    """Type and stack, in the place of the call; its text, which may quote a prompt, only with content on."""
    llm_server.plan([400])
    with pytest.raises(openai.BadRequestError):
        client.chat.completions.create(model="gpt-4o", messages=HELLO)
    (span,) = watchkeep_capture.spans("chat")
    (event,) = watchkeep_capture.logs(EXCEPTION)
    assert event.attributes[names.EXCEPTION_TYPE] == "openai.BadRequestError"
    assert names.EXCEPTION_MESSAGE not in event.attributes
    assert event.attributes[names.EXCEPTION_STACKTRACE].endswith("\nopenai.BadRequestError\n")
    assert "_base_client.py" in event.attributes[names.EXCEPTION_STACKTRACE]
    assert (event.severity_number, event.span_id) == (13, span.span_id)


def test_with_content_the_exception_has_its_text(client: openai.OpenAI, llm_server: LLMServer) -> None:
    """The message is there once content may be recorded."""
    llm_server.plan(["overflow"])
    with capture(replace(load().config, capture_content="EVENT_ONLY")) as captured:
        watchkeep.instrument()
        with pytest.raises(openai.BadRequestError):
            client.chat.completions.create(model="gpt-4o", messages=HELLO)
        (event,) = captured.logs(EXCEPTION)
    assert "maximum context length" in event.attributes[names.EXCEPTION_MESSAGE]


def test_a_broken_stream_is_an_exception_too(
    watchkeep_capture: Capture, client: openai.OpenAI, llm_server: LLMServer
) -> None:
    """What breaks while the body is read is told once."""
    llm_server.plan(["cut"])
    with pytest.raises(openai.APIConnectionError):
        list(client.chat.completions.create(model="gpt-4o", messages=HELLO, stream=True))
    (event,) = watchkeep_capture.logs(EXCEPTION)
    assert event.attributes[names.EXCEPTION_TYPE].endswith("RemoteProtocolError")

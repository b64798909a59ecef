"""Next to OpenTelemetry's own openai instrumentation: its span stands for the call, and carries what only we know."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import openai
import pytest

from watchkeep import names
from watchkeep.testing import Capture

THEIRS = "opentelemetry.instrumentation.genai.openai"
HELLO: Any = [{"role": "user", "content": "hi"}]
LEDGER = "resilience.call.time."


@pytest.fixture(autouse=True)
def genai(watchkeep_capture: Capture) -> Iterator[None]:
    """Let the app instrument openai itself."""
    from opentelemetry.instrumentation.genai.openai import OpenAIInstrumentor

    OpenAIInstrumentor().instrument()
    yield
    OpenAIInstrumentor().uninstrument()


@pytest.fixture
def url(llm_server: Any) -> str:
    return llm_server.url if llm_server.url.endswith("/v1") else f"{llm_server.url}/v1"


def chat(client: openai.OpenAI) -> None:
    client.chat.completions.create(model="gpt-4o", messages=HELLO)


def stream(client: openai.OpenAI) -> None:
    options: Any = {"include_usage": True}
    for _ in client.chat.completions.create(model="gpt-4o", messages=HELLO, stream=True, stream_options=options):
        pass


def responses(client: openai.OpenAI) -> None:
    client.responses.create(model="gpt-4o", input="hi")


def embeddings(client: openai.OpenAI) -> None:
    client.embeddings.create(model="text-embedding-3-small", input="hi")


async def achat(client: openai.AsyncOpenAI) -> None:
    await client.chat.completions.create(model="gpt-4o", messages=HELLO)


async def astream(client: openai.AsyncOpenAI) -> None:
    options: Any = {"include_usage": True}
    found = await client.chat.completions.create(model="gpt-4o", messages=HELLO, stream=True, stream_options=options)
    async for _ in found:
        pass


def run(how: Callable[[Any], Any], url: str) -> None:
    """Call the model once."""
    if how.__name__.startswith("a"):

        async def main() -> None:
            async with openai.AsyncOpenAI(base_url=url, api_key="sk-test") as client:
                await how(client)

        asyncio.run(main())
    else:
        with openai.OpenAI(base_url=url, api_key="sk-test") as client:
            how(client)


ALL = [chat, stream, responses, embeddings, achat, astream]


@pytest.mark.parametrize("how", ALL)
def test_one_llm_span_and_tokens_once(how: Any, url: str, llm_server: Any, watchkeep_capture: Capture) -> None:
    """A call that is tried twice is one LLM span, theirs, above two attempts of ours; tokens are counted once."""
    llm_server.plan([{"status": 429, "headers": {"retry-after-ms": "20"}}])
    run(how, url)
    spans = watchkeep_capture.spans()
    (call,) = [span for span in spans if "gen_ai.operation.name" in span.attributes]
    attempts = [span for span in spans if span.scope.name == "watchkeep.http"]
    assert call.scope.name == THEIRS
    assert [(span.parent_id, span.attributes[names.HTTP_RESPONSE_STATUS_CODE]) for span in attempts] == [
        (call.span_id, 429),
        (call.span_id, 200),
    ]
    assert watchkeep_capture.value("gen_ai.client.token.usage", gen_ai_token_type="input") == 1
    assert not watchkeep_capture.points(names.METRIC_GEN_AI_CLIENT_INFERENCE_USAGE_INPUT_TOKENS.name)
    assert not watchkeep_capture.points(names.METRIC_GEN_AI_CLIENT_INFERENCE_DURATION.name)
    assert watchkeep_capture.value(names.METRIC_RESILIENCE_CALLS.name) == 1


@pytest.mark.parametrize("how", ALL)
def test_their_span_carries_ours(how: Any, url: str, watchkeep_capture: Capture) -> None:
    """Ledger and correlation stand on their span, and the ledger adds up to the part of it that we saw."""
    run(how, url)
    (call,) = [span for span in watchkeep_capture.spans() if "gen_ai.operation.name" in span.attributes]
    spent = sum(value for key, value in call.attributes.items() if key.startswith(LEDGER))
    assert 0 < spent <= (call.end_ns - call.start_ns) / 1e9 + 0.005
    assert call.attributes[names.AGENT_RUNTIME_CORRELATION_ID]


def test_a_failed_call(url: str, llm_server: Any, watchkeep_capture: Capture) -> None:
    """A failure's blame stands on their span, and is counted once with it."""
    llm_server.plan([{"status": 401}])
    with pytest.raises(openai.AuthenticationError):
        run(chat, url)
    (call,) = [span for span in watchkeep_capture.spans() if "gen_ai.operation.name" in span.attributes]
    assert call.attributes[names.RESILIENCE_FAULT_ORIGIN] == names.CLIENT_FAULT
    calls = watchkeep_capture.points(names.METRIC_RESILIENCE_CALLS.name)
    assert [(point.value, point.attributes[names.RESILIENCE_FAULT_ORIGIN]) for point in calls] == [(1, "client")]

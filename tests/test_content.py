"""Prompts and completions: nowhere by default, and where a setting asks for them in the standard's format."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import openai
import pytest

import watchkeep
from llm_server import LLMServer
from support.catalogue import violations
from watchkeep import content, names
from watchkeep.config import load
from watchkeep.integrations._openai_content import read_answer, read_request
from watchkeep.testing import Capture, capture

CANARY = "the-canary-sings-of-quetzals"
FEATHERS = ("canary", "quetzal")  # parts of it that no id, number or name of ours holds by chance
ASKED: Any = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": f"Say {CANARY}"}]
TOOLS: Any = [
    {"type": "function", "function": {"name": "look", "description": "Looks.", "parameters": {"type": "object"}}}
]
DETAILS = names.EVENT_INFERENCE_DETAILS.name
KEYS = (
    names.GEN_AI_INPUT_MESSAGES,
    names.GEN_AI_OUTPUT_MESSAGES,
    names.GEN_AI_SYSTEM_INSTRUCTIONS,
    names.GEN_AI_TOOL_DEFINITIONS,
)


@contextmanager
def capturing(mode: str, **settings: Any) -> Iterator[Capture]:
    with capture(replace(load().config, capture_content=mode, **settings)) as captured:
        watchkeep.instrument()
        yield captured
        found = violations(captured.spans(), captured.logs(), captured.metrics().values())
        assert not found, "\n".join(found)


@pytest.fixture
def client(llm_server: LLMServer) -> openai.OpenAI:
    return openai.OpenAI(base_url=llm_server.base_url, api_key="sk-test", max_retries=1)


def everything(client: openai.OpenAI, server: LLMServer) -> None:
    """Call in every way, and let the app log what went wrong."""
    log = logging.getLogger("app.content")
    client.chat.completions.create(model="gpt-4o", messages=ASKED)
    list(client.chat.completions.create(model="gpt-4o", messages=ASKED, stream=True))
    client.responses.create(model="gpt-4o", input=f"Say {CANARY}", instructions=f"Never say {CANARY}")
    list(client.responses.create(model="gpt-4o", input=CANARY, stream=True))
    client.chat.completions.with_raw_response.create(model="gpt-4o", messages=ASKED)
    client.embeddings.create(model="e", input=CANARY)
    server.plan([{"tool_calls": [{"name": "look", "arguments": {"for": CANARY}}]}])
    client.chat.completions.create(model="gpt-4o", messages=ASKED, tools=TOOLS)
    server.plan([{"status": 400, "body": {"error": {"message": f"bad prompt: {CANARY}"}}}, {"error": CANARY}])
    try:
        client.chat.completions.create(model="gpt-4o", messages=ASKED)
    except openai.BadRequestError as error:
        log.exception("failed with %s", error)
        log.error(f"failed with {error}")
    try:
        list(client.chat.completions.create(model="gpt-4o", messages=ASKED, stream=True))
    except openai.APIError:
        log.exception("broken")


def test_by_default_nothing_is_recorded(
    client: openai.OpenAI, llm_server: LLMServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not one byte of prompt or answer is in spans, log records or metrics, also not with the SDKs' DEBUG lines on."""
    for name in ("openai", "httpx", "httpx2", "httpcore", "httpcore2"):
        monkeypatch.setattr(logging.getLogger(name), "level", logging.DEBUG)
        logging.getLogger(name).manager._clear_cache()  # type: ignore[attr-defined]
    with capturing("NO_CONTENT", operation_logs=True) as captured:
        everything(client, llm_server)
        told = repr((captured.spans(), captured.logs(), captured.metrics()))
    logging.getLogger().manager._clear_cache()  # type: ignore[attr-defined]
    assert told.count("chat gpt-4o") > 8
    assert any(log.scope.name.startswith("httpx") for log in captured.logs())
    assert [feather for feather in FEATHERS if feather in told.lower()] == []


@pytest.mark.parametrize(
    ("mode", "on_span", "on_event"),
    [("SPAN_ONLY", True, False), ("EVENT_ONLY", False, True), ("SPAN_AND_EVENT", True, True)],
)
def test_each_mode_puts_it_where_it_says(client: openai.OpenAI, mode: str, on_span: bool, on_event: bool) -> None:
    """On the span as JSON text, on the event as values."""
    with capturing(mode) as captured:
        client.chat.completions.create(model="gpt-4o", messages=ASKED, tools=TOOLS)
        (span,) = captured.spans("chat")
        events = captured.logs(DETAILS)
    assert (names.GEN_AI_INPUT_MESSAGES in span.attributes) == on_span
    assert len(events) == int(on_event)
    asked = [
        {"role": "system", "parts": [{"type": "text", "content": "Be brief."}]},
        {"role": "user", "parts": [{"type": "text", "content": f"Say {CANARY}"}]},
    ]
    said = [
        {
            "role": "assistant",
            "parts": [{"type": "text", "content": f"Echo: Say {CANARY}"}],
            "finish_reason": "stop",
        }
    ]
    tools = [{"type": "function", "name": "look", "description": "Looks.", "parameters": {"type": "object"}}]
    if on_span:
        found = [json.loads(span.attributes[key]) for key in (KEYS[0], KEYS[1], KEYS[3])]
        assert found == [asked, said, tools]
    if on_event:
        (event,) = events
        assert [event.attributes[key] for key in (KEYS[0], KEYS[1], KEYS[3])] == [asked, said, tools]
        assert (event.trace_id, event.span_id, event.severity_number) == (span.trace_id, span.span_id, 5)
        assert event.attributes[names.GEN_AI_USAGE_INPUT_TOKENS] == span.attributes[names.GEN_AI_USAGE_INPUT_TOKENS]


def said_in(captured: Capture) -> Any:
    (span,) = captured.spans("chat")
    return json.loads(span.attributes[names.GEN_AI_OUTPUT_MESSAGES])


@pytest.mark.parametrize("mode", ["sync", "async"])
def test_a_stream_is_put_together(llm_server: LLMServer, mode: str) -> None:
    """Text and tool calls that came in pieces stand there as a whole, with the reason of the end."""
    llm_server.plan([{"text": "one two three"}, {"tool_calls": [{"name": "look", "arguments": {"for": "x", "n": 1}}]}])
    for wanted in (
        {"role": "assistant", "parts": [{"type": "text", "content": "one two three"}], "finish_reason": "stop"},
        {
            "role": "assistant",
            "parts": [{"type": "tool_call", "id": ..., "name": "look", "arguments": {"for": "x", "n": 1}}],
            "finish_reason": "tool_call",
        },
    ):
        with capturing("SPAN_ONLY") as captured:
            if mode == "sync":
                with openai.OpenAI(base_url=llm_server.base_url, api_key="x") as client:
                    list(client.chat.completions.create(model="gpt-4o", messages=ASKED, stream=True))
            else:
                asyncio.run(streamed(llm_server.base_url))
            (found,) = said_in(captured)
        for part in found["parts"]:
            if "id" in part:
                part["id"] = ...
        assert found == wanted


async def streamed(url: str) -> None:
    async with openai.AsyncOpenAI(base_url=url, api_key="x") as client:
        async for _ in await client.chat.completions.create(model="gpt-4o", messages=ASKED, stream=True):
            pass


def test_a_stream_that_the_app_leaves_has_what_came(client: openai.OpenAI, llm_server: LLMServer) -> None:
    """What was read before the end is there, and no reason of an end."""
    llm_server.plan([{"text": "one two three four five six", "chunk_delay": 0.02}])
    with capturing("SPAN_ONLY") as captured:
        stream = client.chat.completions.create(model="gpt-4o", messages=ASKED, stream=True)
        for chunk in stream:
            if "two" in (chunk.choices[0].delta.content or ""):
                break
        stream.close()
        (found,) = said_in(captured)
    assert found["parts"][0]["content"].startswith("one two")
    assert "six" not in found["parts"][0]["content"]
    assert found["finish_reason"] == ""


@pytest.mark.parametrize("streamed", [False, True])
def test_responses(client: openai.OpenAI, llm_server: LLMServer, streamed: bool) -> None:
    """Instructions are the system's; input items and output items become messages."""
    llm_server.plan([{"text": "Done.", "tool_calls": [{"name": "look", "arguments": {"for": "x"}}]}])
    items: Any = [
        {"role": "user", "content": [{"type": "input_text", "text": "look"}]},
        {"type": "function_call", "call_id": "c1", "name": "look", "arguments": '{"for": "y"}'},
        {"type": "function_call_output", "call_id": "c1", "output": "nothing"},
    ]
    with capturing("SPAN_ONLY") as captured:
        made = client.responses.create(model="gpt-4o", input=items, instructions="Help.", stream=streamed)
        if streamed:
            list(made)  # type: ignore[call-overload]
        (span,) = captured.spans("chat")
    assert json.loads(span.attributes[names.GEN_AI_SYSTEM_INSTRUCTIONS]) == [{"type": "text", "content": "Help."}]
    asked = json.loads(span.attributes[names.GEN_AI_INPUT_MESSAGES])
    assert [message["role"] for message in asked] == ["user", "assistant", "tool"]
    assert asked[1]["parts"][0]["arguments"] == {"for": "y"}
    assert asked[2]["parts"] == [{"type": "tool_call_response", "id": "c1", "response": "nothing"}]
    (said,) = json.loads(span.attributes[names.GEN_AI_OUTPUT_MESSAGES])
    assert [part["type"] for part in said["parts"]] == ["text", "tool_call"]
    assert said["finish_reason"] == "stop"


def test_it_is_bounded_and_without_secrets(client: openai.OpenAI) -> None:
    """Each attribute is JSON within the size of a value; the newest message is there, keys are masked."""
    history: Any = [{"role": "user", "content": f"{number} " + "x" * 5000} for number in range(300)]
    last: Any = {"role": "user", "content": "my key is sk-abcdefghijklmnopqrstuvwx1234, what now?"}
    with capturing("SPAN_AND_EVENT") as captured:
        client.chat.completions.create(model="gpt-4o", messages=[*history, last])
        client.chat.completions.create(model="gpt-4o", messages=[{"role": "user", "content": "ä" * 10_000_000}])
        spans = captured.spans("chat")
        assert "abcdefghij" not in repr((spans, captured.logs()))
    for span in spans:
        for key in KEYS[:2]:
            assert len(span.attributes[key].encode()) <= load().config.value_max_bytes
    asked = json.loads(spans[0].attributes[names.GEN_AI_INPUT_MESSAGES])
    assert asked[-1]["parts"][0]["content"].endswith("what now?")
    assert "[10000000 characters]" in spans[1].attributes[names.GEN_AI_INPUT_MESSAGES]


def test_media_is_named_not_copied() -> None:
    """Images, audio and files are parts that say what they are; their bytes stay in the process."""
    data = "data:image/png;base64," + "A" * 1000
    parts = [
        {"type": "image_url", "image_url": {"url": data}},
        {"type": "input_image", "image_url": "https://example.com/a.png"},
        {"type": "input_audio", "input_audio": {"data": "A" * 1000, "format": "wav"}},
        {"type": "input_file", "file_id": "file-1"},
    ]
    with capturing("SPAN_ONLY"):
        kept = read_request({"messages": [{"role": "user", "content": parts}]})
        (message,) = content.gather(kept)[names.GEN_AI_INPUT_MESSAGES]
    assert [part["type"] for part in message["parts"]] == ["blob", "uri", "blob", "file"]
    assert message["parts"][0]["mime_type"] == "image/png"
    assert "AAAA" not in repr(message)


class Hostile(str):
    def __str__(self) -> str:
        raise RuntimeError("no text")

    __len__ = __repr__ = __getitem__ = __str__  # type: ignore[assignment]


@pytest.mark.parametrize(
    "data",
    [
        None,
        {"messages": None},
        {"messages": [None, 1, {"role": None}, {"content": object()}, {"type": object(), "role": object}]},
        {"messages": [{"role": "user", "content": Hostile("x")}], "tools": [None, {"function": 5}, Hostile("y")]},
        {"messages": [{"role": "user", "content": [{"type": "text", "text": object()}, 7]}]},
        {"messages": [{"role": "assistant", "tool_calls": [None, {"function": None}, {"function": {"arguments": 5}}]}]},
        {"input": {"not": "a list"}, "instructions": 5},
        {"messages": (part for part in "ab")},
        {"messages": [{"role": "user", "content": "\ud800 \x00"}]},
    ],
)
def test_whatever_the_app_asks(data: Any) -> None:
    """No request makes it fail, and what comes of it can be encoded."""
    with capturing("SPAN_ONLY"):
        found = content.gather(read_request(data))
        assert json.dumps(found).encode()
        assert content.as_json(list(found.values())).encode()


def test_several_choices() -> None:
    """Each choice is a message of its own, whatever order their pieces come in."""
    with capturing("SPAN_ONLY"):
        kept = read_request({"messages": []})
        for index, text in ((1, "b"), (0, "a"), (1, "B"), (0, "A")):
            read_answer(kept, {"choices": [{"index": index, "delta": {"content": text}, "finish_reason": None}]})
        found = content.gather(kept)[names.GEN_AI_OUTPUT_MESSAGES]
    assert [message["parts"][0]["content"] for message in found] == ["aA", "bB"]

"""The scripted server, seen through the real client and through raw sockets."""

from __future__ import annotations

import http.client
import json
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from enum import Enum
from pathlib import Path

import httpx2
import openai
import pytest
from openai import AzureOpenAI, OpenAI
from pydantic import BaseModel

import llm_server
from llm_server import LLMServer, Plan

SLACK = 0.3  # s that a busy machine may add to anything
HELLO = [{"role": "system", "content": "You are brief."}, {"role": "user", "content": "hello there"}]
WEATHER = {
    "name": "weather",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}, "days": {"type": "integer"}}},
}
CHAT_TOOL = {"type": "function", "function": WEATHER}
CALLS = [{"name": "weather", "arguments": {"city": "Rome"}}, {"name": "weather", "arguments": '{"city": "Oslo"}'}]


@pytest.fixture
def server():
    with LLMServer() as running:
        yield running


def client(server: LLMServer, **options) -> OpenAI:
    return OpenAI(base_url=server.base_url, api_key="local", **{"max_retries": 0, "timeout": 5, **options})


def ask(server: LLMServer, **options):
    return client(server).chat.completions.create(model="m", messages=HELLO, **options)


def stream(server: LLMServer, **options) -> list:
    return list(ask(server, stream=True, **options))


def texts(chunks: list) -> list[str]:
    return [text for chunk in chunks if chunk.choices and (text := chunk.choices[0].delta.content)]


def raw(server: LLMServer, message: bytes) -> bytes:
    """Everything the server sends for these bytes, until it closes."""
    with socket.create_connection(("127.0.0.1", server.port), 5) as sock:
        sock.sendall(message)
        return b"".join(iter(lambda: sock.recv(65536), b""))


def post(path: str, body: bytes, *headers: str) -> bytes:
    lines = [f"POST {path} HTTP/1.1", "Host: local", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


CHAT = json.dumps({"model": "m", "messages": HELLO}).encode()


# --- chat -------------------------------------------------------------------------------------------------


def test_chat_echoes(server):
    """A plain answer echoes the last message and counts its tokens in words."""
    answer = ask(server)
    assert answer.choices[0].message.content == "Echo: hello there"
    assert answer.choices[0].finish_reason == "stop"
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens, answer.usage.total_tokens) == (5, 3, 8)
    (entry,) = server.settle()
    assert (entry.status, entry.outcome, entry.step, entry.response_id) == (200, "answered", "ok", answer.id)
    assert entry.usage == {"prompt": 5, "completion": 3, "cached": 0, "reasoning": 0, "total": 8}


def test_stream_says_what_plain_says(server):
    """The pieces of a stream add up to the plain answer, and its last chunk carries the usage when asked."""
    plain = ask(server)
    chunks = stream(server, stream_options={"include_usage": True})
    assert "".join(texts(chunks)) == plain.choices[0].message.content
    assert [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices][-1] == "stop"
    assert chunks[-1].usage == plain.usage
    assert [chunk.usage for chunk in chunks[:-1]] == [None] * (len(chunks) - 1)
    assert server.settle()[1].chunks == len(chunks)
    assert server.log[1].usage == server.log[0].usage


def test_stream_without_usage(server):
    """A stream that was not asked for usage carries none, and the log says that none was sent."""
    chunks = stream(server)
    assert not any(chunk.usage for chunk in chunks)
    assert server.settle()[0].usage is None


def test_chunk_count(server):
    """The number of text chunks is the plan's, whether the text is scripted or not."""
    for step in ({"chunks": 51}, {"chunks": 4, "text": "one two three four five"}, {"chunks": 9, "text": "one two"}):
        server.plan([step, step])
        pieces = texts(stream(server))
        if "text" in step:
            assert "".join(pieces) == step["text"]
        assert len(pieces) == min(step["chunks"], len(step.get("text", "x" * 51)))
        assert ask(server).choices[0].message.content == "".join(pieces)


def test_choices(server):
    """As many choices come back as were asked for, streamed or not."""
    assert [choice.index for choice in ask(server, n=3).choices] == [0, 1, 2]
    seen = {chunk.choices[0].index for chunk in stream(server, n=3)}
    assert seen == {0, 1, 2}
    assert server.log[0].usage["completion"] == 9


def test_tool_calls(server):
    """Scripted tool calls come back in parallel, and the same from a stream."""
    server.plan({"default": {"tool_calls": CALLS}})
    message = ask(server, tools=[CHAT_TOOL]).choices[0].message
    assert message.content is None
    told = [json.loads(call.function.arguments)["city"] for call in message.tool_calls]
    assert told == ["Rome", "Oslo"]
    assert len({call.id for call in message.tool_calls}) == 2
    with client(server).chat.completions.stream(model="m", messages=HELLO, tools=[CHAT_TOOL]) as events:
        final = events.get_final_completion().choices[0]
    assert final.finish_reason == "tool_calls"
    calls = [(call.id, call.function.name, call.function.arguments) for call in final.message.tool_calls]
    assert calls == [(call.id, call.function.name, call.function.arguments) for call in message.tool_calls]


def test_forced_tool(server):
    """A required tool is called with arguments that follow its schema."""
    for choice in ("required", {"type": "function", "function": {"name": "weather"}}):
        (call,) = ask(server, tools=[CHAT_TOOL], tool_choice=choice).choices[0].message.tool_calls
        assert json.loads(call.function.arguments) == {"city": "text", "days": 1}
    assert ask(server, tools=[CHAT_TOOL]).choices[0].message.tool_calls is None


class Colour(Enum):
    red = "red"
    blue = "blue"


class Part(BaseModel):
    name: str
    price: float
    colour: Colour
    inside: Part | None
    parts: list[Part]


def test_parse(server):
    """A schema with nesting, lists, choices and itself inside is answered so that parse accepts it."""
    answer = client(server).chat.completions.parse(model="m", messages=HELLO, response_format=Part)
    part = answer.choices[0].message.parsed
    assert (part.name, part.colour) == ("text", Colour.red)
    assert isinstance(part.parts[0], Part)
    assert client(server).responses.parse(model="m", input="x", text_format=Part).output_parsed == part


def test_json_mode(server):
    """JSON mode answers JSON."""
    answer = ask(server, response_format={"type": "json_object"})
    assert json.loads(answer.choices[0].message.content) == {"answer": "hello there"}


def test_refusal_and_finish(server):
    """A refusal and a finish reason are the plan's."""
    server.plan([{"refusal": "no"}, {"refusal": "no"}, {"finish": "length"}])
    assert ask(server).choices[0].message.refusal == "no"
    assert "no" in [chunk.choices[0].delta.refusal for chunk in stream(server)]
    assert ask(server).choices[0].finish_reason == "length"


def test_usage_is_scripted(server):
    """Usage numbers are the plan's, cached and reasoning tokens too, or left out."""
    usage = {"prompt": 100, "completion": 20, "cached": 64, "reasoning": 8}
    server.plan([{"usage": usage}, {"usage": False}])
    told = ask(server).usage
    assert (told.prompt_tokens, told.completion_tokens, told.total_tokens) == (100, 20, 120)
    assert told.prompt_tokens_details.cached_tokens == 64
    assert told.completion_tokens_details.reasoning_tokens == 8
    assert ask(server).usage is None
    assert [entry.usage for entry in server.settle()] == [{**usage, "total": 120}, None]


# --- the other end points ---------------------------------------------------------------------------------


def test_responses(server):
    """The Responses end point answers text with its usage."""
    answer = client(server).responses.create(model="m", instructions="Be brief.", input="hello there")
    assert (answer.output_text, answer.status) == ("Echo: hello there", "completed")
    assert (answer.usage.input_tokens, answer.usage.output_tokens) == (4, 3)
    assert server.log[0].response_id == answer.id


def test_response_events(server):
    """A streamed response sends its events in the provider's order, the usage in the last one."""
    events = list(client(server).responses.create(model="m", input="hello there", stream=True))
    assert [event.type for event in events] == [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
        *["response.output_text.delta"] * 3,
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.completed",
    ]
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert events[-1].response.usage.total_tokens == 5
    assert server.settle()[0].chunks == len(events)
    assert server.log[0].usage["total"] == 5


def test_response_function_calls(server):
    """Function calls of a response come back, plain and streamed, and their outputs count as a tool's turn."""
    server.plan({"rules": [{"match": {"role": "user"}, "answer": {"tool_calls": CALLS}}]})
    tool = {"type": "function", "strict": False, **WEATHER}
    plain = client(server).responses.create(model="m", input="hello", tools=[tool])
    with client(server).responses.stream(model="m", input="hello", tools=[tool]) as events:
        kinds = {event.type for event in events}
        streamed = events.get_final_response()
    assert "response.function_call_arguments.delta" in kinds
    assert [(call.call_id, call.arguments) for call in streamed.output] == [
        (call.call_id, call.arguments) for call in plain.output
    ]
    outputs = [{"type": "function_call_output", "call_id": plain.output[0].call_id, "output": "sunny"}]
    asked = [{"role": "user", "content": "hello"}, *[call.model_dump() for call in plain.output], *outputs]
    assert client(server).responses.create(model="m", input=asked).output_text == "Echo: sunny"


def test_response_incomplete_and_refused(server):
    """A response that ran out of tokens is incomplete; a refusal is a refusal, streamed too."""
    server.plan([{"finish": "length"}, {"refusal": "no"}])
    answer = client(server).responses.create(model="m", input="x")
    assert (answer.status, answer.incomplete_details.reason) == ("incomplete", "max_output_tokens")
    with client(server).responses.stream(model="m", input="x") as events:
        assert events.get_final_response().output[0].content[0].refusal == "no"


def test_embeddings(server):
    """Embeddings are the same numbers in base64 and as floats, as many as were asked for."""
    packed = client(server).embeddings.create(model="e", input=["one", "two words"])
    floats = client(server).embeddings.create(model="e", input=["one", "two words"], encoding_format="float")
    assert [item.embedding for item in packed.data] == [item.embedding for item in floats.data]
    assert packed.data[0].embedding != packed.data[1].embedding
    assert (packed.usage.prompt_tokens, packed.usage.total_tokens) == (3, 3)
    short = client(server).embeddings.create(model="e", input=[1, 2, 3], dimensions=4)
    assert [len(item.embedding) for item in short.data] == [4]
    assert server.log[-1].usage == {"prompt": 3, "completion": 0, "cached": 0, "reasoning": 0, "total": 3}


def test_models(server):
    """The models are listed, and any one is found."""
    assert "gpt-4o-mini" in [model.id for model in client(server).models.list()]
    assert client(server).models.retrieve("mine").id == "mine"


def test_azure(server):
    """Azure's paths are answered, the deployment being the model."""
    azure = AzureOpenAI(azure_endpoint=server.url, api_key="local", api_version="2025-01-01-preview", max_retries=0)
    answer = azure.chat.completions.create(model="team-gpt", messages=HELLO)
    assert answer.choices[0].message.content == "Echo: hello there"
    assert server.log[0].path == "/openai/deployments/team-gpt/chat/completions?api-version=2025-01-01-preview"
    raw(server, post("/openai/deployments/only-here/chat/completions?api-version=1", b"{}", "Connection: close"))
    server.plan({"rules": [{"match": {"model": "only-here"}, "default": 418}]})
    body = raw(server, post("/openai/deployments/only-here/chat/completions", b"{}", "Connection: close"))
    assert body.startswith(b"HTTP/1.1 418 ")


# --- faults -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (400, openai.BadRequestError),
        (401, openai.AuthenticationError),
        (403, openai.PermissionDeniedError),
        (404, openai.NotFoundError),
        (409, openai.ConflictError),
        (422, openai.UnprocessableEntityError),
        (429, openai.RateLimitError),
        (500, openai.InternalServerError),
        (503, openai.InternalServerError),
        (599, openai.InternalServerError),
    ],
)
def test_statuses(server, status, error):
    """Any status can be scripted, and the client raises what it raises for the provider's."""
    server.plan([status])
    with pytest.raises(error):
        ask(server)
    assert (server.settle()[0].status, server.log[0].usage) == (status, None)


def test_retry_after(server):
    """The client waits as long as either header says."""
    server.plan([{"status": 429, "retry_after_ms": 120}, {"status": 429, "retry_after": 0.2}])
    answer = client(server, max_retries=2).chat.completions.create(model="m", messages=HELLO)
    assert answer.id == "chatcmpl-000003"
    first, second, third = server.settle()
    assert (first.status, second.status, third.status) == (429, 429, 200)
    assert 0.12 <= second.arrived - first.answered < 0.12 + SLACK
    assert 0.2 <= third.arrived - second.answered < 0.2 + SLACK


def test_should_retry(server):
    """x-should-retry stops and starts retries against the status."""
    server.plan([{"status": 500, "should_retry": False}, {"status": 400, "should_retry": True, "retry_after_ms": 5}])
    with pytest.raises(openai.InternalServerError):
        client(server, max_retries=2).chat.completions.create(model="m", messages=HELLO)
    client(server, max_retries=2).chat.completions.create(model="m", messages=HELLO)
    assert [entry.status for entry in server.settle()] == [500, 400, 200]


def test_headers_and_body(server):
    """Headers, limits and body are the plan's own."""
    limits = {"limit-requests": 60, "remaining-requests": 59, "reset-requests": "1s"}
    server.plan([{"headers": {"X-Extra": "1"}, "ratelimit": limits}, {"status": 502, "body": "<html>bad</html>"}])
    answer = client(server).chat.completions.with_raw_response.create(model="m", messages=HELLO)
    assert answer.headers["x-extra"] == "1"
    assert answer.headers["x-ratelimit-remaining-requests"] == "59"
    assert answer.headers["x-request-id"] == "req_000001"
    with pytest.raises(openai.InternalServerError) as caught:
        ask(server)
    assert caught.value.response.text == "<html>bad</html>"


def test_overflow(server):
    """A context overflow has the code that apps look for."""
    server.plan(["overflow"])
    with pytest.raises(openai.BadRequestError) as caught:
        ask(server)
    assert caught.value.code == "context_length_exceeded"


def test_redirect(server):
    """A redirect leads to the same path, and each hop is a request in the log."""
    server.plan(["redirect", "redirect"])
    assert ask(server).choices[0].message.content == "Echo: hello there"
    assert [(entry.status, entry.body) for entry in server.settle()] == [
        (307, server.log[0].body),
        (307, server.log[0].body),
        (200, server.log[0].body),
    ]


def test_drop_before(server):
    """A dropped connection ends without a byte, a reset one with an error, and both are logged as dropped."""
    server.plan(["drop", "reset", "drop"])
    assert raw(server, post("/v1/chat/completions", CHAT)) == b""
    with pytest.raises(ConnectionResetError):
        raw(server, post("/v1/chat/completions", CHAT))
    with pytest.raises(openai.APIConnectionError):
        ask(server)
    assert [(entry.status, entry.outcome) for entry in server.settle()] == [("dropped", "dropped")] * 3


def test_cut_plain(server):
    """A plain answer that is cut has its whole length in the headers and half of it behind them."""
    server.plan(["cut", {"drop": "middle", "after": 7}, "cut"])
    for size in (None, 7):
        head, _, body = raw(server, post("/v1/chat/completions", CHAT)).partition(b"\r\n\r\n")
        promised = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
        assert len(body) == (size or promised // 2)
    with pytest.raises(openai.APIConnectionError):
        ask(server)
    assert [(entry.status, entry.outcome, entry.usage) for entry in server.settle()] == [(200, "cut", None)] * 3


def test_cut_stream(server):
    """A stream that is cut delivers what the log says and then fails."""
    server.plan([{"drop": "middle", "after": 3}, "cut_reset"])
    chunks = iter(ask(server, stream=True))
    assert len([next(chunks) for _ in range(3)]) == 3
    with pytest.raises(openai.APIConnectionError):
        next(chunks)
    with pytest.raises(openai.APIConnectionError):
        stream(server)
    first, second = server.settle()
    assert (first.status, first.outcome, first.chunks, first.usage) == (200, "cut", 3, None)
    assert (second.status, second.outcome, second.usage) == (200, "cut", None)


def test_stalled_stream(server):
    """A stalled stream keeps the connection open without a byte; the client's timeout ends it."""
    server.plan([{"stall": 5, "after": 2}])
    begun = time.monotonic()
    with pytest.raises(openai.APITimeoutError):
        list(client(server, timeout=0.2).chat.completions.create(model="m", messages=HELLO, stream=True))
    (entry,) = server.settle()
    assert (entry.outcome, entry.chunks) == ("aborted", 2)
    assert time.monotonic() - begun < 2
    assert entry.imposed["body"] < 0.2 + SLACK


def test_stall_is_bounded(server):
    """A stall that nobody ends is dropped when its time is over, in a plain answer too."""
    server.plan({"default": {"stall": 0.1}})
    with pytest.raises(openai.APIConnectionError):
        stream(server)
    with pytest.raises(openai.APIConnectionError):
        ask(server)
    assert [(entry.outcome, entry.usage) for entry in server.settle()] == [("stalled", None)] * 2


def test_error_events(server):
    """An error event ends a stream in each end point's own way."""
    server.plan([{"error": "broken", "after": 2}, {"error": "broken"}, {"error": "broken", "failed": True}])
    with pytest.raises(openai.APIError, match="broken"):
        stream(server)
    responses = client(server).responses
    *_, last = responses.create(model="m", input="x", stream=True)
    assert (last.type, last.message) == ("error", "broken")
    *_, last = responses.create(model="m", input="x", stream=True)
    assert (last.type, last.response.error.message) == ("response.failed", "broken")
    assert [entry.step for entry in server.settle()] == ["error_event"] * 3
    assert server.log[0].chunks == 3


def test_delays(server):
    """Scripted waits happen where the plan puts them, and the log says how long they took."""
    slow = {"delay": 0.1, "body_delay": 0.05, "chunk_delay": 0.02, "chunks": 5}
    server.plan([slow, {"delay": 0.1, "body_delay": 0.1}])
    begun = time.monotonic()
    answer = ask(server, stream=True)
    headers = time.monotonic() - begun
    chunks = list(answer)
    body = time.monotonic() - begun - headers
    ask(server)
    streamed, plain = server.settle()
    assert 0.1 <= streamed.imposed["head"] <= headers < 0.1 + SLACK
    scripted = 0.05 + 0.02 * (len(chunks) - 1)
    assert scripted <= streamed.imposed["body"] < scripted + SLACK
    assert body == pytest.approx(streamed.imposed["body"], abs=SLACK)
    assert 0.1 <= plain.imposed["head"] < 0.1 + SLACK
    assert 0.1 <= plain.imposed["body"] < 0.1 + SLACK


def test_client_goes_away(server, capfd):
    """A client that leaves in the middle is noticed at once, and nobody complains on stderr."""
    server.plan({"default": {"chunk_delay": 0.5}})
    with ask(server, stream=True) as chunks:
        next(iter(chunks))
    begun = time.monotonic()
    (entry,) = server.settle()
    assert entry.outcome == "aborted"
    assert time.monotonic() - begun < SLACK
    with socket.create_connection(("127.0.0.1", server.port)) as sock:
        sock.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nContent-Length: 99\r\n\r\nshort")
    assert ask(server).choices
    assert capfd.readouterr().err == ""


def test_read_delay():
    """A server that is slow to read is slow before the request counts as arrived."""
    with LLMServer(read_delay=0.1) as server:
        begun = time.monotonic()
        ask(server)
        assert server.log[0].arrived - begun >= 0.1
        assert server.log[0].imposed["read"] == 0.1


# --- the plan ---------------------------------------------------------------------------------------------


def test_steps_then_default(server):
    """Steps are used up in order, repeated ones as often as they say, and then the default rules."""
    server.plan({"steps": [{"status": 500, "times": 2}, "ok"], "default": 503, "answer": {"text": "fine"}})
    seen = []
    for _ in range(5):
        try:
            seen.append(ask(server).choices[0].message.content)
        except openai.APIStatusError as error:
            seen.append(error.status_code)
    assert seen == [500, 500, "fine", 503, 503]


def test_rules(server):
    """Rules give each agent its own faults and answers, a fault lying on top of an answer."""
    server.plan(
        {
            "answer": {"text": "anyone"},
            "steps": [{"name": "mine", "delay": 0.01}],
            "rules": [
                {"match": {"user": "now"}, "steps": ["500"]},
                {"match": "tester", "answer": {"text": "tested"}},
                {"match": {"model": "big", "role": "user"}, "default": 429},
            ],
        }
    )

    def say(system: str, user: str, model: str = "small") -> str | int:
        messages = [{"role": "system", "content": system}, {"role": "user", "content": user}]
        try:
            return client(server).chat.completions.create(model=model, messages=messages).choices[0].message.content
        except openai.APIStatusError as error:
            return error.status_code

    assert say("You are the tester.", "now") == 500
    assert say("You are the tester.", "now") == "tested"
    assert say("You are the writer.", "later") == "anyone"
    assert say("You are the writer.", "later", "big-model") == 429
    assert [entry.step for entry in server.settle()] == ["500", "mine", "ok", "429"]


@pytest.mark.parametrize(
    ("plan", "told"),
    [
        (["wobble"], "unknown step 'wobble'"),
        ([{"staus": 500}], "unknown step field staus"),
        ({"stpes": []}, "stpes"),
        ({"rules": [{"match": {"usr": "x"}}]}, "unknown match field usr"),
        ([None], "a step is"),
    ],
)
def test_wrong_plans(server, plan, told):
    """A mistake in a plan is named, in the process and over HTTP, and the old plan stays."""
    with pytest.raises(ValueError, match=told):
        Plan.read(plan)
    answer = httpx2.post(f"{server.url}/__plan", json=plan)
    assert answer.status_code == 400
    assert told in answer.json()["error"]
    assert ask(server).choices


def test_control(server):
    """Plan, log and reset work over HTTP and leave no trace in the log."""
    assert httpx2.post(f"{server.url}/__plan", json=[500]).json() == {"ok": True}
    with pytest.raises(openai.InternalServerError):
        ask(server)
    (entry,) = httpx2.get(f"{server.url}/__log?wait=1").json()
    assert (entry["status"], entry["step"], json.loads(entry["body"])["messages"]) == (500, "500", HELLO)
    assert ["authorization", "Bearer local"] in [[name.lower(), value] for name, value in entry["headers"]]
    httpx2.post(f"{server.url}/__reset")
    assert server.log == []
    with pytest.raises(openai.InternalServerError):  # the plan starts again
        ask(server)
    assert httpx2.get(f"{server.url}/__nothing").status_code == 404


# --- the log and the wire ---------------------------------------------------------------------------------


def test_log_keeps_the_wire(server):
    """Headers are logged in order and in their sender's case, and the body byte for byte."""
    body = b'{"model": "m",  "messages": [{"role":"user","content":"\xc3\xa9\\ud800"}]}'
    raw(server, post("/v1/chat/completions", body, "X-Odd: a:b", "x-odd: 2", "Connection: close"))
    (entry,) = server.settle()
    assert entry.headers == [
        ("Host", "local"),
        ("Content-Length", str(len(body))),
        ("X-Odd", "a:b"),
        ("x-odd", "2"),
        ("Connection", "close"),
    ]
    assert (entry.method, entry.path, entry.body) == ("POST", "/v1/chat/completions", body)


def test_chunked_request(server):
    """A request body in chunks is put together."""
    halves = [CHAT[:10], CHAT[10:]]
    sized = b"".join(b"%x\r\n%b\r\n" % (len(half), half) for half in halves) + b"0\r\n\r\n"
    head = b"POST /v1/chat/completions HTTP/1.1\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
    assert raw(server, head + sized).startswith(b"HTTP/1.1 200 OK\r\n")
    assert server.settle()[0].body == CHAT


def test_keep_alive(server):
    """One connection carries many requests until a step closes it."""
    server.plan(["ok", {"headers": {"connection": "close"}}, "500", "ok"])
    with client(server, max_retries=1) as one:
        for _ in range(3):
            one.chat.completions.create(model="m", messages=HELLO)
    assert [entry.connection for entry in server.settle()] == [1, 1, 2, 2]


@pytest.mark.parametrize(
    "body",
    [b"{", b"[]", b'"x"', b'{"messages": 5}', b'{"stream": true, "stream_options": "x"}', b'{"n": "many"}', b"\xff"],
)
def test_malformed_requests(server, capfd, body):
    """A request that makes no sense gets an answer, never a traceback."""
    answer = raw(server, post("/v1/chat/completions", body, "Connection: close"))
    assert answer.startswith((b"HTTP/1.1 400 ", b"HTTP/1.1 200 "))
    assert capfd.readouterr().err == ""


def test_unknown_path_takes_no_step(server):
    """An unknown path is a 404 that leaves the plan's steps alone."""
    server.plan([500])
    with pytest.raises(openai.NotFoundError):
        client(server).files.list()
    with pytest.raises(openai.InternalServerError):
        ask(server)
    assert [entry.step for entry in server.settle()] == ["refused", "500"]


def test_two_servers_answer_alike():
    """Two runs of the same requests get the same bytes."""
    answers = []
    for _ in range(2):
        with LLMServer(plan=[{"tool_calls": CALLS}, "500", "ok"]) as server:
            connection = http.client.HTTPConnection("127.0.0.1", server.port)
            for _ in range(3):
                connection.request("POST", "/v1/chat/completions", CHAT)
                answer = connection.getresponse()
                answers.append((answer.status, answer.headers.items(), answer.read()))
            connection.close()
    assert answers[:3] == answers[3:]


def test_many_at_once(server):
    """Under concurrent requests every step is used once and the log keeps the order in which they were used."""
    server.plan([{"name": str(number), "delay": 0.01} for number in range(40)])
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: ask(server), range(40)))
    assert [entry.step for entry in server.settle()] == [str(number) for number in range(40)]
    assert [entry.serial for entry in server.log] == list(range(1, 41))


def test_down_and_up_again(server):
    """A stopped server refuses connections, also open ones, and comes back on the same port."""
    with client(server) as one:
        one.models.list()
        begun = time.monotonic()
        server.stop()
        assert time.monotonic() - begun < SLACK
        with pytest.raises(openai.APIConnectionError):
            one.models.list()
        server.start()
        assert one.models.list().data
    assert len(server.settle()) == 2


def test_stop_leaves_no_thread():
    """After a stop no thread of the server is left, idle connections included."""
    before = threading.active_count()
    with LLMServer() as server, client(server) as one:
        one.models.list()
    deadline = time.monotonic() + 2
    while threading.active_count() > before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert threading.active_count() == before


def test_as_a_program(tmp_path):
    """Run as a program it prints its URL, writes its log, ends on SIGTERM and says nothing else."""
    plan, log = tmp_path / "plan.json", tmp_path / "log.jsonl"
    plan.write_text(json.dumps(["drop", {"text": "from the plan"}]))
    command = [sys.executable, llm_server.__file__, "--port", "0", "--plan", str(plan), "--log", str(log)]
    begun = time.monotonic()
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as child:
        url = child.stdout.readline().strip()
        assert time.monotonic() - begun < 2  # 0.05 s on an idle machine
        one = OpenAI(base_url=f"{url}/v1", api_key="local", max_retries=1)
        assert one.chat.completions.create(model="m", messages=HELLO).choices[0].message.content == "from the plan"
        seen = httpx2.get(f"{url}/__log?wait=1").json()
        child.send_signal(signal.SIGTERM)
        out, err = child.communicate(timeout=5)
    assert (child.returncode, out, err) == (0, "", "")
    written = [json.loads(line) for line in log.read_text().splitlines()]
    assert written == seen
    assert [entry["status"] for entry in written] == ["dropped", 200]


def test_program_names_a_wrong_plan(tmp_path):
    """A plan that cannot be read ends the program with one line."""
    plan = tmp_path / "plan.json"
    plan.write_text('["wobble"]')
    command = [sys.executable, llm_server.__file__, "--plan", str(plan)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=10)
    assert done.returncode == 2
    assert done.stderr.startswith("llm_server: unknown step 'wobble'")
    assert len(done.stderr.splitlines()) == 1


def test_standard_library_only():
    """The server imports nothing beyond the standard library."""
    folder = Path(llm_server.__file__).parent
    loaded = "{name.partition('.')[0] for name in sys.modules} - sys.stdlib_module_names"
    code = f"import sys; sys.path.insert(0, {str(folder)!r}); import llm_server; print(sorted({loaded}))"
    command = [sys.executable, "-I", "-S", "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, timeout=10)
    assert done.stdout.strip() == "['__main__', 'llm_server']", done.stderr

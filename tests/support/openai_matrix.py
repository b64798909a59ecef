"""Every way to call openai, bare and then watched, under the version at hand; prints what both saw as JSON.

Run by tests/integrations/test_openai.py in each environment (tests/support/versions.py).
"""

from __future__ import annotations

import json
import re
import sys
import warnings
from collections.abc import Callable, Coroutine
from functools import partial
from hashlib import sha256
from typing import Any, NamedTuple

import openai
from both import each, entered, got, listed, run, span_json
from openai import _base_client
from pydantic import BaseModel

from llm_server import LLMServer

warnings.simplefilter("ignore")
_base_client.INITIAL_RETRY_DELAY = 0.02  # a dropped connection names no delay of its own

MODEL = "gpt-4o-mini"
MESSAGES = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "one two three four"}]
ASK: dict[str, Any] = {"model": MODEL, "messages": MESSAGES}
SAY: dict[str, Any] = {"model": MODEL, "input": "one two three four"}
TOOLS = [{"type": "function", "function": {"name": "search", "parameters": {"type": "object", "properties": {}}}}]
SEARCH = {"type": "function", "name": "search"}
CALLS = [{"name": "search", "arguments": {"q": "x"}}, {"name": "search", "arguments": {"q": "y"}}]
USAGE = {"stream_options": {"include_usage": True}}
SOON = {"retry_after_ms": 15}
RETRIED = [{"status": 429, **SOON}, {"status": 500, **SOON}, "ok"]


class Answer(BaseModel):
    """A structured answer."""

    title: str
    pages: int


class Cell(NamedTuple):
    """One way to call: a scenario for a client, the server's plan, and what makes the client."""

    scenario: Callable[[Any], Coroutine[Any, Any, Any]]
    plan: Any = ()
    client: str = "openai"
    options: dict[str, Any] = {}  # noqa: RUF012 - a default that nobody changes


# -- what is called --------------------------------------------------------------------------------------


async def plain(client: Any, **more: Any) -> Any:
    return await got(client.chat.completions.create(**ASK, **more))


async def stream(client: Any, **more: Any) -> Any:
    answer = await got(client.chat.completions.create(**ASK, stream=True, **more))
    return [type(answer), *await listed(answer)]


async def raw(client: Any, parse: bool = True, **more: Any) -> Any:
    answer = await got(client.chat.completions.with_raw_response.create(**ASK, **more))
    said = [type(answer), answer.status_code, answer.http_response.status_code, answer.retries_taken]
    if not parse:
        return said
    parsed = answer.parse()
    return [*said, type(parsed), *(await listed(parsed) if more.get("stream") else [parsed])]


async def streaming_response(client: Any, read: str = "parse", **more: Any) -> Any:
    async with entered(client.chat.completions.with_streaming_response.create(**ASK, **more)) as answer:
        said = [type(answer), answer.status_code]
        if read == "parse":
            parsed = await got(answer.parse())
            return [*said, type(parsed), *(await listed(parsed) if more.get("stream") else [parsed])]
        if read == "lines":
            return [*said, *await listed(answer.iter_lines())]
        if read == "read":
            return [*said, await got(answer.read())]
        return said


async def parse(client: Any) -> Any:
    answer = await got(client.chat.completions.parse(**ASK, response_format=Answer))
    return [answer, answer.choices[0].message.parsed]


async def chat_helper(client: Any) -> Any:
    async with entered(client.chat.completions.stream(**ASK, **USAGE)) as answer:
        events = [event.type async for event in each(answer)]
        return [type(answer), *events, await got(answer.get_final_completion())]


async def responses(client: Any, **more: Any) -> Any:
    return await got(client.responses.create(**SAY, **more))


async def responses_stream(client: Any) -> Any:
    answer = await got(client.responses.create(**SAY, stream=True))
    return [type(answer), *await listed(answer)]


async def responses_helper(client: Any) -> Any:
    async with entered(client.responses.stream(**SAY)) as answer:
        events = [event.type async for event in each(answer)]
        return [type(answer), *events, await got(answer.get_final_response())]


async def responses_parse(client: Any) -> Any:
    answer = await got(client.responses.parse(**SAY, text_format=Answer))
    return [answer, answer.output_parsed]


async def responses_raw(client: Any) -> Any:
    answer = await got(client.responses.with_raw_response.create(**SAY))
    return [type(answer), answer.parse()]


async def responses_lines(client: Any) -> Any:
    async with entered(client.responses.with_streaming_response.create(**SAY, stream=True)) as answer:
        return [type(answer), *await listed(answer.iter_lines())]


async def embeddings(client: Any, **more: Any) -> Any:
    return await got(client.embeddings.create(model="text-embedding-3-small", input=["one two", "three"], **more))


async def embeddings_raw(client: Any, **more: Any) -> Any:
    create = client.embeddings.with_raw_response.create
    answer = await got(create(model="text-embedding-3-small", input="one two", encoding_format="float", **more))
    return [type(answer), answer.parse()]


async def models(client: Any) -> Any:
    return await listed(client.models.list() if isinstance(client, openai.OpenAI) else await client.models.list())


async def model(client: Any) -> Any:
    return await got(client.models.retrieve("gpt-4o"))


async def legacy_completion(client: Any) -> Any:
    return await got(client.completions.create(model=MODEL, prompt="one two"))


async def own_path(client: Any) -> Any:
    answer = await got(client.post("/chat/completions", body=ASK, cast_to=object))
    return [type(answer), answer]


async def fewer_retries(client: Any) -> Any:
    return await plain(client.with_options(max_retries=1))


async def text_only(client: Any) -> Any:
    return await plain(client, timeout=0.1)


CELLS: dict[str, Cell] = {
    "plain": Cell(plain),
    "plain_retried": Cell(plain, RETRIED),
    "plain_parameters": Cell(partial(plain, temperature=0.5, top_p=0.9, max_tokens=50, seed=7, stop=["x"], n=2)),
    "plain_tools": Cell(partial(plain, tools=TOOLS), [{"tool_calls": CALLS}]),
    "plain_usage_details": Cell(plain, [{"usage": {"prompt": 100, "completion": 20, "cached": 64, "reasoning": 8}}]),
    "plain_no_usage": Cell(plain, [{"usage": False}]),
    "plain_redirected": Cell(plain, ["redirect", "ok"]),
    "plain_dropped": Cell(plain, ["drop", "ok"]),
    "stream": Cell(stream),
    "stream_usage": Cell(partial(stream, **USAGE)),
    "stream_retried": Cell(partial(stream, **USAGE), RETRIED),
    "stream_tools": Cell(partial(stream, tools=TOOLS, **USAGE), [{"tool_calls": CALLS}]),
    "stream_n": Cell(partial(stream, n=2, **USAGE)),
    "stream_error_event": Cell(stream, ["error_event"]),
    "stream_cut": Cell(stream, ["cut"]),
    "raw": Cell(raw),
    "raw_unparsed": Cell(partial(raw, parse=False)),
    "raw_retried": Cell(raw, RETRIED),
    "raw_stream": Cell(partial(raw, stream=True, **USAGE)),
    "streaming_response": Cell(streaming_response),
    "streaming_response_retried": Cell(streaming_response, RETRIED),
    "streaming_response_stream": Cell(partial(streaming_response, stream=True, **USAGE)),
    "streaming_response_lines": Cell(partial(streaming_response, read="lines")),
    "streaming_response_stream_lines": Cell(partial(streaming_response, read="lines", stream=True, **USAGE)),
    "streaming_response_read": Cell(partial(streaming_response, read="read")),
    "streaming_response_unread": Cell(partial(streaming_response, read="no")),
    "parse": Cell(parse),
    "chat_helper": Cell(chat_helper),
    "responses": Cell(responses),
    "responses_retried": Cell(responses, RETRIED),
    "responses_tools": Cell(partial(responses, tools=[SEARCH]), [{"tool_calls": CALLS}]),
    "responses_incomplete": Cell(responses, [{"finish": "length"}]),
    "responses_large": Cell(responses_stream, [{"text": "word " * 60_000, "chunks": 3}]),
    "responses_stream": Cell(responses_stream),
    "responses_stream_failed": Cell(responses_stream, [{"error": "no", "failed": True}]),
    "responses_stream_error": Cell(responses_stream, [{"error": "no"}]),
    "responses_helper": Cell(responses_helper),
    "responses_parse": Cell(responses_parse),
    "responses_raw": Cell(responses_raw),
    "responses_lines": Cell(responses_lines),
    "embeddings": Cell(embeddings),
    "embeddings_float": Cell(partial(embeddings, encoding_format="float", dimensions=4)),
    "embeddings_large": Cell(partial(embeddings, encoding_format="float", dimensions=50_000)),
    "embeddings_raw_large": Cell(partial(embeddings_raw, dimensions=80_000)),
    "embeddings_raw": Cell(embeddings_raw),
    "embeddings_retried": Cell(embeddings, RETRIED),
    "models": Cell(models),
    "model": Cell(model),
    "legacy_completion": Cell(legacy_completion),
    "own_path": Cell(own_path),
    "azure": Cell(plain, RETRIED, client="azure"),
    "azure_stream": Cell(partial(stream, **USAGE), client="azure"),
    "fewer_retries": Cell(fewer_retries, {"default": {"status": 503, **SOON}}),
    "no_retries": Cell(plain, [500], options={"max_retries": 0}),
    "status_400": Cell(plain, [400]),
    "status_401": Cell(plain, [401]),
    "status_404": Cell(stream, [404]),
    "status_422": Cell(raw, [422]),
    "status_429": Cell(plain, {"default": {"status": 429, **SOON}}),
    "status_500": Cell(streaming_response, {"default": {"status": 500, **SOON}}),
    "overflow": Cell(plain, ["overflow"]),
    "read_timeout": Cell(text_only, {"default": {"delay": 0.4}}, options={"max_retries": 0}),
    "dropped_always": Cell(plain, {"default": "drop"}, options={"max_retries": 1}),
    "bad_request": Cell(partial(plain, stop=object())),
}
if int(openai.__version__.split(".")[0]) >= 3:
    CELLS["legacy_http"] = Cell(plain, RETRIED, client="httpx")
    CELLS["legacy_http_stream"] = Cell(partial(stream, **USAGE), client="httpx")


# -- who calls, and what is said of it ---------------------------------------------------------------------


def client_for(cell: Cell, mode: str, server: LLMServer) -> Any:
    """Return a fresh client of the cell's kind."""
    options: dict[str, Any] = {"api_key": "sk-test", **cell.options}
    if cell.client == "azure":
        kind = openai.AzureOpenAI if mode == "sync" else openai.AsyncAzureOpenAI
        return kind(azure_endpoint=server.url, api_version="2025-01-01", **options)
    if cell.client == "httpx":
        import httpx

        client = httpx.Client if mode == "sync" else httpx.AsyncClient
        options["http_client"] = client(follow_redirects=True)
    return (openai.OpenAI if mode == "sync" else openai.AsyncOpenAI)(base_url=server.base_url, **options)


async def outcome(cell: Cell, client: Any) -> dict[str, Any]:
    """Return what the app saw: the result, or the exception and its causes."""
    try:
        result = await cell.scenario(client)
        return {"type": type(result).__qualname__, "result": said(result)}
    except Exception as error:
        return {"raised": said_of(error)}
    finally:
        await got(client.close())


def said(result: Any) -> str:
    """Return a result as text, a very long one by its digest."""
    text = repr(result)
    return text if len(text) < 50_000 else f"{len(text)} {sha256(text.encode()).hexdigest()}"


def said_of(error: BaseException | None) -> list[Any]:
    """Return an exception and its causes as text."""
    said = []
    while error is not None:
        text = re.sub(r"\b[0-9a-f]{8,}\b", "(address)", str(error))
        said.append([type(error).__module__, type(error).__qualname__, text])
        error = error.__cause__ or error.__context__
    return said


def on_the_wire(server: LLMServer) -> list[dict[str, Any]]:
    """Return what the server saw and answered."""
    entries = server.settle()
    first = min((entry.connection for entry in entries), default=0)
    return [
        {
            "method": entry.method,
            "path": entry.path,
            "headers": entry.headers,
            "body": entry.body.decode("latin-1"),
            "connection": entry.connection - first,
            "status": entry.status,
            "usage": entry.usage,
            "outcome": entry.outcome,
        }
        for entry in entries
    ]


def once(server: LLMServer, cell: Cell, mode: str) -> dict[str, Any]:
    """Run one cell."""
    server.reset()
    server.plan(cell.plan if isinstance(cell.plan, dict) else list(cell.plan))
    client = client_for(cell, mode, server)
    return {**run(mode, outcome(cell, client)), "wire": on_the_wire(server)}


def main() -> None:
    """Run every cell bare, then watched."""
    only = sys.argv[1:]
    chosen = [name for name in CELLS if not only or name in only]
    ways = [(mode, name) for mode in ("sync", "async") for name in chosen]
    found: dict[str, Any] = {}
    with LLMServer() as server:
        for mode, name in ways:
            found[f"{mode}-{name}"] = {"bare": once(server, CELLS[name], mode)}

        import watchkeep
        from watchkeep import guard
        from watchkeep.testing import capture

        guard.raising = True
        for mode, name in ways:
            with capture() as captured:
                watchkeep.instrument()
                before = guard.faults
                cell = found[f"{mode}-{name}"]
                cell["watched"] = once(server, CELLS[name], mode)
                cell["spans"] = [span_json(span) for span in captured.spans()]
                cell["calls"] = captured.value("resilience.calls")
                cell["unknown"] = captured.value("agent_runtime.usage.unknown")
                cell["faults"] = guard.faults - before
    print(json.dumps({"version": openai.__version__, "cells": found}))


if __name__ == "__main__":
    main()

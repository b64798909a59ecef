"""The ways a stream can end, and where exceptions come from, under the openai at hand; prints spans as JSON.

Run by tests/integrations/test_openai_streams.py in each environment (tests/support/versions.py).
"""

from __future__ import annotations

import asyncio
import gc
import json
import signal
import sys
import warnings
from collections.abc import Callable, Coroutine
from typing import Any

import openai
from both import each, entered, got, listed, run, span_json
from openai import _base_client

from llm_server import LLMServer

warnings.simplefilter("ignore")
http: Any = getattr(_base_client, "httpx2", None) or _base_client.httpx  # type: ignore[attr-defined]

ASK: dict[str, Any] = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "a b c d e f"}], "stream": True}
STALL = [{"stall": 5.0, "after": 2}]

Scenario = Callable[[Any], Coroutine[Any, Any, Any]]


async def settled() -> None:
    """Let the collector and, in an event loop, the closing of dropped generators finish."""
    gc.collect()
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return
    for _ in range(3):
        await asyncio.sleep(0.002)
        gc.collect()


async def opened(client: Any, **more: Any) -> Any:
    return await got(client.chat.completions.create(**ASK, **more))


async def first(stream: Any) -> Any:
    return await anext(stream) if hasattr(stream, "__anext__") else next(stream)


# -- the eight ways ----------------------------------------------------------------------------------------


async def drained(client: Any) -> Any:
    return len(await listed(await opened(client)))


async def broken_off(client: Any) -> Any:
    stream = await opened(client)
    if isinstance(client, openai.OpenAI):
        for _ in stream:
            break
    else:
        async for _ in stream:
            break
    del stream
    await settled()


async def closed(client: Any) -> Any:
    stream = await opened(client)
    await first(stream)
    await got(stream.close())
    await got(stream.close())


async def with_block(client: Any) -> Any:
    async with entered(await opened(client)) as stream:
        await first(stream)


async def abandoned(client: Any) -> Any:
    stream = await opened(client)
    await first(stream)
    del stream
    await settled()


async def never_read(client: Any) -> Any:
    await opened(client)
    await settled()


async def server_abort(client: Any) -> Any:
    await listed(await opened(client))


async def cancelled(client: Any) -> Any:
    if isinstance(client, openai.OpenAI):
        signal.signal(signal.SIGALRM, signal.default_int_handler)
        signal.setitimer(signal.ITIMER_REAL, 0.15)
        await listed(await opened(client))
    else:
        async with asyncio.timeout(0.15):
            await listed(await opened(client))


# -- further ways ------------------------------------------------------------------------------------------


async def interrupted_consumer(client: Any) -> Any:
    async with entered(await opened(client)) as stream:
        await first(stream)
        raise KeyboardInterrupt


async def app_error(client: Any) -> Any:
    async with entered(await opened(client)) as stream:
        await first(stream)
        raise ValueError("the app's own")


async def stalled(client: Any) -> Any:
    await listed(await opened(client, timeout=0.15))


async def helper(client: Any) -> Any:
    more = {key: value for key, value in ASK.items() if key != "stream"}
    async with entered(client.chat.completions.stream(**more)) as stream:
        async for _ in each(stream):
            break


async def raw_closed(client: Any) -> Any:
    answer = await got(client.chat.completions.with_raw_response.create(**ASK))
    stream = answer.parse()
    await first(stream)
    await got(stream.close())


async def response_unread(client: Any) -> Any:
    async with entered(client.chat.completions.with_streaming_response.create(**ASK)):
        pass


async def in_generator(client: Any) -> Any:
    async def chunks() -> Any:
        async with entered(await opened(client)) as stream:
            async for chunk in each(stream):
                yield chunk

    generator = chunks()
    await anext(generator)
    await generator.aclose()
    await settled()


async def other_task(client: Any) -> Any:
    stream = await opened(client)
    await first(stream)
    if hasattr(stream, "__anext__"):
        await asyncio.create_task(stream.close())
    else:
        from threading import Thread

        thread = Thread(target=stream.close)
        thread.start()
        thread.join()


# -- whose exception it is -----------------------------------------------------------------------------------

BOOM: dict[str, Exception] = {
    name: getattr(http, name)("boom") for name in ("ConnectError", "ReadError", "ReadTimeout", "PoolTimeout")
}
BOOM["RuntimeError"] = RuntimeError("boom")


class Broken(http.SyncByteStream, http.AsyncByteStream):  # type: ignore[misc]
    """A body that gives one chunk and then raises."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    def __iter__(self) -> Any:
        yield b'data: {"id":"1","choices":[{"index":0,"delta":{"content":"x"}}]}\n\n'
        raise self.error

    async def __aiter__(self) -> Any:
        yield b'data: {"id":"1","choices":[{"index":0,"delta":{"content":"x"}}]}\n\n'
        raise self.error


def raising(mode: str, error: Exception, place: str) -> Any:
    """Return an HTTP client whose transport, body or event hook raises `error`."""

    def answer(request: Any) -> Any:
        if place == "transport":
            raise error
        return http.Response(200, headers={"content-type": "text/event-stream"}, stream=Broken(error))

    def hook(_: Any) -> None:
        raise error

    async def ahook(_: Any) -> None:
        raise error

    hooks = {} if place in ("transport", "body") else {place: [hook if mode == "sync" else ahook]}
    kind = http.Client if mode == "sync" else http.AsyncClient
    return kind(transport=http.MockTransport(answer), event_hooks=hooks)


def depth_of(error: BaseException, boom: BaseException) -> int:
    """Return how many causes above the very object `boom` the exception stands, -1 where it is none of them."""
    link: BaseException | None = error
    for depth in range(8):
        if link is boom:
            return depth
        link = link.__cause__ if link is not None else None
    return -1


def identities(mode: str) -> dict[str, Any]:
    """Return, for each exception and place, what the app got and where in it the very object is."""
    found = {}
    for place in ("transport", "body", "request", "response"):
        for name, boom in BOOM.items():
            boom.__cause__ = boom.__context__ = None
            try:
                run(mode, identity(mode, raising(mode, boom, place)))
            except Exception as error:
                notes = list(getattr(error, "__notes__", []))
                found[f"{place}-{name}"] = [type(error).__name__, depth_of(error, boom), notes]
    return found


async def identity(mode: str, client: Any) -> None:
    kind = openai.OpenAI if mode == "sync" else openai.AsyncOpenAI
    sdk = kind(api_key="x", base_url="http://127.0.0.1:9/v1", http_client=client, max_retries=0)
    await listed(await opened(sdk))


# -- the run -----------------------------------------------------------------------------------------------

WAYS: dict[str, tuple[Scenario, Any]] = {
    "drained": (drained, ["ok"]),
    "break": (broken_off, ["ok"]),
    "close": (closed, ["ok"]),
    "with_block": (with_block, ["ok"]),
    "abandoned": (abandoned, ["ok"]),
    "never_read": (never_read, ["ok"]),
    "server_abort": (server_abort, ["cut"]),
    "cancelled": (cancelled, STALL),
    "cancelled_before": (cancelled, [{"delay": 5.0}]),
    "interrupted_consumer": (interrupted_consumer, ["ok"]),
    "app_error": (app_error, ["ok"]),
    "stalled": (stalled, STALL),
    "server_reset": (server_abort, ["cut_reset"]),
    "error_event": (server_abort, ["error_event"]),
    "helper": (helper, ["ok"]),
    "raw_closed": (raw_closed, ["ok"]),
    "response_unread": (response_unread, ["ok"]),
    "in_generator": (in_generator, ["ok"]),
    "other_task": (other_task, ["ok"]),
}


async def ending(scenario: Scenario, mode: str, server: LLMServer) -> str:
    """Run one way to the end; return what came out of it."""
    kind = openai.OpenAI if mode == "sync" else openai.AsyncOpenAI
    client = kind(api_key="x", base_url=server.base_url, max_retries=0)
    try:
        result = f"returned {await scenario(client)}"
    except (Exception, KeyboardInterrupt) as error:
        result = f"raised {type(error).__name__}"
    await settled()
    await got(client.close())
    return result


def ended(name: str, mode: str, server: LLMServer) -> str:
    scenario, plan = WAYS[name]
    server.plan(plan)
    try:
        return str(run(mode, ending(scenario, mode, server)))
    finally:
        gc.collect()


def main() -> None:
    """Run every way bare, then watched."""
    gc.freeze()  # the collector is called often below: it need not look at what the imports made
    ways = [(mode, name) for mode in ("sync", "async") for name in WAYS if not sys.argv[1:] or name in sys.argv[1:]]
    found: dict[str, Any] = {"identities": {}, "ways": {}}
    with LLMServer() as server:
        for mode, name in ways:
            found["ways"][f"{mode}-{name}"] = {"bare": ended(name, mode, server)}
        for mode in ("sync", "async"):
            found["identities"][mode] = {"bare": identities(mode)}

        import watchkeep
        from watchkeep import guard
        from watchkeep.testing import capture

        guard.raising = True
        gc.freeze()
        for mode, name in ways:
            with capture() as captured:
                watchkeep.instrument()
                before = guard.faults
                way = found["ways"][f"{mode}-{name}"]
                way["watched"] = ended(name, mode, server)
                way["spans"] = [span_json(span) for span in captured.spans()]
                points = captured.points("agent_runtime.stream.ended")
                way["counted"] = {point.attributes["agent_runtime.stream.outcome"]: point.value for point in points}
                way["faults"] = guard.faults - before
        for mode in ("sync", "async"):
            with capture():
                found["identities"][mode]["watched"] = identities(mode)
    print(json.dumps({"version": openai.__version__, **found}))


if __name__ == "__main__":
    main()

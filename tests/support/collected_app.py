"""An app whose span processor holds a plain lock while the collector drops what it left: `read`, `unread` or `task`.

Prints as JSON what its own provider was given, and between which moments the collector ran.
"""

from __future__ import annotations

import asyncio
import gc
import json
import sys
import threading
import time
from typing import Any

import httpx2
import openai
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider

import watchkeep
from llm_server import LLMServer

ASK: dict[str, Any] = {"model": "gpt-4o", "messages": [{"role": "user", "content": "a b c"}]}


class Locking(SpanProcessor):
    """Keeps what ended, under a lock that the thread which holds it cannot take again."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.ended: list[ReadableSpan] = []

    def on_end(self, span: ReadableSpan) -> None:
        """Keep the span."""
        with self.lock:
            self.ended.append(span)


class Never(httpx2.AsyncBaseTransport):
    """A provider that does not answer."""

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        return await asyncio.get_running_loop().create_future()


def leave_stream(url: str, read: bool) -> None:
    """Open a stream, read a chunk of it or none, and leave it in a cycle."""
    client = openai.OpenAI(base_url=url, api_key="x")
    stream = client.chat.completions.create(**ASK, stream=True)
    if read:
        next(stream)
    cycle: list[Any] = [stream]
    cycle.append(cycle)


def leave_task() -> None:
    """Leave a call pending in a loop that is closed."""

    async def call() -> None:
        http = httpx2.AsyncClient(transport=Never())
        client = openai.AsyncOpenAI(base_url="http://x/v1", api_key="x", http_client=http)
        await client.chat.completions.create(**ASK)

    async def begin() -> None:
        task = asyncio.ensure_future(call())
        task._log_destroy_pending = False  # type: ignore[attr-defined]
        await asyncio.sleep(0.5)

    loop = asyncio.new_event_loop()
    loop.run_until_complete(begin())
    loop.close()


def main(way: str) -> None:
    """Let the collector run where the processor's lock is held."""
    gc.disable()
    locking = Locking()
    provider = TracerProvider()
    provider.add_span_processor(locking)
    trace.set_tracer_provider(provider)
    watchkeep.instrument()
    with LLMServer() as server:
        if way == "task":
            leave_task()
        else:
            leave_stream(server.base_url, way == "read")
        before = time.time_ns()
        with locking.lock:
            gc.collect()
        after = time.time_ns()
        time.sleep(0.3)
        watchkeep.flush()
    spans = [
        {
            "name": span.name,
            "end": span.end_time,
            "attributes": dict(span.attributes or {}),
        }
        for span in locking.ended
    ]
    print(json.dumps({"before": before, "after": after, "spans": spans}))


if __name__ == "__main__":
    main(sys.argv[1])

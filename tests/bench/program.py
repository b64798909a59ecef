"""One variant of the bench, in a process of its own: bare, floor or watched.

    python program.py VARIANT BASE_URL SCALE [--callgrind]

Prints one JSON line: for each workload the CPU seconds of its calls, export included. Under callgrind each
workload is dumped by itself, so that the bench reads its instructions.
"""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

VARIANT, BASE_URL, SCALE = sys.argv[1], sys.argv[2], int(sys.argv[3])
CALLS = {"chat": 50, "stream": 50, "few": 10, "many": 10, "retry": 30}  # equal where compared: each ends with a flush
CALLGRIND = "--callgrind" in sys.argv
MESSAGES = [{"role": "user", "content": "Say what a circuit breaker is, in one sentence."}]

if VARIANT == "watched":
    import watchkeep

    watchkeep.instrument()

import openai  # noqa: E402 - after the hooks, as under `watchkeep run`

client = openai.OpenAI(base_url=BASE_URL, api_key="sk-bench", max_retries=2)


def chat(model: str = "bench") -> None:
    client.chat.completions.create(model=model, messages=MESSAGES, temperature=0.7, max_tokens=800)


def stream() -> None:
    for _ in client.chat.completions.create(
        model="bench-stream", messages=MESSAGES, temperature=0.7, stream=True, stream_options={"include_usage": True}
    ):
        pass


def retried() -> None:
    chat("bench-retry")


def events(count: int) -> Callable[[], None]:
    """A stream without a network and without decoding: every run reads the same parts, and what a chunk adds shows."""
    import httpx2

    event = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "bench", "usage": None}
    going_on = {**event, "choices": [{"index": 0, "delta": {"content": "word "}, "finish_reason": None}]}
    parts = [f"data: {json.dumps(going_on)}\n\n".encode()] * count + [b"data: [DONE]\n\n"]

    class Parts(httpx2.SyncByteStream):
        def __iter__(self) -> Iterator[bytes]:
            return iter(parts)

    def answer(_: object) -> httpx2.Response:
        return httpx2.Response(200, headers={"content-type": "text/event-stream"}, stream=Parts())

    offline = openai.OpenAI(
        base_url=BASE_URL, api_key="sk-bench", http_client=httpx2.Client(transport=httpx2.MockTransport(answer))
    )

    def call() -> None:
        asked = offline.chat.completions.with_streaming_response
        with asked.create(model="bench", messages=MESSAGES, stream=True) as response:
            for _ in response.iter_bytes():
                pass

    return call


WORKLOADS: dict[str, Callable[[], None]] = {
    "chat": chat,
    "stream": stream,
    "few": events(10),
    "many": events(1010),
    "retry": retried,
}
if VARIANT == "floor":
    from floor import observed

    WORKLOADS = {name: observed(call) for name, call in WORKLOADS.items()}


def flush() -> None:
    if VARIANT == "watched":
        watchkeep.flush(10)
    elif VARIANT == "floor":
        from floor import flush as flush_floor

        flush_floor()


def control(*arguments: str) -> None:
    if CALLGRIND:
        subprocess.run(
            ["callgrind_control", *arguments, str(os.getpid())],
            check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip


def measure() -> dict[str, float]:
    spent = {}
    for call in WORKLOADS.values():
        for _ in range(3):
            call()
    flush()
    gc.collect()
    gc.disable()  # its runs fall where they fall: a full one costs as much as a thousand chunks
    for name, call in WORKLOADS.items():
        control("-i", "on")
        control("-z")
        before = time.process_time()
        for _ in range(CALLS[name] * SCALE):
            call()
        flush()
        spent[name] = (time.process_time() - before) / (CALLS[name] * SCALE)
        control(f"--dump={name}")
        control("-i", "off")
    return spent


print(json.dumps({"cpu": measure(), "calls": {name: count * SCALE for name, count in CALLS.items()}}), flush=True)

"""The time ledger: each phase is the delay that the server or the test imposed, and the sum is the span."""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import httpx2
import openai
import pytest

from llm_server import LLMServer
from support.both import each, got, listed, run
from support.tls import TLSFront, certificate
from support.versions import environment
from watchkeep import names
from watchkeep.export.model import SpanData
from watchkeep.ledger import Ledger
from watchkeep.testing import Capture

D = 0.1  # seconds: the delay that most tests impose
TRIES = 6  # a busy machine adds to a delay; a wrong ledger is wrong every time
ASK: dict[str, Any] = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "a b c d e f"}]}

Expected = dict[str, float]  # phase -> seconds; phases left out are expected to be small


@pytest.fixture(autouse=True)
def quick_switches() -> Any:
    """Let the server's threads hand over at once: by default a thread may keep the interpreter for 5 ms."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(0.0002)
    yield
    sys.setswitchinterval(before)


@pytest.fixture(params=["sync-httpx2", "async-httpx2", "sync-httpx", "async-httpx"])
def way(request: pytest.FixtureRequest) -> tuple[str, Any]:
    """Return whether to call sync or async, and the HTTP library below."""
    mode, stack = request.param.split("-")
    return mode, {"httpx": httpx, "httpx2": httpx2}[stack]


@pytest.fixture(scope="module")
def pem(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a certificate for loopback."""
    return certificate(tmp_path_factory.mktemp("tls"))


def client_of(way: tuple[str, Any], url: str, **options: Any) -> Any:
    """Return a client of the mode over the HTTP library."""
    mode, stack = way
    http = (stack.Client if mode == "sync" else stack.AsyncClient)(timeout=10, **options)
    return (openai.OpenAI if mode == "sync" else openai.AsyncOpenAI)(base_url=url, api_key="x", http_client=http)


def phases(span: SpanData) -> Expected:
    """Return the ledger of a span, after the invariants that hold on any machine."""
    root = f"{names.RESILIENCE_CALL_TIME}."
    spent = {key.removeprefix(root): value for key, value in span.attributes.items() if key.startswith(root)}
    assert set(spent) <= set(names.PHASES)
    assert min(spent.values()) >= 0
    assert sum(round(value * 1e9) for value in spent.values()) == span.end_ns - span.start_ns
    return spent


def slack() -> float:
    """Return 5 ms, or as much more as other programs slow this machine down right now."""
    seconds = []
    for _ in range(5):
        begun, used = time.perf_counter(), time.thread_time()
        sum(range(100_000))
        seconds.append((time.perf_counter() - begun) / max(1e-6, time.thread_time() - used))
    return 0.005 * min(3.0, max(1.0, *seconds))


def wrong(span: SpanData, expected: Expected) -> dict[str, tuple[float, float]]:
    """Return the phases that are further than 5 % + 5 ms from what was imposed: (spent, imposed)."""
    bound = slack()
    spent = phases(span)
    return {
        phase: (spent.get(phase, 0.0), expected.get(phase, 0.0))
        for phase in names.PHASES
        if abs(spent.get(phase, 0.0) - expected.get(phase, 0.0)) > 0.05 * expected.get(phase, 0.0) + bound
    }


def holds(captured: Capture, scenario: Callable[[], list[Expected]]) -> None:
    """Run a scenario, which returns what it imposed on each call, until every phase is within its bound."""
    seen: list[Any] = []
    for _ in range(TRIES):
        captured.clear()
        expected = scenario()
        calls = sorted(captured.spans("chat"), key=lambda span: span.start_ns)
        assert len(calls) == len(expected)
        seen.append([wrong(span, wanted) for span, wanted in zip(calls, expected, strict=True)])
        if not any(seen[-1]):
            return
    pytest.fail(f"(spent, imposed) by phase, at each try: {seen}")


def once(
    captured: Capture, way: tuple[str, Any], server: LLMServer, scenario: Callable[[Any], Any], **options: Any
) -> Any:
    """Run an async scenario with a client that has called once, so that nothing is imported or connected later."""

    async def warm() -> Any:
        client = client_of(way, server.base_url, **options)
        server.plan([])
        await got(client.chat.completions.create(**ASK))
        await listed(await got(client.chat.completions.create(**ASK, stream=True)))
        return client

    async def all_of_it() -> Any:
        client = await warm()
        captured.clear()
        server.reset()
        try:
            return await scenario(client)
        finally:
            await got(client.close())

    return run(way[0], all_of_it())


# -- what is imposed -----------------------------------------------------------------------------------------


def test_a_clean_call_is_nearly_all_server(watchkeep_capture, llm_server, way):
    """Nothing is imposed: every phase is small, `other` too."""

    async def scenario(client: Any) -> list[Expected]:
        await got(client.chat.completions.create(**ASK))
        return [{}]

    holds(watchkeep_capture, lambda: once(watchkeep_capture, way, llm_server, scenario))


def test_two_retries_wait_in_backoff_and_in_the_server(watchkeep_capture, llm_server, way):
    """Two retries: the waits before them are `backoff`, the failed attempts' time is `server` too."""

    async def scenario(client: Any) -> list[Expected]:
        failing = {"status": 429, "retry_after_ms": 1000 * D, "delay": D / 2}
        llm_server.plan([failing, failing, {"delay": D / 2}])
        await got(client.chat.completions.create(**ASK))
        one, two, three = llm_server.settle()
        gaps = (two.arrived - one.answered) + (three.arrived - two.answered)
        return [{"backoff": gaps, "server": sum(entry.imposed["head"] for entry in (one, two, three))}]

    holds(watchkeep_capture, lambda: once(watchkeep_capture, way, llm_server, scenario))


def test_a_pool_of_one_makes_the_others_wait_for_a_connection(watchkeep_capture, llm_server, way):
    """Three callers, one connection: none, one and two answers long is the wait for the pool."""

    async def scenario(client: Any) -> list[Expected]:
        llm_server.plan({"default": {"delay": D}})
        if way[0] == "sync":
            started = threading.Barrier(3)
            threads = [threading.Thread(target=_call, args=(client, started)) for _ in range(3)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        else:
            await asyncio.gather(*(client.chat.completions.create(**ASK) for _ in range(3)))
        return []

    def run_once() -> list[Expected]:
        once(watchkeep_capture, way, llm_server, scenario, limits=way[1].Limits(max_connections=1))
        entries = llm_server.settle()
        first = entries[0]
        waits = [entry.arrived - first.arrived for entry in entries]
        calls = sorted(watchkeep_capture.spans("chat"), key=lambda span: phases(span).get("pool_wait", 0.0))
        order = sorted(calls, key=lambda span: span.start_ns)
        by_call = {
            id(call): {"pool_wait": wait, "server": entry.imposed["head"]}
            for call, wait, entry in zip(calls, waits, entries, strict=True)
        }
        return [by_call[id(call)] for call in order]

    holds(watchkeep_capture, run_once)


def _call(client: Any, started: threading.Barrier) -> None:
    started.wait()
    client.chat.completions.create(**ASK)


def test_a_slow_server_is_server(watchkeep_capture, llm_server, way):
    """The time from the request to the headers is `server`, the time to the end of the body `stream`."""

    async def scenario(client: Any) -> list[Expected]:
        llm_server.plan([{"delay": D, "body_delay": D}])
        await got(client.chat.completions.create(**ASK))
        (entry,) = llm_server.settle()
        return [{"server": entry.imposed["head"], "stream": entry.imposed["body"]}]

    holds(watchkeep_capture, lambda: once(watchkeep_capture, way, llm_server, scenario))


def test_a_slow_stream_is_stream(watchkeep_capture, llm_server, way):
    """The time between a stream's chunks is `stream`."""

    async def scenario(client: Any) -> list[Expected]:
        llm_server.plan([{"delay": D / 2, "chunk_delay": D / 6}])
        await listed(await got(client.chat.completions.create(**ASK, stream=True)))
        (entry,) = llm_server.settle()
        return [{"server": entry.imposed["head"], "stream": entry.imposed["body"]}]

    holds(watchkeep_capture, lambda: once(watchkeep_capture, way, llm_server, scenario))


def test_a_slow_consumer_is_consumer(watchkeep_capture, llm_server, way):
    """What the app does between two chunks is `consumer`."""
    pause = time.sleep if way[0] == "sync" else asyncio.sleep

    async def scenario(client: Any) -> list[Expected]:
        held = 0.0
        async for _ in each(await got(client.chat.completions.create(**ASK, stream=True))):
            begun = time.perf_counter()
            await got(pause(D / 6))
            held += time.perf_counter() - begun
        return [{"consumer": held}]

    holds(watchkeep_capture, lambda: once(watchkeep_capture, way, llm_server, scenario))


def test_a_slow_handshake_is_connect(watchkeep_capture, llm_server, way, pem):
    """The time to a new connection, TLS included, is `connect`."""
    context = ssl.create_default_context(cafile=str(pem))
    with TLSFront(pem, llm_server.port, D) as front:

        async def scenario() -> list[Expected]:
            front.waited.clear()
            client = client_of(way, f"https://127.0.0.1:{front.port}/v1", verify=context)
            await got(client.chat.completions.create(**ASK))
            await got(client.close())
            return [{"connect": sum(front.waited)}]

        once(watchkeep_capture, way, llm_server, lambda _: _nothing())
        holds(watchkeep_capture, lambda: run(way[0], scenario()))


async def _nothing() -> None:
    return None


def test_a_slow_name_server_is_connect(watchkeep_capture, llm_server, way, monkeypatch):
    """The time to look up a name is `connect`."""
    real, spent = socket.getaddrinfo, []

    def slow(host: Any, *args: Any, **kwargs: Any) -> Any:
        begun = time.perf_counter()
        if host in ("localhost", b"localhost"):
            time.sleep(D)
        found = [each for each in real(host, *args, **kwargs) if each[0] == socket.AF_INET]
        spent.append(time.perf_counter() - begun)
        return found

    async def scenario() -> list[Expected]:
        spent.clear()
        client = client_of(way, f"http://localhost:{llm_server.port}/v1")
        await got(client.chat.completions.create(**ASK))
        await got(client.close())
        return [{"connect": sum(spent)}]

    once(watchkeep_capture, way, llm_server, lambda _: _nothing())
    monkeypatch.setattr(socket, "getaddrinfo", slow)
    holds(watchkeep_capture, lambda: run(way[0], scenario()))


def test_a_slow_upload_is_send(watchkeep_capture, way):
    """The time to write a request that the server does not read yet is `send`."""
    large = {**ASK, "messages": [{"role": "user", "content": "x" * (12 << 20)}]}
    with LLMServer() as server:

        async def scenario(client: Any) -> list[Expected]:
            server.read_delay = D * 2
            begun = time.perf_counter()
            await got(client.chat.completions.create(**large))
            server.read_delay = 0.0
            return [{"send": time.perf_counter() - begun}]

        for _ in range(TRIES):
            once(watchkeep_capture, way, server, scenario)
            (call,) = watchkeep_capture.spans("chat")
            if D * 2 * 0.95 - 0.005 <= phases(call)["send"] <= D * 4:
                return
        pytest.fail(f"send is {phases(call)}")


def test_a_cut_stream_adds_up(watchkeep_capture, llm_server, way):
    """A stream that the server cuts has its waits in `server` and `stream`, up to the cut."""

    async def scenario(client: Any) -> list[Expected]:
        llm_server.plan([{"delay": D / 2, "chunk_delay": D / 3, "drop": "middle", "after": 3}])
        with pytest.raises(Exception, match=r"closed|Connection"):
            await listed(await got(client.chat.completions.create(**ASK, stream=True)))
        (entry,) = llm_server.settle()
        return [{"server": entry.imposed["head"], "stream": entry.imposed["body"]}]

    holds(watchkeep_capture, lambda: once(watchkeep_capture, way, llm_server, scenario))


def test_a_slow_error_body_is_stream(watchkeep_capture, llm_server, way):
    """The body of an error that a streamed call gets is waited for in `stream`, not in `other`."""

    async def scenario(client: Any) -> list[Expected]:
        llm_server.plan([{"status": 400, "body_delay": D}])
        with pytest.raises(openai.BadRequestError):
            await got(client.chat.completions.create(**ASK, stream=True))
        (entry,) = llm_server.settle()
        return [{"stream": entry.imposed["body"]}]

    holds(watchkeep_capture, lambda: once(watchkeep_capture, way, llm_server, scenario))


# -- what is the same on any machine ---------------------------------------------------------------------------


def test_the_counter_by_phase_is_the_sum_of_the_spans(watchkeep_capture, llm_server, way):
    """`resilience.call.time` by phase counts exactly what the spans say."""

    async def scenario() -> None:
        client = client_of(way, llm_server.base_url)
        for _ in range(3):
            await got(client.chat.completions.create(**ASK))
            await listed(await got(client.chat.completions.create(**ASK, stream=True)))
        await got(client.close())

    run(way[0], scenario())
    spent = [phases(span) for span in watchkeep_capture.spans("chat")]
    assert len(spent) == 6
    for phase in names.PHASES:
        counted = watchkeep_capture.value(names.METRIC_RESILIENCE_CALL_TIME.name, resilience_call_phase=phase)
        assert counted == pytest.approx(sum(each.get(phase, 0.0) for each in spent), abs=1e-12)


def test_entering_phases_never_loses_or_doubles_a_nanosecond():
    """Whatever order phases are entered in, they are not negative and add up; what comes after the end is no part."""
    ledger = Ledger(1_000)
    now = 1_000
    for step, phase in enumerate((*names.PHASES, *reversed(names.PHASES)) * 3):
        now += step * 7
        ledger.enter(phase, now)
    end = ledger.stop()
    ledger.enter("stream")
    ledger.enter("consumer")
    assert sum(ledger.total.values()) == end - 1_000
    assert min(ledger.total.values()) >= 0


FIRST = """
import asyncio, json, openai, watchkeep
from llm_server import LLMServer
from watchkeep.testing import capture

async def call(url):
    async with openai.AsyncOpenAI(base_url=url, api_key="x") as client:
        await client.chat.completions.create(model="m", messages=[{"role": "user", "content": "a"}])

with LLMServer() as server, capture() as captured:
    watchkeep.instrument()
    asyncio.run(call(server.base_url))
    (call,), (wait,) = captured.spans("chat"), captured.spans("wait_for_connection")
    ledger = {key[21:]: value for key, value in call.attributes.items() if key.startswith("resilience.call.time.")}
    metric = captured.points("resilience.pool.connection.wait_time")[0].sum
    print(json.dumps([ledger, (wait.end_ns - wait.start_ns) / 1e9, metric, wait.start_ns >= call.start_ns]))
"""


def test_the_first_async_request_does_not_blame_the_pool_for_an_import():
    """The event loop's backend is imported inside the first checkout of a process: that is `other`, not a wait."""
    for _ in range(TRIES):
        done = subprocess.run(
            [sys.executable, "-c", FIRST], env=environment(), capture_output=True, text=True, timeout=60, check=True
        )
        ledger, waited, metric, inside = json.loads(done.stdout)
        assert inside
        if max(ledger.get("pool_wait", 0.0), waited, metric) < 0.005 < ledger["other"]:
            return
    pytest.fail(f"the ledger is {ledger}, the wait {waited} s, by the metric {metric} s")

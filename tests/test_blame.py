"""Whose fault a failure is: every row of the design's table, provoked for real over loopback."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import httpx2
import openai
import pytest

import watchkeep
from llm_server import LLMServer
from support.both import got, listed, run
from support.tls import TLSFront, certificate
from watchkeep import names
from watchkeep.testing import Capture, capture

MODEL = "gpt-4o-mini"
ASK: dict[str, Any] = {"model": MODEL, "messages": [{"role": "user", "content": "a b c d e f"}]}
LARGE: dict[str, Any] = {"model": MODEL, "messages": [{"role": "user", "content": "x" * (12 << 20)}]}
QUICK = 0.1  # seconds that a timeout takes
PROVIDER, NETWORK, CLIENT = names.PROVIDER, names.NETWORK, names.CLIENT_FAULT
Blame = tuple[str | None, str | None]
FINE: Blame = (None, None)


class World(NamedTuple):
    """What a failure happens in."""

    server: LLMServer
    mode: str
    stack: Any  # httpx or httpx2
    pem: Path

    def client(self, url: str = "", verify: Any = True, **options: Any) -> Any:
        """Return a client that does not retry; `options` are timeouts and limits of its HTTP client."""
        known = {"connect": 5.0, "read": 5.0, "write": 5.0, "pool": 5.0}
        limits = self.stack.Limits(max_connections=options.pop("connections", 10))
        timeout = self.stack.Timeout(**{**known, **options})
        http = self.stack.Client if self.mode == "sync" else self.stack.AsyncClient
        kind = openai.OpenAI if self.mode == "sync" else openai.AsyncOpenAI
        return kind(
            base_url=url or self.server.base_url,
            api_key="x",
            max_retries=0,
            http_client=http(timeout=timeout, limits=limits, verify=verify),
        )


class Row(NamedTuple):
    """A failure, and what it must say on the call's span and on that of its last attempt (None: there is none)."""

    provoke: Callable[[World], Any]
    call: Blame
    attempt: Blame | None


async def chat(client: Any, **more: Any) -> None:
    await got(client.chat.completions.create(**{**ASK, **more}))
    raise AssertionError("it should have failed")


async def stream(client: Any, **more: Any) -> None:
    await listed(await got(client.chat.completions.create(**ASK, stream=True, **more)))
    raise AssertionError("it should have failed")


def step(plan: Any, call: Callable[..., Any] = chat, **options: Any) -> Callable[[World], Any]:
    """Return what provokes a failure that the server's plan makes."""

    async def provoke(world: World) -> None:
        world.server.plan([plan])
        await call(world.client(**options))

    return provoke


async def no_such_name(world: World) -> None:
    await chat(world.client("http://nowhere.invalid/v1"))


async def refused(world: World) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    await chat(world.client(f"http://127.0.0.1:{port}/v1"))


@contextlib.contextmanager
def full_backlog() -> Any:
    """Give the port of a listener that takes no further connection."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as listener, contextlib.ExitStack() as stack:
        for _ in range(4):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(listener.getsockname())
        yield listener.getsockname()[1]


async def no_connection(world: World) -> None:
    with full_backlog() as port:
        await chat(world.client(f"http://127.0.0.1:{port}/v1", connect=QUICK))


async def slow_handshake(world: World) -> None:
    with TLSFront(world.pem, world.server.port, delay=QUICK * 4) as front:
        trusted = ssl.create_default_context(cafile=str(world.pem))
        await chat(world.client(f"https://127.0.0.1:{front.port}/v1", verify=trusted, connect=QUICK))


async def untrusted(world: World) -> None:
    with TLSFront(world.pem, world.server.port) as front:
        await chat(world.client(f"https://127.0.0.1:{front.port}/v1", verify=ssl.create_default_context()))


async def no_tls(world: World) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer() -> None:
            connection, _ = listener.accept()
            connection.recv(4096)
            connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            connection.close()

        threading.Thread(target=answer, daemon=True).start()
        await chat(world.client(f"https://127.0.0.1:{listener.getsockname()[1]}/v1"))


async def never_taken(world: World) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:  # it accepts nothing, so nothing is read
        await chat(world.client(f"http://127.0.0.1:{listener.getsockname()[1]}/v1", write=QUICK), **LARGE)


@asynccontextmanager
async def held(client: Any) -> AsyncIterator[None]:
    """Hold the only connection of a client's pool."""
    answer = await got(client.chat.completions.create(**ASK, stream=True))
    try:
        yield
    finally:
        await got(answer.close())


async def pool_exhausted(world: World) -> None:
    world.server.plan([{"chunk_delay": 0.02}])
    client = world.client(connections=1, pool=QUICK)
    async with held(client):
        await chat(client)


async def cancelled(world: World) -> None:
    world.server.plan([{"delay": 5}])
    if world.mode == "sync":
        import signal

        before = signal.signal(signal.SIGALRM, signal.default_int_handler)
        signal.setitimer(signal.ITIMER_REAL, QUICK)
        try:
            await chat(world.client())
        finally:
            signal.signal(signal.SIGALRM, before)
    async with asyncio.timeout(QUICK):
        await chat(world.client())


async def cancelled_in_back_off(world: World) -> None:
    world.server.plan([{"status": 500, "retry_after": 5}])
    client = world.client().with_options(max_retries=1)
    if world.mode == "sync":
        import signal

        before = signal.signal(signal.SIGALRM, signal.default_int_handler)
        signal.setitimer(signal.ITIMER_REAL, QUICK)
        try:
            await chat(client)
        finally:
            signal.signal(signal.SIGALRM, before)
    async with asyncio.timeout(QUICK):
        await chat(client)


async def unsendable(world: World) -> None:
    await chat(world.client(), stop=object())


STATUSES = {
    **{str(status): CLIENT for status in (400, 401, 403, 404, 413, 422)},
    **{str(status): PROVIDER for status in (408, 409, 429, 500, 502, 503, 529)},
}
STALL = {"stall": QUICK * 4, "after": 2}
ROWS: dict[str, Row] = {
    **{
        f"status_{status}": Row(step(int(status)), (status, origin), (status, origin))
        for status, origin in STATUSES.items()
    },
    "status_500_stream": Row(step(500, stream), ("500", PROVIDER), ("500", PROVIDER)),
    "overflow": Row(step("overflow"), (names.CONTEXT_LENGTH_EXCEEDED, CLIENT), ("400", CLIENT)),
    "error_event": Row(step("error_event", stream), (names.ERROR_EVENT, PROVIDER), FINE),
    "read_timeout": Row(
        step({"delay": QUICK * 4}, read=QUICK), (names.READ_TIMEOUT, PROVIDER), (names.READ_TIMEOUT, PROVIDER)
    ),
    "stalled": Row(step(STALL, stream, read=QUICK), (names.STREAM_STALLED, PROVIDER), FINE),
    "stalled_plain": Row(
        step({**STALL, "after": 20}, read=QUICK), (names.STREAM_STALLED, PROVIDER), (names.STREAM_STALLED, PROVIDER)
    ),
    "broken": Row(step("cut", stream), ("RemoteProtocolError", PROVIDER), FINE),
    "broken_plain": Row(step("cut"), ("RemoteProtocolError", PROVIDER), ("RemoteProtocolError", PROVIDER)),
    "broken_by_reset": Row(step("cut_reset", stream), ("ReadError", PROVIDER), FINE),
    "reset": Row(step("reset"), ("ReadError", NETWORK), ("ReadError", NETWORK)),
    "dropped": Row(step("drop"), ("RemoteProtocolError", NETWORK), ("RemoteProtocolError", NETWORK)),
    "dns": Row(no_such_name, (names.DNS_FAILURE, NETWORK), (names.DNS_FAILURE, NETWORK)),
    "refused": Row(refused, ("ConnectError", NETWORK), ("ConnectError", NETWORK)),
    "connect_timeout": Row(no_connection, (names.CONNECT_TIMEOUT, NETWORK), (names.CONNECT_TIMEOUT, NETWORK)),
    "slow_handshake": Row(slow_handshake, (names.CONNECT_TIMEOUT, NETWORK), (names.CONNECT_TIMEOUT, NETWORK)),
    "untrusted": Row(untrusted, (names.TLS_FAILURE, NETWORK), (names.TLS_FAILURE, NETWORK)),
    "no_tls": Row(no_tls, (names.TLS_FAILURE, NETWORK), (names.TLS_FAILURE, NETWORK)),
    "write_timeout": Row(never_taken, (names.WRITE_TIMEOUT, NETWORK), (names.WRITE_TIMEOUT, NETWORK)),
    "pool_timeout": Row(pool_exhausted, (names.POOL_TIMEOUT, CLIENT), (names.POOL_TIMEOUT, CLIENT)),
    "cancelled": Row(cancelled, (names.CANCELLED, CLIENT), (names.CANCELLED, CLIENT)),
    "cancelled_in_back_off": Row(cancelled_in_back_off, (names.CANCELLED, CLIENT), ("500", PROVIDER)),
    "bad_request": Row(unsendable, ("TypeError", CLIENT), None),
}


@pytest.fixture(scope="module")
def pem(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a certificate for loopback."""
    return certificate(tmp_path_factory.mktemp("tls"))


@pytest.fixture(params=["sync-httpx2", "async-httpx2", "sync-httpx", "async-httpx"])
def world(request: pytest.FixtureRequest, llm_server: LLMServer, pem: Path) -> World:
    """Return a server, a mode and an HTTP library."""
    mode, stack = request.param.split("-")
    return World(llm_server, mode, {"httpx": httpx, "httpx2": httpx2}[stack], pem)


def provoke(row: Row, world: World) -> None:
    """Let it fail."""
    with pytest.raises((Exception, KeyboardInterrupt)) as raised:
        run(world.mode, row.provoke(world))
    assert not isinstance(raised.value, AssertionError)


def blame_of(attributes: dict[str, Any]) -> Blame:
    return attributes.get(names.ERROR_TYPE), attributes.get(names.RESILIENCE_FAULT_ORIGIN)


def counted(captured: Capture) -> dict[Blame, float]:
    """Return `resilience.calls` by error and blame."""
    found: dict[Blame, float] = {}
    for point in captured.points(names.METRIC_RESILIENCE_CALLS.name):
        key = blame_of(point.attributes)
        found[key] = found.get(key, 0) + point.value
    return found


@pytest.mark.parametrize("name", ROWS)
def test_a_failure_is_blamed_on_whose_it_is(watchkeep_capture, world, name):
    """The call's span, its last attempt's span and `resilience.calls` say the same, right thing."""
    row = ROWS[name]
    provoke(row, world)
    call = max(watchkeep_capture.spans("chat"), key=lambda span: span.start_ns)
    assert blame_of(call.attributes) == row.call
    assert call.status_code == 2
    assert call.name == f"chat {MODEL}"
    attempts = [span for span in watchkeep_capture.spans("POST") if span.parent_id == call.span_id]
    assert [blame_of(span.attributes) for span in attempts] == ([] if row.attempt is None else [row.attempt])
    assert [span.status_code for span in attempts] == ([] if row.attempt is None else [0 if row.attempt == FINE else 2])
    calls = counted(watchkeep_capture)
    assert calls.pop(FINE, 0) == (1 if name == "pool_timeout" else 0)  # the stream that held the pool
    assert calls == {row.call: 1}


@pytest.mark.parametrize("mode", ["sync", "async"])
def test_only_provider_faults_count_as_the_providers_at_any_sampling_ratio(monkeypatch, llm_server, pem, mode):
    """With no span sampled, `resilience.calls` has every call, and those of the provider are the provider's only."""
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "traceidratio")
    monkeypatch.setenv("OTEL_TRACES_SAMPLER_ARG", "0")
    some = [name for name in ROWS if "timeout" not in name and "slow" not in name and "stalled" not in name]
    with capture() as captured:
        watchkeep.instrument()
        for name in some:
            provoke(ROWS[name], World(llm_server, mode, httpx2, pem))
        assert captured.spans() == []
        expected: dict[Blame, float] = {}
        for name in some:
            expected[ROWS[name].call] = expected.get(ROWS[name].call, 0) + 1
        assert counted(captured) == expected
        providers = sum(1 for name in some if ROWS[name].call[1] == PROVIDER)
        value = captured.value(names.METRIC_RESILIENCE_CALLS.name, resilience_fault_origin=PROVIDER)
        assert value == providers

"""What a setting adds to an LLM call: usage, chunks, connections, headers for own gateways; and rate limits."""

from __future__ import annotations

import dataclasses
import gc
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import openai
import pytest

import watchkeep
from llm_server import LLMServer
from support.both import got, listed, run
from watchkeep import names, rate_limits
from watchkeep.config import load
from watchkeep.propagation import is_allowed
from watchkeep.testing import Capture, capture

ASK: dict[str, Any] = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "a b c d"}]}


@contextmanager
def watching(**settings: Any) -> Iterator[Capture]:
    """Capture with settings of the test's."""
    with capture(dataclasses.replace(load().config, **settings)) as captured:
        watchkeep.instrument()
        yield captured


@pytest.fixture(params=["sync", "async"])
def mode(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def client_of(mode: str, server: LLMServer, **options: Any) -> Any:
    kind = openai.OpenAI if mode == "sync" else openai.AsyncOpenAI
    return kind(base_url=server.base_url, api_key="x", **options)


async def chat(mode: str, server: LLMServer, **more: Any) -> Any:
    client = client_of(mode, server, **more.pop("client", {}))
    answer = await got(client.chat.completions.create(**ASK, **more))
    chunks = await listed(answer) if more.get("stream") else [answer]
    await got(client.close())
    return chunks


def body_of(server: LLMServer) -> Any:
    return json.loads(server.settle()[-1].body)


# -- tokens --------------------------------------------------------------------------------------------------


def test_a_stream_is_asked_for_its_usage_only_when_set(llm_server, mode):
    """With ask_usage a chat stream carries stream_options.include_usage and nothing else changes; without, nothing."""
    bodies, chunks = {}, {}
    for asked in (False, True):
        with watching(ask_usage=asked) as captured:
            chunks[asked] = run(mode, chat(mode, llm_server, stream=True, temperature=0.5))
            bodies[asked] = body_of(llm_server)
            (span,) = captured.spans("chat")
            assert (names.GEN_AI_USAGE_INPUT_TOKENS in span.attributes) == asked
            assert captured.value(names.METRIC_AGENT_RUNTIME_USAGE_UNKNOWN.name) == (not asked)
    assert bodies[True].pop("stream_options") == {"include_usage": True}
    assert bodies[True] == bodies[False]
    assert len(chunks[True]) == len(chunks[False]) + 1


@pytest.mark.parametrize("more", [{}, {"stream": True, "stream_options": {"include_usage": False}}])
def test_what_the_app_said_of_usage_stands(llm_server, mode, more):
    """A plain call is never touched, nor a stream whose app said that it wants no usage."""
    with watching(ask_usage=False):
        run(mode, chat(mode, llm_server, **more))
    with watching(ask_usage=True):
        run(mode, chat(mode, llm_server, **more))
    bare, watched = llm_server.settle()
    assert watched.body == bare.body


def test_the_app_s_own_options_are_not_changed(llm_server):
    """Asking for usage leaves the dictionaries that the app passed in as they were."""
    options = {"include_obfuscation": False}
    with watching(ask_usage=True):
        run("sync", chat("sync", llm_server, stream=True, stream_options=options))
    assert options == {"include_obfuscation": False}
    assert body_of(llm_server)["stream_options"] == {"include_obfuscation": False, "include_usage": True}


def test_chunks_are_measured_one_by_one_only_when_set(llm_server, mode):
    """With chunk_metrics=all every gap between chunks is in the histogram, whose sum is the time they took."""
    llm_server.plan({"default": {"chunk_delay": 0.01}})
    metric = names.METRIC_GEN_AI_CLIENT_INFERENCE_TIME_PER_OUTPUT_CHUNK.name
    with watching() as captured:
        run(mode, chat(mode, llm_server, stream=True))
        assert captured.points(metric) == []
    with watching(chunk_metrics="all") as captured:
        run(mode, chat(mode, llm_server, stream=True))
        (span,) = captured.spans("chat")
        (point,) = captured.points(metric)
        mean = span.attributes[names.AGENT_RUNTIME_STREAM_GAP_MEAN]
        assert point.count >= 6
        assert point.sum / point.count == pytest.approx(mean)
        assert point.max == pytest.approx(span.attributes[names.AGENT_RUNTIME_STREAM_GAP_MAX])
        assert 0.005 < mean < 0.5  # 10 ms on an idle machine


# -- rate limits -----------------------------------------------------------------------------------------------


def test_what_the_provider_says_of_its_limits_is_shown(llm_server, mode):
    """The x-ratelimit-* headers of the last answer are gauges by resource, provider and model; resets count down."""
    said = {"limit-requests": 500, "remaining-requests": 499, "reset-requests": "120ms"}
    more = {"limit-tokens": 30000, "remaining-tokens": 29000, "reset-tokens": "6m0s"}
    llm_server.plan([{"ratelimit": {**said, "remaining-requests": 3}}, {"ratelimit": {**said, **more}}])
    with watching() as captured:
        for _ in range(2):
            run(mode, chat(mode, llm_server))
        captured.spans()

        def shown(metric: Any, resource: str) -> float:
            (point,) = captured.points(
                metric.name, resilience_rate_limit_resource=resource, gen_ai_request_model="gpt-4o-mini"
            )
            assert point.attributes[names.GEN_AI_PROVIDER_NAME] == "openai"
            return float(point.value)

        assert shown(names.METRIC_RESILIENCE_RATE_LIMIT_LIMIT, "requests") == 500
        assert shown(names.METRIC_RESILIENCE_RATE_LIMIT_REMAINING, "requests") == 499
        assert shown(names.METRIC_RESILIENCE_RATE_LIMIT_REMAINING, "tokens") == 29000
        assert 0 <= shown(names.METRIC_RESILIENCE_RATE_LIMIT_RESET, "requests") <= 0.12
        assert 355 < shown(names.METRIC_RESILIENCE_RATE_LIMIT_RESET, "tokens") <= 360


@pytest.mark.parametrize(
    ("text", "expected"),
    [("6m0s", 360), ("20ms", 0.02), ("1h2m3.5s", 3723.5), ("17", 17), ("1.5", 1.5), ("0s", 0)]
    + [(text, None) for text in ("", "soon", "-1", "1s later", "nan", "1e9", "9" * 40, "2026-11-20T10:00:00Z")],
)
def test_a_reset_is_read_in_every_form(text, expected):
    """Durations and plain seconds are read, anything else is left alone."""
    assert rate_limits.seconds(text) == (pytest.approx(expected) if expected is not None else None)


# -- connections -----------------------------------------------------------------------------------------------


def test_open_telemetry_s_connection_metrics_are_there_only_when_set(llm_server, mode):
    """With http_pool_metrics connections by state, requests under way and the life of a connection are counted."""
    open_now, active = names.METRIC_HTTP_CLIENT_OPEN_CONNECTIONS.name, names.METRIC_HTTP_CLIENT_ACTIVE_REQUESTS.name
    duration = names.METRIC_HTTP_CLIENT_CONNECTION_DURATION.name
    with watching() as captured:
        run(mode, chat(mode, llm_server))
        assert not {open_now, active, duration} & captured.metrics().keys()

    async def scenario(captured: Capture) -> None:
        client = client_of(mode, llm_server)
        stream = await got(client.chat.completions.create(**ASK, stream=True))
        here = {"server_address": "127.0.0.1", "server_port": llm_server.port}
        assert captured.value(open_now, http_connection_state="active", network_protocol_version="1.1", **here) == 1
        assert captured.value(active, http_request_method="POST", **here) == 1
        await listed(stream)
        await got(client.chat.completions.create(**ASK))
        assert captured.value(open_now, http_connection_state="idle", **here) == 1
        assert captured.value(open_now, http_connection_state="active", **here) == 0
        assert captured.value(active, **here) == 0
        await got(client.close())

    gc.collect()
    with watching(http_pool_metrics=True) as captured:
        run(mode, scenario(captured))
        gc.collect()
        (point,) = captured.points(duration, server_port=llm_server.port)
        connections = {entry.connection for entry in llm_server.settle()[1:]}
        assert point.count == len(connections)  # the sync SDK closes the connection of a stream, the async one keeps it
        assert 0 < point.sum < 5


def test_pools_are_read_while_others_are_made(llm_server):
    """Collecting while other threads make clients and call raises nothing and loses no pool."""
    done = threading.Event()

    def call() -> None:
        while not done.is_set():
            client = openai.OpenAI(base_url=llm_server.base_url, api_key="x")
            client.models.list()
            client.close()

    threads = [threading.Thread(target=call) for _ in range(2)]
    with watching(http_pool_metrics=True) as captured:
        for thread in threads:
            thread.start()
        for _ in range(30):
            captured.metrics()
        done.set()
        for thread in threads:
            thread.join()


# -- headers ---------------------------------------------------------------------------------------------------


def test_our_headers_go_to_allowed_hosts_and_nothing_else_changes(llm_server, mode):
    """An allowed host gets traceparent and the correlation ID of the attempt, the rest of the request is byte-equal."""
    with watching():
        run(mode, chat(mode, llm_server))
    with watching(allowed_hosts=("127.0.0.1",)) as captured:
        with watchkeep.correlation("run-7"):
            run(mode, chat(mode, llm_server))
        (attempt,) = captured.spans("POST")
    bare, ours = llm_server.settle()
    added = {name.lower(): value for name, value in ours.headers if (name, value) not in bare.headers}
    assert added.pop("x-correlation-id") == "run-7"
    assert added.pop("traceparent").startswith(f"00-{attempt.trace_id:032x}-{attempt.span_id:016x}-")
    assert added == {}
    assert [pair for pair in ours.headers if pair in bare.headers] == bare.headers
    assert ours.body == bare.body


def test_a_retry_carries_the_ids_of_its_own_attempt(llm_server, mode):
    """Each attempt, and each hop of a redirect, carries its own span id, once."""
    llm_server.plan([{"status": 500, "retry_after_ms": 5}, "redirect", "ok"])
    with watching(allowed_hosts=("127.0.0.1",)) as captured:
        run(mode, chat(mode, llm_server))
        attempts = captured.spans("POST")
    seen = [[value for name, value in entry.headers if name.lower() == "traceparent"] for entry in llm_server.settle()]
    assert [[value[36:52] for value in values] for values in seen] == [[f"{span.span_id:016x}"] for span in attempts]
    assert len(attempts) == 3


def test_a_redirect_to_another_host_takes_nothing_of_ours_along(llm_server, mode):
    """Where an allowed host redirects to one that is not, our headers stay behind."""
    with LLMServer() as other:
        llm_server.plan([{"redirect": f"{other.base_url}/chat/completions"}])
        with watching(allowed_hosts=(f"127.0.0.1:{llm_server.port}",)):
            run(mode, chat(mode, llm_server))
        (first,), (second,) = llm_server.settle(), other.settle()
    assert "traceparent" in {name.lower() for name, _ in first.headers}
    assert not {"traceparent", "x-correlation-id", "baggage"} & {name.lower() for name, _ in second.headers}


def test_headers_that_the_app_set_stand(llm_server, mode):
    """A correlation ID or a traceparent that the app sends itself is not replaced."""
    own = {"X-Correlation-ID": "mine", "traceparent": "00-" + "1" * 32 + "-" + "2" * 16 + "-01"}
    with watching(allowed_hosts=("127.0.0.1",)):
        run(mode, chat(mode, llm_server, client={"default_headers": own}))
    headers = [(name.lower(), value) for name, value in llm_server.settle()[-1].headers]
    assert [value for name, value in headers if name == "x-correlation-id"] == ["mine"]
    assert [value for name, value in headers if name == "traceparent"] == [own["traceparent"]]


@pytest.mark.parametrize(
    ("place", "hosts", "expected"),
    [
        ("gateway.example:443", ("gateway.example",), True),
        ("gateway.example:443", ("gateway.example:443",), True),
        ("gateway.example:8080", ("gateway.example:443",), False),
        ("GATEWAY.example:443", ("gateway.EXAMPLE",), True),
        ("a.corp.example:443", ("*.corp.example",), True),
        ("corp.example:443", ("*.corp.example",), False),
        ("evil-gateway.example:443", ("gateway.example",), False),
        ("gateway.example.evil.test:443", ("gateway.example",), False),
        ("::1:8080", ("[::1]:8080",), True),
        ("api.openai.com:443", (), False),
    ],
)
def test_a_host_is_allowed_by_name_port_or_pattern(place, hosts, expected):
    """An entry is a host, a host with its port, or a pattern; nothing is allowed by likeness."""
    assert is_allowed(place, hosts) is expected

"""The app's ordinary HTTP: OpenTelemetry's own instrumentation sees it, once, whoever loaded it."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import httpx
import httpx2
import openai
import pytest

import watchkeep
from watchkeep import config, guard, names, official_http
from watchkeep.testing import Capture, capture

OFFICIAL = "opentelemetry.instrumentation.httpx"
DURATION = names.METRIC_HTTP_CLIENT_REQUEST_DURATION.name
STACKS = [httpx, httpx2]
HELLO: Any = [{"role": "user", "content": "hi"}]


@pytest.fixture(autouse=True)
def unloaded(watchkeep_capture: Capture) -> Iterator[None]:
    """Begin without the official instrumentation."""
    official_http.unload()
    yield
    official_http.unload()


@pytest.fixture
def url(llm_server: Any) -> str:
    return llm_server.url if llm_server.url.endswith("/v1") else f"{llm_server.url}/v1"


def get(stack: Any, url: str) -> Any:
    with stack.Client() as client:
        return client.get(f"{url}/models")


def aget(stack: Any, url: str) -> Any:
    async def main() -> Any:
        async with stack.AsyncClient() as client:
            return await client.get(f"{url}/models")

    return asyncio.run(main())


def chat(url: str) -> None:
    with openai.OpenAI(base_url=url, api_key="sk-test") as client:
        client.chat.completions.create(model="gpt-4o", messages=HELLO)


def ordinary(captured: Capture) -> list[Any]:
    return [span for span in captured.spans() if span.scope.name == OFFICIAL]


def counted(captured: Capture) -> dict[str, int]:
    """Give the number of requests that each scope has counted."""
    found: dict[str, int] = {}
    captured.flush()
    for metric in captured._collect():
        if metric.name == DURATION:
            found[metric.scope.name] = sum(point.count for point in metric.points)
    return found


@pytest.mark.parametrize("stack", STACKS)
@pytest.mark.parametrize("how", [get, aget])
def test_the_very_first_request(how: Any, stack: Any, url: str, watchkeep_capture: Capture) -> None:
    """The request that loads the instrumentation has its span, with our correlation ID, and its duration."""
    how(stack, url)
    (span,) = ordinary(watchkeep_capture)
    assert span.name == "GET"
    assert span.attributes[names.HTTP_RESPONSE_STATUS_CODE] == 200
    assert span.attributes[names.AGENT_RUNTIME_CORRELATION_ID]
    (checkout,) = watchkeep_capture.spans("wait_for_connection")
    assert checkout.parent_id == span.span_id
    assert counted(watchkeep_capture) == {OFFICIAL: 1}


def test_requests_at_the_same_moment(url: str, watchkeep_capture: Capture) -> None:
    """Requests of several threads that come first together are all seen."""
    barrier = threading.Barrier(4)

    def one() -> None:
        barrier.wait(5)
        get(httpx, url)

    threads = [threading.Thread(target=one) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert len(ordinary(watchkeep_capture)) == 4


@pytest.mark.parametrize("seam", ["import_module", "_put_gate"])
def test_a_fork_during_the_very_first_request(
    seam: str, url: str, watchkeep_capture: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A child that is made in the middle of the loading waits for nobody, and has whole functions; the parent sees."""
    before = vars(httpx.HTTPTransport)["handle_request"]
    inside, go_on, real = threading.Event(), threading.Event(), getattr(official_http, seam)

    def slow(*args: Any) -> Any:
        inside.set()
        go_on.wait(20)
        return real(*args)

    monkeypatch.setattr(official_http, seam, slow)
    first = threading.Thread(target=get, args=(httpx, url))
    first.start()
    assert inside.wait(20)
    child = os.fork()
    if not child:
        begun = time.monotonic()
        well = all(get(stack, url).status_code == 200 for stack in (httpx, httpx, httpx2))
        whole = vars(httpx.HTTPTransport)["handle_request"] is before
        os._exit(0 if well and whole and time.monotonic() - begun < 4 else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    go_on.set()
    first.join(20)
    assert len(ordinary(watchkeep_capture)) == 1


def test_a_gate_that_somebody_wrapped(url: str, watchkeep_capture: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    """Under a wrapper of the app's our gate stays in place: shut while we are away, and no second one afterwards."""
    get(httpx, url)
    gate = vars(httpx.HTTPTransport)["handle_request"]
    monkeypatch.setattr(httpx.HTTPTransport, "handle_request", lambda self, request: gate(self, request))
    official_http.unload()
    watchkeep_capture.clear()
    monkeypatch.setitem(official_http._gates, "httpx", [])
    monkeypatch.setitem(official_http._gates, "httpx2", [object()])
    get(httpx, url)
    assert ordinary(watchkeep_capture) == []
    official_http._gates.clear()
    get(httpx, url)
    assert len(ordinary(watchkeep_capture)) == 1
    official_http.unload()


def test_a_client_of_the_apps_own_class(url: str, watchkeep_capture: Capture) -> None:
    """A class derived from httpx's is watched as httpx is."""

    class Mine(httpx.Client):
        pass

    with Mine() as client:
        client.get(f"{url}/models")
    assert len(ordinary(watchkeep_capture)) == 1


def test_inside_a_call_the_attempt_stands(url: str, watchkeep_capture: Capture) -> None:
    """Once loaded, it makes no second span or count for the requests of an LLM call."""
    for stack in STACKS:
        get(stack, url)
    watchkeep_capture.clear()
    chat(url)
    assert [span.scope.name for span in watchkeep_capture.spans("POST")] == ["watchkeep.http"]
    assert counted(watchkeep_capture) == {OFFICIAL: 2, "watchkeep.http": 1}


def test_a_request_that_raises(watchkeep_capture: Capture) -> None:
    """A failed request has its span, and its exception is the app's as it was."""
    with pytest.raises(httpx.ConnectError):
        get(httpx, "http://127.0.0.1:1")
    (span,) = ordinary(watchkeep_capture)
    assert span.attributes[names.ERROR_TYPE] == "ConnectError"


@pytest.mark.parametrize("field", ["disabled_instrumentations", "disabled_integrations"])
def test_switched_off(field: str, url: str, watchkeep_capture: Capture) -> None:
    """A setting that names the library leaves its transports alone."""
    before = vars(httpx.HTTPTransport)["handle_request"]
    changed: dict[str, Any] = {field: ("httpx",)}
    with capture(replace(config.load().config, **changed)) as captured:
        get(httpx, url)
    assert ordinary(captured) == []
    assert vars(httpx.HTTPTransport)["handle_request"] is before


def test_not_installed(url: str, watchkeep_capture: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the official package there is one line for debugging, and the request goes on."""
    lines: list[str] = []
    monkeypatch.setitem(sys.modules, OFFICIAL, None)
    monkeypatch.setattr(guard.logger(), "debug", lambda text, *rest: lines.append(text % rest))
    assert get(httpx, url).status_code == 200
    assert get(httpx, url).status_code == 200
    assert len(lines) == 1
    assert "ordinary HTTP" in lines[0]


@pytest.mark.parametrize("stack", STACKS)
def test_uninstrument_gives_the_same_objects_back(stack: Any, url: str, watchkeep_capture: Capture) -> None:
    """uninstrument() puts the transports' own functions back, and instrument() watches again."""
    seams = [(stack.HTTPTransport, "handle_request"), (stack.AsyncHTTPTransport, "handle_async_request")]
    before = [vars(owner)[name] for owner, name in seams]
    get(stack, url)
    assert [vars(owner)[name] for owner, name in seams] != before
    watchkeep.uninstrument()
    try:
        after = [vars(owner)[name] for owner, name in seams]
        assert all(one is other for one, other in zip(after, before, strict=True))
    finally:
        watchkeep.instrument()
    watchkeep_capture.clear()
    get(stack, url)
    assert len(ordinary(watchkeep_capture)) == 1


# Next to the app's own


@pytest.fixture
def present_names(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the app have chosen the stable names, as `watchkeep run` does for it."""
    from opentelemetry.instrumentation import _semconv as semconv

    stability: Any = semconv._OpenTelemetrySemanticConventionStability
    stability._initialize()
    modes = stability._OTEL_SEMCONV_STABILITY_SIGNAL_MAPPING
    monkeypatch.setitem(modes, semconv._OpenTelemetryStabilitySignalType.HTTP, semconv._StabilityMode.HTTP)


def whole(stack: Any) -> Callable[[], None]:
    from opentelemetry.instrumentation.httpx import HTTPX2ClientInstrumentor, HTTPXClientInstrumentor

    instrumentor = HTTPXClientInstrumentor() if stack is httpx else HTTPX2ClientInstrumentor()
    instrumentor.instrument()
    return instrumentor.uninstrument


@pytest.mark.usefixtures("present_names")
@pytest.mark.parametrize("stack", STACKS)
@pytest.mark.parametrize("first", ["the app", "we"])
def test_the_app_instruments_all_clients(first: str, stack: Any, url: str, watchkeep_capture: Capture) -> None:
    """Whoever comes first, an ordinary request has one span and is counted once; the app can take its own off again."""
    if first == "we":
        get(stack, url)
        watchkeep_capture.clear()
    undo = whole(stack)
    try:
        get(stack, url)
        aget(stack, url)
    finally:
        undo()
    assert len(ordinary(watchkeep_capture)) == 2
    assert counted(watchkeep_capture) == {OFFICIAL: 3 if first == "we" else 2}
    watchkeep_capture.clear()
    official_http.unload()
    get(stack, url)
    assert len(ordinary(watchkeep_capture)) == 1


@pytest.mark.parametrize("first", ["the app", "we"])
def test_the_app_instruments_one_client(first: str, url: str, watchkeep_capture: Capture) -> None:
    """A client that the app instrumented has one span for each request, and so has every other one."""
    from opentelemetry.instrumentation.httpx import HTTPXClientInstrumentor, SyncOpenTelemetryTransport

    if first == "we":
        get(httpx, url)
        watchkeep_capture.clear()
    with httpx.Client() as client, httpx.Client(transport=SyncOpenTelemetryTransport(httpx.HTTPTransport())) as other:
        HTTPXClientInstrumentor.instrument_client(client)
        for one in (client, other):
            one.get(f"{url}/models")
        assert len(ordinary(watchkeep_capture)) == 2
        get(httpx, url)
        client.get(f"{url}/models")
    assert len(ordinary(watchkeep_capture)) == 4


@pytest.mark.usefixtures("present_names")
@pytest.mark.parametrize("status", [429, 200])
def test_its_span_carries_our_attempt(status: int, url: str, llm_server: Any, watchkeep_capture: Capture) -> None:
    """In an LLM call the app's span is the only one of an attempt, with our attributes; its headers stay."""
    llm_server.plan([{"status": status, "headers": {"retry-after-ms": "30"}}] if status == 429 else [{}])
    undo = [whole(stack) for stack in STACKS]
    try:
        chat(url)
    finally:
        for each in undo:
            each()
    (call,) = watchkeep_capture.spans("chat")
    attempts = watchkeep_capture.spans("POST")
    assert {span.scope.name for span in attempts} == {OFFICIAL}
    assert [span.parent_id for span in attempts] == [call.span_id] * len(llm_server.log)
    assert [span.attributes[names.RESILIENCE_RETRY_ATTEMPT] for span in attempts] == list(range(len(attempts)))
    assert all(span.attributes[names.RESILIENCE_POOL_NAME] for span in attempts)
    if status == 429:
        assert attempts[0].attributes[names.RESILIENCE_FAULT_ORIGIN] == names.PROVIDER
        assert attempts[0].attributes[names.ERROR_TYPE] == "429"
        assert attempts[1].attributes[names.RESILIENCE_RETRY_DELAY] >= 0.03
    checkouts = watchkeep_capture.spans("wait_for_connection")
    assert [span.parent_id for span in checkouts] == [span.span_id for span in attempts]
    sent = [dict(entry.headers)["traceparent"].split("-")[2] for entry in llm_server.log]
    assert sent == [f"{span.span_id:016x}" for span in attempts]
    assert counted(watchkeep_capture) == {OFFICIAL: len(attempts)}


def test_the_app_kept_the_old_names(url: str, watchkeep_capture: Capture) -> None:
    """Where the app's instrumentation counts under the old name, we count under the present one."""
    undo = [whole(stack) for stack in STACKS]
    try:
        chat(url)
    finally:
        for each in undo:
            each()
    assert counted(watchkeep_capture) == {"watchkeep.http": 1}


@pytest.mark.usefixtures("present_names")
def test_its_span_carries_a_failure(watchkeep_capture: Capture) -> None:
    """A connection that is refused is the network's fault on the app's span, too."""
    undo = [whole(stack) for stack in STACKS]
    client = openai.OpenAI(base_url="http://127.0.0.1:1/v1", api_key="sk-test", max_retries=0)
    try:
        with client, pytest.raises(openai.APIConnectionError):
            client.chat.completions.create(model="gpt-4o", messages=HELLO)
    finally:
        for each in undo:
            each()
    (attempt,) = watchkeep_capture.spans("POST")
    assert attempt.scope.name == OFFICIAL
    assert attempt.attributes[names.RESILIENCE_FAULT_ORIGIN] == names.NETWORK


def test_a_url_that_the_app_excluded(url: str, watchkeep_capture: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the app's instrumentation lets a request pass, our attempt is the span."""
    monkeypatch.setenv("OTEL_PYTHON_HTTPX_EXCLUDED_URLS", "chat/completions")
    undo = [whole(stack) for stack in STACKS]
    try:
        chat(url)
    finally:
        for each in undo:
            each()
    (call,) = watchkeep_capture.spans("chat")
    (attempt,) = watchkeep_capture.spans("POST")
    (checkout,) = watchkeep_capture.spans("wait_for_connection")
    assert (attempt.scope.name, attempt.parent_id) == ("watchkeep.http", call.span_id)
    assert checkout.parent_id == attempt.span_id
    assert names.RESILIENCE_RETRY_ATTEMPT not in call.attributes

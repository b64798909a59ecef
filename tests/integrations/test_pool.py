"""httpcore and httpcore2: every checkout, and what the pools say of themselves."""

import asyncio
import contextlib
import threading

import httpx
import httpx2
import openai
import pytest

from watchkeep import names

MESSAGES = [{"role": "user", "content": "hi"}]


def ordinary(server):
    """Two requests of the app's own over one connection."""
    with httpx.Client() as client:
        return [client.get(f"{server.base_url}/models").status_code for _ in range(2)]


def exhausted(server):
    """A call that finds no free connection in time."""
    server.plan([{"delay": 0.3}])
    limits = httpx2.Limits(max_connections=1)
    with httpx2.Client(limits=limits, timeout=httpx2.Timeout(5, pool=0.05)) as http:
        client = openai.OpenAI(base_url=server.base_url, api_key="sk", http_client=http, max_retries=0)
        other = threading.Thread(target=lambda: client.models.list())
        other.start()
        while not server.log:
            pass
        try:
            return client.chat.completions.create(model="gpt-4o", messages=MESSAGES)
        finally:
            other.join()


def given_up(server):
    """Connections that end in every way: dropped, cut, expired, surplus, and refused once the server is gone."""
    limits = ({}, {"keepalive_expiry": 0.0}, {"max_keepalive_connections": 0})
    server.plan(["ok", "drop", "cut", "ok"] * len(limits) * 2)
    seen = []
    for stack in (httpx, httpx2):
        seen += [_answers(stack, server, 4, stack.Limits(**limit)) for limit in limits]
    server.stop()
    return [*seen, _answers(httpx, server, 2), _answers(httpx2, server, 2)]


def _answers(stack, server, count, limits=None):
    found = []
    with stack.Client(limits=limits or stack.Limits(), trust_env=False) as client:
        for _ in range(count):
            try:
                found.append(client.get(f"{server.base_url}/models").status_code)
            except stack.TransportError as error:
                found.append(repr(error))
    return found


EXERCISES = (ordinary, exhausted, given_up)


def test_a_checkout_says_whether_its_connection_was_reused(watchkeep_capture, llm_server):
    """The first call opens a connection, the second one reuses it."""
    client = openai.OpenAI(base_url=llm_server.base_url, api_key="sk")
    for _ in range(2):
        client.chat.completions.create(model="gpt-4o", messages=MESSAGES)
    waits = watchkeep_capture.spans("wait_for_connection")
    assert [wait.attributes[names.RESILIENCE_POOL_CONNECTION_REUSED] for wait in waits] == [False, True]
    assert watchkeep_capture.value(names.METRIC_RESILIENCE_POOL_CONNECTION_CREATE_TIME.name) == 1
    assert watchkeep_capture.value(names.METRIC_RESILIENCE_POOL_CONNECTION_USE_TIME.name) == 2


def test_an_exhausted_pool_is_our_own_fault(watchkeep_capture, llm_server):
    """A pool time-out is blamed on the client, counted, and an event; the provider saw one request."""
    with pytest.raises(openai.APITimeoutError):
        exhausted(llm_server)
    (chat,) = watchkeep_capture.spans("chat")
    assert chat.attributes[names.ERROR_TYPE] == names.POOL_TIMEOUT
    assert chat.attributes[names.RESILIENCE_FAULT_ORIGIN] == names.CLIENT_FAULT
    assert watchkeep_capture.value(names.METRIC_RESILIENCE_POOL_CONNECTION_TIMEOUTS.name) == 1
    assert len(watchkeep_capture.logs(names.EVENT_POOL_TIMEOUT.name)) == 1
    assert len(llm_server.log) == 1


def test_limits_and_connections_are_read_when_asked(watchkeep_capture, llm_server):
    """The limit, the idle and the used connections of a pool are there while it lives."""
    with httpx2.Client(limits=httpx2.Limits(max_connections=7, max_keepalive_connections=3)) as client:
        client.get(f"{llm_server.base_url}/models")
        pool = f"127.0.0.1:{llm_server.port}"
        read = watchkeep_capture.value
        assert read(names.METRIC_RESILIENCE_POOL_CONNECTION_LIMIT.name, resilience_pool_name=pool) == 7
        assert read(names.METRIC_RESILIENCE_POOL_CONNECTION_IDLE_MAX.name, resilience_pool_name=pool) == 3
        count = names.METRIC_RESILIENCE_POOL_CONNECTION_COUNT.name
        assert read(count, resilience_pool_name=pool, resilience_pool_connection_state="idle") == 1


def test_the_app_s_own_trace_callback_is_still_called(watchkeep_capture, llm_server):
    """A `trace` extension of the app's gets every event that it would have got."""
    seen = []
    with httpx2.Client() as client:
        client.get(f"{llm_server.base_url}/models", extensions={"trace": lambda name, info: seen.append(name)})
    assert "connection.connect_tcp.started" in seen
    assert seen[-1] == "http11.response_closed.complete"


def test_a_transport_without_a_pool_is_marked(watchkeep_capture):
    """Where nobody checks a connection out, the call says that its ledger is partial, and blames no pool."""
    answer = {"id": "c", "object": "chat.completion", "created": 1, "model": "m", "choices": []}
    transport = httpx2.MockTransport(lambda request: httpx2.Response(200, json=answer))
    client = openai.OpenAI(base_url="http://x/v1", api_key="sk", http_client=httpx2.Client(transport=transport))
    client.chat.completions.create(model="gpt-4o", messages=MESSAGES)
    (chat,) = watchkeep_capture.spans("chat")
    assert chat.attributes[names.RESILIENCE_CALL_PARTIAL] is True
    assert not watchkeep_capture.spans("wait_for_connection")


def test_a_pool_used_from_another_event_loop_is_counted(watchkeep_capture, llm_server):
    """One client shared by two runs of asyncio is what it is: a mismatch, which the app pays for."""
    client = httpx2.AsyncClient()

    async def get():
        return (await client.get(f"{llm_server.base_url}/models")).status_code

    def again():
        with contextlib.suppress(RuntimeError):  # the kept connection's loop is closed: the app's own trouble
            asyncio.run(get())

    asyncio.run(get())
    again()
    assert watchkeep_capture.value(names.METRIC_RESILIENCE_POOL_LOOP_MISMATCHES.name) == 1

"""What pools say of their connections' health, and why they give connections up: both stacks, sync and async."""

import asyncio
import gc
import importlib
import json
import os
import threading
import weakref
from types import SimpleNamespace

import httpx
import httpx2
import pytest

from support.both import entered, got, run
from support.pool_server import PoolServer
from watchkeep import clock, names, pool_health, runtime

EVICTIONS = names.METRIC_RESILIENCE_POOL_CONNECTION_EVICTIONS.name
COUNT = names.METRIC_RESILIENCE_POOL_CONNECTION_COUNT.name
AGE = names.METRIC_RESILIENCE_POOL_CONNECTION_OLDEST_AGE.name
REQUESTS = names.METRIC_RESILIENCE_POOL_REQUESTS.name
NONE = dict.fromkeys(pool_health.REASONS, 0)
EMPTY = {f"{state} {health}": 0 for state in ("idle", "used") for health in pool_health.STATES}


@pytest.fixture
def server():
    with PoolServer() as running:
        yield running


@pytest.fixture(params=["httpx", "httpx2"])
def stack(request):
    return {"httpx": httpx, "httpx2": httpx2}[request.param]


@pytest.fixture(params=["sync", "async"])
def app(request, stack):
    """An app of one kind: `client(**limits)` makes its client, `run(scenario)` runs it."""

    def client(timeout=5.0, **limits):
        kind = stack.AsyncClient if request.param == "async" else stack.Client
        return kind(limits=stack.Limits(**{"keepalive_expiry": 60.0, **limits}), timeout=timeout, trust_env=False)

    async def get(http, url):
        try:
            return (await got(http.get(url))).status_code
        except stack.TransportError as error:
            return type(error).__name__

    return SimpleNamespace(client=client, get=get, run=lambda scenario: run(request.param, scenario), stack=stack)


@pytest.fixture
def pools(watchkeep_capture, server):
    """What the pool of the server's origin says: evictions, connections and their age."""
    pool = f"127.0.0.1:{server.port}"

    def evictions():
        points = watchkeep_capture.points(EVICTIONS, resilience_pool_name=pool)
        return {point.attributes[names.RESILIENCE_POOL_EVICTION_REASON]: point.value for point in points}

    def connections():
        points = watchkeep_capture.points(COUNT, resilience_pool_name=pool)
        state, health = names.RESILIENCE_POOL_CONNECTION_STATE, names.RESILIENCE_POOL_CONNECTION_HEALTH
        return {f"{point.attributes[state]} {point.attributes[health]}": point.value for point in points}

    def age():
        (point,) = watchkeep_capture.points(AGE, resilience_pool_name=pool)
        return point.value

    return SimpleNamespace(evictions=evictions, connections=connections, age=age, name=pool)


async def _passes(seconds):
    # A server's close reaches an event loop only while it runs.
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        threading.Event().wait(seconds)
    else:
        await asyncio.sleep(seconds)


# -- evictions ----------------------------------------------------------------------------------------------


def test_every_series_is_there_from_the_first_request(app, server, pools, watchkeep_capture):
    """Each reason, each state with each health and each outcome exist at 0 before anything of it happened."""

    async def scenario():
        async with entered(app.client()) as http:
            assert await app.get(http, server.url) == 200
            assert pools.evictions() == NONE
            assert pools.connections() == {**EMPTY, "idle healthy": 1}
            assert 0 < pools.age() < 5

    app.run(scenario())
    points = watchkeep_capture.points(REQUESTS, resilience_pool_name=pools.name)
    counted = {point.attributes[names.RESILIENCE_POOL_REQUEST_OUTCOME]: point.value for point in points}
    assert counted == {"success": 1, "failure": 0, "timeout": 0, "cancelled": 0}


def test_a_connection_unused_for_too_long_is_evicted_as_idle(app, server, pools):
    """Past its keep-alive a connection is replaced at the next request, healthy to its end."""

    async def scenario():
        async with entered(app.client(keepalive_expiry=0.05)) as http:
            await app.get(http, server.url)
            await _passes(0.1)
            assert pools.connections() == {**EMPTY, "idle healthy": 1}
            assert await app.get(http, server.url) == 200
            assert pools.evictions() == {**NONE, "idle": 1}

    app.run(scenario())


def test_a_connection_that_the_server_closed_while_idle_is_evicted_as_closed(app, server, pools):
    """The pool finds out at the next request, which does not fail: nothing is unhealthy about that."""

    async def scenario():
        async with entered(app.client()) as http:
            await app.get(http, f"{server.url}/bye")
            await _passes(0.3)
            assert pools.connections() == {**EMPTY, "idle healthy": 1}
            assert await app.get(http, server.url) == 200
            assert pools.evictions() == {**NONE, "closed": 1}
            assert pools.connections() == {**EMPTY, "idle healthy": 1}

    app.run(scenario())


def test_a_connection_that_the_server_ends_with_its_answer_is_evicted_as_closed(app, server, pools):
    """`Connection: close` is no failure."""

    async def scenario():
        async with entered(app.client()) as http:
            assert await app.get(http, f"{server.url}/last") == 200
            assert pools.evictions() == {**NONE, "closed": 1}
            assert pools.connections() == EMPTY

    app.run(scenario())


def test_an_idle_connection_beyond_the_limit_is_evicted_as_idle(app, server, pools):
    """A pool that keeps no idle connection closes each one after its request."""

    async def scenario():
        async with entered(app.client(max_keepalive_connections=0)) as http:
            for _ in range(3):
                assert await app.get(http, server.url) == 200
            assert pools.evictions() == {**NONE, "idle": 3}
            assert pools.connections() == EMPTY

    app.run(scenario())


def test_an_idle_connection_in_the_way_of_another_origin_is_evicted_as_idle(app, server, pools):
    """A full pool gives up an idle connection for a new one; both belong to the pool of the first origin."""

    async def scenario():
        with PoolServer() as other:
            async with entered(app.client(max_connections=1)) as http:
                assert [await app.get(http, url) for url in (server.url, other.url)] == [200, 200]
                assert pools.evictions() == {**NONE, "idle": 1}
                assert pools.connections() == {**EMPTY, "idle healthy": 1}

    app.run(scenario())


@pytest.mark.parametrize("path", ["drop", "cut"])
def test_a_connection_on_which_a_request_failed_is_evicted_as_unhealthy(app, server, pools, path):
    """Dropped before the answer or cut in its middle: the pool has lost that connection to a failure."""

    async def scenario():
        async with entered(app.client()) as http:
            assert await app.get(http, f"{server.url}/{path}") == "RemoteProtocolError"
            assert pools.evictions() == {**NONE, "unhealthy": 1}

    app.run(scenario())


def test_a_connection_that_never_answers_is_evicted_as_unhealthy(app, server, pools):
    """A read time-out costs the connection."""

    async def scenario():
        async with entered(app.client(timeout=0.1)) as http:
            assert await app.get(http, f"{server.url}/slow") == "ReadTimeout"
            assert pools.evictions() == {**NONE, "unhealthy": 1}
            assert pools.connections() == {**EMPTY, "idle unhealthy": 1}

    app.run(scenario())


def test_a_cancelled_request_says_nothing_of_its_connection(stack, server, pools):
    """The app gave the request up: the connection is closed, and nobody calls it unhealthy."""

    async def scenario():
        async with stack.AsyncClient(trust_env=False) as http:
            asked = asyncio.ensure_future(http.get(f"{server.url}/slow"))
            await asyncio.sleep(0.1)
            assert pools.connections() == {**EMPTY, "used healthy": 1}
            asked.cancel()
            with pytest.raises(asyncio.CancelledError):
                await asked
            assert pools.evictions() == {**NONE, "closed": 1}
            assert pools.connections() == EMPTY

    asyncio.run(scenario())


def test_closing_a_client_evicts_nothing(app, server, pools):
    """What the app closes itself, the pool did not give up; its series go to 0."""

    async def scenario():
        async with entered(app.client()) as http:
            await app.get(http, server.url)
        assert pools.evictions() == NONE
        assert pools.connections() == EMPTY
        assert pools.age() == 0

    app.run(scenario())


# -- outages ------------------------------------------------------------------------------------------------


def test_an_outage_is_visible_until_a_request_is_answered(app, server, pools):
    """Refused connections leave an empty pool: one unhealthy connection stands for them until the server is back."""

    async def scenario():
        async with entered(app.client()) as http:
            assert await app.get(http, server.url) == 200
            server.stop()
            for _ in range(3):
                assert await app.get(http, server.url) in ("ConnectError", "RemoteProtocolError", "ReadError")
                assert pools.connections() == {**EMPTY, "idle unhealthy": 1}
            server.start()
            assert await app.get(http, server.url) == 200
            assert pools.connections() == {**EMPTY, "idle healthy": 1}
            assert sum(pools.evictions().values()) == 1

    app.run(scenario())


def test_an_outage_outlives_the_client_that_saw_it(app, server, pools):
    """An app that makes a client for each call has no pool between its calls, and an outage all the same."""

    async def fails():
        async with entered(app.client()) as http:
            assert await app.get(http, server.url) == "ConnectError"

    server.stop()
    app.run(fails())
    gc.collect()
    assert pools.connections() == {**EMPTY, "idle unhealthy": 1}
    server.start()

    async def works():
        async with entered(app.client()) as http:
            assert await app.get(http, server.url) == 200

    app.run(works())
    assert pools.connections() == EMPTY


def test_a_connection_opened_in_an_outage_is_unhealthy_until_it_answers(stack, server, pools):
    """While a server accepts and never answers, waiting connections are no sign of health."""

    async def scenario():
        async with stack.AsyncClient(timeout=0.1, trust_env=False) as http:
            with pytest.raises(stack.ReadTimeout):
                await http.get(f"{server.url}/slow")
            waiting = asyncio.ensure_future(http.get(f"{server.url}/slow", timeout=10))
            await asyncio.sleep(0.1)
            assert pools.connections() == {**EMPTY, "used unhealthy": 1}
            assert (await http.get(server.url)).status_code == 200
            assert pools.connections() == {**EMPTY, "used healthy": 1, "idle healthy": 1}
            waiting.cancel()

    asyncio.run(scenario())


def test_a_request_that_cannot_be_sent_is_no_outage(stack, server, pools):
    """A malformed request is its own fault, and not the connection's."""
    httpcore = importlib.import_module(stack.__name__.replace("httpx", "httpcore"))
    with httpcore.ConnectionPool() as core:
        with pytest.raises(httpcore.LocalProtocolError):
            core.request("GET", server.url, headers=[(b"host", b"x"), (b"a b", b"c")])
        assert pools.connections() == EMPTY
        assert pools.evictions() == {**NONE, "closed": 1}


def test_an_outage_that_nobody_asks_about_is_forgotten(server, pools, monkeypatch):
    """Five minutes after the last failure nothing is known any more: a quiet app raises no alarm for ever."""
    server.stop()
    with httpx2.Client(trust_env=False) as http:
        with pytest.raises(httpx2.ConnectError):
            http.get(server.url)
        assert pools.connections() == {**EMPTY, "idle unhealthy": 1}
        now = clock.monotonic()
        monkeypatch.setattr(clock, "monotonic", lambda: now + 301 * 10**9)
        assert pools.connections() == EMPTY
    server.start()


# -- what it costs the app ----------------------------------------------------------------------------------


def test_a_pool_is_not_kept_alive(app, server, pools):
    """Pool and connections go with the client, failed ones too."""

    async def scenario():
        http = app.client()
        await app.get(http, server.url)
        await app.get(http, f"{server.url}/drop")
        await app.get(http, server.url)
        core = http._transport._pool
        kept = [weakref.ref(core), *map(weakref.ref, core.connections)]
        await got(http.aclose() if hasattr(http, "aclose") else http.close())
        return kept

    kept = app.run(scenario())
    gc.collect()
    assert [reference() for reference in kept] == [None, None]


def test_many_origins_do_not_make_series_without_end(watchkeep_capture, monkeypatch):
    """Beyond the cap of labels the pools that are gone lose their names, and pools that are not share one."""
    monkeypatch.setattr("watchkeep.integrations.pool._names", {})
    cap = runtime.config().label_cap
    for number in range(cap + 20):
        with httpx2.Client(trust_env=False, timeout=0.5) as http, pytest.raises(httpx2.TransportError):
            http.get(f"http://127.0.0.{number + 1}:9")
    seen = {point.attributes[names.RESILIENCE_POOL_NAME] for point in watchkeep_capture.points(COUNT)}
    assert cap // 2 < len(seen) <= cap + 1


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this platform does not fork")
def test_a_forked_child_does_not_show_its_parent_s_pools(server, pools):
    """Connections, outages and counts are the parent's; what the child asks for is its own, from 0 on."""
    with httpx2.Client(trust_env=False) as http:
        http.get(server.url)
        with pytest.raises(httpx2.RemoteProtocolError):
            http.get(f"{server.url}/drop")
        assert pools.evictions() == {**NONE, "unhealthy": 1}
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                before = pools.connections()
                with httpx2.Client(trust_env=False) as own:
                    own.get(server.url)
                    os.write(writing, json.dumps([before, pools.connections(), pools.evictions()]).encode())
            finally:
                os._exit(0)
        os.waitpid(child, 0)
        os.close(writing)
        with os.fdopen(reading) as told:
            assert json.load(told) == [{}, {**EMPTY, "idle healthy": 1}, NONE]

"""httpcore and httpcore2: every pool checkout, by the documented ``trace`` extension of a request.

The trace events also move the ledger of the LLM call: waiting for a connection, connecting, sending,
waiting for the server. The pools' own figures are read at collection time.
"""

from __future__ import annotations

import asyncio
import sys
import weakref
from collections.abc import Callable, Iterator
from typing import Any

from opentelemetry import trace

from watchkeep import blame, cells, clock, context, guard, http_pool, names, runtime
from watchkeep.cells import Observation
from watchkeep.hook import Target
from watchkeep.integrations import Integration, scope
from watchkeep.record import Measure, Record, seconds

SCOPE = scope("pool", names.SCHEMA_EXTENSION)
_DEFAULT_PORTS = {b"https": 443, b"http": 80}
_WAITED_NS = 1_000_000  # setting pool_spans=waited keeps a checkout that took longer
_UNLIMITED = 1 << 31
_BACKEND = "anyio._backends._asyncio"

# The end of an event's name -> what it means. Prefixes (connection., http11., http2., proxy., socks5.) vary.
_CONNECTING = ("connect_tcp.started", "connect_unix_socket.started", "start_tls.started")
_EVENTS: dict[str, str] = {
    **{f"{prefix}.{step}": "connect" for prefix in ("connection", "proxy", "socks5") for step in _CONNECTING},
    **{f"{http}.send_request_headers.started": "send" for http in ("http11", "http2")},
    **{f"{http}.send_request_body.complete": "server" for http in ("http11", "http2")},
    # The server may have answered before it had read everything: its answer is read then.
    **{f"{http}.send_request_{part}.failed": "server" for http in ("http11", "http2") for part in ("headers", "body")},
    **{f"{http}.response_closed.complete": "released" for http in ("http11", "http2")},
}


class Pool:
    """What we know of one connection pool of the app's."""

    __slots__ = ("born", "loop", "name", "reference")

    def __init__(self, pool: Any, name: str) -> None:
        self.reference = weakref.ref(pool)
        self.name = name
        self.loop: int | None = None
        self.born: weakref.WeakKeyDictionary[Any, int] = weakref.WeakKeyDictionary()


_pools: weakref.WeakKeyDictionary[Any, Pool] = weakref.WeakKeyDictionary()


class Checkout(Record):
    """One request's way to a connection, and its hold on it."""

    __slots__ = ("attempt", "connect_from", "held_from", "importing", "ledger", "pool", "step")

    ours = True

    measures = (Measure(names.METRIC_RESILIENCE_POOL_CONNECTION_WAIT_TIME, seconds),)

    def __init__(self, pool: Pool, attributes: dict[str, Any]) -> None:
        super().__init__(names.POOL_WAIT, SCOPE, attributes)
        self.pool = pool
        self.ledger: Any = None
        self.attempt: Any = None
        self.importing = False  # the first async request of a process imports its backend, and waits for nothing else
        self.step = ""
        self.connect_from = self.held_from = 0

    def on(self, event: str) -> None:
        """Follow a trace event of the request."""
        step = _EVENTS.get(event)
        if step is None:
            if not self.closed:
                self.got(clock.monotonic(), reused=True)
            return
        now = clock.monotonic()
        if not self.closed:
            self.got(now, reused=step != "connect")
        if step == "released":
            self.release(now)
        elif step != self.step:
            self.turn(step, now)

    def turn(self, step: str, now: int) -> None:
        """Enter the next phase of the request."""
        if self.ledger is not None:
            self.ledger.enter(step, now)
        if step == "connect":
            self.connect_from = now
        elif self.step == "connect":
            self.opened(now)
        self.step = step

    def got(self, now: int, reused: bool) -> None:
        """There is a connection, or one is being opened: the wait is over."""
        self.attributes[names.RESILIENCE_POOL_CONNECTION_REUSED] = reused
        self.held_from = now
        if self.importing:
            self.start_ns, self.begin = self.start_ns + now - self.begin, now
        if self.visible and runtime.config().pool_spans == "waited":
            self.visible = not reused or now - self.begin >= _WAITED_NS
        self.close(now)

    def opened(self, now: int) -> None:
        """A new connection is open: count its time and note its birth."""
        pool = self.pool
        labels = {names.RESILIENCE_POOL_NAME: pool.name}
        spent = (now - self.connect_from) / 1e9
        runtime.emitter().measure(names.METRIC_RESILIENCE_POOL_CONNECTION_CREATE_TIME, SCOPE, labels, spent)
        found = pool.reference()
        if found is not None:
            for connection in found.connections:
                if connection not in pool.born:
                    pool.born[connection] = now
                    if runtime.config().http_pool_metrics:
                        http_pool.watch(connection, now)

    def release(self, now: int) -> None:
        """The connection went back to the pool."""
        if self.held_from:
            used = (now - self.held_from) / 1e9
            labels = {names.RESILIENCE_POOL_NAME: self.pool.name}
            runtime.emitter().measure(names.METRIC_RESILIENCE_POOL_CONNECTION_USE_TIME, SCOPE, labels, used)
            self.held_from = 0


_on = guard.guarded(Checkout.on)


def _begins(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Checkout:
    core, request = args[0], args[1] if len(args) > 1 else kwargs["request"]
    pool = _known(core, request)
    checkout = Checkout(pool, {names.RESILIENCE_POOL_NAME: pool.name})
    call = context.call.get()
    attempt = call.attempt if call is not None else None
    if attempt is not None and attempt.checkout is not None:
        attempt = None  # a request of somebody's own inside the attempt
    if call is not None and attempt is not None:
        checkout.ledger = call.ledger
        attempt.checkout = checkout
        checkout.attempt = attempt
        attempt.attributes[names.RESILIENCE_POOL_NAME] = pool.name
        if not attempt.visible:
            attempt.adopt(trace.get_current_span())  # the app's own HTTP instrumentation made it
    is_async = hasattr(core, "handle_async_request")
    checkout.importing = is_async and _BACKEND not in sys.modules
    checkout.open(attempt)
    if checkout.ledger is not None:
        checkout.ledger.enter("other" if checkout.importing else "pool_wait", checkout.begin)
    elif not checkout.parent_id:
        checkout.visible = False  # a checkout of nobody's operation is a measurement, not a trace
    if is_async:
        _watch_loop(pool)
    request.extensions = {**request.extensions, "trace": _trace(checkout, request.extensions.get("trace"), is_async)}
    return checkout


def _returned(checkout: Checkout, response: Any) -> None:
    if not checkout.closed:  # a pool that traces nothing
        checkout.got(clock.monotonic(), reused=True)
    if checkout.attempt is not None:
        checkout.attempt.tell_owner(blame.of_status(response.status))
    _count(checkout, "success")


def _raised(checkout: Checkout, error: BaseException) -> None:
    found = blame.of_exception(error)
    if checkout.attempt is not None:
        checkout.attempt.tell_owner(found)
    outcome = {names.POOL_TIMEOUT: "timeout", names.CANCELLED: "cancelled"}.get(found[0], "failure")
    if not checkout.closed:
        checkout.fail(found, type(error).__name__)
        checkout.close()
        if outcome == "timeout":
            _timed_out(checkout)
    else:
        checkout.release(clock.monotonic())
    _count(checkout, outcome)


def _timed_out(checkout: Checkout) -> None:
    labels = {names.RESILIENCE_POOL_NAME: checkout.pool.name}
    emitter = runtime.emitter()
    emitter.measure(names.METRIC_RESILIENCE_POOL_CONNECTION_TIMEOUTS, SCOPE, labels)
    emitter.event(names.EVENT_POOL_TIMEOUT, SCOPE, dict(labels), checkout)


def _count(checkout: Checkout, outcome: str) -> None:
    labels = {names.RESILIENCE_POOL_NAME: checkout.pool.name, names.RESILIENCE_POOL_REQUEST_OUTCOME: outcome}
    runtime.emitter().measure(names.METRIC_RESILIENCE_POOL_REQUESTS, SCOPE, labels)


def _trace(checkout: Checkout, theirs: Callable[..., Any] | None, is_async: bool) -> Callable[..., Any]:
    if is_async:

        async def atrace(event: str, info: dict[str, Any]) -> None:
            _on(checkout, event)
            if theirs is not None:
                await theirs(event, info)

        return atrace

    def trace(event: str, info: dict[str, Any]) -> Any:
        _on(checkout, event)
        return theirs(event, info) if theirs is not None else None

    return trace


# -- the pools themselves ---------------------------------------------------------------------------------


def _known(core: Any, request: Any) -> Pool:
    pool = _pools.get(core)
    if pool is None:
        pool = _pools[core] = Pool(core, _name(request.url))
        labels = {names.RESILIENCE_POOL_NAME: pool.name}
        runtime.emitter().measure(names.METRIC_RESILIENCE_POOL_CONNECTION_TIMEOUTS, SCOPE, labels, 0)
    return pool


def _name(url: Any) -> str:
    host = url.host.decode("ascii", "replace")
    if url.port is None or url.port == _DEFAULT_PORTS.get(url.scheme):
        return str(host)
    return f"{host}:{url.port}"


def _watch_loop(pool: Pool) -> None:
    try:
        loop = id(asyncio.get_running_loop())
    except RuntimeError:
        return  # another kind of event loop
    if pool.loop is None:
        pool.loop = loop
    elif pool.loop != loop:
        labels = {names.RESILIENCE_POOL_NAME: pool.name}
        runtime.emitter().measure(names.METRIC_RESILIENCE_POOL_LOOP_MISMATCHES, SCOPE, labels)


def _each() -> Iterator[tuple[str, Any, Pool]]:
    for reference in _pools.keyrefs():  # one step of the interpreter: other threads add pools meanwhile
        core = reference()
        pool = _pools.get(core) if core is not None else None
        if pool is not None:
            yield pool.name, core, pool


def _connections() -> Iterator[Observation]:
    for name, core, _ in _each():
        idle = used = 0
        for connection in list(core.connections):
            if connection.is_idle():
                idle += 1
            elif not connection.is_closed():
                used += 1
        yield (name, "idle", None), idle
        yield (name, "used", None), used


def _limits() -> Iterator[Observation]:
    return _finite("_max_connections")


def _idle_limits() -> Iterator[Observation]:
    return _finite("_max_keepalive_connections")


def _finite(attribute: str) -> Iterator[Observation]:
    for name, core, _ in _each():
        limit = getattr(core, attribute, None)
        if isinstance(limit, int) and limit < _UNLIMITED:
            yield (name,), limit


def _pending() -> Iterator[Observation]:
    for name, core, _ in _each():
        waiting = sum(1 for request in list(getattr(core, "_requests", ())) if request.is_queued())
        yield (name,), waiting


def _oldest() -> Iterator[Observation]:
    now = clock.monotonic()
    ages: dict[str, float] = {}
    for name, core, pool in _each():
        for connection in list(core.connections):
            age = (now - pool.born.get(connection, now)) / 1e9
            ages[name] = max(age, ages.get(name, 0.0))
    for name, age in ages.items():
        yield (name,), age


def _observe(_: str) -> None:
    for metric, observer in (
        (names.METRIC_RESILIENCE_POOL_CONNECTION_COUNT, _connections),
        (names.METRIC_RESILIENCE_POOL_CONNECTION_LIMIT, _limits),
        (names.METRIC_RESILIENCE_POOL_CONNECTION_IDLE_MAX, _idle_limits),
        (names.METRIC_RESILIENCE_POOL_CONNECTION_PENDING_REQUESTS, _pending),
        (names.METRIC_RESILIENCE_POOL_CONNECTION_OLDEST_AGE, _oldest),
    ):
        cells.observe(metric, SCOPE, observer)
    http_pool.observe(_each)


def _targets(stack: str) -> tuple[Target, ...]:
    return (
        Target(f"{stack}._sync.connection_pool:ConnectionPool.handle_request", _begins, _returned, _raised),
        Target(f"{stack}._async.connection_pool:AsyncConnectionPool.handle_async_request", _begins, _returned, _raised),
    )


INTEGRATION = Integration(
    name="pool",
    scope=SCOPE,
    targets=tuple(target for stack in ("httpcore", "httpcore2") for target in _targets(stack)),
    supported={"httpcore": ("1.0", "2"), "httpcore2": ("2.8", "3")},
    started=_observe,
)

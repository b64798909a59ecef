"""httpcore and httpcore2: every pool checkout, by the documented ``trace`` extension of a request.

The trace events also move the ledger of the LLM call: waiting for a connection, connecting, sending,
waiting for the server. The pools' own figures are read at collection time; only where a pool gives up
connections is it looked at in between.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import sys
import weakref
from collections.abc import Callable, Iterator
from typing import Any

from opentelemetry import trace

from watchkeep import blame, cells, clock, context, guard, http_pool, names, pool_health, runtime
from watchkeep.cells import Observation
from watchkeep.hook import Target
from watchkeep.integrations import Integration, scope
from watchkeep.record import Measure, Record, seconds

SCOPE = scope("pool", names.SCHEMA_EXTENSION)
_DEFAULT_PORTS = {b"https": 443, b"http": 80}
_WAITED_NS = 1_000_000  # setting pool_spans=waited keeps a checkout that took longer
_UNLIMITED = 1 << 31
_OUTCOMES = ("success", "failure", "timeout", "cancelled")
_STATES = ("idle", "used")
_BACKEND = "anyio._backends._asyncio"

# The end of an event's name -> what it means. Prefixes (connection., http11., http2., proxy., socks5.) vary.
_OPENING = ("connection", "proxy", "socks5")
_PARTS = ("headers", "body")
_CONNECTING = ("connect_tcp.started", "connect_unix_socket.started", "start_tls.started")
_EVENTS: dict[str, str] = {
    **{f"{prefix}.{step}": "connect" for prefix in _OPENING for step in _CONNECTING},
    **{f"{http}.send_request_headers.started": "send" for http in ("http11", "http2")},
    **{f"{http}.send_request_body.complete": "server" for http in ("http11", "http2")},
    # The server may have answered before it had read everything: its answer is read then.
    **{f"{http}.send_request_{part}.failed": "server" for http in ("http11", "http2") for part in _PARTS},
    **{f"{http}.response_closed.complete": "released" for http in ("http11", "http2")},
    # A connection that fails is marked while it still has its request.
    **{f"{prefix}.{step.replace('started', 'failed')}": "failed" for prefix in _OPENING for step in _CONNECTING},
    **{f"{http}.receive_response_{part}.failed": "failed" for http in ("http11", "http2") for part in _PARTS},
    "http2.send_connection_init.failed": "failed",
}


class Pool:
    """What we know of one connection pool of the app's."""

    __slots__ = ("born", "failed", "loop", "name", "reference")

    def __init__(self, pool: Any, name: str) -> None:
        self.reference = weakref.ref(pool)
        self.name = name
        self.loop: int | None = None
        self.born: weakref.WeakKeyDictionary[Any, int] = weakref.WeakKeyDictionary()
        self.failed: weakref.WeakSet[Any] = weakref.WeakSet()  # connections whose latest request failed


_pools: weakref.WeakKeyDictionary[Any, Pool] = weakref.WeakKeyDictionary()
_names: dict[str, None] = {}  # of the pools seen, the oldest first: what was there once is 0 later, not absent


class Checkout(Record):
    """One request's way to a connection, and its hold on it."""

    __slots__ = ("attempt", "connect_from", "held_from", "importing", "ledger", "pool", "request_id", "step")

    ours = True

    measures = (Measure(names.METRIC_RESILIENCE_POOL_CONNECTION_WAIT_TIME, seconds),)

    def __init__(self, pool: Pool, request: Any, attributes: dict[str, Any]) -> None:
        super().__init__(names.POOL_WAIT, SCOPE, attributes)
        self.pool = pool
        self.request_id = id(request)  # no reference: the request holds our callback, which holds this
        self.ledger: Any = None
        self.attempt: Any = None
        self.importing = False  # the first async request of a process imports its backend, and waits for nothing else
        self.step = ""
        self.connect_from = self.held_from = 0

    def on(self, event: str, info: dict[str, Any]) -> None:
        """Follow a trace event of the request."""
        step = _EVENTS.get(event)
        if "exception" in info:
            self.failure(info["exception"])
            if step == "failed":
                return
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
        connection = self.connection()
        if connection is not None and connection not in pool.born:
            pool.born[connection] = now
            if runtime.config().http_pool_metrics:
                http_pool.watch(connection, now)

    def connection(self) -> Any:
        """Return the connection that the pool gave to this request, None when it has none (any more)."""
        core = self.pool.reference()
        for waiting in list(getattr(core, "_requests", ())):
            if id(waiting.request) == self.request_id:
                return waiting.connection
        return None

    def failure(self, error: BaseException) -> None:
        """Something failed on the way: the connection is the worse for it, unless the request was at fault."""
        if pool_health.is_its_fault(error):
            pool_health.failed(self.pool.name)
            connection = self.connection()
            if connection is not None:
                self.pool.failed.add(connection)

    def answered(self) -> None:
        """The server answered: what failed before is over."""
        if pool_health.ongoing:
            pool_health.answered(self.pool.name)
        if self.pool.failed:
            self.pool.failed.discard(self.connection())

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
    checkout = Checkout(pool, request, {names.RESILIENCE_POOL_NAME: pool.name})
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
    checkout.answered()
    _count(checkout, "success")


def _raised(checkout: Checkout, error: BaseException) -> None:
    found = blame.of_exception(error)
    if checkout.attempt is not None:
        checkout.attempt.tell_owner(found)
    if pool_health.is_its_fault(error):
        pool_health.failed(checkout.pool.name)
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
            _on(checkout, event, info)
            if theirs is not None:
                await theirs(event, info)

        return atrace

    def trace(event: str, info: dict[str, Any]) -> Any:
        _on(checkout, event, info)
        return theirs(event, info) if theirs is not None else None

    return trace


# -- the pools themselves ---------------------------------------------------------------------------------


def _known(core: Any, request: Any) -> Pool:
    pool = _pools.get(core)
    if pool is None:
        pool = _pools[core] = Pool(core, _bounded(_name(request.url)))
        _at_zero(pool.name)
    return pool


def _bounded(name: str) -> str:
    cap = runtime.config().label_cap
    if name not in _names and len(_names) >= cap:
        live = {pool.name for _, _, pool in _each()}
        for old in [old for old in _names if old not in live][: cap // 10 + 1]:
            _names.pop(old, None)
        if len(_names) >= cap:
            name = names.OTHER
    _names[name] = None
    return name


def _at_zero(name: str) -> None:
    counted = runtime.cells().of(names.METRIC_RESILIENCE_POOL_CONNECTION_TIMEOUTS, SCOPE)
    if (name,) in counted.cells:
        return  # another pool of this name was there before
    emitter = runtime.emitter()
    for metric, label, values in (
        (names.METRIC_RESILIENCE_POOL_CONNECTION_TIMEOUTS, "", ("",)),
        (names.METRIC_RESILIENCE_POOL_LOOP_MISMATCHES, "", ("",)),
        (names.METRIC_RESILIENCE_POOL_REQUESTS, names.RESILIENCE_POOL_REQUEST_OUTCOME, _OUTCOMES),
        (names.METRIC_RESILIENCE_POOL_CONNECTION_EVICTIONS, names.RESILIENCE_POOL_EVICTION_REASON, pool_health.REASONS),
    ):
        for value in values:
            emitter.measure(metric, SCOPE, {names.RESILIENCE_POOL_NAME: name, label: value}, 0)


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


def _seen(pools: list[tuple[str, Any, Pool]]) -> dict[str, None]:
    return dict.fromkeys((*list(_names), *(name for name, _, _ in pools)))


def _connections() -> Iterator[Observation]:
    pools = list(_each())
    counts = dict.fromkeys(itertools.product(_seen(pools), _STATES, pool_health.STATES), 0)
    for name, core, pool in pools:
        out = pool_health.outage(name)
        for connection in core.connections:
            if not connection.is_closed():
                idle = connection.is_idle()
                health = pool_health.health(pool.born.get(connection), idle, connection in pool.failed, out)
                counts[name, "idle" if idle else "used", health] += 1
    for name in pool_health.outages():
        if not any(counts.get((name, state, pool_health.UNHEALTHY), 1) for state in _STATES):
            counts[name, "idle", pool_health.UNHEALTHY] = 1  # it stands for those that could not be had
    yield from counts.items()


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
    pools = list(_each())
    counts = dict.fromkeys(_seen(pools), 0)
    for name, core, _ in pools:
        counts[name] += sum(1 for request in list(getattr(core, "_requests", ())) if request.is_queued())
    for name, waiting in counts.items():
        yield (name,), waiting


def _oldest() -> Iterator[Observation]:
    now = clock.monotonic()
    pools = list(_each())
    ages = dict.fromkeys(_seen(pools), 0.0)
    for name, core, pool in pools:
        for connection in core.connections:
            if not connection.is_closed():
                ages[name] = max(ages[name], (now - pool.born.get(connection, now)) / 1e9)
    for name, age in ages.items():
        yield (name,), age


# -- what they give up --------------------------------------------------------------------------------------


def _tidies(args: tuple[Any, ...], _: dict[str, Any]) -> tuple[Any, list[Any]]:
    return args[0], args[0].connections


def _tidied(before: tuple[Any, list[Any]], _: Any) -> None:
    core, had = before
    has = core.connections
    if has[: len(had)] == had:  # it adds at the end
        return
    pool = _pools.get(core)
    if pool is None:
        return
    for connection in pool_health.given_up(had, has):
        reason = pool_health.reason(connection, connection in pool.failed)
        if reason:
            labels = {names.RESILIENCE_POOL_NAME: pool.name, names.RESILIENCE_POOL_EVICTION_REASON: reason}
            runtime.emitter().measure(names.METRIC_RESILIENCE_POOL_CONNECTION_EVICTIONS, SCOPE, labels)


def _in_child() -> None:
    global _pools
    _pools = weakref.WeakKeyDictionary()  # the parent's; what the child uses of them it makes known again
    _names.clear()


os.register_at_fork(after_in_child=_in_child)


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
    pool = f"{stack}._sync.connection_pool:ConnectionPool"
    async_pool = f"{stack}._async.connection_pool:AsyncConnectionPool"
    return (
        Target(f"{pool}.handle_request", _begins, _returned, _raised),
        Target(f"{async_pool}.handle_async_request", _begins, _returned, _raised),
        # The one place where a pool decides which connections to give up; it runs under the pool's lock.
        Target(f"{pool}._assign_requests_to_connections", _tidies, _tidied, needed=False),
        Target(f"{async_pool}._assign_requests_to_connections", _tidies, _tidied, needed=False),
    )


INTEGRATION = Integration(
    name="pool",
    scope=SCOPE,
    targets=tuple(target for stack in ("httpcore", "httpcore2") for target in _targets(stack)),
    supported={"httpcore": ("1.0", "2"), "httpcore2": ("2.8", "3")},
    started=_observe,
)

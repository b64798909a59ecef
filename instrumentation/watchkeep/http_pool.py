"""OpenTelemetry's own metrics of an HTTP client's connections, beside ours (setting http_pool_metrics).

They are read from the pools when metrics are collected; how long a connection was open is told when the
last reference to it goes.
"""

from __future__ import annotations

import re
import weakref
from collections.abc import Callable, Iterator
from typing import Any

from watchkeep import cells, clock, guard, names, runtime
from watchkeep.cells import Observation
from watchkeep.integrations import scope

SCOPE = scope("http_pool", names.SCHEMA_CORE)
_DEFAULT_PORTS = {"https": 443, "http": 80}
_MAX_SEEN = 256
# The public `info()` of a connection: "'https://host:443', HTTP/1.1, IDLE, Request Count: 3".
_INFO = re.compile(r"'(\w+)://(.+?)(?::(\d+))?', HTTP/([\d.]+), (\w+)")

Pools = Callable[[], Iterator[tuple[str, Any, Any]]]


def observe(pools: Pools) -> None:
    """Ask `pools` for the open connections and the active requests at each collection."""
    seen_connections: set[Any] = set()
    seen_requests: set[Any] = set()
    asked = (
        (names.METRIC_HTTP_CLIENT_OPEN_CONNECTIONS, _open_connections, seen_connections),
        (names.METRIC_HTTP_CLIENT_ACTIVE_REQUESTS, _active_requests, seen_requests),
    )
    for metric, read, seen in asked:
        if (metric, SCOPE) not in cells.observed():
            cells.observe(metric, SCOPE, _counter(read, pools, seen))


def _counter(read: Callable[[Any], Iterator[Any]], pools: Pools, seen: set[Any]) -> Callable[[], list[Observation]]:
    def observer() -> list[Observation]:
        if not runtime.config().http_pool_metrics:
            return []
        counts = dict.fromkeys(seen, 0)
        for _, core, _ in pools():
            for labels in read(core):
                counts[labels] = counts.get(labels, 0) + 1
        seen.update(list(counts)[:_MAX_SEEN])  # what was there once is 0 now, not absent
        return list(counts.items())

    return observer


def _open_connections(core: Any) -> Iterator[tuple[Any, ...]]:
    for connection in list(core.connections):
        found = _INFO.search(connection.info())
        if found is not None and found[5] != "CLOSED":
            yield "idle" if found[5] == "IDLE" else "active", found[4], found[2], _port(found)


def _active_requests(core: Any) -> Iterator[tuple[Any, ...]]:
    for waiting in list(getattr(core, "_requests", ())):
        if not waiting.is_queued():
            request = waiting.request
            url = request.url
            port = url.port or _DEFAULT_PORTS.get(url.scheme.decode("ascii", "replace"), 0)
            yield request.method.decode("ascii", "replace"), url.host.decode("ascii", "replace"), port


def _port(found: re.Match[str]) -> int:
    return int(found[3]) if found[3] else _DEFAULT_PORTS.get(found[1], 0)


def watch(connection: Any, born: int) -> None:
    """Tell how long `connection` was open once it is gone."""
    end = weakref.finalize(connection, guard.guarded(_gone), born, *_place(connection))
    end.atexit = False


def _place(connection: Any) -> tuple[str, str, int]:
    found = _INFO.search(connection.info())
    if found is not None:
        return found[4], found[2], _port(found)
    origin = connection._origin  # it is connecting, and says nothing more yet
    port = origin.port or _DEFAULT_PORTS.get(origin.scheme.decode("ascii", "replace"), 0)
    return "1.1", origin.host.decode("ascii", "replace"), port


def _gone(born: int, version: str, address: str, port: int) -> None:
    labels = {names.NETWORK_PROTOCOL_VERSION: version, names.SERVER_ADDRESS: address, names.SERVER_PORT: port}
    spent = (clock.monotonic() - born) / 1e9
    runtime.emitter().measure(names.METRIC_HTTP_CLIENT_CONNECTION_DURATION, SCOPE, labels, spent)

"""Whether the app's own exporters send to our end point: then joining would send everything twice."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

from watchkeep import guard, runtime

# Where processors and readers of the SDK, and wrappers around them, keep what they pass on to.
_STEPS = ("span_exporter", "_exporter", "_batch_processor", "_span_exporter", "exporter", "processor", "_processor")
_DEPTH = 5
_LOOPBACK = frozenset(("localhost", "127.0.0.1", "::1", "0.0.0.0", "::"))  # noqa: S104 - read, not bound
_COLLECTOR_PORTS = frozenset((4317, 4318))  # one collector's two doors

Address = tuple[str, int, str]


class Overlap:
    """Asked at each item, so it only looks again when the app has added a processor or a reader."""

    def __init__(self, signal: str, provider: Any) -> None:
        self.signal = signal
        self.provider = provider
        self.seen: Any = None
        self.found = False

    def __call__(self) -> bool:
        """Tell whether the app sends this signal to our end point itself."""
        readers = _READERS[self.signal](self.provider)
        if readers is not self.seen:
            self.found = bool(guard.run(self._look, readers))
            self.seen = readers
        return self.found

    def _look(self, readers: Any) -> bool:
        ours = _our_endpoint(self.signal)
        if ours is None:
            return False
        here = address(ours)
        return any(same(here, address(each)) for reader in readers for each in _endpoints(reader))


def _our_endpoint(signal: str) -> str | None:
    settings = getattr(runtime.get().pipeline, "settings", None)
    return getattr(settings, signal).endpoint if settings is not None else None


def _endpoints(thing: Any, depth: int = 0) -> Iterator[str]:
    found = getattr(thing, "_endpoint", None)
    if isinstance(found, str):
        yield found
    elif depth < _DEPTH:
        for step in _STEPS:
            inner = getattr(thing, step, None)
            if inner is not None:
                yield from _endpoints(inner, depth + 1)


def address(endpoint: str) -> Address:
    """Return host, port and path; every name of this machine is one host."""
    parts = urlsplit(endpoint if "://" in endpoint else f"//{endpoint}")
    host = (parts.hostname or "").lower()
    port = parts.port or (443 if parts.scheme == "https" else 80)
    return "localhost" if host in _LOOPBACK else host, port, parts.path.rstrip("/")


def same(one: Address, other: Address) -> bool:
    """Tell whether two addresses are one receiver; gRPC has no path."""
    if one[0] != other[0]:
        return False
    if {one[1], other[1]} <= _COLLECTOR_PORTS:
        return True
    return one[1] == other[1] and (not one[2] or not other[2] or one[2] == other[2])


def _span_readers(provider: Any) -> Any:
    return getattr(getattr(provider, "_active_span_processor", None), "_span_processors", ())


def _log_readers(provider: Any) -> Any:
    return getattr(getattr(provider, "_multi_log_record_processor", None), "_log_record_processors", ())


def _metric_readers(provider: Any) -> Any:
    return getattr(getattr(provider, "_measurement_consumer", None), "_reader_storages", ())


_READERS = {"traces": _span_readers, "metrics": _metric_readers, "logs": _log_readers}

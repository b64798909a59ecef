"""What goes along on the wire, to allowed hosts only: trace context, baggage, the correlation ID.

A request to any other LLM provider stays byte-equal to the app's own.
"""

from __future__ import annotations

from fnmatch import fnmatchcase
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from opentelemetry import trace
from opentelemetry.propagate import inject as inject_all

from watchkeep import runtime, tracing

if TYPE_CHECKING:
    from watchkeep.llm import LLMCall
    from watchkeep.record import Record


def carry(call: LLMCall, record: Record, headers: Any, place: str) -> None:
    """Write what goes along with `record` into a request to `place` (host:port), where that is an allowed host.

    The app's own headers stay; what a redirect copied from our last request is taken back first.
    """
    before, call.injected = call.injected, None
    for name, value in (before or {}).items():
        if headers.get(name) == value:
            del headers[name]
    if is_allowed(place, runtime.config().allowed_hosts):
        call.injected = {name: value for name, value in _carried(record).items() if name not in headers}
        headers.update(call.injected)


@lru_cache(maxsize=256)
def is_allowed(place: str, hosts: tuple[str, ...]) -> bool:
    """Whether `place` (host:port) is one of `hosts`, each with or without a port; ``*`` stands for anything."""
    host = place.rpartition(":")[0]
    wanted = [each.lower().replace("[", "").replace("]", "") for each in hosts]
    return any(fnmatchcase(host.lower(), each) or fnmatchcase(place.lower(), each) for each in wanted)


def _carried(record: Record) -> dict[str, str]:
    span = trace.NonRecordingSpan(tracing.span_context(record))
    found: dict[str, str] = {}
    inject_all(found, context=trace.set_span_in_context(span))
    found[runtime.config().correlation_header] = record.correlation
    return found

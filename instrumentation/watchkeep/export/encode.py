"""Spans and logs as OTLP protobuf, and the request around them; byte-equal to the official encoder.

An item is encoded alone, so one that cannot be encoded costs no neighbour anything, and a batch that
the receiver refuses can be cut in halves without encoding anything again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple, TypeVar

from watchkeep import guard
from watchkeep.export.encode_metrics import metric_bytes
from watchkeep.export.model import Event, Link, LogData, MetricData, Resource, Scope, SpanData
from watchkeep.export.wire import (
    VARINT,
    any_value,
    attributes,
    field,
    fixed32,
    fixed64,
    integer_field,
    string_field,
    text,
)

T = TypeVar("T", SpanData, LogData, MetricData)


class Encoded(NamedTuple):
    """The bytes of one span, log record or metric, and where they belong."""

    resource: Resource | None  # None: the pipeline's own
    scope: Scope
    data: bytes
    weight: int = 1  # points, of a metric


def encode_spans(spans: Iterable[SpanData], resource: Resource) -> bytes:
    """Make an ExportTraceServiceRequest."""
    return request(encode_each(span_bytes, spans), resource)


def encode_logs(logs: Iterable[LogData], resource: Resource) -> bytes:
    """Make an ExportLogsServiceRequest."""
    return request(encode_each(log_bytes, logs), resource)


def encode_metrics(metrics: Iterable[MetricData], resource: Resource) -> bytes:
    """Make an ExportMetricsServiceRequest."""
    return request(encode_each(metric_bytes, metrics), resource)


def encode_each(encoder: Callable[[T], bytes], items: Iterable[T]) -> list[Encoded]:
    """Encode items one by one; those that cannot be encoded are missing from the result."""
    out = []
    for item in items:
        data = guard.run(encoder, item)
        if data is not None:
            out.append(Encoded(item.resource, item.scope, data))
    return out


def span_bytes(span: SpanData) -> bytes:
    """Encode one span."""
    parts = [
        b"\x0a\x10",
        span.trace_id.to_bytes(16, "big"),
        b"\x12\x08",
        span.span_id.to_bytes(8, "big"),
        string_field(b"\x1a", span.trace_state) if span.trace_state else b"",
        b"\x22\x08" + span.parent_id.to_bytes(8, "big") if span.parent_id else b"",
        _name(span.name),
        b"\x30" + VARINT[span.kind] if span.kind else b"",
        b"\x39" + fixed64(span.start_ns) if span.start_ns else b"",
        b"\x41" + fixed64(span.end_ns) if span.end_ns else b"",
        attributes(b"\x4a", span.attributes),
    ]
    _details(span, parts)
    parts.append(_status(span.status_code, span.status_message))
    parts.append(b"\x85\x01" + fixed32(span.flags) if span.flags else b"")
    return b"".join(parts)


def _details(span: SpanData, parts: list[bytes]) -> None:
    if span.dropped_attributes:
        parts.append(integer_field(b"\x50", span.dropped_attributes))
    if span.events:
        parts += [field(b"\x5a", _event(event)) for event in span.events]
    if span.dropped_events:
        parts.append(integer_field(b"\x60", span.dropped_events))
    if span.links:
        parts += [field(b"\x6a", _link(link)) for link in span.links]
    if span.dropped_links:
        parts.append(integer_field(b"\x70", span.dropped_links))


_names: dict[str, bytes] = {}


def _name(name: str) -> bytes:
    known = _names.get(name)
    if known is None:
        known = string_field(b"\x2a", name)
        if len(_names) >= 512:
            _names.clear()
        if len(known) <= 128:
            _names[name] = known
    return known


def _status(code: int, message: str) -> bytes:
    if not message:
        return b"\x7a\x02\x18" + VARINT[code] if code else b"\x7a\x00"
    return field(b"\x7a", string_field(b"\x12", message) + integer_field(b"\x18", code))


def _event(event: Event) -> bytes:
    return b"".join(
        (
            b"\x09" + fixed64(event.time_ns) if event.time_ns else b"",
            string_field(b"\x12", event.name),
            attributes(b"\x1a", event.attributes),
            integer_field(b"\x20", event.dropped_attributes),
        )
    )


def _link(link: Link) -> bytes:
    return b"".join(
        (
            b"\x0a\x10" + link.trace_id.to_bytes(16, "big"),
            b"\x12\x08" + link.span_id.to_bytes(8, "big"),
            string_field(b"\x1a", link.trace_state),
            attributes(b"\x22", link.attributes),
            integer_field(b"\x28", link.dropped_attributes),
            b"\x35" + fixed32(link.flags) if link.flags else b"",
        )
    )


def log_bytes(log: LogData) -> bytes:
    """Encode one log record."""
    return b"".join(
        (
            b"\x09" + fixed64(log.time_ns) if log.time_ns else b"",
            integer_field(b"\x10", log.severity_number),
            string_field(b"\x1a", log.severity_text),
            field(b"\x2a", any_value(log.body)),
            attributes(b"\x32", log.attributes),
            integer_field(b"\x38", log.dropped_attributes),
            b"\x45" + fixed32(log.flags) if log.flags else b"",
            b"\x4a\x10" + log.trace_id.to_bytes(16, "big") if log.trace_id else b"",
            b"\x52\x08" + log.span_id.to_bytes(8, "big") if log.span_id else b"",
            b"\x59" + fixed64(log.observed_ns) if log.observed_ns else b"",
            string_field(b"\x62", log.event_name),
        )
    )


_Scopes = dict[Scope, list[bytes]]


def request(items: Iterable[Encoded], resource: Resource) -> bytes:
    """Group encoded items by resource, then scope, in the order first seen; all three signals look alike."""
    groups = _grouped(items, resource)
    return b"".join(
        [field(b"\x0a", _resource_items(key, schema_url, scopes)) for (key, schema_url), scopes in groups.items()]
    )


def _grouped(items: Iterable[Encoded], default: Resource) -> dict[tuple[bytes, str], _Scopes]:
    groups: dict[tuple[bytes, str], _Scopes] = {}
    known: dict[int, _Scopes] = {}
    last: tuple[Resource | None, Scope | None] = None, None
    group: list[bytes] = []
    for where, scope, data, _ in items:
        if scope is not last[1] or where is not last[0]:
            group = _scopes(groups, known, where or default).setdefault(scope, [])
            last = where, scope
        group.append(data)
    return groups


def _scopes(groups: dict[tuple[bytes, str], _Scopes], known: dict[int, _Scopes], resource: Resource) -> _Scopes:
    scopes = known.get(id(resource))
    if scopes is None:
        key = attributes(b"\x0a", resource.attributes), resource.schema_url
        scopes = known[id(resource)] = groups.setdefault(key, {})
    return scopes


def _resource_items(resource: bytes, schema_url: str, scopes: _Scopes) -> bytes:
    parts = [field(b"\x0a", resource)]
    parts += [field(b"\x12", _scope_items(scope, items)) for scope, items in scopes.items()]
    parts.append(string_field(b"\x1a", schema_url))
    return b"".join(parts)


def _scope_items(scope: Scope, items: list[bytes]) -> bytes:
    parts = [field(b"\x0a", _scope(scope))]
    add = parts.append
    for data in items:
        add(b"\x12" + VARINT[len(data)])
        add(data)
    add(string_field(b"\x1a", scope.schema_url))
    return b"".join(parts)


def _scope(scope: Scope) -> bytes:
    named: dict[str, Any] = dict(scope.attributes)
    return field(b"\x0a", text(scope.name)) * bool(scope.name) + (
        string_field(b"\x12", scope.version) + attributes(b"\x1a", named)
    )

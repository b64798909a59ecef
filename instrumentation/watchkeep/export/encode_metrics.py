"""Metrics as OTLP protobuf; byte-equal to the official encoder."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from struct import pack
from typing import Any

from watchkeep.export.model import Exemplar, ExponentialPoint, HistogramPoint, MetricData, NumberPoint
from watchkeep.export.wire import VARINT, attributes, double, field, fixed64, integer_field, string_field


def metric_bytes(metric: MetricData) -> bytes:
    """Encode one metric with its points."""
    tag, encode_point = _KINDS[metric.kind]
    head = (
        string_field(b"\x0a", metric.name)
        + string_field(b"\x12", metric.description)
        + string_field(b"\x1a", metric.unit)
    )
    if not metric.points:  # the official encoder then names no kind at all
        return head
    parts = [field(b"\x0a", encode_point(point)) for point in metric.points]
    if metric.kind != "gauge":
        parts.append(integer_field(b"\x10", metric.temporality))
    if metric.kind == "sum" and metric.monotonic:
        parts.append(b"\x18\x01")
    return head + field(tag, b"".join(parts))


def _number(point: NumberPoint) -> bytes:
    whole = isinstance(point.value, int)
    return b"".join(
        (
            _times(point.start_ns, point.time_ns),
            b"" if whole else b"\x21" + double(point.value),
            _exemplars(b"\x2a", point.exemplars),
            b"\x31" + _signed(point.value) if whole else b"",
            attributes(b"\x3a", point.attributes),
        )
    )


def _histogram(point: HistogramPoint) -> bytes:
    return b"".join(
        (
            _times(point.start_ns, point.time_ns),
            b"\x21" + fixed64(point.count) if point.count else b"",
            _optional(b"\x29", point.sum),
            _packed(b"\x32", "Q", point.counts),
            _packed(b"\x3a", "d", point.bounds),
            _exemplars(b"\x42", point.exemplars),
            attributes(b"\x4a", point.attributes),
            _optional(b"\x59", point.min),
            _optional(b"\x61", point.max),
        )
    )


def _exponential(point: ExponentialPoint) -> bytes:
    return b"".join(
        (
            attributes(b"\x0a", point.attributes),
            _times(point.start_ns, point.time_ns),
            b"\x21" + fixed64(point.count) if point.count else b"",
            _optional(b"\x29", point.sum),
            integer_field(b"\x30", _zigzag(point.scale)),
            b"\x39" + fixed64(point.zero_count) if point.zero_count else b"",
            _buckets(b"\x42", point.positive_offset, point.positive_counts),
            _buckets(b"\x4a", point.negative_offset, point.negative_counts),
            _exemplars(b"\x5a", point.exemplars),
            _optional(b"\x61", point.min),
            _optional(b"\x69", point.max),
            b"\x71" + double(point.zero_threshold) if point.zero_threshold else b"",
        )
    )


_KINDS: dict[str, tuple[bytes, Callable[[Any], bytes]]] = {
    "gauge": (b"\x2a", _number),
    "sum": (b"\x3a", _number),
    "histogram": (b"\x4a", _histogram),
    "exponential_histogram": (b"\x52", _exponential),
}


def _times(start_ns: int, time_ns: int) -> bytes:
    start = b"\x11" + fixed64(start_ns) if start_ns else b""
    return start + b"\x19" + fixed64(time_ns) if time_ns else start


def _optional(tag: bytes, value: float | None) -> bytes:
    return b"" if value is None else tag + double(value)


def _packed(tag: bytes, code: str, values: Sequence[float]) -> bytes:
    return field(tag, pack(f"<{len(values)}{code}", *values)) if values else b""


def _buckets(tag: bytes, offset: int, counts: Sequence[int]) -> bytes:
    if not counts:
        return b""
    packed = b"".join([VARINT[count] for count in counts])
    return field(tag, integer_field(b"\x08", _zigzag(offset)) + field(b"\x12", packed))


def _zigzag(value: int) -> int:
    return value << 1 if value >= 0 else (-value << 1) - 1


def _signed(value: float) -> bytes:
    return int(value).to_bytes(8, "little", signed=True)


def _exemplars(tag: bytes, exemplars: Sequence[Exemplar]) -> bytes:
    return b"".join([field(tag, _exemplar(one)) for one in exemplars])


def _exemplar(one: Exemplar) -> bytes:
    whole = not isinstance(one.value, float)
    return b"".join(
        (
            b"\x11" + fixed64(one.time_ns) if one.time_ns else b"",
            b"" if whole else b"\x19" + double(one.value),
            b"\x22\x08" + one.span_id.to_bytes(8, "big") if one.span_id else b"",
            b"\x2a\x10" + one.trace_id.to_bytes(16, "big") if one.trace_id else b"",
            b"\x31" + _signed(one.value) if whole else b"",
            attributes(b"\x3a", one.attributes),
        )
    )

"""What is exported, as plain data: the only shapes that the queue, the encoder and the console know.

Times are integers in nanoseconds since the epoch, ids are integers, attributes are dicts of
``str`` to ``str | bool | int | float | bytes | sequence | dict | None``. Kinds and codes are OTLP's numbers.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

INTERNAL, SERVER, CLIENT, PRODUCER, CONSUMER = 1, 2, 3, 4, 5
STATUS_UNSET, STATUS_OK, STATUS_ERROR = 0, 1, 2
DELTA, CUMULATIVE = 1, 2

Attributes = dict[str, Any]


class Scope(NamedTuple):
    """An instrumentation scope; equal scopes are one group on the wire."""

    name: str
    version: str = ""
    schema_url: str = ""
    attributes: tuple[tuple[str, Any], ...] = ()


@dataclass(slots=True, eq=False)
class Resource:
    """Who is speaking; grouped by identity of its content."""

    attributes: Attributes
    schema_url: str = ""


@dataclass(slots=True, eq=False)
class Event:
    """A span event, as other instrumentations still make them."""

    name: str
    time_ns: int
    attributes: Attributes = field(default_factory=dict)
    dropped_attributes: int = 0


@dataclass(slots=True, eq=False)
class Link:
    """A link to another span."""

    trace_id: int
    span_id: int
    trace_state: str = ""
    flags: int = 0
    attributes: Attributes = field(default_factory=dict)
    dropped_attributes: int = 0


@dataclass(slots=True, eq=False)
class SpanData:
    """One finished span. ``flags`` is the OTLP field: W3C flags, plus 0x100 and 0x200 for a remote parent."""

    name: str
    trace_id: int
    span_id: int
    parent_id: int
    kind: int
    start_ns: int
    end_ns: int
    attributes: Attributes
    scope: Scope
    status_code: int = STATUS_UNSET
    status_message: str = ""
    trace_state: str = ""
    flags: int = 0x101
    events: tuple[Event, ...] = ()
    links: tuple[Link, ...] = ()
    dropped_attributes: int = 0
    dropped_events: int = 0
    dropped_links: int = 0
    resource: Resource | None = None  # None: the pipeline's own


@dataclass(slots=True, eq=False)
class LogData:
    """One log record or event."""

    time_ns: int
    observed_ns: int
    severity_number: int
    severity_text: str
    body: Any
    attributes: Attributes
    scope: Scope
    event_name: str = ""
    trace_id: int = 0
    span_id: int = 0
    flags: int = 0
    dropped_attributes: int = 0
    resource: Resource | None = None


@dataclass(slots=True, eq=False)
class Exemplar:
    """One measurement that stands for others, with the span it was made in."""

    time_ns: int
    value: float | int
    trace_id: int
    span_id: int
    attributes: Attributes = field(default_factory=dict)


@dataclass(slots=True, eq=False)
class NumberPoint:
    """One value of a sum or gauge."""

    attributes: Attributes
    start_ns: int
    time_ns: int
    value: float | int
    exemplars: tuple[Exemplar, ...] = ()


@dataclass(slots=True, eq=False)
class HistogramPoint:
    """One explicit-bucket histogram: ``len(counts) == len(bounds) + 1``."""

    attributes: Attributes
    start_ns: int
    time_ns: int
    count: int
    sum: float | int | None
    counts: tuple[int, ...]
    bounds: tuple[float, ...]
    min: float | int | None = None
    max: float | int | None = None
    exemplars: tuple[Exemplar, ...] = ()


@dataclass(slots=True, eq=False)
class ExponentialPoint:
    """One exponential histogram, as an app's own views may make them."""

    attributes: Attributes
    start_ns: int
    time_ns: int
    count: int
    sum: float | int
    scale: int
    zero_count: int
    positive_offset: int
    positive_counts: tuple[int, ...]
    negative_offset: int
    negative_counts: tuple[int, ...]
    min: float | int | None = None
    max: float | int | None = None
    exemplars: tuple[Exemplar, ...] = ()
    zero_threshold: float = 0.0


@dataclass(slots=True, eq=False)
class MetricData:
    """One metric with its points. ``kind`` is ``sum``, ``gauge``, ``histogram`` or ``exponential_histogram``."""

    name: str
    unit: str
    description: str
    kind: str
    points: list[Any]
    scope: Scope
    monotonic: bool = False
    temporality: int = CUMULATIVE
    resource: Resource | None = None

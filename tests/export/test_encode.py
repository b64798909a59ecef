"""The encoder, held to the official one byte by byte."""

from __future__ import annotations

import random
from types import SimpleNamespace

import pytest
from opentelemetry._logs import SeverityNumber
from opentelemetry.exporter.otlp.proto.common._log_encoder import encode_logs as official_logs
from opentelemetry.exporter.otlp.proto.common.metrics_encoder import encode_metrics as official_metrics
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans as official_spans
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk._logs import ReadableLogRecord
from opentelemetry.sdk.metrics import export as sdk_metrics
from opentelemetry.sdk.metrics._internal.exemplar import Exemplar
from opentelemetry.sdk.resources import Resource as SdkResource
from opentelemetry.sdk.trace import BoundedAttributes, Event, ReadableSpan
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import Link, SpanContext, SpanKind, Status, StatusCode, TraceFlags, TraceState

from watchkeep import guard
from watchkeep.export import encode, wire
from watchkeep.export.encode import encode_logs, encode_metrics, encode_spans
from watchkeep.export.model import CLIENT, Resource, Scope, SpanData
from watchkeep.export.sdk import logs_data, metrics_data, spans_data

OWN = Resource({"service.name": "own"})
SCOPE = Scope("test", "1")
WORDS = [
    "",
    "chat",
    "gen_ai.request.model",
    "gpt-4o",
    "naïve",
    "日本語 text",
    "🙂",
    "a\x00b",
    "x" * 127,
    "y" * 128,
    "z" * 300,
]
KEYS = [
    "",
    "gen_ai.system",
    "http.status",
    "k",
    "ключ",
    "l" * 130,
    "error.type",
    "server.port",
    "ratio",
    "flag",
]
INTEGERS = [0, 1, -1, 127, 128, 16383, 16384, 2**31, 2**53, 2**63 - 1, -(2**63), 200, 443]
FLOATS = [0.0, -0.0, 1.5, -2.25, 1e300, 5e-324, float("inf"), float("-inf"), float("nan")]


class Maker:
    """Makes SDK objects from a seed."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)

    def maybe(self, make, empty=None, share=0.5):
        return make() if self.random.random() < share else empty

    def some(self, make, most=3):
        return [make() for _ in range(self.random.randint(0, most))]

    def text(self):
        return (
            self.random.choice(WORDS)
            if self.random.random() < 0.7
            else "".join(
                chr(self.random.choice([self.random.randint(1, 0x7F), self.random.randint(0xA0, 0xD7FF)]))
                for _ in range(self.random.randint(0, 40))
            )
        )

    def key(self):
        return self.random.choice(KEYS) if self.random.random() < 0.8 else self.text()

    def integer(self):
        return self.random.choice(INTEGERS) if self.random.random() < 0.6 else self.random.getrandbits(40)

    def float(self):
        return self.random.choice(FLOATS) if self.random.random() < 0.5 else self.random.uniform(-1e6, 1e6)

    def scalar(self):
        return self.random.choice(
            [self.text, self.integer, self.float, lambda: True, lambda: False, lambda: self.text().encode()]
        )()

    def value(self, depth=0):
        draw = self.random.random()
        if draw < 0.75 or depth > 3:
            return self.scalar()
        if draw < 0.9:
            made = [self.value(depth + 1) for _ in range(self.random.randint(0, 4))]
            return tuple(made) if self.random.random() < 0.5 else made
        if draw < 0.97:
            return {self.key(): self.value(depth + 1) for _ in range(self.random.randint(0, 3))}
        return None

    def attributes(self, most=6):
        return {self.key(): self.value() for _ in range(self.random.randint(0, most))}

    def bounded(self):
        made = BoundedAttributes(attributes={self.key(): self.scalar() for _ in range(5)}, immutable=False)
        made.dropped = self.random.choice([0, 0, 3, 300])
        return made

    def context(self):
        state = self.maybe(lambda: TraceState([("a", "1"), ("vendor", "x:y")]), None)
        return SpanContext(
            self.random.getrandbits(128) | 1,
            self.random.getrandbits(64) | 1,
            self.random.random() < 0.3,
            TraceFlags(self.random.choice([0, 1])),
            state,
        )

    def moment(self):
        return self.random.choice([0, 1, 1_700_000_000_000_000_000 + self.random.getrandbits(40)])

    def event(self):
        return Event(self.text(), self.maybe(self.attributes, None), self.moment() or 5)

    def link(self):
        return Link(self.context(), self.maybe(self.bounded, None))

    def span(self, resources, scopes):
        return ReadableSpan(
            name=self.text(),
            context=self.context(),
            parent=self.maybe(self.context),
            resource=self.random.choice(resources),
            attributes=self.random.choice([self.bounded, self.attributes, lambda: None])(),
            events=self.some(self.event),
            links=self.some(self.link, 2),
            kind=self.random.choice(list(SpanKind)),
            instrumentation_scope=self.random.choice(scopes),
            status=self.random.choice(
                [
                    Status(),
                    Status(StatusCode.OK),
                    Status(StatusCode.ERROR),
                    Status(StatusCode.ERROR, self.text()),
                ]
            ),
            start_time=self.moment(),
            end_time=self.moment(),
        )

    def log(self, resources, scopes):
        record = SimpleNamespace(
            timestamp=self.maybe(self.moment),
            observed_timestamp=self.moment(),
            trace_id=self.maybe(lambda: self.random.getrandbits(128), 0),
            span_id=self.maybe(lambda: self.random.getrandbits(64), 0),
            trace_flags=TraceFlags(self.random.choice([0, 1])),
            severity_text=self.maybe(self.text),
            severity_number=self.maybe(lambda: self.random.choice(list(SeverityNumber))),
            body=self.value(),
            attributes=self.random.choice([self.bounded, self.attributes, lambda: None])(),
            event_name=self.maybe(self.text),
        )
        return ReadableLogRecord(record, self.random.choice(resources), self.random.choice(scopes))

    def exemplar(self):
        ids = self.maybe(lambda: (self.random.getrandbits(64) | 1, self.random.getrandbits(128) | 1), (None, None))
        return Exemplar(self.attributes(2), self.number(), self.moment(), *ids)

    def number(self):
        return self.random.choice([self.integer, self.float])()

    def count(self):
        return self.random.choice([0, 1, 127, 128, self.random.getrandbits(33)])

    def number_point(self):
        return sdk_metrics.NumberDataPoint(
            self.attributes(), self.moment(), self.moment(), self.number(), self.some(self.exemplar, 2)
        )

    def histogram_point(self):
        bounds = sorted(self.random.uniform(0, 100) for _ in range(self.random.randint(0, 15)))
        counts = [self.count() for _ in range(len(bounds) + 1)]
        return sdk_metrics.HistogramDataPoint(
            self.attributes(),
            self.moment(),
            self.moment(),
            sum(counts),
            self.number(),
            counts,
            bounds,
            self.maybe(self.number),
            self.maybe(self.number),
            self.some(self.exemplar, 2),
        )

    def exponential_point(self):
        def buckets():
            return sdk_metrics.Buckets(self.random.randint(-300, 300), self.some(self.count, 20))

        return sdk_metrics.ExponentialHistogramDataPoint(
            self.attributes(),
            self.moment(),
            self.moment(),
            self.count(),
            self.number(),
            self.random.randint(-10, 20),
            self.count(),
            buckets(),
            buckets(),
            0,
            self.number(),
            self.number(),
            self.some(self.exemplar, 2),
        )

    def metric(self):
        temporality = self.random.choice(list(sdk_metrics.AggregationTemporality)[-2:])
        data = self.random.choice(
            [
                lambda: sdk_metrics.Sum(self.some(self.number_point), temporality, self.random.random() < 0.5),
                lambda: sdk_metrics.Gauge(self.some(self.number_point)),
                lambda: sdk_metrics.Histogram(self.some(self.histogram_point), temporality),
                lambda: sdk_metrics.ExponentialHistogram(self.some(self.exponential_point), temporality),
            ]
        )()
        return sdk_metrics.Metric(self.text(), self.maybe(self.text), self.maybe(self.text), data)

    def metrics(self, resources, scopes):
        return sdk_metrics.MetricsData(
            [
                sdk_metrics.ResourceMetrics(
                    resource,
                    [
                        sdk_metrics.ScopeMetrics(scope, [self.metric() for _ in range(2)], "")
                        for scope in scopes
                        if scope
                    ],
                    "",
                )
                for resource in resources
            ]
        )

    def resources(self):
        return [
            SdkResource({"service.name": f"s{number}", **self.attributes()}, self.maybe(self.text)) for number in (1, 2)
        ]

    def scopes(self):
        return [
            None,
            InstrumentationScope("one", "1.0", "https://schema"),
            InstrumentationScope("two", None, None, {"a": 1, "b": "x"}),
            InstrumentationScope("three" + self.text(), self.maybe(self.text), self.maybe(self.text)),
        ]


def test_generated_spans_equal_the_official_bytes():
    """2,500 spans in 500 requests come out byte for byte as from the official encoder."""
    for seed in range(500):
        make = Maker(seed)
        resources, scopes = make.resources(), make.scopes()
        spans = [make.span(resources, scopes) for _ in range(5)]
        assert encode_spans(spans_data(spans), OWN) == official_spans(spans).SerializeToString(), seed


def test_generated_logs_equal_the_official_bytes():
    """2,500 log records in 500 requests come out byte for byte as from the official encoder."""
    for seed in range(500):
        make = Maker(seed)
        resources, scopes = make.resources(), make.scopes()
        logs = [make.log(resources, scopes) for _ in range(5)]
        assert encode_logs(logs_data(logs), OWN) == official_logs(logs).SerializeToString(), seed


def test_generated_metrics_equal_the_official_bytes():
    """2,000 metrics of all kinds, with exemplars, come out byte for byte as from the official encoder."""
    for seed in range(350):
        make = Maker(seed)
        metrics = make.metrics(make.resources(), make.scopes())
        assert encode_metrics(metrics_data(metrics), OWN) == official_metrics(metrics).SerializeToString(), seed


def span(name="chat gpt-4o", **changed) -> SpanData:
    fields = {
        "name": name,
        "trace_id": 7,
        "span_id": 8,
        "parent_id": 0,
        "kind": CLIENT,
        "start_ns": 1,
        "end_ns": 2,
        "attributes": {},
        "scope": SCOPE,
    }
    return SpanData(**{**fields, **changed})


def decoded(*spans: SpanData):
    request = ExportTraceServiceRequest.FromString(encode_spans(spans, OWN))
    return [one for resource in request.resource_spans for scope in resource.scope_spans for one in scope.spans]


def value_of(value):
    (one,) = decoded(span(attributes={"k": value}))
    return one.attributes[0].value


def test_a_lone_surrogate_is_replaced_wherever_text_stands():
    """UTF-8 cannot hold a surrogate: U+FFFD stands for it, and the span arrives."""
    bad = "a\ud800b"
    (one,) = decoded(span(bad, attributes={bad: [bad, {bad: bad}]}, status_code=2, status_message=bad))
    assert one.name == one.status.message == one.attributes[0].key == "a\ufffdb"
    assert one.attributes[0].value.array_value.values[1].kvlist_value.values[0].key == "a\ufffdb"


@pytest.mark.parametrize("number", [2**63, -(2**63) - 1, 2**200])
def test_an_integer_beyond_64_bits_becomes_text(number):
    """OTLP has no wider integer, so its digits arrive."""
    assert value_of(number).string_value == str(number)


def test_an_integer_too_long_to_print_is_described():
    """Python refuses to print more than 4,300 digits; the value still does no harm."""
    assert value_of(10**5000).string_value == "<int of 16610 bits>"


def test_a_value_that_contains_itself_is_cut():
    """Depth is limited, so a cycle ends."""
    cycle: list[object] = []
    cycle.append(cycle)
    assert b"<nested too deep>" in encode_spans([span(attributes={"k": cycle})], OWN)


def test_an_unknown_type_is_named_and_not_asked_for_its_text():
    """The encoder never calls `str` of an object it does not know."""

    class Hostile:
        def __str__(self):
            raise RuntimeError

        __repr__ = __str__

    assert value_of(Hostile()).string_value == "<Hostile>"


def test_a_span_that_cannot_be_encoded_costs_no_neighbour(monkeypatch):
    """One hopeless span is missing, the others arrive."""
    monkeypatch.setattr(guard, "raising", False)
    assert [one.name for one in decoded(span("a"), span("bad", span_id=-1), span("b"))] == ["a", "b"]


def test_equal_true_one_and_one_point_zero_stay_apart():
    """Cached bytes are kept by type: True, 1 and 1.0 are equal in Python and differ on the wire."""
    kinds = [value_of(value).WhichOneof("value") for value in (True, 1, 1.0, True, 1)]
    assert kinds == ["bool_value", "int_value", "double_value", "bool_value", "int_value"]


def test_the_caches_are_bounded():
    """A flood of new keys and values does not grow the encoder for ever."""
    for number in range(20_000):
        encode.span_bytes(span(f"name {number}", attributes={f"key {number}": f"value {number}", "k": f"v{number}"}))
    assert len(wire._keys) <= 512
    assert max(len(key.strings) + len(key.numbers) + len(key.heads) for key in wire._keys.values()) <= 96
    assert len(encode._names) <= 512

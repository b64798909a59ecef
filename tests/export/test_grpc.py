"""OTLP over gRPC, against a real gRPC server; needs grpcio, which only the `otlp` extra brings."""

from __future__ import annotations

from concurrent import futures

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from watchkeep.export.model import LogData, Resource, Scope, SpanData
from watchkeep.export.pipeline import Pipeline
from watchkeep.export.settings import from_environment

grpc = pytest.importorskip("grpc")
SCOPE = Scope("test", "1")


class Collector:
    """Takes every Export call, or refuses it as told."""

    def __init__(self):
        self.taken = {}
        self.metadata = {}
        self.refusal = lambda body: None
        handler = type("Handler", (grpc.GenericRpcHandler,), {"service": lambda _, call: self.handle(call.method)})
        self.server = grpc.server(futures.ThreadPoolExecutor(2))
        self.server.add_generic_rpc_handlers((handler(),))
        self.port = self.server.add_insecure_port("127.0.0.1:0")
        self.server.start()

    def handle(self, method):
        def answer(body, context):
            code = self.refusal(body)
            if code is not None:
                context.abort(code, "no")
            self.taken.setdefault(method, []).append(body)
            self.metadata = dict(context.invocation_metadata())
            return b""

        return grpc.unary_unary_rpc_method_handler(answer)

    def spans(self):
        found = []
        for body in self.taken.get("/opentelemetry.proto.collector.trace.v1.TraceService/Export", ()):
            for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
                found += [one.name for scope in resource.scope_spans for one in scope.spans]
        return found


@pytest.fixture
def collector():
    made = Collector()
    yield made
    made.server.stop(0)


@pytest.fixture
def pipeline(collector):
    environ = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{collector.port}",
        "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc",
        "OTEL_EXPORTER_OTLP_HEADERS": "X-Key=1",
        "OTEL_EXPORTER_OTLP_COMPRESSION": "gzip",
    }
    made = Pipeline(from_environment(environ), Resource({}), drain=lambda: None, collect=list)
    yield made
    made.shutdown(0.5)


def span(name):
    return SpanData(name, 1, 2, 0, 1, 1, 2, {}, SCOPE)


def test_all_three_services_are_called_with_the_headers(collector, pipeline):
    """Spans, logs and metrics arrive each at its own service."""
    pipeline.add_spans([span("a")])
    pipeline.add_logs([LogData(1, 1, 9, "INFO", "hello", {}, SCOPE)])
    assert pipeline.flush()
    assert len(collector.taken) == 3
    assert collector.spans() == ["a"]
    assert collector.metadata["x-key"] == "1"


def test_a_refused_item_is_found_and_its_neighbours_arrive(collector, pipeline):
    """INVALID_ARGUMENT is gRPC's 400."""
    collector.refusal = lambda body: grpc.StatusCode.INVALID_ARGUMENT if b"poison" in body else None
    pipeline.add_spans([span(f"s{number}") for number in range(20)] + [span("poison")])
    assert not pipeline.flush()
    assert sorted(collector.spans()) == sorted(f"s{number}" for number in range(20))
    assert pipeline.counts()["traces"]["lost"] == {"rejected": 1}


@pytest.mark.parametrize("code", ["UNAVAILABLE", "RESOURCE_EXHAUSTED", "DEADLINE_EXCEEDED", "ABORTED"])
def test_what_may_pass_is_tried_again(collector, pipeline, code):
    """A passing refusal keeps the batch."""
    refusals = [getattr(grpc.StatusCode, code)]
    collector.refusal = lambda body: refusals.pop() if refusals else None
    pipeline.add_spans([span("a")])
    pipeline.flush(0.5)
    assert pipeline.flush()
    assert collector.spans() == ["a"]
    assert pipeline.counts()["traces"]["lost"] == {}


def test_a_dead_server_is_said_to_be_dead(collector, pipeline):
    """Nothing raises, and the loss is counted."""
    collector.server.stop(0).wait()
    pipeline.add_spans([span("a")])
    assert not pipeline.shutdown(2)
    assert pipeline.counts()["traces"]["lost"] == {"shutdown": 1}

"""OTLP requests made by hand, as an app would send them that knows nothing of Watchkeep."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, ArrayValue, KeyValue, KeyValueList

TRACE, SPAN = b"\x01" * 16, b"\x02" * 8


def any_value(value: Any) -> AnyValue:
    """Turn a Python value into an AnyValue."""
    if value is None:
        return AnyValue()
    if isinstance(value, dict):
        return AnyValue(kvlist_value=KeyValueList(values=pairs(value)))
    if isinstance(value, list):
        return AnyValue(array_value=ArrayValue(values=[any_value(each) for each in value]))
    name = {str: "string", bool: "bool", int: "int", float: "double", bytes: "bytes"}[type(value)]
    return AnyValue(**{f"{name}_value": value})


def pairs(attributes: Mapping[str, Any]) -> list[KeyValue]:
    """Turn a dict into KeyValues."""
    return [KeyValue(key=key, value=any_value(value)) for key, value in attributes.items()]


class Trace:
    """One span in a resource and a scope of its own; `span`, `scope`, `resource` can be changed."""

    def __init__(self, name: str = "work", service: str = "raw", **attributes: Any) -> None:
        self.request = ExportTraceServiceRequest()
        self.group = self.request.resource_spans.add()
        self.resource = self.group.resource
        self.resource.attributes.extend(pairs({"service.name": service}))
        self.inner = self.group.scope_spans.add()
        self.scope = self.inner.scope
        now = time.time_ns()
        self.span = self.inner.spans.add(name=name, trace_id=TRACE, span_id=SPAN)
        self.span.start_time_unix_nano, self.span.end_time_unix_nano = now - 1000, now
        self.span.attributes.extend(pairs(attributes))

    def event(self, name: str, **attributes: Any) -> None:
        """Put an event on the span."""
        self.span.events.add(name=name, time_unix_nano=time.time_ns(), attributes=pairs(attributes))


class Log:
    """One log record in a resource and a scope of its own; `record`, `scope`, `resource` can be changed."""

    def __init__(self, body: Any = "done", service: str = "raw", event: str = "", **attributes: Any) -> None:
        self.request = ExportLogsServiceRequest()
        self.group = self.request.resource_logs.add()
        self.resource = self.group.resource
        self.resource.attributes.extend(pairs({"service.name": service}))
        self.inner = self.group.scope_logs.add()
        self.scope = self.inner.scope
        self.record = self.inner.log_records.add(event_name=event, severity_number=9, time_unix_nano=time.time_ns())
        self.record.body.CopyFrom(any_value(body))
        self.record.attributes.extend(pairs(attributes))


class Metrics:
    """A point of each kind, with the same attributes, in a resource and a scope of their own."""

    def __init__(self, name: str = "things", service: str = "raw", **attributes: Any) -> None:
        self.request = ExportMetricsServiceRequest()
        self.group = self.request.resource_metrics.add()
        self.resource = self.group.resource
        self.resource.attributes.extend(pairs({"service.name": service}))
        self.inner = self.group.scope_metrics.add()
        self.scope = self.inner.scope
        self.points = []
        now = time.time_ns()
        for kind in ("sum", "gauge", "histogram", "exponential_histogram"):
            metric = self.inner.metrics.add(name=f"{name}.{kind}")
            data = getattr(metric, kind)
            if kind != "gauge":
                data.aggregation_temporality = 2
            point = data.data_points.add(time_unix_nano=now, attributes=pairs(attributes))
            if kind in ("sum", "gauge"):
                point.as_int = 1
            else:
                point.count, point.sum = 1, 1.0
            self.points.append(point)
        self.metrics = self.inner.metrics


def merged(parts: list[Any]) -> Any:
    """Put the requests of several Traces, Logs or Metrics into one."""
    whole = type(parts[0].request)()
    for each in parts:
        whole.MergeFrom(each.request)
    return whole

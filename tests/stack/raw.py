"""OTLP as anyone can send it, without a library: JSON over HTTP to the collector."""

from __future__ import annotations

import json
import secrets
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from typing import Any

CUMULATIVE = 2


def attributes(values: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return attributes as OTLP/JSON writes them."""
    return [{"key": key, "value": value(each)} for key, each in values.items()]


def value(given: Any) -> dict[str, Any]:
    """Return one value as OTLP/JSON writes it."""
    if isinstance(given, bool):
        return {"boolValue": given}
    if isinstance(given, int):
        return {"intValue": str(given)}
    if isinstance(given, float):
        return {"doubleValue": given}
    if isinstance(given, Mapping):
        return {"kvlistValue": {"values": attributes(given)}}
    if isinstance(given, list | tuple):
        return {"arrayValue": {"values": [value(each) for each in given]}}
    return {"stringValue": str(given)}


def now() -> str:
    """Return the time in nanoseconds, as OTLP/JSON writes it."""
    return str(time.time_ns())


def resource(service: str, **more: Any) -> dict[str, Any]:
    """Return a resource of a service."""
    told = {"service.name": service, "service.instance.id": f"{service}-1", "deployment.environment.name": "test"}
    return {"attributes": attributes({**told, **more})}


def span(name: str, given: Mapping[str, Any], **fields: Any) -> dict[str, Any]:
    """Return a finished span of 1 ms, a trace of its own unless `traceId` is given."""
    end = time.time_ns()
    ids = {"traceId": secrets.token_hex(16), "spanId": secrets.token_hex(8)}
    times = {"startTimeUnixNano": str(end - 1_000_000), "endTimeUnixNano": str(end)}
    return {**ids, "name": name, "kind": 1, **times, "attributes": attributes(given), **fields}


def record(body: Any, given: Mapping[str, Any], **fields: Any) -> dict[str, Any]:
    """Return a log record at level INFO."""
    at = now()
    told = {"timeUnixNano": at, "observedTimeUnixNano": at, "severityNumber": 9, "severityText": "INFO"}
    return {**told, "body": value(body), "attributes": attributes(given), **fields}


def counter(
    name: str, points: Sequence[tuple[Mapping[str, Any], float]], start: int, unit: str = "1"
) -> dict[str, Any]:
    """Return a cumulative monotonic counter with these points."""
    made = [_point(labels, number, start) for labels, number in points]
    return {
        "name": name,
        "unit": unit,
        "sum": {"aggregationTemporality": CUMULATIVE, "isMonotonic": True, "dataPoints": made},
    }


def gauge(name: str, points: Sequence[tuple[Mapping[str, Any], float]], unit: str = "1") -> dict[str, Any]:
    """Return an up-down counter, which a store keeps as a gauge without a suffix."""
    made = [_point(labels, number, 0) for labels, number in points]
    return {
        "name": name,
        "unit": unit,
        "sum": {"aggregationTemporality": CUMULATIVE, "isMonotonic": False, "dataPoints": made},
    }


def _point(labels: Mapping[str, Any], number: float, start: int) -> dict[str, Any]:
    began = {"startTimeUnixNano": str(start)} if start else {}
    return {**began, "timeUnixNano": now(), "asDouble": float(number), "attributes": attributes(labels)}


def traces(given: dict[str, Any], spans: Sequence[dict[str, Any]], **scope: Any) -> dict[str, Any]:
    """Return a request for /v1/traces."""
    return {
        "resourceSpans": [
            {"resource": given, "scopeSpans": [{"scope": {"name": "raw", **scope}, "spans": list(spans)}]}
        ]
    }


def logs(given: dict[str, Any], records: Sequence[dict[str, Any]], **scope: Any) -> dict[str, Any]:
    """Return a request for /v1/logs."""
    inside = [{"scope": {"name": "raw", **scope}, "logRecords": list(records)}]
    return {"resourceLogs": [{"resource": given, "scopeLogs": inside}]}


def metrics(given: dict[str, Any], found: Sequence[dict[str, Any]], **scope: Any) -> dict[str, Any]:
    """Return a request for /v1/metrics."""
    return {
        "resourceMetrics": [
            {"resource": given, "scopeMetrics": [{"scope": {"name": "raw", **scope}, "metrics": list(found)}]}
        ]
    }


_SIGNALS = {"resourceSpans": "traces", "resourceLogs": "logs", "resourceMetrics": "metrics"}


def post(endpoint: str, request: dict[str, Any], timeout: float = 10) -> int:
    """Send a request; return the status that was answered, 0 when there was none."""
    path = next(_SIGNALS[key] for key in request)
    sent = urllib.request.Request(
        f"{endpoint}/v1/{path}", json.dumps(request).encode(), {"content-type": "application/json"}
    )
    try:
        with urllib.request.urlopen(sent, timeout=timeout) as answer:
            answer.read()
            return answer.status
    except urllib.error.HTTPError as error:
        error.read()
        return error.code
    except OSError:
        return 0

"""Checks what was captured against the catalogue of names in tests/semconv: OpenTelemetry's and our extension.

Left out on purpose: attributes that a caller put there itself (another scope than ours).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from watchkeep import names
from watchkeep.export.model import LogData, MetricData, SpanData

FOLDER = Path(__file__).parents[1] / "semconv"
_FILES = ("extension", "gen_ai", "gen_ai_v1_41", "http", "general", "otel_sdk", "runtime")
_KINDS = {"counter": "sum", "updowncounter": "sum", "histogram": "histogram", "gauge": "gauge"}
_PYTHON = {
    "string": str,
    "int": int,
    "double": (int, float),
    "boolean": bool,
    "template[double]": (int, float),
}
# Names of ours that the catalogue does not have, with their reason in docs/decisions.md.
OWN_ERROR_TYPES = {names.ERROR_EVENT}
OWN_SPANS = {
    names.OTHER_CALL.key: {
        "kind": "client",
        "name_format": "{gen_ai.operation.name}",
        "attributes": {names.GEN_AI_OPERATION_NAME: "required", names.GEN_AI_PROVIDER_NAME: "required"},
    }
}
# A label of process.paging.faults whose registry (system) is not copied.
_ELSEWHERE = {names.SYSTEM_PAGING_FAULT_TYPE: {"type": "string", "enum": ["major", "minor"]}}
SEEN: dict[str, set[str]] = {"attributes": set(), "metrics": set(), "spans": set(), "events": set()}


def _load() -> dict[str, dict[str, Any]]:
    merged: dict[str, dict[str, Any]] = {"attributes": dict(_ELSEWHERE), "metrics": {}, "spans": {}, "events": {}}
    for file in _FILES:
        data = json.loads((FOLDER / f"{file}.json").read_text())
        for part, found in merged.items():
            for name, entry in (data.get(part) or {}).items():
                if name not in found or "deprecated" in found[name]:
                    found[name] = entry
    return merged


CATALOGUE = _load()
CATALOGUE["spans"].update(OWN_SPANS)
EXTENSION = json.loads((FOLDER / "extension.json").read_text())


def violations(spans: Iterable[SpanData], logs: Iterable[LogData], metrics: Iterable[MetricData]) -> list[str]:
    """Return one line for each name, type, unit, bucket, kind or requirement that is broken."""
    found = []
    for span in spans:
        if span.scope.name.startswith("watchkeep."):
            found += [f"span {span.name!r}: {wrong}" for wrong in _span(span)]
    for log in logs:
        if log.event_name and log.scope.name.startswith("watchkeep."):
            found += [f"event {log.event_name!r}: {wrong}" for wrong in _event(log)]
    for metric in metrics:
        if metric.scope.name.startswith("watchkeep."):
            found += [f"metric {metric.name!r}: {wrong}" for wrong in _metric(metric)]
    return sorted(set(found))


# -- spans ---------------------------------------------------------------------------------------------


def _span(span: SpanData) -> Iterator[str]:
    yield from _scope(span.scope)
    yield from _attributes(span.attributes, "span")
    key = span_key(span)
    entry = CATALOGUE["spans"].get(key)
    if entry is None:
        yield f"no span type fits (looked for {key})"
        return
    SEEN["spans"].add(key)
    kinds = {
        entry["kind"],
        *(entry.get("kind_also") or ()),
        *([entry["kind_also"]] if isinstance(entry.get("kind_also"), str) else ()),
    }
    if {1: "internal", 2: "server", 3: "client"}[span.kind] not in kinds:
        yield f"kind {span.kind} is not {entry['kind']}"
    formats = entry.get("name_formats") or [entry.get("name_format")]
    if not any(_fits(form, span) for form in formats if form):
        yield f"the name is not of the form {formats}"
    yield from _required(entry["attributes"], span.attributes)
    failed = span.status_code == 2
    if failed != (names.ERROR_TYPE in span.attributes):
        yield "error.type and the status do not go together"
    if failed and names.RESILIENCE_FAULT_ORIGIN not in span.attributes:
        yield "a failed span without resilience.fault.origin"


def span_key(span: SpanData) -> str:
    """Return the span type that a span of ours should have."""
    operation = span.attributes.get(names.GEN_AI_OPERATION_NAME)
    if operation is not None:
        for key, entry in CATALOGUE["spans"].items():
            if operation in (entry.get("operations") or ()) and key.startswith("gen_ai."):
                return key if operation != "invoke_agent" else "gen_ai.invoke_agent.internal"
        return names.OTHER_CALL.key
    if names.HTTP_REQUEST_METHOD in span.attributes:
        return "resilience.attempt.client"
    if names.AGENT_RUNTIME_EXECUTION_PATH in span.attributes:
        return names.EXECUTOR_TASK.key
    for ours in names.SPANS.values():
        if ours.prefix and span.name.startswith(ours.prefix):
            return ours.key
    return span.name


def _fits(form: str, span: SpanData) -> bool:
    words = []
    for word in form.split(" "):
        if word.startswith("{"):
            value = span.attributes.get(word[1:-1])
            if value is not None:
                words.append(str(value))
        else:
            words.append(word)
    return " ".join(words) == span.name


# -- events ----------------------------------------------------------------------------------------------


def _event(log: LogData) -> Iterator[str]:
    yield from _scope(log.scope)
    entry = CATALOGUE["events"].get(log.event_name)
    if entry is None:
        yield "not in the catalogue"
        return
    SEEN["events"].add(log.event_name)
    wanted = entry.get("severity_number")
    allowed = {wanted, 9} if log.event_name.endswith("state_change") else {wanted}
    if wanted is not None and log.severity_number not in allowed:
        yield f"severity {log.severity_number} is not {wanted}"
    listed = set(entry["attributes"])
    yield from _attributes({k: v for k, v in log.attributes.items() if k not in listed}, "event")
    yield from _attributes({k: v for k, v in log.attributes.items() if k in listed}, "")
    yield from _required(entry["attributes"], log.attributes)


# -- metrics -----------------------------------------------------------------------------------------------


def _metric(metric: MetricData) -> Iterator[str]:
    yield from _scope(metric.scope)
    entry = CATALOGUE["metrics"].get(metric.name)
    if entry is None:
        yield "not in the catalogue"
        return
    SEEN["metrics"].add(metric.name)
    if metric.kind != _KINDS[entry["instrument"]]:
        yield f"{metric.kind} is not {entry['instrument']}"
    if metric.kind == "sum" and metric.monotonic != (entry["instrument"] == "counter"):
        yield "monotonic does not fit"
    if metric.unit != entry["unit"]:
        yield f"unit {metric.unit} is not {entry['unit']}"
    for point in metric.points:
        yield from _point(metric, entry, point)


def _point(metric: MetricData, entry: dict[str, Any], point: Any) -> Iterator[str]:
    buckets = entry.get("buckets")
    if buckets and tuple(point.bounds) != tuple(buckets):
        yield f"buckets {point.bounds} are not {buckets}"
    yield from _attributes(point.attributes, "metric")
    for key in point.attributes:
        if key not in entry["attributes"]:
            yield f"label {key} does not belong to it"
    yield from _required(entry["attributes"], point.attributes)


# -- shared ---------------------------------------------------------------------------------------------------


def _scope(scope: Any) -> Iterator[str]:
    if not scope.version or not scope.schema_url:
        yield f"scope {scope.name} has no version or schema URL"


def _required(wanted: dict[str, str], found: dict[str, Any]) -> Iterator[str]:
    for key, level in wanted.items():
        if level == "required" and key not in found:
            yield f"required attribute {key} is missing"


def _attributes(attributes: dict[str, Any], place: str) -> Iterator[str]:
    for key, value in attributes.items():
        name, entry = _entry(key)
        if entry is None:
            yield f"attribute {key} is not in the catalogue"
            continue
        SEEN["attributes"].add(name)
        if entry.get("deprecated"):
            yield f"attribute {key} is deprecated"
        if place and "on" in entry and place not in entry["on"] and not (place == "event" and "log" in entry["on"]):
            yield f"attribute {key} does not belong on a {place}"
        yield from _value(key, value, entry)


def _entry(key: str) -> tuple[str, dict[str, Any] | None]:
    entry = CATALOGUE["attributes"].get(key)
    if entry is not None:
        return key, entry
    root = key.rpartition(".")[0]
    found = CATALOGUE["attributes"].get(root)
    return root, found if found is not None and str(found["type"]).startswith("template") else None


def _value(key: str, value: Any, entry: dict[str, Any]) -> Iterator[str]:
    kind = entry["type"]
    if kind == "string[]":
        if not isinstance(value, (list, tuple)) or not all(isinstance(item, str) for item in value):
            yield f"attribute {key} is {type(value).__name__}, not {kind}"
    elif kind in _PYTHON and not _is(value, kind):
        yield f"attribute {key} is {type(value).__name__}, not {kind}"
    closed = entry.get("enum") if key.startswith(("resilience.", "agent_runtime.", "watchkeep.", "python.")) else None
    if closed and value not in closed:
        yield f"attribute {key} is {value!r}, not one of {closed}"


def _is(value: Any, kind: str) -> bool:
    return isinstance(value, _PYTHON[kind]) and isinstance(value, bool) == (kind == "boolean")

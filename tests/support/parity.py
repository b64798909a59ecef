"""Compares names: what dashboards, rules, the runbook and the examples say, and what the catalogue knows."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from support.completeness import NOT_YET
from support.promql import groupings, made_labels, selectors
from support.queries import ALERTS, LOGQL, PROMQL, ROOT, TRACEQL, Query
from watchkeep import names

sys.path.insert(0, str(ROOT))
from dashboards import servers

RUNBOOK = ROOT / "docs" / "runbook.md"
EXPECTED = sorted((ROOT / "examples").glob("*/expect.yaml"))

# Metrics that no panel shows, each with its reason.
NOT_SHOWN: dict[str, str] = {
    "gen_ai.client.inference.time_per_output_chunk": "only with chunk_metrics=all; spans carry mean and longest",
    "gen_ai.client.operation.time_per_output_chunk": "profile v1.41, for tools that still read the former names",
    "gen_ai.client.operation.time_to_first_chunk": "profile v1.41, for tools that still read the former names",
    "gen_ai.client.token.usage": "profile v1.41, for tools that still read the former names",
    "http.client.active_requests": "only with http_pool_metrics; the pool panels show the same of every pool",
    "http.client.connection.duration": "only with http_pool_metrics; the pool panels show the same of every pool",
    "http.client.open_connections": "only with http_pool_metrics; the pool panels show the same of every pool",
}
_SUFFIXES = {"histogram": ("_bucket", "_sum", "_count")}
# Labels of every series of ours: from the resource, and Prometheus' own.
_RESOURCE = (
    names.SERVICE_NAME,
    names.SERVICE_NAMESPACE,
    names.SERVICE_VERSION,
    names.SERVICE_INSTANCE_ID,
    names.DEPLOYMENT_ENVIRONMENT_NAME,
)
_OWN_OF_PROMETHEUS = {"job", "instance", "le"}
# Labels that Loki and the collector give a line.
_OF_LOKI = {"event_name", "detected_level", "trace_id", "span_id", "severity_text", "reason"}
_OF_TEMPLATES = {"__line__", "else", "end"}
_IN_LOGQL = re.compile(r'(\w+)\s*(?:=~|!~|!=|=|>=|<=|>|<)\s*(?:["`]|\d)')
_IN_TEMPLATE = re.compile(r"\{\{ \.(\w+) \}\}")
_GROUPED = re.compile(r"\bby\s*\(([^)]*)\)")
_IN_TRACEQL = re.compile(r"\b(?:span|resource)\.([\w.]+)")
_LEGEND = re.compile(r"\{\{\s*(\w+)\s*\}\}")


def in_prometheus(key: str) -> str:
    """Return an attribute's name as a label."""
    return key.replace(".", "_")


# -- what is known ---------------------------------------------------------------------------------------------


@cache
def attributes() -> frozenset[str]:
    """Return every attribute of the catalogue."""
    constants = {key: value for key, value in vars(names).items() if key.isupper() and isinstance(value, str)}
    found = {value for key, value in constants.items() if value == key.lower().replace("_", ".") or "." in value}
    return frozenset({*found, *names.PHASE_KEYS.values()} - {names.SCHEMA_CORE, names.SCHEMA_GEN_AI})


@cache
def series() -> dict[str, frozenset[str]]:
    """Return every series of ours by its name in Prometheus, with the labels it may carry."""
    found = {}
    for metric in names.METRICS.values():
        labels = {in_prometheus(key) for key in (*metric.labels, *_RESOURCE)} | _OWN_OF_PROMETHEUS
        for suffix in _SUFFIXES.get(metric.instrument, ("",)):
            found[metric.prometheus + suffix] = frozenset(labels)
    return found


@cache
def recorded(folder: Path = ALERTS) -> frozenset[str]:
    """Return every name that a rule file records."""
    found = set()
    for file in folder.glob("*.rules.yaml"):
        for group in yaml.safe_load(file.read_text(encoding="utf-8"))["groups"]:
            found.update(rule["record"] for rule in group["rules"] if "record" in rule)
    return frozenset(found)


def overrides() -> frozenset[str]:
    """Return the names under which a user may record thresholds of their own."""
    return frozenset(name.replace(":threshold:", ":override:") for name in recorded() if ":threshold:" in name)


@cache
def rule_labels() -> frozenset[str]:
    """Return the labels that rules give what they record and alert."""
    found = set()
    for file in ALERTS.glob("*.rules.yaml"):
        for group in yaml.safe_load(file.read_text(encoding="utf-8"))["groups"]:
            for rule in group["rules"]:
                found |= set(rule.get("labels", ())) | made_labels(str(rule["expr"]))
    return frozenset(found)


@cache
def labels() -> frozenset[str]:
    """Return every label of ours, of the servers and of the rules."""
    ours = {in_prometheus(key) for key in attributes()}
    return frozenset(ours | servers.LABELS | rule_labels() | _OWN_OF_PROMETHEUS)


def labels_of(name: str) -> frozenset[str]:
    """Return the labels that a series may carry; what a rule records may carry any."""
    return series().get(name) or (servers.LABELS if name in servers.METRICS else labels())


def emitted() -> set[str]:
    """Return the metrics that are made today."""
    return set(names.METRICS) - set(NOT_YET["metrics"])


# -- what is said ----------------------------------------------------------------------------------------------


def unknown(query: Query) -> list[str]:
    """Return one line for each metric, label or attribute of a query that nobody declares."""
    check = {PROMQL: _unknown_promql, LOGQL: _unknown_logql, TRACEQL: _unknown_traceql}.get(query.language)
    if check is None:
        return []
    return [
        f"{query.name}: {each}"
        for each in check(query.filled({"correlation": "", "session": "", "__trace.traceId": ""}))
    ]


def _unknown_promql(expr: str) -> Iterator[str]:
    known = {*series(), *servers.METRICS, *recorded(), *overrides()}
    possible = set(made_labels(expr))
    for selector in selectors(expr):
        if selector.name not in known:
            yield f"metric {selector.name or '(none)'} is neither in watchkeep.names nor in dashboards/servers.py"
        allowed = labels_of(selector.name)
        possible |= allowed
        yield from (f"{selector.name} has no label {each}" for each in selector.labels if each not in allowed)
    yield from (f"no series here has the label {each}" for each in sorted(groupings(expr) - possible))


def _unknown_logql(expr: str) -> Iterator[str]:
    said = {*_IN_LOGQL.findall(expr), *_IN_TEMPLATE.findall(expr)}
    for group in _GROUPED.findall(expr):
        said.update(each.strip() for each in group.split(","))
    yield from (f"label {each} is unknown" for each in sorted(said - labels() - _OF_LOKI))


def _unknown_traceql(expr: str) -> Iterator[str]:
    yield from (f"attribute {each} is unknown" for each in _IN_TRACEQL.findall(expr) if each not in attributes())


def unknown_legends(dashboard: dict[str, Any]) -> Iterator[str]:
    """Yield each label in a legend, a title of an annotation or a link that nobody declares."""
    for text in _LEGEND.findall(json.dumps(dashboard)):
        if text not in labels() | _OF_LOKI | _OF_TEMPLATES:
            yield f"{dashboard['uid']}: legend {{{{{text}}}}} is unknown"
    for text in re.findall(r"__field\.labels\.(\w+)", json.dumps(dashboard)):
        if text not in labels():
            yield f"{dashboard['uid']}: a link reads the label {text}, which is unknown"


def shown(queries: Iterable[Query]) -> set[str]:
    """Return the metrics of ours that a panel asks for."""
    asked = {
        selector.name
        for query in queries
        if query.language == PROMQL and query.kind == "panel"
        for selector in selectors(query.filled())
    }
    by_series = {
        metric.prometheus + suffix: name
        for name, metric in names.METRICS.items()
        for suffix in _SUFFIXES.get(metric.instrument, ("",))
    }
    return {by_series[name] for name in asked if name in by_series}


# -- texts -----------------------------------------------------------------------------------------------------

_CODE = re.compile(r"^```\w*\n(.*?)^```|`([^`\n]+)`", re.MULTILINE | re.DOTALL)
_PROMQL = re.compile(r"^```promql\n(.*?)^```", re.MULTILINE | re.DOTALL)
_TOKEN = re.compile(r"(?<![\w.:/{$-])[a-z][a-z0-9]*(?:[._:][a-z0-9_]+)+(?![\w(/])")
_OURS = re.compile(
    r"(?:resilience|gen_ai|agent_runtime|python[._]executor|http[._]client|cpython|otel[._]sdk|process[._](?:cpu|memory|"
    r"thread|unix|context|paging|uptime))[._]|watchkeep:|watchkeep[._]integration|otelcol_|prometheus_|alertmanager_|"
    r"loki_|tempo_"
)


def unknown_in_text(text: str) -> list[str]:
    """Return each name in code of a text that looks like ours or a server's and that nobody declares."""
    queries = _PROMQL.findall(text)
    wrong = [each for query in queries for each in _unknown_promql(query)]
    return [*_unknown_tokens(code[0] or code[1] for code in _CODE.findall(text)), *wrong]


def unknown_in_messages(rule: dict[str, Any]) -> list[str]:
    """Return each name in an alert's annotations, and each label that they read, that nobody declares."""
    said = " ".join(rule.get("annotations", {}).values())
    read = {each for pair in re.findall(r"\$labels\.(\w+)|\.Labels\.(\w+)", said) for each in pair if each}
    return [*_unknown_tokens([said]), *sorted(read - labels() - _OF_LOKI)]


def _unknown_tokens(texts: Iterable[str]) -> list[str]:
    events = set(names.EVENTS) | set(names.SPANS)
    known = {*series(), *servers.METRICS, *recorded(), *names.METRICS, *attributes(), *events, *labels()}
    known |= {metric.prometheus for metric in names.METRICS.values()}
    known |= overrides()
    said = {token for text in texts for token in _TOKEN.findall(text)}
    return sorted(each for each in said if _OURS.match(each) and each not in known)


def unknown_in_expect(expected: dict[str, Any]) -> list[str]:
    """Return each metric and event of an expect file that the catalogue does not have."""
    wrong = [f"metric {each}" for each in expected.get("metrics", ()) if each not in names.METRICS]
    wrong += [f"event {each['name']}" for each in expected.get("events", ()) if each["name"] not in names.EVENTS]
    return wrong

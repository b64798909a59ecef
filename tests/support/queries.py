"""Every query that the product ships: of dashboards' panels, variables and annotations, and of the rule files.

`all_queries()` gives them; `query.filled({"service": "multi-agent"})` is what a server takes.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import yaml

ROOT = Path(__file__).resolve().parents[2]
DASHBOARDS = ROOT / "dashboards" / "json"
ALERTS = ROOT / "alerts"
DATASOURCES = ROOT / "dashboards" / "provisioning" / "datasources"

PROMQL, LOGQL, TRACEQL, TRACE_ID = "promql", "logql", "traceql", "trace_id"
PANEL, VARIABLE, ANNOTATION, RULE, LINK = "panel", "variable", "annotation", "rule", "link"

# What Grafana puts in: for its own variables, on a dashboard of one hour with metrics every ten seconds.
DEFAULTS: dict[str, str] = {
    "__rate_interval": "1m",
    "__interval": "15s",
    "__interval_ms": "15000",
    "__auto": "1m",
    "__range": "1h",
    "__range_s": "3600",
    # "All" of the dashboards' own variables; a service has to have a name.
    "environment": ".*",
    "service": ".+",
    "instance": ".*",
    "model": ".*",
    # Of the span from which a link leads on.
    "__tags": 'service_name=~".+"',
}
_LANGUAGES = {"prometheus": PROMQL, "loki": LOGQL, "tempo": TRACEQL}
_VARIABLE = re.compile(r"\$(?:\{([\w.]+)(?::\w+)?\}|(\w+))")
_LABEL_VALUES = re.compile(r"label_values\((?P<selector>.+),\s*(?P<label>\w+)\)", re.DOTALL)


class Query(NamedTuple):
    """One query. A panel's `dashboard` is a uid; a rule's is its group, its `title` the alert or the recorded name."""

    dashboard: str
    panel_id: int  # 0 where there is none
    title: str
    ref: str
    language: str  # promql, logql, traceql, or trace_id (the expression is then an id to be looked up)
    expr: str
    kind: str  # panel, variable, annotation, rule, link
    file: str
    instant: bool = False  # asked for the end of the time range only

    @property
    def name(self) -> str:
        """Where it stands, for a test's id and message."""
        place = f"{self.panel_id} {self.title}" if self.panel_id else self.title
        return f"{self.dashboard} / {place}" + (f" / {self.ref}" if self.ref else "")

    def filled(self, variables: Mapping[str, str] | None = None) -> str:
        """Return the expression as a server takes it."""
        return self.expr if self.kind == RULE else fill(self.expr, variables or {})


def fill(expr: str, variables: Mapping[str, str]) -> str:
    """Put values in for `$name` and `${name}`: those given, or else DEFAULTS."""

    def value(match: re.Match[str]) -> str:
        name = match[1] or match[2]
        known = {**DEFAULTS, **variables}
        if name not in known:
            raise KeyError(f"${name} has no value in {expr!r}: pass it to fill()")
        return known[name]

    return _VARIABLE.sub(value, expr)


def all_queries() -> list[Query]:
    """Return every query of every dashboard and rule file."""
    return [*dashboard_queries(), *rule_queries()]


def dashboard_queries(folder: Path = DASHBOARDS) -> list[Query]:
    """Return every query of the built dashboards."""
    return [query for file in sorted(folder.glob("*.json")) for query in _of_dashboard(file)]


def rule_queries(folder: Path = ALERTS) -> list[Query]:
    """Return every expression of the rule files."""
    return [query for file in sorted(folder.glob("*.rules.yaml")) for query in _of_rules(file)]


def link_queries(folder: Path = DATASOURCES) -> list[Query]:
    """Return every query that leads from a span to its metrics or logs; `__trace.traceId` is the trace's."""
    return [query for file in sorted(folder.glob("*.yaml")) for query in _of_sources(file)]


def panels(dashboard: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield every panel, those inside collapsed rows too."""
    for panel in dashboard["panels"]:
        yield panel
        yield from panel.get("panels", ())


def promql_of_variable(query: str) -> str:
    """Return label_values(selector, label) as PromQL that answers with the same label."""
    match = _LABEL_VALUES.fullmatch(query)
    if match is None:
        raise ValueError(f"{query!r} is not label_values(metric{{...}}, label): teach queries.py its form")
    selector, label = match["selector"].strip(), match["label"]
    with_label = f'{selector[:-1]}, {label}!=""}}' if selector.endswith("}") else f'{selector}{{{label}!=""}}'
    return f"group by ({label}) ({with_label})"


def _of_dashboard(file: Path) -> Iterator[Query]:
    dashboard = json.loads(file.read_text(encoding="utf-8"))
    uid, where = dashboard["uid"], _relative(file)
    for panel in panels(dashboard):
        for target in panel.get("targets", ()):
            language, expr = _language(target["datasource"], target)
            at = (uid, panel["id"], panel["title"], target["refId"])
            yield Query(*at, language, expr, PANEL, where, bool(target.get("instant")))
    for variable in dashboard["templating"]["list"]:
        if variable["type"] == "query":
            text = variable["query"]["query"] if isinstance(variable["query"], dict) else variable["query"]
            yield Query(uid, 0, variable["name"], "", PROMQL, promql_of_variable(text), VARIABLE, where, True)
    for annotation in dashboard["annotations"]["list"]:
        if annotation.get("builtIn"):
            continue
        target = annotation.get("target", annotation)
        language, expr = _language(annotation["datasource"], target)
        yield Query(uid, 0, annotation["name"], target.get("refId", ""), language, expr, ANNOTATION, where)


def _language(datasource: dict[str, str], target: dict[str, Any]) -> tuple[str, str]:
    language = _LANGUAGES[datasource["type"]]
    if language != TRACEQL:
        return language, target["expr"]
    text = target["query"]
    return (TRACE_ID if _VARIABLE.fullmatch(text) else TRACEQL), text


def _of_rules(file: Path) -> Iterator[Query]:
    where = _relative(file)
    for group in (yaml.safe_load(file.read_text(encoding="utf-8")) or {}).get("groups", ()):
        for rule in group["rules"]:
            title = rule.get("alert") or rule["record"]
            yield Query(group["name"], 0, title, "", PROMQL, str(rule["expr"]).strip(), RULE, where, True)


def _of_sources(file: Path) -> Iterator[Query]:
    where = _relative(file)
    for source in yaml.safe_load(file.read_text(encoding="utf-8"))["datasources"]:
        data = source.get("jsonData", {})
        for each in data.get("tracesToMetrics", {}).get("queries", ()):
            yield Query(source["uid"], 0, each["name"], "", PROMQL, _unescaped(each["query"]), LINK, where)
        if query := data.get("tracesToLogsV2", {}).get("query"):
            yield Query(source["uid"], 0, "Logs of the trace", "", LOGQL, _unescaped(query), LINK, where)


def _unescaped(text: str) -> str:
    return text.replace("$$", "$")  # a $ alone is for the environment


def _relative(file: Path) -> str:
    return str(file.relative_to(ROOT)) if file.is_relative_to(ROOT) else str(file)

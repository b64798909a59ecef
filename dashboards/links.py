"""Addresses of dashboards, of single panels and of searches, with the time and the variables kept."""

from __future__ import annotations

import json
import re
from urllib.parse import quote

OVERVIEW = "watchkeep-overview"
LLM = "watchkeep-llm"
TIME = "watchkeep-time"
RESILIENCE = "watchkeep-resilience"
POOLS = "watchkeep-pools"
CONCURRENCY = "watchkeep-concurrency"
SYSTEM = "watchkeep-system"
RUN = "watchkeep-run"

TITLES = {
    OVERVIEW: "Overview",
    LLM: "LLM health",
    TIME: "Where the time goes",
    RESILIENCE: "Resilience",
    POOLS: "Pools and resources",
    CONCURRENCY: "Concurrency and limits",
    SYSTEM: "System health",
    RUN: "One run",
}
KEPT = "${__url_time_range}&${__all_variables}"
PANEL = re.compile(r"@panel\((?P<uid>[\w-]+)\|(?P<title>[^)]*)\)")
_VARIABLE = re.compile(r"(\$\{[^}]+\})")


def to(uid: str, panel: str = "") -> tuple[str, str]:
    """Link to a dashboard, or to one panel of it (its id is put in when all dashboards are built)."""
    if panel:
        return f"{TITLES[uid]}: {panel}", f"/d/{uid}?{KEPT}&viewPanel=panel-@panel({uid}|{panel})"
    return TITLES[uid], f"/d/{uid}?{KEPT}"


def to_service(uid: str) -> tuple[str, str]:
    """Link to a dashboard for the service of the series that was clicked."""
    address = f"/d/{uid}?${{__url_time_range}}&${{environment:queryparam}}&var-service=${{__field.labels.service_name}}"
    return f"{TITLES[uid]} of this service", address


def to_row_service(uid: str) -> tuple[str, str]:
    """Link to a dashboard for the service in the cell that was clicked."""
    address = f"/d/{uid}?${{__url_time_range}}&${{environment:queryparam}}&var-service=${{__value.raw:percentencode}}"
    return f"{TITLES[uid]} of this service", address


def to_run() -> tuple[str, str]:
    """Link to the run whose correlation ID was clicked."""
    return "This run", f"/d/{RUN}?${{__url_time_range}}&var-correlation=${{__value.raw:percentencode}}"


def to_trace(*kept: str, of_span: bool = False) -> tuple[str, str]:
    """Link to the trace whose id was clicked, or that of the span, in One run; with these variables kept."""
    trace = "${__data.fields.traceIdHidden}" if of_span else "${__value.raw:percentencode}"
    others = "".join(f"&${{{name}:queryparam}}" for name in kept)
    return "The trace", f"/d/{RUN}?${{__url_time_range}}{others}&var-trace={trace}"


def search_traces(title: str, query: str) -> tuple[str, str]:
    """Link to a search in Tempo."""
    asked = {"refId": "A", "queryType": "traceql", "query": query, "limit": 50}
    return title, _explore("tempo", asked)


def search_logs(title: str, query: str) -> tuple[str, str]:
    """Link to a search in Loki."""
    return title, _explore("loki", {"refId": "A", "queryType": "range", "expr": query})


def _explore(source: str, asked: dict[str, object]) -> str:
    uid = f"watchkeep-{source}"
    query = {**asked, "datasource": {"type": source, "uid": uid}}
    span = {"from": "${__from}", "to": "${__to}"}
    panes = json.dumps({"a": {"datasource": uid, "queries": [query], "range": span}}, separators=(",", ":"))
    # Grafana puts values in for ${...} only where it stands unescaped.
    parts = [part if at % 2 else quote(part, safe="") for at, part in enumerate(_VARIABLE.split(panes))]
    return f"/explore?schemaVersion=1&panes={''.join(parts)}"

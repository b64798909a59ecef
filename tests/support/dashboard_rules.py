"""The rules that a dashboard has to keep; each yields one line for each breach.

Those of Grafana's own linter are among them (rate interval, aggregated counters, units, titles, data sources, variables
that follow the time range, not editable), except what it asks of data sources: ours have fixed uids.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import promql_parser
import yaml

from support.promql import selectors
from support.queries import ROOT, fill, panels, promql_of_variable
from watchkeep import names

Dashboard = dict[str, Any]
Rule = Callable[[Dashboard], Iterator[str]]
FOLDER = ROOT / "dashboards" / "json"
PROVISIONING = ROOT / "dashboards" / "provisioning"
COLUMNS = 24
_COUNTERS = {metric.prometheus for metric in names.METRICS.values() if metric.instrument == "counter"}
_HISTOGRAMS = {metric.prometheus for metric in names.METRICS.values() if metric.instrument == "histogram"}
_RANGE = re.compile(r"\[([^\]]+)\]")
_USED = re.compile(r"\$(?:\{(\w+)[^}]*\}|(\w+))")
_OF_GRAFANA = re.compile(r"__\w+")


@cache
def dashboards(folder: Path = FOLDER) -> dict[str, Dashboard]:
    """Return every built dashboard by its uid."""
    loaded = (json.loads(file.read_text(encoding="utf-8")) for file in sorted(folder.glob("*.json")))
    return {each["uid"]: each for each in loaded}


@cache
def provisioned() -> dict[str, str]:
    """Return the type of every provisioned data source by its uid."""
    found = {}
    for file in sorted((PROVISIONING / "datasources").glob("*.yaml")):
        for source in yaml.safe_load(file.read_text(encoding="utf-8"))["datasources"]:
            found[source["uid"]] = source["type"]
    return found


def real(dashboard: Dashboard) -> Iterator[dict[str, Any]]:
    """Yield the panels that show something."""
    return (panel for panel in panels(dashboard) if panel["type"] != "row")


def targets(dashboard: Dashboard, kind: str) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """Yield the panel and the target of every query to data sources of one type."""
    for panel in real(dashboard):
        for target in panel["targets"]:
            if target["datasource"]["type"] == kind:
                yield panel, target


# -- the dashboard -----------------------------------------------------------------------------------------


def is_provisionable(dashboard: Dashboard) -> Iterator[str]:
    """Schema v1, not editable, tagged, described, refreshed; never with an id of some installation."""
    wanted = {"schemaVersion": 42, "editable": False, "tags": ["watchkeep"], "id": None, "refresh": "30s"}
    for key, value in wanted.items():
        if dashboard.get(key) != value:
            yield f"{key} is {dashboard.get(key)!r}, not {value!r}"
    if not dashboard.get("description"):
        yield "no description"


def ids_are_unique(dashboard: Dashboard) -> Iterator[str]:
    """Panels are numbered from 1, and their titles are unique."""
    found = [panel["id"] for panel in panels(dashboard)]
    if found != list(range(1, len(found) + 1)):
        yield f"panel ids are {found}"
    titles = [panel["title"] for panel in panels(dashboard)]
    yield from (f"two panels are called {title!r}" for title in sorted({t for t in titles if titles.count(t) > 1}))


def nothing_overlaps(dashboard: Dashboard) -> Iterator[str]:
    """Every panel has a place of its own on the grid."""
    taken: dict[tuple[int, int], str] = {}
    for panel in panels(dashboard):
        place = panel["gridPos"]
        if place["x"] + place["w"] > COLUMNS:
            yield f"{panel['title']!r} ends right of the grid"
        for x in range(place["x"], place["x"] + place["w"]):
            for y in range(place["y"], place["y"] + place["h"]):
                other = taken.setdefault((x, y), panel["title"])
                if other != panel["title"]:
                    yield f"{panel['title']!r} lies over {other!r}"
                    return


def rows_are_full(dashboard: Dashboard) -> Iterator[str]:
    """Panels beside each other are of one height and fill the width."""
    beside: dict[int, list[dict[str, Any]]] = {}
    for panel in panels(dashboard):
        beside.setdefault(panel["gridPos"]["y"], []).append(panel)
    for each in beside.values():
        titles = [panel["title"] for panel in each]
        if sum(panel["gridPos"]["w"] for panel in each) != COLUMNS:
            yield f"{titles} do not fill the width"
        if len({panel["gridPos"]["h"] for panel in each}) != 1:
            yield f"{titles} are not of one height"


def transitions_are_annotated(dashboard: Dashboard) -> Iterator[str]:
    """Breaker transitions stand on every dashboard."""
    event = names.EVENT_BREAKER_STATE_CHANGE.name
    if not any(each["enable"] and event in each["expr"] for each in dashboard["annotations"]["list"]):
        yield "no annotation shows the breakers' transitions"


# -- panels ------------------------------------------------------------------------------------------------


def panels_explain_themselves(dashboard: Dashboard) -> Iterator[str]:
    """Every panel has a title, a description, a unit and thresholds."""
    for panel in real(dashboard):
        defaults = panel["fieldConfig"]["defaults"]
        for what, there in {
            "title": panel.get("title"),
            "description": len(panel.get("description", "")) > 20 and panel["description"].rstrip().endswith("."),
            "unit": defaults.get("unit"),
            "thresholds": (defaults.get("thresholds") or {}).get("steps"),
        }.items():
            if not there:
                yield f"{panel.get('title')!r} has no {what}"


def sources_are_provisioned(dashboard: Dashboard) -> Iterator[str]:
    """Every panel, target, variable and annotation names a data source that is provisioned, by its fixed uid."""
    asked = [(panel["title"], panel["datasource"]) for panel in real(dashboard)]
    asked += [(p["title"], t["datasource"]) for p in real(dashboard) for t in p["targets"]]
    asked += [(v["name"], v["datasource"]) for v in dashboard["templating"]["list"] if v["type"] == "query"]
    asked += [(a["name"], a["datasource"]) for a in dashboard["annotations"]["list"]]
    for title, source in asked:
        if provisioned().get(source["uid"]) != source["type"]:
            yield f"{title!r} asks {source}, which dashboards/provisioning does not have"


def targets_are_told_apart(dashboard: Dashboard) -> Iterator[str]:
    """Every panel asks something, each query under a letter of its own and each line with a legend."""
    for panel in real(dashboard):
        letters = [target["refId"] for target in panel["targets"]]
        if not letters or len(set(letters)) != len(letters):
            yield f"{panel['title']!r} has the queries {letters}"
        for target in panel["targets"]:
            if panel["type"] not in ("table", "logs", "traces") and not target.get("legendFormat"):
                yield f"{panel['title']!r} {target['refId']} has no legend"


# -- queries -----------------------------------------------------------------------------------------------


def promql_parses(dashboard: Dashboard) -> Iterator[str]:
    """Every PromQL query, of variables too, is PromQL."""
    asked = [(panel["title"], target["expr"]) for panel, target in targets(dashboard, "prometheus")]
    for variable in dashboard["templating"]["list"]:
        if variable["type"] == "query":
            asked.append((variable["name"], promql_of_variable(variable["query"])))
    for title, expr in asked:
        try:
            promql_parser.parse(fill(expr, {}))
        except (ValueError, KeyError) as error:
            yield f"{title!r}: {error}"


def windows_follow_the_zoom(dashboard: Dashboard) -> Iterator[str]:
    """No query has a window of its own: $__rate_interval and $__range in PromQL, $__auto and $__range in LogQL."""
    allowed = {"prometheus": {"$__rate_interval", "$__range"}, "loki": {"$__auto", "$__range"}}
    for kind, windows in allowed.items():
        for panel, target in targets(dashboard, kind):
            for window in _RANGE.findall(re.sub(r'"[^"]*"', "", target["expr"])):
                if window not in windows:
                    yield f"{panel['title']!r} looks at [{window}]: write one of {sorted(windows)}"
                is_line = kind == "prometheus" and not target.get("instant")
                # The time that a breaker was open is so rare that a shorter window shows nothing.
                if is_line and window == "$__range" and "open_duration" not in target["expr"]:
                    yield f"{panel['title']!r} draws a line over the whole range: write $__rate_interval"


def counters_are_rates(dashboard: Dashboard) -> Iterator[str]:
    """A counter or a histogram is only read as a rate or an increase, or to tell which series there are."""
    for panel, target in targets(dashboard, "prometheus"):
        for selector in selectors(fill(target["expr"], {})):
            base = re.sub(r"_(bucket|sum|count)$", "", selector.name)
            counts = selector.name in _COUNTERS or base in _HISTOGRAMS or selector.name.endswith("_total")
            if counts and selector.window is None and not selector.is_filter:
                yield f"{panel['title']!r} shows the counter {selector.name} itself"


def latencies_have_exemplars(dashboard: Dashboard) -> Iterator[str]:
    """Each line of a latency's quantile leads to traces."""
    for panel, target in targets(dashboard, "prometheus"):
        is_latency = "histogram_quantile" in target["expr"] and "_seconds_bucket" in target["expr"]
        if is_latency and target.get("range") and target.get("exemplar") is not True:
            yield f"{panel['title']!r} {target['refId']} has no exemplars"


def variables_are_declared(dashboard: Dashboard) -> Iterator[str]:
    """A query uses only variables of the dashboard, and each of those is used."""
    declared = {variable["name"] for variable in dashboard["templating"]["list"]}
    used: set[str] = set()
    for panel in real(dashboard):
        for target in panel["targets"]:
            text = target.get("expr") or target["query"]
            found = {a or b for a, b in _USED.findall(text)}
            used |= found
            for name in sorted(found - declared):
                if not _OF_GRAFANA.fullmatch(name):
                    yield f"{panel['title']!r} uses ${name}, which the dashboard does not have"
    yield from (f"${name} is chosen and used by no panel" for name in sorted(declared - used))


def variables_offer_all(dashboard: Dashboard) -> Iterator[str]:
    """Each chosen variable takes several values, or all, and follows the time range."""
    for variable in dashboard["templating"]["list"]:
        if variable["type"] != "query":
            continue
        everything = ".+" if variable["name"] == "service" else ".*"  # Loki refuses a selector that may be empty
        wanted = {"multi": True, "includeAll": True, "allValue": everything, "refresh": 2}
        for key, value in wanted.items():
            if variable.get(key) != value:
                yield f"${variable['name']}: {key} is {variable.get(key)!r}, not {value!r}"


# -- links -------------------------------------------------------------------------------------------------


def links_lead_somewhere(dashboard: Dashboard) -> Iterator[str]:
    """Every link of a panel or a column leads to a dashboard, to a panel of it, or to a search that is well formed."""
    for panel in real(dashboard):
        for link in _links(panel):
            yield from (f"{panel['title']!r}: {wrong}" for wrong in _wrong_link(link["url"], link["title"]))


def _links(panel: dict[str, Any]) -> Iterator[dict[str, str]]:
    config = panel["fieldConfig"]
    yield from config["defaults"].get("links", ())
    for override in config["overrides"]:
        for each in override["properties"]:
            if each["id"] == "links":
                yield from each["value"]


def _wrong_link(url: str, title: str) -> Iterator[str]:
    parts = urlsplit(url)
    if parts.path == "/explore":
        panes = json.loads(re.sub(r"\$\{[^}]*\}", "x", parse_qs(parts.query)["panes"][0]))
        for pane in panes.values():
            asked = [query.get("query") or query.get("expr") for query in pane["queries"]]
            if pane["datasource"] not in provisioned() or not all(asked):
                yield f"{title!r} searches in {pane['datasource']!r}"
        return
    uid = parts.path.removeprefix("/d/")
    if uid not in dashboards():
        yield f"{title!r} leads to {url}, where no dashboard is"
        return
    if "${__url_time_range}" not in parts.query:
        yield f"{title!r} loses the time shown"
    viewed = parse_qs(parts.query).get("viewPanel")
    if viewed:
        there = {f"panel-{panel['id']}": panel["title"] for panel in real(dashboards()[uid])}
        if not title.endswith(there.get(viewed[0], "?")):
            yield f"{title!r} leads to {there.get(viewed[0])!r}"


def dashboards_are_linked(dashboard: Dashboard) -> Iterator[str]:
    """Every dashboard links to all others, with the time and the variables kept."""
    there = {link["url"].removeprefix("/d/") for link in dashboard["links"] if link["includeVars"] and link["keepTime"]}
    missing = set(dashboards()) - {dashboard["uid"]} - there
    yield from (f"no link to {uid}" for uid in sorted(missing))


RULES: tuple[Rule, ...] = (
    is_provisionable,
    ids_are_unique,
    nothing_overlaps,
    rows_are_full,
    transitions_are_annotated,
    panels_explain_themselves,
    sources_are_provisioned,
    targets_are_told_apart,
    promql_parses,
    windows_follow_the_zoom,
    counters_are_rates,
    latencies_have_exemplars,
    variables_are_declared,
    variables_offer_all,
    links_lead_somewhere,
    dashboards_are_linked,
)

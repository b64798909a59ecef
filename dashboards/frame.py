"""What every dashboard has around its panels: variables, links, annotations, places on the grid, ids."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, NamedTuple

from grafana_foundation_sdk.builders import dashboard
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import dashboard as models

from dashboards import links, logql
from dashboards.panels import SOURCES
from dashboards.promql import INSTANCE, label
from watchkeep import names

SCHEMA = 42
COLUMNS = 24
ENVIRONMENT, SERVICE, INSTANCES, MODEL = "environment", "service", "instance", "model"
USUAL = (ENVIRONMENT, SERVICE, INSTANCES, MODEL)
_SEEN = names.METRIC_WATCHKEEP_INTEGRATIONS.prometheus  # every watched process sends it from the start


class Row(NamedTuple):
    """A heading and the panels under it."""

    title: str
    panels: Sequence[Any]


class Board(NamedTuple):
    """One dashboard."""

    uid: str
    description: str
    rows: Sequence[Row]
    variables: Sequence[str] = USUAL
    texts: Sequence[tuple[str, str, str]] = ()  # name, label, description of a text box
    since: str = "now-1h"


def build(board: Board) -> dict[str, Any]:
    """Return a dashboard as Grafana's JSON (v1); links to panels still carry titles."""
    made = (
        dashboard.Dashboard(f"Watchkeep / {links.TITLES[board.uid]}")
        .uid(board.uid)
        .description(board.description)
        .tags(["watchkeep"])
        .readonly()
        .tooltip(models.DashboardCursorSync.CROSSHAIR)
        .time(board.since, "now")
        .refresh("30s")
        .timezone("browser")
        .annotation(_transitions())
    )
    for name in board.variables:
        made.with_variable(_chosen(name))
    for name, title, description in board.texts:
        made.with_variable(dashboard.TextBoxVariable(name).label(title).description(description).default_value(""))
    for uid, title in links.TITLES.items():
        if uid != board.uid:
            made.link(dashboard.DashboardLink(title).url(f"/d/{uid}").include_vars(True).keep_time(True))
    for row in board.rows:
        made.with_row(dashboard.Row(row.title))
        for panel in row.panels:
            made.with_panel(panel)
    return _finish(json.loads(JSONEncoder(sort_keys=True).encode(made.build())))


# -- variables ---------------------------------------------------------------------------------------------


def _chosen(name: str) -> dashboard.QueryVariable:
    title, source, key, everything = {
        ENVIRONMENT: ("Environment", _SEEN, label(names.DEPLOYMENT_ENVIRONMENT_NAME), ".*"),
        # Loki refuses a selector that could be empty, and every series of ours has a service.
        SERVICE: ("Service", _SEEN + _where(ENVIRONMENT), label(names.SERVICE_NAME), ".+"),
        INSTANCES: ("Instance", _SEEN + _where(ENVIRONMENT, SERVICE), INSTANCE, ".*"),
        MODEL: (
            "Model",
            names.METRIC_RESILIENCE_CALLS.prometheus + _where(ENVIRONMENT, SERVICE),
            label(names.GEN_AI_REQUEST_MODEL),
            ".*",
        ),
    }[name]
    return (
        dashboard.QueryVariable(name)
        .label(title)
        .datasource(SOURCES["prometheus"])
        .query(f"label_values({source}, {key})")
        .refresh(models.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(models.VariableSort.ALPHABETICAL_ASC)
        .multi(True)
        .include_all(True)
        .all_value(everything)
        .current(models.VariableOption(selected=True, text="All", value="$__all"))
    )


def _where(*variables: str) -> str:
    keys = {ENVIRONMENT: names.DEPLOYMENT_ENVIRONMENT_NAME, SERVICE: names.SERVICE_NAME}
    return "{" + ", ".join(f'{label(keys[name])}=~"${name}"' for name in variables) + "}"


# -- annotations -------------------------------------------------------------------------------------------


def _transitions() -> dashboard.AnnotationQuery:
    name = label(names.RESILIENCE_CIRCUIT_BREAKER_NAME)
    before, after = (
        label(names.RESILIENCE_CIRCUIT_BREAKER_PREVIOUS_STATE),
        label(names.RESILIENCE_CIRCUIT_BREAKER_STATE),
    )
    return (
        dashboard.AnnotationQuery()
        .name("Breaker transitions")
        .datasource(SOURCES["loki"])
        .enable(True)
        .icon_color("red")
        .expr(logql.events(names.EVENT_BREAKER_STATE_CHANGE))
        .title_format("Breaker {{" + name + "}}: {{" + before + "}} to {{" + after + "}}")
        .text_format("{{" + label(names.SERVICE_NAME) + "}}")
        .tag_keys(",".join((name, after)))
    )


# -- the whole ---------------------------------------------------------------------------------------------


def _finish(made: dict[str, Any]) -> dict[str, Any]:
    x = y = height = 0
    for at, panel in enumerate(made["panels"], start=1):
        panel["id"] = at
        panel.pop("repeatDirection", None)
        place = panel["gridPos"]
        if panel["type"] == "row":
            place = {"w": COLUMNS, "h": 1}
        if x + place["w"] > COLUMNS or panel["type"] == "row":
            x, y, height = 0, y + height, 0
        panel["gridPos"] = {"x": x, "y": y, "w": place["w"], "h": place["h"]}
        x, height = x + place["w"], max(height, place["h"])
        defaults = panel.get("fieldConfig", {}).get("defaults", {})
        if "links" in defaults:
            defaults["links"] = [{"title": link["title"], "url": link["url"]} for link in defaults["links"]]
    # The library would move both into the menu of the controls, out of sight.
    for each in (*made["links"], *made["annotations"]["list"]):
        each.pop("placement", None)
    for annotation in made["annotations"]["list"]:
        annotation["target"] = {"expr": annotation["expr"], "queryType": "range", "refId": "Anno"}
    made["id"] = None
    made["version"] = 1
    return made

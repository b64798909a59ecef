"""The kinds of panels that the dashboards are made of: each with a description, a unit, thresholds and its queries."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from grafana_foundation_sdk.builders import (
    bargauge,
    common,
    dashboard,
    logs,
    loki,
    prometheus,
    stat,
    statetimeline,
    table,
    tempo,
    timeseries,
)
from grafana_foundation_sdk.models import common as units
from grafana_foundation_sdk.models import dashboard as models
from grafana_foundation_sdk.models import loki as loki_models
from grafana_foundation_sdk.models import prometheus as prometheus_models
from grafana_foundation_sdk.models import tempo as tempo_models

SOURCES = {
    name: units.DataSourceRef(type_val=name, uid=f"watchkeep-{name}") for name in ("prometheus", "loki", "tempo")
}

# Colours mean the same everywhere.
OK, WARNING, BAD, NEUTRAL = "green", "orange", "red", "blue"
BLAME = {"provider": "red", "network": "purple", "client": "yellow", "breaker": "orange", "ok": "green"}
PHASES = {
    "server": "blue",
    "stream": "light-blue",
    "backoff": "red",
    "pool_wait": "orange",
    "connect": "yellow",
    "send": "light-green",
    "consumer": "green",
    "other": "gray",
}

Steps = tuple[tuple[float | None, str], ...]
PLAIN: Steps = ((None, NEUTRAL),)
"""Nothing to judge: a number that is neither good nor bad."""

Link = tuple[str, str]
"""A title and an address."""


def bad_above(warning: float | None, bad: float | None = None) -> Steps:
    """Green, orange from `warning`, red from `bad`."""
    found: list[tuple[float | None, str]] = [(None, OK)]
    found += [(warning, WARNING)] if warning is not None else []
    found += [(bad, BAD)] if bad is not None else []
    return tuple(found)


def bad_below(warning: float, bad: float) -> Steps:
    """Red, orange from `bad`, green from `warning`."""
    return ((None, BAD), (bad, WARNING), (warning, OK))


# -- queries -----------------------------------------------------------------------------------------------


def ask(expr: str, legend: str = "", exemplars: bool = False) -> prometheus.Dataquery:
    """Ask Prometheus for a line over time; with `exemplars`, each dot is a trace."""
    query = prometheus.Dataquery().datasource(SOURCES["prometheus"]).expr(expr).legend_format(legend).range()
    return query.exemplar(True) if exemplars else query


def now(expr: str, legend: str = "") -> prometheus.Dataquery:
    """Ask Prometheus for one value, at the end of the time shown."""
    return prometheus.Dataquery().datasource(SOURCES["prometheus"]).expr(expr).legend_format(legend).instant()


def rows(expr: str) -> prometheus.Dataquery:
    """Ask Prometheus for the rows of a table, at the end of the time shown."""
    return now(expr).format(prometheus_models.PromQueryFormat.TABLE)


def lines(expr: str, limit: int = 500) -> loki.Dataquery:
    """Ask Loki for log lines, the newest first."""
    query = loki.Dataquery().datasource(SOURCES["loki"]).expr(expr).query_type("range").max_lines(limit)
    return query.direction(loki_models.LokiQueryDirection.BACKWARD)


def counted(expr: str, legend: str = "") -> loki.Dataquery:
    """Ask Loki for numbers over time."""
    return loki.Dataquery().datasource(SOURCES["loki"]).expr(expr).query_type("range").legend_format(legend)


def counted_now(expr: str, legend: str = "") -> loki.Dataquery:
    """Ask Loki for one number for the time shown."""
    query = loki.Dataquery().datasource(SOURCES["loki"]).expr(expr).query_type("instant").instant(True)
    return query.legend_format(legend)


def traces(query: str, spans: bool = False, limit: int = 50) -> tempo.Dataquery:
    """Ask Tempo for traces, or for the spans that fit."""
    kind = tempo_models.SearchTableType.SPANS if spans else tempo_models.SearchTableType.TRACES
    asked = tempo.Dataquery().datasource(SOURCES["tempo"]).query_type("traceql").query(query)
    return asked.table_type(kind).limit(limit).spss(10)


def trace(query: str) -> tempo.Dataquery:
    """Ask Tempo for one trace by its id."""
    return tempo.Dataquery().datasource(SOURCES["tempo"]).query_type("traceql").query(query)


# -- panels ------------------------------------------------------------------------------------------------


def over_time(
    title: str,
    description: str,
    unit: str,
    *queries: Any,
    steps: Steps = PLAIN,
    width: int = 12,
    height: int = 8,
    stacked: bool = False,
    bars: bool = False,
    colours: dict[str, str] | None = None,
    links: Sequence[Link] = (),
    most: float | None = None,
) -> Any:
    """Draw lines, or stacked areas or bars, over time."""
    panel = timeseries.Panel().min(0).fill_opacity(60 if stacked or bars else 8).line_width(1)
    panel.show_points(units.VisibilityMode.NEVER if stacked else units.VisibilityMode.AUTO)
    panel.legend(
        common.VizLegendOptions()
        .display_mode(units.LegendDisplayMode.TABLE)
        .placement(units.LegendPlacement.BOTTOM)
        .show_legend(True)
        .calcs(["mean", "max", "lastNotNull"])
    )
    panel.tooltip(common.VizTooltipOptions().mode(units.TooltipDisplayMode.MULTI).sort(units.SortOrder.DESCENDING))
    if most is not None:
        panel.max(most)
    if stacked:
        panel.stacking(common.StackingConfig().mode(units.StackingMode.NORMAL))
    if bars:
        panel.draw_style(units.GraphDrawStyle.BARS)
    if len(steps) > 1:
        style = common.GraphThresholdsStyleConfig().mode(units.GraphThresholdsStyleMode.DASHED)
        panel.thresholds_style(style)
    for name, colour in (colours or {}).items():
        panel.override_by_name(name, [_fixed(colour)])
    return _finish(panel, title, description, unit, queries, steps, width, height, links)


def number(
    title: str,
    description: str,
    unit: str,
    *queries: Any,
    steps: Steps = PLAIN,
    width: int = 4,
    height: int = 4,
    words: dict[str, tuple[str, str]] | None = None,
    links: Sequence[Link] = (),
    nothing: str = "",
    each: dict[str, Steps] | None = None,
) -> Any:
    """Show one number, or one for each query; `words`: value -> text and colour; `nothing`: what no data means;
    `each`: thresholds of one of several numbers, by its legend.
    """
    panel = stat.Panel().color_mode(units.BigValueColorMode.BACKGROUND).graph_mode(units.BigValueGraphMode.NONE)
    panel.reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]).fields("").values(False))
    for name, own in (each or {}).items():
        panel.override_by_name(name, [_thresholds(own)])
    if words:
        panel.mappings([_words(words)])
    if nothing:
        panel.no_value(nothing)
    return _finish(panel, title, description, unit, queries, steps, width, height, links)


def bar(
    title: str,
    description: str,
    unit: str,
    *queries: Any,
    steps: Steps = PLAIN,
    width: int = 8,
    height: int = 8,
    most: float | None = None,
    links: Sequence[Link] = (),
) -> Any:
    """Compare values as horizontal bars."""
    panel = bargauge.Panel().orientation(units.VizOrientation.HORIZONTAL).min(0)
    panel.display_mode(units.BarGaugeDisplayMode.GRADIENT)
    panel.reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]).fields("").values(False))
    if most is not None:
        panel.max(most)
    return _finish(panel, title, description, unit, queries, steps, width, height, links)


def states(
    title: str,
    description: str,
    *queries: Any,
    words: dict[str, tuple[str, str]],
    width: int = 12,
    height: int = 8,
    links: Sequence[Link] = (),
) -> Any:
    """Show which state a thing was in, over time; `words`: value -> state and colour."""
    panel = statetimeline.Panel().mappings([_words(words)]).merge_values(True).fill_opacity(80)
    panel.show_value(units.VisibilityMode.AUTO)
    panel.legend(
        common.VizLegendOptions()
        .display_mode(units.LegendDisplayMode.LIST)
        .placement(units.LegendPlacement.BOTTOM)
        .show_legend(True)
        .calcs([])
    )
    steps = tuple((float(value) if at else None, colour) for at, (value, (_, colour)) in enumerate(words.items()))
    return _finish(panel, title, description, "none", queries, steps, width, height, links)


class Column:
    """How one column of a table looks."""

    def __init__(self, title: str, unit: str = "", steps: Steps = (), link: Link | None = None) -> None:
        self.title = title
        self.properties: list[models.DynamicConfigValue] = []
        if unit:
            self.properties.append(models.DynamicConfigValue(id_val="unit", value=unit))
        if steps:
            self.properties += [
                _thresholds(steps),
                models.DynamicConfigValue(
                    id_val="custom.cellOptions", value={"type": "color-background", "mode": "basic"}
                ),
            ]
        if link:
            found = [{"title": link[0], "url": link[1]}]
            self.properties.append(models.DynamicConfigValue(id_val="links", value=found))


def listing(
    title: str,
    description: str,
    *queries: Any,
    columns: dict[str, Column] | None = None,
    hidden: Sequence[str] = (),
    from_labels: bool = False,
    width: int = 12,
    height: int = 8,
    links: Sequence[Link] = (),
    nothing: str = "",
) -> Any:
    """Show a table; `columns` (field -> look) are in this order, `hidden` fields left out."""
    panel = table.Panel()
    changes = []
    if from_labels:
        changes.append(
            models.DataTransformerConfig(id_val="extractFields", options={"source": "labels", "format": "auto"})
        )
    elif len(queries) > 1:
        changes.append(models.DataTransformerConfig(id_val="merge", options={}))
    if columns:
        order = {field: at for at, field in enumerate(columns)}
        titles = {field: column.title for field, column in columns.items() if column.title != field}
        changes.append(
            models.DataTransformerConfig(
                id_val="organize",
                options={
                    "excludeByName": dict.fromkeys(hidden, True),
                    "indexByName": order,
                    "renameByName": titles,
                },
            )
        )
        if from_labels:  # a label that only some lines have would be a column of its own
            changes.append(
                models.DataTransformerConfig(
                    id_val="filterFieldsByName",
                    options={"include": {"names": [column.title for column in columns.values()]}},
                )
            )
        for column in columns.values():
            if column.properties:
                panel.override_by_name(column.title, column.properties)
    panel.transformations(changes)
    if nothing:
        panel.no_value(nothing)
    return _finish(panel, title, description, "short", queries, PLAIN, width, height, links)


def log_lines(
    title: str,
    description: str,
    *queries: Any,
    width: int = 24,
    height: int = 12,
    links: Sequence[Link] = (),
) -> Any:
    """Show log lines with their ids."""
    panel = logs.Panel().show_time(True).wrap_log_message(True).enable_log_details(True)
    panel.sort_order(units.LogsSortOrder.DESCENDING).dedup_strategy(units.LogsDedupStrategy.NONE)
    panel.show_labels(False).show_common_labels(False).prettify_log_message(False)
    return _finish(panel, title, description, "none", queries, PLAIN, width, height, links)


def waterfall(title: str, description: str, query: Any, height: int = 16, links: Sequence[Link] = ()) -> Any:
    """Show one trace, span by span."""
    panel = dashboard.Panel().type("traces")
    return _finish(panel, title, description, "none", (query,), PLAIN, 24, height, links)


# -- what they share ---------------------------------------------------------------------------------------


def _finish(
    panel: Any,
    title: str,
    description: str,
    unit: str,
    queries: Sequence[Any],
    steps: Steps,
    width: int,
    height: int,
    links: Sequence[Link],
) -> Any:
    panel.title(title).description(description).span(width).height(height)
    sources = {query.build().datasource.uid: query.build().datasource for query in queries}
    if len(sources) != 1:
        raise ValueError(f"panel {title!r} asks {sorted(sources)}: a panel of ours asks one data source")
    panel.datasource(next(iter(sources.values())))
    panel.unit(unit)
    panel.thresholds(dashboard.ThresholdsConfig().mode(models.ThresholdsMode.ABSOLUTE).steps(_steps(steps)))
    for at, query in enumerate(queries):
        panel.with_target(query.ref_id(chr(ord("A") + at)))
    if links:
        panel.data_links([dashboard.DashboardLink(text).url(url) for text, url in links])
    return panel


def _steps(steps: Steps) -> list[models.Threshold]:
    return [models.Threshold(value=value, color=colour) for value, colour in steps]


def _thresholds(steps: Steps) -> models.DynamicConfigValue:
    return models.DynamicConfigValue(id_val="thresholds", value={"mode": "absolute", "steps": _steps(steps)})


def _words(words: dict[str, tuple[str, str]]) -> models.ValueMap:
    found = {
        value: models.ValueMappingResult(text=text, color=colour, index=at)
        for at, (value, (text, colour)) in enumerate(words.items())
    }
    return models.ValueMap(options=found)


def _fixed(colour: str) -> models.DynamicConfigValue:
    return models.DynamicConfigValue(id_val="color", value={"mode": "fixed", "fixedColor": colour})

"""System health: are the apps up, what do they say, and does the telemetry itself arrive."""

from __future__ import annotations

from dashboards import links, logql, servers, shared
from dashboards.frame import Board, Row
from dashboards.panels import Column, ask, bad_above, counted, lines, listing, log_lines, now, number, over_time, rows
from dashboards.promql import (
    FAILED,
    INSTANCE,
    equal,
    label,
    legend,
    level,
    per_interval,
    rate,
    series,
)
from watchkeep import names

_ERROR, _SERVICE = names.ERROR_TYPE, names.SERVICE_NAME
_INTEGRATION, _STATE = names.WATCHKEEP_INTEGRATION_NAME, names.WATCHKEEP_INTEGRATION_STATE
_EXPORTED = {
    "spans": names.METRIC_OTEL_SDK_EXPORTER_SPAN_EXPORTED,
    "metric points": names.METRIC_OTEL_SDK_EXPORTER_METRIC_DATA_POINT_EXPORTED,
    "log records": names.METRIC_OTEL_SDK_EXPORTER_LOG_EXPORTED,
}
_INFLIGHT = {
    "spans": names.METRIC_OTEL_SDK_EXPORTER_SPAN_INFLIGHT,
    "metric points": names.METRIC_OTEL_SDK_EXPORTER_METRIC_DATA_POINT_INFLIGHT,
    "log records": names.METRIC_OTEL_SDK_EXPORTER_LOG_INFLIGHT,
}
_PROCESSED = {
    "spans": names.METRIC_OTEL_SDK_PROCESSOR_SPAN_PROCESSED,
    "log records": names.METRIC_OTEL_SDK_PROCESSOR_LOG_PROCESSED,
}
_QUEUES = {
    "spans": (
        names.METRIC_OTEL_SDK_PROCESSOR_SPAN_QUEUE_SIZE,
        names.METRIC_OTEL_SDK_PROCESSOR_SPAN_QUEUE_CAPACITY,
    ),
    "log records": (
        names.METRIC_OTEL_SDK_PROCESSOR_LOG_QUEUE_SIZE,
        names.METRIC_OTEL_SDK_PROCESSOR_LOG_QUEUE_CAPACITY,
    ),
}


def _lost(kind: str) -> str:
    lost = [_EXPORTED[kind], *([_PROCESSED[kind]] if kind in _PROCESSED else ())]
    return "sum(" + " or ".join(f"increase({series(metric, FAILED)}[$__range])" for metric in lost) + ")"


def _up() -> Row:
    uptime = names.METRIC_PROCESS_UPTIME
    service = label(_SERVICE)
    return Row(
        "The apps",
        (
            number(
                "Instances",
                "Processes that send telemetry now.",
                "none",
                now(f"count({series(uptime)})", "instances"),
                steps=((None, "red"), (1, "green")),
                nothing="silent",
            ),
            number(
                "Youngest process",
                "Uptime of the instance that started last. Small again and again: something restarts.",
                "s",
                now(f"min({series(uptime)})", "uptime"),
                nothing="silent",
            ),
            number(
                "Missing seams",
                "Integrations that did not find what they hook into: calls of that library are not fully seen. "
                "`watchkeep doctor` says which, and what to do.",
                "none",
                now(level(names.METRIC_WATCHKEEP_INTEGRATIONS, where=(equal(_STATE, "seam_missing"),)), "missing"),
                steps=bad_above(1),
                nothing="silent",
            ),
            number(
                "Telemetry lost by apps",
                "What apps could not deliver, or dropped because their queue was full, in the time shown. It is gone. "
                "See Not delivered, by reason.",
                "short",
                *(now(_lost(kind), kind) for kind in _EXPORTED),
                steps=bad_above(None, 1),
                width=6,
                nothing="nothing",
                links=(links.to(links.SYSTEM, "Not delivered, by reason"),),
            ),
            number(
                "Refused by the collector",
                "What the collector refused in the time shown because its memory or a queue is full. Apps keep it and "
                "try again.",
                "short",
                *(now(f"sum(increase({name}[$__range]))", kind) for kind, name in servers.OTELCOL_REFUSED.items()),
                steps=bad_above(None, 1),
                width=6,
                nothing="no collector",
                links=(links.to(links.SYSTEM, "Queues to the stores"),),
            ),
            over_time(
                "Uptime",
                "Seconds since each instance started; a saw-tooth is a process that dies and starts again.",
                "s",
                ask(level(uptime, _SERVICE, INSTANCE, operator="max"), f"{legend(_SERVICE)} {{{{{INSTANCE}}}}}"),
                width=8,
            ),
            over_time(
                "Errors by type and service",
                "Failed logical calls in each step, by service, error type and blame.",
                "short",
                ask(
                    per_interval(shared.CALLS, _SERVICE, _ERROR, shared.FAULT, where=(FAILED,)),
                    legend(_SERVICE, _ERROR, shared.FAULT),
                ),
                bars=True,
                stacked=True,
                width=8,
                links=(shared.traces_with_error(), links.to_service(links.LLM)),
            ),
            over_time(
                "Log lines by level",
                "Log lines in each step, by level. A wall of errors that began at one moment names that moment.",
                "short",
                counted(logql.per_interval(f"{logql.CHOSEN} {logql.INSTANCE}", logql.LEVEL), f"{{{{{logql.LEVEL}}}}}"),
                bars=True,
                stacked=True,
                width=8,
                colours={"error": "red", "warn": "orange", "info": "green", "debug": "blue", "unknown": "gray"},
            ),
            log_lines(
                "Errors and warnings in the logs",
                "The newest lines of level warn and above. Open one for its trace and its run.",
                lines(
                    logql.readable(f'{logql.CHOSEN} {logql.INSTANCE} | {logql.LEVEL}=~"warn|error|critical|fatal"'),
                    limit=200,
                ),
                width=12,
                height=9,
            ),
            listing(
                "Integrations",
                "What Watchkeep hooked into in each service, and how it went. active: seen. standing_aside: another "
                "instrumentation owns it. seam_missing, unsupported: not fully seen.",
                rows(
                    f"count by ({service}, {label(_INTEGRATION)}, {label(_STATE)}) "
                    f"({series(names.METRIC_WATCHKEEP_INTEGRATIONS)} == 1)"
                ),
                columns={
                    service: Column("Service", link=links.to_row_service(links.LLM)),
                    label(_INTEGRATION): Column("Integration"),
                    label(_STATE): Column("State"),
                    "Value": Column("Processes"),
                },
                hidden=("Time",),
                height=9,
            ),
        ),
    )


def _apps_way_out() -> Row:
    return Row(
        "From the apps to the collector",
        (
            over_time(
                "Delivered",
                "What apps delivered to the collector per second, and what they could not (by error).",
                "none",
                *(ask(rate(metric, where=(equal(_ERROR, ""),)), name) for name, metric in _EXPORTED.items()),
                width=8,
            ),
            over_time(
                "Not delivered, by reason",
                "What apps could not deliver in each step: an error of the collector, or a full queue in the app.",
                "short",
                *(
                    ask(per_interval(metric, _ERROR, where=(FAILED,)), f"{name} {legend(_ERROR)}")
                    for name, metric in _EXPORTED.items()
                ),
                *(
                    ask(per_interval(metric, _ERROR, where=(FAILED,)), f"{name} {legend(_ERROR)}")
                    for name, metric in _PROCESSED.items()
                ),
                steps=bad_above(None, 1),
                bars=True,
                width=8,
            ),
            over_time(
                "Queues in the apps",
                "How full the apps' queues are. At 1 new telemetry is dropped, never the app's own work.",
                "percentunit",
                *(
                    ask(f"{level(size, operator='max')} / ({level(capacity, operator='max')} > 0)", name)
                    for name, (size, capacity) in _QUEUES.items()
                ),
                steps=bad_above(0.5, 0.8),
                most=1,
                width=8,
            ),
            over_time(
                "Handed to the exporter",
                "What left the apps' queues per second.",
                "none",
                *(ask(rate(metric, where=(equal(_ERROR, ""),)), name) for name, metric in _PROCESSED.items()),
                width=12,
            ),
            over_time(
                "On the way",
                "What apps have sent and the collector has not answered yet. High for long: the collector is slow.",
                "short",
                *(ask(level(metric), name) for name, metric in _INFLIGHT.items()),
                width=12,
            ),
        ),
    )


def _collector() -> Row:
    return Row(
        "The collector",
        (
            over_time(
                "Accepted",
                "What the collector accepted per second.",
                "none",
                *(ask(f"sum(rate({name}[$__rate_interval]))", each) for each, name in servers.OTELCOL_ACCEPTED.items()),
                width=8,
            ),
            over_time(
                "Handed to the stores",
                "What the collector's exporters delivered per second: spans to Tempo, metric points to Prometheus, "
                "log records to Loki.",
                "none",
                *(
                    ask(f"sum by (exporter) (rate({name}[$__rate_interval]))", f"{each} {{{{exporter}}}}")
                    for each, name in servers.OTELCOL_SENT.items()
                ),
                width=8,
            ),
            over_time(
                "Refused",
                "What the collector refused in each step: its memory limit or a queue is full. Apps keep it and try "
                "again.",
                "short",
                *(
                    ask(f"sum(increase({name}[$__rate_interval]))", each)
                    for each, name in servers.OTELCOL_REFUSED.items()
                ),
                steps=bad_above(None, 1),
                bars=True,
                width=8,
            ),
            over_time(
                "Failed to hand over",
                "What a store refused for good, in each step. It is lost.",
                "short",
                *(
                    ask(f"sum by (exporter) (increase({name}[$__rate_interval]))", f"{each} {{{{exporter}}}}")
                    for group in (servers.OTELCOL_SEND_FAILED,)
                    for each, name in group.items()
                ),
                steps=bad_above(None, 1),
                bars=True,
                width=8,
            ),
            over_time(
                "Queues to the stores",
                "How full the queue to each store is. It lies on disk and waits while a store is down; above 0.8 an "
                "alert fires.",
                "percentunit",
                ask(
                    f"max by (exporter) ({servers.OTELCOL_QUEUE_SIZE}) "
                    f"/ (max by (exporter) ({servers.OTELCOL_QUEUE_CAPACITY}) > 0)",
                    "{{exporter}}",
                ),
                steps=bad_above(0.5, 0.8),
                most=1,
                width=8,
            ),
            over_time(
                "Memory of the collector",
                "Resident memory. At its limit the collector refuses until it is below.",
                "bytes",
                ask(f"max({servers.OTELCOL_MEMORY})", "resident"),
                width=8,
            ),
        ),
    )


def _stores() -> Row:
    return Row(
        "The stores and the alerts",
        (
            over_time(
                "Servers up",
                "1: Prometheus reaches this server. 0: it does not answer.",
                "none",
                ask(f"min by (job) ({servers.SCRAPE_UP})", "{{job}}"),
                steps=((None, "red"), (1, "green")),
                most=1,
                width=8,
            ),
            over_time(
                "Prometheus: samples per second",
                "Samples that Prometheus takes in.",
                "none",
                ask(f"sum(rate({servers.PROMETHEUS_SAMPLES_APPENDED}[$__rate_interval]))", "samples"),
                width=8,
            ),
            over_time(
                "Prometheus: series",
                "Series in memory: what costs Prometheus its memory. A steep rise: a label with too many values.",
                "short",
                ask(f"sum({servers.PROMETHEUS_HEAD_SERIES})", "series"),
                width=8,
            ),
            over_time(
                "Loki: lines per second",
                "Log lines that Loki takes in.",
                "none",
                ask(f"sum(rate({servers.LOKI_LINES}[$__rate_interval]))", "lines"),
                width=8,
            ),
            over_time(
                "Refused by the stores",
                "Log lines that Loki discarded, by reason, and samples that Prometheus found too old, in each step. "
                "They are lost.",
                "short",
                ask(f"sum by (reason) (increase({servers.LOKI_DISCARDED}[$__rate_interval]))", "Loki: {{reason}}"),
                ask(f"sum(increase({servers.PROMETHEUS_TOO_OLD}[$__rate_interval]))", "Prometheus: too old"),
                steps=bad_above(None, 1),
                bars=True,
                width=8,
            ),
            over_time(
                "Rules that fail, alerts not handed over",
                "Failed rule evaluations, and alerts that Prometheus dropped on the way to Alertmanager, in each "
                "step. Anything above 0: alerts may be missing.",
                "short",
                ask(f"sum(increase({servers.PROMETHEUS_RULE_FAILURES}[$__rate_interval]))", "rules failed"),
                ask(f"sum(increase({servers.PROMETHEUS_NOTIFICATIONS_DROPPED}[$__rate_interval]))", "alerts dropped"),
                steps=bad_above(None, 1),
                bars=True,
                width=8,
            ),
            over_time(
                "Notifications",
                "Messages that Alertmanager sent in each step, by kind, and those that failed.",
                "short",
                ask(
                    f"sum by (integration) (increase({servers.ALERTMANAGER_NOTIFICATIONS}[$__rate_interval]))",
                    "{{integration}}",
                ),
                ask(
                    f"sum by (integration) (increase({servers.ALERTMANAGER_NOTIFICATIONS_FAILED}[$__rate_interval]))",
                    "{{integration}} failed",
                ),
                bars=True,
                width=24,
            ),
        ),
    )


BOARD = Board(
    links.SYSTEM,
    "Are the apps up, what do their logs say, and does the telemetry itself arrive.",
    (_up(), _apps_way_out(), _collector(), _stores()),
)

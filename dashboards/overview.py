"""Overview: is anything wrong, whose fault is it, where did the time go, what does it cost."""

from __future__ import annotations

from dashboards import links, servers, shared
from dashboards.frame import Board, Row
from dashboards.panels import NEUTRAL, OK, Column, ask, bad_above, bad_below, listing, now, number, over_time, rows
from dashboards.promql import increase, label, legend, level, quantile, rate, unequal
from watchkeep import names

_INPUT = names.METRIC_GEN_AI_CLIENT_INFERENCE_USAGE_INPUT_TOKENS
_OUTPUT = names.METRIC_GEN_AI_CLIENT_INFERENCE_USAGE_OUTPUT_TOKENS
_NOT_CLOSED = unequal(names.RESILIENCE_CIRCUIT_BREAKER_STATE, shared.CLOSED)
_SERVICE = label(names.SERVICE_NAME)


def _firing(severity: str) -> str:
    return f'count({servers.ALERTS}{{alertstate="firing", severity="{severity}"}})'


def _wrong() -> Row:
    return Row(
        "Is anything wrong?",
        (
            number(
                "Firing alerts",
                "Alerts that fire now, by severity, of every service. critical: act now. warning: act today. "
                "info: good to know. The table below names them.",
                "none",
                now(_firing("critical"), "critical"),
                now(_firing("warning"), "warning"),
                now(_firing("info"), "info"),
                steps=bad_above(None, 1),
                each={"warning": bad_above(1), "info": ((None, OK), (1, NEUTRAL))},
                width=6,
                nothing="none",
            ),
            number(
                "Do alerts reach anybody?",
                "How many receivers (webhook, Slack, e-mail) Alertmanager has. 0: alerts fire, and nobody hears of "
                "them. Set WATCHKEEP_ALERTS_WEBHOOK_URL, WATCHKEEP_ALERTS_SLACK_URL or WATCHKEEP_ALERTS_EMAIL_TO.",
                "none",
                now(f"sum({servers.ALERTMANAGER_INTEGRATIONS})", "receivers"),
                steps=((None, "red"), (1, "green")),
                words={"0": ("nobody", "red")},
                nothing="Alertmanager is down",
            ),
            number(
                "Breakers not closed",
                "Circuit breakers that are open or half-open now, over all instances.",
                "none",
                now(level(shared.STATUS, where=(_NOT_CLOSED,)), "not closed"),
                steps=bad_above(None, 1),
                nothing="no breaker",
                links=(links.to(links.RESILIENCE, "Breaker states"),),
            ),
            number(
                "Success",
                "Share of logical LLM calls that succeeded, retries folded in, over the time shown. Below 80 % the "
                "success alert fires.",
                "percentunit",
                now(shared.success_share(counted=increase), "success"),
                steps=bad_below(0.95, shared.LIMIT_SUCCESS),
                width=5,
                nothing="no calls",
                links=(links.to(links.LLM, "Errors by type"),),
            ),
            number(
                "p95 of a call",
                "95 of 100 inference calls were faster than this, over the time shown.",
                "s",
                now(quantile(0.95, shared.DURATION, over="$__range"), "p95"),
                steps=bad_above(shared.LIMIT_SECONDS / 2, shared.LIMIT_SECONDS),
                width=5,
                nothing="no calls",
                links=(links.to(links.LLM, "Duration"),),
            ),
            listing(
                "Alerts that fire now",
                "Every alert that fires, with its severity and service. What to do stands in its runbook section "
                "(Alerting, or the link in the message).",
                rows(
                    f"max by (severity, alertname, {_SERVICE}) "
                    f'({servers.ALERTS}{{alertstate="firing", severity!="none"}})'
                ),
                columns={
                    "severity": Column("Severity"),
                    "alertname": Column("Alert"),
                    _SERVICE: Column("Service", link=links.to_row_service(links.LLM)),
                },
                hidden=("Time", "Value"),
                nothing="No alert fires",
            ),
            shared.breaker_timeline(),
        ),
    )


def _fault() -> Row:
    return Row("Whose fault is it?", (shared.calls_by_blame(), shared.errors_by_blame()))


def _time() -> Row:
    return Row("Where did the time go?", (shared.time_by_phase(), shared.latency(width=6), shared.retry_share(width=6)))


def _cost() -> Row:
    by = (names.GEN_AI_REQUEST_MODEL,)
    return Row(
        "What does it cost, and who is it?",
        (
            over_time(
                "Tokens",
                "Tokens per second, as the providers count and bill them.",
                "short",
                ask(rate(_INPUT, *by), f"{legend(*by)} in"),
                ask(rate(_OUTPUT, *by), f"{legend(*by)} out"),
                width=8,
                stacked=True,
                links=(links.to(links.LLM, "Tokens by kind"),),
            ),
            number(
                "Tokens in the time shown",
                "Input and output tokens used in the time shown.",
                "short",
                now(increase(_INPUT), "in"),
                now(increase(_OUTPUT), "out"),
                width=4,
                height=8,
                nothing="none",
            ),
            listing(
                "Services",
                "Each service in the time shown: calls, share that succeeded, p95, retries per call; and how many "
                "breakers are not closed now. Click a name to look closer.",
                rows(increase(shared.CALLS, names.SERVICE_NAME)),
                rows(shared.success_share(names.SERVICE_NAME, counted=increase)),
                rows(quantile(0.95, shared.DURATION, names.SERVICE_NAME, over="$__range")),
                rows(shared.retries_per_call(names.SERVICE_NAME, counted=increase)),
                rows(level(shared.STATUS, names.SERVICE_NAME, where=(_NOT_CLOSED,))),
                columns={
                    _SERVICE: Column("Service", link=links.to_row_service(links.LLM)),
                    "Value #A": Column("Calls", "short"),
                    "Value #B": Column("Success", "percentunit", bad_below(0.95, shared.LIMIT_SUCCESS)),
                    "Value #C": Column("p95", "s", bad_above(shared.LIMIT_SECONDS / 2, shared.LIMIT_SECONDS)),
                    "Value #D": Column("Retries/call", "none", bad_above(None, shared.LIMIT_RETRIES)),
                    "Value #E": Column("Breakers not closed", "none", bad_above(None, 1)),
                },
                hidden=("Time",),
            ),
        ),
    )


BOARD = Board(
    links.OVERVIEW,
    "One glance: is anything wrong, whose fault is it, where did the time go, what does it cost.",
    (_wrong(), _fault(), _time(), _cost()),
)

"""Expressions and panels that several dashboards show in the same way."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from dashboards import links
from dashboards.panels import BLAME, PHASES, ask, bad_above, over_time, states
from dashboards.promql import FAILED, SUCCEEDED, equal, label, legend, level, quantile, rate, share, unequal
from watchkeep import names

CALLS = names.METRIC_RESILIENCE_CALLS
DURATION = names.METRIC_GEN_AI_CLIENT_INFERENCE_DURATION
RETRIES = names.METRIC_RESILIENCE_RETRY_RETRIES
STATUS = names.METRIC_RESILIENCE_CIRCUIT_BREAKER_STATUS
OPEN, HALF_OPEN, CLOSED = "open", "half_open", "closed"
STATES = {"0": ("closed", "green"), "1": ("half-open", "orange"), "2": ("open", "red")}

SERVICE, MODEL = names.SERVICE_NAME, names.GEN_AI_REQUEST_MODEL
BREAKER = names.RESILIENCE_CIRCUIT_BREAKER_NAME
FAULT = names.RESILIENCE_FAULT_ORIGIN
Counted = Callable[..., str]
"""rate, increase or per_interval."""

LIMIT_ERRORS, LIMIT_SUCCESS, LIMIT_SECONDS, LIMIT_RETRIES = 0.10, 0.80, 10.0, 0.20
"""Where the alerts of the same names fire as delivered; a service may override them."""


def success_share(*by: str, counted: Counted = rate) -> str:
    """Return calls that succeeded / calls."""
    return share(counted(CALLS, *by, where=(SUCCEEDED,)), counted(CALLS, *by))


def retries_per_call(*by: str, counted: Counted = rate) -> str:
    """Return retries / calls."""
    return share(counted(RETRIES, *by), counted(CALLS, *by))


def breaker_state() -> str:
    """Return 0 closed, 1 half-open, 2 open: the worst instance of each breaker."""
    is_open = level(
        STATUS, SERVICE, BREAKER, where=(equal(names.RESILIENCE_CIRCUIT_BREAKER_STATE, OPEN),), operator="max"
    )
    is_half = level(
        STATUS, SERVICE, BREAKER, where=(equal(names.RESILIENCE_CIRCUIT_BREAKER_STATE, HALF_OPEN),), operator="max"
    )
    return f"clamp_max(2 * {is_open} + {is_half}, 2)"


def traces_of_model() -> tuple[str, str]:
    """Link to the traces of the model whose line was clicked."""
    query = f'{{ resource.{SERVICE} =~ "${{service:pipe}}" && span.{MODEL} = "${{__field.labels.{label(MODEL)}}}" }}'
    return links.search_traces("Its traces in Tempo", query)


def traces_with_error() -> tuple[str, str]:
    """Link to the traces with the error type whose line was clicked."""
    key = names.ERROR_TYPE
    query = f'{{ resource.{SERVICE} =~ "${{service:pipe}}" && span.{key} = "${{__field.labels.{label(key)}}}" }}'
    return links.search_traces("Its traces in Tempo", query)


def failures_by_blame(counted: Counted) -> tuple[tuple[str, str], ...]:
    """Return failed calls by blame, rejections by a breaker apart: expression and legend of each."""
    rejected = equal(names.ERROR_TYPE, names.CIRCUIT_OPEN)
    others = (FAILED, unequal(names.ERROR_TYPE, names.CIRCUIT_OPEN))
    return (counted(CALLS, FAULT, where=others), legend(FAULT)), (counted(CALLS, where=(rejected,)), "breaker")


def calls_by_blame(width: int = 12) -> Any:
    """Show every logical call: well, or whose fault."""
    return over_time(
        "Calls, and whose fault the failed ones are",
        "Logical LLM calls per second, each counted once with its retries inside. provider: it answered 408, 409, 429 "
        "or 5xx, or its stream broke. network: DNS, connect, TLS, reset. client: our own side - bad request, full "
        "pool, cancelled. breaker: rejected by an open breaker, whose cause is what failed before. Much yellow: look "
        "at Pools before you call the provider.",
        "reqps",
        ask(rate(CALLS, where=(SUCCEEDED,)), "ok"),
        *(ask(expr, name) for expr, name in failures_by_blame(rate)),
        width=width,
        stacked=True,
        colours=BLAME,
        links=(links.to(links.LLM, "Errors by type"), links.to(links.RESILIENCE)),
    )


def errors_by_blame(width: int = 12) -> Any:
    """Show which share of the calls fails, and whose fault."""
    return over_time(
        "Share of calls that fail, by blame",
        "Failed logical calls / all logical calls. Above 10 % the alert for the error rate fires. Rejections by an "
        "open breaker count as failures, so the height does not fall because the breaker is open.",
        "percentunit",
        *(ask(f"{expr} / on () group_left () ({rate(CALLS)} > 0)", name) for expr, name in failures_by_blame(rate)),
        steps=bad_above(None, LIMIT_ERRORS),
        width=width,
        stacked=True,
        colours=BLAME,
        links=(links.to(links.LLM, "Errors by type"),),
    )


def time_by_phase(width: int = 12) -> Any:
    """Show the time ledger."""
    phase = names.RESILIENCE_CALL_PHASE
    return over_time(
        "Where the time goes",
        "Seconds spent in each phase of LLM calls, per second: 2 s of server means two calls were waiting for the "
        "provider on average. server: the provider. stream: waiting for its next chunk. backoff: sleeping before a "
        "retry. pool_wait: no free connection. connect: DNS, TCP, TLS. consumer: the app held the stream. The phases "
        "add up to the whole time of all calls.",
        "s",
        ask(rate(names.METRIC_RESILIENCE_CALL_TIME, phase), legend(phase)),
        width=width,
        stacked=True,
        colours=PHASES,
        links=(links.to(links.TIME, "Time of one call, by phase"),),
    )


def latency(width: int = 12) -> Any:
    """Show p95 by service."""
    return over_time(
        "Slowest calls (p95)",
        "95 of 100 inference calls are faster than this, retries of the SDK included. Above 10 s the latency alert "
        "fires. Each dot is one call: click it to see its trace.",
        "s",
        ask(quantile(0.95, DURATION, SERVICE), legend(SERVICE), exemplars=True),
        steps=bad_above(LIMIT_SECONDS / 2, LIMIT_SECONDS),
        width=width,
        links=(links.to(links.TIME), links.to_service(links.LLM)),
    )


def breaker_timeline(width: int = 12, height: int = 8) -> Any:
    """Show the state of every breaker over time."""
    return states(
        "Breaker states",
        "Each circuit breaker over time, the worst instance of the same name. open: calls are rejected at once. "
        "half-open: a probe is let through. After 5 minutes not closed the critical alert fires, even if probes "
        "interrupt the open state.",
        ask(breaker_state(), legend(SERVICE, BREAKER)),
        words=STATES,
        width=width,
        height=height,
        links=(links.to(links.RESILIENCE, "Calls through the breaker"),),
    )


def retry_share(width: int = 12) -> Any:
    """Show retries per call."""
    return over_time(
        "Retries per call",
        "Retries / logical calls; 0.2 means one retry for every five calls, and there the retry alert fires. A "
        "rising line is often the first sign of an outage that callers do not feel yet.",
        "none",
        ask(retries_per_call(SERVICE), legend(SERVICE)),
        steps=bad_above(LIMIT_RETRIES / 2, LIMIT_RETRIES),
        width=width,
        links=(links.to(links.RESILIENCE, "Retries by reason"),),
    )

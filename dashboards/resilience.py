"""Resilience: what breakers and retries do, and what that saves and costs."""

from __future__ import annotations

from dashboards import links, logql, shared
from dashboards.frame import Board, Row
from dashboards.panels import Column, ask, bad_above, lines, listing, now, number, over_time, rows
from dashboards.promql import (
    FAILED,
    INSTANCE,
    equal,
    increase,
    label,
    legend,
    level,
    mean,
    per_interval,
    quantile,
    rate,
    series,
    unequal,
)
from watchkeep import names

_BREAKER, _STATE = names.RESILIENCE_CIRCUIT_BREAKER_NAME, names.RESILIENCE_CIRCUIT_BREAKER_STATE
_BEFORE, _OUTCOME = names.RESILIENCE_CIRCUIT_BREAKER_PREVIOUS_STATE, names.RESILIENCE_CIRCUIT_BREAKER_OUTCOME
_STATUS, _CALLS = shared.STATUS, names.METRIC_RESILIENCE_CIRCUIT_BREAKER_CALLS
_TRANSITIONS, _OPEN_TIME = (
    names.METRIC_RESILIENCE_CIRCUIT_BREAKER_TRANSITIONS,
    names.METRIC_RESILIENCE_CIRCUIT_BREAKER_OPEN_DURATION,
)
_PROBE = names.METRIC_RESILIENCE_CIRCUIT_BREAKER_NEXT_PROBE_TIME
_REJECTED = equal(_OUTCOME, "rejected")
_POLICY, _ERROR, _RESULT = names.RESILIENCE_POLICY_NAME, names.ERROR_TYPE, names.RESILIENCE_RETRY_RESULT


def _breakers() -> Row:
    open_now = level(_STATUS, where=(equal(_STATE, shared.OPEN),))
    half_now = level(_STATUS, where=(equal(_STATE, shared.HALF_OPEN),))
    service, breaker, state = label(names.SERVICE_NAME), label(_BREAKER), label(_STATE)
    return Row(
        "Circuit breakers",
        (
            number(
                "Breakers now",
                "How many breakers are open and half-open now, over all instances.",
                "none",
                now(open_now, "open"),
                now(half_now, "half-open"),
                steps=bad_above(1),
                width=6,
                nothing="no breaker",
            ),
            number(
                "Calls saved",
                "Calls that an open breaker rejected at once in the time shown: none of them waited for a provider "
                "that does not answer, and none of them was served.",
                "short",
                now(increase(_CALLS, where=(_REJECTED,)), "rejected"),
                steps=bad_above(1),
                width=4,
                nothing="none",
            ),
            number(
                "Opened",
                "How often a breaker opened in the time shown.",
                "short",
                now(increase(_TRANSITIONS, where=(equal(_STATE, shared.OPEN),)), "opened"),
                steps=bad_above(1, 5),
                width=4,
                nothing="none",
            ),
            number(
                "Share of time not closed",
                "Worst breaker: the share of the time shown that it was open or half-open.",
                "percentunit",
                now(
                    "max(sum by (" + ", ".join((service, INSTANCE, breaker)) + ") "
                    f"(avg_over_time({series(_STATUS, unequal(_STATE, shared.CLOSED))}[$__range])))",
                    "not closed",
                ),
                steps=bad_above(0.01, 0.1),
                width=5,
                nothing="no breaker",
            ),
            number(
                "Next probe in",
                "Seconds until an open breaker lets a call through to probe; 0 when it may probe at its next call, "
                "or is not open.",
                "s",
                now(f"clamp_min(max({series(_PROBE)}) - time(), 0)", "next probe"),
                width=5,
                nothing="no breaker",
            ),
            shared.breaker_timeline(),
            over_time(
                "Calls through the breaker",
                "Calls per second by outcome. success and failure went through; ignored: an error that the breaker "
                "does not count; rejected: refused by the open breaker, that is calls saved.",
                "reqps",
                ask(rate(_CALLS, _BREAKER, _OUTCOME), legend(_BREAKER, _OUTCOME)),
                stacked=True,
                links=(links.to(links.LLM, "Errors by type"),),
            ),
            over_time(
                "Transitions",
                "State changes in each step: open and half-open in turns means the probes fail and the provider is "
                "still down.",
                "short",
                ask(per_interval(_TRANSITIONS, _BREAKER, _BEFORE, _STATE), legend(_BREAKER, _BEFORE, _STATE)),
                bars=True,
                width=8,
            ),
            over_time(
                "Time open",
                "How long breakers stayed open before they probed: p50 and p95 of those that have ended.",
                "s",
                *(
                    ask(
                        quantile(part, _OPEN_TIME, _BREAKER, over="$__range"),
                        f"{legend(_BREAKER)} p{part * 100:.0f}",
                        exemplars=True,
                    )
                    for part in (0.5, 0.95)
                ),
                steps=bad_above(60, 300),
                width=8,
            ),
            over_time(
                "Failures that open a breaker",
                "The threshold of each breaker: as many failures in a row open it.",
                "short",
                ask(
                    level(names.METRIC_RESILIENCE_CIRCUIT_BREAKER_FAILURE_THRESHOLD, _BREAKER, operator="min"),
                    legend(_BREAKER),
                ),
                width=8,
            ),
            listing(
                "Each breaker",
                "Which instance's breaker is in which state now.",
                rows(f"max by ({service}, {INSTANCE}, {breaker}, {state}) ({series(_STATUS)} == 1)"),
                columns={
                    service: Column("Service", link=links.to_row_service(links.LLM)),
                    breaker: Column("Breaker"),
                    state: Column("State"),
                    INSTANCE: Column("Instance"),
                },
                hidden=("Time", "Value"),
                nothing="No breaker is watched",
            ),
            listing(
                "Breaker and retry events",
                "Each change of a breaker, scheduled retry and pool time-out with the run it belongs to: click the "
                "correlation ID to see the whole run.",
                lines(
                    logql.events(
                        names.EVENT_BREAKER_STATE_CHANGE, names.EVENT_RETRY_SCHEDULED, names.EVENT_POOL_TIMEOUT
                    ),
                    limit=100,
                ),
                columns={
                    "Time": Column("Time"),
                    service: Column("Service"),
                    logql.EVENT_NAME: Column("Event"),
                    breaker: Column("Breaker"),
                    label(_BEFORE): Column("From"),
                    state: Column("To"),
                    label(_ERROR): Column("Error"),
                    label(names.RESILIENCE_RETRY_DELAY): Column("Wait", "s"),
                    label(names.AGENT_RUNTIME_CORRELATION_ID): Column("Correlation ID", link=links.to_run()),
                },
                from_labels=True,
                nothing="No event",
            ),
        ),
    )


def _retries() -> Row:
    retries = shared.RETRIES
    return Row(
        "Retries",
        (
            over_time(
                "Retries by reason",
                "Retries per second, by the error that made them necessary. 429: slow down. 5xx: the provider's "
                "trouble. connect: the network's.",
                "reqps",
                ask(rate(retries, _ERROR), legend(_ERROR)),
                stacked=True,
                width=8,
                links=(links.to(links.LLM, "Tries on the wire that failed"),),
            ),
            over_time(
                "Retries by policy and model",
                "Retries per second, by who retries (an SDK, or a policy of the app) and by model. Two policies on "
                "the same call multiply.",
                "reqps",
                ask(rate(retries, _POLICY, names.GEN_AI_REQUEST_MODEL), legend(_POLICY, names.GEN_AI_REQUEST_MODEL)),
                stacked=True,
                width=8,
                links=(shared.traces_of_model(),),
            ),
            shared.retry_share(width=8),
        ),
    )


def _policies() -> Row:
    duration, attempts = (
        names.METRIC_RESILIENCE_RETRY_OPERATION_DURATION,
        names.METRIC_RESILIENCE_RETRY_OPERATION_ATTEMPTS,
    )
    return Row(
        "Retry policies above the SDK",
        (
            over_time(
                "How operations end",
                "Operations under a retry policy of the app's (tenacity, stamina, backoff) per second, by their end. "
                "exhausted: tries or time ran out. not_retryable: an error that the policy does not retry.",
                "reqps",
                ask(rate(duration, _RESULT, part="count"), legend(_RESULT)),
                stacked=True,
                width=6,
            ),
            over_time(
                "Given up",
                "Operations that failed for good, per second, by policy and by the last error.",
                "reqps",
                ask(
                    rate(duration, _POLICY, _ERROR, where=(FAILED,), part="count"),
                    legend(_POLICY, _ERROR),
                ),
                stacked=True,
                width=6,
                links=(links.to(links.LLM, "Errors by type"),),
            ),
            over_time(
                "Tries per operation",
                "How often an operation was tried, by policy: the mean, and p95. Retries of the SDK inside each try "
                "come on top.",
                "none",
                ask(mean(attempts, _POLICY), f"{legend(_POLICY)} mean"),
                ask(quantile(0.95, attempts, _POLICY), f"{legend(_POLICY)} p95"),
                width=6,
            ),
            over_time(
                "Duration with retries",
                "How long an operation takes, all tries and waits included: p95 by policy. This is what callers wait.",
                "s",
                ask(quantile(0.95, duration, _POLICY), legend(_POLICY), exemplars=True),
                width=6,
            ),
        ),
    )


BOARD = Board(
    links.RESILIENCE,
    "What circuit breakers and retries do right now, what they save and what they cost.",
    (_breakers(), _retries(), _policies()),
)

"""Where the time goes: the ledger, tries, back-off, waits."""

from __future__ import annotations

from dashboards import links, shared
from dashboards.frame import ENVIRONMENT, SERVICE, Board, Row
from dashboards.panels import PHASES, Column, ask, bad_above, bar, listing, now, number, over_time, traces
from dashboards.promql import (
    FAILED,
    INSTANCE,
    equal,
    increase,
    label,
    legend,
    quantile,
    rate,
    series,
    share,
    total,
)
from watchkeep import names

_TIME, _CALLS, _DURATION = names.METRIC_RESILIENCE_CALL_TIME, shared.CALLS, shared.DURATION
_PHASE = names.RESILIENCE_CALL_PHASE
_WIRE = names.METRIC_HTTP_CLIENT_REQUEST_DURATION
_BACKOFF = equal(_PHASE, "backoff")
_POOL_WAIT = names.METRIC_RESILIENCE_POOL_CONNECTION_WAIT_TIME


def _failed_tries() -> str:
    # The app's other HTTP requests have the same metric: only those to an LLM's server count here.
    keys = ", ".join((label(names.SERVICE_NAME), INSTANCE, label(names.SERVER_ADDRESS), label(names.SERVER_PORT)))
    tries = f"rate({series(_WIRE, FAILED, part='sum')}[$__rate_interval])"
    return total("sum", (), f"{tries} and on ({keys}) {series(_DURATION, part='count')}")


def _ledger() -> Row:
    return Row(
        "The time ledger",
        (
            number(
                "Lost to retries",
                "Share of all call time that was spent sleeping before a retry, in the time shown. It is time your "
                "users waited and nobody worked.",
                "percentunit",
                now(share(increase(_TIME, where=(_BACKOFF,)), increase(_TIME)), "back-off"),
                steps=bad_above(0.05, 0.2),
                width=6,
                nothing="no calls",
            ),
            number(
                "Waiting for the provider",
                "Share of all call time between the request sent and the end of the answer (server and stream), in "
                "the time shown. The rest is the network's or ours.",
                "percentunit",
                now(
                    share(increase(_TIME, where=(f'{label(_PHASE)}=~"server|stream"',)), increase(_TIME)),
                    "server and stream",
                ),
                width=6,
                nothing="no calls",
            ),
            number(
                "Waiting for a connection",
                "Share of all call time spent waiting for a free connection of the pool, in the time shown. More "
                "than a few percent: the pool is too small.",
                "percentunit",
                now(share(increase(_TIME, where=(equal(_PHASE, "pool_wait"),)), increase(_TIME)), "pool wait"),
                steps=bad_above(0.02, 0.1),
                width=6,
                nothing="no calls",
                links=(links.to(links.POOLS, "Wait for a connection"),),
            ),
            number(
                "Not accounted for",
                "Share of all call time in the phase other. It is small by design: 10 % or more is a bug of ours or "
                "a very busy event loop.",
                "percentunit",
                now(share(increase(_TIME, where=(equal(_PHASE, "other"),)), increase(_TIME)), "other"),
                steps=bad_above(0.1, 0.3),
                width=6,
                nothing="no calls",
            ),
            shared.time_by_phase(),
            over_time(
                "Time of one call, by phase",
                "Mean seconds of one call in each phase: the height is the mean duration of a call. The band that "
                "grows is what made calls slow.",
                "s",
                ask(
                    f"{rate(_TIME, _PHASE)} / on () group_left () ({rate(_CALLS)} > 0)",
                    legend(_PHASE),
                ),
                stacked=True,
                colours=PHASES,
                links=(links.to(links.LLM, "Duration"),),
            ),
            bar(
                "Phases in the time shown",
                "Seconds in each phase, summed over all calls in the time shown.",
                "s",
                now(increase(_TIME, _PHASE), legend(_PHASE)),
            ),
            over_time(
                "Slow phases by model",
                "Seconds per second in server, stream and back-off, by model: the line that grows is the slow one.",
                "s",
                ask(
                    rate(
                        _TIME,
                        names.GEN_AI_REQUEST_MODEL,
                        _PHASE,
                        where=(f'{label(_PHASE)}=~"server|stream|backoff"',),
                    ),
                    legend(names.GEN_AI_REQUEST_MODEL, _PHASE),
                ),
                width=16,
                links=(shared.traces_of_model(),),
            ),
        ),
    )


def _retries() -> Row:
    attempt, operation = names.RESILIENCE_RETRY_ATTEMPT, names.GEN_AI_OPERATION_NAME
    retried = f'{{ resource.{names.SERVICE_NAME} =~ "$service" && span.{attempt} > 0 }}'
    recovered = f"{retried} < {{ span.{operation} != nil && status != error }}"
    shown = f"select(span.{names.GEN_AI_REQUEST_MODEL}, span.{names.RESILIENCE_CALL_TIME}.backoff)"
    return Row(
        "What retries cost",
        (
            over_time(
                "Attempts per call",
                "1 + retries / calls. 1: every call succeeds or fails at its first try.",
                "none",
                ask(f"1 + {shared.retries_per_call(names.SERVICE_NAME)}", legend(names.SERVICE_NAME)),
                steps=bad_above(1 + shared.LIMIT_RETRIES / 2, 1 + shared.LIMIT_RETRIES),
                width=8,
                links=(links.to(links.RESILIENCE, "Retries by reason"),),
            ),
            over_time(
                "Latency added by retries",
                "Mean seconds that retries add to a call: sleeping before them, and tries that failed.",
                "s",
                ask(share(rate(_TIME, where=(_BACKOFF,)), rate(_CALLS)), "back-off"),
                ask(share(_failed_tries(), rate(_CALLS)), "failed tries"),
                steps=bad_above(0.5, 2),
                width=8,
                stacked=True,
                colours={"back-off": "red", "failed tries": "orange"},
            ),
            over_time(
                "Back-off before one retry",
                "How long the wait before a retry is, as measured: p50 and p95.",
                "s",
                *(
                    ask(
                        quantile(part, names.METRIC_RESILIENCE_RETRY_DELAY, names.RESILIENCE_POLICY_NAME),
                        f"{legend(names.RESILIENCE_POLICY_NAME)} p{part * 100:.0f}",
                        exemplars=True,
                    )
                    for part in (0.5, 0.95)
                ),
                steps=bad_above(5, 30),
                width=8,
            ),
            listing(
                "Recovered after a retry",
                "Calls that failed at first and succeeded at a later try: what retries saved, and the time each one "
                "took. Needs Tempo.",
                traces(f"{recovered} | {shown}", spans=True),
                columns={
                    "Span ID": Column("Span", link=links.to_trace(ENVIRONMENT, SERVICE, of_span=True)),
                    "Start time": Column("Start"),
                    "Trace Service": Column("Service"),
                    "Name": Column("Call"),
                    names.GEN_AI_REQUEST_MODEL: Column("Model"),
                    f"{names.RESILIENCE_CALL_TIME}.backoff": Column("Back-off", "s"),
                    "Duration": Column("Duration", "ns"),
                },
                width=24,
                hidden=("traceIdHidden", "Trace Name"),
                nothing="No call recovered by a retry",
            ),
        ),
    )


def _waits() -> Row:
    pool, breaker = names.RESILIENCE_POOL_NAME, names.RESILIENCE_CIRCUIT_BREAKER_NAME
    return Row(
        "Waits",
        (
            over_time(
                "Wait for a connection (p95)",
                "95 of 100 requests got a connection of the pool faster than this.",
                "s",
                ask(quantile(0.95, _POOL_WAIT, pool), legend(pool), exemplars=True),
                steps=bad_above(0.1, 1),
                width=8,
                links=(links.to(links.POOLS, "Wait for a connection"),),
            ),
            over_time(
                "Wait for the breaker's lock (p95)",
                "pybreaker holds a lock while a call runs: calls of other threads wait for it. A long wait means "
                "calls run one after the other.",
                "s",
                ask(
                    quantile(0.95, names.METRIC_RESILIENCE_CIRCUIT_BREAKER_LOCK_WAIT_TIME, breaker),
                    legend(breaker),
                    exemplars=True,
                ),
                steps=bad_above(0.1, 1),
                width=8,
            ),
            over_time(
                "One request on the wire (p95)",
                "95 of 100 HTTP requests have their answer's headers faster than this, by server and status. A "
                "streamed body is not in it.",
                "s",
                ask(
                    quantile(0.95, _WIRE, names.SERVER_ADDRESS, names.HTTP_RESPONSE_STATUS_CODE),
                    legend(names.SERVER_ADDRESS, names.HTTP_RESPONSE_STATUS_CODE),
                    exemplars=True,
                ),
                steps=bad_above(shared.LIMIT_SECONDS / 2, shared.LIMIT_SECONDS),
                width=8,
            ),
        ),
    )


BOARD = Board(
    links.TIME,
    "Which part of a call's time is the provider's, the network's, a retry's, or our own.",
    (_ledger(), _retries(), _waits()),
)

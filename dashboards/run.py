"""One run: by correlation or session ID its traces, its logs, its events, what it cost."""

from __future__ import annotations

from dashboards import links, logql
from dashboards.frame import ENVIRONMENT, SERVICE, Board, Row
from dashboards.panels import (
    Column,
    bad_above,
    counted,
    counted_now,
    lines,
    listing,
    log_lines,
    number,
    over_time,
    trace,
    traces,
    waterfall,
)
from dashboards.promql import label
from watchkeep import names

_CORRELATION, _SESSION = names.AGENT_RUNTIME_CORRELATION_ID, names.SESSION_ID
_ERROR, _FAULT = names.ERROR_TYPE, names.RESILIENCE_FAULT_ORIGIN
_OF_SERVICE = f'resource.{names.SERVICE_NAME} =~ "$service"'
_RUN = f'{_OF_SERVICE} && span.{_CORRELATION} =~ "$correlation.*"'
_KEPT = (ENVIRONMENT, SERVICE, "correlation", "session")
_OPERATION, _MODEL = names.GEN_AI_OPERATION_NAME, names.GEN_AI_REQUEST_MODEL


def _at_a_glance() -> Row:
    def count(title: str, description: str, unit_word: str, *events: names.Event) -> object:
        return number(
            title,
            description,
            "short",
            counted_now(logql.in_range(logql.run_events(*events)), unit_word),
            steps=bad_above(1),
            width=4,
            nothing="none",
        )

    return Row(
        "At a glance",
        (
            number(
                "Log lines and events",
                "How many log records this run wrote in the time shown. None: widen the time, or check the ID.",
                "short",
                counted_now(logql.in_range(logql.run_lines()), "records"),
                width=4,
                nothing="none: widen the time or check the ID",
            ),
            count(
                "Failed calls", "LLM calls of this run that ended with an exception.", "failed", names.EVENT_EXCEPTION
            ),
            count("Retries", "Retries that were scheduled in this run.", "retries", names.EVENT_RETRY_SCHEDULED),
            count(
                "Breaker changes",
                "How often a breaker changed its state in this run.",
                "changes",
                names.EVENT_BREAKER_STATE_CHANGE,
            ),
            over_time(
                "When it spoke",
                "Log records of this run in each step, by level.",
                "short",
                counted(logql.per_interval(logql.run_lines(), logql.LEVEL), f"{{{{{logql.LEVEL}}}}}"),
                bars=True,
                stacked=True,
                width=8,
                height=4,
                colours={"error": "red", "warn": "orange", "info": "green", "debug": "blue", "unknown": "gray"},
            ),
        ),
    )


def _traces() -> Row:
    usage = (names.GEN_AI_USAGE_INPUT_TOKENS, names.GEN_AI_USAGE_OUTPUT_TOKENS)
    shown = ", ".join(f"span.{key}" for key in (_MODEL, *usage, _ERROR, _FAULT))
    return Row(
        "Its traces",
        (
            listing(
                "Traces of the correlation ID",
                "Every trace of this run, the newest first. Click one to see it below. Needs Tempo.",
                traces(f"{{ {_RUN} }}"),
                columns={
                    "Trace ID": Column("Trace", link=links.to_trace(*_KEPT)),
                    "Start time": Column("Start"),
                    "Service": Column("Service"),
                    "Name": Column("First span"),
                    "Duration": Column("Duration", "ms"),
                },
                hidden=("nested",),
                nothing="No trace: widen the time or check the ID",
            ),
            listing(
                "Traces of the session ID",
                "Every trace of this session: all its runs. Give a session ID above. Needs Tempo.",
                traces(f'{{ {_OF_SERVICE} && span.{_SESSION} != nil && span.{_SESSION} =~ "$session.*" }}'),
                columns={
                    "Trace ID": Column("Trace", link=links.to_trace(*_KEPT)),
                    "Start time": Column("Start"),
                    "Service": Column("Service"),
                    "Name": Column("First span"),
                    "Duration": Column("Duration", "ms"),
                },
                hidden=("nested",),
                nothing="No session of this ID",
            ),
            listing(
                "LLM calls of the run",
                "Each LLM call: model, tokens, how long, and whose fault when it failed. Needs Tempo.",
                traces(f"{{ {_RUN} && span.{_OPERATION} != nil }} | select({shown})", spans=True, limit=100),
                columns={
                    "Span ID": Column("Span", link=links.to_trace(*_KEPT, of_span=True)),
                    "Start time": Column("Start"),
                    "Name": Column("Call"),
                    _MODEL: Column("Model"),
                    usage[0]: Column("Tokens in", "short"),
                    usage[1]: Column("Tokens out", "short"),
                    _ERROR: Column("Error"),
                    _FAULT: Column("Blame"),
                    "Duration": Column("Duration", "ns"),
                },
                width=24,
                hidden=("traceIdHidden", "Trace Service", "Trace Name"),
                nothing="No LLM call of this run",
            ),
            waterfall(
                "The trace",
                "The trace that was clicked above, span by span: calls, their tries, waits for connections, breakers. "
                "Its ID stands in the box Trace ID.",
                trace("$trace"),
            ),
        ),
    )


def _logs() -> Row:
    return Row(
        "Its logs and events",
        (
            listing(
                "Events",
                "What happened: retries, breaker changes, pool time-outs, exceptions, in order of time.",
                lines(logql.run_events(), limit=200),
                columns={
                    "Time": Column("Time"),
                    logql.EVENT_NAME: Column("Event"),
                    label(names.RESILIENCE_CIRCUIT_BREAKER_NAME): Column("Breaker"),
                    label(names.RESILIENCE_CIRCUIT_BREAKER_STATE): Column("State"),
                    label(names.RESILIENCE_RETRY_ATTEMPT): Column("Attempt"),
                    label(names.RESILIENCE_RETRY_DELAY): Column("Wait", "s"),
                    label(_ERROR): Column("Error"),
                    label(names.EXCEPTION_TYPE): Column("Exception"),
                    "trace_id": Column("Trace", link=links.to_trace(*_KEPT)),
                },
                from_labels=True,
                width=24,
                nothing="No event of this run",
            ),
            log_lines(
                "Logs",
                "Every line of the run, the app's own and Watchkeep's. Open one for its trace.",
                lines(logql.readable(logql.run_lines()), limit=1000),
                height=14,
            ),
        ),
    )


BOARD = Board(
    links.RUN,
    "One run, found by its correlation ID or its session ID: its traces, its logs, its events. "
    "The beginning of an ID is enough; no ID shows the newest of all runs.",
    (_at_a_glance(), _traces(), _logs()),
    (ENVIRONMENT, SERVICE),
    (
        ("correlation", "Correlation ID", "The ID on every span, line and event of one run; its beginning is enough."),
        ("session", "Session ID", "The ID of the session that the run belongs to; its beginning is enough."),
        ("trace", "Trace ID", "The trace to show; a click on a trace fills it in."),
    ),
    since="now-6h",
)

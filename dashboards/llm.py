"""LLM health: rate, success, errors, time-outs, latency, tokens, streams, by provider and model; agents and tools."""

from __future__ import annotations

from dashboards import links, shared
from dashboards.frame import Board, Row
from dashboards.panels import Column, ask, bad_above, bad_below, bar, listing, now, number, over_time, rows
from dashboards.promql import (
    FAILED,
    SUCCEEDED,
    among,
    increase,
    label,
    legend,
    level,
    mean,
    per_interval,
    quantile,
    rate,
    share,
)
from watchkeep import names

_CALLS, _DURATION = shared.CALLS, shared.DURATION
_PROVIDER, _MODEL, _ERROR = names.GEN_AI_PROVIDER_NAME, names.GEN_AI_REQUEST_MODEL, names.ERROR_TYPE
_BOTH = (_PROVIDER, _MODEL)
_FIRST_CHUNK = names.METRIC_GEN_AI_CLIENT_INFERENCE_TIME_TO_FIRST_CHUNK
_TIMEOUTS = (
    names.CONNECT_TIMEOUT,
    names.READ_TIMEOUT,
    names.WRITE_TIMEOUT,
    names.TOTAL_TIMEOUT,
    names.POOL_TIMEOUT,
    names.STREAM_STALLED,
)
_UNKNOWN = names.METRIC_AGENT_RUNTIME_USAGE_UNKNOWN
_ENDED = names.METRIC_AGENT_RUNTIME_STREAM_ENDED


def _health() -> Row:
    return Row(
        "Health",
        (
            number(
                "Calls",
                "Logical LLM calls in the time shown; a call with its retries is one.",
                "short",
                now(increase(_CALLS), "calls"),
                width=4,
                nothing="none",
            ),
            number(
                "Success",
                "Share of calls that succeeded, retries folded in, in the time shown.",
                "percentunit",
                now(shared.success_share(counted=increase), "success"),
                steps=bad_below(0.95, shared.LIMIT_SUCCESS),
                width=4,
                nothing="no calls",
            ),
            number(
                "Failed calls by blame",
                "Failed calls in the time shown. provider: call the provider. network: look at DNS, proxy, "
                "connection. client: it is ours. breaker: rejected at once.",
                "short",
                *(now(expr, name) for expr, name in shared.failures_by_blame(increase)),
                steps=bad_above(1),
                width=8,
                nothing="none",
            ),
            number(
                "Duration p50 / p95 / p99",
                "Half, 95 % and 99 % of the inference calls were faster than this, in the time shown.",
                "s",
                *(now(quantile(part, _DURATION, over="$__range"), f"p{part * 100:.0f}") for part in (0.5, 0.95, 0.99)),
                steps=bad_above(shared.LIMIT_SECONDS / 2, shared.LIMIT_SECONDS),
                width=8,
                nothing="no calls",
            ),
            over_time(
                "Calls by provider and model",
                "Logical calls per second.",
                "reqps",
                ask(rate(_CALLS, *_BOTH), legend(*_BOTH)),
                width=8,
                stacked=True,
                links=(shared.traces_of_model(),),
            ),
            over_time(
                "Success by provider and model",
                "Share of calls that succeed. Below 80 % the success alert fires.",
                "percentunit",
                ask(shared.success_share(*_BOTH), legend(*_BOTH)),
                steps=bad_below(0.95, shared.LIMIT_SUCCESS),
                width=8,
                most=1,
                links=(shared.traces_of_model(),),
            ),
            shared.errors_by_blame(width=8),
        ),
    )


def _errors() -> Row:
    wire = names.METRIC_HTTP_CLIENT_REQUEST_DURATION
    return Row(
        "Errors",
        (
            over_time(
                "Errors by type",
                "Failed calls by error type: a status code, a documented name (circuit_open, pool_timeout, "
                "read_timeout, ...) or the exception's class. Click a line for its traces.",
                "reqps",
                ask(rate(_CALLS, _ERROR, shared.FAULT, where=(FAILED,)), legend(_ERROR, shared.FAULT)),
                width=8,
                stacked=True,
                links=(shared.traces_with_error(),),
            ),
            over_time(
                "Time-outs by kind",
                "Calls that timed out in each step, by kind: connect (network), read or stalled stream (provider), "
                "pool (no free connection: ours), write and total.",
                "short",
                ask(per_interval(_CALLS, _ERROR, where=(among(_ERROR, *_TIMEOUTS),)), legend(_ERROR)),
                width=8,
                bars=True,
                links=(shared.traces_with_error(), links.to(links.POOLS, "Wait for a connection")),
            ),
            over_time(
                "Tries on the wire that failed",
                "HTTP requests that failed, by error; a retry may have saved the call. Many here and few failed "
                "calls: retries do their work, at the price of time.",
                "reqps",
                ask(
                    rate(wire, _ERROR, names.SERVER_ADDRESS, where=(FAILED,), part="count"),
                    legend(_ERROR, names.SERVER_ADDRESS),
                ),
                width=8,
                stacked=True,
                links=(links.to(links.RESILIENCE, "Retries by reason"),),
            ),
        ),
    )


def _speed() -> Row:
    return Row(
        "Latency",
        (
            over_time(
                "Duration",
                "Duration of inference calls, retries of the SDK included: p50, p95, p99. Each dot is a call: click "
                "it to see its trace.",
                "s",
                *(ask(quantile(part, _DURATION), f"p{part * 100:.0f}", exemplars=True) for part in (0.5, 0.95, 0.99)),
                steps=bad_above(shared.LIMIT_SECONDS / 2, shared.LIMIT_SECONDS),
                width=8,
                links=(links.to(links.TIME),),
            ),
            over_time(
                "p95 by provider and model",
                "95 of 100 calls to this model are faster than this. Click a line for its traces.",
                "s",
                ask(quantile(0.95, _DURATION, *_BOTH), legend(*_BOTH), exemplars=True),
                steps=bad_above(shared.LIMIT_SECONDS / 2, shared.LIMIT_SECONDS),
                width=8,
                links=(shared.traces_of_model(),),
            ),
            over_time(
                "Time to first chunk",
                "How long a user waits before a streamed answer begins: p50 and p95.",
                "s",
                *(
                    ask(quantile(part, _FIRST_CHUNK, _MODEL), f"{legend(_MODEL)} p{part * 100:.0f}", exemplars=True)
                    for part in (0.5, 0.95)
                ),
                steps=bad_above(1, 3),
                width=8,
                links=(shared.traces_of_model(),),
            ),
            over_time(
                "Other operations (embeddings) p95",
                "95 of 100 operations that are not inference - embeddings, for one - are faster than this.",
                "s",
                ask(
                    quantile(0.95, names.METRIC_GEN_AI_CLIENT_OPERATION_DURATION, names.GEN_AI_OPERATION_NAME, _MODEL),
                    legend(names.GEN_AI_OPERATION_NAME, _MODEL),
                    exemplars=True,
                ),
                steps=bad_above(2, 5),
                width=8,
                links=(shared.traces_of_model(),),
            ),
            over_time(
                "How streams ended",
                "Streams per step, by their end. drained: read to the end. closed: the app stopped early, no error. "
                "failed: broken off. cancelled: the task was cancelled. abandoned: nobody read on.",
                "short",
                ask(
                    per_interval(_ENDED, names.AGENT_RUNTIME_STREAM_OUTCOME), legend(names.AGENT_RUNTIME_STREAM_OUTCOME)
                ),
                width=8,
                bars=True,
                stacked=True,
                colours={
                    "drained": "green",
                    "closed": "blue",
                    "failed": "red",
                    "cancelled": "purple",
                    "abandoned": "orange",
                },
            ),
            listing(
                "Providers and models",
                "Each model in the time shown: calls, share that succeeded, p95, time to first chunk, output tokens.",
                rows(increase(_CALLS, *_BOTH)),
                rows(shared.success_share(*_BOTH, counted=increase)),
                rows(quantile(0.95, _DURATION, *_BOTH, over="$__range")),
                rows(quantile(0.95, _FIRST_CHUNK, *_BOTH, over="$__range")),
                rows(increase(names.METRIC_GEN_AI_CLIENT_INFERENCE_USAGE_OUTPUT_TOKENS, *_BOTH)),
                columns={
                    label(_PROVIDER): Column("Provider"),
                    label(_MODEL): Column("Model"),
                    "Value #A": Column("Calls", "short"),
                    "Value #B": Column("Success", "percentunit", bad_below(0.95, shared.LIMIT_SUCCESS)),
                    "Value #C": Column("p95", "s", bad_above(shared.LIMIT_SECONDS / 2, shared.LIMIT_SECONDS)),
                    "Value #D": Column("First chunk p95", "s", bad_above(1, 3)),
                    "Value #E": Column("Tokens out", "short"),
                },
                hidden=("Time",),
                width=8,
            ),
        ),
    )


def _tokens() -> Row:
    usage = {
        "input": names.METRIC_GEN_AI_CLIENT_INFERENCE_USAGE_INPUT_TOKENS,
        "output": names.METRIC_GEN_AI_CLIENT_INFERENCE_USAGE_OUTPUT_TOKENS,
        "cache read (part of input)": names.METRIC_GEN_AI_CLIENT_INFERENCE_USAGE_CACHE_READ_INPUT_TOKENS,
        "cache write (part of input)": names.METRIC_GEN_AI_CLIENT_INFERENCE_USAGE_CACHE_WRITE_INPUT_TOKENS,
        "reasoning (part of output)": names.METRIC_GEN_AI_CLIENT_INFERENCE_USAGE_REASONING_OUTPUT_TOKENS,
    }
    size = {
        "input": names.METRIC_GEN_AI_CLIENT_INFERENCE_OPERATION_INPUT_TOKENS,
        "output": names.METRIC_GEN_AI_CLIENT_INFERENCE_OPERATION_OUTPUT_TOKENS,
    }
    return Row(
        "Tokens",
        (
            over_time(
                "Tokens by kind",
                "Tokens per second as the provider counts them. Cache and reasoning tokens are parts of input and "
                "output, not more of them. The share read from the cache is money saved.",
                "short",
                *(ask(rate(metric), name) for name, metric in usage.items()),
                width=8,
            ),
            over_time(
                "Tokens of one call",
                "p50 and p95 of the tokens of a call. Input that creeps up: the context grows, and with it time and "
                "cost.",
                "short",
                *(
                    ask(quantile(part, metric), f"{name} p{part * 100:.0f}")
                    for name, metric in size.items()
                    for part in (0.5, 0.95)
                ),
                width=8,
            ),
            over_time(
                "Share of calls with unknown usage",
                "Successful calls whose answer carried no token counts / successful calls. What is not counted is "
                "missing in the token panels. For streams set WATCHKEEP_ASK_USAGE.",
                "percentunit",
                ask(share(rate(_UNKNOWN, _MODEL), rate(_CALLS, _MODEL, where=(SUCCEEDED,))), legend(_MODEL)),
                steps=bad_above(0.05, 0.5),
                width=8,
            ),
        ),
    )


def _limits() -> Row:
    resource = names.RESILIENCE_RATE_LIMIT_RESOURCE
    remaining, limit = names.METRIC_RESILIENCE_RATE_LIMIT_REMAINING, names.METRIC_RESILIENCE_RATE_LIMIT_LIMIT
    by = (_PROVIDER, _MODEL, resource)
    return Row(
        "What the provider still allows",
        (
            bar(
                "Rate limit left",
                "Remaining / limit of the provider's window, as its last answer said. 0: the next call gets a 429.",
                "percentunit",
                now(
                    f"{level(remaining, *by, operator='min')} / ({level(limit, *by, operator='min')} > 0)", legend(*by)
                ),
                steps=bad_below(0.25, 0.1),
                most=1,
            ),
            over_time(
                "Left in the window",
                "Requests or tokens that the provider still allows in its window, per model.",
                "short",
                ask(level(remaining, *by, operator="min"), legend(*by)),
                width=8,
            ),
            over_time(
                "Until the window starts anew",
                "Seconds until the provider's window is reset, as its last answer said.",
                "s",
                ask(level(names.METRIC_RESILIENCE_RATE_LIMIT_RESET, *by, operator="max"), legend(*by)),
                steps=bad_above(30, 120),
                width=8,
            ),
        ),
    )


def _agents() -> Row:
    agent, tool, workflow = names.GEN_AI_AGENT_NAME, names.GEN_AI_TOOL_NAME, names.GEN_AI_WORKFLOW_NAME
    step = names.AGENT_RUNTIME_STEP_NAME
    runs, used = names.METRIC_GEN_AI_INVOKE_AGENT_DURATION, names.METRIC_GEN_AI_EXECUTE_TOOL_DURATION
    flows = names.METRIC_GEN_AI_INVOKE_WORKFLOW_DURATION
    return Row(
        "Agents, tools and workflows",
        (
            over_time(
                "Agent runs p95",
                "95 of 100 runs of this agent are faster than this, its calls and tools inside.",
                "s",
                ask(quantile(0.95, runs, agent), legend(agent), exemplars=True),
                steps=bad_above(60, 300),
                width=8,
            ),
            over_time(
                "Agent runs by outcome",
                "Runs of agents that ended in each step; with an error type: they failed.",
                "short",
                ask(per_interval(runs, agent, where=(SUCCEEDED,), part="count"), f"{legend(agent)} ok"),
                ask(per_interval(runs, agent, _ERROR, where=(FAILED,), part="count"), legend(agent, _ERROR)),
                width=8,
                bars=True,
                stacked=True,
            ),
            over_time(
                "At work now",
                "Agents and workflows under way. A number that never falls: something hangs.",
                "short",
                ask(level(names.METRIC_AGENT_RUNTIME_AGENT_ACTIVE, agent), f"agent {legend(agent)}"),
                ask(level(names.METRIC_AGENT_RUNTIME_WORKFLOW_ACTIVE, workflow), f"workflow {legend(workflow)}"),
                width=8,
            ),
            over_time(
                "LLM and tool calls of one agent run",
                "Mean number of LLM calls and of tool calls in one run of an agent. Many: it goes round in circles, "
                "and each round costs.",
                "none",
                ask(mean(names.METRIC_GEN_AI_INVOKE_AGENT_INFERENCE_CALLS, agent), f"{legend(agent)} LLM calls"),
                ask(mean(names.METRIC_GEN_AI_INVOKE_AGENT_TOOL_CALLS, agent), f"{legend(agent)} tool calls"),
                steps=bad_above(10, 25),
                width=8,
            ),
            over_time(
                "Tools p95",
                "95 of 100 executions of this tool are faster than this.",
                "s",
                ask(quantile(0.95, used, tool), legend(tool), exemplars=True),
                steps=bad_above(5, 30),
                width=8,
            ),
            over_time(
                "Workflows and steps p95",
                "95 of 100 workflows, and steps of workflows, are faster than this.",
                "s",
                ask(quantile(0.95, flows, workflow), f"workflow {legend(workflow)}", exemplars=True),
                ask(
                    quantile(0.95, names.METRIC_AGENT_RUNTIME_STEP_DURATION, step),
                    f"step {legend(step)}",
                    exemplars=True,
                ),
                steps=bad_above(120, 600),
                width=8,
            ),
            over_time(
                "Workflows: started, and ended well",
                "Workflows in each step. Started and never ended: look at the newest traces.",
                "short",
                ask(per_interval(names.METRIC_AGENT_RUNTIME_WORKFLOW_STARTED, workflow), f"{legend(workflow)} started"),
                ask(per_interval(flows, workflow, where=(SUCCEEDED,), part="count"), f"{legend(workflow)} ended well"),
                width=24,
                bars=True,
            ),
        ),
    )


BOARD = Board(
    links.LLM,
    "Are the LLM calls healthy: how many, how well, how fast, what they use, by provider and model.",
    (_health(), _errors(), _speed(), _tokens(), _limits(), _agents()),
)

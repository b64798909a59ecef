"""Pools and resources: connections, their health, and what the process itself uses."""

from __future__ import annotations

from dashboards import links
from dashboards.frame import ENVIRONMENT, INSTANCES, SERVICE, Board, Row
from dashboards.panels import ask, bad_above, bad_below, now, number, over_time
from dashboards.promql import (
    equal,
    increase,
    legend,
    level,
    per_interval,
    quantile,
    rate,
    share,
)
from watchkeep import names

_POOL, _STATE, _HEALTH = (
    names.RESILIENCE_POOL_NAME,
    names.RESILIENCE_POOL_CONNECTION_STATE,
    names.RESILIENCE_POOL_CONNECTION_HEALTH,
)
_OUTCOME, _REUSED = names.RESILIENCE_POOL_REQUEST_OUTCOME, names.RESILIENCE_POOL_CONNECTION_REUSED
_COUNT, _LIMIT = names.METRIC_RESILIENCE_POOL_CONNECTION_COUNT, names.METRIC_RESILIENCE_POOL_CONNECTION_LIMIT
_PENDING = names.METRIC_RESILIENCE_POOL_CONNECTION_PENDING_REQUESTS
_TIMEOUTS = names.METRIC_RESILIENCE_POOL_CONNECTION_TIMEOUTS
_REQUESTS, _WAIT = names.METRIC_RESILIENCE_POOL_REQUESTS, names.METRIC_RESILIENCE_POOL_CONNECTION_WAIT_TIME
_INSTANCE = names.SERVICE_INSTANCE_ID


def _connections() -> Row:
    return Row(
        "Connection pools",
        (
            number(
                "Requests waiting",
                "Requests that wait for a free connection now. Above 0 for long: the pool is exhausted.",
                "short",
                now(level(_PENDING), "waiting"),
                steps=bad_above(1, 5),
                width=5,
                nothing="no pool",
            ),
            number(
                "Gave up waiting",
                "Requests that timed out waiting for a connection, in the time shown. They failed and it is our "
                "fault, not the provider's.",
                "short",
                now(increase(_TIMEOUTS), "timed out"),
                steps=bad_above(None, 1),
                width=5,
                nothing="no pool",
            ),
            number(
                "Reuse",
                "Share of requests that found an open connection, in the time shown. Low: every request pays for "
                "DNS, TCP and TLS. Share one client, keep it open.",
                "percentunit",
                now(
                    share(
                        increase(_WAIT, where=(equal(_REUSED, "true"),), part="count"), increase(_WAIT, part="count")
                    ),
                    "reused",
                ),
                steps=bad_below(0.8, 0.5),
                width=5,
                nothing="no requests",
            ),
            number(
                "Success of requests",
                "Share of requests through pools that got an answer, in the time shown.",
                "percentunit",
                now(share(increase(_REQUESTS, where=(equal(_OUTCOME, "success"),)), increase(_REQUESTS)), "success"),
                steps=bad_below(0.95, 0.8),
                width=4,
                nothing="no requests",
            ),
            number(
                "Unhealthy connections",
                "Connections that failed their last request. When all of a pool are unhealthy the critical alert "
                "fires.",
                "short",
                now(level(_COUNT, where=(equal(_HEALTH, "unhealthy"),)), "unhealthy"),
                steps=bad_above(1),
                width=5,
                nothing="none",
            ),
            over_time(
                "Connections against the limit",
                "Connections in use and idle, stacked, and the line of the limit. In use at the limit with requests "
                "waiting: exhausted.",
                "short",
                ask(level(_COUNT, _POOL, _STATE), legend(_POOL, _STATE)),
                ask(level(_LIMIT, _POOL, operator="min"), f"{legend(_POOL)} limit"),
                ask(
                    level(names.METRIC_RESILIENCE_POOL_CONNECTION_IDLE_MAX, _POOL, operator="min"),
                    f"{legend(_POOL)} idle kept",
                ),
                width=8,
            ),
            over_time(
                "Waiting for a connection",
                "Requests that wait for a connection of the pool.",
                "short",
                ask(level(_PENDING, _POOL), legend(_POOL)),
                steps=bad_above(1, 5),
                width=8,
            ),
            over_time(
                "Gave up waiting, by pool",
                "Requests in each step that timed out waiting for a connection.",
                "short",
                ask(per_interval(_TIMEOUTS, _POOL), legend(_POOL)),
                steps=bad_above(None, 1),
                bars=True,
                width=8,
                links=(links.to(links.LLM, "Time-outs by kind"),),
            ),
            over_time(
                "Wait for a connection",
                "How long requests wait for a connection, a new one's DNS, TCP and TLS included: p50 and p95. Each "
                "dot is a trace.",
                "s",
                *(
                    ask(quantile(part, _WAIT, _POOL), f"{legend(_POOL)} p{part * 100:.0f}", exemplars=True)
                    for part in (0.5, 0.95)
                ),
                steps=bad_above(0.1, 1),
                width=8,
            ),
            over_time(
                "Opening a connection (p95)",
                "95 of 100 new connections are open faster than this: DNS, TCP and TLS.",
                "s",
                ask(
                    quantile(0.95, names.METRIC_RESILIENCE_POOL_CONNECTION_CREATE_TIME, _POOL),
                    legend(_POOL),
                    exemplars=True,
                ),
                steps=bad_above(0.5, 2),
                width=8,
            ),
            over_time(
                "Holding a connection (p95)",
                "95 of 100 requests hold their connection shorter than this. Long streams hold one all the time: "
                "the limit must be above the number of streams at once.",
                "s",
                ask(
                    quantile(0.95, names.METRIC_RESILIENCE_POOL_CONNECTION_USE_TIME, _POOL),
                    legend(_POOL),
                    exemplars=True,
                ),
                steps=bad_above(30, 120),
                width=8,
            ),
            over_time(
                "Reuse rate",
                "Share of requests that found an open connection.",
                "percentunit",
                ask(
                    share(
                        rate(_WAIT, _POOL, where=(equal(_REUSED, "true"),), part="count"),
                        rate(_WAIT, _POOL, part="count"),
                    ),
                    legend(_POOL),
                ),
                steps=bad_below(0.8, 0.5),
                most=1,
                width=8,
            ),
            over_time(
                "Requests by outcome",
                "Requests through the pool per second: success, failure, timeout (no free connection), cancelled.",
                "reqps",
                ask(rate(_REQUESTS, _POOL, _OUTCOME), legend(_POOL, _OUTCOME)),
                stacked=True,
                width=8,
            ),
            over_time(
                "Healthy and unhealthy",
                "Open connections by health: unhealthy ones failed their last request.",
                "short",
                ask(level(_COUNT, _POOL, _HEALTH), legend(_POOL, _HEALTH)),
                stacked=True,
                width=8,
            ),
            over_time(
                "Age of the oldest connection",
                "Seconds since the oldest open connection was opened. Old ones may point at servers that DNS no "
                "longer names.",
                "s",
                ask(level(names.METRIC_RESILIENCE_POOL_CONNECTION_OLDEST_AGE, _POOL, operator="max"), legend(_POOL)),
                steps=bad_above(3600),
                width=8,
            ),
            over_time(
                "Connections closed, by reason",
                "Connections that the pool closed in each step, by reason. Many: they are opened anew each time.",
                "short",
                ask(
                    per_interval(
                        names.METRIC_RESILIENCE_POOL_CONNECTION_EVICTIONS, _POOL, names.RESILIENCE_POOL_EVICTION_REASON
                    ),
                    legend(_POOL, names.RESILIENCE_POOL_EVICTION_REASON),
                ),
                bars=True,
                stacked=True,
                width=8,
            ),
            over_time(
                "Requests from another event loop",
                "Requests made from an event loop other than the one that opened the pool's connections, in each "
                "step: a shared async client used by several asyncio.run() calls. They fail or hang at random.",
                "short",
                ask(per_interval(names.METRIC_RESILIENCE_POOL_LOOP_MISMATCHES, _POOL), legend(_POOL)),
                steps=bad_above(None, 1),
                bars=True,
                width=8,
            ),
        ),
    )


def _process() -> Row:
    mode, service = names.CPU_MODE, names.SERVICE_NAME
    instance = "{{instance}}"
    each = f"{legend(service)} {instance}"

    def by_instance(metric: names.Metric) -> str:
        return level(metric, service, "instance", operator="max")

    return Row(
        "Process",
        (
            over_time(
                "CPU used",
                "Share of the machine's CPUs used, by instance. Near 1 / CPUs for one Python process: it is busy "
                "with itself, and its event loop makes LLM calls look slow.",
                "percentunit",
                ask(level(names.METRIC_PROCESS_CPU_UTILIZATION, service, "instance"), each),
                steps=bad_above(0.7, 0.9),
                width=8,
            ),
            over_time(
                "CPU seconds per second",
                "CPU time by mode. 1 is one core at work.",
                "none",
                ask(rate(names.METRIC_PROCESS_CPU_TIME, service, mode), legend(service, mode)),
                stacked=True,
                width=8,
            ),
            over_time(
                "Memory",
                "Resident memory by instance.",
                "bytes",
                ask(by_instance(names.METRIC_PROCESS_MEMORY_USAGE), each),
                width=8,
            ),
            over_time(
                "Virtual memory",
                "Virtual memory by instance; it may be far above the resident one.",
                "bytes",
                ask(by_instance(names.METRIC_PROCESS_MEMORY_VIRTUAL), each),
                width=8,
            ),
            over_time(
                "Threads",
                "Threads by instance. A line that only rises: threads leak.",
                "short",
                ask(by_instance(names.METRIC_PROCESS_THREAD_COUNT), each),
                width=8,
            ),
            over_time(
                "File descriptors",
                "Open file descriptors by instance. A line that only rises: sockets or files leak.",
                "short",
                ask(by_instance(names.METRIC_PROCESS_UNIX_FILE_DESCRIPTOR_COUNT), each),
                steps=bad_above(800, 1000),
                width=8,
            ),
            over_time(
                "Garbage collections",
                "Collections per second by generation. Many of generation 2: much short-lived garbage, and pauses.",
                "none",
                ask(
                    rate(names.METRIC_CPYTHON_GC_COLLECTIONS, service, names.CPYTHON_GC_GENERATION),
                    legend(service, names.CPYTHON_GC_GENERATION),
                ),
                width=8,
            ),
            over_time(
                "Objects collected",
                "Objects that the garbage collector freed per second, and those that it could not free.",
                "none",
                ask(rate(names.METRIC_CPYTHON_GC_COLLECTED_OBJECTS, service), f"{legend(service)} collected"),
                ask(rate(names.METRIC_CPYTHON_GC_UNCOLLECTABLE_OBJECTS, service), f"{legend(service)} uncollectable"),
                width=8,
            ),
            over_time(
                "Context switches and page faults",
                "Per second. Involuntary switches: the machine is short of CPU. Major faults: it is short of memory.",
                "none",
                ask(
                    rate(names.METRIC_PROCESS_CONTEXT_SWITCHES, service, names.PROCESS_CONTEXT_SWITCH_TYPE),
                    f"{legend(service, names.PROCESS_CONTEXT_SWITCH_TYPE)} switches",
                ),
                ask(
                    rate(names.METRIC_PROCESS_PAGING_FAULTS, service, names.SYSTEM_PAGING_FAULT_TYPE),
                    f"{legend(service, names.SYSTEM_PAGING_FAULT_TYPE)} faults",
                ),
                width=8,
            ),
        ),
    )


BOARD = Board(
    links.POOLS,
    "Are connections short, old or unhealthy, and is the process itself short of CPU, memory or threads.",
    (_connections(), _process()),
    (ENVIRONMENT, SERVICE, INSTANCES),
)

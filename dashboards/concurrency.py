"""Concurrency and limits: who waits for a thread or a permit, who is refused, and how near the limits are."""

from __future__ import annotations

from dashboards import links
from dashboards.frame import ENVIRONMENT, INSTANCES, SERVICE, Board, Row
from dashboards.panels import ask, bad_above, now, number, over_time
from dashboards.promql import equal, increase, legend, level, per_interval, quantile, rate, share, unequal
from watchkeep import names

_EXECUTOR, _STATE = names.PYTHON_EXECUTOR_NAME, names.PYTHON_EXECUTOR_THREAD_STATE
_THREADS, _THREAD_LIMIT = names.METRIC_PYTHON_EXECUTOR_THREAD_COUNT, names.METRIC_PYTHON_EXECUTOR_THREAD_LIMIT
_QUEUE, _IN_QUEUE = names.METRIC_PYTHON_EXECUTOR_QUEUE_SIZE, names.METRIC_PYTHON_EXECUTOR_TASK_TIME_IN_QUEUE
_COMPLETED, _TOOK = names.METRIC_PYTHON_EXECUTOR_TASK_COMPLETED, names.METRIC_PYTHON_EXECUTOR_TASK_DURATION
_REFUSED, _ACTIVE = names.METRIC_PYTHON_EXECUTOR_TASK_REJECTED, equal(_STATE, "active")
_LIMITER, _RESULT = names.RESILIENCE_LIMITER_NAME, names.RESILIENCE_LIMITER_RESULT
_LEASES, _LIMIT = names.METRIC_RESILIENCE_LIMITER_ACTIVE_REQUEST_LEASES, names.METRIC_RESILIENCE_LIMITER_LIMIT
_REQUESTS, _WAITING = names.METRIC_RESILIENCE_LIMITER_REQUESTS, names.METRIC_RESILIENCE_LIMITER_QUEUED_REQUESTS
_WAIT = names.METRIC_RESILIENCE_LIMITER_REQUEST_TIME_IN_QUEUE
_CONCURRENCY = equal(names.RESILIENCE_LIMITER_TYPE, "concurrency")
_HALVES = (0.5, 0.95)


def _executors() -> Row:
    return Row(
        "Thread pools",
        (
            number(
                "Tasks waiting",
                "Tasks that wait for a thread now. Above 0 for long: the pool is too small for what it is given.",
                "short",
                now(level(_QUEUE), "waiting"),
                steps=bad_above(1, 10),
                width=6,
                nothing="no pool",
            ),
            number(
                "Threads at work",
                "Share of the threads that pools may start which are at work now. At 1 the next task waits.",
                "percentunit",
                now(share(level(_THREADS, where=(_ACTIVE,)), level(_THREAD_LIMIT)), "at work"),
                steps=bad_above(0.8, 1),
                width=6,
                nothing="no pool",
            ),
            number(
                "Tasks refused",
                "Tasks in the time shown that a pool did not take: it was shut down, or a thread could not start.",
                "short",
                now(increase(_REFUSED), "refused"),
                steps=bad_above(None, 1),
                width=6,
                nothing="no pool",
            ),
            number(
                "Tasks that failed",
                "Share of the tasks in the time shown that ended with an exception.",
                "percentunit",
                now(
                    share(
                        increase(_TOOK, where=(unequal(names.ERROR_TYPE, ""),), part="count"),
                        increase(_TOOK, part="count"),
                    ),
                    "failed",
                ),
                steps=bad_above(0.05, 0.2),
                width=6,
                nothing="no tasks",
            ),
            over_time(
                "Wait for a thread",
                "How long tasks wait for a thread: p50 and p95. It is time before the LLM call, which no provider "
                "can be blamed for. Each dot is a trace.",
                "s",
                *(
                    ask(quantile(part, _IN_QUEUE, _EXECUTOR), f"{legend(_EXECUTOR)} p{part * 100:.0f}", exemplars=True)
                    for part in _HALVES
                ),
                steps=bad_above(0.1, 1),
                width=8,
                links=(links.to(links.TIME),),
            ),
            over_time(
                "Threads against the limit",
                "Threads at work and idle, and the line of the limit. At work at the limit with tasks waiting: the "
                "pool is saturated.",
                "short",
                ask(level(_THREADS, _EXECUTOR, _STATE), legend(_EXECUTOR, _STATE)),
                ask(level(_THREAD_LIMIT, _EXECUTOR), f"{legend(_EXECUTOR)} limit"),
                width=8,
            ),
            over_time(
                "Tasks waiting, by pool",
                "Tasks that wait for a thread of the pool.",
                "short",
                ask(level(_QUEUE, _EXECUTOR), legend(_EXECUTOR)),
                steps=bad_above(1, 10),
                width=8,
            ),
            over_time(
                "Tasks completed",
                "Tasks per second that ran to their end, failed ones too.",
                "ops",
                ask(rate(_COMPLETED, _EXECUTOR), legend(_EXECUTOR)),
                stacked=True,
                width=8,
            ),
            over_time(
                "Duration of a task",
                "How long tasks run in their thread, without the wait: p50 and p95. Each dot is a trace.",
                "s",
                *(
                    ask(quantile(part, _TOOK, _EXECUTOR), f"{legend(_EXECUTOR)} p{part * 100:.0f}", exemplars=True)
                    for part in _HALVES
                ),
                width=8,
            ),
            over_time(
                "Tasks refused, by pool",
                "Tasks in each step that the pool did not take.",
                "short",
                ask(per_interval(_REFUSED, _EXECUTOR), legend(_EXECUTOR)),
                steps=bad_above(None, 1),
                bars=True,
                width=8,
            ),
        ),
    )


def _limiters() -> Row:
    return Row(
        "Semaphores and rate limiters",
        (
            number(
                "Requests waiting for a permit",
                "Requests that wait for a semaphore or a rate limiter of the app now.",
                "short",
                now(level(_WAITING), "waiting"),
                steps=bad_above(1, 10),
                width=6,
                nothing="no limiter",
            ),
            number(
                "Permits held",
                "Share of the permits of semaphores and thread limiters held now. At 1 the next request waits.",
                "percentunit",
                now(share(level(_LEASES), level(_LIMIT, where=(_CONCURRENCY,))), "held"),
                steps=bad_above(0.8, 1),
                width=6,
                nothing="no limiter",
            ),
            number(
                "Had to wait",
                "Share of the requests in the time shown that found no permit and had to wait for one.",
                "percentunit",
                now(share(increase(_WAIT, part="count"), increase(_REQUESTS)), "had to wait"),
                steps=bad_above(0.2, 0.5),
                width=6,
                nothing="no requests",
            ),
            number(
                "Gave up waiting for a permit",
                "Requests that were cancelled while they waited, in the time shown: mostly by a time-out around them.",
                "short",
                now(increase(_REQUESTS, where=(unequal(_RESULT, "acquired"),)), "gave up"),
                steps=bad_above(None, 1),
                width=6,
                nothing="no limiter",
            ),
            over_time(
                "Wait for a permit",
                "How long those wait that have to: p50 and p95. Each dot is a trace.",
                "s",
                *(
                    ask(quantile(part, _WAIT, _LIMITER), f"{legend(_LIMITER)} p{part * 100:.0f}", exemplars=True)
                    for part in _HALVES
                ),
                steps=bad_above(0.5, 5),
                width=8,
                links=(links.to(links.TIME),),
            ),
            over_time(
                "Permits against the limit",
                "Permits held, and the line of the limit. At the limit for long: this sets the app's pace.",
                "short",
                ask(level(_LEASES, _LIMITER), legend(_LIMITER)),
                ask(level(_LIMIT, _LIMITER, where=(_CONCURRENCY,)), f"{legend(_LIMITER)} limit"),
                width=8,
            ),
            over_time(
                "Waiting for a permit, by limiter",
                "Requests that wait for a permit of the limiter.",
                "short",
                ask(level(_WAITING, _LIMITER), legend(_LIMITER)),
                steps=bad_above(1, 10),
                width=8,
            ),
            over_time(
                "Requests to limiters",
                "Requests per second, by result: acquired, or cancelled while it waited.",
                "reqps",
                ask(rate(_REQUESTS, _LIMITER, _RESULT), legend(_LIMITER, _RESULT)),
                stacked=True,
                width=24,
            ),
        ),
    )


BOARD = Board(
    links.CONCURRENCY,
    "Who waits for a thread or a permit, who is refused, and how near thread pools and limiters are to their limits.",
    (_executors(), _limiters()),
    (ENVIRONMENT, SERVICE, INSTANCES),
)

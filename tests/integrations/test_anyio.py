"""anyio's worker threads as an app uses them: how many work, how many may, and who waits for one."""

from __future__ import annotations

import asyncio
import threading

import anyio
import anyio.to_thread
import pytest

import watchkeep
from watchkeep import names

QUEUED = names.METRIC_RESILIENCE_LIMITER_QUEUED_REQUESTS.name
ACTIVE = names.METRIC_RESILIENCE_LIMITER_ACTIVE_REQUEST_LEASES.name
LIMIT = names.METRIC_RESILIENCE_LIMITER_LIMIT.name
REQUESTS = names.METRIC_RESILIENCE_LIMITER_REQUESTS.name
OF = {"resilience_limiter_name": "anyio.to_thread", "resilience_limiter_type": "concurrency"}


@pytest.fixture(autouse=True)
def watched():
    """Every test begins watched, and leaves nothing watched behind."""
    watchkeep.uninstrument()  # what another test may have left
    watchkeep.instrument()
    yield
    watchkeep.uninstrument()


def _in_threads(_server):
    async def main():
        own = anyio.CapacityLimiter(1)
        return await anyio.to_thread.run_sync(divmod, 7, 2), await anyio.to_thread.run_sync(abs, -1, limiter=own)

    return asyncio.run(main())


def _failing(_server):
    async def main():
        return await anyio.to_thread.run_sync(int, "x")

    return asyncio.run(main())


EXERCISES = (_in_threads, _failing)


def test_threads_that_work_and_calls_that_wait_are_shown(watchkeep_capture):
    """Two threads, three calls: two work, one waits; afterwards none."""

    async def main():
        anyio.to_thread.current_default_thread_limiter().total_tokens = 2
        go = threading.Event()
        tasks = [asyncio.create_task(anyio.to_thread.run_sync(go.wait, 5)) for _ in range(3)]
        await asyncio.sleep(0.05)
        busy = [watchkeep_capture.value(metric, **OF) for metric in (ACTIVE, QUEUED, LIMIT)]
        go.set()
        await asyncio.gather(*tasks)
        return busy, [watchkeep_capture.value(metric, **OF) for metric in (ACTIVE, QUEUED, LIMIT)]

    busy, free = asyncio.run(main())
    assert (busy, free) == ([2, 1, 2], [0, 0, 2])
    assert watchkeep_capture.points(REQUESTS, **OF) == []


def test_a_limiter_of_the_app_s_own_is_not_taken_for_it(watchkeep_capture):
    """What the app limits by a limiter of its own says nothing of the default one."""

    async def main():
        go, own = threading.Event(), anyio.CapacityLimiter(1)
        task = asyncio.create_task(anyio.to_thread.run_sync(go.wait, 5, limiter=own))
        await asyncio.sleep(0.02)
        busy = watchkeep_capture.value(ACTIVE, **OF)
        go.set()
        await task
        return busy

    assert asyncio.run(main()) == 0


def test_an_endless_limit_is_no_figure(watchkeep_capture):
    """`math.inf` may be given, and is shown by no line."""

    async def main():
        anyio.to_thread.current_default_thread_limiter().total_tokens = float("inf")
        await anyio.to_thread.run_sync(abs, 1)
        return watchkeep_capture.points(LIMIT, **OF)

    assert asyncio.run(main()) == []

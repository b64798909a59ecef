"""aiolimiter as an app uses it: what it lets through, and who had to wait for capacity."""

from __future__ import annotations

import asyncio
import sys

import aiolimiter
import pytest

import watchkeep
from watchkeep import limiters, names, tracing
from watchkeep.integrations.aiolimiter import SCOPE
from watchkeep.record import Record

REQUESTS = names.METRIC_RESILIENCE_LIMITER_REQUESTS.name
QUEUED = names.METRIC_RESILIENCE_LIMITER_QUEUED_REQUESTS.name
LIMIT = names.METRIC_RESILIENCE_LIMITER_LIMIT.name
WAIT = names.METRIC_RESILIENCE_LIMITER_REQUEST_TIME_IN_QUEUE.name


@pytest.fixture(autouse=True)
def watched():
    """Every test begins watched, and leaves nothing watched behind."""
    watchkeep.uninstrument()  # what another test may have left
    watchkeep.instrument()
    yield
    watchkeep.uninstrument()


def named():
    frame = sys._getframe(1)
    return f"{__name__}.{frame.f_code.co_qualname}:{frame.f_lineno}"


def _through(_server):
    async def main():
        limiter, order = aiolimiter.AsyncLimiter(2, 0.02), []

        async def work(number):
            async with limiter:
                order.append(number)

        await asyncio.gather(*(work(number) for number in range(4)))
        return order, limiter.max_rate, limiter.time_period

    return asyncio.run(main())


def _too_much(_server):
    return asyncio.run(aiolimiter.AsyncLimiter(2).acquire(3))


def _cancelled(_server):
    async def main():
        limiter = aiolimiter.AsyncLimiter(1, 10)
        await limiter.acquire()
        try:
            await asyncio.wait_for(limiter.acquire(), 0.01)
        except TimeoutError:
            return "gave up"
        return None

    return asyncio.run(main())


EXERCISES = (_through, _too_much, _cancelled)


def test_who_waits_for_capacity_is_measured(watchkeep_capture):
    """Two in a tenth of a second, four requests: two wait 0.05 and 0.1 s, inside the operation as spans of it."""

    async def main():
        name, limiter = named(), aiolimiter.AsyncLimiter(2, 0.1)
        record = Record(
            names.STEP, SCOPE, {names.AGENT_RUNTIME_STEP_NAME: "s", names.AGENT_RUNTIME_STEP_RESULT: "completed"}
        )
        record.open()
        tracing.attach(record)
        for _ in range(4):
            await limiter.acquire()
        tracing.detach(record)
        record.close()
        return {"resilience_limiter_name": name, "resilience_limiter_type": "rate"}, limiter

    of, limiter = asyncio.run(main())
    assert watchkeep_capture.value(REQUESTS, **of, resilience_limiter_result="acquired") == 4
    assert watchkeep_capture.value(LIMIT, **of) == limiter.max_rate == 2
    assert watchkeep_capture.value(QUEUED, **of) == 0
    (waited,) = watchkeep_capture.points(WAIT, **of)
    assert waited.count == 2
    assert waited.sum == pytest.approx(0.1, abs=0.05)
    (step,) = watchkeep_capture.spans("run_step")
    assert [span.parent_id for span in watchkeep_capture.spans("wait_for_permit")] == [step.span_id] * 2
    assert step.attributes[names.PHASE_KEYS["limiter"]] == pytest.approx(waited.sum)


def test_who_waits_is_shown_and_who_gives_up_is_counted(watchkeep_capture):
    """While one waits it stands in the queue; when it is cancelled it has left it, without a permit."""

    async def main():
        name, limiter = named(), aiolimiter.AsyncLimiter(1, 10)
        await limiter.acquire()
        task = asyncio.create_task(limiter.acquire())
        await asyncio.sleep(0.01)
        of = {"resilience_limiter_name": name}
        waiting = watchkeep_capture.value(QUEUED, **of)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return of, waiting, watchkeep_capture.value(QUEUED, **of)

    of, waiting, left = asyncio.run(main())
    assert (waiting, left) == (1, 0)
    assert watchkeep_capture.value(REQUESTS, **of, resilience_limiter_result="cancelled") == 1


def test_a_wrong_request_is_none(watchkeep_capture):
    """A request for more than there can ever be raises what it raises, and is not counted."""
    name, limiter = named(), aiolimiter.AsyncLimiter(2)
    with pytest.raises(ValueError, match="maximum capacity"):
        asyncio.run(limiter.acquire(3))
    assert watchkeep_capture.value(REQUESTS, resilience_limiter_name=name) == 0


def test_one_made_before_we_came_is_watched(watchkeep_capture):
    """It is known from its next request on, by its class."""
    watchkeep.uninstrument()
    limiter = aiolimiter.AsyncLimiter(5)
    watchkeep.instrument()
    before = watchkeep_capture.value(REQUESTS, resilience_limiter_name="AsyncLimiter")
    asyncio.run(limiter.acquire())
    assert id(limiter) in limiters.known
    assert watchkeep_capture.value(REQUESTS, resilience_limiter_name="AsyncLimiter") == before + 1

"""asyncio's semaphores as an app uses them: whose they are, how many permits are out, and who had to wait."""

from __future__ import annotations

import asyncio
import gc
import inspect
import os
import sys
import weakref
from contextlib import contextmanager

import openai
import pytest

import watchkeep
from watchkeep import guard, limiters, names, tracing
from watchkeep.integrations.asyncio import SCOPE
from watchkeep.record import Record

REQUESTS = names.METRIC_RESILIENCE_LIMITER_REQUESTS.name
QUEUED = names.METRIC_RESILIENCE_LIMITER_QUEUED_REQUESTS.name
ACTIVE = names.METRIC_RESILIENCE_LIMITER_ACTIVE_REQUEST_LEASES.name
LIMIT = names.METRIC_RESILIENCE_LIMITER_LIMIT.name
WAIT = names.METRIC_RESILIENCE_LIMITER_REQUEST_TIME_IN_QUEUE.name
PHASE_TIME = names.METRIC_RESILIENCE_CALL_TIME.name
WAIT_KEY = names.PHASE_KEYS["limiter"]


@pytest.fixture(autouse=True)
def watched():
    """Every test begins watched, and leaves nothing watched behind."""
    watchkeep.uninstrument()  # what another test may have left
    watchkeep.instrument()
    yield
    watchkeep.uninstrument()


@contextmanager
def enclosing():
    """An operation of ours around the block."""
    record = Record(
        names.STEP, SCOPE, {names.AGENT_RUNTIME_STEP_NAME: "s", names.AGENT_RUNTIME_STEP_RESULT: "completed"}
    )
    record.open()
    tracing.attach(record)
    try:
        yield record
    finally:
        tracing.detach(record)
        record.close()


def named(after=0):
    """The name of a semaphore made in the caller's line, `after` lines further on."""
    frame = sys._getframe(1)
    return f"{__name__}.{frame.f_code.co_qualname}:{frame.f_lineno + after}"


async def hold(semaphore, seconds=0.02):
    async with semaphore:
        await asyncio.sleep(seconds)


# -- what the contract test runs -----------------------------------------------------------------------------


def _in_turn(_server):
    async def main():
        order = []
        semaphore = asyncio.BoundedSemaphore(2)

        async def work(number):
            async with semaphore:
                order.append(number)
                await asyncio.sleep(0.001)

        await asyncio.gather(*(work(number) for number in range(6)))
        semaphore_is_free = semaphore.locked(), semaphore._value
        try:
            semaphore.release()
        except ValueError as error:
            return order, semaphore_is_free, str(error)
        return order

    return asyncio.run(main())


def _cancelled(_server):
    async def main():
        semaphore = asyncio.Semaphore()
        await semaphore.acquire()
        try:
            await asyncio.wait_for(semaphore.acquire(), 0.01)
        except TimeoutError:
            semaphore.release()
            return semaphore._value, await semaphore.acquire()
        return None

    return asyncio.run(main())


def _wrong(_server):
    return asyncio.Semaphore(-1)


EXERCISES = (_in_turn, _cancelled, _wrong)


# -- what is measured ----------------------------------------------------------------------------------------


def test_permits_and_waits_are_shown(watchkeep_capture):
    """Two permits, three requests: two held, one queued; afterwards none, with all three counted and one wait."""

    async def main():
        name, semaphore = named(), asyncio.Semaphore(2)
        tasks = [asyncio.create_task(hold(semaphore, 0.05)) for _ in range(3)]
        await asyncio.sleep(0.01)
        of = {"resilience_limiter_name": name, "resilience_limiter_type": "concurrency"}
        held = [watchkeep_capture.value(metric, **of) for metric in (ACTIVE, QUEUED, LIMIT)]
        await asyncio.gather(*tasks)
        return of, held, [watchkeep_capture.value(metric, **of) for metric in (ACTIVE, QUEUED, LIMIT)]

    of, held, free = asyncio.run(main())
    assert (held, free) == ([2, 1, 2], [0, 0, 2])
    assert watchkeep_capture.value(REQUESTS, **of, resilience_limiter_result="acquired") == 3
    assert watchkeep_capture.value(REQUESTS, **of, resilience_limiter_result="cancelled") == 0
    (wait,) = watchkeep_capture.points(WAIT, **of)
    assert wait.count == 1
    assert wait.sum == pytest.approx(0.05, abs=0.04)
    assert watchkeep_capture.spans() == []


def test_a_cancelled_wait_is_counted_as_such(watchkeep_capture):
    """A request that gave up is no permit, leaves the queue, and the permits are as they were."""

    async def main():
        name, semaphore = named(), asyncio.Semaphore(1)
        await semaphore.acquire()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(semaphore.acquire(), 0.02)
        return {"resilience_limiter_name": name}, watchkeep_capture.value(QUEUED, resilience_limiter_name=name)

    of, queued = asyncio.run(main())
    assert queued == 0
    assert watchkeep_capture.value(REQUESTS, **of, resilience_limiter_result="acquired") == 1
    assert watchkeep_capture.value(REQUESTS, **of, resilience_limiter_result="cancelled") == 1
    (wait,) = watchkeep_capture.points(WAIT, **of)
    assert wait.attributes[names.RESILIENCE_LIMITER_RESULT] == "cancelled"


def test_a_wait_inside_an_operation_is_a_span_and_stands_on_it(watchkeep_capture):
    """The operation says how long it waited, and the wait has its place in the trace; free permits are no spans."""

    async def main():
        name, semaphore = named(), asyncio.Semaphore(1)
        task = asyncio.create_task(hold(semaphore, 0.05))
        await asyncio.sleep(0)
        with enclosing() as around:
            await hold(semaphore, 0)
            await hold(semaphore, 0)
        await task
        return name, around

    name, around = asyncio.run(main())
    (wait,) = watchkeep_capture.spans("wait_for_permit")
    assert (wait.name, wait.parent_id) == (f"wait_for_permit {name}", around.span_id)
    assert wait.attributes[names.RESILIENCE_LIMITER_RESULT] == "acquired"
    (step,) = watchkeep_capture.spans("run_step")
    assert step.attributes[WAIT_KEY] == pytest.approx((wait.end_ns - wait.start_ns) / 1e9)
    assert watchkeep_capture.value(PHASE_TIME, resilience_call_phase="limiter") == pytest.approx(
        step.attributes[WAIT_KEY]
    )


def test_a_cancelled_wait_inside_an_operation_is_a_failed_span(watchkeep_capture):
    """It failed by cancellation, which is nobody's fault but ours."""

    async def main():
        semaphore = asyncio.Semaphore(1)
        await semaphore.acquire()
        with enclosing(), pytest.raises(TimeoutError):
            await asyncio.wait_for(semaphore.acquire(), 0.02)

    asyncio.run(main())
    (wait,) = watchkeep_capture.spans("wait_for_permit")
    assert wait.attributes[names.ERROR_TYPE] == "cancelled"
    assert wait.attributes[names.RESILIENCE_FAULT_ORIGIN] == "client"


def test_chats_behind_a_semaphore_wait_in_turn(watchkeep_capture, llm_server):
    """Ten chats, two at a time: eight waits are counted, and every permit is given back."""

    async def main():
        name, semaphore = named(), asyncio.Semaphore(2)
        async with openai.AsyncOpenAI(base_url=llm_server.base_url, api_key="sk") as client:

            async def ask():
                async with semaphore:
                    messages = [{"role": "user", "content": "hi"}]
                    return await client.chat.completions.create(model="gpt-4o", messages=messages)

            await asyncio.gather(*(ask() for _ in range(10)))
        return name, watchkeep_capture.value(ACTIVE, resilience_limiter_name=name)

    name, held = asyncio.run(main())
    assert held == 0
    assert watchkeep_capture.value(WAIT, resilience_limiter_name=name) == 8
    assert len(watchkeep_capture.spans("chat")) == 10


# -- whose it is ----------------------------------------------------------------------------------------------


def test_one_made_for_each_call_is_one_series(watchkeep_capture):
    """Named by the line that makes it; nothing of it stays when it is gone, and its counts do."""

    async def limited():
        await hold(asyncio.Semaphore(3), 0)

    async def main():
        for _ in range(500):
            await limited()

    before = len(limiters.known)
    asyncio.run(main())
    gc.collect()
    assert len(limiters.known) <= before
    line = inspect.getsourcelines(limited)[1] + 1
    here = f"{__name__}.test_one_made_for_each_call_is_one_series.<locals>.limited:{line}"
    assert watchkeep_capture.value(REQUESTS, resilience_limiter_name=here) == 500
    (limit,) = watchkeep_capture.points(LIMIT, resilience_limiter_name=here)
    assert limit.value == 3
    assert [point.value for point in watchkeep_capture.points(ACTIVE, resilience_limiter_name=here)] == [0]


def test_a_global_one_is_named_by_its_name(watchkeep_capture):
    """What a module calls it is what it is called."""
    module = sys.modules[__name__]
    module.LLM_SLOTS = asyncio.Semaphore(4)
    try:
        assert watchkeep_capture.value(LIMIT, resilience_limiter_name=f"{__name__}.LLM_SLOTS") == 4
    finally:
        del module.LLM_SLOTS


def test_those_of_libraries_and_signals_are_left_alone(watchkeep_capture, tmp_path, monkeypatch):
    """One that a library makes is its own business; one made with 0 limits nothing."""
    folder = tmp_path / "site-packages" / "wk_locks"
    folder.mkdir(parents=True)
    (folder / "__init__.py").write_text("import asyncio\ndef make(): return asyncio.Semaphore(1)\n")
    monkeypatch.syspath_prepend(str(folder.parent))
    import wk_locks

    before = set(limiters.known)
    kept = wk_locks.make(), asyncio.Semaphore(0)
    assert set(limiters.known) == before
    assert asyncio.run(kept[0].acquire())


def test_one_that_is_dropped_goes_at_once(watchkeep_capture):
    """We do not keep it."""
    semaphore = asyncio.Semaphore(1)
    gone, key = weakref.ref(semaphore), id(semaphore)
    assert key in limiters.known
    del semaphore
    assert gone() is None
    assert key not in limiters.known


def test_acquire_is_a_coroutine_function_as_ever():
    """Who asks what kind of function it is gets the same answer."""
    asyncio.Semaphore(1)
    assert inspect.iscoroutinefunction(asyncio.Semaphore.acquire)


def test_many_tasks_leave_every_gauge_at_zero(watchkeep_capture):
    """A thousand tasks, some cancelled at any moment: the permits are all back and nobody waits."""

    async def main():
        name, semaphore = named(), asyncio.Semaphore(7)
        tasks = [asyncio.create_task(hold(semaphore, 0.001)) for _ in range(1000)]
        await asyncio.sleep(0.005)
        for task in tasks[::3]:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        of = {"resilience_limiter_name": name}
        return of, [watchkeep_capture.value(metric, **of) for metric in (ACTIVE, QUEUED)]

    of, left = asyncio.run(main())
    assert left == [0, 0]
    assert watchkeep_capture.value(REQUESTS, **of, resilience_limiter_result="acquired") >= 666
    assert watchkeep_capture.value(REQUESTS, **of) <= 1000


def test_a_forked_child_counts_for_itself(watchkeep_capture):
    """What the parent's requests came to is the parent's."""
    semaphore = asyncio.Semaphore(1)
    asyncio.run(hold(semaphore, 0))
    assert limiters.known[id(semaphore)].acquired == 1
    child = os.fork()
    if not child:
        os._exit(limiters.known[id(semaphore)].acquired)
    assert os.waitpid(child, 0)[1] == 0


def test_a_fault_of_ours_withholds_no_permit(watchkeep_capture, monkeypatch):
    """A fault of ours while a permit is asked for: it is given as it is without us."""
    monkeypatch.setattr(guard, "raising", False)
    semaphore = asyncio.Semaphore(1)
    faults = guard.faults

    class Other:
        acquired = property()

    limiters.known[id(semaphore)] = Other()
    try:
        assert asyncio.run(semaphore.acquire())
    finally:
        del limiters.known[id(semaphore)]
    assert guard.faults == faults + 1

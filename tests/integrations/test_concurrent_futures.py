"""Thread pools as an app uses them: what a task waits for and belongs to, with real chats in threads."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import inspect
import logging
import os
import socket
import threading
import time
import weakref
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager

import openai
import pytest

import watchkeep
from watchkeep import context, executors, names, origin, tracing
from watchkeep.integrations.concurrent_futures import SCOPE
from watchkeep.record import Record

QUEUE = names.METRIC_PYTHON_EXECUTOR_TASK_TIME_IN_QUEUE.name
DURATION = names.METRIC_PYTHON_EXECUTOR_TASK_DURATION.name
COMPLETED = names.METRIC_PYTHON_EXECUTOR_TASK_COMPLETED.name
REJECTED = names.METRIC_PYTHON_EXECUTOR_TASK_REJECTED.name
THREADS = names.METRIC_PYTHON_EXECUTOR_THREAD_COUNT.name
LIMIT = names.METRIC_PYTHON_EXECUTOR_THREAD_LIMIT.name
WAITING = names.METRIC_PYTHON_EXECUTOR_QUEUE_SIZE.name
PHASE_TIME = names.METRIC_RESILIENCE_CALL_TIME.name
QUEUE_KEY = names.PHASE_KEYS["executor_queue"]
MESSAGES = [{"role": "user", "content": "hi"}]
OWN: contextvars.ContextVar[str] = contextvars.ContextVar("own", default="unset")


@pytest.fixture(autouse=True)
def watched():
    """Every test begins watched, and leaves nothing watched behind."""
    watchkeep.uninstrument()  # what another test may have left
    watchkeep.instrument()
    yield
    watchkeep.uninstrument()


def ask(server):
    with openai.OpenAI(base_url=server.base_url, api_key="sk", max_retries=0) as client:
        return client.chat.completions.create(model="gpt-4o", messages=MESSAGES).choices[0].message.content


@contextmanager
def enclosing(name="around"):
    """An operation of ours around the block."""
    record = Record(
        names.STEP, SCOPE, {names.AGENT_RUNTIME_STEP_NAME: name, names.AGENT_RUNTIME_STEP_RESULT: "completed"}
    )
    record.open()
    tracing.attach(record)
    try:
        yield record
    finally:
        tracing.detach(record)
        record.close()


def fail():
    raise LookupError("of the app's")


# -- what the contract test runs -----------------------------------------------------------------------------


def _plain(_server):
    with ThreadPoolExecutor(2, "plain") as pool:
        seen = pool.submit(lambda a, *, b: (a, b, OWN.get(), threading.current_thread().name), 1, b=2).result()
        return seen, list(pool.map(divmod, (7, 8), (3, 3)))


def _threads_of_a_loop(_server):
    async def main():
        OWN.set("set")
        loop = asyncio.get_running_loop()
        copied = contextvars.copy_context()
        return (
            await asyncio.to_thread(OWN.get),
            await loop.run_in_executor(None, OWN.get),
            await loop.run_in_executor(None, copied.run, OWN.get),
        )

    return asyncio.run(main())


def _chat_in_a_thread(server):
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(ask, server).result()


def _failing(_server):
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(fail)
        kind = type(future) is Future, type(future.exception()), future.exception().args
    try:
        pool.submit(fail)
    except RuntimeError as error:
        refused = str(error)
    try:
        pool.submit()
    except TypeError as error:
        return kind, refused, str(error).rpartition(".")[2]
    return kind


EXERCISES = (_plain, _threads_of_a_loop, _chat_in_a_thread, _failing)


# -- what is measured ----------------------------------------------------------------------------------------


def test_a_task_that_waits_for_a_thread_is_measured(watchkeep_capture):
    """Two threads, four tasks: two wait, and what they wait and take is in the histograms; nothing is left over."""
    with ThreadPoolExecutor(2, "crowded") as pool:
        wait([pool.submit(time.sleep, 0.05) for _ in range(4)])
        values = {"python_executor_name": "crowded", "python_executor_type": "ThreadPoolExecutor"}
        (queued,), (took,) = watchkeep_capture.points(QUEUE, **values), watchkeep_capture.points(DURATION, **values)
        assert (queued.count, took.count) == (4, 4)
        assert 0.1 <= queued.sum < 0.3
        assert 0.2 <= took.sum < 0.4
        assert watchkeep_capture.value(COMPLETED, **values) == 4
        assert watchkeep_capture.value(LIMIT, **values) == 2
    assert watchkeep_capture.value(THREADS, python_executor_name="crowded") == 0


def test_threads_and_the_queue_are_shown_while_they_are_busy(watchkeep_capture):
    """Three tasks on two threads: two are active, one is queued; afterwards both threads are idle."""
    name = {"python_executor_name": "busy"}
    go = threading.Event()
    with ThreadPoolExecutor(2, "busy") as pool:
        assert watchkeep_capture.value(COMPLETED, **name) == watchkeep_capture.value(REJECTED, **name) == 0
        futures = [pool.submit(go.wait, 5) for _ in range(3)]
        until(lambda: watchkeep_capture.value(THREADS, **name, python_executor_thread_state="active") == 2)
        assert watchkeep_capture.value(WAITING, **name) == 1
        assert watchkeep_capture.value(THREADS, **name, python_executor_thread_state="idle") == 0
        go.set()
        wait(futures)
        until(lambda: watchkeep_capture.value(THREADS, **name, python_executor_thread_state="idle") == 2)
        assert watchkeep_capture.value(WAITING, **name) == 0
    assert watchkeep_capture.value(WAITING, **name) == 0
    assert watchkeep_capture.value(THREADS, **name) == 0
    assert watchkeep_capture.value(LIMIT, **name) == 2


def until(what, seconds=5):
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.01)


def test_a_failed_task_is_completed_with_its_error(watchkeep_capture):
    """The class of the exception is on the duration, and the exception is the app's own object."""
    error = LookupError("mine")

    def fails():
        raise error

    with ThreadPoolExecutor(1, "failing") as pool:
        assert pool.submit(fails).exception() is error
    (point,) = watchkeep_capture.points(DURATION, python_executor_name="failing")
    assert point.attributes[names.ERROR_TYPE] == "LookupError"
    assert watchkeep_capture.value(COMPLETED, python_executor_name="failing") == 1


def test_a_refused_task_is_counted(watchkeep_capture):
    """After the shutdown, and when a thread's initializer failed, `submit` raises what it raises, and we count."""
    pool = ThreadPoolExecutor(1, "refusing")
    pool.shutdown()
    with pytest.raises(RuntimeError, match="after shutdown"):
        pool.submit(fail)
    with ThreadPoolExecutor(1, "broken", initializer=fail) as broken:
        with pytest.raises(RuntimeError):
            broken.submit(time.sleep, 0).result()
        with pytest.raises(RuntimeError):
            broken.submit(time.sleep, 0)
    assert watchkeep_capture.value(REJECTED, python_executor_name="refusing") == 1
    assert watchkeep_capture.value(REJECTED, python_executor_name="broken") == 1


def test_a_task_that_was_cancelled_in_the_queue_is_no_task(watchkeep_capture):
    """It never ran: it is not completed, and leaves the queue."""
    go = threading.Event()
    with ThreadPoolExecutor(1, "cancelling") as pool:
        first, second = pool.submit(go.wait, 5), pool.submit(fail)
        assert second.cancel()
        go.set()
        first.result()
    assert watchkeep_capture.value(COMPLETED, python_executor_name="cancelling") == 1
    assert watchkeep_capture.value(WAITING, python_executor_name="cancelling") == 0


# -- whose executor it is --------------------------------------------------------------------------------------


def test_an_executor_made_per_call_is_one_series(watchkeep_capture):
    """Without a name it is named by the line that makes it, however often; nothing of it stays when it is gone."""

    def in_a_pool(value):
        with ThreadPoolExecutor(2) as pool:
            return pool.submit(abs, value).result()

    in_a_pool(-1)
    before = len(executors._pools)
    for value in range(300):
        assert in_a_pool(-value) == value
    gc.collect()
    assert len(executors._pools) <= before
    (point,) = [each for each in watchkeep_capture.points(COMPLETED) if each.value]
    assert point.value == 301
    line = inspect.getsourcelines(in_a_pool)[1] + 1
    here = f"{__name__}.test_an_executor_made_per_call_is_one_series.<locals>.in_a_pool:{line}"
    assert point.attributes[names.PYTHON_EXECUTOR_NAME] == here
    assert watchkeep_capture.value(LIMIT, python_executor_name=here) == 2


def test_a_subclass_is_named_by_where_the_app_makes_it(watchkeep_capture):
    """Neither the constructor of the subclass nor anything of ours is where it is made; its class is its type."""

    class Own(ThreadPoolExecutor):
        def __init__(self):
            super().__init__(1)

    with Own() as pool:
        pool.submit(abs, 1).result()
    (point,) = [each for each in watchkeep_capture.points(COMPLETED) if each.value]
    assert point.attributes[names.PYTHON_EXECUTOR_TYPE] == "Own"
    assert ".test_a_subclass_is_named_by_where_the_app_makes_it:" in point.attributes[names.PYTHON_EXECUTOR_NAME]


def test_names_beyond_the_cap_are_others(watchkeep_capture):
    """A prefix that carries an id of the app's makes no endless series."""
    for number in range(150):
        with ThreadPoolExecutor(1, f"job-{number}") as pool:
            pool.submit(abs, 1).result()
    points = watchkeep_capture.points(LIMIT)
    assert len(points) <= 102
    assert len(executors._groups) <= 102
    assert watchkeep_capture.value(COMPLETED, python_executor_name=names.OTHER) >= 50


def test_an_executor_made_by_a_library_carries_its_name(watchkeep_capture, tmp_path, monkeypatch):
    """What a library in site-packages makes for itself is not called by a line of the app's."""
    folder = tmp_path / "site-packages" / "wk_library"
    folder.mkdir(parents=True)
    text = "from concurrent.futures import ThreadPoolExecutor\ndef make(): return ThreadPoolExecutor(1)\n"
    (folder / "__init__.py").write_text(text)
    monkeypatch.syspath_prepend(str(folder.parent))
    import wk_library

    with wk_library.make() as pool:
        pool.submit(abs, 1).result()
    assert watchkeep_capture.value(COMPLETED, python_executor_name="wk_library") == 1


def test_lookups_of_the_event_loop_are_not_the_app_s_tasks(watchkeep_capture):
    """The default executor is called asyncio; the loop's own name lookups take a thread, and are no tasks."""

    async def main():
        await asyncio.get_running_loop().getaddrinfo("127.0.0.1", 80, type=socket.SOCK_STREAM)
        assert watchkeep_capture.value(COMPLETED, python_executor_name="asyncio") == 0
        assert watchkeep_capture.value(THREADS, python_executor_name="asyncio") == 1
        await asyncio.to_thread(time.sleep, 0)

    asyncio.run(main())
    assert watchkeep_capture.value(COMPLETED, python_executor_name="asyncio") == 1
    assert watchkeep_capture.spans() == []


def test_an_executor_of_our_own_is_not_watched(watchkeep_capture):
    """What our own code makes is nobody's business."""
    made = {"__name__": "watchkeep.stack.native"}
    exec("from concurrent.futures import ThreadPoolExecutor\npool = ThreadPoolExecutor(1, 'ours')", made)
    with made["pool"] as pool:
        pool.submit(abs, 1).result()
    assert watchkeep_capture.points(COMPLETED, python_executor_name="ours") == []


def test_the_threads_of_opentelemetry_are_not_the_app_s(watchkeep_capture):
    """Its SDK makes a pool for itself, before the app has set its providers: no series, and nothing begins there."""
    from opentelemetry.sdk.resources import Resource

    before = len(watchkeep_capture.points(COMPLETED))
    Resource.create()
    assert len(watchkeep_capture.points(COMPLETED)) == before


def test_a_forked_child_has_no_tasks_of_its_parent(watchkeep_capture):
    """What runs in the parent's threads does not run in the child."""
    go = threading.Event()
    with ThreadPoolExecutor(1, "forked") as pool:
        future = pool.submit(go.wait, 5)
        until(lambda: watchkeep_capture.value(THREADS, python_executor_name="forked") == 1)
        child = os.fork()
        if not child:
            os._exit(any(found.running for found in executors._pools.values()))
        go.set()
        future.result()
    assert os.waitpid(child, 0)[1] == 0


def test_one_made_before_we_came_is_watched_by_its_prefix(watchkeep_capture):
    """An executor that is older than we are is known from its next task on."""
    watchkeep.uninstrument()
    with ThreadPoolExecutor(1, "older") as pool, ThreadPoolExecutor(1) as nameless:
        watchkeep.instrument()
        pool.submit(abs, 1).result()
        nameless.submit(abs, 1).result()
    assert watchkeep_capture.value(COMPLETED, python_executor_name="older") == 1
    assert watchkeep_capture.value(COMPLETED, python_executor_name="ThreadPoolExecutor") == 1


# -- what a task belongs to ------------------------------------------------------------------------------------


def test_a_chat_that_waits_for_a_thread_belongs_to_the_operation_around(watchkeep_capture, llm_server):
    """One trace, one correlation ID: the operation, the task that had to queue with its path, the chat in it."""
    with ThreadPoolExecutor(1, "chats") as pool, watchkeep.correlation("run-9"), enclosing() as around:
        pool.submit(time.sleep, 0.05)
        pool.submit(ask, llm_server).result()
    (chat,) = watchkeep_capture.spans("chat")
    (task,) = watchkeep_capture.spans(f"{__name__}.ask")
    assert (task.parent_id, chat.parent_id) == (around.span_id, task.span_id)
    assert {span.trace_id for span in watchkeep_capture.spans()} == {around.trace_id}
    assert {span.attributes[names.AGENT_RUNTIME_CORRELATION_ID] for span in watchkeep_capture.spans()} == {"run-9"}
    assert task.attributes[names.AGENT_RUNTIME_EXECUTION_PATH] == "thread_pool"
    assert task.attributes[names.PYTHON_EXECUTOR_NAME] == "chats"
    assert task.attributes[names.THREAD_NAME] == "chats_0"
    assert task.attributes[QUEUE_KEY] == pytest.approx(0.05, abs=0.04)


@pytest.mark.parametrize("way", ["submit", "map", "to_thread", "run_in_executor", "copied context"])
def test_every_way_into_a_thread_keeps_trace_and_correlation(watchkeep_capture, llm_server, way):
    """Whatever the app calls, its chat is below its operation, with its correlation ID."""

    async def main():
        loop = asyncio.get_running_loop()
        if way == "to_thread":
            await asyncio.to_thread(ask, llm_server)
        else:
            await loop.run_in_executor(None, ask, llm_server)

    with watchkeep.correlation("run-7"), enclosing() as around, ThreadPoolExecutor(1) as pool:
        if way == "submit":
            pool.submit(ask, llm_server).result()
        elif way == "map":
            list(pool.map(ask, [llm_server]))
        elif way == "copied context":
            pool.submit(contextvars.copy_context().run, ask, llm_server).result()
        else:
            asyncio.run(main())
    (chat,) = watchkeep_capture.spans("chat")
    queued = {task.span_id: task.parent_id for task in watchkeep_capture.spans(f"{__name__}.ask")}  # on a busy machine
    assert chat.trace_id == around.trace_id
    assert queued.get(chat.parent_id, chat.parent_id) == around.span_id
    assert chat.attributes[names.AGENT_RUNTIME_CORRELATION_ID] == "run-7"


def test_a_chat_in_a_thread_without_anything_around_has_its_task(watchkeep_capture, llm_server):
    """The task is the root of the trace, and says how long the chat waited for a thread."""
    with ThreadPoolExecutor(1, "alone") as pool:
        pool.submit(time.sleep, 0.05)
        pool.submit(ask, llm_server).result()
    (chat,) = watchkeep_capture.spans("chat")
    (task,) = watchkeep_capture.spans(f"{__name__}.ask")
    assert (task.parent_id, chat.parent_id) == (0, task.span_id)
    assert task.attributes[QUEUE_KEY] == pytest.approx(0.05, abs=0.04)
    assert watchkeep_capture.value(PHASE_TIME, resilience_call_phase="executor_queue") == task.attributes[QUEUE_KEY]
    assert len(watchkeep_capture.spans(f"{__name__}")) == 1


def test_the_wait_stands_on_the_operation_around(watchkeep_capture):
    """An operation that waits for a thread says how long; the same is counted once."""
    with ThreadPoolExecutor(1, "around") as pool, enclosing():
        wait([pool.submit(time.sleep, 0.05), pool.submit(time.sleep, 0)])
    (step,) = watchkeep_capture.spans("run_step")
    assert step.attributes[QUEUE_KEY] == pytest.approx(0.05, abs=0.04)
    counted = watchkeep_capture.value(PHASE_TIME, resilience_call_phase="executor_queue")
    assert counted == pytest.approx(step.attributes[QUEUE_KEY])


def test_a_task_without_anything_of_ours_is_no_span(watchkeep_capture):
    """A thousand small tasks are measured, and neither spans nor time of calls; a log line makes them none."""
    said = []

    class Keep(logging.Handler):
        def emit(self, record):
            said.append(record.trace_id)

    logger, handler = logging.getLogger("wk-pool"), Keep()
    logger.addHandler(handler)
    try:
        with ThreadPoolExecutor(2, "small") as pool:
            list(pool.map(logger.error, map(str, range(1000))))
    finally:
        logger.removeHandler(handler)
    assert watchkeep_capture.value(COMPLETED, python_executor_name="small") == 1000
    assert watchkeep_capture.spans() == []
    assert set(said) == {""}
    assert watchkeep_capture.value(PHASE_TIME, resilience_call_phase="executor_queue") == 0


def test_only_tasks_that_queue_are_spans_of_a_trace(watchkeep_capture):
    """Inside an operation a task that found a thread at once is only counted; one that waited for it is shown."""

    def quick():
        time.sleep(0.002)

    def late():
        pass

    with ThreadPoolExecutor(1, "mixed") as pool, enclosing():
        for _ in range(20):
            pool.submit(quick).result()
        pool.submit(time.sleep, 0.05)
        pool.submit(late).result()
    shown = [span.name.rpartition(".")[2] for span in watchkeep_capture.spans() if "<locals>" in span.name]
    assert shown.count("late") == 1
    assert shown.count("quick") <= 3  # the machine may have been busy


def test_what_an_sdk_runs_in_a_thread_is_part_of_its_call(watchkeep_capture, llm_server):
    """The async client looks at the platform in a thread: that is no span of its own, and no wait before a call."""

    async def main():
        async with openai.AsyncOpenAI(base_url=llm_server.base_url, api_key="sk") as client:
            await client.chat.completions.create(model="gpt-4o", messages=MESSAGES)

    asyncio.run(main())
    assert {span.name for span in watchkeep_capture.spans()} <= {"chat gpt-4o", "POST"} | {
        span.name for span in watchkeep_capture.spans("wait_for_connection")
    }
    assert not any(QUEUE_KEY in span.attributes for span in watchkeep_capture.spans())


def test_a_failing_chat_blames_the_provider_on_its_task(watchkeep_capture, llm_server):
    """The task fails with the status of its chat, and its fault is the provider's."""
    llm_server.plan({"default": 500})
    with ThreadPoolExecutor(1) as pool:
        assert isinstance(pool.submit(ask, llm_server).exception(), openai.InternalServerError)
    (task,) = watchkeep_capture.spans(f"{__name__}.ask")
    assert (task.attributes[names.ERROR_TYPE], task.attributes[names.RESILIENCE_FAULT_ORIGIN]) == ("500", "provider")


def test_the_thread_keeps_nothing_of_a_task(watchkeep_capture, llm_server):
    """After a task, the thread holds no operation, no trace and no correlation ID of it."""

    def look():
        return context.current.get(), context.logical.get(), context._correlation.get(), context._adopted.get()

    with ThreadPoolExecutor(1) as pool:
        with watchkeep.correlation("first"), enclosing():
            assert pool.submit(look).result()[2] == "first"
        assert pool.submit(look).result() == (None, None, None, None)


def test_the_app_s_own_variables_do_not_come_along(watchkeep_capture):
    """`submit` hands none of the app's context variables over: that is so without us, and stays so."""
    OWN.set("set in the app")
    with ThreadPoolExecutor(1) as pool, watchkeep.correlation("c"):
        assert pool.submit(OWN.get).result() == "unset"
        assert pool.submit(watchkeep.correlation_id).result() == "c"


def test_the_app_s_own_correlation_variable_counts_in_the_thread(watchkeep_capture):
    """What it says where the task is submitted holds in the task, unless the task says otherwise."""
    context.set_source(lambda: OWN.get() if OWN.get() != "unset" else None)
    token = OWN.set("mine")
    try:
        with ThreadPoolExecutor(1) as pool:
            assert pool.submit(watchkeep.correlation_id).result() == "mine"
    finally:
        OWN.reset(token)
        context.set_source(None)


def test_the_app_s_current_span_stays_the_current_one(watchkeep_capture):
    """An app that puts attributes on its own span from a thread still finds that span there."""
    from opentelemetry import trace

    span = trace.NonRecordingSpan(trace.SpanContext(7, 8, False, trace.TraceFlags(1)))

    async def main():
        return await asyncio.to_thread(trace.get_current_span)

    with trace.use_span(span):
        assert asyncio.run(main()) is span


def test_a_task_keeps_nothing_of_the_app_alive(watchkeep_capture):
    """Function, arguments, result and exception go when the app lets go of them."""

    class Heavy:
        def __call__(self, other, fails):
            if fails:
                raise LookupError
            return other

    with ThreadPoolExecutor(1) as pool:
        for fails in (False, True):
            heavy, argument = Heavy(), Heavy()
            gone = weakref.ref(heavy), weakref.ref(argument)
            future = pool.submit(heavy, argument, fails)
            error = future.exception()
            assert (error is not None) is fails
            pool.submit(abs, 1).result()  # the thread lets go of a task at the next one
            if error is not None:
                error.__traceback__ = None
            del heavy, argument, future, error
            gc.collect()
            assert [reference() for reference in gone] == [None, None]


def test_an_executor_that_is_dropped_goes_at_once(watchkeep_capture):
    """We do not keep an executor, and its threads end as they do without us."""
    pool = ThreadPoolExecutor(1, "dropped")
    pool.submit(abs, 1).result()
    (thread,) = pool._threads
    gone, key = weakref.ref(pool), id(pool)
    del pool
    gc.collect()
    thread.join(5)
    assert not thread.is_alive()
    assert gone() is None
    assert key not in executors._pools


def test_many_tasks_at_once_have_the_right_parents(watchkeep_capture):
    """Hundreds of operations, each with tasks in one pool: no task is below another's, and all threads are idle."""

    def inner(step):
        time.sleep(0.02)
        return step, context.current.get().span_id

    def outer(number):
        with enclosing(f"step-{number}") as record:
            found = pool.submit(inner, number).result()
        return found[1] == record.span_id

    with ThreadPoolExecutor(8, "many") as pool, ThreadPoolExecutor(32, "callers") as callers:
        assert all(callers.map(outer, range(300)))
        steps = {span.span_id: span for span in watchkeep_capture.spans("run_step")}
        tasks = [span for span in watchkeep_capture.spans() if span.name.endswith("<locals>.inner")]
        assert len(tasks) > 200
        assert all(task.parent_id in steps for task in tasks)
        assert len({task.parent_id for task in tasks}) == len(tasks)
        assert watchkeep_capture.value(THREADS, python_executor_name="many", python_executor_thread_state="active") == 0


def test_function_names():
    """A function, a method, a partial and a callable object each have a name without values in it."""
    import functools

    assert origin.function_name(functools.partial(functools.partial(fail))) == f"{__name__}.fail"
    assert origin.function_name([].append) == "list.append"

    class Callable:
        def __call__(self):
            pass

    assert origin.function_name(Callable()).endswith("test_function_names.<locals>.Callable")

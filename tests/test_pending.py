"""Spans that become one only when somebody asks: alone and one inside the other, retries and tasks of thread pools."""

import logging
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest
from opentelemetry import trace
from tenacity import Retrying, stop_after_attempt, wait_fixed

import watchkeep
from support.retried import below, chatting, logical_calls, nothing, only
from watchkeep import names, pending, tracing
from watchkeep.integrations.concurrent_futures import SCOPE
from watchkeep.pending import PendingSpan
from watchkeep.record import Record

QUICK = {"wait": wait_fixed(0.001), "stop": stop_after_attempt(3)}


@pytest.fixture(autouse=True)
def watched():
    """Every test begins watched, and leaves nothing watched behind."""
    watchkeep.uninstrument()
    watchkeep.instrument()
    yield
    watchkeep.uninstrument()


@pytest.fixture
def chat(llm_server):
    with chatting(llm_server) as ask:
        yield ask


@contextmanager
def around():
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


def in_a_thread(function):
    with ThreadPoolExecutor(1, "inner") as pool:
        return pool.submit(function).result()


def retried(function):
    return Retrying(**QUICK)(function)


def test_a_task_inside_a_retry_is_below_it(watchkeep_capture, llm_server, chat):
    """Retry > task > chat for each try, all opened by the chat, and counted as one call."""
    llm_server.plan([500, "ok"])
    retried(lambda: in_a_thread(chat))
    retry = only(watchkeep_capture)
    found = {span.span_id: span for span in watchkeep_capture.spans()}
    chats = watchkeep_capture.spans("chat")
    assert len(chats) == 2
    for each in chats:
        above = found[each.parent_id]
        assert above is retry or above.parent_id == retry.span_id
    assert {span.trace_id for span in found.values()} == {retry.trace_id}
    assert sum(logical_calls(watchkeep_capture).values()) == 1


def test_a_retry_inside_a_task_is_below_it(watchkeep_capture, llm_server, chat):
    """Task > retry > chats."""
    llm_server.plan([500, "ok"])
    in_a_thread(lambda: retried(chat))
    retry = only(watchkeep_capture)
    (task,) = [span for span in watchkeep_capture.spans() if not span.parent_id]
    assert retry.parent_id == task.span_id
    assert len(below(watchkeep_capture, retry)) == 2


@pytest.mark.parametrize("nest", [lambda f: retried(lambda: in_a_thread(f)), lambda f: in_a_thread(lambda: retried(f))])
def test_lines_and_attributes_open_neither(nest, watchkeep_capture):
    """What only logs and describes the current span leaves no span, whichever is inside the other."""

    def work():
        assert isinstance(trace.get_current_span(), PendingSpan)
        logging.getLogger("app").warning("working")
        trace.get_current_span().set_attribute("tier", "gold")
        assert not trace.get_current_span().is_recording()

    nest(work)
    assert nothing(watchkeep_capture)
    assert [log.span_id for log in watchkeep_capture.logs() if log.body == "working"] == [0]


def test_a_line_in_a_task_that_had_to_queue_is_the_task_s(watchkeep_capture):
    """In a trace such a task is a span from its start: a line inside carries its ids."""
    with around() as step, ThreadPoolExecutor(1, "busy") as pool:
        pool.submit(time.sleep, 0.05)
        pool.submit(logging.getLogger("app").warning, "late").result()
    (line,) = [log for log in watchkeep_capture.logs() if log.body == "late"]
    found = {span.span_id: span for span in watchkeep_capture.spans()}
    assert found[line.span_id].name.endswith("Logger.warning")
    assert found[line.span_id].parent_id == step.span_id


def test_attributes_are_the_operation_s_where_nothing_around_takes_them(watchkeep_capture, chat):
    """Once it is a span, and outside of any other, what is set on the current span is on it."""

    def work():
        chat()
        assert trace.get_current_span().is_recording()
        trace.get_current_span().set_attributes({names.AGENT_RUNTIME_STEP_NAME: "gold"})

    retried(work)
    assert only(watchkeep_capture).attributes[names.AGENT_RUNTIME_STEP_NAME] == "gold"


def test_what_is_known_is_the_innermost_that_is_one():
    """From inside out: nothing becomes a span by being asked for."""
    outer = trace.NonRecordingSpan(trace.SpanContext(7, 8, False, trace.TraceFlags(1)))
    asked = []

    def find(make):
        asked.append(make)

    assert pending.known(PendingSpan(PendingSpan(outer, find), find)) is outer
    assert asked == [False, False]


def test_one_that_cannot_be_has_the_ids_of_the_one_around():
    """A task that a retry has left behind belongs to what was around the retry."""
    outer = trace.NonRecordingSpan(trace.SpanContext(7, 8, False, trace.TraceFlags(1)))
    assert PendingSpan(outer, lambda make: None).get_span_context().span_id == 8

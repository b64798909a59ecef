"""From closed records to spans, measurements and log records."""

import sys
import threading
from contextlib import suppress

import openai
import pytest
from opentelemetry import trace

from watchkeep import cells, names, runtime
from watchkeep.emit import Emitter
from watchkeep.export.model import Scope
from watchkeep.integrations import scope
from watchkeep.record import Measure, Record, seconds

SCOPE = scope("test", names.SCHEMA_EXTENSION)
MESSAGES = [{"role": "user", "content": "hi"}]
KEY = "sk-proj-" + "a1B2" * 12


class Wait(Record):
    __slots__ = ()
    measures = (Measure(names.METRIC_RESILIENCE_POOL_CONNECTION_WAIT_TIME, seconds),)


def made(name="pool"):
    record = Wait(names.POOL_WAIT, SCOPE, {names.RESILIENCE_POOL_NAME: name})
    record.open()
    return record


def test_a_record_closes_once(watchkeep_capture):
    """However often it is closed, it is one span and one measurement."""
    record = made()
    assert record.close()
    assert not record.close()
    assert len(watchkeep_capture.spans()) == 1
    assert watchkeep_capture.value(names.METRIC_RESILIENCE_POOL_CONNECTION_WAIT_TIME.name) == 1


def test_what_is_sampled_out_is_measured(watchkeep_capture, monkeypatch):
    """A sampler that keeps nothing bends no count."""
    monkeypatch.setattr(runtime.get(), "sampler", lambda *_: False)
    made().close()
    assert watchkeep_capture.spans() == []
    assert watchkeep_capture.value(names.METRIC_RESILIENCE_POOL_CONNECTION_WAIT_TIME.name) == 1


def test_threads_lose_no_count(watchkeep_capture):
    """Eight threads close at once, far above what may be pending: every record is measured."""
    many = 1000

    def work():
        for _ in range(many):
            made().close()

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert watchkeep_capture.value(names.METRIC_RESILIENCE_POOL_CONNECTION_WAIT_TIME.name) == 8 * many


def test_labels_are_bounded(watchkeep_capture):
    """Beyond its cap a label's value becomes `_OTHER`, and the total stays."""
    for index in range(300):
        made(f"pool-{index}").close()
    points = watchkeep_capture.points(names.METRIC_RESILIENCE_POOL_CONNECTION_WAIT_TIME.name)
    assert len(points) == 101
    assert sum(point.count for point in points) == 300
    assert watchkeep_capture.value(points and names.METRIC_RESILIENCE_POOL_CONNECTION_WAIT_TIME.name,
                                   resilience_pool_name=names.OTHER) == 200  # fmt: skip


def test_a_fault_in_one_record_loses_no_neighbour(watchkeep_capture, monkeypatch):
    """A record that cannot be completed costs itself only."""
    from watchkeep import guard

    bad = made()
    monkeypatch.setattr(guard, "raising", False)
    bad.attributes = None  # type: ignore[assignment]
    bad.close()
    made().close()
    assert len(watchkeep_capture.spans()) == 1


def test_a_secret_in_a_parameter_is_masked(watchkeep_capture, llm_server):
    """What a user put into the model's name by mistake does not leave, in a span or in a label."""
    client = openai.OpenAI(base_url=llm_server.base_url, api_key="sk")
    client.chat.completions.create(model=f"gpt {KEY}", messages=MESSAGES)
    assert KEY not in repr(watchkeep_capture.spans("chat")[0].attributes)
    assert KEY not in repr(watchkeep_capture.metrics())


def test_a_long_value_is_cut(watchkeep_capture, llm_server):
    """A model's name of 100 kB is cut to the setting's size."""
    client = openai.OpenAI(base_url=llm_server.base_url, api_key="sk")
    client.chat.completions.create(model="m" * 100_000, messages=MESSAGES)
    assert len(watchkeep_capture.spans("chat")[0].attributes[names.GEN_AI_REQUEST_MODEL]) <= 8192


def test_a_span_of_the_app_s_own_is_cleaned_too(watchkeep_capture):
    """An app that only uses the API, with no provider set, has its spans sent without secrets."""
    with trace.get_tracer("app").start_as_current_span("work", attributes={"note": f"Bearer {KEY}"}):
        pass
    (span,) = watchkeep_capture.spans("work")
    assert KEY not in repr(span.attributes)


def test_putting_never_waits(watchkeep_capture):
    """While another thread drains, a record is taken at once."""
    emitter: Emitter = runtime.emitter()
    with emitter.draining:
        for _ in range(3000):
            made().close()
    assert watchkeep_capture.value(names.METRIC_RESILIENCE_POOL_CONNECTION_WAIT_TIME.name) == 3000


@pytest.mark.parametrize("remote", [True, False])
def test_a_remote_parent_is_told(watchkeep_capture, remote):
    """The flags of a span say whether its parent lives in another process."""
    context = trace.SpanContext(7 << 64, 7, remote, trace.TraceFlags(1))
    with trace.use_span(trace.NonRecordingSpan(context)):
        made().close()
    (span,) = watchkeep_capture.spans()
    assert (span.trace_id, span.parent_id) == (7 << 64, 7)
    assert bool(span.flags & 0x200) == remote


def test_a_provider_s_words_do_not_leave_by_the_app_s_own_span(watchkeep_capture, llm_server):
    """The span that the app has around a failed call says which exception it was, not what the provider wrote."""
    llm_server.plan([{"status": 400, "body": {"error": {"message": "your prompt was CANARY", "code": "x"}}}])
    client = openai.OpenAI(base_url=llm_server.base_url, api_key="sk")
    with pytest.raises(openai.BadRequestError), trace.get_tracer("app").start_as_current_span("work"):
        client.chat.completions.create(model="gpt-4o", messages=MESSAGES)
    (work,) = watchkeep_capture.spans("work")
    assert "CANARY" not in repr(watchkeep_capture.spans())
    assert "CANARY" not in repr([event.attributes for event in work.events])
    assert work.events[0].attributes[names.EXCEPTION_TYPE] == "openai.BadRequestError"


def test_an_observer_named_by_two_threads_at_once_is_asked_once(watchkeep_capture):
    """Two threads that stand on the same line of `observe` add one observer: nothing is counted double."""
    metric = names.METRIC_RESILIENCE_POOL_CONNECTION_COUNT
    meeting = threading.Barrier(2)

    def one():
        return [(("pool", "idle", None), 1)]

    def stop_at_each_line(frame, event, argument):
        if frame.f_code is not cells.observe.__code__:
            return None
        if event == "line":
            with suppress(threading.BrokenBarrierError):
                meeting.wait(1)
        return stop_at_each_line

    def come():
        sys.settrace(stop_at_each_line)
        cells.observe(metric, SCOPE, one)

    threads = [threading.Thread(target=come) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    try:
        assert list(cells.observations(metric, SCOPE).values()) == [1]
    finally:
        cells.forget(SCOPE)


def test_observers_are_forgotten_while_others_come(watchkeep_capture):
    """An integration is uninstalled while another thread names metrics: neither stumbles over the other."""
    metric = names.METRIC_RESILIENCE_POOL_CONNECTION_COUNT
    others = [Scope(f"test.{number}") for number in range(200)]
    over = threading.Event()

    def come():
        while not over.is_set():
            for each in others:
                cells.observe(metric, each, list)
            for each in others:
                cells._observers.pop((metric, each), None)

    thread = threading.Thread(target=come)
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    thread.start()
    try:
        for _ in range(2000):
            cells.forget(SCOPE)
    finally:
        over.set()
        thread.join()
        sys.setswitchinterval(before)

"""The pipeline against an end point that misbehaves in every way: nothing blocks, nothing is lost unsaid."""

from __future__ import annotations

import gc
import logging
import threading
import time
from contextlib import contextmanager
from dataclasses import replace
from email.utils import formatdate

import pytest

from support.otlp_sink import OtlpSink
from watchkeep import guard, names
from watchkeep.export.gate import Gate
from watchkeep.export.ledger import Ledger
from watchkeep.export.model import (
    CUMULATIVE,
    DELTA,
    HistogramPoint,
    LogData,
    MetricData,
    NumberPoint,
    Resource,
    Scope,
    SpanData,
)
from watchkeep.export.partial import rejected
from watchkeep.export.pipeline import Pipeline
from watchkeep.export.queue import ItemQueue
from watchkeep.export.settings import from_environment
from watchkeep.export.temporality import Deltas

SCOPE = Scope("test", "1")


def span(serial, **attributes):
    return SpanData(f"span {serial}", serial + 1, serial + 1, 0, 1, 1, 2, {"serial": serial, **attributes}, SCOPE)


def spans(start, end, **attributes):
    return [span(serial, **attributes) for serial in range(start, end)]


def log(serial):
    return LogData(1, 1, 9, "INFO", f"line {serial}", {"serial": serial}, SCOPE)


def counter(value, start=1):
    return MetricData("calls", "{call}", "", "sum", [NumberPoint({"a": 1}, start, 2, value)], SCOPE, monotonic=True)


@pytest.fixture
def sink():
    with OtlpSink() as running:
        yield running


@contextmanager
def pipeline_to(sink, *, started=True, collect=list, environ=None, pipeline_options=None, **changed):
    settings = from_environment({"OTEL_EXPORTER_OTLP_ENDPOINT": sink.endpoint, **(environ or {})})
    made = Pipeline(
        replace(settings, sigterm=False, **changed),
        Resource({"service.name": "x"}),
        drain=lambda: None,
        collect=collect,
        **(pipeline_options or {}),
    )
    if started:
        made.start()
    try:
        yield made
    finally:
        made.shutdown(0.2)


def serials(items):
    return sorted(item.attributes["serial"] for item in items)


def balanced(pipeline, signal="traces"):
    """Sent = delivered + lost by reason + still waiting."""
    counts = pipeline.counts()[signal]
    return counts["sent"] == counts["delivered"] + sum(counts["lost"].values()) + counts["waiting"]


def test_everything_arrives_once_with_resource_and_scope(sink):
    """1,000 spans and logs of four threads arrive, each once."""
    with pipeline_to(sink, collect=lambda: [counter(5)]) as pipeline:

        def work(start):
            for serial in range(start, start + 250):
                pipeline.add_spans([span(serial)])
                pipeline.add_logs([log(serial)])

        threads = [threading.Thread(target=work, args=(start,)) for start in (0, 250, 500, 750)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert pipeline.flush()
        assert serials(sink.spans()) == serials(sink.logs()) == list(range(1000))
        assert {item.resource["service.name"] for item in sink.spans()} == {"x"}
        assert {item.scope for item in sink.logs()} == {"test"}
        assert {item.points[0]["value"] for item in sink.metrics() if item.name == "calls"} == {5}
        assert pipeline.counts()["traces"] == {"sent": 1000, "delivered": 1000, "lost": {}, "waiting": 0}


def test_spans_leave_by_themselves_within_two_seconds(sink):
    """Nobody has to flush: spans go each second, metrics one second after the first record."""
    with pipeline_to(sink, collect=lambda: [counter(5)]) as pipeline:
        time.sleep(0.1)
        pipeline.add_spans([span(1)])
        sink.wait(lambda: sink.spans() and any(item.name == "calls" for item in sink.metrics()), 2.5)


def test_pending_records_are_drained_by_the_worker(sink):
    """The emitter's records are asked for at each tick and at a flush, in the worker's thread."""
    pending = spans(0, 3)
    threads = set()

    def drain():
        threads.add(threading.current_thread().name)
        pipeline.add_spans([pending.pop() for _ in range(len(pending))])

    with pipeline_to(sink) as pipeline:
        pipeline.drain = drain
        sink.wait(lambda: len(sink.spans()) == 3, 2.5)
        pending += spans(3, 5)
        assert pipeline.flush()
        assert serials(sink.spans()) == [0, 1, 2, 3, 4]
        assert threads == {"watchkeep-export"}


@pytest.mark.parametrize("mode", ["slow", "hang", "status", "reset", "refuse"])
def test_adding_never_waits_whatever_the_end_point_does(sink, mode):
    """With a broken end point, adding 20,000 spans is as quick as with a good one."""
    sink.refuse() if mode == "refuse" else sink.mode(mode, code=503)
    with pipeline_to(sink) as pipeline:
        slowest = 0.0
        spent = time.thread_time()
        for serial in range(0, 20_000, 10):
            before = time.perf_counter()
            pipeline.add_spans(spans(serial, serial + 10))
            slowest = max(slowest, time.perf_counter() - before)
        assert time.thread_time() - spent < 2
        assert slowest < 1  # a wait for the network would be ten seconds; a busy machine takes some milliseconds
        assert balanced(pipeline)


FAULTS = {
    "503": {"name": "status", "code": 503, "times": 1},
    "429 at once": {"name": "status", "code": 429, "times": 2, "headers": {"Retry-After": "0"}},
    "502": {"name": "status", "code": 502, "times": 1},
    "504": {"name": "status", "code": 504, "times": 1},
    "reset": {"name": "reset", "times": 1},
    "half an answer": {"name": "half", "times": 1},
}


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
def test_what_failed_for_a_moment_arrives_later(sink, fault):
    """A batch that met a passing fault is tried again by itself, and every span arrives once."""
    sink.mode(**fault)
    options = {"pipeline_options": {"metrics_enabled": False}, "environ": {"OTEL_BSP_SCHEDULE_DELAY": "50"}}
    with pipeline_to(sink, **options) as pipeline:
        pipeline.add_spans(spans(0, 20))
        sink.wait(lambda: len(sink.spans()) == 20, 5)
        assert serials(sink.spans()) == list(range(20))
        sink.wait(lambda: pipeline.counts()["traces"]["delivered"] == 20)
        assert pipeline.counts()["traces"]["lost"] == {}


def test_a_refusing_port_is_tried_again_when_it_opens(sink):
    """What was kept meanwhile arrives soon after the collector is back."""
    sink.refuse()
    with pipeline_to(sink, pipeline_options={"metrics_enabled": False}) as pipeline:
        pipeline.add_spans(spans(0, 20))
        assert not pipeline.flush(0.5)
        assert balanced(pipeline)
        sink.accept()
        sink.wait(lambda: len(sink.spans()) == 20, 5)
        assert pipeline.flush()
        assert pipeline.counts()["traces"]["lost"] == {}


@pytest.mark.parametrize("stated", ["seconds", "date"])
def test_retry_after_is_obeyed_in_both_forms(sink, stated):
    """No request of that signal is made before the time the receiver named, not even by a flush."""
    value = "2" if stated == "seconds" else formatdate(time.time() + 3, usegmt=True)
    sink.mode("status", code=429, times=1, headers={"Retry-After": value})
    with pipeline_to(sink, pipeline_options={"metrics_enabled": False}) as pipeline:
        pipeline.add_spans(spans(0, 5))
        pipeline.flush(0.5)
        sink.wait(lambda: len(sink.spans()) == 5, 6)
        first, second = [each.time for each in sink.requests("traces")][:2]
        assert 1.9 <= second - first < 5


def test_a_flush_waits_for_a_receiver_that_names_a_near_time(sink):
    """Within the flush's own time, a stated pause is waited for rather than given up."""
    sink.mode("status", code=503, times=1, headers={"Retry-After": "1"})
    with pipeline_to(sink, started=False) as pipeline:
        pipeline.add_spans(spans(0, 5))
        assert pipeline.flush(3)
        assert len(sink.spans()) == 5


def test_a_dead_end_point_is_asked_ever_more_seldom(sink):
    """In three seconds no more than three requests reach an end point that answers 503 to all."""
    sink.mode("status", code=503)
    with pipeline_to(sink, pipeline_options={"metrics_enabled": False}) as pipeline:
        pipeline.add_spans(spans(0, 5))
        time.sleep(3)
        assert 1 < len(sink.requests()) <= 3


def test_one_dead_host_is_found_once_by_all_signals(sink):
    """Traces, logs and metrics share what they learn about a host: one of them asks, the others wait."""
    sink.mode("hang")
    with pipeline_to(sink, environ={"OTEL_EXPORTER_OTLP_TIMEOUT": "0.4"}, collect=lambda: [counter(1)]) as pipeline:
        pipeline.add_spans([span(1)])
        pipeline.add_logs([log(1)])
        start = time.monotonic()
        assert not pipeline.flush(3)
        assert time.monotonic() - start < 1
        assert len(sink.requests()) == 1


def test_a_signal_with_an_end_point_of_its_own_is_not_held_up(sink):
    """A hanging end point of traces leaves the time it does not need to logs and metrics elsewhere."""
    with OtlpSink() as other:
        other.mode("hang")
        environ = {"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": f"{other.endpoint}/v1/traces"}
        with pipeline_to(sink, environ=environ, collect=lambda: [counter(1)]) as pipeline:
            pipeline.add_spans([span(1)])
            pipeline.add_logs([log(1)])
            pipeline.shutdown(2)
        assert sink.logs()
        assert sink.metrics()


@pytest.mark.parametrize("code", [400, 413])
@pytest.mark.parametrize("poisoned", [[0], [511], [200], [3, 4, 5, 300], list(range(40, 60))])
def test_a_refused_batch_is_halved_until_the_bad_item_is_alone(sink, code, poisoned):
    """Of 512 spans all arrive but those that are refused, and these are counted."""
    sink.mode("status", code=code, holding="poison")
    with pipeline_to(sink, started=False) as pipeline:
        batch = spans(0, 512)
        for serial in poisoned:
            batch[serial].attributes["bad"] = "poison"
        pipeline.add_spans(batch)
        pipeline.flush(5)
        assert serials(sink.spans()) == sorted(set(range(512)) - set(poisoned))
        counts = pipeline.counts()["traces"]
        assert counts == {
            "sent": 512,
            "delivered": 512 - len(poisoned),
            "lost": {"rejected": len(poisoned)},
            "waiting": 0,
        }


def test_an_end_point_that_refuses_all_is_not_asked_for_each_item(sink):
    """Splitting has a limit, lower still after a batch of which nothing was taken."""
    sink.mode("status", code=400, path="traces")
    with pipeline_to(sink, started=False, pipeline_options={"metrics_enabled": False}) as pipeline:
        pipeline.add_spans(spans(0, 2048))
        pipeline.flush(5)
        assert len(sink.requests("traces")) < 150
        assert pipeline.counts()["traces"]["lost"] == {"rejected": 2048}


@pytest.mark.parametrize("code", [401, 403, 404, 301, 500, 501])
def test_other_refusals_are_final_and_counted(sink, code):
    """What trying again cannot mend is not tried again; redirects are not followed."""
    sink.mode("status", code=code, path="traces", headers={"Location": f"{sink.endpoint}/v1/logs"})
    with pipeline_to(sink, started=False, pipeline_options={"metrics_enabled": False}) as pipeline:
        pipeline.add_spans(spans(0, 10))
        assert not pipeline.flush(3)
        assert len(sink.requests()) == 1
        assert pipeline.counts()["traces"]["lost"] == {"rejected": 10}


def test_a_partial_success_counts_what_was_refused(sink):
    """A 200 that says "3 refused" delivers the others only."""
    sink.mode("partial", rejected=3, path="traces")
    with pipeline_to(sink, started=False) as pipeline:
        pipeline.add_spans(spans(0, 10))
        assert not pipeline.flush(3)
        assert pipeline.counts()["traces"]["delivered"] == 7
        assert pipeline.counts()["traces"]["lost"] == {"rejected": 3}


@pytest.mark.parametrize(
    "body", [b"", b"\x0a", b"\xff" * 20, b"\x0a\xff\xff\xff\xff\x0f", b"\x0d\x00\x00\x00\x00", b"\x0a\x02\x08\x80"]
)
def test_a_mangled_partial_success_counts_as_success(body):
    """An answer that cannot be read says nothing was refused."""
    assert rejected(body)[0] == 0


def test_an_endless_answer_is_not_read(sink):
    """64 KiB of an answer are enough."""
    sink.mode("large")
    with pipeline_to(sink, started=False) as pipeline:
        pipeline.add_spans(spans(0, 10))
        assert pipeline.flush(3)


def test_an_old_batch_is_given_up(sink):
    """After the longest age, a refused batch makes room for newer ones, and is counted."""
    sink.mode("status", code=503)
    with pipeline_to(sink, max_age=0.5, pipeline_options={"metrics_enabled": False}) as pipeline:
        pipeline.add_spans(spans(0, 10))
        sink.wait(lambda: pipeline.counts()["traces"]["lost"] == {"expired": 10}, 6)
        sink.mode("ok")
        pipeline.add_spans(spans(10, 20))
        sink.wait(lambda: serials(sink.spans()) == list(range(10, 20)), 8)


def test_an_idle_connection_that_the_server_closed_costs_nothing(sink):
    """The next batch opens a new connection instead of failing on the stale one."""
    with pipeline_to(sink) as pipeline:
        pipeline.add_spans([span(1)])
        assert pipeline.flush()
        sink.refuse()
        sink.accept()
        pipeline.add_spans([span(2)])
        assert pipeline.flush()
        assert serials(sink.spans()) == [1, 2]


def test_batches_are_cut_by_bytes(sink):
    """No request is larger than the limit, although one item may be."""
    with pipeline_to(sink, started=False, batch_bytes=100_000) as pipeline:
        pipeline.add_spans([*spans(0, 200, text="x" * 8000), span(200, text="y" * 150_000)])
        assert pipeline.flush(5)
        assert len(sink.spans()) == 201
        sizes = sorted(each.size for each in sink.requests("traces"))
        assert sizes[-1] > 150_000
        assert sizes[-2] <= 101_000


# The queue.


def queue(limit, most=None):
    return ItemQueue[SpanData](Ledger(), limit, most)


def prompt(serial, size):
    return span(serial, **{names.GEN_AI_INPUT_MESSAGES: "x" * size, names.GEN_AI_REQUEST_MODEL: "m"})


def test_a_full_queue_drops_content_before_spans_and_the_oldest_first():
    """Prompts go first, from the oldest on; spans only when there are no more prompts to drop."""
    full = queue(200_000)
    full.put([prompt(serial, 8000) for serial in range(40)])
    taken = full.take(1000, 1 << 30)
    assert serials(taken) == list(range(40))
    kept = [names.GEN_AI_INPUT_MESSAGES in each.attributes for each in taken]
    assert kept == sorted(kept)
    assert 5 < sum(kept) < 40
    assert all(names.GEN_AI_REQUEST_MODEL in each.attributes for each in taken)
    assert taken[0].dropped_attributes == 1
    assert not full.ledger.lost


def test_dropping_content_leaves_the_apps_dict_alone():
    """The attributes may be shared with a log or metric: a new dict takes their place."""
    item = prompt(1, 500_000)
    before = item.attributes
    queue(100_000).put([item])
    assert names.GEN_AI_INPUT_MESSAGES in before
    assert names.GEN_AI_INPUT_MESSAGES not in item.attributes


def test_the_queue_is_bounded_in_bytes_and_counts_what_it_drops():
    """20,000 spans in 1 MB: the newest stay, the others are counted."""
    full = queue(1_000_000)
    for serial in range(0, 20_000, 10):
        full.put(spans(serial, serial + 10, text="x" * 100))
    assert full.bytes <= 1_000_000
    taken = full.take(100_000, 1 << 30)
    assert serials(taken) == list(range(20_000 - len(taken), 20_000))
    assert sum(full.ledger.lost.values()) + len(taken) == full.ledger.sent == 20_000


def test_adding_from_many_threads_loses_and_doubles_nothing():
    """Eight threads that collide all the time: every span is there once."""
    import sys

    busy = queue(1 << 30)
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        threads = [
            threading.Thread(
                target=lambda start=start: [busy.put([span(serial)]) for serial in range(start, start + 1000)]
            )
            for start in range(0, 8000, 1000)
        ]
        for thread in threads:
            thread.start()
        taken = []
        while any(thread.is_alive() for thread in threads):
            taken += busy.take(100, 1 << 30)
        taken += busy.take(100_000, 1 << 30)
    finally:
        sys.setswitchinterval(before)
    assert serials(taken) == list(range(8000))
    assert busy.ledger.sent == 8000


def test_adding_inside_adding_does_not_hang():
    """A finaliser that makes a span while its own thread holds the lock: the span is taken a moment later."""
    nested = queue(1 << 30)

    class Late(dict):
        def values(self):
            return super().values()

        def __del__(self):
            nested.put([span(2)])

    with nested.ledger.lock:
        nested.put([span(1)])
    made = Late()
    del made
    gc.collect()
    nested.put([span(3)])
    assert serials(nested.take(10, 1 << 30)) == [1, 2, 3]


def test_counts_add_up_under_overload(sink):
    """Far more spans than the queue holds: sent = delivered + lost, exactly as the end point saw."""
    with pipeline_to(sink, queue_bytes=300_000, pipeline_options={"metrics_enabled": False}) as pipeline:
        for serial in range(0, 30_000, 100):
            pipeline.add_spans(spans(serial, serial + 100))
        pipeline.shutdown(3)
        counts = pipeline.counts()["traces"]
        arrived = serials(sink.spans())
        assert len(arrived) == len(set(arrived)) == counts["delivered"]
        assert counts["sent"] == 30_000 == counts["delivered"] + sum(counts["lost"].values())
        assert counts["lost"].keys() <= {"queue_full"}


def test_what_comes_after_the_shutdown_is_counted_as_lost(sink):
    """Late spans are not taken, and not forgotten either."""
    with pipeline_to(sink) as pipeline:
        pipeline.add_spans([span(1)])
        assert pipeline.shutdown()
        assert pipeline.shutdown()
        pipeline.add_spans([span(2)])
        assert pipeline.counts()["traces"] == {"sent": 2, "delivered": 1, "lost": {"shutdown": 1}, "waiting": 0}


def test_a_span_that_cannot_be_encoded_is_lost_alone(sink, monkeypatch):
    """One broken item, 99 neighbours: they arrive."""
    monkeypatch.setattr(guard, "raising", False)
    with pipeline_to(sink, started=False) as pipeline:
        batch = spans(0, 100)
        batch[50].trace_id = -1
        pipeline.add_spans(batch)
        pipeline.flush()
        assert len(sink.spans()) == 99
        assert pipeline.counts()["traces"]["lost"] == {"encode": 1}


def test_a_drain_or_collect_that_raises_stops_nothing(sink, monkeypatch):
    """A fault of ours in one piece leaves the others alone, and the worker alive."""
    monkeypatch.setattr(guard, "raising", False)

    def fail():
        raise RuntimeError

    with pipeline_to(sink, collect=fail) as pipeline:
        pipeline.drain = fail
        pipeline.add_spans([span(1)])
        assert pipeline.flush()
        pipeline.add_spans([span(2)])
        assert pipeline.flush()
        assert serials(sink.spans()) == [1, 2]


def test_sinks_get_all_three_signals_even_without_an_end_point(sink):
    """A console or a test sees everything, also what is not exported by OTLP."""
    seen = []
    options = {"spans_enabled": False, "logs_enabled": False, "metrics_enabled": False}
    options["sinks"] = [lambda signal, items: seen.append((signal, len(items)))]
    with pipeline_to(sink, collect=lambda: [counter(1)], pipeline_options=options) as pipeline:
        pipeline.add_spans(spans(0, 2))
        pipeline.add_logs([log(1)])
        assert pipeline.flush()
        assert seen == [("traces", 2), ("logs", 1), ("metrics", 1)]
        assert not sink.requests()


# What it says.


def test_the_exporter_reports_itself_in_opentelemetrys_own_metrics(sink):
    """Delivered, failed and queued items are metrics, by error.type."""
    sink.mode("status", code=400, holding="poison")
    with pipeline_to(sink, started=False) as pipeline:
        pipeline.add_spans([*spans(0, 7), span(7, bad="poison")])
        pipeline.flush()
        found = {item.name: item for item in sink.metrics()}
        exported = found["otel.sdk.exporter.span.exported"]
        assert exported.scope == "watchkeep.export"
        assert {point["attributes"].get("error.type"): point["value"] for point in exported.points} == {
            None: 7,
            "400": 1,
        }
        where = exported.points[0]["attributes"]
        assert where["otel.component.type"] == "otlp_http_span_exporter"
        assert (where["server.address"], where["server.port"]) == ("127.0.0.1", sink.port)
        processed = {
            point["attributes"].get("error.type"): point["value"]
            for point in found["otel.sdk.processor.span.processed"].points
        }
        assert processed == {None: 8, "queue_full": 0}
        assert set(found) == {metric.name for metric in pipeline.health()}


def test_losses_are_said_once_a_minute(sink, caplog, monkeypatch):
    """One line that says where, why and what to do, however often it fails."""
    ours = logging.getLogger("watchkeep")
    monkeypatch.setattr(ours, "handlers", [logging.NullHandler()])  # so that our lines pass on, as an app may ask
    monkeypatch.setattr(ours, "propagate", True)
    sink.refuse()
    with caplog.at_level(logging.WARNING, "watchkeep"), pipeline_to(sink, max_age=0.5) as pipeline:
        for serial in range(4):
            pipeline.add_spans([span(serial)])
            pipeline.flush(1)
            pipeline._work(None)
    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) == 1
    assert "ConnectionRefusedError" in lines[0]
    assert f"127.0.0.1:{sink.port}" in lines[0]
    assert "OTEL_EXPORTER_OTLP_ENDPOINT" in lines[0]


def test_the_worker_does_not_trace_itself(sink):
    """OpenTelemetry's suppression key is set in the worker's thread, and nowhere else."""
    from opentelemetry import context

    seen = []
    with pipeline_to(sink) as pipeline:
        pipeline.drain = lambda: seen.append(context.get_value(context._SUPPRESS_INSTRUMENTATION_KEY))
        pipeline.flush()
    assert seen[0] is True
    assert context.get_value(context._SUPPRESS_INSTRUMENTATION_KEY) is None


# Parts.


def test_the_gate_stays_closed_longer_after_each_failure():
    """1, 2, 4, 8 seconds and so on up to 30, with jitter; a success opens it."""
    gate = Gate()
    pauses = []
    for _ in range(8):
        gate.failed("503")
        pauses.append(gate.until - time.monotonic())
    for pause, expected in zip(pauses, [1, 2, 4, 8, 16, 30, 30, 30], strict=True):
        assert 0.79 * expected < pause < 1.21 * expected
    assert not gate.open()
    assert gate.open(force=True)
    gate.failed("429", retry_after=5)
    assert not gate.open(force=True)
    gate.passed()
    assert gate.open()


def test_deltas_are_what_was_added_since():
    """Counters and histograms become differences; gauges, up-down sums and new starts stay as they are."""

    def histogram(count, total, counts):
        return MetricData(
            "h", "s", "", "histogram", [HistogramPoint({}, 1, 2, count, total, counts, (1.0,), 0.1, 9.0)], SCOPE
        )

    gauge = MetricData("g", "1", "", "gauge", [NumberPoint({}, 0, 2, 7)], SCOPE)
    updown = MetricData("u", "1", "", "sum", [NumberPoint({}, 1, 2, 7)], SCOPE)
    deltas = Deltas()
    deltas.convert([counter(5), histogram(2, 1.5, (1, 1)), gauge, updown])
    changed = deltas.convert([counter(12), histogram(5, 4.0, (3, 2)), gauge, updown])
    added, times, same, level = changed
    assert (added.points[0].value, added.temporality) == (7, DELTA)
    assert (times.points[0].count, times.points[0].sum, times.points[0].counts) == (3, 2.5, (2, 1))
    assert (times.points[0].min, times.points[0].max) == (None, None)
    assert (same.points[0].value, level.points[0].value, level.temporality) == (7, 7, CUMULATIVE)
    restarted = deltas.convert([counter(3, start=9)])
    assert restarted[0].points[0].value == 3


def test_a_refused_delta_is_kept_and_a_refused_cumulative_one_replaced(sink):
    """Deltas cannot be made up for later; of cumulative points the newest says all."""
    for preference, values in (("delta", [5, 0, 0]), ("cumulative", [5, 5, 5])):
        sink.forget()
        sink.mode("status", code=503, times=1, headers={"Retry-After": "0"}, path="metrics")
        environ = {"OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE": preference}
        with pipeline_to(sink, started=False, environ=environ, collect=lambda: [counter(5)]) as pipeline:
            for _ in range(3):
                pipeline.flush()
            got = [item.points[0]["value"] for item in sink.metrics() if item.name == "calls"]
            assert got == values


def test_a_metric_with_many_points_is_cut(sink):
    """10,000 series leave in bounded requests, none twice."""
    points = [NumberPoint({"n": number}, 1, 2, number) for number in range(10_000)]
    metric = MetricData("calls", "", "", "sum", points, SCOPE, monotonic=True)
    with pipeline_to(sink, started=False, collect=lambda: [metric], batch_bytes=200_000) as pipeline:
        assert pipeline.flush()
        found = [point["attributes"]["n"] for item in sink.metrics() if item.name == "calls" for point in item.points]
        assert sorted(found) == list(range(10_000))
        assert max(each.size for each in sink.requests("metrics")) < 201_000

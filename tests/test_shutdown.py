"""flush(), shutdown() and a new beginning, in a process of their own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from support.otlp_sink import OtlpSink

APP = """
import watchkeep
assert watchkeep.flush() and watchkeep.instrument()
from opentelemetry import metrics, trace
from watchkeep import names, runtime

tracer, counter = trace.get_tracer("app"), metrics.get_meter("app").create_counter("app.count")

def work(name):
    with tracer.start_as_current_span(name):
        counter.add(1)
        runtime.emitter().measure(names.METRIC_RESILIENCE_CALLS, SCOPE, {})

from watchkeep.export.model import Scope
SCOPE = Scope("watchkeep.test")
"""


@pytest.fixture
def sink() -> Iterator[OtlpSink]:
    with OtlpSink() as running:
        yield running


def run(sink: OtlpSink, body: str, **extra: str) -> str:
    """Run a program to its end; return what it printed on stderr."""
    kept = {name: text for name, text in os.environ.items() if not name.startswith(("OTEL_", "WATCHKEEP_"))}
    environment = {**kept, "OTEL_EXPORTER_OTLP_ENDPOINT": sink.endpoint, **extra}
    done = subprocess.run(
        [sys.executable, "-c", APP + body], env=environment, capture_output=True, text=True, timeout=30, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stderr


def values(sink: OtlpSink, metric: str) -> list[float]:
    return [point["value"] for one in sink.metrics() if one.name == metric for point in one.points]


def test_after_a_shutdown_flush_does_not_claim_delivery(sink: OtlpSink) -> None:
    """flush() is False once nothing is sent any more, and shutdown() repeats its answer."""
    run(
        sink,
        "work('one'); assert watchkeep.flush() and watchkeep.shutdown()\n"
        "assert not watchkeep.flush()\n"
        "work('two'); assert not watchkeep.flush() and watchkeep.shutdown()\n",
    )
    assert [span.name for span in sink.spans()] == ["one"]


def test_a_shutdown_that_lost_something_says_so_each_time(sink: OtlpSink) -> None:
    """With a dead end point shutdown() is False, also when it is asked again."""
    sink.refuse()
    said = run(sink, "work('one'); assert not watchkeep.shutdown(0.5) and not watchkeep.shutdown(0.5)\n")
    assert said.count("1 span (shutdown)") == 1


@pytest.mark.parametrize("preference", ["cumulative", "delta"])
def test_instrument_after_a_shutdown_begins_again(sink: OtlpSink, preference: str) -> None:
    """Spans are sent again, up to the end of the process, and counts go on where they were: none twice, none lost."""
    run(
        sink,
        "work('one'); assert watchkeep.shutdown()\n"
        "work('between')\n"
        "assert watchkeep.instrument() and watchkeep.instrument()\n"
        "work('two'); assert watchkeep.flush()\n"
        "work('three')\n",
        OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE=preference,
    )
    assert [span.name for span in sink.spans()] == ["one", "two", "three"]
    for metric in ("app.count", "resilience.calls"):
        found = values(sink, metric)
        assert (sum(found) if preference == "delta" else found[-1]) == 4, metric


def test_instrument_after_uninstrument_and_shutdown(sink: OtlpSink) -> None:
    """Leaving altogether and coming again is a new beginning, too."""
    run(
        sink,
        "work('one'); watchkeep.uninstrument(); assert watchkeep.shutdown()\n"
        "work('unseen'); watchkeep.instrument()\n"
        "work('two'); assert watchkeep.flush()\n",
    )
    assert [span.name for span in sink.spans()] == ["one", "two"]


def test_a_child_of_a_process_that_began_again(sink: OtlpSink) -> None:
    """A forked child delivers by the new pipeline, and only its own."""
    run(
        sink,
        "import os, sys\n"
        "work('one'); watchkeep.shutdown(); watchkeep.instrument(); work('two')\n"
        "child = os.fork()\n"
        "work('child' if not child else 'parent')\n"
        "if child: assert os.waitpid(child, 0)[1] == 0\n",
    )
    assert sorted(span.name for span in sink.spans()) == ["child", "one", "parent", "two"]

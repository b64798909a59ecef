"""The app's own providers: its exporter gets our signals, ours gets them too, each exactly once."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import openai
import pytest
from opentelemetry import _logs, metrics, trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

import watchkeep
from llm_server import LLMServer
from support.otlp_sink import OtlpSink
from watchkeep import config, names
from watchkeep.providers import endpoints, fallback, joining
from watchkeep.testing import Capture, capture

LAUNCHER = (sys.executable, "-m", "watchkeep", "run", "--")
PROGRAM = Path(__file__).parent / "support" / "provider_app.py"
CALLS = names.METRIC_RESILIENCE_CALLS.name
DURATION = names.METRIC_GEN_AI_CLIENT_INFERENCE_DURATION.name
STATES = names.METRIC_WATCHKEEP_INTEGRATIONS.name
RETRY = names.EVENT_RETRY_SCHEDULED.name
ONE_CALL = Counter(["work", "chat gpt-4o", "POST", "POST", "wait_for_connection", "wait_for_connection"])
"""The spans of a call that is tried twice, by the first word of those whose name holds a port."""


class Run:
    """One run of the program: what reached our end point, and what reached the app's own."""

    def __init__(self, ours: OtlpSink, own: OtlpSink, llm: LLMServer) -> None:
        self.ours = ours
        self.own = own
        self.llm = llm

    def __call__(self, command: Sequence[str] = LAUNCHER, **extra: str) -> None:
        """Run the program to its end."""
        self.llm.plan([{"status": 429, "headers": {"retry-after-ms": "20"}}])
        url = url_of(self.llm)
        kept = {name: text for name, text in os.environ.items() if not name.startswith(("OTEL_", "WATCHKEEP_"))}
        given = {"OTEL_EXPORTER_OTLP_ENDPOINT": self.ours.endpoint, "OWN": self.own.endpoint, "LLM": url}
        done = subprocess.run(
            [*command, sys.executable, str(PROGRAM)],
            env={**kept, **given, **extra},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        said = [line for line in done.stderr.splitlines() if "OTEL_PYTHON_CONFIGURATOR" not in line]  # OpenTelemetry's
        assert (done.returncode, said) == (0, [])


@pytest.fixture
def run() -> Iterator[Run]:
    with OtlpSink() as ours, OtlpSink() as own, LLMServer() as llm:
        yield Run(ours, own, llm)


def spans(sink: OtlpSink) -> Counter[str]:
    """Count the spans by name; a port in it does not matter. None may be there twice."""
    found = sink.spans()
    twice = {key: number for key, number in Counter(one.span_id for one in found).items() if number > 1}
    assert not twice, twice
    return Counter(one.name.split(" 127")[0] for one in found)


def value(sink: OtlpSink, metric: str) -> float:
    """Sum a metric as it was last sent, over its labels; who sent the same series twice would be seen."""
    last: dict[Any, float] = {}
    for one in sink.metrics():
        for point in one.points if one.name == metric else ():
            began = point["message"].start_time_unix_nano
            last[one.scope, str(sorted(point["attributes"].items())), began] = point["value"]
    return sum(last.values())


def events(sink: OtlpSink) -> Counter[str]:
    return Counter(one.name for one in sink.logs())


def assert_all(sink: OtlpSink, calls: int = 1) -> None:
    """Everything of ours and of the app's is there, once."""
    assert spans(sink) == ONE_CALL
    assert_measured(sink, calls)
    assert events(sink) == Counter([RETRY, "app.done"])


def assert_measured(sink: OtlpSink, calls: int = 1) -> None:
    assert value(sink, CALLS) == value(sink, DURATION) == value(sink, "app.requests") == calls
    assert any(one.name == STATES for one in sink.metrics())


def assert_nothing(sink: OtlpSink) -> None:
    assert sink.spans() == sink.logs() == []
    assert {one.name for one in sink.metrics() if not one.name.startswith("otel.sdk.")} == set()


@pytest.mark.parametrize("when", ["import", "main"])
def test_both_see_everything_once(when: str, run: Run) -> None:
    """Under the launcher, an app that sets its providers at import or in main() loses and doubles nothing."""
    run(WHEN=when)
    assert_all(run.own)
    assert_all(run.ours)


def test_the_app_shuts_down_itself(run: Run) -> None:
    """An app that shuts its providers down at the end of main() has lost nothing by then."""
    run(WHEN="main", SHUTDOWN="1")
    assert_all(run.own)
    assert_all(run.ours)


def test_opentelemetrys_own_launcher(run: Run) -> None:
    """Started by opentelemetry-instrument, with our distro, the app's own signals arrive with ours."""
    door = str(Path(sys.executable).parent / "opentelemetry-instrument")
    given = {"OTEL_PYTHON_DISTRO": "watchkeep", "OTEL_PYTHON_CONFIGURATOR": "watchkeep"}
    run(command=[door], WHEN="never", **given)
    assert_all(run.ours)


def test_the_app_never_sets_any(run: Run) -> None:
    """Without providers of the app's, its own spans, counts and events arrive with ours, correlated."""
    run(WHEN="never")
    assert_all(run.ours)
    assert_nothing(run.own)
    everything = [*run.ours.spans(), *run.ours.logs()]
    assert len({one.attributes[names.AGENT_RUNTIME_CORRELATION_ID] for one in everything}) == 1
    assert len({one.trace_id for one in everything}) == 1


def test_set_between_two_calls(run: Run) -> None:
    """What was before the app set its providers is ours alone, what comes after is both's; nothing is lost."""
    run(WHEN="between", CALLS="2")
    after = Counter(["work", "chat gpt-4o", "POST", "wait_for_connection"])
    assert spans(run.own) == after
    assert spans(run.ours) == ONE_CALL + after
    assert events(run.own) == Counter(["app.done"])
    assert events(run.ours) == Counter([RETRY, "app.done", "app.done"])
    assert_measured(run.own)
    assert_measured(run.ours, 2)


def test_the_app_says_who_it_is(run: Run) -> None:
    """The service name that only the app states is the name of all that we send."""
    run(WHEN="main")
    sent = [*run.ours.spans(), *run.ours.logs(), *run.ours.metrics()]
    assert {one.resource["service.name"] for one in sent} == {"the-app"}


def test_we_were_told_who_it_is(run: Run) -> None:
    """A name given from outside stays ours, and the app's records keep the app's."""
    run(WHEN="main", OTEL_SERVICE_NAME="told")
    assert {one.resource["service.name"] for one in run.ours.metrics() if one.scope.startswith("watchkeep.")} == {
        "told"
    }


@pytest.mark.parametrize("signal", ["traces", "metrics", "logs"])
def test_each_signal_alone(signal: str, run: Run) -> None:
    """An app that sets one provider has that signal in both places, and the others in ours alone."""
    run(WHEN="main", SIGNALS=signal)
    assert_all(run.ours)
    assert spans(run.own) == (ONE_CALL if signal == "traces" else Counter())
    assert value(run.own, CALLS) == (signal == "metrics")
    assert events(run.own) == (Counter([RETRY, "app.done"]) if signal == "logs" else Counter())


def test_join_false(run: Run) -> None:
    """WATCHKEEP_JOIN=false leaves everything to the app's own exporter."""
    run(WHEN="main", WATCHKEEP_JOIN="false")
    assert_all(run.own)
    assert_nothing(run.ours)


def test_join_false_between(run: Run) -> None:
    """What was before the app set its providers still arrives, once, though we do not join."""
    run(WHEN="between", CALLS="2", WATCHKEEP_JOIN="false")
    assert_all(run.ours)
    assert_measured(run.own)


def test_in_code(run: Run) -> None:
    """instrument() in code does not join by itself."""
    run(command=(), CODE="1", WHEN="main")
    assert_all(run.own)
    assert_nothing(run.ours)


def test_in_code_when_asked(run: Run) -> None:
    """instrument() joins when the setting asks for it, also providers that were set before."""
    run(command=(), CODE="1", WHEN="import", WATCHKEEP_JOIN="true")
    assert_all(run.own)
    assert_all(run.ours)


@pytest.mark.parametrize("exporter", ["first", "late"])
def test_the_same_end_point(exporter: str, run: Run) -> None:
    """An app that sends to our end point itself, by another name of this host, has nothing there twice."""
    own = run.ours.endpoint.replace("127.0.0.1", "localhost")
    run(WHEN="main", OWN=own, EXPORTER=exporter)
    assert_all(run.ours)


def test_both_launchers_and_code(run: Run) -> None:
    """Installed twice, by the launcher and in code, everything is there once."""
    run(CODE="1", WHEN="main")
    assert_all(run.own)
    assert_all(run.ours)


def test_ordinary_http(run: Run) -> None:
    """The app's ordinary HTTP has its span and its metric in the app's pipeline and in ours."""
    url = url_of(run.llm)
    run(WHEN="main", ORDINARY=f"{url}/models")
    extra = Counter(["GET", "wait_for_connection"])
    for sink in (run.own, run.ours):
        assert spans(sink) == ONE_CALL + extra
        (found,) = [one for one in sink.spans() if one.name == "GET"]
        assert found.scope == "opentelemetry.instrumentation.httpx"
        assert value(sink, names.METRIC_HTTP_CLIENT_REQUEST_DURATION.name) == 3


def test_the_apps_own_instrumentations(run: Run) -> None:
    """With httpx and openai instrumented by the app: one LLM span, one span for each attempt, counted once."""
    run(WHEN="main", HTTPX="1", GENAI="1")
    for sink in (run.own, run.ours):
        assert spans(sink) == ONE_CALL
        by_name = {one.name: one.scope for one in sink.spans()}
        assert by_name["POST"] == "opentelemetry.instrumentation.httpx"
        assert by_name["chat gpt-4o"] == "opentelemetry.instrumentation.genai.openai"
        assert value(sink, CALLS) == 1
        assert value(sink, "gen_ai.client.operation.duration") == 1
        assert value(sink, DURATION) == 0
        assert value(sink, names.METRIC_HTTP_CLIENT_REQUEST_DURATION.name) == 2
    sent = [dict(entry.headers)["traceparent"].split("-")[2] for entry in run.llm.log]
    assert sent == [one.span_id for one in run.ours.spans() if one.name == "POST"]


def url_of(llm: LLMServer) -> str:
    return llm.url if llm.url.endswith("/v1") else f"{llm.url}/v1"


# In one process


@pytest.fixture
def joined() -> Iterator[Capture]:
    """Capture with joining asked for; leave nothing behind."""
    with capture(replace(config.load().config, join=True)) as captured:
        watchkeep.instrument()
        yield captured
    joining.leave()


def chat(llm: LLMServer) -> None:
    with openai.OpenAI(base_url=url_of(llm), api_key="sk-test") as client:
        client.chat.completions.create(model="gpt-4o", messages=[{"role": "user", "content": "hi"}])


class Bare(trace.TracerProvider):
    """A provider that offers only what the API knows, above the SDK's."""

    def __init__(self) -> None:
        self.exported = InMemorySpanExporter()
        self.inner = TracerProvider(shutdown_on_exit=False)
        self.inner.add_span_processor(SimpleSpanProcessor(self.exported))

    def get_tracer(self, *args: Any, **kwargs: Any) -> trace.Tracer:
        return self.inner.get_tracer(*args, **kwargs)


def test_a_provider_that_cannot_be_read(
    joined: Capture, llm_server: LLMServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where a provider takes no further reader, our spans reach it and us, the same ones."""
    provider = Bare()
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", provider)
    chat(llm_server)
    theirs = {span.context.span_id: span.name for span in provider.exported.get_finished_spans()}
    assert {span.span_id: span.name for span in joined.spans()} == theirs
    assert len(theirs) == 3


def test_a_provider_that_makes_nothing(joined: Capture, llm_server: LLMServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """An app that set OpenTelemetry's no-op provider still has our spans in our pipeline, as one trace."""
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", trace.NoOpTracerProvider())
    chat(llm_server)
    assert len(joined.spans()) == 3
    assert len({span.trace_id for span in joined.spans()}) == 1


def test_a_reader_that_the_app_brought(joined: Capture, llm_server: LLMServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Histograms in the app's MeterProvider have our buckets, and exemplars that lead to our spans."""
    reader = InMemoryMetricReader()
    provider = MeterProvider([reader], shutdown_on_exit=False)
    monkeypatch.setattr(metrics._internal, "_METER_PROVIDER", provider)
    joining.saw("metrics", provider)
    chat(llm_server)
    data = reader.get_metrics_data()
    assert data is not None
    found = {m.name: m for r in data.resource_metrics for s in r.scope_metrics for m in s.metrics}
    (point,) = found[DURATION].data.data_points
    assert tuple(point.explicit_bounds) == names.METRIC_GEN_AI_CLIENT_INFERENCE_DURATION.buckets
    (call,) = joined.spans("chat")
    assert [one.span_id for one in point.exemplars] == [call.span_id]


def test_everything_is_given_back() -> None:
    """uninstrument() leaves OpenTelemetry's API as it was, object by object."""

    def api() -> list[Any]:
        return [
            vars(trace.ProxyTracer)["_tracer"],
            vars(_logs._internal.ProxyLogger)["_logger"],
            metrics._internal._PROXY_METER_PROVIDER,
            trace._set_tracer_provider,
            metrics._internal._set_meter_provider,
            _logs._internal._set_logger_provider,
        ]

    watchkeep.uninstrument()
    before = api()
    watchkeep.instrument()
    during = api()
    watchkeep.uninstrument()
    try:
        assert not any(one is other for one, other in zip(before, during, strict=True))
        assert all(one is other for one, other in zip(before, api(), strict=True))
    finally:
        watchkeep.instrument()


def test_proxies_from_before(joined: Capture) -> None:
    """Tracers, counters and loggers that were made before we came arrive, too, with sums asked at collection."""
    watchkeep.uninstrument()
    tracer, meter, logger = trace.get_tracer("early"), metrics.get_meter("early"), _logs.get_logger("early")
    counter = meter.create_counter("early.count")
    meter.create_observable_gauge("early.gauge", [lambda _: [metrics.Observation(7)]])
    watchkeep.instrument()
    with tracer.start_as_current_span("early span"):
        counter.add(2)
        logger.emit(_logs.LogRecord(body="early line"))
    assert [span.name for span in joined.spans()] == ["early span"]
    assert [log.body for log in joined.logs()] == ["early line"]
    assert joined.value("early.count") == 2
    assert joined.value("early.gauge") == 7


def test_coming_and_going_asks_nobody_twice(joined: Capture) -> None:
    """What is asked at collection is remembered once, however often we leave and come again."""
    watchkeep.uninstrument()
    gauge = {"callbacks": [lambda _: [metrics.Observation(7)]], "unit": "1", "description": "of the app"}
    metrics.get_meter("patient").create_observable_up_down_counter("patient.sum", **gauge)
    watchkeep.instrument()
    known = len(fallback._observables)
    for _ in range(3):
        watchkeep.uninstrument()
        watchkeep.instrument()
    assert len(fallback._observables) == known
    assert joined.value("patient.sum") == 7


def test_another_host_is_another_end_point() -> None:
    """Names of this host and the two doors of one collector are one receiver; anything else is another."""
    ours = endpoints.address("http://127.0.0.1:4318/v1/traces")
    same = ["http://localhost:4318/v1/traces/", "http://[::1]:4318/v1/traces", "localhost:4317"]
    other = ["http://collector:4318/v1/traces", "http://localhost:9999/v1/traces", "https://localhost/v1/traces"]
    assert all(endpoints.same(ours, endpoints.address(each)) for each in same)
    assert not any(endpoints.same(ours, endpoints.address(each)) for each in other)

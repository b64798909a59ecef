"""The files in collector/: the real servers accept them, and the real collector does what they promise."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from support.collector import CONFIG, GATES, Collector, program
from support.otlp_requests import Log, Metrics, Trace, any_value, merged, pairs
from support.otlp_sink import OtlpSink, attributes
from support.secret_shapes import ORDINARY, SECRET_PARTS, SECRETS
from watchkeep import names

EXTRA = {"WATCHKEEP_EXTRA_OTLP_ENDPOINT": "http://127.0.0.1:9"}
CANARY = "canary-7f3a tell nobody that the launch is on friday"


# -- each file, by the server that reads it ---------------------------------------------------------------


def checked(name: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    own = {key: text for key, text in os.environ.items() if not key.startswith("WATCHKEEP_")}
    return subprocess.run(
        [program(name), *arguments], env={**own, **environment}, cwd=CONFIG, capture_output=True, text=True, timeout=60
    )


@pytest.mark.parametrize(
    "overlays",
    [(), ("without-tempo.yaml",), ("extras.yaml",), ("extras.yaml", "without-tempo.yaml")],
    ids=lambda overlays: "+".join(overlays) or "alone",
)
def test_the_collector_accepts_its_files(overlays):
    """Alone and under each overlay the configuration names only what exists, in both roles that a connector needs."""
    files = [f"--config={name}" for name in ("otelcol.yaml", *overlays)]
    done = checked("otelcol", "validate", *files, GATES, **EXTRA)
    assert done.returncode == 0, done.stderr


def test_a_misspelled_key_is_refused():
    """The check can fail: an unknown key in an overlay is named."""
    done = checked("otelcol", "validate", "--config=otelcol.yaml", "--config=yaml:service::pipelinez::x: 1", GATES)
    assert done.returncode != 0
    assert "pipelinez" in done.stderr


def test_the_extra_back_end_without_an_address_is_refused():
    """extras.yaml does not start half configured: it says that an end point is missing."""
    done = checked("otelcol", "validate", "--config=otelcol.yaml", "--config=extras.yaml", GATES)
    assert done.returncode != 0
    assert "endpoint" in done.stderr


def test_loki_accepts_its_file():
    """Loki verifies loki.yaml."""
    done = checked("loki", "-config.file=loki.yaml", "-config.expand-env=true", "-verify-config")
    assert done.returncode == 0, done.stderr


def test_tempo_accepts_its_file():
    """Tempo verifies tempo.yaml."""
    done = checked("tempo", "-config.file=tempo.yaml", "-config.expand-env=true", "-config.verify=true")
    assert done.returncode == 0, done.stderr


def test_prometheus_accepts_its_file_and_finds_the_rules():
    """The rules tool checks prometheus.yaml and every rule file that it names by a relative path."""
    done = checked("promtool", "check", "config", "prometheus.yaml")
    assert done.returncode == 0, done.stderr + done.stdout
    assert re.search(r"[1-9]\d* rule files? found", done.stdout + done.stderr)


def test_prometheus_knows_every_shared_flag():
    """Each line of prometheus.args is one flag of Prometheus; one that is not would be refused."""
    lines = (CONFIG / "prometheus.args").read_text().splitlines()
    assert all(line.startswith("--") and " " not in line for line in lines)
    known = checked("prometheus", "--help").stderr + checked("prometheus", "--help").stdout
    for line in lines:
        flag = line.partition("=")[0].removeprefix("--")
        assert re.search(rf"--(\[no-\])?{re.escape(flag)}\b", known), line


# -- nothing listens off loopback --------------------------------------------------------------------------


def test_no_file_listens_beyond_loopback_by_itself():
    """Every address to listen on is loopback unless WATCHKEEP_STACK_BIND says otherwise."""
    for path in CONFIG.glob("*.yaml"):
        text = path.read_text()
        assert "0.0.0.0" not in text, path
        assert "[::]" not in text, path
        for default in re.findall(r"WATCHKEEP_STACK_BIND:-([^}]+)\}", text):
            assert default == "127.0.0.1", path


# -- live --------------------------------------------------------------------------------------------------


class Stack:
    """One collector and a sink for each store."""

    def __init__(self, folder: Path, metrics: OtlpSink, logs: OtlpSink, traces: OtlpSink, **options: Any) -> None:
        self.metrics, self.logs, self.traces = metrics, logs, traces
        self.collector = Collector(folder, prometheus=metrics, loki=logs, tempo=traces, **options)

    def sinks(self) -> tuple[OtlpSink, ...]:
        return self.metrics, self.logs, self.traces

    def arrived(self) -> bytes:
        """Give the bodies of all requests that reached a store, refused ones too."""
        return b"".join(each.body for sink in self.sinks() for each in sink.requests())

    def by_service(self) -> dict[str, bytes]:
        """Give what was accepted, the bytes of all its groups together, by service."""
        found: dict[str, bytes] = {}
        for sink, signal, request, groups in (
            (self.metrics, "metrics", ExportMetricsServiceRequest, "resource_metrics"),
            (self.logs, "logs", ExportLogsServiceRequest, "resource_logs"),
            (self.traces, "traces", ExportTraceServiceRequest, "resource_spans"),
        ):
            for each in sink.requests(f"/v1/{signal}"):
                for group in getattr(request.FromString(each.body), groups):
                    service = attributes(group.resource.attributes)["service.name"]
                    found[service] = found.get(service, b"") + group.SerializeToString()
        return found

    def pass_on(self, *parts: Any) -> None:
        """Send these, and wait until the stores have them."""
        for kind, signal in ((Trace, "traces"), (Log, "logs"), (Metrics, "metrics")):
            chosen = [each for each in parts if isinstance(each, kind)]
            if chosen:
                sink: OtlpSink = getattr(self, signal)
                before = len(self.items(signal))
                assert self.collector.send(signal, merged(chosen)) == 200
                count = len(chosen) * (4 if kind is Metrics else 1)
                sink.wait(lambda signal=signal, wanted=before + count: len(self.items(signal)) >= wanted)

    def items(self, signal: str) -> list[Any]:
        """Give what a store got, without the collector's own metrics."""
        sink: OtlpSink = getattr(self, signal)
        found = {"traces": sink.spans, "logs": sink.logs, "metrics": sink.metrics}[signal]()
        return [each for each in found if each.resource.get("service.name") != "watchkeep-collector"]


@pytest.fixture(scope="module")
def sinks() -> Iterator[tuple[OtlpSink, OtlpSink, OtlpSink]]:
    with OtlpSink() as metrics, OtlpSink() as logs, OtlpSink() as traces:
        yield metrics, logs, traces


@pytest.fixture(scope="module")
def running(sinks, tmp_path_factory) -> Iterator[Stack]:
    stack = Stack(tmp_path_factory.mktemp("collector"), *sinks)
    with stack.collector:
        yield stack


@pytest.fixture
def stack(running) -> Stack:
    for sink in running.sinks():
        sink.forget()
    return running


def test_an_event_name_is_kept_as_an_attribute(stack):
    """Loki drops EventName; the attribute event.name becomes its label event_name."""
    stack.pass_on(Log(None, event="resource.exhausted", **{"pool.name": "a"}))
    (log,) = stack.items("logs")
    assert log.attributes == {"pool.name": "a", "event.name": "resource.exhausted"}
    assert log.name == "resource.exhausted"
    assert log.body is None


# Where a text can stand, by signal: each takes a text and gives a request that holds it there.


def _trace(change) -> Any:
    def make(text: str) -> Trace:
        made = Trace()
        change(made, text)
        return made

    return make


def _log(change) -> Any:
    def make(text: str) -> Log:
        made = Log()
        change(made, text)
        return made

    return make


def _metrics(change) -> Any:
    def make(text: str) -> Metrics:
        made = Metrics()
        change(made, text)
        return made

    return make


def _each_point(attribute: str):
    def change(made: Metrics, text: str) -> None:
        for point in made.points:
            getattr(point, attribute).extend(pairs({"k": text}))

    return change


def _exemplar(made: Metrics, text: str) -> None:
    for point in (made.points[0], made.points[2], made.points[3]):
        point.exemplars.add(as_double=1.0, time_unix_nano=1, filtered_attributes=pairs({"k": text}))


PLACES = {
    "span name": lambda text: Trace(name=text),
    "span attribute": lambda text: Trace(k=text),
    "span attribute key": lambda text: Trace(**{text: "v"}),
    "span attribute in a map": lambda text: Trace(k={"a": {"b": text}}),
    "span attribute key in a map": lambda text: Trace(k={"a": {text: 1}}),
    "span attribute in a list": lambda text: Trace(k=["a", text]),
    "status": _trace(lambda made, text: setattr(made.span.status, "message", text)),
    "trace state": _trace(lambda made, text: setattr(made.span, "trace_state", f"v={text}")),
    "span event name": _trace(lambda made, text: made.event(text)),
    "span event attribute": _trace(lambda made, text: made.event("e", k=text)),
    "exception": _trace(lambda made, text: made.event("exception", **{"exception.message": text})),
    "link": _trace(lambda made, text: made.span.links.add(trace_id=b"\3" * 16, attributes=pairs({"k": text}))),
    "trace resource": _trace(lambda made, text: made.resource.attributes.extend(pairs({"k": text}))),
    "trace resource schema": _trace(lambda made, text: setattr(made.group, "schema_url", text)),
    "trace scope name": _trace(lambda made, text: setattr(made.scope, "name", text)),
    "trace scope version": _trace(lambda made, text: setattr(made.scope, "version", text)),
    "trace scope attribute": _trace(lambda made, text: made.scope.attributes.extend(pairs({"k": text}))),
    "trace scope schema": _trace(lambda made, text: setattr(made.inner, "schema_url", text)),
    "log body": lambda text: Log(text),
    "log body map": lambda text: Log({"a": {"b": text}}),
    "log body map key": lambda text: Log({"a": {text: 1}}),
    "log body list": lambda text: Log([{"a": text}]),
    "log body bytes": lambda text: Log(text.encode()),
    "log attribute": lambda text: Log(k=text),
    "log attribute key": lambda text: Log(**{text: "v"}),
    "log attribute in a map": lambda text: Log(k={"a": [text]}),
    "event name": lambda text: Log(event=text),
    "severity": _log(lambda made, text: setattr(made.record, "severity_text", text)),
    "log resource": _log(lambda made, text: made.resource.attributes.extend(pairs({"k": text}))),
    "log scope name": _log(lambda made, text: setattr(made.scope, "name", text)),
    "log scope attribute": _log(lambda made, text: made.scope.attributes.extend(pairs({"k": text}))),
    "metric name": lambda text: Metrics(name=text),
    "metric description": _metrics(lambda made, text: setattr(made.metrics[0], "description", text)),
    "metric unit": _metrics(lambda made, text: setattr(made.metrics[0], "unit", text)),
    "metric metadata": _metrics(lambda made, text: made.metrics[0].metadata.extend(pairs({"k": text}))),
    "metric label": _metrics(_each_point("attributes")),
    "metric label key": lambda text: Metrics(**{text: "v"}),
    "exemplar": _metrics(_exemplar),
    "metric resource": _metrics(lambda made, text: made.resource.attributes.extend(pairs({"k": text}))),
    "metric scope name": _metrics(lambda made, text: setattr(made.scope, "name", text)),
    "metric scope attribute": _metrics(lambda made, text: made.scope.attributes.extend(pairs({"k": text}))),
}


FORMS = ("{}", "at {} it failed")


@pytest.fixture(scope="module")
def passed(running) -> dict[str, bytes]:
    """Send every secret and every ordinary line in every place; give what arrived, by kind of text and place."""
    parts = []
    for place, make in PLACES.items():
        secrets = [make(form.format(secret)) for secret in SECRETS.values() for form in FORMS]
        for made in secrets:
            made.resource.attributes[0].value.string_value = f"secret in {place}"
        ordinary = [make(text) for text in ORDINARY]
        for made in ordinary:
            made.resource.attributes[0].value.string_value = f"ordinary in {place}"
        parts += [*secrets, *ordinary]
    running.pass_on(*parts)
    return running.by_service()


@pytest.mark.parametrize("place", PLACES)
def test_no_secret_passes(passed, place):
    """Every shape that our own package masks is masked by the collector alone, wherever it stands."""
    arrived = passed[f"secret in {place}"]
    left = {part for part in SECRET_PARTS if part.encode() in arrived}
    assert not left


@pytest.mark.parametrize("key", ["api_key", "OPENAI_API_KEY", "db.password", "client_secret", "http.header.set-cookie"])
def test_text_beside_a_telling_key_is_masked(stack, key):
    """The key alone gives a secret away, at the top and inside."""
    stack.pass_on(Trace(**{key: "plainly"}), Trace(k={"headers": {key: "plainly"}}), Log({"h": {key: "plainly"}}))
    assert b"plainly" not in stack.arrived()
    assert key.encode() in stack.arrived()


HARMLESS_PLACES = [
    place
    for place in PLACES
    if not any(word in place for word in ("key", "metric name", "unit", "bytes", "exemplar", "metadata", "link"))
]


@pytest.mark.parametrize("place", HARMLESS_PLACES)
def test_ordinary_text_arrives_as_it_was(passed, place):
    """Masking that eats ids, versions and prose would be switched off."""
    arrived = passed[f"ordinary in {place}"]
    kept = [text for text in ORDINARY if text.encode() in arrived or _as_json(text) in arrived]
    assert kept == ORDINARY
    assert b"****" not in arrived


def _as_json(text: str) -> bytes:
    """Give the text as it stands inside a body that became JSON."""
    return text.replace('"', '\\"').encode()


def test_our_own_names_arrive_as_they_are(stack):
    """Every metric, event and attribute of the catalogue passes under its name, with a value of its kind."""
    keys = sorted(
        value
        for name, value in vars(names).items()
        if name.isupper() and isinstance(value, str) and "." in value and not name.startswith(("SCHEMA", "METRIC"))
    )
    content = {names.GEN_AI_INPUT_MESSAGES, names.GEN_AI_OUTPUT_MESSAGES, names.GEN_AI_SYSTEM_INSTRUCTIONS}
    content |= {names.GEN_AI_TOOL_CALL_ARGUMENTS, names.GEN_AI_TOOL_CALL_RESULT, names.GEN_AI_TOOL_DEFINITIONS}
    metrics = [each for each in vars(names).values() if isinstance(each, names.Metric)]
    events = [each for each in vars(names).values() if isinstance(each, names.Event)]
    assert len(keys) > 100 and len(metrics) > 40  # noqa: PT018 - one truth: there is something to look at
    made = [Metrics(name=each.name) for each in metrics]
    for each, metric in zip(made, metrics, strict=True):
        each.metrics[0].description = metric.meaning
    stack.pass_on(Trace(**dict.fromkeys(keys, "plain")), *made, *(Log(None, event=each.name) for each in events))
    (span,) = stack.items("traces")
    assert set(span.attributes) == set(keys) - content
    assert set(span.attributes.values()) == {"plain"}
    arrived = {item.name: item.message.description for item in stack.items("metrics")}
    assert {name: text for name, text in arrived.items() if name.endswith(".sum")} == {
        f"{metric.name}.sum": metric.meaning for metric in metrics
    }
    assert [each.name for each in stack.items("logs")] == [event.name for event in events]


# What carries prompts, by the libraries that put them there.
MODEL = {"gen_ai.operation.name": "chat", "gen_ai.request.model": "gpt-4o"}
CHAT = '[{"role": "user", "content": "' + CANARY + '"}]'
CONTENT_KEYS = [
    *("gen_ai.input.messages", "gen_ai.output.messages", "gen_ai.system_instructions", "gen_ai.tool.definitions"),
    *("gen_ai.tool.call.arguments", "gen_ai.tool.call.result", "gen_ai.prompt", "gen_ai.completion"),
    *("gen_ai.prompt.0.content", "gen_ai.completion.0.tool_calls.0.arguments", "gen_ai.retrieval.query.text"),
    *("llm.prompts", "llm.completions.0", "llm.input_messages.0.message.content", "llm.invocation_parameters"),
    *("llm.prompt_template.variables", "llm.tools.0.tool.json_schema", "input.value", "output.value"),
    *("retrieval.documents.0.document.content", "reranker.query", "embedding.embeddings.0.embedding.text"),
    *("tool.parameters", "message.content", "traceloop.entity.input", "traceloop.entity.output"),
    *("langfuse.observation.input", "mlflow.spanInputs", "braintrust.input_json", "haystack.component.input"),
    *("ai.prompt.messages", "ai.response.text", "ai.toolCall.args", "crew_tasks", "pydantic_ai.all_messages"),
    *("all_messages_events", "request_data", "prompt", "completion", "messages", "user_input", "question"),
    *("http.request.body.content", "mcp.request.argument.path"),
]


def prompts() -> list[Any]:
    """Give spans, events and lines that hold the canary where prompts are put."""
    found: list[Any] = [Trace(**MODEL, **{key: CANARY}) for key in CONTENT_KEYS]
    found += [Log(**{key: CANARY}) for key in CONTENT_KEYS]
    found += [Trace(**{"anything.at.all": CHAT}), Log(f"sending {CHAT}"), Log(k=CHAT.replace('"', "'"))]
    for name, held in (
        ("gen_ai.content.prompt", {"gen_ai.prompt": CANARY}),
        ("gen_ai.user.message", {"content": CANARY}),
        ("gen_ai.choice", {"message": {"content": CANARY}}),
        ("exception", {"exception.message": CANARY, "exception.stacktrace": f"ValueError: {CANARY}"}),
    ):
        made = Trace(**MODEL)
        made.event(name, **held)
        found.append(made)
    failed = Trace(**MODEL)
    failed.span.status.message = f"400: {CANARY} is too long"
    found.append(failed)
    found.append(Log({"content": CANARY, "role": "user"}, event="gen_ai.user.message"))
    found.append(Log({"message": {"content": CANARY}}, **{"event.name": "gen_ai.choice"}))
    found.append(Log({"messages": [{"content": CANARY}], "id": 5}))
    found.append(Log({"request": {"body": {"messages": [{"content": CANARY}], "prompt": CANARY}}}))
    found.append(Log('{"model": "gpt-4o", "prompt": "' + CANARY + '"}'))
    found.append(Log(CANARY, event="gen_ai.client.inference.operation.details"))
    found.append(Log("", event="gen_ai.client.operation.exception", **{**MODEL, "exception.message": CANARY}))
    debug = Log(f"Request options: {CANARY}")
    debug.scope.name, debug.record.severity_number = "openai._base_client", 5
    found.append(debug)
    metric = Metrics(**{"gen_ai.prompt": CANARY})
    return [*found, metric]


def test_no_prompt_passes(stack):
    """A canary in the places where OpenTelemetry and other libraries put prompts reaches no store."""
    sent = prompts()
    assert CANARY.encode() in b"".join(each.request.SerializeToString() for each in sent)
    stack.pass_on(*sent)
    assert CANARY.encode() not in stack.arrived()


def test_what_is_said_about_a_call_stays_when_its_content_goes(stack):
    """Models, tokens, tools, times and other apps' errors are no content."""
    about = {
        **MODEL,
        "gen_ai.usage.prompt_tokens": 5,
        "gen_ai.usage.input_tokens": 5,
        "gen_ai.tool.name": "search",
        "gen_ai.prompt.name": "greeting",
        "gen_ai.output.type": "json",
        "llm.token_count.prompt": 5,
        "llm.model_name": "gpt-4o",
        "input.mime_type": "text/plain",
        "message.id": "7",
        "http.request.body.size": 5,
    }
    other = Trace(name="SELECT", **{"db.system.name": "sqlite"})
    other.span.status.message = "the table is locked"
    other.event("exception", **{"exception.message": "the table is locked"})
    stack.pass_on(Trace(**about), other, Log("Retrying in 2 s"))
    call, query = stack.items("traces")
    assert call.attributes == about
    assert query.message.status.message == "the table is locked"
    assert query.message.events[0].attributes[0].value.string_value == "the table is locked"
    assert [log.body for log in stack.items("logs")] == ["Retrying in 2 s"]


def test_what_the_masks_move_is_put_back(stack):
    """Names, versions, schema, status and state arrive where they were, and nothing is added."""
    made = Trace(name="chat gpt-4o", k="v")
    made.scope.name, made.scope.version, made.inner.schema_url = "lib", "1.2", "https://opentelemetry.io/schemas/1.44.0"
    made.group.schema_url = "https://opentelemetry.io/schemas/1.43.0"
    made.span.status.message, made.span.status.code, made.span.trace_state = "timed out", 2, "a=b"
    made.event("retry", n=1)
    log = Log("text", k=1.5)
    log.record.severity_text = "INFO"
    stack.pass_on(made, log)
    (span,) = stack.items("traces")
    assert (span.name, span.attributes, span.scope, span.schema_url) == (
        "chat gpt-4o",
        {"k": "v"},
        "lib",
        "https://opentelemetry.io/schemas/1.44.0",
    )
    assert span.resource == {"service.name": "raw"}
    assert (span.message.status.message, span.message.status.code, span.message.trace_state) == ("timed out", 2, "a=b")
    assert [(each.name, len(each.attributes)) for each in span.message.events] == [("retry", 1)]
    assert b"watchkeep.lifted" not in stack.arrived()
    (line,) = stack.items("logs")
    assert (line.body, line.attributes, line.message.severity_text) == ("text", {"k": 1.5}, "INFO")


def test_links_pass_when_our_package_has_cleaned_them(stack):
    """A link's attributes are out of reach of the collector: links of other senders are dropped, ours are kept."""
    ours, other = Trace(), Trace()
    ours.resource.attributes.extend(pairs({"telemetry.distro.name": "watchkeep"}))
    for each in (ours, other):
        each.span.links.add(trace_id=b"\3" * 16, span_id=b"\4" * 8)
    stack.pass_on(ours, other)
    assert [len(span.message.links) for span in stack.items("traces")] == [1, 0]


def test_content_passes_when_it_is_wanted_and_secrets_still_do_not(sinks, tmp_path):
    """WATCHKEEP_STACK_CONTENT=keep stores prompts; what is secret in them is masked all the same."""
    for sink in sinks:
        sink.forget()
    stack = Stack(tmp_path, *sinks, WATCHKEEP_STACK_CONTENT="keep")
    with stack.collector:
        text = f'[{{"role": "user", "content": "{CANARY}, my key is {SECRETS["openai"]}"}}]'
        stack.pass_on(Trace(**MODEL, **{"gen_ai.input.messages": text}))
    (span,) = stack.items("traces")
    assert span.attributes["gen_ai.input.messages"] == f'[{{"role": "user", "content": "{CANARY}, my key is ****"}}]'


# -- queues ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("signal", ["metrics", "logs", "traces"])
def test_a_store_that_is_away_holds_up_no_other_and_gets_everything_later(sinks, tmp_path, signal):
    """One store refuses: the others have theirs at once; and gets its own later, the collector killed between."""
    away = ("metrics", "logs", "traces").index(signal)
    for sink in sinks:
        sink.forget()
    sinks[away].mode("status", code=503, path="/v1/")
    stack = Stack(tmp_path, *sinks)
    with stack.collector as collector:
        for name, each in {"traces": Trace(k="kept"), "logs": Log("kept"), "metrics": Metrics(k="kept")}.items():
            assert collector.send(name, each.request) == 200
        for name, sink in zip(("metrics", "logs", "traces"), sinks, strict=True):
            if name != signal:
                sink.wait(lambda name=name: stack.items(name), timeout=5)
        collector.kill()
        sinks[away].mode("ok")
        collector.start()
        sinks[away].wait(lambda: stack.items(signal), timeout=20)


def test_no_secret_and_no_prompt_lies_in_a_queue(sinks, tmp_path):
    """With all stores away everything is on disk, and none of it is a secret or a prompt."""
    for sink in sinks:
        sink.forget()
        sink.mode("status", code=503)
    try:
        stack = Stack(tmp_path, *sinks)
        with stack.collector as collector:
            texts = list(SECRETS.values())
            parts = [make(text) for make in PLACES.values() for text in texts]
            for kind, signal in ((Trace, "traces"), (Log, "logs"), (Metrics, "metrics")):
                chosen = [each for each in (*parts, *prompts()) if isinstance(each, kind)]
                marked = {Trace: Trace(k="lies-in-the-queue"), Log: Log("lies-in-the-queue")}
                chosen.append(marked.get(kind) or Metrics(k="lies-in-the-queue"))
                assert collector.send(signal, merged(chosen)) == 200
            sinks[0].wait(lambda: collector.queued().count(b"lies-in-the-queue") >= 3)
            on_disk = collector.queued()
    finally:
        for sink in sinks:
            sink.mode("ok")
    assert not [part for part in (*SECRET_PARTS, CANARY) if part.encode() in on_disk]


# -- overlays ----------------------------------------------------------------------------------------------


def test_another_back_end_gets_everything_clean_with_its_own_headers(sinks, tmp_path):
    """extras.yaml sends all signals to a second place too, masked, with headers from a file; the stores keep theirs."""
    for sink in sinks:
        sink.forget()
    secrets = tmp_path / "headers.yaml"
    secrets.write_text('api-key: "k-1: {x}"\n')
    with OtlpSink() as extra:
        stack = Stack(
            tmp_path,
            *sinks,
            overlays=("extras.yaml",),
            WATCHKEEP_EXTRA_OTLP_ENDPOINT=extra.endpoint,
            WATCHKEEP_EXTRA_OTLP_HEADERS=f"${{file:{secrets}}}",
        )
        with stack.collector:
            stack.pass_on(Trace(k=SECRETS["openai"]), Log("here"), Metrics(k="v"), *prompts())
            extra.wait(lambda: {"/v1/traces", "/v1/logs", "/v1/metrics"} <= {each.path for each in extra.requests()})
            extra.wait(lambda: len(extra.spans()) == len(stack.items("traces")))
        assert {each.headers.get("api-key") for each in extra.requests()} == {"k-1: {x}"}
        arrived = b"".join(each.body for each in extra.requests())
    assert SECRETS["openai"].encode() not in arrived
    assert CANARY.encode() not in arrived
    assert b"here" in arrived


def test_a_dead_extra_back_end_holds_up_no_store(sinks, tmp_path):
    """What extras.yaml adds has a queue of its own."""
    for sink in sinks:
        sink.forget()
    stack = Stack(tmp_path, *sinks, overlays=("extras.yaml",), **EXTRA)
    with stack.collector:
        stack.pass_on(Trace(), Log(), Metrics())


def test_without_tempo_metrics_and_logs_go_on(sinks, tmp_path):
    """Traces are taken and end; nothing waits for a Tempo that is not there."""
    for sink in sinks:
        sink.forget()
    stack = Stack(tmp_path, *sinks, overlays=("without-tempo.yaml",))
    with stack.collector as collector:
        assert collector.send("traces", Trace(k="nowhere").request) == 200
        stack.pass_on(Log(), Metrics())
        assert not collector.queued().count(b"nowhere")
    assert stack.items("traces") == []


# -- its own telemetry -------------------------------------------------------------------------------------


def test_its_own_metrics_go_to_prometheus_by_otlp(sinks, tmp_path):
    """The collector counts what it took and passed on, under its own service name, and opens no port for it."""
    for sink in sinks:
        sink.forget()
    stack = Stack(tmp_path, *sinks)
    with stack.collector:
        stack.pass_on(Trace())

        def own() -> dict[str, Any]:
            return {
                each.name: each.resource["service.name"]
                for each in sinks[0].metrics()
                if each.resource.get("service.name") == "watchkeep-collector"
            }

        sinks[0].wait(lambda: "otelcol_exporter_sent_spans" in own(), timeout=25)
        found = own()
    wanted = ("otelcol_process_uptime", "otelcol_receiver_accepted_spans", "otelcol_exporter_queue_size")
    assert not [name for name in wanted if name not in found]


def test_a_request_that_inflates_is_refused(stack):
    """More than 16 MiB in one request, after decompression, is turned away; the collector goes on."""
    assert stack.collector.send("logs", Log("x" * (17 << 20)).request) in (400, 413)
    stack.pass_on(Log("after"))


def test_any_value_is_carried(stack):
    """Empty, numeric and boolean values are none of the masks' business."""
    values = {"a": 1, "b": 1.5, "c": True, "d": ["x", 1], "e": {"f": "g"}}
    stack.pass_on(Trace(**values))
    (span,) = stack.items("traces")
    assert span.attributes == values
    assert any_value(None).WhichOneof("value") is None

"""The standard variables of OTLP export: each one in the table, each one seen on a real end point."""

from __future__ import annotations

import base64
import shutil
import socket
import subprocess
import threading
import time
from contextlib import contextmanager
from dataclasses import replace

import pytest

from support.otlp_sink import OtlpSink
from watchkeep.export import settings
from watchkeep.export.model import HistogramPoint, LogData, MetricData, NumberPoint, Resource, Scope, SpanData
from watchkeep.export.pipeline import Pipeline
from watchkeep.export.settings import from_environment

SCOPE = Scope("test", "1")
SIGNALS = ("traces", "metrics", "logs")


def metrics():
    return [
        MetricData("calls", "{call}", "", "sum", [NumberPoint({}, 1, 2, 5)], SCOPE, monotonic=True),
        MetricData("time", "s", "", "histogram", [HistogramPoint({}, 1, 2, 1, 0.5, (1, 0), (1.0,))], SCOPE),
    ]


def span(name="s"):
    return SpanData(name, 1, 2, 0, 1, 1, 2, {}, SCOPE)


def log():
    return LogData(1, 1, 9, "INFO", "hello", {}, SCOPE)


@contextmanager
def running(environ):
    pipeline = Pipeline(from_environment(environ), Resource({"service.name": "x"}), drain=lambda: None, collect=metrics)
    pipeline.start()
    try:
        yield pipeline
    finally:
        pipeline.shutdown(0.5)


def send(environ):
    with running(environ) as pipeline:
        pipeline.add_spans([span()])
        pipeline.add_logs([log()])
        return pipeline.flush(3)


@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    """An authority, a server's and a client's certificate."""
    if shutil.which("openssl") is None:
        pytest.skip("needs the openssl command")
    where = tmp_path_factory.mktemp("tls")

    def run(*arguments):
        subprocess.run(["openssl", *arguments], cwd=where, check=True, capture_output=True)

    run(
        "req",
        "-x509",
        "-newkey",
        "rsa:2048",
        "-nodes",
        "-keyout",
        "ca.key",
        "-out",
        "ca.pem",
        "-subj",
        "/CN=ca",
        "-days",
        "2",
    )
    (where / "names").write_text("subjectAltName=IP:127.0.0.1,DNS:localhost")
    for name in ("server", "client"):
        run(
            "req",
            "-newkey",
            "rsa:2048",
            "-nodes",
            "-keyout",
            f"{name}.key",
            "-out",
            f"{name}.csr",
            "-subj",
            f"/CN={name}",
        )
        run("x509", "-req", "-in", f"{name}.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-days", "2",
            "-out", f"{name}.pem", "-extfile", "names")  # fmt: skip
    return where


@pytest.fixture
def sink():
    with OtlpSink() as running_sink:
        yield running_sink


# One entry for each variable of a signal: what it is set to, and how it shows.
CASES = {
    "ENDPOINT": ("{sink}/own/path", lambda request: request.path in ("/own/path", "/own/path/v1/{signal}")),
    "HEADERS": (
        "x-key=a%20b,X-Other=2",
        lambda request: (request.headers["x-key"], request.headers["x-other"]) == ("a b", "2"),
    ),
    "COMPRESSION": ("gzip", lambda request: request.headers["content-encoding"] == "gzip"),
    "PROTOCOL": ("http/protobuf", lambda request: request.headers["content-type"] == "application/x-protobuf"),
    "TIMEOUT": None,  # these four have tests of their own below
    "CERTIFICATE": None,
    "CLIENT_KEY": None,
    "CLIENT_CERTIFICATE": None,
    "INSECURE": None,
}


def test_every_variable_of_a_signal_has_its_case():
    """A variable that is added to the table must be seen on an end point too."""
    assert set(CASES) == {each.name for each in settings.OF_SIGNAL}


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case])
@pytest.mark.parametrize("signal", ["", *SIGNALS])
def test_a_variable_holds_for_all_signals_or_for_its_own(sink, name, signal):
    """OTEL_EXPORTER_OTLP_X reaches all three end points, OTEL_EXPORTER_OTLP_TRACES_X only that of traces."""
    value, shows = CASES[name]
    variable = f"OTEL_EXPORTER_OTLP_{signal.upper()}_{name}" if signal else f"OTEL_EXPORTER_OTLP_{name}"
    assert send({"OTEL_EXPORTER_OTLP_ENDPOINT": sink.endpoint, variable: value.format(sink=sink.endpoint)})
    requests = sink.requests()
    assert len({each.path for each in requests}) == 3
    if name == "ENDPOINT":
        expected = {"traces": "/v1/traces", "metrics": "/v1/metrics", "logs": "/v1/logs"}
        expected = (
            {key: f"/own/path{path}" for key, path in expected.items()}
            if not signal
            else {**expected, signal: "/own/path"}
        )
        assert {each.path for each in requests} == set(expected.values())
        return
    for request in requests:
        if name == "PROTOCOL" or signal in ("", request.path.removeprefix("/v1/")):
            assert shows(request)
        else:
            with pytest.raises((KeyError, AssertionError)):
                assert shows(request)


def test_compression_may_be_deflate(sink):
    """Deflate is zlib's format, and arrives."""
    assert send({"OTEL_EXPORTER_OTLP_ENDPOINT": sink.endpoint, "OTEL_EXPORTER_OTLP_COMPRESSION": "deflate"})
    assert {each.headers["content-encoding"] for each in sink.requests()} == {"deflate"}
    assert sink.spans()
    assert sink.logs()
    assert sink.metrics()


@pytest.mark.parametrize("variable", ["OTEL_EXPORTER_OTLP_TIMEOUT", "OTEL_EXPORTER_OTLP_TRACES_TIMEOUT"])
def test_the_timeout_is_in_seconds_and_ends_a_try(sink, variable):
    """A hanging end point is given up after the timeout, although the flush would wait longer."""
    sink.mode("hang")
    with running({"OTEL_EXPORTER_OTLP_ENDPOINT": sink.endpoint, variable: "0.3"}) as pipeline:
        pipeline.add_spans([span()])
        start = time.monotonic()
        assert not pipeline.flush(5)
        assert 0.25 < time.monotonic() - start < 2


def test_a_dripping_answer_does_not_outlast_the_timeout(sink):
    """The timeout is one deadline for all, not a pause between two bytes."""
    sink.mode("drip")
    with running({"OTEL_EXPORTER_OTLP_ENDPOINT": sink.endpoint, "OTEL_EXPORTER_OTLP_TIMEOUT": "0.5"}) as pipeline:
        pipeline.add_spans([span()])
        start = time.monotonic()
        assert not pipeline.flush(5)
        assert time.monotonic() - start < 2


def test_a_private_authority_is_trusted_when_named(certificates):
    """TLS works with the authority's file, and nothing is sent without it."""
    where = certificates
    with OtlpSink(str(where / "server.pem"), str(where / "server.key")) as sink:
        base = {"OTEL_EXPORTER_OTLP_ENDPOINT": sink.endpoint}
        assert not send(base)
        assert not sink.requests()
        for variable in ("OTEL_EXPORTER_OTLP_CERTIFICATE", "OTEL_EXPORTER_OTLP_TRACES_CERTIFICATE"):
            sink.forget()
            assert send({**base, variable: str(where / "ca.pem")}) == ("TRACES" not in variable)
            assert sink.spans()
            assert bool(sink.logs()) == ("TRACES" not in variable)


def test_a_client_certificate_is_shown_when_asked_for(certificates):
    """Mutual TLS works with the client's certificate and key, and fails without them."""
    where = certificates
    with OtlpSink(str(where / "server.pem"), str(where / "server.key"), str(where / "ca.pem")) as sink:
        base = {"OTEL_EXPORTER_OTLP_ENDPOINT": sink.endpoint, "OTEL_EXPORTER_OTLP_CERTIFICATE": str(where / "ca.pem")}
        assert not send(base)
        for signal in ("", "TRACES_"):
            sink.forget()
            send(
                {
                    **base,
                    f"OTEL_EXPORTER_OTLP_{signal}CLIENT_CERTIFICATE": str(where / "client.pem"),
                    f"OTEL_EXPORTER_OTLP_{signal}CLIENT_KEY": str(where / "client.key"),
                }
            )
            assert sink.spans()
            assert bool(sink.metrics()) == (not signal)


def test_insecure_decides_where_a_grpc_end_point_names_no_scheme(monkeypatch):
    """Without a scheme gRPC is TLS unless INSECURE says otherwise; a scheme goes before it."""
    monkeypatch.setattr(settings, "find_spec", lambda name: object())
    base = {"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc", "OTEL_EXPORTER_OTLP_ENDPOINT": "collector:4317"}
    assert from_environment(base).traces.endpoint == "https://collector:4317"
    assert from_environment({**base, "OTEL_EXPORTER_OTLP_INSECURE": "true"}).traces.endpoint == "http://collector:4317"
    one = from_environment({**base, "OTEL_EXPORTER_OTLP_LOGS_INSECURE": "true"})
    assert (one.logs.endpoint, one.traces.endpoint) == ("http://collector:4317", "https://collector:4317")
    plain = from_environment({**base, "OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4317"})
    assert plain.metrics.endpoint == "http://collector:4317"
    assert from_environment({"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}).traces.endpoint == "http://127.0.0.1:4317"


def test_grpc_without_its_extra_says_what_to_install(monkeypatch):
    """One clear line, and http/protobuf stands in."""
    monkeypatch.setattr(settings, "find_spec", lambda name: None)
    found = from_environment({"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"})
    assert found.traces.protocol == "http/protobuf"
    assert len(found.errors) == 1
    assert "pip install 'watchkeep[otlp]'" in found.errors[0]


def test_user_and_password_in_the_url_become_a_header(sink):
    """As with the official exporter; they are never shown."""
    endpoint = sink.endpoint.replace("http://", "http://us%40er:secret@")
    assert send({"OTEL_EXPORTER_OTLP_ENDPOINT": endpoint})
    expected = "Basic " + base64.b64encode(b"us@er:secret").decode()
    assert {each.headers["authorization"] for each in sink.requests()} == {expected}
    assert "secret" not in from_environment({"OTEL_EXPORTER_OTLP_ENDPOINT": endpoint}).traces.origin


def test_a_base_with_path_and_query_keeps_both(sink):
    """The signal's path goes behind the base's, before its query."""
    assert send({"OTEL_EXPORTER_OTLP_ENDPOINT": f"{sink.endpoint}/tenant/?x=1"})
    assert {each.path for each in sink.requests()} == {f"/tenant/v1/{signal}?x=1" for signal in SIGNALS}


@pytest.mark.parametrize(
    ("preference", "sums", "histograms"), [("cumulative", 2, 2), ("DELTA", 1, 1), ("lowmemory", 1, 1)]
)
def test_the_temporality_preference_is_followed(sink, preference, sums, histograms):
    """Counters and histograms are sent as asked for."""
    variable = "OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE"
    assert send({"OTEL_EXPORTER_OTLP_ENDPOINT": sink.endpoint, variable: preference})
    found = {each.name: each.message for each in sink.metrics()}
    assert found["calls"].sum.aggregation_temporality == sums
    assert found["time"].histogram.aggregation_temporality == histograms
    assert found["otel.sdk.processor.span.queue.size"].sum.aggregation_temporality == 2


def test_the_histogram_aggregation_is_handed_on():
    """Our own histograms have fixed buckets; the preference is for the app's meters."""
    variable = "OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION"
    assert from_environment({variable: "base2_exponential_bucket_histogram"}).exponential
    assert not from_environment({variable: "explicit_bucket_histogram"}).exponential


def test_the_metric_interval_is_followed(sink):
    """OTEL_METRIC_EXPORT_INTERVAL is in milliseconds."""
    with running({"OTEL_EXPORTER_OTLP_ENDPOINT": sink.endpoint, "OTEL_METRIC_EXPORT_INTERVAL": "200"}):
        sink.wait(lambda: len(sink.requests("metrics")) >= 4, 3)


@pytest.mark.parametrize(("prefix", "path"), [("OTEL_BSP", "traces"), ("OTEL_BLRP", "logs")])
def test_batch_size_and_queue_size_are_followed(sink, prefix, path):
    """A request holds no more than the batch size; more than the queue size is dropped, oldest first."""
    environ = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": sink.endpoint,
        f"{prefix}_MAX_EXPORT_BATCH_SIZE": "10",
        f"{prefix}_MAX_QUEUE_SIZE": "25",
    }
    pipeline = Pipeline(from_environment(environ), Resource({}), drain=lambda: None, collect=list)
    pipeline.add_spans([span(str(number)) for number in range(40)])
    pipeline.add_logs([log() for _ in range(40)])
    assert pipeline.flush(3)
    assert len(sink.requests(path)) == 3
    assert pipeline.counts()[path]["lost"] == {"queue_full": 15}
    if path == "traces":
        assert [each.name for each in sink.spans()] == [str(number) for number in range(15, 40)]
    pipeline.shutdown(1)


@pytest.mark.parametrize(("prefix", "path"), [("OTEL_BSP", "traces"), ("OTEL_BLRP", "logs")])
def test_the_schedule_delay_is_followed(sink, prefix, path):
    """A short delay sends soon, a long one waits for the flush."""
    for delay, requests in (("100", 1), ("60000", 0)):
        sink.forget()
        with running({"OTEL_EXPORTER_OTLP_ENDPOINT": sink.endpoint, f"{prefix}_SCHEDULE_DELAY": delay}) as pipeline:
            pipeline.flush(3)
            sink.forget()
            pipeline.add_spans([span()])
            pipeline.add_logs([log()])
            time.sleep(0.6)
            assert len(sink.requests(path)) == requests


@pytest.mark.parametrize(
    "variable", ["OTEL_BSP_EXPORT_TIMEOUT", "OTEL_BLRP_EXPORT_TIMEOUT", "OTEL_METRIC_EXPORT_TIMEOUT"]
)
def test_a_signals_export_timeout_ends_a_try_too(sink, variable):
    """It is in milliseconds; the shorter of the two timeouts counts."""
    sink.mode("hang")
    path = {"OTEL_BSP": "traces", "OTEL_BLRP": "logs"}.get(variable.removesuffix("_EXPORT_TIMEOUT"), "metrics")
    environ = {"OTEL_EXPORTER_OTLP_ENDPOINT": sink.endpoint, variable: "300"}
    pipeline = Pipeline(
        from_environment(environ), Resource({}), drain=lambda: None, collect=metrics,
        spans_enabled=path == "traces", logs_enabled=path == "logs", metrics_enabled=path == "metrics",
    )  # fmt: skip
    pipeline.add_spans([span()])
    pipeline.add_logs([log()])
    start = time.monotonic()
    assert not pipeline.flush(5)
    assert 0.25 < time.monotonic() - start < 2
    pipeline.shutdown(0.1)


SEEN = {
    *(f"OTEL_EXPORTER_OTLP_{each.name}" for each in settings.OF_SIGNAL),
    *(f"OTEL_EXPORTER_OTLP_{signal.upper()}_{each.name}" for signal in SIGNALS for each in settings.OF_SIGNAL),
    "OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE",
    "OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION",
    *("OTEL_METRIC_EXPORT_INTERVAL", "OTEL_METRIC_EXPORT_TIMEOUT"),
    *(
        f"{prefix}_{name}"
        for prefix in ("OTEL_BSP", "OTEL_BLRP")
        for name in ("SCHEDULE_DELAY", "MAX_QUEUE_SIZE", "MAX_EXPORT_BATCH_SIZE", "EXPORT_TIMEOUT")
    ),
}


def test_the_table_and_the_tests_name_the_same_variables():
    """Nothing is read that no test has seen at work, and every OTLP variable of the SDK is read."""
    from opentelemetry.sdk import environment_variables as official

    assert set(settings.names()) == SEEN
    known = {name for name in vars(official) if name.startswith("OTEL_EXPORTER_OTLP_")}
    assert known <= SEEN


BAD = {
    "ENDPOINT": [
        "ftp://x",
        "http://",
        "http://x:0",
        "http://x:99999",
        "http://a b",
        "http://x/\x01",
        "x" * 20_000,
        "http://[::1",
    ],
    "HEADERS": ["novalue", "a b=c", "=x", "a=b%0d%0ax:y", "a=\x00", ",".join(f"h{n}=1" for n in range(100)), "a=%00"],
    "TIMEOUT": ["soon", "-1", "0", "nan", "inf", "1e9", ""],
    "COMPRESSION": ["brotli", "gzip,none"],
    "CERTIFICATE": ["/nowhere/ca.pem"],
    "CLIENT_KEY": ["/nowhere/key.pem"],
    "CLIENT_CERTIFICATE": ["/nowhere/cert.pem"],
    "INSECURE": ["maybe"],
    "PROTOCOL": ["http/json", "carrier-pigeon"],
}


@pytest.mark.parametrize(("name", "text"), [(name, text) for name, texts in BAD.items() for text in texts])
@pytest.mark.parametrize("signal", ["", "TRACES_"])
def test_a_wrong_value_is_named_and_its_default_used(name, text, signal):
    """The app runs on with the default; one line says which variable is wrong, and shows no secret."""
    variable = f"OTEL_EXPORTER_OTLP_{signal}{name}"
    found = from_environment({variable: text})
    default = from_environment({})
    assert (found.traces, found.logs) == (default.traces, default.logs)
    assert len(found.errors) == (1 if text else 0)
    assert all(variable in error and len(error) < 300 for error in found.errors)
    if name in ("HEADERS", "ENDPOINT"):
        assert not any(text in error for error in found.errors if len(text) > 7)


@pytest.mark.parametrize("name", [each.name for each in settings.GENERAL])
@pytest.mark.parametrize("text", ["soon", "-5", "nan", "1e99"])
def test_a_wrong_number_is_named_and_its_default_used(name, text):
    """The same for intervals, sizes and delays."""
    found = from_environment({name: text})
    assert replace(found, errors=()) == from_environment({})
    assert len(found.errors) == 1


def test_a_wrong_general_value_does_not_hide_a_right_own_one():
    """Each variable is judged alone."""
    found = from_environment({"OTEL_EXPORTER_OTLP_TIMEOUT": "x", "OTEL_EXPORTER_OTLP_LOGS_TIMEOUT": "3"})
    assert (found.logs.timeout, found.traces.timeout) == (3.0, 10.0)
    assert len(found.errors) == 1


# Proxies.


@contextmanager
def proxy():
    """A proxy that remembers the first line and the headers of each connection, and passes it on."""
    seen: list[str] = []
    listener = socket.create_server(("127.0.0.1", 0))

    def pipe(source, target):
        try:
            while data := source.recv(65536):
                target.sendall(data)
        except OSError:
            pass
        finally:
            for each in (source, target):
                each.close()

    def serve(near):
        head = b""
        while b"\r\n\r\n" not in head:
            head += near.recv(65536)
        seen.append(head.decode("latin-1"))
        method, where, _ = head.split(b"\r\n")[0].decode().split()
        host, _, port = where.removeprefix("http://").split("/")[0].partition(":")
        far = socket.create_connection((host, int(port)))
        if method == "CONNECT":
            near.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
        else:
            far.sendall(head)
        threading.Thread(target=pipe, args=(far, near), daemon=True).start()
        pipe(near, far)

    def accept():
        while True:
            try:
                near, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=serve, args=(near,), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield f"127.0.0.1:{listener.getsockname()[1]}", seen
    finally:
        listener.close()


@pytest.fixture
def clean_proxies(monkeypatch):
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    return monkeypatch


@pytest.mark.parametrize("variable", ["http_proxy", "HTTP_PROXY", "all_proxy"])
def test_plain_http_goes_through_its_proxy(sink, clean_proxies, variable):
    """The proxy gets the whole URL, and the user's name where one is needed."""
    with proxy() as (address, seen):
        clean_proxies.setenv(variable, f"http://user:pass@{address}")
        assert send({"OTEL_EXPORTER_OTLP_ENDPOINT": sink.endpoint})
        assert seen[0].startswith(f"POST {sink.endpoint}/v1/")
        assert "proxy-authorization: basic dxnlcjpwyxnz" in seen[0].lower()
    assert sink.spans()


def test_https_tunnels_through_its_proxy(certificates, clean_proxies):
    """CONNECT, then TLS with the collector itself: the proxy sees no telemetry and no headers."""
    where = certificates
    with OtlpSink(str(where / "server.pem"), str(where / "server.key")) as sink, proxy() as (address, seen):
        clean_proxies.setenv("https_proxy", f"http://user:pass@{address}")
        environ = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": sink.endpoint,
            "OTEL_EXPORTER_OTLP_CERTIFICATE": str(where / "ca.pem"),
            "OTEL_EXPORTER_OTLP_HEADERS": "x-key=secret",
        }
        assert send(environ)
        assert sink.spans()
        assert sink.requests()[0].headers["x-key"] == "secret"
        assert all(head.startswith("CONNECT 127.0.0.1:") and "secret" not in head for head in seen)


@pytest.mark.parametrize("bypass", ["127.0.0.1", "*", "localhost,127.0.0.1"])
def test_no_proxy_goes_past_the_proxy(sink, clean_proxies, bypass):
    """A host in no_proxy is reached directly."""
    with proxy() as (address, seen):
        clean_proxies.setenv("http_proxy", f"http://{address}")
        clean_proxies.setenv("no_proxy", bypass)
        assert send({"OTEL_EXPORTER_OTLP_ENDPOINT": sink.endpoint})
        assert not seen

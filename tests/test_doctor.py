"""`watchkeep doctor`: what it says about an environment, and whether its exit status agrees."""

from __future__ import annotations

import importlib
import os
import socket
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from watchkeep import config, doctor, installer, probe
from watchkeep.export import settings as otlp
from watchkeep.hook import Target
from watchkeep.integrations import Integration, scope


class Receiver(ThreadingHTTPServer):
    """An OTLP/HTTP receiver that answers as told and remembers what it was asked."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.status = 200
        self.asked: list[tuple[str, dict[str, str], bytes]] = []
        self.url = f"http://127.0.0.1:{self.server_address[1]}"


class Handler(BaseHTTPRequestHandler):
    server: Receiver

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        self.server.asked.append((self.path, dict(self.headers), body))
        self.send_response(self.server.status)
        if 300 <= self.server.status < 400:
            self.send_header("Location", "/elsewhere")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        return


@pytest.fixture
def receiver():
    with Receiver() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join(5)


@pytest.fixture
def nobody() -> str:
    """A loopback URL on which nothing listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{taken.getsockname()[1]}"


@pytest.fixture(autouse=True)
def quiet(monkeypatch, tmp_path):
    """No settings from outside, and the working folder is empty."""
    for name in list(os.environ):
        if name.startswith(("WATCHKEEP_", "OTEL_")) or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    config.use(None)


def install(folder: Path, name: str, version: str, entry_points: str = "", requires: str = "") -> None:
    """Put a distribution's metadata on sys.path."""
    home = folder / f"{name.replace('-', '_')}-{version}.dist-info"
    home.mkdir(parents=True)
    (home / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{requires}\n")
    (home / "entry_points.txt").write_text(entry_points)


def levels(check) -> list[str]:
    return [f"{each.level}: {each.text}" for each in check()]


def doctor_command(**extra: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "watchkeep", "doctor"],
        env={**os.environ, **extra},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def test_all_is_well(receiver: Receiver) -> None:
    """With a receiver that answers and this environment's libraries there is nothing to do: status 0."""
    done = doctor_command(OTEL_EXPORTER_OTLP_ENDPOINT=receiver.url)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.endswith("\nAll is well.\n")
    assert done.stderr == ""
    assert "openai: openai 3." in done.stdout
    assert "will be watched" in done.stdout
    assert [path for path, _, _ in receiver.asked] == ["/v1/traces", "/v1/metrics", "/v1/logs"]


def test_something_to_do(nobody: str) -> None:
    """A wrong setting and a dead end point are named with what to do: status 1."""
    done = doctor_command(OTEL_EXPORTER_OTLP_ENDPOINT=nobody, WATCHKEEP_LABELCAP="3", OTEL_BSP_SCHEDULE_DELAY="x")
    assert done.returncode == 1
    assert "did you mean WATCHKEEP_LABEL_CAP?" in done.stdout
    assert "OTEL_BSP_SCHEDULE_DELAY" in done.stdout
    assert f"{nobody}/v1/traces does not answer" in done.stdout
    assert done.stdout.count("does not answer") == 1, "one line for an end point that all signals share"
    assert done.stdout.endswith("\n3 things to do.\n")


# Where it goes


def target(url: str, **extra: str) -> otlp.Target:
    environ = {"OTEL_EXPORTER_OTLP_ENDPOINT": url, **extra}
    return otlp.from_environment(environ).traces


@pytest.mark.parametrize(
    ("status", "good", "says"),
    [
        (200, True, "answers 200"),
        (202, True, "answers 202"),
        (301, False, "redirects"),
        (401, False, "OTEL_EXPORTER_OTLP_HEADERS"),
        (404, False, "port and path"),
        (503, False, "look at its log"),
    ],
)
def test_what_a_receiver_answers(receiver: Receiver, status: int, good: bool, says: str) -> None:
    """Each kind of answer is told apart, from one empty request with the settings' headers."""
    receiver.status = status
    answer = probe.ask(target(receiver.url, OTEL_EXPORTER_OTLP_HEADERS="api-key=secret"))
    assert (answer.reached, answer.good) == (True, good)
    assert says in answer.text
    assert "secret" not in answer.text
    ((path, headers, body),) = receiver.asked
    assert (path, body) == ("/v1/traces", b"")
    assert headers["Content-Type"] == "application/x-protobuf"
    assert headers["Api-Key"] == "secret"


def test_a_silent_end_point(monkeypatch) -> None:
    """An end point that accepts and says nothing costs a short wait and is named."""
    monkeypatch.setattr(probe, "SECONDS", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as server:
        answer = probe.ask(target(f"http://127.0.0.1:{server.getsockname()[1]}"))
    assert not answer.good
    assert "timed out" in answer.text


@pytest.mark.parametrize("url", ["https://user:pass@127.0.0.1:1/x?key=1"])
def test_an_end_point_that_cannot_be_reached(url: str) -> None:
    """Whatever goes wrong is one line without secrets."""
    answer = probe.ask(target(url))
    assert not answer.reached
    assert "pass" not in answer.text
    assert "key" not in answer.text


def test_a_grpc_end_point(nobody: str) -> None:
    """A gRPC end point is only connected to, since nothing can be asked without gRPC."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        wanted = otlp.Target("traces", f"http://127.0.0.1:{server.getsockname()[1]}", protocol=otlp.GRPC)
        assert probe.ask(wanted).good
    assert not probe.ask(otlp.Target("traces", nobody, protocol=otlp.GRPC)).good


def test_a_signal_that_is_off_is_not_asked_for(receiver: Receiver, monkeypatch) -> None:
    """Only the end points of signals that are exported are asked."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", receiver.url)
    monkeypatch.setenv("OTEL_LOGS_EXPORTER", "none")
    monkeypatch.setenv("WATCHKEEP_METRICS", "false")
    assert len(list(doctor._end_points())) == 1
    assert [path for path, _, _ in receiver.asked] == ["/v1/traces"]


# Libraries


def made(**changes: object) -> Integration:
    values = {"name": "made", "scope": scope("made", ""), "targets": (), **changes}
    return Integration(**values)  # type: ignore[arg-type]


def test_a_library_that_is_absent_or_out_of_range(tmp_path: Path, monkeypatch) -> None:
    """An absent library is a note, one outside the supported range something to do."""
    monkeypatch.syspath_prepend(str(tmp_path))
    wanted = made(supported={"wk-lib": ("2.0", "3")})
    (absent,) = doctor._integration(wanted)
    assert (absent.level, "not installed" in absent.text) == ("note", True)
    install(tmp_path, "wk-lib", "3.1")
    importlib.invalidate_caches()
    (outside,) = doctor._integration(wanted)
    assert outside.level == "todo"
    assert "wk-lib 3.1 (supported: from 2.0 and below 3)" in outside.text


def test_a_missing_seam(tmp_path: Path, monkeypatch) -> None:
    """A needed seam that is gone is something to do, an optional one a note; both are named."""
    monkeypatch.syspath_prepend(str(tmp_path))
    install(tmp_path, "wk-lib", "2.1")
    (tmp_path / "wk_seams.py").write_text("class Client:\n    def send(self): ...\n")
    importlib.invalidate_caches()
    wanted = made(
        supported={"wk-lib": ("2.0", "3")},
        targets=(
            Target("wk_seams:Client.send"),
            Target("wk_seams:Client.gone"),
            Target("wk_seams:Client.extra", needed=False),
        ),
    )
    found = list(doctor._integration(wanted))
    assert [each.level for each in found] == ["todo", "note"]
    assert "wk_seams:Client.gone" in found[0].text
    assert "wk_seams:Client.extra" in found[1].text
    assert len(installer.check(wanted)) == 2


def test_a_library_that_does_not_import(tmp_path: Path, monkeypatch) -> None:
    """A library that raises while it is imported is named, and doctor goes on."""
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr("watchkeep.guard.raising", False)
    install(tmp_path, "wk-lib", "2.1")
    (tmp_path / "wk_broken.py").write_text("raise RuntimeError('broken')\n")
    importlib.invalidate_caches()
    wanted = made(supported={"wk-lib": ("2.0", "")}, targets=(Target("wk_broken:Client.send"),))
    (found,) = doctor._integration(wanted)
    assert (found.level, "wk_broken cannot be imported" in found.text) == ("todo", True)


def test_switched_off_integrations(monkeypatch) -> None:
    """A switched-off integration and a switched-off process are told."""
    monkeypatch.setenv("WATCHKEEP_DISABLED_INTEGRATIONS", "openai")
    assert any("openai: switched off" in line for line in levels(doctor._libraries))
    monkeypatch.setenv("WATCHKEEP_ENABLED", "false")
    assert any(line.startswith("todo: WATCHKEEP_ENABLED=false") for line in levels(doctor._switches))


def test_streams_without_token_counts(monkeypatch) -> None:
    """Doctor says which streams will have no token counts, until the setting asks for them."""
    (line,) = levels(doctor._tokens)
    assert "include_usage" in line
    assert "WATCHKEEP_ASK_USAGE=true" in line
    monkeypatch.setenv("WATCHKEEP_ASK_USAGE", "true")
    assert levels(doctor._tokens) == []


# Others


@pytest.mark.parametrize(
    ("name", "level", "says"),
    [
        ("opentelemetry-instrumentation-openai-v2", "todo", "is discontinued"),
        ("opentelemetry-instrumentation-openai", "todo", "OTEL_PYTHON_DISABLED_INSTRUMENTATIONS=theirs"),
        ("openinference-instrumentation-openai", "todo", "calls show twice"),
        ("traceloop-sdk", "note", "where the app starts it"),
        ("logfire", "note", "where the app starts it"),
    ],
)
def test_others_on_the_same_layer(tmp_path: Path, monkeypatch, name: str, level: str, says: str) -> None:
    """Whoever else instruments LLM calls is named, with what that means."""
    monkeypatch.syspath_prepend(str(tmp_path))
    install(tmp_path, name, "9.9", "[opentelemetry_instrumentor]\ntheirs = theirs:Instrumentor\n")
    importlib.invalidate_caches()
    (line,) = [each for each in levels(doctor._others) if f"{name} 9.9" in each]
    assert line.startswith(level)
    assert says in line
    monkeypatch.setenv("OTEL_PYTHON_DISABLED_INSTRUMENTATIONS", "theirs")
    (line,) = [each for each in levels(doctor._others) if f"{name} 9.9" in each]
    assert line.startswith("note")
    assert "is switched off" in line


def test_the_official_instrumentation_is_a_note() -> None:
    """Beside the official OpenAI instrumentation there is nothing to do: ours stands aside."""
    pytest.importorskip("opentelemetry.instrumentation.genai.openai")
    assert any(line.startswith("note: opentelemetry-instrumentation-genai-openai") for line in levels(doctor._others))


def test_the_other_launcher(monkeypatch) -> None:
    """With opentelemetry-distro installed, doctor says how to choose ours for opentelemetry-instrument."""
    pytest.importorskip("opentelemetry.distro")
    (line,) = levels(doctor._launchers)
    assert "OTEL_PYTHON_DISTRO=watchkeep OTEL_PYTHON_CONFIGURATOR=watchkeep" in line
    monkeypatch.setenv("OTEL_PYTHON_DISTRO", "watchkeep")
    monkeypatch.setenv("OTEL_PYTHON_CONFIGURATOR", "watchkeep")
    assert levels(doctor._launchers) == []


def test_an_instrumentor_of_a_layer_of_ours_is_said_not_to_load():
    """genai-openai is installed here, and `watchkeep run` leaves it alone: the doctor says the same."""
    done = subprocess.run(
        [sys.executable, "-m", "watchkeep", "doctor"], capture_output=True, text=True, timeout=60, check=False
    )
    assert "openai (opentelemetry_instrumentation_genai_openai): not loaded, the layer is ours" in done.stdout

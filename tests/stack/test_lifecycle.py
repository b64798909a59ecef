"""`watchkeep stack` with the real servers, as a user types it: up, status, logs, down; what is kept and restarted."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from stack import raw
from stack.client import Loki, Prometheus, Tempo, eventually
from watchkeep.stack import state as states
from watchkeep.stack.native import free_ports
from watchkeep.stack.servers import port_variables

MUST = ("collector", "prometheus", "alertmanager", "loki")


@dataclass
class Command:
    """The command, with a home and ports of its own."""

    environ: dict[str, str]
    home: Path
    ports: Mapping[str, int]

    def __call__(self, *words: str, seconds: float = 90) -> subprocess.CompletedProcess[str]:
        """Type it."""
        command = [sys.executable, "-m", "watchkeep", "stack", *words]
        return subprocess.run(command, env=self.environ, capture_output=True, text=True, timeout=seconds, check=False)

    def url(self, port: str) -> str:
        """Return the address of a port."""
        return f"http://127.0.0.1:{self.ports[port]}"

    def pid(self, server: str) -> int:
        """Return a server's process id, as the command wrote it down."""
        state = states.read(self.home)
        assert state is not None
        return state.servers[server].process.pid


@pytest.fixture(scope="module")
def command(servers: Mapping[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Command]:
    """The command; whatever happens, nothing runs afterwards."""
    ports, home = free_ports(), tmp_path_factory.mktemp("lifecycle") / "home"
    environ = {**servers, **port_variables(ports, {}), "WATCHKEEP_STACK_HOME": str(home), "HOME": str(home.parent)}
    environ["WATCHKEEP_STACK_CACHE"] = str(_cache())
    made = Command(environ, home, ports)
    yield made
    made("down")


def _cache() -> Path:
    from watchkeep.stack import layout

    return layout.cache(os.environ)


@pytest.fixture(scope="module")
def running(command: Command) -> Command:
    """The servers are up, and one line, one span and one sample are stored."""
    done = command("up", "--native")
    assert done.returncode == 0, done.stderr
    assert "servers are ready after" in done.stdout
    given = raw.resource("kept")
    trace = "0af7651916cd43dd8448eb211c80319c"
    for request in (
        raw.logs(given, [raw.record("to be kept", {})]),
        raw.traces(given, [raw.span("kept", {}, traceId=trace)]),
        raw.metrics(given, [raw.gauge("tests.kept", [({}, 1)])]),
    ):
        assert raw.post(command.url("otlp_http"), request) == 200
    eventually(lambda: stored(command), 30, "it is stored")
    return command


def stored(command: Command) -> bool:
    """Whether line, sample and, where there is Tempo, span are found."""
    lines = Loki(command.url("loki")).lines('{service_name="kept"}', time.time() - 600)
    samples = Prometheus(command.url("prometheus")).instant('last_over_time(tests_kept{service_name="kept"}[10m])')
    state = states.read(command.home)
    assert state is not None
    tempo = "tempo" not in state.servers or Tempo(command.url("tempo")).trace("0af7651916cd43dd8448eb211c80319c")
    return bool(lines and samples and tempo)


def test_status_shows_every_server(running: Command) -> None:
    """`status` names each server as ready, and says that alerts reach nobody while no way to people is set."""
    done = running("status")
    assert done.returncode == 0, done.stdout + done.stderr
    for server in MUST:
        assert re.search(rf"^{server}\s.*\bready\b", done.stdout, re.MULTILINE), done.stdout
    assert "nobody" in done.stdout


def test_logs_are_shown(running: Command) -> None:
    """`logs` shows what a server wrote."""
    done = running("logs", "prometheus")
    assert done.returncode == 0
    assert "Server is ready to receive web requests" in done.stdout


def test_a_killed_server_is_started_again(running: Command) -> None:
    """Prometheus is killed; soon it is ready again, with what it had."""
    before = running.pid("prometheus")
    os.kill(before, signal.SIGKILL)
    eventually(lambda: running.pid("prometheus") != before, 20, "another process has its place")
    eventually(lambda: stored(running), 30, "what was stored is there")
    assert eventually(lambda: running("status").returncode == 0, 20, "all is well again", 1)


def test_what_was_stored_is_there_after_a_restart(running: Command) -> None:
    """`down`, and `up` again: nothing runs in between, and line, sample and span are still found."""
    assert running("down").returncode == 0
    assert states.read(running.home) is None
    assert running("status").returncode == 1
    assert running("up", "--native").returncode == 0
    eventually(lambda: stored(running), 30, "what was stored is there")


def test_a_broken_override_is_refused_in_one_line(running: Command) -> None:
    """A file of thresholds that is no YAML: one line names it and what to do; nothing is started."""
    assert running("down").returncode == 0
    broken = running.home / "overrides" / "mine.rules.yaml"
    broken.parent.mkdir(exist_ok=True)
    broken.write_text("groups: [name: x\n")
    try:
        done = running("up", "--native")
    finally:
        broken.unlink()
    assert done.returncode == 1
    said = [line for line in done.stderr.splitlines() if "mine.rules.yaml" in line]
    assert len(said) == 1, done.stderr
    assert states.read(running.home) is None

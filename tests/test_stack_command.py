"""`watchkeep stack`: start, supervision, stop and every failure, with tiny programs in the servers' places."""

from __future__ import annotations

import os
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from support.stack_home import Home, listening, processes, until
from watchkeep.stack import native as natives
from watchkeep.stack import state as states
from watchkeep.stack import supervisor as supervisors
from watchkeep.stack.errors import StackError
from watchkeep.stack.layout import files
from watchkeep.stack.native import Native, free_ports
from watchkeep.stack.process import Process
from watchkeep.stack.servers import PORTS, SERVERS
from watchkeep.stack.supervisor import Supervisor, trim

ALL = {"collector", "prometheus", "alertmanager", "loki"}
CANARY = "https://hooks.example.invalid/canary-4711"

pytestmark = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks at processes in /proc")


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    """Give a home whose processes are gone afterwards."""
    made = Home(tmp_path)
    yield made
    made.close()


def one_line(done: subprocess.CompletedProcess[str]) -> str:
    """Return the last thing said, of a command that failed; nothing but lines of ours stands on stderr."""
    assert done.returncode == 1, done
    lines = done.stderr.splitlines()
    assert all(line.startswith("watchkeep: ") for line in lines), done.stderr
    return lines[-1]


def nothing_left(home: Home) -> bool:
    """Whether no process, no state and no listener is there any more."""
    gone = not home.processes() and states.read(home.home) is None
    return gone and not any(listening(port) for port in home.ports.values())


# Up, status, down


def test_up_status_down(home: Home) -> None:
    """`up` returns when all are ready and says where to look; `status` shows each; `down` leaves nothing but data."""
    done = home.up()
    assert done.returncode == 0, done.stderr
    assert f"http://127.0.0.1:{home.ports['otlp_http']}, gRPC 127.0.0.1:{home.ports['otlp_grpc']}" in done.stdout
    assert "alerts        reach nobody" in done.stdout
    assert set(home.state.alive) == ALL
    shown = home.run("status")
    assert shown.returncode == 0, shown.stdout
    rows = {line.split()[0]: line.split() for line in shown.stdout.splitlines() if line.split()[0] in ALL}
    assert set(rows) == ALL
    for name, row in rows.items():
        assert row[1:5] == ["ready", "yes", str(home.pid(name)), f"127.0.0.1:{home.ports[SERVERS[name].port]}"]
        assert float(row[5]) > 1  # MiB of memory
        assert row[-1] == home.state.servers[name].version
    stopped = home.run("down")
    assert stopped.returncode == 0, stopped.stderr
    assert nothing_left(home)
    assert home.run("status").returncode == 1
    again = home.run("down")
    assert (again.returncode, again.stdout) == (0, "nothing runs\n")


def test_what_is_missing_is_said(home: Home) -> None:
    """Without Tempo and Grafana the rest runs, one line each says how to get them, and traces go nowhere."""
    done = home.up()
    assert done.returncode == 0
    for name in ("tempo", "grafana"):
        assert len([line for line in done.stderr.splitlines() if f"{name} is not on PATH" in line]) == 1
    command = Path(f"/proc/{home.pid('collector')}/cmdline").read_text()
    assert "without-tempo.yaml" in command
    assert "tempo is not on PATH" in home.run("status").stdout
    assert (home.home / "etc/collector/targets/tempo.yaml").read_text() == "[]\n"


def test_up_twice(home: Home) -> None:
    """A second `up` says that the stack runs already, and starts nothing."""
    home.up()
    before = {name: home.pid(name) for name in ALL}
    again = home.up()
    assert again.returncode == 0
    assert "already runs" in again.stderr
    assert {name: home.pid(name) for name in ALL} == before


def test_two_at_once(home: Home) -> None:
    """Of two `up` at the same time one starts the servers; the other says so in a line and disturbs nothing."""
    children = [home.start("up", "--native") for _ in range(2)]
    ended = [(child.communicate(timeout=60)[1], child.returncode) for child in children]
    assert min(status for _, status in ended) == 0, ended
    assert any("already runs" in text for text, _ in ended), ended
    assert set(home.state.alive) == ALL
    assert home.starts("loki") == 1


def test_state_is_kept(home: Home) -> None:
    """What a server kept, the secrets and the logs are there at the next start."""
    home.up()
    password = (home.home / "secrets/grafana_admin_password").read_text()
    home.run("down")
    home.up()
    assert {home.starts(name) for name in ALL} == {2}
    assert (home.home / "secrets/grafana_admin_password").read_text() == password
    log = home.run("logs", "loki").stdout
    assert "loki start 1" in log
    assert "loki start 2" in log


def test_only_this_user_reads_it(home: Home) -> None:
    """The home folder and every folder and secret in it are closed to others."""
    home.up()
    for path in (home.home, *(home.home / name for name in ("data", "logs", "run", "secrets", "run/secrets"))):
        assert stat.S_IMODE(path.stat().st_mode) == 0o700, path
    for path in (home.home / "secrets/grafana_admin_password", home.home / "run/state.json"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path


def test_a_start_waits_for_readiness(home: Home) -> None:
    """A server that runs but is not ready fails the start after the set time; the others are stopped."""
    home.tell("loki", "slow")
    line = one_line(home.up(WATCHKEEP_STACK_START_SECONDS="1"))
    assert "loki is not ready after 1 s" in line
    assert f"{home.home}/logs/loki.log" in line
    assert nothing_left(home)


def test_interrupted_start(home: Home) -> None:
    """Ctrl-C while a server is not ready yet leaves nothing behind."""
    home.tell("loki", "slow")
    child = home.start("up", "--native")
    until(lambda: listening(home.ports["loki"]))
    child.send_signal(signal.SIGINT)
    child.communicate(timeout=30)
    assert child.returncode == 130
    assert nothing_left(home)


def test_foreground(home: Home) -> None:
    """`--foreground` stays until Ctrl-C and then stops everything."""
    child = home.start("up", "--foreground")
    assert child.stderr is not None
    for line in child.stderr:
        if "all are ready" in line:
            break
    assert set(home.state.alive) == ALL
    child.send_signal(signal.SIGINT)
    child.communicate(timeout=30)
    assert child.returncode == 0
    assert nothing_left(home)


def test_a_server_left_out(home: Home) -> None:
    """`--without` leaves one out, and status says so."""
    assert home.run("up", "--native", "--without", "loki").returncode == 0
    assert set(home.state.alive) == ALL - {"loki"}
    assert "loki is left out" in home.run("status").stdout


def test_an_unknown_server(home: Home) -> None:
    """A server that is none is named, with those that are."""
    assert "no server lokki is known; known are collector" in one_line(home.run("up", "--native", "--without", "lokki"))


# Failures


def test_a_server_that_dies_at_start(home: Home) -> None:
    """One that ends before it is ready ends the start at once: its name, its last words, its log; no other is left."""
    home.tell("loki", "dies", "error: the schema is from the future")
    begun = time.monotonic()
    line = one_line(home.up())
    assert time.monotonic() - begun < 10
    assert "loki ended while starting (status 1): error: the schema is from the future" in line
    assert f"{home.home}/logs/loki.log" in line
    assert nothing_left(home)


@pytest.mark.parametrize("port", ["otlp_grpc", "prometheus"])
def test_a_port_taken(home: Home, port: str) -> None:
    """A port that is taken: one line names port, server and the variable that chooses another; nothing starts."""
    with socket.create_server(("127.0.0.1", home.ports[port])):
        line = one_line(home.up())
    assert f"port {home.ports[port]} ({PORTS[port].server}, {port}) is taken" in line
    assert PORTS[port].variables[0] + "=" in line
    assert not (home.home / "data/loki/starts").exists()
    assert nothing_left(home)


def test_a_port_that_is_none(home: Home) -> None:
    """A variable that is no port, or names another machine, is named with what to give."""
    line = one_line(home.up(WATCHKEEP_OTLP_HTTP_PORT="many"))
    assert "WATCHKEEP_OTLP_HTTP_PORT=many is no port; give a number" in line
    line = one_line(home.up(WATCHKEEP_PROMETHEUS_URL="http://elsewhere:9090"))
    assert "WATCHKEEP_PROMETHEUS_URL names another machine" in line


def test_a_program_missing_and_no_go(home: Home) -> None:
    """A program that is neither there nor can be built: one line names it, its version and the ways out."""
    (home.programs / "loki").unlink()
    line = one_line(home.up())
    assert "loki 3.7.8 is not on PATH" in line
    assert "install Go" in line
    assert nothing_left(home)


def test_a_broken_file(home: Home) -> None:
    """A file that a server's own check refuses: one line with that server's words; no server was started."""
    folder = home.home / "overrides"
    folder.mkdir(parents=True)
    (folder / "mine.rules.yaml").write_text("BROKEN")
    line = one_line(home.up())
    assert f"refuses {folder}/mine.rules.yaml: FAILED: " in line
    assert "overrides/mine.rules.yaml: line 1" in line
    assert not (home.home / "data/loki/starts").exists()
    assert nothing_left(home)


def test_a_file_of_extras_that_is_none(home: Home) -> None:
    """Further files for the collector must be there."""
    line = one_line(home.up(WATCHKEEP_STACK_EXTRAS="/no/such/file.yaml"))
    assert "/no/such/file.yaml is no file; WATCHKEEP_STACK_EXTRAS" in line


def test_an_unwritable_home(home: Home) -> None:
    """A home that cannot be written: one line names it and the variable that chooses another."""
    home.home.write_text("a file stands where the folder should")
    line = one_line(home.up())
    assert f"{home.home} cannot be written" in line
    assert "WATCHKEEP_STACK_HOME" in line


def test_an_unwritable_volume(home: Home) -> None:
    """One server's data that cannot be written is named; nothing starts."""
    (home.home / "data").mkdir(parents=True)
    (home.home / "data" / "loki").write_text("")
    line = one_line(home.up())
    assert f"{home.home}/data/loki cannot be written" in line
    assert nothing_left(home)


def test_a_state_that_cannot_be_understood(home: Home) -> None:
    """A state file of another making is named, not guessed at."""
    (home.home / "run").mkdir(parents=True)
    (home.home / "run/state.json").write_text('{"servers": []}')
    for action in ("status", "down"):
        assert f"{home.home}/run/state.json cannot be understood" in one_line(home.run(action, "--native"))


# Supervision


def test_a_server_that_dies_later(home: Home) -> None:
    """One that dies after it was ready is started again; status and log say so; the others go on."""
    home.up()
    before = {name: home.pid(name) for name in ALL}
    os.kill(before["loki"], signal.SIGKILL)
    until(lambda: home.pid("loki") != before["loki"] and home.state.servers["loki"].state == states.READY)
    assert {name: home.pid(name) for name in ALL - {"loki"}} == {name: before[name] for name in ALL - {"loki"}}
    shown = home.run("status")
    assert shown.returncode == 0
    assert "ready, 1 restarts" in shown.stdout
    assert "loki ended: SIGKILL" in shown.stdout
    log = home.run("logs", "supervisor").stdout
    assert "loki ended (SIGKILL: loki start 1); starting it again in 1 s" in log
    assert "loki is ready again" in log


def test_a_server_that_keeps_dying_is_given_up(tmp_path: Path, monkeypatch) -> None:
    """After so many deaths a server stays dead, the log says what to do, and the others go on."""
    home = Home(tmp_path)
    monkeypatch.setattr(supervisors, "_BACK_OFF", 0.0)
    said: list[str] = []
    native = Native(home.home, ports=home.ports, environ=home.environ)
    native.up()
    try:
        watch = Supervisor(native, said.append)
        home.tell("loki", "dies", "disk full")
        os.kill(native.pid("loki"), signal.SIGKILL)
        until(lambda: watch.look() or native.state.servers["loki"].state == states.DEAD)
        assert native.state.servers["loki"].restarts == supervisors.LIMIT
        assert "is given up (status 1: disk full)" in said[-1]
        watch.look()
        assert not native.alive("loki")
        assert native.ready("prometheus")
    finally:
        native.down()
    assert nothing_left(home)


def test_down_without_the_supervisor(home: Home) -> None:
    """When the supervisor was killed the servers go on, status says it, and `down` still stops every one."""
    home.up()
    os.kill(home.state.owner.pid, signal.SIGKILL)
    until(lambda: not home.state.owner.alive)
    assert set(home.state.alive) == ALL
    shown = home.run("status")
    assert shown.returncode == 1
    assert "the supervisor is gone" in shown.stdout
    done = home.run("down")
    assert done.returncode == 0
    assert nothing_left(home)


def test_up_without_the_supervisor(home: Home) -> None:
    """When the supervisor was killed, `up` ends what it left and starts all of it again."""
    home.up()
    before = {name: home.pid(name) for name in ALL}
    os.kill(home.state.owner.pid, signal.SIGKILL)
    until(lambda: not home.state.owner.alive)
    again = home.up()
    assert again.returncode == 0, again.stderr
    assert "loki of an earlier run was still there" in again.stderr
    assert set(home.state.alive) == ALL
    assert not any(home.pid(name) == before[name] for name in ALL)


def test_a_reused_process_id_is_left_alone(home: Home) -> None:
    """A process that has got the id of a server of ours, but started later, is never signalled."""
    with subprocess.Popen(["sleep", "60"]) as other:
        mine = Process.of(other.pid)
        (home.home / "run").mkdir(parents=True)
        earlier = states.Seen(state=states.READY, process=Process(other.pid, mine.started + "0"))
        states.write(home.home, states.State(Process(other.pid, "never"), {"loki": earlier}, {}, home.ports))
        assert home.run("down").stdout == "nothing runs\n"
        assert other.poll() is None
        assert mine.alive
        other.kill()
    assert not mine.alive


def test_a_server_that_does_not_stop(tmp_path: Path, monkeypatch) -> None:
    """One that ignores SIGTERM is ended after its grace; that is said."""
    monkeypatch.setitem(natives.SERVERS, "loki", replace(SERVERS["loki"], grace=0.5))
    home = Home(tmp_path)
    home.tell("loki", "deaf")
    said: list[str] = []
    with Native(home.home, ports=home.ports, environ=home.environ, say=said.append):
        begun = time.monotonic()
    assert time.monotonic() - begun < 5
    assert "loki did not stop within 0 s; ending it" in said
    assert nothing_left(home)


def test_kill_and_start_one(tmp_path: Path) -> None:
    """One server can be killed and started again alone, with its data."""
    home = Home(tmp_path)
    with Native(home.home, ports=home.ports, environ=home.environ) as stack:
        stack.kill("loki", signal.SIGKILL)
        assert not stack.alive("loki")
        assert not stack.ready("loki")
        stack.start("loki")
        assert stack.ready("loki")
        assert home.starts("loki") == 2
        assert stack.url("loki") == f"http://127.0.0.1:{home.ports['loki']}"
    assert nothing_left(home)


def test_logs_stay_small(tmp_path: Path) -> None:
    """A log that is too long becomes the older half, and whoever appends goes on in an empty one."""
    log = tmp_path / "loki.log"
    with log.open("ab", buffering=0) as writer:
        writer.write(b"x" * 100)
        trim(tmp_path, 50)
        writer.write(b"next")
    assert log.read_bytes() == b"next"
    assert (tmp_path / "loki.log.1").read_bytes() == b"x" * 100


def test_logs_follow(home: Home) -> None:
    """`logs -f` shows what is written from now on, of every server with its name."""
    home.up()
    shown = home.folder / "shown"
    with shown.open("w") as out:
        child = home.start("logs", "-f", "-n", "1", stdout=out)
    until(lambda: "loki         | loki start 1\n" in shown.read_text())
    with (home.home / "logs/loki.log").open("a") as log:
        log.write("and now ")
        log.flush()
        until(lambda: "supervisor   | " in shown.read_text())
        log.write("this\n")
    until(lambda: "loki         | and now this\n" in shown.read_text())
    child.send_signal(signal.SIGINT)
    child.communicate(timeout=10)
    assert "no server nope is known" in one_line(home.run("logs", "nope", "--native"))


# What the servers are told


def test_staged_byte_for_byte(tmp_path: Path) -> None:
    """The servers read the bundled files as they are; only the targets carry the addresses of this run."""
    home = Home(tmp_path)
    stack = Native(home.home, ports=home.ports, environ=home.environ)
    stack.stage()
    staged = [each.relative_to(stack.etc) for each in stack.etc.rglob("*") if each.is_file()]
    assert len(staged) > 20
    for each in staged:
        if each.parent.name != "targets":
            assert (stack.etc / each).read_bytes() == (files() / each).read_bytes(), each
    expected = f'- targets: ["127.0.0.1:{home.ports["alertmanager"]}"]\n'
    assert (stack.etc / "collector/targets/alertmanager.yaml").read_text() == expected
    stack.down()


def test_a_change_between_stage_and_start_holds(tmp_path: Path) -> None:
    """What is changed in the staged files before `up` is what the servers read."""
    home = Home(tmp_path)
    stack = Native(home.home, ports=home.ports, environ=home.environ)
    stack.stage()
    (stack.etc / "collector/loki.yaml").write_text("BROKEN")
    with pytest.raises(StackError, match="refuses"):
        stack.up()
    assert nothing_left(home)


def test_a_way_to_people(home: Home) -> None:
    """One variable makes alerts reach people; it stands in no argument and no environment of what stays running."""
    home.up(WATCHKEEP_ALERTS_WEBHOOK_URL=CANARY)
    assert "alerts reach people by webhook" in home.run("status").stdout
    ours = set(home.processes())
    assert len(ours) == len(ALL) + 1
    for pid, command, environ in processes():
        if pid in ours:
            assert CANARY.encode() not in command + environ, command
    home.run("down")
    home.up()
    assert "alerts reach nobody" in home.run("status").stdout


def test_a_way_to_people_from_a_file(home: Home) -> None:
    """A secret file does the same, and stays."""
    home.up()
    home.run("down")
    (home.home / "secrets/alerts_webhook_url").write_text(CANARY + "\n")
    home.up()
    assert "alerts reach people by webhook" in home.run("status").stdout


def test_a_further_back_end(home: Home) -> None:
    """Two variables add a back end to the collector; its headers reach it by a file that only this user reads."""
    headers = f"{{api-key: {CANARY}}}"
    home.up(WATCHKEEP_EXTRA_OTLP_ENDPOINT="http://127.0.0.1:9", WATCHKEEP_EXTRA_OTLP_HEADERS=headers)
    file = home.home / "run/secrets/extra_otlp_headers"
    assert file.read_text() == headers
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    ours = set(home.processes())
    told = {pid: command + environ for pid, command, environ in processes() if pid in ours}
    assert len(told) == len(ALL) + 1
    assert not any(CANARY.encode() in each for each in told.values())
    collector = told[home.pid("collector")]
    assert f"--config={home.home}/etc/collector/extras.yaml".encode() in collector
    assert f"WATCHKEEP_EXTRA_OTLP_HEADERS=${{file:{file}}}".encode() in collector


def test_free_ports() -> None:
    """Every port gets a number of its own that is free, and outside those that outgoing connections take."""
    found = free_ports()
    assert set(found) == set(PORTS)
    assert len(set(found.values())) == len(PORTS)
    assert not any(listening(port) for port in found.values())


# Containers


@pytest.fixture
def docker(home: Home) -> Path:
    """Put a `docker` on PATH whose engine answers, and which writes down what it is told."""
    told = home.folder / "told"
    script = home.programs / "docker"
    variables = '"$WATCHKEEP_SECRETS_DIR $WATCHKEEP_COLLECTOR_OVERLAY $WATCHKEEP_EXTRA_OTLP_HEADERS"'
    lines = ["#!/bin/sh", f'echo "$@" >>{told}', f"echo {variables} >>{told}"]
    lines.append(f'[ "$2" != --project-name ] || env >>{told}.env')
    script.write_text("\n".join(lines) + "\n")
    script.chmod(0o755)
    return told


def test_verbs_of_containers(home: Home, docker: Path) -> None:
    """Where an engine answers, each action is one of compose, with the bundled file."""
    base = f"compose --project-name watchkeep --file {files() / 'docker-compose.yml'}"
    for words, expected in (
        (["up"], "up --detach --wait"),
        (["down"], "down"),
        (["status"], "ps --all"),
        (["logs", "loki", "-n", "5"], "logs --tail=5 loki"),
        (["build"], "pull --ignore-buildable"),
    ):
        docker.unlink(missing_ok=True)
        home.run(*words)
        assert docker.read_text().splitlines()[-2] == f"{base} {expected}"
    password = home.home / "secrets/grafana_admin_password"
    assert stat.S_IMODE(password.stat().st_mode) == 0o600
    assert len(password.read_text()) > 20


def test_secrets_of_containers(home: Home, docker: Path) -> None:
    """Containers get secrets as files of one folder, and no variable of compose holds one."""
    home.run("up", WATCHKEEP_ALERTS_SLACK_URL=CANARY)
    folder = home.home / "run/secrets"
    assert (folder / "alerts_slack_url").read_text() == CANARY
    assert (folder / "grafana_admin_password").is_file()
    home.run("up", WATCHKEEP_EXTRA_OTLP_ENDPOINT="https://x", WATCHKEEP_EXTRA_OTLP_HEADERS=f"{{api-key: {CANARY}}}")
    in_container = "${file:/run/watchkeep/secrets/extra_otlp_headers}"
    assert docker.read_text().splitlines()[-1] == f"{folder} extras.yaml {in_container}"
    assert not (folder / "alerts_slack_url").exists()
    assert CANARY not in docker.with_suffix(".env").read_text()


def test_processes_in_spite_of_an_engine(home: Home, docker: Path) -> None:
    """With --native an engine is left alone, also by the commands that follow."""
    home.up()
    assert home.run("status").returncode == 0
    assert home.run("down").returncode == 0
    assert not docker.exists()


def test_an_engine_that_does_not_answer(home: Home, docker: Path) -> None:
    """Without an engine the servers are started as processes, and that is said."""
    (home.programs / "docker").write_text("#!/bin/sh\nexit 1\n")
    done = home.run("up")
    assert done.returncode == 0
    assert "no Docker engine answers" in done.stderr
    assert set(home.state.alive) == ALL


def test_help() -> None:
    """Every action says what it is for."""
    done = subprocess.run(
        [sys.executable, "-m", "watchkeep", "stack", "--help"], capture_output=True, text=True, timeout=30, check=True
    )
    assert all(each in done.stdout for each in ("up", "down", "status", "logs", "build"))

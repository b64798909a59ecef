"""The real servers as child processes, from the bundled files.

    stack = Native(home, ports=free_ports())
    stack.up()
    ...
    stack.down()

The keys of `ports` are those of servers.PORTS. Whoever makes a `Native` owns its children; the command does it in a
process of its own (supervisor.py).
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import random
import re
import signal
import socket
import subprocess
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import IO, BinaryIO

from watchkeep.stack import build, layout, staging
from watchkeep.stack import state as states
from watchkeep.stack.errors import StackError
from watchkeep.stack.process import Process
from watchkeep.stack.servers import LOOPBACK, PORTS, SERVERS, Place, Server, given_ports, groups_to_stop, port_variables

START_SECONDS = "WATCHKEEP_STACK_START_SECONDS"
EXTRAS = "WATCHKEEP_STACK_EXTRAS"
_POLL = 0.1
_CHECK_SECONDS = 60
_PORT_TRIES = 10_000
_BELOW_EPHEMERAL = (15_000, 32_000)  # an outgoing connection never takes one of these
_PLAIN = re.compile(r"(?i)^(?:path|home|user|logname|lang|lc_\w+|tz|tmpdir|ssl_cert_\w+|\w+_proxy|go[a-z]+)$")
_TELLING = re.compile(r"(?i)error|err=|failed|fatal|panic|cannot|unable|refuse|invalid|alertmanager\.sh")
_ANNOUNCED = 2  # further lines
_LINE = 400  # characters of a server's own words in ours


def free_ports() -> dict[str, int]:
    """Find a free loopback port for every port of the servers."""
    found: list[int] = []
    for _ in range(_PORT_TRIES):
        if len(found) == len(PORTS):
            return dict(zip(PORTS, found, strict=True))
        number = random.randrange(*_BELOW_EPHEMERAL)  # noqa: S311 - no secret
        if number not in found and _is_free(number):
            found.append(number)
    raise StackError("no free ports on loopback are to be had; end what holds them")


class Native:
    """The servers of one home folder; also a context manager that brings them up and down."""

    def __init__(
        self,
        home: Path,
        ports: Mapping[str, int] | None = None,
        environ: Mapping[str, str] | None = None,
        without: Collection[str] = (),
        say: build.Say = build.quiet,
    ) -> None:
        """Name the folder; `ports` wins over the variables, `environ` over the environment, nothing starts yet."""
        self._environ = {**os.environ, **(environ or {})}
        unknown = [name for name in without if name not in SERVERS]
        if unknown:
            raise StackError(f"no server {', '.join(unknown)} is known; known are {', '.join(SERVERS)}")
        self._say = say
        self._place = Place(
            home=Path(home).absolute(),
            ports={**given_ports(self._environ), **(ports or {})},
            absent=frozenset(without),
            extras=tuple(_extras(Path(home).absolute(), self._environ)),
        )
        self.state = states.State(Process.of(os.getpid()), ports=dict(self._place.ports))
        self.state.absent.update({name: f"{name} is left out (--without)" for name in without})
        self._children: dict[str, subprocess.Popen[bytes]] = {}
        self._staged = False
        self._lock: IO[str] | None = None
        self.cancelled = threading.Event()  # ends a start that still waits

    # What others ask

    @property
    def home(self) -> Path:
        """The folder of everything."""
        return self._place.home

    @property
    def etc(self) -> Path:
        """The staged files."""
        return self._place.etc

    @property
    def place(self) -> Place:
        """Where this run lives."""
        return self._place

    @property
    def names(self) -> list[str]:
        """The servers that run, or are meant to."""
        return [name for name in SERVERS if name not in self._place.absent]

    @property
    def missing(self) -> dict[str, str]:
        """Servers that do not run, and why."""
        return dict(self.state.absent)

    def url(self, port: str) -> str:
        """Give the address of a server, or of one of its ports, as a URL; `collector` is where OTLP/HTTP goes."""
        return f"http://{self._place.address(SERVERS[port].port if port in SERVERS else port)}"

    def log(self, name: str) -> Path:
        """Return a server's log file."""
        return self._place.logs / f"{name}.log"

    def pid(self, name: str) -> int:
        """Return a server's process id; 0 when it never ran."""
        return self._children[name].pid if name in self._children else 0

    def alive(self, name: str) -> bool:
        """Whether a server's process runs."""
        return name in self._children and self._children[name].poll() is None

    def ready(self, name: str) -> bool:
        """Ask a server itself whether it is ready."""
        return is_ready(SERVERS[name], self._place.ports)

    # From nothing to ready

    def __enter__(self) -> Native:
        self.up()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.down()

    def stage(self) -> None:
        """Copy the files into `etc`, without a start; what is changed there afterwards holds for the next `up`."""
        self._take()
        self._find()
        staging.stage(self._place, self._environ)
        staging.aim(self._place)
        self._staged = True

    def up(self) -> None:
        """Start every server and wait until all are ready; when one is not, stop the others and say why."""
        try:
            if not self._staged:
                self.stage()
            self.check_ports(self.names)
            self.check_files()
            for name in self.names:
                self._launch(name)
            self.wait_ready(self.names)
        except BaseException:
            self.down()
            raise

    def _take(self) -> None:
        """Hold the home folder alone, for as long as this process lives or until `down`."""
        if self._lock is not None:
            return
        layout.make(self._place.home)
        layout.make(self._place.run)
        file = (self._place.run / "lock").open("a")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            file.close()
            raise StackError(
                f"the stack of {self._place.home} already runs; `watchkeep stack status` shows it, "
                f"`watchkeep stack down` stops it, {layout.HOME_VARIABLE} names another folder"
            ) from None
        self._lock = file
        self._stop_orphans()

    def _stop_orphans(self) -> None:
        """End what an earlier run left behind when its owner was killed."""
        left = states.read(self._place.home)
        for name in left.alive if left else ():
            assert left is not None  # noqa: S101 - for the type checker
            self._say(f"{name} of an earlier run was still there; stopping it")
            left.servers[name].process.stop(SERVERS[name].grace if name in SERVERS else 10)

    def _find(self) -> None:
        """Find every program, and leave out the servers whose program can only come from elsewhere."""
        programs: dict[str, Path] = {}
        for name in self.names:
            server = SERVERS[name]
            try:
                for program in {server.program, server.check[0] if server.check else server.program}:
                    programs[program] = build.binary(program, self._environ, self._say)
            except StackError as error:
                if build.PROGRAMS[server.program].source:
                    raise
                self.state.absent[name] = str(error)
                self._say(f"{error} (the rest runs without it)")
        self._place = replace(self._place, absent=frozenset(self.state.absent), programs=programs)

    def check_ports(self, names: Sequence[str]) -> None:
        """Raise StackError naming the first port that is taken."""
        for name in names:
            for port in SERVERS[name].ports:
                number = self._place.ports[port]
                if not _is_free(number):
                    variable = PORTS[port].variables[0]
                    value = f"http://{LOOPBACK}:{number + 1}" if variable.endswith("_URL") else number + 1
                    raise StackError(
                        f"port {number} ({name}, {port}) is taken; end what listens there, or choose another one: "
                        f"{variable}={value}"
                    )

    def check_files(self) -> None:
        """Let each server verify its own files; raise StackError naming the first that is refused."""
        with ThreadPoolExecutor() as pool:
            for error in pool.map(self._refusal, self.names):
                if error:
                    raise StackError(error)

    def _refusal(self, name: str) -> str:
        check = SERVERS[name].check
        if check is None:
            return ""
        program, words = check
        done = subprocess.run(  # noqa: S603 - a program of ours
            [str(self._place.programs[program]), *words(self._place)],
            env=self._variables(name),
            cwd=self._place.run,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=_CHECK_SECONDS,
            check=False,
        )
        if done.returncode == 0:
            return ""
        said = _telling(done.stdout, first=True)
        named = re.search(re.escape(str(self._place.etc)) + r"/([\w./-]+\w)", said)
        source = staging.source(self._place, named[1] if named else SERVERS[name].file, self._environ)
        more = "".join(f" with {each}" for each in self._place.extras) if name == "collector" else ""
        return f"{name} refuses {source}{more}: {said}; mend that file and start again"

    # One server

    def start(self, name: str) -> None:
        """Start one server (again) and wait until it is ready."""
        self.launch(name)
        self.wait_ready([name])

    def launch(self, name: str) -> None:
        """Start one server without waiting."""
        if self.alive(name):
            return
        self.check_ports([name])
        self._launch(name)

    def kill(self, name: str, number: int = signal.SIGKILL) -> None:
        """Send one server a signal, and wait for its end where the signal ends it."""
        child = self._children[name]
        child.send_signal(number)
        if number not in (signal.SIGKILL, signal.SIGTERM, signal.SIGINT):
            return
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(SERVERS[name].grace)
        self._note(name, states.STOPPED)

    def _launch(self, name: str) -> None:
        server = SERVERS[name]
        program = self._place.programs[server.program]
        first = server.starter(self._place) if server.starter else [str(program)]
        with self.log(name).open("ab") as log:
            child = subprocess.Popen(  # noqa: S603 - a program of ours
                [*first, *server.argv(self._place)],
                env=self._variables(name),
                cwd=self._place.run,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                umask=0o077,
            )
        self._children[name] = child
        seen = self.state.servers.setdefault(name, states.Seen(address=self._place.address(server.port)))
        seen.process = Process.of(child.pid)
        seen.version = seen.version or self._version(server)
        self._note(name, states.STARTING)

    def _version(self, server: Server) -> str:
        program = build.PROGRAMS[server.program]
        path = self._place.programs[server.program]
        if path.is_relative_to(layout.cache(self._environ)):
            return program.version
        return build.version_of(program, path) or "unknown"

    def wait_ready(self, names: Sequence[str]) -> None:
        """Wait until servers are ready; raise StackError at once when one ends, or when it takes too long."""
        seconds = float(self._environ.get(START_SECONDS) or 60)
        begun = time.monotonic()
        waiting = list(names)
        while waiting:
            for name in list(waiting):
                self._fail_if_dead(name)
                if self.ready(name):
                    waiting.remove(name)
                    self._note(name, states.READY)
                    self._say(f"{name} is ready after {time.monotonic() - begun:.1f} s")
            if self.cancelled.is_set():
                raise StackError("stopped before all servers were ready")
            if waiting and time.monotonic() - begun > seconds:
                raise StackError(
                    f"{waiting[0]} is not ready after {seconds:.0f} s: {self.last_words(waiting[0])}; its log is "
                    f"{self.log(waiting[0])}; {START_SECONDS} gives it longer"
                )
            if waiting:
                time.sleep(_POLL)

    def _fail_if_dead(self, name: str) -> None:
        status = self._children[name].poll()
        if status is not None:
            raise StackError(
                f"{name} ended while starting ({_ending(status)}): {self.last_words(name)}; its log is {self.log(name)}"
            )

    def died(self, name: str) -> str:
        """Say how a server's process ended; empty while it runs."""
        status = self._children[name].poll() if name in self._children else None
        return "" if status is None else f"{_ending(status)}: {self.last_words(name)}"

    def last_words(self, name: str) -> str:
        """Give the line of a server's log that most likely says what is wrong."""
        return _telling(tail(self.log(name), 100))

    def _note(self, name: str, state: str) -> None:
        self.state.servers[name].state = state
        self.save()

    def save(self) -> None:
        """Write down what runs, for other commands."""
        states.write(self._place.home, self.state)

    # To nothing again

    def down(self) -> None:
        """Stop every server: first what sends, then what is sent to; end those that do not listen."""
        if self._lock is None:
            return
        running = [name for name in self._children if self.alive(name)]
        for group in groups_to_stop(running):
            self._stop(group)
        if self._children:
            states.remove(self._place.home)
        self._children.clear()
        self._staged = False
        self._lock.close()
        self._lock = None

    def _stop(self, names: Sequence[str]) -> None:
        for name in names:
            self._children[name].terminate()
        begun = time.monotonic()
        for name in names:
            child, grace = self._children[name], SERVERS[name].grace
            try:
                child.wait(max(0.1, begun + grace - time.monotonic()))
            except subprocess.TimeoutExpired:
                self._say(f"{name} did not stop within {grace:.0f} s; ending it")
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(child.pid, signal.SIGKILL)
                child.wait()

    # What a server is told

    def _variables(self, name: str) -> dict[str, str]:
        """Give a server its environment: no secret, except what the user's own files for the collector name."""
        given = {each: value for each, value in self._environ.items() if not staging.is_private(each)}
        if name != "collector":
            prefixes = ("WATCHKEEP_", "GF_") if name == "grafana" else ("WATCHKEEP_",)
            given = {each: value for each, value in given.items() if _PLAIN.match(each) or each.startswith(prefixes)}
        memory = SERVERS[name].memory
        if name == "collector":
            memory = int(given.setdefault("WATCHKEEP_COLLECTOR_MEMORY_MIB", str(memory)))
            given.update(staging.extra_headers(str(self._place.run / "secrets"), self._environ))
        given.setdefault("GOMEMLIMIT", f"{memory}MiB")
        given.update(port_variables(self._place.ports, self._environ))
        given.update(
            WATCHKEEP_STACK_BIND=LOOPBACK,
            WATCHKEEP_STACK_DATA=str(self._place.data),
            WATCHKEEP_STACK_ETC=str(self._place.etc),
            WATCHKEEP_SECRETS_DIR=str(self._place.run / "secrets"),
            WATCHKEEP_ALERTMANAGER_RUN=str(self._place.run / "alertmanager"),
        )
        if "alertmanager" in self._place.programs:
            given["WATCHKEEP_ALERTMANAGER_BIN"] = str(self._place.programs["alertmanager"])
        return given | (self._grafana() if name == "grafana" else {})

    def _grafana(self) -> dict[str, str]:
        return {
            "GF_SERVER_HTTP_ADDR": LOOPBACK,
            "GF_SERVER_HTTP_PORT": str(self._place.ports["grafana"]),
            "GF_PATHS_CONFIG": str(self._place.etc / "collector" / "grafana.ini"),
            "GF_PATHS_DATA": str(self._place.data / "grafana"),
            "GF_PATHS_LOGS": str(self._place.data / "grafana" / "log"),
            "GF_PATHS_PLUGINS": str(self._place.data / "grafana" / "plugins"),
            "GF_PATHS_PROVISIONING": str(self._place.etc / "dashboards" / "provisioning"),
            "GF_SECURITY_ADMIN_PASSWORD": f"$__file{{{staging.password_file(self._place)}}}",
        }


def _extras(home: Path, environ: Mapping[str, str]) -> Iterator[Path]:
    """Give the further files of the collector: the user's, parted as PATH is, or the bundled one that is asked for."""
    for text in filter(None, environ.get(EXTRAS, "").split(os.pathsep)):
        path = Path(text).expanduser().absolute()
        if not path.is_file():
            raise StackError(f"{path} is no file; {EXTRAS} names further files of configuration for the collector")
        yield path
    bundled = staging.overlay(environ)
    if bundled and not environ.get(EXTRAS):
        if not (layout.files() / "collector" / bundled).is_file():
            raise StackError(f"{staging.OVERLAY}={bundled} is no file of collector/; {EXTRAS} names one of your own")
        yield home / "etc" / "collector" / bundled


def _is_free(number: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the servers do, else TIME_WAIT counts as taken
        try:
            probe.bind((LOOPBACK, number))
        except OSError:
            return False
    return True


_DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def get(url: str, seconds: float = 2.0) -> str | None:
    """Get a page of a server on loopback, never by a proxy; None unless it answers with 2xx."""
    try:
        with _DIRECT.open(url, timeout=seconds) as answer:
            text: str = answer.read().decode("utf-8", "replace")
            return text
    except (OSError, ValueError, urllib.error.URLError):
        return None


def is_ready(server: Server, ports: Mapping[str, int]) -> bool:
    """Ask a server itself whether it is ready."""
    return get(f"http://{LOOPBACK}:{ports[server.ready_port]}{server.ready}") is not None


def tail(path: Path, lines: int) -> str:
    """Read the last lines of a log, 64 KiB at most."""
    try:
        with path.open("rb") as file:
            return last(file, lines)
    except OSError:
        return ""


def last(reader: BinaryIO, lines: int) -> str:
    """Read the last lines of an open log, 64 KiB at most, and leave the reader behind them."""
    end = reader.seek(0, os.SEEK_END)
    begin = reader.seek(max(0, end - 65_536))
    return "\n".join(reader.read(end - begin).decode("utf-8", "replace").splitlines()[-lines:])


def _telling(text: str, first: bool = False) -> str:
    """Pick what says what is wrong: the first or last line that sounds like it, and what its colon announces."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    found = [at for at, line in enumerate(lines) if _TELLING.search(line)] or list(range(len(lines)))
    if not found:
        return "it said nothing"
    begin = end = found[0] if first else found[-1]
    while end - begin < _ANNOUNCED and lines[end].endswith(":") and end + 1 < len(lines):
        end += 1
    return " ".join(lines[begin : end + 1])[:_LINE]


def _ending(status: int) -> str:
    if status >= 0:
        return f"status {status}"
    with contextlib.suppress(ValueError):
        return signal.Signals(-status).name
    return f"signal {-status}"

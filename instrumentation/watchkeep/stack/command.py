"""`watchkeep stack`: each action is a small function that prints; what it prints is made elsewhere."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import BinaryIO

from watchkeep.stack import build, docker, layout, report, staging, supervisor
from watchkeep.stack import state as states
from watchkeep.stack.errors import StackError
from watchkeep.stack.native import last
from watchkeep.stack.servers import SERVERS, Place

_FOLLOW = 0.3
_INTERRUPTED = 130


def run(options: argparse.Namespace) -> int:
    """Do one action and give its exit status."""
    try:
        status = _ACTIONS[options.action](options)
    except StackError as error:
        _say(str(error))
        return 1
    except KeyboardInterrupt:
        return _INTERRUPTED
    return status


def _say(line: str) -> None:
    sys.stderr.write(f"watchkeep: {line}\n")
    sys.stderr.flush()


class _Once:
    """Says each line once: the supervisor finds out again what the build already said."""

    def __init__(self) -> None:
        self._said: set[str] = set()

    def __call__(self, line: str) -> None:
        if line not in self._said:
            self._said.add(line)
            _say(line)


def _by_docker(options: argparse.Namespace, home: Path) -> bool:
    """Whether containers are meant: an engine answers, nothing runs as processes, and nobody asked for processes."""
    native = options.native or getattr(options, "foreground", False)
    return not native and states.read(home) is None and docker.available()


def _up(options: argparse.Namespace) -> int:
    home = layout.home()
    if _by_docker(options, home):
        return _up_by_docker(home)
    if not (options.native or options.foreground) and states.read(home) is None:
        _say("no Docker engine answers: the servers are started as processes (--native)")
    left = states.read(home)
    if left and left.owner.alive:
        _say(f"the stack of {home} already runs")
        return _status(options)
    say, begun = _Once(), time.monotonic()
    if options.foreground:
        supervisor.foreground(home, os.environ, options.without, say)
        return 0
    _programs(options.without, say)
    supervisor.spawn(home, os.environ, options.without, say)
    state = states.read(home)
    if state is None:
        raise StackError(f"the supervisor is gone again; its log is {supervisor.log_of(home)}")
    print(f"all {len(state.servers)} servers are ready after {time.monotonic() - begun:.1f} s")
    print("\n".join(report.places(Place(home, state.ports), state.absent)))
    return 0


def _programs(without: Sequence[str], say: build.Say) -> None:
    """Find or build what is needed, here where the progress is seen."""
    for server in SERVERS.values():
        if server.name not in without and build.PROGRAMS[server.program].source:
            for program in (server.program, *(server.check or ())[:1]):
                build.binary(str(program), say=say)


def _up_by_docker(home: Path) -> int:
    place = report.containers(home, os.environ)
    for folder in (home, place.run, place.secrets):
        layout.make(folder)
    staging.lay_secrets(place, os.environ)
    status = docker.compose(["up", "--detach", "--wait"], os.environ, home)
    if status == 0:
        print("\n".join(report.places(place, {})))
    return status


def _down(options: argparse.Namespace) -> int:
    home = layout.home()
    if _by_docker(options, home):
        return docker.compose(["down"], os.environ, home)
    stopped = supervisor.stop(home, _say)
    print(f"stopped {', '.join(stopped)}; what they kept is in {home / 'data'}" if stopped else "nothing runs")
    return 0


def _status(options: argparse.Namespace) -> int:
    home = layout.home()
    if _by_docker(options, home):
        return _status_by_docker(home)
    state = states.read(home)
    if state is None:
        print("nothing runs; start it: watchkeep stack up")
        return 1
    lines, good = report.table(home, state)
    lines += report.reasons(state)
    lines.append(f"alerts {report.reach(state.ports['alertmanager'], home / 'secrets')}")
    print("\n".join(lines))
    return 0 if good and state.owner.alive else 1


def _status_by_docker(home: Path) -> int:
    status = docker.compose(["ps", "--all"], os.environ, home)
    place = report.containers(home, os.environ)
    good = report.all_ready(place)
    print(f"alerts {report.reach(place.ports['alertmanager'], place.secrets)}")
    return status or (0 if good else 1)


def _build(options: argparse.Namespace) -> int:
    home = layout.home()
    if not options.programs and _by_docker(options, home):
        return docker.compose(["pull", "--ignore-buildable"], os.environ, home)
    for name in options.programs or build.SERVING:
        print(f"{name:<13} {build.binary(name, say=_say)}", flush=True)
    return 0


# Logs


def _logs(options: argparse.Namespace) -> int:
    home = layout.home()
    if options.server and options.server not in (*SERVERS, "supervisor"):
        raise StackError(f"no server {options.server} is known; known are {', '.join(SERVERS)}, supervisor")
    if _by_docker(options, home):
        words = ["logs", f"--tail={options.lines}", *(["--follow"] if options.follow else [])]
        return docker.compose([*words, *([options.server] if options.server else [])], os.environ, home)
    files = _log_files(home, options.server)
    if not files:
        raise StackError(f"no log is there yet in {home / 'logs'}; start the servers: watchkeep stack up")
    marks = {file: f"{file.stem:<13}| " if len(files) > 1 else "" for file in files}
    with ExitStack() as stack:
        opened = {file: stack.enter_context(file.open("rb")) for file in files}
        for file, reader in opened.items():
            _print(last(reader, options.lines).splitlines(), marks[file])
        while options.follow:
            for file, reader in opened.items():
                _print(_new(reader), marks[file])
            time.sleep(_FOLLOW)
    return 0


def _log_files(home: Path, server: str | None) -> list[Path]:
    files = sorted((home / "logs").glob("*.log"))
    return [file for file in files if server in (None, file.stem)]


def _new(reader: BinaryIO) -> Iterator[str]:
    if os.fstat(reader.fileno()).st_size < reader.tell():  # it was emptied
        reader.seek(0)
    for line in reader:
        if not line.endswith(b"\n"):  # the rest of it is still being written
            reader.seek(-len(line), os.SEEK_CUR)
            return
        yield line.decode("utf-8", "replace").rstrip("\n")


def _print(lines: Iterator[str] | Sequence[str], mark: str) -> None:
    for line in lines:
        print(mark + line)
    sys.stdout.flush()


_ACTIONS: Mapping[str, Callable[[argparse.Namespace], int]] = {
    "up": _up,
    "down": _down,
    "status": _status,
    "logs": _logs,
    "build": _build,
}

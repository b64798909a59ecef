"""The process that owns the servers between `up` and `down`: it restarts what dies, and says so.

`spawn` starts it in a session of its own and hears from it, line by line, until all servers are ready; what is
secret goes to it through a pipe, so that it stands in no environment and no argument.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from watchkeep.stack import build, layout, staging
from watchkeep.stack import state as states
from watchkeep.stack.errors import StackError
from watchkeep.stack.native import Native
from watchkeep.stack.servers import SERVERS, groups_to_stop

LIMIT, WITHIN = 5, 600.0  # so many deaths within so many seconds, and a server is given up
_BACK_OFF, _LONGEST = 1.0, 30.0
_LOOK = 0.5
_TRIM_EVERY, _LOG_BYTES = 60.0, 20_000_000
_SAID, _READY, _FAILED = "say", "ready", "failed"


def log_of(home: Path) -> Path:
    """Return the supervisor's own log."""
    return home / "logs" / "supervisor.log"


# In the process that waits


def spawn(home: Path, environ: Mapping[str, str], without: Sequence[str], say: build.Say) -> None:
    """Start the supervisor and return when all servers are ready; raise StackError with its reason when not."""
    layout.make(layout.make(home) / "logs")
    log = log_of(home)
    plain = {name: value for name, value in environ.items() if not staging.is_private(name)}
    with log.open("ab") as errors:
        child = subprocess.Popen(  # noqa: S603 - ourselves
            [sys.executable, "-m", "watchkeep.stack.supervisor", str(home), *without],
            env=plain,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            start_new_session=True,
            text=True,
            umask=0o077,
        )
    try:
        _hear(child, {name: environ[name] for name in environ.keys() - plain.keys()}, log, say)
    except BaseException:
        child.terminate()
        child.wait()
        raise


def _hear(child: subprocess.Popen[str], private: Mapping[str, str], log: Path, say: build.Say) -> None:
    assert child.stdin is not None  # noqa: S101 - for the type checker
    assert child.stdout is not None  # noqa: S101
    with child.stdin as to:
        json.dump(private, to)
    for line in child.stdout:
        kind, _, text = line.rstrip("\n").partition(" ")
        if kind == _SAID:
            say(text)
        elif kind == _FAILED:
            raise StackError(text)
        elif kind == _READY:
            return
    raise StackError(f"the supervisor ended before the servers were ready; its log is {log}")


# In the supervisor


class Supervisor:
    """Keeps the servers of one `Native` running until it is told to stop."""

    def __init__(self, native: Native, log: Callable[[str], None]) -> None:
        """Take servers that are not started yet."""
        self._native = native
        self._log = log
        self._deaths: dict[str, list[float]] = {}
        self._due: dict[str, float] = {}
        self._trimmed = time.monotonic()

    def run(self, ready: Callable[[], None]) -> None:
        """Start the servers, call `ready`, watch them, and stop them at SIGTERM or SIGINT."""
        stop = self._native.cancelled
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: stop.set())
        self._native.up()
        try:
            ready()
            while not stop.wait(_LOOK):
                self.look()
        finally:
            self._log("stopping")
            self._native.down()
            self._log("stopped")

    def look(self) -> None:
        """Look once at every server, and do what is due."""
        for name in self._native.names:
            seen = self._native.state.servers[name]
            if seen.state in (states.READY, states.STARTING):
                self._look_at(name, seen)
            elif seen.state == states.RESTARTING and time.monotonic() >= self._due[name]:
                self._restart(name, seen)
        if time.monotonic() - self._trimmed > _TRIM_EVERY:
            self._trimmed = time.monotonic()
            trim(self._native.place.logs)

    def _look_at(self, name: str, seen: states.Seen) -> None:
        why = self._native.died(name)
        if why:
            self._died(name, seen, why)
        elif seen.state == states.STARTING and self._native.ready(name):
            seen.state = states.READY
            self._native.save()
            self._log(f"{name} is ready again")

    def _died(self, name: str, seen: states.Seen, why: str) -> None:
        now = time.monotonic()
        deaths = self._deaths.setdefault(name, [])
        deaths[:] = [*(each for each in deaths if now - each < WITHIN), now]
        seen.why = why
        if len(deaths) > LIMIT:
            seen.state = states.DEAD
            self._log(
                f"{name} ended {len(deaths)} times within {WITHIN / 60:.0f} min and is given up ({why}); its log is "
                f"{self._native.log(name)}; mend it, then: watchkeep stack down, watchkeep stack up"
            )
        else:
            pause = min(_LONGEST, _BACK_OFF * 2 ** (len(deaths) - 1))
            seen.state = states.RESTARTING
            self._due[name] = now + pause
            self._log(f"{name} ended ({why}); starting it again in {pause:.0f} s")
        self._native.save()

    def _restart(self, name: str, seen: states.Seen) -> None:
        seen.restarts += 1
        try:
            self._native.launch(name)
        except (StackError, OSError) as error:
            self._died(name, seen, str(error))


def trim(folder: Path, limit: int = _LOG_BYTES) -> None:
    """Keep logs small: what is too long becomes the older half, and the servers, who append, go on in an empty one."""
    for file in folder.glob("*.log"):
        if file.stat().st_size > limit:
            shutil.copyfile(file, file.with_suffix(".log.1"))
            os.truncate(file, 0)


def stamped(write: Callable[[str], None]) -> Callable[[str], None]:
    """Put the time before each line."""
    return lambda line: write(f"{time.strftime('%Y-%m-%dT%H:%M:%S%z')} {line}\n")


def _append(path: Path) -> Callable[[str], None]:
    def write(line: str) -> None:
        with path.open("a", encoding="utf-8") as file:
            file.write(line)

    return write


def foreground(home: Path, environ: Mapping[str, str], without: Sequence[str], say: build.Say) -> None:
    """Be the supervisor, here, until SIGTERM or SIGINT."""
    native = Native(home, environ=environ, without=without, say=say)
    native.stage()
    Supervisor(native, say).run(lambda: say("all are ready; Ctrl-C stops them"))


def main(argv: Sequence[str]) -> int:
    """Be the supervisor that `spawn` started."""
    home, without = Path(argv[0]), argv[1:]
    private: dict[str, str] = json.load(sys.stdin)
    log = stamped(_append(log_of(home)))

    def tell(kind: str, text: str = "") -> None:
        if not sys.stdout.closed:
            sys.stdout.write(f"{kind} {text}\n")
            sys.stdout.flush()

    def ready() -> None:
        tell(_READY)
        log("all are ready")
        os.dup2(os.open(os.devnull, os.O_RDWR), 1)
        sys.stdout.close()

    def say(line: str) -> None:
        log(line)
        tell(_SAID, line)

    try:
        native = Native(home, environ=private, without=without, say=say)
        Supervisor(native, say).run(ready)
    except StackError as error:
        log(str(error))
        tell(_FAILED, str(error))
        return 1
    return 0


def stop(home: Path, say: build.Say) -> list[str]:
    """Stop what runs from a home folder, with or without its supervisor; give the names of what was stopped."""
    state = states.read(home)
    if state is None:
        return []
    running = state.alive
    if state.owner.alive and state.owner.pid != os.getpid():
        longest = sum(max(SERVERS[name].grace for name in group) for group in groups_to_stop(running)) + 5
        state.owner.send(signal.SIGTERM)
        if not state.owner.wait(longest):
            say("the supervisor does not answer; ending it and the servers one by one")
            state.owner.send(signal.SIGKILL)
            state.owner.wait(5)
    elif running:
        say("the supervisor is gone; ending the servers one by one")
    for name in state.alive:
        if not state.servers[name].process.stop(SERVERS[name].grace):
            say(f"{name} did not stop within {SERVERS[name].grace:.0f} s and was ended")
    states.remove(home)
    return running


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

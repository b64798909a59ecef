"""A home for the stack with tiny programs on PATH instead of the real servers (programs/fake_server.py)."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

from watchkeep.stack import state as states
from watchkeep.stack.build import PROGRAMS, SERVING
from watchkeep.stack.native import free_ports
from watchkeep.stack.servers import port_variables

_SOURCE = Path(__file__).resolve().parents[1] / "programs" / "fake_server.py"
_SYSTEM = "/usr/bin:/bin"  # for sh and its like; no Go and no server stands there


class Home:
    """The command `watchkeep stack`, with its folders and ports of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.home = folder / "home"
        self.programs = folder / "programs"
        self.programs.mkdir()
        text = _SOURCE.read_text("utf-8")
        (self.programs / "versions.json").write_text(json.dumps({name: PROGRAMS[name].version for name in PROGRAMS}))
        for name in SERVING:
            script = self.programs / name
            script.write_text(f"#!{sys.executable} -IS\n{text}", "utf-8")
            script.chmod(0o755)
        self.ports = free_ports()
        self.environ = {
            "PATH": f"{self.programs}:{_SYSTEM}",
            "HOME": str(folder),
            "WATCHKEEP_STACK_HOME": str(self.home),
            "WATCHKEEP_STACK_CACHE": str(folder / "cache"),
            **port_variables(self.ports, {}),
        }

    def tell(self, program: str, what: str, text: str = "") -> None:
        """Make a program misbehave: dies, deaf, slow, version."""
        (self.programs / f"{program}.{what}").write_text(text)

    def start(self, *words: str, stdout: int | IO[str] = subprocess.PIPE, **environ: str) -> subprocess.Popen[str]:
        """Start the command without waiting for its end."""
        return subprocess.Popen(
            [sys.executable, "-m", "watchkeep", "stack", *words],
            env={**self.environ, **environ},
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *words: str, **environ: str) -> subprocess.CompletedProcess[str]:
        """Run the command to its end."""
        with self.start(*words, **environ) as child:
            out, err = child.communicate(timeout=60)
        return subprocess.CompletedProcess(child.args, child.returncode, out, err)

    def up(self, **environ: str) -> subprocess.CompletedProcess[str]:
        """Start the servers as processes."""
        return self.run("up", "--native", **environ)

    @property
    def state(self) -> states.State:
        """What the run says of itself."""
        found = states.read(self.home)
        assert found is not None
        return found

    def pid(self, server: str) -> int:
        """Return a server's process id."""
        return self.state.servers[server].process.pid

    def processes(self) -> list[int]:
        """Find every process that was started from this folder, whoever knows of it."""
        return [pid for pid, command, _ in processes() if str(self.folder).encode() in command and pid != os.getpid()]

    def close(self) -> None:
        """End whatever is left."""
        for pid in self.processes():
            os.kill(pid, 9)

    def starts(self, server: str) -> int:
        """Read how often a server was started with this folder."""
        return int((self.home / "data" / server / "starts").read_text())


def processes() -> Iterator[tuple[int, bytes, bytes]]:
    """Give each process that is there: its id, its command line, its environment."""
    for each in Path("/proc").iterdir():
        if each.name.isdigit():
            try:
                yield int(each.name), (each / "cmdline").read_bytes(), (each / "environ").read_bytes()
            except OSError:
                continue


def until(truth: Callable[[], object], seconds: float = 15) -> None:
    """Wait until something is true."""
    end = time.monotonic() + seconds
    while not truth():
        assert time.monotonic() < end, "it did not become true in time"
        time.sleep(0.05)


def listening(port: int) -> bool:
    """Whether somebody listens on a loopback port."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0

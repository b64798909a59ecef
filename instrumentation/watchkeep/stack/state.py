"""What a run leaves on disk about itself, so that another command can show and stop it: run/state.json."""

from __future__ import annotations

import json
import os
import tempfile
from dataclasses import asdict, dataclass, field
from pathlib import Path

from watchkeep.stack import layout
from watchkeep.stack.errors import StackError
from watchkeep.stack.process import Process

STARTING, READY, RESTARTING, DEAD, STOPPED = "starting", "ready", "restarting", "dead", "stopped"
NOBODY = Process(0, "")


@dataclass
class Seen:
    """One server as it was last seen by whoever started it."""

    state: str = STARTING
    process: Process = NOBODY
    version: str = ""
    address: str = ""
    restarts: int = 0
    why: str = ""  # of the last death


@dataclass
class State:
    """One run."""

    owner: Process
    servers: dict[str, Seen] = field(default_factory=dict)
    absent: dict[str, str] = field(default_factory=dict)  # server -> why it does not run
    ports: dict[str, int] = field(default_factory=dict)

    @property
    def alive(self) -> list[str]:
        """Servers whose process still runs, whoever started them."""
        return [name for name, seen in self.servers.items() if seen.process.alive]


def place(home: Path) -> Path:
    """Return the file of a home folder."""
    return home / "run" / "state.json"


def read(home: Path) -> State | None:
    """Read the last run; None when there was none."""
    path = place(home)
    try:
        raw = json.loads(path.read_text("utf-8"))
        servers = {
            name: Seen(**{**seen, "process": Process(*seen["process"])}) for name, seen in raw["servers"].items()
        }
        return State(Process(*raw["owner"]), servers, raw["absent"], raw["ports"])
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise StackError(f"{path} cannot be read ({error.strerror}); let this user read it") from None
    except (ValueError, KeyError, TypeError, AttributeError):
        raise StackError(f"{path} cannot be understood; end the servers by hand and remove it") from None


def write(home: Path, state: State) -> None:
    """Replace the file at one stroke."""
    path = place(home)
    try:
        descriptor, name = tempfile.mkstemp(prefix=".state-", dir=path.parent)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            json.dump(asdict(state), file, indent=1)
        os.replace(name, path)
    except OSError as error:
        raise layout.unwritable(path, error) from None


def remove(home: Path) -> None:
    """Forget the run."""
    place(home).unlink(missing_ok=True)

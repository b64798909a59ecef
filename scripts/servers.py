"""Build the real servers and tools that the tests run, where they are neither on PATH nor in the cache.

    python scripts/servers.py

The first time this takes about ten minutes and a network. Where there is no Go that is new enough, one is installed
into `.venvs/go`; where that cannot be had either, the tests that need the servers are skipped, and say why.
"""

from __future__ import annotations

import os
import sys

import envs
from watchkeep.stack import build
from watchkeep.stack.errors import NoGo, StackError


def say(line: str) -> None:
    """Print at once: a build takes minutes."""
    print(f"servers: {line}", flush=True)


def provide_go(program: build.Program) -> None:
    """Install Go where none is new enough, and name it to the build."""
    try:
        build.find_go(program, os.environ)
    except NoGo:
        os.environ[build.GO] = str(envs.make("go").with_name("go"))


def main() -> int:
    """Build what is needed; 0 also where no Go is to be had."""
    for program in build.needed():
        try:
            provide_go(program)
            build.binary(program.name, say=say)
        except (NoGo, SystemExit) as reason:  # the second: Go itself could not be installed
            say(f"{reason}; the tests that run real servers are skipped")
            return 0
        except StackError as error:
            say(str(error))
            return 1
    say("ready")
    return 0


if __name__ == "__main__":
    sys.exit(main())

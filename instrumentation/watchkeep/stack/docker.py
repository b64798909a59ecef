"""The same verbs where a Docker engine answers: docker-compose.yml does the work."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from watchkeep.stack import layout, staging
from watchkeep.stack.errors import StackError

_PROJECT = "watchkeep"
_ASK_SECONDS = 10
_SECRETS = "/run/watchkeep/secrets"  # in the containers


def available() -> bool:
    """Whether `docker compose` is there and an engine answers."""
    return shutil.which("docker") is not None and all(
        _answers(words) for words in (["compose", "version"], ["version", "--format", "{{.Server.Version}}"])
    )


def _answers(words: Sequence[str]) -> bool:
    try:
        done = subprocess.run(  # noqa: S603 - fixed words
            ["docker", *words],  # noqa: S607
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=_ASK_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0


def command(words: Sequence[str]) -> list[str]:
    """Build the command line of compose."""
    file = layout.files() / "docker-compose.yml"
    if not file.is_file():
        raise StackError(
            f"{file} is missing: this installation is incomplete; install watchkeep again, or use --native"
        )
    return ["docker", "compose", "--project-name", _PROJECT, "--file", str(file), *words]


def compose(words: Sequence[str], environ: Mapping[str, str], home: Path) -> int:
    """Run compose in this terminal and give its exit status."""
    given = {name: value for name, value in environ.items() if not staging.is_private(name)}
    given |= staging.extra_headers(_SECRETS, environ)
    given[staging.SECRETS] = str(home / "run" / "secrets")
    if staging.overlay(environ):
        given[staging.OVERLAY] = staging.overlay(environ)
    return subprocess.run(command(words), env=given, check=False).returncode  # noqa: S603 - fixed words

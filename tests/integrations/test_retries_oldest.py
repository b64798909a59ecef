"""The oldest supported tenacity, stamina and backoff: what holds for the newest holds for them."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from support.versions import ROOT, environment, envs
from watchkeep.integrations import backoff, stamina, tenacity

FILES = [str(Path(__file__).with_name(f"test_{name}.py")) for name in ("tenacity", "stamina", "backoff")]


@pytest.fixture(scope="module")
def python():
    """The interpreter that has them, made if it must be."""
    return str(envs().make("retries-oldest"))


def run(*command):
    return subprocess.run(
        command, cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=180, check=False
    )


def test_the_oldest_are_the_ones_that_we_support(python):
    """The environment holds the first version of each range, so far as a later patch does not replace it."""
    code = "from importlib.metadata import version; import sys; print(*map(version, sys.argv[1:]))"
    libraries = ("tenacity", "stamina", "backoff")
    found = run(python, "-c", code, *libraries).stdout.split()
    integrations = (tenacity.INTEGRATION, stamina.INTEGRATION, backoff.INTEGRATION)
    for version, library, integration in zip(found, libraries, integrations, strict=True):
        assert version.startswith(f"{integration.supported[library][0]}.")


@pytest.mark.slow
def test_every_truth_of_the_newest_holds_for_the_oldest(python):
    """The tests of the three integrations, run with the oldest versions; what those cannot do is skipped by name."""
    done = run(python, "-m", "pytest", "-q", "-p", "watchkeep.testing", "-p", "no:cacheprovider", *FILES)
    assert done.returncode == 0, done.stdout[-4000:]
    assert "failed" not in done.stdout.splitlines()[-1]

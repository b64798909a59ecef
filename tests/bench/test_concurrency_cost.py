"""What a permit and a task cost, in instructions, where valgrind is there to count them."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = Path(__file__).parent / "concurrency.py"
PERMIT, SUBMITTER, WORKER = 5e3, 27e3, 120e3  # instructions added for each
FEW, MANY = 200, 1200
_SUMMARY = re.compile(r"^summary: (\d+)", re.MULTILINE)

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not shutil.which("valgrind"), reason="valgrind is not on PATH: nothing counts instructions"),
]


def threads(variant: str, what: str, count: int, folder: Path) -> list[int]:
    """Return the instructions of each thread of a run: the main thread first."""
    out = folder / f"{variant}-{what}-{count}"
    command = ["valgrind", "--tool=callgrind", "--separate-threads=yes", f"--callgrind-out-file={out}"]
    environment = {
        **{key: value for key, value in os.environ.items() if not key.startswith(("OTEL_", "WATCHKEEP_"))},
        **{f"OTEL_{signal}_EXPORTER": "none" for signal in ("TRACES", "METRICS", "LOGS")},
        "PYTHONHASHSEED": "0",
    }
    command += [sys.executable, str(PROGRAM), variant, what, str(count)]
    subprocess.run(command, env=environment, capture_output=True, check=True, timeout=300)
    found = [_SUMMARY.search(file.read_text()) for file in sorted(folder.glob(f"{out.name}-*"))]
    return [int(match[1]) for match in found if match]


def each(variant: str, what: str, folder: Path) -> tuple[float, float]:
    """Return what one more costs in the main thread, and in the worker, which is the last one made."""
    few, many = (threads(variant, what, count, folder) for count in (FEW, MANY))
    return (many[0] - few[0]) / (MANY - FEW), (many[-1] - few[-1]) / (MANY - FEW)


def added(what: str, folder: Path) -> tuple[float, float]:
    """Return what watching adds to each of both."""
    (main, worker), (bare_main, bare_worker) = (each(variant, what, folder) for variant in ("watched", "bare"))
    print(f"{what}: {main - bare_main:.0f} instructions more to ask for, {worker - bare_worker:.0f} in a thread")
    return main - bare_main, worker - bare_worker


def test_a_permit_that_is_free_costs_what_it_may(tmp_path):
    """A semaphore that nobody holds: taken and given back."""
    assert added("semaphore", tmp_path)[0] <= PERMIT


@pytest.mark.parametrize("what", ["task", "span"])
def test_a_task_costs_what_it_may(what, tmp_path):
    """A task of a thread pool, also one that becomes a span: its submission, and its run in the thread."""
    submitter, worker = added(what, tmp_path)
    assert submitter <= SUBMITTER
    assert worker <= WORKER

"""What a retry loop that passes costs while it is watched, in instructions."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = str(Path(__file__).with_name("retrying.py"))
FEW, MANY = 100, 600  # their difference leaves out what starting costs
ADDED = {"tenacity": 65e3, "backoff": 50e3}  # beside 134 k and 23 k of their own


def instructions(folder: Path, variant: str, form: str, count: int) -> int:
    """Count what the program's main thread does."""
    out = folder / f"{variant}.{count}"
    valgrind = ["valgrind", "--tool=callgrind", "--separate-threads=yes", f"--callgrind-out-file={out}"]
    environment = {**os.environ, "PYTHONHASHSEED": "0"}
    command = [*valgrind, sys.executable, PROGRAM, variant, form, str(count)]
    subprocess.run(command, env=environment, capture_output=True, timeout=300, check=True)
    found = re.findall(r"^(?:totals|summary): (\d+)", Path(f"{out}-01").read_text(), re.MULTILINE)
    return int(found[-1])


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("valgrind"), reason="valgrind is not on PATH")
@pytest.mark.parametrize("form", ADDED)
def test_a_loop_that_passes_costs_little(tmp_path: Path, form: str) -> None:
    """Without a retry and without a call of ours inside, watching adds no more than is held here."""
    cost = {
        variant: (instructions(tmp_path, variant, form, MANY) - instructions(tmp_path, variant, form, FEW))
        / (MANY - FEW)
        for variant in ("bare", "watched")
    }
    print(f"{form}: {cost['bare']:.0f} bare, {cost['watched'] - cost['bare']:.0f} added")
    assert cost["watched"] - cost["bare"] <= ADDED[form]

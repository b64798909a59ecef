"""Run a script of this folder under another version of openai, and read what it found.

The last 1.x and 2.x live in environments of their own (scripts/envs.py), made when a test first asks for one;
the newest runs with the interpreter of the tests.
"""

from __future__ import annotations

import functools
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
_NOT_HANDED_ON = ("OTEL_", "WATCHKEEP_", "OPENAI_", "SSL_CERT_")
VERSIONS = ("1", "2", "3")


@functools.cache
def envs() -> Any:
    """Return scripts/envs.py as a module."""
    spec = importlib.util.spec_from_file_location("watchkeep_envs", ROOT / "scripts" / "envs.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def python_for(version: str) -> str:
    """Return the interpreter that has openai `version`, made if it must be."""
    return sys.executable if version == "3" else str(envs().make(f"openai-{version}"))


def environment(**more: str) -> dict[str, str]:
    """Return a child's environment: our folders on its path, nothing sent by itself, no switch of the machine's."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(_NOT_HANDED_ON)}
    folders = os.pathsep.join(str(ROOT / name) for name in ("instrumentation", "examples", "tests"))
    off = {f"OTEL_{signal}_EXPORTER": "none" for signal in ("TRACES", "METRICS", "LOGS")}
    # No certificates: everything is on loopback, and reading them takes most of the time of making a client.
    quick = {"SSL_CERT_DIR": str(ROOT / "tests" / "support")}
    return {**kept, **off, **quick, "PYTHONPATH": folders, "PYTHONUNBUFFERED": "1", **more}


@functools.cache
def found_by(script: str, version: str, *arguments: str) -> Any:
    """Run tests/support/`script` under openai `version`; return the JSON that it printed."""
    command = [python_for(version), str(ROOT / "tests" / "support" / script), *arguments]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=180, check=False)
    assert done.returncode == 0, f"{script} under openai {version}:\n{done.stderr[-4000:]}"
    return {**json.loads(done.stdout), "stderr": done.stderr}

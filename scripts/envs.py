"""Make the environments that the tests run other versions in: `.venvs/<name>` from `requirements/<name>.txt`.

    python scripts/envs.py [NAME ...]      without a name: all of them but `go`

Each holds exactly what its hashed lock says, and this repository's package by a path file, so that nothing
is built. An environment whose lock did not change is left alone, without a network. `go` holds the Go that builds the
stack's servers on machines that have none (scripts/servers.py asks for it).
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
NAMES = ("openai-1", "openai-2", "openai-3", "llm", "agents", "retries-oldest")
TOOLS = ("go",)
STAMP = "watchkeep-lock.sha256"


def python_of(name: str) -> Path:
    """Return the interpreter of an environment, whether or not it is there."""
    return ROOT / ".venvs" / name / "bin" / "python"


def fingerprint(name: str) -> str:
    """Return what an environment is made of: its lock, the interpreter, and this script."""
    digest = hashlib.sha256(sys.version.encode())
    for file in (ROOT / "requirements" / f"{name}.txt", Path(__file__)):
        digest.update(file.read_bytes())
    return digest.hexdigest()


def is_ready(name: str) -> bool:
    """Whether an environment is there and its lock is unchanged."""
    stamp = ROOT / ".venvs" / name / STAMP
    return stamp.exists() and stamp.read_text("ascii") == fingerprint(name) and python_of(name).exists()


def make(name: str) -> Path:
    """Make an environment unless it is ready; return its interpreter."""
    if is_ready(name):
        print(f"{name}: ready", flush=True)
        return python_of(name)
    print(f"{name}: installing requirements/{name}.txt into .venvs/{name}", flush=True)
    _uv(name, "venv", "--quiet", "--clear", "--python", sys.executable, str(ROOT / ".venvs" / name))
    lock = ROOT / "requirements" / f"{name}.txt"
    _uv(name, "pip", "sync", "--quiet", "--require-hashes", "--python", str(python_of(name)), str(lock))
    if name in NAMES:
        _add_ourselves(name)
    (ROOT / ".venvs" / name / STAMP).write_text(fingerprint(name), "ascii")
    print(f"{name}: made", flush=True)
    return python_of(name)


def _uv(name: str, *arguments: str) -> None:
    uv = shutil.which("uv", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}")
    if uv is None:
        raise SystemExit(f"{name}: uv is missing; it is in requirements/test.txt (make test installs it)")
    done = subprocess.run([uv, *arguments], env=_environment(), check=False)
    if done.returncode:
        raise SystemExit(f"{name}: `uv {' '.join(arguments)}` failed; without a network only what is cached installs")


def _environment() -> dict[str, str]:
    """Return ours, with what pip was told about certificates and its index said to uv too."""
    environment = dict(os.environ)
    for ours, pips in (("SSL_CERT_FILE", "PIP_CERT"), ("UV_INDEX_URL", "PIP_INDEX_URL")):
        if pips in environment:
            environment.setdefault(ours, environment[pips])
    return environment


def _add_ourselves(name: str) -> None:
    (folder,) = (ROOT / ".venvs" / name / "lib").glob("python3.*/site-packages")
    (folder / "watchkeep.pth").write_text(f"{ROOT / 'instrumentation'}\n", "utf-8")


def main(names: list[str]) -> int:
    """Make the environments named, or all."""
    known = (*NAMES, *TOOLS)
    unknown = [name for name in names if name not in known]
    if unknown:
        print(f"no such environment: {', '.join(unknown)}; known are {', '.join(known)}", file=sys.stderr)
        return 2
    for name in names or NAMES:
        make(name)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

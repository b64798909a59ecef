"""Put integrations in place and take them out, from the same list; say which seams are missing."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from typing import NamedTuple

from watchkeep import auto, cells, guard, names, patching, runtime
from watchkeep.cells import Observation
from watchkeep.hook import Target
from watchkeep.integrations import Integration, scope
from watchkeep.patching import Patch

SCOPE = scope("health", names.SCHEMA_EXTENSION)
COMPANION = "process"  # has no library of its own: it comes with the first that has one
STATES = ("active", "standing_aside", "seam_missing", "unsupported", "off")

_patches: dict[str, list[Patch]] = {}
_states: dict[str, str] = {}


class Seam(NamedTuple):
    """A place that a library should have and has not."""

    target: Target
    advice: str


def install(module: str) -> None:
    """Install the integration in `module` as far as its library is imported; a second time changes nothing."""
    integration: Integration = importlib.import_module(module).INTEGRATION
    if not supported(integration):
        _set_state(integration, "unsupported")
        guard.warn(
            integration.name,
            f"{integration.name}: the installed version is not supported, so it is not watched; see `watchkeep doctor`",
        )
        return
    install_integration(integration)
    if not integration.at_first_call and COMPANION not in _patches and runtime.config().integrates(COMPANION):
        install(f"watchkeep.integrations.{COMPANION}")


def install_integration(integration: Integration) -> None:
    """Wrap every target whose module is imported, then say what is missing."""
    done = _patches.setdefault(integration.name, [])
    touched = set()
    for target in integration.targets:
        if auto.ready(target.module):
            made = patching.patch(target)
            if made is not None:
                done.append(made)
                touched.add(target.module)
    missing = check(integration)
    _set_state(integration, "seam_missing" if missing else "active")
    for seam in missing:
        guard.warn(seam.target.path, seam.advice)
    if integration.started is not None:
        for name in sorted(touched) or (integration.triggers[:1] if integration.modules else (integration.name,)):
            guard.run(integration.started, name)
    if not integration.at_first_call:
        runtime.get()


def uninstall_all() -> None:
    """Give back every object that was wrapped, the last one first."""
    for name, done in list(_patches.items()):
        while done:
            patching.unpatch(done.pop())
        integration = importlib.import_module(f"watchkeep.integrations.{name}").INTEGRATION
        if integration.stopped is not None:
            guard.run(integration.stopped)
        del _patches[name]
        _states[name] = "off"


def check(integration: Integration) -> list[Seam]:
    """Return the seams that the imported library does not have."""
    return [
        Seam(target, _advice(integration, target))
        for target in integration.targets
        if auto.ready(target.module) and not target.sometimes and patching.find(target.path) is None
    ]


def _advice(integration: Integration, target: Target) -> str:
    effect = "calls are not seen" if target.needed else "part of the detail is missing"
    return (
        f"{integration.name}: {target.path} is not there in the installed version, so {effect}; "
        "your app is unharmed, `watchkeep doctor` says more"
    )


def installed(distribution: str) -> str | None:
    """Return the installed version of a distribution, None without it."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(distribution)
    except PackageNotFoundError:
        return None


def supported(integration: Integration) -> bool:
    """Whether every installed distribution that it serves is in its range."""
    for distribution, (low, below) in integration.supported.items():
        found = installed(distribution)
        if found is not None and not _key(low) <= _key(found) < (_key(below) if below else (1 << 30,)):
            return False
    return True


def _key(text: str) -> tuple[int, ...]:
    parts = []
    for part in text.split(".")[:3]:
        digits = ""
        for letter in part:
            if not letter.isdigit():
                break
            digits += letter
        parts.append(int(digits or 0))
    return tuple(parts)


def _set_state(integration: Integration, state: str) -> None:
    cells.observe(names.METRIC_WATCHKEEP_INTEGRATIONS, SCOPE, _observe)
    _states[integration.name] = state


def stand_aside(name: str) -> None:
    """Note that another instrumentation owns the layer of this integration."""
    _states[name] = "standing_aside"


def states() -> dict[str, str]:
    """Return the state of each integration that was ever installed."""
    return dict(_states)


def _observe() -> Iterator[Observation]:
    for name, current in _states.items():
        for state in STATES:
            yield (name, state), int(state == current)

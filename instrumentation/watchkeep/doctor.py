"""`watchkeep doctor`: look at this environment and say what will be seen, and what stands in the way.

Each check is a generator of findings. A finding is `ok`, a `note` (good to know), or `todo` (somebody
should do something; then the exit status is 1). Every `todo` says what to do.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from importlib import import_module
from importlib.metadata import Distribution, distributions
from typing import TYPE_CHECKING, Any, NamedTuple

from watchkeep import auto, config, guard, official, probe, settings
from watchkeep.version import __version__

if TYPE_CHECKING:
    from watchkeep.integrations import Integration

OK, NOTE, TODO = "ok", "note", "todo"

# Who else may instrument the LLM layer, and what that means. By the beginning of the distribution's name.
_STANDS_ASIDE = "makes the LLM span where it is active; ours stands aside and adds attempts, waits and pools"
_DOUBLES = "makes LLM spans of its own, so calls show twice; uninstall it, or switch it off with {switch}"
_DEAD = "is discontinued and fails beside current packages; take opentelemetry-instrumentation-genai-openai"
_ITS_OWN = "traces LLM calls too where the app starts it; then calls show in both, each with its own tokens"
_OTHERS: tuple[tuple[str, str, str], ...] = (
    ("opentelemetry_instrumentation_openai_v2", TODO, _DEAD),
    ("opentelemetry_instrumentation_genai_", NOTE, _STANDS_ASIDE),
    ("openinference_instrumentation_", TODO, _DOUBLES),
    ("opentelemetry_instrumentation_openai", TODO, _DOUBLES),
    ("traceloop_sdk", NOTE, _ITS_OWN),
    ("logfire", NOTE, _ITS_OWN),
    ("langfuse", NOTE, _ITS_OWN),
    ("openlit", NOTE, _ITS_OWN),
    ("ddtrace", NOTE, _ITS_OWN),
    ("sentry_sdk", NOTE, _ITS_OWN),
    ("newrelic", NOTE, _ITS_OWN),
)


class Finding(NamedTuple):
    """One line of the report."""

    level: str
    text: str


class Report(NamedTuple):
    """What was found, ready to print."""

    lines: list[str]
    todo: int


def examine() -> Report:
    """Run every check."""
    lines: list[str] = []
    todo = 0
    for title, check in CHECKS:
        found = list(check())
        if found:
            lines += ["", title, *(f"  {each.level:<5} {each.text}" for each in found)]
        todo += sum(each.level == TODO for each in found)
    verdict = "All is well." if not todo else f"{todo} thing{'s' if todo > 1 else ''} to do."
    return Report([*lines[1:], "", verdict], todo)


# Ourselves


def _ourselves() -> Iterator[Finding]:
    yield Finding(OK, f"watchkeep {__version__}, Python {sys.version.split()[0]} ({sys.executable})")
    wanted = ("opentelemetry-api", "opentelemetry-sdk", "opentelemetry-instrumentation")
    yield Finding(OK, ", ".join(f"{name} {_version(name) or 'missing'}" for name in wanted))


def _switches() -> Iterator[Finding]:
    loaded = config.load()
    for error in settings.all_errors(os.environ, loaded):
        yield Finding(TODO, f"setting {error}")
    if not loaded.config.active:
        name = "OTEL_SDK_DISABLED=true" if loaded.config.sdk_disabled else "WATCHKEEP_ENABLED=false"
        yield Finding(TODO, f"{name}: nothing is watched; leave it out to watch")
    for signal in ("traces", "metrics", "logs"):
        if not loaded.config.sends(signal):
            yield Finding(NOTE, f"{signal} are switched off")
    changed = [name for name, source in loaded.sources.items() if source != "default"]
    yield Finding(OK, f"{len(changed)} setting(s) changed from the default; `watchkeep config` shows them all")


# What we watch


def _libraries() -> Iterator[Finding]:
    for name in auto.integrations():
        integration: Integration = import_module(f"watchkeep.integrations.{name}").INTEGRATION
        yield from _integration(integration)


def _integration(integration: Integration) -> Iterator[Finding]:
    name = integration.name
    if not config.load().config.integrates(name):
        yield Finding(NOTE, f"{name}: switched off by a setting")
        return
    present = [each for each in integration.supported.items() if _version(each[0])]
    if integration.supported and not present:
        yield Finding(NOTE, f"{name}: {' and '.join(integration.supported)} not installed")
        return
    from watchkeep import installer

    if not installer.supported(integration):
        yield Finding(TODO, f"{name}: {_versions(present)}; not watched, install a version in that range")
        return
    yield from _seams(integration, _versions(present))


def _versions(present: list[tuple[str, tuple[str, str]]]) -> str:
    return ", ".join(f"{name} {_version(name)} (supported: {_range(*bounds)})" for name, bounds in present)


def _range(low: str, below: str) -> str:
    return " and ".join(filter(None, (f"from {low}" if low else "", f"below {below}" if below else "")))


def _seams(integration: Integration, versions: str) -> Iterator[Finding]:
    from watchkeep import installer

    modules = [module for module in integration.modules if _installed_top(module)]
    broken = [module for module in modules if guard.run(_importable, module) is None]
    if broken:
        yield Finding(
            TODO, f"{integration.name}: {', '.join(broken)} cannot be imported; python -c 'import {broken[0]}'"
        )
    missing = installer.check(integration)
    for seam in missing:
        yield Finding(TODO if seam.target.needed else NOTE, seam.advice)
    if not broken and not any(seam.target.needed for seam in missing):
        yield Finding(OK, f"{integration.name}: {versions or 'part of Python'}; will be watched")


def _installed_top(module: str) -> bool:
    from importlib.util import find_spec

    return find_spec(module.partition(".")[0]) is not None


def _importable(module: str) -> bool:
    import_module(module)
    return True


def _tokens() -> Iterator[Finding]:
    if not config.load().config.ask_usage and _version("openai"):
        yield Finding(
            NOTE,
            "streams of chat completions have no token counts unless the app asks for them "
            "(stream_options={'include_usage': True}); they count as unknown. WATCHKEEP_ASK_USAGE=true asks",
        )


# Who else is there


def _others() -> Iterator[Finding]:
    installed = {official.normal(each.name): each for each in distributions() if each.name}
    for name, distribution in sorted(installed.items()):
        known = next((other for other in _OTHERS if name.startswith(other[0])), None)
        if known is not None:
            switch = f"OTEL_PYTHON_DISABLED_INSTRUMENTATIONS={_entry_names(distribution)}"
            off = _switched_off(distribution)
            text = "is switched off" if off else known[2].format(switch=switch)
            yield Finding(NOTE if off else known[1], f"{distribution.name} {distribution.version} {text}")


def _entry_names(distribution: Distribution) -> str:
    return ",".join(sorted(each.name for each in distribution.entry_points if each.group == official.GROUP))


def _switched_off(distribution: Distribution) -> bool:
    off = set(config.load().config.disabled_instrumentations)
    names = set(filter(None, _entry_names(distribution).split(",")))
    return bool(names) and (names <= off or "*" in off)


def _instrumentors() -> Iterator[Finding]:
    settings = config.load().config
    off = set(settings.disabled_instrumentations)
    for each in official.find(sys.path):
        if each.is_ours(settings):
            yield Finding(NOTE, f"{each.name} ({each.distribution}): not loaded, the layer is ours")
        elif each.name in off or "*" in off:
            yield Finding(NOTE, f"{each.name} ({each.distribution}): switched off")
        elif not each.modules:
            yield Finding(NOTE, f"{each.name} ({each.distribution}): its library is not installed")
        else:
            yield Finding(OK, f"{each.name} ({each.distribution}): loads with {', '.join(each.modules[:3])}")


def _launchers() -> Iterator[Finding]:
    wanted = {"OTEL_PYTHON_DISTRO": "watchkeep", "OTEL_PYTHON_CONFIGURATOR": "watchkeep"}
    if _version("opentelemetry-distro") and any(os.environ.get(name) != value for name, value in wanted.items()):
        yield Finding(
            NOTE,
            "opentelemetry-distro is installed: for opentelemetry-instrument set "
            "OTEL_PYTHON_DISTRO=watchkeep OTEL_PYTHON_CONFIGURATOR=watchkeep; `watchkeep run` does it by itself",
        )
    if os.name == "nt":
        yield Finding(NOTE, "`watchkeep run` is untested on Windows")


# Where it goes


def _end_points() -> Iterator[Finding]:
    from watchkeep.export import settings as otlp

    wanted = config.load().config
    targets = otlp.from_environment()
    dead: set[str] = set()
    for signal in otlp.SIGNALS:
        target: Any = getattr(targets, signal)
        if not wanted.active or not wanted.exports(signal) or target.origin in dead:
            continue
        answer = probe.ask(target)
        if not answer.reached:
            dead.add(target.origin)
        yield Finding(OK if answer.good else TODO, f"{signal}: {answer.text}")


def _version(distribution: str) -> str | None:
    from watchkeep.installer import installed

    return installed(distribution)


CHECKS: tuple[tuple[str, Callable[[], Iterator[Finding]]], ...] = (
    ("Watchkeep", _ourselves),
    ("Settings", _switches),
    ("Libraries", _libraries),
    ("Token counts", _tokens),
    ("Other LLM instrumentation", _others),
    ("Official instrumentors that `watchkeep run` loads", _instrumentors),
    ("Other launchers", _launchers),
    ("End point", _end_points),
)

"""What every integration owes an app, tried in a process of its own.

    python contract_child.py NAME

Runs the integration's exercises (`EXERCISES` in tests/integrations/test_<name>.py) bare, watched, watched twice,
with a fault in each reader and in the emitter, and given back. Prints one JSON line with what was found.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

TESTS = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(TESTS), str(TESTS.parent / "examples"), str(TESTS.parent / "instrumentation")]
for _signal in ("TRACES", "METRICS", "LOGS"):
    os.environ.setdefault(f"OTEL_{_signal}_EXPORTER", "none")

from llm_server import LLMServer  # noqa: E402 - the path and the environment come first
from watchkeep import emit, guard, installer, patching  # noqa: E402

NAME = sys.argv[1]
MODULE = importlib.import_module(f"integrations.test_{NAME}")
INTEGRATION = importlib.import_module(f"watchkeep.integrations.{NAME}").INTEGRATION
READERS = ("before", "after", "error", "chunk", "swap", "around")


def outcome(exercise: Callable[[LLMServer], Any]) -> str:
    """Run one exercise against a fresh server; what it gave or raised, as text."""
    with LLMServer() as server:
        try:
            return repr(exercise(server))
        except asyncio.CancelledError:
            return "cancelled"
        except Exception as error:
            return f"{type(error).__module__}.{type(error).__qualname__}: {error}"


def outcomes() -> list[str]:
    return [outcome(exercise) for exercise in MODULE.EXERCISES]


def objects() -> dict[str, int]:
    """The identity of whatever stands at each target's path."""
    found = {}
    for target in INTEGRATION.targets:
        place = patching.find(target.path)
        if place is not None:
            owner, name = place
            found[target.path] = id(vars(owner).get(name, getattr(owner, name)))
    return found


def faulty(*_: Any, **__: Any) -> Any:
    raise RuntimeError("a fault of ours")


def faults() -> Iterator[tuple[str, Any]]:
    """The integration with a fault in one reader at a time, then in its start."""
    for index, target in enumerate(INTEGRATION.targets):
        for reader in READERS:
            if getattr(target, reader) is not None:
                targets = list(INTEGRATION.targets)
                targets[index] = target._replace(**{reader: faulty})
                yield f"{target.path} {reader}", replace(INTEGRATION, targets=tuple(targets))
    if INTEGRATION.started is not None:
        yield "started", replace(INTEGRATION, started=faulty)


def watched(integration: Any) -> list[str]:
    installer.install_integration(integration)
    try:
        return outcomes()
    finally:
        installer.uninstall_all()


def main() -> dict[str, Any]:
    guard.raising = False
    bare = outcomes()
    before = objects()
    report: dict[str, Any] = {"bare": bare, "watched": watched(INTEGRATION), "given_back": objects() == before}
    installer.install_integration(INTEGRATION)
    once = objects()
    installer.install_integration(INTEGRATION)
    report["twice_is_once"] = objects() == once
    report["wraps"] = once != before or not INTEGRATION.targets
    original = emit.Emitter._take_record
    emit.Emitter._take_record = faulty  # type: ignore[method-assign]
    report["emit"] = outcomes()
    emit.Emitter._take_record = original  # type: ignore[method-assign]
    installer.uninstall_all()
    counted = guard.faults
    report["faults"] = {where: watched(integration) for where, integration in faults()}
    report["faults_seen"] = guard.faults - counted
    report["given_back_after_faults"] = objects() == before
    return report


print(json.dumps(main()))

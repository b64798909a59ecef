"""The rule files, their unit tests and the runbook, read so that tests can compare them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
ALERTS = ROOT / "alerts"
UNIT_TESTS = ROOT / "tests" / "alerts"
RUNBOOK = ROOT / "docs" / "runbook.md"
PARTS = ("What it means.", "Look first.", "What to do.", "How it clears.")


def program(name: str) -> str:
    """Return a program of the stack; skip the test, with the remedy, where there is none."""
    from watchkeep.stack.build import binary
    from watchkeep.stack.errors import StackError

    try:
        return str(binary(name))
    except StackError as error:
        pytest.skip(f"no {name}: {error}")


def load(path: Path) -> Any:
    """Read a YAML file."""
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def rule_files() -> list[Path]:
    """Return the rule files, in the order in which Prometheus reads them."""
    return sorted(ALERTS.glob("*.rules.yaml"))


def unit_test_files() -> list[Path]:
    """Return promtool's unit tests."""
    return sorted(UNIT_TESTS.glob("*.test.yaml"))


def rules(folder: Path = ALERTS) -> list[dict[str, Any]]:
    """Return every rule, recorded series and alerts."""
    return [rule for file in sorted(folder.glob("*.rules.yaml")) for group in load(file)["groups"]
            for rule in group["rules"]]  # fmt: skip


def alerts() -> dict[str, dict[str, Any]]:
    """Return every alert by its name."""
    return {rule["alert"]: rule for rule in rules() if "alert" in rule}


def group_names() -> list[str]:
    """Return the names of all groups of rules."""
    return [group["name"] for file in rule_files() for group in load(file)["groups"]]


def checks() -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield each check of an alert in the unit tests: its name and what is expected."""
    for file in unit_test_files():
        for test in load(file)["tests"]:
            for check in test.get("alert_rule_test", ()):
                yield check["alertname"], check


def sections(text: str) -> dict[str, str]:
    """Split a page into its sections, by the anchor that a reader's link has."""
    parts = re.split(r"(?m)^## (.+)$", text)
    return {_anchor(title): body for title, body in zip(parts[1::2], parts[2::2], strict=True)}


def _anchor(title: str) -> str:
    return re.sub(r"[^\w\- ]", "", title.strip().lower()).replace(" ", "-")

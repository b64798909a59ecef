"""Generated files: they say what the source says."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from watchkeep import auto, installer
from watchkeep.config import SETTINGS
from watchkeep.triggers import TRIGGERS

ROOT = Path(__file__).resolve().parent.parent


def test_nothing_is_stale() -> None:
    """Every generated file is what the source would give now."""
    done = subprocess.run(
        [sys.executable, "scripts/generate.py", "--check"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_every_integration_has_a_trigger() -> None:
    """The table that the start reads knows every integration that has a library; the other one comes with them."""
    known = {module for modules in TRIGGERS.values() for module in modules}
    known.add(f"watchkeep.integrations.{installer.COMPANION}")
    assert known == {f"watchkeep.integrations.{name}" for name in auto.integrations()}


def test_every_setting_is_documented() -> None:
    """Each setting has its line in docs/settings.md and in .env.example."""
    settings, example = (ROOT / name for name in ("docs/settings.md", ".env.example"))
    for each in SETTINGS.values():
        assert f"| `{each.env}` | `{each.name}` |" in settings.read_text()
        assert f"\n# {each.env}=" in example.read_text()

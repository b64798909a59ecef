"""The contract: what every integration owes an app. Integrations are found, not listed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from watchkeep import auto

TESTS = Path(__file__).parent
CHILD = str(TESTS / "support" / "contract_child.py")
NAMES = auto.integrations()
LIBRARIES = (
    "openai", "httpx", "httpx2", "httpcore", "httpcore2", "pybreaker", "agents", "tenacity", "stamina", "backoff"
)  # fmt: skip


@pytest.fixture(scope="module")
def reports():
    """Run each integration's child once."""
    return {}


@pytest.fixture
def report(reports, name):
    if name not in reports:
        done = subprocess.run([sys.executable, CHILD, name], capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0, done.stderr[-3000:]
        reports[name] = json.loads(done.stdout.strip().splitlines()[-1])
    return reports[name]


def child(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, **environment}
    command = [sys.executable, "-c", code]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, env=env)


@pytest.mark.parametrize("name", NAMES)
def test_the_app_gets_what_it_got_without_us(report):
    """Results and exceptions are those of the bare run."""
    assert report["watched"] == report["bare"]


@pytest.mark.parametrize("name", NAMES)
def test_the_very_same_objects_are_given_back(report):
    """After uninstalling, what stands at each path is the object that stood there."""
    assert report["given_back"]
    assert report["given_back_after_faults"]


@pytest.mark.parametrize("name", NAMES)
def test_installing_twice_is_installing_once(report):
    """A second installation changes nothing, and the first one did something."""
    assert report["twice_is_once"]
    assert report["wraps"]


@pytest.mark.parametrize("name", NAMES)
def test_a_fault_of_ours_never_reaches_the_app(report):
    """With a fault in each reader in turn, the app gets what it got without us."""
    assert {where: got for where, got in report["faults"].items() if got != report["bare"]} == {}
    assert report["faults_seen"] > 0 or not report["faults"]


@pytest.mark.parametrize("name", NAMES)
def test_a_fault_in_the_emitter_never_reaches_the_app(report):
    """With an emitter that fails on every record, the app gets what it got without us."""
    assert report["emit"] == report["bare"]


@pytest.mark.parametrize("name", NAMES)
def test_switched_off_nothing_is_patched(name):
    """An integration that is switched off leaves every one of its targets alone."""
    code = (
        f"import importlib, watchkeep; watchkeep.instrument()\n"
        f"integration = importlib.import_module('watchkeep.integrations.{name}').INTEGRATION\n"
        "from watchkeep import patching\n"
        "for module in integration.modules:\n"
        "    try: importlib.import_module(module)\n"
        "    except ImportError: pass\n"
        "found = [patching.find(target.path) for target in integration.targets]\n"
        "print([target for owner, name in filter(None, found) if patching.is_ours(target := getattr(owner, name))])"
    )
    done = child(code, WATCHKEEP_DISABLED_INTEGRATIONS=name)
    assert (done.stdout.strip(), done.returncode) == ("[]", 0), done.stderr


def test_without_any_of_the_libraries_we_are_silent():
    """No supported library is there: nothing is installed, printed or raised."""
    code = (
        f"import sys; [sys.modules.__setitem__(name, None) for name in {LIBRARIES!r}]\n"
        "import watchkeep; print(watchkeep.instrument()); watchkeep.uninstrument()"
    )
    done = child(code)
    assert (done.stdout, done.stderr, done.returncode) == ("True\n", "", 0)


@pytest.mark.parametrize("switch", [{"WATCHKEEP_ENABLED": "false"}, {"OTEL_SDK_DISABLED": "true"}])
def test_switched_off_altogether_nothing_is_touched(switch):
    """Either switch: no finder, no thread, no wrapped function."""
    code = (
        "import sys, threading, watchkeep; finders = list(sys.meta_path); print(watchkeep.instrument())\n"
        "import openai, logging\n"
        "from watchkeep import patching\n"
        "print(finders == sys.meta_path, threading.active_count(),\n"
        "      patching.is_ours(openai._base_client.SyncAPIClient.request),\n"
        "      patching.is_ours(logging.Logger.makeRecord))"
    )
    done = child(code, **switch)
    assert done.stdout == "False\nTrue 1 False False\n", done.stderr

"""OpenTelemetry's own launcher: its doors lead to the same start as `watchkeep run`."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path

import pytest

from fake_packages import distribution, library

LAUNCHER = Path(sys.executable).with_name("opentelemetry-instrument")
CHOSEN = {"OTEL_PYTHON_DISTRO": "watchkeep", "OTEL_PYTHON_CONFIGURATOR": "watchkeep"}
SHOW = (
    "import sys\nfrom watchkeep import auto\n"
    "from opentelemetry import trace\n"
    "print(auto.source(), type(trace._TRACER_PROVIDER).__name__, 'opentelemetry.sdk' in sys.modules)\n"
)


def instrumented(code: str, folder: Path, **extra: str) -> subprocess.CompletedProcess[str]:
    """Run code under opentelemetry-instrument."""
    environ = {k: v for k, v in os.environ.items() if not k.startswith(("WATCHKEEP_", "OTEL_", "PYTHONPATH"))}
    return subprocess.run(
        [str(LAUNCHER), sys.executable, "-c", code],
        env={**environ, "PYTHONPATH": str(folder), **extra},
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def test_the_doors_are_declared() -> None:
    """Each entry point of the distribution leads to an object of the right shape."""
    for group, method in (
        ("opentelemetry_distro", "load_instrumentor"),
        ("opentelemetry_configurator", "configure"),
        ("opentelemetry_pre_instrument", "__call__"),
        ("opentelemetry_instrumentor", "instrument"),
    ):
        (entry,) = (each for each in entry_points(group=group) if each.name == "watchkeep")
        assert hasattr(entry.load(), method)


def test_chosen_by_name(tmp_path: Path) -> None:
    """Chosen as distro and configurator, watchkeep starts and sets no global provider."""
    done = instrumented(SHOW, tmp_path, **CHOSEN)
    assert (done.stdout, done.returncode) == ("otel NoneType False\n", 0), done.stderr
    assert "Traceback" not in done.stderr


def test_beside_another_distro(tmp_path: Path) -> None:
    """Not chosen, watchkeep starts all the same, beside whatever pipeline the other distro set up."""
    pytest.importorskip("opentelemetry.distro")
    other = {"OTEL_PYTHON_DISTRO": "distro", "OTEL_PYTHON_CONFIGURATOR": "configurator"}
    quiet = dict.fromkeys(("OTEL_TRACES_EXPORTER", "OTEL_METRICS_EXPORTER", "OTEL_LOGS_EXPORTER"), "none")
    done = instrumented(SHOW, tmp_path, **other, **quiet)
    assert done.stdout == "otel TracerProvider True\n", done.stderr


@pytest.mark.parametrize("switch", [{"WATCHKEEP_ENABLED": "false"}, {"OTEL_SDK_DISABLED": "true"}])
def test_switched_off(tmp_path: Path, switch: dict[str, str]) -> None:
    """Switched off, no instrumentor is loaded and no finder is in place."""
    distribution(tmp_path, "shop", "wk-shop")
    library(tmp_path, "wk-shop", ("wkshop",))
    code = "import sys, wkshop\nprint([each for each in sys.meta_path if type(each).__module__ == 'watchkeep.auto'])"
    done = instrumented(code, tmp_path, **CHOSEN, **switch)
    assert done.stdout == "imported wkshop\n[]\n", done.stderr


def test_instrumentors_load_late_and_guarded(tmp_path: Path) -> None:
    """Under our distro each instrumentor loads with its library, and one that fails stops nobody."""
    distribution(tmp_path, "a_broken", "wk-shop")
    (tmp_path / "wk_instrumentation_a_broken.py").write_text("raise RuntimeError('broken')\n")
    distribution(tmp_path, "shop", "wk-shop")
    library(tmp_path, "wk-shop", ("wkshop",))
    done = instrumented("print('app')\nimport wkshop\n", tmp_path, **CHOSEN)
    lines = [line.split(" [")[0] for line in done.stdout.splitlines()]
    assert lines == ["app", "imported wkshop", "instrumented shop"], done.stderr
    assert "a_broken" in done.stderr


def test_under_both_launchers(tmp_path: Path) -> None:
    """`watchkeep run -- opentelemetry-instrument ...` starts once."""
    environ = {k: v for k, v in os.environ.items() if not k.startswith(("WATCHKEEP_", "OTEL_", "PYTHONPATH"))}
    done = subprocess.run(
        [sys.executable, "-m", "watchkeep", "run", "--", str(LAUNCHER), sys.executable, "-c", SHOW],
        env=environ,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.stdout.split()[1:] == ["NoneType", "False"], done.stderr
    assert "Traceback" not in done.stderr


def test_the_instrumentor_is_the_public_api() -> None:
    """WatchkeepInstrumentor().instrument() watches, uninstrument() gives everything back."""
    code = (
        "import sys\nfrom watchkeep import auto\nfrom watchkeep.otel import WatchkeepInstrumentor\n"
        "import openai._base_client as base\nbefore = base.SyncAPIClient.request\n"
        "one = WatchkeepInstrumentor()\none.instrument()\n"
        "assert base.SyncAPIClient.request is not before and auto.source() == 'code'\n"
        "one.uninstrument()\nassert base.SyncAPIClient.request is before and auto.source() is None\n"
        "assert not [each for each in sys.meta_path if type(each).__module__ == 'watchkeep.auto']\n"
    )
    environ = {k: v for k, v in os.environ.items() if not k.startswith(("WATCHKEEP_", "OTEL_", "PYTHONPATH"))}
    quiet = dict.fromkeys(("OTEL_TRACES_EXPORTER", "OTEL_METRICS_EXPORTER", "OTEL_LOGS_EXPORTER"), "none")
    done = subprocess.run(
        [sys.executable, "-c", code], env=environ | quiet, capture_output=True, text=True, timeout=30, check=False
    )
    assert done.returncode == 0, done.stderr

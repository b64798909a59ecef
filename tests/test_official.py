"""Official instrumentors: each loads with its library, and one that fails stops nobody."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from fake_packages import distribution, library
from watchkeep import auto, guard, official
from watchkeep.launch import SITE


def python(folder: Path, code: str, **extra: str) -> subprocess.CompletedProcess[str]:
    """Run code under our start with this folder installed."""
    environ = {k: v for k, v in os.environ.items() if not k.startswith(("WATCHKEEP_", "OTEL_"))}
    return subprocess.run(
        [sys.executable, "-c", code],
        env={**environ, "PYTHONPATH": os.pathsep.join([SITE, str(folder)]), **extra},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def test_loads_with_its_library(tmp_path: Path) -> None:
    """An instrumentor is active right after its library was imported, and not loaded before."""
    distribution(tmp_path, "shop", "wk-shop")
    library(tmp_path, "wk-shop", ("wkshop", "wkshop_more"))
    code = "import sys; print('wk_instrumentation_shop' in sys.modules); import wkshop, wkshop_more; print('done')"
    done = python(tmp_path, code)
    first, *rest = done.stdout.splitlines()
    assert (first, rest[0], rest[-1]) == ("False", "imported wkshop", "done"), done.stderr
    assert [line.startswith("instrumented shop") for line in rest] == [False, True, False, False]
    assert done.stderr == ""


@pytest.mark.parametrize("top_level", [True, False])
@pytest.mark.parametrize("extra", ["instruments", "instruments-any"])
def test_where_the_library_is_found(tmp_path: Path, top_level: bool, extra: str) -> None:
    """The modules come from the library's own records, whichever extra names the library."""
    distribution(tmp_path, "shop", "Wk.Shop", extra=extra)
    library(tmp_path, "wk-shop", ("wkshop", "wkshop_more"), top_level)
    (found,) = official.find([str(tmp_path)])
    assert (found.name, found.modules) == ("shop", ("wkshop", "wkshop_more"))


def test_a_library_that_is_not_installed(tmp_path: Path) -> None:
    """Without its library an instrumentor waits for nothing."""
    distribution(tmp_path, "shop", "wk-shop")
    (found,) = official.find([str(tmp_path)])
    assert found.modules == ()


def test_no_library_named(tmp_path: Path) -> None:
    """One for the standard library waits for that module, any other for the first library of ours."""
    distribution(tmp_path, "sqlite3")
    distribution(tmp_path, "everything")
    found = {each.name: each.modules for each in official.find([str(tmp_path)])}
    assert found["sqlite3"] == ("sqlite3",)
    assert "openai._base_client" in found["everything"]


def test_layers_that_are_ours_are_skipped(tmp_path: Path) -> None:
    """HTTP client and logging instrumentors are not loaded beside ours."""
    for name in ("httpx", "httpx2", "logging"):
        package = "httpx" if name == "httpx2" else name
        distribution(tmp_path, name, value=f"opentelemetry.instrumentation.{package}:Instrumentor")
    assert list(official.find([str(tmp_path)])) == []


def test_one_that_fails_stops_nobody(tmp_path: Path) -> None:
    """A failing instrumentor is named in one line; the import and the next instrumentor go on."""
    distribution(tmp_path, "a_broken", "wk-shop")
    (tmp_path / "wk_instrumentation_a_broken.py").write_text("raise RuntimeError('broken')\n")
    distribution(tmp_path, "b_absent", "wk-shop", value="no_such_module:Instrumentor")
    distribution(tmp_path, "c_good", "wk-shop")
    library(tmp_path, "wk-shop", ("wkshop",))
    done = python(tmp_path, "import wkshop; print('done')")
    assert "instrumented c_good" in done.stdout
    assert done.stdout.endswith("done\n")
    assert done.returncode == 0
    said = done.stderr.splitlines()
    assert len(said) == 2
    assert "a_broken" in done.stderr
    assert "b_absent" in done.stderr


@pytest.mark.parametrize("value", ["shop", "*", "other, shop"])
def test_switched_off(tmp_path: Path, value: str) -> None:
    """OpenTelemetry's own switch holds for each of them."""
    distribution(tmp_path, "shop", "wk-shop")
    library(tmp_path, "wk-shop", ("wkshop",))
    done = python(tmp_path, "import wkshop", OTEL_PYTHON_DISABLED_INSTRUMENTATIONS=value)
    assert done.stdout == "imported wkshop\n"


def test_unreadable_places_are_passed_over(tmp_path: Path) -> None:
    """A path entry that is a file, is not there, or holds odd folders is no obstacle."""
    (tmp_path / "file.zip").write_text("")
    (tmp_path / "instrumentation.dist-info").mkdir()
    (tmp_path / "-.dist-info").mkdir()
    assert list(official.find([str(tmp_path / "file.zip"), str(tmp_path / "absent"), "", str(tmp_path)])) == []


def test_it_is_not_activated_twice(tmp_path: Path, monkeypatch, capsys) -> None:
    """Where the app activates it itself, ours does not do it again."""
    monkeypatch.setattr(guard, "raising", True)
    monkeypatch.syspath_prepend(str(tmp_path))
    distribution(tmp_path, "shop", "wk-shop")
    library(tmp_path, "wk-shop", ("wkshop",))
    importlib.invalidate_caches()
    (found,) = official.find([str(tmp_path)])
    importlib.import_module("wk_instrumentation_shop").Instrumentor().instrument()
    found.wait()
    try:
        importlib.import_module("wkshop")
    finally:
        auto.stop()
        sys.modules.pop("wkshop", None)
    assert capsys.readouterr().out.count("instrumented shop") == 1

"""The command line: verbs, `watchkeep config`, and its exit status."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from watchkeep import cli, settings
from watchkeep.config import SETTINGS
from watchkeep.version import __version__


@pytest.fixture(autouse=True)
def quiet(monkeypatch, tmp_path):
    """No settings from outside, and the working folder is empty."""
    for name in list(os.environ):
        if name.startswith(("WATCHKEEP_", "OTEL_")):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


def rows(text: str) -> dict[str, tuple[str, str]]:
    """Read the table back: name -> (value, source)."""
    found = {}
    for line in text.splitlines():
        name, value, source = line.split(maxsplit=2)
        found[name] = (value, source)
    return found


def test_two_ways_to_call_it() -> None:
    """The console script and `python -m watchkeep` are the same command."""
    script = str(Path(sys.executable).with_name("watchkeep"))
    for words in ([script], [sys.executable, "-m", "watchkeep"]):
        done = subprocess.run([*words, "--version"], capture_output=True, text=True, timeout=30, check=True)
        assert done.stdout == f"watchkeep {__version__}\n"


@pytest.mark.parametrize("words", [[], ["no-such-verb"], ["run", "--no-such-option"], ["config", "extra"]])
def test_wrong_words(words: list[str], capsys) -> None:
    """A wrong word shows how it is used and exits with 2."""
    with pytest.raises(SystemExit) as ended:
        cli.main(words)
    assert ended.value.code == 2
    assert "usage: watchkeep" in capsys.readouterr().err


def test_config_shows_every_setting(capsys) -> None:
    """Each setting has its line with value and source; without errors the status is 0."""
    assert cli.main(["config"]) == 0
    shown = rows(capsys.readouterr().out)
    assert {each.env for each in SETTINGS.values()} <= set(shown)
    assert shown["WATCHKEEP_LABEL_CAP"] == ("100", "default")
    assert shown["OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"][1] == "default"
    assert shown["OTEL_METRIC_EXPORT_INTERVAL"] == ("10000", "default")


def test_config_says_where_a_value_came_from(capsys, monkeypatch, tmp_path) -> None:
    """The source is the variable, the file, the profile or the default."""
    file = tmp_path / "pyproject.toml"
    file.write_text("[tool.watchkeep]\nmodel_cap = 7\n")
    monkeypatch.setenv("WATCHKEEP_PROFILE", "dev")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://gateway:4318")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_LOGS_TIMEOUT", "7")
    assert cli.main(["config"]) == 0
    shown = rows(capsys.readouterr().out)
    assert shown["WATCHKEEP_MODEL_CAP"] == ("7", str(file))
    assert shown["WATCHKEEP_CONSOLE"] == ("true", "profile dev")
    assert shown["WATCHKEEP_PROFILE"] == ("dev", "environment WATCHKEEP_PROFILE")
    assert shown["OTEL_EXPORTER_OTLP_LOGS_ENDPOINT"] == (
        "http://gateway:4318/v1/logs",
        "environment OTEL_EXPORTER_OTLP_ENDPOINT",
    )
    assert shown["OTEL_EXPORTER_OTLP_LOGS_TIMEOUT"] == ("7", "environment OTEL_EXPORTER_OTLP_LOGS_TIMEOUT")


def test_config_names_all_errors(capsys, monkeypatch) -> None:
    """Our errors and those of the standard variables come together, and the status is 1."""
    monkeypatch.setenv("WATCHKEEP_LABEL_CAP", "x")
    monkeypatch.setenv("WATCHKEEP_NONSENSE", "x")
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "x")
    assert cli.main(["config"]) == 1
    shown = capsys.readouterr()
    assert len(shown.err.splitlines()) == 3
    assert rows(shown.out)["OTEL_BSP_SCHEDULE_DELAY"] == ("1000", "default")


def test_config_hides_secrets(capsys, monkeypatch) -> None:
    """Header values, and what in a URL may be a key, are not shown."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "api-key=hush,x-team=hush")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TRACES_HEADERS", "authorization=Bearer%20hush")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "https://hush:hush@gateway/otlp?key=hush")
    assert cli.main(["config"]) == 0
    out = capsys.readouterr().out
    assert "hush" not in out
    assert rows(out)["OTEL_EXPORTER_OTLP_HEADERS"][0] == "api-key=***,x-team=***"
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "hush hush")
    assert cli.main(["config"]) == 1
    shown = capsys.readouterr()
    assert "hush" not in shown.out + shown.err


def test_starting_the_command_imports_little() -> None:
    """`--version` and `run` do not pay for what only doctor needs."""
    code = "import sys; from watchkeep import cli; cli._parser(); print(*[m for m in sys.modules if 'watchkeep' in m])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=True)
    assert set(done.stdout.split()) == {"watchkeep", "watchkeep.cli", "watchkeep.version"}


def test_the_table_lines_up() -> None:
    """Columns start at the same place in every line."""
    lines, _ = settings.report({}, "/")
    starts = {line.index(line.split()[1], len(line.split()[0])) for line in lines}
    assert len(starts) == 1


def test_a_reader_that_has_seen_enough_is_no_fault():
    """`watchkeep config | head -1` ends quietly."""
    command = f"{sys.executable} -m watchkeep config | head -n 1"
    done = subprocess.run(["/bin/sh", "-c", command], capture_output=True, text=True, timeout=30, check=False)
    assert done.stderr == ""
    assert len(done.stdout.splitlines()) == 1

"""Settings: where each comes from, and what happens to a wrong one."""

from __future__ import annotations

import dataclasses
import re
import subprocess
import sys
from pathlib import Path

import pytest

from watchkeep import auto, config, guard
from watchkeep.config import SETTINGS, Config, ConfigError, load
from watchkeep.values import parse, show


def write(folder: Path, text: str, name: str = "pyproject.toml") -> Path:
    file = folder / name
    file.write_text(text)
    return file


def test_defaults(tmp_path: Path) -> None:
    """Without any source every setting has its default and says so."""
    loaded = load({}, str(tmp_path))
    assert loaded.config == Config()
    assert set(loaded.sources.values()) == {"default"}
    assert loaded.errors == []


def test_every_setting_is_declared_once() -> None:
    """Each field has one environment name of its own, a meaning, and a default that its own parser takes."""
    assert list(SETTINGS) == [field.name for field in dataclasses.fields(Config)]
    assert len({each.env for each in SETTINGS.values()}) == len(SETTINGS)
    for each in SETTINGS.values():
        assert each.meaning.endswith("."), each.name
        for value in (each.default, *each.presets.values()):
            if value not in (None, "", ()):
                assert parse(each, show(value)) == value, each.name


def test_environment_over_file_over_preset_over_default(tmp_path: Path) -> None:
    """The environment wins over the file, the file over the profile's preset, the preset over the default."""
    file = write(tmp_path, '[tool.watchkeep]\nprofile = "prod"\nlabel_cap = 7\nmodel_cap = 8\n')
    loaded = load({"WATCHKEEP_LABEL_CAP": "9"}, str(tmp_path))
    assert (loaded.config.label_cap, loaded.config.model_cap) == (9, 8)
    assert (loaded.config.pool_spans, loaded.config.chunk_metrics) == ("waited", "summary")
    wanted = ("label_cap", "model_cap", "pool_spans", "chunk_metrics")
    assert [loaded.sources[name] for name in wanted] == [
        "environment WATCHKEEP_LABEL_CAP",
        str(file),
        "profile prod",
        "default",
    ]
    assert load({"WATCHKEEP_POOL_SPANS": "all"}, str(tmp_path)).config.pool_spans == "all"


def test_the_nearest_pyproject_counts(tmp_path: Path) -> None:
    """The search goes up from the working folder and stops at the first pyproject.toml."""
    write(tmp_path, "[tool.watchkeep]\nlabel_cap = 7\n")
    inner = tmp_path / "a" / "b"
    inner.mkdir(parents=True)
    assert load({}, str(inner)).config.label_cap == 7
    write(inner, "[tool.other]\n")
    assert load({}, str(inner)).config.label_cap == 100


def test_the_search_is_bounded(tmp_path: Path) -> None:
    """A pyproject.toml too far up is not looked for."""
    write(tmp_path, "[tool.watchkeep]\nlabel_cap = 7\n")
    deep = tmp_path.joinpath(*["d"] * 20)
    deep.mkdir(parents=True)
    assert load({}, str(deep)).config.label_cap == 100


@pytest.mark.parametrize("text", ["label_cap = 7\n", "[tool.watchkeep]\nlabel_cap = 7\n"])
def test_a_named_file(tmp_path: Path, text: str) -> None:
    """WATCHKEEP_CONFIG names a file that holds the settings at its top level or in [tool.watchkeep]."""
    write(tmp_path, "[tool.watchkeep]\nlabel_cap = 1\n")
    file = write(tmp_path, text, "watch.toml")
    loaded = load({"WATCHKEEP_CONFIG": "watch.toml"}, str(tmp_path))
    assert (loaded.config.label_cap, loaded.file) == (7, str(file))


@pytest.mark.parametrize(
    ("name", "raw", "value"),
    [
        ("console", "Yes", True),
        ("console", "0", False),
        ("sdk_disabled", "TRUE", True),
        ("sdk_disabled", "1", False),
        ("join", "false", False),
        ("queue_bytes", " 65536 ", 65536),
        ("exit_timeout", "0.5", 0.5),
        ("allowed_hosts", "a.example, b.example:8080,", ("a.example", "b.example:8080")),
        ("capture_content", "true", "SPAN_AND_EVENT"),
        ("capture_content", "span_only", "SPAN_ONLY"),
        ("capture_content", "False", "NO_CONTENT"),
        ("traces_exporter", "otlp, console", ("otlp", "console")),
        ("correlation_source", "app.context:request_id", "app.context:request_id"),
        ("service_name", "été 東京", "été 東京"),
    ],
)
def test_good_values(tmp_path: Path, name: str, raw: str, value: object) -> None:
    """A text from the environment becomes a value of the declared kind."""
    loaded = load({SETTINGS[name].env: raw}, str(tmp_path))
    assert (getattr(loaded.config, name), loaded.errors) == (value, [])


@pytest.mark.parametrize(
    ("name", "raw"),
    [
        ("console", "maybe"),
        ("profile", "production"),
        ("label_cap", "0"),
        ("label_cap", "1e3"),
        ("label_cap", "9" * 5000),
        ("label_cap", "many"),
        ("exit_timeout", "nan"),
        ("exit_timeout", "inf"),
        ("correlation_id", "a\r\nX-Evil: 1"),
        ("correlation_id", "a" * 129),
        ("correlation_header", "X Bad"),
        ("correlation_source", "no-module"),
        ("allowed_hosts", "https://gateway.example/v1"),
        ("traces_exporter", "otlp,zipkin"),
        ("service_name", "a\nb"),
        ("service_name", "a\udc80"),
        ("capture_content", "everything"),
    ],
)
def test_a_bad_value_is_named_and_the_default_used(tmp_path: Path, name: str, raw: str) -> None:
    """A bad value is one error that says what to write instead; the default stands in."""
    loaded = load({SETTINGS[name].env: raw}, str(tmp_path))
    assert getattr(loaded.config, name) == SETTINGS[name].default
    (error,) = loaded.errors
    assert error.startswith(f"{SETTINGS[name].env} = ")
    assert "use " in error
    assert error.isprintable()
    assert len(error) < 600


@pytest.mark.parametrize("value", ["true", "[1]", "{}", "1.5", '"x"', "1979-05-27"])
def test_a_bad_value_in_a_file(tmp_path: Path, value: str) -> None:
    """A value of the wrong TOML type is an error that names the file and the setting."""
    file = write(tmp_path, f"[tool.watchkeep]\nlabel_cap = {value}\n")
    loaded = load({}, str(tmp_path))
    assert loaded.config.label_cap == 100
    assert loaded.errors[0].startswith(f"{file}: label_cap = ")


def test_all_errors_at_once(tmp_path: Path) -> None:
    """Everything wrong is named in one go, whatever source it stands in."""
    write(tmp_path, '[tool.watchkeep]\nmodel_cap = "x"\npool_span = "all"\n')
    loaded = load(
        {
            "WATCHKEEP_LABEL_CAP": "x",
            "WATCHKEEP_PROFILE": "x",
            "WATCHKEEP_QUEU_BYTES": "1",
            "WATCHKEEP_DISABLED_INTEGRATIONS": "no_such_library",
        },
        str(tmp_path),
    )
    assert len(loaded.errors) == 6
    text = "\n".join(loaded.errors)
    assert "did you mean WATCHKEEP_QUEUE_BYTES?" in text
    assert "did you mean pool_spans?" in text
    assert loaded.config == Config(disabled_integrations=("no_such_library",))


def test_a_bad_value_falls_back_to_the_file(tmp_path: Path) -> None:
    """Where the environment is wrong, the next source that is right counts."""
    write(tmp_path, "[tool.watchkeep]\nlabel_cap = 7\n")
    loaded = load({"WATCHKEEP_LABEL_CAP": "x"}, str(tmp_path))
    assert (loaded.config.label_cap, len(loaded.errors)) == (7, 1)


@pytest.mark.parametrize(
    "text",
    [
        "watchkeep = [",
        "tool = 3 # watchkeep",
        "[tool]\nwatchkeep = 3",
        "\x00watchkeep",
        "watchkeep = " + "[" * 100_000,
    ],
)
def test_a_broken_file(tmp_path: Path, text: str) -> None:
    """A file that cannot be used is named, and the app gets the defaults."""
    file = write(tmp_path, text)
    loaded = load({}, str(tmp_path))
    assert loaded.config == Config()
    assert [error.startswith(str(file)) for error in loaded.errors] == [True]


@pytest.mark.parametrize("name", ["absent.toml", "."])
def test_an_unreadable_file(tmp_path: Path, name: str) -> None:
    """A named file that cannot be read is an error that names the variable to correct."""
    loaded = load({"WATCHKEEP_CONFIG": name}, str(tmp_path))
    assert "WATCHKEEP_CONFIG" in loaded.errors[0]
    assert loaded.config == Config()


def test_empty_is_unset(tmp_path: Path) -> None:
    """An empty variable counts as not set, as OpenTelemetry's specification has it."""
    assert load({each.env: "" for each in SETTINGS.values()}, str(tmp_path)) == load({}, str(tmp_path))


def test_switches() -> None:
    """One question answers for an integration, one for a signal, whichever variable switched it off."""
    off = Config(disabled_integrations=("openai",), disabled_instrumentations=("pybreaker",))
    assert [off.integrates(name) for name in ("openai", "pybreaker", "http")] == [False, False, True]
    assert not Config(disabled_instrumentations=("*",)).integrates("http")
    assert not Config(enabled=False).integrates("http")
    assert not Config(sdk_disabled=True).active
    assert not Config(traces=False).sends("traces")
    assert not Config(metrics_exporter=("none",)).sends("metrics")
    printed = Config(traces_exporter=("console",))
    assert (printed.exports("traces"), printed.prints("traces")) == (False, True)
    assert Config(console=True).prints("traces")
    assert not Config(console=True).prints("logs")


@pytest.mark.parametrize("value", ["false", "0", "no", "OFF", "true", "1", "maybe", ""])
@pytest.mark.parametrize("name", ["WATCHKEEP_ENABLED", "OTEL_SDK_DISABLED"])
def test_the_cheap_switch_agrees(tmp_path: Path, name: str, value: str) -> None:
    """What the start reads by itself is what the settings say."""
    environ = {name: value}
    assert auto.switched_off(environ) is not load(environ, str(tmp_path)).config.active


def test_current_reads_once_and_says_errors(monkeypatch, tmp_path) -> None:
    """A process reads its settings once and logs what is wrong with them once."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WATCHKEEP_LABEL_CAP", "x")
    monkeypatch.delenv(config.SAID, raising=False)
    said: list[str] = []
    monkeypatch.setattr(guard, "warn", lambda where, text: said.append(text))
    config.use(None)
    try:
        assert config.current() is config.current()
        assert len(said) == 1
        assert "WATCHKEEP_LABEL_CAP = 'x'" in said[0]
    finally:
        config.use(None)


def test_strict_stops_with_all_errors(monkeypatch, tmp_path) -> None:
    """In code, WATCHKEEP_STRICT=true raises one exception that names every error."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WATCHKEEP_LABEL_CAP", "x")
    monkeypatch.setenv("WATCHKEEP_MODEL_CAP", "x")
    config.use(None)
    try:
        assert config.checked().label_cap == 100
        config.use(None)
        monkeypatch.setenv("WATCHKEEP_STRICT", "true")
        with pytest.raises(ConfigError, match=r"(?s)LABEL_CAP.*MODEL_CAP"):
            config.checked()
    finally:
        config.use(None)


def test_reading_is_cheap(tmp_path: Path) -> None:
    """Without a file of ours neither the TOML parser nor anything for error messages is imported."""
    write(tmp_path, "[project]\nname = 'other'\n")
    code = (
        "import sys; from watchkeep import config; config.load();"
        "sys.exit(bool({'tomllib', 'difflib', 'logging'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=False).returncode == 0


def test_the_stack_has_variables_of_its_own() -> None:
    """What the bundled servers and `watchkeep stack` read is no misspelt setting of an app that runs beside them."""
    root = Path(__file__).parent.parent
    files = [root / "docker-compose.yml"]
    for folder in ("collector", "alerts", "dashboards/provisioning", "instrumentation/watchkeep/stack"):
        files += [file for file in (root / folder).rglob("*") if file.suffix in (".yaml", ".sh", ".py", ".ini")]
    found = {name for file in files for name in re.findall(r"WATCHKEEP_[A-Z_]*[A-Z]\b", file.read_text("utf-8"))}
    assert len(found) > 30
    assert load(dict.fromkeys(found, "1")).errors == []

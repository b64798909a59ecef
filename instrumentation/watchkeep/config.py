"""Every setting, each one declared line: its default, range, meaning and presets stand beside its name.

Values come from, first one wins: the environment, the file that `WATCHKEEP_CONFIG` names,
`[tool.watchkeep]` in the nearest pyproject.toml, the profile's preset, the default.
What is wrong is collected and named at once; the default stands in, and the app runs on.
`watchkeep config`, docs/settings.md and .env.example are derived from these lines.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, NamedTuple

from watchkeep.values import Setting, parse

FILE_VARIABLE = "WATCHKEEP_CONFIG"
SAID = "_WATCHKEEP_SAID"  # how many errors the launcher has named, so that its children need not
_QUOTE = 100  # letters of a wrong value that an error shows
_LEVELS = 16  # how far up a pyproject.toml is looked for
_CONTENT = ("NO_CONTENT", "SPAN_ONLY", "EVENT_ONLY", "SPAN_AND_EVENT")
_EXPORTERS = ("otlp", "console", "none")
_ID = r"[A-Za-z0-9._:-]{1,128}"
_DOTTED = r"[^\W\d]\w*(\.[^\W\d]\w*)*[.:][^\W\d]\w*"
_TOKEN = r"[A-Za-z0-9!#$%&'*+.^_`|~-]+"  # noqa: S105 - the HTTP grammar's name of it, not a secret
_HOST = r"\[?[A-Za-z0-9.:*_-]+\]?(:\d+)?"
_KIB, _MIB, _GIB = 1 << 10, 1 << 20, 1 << 30


def setting(
    default: Any,
    meaning: str,
    *,
    env: str = "",
    kind: str = "",
    choices: tuple[str, ...] = (),
    low: float | None = None,
    high: float | None = None,
    pattern: str = "",
    presets: Mapping[str, Any] | None = None,
    alias: Mapping[str, str] | None = None,
) -> Any:
    """Declare a setting; the dataclass machinery gives it its name."""
    kind = kind or {tuple: "list"}.get(type(default), type(default).__name__)
    rest = (choices, low, high, pattern, presets or {}, alias or {})
    return field(default=default, metadata={"declared": (env, kind, default, meaning, *rest)})


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """The settings of one process; they do not change once it runs."""

    enabled: bool = setting(True, "Off: nothing at all is patched or sent.")
    sdk_disabled: bool = setting(
        False, "The standard switch; true does the same as WATCHKEEP_ENABLED=false.", env="OTEL_SDK_DISABLED"
    )
    profile: str | None = setting(
        None,
        "A set of presets: dev shows traces on stderr, staging keeps the defaults, prod keeps fewer spans.",
        kind="str",
        choices=("dev", "staging", "prod"),
    )
    strict: bool = setting(
        False,
        "A wrong setting stops the start, with all errors named, instead of falling back to its default.",
    )
    service_name: str = setting("", "The service that all signals belong to.", env="OTEL_SERVICE_NAME")
    console: bool = setting(False, "Print each finished trace as a tree on stderr.", presets={"dev": True})

    traces: bool = setting(True, "Make spans.")
    metrics: bool = setting(True, "Record metrics.")
    logs: bool = setting(True, "Ship log records: the app's own lines (WATCHKEEP_APP_LOGS) and our events.")
    traces_exporter: tuple[str, ...] = setting(
        ("otlp",), "Where spans go.", env="OTEL_TRACES_EXPORTER", choices=_EXPORTERS
    )
    metrics_exporter: tuple[str, ...] = setting(
        ("otlp",), "Where metrics go.", env="OTEL_METRICS_EXPORTER", choices=_EXPORTERS
    )
    logs_exporter: tuple[str, ...] = setting(
        ("otlp",), "Where log records go.", env="OTEL_LOGS_EXPORTER", choices=_EXPORTERS
    )
    disabled_integrations: tuple[str, ...] = setting(
        (), "Integrations of ours that are not installed, such as openai or pybreaker.", pattern=r"[\w*-]+"
    )
    disabled_instrumentations: tuple[str, ...] = setting(
        (),
        "The standard list; switches off official instrumentors, and ours of the same name; `*` is all.",
        env="OTEL_PYTHON_DISABLED_INSTRUMENTATIONS",
    )

    correlation_id: str = setting(
        "",
        "The process's correlation ID; `watchkeep run` makes a fresh one. Empty: one is made at start.",
        pattern=_ID,
    )
    correlation_header: str = setting(
        "X-Correlation-ID",
        "The header that carries the correlation ID in and, to allowed hosts, out.",
        pattern=_TOKEN,
    )
    correlation_source: str = setting(
        "",
        "The app's own ContextVar that holds its correlation ID, as package.module:variable.",
        pattern=_DOTTED,
    )
    allowed_hosts: tuple[str, ...] = setting(
        (),
        "Own gateways: LLM requests to these hosts carry traceparent, baggage and the correlation header.",
        pattern=_HOST,
    )

    capture_content: str = setting(
        "NO_CONTENT",
        "Record prompts and completions, which may hold personal data; `true` is SPAN_AND_EVENT.",
        env="OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT",
        choices=_CONTENT,
        alias={"true": "SPAN_AND_EVENT", "false": "NO_CONTENT"},
    )
    user_id: bool = setting(False, "Put the app's `user.id`, where it sets one, on spans and log records.")
    pool_spans: str = setting(
        "all",
        "Which pool checkouts get a span of their own: all, or only those that waited 1 ms or connected.",
        choices=("all", "waited"),
        presets={"prod": "waited"},
    )
    chunk_metrics: str = setting(
        "summary",
        "Streams: mean and longest gap on the span (summary), or each chunk in a histogram too (all).",
        choices=("summary", "all"),
    )
    genai_names: str = setting(
        "latest",
        "Names of the GenAI metrics: the latest, those that released tools still read, or both.",
        choices=("latest", "v1.41", "both"),
    )
    http_pool_metrics: bool = setting(
        False, "Record OpenTelemetry's own HTTP connection metrics next to our pool metrics."
    )
    operation_logs: bool = setting(
        False, "Ship one log record for each finished LLM call, an ERROR one for each failed call."
    )
    ask_usage: bool = setting(
        False, "Ask streams for token counts (stream_options.include_usage); this changes the request."
    )
    app_logs: bool = setting(True, "Ship the app's own log lines; what the app prints does not change.")
    join: bool | None = setting(
        None,
        "Join a provider that the app set itself, as a further reader. Unset: only under `watchkeep run`.",
        kind="bool",
    )
    sigterm: bool = setting(True, "Flush on SIGTERM where its action was the default.")

    label_cap: int = setting(
        100, "Values that one metric label may take before the rest is counted as _OTHER.", low=1, high=10_000
    )
    model_cap: int = setting(50, "The same cap, for model names.", low=1, high=10_000)
    value_max_bytes: int = setting(8192, "Attribute values are cut to this many bytes.", low=64, high=_MIB)
    queue_bytes: int = setting(
        16 * _MIB, "Memory that telemetry may hold while it waits to be sent.", low=64 * _KIB, high=_GIB
    )
    stream_max_age: float = setting(
        900.0, "Seconds without a chunk after which a stream counts as abandoned.", low=1, high=86_400
    )
    exit_timeout: float = setting(
        2.7,
        "Seconds that the process may take at exit to send what is left; with the rest of an exit, 3.",
        low=0,
        high=60,
    )

    @property
    def active(self) -> bool:
        """Tell whether anything at all may be patched."""
        return self.enabled and not self.sdk_disabled

    @property
    def content_on_spans(self) -> bool:
        """Tell whether prompts and completions go on spans."""
        return self.capture_content in ("SPAN_ONLY", "SPAN_AND_EVENT")

    @property
    def content_on_events(self) -> bool:
        """Tell whether prompts and completions go on events."""
        return self.capture_content in ("EVENT_ONLY", "SPAN_AND_EVENT")

    def sends(self, signal: str) -> bool:
        """Tell whether `traces`, `metrics` or `logs` is recorded at all."""
        return bool(getattr(self, signal)) and "none" not in getattr(self, f"{signal}_exporter")

    def exports(self, signal: str) -> bool:
        """Tell whether `traces`, `metrics` or `logs` leaves by OTLP."""
        return self.sends(signal) and "otlp" in getattr(self, f"{signal}_exporter")

    def prints(self, signal: str) -> bool:
        """Tell whether `traces`, `metrics` or `logs` is shown on the console."""
        asked = "console" in getattr(self, f"{signal}_exporter")
        return self.sends(signal) and (asked or (signal == "traces" and self.console))

    def integrates(self, name: str) -> bool:
        """Tell whether the integration `name` is switched on."""
        off = {*self.disabled_integrations, *self.disabled_instrumentations}
        return self.active and not off & {name, "*"}


def _declared() -> Iterator[Setting]:
    for each in fields(Config):
        env, *rest = each.metadata["declared"]
        yield Setting(each.name, env or f"WATCHKEEP_{each.name.upper()}", *rest)


SETTINGS: dict[str, Setting] = {each.name: each for each in _declared()}


class Loaded(NamedTuple):
    """The settings, where each came from, and everything that is wrong."""

    config: Config
    sources: dict[str, str]
    errors: list[str]
    file: str = ""


class ConfigError(ValueError):
    """Settings are wrong and `WATCHKEEP_STRICT=true` asked to stop."""

    def __init__(self, errors: list[str]) -> None:
        super().__init__("\n".join(["the settings are wrong:", *(f"  {error}" for error in errors)]))


def load(environ: Mapping[str, str] | None = None, cwd: str | None = None) -> Loaded:
    """Read every setting and collect every error."""
    environ = os.environ if environ is None else environ
    errors: list[str] = []
    file, table = _table(environ, cwd or os.getcwd(), errors)
    values: dict[str, Any] = {}
    sources: dict[str, str] = {}
    for each in SETTINGS.values():
        for source, raw in ((f"environment {each.env}", environ.get(each.env)), (file, table.get(each.name))):
            if raw is None or raw == "":  # the specification: an empty variable counts as unset
                continue
            try:
                values[each.name], sources[each.name] = parse(each, raw), source
                break
            except ValueError as wrong:
                errors.append(f"{_where(each, source)} = {_quoted(raw)}: {wrong}")
    errors.extend(_unknown(environ, file, table))
    _fill(values, sources)
    errors.extend(_not_ours(values.get("disabled_integrations", ())))
    return Loaded(Config(**values), sources, errors, file if table else "")


_loaded: Loaded | None = None


def current() -> Config:
    """Give this process's settings, read once; errors are logged the first time."""
    global _loaded
    if _loaded is None:
        _loaded = load()
        _complain(_loaded.errors)
    return _loaded.config


def checked() -> Config:
    """Give this process's settings as `current` does, but raise where strict settings are wrong."""
    config = current()
    if _loaded is not None and _loaded.errors and config.strict:
        raise ConfigError(_loaded.errors)
    return config


def use(config: Config | None) -> None:
    """Make `config` this process's settings; None reads them again."""
    global _loaded
    _loaded = None if config is None else Loaded(config, dict.fromkeys(SETTINGS, "code"), [])


def _complain(errors: list[str]) -> None:
    if errors and os.environ.get(SAID) != str(len(errors)):
        from watchkeep import guard

        lines = [f"{len(errors)} setting(s) wrong, the defaults are used:", *errors]
        guard.warn("settings", "\n  ".join(lines))


def _fill(values: dict[str, Any], sources: dict[str, str]) -> None:
    profile = values.get("profile") or "default"
    for each in SETTINGS.values():
        if each.name not in values:
            preset = profile in each.presets
            values[each.name] = each.presets.get(profile, each.default)
            sources[each.name] = f"profile {profile}" if preset else "default"


# Files


def _table(environ: Mapping[str, str], cwd: str, errors: list[str]) -> tuple[str, dict[str, Any]]:
    named = environ.get(FILE_VARIABLE)
    path = os.path.abspath(os.path.join(cwd, named)) if named else _nearest(cwd)
    if path is None:
        return "", {}
    data = _toml(path, errors)
    table = data.get("tool", {}).get("watchkeep")
    if table is None and named and os.path.basename(path) != "pyproject.toml":
        table = data
    if not isinstance(table, (dict, type(None))):
        errors.append(f"{path}: [tool.watchkeep] is not a table; write settings below it, one per line")
        table = None
    return path, table or {}


def _nearest(cwd: str) -> str | None:
    folder = os.path.abspath(cwd)
    for _ in range(_LEVELS):
        path = os.path.join(folder, "pyproject.toml")
        if os.path.isfile(path):
            return path
        if folder == (folder := os.path.dirname(folder)):
            break
    return None


def _toml(path: str, errors: list[str]) -> dict[str, Any]:
    try:
        with open(path, "rb") as file:
            text = file.read()
        if os.path.basename(path) == "pyproject.toml" and b"watchkeep" not in text:
            return {}  # not ours, so not worth the parser
        import tomllib

        data = tomllib.loads(text.decode())
    except OSError as wrong:
        errors.append(f"{path}: cannot be read ({wrong.strerror}); check {FILE_VARIABLE} and its permissions")
        return {}
    except (ValueError, RecursionError) as wrong:
        errors.append(f"{path}: is not TOML ({wrong}); none of its settings is used")
        return {}
    if not isinstance(data.get("tool", {}), dict):
        errors.append(f"{path}: tool is not a table; write settings below [tool.watchkeep]")
        return {}
    return data


# Names


def _quoted(raw: Any) -> str:
    text = repr(raw)
    return text if len(text) <= _QUOTE else f"{text[:_QUOTE]}..."


def _where(declared: Setting, source: str) -> str:
    return declared.env if source.startswith("environment") else f"{source}: {declared.name}"


# Read by the servers of the stack and by `watchkeep stack`; an app beside it may have them in its environment.
_OF_THE_STACK = tuple(
    f"WATCHKEEP_{word}_"
    for word in (
        "ALERTMANAGER",
        "ALERTS",
        "COLLECTOR",
        "EXTRA",
        "GRAFANA",
        "LOKI",
        "OTLP",
        "PROMETHEUS",
        "RUNBOOK",
        "SECRETS",
        "STACK",
        "TEMPO",
    )
)


def _unknown(environ: Mapping[str, str], file: str, table: Mapping[str, Any]) -> Iterator[str]:
    known = {each.env for each in SETTINGS.values()} | {FILE_VARIABLE}
    for name in sorted(environ):
        if name.startswith("WATCHKEEP_") and name not in known and not name.startswith(_OF_THE_STACK):
            yield f"{name}: there is no such setting; {_hint(name, known)}"
    for name in table:
        if name not in SETTINGS:
            yield f"{file}: {name}: there is no such setting; {_hint(name, set(SETTINGS))}"


def _hint(name: str, known: set[str]) -> str:
    from difflib import get_close_matches

    close = get_close_matches(name, sorted(known), 1)
    return f"did you mean {close[0]}?" if close else "`watchkeep config` lists them all"


def _not_ours(names: tuple[str, ...]) -> Iterator[str]:
    from watchkeep.auto import integrations

    known = {"*", *integrations()} if names else set()
    for name in names:
        if name not in known:
            yield f"WATCHKEEP_DISABLED_INTEGRATIONS: {name}: not known; use {', '.join(sorted(known))}"

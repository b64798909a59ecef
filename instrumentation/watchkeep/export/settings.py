"""The standard variables of OTLP export: one table says each one's name, reader, default and meaning.

A wrong value costs only itself: its default is used and `errors` says so. The text never quotes a header,
which may be a key. Timeouts are in seconds, as OpenTelemetry's Python exporters read them; intervals are in
milliseconds.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from importlib.util import find_spec
from typing import Any, NamedTuple
from urllib.parse import unquote, urlsplit, urlunsplit

TRACES, METRICS, LOGS = "traces", "metrics", "logs"
SIGNALS = (TRACES, METRICS, LOGS)
HTTP, GRPC = "http/protobuf", "grpc"
_HOST = "127.0.0.1"  # not localhost, which may be ::1 first, where a collector need not listen
_PORTS = {HTTP: 4318, GRPC: 4317}
_MAX_TEXT = 16384
_MAX_HEADERS = 64
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,256}")
_UNPRINTABLE = re.compile(r"[\x00-\x20\x7f]")

Headers = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Target:
    """Where one signal goes, and how."""

    signal: str
    endpoint: str  # the whole URL
    headers: Headers = ()
    timeout: float = 10.0
    compression: str = "none"
    certificate: str | None = None
    client_key: str | None = None
    client_certificate: str | None = None
    insecure: bool = False
    protocol: str = HTTP

    @property
    def origin(self) -> str:
        """Scheme, host and port: what may be shown, since user, path and query may hold a key."""
        parts = urlsplit(self.endpoint)
        return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"

    @property
    def host(self) -> str:
        """The host alone."""
        return urlsplit(self.endpoint).hostname or ""

    @property
    def port(self) -> int:
        """The port, the scheme's own when none is named."""
        parts = urlsplit(self.endpoint)
        return parts.port or (443 if parts.scheme == "https" else 80)


@dataclass(frozen=True, slots=True)
class ExportSettings:
    """All that the pipeline needs to know."""

    traces: Target
    metrics: Target
    logs: Target
    temporality: str = "cumulative"  # or delta, lowmemory
    exponential: bool = False  # histograms of the app's own meters
    metric_interval: float = 10.0
    span_delay: float = 1.0
    span_batch: int = 512
    span_items: int | None = None  # None: only bytes bound the queue
    log_delay: float = 1.0
    log_batch: int = 512
    log_items: int | None = None
    queue_bytes: int = 16 << 20
    batch_bytes: int = 3_670_016  # 3.5 MiB: receivers refuse from 4 MiB on
    max_age: float = 60.0  # seconds that a refused batch is tried again
    exit_timeout: float = 2.7  # an exit takes a little more than what it waits for
    sigterm: bool = True
    errors: tuple[str, ...] = ()


class Variable(NamedTuple):
    """One variable: `read` raises ValueError with what is wrong."""

    name: str
    field: str
    read: Callable[[str], Any]
    default: Any
    meaning: str


def _number(low: float, high: float, scale: float = 1.0, whole: bool = False) -> Callable[[str], Any]:
    def read(text: str) -> Any:
        value = float(text) * scale
        if not low <= value <= high:
            raise ValueError(f"not between {low / scale:g} and {high / scale:g}")
        return int(value) if whole else value

    return read


def _one_of(*choices: str) -> Callable[[str], str]:
    def read(text: str) -> str:
        value = text.strip().lower()
        if value not in choices:
            raise ValueError(f"not one of {', '.join(choices)}")
        return value

    return read


def _boolean(text: str) -> bool:
    return _one_of("true", "false")(text) == "true"


def _file(text: str) -> str:
    path = text.strip()
    if not os.access(path, os.R_OK):
        raise ValueError("not a file that can be read")
    return path


def _exponential(text: str) -> bool:
    return _one_of("explicit_bucket_histogram", "base2_exponential_bucket_histogram")(text).startswith("base2")


def _protocol(text: str) -> str:
    value = _one_of(HTTP, GRPC, "http/json")(text)
    if value == "http/json":
        raise ValueError("http/json is not offered; the same port takes http/protobuf")
    if value == GRPC and find_spec("grpc") is None:
        raise ValueError("grpc needs `pip install 'watchkeep[otlp]'`; http/protobuf wants the collector's port 4318")
    return value


def endpoint(text: str) -> str:
    """Read an end point; without a scheme it is http."""
    value = text.strip()
    if "://" not in value:
        value = f"http://{value}"
    parts = urlsplit(value)
    if parts.scheme not in ("http", "https") or not parts.hostname or _UNPRINTABLE.search(value):
        raise ValueError("not a URL such as http://127.0.0.1:4318")
    if parts.port == 0:
        raise ValueError("port 0 cannot be connected to")
    return value


def headers(text: str) -> Headers:
    """Read `key=value,key=value`, percent-encoded as in W3C baggage; as liberal as the official reader."""
    found: dict[str, str] = {}
    for number, part in enumerate(filter(None, re.split(r"[ \t]*,[ \t]*", text.strip())), 1):
        name, equals, value = part.partition("=")
        name, value = unquote(name).strip().lower(), unquote(value).strip()
        if not equals or not _TOKEN.fullmatch(name) or not _header_value(value):
            raise ValueError(f"entry {number} is not name=value, percent-encoded")
        found[name] = value
    if len(found) > _MAX_HEADERS:
        raise ValueError(f"more than {_MAX_HEADERS} headers")
    return tuple(found.items())


def _header_value(value: str) -> bool:
    return not re.search(r"[\x00-\x08\x0a-\x1f\x7f\ud800-\udfff]", value)


OF_SIGNAL = (
    Variable("ENDPOINT", "endpoint", endpoint, None, "the collector's URL"),
    Variable("HEADERS", "headers", headers, (), "headers of every request, key=value,key=value"),
    Variable("TIMEOUT", "timeout", _number(0.001, 600), 10.0, "seconds one try may take"),
    Variable("COMPRESSION", "compression", _one_of("none", "gzip", "deflate"), "none", "of the request's body"),
    Variable("CERTIFICATE", "certificate", _file, None, "file of the authorities that are trusted"),
    Variable("CLIENT_KEY", "client_key", _file, None, "file of the client's private key"),
    Variable("CLIENT_CERTIFICATE", "client_certificate", _file, None, "file of the client's certificate"),
    Variable("INSECURE", "insecure", _boolean, False, "gRPC without TLS where the end point names no scheme"),
    Variable("PROTOCOL", "protocol", _protocol, HTTP, "http/protobuf or grpc"),
)
OF_METRICS = (
    Variable(
        "TEMPORALITY_PREFERENCE",
        "temporality",
        _one_of("cumulative", "delta", "lowmemory"),
        "cumulative",
        "since the start, or since the last export",
    ),
    Variable(
        "DEFAULT_HISTOGRAM_AGGREGATION", "exponential", _exponential, False, "buckets of the app's own histograms"
    ),
)
_MS = 0.001
GENERAL = (
    Variable("OTEL_METRIC_EXPORT_INTERVAL", "metric_interval", _number(0.1, 3600, _MS), 10.0, "between exports"),
    Variable("OTEL_METRIC_EXPORT_TIMEOUT", "metric_timeout", _number(0.001, 600, _MS), 30.0, "of one export"),
    Variable("OTEL_BSP_SCHEDULE_DELAY", "span_delay", _number(0.01, 3600, _MS), 1.0, "between exports of spans"),
    Variable("OTEL_BSP_MAX_QUEUE_SIZE", "span_items", _number(1, 1e7, 1, True), None, "spans that may wait"),
    Variable("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "span_batch", _number(1, 1e5, 1, True), 512, "spans in a request"),
    Variable("OTEL_BSP_EXPORT_TIMEOUT", "span_timeout", _number(0.001, 600, _MS), 30.0, "of one export"),
    Variable("OTEL_BLRP_SCHEDULE_DELAY", "log_delay", _number(0.01, 3600, _MS), 1.0, "between exports of logs"),
    Variable("OTEL_BLRP_MAX_QUEUE_SIZE", "log_items", _number(1, 1e7, 1, True), None, "records that may wait"),
    Variable("OTEL_BLRP_MAX_EXPORT_BATCH_SIZE", "log_batch", _number(1, 1e5, 1, True), 512, "records in a request"),
    Variable("OTEL_BLRP_EXPORT_TIMEOUT", "log_timeout", _number(0.001, 600, _MS), 30.0, "of one export"),
)
_PREFIX = "OTEL_EXPORTER_OTLP_"


def names() -> list[str]:
    """List every variable that is read."""
    general = [_PREFIX + each.name for each in OF_SIGNAL]
    own = [f"{_PREFIX}{signal.upper()}_{each.name}" for signal in SIGNALS for each in OF_SIGNAL]
    return [
        *general,
        *own,
        *(f"{_PREFIX}METRICS_{each.name}" for each in OF_METRICS),
        *(each.name for each in GENERAL),
    ]


def from_environment(environ: Mapping[str, str] | None = None) -> ExportSettings:
    """Read the variables; what is wrong stands in `errors`, and its default is used."""
    reader = _Reader(os.environ if environ is None else environ)
    targets: dict[str, Any] = {signal: reader.target(signal) for signal in SIGNALS}
    values: dict[str, Any] = {each.field: reader.value(each, f"{_PREFIX}METRICS_{each.name}") for each in OF_METRICS}
    values |= {each.field: reader.value(each, each.name) for each in GENERAL}
    for signal, own in ((TRACES, "span_timeout"), (LOGS, "log_timeout"), (METRICS, "metric_timeout")):
        shorter = min(targets[signal].timeout, values.pop(own))
        targets[signal] = replace(targets[signal], timeout=shorter)
    return ExportSettings(**targets, **values, errors=tuple(reader.errors))


class _Reader:
    """Reads one environment and collects what is wrong with it."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self.environ = environ
        self.errors: list[str] = []

    def value(self, variable: Variable, *names: str) -> Any:
        """Read the first of these names that is set and right."""
        for name in names:
            text = self.environ.get(name, "")
            if text.strip():
                value = self.read(variable, name, text)
                if value is not None:
                    return value
        return variable.default

    def read(self, variable: Variable, name: str, text: str) -> Any:
        try:
            if len(text) > _MAX_TEXT:
                raise ValueError(f"longer than {_MAX_TEXT} letters")
            return variable.read(text)
        except ValueError as error:
            said = "" if variable.field in ("headers", "endpoint") else f" {text.strip()[:40]!r}"
            found = f"{name}{said}: {error}. {_instead(variable)}"
            if found not in self.errors:
                self.errors.append(found)
            return None

    def target(self, signal: str) -> Target:
        """Read what holds for one signal; its own variable goes before the general one."""
        values = {
            each.field: self.value(each, f"{_PREFIX}{signal.upper()}_{each.name}", _PREFIX + each.name)
            for each in OF_SIGNAL
            if each.name != "ENDPOINT"
        }
        url = self._endpoint(signal, values["protocol"], values["insecure"])
        return Target(signal, url, **values)

    def _endpoint(self, signal: str, protocol: str, insecure: bool) -> str:
        whole, base = f"{_PREFIX}{signal.upper()}_ENDPOINT", f"{_PREFIX}ENDPOINT"
        if protocol == GRPC:
            found = self.value(OF_SIGNAL[0], whole, base) or f"http://{_HOST}:{_PORTS[GRPC]}"
            said = self.environ.get(whole) or self.environ.get(base) or ""
            return found if "://" in said or insecure or not said else found.replace("http://", "https://", 1)
        own = self.value(OF_SIGNAL[0], whole)
        if own:
            return str(own)
        return _joined(self.value(OF_SIGNAL[0], base) or f"http://{_HOST}:{_PORTS[HTTP]}", signal)


def _joined(base: str, signal: str) -> str:
    parts = urlsplit(base)
    return urlunsplit(parts._replace(path=f"{parts.path.removesuffix('/')}/v1/{signal}"))


def _instead(variable: Variable) -> str:
    if variable.default is None or variable.default == ():
        return "It is left out."
    return f"{variable.default} is used."


def with_endpoint(settings: ExportSettings, base: str) -> ExportSettings:
    """Point all three signals at another base URL."""
    moved = {signal: replace(getattr(settings, signal), endpoint=_joined(base, signal)) for signal in SIGNALS}
    return replace(settings, **moved)

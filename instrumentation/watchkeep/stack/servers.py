"""The declared servers: program, ports, arguments, readiness, memory; each stands here and nowhere else.

A port is named by its server, or by server and purpose: `Native(ports={"prometheus": 19090, ...})`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from watchkeep.stack.errors import StackError

LOOPBACK = "127.0.0.1"
_HERE = (LOOPBACK, "localhost", "::1")


@dataclass(frozen=True)
class Port:
    """A port that a server listens on, and the variables that carry it: a number, or a URL with the number in it."""

    name: str
    server: str
    default: int
    variables: tuple[str, ...]


PORTS = {
    each.name: each
    for each in (
        Port("otlp_http", "collector", 4318, ("WATCHKEEP_OTLP_HTTP_PORT",)),
        Port("otlp_grpc", "collector", 4317, ("WATCHKEEP_OTLP_GRPC_PORT",)),
        Port("collector_health", "collector", 13133, ("WATCHKEEP_COLLECTOR_HEALTH_PORT",)),
        Port("prometheus", "prometheus", 9090, ("WATCHKEEP_PROMETHEUS_PORT", "WATCHKEEP_PROMETHEUS_URL")),
        Port("alertmanager", "alertmanager", 9093, ("WATCHKEEP_ALERTMANAGER_PORT", "WATCHKEEP_ALERTMANAGER_URL")),
        Port("loki", "loki", 3100, ("WATCHKEEP_LOKI_PORT", "WATCHKEEP_LOKI_URL")),
        Port("loki_grpc", "loki", 9095, ("WATCHKEEP_LOKI_GRPC_PORT",)),
        Port("tempo", "tempo", 3200, ("WATCHKEEP_TEMPO_PORT", "WATCHKEEP_TEMPO_URL")),
        Port("tempo_grpc", "tempo", 9096, ("WATCHKEEP_TEMPO_GRPC_PORT",)),
        Port("tempo_otlp", "tempo", 4418, ("WATCHKEEP_TEMPO_OTLP_PORT", "WATCHKEEP_TEMPO_OTLP_URL")),
        Port("grafana", "grafana", 3000, ("WATCHKEEP_GRAFANA_PORT", "WATCHKEEP_GRAFANA_URL")),
    )
}


@dataclass(frozen=True)
class Place:
    """Where one run of the servers lives."""

    home: Path
    ports: Mapping[str, int]
    absent: frozenset[str] = frozenset()  # servers that do not run
    extras: tuple[Path, ...] = ()  # further files of configuration for the collector, by the user
    programs: Mapping[str, Path] = field(default_factory=dict)  # program -> its file

    @property
    def etc(self) -> Path:
        """The staged files."""
        return self.home / "etc"

    @property
    def data(self) -> Path:
        """What the servers keep."""
        return self.home / "data"

    @property
    def run(self) -> Path:
        """What lasts as long as one run."""
        return self.home / "run"

    @property
    def logs(self) -> Path:
        """The servers' own logs."""
        return self.home / "logs"

    @property
    def secrets(self) -> Path:
        """The secrets that were generated or that the user put there, each a file of its own."""
        return self.home / "secrets"

    def address(self, port: str) -> str:
        """Give host and port of one of our listeners."""
        return f"{LOOPBACK}:{self.ports[port]}"


Words = Callable[[Place], list[str]]


@dataclass(frozen=True)
class Server:
    """How one server is started, found ready and stopped."""

    name: str
    program: str
    port: str  # what it is known by
    file: str  # its main file, below etc
    argv: Words  # without the program
    ready: str  # path of its own readiness, on `ready_port`
    ready_port: str
    memory: int  # MiB that Go's collector tries to stay under, unless GOMEMLIMIT is set
    check: tuple[str, Words] | None = None  # the program and arguments that verify the configuration
    starter: Callable[[Place], list[str]] | None = None  # what starts it, when that is not the program itself
    grace: float = 10.0  # seconds between SIGTERM and SIGKILL

    @property
    def ports(self) -> tuple[str, ...]:
        """Every port of it."""
        return tuple(port.name for port in PORTS.values() if port.server == self.name)


def _collector(place: Place) -> list[str]:
    files = [place.etc / "collector" / "otelcol.yaml"]
    if "tempo" in place.absent:
        files.append(place.etc / "collector" / "without-tempo.yaml")
    # The gate lets the configuration empty a field, which is the only way to drop the links of a span.
    return [*(f"--config={each}" for each in (*files, *place.extras)), "--feature-gates=ottl.set.allowNil"]


def _prometheus(place: Place) -> list[str]:
    return [
        f"@{place.etc / 'collector' / 'prometheus.args'}",
        f"--config.file={place.etc / 'collector' / 'prometheus.yaml'}",
        f"--storage.tsdb.path={place.data / 'prometheus'}",
        f"--web.listen-address={place.address('prometheus')}",
        f"--web.external-url=http://{place.address('prometheus')}",
    ]


def _alertmanager(place: Place) -> list[str]:
    return [
        f"--storage.path={place.data / 'alertmanager'}",
        f"--web.listen-address={place.address('alertmanager')}",
        f"--web.external-url=http://{place.address('alertmanager')}",
        "--cluster.listen-address=",  # one alone needs no cluster, and its port would be open to all
    ]


def _loki(place: Place) -> list[str]:
    return [f"-config.file={place.etc / 'collector' / 'loki.yaml'}", "-config.expand-env=true"]


def _tempo(place: Place) -> list[str]:
    return [f"-config.file={place.etc / 'collector' / 'tempo.yaml'}", "-config.expand-env=true"]


def _grafana(place: Place) -> list[str]:
    return ["server", f"--homepath={_grafana_home(place)}"]


def _grafana_home(place: Place) -> Path:
    """Find Grafana's own files: beside the program in a release, in a fixed folder where a package put it."""
    program = place.programs["grafana"].resolve()
    for each in (program.parent.parent, Path("/usr/share/grafana"), program.parent.parent / "share" / "grafana"):
        if (each / "conf" / "defaults.ini").is_file():
            return each
    raise StackError(
        f"conf/defaults.ini of {program} is missing; install Grafana with its package or its release archive"
    )


SERVERS = {
    each.name: each
    for each in (
        Server(
            name="collector",
            program="otelcol",
            port="otlp_http",
            file="collector/otelcol.yaml",
            argv=_collector,
            ready="/",
            ready_port="collector_health",
            memory=400,
            check=("otelcol", lambda place: ["validate", *_collector(place)]),
        ),
        Server(
            name="prometheus",
            program="prometheus",
            port="prometheus",
            file="collector/prometheus.yaml",
            argv=_prometheus,
            ready="/-/ready",
            ready_port="prometheus",
            memory=800,
            check=(
                "promtool",
                lambda place: ["check", "config", str(place.etc / "collector" / "prometheus.yaml")],
            ),
        ),
        Server(
            name="alertmanager",
            program="alertmanager",
            port="alertmanager",
            file="alerts/alertmanager.yaml",
            argv=_alertmanager,
            ready="/-/ready",
            ready_port="alertmanager",
            memory=120,
            check=("amtool", lambda place: ["check-config", str(place.etc / "alerts" / "alertmanager.yaml")]),
            starter=lambda place: ["sh", str(place.etc / "alerts" / "alertmanager.sh")],
        ),
        Server(
            name="loki",
            program="loki",
            port="loki",
            file="collector/loki.yaml",
            argv=_loki,
            ready="/ready",
            ready_port="loki",
            memory=800,
            check=("loki", lambda place: ["-verify-config", *_loki(place)]),
            grace=20.0,
        ),
        Server(
            name="tempo",
            program="tempo",
            port="tempo",
            file="collector/tempo.yaml",
            argv=_tempo,
            ready="/ready",
            ready_port="tempo",
            memory=800,
            check=("tempo", lambda place: ["-config.verify=true", *_tempo(place)]),
            grace=10.0,  # what it took in is on disk in one or two; what it then still waits for can be missed
        ),
        Server(
            name="grafana",
            program="grafana",
            port="grafana",
            file="collector/grafana.ini",
            argv=_grafana,
            ready="/api/health",
            ready_port="grafana",
            memory=400,
        ),
    )
}


_SENDERS = ("collector", "tempo")  # Tempo writes to Prometheus what it derives, and waits long when that is gone


def groups_to_stop(names: Collection[str]) -> list[list[str]]:
    """Part servers into those to be stopped together, first what sends, then what is sent to."""
    senders = [[name] for name in _SENDERS if name in names]
    others = [name for name in names if name not in _SENDERS]
    return [*senders, others] if others else senders


def given_ports(environ: Mapping[str, str]) -> dict[str, int]:
    """Read every port from its variable, or take its default."""
    return {port.name: _given(port, environ) for port in PORTS.values()}


def _given(port: Port, environ: Mapping[str, str]) -> int:
    numbers = [_read(port, variable, environ.get(variable, "").strip()) for variable in port.variables]
    return next(filter(None, numbers), port.default)


def _read(port: Port, variable: str, text: str) -> int:
    if not text:
        return 0
    return _of_url(port, variable, text) if variable.endswith("_URL") else _number(variable, text)


def _number(variable: str, text: str) -> int:
    if text.isdigit() and 0 < int(text) < 65536:
        return int(text)
    raise StackError(f"{variable}={text} is no port; give a number from 1 to 65535")


def _of_url(port: Port, variable: str, text: str) -> int:
    try:
        parts = urlsplit(text)
        number = parts.port
    except ValueError:
        raise StackError(f"{variable} is no URL; give one as http://{LOOPBACK}:{port.default}") from None
    if parts.hostname in _HERE and parts.scheme == "http":
        return number or 0
    if port.name == "grafana":  # the address that people use, in links
        return 0
    raise StackError(
        f"{variable} names another machine, but {port.server} is started here; "
        f"leave it unset, or give only another port: http://{LOOPBACK}:{port.default}"
    )


def port_variables(ports: Mapping[str, int], environ: Mapping[str, str]) -> dict[str, str]:
    """Give the variables that carry the ports to the servers and their files."""
    made = {}
    for port in PORTS.values():
        for variable in port.variables:
            number = ports[port.name]
            made[variable] = f"http://{LOOPBACK}:{number}" if variable.endswith("_URL") else str(number)
    grafana = environ.get("WATCHKEEP_GRAFANA_URL", "").strip()
    if grafana and urlsplit(grafana).hostname not in _HERE:
        made["WATCHKEEP_GRAFANA_URL"] = grafana
    return made

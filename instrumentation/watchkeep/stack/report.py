"""What the command shows: the table of servers, where to look, and whether an alert reaches anybody."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from watchkeep.stack import staging
from watchkeep.stack import state as states
from watchkeep.stack.native import get, is_ready
from watchkeep.stack.servers import LOOPBACK, SERVERS, Place, given_ports

_MIB = 1024 * 1024
_HEAD = ("server", "state", "ready", "pid", "address", "memory", "disk", "version")
_WAYS = {"webhook_configs": "webhook", "slack_configs": "Slack", "email_configs": "e-mail"}


def table(home: Path, state: states.State) -> tuple[list[str], bool]:
    """Give a line for each server, and whether every one is ready."""
    rows, good = [_HEAD], True
    for name, seen in state.servers.items():
        server = SERVERS[name]
        alive = seen.process.alive
        ready = alive and is_ready(server, state.ports)
        good = good and ready
        rows.append(
            (
                name,
                _state(seen, alive),
                "yes" if ready else "no",
                str(seen.process.pid) if alive else "-",
                seen.address,
                _size(seen.process.memory) if alive else "-",
                _size(disk(home / "data" / name)),
                seen.version,
            )
        )
    widths = [max(len(row[at]) for row in rows) for at in range(len(_HEAD))]
    lines = ["  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return lines, good


def _state(seen: states.Seen, alive: bool) -> str:
    if not alive and seen.state in (states.READY, states.STARTING):
        return states.DEAD
    return f"{seen.state}, {seen.restarts} restarts" if seen.restarts else seen.state


def reasons(state: states.State) -> list[str]:
    """Say what is not as it should be, a line each."""
    lines = [f"{name} ended: {seen.why}" for name, seen in state.servers.items() if seen.why]
    lines += state.absent.values()
    if not state.owner.alive:
        lines.append(
            "the supervisor is gone: what dies now stays dead; `watchkeep stack down` and `up` start all of it again"
        )
    return lines


def disk(folder: Path) -> int:
    """Add up the files below a folder, in bytes; what vanishes meanwhile counts as nothing."""
    total = 0
    for file in folder.rglob("*"):
        try:
            if file.is_file():
                total += file.stat().st_blocks * 512
        except OSError:
            continue
    return total


def _size(count: int) -> str:
    return f"{count / _MIB:.1f} MiB" if count < 1024 * _MIB else f"{count / _MIB / 1024:.2f} GiB"


# Where to look


def containers(home: Path, environ: Mapping[str, str]) -> Place:
    """Give the place of the containers, as their ports are published."""
    return Place(home, given_ports({name: value for name, value in environ.items() if name.endswith("_PORT")}))


def all_ready(place: Place) -> bool:
    """Ask every server whether it is ready."""
    return all(is_ready(server, place.ports) for server in SERVERS.values())


def places(place: Place, absent: Mapping[str, str]) -> list[str]:
    """Say where telemetry goes in and where to look."""
    ports = place.ports
    rows = [
        ("OTLP", f"http://{place.address('otlp_http')}, gRPC {place.address('otlp_grpc')}"),
        ("Prometheus", f"http://{place.address('prometheus')}"),
        ("Alertmanager", f"http://{place.address('alertmanager')}"),
        ("Loki", f"http://{place.address('loki')}"),
    ]
    if "tempo" not in absent:
        rows.append(("Tempo", f"http://{place.address('tempo')}"))
    if "grafana" not in absent:
        login = f"user admin, its password is in {staging.password_file(place)}"
        rows.insert(0, ("Grafana", f"http://{place.address('grafana')}, {login}"))
    rows.append(("alerts", reach(ports["alertmanager"], place.secrets)))
    rows.append(("state", f"{place.home} (logs: watchkeep stack logs)"))
    return [f"  {name:<13} {text}" for name, text in rows]


def reach(port: int, folder: Path) -> str:
    """Ask Alertmanager by which ways an alert reaches people."""
    answer = get(f"http://{LOOPBACK}:{port}/api/v2/status")
    if answer is None:
        return "reach nobody: Alertmanager does not answer"
    found = ways(json.loads(answer)["config"]["original"])
    if found:
        return f"reach people by {' and '.join(found)}"
    return (
        "reach nobody: set WATCHKEEP_ALERTS_SLACK_URL, WATCHKEEP_ALERTS_WEBHOOK_URL or WATCHKEEP_ALERTS_EMAIL_TO "
        f"(or write it into {folder}/alerts_slack_url, ...), then: watchkeep stack down, watchkeep stack up"
    )


def ways(configuration: str) -> Sequence[str]:
    """Read from Alertmanager's configuration which ways are set; the Watchdog's is for a machine."""
    _, _, receivers = configuration.partition("\nreceivers:\n")
    found = []
    for each in re.split(r"^\s*- name: ", receivers, flags=re.MULTILINE)[1:]:
        if each.partition("\n")[0].strip("'\" ") != "watchdog":
            found += [way for key, way in _WAYS.items() if f"{key}:" in each]
    return found

"""The real collector with the configuration of this repository, between senders of a test and its sinks.

with OtlpSink() as store, Collector(folder, prometheus=store, loki=store, tempo=store) as collector:
    collector.send("traces", request)
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from support.otlp_sink import OtlpSink

ROOT = Path(__file__).resolve().parents[2]
CONFIG = ROOT / "collector"
GATES = "--feature-gates=ottl.set.allowNil"
DEAD = "http://127.0.0.1:9"  # the port of `discard`: nobody is there


def program(name: str) -> str:
    """Find a server's program: on PATH, or built by the stack; skip the test where there is neither."""
    found = shutil.which(name)
    if found:
        return found
    try:
        from watchkeep.stack.build import binary
        from watchkeep.stack.errors import StackError
    except ImportError:
        pytest.skip(f"{name} is not on PATH")
    try:
        return str(binary(name))
    except StackError as error:
        pytest.skip(f"no {name}: {error}")


def free_ports(count: int) -> list[int]:
    """Find free ports on loopback."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()


class Collector:
    """Starts the collector with a folder for its queues, and ends it."""

    def __init__(
        self,
        folder: Path,
        prometheus: OtlpSink | None = None,
        loki: OtlpSink | None = None,
        tempo: OtlpSink | None = None,
        overlays: tuple[str, ...] = (),
        **environment: str,
    ) -> None:
        self.folder = folder
        self.program = program("otelcol")
        self.overlays = overlays
        self.grpc, self.http, self.health = free_ports(3)
        self.environment = {
            **{key: text for key, text in os.environ.items() if not key.startswith(("WATCHKEEP_", "OTEL_"))},
            "WATCHKEEP_OTLP_GRPC_PORT": str(self.grpc),
            "WATCHKEEP_OTLP_HTTP_PORT": str(self.http),
            "WATCHKEEP_COLLECTOR_HEALTH_PORT": str(self.health),
            "WATCHKEEP_STACK_DATA": str(folder),
            "WATCHKEEP_PROMETHEUS_URL": prometheus.endpoint if prometheus else DEAD,
            "WATCHKEEP_LOKI_URL": loki.endpoint if loki else DEAD,
            "WATCHKEEP_TEMPO_OTLP_URL": tempo.endpoint if tempo else DEAD,
            "GOMEMLIMIT": "400MiB",
            **environment,
        }

    @property
    def files(self) -> list[str]:
        """The files of configuration, in order."""
        return [str(CONFIG / name) for name in ("otelcol.yaml", *self.overlays)]

    def __enter__(self) -> Collector:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Start it, and wait until it says that it is ready."""
        self.log = self.folder / "collector.log"
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [self.program, *(f"--config={each}" for each in self.files), GATES],
                env=self.environment,
                stdout=log,
                stderr=log,
            )
        until = time.monotonic() + 30
        while not self._ready():
            alive = self.process.poll() is None and time.monotonic() < until
            assert alive, self.log.read_text()[-4000:]
            time.sleep(0.05)

    def stop(self) -> None:
        """End it, within ten seconds."""
        self.process.terminate()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.kill()

    def kill(self) -> None:
        """End it at once, as a crash does."""
        self.process.kill()
        self.process.wait()

    def _ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.health}/", timeout=2) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    def send(self, signal: str, request: Any) -> int:
        """Send a request message; return the status."""
        posted = urllib.request.Request(
            f"http://127.0.0.1:{self.http}/v1/{signal}",
            request.SerializeToString(),
            {"Content-Type": "application/x-protobuf"},
        )
        try:
            with urllib.request.urlopen(posted, timeout=20) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as error:
            return error.code

    def queued(self) -> bytes:
        """Give what lies in the queues on disk."""
        return b"".join(each.read_bytes() for each in sorted((self.folder / "collector").glob("exporter_*")))

"""Run a real program bare and under `watchkeep run`, side by side, and hold one against the other.

Each run has a scripted LLM server of its own with the same plan; the watched one exports to a fake end point.
"""

from __future__ import annotations

import os
import re
import socket
import subprocess
import uuid
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from llm_server import Entry, LLMServer
from support.otlp_sink import Item, OtlpSink
from support.versions import ROOT
from watchkeep import names

SOON = {"headers": {"retry-after-ms": "20"}}
PLANS: dict[str, list[Any] | None] = {
    "ok": [],
    "429 then ok": [{"status": 429, **SOON}],
    "500 twice then ok": [{"status": 500, **SOON, "times": 2}],
    "down": None,
    "dropped connection": ["drop"],
    "cut in mid-stream": ["cut"],
}
ESSENTIALS = {key: os.environ[key] for key in ("PATH", "LANG", "TMPDIR") if key in os.environ}
CORRELATION_HEADER = "x-correlation-id"
OURS = ("traceparent", "tracestate", "baggage", CORRELATION_HEADER)


@dataclass
class Ran:
    """What one run of a program left behind."""

    output: bytes
    errors: bytes
    status: int
    log: list[Entry]
    correlation: str = ""
    spans: list[Item] = field(default_factory=list)
    logs: list[Item] = field(default_factory=list)
    metrics: list[Item] = field(default_factory=list)

    def attempts(self) -> list[Item]:
        """Give the spans of the HTTP tries, in the order of their starts."""
        found = [span for span in self.spans if names.HTTP_REQUEST_METHOD in span.attributes]
        return sorted(found, key=lambda span: span.message.start_time_unix_nano)

    def named(self, start: str) -> list[Item]:
        """Give the spans whose name begins so, in the order of their starts."""
        found = [span for span in self.spans if span.name.startswith(start)]
        return sorted(found, key=lambda span: span.message.start_time_unix_nano)

    def total(self, metric: str) -> float:
        """Give the sum of a counter's last points."""
        last = {item.scope: item for item in self.metrics if item.name == metric}
        return sum(point["value"] for item in last.values() for point in item.points)


class _Down:
    """A port where nobody listens, kept so that nobody else gets it meanwhile."""

    def __enter__(self) -> _Down:
        self.socket = socket.socket()
        self.socket.bind(("127.0.0.1", 0))
        self.port = self.socket.getsockname()[1]
        self.base_url = f"http://127.0.0.1:{self.port}/v1"
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def settle(self) -> list[Entry]:
        return []


class Pair:
    """Runs a program of an environment twice at once, each with a home of its own: as it is, and watched."""

    def __init__(self, sink: OtlpSink, python: str, folder: Path, **variables: str) -> None:
        self.sink = sink
        self.python = python
        self.folder = folder
        self.environment = {**ESSENTIALS, "PYTHONPATH": str(ROOT / "instrumentation"), **variables}

    def run(self, command: Sequence[str], plan: Any, **switches: str) -> tuple[Ran, Ran]:
        """Return the bare run and the watched run; a plan of None is a server that is down."""
        self.sink.forget()
        service = f"program-{uuid.uuid4().hex[:12]}"
        watched = {
            "OTEL_SERVICE_NAME": service,
            "OTEL_EXPORTER_OTLP_ENDPOINT": self.sink.endpoint,
            "WATCHKEEP_CORRELATION_ID": f"run-{service}",
            **switches,
        }
        under = [self.python, "-m", "watchkeep", "run", "--", *command]
        with ThreadPoolExecutor(2) as pool:
            bare = pool.submit(self._run, list(command), plan, {}, self.folder / "bare")
            seen = pool.submit(self._run, under, plan, watched, self.folder / "watched")
            return bare.result(), self._received(seen.result(), service)

    def _run(self, command: list[str], plan: Any, switches: dict[str, str], home: Path) -> Ran:
        home.mkdir(exist_ok=True)
        with _Down() if plan is None else LLMServer(plan) as server:
            environment = {**self.environment, **switches, "OPENAI_BASE_URL": server.base_url, "HOME": str(home)}
            done = subprocess.run(command, env=environment, capture_output=True, timeout=60, check=False)
            log = server.settle()
        port = str(server.port).encode()
        return Ran(done.stdout.replace(port, b"PORT"), done.stderr.replace(port, b"PORT"), done.returncode, log)

    def _received(self, ran: Ran, service: str) -> Ran:
        def mine(items: list[Item]) -> list[Item]:
            return [item for item in items if item.resource.get("service.name") == service]

        ran.correlation = f"run-{service}"
        ran.spans, ran.logs, ran.metrics = mine(self.sink.spans()), mine(self.sink.logs()), mine(self.sink.metrics())
        return ran


# -- what must hold ------------------------------------------------------------------------------------------


def assert_same_for_the_user(bare: Ran, watched: Ran) -> None:
    """Output, errors and exit code are those of the bare run; a traceback also names our frames, as any wrapper's."""
    assert (watched.output, watched.status) == (bare.output, bare.status)
    assert _OUR_FRAMES.sub(b"", watched.errors) == bare.errors


_OUR_FRAMES = re.compile(rb'  File "[^"]*/watchkeep/[^"]*", line \d+, in .*\n(?:    .*\n)*')


def assert_same_on_the_wire(bare: Ran, watched: Ran, ours: Sequence[str] = ()) -> None:
    """Every request is byte-equal to the bare run's, apart from the port and the headers named in `ours`."""
    assert [on_the_wire(entry, ours) for entry in watched.log] == [on_the_wire(entry) for entry in bare.log]


def on_the_wire(entry: Entry, without: Sequence[str] = ()) -> tuple[Any, ...]:
    """Return a request as it was sent: line, headers in order and case, body."""
    headers = [(name, value) for name, value in entry.headers if name.lower() not in without]
    masked = [(name, "HOST" if name.lower() == "host" else value) for name, value in headers]
    return entry.method, entry.path, masked, entry.body


def assert_attempts_are_the_server_s(watched: Ran, calls: int = 1) -> None:
    """As many tries as the server saw, in its order, with its statuses, numbered within each call."""
    expected = [entry.status if isinstance(entry.status, int) else None for entry in watched.log]
    attempts = watched.attempts()
    assert [span.attributes.get(names.HTTP_RESPONSE_STATUS_CODE) for span in attempts] == expected
    by_call: dict[str, list[int]] = {}
    for span in attempts:
        by_call.setdefault(span.parent_id, []).append(span.attributes[names.RESILIENCE_RETRY_ATTEMPT])
    assert len(by_call) == calls
    assert all(numbers == list(range(len(numbers))) for numbers in by_call.values())
    failed = [entry.outcome != "answered" or entry.status != 200 for entry in watched.log]
    streamed = [names.GEN_AI_REQUEST_STREAM in _parent(span, watched).attributes for span in attempts]
    for span, wrong, stream in zip(attempts, failed, streamed, strict=True):
        # A stream that breaks after its headers is the call's failure: its attempt had ended well.
        broke_later = stream and span.attributes.get(names.HTTP_RESPONSE_STATUS_CODE) == 200
        assert (span.message.status.code == 2) == (wrong and not broke_later)


def _parent(span: Item, ran: Ran) -> Item:
    return next(one for one in ran.spans if one.span_id == span.parent_id)


def assert_tokens_are_the_server_s(watched: Ran) -> None:
    """Tokens on spans and metrics are the sums of what the server sent."""
    sent = [entry.usage for entry in watched.log if entry.usage is not None]
    for kind, key, metric in (
        ("prompt", names.GEN_AI_USAGE_INPUT_TOKENS, names.METRIC_GEN_AI_CLIENT_INFERENCE_USAGE_INPUT_TOKENS),
        ("completion", names.GEN_AI_USAGE_OUTPUT_TOKENS, names.METRIC_GEN_AI_CLIENT_INFERENCE_USAGE_OUTPUT_TOKENS),
    ):
        expected = sum(usage[kind] for usage in sent)
        assert sum(span.attributes.get(key, 0) for span in watched.spans) == expected
        assert watched.total(metric.name) == expected


def assert_whole(watched: Ran, traces: int = 1) -> None:
    """One trace, no orphan, the run's correlation ID on every span and log record."""
    ids = {span.span_id for span in watched.spans}
    assert len(ids) == len(watched.spans)
    assert len({span.trace_id for span in watched.spans}) == traces
    assert [span.name for span in watched.spans if span.parent_id and span.parent_id not in ids] == []
    for item in (*watched.spans, *watched.logs):
        assert item.attributes.get(names.AGENT_RUNTIME_CORRELATION_ID) == watched.correlation


def assert_headers_are_ours(watched: Ran) -> None:
    """Each try carries the trace of its own span and the correlation ID."""
    for entry, span in zip(watched.log, watched.attempts(), strict=True):
        found = {name.lower(): value for name, value in entry.headers}
        assert found["traceparent"] == f"00-{span.trace_id}-{span.span_id}-03"
        assert found[CORRELATION_HEADER] == watched.correlation

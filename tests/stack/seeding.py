"""A bad day on the whole stack: every panel, variable, annotation and rule has something to show afterwards.

Most of it comes from real apps (scenario.py). What they cannot do, real servers do: a second collector whose further
back end is away, an Alertmanager that is down for a while, records that a store refuses, a rule that is wrong.
Thresholds are lowered for single services by the documented file of overrides, so that minutes become seconds.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from stack import raw
from stack.client import Prometheus, eventually
from stack.http_on_loopback import Gateway
from stack.scenario import App, Scenario
from watchkeep.stack.native import Native, free_ports
from watchkeep.stack.servers import SERVERS

if TYPE_CHECKING:
    from collections.abc import Callable

OVERRIDES = """\
groups:
  - name: tests
    interval: 5s
    rules:
      - {record: "watchkeep:override:heartbeat_seconds", labels: {service_name: stubborn}, expr: vector(8)}
      - {record: "watchkeep:override:silent_min_uptime_seconds", labels: {service_name: stubborn}, expr: vector(1)}
      - {record: "watchkeep:override:heartbeat_seconds", labels: {service_name: chatter}, expr: vector(8)}
      - {record: "watchkeep:override:latency_p95_seconds", labels: {service_name: library}, expr: vector(0.05)}
      # A mistake of the user's, so that it is seen that mistakes are told: many to many.
      - {record: "tests:mistaken", expr: "watchkeep:service:known * on () watchkeep:service:known"}
"""
DAY = 86_400
LONG_AGO = 10 * DAY  # more than any store takes
QUEUE_BYTES = 300_000  # of the collector in trouble; a batch is no smaller
ALERTMANAGER_DOWN = 20.0  # s, more than a scrape and an evaluation


@contextmanager
def seeded(stack: Native, folder: Path) -> Iterator[Mapping[str, App]]:
    """Let the day pass; at its end the apps have ended and every signal has arrived."""
    collector = stack.url("collector")
    apps = Scenario(collector, folder)
    with (
        Gateway(collector, refuses(4, then=503, metrics=0)) as gateway,
        Gateway(collector, lambda _: 503) as back_end,
        collector_in_trouble(stack, folder, back_end),
    ):
        try:
            unlucky = Scenario(gateway.url, folder, apps.apps)
            unlucky.start_chatter("unlucky", OTEL_BSP_MAX_QUEUE_SIZE="20", OTEL_BLRP_MAX_QUEUE_SIZE="20")
            stubborn = apps.small("stubborn", "600", "stubborn-llm")
            first = apps.start_chatter("chatter")
            ends = [
                apps.example(),
                apps.small("assistant", "3", "1", OPENAI_API_KEY=""),
                apps.small("library", "3", "1"),
                apps.small("crowd", "9", "0.5"),
                apps.small("workshop", "5", "0.5"),
            ]
            stack.kill("alertmanager")
            down = time.monotonic()
            send_what_is_refused(collector)
            for app in ends:
                app.wait(120)
            first.kill()
            stubborn.kill()
            apps.start_chatter("chatter")  # in the place of the first
            send_what_is_refused(collector)
            time.sleep(max(0.0, ALERTMANAGER_DOWN - (time.monotonic() - down)))
            stack.start("alertmanager")
            wait_for_the_slowest(Prometheus(stack.url("prometheus")))
            yield apps.apps
        finally:
            unlucky.close()
            apps.close()


def refuses(seconds: float, then: int, metrics: int) -> Callable[[str], int]:
    """Answer 400 in the first seconds of each signal, as a wrong proxy does; then `then`, but `metrics` to metrics."""
    first: dict[str, float] = {}

    def refuse(path: str) -> int:
        if time.monotonic() - first.setdefault(path, time.monotonic()) < seconds:
            return 400
        return metrics if path.endswith("/metrics") else then

    return refuse


@contextmanager
def collector_in_trouble(stack: Native, folder: Path, back_end: Gateway) -> Iterator[Native]:
    """Run a second collector beside the stack's: its further back end takes nothing, and its queue gets full."""
    extras = {
        "WATCHKEEP_STACK_EXTRAS": str(stack.etc / "collector" / "extras.yaml"),
        "WATCHKEEP_EXTRA_OTLP_ENDPOINT": back_end.url,
        "WATCHKEEP_EXTRA_OTLP_HEADERS": "{}",
        "WATCHKEEP_STACK_QUEUE_BYTES": str(QUEUE_BYTES),
    }
    theirs = {name: stack.place.ports[name] for name in ("prometheus", "loki", "tempo_otlp")}
    others = [name for name in SERVERS if name != "collector"]
    trouble = Native(folder / "trouble", {**free_ports(), **theirs}, extras, without=others)
    with trouble:
        fill(trouble.url("collector"))
        trouble.kill("collector")  # what it kept on disk is in its queue from the first moment of its next life
        back_end.refuse = refuses(2, then=503, metrics=503)
        trouble.start("collector")
        fill(trouble.url("collector"))
        yield trouble


def fill(endpoint: str) -> None:
    """Send logs, spans and metrics until the collector takes no more."""
    text = "x" * 1000
    requests = {
        "logs": lambda: raw.logs(raw.resource("filler"), [raw.record(text, {}) for _ in range(50)]),
        "spans": lambda: raw.traces(raw.resource("filler"), [raw.span("fill", {"text": text}) for _ in range(50)]),
        "points": lambda: raw.metrics(
            raw.resource("filler"),
            [raw.gauge("tests.filler", [({"number": number, "text": text[:200]}, 1) for number in range(200)])],
        ),
    }
    for what, request in requests.items():
        eventually(lambda make=request: raw.post(endpoint, make()) != 200, 20, f"a full queue refuses {what}", 0.05)


def send_what_is_refused(endpoint: str) -> None:
    """Send what the collector takes and a store refuses: a line and a sample of long ago, a span without a trace."""
    then = str(time.time_ns() - LONG_AGO * 1_000_000_000)
    late = raw.record("long ago", {}, timeUnixNano=then, observedTimeUnixNano=then)
    old = raw.counter("tests.long_ago", [({}, 1)], 0)
    old["sum"]["dataPoints"][0]["timeUnixNano"] = then
    lost = raw.span("of no trace", {}, traceId="")
    given = raw.resource("latecomer")
    for request in (raw.logs(given, [late]), raw.metrics(given, [old]), raw.traces(given, [lost])):
        assert raw.post(endpoint, request) == 200


SLOWEST = (  # what takes its time: a rule that stands on a rule, an alert that has to fire
    'ALERTS{alertstate="firing", severity="warning"}',
    'ALERTS{alertstate="firing", severity="critical"}',
    'ALERTS{alertstate="firing", alertname="WatchkeepBreakerOpened"}',
    'ALERTS{alertstate="firing", alertname="WatchkeepBreakerRecovered", service_name="multi-agent"}',
    'watchkeep:instance:silence_seconds{service_name="stubborn"} > 8',
    "watchkeep:instance:replaced",
    "watchkeep:collector_lost:increase5m",
    "watchkeep:latency:p95_5m",
    'up{job="alertmanager"} == 1',
    'otel_sdk_exporter_log_exported_total{error_type!=""}',
    'otel_sdk_exporter_metric_data_point_exported_total{error_type!=""}',
    "otelcol_exporter_send_failed_spans_total > 0",
)


def wait_for_the_slowest(prometheus: Prometheus) -> None:
    """Wait until the rules have seen all of it."""
    for expr in SLOWEST:
        eventually(lambda asked=expr: prometheus.instant(asked), 60, expr)

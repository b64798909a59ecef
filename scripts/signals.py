"""docs/signals.md, from names.py: every span, event, metric and attribute that Watchkeep may emit."""

from __future__ import annotations

from collections.abc import Iterator

from watchkeep import names
from watchkeep.names import Metric

_KINDS = {1: "internal", 2: "server", 3: "client"}
_GROUPS = {
    "gen_ai.": "GenAI (OpenTelemetry)",
    "http.": "HTTP client (OpenTelemetry)",
    "process.": "Process (OpenTelemetry)",
    "cpython.": "Interpreter (OpenTelemetry)",
    "otel.": "Our own exporter (OpenTelemetry)",
    "resilience.": "Calls, retries, breakers, pools, limiters, caches",
    "python.executor.": "Executors",
    "agent_runtime.": "Agent runtime",
    "watchkeep.": "Watchkeep itself",
}


def markdown() -> str:
    """Return the page."""
    return "\n".join([*_head(), *_spans(), *_events(), *_metrics(), *_attributes()]) + "\n"


def _head() -> Iterator[str]:
    yield "<!-- Generated from instrumentation/watchkeep/names.py by scripts/generate.py; do not edit. -->"
    yield "# Signals"
    yield ""
    yield "Standard OpenTelemetry names wherever one exists. Extensions stand only under `resilience.`,"
    yield "`python.executor.`, `agent_runtime.` and `watchkeep.`. Which of them a library makes today is said in"
    yield "[architecture.md](architecture.md); the names of layers that are still to come are listed here too."
    yield ""
    yield "Every span, log line and event carries `agent_runtime.correlation.id`; a failed span `error.type` and"
    yield "`resilience.fault.origin` (provider, network or client)."
    yield ""


def _spans() -> Iterator[str]:
    yield "## Spans"
    yield ""
    yield "| name | kind | type |"
    yield "|---|---|---|"
    for key, span in names.SPANS.items():
        title = " ".join([*([span.prefix] if span.prefix else []), *(f"{{{part}}}" for part in span.title)])
        yield f"| `{title}` | {_KINDS[span.kind]} | `{key}` |"
    yield ""
    phases = ", ".join(f"`{phase}`" for phase in names.PHASES)
    yield f"The time ledger on a call's span: `resilience.call.time.<phase>` in seconds, phases {phases}: they add up"
    yield "to the span. Waits before a call stand on the operation around it: "
    yield ", ".join(f"`{phase}`" for phase in names.WAITS_BEFORE) + "."
    yield ""


def _events() -> Iterator[str]:
    yield "## Events (log records with an EventName)"
    yield ""
    yield "| name | severity number |"
    yield "|---|---|"
    for event in names.EVENTS.values():
        yield f"| `{event.name}` | {event.severity} |"
    yield ""


def _metrics() -> Iterator[str]:
    yield "## Metrics"
    for root, title in _GROUPS.items():
        yield ""
        yield f"### {title}"
        yield ""
        yield "| metric | kind | unit | labels | in Prometheus | meaning |"
        yield "|---|---|---|---|---|---|"
        for metric in names.METRICS.values():
            if metric.name.startswith(root):
                yield _row(metric)
    yield ""
    yield "Buckets:"
    yield ""
    for metric in names.METRICS.values():
        if metric.buckets:
            yield f"- `{metric.name}`: {', '.join(f'{bound:g}' for bound in metric.buckets)}"
    yield ""


def _row(metric: Metric) -> str:
    labels = ", ".join(f"`{label}`" for label in metric.labels)
    shown = f"`{metric.name}` | {metric.instrument} | `{metric.unit}` | {labels} | `{metric.prometheus}`"
    return f"| {shown} | {metric.meaning} |"


def _attributes() -> Iterator[str]:
    yield "## Attributes"
    yield ""
    for key, value in vars(names).items():
        if isinstance(value, str) and "." in value and key == value.replace(".", "_").upper():
            yield f"- `{value}`"

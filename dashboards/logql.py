"""LogQL: log lines and events of the chosen services, and of one run."""

from __future__ import annotations

from dashboards.promql import label
from watchkeep import names
from watchkeep.names import Event

EVENT_NAME = "event_name"
"""The label under which the collector keeps a record's EventName, which Loki would drop."""

_TOLD_OF_EVENTS = (
    names.RESILIENCE_CIRCUIT_BREAKER_NAME,
    names.RESILIENCE_CIRCUIT_BREAKER_STATE,
    names.RESILIENCE_POOL_NAME,
    names.RESILIENCE_POLICY_NAME,
    names.ERROR_TYPE,
    names.EXCEPTION_TYPE,
)

LEVEL = "detected_level"
"""Loki's own: the level of a line."""

CHOSEN = f'{{{label(names.SERVICE_NAME)}=~"$service", {label(names.DEPLOYMENT_ENVIRONMENT_NAME)}=~"$environment"}}'
INSTANCE = f'| {label(names.SERVICE_INSTANCE_ID)}=~"$instance"'
# An ID left empty chooses every run; the beginning of an ID is enough.
OF_RUN = f'| {label(names.AGENT_RUNTIME_CORRELATION_ID)}=~"$correlation.*" | {label(names.SESSION_ID)}=~"$session.*"'


def events(*chosen: Event) -> str:
    """Return the events of these kinds; none: of any kind."""
    if len(chosen) == 1:
        return f'{CHOSEN} | {EVENT_NAME}="{chosen[0].name}"'
    return f'{CHOSEN} | {EVENT_NAME}=~"{_any_of(chosen)}"'


def run_events(*chosen: Event) -> str:
    """Return the events of one run."""
    return f"{events(*chosen)} {OF_RUN}"


def run_lines() -> str:
    """Return every line of one run."""
    return f"{CHOSEN} {OF_RUN}"


def readable(expr: str) -> str:
    """Return lines with a text of their own for events, whose body is empty."""
    told = " ".join(f"{{{{ .{each} }}}}" for each in (EVENT_NAME, *map(label, _TOLD_OF_EVENTS)))
    return f"{expr} | line_format `{{{{ if __line__ }}}}{{{{ __line__ }}}}{{{{ else }}}}event {told}{{{{ end }}}}`"


def per_interval(expr: str, *by: str) -> str:
    """Return how many lines came in each step, by labels."""
    return f"sum{_by(by)} (count_over_time({expr} [$__auto]))"


def in_range(expr: str, *by: str) -> str:
    """Return how many lines came in the time shown."""
    return f"sum{_by(by)} (count_over_time({expr} [$__range]))"


def _by(labels: tuple[str, ...]) -> str:
    return f" by ({', '.join(labels)})" if labels else ""


def _any_of(chosen: tuple[Event, ...]) -> str:
    return "|".join(event.name.replace(".", "[.]") for event in chosen) or ".+"

"""What providers say of their limits: the x-ratelimit-* headers of its answers, for each model."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from watchkeep import cells, clock, names
from watchkeep.cells import Observation, Observer

if TYPE_CHECKING:
    from watchkeep.llm import LLMCall

_HEADER = re.compile(rb"x-ratelimit-(limit|remaining|reset)-(requests|tokens|input-tokens|output-tokens)\Z", re.I)
_X = (b"x-", b"X-")
_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_MAX_SERIES = 256


class Said(NamedTuple):
    """One figure and when it was said."""

    value: float
    at: int


_METRICS = {
    "limit": names.METRIC_RESILIENCE_RATE_LIMIT_LIMIT,
    "remaining": names.METRIC_RESILIENCE_RATE_LIMIT_REMAINING,
    "reset": names.METRIC_RESILIENCE_RATE_LIMIT_RESET,
}
_said: dict[str, dict[tuple[Any, ...], Said]] = {kind: {} for kind in _METRICS}


def note(call: LLMCall) -> None:
    """Keep what the answers of a call said, the last one's word counts; runs off the request path."""
    answers, call.answers = call.answers, []
    for headers in answers:
        for name, value in headers.raw:
            found = _HEADER.match(name) if name[:2] in _X else None
            if found is not None:
                _keep(call, found[1].decode().lower(), found[2].decode().lower(), value.decode("latin-1"))


def _keep(call: LLMCall, kind: str, resource: str, text: str) -> None:
    value = seconds(text) if kind == "reset" else number(text)
    if value is None:
        return
    provider = call.attributes.get(names.GEN_AI_PROVIDER_NAME)
    labels = (resource.replace("-", "_"), provider, call.attributes.get(names.GEN_AI_REQUEST_MODEL))
    known = _said[kind]
    if labels in known or len(known) < _MAX_SERIES:
        known[labels] = Said(value, clock.monotonic())
    cells.observe(_METRICS[kind], call.scope, _OBSERVERS[kind])


def number(text: str) -> float | None:
    """Return a header's count."""
    return float(text) if re.fullmatch(r"\d{1,18}(\.\d{1,9})?", text.strip()) else None


def seconds(text: str) -> float | None:
    """Return the seconds of a duration such as ``6m0s``, ``20ms`` or ``1.5``."""
    text = text.strip()
    parts = _PART.findall(text)
    if parts and "".join(amount + unit for amount, unit in parts) == text:
        return sum(float(amount) * _SECONDS[unit] for amount, unit in parts)
    return number(text)


def _observe(kind: str) -> Iterator[Observation]:
    now = clock.monotonic()
    for labels, (value, at) in list(_said[kind].items()):
        yield labels, max(0.0, value - (now - at) / 1e9) if kind == "reset" else value


_OBSERVERS: dict[str, Observer] = {kind: partial(_observe, kind) for kind in _METRICS}

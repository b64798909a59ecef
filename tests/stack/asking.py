"""Ask the servers what Grafana would ask them: a query of a dashboard or a rule, its variables filled."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from stack.client import Alertmanager, Loki, Prometheus, Tempo, eventually
from stack.scenario import App
from support.queries import LOGQL, PROMQL, RULE, TRACE_ID, TRACEQL, Query
from watchkeep.stack.native import Native

STEP = 5.0  # s
_ZERO_INSTEAD = re.compile(r"\bor\s+0 \*")
SUBQUERY = 300.0  # s: the coarsest step of a subquery in the rules, which is aligned to the clock
WINDOW = 120.0  # s: the longest that a rule takes a minimum over; the 0 that a series begins with must leave it


@dataclass
class Stores:
    """Who answers queries; `tempo` is None where there is no Tempo."""

    prometheus: Prometheus
    alertmanager: Alertmanager
    loki: Loki
    tempo: Tempo | None
    begun: float  # since when they may know something

    @classmethod
    def of(cls, stack: Native, begun: float) -> Stores:
        """Name the servers of a stack."""
        urls = {name: stack.url(name) for name in stack.names}
        tempo = Tempo(urls["tempo"]) if "tempo" in urls else None
        alertmanager = Alertmanager(urls["alertmanager"])
        return cls(Prometheus(urls["prometheus"]), alertmanager, Loki(urls["loki"]), tempo, begun)


@dataclass
class Day:
    """A day that has passed: who can be asked about it, since when, and a trace of the example."""

    apps: Mapping[str, App]
    stores: Stores
    begun: float
    trace_id: str = ""

    def __post_init__(self) -> None:
        tempo = self.stores.tempo
        if tempo:
            query = '{ resource.service.name = "multi-agent" && span.gen_ai.operation.name = "chat" }'
            found = eventually(lambda: tempo.search(query, self.begun, time.time()), 30, "a trace is found")
            self.trace_id = found[0]["traceID"]


def answer(day: Day, query: Query, expr: str = "") -> list[Any]:
    """Return what a server answers about the day; raise RefusedError with its own words when it refuses."""
    stores, begun, end = day.stores, day.begun, time.time()
    expr = expr or query.filled({"correlation": "", "session": "", "trace": day.trace_id})
    if query.language == PROMQL:
        if query.kind == RULE:
            end = math.ceil((end + WINDOW) / SUBQUERY) * SUBQUERY
        return stores.prometheus.range(expr, begun, end + STEP, STEP)
    if query.language == LOGQL:
        return stores.loki.range(expr, begun, end, STEP)
    assert stores.tempo is not None
    if query.language == TRACEQL:
        return stores.tempo.search(expr, begun, end)
    assert query.language == TRACE_ID
    return stores.tempo.trace(expr)


def shows(day: Day, query: Query, expr: str = "") -> bool:
    """Whether the answer has something in it; where a query puts 0 for what is missing, something else than 0."""
    found = answer(day, query, expr)
    if query.language == PROMQL and _ZERO_INSTEAD.search(query.expr):
        return any(float(value) for series in found for _, value in series["values"])
    return bool(found)

"""Ask the servers what Grafana would ask them: a query of a dashboard or a rule, its variables filled."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from support.queries import LOGQL, PROMQL, RULE, TRACE_ID, TRACEQL, Query

if TYPE_CHECKING:
    from stack.conftest import Stores

STEP = 5.0  # s
SUBQUERY = 300.0  # s: the coarsest step of a subquery in the rules, which is aligned to the clock


def answer(stores: Stores, query: Query, start: float, end: float, trace_id: str) -> list[Any]:
    """Return what a server answers; raise RefusedError with its own words when it refuses."""
    expr = query.filled({"correlation": "", "session": "", "trace": trace_id})
    if query.language == PROMQL:
        if query.kind == RULE:
            end = math.ceil(end / SUBQUERY) * SUBQUERY
        return stores.prometheus.range(expr, start, end + STEP, STEP)
    if query.language == LOGQL:
        return stores.loki.range(expr, start, end, STEP)
    assert stores.tempo is not None
    if query.language == TRACEQL:
        return stores.tempo.search(expr, start, end)
    assert query.language == TRACE_ID
    return stores.tempo.trace(expr)

"""Every query that is shipped, asked of the real servers after a bad day of real apps: none fails, none is empty."""

from __future__ import annotations

import time
from collections.abc import Mapping

import pytest

from stack.asking import answer
from stack.client import Tempo, eventually
from stack.conftest import Stores
from stack.scenario import App
from support.queries import TRACE_ID, TRACEQL, Query, all_queries
from watchkeep.stack.native import Native

QUERIES = all_queries()
# The error budget looks at hours: shown on a stack whose rules have shorter durations (test_mission.py).
BY_THE_HOUR = ("WatchkeepErrorBudgetBurnFast", "WatchkeepErrorBudgetBurnSlow")


@pytest.fixture(scope="module")
def begun(stack: Native, day: Mapping[str, App], stores: Stores) -> float:
    """The time that the stack's first sample has."""
    found = stores.prometheus.instant("min(min_over_time(timestamp(up)[1h:5s]))")
    return float(found[0]["value"][1]) - 15


@pytest.fixture(scope="module")
def trace_id(request: pytest.FixtureRequest, day: Mapping[str, App], begun: float, stores: Stores) -> str:
    """A trace of the example."""
    if stores.tempo is None:
        return ""
    query = '{ resource.service.name = "multi-agent" && span.gen_ai.operation.name = "chat" }'
    found = eventually(lambda: stores.tempo.search(query, begun, time.time()), 30, "a trace is found")
    return found[0]["traceID"]


@pytest.mark.parametrize("query", QUERIES, ids=[f"{query.kind}: {query.name}" for query in QUERIES])
def test_it_shows_something(
    query: Query, stores: Stores, begun: float, trace_id: str, request: pytest.FixtureRequest
) -> None:
    """The server takes the query and answers with values."""
    if query.language in (TRACEQL, TRACE_ID):
        request.getfixturevalue("tempo")
    if query.title in BY_THE_HOUR:
        pytest.skip("looks at hours: shown in test_mission.py with shorter durations")
    found = answer(stores, query, begun, time.time(), trace_id)
    assert found, f"{query.name} ({query.file}) is empty: {query.expr}"


def test_there_is_something_to_ask() -> None:
    """The walk over the files has found panels, variables, annotations and rules, in all languages."""
    assert {query.kind for query in QUERIES} == {"panel", "variable", "annotation", "rule"}
    assert {query.language for query in QUERIES} == {"promql", "logql", "traceql", "trace_id"}


def test_tempo_finds_a_trace_by_its_id(tempo: Tempo, trace_id: str) -> None:
    """The id that a search gives leads to all spans of the trace."""
    assert {"chat gpt-4o-mini", "POST"} <= {span["name"] for span in tempo.trace(trace_id)}

"""Every query that is shipped, asked of the real servers after a bad day of real apps: none fails, none is empty."""

from __future__ import annotations

import pytest

from stack.asking import Day, shows
from stack.client import Tempo
from stack.test_mission import BURNING
from support.queries import TRACE_ID, TRACEQL, Query, all_queries

# The error budget's alerts look at hours: test_mission.py shows them, with shorter durations.
QUERIES = [query for query in all_queries() if query.title not in BURNING]


@pytest.mark.parametrize("query", QUERIES, ids=[f"{query.kind}: {query.name}" for query in QUERIES])
def test_it_shows_something(query: Query, day: Day, request: pytest.FixtureRequest) -> None:
    """The server takes the query and answers with values."""
    if query.language in (TRACEQL, TRACE_ID):
        request.getfixturevalue("tempo")
    assert shows(day, query), f"{query.name} ({query.file}) is empty: {query.expr}"


def test_there_is_something_to_ask() -> None:
    """The walk over the files has found panels, variables, annotations and rules, in all languages."""
    assert {query.kind for query in QUERIES} == {"panel", "variable", "annotation", "rule"}
    assert len(QUERIES) + len(BURNING) == len(all_queries())
    assert {query.language for query in QUERIES} == {"promql", "logql", "traceql", "trace_id"}


def test_tempo_finds_a_trace_by_its_id(tempo: Tempo, day: Day) -> None:
    """The id that a search gives leads to all spans of the trace."""
    assert {"chat gpt-4o-mini", "POST"} <= {span["name"] for span in tempo.trace(day.trace_id)}

"""The proof can fail: one metric renamed in a copy of the dashboards, and the same question finds something empty."""

import re

import pytest

from stack.asking import Day, shows
from support.promql import selectors
from support.queries import PANEL, PROMQL, Query, dashboard_queries

PANELS = [query for query in dashboard_queries() if query.kind == PANEL and query.language == PROMQL]
METRICS = sorted({selector.name for query in PANELS for selector in selectors(query.filled())})


def renamed(query: Query, metric: str) -> str:
    """Return the query as it would be if the metric had another name."""
    return re.sub(rf"\b{metric}\b", f"{metric}_renamed", query.filled())


@pytest.mark.parametrize("metric", METRICS)
def test_a_renamed_metric_leaves_a_panel_empty(metric: str, day: Day) -> None:
    """Whichever metric it is, a panel that stood on it is empty, though it was not before."""
    mentioning = [query for query in PANELS if renamed(query, metric) != query.filled()]
    assert mentioning
    assert all(shows(day, query) for query in mentioning)
    empty = [query.name for query in mentioning if not shows(day, query, renamed(query, metric))]
    assert empty, f"{metric} may be renamed unnoticed: {[query.name for query in mentioning]}"

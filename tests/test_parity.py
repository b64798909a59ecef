"""Names agree: panels, rules, the runbook and the examples say what the catalogue has, and the other way round."""

from __future__ import annotations

import json

import pytest
import yaml

from support import parity
from support.dashboard_rules import dashboards
from support.queries import ANNOTATION, PANEL, RULE, Query, all_queries, dashboard_queries, link_queries, rule_queries
from watchkeep import names


def _query(expr, language="promql"):
    return Query("board", 1, "panel", "A", language, expr, PANEL, "")


@pytest.mark.parametrize("file", sorted({query.file for query in all_queries()}))
def test_every_name_in_a_query_is_declared(file):
    """No panel, variable, annotation or rule asks for a metric, label or attribute that nobody emits."""
    assert [wrong for query in all_queries() if query.file == file for wrong in parity.unknown(query)] == []


def test_every_name_in_a_link_is_declared():
    """A span leads to metrics and logs that exist."""
    found = link_queries()
    assert {query.language for query in found} == {"promql", "logql"}
    assert [wrong for query in found for wrong in parity.unknown(query)] == []


@pytest.mark.parametrize("uid", sorted(dashboards()))
def test_every_label_in_a_legend_is_declared(uid):
    """No legend, annotation or link reads a label that no series has."""
    assert list(parity.unknown_legends(dashboards()[uid])) == []


def test_there_is_something_to_compare():
    """Queries of every kind are found."""
    found = all_queries()
    assert {query.language for query in found} == {"promql", "logql", "traceql", "trace_id"}
    assert {query.kind for query in found} == {"panel", "variable", "annotation", "rule"}
    assert len([query for query in found if query.kind == ANNOTATION]) == len(dashboards())


def _alerts():
    for file in sorted(parity.ALERTS.glob("*.rules.yaml")):
        for group in yaml.safe_load(file.read_text(encoding="utf-8"))["groups"]:
            yield from (rule for rule in group["rules"] if "alert" in rule)


@pytest.mark.parametrize("rule", list(_alerts()), ids=lambda rule: rule["alert"])
def test_a_message_names_what_there_is(rule):
    """No alert's text reads a label or a metric that does not exist: it would say nothing there."""
    assert parity.unknown_in_messages(rule) == []


@pytest.mark.skipif(not parity.RUNBOOK.exists(), reason="docs/runbook.md is not written yet")
def test_the_runbook_names_what_there_is():
    """Whoever is called at night is not sent to look at a metric that does not exist."""
    assert parity.unknown_in_text(parity.RUNBOOK.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize("file", parity.EXPECTED, ids=lambda file: file.parent.name)
def test_examples_expect_what_there_is(file):
    """No example expects a metric or an event that the catalogue does not have."""
    assert parity.unknown_in_expect(yaml.safe_load(file.read_text(encoding="utf-8"))) == []


def test_every_metric_is_shown(capsys):
    """A metric that is made is on a panel, or in the list of those that are not, with its reason."""
    seen = parity.shown(dashboard_queries())
    assert sorted(parity.emitted() - seen - set(parity.NOT_SHOWN)) == []
    assert sorted(seen & set(parity.NOT_SHOWN)) == [], "these are shown: take them off NOT_SHOWN"
    assert sorted(set(parity.NOT_SHOWN) - parity.emitted()) == [], "these are not made: take them off NOT_SHOWN"
    with capsys.disabled():
        for name, reason in parity.NOT_SHOWN.items():
            print(f"\nno panel shows {name}: {reason}", end="")


def test_no_panel_shows_what_is_not_made_yet():
    """A panel of a layer that is not there would always be empty."""
    assert sorted(parity.shown(dashboard_queries()) - parity.emitted()) == []


# -- the comparison itself -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("language", "expr"),
    [
        ("promql", "sum(rate(resilience_call_total[5m]))"),
        ("promql", 'sum(rate(resilience_calls_total{error_kind="x"}[5m]))'),
        ("promql", "sum by (error_kind) (rate(resilience_calls_total[5m]))"),
        ("promql", "sum by (resilience_pool_name) (rate(resilience_calls_total[5m]))"),
        ("promql", "up / on (error_kind) group_left () resilience_pool_connection_limit"),
        ("promql", "watchkeep:threshold:made_up"),
        ("promql", "resilience_calls_total unless resilience_calls_totals"),
        ("promql", 'resilience_pool_connection_limit{gen_ai_request_model="x"}'),
        ("promql", "rate(resilience_retry_delay[5m])"),
        ("promql", "sum(rate(otelcol_receiver_accepted_span_total[5m]))"),
        ("logql", '{service_name="x"} | correlation_id="y"'),
        ("logql", 'sum by (correlation_id) (count_over_time({service_name="x"}[5m]))'),
        ("logql", '{service_name="x"} | line_format `{{ .correlation_id }}`'),
        ("traceql", '{ span.agent_runtime.correlationid = "x" }'),
        ("traceql", '{ resource.service = "x" }'),
    ],
)
def test_a_made_up_name_is_found(language, expr):
    """One wrong letter in a metric, label or attribute is one line."""
    assert parity.unknown(_query(expr, language)) != []


@pytest.mark.parametrize("query", [q for q in all_queries() if q.language == "promql"], ids=lambda q: q.name)
def test_every_query_would_be_caught(query):
    """Each query, with one of its metrics renamed, is unknown: no query escapes the comparison."""
    from support.promql import selectors

    expr = query.filled()
    renamed = sorted({selector.name for selector in selectors(expr) if selector.name})
    if not renamed:
        pytest.skip("asks for no metric")
    for name in renamed:
        broken = query._replace(kind=RULE, expr=expr.replace(name, f"{name}_x"))
        assert parity.unknown(broken) != []


def test_a_metric_without_a_panel_is_found(monkeypatch):
    """A metric that the catalogue gains is missing until a panel shows it."""
    made_up = names.METRIC_RESILIENCE_CALLS._replace(name="resilience.made_up")
    monkeypatch.setitem(names.METRICS, made_up.name, made_up)
    assert parity.emitted() - parity.shown(dashboard_queries()) - set(parity.NOT_SHOWN) == {made_up.name}


def test_a_wrong_legend_is_found():
    """A label in a legend is checked like one in a query."""
    text = json.dumps(dashboards()["watchkeep-overview"]).replace("{{service_name}}", "{{service_nam}}")
    assert list(parity.unknown_legends(json.loads(text))) != []


@pytest.mark.parametrize(
    "text",
    [
        "Look at `resilience_call_total` first.",
        "```promql\nsum(rate(resilience_callz_total[5m]))\n```",
        '```promql\nsum(rate(resilience_calls_total{service="checkout"}[5m]))\n```',
        "Set `watchkeep:threshold:made_up`.",
        "`otelcol_exporter_queue_sizes`",
    ],
)
def test_a_made_up_name_in_a_text_is_found(text):
    """Code in the runbook is checked."""
    assert parity.unknown_in_text(text) != []


@pytest.mark.parametrize(
    "text",
    ["{{ $labels.service }} fails", '{{ range query "resilience_callz_total" }}{{ .Labels.service_name }}{{ end }}'],
)
def test_a_made_up_name_in_a_message_is_found(text):
    """An alert's text is checked."""
    assert parity.unknown_in_messages({"annotations": {"description": text}}) != []


def test_plain_words_are_no_names():
    """Words and files are not taken for metrics."""
    assert parity.unknown_in_text("Read `docs/runbook.md`, run `watchkeep stack up`, see resilience.") == []


def test_a_made_up_expectation_is_found():
    """An example's metric or event is checked."""
    assert parity.unknown_in_expect({"metrics": ["resilience.callz"], "events": [{"name": "x"}]}) != []


def test_rules_are_found():
    """Rule files are walked."""
    assert len(rule_queries()) > 20

"""The dashboards: built from their modules, and keeping the rules; a rule that cannot fail is no rule."""

from __future__ import annotations

import copy
import re
import sys
import warnings

import pytest

from support import dashboard_rules as rules
from support.dashboard_rules import dashboards, provisioned, real, targets
from support.queries import ROOT

sys.path.insert(0, str(ROOT))
with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)  # of schema v1, which is what file provisioning reads
    from dashboards import build, links


def test_what_is_committed_is_what_the_modules_build():
    """Nobody edits dashboards/json by hand."""
    committed = {file.name: file.read_text(encoding="utf-8") for file in rules.FOLDER.iterdir()}
    assert committed == build.build(), "run `make generate`"


def test_there_are_eight():
    """Each has the uid that links and alerts name."""
    assert sorted(dashboards()) == sorted(links.TITLES)
    assert len(dashboards()) == 8


@pytest.mark.parametrize("rule", rules.RULES, ids=lambda rule: rule.__name__)
@pytest.mark.parametrize("uid", links.TITLES)
def test_every_dashboard_keeps_every_rule(uid, rule):
    """What each rule asks for stands in its docstring."""
    assert list(rule(dashboards()[uid])) == []


def test_what_is_provisioned_leads_somewhere():
    """Data sources lead to data sources and dashboards that are there, with variables that those have."""
    text = "".join(file.read_text(encoding="utf-8") for file in rules.PROVISIONING.rglob("*.yaml"))
    assert set(re.findall(r"(?:datasourceUid|alertmanagerUid): (\S+)", text)) <= set(provisioned())
    addresses = re.findall(r"url: /d/([\w-]+)\?(\S*)", text)
    assert addresses
    for uid, query in addresses:
        variables = {each["name"] for each in dashboards()[uid]["templating"]["list"]}
        assert set(re.findall(r"var-(\w+)=", query)) <= variables


# -- the rules themselves --------------------------------------------------------------------------------------


def _first(dashboard, kind="prometheus", holding=""):
    return next((p, t) for p, t in targets(dashboard, kind) if holding in t["expr"])


def _panel(dashboard):
    return next(real(dashboard))


def _edited(dashboard):
    dashboard["editable"] = True


def _double_id(dashboard):
    dashboard["panels"][2]["id"] = 2


def _double_title(dashboard):
    dashboard["panels"][2]["title"] = dashboard["panels"][1]["title"]


def _moved(dashboard):
    dashboard["panels"][2]["gridPos"]["x"] = 0


def _too_wide(dashboard):
    dashboard["panels"][1]["gridPos"]["w"] = 30


def _narrow(dashboard):
    _panel(dashboard)["gridPos"]["w"] -= 1


def _low(dashboard):
    _panel(dashboard)["gridPos"]["h"] -= 1


def _unmarked(dashboard):
    dashboard["annotations"]["list"] = []


def _without(key):
    def change(dashboard):
        panel = _panel(dashboard)
        panel.pop(key, None)
        panel["fieldConfig"]["defaults"].pop(key, None)

    change.__name__ = f"without_{key}"
    return change


def _other_source(dashboard):
    _first(dashboard)[1]["datasource"]["uid"] = "somewhere"


def _same_letter(dashboard):
    for target in next(panel for panel in real(dashboard) if len(panel["targets"]) > 1)["targets"]:
        target["refId"] = "A"


def _no_legend(dashboard):
    next(t for p, t in targets(dashboard, "prometheus") if p["type"] == "timeseries")["legendFormat"] = ""


def _broken_promql(dashboard):
    _first(dashboard)[1]["expr"] += ")"


def _broken_variable(dashboard):
    dashboard["templating"]["list"][1]["query"] = "label_values(a{, b)"


def _own_window(dashboard):
    target = _first(dashboard, holding="$__rate_interval")[1]
    target["expr"] = target["expr"].replace("$__rate_interval", "5m")


def _bare_counter(dashboard):
    _first(dashboard)[1]["expr"] = "sum(resilience_calls_total)"


def _bare_histogram(dashboard):
    _first(dashboard)[1]["expr"] = "sum(resilience_retry_delay_seconds_count)"


def _no_exemplar(dashboard):
    next(t for p, t in targets(dashboard, "prometheus") if t.get("exemplar"))["exemplar"] = False


def _undeclared(dashboard):
    _first(dashboard)[1]["expr"] = 'sum(up{job="$job"})'


def _unused(dashboard):
    dashboard["templating"]["list"].append({"name": "team", "type": "textbox"})


def _one_value(dashboard):
    dashboard["templating"]["list"][0]["multi"] = False


def _linking_to(title, url):
    def change(dashboard):
        found = next(p for p in real(dashboard) if p["fieldConfig"]["defaults"].get("links"))
        found["fieldConfig"]["defaults"]["links"] = [{"title": title, "url": url}]

    return change


_lost = _linking_to("x", "/d/nowhere?${__url_time_range}")
_timeless = _linking_to("x", "/d/watchkeep-llm")
_wrong_panel = _linking_to("LLM health: Duration", "/d/watchkeep-llm?${__url_time_range}&viewPanel=panel-999")
_wrong_search = _linking_to("x", links.search_traces("x", "")[1])


def _unlinked(dashboard):
    dashboard["links"].pop()


BREACHES = [
    (rules.is_provisionable, _edited),
    (rules.ids_are_unique, _double_id),
    (rules.ids_are_unique, _double_title),
    (rules.nothing_overlaps, _moved),
    (rules.nothing_overlaps, _too_wide),
    (rules.rows_are_full, _narrow),
    (rules.rows_are_full, _low),
    (rules.transitions_are_annotated, _unmarked),
    *((rules.panels_explain_themselves, _without(key)) for key in ("title", "description", "unit", "thresholds")),
    (rules.sources_are_provisioned, _other_source),
    (rules.targets_are_told_apart, _same_letter),
    (rules.targets_are_told_apart, _no_legend),
    (rules.promql_parses, _broken_promql),
    (rules.promql_parses, _broken_variable),
    (rules.windows_follow_the_zoom, _own_window),
    (rules.counters_are_rates, _bare_counter),
    (rules.counters_are_rates, _bare_histogram),
    (rules.latencies_have_exemplars, _no_exemplar),
    (rules.variables_are_declared, _undeclared),
    (rules.variables_are_declared, _unused),
    (rules.variables_offer_all, _one_value),
    *((rules.links_lead_somewhere, change) for change in (_lost, _timeless, _wrong_panel, _wrong_search)),
    (rules.dashboards_are_linked, _unlinked),
]


@pytest.mark.parametrize(("rule", "change"), BREACHES, ids=lambda each: each.__name__.strip("_"))
def test_a_breach_is_found(rule, change):
    """Each rule names a dashboard that was changed to break it."""
    broken = copy.deepcopy(dashboards()[links.OVERVIEW])
    change(broken)
    assert list(rule(broken)) != []


def test_every_rule_is_seen_to_fail():
    """No rule is without a breach of it."""
    assert {rule for rule, _ in BREACHES} == set(rules.RULES)

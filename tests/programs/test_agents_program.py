"""An app on openai-agents, newest release: the same bare and watched; each run is one trace, and nothing is missed."""

from pathlib import Path

import pytest

from support import programs
from support.otlp_sink import OtlpSink
from support.versions import envs
from watchkeep import names

APP = str(Path(__file__).with_name("agents_app.py"))
WHOLE = [
    "invoke_workflow",
    "invoke_agent Guide",
    "execute_tool weather",
    "execute_tool transfer_to_booker",
    "invoke_agent Booker",
]


def talk(plan):
    """Two conversations in order, each with what goes wrong at its beginning."""
    if plan is None:
        return None
    rules = []
    for city in ("Rome", "Oslo"):
        weather = {"tool_calls": [{"name": "weather", "arguments": {"city": city}}]}
        transfer = {"tool_calls": [{"name": "transfer_to_booker", "arguments": {}}]}
        rules.append({"match": {"user": city}, "steps": plan})
        rules.append({"match": {"system": "You guide.", "user": city}, "steps": [weather, transfer]})
    return {"rules": rules}


@pytest.fixture(scope="module")
def sink():
    with OtlpSink() as sink:
        yield sink


@pytest.fixture
def app(sink, tmp_path):
    """Runs the app."""
    python = str(envs().make("agents"))
    pair = programs.Pair(sink, python, tmp_path)
    return lambda use, plan, **switches: pair.run([python, APP, *use], talk(plan), **switches)


def assert_all_of_it(bare, watched, calls):
    programs.assert_same_for_the_user(bare, watched)
    programs.assert_same_on_the_wire(bare, watched)
    programs.assert_tokens_are_the_server_s(watched)
    if watched.log:
        programs.assert_attempts_are_the_server_s(watched, calls)
    assert len(watched.named("chat")) == calls
    for chat in watched.named("chat"):
        assert chat.parent_id in {agent.span_id for agent in watched.named("invoke_agent")}


@pytest.mark.parametrize("plan", programs.PLANS)
def test_the_app_is_the_same_and_each_run_is_one_trace(app, plan):
    """A plain and a streamed run: same for the user and on the wire; agents, tool, hand-off and calls below each."""
    fails = [plan == "down", plan in ("down", "cut in mid-stream")]
    bare, watched = app(("chat", "plain", "stream"), programs.PLANS[plan])
    assert watched.status == (3 if any(fails) else 0)
    assert_all_of_it(bare, watched, calls=sum(1 if failed else 3 for failed in fails))
    programs.assert_whole(watched, traces=2)
    for root, failed in zip(watched.named("invoke_workflow"), fails, strict=True):
        mine = [span for span in watched.named("") if span.trace_id == root.trace_id]
        found = [span.name for span in mine if span.name.startswith(("invoke_", "execute_"))]
        assert found == (WHOLE[:2] if failed else WHOLE)
        wrong = {span.name for span in mine if span.name.startswith("invoke_") and span.message.status.code == 2}
        assert wrong == ({"invoke_workflow", "invoke_agent Guide"} if failed else set())
    assert watched.total("resilience.calls") == len(watched.named("chat"))


def test_the_sdk_s_default_model_is_the_same(app):
    """Responses, after a 429 each; what the runs are measured by arrives at the end of the process."""
    bare, watched = app(("responses", "plain", "stream"), programs.PLANS["429 then ok"])
    assert watched.status == 0
    assert_all_of_it(bare, watched, calls=6)
    programs.assert_whole(watched, traces=2)
    assert watched.total("gen_ai.invoke_agent.duration") == 4
    assert watched.total("gen_ai.invoke_workflow.duration") == 2
    assert watched.total("gen_ai.execute_tool.duration") == 4
    assert watched.total("agent_runtime.agent.active") == 0
    assert watched.total("process.memory.usage") > 10_000_000
    for city, tool in zip(("Rome", "Oslo"), watched.named("execute_tool weather"), strict=True):
        (line,) = [log for log in watched.logs if log.body == f"asked for {city}"]
        assert line.span_id == tool.span_id
        assert line.attributes[names.GEN_AI_AGENT_NAME] == tool.attributes[names.GEN_AI_AGENT_NAME] == "Guide"


def test_our_headers_go_to_allowed_hosts(app):
    """With the provider's host on the list each try carries its trace and the ID, and nothing else changes."""
    bare, watched = app(("chat", "plain"), programs.PLANS["429 then ok"], WATCHKEEP_ALLOWED_HOSTS="127.0.0.1")
    programs.assert_same_for_the_user(bare, watched)
    programs.assert_same_on_the_wire(bare, watched, ours=programs.OURS)
    programs.assert_headers_are_ours(watched)

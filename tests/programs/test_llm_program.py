"""`llm`, the command-line program, newest release, unchanged: the same bare and watched, and nothing is missed."""

import pytest

from support import programs
from support.otlp_sink import OtlpSink
from support.versions import envs
from watchkeep import names

PROMPT = ("-m", "gpt-4o-mini", "Why is the sky blue?")
USES = {
    "prompt": (*PROMPT, "--no-stream", "-u"),
    "stream": (*PROMPT, "-u"),
    "embeddings": ("embed", "-m", "3-small", "-c", "Why is the sky blue?"),
}
MORE = {"responses": ("-m", "gpt-5-mini", "Why is the sky blue?", "-u")}


@pytest.fixture(scope="module")
def sink():
    with OtlpSink() as sink:
        yield sink


@pytest.fixture
def llm(sink, tmp_path):
    """Runs `llm` with a home of its own."""
    python = envs().make("llm")
    pair = programs.Pair(sink, str(python), tmp_path, OPENAI_API_KEY="sk-test")
    return lambda use, plan, **switches: pair.run([str(python.with_name("llm")), *use], plan, **switches)


@pytest.mark.parametrize("plan", programs.PLANS)
@pytest.mark.parametrize("use", USES)
def test_llm_is_the_same_and_all_of_it_is_seen(llm, use, plan):
    """Same for the user and on the wire; attempts and tokens are the server's; one trace, one ID."""
    bare, watched = llm(USES[use], programs.PLANS[plan])
    programs.assert_same_for_the_user(bare, watched)
    programs.assert_same_on_the_wire(bare, watched)
    programs.assert_whole(watched)
    programs.assert_tokens_are_the_server_s(watched)
    if plan == "down":
        assert [span.attributes[names.RESILIENCE_RETRY_ATTEMPT] for span in watched.attempts()] == [0, 1, 2]
        assert {span.attributes[names.RESILIENCE_FAULT_ORIGIN] for span in watched.attempts()} == {"network"}
    else:
        programs.assert_attempts_are_the_server_s(watched)
    (call,) = [span for span in watched.spans if not span.parent_id]
    assert (call.message.status.code == 2) == (watched.status != 0)
    assert watched.total("resilience.calls") == 1
    if plan in ("429 then ok", "500 twice then ok", "down"):
        retries = [log for log in watched.logs if log.name == names.EVENT_RETRY_SCHEDULED.name]
        assert len(retries) == len(watched.attempts()) - 1


@pytest.mark.parametrize("use", MORE)
def test_other_ways_of_llm(llm, use):
    """Models behind the Responses API are seen alike."""
    bare, watched = llm(MORE[use], programs.PLANS["429 then ok"])
    programs.assert_same_for_the_user(bare, watched)
    programs.assert_same_on_the_wire(bare, watched)
    programs.assert_whole(watched)
    programs.assert_attempts_are_the_server_s(watched)
    programs.assert_tokens_are_the_server_s(watched)


def test_our_headers_go_to_allowed_hosts(llm):
    """With the provider's host on the list each try carries its trace and the ID, and nothing else changes."""
    bare, watched = llm(USES["stream"], programs.PLANS["429 then ok"], WATCHKEEP_ALLOWED_HOSTS="127.0.0.1")
    programs.assert_same_for_the_user(bare, watched)
    programs.assert_same_on_the_wire(bare, watched, ours=programs.OURS)
    programs.assert_headers_are_ours(watched)

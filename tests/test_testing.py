"""What users get for their own tests: all three signals in memory, and clocks and ids that can be compared."""

import openai
import pytest

from watchkeep import clock, names, runtime
from watchkeep.testing import capture, fixed

MESSAGES = [{"role": "user", "content": "hi"}]


def one_call(server):
    client = openai.OpenAI(base_url=server.base_url, api_key="sk")
    client.chat.completions.create(model="gpt-4o", messages=MESSAGES)


def test_all_three_signals_are_captured(watchkeep_capture, llm_server):
    """Spans, log records and metrics of a call are there at once, without a pipeline."""
    llm_server.plan([{"status": 429, "headers": {"retry-after-ms": "1"}}])
    one_call(llm_server)
    assert [span.name for span in watchkeep_capture.spans("chat")] == ["chat gpt-4o"]
    assert len(watchkeep_capture.logs(names.EVENT_RETRY_SCHEDULED.name)) == 1
    assert watchkeep_capture.value(names.METRIC_RESILIENCE_CALLS.name, gen_ai_request_model="gpt-4o") == 1


def test_two_runs_with_fixed_clocks_and_ids_are_equal(llm_server):
    """Times and ids count, so that two runs of the same thing give the same spans."""

    def run():
        with fixed(), capture() as captured:
            one_call(llm_server)
            (chat,) = captured.spans("chat")
            return chat.trace_id, chat.span_id, chat.start_ns, chat.end_ns - chat.start_ns

    run()  # the first call of a process does more: it imports
    assert run() == run()


def test_fixed_clocks_are_given_back():
    """After the block time runs again, also when the block raised."""
    before = clock.wall, clock.monotonic
    with pytest.raises(KeyError), fixed():
        raise KeyError
    assert (clock.wall, clock.monotonic) == before


def test_captures_nest(llm_server):
    """What an inner capture took, the outer one does not see."""
    with capture() as outer:
        with capture() as inner:
            one_call(llm_server)
        assert inner.spans("chat")
        assert runtime.get().pipeline is outer
    assert not outer.spans("chat")

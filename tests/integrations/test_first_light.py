"""The first thing anybody tries: one chat call through the real SDK, seen attempt by attempt."""

import openai
import pytest

from watchkeep import names


@pytest.fixture
def client(llm_server):
    url = llm_server.url if llm_server.url.endswith("/v1") else f"{llm_server.url}/v1"
    return openai.OpenAI(base_url=url, api_key="sk-test")


def test_a_retried_call_is_one_chat_span_with_its_attempts(watchkeep_capture, llm_server, client):
    """429, 500, ok: one chat span whose children are three attempts with number, status and wait."""
    llm_server.plan([{"status": 429, "headers": {"retry-after-ms": "50"}}, {"status": 500}])
    client.chat.completions.create(model="gpt-4o", messages=[{"role": "user", "content": "hi"}])
    (chat,) = watchkeep_capture.spans("chat")
    attempts = watchkeep_capture.spans("POST")
    assert [span.attributes[names.HTTP_RESPONSE_STATUS_CODE] for span in attempts] == [429, 500, 200]
    assert [span.attributes[names.RESILIENCE_RETRY_ATTEMPT] for span in attempts] == [0, 1, 2]
    assert {span.parent_id for span in attempts} == {chat.span_id}
    assert attempts[1].attributes[names.RESILIENCE_RETRY_DELAY] >= 0.05
    assert watchkeep_capture.value(names.METRIC_RESILIENCE_CALLS.name) == 1

"""httpx and httpx2 inside an LLM call: one attempt per request on the wire."""

import asyncio

import httpx
import httpx2
import openai
import pytest

from watchkeep import names

MESSAGES = [{"role": "user", "content": "hi"}]


def ordinary(server):
    """An app's own request, no LLM call around it."""
    return httpx2.get(f"{server.base_url}/models").status_code


def through_httpx(server):
    """An LLM call through an httpx client of the app's."""
    client = openai.OpenAI(base_url=server.base_url, api_key="sk", http_client=httpx.Client())
    return client.chat.completions.create(model="gpt-4o", messages=MESSAGES).choices[0].message.content


def asynchronous(server):
    """An async LLM call that fails for good."""

    async def main():
        client = openai.AsyncOpenAI(base_url=server.base_url, api_key="sk", max_retries=0)
        return await client.chat.completions.create(model="gpt-4o", messages=MESSAGES)

    server.plan([{"status": 400}])
    return asyncio.run(main())


EXERCISES = (ordinary, through_httpx, asynchronous)


@pytest.mark.parametrize("stack", [httpx, httpx2])
def test_each_hop_of_a_redirect_is_an_attempt(watchkeep_capture, llm_server, stack):
    """A redirected request is two requests on the wire, the second one a resend."""
    llm_server.plan([{"redirect": True}])
    client = openai.OpenAI(base_url=llm_server.base_url, api_key="sk", http_client=stack.Client(follow_redirects=True))
    client.chat.completions.create(model="gpt-4o", messages=MESSAGES)
    first, second = watchkeep_capture.spans("POST")
    assert first.attributes[names.HTTP_RESPONSE_STATUS_CODE] == 307
    assert second.attributes[names.HTTP_REQUEST_RESEND_COUNT] == 1
    assert second.attributes[names.RESILIENCE_RETRY_ATTEMPT] == 0


def test_an_ordinary_request_is_no_attempt(watchkeep_capture, llm_server):
    """The app's own HTTP is not an attempt of an LLM call."""
    ordinary(llm_server)
    assert not [s for s in watchkeep_capture.spans() if s.scope.name == "watchkeep.http"]


def test_a_key_in_a_url_is_not_recorded(watchkeep_capture, llm_server):
    """The query of a URL may hold a key: it is left out."""
    client = openai.OpenAI(base_url=llm_server.base_url, api_key="sk", default_query={"key": "very-secret"})
    client.chat.completions.create(model="gpt-4o", messages=MESSAGES)
    (attempt,) = watchkeep_capture.spans("POST")
    assert "very-secret" not in repr(watchkeep_capture.spans())
    assert attempt.attributes[names.URL_FULL].endswith("?REDACTED")

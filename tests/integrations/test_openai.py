"""openai 1.x, 2.x, 3.x in every way to call: the app sees what it sees bare, we see what the server saw."""

from __future__ import annotations

import asyncio
from typing import Any

import openai
import pytest

from support.versions import VERSIONS, found_by
from watchkeep import names

MESSAGES = [{"role": "user", "content": "one two three"}]


def retried(server: Any) -> Any:
    """Call once, with two retries."""
    server.plan([{"status": 429, "retry_after_ms": 5}, {"status": 500, "retry_after_ms": 5}])
    client = openai.OpenAI(base_url=server.base_url, api_key="x")
    return client.chat.completions.create(model="gpt-4o", messages=MESSAGES)


def failing(server: Any) -> Any:
    """Fail for good, after a retry."""
    server.plan({"default": {"status": 503, "retry_after_ms": 5}})
    client = openai.OpenAI(base_url=server.base_url, api_key="x", max_retries=1)
    return client.responses.create(model="gpt-4o", input="one two")


def streamed(server: Any) -> Any:
    """Read one stream whole, and leave another one early."""
    client = openai.OpenAI(base_url=server.base_url, api_key="x")
    whole = client.chat.completions.create(model="gpt-4o", messages=MESSAGES, stream=True)
    with client.chat.completions.create(model="gpt-4o", messages=MESSAGES, stream=True) as early:
        return [type(whole), *whole, next(early)]


def asynchronous(server: Any) -> Any:
    """Call, stream and get cancelled in an event loop."""

    async def main() -> Any:
        async with openai.AsyncOpenAI(base_url=server.base_url, api_key="x") as client:
            server.plan(["ok", "ok", {"delay": 5}])
            answer = await client.embeddings.create(model="text-embedding-3-small", input="one")
            stream = await client.chat.completions.create(model="gpt-4o", messages=MESSAGES, stream=True)
            chunks = [chunk async for chunk in stream]
            async with asyncio.timeout(0.1):
                await client.chat.completions.create(model="gpt-4o", messages=MESSAGES)
            return answer, chunks

    return asyncio.run(main())


EXERCISES = (retried, failing, streamed, asynchronous)

# Cells by what is expected of their one call span.
OPERATIONS = {
    "embeddings": "embeddings text-embedding-3-small",
    "models": "models",
    "model": "models",
    "legacy_completion": "text_completion gpt-4o-mini",
}
STREAMED = frozenset(("responses_large",))
UNUSED = frozenset(("streaming_response_unread",))  # the server said its tokens, and nobody read them
FAILED = {
    "stream_error_event": (names.ERROR_EVENT, names.PROVIDER),
    "stream_cut": ("RemoteProtocolError", names.PROVIDER),
    "responses_stream_failed": (names.ERROR_EVENT, names.PROVIDER),
    "responses_stream_error": (names.ERROR_EVENT, names.PROVIDER),
    "fewer_retries": ("503", names.PROVIDER),
    "no_retries": ("500", names.PROVIDER),
    "status_400": ("400", names.CLIENT_FAULT),
    "status_401": ("401", names.CLIENT_FAULT),
    "status_404": ("404", names.CLIENT_FAULT),
    "status_422": ("422", names.CLIENT_FAULT),
    "status_429": ("429", names.PROVIDER),
    "status_500": ("500", names.PROVIDER),
    "legacy_completion": ("404", names.CLIENT_FAULT),
    "overflow": (names.CONTEXT_LENGTH_EXCEEDED, names.CLIENT_FAULT),
    "read_timeout": (names.READ_TIMEOUT, names.PROVIDER),
    "dropped_always": ("RemoteProtocolError", names.NETWORK),
    "bad_request": ("TypeError", names.CLIENT_FAULT),
}


def all_cells() -> list[Any]:
    """Return (version, cell) for every cell, by the names in the script's own table."""
    import re
    from pathlib import Path

    text = (Path(__file__).parents[1] / "support" / "openai_matrix.py").read_text("utf-8")
    named = re.findall(r'^    "(\w+)": Cell\(', text, re.MULTILINE)
    only_newest = re.findall(r'^    CELLS\["(\w+)"\]', text, re.MULTILINE)
    return [
        pytest.param((version, f"{mode}-{name}"), id=f"{version}-{mode}-{name}")
        for version in VERSIONS
        for mode in ("sync", "async")
        for name in named + (only_newest if version == "3" else [])
    ]


@pytest.fixture(params=all_cells())
def cell(request: pytest.FixtureRequest) -> dict[str, Any]:
    """Return what one cell saw, bare and watched."""
    version, name = request.param
    matrix = found_by("openai_matrix.py", version)
    assert matrix["version"].startswith(f"{version}.")
    return {"name": name.partition("-")[2], **matrix["cells"][name]}


def call_span(cell: dict[str, Any]) -> dict[str, Any]:
    """Return the one span of the call."""
    (found,) = [span for span in cell["spans"] if span["scope"] == "watchkeep.openai"]
    return found


def test_the_app_sees_what_it_sees_bare_and_so_does_the_server(cell):
    """Results and exceptions are equal in type, text and causes; requests in number, order, headers and bytes."""
    watched, bare = dict(cell["watched"]), dict(cell["bare"])
    assert len(watched.pop("wire")) == len(bare.pop("wire"))
    assert watched == bare
    assert cell["watched"]["wire"] == cell["bare"]["wire"]
    assert cell["faults"] == 0


def test_the_attempts_are_those_of_the_servers_log(cell):
    """One call span; below it one attempt for each request the server saw, in order, with its status."""
    call = call_span(cell)
    attempts = [span for span in cell["spans"] if span["scope"] == "watchkeep.http"]
    wire = cell["watched"]["wire"]
    statuses = [span["attributes"].get(names.HTTP_RESPONSE_STATUS_CODE, "dropped") for span in attempts]
    unanswered = cell["name"] == "read_timeout"
    assert statuses == ["dropped" if unanswered else entry["status"] for entry in wire]
    assert [span["parent_id"] for span in attempts] == [call["span_id"]] * len(wire)
    assert [span["name"] for span in attempts] == [entry["method"] for entry in wire]
    resent = [span["attributes"].get(names.HTTP_REQUEST_RESEND_COUNT, 0) for span in attempts]
    assert resent == list(range(len(wire)))
    checkouts = [span for span in cell["spans"] if span["scope"] == "watchkeep.pool"]
    assert [span["parent_id"] for span in checkouts] == [span["span_id"] for span in attempts]
    assert cell["calls"] == 1


def test_the_call_span_is_named_and_blamed_rightly(cell):
    """The span has the operation's name, is an error only where the call failed, and says whose fault it was."""
    call, name = call_span(cell), cell["name"]
    expected = OPERATIONS.get(name.partition("_")[0], OPERATIONS.get(name, "chat gpt-4o-mini"))
    assert call["name"] == expected
    attributes = call["attributes"]
    blame = attributes.get(names.ERROR_TYPE), attributes.get(names.RESILIENCE_FAULT_ORIGIN)
    assert blame == FAILED.get(name, (None, None))
    assert call["status"] == (2 if name in FAILED else 0)
    provider = "azure.ai.openai" if name.startswith("azure") else "openai"
    assert attributes[names.GEN_AI_PROVIDER_NAME] == provider


def test_tokens_are_those_that_the_server_sent(cell):
    """Tokens on the span equal the usage that went over the wire; where none did, the call counts as unknown."""
    attributes, name = call_span(cell)["attributes"], cell["name"]
    wire = cell["watched"]["wire"]
    usage = wire[-1]["usage"] if wire and wire[-1]["outcome"] == "answered" else None
    usage = None if name in UNUSED else usage
    read = {
        "prompt": attributes.get(names.GEN_AI_USAGE_INPUT_TOKENS),
        "completion": attributes.get(names.GEN_AI_USAGE_OUTPUT_TOKENS),
    }
    if usage is None:
        assert read == {"prompt": None, "completion": None}
        counted = name not in FAILED and name not in ("models", "model")
        assert cell["unknown"] == int(counted)
        return
    assert read["prompt"] == usage["prompt"]
    assert (read["completion"] or 0) == usage["completion"]
    assert (attributes.get(names.GEN_AI_USAGE_CACHE_READ_INPUT_TOKENS) or 0) == usage["cached"]
    assert (attributes.get(names.GEN_AI_USAGE_REASONING_OUTPUT_TOKENS) or 0) == usage["reasoning"]
    assert cell["unknown"] == 0


def test_the_ledger_adds_up_to_the_span_exactly(cell):
    """The phases are whole nanoseconds, none negative, and their sum is the span's duration."""
    call = call_span(cell)
    phases = [value for key, value in call["attributes"].items() if key.startswith(f"{names.RESILIENCE_CALL_TIME}.")]
    spent = [round(value * 1e9) for value in phases]
    assert min(spent) >= 0
    assert sum(spent) == call["nanoseconds"]


def test_a_stream_says_how_it_ended(cell):
    """Each streamed call says how its stream ended, no other call does."""
    attributes, name = call_span(cell)["attributes"], cell["name"]
    streamed = "stream" in name.split("_")[-1:] or name.endswith("_lines") or "stream_" in name or "helper" in name
    streamed = attributes.get(names.GEN_AI_REQUEST_STREAM, False) if streamed or name in STREAMED else False
    outcome = attributes.get(names.AGENT_RUNTIME_STREAM_OUTCOME)
    assert (outcome is not None) == streamed
    if streamed:
        assert outcome == ("failed" if name in FAILED else "drained")

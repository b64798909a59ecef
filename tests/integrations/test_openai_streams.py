"""A stream is one span that ends once, whichever way the stream ends; an exception is the app's very own."""

from __future__ import annotations

import dataclasses
import time
from typing import Any

import openai
import pytest

import watchkeep
from support.versions import VERSIONS, found_by
from watchkeep import names
from watchkeep.config import load
from watchkeep.testing import capture

NOBODY = (None, None)
CANCELLED = (names.CANCELLED, names.CLIENT_FAULT)
ENDS: dict[str, tuple[str | None, tuple[str | None, str | None]]] = {
    "drained": ("drained", NOBODY),
    "break": ("abandoned", NOBODY),
    "close": ("closed_early", NOBODY),
    "with_block": ("closed_early", NOBODY),
    "abandoned": ("abandoned", NOBODY),
    "never_read": ("abandoned", NOBODY),
    "server_abort": ("failed", ("RemoteProtocolError", names.PROVIDER)),
    "cancelled": ("cancelled", CANCELLED),
    "cancelled_before": (None, CANCELLED),
    "interrupted_consumer": ("cancelled", CANCELLED),
    "app_error": ("closed_early", NOBODY),
    "stalled": ("failed", (names.STREAM_STALLED, names.PROVIDER)),
    "server_reset": ("failed", ("ReadError", names.PROVIDER)),
    "error_event": ("failed", (names.ERROR_EVENT, names.PROVIDER)),
    "helper": ("closed_early", NOBODY),
    "raw_closed": ("closed_early", NOBODY),
    "response_unread": ("closed_early", NOBODY),
    "in_generator": ("abandoned", NOBODY),
    "other_task": ("closed_early", NOBODY),
}


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("mode", ["sync", "async"])
@pytest.mark.parametrize("way", ENDS)
def test_a_stream_is_one_span_with_the_right_outcome_however_it_ends(version, mode, way):
    """The app sees what it sees bare; one call span with outcome, status, blame and an exact ledger; counted once."""
    found = found_by("openai_streams.py", version)["ways"][f"{mode}-{way}"]
    assert found["watched"] == found["bare"]
    assert found["faults"] == 0
    (call,) = [span for span in found["spans"] if span["scope"] == "watchkeep.openai"]
    attributes = call["attributes"]
    outcome, blame = ENDS[way]
    assert attributes.get(names.AGENT_RUNTIME_STREAM_OUTCOME) == outcome
    assert (attributes.get(names.ERROR_TYPE), attributes.get(names.RESILIENCE_FAULT_ORIGIN)) == blame
    assert call["status"] == (0 if blame == NOBODY else 2)
    assert found["counted"] == ({outcome: 1} if outcome else {})
    phases = [value for key, value in attributes.items() if key.startswith(f"{names.RESILIENCE_CALL_TIME}.")]
    assert sum(round(value * 1e9) for value in phases) == call["nanoseconds"]


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("mode", ["sync", "async"])
def test_an_exception_is_the_same_object_as_without_us(version, mode):
    """What a transport, a body or an event hook raises is, or causes, what the app gets, at the same depth as bare."""
    found = found_by("openai_streams.py", version)["identities"][mode]
    assert found["watched"] == found["bare"]
    assert len(found["bare"]) == 20
    assert all(depth >= 0 and not notes for _, depth, notes in found["bare"].values())


@pytest.mark.parametrize("version", VERSIONS)
def test_nothing_of_ours_is_printed_when_streams_are_dropped(version):
    """Dropped streams, closed loops and cancelled tasks leave no line of ours on stderr."""
    assert "watchkeep" not in found_by("openai_streams.py", version)["stderr"]


def aged(seconds: float) -> Any:
    """Return settings with streams that count as abandoned after `seconds`."""
    return dataclasses.replace(load().config, stream_max_age=seconds)


def test_a_stream_that_nobody_reads_is_swept(llm_server):
    """A stream still referenced, without a chunk for `stream_max_age`, is abandoned; reading on changes nothing."""
    with capture(aged(0.05)) as captured:
        watchkeep.instrument()
        client = openai.OpenAI(base_url=llm_server.base_url, api_key="x")
        stream = client.chat.completions.create(
            model="gpt-4o", messages=[{"role": "user", "content": "a b c d"}], stream=True
        )
        next(stream)
        assert captured.spans("chat") == []
        time.sleep(0.12)
        (chat,) = captured.spans("chat")
        assert chat.attributes[names.AGENT_RUNTIME_STREAM_OUTCOME] == "abandoned"
        assert chat.status_code == 0
        assert len(list(stream)) > 3
        client.close()
        assert len(captured.spans("chat")) == 1
        phases = {key: value for key, value in chat.attributes.items() if key.startswith("resilience.call.time.")}
        assert sum(round(value * 1e9) for value in phases.values()) == chat.end_ns - chat.start_ns


def test_a_stream_being_read_slowly_is_not_swept(llm_server):
    """A stream whose chunks keep coming is left alone, however long it takes in all."""
    llm_server.plan([{"chunk_delay": 0.03, "chunks": 8}])
    with capture(aged(0.1)) as captured:
        watchkeep.instrument()
        client = openai.OpenAI(base_url=llm_server.base_url, api_key="x")
        for _ in client.chat.completions.create(
            model="gpt-4o", messages=[{"role": "user", "content": "a"}], stream=True
        ):
            captured.spans()
        client.close()
        (chat,) = captured.spans("chat")
        assert chat.attributes[names.AGENT_RUNTIME_STREAM_OUTCOME] == "drained"

"""Bad input: whatever an app passes in or a server answers, the app sees what it sees bare; neighbours are whole."""

from __future__ import annotations

from typing import Any

import pytest

from support.versions import found_by

SCRIPT = "openai_bad_input.py"
# The resource's own method raises before there is a call: nothing is sent, nothing is to be seen.
NO_CALL = frozenset(("argument: hostile messages", "argument: hostile content", "argument: unknown argument"))


@pytest.fixture(params=["sync", "async", "sync --content"])
def cases(request: pytest.FixtureRequest) -> dict[str, Any]:
    """Return every case of one mode, bare and watched; with --content, prompts and answers are recorded too."""
    mode, *options = request.param.split()
    return dict(found_by(SCRIPT, "3", *options)[mode])


def test_the_app_sees_what_it_sees_bare(cases):
    """Results, exceptions and the request's bytes are equal for every hostile argument and every hostile answer."""
    assert len(cases) > 120
    assert {name: case for name, case in cases.items() if case["watched"] != case["bare"]} == {}


def test_no_fault_of_ours_is_provoked(cases):
    """No reader fails on any of them, so that nobody is told to report a bug."""
    assert {name: case["faults"] for name, case in cases.items() if case["faults"]} == {}


def test_the_call_after_it_is_whole(cases):
    """Each hostile call has its span, and so has the ordinary call after it, with its tokens and no error."""
    for name, case in cases.items():
        assert len(case["calls"]) == (1 if name in NO_CALL else 2), name
        assert case["calls"][-1] == {"error.type": None, "gen_ai.usage.input_tokens": 3}, name


def test_what_was_recorded_can_be_sent(cases):
    """Spans, log records and metrics of every case can be encoded."""
    assert all(case["encoded"] > 500 for case in cases.values())


def test_nothing_of_ours_is_printed():
    """No line of ours is on stderr after all that."""
    assert "watchkeep" not in found_by(SCRIPT, "3")["stderr"]

"""A stream's figures follow from its stamps alone."""

import pytest

from watchkeep import names
from watchkeep.integrations.openai import SCOPE
from watchkeep.llm import InferenceCall
from watchkeep.reading import Reading

STAMPS = [0, 10, 15, 35, 40, 41, 100]  # asked at 0, 15, 40, 100; arrived at 10, 35, 41

STREAM = {
    names.GEN_AI_OPERATION_NAME: "chat",
    names.GEN_AI_PROVIDER_NAME: "openai",
    names.GEN_AI_REQUEST_MODEL: "gpt-4o",
    names.GEN_AI_REQUEST_STREAM: True,
}


def figures(reading):
    return reading.chunks, reading.stream, reading.consumer, reading.first, reading.last, reading.gap_max


def test_waiting_and_holding_alternate():
    """Between asking and arrival the stream was waited for, between arrival and asking the consumer held it."""
    reading = Reading()
    reading.take(STAMPS)
    assert figures(reading) == (3, 10 + 20 + 1, 5 + 5 + 59, 10, 41, 25)


def test_a_stream_folded_on_the_way_has_the_same_figures():
    """Summing up early changes nothing, wherever the cut is."""
    whole = Reading(keep_gaps=True)
    whole.take(STAMPS)
    for cut in range(len(STAMPS) + 1):
        folded = Reading(keep_gaps=True).after(STAMPS[: cut // 2 * 2])
        folded = folded.after(STAMPS[cut // 2 * 2 :])
        assert figures(folded) == figures(whole)
        assert folded.gaps == whole.gaps == [25, 6]


def test_a_stream_that_never_answered_has_no_chunk():
    """One asking without an arrival is no chunk, and no time that is not the ledger's."""
    reading = Reading()
    reading.take([7])
    assert figures(reading) == (0, 0, 0, 0, 0, 0)


class Torn(list):
    """Stamps that are looked at while another thread is at work: `meanwhile` is what that one does, `at` when."""

    def __init__(self, stamps, at, meanwhile):
        super().__init__(stamps)
        self.at, self.meanwhile = at, meanwhile

    def _reached(self, point):
        if self.at == point:
            self.at = None
            self.meanwhile()

    def __getitem__(self, key):
        found = super().__getitem__(key)
        self._reached(key)
        return found

    def __delitem__(self, key):
        self._reached("del")
        super().__delitem__(key)


def open_call(at, meanwhile):
    """Return a call whose stream is being read, from 1 ns after it returned."""
    call = InferenceCall(names.INFERENCE, SCOPE, dict(STREAM), "openai")
    call.open()
    call.keep_open()
    begin = call.ledger.mark
    call.ask()
    call.ledger.times["consumer"] -= call.ledger.mark - begin
    call.ledger.mark = begin
    call.stamps = Torn([begin + stamp for stamp in STAMPS], at, lambda: meanwhile(call))
    return call


def adds_up(capture):
    """Return the one call, whose phases are its duration to the nanosecond."""
    (chat,) = capture.spans("chat")
    phases = [value for key, value in chat.attributes.items() if key.startswith("resilience.call.time.")]
    assert sum(round(value * 1e9) for value in phases) == chat.end_ns - chat.start_ns
    return chat


@pytest.mark.parametrize("at", [slice(None, 6, None), "del"])
def test_a_stream_that_ends_while_it_is_folded_counts_nothing_twice(watchkeep_capture, at):
    """The export thread sums up a long stream while the app's thread ends it: figures and ledger stay exact."""
    open_call(at, lambda call: call.end_stream("drained")).fold()
    chat = adds_up(watchkeep_capture)
    assert chat.attributes[names.AGENT_RUNTIME_STREAM_GAP_MAX] == 25e-9
    assert chat.attributes[names.AGENT_RUNTIME_STREAM_GAP_MEAN] == pytest.approx(15.5e-9)


def test_a_stream_that_is_read_on_while_it_ends_adds_up(watchkeep_capture):
    """A sweep or another thread ends the stream while a read returns: what arrives then is no part of it."""
    open_call(slice(0, None, 2), lambda call: call.stamps.append(call.stamps[-1] + 10)).end_stream("abandoned")
    adds_up(watchkeep_capture)

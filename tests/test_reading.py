"""A stream's figures follow from its stamps alone."""

from watchkeep.reading import Reading

STAMPS = [0, 10, 15, 35, 40, 41, 100]  # asked at 0, 15, 40, 100; arrived at 10, 35, 41


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
        stamps, folded = STAMPS[:cut], Reading(keep_gaps=True)
        folded.fold(stamps)
        folded.take(stamps + STAMPS[cut:])
        assert figures(folded) == figures(whole)
        assert folded.gaps == whole.gaps == [25, 6]


def test_a_stream_that_never_answered_has_no_chunk():
    """One asking without an arrival is no chunk, and no time that is not the ledger's."""
    reading = Reading()
    reading.take([7])
    assert figures(reading) == (0, 0, 0, 0, 0, 0)

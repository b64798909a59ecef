"""What is kept of a body that the app reads: enough to tell how it ended and what it cost, within a bound."""

import gzip
import hashlib
import json
import tracemalloc
import zlib

import httpx2
import openai
import pytest

from watchkeep import answer, names
from watchkeep.reads import LIMIT, Reads

MESSAGES = [{"role": "user", "content": "hi"}]
OUTCOME = names.AGENT_RUNTIME_STREAM_OUTCOME
MEGABYTE = 1 << 20
READ = 1 << 16
LINE = b'{"custom_id": "request-1", "response": {"status_code": 200, "body": {"choices": []}}}\n'
PIECE = (LINE * (READ // len(LINE) + 1))[:READ]
PIECES = 800


class Parts(httpx2.SyncByteStream):
    """A body that is made while it is read."""

    def __init__(self, parts):
        self.parts = parts

    def __iter__(self):
        yield from self.parts


def client_of(make, **headers):
    """Return a client whose provider answers with what `make` returns."""

    def answer_with(_):
        return httpx2.Response(200, headers=headers, stream=Parts(make()))

    http = httpx2.Client(transport=httpx2.MockTransport(answer_with))
    return openai.OpenAI(base_url="http://x/v1", api_key="sk", http_client=http)


def download():
    """Return 50 MB of batch results, read by read, none of which is kept here."""
    return (bytes([index % 251]) + PIECE[1:] for index in range(PIECES))


def test_a_large_download_is_not_held(watchkeep_capture):
    """50 MB through the client: the app gets every byte of it, and we hold less than 8 MB meanwhile."""
    client = client_of(download, **{"content-type": "application/jsonl"})
    expected, seen = hashlib.sha256(), hashlib.sha256()
    for part in download():
        expected.update(part)
    tracemalloc.start()
    try:
        with client.files.with_streaming_response.content("file-1") as response:
            tracemalloc.reset_peak()
            before = tracemalloc.get_traced_memory()[0]
            for part in response.iter_bytes():
                seen.update(part)
        assert len(watchkeep_capture.spans("files")) == 1
        assert tracemalloc.get_traced_memory()[1] - before < 8 * MEGABYTE
    finally:
        tracemalloc.stop()
    assert seen.digest() == expected.digest()


def test_a_download_that_is_read_at_once_is_not_held_or_copied(watchkeep_capture):
    """50 MB that the client read whole: dropped by the app, nothing of it stays, and telling of it copies nothing."""
    client = client_of(lambda: (b"\n" + PIECE[1:] for _ in range(PIECES)), **{"content-type": "application/jsonl"})
    tracemalloc.start()
    try:
        size = len(client.files.content("file-1").content)
        tracemalloc.reset_peak()
        assert tracemalloc.get_traced_memory()[0] < 8 * MEGABYTE
        assert len(watchkeep_capture.spans("files")) == 1
        assert tracemalloc.get_traced_memory()[1] < 8 * MEGABYTE
    finally:
        tracemalloc.stop()
    assert size == PIECES * READ


@pytest.mark.parametrize("size", [1, 1000, READ, 7 * MEGABYTE])
def test_what_is_kept_is_bounded_in_bytes(size):
    """However large its reads are, of a body the first and the last are kept, in no more than twice the limit."""
    whole = bytes(range(256)) * (4 * LIMIT // 256)
    if size == 1:
        whole = whole[: LIMIT // 4]  # a byte takes fifty bytes
    reads = Reads()
    tracemalloc.start()
    for start in range(0, len(whole), size):
        reads.append(whole[start : start + size])
    taken = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert taken < 2 * LIMIT
    assert reads.cut
    head, end = b"".join(reads.head), b"".join(reads)
    assert whole.startswith(head)
    assert whole.endswith(end)
    assert min(len(head), len(end)) > LIMIT // 200
    assert reads.kept() == [*reads.head, *reads]


def test_a_body_below_the_limit_is_kept_whole():
    """Half a megabyte is all there, in order."""
    reads, whole = Reads(), bytes(range(256)) * 2048
    for start in range(0, len(whole), 4096):
        reads.append(whole[start : start + 4096])
    assert b"".join(reads.kept()) == whole
    assert not reads.cut


def test_a_long_answer_read_by_the_app_has_its_tokens(watchkeep_capture):
    """What a 3 MB answer cost stands at its end, and its model at its head."""
    text = {"model": "gpt-4o", "text": "x" * 3 * MEGABYTE, "usage": {"prompt_tokens": 7, "completion_tokens": 9}}
    whole = json.dumps(text).encode()
    parts = [whole[start : start + READ] for start in range(0, len(whole), READ)]
    client = client_of(lambda: parts, **{"content-type": "application/json"})
    with client.chat.completions.with_streaming_response.create(model="m", messages=MESSAGES) as response:
        assert b"".join(response.iter_bytes()) == whole
    (chat,) = watchkeep_capture.spans("chat")
    assert chat.attributes[names.GEN_AI_USAGE_OUTPUT_TOKENS] == 9
    assert chat.attributes[names.GEN_AI_RESPONSE_MODEL] == "gpt-4o"


# -- encoded bodies ----------------------------------------------------------------------------------------------


def event(**more):
    return f"data: {json.dumps({'id': 'c', 'model': 'gpt-4o', 'choices': [], **more})}\n\n".encode()


WORD = event(choices=[{"index": 0, "delta": {"content": "word "}, "finish_reason": None}])
USAGE = event(usage={"prompt_tokens": 7, "completion_tokens": 9})
DONE = b"data: [DONE]\n\n"
ERROR = b'data: {"error": {"message": "overloaded", "type": "server_error"}}\n\n'


def encoded(*events):
    """Return events as gzip, each in a read of its own, the trailer last."""
    packer = zlib.compressobj(wbits=31)
    parts = [packer.compress(each) + packer.flush(zlib.Z_SYNC_FLUSH) for each in events]
    return [*parts, packer.flush()]


def stream_of(*events):
    client = client_of(lambda: encoded(*events), **{"content-type": "text/event-stream", "content-encoding": "gzip"})
    return client.chat.completions.create(model="gpt-4o", messages=MESSAGES, stream=True)


@pytest.mark.parametrize("words", [3, 5_000])
def test_an_encoded_stream_that_the_client_ends_is_drained(watchkeep_capture, words):
    """The client stops at [DONE], before the encoding ends: the stream was drained, and its tokens are known."""
    assert len(list(stream_of(*[WORD] * words, USAGE, DONE))) == words + 1
    (chat,) = watchkeep_capture.spans("chat")
    assert chat.attributes[OUTCOME] == "drained"
    assert chat.attributes[names.GEN_AI_USAGE_OUTPUT_TOKENS] == 9


def test_an_encoded_stream_that_the_app_leaves_is_closed_early(watchkeep_capture):
    """Without its end it is not drained."""
    stream = stream_of(WORD, WORD, USAGE, DONE)
    next(stream)
    stream.close()
    (chat,) = watchkeep_capture.spans("chat")
    assert chat.attributes[OUTCOME] == "closed_early"


def test_an_encoded_stream_says_that_the_call_failed(watchkeep_capture):
    """An error event inside an encoding is the provider's failure, as it is without."""
    with pytest.raises(openai.APIError):
        list(stream_of(WORD, ERROR))
    (chat,) = watchkeep_capture.spans("chat")
    assert chat.attributes[names.ERROR_TYPE] == names.ERROR_EVENT
    assert chat.attributes[names.RESILIENCE_FAULT_ORIGIN] == names.PROVIDER
    assert chat.attributes[OUTCOME] == "failed"


def test_decoding_is_bounded():
    """A megabyte of gzip may hold a gigabyte: only the begin of it is decoded, and no more is kept than of any body."""
    bomb = gzip.compress(b"\0" * 200 * MEGABYTE)
    tracemalloc.start()
    assert len(answer.plain([bomb])) <= 2 * LIMIT
    assert tracemalloc.get_traced_memory()[1] < 8 * MEGABYTE
    tracemalloc.stop()


def test_what_is_no_gzip_stays_as_it_is():
    """A body says itself what it is, whatever its headers say; a broken one gives what could be decoded."""
    assert answer.plain([b"data: ", b"x"]) == b"data: x"
    whole = gzip.compress(b"y" * 1000)
    assert answer.plain([whole[:-9]]).startswith(b"y")
    assert answer.plain([whole[:8] + b"\xff" * 20]) == b""


# -- the last events of a stream ---------------------------------------------------------------------------------


def chunk(reason, usage=None, separators=(",", ":")):
    choices = [{"index": 0, "delta": {"content": "w"}, "finish_reason": reason}]
    data = {"id": "chatcmpl-7", "model": "gpt-4o-mini", "usage": usage, "choices": choices}
    return f"data: {json.dumps(data, separators=separators)}\n\n".encode()


COUNTED = {"prompt_tokens": 7, "completion_tokens": 9}
ENDINGS = {
    "finished and counted": ([chunk(None), chunk("stop"), chunk(None, COUNTED), DONE], ["stop"], 9),
    "finished": ([chunk(None), chunk("length"), DONE], ["length"], None),
    "finished, then silence": ([chunk("stop"), chunk(None), chunk(None), chunk(None)], ["stop"], None),
    "with spaces": ([chunk(None, None, (", ", ": ")), chunk("stop", COUNTED, (", ", ": ")), DONE], ["stop"], 9),
    "counted all along": ([chunk(None, {"completion_tokens": n}) for n in (1, 2, 3)], None, 3),
    "cut": ([chunk(None), chunk(None), chunk(None)[:-30]], None, None),
    "nothing": ([DONE], None, None),
}


@pytest.mark.parametrize("ending", ENDINGS)
def test_the_last_events_say_how_an_answer_ended(watchkeep_capture, ending):
    """Finish reason, tokens and model come from whichever of the last events say them."""
    parts, reasons, tokens = ENDINGS[ending]
    client = client_of(lambda: parts, **{"content-type": "text/event-stream"})
    asked = client.chat.completions.with_streaming_response
    with asked.create(model="m", messages=MESSAGES, stream=True) as response:
        assert b"".join(response.iter_bytes()) == b"".join(parts)
    (chat,) = watchkeep_capture.spans("chat")
    assert chat.attributes.get(names.GEN_AI_RESPONSE_FINISH_REASONS) == reasons
    assert chat.attributes.get(names.GEN_AI_USAGE_OUTPUT_TOKENS) == tokens
    assert chat.attributes.get(names.GEN_AI_RESPONSE_MODEL) == (None if ending == "nothing" else "gpt-4o-mini")

"""Decode what the SDK left as bytes: raw answers, and the end of every event stream. Runs off the request path.

An event stream is never decoded a second time: its last reads hold what it cost and how it ended.
"""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Iterable
from typing import TYPE_CHECKING

from watchkeep import names
from watchkeep.reads import Reads

if TYPE_CHECKING:
    from watchkeep.llm import LLMCall

MAX_DECODED = 1 << 18  # bytes of an answer that are parsed
MAX_TAIL = 1 << 16  # bytes at the end of an answer in which its usage is looked for
_USAGE = re.compile(rb"""(?<!\\)"usage"\s*:\s*\{""")
_MODEL = re.compile(rb'(?<!\\)"model"\s*:\s*"([\w.:/@-]{1,200})"')
_UNFINISHED = (b'"finish_reason":null', b'"finish_reason": null')
_COUNTED = (b'"usage":{', b'"usage": {')
_GZIP = b"\x1f\x8b"
_MOST_ENCODED = 1 << 22  # bytes that are made of an encoded body: the work is a few milliseconds
_STEP = 1 << 16


def read_body(call: LLMCall) -> None:
    """Hand what is in the body of `call` to its reader, as decoded JSON."""
    parts, call.body = call.body, None
    content = plain(parts or ())
    if call.usage is not None or call.read_answer is None:
        return
    if content[:1] in (b"{", b"["):
        _read_json(call, content)
    else:
        lines = content.splitlines()
        _read_events(call, [line[5:] for line in lines if line.startswith(b"data:") and b"{" in line])
    if call.usage is None:
        _read_usage(call, content)


def _read_events(call: LLMCall, events: list[bytes]) -> None:
    # Decoding is what costs: where the text is not wanted, events that carry nothing but a piece of it are passed over.
    told = events
    if call.kept is None and names.GEN_AI_REQUEST_CHOICE_COUNT not in call.attributes:
        told = [event for event in events if not _goes_on(event)]
    for event in told:
        _read_json(call, event)
    if not call.facts:  # what is said of the answer itself stands in every event
        for event in events[:1]:
            _read_json(call, event)


def _goes_on(event: bytes) -> bool:
    return (_UNFINISHED[0] in event or _UNFINISHED[1] in event) and not (_COUNTED[0] in event or _COUNTED[1] in event)


def _read_usage(call: LLMCall, content: bytes) -> None:
    # An answer too large to be decoded, or whose head was not kept: its usage stands near its end. Inside a
    # text of the answer the quotes would be escaped.
    found = list(_USAGE.finditer(content, max(0, len(content) - MAX_TAIL)))
    if not found or call.read_answer is None:
        return
    text = content[found[-1].end() - 1 :].decode("utf-8", "replace")
    try:
        usage, _ = json.JSONDecoder().raw_decode(text)
    except (ValueError, RecursionError):
        return
    model = _MODEL.search(content)
    call.read_answer(call, {"usage": usage, "model": model[1].decode() if model else None})


def plain(parts: Iterable[bytes]) -> bytes:
    """Return what a body says, decoded where it is gzip: of a long one its head and its end, as far as it is there."""
    content = b"".join(parts)
    if content[:2] != _GZIP:
        return content
    made, decoder = Reads(), zlib.decompressobj(wbits=31)
    left = _MOST_ENCODED
    try:
        for start in range(0, len(content), _STEP):
            piece = content[start : start + _STEP]
            while piece and left > 0:
                part = decoder.decompress(piece, _STEP)
                piece = decoder.unconsumed_tail
                left -= len(part)
                made.append(part)
        if left > 0:
            made.append(decoder.flush())
    except zlib.error:
        pass  # what came before the fault is good
    return b"".join(made.kept())


def _read_json(call: LLMCall, content: bytes) -> None:
    if len(content) > MAX_DECODED or call.read_answer is None:
        return
    try:
        data = json.loads(content)
    except (ValueError, RecursionError):
        return  # what is called JSON need not be it, and the first event of a tail may be half of one
    if isinstance(data, dict):
        call.read_answer(call, data)

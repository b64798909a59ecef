"""A local OpenAI-compatible server whose faults are scripted, one request at a time.

Standard library only, loopback only. As a program:

    python examples/llm_server.py --port 0 --plan plan.json --log answers.jsonl

prints one line, its URL, when it is ready (for an OpenAI client: OPENAI_BASE_URL=$URL/v1). In a test:

    with LLMServer(plan=["429", "ok"]) as server:
        client = OpenAI(base_url=server.base_url, api_key="x")
        ...
        assert [entry.status for entry in server.log] == [429, 200]

**A plan** says what happens to each request. It is a list of steps, or an object:

    {"steps": [step, ...],     consumed one per request, in order of arrival
     "default": step,          for every request after the steps are used up
     "answer": {...},          step fields that lie under every step (text, usage, chunks, ...)
     "rules": [{"match": {"system": "developer", "user": "Sprint 2"},
                "steps": [...], "default": step, "answer": {...}}]}

The first rule that matches and has a step left (or a default) decides; else the plan's own steps and default
do. The `answer` of every matching rule lies under the step, the first rule on top. `match` is a substring of
the last user or system message or of the model, or an object of substrings by `system`, `user`, `last` (any
role), `model`, `path`, and, exact, `role` (of the last message: user, tool, assistant).

**A step** is a number (a status), a name in PRESETS, or an object with the fields of `Step`; `times` repeats
it. Answers are deterministic: an echo of the last message, tokens counted in words.

At run time: POST /__plan (a plan), GET /__log (a list; `?wait=1` until nothing is in flight), POST /__reset
(empty the log, start the plan again). These three are not logged and consume no step.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import itertools
import json
import re
import selectors
import signal
import socket
import struct
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, fields
from functools import partial
from http import HTTPStatus
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import urlsplit

CREATED = 1_700_000_000  # fixed, so that two runs answer alike
ECHO_WORDS = 40
MALFORMED = (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError)
OVERFLOW = {
    "message": "This model's maximum context length is 8192 tokens. Please reduce your messages.",
    "type": "invalid_request_error",
    "param": "messages",
    "code": "context_length_exceeded",
}
PRESETS: dict[str, dict[str, Any]] = {
    "ok": {},
    "drop": {"drop": "before"},
    "reset": {"drop": "before", "reset": True},
    "cut": {"drop": "middle"},
    "cut_reset": {"drop": "middle", "reset": True},
    "stall": {"stall": 10.0},
    "overflow": {"status": 400, "body": {"error": OVERFLOW}},
    "redirect": {"redirect": True},
    "error_event": {"error": "The server had an error while processing your request."},
}
ERRORS = {
    400: ("invalid_request_error", None),
    401: ("invalid_request_error", "invalid_api_key"),
    403: ("permission_error", None),
    404: ("invalid_request_error", "not_found"),
    429: ("requests", "rate_limit_exceeded"),
}


# --- the plan -------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Step:
    """What is done with one request; a field left out means an ordinary answer."""

    name: str = ""  # in the log; made from the other fields when empty
    # how it is answered
    status: int = 200
    body: Any = None  # instead of the usual body: a string as it is, anything else as JSON
    headers: dict[str, str] = field(default_factory=dict)
    retry_after: float | str | None = None  # header retry-after (s, or an HTTP date)
    retry_after_ms: float | None = None
    should_retry: bool | None = None  # header x-should-retry
    ratelimit: dict[str, Any] = field(default_factory=dict)  # {"limit-tokens": 9}: x-ratelimit-limit-tokens
    redirect: bool | str = False  # 307 to itself, or to this location
    # when
    delay: float = 0.0  # s before the headers
    body_delay: float = 0.0  # s between headers and body
    chunk_delay: float = 0.0  # s between two events of a stream
    # how it goes wrong on the wire
    drop: str = ""  # "before" the answer, or in the "middle" of it
    reset: bool = False  # drop by RST instead of FIN
    stall: float = 0.0  # s in the middle without a byte, then dropped
    error: str | dict[str, Any] | None = None  # an error event in the middle of a stream, which then ends
    failed: bool = False  # that event is response.failed (Responses only)
    after: int | None = None  # the middle: events of a stream, bytes of a plain body; half when left out
    # what it says
    text: str | None = None
    refusal: str | None = None
    tool_calls: list[dict[str, Any]] | None = None  # [{"name": "search", "arguments": {"q": "x"}}, ...]
    finish: str | None = None  # finish_reason: "length", "content_filter"
    chunks: int | None = None  # pieces of text in a stream; one word each when left out
    usage: dict[str, int] | bool = True  # {"prompt", "completion", "cached", "reasoning"}; false: none


STEP_FIELDS = frozenset(f.name for f in fields(Step))
MATCH_FIELDS = frozenset({"system", "user", "last", "model", "path", "role", "any"})


def step_fields(step: Any) -> dict[str, Any]:
    """The fields of a step as it is written in a plan: a status, a preset or an object."""
    if isinstance(step, int) or (isinstance(step, str) and step.isdigit()):
        return {"name": str(step), "status": int(step)}
    if isinstance(step, str):
        if step not in PRESETS:
            raise ValueError(f"unknown step {step!r}: a status or one of {', '.join(PRESETS)}")
        return {"name": step, **PRESETS[step]}
    if not isinstance(step, dict):
        raise ValueError(f"a step is a status, a name or an object, not {step!r}")
    known(step, STEP_FIELDS | {"times"}, "step")
    return dict(step)


def known(written: dict[str, Any], names: frozenset[str], what: str) -> None:
    if unknown := set(written) - names:
        told = ", ".join(sorted(names))
        raise ValueError(f"unknown {what} field {', '.join(sorted(unknown))}: known are {told}")


def step_list(steps: Sequence[Any]) -> list[dict[str, Any]]:
    written = [step_fields(step) for step in steps]
    return [step for each in written for step in [each] * each.pop("times", 1)]


def step_name(step: Step) -> str:
    wire = step.drop and f"drop_{step.drop}"
    return step.name or wire or ("stall" if step.stall else "error_event" if step.error else "") or (
        "redirect" if step.redirect else "ok" if step.status == 200 else str(step.status)
    )


class Rule:
    """Steps for the requests that match; a plan is a list of rules whose last one matches everything."""

    def __init__(
        self, match: Any = None, steps: Sequence[Any] = (), default: Any = None, answer: Any = None
    ) -> None:
        self.match = match if isinstance(match, dict) else {"any": match} if match else {}
        known(self.match, MATCH_FIELDS, "match")
        self.steps = step_list(steps)
        self.default = None if default is None else step_fields(default)
        self.answer = step_fields(answer or {})
        self.used = 0

    def fits(self, ask: Ask) -> bool:
        return all(self._has(ask, key, text) for key, text in self.match.items())

    def _has(self, ask: Ask, key: str, text: str) -> bool:
        if key == "role":
            return ask.role == text
        if key == "any":
            return any(text in each for each in (ask.user, ask.system, ask.model))
        return text in getattr(ask, key)

    def take(self) -> dict[str, Any] | None:
        if self.used < len(self.steps):
            self.used += 1
            return self.steps[self.used - 1]
        return self.default


class Plan:
    """What happens to each request, in order; the server takes one step at a time."""

    def __init__(
        self, steps: Sequence[Any] = (), default: Any = "ok", answer: Any = None, rules: Sequence[Any] = ()
    ) -> None:
        self.rules = [rule if isinstance(rule, Rule) else Rule(**rule) for rule in rules]
        self.rules.append(Rule(None, steps, default, answer))

    @classmethod
    def read(cls, plan: Any) -> Plan:
        """A plan from a Plan, a list of steps, an object, a path of a JSON file, or None."""
        if isinstance(plan, Plan):
            return plan
        if isinstance(plan, str | Path):
            plan = json.loads(Path(plan).read_text("utf-8"))
        try:
            return cls(**plan) if isinstance(plan, dict) else cls(plan or [])
        except TypeError as error:
            raise ValueError(f"not a plan: {error}") from None

    def take(self, ask: Ask) -> Step:
        matching = [rule for rule in self.rules if rule.fits(ask)]
        step = next((step for rule in matching if (step := rule.take()) is not None), {})
        merged: dict[str, Any] = {}
        for rule in reversed(matching):
            merged |= rule.answer
        return Step(**merged | step)

    def rewind(self) -> None:
        for rule in self.rules:
            rule.used = 0


# --- what is asked, what is answered --------------------------------------------------------------------


@dataclass(slots=True)
class Request:
    """One HTTP request as it came in."""

    method: str
    path: str
    headers: list[tuple[str, str]]
    body: bytes
    connection: int
    arrived: float

    def header(self, name: str) -> str:
        return next((value for key, value in self.headers if key.lower() == name), "")


class Ask:
    """What an LLM request says, whichever end point it was sent to."""

    def __init__(self, path: str, deployment: str = "", body: Any = None) -> None:
        self.path = path
        self.body: dict[str, Any] = body if isinstance(body, dict) else {}
        self.model = str(self.body.get("model") or deployment or "gpt-4o-mini")
        self.stream = bool(self.body.get("stream"))
        self.messages = list(_messages(self.body))
        self.system = self._last("system", "developer")
        self.user = self._last("user")
        self.role, self.last = self.messages[-1] if self.messages else ("", "")

    def _last(self, *roles: str) -> str:
        return next((text for role, text in reversed(self.messages) if role in roles), "")

    def words(self) -> int:
        return sum(len(text.split()) for _, text in self.messages)

    def schema(self) -> dict[str, Any] | None:
        """The JSON schema the answer must follow; an empty one for plain JSON mode."""
        wanted = self.body.get("response_format") or (self.body.get("text") or {}).get("format") or {}
        if wanted.get("type") == "json_object":
            return {}
        if wanted.get("type") == "json_schema":
            return wanted.get("schema") or wanted.get("json_schema", {}).get("schema") or {}
        return None

    def forced_tool(self) -> dict[str, Any] | None:
        """The tool that `tool_choice` demands."""
        tools = [tool.get("function", tool) for tool in self.body.get("tools") or []]
        choice = self.body.get("tool_choice")
        if isinstance(choice, dict):
            name = choice.get("function", choice).get("name")
            return next((tool for tool in tools if tool.get("name") == name), None)
        return tools[0] if choice == "required" and tools else None


def _messages(body: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Role and text of everything the request says, in order."""
    if body.get("instructions"):
        yield "system", str(body["instructions"])
    items = body.get("messages") or body.get("input") or []
    if isinstance(items, str):
        items = [{"role": "user", "content": items}]
    for item in items:
        if isinstance(item, dict):
            called = item.get("type") == "function_call_output"
            role = "tool" if called else str(item.get("role") or "assistant")
            yield role, _text(item.get("output") if called else item.get("content"))
        else:  # embeddings: texts or token numbers
            yield "user", " ".join(map(str, item)) if isinstance(item, list) else str(item)


def _text(content: Any) -> str:
    if isinstance(content, list):
        return " ".join(_text(part.get("text")) for part in content if isinstance(part, dict))
    return content if isinstance(content, str) else ""


@dataclass(slots=True)
class Reply:
    """What is answered, in no end point's own words."""

    serial: int
    text: str
    pieces: list[str]
    refusal: str | None
    calls: list[dict[str, str]]
    finish: str
    usage: dict[str, int] | None

    def item(self, kind: str, index: int = 0) -> str:
        """The id of a part: made from its content, because an agent sends it back in its next request."""
        said = json.dumps([kind, index, self.text, self.calls])
        return f"{kind}_{hashlib.sha256(said.encode()).hexdigest()[:24]}"


def reply_to(ask: Ask, step: Step, serial: int) -> Reply:
    calls = _calls(ask, step)
    text = step.text if step.text is not None else "" if calls else _default_text(ask, step)
    pieces = _split(text, step.chunks)
    finish = step.finish or ("tool_calls" if calls else "stop")
    return Reply(serial, text, pieces, step.refusal, calls, finish, _usage(ask, step, text, calls))


def _calls(ask: Ask, step: Step) -> list[dict[str, str]]:
    wanted = step.tool_calls
    if wanted is None:
        forced = ask.forced_tool()
        schema = (forced or {}).get("parameters") or {}
        wanted = [{"name": forced["name"], "arguments": _instance(schema)}] if forced else []
    return [{"name": call["name"], "arguments": _as_json(call.get("arguments", {}))} for call in wanted]


def _as_json(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _default_text(ask: Ask, step: Step) -> str:
    schema = ask.schema()
    if schema is not None:
        return json.dumps(_instance(schema, root=schema) if schema else {"answer": ask.last[:200]})
    words = ["Echo:", *ask.last.split()[:ECHO_WORDS]]
    return " ".join(itertools.islice(itertools.cycle(words), step.chunks or len(words)))


def _split(text: str, count: int | None) -> list[str]:
    """The text in `count` pieces (or fewer, when it has fewer letters); in words when count is left out."""
    words = re.findall(r"\s*\S+|\s+\Z", text)
    if count is None:
        return words
    units = words if len(words) >= count else list(text)
    bounds = [index * len(units) // count for index in range(count + 1)]
    return [piece for low, high in itertools.pairwise(bounds) if (piece := "".join(units[low:high]))]


def _usage(ask: Ask, step: Step, text: str, calls: list[dict[str, str]]) -> dict[str, int] | None:
    if step.usage is False:
        return None
    spoken = len(text.split()) + sum(1 + len(call["arguments"].split()) for call in calls)
    spoken *= int(ask.body.get("n") or 1)
    usage = {"prompt": ask.words(), "completion": spoken, "cached": 0, "reasoning": 0}
    usage |= step.usage if isinstance(step.usage, dict) else {}
    return usage | {"total": usage["prompt"] + usage["completion"]}


def _instance(schema: dict[str, Any], root: dict[str, Any] | None = None, depth: int = 0) -> Any:
    """The plainest value that a JSON schema allows; deep down lists are empty and optional parts null."""
    root = root or schema
    if "$ref" in schema:
        target: Any = root
        for part in schema["$ref"].lstrip("#/").split("/"):
            target = target.get(part, {})
        return _instance(target, root, depth + 1)
    if "const" in schema or "enum" in schema:
        return schema.get("const", schema.get("enum", [None])[0])
    choices = schema.get("anyOf") or schema.get("oneOf")
    if choices:
        plain = [choice for choice in choices if choice.get("type") != "null"]
        return None if depth > 4 and len(plain) < len(choices) else _instance(plain[0], root, depth + 1)
    if schema.get("allOf"):
        return _instance(schema["allOf"][0], root, depth + 1)
    kind = schema.get("type") or ("object" if "properties" in schema else "string")
    kind = kind[0] if isinstance(kind, list) else kind
    if kind == "object":
        return {key: _instance(value, root, depth + 1) for key, value in schema.get("properties", {}).items()}
    if kind == "array":
        return [] if depth > 4 else [_instance(schema.get("items") or {}, root, depth + 1)]
    number = schema.get("minimum", 1)
    return {"string": "text", "integer": int(number), "number": float(number), "boolean": True}.get(kind)


# --- the end points -------------------------------------------------------------------------------------


@dataclass(slots=True)
class Wire:
    """An answer in an end point's own words: the plain body, and the same as events of a stream."""

    plain: Any
    events: list[dict[str, Any]] = field(default_factory=list)
    named: bool = False  # each event carries an `event:` line with its type
    failure: Callable[[dict[str, Any], bool], dict[str, Any]] = lambda error, failed: {"error": error}  # noqa: ARG005

    def frames(self, step: Step) -> list[dict[str, Any]]:
        """The events to send; an error event takes the place of the rest."""
        if step.error is None:
            return self.events
        error = {"message": step.error, "type": "server_error", "param": None, "code": "server_error"}
        error = step.error if isinstance(step.error, dict) else error
        kept = self.events[: middle(step, len(self.events))]
        event = self.failure(error, step.failed)
        return [*kept, _numbered(event, len(kept)) if self.named else event]

    def bytes(self, event: dict[str, Any]) -> bytes:
        head = f"event: {event['type']}\n" if self.named else ""
        return f"{head}data: {json.dumps(event, separators=(',', ':'))}\n\n".encode()


def middle(step: Step, length: int) -> int:
    return min(length, length // 2 if step.after is None else step.after)


def _numbered(event: dict[str, Any], number: int) -> dict[str, Any]:
    return {**event, "sequence_number": number}


def chat(ask: Ask, reply: Reply) -> Wire:
    count = int(ask.body.get("n") or 1)
    common = {"id": f"chatcmpl-{reply.serial:06d}", "created": CREATED, "model": ask.model}
    choice = {"message": _chat_message(reply), "logprobs": None, "finish_reason": reply.finish}
    choices = [{"index": index, **choice} for index in range(count)]
    plain = {**common, "object": "chat.completion", "choices": choices}
    if reply.usage:
        plain["usage"] = _chat_usage(reply.usage)
    return Wire(plain, list(_chat_events(ask, reply, common, count)) if ask.stream else [])


def _chat_message(reply: Reply) -> dict[str, Any]:
    content = None if reply.refusal is not None or (reply.calls and not reply.text) else reply.text
    message = {"role": "assistant", "content": content, "refusal": reply.refusal, "annotations": []}
    if reply.calls:
        message["tool_calls"] = [_chat_call(reply, index) for index in range(len(reply.calls))]
    return message


def _chat_call(reply: Reply, index: int) -> dict[str, Any]:
    return {"id": reply.item("call", index), "type": "function", "function": dict(reply.calls[index])}


def _chat_usage(usage: dict[str, int]) -> dict[str, Any]:
    return {
        "prompt_tokens": usage["prompt"],
        "completion_tokens": usage["completion"],
        "total_tokens": usage["total"],
        "prompt_tokens_details": {"cached_tokens": usage["cached"], "audio_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": usage["reasoning"], "audio_tokens": 0},
    }


def _chat_events(ask: Ask, reply: Reply, common: dict[str, Any], count: int) -> Iterator[dict[str, Any]]:
    asked = bool((ask.body.get("stream_options") or {}).get("include_usage"))
    base = {**common, "object": "chat.completion.chunk", **({"usage": None} if asked else {})}
    for delta, finish in [*((delta, None) for delta in _chat_deltas(reply)), ({}, reply.finish)]:
        for index in range(count):
            choice = {"index": index, "delta": delta, "logprobs": None, "finish_reason": finish}
            yield {**base, "choices": [choice]}
    if asked and reply.usage:
        yield {**base, "choices": [], "usage": _chat_usage(reply.usage)}


def _chat_deltas(reply: Reply) -> Iterator[dict[str, Any]]:
    yield {"role": "assistant", "content": None if reply.calls else "", "refusal": None}
    if reply.refusal is not None:
        yield {"refusal": reply.refusal}
        return
    for piece in reply.pieces:
        yield {"content": piece}
    for index, call in enumerate(reply.calls):
        started = {**_chat_call(reply, index), "function": {"name": call["name"], "arguments": ""}}
        yield {"tool_calls": [{"index": index, **started}]}
        for piece in _split(call["arguments"], 2):
            yield {"tool_calls": [{"index": index, "function": {"arguments": piece}}]}


def responses(ask: Ask, reply: Reply) -> Wire:
    output = _response_output(reply)
    short = reply.finish in ("length", "content_filter")
    begun = {
        "id": f"resp_{reply.serial:06d}",
        "object": "response",
        "created_at": CREATED,
        "status": "in_progress",
        "error": None,
        "incomplete_details": None,
        "instructions": ask.body.get("instructions"),
        "metadata": ask.body.get("metadata") or {},
        "model": ask.model,
        "output": [],
        "parallel_tool_calls": ask.body.get("parallel_tool_calls", True),
        "previous_response_id": ask.body.get("previous_response_id"),
        "temperature": ask.body.get("temperature", 1.0),
        "text": ask.body.get("text") or {"format": {"type": "text"}},
        "tool_choice": ask.body.get("tool_choice") or "auto",
        "tools": ask.body.get("tools") or [],
        "top_p": ask.body.get("top_p", 1.0),
        "truncation": "disabled",
        "usage": None,
    }
    plain = {**begun, "status": "incomplete" if short else "completed", "output": output}
    if short:
        reason = "max_output_tokens" if reply.finish == "length" else "content_filter"
        plain["incomplete_details"] = {"reason": reason}
    if reply.usage:
        plain["usage"] = _response_usage(reply.usage)
    events = _response_events(reply, begun, plain, output) if ask.stream else ()
    numbered = [_numbered(event, number) for number, event in enumerate(events)]
    return Wire(plain, numbered, named=True, failure=partial(_failure, begun))


def _failure(begun: dict[str, Any], error: dict[str, Any], failed: bool) -> dict[str, Any]:
    if failed:
        told = {"code": error.get("code") or "server_error", "message": error.get("message", "")}
        return {"type": "response.failed", "response": {**begun, "status": "failed", "error": told}}
    return {"type": "error", "param": None, **{key: error.get(key) for key in ("code", "message")}}


def _response_output(reply: Reply) -> list[dict[str, Any]]:
    output: list[dict[str, Any]] = []
    if reply.text or reply.refusal is not None or not reply.calls:
        part = {"type": "output_text", "annotations": [], "logprobs": [], "text": reply.text}
        part = part if reply.refusal is None else {"type": "refusal", "refusal": reply.refusal}
        head = {"id": reply.item("msg"), "type": "message", "status": "completed", "role": "assistant"}
        output.append({**head, "content": [part]})
    for index, call in enumerate(reply.calls):
        ids = {"id": reply.item("fc", index), "call_id": reply.item("call", index)}
        output.append({"type": "function_call", "status": "completed", **ids, **call})
    return output


def _response_usage(usage: dict[str, int]) -> dict[str, Any]:
    return {
        "input_tokens": usage["prompt"],
        "input_tokens_details": {"cached_tokens": usage["cached"], "cache_write_tokens": 0},
        "output_tokens": usage["completion"],
        "output_tokens_details": {"reasoning_tokens": usage["reasoning"]},
        "total_tokens": usage["total"],
    }


def _response_events(
    reply: Reply, begun: dict[str, Any], plain: dict[str, Any], output: list[dict[str, Any]]
) -> Iterator[dict[str, Any]]:
    yield {"type": "response.created", "response": begun}
    yield {"type": "response.in_progress", "response": begun}
    for index, item in enumerate(output):
        where = {"output_index": index}
        empty = {"content": []} if item["type"] == "message" else {"arguments": ""}
        added = {**item, **empty, "status": "in_progress"}
        yield {"type": "response.output_item.added", **where, "item": added}
        yield from _item_events(reply, item, {**where, "item_id": item["id"]})
        yield {"type": "response.output_item.done", **where, "item": item}
    yield {"type": f"response.{plain['status']}", "response": plain}


def _item_events(reply: Reply, item: dict[str, Any], where: dict[str, Any]) -> Iterator[dict[str, Any]]:
    if item["type"] == "function_call":
        for piece in _split(item["arguments"], 2):
            yield {"type": "response.function_call_arguments.delta", **where, "delta": piece}
        told = {"name": item["name"], "arguments": item["arguments"]}
        yield {"type": "response.function_call_arguments.done", **where, **told}
        return
    (part,) = item["content"]
    key = "text" if reply.refusal is None else "refusal"
    kind, pieces = ("output_text", reply.pieces) if reply.refusal is None else ("refusal", [reply.refusal])
    where = {**where, "content_index": 0}
    extra = {"logprobs": []} if reply.refusal is None else {}
    yield {"type": "response.content_part.added", **where, "part": {**part, key: ""}}
    for piece in pieces:
        yield {"type": f"response.{kind}.delta", **where, "delta": piece, **extra}
    yield {"type": f"response.{kind}.done", **where, key: part[key], **extra}
    yield {"type": "response.content_part.done", **where, "part": part}


def embeddings(ask: Ask, reply: Reply) -> Wire:
    size = int(ask.body.get("dimensions") or 16)
    given = ask.body.get("input")
    flat = isinstance(given, list) and bool(given) and isinstance(given[0], int)
    inputs = given if isinstance(given, list) and not flat else [given]
    vectors = [_vector(json.dumps(each), size) for each in inputs]
    packed = ask.body.get("encoding_format") == "base64"
    data = [
        {
            "object": "embedding",
            "index": index,
            "embedding": base64.b64encode(struct.pack(f"<{size}f", *vector)).decode() if packed else vector,
        }
        for index, vector in enumerate(vectors)
    ]
    plain: dict[str, Any] = {"object": "list", "data": data, "model": ask.model}
    if reply.usage:
        reply.usage |= {"completion": 0, "total": reply.usage["prompt"]}
        plain["usage"] = {"prompt_tokens": reply.usage["prompt"], "total_tokens": reply.usage["total"]}
    return Wire(plain)


def _vector(text: str, size: int) -> list[float]:
    """Numbers between -1 and 1 that float32 holds exactly, so that both encodings say the same."""
    digest = hashlib.shake_256(text.encode()).digest(size)
    return [(byte - 128) / 128 for byte in digest]


MODELS = ("gpt-4o", "gpt-4o-mini", "gpt-5-mini", "text-embedding-3-small")


def models(ask: Ask, reply: Reply) -> Wire:
    reply.usage = None
    known = [{"id": name, "object": "model", "created": CREATED, "owned_by": "local"} for name in MODELS]
    name = ask.path.partition("/models/")[2]
    return Wire({**known[0], "id": name} if name else {"object": "list", "data": known})


# Every end point is one line here: method, path behind the prefix, and the function that words the answer.
# The prefix is /v1, nothing, or Azure's (which names the model).
PREFIX = re.compile(r"/openai/deployments/(?P<deployment>[^/]+)|/openai/v1|/openai|/v1|")
ROUTES: tuple[tuple[str, re.Pattern[str], Callable[[Ask, Reply], Wire]], ...] = (
    ("POST", re.compile(r"/chat/completions"), chat),
    ("POST", re.compile(r"/responses"), responses),
    ("POST", re.compile(r"/embeddings"), embeddings),
    ("GET", re.compile(r"/models(/.+)?"), models),
)


def route(method: str, path: str) -> tuple[Callable[[Ask, Reply], Wire] | None, str]:
    """The function that answers a path, and the model that the path names."""
    prefix = PREFIX.match(path)
    deployment, rest = (prefix["deployment"] or "", path[prefix.end() :]) if prefix else ("", path)
    found = (answer for verb, pattern, answer in ROUTES if verb == method and pattern.fullmatch(rest))
    return next(found, None), deployment


def error_body(status: int) -> dict[str, Any]:
    kind, code = ERRORS.get(status, ("server_error" if status >= 500 else "invalid_request_error", None))
    return {"error": {"message": f"{phrase(status)} (scripted)", "type": kind, "param": None, "code": code}}


def phrase(status: int) -> str:
    return HTTPStatus(status).phrase if status in HTTPStatus._value2member_map_ else "Scripted"


# --- the log --------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Entry:
    """One request and what became of it; written as it happens, complete once `ended` is set."""

    serial: int
    connection: int  # which connection it came on, from 1
    arrived: float  # time.monotonic() when the whole request was there
    method: str
    path: str  # with its query
    headers: list[tuple[str, str]]  # in order, in the sender's case
    body: bytes
    step: str
    status: int | str = "dropped"  # what was sent; "dropped" when nothing was
    outcome: str = "answered"  # or dropped, cut (in the middle), stalled, aborted (by the client)
    response_id: str = ""
    usage: dict[str, int] | None = None  # prompt, completion, cached, reasoning, total; None: not sent
    chunks: int = 0  # events sent in a stream, [DONE] not counted
    # s of scripted waiting: before the body was read, before the headers, after them
    imposed: dict[str, float] = field(default_factory=lambda: {"read": 0.0, "head": 0.0, "body": 0.0})
    answered: float | None = None  # time.monotonic() when the headers were sent
    ended: float | None = None

    def as_json(self) -> dict[str, Any]:
        told = {each.name: getattr(self, each.name) for each in fields(self) if each.name != "body"}
        try:
            return {**told, "body": self.body.decode()}
        except UnicodeDecodeError:
            return {**told, "body_base64": base64.b64encode(self.body).decode()}


# --- the wire -------------------------------------------------------------------------------------------


class GoneError(Exception):
    """The connection is to end here: the client went away, or the step says so."""


class Connection:
    """One client connection: reads requests and answers them until either side has enough."""

    def __init__(self, server: LLMServer, sock: socket.socket, number: int) -> None:
        self.server, self.sock, self.number = server, sock, number
        self.reader: BinaryIO = sock.makefile("rb")

    def run(self) -> None:
        try:
            while (request := self.read()) and self.answer(request):
                pass
        except (GoneError, OSError, ValueError):
            pass  # what there is to say stands in the log
        finally:
            self.close()

    def close(self) -> None:
        with suppress(OSError):
            self.reader.close()
        with suppress(OSError):
            self.sock.close()

    # reading

    def read(self) -> Request | None:
        line = self.reader.readline(65536).split()
        if len(line) != 3:
            return None
        method, path = line[0].decode("latin-1"), line[1].decode("latin-1")
        request = Request(method, path, list(self._headers()), b"", self.number, 0.0)
        if self.server.read_delay:
            time.sleep(self.server.read_delay)
        request.body = self._body(request)
        request.arrived = time.monotonic()
        return request

    def _headers(self) -> Iterator[tuple[str, str]]:
        while (line := self.reader.readline(65536)) not in (b"\r\n", b"\n"):
            if not line.endswith(b"\n"):
                raise GoneError
            name, _, value = line.decode("latin-1").partition(":")
            yield name, value.strip()

    def _body(self, request: Request) -> bytes:
        if request.header("transfer-encoding").lower() == "chunked":
            return b"".join(iter(self._chunk, b""))
        length = int(request.header("content-length") or 0)
        body = self.reader.read(length)
        if len(body) < length:
            raise GoneError
        return body

    def _chunk(self) -> bytes:
        size = int(self.reader.readline().split(b";")[0], 16)
        return self.reader.read(size + 2)[:-2]

    # answering

    def answer(self, request: Request) -> bool:
        """Answer one request; true when the connection can take another."""
        path = urlsplit(request.path).path
        keep = request.header("connection").lower() != "close"
        if path.startswith("/__"):
            status, told = self.server.control(request)
            self._send_plain(status, {}, json.dumps(told).encode())
            return keep
        entry, step, ask, wire = self.server.admit(request)
        try:
            return self._answer(entry, step, ask, wire) and keep
        except OSError:
            entry.outcome, entry.usage = "aborted", None
            raise
        finally:
            self.server.finish(entry)

    def _answer(self, entry: Entry, step: Step, ask: Ask, wire: Wire) -> bool:
        self._pause(entry, "head", step.delay)
        if step.drop == "before":
            self._drop(entry, step, "dropped")
        headers = answer_headers(step, entry)
        entry.status = 307 if step.redirect else step.status
        if step.redirect:
            headers["location"] = entry.path if step.redirect is True else step.redirect
            self._plain(entry, step, headers, b"")
        elif step.status == 200 and step.body is None and ask.stream and wire.events:
            self._stream(entry, step, headers, wire)
        else:
            self._plain(entry, step, headers, plain_body(step, wire))
        return headers.get("connection", "").lower() != "close"

    def _plain(self, entry: Entry, step: Step, headers: dict[str, str], body: bytes) -> None:
        if step.drop or step.stall or step.body_delay:
            self._head(entry, headers | {"content-length": str(len(body))})
            self._pause(entry, "body", step.body_delay)
            if step.drop or step.stall:
                self.sock.sendall(body[: middle(step, len(body))])
                self._break(entry, step)
            self.sock.sendall(body)
        else:
            entry.answered = time.monotonic()
            self._send_plain(int(entry.status), headers, body)

    def _stream(self, entry: Entry, step: Step, headers: dict[str, str], wire: Wire) -> None:
        usage, entry.usage = entry.usage, None
        self._head(entry, headers | {"content-type": "text/event-stream", "transfer-encoding": "chunked"})
        self._pause(entry, "body", step.body_delay)
        frames = wire.frames(step)
        broken = step.drop or step.stall
        for index, event in enumerate(frames[: middle(step, len(frames))] if broken else frames):
            self._pause(entry, "body", step.chunk_delay if index else 0.0)
            entry.chunks += 1
            if event.get("usage") or (event.get("response") or {}).get("usage"):
                entry.usage = usage
            self._chunk_out(wire.bytes(event))
        if broken:
            self._break(entry, step)
        self._chunk_out(b"" if wire.named or step.error is not None else b"data: [DONE]\n\n", last=True)

    def _chunk_out(self, data: bytes, last: bool = False) -> None:
        sized = b"%x\r\n%b\r\n" % (len(data), data) if data else b""
        self.sock.sendall(sized + (b"0\r\n\r\n" if last else b""))

    def _head(self, entry: Entry, headers: dict[str, str]) -> None:
        entry.answered = time.monotonic()
        self.sock.sendall(head(int(entry.status), headers))

    def _send_plain(self, status: int, headers: dict[str, str], body: bytes) -> None:
        headers = {"content-type": "application/json", **headers, "content-length": str(len(body))}
        self.sock.sendall(head(status, headers) + body)

    # going wrong

    def _break(self, entry: Entry, step: Step) -> None:
        entry.usage = None
        self._pause(entry, "body", step.stall)
        self._drop(entry, step, "stalled" if step.stall else "cut")

    def _drop(self, entry: Entry, step: Step, outcome: str) -> None:
        entry.outcome = outcome
        if step.reset:  # a linger of zero turns the close into a RST
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        raise GoneError

    def _pause(self, entry: Entry, phase: str, seconds: float) -> None:
        """Wait as the step says, but notice at once when the client goes away."""
        if seconds <= 0:
            return
        begun = time.monotonic()
        try:
            if self._readable(seconds):
                if not self.sock.recv(1, socket.MSG_PEEK):
                    raise ConnectionAbortedError
                time.sleep(max(0.0, begun + seconds - time.monotonic()))
        finally:
            entry.imposed[phase] += time.monotonic() - begun

    def _readable(self, seconds: float) -> bool:
        with selectors.DefaultSelector() as selector:
            selector.register(self.sock, selectors.EVENT_READ)
            return bool(selector.select(seconds))


def head(status: int, headers: dict[str, str]) -> bytes:
    lines = [f"HTTP/1.1 {status} {phrase(status)}", *(f"{name}: {value}" for name, value in headers.items())]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def answer_headers(step: Step, entry: Entry) -> dict[str, str]:
    headers = {"content-type": "application/json", "x-request-id": f"req_{entry.serial:06d}"}
    if step.retry_after is not None:
        headers["retry-after"] = str(step.retry_after)
    if step.retry_after_ms is not None:
        headers["retry-after-ms"] = str(step.retry_after_ms)
    if step.should_retry is not None:
        headers["x-should-retry"] = str(step.should_retry).lower()
    limits = {f"x-ratelimit-{name}": str(value) for name, value in step.ratelimit.items()}
    return headers | limits | {name.lower(): str(value) for name, value in step.headers.items()}


def plain_body(step: Step, wire: Wire) -> bytes:
    if step.body is not None:
        return _as_json(step.body).encode()
    return json.dumps(wire.plain if step.status == 200 else error_body(step.status)).encode()


# --- the server -----------------------------------------------------------------------------------------


class LLMServer:
    """The server, on a thread of its own: start, stop, plan and log."""

    def __init__(
        self, plan: Any = None, *, port: int = 0, log_path: str | Path | None = None, read_delay: float = 0.0
    ) -> None:
        self.port = port
        self.read_delay = read_delay  # s between a request's head and the reading of its body
        self._plan = Plan.read(plan)
        self._log_path = Path(log_path) if log_path else None
        if self._log_path:
            self._log_path.write_text("")
        self._lock = threading.Condition()
        self._entries: list[Entry] = []
        self._connections: dict[int, Connection] = {}
        self._accepted = 0
        self._listener: socket.socket | None = None
        self._thread: threading.Thread | None = None

    # life

    def __enter__(self) -> LLMServer:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> LLMServer:
        """Listen; after a stop, on the same port again."""
        self._listener = socket.create_server(("127.0.0.1", self.port), backlog=128)
        self.port = self._listener.getsockname()[1]
        self._thread = threading.Thread(target=self._accept, args=(self._listener,), daemon=True)
        self._thread.start()
        return self

    def stop(self) -> None:
        """Stop listening and end every connection; new ones are refused from then on."""
        listener, self._listener = self._listener, None
        if listener is None:
            return
        with suppress(OSError):  # wakes the accept, which a close alone does not
            socket.create_connection(("127.0.0.1", self.port), 1).close()
        if self._thread:
            self._thread.join(2)
        listener.close()
        with self._lock:
            connections = list(self._connections.values())
        for connection in connections:
            with suppress(OSError):
                connection.sock.shutdown(socket.SHUT_RDWR)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def base_url(self) -> str:
        """What an OpenAI client takes as its base URL."""
        return f"{self.url}/v1"

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                sock, _ = listener.accept()
            except OSError:
                return
            if self._listener is not listener:
                sock.close()
                return
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._accepted += 1
            threading.Thread(target=self._serve, args=(sock, self._accepted), daemon=True).start()

    def _serve(self, sock: socket.socket, number: int) -> None:
        connection = Connection(self, sock, number)
        with self._lock:
            self._connections[number] = connection
        try:
            connection.run()
        finally:
            with self._lock:
                del self._connections[number]

    # plan and log

    def plan(self, plan: Any) -> None:
        """Put another plan in force, from its first step."""
        fresh = Plan.read(plan)
        with self._lock:
            self._plan = fresh

    @property
    def log(self) -> list[Entry]:
        with self._lock:
            return list(self._entries)

    def reset(self) -> None:
        """Empty the log, count from 1 again and start the plan again."""
        with self._lock:
            self._entries.clear()
            self._plan.rewind()

    def settle(self, timeout: float = 2.0) -> list[Entry]:
        """The log once no request is in flight, or as it is after the timeout."""
        with self._lock:
            self._lock.wait_for(lambda: all(entry.ended for entry in self._entries), timeout)
            return list(self._entries)

    def admit(self, request: Request) -> tuple[Entry, Step, Ask, Wire]:
        """Take the next step for a request and enter it in the log, in one go: one order for both."""
        answer, ask, refused = self._read(request)
        with self._lock:
            step = Step(name="refused", status=refused) if refused else self._plan.take(ask)
            entry = self._enter(request, step)
        try:
            return entry, step, ask, self._word(entry, step, ask, answer)
        except MALFORMED:
            entry.step = "refused"
            return entry, Step(name="refused", status=400), ask, Wire({})

    def _read(self, request: Request) -> tuple[Callable[[Ask, Reply], Wire] | None, Ask, int]:
        path = urlsplit(request.path).path
        answer, deployment = route(request.method, path)
        try:
            return answer, Ask(path, deployment, json.loads(request.body or b"{}")), 0 if answer else 404
        except MALFORMED:
            return answer, Ask(path), 400

    def _enter(self, request: Request, step: Step) -> Entry:
        entry = Entry(
            serial=len(self._entries) + 1,
            connection=request.connection,
            arrived=request.arrived,
            method=request.method,
            path=request.path,
            headers=request.headers,
            body=request.body,
            step=step_name(step),
        )
        entry.imposed["read"] = self.read_delay
        self._entries.append(entry)
        return entry

    def _word(self, entry: Entry, step: Step, ask: Ask, answer: Callable[[Ask, Reply], Wire] | None) -> Wire:
        if answer is None or step.status != 200 or step.redirect or step.drop == "before":
            return Wire({})
        reply = reply_to(ask, step, entry.serial)
        wire = answer(ask, reply)
        entry.response_id = str(wire.plain.get("id", ""))
        entry.usage = None if step.body is not None else reply.usage
        return wire

    def finish(self, entry: Entry) -> None:
        with self._lock:
            entry.ended = time.monotonic()
            if self._log_path:
                with self._log_path.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(entry.as_json()) + "\n")
            self._lock.notify_all()

    def control(self, request: Request) -> tuple[int, Any]:
        target = urlsplit(request.path)
        try:
            if (request.method, target.path) == ("POST", "/__plan"):
                self.plan(json.loads(request.body or b"[]"))
                return 200, {"ok": True}
        except ValueError as error:
            return 400, {"error": str(error)}
        if (request.method, target.path) == ("POST", "/__reset"):
            self.reset()
            return 200, {"ok": True}
        if (request.method, target.path) == ("GET", "/__log"):
            entries = self.settle() if "wait" in target.query else self.log
            return 200, [entry.as_json() for entry in entries]
        return 404, {"error": "known are POST /__plan, GET /__log, POST /__reset"}


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="A local OpenAI-compatible server with scripted faults.")
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one")
    parser.add_argument("--plan", help="a JSON file; without it every request is answered")
    parser.add_argument("--log", help="write one JSON line per request to this file")
    options = parser.parse_args(arguments)
    try:
        server = LLMServer(options.plan, port=options.port, log_path=options.log).start()
    except (OSError, ValueError) as error:
        print(f"llm_server: {error}", file=sys.stderr)
        return 2
    done = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: done.set())
    print(server.url, flush=True)
    done.wait()
    server.stop()
    return 0


if __name__ == "__main__":
    sys.exit(main())

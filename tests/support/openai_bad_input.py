"""Hostile arguments and hostile answers, bare and then watched, under the openai at hand; prints JSON.

Run by tests/test_bad_input.py in each environment (tests/support/versions.py).
"""

from __future__ import annotations

import dataclasses
import enum
import json
import os
import sys
import warnings
from collections.abc import Callable
from hashlib import sha256
from typing import Any

import openai
from both import got, listed, run
from openai import _base_client

from llm_server import LLMServer

warnings.simplefilter("ignore")
_base_client.INITIAL_RETRY_DELAY = 0.01

MODEL = "gpt-4o-mini"
MESSAGES = [{"role": "user", "content": "one two three"}]
OMIT = getattr(openai, "omit", openai.NOT_GIVEN)


class Hostile:
    """Whatever is asked of it, it raises."""

    def _raise(self, *_: Any, **__: Any) -> Any:
        raise RuntimeError("hostile")

    __str__ = __repr__ = __len__ = __iter__ = __bool__ = __eq__ = __hash__ = __getitem__ = _raise  # type: ignore[assignment]
    __contains__ = __int__ = __float__ = __index__ = __lt__ = __call__ = _raise  # type: ignore[assignment]


class Lying(Hostile):
    """It also says that it is something else."""

    @property
    def __class__(self) -> Any:  # type: ignore[override]
        return str


class Text(str):
    """A text that raises where a text would answer."""

    def _raise(self, *_: Any, **__: Any) -> Any:
        raise RuntimeError("hostile")

    __str__ = __repr__ = __len__ = __eq__ = __ne__ = __iter__ = strip = lower = _raise  # type: ignore[assignment]
    __hash__ = str.__hash__


class Whole(int):
    """A number that raises where a number would answer."""

    def _raise(self, *_: Any, **__: Any) -> Any:
        raise RuntimeError("hostile")

    __str__ = __eq__ = __ne__ = __lt__ = __int__ = __index__ = __bool__ = _raise  # type: ignore[assignment]
    __hash__ = int.__hash__


class Real(float):
    """The same, with a fraction."""

    def _raise(self, *_: Any, **__: Any) -> Any:
        raise RuntimeError("hostile")

    __str__ = __eq__ = __ne__ = __lt__ = __int__ = __bool__ = _raise  # type: ignore[assignment]
    __hash__ = float.__hash__


class Mapping(dict):  # type: ignore[type-arg]
    """A dictionary that gives its items to nobody but the encoder."""

    def _raise(self, *_: Any, **__: Any) -> Any:
        raise RuntimeError("hostile")

    get = __getitem__ = __contains__ = __len__ = __bool__ = __eq__ = _raise  # type: ignore[assignment]


class Listing(list):  # type: ignore[type-arg]
    """A list that does not know its length, nor what is in it."""

    def _raise(self, *_: Any, **__: Any) -> Any:
        raise RuntimeError("hostile")

    __len__ = __bool__ = __contains__ = __eq__ = _raise  # type: ignore[assignment]


class Model(str, enum.Enum):  # noqa: UP042 - the older of two ways, still the common one
    """A model as some apps name it."""

    SMALL = MODEL


@dataclasses.dataclass
class Message:
    """A message as an object."""

    role: str = "user"
    content: str = "one"


def endless(value: Any) -> Any:
    """Return a list that holds itself."""
    found = [value]
    found.append(found)
    return found


def deep(levels: int) -> Any:
    """Return a dictionary in a dictionary, so many times."""
    found: dict[str, Any] = {}
    for _ in range(levels):
        found = {"x": found}
    return found


def said(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


# Each makes its arguments anew: generators are used up, and the SDK may keep what it is given.
ARGUMENTS: dict[str, Callable[[], dict[str, Any]]] = {
    "surrogate in the prompt": lambda: {"messages": said("a \ud800 b")},
    "surrogate in the model": lambda: {"model": "gpt-\udfff"},
    "surrogate in a stop word": lambda: {"stop": ["\ud800", "x"]},
    "NUL in the prompt": lambda: {"messages": said("a\0b")},
    "NUL in the model": lambda: {"model": "gpt\0-4o"},
    "line ends in the model": lambda: {"model": "gpt\r\n-4o"},
    "ten megabytes": lambda: {"messages": said("x" * (10 << 20))},
    "a long model": lambda: {"model": "m" * 100_000},
    "hostile temperature": lambda: {"temperature": Hostile()},
    "hostile model": lambda: {"model": Hostile()},
    "lying model": lambda: {"model": Lying()},
    "hostile messages": lambda: {"messages": Hostile()},
    "hostile content": lambda: {"messages": [{"role": "user", "content": Hostile()}]},
    "hostile role": lambda: {"messages": [{"role": Hostile(), "content": "x"}]},
    "text that raises as role": lambda: {"messages": [{"role": Text("user"), "content": "x"}]},
    "hostile type": lambda: {"messages": [{"type": Hostile(), "role": "user", "content": [{"type": Hostile()}]}]},
    "hostile tools": lambda: {"tools": [{"type": Hostile(), "function": Mapping(name=Hostile())}]},
    "hostile stop": lambda: {"stop": Hostile()},
    "hostile in stop": lambda: {"stop": ["x", Hostile()]},
    "hostile response format": lambda: {"response_format": Hostile()},
    "hostile service tier": lambda: {"service_tier": Hostile()},
    "hostile n": lambda: {"n": Hostile()},
    "hostile timeout": lambda: {"timeout": Hostile()},
    "hostile extra body": lambda: {"extra_body": {"x": Hostile()}},
    "hostile metadata": lambda: {"metadata": Mapping(a="b")},
    "text that raises as model": lambda: {"model": Text(MODEL)},
    "text that raises as prompt": lambda: {"messages": said(Text("one two"))},
    "text that raises as effort": lambda: {"reasoning_effort": Text("low")},
    "text that raises as tier": lambda: {"service_tier": Text("flex")},
    "text that raises in stop": lambda: {"stop": [Text("x")]},
    "number that raises": lambda: {"max_tokens": Whole(5), "n": Whole(1), "seed": Whole(3)},
    "fraction that raises": lambda: {"temperature": Real(0.5)},
    "mapping that raises": lambda: {"response_format": Mapping(type="json_object")},
    "list that raises": lambda: {"stop": Listing(["x"])},
    "a model as enumeration": lambda: {"model": Model.SMALL},
    "the list holds itself": lambda: {"messages": endless(MESSAGES[0])},
    "the stop list holds itself": lambda: {"stop": endless("x")},
    "not a number": lambda: {"temperature": float("nan"), "top_p": float("inf")},
    "a huge number": lambda: {"max_tokens": 10**400, "seed": -(10**30)},
    "generators": lambda: {"messages": (each for each in MESSAGES)},
    "a generator in stop": lambda: {"stop": (each for each in "ab")},
    "a set": lambda: {"stop": {"a"}},
    "bytes": lambda: {"messages": [{"role": "user", "content": b"x"}], "model": b"m"},
    "bytes as model": lambda: {"model": b"gpt-4o"},
    "an object as message": lambda: {"messages": [Message()]},
    "None everywhere": lambda: {"model": None, "messages": None, "temperature": None, "stop": None, "n": None},
    "not given": lambda: dict.fromkeys(("temperature", "stop", "n", "stream_options", "seed"), openai.NOT_GIVEN),
    "omitted": lambda: dict.fromkeys(("temperature", "stop", "n", "stream_options", "seed"), OMIT),
    "not given, required": lambda: {"messages": openai.NOT_GIVEN, "model": openai.NOT_GIVEN},
    "wrong types": lambda: {"temperature": "hot", "n": "3", "stop": 5, "max_tokens": 1.5, "response_format": "json"},
    "booleans": lambda: {"n": True, "max_tokens": False, "temperature": True},
    "deep": lambda: {"extra_body": {"x": deep(400)}},
    "too deep": lambda: {"extra_body": {"x": deep(100_000)}},
    "extra body over ours": lambda: {"extra_body": {"model": ["m"], "temperature": {"a": 1}, "stop": {"b": 2}}},
    "headers with line ends": lambda: {"extra_headers": {"X-A": "a\r\nX-B: c"}},
    "headers that are not text": lambda: {"extra_headers": {"X-A": object()}},
    "headers beyond ASCII": lambda: {"extra_headers": {"X-A": "é\ud800"}},
    "hostile query": lambda: {"extra_query": {"a": Hostile()}},
    "a timeout that is none": lambda: {"timeout": float("nan")},
    "a timeout below zero": lambda: {"timeout": -1},
    "unknown argument": lambda: {"colour": "red"},
    "stream as text": lambda: {"stream": "yes"},
    "stream as number": lambda: {"stream": 1},
    "stream as None": lambda: {"stream": None},
}

EVENTS = {"content-type": "text/event-stream"}
JSON = {"content-type": "application/json"}


def answer(**fields: Any) -> dict[str, Any]:
    """Return a step that answers with these fields in an ordinary answer."""
    choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "hi"}}
    whole = {"id": "1", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice]}
    return {"body": {**whole, **fields}}


def events(text: str) -> dict[str, Any]:
    """Return a step that answers with the text of an event stream."""
    return {"body": text, "headers": EVENTS}


# What a server may say; asked for plain, then as a stream.
ANSWERS: dict[str, dict[str, Any]] = {
    "choices is a text": answer(choices="none"),
    "choices is an object": answer(choices={"a": 1}),
    "choices of nothing": answer(choices=[None, 5, "x", []]),
    "strange finish reasons": answer(
        choices=[{"index": [0], "finish_reason": ["a"]}, {"index": "1", "finish_reason": 7}, {"index": None}]
    ),
    "usage is a text": answer(usage="much"),
    "usage is a list": answer(usage=[1, 2]),
    "usage of texts": answer(usage={"prompt_tokens": "9", "completion_tokens": None, "total_tokens": {}}),
    "usage of booleans": answer(usage={"prompt_tokens": True, "completion_tokens": False}),
    "usage below zero": answer(usage={"prompt_tokens": -5, "completion_tokens": 10**30}),
    "usage with fractions": answer(usage={"prompt_tokens": 1.5, "completion_tokens": 2.0}),
    "usage details": answer(usage={"prompt_tokens": 1, "prompt_tokens_details": "x", "completion_tokens_details": [1]}),
    "model is a number": answer(model=5, id=None, service_tier=[], system_fingerprint={}),
    "surrogates": answer(model="m\ud800", id="\udfff"),
    "an array": {"body": [1, 2, 3]},
    "a number": {"body": "5", "headers": JSON},
    "not JSON": {"body": "{not json", "headers": JSON},
    "not a number": {"body": '{"id": NaN, "choices": [], "usage": {"prompt_tokens": NaN}}', "headers": JSON},
    "empty": {"body": "", "headers": JSON},
    "no content type": {"body": "{}", "headers": {"content-type": ""}},
    "a type that is none": {"body": "{}", "headers": {"content-type": "\x01;;json"}},
    "deep": {"body": "[" * 100_000, "headers": JSON},
    "a response of nothing": {"body": {"object": "response", "status": 5, "incomplete_details": "x", "usage": 3}},
    "an error of nothing": {"status": 400, "body": {"error": None}},
    "an error that is a list": {"status": 400, "body": {"error": [1]}},
    "an error with a strange code": {"status": 400, "body": {"error": {"code": {"a": 1}, "message": 5}}},
    "strange limits": {"ratelimit": {"limit-requests": "many", "remaining-tokens": "", "reset-tokens": "1e99s"}},
    "events of nothing": events("data: null\n\ndata: 5\n\ndata: []\n\ndata: \n\n: x\n\ndata: [DONE]\n\n"),
    "events not JSON": events("data: {bad\n\ndata: [DONE]\n\n"),
    "events with strange choices": events(
        'data: {"choices":[null]}\n\ndata: {"choices":[{"index":[1],"finish_reason":{}}]}\n\ndata: [DONE]\n\n'
    ),
    "events of another kind": events(
        'event: response.completed\ndata: {"type":"response.completed","response":null}\n\n'
        'event: response.failed\ndata: {"type":"response.failed","response":[1]}\n\n'
    ),
    "an error event of nothing": events('data: {"error":""}\n\ndata: {"error":null}\n\n'),
    "an error event that is a text": events('data: {"error":"overloaded"}\n\n'),
    "events without an end": events('data: {"choices":[]'),
}


async def chat(client: Any, arguments: dict[str, Any]) -> Any:
    found = await got(client.chat.completions.create(**{"model": MODEL, "messages": MESSAGES, **arguments}))
    return [type(found), *await listed(found)] if hasattr(found, "response") else found


async def described(client: Any, arguments: Callable[[], dict[str, Any]]) -> str:
    """Return what the app sees, as text."""
    try:
        text = repr(await chat(client, arguments()))
    except RecursionError:
        return "RecursionError"
    except Exception as error:
        text = " < ".join(shown(link) for link in (error, error.__cause__) if link is not None)
    return text if len(text) < 5_000 else sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def shown(error: BaseException) -> str:
    import re

    try:
        text = str(error)
    except Exception as hostile:
        text = f"({type(hostile).__name__})"
    return f"{type(error).__module__}.{type(error).__qualname__}: " + re.sub(r"0x[0-9a-f]+", "0x", text)


CASES: dict[str, tuple[Callable[[], dict[str, Any]], list[Any]]] = {
    **{f"argument: {name}": (arguments, []) for name, arguments in ARGUMENTS.items()},
    **{f"answer: {name}": (dict, [step]) for name, step in ANSWERS.items()},
    **{f"stream: {name}": (lambda: {"stream": True}, [step]) for name, step in ANSWERS.items()},
}


def once(mode: str, name: str, server: LLMServer, client: Any) -> tuple[str, str, str]:
    """Return what the app and the server saw of one case, and what the app saw of an ordinary call after it."""
    arguments, plan = CASES[name]

    async def both_calls() -> tuple[str, str]:
        made = client or openai.AsyncOpenAI(base_url=server.base_url, api_key="x", max_retries=0)
        server.plan(plan)
        seen = await described(made, arguments)
        after = await described(made, dict)
        if client is None:
            await made.close()
        return seen, after

    server.reset()
    seen, after = run(mode, both_calls())
    wire = repr([(entry.method, entry.path, entry.headers, entry.body) for entry in server.settle()])
    return seen, sha256(wire.encode()).hexdigest(), after


def main() -> None:
    """Run every case bare, then watched; with --content, with prompts and answers recorded, and sync only."""
    content = "--content" in sys.argv
    if content:
        os.environ["OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT"] = "true"
    wanted = [each for each in sys.argv[1:] if not each.startswith("--")]
    chosen = [name for name in CASES if not wanted or any(each in name for each in wanted)]
    found: dict[str, Any] = {"sync": {}} if content else {"sync": {}, "async": {}}
    with LLMServer() as server:
        client = openai.OpenAI(base_url=server.base_url, api_key="x", max_retries=0)
        clients = {"sync": client, "async": None}
        for mode, of_mode in found.items():
            for name in chosen:
                of_mode[name] = {"bare": once(mode, name, server, clients[mode])}

        import watchkeep
        from watchkeep import guard
        from watchkeep.export.encode import encode_logs, encode_metrics, encode_spans
        from watchkeep.export.model import Resource
        from watchkeep.testing import capture

        guard.raising = True
        for mode, of_mode in found.items():
            for name in chosen:
                with capture() as captured:
                    watchkeep.instrument()
                    before = guard.faults
                    case = of_mode[name]
                    case["watched"] = once(mode, name, server, clients[mode])
                    spans = captured.spans()
                    encoded = encode_spans(spans, Resource({})) + encode_logs(captured.logs(), Resource({}))
                    encoded += encode_metrics(captured.metrics().values(), Resource({}))
                    case["calls"] = [span.attributes for span in spans if span.scope.name == "watchkeep.openai"]
                    case["calls"] = [
                        {key: each.get(key) for key in ("error.type", "gen_ai.usage.input_tokens")}
                        for each in case["calls"]
                    ]
                    case["encoded"] = len(encoded)
                    case["faults"] = guard.faults - before
    print(json.dumps({"version": openai.__version__, **found}))


if __name__ == "__main__":
    main()

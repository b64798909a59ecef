"""What was said in an openai call, read from its request and its answer: chat, Responses, completions."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from watchkeep.content import (
    MAX_MESSAGES,
    Kept,
    media_part,
    reasoning_part,
    text_part,
    tool_call_part,
    tool_result_part,
)
from watchkeep.export.sanitise import clean_value

_MAX_TOOLS = 64
_FINISHED = {"tool_calls": "tool_call", "function_call": "tool_call", "max_output_tokens": "length"}


# -- the request -------------------------------------------------------------------------------------------------


def read_request(data: object) -> Kept:
    """Read what is asked; nothing of the app's objects is kept but texts, and those cut."""
    kept = Kept()
    if type(data) is not dict:
        return kept
    if "instructions" in data and type(data["instructions"]) is str:
        kept.system = [text_part(kept.cut(data["instructions"]))]
    said = data.get("messages", data.get("input", data.get("prompt")))
    if issubclass(type(said), str):
        said = [{"role": "user", "content": said}]
    if type(said) is list:
        # The last ones first: they have most to say when there is no room for all.
        for item in reversed(said[-MAX_MESSAGES:]):
            if kept.left <= 0:
                break
            kept.input.extend(_message(kept, item))
        kept.input.reverse()
    if type(data.get("tools")) is list:
        kept.tools = [clean_value(_tool(each)) for each in data["tools"][:_MAX_TOOLS]]
    return kept


def _tool(tool: Any) -> Any:
    if type(tool) is not dict:
        return tool
    function = tool.get("function")
    told = function if type(function) is dict else tool
    return {
        "type": tool.get("type"),
        **{key: told[key] for key in ("name", "description", "parameters") if key in told},
    }


def _message(kept: Kept, item: Any) -> Iterator[dict[str, Any]]:
    if type(item) is not dict:
        return
    kind, role = _name(item.get("type")), _name(item.get("role"))
    if kind in ("function_call", "custom_tool_call"):
        call = tool_call_part(item.get("call_id"), item.get("name"), kept.cut(item.get("arguments", item.get("input"))))
        yield {"role": "assistant", "parts": [call]}
    elif kind in ("function_call_output", "custom_tool_call_output"):
        yield {"role": "tool", "parts": [tool_result_part(item.get("call_id"), _result(kept, item.get("output")))]}
    elif kind == "reasoning":
        yield {"role": "assistant", "parts": _thoughts(kept, item)}
    elif role == "tool":
        answer = tool_result_part(item.get("tool_call_id"), _result(kept, item.get("content")))
        yield {"role": "tool", "parts": [answer]}
    elif "role" in item:
        yield {"role": role, "parts": [*_parts(kept, item.get("content")), *_calls(kept, item)]}
    else:
        yield {"role": "assistant", "parts": [{"type": kind}]}


def _name(value: Any) -> str:
    # An object of the app's may raise when it is compared or printed.
    return str.__str__(value)[:64] if issubclass(type(value), str) else ""


def _result(kept: Kept, value: Any) -> Any:
    return kept.cut(value) if issubclass(type(value), str) else _parts(kept, value)


def _thoughts(kept: Kept, item: dict[str, Any]) -> list[dict[str, Any]]:
    summary = item.get("summary")
    told = [each.get("text") for each in summary if type(each) is dict] if type(summary) is list else []
    return [reasoning_part(kept.cut(text)) for text in told if text]


def _calls(kept: Kept, item: dict[str, Any]) -> list[dict[str, Any]]:
    found = item.get("tool_calls")
    calls = [each for each in found if type(each) is dict] if type(found) is list else []
    told = [(call.get("id"), call.get("function") or call.get("custom") or {}) for call in calls]
    return [
        tool_call_part(identifier, function.get("name"), kept.cut(function.get("arguments", function.get("input"))))
        for identifier, function in told
        if type(function) is dict
    ]


def _parts(kept: Kept, content: Any) -> list[dict[str, Any]]:
    if issubclass(type(content), str):
        return [text_part(kept.cut(content))]
    return [_part(kept, each) for each in content if type(each) is dict] if type(content) is list else []


def _part(kept: Kept, part: dict[str, Any]) -> dict[str, Any]:
    kind = _name(part.get("type"))
    text = part.get("text", part.get("refusal"))
    if text is not None:
        return text_part(kept.cut(text))
    if kind in ("image_url", "input_image"):
        given = part.get("image_url")
        return media_part("image", given.get("url") if type(given) is dict else given, part.get("file_id"))
    if kind == "input_audio":
        return {"type": "blob", "modality": "audio", "content": "[audio]"}
    if kind in ("file", "input_file"):
        file = part["file"] if type(part.get("file")) is dict else part
        return media_part("document", file.get("file_url") or file.get("file_data"), file.get("file_id"))
    return {"type": kind}


# -- the answer ----------------------------------------------------------------------------------------------------


_OF_ANOTHER_SHAPE = (AttributeError, IndexError, KeyError, TypeError, ValueError)


def read_answer(kept: Kept, data: dict[str, Any]) -> None:
    """Read an answer, or one event of a stream, as far as it has the API's shape; runs off the request path."""
    try:
        _read_answer(kept, data)
    except _OF_ANOTHER_SHAPE:
        return


def _read_answer(kept: Kept, data: dict[str, Any]) -> None:
    kept.left = 1 << 20
    kind = data.get("type")
    if "choices" in data:
        for choice in data["choices"] or ():
            _choice(kept, choice)
    elif data.get("object") == "response":
        _response(kept, data)
    elif kind in ("response.completed", "response.incomplete", "response.failed"):
        _response(kept, data["response"])
    elif kind == "response.output_item.done":
        kept.items[data["output_index"]] = data["item"]
        _items(kept, kept.items, "")
    elif kind in ("response.output_text.delta", "response.refusal.delta"):
        item = kept.items.setdefault(data["output_index"], {"role": "assistant", "content": ""})
        item["content"] += data["delta"]
        _items(kept, kept.items, "")


def _choice(kept: Kept, choice: dict[str, Any]) -> None:
    index = choice.get("index", 0)
    found = kept.output.setdefault(index, {"role": "assistant", "parts": [], "finish_reason": ""})
    said = choice.get("message") or choice.get("delta") or {"content": choice.get("text")}
    parts = found["parts"]
    for key, make in (("reasoning_content", reasoning_part), ("content", text_part), ("refusal", text_part)):
        if type(said.get(key)) is str and said[key]:
            _append(parts, make(said[key]))
    for call in said.get("tool_calls") or ():
        _call(kept, index, parts, call)
    reason = choice.get("finish_reason")
    if reason:
        found["finish_reason"] = _FINISHED.get(reason, reason)


def _append(parts: list[dict[str, Any]], part: dict[str, Any]) -> None:
    if parts and parts[-1]["type"] == part["type"]:
        parts[-1]["content"] += part["content"]
    else:
        parts.append(part)


def _call(kept: Kept, choice: int, parts: list[dict[str, Any]], call: dict[str, Any]) -> None:
    """Take a tool call, or a piece of one: pieces of a stream are told by their index."""
    function = call.get("function") or call.get("custom") or {}
    given = function.get("arguments", function.get("input")) or ""
    key = (choice << 16) + call["index"] if "index" in call else None
    begun = kept.items.get(key) if key is not None else None
    if begun is not None:
        begun["arguments"] += given
        return
    part = tool_call_part(call.get("id"), function.get("name"), given)
    parts.append(part)
    if key is not None:
        kept.items[key] = part


def _response(kept: Kept, response: dict[str, Any]) -> None:
    details = response.get("incomplete_details")
    reason = details.get("reason") if type(details) is dict else None
    status = reason or {"completed": "stop", "failed": "error"}.get(response.get("status", ""), "")
    output = response.get("output")
    if type(output) is list and output:
        _items(kept, dict(enumerate(output)), _FINISHED.get(status, status))


def _items(kept: Kept, items: dict[int, Any], finish: str) -> None:
    parts = [part for index in sorted(items) for message in _message(kept, items[index]) for part in message["parts"]]
    kept.output[0] = {"role": "assistant", "parts": parts, "finish_reason": finish}

"""Prompts and completions, where a setting asks for them: bounded, without secrets, in OpenTelemetry's parts format.

An SDK's integration reads its request into a `Kept` when the call begins, and its answer when the call is over;
what stands on the span or the event is made here, off the request path.
"""

from __future__ import annotations

import json
import re
from typing import Any

from watchkeep import names, runtime
from watchkeep.export.sanitise import clean_text, clean_value

MAX_MESSAGES = 128  # the last ones; history comes again with every call
_SHORTEST = 32  # characters to which a text is cut before whole messages are left out
_MAX_JSON = 1 << 16
_MARK, _MARK_LENGTH = re.compile(r"\.\.\.\[\d+ characters\]\Z"), 40  # of a text that was cut before


class Kept:
    """What was said in one call."""

    __slots__ = ("input", "items", "left", "output", "system", "tools")

    def __init__(self) -> None:
        self.left = 4 * runtime.config().value_max_bytes  # characters of the request that are kept
        self.input: list[dict[str, Any]] = []
        self.system: list[dict[str, Any]] = []
        self.tools: list[Any] = []
        self.output: dict[int, dict[str, Any]] = {}  # by choice
        self.items: dict[int, Any] = {}  # what a reader collects until it is whole

    def cut(self, text: Any) -> str:
        """Return a text of the request, as far as there is room for it: the app may hold ten megabytes."""
        text = str.__str__(text) if issubclass(type(text), str) else f"<{type(text).__name__}>"
        most = min(self.left, runtime.config().value_max_bytes)
        self.left -= min(len(text), most)
        return text if len(text) <= most else shortened(text, most)


def shortened(text: str, most: int) -> str:
    """Cut a text and say how long it was."""
    before = _MARK.search(text[-_MARK_LENGTH:])
    mark = before[0] if before is not None else f"...[{len(text)} characters]"
    return text[: max(0, most - len(mark))] + mark


def wanted() -> bool:
    """Tell whether content is recorded at all."""
    return runtime.config().capture_content != "NO_CONTENT"


# -- parts, as the standard has them -------------------------------------------------------------------------


def text_part(text: str) -> dict[str, Any]:
    """Return a part of text."""
    return {"type": "text", "content": text}


def reasoning_part(text: str) -> dict[str, Any]:
    """Return a part that says what the model thought."""
    return {"type": "reasoning", "content": text}


def tool_call_part(identifier: Any, name: Any, arguments: Any) -> dict[str, Any]:
    """Return a part by which the model asks for a tool."""
    return {"type": "tool_call", "id": identifier, "name": name, "arguments": arguments}


def tool_result_part(identifier: Any, response: Any) -> dict[str, Any]:
    """Return a part that answers a tool call."""
    return {"type": "tool_call_response", "id": identifier, "response": response}


def media_part(modality: str, uri: Any = None, file_id: Any = None) -> dict[str, Any]:
    """Return a part that is no text; of inline data only what it is, not the data."""
    if file_id is not None:
        return {"type": "file", "modality": modality, "file_id": file_id}
    text = uri if type(uri) is str else ""
    if text.startswith("data:"):
        head = text[5:128].partition(",")[0].partition(";")[0]
        return {"type": "blob", "modality": modality, "mime_type": head, "content": f"[{len(text)} characters]"}
    return {"type": "uri", "modality": modality, "uri": text[:2048]}


# -- on the span, on the event ---------------------------------------------------------------------------------


def gather(kept: Kept) -> dict[str, list[Any]]:
    """Return the content attributes of a call, each within the size of a value."""
    found = {
        names.GEN_AI_SYSTEM_INSTRUCTIONS: kept.system,
        names.GEN_AI_INPUT_MESSAGES: kept.input,
        names.GEN_AI_OUTPUT_MESSAGES: [kept.output[index] for index in sorted(kept.output)],
        names.GEN_AI_TOOL_DEFINITIONS: kept.tools,
    }
    return {key: fitted([_clean(each) for each in value]) for key, value in found.items() if value}


def as_json(value: list[Any]) -> str:
    """Return content as the text that a span attribute carries."""
    return json.dumps(
        value, ensure_ascii=False, separators=(",", ":"), default=lambda other: f"<{type(other).__name__}>"
    )


def fitted(value: list[Any]) -> list[Any]:
    """Shorten texts until the JSON is no larger than a value may be, then leave out the oldest."""
    most = runtime.config().value_max_bytes
    cut = most // 2
    shown = value
    while _size(shown) > most and cut >= _SHORTEST:
        shown = [_cut(each, cut) for each in value]
        cut //= 2
    while shown and _size(shown) > most:
        shown = shown[1:]
    return shown


def _size(value: list[Any]) -> int:
    return len(as_json(value).encode())


def _cut(value: Any, most: int) -> Any:
    if isinstance(value, str):
        return value if len(value) <= most else shortened(value, most)
    if isinstance(value, dict):
        return {key: _cut(each, most) for key, each in value.items()}
    return [_cut(each, most) for each in value] if isinstance(value, list) else value


def _clean(value: Any) -> Any:
    """Mask secrets, and show the arguments of tools as values."""
    if isinstance(value, dict):
        return {key: _arguments(each) if key == "arguments" else _clean(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_clean(each) for each in value]
    return clean_text(_in_bytes(value)) if isinstance(value, str) else clean_value(value)


def _in_bytes(text: str) -> str:
    most = runtime.config().value_max_bytes
    size = len(text) if text.isascii() else len(text.encode("utf-8", "replace"))
    return text if size <= most else shortened(text, most * len(text) // size - _MARK_LENGTH)


def _arguments(value: Any) -> Any:
    if isinstance(value, str) and len(value) <= _MAX_JSON:
        try:
            return clean_value(json.loads(value))
        except (ValueError, RecursionError):
            return clean_text(value)
    return _clean(value)

"""What a setting is, and how a text or a value of a TOML file becomes its value."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

_TRUE = ("true", "1", "yes", "on")
_FALSE = ("false", "0", "no", "off")


@dataclass(frozen=True, slots=True)
class Setting:
    """One declared setting."""

    name: str
    env: str
    kind: str  # bool, int, float, str, list
    default: Any
    meaning: str
    choices: tuple[str, ...] = ()
    low: float | None = None
    high: float | None = None
    pattern: str = ""
    presets: Mapping[str, Any] = field(default_factory=dict)
    alias: Mapping[str, str] = field(default_factory=dict)

    @property
    def expected(self) -> str:
        """Say what a good value looks like."""
        if self.choices:
            return ("a list of " if self.kind == "list" else "one of ") + ", ".join(self.choices)
        if self.low is not None:
            unit = "a whole number" if self.kind == "int" else "a number"
            return f"{unit} from {show(self.low)} to {show(self.high)}"
        shape = f" like {self.pattern}" if self.pattern else ""
        return {"bool": "true or false", "list": f"a list{shape}, separated by commas"}.get(
            self.kind, f"a text{shape}"
        )


def parse(declared: Setting, raw: Any) -> Any:
    """Turn a text, or a value of a TOML file, into a value of the declared kind."""
    return _PARSERS[declared.kind](declared, raw)


def _wrong(declared: Setting) -> ValueError:
    return ValueError(f"use {declared.expected}; {show(declared.default)} is used")


def _bool(declared: Setting, raw: Any) -> bool:
    word = str(raw).strip().lower()
    if word in _TRUE or word in _FALSE:
        # The specification lets only "true" switch an OTEL_* flag on.
        return word == "true" if declared.env.startswith("OTEL_") else word in _TRUE
    raise _wrong(declared)


def _number(declared: Setting, raw: Any) -> Any:
    kind = int if declared.kind == "int" else float
    try:
        if isinstance(raw, (bool, float)) and kind is int:
            raise _wrong(declared)
        value = kind(raw)
    except (ValueError, TypeError, OverflowError):
        raise _wrong(declared) from None
    if declared.low is not None and declared.high is not None and declared.low <= value <= declared.high:
        return value
    raise _wrong(declared)


def _text(declared: Setting, raw: Any) -> str:
    if not isinstance(raw, str):
        raise _wrong(declared)
    return _item(declared, raw.strip())


def _list(declared: Setting, raw: Any) -> tuple[str, ...]:
    parts = raw.split(",") if isinstance(raw, str) else raw
    if not isinstance(parts, list) or not all(isinstance(part, str) for part in parts):
        raise _wrong(declared)
    return tuple(_item(declared, part.strip()) for part in parts if part.strip())


def _item(declared: Setting, word: str) -> str:
    if declared.choices:
        word = declared.alias.get(word.lower(), word)
        found = next((choice for choice in declared.choices if choice.lower() == word.lower()), None)
        if found is None:
            raise _wrong(declared)
        return found
    if declared.pattern:
        import re

        if not re.fullmatch(declared.pattern, word):
            raise _wrong(declared)
    if not word.isprintable():
        raise _wrong(declared)
    return word


_PARSERS = {"bool": _bool, "int": _number, "float": _number, "str": _text, "list": _list}


def show(value: Any) -> str:
    """Write a value as one would set it."""
    if value is None or value == "" or value == ():
        return "(unset)"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return ",".join(value)
    return f"{value:g}" if isinstance(value, float) else str(value)

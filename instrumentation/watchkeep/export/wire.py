"""Protobuf's wire format, as far as OTLP's values and attributes need it.

Keys and short values repeat in almost every span, so their bytes are made once and then looked up;
that, and joining with the field's tag as separator, is what makes this several times cheaper than
building protobuf objects.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from struct import Struct
from typing import Any

MAX_DEPTH = 16  # what is nested deeper is cut: a value that contains itself must not end the worker
_MAX_KEYS = 512
_MAX_VALUES = 32  # remembered for each key; an id has no second use, a model's name has thousands
_MAX_LENGTH = 64

_SURROGATES = re.compile("[\ud800-\udfff]")
double: Callable[[float], bytes] = Struct("<d").pack
fixed64: Callable[[int], bytes] = Struct("<Q").pack
fixed32: Callable[[int], bytes] = Struct("<I").pack


class _Varints(dict[int, bytes]):
    """Varints by number; the small ones are kept."""

    def __missing__(self, number: int) -> bytes:
        made = _varint(number)
        if number < 16384:
            self[number] = made
        return made


def _varint(number: int) -> bytes:
    if number < 1 << 14:
        return bytes((number & 127 | 128, number >> 7)) if number > 127 else bytes((number,))
    if number < 1 << 21:
        return bytes((number & 127 | 128, number >> 7 & 127 | 128, number >> 14))
    return bytes((number & 127 | 128,)) + _varint(number >> 7)


VARINT = _Varints()


def text(value: str) -> bytes:
    """Encode a string; lone surrogates, which UTF-8 cannot hold, become U+FFFD."""
    try:
        return value.encode()
    except UnicodeEncodeError:
        return _SURROGATES.sub("\ufffd", str.__str__(value)).encode()


def field(tag: bytes, data: bytes) -> bytes:
    """Put tag and length before the bytes of a message or string."""
    return tag + VARINT[len(data)] + data


def string_field(tag: bytes, value: str) -> bytes:
    """Encode a string field; empty is left out, as proto3 does."""
    return field(tag, text(value)) if value else b""


def integer_field(tag: bytes, value: int) -> bytes:
    """Encode an unsigned field; zero is left out, as proto3 does."""
    return tag + VARINT[value] if value else b""


class _Key:
    """The bytes of one attribute key, and of what was seen beside it."""

    __slots__ = (
        *("doubles", "false", "heads", "integers", "name", "numbers", "room_numbers", "room_strings"),
        *("single", "size", "strings", "true"),
    )

    def __init__(self, key: str) -> None:
        self.name = string_field(b"\x0a", key)
        self.size = len(self.name)
        self.strings: dict[str, bytes] = {}
        self.numbers: dict[int, bytes] = {}
        self.room_strings = self.room_numbers = _MAX_VALUES
        self.heads: dict[int, bytes] = {}  # what stands before a string, by its size
        self.integers: dict[int, bytes] = {}  # what stands before a varint, by its size
        self.single: dict[str, bytes] = {}
        self.doubles = VARINT[self.size + 11] + self.name + b"\x12\x09\x21"
        self.true = self.message(b"\x10\x01")
        self.false = self.message(b"\x10\x00")

    def message(self, value: bytes) -> bytes:
        """Make the KeyValue, with its length before it, of an encoded AnyValue."""
        body = VARINT[len(value)] + value
        return VARINT[self.size + 1 + len(body)] + self.name + b"\x12" + body

    def string(self, value: str) -> bytes:
        """Encode a string; short ones are remembered until there is no room."""
        try:
            data = value.encode()
        except UnicodeEncodeError:
            data = text(value)
        size = len(data)
        made = (self.heads.get(size) or self.head(size)) + data
        if self.room_strings and size <= _MAX_LENGTH:
            self.room_strings -= 1
            self.strings[value] = made
        return made

    def head(self, size: int) -> bytes:
        """Make all that stands before a string of this many bytes."""
        length = b"\x0a" + VARINT[size]
        whole = b"\x12" + VARINT[len(length) + size] + length
        made = VARINT[self.size + len(whole) + size] + self.name + whole
        if len(self.heads) < _MAX_VALUES:
            self.heads[size] = made
        return made

    def integer(self, value: int) -> bytes:
        """Encode an integer; beyond 64 bits it is text."""
        if value < 0:
            if value < -(1 << 63):
                return self.string(_big(value))
            digits = _varint(value + (1 << 64))
        elif value < 1 << 63:
            digits = VARINT[value]
        else:
            return self.string(_big(value))
        made = (self.integers.get(len(digits)) or self.before_integer(len(digits))) + digits
        if self.room_numbers:
            self.room_numbers -= 1
            self.numbers[value] = made
        return made

    def before_integer(self, size: int) -> bytes:
        """Make all that stands before a varint of this many bytes."""
        made = VARINT[self.size + size + 3] + self.name + b"\x12" + VARINT[size + 1] + b"\x18"
        self.integers[size] = made
        return made

    def sequence(self, value: tuple[Any, ...]) -> bytes:
        """One string in a tuple is what most sequences are: a finish reason, an encoding format."""
        if len(value) != 1 or type(value[0]) is not str:
            return self.message(any_value(value))
        made = self.single.get(value[0])
        if made is None:
            made = self.message(any_value(value))
            if len(made) <= 2 * _MAX_LENGTH and len(self.single) < _MAX_VALUES:
                self.single[value[0]] = made
        return made


_keys: dict[str, _Key] = {}


def _key(key: Any) -> _Key:
    known = _Key(key if isinstance(key, str) else _key_text(key))
    if type(key) is str and len(key) <= 256:
        if len(_keys) >= _MAX_KEYS:
            _keys.clear()
        _keys[key] = known
    return known


def _key_text(key: Any) -> str:
    if key is None or type(key) in (bool, float):
        return str(key)
    return _big(key) if type(key) is int else f"<{type(key).__name__}>"


def _big(value: int) -> str:
    bits = value.bit_length()
    return str(value) if bits < 4096 else f"<int of {bits} bits>"  # longer ones make `str` raise


def attributes(tag: bytes, items: Mapping[str, Any], depth: int = 0) -> bytes:
    """Encode a mapping as repeated KeyValue fields with this tag."""
    parts = [b""]
    add = parts.append
    known_keys = _keys
    for key, value in items.items():
        try:
            known = known_keys[key]
        except KeyError:
            known = _key(key)
        kind = type(value)
        if kind is str:
            add(known.strings.get(value) or known.string(value))
        elif kind is int:
            add(known.numbers.get(value) or known.integer(value))
        elif kind is float:
            add(known.doubles + double(value))
        elif kind is bool:
            add(known.true if value else known.false)
        elif kind is tuple and not depth:
            add(known.sequence(value))
        else:
            add(known.message(any_value(value, depth)))
    return tag.join(parts)


def any_value(value: Any, depth: int = 0) -> bytes:
    """Encode one AnyValue; what OTLP has no type for is named by its class."""
    if isinstance(value, str):
        return field(b"\x0a", text(value))
    if isinstance(value, (list, tuple)):
        return _array(value, depth + 1)
    if isinstance(value, dict):
        return _mapping(value, depth + 1)
    return _scalar(value, depth)


def _scalar(value: Any, depth: int) -> bytes:
    if value is None:
        return b""
    if isinstance(value, bool):
        return b"\x10\x01" if value else b"\x10\x00"
    if isinstance(value, int):
        return _integer(value)
    if isinstance(value, float):
        return b"\x21" + double(value)
    if isinstance(value, bytes):
        return field(b"\x3a", value)
    if isinstance(value, Mapping):
        return _mapping(value, depth + 1)
    return field(b"\x0a", text(f"<{type(value).__name__}>"))


def _integer(value: int) -> bytes:
    if -(1 << 63) <= value < 1 << 63:
        return b"\x18" + VARINT[value & 0xFFFFFFFFFFFFFFFF]
    return field(b"\x0a", _big(value).encode())


_TOO_DEEP = field(b"\x0a", b"<nested too deep>")


def _mapping(value: Mapping[str, Any], depth: int) -> bytes:
    return field(b"\x32", attributes(b"\x0a", value, depth)) if depth <= MAX_DEPTH else _TOO_DEEP


def _array(value: list[Any] | tuple[Any, ...], depth: int) -> bytes:
    if depth > MAX_DEPTH:
        return _TOO_DEEP
    return field(b"\x2a", b"".join([field(b"\x0a", any_value(item, depth)) for item in value]))

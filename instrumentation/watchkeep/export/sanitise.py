"""Whatever an app holds, turned into values that can be queued and sent: bounded, plain, without secrets.

No method of an unknown object is called: not `str`, not `repr`, not `len`, not an iterator. Subclasses of the
plain types are read through the plain type itself, past whatever they override; even `isinstance` would ask an
object for its class. The input is never changed.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Mapping
from itertools import islice
from typing import Any

from watchkeep.export.mask import MASKED, mask, telling
from watchkeep.export.model import LogData, SpanData

MAX_DEPTH = 8
MAX_ITEMS = 64
MAX_NODES = 256
MAX_ATTRIBUTES = 128
MAX_KEY = 256
_MARGIN = 320  # read beyond the cut, so that a secret on the edge is seen whole
_MAX_KEYS = 2048

_SURROGATES = re.compile("[\ud800-\udfff]")
_limit = 8192

_keys: dict[str, tuple[str, bool]] = {}

# Types whose text says what they are and whose `str` is the standard library's own; by name, so that none is imported.
_READABLE = frozenset(
    (
        ("datetime", "datetime"),
        ("datetime", "date"),
        ("datetime", "time"),
        ("datetime", "timedelta"),
        ("decimal", "Decimal"),
        ("fractions", "Fraction"),
        ("uuid", "UUID"),
        ("pathlib", "PosixPath"),
        ("pathlib", "PurePosixPath"),
        ("pathlib", "WindowsPath"),
        ("ipaddress", "IPv4Address"),
        ("ipaddress", "IPv6Address"),
    )
)


def configure(max_bytes: int) -> None:
    """Set to how many bytes text is cut."""
    global _limit
    _limit = max(16, max_bytes)


def clean_attributes(attributes: Mapping[Any, Any]) -> dict[str, Any]:
    """Make a clean copy of attributes; keys that name a secret lose their text."""
    out: dict[str, Any] = {}
    limit = _limit
    for key, value in _items(attributes, MAX_ATTRIBUTES):
        known = _keys.get(key) if type(key) is str else None
        name, secret = known or _key(key)
        kind = type(value)
        if kind is str and not secret and len(value) <= limit and value.isascii():
            out[name] = mask(value)
        elif kind is bool or kind is float or (kind is int and -(1 << 63) <= value < 1 << 63):
            out[name] = value
        else:
            out[name] = _secret(value) if secret else clean_value(value)
    return out


def clean_span(span: SpanData) -> SpanData:
    """Clean a span that somebody else made, in place; return it."""
    span.name, span.status_message = clean_text(span.name), clean_text(span.status_message)
    span.attributes = clean_attributes(span.attributes)
    for link in span.links:
        link.attributes = clean_attributes(link.attributes)
    for event in span.events:
        event.name, event.attributes = clean_text(event.name), clean_attributes(event.attributes)
    return span


def clean_log(log: LogData) -> LogData:
    """Clean a log record that somebody else made, in place; return it."""
    log.body, log.event_name = clean_value(log.body), clean_text(log.event_name)
    log.severity_text = clean_text(log.severity_text)
    log.attributes = clean_attributes(log.attributes)
    return log


def clean_value(value: Any) -> Any:
    """Make a clean copy of one value: text, number, bool, bytes, None, list or dict."""
    return _Walk().value(value, 0)


def clean_text(text: str) -> str:
    """Make text plain: no lone surrogates, no secrets, no longer than the limit."""
    if type(text) is not str:
        text = str.__str__(text)
    if len(text) > _limit:
        return _cut(text)
    if text.isascii():
        return mask(text)
    masked = mask(_replaced(text))
    return masked if len(masked) * 4 <= _limit else _shortened(masked, len(text))


def _cut(text: str) -> str:
    head = text[: _limit + _MARGIN]
    return _shortened(mask(_replaced(head)), len(text))


def _shortened(text: str, whole: int) -> str:
    """Cut to the limit in UTF-8, and say how long it was."""
    data = text.encode()
    if len(data) <= _limit and whole <= _limit:
        return text
    mark = f"...[{whole} characters]"
    return data[: max(0, _limit - len(mark))].decode("utf-8", "ignore") + mark


def _replaced(text: str) -> str:
    return text if text.isascii() else _SURROGATES.sub("\ufffd", text)


def _secret(value: Any) -> Any:
    """Hide text beside a telling key; a number or a flag is no secret."""
    if value is None or issubclass(type(value), (int, float)):
        return clean_value(value)
    return MASKED


def _key(key: Any) -> tuple[str, bool]:
    """Clean a key, and find out whether it names a secret; keys repeat, so both are remembered."""
    text = _key_text(key)[:MAX_KEY]
    found = mask(_replaced(text)), telling(text)
    if type(key) is str and len(key) <= MAX_KEY:
        if len(_keys) >= _MAX_KEYS:
            _keys.clear()
        _keys[key] = found
    return found


def _key_text(key: Any) -> str:
    if issubclass(type(key), str):
        return str.__str__(key)
    if key is None or type(key) in (bool, float):
        return str(key)
    return _integer_text(key) if type(key) is int else f"<{_class(key)}>"


def _class(value: Any) -> str:
    name = type.__dict__["__name__"].__get__(type(value))  # past a metaclass that overrides it
    return _replaced(str(name))[:100]


def _integer_text(value: int) -> str:
    bits = value.bit_length()
    return str(value) if bits < 4096 else f"<int of {bits} bits>"


def _items(mapping: Any, most: int) -> list[tuple[Any, Any]]:
    """Read a mapping's items without its own methods, where it is a dict."""
    try:
        if issubclass(type(mapping), dict):
            return list(islice(dict.items(mapping), most))
        if type(mapping) is _PROXY:
            return list(islice(mapping.items(), most))
    except RuntimeError:  # changed by another thread meanwhile
        return []
    return []


_PROXY = type(type.__dict__)


class _Walk:
    """One walk through a value, with a budget."""

    __slots__ = ("left", "open")

    def __init__(self) -> None:
        self.left = MAX_NODES
        self.open: set[int] = set()  # the containers we are inside of

    def value(self, value: Any, depth: int) -> Any:
        self.left -= 1
        if value is None or value is True or value is False:
            return value
        kind = type(value)
        if issubclass(kind, str):
            return clean_text(value)
        if issubclass(kind, int):
            return _integer(int.__int__(value))
        if issubclass(kind, float):
            return float.__float__(value)
        if issubclass(kind, (bytes, bytearray)):
            return _bytes(value)
        return self.composite(value, depth)

    def composite(self, value: Any, depth: int) -> Any:
        plain = issubclass(type(value), (dict, list, tuple, set, frozenset)) or type(value) is _PROXY
        if not plain:
            return _named(value)
        if id(value) in self.open:
            return "<recursive>"
        if depth >= MAX_DEPTH or self.left <= 0:
            return "<nested too deep>" if depth >= MAX_DEPTH else "<too large>"
        self.open.add(id(value))
        try:
            return self.mapping(value, depth) if _is_mapping(value) else self.sequence(value, depth)
        finally:
            self.open.discard(id(value))

    def mapping(self, value: Any, depth: int) -> dict[str, Any]:
        out: dict[str, Any] = {}
        for key, item in _items(value, MAX_ITEMS):
            if self.left <= 0:
                break
            name, secret = _key(key)
            out[name] = _secret(item) if secret else self.value(item, depth + 1)
        return out

    def sequence(self, value: Any, depth: int) -> list[Any]:
        out = []
        for item in _elements(value):
            if self.left <= 0:
                break
            out.append(self.value(item, depth + 1))
        return out


def _is_mapping(value: Any) -> bool:
    return issubclass(type(value), dict) or type(value) is _PROXY


def _elements(value: Any) -> list[Any]:
    base: Any = next(kind for kind in (list, tuple, set, frozenset) if issubclass(type(value), kind))
    elements: Iterable[Any] = base.__iter__(value)
    try:
        return list(islice(elements, MAX_ITEMS))
    except RuntimeError:
        return []


def _integer(value: int) -> int | str:
    return value if -(1 << 63) <= value < 1 << 63 else _integer_text(value)


def _bytes(value: bytes | bytearray) -> bytes:
    base: Any = bytes if issubclass(type(value), bytes) else bytearray
    return bytes(base.__getitem__(value, slice(0, _limit)))


def _named(value: Any) -> str:
    """Name the class; a few of the standard library's own are shown in full."""
    kind = type(value)
    module = type.__dict__["__module__"].__get__(kind)
    name = _class(value)
    if (module, name) in _READABLE and getattr(sys.modules.get(module), name, None) is kind:
        return clean_text(str(value))
    return f"<{name}>"

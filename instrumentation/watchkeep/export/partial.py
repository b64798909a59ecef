"""How many items a receiver refused inside an answer that says 200: OTLP's partial success."""

from __future__ import annotations


def rejected(body: bytes) -> tuple[int, str]:
    """Read an Export…ServiceResponse of any signal: the count of refused items, and the receiver's words."""
    try:
        count, words = 0, b""
        for number, value in _fields(body):
            if number == 1 and isinstance(value, bytes):
                for inner, what in _fields(value):
                    if inner == 1 and isinstance(what, int):
                        count = what
                    elif inner == 2 and isinstance(what, bytes):
                        words = what
        return (count if count < 1 << 63 else 0), words[:200].decode("utf-8", "replace")
    except (ValueError, IndexError):
        return 0, ""


def _fields(data: bytes) -> list[tuple[int, int | bytes]]:
    found: list[tuple[int, int | bytes]] = []
    at = 0
    while at < len(data):
        tag, at = _varint(data, at)
        if tag & 7 == 0:
            value, at = _varint(data, at)
            found.append((tag >> 3, value))
        elif tag & 7 == 2:
            size, at = _varint(data, at)
            found.append((tag >> 3, data[at : at + size]))
            at += size
        else:
            raise ValueError(tag)
    return found


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        byte = data[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
    raise ValueError(at)

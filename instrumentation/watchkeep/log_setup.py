"""`setup_logging`: for apps that have no logging of their own yet. JSON lines, or coloured ones for people."""

from __future__ import annotations

import json
import logging
import math
import os
import re
import time
from logging.handlers import RotatingFileHandler
from typing import Any, TextIO

from watchkeep import context, guard, logs, names, raised
from watchkeep.console import safe
from watchkeep.export.sanitise import clean_value

_COLOURS = {
    logging.DEBUG: "2",
    logging.INFO: "32",
    logging.WARNING: "33",
    logging.ERROR: "31",
    logging.CRITICAL: "1;31",
}
_IDS = (logs.TRACE_ID, logs.SPAN_ID, logs.TRACE_FLAGS)
_UNSAFE = re.compile("[\x7f-\x9f\u2028\u2029]")  # JSON leaves them, terminals and line readers act on them

_ours: list[logging.Handler] = []


def setup_logging(
    level: int | str = "INFO",
    json_format: bool = False,
    log_file: str | os.PathLike[str] | None = None,
    *,
    max_bytes: int = 10 << 20,
    backup_count: int = 5,
    stream: TextIO | None = None,
) -> None:
    """Write the root logger's lines to `stream` (stderr), and to `log_file` with rotation; a second call replaces both.

    JSON lines carry timestamp, level, logger, message, ids and every extra field; the other form is for people, and
    coloured on a terminal. A file that cannot be written is named in a warning, and the app runs on without it.
    """
    root = logging.getLogger()
    while _ours:
        handler = _ours.pop()
        root.removeHandler(handler)
        handler.close()
    _add(root, logging.StreamHandler(stream), json_format)
    if log_file is not None:
        file = _file(log_file, max_bytes, backup_count)
        if file is not None:
            _add(root, file, json_format)
    root.setLevel(_level(level))


def _add(root: logging.Logger, handler: logging.Handler, json_format: bool) -> None:
    handler.setFormatter(JsonFormatter() if json_format else ConsoleFormatter(_is_coloured(handler)))
    _ours.append(handler)
    root.addHandler(handler)


def _is_coloured(handler: Any) -> bool:
    if isinstance(handler, RotatingFileHandler) or os.environ.get("NO_COLOR"):
        return False
    return bool(getattr(handler.stream, "isatty", bool)())


def _file(path: str | os.PathLike[str], max_bytes: int, backup_count: int) -> logging.Handler | None:
    try:
        os.makedirs(os.path.dirname(os.path.abspath(path)), exist_ok=True)
        return RotatingFileHandler(
            path, maxBytes=max_bytes, backupCount=backup_count, encoding="utf-8", errors="backslashreplace"
        )
    except OSError as error:
        reason = f"log file {os.fspath(path)} cannot be written ({error.strerror}); lines go to the stream only"
        guard.warn("setup_logging", f"setup_logging: {safe(reason)}. Check the folder's permissions")
        return None


def _level(level: int | str) -> int:
    found = logging.getLevelName(level.strip().upper()) if isinstance(level, str) else level
    if isinstance(found, int) and not isinstance(found, bool):
        return found
    guard.warn("setup_logging", f"setup_logging: {level!r} is no level; use DEBUG, INFO, WARNING, ERROR or CRITICAL")
    return logging.INFO


class JsonFormatter(logging.Formatter):
    """One JSON object a line: `timestamp`, `level`, `logger`, `message`, ids, then attributes by their full names."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        line: dict[str, Any] = {
            "timestamp": _timestamp(record.created),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
            **_ids(record),
            names.CODE_FILE_PATH: record.pathname,
            names.CODE_FUNCTION_NAME: record.funcName,
            names.CODE_LINE_NUMBER: record.lineno,
        }
        line.update((key, value) for key, value in _extras(record).items() if key not in line)
        if record.exc_info and record.exc_info[1] is not None:
            error = record.exc_info[1]
            line[names.EXCEPTION_TYPE] = raised.kind_of(error)
            line[names.EXCEPTION_MESSAGE] = raised.text_of(error)
            line[names.EXCEPTION_STACKTRACE] = self.formatException(record.exc_info)
        text = json.dumps(line, ensure_ascii=False, default=_other)
        return _UNSAFE.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


class ConsoleFormatter(logging.Formatter):
    """A line for people: time, level, logger, message, extra fields; nothing in it can move a terminal's cursor."""

    def __init__(self, coloured: bool = False) -> None:
        super().__init__()
        self.coloured = coloured

    def format(self, record: logging.LogRecord) -> str:
        """Return the line; those of a longer message are indented, so that none looks like another record."""
        at = time.strftime("%H:%M:%S", time.localtime(record.created))
        extras = "".join(f" {key}={value}" for key, value in _extras(record).items())
        level = self._paint(f"{safe(record.levelname):<8}", _COLOURS.get(record.levelno, "0"))
        tail = self._paint(safe(f"{extras}  [{_correlation(record)}]"), "2")
        text = f"{at}.{int(record.msecs):03d} {level} {safe(record.name)}  {_indented(record.getMessage())}{tail}"
        for more in (self.formatException(record.exc_info) if record.exc_info else "", record.stack_info):
            if more:
                text += f"\n    {_indented(more)}"
        return text

    def _paint(self, text: str, colour: str) -> str:
        return f"\x1b[{colour}m{text}\x1b[0m" if self.coloured else text


def _indented(text: str) -> str:
    return "\n    ".join(safe(line.replace("\t", "    ")) for line in text.split("\n"))


def _ids(record: logging.LogRecord) -> dict[str, Any]:
    if logs.CORRELATION_ID not in record.__dict__:  # nobody instruments `logging`
        logs.identify(record)
    found = {key: record.__dict__[key] for key in _IDS if record.__dict__.get(key)}
    correlation = _correlation(record)
    return {**found, logs.CORRELATION_ID: correlation, names.AGENT_RUNTIME_CORRELATION_ID: correlation}


def _correlation(record: logging.LogRecord) -> str:
    return context.accepted(record.__dict__.get(logs.CORRELATION_ID)) or context.correlation_id()


def _extras(record: logging.LogRecord) -> dict[str, Any]:
    return {str(key): _plain(clean_value(value)) for key, value in logs.extras(record)}


def _plain(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)  # JSON has no word for it
    if isinstance(value, dict):
        return {key: _plain(each) for key, each in value.items()}
    return [_plain(each) for each in value] if isinstance(value, list) else value


def _other(value: Any) -> Any:
    return value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else f"<{type(value).__name__}>"


def _timestamp(created: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(created)) + f".{int(created % 1 * 1000):03d}Z"

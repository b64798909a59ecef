"""A log line of the app: ids put on its record, and its form for OTLP; what the app prints stays as it is.

No object of the app's is asked for its text: a line carries what a handler of the app has formatted, or else what
`%` makes of plain values. Nothing here waits for a lock.
"""

from __future__ import annotations

import logging
import os
import re
import sys
from collections import deque
from typing import Any

from watchkeep import app, clock, context, names, raised, runtime
from watchkeep.export.model import LogData, Scope
from watchkeep.export.sanitise import clean_attributes, clean_text, clean_value

TRACE_ID, SPAN_ID, TRACE_FLAGS, CORRELATION_ID = "trace_id", "span_id", "trace_flags", "correlation_id"
"""The names on an app's `LogRecord`, as people write them in formats; registry names are used everywhere else."""

_IDS = frozenset((TRACE_ID, SPAN_ID, TRACE_FLAGS, CORRELATION_ID))
_BARE = logging.LogRecord("", 0, "", 0, "", (), None).__dict__  # not by the record factory, which may be the app's
_STANDARD = frozenset((*_BARE, "message", "asctime", "taskName", "color_message", *_IDS))
_PLAIN = frozenset((str, int, float, bool, type(None)))
_SILENT = ("watchkeep", "opentelemetry")  # ours, and those who speak when they cannot send our lines
# Their DEBUG lines print requests and answers.
_SDKS = frozenset(
    (
        *("openai", "anthropic", "google_genai", "google", "groq", "mistralai", "cohere", "ollama", "botocore"),
        *("LiteLLM", "LiteLLM Router", "LiteLLM Proxy", "litellm", "instructor", "mcp", "websockets"),
        *("agents", "langchain", "langgraph", "langsmith", "llama_index", "pydantic_ai", "dspy", "crewai", "strands"),
        *("smolagents", "autogen_core", "autogen_agentchat", "autogen_ext"),
        *("httpx", "httpx2", "httpcore", "httpcore2", "h11", "h2", "hpack", "urllib3", "requests", "aiohttp"),
    )
)
_FAMILY = "langchain_"  # one package for each provider
_HUGE = re.compile(r"\*|\d{4}")  # in a format: widths that would make a text of any size
_MAX_NAMES = 1024
_EARLY = 1000

_UNKNOWN = Scope("")
_scopes: dict[str, Scope | None] = {}  # by logger; None: not shipped
_early: deque[LogData] = deque(maxlen=_EARLY)  # while another thread starts the pipeline


# -- ids -------------------------------------------------------------------------------------------------


def identify(record: logging.LogRecord) -> None:
    """Put trace, span, correlation ID and what else is known here on a record; what the app put there stays."""
    fields = record.__dict__
    if CORRELATION_ID in fields:
        context.adopt(fields[CORRELATION_ID])
    else:
        fields[CORRELATION_ID] = context.correlation_id()
    span = _current_span()
    if span is None:
        fields.setdefault(TRACE_ID, "")
        fields.setdefault(SPAN_ID, "")
    else:
        fields.setdefault(TRACE_ID, f"{span.trace_id:032x}")
        fields.setdefault(SPAN_ID, f"{span.span_id:016x}")
        fields.setdefault(TRACE_FLAGS, f"{span.trace_flags & 1:02x}")
    for key, value in context.entity.get().items():
        fields.setdefault(key, value)


def _current_span() -> Any:
    trace = sys.modules.get("opentelemetry.trace")
    if trace is None or not hasattr(trace, "get_current_span"):  # nobody has made a span
        return None
    span = trace.get_current_span()
    pending = sys.modules.get("watchkeep.pending")
    if pending is not None:
        span = pending.known(span)  # a line alone makes nothing a span
    found = span.get_span_context()
    return found if found.trace_id else None


# -- shipping ----------------------------------------------------------------------------------------------


def wanted(name: object) -> bool:
    """Tell whether lines of this logger are shipped at all."""
    config = runtime.config()
    if not config.app_logs or not config.logs or type(name) is not str:
        return False
    scope = _scopes.get(name, _UNKNOWN)
    if scope is _UNKNOWN:
        if len(_scopes) >= _MAX_NAMES:
            _scopes.clear()
        scope = _scopes[name] = None if name.partition(".")[0] in _SILENT else Scope(name)
    return scope is not None


def take(logger: logging.Logger, record: logging.LogRecord) -> None:
    """Ship one line, which the app's handlers have had by now."""
    if _is_quoting(record) or _was_taken_elsewhere(record):
        return
    if runtime.started() is None and not runtime.config().exports("logs"):
        return  # nobody would take it: the pipeline need not start for it
    emitter = runtime.offer()
    log = line(record)
    if emitter is None:
        _early.append(log)
    else:
        _put(emitter, log, app.show_log is not None and _given_to_opentelemetry(logger, record))


def release() -> None:
    """Ship the lines that came while the pipeline was being made."""
    while _early:
        _put(runtime.emitter(), _early.popleft(), False)


def _put(emitter: Any, log: LogData, shown: bool) -> None:
    if app.show_log is None or app.show_log(log, shown):
        emitter.put(log)


def _is_quoting(record: logging.LogRecord) -> bool:
    root = record.name.partition(".")[0]
    if root not in _SDKS and not root.startswith(_FAMILY):
        return False
    if record.levelno <= logging.DEBUG and runtime.config().capture_content == "NO_CONTENT":
        return True
    return _is_exporting()


def _is_exporting() -> bool:
    # What an HTTP client says while an exporter sends would be sent, and said again.
    otel = sys.modules.get("opentelemetry.context")
    return otel is not None and bool(otel.get_value(otel._SUPPRESS_INSTRUMENTATION_KEY))


def _was_taken_elsewhere(record: logging.LogRecord) -> bool:
    # A record that another process made, and identified, was taken there; it came here through a queue or a socket.
    return record.process is not None and record.process != os.getpid() and SPAN_ID in record.__dict__


def _given_to_opentelemetry(logger: logging.Logger | None, record: logging.LogRecord) -> bool:
    """Tell whether a handler has passed the line on to OpenTelemetry's API."""
    while logger is not None:
        for handler in logger.handlers:
            if record.levelno >= handler.level and any(
                each.__name__ == "LoggingHandler" and each.__module__.startswith("opentelemetry.")
                for each in type(handler).__mro__
            ):
                return True
        logger = logger.parent if logger.propagate else None
    return False


def _reset_in_child() -> None:
    _early.clear()


os.register_at_fork(after_in_child=_reset_in_child)


# -- the form for OTLP -------------------------------------------------------------------------------------


def line(record: logging.LogRecord) -> LogData:
    """Return a record as it is shipped."""
    if CORRELATION_ID not in record.__dict__:  # a logger class with a `makeRecord` of its own
        identify(record)
    content = runtime.config().capture_content != "NO_CONTENT"
    log = LogData(
        int(record.created * 1e9),
        clock.wall(),
        severity(record.levelno),
        "WARN" if record.levelname == "WARNING" else clean_text(record.levelname),
        _body(record, content),
        _attributes(record, content),
        _scopes.get(record.name) or Scope(record.name),
    )
    log.trace_id, log.span_id, log.flags = _place(record.__dict__)
    return log


def severity(level: int) -> int:
    """Return OTLP's number for a level of `logging`: 10 is DEBUG, 20 INFO, 30 WARN, 40 ERROR, 50 FATAL."""
    if level <= 0:
        return 0
    return min(level // 10, 5) * 4 + 1 + (3 if level > 59 else min(level % 10, 3))


def _place(fields: dict[str, Any]) -> tuple[int, int, int]:
    try:
        trace_id, span_id = int(fields[TRACE_ID] or "0", 16), int(fields[SPAN_ID] or "0", 16)
    except (KeyError, TypeError, ValueError):  # the app has ids of its own under these names
        span = _current_span()
        return (span.trace_id, span.span_id, span.trace_flags & 1) if span is not None else (0, 0, 0)
    if trace_id >> 128 or span_id >> 64:
        return 0, 0, 0
    return trace_id, span_id, int(fields.get(TRACE_FLAGS) == "01")


def _attributes(record: logging.LogRecord, content: bool) -> dict[str, Any]:
    fields = record.__dict__
    found: dict[str, Any] = {
        names.AGENT_RUNTIME_CORRELATION_ID: "",
        names.CODE_FILE_PATH: record.pathname,
        names.CODE_FUNCTION_NAME: record.funcName,
        names.CODE_LINE_NUMBER: record.lineno,
    }
    found.update(extras(record))
    error = record.exc_info[1] if record.exc_info else None
    if error is not None:
        found.update(raised.attributes_of(error, record.exc_info[2], content))  # type: ignore[index]
    found = clean_attributes(found)
    found[names.AGENT_RUNTIME_CORRELATION_ID] = context.accepted(fields[CORRELATION_ID]) or context.correlation_id()
    return found


def extras(record: logging.LogRecord) -> list[tuple[str, Any]]:
    """Return what the app, or we, added to a record beside its standard fields and the ids."""
    return [(key, value) for key, value in record.__dict__.items() if key not in _STANDARD and value is not None]


# -- the text ------------------------------------------------------------------------------------------------


def _body(record: logging.LogRecord, content: bool) -> Any:
    message = record.__dict__.get("message")  # what a handler of the app has made of it
    if type(message) is not str:
        message = _formatted(record.msg, record.args)
    if type(message) is not str:
        return message
    if not content:
        errors = [each for each in _arguments(record.args) if issubclass(type(each), BaseException)]
        errors += filter(None, (sys.exc_info()[1], record.exc_info[1] if record.exc_info else None))
        if errors:
            message = raised.without_quotes(message, errors)
    return clean_text(message)


def _arguments(args: Any) -> tuple[Any, ...]:
    if type(args) is tuple:
        return args
    return tuple(args.values()) if type(args) is dict else ()


def _formatted(form: Any, args: Any) -> Any:
    """Return the text of a line that no handler has formatted, or its value where it is no text."""
    if not issubclass(type(form), str):
        return clean_value(form)
    form = str.__str__(form)
    named = issubclass(type(args), dict)
    if (not named and type(args) is not tuple) or len(form) > _LONG_FORM or _HUGE.search(form):
        return form
    try:
        if named:
            return form % {key: _shown(value) for key, value in dict.items(args)}
        return form % tuple([_shown(value) for value in args]) if args else form
    except (TypeError, ValueError, KeyError, OverflowError):  # a wrong format is the app's own matter
        return form


_LONG_FORM = 65536


def _shown(value: Any) -> Any:
    if type(value) in _PLAIN:
        return value
    if issubclass(type(value), BaseException):
        told = BaseException.args.__get__(value)  # type: ignore[attr-defined]
        return told[0] if len(told) == 1 and type(told[0]) is str else f"<{type(value).__name__}>"
    return clean_value(value)

"""What an LLM call says in log records: its exception, and, where settings ask for it, its story and its content."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from watchkeep import clock, content, names, raised, runtime
from watchkeep.export.model import LogData
from watchkeep.export.queue import CONTENT

if TYPE_CHECKING:
    from watchkeep.content import Kept
    from watchkeep.llm import LLMCall

_SEVERITY = {names.DEBUG: "DEBUG", names.INFO: "INFO", names.ERROR: "ERROR"}
_DETAILS = ("gen_ai.", "server.", "openai.", names.ERROR_TYPE, names.AGENT_RUNTIME_CORRELATION_ID)


def exception(call: LLMCall, error: BaseException) -> None:
    """Record the exception that ended a call, as the standard event."""
    if isinstance(error, Exception):  # not a cancellation, which is the app's own will
        found = raised.attributes_of(error, error.__traceback__, content.wanted())
        runtime.emitter().event(names.EVENT_EXCEPTION, call.scope, found, call)


def started(call: LLMCall) -> None:
    """Say that a call begins, with what it asks for and the path that it is made on."""
    attributes = {**call.attributes, names.AGENT_RUNTIME_EXECUTION_PATH: _path()}
    attributes[names.AGENT_RUNTIME_CORRELATION_ID] = call.correlation
    runtime.emitter().log(_log(call, names.DEBUG, f"{_title(call)} started", attributes, call.start_ns))


def told(call: LLMCall) -> Iterator[LogData]:
    """Yield the log records of a call that is over and complete."""
    config = runtime.config()
    if config.operation_logs:
        yield _story(call)
    if call.kept is not None and config.content_on_events:
        yield _details(call, call.kept)


def _story(call: LLMCall) -> LogData:
    attributes = {key: value for key, value in call.attributes.items() if key not in CONTENT}
    attempts = f"{call.sends} attempt{'' if call.sends == 1 else 's'}"
    if call.sends > 1:
        attributes[names.HTTP_REQUEST_RESEND_COUNT] = call.sends - 1
    if call.error is not None:
        kind, origin = call.error
        text = f"{_title(call)} failed after {call.seconds:.2f}s, {attempts}: {kind} ({origin})"
        return _log(call, names.ERROR, text, attributes, call.end_ns)
    text = f"{_title(call)} took {call.seconds:.2f}s, {attempts}, {_tokens(call)}"
    return _log(call, names.INFO, text, attributes, call.end_ns)


def _details(call: LLMCall, kept: Kept) -> LogData:
    attributes = {key: value for key, value in call.attributes.items() if key.startswith(_DETAILS)}
    attributes.update(content.gather(kept))
    log = _log(call, names.EVENT_INFERENCE_DETAILS.severity, "", attributes, call.end_ns)
    log.body, log.event_name = None, names.EVENT_INFERENCE_DETAILS.name
    return log


def _title(call: LLMCall) -> str:
    return call.span.name(call.attributes)


def _tokens(call: LLMCall) -> str:
    usage = call.usage
    if usage is None:
        return "tokens unknown"
    given, made = ("?" if count is None else count for count in (usage.input, usage.output))
    return f"{given} in / {made} out tokens"


def _log(call: LLMCall, severity: int, text: str, attributes: dict[str, Any], at: int) -> LogData:
    log = LogData(at, clock.wall(), severity, _SEVERITY[severity], text, attributes, call.scope)
    log.trace_id, log.span_id, log.flags = call.trace_id, call.span_id, int(call.sampled)
    return log


def _path() -> str:
    multiprocessing = sys.modules.get("multiprocessing.process")
    if multiprocessing is not None and multiprocessing.parent_process() is not None:
        return "process_pool"
    pool = sys.modules.get("concurrent.futures.thread")
    work = getattr(threading.current_thread(), "_target", None)
    return "thread_pool" if work is not None and work is getattr(pool, "_worker", None) else "direct"

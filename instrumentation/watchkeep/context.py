"""Correlation and parents: what one unit of work knows about itself, in context variables.

The correlation ID is one per process unless a request, a run, baggage or the app's own variable
overrides it; it stands on every span, log line and event, and never becomes a metric label.
"""

from __future__ import annotations

import os
import re
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar, Token
from typing import TYPE_CHECKING, Any

from watchkeep import guard, names

if TYPE_CHECKING:
    from watchkeep.llm import LLMCall
    from watchkeep.logical import Logical
    from watchkeep.record import Record

ENVIRONMENT_KEY = "WATCHKEEP_CORRELATION_ID"
BAGGAGE_KEY = "correlation.id"

_ACCEPTED = re.compile(r"[A-Za-z0-9._:-]{1,128}\Z")

current: ContextVar[Record | None] = ContextVar("watchkeep.current", default=None)
"""The innermost operation of ours that is open here."""
call: ContextVar[LLMCall | None] = ContextVar("watchkeep.call", default=None)
"""The LLM call that is being made here; attempts and checkouts belong to it."""
logical: ContextVar[Logical | None] = ContextVar("watchkeep.logical", default=None)
"""The retry or breaker around the calls made here, which counts them as one."""
_NOBODY: dict[str, Any] = {}
entity: ContextVar[dict[str, Any]] = ContextVar("watchkeep.entity", default=_NOBODY)
"""Agent, task, workflow, session and conversation, where known: attributes for spans and log lines."""
line_taken: ContextVar[bool] = ContextVar("watchkeep.line_taken", default=False)
"""We have taken the log line that the app's handlers are given here: read along in its LoggerProvider, it is known."""

_correlation: ContextVar[str | None] = ContextVar("watchkeep.correlation", default=None)
_adopted: ContextVar[str | None] = ContextVar("watchkeep.adopted", default=None)
_process_id: str = ""
_source: Callable[[], object] | None = None


def accepted(value: object) -> str | None:
    """Return `value` when it may be a correlation ID (one to 128 of letters, digits and ``._:-``)."""
    if isinstance(value, str) and _ACCEPTED.match(value):
        return str(value)
    return None


def process_correlation_id() -> str:
    """Return the ID of this process: the one handed down by its parent, or a new one."""
    global _process_id
    if not _process_id:
        _process_id = accepted(os.environ.get(ENVIRONMENT_KEY)) or uuid.uuid4().hex
    return _process_id


def correlation_id() -> str:
    """Return the correlation ID that holds here."""
    found = _correlation.get()
    if found is not None:
        return found
    if _source is not None:
        found = accepted(guard.run(_source))
        if found is not None:
            return found
    return _from_baggage() or _adopted.get() or process_correlation_id()


def set_correlation_id(value: str) -> Token[str | None] | None:
    """Make `value` the correlation ID of this context (task, thread, request) from here on.

    A value outside ``[A-Za-z0-9._:-]{1,128}`` is not taken: the ID stays as it was and None is returned.
    Otherwise a token for `reset_correlation_id` is returned.
    """
    checked = accepted(value)
    if checked is None:
        guard.warn("set_correlation_id", "the correlation ID was not taken: use 1 to 128 of A-Z a-z 0-9 . _ : -")
        return None
    return _correlation.set(checked)


def reset_correlation_id(token: Token[str | None]) -> None:
    """Give the correlation ID back that held before `set_correlation_id`."""
    _correlation.reset(token)


@contextmanager
def correlation(value: str) -> Iterator[str]:
    """Let `value` be the correlation ID inside a ``with`` block."""
    token = set_correlation_id(value)
    try:
        yield correlation_id()
    finally:
        if token is not None:
            _correlation.reset(token)


def adopt(value: object) -> None:
    """Let an ID that the app gave to a log line hold here, unless something more definite says otherwise."""
    checked = accepted(value)
    if checked is not None and checked != _adopted.get():
        _adopted.set(checked)


def set_source(source: Callable[[], object] | None) -> None:
    """Read the app's own correlation variable through `source` (a ContextVar's ``get``, a function)."""
    global _source
    _source = source


def entity_attributes() -> dict[str, Any]:
    """Return agent, task, workflow and session attributes that hold here (do not change the dict)."""
    return entity.get()


@contextmanager
def entities(**attributes: Any) -> Iterator[None]:
    """Add entity attributes (by their full names, given as a mapping) inside a ``with`` block."""
    token = entity.set({**entity.get(), **attributes})
    try:
        yield
    finally:
        entity.reset(token)


_CARRIED: tuple[ContextVar[Any], ...] = (current, call, logical, entity, _correlation)
_NOTHING: tuple[Any, ...] = (None, None, None, _NOBODY, None)


def carry() -> list[tuple[ContextVar[Any], Any]]:
    """Return what of ours holds here, to be put in place where the work goes on: in another thread."""
    carried: list[tuple[ContextVar[Any], Any]] = []
    for variable, nothing in zip(_CARRIED, _NOTHING, strict=True):
        value = variable.get()
        if value is not nothing:
            carried.append((variable, value))
    said = _adopted.get()
    if _source is not None:  # the app's own variable does not go along: what it says does
        said = accepted(guard.run(_source)) or said
    if said is not None:
        carried.append((_adopted, said))
    return carried


def set_session(session_id: str | None = None, conversation_id: str | None = None, user_id: str | None = None) -> None:
    """Say which session, conversation or user this context works for; on spans and log lines, never labels.

    `user_id` is only kept when the setting `user_id` is on.
    """
    from watchkeep import runtime

    known = dict(entity.get())
    for key, value in (
        (names.SESSION_ID, session_id),
        (names.GEN_AI_CONVERSATION_ID, conversation_id),
        (names.USER_ID, user_id if runtime.config().user_id else None),
    ):
        if value is not None:
            known[key] = str(value)
    entity.set(known)


def _from_baggage() -> str | None:
    import sys

    baggage = sys.modules.get("opentelemetry.baggage")
    return accepted(baggage.get_baggage(BAGGAGE_KEY)) if baggage is not None else None


def _reset_in_child() -> None:
    # A forked child keeps the parent's ID: the run is one.
    current.set(None)
    call.set(None)
    logical.set(None)


os.register_at_fork(after_in_child=_reset_in_child)

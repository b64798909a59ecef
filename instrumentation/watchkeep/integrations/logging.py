"""logging: ids on every record, and every line shipped, whatever handlers, levels and propagation the app chose.

Seams: `Logger.makeRecord` (after `extra` was applied, so that the app's own fields win) and `Logger.callHandlers`
(also reached by loggers without handlers and by those that do not propagate). No handler, no record factory.
"""

from __future__ import annotations

from typing import Any

from watchkeep import context, logs, names
from watchkeep.hook import Target
from watchkeep.integrations import Integration, scope

SCOPE = scope("logging", names.SCHEMA_CORE)


def _made(_: Any, record: Any) -> None:
    logs.identify(record)


def _always(args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    return True


def _begins(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, Any, Any] | None:
    record = args[1] if len(args) > 1 else kwargs["record"]
    return (args[0], record, context.line_taken.set(True)) if logs.wanted(record.name) else None


def _ended(state: tuple[Any, Any, Any], _: Any) -> None:
    # After the handlers: they may have formatted the line, and their filters may have set the app's correlation ID.
    logger, record, token = state
    try:
        logs.take(logger, record)
    finally:
        context.line_taken.reset(token)


# `logging` tells its own frames by their file: to name the caller, and to print the stack of a logging error.
INTEGRATION = Integration(
    name="logging",
    scope=SCOPE,
    targets=(
        Target("logging:Logger.makeRecord", _always, _made, hidden=True),
        Target("logging:Logger.callHandlers", _begins, _ended, _ended, hidden=True),
    ),
    at_first_call=True,
)

"""concurrent.futures: each task of a ThreadPoolExecutor, how long it waited for a thread, and what it belongs to.

One seam, the public `submit`, has all that comes this way: `map`, `loop.run_in_executor`, `asyncio.to_thread` and
subclasses. An executor is named by its `thread_name_prefix`, else by where the app makes it, or by the library that
makes it. One whose creation we did not see is named by its class. An `InterpreterPoolExecutor` sends its function to
another interpreter and is left alone.
"""

from __future__ import annotations

import re
from typing import Any

from watchkeep import executors, names, origin
from watchkeep.executors import Pool
from watchkeep.hook import Target
from watchkeep.integrations import Integration, scope

SCOPE = scope("concurrent_futures", names.SCHEMA_EXTENSION)
_NUMBERED = re.compile(r"ThreadPoolExecutor-\d+\Z")  # the library's own prefix, where the app gave none
_TELEMETRY = (origin.OURS, "opentelemetry")  # its threads are not the app's, and begin before its providers are set
_ELSEWHERE = "concurrent.futures.interpreter"


def _creation(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    return args[0]


def _created(executor: Any, _: None) -> None:
    site = origin.site(executor, "concurrent")
    if site.library in _TELEMETRY or _is_elsewhere(executor):
        executors.leave_alone(executor)
    else:
        _register(executor, site.library or site.place)


def _register(executor: Any, otherwise: str) -> Pool:
    prefix = executor._thread_name_prefix
    named = isinstance(prefix, str) and prefix and not _NUMBERED.match(prefix)
    return executors.register(executor, str.__str__(prefix) if named else otherwise or _class(executor), SCOPE)


def _class(executor: Any) -> str:
    return type(executor).__name__


def _is_elsewhere(executor: Any) -> bool:
    return any(base.__module__ == _ELSEWHERE for base in type(executor).__mro__)


def _submitted(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, ...] | None:
    if len(args) < 2:
        return None  # the app's mistake, which the library tells it
    executor = args[0]
    pool = executors.known(executor)
    if pool is None:
        if executors.is_left_alone(executor) or _is_elsewhere(executor):
            return None
        pool = _register(executor, "")
    return executor, *executors.given(pool, args[1], args[2:])


def _refused(args: tuple[Any, ...], error: BaseException) -> None:
    pool = executors.known(args[0]) if args else None
    if pool is not None:
        pool.group.count(names.METRIC_PYTHON_EXECUTOR_TASK_REJECTED)


def _started(_: str) -> None:
    executors.observe(SCOPE)


def _stopped() -> None:
    executors.forget(SCOPE)


INTEGRATION = Integration(
    name="concurrent_futures",
    scope=SCOPE,
    targets=(
        Target("concurrent.futures.thread:ThreadPoolExecutor.__init__", _creation, _created, needed=False),
        Target("concurrent.futures.thread:ThreadPoolExecutor.submit", error=_refused, swap=_submitted),
    ),
    at_first_call=True,
    started=_started,
    stopped=_stopped,
)

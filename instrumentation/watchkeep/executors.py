"""What executors have in common: names, threads, and each task from its submission to its end.

A task takes along what holds where it was submitted: correlation, trace, the operation around it. It is measured
always. It is a span where it has something to tell: inside a trace when it had to queue, outside of any once something
in it begins one. The app's executors are only referred to weakly; those of one name share their series, which stay
when the executors are gone.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable, Iterator
from contextvars import Context, Token
from functools import partial
from types import BuiltinMethodType
from typing import Any

from opentelemetry import context as otel_context
from opentelemetry import trace

from watchkeep import blame, cells, clock, context, guard, names, origin, runtime, tracing, waits
from watchkeep.cells import Observation
from watchkeep.export.model import Scope
from watchkeep.pending import PendingSpan
from watchkeep.record import Measure

THREAD_POOL = "thread_pool"
ACTIVE, IDLE = "active", "idle"
_QUEUED_NS = 10_000_000  # a thread that is free takes less to wake up, on a busy machine too
_LOOKUPS = ("getaddrinfo", "getnameinfo", "_getaddrinfo_debug")  # what an event loop runs in threads for itself
_OF_LOOKUPS = ("socket", "_socket", "asyncio.base_events")
_QUEUE = names.PHASE_KEYS["executor_queue"]


class Group:
    """The executors of one name and type, dead and alive: one set of series."""

    __slots__ = ("announced", "kind", "limit", "measures", "name", "scope")

    def __init__(self, name: str, kind: str, scope: Scope) -> None:
        self.name = name
        self.kind = kind
        self.scope = scope
        self.limit = 0  # of the last one
        self.announced = 0
        typed = {names.PYTHON_EXECUTOR_TYPE: kind}
        self.measures = (
            Measure(names.METRIC_PYTHON_EXECUTOR_TASK_TIME_IN_QUEUE, _waited, typed),
            Measure(names.METRIC_PYTHON_EXECUTOR_TASK_DURATION, _ran, typed),
            Measure(names.METRIC_PYTHON_EXECUTOR_TASK_COMPLETED, _once, typed),
        )

    def announce(self) -> None:
        """Let the counters exist at 0, once for each set of cells."""
        born = runtime.cells().start_ns
        if self.announced != born:
            self.announced = born
            self.count(names.METRIC_PYTHON_EXECUTOR_TASK_COMPLETED, 0)
            self.count(names.METRIC_PYTHON_EXECUTOR_TASK_REJECTED, 0)

    def count(self, metric: names.Metric, value: int = 1) -> None:
        """Count something of its tasks."""
        labels = {names.PYTHON_EXECUTOR_NAME: self.name, names.PYTHON_EXECUTOR_TYPE: self.kind}
        runtime.emitter().measure(metric, self.scope, labels, value)


class Pool:
    """One executor of the app's; a library's subclass says how it is read."""

    __slots__ = ("group", "reference", "running")

    def __init__(self, reference: weakref.ref[Any], group: Group) -> None:
        self.reference = reference
        self.group = group
        self.running: set[int] = set()

    def limit(self, executor: Any) -> int:
        """Return how many threads it may start."""
        return int(executor._max_workers)

    def threads(self, executor: Any) -> int:
        """Return how many threads it has."""
        threads = list(executor._threads)
        return sum(thread.is_alive() for thread in threads) if executor._shutdown else len(threads)

    def queued(self, executor: Any) -> int:
        """Return how many tasks wait for a thread."""
        size = int(executor._work_queue.qsize())
        if executor._shutdown:  # the sign to end stands in the queue, and stays there
            size = size - 1 if self.threads(executor) else 0
        return max(0, size)


class Task:
    """What an executor is given in place of the app's function: the same call, seen from submission to end."""

    __slots__ = (
        "around",
        "begin",
        "carried",
        "end",
        "found",
        "function",
        "otel",
        "over",
        "pool",
        "shown",
        "start",
        "tokens",
    )

    def __init__(self, pool: Pool, function: Callable[..., Any], carries: bool) -> None:
        self.pool = pool
        self.function: Any = function
        # Without: the app runs it in a context of its own making, where all of this is found.
        self.carried = context.carry() if carries else None
        self.otel = otel_context.get_current()
        self.around = context.current.get()
        self.found: dict[str, TaskRecord] = {}  # its record under one key: threads may ask for it at once
        self.over = False
        self.tokens: list[tuple[Any, Token[Any]]] = []
        self.begin = clock.monotonic()

    def __call__(self, /, *args: Any, **kwargs: Any) -> Any:
        function = self.function
        guard.run(self.starts)
        try:
            result = function(*args, **kwargs)
        except BaseException as error:
            # The exception's traceback keeps this frame, which must not keep what the app's own would not.
            del function, args, kwargs
            guard.run(self.ends, error)
            raise
        guard.run(self.ends, None)
        return result

    def starts(self) -> None:
        """A thread has taken it."""
        self.start = clock.monotonic()
        self.pool.running.add(id(self))
        if self.carried is not None:
            for variable, value in self.carried:
                self.tokens.append((variable, variable.set(value)))
        else:
            self.otel = otel_context.get_current()
            self.around = context.current.get()
        span, waited = trace.get_current_span(self.otel), self.start - self.begin
        in_a_trace = self.around is not None or waits.traced(span)
        in_a_call = context.call.get() is not None  # what an SDK runs in a thread is a part of its call
        self.shown = in_a_trace and waited >= _QUEUED_NS and not in_a_call
        if self.around is not None and not in_a_call:
            waits.before_a_call("executor_queue", self.pool.group.scope, waited, self.around)
        if (self.shown or not (in_a_trace or in_a_call)) and _is_ours(span, self.around):
            here = trace.set_span_in_context(PendingSpan(span, self.find), self.otel)
        else:  # the app's own span stays the current one: the app may look for it
            here = self.otel
        self.tokens.append((None, otel_context.attach(here)))
        if self.shown:  # it will be a span in any case: lines of the app are its own
            self.find(True)

    def find(self, make: bool) -> TaskRecord | None:
        """Return its record where it is a span, or can become one now."""
        found = self.found.get("")
        if found is not None or not make or self.over:
            return found
        token = otel_context.attach(self.otel)
        try:
            made = TaskRecord(self)
            made.describe(self)
            made.open(since=self.begin)
        finally:
            otel_context._RUNTIME_CONTEXT.detach(token)
        return self.found.setdefault("", made)

    def ends(self, error: BaseException | None) -> None:
        """The app's function has returned or raised."""
        self.end = clock.monotonic()
        self.pool.running.discard(id(self))
        record = self.find(self.shown) or TaskRecord(self)
        self.over = True
        if error is not None:
            record.fail(_blame(error), str(error) if record.visible else "")
        if record.visible and self.around is None:
            waits.before_a_call("executor_queue", self.pool.group.scope, self.start - self.begin, None)
        self.function = self.carried = None
        self._leave()
        record.close(self.end)

    def _leave(self) -> None:
        for variable, token in reversed(self.tokens):
            if variable is None:
                otel_context._RUNTIME_CONTEXT.detach(token)
            else:
                variable.reset(token)
        self.tokens.clear()


class Errand:
    """What an event loop runs in a thread for itself: it takes a thread, and is nothing of the app's."""

    __slots__ = ("function", "pool")

    def __init__(self, pool: Pool, function: Callable[..., Any]) -> None:
        self.pool = pool
        self.function = function

    def __call__(self, /, *args: Any, **kwargs: Any) -> Any:
        running = self.pool.running
        running.add(id(self))
        try:
            return self.function(*args, **kwargs)
        finally:
            running.discard(id(self))


class TaskRecord(waits.Measured):
    """One task, as it is measured and shown."""

    __slots__ = ("group", "ran_from", "submitted")

    def __init__(self, task: Task) -> None:
        self.group = task.pool.group
        self.submitted = task.begin
        self.ran_from = task.start
        super().__init__(names.EXECUTOR_TASK, self.group.scope, {names.PYTHON_EXECUTOR_NAME: self.group.name})

    @property
    def measures(self) -> tuple[Measure, ...]:
        """Its time in the queue, its duration, and that it was completed."""
        return self.group.measures

    def describe(self, task: Task) -> None:
        """Write what is known of it as a span, in its thread."""
        thread = threading.current_thread()
        self.attributes.update(
            {
                names.CODE_FUNCTION_NAME: origin.function_name(task.function),
                names.AGENT_RUNTIME_EXECUTION_PATH: THREAD_POOL,
                names.THREAD_ID: thread.ident,
                names.THREAD_NAME: thread.name,
            }
        )
        waited = self.ran_from - self.submitted
        if waited >= waits.NOTICEABLE_NS:
            self.attributes[_QUEUE] = waited / 1e9


def _waited(record: Any) -> float:
    return float(record.ran_from - record.submitted) / 1e9


def _ran(record: Any) -> float:
    return float(record.end - record.ran_from) / 1e9


def _once(_: Any) -> float:
    return 1


def _is_ours(span: trace.Span, around: Any) -> bool:
    if isinstance(span, tracing.LiveSpan) or not span.get_span_context().is_valid:
        return True
    return around is not None and around.app_span is span


def _blame(error: BaseException) -> blame.Blame:
    status = getattr(error, "status_code", None)
    found = blame.of_status(status) if type(status) is int else None
    return found or blame.of_exception(error)


# -- submission ------------------------------------------------------------------------------------------


def given(pool: Pool, function: Any, args: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return the function and the arguments that the executor gets instead."""
    if getattr(function, "__name__", "") in _LOOKUPS and function.__module__ in _OF_LOOKUPS:
        return Errand(pool, function), *args
    # asyncio.to_thread and its like: a call inside a context that the app has copied.
    if type(function) is partial and _runs_in_a_context(function.func) and function.args:
        inner = Task(pool, function.args[0], carries=False)
        return partial(function.func, inner, *function.args[1:], **function.keywords), *args
    if _runs_in_a_context(function) and args:
        return function, Task(pool, args[0], carries=False), *args[1:]
    return Task(pool, function, carries=True), *args


def _runs_in_a_context(function: Any) -> bool:
    return type(function) is BuiltinMethodType and type(function.__self__) is Context and function.__name__ == "run"


# -- the executors of this process -----------------------------------------------------------------------

_pools: dict[int, Pool] = {}
_groups: dict[tuple[str, str, Scope], Group] = {}


def known(executor: Any) -> Pool | None:
    """Return what we know of an executor."""
    found = _pools.get(id(executor))
    return found if found is not None and found.reference() is executor else None


def register(executor: Any, name: str, scope: Scope) -> Pool:
    """Know an executor from now on, until the app drops it."""
    key = id(executor)
    group = _group(name, type(executor).__name__, scope)
    made = Pool(weakref.ref(executor, lambda _: _pools.pop(key, None)), group)
    group.limit = made.limit(executor)
    group.announce()
    return _pools.setdefault(key, made)


def _group(name: str, kind: str, scope: Scope) -> Group:
    found = _groups.get((name, kind, scope))
    if found is None:
        if len(_groups) >= runtime.config().label_cap:
            name = kind = names.OTHER
        found = _groups.setdefault((name, kind, scope), Group(name, kind, scope))
    return found


def forget(scope: Scope) -> None:
    """Know the executors of a library no more."""
    for key, pool in list(_pools.items()):
        if pool.group.scope == scope:
            _pools.pop(key, None)
    for of, group in list(_groups.items()):
        if group.scope == scope:
            _groups.pop(of, None)
    cells.forget(scope)


def observe(scope: Scope) -> None:
    """Show the executors of a library at each collection."""
    cells.observe(names.METRIC_PYTHON_EXECUTOR_THREAD_COUNT, scope, partial(_threads, scope))
    cells.observe(names.METRIC_PYTHON_EXECUTOR_THREAD_LIMIT, scope, partial(_limits, scope))
    cells.observe(names.METRIC_PYTHON_EXECUTOR_QUEUE_SIZE, scope, partial(_queues, scope))


def _each(scope: Scope) -> Iterator[tuple[Group, list[tuple[Pool, Any]]]]:
    alive: dict[Group, list[tuple[Pool, Any]]] = {group: [] for group in list(_groups.values())}
    for pool in list(_pools.values()):
        executor = pool.reference()
        if executor is not None and pool.group in alive:
            alive[pool.group].append((pool, executor))
    for group, found in alive.items():
        if group.scope == scope:
            group.announce()
            yield group, found


def _threads(scope: Scope) -> Iterator[Observation]:
    for group, found in _each(scope):
        active = sum(len(pool.running) for pool, _ in found)
        idle = sum(max(0, pool.threads(executor) - len(pool.running)) for pool, executor in found)
        yield (group.name, group.kind, ACTIVE), active
        yield (group.name, group.kind, IDLE), idle


def _limits(scope: Scope) -> Iterator[Observation]:
    # Unlike connection pools, whose smallest limit is shown: each of these is used by whoever made it.
    for group, found in _each(scope):
        yield (group.name, group.kind), sum(pool.limit(executor) for pool, executor in found) or group.limit


def _queues(scope: Scope) -> Iterator[Observation]:
    for group, found in _each(scope):
        yield (group.name, group.kind), sum(pool.queued(executor) for pool, executor in found)


_not_the_apps: weakref.WeakSet[Any] = weakref.WeakSet()


def leave_alone(executor: Any) -> None:
    """Watch an executor never: it is our own."""
    _not_the_apps.add(executor)


def is_left_alone(executor: Any) -> bool:
    """Whether an executor is not to be watched."""
    return executor in _not_the_apps


def _in_child() -> None:
    # The parent's threads are not here, nor what they run.
    for pool in _pools.values():
        pool.running.clear()


os.register_at_fork(after_in_child=_in_child)

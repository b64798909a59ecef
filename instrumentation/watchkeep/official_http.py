"""The app's ordinary HTTP: OpenTelemetry's own httpx instrumentation, loaded at the first such request.

It stands behind a gate of ours at the transport: inside an LLM call, where our attempt is the HTTP span, and
where the app instrumented the client itself, a request goes straight on.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import wraps
from importlib import import_module
from typing import Any

from watchkeep import context, guard, runtime

STACKS = ("httpx", "httpx2")
_OFFICIAL = "opentelemetry.instrumentation."
_MODULE = "opentelemetry.instrumentation.httpx"
_INSTRUMENTORS = {"httpx": "HTTPXClientInstrumentor", "httpx2": "HTTPX2ClientInstrumentor"}
_SEAMS = (("HTTPTransport", "handle_request"), ("AsyncHTTPTransport", "handle_async_request"))
_MAX_CHAIN = 16
_MAX_WAIT = 5.0

_the_apps: ContextVar[bool] = ContextVar("watchkeep.the_apps_http", default=False)
"""The app's own instrumentation has the request that is being made here."""


class Gate:
    """What we put in the place of a transport's function; where somebody has wrapped it since, it can only be shut."""

    __slots__ = ("function", "name", "original", "owner", "shut")

    def __init__(self, owner: Any, name: str, original: Any) -> None:
        self.owner = owner
        self.name = name
        self.original = original
        self.shut = False
        make = _async_gate if name == "handle_async_request" else _gate
        self.function = make(self, original, vars(owner)[name])
        setattr(owner, name, self.function)

    def is_open(self) -> bool:
        """Tell whether the request that is being made here is ours to show."""
        call = context.call.get()
        return (call is None or call.closed) and not _the_apps.get() and not self.shut


_Seam = tuple[Any, str, Any]  # owner, name, the function that was there

_loading = threading.Lock()
_seams: list[_Seam] = []  # while official functions stand there and our gates do not yet
_gates: dict[str, list[Gate]] = {}  # by stack; empty where we must not, or cannot, watch


def watch(client: Any, request: Any) -> None:
    """See to it that an ordinary request, which is about to be made, has its span: the app's or ours."""
    stack = stack_of(client)
    if stack not in _gates:
        _load_once(stack)
    if _gates.get(stack):
        theirs = watched_by_the_app(client, request)
        if theirs is not _the_apps.get():
            _the_apps.set(theirs)


def stack_of(client: Any) -> str:
    """Return httpx or httpx2, also for a client of a class derived from theirs."""
    for base in type(client).__mro__:
        stack = base.__module__.partition(".")[0]
        if stack in STACKS:
            return stack
    return ""


def watched_by_the_app(client: Any, request: Any) -> bool:
    """Tell whether the app itself has instrumented what will carry this request."""
    if _MODULE not in sys.modules:
        return False
    transport = client._transport_for_url(request.url)
    if type(transport).__module__.startswith(_OFFICIAL):
        return True
    handle = getattr(transport, "handle_request", None) or getattr(transport, "handle_async_request", None)
    return any(_is_official(link) for link in _chain(handle))


def the_app_counts() -> bool:
    """Tell whether the app's instrumentation records the duration under its present name."""
    from opentelemetry.instrumentation import _semconv as semconv

    stability = semconv._OpenTelemetrySemanticConventionStability
    http = semconv._OpenTelemetryStabilitySignalType.HTTP
    return semconv._report_new(stability._get_opentelemetry_stability_opt_in_mode(http))  # type: ignore[no-any-return]


def _chain(function: Any) -> Iterator[Any]:
    seen = 0
    while function is not None and seen < _MAX_CHAIN:
        yield function
        function = getattr(function, "__wrapped__", None)
        seen += 1


def _is_official(function: Any) -> bool:
    wrapper = getattr(function, "_self_wrapper", None)  # wrapt's
    wrapper = getattr(wrapper, "func", wrapper)
    return str(getattr(wrapper, "__module__", "")).startswith(_OFFICIAL)


# -- loading and unloading -------------------------------------------------------------------------------


def _load_once(stack: str) -> None:
    # Requests that come at the same moment wait for the first one's import, so that they are seen too.
    if _loading.acquire(timeout=_MAX_WAIT):
        try:
            if stack not in _gates:
                _gates[stack] = guard.run(_load, stack) or []
        finally:
            _loading.release()


def _load(stack: str) -> list[Gate]:
    if not stack or not runtime.config().integrates(stack):
        return []
    try:
        official = import_module(_MODULE)
    except ModuleNotFoundError as missing:
        guard.logger().debug("watchkeep: ordinary HTTP has no spans: %s", missing)
        return []
    kind = getattr(official, _INSTRUMENTORS[stack], None)
    if kind is None or kind._is_instrumented_by_opentelemetry or kind()._is_instrumented_by_opentelemetry:
        return []
    # One of our own beside the singleton, which stays free for the app.
    instrumentor = object.__new__(kind)
    conflict = instrumentor._check_dependency_conflicts()
    if conflict:
        guard.logger().debug("watchkeep: ordinary HTTP has no spans: %s", conflict)
        return []
    owners = [(getattr(sys.modules[stack], owner), name) for owner, name in _SEAMS]
    _seams[:] = [(owner, name, vars(owner)[name]) for owner, name in owners]
    with _present_names():
        instrumentor.instrument(skip_dep_check=True)
    made = [_put_gate(*seam) for seam in _seams]
    _seams.clear()
    return made


@contextmanager
def _present_names() -> Iterator[None]:
    """Let what is instrumented here use the stable names, whatever the app chose for its own."""
    from opentelemetry.instrumentation import _semconv as semconv

    stability: Any = semconv._OpenTelemetrySemanticConventionStability
    http = semconv._OpenTelemetryStabilitySignalType.HTTP
    stability._initialize()
    modes = stability._OTEL_SEMCONV_STABILITY_SIGNAL_MAPPING
    before = modes.get(http)
    if not semconv._report_new(before):
        modes[http] = semconv._StabilityMode.HTTP
    try:
        yield
    finally:
        modes[http] = before


def _put_gate(owner: Any, name: str, original: Any) -> Gate:
    return Gate(owner, name, original)


def _gate(gate: Gate, original: Any, official: Any) -> Any:
    @wraps(original)
    def handle_request(self: Any, *args: Any, **kwargs: Any) -> Any:
        if gate.is_open():
            return official.__get__(self, type(self))(*args, **kwargs)
        return original(self, *args, **kwargs)

    return handle_request


def _async_gate(gate: Gate, original: Any, official: Any) -> Any:
    @wraps(original)
    async def handle_async_request(self: Any, *args: Any, **kwargs: Any) -> Any:
        if gate.is_open():
            return await official.__get__(self, type(self))(*args, **kwargs)
        return await original(self, *args, **kwargs)

    return handle_async_request


def unload() -> None:
    """Give the transports their own functions back; under what the app put on top since, ours lets pass."""
    while _gates:
        for gate in _gates.popitem()[1]:
            gate.shut = True
            if vars(gate.owner).get(gate.name) is gate.function:
                setattr(gate.owner, gate.name, gate.original)


def _in_child() -> None:
    """Do without in a child that was made in the middle of the loading: its import would wait for a lost thread."""
    global _loading
    if not _loading.locked():
        return
    _loading = threading.Lock()
    while _seams:
        owner, name, original = _seams.pop()
        setattr(owner, name, original)
    for stack in STACKS:
        _gates.setdefault(stack, [])


os.register_at_fork(after_in_child=_in_child)

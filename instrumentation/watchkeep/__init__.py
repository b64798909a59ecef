"""OpenTelemetry-first observability for LLM agent apps, without a code change.

Everything here is loaded when it is first used, so that a watched process pays only for what it needs.
"""

from __future__ import annotations

from watchkeep.version import __version__

TYPE_CHECKING = False  # as `typing` has it, whose import would be most of our start-up
if TYPE_CHECKING:
    from typing import Any

    from watchkeep.api import instrument, uninstrument
    from watchkeep.context import correlation, correlation_id, reset_correlation_id, set_correlation_id, set_session
    from watchkeep.log_setup import setup_logging
    from watchkeep.runtime import flush, shutdown

_PLACES = {
    "correlation": "context",
    "correlation_id": "context",
    "flush": "runtime",
    "instrument": "api",
    "reset_correlation_id": "context",
    "set_correlation_id": "context",
    "set_session": "context",
    "setup_logging": "log_setup",
    "shutdown": "runtime",
    "uninstrument": "api",
}

__all__ = [
    "__version__",
    "correlation",
    "correlation_id",
    "flush",
    "instrument",
    "reset_correlation_id",
    "set_correlation_id",
    "set_session",
    "setup_logging",
    "shutdown",
    "uninstrument",
]


def __getattr__(name: str) -> Any:
    place = _PLACES.get(name)
    if place is None:
        raise AttributeError(f"module 'watchkeep' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"watchkeep.{place}"), name)


def __dir__() -> list[str]:
    return __all__

"""One text of a scenario for the sync and the async client: what may be awaited is awaited."""

from __future__ import annotations

import asyncio
import inspect
import json
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Any


async def got(value: Any) -> Any:
    """Return a value, awaited when it must be."""
    return await value if inspect.isawaitable(value) else value


async def each(iterable: Any) -> AsyncIterator[Any]:
    """Iterate over either kind of iterable."""
    if hasattr(iterable, "__aiter__"):
        async for item in iterable:
            yield item
    else:
        for item in iterable:
            yield item


async def listed(iterable: Any) -> list[Any]:
    """Return the items of either kind of iterable."""
    return [item async for item in each(iterable)]


@asynccontextmanager
async def entered(manager: Any) -> AsyncIterator[Any]:
    """Enter either kind of context manager."""
    if hasattr(manager, "__aenter__"):
        async with manager as value:
            yield value
    else:
        with manager as value:
            yield value


def run(mode: str, scenario: Coroutine[Any, Any, Any]) -> Any:
    """Run a scenario: in an event loop, or, when sync, to its end without one."""
    if mode == "async":
        return asyncio.run(scenario)
    try:
        scenario.send(None)
    except StopIteration as end:
        return end.value
    raise AssertionError("a sync scenario awaited something")


def span_json(span: Any) -> dict[str, Any]:
    """Return a captured span as JSON can say it."""
    return {
        "name": span.name,
        "trace_id": f"{span.trace_id:032x}",
        "span_id": f"{span.span_id:016x}",
        "parent_id": f"{span.parent_id:016x}" if span.parent_id else "",
        "nanoseconds": span.end_ns - span.start_ns,
        "status": span.status_code,
        "message": span.status_message,
        "scope": span.scope.name,
        "attributes": json.loads(json.dumps(span.attributes, default=repr)),
    }

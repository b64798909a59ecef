"""The head sampler of our own pipeline: the standard ones of `OTEL_TRACES_SAMPLER` without the SDK.

Any other name is looked up through the SDK's entry points, as the specification asks.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

Decide = Callable[["bool | None", int, str, int, "dict[str, Any]"], bool]
"""(sampled flag of the parent or None, trace id, span name, kind, attributes) -> sampled."""

_TRACE_ID_BITS = (1 << 64) - 1


def from_environment(environ: dict[str, str] | os._Environ[str] = os.environ) -> Decide | None:
    """Return the sampler asked for, or None for the default (follow the parent, else sample)."""
    name = environ.get("OTEL_TRACES_SAMPLER", "").strip().lower()
    argument = environ.get("OTEL_TRACES_SAMPLER_ARG", "").strip()
    if name in ("", "parentbased_always_on"):
        return None
    base, parent_based = name.removeprefix("parentbased_"), name.startswith("parentbased_")
    root = _root(base, argument)
    if root is None:
        return _from_sdk()
    return _parent_based(root) if parent_based else root


def _root(name: str, argument: str) -> Decide | None:
    if name == "always_on":
        return lambda *_: True
    if name == "always_off":
        return lambda *_: False
    if name == "traceidratio":
        return _ratio(argument)
    return None


def _ratio(argument: str) -> Decide:
    try:
        share = min(1.0, max(0.0, float(argument)))
    except ValueError:
        share = 1.0
    bound = round(share * (_TRACE_ID_BITS + 1))
    return lambda _, trace_id, *__: (trace_id & _TRACE_ID_BITS) < bound


def _parent_based(root: Decide) -> Decide:
    def decide(parent: bool | None, trace_id: int, name: str, kind: int, attributes: dict[str, Any]) -> bool:
        return root(parent, trace_id, name, kind, attributes) if parent is None else parent

    return decide


def _from_sdk() -> Decide | None:
    from opentelemetry.sdk.trace.sampling import _get_from_env_or_default
    from opentelemetry.trace import (
        NonRecordingSpan,
        SpanContext,
        SpanKind,
        TraceFlags,
        set_span_in_context,
    )

    sampler = _get_from_env_or_default()
    kinds = {1: SpanKind.INTERNAL, 2: SpanKind.SERVER, 3: SpanKind.CLIENT}

    def decide(parent: bool | None, trace_id: int, name: str, kind: int, attributes: dict[str, Any]) -> bool:
        context = None
        if parent is not None:
            flags = TraceFlags(1 if parent else 0)
            context = set_span_in_context(NonRecordingSpan(SpanContext(trace_id, 1, False, flags)))
        result = sampler.should_sample(context, trace_id, name, kinds[kind], attributes, ())
        return bool(result.decision.is_sampled())  # type: ignore[no-untyped-call]

    return decide

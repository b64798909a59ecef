"""Secrets and prompts in every place that OTLP has for text, sent as anyone could send them, past our package.

Every request also carries a harmless mark in the same places: what finds the marks would have found the canaries.
"""

from __future__ import annotations

import secrets
from typing import Any

from stack import raw
from support.secret_shapes import SECRETS

PROMPT = f"tell me of canary {secrets.token_hex(8)}"
MARK = f"harmless-{secrets.token_hex(8)}"
SERVICE = "canaries"
CONTENT_KEYS = (
    "gen_ai.input.messages",
    "gen_ai.output.messages",
    "gen_ai.system_instructions",
    "gen_ai.tool.call.arguments",
    "gen_ai.prompt",
    "gen_ai.completion.0.content",
    "llm.prompts",
    "llm.input_messages.0.message.content",
    "input.value",
    "traceloop.entity.input",
    "langfuse.observation.input",
    "ai.prompt.messages",
    "prompt",
)
MODEL = {"gen_ai.operation.name": "chat", "gen_ai.request.model": "gpt-4o"}


def _texts(text: str) -> dict[str, Any]:
    """Return attributes that hold a text as a value, in a list, in a map, and inside a longer text."""
    return {"plain": text, "listed": [text, "b"], "nested": {"a": {"b": text}}, "quoted": f"before {text} after"}


def _resource(text: str) -> dict[str, Any]:
    return raw.resource(SERVICE, **{"resource.text": text})


def of_spans(text: str, trace_id: str) -> dict[str, Any]:
    """Return a request whose span has a text in every place."""
    event = {"timeUnixNano": raw.now(), "name": f"event {text}", "attributes": raw.attributes(_texts(text))}
    link = {"traceId": trace_id, "spanId": secrets.token_hex(8), "attributes": raw.attributes(_texts(text))}
    made = raw.span(
        f"span {text}",
        _texts(text),
        traceId=trace_id,
        events=[event],
        links=[link],
        status={"code": 2, "message": f"status {text}"},
    )
    return raw.traces(
        _resource(text), [made], name=f"scope {text}", version=text, attributes=raw.attributes(_texts(text))
    )


def of_logs(text: str) -> dict[str, Any]:
    """Return a request whose records have a text in every place."""
    records = [
        raw.record(f"line {text}", _texts(text), severityText=text, eventName=f"event {text}"),
        raw.record({"a": text, "b": [text]}, {}),
    ]
    return raw.logs(
        _resource(text), records, name=f"scope {text}", version=text, attributes=raw.attributes(_texts(text))
    )


def of_metrics(text: str, number: int) -> dict[str, Any]:
    """Return a request whose metric has a text in every place."""
    made = raw.gauge(f"tests.canary.{number}", [(_texts(text), 1)])
    made["description"] = f"described by {text}"
    exemplar = {"timeUnixNano": raw.now(), "asDouble": 1.0, "filteredAttributes": raw.attributes(_texts(text))}
    made["sum"]["dataPoints"][0]["exemplars"] = [
        {**exemplar, "traceId": secrets.token_hex(16), "spanId": "0" * 15 + "1"}
    ]
    return raw.metrics(
        _resource(text), [made], name=f"scope {text}", version=text, attributes=raw.attributes(_texts(text))
    )


def of_prompts(trace_id: str) -> list[dict[str, Any]]:
    """Return requests with a prompt where OpenTelemetry and other libraries put prompts."""
    chat = '[{"role": "user", "content": "' + PROMPT + '"}]'
    held = {**MODEL, **dict.fromkeys(CONTENT_KEYS, PROMPT), "anything": chat}
    event = {
        "timeUnixNano": raw.now(),
        "name": "gen_ai.content.prompt",
        "attributes": raw.attributes({"gen_ai.prompt": PROMPT}),
    }
    failed = {"code": 2, "message": f"400: {PROMPT} is too long"}
    span = raw.span("chat gpt-4o", held, traceId=trace_id, events=[event], status=failed)
    records = [
        raw.record({"content": PROMPT, "role": "user"}, MODEL, eventName="gen_ai.user.message"),
        raw.record(PROMPT, MODEL, eventName="gen_ai.client.inference.operation.details"),
        raw.record(f"sending {chat}", {}),
        raw.record("a call", dict.fromkeys(CONTENT_KEYS, PROMPT)),
    ]
    point = raw.gauge("tests.canary.prompt", [({"gen_ai.prompt": PROMPT}, 1)])
    given = _resource("prompt")
    return [raw.traces(given, [span]), raw.logs(given, records), raw.metrics(given, [point])]


def everything(trace_id: str) -> list[dict[str, Any]]:
    """Return every request; the harmless mark comes last, in the same places."""
    found = of_prompts(trace_id)
    for number, text in enumerate((*SECRETS.values(), MARK)):
        found += [of_spans(text, trace_id), of_logs(text), of_metrics(text, number)]
    return found

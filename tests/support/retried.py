"""What the tests of retry libraries ask of a capture, and an app's chats."""

from __future__ import annotations

import asyncio
from contextlib import contextmanager

import openai

from watchkeep import names

SCHEDULED = names.EVENT_RETRY_SCHEDULED.name
DURATION = names.METRIC_RESILIENCE_RETRY_OPERATION_DURATION.name
ATTEMPTS = names.METRIC_RESILIENCE_RETRY_OPERATION_ATTEMPTS.name
RETRIES = names.METRIC_RESILIENCE_RETRY_RETRIES.name
DELAY = names.METRIC_RESILIENCE_RETRY_DELAY.name
LOGICAL_CALLS = names.METRIC_RESILIENCE_CALLS.name
INPUT_TOKENS = names.METRIC_GEN_AI_CLIENT_INFERENCE_USAGE_INPUT_TOKENS.name
ASKED = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "hi"}]}


class FlakyError(Exception):
    """What an app's own function raises."""


class Flaky:
    """A function that fails a number of times, then gives back one object."""

    def __init__(self, failures, error=FlakyError):
        self.left, self.calls, self.result = failures, 0, object()
        self.raised = [error(f"failure {number}") for number in range(failures)]

    def __call__(self, *_):
        self.calls += 1
        if self.left:
            self.left -= 1
            raise self.raised[self.calls - 1]
        return self.result


@contextmanager
def chatting(server, max_retries=0):
    """A function that asks the model once; the SDK retries `max_retries` times on its own."""
    with openai.OpenAI(base_url=server.base_url, api_key="sk-test", max_retries=max_retries) as client:
        yield lambda **options: client.chat.completions.create(**ASKED, **options)


def achatting(server, use, max_retries=0):
    """Run `use(ask)` in a loop, with an async function that asks the model once."""

    async def run():
        async with openai.AsyncOpenAI(base_url=server.base_url, api_key="sk-test", max_retries=max_retries) as client:

            async def ask(**options):
                return await client.chat.completions.create(**ASKED, **options)

            return await use(ask)

    return asyncio.run(run())


def only(capture):
    """The one retry span of a test."""
    (span,) = capture.spans("retry ")
    return span


def told(span):
    """(policy, result, error.type) of a retry span."""
    get = span.attributes.get
    return get(names.RESILIENCE_POLICY_NAME), get(names.RESILIENCE_RETRY_RESULT), get(names.ERROR_TYPE)


def below(capture, span, name="chat"):
    """The spans of one name that are children of a span, in the order of their starts."""
    found = [each for each in capture.spans(name) if each.parent_id == span.span_id]
    assert all(each.trace_id == span.trace_id for each in found)
    return sorted(found, key=lambda each: each.start_ns)


def tries(spans):
    """(resilience.retry.attempt, error.type) of each."""
    return [
        (span.attributes.get(names.RESILIENCE_RETRY_ATTEMPT), span.attributes.get(names.ERROR_TYPE)) for span in spans
    ]


def scheduled(capture, policy):
    """(attempt, error.type, planned delay) of each wait that a policy announced."""
    return [
        (
            log.attributes[names.RESILIENCE_RETRY_ATTEMPT],
            log.attributes[names.ERROR_TYPE],
            log.attributes[names.RESILIENCE_RETRY_DELAY],
        )
        for log in capture.logs(SCHEDULED)
        if log.attributes[names.RESILIENCE_POLICY_NAME] == policy
    ]


def logical_calls(capture):
    """`resilience.calls` by (error.type, origin)."""
    return {
        (point.attributes.get(names.ERROR_TYPE), point.attributes.get(names.RESILIENCE_FAULT_ORIGIN)): point.value
        for point in capture.points(LOGICAL_CALLS)
    }


def operations(capture):
    """How many operations ended how, and the tries they took: {(policy, result): (operations, tries)}."""
    return {
        (
            point.attributes[names.RESILIENCE_POLICY_NAME],
            point.attributes[names.RESILIENCE_RETRY_RESULT],
        ): (point.count, point.sum)
        for point in capture.points(ATTEMPTS)
    }


def nothing(capture):
    """Whether no retry was seen at all."""
    found = [*capture.spans("retry "), *capture.logs(SCHEDULED)]
    return not found and not any(capture.points(metric) for metric in (DURATION, ATTEMPTS, RETRIES, DELAY))

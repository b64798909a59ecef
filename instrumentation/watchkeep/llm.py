"""One logical LLM call: its ledger, its attempts, its tokens, and how its stream ended.

Retries inside an SDK stay inside one call. The SDK's integration opens and ends it; attempts, checkouts
and bodies (integrations/http.py, pool.py, body.py) report to the call that is current.
"""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, NamedTuple

from watchkeep import (
    answer,
    blame,
    clock,
    content,
    context,
    guard,
    names,
    operation_logs,
    rate_limits,
    runtime,
    tracing,
)
from watchkeep.blame import Blame
from watchkeep.content import Kept
from watchkeep.export.model import LogData, Scope
from watchkeep.ledger import Ledger
from watchkeep.logical import Logical, here
from watchkeep.names import Metric, Span
from watchkeep.reading import FOLD_ABOVE, Reading
from watchkeep.record import Measure, Record, seconds

if TYPE_CHECKING:
    from watchkeep.emit import Emitter

open_streams: weakref.WeakValueDictionary[int, LLMCall] = weakref.WeakValueDictionary()
"""Calls whose body the app still reads, by identity; a dictionary, because other threads add while we look."""


class Usage(NamedTuple):
    """Tokens as the provider counted them; None where it said nothing."""

    input: int | None = None
    output: int | None = None
    cache_read: int | None = None
    cache_write: int | None = None
    reasoning: int | None = None


class LLMCall(Record):
    """A call to an LLM provider, from the SDK's entry to the end of its answer's body."""

    __slots__ = (
        "answers",
        "attempt",
        "body",
        "content",
        "ended_badly",
        "facts",
        "failure",
        "figures",
        "finish_reasons",
        "injected",
        "inside",
        "kept",
        "ledger",
        "logical",
        "owner",
        "policy",
        "read_answer",
        "reading",
        "retries",
        "retry_from",
        "sends",
        "stamps",
        "streamed",
        "tail",
        "transport",
        "turn",
        "usage",
        "waited",
    )

    ledger: Ledger

    def __init__(
        self,
        span: Span,
        scope: Scope,
        attributes: dict[str, Any],
        policy: str,
        reader: Callable[[LLMCall, dict[str, Any]], None] | None = None,
    ) -> None:
        super().__init__(span, scope, attributes)
        self.policy = policy
        self.attempt: Any = None  # the try that is open
        self.failure: Blame | None = None  # of the last try
        self.sends = 0  # requests on the wire
        self.retries = 0
        self.retry_from = 0  # when the current back-off began
        self.waited: float | None = None  # seconds, before the try that comes next
        self.injected: dict[str, str] | None = None  # headers of ours on the last request
        self.inside = False  # a try of this call is inside Client.send
        self.streamed = False  # the body is read by the app, after the call returned
        self.facts = False  # model and id of the answer were read
        self.read_answer = reader  # of a decoded answer, or of one event of a stream
        self.body: list[bytes] | None = None  # what remains to be decoded, off the request path
        self.content: Any = None
        self.kept: Kept | None = None  # what was said, where a setting asks for it
        self.answers: list[Any] = []  # the headers of every answer, refusals too
        self.transport: Any = None  # the HTTP client that the SDK sends through
        self.usage: Usage | None = None
        self.finish_reasons: dict[int, str] = {}
        self.turn: list[None] = [None]
        self.tail: Any = ()  # the last reads of the body
        self.ended_badly: Callable[[Any], bool] = bool  # tells from them whether an SDK left a failed stream open
        self.stamps: list[int] = []  # of the body: asked, arrived, asked, ...
        self.reading: Reading | None = None  # sums of what was stamped, from the first asking on
        self.figures: Reading | None = None  # the same, once the body ended
        self.logical: Logical | None = None
        self.owner: Any = None  # the span of another instrumentation that stands for this call

    def stand_aside(self, owner: Any) -> None:
        """Another instrumentation has a span for this call: ours goes on it, tokens are counted there."""
        self.owner = owner
        self.visible = False

    def open(self, parent: Record | None = None, since: int = 0) -> None:
        """Start the call and its ledger."""
        super().open(parent, since)
        if self.owner is not None:
            found = self.owner.get_span_context()
            self.trace_id, self.span_id = found.trace_id, found.span_id
            self.sampled = bool(found.trace_flags & 1)
        self.logical = here()
        if self.logical is not None:
            self.logical.began(self)
        self.ledger = Ledger(self.begin)
        if runtime.config().operation_logs:
            guard.run(operation_logs.started, self)

    # -- the SDK's retries ---------------------------------------------------------------------------

    def back_off(self, delay: float) -> None:
        """The SDK will wait `delay` seconds before it tries again."""
        self.retry_from = self.ledger.enter("backoff")
        self.retries += 1
        error = self.failure[0] if self.failure else names.OTHER
        runtime.emitter().event(
            names.EVENT_RETRY_SCHEDULED,
            self.scope,
            {
                names.RESILIENCE_POLICY_NAME: self.policy,
                names.RESILIENCE_RETRY_ATTEMPT: self.retries,
                names.RESILIENCE_RETRY_DELAY: delay,
                names.ERROR_TYPE: error,
            },
            self,
        )

    def begin_try(self, now: int) -> None:
        """The SDK sends again, or for the first time: what it waited before belongs to the next attempt."""
        if not self.retry_from:
            return
        self.waited = (now - self.retry_from) / 1e9
        self.retry_from = 0
        emitter = runtime.emitter()
        labels = {names.RESILIENCE_POLICY_NAME: self.policy}
        emitter.measure(names.METRIC_RESILIENCE_RETRY_DELAY, self.scope, labels, self.waited)
        counted = {
            **labels,
            names.ERROR_TYPE: self.failure[0] if self.failure else None,
            names.GEN_AI_REQUEST_MODEL: self.attributes.get(names.GEN_AI_REQUEST_MODEL),
        }
        emitter.measure(names.METRIC_RESILIENCE_RETRY_RETRIES, self.scope, counted)

    # -- the stream ----------------------------------------------------------------------------------

    def ask(self) -> None:
        """The body begins to be read, or another iterator goes on reading it."""
        if self.reading is None:
            self.reading = Reading(runtime.config().chunk_metrics == "all")
            self.stamps.append(self.ledger.enter("stream"))
        elif len(self.stamps) % 2 == 0:
            self.stamps.append(clock.monotonic())

    def keep_open(self) -> None:
        """The call returned, its body is still to be read by the app."""
        self.streamed = True
        self.ledger.enter("consumer")
        open_streams[id(self)] = self

    def fold(self) -> None:
        """Sum up what a long stream has stamped so far, while its reader goes on and may end it."""
        stamps = self.stamps
        done = len(stamps) // 2 * 2
        if self.reading is not None:
            self.reading = self.reading.after(stamps[:done])
            del stamps[:done]

    # -- the end -------------------------------------------------------------------------------------

    def fail_with(self, error: BaseException) -> None:
        """Note an exception that leaves the call, with the blame of the try that caused it."""
        found = blame.of_exception(error, self.ledger.phase)
        if found[0] != names.CANCELLED and self.failure is not None and found[0] != names.CONTEXT_LENGTH_EXCEEDED:
            found = self.failure
        self.fail(found, message_of(error))
        guard.run(operation_logs.exception, self, error)

    def _takes_turn(self) -> bool:
        # Two threads may end one stream at the same moment: only one can take the one item.
        try:
            self.turn.pop()
        except IndexError:
            return False
        return True

    def end_stream(self, outcome: str, failed: Blame | None = None, message: str = "") -> None:
        """The body ended: drained, closed_early, abandoned, failed or cancelled; only the first counts."""
        if self.closed or not self._takes_turn():
            return
        if failed is not None:
            self.fail(failed, message)
        elif self.error is not None:
            outcome = "failed"  # it said so itself
        if self.attributes.get(names.GEN_AI_REQUEST_STREAM):
            self.attributes[names.AGENT_RUNTIME_STREAM_OUTCOME] = outcome
        self._finish()

    def finish(self) -> None:
        """Close the ledger and the record at one instant."""
        if not self.closed and self._takes_turn():
            self._finish()

    def _finish(self) -> None:
        if self.reading is not None:
            guard.run(self._settle)
        now = self.ledger.stop()
        logical = self.logical
        if logical is not None and logical.ended(self, self.attributes, self.scope, self.error):
            self.logical = None
        self.close(now)

    def deliver(self, emitter: Emitter) -> None:
        """Write on the span of another instrumentation, too, where that one stands for the call."""
        if self.owner is not None:
            guard.run(self._write_on_owner, self.owner)
        super().deliver(emitter)

    def complete(self) -> None:
        """Write ledger, tokens, stream figures and the answer's facts."""
        if self.body is not None:
            guard.run(answer.read_body, self)
        if self.answers:
            guard.run(rate_limits.note, self)
        attributes = self.attributes
        attributes.update(self.ledger.seconds())
        if self.finish_reasons:
            attributes[names.GEN_AI_RESPONSE_FINISH_REASONS] = [
                self.finish_reasons[index] for index in sorted(self.finish_reasons)
            ]
        if self.usage is not None:
            _write_usage(attributes, self.usage)
        if self.figures is not None and self.figures.chunks and attributes.get(names.GEN_AI_REQUEST_STREAM):
            self._write_chunks(attributes, self.figures)
        if self.kept is not None and runtime.config().content_on_spans:
            guard.run(self._write_content, self.kept)
        super().complete()

    def told(self) -> Iterable[LogData]:
        """Return its story and its content, where settings ask for them."""
        return operation_logs.told(self)

    def _write_content(self, kept: Kept) -> None:
        self.attributes.update((key, content.as_json(value)) for key, value in content.gather(kept).items())

    def _write_on_owner(self, owner: Any) -> None:
        attributes = {**self.ledger.seconds(), names.AGENT_RUNTIME_CORRELATION_ID: self.correlation}
        for key in _OURS_ONLY:
            if key in self.attributes:
                attributes[key] = self.attributes[key]
        if self.error is not None:
            attributes[names.RESILIENCE_FAULT_ORIGIN] = self.error[1]
        tracing.write(owner, attributes)

    @property
    def measures(self) -> tuple[Measure, ...]:
        """What is measured: where another instrumentation counts tokens and durations, only the rest."""
        return self.own_measures() if self.owner is None else ASIDE

    def own_measures(self) -> tuple[Measure, ...]:
        """What is measured when the span is ours."""
        return ANY_CALL

    def _settle(self) -> None:
        # The ledger left the call when its body was first asked for data; the stamps tell the rest.
        stamps = self.stamps.copy()  # first: what is folded from here on is then found in both, and left out once
        if self.reading is None:
            return
        self.figures = reading = self.reading.after(stamps)
        ledger = self.ledger
        ledger.mark = stamps[-1] if stamps else reading.last
        ledger.phase = "stream" if len(stamps) % 2 else "consumer"
        ledger.add("stream", reading.stream)
        ledger.add("consumer", reading.consumer)

    def _write_chunks(self, attributes: dict[str, Any], reading: Reading) -> None:
        attributes[names.GEN_AI_RESPONSE_TIME_TO_FIRST_CHUNK] = (reading.first - self.begin) / 1e9
        if reading.chunks > 1:
            mean = (reading.last - reading.first) / (reading.chunks - 1)
            attributes[names.AGENT_RUNTIME_STREAM_GAP_MEAN] = mean / 1e9
            attributes[names.AGENT_RUNTIME_STREAM_GAP_MAX] = reading.gap_max / 1e9


def message_of(error: BaseException) -> str:
    """Return what may be said of an exception: its class; its text may quote prompts, so only with content on."""
    kind = type(error).__name__
    if runtime.config().capture_content == "NO_CONTENT":
        return kind
    text = guard.run(str, error)
    return f"{kind}: {text}" if text else kind


def sweep(max_age: float) -> None:
    """End streams that saw no chunk for `max_age` seconds: nobody reads them any more."""
    now = clock.monotonic()
    for reference in open_streams.valuerefs():
        call = reference()
        if call is None:
            continue
        stamps = call.stamps
        if call.closed:
            stamps.clear()  # it is read on, but over
            continue
        if call.ended_badly(call.tail):
            call.end_stream("failed", (names.ERROR_EVENT, names.PROVIDER), "the stream said that the call failed")
        elif now - max(call.ledger.mark, stamps[-1] if stamps else 0) > max_age * 1e9:
            call.end_stream("abandoned")
        elif len(stamps) > FOLD_ABOVE:
            call.fold()


def enter(call: LLMCall) -> Any:
    """Make `call` the one that attempts and checkouts belong to, until `leave`."""
    tracing.attach(call)
    return context.call.set(call)


def leave(call: LLMCall, token: Any) -> None:
    """Undo `enter`."""
    try:
        context.call.reset(token)
        tracing.detach(call)
    except ValueError:  # a coroutine that the collector closed in another context: nothing is to be undone there
        call.tokens = None


_USAGE_KEYS = (
    names.GEN_AI_USAGE_INPUT_TOKENS,
    names.GEN_AI_USAGE_OUTPUT_TOKENS,
    names.GEN_AI_USAGE_CACHE_READ_INPUT_TOKENS,
    names.GEN_AI_USAGE_CACHE_WRITE_INPUT_TOKENS,
    names.GEN_AI_USAGE_REASONING_OUTPUT_TOKENS,
)


def _write_usage(attributes: dict[str, Any], usage: Usage) -> None:
    for key, value in zip(_USAGE_KEYS, usage, strict=True):
        if value is not None:
            attributes[key] = value


# -- what a call is measured by ----------------------------------------------------------------------

_UNSPLIT = {names.GEN_AI_TOKEN_MODALITY: "unknown"}  # no provider read here splits its total by modality


def _tokens(metric: Metric, index: int) -> Measure:
    return Measure(metric, lambda call: call.usage[index] if call.usage is not None else None, _UNSPLIT)


def _phase(phase: str) -> Measure:
    def spent(call: LLMCall) -> float | None:
        time = call.ledger.total.get(phase)
        return None if time is None else time / 1e9

    return Measure(names.METRIC_RESILIENCE_CALL_TIME, spent, {names.RESILIENCE_CALL_PHASE: phase})


def _logical_call(call: LLMCall) -> float | None:
    return 1 if call.logical is None else None


def _unknown_usage(call: LLMCall) -> float | None:
    return 1 if call.usage is None and call.error is None else None


def _stream_ended(call: LLMCall) -> float | None:
    return 1 if names.AGENT_RUNTIME_STREAM_OUTCOME in call.attributes else None


def _gaps(call: LLMCall) -> list[float] | None:
    gaps = call.figures.gaps if call.figures is not None else None
    return [gap / 1e9 for gap in gaps] if gaps and names.GEN_AI_REQUEST_STREAM in call.attributes else None


def _first_chunk(call: LLMCall) -> float | None:
    return call.attributes.get(names.GEN_AI_RESPONSE_TIME_TO_FIRST_CHUNK)


ANY_CALL = (
    Measure(names.METRIC_RESILIENCE_CALLS, _logical_call),
    *map(_phase, names.PHASES),
)

TOKENS = (
    _tokens(names.METRIC_GEN_AI_CLIENT_INFERENCE_USAGE_INPUT_TOKENS, 0),
    _tokens(names.METRIC_GEN_AI_CLIENT_INFERENCE_USAGE_OUTPUT_TOKENS, 1),
    _tokens(names.METRIC_GEN_AI_CLIENT_INFERENCE_USAGE_CACHE_READ_INPUT_TOKENS, 2),
    _tokens(names.METRIC_GEN_AI_CLIENT_INFERENCE_USAGE_CACHE_WRITE_INPUT_TOKENS, 3),
    _tokens(names.METRIC_GEN_AI_CLIENT_INFERENCE_USAGE_REASONING_OUTPUT_TOKENS, 4),
    Measure(names.METRIC_AGENT_RUNTIME_USAGE_UNKNOWN, _unknown_usage),
)

LATEST = (
    Measure(names.METRIC_GEN_AI_CLIENT_INFERENCE_DURATION, seconds),
    Measure(names.METRIC_GEN_AI_CLIENT_INFERENCE_TIME_TO_FIRST_CHUNK, _first_chunk),
    Measure(names.METRIC_GEN_AI_CLIENT_INFERENCE_TIME_PER_OUTPUT_CHUNK, _gaps),
    *TOKENS,
    Measure(names.METRIC_GEN_AI_CLIENT_INFERENCE_OPERATION_INPUT_TOKENS, lambda c: c.usage and c.usage.input),
    Measure(names.METRIC_GEN_AI_CLIENT_INFERENCE_OPERATION_OUTPUT_TOKENS, lambda c: c.usage and c.usage.output),
)

V1_41 = (
    Measure(names.METRIC_GEN_AI_CLIENT_OPERATION_DURATION, seconds),
    Measure(names.METRIC_GEN_AI_CLIENT_OPERATION_TIME_TO_FIRST_CHUNK, _first_chunk),
    Measure(names.METRIC_GEN_AI_CLIENT_OPERATION_TIME_PER_OUTPUT_CHUNK, _gaps),
    Measure(
        names.METRIC_GEN_AI_CLIENT_TOKEN_USAGE,
        lambda call: call.usage and call.usage.input,
        {names.GEN_AI_TOKEN_TYPE: "input"},
    ),
    Measure(
        names.METRIC_GEN_AI_CLIENT_TOKEN_USAGE,
        lambda call: call.usage and call.usage.output,
        {names.GEN_AI_TOKEN_TYPE: "output"},
    ),
    Measure(names.METRIC_AGENT_RUNTIME_USAGE_UNKNOWN, _unknown_usage),
)

_PROFILES = {"latest": LATEST, "v1.41": V1_41, "both": (*LATEST, *V1_41[:-1])}


_STREAM = Measure(names.METRIC_AGENT_RUNTIME_STREAM_ENDED, _stream_ended)
_BY_PROFILE = {name: (*measures, _STREAM, *ANY_CALL) for name, measures in _PROFILES.items()}
_OPERATION = (Measure(names.METRIC_GEN_AI_CLIENT_OPERATION_DURATION, seconds), *ANY_CALL)
# Embeddings cost tokens too: they are counted with the others, told apart by their operation.
_EMBEDDINGS = (*_OPERATION, TOKENS[0], TOKENS[-1])
ASIDE = (_STREAM, *ANY_CALL)
_OURS_ONLY = (
    names.AGENT_RUNTIME_STREAM_OUTCOME,
    names.RESILIENCE_CALL_PARTIAL,
    names.RESILIENCE_CIRCUIT_BREAKER_NAME,
    names.RESILIENCE_CIRCUIT_BREAKER_STATE,
)


class InferenceCall(LLMCall):
    """A call that makes a model answer: chat, responses, completions."""

    __slots__ = ()

    def own_measures(self) -> tuple[Measure, ...]:
        """What is measured, by the profile of names in force."""
        return _BY_PROFILE[runtime.config().genai_names]


class OtherCall(LLMCall):
    """Any other call to the provider: a stored response, files, models."""

    __slots__ = ()

    def own_measures(self) -> tuple[Measure, ...]:
        """What is measured: the duration."""
        return _OPERATION


class EmbeddingsCall(LLMCall):
    """An embeddings call."""

    __slots__ = ()

    def own_measures(self) -> tuple[Measure, ...]:
        """What is measured: the duration and the input tokens."""
        return _EMBEDDINGS


def _in_child() -> None:
    # The parent delivers what it had open: in a forked child that is over, and says nothing.
    for call in list(open_streams.values()):
        call.closed = True
    open_streams.clear()


os.register_at_fork(after_in_child=_in_child)

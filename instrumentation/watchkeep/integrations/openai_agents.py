"""openai-agents: runs, agents, tools, hand-offs and guardrails, by the SDK's public trace processor.

The SDK tells processors of a trace or span just before it makes it the current one of the task, and just
before it undoes that. At these points ours becomes OpenTelemetry's current span and is undone, so that model
calls, the app's own spans and log lines find their agent or tool, in streamed runs and parallel tools too.
Model calls have their span from the integration of the model's client; the SDK's own is only counted.
Where the SDK's tracing is switched off it tells nobody anything: then there are only the model calls.
"""

from __future__ import annotations

import os
import re
import sys
from typing import Any

from watchkeep import blame, context, guard, llm, names, runtime, tracing
from watchkeep.export.model import Scope
from watchkeep.hook import Target
from watchkeep.integrations import Integration, scope
from watchkeep.names import Metric, Span
from watchkeep.record import Measure, Record, seconds

SCOPE = scope("openai_agents", names.SCHEMA_GEN_AI)
STEP_SCOPE = scope("openai_agents", names.SCHEMA_EXTENSION)

_UNNAMED = "Agent workflow"  # what the SDK calls a workflow that the app gave no name
_MAX_OPEN = 4096
_MAX_ENDED = 64
_INFERENCE = frozenset(("generation", "response"))

# The SDK's words for what a streamed run raises to its reader later: nothing is on its way when its spans end.
_RAISED_LATER = {
    "Max turns exceeded": "MaxTurnsExceeded",
    "Guardrail tripwire triggered": "GuardrailTripwireTriggered",
}


# -- what is recorded ------------------------------------------------------------------------------------


class Operation(Record):
    """A run, an agent, a tool or a step, from the start of the SDK's span to its end."""

    __slots__ = ("agent", "data", "entity_token", "handled", "key", "outer")

    active: Metric | None = None  # counts the operations under way, by the title of their span

    def __init__(self, span: Span, scope: Scope, attributes: dict[str, Any], outer: Operation | None) -> None:
        super().__init__(span, scope, attributes)
        self.key = ""  # the SDK's id of it
        self.outer = outer
        self.agent: AgentRun | None = outer.agent if outer is not None else None
        self.data: Any = None  # the SDK's, read at the end
        self.entity_token: Any = None
        self.handled = id(sys.exc_info()[1])  # what is being handled around it is not its failure

    def close(self, now: int = 0) -> bool:
        """End it; what was under way is no more."""
        if not super().close(now):
            return False
        self.count_active(-1)
        self.data = self.outer = self.agent = None
        return True

    def count_active(self, change: int) -> None:
        """Count it among those under way; without a name there is no series to count in."""
        label = self.span.title[0]
        if self.active is not None and label in self.attributes:
            runtime.emitter().measure(self.active, self.scope, {label: self.attributes[label]}, change)

    def entities(self) -> dict[str, Any]:
        """Return what spans and log lines inside it say of it."""
        return {}

    def read(self) -> None:
        """Read what the SDK knows at the end."""


class Workflow(Operation):
    """One run, or the several that the app put in one trace."""

    __slots__ = ("known",)

    active = names.METRIC_AGENT_RUNTIME_WORKFLOW_ACTIVE
    measures = (Measure(names.METRIC_GEN_AI_INVOKE_WORKFLOW_DURATION, seconds),)

    def __init__(self, trace: Any) -> None:
        known = {names.AGENT_RUNTIME_WORKFLOW_RUN_ID: str(trace.trace_id)}
        if trace.name and trace.name != _UNNAMED:
            known[names.GEN_AI_WORKFLOW_NAME] = str(trace.name)
        group = getattr(trace, "group_id", None)
        if group:
            known[names.GEN_AI_CONVERSATION_ID] = str(group)
        super().__init__(names.INVOKE_WORKFLOW, SCOPE, {names.GEN_AI_OPERATION_NAME: "invoke_workflow", **known}, None)
        self.known = known

    def entities(self) -> dict[str, Any]:
        """Return its name, the SDK's id of the trace, and the conversation."""
        return self.known


class AgentRun(Operation):
    """One agent at work, until it answers or hands off."""

    __slots__ = ("inference_calls", "tool_calls")

    active = names.METRIC_AGENT_RUNTIME_AGENT_ACTIVE
    measures = (
        Measure(names.METRIC_GEN_AI_INVOKE_AGENT_DURATION, seconds),
        Measure(names.METRIC_GEN_AI_INVOKE_AGENT_INFERENCE_CALLS, lambda run: run.inference_calls),
        Measure(names.METRIC_GEN_AI_INVOKE_AGENT_TOOL_CALLS, lambda run: run.tool_calls),
    )

    def __init__(self, data: Any, outer: Operation | None) -> None:
        attributes = {names.GEN_AI_OPERATION_NAME: "invoke_agent", names.GEN_AI_AGENT_NAME: str(data.name)}
        if data.output_type not in (None, "str"):
            attributes[names.GEN_AI_OUTPUT_TYPE] = "json"
        super().__init__(names.INVOKE_AGENT, SCOPE, attributes, outer)
        self.agent = self
        self.inference_calls = self.tool_calls = 0

    def entities(self) -> dict[str, Any]:
        """Return its name."""
        return {names.GEN_AI_AGENT_NAME: self.attributes[names.GEN_AI_AGENT_NAME]}


class ToolRun(Operation):
    """One execution of a tool that the model asked for; a hand-off is one, because the model asks for it so."""

    __slots__ = ()

    measures = (Measure(names.METRIC_GEN_AI_EXECUTE_TOOL_DURATION, seconds),)

    def __init__(self, data: Any, outer: Operation | None) -> None:
        attributes = {
            names.GEN_AI_OPERATION_NAME: "execute_tool",
            names.GEN_AI_TOOL_NAME: _tool_name(data),
            names.GEN_AI_TOOL_TYPE: "function",
        }
        super().__init__(names.EXECUTE_TOOL, SCOPE, attributes, outer)
        if self.agent is not None:
            self.agent.tool_calls += 1

    def read(self) -> None:
        """Read arguments and result, where content is on, and where a hand-off went."""
        data, attributes = self.data, self.attributes
        if data.type == "handoff":
            attributes[names.GEN_AI_TOOL_NAME] = _tool_name(data)
        elif runtime.config().content_on_spans:
            for key, value in (
                (names.GEN_AI_TOOL_CALL_ARGUMENTS, data.input),
                (names.GEN_AI_TOOL_CALL_RESULT, data.output),
            ):
                if value is not None:
                    attributes[key] = str(value)


class Step(Operation):
    """A guardrail, or a step that the app named itself (the SDK's custom span)."""

    __slots__ = ()

    measures = (Measure(names.METRIC_AGENT_RUNTIME_STEP_DURATION, seconds),)

    def __init__(self, data: Any, outer: Operation | None) -> None:
        super().__init__(names.STEP, STEP_SCOPE, {names.AGENT_RUNTIME_STEP_NAME: str(data.name)}, outer)

    def complete(self) -> None:
        """Say how it ended."""
        self.attributes[names.AGENT_RUNTIME_STEP_RESULT] = "failed" if self.error else "completed"
        super().complete()


# The SDK's types of spans that are one of ours; any other is part of what it stands in.
_KINDS: dict[str, type[Any]] = {
    "agent": AgentRun,
    "function": ToolRun,
    "handoff": ToolRun,
    "guardrail": Step,
    "custom": Step,
}


def _tool_name(data: Any) -> str:
    if data.type != "handoff":
        return str(data.name)
    # The SDK's own rule for the tool by which a model hands off; until it did, its target is not known.
    return "transfer_to_" + re.sub(r"[^a-zA-Z0-9_]", "_", str(data.to_agent or "agent")).lower()


# -- from the SDK's start to its end ---------------------------------------------------------------------

_open: dict[str, Operation | None] = {}  # by the SDK's id of the trace or span
_ended: dict[str, Operation] = {}  # runs that may be resumed: their trace goes on


def _start_trace(trace: Any) -> None:
    if trace.trace_id in _open:
        return
    workflow = Workflow(trace)
    _enter(workflow, trace.trace_id)
    name = workflow.attributes.get(names.GEN_AI_WORKFLOW_NAME)
    if name:
        runtime.emitter().measure(
            names.METRIC_AGENT_RUNTIME_WORKFLOW_STARTED, SCOPE, {names.GEN_AI_WORKFLOW_NAME: name}
        )


def _start_span(span: Any) -> None:
    if span.span_id in _open:
        return
    outer = _open.get(span.parent_id) or _open.get(span.trace_id) or _ended.get(span.trace_id)
    data = span.span_data
    kind = _KINDS.get(data.type)
    if kind is None:
        if data.type in _INFERENCE and outer is not None and outer.agent is not None:
            outer.agent.inference_calls += 1
        _keep(span.span_id, outer)
        return
    made = kind(data, outer)
    made.data = data
    _enter(made, span.span_id)


def _keep(key: str, operation: Operation | None) -> None:
    if len(_open) >= _MAX_OPEN:  # the app starts spans and never ends them
        oldest = next(iter(_open))
        _close(_open.pop(oldest), oldest)
    _open[key] = operation


def _enter(operation: Operation, key: str) -> None:
    operation.key = key
    _keep(key, operation)
    here, outer = context.current.get(), operation.outer
    # Below what is current, as that may be a span of the app's inside `outer`; unless the SDK says otherwise.
    operation.open(None if outer is None or _inside(here, outer) else outer)
    operation.count_active(1)
    tracing.attach(operation)
    known = operation.entities()
    if known:
        operation.entity_token = context.entity.set({**context.entity.get(), **known})


def _inside(here: Record | None, outer: Operation) -> bool:
    if isinstance(here, Operation):
        return here is outer
    return here is not None and here.trace_id == outer.trace_id


def _end_trace(trace: Any) -> None:
    workflow = _open.get(trace.trace_id)
    _end(trace.trace_id, None)
    if workflow is not None:
        _ended[trace.trace_id] = workflow
        while len(_ended) > _MAX_ENDED:
            del _ended[next(iter(_ended))]


def _end_span(span: Any) -> None:
    _end(span.span_id, span.error)


def _end(key: str, told: Any) -> None:
    operation = _open.pop(key, None)
    if operation is not None and operation.key == key:
        guard.run(operation.read)
        _note_failure(operation, told)
        _close(operation, key)
        _leave()


def _close(operation: Operation | None, key: str) -> None:
    if operation is not None and operation.key == key:
        operation.close()


def _leave() -> None:
    here = context.current.get()
    while isinstance(here, Operation) and here.closed and here.tokens is not None:
        tokens = here.tokens
        try:
            if here.entity_token is not None:
                context.entity.reset(here.entity_token)
                here.entity_token = None
            tracing.detach(here)
        except ValueError:  # it was made current in another task, whose next end undoes it
            here.tokens = tokens
            return
        here = context.current.get()


# -- how it ended -----------------------------------------------------------------------------------------


def _note_failure(operation: Operation, told: Any) -> None:
    error = sys.exc_info()[1]
    if error is not None and id(error) != operation.handled:
        if not isinstance(error, GeneratorExit):  # the app has read enough
            cause = error.__cause__ if isinstance(operation, ToolRun) else None
            operation.fail(blame.of_exception(cause or error), llm.message_of(cause or error))
    elif told:
        message = str(told.get("message") or "")
        operation.fail((_RAISED_LATER.get(message, names.OTHER), names.CLIENT_FAULT), message)
        if message in _RAISED_LATER and isinstance(operation.outer, Workflow):
            operation.outer.error, operation.outer.message = operation.error, message


# -- the processor ----------------------------------------------------------------------------------------


class Processor:
    """What the SDK tells of its traces and spans."""

    def on_trace_start(self, trace: Any) -> None:
        """A run begins."""
        if _provider is not None:
            guard.run(_start_trace, trace)

    def on_trace_end(self, trace: Any) -> None:
        """A run has ended."""
        guard.run(_end_trace, trace)

    def on_span_start(self, span: Any) -> None:
        """A part of a run begins."""
        if _provider is not None:
            guard.run(_start_span, span)

    def on_span_end(self, span: Any) -> None:
        """A part of a run has ended."""
        guard.run(_end_span, span)

    def shutdown(self) -> None:
        """The process ends: what is still open ends with it, so that nothing below it is an orphan."""
        guard.run(_close_all)

    def force_flush(self) -> None:
        """Leave sending to our pipeline."""


PROCESSOR = Processor()
_provider: Any = None  # the SDK's trace provider that we have joined


def _close_all() -> None:
    while _open:
        key, operation = _open.popitem()
        _close(operation, key)
    _ended.clear()


os.register_at_fork(after_in_child=_open.clear)  # what was open is the parent's to end


def _asked(args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    return True


def _join(_: Any, provider: Any) -> None:
    # Only now, not at import: the SDK makes its own exporter when its provider is first asked for.
    global _provider
    if provider is not _provider:
        _provider = provider
        _register(provider)


def _register(provider: Any) -> None:
    from agents.tracing import TracingProcessor

    TracingProcessor.register(Processor)
    provider.register_processor(PROCESSOR)


def _replacing(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    return args[0]


def _replaced(provider: Any, _: Any) -> None:
    """The app chose which processors there are instead of the SDK's own: we are not among those it means."""
    global _provider
    _provider = provider
    _register(provider)


def _stop() -> None:
    global _provider
    provider, _provider = _provider, None
    _close_all()
    if provider is not None:
        # There is no public way to read the list; where this one is gone, ours stays in it and is silent.
        listed = provider._multi_processor._processors
        provider.set_processors([each for each in listed if each is not PROCESSOR])


INTEGRATION = Integration(
    name="openai_agents",
    scope=SCOPE,
    targets=(
        Target("agents.tracing.create:get_trace_provider", _asked, _join),
        Target("agents.tracing.provider:DefaultTraceProvider.set_processors", _replacing, _replaced, needed=False),
    ),
    supported={"openai-agents": ("0.1", "1")},
    stopped=_stop,
)

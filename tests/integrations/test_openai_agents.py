"""openai-agents: real runs of the real SDK against the scripted server, in one trace each."""

import asyncio
import time

import agents
import openai
import pytest
from agents import Agent, Runner, function_tool
from opentelemetry import trace as otel

import watchkeep
from watchkeep import context, guard, names
from watchkeep.config import load
from watchkeep.integrations import openai_agents
from watchkeep.testing import capture


@pytest.fixture(autouse=True)
def run_safely(monkeypatch):
    """The SDK sends nothing to its vendor, and hides no fault of ours (it swallows what a processor raises)."""
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.delenv("OPENAI_AGENTS_DISABLE_TRACING", raising=False)
    agents.set_trace_processors([])
    before = guard.faults
    yield
    assert guard.faults == before
    assert not openai_agents._open
    assert context.current.get() is None


@pytest.fixture(params=["chat", "responses"])
def model(request, llm_server):
    """Both of the SDK's own models: chat completions and Responses."""
    client = openai.AsyncOpenAI(base_url=llm_server.base_url, api_key="sk-test")
    kind = agents.OpenAIChatCompletionsModel if request.param == "chat" else agents.OpenAIResponsesModel
    return kind("gpt-4o", client)


def chat_model(llm_server):
    """A model with a client of its own, whose connections belong to one event loop."""
    client = openai.AsyncOpenAI(base_url=llm_server.base_url, api_key="sk-test")
    return agents.OpenAIChatCompletionsModel("gpt-4o", client)


@pytest.fixture
def chat(llm_server):
    """One model, where the other makes no difference."""
    return chat_model(llm_server)


def asks(*calls, system="", user=""):
    """Plan: the model asks for these tools, one after the other, then answers."""
    steps = [{"tool_calls": [{"name": each, "arguments": {}}] if isinstance(each, str) else each} for each in calls]
    match = {key: value for key, value in (("system", system), ("user", user)) if value}
    return {"match": match or {"any": ""}, "steps": steps}


async def asked(agent, text="hi", **options):
    return (await Runner.run(agent, text, **options)).final_output


async def streamed(agent, text="hi", **options):
    result = Runner.run_streamed(agent, text, **options)
    async for _ in result.stream_events():
        pass
    return result.final_output


def tree(spans, root=0):
    """Spans as nested lists of names, in the order of their starts; attempts and checkouts left out."""
    found = []
    for span in sorted(spans, key=lambda one: one.start_ns):
        if span.parent_id == root and not span.name.startswith(("POST", "wait_for")):
            below = tree(spans, span.span_id)
            found.append([span.name, *below] if below else span.name)
    return found


def parent_of(span, spans):
    return next(one for one in spans if one.span_id == span.parent_id)


def assert_whole(spans, traces=1, slack=0):
    """One trace per run, no orphan, the process's correlation ID everywhere; `slack`: ns a child may end later."""
    assert len({span.trace_id for span in spans}) == traces
    ids = {span.span_id for span in spans}
    assert len(ids) == len(spans)
    assert [span.name for span in spans if span.parent_id and span.parent_id not in ids] == []
    assert len([span for span in spans if not span.parent_id]) == traces
    assert {span.attributes[names.AGENT_RUNTIME_CORRELATION_ID] for span in spans} == {context.correlation_id()}
    for span in spans:
        if span.parent_id:
            parent = parent_of(span, spans)
            assert parent.start_ns <= span.start_ns
            assert span.end_ns <= parent.end_ns + slack


@function_tool
def weather() -> str:
    """Tell the weather."""
    return "sunny"


def two_agents(model):
    bob = Agent(name="Bob", instructions="You are Bob.", model=model)
    return Agent(name="Alice", instructions="You are Alice.", model=model, tools=[weather], handoffs=[bob])


EXPECTED = [
    [
        "invoke_workflow",
        ["invoke_agent Alice", "chat gpt-4o", "execute_tool weather", "chat gpt-4o", "execute_tool transfer_to_bob"],
        ["invoke_agent Bob", "chat gpt-4o"],
    ]
]


def in_every_way(server):
    """Plain and streamed runs with a tool and a hand-off; the app drops the SDK's exporter."""
    agents.set_trace_processors([])
    said = []
    for how in (asked, streamed):
        server.plan({"rules": [asks("weather", "transfer_to_bob", system="Alice")]})
        said.append(asyncio.run(how(two_agents(chat_model(server)))))
    return said


def failing(server):
    """A tool whose exception ends the run."""

    @function_tool(failure_error_function=None)
    def broken() -> str:
        raise ValueError("no luck")

    server.plan({"rules": [asks("broken")]})
    asyncio.run(asked(Agent(name="Alice", model=chat_model(server), tools=[broken])))


def cancelled(server):
    """A run that is cancelled inside a tool."""

    async def main():
        task = asyncio.current_task()

        @function_tool
        async def stop() -> str:
            task.cancel()
            await asyncio.sleep(30)
            return "never"

        await asked(Agent(name="Alice", model=chat_model(server), tools=[stop]))

    server.plan({"rules": [asks("stop")]})
    asyncio.run(main())


EXERCISES = (in_every_way, failing, cancelled)


@pytest.mark.parametrize("how", [asked, streamed])
def test_a_run_with_a_tool_and_a_hand_off_is_one_trace(watchkeep_capture, llm_server, model, how):
    """Agents below the run, model calls and tools below their agent, plain and streamed, chat and Responses."""
    llm_server.plan({"rules": [asks("weather", "transfer_to_bob", system="Alice")]})
    output = asyncio.run(how(two_agents(model)))
    spans = watchkeep_capture.spans()
    assert output.startswith("Echo:")
    assert tree(spans) == EXPECTED
    assert_whole(spans)
    assert len(watchkeep_capture.spans("POST")) == len(llm_server.settle()) == 3
    for kind, agent, calls in (
        ("inference", "Alice", 2),
        ("inference", "Bob", 1),
        ("tool", "Alice", 2),
        ("tool", "Bob", 0),
    ):
        (point,) = watchkeep_capture.points(f"gen_ai.invoke_agent.{kind}_calls", gen_ai_agent_name=agent)
        assert (point.count, point.sum) == (1, calls)


def test_run_sync_is_the_same(watchkeep_capture, llm_server, chat):
    """The SDK's synchronous door gives the same tree."""
    llm_server.plan({"rules": [asks("weather", "transfer_to_bob", system="Alice")]})
    Runner.run_sync(two_agents(chat), "hi")
    assert tree(watchkeep_capture.spans()) == EXPECTED
    assert_whole(watchkeep_capture.spans())


def test_what_a_run_is_measured_by(watchkeep_capture, llm_server, chat):
    """Durations by agent, workflow and tool; what is under way is counted while it is, and gone after."""
    during = {}

    @function_tool
    def look() -> str:
        for metric in (names.METRIC_AGENT_RUNTIME_AGENT_ACTIVE, names.METRIC_AGENT_RUNTIME_WORKFLOW_ACTIVE):
            during[metric.name] = watchkeep_capture.value(metric.name)
        return "seen"

    llm_server.plan({"rules": [asks("look")]})
    config = agents.RunConfig(workflow_name="trip planner", group_id="thread-7")
    asyncio.run(asked(Agent(name="Alice", model=chat, tools=[look]), run_config=config))
    assert during == {"agent_runtime.agent.active": 1, "agent_runtime.workflow.active": 1}
    value = watchkeep_capture.value
    assert value("agent_runtime.agent.active", gen_ai_agent_name="Alice") == 0
    assert value("agent_runtime.workflow.active", gen_ai_workflow_name="trip planner") == 0
    assert value("agent_runtime.workflow.started", gen_ai_workflow_name="trip planner") == 1
    assert value("gen_ai.invoke_agent.duration", gen_ai_agent_name="Alice") == 1
    assert value("gen_ai.invoke_workflow.duration", gen_ai_workflow_name="trip planner") == 1
    assert value("gen_ai.execute_tool.duration", gen_ai_tool_name="look", gen_ai_agent_name="Alice") == 1
    assert watchkeep_capture.spans("invoke_workflow trip planner")


def test_every_span_says_agent_workflow_conversation_and_session(watchkeep_capture, llm_server, chat):
    """Name and group of the run, and the agent, are on model calls and attempts, and known to a tool's log lines."""
    known = []

    @function_tool
    def look() -> str:
        known.append(context.entity_attributes())
        return "seen"

    llm_server.plan({"rules": [asks("look")]})

    async def run():
        watchkeep.set_session(session_id="s-1")
        config = agents.RunConfig(workflow_name="trip planner", group_id="thread-7")
        await asked(Agent(name="Alice", model=chat, tools=[look]), run_config=config)

    asyncio.run(run())
    run_id = watchkeep_capture.spans("invoke_workflow")[0].attributes[names.AGENT_RUNTIME_WORKFLOW_RUN_ID]
    expected = {
        names.GEN_AI_WORKFLOW_NAME: "trip planner",
        names.GEN_AI_CONVERSATION_ID: "thread-7",
        names.GEN_AI_AGENT_NAME: "Alice",
        names.AGENT_RUNTIME_WORKFLOW_RUN_ID: run_id,
        names.SESSION_ID: "s-1",
    }
    assert known == [expected]
    for span in watchkeep_capture.spans():
        wanted = dict(expected)
        if span.name.startswith("invoke_workflow"):
            del wanted[names.GEN_AI_AGENT_NAME]
        assert wanted.items() <= span.attributes.items()
    assert context.entity_attributes() == {}


def test_a_failing_tool_fails_its_span_and_not_the_run(watchkeep_capture, llm_server, chat):
    """The SDK tells the model of the error and goes on: so does the trace."""

    @function_tool
    def broken() -> str:
        raise ValueError("no luck")

    llm_server.plan({"rules": [asks("broken")]})
    asyncio.run(asked(Agent(name="Alice", model=chat, tools=[broken])))
    failed = [span.name for span in watchkeep_capture.spans() if span.status_code == 2]
    assert failed == ["execute_tool broken"]
    assert watchkeep_capture.value("gen_ai.execute_tool.duration", error_type="_OTHER") == 1


def test_a_tool_whose_error_ends_the_run_gives_the_app_its_own_exception(watchkeep_capture, llm_server, chat):
    """The very exception that the tool raised is the cause of the SDK's; tool, agent and run have failed."""
    raised = ValueError("no luck")

    @function_tool(failure_error_function=None)
    def broken() -> str:
        raise raised

    llm_server.plan({"rules": [asks("broken")]})
    with pytest.raises(agents.exceptions.UserError) as caught:
        asyncio.run(asked(Agent(name="Alice", model=chat, tools=[broken])))
    assert caught.value.__cause__ is raised
    found = {span.name: span.attributes.get(names.ERROR_TYPE) for span in watchkeep_capture.spans()}
    assert found["execute_tool broken"] == "ValueError"
    assert found["invoke_agent Alice"] == found["invoke_workflow"] == "UserError"
    assert "no luck" not in str(watchkeep_capture.spans())


def test_an_error_that_is_handled_around_a_run_is_not_the_run_s(watchkeep_capture, chat):
    """A run inside an `except` block is judged by its own end."""
    try:
        raise KeyError("before")
    except KeyError:
        asyncio.run(asked(Agent(name="Alice", model=chat)))
    assert {span.status_code for span in watchkeep_capture.spans()} == {0}


@pytest.mark.parametrize("how", [asked, streamed])
def test_a_provider_failure_is_on_call_agent_and_run(watchkeep_capture, llm_server, model, how):
    """The exception is the client's own; all that it passed through has failed, once."""
    llm_server.plan({"default": 400})
    with pytest.raises(openai.BadRequestError):
        asyncio.run(how(Agent(name="Alice", model=model)))
    spans = watchkeep_capture.spans()
    assert_whole(spans)
    assert [span.name for span in spans if span.status_code == 2] == [
        "POST", "chat gpt-4o", "invoke_agent Alice", "invoke_workflow",
    ]  # fmt: skip


def test_a_cancelled_run_ends_everything_once(watchkeep_capture, llm_server, chat):
    """Cancelled inside a tool: tool, agent and run end as cancelled, and nothing stays open."""

    async def cancel():
        inside = asyncio.Event()

        @function_tool
        async def slow() -> str:
            inside.set()
            await asyncio.sleep(30)
            return "never"

        task = asyncio.create_task(asked(Agent(name="Alice", model=chat, tools=[slow])))
        await inside.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    llm_server.plan({"rules": [asks("slow")]})
    asyncio.run(cancel())
    spans = watchkeep_capture.spans()
    assert_whole(spans, slack=50_000_000)  # the SDK cancels a tool in a task of its own and does not wait for it
    cancelled = sorted(span.name for span in spans if span.attributes.get(names.ERROR_TYPE) == "cancelled")
    assert cancelled == ["execute_tool slow", "invoke_agent Alice", "invoke_workflow"]
    assert watchkeep_capture.value("agent_runtime.agent.active") == 0


@pytest.mark.parametrize("mode", ["immediate", "after_turn"])
def test_a_streamed_run_that_the_app_cancels(watchkeep_capture, llm_server, model, mode):
    """Cancelled in the middle of the answer, at once or after the turn, it is whole."""

    async def cancel():
        result = Runner.run_streamed(Agent(name="Alice", model=model), "hi")
        async for event in result.stream_events():
            if event.type == "raw_response_event":
                result.cancel(mode)
        await asyncio.sleep(0.05)

    llm_server.plan([{"chunks": 20, "chunk_delay": 0.01}])
    asyncio.run(cancel())
    spans = watchkeep_capture.spans()
    assert tree(spans) == [["invoke_workflow", ["invoke_agent Alice", "chat gpt-4o"]]]
    assert_whole(spans)


def test_a_streamed_run_that_nobody_reads_on(watchkeep_capture, llm_server, model):
    """The reader breaks off and forgets the result: the end of its loop ends the run."""

    async def abandon():
        result = Runner.run_streamed(Agent(name="Alice", model=model), "hi")
        async for event in result.stream_events():
            if event.type == "raw_response_event":
                break

    llm_server.plan([{"chunks": 20, "chunk_delay": 0.01}])
    asyncio.run(abandon())
    spans = watchkeep_capture.spans()
    assert tree(spans) == [["invoke_workflow", ["invoke_agent Alice", "chat gpt-4o"]]]
    assert_whole(spans)


@pytest.mark.parametrize("how", [asked, streamed])
def test_too_many_turns_fail_agent_and_run(watchkeep_capture, llm_server, chat, how):
    """The SDK's exception reaches the app; a streamed run has failed too, although it raised later."""
    llm_server.plan({"default": {"tool_calls": [{"name": "weather"}]}})
    with pytest.raises(agents.MaxTurnsExceeded):
        asyncio.run(how(Agent(name="Alice", model=chat, tools=[weather]), max_turns=2))
    found = {span.name: span.attributes.get(names.ERROR_TYPE) for span in watchkeep_capture.spans()}
    assert found["invoke_agent Alice"] == found["invoke_workflow"] == "MaxTurnsExceeded"
    assert_whole(watchkeep_capture.spans())


def test_two_runs_in_parallel_tasks_do_not_mix(watchkeep_capture, llm_server, chat):
    """Each has its own trace, its own tool and its own conversation."""
    llm_server.plan({"rules": [asks("weather", system="Ann"), asks("weather", system="Ben")]})

    async def both():
        runs = []
        for name in ("Ann", "Ben"):
            agent = Agent(name=name, instructions=f"You are {name}.", model=chat, tools=[weather])
            runs.append(asked(agent, run_config=agents.RunConfig(group_id=name)))
        await asyncio.gather(*runs)

    asyncio.run(both())
    spans = watchkeep_capture.spans()
    assert_whole(spans, traces=2)
    for root in watchkeep_capture.spans("invoke_workflow"):
        mine = [span for span in spans if span.trace_id == root.trace_id]
        name = root.attributes[names.GEN_AI_CONVERSATION_ID]
        assert tree(mine) == [
            ["invoke_workflow", [f"invoke_agent {name}", "chat gpt-4o", "execute_tool weather", "chat gpt-4o"]]
        ]
        assert {span.attributes[names.GEN_AI_CONVERSATION_ID] for span in mine} == {name}


def test_parallel_tools_keep_their_own_calls(watchkeep_capture, llm_server, chat):
    """What a tool asks the model, in a coroutine or a thread, is below that tool."""
    sync = openai.OpenAI(base_url=llm_server.base_url, api_key="sk-test")

    @function_tool
    async def ask_async() -> str:
        await asyncio.sleep(0.02)
        await chat._client.chat.completions.create(model="inner-a", messages=[{"role": "user", "content": "a"}])
        return "a"

    @function_tool
    def ask_sync() -> str:
        time.sleep(0.01)
        sync.chat.completions.create(model="inner-b", messages=[{"role": "user", "content": "b"}])
        return "b"

    both = [{"name": "ask_async"}, {"name": "ask_sync"}]
    llm_server.plan({"rules": [{"match": {"model": "gpt-4o"}, "steps": [{"tool_calls": both}]}]})
    asyncio.run(asked(Agent(name="Alice", model=chat, tools=[ask_async, ask_sync])))
    spans = watchkeep_capture.spans()
    assert_whole(spans)
    for tool, model in (("ask_async", "inner-a"), ("ask_sync", "inner-b")):
        (inner,) = watchkeep_capture.spans(f"chat {model}")
        assert parent_of(inner, spans).name == f"execute_tool {tool}"


def test_the_app_s_own_span_stands_between(watchkeep_capture, llm_server, chat):
    """A span that the app makes around a run, or inside a tool, is where OpenTelemetry puts it."""
    from opentelemetry.sdk.trace import TracerProvider

    tracer = TracerProvider().get_tracer("app")
    seen = []

    @function_tool
    async def nested() -> str:
        with tracer.start_as_current_span("mine") as span:
            seen.append((span.parent.span_id, span.get_span_context().span_id))
            return await asked(Agent(name="Bob", instructions="You are Bob.", model=chat))

    llm_server.plan({"rules": [asks("nested", system="Alice")]})
    asyncio.run(asked(Agent(name="Alice", instructions="You are Alice.", model=chat, tools=[nested])))
    (tool,), (bob,) = watchkeep_capture.spans("execute_tool"), watchkeep_capture.spans("invoke_agent Bob")
    assert seen == [(tool.span_id, bob.parent_id)]
    assert bob.trace_id == tool.trace_id
    assert otel.get_current_span() is otel.INVALID_SPAN


def test_an_agent_as_a_tool_is_below_that_tool(watchkeep_capture, llm_server, chat):
    """The inner agent has its own calls; the outer one only the tool."""
    bob = Agent(name="Bob", instructions="You are Bob.", model=chat)
    tool = bob.as_tool(tool_name="ask_bob", tool_description="Ask Bob.")
    alice = Agent(name="Alice", instructions="You are Alice.", model=chat, tools=[tool])
    llm_server.plan(
        {"rules": [{"match": {"system": "Alice"}, "steps": [
            {"tool_calls": [{"name": "ask_bob", "arguments": {"input": "hello"}}]}
        ]}]}
    )  # fmt: skip
    asyncio.run(asked(alice))
    assert tree(watchkeep_capture.spans()) == [
        ["invoke_workflow", [
            "invoke_agent Alice",
            "chat gpt-4o",
            ["execute_tool ask_bob", ["invoke_agent Bob", "chat gpt-4o"]],
            "chat gpt-4o",
        ]]
    ]  # fmt: skip
    assert_whole(watchkeep_capture.spans())
    (point,) = watchkeep_capture.points("gen_ai.invoke_agent.inference_calls", gen_ai_agent_name="Alice")
    assert point.sum == 2


@pytest.mark.parametrize("how", [asked, streamed])
def test_a_guardrail_is_a_step_and_its_tripwire_fails_the_run(watchkeep_capture, llm_server, chat, how):
    """It did its work; agent and run are those that ended by it."""

    @agents.input_guardrail
    def polite(ctx, agent, text):
        return agents.GuardrailFunctionOutput(output_info=None, tripwire_triggered=True)

    llm_server.plan({"default": {"delay": 0.2}})
    with pytest.raises(agents.InputGuardrailTripwireTriggered):
        asyncio.run(how(Agent(name="Alice", model=chat, input_guardrails=[polite])))
    (step,) = watchkeep_capture.spans("run_step polite")
    assert step.attributes[names.AGENT_RUNTIME_STEP_RESULT] == "completed"
    assert_whole(watchkeep_capture.spans())
    (run,) = watchkeep_capture.spans("invoke_workflow")
    assert run.attributes[names.ERROR_TYPE].endswith("GuardrailTripwireTriggered")


def test_one_trace_around_several_runs_is_one_workflow(watchkeep_capture, chat):
    """The app's own `trace` is the root, its custom span a step; the second run's failure is handled by the app."""

    async def two():
        with agents.trace("nightly report"):
            with agents.custom_span("collect"):
                await asked(Agent(name="Ann", model=chat))
            await asked(Agent(name="Ben", model=chat))

    asyncio.run(two())
    assert tree(watchkeep_capture.spans()) == [
        ["invoke_workflow nightly report", [
            "run_step collect", ["invoke_agent Ann", "chat gpt-4o"]
        ], ["invoke_agent Ben", "chat gpt-4o"]]
    ]  # fmt: skip
    assert_whole(watchkeep_capture.spans())


def test_a_resumed_run_goes_on_in_its_trace(watchkeep_capture, llm_server, chat):
    """A run that waited for approval continues below the span that it began with."""

    @function_tool(needs_approval=True)
    def pay() -> str:
        return "paid"

    async def approve():
        agent = Agent(name="Alice", model=chat, tools=[pay])
        result = await Runner.run(agent, "hi")
        state = result.to_state()
        state.approve(result.interruptions[0])
        return await Runner.run(agent, state)

    llm_server.plan({"rules": [asks("pay")]})
    asyncio.run(approve())
    spans = watchkeep_capture.spans()
    assert len({span.trace_id for span in spans}) == 1
    assert len([span for span in spans if not span.parent_id]) == 1


def test_a_trace_left_open_by_an_abandoned_generator_ends(watchkeep_capture, chat):
    """A generator that held a trace and is closed by another task: no exception, no span lost, no error."""

    async def generate():
        with agents.trace("held"):
            yield await asked(Agent(name="Ann", model=chat))
            yield "never"

    async def first(generator):
        return await anext(generator)

    async def abandon():
        generator = generate()
        await asyncio.create_task(first(generator))
        await generator.aclose()

    asyncio.run(abandon())
    assert_whole(watchkeep_capture.spans())
    assert {span.status_code for span in watchkeep_capture.spans()} == {0}


def test_spans_that_the_app_ends_in_any_order_leave_nothing_current(watchkeep_capture):
    """Started by hand and ended crosswise, each ends once, and afterwards nothing of ours is current."""
    with agents.trace("by hand"):
        one = agents.custom_span("one")
        one.start()
        two = agents.custom_span("two")
        two.start()
        one.finish()
        two.finish()
        assert isinstance(context.current.get(), openai_agents.Workflow)
    assert [span.name for span in watchkeep_capture.spans()] == [
        "run_step one",
        "run_step two",
        "invoke_workflow by hand",
    ]


def test_a_span_that_another_task_ends_is_left_by_its_own(watchkeep_capture):
    """Ended in a task that inherited it, it ends once; the task that began it is rid of it at its next end."""

    async def finish(span):
        span.finish()

    async def cross():
        with agents.trace("crossed"):
            span = agents.custom_span("one")
            span.start()
            await asyncio.create_task(finish(span))
        assert context.current.get() is None
        assert otel.get_current_span() is otel.INVALID_SPAN

    asyncio.run(cross())
    assert [span.name for span in watchkeep_capture.spans()] == ["run_step one", "invoke_workflow crossed"]


def test_tool_content_only_where_content_is_on(llm_server):
    """Arguments and result are on the span when content is captured on spans, and nowhere by default."""
    for setting, expected in (("NO_CONTENT", None), ("SPAN_ONLY", "sunny"), ("EVENT_ONLY", None)):
        llm_server.plan({"rules": [asks("weather")]})
        environment = {"OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT": setting}
        with capture(load(environment).config) as captured:
            asyncio.run(asked(Agent(name="Alice", model=chat_model(llm_server), tools=[weather])))
            (tool,) = captured.spans("execute_tool")
        assert tool.attributes.get(names.GEN_AI_TOOL_CALL_RESULT) == expected
        assert tool.attributes.get(names.GEN_AI_TOOL_CALL_ARGUMENTS) == ("{}" if expected else None)


def test_with_the_sdk_s_tracing_off_model_calls_are_still_seen(watchkeep_capture, llm_server, chat):
    """The SDK tells nobody of its runs then: what is left are the chat spans."""
    llm_server.plan({"rules": [asks("weather")]})
    config = agents.RunConfig(tracing_disabled=True)
    asyncio.run(asked(Agent(name="Alice", model=chat, tools=[weather]), run_config=config))
    assert tree(watchkeep_capture.spans()) == ["chat gpt-4o", "chat gpt-4o"]


class Own(agents.tracing.TracingProcessor):
    """A processor of the app's own."""

    def __init__(self):
        self.seen = []

    def on_trace_start(self, trace):
        self.seen.append(trace.name)

    def on_trace_end(self, trace):
        pass

    def on_span_start(self, span):
        pass

    def on_span_end(self, span):
        pass

    def shutdown(self):
        pass

    def force_flush(self):
        pass


def test_we_stay_beside_the_processors_that_the_app_sets(watchkeep_capture, chat):
    """The app replaces the SDK's exporter by its own processor: both see the run."""
    own = Own()
    agents.set_trace_processors([own])
    asyncio.run(asked(Agent(name="Alice", model=chat)))
    assert own.seen == ["Agent workflow"]
    assert len(watchkeep_capture.spans("invoke_agent")) == 1


def test_we_see_the_runs_of_a_provider_that_the_app_brings(watchkeep_capture, llm_server):
    """A trace provider set by the app is joined at its first trace; each run is seen once."""
    before = agents.tracing.get_trace_provider()
    own = agents.tracing.provider.DefaultTraceProvider()
    agents.tracing.set_trace_provider(own)
    try:
        asyncio.run(asked(Agent(name="Alice", model=chat_model(llm_server))))
    finally:
        agents.tracing.set_trace_provider(before)
    asyncio.run(asked(Agent(name="Bob", model=chat_model(llm_server))))
    assert [span.name for span in watchkeep_capture.spans("invoke_agent")] == ["invoke_agent Alice", "invoke_agent Bob"]


def test_uninstalling_takes_out_our_processor_and_no_other(watchkeep_capture, llm_server):
    """The app's processor stays where it was; ours is gone, and comes back when it is installed again."""
    own = Own()
    agents.set_trace_processors([own])
    watchkeep.uninstrument()
    processors = agents.tracing.get_trace_provider()._multi_processor._processors
    assert processors == (own,)
    asyncio.run(asked(Agent(name="Alice", model=chat_model(llm_server))))
    assert watchkeep_capture.spans() == []
    watchkeep.instrument()
    asyncio.run(asked(Agent(name="Alice", model=chat_model(llm_server))))
    assert len(watchkeep_capture.spans("invoke_agent")) == 1
    assert own.seen == ["Agent workflow"] * 2


def test_a_fault_of_ours_does_not_reach_the_run(watchkeep_capture, llm_server, chat, monkeypatch):
    """With every reader of ours broken, the run's result is the same."""
    monkeypatch.setattr(guard, "raising", False)
    monkeypatch.setattr(openai_agents, "_start_span", lambda span: 1 / 0)
    monkeypatch.setattr(openai_agents, "_end_trace", lambda trace: 1 / 0)
    faults = guard.faults
    assert asyncio.run(asked(Agent(name="Alice", model=chat))).startswith("Echo:")
    assert guard.faults > faults
    guard.faults = faults
    openai_agents._close_all()
    context.current.set(None)

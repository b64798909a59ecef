"""A small app of an ordinary user of openai-agents: one function tool, one hand-off. It knows nothing of watchkeep."""

import asyncio
import logging
import sys

from agents import Agent, OpenAIChatCompletionsModel, OpenAIResponsesModel, Runner, function_tool
from openai import AsyncOpenAI, OpenAIError

log = logging.getLogger("travel")


@function_tool
def weather(city: str) -> str:
    """Tell the weather of a city."""
    log.warning("asked for %s", city)
    return f"It is sunny in {city}."


def team(api):
    kind = OpenAIResponsesModel if api == "responses" else OpenAIChatCompletionsModel
    model = kind("gpt-4o", AsyncOpenAI(api_key="sk-test"))
    booker = Agent(name="Booker", instructions="You book trips.", model=model)
    return Agent(name="Guide", instructions="You guide.", model=model, tools=[weather], handoffs=[booker])


async def plain(guide):
    print((await Runner.run(guide, "A trip to Rome")).final_output)


async def stream(guide):
    result = Runner.run_streamed(guide, "A trip to Oslo")
    async for event in result.stream_events():
        if event.type == "raw_response_event" and event.data.type == "response.output_text.delta":
            print(event.data.delta, end="", flush=True)
    print()


async def main(api, *ways):
    status = 0
    for way in ways:
        try:
            await {"plain": plain, "stream": stream}[way](team(api))
        except OpenAIError as error:
            print(f"failed: {type(error).__name__}: {error}")
            status = 3
    return status


if __name__ == "__main__":
    sys.exit(asyncio.run(main(*sys.argv[1:])))

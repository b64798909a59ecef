"""A travel desk on openai-agents: a guardrail, a function tool, a hand-off, and now and then a provider that fails.

It asks the public API of watchkeep for one thing: whose session a run belongs to.
"""

import asyncio
import logging
import sys

from agents import Agent, OpenAIChatCompletionsModel, Runner, custom_span, function_tool, trace
from openai import AsyncOpenAI, OpenAIError

import watchkeep

log = logging.getLogger("assistant")
CITIES = ("Rome", "Oslo", "Nowhere", "Lima")  # the plan fails Nowhere


@function_tool
def weather(city: str) -> str:
    """Tell the weather of a city."""
    log.info("asked for the weather of %s", city)
    return f"It is sunny in {city}."


def team(client):
    model = OpenAIChatCompletionsModel("gpt-4o", client)
    booker = Agent(name="Booker", instructions="You book trips.", model=model)
    return Agent(name="Guide", instructions="You guide.", model=model, tools=[weather], handoffs=[booker])


async def main(rounds, pause):
    guide = team(AsyncOpenAI(api_key="local", max_retries=0))
    for number in range(rounds):
        for city in CITIES:
            watchkeep.set_session(session_id=f"guest-{number}")
            with trace("travel desk", group_id=f"talk-{number}"):
                with custom_span("look up the guest"):
                    await asyncio.sleep(0.01)
                try:
                    await Runner.run(guide, f"A trip to {city}")
                except OpenAIError as error:
                    log.warning("no trip to %s: %s", city, type(error).__name__)
            await asyncio.sleep(pause)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO)
    asyncio.run(main(int(sys.argv[1]), float(sys.argv[2])))

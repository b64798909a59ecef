"""Many hands and few tools: tasks that wait for a thread, calls that wait for a permit, and some that are in vain."""

import asyncio
import logging
import sys
import time
from concurrent.futures import ThreadPoolExecutor

from openai import AsyncOpenAI, OpenAI

log = logging.getLogger("workshop")
ASK = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "Pass me the hammer."}]}
client, tools = OpenAI(), asyncio.Semaphore(2)


def work(number):
    client.chat.completions.create(**ASK)
    if number % 5 == 4:
        raise ValueError("the wrong hammer")


async def apprentice(other):
    async with tools:
        await other.chat.completions.create(**ASK)


async def together():
    async with AsyncOpenAI() as other:
        waiting = [asyncio.create_task(apprentice(other)) for _ in range(6)]
        await asyncio.sleep(0.2)
        waiting[-1].cancel()
        await asyncio.gather(*waiting, return_exceptions=True)


def main(rounds, pause):
    loop = asyncio.new_event_loop()
    with ThreadPoolExecutor(2, thread_name_prefix="hands") as hands:
        for _ in range(rounds):
            tasks = [hands.submit(work, number) for number in range(6)]
            log.info("%d of %d in vain", sum(task.exception() is not None for task in tasks), len(tasks))
            loop.run_until_complete(together())
            time.sleep(pause)
    try:
        hands.submit(work, 0)
    except RuntimeError as error:
        log.warning("after hours: %s", error)
    loop.close()


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO)
    main(int(sys.argv[1]), float(sys.argv[2]))

"""Many callers, one connection: some wait, some give up, and some find it broken; then another event loop comes."""

import asyncio
import logging
import sys
import threading
import time

import httpx2
from openai import AsyncOpenAI, DefaultAsyncHttpx2Client, DefaultHttpx2Client, OpenAI, OpenAIError

log = logging.getLogger("crowd")
ONE = httpx2.Limits(max_connections=1, max_keepalive_connections=1, keepalive_expiry=0.8)
PATIENCE = httpx2.Timeout(10, pool=0.5)
CALLERS = 6
ASK = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "Is it my turn?"}]}

client = OpenAI(max_retries=0, timeout=PATIENCE, http_client=DefaultHttpx2Client(limits=ONE))
other = AsyncOpenAI(max_retries=0, timeout=PATIENCE, http_client=DefaultAsyncHttpx2Client(limits=ONE))


def caller():
    try:
        client.chat.completions.create(**ASK)
    except OpenAIError as error:
        log.warning("gave up: %s", type(error).__name__)


async def from_this_loop():
    try:
        await other.chat.completions.create(**ASK)
    except (OpenAIError, RuntimeError) as error:
        log.warning("another loop: %s", type(error).__name__)


def main(rounds, pause):
    for _ in range(rounds):
        threads = [threading.Thread(target=caller) for _ in range(CALLERS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        asyncio.run(from_this_loop())
        time.sleep(pause)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO)
    main(int(sys.argv[1]), float(sys.argv[2]))

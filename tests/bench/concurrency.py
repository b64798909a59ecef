"""One variant of what a permit or a task costs, in a process of its own: bare or watched, `count` times.

python concurrency.py VARIANT semaphore|task|span COUNT
"""

import asyncio
import os
import sys
from concurrent.futures import ThreadPoolExecutor

VARIANT, WHAT, COUNT = sys.argv[1], sys.argv[2], int(sys.argv[3])

if VARIANT == "watched":
    import watchkeep

    watchkeep.instrument()


async def permits() -> None:
    semaphore = asyncio.Semaphore(3)
    for _ in range(50 + COUNT):
        async with semaphore:
            pass


def work() -> None:
    if WHAT == "span" and VARIANT == "watched":  # a task in which something refers to its span
        from opentelemetry import trace

        trace.get_current_span().get_span_context()


def tasks() -> None:
    with ThreadPoolExecutor(1, "bench") as pool:
        for _ in range(20 + COUNT):
            pool.submit(work).result()


asyncio.run(permits()) if WHAT == "semaphore" else tasks()
os._exit(0)

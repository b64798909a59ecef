"""Asks a provider that is down, behind a breaker with a long patience, and goes on for ever: to be killed from outside.

What is written to its standard input is asked too: a line that the plan answers closes the breaker again.
"""

import logging
import sys
import threading
import time

import pybreaker
from openai import OpenAI, OpenAIError

log = logging.getLogger("stubborn")
breaker = pybreaker.CircuitBreaker(fail_max=2, reset_timeout=float(sys.argv[1]), name=sys.argv[2])
client = OpenAI(max_retries=0)
question = "down"


@breaker
def ask(text):
    return client.chat.completions.create(model="gpt-4o", messages=[{"role": "user", "content": text}])


def listen():
    global question
    for line in sys.stdin:
        question = line.strip()


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO)
    threading.Thread(target=listen, daemon=True).start()
    while True:
        try:
            ask(question)
        except (OpenAIError, pybreaker.CircuitBreakerError) as error:
            log.warning("no answer: %s", type(error).__name__)
        print(breaker.current_state, flush=True)
        time.sleep(0.2)

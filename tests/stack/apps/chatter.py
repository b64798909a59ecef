"""Asks for ever, quickly, a provider that answers: to be ended from outside."""

import logging
import sys
import time

from openai import OpenAI

logging.basicConfig(level=logging.INFO)
client = OpenAI()
while True:
    client.chat.completions.create(model="gpt-4o-mini", messages=[{"role": "user", "content": "Still there?"}])
    time.sleep(float(sys.argv[1]))

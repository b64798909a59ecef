"""Embeddings, streams that end in every way, and calls that fail in many; in the end an error that nobody handles."""

import gc
import logging
import sys
import time

import httpx2
import tenacity
from openai import APIError, DefaultHttpx2Client, OpenAI

log = logging.getLogger("library")
client = OpenAI(
    max_retries=1,
    timeout=httpx2.Timeout(0.6, connect=2, pool=5),
    http_client=DefaultHttpx2Client(limits=httpx2.Limits(max_connections=4, keepalive_expiry=0.3)),
)


def asked(text, **options):
    return client.chat.completions.create(model="gpt-4o", messages=[{"role": "user", "content": text}], **options)


def index():
    client.embeddings.create(model="text-embedding-3-small", input=["a book", "another book"])


def remember():
    client.responses.create(model="gpt-4o", input="remember this book")


def plain(text):
    asked(text)


@tenacity.retry(stop=tenacity.stop_after_attempt(2), wait=tenacity.wait_fixed(0.05), reraise=True)
def persistently(text):
    plain(text)


def read_all(text):
    for _ in asked(text, stream=True, stream_options={"include_usage": True}):
        pass


def read_without_usage():
    for _ in asked("How long is a book?", stream=True):
        pass


def close_early():
    with asked("Tell all", stream=True) as chunks:
        next(iter(chunks))


def forget():
    next(iter(asked("Tell all, to nobody", stream=True)))
    gc.collect()


USES = (
    index,
    remember,
    lambda: plain("What is a book?"),
    lambda: plain("unauthorised"),
    lambda: plain("missing"),
    lambda: plain("slow"),
    lambda: plain("busy"),
    lambda: plain("broken"),
    lambda: persistently("What is a shelf?"),
    lambda: persistently("broken"),
    lambda: read_all("Read to me"),
    lambda: read_all("cut"),
    lambda: read_all("stuck"),
    lambda: read_all("error event"),
    read_without_usage,
    close_early,
    forget,
)


def main(rounds, pause):
    for _ in range(rounds):
        for use in USES:
            try:
                use()
            except APIError as error:
                log.warning("failed: %s", type(error).__name__)
            except httpx2.HTTPError as error:
                log.error("broke off: %s", type(error).__name__)
        log.info("a round is done")
        time.sleep(pause)
    raise RuntimeError("the shelves are empty")


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO)
    main(int(sys.argv[1]), float(sys.argv[2]))

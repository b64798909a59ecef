"""The tree on stderr: what a newcomer sees first."""

import io
import os
import subprocess
import sys

import openai
import pytest

from watchkeep import names
from watchkeep.console import Console, Paint, render, safe


class Screen(io.StringIO):
    encoding = "utf-8"


@pytest.fixture
def retried(watchkeep_capture, llm_server):
    """The spans of a call that met a 429 and then went well."""
    llm_server.plan([{"status": 429, "headers": {"retry-after-ms": "60"}}])
    client = openai.OpenAI(base_url=llm_server.base_url, api_key="sk-test")
    client.chat.completions.create(model="gpt-4o", messages=[{"role": "user", "content": "hi"}])
    return watchkeep_capture.spans()


def test_a_trace_is_printed_when_its_root_ended(retried):
    """Nothing is shown before the root is there, then the whole tree at once."""
    screen = Screen()
    console = Console(screen)
    console.add_spans([span for span in retried if span.parent_id])
    assert screen.getvalue() == ""
    console.add_spans([span for span in retried if not span.parent_id])
    assert screen.getvalue().startswith("chat gpt-4o")


def test_the_tree_says_attempts_waits_blame_tokens_and_correlation(retried):
    """Each attempt with its status and wait, the ledger, whose fault it was, the tokens, the correlation ID."""
    text = "\n".join(render(retried, Paint(Screen())))
    assert "POST #1" in text
    assert "429 (provider's fault)" in text
    assert "POST #2" in text
    assert "of back-off" in text
    assert "time: " in text
    assert "backoff" in text
    assert "tokens" in text
    assert retried[0].attributes[names.AGENT_RUNTIME_CORRELATION_ID] in text


def test_a_trace_without_its_root_is_printed_after_a_while(retried):
    """A child whose root lives elsewhere is not kept for ever."""
    screen, now = Screen(), [0.0]
    console = Console(screen, lambda: now[0])
    console.add_spans([span for span in retried if span.parent_id])
    now[0] = 60.0
    console.add_spans([])
    assert "POST #1" in screen.getvalue()


FORKED = """
import os
import watchkeep
watchkeep.instrument()
from opentelemetry import trace
tracer = trace.get_tracer("app")
with tracer.start_as_current_span("the root"):
    with tracer.start_as_current_span("before the fork"):
        pass
    watchkeep.flush()
    child = os.fork()
    if not child:
        with tracer.start_as_current_span("in the child"):
            pass
        watchkeep.shutdown()
        os._exit(0)
    os.waitpid(child, 0)
"""


def test_a_forked_child_prints_its_own_only():
    """What the parent has not printed yet is the parent's to print; both print what is left at their ends."""
    environment = {**os.environ, "OTEL_TRACES_EXPORTER": "console", "PYTHONIOENCODING": "utf-8"}
    done = subprocess.run(
        [sys.executable, "-c", FORKED], env=environment, capture_output=True, text=True, timeout=30, check=True
    )
    assert [done.stderr.count(name) for name in ("the root", "before the fork", "in the child")] == [1, 1, 1]


def test_a_terminal_is_not_steered_by_a_name():
    """Escape sequences, bidi overrides and line separators are shown, not sent."""
    assert safe("a\x1b[2Jb\u202ec\u2028") == "a\\u001b[2Jb\\u202ec\\u2028"


def test_a_closed_stderr_takes_no_trees(retried):
    """A stream that is closed does not fail the app."""
    screen = Screen()
    screen.close()
    Console(screen).add_spans(retried)


def test_without_unicode_the_tree_is_plain(retried):
    """An ASCII stream gets an ASCII tree."""
    screen = Screen()
    screen.encoding = "ascii"
    assert "\n".join(render(retried, Paint(screen))).isascii()

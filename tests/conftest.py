"""What every test shares: nothing is sent by itself, a fault of ours fails the test, one scripted LLM server."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest

# A runner behind nohup or & hands down ignored signals, and an ignored signal stays so in every child.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)

# Before anything of the package is loaded: a test that exports says so in a process of its own.
for _signal in ("TRACES", "METRICS", "LOGS"):
    os.environ[f"OTEL_{_signal}_EXPORTER"] = "none"

from llm_server import LLMServer  # noqa: E402 - after the environment is set
from support.catalogue import violations  # noqa: E402
from support.completeness import NOT_YET  # noqa: E402
from support.official import differences  # noqa: E402
from watchkeep import guard, runtime  # noqa: E402
from watchkeep.config import load  # noqa: E402
from watchkeep.testing import Capture, Discard  # noqa: E402


@pytest.fixture(autouse=True)
def loud_guard() -> Iterator[None]:
    """Make a fault of ours fail the test; nothing is exported."""
    if runtime.started() is None:
        runtime.replace(runtime.Runtime(load().config, Discard()))
    guard.raising = True
    yield
    guard.raising = False


@pytest.fixture
def llm_server() -> Iterator[LLMServer]:
    """Run the scripted LLM server for one test."""
    with LLMServer() as server:
        yield server


@pytest.fixture
def watchkeep_capture(watchkeep_capture: Capture) -> Iterator[Capture]:
    """Check every name that a test captured against the catalogue, and its bytes against the official encoder."""
    yield watchkeep_capture
    spans, logs = watchkeep_capture.spans(), watchkeep_capture.logs()
    metrics = watchkeep_capture._collect()
    found = violations(spans, logs, metrics)
    assert not found, "\n".join(found)
    assert differences(spans, logs, metrics) == []


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run the completeness of names last: it looks at what the others captured."""
    items.sort(key=lambda item: item.path.name == "test_completeness.py")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the names of our extension that are not captured by any test yet."""
    listed = [name for names in NOT_YET.values() for name in names]
    terminalreporter.write_line(f"not yet ({len(listed)} names of the extension): {', '.join(sorted(listed))}")

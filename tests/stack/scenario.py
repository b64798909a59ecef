"""Real apps on a provider that has a bad day, watched, with everything they emit going to the collector.

The multi-agent example with its own scripted outage, and the small apps (apps/) for what it does not show.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import demo
from llm_server import LLMServer

APPS = Path(__file__).parent / "apps"
EXAMPLE = Path(demo.__file__).parent / "multi_agent"
ENVIRONMENT = "test"
LIMITS = {"limit-requests": 60, "remaining-requests": 12, "reset-requests": "6s"}
SOON = {"retry_after_ms": 50}

CACHED = {  # an answer that wrote to the provider's cache
    "id": "resp_1",
    "object": "response",
    "created_at": 1_700_000_000,
    "model": "gpt-4o",
    "status": "completed",
    "output": [],
    "usage": {
        "input_tokens": 2048,
        "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 1024},
        "output_tokens": 2,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": 2050,
    },
}

PLANS: dict[str, Any] = {
    "assistant": {
        "rules": [
            {"match": {"user": "Nowhere"}, "default": {"status": 500}},
            {
                "match": {"system": "You guide.", "role": "user"},
                "default": {"tool_calls": [{"name": "weather", "arguments": {"city": "Rome"}}]},
            },
            {
                "match": {"system": "You guide.", "role": "tool"},
                "default": {"tool_calls": [{"name": "transfer_to_booker", "arguments": {}}]},
            },
        ],
        "answer": {"delay": 0.05, "ratelimit": LIMITS},
    },
    "library": {
        "rules": [
            {"match": "unauthorised", "default": 401},
            {"match": "missing", "default": 404},
            {"match": "remember", "default": {"body": CACHED}},
            {"match": "slow", "default": {"delay": 2}},
            {"match": "busy", "default": {"status": 429, **SOON}},
            {"match": "broken", "default": {"status": 500, **SOON}},
            {"match": "cut", "default": "cut"},
            {"match": "stuck", "default": {"stall": 2}},
            {"match": "error event", "default": "error_event"},
        ],
        "answer": {"chunk_delay": 0.02, "usage": {"prompt": 300, "completion": 40, "cached": 128, "reasoning": 8}},
    },
    # Some answers are cut off, in the end all: then no connection is any good.
    "crowd": {"steps": [{}, {}, "drop"] * 5, "default": "drop", "answer": {"delay": 0.3}},
    "workshop": {"answer": {"delay": 0.4}},
    "stubborn": {"rules": [{"match": "down", "default": {"status": 503, **SOON}}]},
}


def watched(service: str) -> list[str]:
    """Return the command that watches what is put behind it."""
    return [sys.executable, "-m", "watchkeep", "run", "--service-name", service, "--"]


def environment(collector: str, provider: str, **more: str) -> dict[str, str]:
    """Return the environment of an app: the provider's address, and where telemetry goes, often."""
    own = {key: value for key, value in os.environ.items() if not key.startswith(("OTEL_", "WATCHKEEP_", "OPENAI_"))}
    return {
        **own,
        "OPENAI_BASE_URL": provider,
        "OPENAI_API_KEY": "local",
        "OTEL_EXPORTER_OTLP_ENDPOINT": collector,
        "OTEL_METRIC_EXPORT_INTERVAL": "1000",
        "OTEL_RESOURCE_ATTRIBUTES": f"deployment.environment.name={ENVIRONMENT}",
        **more,
    }


@dataclass
class App:
    """An app that runs."""

    name: str
    process: subprocess.Popen[str]
    server: LLMServer
    log: Path

    def wait(self, seconds: float) -> int:
        """Wait for its end."""
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"{self.name} still runs after {seconds:g} s; {self.tail()}") from None

    def kill(self) -> None:
        """End it as nothing can be handled."""
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(10)

    def say(self, line: str) -> None:
        """Write a line to its standard input."""
        assert self.process.stdin is not None
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()

    def tail(self) -> str:
        """Return the end of what it printed."""
        return self.log.read_text(errors="replace")[-2000:]


@dataclass
class Scenario:
    """The apps of a bad day; `start` returns at once, `finish` when all of them have ended."""

    collector: str
    folder: Path
    apps: dict[str, App] = field(default_factory=dict)
    _open: ExitStack = field(default_factory=ExitStack)

    def start(self, name: str, command: Sequence[str], plan: Any, service: str = "", **more: str) -> App:
        """Start one app, watched, with a provider of its own; its service is called as it is, or as told."""
        server = self._open.enter_context(LLMServer(plan))
        log = self.folder / f"{name}.log"
        out = self._open.enter_context(log.open("w"))
        process = subprocess.Popen(
            [*watched(service or name), *command],
            env=environment(self.collector, server.base_url, **more),
            stdin=subprocess.PIPE,
            stdout=out,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self.apps[name] = app = App(name, process, server, log)
        self._open.callback(_end, app)
        return app

    def small(self, name: str, *arguments: str, **more: str) -> App:
        """Start one of the small apps."""
        return self.start(name, [sys.executable, str(APPS / f"{name}.py"), *arguments], PLANS[name], **more)

    def example(self, **more: str) -> App:
        """Start the multi-agent example as `make demo` does."""
        plan = json.loads((EXAMPLE / "plan.json").read_text())
        return self.start("multi-agent", demo.APP, plan, **{**demo.SETTINGS, **more})

    def stubborn(self, name: str, service: str, breaker: str, patience: float) -> App:
        """Start an app whose breaker opens at once and tries again after `patience` seconds."""
        command = [sys.executable, str(APPS / "stubborn.py"), str(patience), breaker]
        return self.start(name, command, PLANS["stubborn"], service)

    def start_chatter(self, name: str, **more: str) -> App:
        """Start an app that asks and is answered, twice a second, under a name."""
        return self.start(name, [sys.executable, str(APPS / "chatter.py"), "0.5"], [], **more)

    def close(self) -> None:
        """End what still runs."""
        self._open.close()


def _end(app: App) -> None:
    if app.process.stdin:
        app.process.stdin.close()
    if app.process.poll() is None:
        app.kill()

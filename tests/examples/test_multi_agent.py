"""The five-agent example, bare: what it does by itself on its provider's bad day."""

from __future__ import annotations

import json
import os
import subprocess
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml

import demo
from llm_server import Entry, LLMServer
from watchkeep import names

FOLDER = Path(demo.__file__).parent / "multi_agent"
EXPECT = yaml.safe_load((FOLDER / "expect.yaml").read_text())
QUICK = {"LLM_RETRY_INITIAL_DELAY": "0.5", "LLM_RETRY_MAX_DELAY": "0.5", "LLM_CIRCUIT_BREAKER_TIMEOUT": "1.25"}


class Run(NamedTuple):
    status: int
    out: str
    err: str
    log: list[Entry]


def hurried(plan: Any) -> Any:
    """The same plan with shorter waits."""
    if isinstance(plan, list):
        return [hurried(each) for each in plan]
    if isinstance(plan, dict):
        waits = ("delay", "chunk_delay", "retry_after", "retry_after_ms")
        return {key: value / 4 if key in waits else hurried(value) for key, value in plan.items()}
    return plan


def start(server: LLMServer, **settings: str) -> subprocess.Popen[str]:
    local = {"OPENAI_BASE_URL": server.base_url, "OPENAI_API_KEY": "local"}
    environment = {**os.environ, **demo.SETTINGS, **QUICK, **local, **settings}
    return subprocess.Popen(demo.APP, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.fixture(scope="module")
def runs() -> list[Run]:
    """Two runs at the same time, each against a server of its own; the second one logs JSON."""
    plan = hurried(json.loads((FOLDER / "plan.json").read_text()))
    with ExitStack() as stack:
        servers = [stack.enter_context(LLMServer(plan)) for _ in range(2)]
        children = [start(servers[0]), start(servers[1], STRUCTURED_LOGGING="true", LLM_STREAM_RESPONSES="false")]
        told = [child.communicate(timeout=25) for child in children]
        return [
            Run(child.returncode, *said, server.settle())
            for child, said, server in zip(children, told, servers, strict=True)
        ]


def test_it_recovers(runs):
    """The app comes through the outage: it skips what it must, ships the rest and ends well."""
    run = runs[0]
    assert run.status == 0, run.err
    assert "Shipped: sign-in, shopping cart, order history\n" in run.out
    assert "business analyst  done 2, skipped 2, shortened 0\n" in run.out
    assert "technical writer  done 3, skipped 0, shortened 1\n" in run.out


def test_the_breaker_goes_through_all_states(runs):
    """The breaker opens, probes in vain, probes again and closes."""
    states = "closed -> open -> half-open -> open -> half-open -> closed"
    assert runs[0].out.endswith(f"Circuit breaker: {states}\n")
    assert runs[0].err.count("Timeout not elapsed yet, circuit breaker still open") >= 5


def test_output_is_deterministic(runs):
    """Two runs print the same, streamed or not."""
    assert runs[0].out == runs[1].out


def test_json_logs(runs):
    """Structured logging writes one JSON object per line."""
    lines = [json.loads(line) for line in runs[1].err.splitlines()]
    assert {"timestamp", "level", "logger", "message"} == set(lines[0])
    assert "circuit breaker llm is open" in [line["message"] for line in lines]


def test_the_server_saw_every_fault(runs):
    """The plan is used up: rate limit, hiccup, overflow, outage and dropped connections."""
    seen = Counter(entry.status for entry in runs[0].log)
    assert seen == {200: 17, 429: 1, 500: 1, 400: 1, 503: 9, "dropped": 3}


def test_the_pool_waits(runs):
    """Three agents stream at once, but the third has to wait until the pool of two has a connection for it."""
    streams = [entry for entry in runs[0].log if entry.chunks]
    assert len(streams) == 9
    for first, second, third in zip(*[iter(streams)] * 3, strict=True):
        assert second.arrived < first.ended
        assert third.arrived > min(first.ended, second.ended) - 0.01


def test_an_ordinary_app():
    """The app imports nothing of ours and nothing of OpenTelemetry."""
    source = (FOLDER / "app.py").read_text()
    assert "watchkeep" not in source
    assert "opentelemetry" not in source


def test_wrong_settings_are_all_named():
    """Every wrong setting is named at once, before any work."""
    wrong = {"LLM_MAX_RETRIES": "many", "LLM_CIRCUIT_BREAKER_TIMEOUT": "-1"}
    environment = {**os.environ, **wrong, "OPENAI_API_KEY": "local"}
    done = subprocess.run(demo.APP, env=environment, capture_output=True, text=True, timeout=20)
    assert done.returncode == 2
    assert all(name in done.stderr for name in wrong)


def test_expectations_are_in_the_catalogue():
    """Every metric and event that the example expects is one that the catalogue knows."""
    known = {value.name for key, value in vars(names).items() if key.startswith(("METRIC_", "EVENT_"))}
    told = {*EXPECT["metrics"], *(event["name"] for event in EXPECT["events"])}
    assert told <= known
    assert {span["name"] for span in EXPECT["spans"]} >= {"POST", "circuit_breaker llm"}


def test_expectations_match_the_run(runs):
    """The counts expected of Watchkeep are those of the server's log: calls, attempts, retries."""
    at_least = {span["name"]: span["at_least"] for span in EXPECT["spans"]}
    attempts = len(runs[0].log)
    retries = sum(1 for entry in runs[0].log if ("x-stainless-retry-count", "0") not in lowered(entry))
    assert at_least["POST"] == at_least["wait_for_connection *"] == attempts
    assert at_least["chat gpt-4o-mini"] == attempts - retries
    assert EXPECT["events"][0]["at_least"] == retries


def lowered(entry: Entry) -> list[tuple[str, str]]:
    return [(name.lower(), value) for name, value in entry.headers]


def test_the_demo_returns_what_its_app_returned(monkeypatch, capfd):
    """The demo runs the app under watchkeep with the server up, and ends as the app ended."""
    asked = "urllib.request.urlopen(os.environ['OPENAI_BASE_URL'] + '/models').status"
    code = f"import os, sys, urllib.request; print({asked}, 'watchkeep' in sys.modules); sys.exit(7)"
    monkeypatch.setattr(demo, "APP", [demo.APP[0], "-c", code])
    assert demo.main() == 7
    assert capfd.readouterr().out == "200 True\n"

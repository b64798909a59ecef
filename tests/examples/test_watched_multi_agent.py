"""The five-agent example under `watchkeep run`: what expect.yaml asks for is seen, and the app notices nothing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from fnmatch import fnmatchcase
from pathlib import Path

import pytest
import yaml

import demo
from llm_server import LLMServer
from support.otlp_sink import OtlpSink
from watchkeep import names

FOLDER = Path(demo.__file__).parent / "multi_agent"
EXPECT = yaml.safe_load((FOLDER / "expect.yaml").read_text())
RUN = [sys.executable, "-m", "watchkeep", "run", "--service-name", "multi-agent", "--"]


@pytest.fixture(scope="module")
def seen():
    """One run of the demo's app, its telemetry sent to an end point of ours."""
    own = {key: value for key, value in os.environ.items() if not key.startswith(("OTEL_", "WATCHKEEP_"))}
    with LLMServer(json.loads((FOLDER / "plan.json").read_text())) as server, OtlpSink() as sink:
        environment = {
            **own,
            **demo.SETTINGS,
            "OPENAI_BASE_URL": server.base_url,
            "OPENAI_API_KEY": "local",
            "OTEL_EXPORTER_OTLP_ENDPOINT": sink.endpoint,
        }
        command = [*RUN, *demo.APP]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=90, check=False)
        yield done, server.settle(), sink.spans(), sink.metrics(), sink.logs()


def test_the_app_ends_as_it_would(seen):
    """It recovers, reports, and ends well; we say nothing on its stderr."""
    done = seen[0]
    assert done.returncode == 0, done.stderr
    assert "Shipped: sign-in, shopping cart, order history\n" in done.stdout
    assert "watchkeep" not in done.stderr


@pytest.mark.parametrize("expected", EXPECT["spans"], ids=lambda expected: expected["name"])
def test_every_expected_span_is_there(seen, expected):
    """At least as many spans of each name as the example says."""
    found = [span for span in seen[2] if fnmatchcase(span.name, expected["name"])]
    assert len(found) >= expected.get("at_least", 1)


def test_every_expected_metric_is_there(seen):
    """Every metric that the example names has arrived."""
    assert set(EXPECT["metrics"]) - {metric.name for metric in seen[3]} == set()


@pytest.mark.parametrize("expected", EXPECT["events"], ids=lambda expected: expected["name"])
def test_every_expected_event_is_there(seen, expected):
    """At least as many events of each name as the example says."""
    found = Counter(log.name for log in seen[4])
    assert found[expected["name"]] >= expected.get("at_least", 1)


def test_attempts_are_what_the_server_saw(seen):
    """As many attempts as the server counted, with the same statuses."""
    statuses = Counter(
        span.attributes.get(names.HTTP_RESPONSE_STATUS_CODE, "dropped") for span in seen[2] if span.name == "POST"
    )
    assert statuses == Counter(entry.status for entry in seen[1])


def test_one_correlation_id_on_everything(seen):
    """Every span and every log record of the run carries the same ID."""
    key = names.AGENT_RUNTIME_CORRELATION_ID
    assert len({item.attributes.get(key) for item in (*seen[2], *seen[4])}) == 1


def test_no_span_is_an_orphan(seen):
    """Every parent that a span names has arrived."""
    known = {span.span_id for span in seen[2]}
    assert [span.name for span in seen[2] if span.parent_id and span.parent_id not in known] == []

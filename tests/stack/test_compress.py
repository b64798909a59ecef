"""The rules that run faster are the rules that are shipped, but for their durations."""

from __future__ import annotations

import re
import shutil
import subprocess

import pytest
import yaml

from stack import compress
from support.alert_rules import ROOT, program

FACTOR = 20


@pytest.fixture
def etc(tmp_path):
    """A copy of the files that are rewritten."""
    shutil.copytree(ROOT / "alerts", tmp_path / "alerts")
    (tmp_path / "collector").mkdir()
    shutil.copy(ROOT / "collector" / "prometheus.yaml", tmp_path / "collector")
    return tmp_path


def _without_numbers(text):
    return re.sub(r"\d+(ms|s|m|h|d|w)\b|\b\d+\b", "N", text)


def test_only_durations_change(etc):
    """Rules are the same, letter by letter, once every number is struck out; what changed is listed."""
    listed = compress.compress(etc, FACTOR)
    for file in sorted((etc / "alerts").glob("*.rules.yaml")):
        before = (ROOT / "alerts" / file.name).read_text(encoding="utf-8")
        after = file.read_text(encoding="utf-8")
        assert _without_numbers(after) == _without_numbers(before)
        changed = [now.strip() for was, now in zip(before.splitlines(), after.splitlines(), strict=True) if was != now]
        assert changed
        assert all(any(line.endswith(f"+ {now}") for line in listed) for now in changed)


def test_the_compressed_files_are_valid(etc):
    """Prometheus and Alertmanager take what was made."""
    compress.compress(etc, FACTOR)
    rules = sorted(str(file) for file in (etc / "alerts").glob("*.rules.yaml"))
    for command in ([program("promtool"), "check", "rules", *rules],
                    [program("amtool"), "check-config", str(etc / "alerts" / "alertmanager.yaml")]):  # fmt: skip
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stdout + done.stderr


def test_the_alert_of_the_mission_takes_fifteen_seconds(etc):
    """Five minutes become fifteen seconds, thresholds that are no durations stay."""
    compress.compress(etc, FACTOR)
    groups = yaml.safe_load((etc / "alerts" / "breaker.rules.yaml").read_text(encoding="utf-8"))["groups"]
    rule = next(rule for group in groups for rule in group["rules"] if rule.get("alert") == "WatchkeepBreakerNotClosed")
    assert (rule["for"], rule["keep_firing_for"]) == ("15s", "6s")
    text = (etc / "alerts" / "thresholds.rules.yaml").read_text(encoding="utf-8")
    assert "watchkeep:service:known * 0.10" in text
    assert re.search(r"threshold:latency_p95_seconds[\s\S]*?known \* 10\n", text)
    assert re.search(r"threshold:silent_min_uptime_seconds[\s\S]*?known \* 45\n", text)


@pytest.mark.parametrize(
    ("line", "made"),
    [
        ("        for: 5m", "        for: 15s"),
        ("        for: 30s", "        for: 1500ms"),
        ("        for: 15s", "        for: 1s"),
        ("      group_wait: 0s", "      group_wait: 0s"),
        ("  increase(a[1h]) unless b[6h] offset 5m", "  increase(a[180s]) unless b[1080s] offset 15s"),
        ("  sum_over_time(watchkeep:calls:increase5m[30m:5m])", "  sum_over_time(watchkeep:calls:increase5m[90s:15s])"),
        ("  min_over_time(a[1m])", "  min_over_time(a[10s])"),
        ("  # waits for 5m, or: for: 5m", "  # waits for 5m, or: for: 5m"),
        ("  resilience_calls_total[5s]", "  resilience_calls_total[5s]"),
    ],
)
def test_each_kind_of_duration(line, made):
    """Divided, not below its floor, never longer than it was; names and comments are left alone."""
    assert compress.compressed(line, FACTOR) == made

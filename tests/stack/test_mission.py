"""A breaker that stays open wakes somebody up, and its end is told: the bundled rules on the real servers, live.

The bundled files, their durations divided by FACTOR and nothing else changed; what was changed is printed. Real apps
with real breakers, real Prometheus, real Alertmanager, and a webhook on loopback that hears what people would.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from stack.client import Alertmanager, Prometheus, eventually
from stack.compress import compress
from stack.http_on_loopback import Webhook
from stack.scenario import Scenario
from watchkeep.stack.native import Native, free_ports

FACTOR = 20
HURRY = ("interval: 10000", "interval: 1000")
MISSION, DOOMED = "mission", "doomed"
BREAKERS = {"chat-llm", "search-llm"}
NOT_CLOSED, ERROR_RATE, RECOVERED = "WatchkeepBreakerNotClosed", "WatchkeepErrorRateHigh", "WatchkeepBreakerRecovered"
DIED, BURNING = "WatchkeepAppDiedBreakerOpen", ("WatchkeepErrorBudgetBurnFast", "WatchkeepErrorBudgetBurnSlow")


@dataclass
class Story:
    """What was seen while it happened."""

    webhook: Webhook
    rewritten: list[str]
    states: list[str] = field(default_factory=list)  # of the alert in Prometheus, each once, in order
    muted: dict[str, set[str]] = field(default_factory=dict)  # alert of the service -> names of what muted it
    opened: float = 0
    closed: float = 0
    burning: dict[str, Any] = field(default_factory=dict)


class Watch:
    """Looks at Prometheus and Alertmanager again and again."""

    def __init__(self, stack: Native, story: Story) -> None:
        self.prometheus = Prometheus(stack.url("prometheus"))
        self.alertmanager = Alertmanager(stack.url("alertmanager"))
        self.story = story

    def look(self) -> None:
        """Note the state of the alert, and who is muted by whom."""
        mine = {alert["labels"]["resilience_circuit_breaker_name"]: alert["state"] for alert in self.alerts(NOT_CLOSED)}
        state = mine.get("chat-llm", "inactive")
        if not self.story.states or self.story.states[-1] != state:
            self.story.states.append(state)
        known = self.alertmanager.alerts()
        names = {alert["fingerprint"]: alert["labels"]["alertname"] for alert in known}
        for alert in known:
            if alert["labels"].get("service_name") == MISSION and alert["status"]["inhibitedBy"]:
                muted = self.story.muted.setdefault(alert["labels"]["alertname"], set())
                muted |= {names[each] for each in alert["status"]["inhibitedBy"] if each in names}

    def alerts(self, name: str, service: str = MISSION) -> list[dict[str, Any]]:
        """Return the alerts of a service that are pending or firing."""
        wanted = {"alertname": name, "service_name": service}
        return [alert for alert in self.prometheus.alerts() if wanted.items() <= alert["labels"].items()]


@pytest.fixture(scope="module")
def story(servers: Mapping[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Story]:
    """Breakers open, it is told, they close, that is told; and an app dies with its breaker open."""
    folder = tmp_path_factory.mktemp("mission")
    with Webhook() as webhook:
        environ = {**servers, "WATCHKEEP_ALERTS_WEBHOOK_URL": f"{webhook.url}/page"}
        stack = Native(folder / "home", free_ports(), environ, without=["tempo", "grafana"])
        try:
            stack.stage()
            story = Story(webhook, [*compress(stack.etc, FACTOR), *_hurry(stack.etc / "collector" / "otelcol.yaml")])
            stack.up()
            _happens(stack, story, Scenario(stack.url("collector"), folder))
            yield story
        finally:
            stack.down()


def _hurry(file: Path) -> list[str]:
    """Let the collector tell its own health every second; return what was changed."""
    before = file.read_text(encoding="utf-8")
    file.write_text(before.replace(*HURRY), encoding="utf-8")
    assert before.count(HURRY[0]) == 1
    return ["--- collector/otelcol.yaml", *(f"      {sign} {each}" for sign, each in zip("-+", HURRY, strict=True))]


def _happens(stack: Native, story: Story, apps: Scenario) -> None:
    watch = Watch(stack, story)

    def seen(condition: Any) -> Any:
        watch.look()
        return condition()

    try:
        story.opened = time.time()
        asking = [apps.stubborn(f"with-{name}", MISSION, name, patience=1) for name in sorted(BREAKERS)]
        doomed = apps.stubborn(DOOMED, DOOMED, "doomed-llm", patience=600)
        is_open = (
            'resilience_circuit_breaker_status{service_name="doomed", resilience_circuit_breaker_state="open"} == 1'
        )
        eventually(lambda: seen(lambda: watch.prometheus.instant(is_open)), 20, "the doomed app's breaker is open", 0.2)
        doomed.kill()
        told = lambda: len(story.webhook.alerts(NOT_CLOSED, "firing", service_name=MISSION)) >= 2  # noqa: E731
        eventually(lambda: seen(told), 60, "both breakers are told to the webhook", 0.2)
        eventually(lambda: seen(lambda: ERROR_RATE in story.muted), 60, "the error rate's alert is muted", 0.2)
        for name in BURNING:
            story.burning[name] = eventually(lambda each=name: seen(lambda: watch.alerts(each)), 60, f"{name} is there")
        for app in asking:
            app.say("Are you well again?")
        story.closed = time.time()
        resolved = lambda: len(story.webhook.alerts(NOT_CLOSED, "resolved", service_name=MISSION)) >= 2  # noqa: E731
        eventually(lambda: seen(resolved), 60, "the end of both is told to the webhook", 0.2)
        eventually(lambda: seen(lambda: story.webhook.alerts(RECOVERED, "firing")), 40, "the good news is told", 0.2)
        eventually(lambda: seen(lambda: story.webhook.alerts(DIED, "firing")), 40, "the death is told", 0.2)
        watch.look()
    finally:
        apps.close()


def test_only_durations_were_rewritten(story: Story, capsys: pytest.CaptureFixture[str]) -> None:
    """The rules are the bundled ones with shorter durations; each change is printed."""
    with capsys.disabled():
        print(f"\ndurations divided by {FACTOR} for this test:", *story.rewritten, sep="\n")
    changed = [line for line in story.rewritten if "for: 5m" in line]
    assert changed
    assert not any("expr: vector(1)" in line for line in story.rewritten)


def test_the_alert_is_pending_first_then_fires_then_ends(story: Story) -> None:
    """Probes half-open every second do not interrupt it: pending once, firing once, and then it is over."""
    assert story.states[-4:] == ["inactive", "pending", "firing", "inactive"] or story.states[-3:] == [
        "pending",
        "firing",
        "inactive",
    ]
    assert story.states.count("firing") == 1


def test_the_webhook_hears_what_is_wrong_and_what_to_do(story: Story) -> None:
    """The notification says what happened, where to look, and what the runbook has on it."""
    alert = story.webhook.alerts(NOT_CLOSED, "firing", service_name=MISSION)[0]
    assert alert["labels"]["severity"] == "critical"
    assert alert["labels"]["deployment_environment_name"] == "test"
    told = alert["annotations"]
    assert told["summary"]
    assert MISSION in told["description"]
    assert alert["labels"]["resilience_circuit_breaker_name"] in told["description"]
    assert "/d/watchkeep-resilience?var-service=mission" in told["dashboard_url"]
    assert told["runbook_url"].endswith("#watchkeepbreakernotclosed")


def test_it_is_not_told_before_its_time(story: Story) -> None:
    """The webhook hears of it after the duration of the rule, and well before twice of it and its waits."""
    first = story.webhook.groups(NOT_CLOSED, "firing")[0]["at"] - story.opened
    assert 300 / FACTOR <= first <= 300 / FACTOR + 20


def test_both_breakers_come_in_one_notification(story: Story) -> None:
    """Alerts of one service are grouped: two breakers, one notification for both."""
    together = [
        {alert["labels"]["resilience_circuit_breaker_name"] for alert in group["alerts"]}
        for group in story.webhook.groups(NOT_CLOSED, "firing")
        if group["groupLabels"]["service_name"] == MISSION
    ]
    assert BREAKERS in together


def test_what_follows_from_it_is_muted(story: Story) -> None:
    """While the breaker's alert stands, the error rate's is held back: Alertmanager says by whom, nobody is told."""
    assert NOT_CLOSED in story.muted[ERROR_RATE]
    during = [each for each in story.webhook.groups(ERROR_RATE, "firing") if each["at"] < story.closed]
    assert [each for each in during if each["groupLabels"]["service_name"] == MISSION] == []


def test_a_warning_is_muted_by_what_is_critical(story: Story) -> None:
    """What is only a warning or a notice of the same service is held back too."""
    assert "WatchkeepBreakerOpened" in story.muted
    assert NOT_CLOSED in set().union(*story.muted.values())


def test_its_end_is_told(story: Story) -> None:
    """After the breakers closed the webhook hears that it is over, for each of them, and not before."""
    ended = story.webhook.alerts(NOT_CLOSED, "resolved", service_name=MISSION)
    assert {alert["labels"]["resilience_circuit_breaker_name"] for alert in ended} == BREAKERS
    last = [
        each for each in story.webhook.groups(NOT_CLOSED, "resolved") if each["groupLabels"]["service_name"] == MISSION
    ]
    assert last[-1]["at"] > story.closed


def test_the_recovery_is_told_as_good_news(story: Story) -> None:
    """A notice says that the breaker closed again."""
    (alert, *_) = story.webhook.alerts(RECOVERED, "firing", service_name=MISSION)
    assert alert["labels"]["severity"] == "info"


def test_a_death_with_an_open_breaker_is_told(story: Story) -> None:
    """An app that was killed while its breaker was open is critical, though it says nothing any more."""
    (alert, *_) = story.webhook.alerts(DIED, "firing", service_name=DOOMED)
    assert alert["labels"]["severity"] == "critical"
    assert "doomed-llm" in alert["annotations"]["description"]


@pytest.mark.parametrize("name", BURNING)
def test_the_error_budget_burns(story: Story, name: str) -> None:
    """The alerts that look at hours see it too."""
    assert story.burning[name]

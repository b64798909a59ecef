"""The real Alertmanager with the bundled file: what mutes what, and what people read."""

from __future__ import annotations

import http.server
import json
import os
import shutil
import socketserver
import subprocess
import threading
import time
import urllib.request
from email import message_from_string, policy

import pytest

from support.alert_rules import ALERTS, alerts, program
from support.collector import free_ports

SECONDS = 30


class Alertmanager:
    """One on loopback, started by alertmanager.sh from the bundled files, with waits of a second."""

    def __init__(self, folder, settings=()):
        self.binary = program("alertmanager")
        self.port = free_ports(1)[0]
        bundle = folder / "alerts"
        shutil.copytree(ALERTS, bundle)
        config = bundle / "alertmanager.yaml"
        text = config.read_text(encoding="utf-8").replace("group_wait: 10s", "group_wait: 1s")
        config.write_text(text.replace("group_interval: 1m", "group_interval: 1s"), encoding="utf-8")
        environ = {
            "PATH": os.environ["PATH"],
            "WATCHKEEP_ALERTMANAGER_BIN": self.binary,
            "WATCHKEEP_ALERTMANAGER_RUN": str(folder / "run"),
            **dict(settings),
        }
        arguments = [f"--web.listen-address=127.0.0.1:{self.port}", "--cluster.listen-address="]
        arguments.append(f"--storage.path={folder / 'data'}")
        self.log = (folder / "log").open("w+", encoding="utf-8")
        command = ["sh", str(bundle / "alertmanager.sh"), *arguments]
        self.process = subprocess.Popen(command, env=environ, stdout=self.log, stderr=self.log)

    def __enter__(self):
        until(lambda: self.get("/-/ready") is not None, "Alertmanager is ready", self.log.name)
        return self

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait(10)
        self.log.close()

    def get(self, path, data=None):
        """Ask it; None while it does not answer."""
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", data)
        request.add_header("Content-Type", "application/json")
        try:
            with urllib.request.urlopen(request, timeout=5) as answer:
                return answer.read()
        except OSError:
            return None

    def post(self, *firing, resolved=False):
        """Send alerts, each a mapping of labels, as Prometheus would."""
        ended = {"endsAt": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() - 1))} if resolved else {}
        annotations = {
            "summary": "A circuit breaker has not been closed for five minutes",
            "description": "Breaker <llm> of checkout is open & stays so.",
            "dashboard_url": "http://127.0.0.1:3000/d/watchkeep-resilience?var-service=checkout",
            "runbook_url": "https://docs.example/runbook#watchkeepbreakernotclosed",
        }
        begun = {"startsAt": "2026-01-02T03:04:05Z"}
        body = [{"labels": labels, "annotations": annotations, **begun, **ended} for labels in firing]
        assert self.get("/api/v2/alerts", json.dumps(body).encode()) is not None

    def muted(self):
        """Return the names of the alerts that another one mutes."""
        found = json.loads(self.get("/api/v2/alerts"))
        return {alert["labels"]["alertname"] for alert in found if alert["status"]["inhibitedBy"]}


def until(true, what, log):
    """Wait until something is true."""
    end = time.monotonic() + SECONDS
    while not true():
        if time.monotonic() > end:
            with open(log, encoding="utf-8") as file:
                pytest.fail(f"not in {SECONDS} s: {what}\n{file.read()}")
        time.sleep(0.1)


def labels(name, service="checkout", environment="prod"):
    """Return an alert's labels as Prometheus sends them; labels that are empty are not sent."""
    found = {"alertname": name, **alerts()[name]["labels"]}
    found |= {"service_name": service, "deployment_environment_name": environment}
    return {key: value for key, value in found.items() if value}


NOT_CLOSED, DOWN = "WatchkeepBreakerNotClosed", "WatchkeepCollectorDown"
OF_APPS = [name for name, rule in alerts().items() if rule["labels"]["area"] != "telemetry"]


@pytest.fixture(scope="module")
def alertmanager(tmp_path_factory):
    """One that tells nobody."""
    with Alertmanager(tmp_path_factory.mktemp("alertmanager")) as running:
        yield running


@pytest.mark.parametrize(
    ("present", "muted"),
    [
        # The breaker is why calls fail and are slow; the news that it opened is old.
        (
            [NOT_CLOSED, "WatchkeepErrorRateHigh", "WatchkeepSuccessRateLow", "WatchkeepLatencyHigh",
             "WatchkeepRetryRateHigh", "WatchkeepBreakerOpened", "WatchkeepPoolUnhealthy"],
            {"WatchkeepErrorRateHigh", "WatchkeepSuccessRateLow", "WatchkeepLatencyHigh", "WatchkeepRetryRateHigh",
             "WatchkeepBreakerOpened"},
        ),
        # Of two that say the same the graver is enough, and critical mutes warnings, but not the good news.
        (
            ["WatchkeepSuccessRateLow", "WatchkeepErrorRateHigh", "WatchkeepPoolExhausted", "WatchkeepTelemetryLost",
             "WatchkeepBreakerRecovered"],
            {"WatchkeepErrorRateHigh", "WatchkeepPoolExhausted", "WatchkeepTelemetryLost"},
        ),
        (["WatchkeepAppDiedBreakerOpen", "WatchkeepAppSilent"], {"WatchkeepAppSilent"}),
        (["WatchkeepLatencyHigh", "WatchkeepBreakerOpened", "WatchkeepPoolExhausted"], set()),
    ],
    ids=["breaker", "success rate", "death", "no critical one"],
)  # fmt: skip
def test_what_mutes_what_in_a_service(alertmanager, present, muted):
    """Alerts of one service mute each other as designed, and not those of others."""
    here = [labels(name) for name in present]
    others = [labels(name, "search") for name in ("WatchkeepLatencyHigh",)]
    elsewhere = [labels(name, environment="staging") for name in ("WatchkeepBreakerOpened",)]
    alertmanager.post(*here)
    until(lambda: alertmanager.muted() == muted, f"muted are {muted}", alertmanager.log.name)
    if muted:
        alertmanager.post(*others, *elsewhere)
        time.sleep(0.5)
        found = json.loads(alertmanager.get("/api/v2/alerts"))
        free = [alert["labels"] for alert in found if not alert["status"]["inhibitedBy"]]
        assert all(each in free for each in (*others, *elsewhere))
        alertmanager.post(*others, *elsewhere, resolved=True)
    alertmanager.post(*here, resolved=True)
    until(lambda: json.loads(alertmanager.get("/api/v2/alerts")) == [], "all are over", alertmanager.log.name)


def test_without_the_collector_nothing_is_said_of_apps(alertmanager):
    """A collector that is down mutes every alert about apps, and none about the stack."""
    stack = [labels(name, "", "") for name in ("WatchkeepServerDown", "WatchkeepRuleFailures", "WatchkeepWatchdog")]
    present = [labels(DOWN, "", ""), *stack, *(labels(name) for name in OF_APPS)]
    alertmanager.post(*present)
    until(lambda: alertmanager.muted() == set(OF_APPS), "every app is muted", alertmanager.log.name)
    alertmanager.post(*present, resolved=True)
    until(lambda: json.loads(alertmanager.get("/api/v2/alerts")) == [], "all are over", alertmanager.log.name)


def test_alerts_without_a_service_do_not_mute_each_other(alertmanager):
    """A label that is missing on both sides is not taken for the same service."""
    present = [labels("WatchkeepRuleFailures", "", ""), labels("WatchkeepServerDown", "", "")]
    alertmanager.post(*present)
    time.sleep(1)
    assert alertmanager.muted() == set()
    assert len(json.loads(alertmanager.get("/api/v2/alerts"))) == 2
    alertmanager.post(*present, resolved=True)


# -- what arrives ----------------------------------------------------------------------------------------------


class Web(http.server.BaseHTTPRequestHandler):
    """Keeps what is posted, by path."""

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.got.append((self.path, json.loads(body)))
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"ok")

    def log_message(self, *_):
        """Say nothing."""


class Mail(socketserver.StreamRequestHandler):
    """As much of SMTP as a sender needs; keeps each message."""

    def handle(self):
        self._say(220)
        while line := self.rfile.readline():
            verb = line[:4].upper()
            self._say({b"DATA": 354, b"QUIT": 221}.get(verb, 250))
            if verb == b"DATA":
                lines = []
                while (line := self.rfile.readline()) not in (b".\r\n", b""):
                    lines.append(line)
                self.server.got.append(b"".join(lines).decode())
                self._say(250)

    def _say(self, code):
        self.wfile.write(b"%d ok\r\n" % code)


@pytest.fixture
def receivers():
    """A web server and a mail server on loopback."""
    servers = [http.server.ThreadingHTTPServer(("127.0.0.1", 0), Web)]
    servers.append(socketserver.ThreadingTCPServer(("127.0.0.1", 0), Mail))
    for server in servers:
        server.got = []
        threading.Thread(target=server.serve_forever, daemon=True).start()
    yield servers
    for server in servers:
        server.shutdown()
        server.server_close()


def test_people_can_read_what_arrives(tmp_path, receivers):
    """Webhook, Slack and e-mail get the alert and its end, once, with description, dashboard and runbook."""
    web, mail = receivers
    address = f"http://127.0.0.1:{web.server_address[1]}"
    settings = {
        "WATCHKEEP_ALERTS_WEBHOOK_URL": f"{address}/webhook",
        "WATCHKEEP_ALERTS_SLACK_URL": f"{address}/slack",
        "WATCHKEEP_ALERTS_EMAIL_TO": "night-shift@example.org",
        "WATCHKEEP_ALERTS_SMTP": f"127.0.0.1:{mail.server_address[1]}",
        "WATCHKEEP_ALERTS_SMTP_TLS": "false",
        "WATCHKEEP_ALERTS_WATCHDOG_URL": f"{address}/watchdog",
    }
    with Alertmanager(tmp_path, settings) as running:
        log = running.log.name
        # Two of one name and service come as one notification.
        both = [{**labels(NOT_CLOSED), "resilience_circuit_breaker_name": name} for name in ("llm", "embed")]
        running.post(*both, labels("WatchkeepWatchdog", "", ""))
        until(lambda: len(web.got) == 3 and len(mail.got) == 1, "all ways are told", log)
        running.post(*both, resolved=True)
        until(lambda: len(web.got) == 5 and len(mail.got) == 2, "all ways are told of the end", log)
    got = {}
    for path, body in web.got:
        got.setdefault(path, []).append(body)
    assert [body["status"] for body in got["/webhook"]] == ["firing", "resolved"]
    assert len(got["/webhook"][0]["alerts"]) == 2
    assert got["/webhook"][0]["commonAnnotations"]["runbook_url"].startswith("https://docs.example/runbook#")
    assert [body["alerts"][0]["labels"]["alertname"] for body in got["/watchdog"]] == ["WatchkeepWatchdog"]
    _slack(*got["/slack"])
    _mail(*mail.got)


def _slack(firing, resolved):
    before, after = firing["attachments"][0], resolved["attachments"][0]
    title = "A circuit breaker has not been closed for five minutes: checkout (prod)"
    assert (before["title"], after["title"]) == (f"[FIRING critical] {title}", f"[RESOLVED critical] {title}")
    assert (before["color"], after["color"]) == ("danger", "good")
    assert "<http://127.0.0.1:3000/d/watchkeep-resilience?var-service=checkout|Dashboard>" in before["text"]
    assert "<https://docs.example/runbook#watchkeepbreakernotclosed|Runbook>" in before["text"]
    assert "Resolved after" in after["text"]


def _mail(firing, resolved):
    message = message_from_string(firing, policy=policy.default)
    assert message["To"] == "night-shift@example.org"
    assert message["Subject"].startswith("[FIRING critical] A circuit breaker has not been closed")
    text = message.get_body(("plain",)).get_content()
    page = message.get_body(("html",)).get_content()
    assert "Breaker <llm> of checkout is open & stays so." in text
    assert "runbook    https://docs.example/runbook#watchkeepbreakernotclosed" in text
    assert "Breaker &lt;llm&gt; of checkout is open &amp; stays so." in page
    assert '<a href="http://127.0.0.1:3000/d/watchkeep-resilience?var-service=checkout">Dashboard</a>' in page
    assert message_from_string(resolved, policy=policy.default)["Subject"].startswith("[RESOLVED critical]")

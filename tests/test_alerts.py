"""Alerts: the rules hold at their real durations, each is explained, and Alertmanager tells the right people."""

from __future__ import annotations

import itertools
import os
import re
import shutil
import stat
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import yaml

from support import alert_rules
from support.alert_rules import ALERTS, ROOT, RUNBOOK, UNIT_TESTS, program

NAMES = sorted(alert_rules.alerts())
ALWAYS = "WatchkeepWatchdog"
STEP = 15  # s between two evaluations
IN_LONGER_STEPS = ("apps_hours.test.yaml", "budget_fast.test.yaml", "budget_slow.test.yaml")
WAYS = ("webhook", "slack", "email", "watchdog")
SETTINGS = {
    "webhook": {"WATCHKEEP_ALERTS_WEBHOOK_URL": "http://127.0.0.1:9/canary-webhook?x='y'"},
    "slack": {"WATCHKEEP_ALERTS_SLACK_URL": "https://127.0.0.1:9/services/canary-slack"},
    "email": {
        "WATCHKEEP_ALERTS_EMAIL_TO": "o'brien@example.org",
        "WATCHKEEP_ALERTS_SMTP": "127.0.0.1:25",
        "WATCHKEEP_ALERTS_SMTP_USER": "someone",
        "WATCHKEEP_ALERTS_SMTP_PASSWORD": "canary-'password'",
    },
    "watchdog": {"WATCHKEEP_ALERTS_WATCHDOG_URL": "http://127.0.0.1:9/canary-watchdog"},
}
COMBINATIONS = [chosen for size in range(len(WAYS) + 1) for chosen in itertools.combinations(WAYS, size)]


def run(*command, **options):
    """Run a program and return what it says, with its exit code."""
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, timeout=300, **options)
    return done.returncode, done.stdout + done.stderr


# -- the rules ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("file", alert_rules.unit_test_files(), ids=lambda file: file.name)
def test_rules_do_what_their_unit_tests_say(file):
    """Every rule fires at the right minute and not one step before, survives gaps, resolves, and stays silent."""
    code, said = run(program("promtool"), "test", "rules", file)
    assert code == 0, said


def test_rules_are_valid():
    """Prometheus takes every rule file, without a remark; so it does an example of overrides."""
    files = [*alert_rules.rule_files(), *UNIT_TESTS.glob("overrides/*.rules.yaml")]
    code, said = run(program("promtool"), "check", "rules", "--lint=all", "--lint-fatal", *files)
    assert code == 0, said


def test_pint_finds_nothing():
    """A linter for rules has nothing to say."""
    config = UNIT_TESTS / "pint.hcl"
    code, said = run(program("pint"), "-n", "-l", "WARN", "-o", "-c", config, "lint", *alert_rules.rule_files())
    assert (code, said) == (0, "")


@pytest.mark.parametrize("name", NAMES)
def test_each_alert_is_seen_to_fire_and_to_stay_silent(name):
    """The unit tests hold a case where it fires, with all its annotations, and one where it does not."""
    expected = [check["exp_alerts"] for alert, check in alert_rules.checks() if alert == name]
    fired = [alert for found in expected for alert in found or ()]
    assert fired, f"no unit test in which {name} fires"
    assert all(set(alert["exp_annotations"]) == {"summary", "description", "dashboard_url", "runbook_url"}
               for alert in fired)  # fmt: skip
    assert name == ALWAYS or any(found == [] for found in expected), f"no unit test in which {name} stays silent"


@pytest.mark.parametrize("name", NAMES)
def test_each_alert_says_what_a_reader_needs(name):
    """Severity, area, a fixed summary, a description, a dashboard that exists, and a section of the runbook."""
    rule = alert_rules.alerts()[name]
    assert name.startswith("Watchkeep")
    assert rule["labels"]["severity"] in ("critical", "warning", "info", "none")
    assert rule["labels"]["area"] in ("apps", "breaker", "calls", "latency", "pools", "telemetry")
    said = rule["annotations"]
    assert "{{" not in said["summary"]
    assert said["description"].endswith((".", ";{{ end }}"))
    assert said["runbook_url"].endswith("#" + name.lower())
    uid = re.search(r"/d/([\w-]+)", said["dashboard_url"])[1]
    assert (ROOT / "dashboards" / "json" / f"{uid.removeprefix('watchkeep-')}.json").exists()
    if "service_name" in rule["expr"] or "watchkeep:breaker" in rule["expr"]:
        assert "var-service={{ $labels.service_name | urlquery }}" in said["dashboard_url"]


@pytest.mark.parametrize("name", NAMES)
def test_the_runbook_explains_each_alert(name):
    """Its section says what it means, what to look at first, what to do, and how it clears, in this order."""
    section = alert_rules.sections(RUNBOOK.read_text(encoding="utf-8")).get(name.lower())
    assert section is not None, f"docs/runbook.md has no section {name}"
    positions = [section.find(f"**{part}**") for part in alert_rules.PARTS]
    assert -1 not in positions
    assert positions == sorted(positions)


def test_the_runbook_explains_nothing_else():
    """No section is left over from an alert that is gone."""
    explained = alert_rules.sections(RUNBOOK.read_text(encoding="utf-8"))
    assert {anchor for anchor in explained if anchor.startswith("watchkeep")} == {name.lower() for name in NAMES}


def test_links_within_the_runbook_lead_somewhere():
    """Every link of the page to itself has a section."""
    text = RUNBOOK.read_text(encoding="utf-8")
    assert set(re.findall(r"\]\(#([\w-]+)\)", text)) - set(alert_rules.sections(text)) == set()


def test_no_alert_holds_a_limit_of_its_own():
    """Every limit is a recorded series: an alert compares with nothing but 0 and 1."""
    for name, rule in alert_rules.alerts().items():
        numbers = re.findall(r"(?:[<>]=?|[!=]=)\s*(?:on \([\w, ]*\)\s*)?(-?[\d.]+)", rule["expr"])
        assert set(numbers) <= {"0", "1"}, f"{name} compares with {numbers}"


def test_every_limit_is_used_and_can_be_overridden():
    """Each recorded limit stands in a rule, and each of a service is made in the one way that knows overrides."""
    made = {rule["record"]: rule["expr"] for rule in alert_rules.rules() if ":threshold:" in rule.get("record", "")}
    used = {name for rule in alert_rules.rules() for name in re.findall(r"watchkeep:threshold:\w+", rule["expr"])}
    assert used == set(made)
    forms = set()
    for record, expr in made.items():
        name = record.removeprefix("watchkeep:threshold:")
        forms.add(re.sub(r"(\* |vector\()[\d.]+", r"\1N", expr.replace(f"watchkeep:override:{name}", "OVERRIDE")))
    assert len(forms) == 2, "one form for services and one for the stack"


@pytest.mark.parametrize("file", alert_rules.unit_test_files(), ids=lambda file: file.name)
def test_unit_tests_run_as_prometheus_does(file):
    """Rules are evaluated every fifteen seconds, but for what takes hours; every group is in the stated order."""
    tests = alert_rules.load(file)
    in_prometheus = alert_rules.load(ROOT / "collector" / "prometheus.yaml")["global"]["evaluation_interval"]
    assert tests["evaluation_interval"] == in_prometheus == f"{STEP}s" or file.name in IN_LONGER_STEPS
    assert set(alert_rules.group_names()) <= set(tests["group_eval_order"])


# -- mutations: a rule that is changed is found --------------------------------------------------------------------


def _seconds(text):
    return sum(int(number) * {"s": 1, "m": 60, "h": 3600}[unit] for number, unit in re.findall(r"(\d+)([smh])", text))


def _for_by(seconds):
    def change(rule):
        if "for" not in rule:
            return False
        rule["for"] = f"{_seconds(rule['for']) + seconds}s"
        return True

    return change


def _keep_by(seconds):
    def change(rule):
        if "keep_firing_for" not in rule:
            return False
        rule["keep_firing_for"] = f"{_seconds(rule['keep_firing_for']) + seconds}s"
        return True

    return change


def _inverted(rule):
    flipped = rule["expr"].translate(str.maketrans("<>", "><"))
    changed, rule["expr"] = flipped != rule["expr"], flipped
    return changed


MUTATIONS = {
    "for a step longer": _for_by(STEP),
    "for a step shorter": _for_by(-STEP),
    "kept half a minute longer": _keep_by(2 * STEP),
    "kept half a minute shorter": _keep_by(-2 * STEP),
    "the other way round": _inverted,
}


@pytest.mark.slow
@pytest.mark.parametrize("mutation", MUTATIONS)
def test_a_changed_rule_is_found(mutation, tmp_path):
    """With every alert changed in one way, the unit tests of every alert fail."""
    shutil.copytree(UNIT_TESTS, tmp_path / "tests" / "alerts")
    (tmp_path / "alerts").mkdir()
    changed = set()
    for file in alert_rules.rule_files():
        content = alert_rules.load(file)
        for rule in (rule for group in content["groups"] for rule in group["rules"]):
            if "alert" in rule and "Budget" not in rule["alert"] and MUTATIONS[mutation](rule):
                changed.add(rule["alert"])
        (tmp_path / "alerts" / file.name).write_text(yaml.safe_dump(content, width=10_000), encoding="utf-8")
    files = [file for file in sorted((tmp_path / "tests" / "alerts").glob("*.test.yaml")) if "budget" not in file.name]
    promtool = program("promtool")
    with ThreadPoolExecutor(2) as pool:
        said = "".join(said for _, said in pool.map(lambda file: run(promtool, "test", "rules", file), files))
    failed = re.findall(r"^ *(?:alertname|expr): (.*)$", said, re.MULTILINE)
    assert changed, "the mutation changes something"
    assert changed - set(re.findall(r"Watchkeep\w+", "\n".join(failed))) == set()


# -- Alertmanager --------------------------------------------------------------------------------------------------


def start(folder, settings, *arguments, binary="", base=ALERTS):
    """Run alertmanager.sh with another program in Alertmanager's place; return its exit code and what is said."""
    fake = folder / "fake"
    fake.write_text('#!/bin/sh\nprintf "%s\\n" "arguments: $*"\nenv\n', encoding="utf-8")
    fake.chmod(0o755)
    environ = {"PATH": os.environ["PATH"], "WATCHKEEP_ALERTMANAGER_BIN": str(binary or fake)}
    environ["WATCHKEEP_ALERTMANAGER_RUN"] = str(folder / "ru'n here")
    return run("sh", base / "alertmanager.sh", *arguments, env={**environ, **settings})


@pytest.mark.parametrize("chosen", COMBINATIONS, ids=lambda chosen: "+".join(chosen) or "nobody")
def test_every_combination_of_ways_is_valid(chosen, tmp_path):
    """Alertmanager takes the file that each set of ways makes, and it holds those ways and no others."""
    settings = {key: value for way in chosen for key, value in SETTINGS[way].items()}
    code, said = start(tmp_path, settings, "--web.listen-address=127.0.0.1:1")
    assert code == 0, said
    made = tmp_path / "ru'n here" / "alertmanager.yaml"
    assert f"arguments: --web.listen-address=127.0.0.1:1 --config.file={made}" in said
    assert run(program("amtool"), "check-config", made)[0] == 0
    receivers = {receiver.pop("name"): receiver for receiver in alert_rules.load(made)["receivers"]}
    assert set(receivers["team"]) == {f"{way}_configs" for way in chosen if way != "watchdog"}
    assert set(receivers["watchdog"]) == ({"webhook_configs"} if "watchdog" in chosen else set())
    by_http = [receivers["team"].get(f"{way}_configs", []) for way in ("webhook", "slack")]
    for way in itertools.chain(receivers["watchdog"].get("webhook_configs", []), *by_http):
        assert way["http_config"] == {"follow_redirects": False}
    assert all(way["send_resolved"] for ways in receivers["team"].values() for way in ways)


def test_secrets_stand_in_private_files_only(tmp_path):
    """No secret is in an argument, in Alertmanager's environment or in its configuration."""
    settings = {key: value for way in WAYS for key, value in SETTINGS[way].items()}
    code, said = start(tmp_path, settings)
    assert code == 0, said
    assert "canary" not in said
    made = tmp_path / "ru'n here"
    holding = [file.name for file in made.iterdir() if file.is_file() and "canary" in file.read_text(encoding="utf-8")]
    assert sorted(holding) == ["slack_url", "smtp_password", "watchdog_url", "webhook_url"]
    assert {stat.S_IMODE(file.stat().st_mode) for file in made.iterdir() if file.is_file()} == {0o600}
    assert (made / "smtp_password").read_text(encoding="utf-8") == "canary-'password'"
    # What is no longer set is gone at the next start.
    assert start(tmp_path, {})[0] == 0
    assert sorted(file.name for file in made.iterdir()) == ["alertmanager.yaml", "templates"]


def test_ways_can_be_set_by_files(tmp_path):
    """A file in the folder of secrets is as good as a variable, which wins; a last line need not end."""
    secrets = tmp_path / "secrets"
    secrets.mkdir()
    (secrets / "alerts_webhook_url").write_text("http://127.0.0.1:9/file\n", encoding="utf-8")
    (secrets / "alerts_slack_url").write_text("http://127.0.0.1:9/from-file", encoding="utf-8")
    settings = {"WATCHKEEP_SECRETS_DIR": str(secrets), "WATCHKEEP_ALERTS_WEBHOOK_URL": "http://127.0.0.1:9/variable"}
    assert start(tmp_path, settings)[0] == 0
    made = tmp_path / "ru'n here"
    assert (made / "webhook_url").read_text(encoding="utf-8") == "http://127.0.0.1:9/variable\n"
    assert (made / "slack_url").read_text(encoding="utf-8") == "http://127.0.0.1:9/from-file\n"


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"WATCHKEEP_ALERTMANAGER_RUN": ""}, "set WATCHKEEP_ALERTMANAGER_RUN"),
        ({"WATCHKEEP_ALERTMANAGER_RUN": "/dev/null/run"}, "cannot make the folder /dev/null/run"),
        ({"WATCHKEEP_ALERTS_WEBHOOK_URL": "canary"}, "WATCHKEEP_ALERTS_WEBHOOK_URL is no URL"),
        ({"WATCHKEEP_ALERTS_SLACK_URL": "http://x/canary\nreceivers: []"}, "more than one line"),
        (
            {"WATCHKEEP_ALERTS_EMAIL_TO": "me@example.org"},
            "WATCHKEEP_ALERTS_SMTP (host:port of the mail server)",
        ),
        ({**SETTINGS["email"], "WATCHKEEP_ALERTS_SMTP_TLS": "no"}, "WATCHKEEP_ALERTS_SMTP_TLS is neither true nor"),
    ],
)
def test_a_wrong_setting_is_one_clear_line(settings, words, tmp_path):
    """It names the setting and the remedy, never a secret, and nothing is started."""
    code, said = start(tmp_path, settings)
    assert code == 78
    assert words in said
    assert said.count("\n") == 1
    assert "canary" not in said


@pytest.mark.parametrize("name", NAMES)
def test_each_alert_takes_its_route(name):
    """All go to the team but the Watchdog, which has a receiver of its own."""
    labels = [f"alertname={name}", *(f"{key}={value}" for key, value in alert_rules.alerts()[name]["labels"].items())]
    receiver = "watchdog" if name == ALWAYS else "team"
    config = f"--config.file={ALERTS / 'alertmanager.yaml'}"
    code, said = run(program("amtool"), "config", "routes", "test", config, f"--verify.receivers={receiver}", *labels)
    assert (code, said.strip()) == (0, receiver)


def test_as_it_stands_nobody_is_told():
    """The bundled file is valid by itself, its receivers are empty, and the team's comes last."""
    assert run(program("amtool"), "check-config", ALERTS / "alertmanager.yaml")[0] == 0
    assert alert_rules.load(ALERTS / "alertmanager.yaml")["receivers"] == [{"name": "watchdog"}, {"name": "team"}]


def test_the_script_is_plain_sh():
    """Containers have busybox's shell: the script runs in dash and names no other."""
    script = ALERTS / "alertmanager.sh"
    assert script.read_text(encoding="utf-8").startswith("#!/bin/sh\n")
    assert os.access(script, os.X_OK)
    dash = shutil.which("dash")
    if dash is None:
        pytest.skip("no dash on this machine")
    assert run(dash, "-n", script) == (0, "")


def test_pint_is_told_no_more_than_it_must():
    """The linter's only exception is the one whose reason stands beside it."""
    text = Path(UNIT_TESTS / "pint.hcl").read_text(encoding="utf-8")
    assert re.findall(r'"([\w/]+)"', text) == ["rule/dependency"]

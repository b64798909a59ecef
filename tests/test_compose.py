"""docker-compose.yml, Grafana's provisioning and what they rest on, held to rules; no engine is needed for that."""

from __future__ import annotations

import configparser
import importlib.util
import os
import re
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from support.collector import CONFIG, ROOT
from watchkeep import names

FILE = ROOT / "docker-compose.yml"
TEXT = FILE.read_text()
COMPOSE = yaml.safe_load(TEXT)
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
SERVERS = ("collector", "prometheus", "alertmanager", "loki", "tempo", "grafana")
PROVISIONING = ROOT / "dashboards" / "provisioning"
SOURCES = yaml.safe_load((PROVISIONING / "datasources" / "watchkeep.yaml").read_text())
ALONE_ROOT = {"init": "gives the volumes away; a volume is root's when it is made"}
VARIABLE = re.compile(r"(?<!\$)\$\{([A-Z_]+)(?::-([^}]*))?\}")


def resolved(text: str) -> str:
    """Give a text as compose reads it when no variable is set."""
    return VARIABLE.sub(lambda match: match[2] or "", text).replace("$$", "$")


def every(kind: str) -> Iterator[tuple[str, Any]]:
    """Yield service and item of a list that services have."""
    for name, service in SERVICES.items():
        for item in service.get(kind, ()):
            yield name, item


# -- the file ----------------------------------------------------------------------------------------------


def test_the_schema_of_compose_accepts_it():
    """The compose specification knows every key, at its place, with its kind of value."""
    done = subprocess.run(
        [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", str(FILE)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_schema_refuses_what_is_wrong(tmp_path):
    """The check can fail."""
    wrong = tmp_path / "compose.yml"
    wrong.write_text(TEXT.replace("mem_limit: 550m", "memory_limit: 550m"))
    done = subprocess.run(
        [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", str(wrong)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode != 0


def test_the_six_servers_are_there():
    """And what serves them: a start, a question, a demo."""
    assert set(SERVICES) == {*SERVERS, "init", "collector-ready", "demo"}


# -- images ------------------------------------------------------------------------------------------------


def versions() -> dict[str, str]:
    """Give the versions that the native servers are built from."""
    native = CONFIG / "native"
    found = {"collector": yaml.safe_load((native / "collector" / "manifest.yaml").read_text())["dist"]["version"]}
    for name, module in (
        ("prometheus", "github.com/prometheus/prometheus"),
        ("alertmanager", "github.com/prometheus/alertmanager"),
        ("loki", "github.com/grafana/loki/v3"),
    ):
        line = re.search(rf"^\s*(?:require )?{module} v(\S+)", (native / name / "go.mod").read_text(), re.MULTILINE)
        assert line is not None, name
        found[name] = line[1]
    found["prometheus"] = re.sub(r"^0\.(\d)(\d\d)\.", lambda match: f"{match[1]}.{int(match[2])}.", found["prometheus"])
    return found


def tag(service: str) -> str:
    """Give the tag of a service's image, without a digest."""
    return str(SERVICES[service]["image"]).partition("@")[0].rpartition(":")[2]


@pytest.mark.parametrize("service", ["collector", "prometheus", "alertmanager", "loki"])
def test_containers_and_processes_run_the_same_version(service):
    """The tag of each image is the version that the tests build and prove."""
    assert tag(service).removeprefix("v") == versions()[service]


@pytest.mark.parametrize("service", ["tempo", "grafana"])
def test_what_is_only_found_on_path_has_the_version_that_the_command_looks_for(service):
    """Tempo and Grafana are not built; the command knows their versions."""
    from watchkeep.stack.build import PROGRAMS

    assert tag(service).split(".")[0] == PROGRAMS[service].version.split(".")[0]


def test_every_image_has_a_full_version():
    """No latest, no moving tag; what is built here is named, and built from a pinned image."""
    for name, service in SERVICES.items():
        if "build" in service:
            continue
        assert re.fullmatch(r"[\w./-]+:v?\d+\.\d+\.\d+(@sha256:[0-9a-f]{64})?", service["image"]), name
    base = re.search(r"^FROM (\S+)$", (ROOT / "examples" / "Dockerfile").read_text(), re.MULTILINE)
    assert base is not None
    assert re.fullmatch(r"python:\d+\.\d+\.\d+-slim-\w+(@sha256:[0-9a-f]{64})?", base[1])


def test_a_service_that_helps_brings_no_image_of_its_own():
    """The helpers use the image of a server, so nothing more is pulled."""
    used = {SERVICES[name]["image"] for name in SERVERS}
    assert {SERVICES["init"]["image"], SERVICES["collector-ready"]["image"]} <= used


# -- ports and networks ------------------------------------------------------------------------------------


def test_every_port_is_on_loopback():
    """Nothing is published to other machines."""
    ports = [port for _, port in every("ports")]
    assert len(ports) == 8
    for port in ports:
        assert re.fullmatch(r"127\.0\.0\.1:\d+:\d+", resolved(port)), port


def test_no_two_services_publish_the_same_port():
    """Each port of this machine is asked for once."""
    wanted = [resolved(port).split(":")[1] for _, port in every("ports")]
    assert len(set(wanted)) == len(wanted)


def test_apps_in_containers_reach_the_collector_and_no_store():
    """The network `watchkeep` is for apps: of the servers, only the collector is in it."""
    assert COMPOSE["networks"]["watchkeep"] == {"name": "watchkeep"}
    assert [name for name in SERVERS if "watchkeep" in SERVICES[name]["networks"]] == ["collector"]
    assert SERVICES["demo"]["environment"]["OTEL_EXPORTER_OTLP_ENDPOINT"] == "http://collector:4318"


def test_each_server_listens_where_the_others_look_for_it():
    """The addresses in the environment and the targets of Prometheus are the services' names and ports."""
    inside = {name: {resolved(port).split(":")[2] for port in SERVICES[name].get("ports", ())} for name in SERVERS}
    inside["tempo"].add("4418")  # OTLP, from the collector only
    asked = [
        text
        for name in SERVERS
        for key, text in SERVICES[name].get("environment", {}).items()
        if key.endswith("_URL") and not key.startswith(("WATCHKEEP_GRAFANA", "WATCHKEEP_RUNBOOK"))
    ]
    asked += [
        f"http://{target}"
        for path in (CONFIG / "targets").glob("*.yaml")
        for group in yaml.safe_load(path.read_text())
        for target in group["targets"]
    ]
    assert len(asked) >= 11
    for address in asked:
        host, _, port = address.removeprefix("http://").partition(":")
        assert port in inside[host], address


# -- hardening ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SERVICES)
def test_a_container_can_do_as_little_as_it_needs(name):
    """Not root, nothing of its image can be written, no capability, no new privilege."""
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert "privileged" not in service
    if name in ALONE_ROOT:
        assert set(service["cap_add"]) == {"CHOWN", "DAC_OVERRIDE", "FOWNER"}
        assert service["network_mode"] == "none"
        assert service["restart"] == "no"
    else:
        assert service["user"].split(":")[0] == "10001"
        assert "cap_add" not in service
        assert service["restart"] == "unless-stopped"


@pytest.mark.parametrize("name", SERVICES)
def test_a_container_is_limited(name):
    """Memory, processes and the size of its log have an end."""
    service = SERVICES[name]
    assert re.fullmatch(r"\d+[mg]", service["mem_limit"])
    assert service["pids_limit"] <= 200
    assert service["logging"] == {"driver": "json-file", "options": {"max-size": "10m", "max-file": "3"}}


@pytest.mark.parametrize("name", ["collector", "prometheus", "alertmanager", "loki", "tempo"])
def test_go_knows_its_limit(name):
    """The collector of garbage works harder before the container is killed: its limit is 70 to 85 % of the memory."""
    number = {"m": 1, "g": 1024}
    memory = SERVICES[name]["mem_limit"]
    ratio = int(SERVICES[name]["environment"]["GOMEMLIMIT"].removesuffix("MiB")) / (
        int(memory[:-1]) * number[memory[-1]]
    )
    assert 0.7 <= ratio <= 0.85


def test_no_engine_socket_and_no_folder_of_the_machine_is_mounted():
    """Only this checkout, read only, and named volumes."""
    for name, volume in every("volumes"):
        source, _, rest = resolved(volume).partition(":")
        if source.startswith("."):
            assert rest.endswith(":ro"), (name, volume)
        else:
            assert source in COMPOSE["volumes"], (name, volume)


# -- mounts, health, order ---------------------------------------------------------------------------------


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="this is no checkout")
def test_every_file_that_is_mounted_is_committed():
    """A folder that is missing would be made by the engine, empty and root's."""
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name, volume in every("volumes"):
        source = resolved(volume).partition(":")[0]
        if source.startswith("."):
            folder = source.removeprefix("./")
            assert (ROOT / folder).is_dir(), (name, volume)
            assert re.search(rf"^{re.escape(folder)}/", tracked, re.MULTILINE), f"nothing in {folder} is committed"


def test_every_file_that_a_server_is_told_to_read_is_mounted():
    """Each path below /etc/watchkeep in a command, an entry point or a variable is a file of this checkout."""
    seen = 0
    for name, service in SERVICES.items():
        texts = [*service.get("command", []), *service.get("entrypoint", []), *service.get("environment", {}).values()]
        mounts = {
            target.rstrip("/"): source
            for source, target in (resolved(each).split(":")[:2] for each in service.get("volumes", ()))
        }
        for path in re.findall(r"/etc/watchkeep/[\w./-]+", " ".join(resolved(str(each)) for each in texts)):
            mount = max((each for each in mounts if path.startswith(f"{each}/")), key=len, default=None)
            assert mount is not None, (name, path)
            assert (ROOT / mounts[mount] / path.removeprefix(f"{mount}/")).exists(), (name, path)
            seen += 1
    assert seen >= 10


def test_the_tree_in_a_container_is_the_tree_of_the_checkout():
    """Relative paths inside the configuration hold in both: each folder is mounted under its own name."""
    for name, volume in every("volumes"):
        source, target = resolved(volume).split(":")[:2]
        if source.startswith("./"):
            assert target == f"/etc/watchkeep/{source.removeprefix('./')}", (name, volume)


def test_everything_that_is_kept_is_in_a_named_volume():
    """Each server writes into its own folder below the data, and nowhere else but /tmp."""
    for name in SERVERS:
        volumes = [resolved(each) for each in SERVICES[name]["volumes"]]
        assert f"{name}:/var/lib/watchkeep/{name}" in volumes
        assert f"{name}:/var/lib/watchkeep/{name}" in SERVICES["init"]["volumes"]


def test_every_server_has_a_health_check_or_one_that_asks_for_it():
    """By a program that its image has: Prometheus', Loki's and Tempo's own, busybox's wget; the collector has none."""
    own = {"prometheus": "promtool", "loki": "/usr/bin/loki", "tempo": "/tempo", "alertmanager": "wget"}
    own |= {"grafana": "wget", "collector-ready": "wget"}
    for name, first in own.items():
        assert SERVICES[name]["healthcheck"]["test"][:2] == ["CMD", first]
    assert "healthcheck" not in SERVICES["collector"]
    assert SERVICES["collector-ready"]["healthcheck"]["test"][-1] == "http://collector:13133/"


def test_whoever_waits_waits_for_something_that_comes():
    """Health is waited for only where there is a check, an end only where the service ends, and nobody in a circle."""
    for name, service in SERVICES.items():
        for other, how in service.get("depends_on", {}).items():
            wanted = how["condition"]
            if wanted == "service_healthy":
                assert "healthcheck" in SERVICES[other], (name, other)
            elif wanted == "service_completed_successfully":
                assert SERVICES[other]["restart"] == "no", (name, other)
    order: list[str] = []
    while len(order) < len(SERVICES):
        ready = [
            each for each in SERVICES if each not in order and set(SERVICES[each].get("depends_on", {})) <= set(order)
        ]
        assert ready, f"a circle among {set(SERVICES) - set(order)}"
        order += ready


def test_what_ends_is_waited_for_by_what_stays():
    """`up --wait` takes a service that ended for a failure, unless one that stays depends on its end."""
    waiting = [name for name in SERVERS if "init" in SERVICES[name]["depends_on"]]
    assert waiting == list(SERVERS)


def test_the_demo_comes_only_when_asked_for():
    """Its profile is demo; no server has one."""
    assert [name for name, service in SERVICES.items() if service.get("profiles")] == ["demo"]


# -- variables ---------------------------------------------------------------------------------------------


def documented(text: str) -> set[str]:
    """Give the variables that a file's comments name at the beginning of a line."""
    return set(re.findall(r"^#\s+((?:WATCHKEEP)_[A-Z_]+)\b", text, re.MULTILINE))


def test_every_variable_is_documented_and_every_documented_one_is_used():
    """What stands on top of docker-compose.yml is what it reads."""
    assert {match[1] for match in VARIABLE.finditer(TEXT)} == documented(TEXT)


@pytest.mark.parametrize("file", ["otelcol.yaml", "extras.yaml", "loki.yaml", "tempo.yaml", "prometheus.yaml"])
def test_every_server_documents_the_variables_that_it_reads(file):
    """And names none that it does not."""
    text = (CONFIG / file).read_text()
    body = "\n".join(line for line in text.splitlines() if not line.lstrip().startswith("#"))
    used = set(re.findall(r"\$\{(?:env:)?(WATCHKEEP_[A-Z_]+)", body))
    own = documented(text) | (documented((CONFIG / "otelcol.yaml").read_text()) if file == "extras.yaml" else set())
    assert used <= own
    assert documented(text) <= used


@pytest.mark.parametrize("file", ["otelcol.yaml", "loki.yaml", "tempo.yaml"])
def test_the_default_that_is_documented_is_the_default(file):
    """What a comment says holds when a variable is not set, is what stands behind it."""
    text = (CONFIG / file).read_text()
    said = dict(re.findall(r"^#\s+(WATCHKEEP_[A-Z_]+)\s+([^\s,]+)", text, re.MULTILINE))
    real = dict(re.findall(r"\$\{(?:env:)?(WATCHKEEP_[A-Z_]+):-([^}]*)\}", text))
    assert said
    assert said == real


SETTERS = {"collector": "otelcol.yaml", "loki": "loki.yaml", "tempo": "tempo.yaml", "prometheus": "prometheus.yaml"}


@pytest.mark.parametrize("service", SETTERS)
def test_a_container_is_told_nothing_that_its_server_does_not_read(service):
    """Every WATCHKEEP_ variable of a service is read by its file of configuration."""
    text = (CONFIG / SETTERS[service]).read_text() + ((CONFIG / "extras.yaml").read_text())
    for key in SERVICES[service]["environment"]:
        assert key == "GOMEMLIMIT" or f"{key}" in text, key


def test_what_the_collector_is_told_when_nothing_is_set_is_its_own_default():
    """A default is written twice, here and there, and is the same."""
    real = dict(re.findall(r"\$\{env:(WATCHKEEP_[A-Z_]+):-([^}]*)\}", (CONFIG / "otelcol.yaml").read_text()))
    for key, text in SERVICES["collector"]["environment"].items():
        if "${" in str(text) and resolved(text):
            assert resolved(text) == real[key], key


def test_no_secret_is_passed_as_a_variable():
    """Webhooks, keys and passwords come as files: `docker inspect` shows variables."""
    for name, service in SERVICES.items():
        for key, text in service.get("environment", {}).items():
            if re.search(r"PASSWORD|SECRET_|WEBHOOK|SLACK|TOKEN", key):
                assert str(text).startswith("$$__file{"), (name, key)


# -- Grafana -----------------------------------------------------------------------------------------------


def settings() -> configparser.ConfigParser:
    parser = configparser.ConfigParser(interpolation=None)
    parser.read(CONFIG / "grafana.ini")
    return parser


def test_nobody_looks_in_without_a_password_that_was_made_here():
    """No anonymous access, no sign-up, and the password is read from the file that init.sh makes."""
    ini = settings()
    assert ini["auth.anonymous"]["enabled"] == "false"
    assert ini["users"]["allow_sign_up"] == "false"
    assert "admin_password" not in ini["security"]
    file = "/run/watchkeep/secrets/grafana_admin_password"
    assert SERVICES["grafana"]["environment"]["GF_SECURITY_ADMIN_PASSWORD"] == f"$$__file{{{file}}}"
    assert "secrets:/run/watchkeep/secrets:ro" in SERVICES["grafana"]["volumes"]


def test_grafana_asks_nobody_outside():
    """No plugins, news, pictures, reports or updates are fetched."""
    ini = settings()
    off = [("analytics", "reporting_enabled"), ("analytics", "check_for_updates"), ("news", "news_feed_enabled")]
    off += [("analytics", "check_for_plugin_updates"), ("plugins", "plugin_admin_enabled"), ("snapshots", "enabled")]
    assert {ini[section][key] for section, key in off} == {"false"}
    assert ini["plugins"]["preinstall_disabled"] == "true"
    assert ini["security"]["disable_gravatar"] == "true"


def test_the_home_dashboard_is_there():
    """And it is the overview."""
    path = settings()["dashboards"]["default_home_dashboard_path"].removeprefix("${WATCHKEEP_STACK_ETC}/")
    assert yaml.safe_load((ROOT / path).read_text())["uid"] == "watchkeep-overview"


def sources() -> dict[str, dict[str, Any]]:
    return {source["uid"]: source for source in SOURCES["datasources"]}


def test_the_data_sources_have_the_uids_that_everything_names():
    """Prometheus is the default; none can be edited; their addresses come from the environment."""
    found = sources()
    assert set(found) == {f"watchkeep-{name}" for name in ("prometheus", "loki", "tempo", "alertmanager")}
    assert [uid for uid, source in found.items() if source.get("isDefault")] == ["watchkeep-prometheus"]
    for uid, source in found.items():
        assert source["editable"] is False
        variable = source["url"].removeprefix("${").removesuffix("}")
        assert variable in SERVICES["grafana"]["environment"], uid


def _uids(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for key, inner in value.items():
            if key in ("datasourceUid", "alertmanagerUid"):
                yield inner
            yield from _uids(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _uids(inner)


def test_every_link_between_data_sources_leads_to_one():
    """Exemplar to trace, trace to logs, metrics and service map, log to trace, rules to Alertmanager."""
    found = list(_uids(SOURCES))
    assert len(found) == 7
    assert set(found) <= set(sources())


def test_a_link_to_a_dashboard_leads_to_one():
    """Its uid exists, and every variable that the link sets is a variable of that dashboard."""
    found = re.findall(r"/d/([\w-]+)\?(\S+)", (PROVISIONING / "datasources" / "watchkeep.yaml").read_text())
    assert found
    dashboards = {
        each["uid"]: {variable["name"] for variable in each["templating"]["list"]}
        for each in (yaml.safe_load(path.read_text()) for path in (ROOT / "dashboards" / "json").glob("*.json"))
    }
    for uid, query in found:
        assert uid in dashboards
        assert set(re.findall(r"var-(\w+)=", query)) <= dashboards[uid]


def test_every_dollar_in_provisioning_is_meant():
    """One that is not for the environment is doubled: Grafana would put nothing in its place."""
    for path in PROVISIONING.rglob("*.yaml"):
        body = "\n".join(line for line in path.read_text().splitlines() if not line.lstrip().startswith("#"))
        for match in re.finditer(r"(?<!\$)\$(?!\$)(\{?)(\w+)", body):
            assert match[1] == "{", match[0]
            assert match[2] in SERVICES["grafana"]["environment"], match[0]


def test_the_links_from_a_trace_ask_for_metrics_and_labels_that_exist():
    """Every metric and label of tracesToMetrics is in the catalogue."""
    metrics = {each.prometheus: each for each in vars(names).values() if isinstance(each, names.Metric)}
    queries = sources()["watchkeep-tempo"]["jsonData"]["tracesToMetrics"]["queries"]
    assert queries
    for query in queries:
        text = query["query"].replace("$$__tags", "")
        name = re.search(r"(\w+)\{", text)
        assert name is not None
        metric = metrics[re.sub(r"_bucket$", "", name[1])]
        labels = {label.replace(".", "_") for label in metric.labels} | {"le"}
        used = {each.strip() for group in re.findall(r"by \(([^)]*)\)", text) for each in group.split(",")}
        used |= set(re.findall(r"(\w+)!?=~?\"", text))
        assert used <= labels, query["name"]


def test_logs_link_to_traces_by_label_and_back_by_trace_id():
    """Loki keeps ids as structured metadata, so no text is searched for them."""
    loki = sources()["watchkeep-loki"]["jsonData"]["derivedFields"]
    assert {field["matcherType"] for field in loki} == {"label"}
    assert {field["matcherRegex"] for field in loki} == {
        "trace_id",
        names.AGENT_RUNTIME_CORRELATION_ID.replace(".", "_"),
    }
    back = sources()["watchkeep-tempo"]["jsonData"]["tracesToLogsV2"]
    assert back["query"] == '{$${__tags}} | trace_id="$${__trace.traceId}"'
    assert back["tags"] == [{"key": "service.name", "value": "service_name"}]


def test_the_dashboards_are_read_from_the_mounted_folder():
    """The provider looks where the generated files are."""
    (provider,) = yaml.safe_load((PROVISIONING / "dashboards" / "watchkeep.yaml").read_text())["providers"]
    assert provider["options"]["path"] == "${WATCHKEEP_STACK_ETC}/dashboards/json"
    assert SERVICES["grafana"]["environment"]["WATCHKEEP_STACK_ETC"] == "/etc/watchkeep"
    assert provider["allowUiUpdates"] is False


# -- init.sh -----------------------------------------------------------------------------------------------


@pytest.fixture
def begun(tmp_path) -> Path:
    for folder in ("data/loki", "secrets", "given"):
        (tmp_path / folder).mkdir(parents=True)
    return tmp_path


def begin(folder: Path, user: int | None = None) -> subprocess.CompletedProcess[str]:
    words = ["sh", str(CONFIG / "init.sh"), "data", "secrets", "given", str(os.getuid() if user is None else user)]
    return subprocess.run(words, cwd=folder, capture_output=True, text=True, timeout=20, check=False)


def test_init_makes_a_password_once(begun):
    """It is long, random, for one user only, and the same at the next start."""
    assert begin(begun).returncode == 0
    file = begun / "secrets" / "grafana_admin_password"
    made = file.read_text()
    assert re.fullmatch(r"[A-Za-z0-9]{32}", made)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert begin(begun).returncode == 0
    assert file.read_text() == made
    file.unlink()
    assert begin(begun).returncode == 0
    assert file.read_text() != made


def test_init_hands_out_what_is_given_and_takes_back_what_is_taken_away(begun):
    """A secret file is copied, readable by the servers only; when it is gone, so is the copy; a given password wins."""
    (begun / "given" / "alerts_webhook_url").write_text("http://127.0.0.1:1/x y\n")
    (begun / "given" / "grafana_admin_password").write_text("chosen by hand, and long")
    assert begin(begun).returncode == 0
    copy = begun / "secrets" / "alerts_webhook_url"
    assert copy.read_text() == "http://127.0.0.1:1/x y\n"
    assert stat.S_IMODE(copy.stat().st_mode) == 0o600
    assert (begun / "secrets" / "grafana_admin_password").read_text() == "chosen by hand, and long"
    (begun / "given" / "alerts_webhook_url").unlink()
    assert begin(begun).returncode == 0
    assert not copy.exists()


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give a folder away")
def test_init_gives_the_folders_to_the_servers(begun):
    """Each server's folder, and the secrets, belong to the user that the servers run as."""
    assert begin(begun, 10001).returncode == 0
    assert {(begun / each).stat().st_uid for each in ("data/loki", "secrets", "secrets/grafana_admin_password")} == {
        10001
    }


# -- the demo ----------------------------------------------------------------------------------------------


def test_the_demo_is_installed_from_hashes():
    """Every package of its image is locked; Watchkeep itself is this checkout."""
    lock = (ROOT / "requirements" / "demo.txt").read_text()
    packages = re.findall(r"^([a-z][\w.-]*)==", lock, re.MULTILINE)
    assert {"openai", "pybreaker", "httpx2", "hatchling", "opentelemetry-sdk"} <= set(packages)
    assert lock.count("--hash=sha256:") >= len(packages)
    docker = (ROOT / "examples" / "Dockerfile").read_text()
    assert "--require-hashes -r /src/requirements/demo.txt" in docker
    assert "--no-deps --no-build-isolation /src" in docker
    assert re.search(r"^USER 10001", docker, re.MULTILINE)


def test_the_demo_needs_nothing_that_its_lock_does_not_have():
    """What Watchkeep depends on is in the lock, as the image installs the package without its dependencies."""
    import tomllib

    wanted = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    lock = (ROOT / "requirements" / "demo.txt").read_text()
    for each in wanted:
        name = re.split(r"[^\w-]", each)[0]
        assert re.search(rf"^{name}==", lock, re.MULTILINE), each


def test_every_path_that_the_image_copies_is_sent_to_the_engine():
    """The ignore file lets through what COPY names, and no more than that."""
    copied = {
        word
        for line in re.findall(r"^COPY (.*)$", (ROOT / "examples" / "Dockerfile").read_text(), re.MULTILINE)
        for word in line.split()[:-1]
    }
    allowed = re.findall(r"^!(\S+)$", (ROOT / "examples" / "Dockerfile.dockerignore").read_text(), re.MULTILINE)
    assert copied == set(allowed)
    assert all((ROOT / each).exists() for each in copied)


# -- digests -----------------------------------------------------------------------------------------------


@pytest.fixture
def pins(tmp_path):
    """Load the script, with a folder that holds copies of what it pins and a `docker` that answers from a file."""
    spec = importlib.util.spec_from_file_location("pin_digests", ROOT / "scripts" / "pin_digests.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    (tmp_path / "examples").mkdir()
    for file in module.FILES:
        (tmp_path / file).write_text((ROOT / file).read_text())
    return module, tmp_path


def docker_that(folder: Path, does: str, monkeypatch: pytest.MonkeyPatch) -> None:
    program = folder / "bin" / "docker"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\n{does}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")


def test_digests_are_written_behind_every_tag_and_the_file_stays_good(pins, monkeypatch):
    """Each image that is pulled gets what its registry said; the tag stays, and a second run changes nothing."""
    module, folder = pins
    docker_that(folder, 'echo "sha256:$(printf %s "$6" | sha256sum | cut -c1-64)"', monkeypatch)
    wanted = {service["image"].partition("@")[0] for service in SERVICES.values() if "build" not in service}
    assert set(module.images(folder)) == wanted | {module.IMAGE.search((folder / module.FILES[1]).read_text())["name"]}
    lines = module.pin(folder)
    written = (folder / "docker-compose.yml").read_text()
    assert all(f"image: {line}\n" in written for line in lines if "python" not in line)
    assert all(module.images(folder).values())
    module.pin(folder)
    assert (folder / "docker-compose.yml").read_text() == written


def test_a_registry_that_does_not_answer_leaves_everything_as_it_was(pins, monkeypatch):
    """Digests are never invented: one that is missing ends the run before anything is written."""
    module, folder = pins
    docker_that(
        folder, 'case "$6" in *tempo*) echo "not found" >&2; exit 1;; esac; printf "sha256:%064d\\n" 0', monkeypatch
    )
    before = (folder / "docker-compose.yml").read_text()
    with pytest.raises(SystemExit, match=r"tempo.*not found"):
        module.pin(folder)
    assert (folder / "docker-compose.yml").read_text() == before

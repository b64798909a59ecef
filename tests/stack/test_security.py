"""What is secret is nowhere: not in a store, not in a queue, not in a process; and nobody outside can knock."""

from __future__ import annotations

import ipaddress
import json
import secrets
import stat
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from stack import canaries, raw
from stack.asking import Stores
from stack.client import eventually, get
from stack.conftest import CANARY_TOKEN
from stack.http_on_loopback import Webhook
from stack.sockets import family, listeners
from support.secret_shapes import SECRET_PARTS
from watchkeep.stack.native import Native, free_ports
from watchkeep.stack.servers import SERVERS

FORBIDDEN = (*SECRET_PARTS, canaries.PROMPT)
SENT_TRACE = secrets.token_hex(16)
STORES = ("prometheus", "loki", "tempo")


@pytest.fixture(scope="module")
def sent(stack: Native, stores: Stores) -> float:
    """Everything is sent, and the harmless mark, which came last, is stored."""
    begun = time.time() - 5
    for request in canaries.everything(SENT_TRACE):
        assert raw.post(stack.url("collector"), request) == 200
    eventually(lambda: canaries.MARK in of_prometheus(stack, begun), 30, "the mark is in Prometheus")
    eventually(lambda: canaries.MARK in of_loki(stores, begun), 30, "the mark is in Loki")
    if stores.tempo:
        eventually(lambda: canaries.MARK in of_tempo(stack), 30, "the mark is in Tempo")
    return begun


def of_prometheus(stack: Native, begun: float) -> str:
    """Return all series, descriptions and exemplars that Prometheus tells of."""
    url = stack.url("prometheus")
    asked = {"query": "{__name__=~'tests_canary.+'}", "start": begun, "end": time.time() + 5}
    found = [
        get(f"{url}/api/v1/series", {"match[]": "{__name__=~'.+'}"}),
        get(f"{url}/api/v1/metadata"),
        get(f"{url}/api/v1/query_exemplars", asked),
    ]
    return json.dumps(found)


def of_loki(stores: Stores, begun: float) -> str:
    """Return all lines of the service, with all that is kept beside them."""
    found = stores.loki.range(f'{{service_name="{canaries.SERVICE}"}}', begun, time.time() + 5, limit=5000)
    return json.dumps(found)


def of_tempo(stack: Native) -> str:
    """Return the whole trace, and every value of every attribute that can be searched for."""
    url = stack.url("tempo")
    try:
        return json.dumps(get(f"{url}/api/v2/traces/{SENT_TRACE}"))
    except AssertionError:
        return ""


def answered(store: str, stack: Native, stores: Stores, begun: float) -> str:
    """Return all that a store tells."""
    ask = {
        "prometheus": lambda: of_prometheus(stack, begun),
        "loki": lambda: of_loki(stores, begun),
        "tempo": lambda: of_tempo(stack),
    }
    return ask[store]()


def on_disk(folder: Path) -> Iterator[tuple[Path, bytes]]:
    """Yield every file below a folder that is there when it is read."""
    for path in sorted(folder.rglob("*")):
        try:
            if path.is_file():
                yield path, path.read_bytes()
        except FileNotFoundError:
            continue


@pytest.mark.parametrize("store", STORES)
def test_no_store_tells_a_secret_or_a_prompt(store: str, sent: float, stack: Native, stores: Stores) -> None:
    """Asked for all it has, a store shows the harmless mark from the same places and no canary."""
    if store not in stack.names:
        pytest.skip(stack.missing[store])
    told = answered(store, stack, stores, sent)
    assert canaries.MARK in told
    assert [part for part in FORBIDDEN if part in told] == []


@pytest.mark.parametrize("store", STORES)
def test_no_file_of_a_store_holds_one(store: str, sent: float, stack: Native) -> None:
    """The raw bytes of all its files hold parts of the mark (compression leaves them as they are), and no canary."""
    if store not in stack.names:
        pytest.skip(stack.missing[store])
    files = list(on_disk(stack.home / "data" / store))
    found = {(path.name, part) for path, held in files for part in FORBIDDEN if part.encode() in held}
    assert found == set()
    if store != "tempo":  # whose traces wait in memory
        parts = [canaries.MARK[at : at + 6].encode() for at in range(9, len(canaries.MARK) - 6)]
        assert any(part in held for _, held in files for part in parts)


def test_no_queue_holds_one(servers: Mapping[str, str], tmp_path: Path) -> None:
    """A collector whose stores are all away keeps everything on disk: the mark, and no canary."""
    others = [name for name in SERVERS if name != "collector"]
    alone = Native(tmp_path / "alone", free_ports(), servers, without=[each for each in others if each != "tempo"])
    alone.stage()
    ready = alone.names
    if "tempo" in ready:
        ready.remove("tempo")
    try:
        alone._launch("collector")
        alone.wait_ready(["collector"])
        for request in canaries.everything(SENT_TRACE):
            assert raw.post(alone.url("collector"), request) == 200
        queue = alone.home / "data" / "collector"
        held = eventually(lambda: _queued(queue), 10, "the mark is in the queue")
        assert [part for part in FORBIDDEN if part.encode() in held] == []
    finally:
        alone.down()


def _queued(folder: Path) -> bytes:
    held = b"".join(content for _, content in on_disk(folder))
    return held if canaries.MARK.encode() in held else b""


def test_nobody_listens_beyond_loopback(stack: Native) -> None:
    """Every socket of every server that waits for somebody is bound to the loopback."""
    found = {(name, *each) for name in stack.names for each in listeners(stack.pid(name))}
    assert {name for name, _, _ in found} == set(stack.names)
    assert {each for each in found if not ipaddress.ip_address(each[1]).is_loopback} == set()


def test_every_port_was_given(stack: Native) -> None:
    """No server listens on a port that nobody chose."""
    found = {(name, port) for name in stack.names for _, port in listeners(stack.pid(name))}
    assert {each for each in found if each[1] not in stack.place.ports.values()} == set()


def test_nothing_secret_stands_in_a_process(stack: Native, webhook: Webhook) -> None:
    """The way to people and the generated password are in no argument and in no environment."""
    password = (stack.home / "secrets" / "grafana_admin_password").read_text()
    for name in stack.names:
        for pid in family(stack.pid(name)):
            for part in ("cmdline", "environ"):
                held = Path(f"/proc/{pid}/{part}").read_bytes()
                assert CANARY_TOKEN.encode() not in held, (name, part)
                assert password.encode() not in held, (name, part)
    told = json.dumps([{"labels": {"alertname": "Tests", "severity": "critical"}}]).encode()
    request = urllib.request.Request(
        f"{stack.url('alertmanager')}/api/v2/alerts", told, {"content-type": "application/json"}
    )
    urllib.request.urlopen(request, timeout=10).close()
    eventually(lambda: webhook.paths, 30, "the way to people works nevertheless")
    assert webhook.paths == {f"/hook?token={CANARY_TOKEN}"}


@pytest.mark.parametrize(
    ("server", "path"),
    [
        ("prometheus", "/api/v1/status/config"),
        ("prometheus", "/api/v1/status/flags"),
        ("alertmanager", "/api/v2/status"),
        ("alertmanager", "/metrics"),
        ("loki", "/config"),
        ("tempo", "/status/config"),
    ],
)
def test_no_page_of_a_server_tells_the_way_to_people(server: str, path: str, stack: Native) -> None:
    """What a server says of its own configuration holds no secret."""
    if server not in stack.names:
        pytest.skip(stack.missing[server])
    with urllib.request.urlopen(stack.url(server) + path, timeout=10) as answer:
        assert CANARY_TOKEN not in answer.read().decode()


def test_no_log_of_a_server_tells_a_secret(sent: float, stack: Native) -> None:
    """The servers' own logs hold no canary."""
    held = b"".join(content for _, content in on_disk(stack.home / "logs"))
    assert [part for part in (*FORBIDDEN, CANARY_TOKEN) if part.encode() in held] == []


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/-/quit"),
        ("POST", "/-/reload"),
        ("POST", "/api/v1/admin/tsdb/snapshot"),
        ("POST", "/api/v1/admin/tsdb/delete_series?match[]=up"),
    ],
)
def test_nobody_rules_prometheus_over_http(method: str, path: str, stack: Native) -> None:
    """Ending, reloading and deleting are off."""
    request = urllib.request.Request(stack.url("prometheus") + path, method=method)
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(request, timeout=10)
    assert refused.value.code in (403, 404, 405, 500, 503)
    assert stack.alive("prometheus")


def test_the_home_is_closed_to_others(stack: Native) -> None:
    """Nobody else may enter the home; what is secret can be read by its owner only."""
    assert stat.S_IMODE(stack.home.stat().st_mode) & 0o077 == 0
    private = [*(stack.home / "secrets").iterdir(), *(stack.home / "run").rglob("*url*")]
    assert private
    assert [path for path in private if stat.S_IMODE(path.stat().st_mode) & 0o077] == []


def test_default_logins_of_grafana_are_refused(servers: Mapping[str, str], tmp_path: Path) -> None:
    """admin:admin opens nothing, and nobody gets in without a login."""
    ports = free_ports()
    alone = Native(tmp_path / "grafana", ports, servers, without=[name for name in SERVERS if name != "grafana"])
    alone.stage()
    if "grafana" not in alone.names:
        alone.down()
        pytest.skip(alone.missing["grafana"])
    with alone:
        for login in ("", "admin:admin@"):
            with pytest.raises(urllib.error.HTTPError) as refused:
                urllib.request.urlopen(f"http://{login}127.0.0.1:{ports['grafana']}/api/org", timeout=10)
            assert refused.value.code == 401

"""The real servers, once for all tests of this folder: from the bundled files, on free ports, in their own home."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping

import pytest

from stack.asking import Day, Stores
from stack.client import Tempo
from stack.http_on_loopback import Webhook
from stack.seeding import OVERRIDES, seeded
from watchkeep.stack.errors import NoGo
from watchkeep.stack.native import Native, free_ports

NO_PROXY = {"NO_PROXY": "127.0.0.1,localhost", "no_proxy": "127.0.0.1,localhost"}


@pytest.fixture(scope="session")
def servers() -> Mapping[str, str]:
    """The environment that servers are started in; without them, and without Go to build them, tests are skipped."""
    from watchkeep.stack import build
    from watchkeep.stack.build import PROGRAMS

    try:
        for program in ("otelcol", "prometheus", "promtool", "alertmanager", "amtool", "loki"):
            assert PROGRAMS[program].source
            build.binary(program, say=lambda line: print(line, flush=True))
    except NoGo as error:
        pytest.skip(str(error))
    return {name: text for name, text in os.environ.items() if name.lower() != "no_proxy"} | NO_PROXY


@pytest.fixture(scope="session")
def webhook() -> Iterator[Webhook]:
    """Hears what the stack's Alertmanager tells."""
    with Webhook() as heard:
        yield heard


@pytest.fixture(scope="session")
def stack(servers: Mapping[str, str], webhook: Webhook, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Native]:
    """The whole stack as it is bundled, the thresholds of some services lowered by a file of overrides."""
    home = tmp_path_factory.mktemp("stack")
    overrides = tmp_path_factory.mktemp("overrides")
    (overrides / "tests.rules.yaml").write_text(OVERRIDES)
    environ = {
        **servers,
        "WATCHKEEP_STACK_OVERRIDES": str(overrides),
        "WATCHKEEP_ALERTS_WEBHOOK_URL": f"{webhook.url}/hook?token={CANARY_TOKEN}",
    }
    with Native(home, free_ports(), environ, without=["grafana"]) as running:
        yield running


CANARY_TOKEN = "hook-canary-7f31c05e"


def first_moment(stack: Native) -> float:
    """Return the time at which the stack was started."""
    return (stack.etc / "collector").stat().st_ctime - 1


@pytest.fixture(scope="session")
def stores(stack: Native) -> Stores:
    """Who answers queries."""
    return Stores.of(stack, begun=first_moment(stack))


@pytest.fixture(scope="session")
def tempo(stack: Native, stores: Stores) -> Tempo:
    """Tempo, where it is on PATH."""
    if stores.tempo is None:
        pytest.skip(stack.missing["tempo"])
    return stores.tempo


@pytest.fixture(scope="session")
def day(stack: Native, stores: Stores, tmp_path_factory: pytest.TempPathFactory) -> Day:
    """A bad day of real apps, after it; nothing of it runs any more."""
    with seeded(stack, tmp_path_factory.mktemp("day")) as apps:
        return Day(apps, stores, stores.begun)

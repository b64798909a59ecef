"""Nothing is lost that the collector acknowledged: it is killed again and again, and each store goes away in turn."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from stack.asking import Stores
from stack.client import eventually
from stack.load import LINES, POINTS, SPANS, Load
from watchkeep.stack.native import Native

KILLS = 5
OUTAGE = float(os.environ.get("WATCHKEEP_TEST_OUTAGE", "20"))  # s that each store is away; 60 is the full measure
KEPT_BY = {"prometheus": POINTS, "loki": LINES, "tempo": SPANS}
RECOVERY = 60.0  # s: the longest pause between two tries is 15


@dataclass
class Seen:
    """What became of the load."""

    load: Load
    missing: dict[str, set[int]]
    killed: int = 0
    behind: dict[str, dict[str, int]] = field(default_factory=dict)  # store away -> kind -> items not yet seen


@pytest.fixture(scope="module")
def kills(stack: Native, stores: Stores) -> Seen:
    """The collector, killed under load and started again at once."""
    with Load(stack.url("collector"), "killed") as load:
        for count in range(KILLS):
            time.sleep(1.5 + 0.1 * count)
            stack.kill("collector", signal.SIGKILL)
            stack.start("collector")
        time.sleep(1.5)
    return Seen(load, load.wait_until_stored(stores, RECOVERY), killed=KILLS)


@pytest.fixture(scope="module")
def outages(stack: Native, stores: Stores) -> Seen:
    """Each store stopped for a while under load, one after the other."""
    behind: dict[str, dict[str, int]] = {}
    with Load(stack.url("collector"), "away") as load:
        time.sleep(2)
        for store in KEPT_BY:
            if store not in stack.names:
                continue
            back = takes_away(stack, store)
            gone = time.monotonic()
            time.sleep(OUTAGE / 2)
            behind[store] = how_far_behind(load, stores, KEPT_BY[store])
            time.sleep(max(0.0, OUTAGE - (time.monotonic() - gone)))
            back()
        time.sleep(1)
    return Seen(load, load.wait_until_stored(stores, RECOVERY), behind=behind)


def takes_away(stack: Native, store: str) -> Callable[[], None]:
    """Take a store away; return what brings it back.

    Prometheus and Loki are stopped. Tempo is frozen: around a stop under load, 3.0.3 counts a request or two as taken
    whose spans it then cannot find, which no sender can know.
    """
    if store == "tempo":
        stack.kill(store, signal.SIGSTOP)
        return lambda: stack.kill(store, signal.SIGCONT)
    stack.kill(store, signal.SIGTERM)
    return lambda: stack.start(store)


def how_far_behind(load: Load, stores: Stores, away: str) -> dict[str, int]:
    """Return for the stores that are there how many of the items acknowledged five seconds ago they have not shown."""
    then = {kind: load.highest(kind) for kind in load.acknowledged if kind != away}
    time.sleep(5)
    newest = load.newest(stores)
    return {kind: max(0, number - newest[kind]) for kind, number in then.items() if kind in newest}


@pytest.mark.slow
@pytest.mark.parametrize("kind", [SPANS, LINES, POINTS])
def test_killing_the_collector_loses_nothing(kills: Seen, kind: str) -> None:
    """Every item that was acknowledged before a kill is stored after it."""
    assert kills.killed == KILLS
    if kind not in kills.missing:
        pytest.skip("tempo is not on PATH")
    assert len(kills.load.acknowledged[kind]) > 50
    assert kills.missing[kind] == set()


@pytest.mark.slow
@pytest.mark.parametrize("kind", [SPANS, LINES, POINTS])
def test_a_store_that_was_away_has_all_of_it_afterwards(outages: Seen, kind: str) -> None:
    """Every item that was acknowledged while a store was away is stored when it is back."""
    if kind not in outages.missing:
        pytest.skip("tempo is not on PATH")
    assert len(outages.load.acknowledged[kind]) > 3 * OUTAGE
    assert outages.missing[kind] == set()


@pytest.mark.slow
@pytest.mark.parametrize("store", KEPT_BY)
def test_the_other_stores_do_not_notice(outages: Seen, store: str) -> None:
    """While one store is away, the others have what was acknowledged five seconds ago, and nothing is refused."""
    if store not in outages.behind:
        pytest.skip(f"{store} is not on PATH")
    others = {kind for kind in outages.missing if kind != KEPT_BY[store]}
    assert outages.behind[store] == dict.fromkeys(others, 0)
    assert sum(outages.load.refused.values()) == 0


@pytest.mark.slow
def test_the_stack_is_whole_again(outages: Seen, stack: Native) -> None:
    """After all of it every server is ready."""
    eventually(lambda: all(stack.ready(name) for name in stack.names), 20, "all servers are ready")

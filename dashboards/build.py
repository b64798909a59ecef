"""Builds dashboards/json/*.json."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from functools import cache, partial
from typing import Any

from dashboards import concurrency, links, llm, overview, pools, resilience, run, system, time
from dashboards.frame import build as build_board

FOLDER = "dashboards/json"
BOARDS = (
    overview.BOARD,
    llm.BOARD,
    time.BOARD,
    resilience.BOARD,
    pools.BOARD,
    concurrency.BOARD,
    system.BOARD,
    run.BOARD,
)


def files() -> Iterator[tuple[str, Callable[[], str]]]:
    """Yield the path of every built file, and what makes its text."""
    for board in BOARDS:
        yield f"{FOLDER}/{_name(board.uid)}", partial(_one, _name(board.uid))


@cache
def build() -> dict[str, str]:
    """Return the text of every file under dashboards/json, by name."""
    made = {board.uid: build_board(board) for board in BOARDS}
    ids = {
        (uid, panel["title"]): panel["id"]
        for uid, dashboard in made.items()
        for panel in dashboard["panels"]
        if panel["type"] != "row"
    }
    return {_name(uid): _text(dashboard, ids) for uid, dashboard in made.items()}


def _one(name: str) -> str:
    return build()[name]


def _name(uid: str) -> str:
    return f"{uid.removeprefix('watchkeep-')}.json"


def _text(dashboard: dict[str, Any], ids: dict[tuple[str, str], int]) -> str:
    def panel_id(match: re.Match[str]) -> str:
        found = ids.get((match["uid"], match["title"]))
        if found is None:
            raise KeyError(f"{dashboard['uid']} links to the panel {match['title']!r} of {match['uid']}: there is none")
        return str(found)

    text = json.dumps(dashboard, indent=2, sort_keys=True, ensure_ascii=False)
    return links.PANEL.sub(panel_id, text) + "\n"

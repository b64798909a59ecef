"""What the user is told: one line a minute, and one at the end when something was lost."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence

from watchkeep import guard
from watchkeep.export.lane import Lane
from watchkeep.export.ledger import SUPERSEDED

_EVERY = 60.0
_UNITS = {"traces": "span", "logs": "log record", "metrics": "metric point"}
_DO = {
    "queue_full": "send less, or raise WATCHKEEP_QUEUE_BYTES",
    "rejected": "the collector's log says why",
    "encode": "please report it",
}
_UNREACHED = "start a collector there, or point OTEL_EXPORTER_OTLP_ENDPOINT at one"


class Voice:
    """Says what was lost and what to do, seldom."""

    def __init__(self) -> None:
        self._said = -_EVERY
        self._told: dict[tuple[str, str], int] = {}

    def speak(self, lanes: Sequence[Lane]) -> None:
        """Write one line when something is wrong, at most once a minute."""
        now = time.monotonic()
        if now - self._said < _EVERY:
            return
        news = self._news(lanes)
        down = next((lane for lane in lanes if lane.origin.failures > 1 or lane.gate.failures > 1), None)
        if not news and down is None:
            return
        self._said = now
        guard.logger().warning("%s", _line(news, down))

    def _news(self, lanes: Sequence[Lane]) -> dict[tuple[str, str], int]:
        """Count what was lost since the last line."""
        news = {}
        for lane in lanes:
            for reason, number in lane.ledger.reasons().items():
                key = lane.target.signal, reason
                fresh = number - self._told.get(key, 0)
                self._told[key] = number
                if fresh > 0 and reason != SUPERSEDED:
                    news[key] = fresh
        return news

    def last_words(self, lanes: Sequence[Lane]) -> None:
        """Tell on stderr what never arrived: no log of ours can reach the collector now."""
        news = self._news(lanes)
        if news and sys.stderr is not None:
            down = next((lane for lane in lanes if _trouble(lane)), None)
            try:
                sys.stderr.write(_line(news, down) + "\n")
                sys.stderr.flush()
            except (OSError, ValueError, RuntimeError):  # closed, or interrupted while it was written to
                return


def _trouble(lane: Lane) -> str:
    waits = lane.busy or lane.pending is not None
    return lane.gate.error or lane.origin.error or ("no answer in time" if waits else "")


def _line(news: dict[tuple[str, str], int], down: Lane | None) -> str:
    parts = ["watchkeep:"]
    if down is not None:
        parts.append(f"{down.target.origin} does not take telemetry ({_trouble(down)}): {_UNREACHED}.")
    if news:
        lost = ", ".join(
            f"{number} {_UNITS[signal]}{'s' * (number != 1)} ({reason})" for (signal, reason), number in news.items()
        )
        parts.append(f"Lost: {lost}.")
        todo = [_DO[reason] for reason in dict.fromkeys(reason for _, reason in news) if reason in _DO]
        parts += [f"{'; '.join(todo).capitalize()}."] if todo else []
    elif down is not None:
        parts.append("What fits into memory is kept and tried again.")
    parts.append("Your app is not affected.")
    return " ".join(parts)

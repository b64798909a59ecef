"""Makes time pass faster for a test: rewrites the durations of the bundled rules, and nothing else, and shows each.

    for line in compress(stack.etc, factor=20): print(line)

Every duration is divided by the factor, but not made shorter than its kind can bear: a window must hold some pushes, a
silence must be longer than one. Or as a command: python tests/stack/compress.py ETC --factor 20
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType

WAIT, WINDOW, SILENCE = "wait", "window", "silence"
FLOORS: Mapping[str, float] = MappingProxyType({WAIT: 1.0, WINDOW: 10.0, SILENCE: 5.0})  # s
_UNITS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
_PART = re.compile(r"(\d+)(ms|s|m|h|d|w)")
_DURATION = r"(?:\d+(?:ms|s|m|h|d|w))+"
_KEYS = "for|keep_firing_for|interval|evaluation_interval|scrape_interval|scrape_timeout|refresh_interval"
_KEYS += "|group_wait|group_interval|repeat_interval"
# What a duration stands behind, and its kind. Recorded names such as increase5m are no durations.
_PLACES = (
    (re.compile(rf"(?<![\w.])((?:{_KEYS}): )({_DURATION})\b"), WAIT),
    (re.compile(rf"(\[)({_DURATION})(?=[\]:])"), WINDOW),
    (re.compile(rf"(\[[\w.]+:)({_DURATION})(?=\])"), WINDOW),
    (re.compile(rf"(\boffset )({_DURATION})\b"), WINDOW),
)
# Limits that are spans of silence or of life, in seconds, as their records are written in thresholds.rules.yaml.
_LIMIT = re.compile(r"record: watchkeep:threshold:(?:collector_heartbeat|heartbeat|silent_min_uptime)_seconds\b")
_LIMIT_VALUE = re.compile(r"(watchkeep:service:known \* |vector\()(\d+(?:\.\d+)?)")
_ROLLING = re.compile(r"^(\s+)(300)$")  # how long before the end of one instance another may have started


def seconds(text: str) -> float:
    """Return a duration such as 1h30m in seconds."""
    return sum(int(number) * _UNITS[unit] for number, unit in _PART.findall(text))


def written(duration: float) -> str:
    """Write a duration in seconds, or in milliseconds where it must be."""
    return f"{duration:.0f}s" if duration == int(duration) else f"{duration * 1000:.0f}ms"


def compress(etc: Path, factor: float, floors: Mapping[str, float] = FLOORS) -> list[str]:
    """Rewrite the rules, alertmanager.yaml and prometheus.yaml below `etc`; return what was changed, as a diff does."""
    found: list[str] = []
    for file in (*sorted((etc / "alerts").glob("*.rules.yaml")), etc / "alerts" / "alertmanager.yaml",
                 etc / "collector" / "prometheus.yaml"):  # fmt: skip
        if file.exists():
            before = file.read_text(encoding="utf-8")
            after = compressed(before, factor, floors)
            file.write_text(after, encoding="utf-8")
            found += _shown(str(file.relative_to(etc)), before, after)
    return found


def compressed(text: str, factor: float, floors: Mapping[str, float] = FLOORS) -> str:
    """Return a text with its durations divided by `factor`, comments untouched."""

    def shorter(kind: str, write: Callable[[float], str]) -> Callable[[re.Match[str]], str]:
        def change(match: re.Match[str]) -> str:
            was = seconds(match[2]) or float(match[2] if match[2].replace(".", "").isdigit() else 0)
            return match[1] + (match[2] if was == 0 else write(min(was, max(was / factor, floors[kind]))))

        return change

    lines, limit = [], False
    for line in text.splitlines(keepends=True):
        if "- record:" in line or "- alert:" in line:
            limit = bool(_LIMIT.search(line))
        if not line.lstrip().startswith("#"):
            for place, kind in _PLACES:
                line = place.sub(shorter(kind, written), line)
            if limit:
                line = _LIMIT_VALUE.sub(shorter(SILENCE, lambda value: f"{value:g}"), line)
            line = _ROLLING.sub(shorter(SILENCE, lambda value: f"{value:g}"), line)
        lines.append(line)
    return "".join(lines)


def _shown(name: str, before: str, after: str) -> Iterator[str]:
    pairs = [(number, was, now) for number, (was, now)
             in enumerate(zip(before.splitlines(), after.splitlines(), strict=True), 1) if was != now]  # fmt: skip
    if pairs:
        yield f"--- {name}"
    for number, was, now in pairs:
        yield f"{number:>5} - {was.strip()}"
        yield f"{number:>5} + {now.strip()}"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("etc", type=Path, help="a folder with alerts/ and collector/")
    parser.add_argument("--factor", type=float, default=20.0)
    asked = parser.parse_args()
    print("\n".join(compress(asked.etc, asked.factor)))

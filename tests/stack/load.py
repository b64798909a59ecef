"""A load of numbered spans, lines and points, and what became of it: sent, acknowledged by the collector, stored."""

from __future__ import annotations

import contextlib
import secrets
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from stack import raw
from stack.asking import Stores
from stack.client import eventually

SPANS, LINES, POINTS = "spans", "lines", "points"
AT_ONCE = 5  # spans and lines of one request
PAUSE = 0.05  # s between two requests of one signal
REQUESTS_OF_A_TRACE = 50


@dataclass
class Load:
    """One thread for each signal, each item with a number of its own; no request is sent twice."""

    endpoint: str
    service: str
    begun: float = field(default_factory=time.time)
    acknowledged: dict[str, set[int]] = field(default_factory=lambda: {SPANS: set(), LINES: set(), POINTS: set()})
    refused: dict[str, int] = field(default_factory=lambda: {SPANS: 0, LINES: 0, POINTS: 0})
    traces: list[str] = field(default_factory=list)
    _end: threading.Event = field(default_factory=threading.Event)
    _threads: list[threading.Thread] = field(default_factory=list)

    def __enter__(self) -> Load:
        for kind, request in ((SPANS, self._spans), (LINES, self._lines), (POINTS, self._points)):
            thread = threading.Thread(target=self._send, args=(kind, request), daemon=True)
            thread.start()
            self._threads.append(thread)
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        for thread in self._threads:
            thread.join(15)

    def _send(self, kind: str, request: Callable[[range], dict]) -> None:
        number = 0
        size = 1 if kind == POINTS else AT_ONCE
        while not self._end.wait(PAUSE):
            numbers = range(number, number + size)
            number += size
            if raw.post(self.endpoint, request(numbers)) == 200:
                self.acknowledged[kind].update(numbers)
            else:
                self.refused[kind] += size

    def _spans(self, numbers: range) -> dict:
        if numbers.start % (REQUESTS_OF_A_TRACE * AT_ONCE) == 0:
            self.traces.append(secrets.token_hex(16))
        spans = [raw.span("numbered", {"number": number}, traceId=self.traces[-1]) for number in numbers]
        return raw.traces(raw.resource(self.service), spans)

    def _lines(self, numbers: range) -> dict:
        return raw.logs(raw.resource(self.service), [raw.record(f"number {number}", {}) for number in numbers])

    def _points(self, numbers: range) -> dict:
        given = raw.resource(self.service)
        return raw.metrics(given, [raw.gauge("tests.number", [({}, number) for number in numbers])])

    def stored(self, stores: Stores) -> dict[str, set[int]]:
        """Return the numbers that are in the stores."""
        lines = stores.loki.lines(f'{{service_name="{self.service}"}}', self.begun)
        asked = f'tests_number{{service_name="{self.service}"}}[2h]'
        found = {
            LINES: {int(line.removeprefix("number ")) for _, line in lines},
            POINTS: {int(float(value)) for series in stores.prometheus.raw(asked) for _, value in series["values"]},
        }
        if stores.tempo:
            spans = [span for trace in self.traces for span in stores.tempo.trace(trace)]
            found[SPANS] = {int(span["attributes"][0]["value"]["intValue"]) for span in spans}
        return found

    def newest(self, stores: Stores) -> dict[str, int]:
        """Return the highest number of each kind that can be found in the stores that answer."""
        found: dict[str, int] = {}
        for kind, ask in (
            (LINES, lambda: [int(line[7:]) for _, line in stores.loki.lines(self._lately(), time.time() - 20)]),
            (POINTS, lambda: [int(float(each["value"][1])) for each in stores.prometheus.instant(self._last())]),
            (SPANS, lambda: self._last_spans(stores)),
        ):
            try:
                found[kind] = max(ask(), default=-1)
            except (OSError, AssertionError):
                continue
        return found

    def _lately(self) -> str:
        return f'{{service_name="{self.service}"}}'

    def _last(self) -> str:
        return f'max_over_time(tests_number{{service_name="{self.service}"}}[30s])'

    def _last_spans(self, stores: Stores) -> list[int]:
        if stores.tempo is None:
            raise AssertionError("no Tempo")
        spans = [span for trace in self.traces[-3:] for span in stores.tempo.trace(trace)]
        return [int(span["attributes"][0]["value"]["intValue"]) for span in spans]

    def highest(self, kind: str) -> int:
        """Return the highest number that was acknowledged."""
        return max(self.acknowledged[kind], default=-1)

    def wait_until_stored(self, stores: Stores, within: float) -> dict[str, set[int]]:
        """Wait until all that was acknowledged is stored; return what is still missing then."""
        missing: dict[str, set[int]] = {}

        def none_missing() -> bool:
            found = self.stored(stores)
            missing.update({kind: self.acknowledged[kind] - numbers for kind, numbers in found.items()})
            return not any(missing.values())

        with contextlib.suppress(AssertionError):
            eventually(none_missing, within, "all is stored", 1)
        return missing

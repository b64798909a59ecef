"""What the servers of the stack answer: queries of Prometheus, Loki, Tempo and Alertmanager, over HTTP on loopback."""

from __future__ import annotations

import json
import math
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from typing import Any, TypeVar

Found = TypeVar("Found")
_PATIENCE = 20.0  # s: a server that is being stopped may hang


class RefusedError(AssertionError):
    """A server refused a query: the message is its own."""


def get(url: str, parameters: dict[str, Any] | None = None) -> Any:
    """Return the JSON that a server answers."""
    if parameters:
        url = f"{url}?{urllib.parse.urlencode(parameters, doseq=True)}"
    try:
        with urllib.request.urlopen(url, timeout=_PATIENCE) as answer:
            return json.loads(answer.read())
    except urllib.error.HTTPError as error:
        raise RefusedError(f"{error.code} {error.read().decode(errors='replace')[:500]} for {url}") from None


def eventually(ask: Callable[[], Found], within: float, what: str, every: float = 0.3) -> Found:
    """Return the first answer that is true; fail when none came in time."""
    end = time.monotonic() + within
    while True:
        try:
            found, trouble = ask(), ""
        except (OSError, RefusedError) as error:  # not up yet, or again
            found, trouble = None, f" ({error})"
        if found:
            return found
        if time.monotonic() > end:
            raise AssertionError(f"{what}: not within {within:g} s{trouble}")
        time.sleep(every)


class Prometheus:
    """PromQL."""

    def __init__(self, url: str) -> None:
        self.url = url

    def instant(self, expr: str, at: float | None = None) -> list[dict[str, Any]]:
        """Return the series of a query at one moment, those whose value is no number left out."""
        answer = get(f"{self.url}/api/v1/query", {"query": expr, "time": at or time.time()})["data"]
        if answer["resultType"] == "scalar":
            return [{"metric": {}, "value": answer["result"]}]
        return [series for series in answer["result"] if _finite(series["value"][1])]

    def range(self, expr: str, start: float, end: float, step: float = 5) -> list[dict[str, Any]]:
        """Return the series of a query over a time, values that are no number left out."""
        asked = {"query": expr, "start": start, "end": end, "step": step}
        found = get(f"{self.url}/api/v1/query_range", asked)["data"]["result"]
        for series in found:
            series["values"] = [value for value in series["values"] if _finite(value[1])]
        return [series for series in found if series["values"]]

    def raw(self, selector: str) -> list[dict[str, Any]]:
        """Return the samples of a range selector as they were stored."""
        return get(f"{self.url}/api/v1/query", {"query": selector, "time": time.time() + 1})["data"]["result"]

    def series(self, selector: str, start: float) -> list[dict[str, str]]:
        """Return the label sets of all series since `start`."""
        return get(f"{self.url}/api/v1/series", {"match[]": selector, "start": start, "end": time.time() + 5})["data"]

    def alerts(self) -> list[dict[str, Any]]:
        """Return the alerts that are pending or firing."""
        return get(f"{self.url}/api/v1/alerts")["data"]["alerts"]


def _finite(text: str) -> bool:
    return math.isfinite(float(text))


class Loki:
    """LogQL."""

    def __init__(self, url: str) -> None:
        self.url = url

    def range(self, expr: str, start: float, end: float, step: float = 5, limit: int = 100) -> list[dict[str, Any]]:
        """Return the streams or series of a query over a time."""
        asked = {"query": expr, "start": f"{start:.9f}", "end": f"{end:.9f}", "step": step, "limit": limit}
        return get(f"{self.url}/loki/api/v1/query_range", asked)["data"]["result"]

    def lines(self, expr: str, start: float, end: float | None = None) -> list[tuple[int, str]]:
        """Return time (ns) and text of every line, however many there are."""
        found: list[tuple[int, str]] = []
        begin, until = int(start * 1e9), int((end or time.time() + 5) * 1e9)
        while True:
            asked = {"query": expr, "start": begin, "end": until, "limit": 5000, "direction": "forward"}
            streams = get(f"{self.url}/loki/api/v1/query_range", asked)["data"]["result"]
            page = sorted((int(at), line) for stream in streams for at, line in stream["values"])
            found += page
            if len(page) < 5000:
                return found
            begin = page[-1][0] + 1


class Tempo:
    """TraceQL."""

    def __init__(self, url: str) -> None:
        self.url = url

    def search(self, query: str, start: float, end: float, limit: int = 20) -> list[dict[str, Any]]:
        """Return the traces that a query finds."""
        asked = {"q": query, "start": int(start), "end": math.ceil(end), "limit": limit}
        return get(f"{self.url}/api/search", asked).get("traces") or []

    def trace(self, trace_id: str) -> list[dict[str, Any]]:
        """Return the spans of a trace; empty when it is not there."""
        try:
            found = get(f"{self.url}/api/v2/traces/{trace_id}")
        except RefusedError as error:
            if str(error).startswith("404"):
                return []
            raise
        trace = found.get("trace") or {}
        return [
            span
            for resource in trace.get("resourceSpans") or trace.get("batches") or ()
            for scope in resource["scopeSpans"]
            for span in scope["spans"]
        ]


class Alertmanager:
    """The alerts that Alertmanager has, and in which groups."""

    def __init__(self, url: str) -> None:
        self.url = url

    def alerts(self, **labels: str) -> list[dict[str, Any]]:
        """Return the alerts with these labels, inhibited and silenced ones too."""
        filters = [f'{name}="{value}"' for name, value in labels.items()]
        return get(f"{self.url}/api/v2/alerts", {"filter": filters} if filters else None)

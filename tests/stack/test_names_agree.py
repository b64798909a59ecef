"""What names.py derives and what the real Prometheus stores agree: every metric, name by name, label by label."""

from __future__ import annotations

import time
import urllib.request
from collections.abc import Mapping

import pytest

from stack.asking import Day, Stores
from stack.client import eventually
from watchkeep import names
from watchkeep.export.encode import encode_metrics
from watchkeep.export.model import HistogramPoint, MetricData, NumberPoint, Scope
from watchkeep.resource import resource
from watchkeep.stack.native import Native

SERVICE = "every-name"
GIVEN = "deployment.environment.name=test,service.namespace=names,service.instance.id=one,service.version=1.2"
SENT = resource({"OTEL_SERVICE_NAME": SERVICE, "OTEL_RESOURCE_ATTRIBUTES": GIVEN})
# On every series: those that Prometheus makes of the service, and the promoted ones.
OF_ALL = {
    "job": f"names/{SERVICE}",
    "instance": "one",
    "service_name": SERVICE,
    "service_namespace": "names",
    "service_instance_id": "one",
    "service_version": "1.2",
    "deployment_environment_name": "test",
}
VALUES: dict[str, str | int | bool] = {  # those that are no text
    names.SERVER_PORT: 8443,
    names.HTTP_RESPONSE_STATUS_CODE: 503,
    names.RESILIENCE_POOL_CONNECTION_REUSED: True,
    names.CPYTHON_GC_GENERATION: 2,
}


def labels(metric: names.Metric) -> dict[str, str | int | bool]:
    """Return a value for every label of a metric."""
    return {key: VALUES.get(key, f"some {key.rpartition('.')[2]}") for key in metric.labels}


def sent(metric: names.Metric) -> MetricData:
    """Return a metric with one point, as our exporter has it."""
    now = time.time_ns()
    times = (now - 10**9, now)
    if metric.instrument == "histogram":
        counts = (1,) * (len(metric.buckets) + 1)
        point = HistogramPoint(labels(metric), *times, len(counts), 1.5, counts, metric.buckets)
        return MetricData(metric.name, metric.unit, metric.meaning, "histogram", [point], Scope("watchkeep.names"))
    kind = "gauge" if metric.instrument == "gauge" else "sum"
    number = NumberPoint(labels(metric), *times, 1)
    monotonic = metric.instrument == "counter"
    scope = Scope("watchkeep.names", "1", names.SCHEMA_EXTENSION)
    return MetricData(metric.name, metric.unit, metric.meaning, kind, [number], scope, monotonic)


def as_label(value: str | int | bool) -> str:
    """Return a value as a label shows it."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def derived(metric: names.Metric) -> list[dict[str, str]]:
    """Return the series that names.py promises of a metric."""
    own = {key.replace(".", "_"): as_label(value) for key, value in labels(metric).items()}
    series = {**OF_ALL, **own}
    if metric.instrument != "histogram":
        return [{"__name__": metric.prometheus, **series}]
    bounds = [f"{float(bound)}" for bound in metric.buckets]
    buckets = [{"__name__": f"{metric.prometheus}_bucket", **series, "le": bound} for bound in (*bounds, "+Inf")]
    return [*buckets, *({"__name__": f"{metric.prometheus}_{part}", **series} for part in ("sum", "count"))]


def key(series: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    """Return a series as something that can be compared; numbers as numbers."""
    return tuple(sorted((name, repr(float(text)) if name == "le" else text) for name, text in series.items()))


@pytest.fixture(scope="module")
def stored(stack: Native, stores: Stores) -> dict[str, set[tuple[tuple[str, str], ...]]]:
    """Every series that the real Prometheus has after one stream with every metric, by name."""
    begun = time.time() - 60
    body = encode_metrics([sent(metric) for metric in names.METRICS.values()], SENT)
    request = urllib.request.Request(
        f"{stack.url('collector')}/v1/metrics", body, {"content-type": "application/x-protobuf"}
    )
    with urllib.request.urlopen(request, timeout=10) as answer:
        assert answer.status == 200
    last = list(names.METRICS.values())[-1].prometheus
    selector = f'{{service_name="{SERVICE}"}}'
    eventually(
        lambda: [each for each in stores.prometheus.series(selector, begun) if each["__name__"].startswith(last)],
        20,
        f"{last} is stored",
    )
    time.sleep(1)
    found: dict[str, set[tuple[tuple[str, str], ...]]] = {}
    for each in stores.prometheus.series(selector, begun):
        found.setdefault(each["__name__"], set()).add(key(each))
    return found


@pytest.mark.parametrize("metric", names.METRICS.values(), ids=list(names.METRICS))
def test_the_series_are_those_that_were_derived(
    metric: names.Metric, stored: dict[str, set[tuple[tuple[str, str], ...]]]
) -> None:
    """A metric becomes exactly the series of `Metric.prometheus`, with exactly its labels, values and bounds."""
    expected: dict[str, set[tuple[tuple[str, str], ...]]] = {}
    for series in derived(metric):
        expected.setdefault(series["__name__"], set()).add(key(series))
    assert {name: stored.get(name) for name in expected} == expected


def test_nothing_else_is_stored(stored: dict[str, set[tuple[tuple[str, str], ...]]]) -> None:
    """No metric becomes a series that names.py does not know."""
    expected = {series["__name__"] for metric in names.METRICS.values() for series in derived(metric)}
    assert {name for name in stored if not name.startswith("watchkeep:")} - {"target_info"} == expected


def test_what_the_apps_sent_is_known(day: Day) -> None:
    """Every series of the real apps has a name and labels of the catalogue."""
    known = {series["__name__"]: set(series) for metric in names.METRICS.values() for series in derived(metric)}
    found = [
        each
        for app in day.apps
        for each in day.stores.prometheus.series(f'{{service_name="{app}"}}', day.begun)
        if ":" not in each["__name__"] and each["__name__"] not in ("target_info", "ALERTS", "ALERTS_FOR_STATE")
    ]
    foreign = {"traces_spanmetrics", "traces_service_graph", "traces_target"}
    ours = [each for each in found if not each["__name__"].startswith(tuple(foreign))]
    assert len({each["__name__"] for each in ours}) > 60
    unknown = {each["__name__"] for each in ours} - known.keys()
    assert unknown == set()
    more = {(each["__name__"], *sorted(set(each) - known[each["__name__"]])) for each in ours}
    assert {each for each in more if len(each) > 1} == set()

"""names.py says what the catalogue says: nothing invented, nothing retyped wrongly."""

import pytest

from support.catalogue import CATALOGUE, EXTENSION, OWN_ERROR_TYPES, violations
from watchkeep import names
from watchkeep.export.model import Scope, SpanData

_ATTRIBUTES = {
    value
    for key, value in vars(names).items()
    if key.isupper() and isinstance(value, str) and key == value.replace(".", "_").upper() and "." in value
}


@pytest.mark.parametrize("name", sorted(_ATTRIBUTES))
def test_every_attribute_is_in_the_catalogue(name):
    """An attribute is OpenTelemetry's or our extension's, and not a deprecated one."""
    if name.startswith(("service.", "telemetry.", "process.", "system.", "deployment.", "gen_ai.token.type")):
        return  # resource attributes, and the label of the older profile, live in registries that are not copied
    assert name in CATALOGUE["attributes"]
    assert not CATALOGUE["attributes"][name].get("deprecated")


@pytest.mark.parametrize("name", sorted(names.METRICS))
def test_every_metric_is_the_catalogue_s(name):
    """Instrument, unit, buckets and labels are those of the catalogue."""
    ours, theirs = names.METRICS[name], CATALOGUE["metrics"][name]
    assert ours.instrument == theirs["instrument"]
    assert ours.unit == theirs["unit"]
    assert set(ours.labels) <= set(theirs["attributes"])
    assert {key for key, level in theirs["attributes"].items() if level == "required"} <= set(ours.labels)
    if theirs.get("buckets"):
        assert list(ours.buckets) == theirs["buckets"]


@pytest.mark.parametrize("name", sorted(EXTENSION["metrics"]))
def test_the_prometheus_name_is_derived_right(name):
    """The spelling that dashboards and alerts use follows from name, unit and instrument."""
    assert names.METRICS[name].prometheus == EXTENSION["metrics"][name]["prometheus"]


@pytest.mark.parametrize("key", sorted(names.SPANS))
def test_every_span_is_the_catalogue_s(key):
    """Kind and form of the name are those of the catalogue."""
    ours, theirs = names.SPANS[key], CATALOGUE["spans"][key]
    assert {1: "internal", 2: "server", 3: "client"}[ours.kind] == theirs["kind"]
    form = " ".join([*([ours.prefix] if ours.prefix else []), *(f"{{{part}}}" for part in ours.title)])
    assert form in (theirs.get("name_formats") or [theirs["name_format"]])


@pytest.mark.parametrize("name", sorted(names.EVENTS))
def test_every_event_is_the_catalogue_s(name):
    """The severity is that of the catalogue."""
    assert names.EVENTS[name].severity == CATALOGUE["events"][name]["severity_number"]


def test_the_phases_and_error_types_are_the_catalogue_s():
    """Phases, states and documented error types are the closed sets of the catalogue, and one of ours."""
    phases = EXTENSION["attributes"]["resilience.call.phase"]["enum"]
    assert set(names.PHASES + names.WAITS_BEFORE) == set(phases)
    documented = set(EXTENSION["error_types"]["values"])
    ours = {
        names.CIRCUIT_OPEN, names.POOL_TIMEOUT, names.CONTEXT_LENGTH_EXCEEDED, names.CONNECT_TIMEOUT,
        names.READ_TIMEOUT, names.WRITE_TIMEOUT, names.TOTAL_TIMEOUT, names.DNS_FAILURE, names.TLS_FAILURE,
        names.STREAM_STALLED, names.CANCELLED, names.ERROR_EVENT,
    }  # fmt: skip
    assert ours - documented == OWN_ERROR_TYPES


def test_the_check_itself_finds_what_is_wrong():
    """An invented attribute, a wrong type, a wrong kind and a missing requirement are all named."""
    scope = Scope("watchkeep.pool", "1", "https://example.org")
    wrong = {"resilience.pool.name": 7, "gen_ai.invented": "x"}
    found = violations([SpanData("wait_for_connection 7", 1, 1, 0, 3, 0, 1, wrong, scope)], [], [])
    assert any("gen_ai.invented is not in the catalogue" in line for line in found)
    assert any("resilience.pool.name is int" in line for line in found)
    assert any("kind 3 is not internal" in line for line in found)
    missing = violations([SpanData("wait_for_connection", 1, 1, 0, 1, 0, 1, {}, scope)], [], [])
    assert any("required attribute resilience.pool.name is missing" in line for line in missing)

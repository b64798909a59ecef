"""PromQL from the catalogue of names: a metric or label that is not in watchkeep.names cannot be written by mistake."""

from __future__ import annotations

from watchkeep.names import (
    DEPLOYMENT_ENVIRONMENT_NAME,
    ERROR_TYPE,
    GEN_AI_REQUEST_MODEL,
    SERVICE_NAME,
    Metric,
)

INSTANCE = "instance"  # Prometheus' own label: the service's instance id


def label(key: str) -> str:
    """Return an attribute's name as a label."""
    return key.replace(".", "_")


def legend(*keys: str) -> str:
    """Return a legend made of these labels."""
    return " · ".join("{{" + label(key) + "}}" for key in keys)


# -- matchers ----------------------------------------------------------------------------------------------


def equal(key: str, value: str) -> str:
    """Match one value; "" is a label that is not there."""
    return f'{label(key)}="{value}"'


def unequal(key: str, value: str) -> str:
    """Match all but one value."""
    return f'{label(key)}!="{value}"'


def among(key: str, *values: str) -> str:
    """Match any of these values."""
    return f'{label(key)}=~"{"|".join(values)}"'


FAILED = unequal(ERROR_TYPE, "")
SUCCEEDED = equal(ERROR_TYPE, "")
CHOSEN = (
    f'{label(DEPLOYMENT_ENVIRONMENT_NAME)}=~"$environment"',
    f'{label(SERVICE_NAME)}=~"$service"',
    f'{INSTANCE}=~"$instance"',
)
"""What the variables at the top of a dashboard choose."""


# -- expressions -------------------------------------------------------------------------------------------


def series(metric: Metric, *where: str, part: str = "") -> str:
    """Return a selector: what the variables choose, and more matchers. `part`: bucket, sum or count of a histogram."""
    chosen = [*CHOSEN, *where]
    if GEN_AI_REQUEST_MODEL in metric.labels:
        chosen.append(f'{label(GEN_AI_REQUEST_MODEL)}=~"$model"')
    return f"{metric.prometheus}{f'_{part}' if part else ''}{{{', '.join(chosen)}}}"


def total(operator: str, by: tuple[str, ...], expr: str) -> str:
    """Return an aggregation by attributes; none: over everything."""
    return f"{operator} by ({', '.join(map(label, by))}) ({expr})" if by else f"{operator}({expr})"


def rate(metric: Metric, *by: str, where: tuple[str, ...] = (), part: str = "") -> str:
    """Return how much a counter grows per second."""
    return total("sum", by, f"rate({series(metric, *where, part=part)}[$__rate_interval])")


def increase(metric: Metric, *by: str, where: tuple[str, ...] = (), part: str = "") -> str:
    """Return how much a counter grew in the time shown."""
    return total("sum", by, f"increase({series(metric, *where, part=part)}[$__range])")


def per_interval(metric: Metric, *by: str, where: tuple[str, ...] = (), part: str = "") -> str:
    """Return how much a counter grew in each step: for rare things, which a rate per second hides."""
    return total("sum", by, f"increase({series(metric, *where, part=part)}[$__rate_interval])")


def quantile(
    share: float, metric: Metric, *by: str, where: tuple[str, ...] = (), over: str = "$__rate_interval"
) -> str:
    """Return a quantile of a histogram (classic buckets)."""
    buckets = f"rate({series(metric, *where, part='bucket')}[{over}])"
    return f"histogram_quantile({share}, {total('sum', ('le', *by), buckets)})"


def level(metric: Metric, *by: str, where: tuple[str, ...] = (), operator: str = "sum") -> str:
    """Return what a gauge shows now, summed over instances."""
    return total(operator, by, series(metric, *where))


def share(part: str, whole: str) -> str:
    """Return part / whole; 0 where there is a whole and no part, nothing where there is no whole."""
    return f"({part} or 0 * {whole}) / ({whole} > 0)"


def mean(metric: Metric, *by: str, where: tuple[str, ...] = ()) -> str:
    """Return the mean of a histogram."""
    amount, number = (rate(metric, *by, where=where, part=part) for part in ("sum", "count"))
    return f"{amount} / ({number} > 0)"

"""The names that the bundled servers give their own metrics and labels; all others are in watchkeep.names.

The collector sends its telemetry by OTLP, so that Prometheus adds a type's and a unit's suffix to its names.
"""

from __future__ import annotations

# Prometheus
ALERTS = "ALERTS"
SCRAPE_UP = "up"
PROMETHEUS_RULE_FAILURES = "prometheus_rule_evaluation_failures_total"
PROMETHEUS_HEAD_SERIES = "prometheus_tsdb_head_series"
PROMETHEUS_SAMPLES_APPENDED = "prometheus_tsdb_head_samples_appended_total"
PROMETHEUS_TOO_OLD = "prometheus_tsdb_too_old_samples_total"
PROMETHEUS_NOTIFICATIONS_ERRORS = "prometheus_notifications_errors_total"
PROMETHEUS_NOTIFICATIONS_DROPPED = "prometheus_notifications_dropped_total"

# Alertmanager
ALERTMANAGER_INTEGRATIONS = "alertmanager_integrations"
ALERTMANAGER_ALERTS = "alertmanager_alerts"
ALERTMANAGER_NOTIFICATIONS = "alertmanager_notifications_total"
ALERTMANAGER_NOTIFICATIONS_FAILED = "alertmanager_notifications_failed_total"

# The collector
OTELCOL_ACCEPTED = {
    "spans": "otelcol_receiver_accepted_spans_total",
    "metric points": "otelcol_receiver_accepted_metric_points_total",
    "log records": "otelcol_receiver_accepted_log_records_total",
}
OTELCOL_REFUSED = {
    "spans": "otelcol_receiver_refused_spans_total",
    "metric points": "otelcol_receiver_refused_metric_points_total",
    "log records": "otelcol_receiver_refused_log_records_total",
}
OTELCOL_SENT = {
    "spans": "otelcol_exporter_sent_spans_total",
    "metric points": "otelcol_exporter_sent_metric_points_total",
    "log records": "otelcol_exporter_sent_log_records_total",
}
OTELCOL_SEND_FAILED = {
    "spans": "otelcol_exporter_send_failed_spans_total",
    "metric points": "otelcol_exporter_send_failed_metric_points_total",
    "log records": "otelcol_exporter_send_failed_log_records_total",
}
OTELCOL_ENQUEUE_FAILED = {
    "spans": "otelcol_exporter_enqueue_failed_spans_total",
    "metric points": "otelcol_exporter_enqueue_failed_metric_points_total",
    "log records": "otelcol_exporter_enqueue_failed_log_records_total",
}
OTELCOL_QUEUE_SIZE = "otelcol_exporter_queue_size"
OTELCOL_QUEUE_CAPACITY = "otelcol_exporter_queue_capacity"
OTELCOL_MEMORY = "otelcol_process_memory_rss_bytes"
OTELCOL_UPTIME = "otelcol_process_uptime_seconds_total"

# Loki
LOKI_LINES = "loki_distributor_lines_received_total"
LOKI_DISCARDED = "loki_discarded_samples_total"

# Tempo
TEMPO_DISCARDED = "tempo_discarded_spans_total"


def _names() -> frozenset[str]:
    found: set[str] = set()
    for value in list(globals().values()):
        if isinstance(value, str):
            found.add(value)
        elif isinstance(value, dict):
            found.update(each for each in value.values() if isinstance(each, str))
    return frozenset(name for name in found if name.startswith(_PREFIXES))


_PREFIXES = ("ALERTS", "up", "prometheus_", "alertmanager_", "otelcol_", "loki_", "tempo_")
METRICS = _names()
"""Every metric that is the servers' own."""

LABELS = frozenset(
    (
        *("alertname", "alertstate", "severity", "service_name", "deployment_environment_name"),  # of ALERTS
        *("job", "instance", "rule_group", "integration", "reason", "state"),
        *("receiver", "exporter", "data_type", "transport"),  # the collector's
    )
)
"""Every label that is the servers' own."""

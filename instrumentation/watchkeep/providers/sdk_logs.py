"""The SDK's log records, handed to our pipeline: from a provider of ours, or read along in the app's."""

from __future__ import annotations

from typing import Any

from opentelemetry.sdk._logs import LoggerProvider, LogRecordProcessor, ReadableLogRecord, ReadWriteLogRecord
from opentelemetry.sdk.resources import Resource

from watchkeep import context, guard, names, runtime
from watchkeep.emit import OURS
from watchkeep.export.sanitise import clean_log
from watchkeep.export.sdk import log_data


class Logs(LogRecordProcessor):
    """Takes each record as it is now; later processors and the app may still change it."""

    def on_emit(self, log_record: ReadWriteLogRecord) -> None:
        """Take one record."""

    def shutdown(self) -> None:
        """Do nothing: the pipeline has its own end."""

    def force_flush(self, timeout_millis: int = 30000) -> bool:  # noqa: ARG002 - the SDK's signature
        """Do nothing: what was taken is in the pipeline already."""
        return True


class OwnLogs(Logs):
    """Puts correlation on the records that others make with our provider."""

    @guard.guarded
    def on_emit(self, log_record: ReadWriteLogRecord) -> None:
        """Take one record."""
        if context.line_taken.get():
            return
        made = clean_log(log_data(_readable(log_record)))
        made.resource = None
        made.attributes.setdefault(names.AGENT_RUNTIME_CORRELATION_ID, context.correlation_id())
        for key, value in context.entity_attributes().items():
            made.attributes.setdefault(key, value)
        runtime.emitter().put(made)


class JoinedLogs(Logs):
    """Reads along in the app's provider; our own events we send ourselves."""

    def __init__(self, overlap: Any) -> None:
        self.overlap = overlap

    @guard.guarded
    def on_emit(self, log_record: ReadWriteLogRecord) -> None:
        """Take one record."""
        scope = log_record.instrumentation_scope
        ours = scope is not None and scope.name.startswith(OURS)
        if not ours and not context.line_taken.get() and not self.overlap():
            runtime.emitter().put(clean_log(log_data(_readable(log_record))))


def _readable(record: ReadWriteLogRecord) -> ReadableLogRecord:
    return ReadableLogRecord(
        log_record=record.log_record,
        resource=record.resource or Resource.get_empty(),
        instrumentation_scope=record.instrumentation_scope,
        limits=record.limits,
    )


def make(resource: Resource) -> LoggerProvider:
    """Return a provider whose records go through our pipeline."""
    provider = LoggerProvider(resource=resource, shutdown_on_exit=False)
    provider.add_log_record_processor(OwnLogs())
    return provider

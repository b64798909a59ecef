"""An app with a LoggerProvider of its own, as its environment says; it does not know watchkeep.

`PROVIDER`: where its exporter sends (empty: it sets none); `HANDLER`: it hands its lines to OpenTelemetry itself;
`CODE`: it calls watchkeep.instrument().
"""

from __future__ import annotations

import logging
import os
import warnings

warnings.simplefilter("ignore")

if os.environ.get("CODE"):
    import watchkeep

    watchkeep.instrument()

if endpoint := os.environ.get("PROVIDER"):
    from opentelemetry._logs import set_logger_provider
    from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter
    from opentelemetry.sdk._logs import LoggerProvider
    from opentelemetry.sdk._logs.export import BatchLogRecordProcessor

    provider = LoggerProvider()
    provider.add_log_record_processor(BatchLogRecordProcessor(OTLPLogExporter(endpoint=f"{endpoint}/v1/logs")))
    set_logger_provider(provider)

logging.basicConfig(level="INFO")
if os.environ.get("HANDLER"):
    from opentelemetry.sdk._logs import LoggingHandler

    logging.getLogger().addHandler(LoggingHandler())

log = logging.getLogger("app.work")
log.info("one %d", 1)
quiet = logging.getLogger("app.quiet")
quiet.propagate = False
quiet.addHandler(logging.NullHandler())
quiet.warning("two")

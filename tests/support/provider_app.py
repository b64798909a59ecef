"""An app with OpenTelemetry of its own, as its environment says; it does not know watchkeep.

`WHEN`: import (before openai), main (after openai), between (after its first call) or never; `SIGNALS`: which
providers it sets; `OWN`: where its own exporters send; `CALLS`: how often it asks the model; `HTTPX`: it
instruments httpx itself; `GENAI`: it instruments openai itself; `ORDINARY`: a URL that it reads, too;
`EXPORTER`: `late` adds the span exporter after the provider was set; `SHUTDOWN`: it shuts its providers down itself.
"""

from __future__ import annotations

import logging
import os

from opentelemetry import _logs, metrics, trace

WHEN = os.environ.get("WHEN", "never")
SIGNALS = os.environ.get("SIGNALS", "traces,metrics,logs").split(",")
OWN = os.environ.get("OWN", "")
LATE = os.environ.get("EXPORTER") == "late"

# As libraries do it: a tracer and a meter at import, whoever provides them later.
tracer = trace.get_tracer("app", "1")
requests = metrics.get_meter("app", "1").create_counter("app.requests", "{request}", "what the app counts")
events = _logs.get_logger("app", "1")


def set_providers() -> None:
    """Set the app's own providers, each with its exporter."""
    from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter
    from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk._logs import LoggerProvider
    from opentelemetry.sdk._logs.export import BatchLogRecordProcessor
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    resource = Resource.create({"service.name": "the-app"})
    if "traces" in SIGNALS:
        provider = TracerProvider(resource=resource)
        processor = BatchSpanProcessor(OTLPSpanExporter(endpoint=f"{OWN}/v1/traces"))
        if not LATE:
            provider.add_span_processor(processor)
        trace.set_tracer_provider(provider)
        if LATE:
            provider.add_span_processor(processor)
    if "metrics" in SIGNALS:
        reader = PeriodicExportingMetricReader(OTLPMetricExporter(endpoint=f"{OWN}/v1/metrics"))
        metrics.set_meter_provider(MeterProvider([reader], resource=resource))
    if "logs" in SIGNALS:
        logs = LoggerProvider(resource=resource)
        logs.add_log_record_processor(BatchLogRecordProcessor(OTLPLogExporter(endpoint=f"{OWN}/v1/logs")))
        _logs.set_logger_provider(logs)


if WHEN == "import":
    set_providers()

import openai  # noqa: E402

if os.environ.get("CODE"):
    import watchkeep

    watchkeep.instrument()


def ask(client: openai.OpenAI) -> None:
    """Make one unit of work: a span of the app's own, a call, a count, an event."""
    with tracer.start_as_current_span("work"):
        client.chat.completions.create(model="gpt-4o", messages=[{"role": "user", "content": "hi"}])
        requests.add(1, {"kind": "chat"})
        events.emit(_logs.LogRecord(timestamp=1, body="done", event_name="app.done"))


def main() -> None:
    """Work."""
    if WHEN == "main":
        set_providers()
    if os.environ.get("HTTPX"):
        from opentelemetry.instrumentation.httpx import HTTPX2ClientInstrumentor, HTTPXClientInstrumentor

        HTTPXClientInstrumentor().instrument()
        HTTPX2ClientInstrumentor().instrument()
    if os.environ.get("GENAI"):
        from opentelemetry.instrumentation.genai.openai import OpenAIInstrumentor

        OpenAIInstrumentor().instrument()
    client = openai.OpenAI(base_url=os.environ["LLM"], api_key="sk-test")
    for number in range(int(os.environ.get("CALLS", "1"))):
        if number == 1 and WHEN == "between":
            set_providers()
        ask(client)
    if url := os.environ.get("ORDINARY"):
        import httpx

        with httpx.Client() as ordinary:
            ordinary.get(url)
    if os.environ.get("SHUTDOWN"):
        for provider in (trace.get_tracer_provider(), metrics.get_meter_provider(), _logs.get_logger_provider()):
            provider.shutdown()  # type: ignore[attr-defined]
    logging.getLogger("app").debug("the end")


if __name__ == "__main__":
    main()

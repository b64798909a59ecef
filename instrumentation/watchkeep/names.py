"""The catalogue: every span, attribute, metric, event, unit and bucket that Watchkeep emits, once.

Standard OpenTelemetry names wherever one exists; extensions only under ``resilience.``,
``python.executor.``, ``agent_runtime.`` and ``watchkeep.``. A constant is its name in capitals, dots
as underscores; metrics carry the prefix ``METRIC_``, events ``EVENT_``. Dashboards import this module;
alerts, docs and expect files are checked against it. At the end: spans, events, documented error types.
"""

from __future__ import annotations

from typing import Any, NamedTuple

INTERNAL, SERVER, CLIENT = 1, 2, 3  # OTLP's span kinds

SCHEMA_CORE = "https://opentelemetry.io/schemas/1.44.0"
SCHEMA_GEN_AI = "https://opentelemetry.io/schemas/gen-ai-dev/1.42.0-dev"
SCHEMA_EXTENSION = "https://watchkeep.invalid/schemas/0.1.0"  # not published; the name is reserved by RFC 2606


class Metric(NamedTuple):
    """One metric: its labels are the attribute keys a series may carry, in the order of its key."""

    name: str
    instrument: str  # counter, updowncounter, gauge, histogram
    unit: str
    buckets: tuple[float, ...]
    meaning: str
    labels: tuple[str, ...]

    @property
    def prometheus(self) -> str:
        """The name in Prometheus (translation UnderscoreEscapingWithSuffixes), without _bucket, _sum, _count."""
        suffix = {"s": "_seconds", "By": "_bytes"}.get(self.unit, "")
        if self.instrument == "gauge" and self.unit == "1":
            suffix = "_ratio"
        total = "_total" if self.instrument == "counter" else ""
        return self.name.replace(".", "_") + suffix + total


class Span(NamedTuple):
    """One span: its name is `prefix` and the values of `title` keys, as far as they are known."""

    key: str
    kind: int
    prefix: str
    title: tuple[str, ...]

    def name(self, attributes: dict[str, Any]) -> str:
        """Build the span's name from its attributes."""
        parts = [self.prefix] if self.prefix else []
        for key in self.title:
            value = attributes.get(key)
            if value:
                parts.append(str(value))
        return " ".join(parts)


class Event(NamedTuple):
    """One event: a log record with this EventName and severity number."""

    name: str
    severity: int


def _counter(name: str, unit: str, meaning: str, *labels: str) -> Metric:
    return Metric(name, "counter", unit, (), meaning, labels)


def _updowncounter(name: str, unit: str, meaning: str, *labels: str) -> Metric:
    return Metric(name, "updowncounter", unit, (), meaning, labels)


def _gauge(name: str, unit: str, meaning: str, *labels: str) -> Metric:
    return Metric(name, "gauge", unit, (), meaning, labels)


def _histogram(name: str, unit: str, buckets: tuple[float, ...], meaning: str, *labels: str) -> Metric:
    return Metric(name, "histogram", unit, buckets, meaning, labels)


# --- attributes -------------------------------------------------------------------------------------

# GenAI and OpenAI.
GEN_AI_AGENT_DESCRIPTION = "gen_ai.agent.description"
GEN_AI_AGENT_NAME = "gen_ai.agent.name"
GEN_AI_CONVERSATION_ID = "gen_ai.conversation.id"
GEN_AI_EMBEDDINGS_DIMENSION_COUNT = "gen_ai.embeddings.dimension.count"
GEN_AI_INPUT_MESSAGES = "gen_ai.input.messages"
GEN_AI_OPERATION_NAME = "gen_ai.operation.name"
GEN_AI_OUTPUT_MESSAGES = "gen_ai.output.messages"
GEN_AI_OUTPUT_TYPE = "gen_ai.output.type"
GEN_AI_PROVIDER_NAME = "gen_ai.provider.name"
GEN_AI_REQUEST_CHOICE_COUNT = "gen_ai.request.choice.count"
GEN_AI_REQUEST_ENCODING_FORMATS = "gen_ai.request.encoding_formats"
GEN_AI_REQUEST_FREQUENCY_PENALTY = "gen_ai.request.frequency_penalty"
GEN_AI_REQUEST_MAX_TOKENS = "gen_ai.request.max_tokens"
GEN_AI_REQUEST_MODEL = "gen_ai.request.model"
GEN_AI_REQUEST_PRESENCE_PENALTY = "gen_ai.request.presence_penalty"
GEN_AI_REQUEST_PREVIOUS_RESPONSE_ID = "gen_ai.request.previous_response.id"
GEN_AI_REQUEST_REASONING_LEVEL = "gen_ai.request.reasoning.level"
GEN_AI_REQUEST_SEED = "gen_ai.request.seed"
GEN_AI_REQUEST_STOP_SEQUENCES = "gen_ai.request.stop_sequences"
GEN_AI_REQUEST_STREAM = "gen_ai.request.stream"
GEN_AI_REQUEST_TEMPERATURE = "gen_ai.request.temperature"
GEN_AI_REQUEST_TOP_P = "gen_ai.request.top_p"
GEN_AI_RESPONSE_FINISH_REASONS = "gen_ai.response.finish_reasons"
GEN_AI_RESPONSE_ID = "gen_ai.response.id"
GEN_AI_RESPONSE_MODEL = "gen_ai.response.model"
GEN_AI_RESPONSE_STATUS = "gen_ai.response.status"
GEN_AI_RESPONSE_TIME_TO_FIRST_CHUNK = "gen_ai.response.time_to_first_chunk"
GEN_AI_SYSTEM_INSTRUCTIONS = "gen_ai.system_instructions"
GEN_AI_TOKEN_MODALITY = "gen_ai.token.modality"
GEN_AI_TOKEN_TYPE = "gen_ai.token.type"
GEN_AI_TOOL_CALL_ARGUMENTS = "gen_ai.tool.call.arguments"
GEN_AI_TOOL_CALL_ID = "gen_ai.tool.call.id"
GEN_AI_TOOL_CALL_RESULT = "gen_ai.tool.call.result"
GEN_AI_TOOL_DEFINITIONS = "gen_ai.tool.definitions"
GEN_AI_TOOL_DESCRIPTION = "gen_ai.tool.description"
GEN_AI_TOOL_NAME = "gen_ai.tool.name"
GEN_AI_TOOL_TYPE = "gen_ai.tool.type"
GEN_AI_USAGE_CACHE_READ_INPUT_TOKENS = "gen_ai.usage.cache_read.input_tokens"
GEN_AI_USAGE_CACHE_WRITE_INPUT_TOKENS = "gen_ai.usage.cache_write.input_tokens"
GEN_AI_USAGE_INPUT_TOKENS = "gen_ai.usage.input_tokens"
GEN_AI_USAGE_OUTPUT_TOKENS = "gen_ai.usage.output_tokens"
GEN_AI_USAGE_REASONING_OUTPUT_TOKENS = "gen_ai.usage.reasoning.output_tokens"
GEN_AI_WORKFLOW_NAME = "gen_ai.workflow.name"
OPENAI_API_TYPE = "openai.api.type"
OPENAI_REQUEST_SERVICE_TIER = "openai.request.service_tier"
OPENAI_RESPONSE_SERVICE_TIER = "openai.response.service_tier"
OPENAI_RESPONSE_SYSTEM_FINGERPRINT = "openai.response.system_fingerprint"

# HTTP, network and errors.
ERROR_TYPE = "error.type"
EXCEPTION_MESSAGE = "exception.message"
EXCEPTION_STACKTRACE = "exception.stacktrace"
EXCEPTION_TYPE = "exception.type"
HTTP_CONNECTION_STATE = "http.connection.state"
HTTP_REQUEST_METHOD = "http.request.method"
HTTP_REQUEST_RESEND_COUNT = "http.request.resend_count"
HTTP_RESPONSE_STATUS_CODE = "http.response.status_code"
NETWORK_PROTOCOL_NAME = "network.protocol.name"
NETWORK_PROTOCOL_VERSION = "network.protocol.version"
SERVER_ADDRESS = "server.address"
SERVER_PORT = "server.port"
URL_FULL = "url.full"

# Identity, code and process.
CODE_FILE_PATH = "code.file.path"
CODE_FUNCTION_NAME = "code.function.name"
CODE_LINE_NUMBER = "code.line.number"
CPU_MODE = "cpu.mode"
CPYTHON_GC_GENERATION = "cpython.gc.generation"
DEPLOYMENT_ENVIRONMENT_NAME = "deployment.environment.name"
OTEL_COMPONENT_NAME = "otel.component.name"
OTEL_COMPONENT_TYPE = "otel.component.type"
PROCESS_CONTEXT_SWITCH_TYPE = "process.context_switch.type"
PROCESS_PID = "process.pid"
PROCESS_RUNTIME_NAME = "process.runtime.name"
PROCESS_RUNTIME_VERSION = "process.runtime.version"
SERVICE_INSTANCE_ID = "service.instance.id"
SERVICE_NAME = "service.name"
SERVICE_NAMESPACE = "service.namespace"
SERVICE_VERSION = "service.version"
SESSION_ID = "session.id"
SYSTEM_PAGING_FAULT_TYPE = "system.paging.fault.type"
TELEMETRY_DISTRO_NAME = "telemetry.distro.name"
TELEMETRY_DISTRO_VERSION = "telemetry.distro.version"
TELEMETRY_SDK_LANGUAGE = "telemetry.sdk.language"
TELEMETRY_SDK_NAME = "telemetry.sdk.name"
TELEMETRY_SDK_VERSION = "telemetry.sdk.version"
THREAD_ID = "thread.id"
THREAD_NAME = "thread.name"
USER_ID = "user.id"

# Extension: resilience, executors, agent runtime, our own health.
AGENT_RUNTIME_BATCH_MODE = "agent_runtime.batch.mode"
AGENT_RUNTIME_BATCH_NAME = "agent_runtime.batch.name"
AGENT_RUNTIME_BATCH_SIZE = "agent_runtime.batch.size"
AGENT_RUNTIME_CHECKPOINT_OPERATION = "agent_runtime.checkpoint.operation"
AGENT_RUNTIME_CONTEXT_ORIGINAL_TOKENS = "agent_runtime.context.original.tokens"
AGENT_RUNTIME_CONTEXT_TRUNCATED_TOKENS = "agent_runtime.context.truncated.tokens"
AGENT_RUNTIME_CONTEXT_TRUNCATION_STRATEGY = "agent_runtime.context.truncation.strategy"
AGENT_RUNTIME_CORRELATION_ID = "agent_runtime.correlation.id"
AGENT_RUNTIME_COST_AMOUNT = "agent_runtime.cost.amount"
AGENT_RUNTIME_COST_CURRENCY = "agent_runtime.cost.currency"
AGENT_RUNTIME_COST_SOURCE = "agent_runtime.cost.source"
AGENT_RUNTIME_EXECUTION_PATH = "agent_runtime.execution.path"
AGENT_RUNTIME_STEP_INDEX = "agent_runtime.step.index"
AGENT_RUNTIME_STEP_NAME = "agent_runtime.step.name"
AGENT_RUNTIME_STEP_RESULT = "agent_runtime.step.result"
AGENT_RUNTIME_STEP_TOTAL = "agent_runtime.step.total"
AGENT_RUNTIME_STREAM_GAP_MAX = "agent_runtime.stream.gap.max"
AGENT_RUNTIME_STREAM_GAP_MEAN = "agent_runtime.stream.gap.mean"
AGENT_RUNTIME_STREAM_OUTCOME = "agent_runtime.stream.outcome"
AGENT_RUNTIME_TASK_ID = "agent_runtime.task.id"
AGENT_RUNTIME_TASK_NAME = "agent_runtime.task.name"
AGENT_RUNTIME_WORKFLOW_RUN_ID = "agent_runtime.workflow.run.id"
PYTHON_EXECUTOR_NAME = "python.executor.name"
PYTHON_EXECUTOR_THREAD_STATE = "python.executor.thread.state"
PYTHON_EXECUTOR_TYPE = "python.executor.type"
RESILIENCE_CACHE_EVICTION_REASON = "resilience.cache.eviction.reason"
RESILIENCE_CACHE_NAME = "resilience.cache.name"
RESILIENCE_CACHE_OPERATION = "resilience.cache.operation"
RESILIENCE_CACHE_RESULT = "resilience.cache.result"
RESILIENCE_CALL_PARTIAL = "resilience.call.partial"
RESILIENCE_CALL_PHASE = "resilience.call.phase"
RESILIENCE_CALL_TIME = "resilience.call.time"
RESILIENCE_CIRCUIT_BREAKER_FAILURE_COUNT = "resilience.circuit_breaker.failure.count"
RESILIENCE_CIRCUIT_BREAKER_NAME = "resilience.circuit_breaker.name"
RESILIENCE_CIRCUIT_BREAKER_OUTCOME = "resilience.circuit_breaker.outcome"
RESILIENCE_CIRCUIT_BREAKER_PREVIOUS_STATE = "resilience.circuit_breaker.previous_state"
RESILIENCE_CIRCUIT_BREAKER_STATE = "resilience.circuit_breaker.state"
RESILIENCE_FALLBACK_ACTION = "resilience.fallback.action"
RESILIENCE_FALLBACK_RESULT = "resilience.fallback.result"
RESILIENCE_FAULT_ORIGIN = "resilience.fault.origin"
RESILIENCE_LIMITER_NAME = "resilience.limiter.name"
RESILIENCE_LIMITER_RESULT = "resilience.limiter.result"
RESILIENCE_LIMITER_TYPE = "resilience.limiter.type"
RESILIENCE_POLICY_NAME = "resilience.policy.name"
RESILIENCE_POOL_CONNECTION_HEALTH = "resilience.pool.connection.health"
RESILIENCE_POOL_CONNECTION_REUSED = "resilience.pool.connection.reused"
RESILIENCE_POOL_CONNECTION_STATE = "resilience.pool.connection.state"
RESILIENCE_POOL_EVICTION_REASON = "resilience.pool.eviction.reason"
RESILIENCE_POOL_NAME = "resilience.pool.name"
RESILIENCE_POOL_REQUEST_OUTCOME = "resilience.pool.request.outcome"
RESILIENCE_RATE_LIMIT_RESOURCE = "resilience.rate_limit.resource"
RESILIENCE_RETRY_ATTEMPT = "resilience.retry.attempt"
RESILIENCE_RETRY_DELAY = "resilience.retry.delay"
RESILIENCE_RETRY_MAX_ATTEMPTS = "resilience.retry.max_attempts"
RESILIENCE_RETRY_RESULT = "resilience.retry.result"
WATCHKEEP_INTEGRATION_NAME = "watchkeep.integration.name"
WATCHKEEP_INTEGRATION_STATE = "watchkeep.integration.state"

# Labels that every GenAI client metric carries.
GEN_AI_LABELS = (
    GEN_AI_OPERATION_NAME,
    GEN_AI_PROVIDER_NAME,
    GEN_AI_REQUEST_MODEL,
    GEN_AI_RESPONSE_MODEL,
    SERVER_ADDRESS,
    SERVER_PORT,
)

# --- buckets ----------------------------------------------------------------------------------------

AGENT_SECONDS = (0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 25.6, 51.2, 102.4, 204.8, 409.6)
ATTEMPTS = (1, 2, 3, 4, 5, 10)
CACHE_SECONDS = (0.0001, 0.0005, 0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1)
CALLS_PER_RUN = (1, 2, 4, 8, 16, 32, 64, 128)
CONNECTION_SECONDS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60, 120, 300)
COST = (0.0001, 0.0005, 0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5)
CREATE_SECONDS = (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5, 10)
DELAY_SECONDS = (0.1, 0.25, 0.5, 1, 2, 4, 8, 16, 32, 60, 90)
HTTP_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10)
LLM_SECONDS = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92)
OPEN_SECONDS = (1, 5, 10, 30, 60, 120, 300, 600, 1800, 3600)
TOKENS = (1, 4, 16, 64, 256, 1024, 4096, 16384, 65536, 262144, 1048576, 4194304, 16777216, 67108864)
UTILIZATION = (0.1, 0.25, 0.5, 0.75, 0.9, 1.0)
WAIT_SECONDS = (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5, 10, 30, 60)
WORKFLOW_SECONDS = (1, 5, 10, 30, 60, 120, 300, 600, 1800, 3600, 7200)

# --- metrics ----------------------------------------------------------------------------------------

# GenAI: semconv/gen_ai.json (profile `latest`).
METRIC_GEN_AI_CLIENT_INFERENCE_DURATION = _histogram(
    "gen_ai.client.inference.duration",
    "s",
    LLM_SECONDS,
    "Duration of one inference call, retries of the SDK included.",
    *GEN_AI_LABELS,
    ERROR_TYPE,
)
METRIC_GEN_AI_CLIENT_INFERENCE_OPERATION_INPUT_TOKENS = _histogram(
    "gen_ai.client.inference.operation.input_tokens",
    "{token}",
    TOKENS,
    "Input tokens of one call; for percentiles, never for totals.",
    *GEN_AI_LABELS,
)
METRIC_GEN_AI_CLIENT_INFERENCE_OPERATION_OUTPUT_TOKENS = _histogram(
    "gen_ai.client.inference.operation.output_tokens",
    "{token}",
    TOKENS,
    "Output tokens of one call; for percentiles, never for totals.",
    *GEN_AI_LABELS,
)
METRIC_GEN_AI_CLIENT_INFERENCE_TIME_PER_OUTPUT_CHUNK = _histogram(
    "gen_ai.client.inference.time_per_output_chunk",
    "s",
    LLM_SECONDS,
    "Time between two chunks of a stream (only with chunk_metrics=all).",
    *GEN_AI_LABELS,
)
METRIC_GEN_AI_CLIENT_INFERENCE_TIME_TO_FIRST_CHUNK = _histogram(
    "gen_ai.client.inference.time_to_first_chunk",
    "s",
    LLM_SECONDS,
    "Time from the call to the first chunk of its stream.",
    *GEN_AI_LABELS,
)
METRIC_GEN_AI_CLIENT_INFERENCE_USAGE_CACHE_READ_INPUT_TOKENS = _counter(
    "gen_ai.client.inference.usage.cache_read.input_tokens",
    "{token}",
    "Input tokens the provider read from its cache; a part of the input tokens.",
    *GEN_AI_LABELS,
    GEN_AI_TOKEN_MODALITY,
)
METRIC_GEN_AI_CLIENT_INFERENCE_USAGE_CACHE_WRITE_INPUT_TOKENS = _counter(
    "gen_ai.client.inference.usage.cache_write.input_tokens",
    "{token}",
    "Input tokens the provider wrote to its cache; a part of the input tokens.",
    *GEN_AI_LABELS,
    GEN_AI_TOKEN_MODALITY,
)
METRIC_GEN_AI_CLIENT_INFERENCE_USAGE_INPUT_TOKENS = _counter(
    "gen_ai.client.inference.usage.input_tokens",
    "{token}",
    "Input tokens used.",
    *GEN_AI_LABELS,
    GEN_AI_TOKEN_MODALITY,
)
METRIC_GEN_AI_CLIENT_INFERENCE_USAGE_OUTPUT_TOKENS = _counter(
    "gen_ai.client.inference.usage.output_tokens",
    "{token}",
    "Output tokens used.",
    *GEN_AI_LABELS,
    GEN_AI_TOKEN_MODALITY,
)
METRIC_GEN_AI_CLIENT_INFERENCE_USAGE_REASONING_OUTPUT_TOKENS = _counter(
    "gen_ai.client.inference.usage.reasoning.output_tokens",
    "{token}",
    "Output tokens used for reasoning; a part of the output tokens.",
    *GEN_AI_LABELS,
    GEN_AI_TOKEN_MODALITY,
)
METRIC_GEN_AI_CLIENT_OPERATION_DURATION = _histogram(
    "gen_ai.client.operation.duration",
    "s",
    LLM_SECONDS,
    "Duration of one GenAI operation that is not inference (embeddings and others).",
    *GEN_AI_LABELS,
    ERROR_TYPE,
)
METRIC_GEN_AI_EXECUTE_TOOL_DURATION = _histogram(
    "gen_ai.execute_tool.duration",
    "s",
    LLM_SECONDS,
    "Duration of one tool execution.",
    ERROR_TYPE,
    GEN_AI_TOOL_NAME,
    GEN_AI_TOOL_TYPE,
    GEN_AI_AGENT_NAME,
)
METRIC_GEN_AI_INVOKE_AGENT_DURATION = _histogram(
    "gen_ai.invoke_agent.duration",
    "s",
    AGENT_SECONDS,
    "Duration of one agent invocation.",
    ERROR_TYPE,
    GEN_AI_AGENT_NAME,
    GEN_AI_REQUEST_MODEL,
)
METRIC_GEN_AI_INVOKE_AGENT_INFERENCE_CALLS = _histogram(
    "gen_ai.invoke_agent.inference_calls",
    "{inference_call}",
    CALLS_PER_RUN,
    "Inference calls of one agent invocation, failed ones too.",
    GEN_AI_AGENT_NAME,
)
METRIC_GEN_AI_INVOKE_AGENT_TOOL_CALLS = _histogram(
    "gen_ai.invoke_agent.tool_calls",
    "{tool_call}",
    CALLS_PER_RUN,
    "Tool calls of one agent invocation, failed ones too.",
    GEN_AI_AGENT_NAME,
)
METRIC_GEN_AI_INVOKE_WORKFLOW_DURATION = _histogram(
    "gen_ai.invoke_workflow.duration",
    "s",
    WORKFLOW_SECONDS,
    "Duration of one workflow.",
    ERROR_TYPE,
    GEN_AI_WORKFLOW_NAME,
)

# GenAI as released tools still read it: semconv/gen_ai_v1_41.json (profiles `v1.41` and `both`).
METRIC_GEN_AI_CLIENT_OPERATION_TIME_PER_OUTPUT_CHUNK = _histogram(
    "gen_ai.client.operation.time_per_output_chunk",
    "s",
    LLM_SECONDS,
    "Time between two chunks of a stream.",
    *GEN_AI_LABELS,
)
METRIC_GEN_AI_CLIENT_OPERATION_TIME_TO_FIRST_CHUNK = _histogram(
    "gen_ai.client.operation.time_to_first_chunk",
    "s",
    LLM_SECONDS,
    "Time from the call to the first chunk of its stream.",
    *GEN_AI_LABELS,
)
METRIC_GEN_AI_CLIENT_TOKEN_USAGE = _histogram(
    "gen_ai.client.token.usage",
    "{token}",
    TOKENS,
    "Tokens of one call, by type.",
    *GEN_AI_LABELS,
    GEN_AI_TOKEN_TYPE,
)

# HTTP client: semconv/http.json.
METRIC_HTTP_CLIENT_REQUEST_DURATION = _histogram(
    "http.client.request.duration",
    "s",
    HTTP_SECONDS,
    "Duration of one HTTP request on the wire, up to its headers, or its body when that was read at once.",
    HTTP_REQUEST_METHOD,
    HTTP_RESPONSE_STATUS_CODE,
    ERROR_TYPE,
    NETWORK_PROTOCOL_NAME,
    NETWORK_PROTOCOL_VERSION,
    SERVER_ADDRESS,
    SERVER_PORT,
)
METRIC_HTTP_CLIENT_OPEN_CONNECTIONS = _updowncounter(
    "http.client.open_connections",
    "{connection}",
    "Open connections of the HTTP client (setting http_pool_metrics).",
    HTTP_CONNECTION_STATE,
    NETWORK_PROTOCOL_VERSION,
    SERVER_ADDRESS,
    SERVER_PORT,
)
METRIC_HTTP_CLIENT_CONNECTION_DURATION = _histogram(
    "http.client.connection.duration",
    "s",
    CONNECTION_SECONDS,
    "How long a connection of the HTTP client was open (setting http_pool_metrics).",
    NETWORK_PROTOCOL_VERSION,
    SERVER_ADDRESS,
    SERVER_PORT,
)
METRIC_HTTP_CLIENT_ACTIVE_REQUESTS = _updowncounter(
    "http.client.active_requests",
    "{request}",
    "Requests on the wire (setting http_pool_metrics).",
    HTTP_REQUEST_METHOD,
    SERVER_ADDRESS,
    SERVER_PORT,
)

# Process and interpreter: semconv/runtime.json.
METRIC_PROCESS_CPU_TIME = _counter("process.cpu.time", "s", "CPU seconds of this process.", CPU_MODE)
METRIC_PROCESS_CPU_UTILIZATION = _gauge(
    "process.cpu.utilization",
    "1",
    "Share of the machine's CPUs used since the last reading.",
    CPU_MODE,
)
METRIC_PROCESS_MEMORY_USAGE = _updowncounter("process.memory.usage", "By", "Resident memory.")
METRIC_PROCESS_MEMORY_VIRTUAL = _updowncounter("process.memory.virtual", "By", "Virtual memory.")
METRIC_PROCESS_THREAD_COUNT = _updowncounter("process.thread.count", "{thread}", "Threads of this process.")
METRIC_PROCESS_UNIX_FILE_DESCRIPTOR_COUNT = _updowncounter(
    "process.unix.file_descriptor.count",
    "{file_descriptor}",
    "Open file descriptors.",
)
METRIC_PROCESS_CONTEXT_SWITCHES = _counter(
    "process.context_switches",
    "{context_switch}",
    "Context switches.",
    PROCESS_CONTEXT_SWITCH_TYPE,
)
METRIC_PROCESS_PAGING_FAULTS = _counter(
    "process.paging.faults",
    "{fault}",
    "Page faults.",
    SYSTEM_PAGING_FAULT_TYPE,
)
METRIC_PROCESS_UPTIME = _gauge("process.uptime", "s", "Seconds since this process started.")
METRIC_CPYTHON_GC_COLLECTIONS = _counter(
    "cpython.gc.collections",
    "{collection}",
    "Garbage collections, by generation.",
    CPYTHON_GC_GENERATION,
)
METRIC_CPYTHON_GC_COLLECTED_OBJECTS = _counter(
    "cpython.gc.collected_objects",
    "{object}",
    "Objects collected, by generation.",
    CPYTHON_GC_GENERATION,
)
METRIC_CPYTHON_GC_UNCOLLECTABLE_OBJECTS = _counter(
    "cpython.gc.uncollectable_objects",
    "{object}",
    "Objects that could not be collected, by generation.",
    CPYTHON_GC_GENERATION,
)

# Our own exporter: semconv/otel_sdk.json.
METRIC_OTEL_SDK_EXPORTER_LOG_EXPORTED = _counter(
    "otel.sdk.exporter.log.exported",
    "{log_record}",
    "Log records handed to the end point, by outcome.",
    OTEL_COMPONENT_TYPE,
    OTEL_COMPONENT_NAME,
    SERVER_ADDRESS,
    SERVER_PORT,
    ERROR_TYPE,
)
METRIC_OTEL_SDK_EXPORTER_LOG_INFLIGHT = _updowncounter(
    "otel.sdk.exporter.log.inflight",
    "{log_record}",
    "Log records on their way to the end point.",
    OTEL_COMPONENT_TYPE,
    OTEL_COMPONENT_NAME,
    SERVER_ADDRESS,
    SERVER_PORT,
)
METRIC_OTEL_SDK_EXPORTER_METRIC_DATA_POINT_EXPORTED = _counter(
    "otel.sdk.exporter.metric_data_point.exported",
    "{data_point}",
    "Metric points handed to the end point, by outcome.",
    OTEL_COMPONENT_TYPE,
    OTEL_COMPONENT_NAME,
    SERVER_ADDRESS,
    SERVER_PORT,
    ERROR_TYPE,
)
METRIC_OTEL_SDK_EXPORTER_METRIC_DATA_POINT_INFLIGHT = _updowncounter(
    "otel.sdk.exporter.metric_data_point.inflight",
    "{data_point}",
    "Metric points on their way to the end point.",
    OTEL_COMPONENT_TYPE,
    OTEL_COMPONENT_NAME,
    SERVER_ADDRESS,
    SERVER_PORT,
)
METRIC_OTEL_SDK_EXPORTER_SPAN_EXPORTED = _counter(
    "otel.sdk.exporter.span.exported",
    "{span}",
    "Spans handed to the end point, by outcome.",
    OTEL_COMPONENT_TYPE,
    OTEL_COMPONENT_NAME,
    SERVER_ADDRESS,
    SERVER_PORT,
    ERROR_TYPE,
)
METRIC_OTEL_SDK_EXPORTER_SPAN_INFLIGHT = _updowncounter(
    "otel.sdk.exporter.span.inflight",
    "{span}",
    "Spans on their way to the end point.",
    OTEL_COMPONENT_TYPE,
    OTEL_COMPONENT_NAME,
    SERVER_ADDRESS,
    SERVER_PORT,
)
METRIC_OTEL_SDK_PROCESSOR_LOG_PROCESSED = _counter(
    "otel.sdk.processor.log.processed",
    "{log_record}",
    "Log records that left the queue, by outcome.",
    OTEL_COMPONENT_TYPE,
    OTEL_COMPONENT_NAME,
    ERROR_TYPE,
)
METRIC_OTEL_SDK_PROCESSOR_LOG_QUEUE_CAPACITY = _updowncounter(
    "otel.sdk.processor.log.queue.capacity",
    "{log_record}",
    "Log records the queue can hold.",
    OTEL_COMPONENT_TYPE,
    OTEL_COMPONENT_NAME,
)
METRIC_OTEL_SDK_PROCESSOR_LOG_QUEUE_SIZE = _updowncounter(
    "otel.sdk.processor.log.queue.size",
    "{log_record}",
    "Log records in the queue.",
    OTEL_COMPONENT_TYPE,
    OTEL_COMPONENT_NAME,
)
METRIC_OTEL_SDK_PROCESSOR_SPAN_PROCESSED = _counter(
    "otel.sdk.processor.span.processed",
    "{span}",
    "Spans that left the queue, by outcome.",
    OTEL_COMPONENT_TYPE,
    OTEL_COMPONENT_NAME,
    ERROR_TYPE,
)
METRIC_OTEL_SDK_PROCESSOR_SPAN_QUEUE_CAPACITY = _updowncounter(
    "otel.sdk.processor.span.queue.capacity",
    "{span}",
    "Spans the queue can hold.",
    OTEL_COMPONENT_TYPE,
    OTEL_COMPONENT_NAME,
)
METRIC_OTEL_SDK_PROCESSOR_SPAN_QUEUE_SIZE = _updowncounter(
    "otel.sdk.processor.span.queue.size",
    "{span}",
    "Spans in the queue.",
    OTEL_COMPONENT_TYPE,
    OTEL_COMPONENT_NAME,
)

# Extension: semconv/extension.json.
METRIC_RESILIENCE_RETRY_OPERATION_DURATION = _histogram(
    "resilience.retry.operation.duration",
    "s",
    LLM_SECONDS,
    "Duration of one operation under a retry policy above the SDK, all tries and waits included.",
    RESILIENCE_POLICY_NAME,
    RESILIENCE_RETRY_RESULT,
    ERROR_TYPE,
)
METRIC_RESILIENCE_RETRY_OPERATION_ATTEMPTS = _histogram(
    "resilience.retry.operation.attempts",
    "{attempt}",
    ATTEMPTS,
    "Tries of one operation under a retry policy above the SDK.",
    RESILIENCE_POLICY_NAME,
    RESILIENCE_RETRY_RESULT,
)
METRIC_RESILIENCE_RETRY_RETRIES = _counter(
    "resilience.retry.retries",
    "{retry}",
    "Retries, those of the SDK included (policy = the SDK's name).",
    RESILIENCE_POLICY_NAME,
    ERROR_TYPE,
    GEN_AI_REQUEST_MODEL,
)
METRIC_RESILIENCE_RETRY_DELAY = _histogram(
    "resilience.retry.delay",
    "s",
    DELAY_SECONDS,
    "Wait before a retry.",
    RESILIENCE_POLICY_NAME,
)
METRIC_RESILIENCE_CIRCUIT_BREAKER_STATUS = _updowncounter(
    "resilience.circuit_breaker.status",
    "1",
    "1 for the state the breaker is in, 0 for the other two.",
    RESILIENCE_CIRCUIT_BREAKER_NAME,
    RESILIENCE_CIRCUIT_BREAKER_STATE,
)
METRIC_RESILIENCE_CIRCUIT_BREAKER_TRANSITIONS = _counter(
    "resilience.circuit_breaker.transitions",
    "{transition}",
    "State changes of the breaker.",
    RESILIENCE_CIRCUIT_BREAKER_NAME,
    RESILIENCE_CIRCUIT_BREAKER_STATE,
    RESILIENCE_CIRCUIT_BREAKER_PREVIOUS_STATE,
)
METRIC_RESILIENCE_CIRCUIT_BREAKER_CALLS = _counter(
    "resilience.circuit_breaker.calls",
    "{call}",
    "Calls through the breaker, by outcome.",
    RESILIENCE_CIRCUIT_BREAKER_NAME,
    RESILIENCE_CIRCUIT_BREAKER_OUTCOME,
    ERROR_TYPE,
)
METRIC_RESILIENCE_CIRCUIT_BREAKER_OPEN_DURATION = _histogram(
    "resilience.circuit_breaker.open.duration",
    "s",
    OPEN_SECONDS,
    "How long the breaker stayed open.",
    RESILIENCE_CIRCUIT_BREAKER_NAME,
)
METRIC_RESILIENCE_POOL_CONNECTION_COUNT = _updowncounter(
    "resilience.pool.connection.count",
    "{connection}",
    "Connections of the pool, by state and health.",
    RESILIENCE_POOL_NAME,
    RESILIENCE_POOL_CONNECTION_STATE,
    RESILIENCE_POOL_CONNECTION_HEALTH,
)
METRIC_RESILIENCE_POOL_CONNECTION_LIMIT = _updowncounter(
    "resilience.pool.connection.limit",
    "{connection}",
    "Connections the pool may open; same-named pools show the smallest limit.",
    RESILIENCE_POOL_NAME,
)
METRIC_RESILIENCE_POOL_CONNECTION_IDLE_MAX = _updowncounter(
    "resilience.pool.connection.idle.max",
    "{connection}",
    "Idle connections the pool keeps.",
    RESILIENCE_POOL_NAME,
)
METRIC_RESILIENCE_POOL_CONNECTION_PENDING_REQUESTS = _updowncounter(
    "resilience.pool.connection.pending_requests",
    "{request}",
    "Requests waiting for a connection.",
    RESILIENCE_POOL_NAME,
)
METRIC_RESILIENCE_POOL_CONNECTION_TIMEOUTS = _counter(
    "resilience.pool.connection.timeouts",
    "{timeout}",
    "Requests that gave up waiting for a connection.",
    RESILIENCE_POOL_NAME,
)
METRIC_RESILIENCE_POOL_CONNECTION_CREATE_TIME = _histogram(
    "resilience.pool.connection.create_time",
    "s",
    CREATE_SECONDS,
    "Time to open a connection (DNS, TCP, TLS).",
    RESILIENCE_POOL_NAME,
    ERROR_TYPE,
)
METRIC_RESILIENCE_POOL_CONNECTION_WAIT_TIME = _histogram(
    "resilience.pool.connection.wait_time",
    "s",
    WAIT_SECONDS,
    "Time a request waited for a connection.",
    RESILIENCE_POOL_NAME,
    RESILIENCE_POOL_CONNECTION_REUSED,
    ERROR_TYPE,
)
METRIC_RESILIENCE_POOL_CONNECTION_USE_TIME = _histogram(
    "resilience.pool.connection.use_time",
    "s",
    CONNECTION_SECONDS,
    "Time a request held its connection.",
    RESILIENCE_POOL_NAME,
)
METRIC_RESILIENCE_POOL_CONNECTION_EVICTIONS = _counter(
    "resilience.pool.connection.evictions",
    "{connection}",
    "Connections the pool gave up, by reason.",
    RESILIENCE_POOL_NAME,
    RESILIENCE_POOL_EVICTION_REASON,
)
METRIC_RESILIENCE_LIMITER_REQUESTS = _counter(
    "resilience.limiter.requests",
    "{request}",
    "Requests to the limiter, by result.",
    RESILIENCE_LIMITER_NAME,
    RESILIENCE_LIMITER_TYPE,
    RESILIENCE_LIMITER_RESULT,
)
METRIC_RESILIENCE_LIMITER_REQUEST_TIME_IN_QUEUE = _histogram(
    "resilience.limiter.request.time_in_queue",
    "s",
    WAIT_SECONDS,
    "Time a request waited for a permit.",
    RESILIENCE_LIMITER_NAME,
    RESILIENCE_LIMITER_TYPE,
    RESILIENCE_LIMITER_RESULT,
)
METRIC_RESILIENCE_LIMITER_QUEUED_REQUESTS = _updowncounter(
    "resilience.limiter.queued_requests",
    "{request}",
    "Requests waiting for a permit.",
    RESILIENCE_LIMITER_NAME,
    RESILIENCE_LIMITER_TYPE,
)
METRIC_RESILIENCE_LIMITER_ACTIVE_REQUEST_LEASES = _updowncounter(
    "resilience.limiter.active_request_leases",
    "{request}",
    "Permits held.",
    RESILIENCE_LIMITER_NAME,
    RESILIENCE_LIMITER_TYPE,
)
METRIC_RESILIENCE_LIMITER_REQUEST_LEASE_DURATION = _histogram(
    "resilience.limiter.request_lease.duration",
    "s",
    LLM_SECONDS,
    "How long a permit was held.",
    RESILIENCE_LIMITER_NAME,
    RESILIENCE_LIMITER_TYPE,
)
METRIC_RESILIENCE_LIMITER_LIMIT = _updowncounter(
    "resilience.limiter.limit",
    "{request}",
    "Permits the limiter gives.",
    RESILIENCE_LIMITER_NAME,
    RESILIENCE_LIMITER_TYPE,
)
METRIC_RESILIENCE_FALLBACK_ACTIVATIONS = _counter(
    "resilience.fallback.activations",
    "{activation}",
    "Fall-backs taken.",
    RESILIENCE_POLICY_NAME,
    RESILIENCE_FALLBACK_ACTION,
    ERROR_TYPE,
)
METRIC_RESILIENCE_CACHE_REQUESTS = _counter(
    "resilience.cache.requests",
    "{request}",
    "Requests to the cache, by result.",
    RESILIENCE_CACHE_NAME,
    RESILIENCE_CACHE_OPERATION,
    RESILIENCE_CACHE_RESULT,
)
METRIC_RESILIENCE_CACHE_OPERATION_DURATION = _histogram(
    "resilience.cache.operation.duration",
    "s",
    CACHE_SECONDS,
    "Duration of one cache operation.",
    RESILIENCE_CACHE_NAME,
    RESILIENCE_CACHE_OPERATION,
    RESILIENCE_CACHE_RESULT,
    ERROR_TYPE,
)
METRIC_RESILIENCE_CACHE_EVICTIONS = _counter(
    "resilience.cache.evictions",
    "{entry}",
    "Entries the cache dropped, by reason.",
    RESILIENCE_CACHE_NAME,
    RESILIENCE_CACHE_EVICTION_REASON,
)
METRIC_RESILIENCE_CACHE_ENTRY_COUNT = _updowncounter(
    "resilience.cache.entry.count",
    "{entry}",
    "Entries in the cache.",
    RESILIENCE_CACHE_NAME,
)
METRIC_RESILIENCE_CACHE_ENTRY_LIMIT = _updowncounter(
    "resilience.cache.entry.limit",
    "{entry}",
    "Entries the cache may hold.",
    RESILIENCE_CACHE_NAME,
)
METRIC_RESILIENCE_CACHE_SIZE = _updowncounter(
    "resilience.cache.size",
    "By",
    "Bytes in the cache.",
    RESILIENCE_CACHE_NAME,
)
METRIC_PYTHON_EXECUTOR_THREAD_COUNT = _updowncounter(
    "python.executor.thread.count",
    "{thread}",
    "Threads of the executor, by state.",
    PYTHON_EXECUTOR_NAME,
    PYTHON_EXECUTOR_TYPE,
    PYTHON_EXECUTOR_THREAD_STATE,
)
METRIC_PYTHON_EXECUTOR_THREAD_LIMIT = _updowncounter(
    "python.executor.thread.limit",
    "{thread}",
    "Threads the executor may start.",
    PYTHON_EXECUTOR_NAME,
    PYTHON_EXECUTOR_TYPE,
)
METRIC_PYTHON_EXECUTOR_QUEUE_SIZE = _updowncounter(
    "python.executor.queue.size",
    "{task}",
    "Tasks waiting for a thread.",
    PYTHON_EXECUTOR_NAME,
    PYTHON_EXECUTOR_TYPE,
)
METRIC_PYTHON_EXECUTOR_QUEUE_CAPACITY = _updowncounter(
    "python.executor.queue.capacity",
    "{task}",
    "Tasks that may wait.",
    PYTHON_EXECUTOR_NAME,
    PYTHON_EXECUTOR_TYPE,
)
METRIC_PYTHON_EXECUTOR_TASK_COMPLETED = _counter(
    "python.executor.task.completed",
    "{task}",
    "Tasks completed.",
    PYTHON_EXECUTOR_NAME,
    PYTHON_EXECUTOR_TYPE,
)
METRIC_PYTHON_EXECUTOR_TASK_REJECTED = _counter(
    "python.executor.task.rejected",
    "{task}",
    "Tasks refused.",
    PYTHON_EXECUTOR_NAME,
    PYTHON_EXECUTOR_TYPE,
)
METRIC_PYTHON_EXECUTOR_TASK_TIME_IN_QUEUE = _histogram(
    "python.executor.task.time_in_queue",
    "s",
    WAIT_SECONDS,
    "Time a task waited for a thread.",
    PYTHON_EXECUTOR_NAME,
    PYTHON_EXECUTOR_TYPE,
)
METRIC_PYTHON_EXECUTOR_TASK_DURATION = _histogram(
    "python.executor.task.duration",
    "s",
    LLM_SECONDS,
    "Duration of one task.",
    PYTHON_EXECUTOR_NAME,
    PYTHON_EXECUTOR_TYPE,
    ERROR_TYPE,
)
METRIC_AGENT_RUNTIME_AGENT_ACTIVE = _updowncounter(
    "agent_runtime.agent.active",
    "{invocation}",
    "Agent invocations under way.",
    GEN_AI_AGENT_NAME,
)
METRIC_AGENT_RUNTIME_WORKFLOW_ACTIVE = _updowncounter(
    "agent_runtime.workflow.active",
    "{workflow}",
    "Workflows under way.",
    GEN_AI_WORKFLOW_NAME,
)
METRIC_AGENT_RUNTIME_TASK_QUEUE_SIZE = _updowncounter(
    "agent_runtime.task.queue.size",
    "{task}",
    "Tasks waiting.",
    AGENT_RUNTIME_TASK_NAME,
)
METRIC_AGENT_RUNTIME_TASK_TIME_IN_QUEUE = _histogram(
    "agent_runtime.task.time_in_queue",
    "s",
    WAIT_SECONDS,
    "Time a task waited.",
    AGENT_RUNTIME_TASK_NAME,
)
METRIC_AGENT_RUNTIME_STEP_DURATION = _histogram(
    "agent_runtime.step.duration",
    "s",
    WORKFLOW_SECONDS,
    "Duration of one workflow step.",
    AGENT_RUNTIME_STEP_NAME,
    AGENT_RUNTIME_STEP_RESULT,
    GEN_AI_WORKFLOW_NAME,
    ERROR_TYPE,
)
METRIC_AGENT_RUNTIME_CHECKPOINT_OPERATION_DURATION = _histogram(
    "agent_runtime.checkpoint.operation.duration",
    "s",
    HTTP_SECONDS,
    "Duration of one checkpoint operation.",
    AGENT_RUNTIME_CHECKPOINT_OPERATION,
    GEN_AI_WORKFLOW_NAME,
    ERROR_TYPE,
)
METRIC_AGENT_RUNTIME_CONTEXT_TRUNCATIONS = _counter(
    "agent_runtime.context.truncations",
    "{truncation}",
    "Times a context was truncated to fit the model.",
    AGENT_RUNTIME_CONTEXT_TRUNCATION_STRATEGY,
    GEN_AI_REQUEST_MODEL,
    GEN_AI_AGENT_NAME,
)
METRIC_AGENT_RUNTIME_BATCH_DURATION = _histogram(
    "agent_runtime.batch.duration",
    "s",
    WORKFLOW_SECONDS,
    "Duration of one batch.",
    AGENT_RUNTIME_BATCH_NAME,
    AGENT_RUNTIME_BATCH_MODE,
    ERROR_TYPE,
)
METRIC_AGENT_RUNTIME_BATCH_ITEM_DURATION = _histogram(
    "agent_runtime.batch.item.duration",
    "s",
    LLM_SECONDS,
    "Duration of one item of a batch.",
    AGENT_RUNTIME_BATCH_NAME,
    ERROR_TYPE,
)
METRIC_AGENT_RUNTIME_BATCH_ACTIVE = _updowncounter(
    "agent_runtime.batch.active",
    "{batch}",
    "Batches under way.",
    AGENT_RUNTIME_BATCH_NAME,
)
METRIC_AGENT_RUNTIME_OPERATION_DURATION = _histogram(
    "agent_runtime.operation.duration",
    "s",
    LLM_SECONDS,
    "Duration of one named operation of the app.",
    CODE_FUNCTION_NAME,
    AGENT_RUNTIME_EXECUTION_PATH,
    ERROR_TYPE,
)
METRIC_AGENT_RUNTIME_USAGE_COST = _counter(
    "agent_runtime.usage.cost",
    "{currency_unit}",
    "Money spent.",
    GEN_AI_REQUEST_MODEL,
    GEN_AI_PROVIDER_NAME,
    AGENT_RUNTIME_COST_CURRENCY,
    AGENT_RUNTIME_COST_SOURCE,
    GEN_AI_AGENT_NAME,
)
METRIC_AGENT_RUNTIME_OPERATION_COST = _histogram(
    "agent_runtime.operation.cost",
    "{currency_unit}",
    COST,
    "Money one call cost.",
    GEN_AI_REQUEST_MODEL,
    GEN_AI_PROVIDER_NAME,
    AGENT_RUNTIME_COST_CURRENCY,
)
METRIC_RESILIENCE_CALL_TIME = _counter(
    "resilience.call.time",
    "s",
    "Wall time of LLM calls, split into exclusive phases.",
    RESILIENCE_CALL_PHASE,
    GEN_AI_REQUEST_MODEL,
    GEN_AI_PROVIDER_NAME,
)
METRIC_AGENT_RUNTIME_STREAM_ENDED = _counter(
    "agent_runtime.stream.ended",
    "{stream}",
    "Streams, by the way they ended.",
    AGENT_RUNTIME_STREAM_OUTCOME,
    GEN_AI_REQUEST_MODEL,
)
METRIC_AGENT_RUNTIME_TASK_ACTIVE = _updowncounter(
    "agent_runtime.task.active",
    "{task}",
    "Tasks under way.",
    AGENT_RUNTIME_TASK_NAME,
)
METRIC_AGENT_RUNTIME_TASK_STARTED = _counter(
    "agent_runtime.task.started",
    "{task}",
    "Tasks started.",
    AGENT_RUNTIME_TASK_NAME,
)
METRIC_AGENT_RUNTIME_TASK_DURATION = _histogram(
    "agent_runtime.task.duration",
    "s",
    WORKFLOW_SECONDS,
    "Duration of one task of an agent.",
    AGENT_RUNTIME_TASK_NAME,
    ERROR_TYPE,
)
METRIC_AGENT_RUNTIME_WORKFLOW_STARTED = _counter(
    "agent_runtime.workflow.started",
    "{workflow}",
    "Workflows started.",
    GEN_AI_WORKFLOW_NAME,
)
METRIC_AGENT_RUNTIME_CONTEXT_UTILIZATION = _histogram(
    "agent_runtime.context.utilization",
    "1",
    UTILIZATION,
    "Input tokens over the model's context window.",
    GEN_AI_REQUEST_MODEL,
    GEN_AI_AGENT_NAME,
)
METRIC_AGENT_RUNTIME_USAGE_UNKNOWN = _counter(
    "agent_runtime.usage.unknown",
    "{call}",
    "Successful calls whose answer carried no usage.",
    GEN_AI_REQUEST_MODEL,
    GEN_AI_PROVIDER_NAME,
)
METRIC_AGENT_RUNTIME_COST_BUDGET = _gauge(
    "agent_runtime.cost.budget",
    "{currency_unit}",
    "Configured budget for 24 hours.",
    AGENT_RUNTIME_COST_CURRENCY,
)
METRIC_RESILIENCE_POOL_REQUESTS = _counter(
    "resilience.pool.requests",
    "{request}",
    "Requests through the pool, by outcome.",
    RESILIENCE_POOL_NAME,
    RESILIENCE_POOL_REQUEST_OUTCOME,
)
METRIC_RESILIENCE_POOL_CONNECTION_OLDEST_AGE = _gauge(
    "resilience.pool.connection.oldest_age",
    "s",
    "Age of the oldest open connection.",
    RESILIENCE_POOL_NAME,
)
METRIC_RESILIENCE_POOL_LOOP_MISMATCHES = _counter(
    "resilience.pool.loop_mismatches",
    "{request}",
    "Requests made from an event loop other than the one that opened the pool's connections.",
    RESILIENCE_POOL_NAME,
)
METRIC_RESILIENCE_CIRCUIT_BREAKER_FAILURE_THRESHOLD = _gauge(
    "resilience.circuit_breaker.failure.threshold",
    "{failure}",
    "Failures in a row that open the breaker.",
    RESILIENCE_CIRCUIT_BREAKER_NAME,
)
METRIC_RESILIENCE_CIRCUIT_BREAKER_NEXT_PROBE_TIME = _gauge(
    "resilience.circuit_breaker.next_probe.time",
    "s",
    "Unix time from which an open breaker lets the next call probe; 0 when not open.",
    RESILIENCE_CIRCUIT_BREAKER_NAME,
)
METRIC_RESILIENCE_RATE_LIMIT_LIMIT = _gauge(
    "resilience.rate_limit.limit",
    "{unit}",
    "What the provider allows in its window.",
    RESILIENCE_RATE_LIMIT_RESOURCE,
    GEN_AI_PROVIDER_NAME,
    GEN_AI_REQUEST_MODEL,
)
METRIC_RESILIENCE_RATE_LIMIT_REMAINING = _gauge(
    "resilience.rate_limit.remaining",
    "{unit}",
    "What the provider still allows in its window.",
    RESILIENCE_RATE_LIMIT_RESOURCE,
    GEN_AI_PROVIDER_NAME,
    GEN_AI_REQUEST_MODEL,
)
METRIC_RESILIENCE_RATE_LIMIT_RESET = _gauge(
    "resilience.rate_limit.reset",
    "s",
    "Seconds until the provider's window starts anew.",
    RESILIENCE_RATE_LIMIT_RESOURCE,
    GEN_AI_PROVIDER_NAME,
    GEN_AI_REQUEST_MODEL,
)
METRIC_WATCHKEEP_INTEGRATIONS = _updowncounter(
    "watchkeep.integrations",
    "{integration}",
    "1 for the state an integration is in.",
    WATCHKEEP_INTEGRATION_NAME,
    WATCHKEEP_INTEGRATION_STATE,
)
METRIC_RESILIENCE_CALLS = _counter(
    "resilience.calls",
    "{call}",
    "Logical calls, each once at the outermost of retry, breaker and chat, rejections included.",
    GEN_AI_OPERATION_NAME,
    GEN_AI_REQUEST_MODEL,
    GEN_AI_PROVIDER_NAME,
    ERROR_TYPE,
    RESILIENCE_FAULT_ORIGIN,
)
METRIC_RESILIENCE_CIRCUIT_BREAKER_LOCK_WAIT_TIME = _histogram(
    "resilience.circuit_breaker.lock.wait_time",
    "s",
    WAIT_SECONDS,
    "Time a call waited for the breaker's lock, which is held while another call runs.",
    RESILIENCE_CIRCUIT_BREAKER_NAME,
)

METRICS: dict[str, Metric] = {value.name: value for key, value in list(globals().items()) if key.startswith("METRIC_")}

# --- spans ------------------------------------------------------------------------------------------

INFERENCE = Span("gen_ai.client.inference", CLIENT, "", (GEN_AI_OPERATION_NAME, GEN_AI_REQUEST_MODEL))
EMBEDDINGS = Span("gen_ai.embeddings.client", CLIENT, "", (GEN_AI_OPERATION_NAME, GEN_AI_REQUEST_MODEL))
FETCH_RESPONSE = Span("gen_ai.fetch_response.client", CLIENT, "", (GEN_AI_OPERATION_NAME,))
# Ours: any other request through an LLM client (models, files, batches); no convention has a span for it.
OTHER_CALL = Span("resilience.call.client", CLIENT, "", (GEN_AI_OPERATION_NAME,))
INVOKE_AGENT = Span("gen_ai.invoke_agent.internal", INTERNAL, "invoke_agent", (GEN_AI_AGENT_NAME,))
INVOKE_WORKFLOW = Span("gen_ai.invoke_workflow.internal", INTERNAL, "invoke_workflow", (GEN_AI_WORKFLOW_NAME,))
EXECUTE_TOOL = Span("gen_ai.execute_tool.internal", INTERNAL, "execute_tool", (GEN_AI_TOOL_NAME,))
STEP = Span("agent_runtime.step.internal", INTERNAL, "run_step", (AGENT_RUNTIME_STEP_NAME,))
ATTEMPT = Span("resilience.attempt.client", CLIENT, "", (HTTP_REQUEST_METHOD,))
POOL_WAIT = Span("resilience.pool.wait.internal", INTERNAL, "wait_for_connection", (RESILIENCE_POOL_NAME,))
CIRCUIT_BREAKER = Span(
    "resilience.circuit_breaker.internal", INTERNAL, "circuit_breaker", (RESILIENCE_CIRCUIT_BREAKER_NAME,)
)
EXECUTOR_TASK = Span("agent_runtime.executor_task.internal", INTERNAL, "", (CODE_FUNCTION_NAME,))
LIMITER_WAIT = Span("resilience.limiter.wait.internal", INTERNAL, "wait_for_permit", (RESILIENCE_LIMITER_NAME,))
RETRY = Span("resilience.retry.internal", INTERNAL, "retry", (RESILIENCE_POLICY_NAME,))

SPANS: dict[str, Span] = {value.key: value for value in list(globals().values()) if isinstance(value, Span)}

# --- events -----------------------------------------------------------------------------------------

DEBUG, INFO, WARN, ERROR = 5, 9, 13, 17  # OTLP's severity numbers

EVENT_INFERENCE_DETAILS = Event("gen_ai.client.inference.operation.details", DEBUG)
EVENT_EXCEPTION = Event("gen_ai.client.operation.exception", WARN)
EVENT_RETRY_SCHEDULED = Event("resilience.retry.scheduled", WARN)
EVENT_BREAKER_STATE_CHANGE = Event("resilience.circuit_breaker.state_change", WARN)
EVENT_BREAKER_MISUSE = Event("resilience.circuit_breaker.misuse", WARN)
EVENT_POOL_TIMEOUT = Event("resilience.pool.connection.timeout", WARN)

EVENTS: dict[str, Event] = {value.name: value for value in list(globals().values()) if isinstance(value, Event)}

# --- values -----------------------------------------------------------------------------------------

# The exclusive phases of an LLM call, then the waits before it; their keys on the span follow.
PHASES = ("other", "pool_wait", "connect", "send", "server", "backoff", "stream", "consumer")
WAITS_BEFORE = ("executor_queue", "limiter", "breaker_lock")
PHASE_KEYS = {phase: f"{RESILIENCE_CALL_TIME}.{phase}" for phase in PHASES + WAITS_BEFORE}

# Values of error.type beyond status codes and exception classes.
CIRCUIT_OPEN = "circuit_open"
POOL_TIMEOUT = "pool_timeout"
CONTEXT_LENGTH_EXCEEDED = "context_length_exceeded"
CONNECT_TIMEOUT = "connect_timeout"
READ_TIMEOUT = "read_timeout"
WRITE_TIMEOUT = "write_timeout"
TOTAL_TIMEOUT = "total_timeout"
DNS_FAILURE = "dns_failure"
TLS_FAILURE = "tls_failure"
STREAM_STALLED = "stream_stalled"
ERROR_EVENT = "error_event"  # ours: a stream carried an error instead of its end
CANCELLED = "cancelled"
OTHER = "_OTHER"

PROVIDER, NETWORK, CLIENT_FAULT = "provider", "network", "client"  # resilience.fault.origin

"""openai 1.x to 3.x: one span per logical call, whatever the SDK retries inside it.

Seams: `request` of the base clients (the call), `_calculate_retry_timeout` (the wait it will make). Attempts,
bodies and what the client decodes: http.py, body.py, answer.py.
Websockets (realtime, Responses over a socket) do not pass here; that is a stated limit.
"""

from __future__ import annotations

import weakref
from typing import Any, NamedTuple

from watchkeep import context, guard, llm, names, operation_logs, runtime, tracing
from watchkeep.hook import Target
from watchkeep.integrations import Integration, scope
from watchkeep.llm import EmbeddingsCall, InferenceCall, LLMCall, OtherCall, Usage
from watchkeep.reads import ends

SCOPE = scope("openai", names.SCHEMA_GEN_AI)
_POLICY = "openai"
_DEFAULT_PORTS = {"https": 443, "http": 80}

# The end of a host's name -> the provider that answers there; any other base URL speaks openai's language.
_PROVIDERS = (
    (".openai.azure.com", "azure.ai.openai"),
    (".services.ai.azure.com", "azure.ai.inference"),
    ("api.groq.com", "groq"),
    ("api.mistral.ai", "mistral_ai"),
    ("api.deepseek.com", "deepseek"),
    ("api.x.ai", "x_ai"),
    ("api.perplexity.ai", "perplexity"),
    ("api.cohere.ai", "cohere"),
    ("api.moonshot.ai", "moonshot_ai"),
    ("generativelanguage.googleapis.com", "gcp.gemini"),
    ("aiplatform.googleapis.com", "gcp.vertex_ai"),
    ("api.anthropic.com", "anthropic"),
)

# Path -> operation.name, openai.api.type. Any other path is an operation named by its first part.
_OPERATIONS = {
    "/chat/completions": ("chat", "chat_completions"),
    "/responses": ("chat", "responses"),
    "/completions": ("text_completion", ""),
    "/embeddings": ("embeddings", ""),
}


class Server(NamedTuple):
    """What a client's base URL says."""

    base_url: Any
    attributes: dict[str, Any]


# -- the request -----------------------------------------------------------------------------------------


# Values come from the app: their own methods may raise, and their class may be another than they say. So the
# class is asked by `type`, and what is read of them is read by the built-in class's own methods.


def _number(value: Any) -> Any:
    if issubclass(type(value), float):
        return float.__float__(value)
    return _count(value)


def _count(value: Any) -> Any:
    kind = type(value)
    if kind is int:
        return value
    return int.__int__(value) if issubclass(kind, int) and kind is not bool else None


def _text(value: Any) -> Any:
    return str.__str__(value) if issubclass(type(value), str) else None


def _field(value: Any, key: str) -> Any:
    return dict.get(value, key) if issubclass(type(value), dict) else None


def _texts(value: Any) -> Any:
    if issubclass(type(value), str):
        return [_text(value)]
    found = list(map(_text, list.__iter__(value))) if issubclass(type(value), list) else []
    return found if found and None not in found else None


def _choices(value: object) -> Any:
    count = _count(value)
    return count if count != 1 else None


def _output_type(value: object) -> Any:
    return {"json_object": "json", "json_schema": "json", "text": "text"}.get(_text(_field(value, "type")) or "")


def _text_format(value: object) -> Any:
    return _output_type(_field(value, "format"))


def _effort(value: object) -> Any:
    return _text(_field(value, "effort"))


def _conversation(value: object) -> Any:
    return _text(value) or _text(_field(value, "id"))


def _tier(value: object) -> Any:
    tier = _text(value)
    return tier if tier != "auto" else None


_PARAMETERS = {
    "model": (names.GEN_AI_REQUEST_MODEL, _text),
    "temperature": (names.GEN_AI_REQUEST_TEMPERATURE, _number),
    "top_p": (names.GEN_AI_REQUEST_TOP_P, _number),
    "max_tokens": (names.GEN_AI_REQUEST_MAX_TOKENS, _count),
    "max_completion_tokens": (names.GEN_AI_REQUEST_MAX_TOKENS, _count),
    "max_output_tokens": (names.GEN_AI_REQUEST_MAX_TOKENS, _count),
    "frequency_penalty": (names.GEN_AI_REQUEST_FREQUENCY_PENALTY, _number),
    "presence_penalty": (names.GEN_AI_REQUEST_PRESENCE_PENALTY, _number),
    "seed": (names.GEN_AI_REQUEST_SEED, _count),
    "n": (names.GEN_AI_REQUEST_CHOICE_COUNT, _choices),
    "stop": (names.GEN_AI_REQUEST_STOP_SEQUENCES, _texts),
    "response_format": (names.GEN_AI_OUTPUT_TYPE, _output_type),
    "text": (names.GEN_AI_OUTPUT_TYPE, _text_format),
    "reasoning_effort": (names.GEN_AI_REQUEST_REASONING_LEVEL, _text),
    "reasoning": (names.GEN_AI_REQUEST_REASONING_LEVEL, _effort),
    "service_tier": (names.OPENAI_REQUEST_SERVICE_TIER, _tier),
    "previous_response_id": (names.GEN_AI_REQUEST_PREVIOUS_RESPONSE_ID, _text),
    "conversation": (names.GEN_AI_CONVERSATION_ID, _conversation),
    "encoding_format": (names.GEN_AI_REQUEST_ENCODING_FORMATS, _texts),
    "dimensions": (names.GEN_AI_EMBEDDINGS_DIMENSION_COUNT, _count),
}


def _begins(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[LLMCall, Any] | None:
    outer = context.call.get()
    if outer is not None and not outer.closed:
        return None  # an SDK built on this one, or `request` calling itself (1.x retries)
    client = args[0]
    options = args[2] if len(args) > 2 else kwargs["options"]
    path = _path(str.__str__(options.url))
    operation, api = _operation(str.__str__(options.method).upper(), path)
    attributes: dict[str, Any] = {names.GEN_AI_OPERATION_NAME: operation, **_server(client).attributes}
    if api:
        attributes[names.OPENAI_API_TYPE] = api
    _read_request(attributes, options.json_data)
    if kwargs.get("stream"):
        attributes[names.GEN_AI_REQUEST_STREAM] = True
        if path in _SAYS_USAGE_WHEN_ASKED and runtime.config().ask_usage:
            _ask_usage(options)
    if operation == "fetch_response":
        attributes[names.GEN_AI_RESPONSE_ID] = path.rpartition("/")[2]
    call = _new(operation, attributes)
    call.transport = client._client
    owner = tracing.owner_of_llm_span()
    if owner is not None:
        call.stand_aside(owner)
    elif runtime.config().capture_content != "NO_CONTENT":
        _keep_content(call, options.json_data)
    call.open()
    return call, llm.enter(call)


def _keep_content(call: LLMCall, data: object) -> None:
    from watchkeep.integrations import _openai_content

    if isinstance(call, InferenceCall):
        call.kept = guard.run(_openai_content.read_request, data)


_MAX_TOKENS = 1 << 40
_SAYS_USAGE_WHEN_ASKED = frozenset(("/chat/completions", "/completions"))


def _ask_usage(options: Any) -> None:
    # The one thing that a setting makes us change: `options` is the SDK's own, made for this call.
    data = options.json_data
    if isinstance(data, dict):
        said = data.get("stream_options")
        said = said if isinstance(said, dict) else {}
        if "include_usage" not in said:
            options.json_data = {**data, "stream_options": {**said, "include_usage": True}}


def _new(operation: str, attributes: dict[str, Any]) -> LLMCall:
    if operation in ("chat", "text_completion"):
        return InferenceCall(names.INFERENCE, SCOPE, attributes, _POLICY, read_answer)
    if operation == "embeddings":
        return EmbeddingsCall(names.EMBEDDINGS, SCOPE, attributes, _POLICY, read_answer)
    span = names.FETCH_RESPONSE if operation == "fetch_response" else names.OTHER_CALL
    return OtherCall(span, SCOPE, attributes, _POLICY, read_answer)


def _path(url: str) -> str:
    path = url.partition("?")[0]
    if "://" in path:
        path = "/" + path.split("://", 1)[1].partition("/")[2]
    _, found, rest = path.partition("/deployments/")
    return "/" + rest.partition("/")[2] if found else path


def _operation(method: str, path: str) -> tuple[str, str]:
    if method == "POST":
        known = _OPERATIONS.get(path)
        if known is not None:
            return known
    first, _, rest = path.strip("/").partition("/")
    if first == "responses" and method == "GET" and rest and "/" not in rest:
        return "fetch_response", "responses"
    return first or "request", ""


def _read_request(attributes: dict[str, Any], data: Any) -> None:
    if not issubclass(type(data), dict):
        return
    for key, value in dict.items(data):
        known = _PARAMETERS.get(key) if type(key) is str else None
        if known is not None and value is not None:
            found = known[1](value)
            if found is not None:
                attributes[known[0]] = found


_servers: weakref.WeakKeyDictionary[Any, Server] = weakref.WeakKeyDictionary()


def _server(client: Any) -> Server:
    base_url = client._base_url
    found = _servers.get(client)
    if found is None or found.base_url is not base_url:
        found = _servers[client] = Server(base_url, _server_attributes(client, base_url))
    return found


def _server_attributes(client: Any, base_url: Any) -> dict[str, Any]:
    host = base_url.host
    port = base_url.port or _DEFAULT_PORTS.get(base_url.scheme)
    provider = next((name for end, name in _PROVIDERS if host.endswith(end)), "openai")
    if "Azure" in type(client).__name__:
        provider = "azure.ai.openai"
    found = {names.GEN_AI_PROVIDER_NAME: provider, names.SERVER_ADDRESS: host}
    if port is not None:
        found[names.SERVER_PORT] = port
    return found


def _returned(state: tuple[LLMCall, Any], result: Any) -> None:
    call, token = state
    llm.leave(call, token)
    if not call.streamed:
        _keep_unparsed(call)
        call.finish()


def _raised(state: tuple[LLMCall, Any], error: BaseException) -> None:
    call, token = state
    llm.leave(call, token)
    if getattr(error, "code", None) == names.CONTEXT_LENGTH_EXCEEDED:
        call.fail((names.CONTEXT_LENGTH_EXCEEDED, names.CLIENT_FAULT), llm.message_of(error))
        operation_logs.exception(call, error)
    else:
        call.fail_with(error)
    call.finish()


def _keep_unparsed(call: LLMCall) -> None:
    response, call.content = call.content, None
    if response is not None and not call.facts and "json" in response.headers.get("content-type", ""):
        call.body = ends(response.content)


# -- the wait before a retry -------------------------------------------------------------------------------


def _wait_begins(args: tuple[Any, ...], kwargs: dict[str, Any]) -> LLMCall | None:
    return context.call.get()


def _wait_known(call: LLMCall, delay: Any) -> None:
    call.back_off(float(delay))


# -- the answer ----------------------------------------------------------------------------------------------


def read_answer(call: LLMCall, data: dict[str, Any]) -> None:
    """Read an answer, or one event of a stream, as the provider sent it."""
    if call.kept is not None:
        from watchkeep.integrations import _openai_content

        guard.run(_openai_content.read_answer, call.kept, data)
    choices = data.get("choices")
    if choices is not None:
        if choices:
            _read_choices(call, choices)
    elif data.get("type") == "error":
        call.fail((names.ERROR_EVENT, names.PROVIDER), "the stream carried an error event")
    elif "response" in data:  # an event of the Responses API
        kind = data.get("type")
        if kind in _FINAL_EVENTS:
            response = data["response"]
            if isinstance(response, dict):
                _read_facts(call, response)
                _read_status(call, response)
        return
    elif data.get("object") == "response":
        _read_status(call, data)
    if data.get("usage") is not None or not call.facts:
        _read_facts(call, data)


_FINAL_EVENTS = frozenset(("response.completed", "response.failed", "response.incomplete"))


def _read_choices(call: LLMCall, choices: Any) -> None:
    for position, choice in enumerate(choices if isinstance(choices, list) else ()):
        reason = choice.get("finish_reason") if isinstance(choice, dict) else None
        if isinstance(reason, str):
            index = choice.get("index")
            call.finish_reasons[index if type(index) is int else position] = reason


def _read_status(call: LLMCall, response: dict[str, Any]) -> None:
    status = response.get("status")
    if isinstance(status, str):
        details = response.get("incomplete_details")
        reason = details.get("reason") if isinstance(details, dict) else None
        reason = reason if isinstance(reason, str) else None
        call.finish_reasons[0] = reason or {"completed": "stop", "failed": "error"}.get(status, status)
    if status == "failed" and call.error is None:
        call.fail((names.ERROR_EVENT, names.PROVIDER), "the response failed")


def _read_facts(call: LLMCall, data: dict[str, Any]) -> None:
    call.facts = True
    attributes = call.attributes
    for key, name in (
        ("model", names.GEN_AI_RESPONSE_MODEL),
        ("id", names.GEN_AI_RESPONSE_ID),
        ("service_tier", names.OPENAI_RESPONSE_SERVICE_TIER),
        ("system_fingerprint", names.OPENAI_RESPONSE_SYSTEM_FINGERPRINT),
    ):
        value = data.get(key)
        if isinstance(value, str):
            attributes[name] = value
    usage = data.get("usage")
    if isinstance(usage, dict):
        call.usage = usage_of(usage)


def usage_of(usage: dict[str, Any]) -> Usage:
    """Return the tokens of an answer; chat and Responses name the same things differently."""
    given = usage.get("prompt_tokens_details") or usage.get("input_tokens_details")
    made = usage.get("completion_tokens_details") or usage.get("output_tokens_details")
    return Usage(
        _tokens(usage.get("prompt_tokens", usage.get("input_tokens"))),
        _tokens(usage.get("completion_tokens", usage.get("output_tokens"))),
        _tokens(_field(given, "cached_tokens")),
        _tokens(_field(given, "cache_write_tokens")),
        _tokens(_field(made, "reasoning_tokens")),
    )


def _tokens(value: object) -> int | None:
    # A count below zero or beyond all reason would spoil every sum that it is added to.
    return value if type(value) is int and 0 <= value < _MAX_TOKENS else None


def _targets(client: str) -> tuple[Target, ...]:
    return (Target(f"openai._base_client:{client}.request", _begins, _returned, _raised),)


INTEGRATION = Integration(
    name="openai",
    scope=SCOPE,
    targets=(
        *_targets("SyncAPIClient"),
        *_targets("AsyncAPIClient"),
        Target("openai._base_client:BaseClient._calculate_retry_timeout", _wait_begins, _wait_known, needed=False),
    ),
    supported={"openai": ("1.40", "4")},
)

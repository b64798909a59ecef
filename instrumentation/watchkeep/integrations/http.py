"""httpx and httpx2: one attempt span per request on the wire, inside an LLM call.

The app's ordinary HTTP is left to the official instrumentation (official_http.py loads it at the first such
request); inside an LLM call that one is passed by, because the attempt stands in its place. Where the app
itself instrumented the client, its span stands and carries our attributes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from watchkeep import blame, body, clock, context, guard, names, official_http, runtime, tracing
from watchkeep.hook import Target
from watchkeep.integrations import Integration, scope
from watchkeep.llm import LLMCall, message_of
from watchkeep.reads import ends
from watchkeep.record import Measure, Record, seconds

if TYPE_CHECKING:
    from opentelemetry.trace import Span

    from watchkeep.blame import Blame

SCOPE = scope("http", names.SCHEMA_CORE)
STACKS = official_http.STACKS
_DEFAULT_PORTS = {"https": 443, "http": 80}
_MAX_ORIGINS = 256


class Origin(NamedTuple):
    """What a URL says of the server; kept, because taking a URL apart costs more than the rest of an attempt."""

    address: str
    port: int
    full: str
    name: str  # host, with a port that is not the scheme's own


class Attempt(Record):
    """One HTTP try of an LLM call."""

    __slots__ = ("call", "checkout", "owner")

    ours = True

    def __init__(self, call: LLMCall, attributes: dict[str, Any]) -> None:
        super().__init__(names.ATTEMPT, SCOPE, attributes)
        self.call = call
        self.checkout: Any = None
        self.owner: Any = None  # the app's own HTTP span, which then carries our attributes

    @property
    def measures(self) -> tuple[Measure, ...]:
        """What is measured, unless the app's instrumentation does."""
        return () if self.owner is not None and official_http.the_app_counts() else _MEASURES

    def adopt(self, span: Span) -> None:
        """Let the app's own HTTP span, which is open now, stand for this attempt."""
        found = span.get_span_context()
        if not found.is_valid or found.span_id == self.parent_id:
            self.visible = True  # the app's instrumentation lets this request pass
            tracing.place(self, self.call)
            return
        self.owner = span
        self.trace_id, self.span_id = found.trace_id, found.span_id
        self.sampled = bool(found.trace_flags & 1)
        span.set_attributes({**self.entity, **self.attributes, names.AGENT_RUNTIME_CORRELATION_ID: self.correlation})

    def tell_owner(self, found: Blame | None) -> None:
        """Put the outcome on the app's span, which ends before we see it through httpx."""
        if self.owner is None or found is None:
            return
        attributes = {names.ERROR_TYPE: found[0], names.RESILIENCE_FAULT_ORIGIN: found[1]}
        if guard.collecting():
            runtime.emitter().put_off(tracing.write, self.owner, attributes)
        else:
            tracing.write(self.owner, attributes)

    def complete(self) -> None:
        """Leave nothing of the call behind."""
        super().complete()
        self.call = self.checkout = None  # type: ignore[assignment]


_MEASURES = (Measure(names.METRIC_HTTP_CLIENT_REQUEST_DURATION, seconds),)

_origins: dict[str, Origin] = {}


def origin_of(url: Any) -> Origin:
    """Take an httpx URL apart; the query is left out, it may hold a key."""
    text = str(url)
    found = _origins.get(text)
    if found is None:
        scheme, host = url.scheme, url.host
        port = url.port or _DEFAULT_PORTS.get(scheme, 0)
        name = host if port == _DEFAULT_PORTS.get(scheme) else f"{host}:{port}"
        found = Origin(host, port, _without_secrets(text), name)
        if len(_origins) < _MAX_ORIGINS:
            _origins[text] = found
    return found


def _without_secrets(url: str) -> str:
    scheme, separator, rest = url.partition("://")
    authority, slash, path = rest.partition("/")
    authority = f"REDACTED:REDACTED@{authority.rpartition('@')[2]}" if "@" in authority else authority
    path, question, _ = path.partition("?")
    return f"{scheme}{separator}{authority}{slash}{path}" + ("?REDACTED" if question else "")


# -- Client.send: one per try of the SDK; tells whether the body is read at once -------------------------


def _send_begins(args: tuple[Any, ...], kwargs: dict[str, Any]) -> LLMCall | None:
    call = context.call.get()
    if call is None or call.inside or not _belongs(call, args, kwargs):
        return None
    call.inside = True
    call.streamed = bool(kwargs.get("stream"))
    now = call.ledger.enter("other")
    call.begin_try(now)
    if not _has_wire_seam(args[0]):
        _open(call, args[0], args[1] if len(args) > 1 else kwargs["request"])
    return call


def _send_returned(call: LLMCall, response: Any) -> None:
    call.inside = False
    if call.attempt is not None:  # its body was read at once, or the wire seam is missing
        _answered(call.attempt, response)
        _close(call)
    ok = response.status_code < 400
    call.answers.append(response.headers)
    response.extensions[body.LINK] = call
    read_already = response.is_closed  # by the app's own hook, or a transport that makes its answers up
    if call.streamed and ok and not read_already:
        response.stream = body.wrap(response.stream, call, response.headers)
        call.keep_open()
    else:
        # The SDK reads the body of a streamed error now.
        call.ledger.enter("stream" if call.streamed and not read_already else "other")
        if call.streamed and ok:
            _take_whole(call, response)
        call.streamed = False
        if ok:
            call.content = response


def _take_whole(call: LLMCall, response: Any) -> None:
    content = getattr(response, "_content", None)
    call.body = ends(content) if content is not None else None
    if call.attributes.get(names.GEN_AI_REQUEST_STREAM):
        call.attributes[names.AGENT_RUNTIME_STREAM_OUTCOME] = "drained"


def _send_raised(call: LLMCall, error: BaseException) -> None:
    call.inside = call.streamed = False
    _failed(call, error)
    call.ledger.enter("other")


def _belongs(call: LLMCall, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    # An event hook or a token provider may make requests of its own while the call is under way.
    if call.closed:
        return False
    if call.transport is None or args[0] is call.transport:
        return True
    request = args[1] if len(args) > 1 else kwargs["request"]
    return bool(request.url.host == call.attributes.get(names.SERVER_ADDRESS))


# -- Client._send_single_request: one per request on the wire -------------------------------------------


def _wire_begins(args: tuple[Any, ...], kwargs: dict[str, Any]) -> LLMCall | None:
    call = context.call.get()
    if call is None or not _belongs(call, args, kwargs):
        official_http.watch(args[0], args[1] if len(args) > 1 else kwargs["request"])
        return None
    if call.attempt is not None:  # a redirect or an authentication round: the try before it is over
        _close(call)
    _open(call, args[0], args[1] if len(args) > 1 else kwargs["request"])
    return call


def _wire_returned(call: LLMCall, response: Any) -> None:
    attempt = call.attempt
    _answered(attempt, response)
    if call.streamed:
        _close(call)
        call.ledger.enter("other")
    else:
        call.ledger.enter("stream")


def _wire_raised(call: LLMCall, error: BaseException) -> None:
    _failed(call, error)


def _open(call: LLMCall, client: Any, request: Any) -> None:
    origin = origin_of(request.url)
    attributes: dict[str, Any] = {
        names.HTTP_REQUEST_METHOD: request.method,
        names.SERVER_ADDRESS: origin.address,
        names.SERVER_PORT: origin.port,
        names.URL_FULL: origin.full,
        names.RESILIENCE_RETRY_ATTEMPT: call.retries,
    }
    if call.sends:
        attributes[names.HTTP_REQUEST_RESEND_COUNT] = call.sends
    if call.waited is not None:
        attributes[names.RESILIENCE_RETRY_DELAY] = call.waited
        call.waited = None
    call.sends += 1
    attempt = Attempt(call, attributes)
    attempt.visible = not official_http.watched_by_the_app(client, request)
    attempt.open(call)
    call.attempt = attempt
    call.ledger.enter("server", attempt.begin)
    if runtime.config().allowed_hosts or call.injected:
        from watchkeep.propagation import carry

        carry(call, attempt, request.headers, f"{origin.address}:{origin.port}")


def _answered(attempt: Attempt, response: Any) -> None:
    attributes = attempt.attributes
    if names.HTTP_RESPONSE_STATUS_CODE in attributes:
        return
    status = response.status_code
    attributes[names.HTTP_RESPONSE_STATUS_CODE] = status
    version = response.extensions.get("http_version")
    if version is not None:
        attributes[names.NETWORK_PROTOCOL_VERSION] = version[5:].decode("ascii")
    found = blame.of_status(status)
    attempt.call.failure = found
    if found is not None:
        attempt.fail(found)
    if attempt.checkout is None:
        attempt.call.attributes[names.RESILIENCE_CALL_PARTIAL] = True


def _failed(call: LLMCall, error: BaseException) -> None:
    attempt = call.attempt
    if attempt is None:
        return
    found = blame.of_exception(error, call.ledger.phase)
    call.failure = found
    attempt.fail(found, message_of(error))
    _close(call)


def _close(call: LLMCall) -> None:
    attempt, call.attempt = call.attempt, None
    attempt.close(clock.monotonic())


# -- Response.json: the SDK decodes a plain answer; a second time is not needed ----------------------------------


def _decoding(args: tuple[Any, ...], kwargs: dict[str, Any]) -> LLMCall | None:
    call = context.call.get()
    return call if call is not None and args[0].extensions.get(body.LINK) is call else None


def _decoded(call: LLMCall, data: Any) -> None:
    if isinstance(data, dict) and call.read_answer is not None and not call.facts:
        call.read_answer(call, data)


# -- whose HTTP span it is --------------------------------------------------------------------------------


def _has_wire_seam(client: Any) -> bool:
    return hasattr(client, "_send_single_request")


def _targets(stack: str) -> tuple[Target, ...]:
    decoded = Target(f"{stack}._models:Response.json", _decoding, _decoded, needed=False)
    return decoded, *(
        target
        for client in ("Client", "AsyncClient")
        for target in (
            Target(f"{stack}._client:{client}.send", _send_begins, _send_returned, _send_raised),
            Target(
                f"{stack}._client:{client}._send_single_request",
                _wire_begins,
                _wire_returned,
                _wire_raised,
                needed=False,
            ),
        )
    )


INTEGRATION = Integration(
    name="http",
    scope=SCOPE,
    targets=tuple(target for stack in STACKS for target in _targets(stack)),
    supported={"httpx": ("0.27", "1"), "httpx2": ("2.8", "3")},
    stopped=official_http.unload,
)

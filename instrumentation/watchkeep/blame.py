"""Whose fault a failure is: the provider's, the network's or our own (design: time ledger and blame).

Exceptions are told by the names of their classes along the chain of causes, since the libraries that
define them may be there in any version, or not at all.
"""

from __future__ import annotations

from collections.abc import Iterator

from watchkeep import names

_PROVIDER_STATUS = frozenset((408, 409, 429))

# Class name -> (error.type, or "" for the class name itself; origin). Looked up along the class's bases.
_CLASSES: dict[str, tuple[str, str]] = {
    "CircuitBreakerError": (names.CIRCUIT_OPEN, names.CLIENT_FAULT),
    "PoolTimeout": (names.POOL_TIMEOUT, names.CLIENT_FAULT),
    "ConnectTimeout": (names.CONNECT_TIMEOUT, names.NETWORK),
    "WriteTimeout": (names.WRITE_TIMEOUT, names.NETWORK),
    "ReadTimeout": (names.READ_TIMEOUT, names.PROVIDER),
    "CancelledError": (names.CANCELLED, names.CLIENT_FAULT),
    "KeyboardInterrupt": (names.CANCELLED, names.CLIENT_FAULT),
    "GeneratorExit": (names.CANCELLED, names.CLIENT_FAULT),
    "gaierror": (names.DNS_FAILURE, names.NETWORK),
    "SSLError": (names.TLS_FAILURE, names.NETWORK),
    "TransportError": ("", names.NETWORK),
    "NetworkError": ("", names.NETWORK),
    "ProtocolError": ("", names.NETWORK),
    "ConnectionError": ("", names.NETWORK),
}

_ROOT_CAUSES = frozenset((names.DNS_FAILURE, names.TLS_FAILURE))
_IN_THE_BODY = frozenset(("stream", "consumer"))
_MAX_CHAIN = 8

Blame = tuple[str, str]


def of_status(status: int) -> Blame | None:
    """Return (error.type, origin) of an HTTP status, or None when it is no error."""
    if status < 400:
        return None
    provider = status in _PROVIDER_STATUS or status >= 500
    return str(status), names.PROVIDER if provider else names.CLIENT_FAULT


def of_exception(error: BaseException, phase: str = "other") -> Blame:
    """Return (error.type, origin) of an exception that was raised while the call was in `phase`."""
    found: Blame | None = None
    for link in _chain(error):
        blame = _of_class(link)
        if blame is not None and (found is None or blame[0] in _ROOT_CAUSES):
            found = blame
    if found is None:
        return type(error).__name__, names.CLIENT_FAULT
    return _in_body(found) if phase in _IN_THE_BODY else found


def _in_body(blame: Blame) -> Blame:
    # Once the headers are there, silence is a stalled stream and a cut is the provider's.
    if blame[0] == names.READ_TIMEOUT:
        return names.STREAM_STALLED, names.PROVIDER
    if blame[1] == names.NETWORK:
        return blame[0], names.PROVIDER
    return blame


def _of_class(error: BaseException) -> Blame | None:
    for base in type(error).__mro__:
        blame = _CLASSES.get(base.__name__)
        if blame is not None:
            return blame[0] or type(error).__name__, blame[1]
    return None


def _chain(error: BaseException) -> Iterator[BaseException]:
    seen = 0
    link: BaseException | None = error
    while link is not None and seen < _MAX_CHAIN:
        yield link
        seen += 1
        # Only the declared cause: the implicit context may be another call's failure being handled. But httpcore
        # raises its own exceptions again `from None`, which leaves what they came from in the context alone.
        cut = type(link).__module__.startswith("httpcore")
        link = link.__cause__ or (link.__context__ if cut else None)

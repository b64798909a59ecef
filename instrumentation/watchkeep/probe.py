"""Ask an end point whether it takes OTLP, by one empty request with the headers of the settings."""

from __future__ import annotations

import socket
import ssl
from http.client import HTTPException
from typing import NamedTuple
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import HTTPRedirectHandler, HTTPSHandler, Request, build_opener

from watchkeep.export.settings import GRPC, Target

SECONDS = 2.0


class _NoRedirect(HTTPRedirectHandler):
    def redirect_request(self, *_: object) -> None:
        """Follow none, as an exporter follows none."""


class Answer(NamedTuple):
    """What the end point made of it."""

    reached: bool
    good: bool
    text: str


def ask(target: Target) -> Answer:
    """Send an empty request, which every receiver takes and nobody stores."""
    try:
        return _connect(target) if target.protocol == GRPC else _post(target)
    except (OSError, HTTPException, ValueError) as error:
        reason = getattr(error, "reason", None) or error
        text = getattr(reason, "strerror", None) or str(reason) or type(error).__name__
        return Answer(False, False, f"{_place(target)} does not answer ({text}); {_ADVICE}")


_ADVICE = (
    "start a collector there, or name another with OTEL_EXPORTER_OTLP_ENDPOINT; "
    "`watchkeep run --console` shows traces without one"
)


def _post(target: Target) -> Answer:
    # An empty body is an empty ExportServiceRequest in protobuf.
    headers = {"Content-Type": "application/x-protobuf", **dict(target.headers)}
    request = Request(target.endpoint, data=b"", headers=headers, method="POST")  # noqa: S310 - checked to be http
    opener = build_opener(HTTPSHandler(context=_context(target)), _NoRedirect)
    try:
        with opener.open(request, timeout=min(SECONDS, target.timeout)) as response:
            return Answer(True, True, f"{_place(target)} answers {response.status}")
    except HTTPError as refused:
        refused.close()
        return Answer(True, False, f"{_place(target)} answers {refused.code}; {_meaning(refused.code)}")


def _meaning(status: int) -> str:
    if status in (401, 403):
        return "check OTEL_EXPORTER_OTLP_HEADERS"
    if status in (404, 405):
        return "that is no OTLP/HTTP receiver: check port and path (4318 is usual, 4317 is gRPC)"
    if status < 400:
        return "it redirects, which exporters do not follow: name the final URL"
    return "the receiver has a problem; look at its log"


def _context(target: Target) -> ssl.SSLContext | None:
    if urlsplit(target.endpoint).scheme != "https":
        return None
    context = ssl.create_default_context(cafile=target.certificate)
    if target.client_certificate:
        context.load_cert_chain(target.client_certificate, target.client_key)
    return context


def _connect(target: Target) -> Answer:
    parts = urlsplit(target.endpoint)
    port = parts.port or (443 if parts.scheme == "https" else 4317)
    with socket.create_connection((parts.hostname or "", port), SECONDS):
        return Answer(True, True, f"{_place(target)} takes connections (gRPC; nothing was sent)")


def _place(target: Target) -> str:
    return target.origin + urlsplit(target.endpoint).path

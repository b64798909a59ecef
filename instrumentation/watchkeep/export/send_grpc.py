"""One request over gRPC, for who asks for it: needs the `otlp` extra, but neither protobuf nor the SDK's exporter."""

from __future__ import annotations

import time
from importlib import import_module
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from watchkeep.export.send import Reply

if TYPE_CHECKING:
    from watchkeep.export.settings import Target

_SERVICES = {"traces": "trace.v1.Trace", "metrics": "metrics.v1.Metrics", "logs": "logs.v1.Logs"}
_STATUS = {
    "INVALID_ARGUMENT": 400,
    "UNAUTHENTICATED": 401,
    "PERMISSION_DENIED": 403,
    "NOT_FOUND": 404,
    "RESOURCE_EXHAUSTED": 429,
    "UNIMPLEMENTED": 501,
    "INTERNAL": 500,
    "UNKNOWN": 500,
}


class GrpcSender:
    """Sends to one end point over one channel."""

    def __init__(self, target: Target) -> None:
        self.target = target
        self.metadata = tuple((name.lower(), value) for name, value in target.headers)
        self._channel: Any = None
        self._call: Any = None

    def prepare(self) -> None:
        """Import what a request needs."""
        import_module("grpc")

    def send(self, body: bytes, deadline: float) -> Reply:
        """Make one Export call; never raises for what the network does."""
        grpc: Any = import_module("grpc")
        left = deadline - time.monotonic()
        if left <= 0:
            return Reply(error="timeout")
        try:
            if self._call is None:
                self._open(grpc)
            answer = self._call(body, timeout=left, metadata=self.metadata, compression=self._compression(grpc))
            return Reply(200, answer)
        except grpc.RpcError as error:
            return _refused(error)
        except (ValueError, OSError) as error:  # a channel that abort() closed, a certificate that is none
            self.close()
            return Reply(error=type(error).__name__)

    def close(self) -> None:
        """Close the channel."""
        channel, self._channel, self._call = self._channel, None, None
        if channel is not None:
            channel.close()

    abort = close

    def _open(self, grpc: Any) -> None:
        where = urlsplit(self.target.endpoint)
        address = f"{self.target.host}:{self.target.port}"
        if where.scheme == "https":
            channel = grpc.secure_channel(address, self._credentials(grpc))
        else:
            channel = grpc.insecure_channel(address)
        service = f"/opentelemetry.proto.collector.{_SERVICES[self.target.signal]}Service/Export"
        self._channel = channel
        self._call = channel.unary_unary(service)  # without serialisers, bytes go in and come out

    def _credentials(self, grpc: Any) -> Any:
        target = self.target
        files = target.certificate, target.client_key, target.client_certificate
        return grpc.ssl_channel_credentials(*[_content(path) for path in files])

    def _compression(self, grpc: Any) -> Any:
        kinds = grpc.Compression
        known = {"gzip": kinds.Gzip, "deflate": kinds.Deflate}
        return known.get(self.target.compression, kinds.NoCompression)


def _content(path: str | None) -> bytes | None:
    if path is None:
        return None
    with open(path, "rb") as opened:
        return opened.read()


def _refused(error: Any) -> Reply:
    code = error.code().name
    status = _STATUS.get(code, 0)
    if status == 429 and "larger than max" in (error.details() or ""):
        status = 413
    return Reply(status, error="timeout" if code == "DEADLINE_EXCEEDED" else code.lower())

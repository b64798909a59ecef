"""A fake OTLP end point in a process of its own, which can misbehave in every way a real one does.

    with OtlpSink() as sink:
        ...  # send to sink.endpoint
        sink.spans()

The child needs the standard library only; what it kept is decoded here, with opentelemetry-proto.
"""

from __future__ import annotations

import base64
import json
import subprocess
import sys
import time
import urllib.request
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Item:
    """A span, log record or metric as it arrived."""

    name: str
    resource: dict[str, Any]
    scope: str
    attributes: dict[str, Any]
    message: Any  # the protobuf message
    trace_id: str = ""
    span_id: str = ""
    parent_id: str = ""
    body: Any = None
    points: list[dict[str, Any]] = field(default_factory=list)
    schema_url: str = ""


@dataclass
class Request:
    """One request as the end point saw it."""

    path: str
    headers: dict[str, str]
    status: int  # what was answered; 0 when nothing was
    time: float
    size: int
    body: bytes


class OtlpSink:
    """Starts the end point; leaves nothing behind."""

    def __init__(self, certificate: str = "", key: str = "", authority: str = "") -> None:
        self.arguments = [certificate, key, authority]
        self.scheme = "https" if certificate else "http"

    def __enter__(self) -> OtlpSink:
        self.process = subprocess.Popen(
            [sys.executable, "-S", "-E", __file__, *self.arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        self.port, self.control = map(int, self.process.stdout.readline().split())
        self.endpoint = f"{self.scheme}://127.0.0.1:{self.port}"
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                pipe.close()

    def mode(self, name: str = "ok", **options: Any) -> None:
        """Behave like `name` from now on; `times`: only so often, `path`: only there."""
        self._ask("mode", {"name": name, **options})

    def refuse(self) -> None:
        """Close the port."""
        self._ask("refuse", {})

    def accept(self) -> None:
        """Open the port again."""
        self._ask("accept", {})

    def forget(self) -> None:
        """Drop what has arrived."""
        self._ask("forget", {})

    def requests(self, path: str = "") -> list[Request]:
        """Give every request, also the refused ones."""
        found = [
            Request(
                each["path"],
                each["headers"],
                each["status"],
                each["time"],
                each["size"],
                base64.b64decode(each["body"]),
            )
            for each in self._ask("requests", {})
        ]
        return [each for each in found if path in each.path]

    def _accepted(self, signal: str) -> list[bytes]:
        return [each.body for each in self.requests(f"/v1/{signal}") if each.status == 200]

    def spans(self) -> list[Item]:
        """Give the spans of all accepted requests, in order."""
        from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

        found = []
        for body in self._accepted("traces"):
            for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
                for scope in resource.scope_spans:
                    found += [_span(one, resource, scope) for one in scope.spans]
        return found

    def logs(self) -> list[Item]:
        """Give the log records of all accepted requests, in order."""
        from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest

        found = []
        for body in self._accepted("logs"):
            for resource in ExportLogsServiceRequest.FromString(body).resource_logs:
                for scope in resource.scope_logs:
                    found += [_log(one, resource, scope) for one in scope.log_records]
        return found

    def metrics(self) -> list[Item]:
        """Give the metrics of all accepted requests, in order; a later one of the same name is newer."""
        from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

        found = []
        for body in self._accepted("metrics"):
            for resource in ExportMetricsServiceRequest.FromString(body).resource_metrics:
                for scope in resource.scope_metrics:
                    found += [_metric(one, resource, scope) for one in scope.metrics]
        return found

    def wait(self, check: Any, timeout: float = 10.0) -> Any:
        """Wait until `check()` is true, and give what it returned."""
        until = time.monotonic() + timeout
        while not (found := check()):
            if time.monotonic() > until:
                raise AssertionError(f"not within {timeout} s: {[(one.path, one.status) for one in self.requests()]}")
            time.sleep(0.02)
        return found

    def _ask(self, what: str, options: dict[str, Any]) -> Any:
        url = f"http://127.0.0.1:{self.control}/{what}"
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(urllib.request.Request(url, json.dumps(options).encode()), timeout=20) as answer:
            return json.load(answer)


def value(any_value: Any) -> Any:
    """Turn an AnyValue into a Python value."""
    kind = any_value.WhichOneof("value")
    if kind is None:
        return None
    if kind == "array_value":
        return [value(each) for each in any_value.array_value.values]
    if kind == "kvlist_value":
        return attributes(any_value.kvlist_value.values)
    return getattr(any_value, kind)


def attributes(pairs: Any) -> dict[str, Any]:
    """Turn KeyValues into a dict."""
    return {pair.key: value(pair.value) for pair in pairs}


def _base(one: Any, resource: Any, scope: Any, name: str) -> Item:
    own = attributes(getattr(one, "attributes", ()))
    return Item(name, attributes(resource.resource.attributes), scope.scope.name, own, one, schema_url=scope.schema_url)


def _span(one: Any, resource: Any, scope: Any) -> Item:
    item = _base(one, resource, scope, one.name)
    item.trace_id, item.span_id = one.trace_id.hex(), one.span_id.hex()
    item.parent_id = one.parent_span_id.hex()
    return item


def _log(one: Any, resource: Any, scope: Any) -> Item:
    item = _base(one, resource, scope, one.event_name)
    item.trace_id, item.span_id, item.body = one.trace_id.hex(), one.span_id.hex(), value(one.body)
    return item


def _metric(one: Any, resource: Any, scope: Any) -> Item:
    item = _base(one, resource, scope, one.name)
    kind = one.WhichOneof("data")
    for point in getattr(one, kind).data_points if kind else ():
        item.points.append({"attributes": attributes(point.attributes), "value": _number(point), "message": point})
    return item


def _number(point: Any) -> Any:
    if hasattr(point, "as_int"):
        return getattr(point, point.WhichOneof("value"))
    return point.count


# The rest runs in the child.


class _State:
    def __init__(self) -> None:
        self.requests: list[dict[str, Any]] = []
        self.mode: dict[str, Any] = {"name": "ok"}

    def take(self, path: str, body: bytes) -> dict[str, Any]:
        """Choose how this request is dealt with, and count it against the mode's times."""
        mode = self.mode
        if mode.get("path", "") not in path or (mode.get("holding", "").encode() not in body):
            return {"name": "ok"}
        if "over" in mode and len(body) <= mode["over"]:
            return {"name": "ok"}
        if "times" in mode:
            mode["times"] -= 1
            if mode["times"] < 0:
                return {"name": "ok"}
        return mode


def _child() -> None:
    import gzip
    import socket
    import ssl
    import struct
    import threading
    import zlib
    from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

    state = _State()
    certificate, key, authority = sys.argv[1:4]

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        request_queue_size = 256
        allow_reuse_address = True

        def handle_error(self, request: Any, client_address: Any) -> None:
            return

    class Quiet(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def log_message(self, *_: Any) -> None:
            return

        entry: dict[str, Any] | None = None

        def answer(self, status: int, body: bytes = b"", **headers: str) -> None:
            if self.entry is not None:
                self.entry["status"] = status  # first: who has the answer may ask at once what has arrived
            self.send_response(status)
            for name, text in headers.items():
                self.send_header(name.replace("_", "-"), text)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    class Otlp(Quiet):
        def do_POST(self) -> None:
            raw = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            how = self.headers.get("Content-Encoding")
            body = gzip.decompress(raw) if how == "gzip" else zlib.decompress(raw) if how == "deflate" else raw
            mode = state.take(self.path, body)
            entry = {
                "path": self.path,
                "headers": {name.lower(): text for name, text in self.headers.items()},
                "status": 0,
                "time": time.time(),
                "size": len(raw),
                "body": base64.b64encode(body).decode(),
            }
            state.requests.append(entry)
            self.entry = entry
            getattr(self, mode["name"], self.ok)(mode)

        def ok(self, mode: dict[str, Any]) -> None:
            self.answer(200, Content_Type="application/x-protobuf")

        def slow(self, mode: dict[str, Any]) -> None:
            time.sleep(mode.get("seconds", 0.2))
            self.ok(mode)

        def hang(self, mode: dict[str, Any]) -> None:
            self.close_connection = True
            time.sleep(mode.get("seconds", 60))

        def status(self, mode: dict[str, Any]) -> None:
            self.answer(mode["code"], b"no", **mode.get("headers", {}))

        def drip(self, mode: dict[str, Any]) -> None:
            self.close_connection = True
            for byte in b"HTTP/1.1 200 OK\r\nX: " + b"x" * 600:
                self.wfile.write(bytes((byte,)))
                time.sleep(0.1)

        def reset(self, mode: dict[str, Any]) -> None:
            self.close_connection = True
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()

        def half(self, mode: dict[str, Any]) -> None:
            self.close_connection = True
            self.wfile.write(b"HTTP/1.1 2")

        def partial(self, mode: dict[str, Any]) -> None:
            words = b"too old"
            inner = b"\x08" + bytes((mode["rejected"],)) + b"\x12" + bytes((len(words),)) + words
            self.answer(200, b"\x0a" + bytes((len(inner),)) + inner)

        def large(self, mode: dict[str, Any]) -> None:
            self.answer(200, b"\x0a" * 10_000_000)

    class Control(Quiet):
        def do_POST(self) -> None:
            options = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            found = getattr(self, self.path[1:])(options)
            self.answer(200, json.dumps(found).encode())

        def mode(self, options: dict[str, Any]) -> None:
            state.mode = options

        def requests(self, options: dict[str, Any]) -> Any:
            return state.requests

        def forget(self, options: dict[str, Any]) -> None:
            state.requests = []

        def refuse(self, options: dict[str, Any]) -> None:
            servers[0].shutdown()
            servers[0].server_close()

        def accept(self, options: dict[str, Any]) -> None:
            servers[0] = listen(port)

    def listen(at: int) -> Server:
        server = Server(("127.0.0.1", at), Otlp)
        if certificate:
            context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
            context.load_cert_chain(certificate, key or None)
            if authority:
                context.load_verify_locations(authority)
                context.verify_mode = ssl.CERT_REQUIRED
            server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        return server

    servers = [listen(0)]
    port = servers[0].server_address[1]
    control = Server(("127.0.0.1", 0), Control)
    threading.Thread(target=control.serve_forever, args=(0.01,), daemon=True).start()
    sys.stdout.write(f"{port} {control.server_address[1]}\n")
    sys.stdout.flush()
    sys.stdin.read()  # ends with the parent


if __name__ == "__main__":
    _child()

"""A loopback HTTP/1.1 server that ends connections as its paths say, and can go away and come back on its port."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class _Handler(BaseHTTPRequestHandler):
    """`/` keeps the connection; the other paths are methods below."""

    protocol_version = "HTTP/1.1"
    server: _Server

    def setup(self) -> None:
        super().setup()
        self.server.open.append(self.connection)

    def do_GET(self) -> None:
        getattr(self, self.path.strip("/") or "fine")()

    def fine(self, *headers: tuple[str, str], length: int = 2) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(length))
        for header in headers:
            self.send_header(*header)
        self.end_headers()
        self.wfile.write(b"ok")

    def last(self) -> None:
        """Say that this answer is the last one on the connection."""
        self.fine(("Connection", "close"))

    def bye(self) -> None:
        """Close the connection a while after the answer, without having said so."""
        self.fine()
        self.server.leaving.wait(0.1)  # not while the client still looks at it
        self.close_connection = True

    def drop(self) -> None:
        """Close the connection instead of answering."""
        self.close_connection = True

    def cut(self) -> None:
        """Close the connection in the middle of the body."""
        self.fine(length=100)
        self.close_connection = True

    def slow(self) -> None:
        """Answer only when the server goes away."""
        self.server.leaving.wait(20)
        self.close_connection = True

    def log_message(self, *_: Any) -> None:
        pass


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def __init__(self, port: int) -> None:
        self.open: list[socket.socket] = []
        self.leaving = threading.Event()
        super().__init__(("127.0.0.1", port), _Handler)

    def handle_error(self, *_: Any) -> None:
        pass


class PoolServer:
    """The server; `port` stays the same over `stop()` and `start()`."""

    def __init__(self) -> None:
        self.port = 0
        self.start()

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Listen (again)."""
        self._server = _Server(self.port)
        self.port = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Refuse new connections and end those that are there."""
        server = self._server
        server.leaving.set()
        server.shutdown()
        server.server_close()
        self._thread.join(10)
        for connection in server.open:
            with suppress(OSError):  # it is gone already
                connection.shutdown(socket.SHUT_RDWR)

    def __enter__(self) -> PoolServer:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

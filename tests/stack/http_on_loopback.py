"""Two small servers on loopback: one hears what Alertmanager sends, one stands between an app and the collector."""

from __future__ import annotations

import json
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, ClassVar


class _Server:
    """A threaded HTTP server that takes every POST."""

    def __init__(self) -> None:
        owner = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("content-length") or 0))
                self.send_response(owner.answer(self.path, body, dict(self.headers)))
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                """Say nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def answer(self, path: str, body: bytes, headers: dict[str, str]) -> int:
        """Take a request; return the status to answer."""
        raise NotImplementedError

    def __enter__(self) -> Any:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._server.shutdown()
        self._server.server_close()


class Webhook(_Server):
    """Hears notifications."""

    def __init__(self) -> None:
        super().__init__()
        self.notifications: list[dict[str, Any]] = []
        self.paths: set[str] = set()

    def answer(self, path: str, body: bytes, headers: dict[str, str]) -> int:
        """Keep what came, and when."""
        self.paths.add(path)
        self.notifications.append({**json.loads(body), "at": time.time()})
        return 200

    def alerts(self, name: str, status: str, **labels: str) -> list[dict[str, Any]]:
        """Return the alerts of a name, status and labels that were told, in order."""
        return [
            alert
            for notification in list(self.notifications)
            for alert in notification["alerts"]
            if alert["labels"]["alertname"] == name and alert["status"] == status
            if labels.items() <= alert["labels"].items()
        ]

    def groups(self, name: str, status: str) -> list[dict[str, Any]]:
        """Return the notifications of a name and status, in order."""
        return [
            each
            for each in list(self.notifications)
            if each["groupLabels"].get("alertname") == name and each["status"] == status
        ]


class Gateway(_Server):
    """Hands OTLP on to the collector, unless `refuse` has a status for it."""

    _FORWARDED: ClassVar = ("content-type", "content-encoding")

    def __init__(self, collector: str, refuse: Callable[[str], int]) -> None:
        super().__init__()
        self.collector = collector
        self.refuse = refuse

    def answer(self, path: str, body: bytes, headers: dict[str, str]) -> int:
        """Refuse, or let the collector answer."""
        status = self.refuse(path)
        if status:
            return status
        kept = {name: text for name, text in headers.items() if name.lower() in self._FORWARDED}
        try:
            with urllib.request.urlopen(urllib.request.Request(self.collector + path, body, kept), timeout=10) as done:
                done.read()
                return done.status
        except urllib.error.HTTPError as error:
            return error.code

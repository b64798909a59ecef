"""The other side of the bench: the scripted LLM server and an OTLP end point that drops what it gets."""

from __future__ import annotations

import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "examples"))

from llm_server import LLMServer

REFUSED = {"status": 429, "retry_after_ms": 1}
PLAN = {
    "rules": [
        {"match": {"model": "bench-stream"}, "default": {"chunks": 49}},
        {"match": {"model": "bench-retry"}, "steps": [REFUSED, REFUSED, "ok"] * 3000},
    ]
}


class Drop(BaseHTTPRequestHandler):
    """Answers every export with 200 and nothing."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def main() -> None:
    otlp = ThreadingHTTPServer(("127.0.0.1", 0), Drop)
    threading.Thread(target=otlp.serve_forever, daemon=True).start()
    with LLMServer() as server:
        server.plan(PLAN)
        print(server.base_url, f"http://127.0.0.1:{otlp.server_address[1]}", flush=True)
        threading.Event().wait()


if __name__ == "__main__":
    main()

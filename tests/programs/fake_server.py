"""A tiny stand-in for each server of the stack, told apart by the name that it is called by.

It answers `--version`, verifies files (refusing one that holds the word BROKEN), and else listens on the server's own
ports, is ready, and remembers how often it was started. Files in the folder FAKE_DIR make it misbehave:
`<name>.dies` ends it at once with those words, `<name>.deaf` lets it ignore SIGTERM, `<name>.slow` keeps it from
becoming ready, `<name>.version` is what it says for a version.
"""

import json
import os
import pathlib
import signal
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

name = pathlib.Path(sys.argv[0]).name
control = pathlib.Path(__file__).resolve().parent
VERSIONS = json.loads((control / "versions.json").read_text())
PORTS = {
    "otelcol": ("WATCHKEEP_COLLECTOR_HEALTH_PORT", "WATCHKEEP_OTLP_HTTP_PORT", "WATCHKEEP_OTLP_GRPC_PORT"),
    "prometheus": ("WATCHKEEP_PROMETHEUS_URL",),
    "alertmanager": ("WATCHKEEP_ALERTMANAGER_URL",),
    "loki": ("WATCHKEEP_LOKI_PORT",),
    "tempo": ("WATCHKEEP_TEMPO_PORT",),
}
FOLDERS = {"otelcol": "collector"}


def told(what):
    file = control / f"{name}.{what}"
    return file.read_text() if file.exists() else None


def verify():
    for file in pathlib.Path(os.environ["WATCHKEEP_STACK_ETC"]).rglob("*.yaml"):
        if "BROKEN" in file.read_text():
            print(f"checking\nFAILED: {file}: line 1: found what cannot be there\n")
            sys.exit(1)


class Answer(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(503 if told("slow") is not None else 200)
        self.end_headers()
        if self.path == "/api/v2/status":
            files = [each.partition("=")[2] for each in sys.argv if each.startswith("--config.file=")]
            text = pathlib.Path(files[0]).read_text() if files else ""
            self.wfile.write(json.dumps({"config": {"original": text}}).encode())

    def log_message(self, *_):
        pass


def serve():
    words = told("dies")
    if words is not None:
        print("starting", flush=True)
        sys.exit(words)
    if told("deaf") is not None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    kept = pathlib.Path(os.environ["WATCHKEEP_STACK_DATA"], FOLDERS.get(name, name), "starts")
    kept.write_text(str(int(kept.read_text() if kept.exists() else 0) + 1))
    print(f"{name} start {kept.read_text()}", flush=True)
    for variable in PORTS[name]:
        port = int(os.environ[variable].rpartition(":")[2])
        server = ThreadingHTTPServer(("127.0.0.1", port), Answer)
        threading.Thread(target=server.serve_forever, daemon=True).start()
    while True:
        signal.pause()


if "--version" in sys.argv:
    print(f"{name}, version {told('version') or VERSIONS[name]} (branch: none)")
elif any(word in ("validate", "check", "check-config", "-verify-config", "-config.verify=true") for word in sys.argv):
    verify()
else:
    serve()

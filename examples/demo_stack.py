"""The agent team of multi_agent/app.py, watched, again and again, its telemetry sent to the stack.

The local server plays the outage of multi_agent/plan.json in every round, so the breaker opens and closes, calls are
retried, and the dashboards have something to show. Ends with SIGTERM or Ctrl-C. Settings:

    OTEL_EXPORTER_OTLP_ENDPOINT   where the telemetry goes; http://127.0.0.1:4318 without
    DEMO_PAUSE                    seconds between two rounds; 20 without
    DEMO_ROUNDS                   how many; without end when 0
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading

from demo import APP, HERE, SETTINGS
from llm_server import LLMServer

WATCHED = [sys.executable, "-m", "watchkeep", "run", "--service-name", "multi-agent", "--"]


def main() -> int:
    stopping = threading.Event()
    for each in (signal.SIGTERM, signal.SIGINT):
        signal.signal(each, lambda *_: stopping.set())
    pause, rounds = float(os.environ.get("DEMO_PAUSE", "20")), int(os.environ.get("DEMO_ROUNDS", "0"))
    done = 0
    while not stopping.is_set() and (not rounds or done < rounds):
        status = one_round(stopping)
        done += 1
        print(f"round {done} ended with {status}", flush=True)
        if not rounds or done < rounds:
            stopping.wait(pause)
    return 0


def one_round(stopping: threading.Event) -> int:
    """Run the team once against a server of its own, whose plan begins anew; return its exit status."""
    with LLMServer(HERE / "plan.json") as server:
        local = {"OPENAI_BASE_URL": server.base_url, "OPENAI_API_KEY": "local"}
        # In a process group of its own: a Ctrl-C ends this loop, and the round is ended by it.
        child = subprocess.Popen([*WATCHED, *APP], env={**SETTINGS, **os.environ, **local}, start_new_session=True)
        while child.poll() is None:
            if stopping.wait(0.2):
                child.terminate()
                child.wait()
        return child.returncode


if __name__ == "__main__":
    sys.exit(main())

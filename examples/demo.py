"""The agent team of multi_agent/app.py, watched, while its provider has a bad day (about 20 seconds).

Starts the local server with the outage of multi_agent/plan.json and runs the unchanged app against it:

    watchkeep run --service-name multi-agent --console -- python examples/multi_agent/app.py
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from llm_server import LLMServer

HERE = Path(__file__).resolve().parent / "multi_agent"
WATCHED = [sys.executable, "-m", "watchkeep", "run", "--service-name", "multi-agent", "--console", "--"]
APP = [sys.executable, str(HERE / "app.py")]
ON_THIS_TERMINAL = {  # nobody listens for more
    "OTEL_TRACES_EXPORTER": "console",
    "OTEL_METRICS_EXPORTER": "none",
    "OTEL_LOGS_EXPORTER": "none",
}
SETTINGS = {  # short waits, so that the breaker opens and closes before your eyes
    "LLM_MAX_RETRIES": "2",
    "LLM_RETRY_INITIAL_DELAY": "0.9",
    "LLM_RETRY_MAX_DELAY": "0.9",
    "LLM_CIRCUIT_BREAKER_THRESHOLD": "3",
    "LLM_CIRCUIT_BREAKER_TIMEOUT": "2.2",
    "LLM_CIRCUIT_BREAKER_HALF_OPEN": "2",
}


def main() -> int:
    with LLMServer(HERE / "plan.json") as server:
        local = {"OPENAI_BASE_URL": server.base_url, "OPENAI_API_KEY": "local"}
        environment = {**SETTINGS, **ON_THIS_TERMINAL, **os.environ, **local}
        child = subprocess.Popen([*WATCHED, *APP], env=environment)
        while True:
            try:
                return child.wait()
            except KeyboardInterrupt:
                pass  # the app got it too; its end is ours


if __name__ == "__main__":
    sys.exit(main())

"""What a call costs, side by side over loopback: the bare SDK, a hand-written floor, and Watchkeep.

    python tests/bench/bench.py [--scale 1] [--cpu]

In instructions (callgrind counts them, so they repeat whatever the machine does), else in CPU time of
interleaved runs. The server and the OTLP end point run in a process of their own.
"""

from __future__ import annotations

import argparse
import glob
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

HERE = Path(__file__).resolve().parent
LABELS = {
    "bare": "bare SDK",
    "floor": "floor: one span, three histogram records",
    "watched": "watched: call, attempts, checkouts, ledger",
}
VARIANTS = tuple(LABELS)
WORKLOADS = ("chat", "stream", "few", "many", "retry")
SHOWN = ("chat", "stream", "retry")
ALONE = ("few", "many")  # counted in the app's thread alone: callgrind stretches time, and the exporter's ticks with it
MORE_CHUNKS, RETRIES = 1000, 2

Costs = dict[str, dict[str, float]]  # variant -> workload -> cost of one call


@contextmanager
def server() -> Iterator[tuple[str, str]]:
    """Run the LLM server and an OTLP end point; give their addresses."""
    child = subprocess.Popen([sys.executable, str(HERE / "server.py")], stdout=subprocess.PIPE, text=True)
    try:
        assert child.stdout is not None
        base_url, endpoint = child.stdout.readline().split()
        yield base_url, endpoint
    finally:
        child.terminate()
        child.wait()


def run(variant: str, base_url: str, endpoint: str, scale: int, folder: str = "") -> dict[str, float]:
    """Run one variant; under callgrind when a folder for its counts is given."""
    command = [sys.executable, str(HERE / "program.py"), variant, base_url, str(scale)]
    if folder:
        out = os.path.join(folder, variant)
        command = [
            "valgrind",
            "--tool=callgrind",
            "--instr-atstart=no",
            "--separate-threads=yes",
            f"--callgrind-out-file={out}",
            *command,
        ]
        command.append("--callgrind")
    environment = {
        **{key: value for key, value in os.environ.items() if not key.startswith(("OTEL_", "WATCHKEEP_"))},
        "OTEL_EXPORTER_OTLP_ENDPOINT": endpoint,
        # All goes out with the flush: callgrind stretches time, and a clock would export dozens of times.
        "OTEL_METRIC_EXPORT_INTERVAL": "3600000",
        "OTEL_BSP_SCHEDULE_DELAY": "3600000",
        "OTEL_BLRP_SCHEDULE_DELAY": "3600000",
        "PYTHONHASHSEED": "0",
    }
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=900, check=False)
    if done.returncode:
        raise RuntimeError(f"{variant} failed:\n{done.stderr[-2000:]}")
    said: dict[str, dict[str, float]] = json.loads(done.stdout.strip().splitlines()[-1])
    return {name: count / said["calls"][name] for name, count in counts(out).items()} if folder else said["cpu"]


def counts(out: str) -> dict[str, int]:
    """Read the instructions of each workload from callgrind's dumps (one file a dump, threads added up)."""
    found: dict[str, int] = {}
    for path in glob.glob(f"{out}*"):
        text = Path(path).read_text(errors="replace")
        trigger = re.search(r"^desc: Trigger: .*?(chat|stream|few|many|retry)", text, re.M)
        total = re.findall(r"^(?:totals|summary): (\d+)", text, re.M)
        thread = re.search(r"^thread: (\d+)", text, re.M)
        if trigger and trigger[1] in ALONE and thread and thread[1] != "1":
            continue
        if trigger and total:
            found[trigger[1]] = found.get(trigger[1], 0) + int(total[-1])
    return found


def instructions(scale: int) -> Costs:
    """Count instructions per call of every variant."""
    with server() as (base_url, endpoint), tempfile.TemporaryDirectory() as folder:
        return {variant: run(variant, base_url, endpoint, scale, folder) for variant in VARIANTS}


def cpu(scale: int, rounds: int) -> Costs:
    """Measure CPU seconds per call: the median of interleaved rounds."""
    seen: dict[str, dict[str, list[float]]] = {v: {w: [] for w in WORKLOADS} for v in VARIANTS}
    with server() as (base_url, endpoint):
        for _ in range(rounds):
            for variant in VARIANTS:
                for workload, spent in run(variant, base_url, endpoint, scale).items():
                    seen[variant][workload].append(spent)
    return {v: {w: statistics.median(values) for w, values in by.items()} for v, by in seen.items()}


def added(costs: Costs, variant: str, workload: str) -> float:
    """Return what a variant adds to the bare SDK."""
    return costs[variant][workload] - costs["bare"][workload]


def report(costs: Costs, unit: str, scale: float) -> str:
    """Lay the figures out, with what one retry and one chunk add."""
    titles = ("chat", "51 chunks", "2 retries")
    lines = [f"{'added per call (' + unit + ')':<44}" + "".join(f"{title:>12}" for title in titles)]
    lines.append(f"{'bare SDK, whole':<44}" + "".join(f"{costs['bare'][w] / scale:>12,.0f}" for w in SHOWN))
    for variant in VARIANTS[1:]:
        cells = "".join(f"{added(costs, variant, w) / scale:>12,.0f}" for w in SHOWN)
        lines.append(f"{LABELS[variant]:<44}{cells}")
    ratio = added(costs, "watched", "chat") / added(costs, "floor", "chat")
    chunk, attempt = per_chunk(costs), per_retry(costs)
    lines.append(
        f"watched / floor, chat: {ratio:.2f}; a chunk: {chunk / scale:.1f}; a retried attempt: {attempt / scale:,.0f}"
    )
    return "\n".join(lines)


def per_chunk(costs: Costs, variant: str = "watched") -> float:
    """Return what one chunk of a stream adds."""
    return (added(costs, variant, "many") - added(costs, variant, "few")) / MORE_CHUNKS


def per_retry(costs: Costs) -> float:
    """Return what one retried attempt adds."""
    return (added(costs, "watched", "retry") - added(costs, "watched", "chat")) / RETRIES


def main() -> int:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scale", type=int, default=1, help="times as many calls")
    parser.add_argument("--cpu", action="store_true", help="CPU time instead of instructions")
    arguments = parser.parse_args()
    if arguments.cpu or not shutil.which("valgrind"):
        print("CPU time, the median of five interleaved rounds (valgrind would count instructions):")
        print(report(cpu(arguments.scale * 4, 5), "us of CPU", 1e-6))
    else:
        print(report(instructions(arguments.scale), "thousand instructions", 1e3))
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""What a call costs, held: in instructions where valgrind is there, else as a ratio to the floor."""

import os
import shutil
import subprocess
import sys

import pytest

import bench

CHAT, RETRY, CHUNK = 2.4e6, 1.3e6, 5e3  # instructions added, attempts and checkouts included
NOISE = 4e3  # per chunk: what the floor, which does nothing at a chunk, is seen to add
RATIO = 3.0
STARTUP_MS, STARTUP_MIB, STARTUP_MODULES = 80, 12, 280

STARTUP = """
import sys, time, resource
def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize()
import openai
before, memory, modules = time.process_time(), resident(), len(sys.modules)
import watchkeep
watchkeep.instrument()
print(time.process_time() - before, resident() - memory, len(sys.modules) - modules)
"""


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("valgrind"), reason="valgrind is not on PATH: the ratio test holds the cost")
def test_a_call_costs_what_it_may_in_instructions():
    """A chat call, a retried attempt and a chunk stay below their figures."""
    costs = bench.instructions(1)
    print(bench.report(costs, "thousand instructions", 1e3))
    assert bench.added(costs, "watched", "chat") <= CHAT
    assert bench.per_retry(costs) <= RETRY
    assert bench.per_chunk(costs) <= CHUNK + max(0, min(NOISE, bench.per_chunk(costs, "floor")))


@pytest.mark.slow
@pytest.mark.skipif(bool(shutil.which("valgrind")), reason="valgrind is on PATH: instructions are counted")
def test_a_call_costs_at_most_three_floors_of_cpu():
    """Without valgrind: the CPU a call adds is held to the floor's, interleaved on the same machine."""
    costs = bench.cpu(4, 5)
    assert bench.added(costs, "watched", "chat") <= RATIO * bench.added(costs, "floor", "chat")


def started(bytecode: str) -> tuple[float, float, float]:
    """Watch an app that has imported openai, in a fresh process; CPU ms, MiB and modules that it took."""
    environment = {**os.environ, "OTEL_TRACES_EXPORTER": "otlp", "PYTHONPYCACHEPREFIX": bytecode}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    command = [sys.executable, "-c", STARTUP]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=True)
    seconds, memory, modules = done.stdout.split()
    return float(seconds) * 1e3, int(memory) / 2**20, int(modules)


def test_start_up_over_an_app_that_has_imported_openai_is_small(tmp_path):
    """Watching adds at most 80 ms of CPU, 12 MiB and 280 modules; the least of five runs, compiled as an install is."""
    started(str(tmp_path))
    runs = [started(str(tmp_path)) for _ in range(5)]
    added = [min(run[index] for run in runs) for index in range(3)]
    print("start-up adds {:.0f} ms, {:.1f} MiB, {:.0f} modules".format(*added))
    assert added[0] <= STARTUP_MS
    assert added[1] <= STARTUP_MIB
    assert added[2] <= STARTUP_MODULES

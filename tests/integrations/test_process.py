"""The process's own figures, held against what the system says of it."""

import gc
import json
import os
import resource
import subprocess
import sys
import threading
import time
from pathlib import Path

import openai
import pytest

import watchkeep
from watchkeep import installer, names
from watchkeep.config import load
from watchkeep.integrations import process
from watchkeep.testing import capture

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="held against /proc")

ALL = {metric.name for metric in process._OBSERVERS}


def chat(server):
    """A call of the library that it comes with: nothing of the app's passes through here."""
    client = openai.OpenAI(base_url=server.base_url, api_key="sk-test")
    answer = client.chat.completions.create(model="gpt-4o", messages=[{"role": "user", "content": "hi"}])
    return answer.choices[0].message.content


EXERCISES = (chat,)


def status(field):
    (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(f"{field}:")]
    return int(line.split()[1])


def test_it_comes_with_the_first_library(watchkeep_capture):
    """All figures are there once any integration is, and gone with them."""
    assert watchkeep_capture.metrics().keys() >= ALL
    watchkeep.uninstrument()
    assert not ALL & watchkeep_capture.metrics().keys()
    watchkeep.instrument()
    assert watchkeep_capture.metrics().keys() >= ALL


def test_it_can_be_switched_off():
    """Its name in the list of what is off is enough."""
    watchkeep.uninstrument()
    config = load({"WATCHKEEP_DISABLED_INTEGRATIONS": "process", "OTEL_METRICS_EXPORTER": "none"}).config
    with capture(config) as captured:
        installer.install("watchkeep.integrations.openai")
        assert not ALL & captured.metrics().keys()


def test_memory_and_threads_are_those_of_proc(watchkeep_capture):
    """Resident and virtual memory within 10 %, threads exactly, one more when one more runs."""
    held = bytearray(os.urandom(1 << 20) * 32)
    assert watchkeep_capture.value("process.memory.usage") == pytest.approx(status("VmRSS") * 1024, rel=0.1)
    assert watchkeep_capture.value("process.memory.virtual") == pytest.approx(status("VmSize") * 1024, rel=0.1)
    before = watchkeep_capture.value("process.thread.count")
    assert before == status("Threads")
    stop = threading.Event()
    thread = threading.Thread(target=stop.wait)
    thread.start()
    assert watchkeep_capture.value("process.thread.count") == before + 1
    stop.set()
    thread.join()
    assert len(held) == 32 << 20


def test_descriptors_are_counted(watchkeep_capture):
    """Five more files are five more."""
    before = watchkeep_capture.value("process.unix.file_descriptor.count")
    opened = [os.open(os.devnull, os.O_RDONLY) for _ in range(5)]
    assert watchkeep_capture.value("process.unix.file_descriptor.count") == before + 5
    for each in opened:
        os.close(each)
    assert before == len(list(Path("/proc/self/fd").iterdir())) - 1


def test_cpu_time_switches_and_faults_are_those_of_the_system(watchkeep_capture):
    """User and system seconds, switches by kind and page faults by kind are the system's own counts."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    value = watchkeep_capture.value
    assert value("process.cpu.time", cpu_mode="user") == pytest.approx(used.ru_utime, abs=0.2)
    assert value("process.cpu.time", cpu_mode="system") == pytest.approx(used.ru_stime, abs=0.2)
    switches = value("process.context_switches", process_context_switch_type="voluntary")
    assert used.ru_nvcsw <= switches <= used.ru_nvcsw + 100
    faults = value("process.paging.faults", system_paging_fault_type="minor")
    assert used.ru_minflt <= faults <= used.ru_minflt + 5000


def test_utilization_is_the_share_of_the_cpus_since_the_last_reading(watchkeep_capture, monkeypatch):
    """One busy thread on n CPUs is about 1/n; a second reader in the same second is told the same."""
    monkeypatch.setattr(process, "_MIN_INTERVAL", 0.0)
    process._utilization()
    until = time.process_time() + 0.3
    begun, before = time.monotonic(), time.process_time()
    while time.process_time() < until:
        pass
    used, passed = time.process_time() - before, time.monotonic() - begun
    monkeypatch.setattr(process, "_MIN_INTERVAL", 60.0)
    process._own.utilization = None
    points = watchkeep_capture.points("process.cpu.utilization")
    # the reading lies between the two moments, however far a busy machine holds them apart
    least, most = used / (time.monotonic() - begun), (time.process_time() - before) / passed
    assert 0.8 * least <= sum(point.value for point in points) * process._cpus() <= 1.2 * most
    assert [point.value for point in watchkeep_capture.points("process.cpu.utilization")] == [
        point.value for point in points
    ]


def test_uptime_is_the_age_of_the_process(watchkeep_capture):
    """It is what ps says, and grows with the clock."""
    said = int(subprocess.run(["ps", "-o", "etimes=", "-p", str(os.getpid())], capture_output=True, check=True).stdout)
    begun = time.monotonic()
    first = watchkeep_capture.value("process.uptime")
    inner = time.monotonic()
    assert first == pytest.approx(said, abs=2)
    time.sleep(0.1)
    least = time.monotonic() - inner
    second = watchkeep_capture.value("process.uptime")
    # /proc counts a process's start in hundredths of a second
    assert least - 0.02 <= second - first <= time.monotonic() - begun + 0.02


def test_collections_are_counted_by_generation(watchkeep_capture, request):
    """One full collection is one more of the oldest generation, with what it found."""
    gc.disable()  # a collection that comes by itself would be one more
    request.addfinalizer(gc.enable)
    before = watchkeep_capture.value("cpython.gc.collections", cpython_gc_generation=2)
    found = watchkeep_capture.value("cpython.gc.collected_objects", cpython_gc_generation=2)
    for _ in range(50):
        loop = []
        loop.append(loop)
    del loop
    gc.collect()
    assert watchkeep_capture.value("cpython.gc.collections", cpython_gc_generation=2) == before + 1
    assert watchkeep_capture.value("cpython.gc.collected_objects", cpython_gc_generation=2) >= found + 50
    generations = {
        point.attributes[names.CPYTHON_GC_GENERATION] for point in watchkeep_capture.points("cpython.gc.collections")
    }
    assert generations == {0, 1, 2}


def test_a_forked_child_starts_anew(watchkeep_capture):
    """CPU time, collections and uptime of a child are its own, not its parent's too."""
    gc.collect()
    until = time.process_time() + 0.3
    while time.process_time() < until:
        pass
    reader, writer = os.pipe()
    pid = os.fork()
    if not pid:
        gc.disable()
        value = watchkeep_capture.value
        found = [
            value("process.cpu.time"),
            value("cpython.gc.collections", cpython_gc_generation=2),
            value("process.uptime"),
        ]
        os.write(writer, json.dumps(found).encode())
        os._exit(0)
    os.waitpid(pid, 0)
    cpu, collections, uptime = json.loads(os.read(reader, 1000))
    os.close(reader)
    os.close(writer)
    assert cpu < 0.25 < watchkeep_capture.value("process.cpu.time")
    assert collections == 0 < watchkeep_capture.value("cpython.gc.collections", cpython_gc_generation=2)
    assert uptime < 1 < watchkeep_capture.value("process.uptime")


def test_a_reading_costs_little():
    """All figures together take under a millisecond of CPU."""
    begun = time.process_time()
    for _ in range(20):
        for observer in process._OBSERVERS.values():
            list(observer())
    assert (time.process_time() - begun) / 20 < 0.001

"""The end of a process: what had ended is delivered, nobody is kept waiting, the exit code is the app's own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from support.otlp_sink import OtlpSink

ROOT = Path(__file__).parents[2]
PRELUDE = """
import atexit, os, signal, sys, threading, time
from dataclasses import replace
from watchkeep.export.model import LogData, MetricData, NumberPoint, Resource, Scope, SpanData
from watchkeep.export.pipeline import Pipeline
from watchkeep.export.settings import from_environment

SCOPE = Scope("test", "1")
pending = []

def drain():
    taken = [pending.pop() for _ in range(len(pending))]
    pipeline.add_spans(taken)

def collect():
    return [MetricData("calls", "", "", "sum", [NumberPoint({}, 1, 2, 5)], SCOPE, monotonic=True)]

def span(serial):
    return SpanData("s", serial + 1, serial + 1, 0, 1, 1, 2, {"serial": serial, "pid": os.getpid()}, SCOPE)

def make(start, end):
    for serial in range(start, end):
        (pipeline.add_spans([span(serial)]) if serial % 2 else pending.append(span(serial)))

settings = from_environment()
if os.environ.get("NO_SIGTERM"):
    settings = replace(settings, sigterm=False)
pipeline = Pipeline(settings, Resource({"service.name": "child"}), drain=drain, collect=collect)
# A child process starts empty: the emitter clears what it inherited, before the pipeline starts anew.
os.register_at_fork(after_in_child=pending.clear)

def ready():
    print("ready", flush=True)
"""


@dataclass
class Ended:
    """A finished child."""

    code: int
    seconds: float  # from the moment it was to end
    stderr: str


@pytest.fixture
def sink():
    with OtlpSink() as running:
        yield running


def run(sink, body, *, kill=None, limit=15.0, **environ):
    """Run a child; it ends by itself after it has said "ready", or is sent a signal then."""
    source = PRELUDE + textwrap.dedent(body)
    child = subprocess.Popen(
        [sys.executable, "-X", "faulthandler", "-c", source],
        env={
            **os.environ,
            "OTEL_EXPORTER_OTLP_ENDPOINT": sink.endpoint,
            "PYTHONPATH": str(ROOT / "instrumentation"),
            **environ,
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n", child.stderr.read()
        start = time.monotonic()
        if kill:
            time.sleep(0.2)
            start = time.monotonic()
            child.send_signal(kill)
        try:
            _, stderr = child.communicate(timeout=limit)
        except subprocess.TimeoutExpired:
            child.send_signal(signal.SIGABRT)
            raise AssertionError(f"the child hangs:\n{child.communicate()[1]}") from None
        return Ended(child.returncode, time.monotonic() - start, stderr)
    finally:
        child.kill()
        child.wait()


def serials(sink):
    return sorted(item.attributes["serial"] for item in sink.spans())


ENDINGS = {
    "normal": ("", 0),
    "sys.exit": ("sys.exit(7)", 7),
    "unhandled error": ("raise KeyError('x')", 1),
    "from a thread's end": ("threading.Thread(target=lambda: time.sleep(0.1)).start()", 0),
}


@pytest.mark.parametrize(("ending", "code"), ENDINGS.values(), ids=ENDINGS)
def test_a_healthy_end_delivers_all_within_half_a_second(sink, ending, code):
    """50 spans, half of them not even drained, arrive with the last metrics; the exit code is untouched."""
    ended = run(sink, f"pipeline.start(); make(0, 50); ready()\n{ending}")
    assert serials(sink) == list(range(50))
    assert any(item.name == "calls" for item in sink.metrics())
    assert ended.code == code
    assert ended.seconds < 0.5 + 0.3  # an interpreter's own end on a busy machine
    assert "watchkeep" not in ended.stderr


def test_what_the_apps_own_exit_handlers_make_arrives_too(sink):
    """Ours is registered early, so it runs after those of the app."""
    run(sink, "pipeline.start(); atexit.register(make, 0, 10); ready()")
    assert serials(sink) == list(range(10))


EARLY = {
    "registered before the first record": "atexit.register(make, 0, 10); pipeline.start()",
    "and itself the first to record": "atexit.register(lambda: (pipeline.start(), make(0, 10)))",
    "after a shutdown of another pipeline": (
        "pipeline.start(); pipeline.shutdown(); atexit.register(make, 0, 10)\n"
        "pipeline = pipeline.again(); pipeline.start()"
    ),
}


@pytest.mark.parametrize("body", EARLY.values(), ids=EARLY)
def test_what_exit_handlers_from_before_our_first_record_make_arrives_too(sink, body):
    """Under the launcher our hook is there before any of the app's, so it runs after all of them."""
    ended = run(sink, f"from watchkeep import auto; auto.start('run')\n{body}; ready()")
    assert serials(sink) == list(range(10))
    assert ended.seconds < 0.5 + 0.3


def test_leaving_keeps_the_early_hook(sink):
    """Also after uninstrument() the last records are delivered after the app's handlers, which came later."""
    start = "from watchkeep import auto; auto.start('run'); auto.stop(); auto.start('code'); auto.stop()"
    run(sink, f"{start}; atexit.register(make, 0, 10); pipeline.start(); ready()")
    assert serials(sink) == list(range(10))


def test_a_dead_end_point_delays_an_early_hook_no_longer(sink):
    """The limit of the exit is the same for the hook that runs last of all."""
    sink.mode("hang")
    start = "from watchkeep import auto; auto.start('run'); atexit.register(make, 0, 50)"
    ended = run(sink, f"{start}; pipeline.start(); ready()\nsys.exit(3)")
    assert ended.seconds <= 3.0
    assert ended.code == 3
    assert "50 spans (shutdown)" in ended.stderr


def test_the_last_words_of_a_watched_program(sink):
    """A line that is logged by a handler from before the first one arrives, under `watchkeep run` itself."""
    app = "import atexit, logging; say = logging.getLogger('app').warning; atexit.register(say, 'last'); say('first')"
    command = [sys.executable, "-m", "watchkeep", "run", "--", sys.executable, "-c", app]
    kept = {name: text for name, text in os.environ.items() if not name.startswith(("OTEL_", "WATCHKEEP_"))}
    environment = {**kept, "OTEL_EXPORTER_OTLP_ENDPOINT": sink.endpoint}
    subprocess.run(command, env=environment, capture_output=True, timeout=30, check=True)
    assert [item.body for item in sink.logs()] == ["first", "last"]


def test_what_is_told_at_the_end_is_told_after_the_last_drain(sink):
    """Who keeps records back, as the console does, is called when there will be no more of them."""
    body = """
        told = []
        pipeline.sinks = (lambda signal, items: told.extend(items if signal == "traces" else ()),)
        pipeline.at_end = lambda: print("at the end:", len(told), file=sys.stderr)
        pipeline.start(); atexit.register(make, 0, 10); ready()
    """
    assert run(sink, body).stderr.splitlines() == ["at the end: 10"]


DEAD = {
    "refuse": None,
    "hang": {"name": "hang"},
    "503": {"name": "status", "code": 503},
    "429": {"name": "status", "code": 429, "headers": {"Retry-After": "60"}},
    "half": {"name": "half"},
    "reset": {"name": "reset"},
    "drip": {"name": "drip"},
}


@pytest.mark.parametrize("mode", DEAD.values(), ids=DEAD)
def test_a_dead_end_point_delays_the_end_by_three_seconds_at_most(sink, mode):
    """All signals share one deadline; what was lost is said on stderr, with its number."""
    sink.refuse() if mode is None else sink.mode(**mode)
    ended = run(sink, "pipeline.start(); make(0, 50); ready()\nsys.exit(3)")
    assert ended.seconds <= 3.0
    assert ended.code == 3
    assert "50 spans (shutdown)" in ended.stderr
    assert f"127.0.0.1:{sink.port}" in ended.stderr


def test_a_request_that_hangs_already_does_not_use_up_the_end(sink):
    """The worker sits in a hanging request when the process ends: another end point still gets its data."""
    with OtlpSink() as other:
        other.mode("hang")
        body = """
            pipeline.start(); make(0, 50); time.sleep(1.5)
            pipeline.add_logs([LogData(1, 1, 9, "INFO", "last words", {}, SCOPE)])
            ready()
        """
        endpoint = f"{other.endpoint}/v1/traces"
        ended = run(sink, body, OTEL_EXPORTER_OTLP_TRACES_ENDPOINT=endpoint)
        assert [item.body for item in sink.logs()] == ["last words"]
        assert ended.seconds < 3.3


# Signals.


def test_sigterm_delivers_and_kills_as_ever(sink):
    """Where its action was the default, SIGTERM first delivers; the process then dies of the signal."""
    ended = run(sink, "pipeline.start(); make(0, 50); ready(); time.sleep(30)", kill=signal.SIGTERM)
    assert serials(sink) == list(range(50))
    assert ended.code == -signal.SIGTERM
    assert ended.seconds < 0.8


def test_sigterm_with_a_hanging_end_point_takes_three_seconds_at_most(sink):
    """The app's stop is not held up for longer than the exit's own limit."""
    sink.mode("hang")
    ended = run(sink, "pipeline.start(); make(0, 50); ready(); time.sleep(30)", kill=signal.SIGTERM)
    assert ended.code == -signal.SIGTERM
    assert ended.seconds < 3.4
    assert "50 spans (shutdown)" in ended.stderr


def test_sigint_is_an_ordinary_end(sink):
    """Ctrl-C raises KeyboardInterrupt as ever, and the exit hook delivers."""
    bare = run(sink, "ready(); time.sleep(30)", kill=signal.SIGINT)
    ended = run(sink, "pipeline.start(); make(0, 50); ready(); time.sleep(30)", kill=signal.SIGINT)
    assert serials(sink) == list(range(50))
    assert ended.code == bare.code
    assert "KeyboardInterrupt" in ended.stderr


OWNERS = {
    "the app's own, set before": (
        "signal.signal(signal.SIGTERM, lambda *_: sys.exit(9)); pipeline.start(); make(0, 50)",
        9,
        50,
    ),
    "the app's own, set after": (
        "pipeline.start(); signal.signal(signal.SIGTERM, lambda *_: sys.exit(9)); make(0, 50)",
        9,
        50,
    ),
    "asyncio's": (
        "import asyncio; pipeline.start(); make(0, 50)\n"
        "async def main():\n"
        "    stop = asyncio.Event(); asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)\n"
        "    ready(); await stop.wait()\n"
        "asyncio.run(main()); sys.exit(9)",
        9,
        50,
    ),
}


@pytest.mark.parametrize(("body", "code", "spans"), OWNERS.values(), ids=OWNERS)
def test_a_handler_of_the_app_stays_the_apps(sink, body, code, spans):
    """Ours takes the place of the default action only, and gives way to whoever comes later."""
    tail = "" if "ready()" in body else "\nready(); time.sleep(30)"
    ended = run(sink, body + tail, kill=signal.SIGTERM)
    assert ended.code == code
    assert len(serials(sink)) == spans


def test_an_ignored_sigterm_stays_ignored(sink):
    """A process that ignores the signal goes on ignoring it."""
    ignored = "signal.signal(signal.SIGTERM, signal.SIG_IGN); pipeline.start(); make(0, 4); ready()"
    body = f"{ignored}; time.sleep(1); sys.exit(5)"
    assert run(sink, body, kill=signal.SIGTERM).code == 5
    assert len(serials(sink)) == 4


@pytest.mark.parametrize(
    "start", ["pipeline.start()", "t = threading.Thread(target=pipeline.start); t.start(); t.join()"]
)
def test_the_signal_is_left_alone_where_we_may_not_touch_it(sink, start):
    """With the setting off, or started outside the main thread, the action stays the default."""
    off = {"NO_SIGTERM": "1"} if "Thread" not in start else {}
    body = f"{start}\nassert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL; ready(); time.sleep(30)"
    assert run(sink, body, kill=signal.SIGTERM, **off).code == -signal.SIGTERM


def test_the_default_action_is_back_after_a_shutdown():
    """A pipeline that has been shut down leaves nothing behind."""
    body = """
        pipeline.start()
        assert signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL
        pipeline.shutdown(0.1)
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
        ready()
    """
    with OtlpSink() as sink:
        assert run(sink, body).code == 0


def test_a_signal_inside_our_own_code_does_not_hang(sink):
    """SIGTERM hits a main thread that does nothing but add spans: no deadlock, and all that had been added is there."""
    body = """
        pipeline.start(); ready()
        serial = 0
        while True:
            pipeline.add_spans([span(serial)]); serial += 1
            if serial % 100 == 0: time.sleep(0.001)
    """
    for _ in range(3):
        sink.forget()
        ended = run(sink, body, kill=signal.SIGTERM)
        assert ended.code == -signal.SIGTERM
        assert ended.seconds < 3.4
        found = serials(sink)
        assert found == list(range(len(found)))
        assert found


@pytest.mark.parametrize("lock", ["pipeline.spans.ledger.lock", "pipeline.logs.ledger.lock"])
def test_a_signal_on_a_lock_that_we_hold_is_put_off(sink, lock):
    """The main thread is interrupted while it holds the queue's lock: the handler lets it go on, then comes back."""
    body = f"""
        pipeline.start(); make(0, 50); held = {lock}
        held.acquire(); ready()
        end = time.monotonic() + 0.5
        while time.monotonic() < end: pass
        held.release()
        while True: time.sleep(0.01)
    """
    ended = run(sink, body, kill=signal.SIGTERM)
    assert ended.code == -signal.SIGTERM
    assert ended.seconds < 3.4
    assert serials(sink) == list(range(50))


# Children.


def test_a_forked_child_delivers_its_own_and_only_its_own(sink):
    """Parent and child each deliver what they made, once, with counts of their own."""
    body = """
        pipeline.start(); make(0, 20)
        child = os.fork()
        if not child:
            assert pipeline.counts()["traces"]["sent"] == 0
            make(100, 120)
            sys.exit(0)
        make(20, 40)
        assert os.waitpid(child, 0)[1] == 0
        ready()
    """
    assert run(sink, body).code == 0
    assert serials(sink) == [*range(40), *range(100, 120)]


def test_a_storm_of_forks_under_load_loses_and_doubles_nothing(sink):
    """40 forks while another thread adds spans all the time: every span once, nobody hangs."""
    body = """
        pipeline.start()
        stop = False
        count = 0
        def load():
            global count
            while not stop:
                pipeline.add_spans([span(count)]); count += 1
                time.sleep(0.0005)
        thread = threading.Thread(target=load); thread.start()
        children = []
        for number in range(40):
            child = os.fork()
            if not child:
                make(1_000_000 + number * 10, 1_000_000 + number * 10 + 10)
                pipeline.shutdown(3)
                os._exit(0)
            children.append(child)
        codes = [os.waitpid(child, 0)[1] for child in children]
        stop = True; thread.join()
        assert codes == [0] * 40, codes
        pipeline.flush()
        counts = pipeline.counts()["traces"]
        assert counts["sent"] == counts["delivered"] == count, counts
        ready()
    """
    assert run(sink, body, limit=20).code == 0
    found = serials(sink)
    own = [serial for serial in found if serial < 1_000_000]
    assert own == list(range(len(own)))
    assert [serial for serial in found if serial >= 1_000_000] == list(range(1_000_000, 1_000_400))


@pytest.mark.parametrize("method", ["fork", "forkserver", "spawn"])
def test_children_of_multiprocessing_deliver(sink, tmp_path, method):
    """They leave past atexit, and past a shutdown of ours: what they made arrives all the same."""
    (tmp_path / "child_module.py").write_text(
        PRELUDE + "\npipeline.start()\ndef work(start):\n    make(start, start + 10)\n"
    )
    body = f"""
        sys.path.insert(0, {str(tmp_path)!r})
        import multiprocessing
        import child_module
        if __name__ == "__main__":
            context = multiprocessing.get_context({method!r})
            children = [context.Process(target=child_module.work, args=(100 * number,)) for number in range(3)]
            for child in children: child.start()
            for child in children: child.join()
            assert [child.exitcode for child in children] == [0, 0, 0]
            ready()
    """
    ended = run(sink, body, PYTHONPATH=f"{ROOT / 'instrumentation'}:{tmp_path}")
    assert ended.code == 0, ended.stderr
    assert serials(sink) == sorted(100 * number + one for number in range(3) for one in range(10))


def test_a_pool_of_processes_delivers(sink, tmp_path):
    """Workers of concurrent.futures deliver when the pool is closed."""
    (tmp_path / "child_module.py").write_text(
        PRELUDE + "\npipeline.start()\ndef work(start):\n    make(start, start + 10)\n    return os.getpid()\n"
    )
    body = """
        import child_module
        from concurrent.futures import ProcessPoolExecutor
        with ProcessPoolExecutor(2) as pool:
            list(pool.map(child_module.work, [0, 100, 200, 300]))
        ready()
    """
    assert run(sink, body, PYTHONPATH=f"{ROOT / 'instrumentation'}:{tmp_path}").code == 0
    assert serials(sink) == sorted(start + one for start in (0, 100, 200, 300) for one in range(10))


def test_a_terminated_child_of_multiprocessing_delivers(sink, tmp_path):
    """Process.terminate() is SIGTERM, so what had ended arrives, and the child's code says SIGTERM."""
    (tmp_path / "child_module.py").write_text(
        PRELUDE + "\npipeline.start()\ndef work(done):\n    make(0, 10)\n    done.set()\n    time.sleep(30)\n"
    )
    body = """
        import child_module, multiprocessing
        context = multiprocessing.get_context("fork")
        done = context.Event()
        child = context.Process(target=child_module.work, args=(done,))
        child.start(); done.wait(); child.terminate(); child.join()
        assert child.exitcode == -15, child.exitcode
        ready()
    """
    assert run(sink, body, PYTHONPATH=f"{ROOT / 'instrumentation'}:{tmp_path}").code == 0
    assert serials(sink) == list(range(10))

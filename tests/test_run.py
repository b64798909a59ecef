"""`watchkeep run`: the command runs as it would have run, and watchkeep is in its Python processes."""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import statistics
import subprocess
import sys
import time
from pathlib import Path

import pytest

from watchkeep import launch

SITE = launch.SITE
OURS = "[m for m in sys.modules if m == 'watchkeep.auto']"
LOOK = f"import sys; print({OURS})"
THERE = "['watchkeep.auto']\n"


def clean(**extra: str) -> dict[str, str]:
    """Give this process's environment without anything that concerns watchkeep."""
    off = ("WATCHKEEP_", "_WATCHKEEP", "OTEL_", "PYTHONPATH")
    return {name: value for name, value in os.environ.items() if not name.startswith(off)} | extra


def run(*command: str, cwd: Path | None = None, options: tuple[str, ...] = (), **extra: str):
    """Run a command under `watchkeep run` to its end."""
    return subprocess.run(
        [sys.executable, "-m", "watchkeep", "run", *options, "--", *command],
        env=clean(**extra),
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def script(folder: Path, text: str, name: str = "app.py", mode: int = 0o644) -> Path:
    file = folder / name
    file.write_text(text)
    file.chmod(mode)
    return file


@pytest.fixture(scope="module")
def bare_venv(tmp_path_factory) -> Path:
    """A virtual environment without watchkeep."""
    folder = tmp_path_factory.mktemp("bare")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True, timeout=60)
    return folder / "bin" / "python"


# What can be run


def test_kinds_of_command(tmp_path: Path) -> None:
    """A script, -c, -m, a console script and a shell all get watchkeep into their Python processes."""
    app = script(tmp_path, LOOK)
    tool = script(tmp_path, f"#!{sys.executable}\n{LOOK}\n", "tool", 0o755)
    script(tmp_path, LOOK, "module.py")
    commands = [
        (sys.executable, str(app)),
        (sys.executable, "-c", LOOK),
        (sys.executable, "-m", "module"),
        (str(tool),),
        ("sh", "-c", f"cd / && {sys.executable} {app}"),
    ]
    for command in commands:
        done = run(*command, cwd=tmp_path)
        assert (done.stdout, done.stderr, done.returncode) == (THERE, "", 0), command


def test_the_separator_may_be_left_out(tmp_path: Path) -> None:
    """Options behind the command are the command's, whatever they are called."""
    app = script(tmp_path, "import sys; print(sys.argv[1:])")
    given = ["--console", "--", "-x", "--service-name", "é"]
    for separator in ([], ["--"]):
        words = [sys.executable, "-m", "watchkeep", "run", *separator, sys.executable, str(app), *given]
        done = subprocess.run(words, env=clean(), capture_output=True, text=True, timeout=30, check=False)
        assert done.stdout == f"{given}\n"


def test_servers(tmp_path: Path) -> None:
    """Servers: uvicorn and gunicorn come up with watchkeep in the process that serves."""
    found = Path(sys.executable).parent
    script(tmp_path, f"import sys\nprint('seen', {OURS}, flush=True)\nraise RuntimeError\n", "wk_server.py")
    for command in (
        [str(found / "uvicorn"), "wk_server:app", "--port", "0"],
        [sys.executable, "-m", "uvicorn", "wk_server:app", "--port", "0"],
        [str(found / "gunicorn"), "wk_server:app", "--bind", "127.0.0.1:0", "--workers", "1"],
    ):
        if os.path.exists(command[0]):
            done = run(*command, cwd=tmp_path)
            assert f"seen {THERE}" in done.stdout, (command, done)


def test_python_is_found_on_the_path(tmp_path: Path) -> None:
    """A command without a folder is looked up on PATH, as a shell would."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    assert run("python", "-c", LOOK, PATH=path).stdout == THERE


# Same process


def test_same_process(tmp_path: Path) -> None:
    """The command has the process id that the launcher had."""
    child = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "watchkeep",
            "run",
            "--",
            sys.executable,
            "-c",
            "import os; print(os.getpid())",
        ],
        env=clean(),
        stdout=subprocess.PIPE,
        text=True,
    )
    assert child.communicate(timeout=30)[0] == f"{child.pid}\n"


@pytest.mark.parametrize(
    ("code", "status"),
    [
        ("raise SystemExit(0)", 0),
        ("raise SystemExit(37)", 37),
        ("1/0", 1),
        ("import os; os.abort()", -signal.SIGABRT),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", -signal.SIGKILL),
    ],
)
def test_same_exit_code(code: str, status: int) -> None:
    """The exit status is the command's own, also when a signal ended it."""
    assert run(sys.executable, "-c", code).returncode == status


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT", "SIGHUP", "SIGUSR1"])
def test_same_signals(name: str) -> None:
    """A signal ends the command, or reaches its handler, as in a bare run."""
    number = getattr(signal, name)
    for handler in ("", f"signal.signal({int(number)}, lambda *_: sys.exit(5));"):
        code = f"import signal,sys,time; {handler} print('up', flush=True); time.sleep(20)"
        ends = []
        for words in ([], [sys.executable, "-m", "watchkeep", "run", "--"]):
            child = subprocess.Popen(
                [*words, sys.executable, "-c", code],
                env=clean(),
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
            )
            assert child.stdout is not None
            assert child.stdout.readline() == b"up\n"
            child.send_signal(number)
            ends.append(child.wait(20))
            child.stdout.close()
        assert ends[0] == ends[1], (name, handler, ends)


def test_signal_dispositions_are_put_back() -> None:
    """The command starts with no signal ignored, though our interpreter ignores some for itself."""
    if not os.path.exists("/proc/self/status"):
        pytest.skip("needs /proc")
    command = ("sh", "-c", "grep SigIgn /proc/self/status")
    bare = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert run(*command).stdout == bare


def test_standard_streams_pass_through() -> None:
    """Input, output and their bytes are the command's own."""
    data = bytes(range(256)) * 100
    done = subprocess.run(
        [sys.executable, "-m", "watchkeep", "run", "--", "cat"],
        env=clean(),
        input=data,
        capture_output=True,
        timeout=30,
        check=False,
    )
    assert (done.stdout, done.stderr) == (data, b"")


# Environment


def environment(*words: str, **extra: str) -> dict[str, str]:
    done = subprocess.run(
        [*words, "env", "-0"], env=clean(**extra), capture_output=True, timeout=30, check=True
    )
    return dict(os.fsdecode(each).split("=", 1) for each in done.stdout.split(b"\0") if each)


def test_the_environment_is_otherwise_untouched() -> None:
    """Exactly the named variables are added; everything else is as it was, odd values included."""
    extra = {"PYTHONPATH": f"/x{os.pathsep}/y", "ODD": "\udcff\n=", "LANG": "C"}
    bare = environment(**extra)
    ours = environment(sys.executable, "-m", "watchkeep", "run", "--", **extra)
    added = {name: value for name, value in ours.items() if bare.get(name) != value}
    correlation = added.pop("WATCHKEEP_CORRELATION_ID")
    assert len(correlation) == 32
    assert added == {
        "PYTHONPATH": os.pathsep.join([SITE, "/x", "/y"]),
        "OTEL_PYTHON_DISTRO": "watchkeep",
        "OTEL_PYTHON_CONFIGURATOR": "watchkeep",
        "OTEL_SEMCONV_STABILITY_OPT_IN": "http",
        "_WATCHKEEP_SAID": "0",
    }
    assert set(bare) <= set(ours)


def test_what_the_user_set_stays() -> None:
    """Values that the user set are kept, and an empty PYTHONPATH does not become the working folder."""
    given = {
        "PYTHONPATH": "",
        "OTEL_PYTHON_DISTRO": "mine",
        "OTEL_SEMCONV_STABILITY_OPT_IN": "database, http/dup",
        "WATCHKEEP_CORRELATION_ID": "order-4711",
    }
    ours = environment(sys.executable, "-m", "watchkeep", "run", "--", **given)
    assert {**given, "PYTHONPATH": SITE} == {name: ours[name] for name in given}
    other = environment(
        sys.executable, "-m", "watchkeep", "run", "--", OTEL_SEMCONV_STABILITY_OPT_IN="database"
    )
    assert other["OTEL_SEMCONV_STABILITY_OPT_IN"] == "database,http"


def test_options_become_variables() -> None:
    """Each option of `run` sets the variable that stands for it."""
    options = ("--service-name", "shop", "--console", "--profile=prod", "--endpoint", "http://x:4318")
    ours = environment(sys.executable, "-m", "watchkeep", "run", *options, "--")
    assert ours["OTEL_SERVICE_NAME"] == "shop"
    assert ours["WATCHKEEP_CONSOLE"] == "true"
    assert ours["WATCHKEEP_PROFILE"] == "prod"
    assert ours["OTEL_EXPORTER_OTLP_ENDPOINT"] == "http://x:4318"


def test_each_run_has_its_own_correlation_id() -> None:
    """A fresh ID for each run, the same one for everything in it; a nested run keeps it."""
    show = ("sh", "-c", "echo $WATCHKEEP_CORRELATION_ID $PYTHONPATH")
    one, two = run(*show).stdout.split(), run(*show).stdout.split()
    assert one[0] != two[0]
    nested = run(sys.executable, "-m", "watchkeep", "run", "--", *show, WATCHKEEP_CORRELATION_ID="mine")
    assert nested.stdout.split() == ["mine", SITE]


@pytest.mark.parametrize("switch", [{"WATCHKEEP_ENABLED": "false"}, {"OTEL_SDK_DISABLED": "true"}])
def test_switched_off_is_a_plain_exec(switch: dict[str, str]) -> None:
    """Switched off, the command gets its environment without any change."""
    ours = environment(sys.executable, "-m", "watchkeep", "run", "--console", "--", **switch)
    assert ours == environment(**switch)


def test_switched_off_in_a_file(tmp_path: Path) -> None:
    """The switch may stand in pyproject.toml as well."""
    script(tmp_path, "[tool.watchkeep]\nenabled = false\n", "pyproject.toml")
    assert run(sys.executable, "-c", LOOK, cwd=tmp_path).stdout == "[]\n"


def test_children_see_the_same_file(tmp_path: Path) -> None:
    """The settings file that counts at the start counts in children in other folders too."""
    file = script(tmp_path, "[tool.watchkeep]\nlabel_cap = 7\n", "pyproject.toml")
    code = "import os; os.chdir('/'); from watchkeep import config; print(config.current().label_cap)"
    assert run(sys.executable, "-c", code, cwd=tmp_path).stdout == "7\n"
    assert str(file) in run("env", cwd=tmp_path).stdout


def test_wrong_settings_are_said_once(tmp_path: Path) -> None:
    """The launcher names every error; the command runs, and its processes do not repeat them."""
    code = "from watchkeep import config; print(config.current().label_cap)"
    done = run(sys.executable, "-c", code, WATCHKEEP_LABEL_CAP="x", WATCHKEEP_MODELCAP="3")
    assert (done.stdout, done.returncode) == ("100\n", 0)
    assert len(done.stderr.splitlines()) == 2
    assert "did you mean WATCHKEEP_MODEL_CAP?" in done.stderr


def test_strict_settings_stop_the_start() -> None:
    """With WATCHKEEP_STRICT=true a wrong setting is named and the command does not start."""
    done = run("echo", "started", WATCHKEEP_LABEL_CAP="x", WATCHKEEP_STRICT="true")
    assert (done.stdout, done.returncode) == ("", launch.WRONG_SETTINGS)
    assert "WATCHKEEP_LABEL_CAP" in done.stderr


# Children


def test_children_inherit(tmp_path: Path) -> None:
    """subprocess, multiprocessing spawn and fork, and a process pool all have watchkeep in the child."""
    app = script(
        tmp_path,
        """
import multiprocessing, subprocess, sys
from concurrent.futures import ProcessPoolExecutor

def look(_=None):
    return "watchkeep.auto" in sys.modules

if __name__ == "__main__":
    code = "import sys; sys.exit(not 'watchkeep.auto' in sys.modules)"
    print(subprocess.run([sys.executable, "-c", code]).returncode == 0)
    for way in ("spawn", "fork", "forkserver"):
        with ProcessPoolExecutor(1, multiprocessing.get_context(way)) as pool:
            print(list(pool.map(look, [1])))
""",
    )
    done = run(sys.executable, str(app))
    assert done.stdout.split("\n") == ["True", "[True]", "[True]", "[True]", ""], done.stderr


# The user's own sitecustomize


def python(code: str, *path: str | Path, **extra: str):
    """Run Python directly with these folders on PYTHONPATH (the launcher is itself a Python process)."""
    return subprocess.run(
        [sys.executable, "-c", code],
        env=clean(PYTHONPATH=os.pathsep.join(map(str, path)), **extra),
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def test_the_users_sitecustomize_runs(tmp_path: Path) -> None:
    """The user's sitecustomize runs as `sitecustomize`, after ours, from where Python would have found it."""
    own = script(tmp_path, f"import sys\nprint(__name__, __file__, {OURS})\nmarker = 1\n", "sitecustomize.py")
    done = python("import sys; print(sys.modules['sitecustomize'].marker)", SITE, tmp_path)
    assert done.stdout == f"sitecustomize {own} {THERE}1\n"
    assert done.stderr == ""


@pytest.mark.parametrize("text", ["import nothing_of_the_kind", "1/0", "def"])
def test_the_users_sitecustomize_fails_as_ever(tmp_path: Path, text: str) -> None:
    """A failing sitecustomize of the user's gives the very output and status of a bare run."""
    script(tmp_path, text, "sitecustomize.py")
    bare, ours = python("print(1)", tmp_path), python("print(1)", SITE, tmp_path)
    assert (ours.stdout, ours.stderr, ours.returncode) == (bare.stdout, bare.stderr, bare.returncode)


BROKEN = {
    "a module is gone": ("auto.py", None),
    "a module that it needs is gone": ("triggers.py", None),
    "the package fails": ("__init__.py", "1/0"),
    "the version is gone": ("version.py", None),
    "half a file": ("auto.py", "def"),
    "half a file, needed later": ("guard.py", "def"),
    "half a file, for other libraries' instrumentors": ("official.py", "def"),
    "half a file of the core": ("hook.py", "def"),
}


@pytest.mark.parametrize(("file", "text"), BROKEN.values(), ids=BROKEN)
def test_a_broken_installation_breaks_nothing(tmp_path: Path, file: str, text: str | None) -> None:
    """One line says what is broken and what to do; the program and the user's own sitecustomize run as ever."""
    copy = tmp_path / "lib" / "watchkeep"
    shutil.copytree(Path(SITE).parent, copy, ignore=shutil.ignore_patterns("__pycache__"))
    (copy / file).unlink() if text is None else (copy / file).write_text(text)
    script(tmp_path, "marker = 1\n", "sitecustomize.py")
    look = (
        "import sys, logging; logging.getLogger('app').error('said'); logging.getLogger('app').error('again'); "
        "print(sys.modules['sitecustomize'].marker)"
    )
    silent = {f"OTEL_{signal}_EXPORTER": "none" for signal in ("TRACES", "METRICS", "LOGS")}
    done = python(look, copy / "_site", copy.parent, tmp_path, **silent)
    assert (done.returncode, done.stdout) == (0, "1\n"), done.stderr
    lines = done.stderr.splitlines()
    assert [line for line in lines if line in ("said", "again")] == ["said", "again"]
    (line,) = [line for line in lines if line not in ("said", "again")]
    assert line.startswith("watchkeep: ")
    assert "your app" in line
    assert "pip install --force-reinstall watchkeep" in line or "watchkeep doctor" in line


def test_a_failing_search_for_instrumentors_stops_nothing(tmp_path: Path) -> None:
    """When other libraries' instrumentors cannot be found, one line says so and ours are waited for all the same."""
    code = (
        "from watchkeep import auto, official\n"
        "def start(): raise OSError('no folder')\n"
        "official.start = start\n"
        "assert auto.start('run')\n"
        "assert 'openai._base_client' in auto._waiting\n"
    )
    done = python(code)
    assert done.returncode == 0, done.stderr
    (line,) = done.stderr.splitlines()
    assert line.startswith("watchkeep: ")
    assert "OSError" in line


def test_a_sitecustomize_that_exits(tmp_path: Path) -> None:
    """A sitecustomize that ends the interpreter ends it."""
    script(tmp_path, "raise SystemExit(4)", "sitecustomize.py")
    bare, ours = python("print(1)", tmp_path), python("print(1)", SITE, tmp_path)
    assert (ours.stdout, ours.returncode) == (bare.stdout, bare.returncode)
    assert ours.stderr.splitlines()[-1] == bare.stderr.splitlines()[-1]


def test_the_interpreter_looks_as_ever() -> None:
    """sys.path, sys.argv and the absence of a sitecustomize are those of a bare run."""
    code = (
        "import sys, json; print(json.dumps([sys.path, sys.argv, 'sitecustomize' in sys.modules, sys.flags]))"
    )
    bare = subprocess.run([sys.executable, "-c", code], env=clean(), capture_output=True, check=True).stdout
    assert json.loads(run(sys.executable, "-c", code).stdout) == json.loads(bare)
    absent = "\ntry:\n import sitecustomize\nexcept ImportError as error:\n print(error.name)\n"
    assert run(sys.executable, "-c", absent).stdout == "sitecustomize\n"


# What cannot be seen


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (("-I",), "-I"),
        (("-E",), "-E"),
        (("-S",), "-S"),
        (("-sE",), "-E"),
        (("-X", "utf8", "-W", "ignore", "-BI"), "-I"),
        (("-Wignore", "-Xutf8", "-IS"), "-I -S"),
    ],
)
def test_isolating_options_are_named(options: tuple[str, ...], named: str) -> None:
    """Options that keep watchkeep out are named in one line, and the command runs."""
    done = run(sys.executable, *options, "-c", LOOK)
    assert (done.stdout, done.returncode) == ("[]\n", 0)
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"watchkeep: {named} keeps python")


@pytest.mark.parametrize(
    "words",
    [("-c", "pass", "-I"), ("-m", "site", "-E"), ("-W", "-I", "x.py"), ("-X", "E", "-"), ("x.py", "-S"), ()],
)
def test_only_the_interpreters_own_options_count(words: tuple[str, ...]) -> None:
    """What stands behind -c, -m or the script, or is an option's value, is not an isolating option."""
    assert launch.isolating(words) == []


@pytest.mark.parametrize(
    "lines",
    [
        "#!{python} -sE",
        "#!/usr/bin/env -S {python} -E",
        "#!/bin/sh\n'''exec' \"{python}\" -E \"$0\" \"$@\"\n' '''",
    ],
)
def test_a_shebang_with_an_isolating_option(tmp_path: Path, lines: str) -> None:
    """The interpreter line of a script is read too, in each of its forms."""
    tool = script(tmp_path, lines.format(python=sys.executable) + f"\n{LOOK}\n", "tool", 0o755)
    done = run(str(tool))
    assert done.stdout == "[]\n"
    assert "watchkeep: -E keeps python" in done.stderr


def test_an_interpreter_without_watchkeep(tmp_path: Path, bare_venv: Path) -> None:
    """Another interpreter is named in one line with what to do; its processes are silent and unharmed."""
    tool = script(tmp_path, f"#!{bare_venv}\n{LOOK}\n", "tool", 0o755)
    script(tmp_path, LOOK, "pyproject.toml.py")
    for command in ((str(bare_venv), "-c", LOOK), (str(tool),)):
        done = run(*command, cwd=tmp_path)
        assert (done.stdout, done.returncode) == ("[]\n", 0)
        (line,) = done.stderr.splitlines()
        assert line.startswith(f"watchkeep: {bare_venv} has no watchkeep installed")
        assert f"{bare_venv} -m pip install watchkeep" in line


def test_a_child_without_watchkeep_is_silent(bare_venv: Path) -> None:
    """A child with another interpreter runs as without us, without a word."""
    code = f"import subprocess; subprocess.run([{str(bare_venv)!r}, '-c', {LOOK!r}])"
    done = run(sys.executable, "-c", code)
    assert (done.stdout, done.stderr, done.returncode) == ("[]\n", "", 0)


# What cannot be run


def test_command_not_found() -> None:
    """An unknown command exits with 127 and one line that names it."""
    for name in ("no-such-command-here", "./no/such/file"):
        done = run(name)
        assert (done.returncode, done.stdout) == (127, "")
        assert done.stderr == f"watchkeep: {name}: command not found; check its name and PATH\n"


def test_command_not_executable(tmp_path: Path) -> None:
    """A file that may not be executed, a folder and a broken program exit with 126 and one line."""
    plain = script(tmp_path, "echo", "plain")
    app = script(tmp_path, "print()")
    broken = script(tmp_path, "\x7fnot a program", "broken", 0o755)
    for file, text in (
        (plain, "permissions"),
        (app, "watchkeep run -- python"),
        (tmp_path, "permissions"),
        (broken, "cannot"),
    ):
        done = run(str(file))
        assert (done.returncode, done.stdout) == (126, ""), file
        assert text in done.stderr
        assert len(done.stderr.splitlines()) == 1


def test_no_command() -> None:
    """Without a command, `run` says how to give one."""
    done = run()
    assert done.returncode == 2
    assert "watchkeep run -- python app.py" in done.stderr


# Cost


def cost(site: bool) -> tuple[float, int, int]:
    """CPU milliseconds, resident KiB and modules of `python -c pass`."""
    code = (
        "import sys; n = len(sys.modules)\n"
        "with open('/proc/self/statm') as f: print(n, int(f.read().split()[1]) * 4)\n"
    )
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=clean(PYTHONPATH=SITE) if site else clean(),
        capture_output=True,
        text=True,
        check=True,
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    modules, resident = done.stdout.split()
    return seconds * 1000, int(resident), int(modules)


@pytest.mark.skipif(not os.path.exists("/proc/self/statm"), reason="needs /proc")
def test_start_up_costs_next_to_nothing(record_property) -> None:
    """Over `python -c pass`: at most 15 ms of CPU, 3 MB and a handful of modules."""
    pairs = [(cost(False), cost(True)) for _ in range(15)]
    cpu = min(ours[0] for _, ours in pairs) - min(bare[0] for bare, _ in pairs)
    resident = statistics.median(ours[1] - bare[1] for bare, ours in pairs)
    modules = pairs[0][1][2] - pairs[0][0][2]
    print(f"start-up: {cpu:.1f} ms CPU, {resident / 1024:.2f} MiB, {modules} modules")
    assert cpu <= 15
    assert resident <= 3 * 1024
    assert modules <= 20


def test_the_launcher_is_quick() -> None:
    """`watchkeep run` itself is gone within a fraction of a second."""
    started = time.perf_counter()
    assert run("true").returncode == 0
    assert time.perf_counter() - started < 3


def test_an_empty_entry_of_pythonpath_stays_the_working_folder(tmp_path):
    """`PYTHONPATH=:/x` means the working folder too, watched or not."""
    (tmp_path / "beside.py").write_text("print('imported')")
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "app.py").write_text("import beside")
    environment = {**os.environ, "PYTHONPATH": f":{tmp_path / 'sub'}"}
    command = [sys.executable, "-m", "watchkeep", "run", "--", sys.executable, "sub/app.py"]
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.stdout, done.returncode) == ("imported\n", 0), done.stderr

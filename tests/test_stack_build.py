"""The programs of the stack: found on PATH, or built once with Go; with a small `go` in the place of the real one."""

from __future__ import annotations

import os
import re
import stat
import subprocess
import sys
import threading
import time
import zipfile
from pathlib import Path

import pytest

from watchkeep.stack import build, layout
from watchkeep.stack.build import PROGRAMS, binary
from watchkeep.stack.errors import NoGo, StackError

ROOT = Path(__file__).resolve().parents[1]
_GO = """#!/bin/sh
# Says a version; builds by writing down what it was told.
if [ "$1" = env ]; then echo go{version}; exit 0; fi
echo "$PWD $* cgo=$CGO_ENABLED toolchain=$GOTOOLCHAIN flags=$GOFLAGS" >>{told}
{then}
while [ $# -gt 0 ]; do
    if [ "$1" = -o ]; then printf '#!/bin/sh\\necho made' >"$2"; chmod +x "$2"; fi
    shift
done
"""


class Machine:
    """A machine with a PATH and a cache of its own."""

    def __init__(self, folder: Path) -> None:
        self.programs = folder / "programs"
        self.cache = folder / "cache"
        self.told = folder / "told"
        self.programs.mkdir()
        self.environ = {"PATH": f"{self.programs}:/usr/bin:/bin", "WATCHKEEP_STACK_CACHE": str(self.cache)}
        self.said: list[str] = []

    def script(self, name: str, text: str) -> Path:
        path = self.programs / name
        path.write_text(text)
        path.chmod(0o755)
        return path

    def go(self, version: str = "1.99.0", then: str = "") -> Path:
        return self.script("go", _GO.format(version=version, told=self.told, then=then))

    def binary(self, name: str, **environ: str) -> Path:
        return binary(name, {**self.environ, **environ}, self.said.append)

    def builds(self) -> list[str]:
        return self.told.read_text().splitlines() if self.told.exists() else []


@pytest.fixture
def machine(tmp_path: Path, monkeypatch) -> Machine:
    """Give a machine that has no Go but the one that a test puts there."""
    monkeypatch.setattr("importlib.metadata.files", lambda _: None)
    return Machine(tmp_path)


# On PATH


def test_found_on_path(machine: Machine) -> None:
    """The wanted version on PATH is taken as it is; nothing is built."""
    here = machine.script("loki", f"#!/bin/sh\necho loki, version {PROGRAMS['loki'].version}")
    assert machine.binary("loki") == here
    assert machine.said == []


@pytest.mark.parametrize("shown", ["loki, version 2.9.1 (branch: none)", "loki, version  (branch: none)"])
def test_another_version_on_path(machine: Machine, shown: str) -> None:
    """Another version, or one that says none, is named, and ours is built; a variable takes the other one."""
    here = machine.script("loki", f"#!/bin/sh\necho '{shown}'")
    machine.go()
    assert machine.binary("loki").is_relative_to(machine.cache)
    assert f"{here} is " in machine.said[0]
    assert "WATCHKEEP_STACK_ANY_VERSION=1" in machine.said[0]
    assert machine.binary("loki", WATCHKEEP_STACK_ANY_VERSION="1") == here


def test_what_cannot_be_built(machine: Machine) -> None:
    """Tempo and Grafana are only looked for; what is missing is said with the way to get it."""
    machine.go()
    with pytest.raises(StackError, match=r"tempo is not on PATH; put the program `tempo` of its 3\.x release"):
        machine.binary("tempo")
    with pytest.raises(StackError, match="grafana is not on PATH; install Grafana 13"):
        machine.binary("grafana")
    machine.script("tempo", "#!/bin/sh\necho tempo, version 2.9.0")
    with pytest.raises(StackError):
        machine.binary("tempo")
    assert "is 2.9.0, not 3.x" in machine.said[-1]
    with pytest.raises(StackError, match="no program nginx is known"):
        machine.binary("nginx")


# With Go


def test_built_once(machine: Machine) -> None:
    """A program is built with its version, without C, from its own go.mod, once; a change of that file builds anew."""
    machine.go()
    made = machine.binary("promtool")
    assert machine.binary("promtool") == made
    assert machine.binary("prometheus").parent == made.parent
    assert len(machine.builds()) == 2
    for line in machine.builds():
        folder, _, rest = line.partition(" ")
        assert Path(folder) == layout.files() / "collector/native/prometheus"
        assert rest.startswith("build -trimpath -tags remove_all_sd -ldflags -s -w -X ")
        assert "Version=3.14.0 -o " in rest
        assert rest.endswith("cgo=0 toolchain=local flags=-mod=readonly -buildvcs=false")
    assert machine.said[0].startswith("building prometheus and promtool 3.14.0")
    assert re.fullmatch(r"built prometheus and promtool 3\.14\.0 in \d+ s", machine.said[1])


def test_fingerprint_follows_the_files(tmp_path: Path, monkeypatch) -> None:
    """The name of a build follows every byte of what it is made from."""
    folder = tmp_path / "collector/native/loki"
    folder.mkdir(parents=True)
    (folder / "go.mod").write_text("module one\n")
    monkeypatch.setattr(layout, "files", lambda: tmp_path)
    before = build.fingerprint("loki")
    assert build.fingerprint("loki") == before
    (folder / "go.mod").write_text("module two\n")
    assert build.fingerprint("loki") != before


def test_two_builds_at_once(machine: Machine) -> None:
    """Of two that need the same program one builds, the other waits for it and says so."""
    machine.go(then="sleep 0.5")
    found: list[Path] = []
    threads = [threading.Thread(target=lambda: found.append(machine.binary("loki"))) for _ in range(2)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert found[0] == found[1]
    assert len(machine.builds()) == 1
    assert "loki: another run is building it; waiting" in machine.said


def test_a_build_that_fails(machine: Machine) -> None:
    """A failed build leaves nothing but its log, and one line with the last words of Go, the log and the ways out."""
    machine.go(then="echo looking up modules; echo 'dial tcp: no route to host' >&2; exit 1")
    with pytest.raises(StackError, match=r"loki 3\.7\.8 could not be built: dial tcp: no route to host \(all of it"):
        machine.binary("loki")
    assert sorted(each.name for each in machine.cache.iterdir()) == ["loki.lock", "loki.log"]
    assert (machine.cache / "loki.log").read_text() == "looking up modules\ndial tcp: no route to host\n"
    machine.go()
    assert machine.binary("loki").is_file()


def test_an_interrupted_build(machine: Machine) -> None:
    """What a killed build left is no program, and the next build clears it away."""
    machine.go(then="sleep 30")
    program = "import os; from watchkeep.stack.build import binary; binary('loki', os.environ)"
    with subprocess.Popen([sys.executable, "-c", program], env=machine.environ, start_new_session=True) as child:
        end = time.monotonic() + 20
        while not machine.builds():
            assert time.monotonic() < end
            time.sleep(0.02)
        os.killpg(child.pid, 9)
    assert len(list(machine.cache.glob(".loki-*"))) == 1
    machine.go()
    assert machine.binary("loki").is_file()
    assert list(machine.cache.glob(".loki-*")) == []


def test_no_go(machine: Machine) -> None:
    """Without Go: one line names the program, its version, the Go that is wanted and three ways out."""
    with pytest.raises(
        NoGo, match=r"loki 3\.7\.8 is not on PATH.* Go 1\.26\.5 or later.* no Go is on PATH; install Go"
    ):
        machine.binary("loki")
    assert not machine.cache.exists() or list(machine.cache.iterdir()) == []


def test_go_too_old(machine: Machine) -> None:
    """A Go that is too old is named with its version; one named by a variable wins over it."""
    old = machine.go("1.21.3")
    with pytest.raises(NoGo, match=rf"Go 1\.26\.5 or later is needed: {old} is 1\.21\.3, too old"):
        machine.binary("loki")
    folder = machine.programs.parent / "elsewhere"
    folder.mkdir()
    new = folder / "go"
    new.write_text(_GO.format(version="1.99.0", told=machine.told, then=""))
    new.chmod(0o755)
    assert machine.binary("loki", WATCHKEEP_STACK_GO=str(new)).is_file()


def test_an_unwritable_cache(machine: Machine) -> None:
    """A cache that cannot be written is named, with the variable that chooses another."""
    machine.go()
    machine.cache.write_text("")
    with pytest.raises(StackError, match=rf"{machine.cache} cannot be written .*WATCHKEEP_STACK_CACHE"):
        machine.binary("loki")


def test_the_command(machine: Machine) -> None:
    """`stack build` builds what is asked for and prints where it is."""
    machine.go()
    words = [sys.executable, "-m", "watchkeep", "stack", "build", "loki", "pint"]
    environ = {**machine.environ, "WATCHKEEP_STACK_HOME": str(machine.cache / "home")}
    done = subprocess.run(words, env=environ, capture_output=True, text=True, timeout=60, check=True)
    shown = dict(line.split() for line in done.stdout.splitlines())
    assert set(shown) == {"loki", "pint"}
    assert all(os.access(path, os.X_OK) for path in shown.values())


# The declared versions


def test_versions_agree() -> None:
    """The version that a program is asked for is the one that its go.mod, or the collector's manifest, requires."""
    for program in PROGRAMS.values():
        if not program.source:
            continue
        folder = layout.files() / "collector/native" / program.source
        if program.source == "collector":
            text = (folder / "manifest.yaml").read_text()
            assert f"version: {program.version}\n" in text
            assert f" v{program.version}\n" in text
            continue
        module = program.package.partition("/cmd/")[0]
        found = re.search(
            rf"^\s*(?:require )?{re.escape(module)} v(\S+)", (folder / "go.mod").read_text(), re.MULTILINE
        )
        assert found, module
        major, minor, patch = program.version.split(".")
        own = f"0.{int(major)}{int(minor):02}.{patch}" if program.source == "prometheus" else program.version
        assert found[1] == own


def test_every_program_is_locked() -> None:
    """Every source has its go.sum, and each file of it ends in the package of its repository."""
    for source in {each.source for each in PROGRAMS.values() if each.source}:
        assert (layout.files() / "collector/native" / source / "go.sum").stat().st_size > 0


# The wheel


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """Build the wheel and unpack it."""
    folder = tmp_path_factory.mktemp("wheel")
    words = [
        "-m",
        "pip",
        "wheel",
        "--quiet",
        "--no-deps",
        "--no-build-isolation",
        "--wheel-dir",
        str(folder),
        str(ROOT),
    ]
    subprocess.run([sys.executable, *words], check=True, timeout=120)
    (file,) = folder.glob("watchkeep-*.whl")
    with zipfile.ZipFile(file) as archive:
        archive.extractall(folder / "unpacked")
    return folder / "unpacked"


def test_the_wheel_has_the_files(wheel: Path) -> None:
    """An installed package finds the same files in itself, byte for byte, and nothing of them beside itself."""
    words = ["-c", "from watchkeep.stack import layout; print(layout.files())"]
    done = subprocess.run(
        [sys.executable, "-I", "-c", f"import sys; sys.path.insert(0, {str(wheel)!r}); {words[1]}"],
        capture_output=True,
        text=True,
        check=True,
        timeout=30,
    )
    files = Path(done.stdout.strip())
    assert files == wheel / "watchkeep/stack/files"
    found = sorted(each.relative_to(files) for each in files.rglob("*") if each.is_file())
    for each in found:
        assert (files / each).read_bytes() == (ROOT / each).read_bytes(), each
    wanted = {
        each.relative_to(ROOT)
        for tree in ("collector", "alerts", "dashboards/json", "dashboards/provisioning")
        for each in (ROOT / tree).rglob("*")
        if each.is_file()
    }
    assert wanted | {Path("docker-compose.yml")} <= set(found)
    assert sorted(each.name for each in wheel.iterdir() if not each.name.endswith(".dist-info")) == ["watchkeep"]


def test_folders() -> None:
    """State and cache follow our variable, else the standard one, else the user's home."""
    assert layout.home({"WATCHKEEP_STACK_HOME": "/a", "XDG_STATE_HOME": "/b", "HOME": "/c"}) == Path("/a")
    assert layout.home({"XDG_STATE_HOME": "/b"}) == Path("/b/watchkeep/stack")
    assert layout.cache({"WATCHKEEP_STACK_CACHE": "/a"}) == Path("/a")
    assert layout.cache({"XDG_CACHE_HOME": "/b"}) == Path("/b/watchkeep/native")
    assert layout.home({}) == Path("~/.local/state/watchkeep/stack").expanduser()
    assert layout.cache({}) == Path("~/.cache/watchkeep/native").expanduser()


def test_what_is_made_is_private(tmp_path: Path) -> None:
    """A folder that we make is closed to others."""
    made = layout.make(tmp_path / "new")
    assert stat.S_IMODE(made.stat().st_mode) == 0o700

"""Post-import hooks: the app's imports do what they do without us, and we hear of them once."""

from __future__ import annotations

import copy
import importlib
import importlib.util
import pickle
import subprocess
import sys
import threading
import time
import types
import zipfile
from importlib.machinery import SourceFileLoader
from pathlib import Path

import pytest

from watchkeep import auto, guard, triggers
from watchkeep.auto import when_imported

MODULE = "value = 1\nloader_seen = __spec__.loader\nimport sys\nname_seen = __loader__\n"


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder on sys.path whose modules, and our finder, are gone after the test."""
    before = set(sys.modules)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(guard, "raising", True)
    auto.stop()
    yield tmp_path
    auto.stop()
    for name in set(sys.modules) - before:
        del sys.modules[name]


def put(folder: Path, name: str, text: str = MODULE) -> None:
    file = folder / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    importlib.invalidate_caches()


def test_called_once_after_execution(place) -> None:
    """The callback gets the finished module, once, however often it is imported."""
    put(place, "wk_a.py")
    seen = []
    when_imported("wk_a", lambda module: seen.append((module.value, module)))
    assert seen == []
    import wk_a
    import wk_a as again
    from wk_a import value  # noqa: F401

    assert again is wk_a
    assert seen == [(1, wk_a)]


def test_called_at_once_when_imported_before(place) -> None:
    """A module that is there already is reported at once."""
    put(place, "wk_a.py")
    module = importlib.import_module("wk_a")
    seen = []
    when_imported("wk_a", seen.append)
    assert seen == [module]


def test_several_callbacks_in_order(place) -> None:
    """Each who waits for a module is called, in the order of registration."""
    put(place, "wk_a.py")
    seen = []
    for name in "abc":
        when_imported("wk_a", lambda _, name=name: seen.append(name))
    importlib.import_module("wk_a")
    assert seen == ["a", "b", "c"]


def test_nested(place) -> None:
    """Awaited modules that import each other, packages and submodules are each reported when done."""
    put(place, "wk_pkg/__init__.py", "from wk_pkg import sub\nimport wk_other\n")
    put(place, "wk_pkg/sub.py")
    put(place, "wk_other.py")
    seen = []
    for name in ("wk_pkg", "wk_pkg.sub", "wk_other"):
        when_imported(name, lambda module: seen.append(module.__name__))
    importlib.import_module("wk_pkg")
    assert seen == ["wk_pkg.sub", "wk_other", "wk_pkg"]


def test_a_callback_may_import_what_it_waits_for(place) -> None:
    """A callback may import the same module, its submodules and other awaited modules."""
    put(place, "wk_pkg/__init__.py")
    put(place, "wk_pkg/sub.py")
    seen = []
    when_imported("wk_pkg.sub", lambda module: seen.append(module.__name__))

    def callback(module: types.ModuleType) -> None:
        assert importlib.import_module("wk_pkg") is module
        seen.append(importlib.import_module("wk_pkg.sub").__name__)
        when_imported("wk_pkg", lambda module: seen.append("late"))

    when_imported("wk_pkg", callback)
    importlib.import_module("wk_pkg")
    assert seen == ["wk_pkg.sub", "wk_pkg.sub", "late"]


def test_the_module_keeps_its_own_loader(place) -> None:
    """A module sees its own loader and spec, while it is executed and afterwards."""
    put(place, "wk_a.py")
    when_imported("wk_a", lambda module: None)
    import wk_a

    assert type(wk_a.__spec__.loader) is type(wk_a.__loader__) is SourceFileLoader
    assert wk_a.loader_seen is wk_a.name_seen is wk_a.__spec__.loader is wk_a.__loader__
    assert wk_a.__spec__.cached.endswith(".pyc")


def test_a_failing_import_fails_as_it_did(place) -> None:
    """The app gets its own exception, no module stays behind, and a later success is reported."""
    put(place, "wk_a.py", "raise LookupError('mine')")
    seen = []
    when_imported("wk_a", seen.append)
    with pytest.raises(LookupError, match="mine"):
        importlib.import_module("wk_a")
    assert (seen, "wk_a" in sys.modules) == ([], False)
    time.sleep(0.01)
    put(place, "wk_a.py", "value = 'a new file of another length'")
    assert [importlib.import_module("wk_a")] == seen


def test_absent_and_blocked_modules(place, monkeypatch) -> None:
    """A module that is not there, or that the app has blocked, raises as ever."""
    when_imported("wk_absent", pytest.fail)
    with pytest.raises(ModuleNotFoundError, match="No module named 'wk_absent'"):
        importlib.import_module("wk_absent")
    assert importlib.util.find_spec("wk_absent") is None
    monkeypatch.setitem(sys.modules, "wk_blocked", None)
    when_imported("wk_blocked", pytest.fail)
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module("wk_blocked")


def test_reload(place) -> None:
    """A reload executes the module again and does not call twice."""
    put(place, "wk_a.py")
    seen = []
    when_imported("wk_a", seen.append)
    module = importlib.import_module("wk_a")
    module.value = 2
    assert importlib.reload(module) is module
    assert (module.value, len(seen)) == (1, 1)
    assert type(module.__spec__.loader) is SourceFileLoader


def test_lazy_loader(place) -> None:
    """A lazily loaded module stays lazy, and is reported when it is executed at last."""
    put(place, "wk_a.py")
    seen = []
    when_imported("wk_a", seen.append)
    spec = importlib.util.find_spec("wk_a")
    spec.loader = importlib.util.LazyLoader(spec.loader)
    module = importlib.util.module_from_spec(spec)
    sys.modules["wk_a"] = module
    spec.loader.exec_module(module)
    assert seen == []
    assert module.value == 1
    assert seen == [module]
    assert type(module.__spec__.loader) is SourceFileLoader


def test_a_lazy_module_stays_lazy(place) -> None:
    """Waiting for a module that is there but not yet executed does not execute it."""
    put(place, "wk_a.py")
    spec = importlib.util.find_spec("wk_a")
    spec.loader = importlib.util.LazyLoader(spec.loader)
    module = importlib.util.module_from_spec(spec)
    sys.modules["wk_a"] = module
    spec.loader.exec_module(module)
    seen = []
    when_imported("wk_a", seen.append)
    when_imported("wk_a", seen.append)
    assert type(module) is not types.ModuleType
    assert seen == []
    assert module.value == 1
    assert seen == [module, module]
    assert type(module.__spec__.loader) is SourceFileLoader


def test_while_another_thread_imports(place) -> None:
    """Registered in the middle of another thread's import, the callback gets the finished module."""
    put(place, "wk_slow.py", "import time\nvalue = 0\ntime.sleep(0.2)\nvalue = 1\n")
    thread = threading.Thread(target=importlib.import_module, args=("wk_slow",))
    thread.start()
    time.sleep(0.1)
    seen = []
    when_imported("wk_slow", lambda module: seen.append(module.value))
    thread.join(5)
    assert seen == [1]


def test_find_spec_alone(place) -> None:
    """Looking for a module reports nothing, and what is found passes for the real thing."""
    put(place, "wk_a.py")
    when_imported("wk_a", pytest.fail)
    spec = importlib.util.find_spec("wk_a")
    bare = importlib.machinery.PathFinder.find_spec("wk_a")
    loader = spec.loader
    assert isinstance(loader, SourceFileLoader)
    assert loader.__class__ is SourceFileLoader
    assert (loader.name, loader.path) == (bare.loader.name, bare.loader.path)
    assert repr(loader).startswith("<_frozen_importlib_external.SourceFileLoader object")
    assert loader.get_source("wk_a") == MODULE
    assert loader == bare.loader
    assert bare.loader == loader
    assert spec == bare
    assert type(copy.deepcopy(loader)) is type(pickle.loads(pickle.dumps(loader))) is SourceFileLoader


def test_a_private_copy(place) -> None:
    """A copy executed outside sys.modules is the app's business and works."""
    put(place, "wk_a.py")
    when_imported("wk_a", lambda module: None)
    spec = importlib.util.find_spec("wk_a")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.value == 1
    assert "wk_a" not in sys.modules


def test_namespace_package(place) -> None:
    """A namespace package imports as ever, and its modules are reported."""
    put(place, "wk_space/inner.py")
    seen = []
    when_imported("wk_space", pytest.fail)  # nothing is executed, so there is nothing to report
    when_imported("wk_space.inner", seen.append)
    module = importlib.import_module("wk_space.inner")
    assert seen == [module]
    assert list(sys.modules["wk_space"].__path__) == [str(place / "wk_space")]


def test_zip(place, monkeypatch) -> None:
    """A module inside a zip file keeps its loader and its data."""
    with zipfile.ZipFile(place / "wk.zip", "w") as archive:
        archive.writestr("wk_zipped/__init__.py", MODULE)
        archive.writestr("wk_zipped/data.txt", "data")
    monkeypatch.syspath_prepend(str(place / "wk.zip"))
    seen = []
    when_imported("wk_zipped", seen.append)
    module = importlib.import_module("wk_zipped")
    assert seen == [module]
    assert type(module.__loader__).__name__ == "zipimporter"
    import pkgutil
    from importlib import resources

    assert pkgutil.get_data("wk_zipped", "data.txt") == b"data"
    assert resources.files("wk_zipped").joinpath("data.txt").read_text() == "data"


def test_builtin_and_extension_modules() -> None:
    """Modules written in C are reported too."""
    code = (
        "from watchkeep import auto\n"
        "names, seen = ['_json', 'unicodedata', '_sha3', 'zipfile'], []\n"
        "for name in names: auto.when_imported(name, lambda module: seen.append(module.__name__))\n"
        "for name in names: __import__(name)\n"
        "assert seen == names, seen\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_module_that_replaces_itself(place) -> None:
    """The callback gets what the app gets where a module puts another object in its place."""
    put(place, "wk_a.py", "import sys, types\nsys.modules[__name__] = types.SimpleNamespace(value=3)\n")
    seen = []
    when_imported("wk_a", seen.append)
    assert seen == [importlib.import_module("wk_a")]
    assert seen[0].value == 3


def test_beside_another_hooking_finder(place) -> None:
    """A finder of the same kind, before or behind us, is no obstacle, and nobody is called twice."""
    wrapt = pytest.importorskip("wrapt")
    for name, first in (("wk_a", "theirs"), ("wk_b", "ours")):
        put(place, f"{name}.py")
        seen = []
        steps = [
            lambda name=name, seen=seen: when_imported(name, lambda module: seen.append("ours")),
            lambda name=name, seen=seen: wrapt.register_post_import_hook(lambda module: seen.append("theirs"), name),
        ]
        for step in steps if first == "ours" else steps[::-1]:
            step()
        module = importlib.import_module(name)
        assert sorted(seen) == ["ours", "theirs"]
        assert type(module.__spec__.loader) is SourceFileLoader


def test_a_finder_of_the_app(place) -> None:
    """The app's own finder and loader, a class with static methods or without exec_module, do their work."""
    put(place, "wk_real.py")

    class Finder:
        @classmethod
        def find_spec(cls, name, path=None, target=None):
            if name == "wk_made":
                return importlib.machinery.ModuleSpec(name, Loader)
            return None

    class Loader:
        @staticmethod
        def create_module(spec):
            return types.ModuleType(spec.name)

        @staticmethod
        def exec_module(module):
            module.made = True

    sys.meta_path.append(Finder)
    try:
        seen = []
        when_imported("wk_made", seen.append)
        module = importlib.import_module("wk_made")
        assert seen == [module]
        assert module.__spec__.loader is Loader
    finally:
        sys.meta_path.remove(Finder)


def test_a_failing_callback_stays_ours(place, monkeypatch) -> None:
    """A callback that raises spoils neither the import nor the callbacks behind it."""
    monkeypatch.setattr(guard, "raising", False)
    put(place, "wk_a.py")
    seen, faults = [], guard.faults

    def broken(module: types.ModuleType) -> None:
        raise RuntimeError

    when_imported("wk_a", broken)
    when_imported("wk_a", seen.append)
    assert importlib.import_module("wk_a").value == 1
    assert len(seen) == 1
    assert guard.faults == faults + 1


def test_threads(place) -> None:
    """Importers and registrars in many threads: each callback is called exactly once."""
    put(place, "wk_slow.py", "import time\ntime.sleep(0.05)\nvalue = 1\n")
    seen: list[int] = []
    start = threading.Barrier(9)

    def register(base: int) -> None:
        start.wait()
        for number in range(50):
            when_imported("wk_slow", lambda module, n=base + number: seen.append(n))
            time.sleep(0.001)

    def load() -> None:
        start.wait()
        time.sleep(0.01)
        importlib.import_module("wk_slow")

    threads = [threading.Thread(target=register, args=(n * 50,)) for n in range(4)]
    threads += [threading.Thread(target=load) for _ in range(4)]
    for thread in threads:
        thread.start()
    start.wait()
    for thread in threads:
        thread.join(10)
    assert sorted(seen) == list(range(200))


def test_other_imports_pay_next_to_nothing(place) -> None:
    """A module nobody waits for is left to the other finders after one dictionary look-up."""
    when_imported("wk_absent", pytest.fail)
    finder = sys.meta_path[0]
    started = time.thread_time()
    for _ in range(10_000):
        finder.find_spec("something.else", None, None)
    assert (time.thread_time() - started) / 10_000 < 20e-6


def test_stop_leaves_no_trace(place) -> None:
    """After `stop` our finder is gone, and start may be called again."""
    put(place, "wk_a.py")
    before = list(sys.meta_path)
    when_imported("wk_a", pytest.fail)
    auto.stop()
    assert sys.meta_path == before
    importlib.import_module("wk_a")


# start


@pytest.fixture
def fake_core(monkeypatch):
    """A stand-in for the core's installer that notes what it is asked for."""
    asked: list[str] = []
    installer = types.ModuleType("watchkeep.installer")
    installer.install = asked.append  # type: ignore[attr-defined]
    import watchkeep

    monkeypatch.setitem(sys.modules, "watchkeep.installer", installer)
    monkeypatch.setattr(watchkeep, "installer", installer, raising=False)
    return asked


def test_start_installs_on_import(place, fake_core, monkeypatch) -> None:
    """The integration of a library is installed when that library is imported, and not before."""
    put(place, "wk_a.py")
    put(place, "wk_b.py")
    monkeypatch.setattr(triggers, "TRIGGERS", {"wk_a": ("watchkeep.integrations.a",), "wk_b": ("x.b", "x.c")})
    assert auto.start("code")
    assert auto.start("code")
    assert auto.source() == "code"
    importlib.import_module("wk_b")
    assert fake_core == ["x.b", "x.c"]
    importlib.import_module("wk_a")
    assert fake_core == ["x.b", "x.c", "watchkeep.integrations.a"]


def test_an_integration_can_be_switched_off(place, fake_core, monkeypatch) -> None:
    """A switched-off integration is never installed."""
    from watchkeep import config

    put(place, "wk_b.py")
    monkeypatch.setattr(triggers, "TRIGGERS", {"wk_b": ("x.b", "x.c")})
    config.use(config.Config(disabled_integrations=("b",)))
    try:
        auto.start("code")
        importlib.import_module("wk_b")
    finally:
        config.use(None)
    assert fake_core == ["x.c"]


@pytest.mark.parametrize("name", [("WATCHKEEP_ENABLED", "false"), ("OTEL_SDK_DISABLED", "true")])
def test_switched_off_means_nothing(place, monkeypatch, name) -> None:
    """Either switch leaves the interpreter exactly as it was."""
    monkeypatch.setenv(*name)
    before = list(sys.meta_path)
    assert not auto.start("run")
    assert sys.meta_path == before
    assert auto.source() is None


def test_ready_only_after_execution(place) -> None:
    """A module that is being executed is in sys.modules, but not ready for what waits for it."""
    seen = []
    text = "import sys\nfrom watchkeep import auto\nduring = 'wk_a' in sys.modules, auto.ready('wk_a')\n"
    put(place, "wk_a.py", text)
    when_imported("wk_a", lambda module: seen.append((module.during, auto.ready("wk_a"))))
    importlib.import_module("wk_a")
    assert seen == [((True, False), True)]

"""The start: nothing is imported or patched before the app itself imports a library that we know.

A finder at the head of `sys.meta_path` lets every other finder do its work and only puts itself
around the loader of an awaited module, so that a callback runs once that module has been executed.
Standard library only, and little of it: this runs in every Python process under `watchkeep run`.
"""

from __future__ import annotations

import atexit
import os
import sys

TYPE_CHECKING = False  # as `typing` has it, whose import would be most of our start-up
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from importlib.machinery import ModuleSpec
    from types import ModuleType
    from typing import Any

    Callback = Callable[[ModuleType], object]

# Where the app sets its own providers.
PROVIDERS = ("opentelemetry.trace", "opentelemetry.metrics", "opentelemetry._logs")

_waiting: dict[str, list[Callback]] = {}
_source: str | None = None
_ends_with_us = False
_said = False


def start(source: str) -> bool:
    """Wait for the libraries we know; `source` (run, otel, code) says who started us."""
    global _source
    if switched_off(os.environ):
        return False
    if _source is not None:
        return True
    from watchkeep.triggers import AT_FIRST_CALL, TRIGGERS

    _source = source
    _end_with_us()
    if source == "run":
        attempt(_start_others)
    for module, wanted in TRIGGERS.items():
        functions = AT_FIRST_CALL.get(module, ())
        when_imported(module, _InstallLater(wanted, functions) if functions else _Install(wanted))
    for module in PROVIDERS:
        when_imported(module, _watch_providers)
    return True


def _start_others() -> None:
    from watchkeep import official

    official.start()


def _end_with_us() -> None:
    global _ends_with_us
    if not _ends_with_us:
        _ends_with_us = True
        atexit.register(_at_exit)


def _at_exit() -> None:
    # Registered before the app's own handlers, hence run after them.
    lifecycle = sys.modules.get("watchkeep.export.lifecycle")
    if lifecycle is not None:
        lifecycle.end()


def ends_with_us() -> bool:
    """Tell whether what there is will be delivered at the end of the process, by a hook from its beginning."""
    return _ends_with_us


def stop() -> None:
    """Wait for nothing any more; what is installed stays."""
    global _source
    _source = None
    _waiting.clear()
    first_call = sys.modules.get("watchkeep.first_call")
    if first_call is not None:
        first_call.take_away_all()
    if _FINDER in sys.meta_path:
        sys.meta_path.remove(_FINDER)


def source() -> str | None:
    """Say who started us, if anybody did."""
    return _source


def switched_off(environ: Mapping[str, str]) -> bool:
    """Read the two switches that leave the process alone, without the cost of reading all settings."""
    enabled = environ.get("WATCHKEEP_ENABLED", "").strip().lower()
    disabled = environ.get("OTEL_SDK_DISABLED", "").strip().lower()
    return enabled in ("false", "0", "no", "off") or disabled == "true"


def integrations() -> list[str]:
    """Name every integration that the package holds, without importing one."""
    from pkgutil import iter_modules

    folder = os.path.join(os.path.dirname(__file__), "integrations")
    return sorted(each.name for each in iter_modules([folder]) if not each.name.startswith("_"))


def _watch_providers(module: ModuleType) -> None:
    from watchkeep import providers

    providers.watch(module.__name__)


class _Install:
    """Install integrations when their library is there; the core loads with the first of them."""

    def __init__(self, modules: tuple[str, ...]) -> None:
        self.modules = modules

    def __call__(self, _: ModuleType) -> None:
        from watchkeep import config

        for module in self.modules:
            if config.current().integrates(module.rpartition(".")[2]):
                from watchkeep import installer

                installer.install(module)


class _InstallLater(_Install):
    """Install integrations when their library is not only there but used."""

    def __init__(self, modules: tuple[str, ...], functions: tuple[str, ...]) -> None:
        super().__init__(modules)
        self.functions = functions

    def __call__(self, library: ModuleType) -> None:
        # The settings are dear to read: here only where a variable may forbid it, else at the first call.
        if any(os.environ.get(name) for name in _FORBIDDING) and not self._wanted():
            return
        from watchkeep.first_call import AtFirstCall

        AtFirstCall(self.functions, super().__call__)(library)

    def _wanted(self) -> bool:
        from watchkeep import config

        return any(config.current().integrates(module.rpartition(".")[2]) for module in self.modules)


_FORBIDDING = ("WATCHKEEP_DISABLED_INTEGRATIONS", "OTEL_PYTHON_DISABLED_INSTRUMENTATIONS")


def when_imported(name: str, callback: Callback) -> None:
    """Call `callback(module)` once, after module `name` has been executed, or now if it has been."""
    # No lock: the list is emptied by whoever comes, each callback is popped once, and a fork in
    # another thread cannot leave us locked.
    calls = _waiting.setdefault(name, [])
    calls.append(callback)
    if _FINDER not in sys.meta_path:
        sys.meta_path.insert(0, _FINDER)
    if _executed(name):
        _waiting.pop(name, None)
    if _waiting.get(name) is not calls and name in sys.modules:
        _run(sys.modules[name], calls)


def ready(name: str) -> bool:
    """Tell whether a module is imported, and not one that we still wait for because it is being executed."""
    return name in sys.modules and name not in _waiting


def _executed(name: str) -> bool:
    module: Any = sys.modules.get(name)
    if module is None:
        return False
    if type(module).__module__ == "importlib.util":  # a lazy module: any plain look at it would load it
        spec = object.__getattribute__(module, "__spec__")
        spec.loader = _wrapped(name, spec.loader)
        return False
    if getattr(getattr(module, "__spec__", None), "_initializing", False):
        attempt(__import__, name)  # waits for the thread that is in the middle of it
    return sys.modules.get(name) is not None


def _run(module: ModuleType, calls: list[Callback]) -> None:
    while calls:
        try:
            callback = calls.pop(0)
        except IndexError:  # another thread had the last one
            return
        attempt(callback, module)


def attempt(function: Callable[..., object], *args: object) -> None:
    """Call `function` as the guard does, which is loaded only when that fails."""
    try:
        function(*args)
    except Exception as error:  # noqa: BLE001 - the guard's import would be most of our start-up
        _failed(function, error)


def _failed(function: Callable[..., object], error: Exception) -> None:
    try:
        from watchkeep import guard
    except Exception as broken:  # noqa: BLE001 - half an installation: the app's import must not fail for that
        _say_broken(broken)
        return
    guard.failed(function, error)


def _say_broken(error: Exception) -> None:
    global _said
    if _said or sys.stderr is None:
        return
    _said = True
    try:
        sys.stderr.write(
            f"watchkeep: this installation is broken ({type(error).__name__}: {error}); your app runs without "
            f"telemetry. Install it again: {sys.executable} -m pip install --force-reinstall watchkeep\n"
        )
    except (OSError, ValueError):  # a closed stderr
        return


class _Finder:
    """Asks the finders behind it and puts a `_Loader` around what they find for an awaited module."""

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name not in _waiting:
            return None
        spec = self._ask_the_others(name, path, target)
        if spec is not None and hasattr(spec.loader, "exec_module"):
            spec.loader = _wrapped(name, spec.loader)
        return spec

    def _ask_the_others(self, name: str, path: Sequence[str] | None, target: ModuleType | None) -> ModuleSpec | None:
        finders = list(sys.meta_path)
        for finder in finders[finders.index(self) + 1 if self in finders else 0 :]:
            find = getattr(finder, "find_spec", None)
            spec: ModuleSpec | None = find(name, path, target) if find else None
            if spec is not None:
                return spec
        return None


class _Loader:
    """Stands in for a loader until the module is executed, and is that loader to whoever looks."""

    __slots__ = ("_loader", "_name")

    def __init__(self, name: str, loader: Any) -> None:
        self._name = name
        self._loader = loader

    @property  # type: ignore[misc]  # so that isinstance() and type-driven code see the real loader
    def __class__(self) -> Any:
        return type(self._loader)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)

    def __repr__(self) -> str:
        return repr(self._loader)

    def __reduce_ex__(self, protocol: Any) -> Any:
        return self._loader.__reduce_ex__(protocol)

    def exec_module(self, module: ModuleType) -> None:
        """Give the module its own loader back, execute it, then tell who waited."""
        me: Any = self
        loader, spec = self._loader, module.__spec__
        if spec is not None and spec.loader is me:
            spec.loader = loader
        if getattr(module, "__loader__", None) is me:
            module.__loader__ = loader
        loader.exec_module(module)
        calls = _waiting.pop(self._name, None)
        if calls:
            _run(sys.modules.get(self._name, module), calls)


def _wrapped(name: str, loader: object) -> Any:
    return _Loader(name, loader)


_FINDER: Any = _Finder()

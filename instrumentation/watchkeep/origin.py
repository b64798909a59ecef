"""Whose code makes a thing or is given to it: the app's, a library's or ours, and a name to tell it by."""

from __future__ import annotations

import os
import sys
from functools import partial
from types import FrameType, ModuleType
from typing import Any, NamedTuple

_STANDARD = os.path.dirname(os.__file__) + os.sep
_INSTALLED = (f"{os.sep}site-packages{os.sep}", f"{os.sep}dist-packages{os.sep}")
# What of ours stands between the app's call and its own function; other modules of ours are makers themselves.
_MACHINERY = (
    "watchkeep.hook",
    "watchkeep.guard",
    "watchkeep.first_call",
    "watchkeep.origin",
    "watchkeep.executors",
    "watchkeep.limiters",
    "watchkeep.integrations.",
)
OURS = "watchkeep"


class Site(NamedTuple):
    """Where something was made: `library` is the package that made it, "" where the app did."""

    module: str
    place: str  # module.function:line
    library: str


def site(thing: Any, package: str) -> Site:
    """Return where `thing`, whose class is from `package`, is being made just now."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and _is_inside(frame, thing, package):
        frame = frame.f_back
    if frame is None:
        return Site("", "", "")
    module, function = str(frame.f_globals.get("__name__", "")), frame.f_code.co_qualname
    where = module if function == "<module>" else f"{module}.{function}"
    return Site(module, f"{where}:{frame.f_lineno}", _library(module, frame.f_code.co_filename))


def _is_inside(frame: FrameType, thing: Any, package: str) -> bool:
    module = str(frame.f_globals.get("__name__", ""))
    if module.startswith(_MACHINERY) or module.partition(".")[0] == package:
        return True
    code = frame.f_code  # the constructor of a subclass is not where it is made
    return code.co_name == "__init__" and frame.f_locals.get(code.co_varnames[0]) is thing


def _library(module: str, file: str) -> str:
    package = module.partition(".")[0]
    if package == OURS:
        return OURS
    if package == "__main__" or package == _main_package():
        return ""
    installed = file.startswith(("<frozen", _STANDARD)) or any(part in file for part in _INSTALLED)
    return package if installed else ""


def _main_package() -> str:
    # `python -m app`, where the app itself is installed beside its libraries.
    spec = getattr(sys.modules.get("__main__"), "__spec__", None)
    return str(spec.name).partition(".")[0] if spec is not None else ""


def bound_in(module: str, thing: Any) -> str:
    """Return "module.name" where `thing` is a global of that module, else ""."""
    found = sys.modules.get(module)
    # By type and object's own lookup: a plain look at a lazy module would load it.
    if not issubclass(type(found), ModuleType):
        return ""
    namespace: dict[str, Any] = object.__getattribute__(found, "__dict__")
    name = next((key for key, value in namespace.copy().items() if value is thing), "")
    return f"{module}.{name}" if name else ""


def function_name(function: Any) -> str:
    """Return "module.qualified_name" of a function, of what a partial stands for, or of a callable's class."""
    while type(function) is partial:
        function = function.func
    name = getattr(function, "__qualname__", None)
    if not isinstance(name, str):
        function = type(function)
        name = function.__qualname__
    module = getattr(function, "__module__", None)
    return f"{module}.{name}" if isinstance(module, str) else name

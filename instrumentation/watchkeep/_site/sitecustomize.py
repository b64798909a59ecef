"""Python imports this at start where `watchkeep run` put its folder on PYTHONPATH.

Any interpreter may meet it, so: the standard library only, and no new syntax.
It leaves `sys.path` and `sys.modules` as they would be without it; children inherit PYTHONPATH.
"""

import os
import sys

here = os.path.dirname(os.path.abspath(__file__))
sys.path[:] = [folder for folder in sys.path if os.path.abspath(folder or os.curdir) != here]


def start() -> None:
    """Start watchkeep where this interpreter has it."""
    if sys.version_info < (3, 11):  # noqa: UP036 - an older interpreter may inherit PYTHONPATH
        return
    try:
        from watchkeep import auto

        auto.start("run")
    except Exception as error:  # noqa: BLE001 - whatever we are, the program runs
        if isinstance(error, ImportError) and not is_here():
            return
        say(error)


def is_here() -> bool:
    """Tell whether this interpreter has a package of ours, be it half of one."""
    from importlib.machinery import PathFinder

    spec = PathFinder.find_spec("watchkeep")
    return spec is not None and spec.origin is not None


def say(error: Exception) -> None:
    """Say in one line that we are broken, and what to do."""
    if sys.stderr is None:
        return
    try:
        sys.stderr.write(
            f"watchkeep: this installation is broken ({type(error).__name__}: {error}); your app runs without "
            f"telemetry. Install it again: {sys.executable} -m pip install --force-reinstall watchkeep\n"
        )
    except (OSError, ValueError):  # a closed stderr
        return


def chain() -> bool:
    """Run the sitecustomize that Python would have found without us, and say whether there is one."""
    from importlib.machinery import PathFinder

    spec = PathFinder.find_spec("sitecustomize")
    if spec is None or spec.loader is None:
        return False
    from importlib.util import module_from_spec

    sys.modules["sitecustomize"] = module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return True


try:
    start()
finally:  # whatever becomes of us, the user's own runs, and its errors are Python's to show
    found = chain()
if not found:
    # Python's own sign that there is none: it goes on silently and keeps no module of that name.
    raise ImportError("No module named 'sitecustomize'", name="sitecustomize")

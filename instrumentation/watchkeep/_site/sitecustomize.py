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
    except ImportError:
        return
    auto.start("run")


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

"""The same as `watchkeep run`, from code."""

from __future__ import annotations

import sys

from watchkeep import auto, guard


def instrument() -> bool:
    """Watch every supported library that is, or will be, imported; return False when switched off.

    After `uninstrument()` everything is watched again, after `shutdown()` it is sent again, too.
    Raises ConfigError when settings are wrong and WATCHKEEP_STRICT=true.
    """
    from watchkeep.config import checked

    checked()
    watching = auto.start("code")
    runtime = sys.modules.get("watchkeep.runtime")
    if watching and runtime is not None:
        guard.run(runtime.resume)
    return watching


def uninstrument() -> None:
    """Give back every object that was wrapped and stop watching for imports; what ended is still sent."""
    from watchkeep import installer, providers

    auto.stop()
    installer.uninstall_all()
    providers.leave()

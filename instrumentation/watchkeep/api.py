"""The same as `watchkeep run`, from code."""

from __future__ import annotations

from watchkeep import auto


def instrument() -> bool:
    """Watch every supported library that is, or will be, imported; return False when switched off.

    Raises ConfigError when settings are wrong and WATCHKEEP_STRICT=true.
    """
    from watchkeep.config import checked

    checked()
    return auto.start("code")


def uninstrument() -> None:
    """Give back every object that was wrapped and stop watching for imports; what ended is still sent."""
    from watchkeep import installer, providers

    auto.stop()
    installer.uninstall_all()
    providers.leave()

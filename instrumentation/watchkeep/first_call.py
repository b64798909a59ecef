"""Stand-ins that install an integration when one of its functions is first called.

Some libraries, such as `logging`, are imported by nearly every process and used by few. A stand-in makes their
import cost nothing; its first call takes all stand-ins of the library away, installs, and goes on as called.
"""

from __future__ import annotations

from watchkeep import auto

TYPE_CHECKING = False  # as `typing` has it, whose import would be most of our start-up
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType
    from typing import Any

_standing: list[tuple[Any, str, Any, Any]] = []


class AtFirstCall:
    """Called with a module: waits for the first call of one of its functions, then calls `install(module)`."""

    def __init__(self, functions: tuple[str, ...], install: Callable[[ModuleType], object]) -> None:
        self.functions = functions
        self.install = install

    def __call__(self, module: ModuleType) -> None:
        calls = [self.install]
        placed: list[tuple[Any, str, Any, Any]] = []

        def begin() -> None:
            if not any(each in _standing for each in placed):  # we have left; somebody's wrapper still holds it
                return
            try:
                install = calls.pop()
            except IndexError:  # another thread, or the call that we are inside of, has it
                return
            for each in placed:
                _take_away(each)
            install(module)

        for path in self.functions:
            owner: Any = module
            *parents, name = path.split(".")
            for parent in parents:
                owner = getattr(owner, parent, None)
            original = getattr(owner, "__dict__", {}).get(name)
            if original is not None:
                each = (owner, name, original, _stand_in(begin, owner, name, original))
                setattr(owner, name, each[3])
                placed.append(each)
        _standing.extend(placed)


def _stand_in(begin: Callable[[], None], owner: Any, name: str, original: Any) -> Any:
    def first(*args: Any, **kwargs: Any) -> Any:
        outermost = getattr(owner, name, None) is first
        auto.attempt(begin)
        now: Any = getattr(owner, name, None)
        # Inside somebody else's wrapper, or while another thread installs, the original is what is next.
        return (original if now is first or not outermost else now)(*args, **kwargs)

    made: Any = first
    made.__dict__.update(original.__dict__)
    for key in ("__name__", "__qualname__", "__doc__", "__module__"):
        setattr(made, key, getattr(original, key))
    made.__wrapped__ = original
    # Libraries such as `logging` tell their own frames by the file.
    made.__code__ = made.__code__.replace(co_filename=original.__code__.co_filename)
    return made


def _take_away(each: tuple[Any, str, Any, Any]) -> None:
    owner, name, original, stand_in = each
    if getattr(owner, name, None) is stand_in:
        setattr(owner, name, original)
    if each in _standing:
        _standing.remove(each)


def take_away_all() -> None:
    """Give back every function that has not been called yet."""
    for each in list(_standing):
        _take_away(each)

"""Put wrappers in place, and give the very same objects back."""

from __future__ import annotations

import sys
from typing import Any, NamedTuple

from watchkeep.hook import TAG, Target, wrapped


class Patch(NamedTuple):
    """What was changed, and how to undo it."""

    owner: Any
    name: str
    original: Any
    wrapper: Any
    own: bool  # False: the attribute was inherited, undoing deletes ours


def find(path: str) -> tuple[Any, str] | None:
    """Return (owner, attribute name) of a dotted path whose module is imported, None where it is missing."""
    module, _, qualified = path.partition(":")
    owner: Any = sys.modules.get(module)
    *parents, name = qualified.split(".")
    for parent in parents:
        owner = getattr(owner, parent, None)
    return (owner, name) if owner is not None and hasattr(owner, name) else None


def patch(target: Target) -> Patch | None:
    """Wrap a target; None when its seam is missing or it is wrapped by us already."""
    found = find(target.path)
    if found is None:
        return None
    owner, name = found
    original = getattr(owner, name)
    if is_ours(original):
        return None
    wrapper = wrapped(target, original)
    own = name in vars(owner)
    setattr(owner, name, wrapper)
    return Patch(owner, name, original, wrapper, own)


def unpatch(done: Patch) -> None:
    """Give the very same object back; where somebody wrapped ours since, theirs stays, and ours looks at nothing."""
    getattr(done.wrapper, TAG).off()
    if getattr(done.owner, done.name, None) is not done.wrapper:
        return
    if done.own:
        setattr(done.owner, done.name, done.original)
    else:
        delattr(done.owner, done.name)


def is_ours(function: Any) -> bool:
    """Whether a wrapper of ours that looks is anywhere in the chain of wrappers."""
    seen = 0
    while function is not None and seen < 32:
        switch = getattr(function, "__dict__", {}).get(TAG)
        if switch is not None and switch.on:
            return True
        function = getattr(function, "__wrapped__", None)
        seen += 1
    return False

"""stamina: the names of its policies. It is built on tenacity, whose integration sees its tries and waits: one layer.

Every loop of stamina's makes its `before_sleep` first, and is told its name there. Without that seam its loops
are seen all the same, by the name of the function they stand in.
"""

from __future__ import annotations

from typing import Any

from watchkeep import names
from watchkeep.hook import Target
from watchkeep.integrations import Integration, scope
from watchkeep.integrations.tenacity import NAMED

SCOPE = scope("stamina", names.SCHEMA_EXTENSION)
_NAMELESS = "<"  # what names of no function begin with: "<context block>"


def _begins(args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
    name: str = args[0] if args else kwargs["name"]
    return "" if name.startswith(_NAMELESS) else name


def _made(name: str, before_sleep: Any) -> None:
    setattr(before_sleep, NAMED, (name, SCOPE))


INTEGRATION = Integration(
    name="stamina",
    scope=SCOPE,
    targets=(Target("stamina._core:_make_before_sleep", _begins, _made, needed=False),),
    supported={"stamina": ("23.2", "27")},
)

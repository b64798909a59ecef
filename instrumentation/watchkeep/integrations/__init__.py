"""The shape of an integration: data and pure readers. A module here with an `INTEGRATION` is one.

It is found by a scan of this package, installed when the app imports what it hooks, undone from the same
list. `docs/adding-an-integration.md` shows how to add one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from watchkeep import app
from watchkeep.export.model import Scope
from watchkeep.hook import Target
from watchkeep.version import __version__

scopes: list[Scope] = []
"""Every scope of ours that may measure something."""


@dataclass(frozen=True)
class Integration:
    """What one library needs.

    `supported` maps each distribution to the lowest and the first unsupported version (empty: no bound).
    `started` runs after the targets of a module were wrapped, `stopped` after they were given back.
    """

    name: str
    scope: Scope
    targets: tuple[Target, ...]
    supported: dict[str, tuple[str, str]] = field(default_factory=dict)
    triggers: tuple[str, ...] = ()  # further modules whose import installs it
    at_first_call: bool = False  # True: installed when a target is first called; the import starts nothing
    started: Callable[[str], None] | None = None
    stopped: Callable[[], None] | None = None

    @property
    def modules(self) -> tuple[str, ...]:
        """The modules whose import makes a target of this integration exist."""
        return tuple(dict.fromkeys((*(target.module for target in self.targets), *self.triggers)))


def scope(name: str, schema_url: str) -> Scope:
    """Return the instrumentation scope of an integration."""
    made = Scope(f"watchkeep.{name}", __version__, schema_url)
    scopes.append(made)
    if app.show_scope is not None:
        app.show_scope(made)
    return made

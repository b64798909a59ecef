"""One logical call, however often it is tried: the outermost of retry, breaker and chat counts it (`resilience.calls`).

A retry or a breaker is a `Logical` around the chats made inside it. A stream that the app still reads when
that is over counts itself at its end, because only then it is known how the call went.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from watchkeep import context, names, runtime
from watchkeep.blame import Blame
from watchkeep.export.model import Scope

_KEPT = (names.GEN_AI_OPERATION_NAME, names.GEN_AI_REQUEST_MODEL, names.GEN_AI_PROVIDER_NAME)


class Logical:
    """What a retry or a breaker learns of the chats made inside it, and what they learn of it."""

    __slots__ = ("_root", "_turn", "before", "error", "labels", "marks", "outer", "over", "running", "scope", "trace")

    def __init__(self) -> None:
        self.outer = here()
        # Nothing in it leads back to itself: it is gone with the call, without the garbage collector.
        self._root: Logical | None = self.outer.root if self.outer is not None else None
        self.over = False
        self.labels: dict[str, Any] | None = None  # of the last chat
        self.scope: Scope | None = None
        self.error: Blame | None = None  # of the last chat; None: it went well
        self.marks: dict[str, Any] | None = None  # attributes of operations opened inside
        self.running: set[int] = set()  # chats, at the outermost
        self.before: Logical | None = None
        self.trace = 0  # at the outermost: the trace of what has no parent inside
        self._turn = [None]

    @property
    def root(self) -> Logical:
        """The outermost."""
        return self._root or self

    # Restored by value: a `with` block may be left in another context than the one it was entered in.

    def enter(self) -> None:
        """Stand around the calls made here, until `leave`."""
        if context.logical.get() is not self:
            self.before = here()  # not one that was left standing: they would pile up
            context.logical.set(self)

    def leave(self) -> None:
        """Undo `enter`."""
        if context.logical.get() is self:
            context.logical.set(self.before)

    def trace_id(self, new: Callable[[], int]) -> int:
        """Return the trace that everything without a parent in here shares: a breaker's change and its chats."""
        root = self.root
        if not root.trace:
            root.trace = new()
        return root.trace

    def saw(self, labels: dict[str, Any], scope: Scope | None, error: Blame | None) -> None:
        """Learn how the last chat inside went, and let those outside learn it."""
        link: Logical | None = self
        while link is not None:
            link.labels, link.scope, link.error = labels, scope, error
            link = link.outer

    def began(self, call: object) -> None:
        """A chat begins inside."""
        self.root.running.add(id(call))

    def ended(self, call: object, attributes: dict[str, Any], scope: Scope, error: Blame | None) -> bool:
        """Note that a chat ended; return whether it must count itself, since what stood around it is over."""
        self.saw({key: attributes.get(key) for key in _KEPT}, scope, error)
        root = self.root
        root.running.discard(id(call))
        return root.over and not root.running and root._takes_turn()

    def end(self) -> bool:
        """It is over; return whether it is the one that counts: the outermost, with no chat left to end."""
        self.over = True
        return self._root is None and self.labels is not None and not self.running and self._takes_turn()

    def count(self, fault: Blame | None, scope: Scope) -> None:
        """Count it in `resilience.calls`; `scope` is taken where no chat says another."""
        labels = dict(self.labels or ())
        if fault is not None:
            labels[names.ERROR_TYPE], labels[names.RESILIENCE_FAULT_ORIGIN] = fault
        runtime.emitter().measure(names.METRIC_RESILIENCE_CALLS, self.scope or scope, labels)

    def _takes_turn(self) -> bool:
        # A chat that ends in another thread may ask at the same moment: only one can take the one item.
        try:
            self._turn.pop()
        except IndexError:
            return False
        return True


def here() -> Logical | None:
    """Return the innermost one that is not over; a task started inside may outlive it."""
    found = context.logical.get()
    while found is not None and found.over:
        found = found.outer
    return found


def mark(attributes: dict[str, Any]) -> None:
    """Give an operation that opens here what the retries and breakers around it say, of each kind the innermost."""
    found = context.logical.get()
    while found is not None:
        if found.marks is not None and not found.over:
            for key, value in found.marks.items():
                attributes.setdefault(key, value)
        found = found.outer

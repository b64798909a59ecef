"""Wrappers go in and out: whoever else has wrapped the same function, and however often."""

from __future__ import annotations

import asyncio
import sys
import types
from collections.abc import Callable
from functools import wraps
from typing import Any

import httpx
import httpx2
import openai
import pytest

import watchkeep
from llm_server import LLMServer
from watchkeep import patching
from watchkeep.hook import Target
from watchkeep.patching import Patch
from watchkeep.testing import Capture

SOURCE = """
class Thing:
    def work(self, value):
        return value + 1
    async def awork(self, value):
        return value + 1
"""


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch) -> Any:
    made = types.ModuleType("wk_hooked")
    exec(SOURCE, made.__dict__)
    monkeypatch.setitem(sys.modules, "wk_hooked", made)
    return made


class Seen:
    """Counts what the readers of a target were shown."""

    def __init__(self) -> None:
        self.count = 0

    def look(self, *_: Any) -> Any:
        self.count += 1

    def begin(self, *_: Any) -> bool:
        return True


def target(kind: str, seen: Seen) -> Target:
    readers: dict[str, dict[str, Any]] = {
        "call": {"before": seen.begin, "after": seen.look},
        "async": {"before": seen.begin, "after": seen.look},
        "chunk": {"chunk": seen.look},
        "swap": {"swap": seen.look},
    }
    return Target(f"wk_hooked:Thing.{name_of(kind)}", **readers[kind])


def name_of(kind: str) -> str:
    return "awork" if kind == "async" else "work"


def called(module: Any, kind: str) -> Any:
    made = getattr(module.Thing(), name_of(kind))(1)
    return asyncio.run(made) if kind == "async" else made


def opaque(function: Any) -> Any:
    return lambda *args, **kwargs: function(*args, **kwargs)


def honest(function: Any) -> Any:
    @wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    return call


def placed(target: Target) -> Patch:
    made = patching.patch(target)
    assert made is not None
    return made


@pytest.mark.parametrize("wrap", [opaque, honest])
@pytest.mark.parametrize("kind", ["call", "async", "chunk", "swap"])
def test_under_somebodys_wrapper(module: Any, kind: str, wrap: Callable[[Any], Any]) -> None:
    """What we cannot take out sees nothing any more, and coming again we see each call once, in every round."""
    seen = Seen()
    done = placed(target(kind, seen))
    theirs = wrap(getattr(module.Thing, name_of(kind)))
    setattr(module.Thing, name_of(kind), theirs)
    for round_ in range(3):
        patching.unpatch(done)
        assert called(module, kind) == 2
        assert seen.count == round_
        assert vars(module.Thing)[name_of(kind)] is theirs
        done = placed(target(kind, seen))
        assert patching.patch(target(kind, seen)) is None
        assert called(module, kind) == 2
        assert seen.count == round_ + 1


@pytest.mark.parametrize("kind", ["call", "async", "chunk", "swap"])
def test_a_function_that_the_app_kept(module: Any, kind: str) -> None:
    """A wrapper that the app holds a reference to is silent once we have left, and still does its work."""
    seen = Seen()
    done = placed(target(kind, seen))
    kept = getattr(module.Thing(), name_of(kind))
    patching.unpatch(done)
    assert (asyncio.run(kept(1)) if kind == "async" else kept(1)) == 2
    assert seen.count == 0


def test_a_function_that_makes_functions(module: Any) -> None:
    """Around what it made stand the readers of the target that is given for it; it looks like what it stands for."""
    seen: list[Any] = []

    def make(self: Any, given: Any) -> Any:
        @wraps(given)
        def made(value: int) -> Any:
            return given(value)

        return made

    def inner(value: int) -> int:
        return value + 1

    def around(made: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Target | None:
        if args[1] is opaque:
            return None
        return Target("wk_hooked:made", lambda args, _: args, lambda state, result: seen.append((*state, result)))

    module.Thing.work = make
    done = placed(Target("wk_hooked:Thing.work", around=around))
    function = module.Thing().work(inner)
    assert (function(1), seen) == (2, [(1, 2)])
    assert function.__wrapped__ is inner
    assert module.Thing().work(opaque).__wrapped__ is opaque
    patching.unpatch(done)
    assert module.Thing.work is make
    assert module.Thing().work(inner)(1) == 2
    assert len(seen) == 1


def test_a_call_that_began_before_we_left_ends_as_ever(module: Any) -> None:
    """What was begun is also ended, so that nothing stays open."""
    seen: list[str] = []
    inside: list[Patch] = []

    def slow(self: Any, value: int) -> int:
        patching.unpatch(inside.pop())
        return value + 1

    module.Thing.work = slow
    inside.append(placed(Target("wk_hooked:Thing.work", lambda *_: True, lambda *_: seen.append("ended"))))
    assert called(module, "call") == 2
    assert seen == ["ended"]


def test_a_wrapped_client(llm_server: LLMServer, watchkeep_capture: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    """Seams that somebody wrapped over since: nothing is seen after we left, all of it once we are back."""
    for owner, name in (
        (openai._base_client.SyncAPIClient, "request"),
        (httpx.Client, "send"),
        (httpx2.Client, "send"),
    ):
        monkeypatch.setattr(owner, name, opaque(getattr(owner, name)))

    def chat() -> list[str]:
        watchkeep_capture.clear()
        with openai.OpenAI(base_url=llm_server.base_url, api_key="sk-test") as client:
            client.chat.completions.create(model="gpt-4o", messages=[{"role": "user", "content": "hi"}])
        return sorted(span.name.split(" ")[0] for span in watchkeep_capture.spans())

    once = chat()
    assert once.count("chat") == once.count("POST") == 1
    try:
        for _ in range(2):
            watchkeep.uninstrument()
            assert chat() == []
            watchkeep.instrument()
            assert chat() == once
    finally:
        watchkeep.uninstrument()
        monkeypatch.undo()
        watchkeep.instrument()

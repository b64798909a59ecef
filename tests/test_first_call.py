"""What is installed at the first call: until then a stand-in is all that the app can see."""

from __future__ import annotations

import sys
import threading
import types
from collections.abc import Iterator
from typing import Any

import pytest

from watchkeep import first_call
from watchkeep.first_call import AtFirstCall

SOURCE = """
class Thing:
    def work(self, value):
        "Work."
        return value + 1
    def rest(self):
        return "rested"
"""


@pytest.fixture
def module() -> Iterator[types.ModuleType]:
    made = types.ModuleType("wk_thing")
    exec(compile(SOURCE, "wk_thing.py", "exec"), made.__dict__)
    yield made
    first_call.take_away_all()


def test_the_first_call_installs_and_goes_on(module: Any) -> None:
    """The first call of either function installs once, then runs through what was installed."""
    seen = []

    def install(given: Any) -> None:
        seen.append(given)
        original = given.Thing.work
        given.Thing.work = lambda self, value: original(self, value) * 10

    before = dict(vars(module.Thing))
    AtFirstCall(("Thing.work", "Thing.rest", "Thing.absent"), install)(module)
    assert seen == []
    assert module.Thing().work(1) == 20
    assert module.Thing().rest() == "rested"
    assert seen == [module]
    assert module.Thing.rest is before["rest"]


def test_a_wrapped_stand_in_installs_nothing_once_we_have_left(module: Any) -> None:
    """Somebody's wrapper still calls the stand-in: that installs nothing, until we come again, and then once."""
    seen: list[Any] = []
    AtFirstCall(("Thing.work",), seen.append)(module)
    stand_in = module.Thing.work
    module.Thing.work = lambda self, value: stand_in(self, value)
    first_call.take_away_all()
    assert module.Thing().work(1) == 2
    assert seen == []
    AtFirstCall(("Thing.work",), seen.append)(module)
    assert module.Thing().work(1) == 2
    assert seen == [module]


def test_who_wrapped_the_stand_in_stays(module: Any) -> None:
    """A wrapper that the app put around the stand-in is kept, and calls the original for ever."""

    def install(given: Any) -> None:
        wrapper = given.Thing.work
        given.Thing.work = lambda self, value: wrapper(self, value) * 10

    AtFirstCall(("Thing.work",), install)(module)
    stand_in = module.Thing.work
    module.Thing.work = lambda self, value: stand_in(self, value) + 100
    assert [module.Thing().work(1), module.Thing().work(1)] == [102, 1020]


def test_a_call_while_another_thread_installs_runs_the_original(module: Any) -> None:
    """Nobody waits for an installation that is under way."""
    entered, release = threading.Event(), threading.Event()

    def install(given: Any) -> None:
        entered.set()
        release.wait(10)

    AtFirstCall(("Thing.work",), install)(module)
    thread = threading.Thread(target=module.Thing().work, args=(1,))
    thread.start()
    entered.wait(10)
    assert module.Thing().work(1) == 2
    release.set()
    thread.join()


def test_an_uncalled_function_is_given_back(module: Any) -> None:
    """The very same object stands there again."""
    before = dict(vars(module.Thing))
    AtFirstCall(("Thing.work", "Thing.rest"), print)(module)
    assert module.Thing.work is not before["work"]
    assert (module.Thing.work.__doc__, module.Thing.work.__qualname__) == ("Work.", "Thing.work")
    first_call.take_away_all()
    assert dict(vars(module.Thing)) == before


def test_the_frame_counts_as_the_librarys(module: Any) -> None:
    """Code that looks at the file of a frame finds the library's."""
    seen = []
    module.Thing.rest = types.FunctionType(
        compile("def rest(self): look()", "wk_thing.py", "exec").co_consts[0],
        {"look": lambda: seen.append(sys._getframe(2).f_code.co_filename)},
    )
    AtFirstCall(("Thing.rest",), lambda _: None)(module)
    module.Thing().rest()
    assert seen == ["wk_thing.py"]

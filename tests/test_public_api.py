"""The public face: few names, sorted, each of them there, none of them costly to ask for."""

import watchkeep
from watchkeep import config


def test_the_public_names_are_these():
    """A name more or less is a decision, not an accident."""
    assert watchkeep.__all__ == [
        "__version__",
        "correlation",
        "correlation_id",
        "flush",
        "instrument",
        "reset_correlation_id",
        "set_correlation_id",
        "set_session",
        "setup_logging",
        "shutdown",
        "uninstrument",
    ]


def test_every_public_name_is_there_and_says_what_it_does():
    """Each name can be had, and begins its docstring with a sentence."""
    for name in watchkeep.__all__:
        thing = getattr(watchkeep, name)
        assert name == "__version__" or thing.__doc__.strip().split("\n")[0].endswith((".", ":", ","))


def test_the_names_are_sorted():
    """What is listed is listed in order."""
    assert watchkeep.__all__ == sorted(watchkeep.__all__)


def test_an_unknown_name_is_an_attribute_error():
    """A misspelt name fails as in any module."""
    assert not hasattr(watchkeep, "instrumment")


def test_flush_and_shutdown_without_anything_running_are_fine():
    """Both may be called at any time, by a function as a service or a notebook."""
    assert watchkeep.flush(0.1)
    assert watchkeep.shutdown(0.1)


def test_a_config_cannot_be_changed_once_it_runs():
    """Settings are frozen."""
    try:
        config.load({}).config.console = True  # type: ignore[misc]
    except AttributeError:
        return
    raise AssertionError("the settings could be changed")

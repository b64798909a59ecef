"""Every name of our extension is captured by a test, or stands in the printed list of what is not there yet."""

import pytest

from support import completeness


@pytest.fixture(autouse=True)
def whole_run(request):
    """Only a run of all tests can tell; it runs this file last."""
    config = request.config
    if config.option.keyword or config.option.markexpr or config.args != config.getini("testpaths"):
        pytest.skip("only a run of all tests captures every name")


def test_every_name_is_captured_or_listed():
    """No metric, span, event or attribute of the extension is forgotten."""
    assert {part: names for part, names in completeness.missing().items() if names} == {}


def test_the_list_names_nothing_that_is_there():
    """What a test captures has left the list."""
    assert {part: names for part, names in completeness.stale().items() if names} == {}

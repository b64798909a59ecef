"""What a newcomer reads: short, linked, and true of what is there."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "instrumentation" / "watchkeep"
PAGES = sorted(path for path in (ROOT / "README.md", *(ROOT / "docs").glob("*.md")))
FIRST_PAGE = 75  # lines of names.py, up to its attributes


def lines(path):
    return len((ROOT / path).read_text().splitlines())


def test_the_readme_is_short():
    """It shows the result before the theory, in at most 120 lines."""
    assert lines("README.md") <= 120


def test_the_way_in_is_short():
    """README, architecture, the first page of names, the hot path, one integration and its test: under 800 lines."""
    read = (
        "README.md",
        "docs/architecture.md",
        "instrumentation/watchkeep/hook.py",
        "instrumentation/watchkeep/integrations/http.py",
        "tests/integrations/test_http.py",
    )
    assert sum(map(lines, read)) + FIRST_PAGE < 800


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_somewhere(page):
    """A relative link of a page is a file that is there."""
    for link in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
        if "://" not in link:
            assert (page.parent / link).exists(), link


def test_every_verb_of_the_readme_is_in_the_makefile():
    """`make x` in a page is a target."""
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.M))
    for page in PAGES:
        assert set(re.findall(r"^make ([a-z]+)$|`make ([a-z]+)`", page.read_text(), re.M)) <= {
            (target, "") for target in targets
        } | {("", target) for target in targets}


def test_every_module_that_the_architecture_names_is_there():
    """The map shows the house as it is."""
    for name in re.findall(r"`([a-z_]+\.py)`", (ROOT / "docs" / "architecture.md").read_text()):
        assert list(PACKAGE.rglob(name)), name


def test_every_module_says_what_it_is_for():
    """Each module begins with a docstring."""
    for path in PACKAGE.rglob("*.py"):
        assert path.read_text().startswith(('"""', 'r"""')) or not path.read_text().strip(), path

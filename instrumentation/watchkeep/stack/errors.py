"""What can go wrong with the servers: each is one line that names the cause and the remedy."""

from __future__ import annotations


class StackError(Exception):
    """One line for the user: what is wrong, and what to do."""


class NoGo(StackError):  # noqa: N818 - a plain statement
    """Go is needed, and none that is new enough is to be had."""

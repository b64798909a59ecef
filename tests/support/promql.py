"""Reads PromQL: which series an expression asks for, and by which labels it groups."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import promql_parser

_SETS = ("and", "unless")


class Selector(NamedTuple):
    """One selector of an expression."""

    name: str
    labels: tuple[str, ...]  # that its matchers name
    window: Any  # of a range selector, else None
    is_filter: bool  # right of `and` or `unless`: its value is not used


def selectors(expr: str) -> list[Selector]:
    """Return every selector of an expression."""
    return list(_selectors(promql_parser.parse(expr), None, False))


def groupings(expr: str) -> set[str]:
    """Return every label that the expression groups by, joins on, or hands over."""
    return set(_groupings(promql_parser.parse(expr)))


def made_labels(expr: str) -> set[str]:
    """Return the labels that the expression makes itself, by label_replace and label_join."""
    return {
        str(node.args[1].val)
        for node in _nodes(promql_parser.parse(expr))
        if isinstance(node, promql_parser.Call) and node.func.name in ("label_replace", "label_join")
    }


def _children(node: Any) -> Iterator[tuple[Any, bool]]:
    if isinstance(node, promql_parser.BinaryExpr):
        yield node.lhs, False
        yield node.rhs, str(node.op) in _SETS
    elif isinstance(node, promql_parser.Call):
        yield from ((each, False) for each in node.args)
    elif isinstance(node, promql_parser.AggregateExpr):
        yield node.expr, False
        if node.param is not None:
            yield node.param, False
    elif isinstance(node, (promql_parser.ParenExpr, promql_parser.UnaryExpr, promql_parser.SubqueryExpr)):
        yield node.expr, False


def _selectors(node: Any, window: Any, is_filter: bool) -> Iterator[Selector]:
    if isinstance(node, promql_parser.MatrixSelector):
        yield from _selectors(node.vector_selector, node.range, is_filter)
    elif isinstance(node, promql_parser.VectorSelector):
        matchers = node.matchers
        found = [*matchers.matchers, *(each for group in matchers.or_matchers for each in group)]
        named = [each.value for each in found if each.name == "__name__"]
        labels = tuple(each.name for each in found if each.name != "__name__")
        yield Selector(node.name or (named[0] if named else ""), labels, window, is_filter)
    else:
        for child, filters in _children(node):
            inside = node.range if isinstance(node, promql_parser.SubqueryExpr) else window
            yield from _selectors(child, inside, is_filter or filters)


def _nodes(node: Any) -> Iterator[Any]:
    yield node
    for child, _ in _children(node):
        yield from _nodes(child)


def _groupings(node: Any) -> Iterator[str]:
    for each in _nodes(node):
        if isinstance(each, promql_parser.AggregateExpr) and each.modifier is not None:
            yield from each.modifier.labels
        if isinstance(each, promql_parser.BinaryExpr) and each.modifier is not None:
            if each.modifier.matching is not None:
                yield from each.modifier.matching.labels
            yield from each.modifier.group_labels or ()

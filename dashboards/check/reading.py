"""Who reads what: from a metric family to the panels and rules whose values come from it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import promql_parser as promql

from dashboards import catalogue
from dashboards.check.expressions import Expression
from dashboards.metric import Metric


@dataclass(frozen=True)
class _Selection:
    """Series that an expression reads."""

    name: str
    matchers: Mapping[str, promql.Matcher]

    def meets(self, labels: Mapping[str, str]) -> bool:
        """Whether series with these labels, and perhaps others, may be among them."""
        return all(
            _admits(self.matchers[label], value) for label, value in labels.items() if label in self.matchers
        )


def readers(metric: Metric, expressions: Sequence[Expression]) -> tuple[str, ...]:
    """The places whose values come from the family, also by way of what rules record."""
    read = [[*_selections(expression.text)] for expression in expressions]
    found: set[int] = set()
    seen: set[tuple[int, frozenset[tuple[str, str]]]] = set()
    # With the labels that rules have put on what was read.
    new: list[tuple[int, Mapping[str, str]]] = [
        (index, {})
        for index, selections in enumerate(read)
        if any(catalogue.find(selection.name) == metric for selection in selections)
    ]
    while new:
        index, labels = new.pop()
        if (index, frozenset(labels.items())) in seen:
            continue
        seen.add((index, frozenset(labels.items())))
        found.add(index)
        labels = {**labels, **expressions[index].adds}
        for other, selections in enumerate(read):
            if any(item.name == expressions[index].records and item.meets(labels) for item in selections):
                new.append((other, labels))
    # A rule that only tells replicas apart shows and decides nothing.
    return tuple(
        expressions[index].place
        for index in sorted(found)
        if not (expressions[index].records or "").startswith(catalogue.REPLICA)
    )


def _selections(text: str) -> Iterator[_Selection]:
    try:
        tree = promql.parse(text)
    except ValueError:
        return
    yield from _below(tree)


def _below(node: object) -> Iterator[_Selection]:
    match node:
        case promql.VectorSelector():
            matchers = {item.name: item for item in node.matchers.matchers}
            yield _Selection(node.name or "", matchers)
        case promql.MatrixSelector():
            yield from _below(node.vector_selector)
        case promql.BinaryExpr():
            yield from _below(node.lhs)
            yield from _below(node.rhs)
        case promql.Call():
            for item in node.args:
                yield from _below(item)
        case promql.SubqueryExpr() | promql.ParenExpr() | promql.UnaryExpr() | promql.AggregateExpr():
            yield from _below(node.expr)


def _admits(matcher: promql.Matcher, value: str) -> bool:
    """Whether the matcher lets a label's value through."""
    exact = matcher.op in (promql.MatchOp.Equal, promql.MatchOp.NotEqual)
    same = value == matcher.value if exact else bool(re.fullmatch(matcher.value, value))
    return same == (matcher.op in (promql.MatchOp.Equal, promql.MatchOp.Re))

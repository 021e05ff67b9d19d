"""What is wrong with a PromQL expression, as far as the catalogue of metrics can tell.

What an expression means is worked out bottom up: which labels its series have and what their values count.
Where that cannot be known, nothing is said.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from textwrap import shorten
from typing import Literal

import promql_parser as promql

from dashboards import catalogue
from dashboards.catalogue import REPLICA, Series
from dashboards.check import quantities
from dashboards.check.expressions import Expression
from dashboards.metric import version
from dashboards.server_metrics import PROCESS

Kind = Literal[
    "syntax",
    "unknown",
    "version",
    "flag",
    "label",
    "value",
    "job",
    "bucket",
    "histogram",
    "counter",
    "gauge",
    "raw",
    "sight",
    "window",
    "match",
    "unit",
    "record",
]
"""What is wrong with an expression."""

WINDOW = 300
"""Seconds: a shorter window may miss a replica, since a scrape meets only one of them."""

_INCREASES = ("increase", "rate", "irate")
_ONLY_COUNTERS = (*_INCREASES, "resets")
_ONLY_GAUGES = ("delta", "idelta", "deriv", "predict_linear", "double_exponential_smoothing")
_PRESENCE = ("absent", "absent_over_time", "present_over_time", "count_over_time", "timestamp", "changes")
"""Functions that do not look at values, so they may have those of a counter."""
_KEEP_UNIT = frozenset(
    (
        *("avg_over_time", "max_over_time", "min_over_time", "last_over_time", "first_over_time"),
        *("sum_over_time", "quantile_over_time", "stddev_over_time", "delta", "idelta"),
        *("abs", "ceil", "floor", "round", "clamp", "clamp_min", "clamp_max"),
        *("sort", "sort_desc", "sort_by_label", "sort_by_label_desc", "scalar"),
        *("label_replace", "label_join"),
    )
)
_KEEP_ALL_LABELS = ("topk", "bottomk", "limitk", "limit_ratio")
_COUNTING = ("count", "group", "count_values")
_COMPARISONS = ("==", "!=", ">", "<", ">=", "<=")
_SETS = ("and", "or", "unless")


@dataclass(frozen=True)
class Problem:
    """A mistake, and what to do about it."""

    kind: Kind
    place: str
    expression: str
    message: str

    def __str__(self) -> str:
        shortened = shorten(self.expression, 200, placeholder=" …")
        return f"{self.place}: {self.message}\n    {shortened}"


@dataclass(frozen=True)
class Surroundings:
    """What expressions are checked against."""

    vllm: str
    """Version of vLLM, such as `0.13`."""
    job: str
    """Label `job` of the endpoint's scrapes."""
    recorded: frozenset[str]
    """Names of all series that rules record."""


def mistakes(expression: Expression, surroundings: Surroundings) -> list[Problem]:
    """All that is wrong with the expression."""
    check = _Check(expression, surroundings)
    try:
        tree = promql.parse(expression.text)
    except ValueError as error:
        check.problem("syntax", f"Prometheus cannot read this: {error}")
        return check.found
    value = check.value(tree)
    check.result(value)
    return check.found


@dataclass(frozen=True)
class _Value:
    """What is known of the value of an expression."""

    labels: frozenset[str] | None = None
    """Those that its series can have; None if they can have any."""
    exact: bool = False
    """Whether all series have all of these labels."""
    unit: str | None = None
    observed: str | None = None
    """Of buckets: the unit of their bounds."""
    seconds: float | None = None
    """Of an increase: the length of its window."""
    number: float | None = None
    """Of a literal."""
    scalar: bool = False

    def grouped(self, labels: frozenset[str]) -> _Value:
        """With no other labels than these."""
        return replace(self, labels=labels if self.labels is None else labels & self.labels)

    def may_have(self, label: str) -> bool:
        return self.labels is None or label in self.labels

    def always_has(self) -> frozenset[str]:
        return self.labels if self.exact and self.labels is not None else frozenset()


_NUMBER = _Value(frozenset(), exact=True, scalar=True)


@dataclass
class _Check:
    """The walk through one expression."""

    expression: Expression
    surroundings: Surroundings
    found: list[Problem] = field(default_factory=list)

    def problem(self, kind: Kind, message: str) -> None:
        """Notes a problem, once."""
        problem = Problem(kind, self.expression.place, self.expression.text, message)
        if problem not in self.found:
            self.found.append(problem)

    def value(self, node: object, function: str = "", *, presence: bool = False) -> _Value:
        """What the node means.

        `function` is what it is the argument of; `presence` says that nobody looks at the values.
        """
        match node:
            case promql.VectorSelector():
                return self._selector(node, "", None, presence)
            case promql.MatrixSelector():
                seconds = node.range.total_seconds()
                return self._selector(node.vector_selector, function, seconds, presence)
            case promql.SubqueryExpr(expr=promql.VectorSelector() as selector, range=length) if length:
                return self._selector(selector, function, length.total_seconds(), presence)
            case promql.SubqueryExpr():
                inner = self.value(node.expr)
                return inner if function not in _ONLY_COUNTERS else replace(inner, unit=None)
            case promql.ParenExpr() | promql.UnaryExpr():
                return self.value(node.expr, function, presence=presence)
            case promql.NumberLiteral():
                return replace(_NUMBER, number=node.val)
            case promql.Call():
                return self._call(node)
            case promql.AggregateExpr():
                return self._aggregation(node)
            case promql.BinaryExpr():
                return self._binary(node)
            case _:
                return _NUMBER

    # --- series ---------------------------------------------------------------------------------------

    def _selector(
        self, node: promql.VectorSelector, function: str, seconds: float | None, presence: bool
    ) -> _Value:
        matchers = node.matchers.matchers
        name = node.name or next((item.value for item in matchers if item.name == "__name__"), "")
        found = catalogue.series(name)
        if found is None:
            self.problem("unknown", f"{name or 'a selector without a name'}: {_instead(name)}")
            return _Value()
        self._availability(found)
        labels = found.labels(self.surroundings.vllm)
        for item in matchers:
            if item.name not in labels and item.name != "__name__" and item.value:
                self.problem("label", f"{name} has no label {item.name}: {_choice(labels)}")
            if item.name == "le" and item.op == promql.MatchOp.Equal:
                self._bound(found, item.value)
            if item.name in found.metric.values:
                self._closed(found, item)
            if item.name == "job":
                self._endpoint(found, item)
        jobs = {item.value for item in matchers if item.name == "job" and item.op == promql.MatchOp.Equal}
        self._kind(found, function, seconds, presence, jobs)
        unit: str | None = found.unit
        if function in ("rate", "irate", "deriv"):
            unit = quantities.per_second(unit)
        return _Value(
            labels,
            exact=found.layer != "other" and found.metric not in PROCESS,
            unit=unit,
            observed=found.metric.unit if found.part == "bucket" else None,
            seconds=seconds if function == "increase" else found.increased,
        )

    def _availability(self, found: Series) -> None:
        """Whether the version of vLLM, or the rules, have it."""
        metric, vllm = found.metric, self.surroundings.vllm
        if found.layer in ("replica", "recorded") and found.name not in self.surroundings.recorded:
            self.problem(
                "unknown", f"{found.name}: no rule records it; add it to the rules or use another one"
            )
        if not metric.exists(vllm):
            if metric.until is not None and version(metric.until) <= version(vllm):
                instead = f"use {metric.replacement}" if metric.replacement else "nothing takes its place"
                self.problem("version", f"{metric.name} is gone since vLLM {metric.until}: {instead}")
            else:
                self.problem(
                    "version", f"{metric.name} comes with vLLM {metric.since}, this is {vllm}: leave it out"
                )
        elif metric.flag is not None:
            self.problem("flag", f"{metric.name} is only there with {metric.flag}: set that or leave it out")

    def _bound(self, found: Series, text: str) -> None:
        """Whether the histogram has the bucket; Prometheus compares the bounds as texts."""
        buckets = found.metric.buckets
        # Bounds that the catalogue leaves out are no mistake.
        if isinstance(buckets, tuple) and buckets and found.part == "bucket":
            bounds = [*(repr(bound) if bound < 1e6 else f"{bound:g}" for bound in buckets), "+Inf"]
            if text not in bounds:
                self.problem(
                    "bucket", f'{found.metric.name} has no bucket le="{text}": use one of {", ".join(bounds)}'
                )

    def _closed(self, found: Series, matcher: promql.Matcher) -> None:
        """Whether a matcher means some of the only values that a label can have."""
        values = found.metric.values[matcher.name]
        for wanted in _alternatives(matcher):
            if wanted and not any(re.fullmatch(wanted, value) for value in values):
                self.problem(
                    "value",
                    f'{found.name} never has {matcher.name}="{matcher.value}": '
                    f"use some of {', '.join(values)}",
                )

    def _endpoint(self, found: Series, matcher: promql.Matcher) -> None:
        """Whether series of an endpoint are asked for with its job."""
        of_an_endpoint = found.layer in ("replica", "recorded") or found.name.startswith("vllm:")
        positive = matcher.op in (promql.MatchOp.Equal, promql.MatchOp.Re)
        job = self.surroundings.job
        if (
            of_an_endpoint
            and positive
            and not any(re.fullmatch(wanted, job) for wanted in _alternatives(matcher))
        ):
            self.problem("job", f'{found.name} is of another job than the endpoint\'s: use job="{job}"')

    def _kind(
        self, found: Series, function: str, seconds: float | None, presence: bool, jobs: set[str]
    ) -> None:
        """Whether the function is right for a counter or a gauge of whoever made it."""
        name = found.name
        if found.part == "value" and found.metric.type in ("histogram", "summary"):
            self.problem("histogram", f"{name} is a {found.metric.type}: use {name}_bucket, _sum or _count")
            return
        if found.counts and function in _ONLY_GAUGES:
            self.problem("counter", f"{function}() is for gauges, {name} only grows: use increase(…[5m])")
        elif not found.counts and function in _ONLY_COUNTERS:
            self.problem("gauge", f"{function}() is for counters, {name} is a gauge: use avg_over_time()")
        elif found.layer in ("scraped", "replica", "recorded") and function in ("deriv", "predict_linear"):
            self.problem("gauge", f"{function}() of {name} goes on with replicas that are gone: use delta()")
        if found.layer == "scraped" and not self._of_another_process(found, jobs):
            self._raw(found)
            return
        if found.layer == "replica" and seconds is None and self.expression.keeps is None:
            self.problem(
                "sight",
                f"a scrape meets only one replica, so {name} comes and goes: use "
                + (f"increase({name}[5m])" if found.counts else f"last_over_time({name}[1m])"),
            )
            return
        if found.layer == "replica" and function in _INCREASES and (seconds or 0) < WINDOW:
            self.problem(
                "window",
                f"{function}() of {name} over {seconds:g} s misses replicas that no scrape met: use [5m]",
            )
        if name == self.expression.records:
            return  # a rule that holds what it records against what it recorded last
        if found.counts and not presence and function not in (*_ONLY_COUNTERS, *_ONLY_GAUGES, *_PRESENCE):
            self.problem("counter", f"{name} counts since its process began: use increase({name}[5m])")

    def _of_another_process(self, found: Series, jobs: set[str]) -> bool:
        """Whether it is not vLLM that is asked: others know process_… and http_… as well."""
        return not found.name.startswith("vllm:") and bool(jobs) and self.surroundings.job not in jobs

    def _raw(self, found: Series) -> None:
        """Whether this expression may read a scrape, in which all replicas are mixed."""
        records = self.expression.records or ""
        # Who was met is not what it counts; and some things every replica says alike.
        birth = found.part == "created" or found.name == "process_start_time_seconds"
        if records.startswith(REPLICA) or (records and birth) or found.name.endswith("_info"):
            return
        self.problem("raw", f"{found.name} is of whichever replica a scrape met: use {REPLICA}{found.name}")

    # --- functions ------------------------------------------------------------------------------------

    def _call(self, node: promql.Call) -> _Value:
        name = node.func.name
        presence = name in _PRESENCE
        values = [self.value(item, name, presence=presence) for item in node.args]
        if name in ("vector", "scalar", "time", "pi"):
            unit = "unix seconds" if name == "time" else None
            number = values[0].number if name == "vector" else None
            return replace(_NUMBER, unit=unit, number=number, scalar=name != "vector")
        if name == "histogram_quantile":
            return self._quantile(values[1])
        vector = next((value for value in values if not value.scalar), _Value())
        if name in ("label_replace", "label_join"):
            return self._relabelled(node, vector)
        if name in ("absent", "absent_over_time"):
            return _Value(unit="state")
        if name == "timestamp":
            return replace(vector, unit="unix seconds", observed=None, seconds=None)
        if name in _INCREASES:
            return vector
        unit = _combined(vector.unit, name.removesuffix("_over_time")) if name in _KEEP_UNIT else None
        unit = "items" if name == "count_over_time" else unit
        return replace(vector, unit=unit, number=None, seconds=None)

    def _quantile(self, buckets: _Value) -> _Value:
        if not buckets.may_have("le"):
            self.problem("histogram", "histogram_quantile() needs the bounds of the buckets: sum by (le, …)")
        elif buckets.observed is None and buckets.labels is not None:
            self.problem("histogram", "histogram_quantile() needs the series …_bucket of a histogram")
        labels = None if buckets.labels is None else buckets.labels - {"le"}
        return _Value(labels, exact=buckets.exact, unit=buckets.observed)

    def _relabelled(self, node: promql.Call, vector: _Value) -> _Value:
        made, *sources = [item.val for item in node.args[1:] if isinstance(item, promql.StringLiteral)]
        # Only with the regular expression "" it is certain that it matches.
        certain = vector.may_have(made) or (node.func.name == "label_replace" and sources[-1] == "")
        labels = None if vector.labels is None else vector.labels | {made}
        return replace(vector, labels=labels, exact=vector.exact and certain)

    def _aggregation(self, node: promql.AggregateExpr) -> _Value:
        operation = str(node.op)
        counting = operation in _COUNTING
        value = self.value(node.expr, presence=counting)
        if node.param is not None:
            self.value(node.param)
        grouping = frozenset(node.modifier.labels) if node.modifier else frozenset()
        without = node.modifier is not None and node.modifier.type == promql.AggModifierType.Without
        for label in sorted(grouping):
            word = "without" if without else "by"
            self._needs(value, label, f"{word} ({label}): there is no such label")
        if operation in _KEEP_ALL_LABELS:
            return value
        if without:
            value = replace(value, labels=None if value.labels is None else value.labels - grouping)
        else:
            value = value.grouped(grouping)
        if operation == "count_values" and isinstance(node.param, promql.StringLiteral):
            labels = None if value.labels is None else value.labels | {node.param.val}
            return _Value(labels, exact=value.exact)
        if counting or operation == "stdvar":
            unit = "items" if operation == "count" else None
            return _Value(value.labels, exact=value.exact, unit=unit)
        return replace(value, unit=_combined(value.unit, operation), number=None)

    # --- operators ------------------------------------------------------------------------------------

    def _binary(self, node: promql.BinaryExpr) -> _Value:
        operator = str(node.op)
        left = self.value(node.lhs)
        right = self.value(node.rhs, presence=operator in ("and", "unless"))
        labels, exact = self._matched(node, operator, left, right)
        unit, seconds = self._unit(operator, left, right, node)
        number = None
        if operator == "*" and 0 in (left.number, right.number):
            number = 0.0
        elif operator == "*" and left.number is not None and right.number is not None:
            number = left.number * right.number
        buckets = left.observed == right.observed or right.scalar or operator in (*_COMPARISONS, *_SETS)
        observed = right.observed if left.scalar else left.observed if buckets else None
        return _Value(labels, exact, unit, observed, seconds, number, left.scalar and right.scalar)

    def _matched(
        self, node: promql.BinaryExpr, operator: str, left: _Value, right: _Value
    ) -> tuple[frozenset[str] | None, bool]:
        """The labels of the result, and whether the sides can ever match."""
        if left.scalar or right.scalar:
            vector = right if left.scalar else left
            return vector.labels, vector.exact
        modifier = node.modifier
        matching = modifier.matching if modifier else None
        named = frozenset(matching.labels) if matching is not None else frozenset()
        if matching is not None and matching.type == promql.LabelModifierType.Include:
            for label in sorted(named):
                for side, value in (("left", left), ("right", right)):
                    self._needs(value, label, f"on ({label}): the {side} side has no such label")
            matched: frozenset[str] | None = named
        else:
            if operator != "or":
                self._same(left, right, named)
            matched = None if left.labels is None else left.labels - named
        if operator in ("and", "unless"):
            return left.labels, left.exact
        if operator == "or":
            both = None if left.labels is None or right.labels is None else left.labels | right.labels
            return both, left.exact and right.exact and left.labels == right.labels
        card = modifier.card if modifier else promql.VectorMatchCardinality.OneToOne
        if card == promql.VectorMatchCardinality.OneToOne:
            return matched, left.exact and right.exact
        to_left = card == promql.VectorMatchCardinality.ManyToOne
        many, one = (left, right) if to_left else (right, left)
        group = frozenset(modifier.group_labels or ()) if modifier else frozenset()
        word = "group_left" if to_left else "group_right"
        for label in sorted(group):
            self._needs(one, label, f"{word} ({label}): the other side has no such label")
        return None if many.labels is None else many.labels | group, many.exact and one.exact

    def _needs(self, value: _Value, label: str, message: str) -> None:
        if not value.may_have(label):
            self.problem("label", f"{message}: {_choice(value.labels or ())}")

    def _same(self, left: _Value, right: _Value, ignored: frozenset[str]) -> None:
        """Whether sides that are matched by all their labels can have the same ones."""
        extra = {label for label in left.always_has() - ignored if not right.may_have(label)}
        extra |= {label for label in right.always_has() - ignored if not left.may_have(label)}
        if extra:
            self.problem(
                "match",
                f"only one side has {', '.join(sorted(extra))}, so nothing matches: aggregate both sides by "
                "the same labels, or say on (…)",
            )

    def _unit(
        self, operator: str, left: _Value, right: _Value, node: promql.BinaryExpr
    ) -> tuple[str | None, float | None]:
        """The unit of the result, and the window if it still is an increase."""
        if operator in _COMPARISONS:
            if node.modifier is not None and node.modifier.return_bool:
                return "state", None
            return (right if left.number is not None else left).unit, left.seconds
        if operator in ("and", "unless"):
            return left.unit, left.seconds
        if operator == "or":
            if right.number is not None or left.unit == right.unit:
                return left.unit, left.seconds
            return None, None
        return self._arithmetic(operator, left, right), None

    @staticmethod
    def _arithmetic(operator: str, left: _Value, right: _Value) -> str | None:
        if operator == "*":
            if left.number is not None:
                return quantities.scaled(right.unit, left.number)
            if right.number is not None:
                return quantities.scaled(left.unit, right.number)
            return quantities.product(left.unit, right.unit)
        if operator == "/":
            if right.number is not None:
                if right.number == left.seconds:
                    return quantities.per_second(left.unit)
                return quantities.scaled(left.unit, 1 / right.number) if right.number else None
            if left.seconds is not None and right.seconds is None and right.unit == "seconds":
                return quantities.per_second(left.unit)  # of seconds no share, but as many per second
            return quantities.quotient(left.unit, right.unit)
        if operator in ("+", "-"):
            # A share from 1, or a number that is one of whatever the other side is.
            unit, number = (right.unit, left.number) if left.number is not None else (left.unit, right.number)
            if number is not None:
                return unit if unit == "ratio" else None
            change = quantities.difference if operator == "-" else quantities.total
            return change(left.unit, right.unit)
        return None

    # --- the whole ------------------------------------------------------------------------------------

    def result(self, value: _Value) -> None:
        """Whether the expression is what the place is for."""
        expression = self.expression
        if expression.unit is not None:
            unit = value.observed if expression.heatmap else value.unit
            if unit is not None and not quantities.fits(unit, expression.unit):
                self.problem(
                    "unit",
                    f"the values are {unit}, the panel's unit is {expression.unit!r}: "
                    f"use {quantities.shown_as(unit)!r}",
                )
        if expression.keeps is not None:
            self._needs(value, expression.keeps, f"there is no label {expression.keeps}")
        if expression.records is not None:
            self._record(expression.records, value)

    def _record(self, record: str, value: _Value) -> None:
        """Whether a rule makes what the catalogue says of its series."""
        declared = catalogue.series(record)
        if declared is None or declared.layer not in ("replica", "recorded"):
            self.problem("record", f"{record} is not in the catalogue: declare it in catalogue.RECORDED")
            return
        labels = declared.labels(self.surroundings.vllm)
        if value.labels is not None:
            made = value.labels | self.expression.adds.keys()
            if (missing := labels - made) or (value.exact and (missing := made - labels)):
                self.problem(
                    "record",
                    f"the rule and the catalogue disagree on the labels {', '.join(sorted(missing))} of "
                    f"{record}: the catalogue has {', '.join(sorted(labels))}",
                )
        # Whatever is counted may be replicas.
        if value.unit not in (None, declared.unit) and "items" not in (value.unit, declared.unit):
            self.problem("record", f"{record} is {value.unit}, the catalogue says {declared.unit}")


def _combined(unit: str | None, operation: str) -> str | None:
    """The unit of several values together; of states a share, or how many are so."""
    if unit == "state":
        return {"avg": "ratio", "sum": "items"}.get(operation, unit)
    return unit


def _alternatives(matcher: promql.Matcher) -> list[str]:
    """Regular expressions each of which should match something; those of a negation, what it leaves out."""
    if matcher.op in (promql.MatchOp.Equal, promql.MatchOp.NotEqual):
        return [re.escape(matcher.value)]
    # Alternatives within brackets are not those of the whole.
    return [matcher.value] if set(matcher.value) & set("([") else matcher.value.split("|")


def _choice(labels: Iterable[str]) -> str:
    return f"take one of {', '.join(sorted(labels))}" if labels else "there is none"


def _instead(name: str) -> str:
    """What was meant by a name that is unknown."""
    prefix = REPLICA if name.startswith(REPLICA) else ""
    plain = name.removeprefix(prefix)
    candidates = (
        re.sub(r"^vllm_", "vllm:", plain),
        f"{plain}_total",
        f"{re.sub(r'^vllm_', 'vllm:', plain)}_total",
        f"vllm:{plain}",
        plain.removesuffix("_total"),
    )
    for candidate in (*candidates, *get_close_matches(plain, catalogue.names(), 1, 0.7)):
        found = catalogue.series(candidate)
        if found is not None and candidate != plain:
            metric = found.metric
            if metric.until is not None and metric.replacement is not None:
                return f"{candidate} is gone since vLLM {metric.until}: use {metric.replacement}"
            return f"there is no such metric; use {prefix}{candidate}"
    return "there is no such metric; add it to the catalogue if it exists"

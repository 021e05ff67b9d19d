"""Label and field selectors: as texts in lists and watches, as objects in specifications."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from sandbox.cluster import errors
from sandbox.cluster.kinds import Object

_Test = Callable[[Mapping[str, str]], bool]

_SET = re.compile(r"([^\s!=,]+)\s+(in|notin)\s*\(([^)]*)\)")
_EQUAL = re.compile(r"([^\s!=,]+)\s*(==|=|!=)\s*([^\s,]*)")
_EXISTS = re.compile(r"(!?)\s*([^\s!=,()]+)")


def matcher(labels: str, fields: str) -> Callable[[Object], bool]:
    """Whether an object matches a `labelSelector` and a `fieldSelector`; ApiError when one cannot be read.

    Any dotted path is taken as a field (the real server knows a few per kind); a missing one is "".
    """
    label_tests = [_label_test(part) for part in _split(labels)]
    field_tests = [_field_test(part) for part in _split(fields)]

    def matches(value: Object) -> bool:
        own = value["metadata"].get("labels", {})
        return all(test(own) for test in label_tests) and all(test(value) for test in field_tests)

    return matches


class SelectorError(ValueError):
    """A label selector that cannot be read."""


def matches(selector: Object, labels: Mapping[str, str]) -> bool:
    """Whether labels fit a Kubernetes label selector; an empty one fits all.

    Raises SelectorError for an operator that there is not.
    """
    for expression in selector.get("matchExpressions", ()):
        value, values = labels.get(expression["key"]), expression.get("values", [])
        fits = {
            "In": value in values,
            "NotIn": value not in values,
            "Exists": value is not None,
            "DoesNotExist": value is None,
        }
        operator = expression["operator"]
        if operator not in fits:
            raise SelectorError(f'"{operator}" is not a valid label selector operator')
        if not fits[operator]:
            return False
    return bool(selector.get("matchLabels", {}).items() <= labels.items())


def _split(selector: str) -> list[str]:
    """Parts between commas that are not in parentheses."""
    parts = re.split(r",(?![^(]*\))", selector)
    return [part.strip() for part in parts if part.strip()]


def _label_test(text: str) -> _Test:
    if match := _SET.fullmatch(text):
        key, operator, listed = match.groups()
        values = {value.strip() for value in listed.split(",")}
        if operator == "in":
            return lambda labels: labels.get(key) in values
        return lambda labels: labels.get(key) not in values
    if match := _EQUAL.fullmatch(text):
        key, operator, value = match.groups()
        return lambda labels: (labels.get(key) == value) == (operator != "!=")
    if match := _EXISTS.fullmatch(text):
        negated, key = match.groups()
        return lambda labels: (key in labels) == (not negated)
    raise errors.bad_request(f"unable to parse requirement: {text!r}")


def _field_test(text: str) -> Callable[[Object], bool]:
    match = _EQUAL.fullmatch(text)
    if match is None:
        raise errors.bad_request(f"invalid field selector: {text!r}")
    path, operator, wanted = match.groups()

    def test(value: Object) -> bool:
        found: Any = value
        for part in path.split("."):
            found = found.get(part) if isinstance(found, dict) else None
        return (str(found if found is not None else "") == wanted) == (operator != "!=")

    return test

"""From what a user gives to complete values: defaults, and every mistake with its path."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from sandbox.cluster.chart.section import CHART, VERSION, ChartError, Free, Section
from sandbox.cluster.chart.values import Values
from sandbox.cluster.fields import merge_patch


def parse(values: Mapping[str, Any]) -> Values:
    """The chart's values with `values` laid over the defaults.

    Raises ChartError that names the full path of every unknown key (with the nearest known one) and of every
    value of a wrong type; values themselves are never shown, one may be a secret.
    """
    complete = _complete(Values(), values)
    try:
        return Values.model_validate(complete, by_alias=True, by_name=False)
    except ValidationError as error:
        mistakes = [
            _mistake(complete, detail["loc"], detail["type"], detail["msg"]) for detail in error.errors()
        ]
    raise ChartError(
        f"values of {CHART} {VERSION} that the sandbox's model of the chart refuses:\n"
        + "\n".join(f"  {mistake}" for mistake in dict.fromkeys(mistakes))
    )


def keys(section: type[Section] = Values, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every key of the model with its annotation: `("prometheus.prometheusSpec.retention", str)`."""
    for field in section.model_fields.values():
        path = f"{prefix}{field.alias}"
        annotation = field.annotation
        if isinstance(annotation, type) and issubclass(annotation, Section):
            yield from keys(annotation, f"{path}.")
        else:
            yield path, annotation


def _complete(default: Section, value: Mapping[str, Any]) -> Free:
    """`value` over the defaults; what is of a wrong type stays for the model to refuse."""
    complete: Free = dict(value)
    for name, field in type(default).model_fields.items():
        key, before = field.alias or name, getattr(default, name)
        if key not in complete:
            complete[key] = before
        elif isinstance(before, Section) and isinstance(complete[key], dict):
            complete[key] = _complete(before, complete[key])
        elif isinstance(before, dict) and isinstance(complete[key], dict):
            complete[key] = merge_patch(before, complete[key])  # Helm's rule for maps is that of RFC 7386
    return complete


def _mistake(values: Free, location: tuple[str | int, ...], kind: str, message: str) -> str:
    """One line about a mistake. `location` also holds marks of unions, which are in no user's values."""
    path: list[str] = []
    value: Any = values
    for part in location:
        try:
            value = value[part]
        except (KeyError, TypeError):
            break
        path.append(str(part))
    name = ".".join(path)
    if kind == "extra_forbidden":
        return f"{name}: unknown key{_nearest(path)}"
    wanted = _TYPES.get(kind) or message[:1].lower() + message[1:]
    return f"{name}: {wanted}, is {_type_name(value)}"


_TYPES = {
    "string_type": "must be a string (quote a number)",
    "int_type": "must be a whole number",
    "bool_type": "must be true or false",
    "list_type": "must be a list",
    "dict_type": "must be a map",
    "model_type": "must be a map",
}


def _type_name(value: Any) -> str:
    names = {
        bool: "a boolean",
        int: "a number",
        float: "a number",
        str: "a string",
        list: "a list",
        dict: "a map",
    }
    return names.get(type(value), "null")


def _nearest(path: Sequence[str]) -> str:
    """A hint at the known key that `path` was probably meant to be; empty when there is none."""
    *parent, name = path
    known = [key.split(".") for key, _ in keys()]
    siblings = {key[len(parent)] for key in known if key[: len(parent)] == parent}
    if near := difflib.get_close_matches(name, sorted(siblings), 1):
        return f"; did you mean {'.'.join([*parent, near[0]])}?"
    elsewhere = [".".join(key) for key in known if key[-1] == name]
    if near := difflib.get_close_matches(".".join(path), elsewhere, 1, cutoff=0):
        return f"; {near[0]} is known"
    return ""

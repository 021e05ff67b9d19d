"""Variables of a dashboard: what they stand for, and how Grafana writes them into a query."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

_ALL = "$__all"
_REFERENCE = re.compile(r"\$(\w+)|\$\{(\w+)\}")
_LEFT = re.compile(r"\$__\w+|\$\{[^{}]*\}|\[\[[^\[\]]*\]\]")
"""What looks like a variable still: one of Grafana's own, or with a format."""


@dataclass(frozen=True)
class Value:
    """What a variable stands for."""

    values: tuple[str, ...]
    text: str
    """As it is shown."""
    regex: bool = False
    """Whether it may stand for several values, and so is written as a regular expression."""
    literal: str | None = None
    """Written into queries as it is, instead of the values."""


@dataclass(frozen=True)
class Variable:
    """A variable with the values of a label, as the dashboard's JSON defines it."""

    name: str
    label: str
    query: str
    sorted: bool
    multi: bool
    include_all: bool
    all_value: str | None
    current: tuple[str, ...]
    shown: bool

    def value(self, answers: Sequence[str]) -> Value:
        """What it stands for when the page opens; `answers` are what its query found."""
        options = sorted(answers) if self.sorted else list(answers)
        chosen = [option for option in self.current if option in options or option == _ALL]
        if _ALL in chosen or (not chosen and self.include_all):
            return Value(tuple(options), "All", True, self.all_value)
        chosen = chosen or options[:1]
        return Value(tuple(chosen), " + ".join(chosen) or "None", self.multi or self.include_all)


def parse(definition: Mapping[str, Any]) -> Variable:
    """The variable that an entry of `templating.list` defines; raises ValueError for one of another kind."""
    name, query = definition["name"], definition.get("query") or ""
    for key, known in (("type", ("query",)), ("regex", ("", None)), ("sort", (0, 1, None))):
        if definition.get(key) not in known:
            raise ValueError(f"variable {name}: this page does not know {key} {definition.get(key)!r}")
    current = (definition.get("current") or {}).get("value") or []
    return Variable(
        name=name,
        label=definition.get("label") or name,
        query=query["query"] if isinstance(query, Mapping) else query,
        sorted=definition.get("sort") == 1,
        multi=bool(definition.get("multi")),
        include_all=bool(definition.get("includeAll")),
        all_value=definition.get("allValue") or None,
        current=(current,) if isinstance(current, str) else tuple(current),
        shown=definition.get("hide", 0) != 2,
    )


def in_query(text: str, values: Mapping[str, Value]) -> str:
    """`text` with its variables replaced as in a PromQL expression; unknown names stay."""
    return _replace(text, values, _promql)


def in_text(text: str, values: Mapping[str, Value]) -> str:
    """`text` with its variables replaced as in a title; unknown names stay."""
    return _replace(text, values, lambda value: value.text)


def left(text: str) -> list[str]:
    """References to variables that nothing was known for."""
    return _LEFT.findall(text)


def _replace(text: str, values: Mapping[str, Value], write: Callable[[Value], str]) -> str:
    def one(match: re.Match[str]) -> str:
        value = values.get(match[1] or match[2])
        return match[0] if value is None else write(value)

    return _REFERENCE.sub(one, text)


def _promql(value: Value) -> str:
    if value.literal is not None:
        return value.literal
    if not value.regex:
        return "".join(value.values).replace("\\", r"\\").replace('"', r"\"")
    escaped = [_regex(item) for item in value.values]
    return escaped[0] if len(escaped) == 1 else f"({'|'.join(escaped)})"


def _regex(value: str) -> str:
    """A value inside a regular expression inside a string of PromQL."""
    doubled = value.replace("\\", "\\" * 4)
    return re.sub(r"""[$^*{}\[\]'+?.()|]""", r"\\\\\g<0>", doubled).replace('"', r"\"")

"""Variables of a dashboard: what they stand for, and how Grafana writes them into a query."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

_ALL = "$__all"
_REFERENCE = re.compile(r"\$(\w+)|\$\{(\w+)(?::(\w+))?\}|\[\[(\w+)(?::(\w+))?\]\]")


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
    """A variable as the dashboard's JSON defines it."""

    name: str
    label: str
    kind: str
    """`query`, `custom`, `interval`, `constant`, `textbox` or `datasource`."""
    query: str
    pattern: str
    """Regular expression that values must match; its first group, if any, is what is kept."""
    sort: int
    multi: bool
    include_all: bool
    all_value: str | None
    current: tuple[str, ...]
    shown: bool

    def value(self, answers: Sequence[str]) -> Value:
        """What it stands for when the page opens; `answers` are what its query, if it has one, found."""
        options = self._options(answers)
        chosen = [option for option in self.current if option in dict(options) or option == _ALL]
        if self.kind in ("constant", "textbox"):
            return Value((self.query,), self.query)
        if self.kind == "datasource":
            return Value(self.current or ("Prometheus",), "Prometheus")
        several = self.multi or self.include_all
        if _ALL in chosen or (not chosen and self.include_all):
            return Value(tuple(value for value, _ in options), "All", True, self.all_value)
        if not chosen:
            chosen = [value for value, _ in options[:1]]
        text = " + ".join(dict(options)[value] for value in chosen)
        return Value(tuple(chosen), text or "None", several)

    def _options(self, answers: Sequence[str]) -> list[tuple[str, str]]:
        """Values with the text that is shown for each."""
        if self.kind == "query":
            kept = [self._kept(answer) for answer in answers]
            values = list(dict.fromkeys(value for value in kept if value is not None))
            return [(value, value) for value in _sorted(values, self.sort)]
        parts = [part.strip() for part in re.split(r"(?<!\\),", self.query) if part.strip()]
        pairs = [part.split(" : ", 1) for part in parts]
        return [(pair[-1].strip(), pair[0].strip()) for pair in pairs]

    def _kept(self, answer: str) -> str | None:
        if not self.pattern:
            return answer
        found = re.search(self.pattern.strip("/"), answer)
        if found is None:
            return None
        return found[1] if found.groups() else answer


def parse(definition: Mapping[str, Any]) -> Variable:
    """The variable that an entry of `templating.list` defines."""
    query = definition.get("query") or ""
    if isinstance(query, Mapping):
        query = query.get("query") or ""
    current = (definition.get("current") or {}).get("value") or []
    return Variable(
        name=definition["name"],
        label=definition.get("label") or definition["name"],
        kind=definition["type"],
        query=query,
        pattern=definition.get("regex") or "",
        sort=definition.get("sort") or 0,
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
    return _replace(text, values, lambda value, _: value.text)


def _replace(text: str, values: Mapping[str, Value], write: Callable[[Value, str | None], str]) -> str:
    def one(match: re.Match[str]) -> str:
        plain, braced, braced_format, bracketed, bracketed_format = match.groups()
        value = values.get(plain or braced or bracketed)
        if value is None:
            return match[0]
        return write(value, braced_format or bracketed_format)

    return _REFERENCE.sub(one, text)


def _promql(value: Value, form: str | None) -> str:
    if value.literal is not None:
        return value.literal
    match form:
        case "raw" | "csv":
            return ",".join(value.values)
        case "pipe":
            return "|".join(value.values)
        case _ if not value.regex:
            return "".join(value.values).replace("\\", r"\\").replace('"', r"\"")
    escaped = [_regex(item) for item in value.values]
    return escaped[0] if len(escaped) == 1 else f"({'|'.join(escaped)})"


def _regex(value: str) -> str:
    """A value inside a regular expression inside a string of PromQL."""
    doubled = value.replace("\\", "\\" * 4)
    return re.sub(r"""[$^*{}\[\]'+?.()|]""", r"\\\\\g<0>", doubled).replace('"', r"\"")


def _sorted(values: Sequence[str], sort: int) -> list[str]:
    """Values in the order of Grafana's sort: 1/2 by text, 3/4 by number, 5/6 by text in lower case."""
    if sort == 0:
        return list(values)

    def number(value: str) -> float:
        digits = re.search(r"\d+(?:\.\d+)?", value)
        return float(digits[0]) if digits else -1

    keys: dict[int, Any] = {1: str, 2: number, 3: str.lower}
    return sorted(values, key=keys.get((sort + 1) // 2, str), reverse=sort % 2 == 0)

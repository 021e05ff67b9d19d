"""Answers of Prometheus as tables of named fields, and what Grafana's transformations make of them."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

Scalar = float | str | None
Kind = Literal["time", "number", "string"]


class UnknownError(Exception):
    """A panel uses something that this module does not know."""


@dataclass(frozen=True)
class Field:
    """A column: times in unix seconds, numbers or texts."""

    name: str
    kind: Kind
    values: Sequence[Scalar]
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Frame:
    """Columns of equal length, made by the query `ref`."""

    ref: str
    fields: Sequence[Field]

    @property
    def length(self) -> int:
        """Number of rows."""
        return len(self.fields[0].values) if self.fields else 0


def series(ref: str, legend: str, result: Iterable[Mapping[str, Any]]) -> list[Frame]:
    """A frame for each series: its times and its values, named by the legend."""
    frames = []
    for item in result:
        found, labels = samples(item), item["metric"]
        times = Field("Time", "time", [time for time, _ in found])
        values = Field(_name(legend, labels), "number", [value for _, value in found], labels)
        frames.append(Frame(ref, (times, values)))
    return frames


def table(ref: str, value_name: str, result: Iterable[Mapping[str, Any]]) -> list[Frame]:
    """One frame with a column for each label and a row for each sample."""
    rows = [(item["metric"], sample) for item in result for sample in samples(item)]
    if not rows:
        return []
    names = sorted({name for labels, _ in rows for name in labels})
    texts = [Field(name, "string", [labels.get(name) for labels, _ in rows]) for name in names]
    times = Field("Time", "time", [time for _, (time, _) in rows])
    return [Frame(ref, (times, *texts, Field(value_name, "number", [value for _, (_, value) in rows])))]


def buckets(frames: Sequence[Frame]) -> list[Frame]:
    """Frames of cumulative buckets, in the order of `le`, each less what the ones below it count."""
    ordered = sorted(frames, key=lambda frame: float(frame.fields[1].labels.get("le", "nan")))
    below: dict[Scalar, float] = {}
    result = []
    for frame in ordered:
        times, counts = frame.fields
        own: list[Scalar] = []
        for time, count in zip(times.values, counts.values, strict=True):
            if not isinstance(count, float) or math.isnan(count):
                own.append(None)
                continue
            own.append(max(0.0, count - below.get(time, 0.0)))
            below[time] = count
        result.append(replace(frame, fields=(times, replace(counts, values=own))))
    return result


def transform(frames: Sequence[Frame], transformations: Iterable[Mapping[str, Any]]) -> list[Frame]:
    """What a panel's transformations, one after the other, make of its frames; may raise UnknownError."""
    current = list(frames)
    for step in transformations:
        change = _TRANSFORMATIONS.get(step["id"])
        if change is None:
            raise UnknownError(
                f"this page does not know the transformation {step['id']}, only {', '.join(_TRANSFORMATIONS)}"
            )
        current = change(current, step.get("options") or {})
    return current


def configured(item: Field, defaults: Mapping[str, Any], overrides: Sequence[Any]) -> Mapping[str, Any]:
    """The field's configuration: the panel's defaults and each override of its name (or UnknownError)."""
    config = defaults
    for override in overrides:
        matcher = override["matcher"]
        if matcher["id"] != "byName":
            raise UnknownError(
                f"this page does not know the matcher {matcher['id']} of overrides, only byName"
            )
        if matcher["options"] == item.name:
            for change in override["properties"]:
                config = _assigned(config, change["id"].split("."), change.get("value"))
    return config


def legend(text: str, labels: Mapping[str, str]) -> str:
    """`text` with `{{label}}` replaced; an absent label is empty."""
    return re.sub(r"\{\{\s*([^{}]+?)\s*\}\}", lambda match: labels.get(match[1], ""), text)


def samples(item: Mapping[str, Any]) -> list[tuple[float, float]]:
    """Times (unix seconds) and values of a series in the words of Prometheus' API."""
    pairs = item["values"] if "values" in item else [item["value"]]
    return [(float(time), float(value)) for time, value in pairs]


def _name(text: str, labels: Mapping[str, str]) -> str:
    if text:
        return legend(text, labels)
    inside = ", ".join(f'{key}="{value}"' for key, value in labels.items() if key != "__name__")
    return labels.get("__name__", "") + (f"{{{inside}}}" if inside else "") or "Value"


def _assigned(config: Mapping[str, Any], path: Sequence[str], value: Any) -> dict[str, Any]:
    """A copy with another value at the path."""
    first, *rest = path
    return {**config, first: _assigned(config.get(first) or {}, rest, value) if rest else value}


def _merge(frames: Sequence[Frame], _: Mapping[str, Any]) -> list[Frame]:
    """One frame; rows of different frames become one where their common columns are equal."""
    frames = [frame for frame in frames if frame.fields]
    if len(frames) < 2:
        return list(frames)
    names = [{item.name for item in frame.fields} for frame in frames]
    common = set.intersection(*names)
    columns = {item.name: item for frame in frames for item in frame.fields}
    rows: dict[tuple[Scalar, ...], dict[str, Scalar]] = {}
    for frame in frames:
        for index in range(frame.length):
            row = {item.name: item.values[index] for item in frame.fields}
            key = tuple(row[name] for name in sorted(common))
            rows.setdefault(key, {}).update(row)
    # Values stand behind what they are about.
    order = sorted(columns.values(), key=lambda item: item.kind == "number")
    return [
        Frame("", [replace(item, values=[row.get(item.name) for row in rows.values()]) for item in order])
    ]


def _organize(frames: Sequence[Frame], options: Mapping[str, Any]) -> list[Frame]:
    """Columns left out, put in order and renamed."""
    excluded = options.get("excludeByName") or {}
    places = options.get("indexByName") or {}
    names = options.get("renameByName") or {}
    result = []
    for frame in frames:
        kept = [item for item in frame.fields if not excluded.get(item.name)]
        kept.sort(key=lambda item: places.get(item.name, len(places)))
        fields = [replace(item, name=names.get(item.name) or item.name) for item in kept]
        result.append(replace(frame, fields=fields))
    return result


_TRANSFORMATIONS: dict[str, Callable[[Sequence[Frame], Mapping[str, Any]], list[Frame]]] = {
    "merge": _merge,
    "organize": _organize,
}

"""Reads text expositions of metrics, for tests that compare them family by family."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field


@dataclass
class Family:
    """A family as an exposition has it; `_created` is one of its own."""

    type: str
    help: str
    series: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    """Name and labels of each series, in order, the bounds of buckets aside."""
    bounds: list[str] = field(default_factory=list)
    """Of a histogram, as they are printed."""

    @property
    def labels(self) -> set[str]:
        """Names of the labels of all series."""
        return {label for _, labels in self.series for label in labels}


def families(text: str) -> dict[str, Family]:
    """The families by name, in order."""
    found: dict[str, Family] = {}
    helps: dict[str, str] = {}
    current = Family("", "")
    for line in text.splitlines():
        if match := re.fullmatch(r"# HELP (\S+) (.*)", line):
            helps[match[1]] = match[2]
        elif match := re.fullmatch(r"# TYPE (\S+) (\w+)", line):
            assert match[1] not in found, f"{match[1]} is there twice"
            current = found[match[1]] = Family(match[2], helps[match[1]])
        else:
            sample = re.fullmatch(r"([\w:]+)(?:\{(.*)\})? \S+", line)
            assert sample, f"not a sample: {line}"
            labels = dict(re.findall(r'(\w+)="((?:[^"\\]|\\.)*)"', sample[2] or ""))
            bound = labels.pop("le", None)
            if bound is not None and bound not in current.bounds:
                current.bounds.append(bound)
            if (sample[1], labels) not in current.series:
                current.series.append((sample[1], labels))
    return found


def differences(
    ours: Mapping[str, Family],
    real: Mapping[str, Family],
    same_value: Callable[[str], bool] = lambda label: True,
) -> Iterator[str]:
    """How our families differ from real ones, a line each; of values, only some labels'."""
    for name in real.keys() - ours.keys():
        yield f"{name} is missing"
    for name in ours.keys() - real.keys():
        yield f"{name} is not in the real one"
    common = [name for name in ours if name in real]
    if common != [name for name in real if name in ours]:
        yield "the families are in another order"
    for name in common:
        mine, theirs = ours[name], real[name]
        for what, of_mine, of_theirs in (
            ("type", mine.type, theirs.type),
            ("help", mine.help, theirs.help),
            ("labels", sorted(mine.labels), sorted(theirs.labels)),
            ("buckets", mine.bounds, theirs.bounds),
            ("series", _series(mine, same_value), _series(theirs, same_value)),
        ):
            if of_mine != of_theirs:
                yield f"{what} of {name}: ours {of_mine}, real {of_theirs}"


def _series(family: Family, same_value: Callable[[str], bool]) -> list[str]:
    return [
        f"{name}{ {label: value if same_value(label) else '…' for label, value in labels.items()} }"
        for name, labels in family.series
    ]

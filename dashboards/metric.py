"""What is known of a metric family, and of a version of vLLM."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, cast

Type = Literal["counter", "gauge", "histogram", "summary"]

Unit = Literal[
    "seconds", "unix seconds", "tokens", "requests", "bytes", "items", "replicas", "ratio", "state"
]
"""What a value counts or measures. `ratio`: 0 to 1, whatever the name says; `state`: 0 or 1, or the constant
1 of a family that says everything in its labels; `items`: anything countable that has no word here."""

FIRST = "0.13"
"""The first version that the catalogue is complete for."""
NEWEST = "0.33"
"""The newest version that was read for the catalogue."""


class UnknownVersionError(ValueError):
    """A text that is no version of vLLM, or one that the catalogue does not describe."""


def version(text: str) -> tuple[int, int]:
    """The two numbers that decide which metrics there are, of `0.13`, `v0.13.0`, `0.20.2rc1` and the like."""
    match = re.fullmatch(r"v?(\d+)\.(\d+)(?:[.+a-z-].*)?", text)
    if match is None:
        raise UnknownVersionError(f"{text!r} is no version of vLLM: write for example {NEWEST}")
    return int(match[1]), int(match[2])


@dataclass(frozen=True)
class Metric:
    """A metric family as it appears in an exposition."""

    name: str
    """As on the TYPE line, with a counter's `_total`."""
    type: Type
    help: str
    unit: Unit
    """Of a sample's value; of a histogram or summary: of what is observed."""
    labels: tuple[str, ...] = ()
    """Without those that the scrape adds, and without `le`."""
    buckets: tuple[float, ...] | Literal["model length"] = ()
    """Upper bounds without +Inf; `model length` is the 1-2-5 series up to the longest sequence."""
    counted: Unit = "items"
    """What `_count` and `_bucket` count."""
    created: bool = True
    """Whether a counter, histogram or summary tells when it was made."""
    since: str = FIRST
    """The first version (`0.16`) that has it; `0.13` may mean: or an earlier one."""
    until: str | None = None
    """The first version without it; None while the newest one has it."""
    flag: str | None = None
    """What vLLM must be started with; None if it is always there."""
    replacement: str | None = None
    """What to use after `until`, as a name or an expression."""
    label_versions: Mapping[str, tuple[str, str | None]] = field(default_factory=dict)
    """First version with a label, and first one without it again, where these are not those of the family."""
    changes: Mapping[str, str] = field(default_factory=dict)
    """What it does otherwise since a version, by version."""
    values: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """All values that a label can have, where it has no others."""

    @property
    def base(self) -> str:
        """The name without a counter's `_total`, to which `_created` is appended."""
        return self.name.removesuffix("_total") if self.type == "counter" else self.name

    def exists(self, vllm: str) -> bool:
        """Whether that version has it, with the right flag."""
        return _within(vllm, self.since, self.until)

    def labels_in(self, vllm: str) -> tuple[str, ...]:
        """Its labels in that version."""
        always = (FIRST, None)
        return tuple(label for label in self.labels if _within(vllm, *self.label_versions.get(label, always)))


def _within(vllm: str, since: str, until: str | None) -> bool:
    return version(since) <= version(vllm) and (until is None or version(vllm) < version(until))


def table(text: str, labels: tuple[str, ...], flag: str = "{}") -> tuple[Metric, ...]:
    """Families with these labels, a line each: name without `vllm:`, type, unit, first version, more labels.

    A line `# …` says what those below it need, as `flag` puts it. Help and buckets are left out.
    """
    metrics, needed = [], ""
    for line in text.strip().splitlines():
        if line.startswith("# "):
            needed = flag.format(line.removeprefix("# "))
            continue
        name, kind, unit, since, *more = line.split()
        metrics.append(
            Metric(
                f"vllm:{name}",
                cast(Type, kind),
                "",
                cast(Unit, unit.replace("_", " ")),
                (*labels, *(label for listed in more for label in listed.split(","))),
                since=since,
                flag=needed,
            )
        )
    return tuple(metrics)

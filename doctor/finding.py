"""What the doctor says."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Level = Literal["ok", "problem", "unknown"]
"""`unknown`: nobody could be asked, or the answer does not say; no reason to fail."""


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at."""

    level: Level
    topic: str
    text: str
    remedy: str = ""
    """What to do about it; "" when all is well."""


def ok(topic: str, text: str) -> Finding:
    """Nothing to do."""
    return Finding("ok", topic, text)


def problem(topic: str, text: str, remedy: str) -> Finding:
    """An update would fail, or stop half-way."""
    return Finding("problem", topic, text, remedy)


def unknown(topic: str, text: str, remedy: str) -> Finding:
    """Could not be found out; `remedy` says how else to find out."""
    return Finding("unknown", topic, text, remedy)


def table(findings: Sequence[Finding]) -> str:
    """The findings as lines of aligned columns, each remedy below its finding, and a line with the sum."""
    width = max((len(finding.topic) for finding in findings), default=0)
    lines: list[str] = []
    for finding in findings:
        lines.append(f"{finding.level:7}  {finding.topic:{width}}  {finding.text}")
        if finding.remedy:
            lines.append(f"{'':7}  {'':{width}}  → {finding.remedy}")
    counts = {
        level: sum(finding.level == level for finding in findings) for level in ("ok", "problem", "unknown")
    }
    return "\n".join([*lines, ", ".join(f"{count} {level}" for level, count in counts.items())])

"""Rules of Prometheus as data, and how they become a PrometheusRule."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

Severity = Literal["critical", "warning", "info"]
"""critical: somebody gets up; warning: somebody looks within the day; info: worth a line on a dashboard."""


@dataclass(frozen=True)
class Recording:
    """A series that Prometheus computes."""

    record: str
    expr: str
    labels: Mapping[str, str] = field(default_factory=dict)
    """Labels that are added."""

    def manifest(self) -> dict[str, Any]:
        """The rule as Prometheus reads it."""
        return {
            "record": self.record,
            "expr": self.expr,
            **({"labels": dict(self.labels)} if self.labels else {}),
        }


@dataclass(frozen=True)
class Alert:
    """A condition that somebody should know of. Its page among the runbooks has its name."""

    name: str
    severity: Severity
    expr: str
    duration: str
    """How long the condition holds before the alert fires (`for`), such as `5m`; `0s` fires at once."""
    summary: str
    """One line; may hold template expressions of Prometheus."""
    description: str
    """What it means and what to look at first."""
    labels: Mapping[str, str] = field(default_factory=dict)
    """Labels that are added to severity."""

    def manifest(self, runbooks: str) -> dict[str, Any]:
        """The rule as Prometheus reads it; `runbooks` is the address of the folder of runbooks."""
        return {
            "alert": self.name,
            "expr": self.expr,
            "for": self.duration,
            "labels": {"severity": self.severity, **self.labels},
            "annotations": {
                "summary": self.summary,
                "description": self.description,
                "runbook_url": f"{runbooks}/{self.name}.md",
            },
        }


@dataclass(frozen=True)
class Group:
    """Rules that are evaluated together, in order."""

    name: str
    rules: Sequence[Recording | Alert]
    interval: str | None = None
    """Such as `5s`; None is Prometheus' evaluation interval."""


def spec(groups: Sequence[Group], runbooks: str) -> dict[str, Any]:
    """The contents of a rule file, which are also the `spec` of a PrometheusRule."""
    return {
        "groups": [
            {
                "name": group.name,
                **({"interval": group.interval} if group.interval else {}),
                "rules": [
                    rule.manifest(runbooks) if isinstance(rule, Alert) else rule.manifest()
                    for rule in group.rules
                ],
            }
            for group in groups
        ]
    }

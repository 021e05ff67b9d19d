"""All expressions that are provisioned for an endpoint, and where each of them stands."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from dashboards.rules import Group, Recording


@dataclass(frozen=True)
class Expression:
    """An expression in its place."""

    place: str
    """Where to look for it, such as `vllm.json / Time to first token / A`."""
    text: str
    """PromQL, without Grafana's macros."""
    records: str | None = None
    """The series that a rule makes of it."""
    adds: Mapping[str, str] = field(default_factory=dict)
    """Labels that the rule adds, and their values."""
    keeps: str | None = None
    """The label whose values a variable of a dashboard asks for."""
    unit: str | None = None
    """Grafana's unit of the panel; None if nobody looks at the values."""
    heatmap: bool = False
    """Whether buckets are drawn, so that the unit is that of their bounds."""


def of_rules(groups: Sequence[Group]) -> Iterator[Expression]:
    """The expressions of rules."""
    for group in groups:
        for rule in group.rules:
            if isinstance(rule, Recording):
                place = f"{group.name} / {rule.record}"
                yield Expression(place, rule.expr, records=rule.record, adds=rule.labels)
            else:
                yield Expression(f"{group.name} / {rule.name}", rule.expr)


def of_dashboard(name: str, text: str) -> Iterator[Expression]:
    """The expressions of a dashboard in Grafana's classic schema: of panels, annotations and variables."""
    dashboard: Mapping[str, Any] = json.loads(text)
    variables = {
        variable["name"]: value
        for variable in dashboard.get("templating", {}).get("list", ())
        if isinstance(value := variable.get("current", {}).get("value"), str) and not value.startswith("$")
    }
    for panel in _panels(dashboard):
        for target in panel.get("targets", ()):
            if target.get("expr"):
                yield Expression(
                    f"{name} / {panel.get('title', '')} / {target.get('refId', '')}",
                    without_macros(target["expr"], variables),
                    unit=_unit(panel, target),
                    heatmap=panel["type"] == "heatmap",
                )
    for annotation in dashboard.get("annotations", {}).get("list", ()):
        if annotation.get("expr"):
            place = f"{name} / annotation {annotation.get('name', '')}"
            yield Expression(place, without_macros(annotation["expr"], variables))
    for variable in dashboard.get("templating", {}).get("list", ()):
        query = variable.get("query", "")
        query = query.get("query", "") if isinstance(query, Mapping) else query
        place = f"{name} / variable {variable['name']}"
        if match := re.fullmatch(r"\s*label_values\((.+),\s*(\w+)\s*\)\s*", query, re.DOTALL):
            yield Expression(place, without_macros(match[1], variables), keeps=match[2])
        elif match := re.fullmatch(r"\s*query_result\((.+)\)\s*", query, re.DOTALL):
            yield Expression(place, without_macros(match[1], variables))


def _panels(holder: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """All panels; a collapsed row holds those below it."""
    for panel in holder.get("panels", ()) or ():
        yield panel
        yield from _panels(panel)


def _unit(panel: Mapping[str, Any], target: Mapping[str, Any]) -> str | None:
    """The unit of a query's values, which an override may set."""
    config = panel.get("fieldConfig", {})
    if panel["type"] == "heatmap":
        axis: str | None = panel.get("options", {}).get("yAxis", {}).get("unit")
        return axis
    unit: str | None = config.get("defaults", {}).get("unit")
    reference = target.get("refId", "")
    names = {target.get("legendFormat"), f"Value #{reference}"}
    for override in config.get("overrides", ()):
        matcher = override["matcher"]
        if (matcher["id"] == "byName" and matcher["options"] in names) or (
            matcher["id"] == "byFrameRefID" and matcher["options"] == reference
        ):
            for item in override["properties"]:
                unit = item["value"] if item["id"] == "unit" else unit
    return unit


_MACROS = {
    "__rate_interval": "1m",
    "__interval": "15s",
    "__interval_ms": "15000",
    "__range": "1h",
    "__range_s": "3600",
    "__range_ms": "3600000",
}
"""What Grafana fills in, about as it does for the last hour."""


def without_macros(text: str, variables: Mapping[str, str]) -> str:
    """The expression as Grafana sends it, with the values of its macros and of a dashboard's variables."""

    def value(match: re.Match[str]) -> str:
        name = match[1] or match[2] or match[3]
        # A chosen value is usually one of a label, and any text will do for that.
        return _MACROS.get(name) or variables.get(name) or name

    return re.sub(r"\$\{(\w+)(?::\w+)?\}|\[\[(\w+)(?::\w+)?\]\]|\$([A-Za-z_]\w*)", value, text)

"""Panels with their data as one self-contained HTML page, drawn as Grafana draws them.

Knows nothing of Prometheus: whoever has series or a table can have a page of them. The page loads nothing:
its scripts, styles and data are in it, and its content security policy allows no request and no other script.
"""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import html
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any, Literal

from dashboards.page import words

_SCRIPTS = ("vendor/uPlot.iife.min.js", "units.js", "fields.js", "charts.js", "page.js")
_STYLES = ("vendor/uPlot.min.css", "page.css")


@dataclass(frozen=True)
class Place:
    """Where a panel is in the grid of 24 columns; a row is 30 pixels high and 8 apart from the next."""

    column: int
    row: int
    width: int
    height: int


@dataclass(frozen=True)
class Series:
    """Values with one name: a line, a number, or a column of a table."""

    name: str
    values: Sequence[float | str | None]
    field: Mapping[str, Any]
    """How values are shown, in the words of Grafana's field configuration: unit, decimals, thresholds, …"""
    kind: Literal["number", "string", "time"] = "number"
    """Times are unix seconds."""
    labels: Mapping[str, str] = dataclasses.field(default_factory=dict)


@dataclass(frozen=True)
class Panel:
    """One panel and what is in it."""

    kind: words.Kind | str
    """Of another kind than the known ones the page says that it does not draw it."""
    title: str
    place: Place
    description: str = ""
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """In the words of Grafana's options of this kind of panel."""
    times: Sequence[float] = ()
    """Unix seconds, one for each value of a series; none for a table."""
    series: Sequence[Series] = ()
    markup: str = ""
    """Trusted HTML, for a text panel."""
    error: str = ""
    nothing: str = ""
    """Shown where there is no data; "No data" if empty."""

    @property
    def problem(self) -> str:
        """The error, and what of the panel the page cannot draw."""
        unknown = words.unknown(self.kind, self.options, [item.field for item in self.series])
        return "; ".join(dict.fromkeys(filter(None, [self.error, *unknown])))

    @property
    def empty(self) -> bool:
        """Whether there is nothing to show."""
        if self.kind == "text":
            return not self.markup
        return not any(_shown(value) for item in self.series for value in item.values)


@dataclass(frozen=True)
class Section:
    """Panels under a heading; without title the heading is left out."""

    title: str
    panels: Sequence[Panel]


@dataclass(frozen=True)
class Mark:
    """Something that happened: a vertical line, or an area if it took time."""

    start: float
    end: float
    title: str
    text: str
    color: str


@dataclass(frozen=True)
class Report:
    """What one tab of the page shows."""

    key: str
    """Part of the page's address."""
    title: str
    start: float
    end: float
    """Both, like all times of panels and marks, in unix seconds."""
    sections: Sequence[Section]
    facts: Mapping[str, str] = dataclasses.field(default_factory=dict)
    """Shown under the title, as Grafana shows variables."""
    marks: Sequence[Mark] = ()
    links: Mapping[str, str] = dataclasses.field(default_factory=dict)
    """Title to address."""
    description: str = ""
    elapsed: bool = False
    """Whether times count from 0, when what is shown began, and are shown as hours, minutes and seconds."""

    @property
    def panels(self) -> list[Panel]:
        """All panels."""
        return [panel for section in self.sections for panel in section.panels]


@dataclass(frozen=True)
class Page:
    """A page, and what a test of it wants to know."""

    html: str
    panels: int
    empty: Sequence[str]
    """Panels without data, as `dashboard / panel`."""
    errors: Mapping[str, str]
    """Panels with an error, and the error."""
    answers: Mapping[str, Sequence[float]] = dataclasses.field(default_factory=dict)
    """Newest values of the series that each query found, by `dashboard / panel / query`."""

    def remarks(self) -> list[str]:
        """What whoever made the page should know of it: panels with an error, then those without data."""
        return [
            *(f"error in {name}: {problem}" for name, problem in self.errors.items()),
            *(f"no data in {name}" for name in self.empty),
        ]

    @property
    def summary(self) -> str:
        """How many panels it has."""
        return f"{self.panels} panels, {len(self.empty)} of them without data"


def page(reports: Sequence[Report], made: float) -> Page:
    """The page of some reports; `made` is when their data were read (unix seconds)."""
    named = [(f"{report.title} / {panel.title}", panel) for report in reports for panel in report.panels]
    errors = {name: panel.problem for name, panel in named if panel.problem}
    empty = [name for name, panel in named if panel.empty and name not in errors]
    data = {"made": made, "reports": [_report(report) for report in reports]}
    text = _HTML.format(
        title=html.escape(" · ".join(report.title for report in reports)),
        policy=f"default-src 'none'; script-src {_digest(_script())}; style-src 'unsafe-inline'",
        style=_style(),
        script=_script(),
        data=_json(data),
        panels=len(named),
        empty=len(empty),
        errors=len(errors),
    )
    return Page(text, len(named), empty, errors)


_HTML = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<title>{title}</title>
<style>{style}</style>
</head>
<body data-panels="{panels}" data-empty="{empty}" data-errors="{errors}">
<div id="page"></div>
<script type="application/json" id="data">{data}</script>
<script>{script}</script>
</body>
</html>
"""


def _report(report: Report) -> dict[str, Any]:
    return {
        "key": report.key,
        "title": report.title,
        "description": report.description,
        "start": report.start,
        "end": report.end,
        "elapsed": report.elapsed,
        "facts": dict(report.facts),
        "links": dict(report.links),
        "marks": [vars(mark) for mark in report.marks],
        "sections": [
            {"title": section.title, "panels": [_panel(panel) for panel in section.panels]}
            for section in report.sections
        ],
    }


def _panel(panel: Panel) -> dict[str, Any]:
    return {
        **vars(panel),
        "place": vars(panel.place),
        "empty": panel.empty,
        "error": panel.problem,
        "series": [
            {**vars(item), "values": [_number(value) for value in item.values]} for item in panel.series
        ],
    }


def _shown(value: float | str | None) -> bool:
    return value is not None and not (isinstance(value, float) and math.isnan(value))


def _number(value: float | str | None) -> float | str | None:
    """JSON knows no infinite numbers: they become the texts that JavaScript's Number() reads."""
    if not isinstance(value, float) or math.isfinite(value):
        return value
    return None if math.isnan(value) else ("Infinity" if value > 0 else "-Infinity")


def _json(data: Any) -> str:
    """JSON that can stand in a script element: no text of it can end the element."""
    text = json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return text.replace("&", r"\u0026").replace("<", r"\u003c").replace(">", r"\u003e")


@cache
def _script() -> str:
    return "\n".join(_resource(name) for name in _SCRIPTS)


@cache
def _style() -> str:
    return "\n".join(_resource(name) for name in _STYLES)


def _resource(name: str) -> str:
    return resources.files(__package__).joinpath(name).read_text(encoding="utf-8").strip()


def _digest(script: str) -> str:
    """How the content security policy names the one script that may run."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"

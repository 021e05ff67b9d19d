"""A dashboard's JSON, as Grafana is given it, to queries; and the answers to panels of a page.

Pure: who asks Prometheus is not known here.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markdown_it import MarkdownIt

from dashboards.page import frames as frame
from dashboards.page import variables
from dashboards.page.document import Mark, Panel, Place, Report, Section, Series
from dashboards.page.variables import Value, Variable

_GRID_PIXELS = 1600
"""Width of the page that queries are made for: a point for each pixel at most."""
_NICE_SECONDS = (
    *(1, 2, 5, 10, 15, 20, 30),
    *(60 * minutes for minutes in (1, 2, 5, 10, 15, 20, 30)),
    *(3600 * hours for hours in (1, 2, 3, 6, 12, 24)),
)
"""Steps that Grafana chooses from."""
_UNITS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800, "y": 31536000}
_FORMATS = ("time_series", "table", "heatmap")
_UNREAD = {
    "panel": ("interval", "maxDataPoints", "repeat", "timeFrom", "timeShift"),
    "query": ("hide",),
    "transformation": ("disabled", "filter"),
}
"""Words that would change what is asked or shown; none of them is read here."""


@dataclass(frozen=True)
class Window:
    """A time range (unix seconds), and how often Prometheus scrapes (seconds)."""

    start: float
    end: float
    scrape: float

    def step(self, pixels: float, least: float) -> float:
        """Seconds between two points of a series on so many pixels; `least` is asked for by the panel."""
        ideal = (self.end - self.start) / max(pixels, 1)
        nice = min(_NICE_SECONDS, key=lambda step: abs(step - ideal))
        return max(nice, least)


@dataclass(frozen=True)
class Query:
    """What is asked of Prometheus; `step` 0 asks for the end of the time range only."""

    expression: str
    start: float
    end: float
    step: float

    def times(self) -> set[float]:
        """When it asks for values."""
        if not self.step:
            return {self.end}
        return {
            self.start + index * self.step for index in range(int((self.end - self.start) / self.step) + 1)
        }


Answer = Sequence[Mapping[str, Any]] | Exception
"""The result of a query in the words of Prometheus' API, or why there is none."""


@dataclass(frozen=True)
class _Asked:
    """A query of a panel, and how its answer is read."""

    ref: str
    legend: str
    form: str
    query: Query


class Dashboard:
    """One dashboard."""

    def __init__(self, definition: Mapping[str, Any]) -> None:
        self._definition = definition
        self.title: str = definition["title"]
        self.variables = [
            variables.parse(item) for item in definition.get("templating", {}).get("list") or []
        ]

    @property
    def seconds(self) -> float:
        """Length of the time range that the dashboard opens with."""
        since = str((self._definition.get("time") or {}).get("from") or "now-6h")
        return seconds(since.removeprefix("now-"))

    def queries(self, window: Window, values: Mapping[str, Value]) -> list[Query]:
        """All that has to be asked, each once."""
        asked = [item.query for panel in self._panels() for item in _asked(panel, window, values)]
        marks = [query for _, query in self._annotations(window, values)]
        return list(dict.fromkeys([*asked, *marks]))

    def newest(
        self, window: Window, values: Mapping[str, Value], answers: Mapping[Query, Answer]
    ) -> dict[str, list[float]]:
        """Newest values of the series that each query found, by `dashboard / panel / query`."""
        found: dict[str, list[float]] = {}
        for panel in self._panels():
            for item in _asked(panel, window, values):
                answer = answers[item.query]
                own = found.setdefault(f"{self.title} / {panel.get('title')} / {item.ref}", [])
                if not isinstance(answer, Exception):
                    own += [frame.samples(series)[-1][1] for series in answer]
        return found

    def report(self, window: Window, values: Mapping[str, Value], answers: Mapping[Query, Answer]) -> Report:
        """The dashboard with the answers to its queries."""
        shown = {item.label: values[item.name].text for item in self.variables if item.shown}
        links = {
            link["title"]: link["url"]
            for link in self._definition.get("links") or []
            if link.get("type") == "link" and link.get("url")
        }
        return Report(
            key=self._definition.get("uid") or self.title,
            title=self.title,
            description=self._definition.get("description") or "",
            start=window.start,
            end=window.end,
            sections=[
                Section(
                    variables.in_text(title, values),
                    [_panel(panel, top, window, values, answers) for panel in panels],
                )
                for title, top, panels in self._sections()
            ],
            facts=shown,
            links=links,
            marks=sorted(self._marks(window, values, answers), key=lambda mark: mark.start),
        )

    def _panels(self) -> Iterator[Mapping[str, Any]]:
        for _, _, panels in self._sections():
            yield from panels

    def _sections(self) -> list[tuple[str, int, list[Mapping[str, Any]]]]:
        """Rows with their titles, the line of the grid where their panels begin, and the panels."""
        sections: list[tuple[str, list[Mapping[str, Any]]]] = [("", [])]
        for panel in self._definition.get("panels") or []:
            if panel["type"] == "row":
                # The panels of a folded row are inside it, those of an open one follow it.
                sections.append((panel.get("title") or "", list(panel.get("panels") or [])))
            else:
                sections[-1][1].append(panel)
        return [
            (title, min(panel["gridPos"]["y"] for panel in panels), panels)
            for title, panels in sections
            if panels
        ]

    def _annotations(
        self, window: Window, values: Mapping[str, Value]
    ) -> Iterator[tuple[Mapping[str, Any], Query]]:
        for item in self._definition.get("annotations", {}).get("list") or []:
            if item.get("expr") and item.get("enable", True):
                least = seconds(item["step"]) if item.get("step") else window.scrape
                yield item, _query(item["expr"], window, values, _GRID_PIXELS, least, instant=False)

    def _marks(
        self, window: Window, values: Mapping[str, Value], answers: Mapping[Query, Answer]
    ) -> Iterator[Mark]:
        for item, query in self._annotations(window, values):
            answer = answers[query]
            for found in () if isinstance(answer, Exception) else answer:
                labels = found["metric"]
                title = frame.legend(item.get("titleFormat") or item["name"], labels)
                text = frame.legend(item.get("textFormat") or "", labels)
                color = item.get("iconColor") or "red"
                for start, end in _periods(found["values"], query.step):
                    yield Mark(start, end, title, text, color)


def seconds(duration: str) -> float:
    """Seconds of a duration such as `15s`, `1h30m` or `7d`; raises ValueError for another text."""
    parts = re.findall(r"(\d+(?:\.\d+)?)(ms|[smhdwy])", duration)
    if not parts or "".join(number + unit for number, unit in parts) != duration:
        raise ValueError(f"{duration!r} is no duration; write it as 90s, 15m, 1h30m or 7d")
    return sum(float(number) * _UNITS[unit] for number, unit in parts)


def _asked(panel: Mapping[str, Any], window: Window, values: Mapping[str, Value]) -> Iterator[_Asked]:
    """The queries of a panel."""
    pixels = _GRID_PIXELS * panel["gridPos"]["w"] / 24
    for target in panel.get("targets") or []:
        if target.get("expr"):
            instant = bool(target.get("instant"))
            least = seconds(target["interval"]) if target.get("interval") else window.scrape
            query = _query(target["expr"], window, values, pixels, least, instant=instant)
            form, legend = target.get("format") or "time_series", target.get("legendFormat") or ""
            yield _Asked(target.get("refId") or "A", legend, form, query)


def _query(
    expression: str,
    window: Window,
    values: Mapping[str, Value],
    pixels: float,
    least: float,
    *,
    instant: bool,
) -> Query:
    step = window.step(pixels, least)
    # Whole multiples of the step: the next refresh asks for the same points.
    start, end = (math.floor(time / step) * step for time in (window.start, window.end))
    text = variables.in_query(expression, {**values, **_builtin(window, step, least)})
    return Query(text, window.end, window.end, 0) if instant else Query(text, start, end, step)


def _builtin(window: Window, step: float, scrape: float) -> dict[str, Value]:
    """Grafana's own variables."""
    texts = {
        "__interval": f"{step:g}s",
        "__rate_interval": f"{max(step + scrape, 4 * scrape):g}s",
        "__range": f"{window.end - window.start:.0f}s",
    }
    return {name: Value((text,), text) for name, text in texts.items()}


def _panel(
    panel: Mapping[str, Any],
    top: int,
    window: Window,
    values: Mapping[str, Value],
    answers: Mapping[Query, Answer],
) -> Panel:
    """A panel of the page."""
    grid = panel["gridPos"]
    asked = list(_asked(panel, window, values))
    frames, problems = _frames(asked, answers)
    problems += _unread(panel, asked)
    times: list[float] = []
    series: list[Series] = []
    try:
        frames = frame.transform(frames, panel.get("transformations") or [])
        if panel["type"] == "table":
            series = _columns(panel, frames)
        else:
            times, series = _lines(panel, frames, [item.query for item in asked])
    except frame.UnknownError as error:
        problems.append(str(error))
    content = (panel.get("options") or {}).get("content") or ""
    defaults = (panel.get("fieldConfig") or {}).get("defaults") or {}
    return Panel(
        kind=panel["type"],
        title=variables.in_text(panel.get("title") or "", values),
        place=Place(grid["x"], grid["y"] - top, grid["w"], grid["h"]),
        description=variables.in_text(panel.get("description") or "", values),
        options={key: value for key, value in (panel.get("options") or {}).items() if key != "content"},
        times=times,
        series=series,
        # Without HTML of its own: what is written there is escaped.
        markup=_MARKDOWN.render(variables.in_text(content, values)) if content else "",
        nothing=defaults.get("noValue") or "",
        error="; ".join(dict.fromkeys(problems)),
    )


_MARKDOWN = MarkdownIt("js-default")


def _unread(panel: Mapping[str, Any], asked: Iterable[_Asked]) -> Iterator[str]:
    """What of a panel's queries is not known here."""
    targets, transformations = panel.get("targets") or [], panel.get("transformations") or []
    for what, items in ("panel", [panel]), ("query", targets), ("transformation", transformations):
        for item, key in itertools.product(items, _UNREAD[what]):
            if item.get(key):
                yield f"this page does not know {key} of a {what}"
    for target in targets:
        if target.get("instant") and target.get("range"):
            yield "this page does not know a query that is both instant and range"
        if target.get("legendFormat") == "__auto":
            yield "this page does not know legendFormat '__auto'"
    for item in asked:
        if item.form not in _FORMATS:
            yield f"this page does not know the format {item.form} of a query, only {', '.join(_FORMATS)}"
        for reference in variables.left(item.query.expression):
            yield f"this page does not know the variable {reference}"


def _frames(asked: Sequence[_Asked], answers: Mapping[Query, Answer]) -> tuple[list[frame.Frame], list[str]]:
    """What the panel's queries found, and what went wrong."""
    several = len({item.ref for item in asked}) > 1
    frames: list[frame.Frame] = []
    problems: list[str] = []
    for item in asked:
        answer = answers[item.query]
        if isinstance(answer, Exception):
            problems.append(str(answer))
        elif item.form == "table":
            frames += frame.table(item.ref, f"Value #{item.ref}" if several else "Value", answer)
        else:
            found = frame.series(item.ref, item.legend, answer)
            frames += frame.buckets(found) if item.form == "heatmap" else found
    return frames, problems


def _lines(
    panel: Mapping[str, Any], frames: Sequence[frame.Frame], queries: Sequence[Query]
) -> tuple[list[float], list[Series]]:
    """Numbers of all frames on all times that were asked for: where a series has no value there is a gap."""
    columns = [
        (part, next(column for column in item.fields if column.kind == "time"))
        for item in frames
        for part in item.fields
        if part.kind == "number"
    ]
    times = {float(time) for _, column in columns for time in column.values if time is not None}
    for query in queries if columns else ():
        times |= query.times()
    grid = sorted(times)
    series = []
    for part, column in columns:
        known = dict(zip(column.values, part.values, strict=True))
        series.append(_series(panel, part, [known.get(time) for time in grid]))
    return grid, series


def _columns(panel: Mapping[str, Any], frames: Iterable[frame.Frame]) -> list[Series]:
    """Columns of the first frame, which is the one that Grafana shows at first."""
    first = next(iter(frames), None)
    return [_series(panel, part, part.values) for part in first.fields] if first else []


def _series(panel: Mapping[str, Any], part: frame.Field, found: Sequence[frame.Scalar]) -> Series:
    config = panel.get("fieldConfig") or {}
    field = frame.configured(part, config.get("defaults") or {}, config.get("overrides") or [])
    return Series(part.name, found, field, part.kind, part.labels)


def _periods(samples: Iterable[Sequence[Any]], step: float) -> list[tuple[float, float]]:
    """When an annotation's series was above zero: times no more than a step apart are one period."""
    periods: list[tuple[float, float]] = []
    for time in (float(time) for time, value in samples if float(value) > 0):
        if periods and time - periods[-1][1] <= step:
            periods[-1] = (periods[-1][0], time)
        else:
            periods.append((time, time))
    return periods


def lookup(variable: Variable, values: Mapping[str, Value]) -> tuple[str, str | None]:
    """Label and selector of a variable's `label_values(selector, label)`; raises ValueError for others."""
    query = variables.in_query(variable.query, values)
    found = re.fullmatch(r"\s*label_values\(\s*(?:(.+?)\s*,\s*)?(\w+)\s*\)\s*", query, re.DOTALL)
    if found is None:
        raise ValueError(
            f"variable {variable.name}: {query!r} is not of the form label_values(selector, label)"
        )
    return found[2], found[1]

"""A rehearsal as one self-contained HTML page."""

from __future__ import annotations

import html
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from autoscaling import report as tables
from autoscaling.policy import TargetType
from autoscaling.rehearsal import MODES, ModeAnswer
from autoscaling.report import Report, Table
from dashboards.page import document
from dashboards.page.document import Mark, Page, Panel, Place, Section, Series

_COLORS: Mapping[TargetType, str] = {"Value": "#73BF69", "AverageValue": "#5794F2"}
_LIMIT = "#F2495C"
_ROW_HEIGHT = 32  # pixels of a table's row
_GRID = 38  # pixels from one row of the grid to the next


def page(report: Report, made: float) -> Page:
    """The page; `made` is when (unix seconds)."""
    end = max(mode.seconds for mode in report.modes.values())
    stack = report.stack
    shown = document.Report(
        key="rehearsal",
        title=f"Rehearsal of {stack.name}",
        start=0,
        # Whole minutes: the page names the length.
        end=60 * math.ceil(end / 60),
        elapsed=True,
        description=". ".join(f"{name} {mode.verdict}" for name, mode in report.modes.items()) + ".",
        facts={
            "model": stack.model,
            "replica": f"{stack.fleet.gpus_per_replica} × {stack.gpu_flavor}",
            "replicas": f"{stack.fleet.scaler.replicas_min} to {stack.fleet.scaler.replicas_max}",
            "metric": stack.fleet.metric,
            "target": f"{stack.fleet.scaler.target_value:g} {stack.fleet.scaler.aggregation}",
            "traffic": report.traffic,
            "seed": str(report.seed),
        },
        marks=[mark for name, mode in report.modes.items() for mark in _marks(name, mode)],
        sections=[
            Section("", _charts(report)),
            Section("", [_table(tables.summary(report))]),
            Section("Scaling", _stacked([tables.scale_ups(report), tables.scale_downs(report)])),
            *([_sweep(report)] if report.sweep else []),
            Section("What this rests on", [_table(_assumptions(report))]),
        ],
    )
    return document.page([shown], made)


def _charts(report: Report) -> list[Panel]:
    scaler, slo = report.stack.fleet.scaler, report.stack.objectives
    running = report.stack.fleet.metric.startswith("vllm:num_requests_running")

    def per_replica(column: str) -> Callable[[Mapping[str, Sequence[Any]]], list[float | None]]:
        return lambda rows: [
            count / ready if ready else None for count, ready in zip(rows[column], rows["ready"], strict=True)
        ]

    return [
        _chart(
            report,
            "Replicas",
            Place(0, 0, 12, 8),
            lambda rows: rows["ready"],
            "Ready replicas; dashed: what the scaler asks for",
            {"min": 0, "custom": {"lineInterpolation": "stepAfter", "axisSoftMax": scaler.replicas_max}},
            dashed=("asked", lambda rows: rows["asked"]),
        ),
        _chart(
            report,
            "p95 of the time to first token",
            Place(12, 0, 12, 8),
            lambda rows: rows["ttft_p95"],
            "Of the first tokens between two polls of the scaler",
            {"unit": "s", "min": 0},
            limit=("objective", slo.time_to_first_token.seconds),
        ),
        _chart(
            report,
            "Running per replica",
            Place(0, 8, 12, 8),
            per_replica("running"),
            "Sequences in the batch of a ready replica, on average",
            {"min": 0},
            limit=("target", scaler.target_value) if running else None,
        ),
        _chart(
            report,
            "Waiting per replica",
            Place(12, 8, 12, 8),
            per_replica("waiting"),
            "Requests in the queue of a ready replica, on average",
            {"min": 0},
        ),
    ]


def _chart(
    report: Report,
    title: str,
    place: Place,
    values: Callable[[Mapping[str, Sequence[Any]]], Sequence[float | None]],
    description: str,
    field: Mapping[str, Any],
    *,
    dashed: tuple[str, Callable[[Mapping[str, Sequence[Any]]], Sequence[float | None]]] | None = None,
    limit: tuple[str, float] | None = None,
) -> Panel:
    """A line for each target mode, on the times of the one that takes longer."""
    polls = max((mode.timeline["time"] for mode in report.modes.values()), key=len)
    times = [time for time in polls if time is not None]
    series = []
    for name, mode in report.modes.items():
        series.append(_line(name, values(mode.timeline), times, field, _COLORS[name]))
        if dashed is not None:
            label, other = dashed
            series.append(
                _line(f"{name}, {label}", other(mode.timeline), times, field, _COLORS[name], dash=True)
            )
    if limit is not None:
        series.append(_line(limit[0], [limit[1]] * len(times), times, field, _LIMIT, dash=True))
    options = {"legend": {"showLegend": True, "displayMode": "list", "placement": "bottom"}}
    return Panel("timeseries", title, place, description, options, times, series)


def _line(
    name: str,
    values: Sequence[float | None],
    times: Sequence[float],
    field: Mapping[str, Any],
    color: str,
    dash: bool = False,
) -> Series:
    # The first mode is drawn wider: where both are the same, both are seen.
    custom = {**field.get("custom", {}), "lineWidth": 4 if color == _COLORS[MODES[0]] and not dash else 1}
    if dash:
        custom["lineStyle"] = {"fill": "dash", "dash": [6, 4]}
    look = {**field, "custom": custom, "color": {"mode": "fixed", "fixedColor": color}}
    return Series(name, [*values, *[None] * (len(times) - len(values))], look)


def _marks(name: TargetType, mode: ModeAnswer) -> list[Mark]:
    ups = [
        Mark(
            up["crossed"],
            up["ready"] or up["decided"],
            f"scale-up, {name}",
            f"{up['before']} → {up['after']}",
            _COLORS[name],
        )
        for up in mode.scale_ups
    ]
    downs = [
        Mark(
            down["time"], down["time"], f"scale-down, {name}", f"{down['before']} → {down['after']}", "orange"
        )
        for down in mode.scale_downs
    ]
    return [*ups, *downs]


def _sweep(report: Report) -> Section:
    assert report.sweep is not None
    table = _table(tables.pareto(report.sweep))
    said = "\n".join(html.escape(line) for line in tables.advice(report))
    height = math.ceil((said.count("\n") + 4) * 22 / _GRID)
    place = Place(0, table.place.height, 24, height)
    text = Panel("text", "Settings that would have been best", place, markup=f"<pre>{said}</pre>")
    return Section("Other settings", [table, text])


def _assumptions(report: Report) -> Table:
    return Table(
        "Assumptions",
        ("what", "taken", "why"),
        [(one.name, one.value, one.why) for one in report.assumptions],
    )


def _stacked(found: Sequence[Table]) -> list[Panel]:
    panels: list[Panel] = []
    row = 0
    for table in found:
        panels.append(_table(table, row))
        row += panels[-1].place.height
    return panels


def _table(table: Table, row: int = 0) -> Panel:
    height = math.ceil((len(table.rows) + 1) * _ROW_HEIGHT / _GRID) + 1
    return Panel(
        "table",
        table.title,
        Place(0, row, 24, min(height, 20)),
        options={"showHeader": True},
        series=[
            Series(name, [line[index] for line in table.rows], {}, "string")
            for index, name in enumerate(table.columns)
        ],
        nothing=table.nothing,
    )

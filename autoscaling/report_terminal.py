"""A rehearsal in the terminal."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table as RichTable

from autoscaling import report as tables
from autoscaling.rehearsal import ModeAnswer, span
from autoscaling.report import Report, Table

_WIDTH = 72  # characters of a curve
_BARS = " ▁▂▃▄▅▆▇█"


def show(report: Report, console: Console) -> None:
    """Prints everything."""
    stack, scaler = report.stack, report.stack.fleet.scaler
    console.print(
        f"[bold]{stack.name}[/]: {escape(stack.model)} on {scaler.replicas_min} to {scaler.replicas_max} × "
        f"{stack.fleet.gpus_per_replica} {stack.gpu_flavor}, {escape(stack.fleet.metric)} at "
        f"{scaler.target_value:g} {scaler.aggregation}; traffic {escape(report.traffic)}, seed {report.seed}",
        highlight=False,
        soft_wrap=True,
    )
    _print(tables.summary(report), console)
    for name, mode in report.modes.items():
        console.print(f"[bold]{name}[/] {escape(mode.verdict)}.", highlight=False, soft_wrap=True)
        for line in curves(mode, scaler.replicas_max):
            console.print(f"  {line}", highlight=False)
    console.print()
    _print(tables.scale_ups(report), console)
    _print(tables.scale_downs(report), console)
    console.print("[bold]What this rests on[/]")
    for one in report.assumptions:
        console.print(f"  {one.name}: {one.value} ({one.why})", highlight=False, markup=False, soft_wrap=True)
    if report.sweep is not None:
        console.print()
        _print(tables.pareto(report.sweep), console)
        for line in tables.advice(report):
            console.print(line, highlight=False, markup=False, soft_wrap=True)


def curves(mode: ModeAnswer, most: int) -> list[str]:
    """Replicas and waiting requests over time, each as a line of bars."""
    rows = mode.timeline
    ready, waiting = _highest(rows["ready"]), _highest(rows["waiting"])
    return [
        f"replicas  {_bars(ready, most)}  0 to {most}, over {span(mode.seconds)}",
        f"waiting   {_bars(waiting, max(waiting, default=0))}  0 to {max(waiting, default=0):.0f}",
    ]


def _highest(values: Sequence[float | None]) -> list[float]:
    """The highest value of each of at most `_WIDTH` equal parts."""
    width = min(_WIDTH, len(values))
    bounds = [index * len(values) // width for index in range(width + 1)] if width else [0]
    return [
        max((value for value in values[start:end] if value is not None), default=0.0)
        for start, end in itertools.pairwise(bounds)
    ]


def _bars(values: Sequence[float], most: float) -> str:
    # What is above 0 shows, however little it is.
    return "".join(
        _BARS[max(1, round(value / most * (len(_BARS) - 1)))] if value > 0 else _BARS[0] for value in values
    )


def _print(table: Table, console: Console) -> None:
    if not table.rows:
        console.print(f"[bold]{table.title}[/]: {table.nothing}\n", highlight=False)
        return
    grid = RichTable(title=table.title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD)
    for name in table.columns:
        grid.add_column(escape(name))
    for row in table.rows:
        grid.add_row(*map(escape, row))
    console.print(grid)

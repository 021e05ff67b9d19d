"""`python -m autoscaling --stack prod`: rehearses a stack on virtual time, before it is paid for."""

from __future__ import annotations

import argparse
import sys
import time
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from autoscaling import rehearsal, report_page, report_terminal, stack, sweep, traffic
from autoscaling.report import Report, to_json
from autoscaling.workers import Workers
from components.settings import SettingsError
from dashboards.page import files

PLAIN_WIDTH = 150
"""Columns where the output is no terminal."""


def main(arguments: list[str] | None = None) -> int:
    """Prints the answer and writes JSON and page; 1 with one line of explanation for a mistake."""
    asked = _parser().parse_args(arguments)
    output = asked.output or Path(f"rehearsal-{asked.stack}.html")
    numbers = asked.json or Path(f"rehearsal-{asked.stack}.json")
    notes = Console(stderr=True)
    try:
        if output == numbers:
            raise ValueError(f"--output and --json are both {output}: name another file for one of them")
        for file in (output, numbers):
            files.check(file)
        plan = stack.read(asked.stack, calibration=asked.calibration)
        load = traffic.parse(asked.traffic)
        report = _rehearsed(plan, load, asked, notes)
        page = report_page.page(report, made=time.time())
        files.write(numbers, [to_json(report)])
        files.write(output, [page.html])
    except (stack.StackError, SettingsError, ValueError, OSError) as error:
        notes.print(str(error), style="red", highlight=False, markup=False, soft_wrap=True)
        return 1
    except BrokenProcessPool:
        notes.print(
            "a process of this rehearsal was ended from outside, most likely for want of memory: rehearse "
            "less traffic, or without the search for better settings (--no-sweep)",
            style="red",
            highlight=False,
            soft_wrap=True,
        )
        return 1
    except KeyboardInterrupt:
        notes.print("interrupted: nothing was written")
        return 130
    console = Console()
    report_terminal.show(report, console if console.is_terminal else Console(width=PLAIN_WIDTH))
    console.print(f"\n{output} and {numbers} written", highlight=False, soft_wrap=True)
    return 0


def _rehearsed(plan: stack.Stack, load: traffic.Traffic, asked: argparse.Namespace, notes: Console) -> Report:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with (
        Workers() as workers,
        Progress(*columns, TimeRemainingColumn(), console=notes, transient=True) as progress,
    ):
        bar = progress.add_task("", total=None)

        def told(what: str, done: int, of: int) -> None:
            progress.update(bar, description=what, completed=done, total=of)

        outcomes = rehearsal.rehearse(plan, load, asked.seed, workers, told)
        found = sweep.sweep(plan, load, asked.seed, workers, told) if asked.sweep else None
    scaler = plan.fleet.scaler
    return Report(
        stack=plan,
        traffic=load.name,
        seed=asked.seed,
        modes={mode: rehearsal.answer(outcome, plan, scaler) for mode, outcome in outcomes.items()},
        assumptions=rehearsal.assumptions(plan, load),
        sweep=found,
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m autoscaling", description=__doc__)
    parser.add_argument("--stack", required=True, help="name of the stack: its Pulumi.<stack>.yaml is read")
    parser.add_argument(
        "--traffic",
        default="article",
        help="article (default), poisson:rate=10,for=1h, csv:<file>, …; docs/autoscaling.md lists all",
    )
    parser.add_argument("--seed", type=int, default=1, help="another one gives other chances (default: 1)")
    parser.add_argument(
        "--no-sweep", dest="sweep", action="store_false", help="no search for better settings"
    )
    parser.add_argument(
        "--calibration", type=Path, metavar="FILE", help="engine parameters that `calibrate` has written"
    )
    parser.add_argument(
        "--output", type=Path, metavar="FILE", help="the page (default: rehearsal-<stack>.html)"
    )
    parser.add_argument(
        "--json", type=Path, metavar="FILE", help="the numbers (default: rehearsal-<stack>.json)"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())

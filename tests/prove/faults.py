"""Walks every call of an endpoint's life against every fault: `python -m tests.prove.faults`.

Writes `docs/proof/ai-deploy-faults.md`; the exit status is 1 when an app, a token or a cost was lost at any
point, or anything else is not as it should be. `--only PHASE/TROUBLE` (either may be left out) walks a part
and writes nothing.
"""

from __future__ import annotations

import argparse
import datetime
import os
import re
import sys
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path

from tests.prove.commit import commit
from tests.prove.scene import Point
from tests.prove.walk import (
    LOOKS,
    PHASES,
    SIEGES,
    Outcome,
    besiege,
    points,
    troubles,
    walk,
)

ROOT = Path(__file__).resolve().parents[2]
RESULT = ROOT / "docs" / "proof" / "ai-deploy-faults.md"
COMMAND = "python -m tests.prove.faults"

_INTRODUCTION = f"""# AI Deploy: every call against every fault

The dynamic provider runs as the process that Pulumi starts, asked over gRPC, on a clock a hundred times as
fast, against the emulated cloud. The engine is a small model of the real one (create, update, replacement,
refresh, destroy, state saved after each step that succeeded, `--continue-on-error`). Each phase is recorded
without faults; then each of its calls meets each fault in a run of its own. After that comes the way back:
`up` again, after a kill `refresh` and `up` with a new process, for a destroy `destroy` again. Of a wait that
looks again and again, the first {LOOKS} looks are points.

At the end of each point: apps and tokens in the cloud are those in state, nothing is billed that state does
not know, the app has the wanted settings and serves with the tokens in state, one more `up` changes nothing
and makes no call that changes something, `destroy` leaves nothing, and no secret was told in any message or
log. *Survived* means that the operation itself succeeded, *recovered* that it failed and the way back led
there, *lost* that an app, token or cost was left that state does not know, or is missing or doubled.
*Not met* are points whose call did not come in the run with the fault.
"""


def main() -> int:
    """Walks, shows progress, writes the result; the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--only", default="/", metavar="PHASE/TROUBLE", help="walk this part, write nothing")
    parser.add_argument("--workers", type=int, default=2 * (os.cpu_count() or 1), help="processes")
    arguments = parser.parse_args()
    phase, _, trouble = arguments.only.partition("/")
    units = [(a, b) for a, b in _units() if phase in ("", a) and trouble in ("", b)]
    if not units:
        names = ", ".join(dict.fromkeys(b for _, b in _units()))
        parser.error(f"nothing is called {arguments.only}; phases: {', '.join(_PHASES)}; troubles: {names}")
    started = time.monotonic()
    outcomes = _walk_all(units, arguments.workers)
    seconds = time.monotonic() - started
    sys.stdout.write(f"{totals(outcomes)} {seconds / 60:.0f} min.\n")
    if arguments.only == "/":
        RESULT.parent.mkdir(parents=True, exist_ok=True)
        RESULT.write_text(report(outcomes, seconds))
    return int(any(outcome.lost or outcome.wrong for outcome in outcomes))


_PHASES = {phase.name: phase for phase in PHASES}
_TROUBLES = {trouble.name: trouble for trouble in troubles()}
_SIEGES = {siege.name: siege for siege in SIEGES}


def _units() -> list[tuple[str, str]]:
    """Phase and trouble, which a worker walks in one go."""
    return [
        *((phase, trouble) for phase in _PHASES for trouble in _TROUBLES),
        *((phase, siege.name) for siege in SIEGES for phase in _PHASES if phase in siege.phases),
    ]


def _walk_all(units: Sequence[tuple[str, str]], workers: int) -> list[Outcome]:
    found: list[Outcome] = []
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        phases = list(dict.fromkeys(phase for phase, _ in units))
        recorded = dict(zip(phases, pool.map(_record, phases), strict=True))
        jobs = {
            pool.submit(_walk, phase, trouble, _applicable(trouble, recorded[phase])): f"{phase}/{trouble}"
            for phase, trouble in units
        }
        for count, job in enumerate(as_completed(jobs), 1):
            outcomes = job.result()
            found += outcomes
            sys.stdout.write(f"{count}/{len(jobs)} {jobs[job]}: {len(outcomes)} points\n")
            for outcome in outcomes:
                for finding in (*([] if outcome.met else ["not met"]), *outcome.lost, *outcome.wrong):
                    sys.stdout.write(f"    {outcome.point}: {finding}\n")
            sys.stdout.flush()
    order = {unit: place for place, unit in enumerate(units)}
    return sorted(found, key=lambda outcome: order[outcome.phase, outcome.trouble])


def _applicable(trouble: str, recorded: Sequence[Point]) -> list[Point]:
    if trouble not in _TROUBLES:
        return []
    return [point for point in recorded if _TROUBLES[trouble].applies(point)]


def _record(phase: str) -> list[Point]:
    return points(_PHASES[phase])


def _walk(phase: str, trouble: str, met: Sequence[Point]) -> list[Outcome]:
    if trouble in _SIEGES:
        return [besiege(_PHASES[phase], _SIEGES[trouble])]
    return walk(_PHASES[phase], _TROUBLES[trouble], met) if met else []


def totals(outcomes: Sequence[Outcome]) -> str:
    """One line on all points."""
    met = [outcome for outcome in outcomes if outcome.met]
    survived = sum(outcome.survived for outcome in met)
    recovered = sum(_recovered(outcome) for outcome in met)
    lost = sum(bool(outcome.lost) for outcome in outcomes)
    wrong = sum(bool(outcome.wrong) for outcome in outcomes)
    return (
        f"{len(outcomes)} points walked ({len(outcomes) - len(met)} not met), {survived} survived, "
        f"{recovered} recovered by the way back, {lost} lost or duplicated, {wrong} with another finding."
    )


def _recovered(outcome: Outcome) -> bool:
    return not (outcome.survived or outcome.lost or outcome.wrong)


def report(outcomes: Sequence[Outcome], seconds: float) -> str:
    """The result as Markdown."""
    lines = [
        _INTRODUCTION,
        f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d}, "
        f"commit {commit('components', 'sandbox', 'tests')}, "
        f"`{COMMAND}`, {seconds / 60:.0f} minutes.",
        "",
        f"**{totals(outcomes)}**",
    ]
    for phase in _PHASES:
        of_phase = [outcome for outcome in outcomes if outcome.phase == phase]
        if of_phase:
            lines += ["", f"## {phase.capitalize()}", "", *_table(of_phase)]
    return "\n".join(lines) + "\n"


def _table(outcomes: Sequence[Outcome]) -> Iterable[str]:
    yield "| Trouble | Points | Not met | Survived | Recovered | Lost | Other findings | Ended with |"
    yield "| --- | ---: | ---: | ---: | ---: | ---: | --- | --- |"
    for trouble in dict.fromkeys(outcome.trouble for outcome in outcomes):
        rows = [outcome for outcome in outcomes if outcome.trouble == trouble]
        met = [row for row in rows if row.met]
        cells = (
            trouble,
            len(rows),
            len(rows) - len(met),
            sum(row.survived for row in met),
            sum(_recovered(row) for row in met),
            sum(bool(row.lost) for row in rows),
            _counted(finding for row in rows for finding in (*row.lost, *row.wrong)),
            _counted(row.ended_with for row in met),
        )
        yield "| " + " | ".join(str(cell) for cell in cells) + " |"


def _counted(texts: Iterable[str]) -> str:
    counts = Counter(texts).most_common()
    return "<br>".join(f"{count} × {_cell(text)}" for text, count in counts)


def _cell(text: str) -> str:
    """Text that a table shows as it is."""
    return re.sub(r"([|*_`\\])", r"\\\1", text).replace("&", "&amp;").replace("<", "&lt;")


if __name__ == "__main__":
    sys.exit(main())

"""Measures how true the recorded series are: `python -m tests.prove.accuracy`.

Writes `docs/proof/replica-accuracy.md`; the exit status is 1 when a target is missed or a rule failed.
`--only TEXT` measures the fleets whose name contains it and writes nothing.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from pathlib import Path

from sandbox.toolchain import ensure
from tests.prove.accuracy.measure import Plan, Run, measure
from tests.prove.accuracy.report import ROOT, report, totals
from tests.prove.accuracy.scenarios import END, RESTART, Scenario, waves

RESULT = ROOT / "docs" / "proof" / "replica-accuracy.md"


def main() -> int:
    """Measures, writes the result; the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--only", default="", metavar="TEXT", help="measure these, write nothing")
    arguments = parser.parse_args()
    chosen = [[scenario for scenario in wave if arguments.only in scenario.name] for wave in waves()]
    if not any(chosen):
        parser.error(f"no fleet has {arguments.only!r} in its name; there are: {_names()}")
    started = time.monotonic()
    runs = asyncio.run(_measure([wave for wave in chosen if wave], ensure(_say).prometheus))
    page = report(runs, time.monotonic() - started)
    if arguments.only:
        sys.stdout.write(page)
    else:
        RESULT.write_text(page)
    _say(totals(runs))
    return int(any(run.failed_rules or any(result.misses for result in run.results) for run in runs))


def _names() -> str:
    return "; ".join(scenario.name for wave in waves() for scenario in wave)


async def _measure(waves: list[list[Scenario]], prometheus: Path) -> list[Run]:
    runs = []
    for number, wave in enumerate(waves, 1):
        _say(f"wave {number} of {len(waves)}: {len(wave)} fleets")
        runs.append(await measure(prometheus, wave, Plan(RESTART, END), _say))
    return runs


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())

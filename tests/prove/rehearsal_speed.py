"""Measures how fast a rehearsal is, and what it keeps: `python -m tests.prove.rehearsal_speed`.

Writes `docs/proof/rehearsal-speed.md`; the exit status is 1 when a day takes a minute or more, or needs
noticeably more memory than an hour. `--print` writes to the terminal instead.
"""

from __future__ import annotations

import argparse
import datetime
import heapq
import itertools
import platform
import resource
import sys
import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

from autoscaling.fleet import run
from autoscaling.stack import read
from autoscaling.traffic import OpenLoop, Request, parse
from tests.prove.commit import commit

ROOT = Path(__file__).resolve().parents[2]
RESULT = ROOT / "docs" / "proof" / "rehearsal-speed.md"
COMMAND = "python -m tests.prove.rehearsal_speed"

STACK = "prod"
HOURS = (1, 6, 24)
MOST_SECONDS = 60.0
"""A rehearsed day at 10 requests/s on one core."""
MOST_GROWTH_MIB = 16
"""Of the peak memory from an hour to a day; the timeline has 23 times as many rows, 0.5 KiB each."""

_INTRODUCTION = """# How fast a rehearsal is

A day at 10 requests/s (Poisson, lengths of a chat) through the reference architecture, `Pulumi.prod.yaml`:
gateway, up to 3 replicas with their engines, the scaler every 15 s, scale-ups with their cold starts,
scale-downs, bill. One core; each line is a process of its own.

Seconds depend on the machine, so the same process also runs a plain event loop over the same requests: one
heap, two events per request (arrival and end), one queue in front of a number of places, a service time per
answer, and nothing else. The ratio of the two means the same everywhere: what batching, KV blocks, prefix
cache, percentiles and the scaler cost over the least that a simulation of these requests has to do. The time
to make the requests is in both.
"""
CODE = ("autoscaling", "tests/prove/rehearsal_speed.py")
"""What the result depends on."""


@dataclass(frozen=True)
class Measured:
    """One length of traffic."""

    hours: int
    requests: int
    rehearsal: float
    """Seconds of CPU."""
    plain: float
    """Seconds of CPU."""
    traffic: float
    """Seconds of CPU to make the requests, which both of them include."""
    peak_mib: float
    """Memory of the process at its largest, after the rehearsal; Python and all modules included."""
    rows: int

    @property
    def ratio(self) -> float:
        """How many times the plain loop's time the rehearsal takes."""
        return self.rehearsal / self.plain


def traffic(hours: int) -> OpenLoop:
    """10 requests/s, as long as chats are."""
    parsed = parse(f"poisson:rate=10,for={hours}h")
    assert isinstance(parsed, OpenLoop)
    return parsed


def plain_loop(requests: Iterator[Request], places: int, token_seconds: float) -> float:
    """The mean wait in one queue for `places` places: arrivals and ends on one heap."""
    arrival, end = 0, 1
    numbers = itertools.count()
    events: list[tuple[float, int, int, Request | None]] = []
    queue: deque[tuple[float, Request]] = deque()
    free, waits, served = places, 0.0, 0
    following = next(requests, None)
    if following is not None:
        heapq.heappush(events, (following.at, next(numbers), arrival, following))
    while events:
        now, _, kind, request = heapq.heappop(events)
        if kind == arrival:
            assert request is not None
            queue.append((now, request))
            following = next(requests, None)
            if following is not None:
                heapq.heappush(events, (following.at, next(numbers), arrival, following))
        else:
            free += 1
        while queue and free:
            came, admitted = queue.popleft()
            free -= 1
            served += 1
            waits += now - came
            heapq.heappush(events, (now + token_seconds * admitted.output_tokens, next(numbers), end, None))
    return waits / served


def measure(hours: int) -> Measured:
    """Runs both on fresh requests; for a process of its own."""
    stack, day = read(STACK), traffic(hours)
    outcome, rehearsal = None, time.process_time()
    outcome = run(stack.fleet, day, slo=stack.objectives)
    rehearsal = time.process_time() - rehearsal
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    plain = time.process_time()
    plain_loop(day.requests(1), places=3 * 64, token_seconds=0.03)
    plain = time.process_time() - plain
    made = time.process_time()
    deque(day.requests(1), maxlen=0)
    made = time.process_time() - made
    return Measured(hours, outcome.requests, rehearsal, plain, made, peak, len(outcome.timeline))


def main() -> int:
    """Measures, writes the result; the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--print", action="store_true", help="print the page, write nothing")
    arguments = parser.parse_args()
    measured = []
    for hours in HOURS:
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
            measured.append(process.submit(measure, hours).result())
        sys.stdout.write(f"{_row(measured[-1])}\n")
        sys.stdout.flush()
    page, met = report(measured)
    if arguments.print:
        sys.stdout.write(page)
    else:
        RESULT.write_text(page)
    return int(not met)


def report(measured: list[Measured]) -> tuple[str, bool]:
    """The page, and whether both promises are kept."""
    shortest, longest = measured[0], measured[-1]
    growth = longest.peak_mib - shortest.peak_mib
    met = longest.rehearsal < MOST_SECONDS and growth <= MOST_GROWTH_MIB
    lines = [
        _INTRODUCTION,
        f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d}, commit {commit(*CODE)}, `{COMMAND}`, "
        f"Python {platform.python_version()}.",
        "",
        f"**{longest.requests:,} requests of {longest.hours} hours in {longest.rehearsal:.1f} s "
        f"({'below' if longest.rehearsal < MOST_SECONDS else 'NOT below'} {MOST_SECONDS:.0f} s), "
        f"{longest.ratio:.1f} times the plain event loop; "
        f"{growth:.1f} MiB more than {shortest.hours} hour needs "
        f"({'at most' if growth <= MOST_GROWTH_MIB else 'MORE THAN'} {MOST_GROWTH_MIB}).**",
        "",
        "| Hours | Requests | Rehearsal, s | per request, µs | Plain loop, s | Ratio | Requests alone, s "
        "| Peak memory, MiB | Rows of the timeline |",
        "| ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
        *map(_row, measured),
        "",
        "Times are CPU time of the process. What a rehearsal keeps grows with its polls (a row of the",
        "timeline each) and its scalings, not with its requests.",
        "",
    ]
    return "\n".join(lines), met


def _row(one: Measured) -> str:
    return (
        f"| {one.hours} | {one.requests:,} | {one.rehearsal:.1f} | {1e6 * one.rehearsal / one.requests:.0f} "
        f"| {one.plain:.1f} | {one.ratio:.1f} | {one.traffic:.1f} | {one.peak_mib:.0f} | {one.rows:,} |"
    )


if __name__ == "__main__":
    sys.exit(main())

"""The result as Markdown, for `docs/proof/replica-accuracy.md`."""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Sequence
from pathlib import Path

from tests.prove.accuracy import SPEED
from tests.prove.accuracy.measure import RESTARTED, Result, Run
from tests.prove.commit import commit

ROOT = Path(__file__).resolve().parents[3]
COMMAND = "python -m tests.prove.accuracy"

_INTRODUCTION = f"""# How true the numbers are with several replicas

Every scrape of the endpoint's address meets some replica. The recording rules of `dashboards/recording.py`
tell the replicas apart; here is how far what they record is from the truth.

One real Prometheus scrapes simulated fleets over HTTP through an address that balances, with the samplers and
the rules that the program makes, all durations divided by {SPEED} (5 minutes are 20 s, 5 s are a third of a
second). What each replica has counted at any moment is a function of time: a load that rises and falls by
40 %, replicas that differ and are minutes to a day old. So the truth of each window is known exactly: the sum
of what all replicas counted in it, those included that died meanwhile. Compared is each recorded value of
`fleet:vllm:generation_tokens:increase5m` whose window began and ended while Prometheus was scraping.

Not all of it is like life: of the families only those are recorded that are compared here, lookback and
discovery are faster with everything else, the platform's count is left out, and no app is replaced by another
one at another address (`tests/dashboards/test_recording.py` has that, in promtool).
"""

_GUIDE = """## How to read it

- *Median*, *p99* and *worst* are errors of the tokens generated in 5 minutes, |measured / true - 1|, over all
  *values*. Targets: median at most 2 %, worst at most 10 %; for up to 8 replicas with births and deaths, p99
  at most 10 % and worst only reported. A missed target is named in the last column, and the program then ends
  with status 1.
- *Plain rate()* is `sum(rate(vllm:generation_tokens_total[5m]))` over one scrape each 15 s, as the reference
  architecture's dashboard has it: right for one replica and for nothing else. Its error grows with the age of
  the replicas.
- *Quantile off* is how many buckets p50 and p95 of the time to first token are away from the true bucket, at
  most: by the rules, and by plain `rate()`. All requests before the run were much faster than those since;
  the plain quantiles go on telling of then.
- *Replicas seen* is the share of values of `fleet:vllm:replicas_seen` that are the number of replicas that
  were alive in the last minute.
- *Round robin* is turned by the users' requests (Poisson) as well as by the scrapes, which makes it nearly
  random.
- *Births and deaths*: every 90 to 300 s a replica is added or lost. It works at full load from its first
  moment and dies without warning, which is harder than life.
- *Rolled*: replicas are replaced one by one by ones of another model name, twice; the second roll is under
  way when Prometheus is restarted.
- *No birth time*: the replicas do not tell when their counters were made, and are told apart by the start of
  their process.
- *Scrapes take up to 4 s*, any time from nothing to that, so that they overtake each other.
- *Sticky*: all samplers always meet the same replica. No rule can count what is not seen; it is seen that it
  is not seen, as `fleet:vllm:replicas_seen` is 1 where the platform has 3.
- *A restart of Prometheus*: SIGTERM, a start on the same data, and about 5 s (75 s at this speed) until it
  scrapes. Compared are the windows that hold all of that time. Those that begin or end in it miss what
  happened until the first or since the last scrape, as any `increase` does; so does every window for replicas
  that were born or died in it, hence no target for fleets that change.
"""
CODE = ("dashboards", "tests/prove/accuracy")
"""What the result depends on."""


def report(runs: Sequence[Run], seconds: float) -> str:
    """The page; `seconds` of the wall clock is what it took."""
    results = [result for run in runs for result in run.results]
    lines = [
        _INTRODUCTION,
        f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d}, commit {commit(*CODE)}, `{COMMAND}`, "
        f"{seconds / 60:.0f} minutes.",
        "",
        f"**{totals(runs)}**",
    ]
    # A section may come from several runs, and a restart is the last thing in each.
    for section in sorted({result.section for result in results}, key=lambda name: _order(name, results)):
        lines += ["", f"## {section}", "", *_table(result for result in results if result.section == section)]
    return "\n".join([*lines, "", _GUIDE])


def totals(runs: Sequence[Run]) -> str:
    """One line on everything."""
    results = [result for run in runs for result in run.results]
    missed = sum(bool(result.misses) for result in results)
    return (
        f"{len(results)} measurements of {sum(result.looks for result in results)} values, "
        f"{missed or 'none'} off target. "
        f"{sum(run.failed_rules for run in runs):.0f} evaluations failed, "
        f"{sum(run.missed_rules for run in runs):.0f} were missed; "
        f"of {sum(run.scrapes for run in runs):.0f} scrapes "
        f"{sum(run.failed_scrapes for run in runs):.0f} were not answered in time."
    )


def _order(section: str, results: Sequence[Result]) -> tuple[bool, int]:
    return section == RESTARTED, [result.section for result in results].index(section)


def _table(results: Iterable[Result]) -> Iterable[str]:
    yield (
        "| Fleet | Values | Median | p99 | Worst | Plain rate(): median | worst | Quantile off | plain "
        "| Replicas seen | Off target |"
    )
    yield "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | --- |"
    for result in results:
        cells = (
            result.scenario.name,
            result.looks,
            *(_percent(share) for share in (result.tokens.median, result.tokens.p99, result.tokens.worst)),
            *(_percent(share) for share in (result.plain.median, result.plain.worst)),
            result.buckets,
            result.plain_buckets,
            _percent(result.seen),
            "; ".join(result.misses),
        )
        yield "| " + " | ".join(str(cell) for cell in cells) + " |"


def _percent(share: float) -> str:
    return f"{100 * share:,.0f} %" if share >= 0.995 else f"{100 * share:.2f} %"

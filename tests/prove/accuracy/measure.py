"""A run: all fleets behind one gateway, one Prometheus, and what it says beside the truth."""

from __future__ import annotations

import asyncio
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from dashboards import recording
from tests.prove.accuracy import SPEED
from tests.prove.accuracy.fleet import bucket, bucket_of, first_tokens, tokens
from tests.prove.accuracy.gateway import Front, serving
from tests.prove.accuracy.prometheus import (
    Prometheus,
    Series,
    configuration,
    faster_ranges,
    rules,
    running,
)
from tests.prove.accuracy.scenarios import Limits, Scenario

WINDOW = 300.0
"""Seconds of the increases."""
QUANTILES = (0.5, 0.95)
RESTARTED = "A restart of Prometheus"
_STEP = 15.0
"""Seconds between two looks at what is not recorded."""
_SETTLED = 20.0
"""Seconds from a scrape of all replicas until it is recorded, and some."""
_SIGHT = 60.0
"""Seconds for which a replica that has died counts as seen."""


@dataclass(frozen=True)
class Plan:
    """When what happens, in seconds since the start."""

    restart: float | None
    """Prometheus is stopped and started then; None: never."""
    end: float


@dataclass(frozen=True)
class Errors:
    """How far off something is, as shares of the truth."""

    median: float
    p99: float
    worst: float

    @classmethod
    def of(cls, pairs: Iterable[tuple[float, float]]) -> Errors:
        """Of pairs of measured and true values."""
        errors = sorted(abs(measured / true - 1) for measured, true in pairs)
        return cls(statistics.median(errors), errors[int(0.99 * (len(errors) - 1))], errors[-1])


@dataclass(frozen=True)
class Result:
    """What was found of a fleet."""

    scenario: Scenario
    section: str
    limits: Limits
    looks: int
    """How many recorded values were compared."""
    tokens: Errors
    plain: Errors
    """Of `rate()` over the reference architecture's scrape."""
    buckets: int
    """Largest distance between a quantile's bucket and the true one."""
    plain_buckets: int
    seen: float
    """Share of looks in which the replicas seen were those that were there in the last minute."""
    most_seen: float

    @property
    def misses(self) -> list[str]:
        """The limits that were passed, as text."""
        limits = self.limits
        return [
            f"{what} {found:.4g}, allowed {allowed:.4g}"
            for what, found, allowed in (
                ("median", self.tokens.median, limits.median),
                ("p99", self.tokens.p99, limits.p99),
                ("worst", self.tokens.worst, limits.worst),
                ("buckets", self.buckets, limits.buckets),
                # A balancer that hides replicas is to be told by this.
                ("replicas seen", self.most_seen, 1 if self.scenario.balancing == "sticky" else None),
            )
            if allowed is not None and found > allowed
        ]


@dataclass(frozen=True)
class Run:
    """All that was found."""

    results: Sequence[Result]
    failed_rules: float
    """Evaluations that failed."""
    missed_rules: float
    """Evaluations that the machine was too slow for."""
    scrapes: float
    failed_scrapes: float


async def measure(
    binary: Path, scenarios: Sequence[Scenario], plan: Plan, progress: Callable[[str], None]
) -> Run:
    """Runs and measures; takes `plan.end` / SPEED seconds and some."""
    with tempfile.TemporaryDirectory() as folder:
        started = time.time()
        fronts = {
            scenario.label: Front(
                scenario.replicas,
                scenario.balancing,
                scenario.created,
                started,
                random.Random(number),  # noqa: S311
                scenario.slow,
            )
            for number, scenario in enumerate(scenarios)
        }
        files = {scenario.label: rules(scenario) for scenario in scenarios}
        async with (
            serving(fronts) as address,
            running(binary, Path(folder), configuration(scenarios, address), files) as prometheus,
        ):
            failed = missed = 0.0
            gap = None
            if plan.restart is not None:
                await _until(started, plan.restart)
                failed, missed = await _troubles(prometheus)
                progress("restarts Prometheus")
                stopped = (time.time() - started) * SPEED
                await prometheus.stop()
                gap = stopped, (time.time() - started) * SPEED
                await prometheus.start()
            await _until(started, plan.end)
            progress("compares")
            now = await _troubles(prometheus)
            results = await _compare(prometheus, scenarios, started, plan, gap)
            scrapes = await prometheus.number("sum(count_over_time(up[1h]))")
            unanswered = await prometheus.number("sum(count_over_time(up[1h]) - sum_over_time(up[1h]))")
    return Run(results, failed + now[0], missed + now[1], scrapes, unanswered)


async def _until(started: float, moment: float) -> None:
    await asyncio.sleep(max(0.0, started + moment / SPEED - time.time()))


async def _troubles(prometheus: Prometheus) -> tuple[float, float]:
    return (
        await prometheus.metric("prometheus_rule_evaluation_failures_total"),
        await prometheus.metric("prometheus_rule_group_iterations_missed_total"),
    )


async def _compare(
    prometheus: Prometheus,
    scenarios: Sequence[Scenario],
    started: float,
    plan: Plan,
    gap: tuple[float, float] | None,
) -> list[Result]:
    window = {"start": started, "end": started + plan.end / SPEED, "step": _STEP / SPEED}
    family = "vllm:time_to_first_token_seconds_bucket"

    async def looks(expression: str) -> Series:
        return await prometheus.query(faster_ranges(expression), **window)

    found = _Found(
        started,
        await prometheus.query(f"fleet:vllm:generation_tokens:increase{recording.WINDOW}[1h]"),
        await prometheus.query("fleet:vllm:replicas_seen[1h]"),
        await prometheus.query('up{sampler="0"}[1h]'),
        await looks(
            f'sum by (job) (rate(vllm:generation_tokens_total{{job=~".+-article"}}[5m])) * {WINDOW / SPEED}'
        ),
        [
            await looks(f"histogram_quantile({quantile}, sum by (job, le) (increase(replica:{family}[5m])))")
            for quantile in QUANTILES
        ],
        [
            await looks(
                f'histogram_quantile({quantile}, sum by (job, le) (rate({family}{{job=~".+-article"}}[5m])))'
            )
            for quantile in QUANTILES
        ],
    )
    until = plan.end if gap is None else gap[0]
    results = [
        found.result(scenario, scenario.section, scenario.limits, 0, WINDOW, until) for scenario in scenarios
    ]
    if gap is not None:
        until = gap[0] + WINDOW - _SETTLED
        results += [
            found.result(scenario, RESTARTED, scenario.restarted, gap[1], 0, until)
            for scenario in scenarios
            if scenario.restarted is not None
        ]
    return results


@dataclass(frozen=True)
class _Found:
    """What Prometheus said of all fleets."""

    started: float
    tokens: Series
    seen: Series
    scrapes: Series
    plain: Series
    quantiles: Sequence[Series]
    plain_quantiles: Sequence[Series]

    def result(
        self, scenario: Scenario, section: str, limits: Limits, start: float, delay: float, until: float
    ) -> Result:
        """What it said of one, from `delay` seconds after its first scrape since `start`."""
        replicas, job, article = scenario.replicas, scenario.label, f"{scenario.label}-article"
        scrapes = next(values for labels, values in self.scrapes.items() if ("job", job) in labels)
        moments = ((stamp - self.started) * SPEED for stamp, _ in scrapes)
        since = next(moment for moment in moments if moment >= start) + _SETTLED + delay

        def of(series: Series, label: str) -> list[tuple[float, float]]:
            """Moment and value."""
            values = next((values for labels, values in series.items() if ("job", label) in labels), [])
            moments = [((stamp - self.started) * SPEED, value) for stamp, value in values]
            return [(moment, value) for moment, value in moments if since <= moment <= until]

        def with_truth(series: Series, label: str) -> list[tuple[float, float]]:
            return [(value, tokens(replicas, moment - WINDOW, moment)) for moment, value in of(series, label)]

        def farthest(quantiles: Sequence[Series], label: str) -> int:
            return max(
                abs(bucket_of(value) - bucket(quantile, first_tokens(replicas, moment - WINDOW, moment)))
                for quantile, series in zip(QUANTILES, quantiles, strict=True)
                for moment, value in of(series, label)
            )

        measured = with_truth(self.tokens, job)
        seen = of(self.seen, job)
        right = [
            sum(replica.born < moment and moment - _SIGHT < replica.died for replica in replicas) == value
            for moment, value in seen
        ]
        return Result(
            scenario,
            section,
            limits,
            len(measured),
            Errors.of(measured),
            Errors.of(with_truth(self.plain, article)),
            farthest(self.quantiles, job),
            farthest(self.plain_quantiles, article),
            sum(right) / len(right),
            max(value for _, value in seen),
        )

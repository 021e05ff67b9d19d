"""Which scaling settings would have served the traffic best: many rehearsals, cost against attainment."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import get_args

from autoscaling.policy import Aggregation, ScalerSettings, TargetType
from autoscaling.rehearsal import MODES, Job, cost, job
from autoscaling.stack import Stack
from autoscaling.traffic import Traffic
from autoscaling.workers import Workers
from components.settings import PROJECT

_TARGET_FACTORS = (0.2, 0.4, 0.6, 1, 1.5, 2, 3)
"""Targets that are tried, as multiples of the stack's own."""
_UP_WINDOWS = (0, 60, 180)
_DOWN_WINDOWS = (60, 300, 900)
_REFINED = 3
"""Settings of the first round whose windows and aggregation are varied in the second."""


@dataclass(frozen=True, order=True)
class Candidate:
    """Scaling settings of a stack file, one value each."""

    min_replicas: int
    max_replicas: int
    target: float
    aggregation: Aggregation
    up_window: float
    down_window: float

    @property
    def fixed(self) -> bool:
        """Whether nothing scales."""
        return self.min_replicas == self.max_replicas

    def scaler(self, mode: TargetType) -> ScalerSettings:
        """The same as the scaler knows it."""
        return ScalerSettings(
            replicas_min=self.min_replicas,
            replicas_max=self.max_replicas,
            target_value=self.target,
            aggregation=self.aggregation,
            target_type=mode,
            scale_up_stabilization_seconds=self.up_window,
            scale_down_stabilization_seconds=self.down_window,
        )

    def lines(self, stack: Candidate) -> list[str]:
        """What has to change in the stack file whose settings are `stack`."""
        mine, theirs = self._values(), stack._values()
        if self.fixed:
            mine = {key: mine[key] for key in ("minReplicas", "maxReplicas")}
        return [f"{PROJECT}:{key}: {value}" for key, value in mine.items() if value != theirs[key]]

    def _values(self) -> dict[str, str]:
        return {
            "minReplicas": str(self.min_replicas),
            "maxReplicas": str(self.max_replicas),
            "scalingTarget": f'"{self.target:g}"',
            "scalingAggregation": self.aggregation,
            "scaleUpStabilizationSeconds": f"{self.up_window:g}",
            "scaleDownStabilizationSeconds": f"{self.down_window:g}",
        }


def of_stack(stack: Stack) -> Candidate:
    """The settings that a stack file has."""
    scaler = stack.fleet.scaler
    return Candidate(
        scaler.replicas_min,
        scaler.replicas_max,
        scaler.target_value,
        scaler.aggregation,
        scaler.scale_up_stabilization_seconds,
        scaler.scale_down_stabilization_seconds,
    )


@dataclass(frozen=True)
class Score:
    """What one candidate brought in one target mode."""

    gpu_minutes: int
    eur: float | None
    attainment: float
    """Share of all requests that were answered within the objectives, 0 to 1."""
    missed: tuple[str, ...]
    """Objectives that are not met."""
    ttft_p95: float | None
    itl_p95: float | None
    e2e_p95: float | None
    failed: int


@dataclass(frozen=True)
class Result:
    """What one candidate brought in every target mode."""

    candidate: Candidate
    scores: Mapping[TargetType, Score]

    @property
    def gpu_minutes(self) -> int:
        """In the mode in which it costs more."""
        return max(score.gpu_minutes for score in self.scores.values())

    @property
    def eur(self) -> float | None:
        """In the mode in which it costs more; None while the price is unknown."""
        return max((score.eur for score in self.scores.values() if score.eur is not None), default=None)

    @property
    def attainment(self) -> float:
        """In the mode in which it serves worse."""
        return min(score.attainment for score in self.scores.values())

    @property
    def meets(self) -> bool:
        """Whether all objectives are met, whatever the mode."""
        return not any(score.missed for score in self.scores.values())

    def only(self, mode: TargetType) -> Result:
        """The same, as if the mode were known."""
        return Result(self.candidate, {mode: self.scores[mode]})


@dataclass(frozen=True)
class Sweep:
    """All candidates that were rehearsed."""

    stack: Candidate
    results: Sequence[Result]

    def best(self, mode: TargetType | None = None) -> Result | None:
        """The cheapest that meets all objectives, in both target modes or in a given one; None: none does.

        Of equally cheap ones that which serves better, then that which changes least in the stack file.
        """
        found = self.results if mode is None else [result.only(mode) for result in self.results]
        meeting = [result for result in found if result.meets]
        return min(meeting, key=self._rank, default=None)

    def most_attained(self, mode: TargetType) -> Result:
        """The one that serves best in a mode, and of these the cheapest."""
        found = [result.only(mode) for result in self.results]
        return min(found, key=lambda result: (-result.attainment, *self._rank(result)))

    def _rank(self, result: Result) -> tuple[float, float, int, Candidate]:
        changes = len(result.candidate.lines(self.stack))
        return result.gpu_minutes, -result.attainment, changes, result.candidate

    @property
    def pareto(self) -> list[Result]:
        """Candidates that no other one beats in cost and attainment, the cheapest first.

        Less than 0.01 % of the requests is no difference. Of those that are alike the one that `best` takes.
        """
        front: list[Result] = []
        for result in sorted(self.results, key=self._rank):
            if not front or _visible(result.attainment) > _visible(front[-1].attainment):
                front.append(result)
        return front


def _visible(share: float) -> int:
    return round(10_000 * share)


def sweep(
    stack: Stack,
    traffic: Traffic,
    seed: int,
    workers: Workers,
    progress: Callable[[str, int, int], None] = lambda what, done, of: None,
) -> Sweep:
    """Rehearses a grid of settings.

    `progress` is told what is under way, how many runs of it are done, and of how many. There are two rounds:
    bounds, targets and SUM first, then windows and the other aggregations of the settings that did best.
    """
    own = of_stack(stack)
    found: dict[Candidate, Result] = {}

    def rehearse(what: str, candidates: Iterable[Candidate]) -> None:
        new = [candidate for candidate in dict.fromkeys(candidates) if candidate not in found]
        found.update(_results(stack, traffic, seed, new, workers, partial(progress, what)))

    rehearse("bounds, targets, sums", [own, *_first_round(own, stack)])
    promising = [result.candidate for result in _promising(Sweep(own, list(found.values())))]
    # The stack's own settings are the ones whose neighbours a user asks about first.
    scaling = [candidate for candidate in (own, *promising) if not candidate.fixed]
    rehearse("windows and aggregations", [near for one in scaling for near in _neighbours(one)])
    return Sweep(own, list(found.values()))


def _first_round(own: Candidate, stack: Stack) -> Iterable[Candidate]:
    most = stack.most_replicas
    counts = sorted(
        {1, 2, math.ceil(most / 2), most, own.min_replicas, own.max_replicas} & set(range(most + 1))
    )
    for low, high in itertools.combinations_with_replacement(counts, 2):
        if high == 0:
            continue
        bounds = dataclasses.replace(own, min_replicas=low, max_replicas=high)
        if bounds.fixed:
            yield bounds
        else:
            # With the target mode AverageValue, SUM is what AVERAGE is with Value.
            aggregations: tuple[Aggregation, ...] = (own.aggregation, "SUM")
            for aggregation, factor in itertools.product(dict.fromkeys(aggregations), _TARGET_FACTORS):
                target = float(f"{own.target * factor:.3g}")
                yield dataclasses.replace(bounds, target=target, aggregation=aggregation)


def _promising(found: Sweep) -> list[Result]:
    """Scaling settings that are worth a second look: those that meet the objectives, else the front."""
    meeting = sorted((result for result in found.results if result.meets), key=found._rank)
    front = sorted(found.pareto, key=lambda result: -result.attainment)
    ranked = [result for result in (*meeting, *front) if not result.candidate.fixed]
    return list({result.candidate: result for result in ranked}.values())[:_REFINED]


def _neighbours(one: Candidate) -> Iterable[Candidate]:
    for window in _UP_WINDOWS:
        yield dataclasses.replace(one, up_window=window)
    for window in _DOWN_WINDOWS:
        yield dataclasses.replace(one, down_window=window)
    for aggregation in get_args(Aggregation):
        yield dataclasses.replace(one, aggregation=aggregation)


def _results(
    stack: Stack,
    traffic: Traffic,
    seed: int,
    candidates: Sequence[Candidate],
    workers: Workers,
    progress: Callable[[int, int], None],
) -> dict[Candidate, Result]:
    # What does not scale does the same in every mode.
    keys = [
        (candidate, mode) for candidate in candidates for mode in (MODES[:1] if candidate.fixed else MODES)
    ]
    tasks = [_Task(job(stack, candidate.scaler(mode), traffic, seed), stack) for candidate, mode in keys]
    scores: dict[Candidate, dict[TargetType, Score]] = {}
    progress(0, len(keys))
    for done, ((candidate, mode), score) in enumerate(
        zip(keys, workers.each(_Task.score, tasks), strict=True), start=1
    ):
        for covered in MODES if candidate.fixed else (mode,):
            scores.setdefault(candidate, {})[covered] = score
        progress(done, len(keys))
    return {candidate: Result(candidate, found) for candidate, found in scores.items()}


@dataclass(frozen=True)
class _Task:
    job: Job
    stack: Stack

    def score(self) -> Score:
        outcome = self.job.run()
        assert outcome.attainment is not None
        bill = cost(outcome, self.stack)
        return Score(
            bill.gpu_minutes,
            bill.eur,
            outcome.attainment.requests,
            tuple(outcome.attainment.missed(self.stack.objectives)),
            outcome.ttft.quantile(0.95),
            outcome.itl.quantile(0.95),
            outcome.e2e.quantile(0.95),
            outcome.failed,
        )

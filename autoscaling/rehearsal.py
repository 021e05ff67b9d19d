"""A stack on virtual time under some traffic, in both target modes, and the answer in numbers.

The field names of `ModeAnswer` are those of the JSON file: they stay.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, get_args

from autoscaling.distribution import Distribution
from autoscaling.fleet import REFUSED_SECONDS, Fleet, run
from autoscaling.hardware import weights_bytes
from autoscaling.outcome import Outcome, Row
from autoscaling.policy import ScalerSettings, TargetType
from autoscaling.stack import Stack
from autoscaling.traffic import ClosedLoop, Traffic
from autoscaling.workers import Workers
from dashboards.target import Objectives

MODES: tuple[TargetType, ...] = get_args(TargetType)
"""The ways in which the platform may compare the metric with its target."""


@dataclass(frozen=True)
class Job:
    """One run on virtual time."""

    fleet: Fleet
    traffic: Traffic
    seed: int
    objectives: Objectives

    def run(self) -> Outcome:
        """What it finds."""
        return run(self.fleet, self.traffic, seed=self.seed, slo=self.objectives)


def job(stack: Stack, scaler: ScalerSettings, traffic: Traffic, seed: int) -> Job:
    """The stack with another scaler."""
    return Job(dataclasses.replace(stack.fleet, scaler=scaler), traffic, seed, stack.objectives)


def rehearse(
    stack: Stack,
    traffic: Traffic,
    seed: int,
    workers: Workers,
    progress: Callable[[str, int, int], None] = lambda what, done, of: None,
) -> dict[TargetType, Outcome]:
    """The stack as it is, in both target modes.

    `progress` is told what is under way, how many runs of it are done, and of how many.
    """
    scaler = stack.fleet.scaler
    jobs = [job(stack, dataclasses.replace(scaler, target_type=mode), traffic, seed) for mode in MODES]
    found: dict[TargetType, Outcome] = {}
    progress("both target modes", 0, len(MODES))
    for mode, outcome in zip(MODES, workers.each(Job.run, jobs), strict=True):
        found[mode] = outcome
        progress("both target modes", len(found), len(MODES))
    return found


# --- the answer ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Spread:
    """A distribution in short; None where there is no value."""

    mean: float | None
    p50: float | None
    p95: float | None
    p99: float | None
    max: float | None


@dataclass(frozen=True)
class Queue:
    """Requests that wait in the queues of the replicas, at the polls of the scaler."""

    mean: float
    max: int
    share_of_time: float
    """Of the polls at which somebody waited, 0 to 1."""


@dataclass(frozen=True)
class Replicas:
    """How many there were, at the polls of the scaler."""

    mean: float
    """That existed, over the whole run."""
    max_asked: int
    max_ready: int
    reaches_max: bool
    """Whether maxReplicas were ready at once."""
    seconds_until_max: float | None
    """Since the traffic began; None: never."""
    seconds_at_max: float
    """Time with maxReplicas ready."""


@dataclass(frozen=True)
class Cost:
    """What AI Deploy bills, without VAT."""

    replica_minutes: int
    """Started minutes of every replica while it existed."""
    gpu_minutes: int
    eur: float | None
    """None while the price of the flavor is unknown."""
    eur_per_million_output_tokens: float | None


@dataclass(frozen=True)
class ModeAnswer:
    """One target mode; all times in seconds, those of events since the traffic began."""

    verdict: str
    """Whether it reaches maxReplicas, in words."""
    seconds: float
    """Length of the run: until all was answered, and ten minutes after."""
    requests: int
    completed: int
    refused: int
    """Sent while no replica was ready, or longer than the model takes."""
    too_long: int
    """Those of them that were longer."""
    killed: int
    """Cut by a scale-down at the end of the grace period."""
    failed: int
    """Refused or killed."""
    prompt_tokens: int
    output_tokens: int
    preemptions: int
    attainment: Mapping[str, float]
    """Share (0 to 1) of first tokens, of gaps and of requests within each objective, 1 where there was none
    (`ttft` and `itl` are null then); `requests`: of all requests, those that were answered with the first
    token in time and a mean gap within the objective."""
    missed: Sequence[str]
    """Objectives that are not met."""
    ttft: Spread
    """From the intended start to the first token."""
    itl: Spread
    """Between two tokens."""
    tpot: Spread
    """Mean gap of each request."""
    e2e: Spread
    """From the intended start to the last token."""
    queue: Queue
    replicas: Replicas
    cost: Cost
    scale_ups: Sequence[Mapping[str, Any]]
    """before, after, crossed, decided, ready (None: never), seconds (from crossed to ready), parts."""
    scale_downs: Sequence[Mapping[str, Any]]
    """time, before, after, killed, up_again (seconds until it scaled up again within ten minutes, or None),
    missed (too many late first tokens within ten minutes), hurt (any of these)."""
    timeline: Mapping[str, Sequence[float | None]]
    """A list for each column, with one value for each poll of the scaler."""


def answer(outcome: Outcome, stack: Stack, scaler: ScalerSettings) -> ModeAnswer:
    """The numbers of one run."""
    assert outcome.attainment is not None, "rehearsals have objectives"
    replicas = _replicas(outcome, scaler)
    rows = outcome.timeline
    return ModeAnswer(
        verdict=_verdict(outcome, replicas, scaler, stack.fleet),
        seconds=outcome.seconds,
        requests=outcome.requests,
        completed=outcome.completed,
        refused=outcome.refused,
        too_long=outcome.too_long,
        killed=outcome.killed,
        failed=outcome.failed,
        prompt_tokens=outcome.prompt_tokens,
        output_tokens=outcome.output_tokens,
        preemptions=outcome.preemptions,
        attainment=dataclasses.asdict(outcome.attainment),
        missed=outcome.attainment.missed(stack.objectives),
        ttft=_spread(outcome.ttft),
        itl=_spread(outcome.itl),
        tpot=_spread(outcome.tpot),
        e2e=_spread(outcome.e2e),
        queue=_queue(rows),
        replicas=replicas,
        cost=cost(outcome, stack),
        scale_ups=[
            {**dataclasses.asdict(up), "seconds": up.seconds, "parts": dict(up.parts)}
            for up in outcome.scale_ups
        ],
        scale_downs=[{**dataclasses.asdict(down), "hurt": down.hurt} for down in outcome.scale_downs],
        timeline={
            field.name: [getattr(row, field.name) for row in rows] for field in dataclasses.fields(Row)
        },
    )


def cost(outcome: Outcome, stack: Stack) -> Cost:
    """The bill of one run."""
    price = stack.eur_per_replica_hour
    eur = None if price is None else outcome.billed_minutes / 60 * price
    per_million = None if eur is None or not outcome.output_tokens else eur / outcome.output_tokens * 1e6
    return Cost(outcome.billed_minutes, outcome.gpu_minutes, eur, per_million)


def _spread(values: Distribution) -> Spread:
    return Spread(
        mean=values.mean,
        p50=values.quantile(0.5),
        p95=values.quantile(0.95),
        p99=values.quantile(0.99),
        max=values.quantile(1),
    )


def _queue(rows: Sequence[Row]) -> Queue:
    waiting = [row.waiting for row in rows]
    count = max(1, len(waiting))
    return Queue(sum(waiting) / count, max(waiting, default=0), sum(map(bool, waiting)) / count)


def _replicas(outcome: Outcome, scaler: ScalerSettings) -> Replicas:
    rows = outcome.timeline
    most = scaler.replicas_max
    # An app that has them from the start has them before the first poll.
    first = (
        0.0 if scaler.replicas_min == most else next((row.time for row in rows if row.ready >= most), None)
    )
    ends = [*(row.time for row in rows[1:]), outcome.seconds]
    return Replicas(
        mean=outcome.replica_seconds / outcome.seconds if outcome.seconds else 0.0,
        max_asked=max((row.asked for row in rows), default=scaler.replicas_min),
        max_ready=max((row.ready for row in rows), default=scaler.replicas_min),
        reaches_max=first is not None,
        seconds_until_max=first,
        seconds_at_max=sum(end - row.time for row, end in zip(rows, ends, strict=False) if row.ready >= most),
    )


def _verdict(outcome: Outcome, replicas: Replicas, scaler: ScalerSettings, fleet: Fleet) -> str:
    text = _scaling(outcome, replicas, scaler, fleet)
    not_ready = outcome.refused - outcome.too_long
    if not_ready:
        text += f"; {not_ready:,} of {outcome.requests:,} requests are refused, since no replica is ready"
    if outcome.too_long:
        text += (
            f"; {outcome.too_long:,} requests are refused, since they are longer than the {fleet.longest:,} "
            "tokens that the model takes (--max-model-len)"
        )
    return text


def _scaling(outcome: Outcome, replicas: Replicas, scaler: ScalerSettings, fleet: Fleet) -> str:
    most = scaler.replicas_max
    if scaler.replicas_min == most:
        return f"fixed at {most} replica{'s' if most > 1 else ''}: nothing scales"
    if replicas.seconds_until_max is not None:
        hurt = sum(down.hurt for down in outcome.scale_downs)
        text = (
            f"reaches {most} replicas, {span(replicas.seconds_until_max)} after the traffic began, "
            f"and has them for {span(replicas.seconds_at_max)}"
        )
        return text + (f"; {hurt} of {len(outcome.scale_downs)} scale-downs hurt" if hurt else "")
    if replicas.max_asked >= most:
        asked = next(row.time for row in outcome.timeline if row.asked >= most)
        why = (
            f"the quota has room for {fleet.most_replicas:g}"
            if fleet.most_replicas < most
            else "the scaler took some back before they were ready, or the run was over"
        )
        return (
            f"asks for {most} replicas after {span(asked)}, but never has more than {replicas.max_ready} "
            f"ready at once: {why}"
        )
    # Without replicas the scaler saw no metric, only that somebody asked.
    seen = max((row.metric for row in outcome.timeline if row.ready and row.metric is not None), default=0.0)
    return (
        f"never asks for more than {replicas.max_asked} of {most} replicas: {fleet.metric} "
        f"({scaler.aggregation}) rises to {seen:g} at most, with a target of {scaler.target_value:g}"
    )


def span(seconds: float) -> str:
    """A length of time in words: `45 s`, `8 min 15 s`, `3 h 20 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s" if whole % 60 else f"{whole // 60} min"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


# --- what it rests on ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Assumption:
    """Something that nobody outside OVHcloud knows, and what was taken."""

    name: str
    value: str
    why: str


def assumptions(stack: Stack, traffic: Traffic) -> list[Assumption]:
    """What the answer rests on, in the order of its weight."""
    fleet, times = stack.fleet, stack.fleet.platform
    cold = ", ".join(f"{phase} {span(seconds)}" for phase, seconds in fleet.cold_start)
    listed = [
        Assumption(
            "target mode",
            "Value and AverageValue",
            "OVHcloud does not say which of the two the platform uses; the bill and the latency may differ",
        ),
        Assumption("speed of a replica", stack.speed, "a load test of your own endpoint tells better"),
        Assumption("cold start", cold, "from container start to listening; not published"),
        Assumption("image pull", f"{times.image_pull:g} s", "before each container start; not published"),
        Assumption("polling interval", f"{times.polling_interval:g} s", "the sync period of Kubernetes"),
        Assumption("grace period", f"{times.grace:g} s", "Kubernetes' default, documented for updates"),
        Assumption("balancing", fleet.balancing, "how the gateway picks a replica is not published"),
        Assumption(
            "start", f"{fleet.scaler.replicas_min} idle", "replicas that are ready when traffic begins"
        ),
        Assumption("quota", f"{fleet.gpu_quota} GPUs", "all of them are free for this app"),
        Assumption("end", "10 min after the last answer", "so long replicas are watched and billed"),
        Assumption("bill", "per started minute", "of each replica, from its allocation to its end"),
    ]
    if not stack.known_model:
        listed.insert(
            1,
            Assumption(
                "size of the model",
                f"{weights_bytes(stack.model) / 1e9:.3g} GB of weights, before quantization",
                f"guessed from the name: {stack.model} is not in autoscaling/hardware.json",
            ),
        )
    if stack.unheeded:
        listed.insert(
            1,
            Assumption(
                "vllmArguments",
                f"as without {', '.join(stack.unheeded)}",
                "not modelled: a real replica is faster or slower; calibrate with a load test of one",
            ),
        )
    if not fleet.scaler.replicas_min:
        listed.append(
            Assumption(
                "waking",
                "at the first poll after a refused request",
                "how an app without replicas is woken is not documented",
            )
        )
        if isinstance(traffic, ClosedLoop):
            listed.append(
                Assumption(
                    "after a refusal",
                    f"{REFUSED_SECONDS:g} s until the worker's next request",
                    "so the requests of a closed loop may all be refused before the app has woken",
                )
            )
    if isinstance(traffic, ClosedLoop):
        listed.append(
            Assumption(
                "answers",
                "some hundred tokens, 768 at most",
                "the article names prompts and limit, no lengths",
            )
        )
    return listed

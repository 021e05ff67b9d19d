"""What a rehearsal on virtual time found; times are seconds since the traffic began."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from autoscaling.distribution import Distribution
from dashboards.target import Objectives

HURT_SECONDS = 600.0
"""How long after a scale-down its consequences count as its own."""


@dataclass(frozen=True, slots=True)
class Row:
    """The fleet at one poll of the scaler, and what happened since the poll before."""

    time: float
    ready: int
    """Replicas that get traffic."""
    starting: int
    """Replicas that exist and are not ready yet."""
    leaving: int
    """Replicas without traffic that live on for their grace period."""
    asked: int
    """Replicas that the scaler asks for after this poll."""
    running: int
    """Sequences in the batches of the ready replicas."""
    waiting: int
    """Sequences in their queues."""
    kv_usage: float
    """Of the fullest ready replica, 0 to 1."""
    metric: float | None
    """What the scaler saw, aggregated; None when there was nothing to read."""
    requests: int
    """Sent since the last poll."""
    failed: int
    """Refused or killed since the last poll."""
    first_tokens: int
    """Requests that got their first token since the last poll."""
    late: int
    """Those of them that waited longer than the objective allows; 0 without objectives."""
    ttft_p95: float | None
    """Of these first tokens; None when there was none."""


@dataclass(frozen=True, slots=True)
class ScaleUp:
    """A decision for more replicas, and how long its first replica took to serve."""

    before: int
    after: int
    """Replicas asked for before and after the decision."""
    crossed: float
    """Since when the metric had been above the target and its tolerance, interpolated between polls; for an
    app without replicas, when its first request was refused."""
    decided: float
    ready: float | None
    """When the first replica of this decision got traffic; None: it never did (no quota, or scaled down)."""
    parts: tuple[tuple[str, float], ...]
    """Seconds by phase, in order: `decision` (polling, stabilization, or the wait for replicas that start),
    `quota`, `image pull`, the phases of the cold start, `readiness probe`. Empty if it never served."""

    @property
    def seconds(self) -> float | None:
        """From the crossing until the first replica served."""
        return None if self.ready is None else self.ready - self.crossed


@dataclass(frozen=True, slots=True)
class ScaleDown:
    """A decision for fewer replicas."""

    time: float
    before: int
    after: int
    killed: int
    """Requests that were not done at the end of the grace period and failed."""
    up_again: float | None
    """Seconds until the next scale-up, if it came within `HURT_SECONDS`."""
    missed: bool
    """Whether too many first tokens of the next `HURT_SECONDS` came later than the objective allows."""

    @property
    def hurt(self) -> bool:
        """Whether it had better not happened."""
        return bool(self.killed) or self.up_again is not None or self.missed


@dataclass(frozen=True, slots=True)
class Lifetime:
    """How long a replica held its GPUs, the grace period included."""

    allocated: float
    released: float
    """The end of the run for one that was still there."""

    @property
    def billed_minutes(self) -> int:
        """Started minutes."""
        return max(1, math.ceil((self.released - self.allocated) / 60))


@dataclass(frozen=True, slots=True)
class Attainment:
    """Shares of what was within the objectives (0 to 1); 1 where nothing happened."""

    time_to_first_token: float
    """Of all first tokens, as the dashboards count them."""
    inter_token_latency: float
    """Of all gaps between tokens, as the dashboards count them."""
    success: float
    """Of all requests: neither refused nor killed."""
    requests: float
    """Of all requests: answered, first token in time, and mean gap within the objective."""

    def missed(self, slo: Objectives) -> list[str]:
        """Names of the objectives that are not met."""
        pairs = {
            "time_to_first_token": (self.time_to_first_token, slo.time_to_first_token.ratio),
            "inter_token_latency": (self.inter_token_latency, slo.inter_token_latency.ratio),
            "success": (self.success, slo.success),
        }
        return [name for name, (share, ratio) in pairs.items() if share < ratio]


@dataclass(frozen=True)
class Outcome:
    """A whole rehearsal; its size depends on its length and its scalings, not on the number of requests."""

    seconds: float
    """Length of the run: until all was answered, and what was to follow after the traffic."""
    requests: int
    """Sent; each one is `completed`, `refused` or `killed` in the end."""
    completed: int
    refused: int
    """Sent while no replica was ready (the gateway answers 503 at once), or longer than the model takes."""
    killed: int
    """Cut at the end of a replica's grace period."""
    prompt_tokens: int
    output_tokens: int
    """Both of completed requests."""
    preemptions: int
    """Sequences that lost their KV cache blocks and were computed again."""
    ttft: Distribution
    """From the intended start to the first token, seconds per request."""
    itl: Distribution
    """Gaps between two tokens, seconds per token (the mean of a run of steps that only decode)."""
    tpot: Distribution
    """Mean gap of each completed request with more than one token, seconds."""
    e2e: Distribution
    """From the intended start to the last token, seconds per completed request."""
    attainment: Attainment | None
    """None without objectives."""
    timeline: Sequence[Row]
    """One row per poll of the scaler."""
    scale_ups: Sequence[ScaleUp]
    scale_downs: Sequence[ScaleDown]
    lifetimes: Sequence[Lifetime]
    """Of every replica, in the order of their allocation."""
    gpus_per_replica: int
    too_long: int = 0
    """Refused since they were longer than the model takes; part of `refused`."""

    @property
    def failed(self) -> int:
        """Requests without a complete answer."""
        return self.refused + self.killed

    @property
    def billed_minutes(self) -> int:
        """Replica-minutes on the bill: per started minute of each replica."""
        return sum(lifetime.billed_minutes for lifetime in self.lifetimes)

    @property
    def gpu_minutes(self) -> int:
        """GPU-minutes on the bill."""
        return self.billed_minutes * self.gpus_per_replica

    @property
    def replica_seconds(self) -> float:
        """Seconds that replicas existed, added up: divided by `seconds`, the mean number of replicas."""
        return sum(lifetime.released - lifetime.allocated for lifetime in self.lifetimes)

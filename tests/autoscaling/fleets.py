"""Small fleets and traffic whose outcome is known."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from autoscaling.engine import EngineParameters
from autoscaling.fleet import Fleet
from autoscaling.platform import PlatformTimes
from autoscaling.policy import ScalerSettings
from autoscaling.traffic import OpenLoop, Request
from components.ai_deploy.spec import Probe

PROBE = Probe(path="/v1/models", port=8000, initial_delay_seconds=30, period_seconds=10)


def engine(step: float, slots: int = 1024) -> EngineParameters:
    """An engine of which each step takes the same time, whatever is in it: a server with so many slots."""
    return EngineParameters(
        kv_blocks=10**9,
        step_seconds=step,
        sequence_seconds=0,
        context_token_seconds=0,
        prefill_tokens_per_second=1e15,
        max_num_seqs=slots,
        max_num_batched_tokens=10**6,
        prefix_caching=False,
    )


def fixed(replicas: int) -> ScalerSettings:
    """A scaler that has no choice."""
    return ScalerSettings(replicas, replicas, 50)


def fleet(parameters: EngineParameters, scaler: ScalerSettings | None = None, **changes: Any) -> Fleet:
    """Replicas that take 60 s for the image and 100 s to load."""
    settings: dict[str, Any] = {
        "cold_start": (("download", 80.0), ("load", 20.0)),
        "readiness": PROBE,
        "scaler": scaler or fixed(1),
        "gpu_quota": 1000,
        **changes,
    }
    return Fleet(parameters, **settings)


def polled(interval: float) -> PlatformTimes:
    """The platform's times with another polling interval."""
    return PlatformTimes(polling_interval=interval)


@dataclass(frozen=True)
class Drawn(OpenLoop):
    """Poisson arrivals with prompts of one token and answers of any length."""

    rate: float
    lasts: float
    tokens: Callable[[random.Random], int] = field(default=lambda chance: 1)
    name: str = "drawn"

    @property
    def duration(self) -> float:
        return self.lasts

    def requests(self, seed: int) -> Iterator[Request]:
        chance = random.Random(seed)  # noqa: S311
        at = chance.expovariate(self.rate)
        while at < self.lasts:
            yield Request(at, 1, self.tokens(chance))
            at += chance.expovariate(self.rate)


@dataclass(frozen=True)
class Listed(OpenLoop):
    """These requests."""

    requested: tuple[Request, ...]
    lasts: float = 0.0
    name: str = "listed"

    @property
    def duration(self) -> float:
        return self.lasts

    def requests(self, seed: int) -> Iterator[Request]:
        return iter(self.requested)

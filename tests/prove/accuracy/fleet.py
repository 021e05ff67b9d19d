"""Replicas whose counters are functions of time, so that what a fleet did in any window is known exactly."""

from __future__ import annotations

import math
import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

BOUNDS = (
    *(0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0),
    *(20.0, 40.0, 80.0, 160.0, 640.0, 2560.0),
)
"""Of the buckets of vLLM's time to first token, in seconds."""
ENDINGS = {"stop": 0.9, "length": 0.07, "abort": 0.02, "error": 0.01}
"""How requests end (finished_reason), and the share of each."""
_TOKENS_PER_REQUEST = 230
_SWING = 0.4
"""Share by which the load of a replica rises and falls."""


@dataclass(frozen=True)
class Replica:
    """A server process. It works at full load from its birth to its death, which come without warning."""

    seed: int
    """Of what makes replicas differ."""
    born: float
    """Seconds since the start of the run; negative: before it."""
    died: float = math.inf
    model_name: str = "model"

    def alive(self, moment: float) -> bool:
        """Whether it serves then."""
        return self.born <= moment < self.died

    def tokens(self, moment: float) -> int:
        """Generated from its birth to then."""
        return int(self._work(moment) * _TOKENS_PER_REQUEST)

    def endings(self, moment: float) -> dict[str, int]:
        """Requests that have ended until then, by how."""
        work = self._work(moment)
        return {reason: int(work * share) for reason, share in ENDINGS.items()}

    def first_tokens(self, moment: float) -> list[int]:
        """First tokens until then within each of BOUNDS, and at all."""
        before = self._work(min(moment, 0))
        since = self._work(moment) - before
        fast, slow = self._shares
        return [int(before * a + since * b) for a, b in zip(fast, slow, strict=True)]

    def running(self, moment: float) -> int:
        """Requests that run then."""
        return round(12 * self._rate * (1 + _SWING * math.sin(self._angle(moment))))

    @cached_property
    def _chance(self) -> random.Random:
        return random.Random(self.seed)  # noqa: S311

    @cached_property
    def _load(self) -> tuple[float, float, float]:
        """Requests per second, seconds of a swing of the load, and where it begins."""
        chance = self._chance
        return chance.uniform(1, 4), chance.uniform(400, 900), chance.uniform(0, 2 * math.pi)

    @property
    def _rate(self) -> float:
        return self._load[0]

    @cached_property
    def _shares(self) -> tuple[list[float], list[float]]:
        """First tokens within each of BOUNDS and at all: before the run, when all was well, and since."""
        slow = self._load[1] / 900
        return _lognormal(0.08), _lognormal(slow)

    def _angle(self, moment: float) -> float:
        _, period, phase = self._load
        return 2 * math.pi * moment / period + phase

    def _work(self, moment: float) -> float:
        """Requests from its birth to then."""
        end = min(max(moment, self.born), self.died)
        rate, period, _ = self._load
        swing = math.cos(self._angle(self.born)) - math.cos(self._angle(end))
        return rate * (end - self.born + _SWING * period / (2 * math.pi) * swing)


def _lognormal(median: float) -> list[float]:
    """Shares of a log-normal distribution within each of BOUNDS, and 1."""
    return [*(0.5 * (1 + math.erf(math.log(bound / median) / (0.7 * math.sqrt(2)))) for bound in BOUNDS), 1.0]


def tokens(replicas: Iterable[Replica], since: float, until: float) -> int:
    """What all of them generated in this time, those that are gone included."""
    return sum(replica.tokens(until) - replica.tokens(since) for replica in replicas)


def first_tokens(replicas: Iterable[Replica], since: float, until: float) -> list[int]:
    """First tokens in this time within each of BOUNDS, and at all."""
    counts = [0] * (len(BOUNDS) + 1)
    for replica in replicas:
        pairs = zip(replica.first_tokens(since), replica.first_tokens(until), strict=True)
        counts = [count + after - before for count, (before, after) in zip(counts, pairs, strict=True)]
    return counts


def bucket(quantile: float, counts: Sequence[int]) -> int:
    """Number of the bucket that the quantile is in."""
    rank = quantile * counts[-1]
    return next(number for number, count in enumerate(counts) if count >= rank)


def bucket_of(value: float) -> int:
    """Number of the bucket that `histogram_quantile` took this value from."""
    return next((number for number, bound in enumerate(BOUNDS) if value <= bound), len(BOUNDS))


def steady(count: int, seed: int = 0) -> tuple[Replica, ...]:
    """A fleet that stays as it is, of replicas that are minutes to a day old."""
    chance = random.Random(seed)  # noqa: S311
    return tuple(
        Replica(seed * 100 + number, born=-math.exp(chance.uniform(math.log(600), math.log(86_400))))
        for number in range(count)
    )


def restless(most: int, seed: int, until: float, between: tuple[float, float]) -> tuple[Replica, ...]:
    """A fleet of one to `most` replicas to which one is added or lost every so many seconds."""
    chance = random.Random(seed)  # noqa: S311
    alive = list(steady((most + 1) // 2, seed))
    dead: list[Replica] = []
    moment, number = chance.uniform(*between), len(alive)
    while moment < until:
        grow = len(alive) == 1 or (len(alive) < most and chance.random() < 0.5)
        if grow:
            alive.append(Replica(seed * 100 + number, born=moment))
            number += 1
        else:
            lost = alive.pop(chance.randrange(len(alive)))
            dead.append(Replica(lost.seed, lost.born, died=moment))
        moment += chance.uniform(*between)
    return (*alive, *dead)


def rolled(count: int, first: float, every: float, names: Sequence[str]) -> tuple[Replica, ...]:
    """A fleet whose replicas are replaced one after the other by ones of the next model name, and again.

    A successor is born 10 s before its predecessor dies.
    """
    replicas: list[Replica] = []
    for place in range(count):
        born = -3600.0 * (place + 1)
        for turn, name in enumerate(names):
            change = first + every * (turn * count + place)
            last = turn == len(names) - 1
            replicas.append(
                Replica(turn * 100 + place, born, died=math.inf if last else change + 10, model_name=name)
            )
            born = change
    return tuple(replicas)

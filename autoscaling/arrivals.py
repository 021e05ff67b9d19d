"""When the requests of an open loop come: rates over time, as seconds drawn from chance."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol


class Arrivals(Protocol):
    """When the requests of an open loop come."""

    @property
    def duration(self) -> float:
        """Seconds in which requests come."""

    def times(self, chance: random.Random) -> Iterator[float]:
        """Ascending, below `duration`."""


@dataclass(frozen=True)
class Constant:
    """A request every 1/rate seconds, the first one at once."""

    rate: float
    duration: float

    def times(self, chance: random.Random) -> Iterator[float]:
        """See `Arrivals`."""
        return itertools.takewhile(
            lambda at: at < self.duration, (number / self.rate for number in itertools.count())
        )


def _thinned(
    rate: Callable[[float], float], highest: float, duration: float, chance: random.Random
) -> Iterator[float]:
    """Poisson arrivals at a rate that changes, by thinning those of the highest rate (Lewis and Shedler)."""
    uniform, gap = chance.random, chance.expovariate
    time = gap(highest)
    while time < duration:
        if uniform() * highest < rate(time):
            yield time
        time += gap(highest)


@dataclass(frozen=True)
class Ramp:
    """A rate that rises or falls evenly; also one that stays the same."""

    first: float
    last: float
    duration: float

    def __post_init__(self) -> None:
        if not self.first and not self.last:
            raise ValueError("from or to must be above 0")

    def times(self, chance: random.Random) -> Iterator[float]:
        """See `Arrivals`."""
        return _thinned(self._rate, max(self.first, self.last), self.duration, chance)

    def _rate(self, time: float) -> float:
        return self.first + (self.last - self.first) * time / self.duration


@dataclass(frozen=True)
class Steps:
    """One rate after the other, each for the same time."""

    rates: tuple[float, ...]
    each: float

    def __post_init__(self) -> None:
        if not any(self.rates):
            raise ValueError("one of rates must be above 0")

    @property
    def duration(self) -> float:
        """See `Arrivals`."""
        return self.each * len(self.rates)

    def times(self, chance: random.Random) -> Iterator[float]:
        """See `Arrivals`."""
        return _thinned(self._rate, max(self.rates), self.duration, chance)

    def _rate(self, time: float) -> float:
        return self.rates[int(time / self.each)]


@dataclass(frozen=True)
class Burst:
    """A rate that jumps to its peak at the end of each period."""

    base: float
    peak: float
    every: float
    length: float
    duration: float

    def __post_init__(self) -> None:
        if self.base > self.peak:
            raise ValueError(f"base={self.base:g} must not exceed peak={self.peak:g}")
        if self.length > self.every:
            raise ValueError(f"length ({self.length:g} s) must not exceed every ({self.every:g} s)")

    def times(self, chance: random.Random) -> Iterator[float]:
        """See `Arrivals`."""
        return _thinned(self._rate, self.peak, self.duration, chance)

    def _rate(self, time: float) -> float:
        return self.peak if time % self.every >= self.every - self.length else self.base


_DAY = 86400.0


@dataclass(frozen=True)
class Day:
    """A sinusoid with a period of 24 hours that begins in its trough."""

    trough: float
    peak: float
    duration: float

    def __post_init__(self) -> None:
        if self.trough > self.peak:
            raise ValueError(f"trough={self.trough:g} must not exceed peak={self.peak:g}")

    def times(self, chance: random.Random) -> Iterator[float]:
        """See `Arrivals`."""
        return _thinned(self._rate, self.peak, self.duration, chance)

    def _rate(self, time: float) -> float:
        return self.trough + (self.peak - self.trough) * (1 - math.cos(2 * math.pi * time / _DAY)) / 2

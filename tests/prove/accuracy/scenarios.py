"""The fleets that are measured, and how far off they may be."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from tests.prove.accuracy.fleet import Replica, restless, rolled, steady
from tests.prove.accuracy.gateway import Balancing

RESTART = 1950.0
"""When Prometheus is stopped and started again."""
END = RESTART + 360
"""After the last window that was open when Prometheus was stopped."""

RANDOM: Balancing = "random"
ROUND_ROBIN: Balancing = "round robin"
_STEADY = "Steady fleets"
_TROUBLES = "Troubles"


@dataclass(frozen=True)
class Limits:
    """Largest allowed errors of the increase in 5 minutes, as shares of the truth; None: only reported."""

    median: float | None = None
    p99: float | None = None
    worst: float | None = None
    buckets: int | None = None
    """Largest allowed distance between the bucket that a quantile is said to be in and the true one."""


TIGHT = Limits(median=0.02, worst=0.10, buckets=1)
MANY = Limits(median=0.02, p99=0.10, buckets=1)
UNKNOWN = Limits()
"""Of what nobody could see: deaths while Prometheus is down, and replicas that the balancer hides."""


@dataclass(frozen=True)
class Scenario:
    """A fleet behind an address, scraped as an endpoint of at most `most` replicas is."""

    name: str
    section: str
    replicas: Sequence[Replica]
    most: int
    balancing: Balancing
    limits: Limits
    created: bool = True
    """Whether the replicas say when their counters were made."""
    slow: float = 0
    """Seconds that a scrape takes at most."""
    restarted: Limits | None = None
    """If it is measured once more around the restart: how far off it may be then."""

    @property
    def label(self) -> str:
        """Its job and path."""
        return self.name.replace(" ", "-").replace(",", "")


def waves() -> list[list[Scenario]]:
    """All of them in the report's order; those of a wave are measured at the same time."""
    return [
        [
            Scenario(
                f"{count} {balancing}",
                _STEADY,
                steady(count),
                count,
                balancing,
                TIGHT,
                restarted=TIGHT,
            )
            for balancing in (RANDOM, ROUND_ROBIN)
            for count in range(1, 9)
        ],
        [*_restless(), *_troubled()],
    ]


def _restless() -> Iterator[Scenario]:
    for most, limits in ((3, TIGHT), (8, MANY)):
        for balancing in (RANDOM, ROUND_ROBIN):
            for seed in (0, 1):
                yield Scenario(
                    f"1 to {most} {balancing}, {'ab'[seed]}",
                    "Births and deaths",
                    restless(most, seed, END, (90, 300)),
                    most,
                    balancing,
                    limits,
                    restarted=UNKNOWN,
                )


def _troubled() -> Iterator[Scenario]:
    # The second roll is under way when Prometheus is restarted.
    roll = rolled(3, 650, 280, ("model", "model-2", "model-3"))
    yield Scenario(
        "3 random, rolled to other model names", _TROUBLES, roll, 3, RANDOM, TIGHT, restarted=UNKNOWN
    )
    yield Scenario(
        "3 random, no birth time in the counters", _TROUBLES, steady(3, 5), 3, RANDOM, TIGHT, created=False
    )
    name = "3 random, scrapes take up to 4 s"
    yield Scenario(name, _TROUBLES, steady(3, 4), 3, RANDOM, TIGHT, slow=4)
    yield Scenario("3 sticky", _TROUBLES, steady(3, 6), 3, "sticky", UNKNOWN)

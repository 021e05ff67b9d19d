"""The bill: what exists, since when, and what it has cost in platform time."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

from sandbox.clock import Clock
from sandbox.interfaces import JsonObject, JsonValue

Unit = Literal["minute", "hour"]
_SECONDS: dict[Unit, int] = {"minute": 60, "hour": 3600}


@dataclass(frozen=True)
class Item:
    """Something that is billed per started `unit`; times are platform seconds."""

    kind: str
    id: str
    name: str
    eur_per_hour: float | None
    """None: the price is not known."""
    unit: Unit
    started: float
    owner: str
    """Id of the resource that causes the cost, e.g. the app of a replica."""
    ended: float | None = None

    def units(self, now: float) -> int:
        """Started units up to `now`, or up to its end."""
        seconds = (now if self.ended is None else self.ended) - self.started
        return max(1, math.ceil(seconds / _SECONDS[self.unit]))

    def cost(self, now: float) -> float | None:
        """EUR up to `now`."""
        if self.eur_per_hour is None:
            return None
        return self.units(now) * self.eur_per_hour * _SECONDS[self.unit] / 3600


class Ledger:
    """Collects the billed items of the project."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._items: list[Item] = []

    def open(
        self,
        kind: str,
        id_: str,
        name: str,
        eur_per_hour: float | None,
        unit: Unit = "hour",
        owner: str | None = None,
    ) -> None:
        """Starts to bill an item; `kind` and `id_` name it for `close`; it is its own owner by default."""
        now = self._clock.monotonic()
        self._items.append(Item(kind, id_, name, eur_per_hour, unit, now, owner or id_))

    def close(self, kind: str, id_: str) -> None:
        """Ends the bill of an item; one that is not billed is no error."""
        now = self._clock.monotonic()
        self._items = [
            replace(item, ended=now) if (item.kind, item.id, item.ended) == (kind, id_, None) else item
            for item in self._items
        ]

    def rate(self, owner: str) -> float | None:
        """EUR per hour that a resource costs now; None when a price is not known."""
        rates = [item.eur_per_hour for item in self._items if item.owner == owner and item.ended is None]
        known = [rate for rate in rates if rate is not None]
        return _rounded(sum(known)) if len(known) == len(rates) else None

    def json(self) -> JsonObject:
        """The bill so far."""
        now = self._clock.monotonic()
        items: list[JsonValue] = [
            {
                "kind": item.kind,
                "id": item.id,
                "name": item.name,
                "eurPerHour": item.eur_per_hour,
                "unit": item.unit,
                "units": item.units(now),
                "eur": _rounded(item.cost(now)),
                "running": item.ended is None,
            }
            for item in self._items
        ]
        costs = [item.cost(now) for item in self._items]
        running = [item.eur_per_hour for item in self._items if item.ended is None]
        return {
            "currency": "EUR",
            "total": _rounded(sum(cost for cost in costs if cost is not None)),
            "perHour": _rounded(sum(rate for rate in running if rate is not None)),
            "unpriced": sum(cost is None for cost in costs),
            "items": items,
        }


def _rounded(eur: float | None) -> float | None:
    return None if eur is None else round(eur, 4)

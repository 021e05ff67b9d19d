"""What the cloud costs in EUR without VAT: `prices.json` beside this module, each price with date and source.

`make prices` rewrites that file from OVHcloud's public catalogue (`price_catalogue.py`). A price that nobody
knows is None and never 0.
"""

from __future__ import annotations

import datetime
from functools import cache
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

FILE = Path(__file__).with_name("prices.json")
"""Where the prices are."""


class _Data(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, alias_generator=to_camel, populate_by_name=True)


class Price(_Data):
    """What one unit of something costs per hour: a GPU, an instance, a GiB."""

    eur_per_hour: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None
    """None: not known."""
    date: datetime.date
    """Of which day the price is, or the copy of it that was read."""
    source: str
    plan: str
    """Plan code in the public catalogue, whose prices are per minute where it says so."""


class Prices(_Data):
    """All of `prices.json`."""

    currency: Literal["EUR"]
    ai_deploy: dict[str, Price]
    """Units of the flavors of AI Deploy, while an app is SCALING or RUNNING; billed per started minute."""
    kubernetes: Price
    """A Managed Kubernetes cluster on the free plan, without its nodes."""
    instances: dict[str, Price]
    """Instance flavors, as nodes are; in regions with one availability zone."""
    volumes: dict[str, Price]
    """A GiB of the types of volumes."""
    load_balancers: dict[str, Price]
    gateway: Price
    """The gateway of size S that a load balancer's network gets."""
    floating_ip: Price

    def volume(self, type_: str) -> Price | None:
        """A GiB of volumes of a type; None when it is not in the file.

        An encrypted type (`-luks`) is taken to cost as much as the plain one: the catalogue has no other.
        """
        return self.volumes.get(type_.removesuffix("-luks"))


def has_one_zone(region: str) -> bool:
    """Whether a region of Managed Kubernetes has one availability zone, as GRA11, and so these prices.

    Those with three, such as EU-WEST-PAR, have prices of their own for all but AI Deploy.
    """
    return region[-1:].isdigit()


@cache
def prices() -> Prices:
    """The prices as the file has them."""
    return Prices.model_validate_json(FILE.read_text(encoding="utf-8"))


def flavor_eur_per_hour(flavor: str) -> float | None:
    """A unit (GPU or CPU) of a flavor of AI Deploy; None: not known."""
    price = prices().ai_deploy.get(flavor)
    return None if price is None else price.eur_per_hour

"""`make prices`: writes `prices.json` anew from OVHcloud's public catalogue.

The catalogue is `GET /order/catalog/public/cloud` and needs no credentials. Its prices are in units of 1e-8
EUR, per minute for AI Deploy and per hour for the rest. A plan code that it does not have, or for which it
has no single price, is named, and the old price stays with its date.
"""

from __future__ import annotations

import datetime
import json
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

import httpx
from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic.alias_generators import to_camel

from components.ai_deploy.credentials import CredentialsError, find_url
from components.prices import FILE, Price, Prices
from dashboards.page import files

_PATH = "/order/catalog/public/cloud"
_SUBSIDIARY = "FR"
"""Whose catalogue is read: the one of most regions here, with prices in EUR."""
_UNITS_PER_EUR = 10**8
_TIMEOUT = 60.0
"""Seconds to wait for an answer of some megabytes."""


class _Answer(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, frozen=True)


class _Pricing(_Answer):
    price: int
    type: str = ""
    capacities: tuple[str, ...] = ()
    interval_unit: str = "none"
    mode: str = "default"

    @property
    def is_consumption(self) -> bool:
        """Whether it is the ordinary price of use, and not of a month or a savings plan."""
        used = self.type == "consumption" or "consumption" in self.capacities
        return used and self.mode == "default" and self.interval_unit in ("none", "minute", "hour")


class _Addon(_Answer):
    plan_code: str
    pricings: tuple[_Pricing, ...] = ()


class _Locale(_Answer):
    currency_code: str


class Catalogue(_Answer):
    """What is read of the public catalogue (`order.catalog.public.Catalog`)."""

    locale: _Locale
    addons: tuple[_Addon, ...]


class CatalogueError(Exception):
    """The catalogue cannot be had or used; nothing was written."""


@dataclass(frozen=True)
class News:
    """What a catalogue says about the prices."""

    prices: Prices
    changed: tuple[str, ...]
    """`name: old -> new` of prices that are others than before."""
    kept: tuple[str, ...]
    """`name: why` of those that the catalogue does not tell."""
    read: int
    """How many it tells."""


def read(answer: bytes, address: str) -> Catalogue:
    """The catalogue of an answer; raises CatalogueError when it is none, or none in EUR."""
    try:
        catalogue = Catalogue.model_validate_json(answer)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        place = ".".join(str(part) for part in first["loc"])
        raise CatalogueError(f"{address} answers no catalogue: {place or 'JSON'}: {first['msg']}") from None
    currency = catalogue.locale.currency_code
    if currency != "EUR":
        raise CatalogueError(f"{address} has prices in {currency}: set OVH_ENDPOINT to ovh-eu")
    return catalogue


def news(prices: Prices, catalogue: Catalogue, source: str, today: datetime.date) -> News:
    """The prices as the catalogue has them, with `today` as date of those that it tells."""
    told = {addon.plan_code: addon.pricings for addon in catalogue.addons}
    changed: list[str] = []
    kept: list[str] = []
    taken: list[str] = []

    def renewed(name: str, old: Price) -> Price:
        new = _eur_per_hour(old, told.get(old.plan))
        if isinstance(new, str):
            since = f"the price of {old.date} stays" if old.eur_per_hour is not None else "no price is known"
            kept.append(f"{name}: {new}; {since}")
            return old
        taken.append(name)
        if new != old.eur_per_hour:
            changed.append(f"{name}: {number(old.eur_per_hour)} -> {number(new)}")
        return Price(eur_per_hour=new, date=today, source=source, plan=old.plan)

    found = {
        section: renewed(to_camel(section), value)
        if isinstance(value, Price)
        else {name: renewed(f"{to_camel(section)}.{name}", price) for name, price in value.items()}
        for section, value in _sections(prices)
    }
    return News(prices.model_copy(update=found), tuple(changed), tuple(kept), len(taken))


def _eur_per_hour(price: Price, pricings: tuple[_Pricing, ...] | None) -> float | str:
    """The price that a plan has, or why it has none."""
    if pricings is None:
        return f"{price.plan} is not in the catalogue"
    per_unit = {pricing.price for pricing in pricings if pricing.is_consumption}
    if len(per_unit) != 1:
        return f"{price.plan} has {len(per_unit) or 'no'} prices of consumption"
    units_per_hour = 60 if ".minute." in price.plan else 1
    eur = float(Decimal(per_unit.pop()) * units_per_hour / _UNITS_PER_EUR)
    # What is given away for a time, or listed before it is sold, would make a bill too small.
    if not eur and price.eur_per_hour != 0:
        return f"{price.plan} is 0 in the catalogue"
    return eur


def _sections(prices: Prices) -> Iterator[tuple[str, Price | Mapping[str, Price]]]:
    for section in type(prices).model_fields:
        if section != "currency":
            yield section, getattr(prices, section)


def render(prices: Prices) -> str:
    """The text of `prices.json`: one line for each price."""
    lines = [f'  "currency": "{prices.currency}"']
    for section, value in _sections(prices):
        if isinstance(value, Price):
            lines.append(f'  "{to_camel(section)}": {_line(value)}')
        else:
            inner = ",\n".join(f"    {json.dumps(name)}: {_line(price)}" for name, price in value.items())
            lines.append(f'  "{to_camel(section)}": {{\n{inner}\n  }}')
    return "{\n" + ",\n".join(lines) + "\n}\n"


def _line(price: Price) -> str:
    fields = price.model_dump(mode="json", by_alias=True, exclude={"eur_per_hour"})
    rest = json.dumps(fields, ensure_ascii=False)
    return f'{{"eurPerHour": {number(price.eur_per_hour)}, {rest.removeprefix("{")}'


def number(eur: float | None) -> str:
    """A price as JSON, without an exponent: a GiB costs less than 1e-4 EUR."""
    return "null" if eur is None else f"{Decimal(repr(eur)):f}"


def fetch(url: str) -> Catalogue:
    """Asks the API at the base URL `url`; raises CatalogueError."""
    address = f"{url}{_PATH}"
    try:
        response = httpx.get(address, params={"ovhSubsidiary": _SUBSIDIARY}, timeout=_TIMEOUT)
        response.raise_for_status()
    except httpx.HTTPStatusError as error:
        raise CatalogueError(f"{address} answers {error.response.status_code}") from None
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise CatalogueError(f"{address} cannot be reached: {error}") from None
    return read(response.content, address)


def main(file: Path = FILE) -> int:
    """Reads the catalogue where `OVH_ENDPOINT` (or an ovh.conf) says, and renews `file`."""
    try:
        url = find_url({})
        old = Prices.model_validate_json(file.read_text(encoding="utf-8"))
        found = news(
            old, fetch(url), f"public catalogue of {url}", datetime.datetime.now(datetime.UTC).date()
        )
        if not found.read:
            raise CatalogueError(f"{url}{_PATH} knows none of the plan codes in {file.name}")
        files.write(file, [render(found.prices)])
    except (CatalogueError, CredentialsError, OSError) as error:
        sys.stderr.write(f"{error}.\n{file.name} stays as it is.\n")
        return 1
    summary = (
        f"{file.name}: {found.read} prices read, {len(found.changed)} of them new, {len(found.kept)} kept."
    )
    for line in (*found.changed, *found.kept, summary):
        sys.stdout.write(f"{line}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""The prices: complete, with date and source, and renewed from the public catalogue or not at all."""

from __future__ import annotations

import datetime
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from components import price_catalogue
from components.flavors import FLAVORS
from components.price_catalogue import CatalogueError, main, news, read, render
from components.prices import FILE, Prices, flavor_eur_per_hour, prices
from tests.ai_deploy.servers import Answer, Server, serving

TODAY = datetime.date(2030, 1, 2)
H100 = "ai-app.h100-1-gpu.minute.consumption"
NODE = "b2-15.consumption"


def pricing(price: int, **more: Any) -> dict[str, Any]:
    """An entry of `pricings` as the public catalogue has them."""
    return {
        "price": price,
        "type": "consumption",
        "capacities": ["consumption"],
        "interval": 1,
        "intervalUnit": "none",
        "mode": "default",
        "strategy": "tiered",
        "tax": price // 5,
    } | more


def answer(addons: dict[str, list[dict[str, Any]]], currency: str = "EUR") -> bytes:
    """A catalogue with these plan codes and some that nobody asks for."""
    entries = [
        {"planCode": code, "product": "publiccloud", "pricings": pricings}
        for code, pricings in addons.items()
    ]
    other = {"planCode": "b2-15.monthly.postpaid", "pricings": [pricing(4620000000, intervalUnit="month")]}
    locale = {"currencyCode": currency, "subsidiary": "FR", "taxRate": 20}
    return json.dumps({"catalogId": 1, "locale": locale, "plans": [], "addons": [*entries, other]}).encode()


def all_plans(document: Any) -> Iterator[dict[str, Any]]:
    for value in document.values():
        if isinstance(value, dict):
            yield from [value] if "plan" in value else all_plans(value)


def whole_catalogue() -> bytes:
    """A catalogue in which everything costs what the file says."""
    document = json.loads(FILE.read_text())
    return answer(
        {
            price["plan"]: [
                pricing(round(price["eurPerHour"] * 1e8 / (60 if ".minute." in price["plan"] else 1)))
            ]
            for price in all_plans(document)
        }
    )


def told(addons: dict[str, list[dict[str, Any]]]) -> price_catalogue.News:
    return news(prices(), read(answer(addons), "here"), "the catalogue", TODAY)


def test_every_flavor_of_ai_deploy_has_a_price_or_says_that_it_has_none() -> None:
    assert prices().ai_deploy.keys() == FLAVORS.keys()


def test_every_price_has_date_source_and_a_plan_code_of_its_own() -> None:
    found = list(all_plans(json.loads(FILE.read_text())))
    assert all(price["date"] and price["source"] for price in found)
    codes = [price["plan"] for price in found]
    assert len(set(codes)) == len(codes) > 25


def test_only_the_cluster_costs_nothing() -> None:
    document = json.loads(FILE.read_text())
    assert [price["plan"] for price in all_plans(document) if price["eurPerHour"] == 0] == [
        "mks.free.hour.consumption"
    ]


def test_an_unknown_flavor_has_no_price() -> None:
    assert flavor_eur_per_hour("h100-1-gpu") == 3.1
    assert flavor_eur_per_hour("b300-1-gpu") is None


def test_the_file_is_written_as_it_is_rendered() -> None:
    """So that `make prices` changes the lines of other prices and dates, and no others."""
    assert render(prices()) == FILE.read_text()


def test_prices_are_per_minute_for_ai_deploy_and_per_hour_for_the_rest() -> None:
    found = told({H100: [pricing(5333333)], NODE: [pricing(13100000, intervalUnit="hour")]})
    h100, node = found.prices.ai_deploy["h100-1-gpu"], found.prices.instances["b2-15"]
    assert (h100.eur_per_hour, node.eur_per_hour) == (3.1999998, 0.131)
    assert (h100.date, h100.source, h100.plan) == (TODAY, "the catalogue", H100)
    assert found.changed == ("aiDeploy.h100-1-gpu: 3.1 -> 3.1999998", "instances.b2-15: 0.129 -> 0.131")
    assert found.read == 2


def test_a_price_that_is_the_same_is_confirmed_and_no_change() -> None:
    found = told({NODE: [pricing(12900000)]})
    assert found.changed == ()
    assert found.prices.instances["b2-15"].date == TODAY


@pytest.mark.parametrize(
    ("pricings", "why"),
    [
        (None, "is not in the catalogue"),
        ([], "has no prices of consumption"),
        ([pricing(4620000000, intervalUnit="month")], "has no prices of consumption"),
        ([pricing(9, type="rental", capacities=["renew"])], "has no prices of consumption"),
        ([pricing(12900000), pricing(13000000)], "has 2 prices of consumption"),
        ([pricing(0)], "is 0 in the catalogue"),
    ],
)
def test_what_the_catalogue_does_not_tell_is_named_and_keeps_price_and_date(
    pricings: list[dict[str, Any]] | None, why: str
) -> None:
    found = told({H100: [pricing(5166667)]} | ({} if pricings is None else {NODE: pricings}))
    old = prices().instances["b2-15"]
    assert found.prices.instances["b2-15"] == old
    assert f"instances.b2-15: {NODE} {why}; the price of {old.date} stays" in found.kept


def test_a_plan_by_month_and_by_hour_has_the_price_by_hour() -> None:
    found = told(
        {NODE: [pricing(4620000000, intervalUnit="month"), pricing(13000000), pricing(9, mode="saving")]}
    )
    assert found.prices.instances["b2-15"].eur_per_hour == 0.13


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"<html>", "answers no catalogue"),
        (b"{}", "answers no catalogue: locale: Field required"),
        (answer({}, currency="USD"), "has prices in USD: set OVH_ENDPOINT to ovh-eu"),
    ],
    ids=["HTML", "empty", "dollars"],
)
def test_an_answer_that_is_no_catalogue_in_euro_is_refused(body: bytes, said: str) -> None:
    with pytest.raises(CatalogueError, match=said):
        read(body, "here")


@contextmanager
def answering(monkeypatch: pytest.MonkeyPatch, status: int, body: bytes) -> Iterator[Server]:
    """An API that answers every request so, and is the one that the environment names from now on."""
    with serving(lambda _: Answer(status, body)) as server:
        monkeypatch.setenv("OVH_ENDPOINT", f"{server.url}/1.0")
        yield server


@pytest.fixture
def file(tmp_path: Path) -> Path:
    copy = tmp_path / "prices.json"
    copy.write_text(FILE.read_text())
    return copy


def test_prices_come_from_the_api_that_the_endpoint_names(
    file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    body = json.loads(whole_catalogue())
    (h100,) = (addon for addon in body["addons"] if addon["planCode"] == H100)
    h100["pricings"][0]["price"] = 6000000
    body["addons"] = [addon for addon in body["addons"] if addon["planCode"] != "gateway.s.hour.consumption"]
    with answering(monkeypatch, 200, json.dumps(body).encode()) as server:
        assert main(file) == 0
    asked = [request.path for request in server.requests]
    assert asked == ["/1.0/order/catalog/public/cloud?ovhSubsidiary=FR"]
    renewed = Prices.model_validate_json(file.read_text())
    h100_price = renewed.ai_deploy["h100-1-gpu"]
    assert (h100_price.eur_per_hour, h100_price.source) == (3.6, f"public catalogue of {server.url}/1.0")
    assert h100_price.date > prices().ai_deploy["h100-1-gpu"].date or h100_price.date == datetime.date.today()
    assert renewed.gateway == prices().gateway
    said = capsys.readouterr().out
    assert "aiDeploy.h100-1-gpu: 3.1 -> 3.6" in said
    assert (
        "gateway: gateway.s.hour.consumption is not in the catalogue; the price of 2026-01-28 stays" in said
    )
    assert file.read_text() == render(renewed)
    assert list(file.parent.iterdir()) == [file]


@pytest.mark.parametrize(
    ("status", "body", "said"),
    [
        (501, b"{}", "answers 501"),
        (200, whole_catalogue()[:1000], "answers no catalogue"),
        (200, answer({"something.else": [pricing(1)]}), "knows none of the plan codes"),
    ],
    ids=["501", "cut off", "nothing of ours"],
)
def test_what_cannot_be_used_changes_nothing(
    file: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    status: int,
    body: bytes,
    said: str,
) -> None:
    with answering(monkeypatch, status, body):
        assert main(file) == 1
    assert file.read_text() == FILE.read_text()
    error = capsys.readouterr().err
    assert said in error
    assert "prices.json stays as it is" in error


def test_without_a_network_the_file_stays(
    file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with answering(monkeypatch, 200, b""):
        pass
    assert main(file) == 1
    assert file.read_text() == FILE.read_text()
    assert "cannot be reached" in capsys.readouterr().err


def test_a_file_that_cannot_be_written_stays_and_is_named(
    file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(_: Path, target: Path) -> None:
        raise OSError(28, "No space left on device", str(target))

    monkeypatch.setattr(Path, "replace", full)
    with answering(monkeypatch, 200, whole_catalogue()):
        assert main(file) == 1
    assert f"No space left on device: '{file}'" in capsys.readouterr().err
    assert file.read_text() == FILE.read_text()
    assert list(file.parent.iterdir()) == [file]


def test_an_address_that_is_none_is_named(
    file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("OVH_ENDPOINT", "http://[::1")
    assert main(file) == 1
    assert "http://[::1" in capsys.readouterr().err

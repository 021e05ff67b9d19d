"""What a preview says about money: floor, ceiling, and what it does not know."""

from __future__ import annotations

import re
import runpy

import pytest

from components.bill import HOURS_PER_MONTH, Bill, bill
from components.prices import prices
from tests.components.mocks import Deployment, deploy, settings
from tests.components.stacks import CHECKOUT, SERVICE, configuration


def run(stack: str, *, preview: bool = False, **changes: str) -> Deployment:
    return deploy(
        lambda: runpy.run_path(str(CHECKOUT / "__main__.py"), run_name="__main__"),
        config=configuration(stack) | {"serviceName": SERVICE} | changes,
        stack=stack,
        preview=preview,
    )


def named(found: Bill, part: str) -> tuple[float, float] | None:
    (item,) = (item for item in found.items if part in item.name)
    return item.eur_per_hour


def test_prod_costs_what_its_parts_cost() -> None:
    found = bill(settings("prod"))
    assert [item.name for item in found.items] == [
        "1 to 3 replicas, h100-1-gpu",
        "cluster, free plan",
        "3 nodes, b2-15",
        "70 GiB of volumes, high-speed",
        "load balancer, small",
        "gateway, S",
        "floating IP, kept by destroy",
    ]
    besides = 3 * 0.129 + 70 * 0.000131 + 0.0083 + 0.0028 + 0.0025
    assert found.floor == pytest.approx(3.10 + besides, abs=1e-4)
    assert found.ceiling == pytest.approx(3 * 3.10 + besides, abs=1e-4)
    assert found.unpriced == ()


def test_a_stack_without_load_balancer_and_scaling_has_one_price() -> None:
    found = bill(settings("dev"))
    assert [item.name for item in found.items] == [
        "1 replica, l4-1-gpu",
        "cluster, free plan",
        "1 node, b2-15",
        "12 GiB of volumes, high-speed",
    ]
    assert found.floor == found.ceiling == pytest.approx(0.83 + 0.129 + 12 * 0.000131, abs=1e-4)


def test_every_gpu_of_a_replica_is_paid() -> None:
    found = bill(settings("prod", gpuCount="2", maxReplicas="2", gpuQuota="6"))
    assert found.items[0].name == "1 to 2 replicas, 2 x h100-1-gpu"
    assert found.items[0].eur_per_hour == pytest.approx((6.2, 12.4))


def test_a_minimum_of_0_is_not_taken_for_free() -> None:
    found = bill(settings("prod", minReplicas="0"))
    assert found.floor == bill(settings("prod")).floor
    assert "minReplicas 0 is counted as 1" in found.text()


@pytest.mark.parametrize(
    ("changes", "part"),
    [
        ({"nodeFlavor": "x9-15"}, "3 nodes, x9-15"),
        ({"storageClass": "gold"}, "70 GiB of volumes, gold"),
        ({"clusterRegion": "EU-WEST-PAR"}, "floating IP"),
    ],
)
def test_a_price_that_is_not_known_is_named_and_no_sum_is_given(changes: dict[str, str], part: str) -> None:
    """A number without it would look like the whole bill to whoever reads the outputs."""
    found = bill(settings("prod", **changes))
    assert named(found, part) is None
    assert (found.floor, found.ceiling) == (None, None)
    text = found.text()
    assert text.startswith("Costs more than ")
    assert re.search(r"^at least  ", text, flags=re.MULTILINE)
    assert not re.search(r"^sum ", text, flags=re.MULTILINE)
    assert f"{part}" in text.partition("No price is known for ")[2].partition(": all costs more")[0]
    assert re.search(rf"^{part}.*(  +unknown){{4}}$", text, flags=re.MULTILINE)


def test_a_flavor_without_a_price_is_not_free(monkeypatch: pytest.MonkeyPatch) -> None:
    unknown = prices().ai_deploy["h100-1-gpu"].model_copy(update={"eur_per_hour": None})
    monkeypatch.setitem(prices().ai_deploy, "h100-1-gpu", unknown)
    found = bill(settings("prod"))
    assert found.unpriced == ("1 to 3 replicas, h100-1-gpu",)
    assert found.ceiling is None
    assert "up to 1 replica." in found.text()


def test_a_stack_of_which_no_price_is_known_has_a_bill_that_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    known = prices().model_copy(update={"ai_deploy": {}})
    monkeypatch.setattr("components.bill.prices", lambda: known)
    found = bill(settings("prod", clusterRegion="EU-WEST-PAR"))
    assert len(found.unpriced) == len(found.items)
    assert "No price is known for" in found.text()


def test_an_encrypted_volume_costs_what_a_plain_one_does() -> None:
    plain = named(bill(settings("prod")), "volumes")
    assert named(bill(settings("prod", storageClass="csi-cinder-high-speed-luks")), "volumes") == plain


def test_what_updates_and_replacements_add_is_said_and_not_in_the_sums() -> None:
    text = bill(settings("prod")).text()
    assert "On top while an update rolls out: up to 1 replica (3.10 per hour)." in text
    assert "On top while a new app replaces this one: its replicas a second time." in text
    stopping = bill(settings("prod", containerUpdates="restart", deleteBeforeReplace="true"))
    assert "On top" not in stopping.text()
    eight = bill(settings("prod", maxReplicas="8", gpuQuota="8")).text()
    assert "up to 2 replicas (6.20 per hour)" in eight


def test_months_are_of_the_hours_that_are_named_and_columns_are_aligned() -> None:
    found = bill(settings("prod"))
    lines = found.text().splitlines()
    table = lines[1 : len(found.items) + 3]
    assert len({len(line) for line in table}) == 1
    assert table[0].split() == ["EUR", "min/h", "max/h", "min/month", "max/month"]
    assert found.floor is not None and found.ceiling is not None
    shown = [f"{found.floor:.4f}", f"{found.ceiling:.4f}"]
    shown += [f"{eur * HOURS_PER_MONTH:.2f}" for eur in (found.floor, found.ceiling)]
    assert table[-1].split() == ["sum", *shown]
    assert f"A month has {HOURS_PER_MONTH} hours" in lines[-1]


def test_the_first_line_says_it_all() -> None:
    """The engine shows no more than that while it works."""
    first = {stack: bill(settings(stack)).text().splitlines()[0] for stack in ("dev", "prod")}
    assert first == {
        "dev": "Costs 0.96 EUR per hour without VAT:",
        "prod": "Costs 3.51 to 9.71 EUR per hour without VAT:",
    }


@pytest.mark.parametrize("preview", [True, False], ids=["preview", "up"])
def test_the_program_prints_the_bill_once_and_exports_its_sums(preview: bool) -> None:
    expected = bill(settings("prod"))
    prod = run("prod", preview=preview)
    assert prod.said == [expected.text()]
    assert prod.outputs["cost_eur_per_hour_min"] == expected.floor
    assert prod.outputs["cost_eur_per_hour_max"] == expected.ceiling


def test_outputs_are_absent_while_a_price_is_not_known() -> None:
    prod = run("prod", nodeFlavor="x9-15")
    assert {"cost_eur_per_hour_min", "cost_eur_per_hour_max"}.isdisjoint(
        name for name, value in prod.outputs.items() if value is not None
    )
    assert "No price is known for 3 nodes, x9-15" in prod.said[0]

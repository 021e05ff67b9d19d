"""A real Alertmanager with our configuration: one message about one thing that is wrong, no cause hidden."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from components.alertmanager_config import config
from components.endpoint_monitoring import endpoint_target
from dashboards import bundle
from dashboards.rules import Alert
from tests.alertmanager import Alertmanager, running
from tests.components.mocks import RECEIVERS, settings

TARGET = endpoint_target(settings("prod"))
ALERTS = {
    rule.name: {**rule.labels, "alertname": rule.name, "severity": rule.severity, "id": rule.name}
    for group in bundle.groups(TARGET)
    for rule in group.rules
    if isinstance(rule, Alert)
}
"""The labels of every alert of the endpoint, by name, which is the label `id` as well."""
LESSER = {name for name, labels in ALERTS.items() if labels["severity"] != "critical"}
TARGET_DOWN = {"alertname": "TargetDown", "severity": "warning", "job": TARGET.job, "id": "TargetDown"}
"""The chart's alert on failing scrapes."""


@pytest.fixture
def alertmanager(tmp_path: Path) -> Iterator[Alertmanager]:
    with running(yaml.safe_dump(config(settings("prod", **RECEIVERS).alerts)), tmp_path) as found:
        yield found


@pytest.mark.parametrize("changes", [{}, RECEIVERS, RECEIVERS | {"alertRoutes": '{"info": ["email"]}'}])
def test_alertmanager_takes_the_configuration(changes: dict[str, str], tmp_path: Path) -> None:
    made = config(settings("prod", **changes).alerts)
    with running(yaml.safe_dump(made), tmp_path) as alertmanager:
        assert alertmanager.receivers() == {receiver["name"] for receiver in made["receivers"]}


def test_a_configuration_that_alertmanager_refuses_is_noticed(tmp_path: Path) -> None:
    made = config(settings("prod").alerts)
    made["route"]["receiver"] = "nobody"
    with pytest.raises(pytest.fail.Exception, match="nobody"), running(yaml.safe_dump(made), tmp_path):
        pass


def test_an_endpoint_that_does_not_answer_is_one_message_and_its_cause(alertmanager: Alertmanager) -> None:
    alertmanager.send(TARGET_DOWN, ALERTS["VllmScrapeDown"], *(ALERTS[name] for name in LESSER))
    others = {"VllmAppNotRunning", "VllmPrometheusDropsSamples", "VllmRulesFailing", "VllmRulesLate"}
    assert alertmanager.silent() == (LESSER | {"TargetDown"}) - others


def test_an_endpoint_that_does_not_answer_hides_nothing_critical_of_another_kind(
    alertmanager: Alertmanager,
) -> None:
    alertmanager.send(*(ALERTS[name] for name in ALERTS.keys() - LESSER - {"VllmTokenRejected"}))
    assert alertmanager.silent() == {"VllmAvailabilityBurnsFast"}  # which says the same once more


def test_an_endpoint_that_does_not_answer_hides_nothing_of_another_one(alertmanager: Alertmanager) -> None:
    lesser = [{**labels, "job": "another"} for labels in (TARGET_DOWN, *(ALERTS[name] for name in LESSER))]
    alertmanager.send(ALERTS["VllmScrapeDown"], *lesser)
    assert alertmanager.silent() == set()


def test_a_refused_token_is_one_message(alertmanager: Alertmanager) -> None:
    told = ("VllmTokenRejected", "VllmScrapeDown", "VllmPlatformStatusUnknown", "VllmAvailabilityBurnsFast")
    alertmanager.send(*(ALERTS[name] for name in told))
    assert alertmanager.silent() == set(told) - {"VllmTokenRejected"}


def test_a_budget_that_goes_on_burning_is_told_when_scrapes_are_answered_again(
    alertmanager: Alertmanager,
) -> None:
    alertmanager.send(ALERTS["VllmAvailabilityBurnsFast"], ALERTS["VllmScrapeFlapping"])
    assert alertmanager.silent() == set()


def test_the_page_of_one_objective_hides_its_ticket_and_no_other(alertmanager: Alertmanager) -> None:
    told = ("VllmSuccessBurnsFast", "VllmSuccessBurnsSlowly", "VllmAvailabilityBurnsSlowly")
    alertmanager.send(*(ALERTS[name] for name in told))
    assert alertmanager.silent() == {"VllmSuccessBurnsSlowly"}

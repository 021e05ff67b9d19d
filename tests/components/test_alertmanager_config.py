"""Who is told of which alert: nobody is forgotten, nobody told twice, nothing secret written down."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from components import alertmanager_config
from components.alertmanager_config import config, secrets
from components.endpoint_monitoring import endpoint_target
from components.settings import AlertSettings
from dashboards import bundle
from dashboards.rules import Alert
from tests.components.mocks import RECEIVER_SECRETS, RECEIVERS, settings

FILES = "/etc/alertmanager/secrets/alertmanager-receivers/"


def alerts(**changes: str) -> AlertSettings:
    return settings("prod", **changes).alerts


def receiver(name: str, **changes: str) -> dict[str, Any]:
    (found,) = (item for item in config(alerts(**changes))["receivers"] if item["name"] == name)
    return dict(found)


def told(**changes: str) -> dict[str, set[str]]:
    """Kinds of receivers by severity, along the routes."""
    made = config(alerts(**changes))
    receivers = {item["name"]: item for item in made["receivers"]}
    kinds = {}
    for route in made["route"]["routes"]:
        severity = re.fullmatch(r'severity = "(\w+)"', route["matchers"][0])
        if severity is not None:
            kinds[severity[1]] = receivers[route["receiver"]].keys() - {"name"}
    return kinds


EVERY = {"webhook_configs", "slack_configs", "pagerduty_configs", "email_configs"}


def test_without_receivers_nobody_is_told() -> None:
    made = config(alerts())
    assert made["receivers"] == [{"name": "null"}]
    assert made["route"]["receiver"] == "null"
    assert [route["receiver"] for route in made["route"]["routes"]] == ["null"]


def test_what_somebody_should_act_on_goes_to_every_receiver() -> None:
    assert told(**RECEIVERS) == {"critical": EVERY, "warning": EVERY}


def test_a_severity_that_the_routes_leave_out_keeps_its_receivers() -> None:
    routes = '{"critical": ["pagerduty", "slack"], "info": ["slack"]}'
    assert told(**RECEIVERS, alertRoutes=routes) == {
        "critical": {"pagerduty_configs", "slack_configs"},
        "warning": EVERY,
        "info": {"slack_configs"},
    }


def test_an_empty_list_is_nobody() -> None:
    assert told(**RECEIVERS, alertRoutes='{"warning": []}') == {"critical": EVERY}


def test_a_receiver_that_is_named_twice_is_told_once() -> None:
    made = receiver("warning", **RECEIVERS, alertRoutes='{"warning": ["slack", "slack"]}')
    assert len(made["slack_configs"]) == 1


def test_the_alert_that_always_fires_goes_nowhere() -> None:
    first, *_ = config(alerts(**RECEIVERS))["route"]["routes"]
    assert first == {"receiver": "null", "matchers": ['alertname = "Watchdog"']}


def test_alerts_on_what_lies_outside_of_the_cluster_are_not_one_heap() -> None:
    """Their series have no namespace, by which the chart groups."""
    assert config(alerts())["route"]["group_by"] == ["alertname", "job"]


def test_the_end_of_an_alert_is_told_as_well() -> None:
    for kind in EVERY:
        (settings_,) = receiver("critical", **RECEIVERS)[kind]
        assert settings_["send_resolved"] is True


def test_secrets_are_read_from_files() -> None:
    made = receiver("critical", **RECEIVERS)
    assert made["webhook_configs"][0]["url_file"] == f"{FILES}webhook-url"
    assert made["slack_configs"][0]["api_url_file"] == f"{FILES}slack-url"
    assert made["pagerduty_configs"][0]["routing_key_file"] == f"{FILES}pagerduty-key"
    assert made["email_configs"][0]["auth_password_file"] == f"{FILES}smtp-password"
    assert secrets(alerts(**RECEIVERS)) == RECEIVER_SECRETS
    text = json.dumps(config(alerts(**RECEIVERS)))
    assert not [value for value in RECEIVER_SECRETS.values() if value in text]


@pytest.mark.parametrize("kind", ["webhook", "slack", "pagerduty", "email"])
def test_every_file_that_is_read_is_there(kind: str) -> None:
    routes = json.dumps({"critical": [kind], "warning": []})
    text = json.dumps(config(alerts(**RECEIVERS, alertRoutes=routes)))
    named = set(re.findall(rf"{FILES}([\w-]+)", text))
    assert len(named) == 1
    assert named <= secrets(alerts(**RECEIVERS)).keys()


def test_mail_is_sent_as_the_settings_say() -> None:
    (mail,) = receiver("warning", **RECEIVERS)["email_configs"]
    assert (mail["to"], mail["from"]) == (RECEIVERS["alertEmailTo"], RECEIVERS["alertEmailFrom"])
    assert (mail["smarthost"], mail["auth_username"]) == ("smtp.example.com:587", "alerts")


def test_a_mail_server_that_asks_for_no_user_gets_none() -> None:
    changes = RECEIVERS | {"alertSmtpUser": "", "alertSmtpPassword": ""}
    (mail,) = receiver("warning", **changes)["email_configs"]
    assert not {"auth_username", "auth_password_file"} & mail.keys()


def test_slack_shows_what_is_wrong_and_where_to_read_on() -> None:
    (slack,) = receiver("warning", **RECEIVERS, alertSlackChannel="#alerts")["slack_configs"]
    assert slack["channel"] == "#alerts"
    for annotation in ("summary", "description", "runbook_url"):
        assert f".Annotations.{annotation} " in slack["text"]
    (slack,) = receiver("warning", **RECEIVERS)["slack_configs"]
    assert "channel" not in slack


def test_pager_duty_gets_a_severity_that_it_knows() -> None:
    (pager,) = receiver("critical", **RECEIVERS)["pagerduty_configs"]
    assert pager["severity"] == "critical"


def test_the_charts_own_inhibitions_are_kept() -> None:
    """A list of ours replaces all of the chart's."""
    rules = config(alerts())["inhibit_rules"]
    assert {"target_matchers": ["alertname = InfoInhibitor"]} in rules
    for source, target in (
        ("severity = critical", "severity =~ warning|info"),
        ("severity = warning", "severity = info"),
        ("alertname = InfoInhibitor", "severity = info"),
    ):
        (rule,) = (item for item in rules if item.get("source_matchers") == [source])
        assert rule["target_matchers"] == [target]
        assert "namespace" in rule["equal"]


def test_the_page_of_one_objective_does_not_hide_the_ticket_of_another() -> None:
    for rule in config(alerts())["inhibit_rules"]:
        if "severity = critical" in rule.get("source_matchers", []):
            assert {"job", "slo"} <= set(rule["equal"])


def test_alerts_that_silence_others_exist() -> None:
    groups = bundle.groups(endpoint_target(settings("prod")))
    names = {rule.name for group in groups for rule in group.rules if isinstance(rule, Alert)}
    patterns = set(re.findall(r"Vllm[\w.+]+", json.dumps(config(alerts())["inhibit_rules"])))
    assert patterns
    assert [one for one in patterns if not any(re.fullmatch(one, name) for name in names)] == []


def test_the_directory_is_the_one_of_the_secret() -> None:
    assert f"/etc/alertmanager/secrets/{alertmanager_config.RECEIVERS_SECRET}/" == FILES

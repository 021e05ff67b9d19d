"""Alertmanager takes the configuration that the chart makes, and finds in it who is told of what."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import pytest
import yaml

from components import alertmanager_config
from tests.alertmanager import MOUNTED, Alertmanager, files, leaves, running
from tests.chart.conftest import Render
from tests.chart.helm import Chart, decoded
from tests.chart.variants import SECRETS, VARIANTS

LITERAL = re.compile(r"(password|secret|token|key|credentials|api_url|webhook_url|^url)$")
"""Keys of Alertmanager's configuration that hold a secret, or an address that is one."""


@pytest.fixture
def firing(render: Render, tmp_path: Path) -> Iterator[Alertmanager]:
    """An Alertmanager with receivers for every severity."""
    with running(render("routes").alertmanager_config(), tmp_path) as alertmanager:
        yield alertmanager


@pytest.mark.parametrize("name", ["prod", "all-receivers", "routes", "one-receiver"])
def test_alertmanager_takes_the_configuration(render: Render, name: str, tmp_path: Path) -> None:
    config = render(name).alertmanager_config()
    with running(config, tmp_path) as alertmanager:
        receivers = alertmanager.receivers()
    assert receivers == {receiver["name"] for receiver in yaml.safe_load(config)["receivers"]}


@pytest.mark.parametrize("name", VARIANTS)
def test_files_with_secrets_are_mounted(render: Render, name: str) -> None:
    rendering = render(name)
    spec = rendering.one("Alertmanager", "monitoring-alertmanager")["spec"]
    made = {
        PurePosixPath(MOUNTED, alertmanager_config.RECEIVERS_SECRET, key)
        for key in alertmanager_config.secrets(VARIANTS[name].alerts)
    }
    assert files(yaml.safe_load(rendering.alertmanager_config())) <= made
    # A Secret that is named and does not exist keeps the pod from starting.
    assert spec.get("secrets", []) == ([alertmanager_config.RECEIVERS_SECRET] if made else [])


@pytest.mark.parametrize("name", VARIANTS)
def test_no_object_of_the_release_holds_a_secret(render: Render, name: str) -> None:
    """Values and manifests lie in the release's record, in clear."""
    rendering = render(name)
    text = json.dumps([*rendering.objects, *map(decoded, rendering.of("Secret")), VARIANTS[name].values()])
    assert [key for key, secret in SECRETS.items() if secret in text] == []
    config = yaml.safe_load(rendering.alertmanager_config())
    assert [key for key, _ in leaves(config) if LITERAL.search(key)] == []


def test_the_charts_own_inhibitions_are_kept(chart: Chart, render: Render) -> None:
    """The list of the values replaces the chart's, whatever a new version adds to it."""
    values = VARIANTS["prod"].values()
    del values["alertmanager"]["config"]
    default = yaml.safe_load(chart.render(values, VARIANTS["prod"].kubernetes).alertmanager_config())
    ours = yaml.safe_load(render("prod").alertmanager_config())["inhibit_rules"]
    sides = ("source_matchers", "target_matchers")
    for theirs in default["inhibit_rules"]:
        (rule,) = (rule for rule in ours if all(rule.get(side) == theirs.get(side) for side in sides))
        assert set(theirs.get("equal", [])) <= set(rule.get("equal", []))


def test_every_alert_of_the_chart_has_a_receiver(firing: Alertmanager, render: Render) -> None:
    wanted = {}
    sent = []
    for group in render("routes").groups():
        for rule in (rule for rule in group["rules"] if "alert" in rule):
            severity = rule["labels"]["severity"]
            labels = {"alertname": rule["alert"], "severity": severity, "id": f"{rule['alert']}-{severity}"}
            sent.append(labels)
            wanted[labels["id"]] = [severity if severity != "none" else "null"]
    firing.send(*sent)
    found = {
        key: [receiver["name"] for receiver in alert["receivers"]] for key, alert in firing.alerts().items()
    }
    assert found == wanted
    assert found["Watchdog-none"] == found["InfoInhibitor-none"] == ["null"]


def test_a_warning_is_silent_while_the_same_alert_is_critical(firing: Alertmanager) -> None:
    same = {"alertname": "NodeFilesystemAlmostOutOfSpace", "namespace": "monitoring", "job": "node-exporter"}
    firing.send(
        {**same, "severity": "critical", "id": "critical"},
        {**same, "severity": "warning", "id": "warning"},
        {**same, "severity": "warning", "id": "elsewhere", "namespace": "other"},
    )
    assert firing.silent() == {"warning"}


def test_what_the_chart_calls_info_waits_for_something_worse(firing: Alertmanager) -> None:
    firing.send(
        {"alertname": "CPUThrottlingHigh", "severity": "info", "namespace": "a", "id": "alone"},
        {"alertname": "InfoInhibitor", "severity": "none", "namespace": "a", "id": "inhibitor"},
        {"alertname": "CPUThrottlingHigh", "severity": "info", "namespace": "b", "id": "heard"},
    )
    assert firing.silent() == {"alone", "inhibitor"}

"""Alertmanager takes the configuration that the chart makes, and finds in it who is told of what."""

from __future__ import annotations

import base64
import contextlib
import json
import re
import subprocess
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

import pytest
import yaml

from components import alertmanager_config
from sandbox.toolchain.chain import installed
from sandbox.toolchain.progress import UnavailableError
from sandbox.toolchain.tools import ALERTMANAGER
from tests.chart.conftest import Render
from tests.chart.helm import Chart, Rendering, decoded
from tests.chart.variants import SECRETS, VARIANTS

MOUNTED = "/etc/alertmanager/secrets"
"""Where the operator mounts the Secrets that the Alertmanager resource names."""
LITERAL = re.compile(r"(password|secret|token|key|credentials|api_url|webhook_url|^url)$")
"""Keys of Alertmanager's configuration that hold a secret, or an address that is one."""


def leaves(value: Any, key: str = "") -> Iterator[tuple[str, str]]:
    """Texts of a document with the keys they stand under."""
    match value:
        case dict():
            for name, item in value.items():
                yield from leaves(item, name)
        case list():
            for item in value:
                yield from leaves(item, key)
        case _:
            yield key, str(value)


def files(config: Any) -> set[PurePosixPath]:
    """The files that a configuration reads secrets from."""
    return {PurePosixPath(text) for key, text in leaves(config) if key.endswith("_file")}


@contextlib.contextmanager
def running(binary: Path, rendering: Rendering, directory: Path) -> Iterator[str]:
    """An Alertmanager that has loaded the configuration, with the files it names; its address."""
    secrets, config = directory / "secrets", rendering.alertmanager_config()
    for path in files(yaml.safe_load(config)):
        file = secrets / path.relative_to(MOUNTED)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("http://127.0.0.1:9/nobody")
    file = directory / "alertmanager.yaml"
    file.write_text(config.replace(MOUNTED, str(secrets)))
    process = subprocess.Popen(
        [
            binary,
            f"--config.file={file}",
            f"--storage.path={directory}/data",
            "--web.listen-address=127.0.0.1:0",
            "--cluster.listen-address=",
        ],
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    try:
        said = ""
        for line in process.stderr:  # it ends when the configuration is refused
            said += line
            if "Listening on" in line:
                (address,) = re.findall(r"address=(\S+)", line)
                break
        else:
            pytest.fail(f"Alertmanager refuses the configuration:\n{said}")
        yield f"http://{address}"
    finally:
        process.terminate()
        process.communicate()


def get(url: str) -> Any:
    """A JSON answer."""
    with urllib.request.urlopen(url, timeout=10) as answer:
        return json.load(answer)


@pytest.fixture(scope="module")
def binary() -> Path:
    """The Alertmanager of this machine."""
    try:
        return Path(installed(ALERTMANAGER).binaries["alertmanager"])
    except UnavailableError as error:
        pytest.skip(f"Alertmanager is not there yet (make sandbox gets it): {error}")


class Firing:
    """An Alertmanager that alerts are sent to."""

    def __init__(self, url: str) -> None:
        self._url = url

    def send(self, *alerts: Mapping[str, str]) -> None:
        """Makes alerts with these labels fire."""
        body = json.dumps([{"labels": labels} for labels in alerts]).encode()
        request = urllib.request.Request(
            f"{self._url}/api/v2/alerts", body, {"Content-Type": "application/json"}
        )
        urllib.request.urlopen(request, timeout=10).close()

    def alerts(self) -> dict[str, Any]:
        """What fires, by label `id`."""
        return {alert["labels"]["id"]: alert for alert in get(f"{self._url}/api/v2/alerts")}


@pytest.fixture
def firing(binary: Path, render: Render, tmp_path: Path) -> Iterator[Firing]:
    """An Alertmanager with receivers for every severity."""
    with running(binary, render("routes"), tmp_path) as url:
        yield Firing(url)


@pytest.mark.parametrize("name", ["prod", "all-receivers", "routes", "one-receiver"])
def test_alertmanager_takes_the_configuration(
    binary: Path, render: Render, name: str, tmp_path: Path
) -> None:
    with running(binary, render(name), tmp_path) as url:
        receivers = {receiver["name"] for receiver in get(f"{url}/api/v2/receivers")}
    wanted = yaml.safe_load(render(name).alertmanager_config())["receivers"]
    assert receivers == {receiver["name"] for receiver in wanted}


def test_a_configuration_that_alertmanager_refuses_is_noticed(
    binary: Path, render: Render, tmp_path: Path
) -> None:
    secret = render("prod").one("Secret", "alertmanager-monitoring-alertmanager")
    config = yaml.safe_load(decoded(secret)["alertmanager.yaml"])
    config["route"]["receiver"] = "nobody"
    broken = {
        **secret,
        "data": {"alertmanager.yaml": base64.b64encode(yaml.safe_dump(config).encode()).decode()},
    }
    with pytest.raises(pytest.fail.Exception, match="nobody"), running(binary, Rendering([broken]), tmp_path):
        pass


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


def test_every_alert_of_the_chart_has_a_receiver(firing: Firing, render: Render) -> None:
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


def test_a_warning_is_silent_while_the_same_alert_is_critical(firing: Firing) -> None:
    same = {"alertname": "NodeFilesystemAlmostOutOfSpace", "namespace": "monitoring", "job": "node-exporter"}
    firing.send(
        {**same, "severity": "critical", "id": "critical"},
        {**same, "severity": "warning", "id": "warning"},
        {**same, "severity": "warning", "id": "elsewhere", "namespace": "other"},
    )
    silent = {key for key, alert in firing.alerts().items() if alert["status"]["inhibitedBy"]}
    assert silent == {"warning"}


def test_the_page_of_one_objective_hides_its_ticket_and_no_other(firing: Firing) -> None:
    fast = {"alertname": "VllmBudgetBurnsFast", "job": "vllm-ministral", "severity": "critical"}
    slow = {"alertname": "VllmBudgetBurnsSlowly", "job": "vllm-ministral", "severity": "warning"}
    firing.send(
        {**fast, "slo": "success", "id": "page"},
        {**slow, "slo": "success", "id": "ticket"},
        {**slow, "slo": "availability", "id": "other"},
    )
    silent = {key for key, alert in firing.alerts().items() if alert["status"]["inhibitedBy"]}
    assert silent == {"ticket"}


def test_what_the_chart_calls_info_waits_for_something_worse(firing: Firing) -> None:
    firing.send(
        {"alertname": "CPUThrottlingHigh", "severity": "info", "namespace": "a", "id": "alone"},
        {"alertname": "InfoInhibitor", "severity": "none", "namespace": "a", "id": "inhibitor"},
        {"alertname": "CPUThrottlingHigh", "severity": "info", "namespace": "b", "id": "heard"},
    )
    silent = {key for key, alert in firing.alerts().items() if alert["status"]["inhibitedBy"]}
    assert silent == {"alone", "inhibitor"}

"""An alert travels from a rule in the cluster to the receiver of the settings, and so does its end."""

from __future__ import annotations

import base64
import json
import stat
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx
import pytest

from tests.engine.cluster import kubernetes_client
from tests.engine.conftest import Deployment
from tests.waiting import until

pytestmark = pytest.mark.timeout(600)

NAMESPACE = "/api/v1/namespaces/monitoring"
CONFIGURATION = f"{NAMESPACE}/secrets/alertmanager-monitoring-alertmanager"
RULES = "/apis/monitoring.coreos.com/v1/namespaces/monitoring/prometheusrules"
MERGE = {"Content-Type": "application/merge-patch+json"}
PATIENCE = 240
"""Seconds. What Prometheus cannot deliver while it loads a configuration, it sends again a minute later."""


@dataclass
class Inbox:
    """What a webhook has been sent."""

    path: str
    messages: list[dict[str, Any]] = field(default_factory=list)

    def alerts(self, status: str) -> list[dict[str, Any]]:
        """The alerts of that status, in the order of their arrival."""
        return [
            alert for message in self.messages for alert in message["alerts"] if alert["status"] == status
        ]


@contextmanager
def webhook(inbox: Inbox) -> Iterator[str]:
    """A server whose address is as secret as that of a chat's webhook."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            known = self.path == inbox.path
            if known:
                inbox.messages.append(body)
            self.send_response(200 if known else 404)
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:
            """Says nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}{inbox.path}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture(scope="module")
def kubernetes(deployment: Deployment, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    kubeconfig = deployment.engine.outputs("sandbox")["kubeconfig"]
    with kubernetes_client(kubeconfig, tmp_path_factory.mktemp("kubernetes")) as client:
        yield client


@pytest.fixture(scope="module")
def inbox(deployment: Deployment, kubernetes: httpx.Client) -> Iterator[Inbox]:
    """The receiver that the stack's settings name; groups wait a second here, not minutes."""
    engine, inbox = deployment.engine, Inbox("/hook/canary-webhook")
    with webhook(inbox) as address:
        engine.capture("config", "set", "-s", "sandbox", "--secret", "alertWebhookUrl", address)
        try:
            engine.capture("up", "-s", "sandbox", "--yes", "--skip-preview")
            with quickly(deployment, kubernetes):
                yield inbox
        finally:
            engine.capture("config", "rm", "-s", "sandbox", "alertWebhookUrl")
            engine.capture("up", "-s", "sandbox", "--yes", "--skip-preview")


@contextmanager
def quickly(deployment: Deployment, kubernetes: httpx.Client) -> Iterator[None]:
    """Has Alertmanager wait for seconds where the configuration says minutes."""
    given = kubernetes.get(CONFIGURATION).raise_for_status().json()["data"]["alertmanager.yaml"]
    config = base64.b64decode(given).decode()
    quick = config.replace("group_wait: 30s", "group_wait: 1s")
    quick = quick.replace("group_interval: 5m", "group_interval: 1s")
    assert quick != config
    patch(kubernetes, CONFIGURATION, {"data": {"alertmanager.yaml": encoded(quick)}})
    try:
        loaded(deployment, "group_interval: 1s")
        yield
    finally:
        patch(kubernetes, CONFIGURATION, {"data": {"alertmanager.yaml": given}})


def encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def patch(kubernetes: httpx.Client, path: str, change: dict[str, Any]) -> None:
    kubernetes.patch(path, json=change, headers=MERGE).raise_for_status()


def loaded(deployment: Deployment, text: str) -> None:
    """Waits until Alertmanager runs with a configuration that holds the text."""
    url = f"{deployment.sandbox.addresses()[0].alertmanager}/api/v2/status"
    until(lambda: text in httpx.get(url).raise_for_status().json()["config"]["original"], text)


def rule(expression: str, severity: str) -> dict[str, Any]:
    """A PrometheusRule with one alert, without any label that the chart would select by."""
    alert = {
        "alert": "SomethingIsWrong",
        "expr": expression,
        "labels": {"severity": severity, "job": "vllm-ministral"},
        "annotations": {"summary": "something is wrong"},
    }
    return {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PrometheusRule",
        "metadata": {"name": "trial", "namespace": "monitoring"},
        "spec": {"groups": [{"name": "trial", "interval": "1s", "rules": [alert]}]},
    }


def test_an_alert_and_its_end_reach_the_webhook_of_the_settings(
    kubernetes: httpx.Client, inbox: Inbox
) -> None:
    kubernetes.post(RULES, json=rule("vector(1)", "critical")).raise_for_status()
    try:
        until(lambda: inbox.alerts("firing"), "the alert at the webhook", PATIENCE)
        # An expression that is never true: the same alert, resolved.
        patch(kubernetes, f"{RULES}/trial", {"spec": rule("vector(1) < 0", "critical")["spec"]})
        until(lambda: inbox.alerts("resolved"), "its end at the webhook", PATIENCE)
    finally:
        kubernetes.delete(f"{RULES}/trial").raise_for_status()
    [name] = {alert["labels"]["alertname"] for alert in inbox.alerts("firing")}
    assert name == "SomethingIsWrong"
    assert inbox.alerts("resolved")[0]["fingerprint"] == inbox.alerts("firing")[0]["fingerprint"]


def test_the_watchdog_fires_and_bothers_nobody(deployment: Deployment, inbox: Inbox) -> None:
    address = deployment.sandbox.addresses()[0].alertmanager

    def receivers() -> list[str]:
        alerts = httpx.get(f"{address}/api/v2/alerts").raise_for_status().json()
        watchdogs = [alert for alert in alerts if alert["labels"]["alertname"] == "Watchdog"]
        return [receiver["name"] for alert in watchdogs for receiver in alert["receivers"]]

    # It fires from the start on, but the chart's rules are evaluated in their own time.
    until(receivers, "the watchdog", 90)
    assert receivers() == ["null"]
    assert not [alert for alert in inbox.alerts("firing") if alert["labels"]["alertname"] == "Watchdog"]


def test_the_receivers_address_is_in_a_mounted_file_and_nowhere_else(
    deployment: Deployment, kubernetes: httpx.Client, inbox: Inbox
) -> None:
    root = deployment.sandbox.folder.root
    [file] = root.glob("clusters/*/alertmanager-*/current/**/webhook-url")
    assert file.read_text().endswith(inbox.path)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600

    secrets = kubernetes.get(f"{NAMESPACE}/secrets").raise_for_status().json()["items"]
    holders = {
        item["metadata"]["name"]
        for item in secrets
        for value in item.get("data", {}).values()
        if inbox.path.encode() in base64.b64decode(value)
    }
    assert holders == {"alertmanager-receivers"}
    exported = deployment.engine.capture("stack", "export", "-s", "sandbox")
    inside = base64.b64encode(file.read_bytes()).decode()
    assert inbox.path not in exported
    assert inside not in exported
    url = f"{deployment.sandbox.addresses()[0].alertmanager}/api/v2/status"
    assert inbox.path not in httpx.get(url).text

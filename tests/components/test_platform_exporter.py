"""The exporter tells what the platform says, and its token to the platform alone."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import pulumi
import pulumi_kubernetes as kubernetes
import pytest

from components.platform_exporter import PlatformExporter, exporter_config
from tests.components import mocks
from tests.components.mocks import Deployment, deploy

IMAGE = "json-exporter:v0.7.0"


@pytest.fixture(scope="module")
def made() -> Deployment:
    def program() -> None:
        provider = kubernetes.Provider("kubernetes")
        token = kubernetes.core.v1.Secret(
            "token", metadata={"name": "vllm-auth-token"}, opts=pulumi.ResourceOptions(provider=provider)
        )
        PlatformExporter(
            "exporter",
            namespace="monitoring",
            image=IMAGE,
            token=token,
            opts=pulumi.ResourceOptions(provider=provider),
        )

    return deploy(program)


@pytest.fixture(scope="module")
def pod(made: Deployment) -> dict[str, Any]:
    return dict(made.one(mocks.DEPLOYMENT).inputs["spec"]["template"])


def module() -> dict[str, Any]:
    return dict(json.loads(exporter_config())["modules"]["app"])


def test_a_rejected_token_is_told_from_an_api_that_is_down() -> None:
    """The exporter answers 503 for a status that is not listed: the scrape would fail in both cases."""
    assert module()["valid_status_codes"] == [200, 401, 403]


def test_the_token_goes_where_it_is_sent_and_no_further() -> None:
    client = module()["http_client_config"]
    assert client["follow_redirects"] is False
    assert client["authorization"] == {
        "type": "Bearer",
        "credentials_file": "/etc/ai-deploy-exporter/token/token",
    }


def test_the_metrics_are_gauges_of_the_status() -> None:
    metrics = {
        f"{metric['name']}_{suffix}": (value, metric.get("labels", {}))
        for metric in module()["metrics"]
        for suffix, value in metric["values"].items()
    }
    assert metrics == {
        "ai_deploy_app_available_replicas": ("{.availableReplicas}", {}),
        "ai_deploy_app_state": ("1", {"state": "{.state}"}),
    }
    # The whole app, with its environment variables, would be logged when something is missing in it.
    assert {metric["path"] for metric in module()["metrics"]} == {"{.status}"}
    # Any other spelling is ignored.
    assert {metric["valuetype"] for metric in module()["metrics"]} == {"gauge"}


def test_the_pod_reads_its_configuration_and_the_token_from_files(
    made: Deployment, pod: dict[str, Any]
) -> None:
    (container,) = pod["spec"]["containers"]
    assert container["image"] == IMAGE
    config = made.one(mocks.CONFIG_MAP).inputs
    volumes = {item["name"]: item for item in pod["spec"]["volumes"]}
    mounts = {item["name"]: item["mountPath"] for item in container["volumeMounts"]}
    assert volumes["config"]["configMap"]["name"] == config["metadata"]["name"]
    assert container["args"] == [f"--config.file={mounts['config']}/config.yml"]
    assert config["data"] == {"config.yml": exporter_config()}
    assert volumes["token"]["secret"]["secretName"] == "vllm-auth-token"
    credentials = module()["http_client_config"]["authorization"]["credentials_file"]
    assert credentials == f"{mounts['token']}/token"


def test_a_changed_configuration_restarts_the_pod(pod: dict[str, Any]) -> None:
    digest = hashlib.sha256(exporter_config().encode()).hexdigest()
    assert pod["metadata"]["annotations"] == {"checksum/config": digest}


def test_the_pod_starts_when_what_it_mounts_is_there(made: Deployment) -> None:
    """A pod that waits for a Secret costs the update ten minutes before it fails."""
    needs = made.one(mocks.DEPLOYMENT).needs
    assert {made.one(mocks.SECRET_OBJECT).urn, made.one(mocks.CONFIG_MAP).urn} <= needs


def test_the_pod_does_not_run_before_others_are_kept_from_it(made: Deployment) -> None:
    """Whoever reaches it has the token sent to an address of theirs."""
    assert made.one(mocks.NETWORK_POLICY).urn in made.one(mocks.DEPLOYMENT).needs


def test_the_pod_may_nothing(pod: dict[str, Any]) -> None:
    specification = pod["spec"]
    (container,) = specification["containers"]
    assert specification["automountServiceAccountToken"] is False
    assert specification["securityContext"]["runAsNonRoot"] is True
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    # Mounted for its group: the user is not root.
    assert specification["securityContext"]["fsGroup"] == specification["securityContext"]["runAsGroup"]


def test_prometheus_and_nobody_else_may_ask(made: Deployment, pod: dict[str, Any]) -> None:
    """The exporter sends its token to whatever address a caller names."""
    labels = pod["metadata"]["labels"]
    policy = made.one(mocks.NETWORK_POLICY).inputs["spec"]
    assert policy["podSelector"] == {"matchLabels": labels}
    assert policy["policyTypes"] == ["Ingress"]
    (rule,) = policy["ingress"]
    assert rule["from"] == [{"podSelector": {"matchLabels": {"app.kubernetes.io/name": "prometheus"}}}]
    assert [port["port"] for port in rule["ports"]] == [7979]


def test_the_service_leads_to_the_pod(made: Deployment, pod: dict[str, Any]) -> None:
    service = made.one(mocks.SERVICE_OBJECT).inputs
    (container,) = pod["spec"]["containers"]
    assert service["metadata"]["name"] == "ai-deploy-exporter"
    assert service["spec"]["selector"] == pod["metadata"]["labels"]
    (port,) = service["spec"]["ports"]
    assert (port["port"], port["targetPort"]) == (7979, "http")
    assert container["ports"] == [{"name": "http", "containerPort": 7979}]

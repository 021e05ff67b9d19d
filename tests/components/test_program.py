"""The program as the engine runs it, with each of the tracked stacks."""

from __future__ import annotations

import base64
import runpy

import pytest

from components import unknowns
from tests.components import mocks
from tests.components.mocks import AI, Deployment, Secret, deploy
from tests.components.stacks import CHECKOUT, SERVICE, configuration

STACKS = ("dev", "prod", "sandbox")
OUTPUTS = {
    "endpoint_url",
    "openai_base_url",
    "model",
    "app_id",
    "client_token",
    "platform_dashboard_url",
    "cluster_id",
    "kubeconfig",
    "grafana_url",
    "grafana_dashboard_url",
    "grafana_admin_password",
    "prometheus_url",
    "cost_eur_per_hour_min",
    "cost_eur_per_hour_max",
}
SECRET_OUTPUTS = {
    "client_token": Secret(mocks.CLIENT_TOKEN),
    "kubeconfig": Secret(mocks.KUBECONFIG),
    "grafana_admin_password": Secret(mocks.GRAFANA_PASSWORD),
}


def run(stack: str, *, failing: str = "", preview: bool = False) -> Deployment:
    """Runs the program with what `pulumi config` shows for the stack, with secrets and receivers."""
    return deploy(
        lambda: runpy.run_path(str(CHECKOUT / "__main__.py"), run_name="__main__"),
        config=configuration(stack)
        | mocks.RECEIVERS
        | {"serviceName": SERVICE, "huggingFaceToken": mocks.HUGGING_FACE_TOKEN},
        secrets=["huggingFaceToken", *mocks.RECEIVER_KEYS],
        stack=stack,
        failing={failing},
        preview=preview,
    )


@pytest.fixture(scope="module")
def deployments() -> dict[str, Deployment]:
    return {stack: run(stack) for stack in STACKS}


@pytest.mark.parametrize("stack", STACKS)
def test_every_stack_has_every_output(deployments: dict[str, Deployment], stack: str) -> None:
    outputs = deployments[stack].outputs
    reserved = {"grafana_reserved_address"} if stack != "dev" else set()
    assert outputs.keys() == OUTPUTS | reserved
    assert all(outputs.values())


@pytest.mark.parametrize("stack", STACKS)
def test_outputs_that_hold_a_secret_are_secrets_and_the_others_are_not(
    deployments: dict[str, Deployment], stack: str
) -> None:
    outputs = deployments[stack].outputs
    assert {name: value for name, value in outputs.items() if isinstance(value, Secret)} == SECRET_OUTPUTS


@pytest.mark.parametrize("stack", STACKS)
def test_no_secret_is_plain_anywhere(deployments: dict[str, Deployment], stack: str) -> None:
    deployment = deployments[stack]
    texts = [text for item in deployment.resources for text in mocks.plain(item.inputs)]
    texts += [*mocks.plain(deployment.outputs), *deployment.warnings]
    spellings = [*mocks.SECRETS, *(base64.b64encode(secret.encode()).decode() for secret in mocks.SECRETS)]
    assert not [text for text in texts for spelling in spellings if spelling in text]


def test_the_project_id_comes_from_the_environment_when_the_stack_has_none(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OVH_CLOUD_PROJECT_SERVICE", SERVICE)
    deployment = deploy(
        lambda: runpy.run_path(str(CHECKOUT / "__main__.py"), run_name="__main__"),
        config=configuration("dev"),
        stack="dev",
    )
    assert deployment.one(mocks.KUBE).inputs["serviceName"] == SERVICE
    assert deployment.one(f"{AI}:App").inputs["service_name"] == SERVICE


def test_prod_is_protected_and_dev_is_not(deployments: dict[str, Deployment]) -> None:
    def protected(stack: str) -> set[str]:
        return {item.type for item in deployments[stack].resources if item.protect}

    assert protected("prod") == {f"{AI}:App", mocks.KUBE}
    assert protected("dev") == protected("sandbox") == set()


def test_prod_keeps_its_reserved_address(deployments: dict[str, Deployment]) -> None:
    assert deployments["prod"].one(mocks.FLOATING_IP).retain_on_delete
    assert deployments["prod"].outputs["grafana_reserved_address"] == mocks.GRAFANA_ADDRESS
    assert not deployments["sandbox"].one(mocks.FLOATING_IP).retain_on_delete


def test_every_series_tells_its_environment(deployments: dict[str, Deployment]) -> None:
    environments = {
        stack: {
            scrape.inputs["spec"]["staticConfigs"][0]["labels"]["environment"]
            for scrape in deployment.of(mocks.SCRAPE_CONFIG)
        }
        for stack, deployment in deployments.items()
    }
    assert environments == {"dev": {"development"}, "prod": {"production"}, "sandbox": {"sandbox"}}


def test_prometheus_scrapes_what_the_gate_let_through_with_its_own_token(
    deployments: dict[str, Deployment],
) -> None:
    prod = deployments["prod"]
    scrape = prod.named(mocks.SCRAPE_CONFIG, "vllm-ministral-0")
    assert scrape.inputs["spec"]["staticConfigs"][0]["targets"] == [mocks.ENDPOINT.removeprefix("https://")]
    platform = prod.named(mocks.SCRAPE_CONFIG, "vllm-ministral-platform")
    app = prod.outputs["app_id"]
    assert platform.inputs["spec"]["params"]["target"] == [f"https://gra.ai.cloud.ovh.net/v1/app/{app}"]
    # A target of the app itself would move Prometheus to a replacement that does not serve yet.
    for item in prod.of(mocks.SCRAPE_CONFIG):
        assert prod.one(f"{AI}:Readiness").urn in item.needs
        assert prod.one(f"{AI}:App").urn not in item.needs
    token = prod.named(mocks.SECRET_OBJECT, "vllm-auth-token").inputs["data"]
    assert token == Secret({"token": base64.b64encode(mocks.SCRAPER_TOKEN.encode()).decode()})


def kinds(deployment: Deployment) -> set[str]:
    return {resource.type for resource in deployment.skipped}


@pytest.mark.parametrize("stack", STACKS)
def test_monitoring_waits_for_no_gpu(stack: str) -> None:
    """A refused app or a gate that fails costs the scrapes and their rules, and nothing else."""
    watching = {mocks.SCRAPE_CONFIG, mocks.PROMETHEUS_RULE}
    gate = {f"{AI}:Readiness", f"{AI}:Verdict"}
    assert kinds(run(stack, failing=f"{AI}:Readiness")) == gate | watching
    assert kinds(run(stack, failing=f"{AI}:App")) == gate | watching | {f"{AI}:App"}


@pytest.mark.parametrize("stack", STACKS)
def test_the_exporter_runs_whatever_becomes_of_the_app(stack: str) -> None:
    deployment = run(stack, failing=f"{AI}:App")
    for type_ in (mocks.DEPLOYMENT, mocks.NETWORK_POLICY, mocks.CONFIG_MAP, mocks.SERVICE_OBJECT):
        assert any(item.type == type_ for item in deployment.resources)


@pytest.mark.parametrize("stack", STACKS)
def test_the_endpoint_waits_for_no_cluster(stack: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # Time for the real engine to store outputs.
    monkeypatch.setattr(unknowns, "_OUTPUTS_SECONDS", 0)
    deployment = run(stack, failing=mocks.KUBE)
    assert not [kind for kind in kinds(deployment) if kind.startswith(AI)]
    assert {f"{AI}:App", f"{AI}:Readiness"} <= {resource.type for resource in deployment.resources}
    assert deployment.outputs["endpoint_url"] == mocks.ENDPOINT
    assert mocks.RELEASE in kinds(deployment)


@pytest.mark.parametrize("stack", STACKS)
def test_a_first_preview_shows_every_resource(deployments: dict[str, Deployment], stack: str) -> None:
    preview = run(stack, preview=True)
    made = {resource.urn for resource in deployments[stack].resources}
    assert {resource.urn for resource in preview.resources} == made
    assert preview.outputs.keys() == deployments[stack].outputs.keys()


def test_switching_the_environment_changes_values_and_no_wiring(deployments: dict[str, Deployment]) -> None:
    def names(stack: str) -> set[tuple[str, str]]:
        return {(resource.type, resource.name) for resource in deployments[stack].resources}

    assert names("dev") < names("prod")
    more_samplers = {(mocks.SCRAPE_CONFIG, f"vllm-scrape-{index}") for index in range(2, 6)}
    assert {type_ for type_, _ in names("prod") - names("dev") - more_samplers} == {
        mocks.USER,
        mocks.OPENSTACK,
        mocks.FLOATING_IP,
    }
    assert {type_ for type_, _ in names("sandbox") - names("prod")} == {mocks.IP_RESTRICTIONS}

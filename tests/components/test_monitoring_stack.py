"""Prometheus and Grafana are there whatever becomes of the endpoint, and meet it in small objects."""

from __future__ import annotations

import base64
import hashlib
import json
from typing import Any

import pulumi
import pulumi_kubernetes as kubernetes
import pytest
from pydantic import SecretStr

from components.endpoint_monitoring import endpoint_target
from components.monitoring_stack import MonitoringStack
from tests.components import mocks
from tests.components.mocks import Deployment, Secret, deploy, settings
from tests.components.stacks import SERVICE

TOKEN = "canary-scraper"
HOST = "app-1.app.gra.ai.cloud.ovh.net"
OUTPUTS = (
    "grafana_url",
    "grafana_dashboard_url",
    "grafana_admin_password",
    "grafana_reserved_address",
    "prometheus_url",
)


def stack(name: str, provider: kubernetes.Provider, *, protect: bool, **changes: str) -> MonitoringStack:
    given = settings(name, **changes)
    made = MonitoringStack(
        "monitoring",
        given.monitoring,
        given.alerts,
        provider=provider,
        service_name=SERVICE,
        region=given.cluster.cluster_region,
        protect=protect,
        other_branch=pulumi.Output.from_input("endpoint"),
    )
    made.monitor_endpoint(
        endpoint_target(given),
        host=HOST,
        token=pulumi.Output.secret(TOKEN),
        app="https://platform.example/app",
    )
    return made


def monitoring(
    name: str = "prod", *, protect: bool = False, failing: str = "", preview: bool = False, **changes: str
) -> Deployment:
    def program() -> None:
        made = stack(name, kubernetes.Provider("kubernetes"), protect=protect, **changes)
        for output in OUTPUTS:
            pulumi.export(output, getattr(made, output))

    return deploy(program, failing={failing}, preview=preview)


@pytest.fixture(scope="module")
def prod() -> Deployment:
    return monitoring()


@pytest.fixture(scope="module")
def dev() -> Deployment:
    return monitoring("dev")


def encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def test_everything_in_the_cluster_is_made_by_its_own_provider(prod: Deployment) -> None:
    """An object on the ambient kubeconfig would land in whatever cluster the user looked at last."""
    provider = prod.one(mocks.KUBERNETES).urn
    inside = [resource for resource in prod.resources if resource.type.startswith("kubernetes:")]
    assert len(inside) > 7
    assert {resource.provider for resource in inside} == {provider}
    assert {read.provider for read in prod.reads} == {provider}


def test_everything_lives_in_one_namespace(prod: Deployment) -> None:
    namespaced = [
        resource
        for resource in prod.resources
        if resource.type.startswith("kubernetes:") and resource.type != "kubernetes:core/v1:Namespace"
    ]
    places = [
        resource.inputs.get("namespace") or resource.inputs["metadata"]["namespace"]
        for resource in namespaced
    ]
    assert set(places) == {"monitoring"}
    assert prod.one("kubernetes:core/v1:Namespace").inputs["metadata"] == {"name": "monitoring"}


def test_the_release_is_the_pinned_chart_under_a_fixed_name(prod: Deployment) -> None:
    release = prod.one(mocks.RELEASE).inputs
    assert release["name"] == release["namespace"] == "monitoring"
    assert (release["chart"], release["version"]) == ("kube-prometheus-stack", "88.5.3")
    assert release["repositoryOpts"] == {"repo": "https://prometheus-community.github.io/helm-charts"}
    # Images, volumes and a load balancer on a new cluster take longer than Helm's five minutes.
    assert release["timeout"] >= 600
    # It waits until everything runs.
    assert not release.get("skipAwait")


def test_the_release_gets_the_values_of_the_settings(prod: Deployment) -> None:
    values = prod.one(mocks.RELEASE).inputs["values"]
    assert values["prometheus"]["prometheusSpec"]["retention"] == "15d"
    assert values["grafana"]["service"]["loadBalancerIP"] == mocks.GRAFANA_ADDRESS
    digest = hashlib.sha256(mocks.GRAFANA_CERTIFICATE.encode()).hexdigest()
    assert values["grafana"]["podAnnotations"] == {"checksum/tls": digest}


def test_no_secret_is_in_the_values_of_the_release(prod: Deployment) -> None:
    text = json.dumps(list(mocks.plain(prod.one(mocks.RELEASE).inputs)))
    assert "grafana-admin" in text
    assert "Secret(" not in repr(prod.one(mocks.RELEASE).inputs)
    for secret in mocks.SECRETS:
        assert secret not in text
        assert encoded(secret) not in text


def test_the_release_starts_when_the_secrets_that_its_pods_mount_are_there(prod: Deployment) -> None:
    needs = prod.one(mocks.RELEASE).needs
    assert {prod.named(mocks.SECRET_OBJECT, name).urn for name in ("grafana-admin", "grafana-tls")} <= needs


def test_secrets_of_receivers_are_files_for_alertmanager_before_it_starts() -> None:
    deployment = monitoring("prod", protect=False, failing="", preview=False, **mocks.RECEIVERS)
    secret = deployment.named(mocks.SECRET_OBJECT, "alertmanager-receivers")
    assert secret.inputs["data"] == Secret(
        {key: encoded(value) for key, value in mocks.RECEIVER_SECRETS.items()}
    )
    release = deployment.one(mocks.RELEASE)
    assert secret.urn in release.needs
    alertmanager = release.inputs["values"]["alertmanager"]
    assert alertmanager["alertmanagerSpec"]["secrets"] == ["alertmanager-receivers"]
    assert "slack_configs" in json.dumps(alertmanager["config"])
    text = json.dumps(list(mocks.plain(release.inputs)))
    for value in mocks.RECEIVER_SECRETS.values():
        assert value not in text
        assert encoded(value) not in text


def test_without_receivers_there_is_no_secret_for_them(prod: Deployment) -> None:
    names = {item.inputs["metadata"]["name"] for item in prod.of(mocks.SECRET_OBJECT)}
    assert names == {"vllm-auth-token", "grafana-admin", "grafana-tls"}


@pytest.mark.parametrize(
    ("name", "type_", "data"),
    [
        ("vllm-auth-token", "Opaque", {"token": TOKEN}),
        ("grafana-admin", "Opaque", {"admin-user": "admin", "admin-password": mocks.GRAFANA_PASSWORD}),
        (
            "grafana-tls",
            "kubernetes.io/tls",
            {"tls.crt": mocks.GRAFANA_CERTIFICATE, "tls.key": mocks.GRAFANA_KEY},
        ),
    ],
)
def test_the_data_of_a_secret_travels_as_a_secret(
    prod: Deployment, name: str, type_: str, data: dict[str, str]
) -> None:
    inputs = prod.named(mocks.SECRET_OBJECT, name).inputs
    assert inputs["type"] == type_
    assert inputs["data"] == Secret({key: encoded(value) for key, value in data.items()})


def test_a_certificate_of_the_settings_is_served_and_its_key_is_a_secret() -> None:
    def program() -> None:
        dev = settings("dev")
        given = dev.monitoring.model_copy(
            update={"grafana_certificate": "given certificate", "grafana_private_key": SecretStr("given key")}
        )
        MonitoringStack(
            "monitoring",
            given,
            dev.alerts,
            provider=kubernetes.Provider("kubernetes"),
            service_name=SERVICE,
            region="GRA11",
            protect=False,
            other_branch=pulumi.Output.from_input("endpoint"),
        )

    deployment = deploy(program)
    assert deployment.named(mocks.SECRET_OBJECT, "grafana-tls").inputs["data"] == Secret(
        {"tls.crt": encoded("given certificate"), "tls.key": encoded("given key")}
    )
    assert not [item for item in deployment.resources if item.type.endswith(":SelfSignedCertificate")]


def test_the_self_signed_certificate_is_for_the_addresses_that_users_type(
    prod: Deployment, dev: Deployment
) -> None:
    (certificate,) = (item for item in prod.resources if item.type.endswith(":SelfSignedCertificate"))
    assert certificate.inputs["ip_addresses"] == [mocks.GRAFANA_ADDRESS]
    (certificate,) = (item for item in dev.resources if item.type.endswith(":SelfSignedCertificate"))
    assert "localhost" in certificate.inputs["dns_names"]


def test_a_changed_label_of_the_model_makes_and_deletes_nothing(prod: Deployment) -> None:
    """A URN with the label would make objects with fixed names beside themselves, and then delete them."""
    other = monitoring(modelLabel="other")
    assert {item.urn for item in other.resources} == {item.urn for item in prod.resources}


def test_a_release_that_fails_takes_away_nothing_but_what_needs_its_kinds() -> None:
    """And Grafana's address: a literal id would be read now, and fail the next preview."""
    deployment = monitoring(failing=mocks.RELEASE)
    kinds = {resource.type for resource in deployment.skipped}
    assert kinds == {mocks.RELEASE, mocks.SCRAPE_CONFIG, mocks.PROMETHEUS_RULE}
    assert [read.id for read in deployment.reads] == [mocks.UNKNOWN]
    unknown = {name for name, value in deployment.outputs.items() if value is mocks.UNKNOWN}
    assert unknown == {"grafana_url", "grafana_dashboard_url"}


def test_a_first_preview_reads_nothing_that_does_not_exist(prod: Deployment) -> None:
    preview = monitoring(preview=True)
    assert [read.id for read in preview.reads] == [mocks.UNKNOWN]
    assert {resource.urn for resource in preview.resources} == {resource.urn for resource in prod.resources}


def test_grafanas_address_is_that_of_the_service_which_the_release_names(prod: Deployment) -> None:
    (read,) = prod.reads
    assert (read.type, read.id) == (mocks.SERVICE_OBJECT, mocks.GRAFANA_SERVICE)
    assert prod.outputs["grafana_url"] == f"https://{mocks.GRAFANA_ADDRESS}"
    assert prod.outputs["grafana_dashboard_url"] == (
        f"https://{mocks.GRAFANA_ADDRESS}/d/vllm-ministral-monitoring/ministral-14b-vllm-metrics-monitoring"
    )


def test_an_unusual_port_is_part_of_grafanas_address() -> None:
    assert monitoring(grafanaPort="8443").outputs["grafana_url"] == f"https://{mocks.GRAFANA_ADDRESS}:8443"


def test_dev_reaches_grafana_through_a_tunnel(dev: Deployment) -> None:
    assert dev.reads == []
    assert dev.outputs["grafana_url"] == "https://localhost:3000"


def test_without_a_reserved_address_there_is_nothing_of_openstack(dev: Deployment) -> None:
    without = monitoring(grafanaReservedAddress="false", grafanaKeepAddress="false")
    for deployment in (dev, without):
        types = {resource.type for resource in deployment.resources}
        assert not types & {mocks.USER, mocks.OPENSTACK, mocks.FLOATING_IP}
        assert deployment.outputs.get("grafana_reserved_address") is None
    service = without.one(mocks.RELEASE).inputs["values"]["grafana"]["service"]
    assert "loadBalancerIP" not in service


def test_the_address_is_reserved_by_an_openstack_user_of_the_least_role(prod: Deployment) -> None:
    user = prod.one(mocks.USER).inputs
    assert (user["serviceName"], user["roleNames"]) == (SERVICE, ["network_operator"])
    provider = prod.one(mocks.OPENSTACK)
    assert provider.inputs == {
        "authUrl": mocks.OPENSTACK_RC["OS_AUTH_URL"],
        "tenantId": mocks.OPENSTACK_RC["OS_TENANT_ID"],
        "userName": "user-1",
        "password": Secret(mocks.OPENSTACK_PASSWORD),
        "userDomainName": "Default",
        "projectDomainName": "Default",
        "region": "GRA11",
    }
    address = prod.one(mocks.FLOATING_IP)
    assert address.inputs["pool"] == "Ext-Net"
    assert address.provider == provider.urn


def test_an_update_does_not_take_the_address_away_from_the_load_balancer(prod: Deployment) -> None:
    assert prod.one(mocks.FLOATING_IP).ignore_changes == ["portId", "fixedIp"]


@pytest.mark.parametrize(
    ("keep", "protect", "retained", "protected"),
    [
        ("true", True, True, False),
        ("true", False, True, False),
        ("false", True, False, True),
        ("false", False, False, False),
    ],
)
def test_the_address_is_kept_or_protected_as_the_settings_say(
    keep: str, protect: bool, retained: bool, protected: bool
) -> None:
    """A kept address needs no protection: `destroy` shall go through and leave it."""
    deployment = monitoring(protect=protect, grafanaKeepAddress=keep)
    address = deployment.one(mocks.FLOATING_IP)
    assert (address.retain_on_delete, address.protect) == (retained, protected)
    assert not [item for item in deployment.resources if item.protect and item != address]


def test_prometheus_is_reached_in_the_cluster_or_where_the_settings_say(prod: Deployment) -> None:
    assert prod.outputs["prometheus_url"] == "http://monitoring-prometheus.monitoring:9090"
    address = "https://prometheus.example"
    assert monitoring(prometheusExternalUrl=address).outputs["prometheus_url"] == address


def test_only_the_password_is_a_secret_output(prod: Deployment) -> None:
    assert prod.outputs["grafana_admin_password"] == Secret(mocks.GRAFANA_PASSWORD)
    secrets: dict[str, bool] = {}

    async def program() -> None:
        made = stack("prod", kubernetes.Provider("kubernetes"), protect=False)
        for name in OUTPUTS:
            output: pulumi.Output[Any] = getattr(made, name)
            secrets[name] = await output.is_secret()

    deploy(program)
    assert secrets == {name: name == "grafana_admin_password" for name in OUTPUTS}

"""A cluster, its nodes and a provider that is there only when objects can be made."""

from __future__ import annotations

import pulumi
import pytest

from components.monitoring_cluster import MonitoringCluster
from tests.components import mocks
from tests.components.mocks import Deployment, Secret, deploy, settings
from tests.components.stacks import SERVICE

RANGES = '["192.0.2.0/24", "198.51.100.7/32"]'


def cluster(
    stack: str = "prod", *, protect: bool = False, failing: str = "", preview: bool = False, **changes: str
) -> Deployment:
    def program() -> None:
        made = MonitoringCluster(
            "monitoring", settings(stack, **changes).cluster, service_name=SERVICE, protect=protect
        )
        for name in ("cluster_id", "kubeconfig"):
            pulumi.export(name, getattr(made, name))

    return deploy(program, failing={failing}, preview=preview)


@pytest.fixture(scope="module")
def prod() -> Deployment:
    return cluster(protect=True)


def test_prod_is_the_cluster_of_the_reference_architecture(prod: Deployment) -> None:
    assert prod.one(mocks.KUBE).inputs == {
        "serviceName": SERVICE,
        "name": "prometheus-vllm-metrics-ai-deploy",
        "region": "GRA11",
        "version": "1.34",
        "updatePolicy": "MINIMAL_DOWNTIME",
    }


def test_prod_has_three_nodes_and_no_autoscaling(prod: Deployment) -> None:
    assert prod.one(mocks.NODE_POOL).inputs == {
        "serviceName": SERVICE,
        "kubeId": "id-monitoring",
        "name": "monitoring",
        "flavorName": "b2-15",
        "autoscale": False,
        "desiredNodes": 3,
        "minNodes": 3,
        "maxNodes": 3,
    }


def test_dev_has_one_node() -> None:
    pool = cluster("dev").one(mocks.NODE_POOL).inputs
    assert (pool["desiredNodes"], pool["minNodes"], pool["maxNodes"]) == (1, 1, 1)


def test_a_new_kubeconfig_does_not_replace_every_object(prod: Deployment) -> None:
    """A provider that is replaced takes all its objects with it; only this identifier decides about that."""
    assert prod.one(mocks.KUBERNETES).inputs["clusterIdentifier"] == "id-monitoring"


def test_a_changed_secret_is_patched_and_not_replaced(prod: Deployment) -> None:
    """A replaced Secret is missing for a moment, in which the operator drops the scrape job that needs it."""
    inputs = prod.one(mocks.KUBERNETES).inputs
    assert (inputs["enableSecretMutable"], inputs["enableConfigMapMutable"]) == ("true", "true")


def test_the_api_server_is_restricted_only_where_asked_for(prod: Deployment) -> None:
    assert prod.of(mocks.IP_RESTRICTIONS) == []
    assert cluster(apiServerRanges=RANGES).one(mocks.IP_RESTRICTIONS).inputs == {
        "serviceName": SERVICE,
        "kubeId": "id-monitoring",
        "ips": ["192.0.2.0/24", "198.51.100.7/32"],
    }


@pytest.mark.parametrize("missing", [mocks.KUBE, mocks.NODE_POOL, mocks.IP_RESTRICTIONS])
def test_nothing_is_made_in_a_cluster_without_its_nodes_and_restrictions(missing: str) -> None:
    deployment = cluster(failing=missing, apiServerRanges=RANGES)
    assert mocks.KUBERNETES in [resource.type for resource in deployment.skipped]


def test_only_the_cluster_is_protected_and_only_where_asked_for(prod: Deployment) -> None:
    assert [resource.type for resource in prod.resources if resource.protect] == [mocks.KUBE]
    assert not [resource for resource in cluster().resources if resource.protect]


def test_the_kubeconfig_is_a_secret_wherever_it_goes(prod: Deployment) -> None:
    assert prod.outputs["kubeconfig"] == Secret(mocks.KUBECONFIG)
    assert prod.one(mocks.KUBERNETES).inputs["kubeconfig"] == Secret(mocks.KUBECONFIG)
    secrets: dict[str, bool] = {}

    async def program() -> None:
        made = MonitoringCluster("monitoring", settings("dev").cluster, service_name=SERVICE, protect=False)
        secrets["kubeconfig"] = await made.kubeconfig.is_secret()
        secrets["cluster_id"] = await made.cluster_id.is_secret()

    deploy(program)
    assert secrets == {"kubeconfig": True, "cluster_id": False}


def test_a_first_preview_goes_through(prod: Deployment) -> None:
    preview = cluster(preview=True)
    assert preview.outputs == {"cluster_id": mocks.UNKNOWN, "kubeconfig": mocks.UNKNOWN}
    assert {resource.type for resource in preview.resources} == {resource.type for resource in prod.resources}

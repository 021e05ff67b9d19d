"""The same plugins as the project's program and as many resources of each, with nothing behind them.

COUNTS says how many of those there are of which one is as good as another: JSON, package to number.
"""

from __future__ import annotations

import json
import os
from typing import Any

import pulumi
import pulumi_kubernetes as kubernetes
import pulumi_openstack as openstack
from pulumi.dynamic import CreateResult, DiffResult, Resource, ResourceProvider
from pulumi_ovh import cloudproject


class Provider(ResourceProvider):
    """A dynamic provider that does nothing."""

    serialize_as_secret_always = False

    def diff(self, _id: str, _olds: dict[str, Any], _news: dict[str, Any]) -> DiffResult:
        """Never a change."""
        return DiffResult(changes=False)

    def create(self, props: dict[str, Any]) -> CreateResult:
        """Nothing but an id."""
        return CreateResult("plain", props)


class Dynamic(Resource, module="plain", name="Dynamic"):
    """A resource of that provider."""


counts: dict[str, int] = json.loads(os.environ["COUNTS"])
service_name = os.environ["OVH_CLOUD_PROJECT_SERVICE"]

cluster = cloudproject.Kube("cluster", service_name=service_name, name="plain", region="GRA11")
pool = cloudproject.KubeNodePool(
    "nodes", service_name=service_name, kube_id=cluster.id, flavor_name="b2-15", desired_nodes=1
)
cloudproject.KubeIpRestrictions(
    "restrictions", service_name=service_name, kube_id=cluster.id, ips=["127.0.0.0/8"]
)
user = cloudproject.User("user", service_name=service_name, role_names=["network_operator"])
inside = pulumi.ResourceOptions(
    provider=kubernetes.Provider("kubernetes", kubeconfig=cluster.kubeconfig, cluster_identifier=cluster.id),
    depends_on=[pool],
)
openstack.networking.FloatingIp(
    "address",
    pool="Ext-Net",
    opts=pulumi.ResourceOptions(
        provider=openstack.Provider(
            "openstack",
            auth_url=user.openstack_rc["OS_AUTH_URL"],
            tenant_id=user.openstack_rc["OS_TENANT_ID"],
            user_name=user.username,
            password=user.password,
            user_domain_name="Default",
            project_domain_name="Default",
            region="GRA11",
        )
    ),
)
for number in range(counts["kubernetes"]):
    kubernetes.core.v1.ConfigMap(f"map-{number}", data={"number": str(number)}, opts=inside)
for number in range(counts["pulumi-python"]):
    Dynamic(Provider(), f"dynamic-{number}", {"number": number})
for number in range(counts["ovh-vllm"]):
    pulumi.ComponentResource("ovh-vllm:plain:Component", f"component-{number}")

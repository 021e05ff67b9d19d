"""Clusters, node pools and nodes as the API shows them."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from sandbox.cloud import catalogue, stamps
from sandbox.cloud.kube_schema import KubeCreation
from sandbox.interfaces import Cluster, JsonObject, JsonValue


@dataclass
class Node:
    """A worker node."""

    id: str
    name: str
    instance: str
    created: str


@dataclass
class Pool:
    """A node pool; `status` as the API shows it."""

    id: str
    name: str
    flavor: str
    anti_affinity: bool
    monthly_billed: bool
    availability_zones: list[str]
    desired: int
    least: int
    most: int
    autoscale: bool
    autoscaling: JsonObject
    template: JsonObject
    attach_floating_ips: JsonObject
    status: str = "INSTALLING"
    nodes: list[Node] = field(default_factory=list)
    created: str = field(default_factory=stamps.now)
    updated: str = field(default_factory=stamps.now)
    change: asyncio.Task[None] | None = None
    """What leads to the next status."""

    def json(self, project: str) -> JsonObject:
        """The pool as the API shows it."""
        zones: list[JsonValue] = [*self.availability_zones]
        return {
            "id": self.id,
            "name": self.name,
            "projectId": project,
            "flavor": self.flavor,
            "status": self.status,
            "sizeStatus": "CAPACITY_OK",
            "desiredNodes": self.desired,
            "currentNodes": len(self.nodes),
            "availableNodes": len(self.nodes),
            "upToDateNodes": len(self.nodes),
            "minNodes": self.least,
            "maxNodes": self.most,
            "autoscale": self.autoscale,
            "autoscaling": self.autoscaling,
            "antiAffinity": self.anti_affinity,
            "monthlyBilled": self.monthly_billed,
            "availabilityZones": zones,
            "attachFloatingIps": self.attach_floating_ips,
            "template": self.template,
            "createdAt": self.created,
            "updatedAt": self.updated,
        }


@dataclass
class Kube:
    """A cluster; `status` as the API shows it."""

    id: str
    name: str
    minor: str
    given: KubeCreation
    update_policy: str
    cluster: Cluster
    status: str = "INSTALLING"
    restrictions: list[str] = field(default_factory=list)
    pools: dict[str, Pool] = field(default_factory=dict)
    created: str = field(default_factory=stamps.now)
    updated: str = field(default_factory=stamps.now)
    change: asyncio.Task[None] | None = None

    @property
    def version(self) -> str:
        """Full version, e.g. `1.34.2-1`."""
        return catalogue.kubernetes().versions[self.minor]

    def json(self) -> JsonObject:
        """The cluster as the API shows it."""
        upgrades: list[JsonValue] = [*catalogue.kubernetes().newer_than(self.minor)[:1]]
        return {
            "id": self.id,
            "name": self.name,
            "region": self.given.region,
            "plan": self.given.plan,
            "version": self.version,
            "status": self.status,
            "updatePolicy": self.update_policy,
            "url": self.cluster.url.removeprefix("https://"),
            "nodesUrl": f"{self.id[:6]}.nodes.c1.{self.given.region.lower()}.k8s.ovh.net",
            "isUpToDate": True,
            "controlPlaneIsUpToDate": True,
            "nextUpgradeVersions": upgrades,
            "privateNetworkId": self.given.private_network_id,
            "nodesSubnetId": self.given.nodes_subnet_id,
            "loadBalancersSubnetId": self.given.load_balancers_subnet_id,
            "privateNetworkConfiguration": None,
            "kubeProxyMode": self.given.kube_proxy_mode,
            "customization": {
                "apiServer": {
                    "admissionPlugins": {"enabled": ["AlwaysPullImages", "NodeRestriction"], "disabled": []}
                },
                "kubeProxy": None,
            },
            "createdAt": self.created,
            "updatedAt": self.updated,
        }

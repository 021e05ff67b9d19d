"""Volumes, load balancers, gateways and floating IPs of the project.

They belong to the project, not to the Kubernetes cluster that caused them: what a deleted cluster leaves
behind stays and is billed.
"""

from __future__ import annotations

import secrets
import uuid
from collections.abc import Collection
from dataclasses import dataclass, field

from components.prices import prices
from sandbox.cloud import stamps
from sandbox.cloud.ledger import Ledger
from sandbox.interfaces import JsonObject, LoadBalancer


@dataclass
class Volume:
    """A Cinder volume."""

    id: str
    name: str
    cluster: str
    size_gib: int
    type: str


@dataclass
class Gateway:
    """A router, size S; `k8s-cluster-<cluster id>` is made for the first load balancer of a cluster."""

    id: str
    name: str
    cluster: str


@dataclass
class Balancer:
    """An Octavia load balancer; `port` is the Neutron port of its private address."""

    id: str
    name: str
    cluster: str
    flavor: str
    keep_address: bool
    private_address: str
    port: str


@dataclass
class FloatingIp:
    """A public address of a region; `balancer` is what it leads to."""

    id: str
    address: str
    region: str
    description: str
    balancer: Balancer | None = None
    router: str | None = None
    revision: int = 0
    created: str = field(default_factory=stamps.now)
    updated: str = field(default_factory=stamps.now)

    def bind(self, balancer: Balancer | None, router: str | None) -> None:
        """Leads the address to a load balancer through a router, or nowhere."""
        self.balancer, self.router = balancer, router
        self.revision += 1
        self.updated = stamps.now()


class ProjectInfrastructure:
    """Implements `Infrastructure` of the interfaces, and the pool of floating IPs that Neutron shows."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._prices = prices()
        self._regions: dict[str, str] = {}
        """Region of every cluster there is."""
        self._volumes: dict[str, Volume] = {}
        self._balancers: dict[str, Balancer] = {}
        self._gateways: dict[str, Gateway] = {}
        self.floating_ips: dict[str, FloatingIp] = {}

    def add_cluster(self, cluster_id: str, region: str) -> None:
        """Makes a cluster known, so that it may cause infrastructure."""
        self._regions[cluster_id] = region

    def remove_cluster(self, cluster_id: str) -> None:
        """Forgets a cluster; its gateway goes too unless a load balancer still hangs on it (assumed)."""
        self._regions.pop(cluster_id, None)
        gateway = self._gateway(cluster_id)
        if gateway is not None and not any(lb.cluster == cluster_id for lb in self._balancers.values()):
            del self._gateways[gateway.id]
            self._ledger.close("gateway", gateway.id)

    def create_volume(self, cluster_id: str, name: str, size_gib: int, volume_type: str) -> str:
        """Creates a Cinder volume; returns its id. Raises ValueError for an unknown type."""
        price = self._prices.volume(volume_type)
        if price is None:
            known = ", ".join(self._prices.volumes)
            raise ValueError(f"volume type {volume_type} is unknown; there are {known}")
        volume = Volume(str(uuid.uuid4()), name, cluster_id, size_gib, volume_type)
        self._volumes[volume.id] = volume
        per_gib = price.eur_per_hour
        cost = None if per_gib is None else size_gib * per_gib
        self._ledger.open("volume", volume.id, name, cost)
        return volume.id

    def delete_volume(self, volume_id: str) -> None:
        """Deletes a volume; one that is gone is no error."""
        self._volumes.pop(volume_id, None)
        self._ledger.close("volume", volume_id)

    def create_load_balancer(
        self, cluster_id: str, name: str, flavor: str, address: str | None, keep_address: bool
    ) -> LoadBalancer:
        """Creates a load balancer, and the cluster's gateway if it has none.

        `address` is a floating IP of the cluster's region that is bound to nothing; None allocates one.
        Raises ValueError when the address is unknown or bound, or the cluster or flavor is unknown.
        """
        if cluster_id not in self._regions:
            raise ValueError(f"cluster {cluster_id} does not exist")
        flavors = self._prices.load_balancers
        if flavor not in flavors:
            raise ValueError(f"load balancer flavor {flavor} is unknown; there are {', '.join(flavors)}")
        region = self._regions[cluster_id]
        floating = self._unbound(address, region) if address is not None else None
        gateway = self._gateway(cluster_id) or self._create_gateway(cluster_id)
        private = f"192.168.{secrets.randbelow(256)}.{1 + secrets.randbelow(254)}"
        balancer = Balancer(
            str(uuid.uuid4()), name, cluster_id, flavor, keep_address, private, str(uuid.uuid4())
        )
        self._balancers[balancer.id] = balancer
        self._ledger.open("load-balancer", balancer.id, name, flavors[flavor].eur_per_hour)
        if floating is None:
            floating = self.create_floating_ip(region, f"load balancer {name}")
        floating.bind(balancer, gateway.id)
        return LoadBalancer(balancer.id, floating.address)

    def delete_load_balancer(self, load_balancer_id: str) -> None:
        """Deletes a load balancer and its floating IP, which stays when it was asked to be kept."""
        balancer = self._balancers.pop(load_balancer_id, None)
        if balancer is None:
            return
        self._ledger.close("load-balancer", balancer.id)
        for floating in [ip for ip in self.floating_ips.values() if ip.balancer is balancer]:
            floating.bind(None, None)
            if not balancer.keep_address:
                self.delete_floating_ip(floating.id)

    def create_floating_ip(self, region: str, description: str) -> FloatingIp:
        """Reserves a random loopback address, on which a load balancer of the sandbox can listen."""
        taken = {ip.address for ip in self.floating_ips.values()}
        while True:
            # Ranges away from 127.0.0.1, and never .0 or .255.
            parts = (64 + secrets.randbelow(64), secrets.randbelow(256), 1 + secrets.randbelow(254))
            address = "127.{}.{}.{}".format(*parts)
            if address not in taken:
                break
        floating = FloatingIp(str(uuid.uuid4()), address, region, description)
        self.floating_ips[floating.id] = floating
        self._ledger.open("floating-ip", floating.id, address, self._prices.floating_ip.eur_per_hour)
        return floating

    def delete_floating_ip(self, id_: str) -> None:
        """Gives an address back, also one that is in use (as Neutron does)."""
        del self.floating_ips[id_]
        self._ledger.close("floating-ip", id_)

    def volumes_used(self, clusters: Collection[str]) -> JsonObject:
        """Number and sum of the volumes of these clusters, as quotas name them."""
        sizes = [volume.size_gib for volume in self._volumes.values() if volume.cluster in clusters]
        return {"volumeCount": len(sizes), "usedGigabytes": sum(sizes)}

    def load_balancers_used(self, clusters: Collection[str]) -> int:
        """How many load balancers these clusters have."""
        return sum(balancer.cluster in clusters for balancer in self._balancers.values())

    def resources(self) -> list[JsonObject]:
        """What exists, for the sandbox's own list."""
        volumes: list[JsonObject] = [
            {
                "kind": "volume",
                "id": volume.id,
                "name": volume.name,
                "detail": {"sizeGib": volume.size_gib, "type": volume.type, "cluster": volume.cluster},
            }
            for volume in self._volumes.values()
        ]
        balancers: list[JsonObject] = [
            {
                "kind": "load-balancer",
                "id": balancer.id,
                "name": balancer.name,
                "detail": {"flavor": balancer.flavor, "cluster": balancer.cluster},
            }
            for balancer in self._balancers.values()
        ]
        gateways: list[JsonObject] = [
            {
                "kind": "gateway",
                "id": gateway.id,
                "name": gateway.name,
                "detail": {"cluster": gateway.cluster},
            }
            for gateway in self._gateways.values()
        ]
        addresses: list[JsonObject] = [
            {
                "kind": "floating-ip",
                "id": ip.id,
                "name": ip.address,
                "detail": {
                    "region": ip.region,
                    "description": ip.description,
                    "loadBalancer": None if ip.balancer is None else ip.balancer.id,
                },
            }
            for ip in self.floating_ips.values()
        ]
        return [*volumes, *balancers, *gateways, *addresses]

    def _gateway(self, cluster_id: str) -> Gateway | None:
        return next((gateway for gateway in self._gateways.values() if gateway.cluster == cluster_id), None)

    def _create_gateway(self, cluster_id: str) -> Gateway:
        gateway = Gateway(str(uuid.uuid4()), f"k8s-cluster-{cluster_id}", cluster_id)
        self._gateways[gateway.id] = gateway
        self._ledger.open("gateway", gateway.id, gateway.name, self._prices.gateway.eur_per_hour)
        return gateway

    def _unbound(self, address: str, region: str) -> FloatingIp:
        for floating in self.floating_ips.values():
            if floating.address == address and floating.region == region:
                if floating.balancer is not None:
                    raise ValueError(
                        f"floating IP {address} is bound to load balancer {floating.balancer.id}"
                    )
                return floating
        raise ValueError(f"floating IP {address} is not one of this project in {region}")

"""Services of type LoadBalancer become Octavia load balancers."""

from __future__ import annotations

import logging
from dataclasses import dataclass

from sandbox.clock import Clock
from sandbox.cluster.controllers.lifecycle import drop_finalizer
from sandbox.cluster.kinds import Object
from sandbox.cluster.storage import ObjectStore
from sandbox.interfaces import Infrastructure, LoadBalancer

_LOG = logging.getLogger(__name__)

MANAGER = "openstack-cloud-controller-manager"
FINALIZER = "service.kubernetes.io/load-balancer-cleanup"
FLAVOR = "loadbalancer.ovhcloud.com/flavor"
KEEP_ADDRESS = "loadbalancer.openstack.org/keep-floatingip"
ADDRESS = "loadbalancer.openstack.org/load-balancer-address"

_COMPONENT = "service-controller"


@dataclass(frozen=True)
class _Wish:
    """What a Service asks for; there is no resizing in place, so another wish makes another load balancer."""

    name: str
    flavor: str
    address: str | None


@dataclass(frozen=True)
class _Made:
    wish: _Wish
    balancer: LoadBalancer
    ready_at: float


class LoadBalancers:
    """Creates, replaces and deletes the load balancers of a cluster.

    `delay` is the platform time until a created one has its address in the Service, `retry` the one between
    attempts after a refusal (such as an address that is bound elsewhere). When the cluster stops they stay.
    Whether the address is kept is told at creation: adding the annotation later has no effect here.
    """

    def __init__(
        self, cluster_id: str, infrastructure: Infrastructure, clock: Clock, *, delay: float, retry: float
    ) -> None:
        self._cluster_id = cluster_id
        self._infrastructure = infrastructure
        self._clock = clock
        self._delay = delay
        self._retry = retry
        self._made: dict[str, _Made] = {}
        self._retry_at: dict[str, float] = {}

    async def reconcile(self, store: ObjectStore) -> float | None:
        """One pass over all Services; returns when the next address or attempt is due."""
        now = self._clock.monotonic()  # once: what gets due during the pass is due after it
        services = store.list("Service")
        for service in services:
            self._sync(store, service, now)
        uids = {service["metadata"]["uid"] for service in services}
        self._retry_at = {uid: at for uid, at in self._retry_at.items() if uid in uids}
        due = [made.ready_at for made in self._made.values()] + list(self._retry_at.values())
        return min((at - now for at in due if at > now), default=None)

    async def stop(self) -> None:
        """Leaves the load balancers: deleting a cluster does not delete what it caused."""

    def _sync(self, store: ObjectStore, service: Object, now: float) -> None:
        uid = service["metadata"]["uid"]
        wish = self._wish(service)
        made = self._made.get(uid)
        kept = None
        if made is not None and made.wish != wish:
            kept = made.balancer.address if _keeps_address(service) else None
            service = self._delete(store, service, made)
            made = None
        if wish is None:
            drop_finalizer(store, service, FINALIZER, MANAGER)
            self._retry_at.pop(uid, None)
            return
        if made is None and now >= self._retry_at.get(uid, 0):
            self._create(store, service, wish, wish.address or kept, now)
        elif made is not None and now >= made.ready_at:
            self._publish(store, service, made.balancer.address)

    def _wish(self, service: Object) -> _Wish | None:
        metadata = service["metadata"]
        if service["spec"]["type"] != "LoadBalancer" or "deletionTimestamp" in metadata:
            return None
        return _Wish(
            name=f"kube_service_{self._cluster_id}_{metadata['namespace']}_{metadata['name']}",
            flavor=metadata.get("annotations", {}).get(FLAVOR, "small"),
            address=service["spec"].get("loadBalancerIP"),
        )

    def _create(
        self, store: ObjectStore, service: Object, wish: _Wish, address: str | None, now: float
    ) -> None:
        metadata = service["metadata"]
        if FINALIZER not in metadata.get("finalizers", []):
            metadata["finalizers"] = [*metadata.get("finalizers", []), FINALIZER]
            service = store.update(service, MANAGER)
        uid = metadata["uid"]
        store.event(service, "Normal", "EnsuringLoadBalancer", "Ensuring load balancer", _COMPONENT)
        try:
            balancer = self._infrastructure.create_load_balancer(
                self._cluster_id, wish.name, wish.flavor, address, _keeps_address(service)
            )
        except ValueError as error:
            text = f"Error syncing load balancer: failed to ensure load balancer: {error}"
            store.event(service, "Warning", "SyncLoadBalancerFailed", text, _COMPONENT)
            _LOG.info("load balancer %s: %s", wish.name, error)
            self._retry_at[uid] = now + self._retry
            return
        self._retry_at.pop(uid, None)
        self._made[uid] = _Made(wish, balancer, now + self._delay)

    def _publish(self, store: ObjectStore, service: Object, address: str) -> None:
        if service["status"]["loadBalancer"].get("ingress"):
            return
        service["metadata"].setdefault("annotations", {})[ADDRESS] = address
        service = store.update(service, MANAGER)
        service["status"]["loadBalancer"] = {"ingress": [{"ip": address, "ipMode": "VIP"}]}
        store.update(service, MANAGER, subresource="status")
        store.event(service, "Normal", "EnsuredLoadBalancer", "Ensured load balancer", _COMPONENT)

    def _delete(self, store: ObjectStore, service: Object, made: _Made) -> Object:
        """Deletes the load balancer; returns the Service as it is then."""
        self._infrastructure.delete_load_balancer(made.balancer.id)
        del self._made[service["metadata"]["uid"]]
        store.event(service, "Normal", "DeletedLoadBalancer", "Deleted load balancer", _COMPONENT)
        service["status"]["loadBalancer"] = {}
        return store.update(service, MANAGER, subresource="status")


def _keeps_address(service: Object) -> bool:
    return bool(service["metadata"].get("annotations", {}).get(KEEP_ADDRESS) == "true")

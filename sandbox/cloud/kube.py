"""Managed Kubernetes: clusters and node pools of API v1, `/cloud/project/{serviceName}/kube`."""

from __future__ import annotations

import re
import secrets
import uuid
from collections.abc import Coroutine
from pathlib import Path

from aiohttp import web

from components.prices import prices
from sandbox.clock import Clock
from sandbox.cloud import catalogue, stamps
from sandbox.cloud.http import Route, bad_request, not_found, parse
from sandbox.cloud.infrastructure import ProjectInfrastructure
from sandbox.cloud.kube_objects import Kube, Node, Pool
from sandbox.cloud.kube_schema import (
    KubeCreation,
    PolicyUpdate,
    PoolCreation,
    PoolUpdate,
    Ranges,
    Rename,
    VersionUpdate,
)
from sandbox.cloud.ledger import Ledger
from sandbox.cloud.settings import CloudSettings
from sandbox.cloud.tasks import Tasks, cancel
from sandbox.interfaces import ClusterFactory, JsonObject, JsonValue

_PATH = "/cloud/project/{project}/kube"
_KUBE = f"{_PATH}/{{kube}}"
_POOLS = f"{_KUBE}/nodepool"
_POOL = f"{_POOLS}/{{pool}}"

_POOL_NAME = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")
_AUTOSCALING: JsonObject = {
    "scaleDownUtilizationThreshold": 0.5,
    "scaleDownUnneededTimeSeconds": 600,
    "scaleDownUnreadyTimeSeconds": 1200,
}
_TEMPLATE: JsonObject = {
    "metadata": {"annotations": {}, "finalizers": [], "labels": {}},
    "spec": {"taints": [], "unschedulable": False},
}


class Kubes:
    """All clusters of the project."""

    def __init__(
        self,
        settings: CloudSettings,
        clock: Clock,
        factory: ClusterFactory,
        infrastructure: ProjectInfrastructure,
        ledger: Ledger,
        tasks: Tasks,
        directory: Path,
    ) -> None:
        self._settings = settings
        self._delays = settings.delays
        self._clock = clock
        self._factory = factory
        self._infrastructure = infrastructure
        self._ledger = ledger
        self._tasks = tasks
        self._directory = directory
        self._kubes: dict[str, Kube] = {}

    @property
    def routes(self) -> list[Route]:
        """The Kubernetes part of the API, as far as it is modelled."""
        return [
            Route("GET", _PATH, self._list, "kube/get"),
            Route("POST", _PATH, self._create, "kube/create"),
            Route("GET", _KUBE, self._get, "kube/get"),
            Route("PUT", _KUBE, self._rename, "kube/edit"),
            Route("DELETE", _KUBE, self._delete, "kube/delete"),
            Route("POST", f"{_KUBE}/kubeconfig", self._kubeconfig, "kube/kubeconfig/create"),
            Route("PUT", f"{_KUBE}/updatePolicy", self._update_policy, "kube/updatePolicy/edit"),
            Route("POST", f"{_KUBE}/update", self._update_version, "kube/update/create"),
            Route("GET", f"{_KUBE}/ipRestrictions", self._get_restrictions, "kube/ipRestrictions/get"),
            Route("PUT", f"{_KUBE}/ipRestrictions", self._restrict, "kube/ipRestrictions/edit"),
            Route("GET", f"{_KUBE}/node", self._kube_nodes, "kube/node/get"),
            Route("GET", _POOLS, self._list_pools, "kube/nodepool/get"),
            Route("POST", _POOLS, self._create_pool, "kube/nodepool/create"),
            Route("GET", _POOL, self._get_pool, "kube/nodepool/get"),
            Route("PUT", _POOL, self._update_pool, "kube/nodepool/edit"),
            Route("DELETE", _POOL, self._delete_pool, "kube/nodepool/delete"),
            Route("GET", f"{_POOL}/nodes", self._pool_nodes, "kube/nodepool/nodes/get"),
        ]

    def all(self) -> list[Kube]:
        """Every cluster."""
        return list(self._kubes.values())

    async def close(self) -> None:
        """Ends every cluster; the background tasks must have ended."""
        for kube in self._kubes.values():
            await kube.cluster.stop()

    # Clusters

    def _find(self, request: web.Request) -> Kube:
        id_ = request.match_info["kube"]
        if id_ not in self._kubes:
            raise not_found("Kube", f"kube {id_} not found")
        return self._kubes[id_]

    def _find_living(self, request: web.Request) -> Kube:
        """The cluster, for a change of its pools: one that is on its way out takes none (assumed)."""
        kube = self._find(request)
        if kube.status == "DELETING":
            raise bad_request(f"kube {kube.id} is DELETING: its node pools cannot be changed any more")
        return kube

    async def _list(self, _request: web.Request) -> JsonValue:
        return [*self._kubes]

    async def _create(self, request: web.Request) -> JsonValue:
        given = await parse(request, KubeCreation)
        minor = _checked_version(given)
        id_ = str(uuid.uuid4())
        name = given.name or f"kube-{id_[:8]}"
        version = catalogue.kubernetes().versions[minor]
        cluster = self._factory(id_, name, version, self._directory / id_)
        await cluster.start()
        kube = Kube(id_, name, minor, given, given.update_policy, cluster)
        self._kubes[id_] = kube
        self._infrastructure.add_cluster(id_, given.region)
        self._become(kube, "INSTALLING", self._delays.cluster)
        return kube.json()

    async def _get(self, request: web.Request) -> JsonValue:
        return self._find(request).json()

    async def _rename(self, request: web.Request) -> JsonValue:
        kube = self._find(request)
        kube.name = (await parse(request, Rename)).name
        return None

    async def _delete(self, request: web.Request) -> JsonValue:
        kube = self._find(request)
        if kube.status != "DELETING":
            self._change(kube, "DELETING", self._remove(kube))
        return None

    async def _kubeconfig(self, request: web.Request) -> JsonValue:
        kube = self._find(request)
        if kube.status == "INSTALLING":
            raise bad_request(f"kube {kube.id} is INSTALLING: it has no kubeconfig yet")
        return {"content": kube.cluster.kubeconfig()}

    async def _update_policy(self, request: web.Request) -> JsonValue:
        kube = self._find(request)
        kube.update_policy = (await parse(request, PolicyUpdate)).update_policy
        return None

    async def _update_version(self, request: web.Request) -> JsonValue:
        """Next minor version; the API server of the sandbox goes on as it is."""
        kube, update = self._find(request), await parse(request, VersionUpdate)
        if kube.status != "READY":
            raise bad_request(f"kube {kube.id} is {kube.status}: only a READY one can be updated")
        if update.strategy == "NEXT_MINOR":
            newer = catalogue.kubernetes().newer_than(kube.minor)
            if not newer:
                raise bad_request(f"strategy: there is no version after {kube.minor}")
            kube.minor = newer[0]
        self._become(kube, "UPDATING", self._delays.cluster_update)
        return None

    async def _get_restrictions(self, request: web.Request) -> JsonValue:
        return [*self._find(request).restrictions]

    async def _restrict(self, request: web.Request) -> JsonValue:
        kube = self._find(request)
        kube.restrictions = (await parse(request, Ranges)).ips
        kube.cluster.restrict(kube.restrictions)
        return [*kube.restrictions]

    async def _kube_nodes(self, request: web.Request) -> JsonValue:
        kube = self._find(request)
        return [self._node(kube, pool, node) for pool in kube.pools.values() for node in pool.nodes]

    def _become(self, kube: Kube, status: str, seconds: float) -> None:
        """Shows `status` at once and READY after `seconds`: clients abort on any status in between."""

        async def settle() -> None:
            await self._clock.sleep(seconds)
            kube.status = "READY"

        self._change(kube, status, settle())

    def _change(self, thing: Kube | Pool, status: str, then: Coroutine[None, None, None]) -> None:
        cancel(thing.change)
        thing.status = status
        thing.updated = stamps.now()
        thing.change = self._tasks.spawn(then, f"{thing.name} {status}")

    async def _remove(self, kube: Kube) -> None:
        """Nodes go, the control plane goes; volumes and load balancers stay in the project."""
        for pool in kube.pools.values():
            cancel(pool.change)
            self._set_nodes(kube, pool, 0)
        await self._clock.sleep(self._delays.cluster_deletion)
        await kube.cluster.stop()
        self._infrastructure.remove_cluster(kube.id)
        del self._kubes[kube.id]

    # Node pools

    def _find_pool(self, kube: Kube, request: web.Request) -> Pool:
        id_ = request.match_info["pool"]
        if id_ not in kube.pools:
            raise not_found("NodePool", f"pool {id_} not found")
        return kube.pools[id_]

    async def _list_pools(self, request: web.Request) -> JsonValue:
        return [pool.json(self._settings.project) for pool in self._find(request).pools.values()]

    async def _create_pool(self, request: web.Request) -> JsonValue:
        given = await parse(request, PoolCreation)
        kube = self._find_living(request)
        id_ = str(uuid.uuid4())
        name = given.name if given.name is not None else f"nodepool-{id_}"
        _check_pool(kube, name, given.flavor_name)
        least = 0 if given.min_nodes is None else given.min_nodes
        pool = Pool(
            id=id_,
            name=name,
            flavor=given.flavor_name,
            anti_affinity=given.anti_affinity,
            monthly_billed=given.monthly_billed,
            availability_zones=given.availability_zones,
            desired=max(1, least) if given.desired_nodes is None else given.desired_nodes,
            least=least,
            most=100 if given.max_nodes is None else given.max_nodes,
            autoscale=bool(given.autoscale),
            autoscaling=_AUTOSCALING | (given.autoscaling or {}),
            template=given.template or _TEMPLATE,
            attach_floating_ips=given.attach_floating_ips or {"enabled": False},
        )
        _check_bounds(pool.desired, pool.least, pool.most)
        kube.pools[id_] = pool
        self._change(pool, "INSTALLING", self._settle_pool(kube, pool))
        return pool.json(self._settings.project)

    async def _get_pool(self, request: web.Request) -> JsonValue:
        return self._find_pool(self._find(request), request).json(self._settings.project)

    async def _update_pool(self, request: web.Request) -> JsonValue:
        given = await parse(request, PoolUpdate)
        kube = self._find_living(request)
        pool = self._find_pool(kube, request)
        if pool.status == "DELETING":
            raise bad_request(f"pool {pool.id} is DELETING: it cannot be changed any more")
        desired = pool.desired if given.desired_nodes is None else given.desired_nodes
        least = pool.least if given.min_nodes is None else given.min_nodes
        most = pool.most if given.max_nodes is None else given.max_nodes
        _check_bounds(desired, least, most)
        before, pool.desired, pool.least, pool.most = pool.desired, desired, least, most
        pool.autoscale = pool.autoscale if given.autoscale is None else given.autoscale
        pool.autoscaling = pool.autoscaling | (given.autoscaling or {})
        pool.template = given.template or pool.template
        pool.attach_floating_ips = given.attach_floating_ips or pool.attach_floating_ips
        if desired != before:
            status = "UPSCALING" if desired > before else "DOWNSCALING"
            self._change(pool, status, self._settle_pool(kube, pool))
        return None

    async def _delete_pool(self, request: web.Request) -> JsonValue:
        kube = self._find_living(request)
        pool = self._find_pool(kube, request)
        if pool.status != "DELETING":
            self._change(pool, "DELETING", self._remove_pool(kube, pool))
        return None

    async def _pool_nodes(self, request: web.Request) -> JsonValue:
        kube = self._find(request)
        pool = self._find_pool(kube, request)
        return [self._node(kube, pool, node) for node in pool.nodes]

    async def _settle_pool(self, kube: Kube, pool: Pool) -> None:
        await self._clock.sleep(self._delays.node_pool)
        self._set_nodes(kube, pool, pool.desired)
        pool.status = "READY"

    async def _remove_pool(self, kube: Kube, pool: Pool) -> None:
        await self._clock.sleep(self._delays.node_pool_deletion)
        self._set_nodes(kube, pool, 0)
        del kube.pools[pool.id]

    def _set_nodes(self, kube: Kube, pool: Pool, count: int) -> None:
        """Adds or removes nodes, in the cluster and on the bill (hourly prices, also if monthly billed)."""
        while len(pool.nodes) < count:
            name = f"{pool.name}-node-{secrets.token_hex(3)}"
            node = Node(str(uuid.uuid4()), name, str(uuid.uuid4()), stamps.now())
            pool.nodes.append(node)
            price = prices().instances[pool.flavor].eur_per_hour
            self._ledger.open("node", node.id, name, price, owner=pool.id)
        while len(pool.nodes) > count:
            self._ledger.close("node", pool.nodes.pop().id)
        kube.cluster.set_nodes(pool.name, pool.flavor, count)

    def _node(self, kube: Kube, pool: Pool, node: Node) -> JsonObject:
        return {
            "id": node.id,
            "name": node.name,
            "projectId": self._settings.project,
            "flavor": pool.flavor,
            "instanceId": node.instance,
            "nodePoolId": pool.id,
            "status": "READY",
            "version": kube.version,
            "isUpToDate": True,
            "createdAt": node.created,
            "updatedAt": node.created,
            "deployedAt": node.created,
        }


def _checked_version(given: KubeCreation) -> str:
    """The minor version to install; raises 400 for a version, region or plan that is not offered."""
    offer = catalogue.kubernetes()
    if given.region not in offer.regions:
        raise bad_request(
            f"region: {given.region} has no Managed Kubernetes; these have: {', '.join(offer.regions)}"
        )
    offered = offer.standard_regions if given.plan == "standard" else offer.free_regions
    if given.region not in offered:
        raise bad_request(
            f"plan: {given.plan} is not offered in {given.region}, only in {', '.join(sorted(offered))}"
        )
    minor = given.version or offer.default
    if minor not in offer.versions:
        raise bad_request(f"version: {minor} is not offered; these are: {', '.join(offer.versions)}")
    return minor


def _check_pool(kube: Kube, name: str, flavor: str) -> None:
    if not _POOL_NAME.fullmatch(name):
        raise bad_request(
            f"[InvalidDataError] 400: Node pool name {name} is invalid, it must match ^{_POOL_NAME.pattern}$"
        )
    if any(pool.name == name for pool in kube.pools.values()):
        raise bad_request(f"name: the cluster already has a node pool {name}")
    flavors = prices().instances
    if flavor not in flavors:
        raise bad_request(f"flavorName: {flavor} is unknown; there are {', '.join(flavors)}")


def _check_bounds(desired: int, least: int, most: int) -> None:
    if not least <= desired <= most:
        raise bad_request(f"desiredNodes: {desired} is not between minNodes {least} and maxNodes {most}")

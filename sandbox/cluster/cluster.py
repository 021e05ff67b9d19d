"""A cluster of Managed Kubernetes: API server, store and controllers in one."""

from __future__ import annotations

import asyncio
import base64
import logging
import re
import secrets
import ssl
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml
from aiohttp import web

from sandbox.clock import Clock
from sandbox.cluster.apiserver import ApiServer
from sandbox.cluster.controllers.grafana_page import GrafanaPages
from sandbox.cluster.controllers.lifecycle import GarbageCollector, Namespaces
from sandbox.cluster.controllers.load_balancers import LoadBalancers
from sandbox.cluster.controllers.volumes import Volumes, storage_classes
from sandbox.cluster.controllers.workloads import Kubelet, Workloads
from sandbox.cluster.kinds import Object
from sandbox.cluster.mirror import Mirror
from sandbox.cluster.programs import Programs
from sandbox.cluster.storage import Controller, ObjectStore, now
from sandbox.interfaces import Infrastructure
from sandbox.servers import listen
from sandbox.tls import Authority, server_context
from sandbox.trace import trace

_LOG = logging.getLogger(__name__)

_DEBOUNCE = 0.02
"""Wall-clock seconds that a controller waits for more changes before it looks again."""
_AFTER_FAILURE = 1.0
"""Wall-clock seconds until a controller that raised is called again."""

_USER, _GROUP = "kubernetes-admin", "system:masters"
_NAMESPACES = ("default", "kube-node-lease", "kube-public", "kube-system")


def _no_controllers(cluster: KubeCluster) -> Sequence[Controller]:
    return ()


def _no_programs(cluster: KubeCluster) -> Programs | None:
    return None


def _no_links(cluster_id: str) -> Mapping[str, str]:
    return {}


@dataclass(frozen=True)
class ClusterSettings:
    """How a cluster behaves; durations are platform seconds.

    [I] the durations: MKS documents none of them; they are orders of magnitude from using it.
    """

    load_balancer_delay: float = 60
    """From the Service to the load balancer's address."""
    load_balancer_retry: float = 30
    """Between attempts to make a load balancer that was refused."""
    claim_delay: float = 10
    """From the claim to its volume."""
    volume_deletion_delay: float = 5
    """From the deleted claim to the deleted volume."""
    pod_delay: float = 20
    """From a placed pod to a ready one."""
    programs: Callable[[KubeCluster], Programs | None] = _no_programs
    """What runs the containers that really run; called once, in `start`."""
    controllers: Callable[[KubeCluster], Sequence[Controller]] = _no_controllers
    """What else runs in a cluster, such as operators; called once, in `start`, after `programs`."""
    links: Callable[[str], Mapping[str, str]] = _no_links
    """Addresses by name (Prometheus, …) for a cluster id, shown where Grafana would be."""


class KubeCluster:
    """A cluster that implements `interfaces.Cluster`.

    `version` is such as `1.34` or `1.34.2-1`, `authority` the cluster's own. Objects are kept in memory and
    shown as files below `directory/objects`.
    """

    def __init__(
        self,
        cluster_id: str,
        name: str,
        version: str,
        directory: Path,
        *,
        clock: Clock,
        infrastructure: Infrastructure,
        authority: Authority,
        settings: ClusterSettings,
    ) -> None:
        self.id = cluster_id
        self.name = name
        self.version = version
        self.directory = directory
        self.clock = clock
        self.store = ObjectStore(version)
        self.programs: Programs | None = None
        """Runs the containers that really run, from `start` on."""
        self._infrastructure = infrastructure
        self._authority = authority
        self._settings = settings
        self._server = ApiServer(self.store, cluster_id, version)
        self._runner: web.AppRunner | None = None
        self._url = "https://127.0.0.1:0"
        self._controllers: list[Controller] = []
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def url(self) -> str:
        """`https://127.0.0.1:<port>`; the port is known after `start`."""
        return self._url

    async def start(self) -> None:
        """Starts API server and controllers; on return the server listens."""
        self._furnish()
        self.programs = self._settings.programs(self)
        self._controllers = [*self._own_controllers(), *self._settings.controllers(self)]
        pair = self._authority.server(["127.0.0.1", "localhost", "kubernetes", "kubernetes.default.svc"])
        context = server_context(pair, self.directory, self._authority.certificate)
        # Without a certificate the answer is 401, as that of a real server; a foreign one fails in TLS.
        context.verify_mode = ssl.CERT_OPTIONAL
        self._runner, self._url = await listen(self._server.application(), context)
        self._tasks = [asyncio.create_task(self._drive(controller)) for controller in self._controllers]

    def kubeconfig(self) -> str:
        """YAML with one cluster, one administrator with a new client certificate, one context."""
        pair = self._authority.client(_USER, _GROUP)
        context = f"{_USER}@{self.name}"
        return yaml.safe_dump(
            {
                "apiVersion": "v1",
                "kind": "Config",
                "clusters": [
                    {
                        "name": self.name,
                        "cluster": {
                            "server": self.url,
                            "certificate-authority-data": _base64(self._authority.certificate),
                        },
                    }
                ],
                "users": [
                    {
                        "name": context,
                        "user": {
                            "client-certificate-data": _base64(pair.certificate),
                            "client-key-data": _base64(pair.key),
                        },
                    }
                ],
                "contexts": [{"name": context, "context": {"cluster": self.name, "user": context}}],
                "current-context": context,
                "preferences": {},
            },
            sort_keys=False,
        )

    def set_nodes(self, pool: str, flavor: str, count: int) -> None:
        """Makes the pool have `count` Ready nodes; the newest go first. Works before `start` too."""
        nodes = self.store.list("Node", labels={"nodepool": pool})
        nodes.sort(key=lambda node: int(node["metadata"]["resourceVersion"]))
        for node in nodes[count:]:
            self.store.delete("Node", "", node["metadata"]["name"])
        for _ in range(len(nodes), count):
            node = self.store.create(_node(pool, flavor), "cloud-controller-manager")
            status = _node_status(flavor, self.version)
            self.store.set_status("Node", "", node["metadata"]["name"], status, "kubelet")

    def restrict(self, ranges: Sequence[str]) -> None:
        """Lets only these source ranges (CIDR) use the API server; empty means all.

        Everything in the sandbox comes from 127.0.0.1: ranges without it lock the caller out, as in reality.
        """
        self._server.restrict(ranges)

    async def stop(self) -> None:
        """Ends controllers and API server; volumes and load balancers stay behind."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks = []
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None
        stops = [controller.stop() for controller in self._controllers]
        ends = await asyncio.gather(*stops, return_exceptions=True)
        for controller, end in zip(self._controllers, ends, strict=True):
            if isinstance(end, Exception):
                name = type(controller).__name__
                _LOG.error("cluster %s: %s did not end well: %s", self.id, name, trace(end))
        self._controllers = []

    def _own_controllers(self) -> list[Controller]:
        settings, programs = self._settings, self.programs
        kubelet = Kubelet(self.clock, delay=settings.pod_delay)
        if programs is not None:
            kubelet = Kubelet(self.clock, delay=settings.pod_delay, runs=programs.runs)
        return [
            Mirror(self.directory / "objects"),
            Namespaces(self._authority.certificate.decode()),
            GarbageCollector(),
            Workloads(self.clock),
            kubelet,
            *([] if programs is None else [programs]),
            Volumes(
                self.id,
                self._infrastructure,
                self.clock,
                bind_delay=settings.claim_delay,
                deletion_delay=settings.volume_deletion_delay,
            ),
            LoadBalancers(
                self.id,
                self._infrastructure,
                self.clock,
                delay=settings.load_balancer_delay,
                retry=settings.load_balancer_retry,
            ),
            GrafanaPages(self.directory, lambda: settings.links(self.id)),
        ]

    async def _drive(self, controller: Controller) -> None:
        """Calls a controller whenever something changed or it asked to be called."""
        while True:
            seen = self.store.revision
            try:
                wait = await controller.reconcile(self.store)
            except Exception as error:
                name = type(controller).__name__
                _LOG.error("cluster %s: %s failed, it is called again: %s", self.id, name, trace(error))
                await asyncio.sleep(_AFTER_FAILURE)
                continue
            try:
                async with self.clock.timeout(wait):
                    await self.store.changed(seen)
            except TimeoutError:
                continue
            await asyncio.sleep(_DEBOUNCE)

    def _furnish(self) -> None:
        """What a new cluster holds before anyone uses it."""
        for name in _NAMESPACES:
            self.store.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}, _USER)
        for item in storage_classes():
            self.store.create(item, "mks")
        spec = {"clusterIP": "10.3.0.1", "ports": [{"name": "https", "port": 443, "targetPort": 6443}]}
        metadata = {"name": "kubernetes", "namespace": "default"}
        service = {"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": spec}
        self.store.create(service, "kube-apiserver")


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _node(pool: str, flavor: str) -> Object:
    name = f"{pool}-node-{secrets.token_hex(3)}"
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {
            "name": name,
            "labels": {
                "kubernetes.io/hostname": name,
                "kubernetes.io/os": "linux",
                "kubernetes.io/arch": "amd64",
                "node.kubernetes.io/instance-type": flavor,
                "nodepool": pool,
            },
        },
        "spec": {"providerID": f"openstack:///{secrets.token_hex(16)}"},
    }


def _node_status(flavor: str, version: str) -> Object:
    """Status of a Ready node; size from the flavor's name (`b2-15` has 15 GB; [I] 4 GB per vCPU, rounded)."""
    match = re.fullmatch(r"[a-z]+\d+-(\d+)", flavor)
    memory = int(match.group(1)) if match else 8
    size = {"cpu": str(max(1, round(memory / 3.75))), "memory": f"{memory}G", "pods": "110"}
    moment = now()
    return {
        "addresses": [{"type": "InternalIP", "address": "127.0.0.1"}],
        "capacity": size,
        "allocatable": size,
        "conditions": [
            {
                "type": "Ready",
                "status": "True",
                "reason": "KubeletReady",
                "message": "kubelet is posting ready status",
                "lastHeartbeatTime": moment,
                "lastTransitionTime": moment,
            }
        ],
        "nodeInfo": {
            "architecture": "amd64",
            "operatingSystem": "linux",
            "kubeletVersion": f"v{version.split('-')[0]}",
            "kubeProxyVersion": f"v{version.split('-')[0]}",
            **dict.fromkeys(
                ("bootID", "containerRuntimeVersion", "kernelVersion", "machineID", "osImage", "systemUUID"),
                "sandbox",
            ),
        },
    }

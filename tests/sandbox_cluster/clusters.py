"""Clusters for tests: a running one over HTTPS, a fake of the cloud behind it, and ways to wait."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import ssl
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import yaml

from sandbox.clock import Clock
from sandbox.cluster.cluster import ClusterSettings, KubeCluster
from sandbox.interfaces import LoadBalancer
from sandbox.tls import Authority, KeyPair

Object = dict[str, Any]

FAST = Clock(speed=1000)
"""A platform minute is 60 ms."""


@dataclass
class Cloud:
    """Billed objects; `bound` are addresses that cannot be had, `calls` what was asked in order."""

    volumes: dict[str, tuple[str, int, str]] = field(default_factory=dict)
    balancers: dict[str, tuple[str, str, str, bool]] = field(default_factory=dict)
    bound: set[str] = field(default_factory=set)
    calls: list[str] = field(default_factory=list)
    address: str = "127.94.7.7"

    def create_volume(self, cluster_id: str, name: str, size_gib: int, volume_type: str) -> str:
        self.calls.append("create_volume")
        volume_id = f"volume-{len(self.calls)}"
        self.volumes[volume_id] = (name, size_gib, volume_type)
        return volume_id

    def delete_volume(self, volume_id: str) -> None:
        self.calls.append("delete_volume")
        self.volumes.pop(volume_id, None)

    def create_load_balancer(
        self, cluster_id: str, name: str, flavor: str, address: str | None, keep_address: bool
    ) -> LoadBalancer:
        self.calls.append("create_load_balancer")
        address = address or self.address
        if address in self.bound:
            raise ValueError(f"floating IP {address} is bound to another port")
        balancer_id = f"balancer-{len(self.calls)}"
        self.balancers[balancer_id] = (name, flavor, address, keep_address)
        return LoadBalancer(balancer_id, address)

    def delete_load_balancer(self, load_balancer_id: str) -> None:
        self.calls.append("delete_load_balancer")
        self.balancers.pop(load_balancer_id, None)


@contextlib.asynccontextmanager
async def running(
    directory: Path,
    cloud: Cloud | None = None,
    *,
    settings: ClusterSettings | None = None,
    authority: Authority | None = None,
    nodes: int = 1,
) -> AsyncIterator[KubeCluster]:
    """A cluster that has been started and ends with the block."""
    cluster = KubeCluster(
        "c0ffee",
        "test",
        "1.34.2-1",
        directory,
        clock=FAST,
        infrastructure=cloud or Cloud(),
        authority=authority or Authority(),
        settings=settings or ClusterSettings(),
    )
    await cluster.start()
    cluster.set_nodes("pool", "b2-15", nodes)
    try:
        yield cluster
    finally:
        await cluster.stop()


def tls(
    kubeconfig: str, directory: Path, *, pair: KeyPair | None = None, anonymous: bool = False
) -> ssl.SSLContext:
    """What a client with this kubeconfig uses; `pair` or `anonymous` in place of its certificate."""
    config = yaml.safe_load(kubeconfig)
    authority = base64.b64decode(config["clusters"][0]["cluster"]["certificate-authority-data"])
    context = ssl.create_default_context(cadata=authority.decode())
    if anonymous:
        return context
    user = config["users"][0]["user"]
    if pair is None:
        data = (user["client-certificate-data"], user["client-key-data"])
        pair = KeyPair(*(base64.b64decode(item) for item in data))
    path = directory / "client.pem"
    path.write_bytes(pair.certificate + pair.key)
    context.load_cert_chain(path)
    return context


@contextlib.asynccontextmanager
async def client(
    cluster: KubeCluster, directory: Path, **options: Any
) -> AsyncIterator[aiohttp.ClientSession]:
    """An HTTP session with the cluster's kubeconfig; `options` as those of `tls`."""
    connector = aiohttp.TCPConnector(ssl=tls(cluster.kubeconfig(), directory, **options))
    async with aiohttp.ClientSession(cluster.url, connector=connector) as session:
        yield session


async def eventually(cluster: KubeCluster, holds: Callable[[], Any], what: str) -> Any:
    """Waits until `holds` gives something true, and returns that."""
    async with asyncio.timeout(20):
        while not (result := holds()):
            seen = cluster.store.resource_version
            # Not all that is waited for is a write to the store: look again soon in any case.
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(cluster.store.written(seen), 0.02)
    assert result, what
    return result


def thing(kind: str, name: str, namespace: str | None = "default", api: str = "v1", **body: Any) -> Object:
    """An object; `metadata` in `body` is merged into its metadata."""
    metadata = {"name": name, **({"namespace": namespace} if namespace else {}), **body.pop("metadata", {})}
    return {"apiVersion": api, "kind": kind, "metadata": metadata, **body}


def claim(name: str, size: str = "10Gi", **spec: Any) -> Object:
    """A PersistentVolumeClaim."""
    body = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": size}}, **spec}
    return thing("PersistentVolumeClaim", name, spec=body)


def balancer_service(name: str, **spec: Any) -> Object:
    """A Service of type LoadBalancer on port 80; `annotations` go into its metadata."""
    annotations = spec.pop("annotations", {})
    body = {"type": "LoadBalancer", "ports": [{"port": 80}], **spec}
    return thing("Service", name, metadata={"annotations": annotations}, spec=body)


def workload(kind: str, name: str, pod: Object | None = None, **spec: Any) -> Object:
    """A Deployment, StatefulSet or DaemonSet of one container."""
    template = {
        "metadata": {"labels": {"app": name}},
        "spec": {"containers": [{"name": "main", "image": "example/main:1"}], **(pod or {})},
    }
    body = {"selector": {"matchLabels": {"app": name}}, "template": template, **spec}
    return thing(kind, name, api="apps/v1", spec=body)


def scrape_config(name: str, **spec: Any) -> Object:
    """A ScrapeConfig as the program makes it."""
    body = {
        "jobName": "vllm-ministral",
        "scheme": "HTTPS",
        "metricsPath": "/metrics",
        "scrapeInterval": "5s",
        "scrapeTimeout": "5s",
        "staticConfigs": [{"targets": ["x.app.gra.ai.cloud.ovh.net"], "labels": {"service": "vllm"}}],
        "authorization": {"type": "Bearer", "credentials": {"name": "vllm-auth-token", "key": "token"}},
        **spec,
    }
    return thing("ScrapeConfig", name, api="monitoring.coreos.com/v1alpha1", spec=body)

"""The real kubectl against the sandbox's API server."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from sandbox.cluster.cluster import KubeCluster
from sandbox.cluster.crds import monitoring_crds
from tests.sandbox_cluster.clusters import (
    Cloud,
    balancer_service,
    eventually,
    running,
    scrape_config,
    thing,
    workload,
)

pytestmark = pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl is not on PATH")

BOUND = "127.80.1.2"
"""An address that load balancers cannot have."""


@dataclass(frozen=True)
class Kubectl:
    """kubectl with the kubeconfig of one cluster."""

    home: Path

    async def __call__(self, *arguments: str, text: str = "", fails: bool = False) -> str:
        """Output of a call that has to succeed, or to fail."""
        process = await asyncio.create_subprocess_exec(
            "kubectl",
            *arguments,
            "--request-timeout=20s",
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env={
                "PATH": os.environ["PATH"],
                "HOME": str(self.home),
                "KUBECONFIG": str(self.home / "kubeconfig"),
            },
        )
        raw, _ = await process.communicate(text.encode())
        output = raw.decode()
        assert (process.returncode != 0) == fails, output
        return output


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[KubeCluster]:
    async with running(tmp_path / "cluster", Cloud(bound={BOUND})) as cluster:
        for definition in monitoring_crds():
            cluster.store.create(definition, "test")
        cluster.store.create(thing("Namespace", "monitoring", None), "test")
        yield cluster


@pytest.fixture
def kubectl(cluster: KubeCluster, tmp_path: Path) -> Kubectl:
    (tmp_path / "kubeconfig").write_text(cluster.kubeconfig())
    return Kubectl(tmp_path)


async def test_get_prints_the_columns_of_the_server(cluster: KubeCluster, kubectl: Kubectl) -> None:
    cluster.store.create(balancer_service("web", loadBalancerIP=BOUND), "test")
    cluster.store.create(workload("Deployment", "web"), "test")
    assert "<pending>" in await kubectl("get", "service", "web")
    await eventually(cluster, lambda: "Running" in str(cluster.store.list("Pod")), "a pod runs")
    listed = await kubectl("get", "all", "--all-namespaces")
    assert "deployment.apps/web" in listed
    assert "1/1     Running" in listed
    assert "csi-cinder-high-speed (default)" in await kubectl("get", "storageclass")
    assert "No resources found" in await kubectl("get", "scrapeconfigs", "-A")


async def test_a_network_policy_is_kept_though_nothing_enforces_it(kubectl: Kubectl) -> None:
    policy = """
        apiVersion: networking.k8s.io/v1
        kind: NetworkPolicy
        metadata: {name: exporter}
        spec:
          podSelector: {matchLabels: {app: exporter}}
          ingress: [{from: [{podSelector: {matchLabels: {app: prometheus}}}], ports: [{port: 7979}]}]
    """
    await kubectl("apply", "--server-side", "-f", "-", text=policy)
    assert "app=exporter" in await kubectl("get", "netpol", "exporter")
    printed = yaml.safe_load(await kubectl("get", "netpol", "exporter", "-o", "yaml"))
    assert printed["spec"]["policyTypes"] == ["Ingress"]
    assert printed["spec"]["ingress"][0]["ports"] == [{"port": 7979, "protocol": "TCP"}]


async def test_get_prints_objects_as_yaml(cluster: KubeCluster, kubectl: Kubectl) -> None:
    cluster.store.create(scrape_config("vllm"), "test")
    printed = yaml.safe_load(await kubectl("get", "scfg", "vllm", "-o", "yaml"))
    assert printed["spec"]["jobName"] == "vllm-ministral"


async def test_describe_shows_events(cluster: KubeCluster, kubectl: Kubectl) -> None:
    service = cluster.store.create(balancer_service("web"), "test")
    await eventually(cluster, lambda: cluster.store.list("Event", "default"), "an event")
    described = await kubectl("describe", "service", "web")
    assert "EnsuringLoadBalancer" in described
    assert service["spec"]["clusterIP"] in described
    for kind in ("node", "namespace", "crd"):
        assert "Name:" in await kubectl("describe", kind)


async def test_delete_waits_until_a_namespace_is_gone(cluster: KubeCluster, kubectl: Kubectl) -> None:
    cluster.store.create(thing("ConfigMap", "x", "monitoring"), "test")
    assert 'namespace "monitoring" deleted' in await kubectl("delete", "namespace", "monitoring")
    assert cluster.store.get("Namespace", "", "monitoring") is None
    assert "NotFound" in await kubectl("get", "namespace", "monitoring", fails=True)


async def test_apply_creates_changes_and_removes_fields(cluster: KubeCluster, kubectl: Kubectl) -> None:
    first = yaml.safe_dump(
        balancer_service("web", ports=[{"port": 80, "name": "a"}, {"port": 81, "name": "b"}])
    )
    assert "created" in await kubectl("apply", "-f", "-", text=first)
    second = yaml.safe_dump(balancer_service("web", ports=[{"port": 81, "name": "b"}]))
    assert "configured" in await kubectl("apply", "-f", "-", text=second)
    assert "unchanged" in await kubectl("apply", "-f", "-", text=second)
    stored = cluster.store.get("Service", "default", "web")
    assert stored is not None
    assert [port["port"] for port in stored["spec"]["ports"]] == [81]


async def test_apply_shows_why_an_object_is_refused(kubectl: Kubectl) -> None:
    bad = yaml.safe_dump(scrape_config("x", scrapeTimeout="6s"))
    assert "must not be greater than scrapeInterval" in await kubectl(
        "apply", "-f", "-", text=bad, fails=True
    )
    unknown = yaml.safe_dump(thing("ConfigMap", "x", dta={"a": "1"}))
    assert 'unknown field "dta"' in await kubectl("apply", "-f", "-", text=unknown, fails=True)

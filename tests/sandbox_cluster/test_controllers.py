"""What happens in a cluster after an object was written: volumes, load balancers, pods, deletions, files."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import ipaddress
import random
import ssl
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import yaml

from sandbox.cluster.cluster import ClusterSettings, KubeCluster
from sandbox.cluster.controllers.load_balancers import (
    ADDRESS,
    FINALIZER,
    FLAVOR,
    KEEP_ADDRESS,
    LoadBalancers,
)
from sandbox.cluster.mirror import HIDDEN, Mirror
from sandbox.cluster.storage import ObjectStore, owner_reference
from sandbox.tls import Authority
from tests.sandbox_cluster.clusters import (
    Cloud,
    balancer_service,
    claim,
    eventually,
    running,
    thing,
    workload,
)

Object = dict[str, Any]


def fetched(cluster: KubeCluster, kind: str, name: str, namespace: str = "default") -> Object:
    found = cluster.store.get(kind, namespace, name)
    assert found is not None, f"{kind} {name} is gone"
    return found


async def until(cluster: KubeCluster, kind: str, name: str, holds: Any, namespace: str = "default") -> Object:
    """The object once `holds(object)`."""

    def look() -> Object | None:
        found = cluster.store.get(kind, namespace, name)
        return found if found is not None and holds(found) else None

    result: Object = await eventually(cluster, look, f"{kind} {name}")
    return result


async def gone(cluster: KubeCluster, kind: str, name: str, namespace: str = "default") -> None:
    await eventually(cluster, lambda: cluster.store.get(kind, namespace, name) is None, f"{kind} {name} goes")


def reasons(cluster: KubeCluster, name: str) -> set[str]:
    events = cluster.store.list("Event")
    return {event["reason"] for event in events if event["involvedObject"]["name"] == name}


def has_address(service: Object) -> bool:
    return bool(service["status"]["loadBalancer"].get("ingress"))


def is_bound(item: Object) -> bool:
    return bool(item["status"]["phase"] == "Bound")


async def test_a_load_balancer_takes_the_reserved_address(tmp_path: Path) -> None:
    cloud = Cloud()
    async with running(tmp_path, cloud) as cluster:
        annotations = {FLAVOR: "medium", KEEP_ADDRESS: "true"}
        value = balancer_service("web", annotations=annotations, loadBalancerIP="127.80.1.2")
        cluster.store.create(value, "test")
        service = await until(cluster, "Service", "web", has_address)
        assert service["status"]["loadBalancer"] == {"ingress": [{"ip": "127.80.1.2", "ipMode": "VIP"}]}
        assert service["metadata"]["annotations"][ADDRESS] == "127.80.1.2"
        assert service["metadata"]["finalizers"] == [FINALIZER]
        expected = ("kube_service_c0ffee_default_web", "medium", "127.80.1.2", True)
        assert list(cloud.balancers.values()) == [expected]
        cluster.store.delete("Service", "default", "web")
        await gone(cluster, "Service", "web")
        assert cloud.balancers == {}


async def test_an_address_that_is_bound_elsewhere_leaves_the_service_pending_until_it_is_free(
    tmp_path: Path,
) -> None:
    cloud = Cloud(bound={"127.80.1.2"})
    async with running(tmp_path, cloud) as cluster:
        cluster.store.create(balancer_service("web", loadBalancerIP="127.80.1.2"), "test")
        await eventually(cluster, lambda: cloud.calls.count("create_load_balancer") > 1, "a second attempt")
        assert not has_address(fetched(cluster, "Service", "web"))
        assert "SyncLoadBalancerFailed" in reasons(cluster, "web")
        cloud.bound.clear()
        await until(cluster, "Service", "web", has_address)


async def test_a_service_that_never_got_a_load_balancer_can_be_deleted(tmp_path: Path) -> None:
    async with running(tmp_path, Cloud(bound={"127.80.1.2"})) as cluster:
        cluster.store.create(balancer_service("web", loadBalancerIP="127.80.1.2"), "test")
        await until(cluster, "Service", "web", lambda item: item["metadata"].get("finalizers"))
        cluster.store.delete("Service", "default", "web")
        await gone(cluster, "Service", "web")


async def test_another_flavor_makes_another_load_balancer_on_the_kept_address(tmp_path: Path) -> None:
    cloud = Cloud()
    async with running(tmp_path, cloud) as cluster:
        cluster.store.create(balancer_service("web", annotations={KEEP_ADDRESS: "true"}), "test")
        await until(cluster, "Service", "web", has_address)
        cloud.address = "127.99.9.9"  # what a new one would get
        service = fetched(cluster, "Service", "web")
        service["metadata"]["annotations"][FLAVOR] = "large"
        cluster.store.update(service, "test")
        await eventually(cluster, lambda: cloud.calls.count("create_load_balancer") == 2, "the second one")
        await until(cluster, "Service", "web", has_address)
        (made,) = cloud.balancers.values()
        assert made[1:3] == ("large", "127.94.7.7")


@dataclass
class Ticking:
    """A clock on which a second passes with each look."""

    seconds: float = 0
    speed: float = 1

    def monotonic(self) -> float:
        self.seconds += 1
        return self.seconds


async def test_an_address_that_gets_due_during_a_pass_is_published_by_the_next() -> None:
    store = ObjectStore("1.34")
    store.create(thing("Namespace", "default", None), "test")
    store.create(balancer_service("web"), "test")
    clock: Any = Ticking()
    balancers = LoadBalancers("c0ffee", Cloud(), clock, delay=2.5, retry=1)
    while await balancers.reconcile(store) is not None:
        assert clock.seconds < 100
    assert has_address(store.list("Service")[0])


async def test_a_claim_becomes_a_volume_that_goes_with_it(tmp_path: Path) -> None:
    cloud = Cloud()
    async with running(tmp_path, cloud) as cluster:
        cluster.store.create(claim("data", "50Gi"), "test")
        bound = await until(cluster, "PersistentVolumeClaim", "data", is_bound)
        assert bound["spec"]["storageClassName"] == "csi-cinder-high-speed"
        name = bound["spec"]["volumeName"]
        assert list(cloud.volumes.values()) == [(name, 50, "high-speed")]
        assert is_bound(fetched(cluster, "PersistentVolume", name, ""))
        cluster.store.delete("PersistentVolumeClaim", "default", "data")
        await gone(cluster, "PersistentVolume", name, "")
        assert cloud.volumes == {}


async def test_volumes_and_load_balancers_of_a_deleted_cluster_stay_behind(tmp_path: Path) -> None:
    cloud = Cloud()
    async with running(tmp_path, cloud) as cluster:
        cluster.store.create(claim("data"), "test")
        cluster.store.create(balancer_service("web"), "test")
        await until(cluster, "PersistentVolumeClaim", "data", is_bound)
        await until(cluster, "Service", "web", has_address)
    assert (len(cloud.volumes), len(cloud.balancers)) == (1, 1)


@pytest.mark.parametrize(
    ("spec", "text"),
    [
        ({"storageClassName": "csi-cinder-high-speed-gen-2"}, "csi-cinder-high-speed-gen2"),
        ({"accessModes": ["ReadWriteMany"]}, "ReadWriteOnce only"),
    ],
)
async def test_a_claim_that_cannot_be_had_stays_pending_and_says_why(
    tmp_path: Path, spec: dict[str, Any], text: str
) -> None:
    async with running(tmp_path) as cluster:
        cluster.store.create(claim("data", **spec), "test")
        await eventually(cluster, lambda: "ProvisioningFailed" in reasons(cluster, "data"), "an event")
        assert text in cluster.store.list("Event", "default")[0]["message"]
        assert fetched(cluster, "PersistentVolumeClaim", "data")["status"]["phase"] == "Pending"


async def test_a_retained_volume_outlives_its_claim(tmp_path: Path) -> None:
    cloud = Cloud()
    async with running(tmp_path, cloud) as cluster:
        kept = thing(
            "StorageClass",
            "kept",
            None,
            "storage.k8s.io/v1",
            provisioner="cinder.csi.openstack.org",
            parameters={"type": "classic"},
            reclaimPolicy="Retain",
        )
        cluster.store.create(kept, "test")
        cluster.store.create(claim("data", storageClassName="kept"), "test")
        bound = await until(cluster, "PersistentVolumeClaim", "data", is_bound)
        cluster.store.delete("PersistentVolumeClaim", "default", "data")
        name = bound["spec"]["volumeName"]
        await until(cluster, "PersistentVolume", name, lambda item: item["status"]["phase"] == "Released", "")
        cluster.store.delete("PersistentVolume", "", name)
        await gone(cluster, "PersistentVolume", name, "")
        assert len(cloud.volumes) == 1


async def test_claims_of_a_stateful_set_stay_when_it_is_deleted(tmp_path: Path) -> None:
    cloud = Cloud()
    async with running(tmp_path, cloud) as cluster:
        template = {"metadata": {"name": "db"}, "spec": claim("db", "50Gi")["spec"]}
        value = workload(
            "StatefulSet", "prometheus", replicas=2, serviceName="p", volumeClaimTemplates=[template]
        )
        cluster.store.create(value, "test")
        await until(
            cluster, "StatefulSet", "prometheus", lambda item: item["status"].get("readyReplicas") == 2
        )
        names = [item["metadata"]["name"] for item in cluster.store.list("PersistentVolumeClaim")]
        assert names == ["db-prometheus-0", "db-prometheus-1"]
        cluster.store.delete("StatefulSet", "default", "prometheus")
        await eventually(cluster, lambda: not cluster.store.list("Pod"), "the pods go")
        assert len(cluster.store.list("PersistentVolumeClaim")) == 2
        assert len(cloud.volumes) == 2


def ready(kind: str) -> Any:
    field = "numberReady" if kind == "DaemonSet" else "readyReplicas"
    return lambda item: item["status"].get(field) == 2


@pytest.mark.parametrize("kind", ["Deployment", "StatefulSet", "DaemonSet"])
async def test_workloads_get_ready_when_there_are_nodes(tmp_path: Path, kind: str) -> None:
    replicas: Object = {} if kind == "DaemonSet" else {"replicas": 2}
    async with running(tmp_path, nodes=0) as cluster:
        cluster.store.create(workload(kind, "web", **replicas), "test")
        if kind != "DaemonSet":
            await eventually(
                cluster,
                lambda: any(event["reason"] == "FailedScheduling" for event in cluster.store.list("Event")),
                "pods cannot be placed",
            )
        assert not ready(kind)(fetched(cluster, kind, "web"))
        cluster.set_nodes("pool", "b2-15", 2)
        item = await until(cluster, kind, "web", ready(kind))
        assert item["status"]["observedGeneration"] == item["metadata"]["generation"]
        cluster.store.delete(kind, "default", "web")
        await eventually(cluster, lambda: not cluster.store.list("Pod"), "the pods go with it")


async def test_a_new_template_replaces_the_pods_of_a_deployment(tmp_path: Path) -> None:
    async with running(tmp_path) as cluster:
        cluster.store.create(workload("Deployment", "web"), "test")
        await until(cluster, "Deployment", "web", lambda item: item["status"].get("readyReplicas") == 1)
        (before,) = cluster.store.list("Pod")
        pod = {"containers": [{"name": "main", "image": "example/main:2"}]}
        cluster.store.update(workload("Deployment", "web", pod), "test")

        def replaced() -> bool:
            pods = cluster.store.list("Pod")
            images = [item["spec"]["containers"][0]["image"] for item in pods]
            return images == ["example/main:2"] and pods[0]["status"]["phase"] == "Running"

        await eventually(cluster, replaced, "the new pod")
        assert cluster.store.get("Pod", "default", before["metadata"]["name"]) is None


async def test_a_pod_waits_for_the_secret_that_it_mounts(tmp_path: Path) -> None:
    async with running(tmp_path) as cluster:
        pod = {
            "containers": [
                {
                    "name": "main",
                    "image": "example/main:1",
                    "env": [
                        {"name": "A", "valueFrom": {"secretKeyRef": {"name": "login", "key": "password"}}}
                    ],
                }
            ],
            "volumes": [{"name": "tls", "secret": {"secretName": "certificate"}}],
        }
        cluster.store.create(workload("Deployment", "web", pod), "test")

        def said() -> bool:
            texts = " ".join(event["message"] for event in cluster.store.list("Event"))
            return 'secret "certificate" not found' in texts and 'secret "login" not found' in texts

        await eventually(cluster, said, "events about both")
        cluster.store.create(thing("Secret", "certificate"), "test")
        cluster.store.create(thing("Secret", "login", stringData={"password": "hunter2"}), "test")
        await until(cluster, "Deployment", "web", lambda item: item["status"].get("readyReplicas") == 1)


async def test_a_job_completes_and_goes_after_its_time(tmp_path: Path) -> None:
    async with running(tmp_path) as cluster:
        arguments = [
            "create",
            "--host=operator,operator.default.svc",
            "--namespace=default",
            "--secret-name=made",
        ]
        container = {"name": "create", "image": "example/kube-webhook-certgen:1", "args": arguments}
        template = {"spec": {"restartPolicy": "OnFailure", "containers": [container]}}
        spec = {"template": template, "ttlSecondsAfterFinished": 600}
        cluster.store.create(thing("Job", "create", api="batch/v1", spec=spec), "test")
        job = await until(cluster, "Job", "create", lambda item: item["status"].get("succeeded") == 1)
        assert {item["type"] for item in job["status"]["conditions"]} == {"SuccessCriteriaMet", "Complete"}
        assert set(fetched(cluster, "Secret", "made")["data"]) == {"ca", "cert", "key"}
        await gone(cluster, "Job", "create")
        await eventually(cluster, lambda: not cluster.store.list("Pod"), "its pod goes")


async def test_nodes_follow_the_pool(tmp_path: Path) -> None:
    async with running(tmp_path, nodes=3) as cluster:
        before = [node["metadata"]["name"] for node in cluster.store.list("Node")]
        cluster.set_nodes("other", "b2-7", 1)
        cluster.set_nodes("pool", "b2-15", 1)
        after = [node["metadata"]["name"] for node in cluster.store.list("Node", labels={"nodepool": "pool"})]
        assert len(after) == 1
        assert set(after) < set(before)
        cluster.set_nodes("pool", "b2-15", 0)
        (left,) = cluster.store.list("Node")
        assert left["status"]["capacity"] == {"cpu": "2", "memory": "7G", "pods": "110"}


async def test_a_namespace_goes_with_all_that_it_holds_and_costs(tmp_path: Path) -> None:
    cloud = Cloud()
    async with running(tmp_path, cloud) as cluster:
        cluster.store.create(thing("Namespace", "monitoring", None), "test")
        for value in (
            claim("data"),
            balancer_service("web"),
            workload("Deployment", "app"),
            thing("Secret", "x"),
        ):
            value["metadata"]["namespace"] = "monitoring"
            cluster.store.create(value, "test")
        await until(cluster, "PersistentVolumeClaim", "data", is_bound, "monitoring")
        await until(cluster, "Service", "web", has_address, "monitoring")
        assert fetched(cluster, "ServiceAccount", "default", "monitoring")
        deleted = cluster.store.delete("Namespace", "", "monitoring")
        assert deleted["status"]["phase"] == "Terminating"
        await gone(cluster, "Namespace", "monitoring", "")
        assert not [header for header in cluster.store.headers() if header.namespace == "monitoring"]
        await eventually(cluster, lambda: not cloud.volumes, "the volume goes")
        assert cloud.balancers == {}


async def test_objects_go_with_their_last_owner(tmp_path: Path) -> None:
    async with running(tmp_path) as cluster:
        owners = [cluster.store.create(thing("ConfigMap", name), "test") for name in ("one", "two")]
        references = [owner_reference(owner, controller=False) for owner in owners]
        cluster.store.create(thing("Secret", "owned", metadata={"ownerReferences": references}), "test")
        cluster.store.delete("ConfigMap", "default", "one")
        cluster.store.delete("ConfigMap", "default", "two", propagation="Foreground")
        await gone(cluster, "ConfigMap", "two")
        assert cluster.store.get("Secret", "default", "owned") is None


async def test_a_foreground_deletion_waits_for_dependents(tmp_path: Path) -> None:
    async with running(tmp_path) as cluster:
        owner = cluster.store.create(thing("ConfigMap", "owner"), "test")
        metadata = {"ownerReferences": [owner_reference(owner)], "finalizers": ["example.com/held"]}
        cluster.store.create(thing("Secret", "owned", metadata=metadata), "test")
        cluster.store.delete("ConfigMap", "default", "owner", propagation="Foreground")
        owned = await until(cluster, "Secret", "owned", lambda item: "deletionTimestamp" in item["metadata"])
        assert fetched(cluster, "ConfigMap", "owner")
        cluster.store.update({**owned, "metadata": {**owned["metadata"], "finalizers": []}}, "test")
        await gone(cluster, "ConfigMap", "owner")


async def test_a_controller_that_raises_is_called_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sandbox.cluster.cluster._AFTER_FAILURE", 0.05)
    calls: list[int] = []

    class Flaky:
        async def reconcile(self, store: ObjectStore) -> float | None:
            calls.append(store.revision)
            if len(calls) == 1:
                raise RuntimeError("once")
            return 1.0

        async def stop(self) -> None:
            calls.append(-1)

    async with running(tmp_path, settings=ClusterSettings(controllers=lambda cluster: [Flaky()])) as cluster:
        await eventually(cluster, lambda: len(calls) > 2, "it is called again, and again in time")
    assert calls[-1] == -1
    assert "Flaky failed" in caplog.text


async def test_a_controller_that_does_not_end_well_keeps_no_other_from_ending(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    ended: list[str] = []

    class Named:
        def __init__(self, name: str) -> None:
            self.name = name

        async def reconcile(self, store: ObjectStore) -> float | None:
            return None

        async def stop(self) -> None:
            if self.name == "bad":
                raise OSError("no space left on device")
            ended.append(self.name)

    settings = ClusterSettings(controllers=lambda cluster: [Named("bad"), Named("good")])
    async with running(tmp_path, settings=settings):
        pass
    assert ended == ["good"]
    assert "Named did not end well" in caplog.text


def everything(directory: Path) -> str:
    return "".join(path.read_text() for path in directory.rglob("*") if path.is_file())


async def test_files_show_objects_but_no_secret(tmp_path: Path) -> None:
    async with running(tmp_path) as cluster:
        applied = {"kubectl.kubernetes.io/last-applied-configuration": '{"data":{"token":"aHVudGVyMg=="}}'}
        secret = thing("Secret", "login", stringData={"token": "hunter2"}, metadata={"annotations": applied})
        cluster.store.create(secret, "test")
        cluster.store.create(thing("ConfigMap", "notes", data={"text": "line 1\nline 2\n"}), "test")
        objects = tmp_path / "objects"
        path = objects / "default" / "Secret" / "login.yaml"
        await eventually(
            cluster, lambda: path.exists() and (objects / "default/ConfigMap/notes.yaml").exists(), "files"
        )
        assert yaml.safe_load(path.read_text())["data"] == {"token": HIDDEN}
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert (objects / "_cluster" / "Namespace" / "default.yaml").exists()
        written = everything(tmp_path)
        assert "hunter2" not in written
        assert base64.b64encode(b"hunter2").decode() not in written
        cluster.store.delete("Secret", "default", "login")
        await eventually(cluster, lambda: not path.exists(), "the file goes with the object")
    assert not objects.exists()


async def test_files_that_cannot_be_written_do_not_keep_the_cluster_from_ending(tmp_path: Path) -> None:
    (tmp_path / "objects").write_text("no folder")
    store = ObjectStore("1.34")
    store.create(thing("Namespace", "default", None), "test")
    mirror = Mirror(tmp_path / "objects")
    with pytest.raises(OSError, match="objects"):
        await mirror.reconcile(store)
    (tmp_path / "objects").unlink()
    await mirror.stop()


def loopback() -> str:
    """An address of our own that nobody else listens on."""
    return str(ipaddress.ip_address("127.64.0.0") + random.randrange(1 << 22))  # noqa: S311


async def page(address: str, port: int, authority: Authority | None = None) -> str:
    scheme = "http" if port == 80 else "https"
    context = ssl.create_default_context(cadata=authority.certificate.decode()) if authority else True
    async with (
        aiohttp.ClientSession() as session,
        session.get(f"{scheme}://{address}:{port}/d/x", ssl=context) as answer,
    ):
        assert answer.content_type == "text/html"
        return await answer.text()


def dashboard(name: str, uid: str, title: str) -> Object:
    labels = {"labels": {"grafana_dashboard": "1"}}
    text = f'{{"uid": "{uid}", "title": "{title}"}}'
    return thing("ConfigMap", name, metadata=labels, data={f"{name}.json": text})


async def test_a_page_says_what_grafana_would_show(tmp_path: Path) -> None:
    address, port, authority = loopback(), 20000 + random.randrange(10000), Authority()  # noqa: S311
    links = {"Prometheus": "http://127.0.0.1:9090"}
    async with running(
        tmp_path, Cloud(address=address), settings=ClusterSettings(links=lambda cluster_id: links)
    ) as cluster:
        pair = authority.server([address])
        data = {"tls.crt": pair.certificate, "tls.key": pair.key}
        encoded = {key: base64.b64encode(item).decode() for key, item in data.items()}
        cluster.store.create(dashboard("vllm", "vllm-uid", "vLLM <live>"), "test")
        labels = {"labels": {"grafana_dashboard": "1"}}
        cluster.store.create(thing("ConfigMap", "list", metadata=labels, data={"list.json": "[]"}), "test")
        cluster.store.create(balancer_service("monitoring-grafana", ports=[{"port": port}]), "test")
        await until(cluster, "Service", "monitoring-grafana", has_address)
        cluster.store.create(thing("Secret", "grafana-tls", type="kubernetes.io/tls", data=encoded), "test")

        async def open_page() -> str:
            async with asyncio.timeout(10):
                while True:
                    with contextlib.suppress(aiohttp.ClientConnectorError):
                        return await page(address, port, authority)
                    await asyncio.sleep(0.02)

        text = await open_page()
        assert "Grafana does not run here" in text
        assert "vLLM &lt;live&gt;" in text
        assert "vllm-uid" in text
        assert "default/list/list.json is no dashboard" in text
        assert "http://127.0.0.1:9090" in text
        cluster.store.delete("Service", "default", "monitoring-grafana")
        await gone(cluster, "Service", "monitoring-grafana")
    with pytest.raises(aiohttp.ClientConnectorError):
        await page(address, port, authority)


async def test_a_page_that_cannot_listen_is_no_failure(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    async with running(tmp_path, Cloud(address="192.0.2.1")) as cluster:  # not an address of this machine
        cluster.store.create(balancer_service("monitoring-grafana"), "test")
        await eventually(cluster, lambda: "no page for Grafana on 192.0.2.1:80" in caplog.text, "a log line")
        assert "Traceback" not in caplog.text

"""The kubernetes stand-in as a process, driven over gRPC, against a cluster of the sandbox over HTTPS."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from google.protobuf import empty_pb2
from pulumi.runtime.proto import provider_pb2

from sandbox.clock import Clock
from sandbox.cluster.cluster import ClusterSettings, KubeCluster
from sandbox.cluster.crds import monitoring_crds
from sandbox.cluster.errors import ApiError
from sandbox.plugins.kubernetes.records import decode, encode
from sandbox.plugins.values import Object, Secret, reveal_object, to_struct
from sandbox.tls import Authority
from tests.sandbox_cluster.clusters import Cloud, running
from tests.sandbox_plugins.engine import recorded_state
from tests.sandbox_plugins.kubernetes_process import CheckFailed, Engine, Failure, State, engine

RECORDED = json.loads((Path(__file__).parents[1] / "fixtures/pulumi-kubernetes-state.json").read_text())
REPOSITORY = "https://prometheus-community.github.io/helm-charts"
NAMESPACE = "kubernetes:core/v1:Namespace"
SECRET = "kubernetes:core/v1:Secret"
CONFIG_MAP = "kubernetes:core/v1:ConfigMap"
SERVICE = "kubernetes:core/v1:Service"
CLAIM = "kubernetes:core/v1:PersistentVolumeClaim"
SCRAPE_CONFIG = "kubernetes:monitoring.coreos.com/v1alpha1:ScrapeConfig"
RELEASE = "kubernetes:helm.sh/v3:Release"


pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.fixture
def cloud() -> Cloud:
    return Cloud(address="127.88.77.66")


@pytest_asyncio.fixture(loop_scope="module")
async def cluster(tmp_path: Path, cloud: Cloud) -> AsyncIterator[KubeCluster]:
    async with running(tmp_path, cloud) as cluster:
        yield cluster


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def process() -> AsyncIterator[Engine]:
    """One process for all tests, since its start is what takes time; each test configures it anew."""
    async with engine() as started:
        yield started


@pytest_asyncio.fixture(loop_scope="module")
async def plugin(process: Engine, cluster: KubeCluster) -> Engine:
    await process.configure(cluster.kubeconfig())
    return process


def recorded(token: str, name: str) -> dict[str, Any]:
    """A recorded resource, with secrets as they travel."""
    found = next(
        item
        for item in RECORDED["resources"]
        if item["type"] == token and item["id"].rpartition("/")[2] == name
    )
    revived: dict[str, Any] = recorded_state(found)
    return revived


def stable(state: Any) -> Any:
    """State without what differs from run to run: times, versions, uids, addresses, random names."""
    volatile = {
        "creationTimestamp",
        "time",
        "resourceVersion",
        "uid",
        "clusterIP",
        "clusterIPs",
        "nodePort",
        "__fieldManager",
        "ip",
    }
    if isinstance(state, dict):
        return {key: stable(item) for key, item in state.items() if key not in volatile}
    if isinstance(state, list):
        return [stable(item) for item in state]
    return Secret(stable(state.value)) if isinstance(state, Secret) else state


async def up(plugin: Engine, token: str, name: str, namespace: str = "monitoring") -> State:
    """Creates a recorded resource."""
    return await plugin.create(token, name, recorded(token, name)["inputs"])


async def make_namespace(plugin: Engine) -> State:
    return await up(plugin, NAMESPACE, "monitoring")


async def made_crds(cluster: KubeCluster) -> None:
    for definition in monitoring_crds():
        cluster.store.create(definition, "test")


def live(cluster: KubeCluster, kind: str, namespace: str, name: str) -> dict[str, Any]:
    """An object that has to be there."""
    found = cluster.store.get(kind, namespace, name)
    assert found is not None, f"{kind} {namespace}/{name}"
    return found


async def until(cluster: KubeCluster, condition: Callable[[], bool]) -> None:
    """Waits for a change of the cluster that makes `condition` true."""
    while not condition():
        await cluster.store.changed(cluster.store.revision)


def config_map(name: str | None = "dashboard", **data: str) -> Object:
    metadata: dict[str, Any] = {"namespace": "monitoring"} | ({"name": name} if name else {})
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": dict(data)}


@pytest.mark.parametrize(
    ("token", "name"),
    [
        (NAMESPACE, "monitoring"),
        (SECRET, "vllm-auth-token"),
        (SECRET, "grafana-admin"),
        ("kubernetes:monitoring.coreos.com/v1:PrometheusRule", "vllm"),
        (SCRAPE_CONFIG, "vllm-ministral-0"),
    ],
)
async def test_a_created_object_leaves_the_recorded_state(
    cluster: KubeCluster, plugin: Engine, token: str, name: str
) -> None:
    await made_crds(cluster)
    if token != NAMESPACE:
        await make_namespace(plugin)
    state = await up(plugin, token, name)
    expected = recorded(token, name)
    assert state.id == expected["id"]
    assert state.inputs == expected["inputs"]
    assert stable(state.outputs) == stable(expected["outputs"])
    assert str(state.outputs["__fieldManager"]).startswith("pulumi-kubernetes-")


async def test_the_same_inputs_again_are_no_change(cluster: KubeCluster, plugin: Engine) -> None:
    await made_crds(cluster)
    states = [await make_namespace(plugin)]
    states += [
        await up(plugin, SECRET, "vllm-auth-token"),
        await up(plugin, SCRAPE_CONFIG, "vllm-ministral-0"),
    ]
    for state in states:
        for each in (state, await plugin.refresh(state)):
            assert each is not None
            difference = await plugin.diff(each, state.inputs)
            assert difference.changes == difference.DIFF_NONE, difference


async def test_drift_shows_after_a_refresh(cluster: KubeCluster, plugin: Engine) -> None:
    await make_namespace(plugin)
    state = await plugin.create(CONFIG_MAP, "dashboard", config_map(json="1"))
    cluster.store.apply(config_map(json="2"), "somebody")
    refreshed = await plugin.refresh(state)
    assert refreshed is not None
    assert refreshed.inputs["data"] == {"json": "2"}
    difference = await plugin.diff(refreshed, state.inputs)
    assert list(difference.detailedDiff) == ["data.json"]


async def test_a_read_finds_what_helm_made_and_nothing_where_nothing_is(
    cluster: KubeCluster, plugin: Engine
) -> None:
    expected = recorded(SERVICE, "monitoring-grafana")
    await make_namespace(plugin)
    outputs = expected["outputs"]
    metadata = {key: outputs["metadata"][key] for key in ("name", "namespace", "labels", "annotations")}
    spec = {
        "type": "LoadBalancer",
        "loadBalancerSourceRanges": outputs["spec"]["loadBalancerSourceRanges"],
        "ports": [{"name": "http-web", "port": 80, "protocol": "TCP", "targetPort": "grafana"}],
        "selector": outputs["spec"]["selector"],
    }
    cluster.store.create(
        {"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": spec},
        "pulumi-resource-kubernetes",
    )

    def service() -> dict[str, Any]:
        return live(cluster, "Service", "monitoring", "monitoring-grafana")

    assert await plugin.get(SERVICE, "monitoring/nothing") is None
    assert await plugin.get(SCRAPE_CONFIG, "monitoring/no-such-kind-yet") is None
    await until(cluster, lambda: bool(service()["status"]["loadBalancer"]))
    found = await plugin.get(SERVICE, "monitoring/monitoring-grafana")
    assert found is not None
    shown, wanted = stable(found.outputs), stable(outputs)
    for each in (shown, wanted):  # who sets the status differs: the recording used kubectl
        del each["metadata"]["managedFields"], each["status"]
    # What OVHcloud's controller adds; the recording had none.
    shown["metadata"].pop("finalizers", None)
    shown["metadata"]["annotations"].pop("loadbalancer.openstack.org/load-balancer-address", None)
    assert shown == wanted


async def test_a_name_is_made_up_once_and_kept(plugin: Engine) -> None:
    await make_namespace(plugin)
    state = await plugin.create(CONFIG_MAP, "dashboard", config_map(name=None, json="1"))
    name = state.id.rpartition("/")[2]
    assert name.startswith("dashboard-")
    assert len(name) == len("dashboard-") + 8
    checked = await plugin.check(CONFIG_MAP, "dashboard", config_map(name=None, json="2"), state.inputs)
    assert checked["metadata"] == state.inputs["metadata"]
    difference = await plugin.diff(state, config_map(name=None, json="2"))
    assert difference.replaces == ["data"]
    assert not difference.deleteBeforeReplace, "a made-up name lets the new one come first"


async def test_a_replaced_object_of_fixed_name_is_deleted_first(plugin: Engine) -> None:
    await make_namespace(plugin)
    state = await up(plugin, SECRET, "vllm-auth-token")
    difference = await plugin.diff(state, dict(state.inputs) | {"data": {"token": "ZGVm"}})
    assert difference.replaces == ["data"]
    assert difference.deleteBeforeReplace


async def test_mutable_secrets_are_updated_in_place(cluster: KubeCluster, plugin: Engine) -> None:
    await plugin.configure(cluster.kubeconfig(), enableSecretMutable="true")
    await make_namespace(plugin)
    state = await up(plugin, SECRET, "vllm-auth-token")
    rotated = dict(state.inputs) | {"data": {"token": Secret("ZGVm")}}
    assert not (await plugin.diff(state, rotated)).replaces
    updated = await plugin.update(state, rotated)
    assert updated.outputs["data"] == Secret({"token": "ZGVm"})
    assert updated.outputs["__fieldManager"] == state.outputs["__fieldManager"]
    stored = live(cluster, "Secret", "monitoring", "vllm-auth-token")
    assert stored["data"] == {"token": "ZGVm"}
    difference = await plugin.diff(updated, rotated)
    assert difference.changes == difference.DIFF_NONE


async def test_an_update_removes_what_the_program_no_longer_says(
    cluster: KubeCluster, plugin: Engine
) -> None:
    state = await plugin.create(NAMESPACE, "monitoring", namespace(team="ml", tier="gold"))
    cluster.store.apply(namespace(owner="ops"), "ops")
    updated = await plugin.update(state, namespace(team="ai"))
    labels = reveal_object(updated.outputs)["metadata"]["labels"]  # type: ignore[index,call-overload]
    assert labels == {"team": "ai", "owner": "ops", "kubernetes.io/metadata.name": "monitoring"}


def namespace(**labels: str) -> Any:
    return {
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": {"name": "monitoring", "labels": labels},
    }


async def test_a_field_of_another_manager_is_a_conflict(cluster: KubeCluster, plugin: Engine) -> None:
    state = await plugin.create(NAMESPACE, "monitoring", namespace(team="ml"))
    cluster.store.apply(namespace(team="ops"), "ops")
    with pytest.raises(Failure, match='conflict with "ops"') as failure:
        await plugin.update(state, namespace(team="ai"))
    assert failure.value.state is not None


async def test_ignored_changes_leave_the_field_to_its_manager(cluster: KubeCluster, plugin: Engine) -> None:
    state = await plugin.create(NAMESPACE, "monitoring", namespace(team="ml"))
    cluster.store.apply(namespace(team="ops"), "ops")
    await plugin.update(state, namespace(team="ml", tier="gold"), ignore=("metadata.labels.team",))
    stored = live(cluster, "Namespace", "", "monitoring")
    assert stored["metadata"]["labels"]["team"] == "ops"
    assert stored["metadata"]["labels"]["tier"] == "gold"


async def test_a_preview_changes_nothing_and_shows_schema_errors(
    cluster: KubeCluster, plugin: Engine
) -> None:
    await make_namespace(plugin)
    shown = await plugin.create(CONFIG_MAP, "dashboard", config_map(json="1"), preview=True)
    assert shown.id == ""
    assert shown.outputs["data"] == {"json": "1"}
    assert "status" not in shown.outputs
    assert cluster.store.get("ConfigMap", "monitoring", "dashboard") is None
    with pytest.raises(Failure, match=r"dashboard.*dataa|dataa.*unknown"):
        await plugin.create(CONFIG_MAP, "dashboard", config_map() | {"dataa": {}}, preview=True)


async def test_a_preview_forgives_what_the_update_will_have_made(plugin: Engine) -> None:
    """Namespace and kind of an object may be made by the same update."""
    for token, name in ((SECRET, "vllm-auth-token"), (SCRAPE_CONFIG, "vllm-ministral-0")):
        inputs = recorded(token, name)["inputs"]
        shown = await plugin.create(token, name, inputs, preview=True)
        assert shown.outputs == shown.inputs


async def test_a_custom_object_before_its_definition_is_an_error(plugin: Engine) -> None:
    await make_namespace(plugin)
    with pytest.raises(Failure, match="Verify that any required CRDs have been created") as failure:
        await up(plugin, SCRAPE_CONFIG, "vllm-ministral-0")
    assert failure.value.state is None


async def test_a_create_waits_for_a_namespace_on_its_way(
    cluster: KubeCluster, plugin: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused = asyncio.Event()
    create = cluster.store.create

    def watched(value: Any, manager: str, **options: Any) -> Any:
        try:
            return create(value, manager, **options)
        except ApiError:
            refused.set()
            raise

    monkeypatch.setattr(cluster.store, "create", watched)
    making = asyncio.create_task(up(plugin, SECRET, "vllm-auth-token"))
    await refused.wait()
    await make_namespace(plugin)
    assert (await making).id == "monitoring/vllm-auth-token"


async def test_an_object_that_is_there_already_is_not_taken_over(plugin: Engine) -> None:
    await make_namespace(plugin)
    with pytest.raises(Failure, match="already exists"):
        await make_namespace(plugin)


async def test_a_bad_secret_is_refused_without_showing_it(plugin: Engine) -> None:
    await make_namespace(plugin)
    bad = recorded(SECRET, "vllm-auth-token")["inputs"] | {"data": Secret({"token": "not base64!"})}
    with pytest.raises(Failure, match="token") as failure:
        await plugin.create(SECRET, "vllm-auth-token", bad)
    assert "not base64!" not in str(failure.value)


async def test_a_load_balancer_without_address_is_kept_and_comes_up_later(
    cloud: Cloud, plugin: Engine
) -> None:
    service: Any = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "web", "namespace": "default"},
        "spec": {"type": "LoadBalancer", "ports": [{"port": 80}], "selector": {"app": "web"}},
    }
    cloud.bound.add(cloud.address)
    with pytest.raises(Failure, match=r"failed to fully initialize.*IP address") as failure:
        await plugin.create(SERVICE, "web", service, seconds=0.5)
    state = failure.value.state
    assert state is not None
    assert state.id == "default/web"
    with pytest.raises(Failure, match="failed to initialize"):
        await plugin.refresh(state)
    cloud.bound.clear()
    updated = await plugin.update(state, service)
    assert "127.88.77.66" in str(updated.outputs["status"])


async def test_an_interrupted_wait_keeps_the_object_in_state(cloud: Cloud, cluster: KubeCluster) -> None:
    cloud.bound.add(cloud.address)
    service: Any = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "web", "namespace": "default"},
        "spec": {"type": "LoadBalancer", "ports": [{"port": 80}]},
    }
    async with engine() as plugin:  # of its own, since a cancelled process waits for nothing any more
        await plugin.configure(cluster.kubeconfig())
        creating = asyncio.create_task(plugin.create(SERVICE, "web", service))
        await until(cluster, lambda: cluster.store.get("Service", "default", "web") is not None)
        await plugin.stub.Cancel(empty_pb2.Empty())
        with pytest.raises(Failure, match="operation was cancelled") as failure:
            await creating
    assert failure.value.state is not None
    assert failure.value.state.id == "default/web"


async def test_skip_await_does_not_wait(cloud: Cloud, plugin: Engine) -> None:
    cloud.bound.add(cloud.address)
    service: Any = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {
            "name": "web",
            "namespace": "default",
            "annotations": {"pulumi.com/skipAwait": "true"},
        },
        "spec": {"type": "LoadBalancer", "ports": [{"port": 80}]},
    }
    assert (await plugin.create(SERVICE, "web", service)).id == "default/web"


async def test_a_claim_that_no_pod_uses_is_ready(plugin: Engine) -> None:
    """The classes of MKS bind with the first consumer: waiting for Bound would be waiting for ever."""
    claim: Any = {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": "data", "namespace": "default"},
        "spec": {
            "accessModes": ["ReadWriteOnce"],
            "storageClassName": "csi-cinder-high-speed",
            "resources": {"requests": {"storage": "1Gi"}},
        },
    }
    state = await plugin.create(CLAIM, "data", claim)
    difference = await plugin.diff(state, claim | {"spec": claim["spec"] | {"storageClassName": "other"}})
    assert difference.replaces == ["spec"]


async def test_deleting_a_namespace_waits_until_it_is_gone(cluster: KubeCluster, plugin: Engine) -> None:
    state = await make_namespace(plugin)
    held = await plugin.create(CONFIG_MAP, "dashboard", config_map(json="1"))
    stored = live(cluster, "ConfigMap", "monitoring", "dashboard")
    stored["metadata"]["finalizers"] = ["example.com/held"]
    cluster.store.update(stored, "test")
    deleting = asyncio.create_task(plugin.delete(state))
    await until(
        cluster, lambda: live(cluster, "Namespace", "", "monitoring")["status"]["phase"] == "Terminating"
    )
    assert not deleting.done()
    stored = live(cluster, "ConfigMap", "monitoring", "dashboard")
    del stored["metadata"]["finalizers"]
    cluster.store.update(stored, "test")
    await deleting
    assert cluster.store.get("Namespace", "", "monitoring") is None
    await plugin.delete(held)  # gone with its namespace: no error


async def test_a_deletion_that_does_not_end_says_what_holds_the_object(
    cluster: KubeCluster, plugin: Engine
) -> None:
    await make_namespace(plugin)
    inputs = config_map(json="1")
    inputs["metadata"]["finalizers"] = ["example.com/held"]  # type: ignore[index,call-overload]
    state = await plugin.create(CONFIG_MAP, "dashboard", inputs)
    with pytest.raises(Failure, match=r"example\.com/held"):
        await plugin.delete(state, seconds=0.2)


async def test_an_unreachable_cluster_is_an_error_of_what_needs_it(
    cluster: KubeCluster, plugin: Engine
) -> None:
    state = await make_namespace(plugin)
    kubeconfig = cluster.kubeconfig()
    await cluster.stop()
    await plugin.configure(kubeconfig)
    shown = await plugin.create(CONFIG_MAP, "dashboard", config_map(json="1"), preview=True)
    assert shown.outputs == shown.inputs
    with pytest.raises(Failure, match=r"configured Kubernetes cluster is unreachable: .*refused"):
        await plugin.create(CONFIG_MAP, "dashboard", config_map(json="1"))
    with pytest.raises(Failure, match="PULUMI_K8S_DELETE_UNREACHABLE"):
        await plugin.refresh(state)
    with pytest.raises(Failure, match="PULUMI_K8S_DELETE_UNREACHABLE"):
        await plugin.delete(state)
    with pytest.raises(Failure, match="can't create Helm Release with unreachable cluster"):
        await plugin.create(RELEASE, "monitoring", release_inputs())
    await plugin.configure(kubeconfig, deleteUnreachable="true")
    assert await plugin.refresh(state) is None
    await plugin.delete(state)


async def diff_config(plugin: Engine, olds: Object, news: Object) -> tuple[list[str], list[str]]:
    answer = await plugin.stub.DiffConfig(
        provider_pb2.DiffRequest(
            urn="urn:pulumi:sandbox::ovh-vllm::pulumi:providers:kubernetes::mks",
            old_inputs=to_struct(olds),
            olds=to_struct(olds),
            news=to_struct(news),
        )
    )
    return sorted(answer.diffs), sorted(answer.replaces)


async def test_the_cluster_identifier_alone_replaces_the_provider(process: Engine) -> None:
    authority = Authority()

    def kubeconfig(port: int) -> str:
        cluster = KubeCluster(
            "id",
            "name",
            "1.34",
            Path("/nonexistent"),
            clock=Clock(),
            infrastructure=Cloud(),
            authority=authority,
            settings=ClusterSettings(),
        )
        return cluster.kubeconfig().replace("127.0.0.1:0", f"127.0.0.1:{port}")

    one, same, another = kubeconfig(1), kubeconfig(1), kubeconfig(2)
    assert one != same, "each kubeconfig has a client certificate of its own"
    assert await diff_config(process, {"kubeconfig": one}, {"kubeconfig": one}) == ([], [])
    assert await diff_config(process, {"kubeconfig": one}, {"kubeconfig": same}) == (["kubeconfig"], [])
    assert await diff_config(process, {"kubeconfig": Secret(one)}, {"kubeconfig": Secret(another)}) == (
        ["kubeconfig"],
        ["kubeconfig"],
    )
    identified: dict[str, Any] = {"kubeconfig": Secret(one), "clusterIdentifier": "a"}
    assert await diff_config(process, identified, identified | {"kubeconfig": another}) == (
        ["kubeconfig"],
        [],
    )
    assert await diff_config(process, identified, identified | {"clusterIdentifier": "b"}) == (
        ["clusterIdentifier"],
        ["clusterIdentifier"],
    )


def release_inputs(**more: Any) -> Any:
    """The recorded release as a program writes it, from the chart's repository."""
    inputs = recorded(RELEASE, "monitoring")["inputs"]
    given = {key: inputs[key] for key in ("chart", "name", "namespace", "values", "version")}
    return given | {"repositoryOpts": {"repo": REPOSITORY}} | more


def with_values(**more: Any) -> dict[str, Any]:
    values: dict[str, Any] = json.loads(json.dumps(release_inputs()["values"]))
    return values | more


async def test_an_unknown_value_key_is_refused_in_the_preview(plugin: Engine) -> None:
    with pytest.raises(CheckFailed, match="grafanna: unknown key"):
        await plugin.check(RELEASE, "monitoring", release_inputs(values=with_values(grafanna={})))


async def test_another_chart_is_refused_in_the_preview(plugin: Engine) -> None:
    with pytest.raises(CheckFailed, match="sandbox"):
        await plugin.check(RELEASE, "monitoring", release_inputs(chart="nginx"))


async def test_life_of_a_release(cluster: KubeCluster, plugin: Engine) -> None:
    store = cluster.store
    await make_namespace(plugin)
    await up(plugin, SECRET, "vllm-auth-token")
    await up(plugin, SECRET, "grafana-admin")
    state = await plugin.create(RELEASE, "monitoring", release_inputs())
    assert state.id == "monitoring/monitoring"
    expected = recorded(RELEASE, "monitoring")["outputs"]
    assert state.outputs["status"] == expected["status"]
    assert state.outputs.keys() - {"repositoryOpts"} == expected.keys()

    # What Helm waits for is ready, its hooks are gone, its record is where Helm keeps it.
    grafana = live(cluster, "Service", "monitoring", "monitoring-grafana")
    assert grafana["status"]["loadBalancer"]["ingress"][0]["ip"] == "127.88.77.66"
    deployment = live(cluster, "Deployment", "monitoring", "monitoring-grafana")
    assert deployment["status"]["availableReplicas"] == 1
    assert store.list("Job") == []
    assert store.get("ClusterRole", "", "monitoring-admission") is None
    assert [item["metadata"]["name"] for item in records(cluster)] == ["sh.helm.release.v1.monitoring.v1"]

    # Now that the kinds are there, an object of them can be made.
    await up(plugin, SCRAPE_CONFIG, "vllm-ministral-0")

    # Nothing changed, also after a refresh.
    refreshed = await plugin.refresh(state)
    assert refreshed == state
    difference = await plugin.diff(state, release_inputs())
    assert difference.changes == difference.DIFF_NONE

    # An upgrade patches, adds and removes.
    values = with_values(additionalPrometheusRulesMap={"more": {"groups": []}})
    values["prometheus"]["prometheusSpec"]["retention"] = "30d"
    upgraded = await plugin.update(state, release_inputs(values=values))
    assert upgraded.outputs["status"]["revision"] == 2  # type: ignore[index,call-overload]
    prometheus = live(cluster, "Prometheus", "monitoring", "monitoring-prometheus")
    assert prometheus["spec"]["retention"] == "30d"
    assert store.get("PrometheusRule", "monitoring", "monitoring-vllm") is None
    assert store.get("PrometheusRule", "monitoring", "monitoring-more") is not None
    statuses = [item["metadata"]["labels"]["status"] for item in records(cluster)]
    assert statuses == ["superseded", "deployed"]

    # The name is taken while the release is there.
    with pytest.raises(Failure, match="cannot re-use a name that is still in use"):
        await plugin.create(RELEASE, "other", release_inputs())

    # An uninstall leaves the definitions and what Helm did not make.
    await plugin.delete(upgraded)
    left = {
        (item["kind"], item["metadata"]["name"])
        for kind in store.kinds
        for item in store.list(kind.kind, "monitoring")
    }
    assert {name for kind, name in left if kind not in ("Event", "ConfigMap", "ServiceAccount")} == {
        "vllm-auth-token",
        "grafana-admin",
        "vllm-ministral-0",
        "monitoring-admission",  # the webhooks' certificate, made by a Job and not by Helm
    }
    assert store.serves("ScrapeConfig")
    assert await plugin.refresh(upgraded) is None
    with pytest.raises(Failure, match="release: not found"):
        await plugin.delete(upgraded)


def records(cluster: KubeCluster) -> list[dict[str, Any]]:
    return cluster.store.list("Secret", "monitoring", labels={"owner": "helm"})


async def test_a_release_that_does_not_come_up_is_kept_and_upgraded_by_the_next_update(
    cloud: Cloud, cluster: KubeCluster, plugin: Engine
) -> None:
    cloud.bound.add(cloud.address)
    await make_namespace(plugin)
    await up(plugin, SECRET, "grafana-admin")
    with pytest.raises(
        Failure, match="Service monitoring/monitoring-grafana: Service was not allocated"
    ) as failure:
        await plugin.create(RELEASE, "monitoring", release_inputs(timeout=1))
    state = failure.value.state
    assert state is not None
    assert state.id == "monitoring/monitoring"
    assert state.outputs["status"]["status"] == "failed"  # type: ignore[index,call-overload]
    assert records(cluster)[0]["metadata"]["labels"]["status"] == "failed"
    cloud.bound.clear()
    updated = await plugin.update(state, release_inputs())
    assert updated.outputs["status"] == recorded(RELEASE, "monitoring")["outputs"]["status"] | {"revision": 2}


async def test_an_atomic_release_that_does_not_come_up_is_removed(
    cloud: Cloud, cluster: KubeCluster, plugin: Engine
) -> None:
    cloud.bound.add(cloud.address)
    await make_namespace(plugin)
    with pytest.raises(Failure, match="uninstalled due to atomic being set") as failure:
        await plugin.create(RELEASE, "monitoring", release_inputs(timeout=1, atomic=True))
    assert failure.value.state is None
    assert records(cluster) == []
    assert cluster.store.get("Service", "monitoring", "monitoring-grafana") is None


async def test_a_release_whose_engine_died_on_the_way_blocks_its_name(
    cluster: KubeCluster, plugin: Engine
) -> None:
    """What a killed `up` leaves is a pending release: Helm refuses until it is removed by hand."""
    await make_namespace(plugin)
    state = await plugin.create(RELEASE, "monitoring", release_inputs(skipAwait=True))
    pending = replace(decode(records(cluster)[0]), status="pending-install")
    cluster.store.apply(encode(pending), "Helm")
    with pytest.raises(Failure, match="cannot re-use a name that is still in use"):
        await plugin.create(RELEASE, "monitoring", release_inputs())
    with pytest.raises(Failure, match=r"another operation .* is in progress"):
        await plugin.update(state, release_inputs())


async def test_an_object_of_somebody_else_stops_the_installation(
    cluster: KubeCluster, plugin: Engine
) -> None:
    await make_namespace(plugin)
    await plugin.create(CONFIG_MAP, "grafana", config_map(name="monitoring-grafana", json="1"))
    with pytest.raises(Failure, match="invalid ownership metadata") as failure:
        await plugin.create(RELEASE, "monitoring", release_inputs())
    assert failure.value.state is None
    assert records(cluster) == []


async def test_a_release_into_a_missing_namespace_fails_without_leaving_anything(
    cluster: KubeCluster, plugin: Engine
) -> None:
    with pytest.raises(Failure, match='namespaces "monitoring" not found') as failure:
        await plugin.create(RELEASE, "monitoring", release_inputs())
    assert failure.value.state is None

"""The API server over HTTPS: who may call, what a client sees."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import yaml

from sandbox.cluster.cluster import KubeCluster
from sandbox.cluster.crds import monitoring_crds
from sandbox.cluster.storage import ObjectStore
from sandbox.cluster.tables import table
from sandbox.tls import Authority
from tests.sandbox_cluster.clusters import client, running, scrape_config, thing

CONFIG_MAPS = "/api/v1/namespaces/default/configmaps"
TABLE = {"Accept": "application/json;as=Table;v=v1;g=meta.k8s.io,application/json"}


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[KubeCluster]:
    async with running(tmp_path / "cluster") as cluster:
        yield cluster


@pytest.fixture
async def api(cluster: KubeCluster, tmp_path: Path) -> AsyncIterator[aiohttp.ClientSession]:
    async with client(cluster, tmp_path) as session:
        yield session


async def call(
    api: aiohttp.ClientSession, method: str, path: str, body: Any = None, **options: Any
) -> tuple[int, Any]:
    data = None if body is None else json.dumps(body)
    headers = {"Content-Type": "application/json", **options.pop("headers", {})}
    async with api.request(method, path, data=data, headers=headers, **options) as answer:
        return answer.status, await answer.json()


def test_the_kubeconfig_has_what_the_provider_reads(tmp_path: Path) -> None:
    """One cluster, one user with a client certificate, one context, as the ovh provider parses it."""

    async def read() -> str:
        async with running(tmp_path) as cluster:
            return cluster.kubeconfig()

    config = yaml.safe_load(asyncio.run(read()))
    assert config["clusters"][0]["cluster"]["server"].startswith("https://127.0.0.1:")
    assert config["clusters"][0]["cluster"]["certificate-authority-data"]
    assert set(config["users"][0]["user"]) == {"client-certificate-data", "client-key-data"}
    assert config["contexts"][0]["context"]["user"] == config["users"][0]["name"]
    assert config["current-context"] == config["contexts"][0]["name"]


async def test_a_caller_without_certificate_is_unauthorized(cluster: KubeCluster, tmp_path: Path) -> None:
    async with client(cluster, tmp_path, anonymous=True) as session:
        status, body = await call(session, "GET", "/api/v1/namespaces")
    assert (status, body["kind"], body["reason"]) == (401, "Status", "Unauthorized")


async def test_a_certificate_of_another_authority_does_not_get_through_tls(
    cluster: KubeCluster, tmp_path: Path
) -> None:
    foreign = Authority().client("kubernetes-admin", "system:masters")
    async with client(cluster, tmp_path, pair=foreign) as session:
        with pytest.raises(aiohttp.ClientError):
            await session.get("/api/v1/namespaces")


async def test_a_user_who_is_no_administrator_is_forbidden(tmp_path: Path) -> None:
    authority = Authority()
    async with running(tmp_path / "cluster", authority=authority) as cluster:
        pair = authority.client("somebody", "developers")
        async with client(cluster, tmp_path, pair=pair) as session:
            status, body = await call(session, "GET", "/api/v1/namespaces")
    assert (status, body["reason"]) == (403, "Forbidden")
    assert '"somebody"' in body["message"]


async def test_ip_restrictions_lock_out_who_is_not_in_them(
    cluster: KubeCluster, api: aiohttp.ClientSession
) -> None:
    cluster.restrict(["203.0.113.0/24"])
    status, body = await call(api, "GET", "/version")
    assert status == 403
    assert "127.0.0.1 is not in the IP restrictions" in body["message"]
    cluster.restrict(["203.0.113.0/24", "127.0.0.0/8"])
    assert (await call(api, "GET", "/version"))[0] == 200
    cluster.restrict([])
    assert (await call(api, "GET", "/version"))[0] == 200


async def test_a_restriction_that_is_no_range_is_refused(cluster: KubeCluster) -> None:
    with pytest.raises(ValueError, match="anywhere"):
        cluster.restrict(["anywhere"])


async def test_discovery_shows_custom_kinds_once_they_are_defined(
    cluster: KubeCluster, api: aiohttp.ClientSession
) -> None:
    path = "/apis/monitoring.coreos.com/v1alpha1"
    assert (await call(api, "GET", path))[0] == 404
    status, body = await call(api, "POST", f"{path}/namespaces/default/scrapeconfigs", scrape_config("x"))
    assert (status, body["reason"]) == (404, "NotFound")
    definitions = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
    for definition in monitoring_crds():
        assert (await call(api, "POST", definitions, definition))[0] == 201
    _, resources = await call(api, "GET", path)
    assert {"scrapeconfigs", "scrapeconfigs/status"} <= {item["name"] for item in resources["resources"]}
    _, groups = await call(api, "GET", "/apis")
    versions = {group["name"]: group["preferredVersion"]["version"] for group in groups["groups"]}
    assert versions["monitoring.coreos.com"] == "v1"
    status, _ = await call(api, "POST", f"{path}/namespaces/default/scrapeconfigs", scrape_config("x"))
    assert status == 201


async def test_the_life_of_an_object(api: aiohttp.ClientSession) -> None:
    value = thing("ConfigMap", "x", data={"a": "1"})
    status, created = await call(api, "POST", CONFIG_MAPS, value, headers={"User-Agent": "tool/1.0"})
    assert status == 201
    assert created["metadata"]["managedFields"][0]["manager"] == "tool"
    assert (await call(api, "POST", CONFIG_MAPS, value))[1]["message"] == 'configmaps "x" already exists'
    created["data"] = {"a": "2"}
    status, replaced = await call(api, "PUT", f"{CONFIG_MAPS}/x", created)
    assert (status, replaced["data"]) == (200, {"a": "2"})
    status, conflict = await call(api, "PUT", f"{CONFIG_MAPS}/x", created)
    assert (status, conflict["reason"]) == (409, "Conflict")
    _, found = await call(api, "GET", CONFIG_MAPS, params={"fieldSelector": "metadata.name=x"})
    assert (found["kind"], [item["metadata"]["name"] for item in found["items"]]) == ("ConfigMapList", ["x"])
    status, gone = await call(api, "DELETE", f"{CONFIG_MAPS}/x")
    assert (status, gone["status"]) == (200, "Success")
    status, missing = await call(api, "GET", f"{CONFIG_MAPS}/x")
    assert (status, missing["message"]) == (404, 'configmaps "x" not found')


@pytest.mark.parametrize(
    ("content_type", "patch"),
    [
        ("application/merge-patch+json", {"data": {"a": "2", "b": None}}),
        ("application/strategic-merge-patch+json", {"data": {"a": "2", "b": None}}),
        (
            "application/json-patch+json",
            [{"op": "replace", "path": "/data/a", "value": "2"}, {"op": "remove", "path": "/data/b"}],
        ),
    ],
)
async def test_patches(api: aiohttp.ClientSession, content_type: str, patch: Any) -> None:
    await call(api, "POST", CONFIG_MAPS, thing("ConfigMap", "x", data={"a": "1", "b": "1"}))
    headers = {"Content-Type": content_type}
    status, patched = await call(api, "PATCH", f"{CONFIG_MAPS}/x", patch, headers=headers)
    assert (status, patched["data"]) == (200, {"a": "2"})


async def test_a_patch_of_what_is_missing_is_not_found(api: aiohttp.ClientSession) -> None:
    headers = {"Content-Type": "application/merge-patch+json"}
    assert (await call(api, "PATCH", f"{CONFIG_MAPS}/x", {"data": {}}, headers=headers))[0] == 404


async def test_server_side_apply_creates_then_changes(api: aiohttp.ClientSession) -> None:
    headers = {"Content-Type": "application/apply-patch+yaml"}
    value = thing("ConfigMap", "x", data={"a": "1"})
    status, refused = await call(api, "PATCH", f"{CONFIG_MAPS}/x", value, headers=headers)
    assert (status, "fieldManager" in refused["message"]) == (422, True)
    for expected in (201, 200):
        status, applied = await call(
            api, "PATCH", f"{CONFIG_MAPS}/x", value, headers=headers, params={"fieldManager": "me"}
        )
        assert (status, applied["data"]) == (expected, {"a": "1"})
    status, conflict = await call(
        api,
        "PATCH",
        f"{CONFIG_MAPS}/x",
        thing("ConfigMap", "x", data={"a": "2"}),
        headers=headers,
        params={"fieldManager": "other"},
    )
    assert (status, conflict["reason"]) == (409, "Conflict")


async def test_a_dry_run_is_answered_and_not_stored(api: aiohttp.ClientSession) -> None:
    status, _ = await call(api, "POST", CONFIG_MAPS, thing("ConfigMap", "x"), params={"dryRun": "All"})
    assert status == 201
    assert (await call(api, "GET", f"{CONFIG_MAPS}/x"))[0] == 404


async def test_labels_select(api: aiohttp.ClientSession) -> None:
    for name, labels in (("a", {"tier": "1"}), ("b", {"tier": "2"}), ("c", {})):
        await call(api, "POST", CONFIG_MAPS, thing("ConfigMap", name, metadata={"labels": labels}))
    selected = {
        "tier": {"a", "b"},
        "tier=1": {"a"},
        "tier in (1, 2),tier!=2": {"a"},
        "!tier": {"c", "kube-root-ca.crt"},
        "tier notin (1)": {"b", "c", "kube-root-ca.crt"},
    }
    for selector, names in selected.items():
        _, found = await call(api, "GET", CONFIG_MAPS, params={"labelSelector": selector})
        assert {item["metadata"]["name"] for item in found["items"]} == names, selector
    assert (await call(api, "GET", CONFIG_MAPS, params={"labelSelector": "a b"}))[0] == 400


async def test_a_watch_shows_what_is_there_and_what_happens(
    cluster: KubeCluster, api: aiohttp.ClientSession
) -> None:
    parameters = {"watch": "true", "labelSelector": "seen=yes"}
    seen = {"labels": {"seen": "yes"}}
    cluster.store.create(thing("ConfigMap", "old", metadata=seen), "test")
    async with api.get(CONFIG_MAPS, params=parameters) as stream:

        async def event() -> tuple[str, str]:
            line = json.loads(await asyncio.wait_for(stream.content.readline(), 10))
            return line["type"], line["object"]["metadata"]["name"]

        assert await event() == ("ADDED", "old")
        cluster.store.create(thing("ConfigMap", "unseen"), "test")
        cluster.store.create(thing("ConfigMap", "new", metadata=seen), "test")
        assert await event() == ("ADDED", "new")
        cluster.store.update(thing("ConfigMap", "new", metadata=seen, data={"a": "1"}), "test")
        assert await event() == ("MODIFIED", "new")
        cluster.store.update(thing("ConfigMap", "new", data={"a": "1"}), "test")
        assert await event() == ("DELETED", "new")  # it no longer matches
        cluster.store.delete("ConfigMap", "default", "old")
        assert await event() == ("DELETED", "old")


async def test_an_open_watch_does_not_hold_up_the_end_of_the_cluster(tmp_path: Path) -> None:
    async with running(tmp_path / "cluster") as cluster, client(cluster, tmp_path) as session:
        stream = await session.get(CONFIG_MAPS, params={"watch": "true"})
        assert stream.status == 200
        async with asyncio.timeout(5):
            await cluster.stop()


async def test_tables_for_kubectl(api: aiohttp.ClientSession) -> None:
    _, answer = await call(api, "GET", "/api/v1/nodes", headers=TABLE)
    assert answer["kind"] == "Table"
    names = [column["name"] for column in answer["columnDefinitions"]]
    cells = dict(zip(names, answer["rows"][0]["cells"], strict=True))
    assert cells["Status"] == "Ready"
    assert cells["Version"] == "v1.34.2"


@pytest.mark.parametrize(
    ("state", "status"),
    [
        ({"running": {"startedAt": "2026-01-01T00:00:00Z"}}, "Running"),
        ({"waiting": {"reason": "CrashLoopBackOff"}}, "CrashLoopBackOff"),
        ({"terminated": {"reason": "Completed", "exitCode": 0}}, "Completed"),
    ],
)
def test_a_pod_shows_how_often_and_why_its_container_stopped(state: dict[str, Any], status: str) -> None:
    store = ObjectStore("1.34")
    store.create(thing("Namespace", "default", None), "test")
    pod = store.create(thing("Pod", "web", spec={"containers": [{"name": "main", "image": "a"}]}), "test")
    containers = [{"name": "main", "ready": False, "restartCount": 3, "state": state}]
    kind = store.kinds.get("Pod")
    assert kind is not None
    shown = table(kind, [{**pod, "status": {"phase": "Running", "containerStatuses": containers}}], "1")
    assert shown["rows"][0]["cells"][:4] == ["web", "0/1", status, "3"]


@pytest.mark.parametrize(
    ("method", "path", "code"),
    [
        ("GET", "/apis/apps/v1/namespaces/default/replicasets", 404),
        ("GET", "/nowhere", 404),
        ("GET", "/api/v1/namespaces/default/pods/x/log", 501),
        ("DELETE", CONFIG_MAPS, 501),
    ],
)
async def test_what_the_sandbox_does_not_have_is_said(
    api: aiohttp.ClientSession, method: str, path: str, code: int
) -> None:
    status, body = await call(api, method, path)
    assert (status, body["kind"], body["code"]) == (code, "Status", code)
    assert path in body["message"]
    assert ("not implemented in the sandbox" in body["message"]) == (code == 501)


@pytest.mark.parametrize(
    ("headers", "body", "code", "text"),
    [
        ({"Content-Type": "application/vnd.kubernetes.protobuf"}, b"k8s\x00", 415, "not protobuf"),
        ({"Content-Type": "application/json"}, b'{"data": hunter2', 400, "neither JSON nor YAML"),
        ({"Content-Type": "application/json"}, b'["hunter2"]', 400, "no object"),
        ({"Content-Type": "application/json"}, b'{"kind": "Secret", "apiVersion": "v1"}', 400, "kind Secret"),
        (
            {"Content-Type": "application/json"},
            b'{"metadata": {"name": 5}}',
            400,
            "metadata.name is no string",
        ),
        ({"Content-Type": "application/json"}, b'{"metadata": {"namespace": "b"}}', 400, "does not match"),
    ],
)
async def test_bodies_that_cannot_be_read_are_refused_without_repeating_them(
    api: aiohttp.ClientSession, headers: dict[str, str], body: bytes, code: int, text: str
) -> None:
    async with api.post(CONFIG_MAPS, data=body, headers=headers) as answer:
        status = await answer.json()
    assert (answer.status, status["kind"]) == (code, "Status")
    assert text in status["message"]
    assert "hunter2" not in status["message"]

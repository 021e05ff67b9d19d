"""Clusters, node pools, and what they leave behind."""

from __future__ import annotations

from typing import Any

import pytest

from sandbox.cloud.settings import Delays
from tests.sandbox_cloud.conftest import MakeWorld, World
from tests.sandbox_cloud.fakes import until

CLUSTER = {"name": "monitoring", "region": "GRA11", "version": "1.34"}
POOL = {"name": "monitoring", "flavorName": "b2-15", "desiredNodes": 3, "minNodes": 3, "maxNodes": 3}


async def ready(world: World, path: str) -> Any:
    """What the path shows once its status is READY; other statuses on the way must be the documented ones."""

    async def reached() -> Any:
        thing = await world.client.project("GET", path)
        assert thing["status"] in ("INSTALLING", "UPDATING", "UPSCALING", "DOWNSCALING", "READY")
        return thing if thing["status"] == "READY" else None

    return await until(reached, f"{path} READY")


async def cluster(world: World) -> str:
    """Path of a READY cluster with three nodes."""
    kube = await world.client.project("POST", "/kube", CLUSTER)
    path = f"/kube/{kube['id']}"
    await ready(world, path)
    pool = await world.client.project("POST", f"{path}/nodepool", POOL)
    await ready(world, f"{path}/nodepool/{pool['id']}")
    return path


async def test_a_cluster_that_installs_has_no_kubeconfig(make_world: MakeWorld) -> None:
    world = await make_world(delays=Delays(cluster=1_000_000))
    kube = await world.client.project("POST", "/kube", CLUSTER)
    assert (kube["status"], kube["version"], kube["plan"]) == ("INSTALLING", "1.34.2-1", "free")
    assert (await world.client.refused("POST", f"/kube/{kube['id']}/kubeconfig")).status == 400


async def test_a_ready_cluster_has_a_kubeconfig(world: World) -> None:
    path = f"/kube/{(await world.client.project('POST', '/kube', CLUSTER))['id']}"
    await ready(world, path)
    assert "kind: Config" in (await world.client.project("POST", f"{path}/kubeconfig"))["content"]


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"region": "GRA"}, "GRA11"),
        ({"version": "1.12"}, "1.34"),
        ({"plan": "standard"}, "EU-WEST-PAR"),
        ({"plan": "gold"}, "plan"),
        ({"nodes": 3}, "nodes"),
    ],
)
async def test_what_is_not_offered_is_refused_with_what_is(
    world: World, change: dict[str, Any], named: str
) -> None:
    answer = await world.client.refused("POST", "/kube", CLUSTER | change)
    assert answer.status == 400
    assert named in answer.body["message"]
    assert await world.client.project("GET", "/kube") == []


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"name": "my_pool"}, "Node pool name my_pool is invalid"),
        ({"name": "my.pool"}, "[InvalidDataError] 400"),
        ({"flavorName": "b9-1"}, "b2-15"),
        ({"desiredNodes": 4}, "desiredNodes"),
        ({"desiredNodes": 3.0}, "desiredNodes"),
    ],
)
async def test_a_wrong_node_pool_is_refused(world: World, change: dict[str, Any], named: str) -> None:
    kube = await world.client.project("POST", "/kube", CLUSTER)
    answer = await world.client.refused("POST", f"/kube/{kube['id']}/nodepool", POOL | change)
    assert (answer.status, answer.body["class"]) == (400, "Client::BadRequest")
    assert named in answer.body["message"]


async def test_a_pool_scales_its_nodes_and_their_bill(world: World) -> None:
    path = await cluster(world)
    fake = next(iter(world.clusters.made.values()))
    assert fake.nodes == {"monitoring": 3}
    pool = (await world.client.project("GET", f"{path}/nodepool"))[0]
    pool_path = f"{path}/nodepool/{pool['id']}"
    change = {"desiredNodes": 2, "minNodes": 2, "maxNodes": 3}
    assert await world.client.project("PUT", pool_path, change) is None
    pool = await ready(world, pool_path)
    assert (pool["desiredNodes"], pool["currentNodes"], fake.nodes) == (2, 2, {"monitoring": 2})
    assert len(await world.client.project("GET", f"{pool_path}/nodes")) == 2
    assert len(await world.client.project("GET", f"{path}/node")) == 2
    assert (await world.client.plain("GET", "/sandbox/bill")).body["perHour"] == 2 * 0.129
    await world.client.project("DELETE", pool_path)
    await world.gone(pool_path)
    assert fake.nodes == {"monitoring": 0}
    assert (await world.client.plain("GET", "/sandbox/bill")).body["perHour"] == 0


async def test_restrictions_are_replaced_as_a_whole(world: World) -> None:
    path = await cluster(world)
    fake = next(iter(world.clusters.made.values()))
    await world.client.project("PUT", f"{path}/ipRestrictions", {"ips": ["10.0.0.0/8", "192.0.2.7"]})
    assert fake.ranges == ["10.0.0.0/8", "192.0.2.7"]
    assert await world.client.project("GET", f"{path}/ipRestrictions") == fake.ranges
    assert (await world.client.refused("PUT", f"{path}/ipRestrictions", {"ips": ["home"]})).status == 400
    assert await world.client.project("PUT", f"{path}/ipRestrictions", {"ips": []}) == []
    assert fake.ranges == []


async def test_name_policy_and_version_change_in_place(world: World) -> None:
    path = await cluster(world)
    await world.client.project("PUT", path, {"name": "other"})
    await world.client.project("PUT", f"{path}/updatePolicy", {"updatePolicy": "NEVER_UPDATE"})
    await world.client.project("POST", f"{path}/update", {"strategy": "NEXT_MINOR"})
    kube = await ready(world, path)
    assert (kube["name"], kube["updatePolicy"], kube["version"]) == ("other", "NEVER_UPDATE", "1.35.0-1")
    assert kube["nextUpgradeVersions"] == []


async def test_nothing_is_left_when_services_and_claims_go_before_the_cluster(world: World) -> None:
    path = await cluster(world)
    fake = next(iter(world.clusters.made.values()))
    volume = fake.infrastructure.create_volume(fake.id, "pvc-1", 50, "high-speed")
    balancer = fake.infrastructure.create_load_balancer(fake.id, "lb", "small", None, keep_address=False)
    assert await world.kinds() == [
        "cluster",
        "floating-ip",
        "gateway",
        "load-balancer",
        "node-pool",
        "volume",
    ]
    fake.infrastructure.delete_load_balancer(balancer.id)
    fake.infrastructure.delete_volume(volume)
    await world.client.project("DELETE", path)
    await world.gone(path)
    assert not fake.running
    assert await world.kinds() == []


async def test_volumes_and_load_balancers_outlive_their_cluster_and_are_billed(world: World) -> None:
    path = await cluster(world)
    fake = next(iter(world.clusters.made.values()))
    fake.infrastructure.create_volume(fake.id, "pvc-1", 50, "high-speed")
    balancer = fake.infrastructure.create_load_balancer(fake.id, "lb", "small", None, keep_address=False)
    await world.client.project("DELETE", path)
    await world.gone(path)
    assert await world.kinds() == ["floating-ip", "gateway", "load-balancer", "volume"]
    bill = (await world.client.plain("GET", "/sandbox/bill")).body
    running = {item["kind"] for item in bill["items"] if item["running"]}
    assert running == {"floating-ip", "gateway", "load-balancer", "volume"}
    assert bill["perHour"] == pytest.approx(50 * 0.000131 + 0.0083 + 0.0028 + 0.0025, abs=1e-4)
    fake.infrastructure.delete_load_balancer(balancer.id)
    assert await world.kinds() == ["gateway", "volume"]


async def test_a_cluster_deleted_while_it_installs_takes_its_pool_with_it(world: World) -> None:
    kube = await world.client.project("POST", "/kube", CLUSTER)
    path = f"/kube/{kube['id']}"
    await world.client.project("POST", f"{path}/nodepool", POOL)
    await world.client.project("DELETE", path)
    await world.gone(path)
    assert await world.kinds() == []


async def test_a_cluster_on_its_way_out_takes_no_nodes_that_nobody_would_remove(
    make_world: MakeWorld,
) -> None:
    world = await make_world(delays=Delays(cluster=0, node_pool=0, cluster_deletion=10_000))
    path = await cluster(world)
    (pool,) = await world.client.project("GET", f"{path}/nodepool")
    await world.client.project("DELETE", path)
    changes = {"desiredNodes": 4, "maxNodes": 4}
    for method, pools, body in (
        ("POST", f"{path}/nodepool", POOL | {"name": "late"}),
        ("PUT", f"{path}/nodepool/{pool['id']}", changes),
        ("DELETE", f"{path}/nodepool/{pool['id']}", None),
    ):
        refusal = await world.client.refused(method, pools, body)
        assert (refusal.status, "DELETING" in refusal.body["message"]) == (400, True), method
    assert (await world.client.plain("GET", "/sandbox/bill")).body["perHour"] == 0


async def test_a_status_changes_with_the_call_that_causes_it(make_world: MakeWorld) -> None:
    slow = Delays(cluster=0, cluster_update=1_000_000, node_pool=1_000_000, cluster_deletion=1_000_000)
    world = await make_world(delays=slow)
    path = f"/kube/{(await world.client.project('POST', '/kube', CLUSTER))['id']}"
    await ready(world, path)
    assert (await world.client.project("POST", f"{path}/nodepool", POOL))["status"] == "INSTALLING"
    await world.client.project("POST", f"{path}/update", {"strategy": "NEXT_MINOR"})
    assert (await world.client.project("GET", path))["status"] == "UPDATING"
    await world.client.project("DELETE", path)
    assert (await world.client.project("GET", path))["status"] == "DELETING"

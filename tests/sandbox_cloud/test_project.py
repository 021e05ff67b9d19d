"""What the API tells about the project: the quotas count what is there."""

from __future__ import annotations

from components.prices import prices
from sandbox.cloud import catalogue
from tests.sandbox_cloud.conftest import MakeWorld, World
from tests.sandbox_cloud.test_kube import cluster


async def test_quotas_count_nodes_and_volumes_of_their_region_alone(world: World) -> None:
    path = await cluster(world)
    world.cloud.infrastructure.create_volume(path.rpartition("/")[2], "data", 50, "high-speed")
    quotas = {quota["region"]: quota for quota in await world.client.project("GET", "/quota")}
    used = [quotas["GRA11"]["instance"][f"used{what}"] for what in ("Instances", "Cores", "RAM")]
    assert used == [3, 12, 3 * 15 * 1024]
    assert quotas["GRA11"]["volume"]["usedGigabytes"] == 50
    assert quotas["GRA11"]["volume"]["volumeCount"] == 1
    assert quotas["BHS5"]["instance"]["usedInstances"] == quotas["BHS5"]["volume"]["volumeCount"] == 0


async def test_an_unknown_region_has_no_flavors(world: World) -> None:
    assert (await world.client.refused("GET", "/capabilities/kube/flavors?region=GRA")).status == 404


async def test_the_ai_service_can_be_authorised(make_world: MakeWorld) -> None:
    world = await make_world(ai_authorized=False)
    assert await world.client.project("GET", "/ai/authorization") == {"authorized": False}
    assert await world.client.project("POST", "/ai/authorization") is None
    assert await world.client.project("GET", "/ai/authorization") == {"authorized": True}


def test_every_node_flavor_has_a_price_and_hardware() -> None:
    assert catalogue.kubernetes().flavors.keys() == prices().instances.keys()

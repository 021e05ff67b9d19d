"""Users, Keystone, and floating IPs that load balancers take."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from typing import Any

import pytest

from tests.sandbox_cloud.conftest import World
from tests.sandbox_cloud.fakes import PROJECT, Answer, until

ROLES = ["network_operator", "load-balancer_operator"]


@dataclass
class Neutron:
    """A client of one region's Neutron."""

    world: World
    url: str
    token: str
    network: str = ""

    async def call(self, method: str, path: str, body: object = None) -> Answer:
        headers = {"X-Auth-Token": self.token}
        return await self.world.client.plain(method, f"{self.url}v2.0/{path}", headers=headers, json=body)

    async def reserve(self) -> Any:
        body = {"floatingip": {"floating_network_id": self.network, "description": "grafana"}}
        return (await self.call("POST", "floatingips", body)).body["floatingip"]


async def user(world: World, roles: list[str]) -> Any:
    """A user that is ready, with its password."""
    created = await world.client.project("POST", "/user", {"description": "address", "roles": roles})
    assert created["status"] == "creating"

    async def ok() -> bool:
        shown = await world.client.project("GET", f"/user/{created['id']}")
        assert "password" not in shown
        return bool(shown["status"] == "ok")

    await until(ok, "user ok")
    return created


async def login(world: World, name: str, password: str, project: str = PROJECT) -> Answer:
    identity = {
        "methods": ["password"],
        "password": {"user": {"domain": {"name": "Default"}, "name": name, "password": password}},
    }
    body = {"auth": {"identity": identity, "scope": {"project": {"id": project}}}}
    return await world.client.plain("POST", "/v3/auth/tokens", json=body)


async def neutron(world: World, region: str, roles: list[str] = ROLES) -> Neutron:
    owner = await user(world, roles)
    answer = await login(world, owner["username"], owner["password"])
    endpoints = answer.body["token"]["catalog"][0]["endpoints"]
    url = next(endpoint["url"] for endpoint in endpoints if endpoint["region"] == region)
    client = Neutron(world, url, answer.headers["X-Subject-Token"])
    networks = (await client.call("GET", "networks?name=Ext-Net")).body["networks"]
    client.network = networks[0]["id"]
    return client


async def test_openrc_leads_to_the_emulator_and_holds_no_password(world: World) -> None:
    owner = await user(world, ROLES)
    openrc = await world.client.project("GET", f"/user/{owner['id']}/openrc?region=GRA11")
    assert f"export OS_AUTH_URL={world.client.base}/v3\n" in openrc["content"]
    assert f"export OS_TENANT_ID={PROJECT}\n" in openrc["content"]
    assert owner["password"] not in openrc["content"]


async def test_a_login_needs_name_password_and_project_of_a_living_user(world: World) -> None:
    owner = await user(world, ROLES)
    name, password = owner["username"], owner["password"]
    assert (await login(world, name, password)).status == 201
    assert (await login(world, name, "wrong")).status == 401
    assert (await login(world, "nobody", password)).status == 401
    assert (await login(world, name, password, project="other")).status == 401
    renewed = await world.client.project("POST", f"/user/{owner['id']}/regeneratePassword")
    assert (await login(world, name, password)).status == 401
    assert (await login(world, name, renewed["password"])).status == 201
    await world.client.project("DELETE", f"/user/{owner['id']}")
    assert (await login(world, name, renewed["password"])).status == 401


async def test_a_deleted_user_takes_its_tokens_along(world: World) -> None:
    client = await neutron(world, "GRA11")
    owner = (await world.client.project("GET", "/user"))[0]
    await world.client.project("DELETE", f"/user/{owner['id']}")
    assert (await client.call("GET", "floatingips")).status == 401


async def test_an_unknown_role_is_refused_and_a_missing_one_forbids(world: World) -> None:
    refusal = await world.client.refused("POST", "/user", {"roles": ["emperor"]})
    assert "network_operator" in refusal.body["message"]
    client = await neutron(world, "GRA11", ["objectstore_operator"])
    body = {"floatingip": {"floating_network_id": client.network}}
    answer = await client.call("POST", "floatingips", body)
    assert (answer.status, answer.body["NeutronError"]["type"]) == (403, "PolicyNotAuthorized")


async def test_a_floating_ip_is_a_loopback_address_of_its_region(world: World) -> None:
    client = await neutron(world, "GRA11")
    floating = await client.reserve()
    address = ipaddress.ip_address(floating["floating_ip_address"])
    assert address.is_loopback
    assert 64 <= address.packed[1] <= 127
    assert (floating["status"], floating["port_id"]) == ("DOWN", None)
    listed = (await client.call("GET", f"floatingips?floating_ip_address={address}")).body["floatingips"]
    assert [ip["id"] for ip in listed] == [floating["id"]]
    elsewhere = await neutron(world, "GRA9")
    assert (await elsewhere.call("GET", f"floatingips/{floating['id']}")).status == 404
    assert (await client.call("DELETE", f"floatingips/{floating['id']}")).status == 204
    gone = await client.call("GET", f"floatingips/{floating['id']}")
    assert (gone.status, gone.body["NeutronError"]["type"]) == (404, "FloatingIPNotFound")


async def test_a_load_balancer_binds_a_reserved_address_and_gives_it_back(world: World) -> None:
    client = await neutron(world, "GRA11")
    floating = await client.reserve()
    address = floating["floating_ip_address"]
    kube = await world.client.project("POST", "/kube", {"region": "GRA11"})
    infrastructure = world.cloud.infrastructure
    balancer = infrastructure.create_load_balancer(kube["id"], "lb", "small", address, keep_address=True)
    assert balancer.address == address
    bound = (await client.call("GET", f"floatingips/{floating['id']}")).body["floatingip"]
    assert bound["status"] == "ACTIVE"
    assert bound["port_id"]
    assert bound["fixed_ip_address"]
    assert bound["router_id"]
    with pytest.raises(ValueError, match="is bound to load balancer"):
        infrastructure.create_load_balancer(kube["id"], "lb2", "small", address, keep_address=True)
    infrastructure.delete_load_balancer(balancer.id)
    free = (await client.call("GET", f"floatingips/{floating['id']}")).body["floatingip"]
    assert (free["status"], free["port_id"], free["floating_ip_address"]) == ("DOWN", None, address)


async def test_an_address_of_another_region_or_nobody_cannot_be_taken(world: World) -> None:
    floating = await (await neutron(world, "GRA9")).reserve()
    kube = await world.client.project("POST", "/kube", {"region": "GRA11"})
    for address in (floating["floating_ip_address"], "203.0.113.1"):
        with pytest.raises(ValueError, match="is not one of this project in GRA11"):
            world.cloud.infrastructure.create_load_balancer(kube["id"], "lb", "small", address, True)
    assert await world.kinds() == ["cluster", "floating-ip", "user"]

"""Calls of the real plugins, replayed: the emulator answers with the same status and the same keys."""

from __future__ import annotations

import json
from typing import Any

from sandbox.cloud.settings import Delays
from tests import shared
from tests.sandbox_cloud.conftest import MakeWorld, World
from tests.sandbox_cloud.fakes import PROJECT, Answer, until

INSTANT = Delays(cluster=0, cluster_deletion=0, node_pool=0, node_pool_deletion=0, user=0)


def shape(value: Any) -> Any:
    """Keys and nesting of a JSON value; lists are as their first element."""
    if isinstance(value, dict):
        return {key: shape(item) for key, item in value.items()}
    if isinstance(value, list):
        return [shape(value[0])] if value else []
    return None


def same_shape(recorded: Any, answered: Any) -> bool:
    """Whether the answer has the recorded keys; what one of the two leaves empty says nothing."""
    if isinstance(recorded, dict) and isinstance(answered, dict):
        return recorded.keys() == answered.keys() and all(
            same_shape(recorded[key], answered[key]) for key in recorded
        )
    if isinstance(recorded, list) and isinstance(answered, list):
        return not recorded or not answered or same_shape(recorded[0], answered[0])
    return recorded is None or answered is None or not isinstance(recorded, dict | list)


def replaced(value: Any, names: dict[str, str]) -> Any:
    """The recorded value with the emulator's own ids in place of the recorded ones."""
    if isinstance(value, dict):
        return {key: replaced(item, names) for key, item in value.items()}
    return names.get(value, value) if isinstance(value, str) else value


async def settled(world: World, method: str, path: str, body: Any, status: int) -> Answer:
    """The answer; a GET is repeated until it has the recorded status, as the plugin polls."""

    async def call() -> Answer | None:
        answer = await world.client.call(method, path, body, prefix="")
        return answer if method != "GET" or answer.status == status else None

    answer: Answer = await until(call, f"{method} {path} with {status}")
    return answer


async def test_every_recorded_call_of_the_ovh_plugin(make_world: MakeWorld) -> None:
    calls = json.loads(shared.fixture("pulumi-ovh-http.json").read_text())["calls"]
    world = await make_world(delays=INSTANT)
    names = {"p": PROJECT}
    for call in calls:
        path = "/".join(names.get(part, part) for part in call["path"].split("/"))
        answer = await settled(world, call["method"], path, call["body"], call["status"])
        assert answer.status == call["status"], (call["method"], path, answer.body)
        assert same_shape(call["response"], answer.body), (path, call["response"], answer.body)
        if call["method"] == "POST" and "id" in (call["response"] or {}):
            names[str(call["response"]["id"])] = str(answer.body["id"])
    assert await world.kinds() == []


async def test_every_recorded_call_of_the_openstack_plugin(make_world: MakeWorld) -> None:
    calls = json.loads(shared.fixture("pulumi-openstack.json").read_text())["calls"]
    world = await make_world(delays=INSTANT)
    user = await world.client.project("POST", "/user", {"roles": ["network_operator"]})

    async def ready() -> bool:
        return bool((await world.client.project("GET", f"/user/{user['id']}"))["status"] == "ok")

    await until(ready, "user ok")
    names = {"user-abc": user["username"], "s3cret": user["password"], "p": PROJECT}
    base, token = "", ""
    for call in calls:
        path = call["path"].removeprefix("/network/")
        for old, new in names.items():
            path = path.replace(old, new) if old.startswith(("net-", "fip-")) else path
        url = path if path.startswith("/") else base + path
        headers = {"X-Auth-Token": token} if "X-Auth-Token" in call["headers"] else {}
        body = replaced(call["body"], names)
        answer = await world.client.plain(call["method"], url, headers=headers, json=body)
        assert answer.status == call["status"], (call["method"], path, answer.body)
        assert same_shape(call["response"], answer.body), (path, answer.body)
        if "/auth/tokens" in path:
            endpoints = answer.body["token"]["catalog"][0]["endpoints"]
            base = next(endpoint["url"] for endpoint in endpoints if endpoint["region"] == "GRA11")
            token = answer.headers["X-Subject-Token"]
        elif "networks?" in path:
            names["net-ext"] = answer.body["networks"][0]["id"]
        elif call["method"] == "POST":
            names["fip-1"] = answer.body["floatingip"]["id"]
    assert await world.kinds() == ["user"]

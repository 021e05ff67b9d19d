"""AI Deploy's native API: an AI token reads the apps that it opens, in the native form."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from sandbox.servers import listen
from tests.sandbox_cloud.conftest import World
from tests.sandbox_cloud.fakes import PROJECT, Answer, app_spec

VOLUME = {"mountPath": "/cache", "permission": "RW", "volumeSource": {"standalone": {}}}

Ask = Callable[..., Awaitable[Answer]]


@pytest.fixture
async def ask(world: World) -> AsyncIterator[Ask]:
    """Asks the native API of a cloud, with a token if one is given."""
    runner, base = await listen(world.cloud.native_ai())

    async def call(path: str, token: str | None = None, method: str = "GET") -> Answer:
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        return await world.client.plain(method, f"{base}{path}", headers=headers)

    yield call
    await runner.cleanup()


async def create(world: World, **changes: Any) -> dict[str, Any]:
    app: dict[str, Any] = await world.client.project("POST", "/ai/app", app_spec(**changes))
    return app


async def token(world: World, **changes: Any) -> dict[str, Any]:
    spec = {
        "name": "scraper",
        "region": "GRA",
        "role": "ai_training_read",
        "labelSelector": "stack=dev",
        **changes,
    }
    made: dict[str, Any] = await world.client.project("POST", "/ai/token", spec)
    return made


def value(token: dict[str, Any]) -> str:
    return str(token["status"]["value"])


async def test_a_read_token_sees_the_state_and_replicas_of_its_app(world: World, ask: Ask) -> None:
    app = await create(world, labels={"stack": "dev"}, volumes=[VOLUME])
    await world.in_state(app["id"], "RUNNING")
    answer = await ask(f"/v1/app/{app['id']}", value(await token(world)))
    shown = await world.app(app["id"])
    assert answer.status == 200
    assert answer.body["status"] == shown["status"]
    assert (answer.body["status"]["availableReplicas"], answer.body["status"]["state"]) == (1, "RUNNING")
    assert answer.body.keys() == shown.keys()
    assert answer.body["spec"].keys() == shown["spec"].keys() - {"region"}
    (volume,) = answer.body["spec"]["volumes"]
    assert (volume["mountPath"], "volumeSource" in volume) == ("/cache", False)
    assert volume["standalone"] == shown["spec"]["volumes"][0]["volumeSource"]["standalone"]


@pytest.mark.parametrize("given", [None, "", "nonsense"])
async def test_without_a_known_token_the_answer_is_401(world: World, ask: Ask, given: str | None) -> None:
    app = await create(world)
    answer = await ask(f"/v1/app/{app['id']}", given)
    assert (answer.status, [*answer.body]) == (401, ["message"])


async def test_a_renewed_or_deleted_token_is_unknown(world: World, ask: Ask) -> None:
    app = await create(world, labels={"stack": "dev"})
    old = await token(world)
    new = await world.client.project("POST", f"/ai/token/{old['id']}/renew")
    assert (await ask(f"/v1/app/{app['id']}", value(old))).status == 401
    assert (await ask(f"/v1/app/{app['id']}", value(new))).status == 200
    await world.client.project("DELETE", f"/ai/token/{old['id']}")
    assert (await ask(f"/v1/app/{app['id']}", value(new))).status == 401


async def test_apps_that_the_selector_or_the_region_leaves_out_are_forbidden(world: World, ask: Ask) -> None:
    other = await create(world, labels={"stack": "prod"})
    far = await create(world, region="BHS", labels={"stack": "dev"})
    near = await create(world, labels={"stack": "dev"})
    mine = value(await token(world))
    for app, status in ((other, 403), (far, 403), (near, 200)):
        assert (await ask(f"/v1/app/{app['id']}", mine)).status == status
    answer = await ask("/v1/app/6f0c4b5e-0000-4000-8000-000000000000", mine)
    assert (answer.status, [*answer.body]) == (404, ["message"])
    listed = (await ask("/v1/app", mine)).body
    assert [app["id"] for app in listed["items"]] == [near["id"]]
    assert listed["metadata"] == {"currentPage": 1, "pageCount": 1, "total": 1, "links": {"next": None}}
    everything = value(await token(world, labelSelector=None))
    assert (await ask("/v1/app", everything)).body["metadata"]["total"] == 2


async def test_me_tells_what_the_token_is(world: World, ask: Ask) -> None:
    body = (await ask("/v1/me", value(await token(world)))).body
    assert (body["name"], body["tenant"], body["tokenKind"]) == ("scraper", PROJECT, "app")
    assert body["role"] == "ai_training_read"


async def test_what_is_not_modelled_is_named(world: World, ask: Ask) -> None:
    mine = value(await token(world))
    for path, method, said in (
        ("/v1/app?page=2", "GET", "parameter page"),
        ("/v1/token", "GET", "GET /v1/token"),
        ("/v1/app", "POST", "POST /v1/app"),
    ):
        answer = await ask(path, mine, method)
        assert (answer.status, said in answer.body["message"]) == (501, True)


async def test_calls_are_neither_recorded_nor_disturbed(world: World, ask: Ask) -> None:
    app = await create(world, labels={"stack": "dev"})
    mine = value(await token(world))
    fault = {"path": "/app/", "status": 500, "count": 9}
    await world.client.plain("POST", "/sandbox/faults", json=fault)
    assert (await ask(f"/v1/app/{app['id']}", mine)).status == 200
    calls = (await world.client.plain("GET", "/sandbox/calls")).body
    assert [call["path"].rpartition("/")[2] for call in calls] == ["app", "token"]

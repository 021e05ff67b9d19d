"""What goes wrong on the real platform can be had here: answers, stuck states, apps that end."""

from __future__ import annotations

from typing import Any

import pytest

from tests.sandbox_cloud.conftest import MakeWorld, World
from tests.sandbox_cloud.fakes import PROJECT, app_spec, until

PATH = f"/cloud/project/{PROJECT}"
IAM = "publicCloudProject:apiovh:ai/app/delete"

ANSWERS = [
    pytest.param(429, {"message": "Too many requests"}, {}, id="rate limit"),
    pytest.param(429, {"message": "Too many requests"}, {"Retry-After": "3"}, id="rate limit, when to retry"),
    pytest.param(500, {"class": "Server::InternalServerError", "message": "oops"}, {}, id="server error"),
    pytest.param(503, "no server is available", {}, id="plain text"),
    pytest.param(502, "<html><h1>Bad Gateway</h1></html>", {"Content-Type": "text/html"}, id="proxy's page"),
    pytest.param(
        400,
        {"errorCode": "QUERY_TIME_OUT", "httpCode": "400 Bad Request", "message": "Query out of time"},
        {},
        id="late signature",
    ),
    pytest.param(
        403,
        {
            "errorCode": "INVALID_CREDENTIAL",
            "httpCode": "403 Forbidden",
            "message": "This credential is not valid",
        },
        {},
        id="expired credentials",
    ),
    pytest.param(
        403,
        {
            "class": "Client::Forbidden",
            "message": "User not granted for this request",
            "details": {"unauthorizedActionsByIAM": IAM},
        },
        {"X-Ovh-QueryID": "EU.ext-1.5"},
        id="missing right",
    ),
]


async def ask(world: World, method: str, what: str, **body: Any) -> Any:
    """Body of a call of the sandbox's own endpoints that has to succeed."""
    answer = await world.client.plain(method, f"/sandbox/{what}", json=body or None)
    assert answer.status == 200, answer
    return answer.body


async def in_the_end(world: World, app_id: str) -> str:
    """The last line of an app's log."""
    log = await world.client.project("GET", f"/ai/app/{app_id}/log")
    return str(log["logs"][-1]["content"])


async def bring(world: World, app_id: str, state: str) -> Any:
    """Makes an app go to a state, where it is to be stuck."""
    if state == "STOPPING":
        await world.in_state(app_id, "RUNNING")
        await world.client.project("PUT", f"/ai/app/{app_id}/stop")
    elif state == "DELETING":
        await world.in_state(app_id, "RUNNING")
        await world.client.project("DELETE", f"/ai/app/{app_id}?force=true")
    return await world.in_state(app_id, state)


@pytest.mark.parametrize(("status", "body", "headers"), ANSWERS)
async def test_an_answer_arrives_once_as_it_was_asked_for(
    world: World, status: int, body: Any, headers: dict[str, str]
) -> None:
    fault = {"method": "POST", "path": "/ai/app$", "status": status, "body": body, "headers": headers}
    await world.client.plain("POST", "/sandbox/faults", json=fault)
    assert await world.client.project("GET", "/ai/app") == []
    async with world.client.session.post(f"{world.client.base}/1.0{PATH}/ai/app") as answer:
        assert answer.status == status
        assert await (answer.text() if isinstance(body, str) else answer.json()) == body
        assert {name: answer.headers[name] for name in headers} == headers
        kind = "text/plain" if isinstance(body, str) else "application/json"
        assert answer.headers["Content-Type"].startswith(headers.get("Content-Type", kind))
        assert ("Retry-After" in answer.headers) == ("Retry-After" in headers)
    assert await ask(world, "GET", "faults") == []
    await world.client.project("POST", "/ai/app", app_spec())


@pytest.mark.parametrize("state", ["QUEUED", "INITIALIZING", "SCALING", "STOPPING", "DELETING"])
async def test_an_app_is_stuck_in_a_state_until_it_is_let_go(world: World, state: str) -> None:
    await ask(world, "POST", "stuck", name="^mine$", state=state)
    assert await ask(world, "GET", "stuck") == [{"name": "^mine$", "state": state}]
    mine, other = [
        await world.client.project("POST", "/ai/app", app_spec(name=name)) for name in ("mine", "other")
    ]
    await bring(world, mine["id"], state)
    # The other one goes the same way later and comes to its end.
    if state in ("STOPPING", "DELETING"):
        await world.in_state(other["id"], "RUNNING")
        await world.client.project("DELETE", f"/ai/app/{other['id']}?force=true")
        await world.gone(f"/ai/app/{other['id']}")
    else:
        await world.in_state(other["id"], "RUNNING")
    assert (await world.app(mine["id"]))["status"]["state"] == state
    await ask(world, "DELETE", "stuck")
    assert await ask(world, "GET", "stuck") == []
    if state == "DELETING":
        await world.gone(f"/ai/app/{mine['id']}")
    else:
        await world.in_state(mine["id"], "STOPPED" if state == "STOPPING" else "RUNNING")


async def test_an_app_that_is_already_in_the_state_is_stuck_and_takes_changes(world: World) -> None:
    patience = {"progressDeadlineSeconds": 10**9}
    spec = app_spec(name="mine", probe={"path": "/nowhere"}, deploymentStrategy=patience)
    app = await world.client.project("POST", "/ai/app", spec)
    await world.in_state(app["id"], "SCALING")
    await ask(world, "POST", "stuck", name="mine", state="SCALING")
    await world.client.project("PUT", f"/ai/app/{app['id']}", {"probe": {"path": "/health"}})
    witness = await world.client.project("POST", "/ai/app", app_spec(name="other", probe={"path": "/health"}))
    await world.in_state(witness["id"], "RUNNING")
    assert (await world.app(app["id"]))["status"]["state"] == "SCALING"
    await ask(world, "DELETE", "stuck")
    await world.in_state(app["id"], "RUNNING")


@pytest.mark.parametrize("state", ["STOPPING", "DELETING"])
async def test_a_stuck_end_holds_the_gpus_serves_nobody_and_costs_nothing(
    make_world: MakeWorld, state: str
) -> None:
    world = await make_world(gpu_quota=1)
    app = await world.client.project("POST", "/ai/app", app_spec(name="mine"))
    await ask(world, "POST", "stuck", name="mine", state=state)
    shown = await bring(world, app["id"], state)
    assert shown["status"]["availableReplicas"] == 0
    assert not world.cloud.apps.ready_replicas(app["id"])
    refusal = await world.client.refused("POST", "/ai/app", app_spec(name="next"))
    assert "1 of the project's 1 are in use" in refusal.body["message"]
    assert (await ask(world, "GET", "bill"))["perHour"] == 0
    await ask(world, "DELETE", "stuck")
    if state == "DELETING":
        await world.gone(f"/ai/app/{app['id']}")
    else:
        await world.in_state(app["id"], "STOPPED")
    await world.client.project("POST", "/ai/app", app_spec(name="next"))


@pytest.mark.parametrize("state", ["QUEUED", "INITIALIZING", "SCALING", "STOPPING"])
async def test_a_stuck_app_can_be_deleted_by_force(world: World, state: str) -> None:
    await ask(world, "POST", "stuck", name="mine", state=state)
    app = await world.client.project("POST", "/ai/app", app_spec(name="mine"))
    await bring(world, app["id"], state)
    await world.client.project("DELETE", f"/ai/app/{app['id']}?force=true")
    await world.gone(f"/ai/app/{app['id']}")
    assert await world.kinds() == []


async def test_force_is_no_way_out_when_the_deletion_is_stuck_too(world: World) -> None:
    app, other = [
        await world.client.project("POST", "/ai/app", app_spec(name=name)) for name in ("mine", "other")
    ]
    for state in ("STOPPING", "DELETING"):
        await ask(world, "POST", "stuck", name="mine", state=state)
    await bring(world, app["id"], "STOPPING")
    for _ in range(2):
        await world.client.project("DELETE", f"/ai/app/{app['id']}?force=true")
    await world.client.project("DELETE", f"/ai/app/{other['id']}?force=true")
    await world.gone(f"/ai/app/{other['id']}")
    assert (await world.app(app["id"]))["status"]["state"] == "DELETING"


@pytest.mark.parametrize("state", ["FAILED", "ERROR"])
async def test_an_app_that_ran_can_be_made_to_end_and_started_again(world: World, state: str) -> None:
    strategy = {"fixed": {"replicas": 2}}
    app = await world.client.project("POST", "/ai/app", app_spec(name="mine", scalingStrategy=strategy))
    other = await world.client.project("POST", "/ai/app", app_spec(name="other"))
    for id_ in (app["id"], other["id"]):
        await world.in_state(id_, "RUNNING")
    message = "container exited with code 137"
    assert await ask(world, "POST", "end", name="^mine$", state=state, message=message) == [app["id"]]
    status = (await world.app(app["id"]))["status"]
    assert (status["state"], status["availableReplicas"]) == (state, 0)
    assert status["info"] == {"code": f"APP_{state}", "message": message}
    assert [entry["state"] for entry in status["history"]][-2:] == ["RUNNING", state]
    assert message in await in_the_end(world, app["id"])
    assert (await world.app(other["id"]))["status"]["state"] == "RUNNING"

    async def killed() -> bool:
        return sum(replica.listens for replica in world.replicas.made) == 1

    await until(killed, "only the other app's replica lives")
    await world.client.project("PUT", f"/ai/app/{app['id']}/start")
    await world.in_state(app["id"], "RUNNING")


async def test_a_stuck_app_can_be_made_to_end(world: World) -> None:
    await ask(world, "POST", "stuck", name="mine", state="QUEUED")
    app = await world.client.project("POST", "/ai/app", app_spec(name="mine"))
    await ask(world, "POST", "end", name="mine", state="ERROR", message="no machine left")
    assert (await world.app(app["id"]))["status"]["info"]["message"] == "no machine left"
    assert "no machine left" in await in_the_end(world, app["id"])


@pytest.mark.parametrize(
    ("what", "body", "named"),
    [
        ("stuck", {"name": "a", "state": "RUNNING"}, "state"),
        ("stuck", {"name": "(", "state": "QUEUED"}, "name"),
        ("stuck", {"state": "QUEUED"}, "name"),
        ("end", {"name": "a", "state": "STOPPED", "message": "x"}, "state"),
        ("end", {"name": "a", "state": "FAILED"}, "message"),
    ],
)
async def test_a_failure_that_cannot_be_is_refused(
    world: World, what: str, body: dict[str, str], named: str
) -> None:
    answer = await world.client.plain("POST", f"/sandbox/{what}", json=body)
    assert (answer.status, named in answer.body["message"]) == (400, True), answer


async def test_a_bad_image_fails_with_the_registrys_words_also_in_the_log(make_world: MakeWorld) -> None:
    world = await make_world(pullable_images=frozenset({"vllm/vllm-openai:v0.13.0"}))
    app = await world.client.project("POST", "/ai/app", app_spec(image="registry.example/vllm:v9"))
    failed = await world.in_state(app["id"], "FAILED")
    for text in (failed["status"]["info"]["message"], await in_the_end(world, app["id"])):
        assert "registry.example/vllm:v9 cannot be pulled" in text
        assert "pull access denied" in text


@pytest.mark.parametrize("offset", [-3600, 3600])
async def test_the_apis_clock_can_be_wrong(make_world: MakeWorld, offset: int) -> None:
    right, wrong = await make_world(), await make_world(clock_offset_seconds=offset)
    assert (await wrong.client.call("GET", f"{PATH}/ai/app")).body["errorCode"] == "QUERY_TIME_OUT"
    ours, theirs = [(await world.client.plain("GET", "/1.0/auth/time")).body for world in (right, wrong)]
    # The wrong clock was asked after the right one; a tick may have passed.
    assert offset <= theirs - ours <= offset + 30
    wrong.client.skew = offset
    assert (await wrong.client.call("GET", f"{PATH}/ai/app")).status == 200

"""Who gets in, and what errors look like."""

from __future__ import annotations

import asyncio
import base64
import errno
from typing import Any

import aiohttp
import pytest

from sandbox.cloud.calls import CUT
from tests.sandbox_cloud.conftest import MakeWorld, World
from tests.sandbox_cloud.fakes import CREDENTIALS, PROJECT, app_spec, until

PATH = f"/cloud/project/{PROJECT}"


async def arm(world: World, **fault: Any) -> None:
    answer = await world.client.plain("POST", "/sandbox/faults", json=fault)
    assert answer.status == 200, answer


async def test_time_and_description_need_no_signature_and_details_do(world: World) -> None:
    assert isinstance((await world.client.plain("GET", "/1.0/auth/time")).body, int)
    assert (await world.client.plain("GET", "/1.0/cloud.json")).status == 200
    answer = await world.client.plain("GET", "/1.0/auth/details")
    assert (answer.status, answer.body["errorCode"]) == (403, "NOT_CREDENTIAL")
    answer = await world.client.call("GET", "/auth/details")
    assert (answer.status, answer.body["method"]) == (200, "provider-ovh")
    assert answer.headers["X-Ovh-QueryID"]


async def test_a_signature_covers_the_body_and_the_query(world: World) -> None:
    assert (await world.client.call("GET", f"{PATH}/ai/app?labelSelector=a=b")).status == 200
    world.client.secret = "wrong"
    for method, path, body in (("GET", "/ai/app?labelSelector=a=b", None), ("POST", "/ai/app", app_spec())):
        answer = await world.client.call(method, PATH + path, body)
        assert (answer.status, answer.body["errorCode"]) == (400, "INVALID_SIGNATURE")
    assert await world.kinds() == []


@pytest.mark.parametrize("skew", [-3600, 3600])
async def test_a_signature_of_another_hour_is_refused(world: World, skew: int) -> None:
    world.client.skew = skew
    answer = await world.client.call("GET", f"{PATH}/ai/app")
    assert (answer.status, answer.body["errorCode"]) == (400, "QUERY_TIME_OUT")


@pytest.mark.parametrize(
    ("header", "code"),
    [("X-Ovh-Application", "INVALID_KEY"), ("X-Ovh-Consumer", "INVALID_CREDENTIAL")],
)
async def test_unknown_keys_are_refused(world: World, header: str, code: str) -> None:
    headers = {
        "X-Ovh-Application": CREDENTIALS.application_key,
        "X-Ovh-Consumer": CREDENTIALS.consumer_key,
        header: "nobody",
    }
    answer = await world.client.plain("GET", f"/1.0{PATH}/ai/app", headers=headers)
    assert (answer.status, answer.body["errorCode"]) == (403, code)


async def test_v1_is_the_same_api_and_v2_is_not(world: World) -> None:
    assert (await world.client.call("GET", f"{PATH}/ai/app", prefix="/v1")).status == 200
    assert (await world.client.call("GET", f"{PATH}/ai/app", prefix="/v2")).status == 501


async def test_a_service_account_gets_a_token_that_opens_the_api(world: World) -> None:
    form = {"grant_type": "client_credentials", "scope": "all"}
    pair = {"client_id": "client", "client_secret": "client-secret"}
    by_form = await world.client.plain("POST", "/auth/oauth2/token", data=form | pair)
    basic = base64.b64encode(b"client:client-secret").decode()
    by_header = await world.client.plain(
        "POST", "/auth/oauth2/token", data=form, headers={"Authorization": f"Basic {basic}"}
    )
    for answer in (by_form, by_header):
        assert answer.body["token_type"] == "Bearer"
        headers = {"Authorization": f"Bearer {answer.body['access_token']}"}
        assert (await world.client.plain("GET", f"/1.0{PATH}/ai/app", headers=headers)).status == 200
    wrong = form | pair | {"client_secret": "x"}
    refused = await world.client.plain("POST", "/auth/oauth2/token", data=wrong)
    assert (refused.status, refused.body) == (401, {"error": "invalid_client"})
    headers = {"Authorization": "Bearer made-up"}
    answer = await world.client.plain("GET", f"/1.0{PATH}/ai/app", headers=headers)
    assert (answer.status, answer.body["class"]) == (401, "Client::Unauthorized::InvalidAuthToken")


@pytest.mark.parametrize("method", ["GET", "PATCH"])
async def test_what_is_not_modelled_says_so_with_its_path(world: World, method: str) -> None:
    answer = await world.client.call(method, f"{PATH}/storage")
    assert answer.status == 501
    assert answer.body == {
        "class": "Client::NotImplemented",
        "message": f"not implemented in the sandbox: {method} /1.0{PATH}/storage",
    }
    for path in ("ai/app", "ai/token", "kube", "user"):
        answer = await world.client.call("GET", f"{PATH}/{path}?page=2")
        assert (answer.status, "with parameter page" in answer.body["message"]) == (501, True), path


async def test_another_project_does_not_exist(world: World) -> None:
    answer = await world.client.call("GET", "/cloud/project/ffff/ai/app")
    assert (answer.status, answer.body["class"]) == (404, "Client::NotFound")


async def test_a_denied_action_is_named(make_world: MakeWorld) -> None:
    action = "publicCloudProject:apiovh:ai/app/create"
    world = await make_world(denied_actions=frozenset({action}))
    answer = await world.client.refused("POST", "/ai/app", app_spec())
    assert answer.status == 403
    assert answer.body["details"] == {"unauthorizedActionsByIAM": action}
    assert await world.client.project("GET", "/ai/app") == []


async def test_a_lost_answer_has_acted(world: World) -> None:
    await world.client.plain("POST", "/sandbox/faults", json={"path": "/ai/app$", "lost_answer": True})
    with pytest.raises(aiohttp.ClientError):
        await world.client.project("POST", "/ai/app", app_spec())
    assert len(await world.client.project("GET", "/ai/app")) == 1
    calls = (await world.client.plain("GET", "/sandbox/calls")).body
    assert [(call["method"], call["status"]) for call in calls] == [("POST", 200), ("GET", 200)]


async def test_a_reset_connection_has_done_nothing(world: World) -> None:
    await arm(world, path="/ai/app$", method="POST", reset=True)
    with pytest.raises(aiohttp.ClientOSError) as error:
        await world.client.project("POST", "/ai/app", app_spec())
    assert error.value.errno == errno.ECONNRESET
    assert await world.client.project("GET", "/ai/app") == []
    calls = (await world.client.plain("GET", "/sandbox/calls")).body
    assert [(call["method"], call["status"]) for call in calls] == [("POST", CUT), ("GET", 200)]


async def test_a_slow_call_is_carried_out_although_its_client_has_gone(world: World) -> None:
    await arm(world, path="/ai/app$", method="POST", delay_seconds=0.2)
    posted = asyncio.create_task(world.client.project("POST", "/ai/app", app_spec()))

    async def met() -> bool:
        return not (await world.client.plain("GET", "/sandbox/faults")).body

    await until(met, "the fault is met")
    posted.cancel()
    with pytest.raises(asyncio.CancelledError):
        await posted

    async def made() -> bool:
        return await world.kinds() == ["ai-app"]

    await until(made, "the app")


async def test_a_fault_lets_calls_pass_first(world: World) -> None:
    await arm(world, path="/ai/app$", after=2, status=500)
    for left in (1, 0):
        assert await world.client.project("GET", "/ai/app") == []
        await world.client.project("GET", "/ai/token")
        (fault,) = (await world.client.plain("GET", "/sandbox/faults")).body
        assert (fault["after"], fault["count"]) == (left, 1)
    assert (await world.client.refused("GET", "/ai/app")).status == 500
    assert await world.client.project("GET", "/ai/app") == []


async def test_calls_at_the_same_time_pass_and_fail_one_by_one(world: World) -> None:
    await arm(world, path="/ai/app$", method="POST", after=3, count=2, status=503)
    free = app_spec(resources={"flavor": "ai1-1-cpu", "cpu": 1})
    calls = (world.client.call("POST", f"{PATH}/ai/app", free) for _ in range(8))
    statuses = [answer.status for answer in await asyncio.gather(*calls)]
    assert sorted(statuses) == [200] * 6 + [503] * 2
    assert len(await world.client.project("GET", "/ai/app")) == 6


async def test_a_call_that_meets_a_fault_is_not_counted_by_the_next_one(world: World) -> None:
    await arm(world, path="/ai/app$", status=500)
    await arm(world, path="/ai/app$", after=1, status=502)
    statuses = [(await world.client.call("GET", f"{PATH}/ai/app")).status for _ in range(4)]
    assert statuses == [500, 200, 502, 200]


async def test_a_fault_can_be_about_the_app_of_a_name(world: World) -> None:
    mine = await world.client.project("POST", "/ai/app", app_spec(name="mine", labels={"team": "a"}))
    other = await world.client.project("POST", "/ai/app", app_spec(name="other", labels={"team": "b"}))
    await arm(world, path="/", about="^mine$", count=100, status=500, body={"message": "no"})
    expected = [
        ("POST", "/ai/app", app_spec(name="mine"), 500),
        ("POST", "/ai/app", app_spec(name="mine too"), 200),
        ("GET", f"/ai/app/{mine['id']}", None, 500),
        ("GET", f"/ai/app/{other['id']}", None, 200),
        ("PUT", f"/ai/app/{mine['id']}/label", {"name": "x", "value": "y"}, 500),
        ("PUT", f"/ai/app/{other['id']}/label", {"name": "mine", "value": "y"}, 200),
        ("GET", "/ai/app?labelSelector=team=a", None, 500),
        ("GET", "/ai/app?labelSelector=team=b", None, 200),
        ("GET", "/ai/app?labelSelector=team", None, 400),
        ("GET", "/ai/app", None, 200),
        ("GET", "/ai/app/none", None, 404),
        ("POST", "/ai/app", "no object", 400),
        ("DELETE", f"/ai/app/{mine['id']}?force=true", None, 500),
        ("DELETE", f"/ai/app/{other['id']}?force=true", None, 200),
    ]
    for method, path, body, status in expected:
        answer = await world.client.call(method, PATH + path, body)
        assert answer.status == status, f"{method} {path}: {answer}"
    assert (await world.client.plain("GET", "/sandbox/faults")).body[0]["count"] == 100 - 5


async def test_a_fault_can_be_about_the_token_of_a_name(world: World) -> None:
    body = {"name": "vllm-reader-1", "region": "GRA", "role": "ai_training_read"}
    tokens = {
        name: await world.client.project("POST", "/ai/token", body | {"name": name})
        for name in ("vllm-reader-1", "vllm-scraper-1")
    }
    await arm(world, path="/ai/token", about="reader", count=3, status=500)
    assert (await world.client.refused("POST", "/ai/token", body)).status == 500
    for name, refused in (("vllm-scraper-1", False), ("vllm-reader-1", True)):
        path = f"{PATH}/ai/token/{tokens[name]['id']}"
        statuses = [
            (await world.client.call("POST", f"{path}/renew")).status,
            (await world.client.call("DELETE", path)).status,
        ]
        assert statuses == ([500, 500] if refused else [200, 200])
    assert [shown["spec"]["name"] for shown in await world.client.project("GET", "/ai/token")] == [
        "vllm-reader-1"
    ]


@pytest.mark.parametrize(
    ("fault", "named"),
    [
        ({"path": "(", "times": 2}, ("path", "times")),
        ({"path": "/", "status": 500, "about": "("}, ("about",)),
        ({"path": "/", "status": 500, "after": -1}, ("after",)),
        ({"path": "/", "status": 500, "reset": True}, ("status and reset", "exclude")),
        ({"path": "/", "status": 500, "lost_answer": True}, ("status and lost_answer", "exclude")),
        ({"path": "/", "lost_answer": True, "reset": True}, ("lost_answer and reset", "exclude")),
        ({"path": "/", "reset": True, "body": "sorry"}, ("body and headers", "status")),
        ({"path": "/", "after": 3}, ("nothing would happen", "delay_seconds")),
    ],
)
async def test_a_fault_that_cannot_be_is_refused(
    world: World, fault: dict[str, Any], named: tuple[str, ...]
) -> None:
    answer = await world.client.plain("POST", "/sandbox/faults", json=fault)
    assert answer.status == 400
    assert all(word in answer.body["message"] for word in named), answer.body
    assert (await world.client.plain("GET", "/sandbox/faults")).body == []


async def test_recorded_calls_hide_secrets_and_logs_have_none(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    spec = app_spec(envVars=[{"name": "HF_TOKEN", "value": "hf_topsecret"}])
    app = await world.client.project("POST", "/ai/app", spec)
    assert app["spec"]["envVars"] == [{"name": "HF_TOKEN", "value": "hf_topsecret"}]
    await world.client.project("PUT", f"/ai/app/{app['id']}", {"envVars": spec["envVars"]})
    bad = spec | {"envVars": [{"name": "HF_TOKEN", "value": "hf_topsecret", "extra": 1}]}
    refusal = await world.client.refused("POST", "/ai/app", bad)
    assert "envVars.0.extra" in refusal.body["message"]
    await world.in_state(app["id"], "RUNNING")
    calls = (await world.client.plain("GET", "/sandbox/calls")).body
    assert calls[0]["body"]["envVars"] == [{"name": "HF_TOKEN", "value": "***"}]
    token = {"name": "reader", "region": "GRA", "role": "ai_training_read"}
    value = (await world.client.project("POST", "/ai/token", token))["status"]["value"]
    echo = {"message": "invalid value hf_topsecret"}
    await arm(world, path="/ai/token$", status=400, body=echo)
    assert (await world.client.refused("GET", "/ai/token")).body == echo
    for text in (str(calls), str(refusal.body), caplog.text):
        assert "hf_topsecret" not in text
    for secret in (value, CREDENTIALS.application_secret, CREDENTIALS.consumer_key):
        assert secret not in caplog.text + str((await world.client.plain("GET", "/sandbox/calls")).body)


async def test_a_replica_that_breaks_is_the_platforms_error_told_without_what_it_was_about(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    app = await world.client.project("POST", "/ai/app", app_spec(probe={"path": "/health"}))

    async def started() -> bool:
        return bool(world.replicas.made)

    await until(started, "a replica")
    world.replicas.made[0].broken = True
    failed = await world.in_state(app["id"], "ERROR")
    assert failed["status"]["info"]["message"] == "platform error: RuntimeError"
    assert "RuntimeError in" in caplog.text
    assert "fakes.py" in caplog.text
    assert "secret detail" not in caplog.text.replace('raise RuntimeError("secret detail")', "")
    await world.client.project("DELETE", f"/ai/app/{app['id']}")
    await world.gone(f"/ai/app/{app['id']}")

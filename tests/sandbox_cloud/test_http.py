"""Who gets in, and what errors look like."""

from __future__ import annotations

import base64

import aiohttp
import pytest

from tests.sandbox_cloud.conftest import MakeWorld, World
from tests.sandbox_cloud.fakes import CREDENTIALS, PROJECT, app_spec

PATH = f"/cloud/project/{PROJECT}"


async def test_the_time_needs_no_signature_and_details_do(world: World) -> None:
    assert isinstance((await world.client.plain("GET", "/1.0/auth/time")).body, int)
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
    answer = await world.client.call("GET", f"{PATH}/ai/app?page=2")
    assert (answer.status, "page" in answer.body["message"]) == (501, True)


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


async def test_a_fault_answers_instead_of_the_api_once(world: World) -> None:
    fault = {"method": "POST", "path": "/ai/app$", "status": 429, "body": "slow down"}
    headers = {"Retry-After": "1"}
    await world.client.plain("POST", "/sandbox/faults", json=fault | {"headers": headers})
    assert await world.client.project("GET", "/ai/app") == []
    async with world.client.session.post(f"{world.client.base}/1.0{PATH}/ai/app") as response:
        assert (response.status, await response.text()) == (429, "slow down")
        assert response.headers["Retry-After"] == "1"
    assert (await world.client.plain("GET", "/sandbox/faults")).body == []
    await world.client.project("POST", "/ai/app", app_spec())


async def test_a_lost_answer_has_acted(world: World) -> None:
    await world.client.plain("POST", "/sandbox/faults", json={"path": "/ai/app$", "lost_answer": True})
    with pytest.raises(aiohttp.ClientError):
        await world.client.project("POST", "/ai/app", app_spec())
    assert len(await world.client.project("GET", "/ai/app")) == 1
    calls = (await world.client.plain("GET", "/sandbox/calls")).body
    assert [(call["method"], call["status"]) for call in calls] == [("POST", 200), ("GET", 200)]


async def test_a_fault_that_cannot_be_is_refused(world: World) -> None:
    answer = await world.client.plain("POST", "/sandbox/faults", json={"path": "(", "times": 2})
    assert answer.status == 400
    assert "path" in answer.body["message"]
    assert "times" in answer.body["message"]


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
    for text in (str(calls), str(refusal.body), caplog.text):
        assert "hf_topsecret" not in text

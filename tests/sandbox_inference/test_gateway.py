"""The gateway lets in who may call, spreads requests over ready replicas, passes streams on as they come."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import aiohttp
import httpx
import pytest

from autoscaling.policy import read_metric
from sandbox.inference.gateway import Gateway
from sandbox.interfaces import JsonObject
from sandbox.tls import Authority
from tests.sandbox_inference.support import (
    FAST,
    LOGIN_URL,
    PACED,
    Deployment,
    Directory,
    deployed,
    wait_until,
)

HELLO: JsonObject = {"prompt": "hello", "max_tokens": 4}
ENDLESS = {"prompt": "hello", "max_tokens": 1000, "ignore_eos": True}


async def test_only_the_authority_of_the_sandbox_makes_the_address_trusted(tmp_path: Path) -> None:
    async with deployed(tmp_path) as app:
        headers = app.headers()
        async with httpx.AsyncClient(verify=app.tls) as trusting:
            assert (await trusting.get(f"{app.url}/v1/models", headers=headers)).status_code == 200
            by_name = app.url.replace("127.0.0.1", "localhost")
            assert (await trusting.get(f"{by_name}/v1/models", headers=headers)).status_code == 200
        async with httpx.AsyncClient() as strange:
            with pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
                await strange.get(f"{app.url}/v1/models", headers=headers)


@pytest.mark.parametrize(
    "headers",
    [{}, {"Authorization": "Bearer other"}, {"Authorization": "Basic token-of-the-app"}],
    ids=["none", "foreign", "basic"],
)
async def test_an_api_client_without_a_valid_token_gets_401_as_json(
    tmp_path: Path, headers: dict[str, str]
) -> None:
    async with (
        deployed(tmp_path) as app,
        app.client.get(f"{app.url}/metrics", headers={"Accept": "*/*", **headers}) as response,
    ):
        assert response.status == 401
        assert "token" in (await response.json())["message"]


async def test_a_browser_without_a_token_is_sent_to_the_login_page(tmp_path: Path) -> None:
    async with deployed(tmp_path) as app:
        headers = {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"}
        async with app.client.get(f"{app.url}/docs", headers=headers, allow_redirects=False) as response:
            assert response.status == 302
            location = httpx.URL(response.headers["Location"])
        assert str(location.copy_with(query=None)) == LOGIN_URL
        assert dict(location.params) == {"redirect": app.url, "error": "unauthorized"}
        headers["Authorization"] = "Bearer other"
        async with app.client.get(f"{app.url}/docs", headers=headers) as response:
            assert response.status == 401  # a token that is wrong is no browser's


async def test_an_open_app_needs_no_token(tmp_path: Path) -> None:
    async with deployed(tmp_path) as app:
        app.directory.tokens.add("")  # the directory says that anyone may call
        async with app.client.get(f"{app.url}/v1/models") as response:
            assert response.status == 200


async def test_without_a_ready_replica_the_answer_is_503(tmp_path: Path) -> None:
    async with deployed(tmp_path) as app:
        await app.directory.replicas[0].stop()
        status, body = await app.post("/v1/completions", HELLO)
        assert (status, body["message"]) == (503, "no replica of the app is ready")


async def test_a_revoked_token_ends_with_the_next_request_of_an_open_connection(tmp_path: Path) -> None:
    async with deployed(tmp_path) as app:
        assert (await app.post("/v1/completions", HELLO))[0] == 200
        app.directory.tokens.clear()
        assert (await app.post("/v1/completions", HELLO))[0] == 401


async def test_the_token_does_not_reach_the_replica(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with deployed(tmp_path) as app:
        seen = []
        replica = app.directory.replicas[0]
        handle = replica.handle

        async def spy(request: aiohttp.web.Request) -> aiohttp.web.StreamResponse:
            seen.append(dict(request.headers))
            return await handle(request)

        monkeypatch.setattr(replica, "handle", spy)
        assert (await app.post("/v1/completions", HELLO))[0] == 200
        assert "Authorization" not in seen[0]
        assert seen[0]["Content-Type"] == "application/json"


def requests_of(app: Deployment) -> list[float]:
    """Completions that each replica has answered."""
    answered = []
    for replica in app.directory.replicas:
        try:
            answered.append(read_metric(replica.metrics(), 'http_requests_total{handler="/v1/completions"}'))
        except ValueError:  # the series appears with the first request
            answered.append(0.0)
    return answered


async def test_round_robin_gives_each_replica_its_turn(tmp_path: Path) -> None:
    async with deployed(tmp_path, replicas=3) as app:
        for _ in range(6):
            await app.post("/v1/completions", HELLO)
        assert requests_of(app) == [2, 2, 2]


async def test_random_balancing_reaches_all_replicas_unevenly_and_repeatably(tmp_path: Path) -> None:
    async def spread() -> list[float]:
        async with deployed(tmp_path, replicas=3, balancing="random") as app:
            for _ in range(20):
                await app.post("/v1/completions", HELLO)
            return requests_of(app)

    first, again = await spread(), await spread()
    assert first == again  # the seed
    assert sum(first) == 20
    assert min(first) > 0
    assert len(set(first)) > 1


async def test_sticky_balancing_keeps_an_address_at_one_replica_while_that_is_ready(tmp_path: Path) -> None:
    async def ask(app: Deployment, address: str) -> None:
        transport = httpx.AsyncHTTPTransport(verify=app.tls, local_address=address)
        async with httpx.AsyncClient(transport=transport, headers=app.headers()) as client:
            assert (await client.post(f"{app.url}/v1/completions", json=HELLO)).status_code == 200

    async with deployed(tmp_path, replicas=3, balancing="sticky") as app:
        for _ in range(6):  # a connection each
            await ask(app, "127.0.0.1")
        assert sorted(requests_of(app)) == [0, 0, 6]
        first = app.directory.replicas.pop(requests_of(app).index(6))
        await ask(app, "127.0.0.1")
        await ask(app, "127.0.0.1")
        assert sorted(requests_of(app)) == [0, 2]
        await first.stop()
        for number in range(2, 22):
            await ask(app, f"127.0.0.{number}")
        assert min(requests_of(app)) > 0  # other addresses have replicas of their own


async def test_only_ready_replicas_are_called(tmp_path: Path) -> None:
    async with deployed(tmp_path, replicas=2) as app:
        await app.directory.replicas[0].stop()
        for _ in range(4):
            assert (await app.post("/v1/completions", HELLO))[0] == 200


async def test_a_stream_arrives_token_by_token(tmp_path: Path) -> None:
    async with deployed(tmp_path, settings=PACED) as app:
        body = {**ENDLESS, "stream": True}
        async with app.client.post(f"{app.url}/v1/completions", json=body, headers=app.headers()) as response:
            first = await response.content.readline()
            assert json.loads(first.removeprefix(b"data: "))["choices"][0]["finish_reason"] is None
            produced = read_metric(app.directory.replicas[0].metrics(), "vllm:generation_tokens_total")
            assert produced < 1000  # the answer was far from complete when its first token was here


@pytest.mark.parametrize("stream", [True, False])
async def test_a_client_that_disconnects_aborts_its_request(tmp_path: Path, stream: bool) -> None:
    async with deployed(tmp_path, settings=PACED) as app:
        replica = app.directory.replicas[0]

        def value(name: str) -> float:
            return read_metric(replica.metrics(), f"vllm:{name}")

        body = {**ENDLESS, "stream": stream}
        request = asyncio.create_task(post(app, body))
        await wait_until(lambda: value("num_requests_running") == 1)
        request.cancel()
        await wait_until(lambda: value("num_requests_running") == 0)
        assert value("generation_tokens_total") < 1000


async def post(app: Deployment, body: Any) -> str:
    async with app.client.post(f"{app.url}/v1/completions", json=body, headers=app.headers()) as response:
        response.raise_for_status()
        return await response.text()


async def test_a_killed_replica_cuts_its_streams_and_fails_what_it_has_not_answered(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with deployed(tmp_path, settings=PACED) as app:
        replica = app.directory.replicas[0]
        whole = asyncio.create_task(post(app, ENDLESS))
        body = {**ENDLESS, "stream": True}
        async with app.client.post(f"{app.url}/v1/completions", json=body, headers=app.headers()) as response:
            await response.content.readline()
            await wait_until(lambda: read_metric(replica.metrics(), "vllm:num_requests_running") == 2)
            await replica.stop()
            with pytest.raises(aiohttp.ClientError):
                await response.content.read()
        with pytest.raises(aiohttp.ClientResponseError) as refused:
            await whole
        assert refused.value.status == 502
    assert caplog.records == []


async def test_close_ends_the_listener_and_its_connections(tmp_path: Path) -> None:
    async with deployed(tmp_path, settings=PACED) as app:
        body = {**ENDLESS, "stream": True}
        async with app.client.post(f"{app.url}/v1/completions", json=body, headers=app.headers()) as response:
            await response.content.readline()
            await app.gateway.close("app")
            with pytest.raises(aiohttp.ClientError):
                await response.content.read()
        with pytest.raises(aiohttp.ClientConnectorError):
            await app.post("/v1/completions", HELLO)
        await wait_until(
            lambda: read_metric(app.directory.replicas[0].metrics(), "vllm:num_requests_running") == 0
        )


async def test_an_app_keeps_its_address_while_open_and_two_apps_have_two(tmp_path: Path) -> None:
    gateway = Gateway(Directory(), Authority(), tmp_path, LOGIN_URL)
    try:
        url = await gateway.open("one")
        assert await gateway.open("one") == url
        assert await gateway.open("two") != url
    finally:
        await gateway.stop()
    async with httpx.AsyncClient() as client:
        with pytest.raises(httpx.ConnectError, match="connection attempts failed"):
            await client.get(url)


async def test_many_streams_at_once_all_complete(tmp_path: Path) -> None:
    async with deployed(tmp_path, replicas=2, settings=FAST) as app:
        body = {"prompt": "hello", "max_tokens": 50, "ignore_eos": True, "stream": True}
        streams = await asyncio.gather(*(post(app, body) for _ in range(150)))
    assert {stream.count("data: ") for stream in streams} == {51}

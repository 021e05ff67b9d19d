"""Traffic is sent as it says, and what became of each request is kept, whatever ends the test."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from aiohttp import web

from autoscaling.traffic import ClosedLoop, OpenLoop, Request, parse
from loadtest import load, results
from loadtest.client import Client, Endpoint, RefusedError, look, session
from loadtest.load import Recording
from loadtest.prompts import Prompts
from tests.loadtest import server
from tests.loadtest.server import MODEL, TOKEN, Handler, Server, serving
from tests.sandbox_inference.support import TOKEN as APP_TOKEN
from tests.sandbox_inference.support import deployed

ARTICLE = ClosedLoop("article", workers=4, requests_per_worker=5)


@dataclass(frozen=True)
class Times(OpenLoop):
    """Requests at given times."""

    times: tuple[float, ...]
    name: str = "times"

    @property
    def duration(self) -> float:
        return self.times[-1]

    def requests(self, seed: int) -> Iterator[Request]:
        return (Request(at, 10, 2) for at in self.times)


@asynccontextmanager
async def asking(handler: Handler, patience: float = 30.0) -> AsyncIterator[tuple[Server, Client]]:
    async with serving(handler) as running:
        endpoint = Endpoint(running.base_url, TOKEN, MODEL, timeout=patience)
        async with session(endpoint) as http:
            yield running, Client(http, endpoint, Prompts(1))


async def test_a_closed_loop_sends_all_and_no_more_at_a_time_than_workers() -> None:
    under_way = most = 0

    async def handle(request: web.Request) -> web.StreamResponse:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        try:
            return await server.streaming(server.chunk("a"), server.closing(1), pause=0.01)(request)
        finally:
            under_way -= 1

    recording = Recording()
    async with asking(handle) as (running, client):
        await load.run(client, ARTICLE, 1, recording, asyncio.Event())
        assert len(running.requests) == len(recording.answers) == 20
    assert most == 4
    assert {answer.kind for answer in recording.answers} == {""}
    assert recording.partial == ""


async def test_an_open_loop_does_not_forgive_a_server_that_stalls() -> None:
    """A server that answers one after the other, and stops for a second at the first request.

    A client that waits for it, or counts from when it came to send, sees one slow request.
    """
    stall, rate = 1.0, 20
    turn = asyncio.Lock()

    async def handle(request: web.Request) -> web.StreamResponse:
        async with turn:
            if len(running.requests) == 1:
                await asyncio.sleep(stall)
            return await server.GOOD(request)

    recording = Recording()
    traffic = Times(tuple(number / rate for number in range(rate)))
    async with asking(handle) as (running, client):
        await load.run(client, traffic, 1, recording, asyncio.Event())
    assert [answer.start for answer in sorted(recording.answers, key=lambda one: one.start)] == [
        *traffic.times
    ]
    for answer in recording.answers:
        assert answer.ttft is not None
        assert answer.ttft >= stall - answer.start - 0.05
    ttft = results.result(recording, {}).summaries["ttft"]
    assert ttft.median >= stall / 2 - 0.1


async def test_a_client_that_is_late_says_so_and_counts_from_when_it_should_have_sent() -> None:
    """Times before the begin of the test stand for those that the client came to late."""
    recording = Recording()
    late = 2.0
    async with asking(server.GOOD) as (_, client):
        await load.run(client, Times((-late,) * 5), 1, recording, asyncio.Event())
    outcome = results.result(recording, {})
    assert all(answer.lag >= late and (answer.ttft or 0) >= late for answer in recording.answers)
    assert any("sent late" in warning for warning in outcome.warnings)


def _once_all_are_there(count: int) -> Handler:
    """Answers nobody before so many have asked."""
    every = asyncio.Event()
    asked = 0

    async def handle(request: web.Request) -> web.StreamResponse:
        nonlocal asked
        asked += 1
        if asked == count:
            every.set()
        await every.wait()
        return await server.GOOD(request)

    return handle


async def test_requests_that_wait_do_not_hold_up_later_ones() -> None:
    recording = Recording()
    async with asking(_once_all_are_there(10)) as (_, client):
        await load.run(
            client, Times(tuple(number / 100 for number in range(10))), 1, recording, asyncio.Event()
        )
    assert {answer.kind for answer in recording.answers} == {""}
    assert recording.most_in_flight <= 10


async def test_an_end_keeps_what_was_answered() -> None:
    async def handle(request: web.Request) -> web.StreamResponse:
        # Each of the four workers asks for the last time when it has been answered.
        if len(running.requests) == 10:
            stop.set()
        if len(running.requests) > 6:
            return await server.silent(request)
        return await server.GOOD(request)

    stop = asyncio.Event()
    recording = Recording()
    async with asking(handle) as (running, client):
        await load.run(client, ARTICLE, 1, recording, stop)
    assert len(recording.answers) == 6
    assert (len(recording.unfinished), recording.most_in_flight) == (4, 4)
    assert all(0 < wait < recording.duration for wait in recording.unfinished)
    assert recording.partial == "interrupted"
    assert recording.duration > 0


@pytest.mark.parametrize("traffic", [ARTICLE, Times((0.0, 0.01, 0.02, 30.0))], ids=["closed", "open"])
async def test_a_token_that_is_refused_meanwhile_ends_the_test(traffic: ClosedLoop | OpenLoop) -> None:
    async def handle(request: web.Request) -> web.StreamResponse:
        if len(running.requests) > 2:
            return await server.plain("{}", 401)(request)
        return await server.GOOD(request)

    recording = Recording()
    async with asking(handle) as (running, client):
        with pytest.raises(RefusedError):
            await load.run(client, traffic, 1, recording, asyncio.Event())
        assert len(running.requests) < 10
    assert recording.partial == "the token was refused"
    assert {answer.kind for answer in recording.answers} <= {""}


async def test_failures_do_not_end_the_test() -> None:
    async def handle(request: web.Request) -> web.StreamResponse:
        failing = len(running.requests) % 2
        return await (server.plain("{}", 503) if failing else server.GOOD)(request)

    recording = Recording()
    async with asking(handle) as (running, client):
        await load.run(client, ARTICLE, 1, recording, asyncio.Event())
    outcome = results.result(recording, {})
    assert (outcome.completed, dict(outcome.errors)) == (10, {"HTTP 503": 10})


async def test_many_streams_at_a_time_are_held() -> None:
    streams = 300
    recording = Recording()
    async with asking(_once_all_are_there(streams)) as (_, client):
        await load.run(client, ClosedLoop("article", streams, 1), 1, recording, asyncio.Event())
    assert {answer.kind for answer in recording.answers} == {""}
    assert len(recording.answers) == streams


async def test_replicas_of_the_sandbox_are_tested_over_tls(tmp_path: Path) -> None:
    """What the server counted is what the client saw, token by token."""
    async with deployed(tmp_path, replicas=2) as app:
        endpoint = Endpoint(f"{app.url}/v1", APP_TOKEN)
        async with session(endpoint, trusted=app.tls) as http:
            listed = await look(http, endpoint)
            assert (listed.model, listed.vllm) == ("tiny", True)
            endpoint = replace(endpoint, model=listed.model, ignore_eos=True)
            recording = Recording()
            client = Client(http, endpoint, Prompts(1))
            traffic = parse("constant:rate=50,for=1s,prompt=40,output=30")
            await load.run(client, traffic, 1, recording, asyncio.Event())
    assert isinstance(traffic, OpenLoop)
    wanted = sorted(request.output_tokens for request in traffic.requests(1))
    assert {answer.error for answer in recording.answers} == {""}
    assert sorted(answer.output_tokens for answer in recording.answers) == wanted
    assert sorted(len(answer.gaps) + 1 for answer in recording.answers) == wanted

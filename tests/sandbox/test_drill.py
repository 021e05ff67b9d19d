"""A step of the drill that does not happen is named, with what was seen instead."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
import pytest

from loadtest.client import Answer as Answered
from loadtest.client import Client, Endpoint, RefusedError, session
from loadtest.load import Recording
from loadtest.prompts import Prompts
from loadtest.replicas import Look, Replicas
from sandbox.console import Console
from sandbox.drill import DrillError, Plan, Scene, Timeline
from tests.ai_deploy.servers import Answer, serving

ONE = [Look(0.0, "RUNNING", 1)]
THREE = [*ONE, Look(2.0, "SCALING", 1), Look(4.0, "SCALING", 2), Look(6.0, "RUNNING", 3)]
NOW = 40.0


def answer(start: float, ttft: float) -> Answered:
    return Answered(start, 0.0, 10, 20, latency=ttft + 1, ttft=ttft)


def answers(early: float, late: float) -> list[Answered]:
    """Many that began when there was one replica, and many that began long after there were three."""
    return [answer(0.01 * number, early) for number in range(100)] + [
        answer(25 + 0.01 * number, late) for number in range(100)
    ]


@asynccontextmanager
async def scene(looks: list[Look], recording: Recording, refused: str = "") -> AsyncIterator[Scene]:
    """A drill at second `NOW`; without reason to refuse the load goes on for ever."""

    async def loading() -> None:
        if refused:
            raise RefusedError(refused)
        await asyncio.Event().wait()

    task = asyncio.create_task(loading())
    endpoint = Endpoint("http://127.0.0.1:9/v1")
    times = itertools.chain([0.0], itertools.repeat(NOW))
    async with session(endpoint) as http:
        client = Client(http, endpoint, Prompts(1), clock=lambda: next(times))
        plan = Plan(callers=50, patience_seconds=0.3)
        yield Scene(plan, client, recording, Replicas("here", looks), task, Timeline(Console()))
    task.cancel()
    await asyncio.wait([task])


def gauges(running: int, waiting: int) -> Answer:
    lines = [
        f'# TYPE {name} gauge\n{name}{{engine="0",model_name="tiny"}} {float(value)}\n'
        for name, value in (("vllm:num_requests_running", running), ("vllm:num_requests_waiting", waiting))
    ]
    return Answer(body="".join(lines).encode())


async def saturate(said: Answer) -> None:
    async with scene(ONE, Recording()) as drill, aiohttp.ClientSession() as http:
        with serving(lambda request: said) as server:
            await drill.saturates(http, f"{server.url}/metrics")


async def test_a_replica_that_is_saturated(capsys: pytest.CaptureFixture[str]) -> None:
    await saturate(gauges(128, 112))
    assert "1 replica is saturated: 128 requests running, 112 waiting" in capsys.readouterr().out


async def test_a_replica_that_bears_the_load() -> None:
    with pytest.raises(DrillError, match=r"1 replica saturates: .* 128 requests running, 0 waiting"):
        await saturate(gauges(128, 0))


async def test_metrics_that_cannot_be_read() -> None:
    with pytest.raises(DrillError, match=r"1 replica saturates: http://.*/metrics: "):
        await saturate(Answer(404, {"message": "not found"}))


async def test_a_scaler_that_does_not_scale() -> None:
    async with scene(ONE, Recording()) as drill:
        with pytest.raises(
            DrillError, match=r"the scaler goes to 3 replicas: not within 0.3 s; seen last: 1"
        ):
            await drill.scales_up()


async def test_a_scaler_that_scales(capsys: pytest.CaptureFixture[str]) -> None:
    async with scene(THREE, Recording()) as drill:
        await drill.scales_up()
    said = capsys.readouterr().out
    assert "2 replicas: available 4.0 s after the load began, asked for after 2.0 s" in said
    assert "3 replicas: available 6.0 s" in said


async def test_answers_that_do_not_get_faster() -> None:
    async with scene(THREE, Recording(answers(4.0, 2.5))) as drill:
        with pytest.raises(DrillError, match=r"p95 TTFT falls: .* 4.00 s with 1 replica, 2.50 s now"):
            await drill.answers_faster()


async def test_answers_that_get_faster(capsys: pytest.CaptureFixture[str]) -> None:
    async with scene(THREE, Recording(answers(4.0, 0.5))) as drill:
        await drill.answers_faster()
    assert "p95 TTFT: 4.00 s with 1 replica, 0.50 s with 3" in capsys.readouterr().out


async def test_few_answers_are_no_proof() -> None:
    async with scene(THREE, Recording(answers(4.0, 0.5)[:130])) as drill:
        with pytest.raises(DrillError, match="nan s now"):
            await drill.answers_faster()


async def test_requests_that_fail() -> None:
    failed = answer(1.0, 0.5)
    failed.kind = failed.error = "cut off"
    async with scene(THREE, Recording([*answers(4.0, 0.5), failed], duration=NOW)) as drill:
        with pytest.raises(DrillError, match=r"no request fails: {'cut off': 1} of 201"):
            drill.nothing_failed()


async def test_replicas_that_stay() -> None:
    async with scene(THREE, Recording()) as drill:
        with pytest.raises(DrillError, match=r"back to 1 replica: .* seen last: 3 replicas"):
            await drill.scales_down()


async def test_a_load_that_ends_is_not_waited_for() -> None:
    async with scene(ONE, Recording(), refused="the token is not accepted") as drill:
        with pytest.raises(DrillError, match="the load ended with the token is not accepted"):
            await drill.scales_up()

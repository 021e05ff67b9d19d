"""Sends traffic to an endpoint and records what became of each request."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

from autoscaling.traffic import ClosedLoop, OpenLoop, Traffic
from loadtest.client import Answer, Client, RefusedError

SAMPLE_SECONDS = 1.0
"""How often the state of the test is looked at."""
_TICK_SECONDS = 0.05
_AT_ONCE = 50
"""Requests that are begun before those under way get their turn, when the client is late."""


@dataclass(frozen=True, slots=True)
class Sample:
    """The state of the test at one moment; counts are since its begin."""

    time: float
    in_flight: int
    sent: int
    tokens: int
    """Output tokens, as chunks of streams."""
    cpu: float
    """Share of one core that this process used since the sample before."""
    loop_lag: float
    """The latest that the event loop came to a timer since the sample before, in seconds."""


@dataclass
class Recording:
    """What has happened so far."""

    answers: list[Answer] = field(default_factory=list)
    samples: list[Sample] = field(default_factory=list)
    duration: float = 0.0
    """Seconds from the begin to the end of the last request, once the test is over."""
    unfinished: list[float] = field(default_factory=list)
    """How long the requests had taken that were under way when the test was ended, in seconds."""
    most_in_flight: int = 0
    partial: str = ""
    """Why the test ended before its traffic did; "" if it did not."""


async def run(
    client: Client,
    traffic: Traffic,
    seed: int,
    recording: Recording,
    stop: asyncio.Event,
    on_sample: Callable[[], None] = lambda: None,
) -> None:
    """Fills `recording` until all requests are answered, `stop` is set or the token is refused.

    Raises RefusedError in the last case.
    """
    traffic_task = asyncio.create_task(_send(client, traffic, seed, recording))
    stopped = asyncio.create_task(stop.wait())
    sampler = asyncio.create_task(_sample(client, recording, on_sample))
    try:
        await asyncio.wait([traffic_task, stopped, sampler], return_when=asyncio.FIRST_COMPLETED)
        if sampler.done():
            sampler.result()
        if not traffic_task.done():
            recording.partial = "interrupted"
            recording.unfinished = client.waits()
    finally:
        for task in (traffic_task, stopped, sampler):
            task.cancel()
        results = await asyncio.gather(traffic_task, stopped, sampler, return_exceptions=True)
        recording.duration = client.now()
        recording.most_in_flight = client.most_in_flight
        on_sample()
    if isinstance(results[0], RefusedError):
        recording.partial = "the token was refused"
        raise results[0]
    if isinstance(results[0], Exception):
        raise results[0]


async def _send(client: Client, traffic: Traffic, seed: int, recording: Recording) -> None:
    try:
        async with asyncio.TaskGroup() as group:
            if isinstance(traffic, ClosedLoop):
                for worker in range(traffic.workers):
                    group.create_task(_work(client, traffic, seed, worker, recording))
            else:
                await _schedule(client, traffic, seed, recording, group)
    except* RefusedError as refused:
        raise _first(refused) from None


def _first(group: BaseExceptionGroup[RefusedError]) -> BaseException:
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


async def _work(client: Client, traffic: ClosedLoop, seed: int, worker: int, recording: Recording) -> None:
    for request in traffic.requests(seed, worker):
        recording.answers.append(await client.ask(request))


async def _schedule(
    client: Client, traffic: OpenLoop, seed: int, recording: Recording, group: asyncio.TaskGroup
) -> None:
    """Begins each request at its time, whatever the others do."""
    begun = 0
    keep = partial(_keep, recording)
    for request in traffic.requests(seed):
        delay = request.at - client.now()
        if delay > 0:
            await asyncio.sleep(delay)
            begun = 0
        elif begun == _AT_ONCE:
            await asyncio.sleep(0)
            begun = 0
        begun += 1
        group.create_task(client.ask(request, request.at)).add_done_callback(keep)


def _keep(recording: Recording, task: asyncio.Task[Answer]) -> None:
    if not task.cancelled() and task.exception() is None:
        recording.answers.append(task.result())


async def _sample(client: Client, recording: Recording, on_sample: Callable[[], None]) -> None:
    """Looks at the test once a second, and at how late the event loop is all the time."""
    cpu, lag, before = time.process_time(), 0.0, client.now()
    due = before + SAMPLE_SECONDS
    while True:
        tick = client.now()
        await asyncio.sleep(_TICK_SECONDS)
        now = client.now()
        lag = max(lag, now - tick - _TICK_SECONDS)
        if now >= due:
            used = time.process_time()
            share = (used - cpu) / (now - before)
            recording.samples.append(Sample(now, client.in_flight, client.sent, client.tokens, share, lag))
            cpu, lag, before = used, 0.0, now
            due = max(due + SAMPLE_SECONDS, now)
            on_sample()

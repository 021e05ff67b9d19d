"""The drill: an endpoint under more load than one replica bears, and back, with nobody at the keyboard.

A sandbox of its own, in a folder that goes away, plays what the autoscaler is for: one replica is saturated,
the scaler asks for three, first tokens come fast again, the load ends, one replica is left; and Prometheus
has seen each of them. All durations of the platform are divided by `Plan.speed`, the scaler's windows with
them; tokens come at their real pace. A step that does not happen ends the drill with its name.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn, TypeVar

import aiohttp
import httpx

from autoscaling.policy import read_metric
from autoscaling.traffic import ClosedLoop
from loadtest import load
from loadtest import replicas as platform
from loadtest import target as targets
from loadtest.client import Answer, Client, Endpoint, look, session
from loadtest.load import Recording
from loadtest.prompts import Prompts
from loadtest.replicas import Replicas
from loadtest.results import percentile, result
from loadtest.target import Target
from sandbox.console import Console
from sandbox.project import Folder
from sandbox.sandbox import Sandbox
from sandbox.toolchain import ensure

STACK = "sandbox"
_SEED = 1
_LOOK_SECONDS = 0.2
_GAUGES = ("vllm:num_requests_running", "vllm:num_requests_waiting")

_T = TypeVar("_T")


class DrillError(Exception):
    """A step did not happen; the text names it and says what was seen instead."""


@dataclass(frozen=True)
class Plan:
    """How hard and how fast the drill is."""

    speed: float = 30.0
    """Platform seconds per second: 5 minutes of stabilization are 10 seconds."""
    callers: int = 240
    """Requests at a time: 80 for each of three replicas, well above the target of 50."""
    max_num_seqs: int = 128
    """Requests that a replica runs at once; what one replica cannot take waits in its queue."""
    replicas: int = 3
    """The maximum of the stack."""
    window_seconds: float = 12.0
    """Over the starts of so many seconds the time to the first token is looked at."""
    settled_seconds: float = 10.0
    """Before now, for answers that have not ended are not among those looked at."""
    patience_seconds: float = 120.0
    """How long a step may take."""

    @property
    def settings(self) -> str:
        """The file with the settings of the local cloud."""
        return f"speed = {self.speed:g}\n"


@dataclass
class Timeline:
    """What happened when, told at once and again at the end."""

    console: Console
    began: float = field(default_factory=time.monotonic)
    events: list[tuple[float, str]] = field(default_factory=list)

    def add(self, text: str) -> None:
        """Something has happened now."""
        self.events.append((time.monotonic() - self.began, text))
        self.console.step(text)


def run(plan: Plan, console: Console) -> None:
    """Plays the drill; raises DrillError, or what a sandbox's start may raise. Nothing of it is left then."""
    timeline = Timeline(console)
    signal.signal(signal.SIGTERM, _interrupt)
    with tempfile.TemporaryDirectory(prefix="ovh-vllm-drill-") as directory:
        sandbox = Sandbox(Folder(Path(directory) / "sandbox"))
        try:
            target, prometheus = _deploy(plan, sandbox, timeline)
            asyncio.run(_story(plan, target, prometheus, timeline))
        finally:
            # An impatient second Ctrl-C must not leave anything behind.
            for number in (signal.SIGINT, signal.SIGTERM):
                signal.signal(number, signal.SIG_IGN)
            console.gone("the drill's sandbox", sandbox.remove())
    console.step("timeline:")
    for seconds, text in timeline.events:
        console.detail(f"{seconds:6.1f} s  {text}")


def _interrupt(*_: object) -> NoReturn:
    raise KeyboardInterrupt


def _deploy(plan: Plan, sandbox: Sandbox, timeline: Timeline) -> tuple[Target, str]:
    """A sandbox with the stack on it: what to test, and the address of its Prometheus."""
    toolchain = ensure(timeline.console.step)
    timeline.console.step("starting a sandbox for the drill")
    settings = sandbox.folder.root.with_name("settings.toml")
    settings.write_text(plan.settings)
    sandbox.start(settings)
    engine = sandbox.engine(toolchain)
    # From here on this process is a shell of this sandbox, whatever shell it was started in.
    os.environ.update(engine.environment)
    # In the sandbox's copy of the stack file.
    words = json.loads(engine.capture("config", "get", "vllmArguments", "-s", STACK))
    last = f"vllmArguments[{len(words)}]=--max-num-seqs={plan.max_num_seqs}"
    engine.capture("config", "set-all", "-s", STACK, "--path", "--plaintext", last)
    engine.capture("up", "-s", STACK, "--yes", "--skip-preview", "--continue-on-error")
    timeline.add("the stack is deployed, 1 replica serves")
    return targets.stack(STACK), sandbox.addresses()[0].prometheus


async def _story(plan: Plan, target: Target, prometheus: str, timeline: Timeline) -> None:
    endpoint = Endpoint(target.base_url, target.token, target.model)
    stop, recording = asyncio.Event(), Recording()
    async with session(endpoint) as http:
        await look(http, endpoint)
        source, seen = await platform.first_readable(target.replicas)
        if source is None:
            raise DrillError(f"the replicas cannot be seen: {seen.source}")
        client = Client(http, endpoint, Prompts(_SEED))
        traffic = ClosedLoop("article", plan.callers, requests_per_worker=10_000)
        watcher = asyncio.create_task(platform.watch(source, seen, client.now))
        loading = asyncio.create_task(load.run(client, traffic, _SEED, recording, stop))
        try:
            timeline.add(f"load: {plan.callers} requests at a time, the article's prompts")
            scene = Scene(plan, client, recording, seen, loading, timeline)
            await scene.saturates(http, f"{target.base_url.removesuffix('/v1')}/metrics")
            await scene.scales_up()
            await scene.answers_faster()
            await scene.is_seen(prometheus)
            stop.set()
            await loading
            scene.nothing_failed()
            await scene.scales_down()
        finally:
            for task in (loading, watcher):
                task.cancel()
                with suppress(asyncio.CancelledError):
                    await task


@dataclass(frozen=True)
class Scene:
    """The steps, each waiting for what has to be seen."""

    plan: Plan
    client: Client
    recording: Recording
    seen: Replicas
    loading: asyncio.Task[None]
    timeline: Timeline

    async def saturates(self, http: aiohttp.ClientSession, metrics: str) -> None:
        """One replica runs all that it can, and more wait in its queue."""
        step = "1 replica saturates"

        async def now() -> tuple[float, float]:
            async with http.get(metrics) as response:
                if response.status >= 500:
                    return 0.0, 0.0  # no replica answers just now
                text = await response.text()
            try:
                running, waiting = (read_metric(text, name) for name in _GAUGES)
            except ValueError as error:
                raise DrillError(f"{step}: {metrics}: {error}") from None
            return running, waiting

        running, waiting = await self._until(
            step,
            now,
            lambda counts: counts[0] >= 0.9 * self.plan.max_num_seqs and counts[1] > 0,
            lambda counts: f"{counts[0]:.0f} requests running, {counts[1]:.0f} waiting",
        )
        self.timeline.add(f"1 replica is saturated: {running:.0f} requests running, {waiting:.0f} waiting")

    async def scales_up(self) -> None:
        """The platform has as many replicas as the stack allows."""
        await self._count(self.plan.replicas, f"the scaler goes to {self.plan.replicas} replicas")
        for one in self.seen.scale_ups():
            self.timeline.add(
                f"{one.replicas} replicas: available {one.available:.1f} s after the load began, "
                f"asked for after {one.asked:.1f} s"
            )

    async def answers_faster(self) -> None:
        """Those who ask now wait at most half as long for the first token as those who asked one replica."""
        second = min(look.time for look in self.seen.looks if look.available > 1)
        third = min(look.time for look in self.seen.looks if look.available == self.plan.replicas)

        async def now() -> tuple[float, float]:
            end = self.client.now() - self.plan.settled_seconds
            begin = max(end - self.plan.window_seconds, third)
            early, late = self._ttfts(0, second), self._ttfts(begin, end)
            enough = len(late) >= self.plan.callers
            return percentile(early, 95), percentile(late, 95) if enough else float("nan")

        before, after = await self._until(
            "p95 TTFT falls",
            now,
            lambda pair: pair[1] <= pair[0] / 2,
            lambda pair: f"{pair[0]:.2f} s with 1 replica, {pair[1]:.2f} s now",
        )
        self.timeline.add(f"p95 TTFT: {before:.2f} s with 1 replica, {after:.2f} s with {self.plan.replicas}")

    async def is_seen(self, prometheus: str) -> None:
        """Prometheus tells that many replicas apart."""
        expression = "max_over_time(fleet:vllm:replicas_seen[5m])"

        async def now() -> list[float]:
            async with httpx.AsyncClient(trust_env=False) as http:
                answer = await http.get(f"{prometheus}/api/v1/query", params={"query": expression})
            found = answer.raise_for_status().json()["data"]["result"]
            return [float(series["value"][1]) for series in found]

        await self._until(
            "Prometheus saw each replica",
            now,
            lambda counts: counts == [self.plan.replicas],
            lambda counts: f"{expression} = {counts}",
        )
        self.timeline.add(
            f"Prometheus saw each replica: fleet:vllm:replicas_seen reached {self.plan.replicas}"
        )

    def nothing_failed(self) -> None:
        """While replicas came, no request failed."""
        outcome = result(self.recording, {})
        if outcome.errors:
            raise DrillError(f"no request fails: {dict(outcome.errors)} of {len(outcome.answers)}")
        tokens = outcome.per_second(outcome.output_tokens)
        self.timeline.add(
            f"the load ends: {outcome.completed} requests answered, none failed, {tokens:.0f} tokens/s"
        )

    async def scales_down(self) -> None:
        """One replica is left."""
        await self._count(1, "back to 1 replica")
        self.timeline.add("back to 1 replica")

    async def _count(self, replicas: int, step: str) -> None:
        async def now() -> int | None:
            return self.seen.available

        await self._until(step, now, lambda count: count == replicas, lambda count: f"{count} replicas")

    async def _until(
        self,
        step: str,
        look: Callable[[], Awaitable[_T]],
        holds: Callable[[_T], bool],
        shown: Callable[[_T], str],
    ) -> _T:
        deadline = time.monotonic() + self.plan.patience_seconds
        while True:
            value = await look()
            if holds(value):
                return value
            if self.loading.done() and self.loading.exception() is not None:
                raise DrillError(f"{step}: the load ended with {self.loading.exception()}")
            if time.monotonic() > deadline:
                raise DrillError(
                    f"{step}: not within {self.plan.patience_seconds:g} s; seen last: {shown(value)}"
                )
            await asyncio.sleep(_LOOK_SECONDS)

    def _ttfts(self, begin: float, end: float) -> Sequence[float]:
        """Ascending, of the requests that began in this time and have ended."""
        answers: list[Answer] = self.recording.answers
        return sorted(
            answer.ttft for answer in answers if begin <= answer.start < end and answer.ttft is not None
        )

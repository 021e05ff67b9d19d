"""A rehearsed app in the sandbox: the emulated cloud, its gateway and replicas, and a load test against them.

On the wall clock, or on a virtual one: its loop jumps to the next timer whenever no socket has anything to
say, so that what is slow on a busy machine takes longer, but not longer on its own clock.
"""

from __future__ import annotations

import asyncio
import bisect
import math
import selectors
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import aiohttp

from autoscaling import arguments
from autoscaling.cold_start import ColdStart
from autoscaling.fleet import Fleet, run
from autoscaling.hardware import engine_parameters, weights_bytes
from autoscaling.outcome import Outcome
from autoscaling.traffic import ClosedLoop, OpenLoop, Request, Traffic
from loadtest import load
from loadtest.client import Client as LoadClient
from loadtest.client import Endpoint, look, session
from loadtest.prompts import Prompts
from sandbox.clock import Clock
from sandbox.cloud.cloud import Cloud
from sandbox.cloud.settings import CloudSettings, Delays
from sandbox.inference.gateway import Gateway
from sandbox.inference.openai import ChatRequest
from sandbox.inference.replica import ReplicaSettings, VllmReplica
from sandbox.interfaces import JsonObject
from sandbox.servers import listen
from sandbox.tls import Authority
from tests.sandbox_cloud.fakes import CREDENTIALS, PROJECT, Client, FakeClusters

SEED = 1
MOST_APART = 0.2
"""By how much rehearsal and sandbox may differ."""
_LOOK_SECONDS = 0.5  # platform time between two looks at the replicas


_TEMPLATE_TOKENS = ChatRequest(messages=[{"role": "user", "content": ""}]).prompts()[0].tokens
"""What the sandbox adds to a text, as a chat template does."""


def _with_template(request: Request) -> Request:
    prefix = request.prefix and replace(request.prefix, tokens=request.prefix.tokens + _TEMPLATE_TOKENS)
    return replace(request, prompt_tokens=request.prompt_tokens + _TEMPLATE_TOKENS, prefix=prefix)


def _of_its_length(request: Request) -> Request:
    """With a text that has the length only, so that its answer has the length of the traffic's too."""
    return replace(request, prompt=None)


@dataclass(frozen=True)
class _Open(OpenLoop):
    real: OpenLoop
    change: Callable[[Request], Request]
    speed: float
    name: str = "altered"

    @property
    def duration(self) -> float:
        return self.real.duration / self.speed

    def requests(self, seed: int) -> Iterator[Request]:
        for request in self.real.requests(seed):
            yield replace(self.change(request), at=request.at / self.speed)


@dataclass(frozen=True, kw_only=True)
class _Closed(ClosedLoop):
    change: Callable[[Request], Request]

    def requests(self, seed: int, worker: int) -> Iterator[Request]:
        return map(self.change, super().requests(seed, worker))


def altered(traffic: Traffic, change: Callable[[Request], Request], speed: float = 1.0) -> Traffic:
    """The traffic with other requests, and an open loop `speed` times as fast."""
    if isinstance(traffic, OpenLoop):
        return _Open(traffic, change, speed)
    return _Closed(traffic.name, traffic.workers, traffic.requests_per_worker, change=change)


@dataclass(frozen=True)
class Scene:
    """An app and its traffic; all times are those of the platform."""

    name: str
    fleet: Fleet
    command: tuple[str, ...]
    """Of the container."""
    flavor: str
    cold_start: ColdStart
    traffic: Traffic
    after: float
    """How long it is watched when all requests are answered."""

    @classmethod
    def of(
        cls,
        name: str,
        words: str,
        flavor: str,
        traffic: Traffic,
        after: float,
        cold_start: ColdStart,
        **fleet: Any,
    ) -> Scene:
        """An app that runs `vllm serve` with these words; `fleet` is what else a `Fleet` has."""
        given = arguments.parse(words.split())
        phases = tuple(cold_start.phases(weights_bytes(given.model)).items())
        made = Fleet(engine_parameters(given, flavor), phases, **fleet)
        return cls(name, made, ("vllm", "serve", *words.split()), flavor, cold_start, traffic, after)

    def rehearse(self) -> Outcome:
        """The scene on virtual time, by the rehearsal, with prompts as long as the sandbox counts them."""
        return run(self.fleet, altered(self.traffic, _with_template), seed=SEED, after=self.after)


@dataclass(frozen=True)
class Sent:
    """A request as its client saw it; seconds of the client."""

    ttft: float | None
    """From the intended start."""
    kind: str
    """Of the error; "" for none."""


Sender = Callable[[str, float], Awaitable[list[Sent]]]
"""Sends the scene's traffic to a base URL, so many platform seconds from now on."""


@dataclass
class Seen:
    """What happened in the sandbox; times are platform seconds since the traffic began."""

    times: list[float] = field(default_factory=list)
    ready: list[int] = field(default_factory=list)
    """Ready replicas at each of the times."""
    waits: list[float] = field(default_factory=list)
    """Times to first token, ascending."""
    errors: Counter[str] = field(default_factory=Counter)
    late: float = 0.0
    """The longest that a look came too late: how far the machine was behind its clock."""

    def ready_at(self, moment: float) -> int:
        """Ready replicas at the last look before."""
        return self.ready[max(0, bisect.bisect_right(self.times, moment) - 1)]

    @property
    def p95(self) -> float:
        """Of the times to first token."""
        return self.waits[math.ceil(0.95 * len(self.waits)) - 1]


@dataclass(frozen=True)
class Compared:
    """A rehearsal and what was seen; differences are relative to the sandbox."""

    outcome: Outcome
    seen: Seen

    @property
    def replicas(self) -> tuple[float, float]:
        """Mean number of ready replicas: rehearsed, seen."""
        pairs = self._pairs()
        return sum(one for one, _ in pairs) / len(pairs), sum(other for _, other in pairs) / len(pairs)

    @property
    def over_time(self) -> float:
        """Mean absolute difference of the ready replicas, relative to their mean."""
        pairs = self._pairs()
        return sum(abs(one - other) for one, other in pairs) / len(pairs) / self.replicas[1]

    @property
    def replica_seconds(self) -> float:
        """Difference of the areas below the two curves."""
        rehearsed, seen = self.replicas
        return abs(rehearsed / seen - 1)

    @property
    def p95(self) -> float:
        """Difference of the p95 of the time to first token."""
        rehearsed = self.outcome.ttft.quantile(0.95)
        assert rehearsed is not None
        return abs(rehearsed / self.seen.p95 - 1)

    @property
    def agrees(self) -> bool:
        """Whether none of the three is too large."""
        return max(self.over_time, self.replica_seconds, self.p95) <= MOST_APART

    def _pairs(self) -> list[tuple[int, int]]:
        """Ready replicas at each poll of the rehearsal, as far as both go: rehearsed, seen."""
        end = self.seen.times[-1]
        return [(row.ready, self.seen.ready_at(row.time)) for row in self.outcome.timeline if row.time <= end]


class _Watched(VllmReplica):
    """Tells when the scaler reads its metric."""

    def __init__(self, polled: Callable[[], None], *arguments: Any) -> None:
        super().__init__(*arguments)
        self._polled = polled

    def metrics(self) -> str:
        self._polled()
        return super().metrics()


def _spec(scene: Scene) -> JsonObject:
    fleet, scaler = scene.fleet, scene.fleet.scaler
    return {
        "name": "vllm",
        "region": "GRA",
        "image": "vllm/vllm-openai:v0.13.0",
        "command": list(scene.command),
        "defaultHttpPort": 8000,
        "unsecureHttp": True,
        "resources": {"flavor": scene.flavor, "gpu": fleet.gpus_per_replica},
        "probe": fleet.readiness.wire(),
        "deploymentStrategy": {
            "terminationGracePeriodSeconds": round(fleet.platform.grace),
            "progressDeadlineSeconds": 3600,
        },
        "scalingStrategy": {
            "automatic": {
                "replicasMin": scaler.replicas_min,
                "replicasMax": scaler.replicas_max,
                "scaleUpStabilizationWindowSeconds": round(scaler.scale_up_stabilization_seconds),
                "scaleDownStabilizationWindowSeconds": round(scaler.scale_down_stabilization_seconds),
                "customMetrics": {
                    "apiUrl": "http://<SELF>:8000/metrics",
                    "format": "PROMETHEUS",
                    "valueLocation": fleet.metric,
                    "targetValue": scaler.target_value,
                    "aggregationType": scaler.aggregation,
                },
            }
        },
    }


async def emulate(scene: Scene, folder: Path, clock: Clock, authority: Authority, send: Sender) -> Seen:
    """Creates the app in an emulated cloud, and has it loaded from a poll of its scaler on."""
    times, scaler = scene.fleet.platform, scene.fleet.scaler
    polled = asyncio.Event()
    settings = ReplicaSettings(scene.cold_start, inference_speed=clock.speed)
    cloud = Cloud(
        CloudSettings(
            CREDENTIALS,
            PROJECT,
            Delays(queued=times.queued, initializing=times.initializing, image_pull=times.image_pull),
            gpu_quota=scene.fleet.gpu_quota,
            polling_interval=times.polling_interval,
            scaler_target_type=scaler.target_type,
        ),
        clock,
        replicas=lambda name, spec, log: _Watched(polled.set, name, spec, log, clock, settings),
        clusters=FakeClusters(),
        directory=folder,
    )
    gateway = Gateway(cloud.apps, authority, folder, "", scene.fleet.balancing, SEED)
    cloud.connect(gateway)
    runner, api_url = await listen(cloud.application())
    try:
        async with aiohttp.ClientSession() as http:
            api = Client(http, api_url)
            app = await api.project("POST", "/ai/app", _spec(scene))
            while len(cloud.apps.ready_replicas(app["id"])) < scaler.replicas_min:
                await clock.sleep(_LOOK_SECONDS)
            url = (await api.project("GET", f"/ai/app/{app['id']}"))["status"]["url"]
        polled.clear()
        await polled.wait()
        # A rehearsal begins with a poll too.
        begin = clock.monotonic() + times.polling_interval
        sending = asyncio.ensure_future(send(f"{url}/v1", times.polling_interval))
        return await _watch(scene, clock, lambda: len(cloud.apps.ready_replicas(app["id"])), begin, sending)
    finally:
        await runner.cleanup()
        await gateway.stop()


async def _watch(
    scene: Scene, clock: Clock, ready: Callable[[], int], begin: float, sending: asyncio.Future[list[Sent]]
) -> Seen:
    seen, end = Seen(), math.inf
    while (now := clock.monotonic() - begin) < end:
        seen.times.append(now)
        seen.ready.append(ready())
        if sending.done() and end == math.inf:
            lasts = scene.traffic.duration if isinstance(scene.traffic, OpenLoop) else 0.0
            end = max(now, lasts) + scene.after
        await clock.sleep(_LOOK_SECONDS)
        seen.late = max(seen.late, clock.monotonic() - begin - now - _LOOK_SECONDS)
    sent = sending.result()
    seen.errors.update(one.kind for one in sent if one.kind)
    seen.waits = sorted(one.ttft * clock.speed for one in sent if one.ttft is not None and not one.kind)
    return seen


async def send(
    url: str,
    traffic: Traffic,
    speed: float,
    begin: Callable[[], Awaitable[None]],
    clock: Callable[[], float],
) -> list[Sent]:
    """Loads an endpoint, once `begin` has waited for its moment; open traffic comes `speed` times as fast."""
    sent = altered(traffic, _of_its_length, speed)
    endpoint = Endpoint(url)
    async with session(endpoint) as http:
        listed = await look(http, endpoint)
        endpoint = replace(endpoint, model=listed.model, ignore_eos=listed.vllm)
        await begin()
        client, recording = LoadClient(http, endpoint, Prompts(SEED), clock), load.Recording()
        await load.run(client, sent, SEED, recording, asyncio.Event())
    return [Sent(answer.ttft, answer.kind) for answer in recording.answers]


# --- a virtual clock ----------------------------------------------------------------------------------------


class _Skipping(selectors.DefaultSelector):
    """Passes the time that a loop would wait for a timer, unless a socket has something to say."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        events = super().select(0 if timeout is not None else None)
        if not events and timeout is not None:
            self.now += timeout
        return events


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop on a clock that stands still while anything is done."""

    def __init__(self) -> None:
        self._skipping = _Skipping()
        super().__init__(self._skipping)

    def time(self) -> float:
        return self._skipping.now


@dataclass(frozen=True)
class VirtualClock(Clock):
    """Platform seconds are those of the running loop."""

    def monotonic(self) -> float:
        return asyncio.get_running_loop().time()


def emulate_virtually(scene: Scene, folder: Path, trust: Callable[[Path], None]) -> Seen:
    """The scene on a virtual clock, client included; `trust` makes its TLS trust the sandbox's authority."""
    authority, loop = Authority(), VirtualLoop()
    bundle = folder / "authority.pem"
    bundle.write_bytes(authority.certificate)
    trust(bundle)

    async def sends(url: str, delay: float) -> list[Sent]:
        begin = loop.time() + delay
        return await send(url, scene.traffic, 1.0, lambda: asyncio.sleep(begin - loop.time()), loop.time)

    try:
        return loop.run_until_complete(emulate(scene, folder, VirtualClock(), authority, sends))
    finally:
        loop.close()

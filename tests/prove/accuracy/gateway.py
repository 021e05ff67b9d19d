"""One address per fleet, behind which each request meets some replica: AI Deploy's gateway in small."""

from __future__ import annotations

import asyncio
import math
import random
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Literal

from aiohttp import web

from tests.prove.accuracy import SPEED
from tests.prove.accuracy.fleet import BOUNDS, Replica

Balancing = Literal["random", "round robin", "sticky"]
"""`round robin` is turned by the users' requests as well, `sticky` sends every scrape to the same replica."""

_USERS_PER_SECOND = 2.0
"""Requests of users that turn the round robin between two scrapes."""


@dataclass
class Front:
    """A fleet's address."""

    replicas: Sequence[Replica]
    balancing: Balancing
    created: bool
    """Whether the replicas say when their counters were made."""
    started: float
    """Unix time of the start of the run."""
    chance: random.Random
    slow: float = 0
    """Seconds that an answer takes at most; it tells of the moment when it comes."""
    turn: int = 0
    turned: float = field(default_factory=time.time)

    def answer(self) -> str:
        """What the replica that is met says of itself now."""
        now = time.time()
        moment = (now - self.started) * SPEED
        alive = [replica for replica in self.replicas if replica.alive(moment)]
        return _exposition(self._choose(alive, now), moment, self)

    def _choose(self, alive: Sequence[Replica], now: float) -> Replica:
        match self.balancing:
            case "random":
                return self.chance.choice(alive)
            case "sticky":
                return alive[0]
            case "round robin":
                users = _poisson(self.chance, _USERS_PER_SECOND * SPEED * (now - self.turned))
                self.turned = now
                self.turn += 1 + users
                return alive[self.turn % len(alive)]


def _poisson(chance: random.Random, mean: float) -> int:
    count, product, limit = 0, chance.random(), math.exp(-mean)
    while product > limit:
        count += 1
        product *= chance.random()
    return count


def _exposition(replica: Replica, moment: float, front: Front) -> str:
    labels = f'engine="0",model_name="{replica.model_name}"'
    birth = front.started + replica.born / SPEED
    first = replica.first_tokens(moment)
    family = "vllm:time_to_first_token_seconds"
    lines = [
        f"process_start_time_seconds {birth - 3:.2f}",
        "# TYPE vllm:num_requests_running gauge",
        f"vllm:num_requests_running{{{labels}}} {replica.running(moment)}.0",
        f"vllm:num_requests_waiting{{{labels}}} 0.0",
        "# TYPE vllm:generation_tokens_total counter",
        f"vllm:generation_tokens_total{{{labels}}} {replica.tokens(moment)}.0",
        *([f"vllm:generation_tokens_created{{{labels}}} {birth!r}"] if front.created else []),
        "# TYPE vllm:request_success_total counter",
        *(
            f'vllm:request_success_total{{engine="0",finished_reason="{reason}",'
            f'model_name="{replica.model_name}"}} {count}.0'
            for reason, count in replica.endings(moment).items()
        ),
        f"# TYPE {family} histogram",
        *(
            f'{family}_bucket{{engine="0",le="{bound}",model_name="{replica.model_name}"}} {count}.0'
            for bound, count in zip((*BOUNDS, "+Inf"), first, strict=True)
        ),
        f"{family}_count{{{labels}}} {first[-1]}.0",
        f"{family}_sum{{{labels}}} {first[-1] * 0.5}",
    ]
    return "\n".join(lines) + "\n"


@asynccontextmanager
async def serving(fronts: Mapping[str, Front]) -> AsyncIterator[str]:
    """Answers `/<fleet>/metrics` for each; gives host and port."""

    async def metrics(request: web.Request) -> web.Response:
        front = fronts[request.match_info["fleet"]]
        if front.slow:
            await asyncio.sleep(front.chance.uniform(0, front.slow) / SPEED)
        return web.Response(text=front.answer())

    application = web.Application()
    application.router.add_get("/{fleet}/metrics", metrics)
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0, backlog=1024).start()
        host, port = runner.addresses[0][:2]
        yield f"{host}:{port}"
    finally:
        await runner.cleanup()

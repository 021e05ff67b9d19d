"""Stand-ins for what the cloud drives: replicas, gateway, clusters; and a client that signs by itself."""

from __future__ import annotations

import asyncio
import hashlib
import json
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web

from sandbox.clock import Clock
from sandbox.cloud.settings import Credentials
from sandbox.interfaces import ClusterFactory, Infrastructure, JsonObject

PROJECT = "0123456789abcdef0123456789abcdef"
CREDENTIALS = Credentials("app-key", "app-secret", "consumer-key", "client", "client-secret")


class FakeReplica:
    """A container that listens `startup` platform seconds after it was started."""

    def __init__(self, name: str, spec: JsonObject, clock: Clock, startup: float, running: float) -> None:
        self._name = name
        self.spec = spec
        self.running = running
        self.starts = 0
        self.broken = False
        self._clock = clock
        self._startup = startup
        self._started: float | None = None

    @property
    def name(self) -> str:
        return self._name

    @property
    def listens(self) -> bool:
        return self._started is not None and self._clock.monotonic() >= self._started + self._startup

    def start(self) -> None:
        self.starts += 1
        self._started = self._clock.monotonic()

    def probe(self, path: str) -> int:
        if self.broken:
            raise RuntimeError("secret detail")
        return 200 if self.listens and path in ("/health", "/v1/models") else 0

    def metrics(self) -> str:
        if not self.listens:
            raise ConnectionRefusedError(self.name)
        return (
            "# TYPE vllm:num_requests_running gauge\n"
            f'vllm:num_requests_running{{engine="0"}} {self.running}\n'
        )

    async def handle(self, request: web.Request) -> web.StreamResponse:
        raise NotImplementedError

    async def stop(self) -> None:
        self._started = None


@dataclass
class FakeReplicas:
    """Makes replicas and keeps them for the test."""

    clock: Clock
    startup: float = 0
    running: float = 0
    """`vllm:num_requests_running` of every replica, also of those that are there."""
    made: list[FakeReplica] = field(default_factory=list)

    def __call__(self, name: str, spec: JsonObject, log: Callable[[str], None]) -> FakeReplica:
        log(f"{name} says hello")
        replica = FakeReplica(name, spec, self.clock, self.startup, self.running)
        self.made.append(replica)
        return replica

    def load(self, running: float) -> None:
        self.running = running
        for replica in self.made:
            replica.running = running


class FakeGateway:
    """Gives every app an address on which nothing listens."""

    def __init__(self) -> None:
        self.opened: list[str] = []

    async def open(self, app_id: str) -> str:
        self.opened.append(app_id)
        return f"https://127.0.0.1:{40000 + len(self.opened)}"

    async def close(self, app_id: str) -> None:
        self.opened.remove(app_id)


@dataclass
class FakeCluster:
    """Remembers what it was told."""

    id: str
    infrastructure: Infrastructure
    nodes: dict[str, int] = field(default_factory=dict)
    ranges: list[str] = field(default_factory=list)
    running: bool = False

    async def start(self) -> None:
        self.running = True

    def kubeconfig(self) -> str:
        return "apiVersion: v1\nkind: Config\n"

    @property
    def url(self) -> str:
        return "https://127.0.0.1:6443"

    def set_nodes(self, pool: str, flavor: str, count: int) -> None:
        self.nodes[pool] = count

    def restrict(self, ranges: Sequence[str]) -> None:
        self.ranges = list(ranges)

    async def stop(self) -> None:
        self.running = False


@dataclass
class FakeClusters:
    """Makes clusters and keeps them for the test."""

    made: dict[str, FakeCluster] = field(default_factory=dict)

    def __call__(self, infrastructure: Infrastructure) -> ClusterFactory:
        def make(cluster_id: str, name: str, version: str, directory: Path) -> FakeCluster:
            self.made[cluster_id] = FakeCluster(cluster_id, infrastructure)
            return self.made[cluster_id]

        return make


@dataclass(frozen=True)
class Answer:
    """Status and decoded body of an answer."""

    status: int
    body: Any
    headers: Any = None


@dataclass
class Client:
    """Signs as go-ovh does: `/1.0` in front, unless the path names its version."""

    session: aiohttp.ClientSession
    base: str
    skew: int = 0
    secret: str = CREDENTIALS.application_secret

    async def call(self, method: str, path: str, body: object = None, prefix: str = "/1.0") -> Answer:
        data = b"" if body is None else json.dumps(body, separators=(",", ":")).encode()
        url = f"{self.base}{prefix}{path}"
        timestamp = str(int(time.time()) + self.skew)
        text = f"{self.secret}+{CREDENTIALS.consumer_key}+{method}+{url}+{data.decode()}+{timestamp}"
        headers = {
            "X-Ovh-Application": CREDENTIALS.application_key,
            "X-Ovh-Consumer": CREDENTIALS.consumer_key,
            "X-Ovh-Timestamp": timestamp,
            "X-Ovh-Signature": "$1$" + hashlib.sha1(text.encode()).hexdigest(),  # noqa: S324
        }
        return await self.plain(method, url, headers=headers, data=data or None)

    async def plain(self, method: str, url: str, **options: Any) -> Answer:
        """An unsigned call; `url` may be a path of the server."""
        url = url if url.startswith("http") else f"{self.base}{url}"
        async with self.session.request(method, url, **options) as response:
            text = await response.text()
            body = json.loads(text) if text else None
            return Answer(response.status, body, response.headers)

    async def project(self, method: str, path: str, body: object = None) -> Any:
        """Body of a call under the project that has to succeed."""
        answer = await self.call(method, f"/cloud/project/{PROJECT}{path}", body)
        assert answer.status == 200, answer
        return answer.body

    async def refused(self, method: str, path: str, body: object = None) -> Answer:
        """A call under the project that has to fail."""
        answer = await self.call(method, f"/cloud/project/{PROJECT}{path}", body)
        assert answer.status >= 400, answer
        return answer


async def until(condition: Callable[[], Awaitable[Any]], what: str) -> Any:
    """The first true result of `condition`."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        if result := await condition():
            return result
        await asyncio.sleep(0.005)
    raise AssertionError(f"never: {what}")


def app_spec(**changes: Any) -> dict[str, Any]:
    """A body that creates a small app which is ready at once."""
    return {
        "name": "vllm",
        "region": "GRA",
        "image": "vllm/vllm-openai:v0.13.0",
        "defaultHttpPort": 8000,
        "resources": {"flavor": "l4-1-gpu", "gpu": 1},
        **changes,
    }

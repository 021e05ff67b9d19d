"""An app behind the real gateway, with vLLM replicas that start at once."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp

from autoscaling.cold_start import ColdStart
from sandbox.clock import Clock
from sandbox.inference.gateway import Balancing, Gateway
from sandbox.inference.replica import ReplicaSettings, VllmReplica, VllmReplicas
from sandbox.interfaces import AppGateway, JsonObject, ReplicaFactory
from sandbox.tls import Authority

LOGIN_URL = "https://login.example/v1/oauth/login"
TOKEN = "token-of-the-app"
AT_ONCE = ColdStart(
    process_seconds=0, download_bytes_per_second=1e18, load_bytes_per_second=1e18, warmup_seconds=0
)
FIXTURES = Path(__file__).parents[1] / "fixtures"
TINY_SPEC: JsonObject = {
    "image": "vllm/vllm-openai:v0.13.0",
    "command": ["vllm", "serve", "tiny", "--max-model-len", "1024", "--max-num-seqs", "256"],
    "defaultHttpPort": 8000,
    "resources": {"flavor": "h100-1-gpu", "gpu": 1},
}
FAST = ReplicaSettings(cold_start=AT_ONCE, inference_speed=100.0)
PACED = ReplicaSettings(cold_start=AT_ONCE, inference_speed=1.0)
# What the other rooms of the sandbox may rely on; mypy checks it.
GATEWAY: type[AppGateway] = Gateway
REPLICAS: Callable[[Clock, ReplicaSettings], ReplicaFactory] = VllmReplicas


@dataclass
class Directory:
    """What the cloud would answer the gateway."""

    replicas: list[VllmReplica] = field(default_factory=list)
    tokens: set[str] = field(default_factory=lambda: {TOKEN})

    def ready_replicas(self, app_id: str) -> list[VllmReplica]:
        return [replica for replica in self.replicas if replica.probe("/health") == 200]

    def may_call(self, app_id: str, token: str) -> bool:
        return token in self.tokens


@dataclass
class Deployment:
    """An open app and a client that trusts nothing but the sandbox's authority."""

    gateway: Gateway
    directory: Directory
    url: str
    client: aiohttp.ClientSession
    tls: ssl.SSLContext

    def headers(self, token: str = TOKEN) -> dict[str, str]:
        return {"Authorization": f"Bearer {token}"}

    async def post(self, path: str, body: JsonObject) -> tuple[int, JsonObject]:
        async with self.client.post(self.url + path, json=body, headers=self.headers()) as response:
            answer: JsonObject = await response.json()
            return response.status, answer


async def wait_until(condition: Callable[[], bool]) -> None:
    """Waits for a condition; the test's own timeout ends it otherwise."""
    while not condition():  # noqa: ASYNC110 - what is waited for knows nothing of us
        await asyncio.sleep(0.005)


def trusting(authority: Authority) -> ssl.SSLContext:
    return ssl.create_default_context(cadata=authority.certificate.decode())


@contextlib.asynccontextmanager
async def deployed(
    tmp_path: Path,
    replicas: int = 1,
    settings: ReplicaSettings = FAST,
    spec: JsonObject = TINY_SPEC,
    balancing: Balancing = "round-robin",
) -> AsyncIterator[Deployment]:
    """An app `app` with so many replicas that serve."""
    authority = Authority()
    directory = Directory()
    factory = VllmReplicas(Clock(), settings)
    gateway = Gateway(directory, authority, tmp_path, LOGIN_URL, balancing, seed=1)
    for index in range(replicas):
        directory.replicas.append(factory(f"replica-{index}", spec, lambda line: None))
        directory.replicas[-1].start()
    await wait_until(lambda: len(directory.ready_replicas("app")) == replicas)
    url = await gateway.open("app")
    context = trusting(authority)
    connector = aiohttp.TCPConnector(ssl=context, limit=0)
    try:
        async with aiohttp.ClientSession(connector=connector) as client:
            yield Deployment(gateway, directory, url, client, context)
    finally:
        await gateway.stop()
        for replica in directory.replicas:
            await replica.stop()

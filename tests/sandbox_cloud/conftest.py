"""A cloud behind real HTTP, on a fast clock."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from sandbox.clock import Clock
from sandbox.cloud.cloud import Cloud
from sandbox.cloud.settings import CloudSettings
from sandbox.servers import listen
from tests.sandbox_cloud.fakes import (
    CREDENTIALS,
    PROJECT,
    Client,
    FakeClusters,
    FakeGateway,
    FakeReplicas,
    until,
)


@dataclass
class World:
    """A running cloud and what it drives."""

    cloud: Cloud
    client: Client
    replicas: FakeReplicas
    gateway: FakeGateway
    clusters: FakeClusters

    async def app(self, app_id: str) -> Any:
        return await self.client.project("GET", f"/ai/app/{app_id}")

    async def in_state(self, app_id: str, state: str) -> Any:
        """The app, once it is in `state`."""

        async def reached() -> Any:
            app = await self.app(app_id)
            return app if app["status"]["state"] == state else None

        return await until(reached, f"app in state {state}")

    async def gone(self, path: str) -> None:
        """Waits until the API answers 404 for something of the project."""

        async def missing() -> bool:
            answer = await self.client.call("GET", f"/cloud/project/{PROJECT}{path}")
            return answer.status == 404

        await until(missing, f"{path} gone")

    async def kinds(self) -> list[str]:
        """Kinds of everything that exists."""
        answer = await self.client.plain("GET", "/sandbox/resources")
        return sorted(thing["kind"] for thing in answer.body)


MakeWorld = Callable[..., Awaitable[World]]


@pytest.fixture
async def make_world(tmp_path: Path) -> AsyncIterator[MakeWorld]:
    """Starts clouds; `speed` is platform seconds per second, other arguments are settings."""
    runners: list[web.AppRunner] = []
    sessions: list[aiohttp.ClientSession] = []

    async def make(speed: float = 1000, **settings: Any) -> World:
        clock = Clock(speed)
        replicas, clusters, gateway = FakeReplicas(clock), FakeClusters(), FakeGateway()
        cloud = Cloud(
            CloudSettings(CREDENTIALS, PROJECT, **settings),
            clock,
            replicas=replicas,
            clusters=clusters,
            directory=tmp_path,
        )
        cloud.connect(gateway)
        # Not aiohttp's TestServer: it ends calls whose clients have gone, the local cloud carries them out.
        runner, url = await listen(cloud.application())
        runners.append(runner)
        session = aiohttp.ClientSession()
        sessions.append(session)
        return World(cloud, Client(session, url), replicas, gateway, clusters)

    yield make
    for session in sessions:
        await session.close()
    for runner in runners:
        await runner.cleanup()


@pytest.fixture
async def world(make_world: MakeWorld) -> World:
    """A cloud with default settings."""
    return await make_world()

"""The emulated cloud with a watcher at its door, who sees every call and can let one go wrong."""

from __future__ import annotations

import asyncio
import re
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from aiohttp import web

from components.ai_deploy.api import AiDeploy
from sandbox.cloud.http import Handler
from tests.ai_deploy.clouds import AppServers, Sky, clouds
from tests.sandbox_cloud.fakes import CREDENTIALS

PLATFORM_SPEED = 2000.0
"""Platform seconds per second: an app is RUNNING 40 ms after it was accepted."""
PATIENCE = 30.0
"""Wall-clock seconds that the walk waits for anything of the cloud."""
_ID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")


@dataclass(frozen=True)
class Point:
    """One call of one step, told from all others by what precedes it and not by a time."""

    step: str
    """Step of the engine, such as `create vllm`."""
    stage: int
    """Calls of the step that change something, up to this one."""
    method: str
    path: str
    """Path below the project's `/ai`, with `{id}` for ids; `app/v1/models` for the app's own URL."""
    occurrence: int
    """The how manieth such call of this stage."""

    @property
    def changes(self) -> bool:
        """Whether the call changes something in the cloud."""
        return self.method != "GET" and not self.path.startswith("app/")

    @property
    def regex(self) -> str:
        """What the emulator finds the path by."""
        exact = re.escape(self.path).replace(re.escape("{id}"), "[0-9a-f-]{36}")
        return exact if "?" in self.path else f"{exact}(\\?|$)"

    def __str__(self) -> str:
        return f"{self.step}: {self.method} {self.path} #{self.stage}.{self.occurrence}"


Meeting = Callable[[Point, web.Request, Handler], Awaitable[web.StreamResponse]]
"""What happens at a point: answers the request in the place of `handler`, or with it."""


@dataclass
class Watch:
    """Sees every call; `meet` says what happens at a point (None: nothing out of the ordinary)."""

    meet: Callable[[Point], Meeting | None] = lambda _point: None
    seen: list[Point] = field(default_factory=list)
    in_flight: int = 0
    _step: str = ""
    _stage: int = 0
    _counts: Counter[tuple[int, str, str]] = field(default_factory=Counter)

    def begin(self, step: str) -> None:
        """A step of the engine begins."""
        self._step, self._stage = step, 0
        self._counts.clear()

    async def take(
        self, method: str, path: str, request: web.Request, handler: Handler
    ) -> web.StreamResponse:
        """Hands a call on, unless it is to go wrong."""
        if method != "GET" and not path.startswith("app/"):
            self._stage += 1
        key = (self._stage, method, path)
        self._counts[key] += 1
        point = Point(self._step, self._stage, method, path, self._counts[key])
        self.seen.append(point)
        meeting = self.meet(point)
        self.in_flight += 1
        try:
            return await (handler(request) if meeting is None else meeting(point, request, handler))
        finally:
            self.in_flight -= 1

    @web.middleware
    async def at_the_door(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """The watcher as middleware of the API."""
        # A caller that ends now has sent its body already.
        await request.read()
        path = _ID.sub("{id}", request.path.partition("/1.0")[2])
        path = path.partition("/ai")[2] if path.startswith("/cloud/project/") else path
        if selector := request.query.get("labelSelector"):
            path += f"?labelSelector={selector.partition('=')[0]}"
        return await self.take(request.method, path, request, handler)


class WatchedServers(AppServers):
    """The apps' own addresses, with the same watcher at their door."""

    def __init__(self, cloud: Any, watch: Watch) -> None:
        super().__init__(cloud=cloud)
        self._watch = watch

    async def _answer(self, app_id: str, request: web.Request) -> web.Response:
        async def handler(request: web.Request) -> web.StreamResponse:
            return await super(WatchedServers, self)._answer(app_id, request)

        answer: Any = await self._watch.take(request.method, f"app{request.path}", request, handler)
        return answer  # type: ignore[no-any-return]


@dataclass
class Scene:
    """A cloud, its watcher, and where a provider finds it."""

    sky: Sky
    watch: Watch
    url: str
    """Base URL of the API, past the watcher; `sky.url` is not watched."""
    http: httpx.Client
    """A client for everything that the walk itself asks."""
    api: AiDeploy
    """The API, not watched."""

    @property
    def config(self) -> dict[str, str]:
        """Configuration of a provider that works here."""
        return {
            "ovh:endpoint": self.url,
            "ovh:applicationKey": CREDENTIALS.application_key,
            "ovh:applicationSecret": CREDENTIALS.application_secret,
            "ovh:consumerKey": CREDENTIALS.consumer_key,
        }

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        """Asks the sandbox's own endpoints."""
        url = f"{self.sky.url.removesuffix('/1.0')}/sandbox/{path}"
        return self.http.request(method, url, json=body).raise_for_status().json()

    def existing(self, kind: str) -> list[str]:
        """Ids of what there is of a kind: `ai-app`, `ai-token`."""
        return [thing["id"] for thing in self.ask("GET", "resources") if thing["kind"] == kind]

    def settle(self) -> None:
        """Waits until no call is under way any more, those included whose caller is gone."""
        until(lambda: self.watch.in_flight == 0, "calls under way to end")


@contextmanager
def scenes(directory: Path, **settings: Any) -> Iterator[Scene]:
    """A cloud with a watcher."""
    with clouds(directory, speed=PLATFORM_SPEED, **settings) as sky:
        watch = Watch()
        sky.servers = WatchedServers(sky.cloud, watch)
        sky.cloud.connect(sky.servers)

        async def open_door() -> web.AppRunner:
            # A second door to the same cloud; the first one closes it.
            application = sky.cloud.application()
            application.on_cleanup.clear()
            application.middlewares.insert(0, watch.at_the_door)
            runner = web.AppRunner(application, access_log=None)
            await runner.setup()
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            return runner

        runner = sky.run(open_door())
        try:
            with httpx.Client(timeout=PATIENCE) as http:
                yield Scene(sky, watch, f"http://127.0.0.1:{runner.addresses[0][1]}/1.0", http, sky.api)
        finally:
            sky.run(runner.cleanup())


def until(condition: Callable[[], bool], what: str) -> None:
    """Waits for a condition; AssertionError when it stays away."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"waited in vain for {what}")
        time.sleep(0.002)


async def in_thread(work: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
    """Runs what would block the cloud's loop, or asks the cloud itself."""
    return await asyncio.to_thread(work, *arguments, **options)

"""The emulated cloud in a thread, with apps that answer what a test wants, and providers that talk to it."""

from __future__ import annotations

import asyncio
import re
import threading
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import httpx
from aiohttp import web
from pulumi.dynamic import Config, ConfigureRequest
from pulumi.runtime import rpc

from components.ai_deploy import providers
from components.ai_deploy.api import AiDeploy, App
from components.ai_deploy.client import OvhClient
from components.ai_deploy.credentials import ApplicationKey, Credentials
from components.ai_deploy.engine import Engine
from components.ai_deploy.waiting import Clock
from sandbox.clock import Clock as PlatformClock
from sandbox.cloud.cloud import Cloud
from sandbox.cloud.settings import CloudSettings
from tests.sandbox_cloud.fakes import CREDENTIALS, PROJECT, FakeClusters, FakeReplicas

MODEL = "mistralai/Ministral-3-14B-Instruct-2512"
SPEED = 40
"""Seconds that pass for the providers in one second."""
FAST = Clock(lambda: time.monotonic() * SPEED, lambda seconds: time.sleep(seconds / SPEED))

P = TypeVar("P", bound=providers._CloudProvider)
T = TypeVar("T")


@dataclass
class AppServers:
    """The addresses of apps; each answers `models` and chats, to those who may call it."""

    cloud: Cloud | None = None
    models: list[str] = field(default_factory=lambda: [MODEL])
    chat_status: int = 200
    login_page: bool = False
    """Sends everybody to a login page, as the platform does with callers that it does not know."""
    asked: list[str] = field(default_factory=list)
    _runners: dict[str, web.AppRunner] = field(default_factory=dict)

    async def open(self, app_id: str) -> str:
        application = web.Application()

        async def answer(request: web.Request) -> web.Response:
            return await self._answer(app_id, request)

        application.router.add_route("*", "/{path:.*}", answer)
        runner = self._runners[app_id] = web.AppRunner(application, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        return f"http://127.0.0.1:{runner.addresses[0][1]}"

    async def close(self, app_id: str) -> None:
        if runner := self._runners.pop(app_id, None):
            await runner.cleanup()

    async def close_all(self) -> None:
        for app_id in list(self._runners):
            await self.close(app_id)

    async def _answer(self, app_id: str, request: web.Request) -> web.Response:
        assert self.cloud is not None
        self.asked.append(f"{request.method} {request.path}")
        token = request.headers.get("Authorization", "").removeprefix("Bearer ")
        if self.login_page or not self.cloud.apps.may_call(app_id, token):
            raise web.HTTPFound("/login")
        if request.path == "/login":
            return web.Response(text="<html>Please log in</html>", content_type="text/html")
        if request.path == "/v1/models":
            return web.json_response({"object": "list", "data": [{"id": model} for model in self.models]})
        question = await request.json()
        assert question["max_tokens"] == 1
        body = {"choices": [{}], "usage": {"completion_tokens": 1}, "echo": f"Bearer {token}"}
        return web.json_response(body, status=self.chat_status)


@dataclass
class Barrier:
    """Calls that wait before the cloud gets them: as if the network had swallowed them for a while.

    What waits is carried out when it is let through, whether its client is still there or not.
    """

    waiting: list[str] = field(default_factory=list)
    """Calls that wait now, as method and path."""
    _pattern: re.Pattern[str] | None = None
    _open: asyncio.Event = field(default_factory=asyncio.Event)

    def close(self, pattern: str) -> None:
        """Lets calls wait from now on whose method, path and body the regular expression is found in."""
        self._open.clear()
        self._pattern = re.compile(pattern)

    async def open(self) -> None:
        """Lets through what waits, and everything else."""
        self._pattern = None
        self._open.set()

    @web.middleware
    async def hold(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        call = f"{request.method} {request.raw_path}"
        if self._pattern is not None and self._pattern.search(f"{call} {await request.text()}"):
            self.waiting.append(call)
            await self._open.wait()
            self.waiting.remove(call)
        return await handler(request)


@dataclass
class Sky:
    """A running cloud."""

    url: str
    """Base URL of the API."""
    cloud: Cloud
    servers: AppServers
    loop: asyncio.AbstractEventLoop
    barrier: Barrier
    said: list[str] = field(default_factory=list)
    """What providers told the user."""

    def provider(self, kind: type[P]) -> P:
        """A provider as the engine configures it, on a fast clock."""
        provider = kind()
        config = {
            "ovh:endpoint": self.url,
            "ovh:applicationKey": CREDENTIALS.application_key,
            "ovh:applicationSecret": CREDENTIALS.application_secret,
            "ovh:consumerKey": CREDENTIALS.consumer_key,
        }
        provider.configure(ConfigureRequest(Config(config, "ovh-vllm")))
        provider.clock, provider.engine = FAST, Listener(self.said)
        return provider

    @property
    def api(self) -> AiDeploy:
        """The API, to look at things and to change them by hand."""
        keys = ApplicationKey(
            CREDENTIALS.application_key, CREDENTIALS.application_secret, CREDENTIALS.consumer_key
        )
        return AiDeploy(OvhClient(Credentials(self.url, keys), FAST), PROJECT)

    def app(self, app_id: str) -> App:
        app = self.api.find_app(app_id)
        assert app is not None
        return app

    def in_state(self, app_id: str, *states: str) -> App:
        """The app, once it is in one of `states`."""
        for _ in FAST.polls(60 * SPEED):
            app = self.app(app_id)
            if app.state in states:
                return app
        raise AssertionError(f"never {states}: {app.status}")

    @property
    def apps(self) -> list[str]:
        return self._ids("ai-app")

    @property
    def tokens(self) -> list[str]:
        return self._ids("ai-token")

    def in_states(self, *states: str, name: str | None = None) -> set[str]:
        """Ids of the apps (of that name) that are in one of `states`."""
        return {
            thing["id"]
            for thing in self._sandbox("GET", "resources")
            if thing["kind"] == "ai-app"
            and thing["detail"]["state"] in states
            and name in (None, thing["name"])
        }

    @property
    def billed(self) -> list[str]:
        """Ids of what costs money now; the id of a replica begins with that of its app."""
        return [item["id"] for item in self._sandbox("GET", "bill")["items"] if item["running"]]

    def calls(self, *, changes: bool = True) -> list[str]:
        """Calls that the API got, without the path to the project; `changes`: only those that change."""
        return [
            f"{call['method']} {call['path'].partition('/ai')[2]}"
            for call in self._sandbox("GET", "calls")
            if not (changes and call["method"] == "GET")
        ]

    def bodies(self, method: str, end: str) -> list[Any]:
        """Bodies of the calls to paths that end so."""
        return [
            call["body"]
            for call in self._sandbox("GET", "calls")
            if call["method"] == method and call["path"].endswith(end)
        ]

    def fault(self, method: str, path: str, **fault: Any) -> None:
        """Lets the next calls of a path (regular expression) fail."""
        self._sandbox("POST", "faults", {"method": method, "path": path, **fault})

    def clear_faults(self) -> None:
        """Lets everything work again."""
        self._sandbox("DELETE", "faults")

    @property
    def waiting_faults(self) -> list[dict[str, Any]]:
        """Faults that have calls left to meet, with what is left of `after` and `count`."""
        faults: list[dict[str, Any]] = self._sandbox("GET", "faults")
        return faults

    def hold(self, state: str, name: str) -> None:
        """Lets apps of a name (regular expression) stay in a state."""
        self._sandbox("POST", "stuck", {"state": state, "name": name})

    def let_go(self) -> None:
        """No app is stuck any more."""
        self._sandbox("DELETE", "stuck")

    def end(self, name: str, state: str, message: str) -> None:
        """Puts apps of a name (regular expression) into FAILED or ERROR."""
        self._sandbox("POST", "end", {"name": name, "state": state, "message": message})

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Runs something in the cloud's thread."""
        future: Future[T] = asyncio.run_coroutine_threadsafe(coroutine, self.loop)
        return future.result()

    def _ids(self, kind: str) -> list[str]:
        return [thing["id"] for thing in self._sandbox("GET", "resources") if thing["kind"] == kind]

    def _sandbox(self, method: str, path: str, body: Any = None) -> Any:
        url = f"{self.url.removesuffix('/1.0')}/sandbox/{path}"
        return httpx.request(method, url, json=body).raise_for_status().json()


class Listener(Engine):
    """An engine that keeps what it is told."""

    def __init__(self, said: list[str]) -> None:
        super().__init__(None)
        self._said = said

    def say(self, message: str) -> None:
        self._said.append(message)


@contextmanager
def clouds(directory: Path, speed: float = 2000, startup: float = 0, **settings: Any) -> Iterator[Sky]:
    """A cloud; `speed` is platform seconds per second, replicas listen after `startup` of them."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()

    async def start() -> tuple[Sky, web.AppRunner]:
        clock, servers, barrier = PlatformClock(speed), AppServers(), Barrier()
        servers.cloud = Cloud(
            CloudSettings(CREDENTIALS, PROJECT, **settings),
            clock,
            replicas=FakeReplicas(clock, startup),
            clusters=FakeClusters(),
            directory=directory,
        )
        servers.cloud.connect(servers)
        application = servers.cloud.application()
        application.middlewares.insert(0, barrier.hold)
        runner = web.AppRunner(application, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        url = f"http://127.0.0.1:{runner.addresses[0][1]}/1.0"
        return Sky(url, servers.cloud, servers, loop, barrier), runner

    sky, runner = asyncio.run_coroutine_threadsafe(start(), loop).result()
    try:
        yield sky
    finally:
        sky.run(sky.barrier.open())
        sky.run(runner.cleanup())
        sky.run(sky.servers.close_all())
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


def inputs(
    *, identity: str = "0123456789abcdef", resource: str = "vllm", olds: Any = None, **fields: Any
) -> dict[str, Any]:
    """Inputs of an app as the engine hands them to `create`: checked, numbers as floats."""
    props = {
        "service_name": PROJECT,
        "identity": identity,
        "resource": resource,
        "name": "vllm",
        "region": "GRA",
        "image": "vllm/vllm-openai:v0.13.0",
        "flavor": "h100-1-gpu",
        "gpu": 1.0,
        "default_http_port": 8000.0,
        "readiness_probe": {"path": "/v1/models", "port": 8000.0},
        "env": {"HF_TOKEN": "hf_canary_secret"},
        "container_updates": "roll",
        **fields,
    }
    checked = providers.AppProvider().check(olds or {}, props)
    assert not checked.failures, [failure.reason for failure in checked.failures]
    arrived: dict[str, Any] = floats(checked.inputs)
    return arrived


def floats(value: Any) -> Any:
    """What the engine makes of JSON: numbers are floats, null members are not there, secrets in clear."""
    if rpc.is_rpc_secret(value):
        return floats(rpc.unwrap_rpc_secret(value))
    match value:
        case dict():
            return {key: floats(item) for key, item in value.items() if item is not None}
        case list():
            return [floats(item) for item in value]
        case bool():
            return value
        case int():
            return float(value)
        case _:
            return value

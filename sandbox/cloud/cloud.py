"""Puts the rooms of the emulator together."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from aiohttp import web

from sandbox.clock import Clock
from sandbox.cloud.ai import AiApi
from sandbox.cloud.apps import Apps
from sandbox.cloud.auth import Authenticator
from sandbox.cloud.calls import Fault, Faults, Recorder
from sandbox.cloud.failures import End, Stuck
from sandbox.cloud.http import PREFIXES, add_query_id, answer_errors, api, parse
from sandbox.cloud.infrastructure import ProjectInfrastructure
from sandbox.cloud.kube import Kubes
from sandbox.cloud.ledger import Ledger
from sandbox.cloud.native_ai import NativeAi
from sandbox.cloud.openstack import OpenStack
from sandbox.cloud.project import ProjectApi
from sandbox.cloud.settings import CloudSettings
from sandbox.cloud.tasks import Tasks
from sandbox.cloud.tokens import Tokens
from sandbox.cloud.users import Users
from sandbox.interfaces import (
    AppDirectory,
    AppGateway,
    ClusterFactory,
    Infrastructure,
    JsonObject,
    ReplicaFactory,
)

_MAX_BODY = 16 * 2**20


class Cloud:
    """The emulated cloud: one Public Cloud project behind one HTTP application.

    Beside the API there are the sandbox's own endpoints, without authentication: `GET /sandbox/resources`
    (what exists and costs), `GET /sandbox/bill`, `GET /sandbox/calls`, `GET|POST|DELETE /sandbox/faults`
    (`Fault`), `GET|POST|DELETE /sandbox/stuck` (`Stuck`) and `POST /sandbox/end` (`End`, answers the ids of
    the apps that it ended).
    """

    def __init__(
        self,
        settings: CloudSettings,
        clock: Clock,
        *,
        replicas: ReplicaFactory,
        clusters: Callable[[Infrastructure], ClusterFactory],
        directory: Path,
    ) -> None:
        self._tasks = Tasks()
        self._ledger = Ledger(clock)
        self._faults = Faults(self._concerned)
        self._recorder = Recorder()
        self._authenticator = Authenticator(settings)
        self._settings = settings
        self._tokens = Tokens()
        self._apps = Apps(settings, clock, replicas, self._tokens, self._ledger, self._tasks)
        self._infrastructure = ProjectInfrastructure(self._ledger)
        self._kubes = Kubes(
            settings,
            clock,
            clusters(self._infrastructure),
            self._infrastructure,
            self._ledger,
            self._tasks,
            directory / "clusters",
        )
        self._users = Users(settings, clock, self._tasks)
        self._openstack = OpenStack(settings, self._users, self._infrastructure)

    @property
    def apps(self) -> AppDirectory:
        """What the gateway asks."""
        return self._apps

    @property
    def infrastructure(self) -> Infrastructure:
        """What the clusters cause."""
        return self._infrastructure

    def connect(self, gateway: AppGateway) -> None:
        """Names the gateway that gives apps their addresses; comes before the first app."""
        self._apps.gateway = gateway

    def application(self) -> web.Application:
        """The server; its clean-up ends everything that the cloud runs."""
        application = web.Application(
            middlewares=[self._recorder.record, self._faults.inject, add_query_id, answer_errors],
            client_max_size=_MAX_BODY,
        )
        routes = [
            *self._authenticator.routes,
            *AiApi(self._settings, self._apps).routes,
            *self._tokens.routes,
            *self._kubes.routes,
            *self._users.routes,
        ]
        project = ProjectApi(self._settings, self._kubes, self._infrastructure)
        for prefix in PREFIXES:
            # The v2 API is another one: none of these routes are in it.
            known = project.v2_routes if prefix == "/v2" else [*routes, *project.routes]
            application.add_subapp(
                prefix,
                api(known, self._authenticator.check, self._settings.project, self._settings.denied_actions),
            )
        self._openstack.add_to(application)
        application.router.add_routes(
            [
                web.post("/auth/oauth2/token", self._authenticator.token),
                web.get("/sandbox/resources", self._get_resources),
                web.get("/sandbox/bill", self._get_bill),
                web.get("/sandbox/calls", self._get_calls),
                web.get("/sandbox/faults", self._get_faults),
                web.post("/sandbox/faults", self._add_fault),
                web.delete("/sandbox/faults", self._clear_faults),
                web.get("/sandbox/stuck", self._get_stuck),
                web.post("/sandbox/stuck", self._add_stuck),
                web.delete("/sandbox/stuck", self._clear_stuck),
                web.post("/sandbox/end", self._end_apps),
            ]
        )
        application.on_cleanup.append(self._close)
        return application

    def native_ai(self) -> web.Application:
        """A server for AI Deploy's native API."""
        return NativeAi(self._settings, self._apps, self._tokens).application()

    def resources(self) -> list[JsonObject]:
        """What exists: `kind`, `id`, `name`, `eurPerHour` (null: unknown price) and details of the kind."""
        apps: list[JsonObject] = [
            {
                "kind": "ai-app",
                "id": app.id,
                "name": app.name,
                "detail": {"state": app.state, "replicas": len(app.machine.pods)},
            }
            for app in self._apps.all()
        ]
        tokens: list[JsonObject] = [
            {"kind": "ai-token", "id": token.id, "name": token.spec.name, "detail": {"role": token.spec.role}}
            for token in self._tokens.all()
        ]
        clusters: list[JsonObject] = [
            {"kind": "cluster", "id": kube.id, "name": kube.name, "detail": {"status": kube.status}}
            for kube in self._kubes.all()
        ]
        pools: list[JsonObject] = [
            {
                "kind": "node-pool",
                "id": pool.id,
                "name": pool.name,
                "detail": {"cluster": kube.id, "flavor": pool.flavor, "nodes": len(pool.nodes)},
            }
            for kube in self._kubes.all()
            for pool in kube.pools.values()
        ]
        users: list[JsonObject] = [
            {"kind": "user", "id": str(user.id), "name": user.name, "detail": {"roles": [*user.roles]}}
            for user in self._users.all()
        ]
        everything = [*apps, *tokens, *clusters, *pools, *users, *self._infrastructure.resources()]
        return [thing | {"eurPerHour": self._ledger.rate(str(thing["id"]))} for thing in everything]

    async def _concerned(self, request: web.Request) -> list[str]:
        """Names of the apps and tokens that a call is about (see `Fault.about`)."""
        if id_ := request.match_info.get("app"):
            return [app.name for app in self._apps.all() if app.id == id_]
        if id_ := request.match_info.get("token"):
            return [token.spec.name for token in self._tokens.all() if token.id == id_]
        if request.method == "POST":
            return _named(await request.read())
        if selector := request.query.get("labelSelector"):
            return [app.name for app in self._apps.selected(selector)]
        return []

    async def _get_resources(self, _request: web.Request) -> web.Response:
        return web.json_response(self.resources())

    async def _get_bill(self, _request: web.Request) -> web.Response:
        return web.json_response(self._ledger.json())

    async def _get_calls(self, _request: web.Request) -> web.Response:
        return web.json_response(self._recorder.json())

    async def _get_faults(self, _request: web.Request) -> web.Response:
        return web.json_response(self._faults.json())

    async def _add_fault(self, request: web.Request) -> web.Response:
        self._faults.add(await parse(request, Fault))
        return web.json_response(None)

    async def _clear_faults(self, _request: web.Request) -> web.Response:
        self._faults.clear()
        return web.json_response(None)

    async def _get_stuck(self, _request: web.Request) -> web.Response:
        return web.json_response([stuck.model_dump(mode="json") for stuck in self._apps.stuck])

    async def _add_stuck(self, request: web.Request) -> web.Response:
        self._apps.hold(await parse(request, Stuck))
        return web.json_response(None)

    async def _clear_stuck(self, _request: web.Request) -> web.Response:
        self._apps.let_go()
        return web.json_response(None)

    async def _end_apps(self, request: web.Request) -> web.Response:
        return web.json_response([app.id for app in self._apps.end(await parse(request, End))])

    async def _close(self, _application: web.Application) -> None:
        await self._tasks.close()
        await self._apps.close()
        await self._kubes.close()


def _named(body: bytes) -> list[str]:
    """The `name` of what the body of a request describes, if there is one."""
    try:
        given = json.loads(body)
    except ValueError:
        return []
    name = given.get("name") if isinstance(given, dict) else None
    return [name] if isinstance(name, str) else []

"""AI Deploy's native API, which its own CLI speaks: the apps that an AI token opens, read only.

`GET /v1/app/{id}`, `GET /v1/app` and `GET /v1/me` with `Authorization: Bearer <AI token>`. Documented: paths,
fields, the form of lists and of errors (`{"message": …}`), 401, 403 and 404. Assumed: that a token may read
the apps that it may call, whatever its role; which refusal is a 403 and which a 404. On the platform each
region has a host of its own; here one address serves all, because a token belongs to a region anyway.
"""

from __future__ import annotations

from typing import Any

from aiohttp import web

from sandbox.cloud.apps import App, Apps
from sandbox.cloud.http import AnswerError, answer_errors, check_query
from sandbox.cloud.settings import CloudSettings
from sandbox.cloud.tokens import Token, Tokens
from sandbox.interfaces import JsonObject
from sandbox.servers import bearer, refusal


class NativeAi:
    """The API as a server of its own: it is neither recorded nor disturbed by faults."""

    def __init__(self, settings: CloudSettings, apps: Apps, tokens: Tokens) -> None:
        self._settings = settings
        self._apps = apps
        self._tokens = tokens

    def application(self) -> web.Application:
        """The server."""
        application = web.Application(middlewares=[answer_errors])
        application.router.add_routes(
            [
                web.get("/v1/app", self._list, allow_head=False),
                web.get("/v1/app/{app}", self._get, allow_head=False),
                web.get("/v1/me", self._me, allow_head=False),
            ]
        )
        return application

    async def _get(self, request: web.Request) -> web.Response:
        token = self._token(request)
        id_ = request.match_info["app"]
        app = next((app for app in self._apps.all() if app.id == id_), None)
        if app is None:
            raise _RefusalError(404, f"app {id_} does not exist")
        if not token.opens(app.spec.region, app.labels):
            raise _RefusalError(403, f"the token gives no access to app {id_}")
        return web.json_response(_native(app))

    async def _list(self, request: web.Request) -> web.Response:
        token = self._token(request)
        check_query(request)
        apps = [_native(app) for app in self._apps.all() if token.opens(app.spec.region, app.labels)]
        metadata = {"currentPage": 1, "pageCount": 1, "total": len(apps), "links": {"next": None}}
        return web.json_response({"items": apps, "metadata": metadata})

    async def _me(self, request: web.Request) -> web.Response:
        spec = self._token(request).spec
        return web.json_response(
            {
                "name": spec.name,
                "tenant": self._settings.project,
                "role": spec.role,
                "quotas": {"resources": {"GPU": self._settings.gpu_quota}},
                "tokenKind": "app",
            }
        )

    def _token(self, request: web.Request) -> Token:
        value = bearer(request)
        if not value:
            raise _RefusalError(401, "a Bearer token is needed")
        token = self._tokens.with_value(value)
        if token is None:
            raise _RefusalError(401, "the token is not valid")
        return token


class _RefusalError(AnswerError):
    """An error answer."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self._answer = refusal(status, message)

    def response(self) -> web.Response:
        """The error as an HTTP answer."""
        return self._answer


def _native(app: App) -> JsonObject:
    """The app in the native form: no region, and a volume has its source beside its other fields."""
    shown = app.json()
    spec: Any = shown["spec"]
    native = {key: value for key, value in spec.items() if key != "region"}
    if native.get("volumes"):
        native["volumes"] = [_volume(volume) for volume in native["volumes"]]
    return shown | {"spec": native}


def _volume(volume: JsonObject) -> JsonObject:
    source = volume.get("volumeSource")
    rest = {key: value for key, value in volume.items() if key != "volumeSource"}
    return rest | source if isinstance(source, dict) else rest

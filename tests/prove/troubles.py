"""What can happen at a call: faults of the API and of the app's address, the end of provider or engine."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass, field
from typing import Any, Literal

from aiohttp import web

from components.ai_deploy.client import REQUEST_TIMEOUT
from sandbox.cloud.http import Handler
from tests.prove.engine import MiniEngine
from tests.prove.program import APP
from tests.prove.provider import SPEED
from tests.prove.scene import Point, Scene, in_thread
from tests.sandbox_cloud.fakes import CREDENTIALS

Reach = Literal["once", "a while", "same", "all"]
"""How far a trouble goes: this call; two more of the kind; all of the kind; everything from here on."""
A_WHILE = 3

_TIMEOUT = REQUEST_TIMEOUT / SPEED
"""Wall-clock seconds after which the provider gives up waiting for an answer."""


@dataclass(frozen=True)
class Situation:
    """Where a trouble strikes."""

    scene: Scene
    engine: MiniEngine
    environment: Collection[str]
    """Values in the environment of the app, before and after."""


Strike = Callable[[Situation, Point, web.Request, Handler], Awaitable[web.StreamResponse]]


@dataclass(frozen=True)
class Trouble:
    """One thing that can go wrong at a call."""

    name: str
    strike: Strike
    applies: Callable[[Point], bool]
    reach: Reach = "once"
    breaks_off: bool = False
    """The run ends there; the way back begins with a refresh and a new process."""
    refresh: bool = False
    """The way back begins with a refresh, as the message says."""
    says: Callable[[Point], tuple[str, ...]] = field(default=lambda _point: ())
    """What the message has to say when the operation fails for it."""

    def meets_again(self, first: Point, point: Point, times: int) -> bool:
        """Whether it strikes at a later call, too, after it has struck `times` times."""
        same = (first.method, first.path) == (point.method, point.path)
        match self.reach:
            case "once":
                return False
            case "a while":
                return same and times < A_WHILE
            case "same":
                return same
            case "all":
                return self.applies(point)


def _api(point: Point) -> bool:
    return not point.path.startswith("app/")


def _signed(point: Point) -> bool:
    return _api(point) and point.path != "/auth/time"


def _changing(point: Point) -> bool:
    return point.changes


def _of_the_app(point: Point) -> bool:
    return point.path.startswith("app/")


def _always(_point: Point) -> bool:
    return True


def _fault(**fault: Any) -> Strike:
    """A fault that the emulator carries out."""

    async def strike(
        situation: Situation, point: Point, request: web.Request, handler: Handler
    ) -> web.StreamResponse:
        fault_ = {"method": point.method, "path": point.regex, **fault}
        await in_thread(situation.scene.ask, "POST", "faults", fault_)
        return await handler(request)

    return strike


def _error(class_: str, message: str, **more: Any) -> dict[str, Any]:
    return {"class": class_, "message": message, **more}


async def _killed_before(
    situation: Situation, _point: Point, _request: web.Request, _handler: Handler
) -> web.StreamResponse:
    await in_thread(situation.engine.process.kill)
    return web.Response(status=500)


async def _killed_after(
    situation: Situation, _point: Point, request: web.Request, handler: Handler
) -> web.StreamResponse:
    response = await handler(request)
    await in_thread(situation.engine.process.kill)
    return response


async def _engine_ends(
    situation: Situation, _point: Point, request: web.Request, handler: Handler
) -> web.StreamResponse:
    await in_thread(situation.engine.process.end_engine)
    return await handler(request)


def _garbled(status: int) -> Strike:
    """The call is carried out, what comes back is a page of some gateway."""

    async def strike(
        _situation: Situation, _point: Point, request: web.Request, handler: Handler
    ) -> web.StreamResponse:
        await handler(request)
        return web.Response(status=status, text="<html>Gateway</html>", content_type="text/html")

    return strike


def _echo(status: int, *, html: bool) -> Strike:
    """An error that repeats what it was sent, and what the platform knows of the app."""

    async def strike(
        situation: Situation, point: Point, request: web.Request, handler: Handler
    ) -> web.StreamResponse:
        if _of_the_app(point):
            secrets = [request.headers["Authorization"]]
        else:
            secrets = [CREDENTIALS.application_secret, CREDENTIALS.consumer_key]
            # Before the gate has got an answer about the app nobody there knows its environment.
            if point.path.startswith("/app") and (point.step.endswith(APP) or point.stage):
                secrets += situation.environment
        text = f"cannot take {', '.join(secrets)}"
        body = f"<html><body>{text}</body></html>" if html else _error("Client::BadRequest", text)
        if _of_the_app(point):
            return web.json_response(body, status=status)
        return await _fault(status=status, body=body)(situation, point, request, handler)

    return strike


def _shape(body: Any) -> Strike:
    """The call is carried out, what comes back is JSON of another form than the API's."""

    async def strike(
        _situation: Situation, _point: Point, request: web.Request, handler: Handler
    ) -> web.StreamResponse:
        await handler(request)
        return web.json_response(body)

    return strike


def _answer(**response: Any) -> Strike:
    """An answer of the app's own address."""

    async def strike(
        _situation: Situation, _point: Point, _request: web.Request, _handler: Handler
    ) -> web.StreamResponse:
        return web.Response(**response)

    return strike


async def _reset(
    _situation: Situation, _point: Point, request: web.Request, _handler: Handler
) -> web.StreamResponse:
    if request.transport is not None:
        request.transport.abort()
    return web.Response()


def _ended(state: str, message: str) -> Strike:
    """The platform gives the app up while it is being called."""

    async def strike(
        situation: Situation, _point: Point, _request: web.Request, _handler: Handler
    ) -> web.StreamResponse:
        end = {"name": ".", "state": state, "message": message}
        await in_thread(situation.scene.ask, "POST", "end", end)
        return web.Response(status=503, text="no replica")

    return strike


ACTIONS = {
    ("GET", "/app"): "ai/app/get",
    ("POST", "/app"): "ai/app/create",
    ("GET", "/app/{id}"): "ai/app/get",
    ("PUT", "/app/{id}"): "ai/app/edit",
    ("DELETE", "/app/{id}"): "ai/app/delete",
    ("PUT", "/app/{id}/start"): "ai/app/start",
    ("PUT", "/app/{id}/stop"): "ai/app/stop",
    ("PUT", "/app/{id}/scalingstrategy"): "ai/app/scalingstrategy/edit",
    ("PUT", "/app/{id}/label"): "ai/app/label/edit",
    ("GET", "/app/{id}/log"): "ai/app/log/get",
    ("GET", "/token"): "ai/token/get",
    ("POST", "/token"): "ai/token/create",
    ("GET", "/token/{id}"): "ai/token/get",
    ("DELETE", "/token/{id}"): "ai/token/delete",
}
"""IAM action of each call that the provider makes in these phases."""


def _action(point: Point) -> str:
    action = ACTIONS[point.method, point.path.partition("?")[0]]
    return f"publicCloudProject:apiovh:{action}"


async def _forbidden(
    situation: Situation, point: Point, request: web.Request, handler: Handler
) -> web.StreamResponse:
    body = _error(
        "Client::Forbidden",
        "User not granted for this request",
        details={"unauthorizedActionsByIAM": _action(point)},
    )
    return await _fault(status=403, body=body)(situation, point, request, handler)


_BUSY = _error("Client::TooManyRequests", "Too many requests")
_INTERNAL = _error("Server::InternalServerError", "Internal error")
_HTML = "<html><head><title>502</title></head><body>Bad gateway</body></html>"
_QUOTA = _error("Client::Forbidden::QuotaExceeded", "GPU quota exceeded: the app asks for 1 GPU(s)")
_OUT_OF_TIME = _error("Client::BadRequest", "Query out of time", errorCode="QUERY_TIME_OUT")
_LATE = _TIMEOUT + 30 / SPEED


def _api_trouble(name: str, reach: Reach = "once", **fault: Any) -> Trouble:
    return Trouble(name, _fault(**fault), _api, reach)


def _quota(point: Point) -> bool:
    return (point.method, point.path) in {("POST", "/app"), ("PUT", "/app/{id}/start")}


AT_CALLS = (
    _api_trouble("429", status=429, body=_BUSY),
    _api_trouble("429, Retry-After 20 s", status=429, body=_BUSY, headers={"Retry-After": "20"}),
    _api_trouble("429, Retry-After 1 h", status=429, body=_BUSY, headers={"Retry-After": "3600"}),
    _api_trouble("429 for long", "same", status=429, body=_BUSY),
    _api_trouble("500", status=500, body=_INTERNAL),
    _api_trouble("500 for long", "same", status=500, body=_INTERNAL),
    _api_trouble("502 with HTML", status=502, body=_HTML),
    _api_trouble("502 with HTML for long", "same", status=502, body=_HTML),
    _api_trouble("reset connection", reset=True),
    _api_trouble("reset connection for long", "same", reset=True),
    _api_trouble("slow answer, in time", delay_seconds=_TIMEOUT / 2),
    # What came late may have undone what came after it; a refresh finds that.
    Trouble("slow answer, too late", _fault(delay_seconds=_LATE), _api, refresh=True),
    Trouble("slow answer, too late, each time", _fault(delay_seconds=_LATE), _changing, "same", refresh=True),
    _api_trouble("lost answer", lost_answer=True),
    _api_trouble("lost answer each time", "same", lost_answer=True),
    Trouble("carried out, then 504 with HTML", _garbled(504), _api),
    Trouble("carried out, then 504 each time", _garbled(504), _changing, "same"),
    Trouble("carried out, then HTML with 200", _garbled(200), _api),
    Trouble(
        "wrong clock",
        _fault(status=400, body=_OUT_OF_TIME),
        _signed,
    ),
    Trouble(
        "credentials expire",
        _fault(
            status=403,
            body=_error("Client::Forbidden", "This credential is not valid", errorCode="INVALID_CREDENTIAL"),
        ),
        _signed,
        "all",
        says=lambda _point: ("make new ones and set them again",),
    ),
    Trouble("missing right", _forbidden, _signed, "same", says=lambda point: (_action(point),)),
    Trouble(
        "quota reached",
        _fault(status=403, body=_QUOTA),
        _quota,
        says=lambda _point: ("In use: ", "Quota of the project: 4 GPU"),
    ),
    Trouble("400 that echoes secrets", _echo(400, html=False), _always),
    Trouble("500 that echoes secrets, for long", _echo(500, html=True), _always, "same"),
    Trouble("carried out, then JSON null", _shape(None), _api),
    Trouble("carried out, then a strange JSON object", _shape({"unexpected": True}), _api),
    Trouble("carried out, then a JSON list of texts", _shape(["unexpected"]), _api),
    Trouble("kill -9 of the provider, call not carried out", _killed_before, _always, breaks_off=True),
    Trouble("kill -9 of the provider, call carried out", _killed_after, _always, breaks_off=True),
    Trouble("end of the engine", _engine_ends, _always, breaks_off=True),
)
"""Troubles that strike at each call to which they apply."""

_EXTENTS: tuple[tuple[str, Reach], ...] = (("three times", "a while"), ("for good", "same"))
_PAGE = {"text": "<html>Please log in</html>", "content_type": "text/html"}

AT_THE_APP = tuple(
    Trouble(f"app answers {name}, {extent}", strike, _of_the_app, reach)
    for name, strike in {
        "502 with HTML": _answer(status=502, text=_HTML, content_type="text/html"),
        "with a reset": _reset,
        "with the login page": _answer(status=302, headers={"Location": "/login"}),
        "HTML with 200": _answer(status=200, **_PAGE),
        "401": _answer(status=401, text="{}", content_type="application/json"),
    }.items()
    for extent, reach in _EXTENTS
)
"""Troubles of the app's own address during the gate."""

AT_THE_GATE = tuple(
    Trouble(f"{state} while it is called", _ended(state, message), _of_the_app, refresh=True, says=says)
    for state, message, says in (
        ("FAILED", "image cannot be pulled: access denied", lambda _point: ("FAILED", "access denied")),
        ("ERROR", "node lost", lambda _point: ("ERROR", "node lost")),
    )
)
"""States in which the platform gives an app up that was RUNNING."""

"""Routes, answers and errors of the OVHcloud API.

Errors have the form of API v1: `{"class": …, "message": …}` with a query id in a header. An operation without
a result answers `null`, because OVHcloud's Python client decodes JSON on every status but 204 (assumed).
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import TypeVar

from aiohttp import web
from pydantic import BaseModel, ValidationError

from sandbox.interfaces import JsonObject, JsonValue
from sandbox.trace import trace

_log = logging.getLogger(__name__)

PREFIXES = ("/1.0", "/v1", "/v2")
"""Paths under which the API answers; `/1.0` and `/v1` are the same API."""

Endpoint = Callable[[web.Request], Awaitable[JsonValue]]
"""Answers a request with a JSON value, or raises `ApiError`."""

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class AnswerError(Exception):
    """Raised by a handler instead of returning an answer."""

    def response(self) -> web.Response:
        """The error as an HTTP answer."""
        raise NotImplementedError


class ApiError(AnswerError):
    """An error answer of the OVHcloud API."""

    def __init__(
        self,
        status: int,
        class_: str,
        message: str,
        *,
        code: str | None = None,
        details: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.class_ = class_
        self.message = message
        self.code = code
        """`errorCode` of the older form of errors, which the gateway in front of the API still uses."""
        self.details = details

    def response(self) -> web.Response:
        """The error as an HTTP answer."""
        body: JsonObject = {"class": self.class_, "message": self.message}
        if self.code is not None:
            body["errorCode"] = self.code
            body["httpCode"] = f"{self.status} {HTTPStatus(self.status).phrase}"
        if self.details is not None:
            body["details"] = dict(self.details)
        return web.json_response(body, status=self.status)


def bad_request(message: str) -> ApiError:
    """400: the request makes no sense to the API."""
    return ApiError(400, "Client::BadRequest", message)


def not_found(what: str, message: str) -> ApiError:
    """404 for a kind of object, e.g. `Kube`."""
    return ApiError(404, f"Client::NotFound::{what}NotFound", message)


def not_implemented(what: str) -> ApiError:
    """501: OVHcloud may know this, the sandbox does not."""
    return ApiError(501, "Client::NotImplemented", f"not implemented in the sandbox: {what}")


@dataclass(frozen=True)
class Route:
    """An operation of the API; `path` without prefix, with `{name}` for variables."""

    method: str
    path: str
    endpoint: Endpoint
    action: str | None = None
    """IAM action that it needs, without `publicCloudProject:apiovh:`; None: none that the sandbox checks."""
    query: tuple[str, ...] = ()
    """Parameters that are heeded."""
    public: bool = False
    """Whether it is answered without credentials."""


IAM_PREFIX = "publicCloudProject:apiovh:"


def api(
    routes: Sequence[Route],
    authenticate: Callable[[web.Request], Awaitable[None]],
    project: str,
    denied_actions: frozenset[str],
) -> web.Application:
    """One prefix of the API as a sub-application."""

    def guarded(route: Route) -> Handler:
        async def handle(request: web.Request) -> web.StreamResponse:
            if not route.public:
                await authenticate(request)
            if request.match_info.get("project", project) != project:
                raise ApiError(404, "Client::NotFound", "This service does not exist")
            action = f"{IAM_PREFIX}{route.action}"
            if route.action is not None and action in denied_actions:
                raise ApiError(
                    403,
                    "Client::Forbidden",
                    "User not granted for this request",
                    details={"unauthorizedActionsByIAM": action},
                )
            check_query(request, route.query)
            return web.json_response(await route.endpoint(request))

        return handle

    application = web.Application()
    for route in routes:
        application.router.add_route(route.method, route.path, guarded(route))
    return application


@web.middleware
async def answer_errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Turns exceptions into error answers."""
    try:
        return await handler(request)
    except AnswerError as error:
        return error.response()
    except (web.HTTPNotFound, web.HTTPMethodNotAllowed):
        return not_implemented(f"{request.method} {request.path}").response()
    except web.HTTPException:
        raise
    except Exception as error:
        _log.error("%s %s failed: %s", request.method, request.path, trace(error))
        return ApiError(500, "Server::InternalServerError", "bug in the sandbox: see its log").response()


@web.middleware
async def add_query_id(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Gives every answer an id, by which OVHcloud's support finds the call."""
    response = await handler(request)
    response.headers["X-Ovh-QueryID"] = f"EU.sandbox-1.{uuid.uuid4()}"
    return response


BodyT = TypeVar("BodyT", bound=BaseModel)


async def parse(
    request: web.Request, model: type[BodyT], refused: Callable[[str], AnswerError] = bad_request
) -> BodyT:
    """The request's body; raises what `refused` makes of the fields that the published types do not allow."""
    try:
        return model.model_validate_json(await request.read())
    except ValidationError as error:
        raise refused(f"invalid body: {_described(error)}") from None


def _described(error: ValidationError) -> str:
    """Every problem with the path of its field; values are left out, they may be secret."""
    problems = error.errors(include_input=False, include_url=False)
    return "; ".join(
        f"{'.'.join(str(part) for part in problem['loc']) or 'body'}: {problem['msg']}"
        for problem in problems
    )


def check_query(request: web.Request, known: Collection[str] = ()) -> None:
    """Refuses parameters that the sandbox would otherwise ignore without a word."""
    if unknown := sorted(set(request.query) - set(known)):
        raise not_implemented(f"{request.method} {request.path} with parameter {', '.join(unknown)}")

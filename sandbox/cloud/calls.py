"""What was called, and faults that calls are made to meet."""

from __future__ import annotations

import asyncio
import json
import re
import urllib.parse
from collections import deque
from dataclasses import dataclass
from typing import Annotated

from aiohttp import web
from pydantic import BaseModel, ConfigDict, Field, JsonValue

from sandbox.cloud import stamps
from sandbox.cloud.http import Handler
from sandbox.interfaces import JsonObject
from sandbox.interfaces import JsonValue as Json

OWN_PATHS = "/sandbox/"
"""Prefix of the sandbox's own endpoints, which are neither recorded nor disturbed."""

_KEPT = 20_000
_HIDDEN = "***"
_SECRETS = frozenset({"password", "client_secret", "access_token"})
_NAMED_SECRETS = "envVars"


class Fault(BaseModel):
    """What happens to the next `count` calls that match.

    Without `status` the call is carried out: late after `delay_seconds`, or with its answer lost. With one,
    nothing is carried out and `body` (a string is sent as it is, anything else as JSON) is the answer.
    """

    model_config = ConfigDict(extra="forbid")

    method: str | None = None
    path: re.Pattern[str]
    """Regular expression, searched in path and query as the client sent them."""
    count: Annotated[int, Field(ge=1)] = 1
    status: Annotated[int, Field(ge=200, le=599)] | None = None
    body: JsonValue = None
    headers: dict[str, str] = Field(default_factory=dict)
    delay_seconds: Annotated[float, Field(ge=0)] = 0
    """Wall-clock seconds before anything else happens."""
    lost_answer: bool = False
    """The call is carried out, then the connection is cut."""

    def matches(self, request: web.Request) -> bool:
        """Whether a call meets this fault."""
        method_fits = self.method is None or self.method.upper() == request.method
        return method_fits and self.path.search(request.raw_path) is not None

    def answer(self) -> web.Response:
        """The answer that is sent instead of the real one."""
        assert self.status is not None
        if isinstance(self.body, str):
            return web.Response(status=self.status, text=self.body, headers=self.headers)
        return web.json_response(self.body, status=self.status, headers=self.headers)


class Faults:
    """The faults that wait for their calls."""

    def __init__(self) -> None:
        self._waiting: list[Fault] = []

    def add(self, fault: Fault) -> None:
        """Arms a fault; the first one that matches a call is taken."""
        self._waiting.append(fault)

    def clear(self) -> None:
        """Disarms all."""
        self._waiting.clear()

    def json(self) -> list[Json]:
        """The faults that still wait, with what is left of their count."""
        return [fault.model_dump(mode="json") for fault in self._waiting]

    @web.middleware
    async def inject(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Lets a call meet its fault."""
        fault = None if request.path.startswith(OWN_PATHS) else self._take(request)
        if fault is None:
            return await handler(request)
        await asyncio.sleep(fault.delay_seconds)
        if fault.status is not None:
            return fault.answer()
        response = await handler(request)
        if fault.lost_answer and request.transport is not None:
            request.transport.abort()
        return response

    def _take(self, request: web.Request) -> Fault | None:
        for place, fault in enumerate(self._waiting):
            if fault.matches(request):
                left = fault.model_copy(update={"count": fault.count - 1})
                self._waiting[place : place + 1] = [left] if left.count else []
                return fault
        return None


@dataclass(frozen=True)
class Call:
    """A request and the status that it was answered with; secrets are hidden."""

    time: str
    method: str
    path: str
    body: Json
    status: int

    def json(self) -> JsonObject:
        """The call for the sandbox's own list."""
        return {
            "time": self.time,
            "method": self.method,
            "path": self.path,
            "body": self.body,
            "status": self.status,
        }


class Recorder:
    """Remembers the newest calls."""

    def __init__(self) -> None:
        self._calls: deque[Call] = deque(maxlen=_KEPT)

    def json(self) -> list[Json]:
        """The calls, oldest first."""
        return [call.json() for call in self._calls]

    @web.middleware
    async def record(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Records a call with the status of its answer, also when that answer gets lost."""
        if request.path.startswith(OWN_PATHS):
            return await handler(request)
        body = _shown(await request.read(), request.content_type)
        response = await handler(request)
        self._calls.append(Call(stamps.now(), request.method, request.raw_path, body, response.status))
        return response


def _shown(raw: bytes, content_type: str) -> Json:
    if not raw:
        return None
    try:
        if content_type == "application/x-www-form-urlencoded":
            return redacted(dict(urllib.parse.parse_qsl(raw.decode())))
        return redacted(json.loads(raw))
    except ValueError:
        return f"{len(raw)} bytes that are no JSON"


def redacted(value: Json) -> Json:
    """The value with passwords, secrets and the values of environment variables hidden."""
    if isinstance(value, list):
        return [redacted(item) for item in value]
    if not isinstance(value, dict):
        return value
    shown: JsonObject = {}
    for key, item in value.items():
        if key in _SECRETS and isinstance(item, str):
            shown[key] = _HIDDEN
        elif key == _NAMED_SECRETS and isinstance(item, list):
            shown[key] = [_without_value(variable) for variable in item]
        else:
            shown[key] = redacted(item)
    return shown


def _without_value(variable: Json) -> Json:
    if not isinstance(variable, dict):
        return _HIDDEN
    return {key: _HIDDEN if key == "value" and item else item for key, item in variable.items()}

"""What was called, and faults that calls are made to meet."""

from __future__ import annotations

import asyncio
import json
import re
import socket
import struct
import urllib.parse
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Annotated, Self

from aiohttp import web
from multidict import CIMultiDict
from pydantic import BaseModel, ConfigDict, Field, JsonValue, model_validator

from sandbox.cloud import stamps
from sandbox.cloud.http import Handler
from sandbox.interfaces import JsonObject
from sandbox.interfaces import JsonValue as Json

OWN_PATHS = "/sandbox/"
"""Prefix of the sandbox's own endpoints, which are neither recorded nor disturbed."""

CUT = 444
"""Status of a recorded call whose connection was cut before anything was carried out, as nginx logs it."""

Names = Callable[[web.Request], Awaitable[Iterable[str]]]
"""Names of the things that a call concerns, none when it concerns nothing that has a name."""

_KEPT = 20_000
_HIDDEN = "***"
_SECRETS = frozenset({"password", "client_secret", "access_token"})
_NAMED_SECRETS = "envVars"


class Fault(BaseModel):
    """What happens to `count` calls that match, once `after` of them have passed.

    With `status` nothing is carried out and `body` (a string is sent as it is, anything else as JSON) is the
    answer; with `reset` nothing is carried out and there is no answer. Otherwise the call is carried out:
    late after `delay_seconds`, even when the client has gone meanwhile, or with its answer lost. What makes
    no sense together is refused.
    """

    model_config = ConfigDict(extra="forbid")

    method: str | None = None
    path: re.Pattern[str]
    """Regular expression, searched in path and query as the client sent them."""
    about: re.Pattern[str] | None = None
    """Regular expression, searched in the names of the apps and tokens that the call concerns: the `name` in
    the body of a POST, the one whose id is in the path, those that a `labelSelector` selects. A call that
    concerns none (the list of all apps, an id that is unknown) does not match."""
    after: Annotated[int, Field(ge=0)] = 0
    """Calls that match and pass first; one that meets another fault is not counted."""
    count: Annotated[int, Field(ge=1)] = 1
    status: Annotated[int, Field(ge=200, le=599)] | None = None
    body: JsonValue = None
    headers: dict[str, str] = Field(default_factory=dict)
    """`Content-Type` too, which is that of JSON or of plain text unless it is given."""
    delay_seconds: Annotated[float, Field(ge=0)] = 0
    """Wall-clock seconds before anything else happens."""
    lost_answer: bool = False
    """The call is carried out, then the connection is closed without an answer."""
    reset: bool = False
    """The connection is reset (RST), nothing is carried out."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        ends = {"status": self.status is not None, "lost_answer": self.lost_answer, "reset": self.reset}
        given = [name for name, is_given in ends.items() if is_given]
        if len(given) > 1:
            raise ValueError(f"{' and '.join(given)} exclude each other: a call ends in one way")
        if not given and not self.delay_seconds:
            raise ValueError("nothing would happen: give status, lost_answer, reset or delay_seconds")
        if self.status is None and (self.body is not None or self.headers):
            raise ValueError("body and headers belong to an answer: give status as well")
        return self

    def matches(self, request: web.Request, names: Iterable[str]) -> bool:
        """Whether a call that concerns `names` is one of those that this fault is about."""
        return (
            (self.method is None or self.method.upper() == request.method)
            and self.path.search(request.raw_path) is not None
            and (self.about is None or any(self.about.search(name) for name in names))
        )

    def answer(self) -> web.Response:
        """The answer that is sent instead of the real one."""
        assert self.status is not None
        plain = isinstance(self.body, str)
        text = str(self.body) if plain else json.dumps(self.body)
        headers = CIMultiDict({"Content-Type": "text/plain" if plain else "application/json"})
        headers.update(self.headers)
        return web.Response(status=self.status, body=text.encode(), headers=headers)


class Faults:
    """The faults that wait for their calls; `names` says what a call concerns."""

    def __init__(self, names: Names) -> None:
        self._names = names
        self._waiting: list[Fault] = []

    def add(self, fault: Fault) -> None:
        """Arms a fault; a call meets the first one that matches and has let pass what it had to."""
        self._waiting.append(fault)

    def clear(self) -> None:
        """Disarms all."""
        self._waiting.clear()

    def json(self) -> list[Json]:
        """The faults that still wait, with what is left of `after` and `count`."""
        return [fault.model_dump(mode="json") for fault in self._waiting]

    @web.middleware
    async def inject(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Lets a call meet its fault."""
        if not self._waiting or request.path.startswith(OWN_PATHS):
            return await handler(request)
        fault = self._take(request, await self._names(request))
        if fault is None:
            return await handler(request)
        await asyncio.sleep(fault.delay_seconds)
        if fault.status is not None:
            return fault.answer()
        if fault.reset:
            _cut(request, reset=True)
            return web.Response(status=CUT)
        response = await handler(request)
        if fault.lost_answer:
            _cut(request, reset=False)
        return response

    def _take(self, request: web.Request, names: Iterable[str]) -> Fault | None:
        """The call's fault; nothing is awaited here, so that calls at the same time count one by one."""
        for place, fault in enumerate(self._waiting):
            if not fault.matches(request, names):
                continue
            passes = fault.after > 0
            spent = {"after": fault.after - 1} if passes else {"count": fault.count - 1}
            left = fault.model_copy(update=spent)
            self._waiting[place : place + 1] = [left] if left.count else []
            if not passes:
                return fault
        return None


def _cut(request: web.Request, *, reset: bool) -> None:
    if (transport := request.transport) is None:
        return
    if reset:
        # Lingering for 0 seconds makes the kernel send RST instead of FIN.
        linger = struct.pack("ii", 1, 0)
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    transport.abort()


@dataclass(frozen=True)
class Call:
    """A request and the status that it was answered with (`CUT`: it was not); secrets are hidden."""

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

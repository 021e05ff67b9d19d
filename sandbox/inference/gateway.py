"""AI Deploy's gateway: an HTTPS address per app that checks tokens and balances over the ready replicas.

What OVHcloud documents: the Bearer token in `Authorization`, one load-balanced URL per app, and that browsers
without a token are sent to a login page. Assumed, since nothing is written about API clients: the status
codes below, that the header does not reach the container, and balancing per request.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal
from urllib.parse import urlencode

from aiohttp import hdrs, web
from multidict import CIMultiDict

from sandbox import tls
from sandbox.interfaces import AppDirectory, Replica
from sandbox.servers import bearer, listen, refusal

Balancing = Literal["random", "round-robin", "sticky"]
"""How a replica is picked: anew for each request, or (sticky) once for all connections of a client's address,
until that replica is not ready any more."""

REFUSED_STATUS = 401
"""Status for no token, an unknown one and one that may not call this app alike; assumed."""

UNAVAILABLE_STATUS = 503
"""Status when no replica is ready; assumed."""

CUT_STATUS = 502
"""Status when the replica ends before it answers; assumed."""

_LARGEST_BODY = 64 * 2**20  # bytes of a request; no limit is documented
_CUT_SECONDS = 0.01  # how long a closed listener waits for its requests: they are cut


@dataclass
class _Listener:
    runner: web.AppRunner
    url: str
    turn: int = 0
    """Of the round robin."""
    chosen: dict[str, str] = field(default_factory=dict)
    """Of the sticky balancing: a client's address to the name of its replica."""


class Gateway:
    """Implements `sandbox.interfaces.AppGateway`; all listeners run in the caller's event loop."""

    def __init__(
        self,
        directory: AppDirectory,
        authority: tls.Authority,
        scratch: Path,
        login_url: str,
        balancing: Balancing = "random",
        seed: int | None = None,
    ) -> None:
        """`scratch` is a directory for short-lived key files, `seed` makes the balancing repeatable."""
        self._directory = directory
        self._login_url = login_url
        self._balancing = balancing
        self._random = random.Random(seed)  # noqa: S311
        self._tls = tls.server_context(authority.server(["127.0.0.1", "localhost"]), scratch)
        self._listeners: dict[str, _Listener] = {}

    async def open(self, app_id: str) -> str:
        """Listens for the app on a free port; returns its URL, the same one while it is open."""
        if app_id in self._listeners:
            return self._listeners[app_id].url
        app = web.Application(client_max_size=_LARGEST_BODY)

        async def answer(request: web.Request) -> web.StreamResponse:
            return await self._answer(app_id, request)

        app.router.add_route("*", "/{path:.*}", answer)
        # Without cancellation a handler would not notice that its client has gone.
        runner, url = await listen(app, self._tls, cancels=True, shutdown_seconds=_CUT_SECONDS, backlog=4096)
        self._listeners[app_id] = _Listener(runner, url)
        return url

    async def close(self, app_id: str) -> None:
        """Stops to listen for the app and cuts its connections; harmless for one that is not open."""
        listener = self._listeners.pop(app_id, None)
        if listener is not None:
            await listener.runner.cleanup()

    async def stop(self) -> None:
        """Closes every app."""
        for app_id in list(self._listeners):
            await self.close(app_id)

    async def _answer(self, app_id: str, request: web.Request) -> web.StreamResponse:
        token = bearer(request)
        if not self._directory.may_call(app_id, token):
            return self._refuse(app_id, request, token)
        replicas = self._directory.ready_replicas(app_id)
        if not replicas:
            return refusal(UNAVAILABLE_STATUS, "no replica of the app is ready")
        headers = CIMultiDict(request.headers)
        headers.popall(hdrs.AUTHORIZATION, None)
        try:
            replica = self._choose(app_id, replicas, request.remote or "")
            return await replica.handle(request.clone(headers=headers))
        except ConnectionError:
            # The replica was killed, or the client has gone. A part of the answer that was sent already must
            # not look complete: the connection is cut, and the answer below goes nowhere.
            if request.writer.output_size and request.transport is not None:
                request.transport.abort()
            return refusal(CUT_STATUS, "the replica closed the connection")

    def _choose(self, app_id: str, replicas: Sequence[Replica], client: str) -> Replica:
        if self._balancing == "random":
            return self._random.choice(replicas)
        listener = self._listeners[app_id]
        if self._balancing == "round-robin":
            listener.turn += 1
            return replicas[(listener.turn - 1) % len(replicas)]
        known = (replica for replica in replicas if replica.name == listener.chosen.get(client))
        replica = next(known, None) or self._random.choice(replicas)
        listener.chosen[client] = replica.name
        return replica

    def _refuse(self, app_id: str, request: web.Request, token: str) -> web.Response:
        if not token and "text/html" in request.headers.get(hdrs.ACCEPT, ""):
            query = urlencode({"redirect": self._listeners[app_id].url, "error": "unauthorized"})
            return web.Response(status=302, headers={hdrs.LOCATION: f"{self._login_url}?{query}"})
        reason = "the token may not call this app" if token else "a Bearer token is needed"
        return refusal(REFUSED_STATUS, reason)

"""What the HTTP servers of the sandbox have in common."""

from __future__ import annotations

import ssl

from aiohttp import hdrs, web


async def listen(
    application: web.Application,
    tls: ssl.SSLContext | None = None,
    *,
    cancels: bool = False,
    shutdown_seconds: float = 1,
    backlog: int = 128,
) -> tuple[web.AppRunner, str]:
    """Serves an application on a free port of 127.0.0.1; returns its base URL too, without trailing slash.

    `cancels`: a handler ends when its client has gone, else it carries out what it began. The runner's
    `cleanup` gives requests under way `shutdown_seconds`.
    """
    runner = web.AppRunner(
        application, access_log=None, handler_cancellation=cancels, shutdown_timeout=shutdown_seconds
    )
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls, backlog=backlog).start()
    return runner, f"{'http' if tls is None else 'https'}://127.0.0.1:{runner.addresses[0][1]}"


def bearer(request: web.Request) -> str:
    """The Bearer token of a request, empty without one."""
    scheme, _, token = request.headers.get(hdrs.AUTHORIZATION, "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""


def refusal(status: int, message: str) -> web.Response:
    """An error as AI Deploy's servers answer it: the native API (documented), the gateway (assumed)."""
    return web.json_response({"message": message}, status=status)

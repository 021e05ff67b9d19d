"""Who calls an app or AI Deploy's native API: the Bearer token of a request."""

from __future__ import annotations

from aiohttp import hdrs, web


def bearer(request: web.Request) -> str:
    """The token of a request, empty without one."""
    scheme, _, token = request.headers.get(hdrs.AUTHORIZATION, "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""

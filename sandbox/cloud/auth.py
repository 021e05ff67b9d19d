"""Who may call the API: application key with signature, or a Bearer token of the OAuth2 endpoint."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import secrets
import time

from aiohttp import web

from sandbox.cloud.http import ApiError, Route
from sandbox.cloud.settings import ACCOUNT, CloudSettings
from sandbox.interfaces import JsonValue
from sandbox.servers import bearer

_TOKEN_SECONDS = 3600


def _signature(secret: str, consumer_key: str, method: str, url: str, body: bytes, timestamp: str) -> str:
    """`X-Ovh-Signature` of a request; `url` is the full one, as the client saw it."""
    text = "+".join((secret, consumer_key, method, url)).encode() + b"+" + body + b"+" + timestamp.encode()
    return "$1$" + hashlib.sha1(text).hexdigest()  # noqa: S324 - the API prescribes SHA-1


class Authenticator:
    """Checks requests against the account's credentials."""

    def __init__(self, settings: CloudSettings) -> None:
        self._credentials = settings.credentials
        self._tolerance = settings.timestamp_tolerance
        self._clock_offset = settings.clock_offset_seconds
        self._tokens: dict[str, float] = {}
        """Access token to the monotonic second at which it expires."""

    @property
    def routes(self) -> list[Route]:
        """`/auth/time` and `/auth/details`."""
        return [
            Route("GET", "/auth/time", self._time, public=True),
            Route("GET", "/auth/details", self._details),
        ]

    async def check(self, request: web.Request) -> None:
        """Raises ApiError unless the request is authentic.

        Statuses and `errorCode`s are those that OVHcloud's clients know and users have reported.
        """
        token = bearer(request)
        if not token:
            await self._check_signature(request)
        elif self._tokens.get(token, 0) < time.monotonic():
            raise ApiError(401, "Client::Unauthorized::InvalidAuthToken", "Invalid authentication token")

    async def _check_signature(self, request: web.Request) -> None:
        known, headers = self._credentials, request.headers
        if "X-Ovh-Application" not in headers:
            raise _refused(403, "NOT_CREDENTIAL", "You must login first")
        if headers["X-Ovh-Application"] != known.application_key:
            raise _refused(403, "INVALID_KEY", "This application key is invalid")
        if not _same(headers.get("X-Ovh-Consumer", ""), known.consumer_key):
            raise _refused(403, "INVALID_CREDENTIAL", "This credential is not valid")
        timestamp = headers.get("X-Ovh-Timestamp", "")
        if not timestamp.isdecimal() or abs(int(timestamp) - self._now()) > self._tolerance:
            raise _refused(400, "QUERY_TIME_OUT", "Query out of time")
        expected = _signature(
            known.application_secret,
            known.consumer_key,
            request.method,
            f"{request.scheme}://{request.host}{request.raw_path}",
            await request.read(),
            timestamp,
        )
        if not _same(headers.get("X-Ovh-Signature", ""), expected):
            raise _refused(400, "INVALID_SIGNATURE", "Invalid signature")

    async def token(self, request: web.Request) -> web.Response:
        """OAuth2 token endpoint, client credentials; the client's id and secret in the form or by Basic."""
        form = await request.post()
        client, secret = str(form.get("client_id", "")), str(form.get("client_secret", ""))
        if (basic := _basic(request)) is not None:
            client, secret = basic
        if form.get("grant_type") != "client_credentials":
            return web.json_response({"error": "unsupported_grant_type"}, status=400)
        known = self._credentials
        if known.client_id is None or known.client_secret is None:
            return web.json_response({"error": "invalid_client"}, status=401)
        if not (_same(client, known.client_id) and _same(secret, known.client_secret)):
            return web.json_response({"error": "invalid_client"}, status=401)
        token = secrets.token_urlsafe(32)
        self._tokens[token] = time.monotonic() + _TOKEN_SECONDS
        return web.json_response(
            {"access_token": token, "token_type": "Bearer", "expires_in": _TOKEN_SECONDS, "scope": "all"}
        )

    async def _time(self, _request: web.Request) -> JsonValue:
        return int(self._now())

    def _now(self) -> float:
        return time.time() + self._clock_offset

    async def _details(self, request: web.Request) -> JsonValue:
        signed = "X-Ovh-Application" in request.headers
        return {
            "account": ACCOUNT,
            "allowedRoutes": None,
            "description": "",
            "identities": [f"urn:v1:eu:identity:account:{ACCOUNT}"],
            "method": "provider-ovh" if signed else "oauth2",
            "roles": [],
            "user": None,
        }


def _refused(status: int, code: str, message: str) -> ApiError:
    return ApiError(
        status, "Client::BadRequest" if status == 400 else "Client::Forbidden", message, code=code
    )


def _same(given: str, expected: str) -> bool:
    return hmac.compare_digest(given.encode(), expected.encode())


def _basic(request: web.Request) -> tuple[str, str] | None:
    scheme, _, encoded = request.headers.get("Authorization", "").partition(" ")
    if scheme != "Basic":
        return None
    try:
        client, _, secret = base64.b64decode(encoded, validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        return None
    return client, secret

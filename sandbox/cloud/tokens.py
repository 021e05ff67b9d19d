"""Application tokens of AI Deploy."""

from __future__ import annotations

import hashlib
import secrets
import uuid
from collections.abc import Mapping
from dataclasses import dataclass

from aiohttp import web

from components.flavors import REGIONS
from sandbox.cloud import stamps
from sandbox.cloud.http import Route, bad_request, not_found, parse
from sandbox.cloud.schema import TokenSpec
from sandbox.interfaces import JsonObject, JsonValue

_PATH = "/cloud/project/{project}/ai/token"


@dataclass
class Token:
    """A token; its value is known only by its digest."""

    id: str
    spec: TokenSpec
    digest: str
    version: int
    created: str
    updated: str

    def opens(self, region: str, labels: Mapping[str, str]) -> bool:
        """Whether it is for an app of that region with these labels; without a selector it opens all."""
        if self.spec.region != region:
            return False
        if self.spec.label_selector is None:
            return True
        name, value = self.spec.label_selector.split("=")
        return labels.get(name) == value

    def json(self, value: str | None = None) -> JsonObject:
        """The token as the API shows it; `value` only right after it was made."""
        return {
            "id": self.id,
            "spec": self.spec.json_object(),
            "status": {"value": value, "version": self.version},
            "createdAt": self.created,
            "updatedAt": self.updated,
        }


class Tokens:
    """All tokens of the project; tokens never expire, names need not be unique (assumed)."""

    def __init__(self) -> None:
        self._tokens: dict[str, Token] = {}

    @property
    def routes(self) -> list[Route]:
        """The token part of the API."""
        return [
            Route("GET", _PATH, self._list, "ai/token/get"),
            Route("POST", _PATH, self._create, "ai/token/create"),
            Route("GET", f"{_PATH}/{{token}}", self._get, "ai/token/get"),
            Route("DELETE", f"{_PATH}/{{token}}", self._delete, "ai/token/delete"),
            Route("POST", f"{_PATH}/{{token}}/renew", self._renew, "ai/token/renew"),
        ]

    def all(self) -> list[Token]:
        """Every token."""
        return list(self._tokens.values())

    def opens(self, value: str, region: str, labels: Mapping[str, str]) -> bool:
        """Whether `value` is a token, of any role, for an app of that region with these labels."""
        token = self.with_value(value)
        return token is not None and token.opens(region, labels)

    def with_value(self, value: str) -> Token | None:
        """The token whose newest value this is."""
        digest = _digest(value)
        return next((token for token in self._tokens.values() if token.digest == digest), None)

    async def _list(self, _request: web.Request) -> JsonValue:
        return [token.json() for token in self._tokens.values()]

    async def _create(self, request: web.Request) -> JsonValue:
        spec = await parse(request, TokenSpec)
        check_region(spec.region)
        value, now = _new_value(), stamps.now()
        token = Token(str(uuid.uuid4()), spec, _digest(value), 1, now, now)
        self._tokens[token.id] = token
        return token.json(value)

    async def _get(self, request: web.Request) -> JsonValue:
        return self._find(request).json()

    async def _delete(self, request: web.Request) -> JsonValue:
        del self._tokens[self._find(request).id]
        return None

    async def _renew(self, request: web.Request) -> JsonValue:
        token, value = self._find(request), _new_value()
        token.digest = _digest(value)
        token.version += 1
        token.updated = stamps.now()
        return token.json(value)

    def _find(self, request: web.Request) -> Token:
        id_ = request.match_info["token"]
        if id_ not in self._tokens:
            raise not_found("Token", f"token {id_} does not exist")
        return self._tokens[id_]


def check_region(region: str) -> None:
    """Refuses a region that has no AI products."""
    if region not in REGIONS:
        raise bad_request(f"region: {region} has no AI products; these have: {', '.join(REGIONS)}")


def _new_value() -> str:
    return secrets.token_urlsafe(48)


def _digest(value: str) -> str:
    return hashlib.sha256(value.encode()).hexdigest()

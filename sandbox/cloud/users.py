"""OpenStack users of the project: `/cloud/project/{serviceName}/user` and `/role`."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field
from typing import Annotated

from aiohttp import web
from pydantic import Field

from sandbox.clock import Clock
from sandbox.cloud import stamps
from sandbox.cloud.http import Route, bad_request, not_found, parse
from sandbox.cloud.schema import Body
from sandbox.cloud.settings import TENANT_NAME, CloudSettings
from sandbox.cloud.tasks import Tasks
from sandbox.interfaces import JsonObject, JsonValue

_PATH = "/cloud/project/{project}/user"
_USER = f"{_PATH}/{{user}}"

ROLES = (
    "administrator",
    "ai_training_operator",
    "ai_training_read",
    "authentication",
    "backup_operator",
    "compute_operator",
    "image_operator",
    "infrastructure_supervisor",
    "key-manager_operator",
    "key-manager_read",
    "load-balancer_operator",
    "network_operator",
    "network_security_operator",
    "objectstore_operator",
    "volume_operator",
)
"""Role names; a role's id is its place in this list."""


class UserCreation(Body):
    """Body of `POST …/user`."""

    description: str | None = None
    role: str | None = None
    roles: list[str] | None = None


class RoleUpdate(Body):
    """Body of `PUT …/user/{userId}/role`."""

    roles_ids: Annotated[list[str], Field(min_length=1)]


@dataclass
class User:
    """A user; the password is valid until it is made anew or the user is deleted."""

    id: int
    name: str
    password: str = field(repr=False)
    description: str
    roles: list[str]
    status: str = "creating"
    created: str = field(default_factory=stamps.now)

    def json(self) -> JsonObject:
        """The user as the API shows it, without the password."""
        return {
            "id": self.id,
            "username": self.name,
            "description": self.description,
            "status": self.status,
            "creationDate": self.created,
            "openstackId": None,
            "roles": [_role(name) for name in self.roles],
        }


class Users:
    """All users of the project."""

    def __init__(self, settings: CloudSettings, clock: Clock, tasks: Tasks) -> None:
        self._project = settings.project
        self._delay = settings.delays.user
        self._clock = clock
        self._tasks = tasks
        self._users: dict[int, User] = {}

    @property
    def routes(self) -> list[Route]:
        """The user part of the API."""
        return [
            Route("GET", "/cloud/project/{project}/role", self._roles, "role/get"),
            Route("GET", _PATH, self._list, "user/get"),
            Route("POST", _PATH, self._create, "user/create"),
            Route("GET", _USER, self._get, "user/get"),
            Route("DELETE", _USER, self._delete, "user/delete"),
            Route("GET", f"{_USER}/openrc", self._openrc, "user/openrc/get", query=("region",)),
            Route("PUT", f"{_USER}/role", self._set_roles, "user/role/edit"),
            Route("POST", f"{_USER}/regeneratePassword", self._renew, "user/regeneratePassword"),
        ]

    def all(self) -> list[User]:
        """Every user."""
        return list(self._users.values())

    def by_name(self, name: str) -> User | None:
        """The user with that name, once it is ready."""
        return next((user for user in self.all() if user.name == name and user.status == "ok"), None)

    async def _roles(self, _request: web.Request) -> JsonValue:
        return {"roles": [_role(name) for name in ROLES], "services": []}

    async def _list(self, _request: web.Request) -> JsonValue:
        return [user.json() for user in self._users.values()]

    async def _create(self, request: web.Request) -> JsonValue:
        given = await parse(request, UserCreation)
        roles = [*(given.roles or []), *([given.role] if given.role else [])]
        for role in roles:
            if role not in ROLES:
                raise bad_request(f"roles: {role} is unknown; there are {', '.join(ROLES)}")
        id_ = 1 + secrets.randbelow(1_000_000)
        while id_ in self._users:
            id_ += 1
        name = f"user-{secrets.token_hex(6)}"
        user = User(id_, name, secrets.token_urlsafe(24), given.description or "", roles)
        self._users[id_] = user
        self._tasks.spawn(self._settle(user), f"user {name}")
        return user.json() | {"password": user.password}

    async def _settle(self, user: User) -> None:
        await self._clock.sleep(self._delay)
        user.status = "ok"

    async def _get(self, request: web.Request) -> JsonValue:
        return self._find(request).json()

    async def _delete(self, request: web.Request) -> JsonValue:
        del self._users[self._find(request).id]
        return None

    async def _openrc(self, request: web.Request) -> JsonValue:
        """Environment of the OpenStack clients, pointing back to this server; no password in it."""
        user, region = self._find(request), request.query.get("region")
        if not region:
            raise bad_request("region: is missing")
        variables = (
            f"OS_AUTH_URL={request.scheme}://{request.host}/v3",
            f"OS_TENANT_ID={self._project}",
            f'OS_TENANT_NAME="{TENANT_NAME}"',
            f'OS_USERNAME="{user.name}"',
            f'OS_REGION_NAME="{region}"',
        )
        return {"content": "".join(f"export {variable}\n" for variable in variables)}

    async def _set_roles(self, request: web.Request) -> JsonValue:
        user, update = self._find(request), await parse(request, RoleUpdate)
        known = {str(number): name for number, name in enumerate(ROLES)}
        for id_ in update.roles_ids:
            if id_ not in known:
                raise bad_request(f"rolesIds: there is no role {id_}")
        user.roles = [known[id_] for id_ in update.roles_ids]
        return [_role(name) for name in user.roles]

    async def _renew(self, request: web.Request) -> JsonValue:
        user = self._find(request)
        user.password = secrets.token_urlsafe(24)
        return user.json() | {"password": user.password}

    def _find(self, request: web.Request) -> User:
        id_ = request.match_info["user"]
        user = self._users.get(int(id_)) if id_.isdecimal() else None
        if user is None:
            raise not_found("User", f"user {id_} not found")
        return user


def _role(name: str) -> JsonObject:
    return {"id": str(ROLES.index(name)), "name": name, "description": name, "permissions": []}

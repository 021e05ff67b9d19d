"""The parts of OpenStack that a floating IP needs: Keystone's password login, Neutron's addresses.

Each region has its own Neutron, under `/network/<region>/`; the catalogue of a token names them all. Shapes
follow the recorded calls of the real OpenStack plugin.
"""

from __future__ import annotations

import datetime
import hmac
import secrets
import uuid
from typing import Literal

from aiohttp import web
from pydantic import BaseModel, ConfigDict, Field

from sandbox.cloud import catalogue, stamps
from sandbox.cloud.http import AnswerError, not_implemented, parse
from sandbox.cloud.infrastructure import FloatingIp, ProjectInfrastructure
from sandbox.cloud.settings import TENANT_NAME, CloudSettings
from sandbox.cloud.users import User, Users
from sandbox.interfaces import JsonObject, JsonValue

_TOKEN_HOURS = 24
_NETWORK_ROLES = frozenset({"administrator", "network_operator"})


class _Given(BaseModel):
    model_config = ConfigDict(strict=True, hide_input_in_errors=True)


class _Domain(_Given):
    name: str | None = None
    id: str | None = None


class _PasswordUser(_Given):
    name: str
    password: str = Field(repr=False)
    domain: _Domain


class _Password(_Given):
    user: _PasswordUser


class _Identity(_Given):
    methods: list[Literal["password"]]
    password: _Password


class _Project(_Given):
    id: str


class _Scope(_Given):
    project: _Project


class _Auth(_Given):
    identity: _Identity
    scope: _Scope


class Login(_Given):
    """Body of `POST /v3/auth/tokens`, password method, scoped to a project by its id."""

    auth: _Auth


class _NewFloatingIp(_Given):
    model_config = ConfigDict(extra="forbid", strict=True)

    floating_network_id: str
    description: str = ""
    tenant_id: str | None = None


class FloatingIpCreation(_Given):
    """Body of `POST /v2.0/floatingips`."""

    floatingip: _NewFloatingIp


class _ChangedFloatingIp(_Given):
    model_config = ConfigDict(extra="forbid", strict=True)

    description: str | None = None
    port_id: None = None


class FloatingIpUpdate(_Given):
    """Body of `PUT /v2.0/floatingips/{id}`; a port can be taken away, not given."""

    floatingip: _ChangedFloatingIp


class OpenStack:
    """Keystone and Neutron of the project."""

    def __init__(self, settings: CloudSettings, users: Users, infrastructure: ProjectInfrastructure) -> None:
        self._project = settings.project
        self._users = users
        self._infrastructure = infrastructure
        self._external = {region: str(uuid.uuid4()) for region in catalogue.kubernetes().regions}
        """Id of Ext-Net by region."""
        self._tokens: dict[str, tuple[User, datetime.datetime]] = {}

    def add_to(self, application: web.Application) -> None:
        """Adds the routes."""
        neutron = "/network/{region}/v2.0"
        application.router.add_routes(
            [
                web.post("/v3/auth/tokens", self._login),
                web.get(f"{neutron}/networks", self._networks),
                web.get(f"{neutron}/floatingips", self._list),
                web.post(f"{neutron}/floatingips", self._create),
                web.get(f"{neutron}/floatingips/{{id}}", self._get),
                web.put(f"{neutron}/floatingips/{{id}}", self._update),
                web.delete(f"{neutron}/floatingips/{{id}}", self._delete),
            ]
        )

    async def _login(self, request: web.Request) -> web.Response:
        given = (await parse(request, Login, _bad_login)).auth
        login = given.identity.password.user
        user = self._users.by_name(login.name)
        if (
            user is None
            or not hmac.compare_digest(user.password.encode(), login.password.encode())
            or given.scope.project.id != self._project
            or "Default" not in (login.domain.name, login.domain.id)
        ):
            raise KeystoneError(401, "Unauthorized", "The request you have made requires authentication.")
        issued = datetime.datetime.now(datetime.UTC)
        expires = issued + datetime.timedelta(hours=_TOKEN_HOURS)
        token = secrets.token_urlsafe(48)
        self._tokens[token] = (user, expires)
        base = f"{request.scheme}://{request.host}"
        endpoints: list[JsonValue] = [
            {
                "id": uuid.uuid5(uuid.NAMESPACE_URL, region).hex,
                "interface": "public",
                "region": region,
                "region_id": region,
                "url": f"{base}/network/{region}/",
            }
            for region in self._external
        ]
        domain: JsonObject = {"id": "default", "name": "Default"}
        body: JsonObject = {
            "token": {
                "methods": ["password"],
                "user": {"id": f"{user.id:032x}", "name": user.name, "domain": domain},
                "project": {"id": self._project, "name": TENANT_NAME, "domain": domain},
                "roles": [{"id": f"role-{name}", "name": name} for name in user.roles],
                "expires_at": stamps.stamp(expires),
                "issued_at": stamps.stamp(issued),
                "catalog": [{"type": "network", "name": "neutron", "id": "neutron", "endpoints": endpoints}],
            }
        }
        return web.json_response(body, status=201, headers={"X-Subject-Token": token})

    async def _networks(self, request: web.Request) -> web.Response:
        self._authenticate(request)
        region = self._region(request)
        network: JsonObject = {
            "id": self._external[region],
            "name": "Ext-Net",
            "status": "ACTIVE",
            "admin_state_up": True,
            "shared": False,
            "router:external": True,
            "subnets": [],
            "tenant_id": "ovh",
            "project_id": "ovh",
        }
        return web.json_response({"networks": _matching([network], request)})

    async def _list(self, request: web.Request) -> web.Response:
        self._authenticate(request)
        region = self._region(request)
        shown = [self._json(ip) for ip in self._infrastructure.floating_ips.values() if ip.region == region]
        return web.json_response({"floatingips": _matching(shown, request)})

    async def _create(self, request: web.Request) -> web.Response:
        self._authenticate(request, writes=True)
        region = self._region(request)
        given = (await parse(request, FloatingIpCreation, _bad_request)).floatingip
        if given.floating_network_id != self._external[region]:
            raise NeutronError(
                404, "NetworkNotFound", f"Network {given.floating_network_id} could not be found."
            )
        floating = self._infrastructure.create_floating_ip(region, given.description)
        return web.json_response({"floatingip": self._json(floating)}, status=201)

    async def _get(self, request: web.Request) -> web.Response:
        self._authenticate(request)
        return web.json_response({"floatingip": self._json(self._find(request))})

    async def _update(self, request: web.Request) -> web.Response:
        self._authenticate(request, writes=True)
        floating = self._find(request)
        given = (await parse(request, FloatingIpUpdate, _bad_request)).floatingip
        if given.description is not None:
            floating.description = given.description
        if "port_id" in given.model_fields_set:
            floating.bind(None, None)
        return web.json_response({"floatingip": self._json(floating)})

    async def _delete(self, request: web.Request) -> web.Response:
        self._authenticate(request, writes=True)
        self._infrastructure.delete_floating_ip(self._find(request).id)
        return web.Response(status=204)

    def _authenticate(self, request: web.Request, *, writes: bool = False) -> None:
        user, expires = self._tokens.get(request.headers.get("X-Auth-Token", ""), (None, None))
        expired = expires is None or expires < datetime.datetime.now(datetime.UTC)
        if user is None or expired or user not in self._users.all():
            raise NeutronError(401, "Unauthorized", "Authentication required")
        if writes and not _NETWORK_ROLES & set(user.roles):
            message = f"user {user.name} lacks role network_operator (it has: {', '.join(user.roles)})"
            raise NeutronError(403, "PolicyNotAuthorized", message)

    def _region(self, request: web.Request) -> str:
        region = request.match_info["region"]
        if region not in self._external:
            raise not_implemented(f"Neutron in region {region}")
        return region

    def _find(self, request: web.Request) -> FloatingIp:
        id_ = request.match_info["id"]
        floating = self._infrastructure.floating_ips.get(id_)
        if floating is None or floating.region != self._region(request):
            raise NeutronError(404, "FloatingIPNotFound", f"Floating IP {id_} could not be found")
        return floating

    def _json(self, floating: FloatingIp) -> JsonObject:
        balancer = floating.balancer
        return {
            "id": floating.id,
            "floating_ip_address": floating.address,
            "floating_network_id": self._external[floating.region],
            "fixed_ip_address": None if balancer is None else balancer.private_address,
            "port_id": None if balancer is None else balancer.port,
            "router_id": floating.router,
            "status": "DOWN" if balancer is None else "ACTIVE",
            "tenant_id": self._project,
            "project_id": self._project,
            "description": floating.description,
            "tags": [],
            "dns_name": "",
            "dns_domain": "",
            "created_at": floating.created,
            "updated_at": floating.updated,
            "revision_number": floating.revision,
            "subnet_id": None,
        }


def _matching(items: list[JsonObject], request: web.Request) -> list[JsonValue]:
    """Items whose fields equal the query's parameters, as Neutron filters lists."""
    wanted = request.query.items()
    return [item for item in items if all(str(item.get(name)) == value for name, value in wanted)]


class KeystoneError(AnswerError):
    """An error answer of Keystone."""

    def __init__(self, status: int, title: str, message: str) -> None:
        super().__init__(message)
        self._error: JsonObject = {"code": status, "title": title, "message": message}
        self._status = status

    def response(self) -> web.Response:
        """The error as an HTTP answer."""
        return web.json_response({"error": self._error}, status=self._status)


class NeutronError(AnswerError):
    """An error answer of Neutron."""

    def __init__(self, status: int, type_: str, message: str) -> None:
        super().__init__(message)
        self._status = status
        self._error: JsonObject = {"type": type_, "message": message, "detail": ""}

    def response(self) -> web.Response:
        """The error as an HTTP answer."""
        return web.json_response({"NeutronError": self._error}, status=self._status)


def _bad_login(problem: str) -> KeystoneError:
    return KeystoneError(400, "Bad Request", problem)


def _bad_request(problem: str) -> NeutronError:
    return NeutronError(400, "HTTPBadRequest", problem)

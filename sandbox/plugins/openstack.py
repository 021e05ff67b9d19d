"""Stand-in for pulumi-openstack 5.5.3: floating IPs.

Makes the requests that the recorded real plugin made and leaves the state that it left. Ported from
terraform-provider-openstack (openstack/resource_openstack_networking_floatingip_v2.go, main of July 2026).
Like the real one it logs in with the first request, not when it is configured, and once more after a 401.

Where it differs from the real plugin: it talks to loopback addresses only, and takes its configuration from
an explicit provider only (no `clouds.yaml`, no `OS_*` variables, no application credentials or tokens), so
that nothing in a user's shell can lead it to a real cloud; other resource types say "not implemented".
Assumed: the User-Agent, and how calls fail (a refusal is reported in gophercloud's words).
"""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping
from typing import Any, ClassVar, Final
from urllib.parse import quote

import httpx

from sandbox.plugins.bridge import (
    BridgedPlugin,
    BridgedResource,
    ResourceData,
    local_client,
    require_loopback,
    unreachable,
    wait_for_state,
)
from sandbox.plugins.framework import ConfigureRequest, PluginError
from sandbox.plugins.schema import Field, Schema, State
from sandbox.plugins.serving import serve
from sandbox.plugins.values import reveal_object

_HTTP_TIMEOUT_S: Final = 60.0
_USER_AGENT: Final = "Pulumi/5.5.3 gophercloud/v2 (sandbox)"


class ResponseError(PluginError):
    """An answer with another status than expected, in gophercloud's words."""

    def __init__(self, method: str, url: str, expected: tuple[int, ...], response: httpx.Response) -> None:
        codes = " ".join(map(str, expected))
        super().__init__(
            f"Expected HTTP response code [{codes}] when accessing [{method} {url}], "
            f"but got {response.status_code} instead: {response.text}"
        )
        self.status = response.status_code


class NetworkClient:
    """Keystone (password) and Neutron of one project and region."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        missing = [key for key in ("authUrl", "userName", "password") if not config.get(key)]
        if not config.get("tenantId") and not config.get("tenantName"):
            missing.append("tenantId")
        if missing:
            raise PluginError(
                f"the openstack provider is missing {', '.join(missing)}: pass them to openstack.Provider"
            )
        require_loopback(str(config["authUrl"]), "authUrl", "openstack")
        self.region = str(config.get("region") or "")
        self._config = config
        self._http = local_client(_HTTP_TIMEOUT_S)
        self._lock = threading.Lock()
        self._session: tuple[str, str] | None = None

    def call(self, method: str, path: str, body: Any = None, expected: tuple[int, ...] = (200,)) -> Any:
        """Sends a request to Neutron's API v2.0; returns the JSON answer, None for an empty one."""
        token, endpoint = self._log_in(None)
        url = f"{endpoint}v2.0/{path}"
        response = self._send(method, url, body, {"X-Auth-Token": token})
        if response.status_code == 401:
            token, _ = self._log_in(token)
            response = self._send(method, url, body, {"X-Auth-Token": token})
        if response.status_code not in expected:
            raise ResponseError(method, url, expected, response)
        return response.json() if response.content else None

    def _log_in(self, expired: str | None) -> tuple[str, str]:
        """Token and Neutron's address; asks for new ones if there are none or the token is `expired`."""
        with self._lock:
            if self._session is None or self._session[0] == expired:
                url = f"{self._config['authUrl']}/auth/tokens"
                response = self._send("POST", url, {"auth": self._identity()}, {})
                if response.status_code != 201:
                    raise ResponseError("POST", url, (201,), response)
                catalog = response.json()["token"]["catalog"]
                self._session = response.headers["X-Subject-Token"], self._network_endpoint(catalog)
            return self._session

    def _identity(self) -> dict[str, Any]:
        config = self._config
        user = {
            "name": config["userName"],
            "password": config["password"],
            "domain": _domain(config.get("userDomainId"), config.get("userDomainName")),
        }
        project = (
            {"id": config["tenantId"]}
            if config.get("tenantId")
            else {
                "name": config["tenantName"],
                "domain": _domain(config.get("projectDomainId"), config.get("projectDomainName")),
            }
        )
        identity = {"methods": ["password"], "password": {"user": user}}
        return {"identity": identity, "scope": {"project": project}}

    def _network_endpoint(self, catalog: list[dict[str, Any]]) -> str:
        for service in catalog:
            for endpoint in service["endpoints"] if service["type"] == "network" else ():
                region = endpoint.get("region_id") or endpoint.get("region")
                if endpoint["interface"] == "public" and self.region in ("", region):
                    url = str(endpoint["url"])
                    require_loopback(url, "the network endpoint of the catalog", "openstack")
                    return url if url.endswith("/") else f"{url}/"
        raise PluginError(
            "No suitable endpoint could be found in the service catalog: "
            f"type network, interface public, region {self.region or 'any'}"
        )

    def _send(self, method: str, url: str, body: Any, headers: Mapping[str, str]) -> httpx.Response:
        sent = {
            "Accept": "application/json",
            "Accept-Encoding": "gzip",
            "Cache-Control": "no-cache",
            "User-Agent": _USER_AGENT,
            **headers,
        }
        content = None if body is None else json.dumps(body).encode()
        if content is not None:
            sent["Content-Type"] = "application/json"
        try:
            return self._http.request(method, url, headers=sent, content=content)
        except httpx.HTTPError as error:
            raise unreachable(method, url, error) from error


def _domain(id: Any, name: Any) -> dict[str, str]:
    return {"id": str(id)} if id else {"name": str(name or "Default")}


_FREE_TEXT: Final = Field("string", optional=True, computed=True)
_FIXED_TEXT: Final = Field("string", optional=True, computed=True, force_new=True)


class FloatingIp(BridgedResource):
    """`openstack:networking/floatingIp:FloatingIp`, a public address."""

    timeouts: ClassVar[Mapping[str, int]] = {"create": 600, "delete": 600}
    schema: ClassVar[Schema] = {
        "pool": Field("string", required=True, force_new=True, env="OS_POOL_NAME"),
        "description": Field("string"),
        "address": _FIXED_TEXT,
        "dnsDomain": _FIXED_TEXT,
        "dnsName": _FIXED_TEXT,
        "fixedIp": _FREE_TEXT,
        "portId": _FREE_TEXT,
        "region": _FIXED_TEXT,
        "subnetId": _FREE_TEXT,
        "subnetIds": Field("list", conflicts_with="subnetId"),
        "tags": Field("set"),
        "allTags": Field("set", computed=True),
        "tenantId": _FIXED_TEXT,
        "valueSpecs": Field("map", force_new=True),
    }

    def __init__(self, plugin: OpenstackPlugin) -> None:
        self._plugin = plugin

    def create(self, data: ResourceData) -> None:
        """Finds the pool's network by name, allocates an address, waits until it is ACTIVE or DOWN."""
        pool = data.get("pool")
        network = self._network("name", pool)
        if network is None:
            raise PluginError(f"No network found with name: {pool}")
        subnets = data.get("subnetIds") or []
        subnet = data.get("subnetId") or (subnets[0] if subnets else None)
        request = {
            "description": data.get("description"),
            "floating_network_id": network["id"],
            "floating_ip_address": data.get("address"),
            "port_id": data.get("portId"),
            "tenant_id": data.get("tenantId"),
            "fixed_ip_address": data.get("fixedIp"),
            "subnet_id": subnet,
            "dns_name": data.get("dnsName"),
            "dns_domain": data.get("dnsDomain"),
            **(data.get("valueSpecs") or {}),
        }
        body = {"floatingip": {key: value for key, value in request.items() if value}}
        try:
            made = self._call("POST", "floatingips", body, (201,))["floatingip"]
        except PluginError as error:
            raise PluginError(f"Error creating openstack_networking_floatingip_v2: {error}") from error
        try:
            self._wait(made["id"], (), ("ACTIVE", "DOWN"), data.timeout)
        except PluginError as error:
            raise PluginError(
                f"Error waiting for openstack_networking_floatingip_v2 {made['id']} to become available: "
                f"{error}"
            ) from error
        data.id = made["id"]
        if subnet:
            data.set({"subnetId": subnet})  # which a GET does not tell
        if data.get("tags"):
            self._tag(data)
        self.read(data)

    def read(self, data: ResourceData) -> None:
        """Reads the address and the name of its network."""
        try:
            found = self._call("GET", f"floatingips/{data.id}")["floatingip"]
        except ResponseError as error:
            if error.status == 404:
                data.id = ""
                return
            raise PluginError(
                f"Error getting openstack_networking_floatingip_v2 {data.id}: {error}"
            ) from error
        names = {
            "description": "description",
            "address": "floating_ip_address",
            "portId": "port_id",
            "fixedIp": "fixed_ip_address",
            "tenantId": "tenant_id",
            "dnsName": "dns_name",
            "dnsDomain": "dns_domain",
        }
        data.set({key: found.get(name) or "" for key, name in names.items()})
        data.set({"region": data.get("region") or self._plugin.client.region})
        tags = found.get("tags") or []
        wanted = data.get("tags")
        data.set({"allTags": tags, "tags": [tag for tag in tags if tag in (wanted or [])]})
        network = self._network("id", found["floating_network_id"])
        if network is None:
            raise PluginError(
                f"Error retrieving pool name for openstack_networking_floatingip_v2 {data.id}: "
                f"no network {found['floating_network_id']}"
            )
        data.set({"pool": network["name"]})

    def update(self, data: ResourceData) -> None:
        """Changes description, port and fixed address, then tags."""
        body: dict[str, Any] = {}
        if data.changed("description"):
            body["description"] = data.get("description") or ""
        if data.changed("portId", "fixedIp"):
            body["port_id"] = data.get("portId") or None
        if data.changed("fixedIp") and data.get("fixedIp"):
            body["fixed_ip_address"] = data.get("fixedIp")
        if body:
            try:
                self._call("PUT", f"floatingips/{data.id}", {"floatingip": body}, (200, 201))
            except PluginError as error:
                text = f"Error updating openstack_networking_floatingip_v2 {data.id}: {error}"
                raise PluginError(text) from error
        if data.changed("tags"):
            self._tag(data)
        self.read(data)

    def delete(self, data: ResourceData) -> None:
        """Releases the address and waits until it is gone."""
        try:
            self._call("DELETE", f"floatingips/{data.id}", None, (202, 204))
        except ResponseError as error:
            if error.status == 404:
                return
            raise PluginError(
                f"Error deleting openstack_networking_floatingip_v2 {data.id}: {error}"
            ) from error
        try:
            self._wait(data.id, ("ACTIVE", "DOWN"), ("DELETED",), data.timeout)
        except PluginError as error:
            text = f"Error waiting for openstack_networking_floatingip_v2 {data.id} to Delete:  {error}"
            raise PluginError(text) from error

    def import_state(self, id: str) -> tuple[str, State]:
        """Takes the id."""
        return id, {}

    def _call(self, method: str, path: str, body: Any = None, expected: tuple[int, ...] = (200,)) -> Any:
        return self._plugin.client.call(method, path, body, expected)

    def _network(self, key: str, value: str) -> dict[str, Any] | None:
        networks = self._call("GET", f"networks?{key}={quote(value)}")["networks"]
        return next((network for network in networks if network[key] == value), None)

    def _tag(self, data: ResourceData) -> None:
        self._call("PUT", f"floatingips/{data.id}/tags", {"tags": sorted(data.get("tags") or [])})

    def _wait(self, id: str, pending: tuple[str, ...], target: tuple[str, ...], timeout: float) -> None:
        def status() -> str:
            try:
                return str(self._call("GET", f"floatingips/{id}")["floatingip"]["status"])
            except ResponseError as error:
                if error.status == 404:
                    return "DELETED"
                raise

        wait_for_state(status, pending, target, timeout, self._plugin.pause, delay=False)


class OpenstackPlugin(BridgedPlugin):
    """The provider."""

    name = "openstack"
    version = "5.5.3"
    raw_state_delta = True

    def __init__(self) -> None:
        super().__init__()
        self._client: NetworkClient | None = None
        self._resources = {"openstack:networking/floatingIp:FloatingIp": FloatingIp(self)}

    @property
    def client(self) -> NetworkClient:
        """The configured client."""
        if self._client is None:
            raise PluginError("the provider openstack is not configured")
        return self._client

    @property
    def resources(self) -> Mapping[str, BridgedResource]:
        """Resource types by token."""
        return self._resources

    def configure(self, request: ConfigureRequest) -> None:
        """Takes the configuration; sends nothing yet."""
        self._client = NetworkClient(reveal_object(request.args))


if __name__ == "__main__":
    serve(OpenstackPlugin())

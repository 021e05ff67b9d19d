"""The API client: go-ovh 1.9.0 in Python."""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import httpx

from sandbox.plugins.bridge import local_client, require_loopback, unreachable
from sandbox.plugins.framework import PluginError

VERSION: Final = "2.22.0"
_HTTP_TIMEOUT_S: Final = 180.0


@dataclass(frozen=True)
class Credentials:
    """Where and as whom to call: an application key (with secret and consumer key) or an access token."""

    endpoint: str
    application_key: str = ""
    application_secret: str = field(default="", repr=False)
    consumer_key: str = field(default="", repr=False)
    access_token: str = field(default="", repr=False)
    headers: tuple[tuple[str, str], ...] = ()
    user_agent_extra: str = ""


def credentials(config: Mapping[str, Any], environment: Mapping[str, str]) -> Credentials:
    """Credentials from provider configuration, else from `OVH_*` variables, by go-ovh's rules.

    Raises PluginError for several ways to authenticate at once, half of one, or an endpoint off this machine.
    """

    def value(key: str, variable: str) -> str:
        return str(config.get(key) or environment.get(variable, ""))

    endpoint = value("endpoint", "OVH_ENDPOINT") or "ovh-eu"
    key = value("applicationKey", "OVH_APPLICATION_KEY")
    secret = value("applicationSecret", "OVH_APPLICATION_SECRET")
    consumer = value("consumerKey", "OVH_CONSUMER_KEY")
    client_id = value("clientId", "OVH_CLIENT_ID")
    client_secret = value("clientSecret", "OVH_CLIENT_SECRET")
    token = value("accessToken", "OVH_ACCESS_TOKEN")
    if endpoint.endswith("/"):
        raise PluginError("endpoint name cannot have a trailing slash")
    methods = {
        "application_key/application_secret": bool(key or secret or consumer),
        "client_id/client_secret": bool(client_id or client_secret),
        "access_token": bool(token),
    }
    used = [name for name, present in methods.items() if present]
    if len(used) > 1:
        raise PluginError(f"can't use multiple authentication methods: {', '.join(used)}")
    if not used:
        raise PluginError(
            "missing authentication information, you need to provide one of the following: "
            "application_key/application_secret, client_id/client_secret, or access_token"
        )
    if bool(client_id) != bool(client_secret):
        raise PluginError("invalid oauth2 config, both client_id and client_secret must be given")
    if bool(key) != bool(secret):
        raise PluginError(
            "invalid authentication config, both application_key and application_secret must be given"
        )
    require_loopback(endpoint, "OVH_ENDPOINT (ovh:endpoint)", "ovh")
    if client_id:
        raise PluginError(f'oauth2 authentication is not compatible with endpoint "{endpoint}"')
    return Credentials(
        endpoint=endpoint,
        application_key=key,
        application_secret=secret,
        consumer_key=consumer,
        access_token=token,
        headers=_extra_headers(config, environment),
        user_agent_extra=str(config.get("userAgentExtra") or ""),
    )


def _extra_headers(config: Mapping[str, Any], environment: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    """Headers for every request: a configured map (JSON text), else lines in OVH_HTTP_HEADERS_0, _1, …"""
    if config.get("httpHeaders"):
        return tuple(json.loads(config["httpHeaders"]).items())
    headers: list[tuple[str, str]] = []
    while line := environment.get(f"OVH_HTTP_HEADERS_{len(headers)}"):
        name, _, text = line.partition(":")
        headers.append((name.strip(), text.strip()))
    return tuple(headers)


class ApiError(PluginError):
    """A refusal by the API, in go-ovh's words."""

    def __init__(self, status: int, body: str, query_id: str) -> None:
        kind, message = "", body
        details: dict[str, str] = {}
        try:
            answer = json.loads(body)
            kind, message = answer.get("class", ""), answer["message"]
            details = answer.get("details") or {}
        except (ValueError, KeyError, AttributeError, TypeError):
            pass  # go-ovh shows a body that it cannot read as the message
        missing = [
            details[name]
            for name in ("unauthorizedActionsByAuthentication", "unauthorizedActionsByIAM")
            if details.get(name)
        ]
        if missing:
            message += f" (missing IAM permissions: {', '.join(missing)})"
        text = f"OVHcloud API error (status code {status}): "
        text += f"{kind}: " if kind else ""
        text += json.dumps(message, ensure_ascii=False)
        text += f" (X-OVH-Query-Id: {query_id})" if query_id else ""
        super().__init__(text)
        self.status = status
        self.query_id = query_id


_NO_BODY: Final = object()


class OvhClient:
    """go-ovh's HTTP client: asks for the time once, signs every request but that one."""

    def __init__(self, credentials: Credentials) -> None:
        self._credentials = credentials
        self._http = local_client(_HTTP_TIMEOUT_S)
        self._time_delta: float | None = None
        self._lock = threading.Lock()
        extra = f" - {credentials.user_agent_extra}" if credentials.user_agent_extra else ""
        self._user_agent = f"github.com/ovh/go-ovh (Terraform/{VERSION}/sandbox{extra})"

    def get(self, path: str) -> Any:
        """Answer of a GET."""
        return self._call("GET", path)

    def post(self, path: str, body: Any = _NO_BODY) -> Any:
        """Answer of a POST; without `body` nothing is sent."""
        return self._call("POST", path, body)

    def put(self, path: str, body: Any) -> Any:
        """Answer of a PUT."""
        return self._call("PUT", path, body)

    def delete(self, path: str) -> None:
        """Sends a DELETE."""
        self._call("DELETE", path)

    def _call(self, method: str, path: str, body: Any = _NO_BODY, signed: bool = True) -> Any:
        account = self._credentials
        url = account.endpoint + path
        content = "" if body is _NO_BODY else json.dumps(body, separators=(",", ":"), ensure_ascii=False)
        headers = {"Accept": "application/json", "Accept-Encoding": "gzip", "User-Agent": self._user_agent}
        headers.update(account.headers)
        if content:
            headers["Content-Type"] = "application/json;charset=utf-8"
        if account.application_key:
            headers["X-Ovh-Application"] = account.application_key
        if signed and account.access_token:
            headers["Authorization"] = f"Bearer {account.access_token}"
        elif signed:
            headers.update(self._signature(method, url, content))
        try:
            response = self._http.request(method, url, headers=headers, content=content.encode() or None)
        except httpx.HTTPError as error:
            raise unreachable(method, url, error) from error
        if not response.is_success:
            raise ApiError(response.status_code, response.text, response.headers.get("X-Ovh-QueryID", ""))
        try:
            return json.loads(response.text) if response.text else None
        except ValueError as error:
            raise PluginError(f'{method.capitalize()} "{url}": the answer is not JSON: {error}') from error

    def _signature(self, method: str, url: str, content: str) -> dict[str, str]:
        account = self._credentials
        timestamp = int(time.time() - self._delta())
        parts = (account.application_secret, account.consumer_key, method, url, content, str(timestamp))
        digest = hashlib.sha1("+".join(parts).encode()).hexdigest()  # noqa: S324 (the API's own scheme)
        return {
            "X-Ovh-Timestamp": str(timestamp),
            "X-Ovh-Consumer": account.consumer_key,
            "X-Ovh-Signature": f"$1${digest}",
        }

    def _delta(self) -> float:
        """Seconds that the local clock is ahead of the API's."""
        with self._lock:
            if self._time_delta is None:
                self._time_delta = time.time() - float(self._call("GET", "/auth/time", signed=False))
            return self._time_delta

"""Requests to a Kubernetes API server."""

from __future__ import annotations

import json
import threading
from dataclasses import dataclass
from typing import Any, Final, Self

import httpx

from sandbox.plugins.framework import PluginError
from sandbox.plugins.kubernetes.kubeconfig import Access

Manifest = dict[str, Any]
"""A Kubernetes object as JSON."""

_TIMEOUT_SECONDS: Final = 30.0
_APPLY: Final = "application/apply-patch+yaml"  # JSON is YAML
MERGE_PATCH: Final = "application/merge-patch+json"
JSON_PATCH: Final = "application/json-patch+json"


class StatusError(PluginError):
    """The API server refused a request; the text is the server's own."""

    def __init__(self, code: int, reason: str, message: str, details: dict[str, Any] | None = None) -> None:
        super().__init__(message)
        self.code = code
        """HTTP status."""
        self.reason = reason
        """`NotFound`, `AlreadyExists`, `Conflict`, `Invalid`, `Forbidden`, …"""
        self.details = details or {}

    @property
    def namespace_missing(self) -> bool:
        """Whether the object's namespace is what was not found."""
        return self.code == 404 and self.details.get("kind") == "namespaces"


class NoMatch(PluginError):  # noqa: N818 (named as Kubernetes' own clients name it)
    """The server does not serve the kind: its CustomResourceDefinition is missing."""

    def __init__(self, api_version: str, kind: str) -> None:
        super().__init__(f'no matches for kind "{kind}" in version "{api_version}"')


class Unreachable(PluginError):  # noqa: N818
    """The server does not answer."""


@dataclass(frozen=True)
class Ref:
    """Names one object; `namespace` is empty for cluster-scoped ones."""

    api_version: str
    kind: str
    namespace: str
    name: str

    @classmethod
    def of(cls, manifest: Manifest) -> Self:
        """The name of an object (one that is not there yet may have none)."""
        metadata = manifest.get("metadata") or {}
        return cls(
            manifest["apiVersion"], manifest["kind"], metadata.get("namespace", ""), metadata.get("name", "")
        )

    def __str__(self) -> str:
        place = f"{self.namespace}/" if self.namespace else ""
        return f"{self.kind} {place}{self.name}"


@dataclass(frozen=True)
class Served:
    """How the server serves a kind."""

    plural: str
    namespaced: bool


class Api:
    """One API server, asked as one user. May be used from several threads.

    Every method raises `Unreachable` when there is no answer, `NoMatch` when the kind is not served and
    `StatusError` when the server refuses.
    """

    def __init__(self, access: Access) -> None:
        self._http = httpx.Client(
            base_url=access.server,
            verify=access.ssl_context(),
            timeout=_TIMEOUT_SECONDS,
            # The server is on this machine; a proxy of the environment is not for it.
            trust_env=False,
            limits=httpx.Limits(max_connections=64),
        )
        self._served: dict[str, dict[str, Served]] = {}
        self._lock = threading.Lock()

    def version(self) -> Manifest:
        """The server's version."""
        return self._request("GET", "/version")

    def served(self, api_version: str, kind: str) -> Served:
        """How a kind is served."""
        with self._lock:
            known = self._served.get(api_version, {})
        if kind not in known:
            # Asked again each time it is missing: its CRD may have been created since.
            known = self._discover(api_version)
        if kind not in known:
            raise NoMatch(api_version, kind)
        return known[kind]

    def get(self, ref: Ref) -> Manifest:
        """The object as it is."""
        return self._request("GET", self._path(ref, ref.name))

    def find(self, ref: Ref) -> Manifest | None:
        """The object as it is; None if it, or its kind, is not there."""
        try:
            return self.get(ref)
        except NoMatch:
            return None
        except StatusError as error:
            if error.code != 404:
                raise
            return None

    def select(self, api_version: str, kind: str, namespace: str, labels: dict[str, str]) -> list[Manifest]:
        """The objects of a namespace that carry the labels."""
        selector = ",".join(f"{key}={value}" for key, value in labels.items())
        path = self._path(Ref(api_version, kind, namespace, ""))
        items: list[Manifest] = self._request("GET", path, {"labelSelector": selector})["items"]
        # Items of a list come without these.
        return [{"apiVersion": api_version, "kind": kind} | item for item in items]

    def create(self, manifest: Manifest, manager: str, dry_run: bool = False) -> Manifest:
        """Creates an object as field manager `manager`; `dry_run` has it only checked and completed."""
        return self._request(
            "POST", self._path(Ref.of(manifest)), _parameters(manager, dry_run), manifest, "application/json"
        )

    def apply(self, manifest: Manifest, manager: str, force: bool, dry_run: bool = False) -> Manifest:
        """Server-side apply; without `force` a field of another manager with another value is a conflict."""
        parameters = _parameters(manager, dry_run) | {"force": str(force).lower()}
        ref = Ref.of(manifest)
        return self._request("PATCH", self._path(ref, ref.name), parameters, manifest, _APPLY)

    def patch(self, ref: Ref, patch: Any, content_type: str, manager: str) -> Manifest:
        """Applies a merge patch or a JSON patch."""
        path = self._path(ref, ref.name)
        return self._request("PATCH", path, _parameters(manager, False), patch, content_type)

    def replace(self, manifest: Manifest, manager: str, dry_run: bool = False) -> Manifest:
        """Replaces an object; `metadata.resourceVersion` must be the one of the object as it is."""
        ref = Ref.of(manifest)
        path = self._path(ref, ref.name)
        return self._request("PUT", path, _parameters(manager, dry_run), manifest, "application/json")

    def delete(self, ref: Ref, propagation: str) -> None:
        """Starts to delete an object; `propagation` is Foreground, Background or Orphan."""
        options = {"kind": "DeleteOptions", "apiVersion": "v1", "propagationPolicy": propagation}
        self._request("DELETE", self._path(ref, ref.name), {}, options, "application/json")

    def _path(self, ref: Ref, name: str = "") -> str:
        served = self.served(ref.api_version, ref.kind)
        parts = [_root(ref.api_version)]
        if served.namespaced:
            parts += ["namespaces", ref.namespace or "default"]
        parts.append(served.plural)
        if name:
            parts.append(name)
        return "/".join(parts)

    def _discover(self, api_version: str) -> dict[str, Served]:
        try:
            answer = self._request("GET", _root(api_version))
        except StatusError as error:
            if error.code != 404:
                raise
            return {}
        found = {
            resource["kind"]: Served(resource["name"], resource["namespaced"])
            for resource in answer["resources"]
            if "/" not in resource["name"]  # `pods/status` is a subresource
        }
        with self._lock:
            self._served[api_version] = found
        return found

    def _request(
        self,
        method: str,
        path: str,
        parameters: dict[str, str] | None = None,
        body: Any = None,
        content_type: str | None = None,
    ) -> Manifest:
        content = None if body is None else json.dumps(body).encode()
        headers = {"Content-Type": content_type} if content_type else {}
        try:
            answer = self._http.request(method, path, params=parameters, content=content, headers=headers)
        except httpx.TransportError as error:
            where = self._http.base_url.join(path)
            raise Unreachable(f'{method.capitalize()} "{where}": {error}') from error
        if answer.is_success:
            result: Manifest = answer.json()
            return result
        raise _status_error(answer)


def _root(api_version: str) -> str:
    """Path of a group and version: `v1` is the core group."""
    return f"/apis/{api_version}" if "/" in api_version else f"/api/{api_version}"


def _parameters(manager: str, dry_run: bool) -> dict[str, str]:
    return {"fieldManager": manager} | ({"dryRun": "All"} if dry_run else {})


def _status_error(answer: httpx.Response) -> StatusError:
    try:
        status = answer.json()
    except json.JSONDecodeError:
        status = None
    if not isinstance(status, dict) or status.get("kind") != "Status":
        return StatusError(answer.status_code, "Unknown", answer.text or answer.reason_phrase)
    return StatusError(
        answer.status_code, status.get("reason", ""), status.get("message", ""), status.get("details")
    )

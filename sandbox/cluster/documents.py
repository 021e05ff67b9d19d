"""What the API server says about itself: version, groups and kinds, and the OpenAPI that kubectl asks for."""

from __future__ import annotations

from sandbox.cluster import errors
from sandbox.cluster.kinds import Kind, Kinds, Object

_VERBS = ["create", "delete", "get", "list", "patch", "update", "watch"]


class Documents:
    """Documents of a server of `version` (such as `1.34.2-1`) that serves `kinds`."""

    def __init__(self, kinds: Kinds, version: str) -> None:
        self._kinds = kinds
        self._version = version

    def at(self, path: str, host: str) -> Object | None:
        """The document at a path, None when there is none; `host` is what the client called the server.

        ApiError for a group, version or kind that is not served.
        """
        parts = path.split("/")
        if path == "version":
            return self._version_info()
        if path == "api":
            address = {"clientCIDR": "0.0.0.0/0", "serverAddress": host}
            return {"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": [address]}
        if path == "apis":
            return {"kind": "APIGroupList", "apiVersion": "v1", "groups": self._groups()}
        if parts[0] == "apis" and len(parts) == 2:
            found = [group for group in self._groups() if group["name"] == parts[1]]
            if found:
                return {"kind": "APIGroup", "apiVersion": "v1", **found[0]}
        if (parts[0] == "apis" and len(parts) == 3) or path == "api/v1":
            return self._resources("/".join(parts[1:]))
        if parts[:2] == ["openapi", "v3"]:
            return self._openapi("/".join(parts[2:]))
        return None

    def _version_info(self) -> Object:
        release = self._version.split("-")[0]
        release = release if release.count(".") == 2 else f"{release}.0"
        major, minor = release.split(".")[:2]
        return {
            "major": major,
            "minor": minor,
            "gitVersion": f"v{release}",
            "gitCommit": "",
            "gitTreeState": "clean",
            "buildDate": "1970-01-01T00:00:00Z",
            "goVersion": "",
            "compiler": "",
            "platform": "sandbox",
        }

    def _groups(self) -> list[Object]:
        versions: dict[str, list[str]] = {}
        for kind in self._kinds:
            if kind.group and kind.version not in versions.setdefault(kind.group, []):
                versions[kind.group].append(kind.version)
        return [
            {
                "name": group,
                "versions": [
                    {"groupVersion": f"{group}/{version}", "version": version} for version in sorted(names)
                ],
                # "v1" sorts before "v1alpha1", which is Kubernetes' order of preference too.
                "preferredVersion": {"groupVersion": f"{group}/{min(names)}", "version": min(names)},
            }
            for group, names in versions.items()
        ]

    def _resources(self, api_version: str) -> Object:
        kinds = [kind for kind in self._kinds if kind.api_version == api_version]
        if not kinds:
            raise errors.unknown_resource(f"/apis/{api_version}")
        resources = []
        for kind in kinds:
            entry: Object = {
                "name": kind.plural,
                "singularName": kind.kind.lower(),
                "namespaced": kind.namespaced,
                "kind": kind.kind,
                "verbs": _VERBS,
            }
            if kind.status:
                verbs = ["get", "patch", "update"]
                resources.append({**entry, "name": f"{kind.plural}/status", "verbs": verbs})
            if kind.short_names:
                entry["shortNames"] = list(kind.short_names)
            if kind.categories:
                entry["categories"] = list(kind.categories)
            resources.append(entry)
        return {
            "kind": "APIResourceList",
            "apiVersion": "v1",
            "groupVersion": api_version,
            "resources": resources,
        }

    def _openapi(self, path: str) -> Object:
        if not path:
            versions = {_prefix(kind).strip("/") for kind in self._kinds}
            return {
                "paths": {
                    version: {"serverRelativeURL": f"/openapi/v3/{version}"} for version in sorted(versions)
                }
            }
        paths = {}
        for kind in self._kinds:
            if _prefix(kind).strip("/") == path:
                patch = {
                    "x-kubernetes-group-version-kind": {
                        "group": kind.group,
                        "version": kind.version,
                        "kind": kind.kind,
                    },
                    "parameters": [
                        {"name": name, "in": "query", "schema": {"type": "string"}}
                        for name in ("dryRun", "fieldManager", "fieldValidation")
                    ],
                    "responses": {"200": {"description": "OK"}},
                }
                scope = "/namespaces/{namespace}" if kind.namespaced else ""
                paths[f"{_prefix(kind)}{scope}/{kind.plural}/{{name}}"] = {"patch": patch}
        if not paths:
            raise errors.unknown_resource(f"/openapi/v3/{path}")
        return {
            "openapi": "3.0.0",
            "info": {"title": "Kubernetes", "version": self._version},
            "paths": paths,
            "components": {"schemas": {}},
        }


def _prefix(kind: Kind) -> str:
    return f"/apis/{kind.api_version}" if kind.group else f"/api/{kind.api_version}"

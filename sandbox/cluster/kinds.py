"""The kinds of object an API server serves: built-in ones, and those that CustomResourceDefinitions add."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

Object = dict[str, Any]
"""A Kubernetes object as JSON."""


@dataclass(frozen=True)
class Kind:
    """One kind in one version; `kind` alone identifies it within a cluster of the sandbox."""

    group: str
    version: str
    kind: str
    plural: str
    namespaced: bool = True
    short_names: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    status: bool = False
    """Whether `status` is a subresource: writes of the object leave it alone, and the other way round."""
    generation: bool = False
    """Whether `metadata.generation` counts the changes of what is not metadata or status."""
    custom: bool = False
    schema: Mapping[str, Any] | None = field(default=None, compare=False)
    """OpenAPI v3 schema of a custom kind, from its definition."""
    columns: tuple[Mapping[str, Any], ...] = field(default=(), compare=False)
    """`additionalPrinterColumns` of a custom kind."""

    @property
    def api_version(self) -> str:
        """`v1`, `apps/v1`, …"""
        return f"{self.group}/{self.version}" if self.group else self.version


_ALL = ("all",)
_RBAC = "rbac.authorization.k8s.io"
_ADMISSION = "admissionregistration.k8s.io"

BUILT_IN: tuple[Kind, ...] = (
    Kind("", "v1", "Namespace", "namespaces", False, ("ns",), status=True),
    Kind("", "v1", "Node", "nodes", False, ("no",), status=True),
    Kind("", "v1", "PersistentVolume", "persistentvolumes", False, ("pv",), status=True),
    Kind("", "v1", "PersistentVolumeClaim", "persistentvolumeclaims", True, ("pvc",), status=True),
    Kind("", "v1", "ConfigMap", "configmaps", True, ("cm",)),
    Kind("", "v1", "Secret", "secrets"),
    Kind("", "v1", "Service", "services", True, ("svc",), _ALL, status=True),
    Kind("", "v1", "ServiceAccount", "serviceaccounts", True, ("sa",)),
    Kind("", "v1", "Event", "events", True, ("ev",)),
    Kind("", "v1", "Pod", "pods", True, ("po",), _ALL, status=True),
    Kind("apps", "v1", "Deployment", "deployments", True, ("deploy",), _ALL, status=True, generation=True),
    Kind("apps", "v1", "StatefulSet", "statefulsets", True, ("sts",), _ALL, status=True, generation=True),
    Kind("apps", "v1", "DaemonSet", "daemonsets", True, ("ds",), _ALL, status=True, generation=True),
    Kind("batch", "v1", "Job", "jobs", True, (), _ALL, status=True, generation=True),
    Kind("networking.k8s.io", "v1", "NetworkPolicy", "networkpolicies", True, ("netpol",), generation=True),
    Kind(_RBAC, "v1", "Role", "roles"),
    Kind(_RBAC, "v1", "RoleBinding", "rolebindings"),
    Kind(_RBAC, "v1", "ClusterRole", "clusterroles", False),
    Kind(_RBAC, "v1", "ClusterRoleBinding", "clusterrolebindings", False),
    Kind(
        _ADMISSION,
        "v1",
        "MutatingWebhookConfiguration",
        "mutatingwebhookconfigurations",
        False,
        generation=True,
    ),
    Kind(
        _ADMISSION,
        "v1",
        "ValidatingWebhookConfiguration",
        "validatingwebhookconfigurations",
        False,
        generation=True,
    ),
    Kind("storage.k8s.io", "v1", "StorageClass", "storageclasses", False, ("sc",)),
    Kind(
        "apiextensions.k8s.io",
        "v1",
        "CustomResourceDefinition",
        "customresourcedefinitions",
        False,
        ("crd", "crds"),
        status=True,
        generation=True,
    ),
)


class Kinds:
    """The kinds that one cluster serves now."""

    def __init__(self) -> None:
        self._kinds = {kind.kind: kind for kind in BUILT_IN}

    def __iter__(self) -> Iterator[Kind]:
        return iter(list(self._kinds.values()))

    def get(self, kind: str) -> Kind | None:
        """The kind called `kind`, None when it is not served."""
        return self._kinds.get(kind)

    def find(self, group: str, version: str, plural: str) -> Kind | None:
        """The kind behind a REST path."""
        for kind in self._kinds.values():
            if (kind.group, kind.version, kind.plural) == (group, version, plural):
                return kind
        return None

    def define(self, definition: Object) -> None:
        """Serves the kind of a CustomResourceDefinition in its storage version."""
        kind = custom_kind(definition)
        self._kinds[kind.kind] = kind

    def forget(self, definition: Object) -> None:
        """No longer serves the kind of a CustomResourceDefinition."""
        self._kinds.pop(custom_kind(definition).kind, None)


def custom_kind(definition: Object) -> Kind:
    """The kind that a CustomResourceDefinition makes; only its storage version is served by the sandbox."""
    spec = definition["spec"]
    version = next(version for version in spec["versions"] if version["storage"])
    names = spec["names"]
    return Kind(
        group=spec["group"],
        version=version["name"],
        kind=names["kind"],
        plural=names["plural"],
        namespaced=spec["scope"] == "Namespaced",
        short_names=tuple(names.get("shortNames", ())),
        categories=tuple(names.get("categories", ())),
        status="status" in version.get("subresources", {}),
        generation=True,
        custom=True,
        schema=version.get("schema", {}).get("openAPIV3Schema", {}),
        columns=tuple(version.get("additionalPrinterColumns", ())),
    )

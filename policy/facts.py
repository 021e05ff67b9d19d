"""What a policy knows of a resource: plain values, in which secrets are marked and unknown values named."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

APP = "pulumi-python:dynamic/ai-deploy:App"
TOKEN = "pulumi-python:dynamic/ai-deploy:Token"  # noqa: S105 (a type of resources)
PASSWORD = "pulumi-python:dynamic/generated:Password"  # noqa: S105
CERTIFICATE = "pulumi-python:dynamic/generated:SelfSignedCertificate"
CLUSTER = "ovh:CloudProject/kube:Kube"
NODE_POOL = "ovh:CloudProject/kubeNodePool:KubeNodePool"
CLOUD_USER = "ovh:CloudProject/user:User"
OPENSTACK = "pulumi:providers:openstack"
FLOATING_IP = "openstack:networking/floatingIp:FloatingIp"
RELEASE = "kubernetes:helm.sh/v3:Release"
SERVICE = "kubernetes:core/v1:Service"
SECRET = "kubernetes:core/v1:Secret"  # noqa: S105
STACK = "pulumi:pulumi:Stack"
PYTHON_PROVIDER = "pulumi:providers:pulumi-python"
"""Provider of everything written in Python; its properties are all settings of the stack."""


class Marker(Enum):
    """What stands for a value that only the update will know."""

    UNKNOWN = "unknown"


UNKNOWN = Marker.UNKNOWN


@dataclass(frozen=True)
class Secret:
    """A value that Pulumi keeps as a secret; never printed."""

    value: Any = field(repr=False)


@dataclass(frozen=True)
class Resource:
    """A resource as the engine is about to make it, or in a check of the whole stack as it then is."""

    type: str
    name: str
    urn: str
    properties: Mapping[str, Any]
    """Inputs; outputs in a check of the whole stack. Secrets are `Secret`, what is not known is UNKNOWN."""
    protect: bool = False
    secret_outputs: frozenset[str] = frozenset()
    """Outputs that the program wants kept as secrets."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """The stack's settings by key, of a resource whose provider is written in Python; else empty."""

    def get(self, *path: str) -> Any:
        """The property at `path`, out of its secret; None when there is none, UNKNOWN when not known."""
        return within(self.properties, *path)


def within(value: Any, *path: str) -> Any:
    """What is at `path` in a value: None when there is nothing, UNKNOWN when it is not known."""
    for key in path:
        value = revealed(value)
        if value is UNKNOWN:
            return UNKNOWN
        value = value.get(key) if isinstance(value, Mapping) else None
    return revealed(value)


def revealed(value: Any) -> Any:
    """The value, out of its secret if it is one."""
    return value.value if isinstance(value, Secret) else value


def leaves(value: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every value inside that is no map and no list, with its path; secrets are not opened."""
    match value:
        case Mapping():
            for key, item in value.items():
                yield from leaves(item, (*path, key))
        case list():
            for index, item in enumerate(value):
                yield from leaves(item, (*path, str(index)))
        case _:
            yield path, value


def maps(value: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Mapping[str, Any]]]:
    """Every map inside, with its path, but for what is switched off with `enabled: false`."""
    match revealed(value):
        case Mapping() as found if found.get("enabled") is not False:
            yield path, found
            for key, item in found.items():
                yield from maps(item, (*path, key))
        case list() as found:
            for index, item in enumerate(found):
                yield from maps(item, (*path, str(index)))

"""What can be set on a local cloud, in a TOML file; docs/sandbox.md has an example."""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, is_dataclass, replace
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

from pydantic import PositiveFloat, TypeAdapter, ValidationError

from sandbox.cloud.settings import CloudSettings
from sandbox.cluster.cluster import ClusterSettings
from sandbox.inference.gateway import Balancing
from sandbox.inference.replica import ReplicaSettings

_T = TypeVar("_T")


class SandboxSettingsError(Exception):
    """The file is not what it should be; the text names file, key and value."""


@dataclass(frozen=True)
class SandboxSettings:
    """A local cloud; durations are platform seconds."""

    cloud: CloudSettings
    """The OVHcloud API: credentials, quota, delays, what an update does, how the scaler calculates."""
    cluster: ClusterSettings = field(default_factory=ClusterSettings)
    """Kubernetes clusters."""
    replicas: ReplicaSettings = field(default_factory=ReplicaSettings)
    """vLLM containers."""
    speed: PositiveFloat = 200.0
    """Platform seconds per wall-clock second: what takes 15 minutes on the cloud is up in 5 seconds."""
    balancing: Balancing = "random"
    """How the gateway picks a replica; not documented by OVHcloud. With `sticky`, all connections of a client
    address end at one replica: metrics of the others stay unseen."""
    config_delay_seconds: float = 5.0
    """Until Prometheus runs with what a changed object asks for."""
    secret_delay_seconds: float = 5.0
    """Until a changed Secret reaches Prometheus and other programs; a kubelet takes up to 90 s."""


def read(path: Path, defaults: SandboxSettings) -> SandboxSettings:
    """The defaults with what the file says instead; raises SandboxSettingsError."""
    try:
        return _override(defaults, tomllib.loads(path.read_text(encoding="utf-8")), "")
    except (OSError, tomllib.TOMLDecodeError, ValueError) as error:
        raise SandboxSettingsError(f"{path}: {error}") from error


def _override(settings: _T, changes: Mapping[str, Any], prefix: str) -> _T:
    types = get_type_hints(type(settings), include_extras=True)
    changed: dict[str, Any] = {}
    for key, value in changes.items():
        if key not in types:
            nearest = difflib.get_close_matches(key, types, n=1)
            hint = f"; did you mean {nearest[0]}?" if nearest else f"; there are {', '.join(types)}"
            raise ValueError(f"{prefix}{key} is not known{hint}")
        current = getattr(settings, key)
        if is_dataclass(current) and isinstance(value, dict):
            changed[key] = _override(current, value, f"{prefix}{key}.")
            continue
        adapter: TypeAdapter[Any] = TypeAdapter(types[key])
        try:
            changed[key] = adapter.validate_python(value)
        except ValidationError as error:
            raise ValueError(f"{prefix}{key} = {value!r}: {error.errors()[0]['msg']}") from error
    return replace(settings, **changed)  # type: ignore[type-var]

"""What can be set on a local cloud, in a TOML file; docs/sandbox.md has an example."""

from __future__ import annotations

import difflib
import secrets
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, is_dataclass, replace
from pathlib import Path
from typing import Any, get_type_hints

from pydantic import PositiveFloat, TypeAdapter, ValidationError

from sandbox.cloud.settings import CloudSettings, Credentials
from sandbox.cluster.cluster import ClusterSettings
from sandbox.inference.gateway import Balancing
from sandbox.inference.replica import ReplicaSettings


class SandboxSettingsError(Exception):
    """The file is not what it should be; the text names it and every mistake with key and value."""


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


def defaults() -> SandboxSettings:
    """The settings of a local cloud without a file: a project and credentials that nobody else has."""
    credentials = Credentials(*(secrets.token_hex(16) for _ in range(3)))
    return SandboxSettings(CloudSettings(credentials, project=secrets.token_hex(16)))


def read(path: Path, base: SandboxSettings) -> SandboxSettings:
    """The settings `base` with what the file says instead; raises SandboxSettingsError."""
    try:
        changes = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SandboxSettingsError(f"{path}: {error.strerror}") from error
    except ValueError as error:
        raise SandboxSettingsError(f"{path}: {error}") from error
    mistakes: list[str] = []
    settings: SandboxSettings = _override(base, changes, "", mistakes)
    if mistakes:
        count = f"{len(mistakes)} mistake{'s' if len(mistakes) > 1 else ''}"
        raise SandboxSettingsError(f"{count} in {path}:\n" + "\n".join(f"  - {line}" for line in mistakes))
    return settings


def _override(settings: Any, changes: Mapping[str, Any], prefix: str, mistakes: list[str]) -> Any:
    """The settings (a dataclass) with the changes that are none of the mistakes, which it adds to."""
    types = get_type_hints(type(settings), include_extras=True)
    changed: dict[str, Any] = {}
    for key, value in changes.items():
        current = getattr(settings, key, None)
        if key not in types:
            nearest = difflib.get_close_matches(key, types, n=1)
            hint = f"did you mean {nearest[0]}?" if nearest else f"there are {', '.join(types)}"
            written = "" if isinstance(value, dict) else f" = {value!r}"
            mistakes.append(f"{prefix}{key}{written}: is not known; {hint}")
        elif is_dataclass(current) and isinstance(value, dict):
            changed[key] = _override(current, value, f"{prefix}{key}.", mistakes)
        elif is_dataclass(current):
            mistakes.append(f"{prefix}{key} = {value!r}: must be a table, [{prefix}{key}]")
        else:
            adapter: TypeAdapter[Any] = TypeAdapter(types[key])
            try:
                changed[key] = adapter.validate_python(value)
            except ValidationError as error:
                mistakes.append(f"{prefix}{key} = {value!r}: {error.errors()[0]['msg']}")
    return replace(settings, **changed)

"""What can be set on the emulator, and the defaults of a project on OVHcloud."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from pydantic import PositiveFloat

from autoscaling.platform import PlatformTimes
from autoscaling.policy import TargetType

ACCOUNT = "xx0000-ovh"
"""Name of the one account that the emulator knows."""
TENANT_NAME = "0" * 16
"""OpenStack's name of the project, beside its id."""

UpdateMode = Literal["roll", "restart-required"]
"""What an update of a running app does; OVHcloud's guides contradict each other.

`roll`: new replicas come up before old ones go. `restart-required`: it takes effect after stop and start.
"""


@dataclass(frozen=True)
class Credentials:
    """The one account that the emulator knows."""

    application_key: str
    application_secret: str = field(repr=False)
    consumer_key: str = field(repr=False)
    client_id: str | None = None
    """Of an OAuth2 service account; None: the token endpoint refuses everyone."""
    client_secret: str | None = field(default=None, repr=False)


@dataclass(frozen=True)
class Delays:
    """How long things take, in platform seconds.

    Clusters and node pools after OVHcloud's documentation (227 to 241 s, about 2.5 min); the rest is assumed,
    for apps as rehearsals do it (`autoscaling.platform`).
    """

    queued: float = PlatformTimes.queued
    initializing: float = PlatformTimes.initializing
    image_pull: float = PlatformTimes.image_pull
    """For every replica: each starts on a machine without the image."""
    app_deletion: float = 5
    cluster: float = 240
    cluster_update: float = 240
    cluster_deletion: float = 60
    node_pool: float = 150
    node_pool_deletion: float = 60
    user: float = 5


@dataclass(frozen=True)
class RegionQuota:
    """What the project may use of each region; the numbers are assumed, projects start with few."""

    instances: int = 20
    cores: int = 80
    memory_mib: int = 400 * 1024
    volumes: int = 100
    volume_gib: int = 10_000
    load_balancers: int = 10


@dataclass(frozen=True)
class CloudSettings:
    """The emulated project."""

    credentials: Credentials
    project: str
    """Id of the Public Cloud project (32 hex digits): `serviceName` of the API, tenant id of OpenStack."""
    delays: Delays = Delays()
    gpu_quota: int = 4
    """GPUs that the project may use at once; 4 unless support raises it."""
    region_quota: RegionQuota = RegionQuota()
    """Told by the API, not enforced."""
    project_status: Literal["creating", "ok", "suspended", "deleting", "deleted"] = "ok"
    """Told by the API; nothing else depends on it."""
    ai_authorized: bool = True
    """Whether the AI service is authorised in the project at first; nothing else depends on it."""
    in_vrack: bool = True
    """Whether the project is in a vRack; nothing else depends on it."""
    pullable_images: frozenset[str] | None = None
    """Images (with tag or digest) that can be pulled; None: all of them."""
    update_mode: UpdateMode = "roll"
    denied_actions: frozenset[str] = frozenset()
    """IAM actions that the account lacks, e.g. `publicCloudProject:apiovh:ai/app/create`."""
    polling_interval: PositiveFloat = PlatformTimes.polling_interval
    """Platform seconds between two samples of the scaler; assumed, the real one is not documented."""
    scaler_target_type: TargetType = "Value"
    """Which of the two HPA formulas compares the metric with its target; OVHcloud does not say which."""
    timestamp_tolerance: float = 60
    """Wall-clock seconds by which a signed request may be off."""
    clock_offset_seconds: float = 0
    """How far the API's clock is ahead of the machine's (negative: behind): in `/auth/time`, and in the check
    of a signed request's timestamp. Dates of things that exist are not affected."""

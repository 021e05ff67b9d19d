"""What can be set on the emulator, and the defaults of a project on OVHcloud."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

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

    Clusters and node pools after OVHcloud's documentation (227 to 241 s, about 2.5 min); the rest is assumed.
    """

    queued: float = 5
    initializing: float = 10
    image_pull: float = 60
    """For every replica: each starts on a machine without the image."""
    app_deletion: float = 5
    cluster: float = 240
    cluster_update: float = 240
    cluster_deletion: float = 60
    node_pool: float = 150
    node_pool_deletion: float = 60
    user: float = 5


@dataclass(frozen=True)
class CloudSettings:
    """The emulated project."""

    credentials: Credentials
    project: str
    """Id of the Public Cloud project (32 hex digits): `serviceName` of the API, tenant id of OpenStack."""
    delays: Delays = Delays()
    gpu_quota: int = 4
    """GPUs that the project may use at once; 4 unless support raises it."""
    pullable_images: frozenset[str] | None = None
    """Images (with tag or digest) that can be pulled; None: all of them."""
    update_mode: UpdateMode = "roll"
    denied_actions: frozenset[str] = frozenset()
    """IAM actions that the account lacks, e.g. `publicCloudProject:apiovh:ai/app/create`."""
    polling_interval: float = 15
    """Platform seconds between two samples of the scaler; assumed, the real one is not documented."""
    scaler_target_type: Literal["Value", "AverageValue"] = "Value"
    """Which of the two HPA formulas compares the metric with its target; OVHcloud does not say which."""
    timestamp_tolerance: float = 60
    """Wall-clock seconds by which a signed request may be off."""
    clock_offset_seconds: float = 0
    """How far the API's clock is ahead of the machine's (negative: behind): in `/auth/time`, and in the check
    of a signed request's timestamp. Dates of things that exist are not affected."""

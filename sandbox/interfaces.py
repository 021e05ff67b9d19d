"""The seams between the sandbox's rooms: what each needs of another, and nothing more.

`cloud` (OVHcloud API) drives replicas and clusters, `inference` (gateway and replicas) asks the cloud who may
call what, `cluster` (Kubernetes) causes billed infrastructure in the cloud. `sandbox/server.py` wires them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:  # every start of a plugin would wait for it
    from aiohttp import web

JsonValue = None | bool | int | float | str | list["JsonValue"] | dict[str, "JsonValue"]
JsonObject = dict[str, JsonValue]


class Replica(Protocol):
    """One running container of an AI Deploy app."""

    @property
    def name(self) -> str:
        """Name of the replica, as `GET …/log?replica=` takes it."""
        ...

    def start(self) -> None:
        """Starts the container's process; returns at once, the server listens some time later."""
        ...

    def probe(self, path: str) -> int:
        """HTTP status that a GET of `path` on the container's port answers now; 0 when nothing listens."""
        ...

    def metrics(self) -> str:
        """The text exposition of `/metrics`; raises ConnectionRefusedError when nothing listens."""
        ...

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Answers a request that the gateway let through."""
        ...

    async def stop(self) -> None:
        """Kills the process: open requests are cut, the counters are gone."""
        ...


class ReplicaFactory(Protocol):
    """Makes the replicas of an app out of its API spec (`cloud.project.ai.app.AppSpec`)."""

    def __call__(self, name: str, spec: JsonObject, log: Callable[[str], None]) -> Replica:
        """A replica called `name` that has not been started; `log` takes its output, one line a call."""
        ...


class AppDirectory(Protocol):
    """What the gateway asks the cloud."""

    def ready_replicas(self, app_id: str) -> Sequence[Replica]:
        """Replicas that pass their readiness probe now."""
        ...

    def may_call(self, app_id: str, token: str) -> bool:
        """Whether the AI token `token` (any role) may call the app: same region, label selector matches."""
        ...


class AppGateway(Protocol):
    """What the cloud asks of the gateway: an HTTPS address per app."""

    async def open(self, app_id: str) -> str:
        """Starts to listen for the app; returns its URL, `https://127.0.0.1:<port>`, no trailing slash."""
        ...

    async def close(self, app_id: str) -> None:
        """Stops to listen for the app."""
        ...


@dataclass(frozen=True)
class LoadBalancer:
    """An Octavia load balancer with its public address."""

    id: str
    address: str


class Infrastructure(Protocol):
    """Billed objects that a Kubernetes cluster causes in the project (they outlive a deleted cluster)."""

    def create_volume(self, cluster_id: str, name: str, size_gib: int, volume_type: str) -> str:
        """Creates a Cinder volume for a claim; returns its id."""
        ...

    def delete_volume(self, volume_id: str) -> None:
        """Deletes a volume; one that is gone is no error."""
        ...

    def create_load_balancer(
        self, cluster_id: str, name: str, flavor: str, address: str | None, keep_address: bool
    ) -> LoadBalancer:
        """Creates a load balancer, and the cluster's gateway if it has none.

        `address` is a floating IP of the project that is bound to nothing yet; None allocates one. Raises
        ValueError (text for the Service's event) when the address is unknown or bound elsewhere.
        """
        ...

    def delete_load_balancer(self, load_balancer_id: str) -> None:
        """Deletes a load balancer and its floating IP, which stays when it was asked to be kept."""
        ...


class Cluster(Protocol):
    """A Kubernetes cluster of MKS."""

    async def start(self) -> None:
        """Starts the API server; on return it listens and `kubeconfig` works."""
        ...

    def kubeconfig(self) -> str:
        """YAML with one cluster, one user with a client certificate, one context."""
        ...

    @property
    def url(self) -> str:
        """Address of the API server, `https://127.0.0.1:<port>`."""
        ...

    def set_nodes(self, pool: str, flavor: str, count: int) -> None:
        """Makes the node pool have `count` Ready nodes (0 when it is deleted)."""
        ...

    def restrict(self, ranges: Sequence[str]) -> None:
        """Source ranges (CIDR) that may reach the API server; empty means all."""
        ...

    async def stop(self) -> None:
        """Ends the API server and all that runs in the cluster; volumes and load balancers stay behind."""
        ...


class ClusterFactory(Protocol):
    """Makes clusters; `directory` is where the cluster may keep files."""

    def __call__(self, cluster_id: str, name: str, version: str, directory: Path) -> Cluster:
        """A cluster that has not been started."""
        ...

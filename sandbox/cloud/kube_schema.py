"""Bodies of the Managed Kubernetes API, checked strictly, with the API's defaults."""

from __future__ import annotations

import ipaddress
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, JsonValue

from sandbox.cloud.schema import Body

UpdatePolicy = Literal["ALWAYS_UPDATE", "MINIMAL_DOWNTIME", "NEVER_UPDATE"]
Object = dict[str, JsonValue]
"""A part of a body that is kept and shown, but means nothing to the sandbox."""


def _range(value: str) -> str:
    ipaddress.ip_network(value)
    return value


class KubeCreation(Body):
    """Body of `POST …/kube`."""

    region: str
    name: str | None = None
    version: str | None = None
    plan: Literal["free", "standard"] = "free"
    update_policy: UpdatePolicy = "ALWAYS_UPDATE"
    private_network_id: str | None = None
    nodes_subnet_id: str | None = None
    load_balancers_subnet_id: str | None = None
    private_network_configuration: Object | None = None
    kube_proxy_mode: Literal["iptables", "ipvs"] = "iptables"
    ip_allocation_policy: Object | None = None
    customization: Object | None = None


class Rename(Body):
    """Body of `PUT …/kube/{kubeId}`."""

    name: Annotated[str, Field(min_length=1)]


class PolicyUpdate(Body):
    """Body of `PUT …/updatePolicy`."""

    update_policy: UpdatePolicy


class VersionUpdate(Body):
    """Body of `POST …/update`."""

    strategy: Literal["LATEST_PATCH", "NEXT_MINOR"] | None = None


class Ranges(Body):
    """Body of `PUT …/ipRestrictions`: the whole list, addresses or CIDR ranges."""

    ips: list[Annotated[str, AfterValidator(_range)]]


class PoolUpdate(Body):
    """Body of `PUT …/nodepool/{nodePoolId}`."""

    desired_nodes: Annotated[int, Field(ge=0, le=100)] | None = None
    min_nodes: Annotated[int, Field(ge=0, le=100)] | None = None
    max_nodes: Annotated[int, Field(ge=0, le=100)] | None = None
    autoscale: bool | None = None
    autoscaling: Object | None = None
    template: Object | None = None
    attach_floating_ips: Object | None = None


class PoolCreation(PoolUpdate):
    """Body of `POST …/nodepool`."""

    flavor_name: str
    name: str | None = None
    anti_affinity: bool = False
    monthly_billed: bool = False
    availability_zones: list[str] = Field(default_factory=list)

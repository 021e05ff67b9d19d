"""What the resources of a stack cost per hour, by the prices that its bill uses.

The bill of `components/bill.py` follows the settings and is told to the user; this one follows what is really
declared, so it also sees what somebody adds to the program.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from components.ai_deploy.spec import ScalingStrategy
from components.bill import Bill, Item
from components.prices import Price, has_one_zone, prices
from components.setting_types import gibibytes
from policy.facts import (
    APP,
    CLUSTER,
    FLOATING_IP,
    NODE_POOL,
    RELEASE,
    SERVICE,
    UNKNOWN,
    Resource,
    maps,
    within,
)

_DEFAULT_CLASS = "csi-cinder-high-speed"
"""Storage class of a claim that names none (OVHcloud's guide on persistent volumes)."""
_FLAVOR = "loadbalancer.ovhcloud.com/flavor"
_DEFAULT_FLAVOR = "small"
"""Size of a load balancer that names none (OVHcloud's guide on migrating to Octavia)."""
_HELM = "meta.helm.sh/release-name"
"""Annotation of what Helm has made."""


def most_replicas(app: Resource) -> int | None:
    """How many replicas an app may grow to; None when that is not known, or no strategy at all."""
    try:
        return ScalingStrategy.model_validate(app.get("scaling_strategy")).most_replicas
    except ValidationError:
        return None


def bill(resources: Sequence[Resource]) -> Bill:
    """What the resources cost; what is not known has no price."""
    regions = [resource.get("region") for resource in resources if resource.type == CLUSTER]
    elsewhere = any(isinstance(region, str) and not has_one_zone(region) for region in regions)
    items = [
        Item(item.name, None if elsewhere and resource.type != APP else item.price, item.least, item.most)
        for resource in resources
        if resource.type in _PRICED
        for item in _PRICED[resource.type](resource)
    ]
    # The engine has resources and properties in any order.
    return Bill(tuple(sorted(items, key=lambda item: item.name)), ())


def _item(count: int, name: str, price: Price | None) -> Item:
    return Item(name, price, count, count)


def _app(app: Resource) -> Iterator[Item]:
    flavor, replicas = app.get("flavor"), most_replicas(app)
    units = app.get("gpu") or app.get("cpu")
    price = prices().ai_deploy.get(flavor) if isinstance(flavor, str) else None
    if replicas is None or not isinstance(units, int | float):
        yield _item(1, f"app {app.name}, whose size is not known", None)
    else:
        count = f"{replicas} replica{'s' if replicas > 1 else ''}"
        yield _item(replicas * int(units), f"{count}, {units:g} x {flavor}", price)


def _cluster(cluster: Resource) -> Iterator[Item]:
    plan = cluster.get("plan")
    free = plan in (None, "free", UNKNOWN)
    yield _item(1, f"cluster, {'free' if free else plan} plan", prices().kubernetes if free else None)


def _nodes(pool: Resource) -> Iterator[Item]:
    flavor = pool.get("flavorName")
    count = pool.get("maxNodes" if pool.get("autoscale") is True else "desiredNodes")
    price = prices().instances.get(flavor) if isinstance(flavor, str) else None
    if isinstance(count, int | float):
        yield _item(int(count), f"{count:g} node{'s' if count > 1 else ''}, {flavor}", price)
    else:
        yield _item(1, f"node pool {pool.name}, whose size is not known", None)


def _release(release: Resource) -> Iterator[Item]:
    for _, values in maps(release.properties.get("values")):
        yield from _volume(values)
        yield from _load_balancer(values, values.get("annotations"))


def _volume(values: Mapping[str, Any]) -> Iterator[Item]:
    """A claim for a volume, in the form of Kubernetes or in that of charts (`size`)."""
    size = within(values, "resources", "requests", "storage") or values.get("size")
    if "accessModes" not in values or not isinstance(size, str):
        return
    type_ = str(values.get("storageClassName", _DEFAULT_CLASS)).removeprefix("csi-cinder-")
    try:
        yield _item(math.ceil(gibibytes(f"{size}B")), f"{size} of volumes, {type_}", prices().volume(type_))
    except ValueError:
        yield _item(1, f"a volume of size {size}, {type_}", None)


def _service(service: Resource) -> Iterator[Item]:
    annotations = within(service.properties, "metadata", "annotations")
    # What a release has made is in its values.
    if within(annotations, _HELM) is None:
        yield from _load_balancer(service.get("spec"), annotations)


def _load_balancer(spec: Any, annotations: Any) -> Iterator[Item]:
    """A load balancer with its gateway, and its floating IP unless it takes one that is reserved."""
    if within(spec, "type") != "LoadBalancer":
        return
    flavor = within(annotations, _FLAVOR) or _DEFAULT_FLAVOR
    yield _item(1, f"load balancer, {flavor}", prices().load_balancers.get(str(flavor)))
    yield _item(1, "gateway, S", prices().gateway)
    if within(spec, "loadBalancerIP") is None:
        yield _item(1, "floating IP", prices().floating_ip)


def _floating_ip(_address: Resource) -> Iterator[Item]:
    yield _item(1, "floating IP", prices().floating_ip)


_PRICED: Mapping[str, Callable[[Resource], Iterator[Item]]] = {
    APP: _app,
    CLUSTER: _cluster,
    NODE_POOL: _nodes,
    RELEASE: _release,
    SERVICE: _service,
    FLOATING_IP: _floating_ip,
}
"""What is paid for by the hour. A resource of another type counts as free."""

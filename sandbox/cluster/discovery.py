"""What Prometheus' service discovery would find: the pods behind Services that really serve."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from sandbox.cluster.kinds import Object
from sandbox.cluster.selectors import matches

_NOBODY = "127.0.0.1:1"
"""An address that refuses connections, as a Service without pods does."""


class Cluster(Protocol):
    """What the operator reads of a cluster."""

    def get(self, kind: str, namespace: str, name: str) -> Object | None:
        """The object, or None."""
        ...

    def list(
        self, kind: str, namespace: str | None = None, labels: Mapping[str, str] | None = None
    ) -> list[Object]:
        """The objects of a kind, of all namespaces for None."""
        ...


@dataclass(frozen=True)
class Pod:
    """A pod that really serves metrics."""

    namespace: str
    name: str
    container: str
    labels: Mapping[str, str]
    ports: Mapping[str | int, str]
    """Address (`127.0.0.1:41234`) by name and by number of the container port."""


@dataclass(frozen=True)
class Discovery:
    """Services of a cluster, and the pods of it that really serve."""

    cluster: Cluster
    pods: Sequence[Pod]

    def served_at(self, address: str, namespace: str) -> str | None:
        """Where a pod really serves `<service>[.<namespace>[.svc[.cluster.local]]]:<port>`.

        A Service without a namespace is one of `namespace`. None for an address that names no Service of the
        cluster, or one without a selector.
        """
        named = re.fullmatch(r"([\w-]+)(?:\.([\w-]+)(?:\.svc(?:\.cluster\.local)?)?)?:(\d+)", address)
        if named is None:
            return None
        name, namespace = named[1], named[2] or namespace
        service = self.cluster.get("Service", namespace, name)
        if service is None or not service["spec"].get("selector"):
            return None
        number = int(named[3])
        served = (at for _, port, at in self._pods_behind(service) if port["port"] == number)
        return next(served, _NOBODY)

    def targets(self, monitor: Object, endpoint: Object) -> Iterator[Object]:
        """Targets of an endpoint of a ServiceMonitor, with the meta labels that discovery gives them."""
        spec, namespace = monitor["spec"], monitor["metadata"]["namespace"]
        chosen = spec.get("namespaceSelector", {})
        namespaces = chosen.get("matchNames") or [namespace]
        for service in self.cluster.list("Service"):
            metadata = service["metadata"]
            if not chosen.get("any") and metadata["namespace"] not in namespaces:
                continue
            if matches(spec["selector"], metadata.get("labels", {})):
                for target in self.behind(service):
                    if target["labels"]["__meta_kubernetes_endpoint_port_name"] == endpoint.get("port"):
                        yield target

    def behind(self, service: Object) -> Iterator[Object]:
        """What discovery with the role `endpoints` finds behind a Service."""
        metadata, meta = service["metadata"], "__meta_kubernetes"
        for pod, port, address in self._pods_behind(service):
            labels = {
                f"{meta}_namespace": pod.namespace,
                f"{meta}_service_name": metadata["name"],
                f"{meta}_endpoint_port_name": port.get("name", ""),
                f"{meta}_endpoint_address_target_kind": "Pod",
                f"{meta}_endpoint_address_target_name": pod.name,
                f"{meta}_pod_name": pod.name,
                f"{meta}_pod_container_name": pod.container,
                f"{meta}_pod_phase": "Running",
            }
            for key, value in metadata.get("labels", {}).items():
                labels[f"{meta}_service_label_{label_name(key)}"] = value
                labels[f"{meta}_service_labelpresent_{label_name(key)}"] = "true"
            for key, value in pod.labels.items():
                labels[f"{meta}_pod_label_{label_name(key)}"] = value
            yield {"targets": [address], "labels": labels}

    def _pods_behind(self, service: Object) -> Iterator[tuple[Pod, Object, str]]:
        """The pods that a Service selects, with each of its ports that they serve and where that is.

        One without a selector selects none: somebody else says where it leads.
        """
        namespace, selector = service["metadata"]["namespace"], service["spec"].get("selector", {})
        for pod in self.pods:
            if selector and pod.namespace == namespace and selector.items() <= pod.labels.items():
                for port in service["spec"].get("ports", ()):
                    address = pod.ports.get(port.get("targetPort", port["port"]))
                    if address is not None:
                        yield pod, port, address


def label_name(name: str) -> str:
    """A label name as Prometheus' discovery spells it."""
    return re.sub(r"[^a-zA-Z0-9_]", "_", name)

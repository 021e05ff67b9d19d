"""Objects that prometheus-operator makes of a Prometheus or an Alertmanager, and the pod that results."""

from __future__ import annotations

import base64
import gzip
from collections.abc import Mapping
from typing import Any

from sandbox.cluster.discovery import Pod
from sandbox.cluster.kinds import Object
from sandbox.cluster.storage import owner_reference

_WEB = {"Prometheus": 9090, "Alertmanager": 9093}


def instance_name(resource: Object) -> str:
    """Name of the StatefulSet: `prometheus-<name>` or `alertmanager-<name>`."""
    return f"{resource['kind'].lower()}-{resource['metadata']['name']}"


def pod(resource: Object, address: str) -> Pod:
    """The resource's first pod, whose web port is really served at `address`."""
    port = resource["spec"].get("portName", "web")
    return Pod(
        namespace=resource["metadata"]["namespace"],
        name=f"{instance_name(resource)}-0",
        container=resource["kind"].lower(),
        labels=_pod_labels(resource),
        ports={port: address, _WEB[resource["kind"]]: address},
    )


def workload(resource: Object, arguments: list[str]) -> list[Object]:
    """The StatefulSet, whose claims cause volumes, and the headless Service that governs it."""
    kind, spec, metadata = resource["kind"].lower(), resource["spec"], resource["metadata"]
    name, port = instance_name(resource), spec.get("portName", "web")
    number = _WEB[resource["kind"]]
    owner = [owner_reference(resource)]
    claim = spec.get("storage", {}).get("volumeClaimTemplate", {})
    volume = claim.get("metadata", {}).get("name") or f"{name}-db"
    data = f"/{kind}"
    container: Object = {
        "name": kind,
        "image": spec.get("image", f"quay.io/prometheus/{kind}"),
        "args": arguments,
        "ports": [{"name": port, "containerPort": number, "protocol": "TCP"}],
        "volumeMounts": [{"name": volume, "mountPath": data, "subPath": f"{kind}-db"}],
        "readinessProbe": {"httpGet": {"path": "/-/ready", "port": port}},
        "resources": spec.get("resources", {}),
    }
    pod_spec: Object = {
        "serviceAccountName": spec.get("serviceAccountName", "default"),
        "containers": [container],
        "volumes": [
            {"name": f"secret-{secret}", "secret": {"secretName": secret}}
            for secret in spec.get("secrets", ())
        ],
    }
    for field in ("nodeSelector", "tolerations", "affinity", "topologySpreadConstraints", "securityContext"):
        if field in spec:
            pod_spec[field] = spec[field]
    stateful: Object = {
        "serviceName": f"{kind}-operated",
        "replicas": spec.get("replicas", 1),
        "podManagementPolicy": "Parallel",
        "selector": {"matchLabels": _selector(resource)},
        "template": {"metadata": {"labels": _pod_labels(resource)}, "spec": pod_spec},
    }
    if claim:
        template = {"metadata": {"name": volume}, "spec": {"accessModes": ["ReadWriteOnce"], **claim["spec"]}}
        stateful["volumeClaimTemplates"] = [template]
    else:
        pod_spec["volumes"].append({"name": volume, "emptyDir": {}})
    labels = {**metadata.get("labels", {}), **_selector(resource)}
    governing = {
        "clusterIP": "None",
        "ports": [{"name": port, "port": number, "targetPort": port, "protocol": "TCP"}],
        "selector": {"app.kubernetes.io/name": kind},
    }
    operated = {f"operated-{kind}": "true", **_MANAGED}
    return [
        _object("v1", "Service", resource, f"{kind}-operated", operated, owner, spec=governing),
        _object("apps/v1", "StatefulSet", resource, name, labels, owner, spec=stateful),
    ]


def generated(resource: Object, config: bytes, rules: Mapping[str, str]) -> list[Object]:
    """The Secret with a Prometheus' configuration and the ConfigMap with its rule files."""
    owner, name = [owner_reference(resource)], instance_name(resource)
    packed = base64.b64encode(gzip.compress(config, mtime=0)).decode()
    labels = {**_MANAGED, "prometheus-name": resource["metadata"]["name"]}
    return [
        _object("v1", "Secret", resource, name, _MANAGED, owner, data={"prometheus.yaml.gz": packed}),
        _object("v1", "ConfigMap", resource, f"{name}-rulefiles-0", labels, owner, data=dict(rules)),
    ]


_MANAGED = {"managed-by": "prometheus-operator", "app.kubernetes.io/managed-by": "prometheus-operator"}


def _selector(resource: Object) -> dict[str, str]:
    kind, name = resource["kind"].lower(), resource["metadata"]["name"]
    labels = {
        "app.kubernetes.io/name": kind,
        "app.kubernetes.io/instance": name,
        "app.kubernetes.io/managed-by": "prometheus-operator",
        kind: name,
    }
    if kind == "prometheus":
        labels |= {"operator.prometheus.io/name": name, "operator.prometheus.io/shard": "0"}
    return labels


def _pod_labels(resource: Object) -> dict[str, str]:
    extra = resource["spec"].get("podMetadata", {}).get("labels", {})
    return {**extra, **_selector(resource)}


def _object(
    api_version: str,
    kind: str,
    resource: Object,
    name: str,
    labels: Mapping[str, str],
    owners: list[Object],
    **body: Any,
) -> Object:
    metadata = {
        "name": name,
        "namespace": resource["metadata"]["namespace"],
        "labels": dict(labels),
        "ownerReferences": owners,
    }
    return {"apiVersion": api_version, "kind": kind, "metadata": metadata, **body}

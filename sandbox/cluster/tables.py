"""Tables as the API server prints them for `kubectl get`."""

from __future__ import annotations

import datetime
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from sandbox.cluster.defaults import DEFAULT_STORAGE_CLASS
from sandbox.cluster.kinds import Kind, Object

Column = tuple[str, Callable[[Object], Any]]
"""Header and what stands below it."""


def table(kind: Kind, items: Sequence[Object], version: str) -> Object:
    """A meta.k8s.io/v1 Table; a header that starts with + is for `-o wide`."""
    columns = _columns(kind)
    return {
        "kind": "Table",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": {"resourceVersion": version},
        "columnDefinitions": [
            {
                "name": name.removeprefix("+"),
                "type": "string",
                "format": "name" if name == "Name" else "",
                "description": "",
                "priority": 1 if name.startswith("+") else 0,
            }
            for name, _ in columns
        ],
        "rows": [
            {
                "cells": [_cell(read, item) for _, read in columns],
                "object": {
                    "kind": "PartialObjectMetadata",
                    "apiVersion": "meta.k8s.io/v1",
                    "metadata": item["metadata"],
                },
            }
            for item in items
        ],
    }


def _cell(read: Callable[[Object], Any], item: Object) -> Any:
    value = read(item)
    return "<none>" if value is None or value == "" else value


def _columns(kind: Kind) -> list[Column]:
    name: Column = ("Name", _class_name if kind.kind == "StorageClass" else _get("metadata.name"))
    age: Column = ("Age", lambda item: age_of(item["metadata"]["creationTimestamp"]))
    if kind.custom:
        extra = [(column["name"], _path(column)) for column in kind.columns if column["name"] != "Age"]
        return [name, *extra, age]
    if kind.kind == "Event":
        return _EVENT
    own = _COLUMNS.get(kind.kind, [])
    shown = [column for column in own if not column[0].startswith("+")]
    wide = [column for column in own if column[0].startswith("+")]
    return [name, *shown, age, *wide]


def age_of(timestamp: str) -> str:
    """Time since an RFC 3339 timestamp, as kubectl shortens it: `45s`, `5m`, `3h12m`, `12d`."""
    since = datetime.datetime.now(datetime.UTC) - datetime.datetime.fromisoformat(timestamp)
    seconds = max(0, int(since.total_seconds()))
    if seconds < 120:
        return f"{seconds}s"
    if seconds < 600:
        return f"{seconds // 60}m{seconds % 60}s" if seconds % 60 else f"{seconds // 60}m"
    if seconds < 3 * 3600:
        return f"{seconds // 60}m"
    if seconds < 8 * 3600:
        return f"{seconds // 3600}h{seconds % 3600 // 60}m"
    return f"{seconds // 3600}h" if seconds < 48 * 3600 else f"{seconds // 86400}d"


def _path(column: Mapping[str, Any]) -> Callable[[Object], Any]:
    """A reader for a JSONPath of names and filters such as `.conditions[?(@.type == 'Ready')].status`."""
    parts = re.findall(r"\.(\w+)|\[\?\(@\.(\w+)\s*==\s*['\"](\w+)['\"]\)\]", column["jsonPath"])

    def read(item: Object) -> Any:
        value: Any = item
        for name, key, wanted in parts:
            if name:
                value = value.get(name) if isinstance(value, dict) else None
            else:
                found = [entry for entry in value or [] if entry.get(key) == wanted]
                value = found[0] if found else None
        return age_of(value) if column["type"] == "date" and value else value

    return read


def _get(path: str, default: Any = None) -> Callable[[Object], Any]:
    names = path.split(".")

    def read(item: Object) -> Any:
        value: Any = item
        for name in names:
            value = value.get(name) if isinstance(value, dict) else None
        return default if value is None else value

    return read


def _ports(item: Object) -> str:
    texts = []
    for port in item["spec"].get("ports", []):
        node_port = f":{port['nodePort']}" if "nodePort" in port else ""
        texts.append(f"{port['port']}{node_port}/{port['protocol']}")
    return ",".join(texts)


def _external(item: Object) -> str | None:
    if item["spec"]["type"] != "LoadBalancer":
        return None
    ingress = item["status"]["loadBalancer"].get("ingress", [])
    return ",".join(entry["ip"] for entry in ingress) or "<pending>"


def _ready(ready: str, wanted: str) -> Callable[[Object], str]:
    return lambda item: f"{_get(ready, 0)(item)}/{_get(wanted, 0)(item)}"


def _pod_ready(item: Object) -> str:
    states = item["status"].get("containerStatuses", [])
    return f"{sum(state['ready'] for state in states)}/{len(item['spec']['containers'])}"


def _pod_status(item: Object) -> str:
    """Why a container does not run, such as `CrashLoopBackOff` or `Completed`, else the phase."""
    for status in item["status"].get("containerStatuses", []):
        state = status.get("state", {})
        if reason := state.get("waiting", state.get("terminated", {})).get("reason"):
            return str(reason)
    return str(item["status"]["phase"])


def _pod_restarts(item: Object) -> str:
    return str(sum(state["restartCount"] for state in item["status"].get("containerStatuses", [])))


def _node_status(item: Object) -> str:
    conditions = item.get("status", {}).get("conditions", [])
    ready = any(entry["type"] == "Ready" and entry["status"] == "True" for entry in conditions)
    return "Ready" if ready else "NotReady"


def _pod_selector(item: Object) -> str:
    labels = _get("spec.podSelector.matchLabels", {})(item)
    return ",".join(f"{name}={value}" for name, value in sorted(labels.items()))


def _modes(item: Object) -> str:
    short = {
        "ReadWriteOnce": "RWO",
        "ReadOnlyMany": "ROX",
        "ReadWriteMany": "RWX",
        "ReadWriteOncePod": "RWOP",
    }
    return ",".join(short[mode] for mode in item["spec"].get("accessModes", []))


def _claim_of(item: Object) -> str:
    claim = item["spec"].get("claimRef", {})
    return f"{claim['namespace']}/{claim['name']}" if claim else ""


def _class_name(item: Object) -> str:
    default = item["metadata"].get("annotations", {}).get(DEFAULT_STORAGE_CLASS) == "true"
    return f"{item['metadata']['name']}{' (default)' if default else ''}"


def _selector(item: Object) -> str:
    selector = item["spec"].get("selector", {})
    return ",".join(f"{key}={value}" for key, value in selector.get("matchLabels", selector).items())


_COLUMNS: Mapping[str, list[Column]] = {
    "Namespace": [
        ("Status", _get("status.phase")),
    ],
    "Node": [
        ("Status", _node_status),
        ("Roles", lambda item: "<none>"),
        ("Version", _get("status.nodeInfo.kubeletVersion")),
    ],
    "Pod": [
        ("Ready", _pod_ready),
        ("Status", _pod_status),
        ("Restarts", _pod_restarts),
        ("+Node", _get("spec.nodeName")),
    ],
    "Service": [
        ("Type", _get("spec.type")),
        ("Cluster-IP", _get("spec.clusterIP")),
        ("External-IP", _external),
        ("Port(s)", _ports),
        ("+Selector", _selector),
    ],
    "Deployment": [
        ("Ready", _ready("status.readyReplicas", "spec.replicas")),
        ("Up-to-date", _get("status.updatedReplicas", 0)),
        ("Available", _get("status.availableReplicas", 0)),
        ("+Selector", _selector),
    ],
    "StatefulSet": [
        ("Ready", _ready("status.readyReplicas", "spec.replicas")),
    ],
    "DaemonSet": [
        ("Desired", _get("status.desiredNumberScheduled", 0)),
        ("Current", _get("status.currentNumberScheduled", 0)),
        ("Ready", _get("status.numberReady", 0)),
        ("Up-to-date", _get("status.updatedNumberScheduled", 0)),
        ("Available", _get("status.numberAvailable", 0)),
    ],
    "Job": [
        ("Status", lambda item: "Complete" if _get("status.succeeded")(item) else "Running"),
        ("Completions", _ready("status.succeeded", "spec.completions")),
    ],
    "PersistentVolumeClaim": [
        ("Status", _get("status.phase")),
        ("Volume", _get("spec.volumeName", "")),
        ("Capacity", _get("status.capacity.storage", "")),
        ("Access Modes", _modes),
        ("StorageClass", _get("spec.storageClassName")),
    ],
    "PersistentVolume": [
        ("Capacity", _get("spec.capacity.storage")),
        ("Access Modes", _modes),
        ("Reclaim Policy", _get("spec.persistentVolumeReclaimPolicy")),
        ("Status", _get("status.phase")),
        ("Claim", _claim_of),
        ("StorageClass", _get("spec.storageClassName")),
    ],
    "StorageClass": [
        ("Provisioner", _get("provisioner")),
        ("ReclaimPolicy", _get("reclaimPolicy")),
        ("VolumeBindingMode", _get("volumeBindingMode")),
        ("AllowVolumeExpansion", lambda item: str(item.get("allowVolumeExpansion", False)).lower()),
    ],
    "NetworkPolicy": [("Pod-Selector", _pod_selector)],
    "ConfigMap": [
        ("Data", lambda item: str(len(item.get("data", {})) + len(item.get("binaryData", {})))),
    ],
    "Secret": [
        ("Type", _get("type")),
        ("Data", lambda item: str(len(item.get("data", {})))),
    ],
    "RoleBinding": [
        ("Role", lambda item: f"{item['roleRef']['kind']}/{item['roleRef']['name']}"),
    ],
    "ClusterRoleBinding": [
        ("Role", lambda item: f"{item['roleRef']['kind']}/{item['roleRef']['name']}"),
    ],
    "MutatingWebhookConfiguration": [
        ("Webhooks", lambda item: str(len(item.get("webhooks", [])))),
    ],
    "ValidatingWebhookConfiguration": [
        ("Webhooks", lambda item: str(len(item.get("webhooks", [])))),
    ],
}

_EVENT: list[Column] = [
    ("Last Seen", lambda item: age_of(item["lastTimestamp"])),
    ("Type", _get("type")),
    ("Reason", _get("reason")),
    ("Object", lambda item: f"{item['involvedObject']['kind'].lower()}/{item['involvedObject']['name']}"),
    ("Message", _get("message")),
    ("+Name", _get("metadata.name")),
]

"""Managed Kubernetes: node pools."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Final

from sandbox.plugins.bridge import ResourceData
from sandbox.plugins.framework import PluginError
from sandbox.plugins.ovh.resource import (
    FREE_BOOL,
    FREE_INT,
    KUBE_ID,
    OUTPUT_INT,
    OUTPUT_TEXT,
    SERVICE_NAME,
    OvhResource,
    without_unset,
)
from sandbox.plugins.schema import Field, Schema, State

_POOL_PENDING: Final = (
    "INSTALLING",
    "UPDATING",
    "REDEPLOYING",
    "RESIZING",
    "DOWNSCALING",
    "UPSCALING",
    "UNKNOWN",
)
_AUTOSCALING: Final = {
    "scaleDownUtilizationThreshold": "autoscalingScaleDownUtilizationThreshold",
    "scaleDownUnneededTimeSeconds": "autoscalingScaleDownUnneededTimeSeconds",
    "scaleDownUnreadyTimeSeconds": "autoscalingScaleDownUnreadyTimeSeconds",
}


class KubeNodePool(OvhResource):
    """`ovh:CloudProject/kubeNodePool:KubeNodePool`, a node pool."""

    timeouts: ClassVar[Mapping[str, int]] = {
        "create": 3600,
        "update": 3600,
        "delete": 3600,
        "read": 300,
        "default": 600,
    }
    schema: ClassVar[Schema] = {
        "serviceName": SERVICE_NAME,
        "kubeId": KUBE_ID,
        "name": Field("string", optional=True, computed=True, force_new=True, auto_named=True),
        "flavorName": Field("string", required=True, force_new=True),
        "desiredNodes": FREE_INT,
        "minNodes": FREE_INT,
        "maxNodes": FREE_INT,
        "autoscale": FREE_BOOL,
        "autoscalingScaleDownUnneededTimeSeconds": FREE_INT,
        "autoscalingScaleDownUnreadyTimeSeconds": FREE_INT,
        "autoscalingScaleDownUtilizationThreshold": Field("float", optional=True, computed=True),
        "antiAffinity": Field("bool", optional=True, computed=True, force_new=True),
        "monthlyBilled": Field("bool", optional=True, computed=True, force_new=True),
        "availabilityZones": Field("list", force_new=True),
        "attachFloatingIps": Field("object", optional=True, computed=True, fields={"enabled": FREE_BOOL}),
        "template": Field(
            "object",
            fields={
                "metadata": Field(
                    "object",
                    required=True,
                    fields={
                        "annotations": Field("map", required=True),
                        "finalizers": Field("list", required=True),
                        "labels": Field("map", required=True),
                    },
                ),
                "spec": Field(
                    "object",
                    required=True,
                    fields={
                        "taints": Field("list", required=True, elements="map"),
                        "unschedulable": Field("bool", required=True),
                    },
                ),
            },
        ),
        "availableNodes": OUTPUT_INT,
        "currentNodes": OUTPUT_INT,
        "upToDateNodes": OUTPUT_INT,
        "flavor": OUTPUT_TEXT,
        "projectId": OUTPUT_TEXT,
        "sizeStatus": OUTPUT_TEXT,
        "status": OUTPUT_TEXT,
        "createdAt": OUTPUT_TEXT,
        "updatedAt": OUTPUT_TEXT,
    }

    def create(self, data: ResourceData) -> None:
        """Creates the pool and waits for READY or ERROR, both of which end the creation well."""
        path = self._pools(data)
        body: dict[str, Any] = {
            "antiAffinity": data.get("antiAffinity") or False,
            "attachFloatingIps": data.get("attachFloatingIps"),
            "autoscale": data.get("autoscale") or False,
            "availabilityZones": data.get("availabilityZones") or [],
            "desiredNodes": data.get("desiredNodes"),
            "flavorName": data.get("flavorName"),
            "maxNodes": data.get("maxNodes"),
            "minNodes": data.get("minNodes"),
            "monthlyBilled": data.get("monthlyBilled") or False,
            "name": data.get("name"),
            "autoscaling": _autoscaling(data),
            "template": pool_template(data.get("template")),
        }
        try:
            pool = self._api.post(path, without_unset(body))
        except PluginError as error:
            sizes = "/".join(str(body[key]) for key in ("desiredNodes", "minNodes", "maxNodes"))
            named = f"{body['name']}({body['flavorName']}): {sizes}"
            raise PluginError(f"calling Post {path} with params {named}:\n\t {error}") from error
        path = f"{path}/{pool['id']}"
        self._wait_available(path, 120)
        self._wait_ready(path, ("READY", "ERROR"), data.timeout)
        data.id = pool["id"]
        self.read(data)

    def read(self, data: ResourceData) -> None:
        """Reads the pool."""
        pool = self._found(data, f"{self._pools(data)}/{data.id}")
        if pool is not None:
            data.set(pool_state(pool))

    def update(self, data: ResourceData) -> None:
        """Sends all that can change, waits for READY."""
        path = f"{self._pools(data)}/{data.id}"
        body: dict[str, Any] = {
            "attachFloatingIps": data.get("attachFloatingIps"),
            "autoscale": data.get("autoscale") or False,
            "desiredNodes": data.get("desiredNodes"),
            "maxNodes": data.get("maxNodes"),
            "minNodes": data.get("minNodes"),
            "autoscaling": _autoscaling(data),
            "template": pool_template(data.get("template")),
        }
        try:
            self._api.put(path, without_unset(body))
        except PluginError as error:
            sizes = "/".join(str(body[key]) for key in ("desiredNodes", "minNodes", "maxNodes"))
            raise PluginError(f"calling Put {path} with params {sizes}:\n\t {error}") from error
        self._wait_ready(path, ("READY",), data.timeout)
        self.read(data)

    def delete(self, data: ResourceData) -> None:
        """Deletes the pool and waits until it is gone."""
        path = f"{self._pools(data)}/{data.id}"
        if self._removed(path):
            try:
                self._wait(path, ("DELETING",), ("DELETED",), data.timeout)
            except PluginError as error:
                text = f"timeout while waiting nodepool {data.id} to be DELETED: {error}"
                raise PluginError(text) from error

    def import_state(self, id: str) -> tuple[str, State]:
        """Takes `<project>/<cluster>/<pool>`."""
        parts = id.split("/", 2)
        if len(parts) != 3:
            raise PluginError("import Id is not service_name/kubeid/poolid formatted")
        service, cluster, pool = parts
        return pool, {"serviceName": service, "kubeId": cluster}

    def _pools(self, data: ResourceData) -> str:
        return f"/cloud/project/{data.get('serviceName')}/kube/{data.get('kubeId')}/nodepool"

    def _wait_ready(self, path: str, target: Sequence[str], timeout: float) -> None:
        try:
            self._wait(path, _POOL_PENDING, target, timeout)
        except PluginError as error:
            pool = path.rpartition("/")[2]
            raise PluginError(f"timeout while waiting nodepool {pool} to be READY: {error}") from error


def _autoscaling(data: ResourceData) -> dict[str, Any]:
    """API form of the autoscaling properties; a zero counts as not set, as in the real provider."""
    return {name: value for name, key in _AUTOSCALING.items() if (value := data.get(key))}


def pool_template(template: Mapping[str, Any] | None) -> dict[str, Any]:
    """API form of a node template, always complete."""
    metadata = (template or {}).get("metadata") or {}
    spec = (template or {}).get("spec") or {}
    taints = []
    for taint in spec.get("taints") or []:
        if taint.get("effect") not in ("NoExecute", "NoSchedule", "PreferNoSchedule"):
            raise PluginError(f"effect: {taint.get('effect')} is not a allowable taint")
        taints.append({"effect": taint["effect"], "key": taint["key"], "value": taint.get("value", "")})
    return {
        "metadata": {
            "annotations": metadata.get("annotations") or {},
            "finalizers": metadata.get("finalizers") or [],
            "labels": metadata.get("labels") or {},
        },
        "spec": {"taints": taints, "unschedulable": spec.get("unschedulable") or False},
    }


def pool_state(pool: Mapping[str, Any]) -> State:
    """Properties that a pool object of the API determines."""
    state: State = {"flavor": pool.get("flavor") or "", "flavorName": pool.get("flavor") or ""}
    for key in ("name", "projectId", "sizeStatus", "status", "createdAt", "updatedAt"):
        state[key] = pool.get(key) or ""
    for key in ("availableNodes", "currentNodes", "desiredNodes", "maxNodes", "minNodes", "upToDateNodes"):
        state[key] = pool.get(key) or 0
    for key in ("antiAffinity", "autoscale", "monthlyBilled"):
        state[key] = pool.get(key) or False
    state["availabilityZones"] = pool.get("availabilityZones") or []
    autoscaling = pool.get("autoscaling") or {}
    for name, key in _AUTOSCALING.items():
        state[key] = autoscaling.get(name)
    if pool.get("attachFloatingIps") is not None:
        state["attachFloatingIps"] = {"enabled": pool["attachFloatingIps"]["enabled"]}
    template = pool.get("template")
    if template is not None and template != pool_template(None):
        state["template"] = pool_template(template)
    return state

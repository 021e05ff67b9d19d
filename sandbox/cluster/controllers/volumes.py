"""Claims become Cinder volumes.

The storage classes of MKS bind when a pod first uses the claim; here a claim is bound after a short delay in
any case. Documented: classes, provisioner, ReadWriteOnce only, reclaim policy Delete, growing only.
"""

from __future__ import annotations

import math

from sandbox.clock import Clock
from sandbox.cluster.controllers.lifecycle import drop_finalizer
from sandbox.cluster.defaults import DEFAULT_STORAGE_CLASS
from sandbox.cluster.kinds import Object
from sandbox.cluster.quantities import quantity
from sandbox.cluster.storage import ObjectStore
from sandbox.interfaces import Infrastructure

PROVISIONER = "cinder.csi.openstack.org"
_MANAGER = "csi-provisioner"
_COMPONENT = PROVISIONER
_CLAIM_FINALIZER = "kubernetes.io/pvc-protection"
_VOLUME_FINALIZER = "kubernetes.io/pv-protection"
_TYPES = tuple(
    f"{type_}{encryption}"
    for type_ in ("high-speed", "high-speed-gen2", "classic")
    for encryption in ("", "-luks")
)


def storage_classes() -> list[Object]:
    """The StorageClass objects that MKS puts into a cluster."""
    return [_storage_class(f"csi-cinder-{type_}", type_) for type_ in _TYPES]


def _storage_class(name: str, volume_type: str) -> Object:
    default = {DEFAULT_STORAGE_CLASS: "true"} if name == "csi-cinder-high-speed" else {}
    return {
        "apiVersion": "storage.k8s.io/v1",
        "kind": "StorageClass",
        "metadata": {"name": name, "annotations": default},
        "provisioner": PROVISIONER,
        "parameters": {"type": volume_type, "fsType": "ext4"},
        "reclaimPolicy": "Delete",
        "volumeBindingMode": "WaitForFirstConsumer",
        "allowVolumeExpansion": True,
    }


class Volumes:
    """Provisions volumes for claims and deletes released ones.

    `bind_delay` and `deletion_delay` are platform seconds. A volume is deleted only while the cluster lives:
    those of a stopped cluster stay behind and cost money.
    """

    def __init__(
        self,
        cluster_id: str,
        infrastructure: Infrastructure,
        clock: Clock,
        *,
        bind_delay: float,
        deletion_delay: float,
    ) -> None:
        self._cluster_id = cluster_id
        self._infrastructure = infrastructure
        self._clock = clock
        self._bind_delay = bind_delay
        self._deletion_delay = deletion_delay
        self._due: dict[str, float] = {}

    async def reconcile(self, store: ObjectStore) -> float | None:
        """One pass over claims and volumes; returns when the next is due."""
        pending: dict[str, float] = {}
        for claim in store.list("PersistentVolumeClaim"):
            if "deletionTimestamp" in claim["metadata"]:
                if not _used(store, claim):
                    drop_finalizer(store, claim, _CLAIM_FINALIZER, _MANAGER)
            elif claim["status"]["phase"] == "Pending" and self._provisionable(store, claim):
                if not self._wait(pending, claim, self._bind_delay):
                    self._provision(store, claim)
            elif claim["status"]["phase"] == "Bound" and _grown(claim):
                text = "not implemented in the sandbox: resizing a volume"
                store.event(claim, "Warning", "VolumeResizeFailed", text, _COMPONENT)
        for volume in store.list("PersistentVolume"):
            if self._release(store, volume) and not self._wait(pending, volume, self._deletion_delay):
                self._delete(store, volume)
        self._due = pending
        now = self._clock.monotonic()
        return min((at - now for at in pending.values()), default=None)

    async def stop(self) -> None:
        """Leaves the volumes."""

    def _wait(self, pending: dict[str, float], item: Object, delay: float) -> bool:
        """Whether `item` has to wait longer, counted from when it was first seen waiting."""
        uid, now = item["metadata"]["uid"], self._clock.monotonic()
        due = self._due.get(uid, now + delay)
        if due > now:
            pending[uid] = due
        return due > now

    def _provisionable(self, store: ObjectStore, claim: Object) -> bool:
        """Whether the claim can be had; an event says why not, and it stays Pending, as in reality."""
        name = claim["spec"].get("storageClassName", "")
        storage_class = store.get("StorageClass", "", name)
        why = ""
        if storage_class is None:
            known = ", ".join(item["metadata"]["name"] for item in store.list("StorageClass"))
            why = f'storageclass.storage.k8s.io "{name}" not found (there are: {known})'
        elif storage_class["provisioner"] != PROVISIONER:
            why = f"provisioner {storage_class['provisioner']} does not run here (only {PROVISIONER})"
        elif storage_class.get("parameters", {}).get("type") not in _TYPES:
            why = f"no such volume type, there are: {', '.join(_TYPES)}"
        elif claim["spec"]["accessModes"] != ["ReadWriteOnce"]:
            why = "Cinder volumes support the access mode ReadWriteOnce only"
        if why:
            store.event(claim, "Warning", "ProvisioningFailed", why, _COMPONENT)
        return not why

    def _provision(self, store: ObjectStore, claim: Object) -> None:
        metadata, spec = claim["metadata"], claim["spec"]
        storage_class = store.get("StorageClass", "", spec["storageClassName"])
        assert storage_class is not None  # looked up in the same step
        size = math.ceil(quantity(spec["resources"]["requests"]["storage"]) / 2**30)
        name = f"pvc-{metadata['uid']}"
        volume_id = self._infrastructure.create_volume(
            self._cluster_id, name, size, storage_class["parameters"]["type"]
        )
        store.create(
            {
                "apiVersion": "v1",
                "kind": "PersistentVolume",
                "metadata": {
                    "name": name,
                    "annotations": {"pv.kubernetes.io/provisioned-by": PROVISIONER},
                },
                "spec": {
                    "capacity": {"storage": f"{size}Gi"},
                    "accessModes": spec["accessModes"],
                    "volumeMode": spec["volumeMode"],
                    "storageClassName": spec["storageClassName"],
                    "persistentVolumeReclaimPolicy": storage_class["reclaimPolicy"],
                    "csi": {"driver": PROVISIONER, "volumeHandle": volume_id, "fsType": "ext4"},
                    "claimRef": {
                        "apiVersion": "v1",
                        "kind": "PersistentVolumeClaim",
                        "namespace": metadata["namespace"],
                        "name": metadata["name"],
                        "uid": metadata["uid"],
                    },
                },
            },
            _MANAGER,
        )
        store.set_status("PersistentVolume", "", name, {"phase": "Bound"}, _MANAGER)
        annotations = {
            "pv.kubernetes.io/bind-completed": "yes",
            "pv.kubernetes.io/bound-by-controller": "yes",
        }
        metadata["annotations"] = metadata.get("annotations", {}) | annotations
        spec["volumeName"] = name
        store.update(claim, _MANAGER)
        status = {
            "phase": "Bound",
            "accessModes": spec["accessModes"],
            "capacity": {"storage": f"{size}Gi"},
        }
        store.set_status("PersistentVolumeClaim", metadata["namespace"], metadata["name"], status, _MANAGER)
        text = f"Successfully provisioned volume {name}"
        store.event(claim, "Normal", "ProvisioningSucceeded", text, _COMPONENT)

    def _release(self, store: ObjectStore, volume: Object) -> bool:
        """Whether the volume is to be deleted, since its claim is gone and the policy says so."""
        metadata, spec = volume["metadata"], volume["spec"]
        reference = spec.get("claimRef", {})
        claim = store.get("PersistentVolumeClaim", reference.get("namespace", ""), reference.get("name", ""))
        if claim is not None and claim["metadata"]["uid"] == reference.get("uid"):
            return False
        if reference and volume["status"]["phase"] != "Released":
            store.set_status("PersistentVolume", "", metadata["name"], {"phase": "Released"}, _MANAGER)
        ours = spec.get("csi", {}).get("driver") == PROVISIONER
        if spec["persistentVolumeReclaimPolicy"] == "Delete" and reference and ours:
            return True
        if "deletionTimestamp" in metadata:  # kept volumes only lose their object
            drop_finalizer(store, self._fresh(store, volume), _VOLUME_FINALIZER, _MANAGER)
        return False

    def _delete(self, store: ObjectStore, volume: Object) -> None:
        self._infrastructure.delete_volume(volume["spec"]["csi"]["volumeHandle"])
        store.delete("PersistentVolume", "", volume["metadata"]["name"])
        drop_finalizer(store, self._fresh(store, volume), _VOLUME_FINALIZER, _MANAGER)

    @staticmethod
    def _fresh(store: ObjectStore, volume: Object) -> Object:
        return store.get("PersistentVolume", "", volume["metadata"]["name"]) or volume


def _used(store: ObjectStore, claim: Object) -> bool:
    """Whether a pod mounts the claim, which then stays until the pod is gone."""
    metadata = claim["metadata"]
    return any(
        volume.get("persistentVolumeClaim", {}).get("claimName") == metadata["name"]
        for pod in store.list("Pod", metadata["namespace"])
        for volume in pod["spec"].get("volumes", [])
    )


def _grown(claim: Object) -> bool:
    wanted = quantity(claim["spec"]["resources"]["requests"]["storage"])
    return wanted > quantity(claim["status"]["capacity"]["storage"])

"""Deletion of what belongs together: namespaces with their content, objects with their owners."""

from __future__ import annotations

from sandbox.cluster.kinds import Object
from sandbox.cluster.storage import FOREGROUND, Header, ObjectStore

_MANAGER = "kube-controller-manager"


class Namespaces:
    """Gives a new namespace its service account and CA, and empties one that is being deleted."""

    def __init__(self, authority: str) -> None:
        self._authority = authority

    async def reconcile(self, store: ObjectStore) -> None:
        """One pass over all namespaces."""
        for namespace in store.list("Namespace"):
            name = namespace["metadata"]["name"]
            if namespace["status"]["phase"] == "Terminating":
                self._empty(store, name)
            else:
                self._furnish(store, name)

    async def stop(self) -> None:
        """Nothing runs outside the store."""

    def _furnish(self, store: ObjectStore, name: str) -> None:
        if store.get("ServiceAccount", name, "default") is None:
            metadata = {"name": "default", "namespace": name}
            store.create({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata}, _MANAGER)
        if store.get("ConfigMap", name, "kube-root-ca.crt") is None:
            metadata = {"name": "kube-root-ca.crt", "namespace": name}
            data = {"ca.crt": self._authority}
            store.create(
                {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data}, _MANAGER
            )

    def _empty(self, store: ObjectStore, name: str) -> None:
        content = [header for header in store.headers() if header.namespace == name]
        for header in content:
            if not header.deleting:
                store.delete(header.kind, name, header.name)
        if not any(header.namespace == name for header in store.headers()):
            store.finalize_namespace(name)


class GarbageCollector:
    """Deletes objects all of whose owners are gone, and ends deletions that wait for dependents."""

    async def reconcile(self, store: ObjectStore) -> None:
        """One pass over all objects."""
        headers = list(store.headers())
        alive = {header.uid for header in headers}
        waiting = {header.uid for header in headers if header.deleting and FOREGROUND in header.finalizers}
        for header in headers:
            if header.deleting or not header.owners:
                continue
            if not alive.intersection(header.owners) or waiting.intersection(header.owners):
                store.delete(header.kind, header.namespace, header.name)
        owned = {owner for header in store.headers() for owner in header.owners}
        for header in headers:
            if header.uid in waiting - owned:
                self._release(store, header)

    async def stop(self) -> None:
        """Nothing runs outside the store."""

    def _release(self, store: ObjectStore, header: Header) -> None:
        value = store.get(header.kind, header.namespace, header.name)
        if value is not None:
            drop_finalizer(store, value, FOREGROUND, _MANAGER)


def drop_finalizer(store: ObjectStore, value: Object, finalizer: str, manager: str) -> None:
    """Removes a finalizer of an object, which ends its deletion when it was the last."""
    metadata = value["metadata"]
    if finalizer in metadata.get("finalizers", []):
        finalizers = [item for item in metadata["finalizers"] if item != finalizer]
        store.update({**value, "metadata": {**metadata, "finalizers": finalizers}}, manager)

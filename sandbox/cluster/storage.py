"""The objects of one cluster, as the API server keeps them. This is the API for controllers and the operator.

    store.get("Secret", "monitoring", "vllm-auth-token")      -> object or None (cluster-scoped: namespace "")
    store.list("ScrapeConfig", "monitoring", labels={...})    -> objects; [] while the kind's CRD is missing
    store.serves("Prometheus")                                -> whether the kind's CRD is there
    store.apply(object, "prometheus-operator")                -> creates it, or makes the fields be so
    store.set_status("Prometheus", ns, name, status, manager) -> replaces `status`
    store.delete("StatefulSet", ns, name)                     -> NotFound is an ApiError
    store.event(object, "Warning", "SyncFailed", "text", "prometheus-operator")
    await store.changed(revision)                             -> waits until store.revision > revision

What is handed out is a copy: changing it changes nothing. Writes validate, default and raise
`errors.ApiError` with the text of the real API server. `apply` is server-side apply with force: fields that
the same manager set before and leaves out now are removed, fields of others stay.

A controller is level-triggered: it is called when anything has changed and compares what is with what
should be. It never needs to know what changed:

    class PrometheusOperator:
        async def reconcile(self, store: ObjectStore) -> float | None:
            '''Returns the platform seconds after which it wants to be called even without a change.'''
        async def stop(self) -> None: ...

The cluster runs each controller in a task of its own, never twice at a time; an exception is logged and the
call repeated. ownerReferences (with the owner's uid) have an object deleted with its owner.

Custom kinds are served once their CustomResourceDefinition is stored, and validated by the schema in it.
Strict ones of monitoring.coreos.com are made by `sandbox.cluster.crds.monitoring_crds()`.
"""

from __future__ import annotations

import asyncio
import datetime
import secrets
import uuid
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from sandbox.cluster import defaults, errors, fields, rules, schemas
from sandbox.cluster.errors import Cause
from sandbox.cluster.kinds import Kind, Kinds, Object
from sandbox.cluster.schemas import Schemas

_HISTORY = 4096
"""Changes that a watch may start behind."""

_NEED_SPEC = ("Deployment", "StatefulSet", "DaemonSet", "Job", "Pod", "PersistentVolume")

FOREGROUND = "foregroundDeletion"
"""Finalizer of an object that waits for its dependents to go first."""


class Controller(Protocol):
    """Something that runs in the cluster and makes what is be as it should."""

    async def reconcile(self, store: ObjectStore) -> float | None:
        """Compares and acts; returns the platform seconds after which to call it without a change."""
        ...

    async def stop(self) -> None:
        """Ends what it runs; the cluster is going down and no object has to be deleted for that."""
        ...


@dataclass(frozen=True, repr=False)
class Change:
    """One write: `before` is None for a new object, `after` for a deleted one."""

    resource_version: int
    """The one that it was given."""
    kind: str
    before: Object | None
    after: Object | None


@dataclass(frozen=True)
class Writer:
    """Who writes, as `managedFields` records it."""

    manager: str
    operation: str = "Update"
    subresource: str = ""


@dataclass(frozen=True)
class Header:
    """What identifies an object, without its content."""

    kind: str
    namespace: str
    name: str
    uid: str
    resource_version: str
    owners: tuple[str, ...]
    """uids of its ownerReferences."""
    finalizers: tuple[str, ...]
    deleting: bool


Key = tuple[str, str, str]


class ObjectStore:
    """All objects of a cluster of Kubernetes `version` (such as `1.34.2-1`); for one event loop."""

    def __init__(self, version: str) -> None:
        self.kinds = Kinds()
        self.schemas = Schemas(version)
        self.revision = 0
        """Grows with every write but those of events, which wake no controller."""
        self.resource_version = 1
        """Last resourceVersion given out."""
        self.history: deque[Change] = deque(maxlen=_HISTORY)
        self._objects: dict[Key, Object] = {}
        self._woken = asyncio.Event()

    def serves(self, kind: str) -> bool:
        """Whether objects of this kind can be stored now."""
        return self.kinds.get(kind) is not None

    def get(self, kind: str, namespace: str, name: str) -> Object | None:
        """The object, None when there is none; `namespace` is "" for cluster-scoped kinds."""
        found = self._objects.get((kind, namespace, name))
        return None if found is None else _copy(found)

    def list(
        self,
        kind: str,
        namespace: str | None = None,
        labels: Mapping[str, str] | None = None,
        owner: str | None = None,
    ) -> list[Object]:
        """Objects of a kind by namespace and name, of all namespaces for None; `owner` is an owner's uid."""
        keys = [
            key
            for key, item in self._objects.items()
            if key[0] == kind
            and namespace in (None, key[1])
            and (labels or {}).items() <= item["metadata"].get("labels", {}).items()
            and (owner is None or owner in _owners(item))
        ]
        return [_copy(self._objects[key]) for key in sorted(keys)]

    def headers(self) -> Iterator[Header]:
        """Headers of all objects: cheaper than listing every kind."""
        for (kind, namespace, name), item in self._objects.items():
            metadata = item["metadata"]
            yield Header(
                kind,
                namespace,
                name,
                metadata["uid"],
                metadata["resourceVersion"],
                _owners(item),
                tuple(metadata.get("finalizers", ())),
                "deletionTimestamp" in metadata,
            )

    async def changed(self, after: int) -> int:
        """Waits until `revision` is greater than `after`; returns it."""
        while self.revision <= after:
            await self._woken.wait()
        return self.revision

    async def written(self, after: int) -> int:
        """Waits until `resource_version` is greater than `after`, events included; returns it."""
        while self.resource_version <= after:
            await self._woken.wait()
        return self.resource_version

    def create(self, value: Object, manager: str, *, dry_run: bool = False) -> Object:
        """Stores a new object and returns it as stored."""
        return self._create(value, Writer(manager), dry_run)

    def update(self, value: Object, manager: str, *, subresource: str = "", dry_run: bool = False) -> Object:
        """Replaces an object, or its status when `subresource` is "status"; returns it as stored.

        A `resourceVersion` in `value` that is not the stored one is a Conflict.
        """
        kind, value = self._prepare(value)
        old = self._stored(kind, value)
        self._check_version(kind, value, old)
        if subresource == "status":
            value = {**_copy(old), "status": value.get("status", {})}
        elif kind.custom and "resourceVersion" not in value["metadata"]:
            cause = Cause(
                "FieldValueInvalid",
                "Invalid value: 0: must be specified for an update",
                "metadata.resourceVersion",
            )
            raise errors.invalid(kind.kind, kind.group, value["metadata"]["name"], [cause])
        return self._replace(kind, old, value, Writer(manager, "Update", subresource), None, dry_run)

    def apply(
        self, value: Object, manager: str, *, force: bool = True, subresource: str = "", dry_run: bool = False
    ) -> Object:
        """Server-side apply: creates the object, or makes the given fields be so and removes those given up.

        Without `force`, a field that another manager set to another value is a Conflict.
        """
        kind, value = self._prepare(value)
        writer = Writer(manager, "Apply", subresource)
        old = self._objects.get(self._key(kind, value))
        if old is None:
            return self._create(value, writer, dry_run)
        self._check_version(kind, value, old)
        node = self.schemas.node(kind)
        if subresource == "status":
            value = {
                key: item
                for key, item in value.items()
                if key in ("apiVersion", "kind", "metadata", "status")
            }
        elif kind.status:
            value.pop("status", None)
        wanted = fields.applied_paths(node, value)
        ownership = fields.Ownership(old["metadata"].get("managedFields", []))
        if not force:
            self._check_conflicts(node, ownership, old, value, writer)
        stale = {
            path
            for path in ownership.owned(manager, "Apply", subresource) - wanted
            if not ownership.others(path, manager, "Apply", subresource)
        }
        merged = fields.merge_applied(node, _copy(old), value)
        merged = fields.remove(node, merged, stale, wanted)
        return self._replace(kind, old, merged, writer, wanted, dry_run)

    def set_status(self, kind: str, namespace: str, name: str, status: Object, manager: str) -> Object:
        """Replaces the status of an object; NotFound when it is gone."""
        api_version = self._kind(kind).api_version
        metadata = {"name": name, **({"namespace": namespace} if namespace else {})}
        value = {"apiVersion": api_version, "kind": kind, "metadata": metadata, "status": status}
        return self.update(value, manager, subresource="status")

    def delete(
        self,
        kind: str,
        namespace: str,
        name: str,
        *,
        propagation: str = "Background",
        preconditions: Mapping[str, str] | None = None,
        dry_run: bool = False,
    ) -> Object:
        """Deletes an object and returns its last state.

        With finalizers it only gets a deletionTimestamp; whoever set them removes them. `propagation` is
        Background (the garbage collector deletes what it owns), Foreground (that goes first) or Orphan.
        """
        served = self._kind(kind)
        old = self._objects.get((kind, namespace, name))
        if old is None:
            raise errors.not_found(served.plural, served.group, name)
        for field in ("uid", "resourceVersion"):
            wanted = (preconditions or {}).get(field)
            if wanted is not None and wanted != old["metadata"][field]:
                stored = old["metadata"][field]
                text = f"Precondition failed: {field} in precondition: {wanted}, in object meta: {stored}"
                raise errors.conflict(served.plural, served.group, name, text)
        if dry_run:
            return _copy(old)
        if propagation == "Orphan":
            self._orphan(old["metadata"]["uid"])
        new = _copy(old)
        metadata = new["metadata"]
        if propagation == "Foreground" and "deletionTimestamp" not in metadata:
            metadata["finalizers"] = [*metadata.get("finalizers", []), FOREGROUND]
        if "deletionTimestamp" not in metadata:
            metadata["deletionTimestamp"] = now()
            metadata["deletionGracePeriodSeconds"] = 0
            if kind == "Namespace":
                new["status"]["phase"] = "Terminating"
            self._bump(new)
        self._settle(served, old, new)
        return _copy(new)

    def finalize_namespace(self, name: str) -> None:
        """Ends the deletion of a namespace that has been emptied."""
        old = self._objects[("Namespace", "", name)]
        new = _copy(old)
        new["spec"]["finalizers"] = []
        self._bump(new)
        self._settle(self._kind("Namespace"), old, new)

    def event(self, about: Object, type_: str, reason: str, message: str, component: str) -> None:
        """Records an event (`Normal` or `Warning`) about an object; a repeated one only counts up."""
        metadata = about["metadata"]
        namespace = metadata.get("namespace", "default")
        if self._objects.get(("Namespace", "", namespace), {}).get("status", {}).get("phase") != "Active":
            return  # nothing can be created there; the real recorder drops the event too
        for old in self.list("Event", namespace):
            same = (old["involvedObject"].get("uid"), old["reason"], old["message"])
            if same == (metadata["uid"], reason, message):
                self.update(old | {"count": old["count"] + 1, "lastTimestamp": now()}, component)
                return
        self.create(
            {
                "apiVersion": "v1",
                "kind": "Event",
                "metadata": {"name": f"{metadata['name']}.{secrets.token_hex(8)}", "namespace": namespace},
                "involvedObject": {
                    "apiVersion": about["apiVersion"],
                    "kind": about["kind"],
                    "name": metadata["name"],
                    "uid": metadata["uid"],
                    "resourceVersion": metadata["resourceVersion"],
                    **({"namespace": metadata["namespace"]} if "namespace" in metadata else {}),
                },
                "type": type_,
                "reason": reason,
                "message": message,
                "source": {"component": component},
                "firstTimestamp": now(),
                "lastTimestamp": now(),
                "count": 1,
                "reportingComponent": component,
                "reportingInstance": "",
            },
            component,
        )

    def _kind(self, kind: str) -> Kind:
        served = self.kinds.get(kind)
        if served is None:
            raise errors.unknown_resource(f"kind {kind}")
        return served

    def _prepare(self, value: Object) -> tuple[Kind, Object]:
        """The kind of an object and a copy of it without nulls, which the server treats as not given."""
        value = _without_nulls(value)
        kind = self._kind(str(value.get("kind", "")))
        if value.get("apiVersion") != kind.api_version:
            raise errors.unknown_resource(f"{value.get('apiVersion')}, kind {kind.kind}")
        metadata = value.setdefault("metadata", {})
        if not isinstance(metadata, dict):
            raise errors.bad_request(f"{kind.kind}: metadata is no object")
        if kind.namespaced:
            metadata.setdefault("namespace", "default")
        else:
            metadata.pop("namespace", None)
        for field in ("name", "generateName", "namespace"):
            if not isinstance(metadata.get(field, ""), str):
                raise errors.undecodable(kind.kind, kind.version, f"metadata.{field} is no string")
        return kind, value

    @staticmethod
    def _key(kind: Kind, value: Object) -> Key:
        return (kind.kind, value["metadata"].get("namespace", ""), value["metadata"].get("name", ""))

    def _stored(self, kind: Kind, value: Object) -> Object:
        key = self._key(kind, value)
        if key not in self._objects:
            raise errors.not_found(kind.plural, kind.group, key[2])
        return self._objects[key]

    def _check_version(self, kind: Kind, value: Object, old: Object) -> None:
        metadata = value["metadata"]
        name = metadata["name"]
        if (
            metadata.get("resourceVersion", old["metadata"]["resourceVersion"])
            != old["metadata"]["resourceVersion"]
        ):
            raise errors.conflict(
                kind.plural,
                kind.group,
                name,
                "the object has been modified; please apply your changes to the latest version and try again",
            )
        if metadata.get("uid", old["metadata"]["uid"]) != old["metadata"]["uid"]:
            stored = old["metadata"]["uid"]
            text = (
                f"Precondition failed: UID in precondition: {metadata['uid']}, UID in object meta: {stored}"
            )
            raise errors.conflict(kind.plural, kind.group, name, text)

    @staticmethod
    def _check_conflicts(
        node: fields.Node, ownership: fields.Ownership, old: Object, value: Object, writer: Writer
    ) -> None:
        stored = fields.paths(node, old)
        causes = []
        for path, wanted in fields.paths(node, value).items():
            others = ownership.others(path, writer.manager, writer.operation, writer.subresource)
            if path in stored and stored[path] != wanted and others:
                place = ".".join(["", *(element.partition(":")[2] for element in path)])
                message = f'conflict with "{others[0]["manager"]}" using {others[0]["apiVersion"]}'
                causes.append(Cause("FieldManagerConflict", message, place))
        if causes:
            raise errors.apply_conflict(causes)

    def _create(self, value: Object, writer: Writer, dry_run: bool) -> Object:
        kind, value = self._prepare(value)
        metadata = value["metadata"]
        if "name" not in metadata:
            if "generateName" not in metadata:
                cause = Cause(
                    "FieldValueRequired", "Required value: name or generateName is required", "metadata.name"
                )
                raise errors.invalid(kind.kind, kind.group, "", [cause])
            metadata["name"] = f"{metadata['generateName']}{secrets.token_hex(3)[:5]}"
        if "resourceVersion" in metadata:
            raise errors.bad_request("resourceVersion should not be set on objects to be created")
        self._check_namespace(kind, metadata)
        if kind.status:
            value.pop("status", None)
        self._complete(kind, value)
        node = self.schemas.node(kind)
        for field in (
            "uid",
            "creationTimestamp",
            "generation",
            "managedFields",
            "deletionTimestamp",
            "selfLink",
        ):
            metadata.pop(field, None)
        owned = fields.applied_paths(node, value) if writer.operation == "Apply" else None
        if owned is None:
            owned, _ = fields.changes(node, None, value)
        metadata["uid"] = str(uuid.uuid4())
        metadata["creationTimestamp"] = now()
        if kind.generation:
            metadata["generation"] = 1
        ownership = fields.Ownership([])
        ownership.give(self._entry(kind, writer), owned, set())
        metadata["managedFields"] = ownership.entries()
        self._admit(kind, value, None)
        if self._key(kind, value) in self._objects:
            raise errors.already_exists(kind.plural, kind.group, metadata["name"])
        if kind.kind == "CustomResourceDefinition":
            self._establish(value)
        if not dry_run:
            self._bump(value)
            self._write(kind, None, value)
        return _copy(value)

    def _replace(
        self,
        kind: Kind,
        old: Object,
        value: Object,
        writer: Writer,
        applied: set[fields.Path] | None,
        dry_run: bool,
    ) -> Object:
        """Stores `value` over `old`; `applied` are the fields of a server-side apply."""
        metadata = value["metadata"]
        for field in (
            "uid",
            "creationTimestamp",
            "generation",
            "deletionTimestamp",
            "deletionGracePeriodSeconds",
        ):
            metadata.pop(field, None)
            if field in old["metadata"]:
                metadata[field] = old["metadata"][field]
        metadata["resourceVersion"] = old["metadata"]["resourceVersion"]
        metadata["managedFields"] = metadata.get("managedFields") or old["metadata"].get("managedFields", [])
        if kind.status and writer.subresource != "status":
            value.pop("status", None)
            if "status" in old:
                value["status"] = _copy(old["status"])
        if kind.kind == "Namespace":
            value["spec"] = _copy(old["spec"])
        self._complete(kind, value)
        node = self.schemas.node(kind)
        changed, removed = fields.changes(node, old, value)
        ownership = fields.Ownership(metadata["managedFields"])
        before = ownership.owned(writer.manager, writer.operation, writer.subresource)
        owned = (before | changed) - removed if applied is None else applied
        if owned != before or changed or removed:
            ownership.give(self._entry(kind, writer), owned, changed | removed)
            metadata["managedFields"] = ownership.entries()
        self._admit(kind, value, old)
        if kind.kind == "CustomResourceDefinition":
            self._establish(value)
        if kind.generation and _desired(value) != _desired(old):
            metadata["generation"] = old["metadata"]["generation"] + 1
        if value == old or dry_run:
            return _copy(value)
        self._bump(value)
        self._settle(kind, old, value)
        return _copy(value)

    def _complete(self, kind: Kind, value: Object) -> None:
        """Schema, then the defaults that count as the writer's."""
        if kind.kind in _NEED_SPEC and "spec" not in value:
            cause = Cause("FieldValueRequired", "Required value", "spec")
            raise errors.invalid(kind.kind, kind.group, value["metadata"]["name"], [cause])
        self.schemas.check(kind, value)
        if kind.custom:
            schemas.fill(self.schemas.node(kind), value)
        else:
            rules.check_encoding(kind, value)
            defaults.fill(value)

    def _admit(self, kind: Kind, value: Object, old: Object | None) -> None:
        """What the server chooses, then the rules that the schema does not hold."""
        if not kind.custom:
            defaults.allocate(value, old, self.list)
        causes = rules.check(kind, value, old)
        if causes:
            raise errors.invalid(kind.kind, kind.group, value["metadata"]["name"], causes)

    def _check_namespace(self, kind: Kind, metadata: Mapping[str, Any]) -> None:
        if not kind.namespaced:
            return
        name = metadata["namespace"]
        namespace = self._objects.get(("Namespace", "", name))
        if namespace is None:
            raise errors.not_found("namespaces", "", name)
        if namespace["status"]["phase"] == "Terminating":
            cause = Cause(
                "NamespaceTerminating", f"namespace {name} is being terminated", "metadata.namespace"
            )
            text = f"unable to create new content in namespace {name} because it is being terminated"
            raise errors.forbidden(kind.plural, kind.group, metadata["name"], text, [cause])

    def _entry(self, kind: Kind, writer: Writer) -> Object:
        entry = {
            "manager": writer.manager,
            "operation": writer.operation,
            "apiVersion": kind.api_version,
            "time": now(),
            "fieldsType": "FieldsV1",
        }
        return entry | ({"subresource": writer.subresource} if writer.subresource else {})

    def _establish(self, definition: Object) -> None:
        """Status of a CustomResourceDefinition; refuses one whose kind another group has."""
        spec = definition["spec"]
        name, kind = definition["metadata"]["name"], self.kinds.get(spec["names"]["kind"])
        causes = []
        if name != f"{spec['names']['plural']}.{spec['group']}":
            text = f'Invalid value: "{name}": must be spec.names.plural+"."+spec.group'
            causes.append(Cause("FieldValueInvalid", text, "metadata.name"))
        if sum(version["storage"] for version in spec["versions"]) != 1:
            text = "Invalid value: must have exactly one version marked as storage version"
            causes.append(Cause("FieldValueInvalid", text, "spec.versions"))
        if kind is not None and (not kind.custom or kind.group != spec["group"]):
            text = (
                f'Invalid value: "{kind.kind}": the sandbox serves this kind already, in {kind.api_version}'
            )
            causes.append(Cause("FieldValueInvalid", text, "spec.names.kind"))
        if causes:
            raise errors.invalid("CustomResourceDefinition", "apiextensions.k8s.io", name, causes)
        since = definition["metadata"]["creationTimestamp"]
        definition["status"] = {
            "acceptedNames": spec["names"],
            "storedVersions": [version["name"] for version in spec["versions"] if version["storage"]],
            "conditions": [
                _condition("NamesAccepted", "NoConflicts", "no conflicts found", since),
                _condition(
                    "Established", "InitialNamesAccepted", "the initial names have been accepted", since
                ),
            ],
        }

    def _orphan(self, uid: str) -> None:
        for (kind, _, _), item in list(self._objects.items()):
            owners = item["metadata"].get("ownerReferences", [])
            if any(owner["uid"] == uid for owner in owners):
                new = _copy(item)
                new["metadata"]["ownerReferences"] = [owner for owner in owners if owner["uid"] != uid]
                self._bump(new)
                self._write(self._kind(kind), item, new)

    def _settle(self, kind: Kind, old: Object, new: Object) -> None:
        """Writes `new`, or removes the object when it is being deleted and nothing holds it any more."""
        metadata = new["metadata"]
        held = metadata.get("finalizers") or (kind.kind == "Namespace" and new["spec"].get("finalizers"))
        if "deletionTimestamp" in metadata and not held:
            if kind.kind == "CustomResourceDefinition":
                self._forget(new)
            self._write(kind, old, None)
        elif new != old:
            self._write(kind, old, new)

    def _forget(self, definition: Object) -> None:
        """Deletes all objects of a custom kind, which is not served any longer."""
        kind = self.kinds.get(definition["spec"]["names"]["kind"])
        if kind is not None:
            for (name, _, _), item in list(self._objects.items()):
                if name == kind.kind:
                    self._write(kind, item, None)
        self.kinds.forget(definition)

    def _bump(self, value: Object) -> None:
        self.resource_version += 1
        value["metadata"]["resourceVersion"] = str(self.resource_version)

    def _write(self, kind: Kind, before: Object | None, after: Object | None) -> None:
        if after is not None:
            self._objects[self._key(kind, after)] = after
            if kind.kind == "CustomResourceDefinition":
                self.kinds.define(after)
        elif before is not None:
            del self._objects[self._key(kind, before)]
            self.resource_version += 1
        if kind.kind != "Event":
            self.revision += 1
        self.history.append(Change(self.resource_version, kind.kind, before, after))
        woken, self._woken = self._woken, asyncio.Event()
        woken.set()


def now() -> str:
    """The wall-clock time as Kubernetes writes it, UTC to the second."""
    return datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def owner_reference(owner: Object, *, controller: bool = True) -> Object:
    """An entry of `ownerReferences` that has an object deleted with `owner`."""
    return {
        "apiVersion": owner["apiVersion"],
        "kind": owner["kind"],
        "name": owner["metadata"]["name"],
        "uid": owner["metadata"]["uid"],
        "controller": controller,
        "blockOwnerDeletion": True,
    }


def _owners(value: Object) -> tuple[str, ...]:
    """uids of an object's ownerReferences."""
    return tuple(owner["uid"] for owner in value["metadata"].get("ownerReferences", ()))


def _condition(type_: str, reason: str, message: str, since: str) -> Object:
    return {
        "type": type_,
        "status": "True",
        "reason": reason,
        "message": message,
        "lastTransitionTime": since,
    }


def _desired(value: Object) -> Object:
    return {key: item for key, item in value.items() if key not in ("metadata", "status")}


def _copy(value: Object) -> Object:
    """A deep copy."""
    return {key: _clone(item) for key, item in value.items()}


def _clone(value: Any) -> Any:
    if isinstance(value, dict):
        return _copy(value)
    if isinstance(value, list):
        return [_clone(item) for item in value]
    return value


def _without_nulls(value: Any) -> Any:
    """A deep copy without the entries of objects that are null."""
    if isinstance(value, dict):
        return {key: _without_nulls(item) for key, item in value.items() if item is not None}
    if isinstance(value, list):
        return [_without_nulls(item) for item in value]
    return value

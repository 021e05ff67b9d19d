"""Deployments, StatefulSets, DaemonSets and Jobs get pods, and pods get ready.

No container runs but those of `sandbox.cluster.programs`. Simplifications: a Deployment owns its pods
without a ReplicaSet between, and a StatefulSet or DaemonSet replaces all pods of an old template at once.
Assumed: the time a pod takes to get ready.
"""

from __future__ import annotations

import base64
import hashlib
import json
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from sandbox.clock import Clock
from sandbox.cluster.kinds import Object
from sandbox.cluster.programs import NOT_READY
from sandbox.cluster.storage import ObjectStore, now, owner_reference
from sandbox.tls import Authority

_MANAGER = "kube-controller-manager"
_KUBELET = "kubelet"
_HASH = {
    "Deployment": "pod-template-hash",
    "StatefulSet": "controller-revision-hash",
    "DaemonSet": "controller-revision-hash",
}
"""Label of a pod that tells of which template it is."""


class Workloads:
    """Keeps the pods (and claims) of workloads as their specs say, and their status as the pods are."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._finished: dict[str, float] = {}

    async def reconcile(self, store: ObjectStore) -> float | None:
        """One pass over all workloads; returns when a finished Job is to be deleted."""
        for kind, sync in _SYNC.items():
            for workload in store.list(kind):
                namespace = store.get("Namespace", "", workload["metadata"]["namespace"])
                active = namespace is not None and namespace["status"]["phase"] == "Active"
                if active and "deletionTimestamp" not in workload["metadata"]:
                    status = sync(store, workload)
                    _set_status(store, workload, status, _MANAGER)
        return self._expire(store)

    async def stop(self) -> None:
        """Nothing runs outside the store."""

    def _expire(self, store: ObjectStore) -> float | None:
        """Deletes finished Jobs after their `ttlSecondsAfterFinished`, in platform time."""
        finished: dict[str, float] = {}
        for job in store.list("Job"):
            ttl = job["spec"].get("ttlSecondsAfterFinished")
            if ttl is None or not job["status"].get("succeeded"):
                continue
            uid, moment = job["metadata"]["uid"], self._clock.monotonic()
            due = self._finished.get(uid, moment + ttl)
            if due > moment:
                finished[uid] = due
            else:
                store.delete("Job", job["metadata"]["namespace"], job["metadata"]["name"])
        self._finished = finished
        return min((due - self._clock.monotonic() for due in finished.values()), default=None)


def _nothing_runs(_container: Object) -> bool:
    return False


class Kubelet:
    """Schedules pods and makes them run `delay` platform seconds after all they mount is there.

    Then they are Ready, unless a container really runs: whoever `runs` it says when it is.
    """

    def __init__(self, clock: Clock, *, delay: float, runs: Callable[[Object], bool] = _nothing_runs) -> None:
        self._clock = clock
        self._delay = delay
        self._runs = runs
        self._due: dict[str, float] = {}

    async def reconcile(self, store: ObjectStore) -> float | None:
        """One pass over all pods; returns when the next gets ready."""
        nodes = [node["metadata"]["name"] for node in store.list("Node")]
        due: dict[str, float] = {}
        for pod in store.list("Pod"):
            metadata = pod["metadata"]
            node = pod["spec"].get("nodeName")
            if node is not None and node not in nodes:
                store.delete("Pod", metadata["namespace"], metadata["name"])
            elif pod["status"]["phase"] == "Pending" and self._placed(store, pod, nodes):
                moment = self._clock.monotonic()
                at = self._due.get(metadata["uid"], moment + self._delay)
                if at > moment:
                    due[metadata["uid"]] = at
                else:
                    self._run(store, pod)
        self._due = due
        return min((at - self._clock.monotonic() for at in due.values()), default=None)

    async def stop(self) -> None:
        """Nothing runs outside the store."""

    def _placed(self, store: ObjectStore, pod: Object, nodes: Sequence[str]) -> bool:
        """Gives the pod a node; whether it has one and all that it mounts exists."""
        if not nodes:
            text = "0/0 nodes are available: no nodes available to schedule pods"
            store.event(pod, "Warning", "FailedScheduling", text, "default-scheduler")
            return False
        if "nodeName" not in pod["spec"]:
            load = dict.fromkeys(nodes, 0)
            for other in store.list("Pod"):
                if other["spec"].get("nodeName") in load:
                    load[other["spec"]["nodeName"]] += 1
            pod["spec"]["nodeName"] = min(nodes, key=lambda node: load[node])
            pod = store.update(pod, "kube-scheduler")
            place = f"{pod['metadata']['namespace']}/{pod['metadata']['name']}"
            text = f"Successfully assigned {place} to {pod['spec']['nodeName']}"
            store.event(pod, "Normal", "Scheduled", text, "default-scheduler")
        missing = list(_missing(store, pod))
        for reason, text in missing:
            store.event(pod, "Warning", reason, text, _KUBELET)
        return not missing

    def _run(self, store: ObjectStore, pod: Object) -> None:
        metadata, spec = pod["metadata"], pod["spec"]
        finished = any(owner["kind"] == "Job" for owner in metadata.get("ownerReferences", []))
        if finished:
            for container in spec["containers"]:
                _execute(store, metadata["namespace"], container)
        moment = now()
        condition = {"status": "True", "lastProbeTime": None, "lastTransitionTime": moment}
        state = (
            {"terminated": {"exitCode": 0, "reason": "Completed", "startedAt": moment, "finishedAt": moment}}
            if finished
            else {"running": {"startedAt": moment}}
        )
        starting = [container["name"] for container in spec["containers"] if self._runs(container)]
        ready = condition
        if finished or starting:
            reason = "PodCompleted" if finished else NOT_READY
            ready = {**condition, "status": "False", "reason": reason}
        status = {
            "phase": "Succeeded" if finished else "Running",
            "qosClass": pod["status"].get("qosClass", "BestEffort"),
            "startTime": moment,
            "conditions": [
                {"type": "PodScheduled", **condition},
                {"type": "Initialized", **condition},
                {"type": "ContainersReady", **ready},
                {"type": "Ready", **ready},
            ],
            "containerStatuses": [
                {
                    "name": container["name"],
                    "image": container["image"],
                    "imageID": "",
                    "ready": not finished and container["name"] not in starting,
                    "started": not finished and container["name"] not in starting,
                    "restartCount": 0,
                    "state": state,
                }
                for container in spec["containers"]
            ],
        }
        store.set_status("Pod", metadata["namespace"], metadata["name"], status, _KUBELET)


def _missing(store: ObjectStore, pod: Object) -> Iterator[tuple[str, str]]:
    """Reason and text of an event for each thing that the pod waits for."""
    namespace, spec = pod["metadata"]["namespace"], pod["spec"]
    for volume in spec.get("volumes", []):
        for field, kind, key in (("secret", "Secret", "secretName"), ("configMap", "ConfigMap", "name")):
            source = volume.get(field)
            if source and not source.get("optional") and store.get(kind, namespace, source[key]) is None:
                text = f'{kind.lower()} "{source[key]}" not found'
                yield "FailedMount", f'MountVolume.SetUp failed for volume "{volume["name"]}" : {text}'
        claim = volume.get("persistentVolumeClaim")
        if claim:
            found = store.get("PersistentVolumeClaim", namespace, claim["claimName"])
            if found is None:
                yield "FailedScheduling", f'persistentvolumeclaim "{claim["claimName"]}" not found'
            elif found["status"]["phase"] != "Bound":
                yield "FailedScheduling", f'persistentvolumeclaim "{claim["claimName"]}" is not bound yet'
    for container in [*spec["containers"], *spec.get("initContainers", [])]:
        for kind, source in _environment(container):
            found = store.get(kind, namespace, source["name"])
            if source.get("optional"):
                continue
            if found is None:
                yield "Failed", f'Error: {kind.lower()} "{source["name"]}" not found'
            elif "key" in source and source["key"] not in found.get("data", {}):
                yield (
                    "Failed",
                    f"Error: couldn't find key {source['key']} in {kind} {namespace}/{source['name']}",
                )


def _environment(container: Object) -> Iterator[tuple[str, Object]]:
    for variable in container.get("env", []):
        for field, kind in (("secretKeyRef", "Secret"), ("configMapKeyRef", "ConfigMap")):
            if field in variable.get("valueFrom", {}):
                yield kind, variable["valueFrom"][field]
    for source in container.get("envFrom", []):
        for field, kind in (("secretRef", "Secret"), ("configMapRef", "ConfigMap")):
            if field in source:
                yield kind, source[field]


def _execute(store: ObjectStore, namespace: str, container: Object) -> None:
    """Does what a Job's container does, for the one the sandbox knows: kube-webhook-certgen."""
    arguments = container.get("args", [])
    if "kube-webhook-certgen" not in container["image"] or arguments[:1] != ["create"]:
        return
    options = dict(argument.removeprefix("--").split("=", 1) for argument in arguments[1:])
    name = options["secret-name"]
    if store.get("Secret", namespace, name) is None:
        authority = Authority("nil1")
        pair = authority.server(options["host"].split(","))
        files = {"ca": authority.certificate, "cert": pair.certificate, "key": pair.key}
        data = {key: base64.b64encode(value).decode() for key, value in files.items()}
        metadata = {"name": name, "namespace": namespace}
        store.create(
            {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "data": data}, "kube-webhook-certgen"
        )


def template_hash(template: Mapping[str, Any]) -> str:
    """Ten hex digits that tell pod templates apart."""
    return hashlib.sha256(json.dumps(template, sort_keys=True).encode()).hexdigest()[:10]


def is_ready(pod: Object) -> bool:
    """Whether a pod has the condition Ready."""
    conditions = pod["status"].get("conditions", [])
    return any(item["type"] == "Ready" and item["status"] == "True" for item in conditions)


def _pods(store: ObjectStore, workload: Object) -> list[Object]:
    metadata = workload["metadata"]
    return store.list("Pod", metadata["namespace"], owner=metadata["uid"])


def _create_pod(store: ObjectStore, workload: Object, name: str, **changes: Any) -> None:
    """Creates a pod of the workload's template; `changes` go into its spec."""
    template = workload["spec"]["template"]
    own = template.get("metadata", {})
    labels = dict(own.get("labels", {}))
    if workload["kind"] in _HASH:
        labels[_HASH[workload["kind"]]] = template_hash(template)
    if workload["kind"] == "StatefulSet":
        labels["statefulset.kubernetes.io/pod-name"] = name
    metadata = {
        "name": name,
        "namespace": workload["metadata"]["namespace"],
        "labels": labels,
        "annotations": own.get("annotations", {}),
        "ownerReferences": [owner_reference(workload)],
    }
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": {**template["spec"], **changes}}
    store.create(pod, _MANAGER)


def _delete(store: ObjectStore, pods: Sequence[Object]) -> None:
    for pod in pods:
        store.delete("Pod", pod["metadata"]["namespace"], pod["metadata"]["name"])


def _split(workload: Object, pods: Sequence[Object]) -> tuple[list[Object], list[Object]]:
    """Pods of the current template, and those of older ones."""
    label, current = _HASH[workload["kind"]], template_hash(workload["spec"]["template"])
    new = [pod for pod in pods if pod["metadata"].get("labels", {}).get(label) == current]
    return new, [pod for pod in pods if pod not in new]


def _random() -> str:
    return secrets.token_hex(3)[:5]


def _deployment(store: ObjectStore, workload: Object) -> Object:
    metadata, spec = workload["metadata"], workload["spec"]
    wanted = spec["replicas"]
    new, old = _split(workload, _pods(store, workload))
    if spec["strategy"]["type"] == "Recreate" and old:
        _delete(store, old)
    else:
        for _ in range(len(new), wanted):
            _create_pod(store, workload, f"{metadata['name']}-{template_hash(spec['template'])}-{_random()}")
        _delete(store, new[wanted:])
        if sum(map(is_ready, new)) >= wanted:
            _delete(store, old)
    new, old = _split(workload, _pods(store, workload))
    ready = sum(map(is_ready, [*new, *old]))
    updated = len(new)
    available = ready >= wanted
    complete = available and updated == wanted and not old and sum(map(is_ready, new)) == wanted
    return {
        "observedGeneration": metadata["generation"],
        "replicas": len(new) + len(old),
        "updatedReplicas": updated,
        "readyReplicas": ready,
        "availableReplicas": ready,
        "unavailableReplicas": max(0, wanted - ready),
        "conditions": [
            _condition(
                "Available",
                available,
                "MinimumReplicasAvailable" if available else "MinimumReplicasUnavailable",
                f"Deployment {'has' if available else 'does not have'} minimum availability.",
            ),
            _condition(
                "Progressing",
                True,
                "NewReplicaSetAvailable" if complete else "ReplicaSetUpdated",
                f"Pods of the current template {'are available' if complete else 'start'}.",
            ),
        ],
    }


def _stateful_set(store: ObjectStore, workload: Object) -> Object:
    metadata, spec = workload["metadata"], workload["spec"]
    name, wanted = metadata["name"], spec["replicas"]
    _, old = _split(workload, _pods(store, workload))
    _delete(store, old)
    pods = {pod["metadata"]["name"]: pod for pod in _pods(store, workload)}
    names = [f"{name}-{ordinal}" for ordinal in range(wanted)]
    _delete(store, [pod for pod_name, pod in pods.items() if pod_name not in names])
    for pod_name in names:
        if pod_name not in pods:
            _create_pod(store, workload, pod_name, volumes=_claimed(store, workload, pod_name))
        if spec["podManagementPolicy"] == "OrderedReady" and not (
            pod_name in pods and is_ready(pods[pod_name])
        ):
            break
    pods = {pod["metadata"]["name"]: pod for pod in _pods(store, workload)}
    ready = sum(map(is_ready, pods.values()))
    revision = f"{name}-{template_hash(spec['template'])}"
    return {
        "observedGeneration": metadata["generation"],
        "replicas": len(pods),
        "readyReplicas": ready,
        "availableReplicas": ready,
        "currentReplicas": len(pods),
        "updatedReplicas": len(pods),
        "currentRevision": revision,
        "updateRevision": revision,
        "collisionCount": 0,
    }


def _claimed(store: ObjectStore, workload: Object, pod: str) -> list[Object]:
    """Makes the claims of a StatefulSet's pod, which stay when it is deleted; returns the pod's volumes."""
    metadata, spec = workload["metadata"], workload["spec"]
    templates = spec.get("volumeClaimTemplates", [])
    mounted = {template["metadata"]["name"] for template in templates}
    volumes = [item for item in spec["template"]["spec"].get("volumes", []) if item["name"] not in mounted]
    for template in templates:
        own = template["metadata"]
        name = f"{own['name']}-{pod}"
        volumes.append({"name": own["name"], "persistentVolumeClaim": {"claimName": name}})
        if store.get("PersistentVolumeClaim", metadata["namespace"], name) is None:
            labels = own.get("labels", {}) | spec["selector"].get("matchLabels", {})
            claim: Object = {"name": name, "namespace": metadata["namespace"], "labels": labels}
            claim["annotations"] = own.get("annotations", {})
            if spec["persistentVolumeClaimRetentionPolicy"]["whenDeleted"] == "Delete":
                claim["ownerReferences"] = [owner_reference(workload)]
            value = {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": claim}
            store.create({**value, "spec": template["spec"]}, _MANAGER)
    return volumes


def _daemon_set(store: ObjectStore, workload: Object) -> Object:
    metadata = workload["metadata"]
    nodes = [node["metadata"]["name"] for node in store.list("Node")]
    _, old = _split(workload, _pods(store, workload))
    _delete(store, old)
    taken = {pod["spec"].get("nodeName") for pod in _pods(store, workload)}
    for node in nodes:
        if node not in taken:
            _create_pod(store, workload, f"{metadata['name']}-{_random()}", nodeName=node)
    pods = _pods(store, workload)
    ready = sum(map(is_ready, pods))
    return {
        "observedGeneration": metadata["generation"],
        "desiredNumberScheduled": len(nodes),
        "currentNumberScheduled": len(pods),
        "updatedNumberScheduled": len(pods),
        "numberReady": ready,
        "numberAvailable": ready,
        "numberUnavailable": len(nodes) - ready,
        "numberMisscheduled": 0,
    }


def _job(store: ObjectStore, workload: Object) -> Object:
    before = workload["status"]
    wanted = workload["spec"]["completions"]
    if before.get("succeeded", 0) >= wanted:
        return dict(before)
    pods = _pods(store, workload)
    if not workload["spec"]["suspend"]:
        for _ in range(len(pods), wanted):
            _create_pod(store, workload, f"{workload['metadata']['name']}-{_random()}")
    succeeded = sum(pod["status"]["phase"] == "Succeeded" for pod in pods)
    status: Object = {
        "startTime": before.get("startTime", now()),
        "active": wanted - succeeded,
        "succeeded": succeeded,
        "ready": 0,
    }
    if succeeded >= wanted:
        text = "Reached expected number of succeeded pods"
        status["completionTime"] = now()
        status["conditions"] = [
            _condition("SuccessCriteriaMet", True, "CompletionsReached", text),
            _condition("Complete", True, "CompletionsReached", text),
        ]
    return status


_SYNC: Mapping[str, Callable[[ObjectStore, Object], Object]] = {
    "Deployment": _deployment,
    "StatefulSet": _stateful_set,
    "DaemonSet": _daemon_set,
    "Job": _job,
}

_NOT_ZERO = frozenset(
    f"{prefix}eplicas" for prefix in ("r", "updatedR", "readyR", "availableR", "unavailableR")
) | {"active", "succeeded", "numberAvailable", "numberUnavailable", "updatedNumberScheduled"}
"""Numbers that a status leaves out when they are zero; a StatefulSet's has them all."""


def _condition(type_: str, holds: bool, reason: str, message: str) -> Object:
    return {"type": type_, "status": "True" if holds else "False", "reason": reason, "message": message}


def _set_status(store: ObjectStore, workload: Object, status: Object, manager: str) -> None:
    """Writes a status when it differs; conditions that say the same keep their times."""
    if workload["kind"] != "StatefulSet":
        status = {key: item for key, item in status.items() if item != 0 or key not in _NOT_ZERO}
    before = workload["status"]
    known = {item["type"]: item for item in before.get("conditions", [])}
    for condition in status.get("conditions", []):
        old = known.get(condition["type"], {})
        same = all(old.get(key) == condition[key] for key in ("status", "reason", "message"))
        moved = old.get("lastTransitionTime", now()) if old.get("status") == condition["status"] else now()
        condition["lastTransitionTime"] = moved
        time = "lastProbeTime" if workload["kind"] == "Job" else "lastUpdateTime"
        condition[time] = old[time] if same else now()
    if status != before:
        metadata = workload["metadata"]
        store.set_status(workload["kind"], metadata["namespace"], metadata["name"], status, manager)

"""What keeps an object from being ready. Pure: each function looks at one object from the API server."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from sandbox.plugins.kubernetes.api import Manifest


def pending(live: Manifest) -> str | None:
    """Why the object is not ready yet, for a user to read; None when it is or its kind has no such state.

    The kinds and conditions are those that both the real plugin and Helm wait for (await/awaiters.go,
    helm pkg/kube/ready.go). A claim's storage class is the caller's business (`claim_pending`).
    """
    check = _CHECKS.get((live["apiVersion"], live["kind"]))
    return check(live) if check else None


def claim_pending(live: Manifest, binding_mode: str) -> str | None:
    """Why a claim is not ready; with `WaitForFirstConsumer` one that no pod uses yet is ready."""
    phase = _status(live).get("phase")
    if phase == "Bound" or (binding_mode == "WaitForFirstConsumer" and phase == "Pending"):
        return None
    return f"the claim is {phase or 'new'}, not Bound"


def _status(live: Manifest) -> dict[str, Any]:
    return live.get("status") or {}


def _observed(live: Manifest) -> bool:
    generation: int = live["metadata"].get("generation", 0)
    return bool(_status(live).get("observedGeneration", 0) >= generation)


def _namespace(live: Manifest) -> str | None:
    phase = _status(live).get("phase")
    return None if phase == "Active" else f"the namespace is {phase or 'new'}, not Active"


def _service(live: Manifest) -> str | None:
    if live["spec"].get("type") != "LoadBalancer" or live["spec"].get("externalIPs"):
        return None
    if (_status(live).get("loadBalancer") or {}).get("ingress"):
        return None
    return "Service was not allocated an IP address; does your cloud provider support this?"


def _claim(live: Manifest) -> str | None:
    return claim_pending(live, "Immediate")


def _replicas(ready_field: str) -> Callable[[Manifest], str | None]:
    def check(live: Manifest) -> str | None:
        wanted = live["spec"].get("replicas", 1)
        ready = _status(live).get(ready_field, 0)
        if not _observed(live):
            return "the controller has not seen the change yet"
        if _status(live).get("updatedReplicas", 0) < wanted or ready < wanted:
            return f"{ready} of {wanted} replicas are ready{_reasons(live)}"
        return None

    return check


def _daemon_set(live: Manifest) -> str | None:
    status = _status(live)
    wanted = status.get("desiredNumberScheduled", 0)
    ready = status.get("numberReady", 0)
    if not _observed(live):
        return "the controller has not seen the change yet"
    if status.get("updatedNumberScheduled", 0) < wanted or ready < wanted:
        return f"{ready} of {wanted} pods are ready"
    return None


def _job(live: Manifest) -> str | None:
    return None if _condition(live, "Complete") else f"the job has not completed{_reasons(live)}"


def _pod(live: Manifest) -> str | None:
    if _status(live).get("phase") == "Succeeded" or _condition(live, "Ready"):
        return None
    return f"the pod is {_status(live).get('phase') or 'new'}, not Ready"


def _definition(live: Manifest) -> str | None:
    return None if _condition(live, "Established") else "the definition is not established"


def failed(live: Manifest) -> str | None:
    """Why a Job has failed for good; None while there is hope."""
    for condition in _status(live).get("conditions") or []:
        if condition["type"] == "Failed" and condition["status"] == "True":
            return f"job failed: {condition.get('reason', '')}: {condition.get('message', '')}"
    return None


def _condition(live: Manifest, wanted: str) -> bool:
    conditions = _status(live).get("conditions") or []
    return any(condition["type"] == wanted and condition["status"] == "True" for condition in conditions)


def _reasons(live: Manifest) -> str:
    """Messages of the conditions that are False, as an addition to a sentence."""
    messages = [
        f"[{condition.get('reason', condition['type'])}] {condition['message']}"
        for condition in _status(live).get("conditions") or []
        if condition["status"] != "True" and condition.get("message")
    ]
    return f" ({'; '.join(messages)})" if messages else ""


_CHECKS: Final[dict[tuple[str, str], Callable[[Manifest], str | None]]] = {
    ("v1", "Namespace"): _namespace,
    ("v1", "Service"): _service,
    ("v1", "PersistentVolumeClaim"): _claim,
    ("v1", "Pod"): _pod,
    ("apps/v1", "Deployment"): _replicas("availableReplicas"),
    ("apps/v1", "StatefulSet"): _replicas("readyReplicas"),
    ("apps/v1", "DaemonSet"): _daemon_set,
    ("batch/v1", "Job"): _job,
    ("apiextensions.k8s.io/v1", "CustomResourceDefinition"): _definition,
}

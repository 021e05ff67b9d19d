"""What the API server adds to built-in objects.

Two moments matter, because fields set before field ownership is computed belong to the writer (as recorded
`managedFields` show) and those set after belong to nobody: `fill` is the first, `allocate` the second.
"""

from __future__ import annotations

import base64
import random
from collections.abc import Callable, Collection, Mapping
from typing import Any

from sandbox.cluster.kinds import Object

DEFAULT_STORAGE_CLASS = "storageclass.kubernetes.io/is-default-class"
"""Annotation of the StorageClass that claims without a class get."""


def fill(value: Object) -> None:
    """Sets the documented defaults of a built-in object in place."""
    filler = _FILLERS.get(value["kind"])
    if filler is not None:
        filler(value)


def _namespace(value: Object) -> None:
    value["metadata"].setdefault("labels", {})["kubernetes.io/metadata.name"] = value["metadata"]["name"]


def _secret(value: Object) -> None:
    for key, text in value.pop("stringData", {}).items():
        value.setdefault("data", {})[key] = _base64(text)
    value.setdefault("type", "Opaque")


def _base64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def _service(value: Object) -> None:
    spec = value.setdefault("spec", {})
    spec.setdefault("type", "ClusterIP")
    spec.setdefault("sessionAffinity", "None")
    for port in spec.get("ports", []):
        port.setdefault("protocol", "TCP")
        port.setdefault("targetPort", port["port"])
    if spec["type"] != "ExternalName":
        spec.setdefault("internalTrafficPolicy", "Cluster")
    if spec["type"] in ("LoadBalancer", "NodePort"):
        spec.setdefault("externalTrafficPolicy", "Cluster")
    if spec["type"] == "LoadBalancer":
        spec.setdefault("allocateLoadBalancerNodePorts", True)


def _claim(value: Object) -> None:
    value.setdefault("spec", {}).setdefault("volumeMode", "Filesystem")


def _volume(value: Object) -> None:
    value["spec"].setdefault("volumeMode", "Filesystem")
    value["spec"].setdefault("persistentVolumeReclaimPolicy", "Retain")


def _deployment(value: Object) -> None:
    spec = value["spec"]
    _workload(spec)
    spec.setdefault("replicas", 1)
    spec.setdefault("progressDeadlineSeconds", 600)
    strategy = spec.setdefault("strategy", {})
    strategy.setdefault("type", "RollingUpdate")
    if strategy["type"] == "RollingUpdate":
        rolling = strategy.setdefault("rollingUpdate", {})
        rolling.setdefault("maxUnavailable", "25%")
        rolling.setdefault("maxSurge", "25%")


def _stateful_set(value: Object) -> None:
    spec = value["spec"]
    _workload(spec)
    spec.setdefault("replicas", 1)
    spec.setdefault("podManagementPolicy", "OrderedReady")
    strategy = spec.setdefault("updateStrategy", {})
    strategy.setdefault("type", "RollingUpdate")
    if strategy["type"] == "RollingUpdate":
        strategy.setdefault("rollingUpdate", {}).setdefault("partition", 0)
    kept = spec.setdefault("persistentVolumeClaimRetentionPolicy", {})
    kept.setdefault("whenDeleted", "Retain")
    kept.setdefault("whenScaled", "Retain")
    for template in spec.get("volumeClaimTemplates", []):
        template.setdefault("apiVersion", "v1")
        template.setdefault("kind", "PersistentVolumeClaim")
        template.setdefault("spec", {}).setdefault("volumeMode", "Filesystem")
        template["status"] = {"phase": "Pending"}


def _daemon_set(value: Object) -> None:
    spec = value["spec"]
    _workload(spec)
    strategy = spec.setdefault("updateStrategy", {})
    strategy.setdefault("type", "RollingUpdate")
    if strategy["type"] == "RollingUpdate":
        rolling = strategy.setdefault("rollingUpdate", {})
        rolling.setdefault("maxUnavailable", 1)
        rolling.setdefault("maxSurge", 0)


def _job(value: Object) -> None:
    spec = value["spec"]
    for field, default in (("parallelism", 1), ("completions", 1), ("backoffLimit", 6), ("suspend", False)):
        spec.setdefault(field, default)
    spec.setdefault("completionMode", "NonIndexed")
    spec.setdefault("podReplacementPolicy", "TerminatingOrFailed")
    _pod_spec(spec["template"].setdefault("spec", {}))


def _workload(spec: Object) -> None:
    spec.setdefault("revisionHistoryLimit", 10)
    _pod_spec(spec["template"].setdefault("spec", {}))


def _pod(value: Object) -> None:
    _pod_spec(value["spec"])


def _pod_spec(spec: Object) -> None:
    spec.setdefault("restartPolicy", "Always")
    spec.setdefault("terminationGracePeriodSeconds", 30)
    spec.setdefault("dnsPolicy", "ClusterFirst")
    spec.setdefault("schedulerName", "default-scheduler")
    spec.setdefault("securityContext", {})
    if "serviceAccountName" in spec:
        spec.setdefault("serviceAccount", spec["serviceAccountName"])
    for container in [*spec.get("containers", []), *spec.get("initContainers", [])]:
        _container(container)
    for volume in spec.get("volumes", []):
        if volume.keys() == {"name"}:
            volume["emptyDir"] = {}
        for source in ("configMap", "secret", "projected", "downwardAPI"):
            if source in volume:
                volume[source].setdefault("defaultMode", 420)


def _container(container: Object) -> None:
    container.setdefault("resources", {})
    container.setdefault("terminationMessagePath", "/dev/termination-log")
    container.setdefault("terminationMessagePolicy", "File")
    tag = str(container.get("image", "")).rpartition("/")[2].partition(":")[2]
    container.setdefault("imagePullPolicy", "Always" if tag in ("", "latest") else "IfNotPresent")
    for port in container.get("ports", []):
        port.setdefault("protocol", "TCP")
    for variable in container.get("env", []):
        reference = variable.get("valueFrom", {}).get("fieldRef")
        if reference is not None:
            reference.setdefault("apiVersion", "v1")
    for name in ("livenessProbe", "readinessProbe", "startupProbe"):
        probe = container.get(name)
        if probe is None:
            continue
        if "httpGet" in probe:
            probe["httpGet"].setdefault("scheme", "HTTP")
            probe["httpGet"].setdefault("path", "/")
        for field, default in (("timeoutSeconds", 1), ("periodSeconds", 10), ("successThreshold", 1)):
            probe.setdefault(field, default)
        probe.setdefault("failureThreshold", 3)


def _binding(value: Object) -> None:
    value["roleRef"].setdefault("apiGroup", "rbac.authorization.k8s.io")
    for subject in value.get("subjects", []):
        if subject["kind"] != "ServiceAccount":
            subject.setdefault("apiGroup", "rbac.authorization.k8s.io")


def _webhooks(value: Object) -> None:
    for webhook in value.get("webhooks", []):
        webhook.setdefault("failurePolicy", "Fail")
        webhook.setdefault("matchPolicy", "Equivalent")
        webhook.setdefault("namespaceSelector", {})
        webhook.setdefault("objectSelector", {})
        webhook.setdefault("timeoutSeconds", 10)
        if value["kind"] == "MutatingWebhookConfiguration":
            webhook.setdefault("reinvocationPolicy", "Never")
        service = webhook["clientConfig"].get("service")
        if service is not None:
            service.setdefault("port", 443)
        for rule in webhook.get("rules", []):
            rule.setdefault("scope", "*")


def _network_policy(value: Object) -> None:
    spec = value.setdefault("spec", {})
    spec.setdefault("policyTypes", ["Ingress", "Egress"] if spec.get("egress") else ["Ingress"])
    for rule in [*spec.get("ingress", ()), *spec.get("egress", ())]:
        for port in rule.get("ports", ()):
            port.setdefault("protocol", "TCP")


def _storage_class(value: Object) -> None:
    value.setdefault("reclaimPolicy", "Delete")
    value.setdefault("volumeBindingMode", "Immediate")


def _definition(value: Object) -> None:
    names = value["spec"]["names"]
    names.setdefault("singular", names["kind"].lower())
    names.setdefault("listKind", f"{names['kind']}List")
    value["spec"].setdefault("conversion", {"strategy": "None"})


_FILLERS: Mapping[str, Callable[[Object], None]] = {
    "Namespace": _namespace,
    "Secret": _secret,
    "Service": _service,
    "PersistentVolumeClaim": _claim,
    "PersistentVolume": _volume,
    "Deployment": _deployment,
    "StatefulSet": _stateful_set,
    "DaemonSet": _daemon_set,
    "Job": _job,
    "Pod": _pod,
    "RoleBinding": _binding,
    "ClusterRoleBinding": _binding,
    "MutatingWebhookConfiguration": _webhooks,
    "ValidatingWebhookConfiguration": _webhooks,
    "NetworkPolicy": _network_policy,
    "StorageClass": _storage_class,
    "CustomResourceDefinition": _definition,
}


_FIRST_STATUS: Mapping[str, Mapping[str, int]] = {
    "Deployment": {},
    "Job": {},
    "StatefulSet": {"replicas": 0, "availableReplicas": 0},
    "DaemonSet": dict.fromkeys(
        ("currentNumberScheduled", "numberMisscheduled", "desiredNumberScheduled", "numberReady"), 0
    ),
}
"""Status of a workload that no controller has seen yet."""


def allocate(value: Object, old: Object | None, others: Callable[[str], Collection[Object]]) -> None:
    """Sets in place what the server chooses itself: addresses, node ports, classes, finalizers, first status.

    `others` gives the objects of a kind that are there; `old` is the stored version in an update.
    """
    kind = value["kind"]
    if kind == "Service":
        _allocate_service(value, old, others("Service"))
    elif old is not None:
        return
    elif kind in _FIRST_STATUS:
        value["status"] = dict(_FIRST_STATUS[kind])
        if kind == "Job":
            _own_selector(value)
    elif kind == "Namespace":
        value.setdefault("spec", {})["finalizers"] = ["kubernetes"]
        value["status"] = {"phase": "Active"}
    elif kind == "PersistentVolumeClaim":
        _add_finalizer(value, "kubernetes.io/pvc-protection")
        value["status"] = {"phase": "Pending"}
        default = [item for item in others("StorageClass") if _is_default(item)]
        if default:
            value["spec"].setdefault("storageClassName", default[0]["metadata"]["name"])
    elif kind == "PersistentVolume":
        _add_finalizer(value, "kubernetes.io/pv-protection")
        value["status"] = {"phase": "Pending"}
    elif kind == "Pod":
        value["spec"].setdefault("serviceAccountName", "default")
        value["status"] = {"phase": "Pending", "qosClass": "BestEffort"}


def _own_selector(job: Object) -> None:
    """A Job selects its pods by its own uid."""
    if "selector" in job["spec"]:
        return
    uid = job["metadata"]["uid"]
    job["spec"]["selector"] = {"matchLabels": {"batch.kubernetes.io/controller-uid": uid}}
    labels = job["spec"]["template"].setdefault("metadata", {}).setdefault("labels", {})
    labels["batch.kubernetes.io/controller-uid"] = uid
    labels["batch.kubernetes.io/job-name"] = job["metadata"]["name"]


def _is_default(storage_class: Object) -> bool:
    return bool(storage_class["metadata"].get("annotations", {}).get(DEFAULT_STORAGE_CLASS) == "true")


def _add_finalizer(value: Object, finalizer: str) -> None:
    finalizers = value["metadata"].setdefault("finalizers", [])
    if finalizer not in finalizers:
        finalizers.append(finalizer)


def _allocate_service(value: Object, old: Object | None, services: Collection[Object]) -> None:
    spec = value["spec"]
    if old is None:
        value["status"] = {"loadBalancer": {}}
    if spec["type"] == "ExternalName":
        return
    before = old["spec"] if old is not None else {}
    for field in ("clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"):
        if field in before:
            spec.setdefault(field, before[field])
    used = {service["spec"].get("clusterIP") for service in services}
    spec.setdefault("clusterIP", _address(used))
    spec.setdefault("clusterIPs", [spec["clusterIP"]])
    spec.setdefault("ipFamilies", ["IPv4"])
    spec.setdefault("ipFamilyPolicy", "SingleStack")
    if spec["type"] == "ClusterIP":
        for port in spec.get("ports", []):
            port.pop("nodePort", None)
        return
    kept = {(port["port"], port["protocol"]): port.get("nodePort") for port in before.get("ports", [])}
    taken = {port.get("nodePort") for service in services for port in service["spec"].get("ports", [])}
    for port in spec.get("ports", []):
        node_port = kept.get((port["port"], port["protocol"])) or _node_port(taken)
        port.setdefault("nodePort", node_port)
        taken.add(port["nodePort"])


def _address(used: Collection[Any]) -> str:
    """A free address of MKS's range for services, 10.3.0.0/16."""
    while True:
        address = f"10.3.{random.randint(1, 254)}.{random.randint(1, 254)}"  # noqa: S311
        if address not in used:
            return address


def _node_port(used: Collection[Any]) -> int:
    while True:
        port = random.randint(30000, 32767)  # noqa: S311
        if port not in used:
            return port

"""The sub-charts kube-state-metrics and prometheus-node-exporter."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from sandbox.cluster.chart.release import (
    MONITORING,
    RBAC,
    Release,
    binding,
    endpoint,
    present,
    resource,
    rule,
    service_account,
)
from sandbox.cluster.chart.section import Monitor
from sandbox.cluster.kinds import Object

_NOBODY = {"fsGroup": 65534, "runAsGroup": 65534, "runAsNonRoot": True, "runAsUser": 65534}
_COLLECTED = {
    "": (
        "configmaps", "limitranges", "namespaces", "nodes", "persistentvolumeclaims", "persistentvolumes",
        "pods", "replicationcontrollers", "resourcequotas", "secrets", "services",
    ),
    "admissionregistration.k8s.io": ("mutatingwebhookconfigurations", "validatingwebhookconfigurations"),
    "apps": ("daemonsets", "deployments", "replicasets", "statefulsets"),
    "autoscaling": ("horizontalpodautoscalers",),
    "batch": ("cronjobs", "jobs"),
    "certificates.k8s.io": ("certificatesigningrequests",),
    "coordination.k8s.io": ("leases",),
    "discovery.k8s.io": ("endpointslices",),
    "networking.k8s.io": ("ingresses", "networkpolicies"),
    "policy": ("poddisruptionbudgets",),
    "storage.k8s.io": ("storageclasses", "volumeattachments"),
}  # fmt: skip


def kube_state_metrics(release: Release) -> Iterator[Object]:
    """kube-state-metrics, unless `kubeStateMetrics.enabled` is off."""
    if not release.values.kube_state_metrics.enabled:
        return
    values = release.values.kube_state_metrics_values
    chart = "kube-state-metrics"
    name, namespace = release.subchart(chart), release.namespace
    labels = _labels(release, chart, "8.4.0", "2.20.0") | values.custom_labels
    selector = {"app.kubernetes.io/name": chart, "app.kubernetes.io/instance": release.name}
    collected = sorted(plural for plurals in _COLLECTED.values() for plural in plurals)
    arguments = ["--port=8080", f"--resources={','.join(collected)}", *values.extra_args]
    for flag, allowed in (
        ("--metric-labels-allowlist", values.metric_labels_allowlist),
        ("--metric-allowlist", values.metric_allowlist),
        ("--metric-denylist", values.metric_denylist),
    ):
        if allowed:
            arguments.append(f"{flag}={','.join(allowed)}")
    container = {
        "name": chart,
        "image": "registry.k8s.io/kube-state-metrics/kube-state-metrics:v2.20.0",
        "args": arguments,
        "ports": [{"name": "http", "containerPort": 8080}, {"name": "metrics", "containerPort": 8081}],
        "livenessProbe": {"httpGet": {"path": "/livez", "port": "http"}},
        "readinessProbe": {"httpGet": {"path": "/readyz", "port": "metrics"}},
        "resources": values.resources,
    }
    yield resource(
        "apps/v1",
        "Deployment",
        name,
        namespace,
        labels,
        spec={
            "replicas": values.replicas,
            "revisionHistoryLimit": 10,
            "strategy": {"type": "RollingUpdate"},
            "selector": {"matchLabels": selector},
            "template": {
                "metadata": present(
                    {"labels": labels | values.pod_labels, "annotations": values.pod_annotations}
                ),
                "spec": {
                    "serviceAccountName": name,
                    "securityContext": _NOBODY,
                    "containers": [container],
                    **_placement(values),
                },
            },
        },
    )
    port = {"name": "http", "protocol": "TCP", "port": values.service.port, "targetPort": "http"}
    yield _service(name, namespace, labels, values.service.annotations, port, selector)
    yield service_account(name, namespace, labels, {}, True)
    if release.values.global_.rbac.create:
        rules = [rule([group], plurals, ["list", "watch"]) for group, plurals in _COLLECTED.items()]
        yield resource(f"{RBAC}/v1", "ClusterRole", name, None, labels, rules=rules)
        yield binding("ClusterRoleBinding", name, None, labels, name, (namespace, name))
    monitor = values.prometheus.monitor
    if monitor.enabled:
        yield _monitor(
            name,
            namespace,
            labels | monitor.additional_labels,
            jobLabel="app.kubernetes.io/name",
            selector={"matchLabels": selector},
            endpoints=[{"port": "http", "honorLabels": True}],
        )


def node_exporter(release: Release) -> Iterator[Object]:
    """node-exporter, unless `nodeExporter.enabled` is off."""
    if not release.values.node_exporter.enabled:
        return
    values = release.values.node_exporter_values
    chart = "prometheus-node-exporter"
    name, namespace = release.subchart(chart), release.namespace
    labels = _labels(release, chart, "4.56.1", "1.12.1")
    selector = {"app.kubernetes.io/name": chart, "app.kubernetes.io/instance": release.name}
    probe = {"httpGet": {"path": "/", "port": "http-metrics"}}
    host = {"proc": "/proc", "sys": "/sys", "root": "/"}
    container = {
        "name": "node-exporter",
        "image": "quay.io/prometheus/node-exporter:v1.12.1-distroless",
        "args": [f"--web.listen-address=:{values.service.port}", *values.extra_args],
        "ports": [{"name": "http-metrics", "containerPort": values.service.port, "protocol": "TCP"}],
        "livenessProbe": probe,
        "readinessProbe": probe,
        "resources": values.resources,
        "volumeMounts": [
            {"name": volume, "mountPath": f"/host/{volume}", "readOnly": True} for volume in host
        ],
    }
    yield resource(
        "apps/v1",
        "DaemonSet",
        name,
        namespace,
        labels,
        spec={
            "revisionHistoryLimit": 10,
            "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 1}},
            "selector": {"matchLabels": selector},
            "template": {
                "metadata": {"labels": labels | values.pod_labels, "annotations": values.pod_annotations},
                "spec": {
                    "serviceAccountName": name,
                    "automountServiceAccountToken": False,
                    "securityContext": _NOBODY,
                    "hostNetwork": values.host_network,
                    "hostPID": True,
                    "containers": [container],
                    "volumes": [
                        {"name": volume, "hostPath": {"path": path}} for volume, path in host.items()
                    ],
                    **_placement(values),
                },
            },
        },
    )
    port = {
        "name": "http-metrics",
        "protocol": "TCP",
        "port": values.service.port,
        "targetPort": values.service.target_port,
    }
    job = {"jobLabel": "node-exporter"}
    yield _service(name, namespace, labels | job, values.service.annotations, port, selector)
    yield service_account(name, namespace, labels, {}, False)
    monitor = values.prometheus.monitor
    if monitor.enabled:
        scraping = Monitor(
            interval=monitor.interval,
            relabelings=monitor.relabelings,
            metric_relabelings=monitor.metric_relabelings,
        )
        yield _monitor(
            name,
            namespace,
            labels | monitor.additional_labels,
            jobLabel="jobLabel",
            selector={"matchLabels": selector},
            attachMetadata={"node": False},
            endpoints=[endpoint(scraping, "http-metrics", scheme="http")],
        )


def _labels(release: Release, chart: str, version: str, app_version: str) -> Object:
    return {
        "helm.sh/chart": f"{chart}-{version}",
        "app.kubernetes.io/managed-by": "Helm",
        "app.kubernetes.io/component": "metrics",
        "app.kubernetes.io/part-of": chart,
        "app.kubernetes.io/name": chart,
        "app.kubernetes.io/instance": release.name,
        "app.kubernetes.io/version": app_version,
        "release": release.name,
    }


def _placement(values: Any) -> Object:
    return present(
        {"nodeSelector": values.node_selector, "tolerations": values.tolerations, "affinity": values.affinity}
    )


def _service(
    name: str, namespace: str, labels: Object, annotations: Object, port: Object, selector: Object
) -> Object:
    spec = {"type": "ClusterIP", "ports": [port], "selector": selector}
    return resource("v1", "Service", name, namespace, labels, annotations, spec=spec)


def _monitor(name: str, namespace: str, labels: Object, **spec: Any) -> Object:
    return resource(MONITORING, "ServiceMonitor", name, namespace, labels, spec=spec)

"""Values of the sub-charts kube-state-metrics and prometheus-node-exporter."""

from __future__ import annotations

from typing import Any

from sandbox.cluster.chart.section import Free, Section


class ExporterMonitor(Section):
    """ServiceMonitor of an exporter of a sub-chart."""

    enabled: bool = True
    additional_labels: Free = {}


class KubeStateMetricsMonitors(Section):
    """How Prometheus watches kube-state-metrics."""

    monitor: ExporterMonitor = ExporterMonitor()


class ExporterService(Section):
    """The Service of an exporter."""

    port: int = 0
    annotations: Free = {}


class KubeStateMetricsValues(Section):
    """Values of the sub-chart kube-state-metrics."""

    replicas: int = 1
    resources: Free = {}
    node_selector: Free = {}
    tolerations: list[Any] = []
    affinity: Free = {}
    extra_args: list[str] = []
    pod_annotations: Free = {}
    pod_labels: Free = {}
    custom_labels: Free = {}
    metric_labels_allowlist: list[str] = []
    metric_allowlist: list[str] = []
    metric_denylist: list[str] = []
    service: ExporterService = ExporterService(port=8080)
    prometheus: KubeStateMetricsMonitors = KubeStateMetricsMonitors()


class NodeExporterMonitor(ExporterMonitor):
    """ServiceMonitor of node-exporter."""

    interval: str = ""
    relabelings: list[Any] = []
    metric_relabelings: list[Any] = []


class NodeExporterMonitors(Section):
    """How Prometheus watches node-exporter."""

    monitor: NodeExporterMonitor = NodeExporterMonitor()


class NodeExporterService(ExporterService):
    """The Service of node-exporter."""

    target_port: int = 9100


class NodeExporterValues(Section):
    """Values of the sub-chart prometheus-node-exporter."""

    resources: Free = {}
    node_selector: Free = {"kubernetes.io/os": "linux"}
    tolerations: list[Any] = [{"effect": "NoSchedule", "operator": "Exists"}]
    affinity: Free = {}
    extra_args: list[str] = [
        r"--collector.filesystem.mount-points-exclude="
        r"^/(dev|proc|sys|run/containerd/.+|var/lib/docker/.+|var/lib/kubelet/.+)($|/)"
    ]
    host_network: bool = True
    pod_annotations: Free = {"cluster-autoscaler.kubernetes.io/safe-to-evict": "true"}
    pod_labels: Free = {"jobLabel": "node-exporter"}
    service: NodeExporterService = NodeExporterService(
        port=9100, annotations={"prometheus.io/scrape": "true"}
    )
    prometheus: NodeExporterMonitors = NodeExporterMonitors()

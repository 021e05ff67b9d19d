"""The default rules and dashboards of the stack: which objects there are, and when.

Their contents are not copied. A rule object has its group without rules, save `general.rules`, which has a
Watchdog in our own words so that Alertmanager receives something; a dashboard is a title.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

from sandbox.cluster.chart.release import MONITORING, Release, resource, untemplated
from sandbox.cluster.chart.values import Values
from sandbox.cluster.kinds import Object


def rules(release: Release) -> Iterator[Object]:
    """PrometheusRules: the default ones that are on, and those of `additionalPrometheusRulesMap`."""
    settings = release.values.default_rules
    if settings.create:
        for group, enabled in _groups(release.values).items():
            if enabled:
                body: Object = {"name": group, "rules": []}
                if group == "general.rules" and not settings.disabled.get("Watchdog"):
                    body["rules"].append(_watchdog(release))
                yield resource(
                    MONITORING,
                    "PrometheusRule",
                    release.part(group.replace("_", "-")),
                    release.namespace,
                    release.labels() | settings.labels,
                    settings.annotations,
                    spec={"groups": [body]},
                )
    for name, custom in release.values.additional_prometheus_rules_map.items():
        yield resource(
            MONITORING,
            "PrometheusRule",
            release.part(name),
            release.namespace,
            release.labels() | custom.get("additionalLabels", {}),
            spec={"groups": custom["groups"]},
        )


def dashboards(release: Release) -> Iterator[Object]:
    """ConfigMaps with the default dashboards."""
    values = release.values.grafana
    if not (values.enabled or values.force_deploy_dashboards) or not values.default_dashboards_enabled:
        return
    sidecar = values.sidecar.dashboards
    label = {sidecar.label: sidecar.label_value or "1"} if sidecar.label else {}
    for name, enabled in _dashboards(release.values).items():
        if enabled:
            document = {
                "title": name,
                "uid": f"sandbox-{name}",
                "editable": values.default_dashboards_editable,
                "timezone": values.default_dashboards_timezone,
                "refresh": values.default_dashboards_interval,
                "panels": [],
            }
            yield resource(
                "v1",
                "ConfigMap",
                release.part(name),
                values.namespace_override or release.namespace,
                label | release.labels("-grafana"),
                untemplated("grafana.sidecar.dashboards.annotations", sidecar.annotations),
                data={f"{name}.json": json.dumps(document)},
            )


def _watchdog(release: Release) -> Object:
    settings = release.values.default_rules
    severity = release.values.custom_rules.get("Watchdog", {}).get("severity", "none")
    return {
        "alert": "Watchdog",
        "expr": "vector(1)",
        "labels": {"severity": severity, **settings.additional_rule_labels},
        "annotations": {
            "summary": "This alert always fires: it shows that rules are evaluated and alerts delivered.",
            "runbook_url": f"{settings.runbook_url}/general/watchdog",
            **settings.additional_rule_annotations.get("Watchdog", {}),
        },
    }


def _groups(values: Values) -> dict[str, bool]:
    """Rule group of each default PrometheusRule, and whether the values switch it on."""
    on = values.default_rules.rules
    api_server = values.kube_api_server.enabled
    manager, proxy, scheduler = values.kube_controller_manager, values.kube_proxy, values.kube_scheduler
    disabled = values.default_rules.disabled
    return {
        "alertmanager.rules": on.alertmanager,
        "config-reloaders": on.config_reloaders,
        "etcd": on.etcd and values.kube_etcd.enabled,
        "general.rules": on.general,
        "k8s.rules.container_cpu_usage_seconds_total": on.k8s_container_cpu_usage_seconds_total,
        "k8s.rules.container_memory_cache": on.k8s_container_memory_cache,
        "k8s.rules.container_memory_rss": on.k8s_container_memory_rss,
        "k8s.rules.container_memory_swap": on.k8s_container_memory_swap,
        "k8s.rules.container_memory_working_set_bytes": on.k8s_container_memory_working_set_bytes,
        "k8s.rules.container_resource": on.k8s_container_resource,
        "k8s.rules.pod_owner": on.k8s_pod_owner,
        "kube-apiserver-availability.rules": on.kube_apiserver_availability and api_server,
        "kube-apiserver-burnrate.rules": on.kube_apiserver_burnrate and api_server,
        "kube-apiserver-histogram.rules": on.kube_apiserver_histogram and api_server,
        "kube-apiserver-slos": on.kube_apiserver_slos and api_server,
        "kube-prometheus-general.rules": on.kube_prometheus_general,
        "kube-prometheus-node-recording.rules": on.kube_prometheus_node_recording,
        "kube-scheduler.rules": on.kube_scheduler_recording and scheduler.enabled,
        "kube-state-metrics": on.kube_state_metrics,
        "kubelet.rules": on.kubelet and values.kubelet.enabled,
        "kubernetes-apps": on.kubernetes_apps,
        "kubernetes-resources": on.kubernetes_resources,
        "kubernetes-storage": on.kubernetes_storage,
        "kubernetes-system": on.kubernetes_system,
        "kubernetes-system-apiserver": on.kubernetes_system,
        "kubernetes-system-controller-manager": on.kube_controller_manager
        and manager.enabled
        and not disabled.get("KubeControllerManagerDown"),
        "kubernetes-system-kube-proxy": on.kube_proxy and proxy.enabled and not disabled.get("KubeProxyDown"),
        "kubernetes-system-kubelet": on.kubernetes_system,
        "kubernetes-system-scheduler": on.kube_scheduler_alerting
        and scheduler.enabled
        and not disabled.get("KubeSchedulerDown"),
        "node-exporter": on.node_exporter_alerting,
        "node-exporter.rules": on.node_exporter_recording,
        "node-network": on.network,
        "node.rules": on.node,
        "prometheus": on.prometheus,
        "prometheus-operator": on.prometheus_operator,
    }


def _dashboards(values: Values) -> dict[str, bool]:
    """Name of each default dashboard, and whether the values switch it on."""
    alertmanager = values.alertmanager.enabled or values.alertmanager.force_deploy_dashboards
    nodes = values.node_exporter.enabled or values.node_exporter.force_deploy_dashboards
    systems = values.node_exporter.operating_systems
    return {
        "alertmanager-overview": alertmanager,
        "apiserver": values.kube_api_server.enabled,
        "cluster-total": True,
        "controller-manager": values.kube_controller_manager.enabled,
        "etcd": values.kube_etcd.enabled,
        "grafana-overview": True,
        "k8s-coredns": values.core_dns.enabled,
        "k8s-resources-cluster": True,
        "k8s-resources-multicluster": True,
        "k8s-resources-namespace": True,
        "k8s-resources-node": True,
        "k8s-resources-nodes-overview": True,
        "k8s-resources-pod": True,
        "k8s-resources-workload": True,
        "k8s-resources-workloads-namespace": True,
        "kubelet": values.kubelet.enabled,
        "namespace-by-pod": True,
        "namespace-by-workload": True,
        "node-cluster-rsrc-use": nodes,
        "node-rsrc-use": nodes,
        "nodes": nodes and systems.linux.enabled,
        "nodes-aix": nodes and systems.aix.enabled,
        "nodes-darwin": nodes and systems.darwin.enabled,
        "persistentvolumesusage": True,
        "pod-total": True,
        "prometheus": True,
        "prometheus-remote-write": values.prometheus.prometheus_spec.remote_write_dashboards,
        "proxy": values.kube_proxy.enabled,
        "scheduler": values.kube_scheduler.enabled,
        "workload-total": True,
    }

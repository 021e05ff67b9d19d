"""Values of the chart kube-prometheus-stack, as a pure function of the settings."""

from __future__ import annotations

from typing import Any

import pulumi

from components import alertmanager_config
from components.settings import AlertSettings, MonitoringSettings

RELEASE = "monitoring"
"""Name of the release and of its objects; fixed, since a new name would orphan every volume."""
GRAFANA_ADMIN_SECRET = "grafana-admin"  # noqa: S105 (the name of a Secret)
GRAFANA_TLS_SECRET = "grafana-tls"  # noqa: S105
GRAFANA_TARGET_PORT = 3000
"""Port that Grafana's container listens on."""

_TLS_DIRECTORY = "/etc/grafana/tls"


def chart_values(
    settings: MonitoringSettings,
    alerts: AlertSettings,
    *,
    certificate_digest: pulumi.Input[str],
    load_balancer_address: pulumi.Input[str] | None,
) -> dict[str, Any]:
    """The values of the release.

    `certificate_digest` changes with Grafana's certificate and restarts its pod, which reads it at start.
    `load_balancer_address` is a reserved floating IP, None lets the load balancer take any.
    """
    unseen = {"enabled": False}
    return {
        "nameOverride": RELEASE,
        "fullnameOverride": RELEASE,
        # A managed control plane shows none of these: their alerts would fire for ever.
        "kubeEtcd": unseen,
        "kubeScheduler": unseen,
        "kubeControllerManager": unseen,
        "kubeProxy": unseen,
        "prometheus": {"prometheusSpec": _prometheus(settings)},
        "alertmanager": _alertmanager(settings, alerts),
        "defaultRules": {"rules": _default_rules(settings)},
        "nodeExporter": {
            "enabled": settings.node_exporter,
            # Dashboards of nodes that there are not.
            "operatingSystems": {"aix": unseen, "darwin": unseen},
        },
        "kubeStateMetrics": {"enabled": settings.kube_state_metrics},
        "grafana": _grafana(settings, certificate_digest, load_balancer_address),
    }


def _prometheus(settings: MonitoringSettings) -> dict[str, Any]:
    values: dict[str, Any] = {
        "retention": settings.prometheus_retention,
        "retentionSize": settings.prometheus_retention_size,
        "scrapeInterval": settings.scrape_interval,
        "evaluationInterval": settings.scrape_interval,
        "storageSpec": _claim(settings, settings.prometheus_storage),
        # Objects of the program carry no `release` label: without these the operator would ignore them.
        "scrapeConfigSelectorNilUsesHelmValues": False,
        "ruleSelectorNilUsesHelmValues": False,
    }
    if settings.prometheus_external_url:
        values["externalUrl"] = settings.prometheus_external_url
    return values


def _alertmanager(settings: MonitoringSettings, alerts: AlertSettings) -> dict[str, Any]:
    specification: dict[str, Any] = {"storage": _claim(settings, settings.alertmanager_storage)}
    if alertmanager_config.secrets(alerts):
        specification["secrets"] = [alertmanager_config.RECEIVERS_SECRET]
    return {
        "enabled": True,
        "config": alertmanager_config.config(alerts),
        "alertmanagerSpec": specification,
    }


def _default_rules(settings: MonitoringSettings) -> dict[str, bool]:
    """Alerts on what an exporter says go with the exporter: nobody shall trust one that cannot fire."""
    node, state = settings.node_exporter, settings.kube_state_metrics
    return {
        "nodeExporterAlerting": node,
        "nodeExporterRecording": node,
        "network": node,
        "kubeStateMetrics": state,
        "kubernetesApps": state,
        "kubernetesResources": state,
    }


def _claim(settings: MonitoringSettings, gibibytes: int) -> dict[str, Any]:
    return {
        "volumeClaimTemplate": {
            "spec": {
                "storageClassName": settings.storage_class,
                "accessModes": ["ReadWriteOnce"],
                "resources": {"requests": {"storage": f"{gibibytes}Gi"}},
            }
        }
    }


def _grafana(
    settings: MonitoringSettings,
    certificate_digest: pulumi.Input[str],
    load_balancer_address: pulumi.Input[str] | None,
) -> dict[str, Any]:
    probe = {"httpGet": {"path": "/api/health", "port": "grafana", "scheme": "HTTPS"}}
    return {
        "enabled": True,
        "admin": {
            "existingSecret": GRAFANA_ADMIN_SECRET,
            "userKey": "admin-user",
            "passwordKey": "admin-password",
        },
        "persistence": {
            "enabled": True,
            "storageClassName": settings.storage_class,
            "accessModes": ["ReadWriteOnce"],
            "size": f"{settings.grafana_storage}Gi",
        },
        # The volume can be attached to one pod only: a rolling update would wait for itself.
        "deploymentStrategy": {"type": "Recreate"},
        "service": _grafana_service(settings, load_balancer_address),
        "grafana.ini": {
            "server": {
                "protocol": "https",
                "cert_file": f"{_TLS_DIRECTORY}/tls.crt",
                "cert_key": f"{_TLS_DIRECTORY}/tls.key",
            }
        },
        "extraSecretMounts": [
            {
                "name": "tls",
                "secretName": GRAFANA_TLS_SECRET,
                "mountPath": _TLS_DIRECTORY,
                "readOnly": True,
                "defaultMode": 0o440,
            }
        ],
        "podAnnotations": {"checksum/tls": certificate_digest},
        "readinessProbe": probe,
        "livenessProbe": probe,
        # Its pod would ask over HTTP.
        "testFramework": {"enabled": False},
        "serviceMonitor": {"scheme": "https", "tlsConfig": {"insecureSkipVerify": True}},
        "sidecar": {kind: _sidecar(kind) for kind in ("dashboards", "datasources")},
    }


def _grafana_service(
    settings: MonitoringSettings, load_balancer_address: pulumi.Input[str] | None
) -> dict[str, Any]:
    if settings.grafana_access == "port-forward":
        return {"type": "ClusterIP", "port": settings.grafana_port}
    annotations: dict[str, str] = {"loadbalancer.ovhcloud.com/flavor": settings.grafana_load_balancer_flavor}
    service: dict[str, Any] = {
        "type": "LoadBalancer",
        "port": settings.grafana_port,
        "annotations": annotations,
        "loadBalancerSourceRanges": settings.grafana_source_ranges,
    }
    if load_balancer_address is not None:
        annotations["loadbalancer.openstack.org/keep-floatingip"] = "true"
        service["loadBalancerIP"] = load_balancer_address
    return service


def _sidecar(kind: str) -> dict[str, Any]:
    """The sidecar tells Grafana to read provisioned files again, over its own HTTPS on localhost."""
    return {
        "enabled": True,
        "reloadURL": f"https://localhost:{GRAFANA_TARGET_PORT}/api/admin/provisioning/{kind}/reload",
        "env": {"REQ_SKIP_TLS_VERIFY": "true"},
    }

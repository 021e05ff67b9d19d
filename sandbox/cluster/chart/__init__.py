"""A model of the chart kube-prometheus-stack 88.5.3: values in, the real chart's objects out.

    check_chart("kube-prometheus-stack", "88.5.3")                 raises ChartError for any other
    objects = render(values, release="monitoring", namespace="monitoring")

The objects have the names, namespaces, labels, ports and selectors of the real chart; the texts of default
rules and dashboards are left out (`defaults`).
"""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from typing import Any

from sandbox.cluster.chart.defaults import dashboards, rules
from sandbox.cluster.chart.exporters import kube_state_metrics, node_exporter
from sandbox.cluster.chart.grafana import datasources, grafana
from sandbox.cluster.chart.operator import operator
from sandbox.cluster.chart.parse import parse
from sandbox.cluster.chart.release import Release, untemplated
from sandbox.cluster.chart.section import APP_VERSION, CHART, VERSION, ChartError
from sandbox.cluster.chart.stack import alertmanager, prometheus
from sandbox.cluster.chart.targets import targets
from sandbox.cluster.chart.values import Values
from sandbox.cluster.crds import monitoring_crds
from sandbox.cluster.kinds import Object
from sandbox.interfaces import JsonObject

__all__ = ["APP_VERSION", "CHART", "VERSION", "ChartError", "check_chart", "hook_events", "render"]

_HOOK = "helm.sh/hook"
# Helm's InstallOrder; kinds it does not know come last, by name.
_ORDER = (
    "Namespace", "NetworkPolicy", "ResourceQuota", "LimitRange", "PodDisruptionBudget", "ServiceAccount",
    "Secret", "ConfigMap", "StorageClass", "PersistentVolume", "PersistentVolumeClaim",
    "CustomResourceDefinition", "ClusterRole", "ClusterRoleBinding", "Role", "RoleBinding", "Service",
    "DaemonSet", "Pod", "Deployment", "StatefulSet", "Job", "CronJob", "Ingress", "APIService",
    "MutatingWebhookConfiguration", "ValidatingWebhookConfiguration",
)  # fmt: skip


def check_chart(chart: str, version: str | None) -> None:
    """Raises ChartError unless it is the one chart, in the one version, that the sandbox models."""
    name = chart.rpartition("/")[2]
    if name != CHART:
        raise ChartError(f"chart {chart!r}: the sandbox models {CHART} {VERSION} only")
    if version is None:
        raise ChartError(
            f"chart {chart!r} without a version: pin it to {VERSION}, the one the sandbox models"
        )
    if version != VERSION:
        raise ChartError(f"chart {chart!r} version {version!r}: the sandbox models {VERSION} only")


def render(values: Mapping[str, Any], release: str, namespace: str) -> list[JsonObject]:
    """All objects of a release: CRDs first, hooks of the installation, objects by kind, later hooks.

    Hooks keep their annotations. Everything else has the label and annotations by which Helm owns it.
    Raises ChartError for values that the chart, or the sandbox's model of it, does not take.
    """
    of = Release(release, namespace, parse(values))
    rendered = [
        *prometheus(of), *alertmanager(of), *operator(of), *targets(of), *kube_state_metrics(of),
        *node_exporter(of), *rules(of), *grafana(of), *datasources(of), *dashboards(of), *_extra(of.values),
    ]  # fmt: skip
    rendered.sort(key=_install_order)
    for item in rendered:
        if not hook_events(item):
            _own(item, of)
    first = [item for item in rendered if "pre-install" in hook_events(item)]
    later = [item for item in rendered if hook_events(item) and item not in first]
    defined = monitoring_crds() if of.values.crds.enabled else []
    return [*defined, *first, *(item for item in rendered if not hook_events(item)), *later]


def _extra(values: Values) -> list[Object]:
    manifests = deepcopy(values.extra_manifests)  # they get marks of the release, the values none
    items = list(manifests.values()) if isinstance(manifests, dict) else manifests
    for index, item in enumerate(items):
        if not isinstance(item, dict):
            raise ChartError(f"extraManifests.{index}: the sandbox takes objects, not text with templates")
        untemplated(f"extraManifests.{index}", item)
    return items


def _own(item: Object, release: Release) -> None:
    metadata = item["metadata"]
    metadata.setdefault("labels", {})["app.kubernetes.io/managed-by"] = "Helm"
    metadata.setdefault("annotations", {}).update(
        {
            "meta.helm.sh/release-name": release.name,
            "meta.helm.sh/release-namespace": release.release_namespace,
        }
    )


def hook_events(item: Mapping[str, Any]) -> list[str]:
    """Events at which Helm makes an object as a hook, such as `pre-install`; none for one of the release."""
    annotations = item["metadata"].get("annotations") or {}
    text = annotations.get(_HOOK, "")
    return [hook.strip() for hook in text.split(",")] if text else []


def _install_order(item: Object) -> tuple[int, str, str]:
    kind = item["kind"]
    position = _ORDER.index(kind) if kind in _ORDER else len(_ORDER)
    return position, kind, item["metadata"]["name"]

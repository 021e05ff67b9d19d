"""What all objects of a release have in common: names, labels, small shapes."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from sandbox.cluster.chart.grafana_values import GrafanaServiceAccount
from sandbox.cluster.chart.section import CHART, VERSION, ChartError, Free, Monitor, ServiceAccount
from sandbox.cluster.chart.values import Values
from sandbox.cluster.kinds import Object

RBAC = "rbac.authorization.k8s.io"
MONITORING = "monitoring.coreos.com/v1"
HOOK_DELETE_POLICY = "before-hook-creation,hook-succeeded"


@dataclass(frozen=True)
class Release:
    """A release of the chart: its name, its namespace, its values."""

    name: str
    release_namespace: str
    values: Values = field(repr=False)

    @property
    def namespace(self) -> str:
        """Namespace of the stack's objects."""
        return self.values.namespace_override or self.release_namespace

    @property
    def fullname(self) -> str:
        """First part of the names of the stack's own objects, at most 26 characters."""
        chart = self.values.name_override or CHART
        name = self.name if chart in self.name else f"{self.name}-{chart}"
        return _cut(self.values.fullname_override or name, 26)

    @property
    def chart_name(self) -> str:
        """First part of the `app` labels."""
        return _cut(self.values.name_override or CHART, 50)

    @property
    def prometheus(self) -> str:
        """Name of the Prometheus resource."""
        return (
            self.fullname
            if self.values.clean_prometheus_operator_object_names
            else f"{self.fullname}-prometheus"
        )

    @property
    def alertmanager(self) -> str:
        """Name of the Alertmanager resource."""
        return (
            self.fullname
            if self.values.clean_prometheus_operator_object_names
            else f"{self.fullname}-alertmanager"
        )

    @property
    def operator(self) -> str:
        """Name of the operator's objects."""
        override = self.values.prometheus_operator.fullname_override
        return _cut(override, 35) if override else f"{self.fullname}-operator"

    def part(self, name: str) -> str:
        """Name of a rule or dashboard object, at most 63 characters."""
        return _cut(f"{self.fullname}-{name}", 63)

    def subchart(self, chart: str) -> str:
        """Name of a sub-chart's objects: from the release's name, `fullnameOverride` does not reach them."""
        return _cut(self.name if chart in self.name else f"{self.name}-{chart}", 63)

    def labels(self, suffix: str | None = "", **extra: str) -> Object:
        """Labels of the stack's own objects; `app` is the chart's name and `suffix`, none for None."""
        app = {} if suffix is None else {"app": f"{self.chart_name}{suffix}"}
        return {
            **app,
            **extra,
            "app.kubernetes.io/managed-by": "Helm",
            "app.kubernetes.io/instance": self.name,
            "app.kubernetes.io/version": VERSION,
            "app.kubernetes.io/part-of": self.chart_name,
            "chart": f"{CHART}-{VERSION}",
            "release": self.name,
            "heritage": "Helm",
            **self.values.common_labels,
        }


def resource(
    api_version: str,
    kind: str,
    name: str,
    namespace: str | None,
    labels: Mapping[str, Any],
    annotations: Mapping[str, Any] | None = None,
    **body: Any,
) -> Object:
    """An object; `namespace` is None for a cluster-scoped one."""
    metadata: Object = {"name": name}
    if namespace is not None:
        metadata["namespace"] = namespace
    metadata["labels"] = dict(labels)
    if annotations:
        metadata["annotations"] = dict(annotations)
    return {"apiVersion": api_version, "kind": kind, "metadata": metadata, **body}


def present(fields: Mapping[str, Any]) -> Object:
    """`fields` without those that a template leaves out: null, false, 0, empty."""
    return {key: value for key, value in fields.items() if value}


def encoded(text: str) -> str:
    """`text` as a Secret's `data` holds it."""
    return base64.b64encode(text.encode()).decode()


def untemplated(path: str, value: Any) -> Any:
    """`value`, which the chart passes through its template engine; the sandbox has none.

    Raises ChartError for `{{`: the real chart would evaluate it, or fail on what was meant for Alertmanager.
    """
    if isinstance(value, str) and "{{" in value:
        raise ChartError(
            f"{path}: the chart evaluates templates here, which the sandbox's model of {CHART} {VERSION} "
            "does not; write the result, or escape a literal {{ for the real chart"
        )
    if isinstance(value, dict):
        for key, item in value.items():
            untemplated(f"{path}.{key}", item)
    elif isinstance(value, list):
        for index, item in enumerate(value):
            untemplated(f"{path}.{index}", item)
    return value


def endpoint(monitor: Monitor, port: str, **fields: Any) -> Object:
    """An endpoint of a ServiceMonitor."""
    return present({"port": port, "interval": monitor.interval, **fields}) | present(
        {"metricRelabelings": monitor.metric_relabelings, "relabelings": monitor.relabelings}
    )


def account_name(account: ServiceAccount | GrafanaServiceAccount, name: str) -> str:
    """The ServiceAccount that pods run as: `name` unless the values say otherwise."""
    return account.name or (name if account.create else "default")


def service_account(name: str, namespace: str, labels: Free, annotations: Free, mount: bool | None) -> Object:
    """A ServiceAccount; `mount` is `automountServiceAccountToken`, None leaves it out."""
    extra = {} if mount is None else {"automountServiceAccountToken": mount}
    return resource("v1", "ServiceAccount", name, namespace, labels, annotations, **extra)


def rule(groups: Iterable[str], resources: Iterable[str], verbs: Iterable[str]) -> Object:
    """A rule of a Role."""
    return {"apiGroups": list(groups), "resources": list(resources), "verbs": list(verbs)}


def binding(
    kind: str,
    name: str,
    namespace: str | None,
    labels: Free,
    role: str,
    account: tuple[str, str],
    annotations: Free | None = None,
) -> Object:
    """A RoleBinding or ClusterRoleBinding of the ServiceAccount `account` (namespace, name)."""
    return resource(
        f"{RBAC}/v1",
        kind,
        name,
        namespace,
        labels,
        annotations,
        roleRef={"apiGroup": RBAC, "kind": kind.removesuffix("Binding"), "name": role},
        subjects=[{"kind": "ServiceAccount", "namespace": account[0], "name": account[1]}],
    )


def ingress(
    name: str,
    namespace: str,
    labels: Free,
    annotations: Free,
    class_name: str,
    hosts: list[str],
    paths: list[str],
    path_type: str,
    port: int,
    tls: list[Any],
) -> Object:
    """An Ingress that leads to the Service of the same name."""
    backend = {"service": {"name": name, "port": {"number": port}}}
    http = {"paths": [{"path": path, "pathType": path_type, "backend": backend} for path in paths]}
    rules: list[Object] = [{"host": host, "http": http} for host in hosts] or [{"http": http}]
    return resource(
        "networking.k8s.io/v1",
        "Ingress",
        name,
        namespace,
        labels,
        annotations,
        spec=present({"ingressClassName": class_name, "rules": rules, "tls": tls}),
    )


def _cut(name: str, length: int) -> str:
    return name[:length].removesuffix("-")

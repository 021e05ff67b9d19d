"""Values of Grafana: the sub-chart's, and what the stack adds to them."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from sandbox.cluster.chart.section import Enabled, Free, Image, ImageName, Section


class Admin(Section):
    """Where Grafana's administrator comes from."""

    existing_secret: str = ""
    user_key: str = "admin-user"
    password_key: str = "admin-password"  # noqa: S105 - the name of a key


class GrafanaIngress(Section):
    """An Ingress to Grafana."""

    enabled: bool = False
    ingress_class_name: str = ""
    annotations: Free = {}
    labels: Free = {}
    path: str = "/"
    path_type: str = "Prefix"
    hosts: list[str] = []
    tls: list[Any] = []


class GrafanaServiceAccount(Section):
    """ServiceAccount of Grafana."""

    create: bool = True
    name: str = ""
    labels: Free = {}
    annotations: Free = {}
    auto_mount: bool = True


class GrafanaRbac(Section):
    """Roles of Grafana's sidecars."""

    create: bool = True
    namespaced: bool = False
    extra_cluster_role_rules: list[Any] = []


class DashboardProvider(Section):
    """Grafana's provider for dashboards that the sidecar finds."""

    name: str = "sidecarProvider"
    orgid: int = 1
    folder: str = ""
    folder_uid: str = ""
    type: str = "file"
    disable_delete: bool = False
    allow_ui_updates: bool = False
    folders_from_files_structure: bool = False


RELOAD = "http://localhost:3000/api/admin/provisioning"


class DashboardSidecar(Section):
    """The sidecar that turns labelled ConfigMaps into dashboards."""

    enabled: bool = True
    label: str = "grafana_dashboard"
    label_value: str = "1"
    search_namespace: str = "ALL"
    folder: str = "/tmp/dashboards"  # noqa: S108 - in the pod
    folder_annotation: str = ""
    default_folder_name: str = ""
    annotations: Free = {}
    watch_method: str = "WATCH"
    resource: Literal["both", "configmap", "secret"] = "both"
    skip_reload: bool = False
    env: Free = {}
    reload_url: Annotated[str, Field(alias="reloadURL")] = f"{RELOAD}/dashboards/reload"
    provider: DashboardProvider = DashboardProvider()


class AlertmanagerDatasource(Section):
    """The datasource for Alertmanager."""

    enabled: bool = True
    name: str = "Alertmanager"
    uid: str = "alertmanager"
    url: str = ""
    handle_grafana_managed_alerts: bool = False
    implementation: str = "prometheus"


class DatasourceSidecar(Section):
    """The sidecar that turns labelled ConfigMaps into datasources, and the default datasources."""

    enabled: bool = True
    default_datasource_enabled: bool = True
    is_default_datasource: bool = True
    name: str = "Prometheus"
    uid: str = "prometheus"
    url: str = ""
    http_method: str = "POST"
    timeout: int | str = ""
    default_datasource_scrape_interval: str = ""
    extra_json_data: Free = {}
    annotations: Free = {}
    label: str = "grafana_datasource"
    label_value: str = "1"
    search_namespace: str = ""
    watch_method: str = "WATCH"
    resource: Literal["both", "configmap", "secret"] = "both"
    skip_reload: bool = False
    env: Free = {}
    reload_url: Annotated[str, Field(alias="reloadURL")] = f"{RELOAD}/datasources/reload"
    alertmanager: AlertmanagerDatasource = AlertmanagerDatasource()


class Sidecar(Section):
    """Grafana's sidecars."""

    image: ImageName = ImageName(repository="kiwigrid/k8s-sidecar", tag="2.10.1")
    image_pull_policy: str = "IfNotPresent"
    skip_tls_verify: bool = False
    resources: Free = {}
    dashboards: DashboardSidecar = DashboardSidecar()
    datasources: DatasourceSidecar = DatasourceSidecar()


class Persistence(Section):
    """Grafana's volume."""

    enabled: bool = False
    type: Literal["pvc"] = "pvc"
    storage_class_name: str = ""
    access_modes: list[str] = ["ReadWriteOnce"]
    size: str = "10Gi"
    existing_claim: str = ""
    annotations: Free = {}
    finalizers: list[str] = ["kubernetes.io/pvc-protection"]
    extra_pvc_labels: Free = {}
    volume_name: str = ""
    lookup_volume_name: bool = True


class GrafanaService(Section):
    """The Service of Grafana."""

    enabled: bool = True
    type: Literal["ClusterIP", "NodePort", "LoadBalancer"] = "ClusterIP"
    port: int = 80
    target_port: int = 3000
    port_name: str = "http-web"
    node_port: int | None = None
    cluster_ip: Annotated[str, Field(alias="clusterIP")] = ""
    load_balancer_ip: Annotated[str, Field(alias="loadBalancerIP")] = ""
    load_balancer_class: str = ""
    load_balancer_source_ranges: list[str] = []
    external_ips: Annotated[list[str], Field(alias="externalIPs")] = []
    external_traffic_policy: str = ""
    session_affinity: str = ""
    annotations: Free = {}
    labels: Free = {}
    app_protocol: str = ""


class GrafanaMonitor(Section):
    """ServiceMonitor of Grafana."""

    enabled: bool = True
    path: str = "/metrics"
    interval: str = ""
    scrape_timeout: str = ""
    scheme: str = "http"
    tls_config: Free = {}
    labels: Free = {}
    relabelings: list[Any] = []
    metric_relabelings: list[Any] = []
    basic_auth: Free = {}
    target_labels: list[str] = []


class DeploymentStrategy(Section):
    """How a Deployment replaces its pods."""

    type: Literal["Recreate", "RollingUpdate"] = "RollingUpdate"


GRAFANA_INI: Free = {
    "paths": {
        "data": "/var/lib/grafana/",
        "logs": "/var/log/grafana",
        "plugins": "/var/lib/grafana/plugins",
        "provisioning": "/etc/grafana/provisioning",
    },
    "analytics": {"check_for_updates": True},
    "log": {"mode": "console"},
    "server": {"domain": ""},
    "unified_storage": {"index_path": "/var/lib/grafana-search/bleve"},
}
READINESS: Free = {"httpGet": {"path": "/api/health", "port": "grafana"}}
LIVENESS: Free = {**READINESS, "initialDelaySeconds": 60, "timeoutSeconds": 30, "failureThreshold": 10}


class Grafana(Section):
    """Grafana: the sub-chart's values and what the stack adds to them."""

    enabled: bool = True
    namespace_override: str = ""
    force_deploy_datasources: bool = False
    force_deploy_dashboards: bool = False
    default_dashboards_enabled: bool = True
    default_dashboards_timezone: str = "utc"
    default_dashboards_editable: bool = True
    default_dashboards_interval: str = "1m"
    admin_user: str = "admin"
    admin_password: str = ""
    admin: Admin = Admin()
    replicas: int = 1
    revision_history_limit: int = 10
    deployment_strategy: DeploymentStrategy = DeploymentStrategy()
    image: Image = Image(registry="docker.io", repository="grafana/grafana")
    init_chown_data: Enabled = Enabled()
    test_framework: Enabled = Enabled()
    readiness_probe: Free = READINESS
    liveness_probe: Free = LIVENESS
    startup_probe: Free = {}
    resources: Free = {}
    node_selector: Free = {}
    tolerations: list[Any] = []
    affinity: Free = {}
    topology_spread_constraints: list[Any] = []
    priority_class_name: str = ""
    security_context: Free = {"runAsNonRoot": True, "runAsUser": 472, "runAsGroup": 472, "fsGroup": 472}
    annotations: Free = {}
    pod_annotations: Free = {}
    pod_labels: Free = {}
    extra_labels: Free = {}
    env: Free = {}
    env_value_from: Free = {}
    env_from_secret: str = ""
    env_from_secrets: list[Any] = []
    extra_secret_mounts: list[Any] = []
    extra_configmap_mounts: list[Any] = []
    extra_empty_dir_mounts: list[Any] = []
    extra_volumes: list[Any] = []
    extra_volume_mounts: list[Any] = []
    extra_init_containers: list[Any] = []
    plugins: list[str] = []
    grafana_ini: Annotated[Free, Field(alias="grafana.ini")] = GRAFANA_INI
    assert_no_leaked_secrets: bool = True
    datasources: Free = {}
    dashboard_providers: Free = {}
    additional_data_sources: list[Any] = []
    delete_datasources: list[Any] = []
    prune: bool = False
    persistence: Persistence = Persistence()
    rbac: GrafanaRbac = GrafanaRbac()
    service_account: GrafanaServiceAccount = GrafanaServiceAccount()
    service: GrafanaService = GrafanaService()
    service_monitor: GrafanaMonitor = GrafanaMonitor()
    ingress: GrafanaIngress = GrafanaIngress()
    sidecar: Sidecar = Sidecar()

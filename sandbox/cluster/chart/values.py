"""Values of kube-prometheus-stack 88.5.3, as far as the sandbox models the chart.

Helm itself ignores a key that no template reads; here it is an error, so that a typing mistake is found
before it costs a cluster. A field is named as in the chart (`external_url` is `externalUrl`) and has the
chart's default. Left out are keys that would add an object which the sandbox does not make (network
policies, disruption budgets, Thanos, Windows). Settings of pods (resources, probes, images) are taken, and
mean nothing to the sandbox.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from sandbox.cluster.chart.exporter_values import KubeStateMetricsValues, NodeExporterValues
from sandbox.cluster.chart.grafana_values import Grafana
from sandbox.cluster.chart.section import Enabled, Free, Image, Monitor, Section, ServiceAccount


class UpgradeJob(Section):
    """The Helm hook that upgrades CRDs; the sandbox upgrades nothing."""

    enabled: Literal[False] = False
    force_conflicts: bool = True


class Crds(Section):
    """The ten CRDs of the operator."""

    enabled: bool = True
    upgrade_job: UpgradeJob = UpgradeJob()


class RuleSwitches(Section):
    """Groups of default rules."""

    alertmanager: bool = True
    etcd: bool = True
    config_reloaders: bool = True
    general: bool = True
    k8s_container_cpu_usage_seconds_total: Annotated[
        bool, Field(alias="k8sContainerCpuUsageSecondsTotal")
    ] = True
    k8s_container_memory_cache: Annotated[bool, Field(alias="k8sContainerMemoryCache")] = True
    k8s_container_memory_rss: Annotated[bool, Field(alias="k8sContainerMemoryRss")] = True
    k8s_container_memory_swap: Annotated[bool, Field(alias="k8sContainerMemorySwap")] = True
    k8s_container_resource: Annotated[bool, Field(alias="k8sContainerResource")] = True
    k8s_container_memory_working_set_bytes: Annotated[
        bool, Field(alias="k8sContainerMemoryWorkingSetBytes")
    ] = True
    k8s_pod_owner: Annotated[bool, Field(alias="k8sPodOwner")] = True
    kube_apiserver_availability: bool = True
    kube_apiserver_burnrate: bool = True
    kube_apiserver_histogram: bool = True
    kube_apiserver_slos: bool = True
    kube_controller_manager: bool = True
    kubelet: bool = True
    kube_proxy: bool = True
    kube_prometheus_general: bool = True
    kube_prometheus_node_recording: bool = True
    kubernetes_apps: bool = True
    kubernetes_resources: bool = True
    kubernetes_storage: bool = True
    kubernetes_system: bool = True
    kube_scheduler_alerting: bool = True
    kube_scheduler_recording: bool = True
    kube_state_metrics: bool = True
    network: bool = True
    node: bool = True
    node_exporter_alerting: bool = True
    node_exporter_recording: bool = True
    prometheus: bool = True
    prometheus_operator: bool = True
    windows: bool = True


class DefaultRules(Section):
    """The rules that come with the chart; the sandbox knows their objects, not their texts."""

    create: bool = True
    rules: RuleSwitches = RuleSwitches()
    app_namespaces_operator: str = "=~"
    app_namespaces_target: str = ".*"
    keep_firing_for: str = ""
    labels: Free = {}
    annotations: Free = {}
    additional_rule_labels: Free = {}
    additional_rule_annotations: Free = {}
    additional_aggregation_labels: list[str] = []
    runbook_url: str = "https://runbooks.prometheus-operator.dev/runbooks"
    disabled: dict[str, bool] = {}


class Rbac(Section):
    """Roles and bindings."""

    create: bool = True


class Global(Section):
    """Settings of the chart and its sub-charts."""

    rbac: Rbac = Rbac()
    image_registry: str = ""
    image_pull_secrets: list[Any] = []


class Ingress(Section):
    """An Ingress to Prometheus or Alertmanager."""

    enabled: bool = False
    ingress_class_name: str = ""
    annotations: Free = {}
    labels: Free = {}
    hosts: list[str] = []
    paths: list[str] = []
    tls: list[Any] = []


class SelfMonitor(Monitor):
    """The ServiceMonitor by which Prometheus or Alertmanager watches itself."""

    self_monitor: bool = True
    scheme: str = ""
    tls_config: Free = {}


class ComponentService(Section):
    """The Service of Prometheus or Alertmanager."""

    enabled: bool = True
    annotations: Free = {}
    labels: Free = {}
    cluster_ip: Annotated[str, Field(alias="clusterIP")] = ""
    port: int = 0
    target_port: int = 0
    node_port: int = 0
    external_ips: Annotated[list[str], Field(alias="externalIPs")] = []
    load_balancer_ip: Annotated[str, Field(alias="loadBalancerIP")] = ""
    load_balancer_source_ranges: list[str] = []
    external_traffic_policy: str = "Cluster"
    session_affinity: str = "None"
    type: Literal["ClusterIP", "NodePort", "LoadBalancer"] = "ClusterIP"
    additional_ports: list[Any] = []


class AlertmanagerService(ComponentService):
    """The Service of Alertmanager."""

    port: int = 9093
    target_port: int = 9093
    node_port: int = 30903


class PrometheusService(ComponentService):
    """The Service of Prometheus."""

    port: int = 9090
    target_port: int = 9090
    node_port: int = 30090
    reloader_web_port: int = 8080
    publish_not_ready_addresses: bool = False


POD_SECURITY: Free = {
    "fsGroup": 2000,
    "runAsGroup": 2000,
    "runAsNonRoot": True,
    "runAsUser": 1000,
    "seccompProfile": {"type": "RuntimeDefault"},
}


class ComponentSpec(Section):
    """What the specifications of the Prometheus and Alertmanager resources share."""

    automount_service_account_token: bool = True
    additional_args: list[Any] = []
    secrets: list[str] = []
    config_maps: list[str] = []
    external_url: str = ""
    route_prefix: str = "/"
    paused: bool = False
    replicas: int = 1
    log_level: str = "info"
    log_format: str = "logfmt"
    listen_local: bool = False
    port_name: str = "http-web"
    web: Free = {}
    pod_metadata: Free = {}
    node_selector: Free = {}
    tolerations: list[Any] = []
    topology_spread_constraints: list[Any] = []
    affinity: Free = {}
    pod_anti_affinity: Literal["", "soft", "hard"] = "soft"
    pod_anti_affinity_topology_key: str = "kubernetes.io/hostname"
    resources: Free = {}
    security_context: Free = POD_SECURITY
    persistent_volume_claim_retention_policy: Free = {}
    volumes: list[Any] = []
    volume_mounts: list[Any] = []
    containers: list[Any] = []
    init_containers: list[Any] = []
    priority_class_name: str = ""
    dns_policy: str = ""
    dns_config: Free = {}
    host_network: bool = False
    host_aliases: list[Any] = []
    min_ready_seconds: int = 0
    termination_grace_period_seconds: int | None = None


class AlertmanagerSpec(ComponentSpec):
    """Specification of the Alertmanager resource."""

    image: Image = Image(repository="prometheus/alertmanager", tag="v0.34.0")
    retention: str = "120h"
    storage: Free = {}
    use_existing_secret: bool = False
    config_secret: str = ""
    alertmanager_config_selector: Free = {}
    alertmanager_config_namespace_selector: Free = {}
    alertmanager_configuration: Free = {}
    alertmanager_config_matcher_strategy: Free = {}
    cluster_advertise_address: Literal[False] | str = False
    cluster_gossip_interval: str = ""
    cluster_peer_timeout: str = ""
    cluster_pushpull_interval: str = ""
    force_enable_cluster_mode: bool = False


ALERTMANAGER_CONFIG: Free = {
    "global": {"resolve_timeout": "5m"},
    "inhibit_rules": [
        {
            "source_matchers": ["severity = critical"],
            "target_matchers": ["severity =~ warning|info"],
            "equal": ["namespace", "alertname"],
        },
        {
            "source_matchers": ["severity = warning"],
            "target_matchers": ["severity = info"],
            "equal": ["namespace", "alertname"],
        },
        {
            "source_matchers": ["alertname = InfoInhibitor"],
            "target_matchers": ["severity = info"],
            "equal": ["namespace"],
        },
        {"target_matchers": ["alertname = InfoInhibitor"]},
    ],
    "route": {
        "group_by": ["namespace"],
        "group_wait": "30s",
        "group_interval": "5m",
        "repeat_interval": "12h",
        "receiver": "null",
        "routes": [{"receiver": "null", "matchers": ['alertname = "Watchdog"']}],
    },
    "receivers": [{"name": "null"}],
    "templates": ["/etc/alertmanager/config/*.tmpl"],
}


class SecretMetadata(Section):
    """Annotations of a Secret."""

    annotations: Free = {}


class AlertmanagerMonitor(SelfMonitor):
    """ServiceMonitor of Alertmanager."""

    enable_http2: Annotated[bool, Field(alias="enableHttp2")] = True


class Alertmanager(Section):
    """Alertmanager and what belongs to it."""

    enabled: bool = True
    annotations: Free = {}
    additional_labels: Free = {}
    api_version: Literal["v2"] = "v2"
    enable_features: list[str] = []
    force_deploy_dashboards: bool = False
    service_account: ServiceAccount = ServiceAccount()
    config: Free = ALERTMANAGER_CONFIG
    template_files: dict[str, str] = {}
    secret: SecretMetadata = SecretMetadata()
    ingress: Ingress = Ingress()
    service: AlertmanagerService = AlertmanagerService()
    service_monitor: AlertmanagerMonitor = AlertmanagerMonitor()
    alertmanager_spec: AlertmanagerSpec = AlertmanagerSpec()


class TargetMonitor(Monitor):
    """ServiceMonitor of a part of Kubernetes."""

    enabled: bool = True
    target_labels: list[str] = []


class TargetService(Section):
    """The headless Service by which Prometheus finds a part of Kubernetes."""

    enabled: bool = True
    port: int | None = None
    target_port: int | None = None
    selector: Free = {}


class ApiServer(Section):
    """The API server as a target."""

    enabled: bool = True
    service_monitor: TargetMonitor = TargetMonitor()


class KubeletMonitor(TargetMonitor):
    """ServiceMonitor of the kubelets."""

    https: bool = True
    insecure_skip_verify: bool = True
    probes: bool = True
    c_advisor: Annotated[bool, Field(alias="cAdvisor")] = True
    c_advisor_interval: Annotated[str, Field(alias="cAdvisorInterval")] = "10s"


class Kubelet(Section):
    """The kubelets as targets."""

    enabled: bool = True
    namespace: str = "kube-system"
    service_monitor: KubeletMonitor = KubeletMonitor()


class CoreDns(Section):
    """CoreDNS as a target."""

    enabled: bool = True
    service: TargetService = TargetService(port=9153, target_port=9153)
    service_monitor: TargetMonitor = TargetMonitor()


class ControlPlane(Section):
    """A part of the control plane as a target; on a managed cluster its pods cannot be reached."""

    enabled: bool = True
    service: TargetService = TargetService()
    service_monitor: TargetMonitor = TargetMonitor()


class OperatingSystems(Section):
    """Which dashboards of node-exporter there are."""

    linux: Enabled = Enabled()
    aix: Enabled = Enabled()
    darwin: Enabled = Enabled()


class NodeExporter(Section):
    """Whether node-exporter runs."""

    enabled: bool = True
    operating_systems: OperatingSystems = OperatingSystems()
    force_deploy_dashboards: bool = False


class OperatorTls(Section):
    """TLS of the operator's web server."""

    enabled: bool = True
    tls_min_version: str = "VersionTLS13"
    internal_port: int = 10250


class WebhookPatch(Section):
    """The hook Jobs that make the webhook's certificate."""

    enabled: bool = True


class AdmissionWebhooks(Section):
    """The operator's admission webhooks."""

    enabled: bool = True
    failure_policy: str = ""
    timeout_seconds: int = 10
    annotations: Free = {}
    namespace_selector: Free = {}
    object_selector: Free = {}
    patch: WebhookPatch = WebhookPatch()


class OperatorService(Section):
    """The Service of the operator."""

    annotations: Free = {}
    labels: Free = {}
    type: Literal["ClusterIP", "NodePort", "LoadBalancer"] = "ClusterIP"


class KubeletService(Section):
    """The Service that the operator keeps for the kubelets."""

    enabled: bool = True
    namespace: str = "kube-system"


class ConfigReloader(Section):
    """The sidecar that reloads a changed configuration."""

    resources: Free = {}
    enable_probe: bool = False


class OperatorMonitor(Monitor):
    """ServiceMonitor of the operator."""

    self_monitor: bool = True
    scrape_timeout: str = ""


class PrometheusOperator(Section):
    """The operator."""

    enabled: bool = True
    fullname_override: str = ""
    revision_history_limit: int = 10
    tls: OperatorTls = OperatorTls()
    admission_webhooks: AdmissionWebhooks = AdmissionWebhooks()
    service_account: ServiceAccount = ServiceAccount()
    service: OperatorService = OperatorService()
    service_monitor: OperatorMonitor = OperatorMonitor()
    kubelet_service: KubeletService = KubeletService()
    kubelet_endpoints_enabled: bool = True
    kubelet_endpoint_slice_enabled: bool = False
    prometheus_config_reloader: ConfigReloader = ConfigReloader()
    image: Image = Image(repository="prometheus-operator/prometheus-operator")
    labels: Free = {}
    annotations: Free = {}
    pod_labels: Free = {}
    pod_annotations: Free = {}
    resources: Free = {}
    node_selector: Free = {}
    tolerations: list[Any] = []
    affinity: Free = {}
    security_context: Free = {
        "fsGroup": 65534,
        "runAsGroup": 65534,
        "runAsNonRoot": True,
        "runAsUser": 65534,
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    env: Free = {"GOGC": "30"}
    extra_args: list[str] = []


class Tsdb(Section):
    """Settings of Prometheus' storage engine."""

    out_of_order_time_window: str = "0s"


class PrometheusSpec(ComponentSpec):
    """Specification of the Prometheus resource."""

    image: Image = Image(repository="prometheus/prometheus", tag="v3.14.0-distroless")
    version: str = ""
    scrape_interval: str = ""
    scrape_timeout: str = ""
    evaluation_interval: str = ""
    scrape_protocols: list[str] = []
    scrape_native_histograms: bool = False
    scrape_classic_histograms: bool = False
    convert_classic_histograms_to_nhcb: Annotated[bool, Field(alias="convertClassicHistogramsToNHCB")] = False
    pod_target_labels: list[str] = []
    external_labels: Free = {}
    prometheus_external_label_name: str = ""
    prometheus_external_label_name_clear: bool = False
    replica_external_label_name: str = ""
    replica_external_label_name_clear: bool = False
    retention: str = "10d"
    retention_size: str = ""
    tsdb: Tsdb = Tsdb()
    wal_compression: bool = True
    shards: int = 1
    storage_spec: Free = {}
    enable_admin_api: Annotated[bool, Field(alias="enableAdminAPI")] = False
    enable_features: list[str] = []
    enable_remote_write_receiver: bool = False
    enable_otlp_receiver: Annotated[bool, Field(alias="enableOTLPReceiver")] = False
    otlp: Free = {}
    exemplars: Free = {}
    query: Free = {}
    disable_alerting: bool = False
    alerting_endpoints: list[Any] = []
    remote_read: list[Any] = []
    remote_write: list[Any] = []
    additional_remote_read: list[Any] = []
    additional_remote_write: list[Any] = []
    remote_write_dashboards: bool = False
    rule_selector: Free = {}
    rule_selector_nil_uses_helm_values: bool = True
    rule_namespace_selector: Free = {}
    service_monitor_selector: Free = {}
    service_monitor_selector_nil_uses_helm_values: bool = True
    service_monitor_namespace_selector: Free = {}
    pod_monitor_selector: Free = {}
    pod_monitor_selector_nil_uses_helm_values: bool = True
    pod_monitor_namespace_selector: Free = {}
    probe_selector: Free = {}
    probe_selector_nil_uses_helm_values: bool = True
    probe_namespace_selector: Free = {}
    scrape_config_selector: Free = {}
    scrape_config_selector_nil_uses_helm_values: bool = True
    scrape_config_namespace_selector: Free = {}
    ignore_namespace_selectors: bool = False
    additional_scrape_configs: list[Any] | str = []
    additional_scrape_configs_secret: Free = {}
    additional_prometheus_secrets_annotations: Free = {}
    rule_query_offset: str = ""
    keep_dropped_targets: int = 0
    body_size_limit: str = ""
    maximum_startup_duration_seconds: int = 0


class PrometheusValues(Section):
    """Prometheus and what belongs to it."""

    enabled: bool = True
    annotations: Free = {}
    additional_labels: Free = {}
    service_account: ServiceAccount = ServiceAccount()
    service: PrometheusService = PrometheusService()
    service_monitor: SelfMonitor = SelfMonitor()
    ingress: Ingress = Ingress()
    prometheus_spec: PrometheusSpec = PrometheusSpec()
    additional_service_monitors: list[Any] = []
    additional_pod_monitors: list[Any] = []


class Values(Section):
    """All values."""

    name_override: str = ""
    namespace_override: str = ""
    fullname_override: str = ""
    common_labels: Free = {}
    clean_prometheus_operator_object_names: bool = False
    crds: Crds = Crds()
    default_rules: DefaultRules = DefaultRules()
    custom_rules: Free = {}
    additional_prometheus_rules_map: Free = {}
    global_: Annotated[Global, Field(alias="global")] = Global()
    extra_manifests: list[Any] | Free = []
    alertmanager: Alertmanager = Alertmanager()
    grafana: Grafana = Grafana()
    kubernetes_service_monitors: Enabled = Enabled()
    kube_api_server: ApiServer = ApiServer()
    kubelet: Kubelet = Kubelet()
    core_dns: CoreDns = CoreDns()
    kube_controller_manager: ControlPlane = ControlPlane(service=TargetService(port=10257, target_port=10257))
    kube_etcd: ControlPlane = ControlPlane(service=TargetService(port=2381, target_port=2381))
    kube_scheduler: ControlPlane = ControlPlane(service=TargetService(port=10259, target_port=10259))
    kube_proxy: ControlPlane = ControlPlane(service=TargetService(port=10249, target_port=10249))
    kube_state_metrics: Enabled = Enabled()
    kube_state_metrics_values: Annotated[KubeStateMetricsValues, Field(alias="kube-state-metrics")] = (
        KubeStateMetricsValues()
    )
    node_exporter: NodeExporter = NodeExporter()
    node_exporter_values: Annotated[NodeExporterValues, Field(alias="prometheus-node-exporter")] = (
        NodeExporterValues()
    )
    prometheus_operator: PrometheusOperator = PrometheusOperator()
    prometheus: PrometheusValues = PrometheusValues()

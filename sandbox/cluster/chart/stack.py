"""The stack's own objects: Prometheus, Alertmanager, the operator and its webhooks."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from typing import Any

import yaml

from sandbox.cluster.chart.release import (
    HOOK_DELETE_POLICY,
    MONITORING,
    RBAC,
    Release,
    binding,
    endpoint,
    ingress,
    present,
    resource,
    rule,
    service_account,
    untemplated,
)
from sandbox.cluster.chart.values import (
    Alertmanager,
    ComponentService,
    ComponentSpec,
    PrometheusValues,
    SelfMonitor,
)
from sandbox.cluster.kinds import Object

APP_VERSION = "v0.93.1"
"""Version of the operator, the chart's appVersion."""

_RESTRICTED: Object = {
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "readOnlyRootFilesystem": True,
}


def prometheus(release: Release) -> Iterator[Object]:
    """Prometheus: the resource, its Service, account, rights, monitor and generated Secrets."""
    values = release.values.prometheus
    if not values.enabled:
        return
    spec, name, namespace = values.prometheus_spec, f"{release.fullname}-prometheus", release.namespace
    account = values.service_account
    account_name = account.name or (name if account.create else "default")
    yield resource(
        MONITORING,
        "Prometheus",
        release.prometheus,
        namespace,
        release.labels("-prometheus") | values.additional_labels,
        values.annotations,
        spec=_prometheus_spec(release, values, account_name),
    )
    if spec.additional_scrape_configs:
        yield _additional_scrape_configs(release, values)
    if values.service.enabled:
        yield _service(
            release,
            name,
            "-prometheus",
            values.service,
            values.service_monitor,
            spec,
            ports=_reloader_port(values.service.reloader_web_port),
            selector={
                "app.kubernetes.io/name": "prometheus",
                "operator.prometheus.io/name": release.prometheus,
            },
            publishNotReadyAddresses=values.service.publish_not_ready_addresses,
        )
    if values.ingress.enabled:
        entry = values.ingress
        yield ingress(
            name,
            namespace,
            release.labels("-prometheus") | entry.labels,
            untemplated("prometheus.ingress.annotations", entry.annotations),
            entry.ingress_class_name,
            untemplated("prometheus.ingress.hosts", entry.hosts),
            entry.paths or [spec.route_prefix],
            "ImplementationSpecific",
            values.service.port,
            untemplated("prometheus.ingress.tls", entry.tls),
        )
    if account.create:
        yield service_account(
            account_name,
            namespace,
            release.labels(
                "-prometheus",
                **{
                    "app.kubernetes.io/name": f"{release.chart_name}-prometheus",
                    "app.kubernetes.io/component": "prometheus",
                },
            ),
            account.annotations,
            account.automount_service_account_token,
        )
    if release.values.global_.rbac.create:
        read = ["get", "list", "watch"]
        yield resource(
            f"{RBAC}/v1",
            "ClusterRole",
            name,
            None,
            release.labels("-prometheus"),
            rules=[
                rule([""], ["nodes", "nodes/metrics", "services", "endpoints", "pods"], read),
                rule(["discovery.k8s.io"], ["endpointslices"], read),
                rule(["networking.k8s.io"], ["ingresses"], read),
                {"nonResourceURLs": ["/metrics", "/metrics/cadvisor"], "verbs": ["get"]},
            ],
        )
        labels = release.labels("-prometheus")
        yield binding("ClusterRoleBinding", name, None, labels, name, (namespace, account_name))
    if values.service_monitor.self_monitor:
        yield _self_monitor(release, name, "-prometheus", values.service_monitor, spec, {})
    for kind, items in (
        ("ServiceMonitor", values.additional_service_monitors),
        ("PodMonitor", values.additional_pod_monitors),
    ):
        for item in items:
            yield resource(
                MONITORING,
                kind,
                item["name"],
                namespace,
                release.labels("-prometheus") | item.get("additionalLabels", {}),
                spec={key: value for key, value in item.items() if key not in ("name", "additionalLabels")},
            )


def alertmanager(release: Release) -> Iterator[Object]:
    """Alertmanager: the resource, its configuration, Service, account and monitor."""
    values = release.values.alertmanager
    if not values.enabled:
        return
    spec, name, namespace = values.alertmanager_spec, f"{release.fullname}-alertmanager", release.namespace
    account = values.service_account
    account_name = account.name or (name if account.create else "default")
    yield resource(
        MONITORING,
        "Alertmanager",
        release.alertmanager,
        namespace,
        release.labels("-alertmanager") | values.additional_labels,
        values.annotations,
        spec=_alertmanager_spec(release, values, account_name),
    )
    if not spec.use_existing_secret:
        files = {"alertmanager.yaml": yaml.safe_dump(values.config), **values.template_files}
        yield resource(
            "v1",
            "Secret",
            f"alertmanager-{release.alertmanager}",
            namespace,
            release.labels("-alertmanager"),
            values.secret.annotations,
            data={key: encoded(text) for key, text in files.items()},
        )
    if values.service.enabled:
        yield _service(
            release,
            name,
            "-alertmanager",
            values.service,
            values.service_monitor,
            spec,
            ports=_reloader_port(8080),
            selector={"app.kubernetes.io/name": "alertmanager", "alertmanager": release.alertmanager},
        )
    if values.ingress.enabled:
        entry = values.ingress
        yield ingress(
            name,
            namespace,
            release.labels("-alertmanager") | entry.labels,
            untemplated("alertmanager.ingress.annotations", entry.annotations),
            entry.ingress_class_name,
            untemplated("alertmanager.ingress.hosts", entry.hosts),
            entry.paths or [spec.route_prefix],
            "ImplementationSpecific",
            values.service.port,
            untemplated("alertmanager.ingress.tls", entry.tls),
        )
    if account.create:
        yield service_account(
            account_name,
            namespace,
            release.labels(
                "-alertmanager",
                **{
                    "app.kubernetes.io/name": f"{release.chart_name}-alertmanager",
                    "app.kubernetes.io/component": "alertmanager",
                },
            ),
            account.annotations,
            account.automount_service_account_token,
        )
    if values.service_monitor.self_monitor:
        yield _self_monitor(
            release,
            name,
            "-alertmanager",
            values.service_monitor,
            spec,
            {"enableHttp2": values.service_monitor.enable_http2},
        )


def operator(release: Release) -> Iterator[Object]:
    """The operator: Deployment, Service, account, rights, monitor, and its admission webhooks."""
    values = release.values.prometheus_operator
    if not values.enabled:
        return
    name, namespace = release.operator, release.namespace
    labels = _operator_labels(release, "prometheus-operator", f"{release.chart_name}-operator")
    account = values.service_account
    account_name = account.name or (name if account.create else "default")
    selector = {"app": f"{release.chart_name}-operator", "release": release.name}
    yield resource(
        "apps/v1",
        "Deployment",
        name,
        namespace,
        labels | values.labels,
        values.annotations,
        spec={
            "replicas": 1,
            "revisionHistoryLimit": values.revision_history_limit,
            "selector": {"matchLabels": selector},
            "template": {
                "metadata": present(
                    {"labels": labels | values.pod_labels, "annotations": values.pod_annotations}
                ),
                "spec": _operator_pod(release, account_name),
            },
        },
    )
    service = values.service
    tls = values.tls.enabled
    yield resource(
        "v1",
        "Service",
        name,
        namespace,
        labels | service.labels,
        service.annotations,
        spec={
            "ports": [
                {"name": "https", "port": 443, "targetPort": "https"}
                if tls
                else {"name": "http", "port": 8080, "targetPort": "http"}
            ],
            "selector": selector,
            "type": service.type,
        },
    )
    if account.create:
        yield service_account(
            account_name, namespace, labels, account.annotations, account.automount_service_account_token
        )
    if release.values.global_.rbac.create:
        yield resource(f"{RBAC}/v1", "ClusterRole", name, None, labels, rules=_operator_rules())
        yield binding("ClusterRoleBinding", name, None, labels, name, (namespace, account_name))
    monitor = values.service_monitor
    if monitor.self_monitor:
        authority = {"secret": {"name": f"{release.fullname}-admission", "key": "ca", "optional": False}}
        security = {"scheme": "https", "tlsConfig": {"serverName": name, "ca": authority}} if tls else {}
        yield resource(
            MONITORING,
            "ServiceMonitor",
            name,
            namespace,
            labels | monitor.additional_labels,
            spec={
                "endpoints": [
                    endpoint(
                        monitor,
                        "https" if tls else "http",
                        honorLabels=True,
                        scrapeTimeout=monitor.scrape_timeout,
                        **security,
                    )
                ],
                "selector": {"matchLabels": selector},
                "namespaceSelector": {"matchNames": [namespace]},
            },
        )
    if values.admission_webhooks.enabled:
        yield from _webhooks(release)


def encoded(text: str) -> str:
    """`text` as a Secret's `data` holds it."""
    return base64.b64encode(text.encode()).decode()


def _prometheus_spec(release: Release, values: PrometheusValues, account: str) -> Object:
    spec = values.prometheus_spec
    path = "prometheus.prometheusSpec"
    image = spec.image.reference(release.values.global_.image_registry)
    body: Object = {
        "image": image,
        "imagePullPolicy": spec.image.pull_policy,
        "version": spec.version or spec.image.tag,
        "externalUrl": _external_url(release, "prometheus", spec, values.service, values.ingress),
        "shards": spec.shards,
        "enableOTLPReceiver": spec.enable_otlp_receiver,
        "enableAdminAPI": spec.enable_admin_api,
        "retention": spec.retention,
        "walCompression": spec.wal_compression,
        "tsdb": present({"outOfOrderTimeWindow": spec.tsdb.out_of_order_time_window}),
        **_component(release, spec, account, "prometheus"),
        **_selectors(release, values),
    }
    if not spec.disable_alerting and (spec.alerting_endpoints or release.values.alertmanager.enabled):
        body["alerting"] = {"alertmanagers": spec.alerting_endpoints or [_alerting_endpoint(release)]}
    for field, label, clear in (
        (
            "prometheusExternalLabelName",
            spec.prometheus_external_label_name,
            spec.prometheus_external_label_name_clear,
        ),
        (
            "replicaExternalLabelName",
            spec.replica_external_label_name,
            spec.replica_external_label_name_clear,
        ),
    ):
        if label or clear:
            body[field] = "" if clear else label
    if spec.additional_scrape_configs:
        body["additionalScrapeConfigs"] = {
            "name": f"{release.fullname}-prometheus-scrape-confg",
            "key": "additional-scrape-configs.yaml",
        }
    if (secret := spec.additional_scrape_configs_secret).get("enabled"):
        body["additionalScrapeConfigs"] = {"name": secret["name"], "key": secret["key"]}
    return body | present(
        {
            "externalLabels": untemplated(f"{path}.externalLabels", spec.external_labels),
            "enableRemoteWriteReceiver": spec.enable_remote_write_receiver,
            "exemplars": spec.exemplars,
            "enableFeatures": untemplated(f"{path}.enableFeatures", spec.enable_features),
            "otlp": spec.otlp,
            "podTargetLabels": spec.pod_target_labels,
            "scrapeInterval": spec.scrape_interval,
            "scrapeTimeout": spec.scrape_timeout,
            "scrapeProtocols": spec.scrape_protocols,
            "evaluationInterval": spec.evaluation_interval,
            "scrapeNativeHistograms": spec.scrape_native_histograms,
            "scrapeClassicHistograms": spec.scrape_classic_histograms,
            "convertClassicHistogramsToNHCB": spec.convert_classic_histograms_to_nhcb,
            "retentionSize": spec.retention_size,
            "remoteRead": untemplated(f"{path}.remoteRead", spec.remote_read) + spec.additional_remote_read,
            "remoteWrite": untemplated(f"{path}.remoteWrite", spec.remote_write)
            + spec.additional_remote_write,
            "storage": untemplated(f"{path}.storageSpec", spec.storage_spec),
            "query": spec.query,
            "ignoreNamespaceSelectors": spec.ignore_namespace_selectors,
            "keepDroppedTargets": spec.keep_dropped_targets,
            "bodySizeLimit": spec.body_size_limit,
            "ruleQueryOffset": spec.rule_query_offset,
            "maximumStartupDurationSeconds": spec.maximum_startup_duration_seconds,
        }
    )


def _alertmanager_spec(release: Release, values: Alertmanager, account: str) -> Object:
    spec = values.alertmanager_spec
    path = "alertmanager.alertmanagerSpec"
    image = spec.image.reference(release.values.global_.image_registry)
    body: Object = {
        "image": image,
        "imagePullPolicy": spec.image.pull_policy,
        "version": spec.image.tag,
        "externalUrl": _external_url(release, "alertmanager", spec, values.service, values.ingress),
        "retention": spec.retention,
        "alertmanagerConfigSelector": untemplated(
            f"{path}.alertmanagerConfigSelector", spec.alertmanager_config_selector
        ),
        "alertmanagerConfigNamespaceSelector": untemplated(
            f"{path}.alertmanagerConfigNamespaceSelector", spec.alertmanager_config_namespace_selector
        ),
        **_component(release, spec, account, "alertmanager"),
    }
    return body | present(
        {
            "enableFeatures": values.enable_features,
            "configSecret": spec.config_secret,
            "alertmanagerConfiguration": spec.alertmanager_configuration,
            "alertmanagerConfigMatcherStrategy": spec.alertmanager_config_matcher_strategy,
            "storage": untemplated(f"{path}.storage", spec.storage),
            "clusterAdvertiseAddress": spec.cluster_advertise_address,
            "clusterGossipInterval": spec.cluster_gossip_interval,
            "clusterPeerTimeout": spec.cluster_peer_timeout,
            "clusterPushpullInterval": spec.cluster_pushpull_interval,
            "forceEnableClusterMode": spec.force_enable_cluster_mode,
        }
    )


def _component(release: Release, spec: ComponentSpec, account: str, component: str) -> Object:
    """The part of the specification that Prometheus and Alertmanager have in common."""
    name = release.prometheus if component == "prometheus" else release.alertmanager
    instance = "app.kubernetes.io/instance" if component == "prometheus" else "alertmanager"
    term = {
        "topologyKey": spec.pod_anti_affinity_topology_key,
        "labelSelector": {
            "matchExpressions": [
                {"key": "app.kubernetes.io/name", "operator": "In", "values": [component]},
                {"key": instance, "operator": "In", "values": [name]},
            ]
        },
    }
    affinity: Object = dict(spec.affinity)
    if spec.pod_anti_affinity == "hard":
        affinity["podAntiAffinity"] = {"requiredDuringSchedulingIgnoredDuringExecution": [term]}
    elif spec.pod_anti_affinity == "soft":
        weighted = {"weight": 100, "podAffinityTerm": term}
        affinity["podAntiAffinity"] = {"preferredDuringSchedulingIgnoredDuringExecution": [weighted]}
    path = f"{component}.{component}Spec"
    return {
        "automountServiceAccountToken": spec.automount_service_account_token,
        "serviceAccountName": account,
        "paused": spec.paused,
        "replicas": spec.replicas,
        "logLevel": spec.log_level,
        "logFormat": spec.log_format,
        "listenLocal": spec.listen_local,
        "portName": spec.port_name,
        "hostNetwork": spec.host_network,
    } | present(
        {
            "routePrefix": spec.route_prefix,
            "secrets": untemplated(f"{path}.secrets", spec.secrets),
            "configMaps": untemplated(f"{path}.configMaps", spec.config_maps),
            "additionalArgs": spec.additional_args,
            "web": spec.web,
            "nodeSelector": spec.node_selector,
            "resources": spec.resources,
            "securityContext": spec.security_context,
            "dnsConfig": spec.dns_config,
            "dnsPolicy": spec.dns_policy,
            "persistentVolumeClaimRetentionPolicy": spec.persistent_volume_claim_retention_policy,
            "podMetadata": untemplated(f"{path}.podMetadata", spec.pod_metadata),
            "affinity": affinity,
            "tolerations": spec.tolerations,
            "topologySpreadConstraints": spec.topology_spread_constraints,
            "imagePullSecrets": release.values.global_.image_pull_secrets,
            "containers": spec.containers,
            "initContainers": spec.init_containers,
            "priorityClassName": spec.priority_class_name,
            "volumes": spec.volumes,
            "volumeMounts": spec.volume_mounts,
            "minReadySeconds": spec.min_ready_seconds,
            "terminationGracePeriodSeconds": spec.termination_grace_period_seconds,
            "hostAliases": spec.host_aliases,
        }
    )


def _selectors(release: Release, values: PrometheusValues) -> Object:
    """What the Prometheus resource selects: everything, or what has the label `release` of this release."""
    spec = values.prometheus_spec
    ours = {"matchLabels": {"release": release.name}}
    selectors = {
        "serviceMonitor": (
            spec.service_monitor_selector,
            spec.service_monitor_selector_nil_uses_helm_values,
            spec.service_monitor_namespace_selector,
        ),
        "podMonitor": (
            spec.pod_monitor_selector,
            spec.pod_monitor_selector_nil_uses_helm_values,
            spec.pod_monitor_namespace_selector,
        ),
        "probe": (
            spec.probe_selector,
            spec.probe_selector_nil_uses_helm_values,
            spec.probe_namespace_selector,
        ),
        "rule": (spec.rule_selector, spec.rule_selector_nil_uses_helm_values, spec.rule_namespace_selector),
        "scrapeConfig": (
            spec.scrape_config_selector,
            spec.scrape_config_selector_nil_uses_helm_values,
            spec.scrape_config_namespace_selector,
        ),
    }
    body: Object = {}
    for kind, (selector, nil_uses_helm_values, namespaces) in selectors.items():
        path = f"prometheus.prometheusSpec.{kind}Selector"
        body[f"{kind}Selector"] = untemplated(path, selector) or (ours if nil_uses_helm_values else {})
        body[f"{kind}NamespaceSelector"] = namespaces
    return body


def _alerting_endpoint(release: Release) -> Object:
    values = release.values.alertmanager
    return {
        "namespace": release.namespace,
        "name": f"{release.fullname}-alertmanager",
        "port": values.alertmanager_spec.port_name,
        "apiVersion": values.api_version,
    } | present({"pathPrefix": values.alertmanager_spec.route_prefix})


def _external_url(
    release: Release, component: str, spec: ComponentSpec, service: ComponentService, entry: Any
) -> str:
    if spec.external_url:
        url: str = untemplated(f"{component}.{component}Spec.externalUrl", spec.external_url)
        return url
    if entry.enabled and entry.hosts:
        scheme = "https" if entry.tls and component == "prometheus" else "http"
        return f"{scheme}://{entry.hosts[0]}{spec.route_prefix}"
    return f"http://{release.fullname}-{component}.{release.namespace}:{service.port}"


def _additional_scrape_configs(release: Release, values: PrometheusValues) -> Object:
    spec = values.prometheus_spec
    jobs = untemplated("prometheus.prometheusSpec.additionalScrapeConfigs", spec.additional_scrape_configs)
    name = f"{release.fullname}-prometheus-scrape-confg"  # the chart's spelling
    text = jobs if isinstance(jobs, str) else yaml.safe_dump(jobs)
    return resource(
        "v1",
        "Secret",
        name,
        release.namespace,
        release.labels("-prometheus-scrape-confg"),
        spec.additional_prometheus_secrets_annotations,
        data={"additional-scrape-configs.yaml": encoded(text)},
    )


def _reloader_port(port: int) -> list[Object]:
    if not port:
        return []
    return [{"name": "reloader-web", "appProtocol": "http", "port": port, "targetPort": "reloader-web"}]


def _service(
    release: Release,
    name: str,
    suffix: str,
    service: ComponentService,
    monitor: SelfMonitor,
    spec: ComponentSpec,
    ports: list[Object],
    **fields: Any,
) -> Object:
    web: Object = {"name": spec.port_name, "port": service.port, "targetPort": service.target_port}
    if suffix == "-alertmanager":
        web["protocol"] = "TCP"
    if service.type == "NodePort":
        web["nodePort"] = service.node_port
    policy = {} if service.type == "ClusterIP" else {"externalTrafficPolicy": service.external_traffic_policy}
    return resource(
        "v1",
        "Service",
        name,
        release.namespace,
        release.labels(suffix, **{"self-monitor": str(monitor.self_monitor).lower()}) | service.labels,
        service.annotations,
        spec={
            "ports": [web, *ports, *service.additional_ports],
            "type": service.type,
            **policy,
            **fields,
            **present(
                {
                    "clusterIP": service.cluster_ip,
                    "externalIPs": service.external_ips,
                    "loadBalancerIP": service.load_balancer_ip,
                    "loadBalancerSourceRanges": service.load_balancer_source_ranges,
                    "sessionAffinity": service.session_affinity,
                }
            ),
        },
    )


def _self_monitor(
    release: Release, name: str, suffix: str, monitor: SelfMonitor, spec: ComponentSpec, web: Object
) -> Object:
    app = f"{release.chart_name}{suffix}"
    security = {"scheme": monitor.scheme, "tlsConfig": monitor.tls_config}
    path = f"{spec.route_prefix.removesuffix('/')}/metrics"
    limits = present({"sampleLimit": monitor.sample_limit})
    return resource(
        MONITORING,
        "ServiceMonitor",
        name,
        release.namespace,
        release.labels(suffix) | monitor.additional_labels,
        spec={
            **limits,
            "selector": {"matchLabels": {"app": app, "release": release.name, "self-monitor": "true"}},
            "namespaceSelector": {"matchNames": [release.namespace]},
            "endpoints": [
                endpoint(monitor, spec.port_name, path=path, **security) | web,
                endpoint(monitor, "reloader-web", path="/metrics", **security),
            ],
        },
    )


def _operator_labels(release: Release, component: str, app: str) -> Object:
    return {
        **release.labels(None),
        "app": app,
        "app.kubernetes.io/name": f"{release.chart_name}-prometheus-operator",
        "app.kubernetes.io/component": component,
    }


def _operator_rules() -> list[Object]:
    every, read = ["*"], ["get", "list", "watch"]
    kinds = ("alertmanagers", "prometheuses", "prometheusagents", "thanosrulers")
    owned = [f"{kind}{part}" for kind in kinds for part in ("", "/finalizers", "/status")]
    read_kinds = ("scrapeconfigs", "servicemonitors", "podmonitors", "probes", "prometheusrules")
    owned += [f"{kind}{part}" for kind in read_kinds for part in ("", "/status")]
    return [
        rule(["monitoring.coreos.com"], ["alertmanagerconfigs", *owned], every),
        rule(["apps"], ["statefulsets"], every),
        rule([""], ["configmaps", "secrets"], every),
        rule([""], ["pods"], ["list", "delete"]),
        rule([""], ["services", "services/finalizers", "endpoints"], ["get", "create", "update", "delete"]),
        rule([""], ["nodes"], ["list", "watch"]),
        rule([""], ["namespaces"], read),
        rule(["", "events.k8s.io"], ["events"], ["patch", "create"]),
        rule(["networking.k8s.io"], ["ingresses"], read),
        rule(["storage.k8s.io"], ["storageclasses"], ["get"]),
        rule(["discovery.k8s.io"], ["endpointslices"], ["create", *read, "update", "delete"]),
    ]


def _operator_pod(release: Release, account: str) -> Object:
    values = release.values.prometheus_operator
    tls = values.tls
    port = "https" if tls.enabled else "http"
    number = tls.internal_port if tls.enabled else 8080
    probe = {"httpGet": {"path": "/healthz", "port": port, "scheme": port.upper()}, "timeoutSeconds": 1}
    arguments = [
        f"--kubelet-service={values.kubelet_service.namespace}/{release.fullname}-kubelet",
        f"--kubelet-endpoints={str(values.kubelet_endpoints_enabled).lower()}",
        f"--kubelet-endpointslice={str(values.kubelet_endpoint_slice_enabled).lower()}",
        f"--prometheus-config-reloader=quay.io/prometheus-operator/prometheus-config-reloader:{APP_VERSION}",
        f"--web.enable-tls={str(tls.enabled).lower()}",
        f"--web.listen-address=:{number}",
        *values.extra_args,
    ]
    container: Object = {
        "name": release.chart_name,
        "image": values.image.reference(release.values.global_.image_registry, APP_VERSION),
        "imagePullPolicy": values.image.pull_policy,
        "args": arguments,
        "ports": [{"containerPort": number, "name": port}],
        "env": [{"name": name, "value": str(value)} for name, value in values.env.items()],
        "resources": values.resources,
        "securityContext": _RESTRICTED,
        "readinessProbe": probe,
        "livenessProbe": probe,
    }
    pod: Object = {
        "containers": [container],
        "serviceAccountName": account,
        "automountServiceAccountToken": True,
        "terminationGracePeriodSeconds": 30,
    }
    if tls.enabled:
        container["volumeMounts"] = [{"name": "tls-secret", "mountPath": "/cert", "readOnly": True}]
        secret = {"defaultMode": 420, "secretName": f"{release.fullname}-admission"}
        pod["volumes"] = [{"name": "tls-secret", "secret": secret}]
    return pod | present(
        {
            "securityContext": values.security_context,
            "nodeSelector": values.node_selector,
            "tolerations": values.tolerations,
            "affinity": values.affinity,
        }
    )


def _webhooks(release: Release) -> Iterator[Object]:
    values = release.values.prometheus_operator.admission_webhooks
    name, namespace = f"{release.fullname}-admission", release.namespace
    component = "prometheus-operator-webhook"

    def labels(app: str) -> Object:
        return _operator_labels(release, component, f"{release.chart_name}-admission{app}")

    def hook(
        name: str, phases: str, api_version: str, kind: str, namespace: str | None, **body: Any
    ) -> Object:
        app = name.removeprefix(f"{release.fullname}-admission")
        annotations = {"helm.sh/hook": phases, "helm.sh/hook-delete-policy": HOOK_DELETE_POLICY}
        return resource(api_version, kind, name, namespace, labels(app), annotations, **body)

    if values.patch.enabled:
        always = "pre-install,pre-upgrade,post-install,post-upgrade"
        subjects = [{"kind": "ServiceAccount", "name": name, "namespace": namespace}]
        yield hook(name, always, "v1", "ServiceAccount", namespace, automountServiceAccountToken=True)
        hooks = ["validatingwebhookconfigurations", "mutatingwebhookconfigurations"]
        rules = [rule(["admissionregistration.k8s.io"], hooks, ["get", "update", "patch"])]
        role = {"apiGroup": RBAC, "kind": "ClusterRole", "name": name}
        yield hook(name, always, f"{RBAC}/v1", "ClusterRole", None, rules=rules)
        yield hook(name, always, f"{RBAC}/v1", "ClusterRoleBinding", None, roleRef=role, subjects=subjects)
        rules = [rule([""], ["secrets"], ["get", "create"])]
        yield hook(name, always, f"{RBAC}/v1", "Role", namespace, rules=rules)
        role = role | {"kind": "Role"}
        yield hook(name, always, f"{RBAC}/v1", "RoleBinding", namespace, roleRef=role, subjects=subjects)
        host = f"{release.operator},{release.operator}.{namespace}.svc"
        policy = f"--patch-failure-policy={values.failure_policy}"
        for task, phases, arguments in (
            ("create", "pre-install,pre-upgrade", [f"--host={host}"]),
            ("patch", "post-install,post-upgrade", [f"--webhook-name={name}", policy]),
        ):
            container = {
                "name": task,
                "image": "ghcr.io/jkroepke/kube-webhook-certgen:1.8.7",
                "imagePullPolicy": "IfNotPresent",
                "args": [task, *arguments, f"--namespace={namespace}", f"--secret-name={name}"],
                "securityContext": _RESTRICTED,
                "resources": {},
            }
            job = f"{name}-{task}"
            template = {
                "metadata": {"name": job, "labels": labels(f"-{task}")},
                "spec": {
                    "containers": [container],
                    "restartPolicy": "OnFailure",
                    "serviceAccountName": name,
                    "securityContext": {"runAsGroup": 2000, "runAsNonRoot": True, "runAsUser": 2000},
                },
            }
            spec = {"ttlSecondsAfterFinished": 60, "template": template}
            yield hook(job, phases, "batch/v1", "Job", namespace, spec=spec)
    for kind, calls in (
        ("MutatingWebhookConfiguration", [("prometheusrulemutate", "prometheusrules", "*", "mutate")]),
        (
            "ValidatingWebhookConfiguration",
            [
                ("prometheusrulevalidate", "prometheusrules", "*", "validate"),
                ("alertmanagerconfigsvalidate", "alertmanagerconfigs", "v1alpha1", "validate"),
            ],
        ),
    ):
        webhooks = [
            {
                "name": f"{call}.monitoring.coreos.com",
                "failurePolicy": values.failure_policy or "Ignore",
                "rules": [
                    {
                        "apiGroups": ["monitoring.coreos.com"],
                        "apiVersions": [version],
                        "resources": [plural],
                        "operations": ["CREATE", "UPDATE"],
                    }
                ],
                "clientConfig": {
                    "service": {
                        "namespace": namespace,
                        "name": release.operator,
                        "path": f"/admission-{plural}/{action}",
                    }
                },
                "timeoutSeconds": values.timeout_seconds,
                "admissionReviewVersions": ["v1", "v1beta1"],
                "sideEffects": "None",
                **present(
                    {"namespaceSelector": values.namespace_selector, "objectSelector": values.object_selector}
                ),
            }
            for call, plural, version, action in calls
        ]
        yield resource(
            "admissionregistration.k8s.io/v1",
            kind,
            name,
            None,
            labels(""),
            values.annotations,
            webhooks=webhooks,
        )

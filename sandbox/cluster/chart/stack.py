"""Prometheus and Alertmanager."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import yaml

from sandbox.cluster.chart.release import (
    MONITORING,
    RBAC,
    Release,
    account_name,
    binding,
    encoded,
    endpoint,
    ingress,
    present,
    resource,
    rule,
    service_account,
    untemplated,
)
from sandbox.cluster.chart.section import ServiceAccount
from sandbox.cluster.chart.values import (
    Alertmanager,
    ComponentService,
    ComponentSpec,
    Ingress,
    PrometheusValues,
    SelfMonitor,
)
from sandbox.cluster.kinds import Object


def prometheus(release: Release) -> Iterator[Object]:
    """Prometheus: the resource, its Service, account, rights, monitor and generated Secrets."""
    values = release.values.prometheus
    if not values.enabled:
        return
    spec, name, namespace = values.prometheus_spec, f"{release.fullname}-prometheus", release.namespace
    account = account_name(values.service_account, name)
    yield resource(
        MONITORING,
        "Prometheus",
        release.prometheus,
        namespace,
        release.labels("-prometheus") | values.additional_labels,
        values.annotations,
        spec=_prometheus_spec(release, values, account),
    )
    if spec.additional_scrape_configs:
        yield _additional_scrape_configs(release, values)
    if values.service.enabled:
        yield _service(
            release,
            "prometheus",
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
        yield _ingress(release, "prometheus", values.ingress, spec, values.service)
    if values.service_account.create:
        yield _service_account(release, "prometheus", values.service_account, account)
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
        yield binding("ClusterRoleBinding", name, None, labels, name, (namespace, account))
    if values.service_monitor.self_monitor:
        yield _self_monitor(release, "prometheus", values.service_monitor, spec, {})
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
    account = account_name(values.service_account, name)
    yield resource(
        MONITORING,
        "Alertmanager",
        release.alertmanager,
        namespace,
        release.labels("-alertmanager") | values.additional_labels,
        values.annotations,
        spec=_alertmanager_spec(release, values, account),
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
            "alertmanager",
            values.service,
            values.service_monitor,
            spec,
            ports=_reloader_port(8080),
            selector={"app.kubernetes.io/name": "alertmanager", "alertmanager": release.alertmanager},
        )
    if values.ingress.enabled:
        yield _ingress(release, "alertmanager", values.ingress, spec, values.service)
    if values.service_account.create:
        yield _service_account(release, "alertmanager", values.service_account, account)
    if values.service_monitor.self_monitor:
        yield _self_monitor(
            release,
            "alertmanager",
            values.service_monitor,
            spec,
            {"enableHttp2": values.service_monitor.enable_http2},
        )


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
    release: Release, component: str, spec: ComponentSpec, service: ComponentService, entry: Ingress
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


def _ingress(
    release: Release, component: str, entry: Ingress, spec: ComponentSpec, service: ComponentService
) -> Object:
    return ingress(
        f"{release.fullname}-{component}",
        release.namespace,
        release.labels(f"-{component}") | entry.labels,
        untemplated(f"{component}.ingress.annotations", entry.annotations),
        entry.ingress_class_name,
        untemplated(f"{component}.ingress.hosts", entry.hosts),
        entry.paths or [spec.route_prefix],
        "ImplementationSpecific",
        service.port,
        untemplated(f"{component}.ingress.tls", entry.tls),
    )


def _service_account(release: Release, component: str, account: ServiceAccount, name: str) -> Object:
    labels = {
        "app.kubernetes.io/name": f"{release.chart_name}-{component}",
        "app.kubernetes.io/component": component,
    }
    return service_account(
        name,
        release.namespace,
        release.labels(f"-{component}", **labels),
        account.annotations,
        account.automount_service_account_token,
    )


def _service(
    release: Release,
    component: str,
    service: ComponentService,
    monitor: SelfMonitor,
    spec: ComponentSpec,
    ports: list[Object],
    **fields: Any,
) -> Object:
    web: Object = {"name": spec.port_name, "port": service.port, "targetPort": service.target_port}
    if component == "alertmanager":
        web["protocol"] = "TCP"
    if service.type == "NodePort":
        web["nodePort"] = service.node_port
    policy = {} if service.type == "ClusterIP" else {"externalTrafficPolicy": service.external_traffic_policy}
    return resource(
        "v1",
        "Service",
        f"{release.fullname}-{component}",
        release.namespace,
        release.labels(f"-{component}", **{"self-monitor": str(monitor.self_monitor).lower()})
        | service.labels,
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
    release: Release, component: str, monitor: SelfMonitor, spec: ComponentSpec, web: Object
) -> Object:
    app = f"{release.chart_name}-{component}"
    security = {"scheme": monitor.scheme, "tlsConfig": monitor.tls_config}
    path = f"{spec.route_prefix.removesuffix('/')}/metrics"
    limits = present({"sampleLimit": monitor.sample_limit})
    return resource(
        MONITORING,
        "ServiceMonitor",
        f"{release.fullname}-{component}",
        release.namespace,
        release.labels(f"-{component}") | monitor.additional_labels,
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

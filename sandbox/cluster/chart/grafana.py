"""Grafana: the sub-chart, and the datasources that the stack adds to it."""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterator, Mapping
from typing import Any

import yaml

from sandbox.cluster.chart.grafana_values import DashboardSidecar, DatasourceSidecar, Grafana
from sandbox.cluster.chart.release import (
    HOOK_DELETE_POLICY,
    MONITORING,
    RBAC,
    Release,
    account_name,
    binding,
    encoded,
    ingress,
    present,
    resource,
    rule,
    service_account,
    untemplated,
)
from sandbox.cluster.chart.section import ChartError, Free
from sandbox.cluster.kinds import Object

_CHART = "grafana-12.11.1"
_APP_VERSION = "13.2.0"
_SENSITIVE = (
    ("database", "password"),
    ("smtp", "password"),
    ("security", "secret_key"),
    ("security", "admin_password"),
    ("auth.basic", "password"),
    ("auth.ldap", "bind_password"),
    ("auth.google", "client_secret"),
    ("auth.github", "client_secret"),
    ("auth.gitlab", "client_secret"),
    ("auth.generic_oauth", "client_secret"),
    ("auth.okta", "client_secret"),
    ("auth.azuread", "client_secret"),
    ("auth.grafana_com", "client_secret"),
    ("auth.grafananet", "client_secret"),
    ("azure", "user_identity_client_secret"),
    ("unified_alerting", "ha_redis_password"),
    ("metrics", "basic_auth_password"),
    ("external_image_storage.s3", "secret_key"),
    ("external_image_storage.webdav", "password"),
    ("external_image_storage.azure_blob", "account_key"),
)
_EXPANSION = re.compile(r"\$(?:__(?:env|file|vault))?\{[^}]+\}")


def grafana(release: Release) -> Iterator[Object]:
    """Grafana's objects, unless `grafana.enabled` is off.

    Raises ChartError when grafana.ini holds a password as it is (`assertNoLeakedSecrets`).
    """
    values = release.values.grafana
    if not values.enabled:
        return
    name, namespace, labels = release.subchart("grafana"), _namespace(release), _labels(release)
    own = labels | values.extra_labels
    selector = {"app.kubernetes.io/name": "grafana", "app.kubernetes.io/instance": release.name}
    files = _files(values)
    yield resource("v1", "ConfigMap", name, namespace, own, values.annotations, data=files)
    if values.sidecar.dashboards.enabled:
        provider = {"provider.yaml": _dashboard_provider(values.sidecar.dashboards)}
        yield resource(
            "v1", "ConfigMap", f"{name}-config-dashboards", namespace, own, values.annotations, data=provider
        )
    if not values.admin.existing_secret:
        # The real chart looks an existing password up; a new one at each render is what it does without.
        password = values.admin_password or secrets.token_urlsafe(30)
        data = {"admin-user": values.admin_user, "admin-password": password}
        yield resource(
            "v1",
            "Secret",
            name,
            namespace,
            own | {"app.kubernetes.io/component": "admin-secret"},
            values.annotations,
            type="Opaque",
            data={key: encoded(text) for key, text in data.items()} | {"ldap-toml": ""},
        )
    claim = values.persistence
    if claim.enabled and not claim.existing_claim:
        yield _claim(release, name, namespace, own)
    yield resource(
        "apps/v1",
        "Deployment",
        name,
        namespace,
        own,
        values.annotations,
        spec={
            "replicas": values.replicas,
            "revisionHistoryLimit": values.revision_history_limit,
            "selector": {"matchLabels": selector},
            "strategy": {"type": values.deployment_strategy.type},
            "template": {
                "metadata": {
                    "labels": own | values.pod_labels,
                    "annotations": {
                        "kubectl.kubernetes.io/default-container": "grafana",
                        **values.pod_annotations,
                    },
                },
                "spec": _pod(release, name),
            },
        },
    )
    if values.service.enabled:
        yield _service(values, name, namespace, own, selector)
    yield from _access(release, name, namespace, own)
    yield from _monitor(release, name, namespace, own, selector)
    if values.ingress.enabled:
        entry = values.ingress
        yield ingress(
            name,
            namespace,
            own | entry.labels,
            untemplated("grafana.ingress.annotations", entry.annotations),
            entry.ingress_class_name,
            untemplated("grafana.ingress.hosts", entry.hosts),
            [entry.path],
            entry.path_type,
            values.service.port,
            untemplated("grafana.ingress.tls", entry.tls),
        )
    if values.test_framework.enabled:
        yield from _test(name, namespace, own)


def datasources(release: Release) -> Iterator[Object]:
    """The ConfigMap with the datasources for Prometheus and Alertmanager.

    It comes with the datasource sidecar only: without it `additionalDataSources` are silently ignored.
    """
    values = release.values.grafana
    sidecar = values.sidecar.datasources
    if not (values.enabled and sidecar.enabled) and not values.force_deploy_datasources:
        return
    found: list[Any] = []
    if sidecar.default_datasource_enabled:
        found.append(_prometheus_datasource(release, sidecar))
        if sidecar.alertmanager.enabled:
            found.append(_alertmanager_datasource(release, sidecar))
    document = {"apiVersion": 1, "datasources": found} | present(
        {
            "deleteDatasources": untemplated("grafana.deleteDatasources", values.delete_datasources),
            "prune": values.prune,
        }
    )
    found += untemplated("grafana.additionalDataSources", values.additional_data_sources)
    yield resource(
        "v1",
        "ConfigMap",
        f"{release.fullname}-grafana-datasource",
        _namespace(release),
        {sidecar.label: sidecar.label_value} | release.labels("-grafana"),
        sidecar.annotations,
        data={"datasource.yaml": yaml.safe_dump(document, sort_keys=False)},
    )


def _namespace(release: Release) -> str:
    return release.values.grafana.namespace_override or release.namespace


def _labels(release: Release) -> Object:
    return {
        "helm.sh/chart": _CHART,
        "app.kubernetes.io/name": "grafana",
        "app.kubernetes.io/instance": release.name,
        "app.kubernetes.io/version": release.values.grafana.image.tag or _APP_VERSION,
    }


def _prometheus_datasource(release: Release, sidecar: DatasourceSidecar) -> Object:
    values = release.values.prometheus
    spec = values.prometheus_spec
    interval = sidecar.default_datasource_scrape_interval or spec.scrape_interval or "30s"
    address = f"http://{release.fullname}-prometheus.{release.namespace}:{values.service.port}"
    return {
        "name": sidecar.name,
        "type": "prometheus",
        "uid": sidecar.uid,
        "url": sidecar.url or f"{address}/{spec.route_prefix.removeprefix('/')}",
        "access": "proxy",
        "isDefault": sidecar.is_default_datasource,
        "jsonData": {
            **sidecar.extra_json_data,
            "httpMethod": sidecar.http_method,
            "timeInterval": interval,
            **present({"timeout": sidecar.timeout}),
        },
    }


def _alertmanager_datasource(release: Release, sidecar: DatasourceSidecar) -> Object:
    values, source = release.values.alertmanager, sidecar.alertmanager
    prefix = values.alertmanager_spec.route_prefix.removeprefix("/")
    address = f"http://{release.fullname}-alertmanager.{release.namespace}:{values.service.port}/{prefix}"
    return {
        "name": source.name,
        "type": "alertmanager",
        "uid": source.uid,
        "url": source.url or address,
        "access": "proxy",
        "jsonData": {
            "handleGrafanaManagedAlerts": source.handle_grafana_managed_alerts,
            "implementation": source.implementation,
        },
    }


def _files(values: Grafana) -> Object:
    """`data` of Grafana's ConfigMap: grafana.ini, datasources and providers given as values."""
    if values.assert_no_leaked_secrets:
        _assert_no_leaked_secrets(values.grafana_ini)
    sections = untemplated('grafana."grafana.ini"', values.grafana_ini)
    lines = [_setting(key, value) for key, value in sorted(sections.items()) if not isinstance(value, dict)]
    for section, settings in sorted(sections.items()):
        if isinstance(settings, dict):
            lines += [f"[{section}]", *(_setting(key, value) for key, value in sorted(settings.items()))]
    files: Object = {"grafana.ini": "\n".join(lines) + "\n"}
    for key, document in (values.datasources | values.dashboard_providers).items():
        files[key] = yaml.safe_dump(document)
    return files | present({"plugins": ",".join(values.plugins)})


def _setting(key: str, value: Any) -> str:
    text = str(value).lower() if isinstance(value, bool) else str(value)
    return f"{key} = {text}"


def _assert_no_leaked_secrets(ini: Mapping[str, Any]) -> None:
    for section, key in _SENSITIVE:
        settings = ini.get(section)
        if isinstance(settings, dict) and key in settings and not _EXPANSION.search(str(settings[key])):
            raise ChartError(
                f"Sensitive key '{section}.{key}' should not be defined explicitly in values. Use variable "
                "expansion instead. You can disable this client-side validation by changing the value of "
                "assertNoLeakedSecrets."
            )


def _dashboard_provider(sidecar: DashboardSidecar) -> str:
    provider = sidecar.provider
    document = {
        "apiVersion": 1,
        "providers": [
            {
                "name": provider.name,
                "orgId": provider.orgid,
                "folder": provider.folder,
                "folderUid": provider.folder_uid,
                "type": provider.type,
                "disableDeletion": provider.disable_delete,
                "allowUiUpdates": provider.allow_ui_updates,
                "updateIntervalSeconds": 30,
                "options": {
                    "foldersFromFilesStructure": provider.folders_from_files_structure,
                    "path": sidecar.folder,
                },
            }
        ],
    }
    return yaml.safe_dump(document, sort_keys=False)


def _claim(release: Release, name: str, namespace: str, labels: Object) -> Object:
    claim = release.values.grafana.persistence
    body = resource(
        "v1",
        "PersistentVolumeClaim",
        name,
        namespace,
        labels | claim.extra_pvc_labels,
        claim.annotations,
        spec={
            "accessModes": claim.access_modes,
            "resources": {"requests": {"storage": claim.size}},
            **present({"storageClassName": claim.storage_class_name, "volumeName": claim.volume_name}),
        },
    )
    body["metadata"] |= present({"finalizers": claim.finalizers})
    return body


def _service(values: Grafana, name: str, namespace: str, labels: Object, selector: Object) -> Object:
    service = values.service
    balanced = service.type == "LoadBalancer"
    port: Object = {
        "name": service.port_name,
        "port": service.port,
        "protocol": "TCP",
        "targetPort": "grafana",
    }
    port |= present({"appProtocol": service.app_protocol})
    if service.type == "NodePort" and service.node_port:
        port["nodePort"] = service.node_port
    fields = {
        "clusterIP": "" if balanced else service.cluster_ip,
        "loadBalancerIP": service.load_balancer_ip if balanced else "",
        "loadBalancerClass": service.load_balancer_class if balanced else "",
        "loadBalancerSourceRanges": service.load_balancer_source_ranges if balanced else [],
        "externalIPs": service.external_ips,
        "externalTrafficPolicy": service.external_traffic_policy,
        "sessionAffinity": service.session_affinity,
    }
    return resource(
        "v1",
        "Service",
        name,
        namespace,
        labels | service.labels,
        untemplated("grafana.service.annotations", service.annotations),
        spec={"type": service.type, **present(fields), "ports": [port], "selector": selector},
    )


def _access(release: Release, name: str, namespace: str, labels: Object) -> Iterator[Object]:
    values = release.values.grafana
    account, sidecar = values.service_account, values.sidecar
    used = account_name(account, name)
    if account.create:
        yield service_account(
            used, namespace, labels | account.labels, account.annotations, account.auto_mount
        )
    if not values.rbac.create:
        return
    watching = sidecar.dashboards.enabled or sidecar.datasources.enabled
    watch = [rule([""], ["configmaps", "secrets"], ["get", "watch", "list"])] if watching else []
    more, subject, notes = values.rbac.extra_cluster_role_rules, (namespace, used), values.annotations
    if values.rbac.namespaced:
        yield resource(f"{RBAC}/v1", "Role", name, namespace, labels, notes, rules=watch)
        yield binding("RoleBinding", name, namespace, labels, name, subject, notes)
    if more or not values.rbac.namespaced:
        role, rules = f"{name}-clusterrole", [*watch, *more]
        yield resource(f"{RBAC}/v1", "ClusterRole", role, None, labels, notes, rules=rules)
        yield binding("ClusterRoleBinding", f"{role}binding", None, labels, role, subject, notes)


def _monitor(
    release: Release, name: str, namespace: str, labels: Object, selector: Object
) -> Iterator[Object]:
    values = release.values.grafana
    monitor = values.service_monitor
    if not monitor.enabled:
        return
    scraped = {"port": values.service.port_name, "honorLabels": True} | present(
        {
            "path": monitor.path,
            "scheme": monitor.scheme,
            "interval": monitor.interval,
            "scrapeTimeout": monitor.scrape_timeout,
            "tlsConfig": monitor.tls_config,
            "relabelings": monitor.relabelings,
            "metricRelabelings": monitor.metric_relabelings,
            "basicAuth": monitor.basic_auth,
        }
    )
    yield resource(
        MONITORING,
        "ServiceMonitor",
        name,
        namespace,
        {"release": release.name} | labels | monitor.labels,
        spec={
            "endpoints": [scraped],
            "jobLabel": release.name,
            "selector": {"matchLabels": selector},
            "namespaceSelector": {"matchNames": [namespace]},
            **present({"targetLabels": monitor.target_labels}),
        },
    )


def _pod(release: Release, name: str) -> Object:
    values = release.values.grafana
    registry = release.values.global_.image_registry
    mounts, volumes = _volumes(values, name)
    container: Object = {
        "name": "grafana",
        "image": values.image.reference(registry, _APP_VERSION),
        "imagePullPolicy": values.image.pull_policy,
        "volumeMounts": mounts,
        "ports": [{"name": "grafana", "containerPort": 3000, "protocol": "TCP"}],
        "env": [
            *_credentials(values, name, "GF_SECURITY_ADMIN_USER", "GF_SECURITY_ADMIN_PASSWORD"),
            *({"name": key, "value": str(value)} for key, value in values.env.items()),
            *({"name": key, "valueFrom": source} for key, source in values.env_value_from.items()),
        ],
        **present(
            {
                "readinessProbe": values.readiness_probe,
                "livenessProbe": values.liveness_probe,
                "startupProbe": values.startup_probe,
                "resources": values.resources,
                "envFrom": _env_from(values),
            }
        ),
    }
    initial: list[Any] = []
    if values.persistence.enabled and values.init_chown_data.enabled:
        chown = {
            "name": "init-chown-data",
            "image": "docker.io/library/busybox:1.38.0",
            "command": ["chown", "-R", "472:472", "/var/lib/grafana"],
            "securityContext": {"runAsNonRoot": False, "runAsUser": 0},
            "volumeMounts": [{"name": "storage", "mountPath": "/var/lib/grafana"}],
        }
        initial.append(chown)
    sidecars = [
        _sidecar(values, name, registry, sidecar)
        for sidecar in (values.sidecar.dashboards, values.sidecar.datasources)
        if sidecar.enabled
    ]
    return {
        "serviceAccountName": account_name(values.service_account, name),
        "automountServiceAccountToken": True,
        "containers": [*sidecars, container],
        "volumes": volumes,
        **present(
            {
                "securityContext": values.security_context,
                "initContainers": [*initial, *values.extra_init_containers],
                "nodeSelector": values.node_selector,
                "tolerations": values.tolerations,
                "affinity": values.affinity,
                "topologySpreadConstraints": values.topology_spread_constraints,
                "priorityClassName": values.priority_class_name,
            }
        ),
    }


def _volumes(values: Grafana, name: str) -> tuple[list[Object], list[Object]]:
    """Mounts of Grafana's container and volumes of its pod."""
    mounts: list[Object] = [
        {"name": "config", "mountPath": "/etc/grafana/grafana.ini", "subPath": "grafana.ini"},
        {"name": "storage", "mountPath": "/var/lib/grafana"},
        {"name": "search", "mountPath": "/var/lib/grafana-search"},
    ]
    claim = values.persistence
    storage: Object = (
        {"persistentVolumeClaim": {"claimName": claim.existing_claim or name}}
        if claim.enabled
        else {"emptyDir": {}}
    )
    volumes: list[Object] = [
        {"name": "config", "configMap": {"name": name}},
        {"name": "storage", **storage},
        {"name": "search", "emptyDir": {}},
    ]
    if (dashboards := values.sidecar.dashboards).enabled:
        provider = "/etc/grafana/provisioning/dashboards/sc-dashboardproviders.yaml"
        mounts += [
            {"name": "sc-dashboard-volume", "mountPath": dashboards.folder},
            {"name": "sc-dashboard-provider", "mountPath": provider, "subPath": "provider.yaml"},
        ]
        volumes += [
            {"name": "sc-dashboard-volume", "emptyDir": {}},
            {"name": "sc-dashboard-provider", "configMap": {"name": f"{name}-config-dashboards"}},
        ]
    if values.sidecar.datasources.enabled:
        path = "/etc/grafana/provisioning/datasources"
        mounts.append({"name": "sc-datasources-volume", "mountPath": path})
        volumes.append({"name": "sc-datasources-volume", "emptyDir": {}})
    for mount, source in (
        *((mount, _secret_source(mount)) for mount in values.extra_secret_mounts),
        *((mount, {"configMap": {"name": mount["configMap"]}}) for mount in values.extra_configmap_mounts),
        *((mount, {"emptyDir": {}}) for mount in values.extra_empty_dir_mounts),
    ):
        fields = {key: mount.get(key) for key in ("readOnly", "subPath")}
        mounts.append({"name": mount["name"], "mountPath": mount["mountPath"], **present(fields)})
        volumes.append({"name": mount["name"], **source})
    return [*mounts, *values.extra_volume_mounts], [*volumes, *values.extra_volumes]


def _secret_source(mount: Free) -> Object:
    if "secretName" in mount:
        fields = {key: mount.get(key) for key in ("secretName", "defaultMode", "items", "optional")}
        return {"secret": present(fields)}
    return {key: mount[key] for key in ("projected", "csi") if key in mount}


def _env_from(values: Grafana) -> list[Object]:
    names = [{"name": values.env_from_secret}] if values.env_from_secret else []
    return [{"secretRef": source} for source in [*names, *values.env_from_secrets]]


def _credentials(values: Grafana, name: str, user: str, password: str) -> list[Object]:
    secret = values.admin.existing_secret or name
    keys = {user: values.admin.user_key, password: values.admin.password_key}
    return [
        {"name": variable, "valueFrom": {"secretKeyRef": {"name": secret, "key": key}}}
        for variable, key in keys.items()
    ]


def _sidecar(
    values: Grafana, name: str, registry: str, sidecar: DashboardSidecar | DatasourceSidecar
) -> Object:
    if isinstance(sidecar, DashboardSidecar):
        kind, volume, folder = "dashboard", "sc-dashboard-volume", sidecar.folder
        annotation = sidecar.folder_annotation
    else:
        kind, volume, folder = "datasources", "sc-datasources-volume", "/etc/grafana/provisioning/datasources"
        annotation = ""
    variables = {
        "METHOD": sidecar.watch_method,
        "LABEL": sidecar.label,
        "LABEL_VALUE": sidecar.label_value,
        "FOLDER": folder,
        "RESOURCE": sidecar.resource,
        "NAMESPACE": sidecar.search_namespace,
        "FOLDER_ANNOTATION": annotation,
        "SKIP_TLS_VERIFY": "true" if values.sidecar.skip_tls_verify else "",
    }
    environment = [{"name": key, "value": value} for key, value in variables.items() if value]
    if not sidecar.skip_reload:
        environment += [
            *_credentials(values, name, "REQ_USERNAME", "REQ_PASSWORD"),
            {"name": "REQ_URL", "value": sidecar.reload_url},
            {"name": "REQ_METHOD", "value": "POST"},
        ]
    return {
        "name": f"grafana-sc-{kind}",
        "image": values.sidecar.image.reference(registry),
        "imagePullPolicy": values.sidecar.image_pull_policy,
        "env": environment,
        "volumeMounts": [{"name": volume, "mountPath": folder}],
        **present({"resources": values.sidecar.resources}),
    }


def _test(name: str, namespace: str, labels: Object) -> Iterator[Object]:
    hook = {"helm.sh/hook": "test", "helm.sh/hook-delete-policy": HOOK_DELETE_POLICY}
    test = f"{name}-test"
    script = f'@test "healthy" {{\n  wget --spider "http://{name}/api/health"\n}}\n'
    container = {
        "name": test,
        "image": "docker.io/bats/bats:1.14.0",
        "command": ["/opt/bats/bin/bats", "-t", "/tests/run.sh"],
        "volumeMounts": [{"name": "tests", "mountPath": "/tests", "readOnly": True}],
    }
    pod = {
        "serviceAccountName": test,
        "containers": [container],
        "volumes": [{"name": "tests", "configMap": {"name": test}}],
        "restartPolicy": "Never",
    }
    yield service_account(test, namespace, labels, hook, None)
    yield resource("v1", "ConfigMap", test, namespace, labels, hook, data={"run.sh": script})
    yield resource("v1", "Pod", test, namespace, labels, hook, spec=pod)

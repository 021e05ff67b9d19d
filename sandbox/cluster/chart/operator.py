"""The operator and its admission webhooks."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from sandbox.cluster.chart.release import (
    HOOK_DELETE_POLICY,
    MONITORING,
    RBAC,
    Release,
    account_name,
    binding,
    endpoint,
    present,
    resource,
    rule,
    service_account,
)
from sandbox.cluster.chart.section import APP_VERSION
from sandbox.cluster.kinds import Object

_RESTRICTED: Object = {
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "readOnlyRootFilesystem": True,
}


def operator(release: Release) -> Iterator[Object]:
    """The operator: Deployment, Service, account, rights, monitor, and its admission webhooks."""
    values = release.values.prometheus_operator
    if not values.enabled:
        return
    name, namespace = release.operator, release.namespace
    labels = _labels(release, "prometheus-operator", f"{release.chart_name}-operator")
    account = account_name(values.service_account, name)
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
                "spec": _pod(release, account),
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
    if values.service_account.create:
        given = values.service_account
        yield service_account(
            account, namespace, labels, given.annotations, given.automount_service_account_token
        )
    if release.values.global_.rbac.create:
        yield resource(f"{RBAC}/v1", "ClusterRole", name, None, labels, rules=_rules())
        yield binding("ClusterRoleBinding", name, None, labels, name, (namespace, account))
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


def _labels(release: Release, component: str, app: str) -> Object:
    return {
        **release.labels(None),
        "app": app,
        "app.kubernetes.io/name": f"{release.chart_name}-prometheus-operator",
        "app.kubernetes.io/component": component,
    }


def _rules() -> list[Object]:
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


def _pod(release: Release, account: str) -> Object:
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
        return _labels(release, component, f"{release.chart_name}-admission{app}")

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

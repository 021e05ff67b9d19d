"""The parts of Kubernetes as targets: ServiceMonitors, and the headless Services they find the pods by."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from sandbox.cluster.chart.release import MONITORING, Release, endpoint, present, resource
from sandbox.cluster.chart.values import TargetMonitor, TargetService
from sandbox.cluster.kinds import Object

_ACCOUNT = "/var/run/secrets/kubernetes.io/serviceaccount"
_SYSTEM = "kube-system"


def targets(release: Release) -> Iterator[Object]:
    """Objects of every part of Kubernetes whose `enabled` is on."""
    values = release.values
    if not values.kubernetes_service_monitors.enabled:
        return
    if values.kube_api_server.enabled:
        yield from _api_server(release)
    if values.kubelet.enabled:
        yield from _kubelet(release)
    if values.core_dns.enabled:
        dns = values.core_dns
        yield from _pods(release, "coredns", dns.service, dns.service_monitor, {"k8s-app": "kube-dns"}, {})
    plain: Object = {}
    secure = {"scheme": "https", "tlsConfig": {"caFile": f"{_ACCOUNT}/ca.crt", "insecureSkipVerify": True}}
    for name, part, selector, security in (
        ("kube-controller-manager", values.kube_controller_manager, "component", secure),
        ("kube-etcd", values.kube_etcd, "component", plain),
        ("kube-scheduler", values.kube_scheduler, "component", secure),
        ("kube-proxy", values.kube_proxy, "k8s-app", plain),
    ):
        if not part.enabled:
            continue
        pods = {selector: "etcd" if name == "kube-etcd" else name}
        yield from _pods(release, name, part.service, part.service_monitor, pods, security)


def _pods(
    release: Release,
    name: str,
    service: TargetService,
    monitor: TargetMonitor,
    pods: Object,
    security: Object,
) -> Iterator[Object]:
    """A headless Service over `pods` in kube-system and the ServiceMonitor of it."""
    if service.enabled:
        port = {
            "name": "http-metrics",
            "port": service.port,
            "protocol": "TCP",
            "targetPort": service.target_port,
        }
        selector = present({"selector": service.selector or pods})
        yield resource(
            "v1",
            "Service",
            f"{release.fullname}-{name}",
            _SYSTEM,
            release.labels(f"-{name}", jobLabel=name),
            spec={"type": "ClusterIP", "clusterIP": "None", "ports": [port], **selector},
        )
    if monitor.enabled:
        app = f"{release.chart_name}-{name}"
        yield _monitor(
            release,
            name,
            monitor,
            jobLabel="jobLabel",
            selector={"matchLabels": {"app": app, "release": release.name}},
            namespaceSelector={"matchNames": [_SYSTEM]},
            endpoints=[endpoint(monitor, "http-metrics", bearerTokenFile=f"{_ACCOUNT}/token", **security)],
        )


def _api_server(release: Release) -> Iterator[Object]:
    monitor = release.values.kube_api_server.service_monitor
    if monitor.enabled:
        tls = {"caFile": f"{_ACCOUNT}/ca.crt", "serverName": "kubernetes", "insecureSkipVerify": False}
        security = {"scheme": "https", "bearerTokenFile": f"{_ACCOUNT}/token", "tlsConfig": tls}
        yield _monitor(
            release,
            "apiserver",
            monitor,
            jobLabel="component",
            selector={"matchLabels": {"component": "apiserver", "provider": "kubernetes"}},
            namespaceSelector={"matchNames": ["default"]},
            endpoints=[endpoint(monitor, "https", **security)],
        )


def _kubelet(release: Release) -> Iterator[Object]:
    values = release.values.kubelet
    monitor = values.service_monitor
    if not monitor.enabled:
        return
    port = "https-metrics" if monitor.https else "http-metrics"
    tls = {"caFile": f"{_ACCOUNT}/ca.crt", "insecureSkipVerify": monitor.insecure_skip_verify}
    security: Object = {"scheme": "https", "tlsConfig": tls} if monitor.https else {}
    security |= {"bearerTokenFile": f"{_ACCOUNT}/token", "honorLabels": True, "honorTimestamps": True}
    path = {"action": "replace", "sourceLabels": ["__metrics_path__"], "targetLabel": "metrics_path"}
    endpoints = [endpoint(monitor, port, **security, relabelings=[path])]
    if monitor.c_advisor:
        cadvisor = endpoint(monitor, port, **security, path="/metrics/cadvisor", relabelings=[path])
        endpoints.append(cadvisor | present({"interval": monitor.c_advisor_interval}))
    if monitor.probes:
        endpoints.append(endpoint(monitor, port, **security, path="/metrics/probes", relabelings=[path]))
    yield _monitor(
        release,
        "kubelet",
        monitor,
        attachMetadata={"node": False},
        jobLabel="k8s-app",
        selector={"matchLabels": {"app.kubernetes.io/name": "kubelet", "k8s-app": "kubelet"}},
        namespaceSelector={"matchNames": [values.namespace]},
        endpoints=endpoints,
    )


def _monitor(release: Release, name: str, monitor: TargetMonitor, **spec: Any) -> Object:
    return resource(
        MONITORING,
        "ServiceMonitor",
        f"{release.fullname}-{name}",
        release.namespace,
        release.labels(f"-{name}") | monitor.additional_labels,
        spec=spec | present({"targetLabels": monitor.target_labels, "sampleLimit": monitor.sample_limit}),
    )

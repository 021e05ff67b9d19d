"""The chart makes of the values what the settings promise."""

from __future__ import annotations

import configparser
from typing import Any

import pytest
import yaml

from tests.chart.conftest import Render
from tests.chart.helm import Object, Rendering
from tests.chart.variants import ADDRESS, DIGEST, VARIANTS

CLAIMED = ("Prometheus", "Alertmanager")
NAMES = {
    ("Prometheus", "monitoring-prometheus"),
    ("Service", "monitoring-prometheus"),
    ("Alertmanager", "monitoring-alertmanager"),
    ("Service", "monitoring-alertmanager"),
    ("Secret", "alertmanager-monitoring-alertmanager"),
    ("Deployment", "monitoring-operator"),
    ("Deployment", "monitoring-grafana"),
    ("Service", "monitoring-grafana"),
    ("PersistentVolumeClaim", "monitoring-grafana"),
    ("ConfigMap", "monitoring-grafana-datasource"),
    ("Deployment", "monitoring-kube-state-metrics"),
    ("DaemonSet", "monitoring-prometheus-node-exporter"),
}
"""Kind and name of what the program, its documentation or a volume refers to."""


def named(item: Object, name: str) -> Object:
    """The container of a pod template, or the volume of a pod, with that name."""
    spec = item["spec"]["template"]["spec"]
    (found,) = (part for part in (*spec["containers"], *spec["volumes"]) if part["name"] == name)
    return dict(found)


def environment(container: Object) -> dict[str, Any]:
    """Variables of a container: text, or where the text comes from."""
    return {entry["name"]: entry.get("value", entry.get("valueFrom")) for entry in container["env"]}


def grafana(rendering: Rendering) -> Object:
    """Grafana's Deployment."""
    return rendering.one("Deployment", "monitoring-grafana")


@pytest.mark.parametrize("name", ["dev", "prod", "sandbox"])
def test_names_are_those_that_others_refer_to(render: Render, name: str) -> None:
    made = {(item["kind"], item["metadata"]["name"]) for item in render(name).objects}
    assert made >= NAMES


@pytest.mark.parametrize("name", ["dev", "prod", "sandbox"])
def test_prometheus_keeps_and_asks_as_the_settings_say(render: Render, name: str) -> None:
    settings = VARIANTS[name].settings
    spec = render(name).one("Prometheus", "monitoring-prometheus")["spec"]
    assert spec["retention"] == settings.prometheus_retention
    assert spec["retentionSize"] == settings.prometheus_retention_size
    assert spec["scrapeInterval"] == spec["evaluationInterval"] == settings.scrape_interval


@pytest.mark.parametrize("kind", CLAIMED)
@pytest.mark.parametrize("name", ["dev", "prod", "sandbox"])
def test_samples_and_silences_outlive_a_pod(render: Render, name: str, kind: str) -> None:
    settings = VARIANTS[name].settings
    gibibytes = {"Prometheus": settings.prometheus_storage, "Alertmanager": settings.alertmanager_storage}
    (item,) = render(name).of(kind)
    claim = item["spec"]["storage"]["volumeClaimTemplate"]["spec"]
    assert claim["storageClassName"] == settings.storage_class
    assert claim["accessModes"] == ["ReadWriteOnce"]
    assert claim["resources"] == {"requests": {"storage": f"{gibibytes[kind]}Gi"}}


@pytest.mark.parametrize("kind", ["scrapeConfig", "rule"])
def test_prometheus_takes_the_objects_of_the_program(render: Render, kind: str) -> None:
    """They have no label of the release. An empty selector is all, an absent one is none."""
    spec = render("prod").one("Prometheus", "monitoring-prometheus")["spec"]
    assert spec[f"{kind}Selector"] == spec[f"{kind}NamespaceSelector"] == {}


def test_prometheus_takes_the_monitors_of_the_chart(render: Render) -> None:
    rendering = render("prod")
    spec = rendering.one("Prometheus", "monitoring-prometheus")["spec"]
    wanted = spec["serviceMonitorSelector"]["matchLabels"].items()
    assert spec["serviceMonitorNamespaceSelector"] == {}
    monitors = rendering.of("ServiceMonitor")
    assert [
        item["metadata"]["name"] for item in monitors if not wanted <= item["metadata"]["labels"].items()
    ] == []
    assert len(monitors) > 5


def test_links_of_notifications_lead_to_the_external_address(render: Render) -> None:
    spec = render("external-url").one("Prometheus", "monitoring-prometheus")["spec"]
    assert spec["externalUrl"] == "https://prometheus.example"


def test_prometheus_sends_its_alerts_to_this_alertmanager(render: Render) -> None:
    rendering = render("prod")
    (target,) = rendering.one("Prometheus", "monitoring-prometheus")["spec"]["alerting"]["alertmanagers"]
    service = rendering.one("Service", target["name"])
    assert service["metadata"]["namespace"] == target["namespace"]
    assert target["port"] in [port["name"] for port in service["spec"]["ports"]]


def test_a_new_grafana_never_waits_for_the_volume_of_the_old_one(render: Render) -> None:
    rendering = render("prod")
    assert grafana(rendering)["spec"]["strategy"] == {"type": "Recreate"}
    claim = rendering.one("PersistentVolumeClaim", "monitoring-grafana")["spec"]
    settings = VARIANTS["prod"].settings
    assert claim["storageClassName"] == settings.storage_class
    assert claim["accessModes"] == ["ReadWriteOnce"]
    assert claim["resources"]["requests"]["storage"] == f"{settings.grafana_storage}Gi"
    volume = named(grafana(rendering), "storage")
    assert volume["persistentVolumeClaim"] == {"claimName": "monitoring-grafana"}


def test_grafana_serves_https_with_the_certificate_of_the_program(render: Render) -> None:
    rendering = render("prod")
    ini = configparser.ConfigParser(interpolation=None)
    ini.read_string(rendering.one("ConfigMap", "monitoring-grafana")["data"]["grafana.ini"])
    container = named(grafana(rendering), "grafana")
    (mount,) = (mount for mount in container["volumeMounts"] if mount["name"] == "tls")
    assert ini["server"]["protocol"] == "https"
    assert ini["server"]["cert_file"] == f"{mount['mountPath']}/tls.crt"
    assert ini["server"]["cert_key"] == f"{mount['mountPath']}/tls.key"
    assert mount["readOnly"] is True
    assert named(grafana(rendering), "tls")["secret"] == {"secretName": "grafana-tls", "defaultMode": 0o440}
    # The process is no root: it reads the key as a member of the group that owns it.
    assert grafana(rendering)["spec"]["template"]["spec"]["securityContext"]["fsGroup"] == 472


def test_a_new_certificate_restarts_grafana(render: Render) -> None:
    annotations = grafana(render("prod"))["spec"]["template"]["metadata"]["annotations"]
    assert annotations["checksum/tls"] == DIGEST


@pytest.mark.parametrize("probe", ["livenessProbe", "readinessProbe"])
def test_probes_speak_https(render: Render, probe: str) -> None:
    container = named(grafana(render("prod")), "grafana")
    asked = container[probe]["httpGet"]
    assert (asked["scheme"], asked["path"]) == ("HTTPS", "/api/health")
    assert asked["port"] in [port["name"] for port in container["ports"]]


def test_prometheus_asks_grafana_over_https(render: Render) -> None:
    (endpoint,) = render("prod").one("ServiceMonitor", "monitoring-grafana")["spec"]["endpoints"]
    assert endpoint["scheme"] == "https"
    assert endpoint["tlsConfig"] == {"insecureSkipVerify": True}


@pytest.mark.parametrize(("sidecar", "kind"), [("dashboard", "dashboards"), ("datasources", "datasources")])
def test_sidecars_reload_grafana_over_https(render: Render, sidecar: str, kind: str) -> None:
    variables = environment(named(grafana(render("prod")), f"grafana-sc-{sidecar}"))
    assert variables["REQ_URL"] == f"https://localhost:3000/api/admin/provisioning/{kind}/reload"
    assert variables["REQ_METHOD"] == "POST"
    # SKIP_TLS_VERIFY, which the chart has a value for, is about the Kubernetes API instead.
    assert variables["REQ_SKIP_TLS_VERIFY"] == "true"
    assert "SKIP_TLS_VERIFY" not in variables
    assert variables["REQ_PASSWORD"] == {"secretKeyRef": {"name": "grafana-admin", "key": "admin-password"}}


def test_the_dashboard_of_the_program_is_found(render: Render) -> None:
    variables = environment(named(grafana(render("prod")), "grafana-sc-dashboard"))
    assert (variables["LABEL"], variables["LABEL_VALUE"]) == ("grafana_dashboard", "1")
    assert variables["NAMESPACE"] in ("ALL", "monitoring")


def test_the_password_comes_from_the_secret_of_the_program(render: Render) -> None:
    rendering = render("prod")
    variables = environment(named(grafana(rendering), "grafana"))
    assert variables["GF_SECURITY_ADMIN_USER"] == {
        "secretKeyRef": {"name": "grafana-admin", "key": "admin-user"}
    }
    assert variables["GF_SECURITY_ADMIN_PASSWORD"] == {
        "secretKeyRef": {"name": "grafana-admin", "key": "admin-password"}
    }
    # The chart's own Secret would hold a new password after each rendering.
    assert [item["metadata"]["name"] for item in rendering.of("Secret")] == [
        "alertmanager-monitoring-alertmanager"
    ]


@pytest.mark.parametrize("name", ["dev", "prod", "sandbox"])
def test_dashboards_find_prometheus_by_its_uid(render: Render, name: str) -> None:
    rendering = render(name)
    config = rendering.one("ConfigMap", "monitoring-grafana-datasource")
    assert config["metadata"]["labels"]["grafana_datasource"] == "1"
    sources = yaml.safe_load(config["data"]["datasource.yaml"])["datasources"]
    prometheus = {source["uid"]: source for source in sources}["prometheus"]
    assert (prometheus["type"], prometheus["isDefault"]) == ("prometheus", True)
    assert prometheus["url"] == "http://monitoring-prometheus.monitoring:9090/"
    # `$__rate_interval` of a panel follows from it.
    assert prometheus["jsonData"]["timeInterval"] == VARIANTS[name].settings.scrape_interval
    service = rendering.one("Service", "monitoring-prometheus")
    assert 9090 in [port["port"] for port in service["spec"]["ports"]]


def test_a_load_balancer_lets_in_the_given_ranges_only(render: Render) -> None:
    service = render("any-address").one("Service", "monitoring-grafana")
    assert service["metadata"]["annotations"] == {"loadbalancer.ovhcloud.com/flavor": "small"}
    assert service["spec"]["type"] == "LoadBalancer"
    assert service["spec"]["loadBalancerSourceRanges"] == ["192.0.2.0/24"]
    assert "loadBalancerIP" not in service["spec"]
    (port,) = service["spec"]["ports"]
    assert (port["port"], port["targetPort"]) == (443, "grafana")


def test_a_reserved_address_is_given_to_the_load_balancer_and_kept(render: Render) -> None:
    service = render("prod").one("Service", "monitoring-grafana")
    assert service["spec"]["loadBalancerIP"] == ADDRESS
    assert service["metadata"]["annotations"]["loadbalancer.openstack.org/keep-floatingip"] == "true"


@pytest.mark.parametrize("name", ["dev", "port-forward"])
def test_without_a_load_balancer_grafana_stays_inside(render: Render, name: str) -> None:
    service = render(name).one("Service", "monitoring-grafana")
    assert service["spec"]["type"] == "ClusterIP"
    assert "loadBalancerSourceRanges" not in service["spec"]


@pytest.mark.parametrize("name", VARIANTS)
def test_nothing_but_grafana_is_reached_from_outside(render: Render, name: str) -> None:
    rendering = render(name)
    open_ones = [
        item["metadata"]["name"]
        for item in rendering.of("Service")
        if item["spec"].get("type", "ClusterIP") != "ClusterIP"
    ]
    assert set(open_ones) <= {"monitoring-grafana"}
    assert rendering.of("Ingress") == []


def test_exporters_can_be_left_out(render: Render) -> None:
    names = {item["metadata"]["name"] for item in render("without-exporters").objects}
    assert {"monitoring-kube-state-metrics", "monitoring-prometheus-node-exporter"} & names == set()

"""The model of kube-prometheus-stack: the real chart's names, keys and refusals."""

from __future__ import annotations

import base64
import types
from typing import Any, Union, get_args, get_origin

import pytest
import yaml

from sandbox.cluster.chart import ChartError, check_chart, render
from sandbox.cluster.chart.parse import keys, parse
from sandbox.cluster.chart.values import Values
from sandbox.cluster.storage import ObjectStore
from tests import shared

LIST = "kube-prometheus-stack-88.5.3-objects.tsv"
KEYS = "kube-prometheus-stack-88.5.3-value-keys.tsv"

REFERENCE: dict[str, Any] = {
    "nameOverride": "monitoring",
    "fullnameOverride": "monitoring",
    **{
        part: {"enabled": False}
        for part in ("kubeEtcd", "kubeScheduler", "kubeControllerManager", "kubeProxy")
    },
}
PROGRAM: dict[str, Any] = {
    **REFERENCE,
    "prometheus": {
        "prometheusSpec": {
            "retention": "15d",
            "retentionSize": "40GiB",
            "scrapeInterval": "15s",
            "ruleSelectorNilUsesHelmValues": False,
            "scrapeConfigSelectorNilUsesHelmValues": False,
            "secrets": ["vllm-auth-token"],
            "storageSpec": {
                "volumeClaimTemplate": {
                    "spec": {
                        "storageClassName": "csi-cinder-high-speed",
                        "accessModes": ["ReadWriteOnce"],
                        "resources": {"requests": {"storage": "50Gi"}},
                    }
                }
            },
        }
    },
    "grafana": {
        "admin": {"existingSecret": "grafana-admin"},
        "deploymentStrategy": {"type": "Recreate"},
        "persistence": {"enabled": True, "type": "pvc", "storageClassName": "csi-cinder-high-speed"},
        "service": {
            "type": "LoadBalancer",
            "port": 443,
            "loadBalancerIP": "127.70.1.2",
            "loadBalancerSourceRanges": ["1.2.3.4/32"],
            "annotations": {"loadbalancer.ovhcloud.com/flavor": "small"},
        },
        "grafana.ini": {
            "server": {
                "protocol": "https",
                "cert_file": "/etc/grafana/tls/tls.crt",
                "cert_key": "/etc/grafana/tls/tls.key",
            }
        },
        "extraSecretMounts": [
            {
                "name": "grafana-tls",
                "secretName": "grafana-tls",
                "mountPath": "/etc/grafana/tls",
                "readOnly": True,
            }
        ],
        "readinessProbe": {"httpGet": {"scheme": "HTTPS"}},
        "livenessProbe": {"httpGet": {"scheme": "HTTPS"}},
        "serviceMonitor": {"scheme": "https", "tlsConfig": {"insecureSkipVerify": True}},
        "sidecar": {
            "skipTlsVerify": True,
            "dashboards": {"reloadURL": "https://localhost:3000/api/admin/provisioning/dashboards/reload"},
        },
    },
}

# Commented out in the chart's values.yaml and therefore not in the list of keys, yet read by its templates.
COMMENTED = {
    "alertmanager.alertmanagerSpec.configSecret",
    "grafana.adminPassword",
    "grafana.annotations",
    "grafana.ingress.ingressClassName",
    "grafana.persistence.annotations",
    "grafana.persistence.existingClaim",
    "grafana.persistence.storageClassName",
    "grafana.podAnnotations",
    "grafana.podLabels",
    "grafana.priorityClassName",
    "grafana.service.clusterIP",
    "grafana.service.externalIPs",
    "grafana.service.externalTrafficPolicy",
    "grafana.service.nodePort",
    "grafana.serviceAccount.annotations",
    "grafana.serviceMonitor.interval",
    "grafana.serviceMonitor.scrapeTimeout",
    "grafana.sidecar.datasources.alertmanager.url",
    "grafana.sidecar.datasources.defaultDatasourceScrapeInterval",
    "grafana.sidecar.datasources.extraJsonData",
    "grafana.sidecar.datasources.timeout",
    "grafana.sidecar.datasources.url",
    "grafana.sidecar.skipTlsVerify",
    *(
        f"{part}.service.selector"
        for part in ("coreDns", "kubeControllerManager", "kubeEtcd", "kubeScheduler", "kubeProxy")
    ),
}


def rendered(values: dict[str, Any], release: str = "monitoring") -> dict[tuple[str, str], Any]:
    """Objects by kind and name."""
    objects: list[Any] = list(render(values, release, "monitoring"))
    return {(item["kind"], item["metadata"]["name"]): item for item in objects}


def names(values: dict[str, Any]) -> set[tuple[str, str, str]]:
    objects: list[Any] = list(render(values, "monitoring", "monitoring"))
    return {
        (item["kind"], item["metadata"].get("namespace", "-"), item["metadata"]["name"])
        for item in objects
        if item["kind"] != "CustomResourceDefinition"
    }


def test_objects_are_those_of_the_real_chart() -> None:
    lines = shared.fixture(LIST).read_text().splitlines()
    real = {tuple(line.split("\t")) for line in lines if not line.startswith("#")}
    assert names(REFERENCE) == real


def test_program_values_add_the_claim_and_drop_the_password_secret() -> None:
    claim = ("PersistentVolumeClaim", "monitoring", "monitoring-grafana")
    secret = ("Secret", "monitoring", "monitoring-grafana")
    assert names(PROGRAM) == names(REFERENCE) - {secret} | {claim}


def test_every_key_exists_in_the_real_chart_with_a_compatible_type() -> None:
    rows: dict[str, set[str]] = {}
    for line in shared.fixture(KEYS).read_text().splitlines():
        if not line.startswith("#"):
            key, kind = line.split("\t")[:2]
            rows.setdefault(key, set()).add(kind)
    parents = {key[:index] for key in rows for index, letter in enumerate(key) if letter == "."}
    unknown, wrong = set(), set()
    for key, annotation in keys():
        if key not in rows and key not in parents:
            unknown.add(key)
        elif not (rows.get(key, {"dict"}) & _kinds(annotation)):
            wrong.add(key)
    assert unknown == COMMENTED
    assert wrong == set()


def _kinds(annotation: Any) -> set[str]:
    """Type names of the list that values of a field's type may have; NoneType is "no default"."""
    origin = get_origin(annotation)
    if origin in (Union, types.UnionType):
        return {"NoneType"}.union(*(_kinds(part) for part in get_args(annotation)))
    if origin is None:
        return {getattr(annotation, "__name__", ""), "NoneType"}
    name = getattr(origin, "__name__", "")
    if name in ("list", "dict"):
        return {name, "NoneType"}
    return {type(value).__name__ for value in get_args(annotation)} | {"NoneType"}  # Literal


def test_all_objects_are_accepted_by_a_kubernetes_api() -> None:
    store = ObjectStore("1.34")
    for namespace in ("monitoring", "kube-system"):
        store.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}}, "test")
    objects: list[Any] = list(render(PROGRAM, "monitoring", "monitoring"))
    for item in objects:  # in this order, so that each kind's definition is there before its objects
        store.create(item, "helm")


def test_default_values_are_accepted_by_a_kubernetes_api() -> None:
    store = ObjectStore("1.34")
    for namespace in ("monitoring", "kube-system"):
        store.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}}, "test")
    objects: list[Any] = list(render({}, "prom", "monitoring"))
    for item in objects:
        store.create(item, "helm")
    assert store.get("Service", "kube-system", "prom-kube-prometheus-stack-kube-etcd") is not None


def test_hooks_come_in_helms_order() -> None:
    objects: list[Any] = list(render(REFERENCE, "monitoring", "monitoring"))
    order = [(item["kind"], item["metadata"]["name"]) for item in objects]
    create, patch = ("Job", "monitoring-admission-create"), ("Job", "monitoring-admission-patch")
    assert order[0][0] == "CustomResourceDefinition"
    assert order.index(("ServiceAccount", "monitoring-admission")) < order.index(create)
    assert order.index(create) < order.index(("ServiceAccount", "monitoring-prometheus"))
    assert order.index(("Secret", "monitoring-grafana")) < order.index(("Deployment", "monitoring-grafana"))
    assert order.index(("Prometheus", "monitoring-prometheus")) < order.index(patch)


def test_helm_owns_everything_but_hooks_and_definitions() -> None:
    for (kind, _), item in rendered(REFERENCE).items():
        annotations = item["metadata"].get("annotations", {})
        owned = annotations.get("meta.helm.sh/release-name") == "monitoring"
        assert owned == (kind != "CustomResourceDefinition" and "helm.sh/hook" not in annotations)


def test_names_come_from_release_and_override_as_in_the_chart() -> None:
    found = rendered({"fullnameOverride": "stack"}, "prom")
    assert ("Service", "prom-grafana") in found  # the override does not reach sub-charts
    assert ("Service", "stack-prometheus") in found
    assert ("DaemonSet", "prom-prometheus-node-exporter") in found
    selector = found["Prometheus", "stack-prometheus"]["spec"]["scrapeConfigSelector"]
    assert selector == {"matchLabels": {"release": "prom"}}


def test_grafana_reads_the_secrets_of_its_own_namespace_only_when_told() -> None:
    everywhere, own = names({}), names({"grafana": {"rbac": {"namespaced": True}}})
    assert everywhere - own == {
        ("ClusterRole", "-", "monitoring-grafana-clusterrole"),
        ("ClusterRoleBinding", "-", "monitoring-grafana-clusterrolebinding"),
    }
    assert own - everywhere == {
        ("Role", "monitoring", "monitoring-grafana"),
        ("RoleBinding", "monitoring", "monitoring-grafana"),
    }


def test_grafana_service_is_as_recorded() -> None:
    service = rendered(PROGRAM)["Service", "monitoring-grafana"]
    assert service["metadata"]["labels"] == {
        "app.kubernetes.io/instance": "monitoring",
        "app.kubernetes.io/managed-by": "Helm",
        "app.kubernetes.io/name": "grafana",
        "app.kubernetes.io/version": "13.2.0",
        "helm.sh/chart": "grafana-12.11.1",
    }
    assert service["metadata"]["annotations"]["loadbalancer.ovhcloud.com/flavor"] == "small"
    assert service["spec"] == {
        "type": "LoadBalancer",
        "loadBalancerIP": "127.70.1.2",
        "loadBalancerSourceRanges": ["1.2.3.4/32"],
        "ports": [{"name": "http-web", "port": 443, "protocol": "TCP", "targetPort": "grafana"}],
        "selector": {"app.kubernetes.io/instance": "monitoring", "app.kubernetes.io/name": "grafana"},
    }


def test_grafana_speaks_https_when_told() -> None:
    found = rendered(PROGRAM)
    pod = found["Deployment", "monitoring-grafana"]["spec"]["template"]["spec"]
    container = next(item for item in pod["containers"] if item["name"] == "grafana")
    assert container["readinessProbe"]["httpGet"] == {
        "path": "/api/health",
        "port": "grafana",
        "scheme": "HTTPS",
    }
    assert container["livenessProbe"]["timeoutSeconds"] == 30  # the default is kept beside the given scheme
    mount = {"name": "grafana-tls", "mountPath": "/etc/grafana/tls", "readOnly": True}
    assert mount in container["volumeMounts"]
    assert {"name": "grafana-tls", "secret": {"secretName": "grafana-tls"}} in pod["volumes"]
    ini = found["ConfigMap", "monitoring-grafana"]["data"]["grafana.ini"]
    assert "[server]\ncert_file = /etc/grafana/tls/tls.crt\n" in ini
    assert "protocol = https\n" in ini
    assert found["ServiceMonitor", "monitoring-grafana"]["spec"]["endpoints"][0]["scheme"] == "https"
    sidecar = next(item for item in pod["containers"] if item["name"] == "grafana-sc-dashboard")
    variables = {item["name"]: item.get("value") for item in sidecar["env"]}
    assert variables["REQ_URL"] == "https://localhost:3000/api/admin/provisioning/dashboards/reload"
    assert variables["SKIP_TLS_VERIFY"] == "true"


def test_datasources_point_to_the_services_with_the_scrape_interval() -> None:
    data = rendered(PROGRAM)["ConfigMap", "monitoring-grafana-datasource"]["data"]["datasource.yaml"]
    prometheus, alertmanager = yaml.safe_load(data)["datasources"]
    assert prometheus["uid"] == "prometheus"
    assert prometheus["url"] == "http://monitoring-prometheus.monitoring:9090/"
    assert prometheus["jsonData"]["timeInterval"] == "15s"
    assert alertmanager["url"] == "http://monitoring-alertmanager.monitoring:9093/"


def test_without_the_datasource_sidecar_datasources_are_silently_ignored() -> None:
    values = {
        "grafana": {"sidecar": {"datasources": {"enabled": False}}, "additionalDataSources": [{"a": 1}]}
    }
    assert ("ConfigMap", "monitoring-kube-prometheus-grafana-datasource") not in rendered(values)


def test_alertmanager_config_is_laid_over_the_default_one() -> None:
    config = {"route": {"receiver": "team"}, "receivers": [{"name": "team"}]}
    found = rendered(REFERENCE | {"alertmanager": {"config": config}})
    data = found["Secret", "alertmanager-monitoring-alertmanager"]["data"]["alertmanager.yaml"]
    merged = yaml.safe_load(base64.b64decode(data))
    assert merged["route"]["receiver"] == "team"
    assert merged["route"]["repeat_interval"] == "12h"
    assert merged["receivers"] == [{"name": "team"}]  # lists are replaced as a whole
    assert len(merged["inhibit_rules"]) == 4


def test_general_rules_hold_a_watchdog_unless_it_is_disabled() -> None:
    rule = ("PrometheusRule", "monitoring-general.rules")
    group = rendered(REFERENCE)[rule]["spec"]["groups"][0]
    assert [item["alert"] for item in group["rules"]] == ["Watchdog"]
    disabled = rendered(REFERENCE | {"defaultRules": {"disabled": {"Watchdog": True}}})
    assert disabled[rule]["spec"]["groups"][0]["rules"] == []


@pytest.mark.parametrize(
    ("values", "kind", "name"),
    [
        ({"kubeEtcd": {"enabled": False}}, "Service", "monitoring-kube-etcd"),
        ({"kubeEtcd": {"enabled": False}}, "PrometheusRule", "monitoring-etcd"),
        ({"kubeProxy": {"enabled": False}}, "ConfigMap", "monitoring-proxy"),
        ({"nodeExporter": {"enabled": False}}, "DaemonSet", "monitoring-prometheus-node-exporter"),
        ({"nodeExporter": {"enabled": False}}, "ConfigMap", "monitoring-nodes"),
        ({"kubeStateMetrics": {"enabled": False}}, "Deployment", "monitoring-kube-state-metrics"),
        ({"grafana": {"enabled": False}}, "Deployment", "monitoring-grafana"),
        ({"grafana": {"enabled": False}}, "ConfigMap", "monitoring-kubelet"),
        ({"alertmanager": {"enabled": False}}, "Alertmanager", "monitoring-alertmanager"),
        ({"defaultRules": {"rules": {"network": False}}}, "PrometheusRule", "monitoring-node-network"),
        ({"crds": {"enabled": False}}, "CustomResourceDefinition", "scrapeconfigs.monitoring.coreos.com"),
    ],
)
def test_a_switch_takes_its_objects_away(values: dict[str, Any], kind: str, name: str) -> None:
    base = {"fullnameOverride": "monitoring"}
    assert (kind, name) in rendered(base)
    assert (kind, name) not in rendered(base | values)


def test_without_alertmanager_prometheus_sends_no_alerts() -> None:
    found = rendered(REFERENCE | {"alertmanager": {"enabled": False}})
    assert "alerting" not in found["Prometheus", "monitoring-prometheus"]["spec"]


def test_an_unknown_key_is_named_with_the_nearest_known_one() -> None:
    values = {
        "grafana": {"persistence": {"storageClass": "x"}},
        "alertmanager": {"alertmanagerSpec": {"storageSpec": {}}},
        "prometheus": {"retention": "15d"},
    }
    with pytest.raises(ChartError) as error:
        render(values, "monitoring", "monitoring")
    text = str(error.value)
    assert "kube-prometheus-stack 88.5.3" in text
    assert "the sandbox's model" in text
    assert "grafana.persistence.storageClass: unknown key; did you mean " in text
    assert "did you mean grafana.persistence.storageClassName?" in text
    assert "alertmanager.alertmanagerSpec.storageSpec: unknown key" in text
    assert "did you mean alertmanager.alertmanagerSpec.storage?" in text
    assert "prometheus.retention: unknown key; prometheus.prometheusSpec.retention is known" in text


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            {"prometheus": {"prometheusSpec": {"retention": 15}}},
            "prometheus.prometheusSpec.retention: must be a string",
        ),
        (
            {"grafana": {"service": {"port": "80"}}},
            "grafana.service.port: must be a whole number, is a string",
        ),
        ({"grafana": {"service": {"port": 80.5}}}, "grafana.service.port: must be a whole number"),
        ({"kubeEtcd": False}, "kubeEtcd: must be a map, is a boolean"),
        (
            {"grafana": {"service": {"type": "Loadbalancer"}}},
            "grafana.service.type: input should be 'ClusterIP'",
        ),
        ({"prometheus": {"prometheusSpec": {"secrets": "x"}}}, "secrets: must be a list, is a string"),
        (
            {"prometheus": {"prometheusSpec": {"additionalScrapeConfigs": 5}}},
            "prometheus.prometheusSpec.additionalScrapeConfigs: must be",
        ),
        (
            {"grafana": {"persistence": {"type": "statefulset"}}},
            "grafana.persistence.type: input should be 'pvc'",
        ),
    ],
)
def test_a_wrong_type_is_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ChartError) as error:
        parse(values)
    assert message in str(error.value)


def test_a_refusal_does_not_show_the_value() -> None:
    with pytest.raises(ChartError) as error:
        parse({"grafana": {"adminPassword": ["hunter2"], "admin": "hunter2"}})
    assert "hunter2" not in str(error.value)


def test_a_password_in_grafana_ini_fails_the_render() -> None:
    with pytest.raises(ChartError, match=r"Sensitive key 'security\.admin_password'") as error:
        render({"grafana": {"grafana.ini": {"security": {"admin_password": "hunter2"}}}}, "a", "b")
    assert "hunter2" not in str(error.value)
    expanded = {"security": {"admin_password": "$__file{/etc/secrets/password}"}}
    render({"grafana": {"grafana.ini": expanded}}, "a", "b")


def test_a_template_where_the_chart_evaluates_them_is_refused() -> None:
    job = {"job_name": "a", "relabel_configs": [{"replacement": "{{ $labels.x }}"}]}
    path = r"prometheus\.prometheusSpec\.additionalScrapeConfigs\.0\.relabel_configs\.0\.replacement"
    with pytest.raises(ChartError, match=path):
        render({"prometheus": {"prometheusSpec": {"additionalScrapeConfigs": [job]}}}, "a", "b")
    slack = {"receivers": [{"name": "null", "text": "{{ .CommonLabels }}"}]}
    render({"alertmanager": {"config": slack}}, "a", "b")  # not passed through tpl: meant for Alertmanager


def test_null_takes_a_default_out_of_a_free_map() -> None:
    values = parse({"grafana": {"livenessProbe": {"timeoutSeconds": None}}})
    assert "timeoutSeconds" not in values.grafana.liveness_probe
    assert Values().grafana.liveness_probe["timeoutSeconds"] == 30


@pytest.mark.parametrize(
    ("chart", "version", "message"),
    [
        ("kube-prometheus-stack", "88.5.2", "the sandbox models 88.5.3 only"),
        ("kube-prometheus-stack", None, "pin it to 88.5.3"),
        ("loki", "88.5.3", "the sandbox models kube-prometheus-stack 88.5.3 only"),
    ],
)
def test_another_chart_or_version_is_refused(chart: str, version: str | None, message: str) -> None:
    with pytest.raises(ChartError, match=message):
        check_chart(chart, version)
    check_chart("oci://ghcr.io/prometheus-community/charts/kube-prometheus-stack", "88.5.3")

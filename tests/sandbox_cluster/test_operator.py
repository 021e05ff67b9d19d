"""The operator as a function: custom resources and Secrets to the configuration of Prometheus."""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from copy import deepcopy
from typing import Any

import pytest
import yaml

from sandbox.cluster.chart import render
from sandbox.cluster.discovery import Pod
from sandbox.cluster.mounts import redacted, secret_data
from sandbox.cluster.operator import (
    Configuration,
    OperatorError,
    Rejected,
    alertmanager_files,
    prometheus_arguments,
    prometheus_config,
)
from tests import shared

RECORDING = "prometheus-operator-scrapeconfig.yaml"


class Objects:
    """A cluster as a list of objects."""

    def __init__(self, *objects: Any) -> None:
        self.objects = [deepcopy(item) for item in objects]

    def get(self, kind: str, namespace: str, name: str) -> Any:
        found = (item for item in self.list(kind, namespace) if item["metadata"]["name"] == name)
        return next(found, None)

    def list(
        self, kind: str, namespace: str | None = None, labels: Mapping[str, str] | None = None
    ) -> list[Any]:
        assert labels is None
        return [
            item
            for item in self.objects
            if item["kind"] == kind and namespace in (None, item["metadata"].get("namespace"))
        ]

    def secrets(self, namespace: str, name: str) -> Any:
        secret = self.get("Secret", namespace, name)
        return None if secret is None else secret_data(secret)


def prometheus(**spec: Any) -> dict[str, Any]:
    selectors: dict[str, Any] = {"scrapeConfigSelector": {}, "scrapeConfigNamespaceSelector": {}}
    return {
        "kind": "Prometheus",
        "metadata": {"name": "main", "namespace": "monitoring", "uid": "1"},
        "spec": selectors | spec,
    }


def scrape_config(name: str = "vllm", namespace: str = "monitoring", **spec: Any) -> dict[str, Any]:
    return {
        "kind": "ScrapeConfig",
        "metadata": {"name": name, "namespace": namespace, "uid": name, "labels": {}},
        "spec": {"staticConfigs": [{"targets": ["a:443"]}], **spec},
    }


def secret(name: str = "vllm-auth-token", **data: str) -> dict[str, Any]:
    encoded = {key: base64.b64encode(value.encode()).decode() for key, value in data.items()}
    return {"kind": "Secret", "metadata": {"name": name, "namespace": "monitoring"}, "data": encoded}


BEARER = {"credentials": {"name": "vllm-auth-token", "key": "token"}}


def configuration(resource: Any, *objects: Any, pods: tuple[Pod, ...] = ()) -> Configuration:
    cluster = Objects(*objects)
    return prometheus_config(resource, cluster, cluster.secrets, pods)


def jobs(configuration: Configuration) -> list[str]:
    return [job["job_name"] for job in configuration.document["scrape_configs"]]


def installed(values: dict[str, Any]) -> tuple[Any, list[Any]]:
    """The Prometheus resource of the chart, and all objects of it."""
    objects: list[Any] = list(render({"fullnameOverride": "monitoring"} | values, "monitoring", "monitoring"))
    for index, item in enumerate(objects):
        item["metadata"]["uid"] = str(index)
    return next(item for item in objects if item["kind"] == "Prometheus"), objects


def test_a_scrape_config_becomes_the_recorded_job() -> None:
    recorded = yaml.safe_load(shared.fixture(RECORDING).read_text())
    made = configuration(prometheus(), recorded["scrapeConfig"], secret(token="abc"))
    assert made.document["scrape_configs"] == [recorded["job"]]
    assert made.rejected == ()


def test_global_section_has_the_operators_labels_and_the_resources_intervals() -> None:
    made = configuration(
        prometheus(
            scrapeInterval="15s",
            evaluationInterval="20s",
            scrapeTimeout="10s",
            externalLabels={"cluster": "a", "prometheus": "not this one"},
        )
    )
    assert made.document["global"] == {
        "scrape_interval": "15s",
        "scrape_timeout": "10s",
        "evaluation_interval": "20s",
        "external_labels": {
            "cluster": "a",
            "prometheus": "monitoring/main",
            "prometheus_replica": "prometheus-main-0",
        },
    }
    cleared = prometheus(prometheusExternalLabelName="", replicaExternalLabelName="")
    assert configuration(cleared).document["global"]["external_labels"] == {}


@pytest.mark.parametrize(
    ("spec", "selected"),
    [
        ({}, ["labelled"]),
        ({"scrapeConfigSelectorNilUsesHelmValues": False}, ["bare", "labelled"]),
        ({"scrapeConfigSelector": {"matchLabels": {"team": "ml"}}}, ["bare"]),
    ],
)
def test_the_chart_selects_by_release_label_unless_told_otherwise(
    spec: dict[str, Any], selected: list[str]
) -> None:
    resource, _ = installed({"prometheus": {"prometheusSpec": spec}})
    bare, labelled = scrape_config("bare"), scrape_config("labelled")
    bare["metadata"]["labels"] = {"team": "ml"}
    labelled["metadata"]["labels"] = {"release": "monitoring"}
    made = configuration(resource, bare, labelled)
    assert jobs(made) == [f"scrapeConfig/monitoring/{name}" for name in selected]


def test_namespace_selectors() -> None:
    def namespace(name: str, **labels: str) -> dict[str, Any]:
        return {"kind": "Namespace", "metadata": {"name": name, "labels": labels}}

    objects = [
        namespace("monitoring"),
        namespace("team", team="ml"),
        scrape_config("a"),
        scrape_config("b", "team"),
    ]
    chosen = {
        "all": ({}, ["monitoring/a", "team/b"]),
        "labelled": ({"matchLabels": {"team": "ml"}}, ["team/b"]),
        "own": (None, ["monitoring/a"]),
    }
    for selector, names in chosen.values():
        made = configuration(prometheus(scrapeConfigNamespaceSelector=selector), *objects)
        assert jobs(made) == [f"scrapeConfig/{name}" for name in names]


@pytest.mark.parametrize(
    ("spec", "secrets", "reason"),
    [
        (
            {"authorization": BEARER},
            [],
            'authorization: failed to get authorization token of type "Bearer": unable to get secret '
            '"vllm-auth-token": secrets "vllm-auth-token" not found',
        ),
        (
            {"authorization": BEARER},
            [secret(other="x")],
            'authorization: failed to get authorization token of type "Bearer": key "token" in secret '
            '"vllm-auth-token" not found',
        ),
        (
            {"scrapeInterval": "5s", "scrapeTimeout": "10s"},
            [],
            'scrapeTimeout "10s" greater than scrapeInterval "5s"',
        ),
        ({"scrapeTimeout": "1m"}, [], 'scrapeTimeout "1m" greater than scrapeInterval "30s"'),
        (
            {"kubernetesSDConfigs": [{"role": "Pod"}]},
            [],
            "kubernetesSDConfigs: not implemented in the sandbox's operator",
        ),
    ],
)
def test_a_bad_scrape_config_is_rejected_alone(spec: Any, secrets: list[Any], reason: str) -> None:
    made = configuration(prometheus(), scrape_config("bad", **spec), scrape_config("good"), *secrets)
    assert jobs(made) == ["scrapeConfig/monitoring/good"]
    assert [item.message for item in made.rejected] == [
        f'"monitoring/bad" was rejected due to invalid configuration: {reason}'
    ]


def test_tls_material_of_secrets_becomes_files() -> None:
    authority = {"ca": {"secret": {"name": "ca", "key": "ca.crt"}}, "serverName": "vllm"}
    made = configuration(prometheus(), scrape_config(tlsConfig=authority), secret("ca", **{"ca.crt": "PEM"}))
    path = "certs/0_monitoring_ca_ca.crt"
    assert made.files == {path: b"PEM"}
    assert made.document["scrape_configs"][0]["tls_config"] == {
        "server_name": "vllm",
        "ca_file": f"/etc/prometheus/{path}",
    }


def test_additional_scrape_configs_come_last_and_as_written() -> None:
    job = {
        "job_name": "vllm-ministral",
        "authorization": {"credentials_file": "/etc/prometheus/secrets/vllm-auth-token/token"},
    }
    spec = {"additionalScrapeConfigs": [job], "secrets": ["vllm-auth-token"]}
    resource, objects = installed({"prometheus": {"prometheusSpec": spec}})
    resource["spec"]["scrapeConfigSelector"] = {}
    made = configuration(resource, *objects, scrape_config(), secret(token="abc"))
    assert jobs(made) == ["scrapeConfig/monitoring/vllm", "vllm-ministral"]
    assert made.document["scrape_configs"][-1] == job
    assert made.files == {"secrets/vllm-auth-token/token": b"abc"}


def test_bad_additional_scrape_configs_spoil_the_whole_configuration_without_showing_it() -> None:
    reference = {"name": "jobs", "key": "jobs.yaml"}
    resource = prometheus(additionalScrapeConfigs=reference)
    with pytest.raises(OperatorError, match=r'loading additional scrape configs .* "jobs\.yaml"'):
        configuration(resource)
    for text in ("job_name: hunter2", "- hunter2", "{hunter2"):
        with pytest.raises(OperatorError, match="unmarshalling additional scrape configs failed") as error:
            configuration(resource, secret("jobs", **{"jobs.yaml": text}))
        assert "hunter2" not in str(error.value)


def test_a_prometheus_rule_becomes_a_rule_file() -> None:
    rule = {
        "kind": "PrometheusRule",
        "metadata": {"name": "vllm", "namespace": "monitoring", "uid": "7"},
        "spec": {
            "groups": [
                {
                    "name": "vllm",
                    "interval": "",
                    "partial_response_strategy": "abort",
                    "rules": [
                        {"alert": "Down", "expr": "up == 0", "for": "", "labels": {"severity": "critical"}},
                        {"record": "a:b", "expr": 1},
                    ],
                }
            ]
        },
    }
    made = configuration(prometheus(ruleSelector={}), rule)
    assert made.document["rule_files"] == ["/etc/prometheus/rules/*.yaml"]
    assert list(made.rules) == ["monitoring-vllm-7.yaml"]
    assert yaml.safe_load(made.rules["monitoring-vllm-7.yaml"]) == {
        "groups": [
            {
                "name": "vllm",
                "rules": [
                    {"alert": "Down", "expr": "up == 0", "labels": {"severity": "critical"}},
                    {"record": "a:b", "expr": 1},
                ],
            }
        ]
    }
    unlabelled = prometheus(ruleSelector={"matchLabels": {"release": "x"}})
    assert configuration(unlabelled, rule).rules == {}
    assert "rule_files" not in configuration(prometheus()).document


def test_a_rule_group_keeps_what_prometheus_knows_of_it() -> None:
    group = {
        "name": "vllm",
        "interval": "5s",
        "query_offset": "1s",
        "limit": 100,
        "labels": {"team": "ml"},
        "rules": [{"alert": "Down", "expr": "up == 0", "for": "5m", "keep_firing_for": "1m"}],
    }
    metadata = {"name": "vllm", "namespace": "monitoring", "uid": "7"}
    rule = {"kind": "PrometheusRule", "metadata": metadata, "spec": {"groups": [group]}}
    made = configuration(prometheus(ruleSelector={}), rule)
    assert yaml.safe_load(made.rules["monitoring-vllm-7.yaml"]) == {"groups": [group]}


EXPORTER = Pod(
    namespace="monitoring",
    name="exporter-1",
    container="exporter",
    labels={"app": "exporter"},
    ports={7979: "127.0.0.1:43000", "http": "127.0.0.1:43000"},
)


def exporter_service(name: str = "exporter", **spec: Any) -> dict[str, Any]:
    ports = [{"port": 80, "targetPort": "http"}]
    body = {"selector": {"app": "exporter"}, "ports": ports, **spec}
    return {"kind": "Service", "metadata": {"name": name, "namespace": "monitoring"}, "spec": body}


@pytest.mark.parametrize(
    ("address", "reached"),
    [
        ("exporter:80", "127.0.0.1:43000"),
        ("exporter.monitoring:80", "127.0.0.1:43000"),
        ("exporter.monitoring.svc:80", "127.0.0.1:43000"),
        ("exporter.monitoring.svc.cluster.local:80", "127.0.0.1:43000"),
        ("exporter.monitoring:81", "127.0.0.1:1"),  # a port that the Service does not have
        ("nobody.monitoring:80", "127.0.0.1:1"),  # no pod
        ("exporter.other:80", None),
        ("external.monitoring:80", None),  # no selector: where it leads is unknown
        ("x.app.gra.ai.cloud.ovh.net:443", None),
    ],
)
def test_a_target_named_after_a_service_is_led_to_the_pod_and_keeps_its_instance(
    address: str, reached: str | None
) -> None:
    services = [
        exporter_service(),
        exporter_service("nobody", selector={"app": "nobody"}),
        exporter_service("external", selector={}),
    ]
    item = scrape_config(staticConfigs=[{"targets": [address]}])
    (job,) = configuration(prometheus(), item, *services, pods=(EXPORTER,)).document["scrape_configs"]
    assert job["static_configs"] == [{"targets": [address], "labels": {}}]
    relabelings = job["relabel_configs"][1:]
    if reached is None:
        assert relabelings == []
    else:
        kept, led = relabelings
        assert (kept["target_label"], kept["source_labels"]) == ("instance", ["instance", "__address__"])
        assert re.fullmatch(led["regex"], address)
        assert (led["target_label"], led["replacement"]) == ("__address__", reached)


def test_an_address_that_relabelings_make_is_led_to_the_pod_as_well() -> None:
    through = [{"targetLabel": "__address__", "replacement": "exporter.monitoring.svc:80"}]
    item = scrape_config(relabelings=through)
    made = configuration(prometheus(), item, exporter_service(), pods=(EXPORTER,))
    last = made.document["scrape_configs"][0]["relabel_configs"][-1]
    assert last["replacement"] == "127.0.0.1:43000"


ALERTMANAGER = Pod(
    namespace="monitoring",
    name="alertmanager-monitoring-alertmanager-0",
    container="alertmanager",
    labels={"app.kubernetes.io/name": "alertmanager", "alertmanager": "monitoring-alertmanager"},
    ports={9093: "127.0.0.1:41000", "http-web": "127.0.0.1:41000"},
)


def test_alerts_go_to_the_pod_behind_the_alertmanager_service() -> None:
    resource, objects = installed({})
    alerting = configuration(resource, *objects, pods=(ALERTMANAGER,)).document["alerting"]
    assert alerting["alert_relabel_configs"] == [{"action": "labeldrop", "regex": "prometheus_replica"}]
    (section,) = alerting["alertmanagers"]
    assert section["static_configs"][0]["targets"] == ["127.0.0.1:41000"]
    assert (section["api_version"], section["path_prefix"]) == ("v2", "/")


def test_only_service_monitors_whose_targets_run_get_a_job() -> None:
    resource, objects = installed({})
    made = configuration(resource, *objects, pods=(ALERTMANAGER,))
    assert jobs(made) == ["serviceMonitor/monitoring/monitoring-alertmanager/0"]
    (job,) = made.document["scrape_configs"]
    labels = job["static_configs"][0]["labels"]
    assert labels["__meta_kubernetes_service_name"] == "monitoring-alertmanager"
    assert {"target_label": "endpoint", "replacement": "http-web"} in job["relabel_configs"]
    assert job["metrics_path"] == "/metrics"


def test_a_service_without_a_selector_has_no_pods() -> None:
    monitor = {
        "kind": "ServiceMonitor",
        "metadata": {"name": "all", "namespace": "monitoring"},
        "spec": {"selector": {}, "endpoints": [{"port": "http"}]},
    }
    resource = prometheus(serviceMonitorSelector={}, serviceMonitorNamespaceSelector={})
    ports = [{"name": "http", "port": 80, "targetPort": "http"}]
    for selector, made in (({}, []), ({"app": "exporter"}, ["serviceMonitor/monitoring/all/0"])):
        service = exporter_service(ports=ports, selector=selector)
        assert jobs(configuration(resource, monitor, service, pods=(EXPORTER,))) == made


def test_a_selector_that_cannot_be_read_spoils_its_own_object_only() -> None:
    wrong = {"matchExpressions": [{"key": "app", "operator": "in", "values": ["a"]}]}
    monitor = {
        "kind": "ServiceMonitor",
        "metadata": {"name": "bad", "namespace": "monitoring"},
        "spec": {"selector": wrong, "endpoints": [{"port": "http"}]},
    }
    resource = prometheus(serviceMonitorSelector={})
    made = configuration(resource, monitor, scrape_config("good"), exporter_service())
    assert jobs(made) == ["scrapeConfig/monitoring/good"]
    assert '"in" is not a valid label selector operator' in made.rejected[0].message
    with pytest.raises(OperatorError, match=r'ruleSelector .*: "in" is not a valid label selector operator'):
        configuration(prometheus(ruleSelector=wrong), {**monitor, "kind": "PrometheusRule"})


def test_the_text_form_of_a_configuration_shows_no_token() -> None:
    made = configuration(prometheus(), scrape_config(authorization=BEARER), secret(token="hunter2"))
    assert "hunter2" in str(made.document)
    assert "hunter2" not in repr(made)


def test_messages_of_programs_do_not_show_secrets() -> None:
    shown = redacted("bad token hunter2-and-more of hunter2", [b"hunter2", b"hunter2-and-more\n", b"of"])
    assert shown == "bad token <secret> of <secret>"


def test_objects_that_prometheus_refuses_can_be_left_out_afterwards() -> None:
    made = configuration(prometheus(), scrape_config("a"), scrape_config("b"))
    source = made.jobs[0][0]
    rest = made.without([Rejected(source, "bad regular expression")])
    assert jobs(rest) == ["scrapeConfig/monitoring/b"]
    assert rest.rejected[0].object is source


def test_retention_and_addresses_are_flags() -> None:
    values = {
        "prometheus": {"prometheusSpec": {"retention": "15d", "retentionSize": "40GiB", "logLevel": "debug"}}
    }
    resource, _ = installed(values)
    arguments = prometheus_arguments(resource)
    assert "--storage.tsdb.retention.time=15d" in arguments
    assert "--storage.tsdb.retention.size=40GiB" in arguments
    assert "--web.external-url=http://monitoring-prometheus.monitoring:9090" in arguments
    assert "--log.level=debug" in arguments
    assert "--web.enable-lifecycle" in arguments


def test_alertmanager_reads_its_secret_and_sends_nothing_without_one() -> None:
    resource = {
        "kind": "Alertmanager",
        "metadata": {"name": "main", "namespace": "monitoring"},
        "spec": {"secrets": ["slack"]},
    }
    cluster = Objects(secret("slack", url="https://hooks"))
    files = alertmanager_files(resource, cluster.secrets)
    assert yaml.safe_load(files["config/alertmanager.yaml"])["route"] == {"receiver": "null"}
    assert files["secrets/slack/url"] == b"https://hooks"
    cluster.objects.append(secret("alertmanager-main", **{"alertmanager.yaml": "route: {}", "a.tmpl": "x"}))
    files = alertmanager_files(resource, cluster.secrets)
    assert files["config/alertmanager.yaml"] == b"route: {}"
    assert files["config/a.tmpl"] == b"x"

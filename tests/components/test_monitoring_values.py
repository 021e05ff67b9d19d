"""The values that the chart gets: those of the reference architecture, minus its traps."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from typing import Any

import pytest

from components import alertmanager_config
from components.monitoring_values import chart_values
from tests import shared
from tests.components.mocks import RECEIVERS, settings

ADDRESS = "203.0.113.10"


def values(stack: str, address: str | None = None, **changes: str) -> dict[str, Any]:
    given = settings(stack, **changes)
    return chart_values(
        given.monitoring, given.alerts, certificate_digest="digest", load_balancer_address=address
    )


def claim(size: str) -> dict[str, Any]:
    return {
        "volumeClaimTemplate": {
            "spec": {
                "storageClassName": "csi-cinder-high-speed",
                "accessModes": ["ReadWriteOnce"],
                "resources": {"requests": {"storage": size}},
            }
        }
    }


def test_names_stay_the_same_for_ever() -> None:
    for stack in ("dev", "prod", "sandbox"):
        assert values(stack)["nameOverride"] == values(stack)["fullnameOverride"] == "monitoring"


def test_prometheus_keeps_what_the_reference_architecture_says() -> None:
    prometheus = values("prod")["prometheus"]["prometheusSpec"]
    assert (prometheus["retention"], prometheus["scrapeInterval"]) == ("15d", "15s")
    assert prometheus["evaluationInterval"] == "15s"
    assert prometheus["storageSpec"] == claim("50Gi")
    # Below the volume: a full disk stops Prometheus.
    assert prometheus["retentionSize"] == "40GiB"


def test_objects_of_the_program_are_seen_without_a_label_of_the_release() -> None:
    prometheus = values("prod")["prometheus"]["prometheusSpec"]
    assert prometheus["scrapeConfigSelectorNilUsesHelmValues"] is False
    assert prometheus["ruleSelectorNilUsesHelmValues"] is False


def test_prometheus_has_an_external_address_only_where_one_is_set() -> None:
    address = "https://prometheus.example"
    assert "externalUrl" not in values("prod")["prometheus"]["prometheusSpec"]
    changed = values("prod", prometheusExternalUrl=address)
    assert changed["prometheus"]["prometheusSpec"]["externalUrl"] == address


def test_targets_that_a_managed_cluster_hides_are_off() -> None:
    for component in ("kubeEtcd", "kubeScheduler", "kubeControllerManager", "kubeProxy"):
        assert values("prod")[component] == {"enabled": False}


def test_alertmanager_keeps_its_volume_and_gets_its_configuration() -> None:
    assert values("prod")["alertmanager"] == {
        "enabled": True,
        "config": alertmanager_config.config(settings("prod").alerts),
        "alertmanagerSpec": {"storage": claim("10Gi")},
    }


def test_files_of_receivers_are_mounted_where_there_are_any() -> None:
    specification = values("prod", **RECEIVERS)["alertmanager"]["alertmanagerSpec"]
    assert specification == {"storage": claim("10Gi"), "secrets": ["alertmanager-receivers"]}


def test_the_exporters_run_and_alerts_on_what_they_say_go_with_them() -> None:
    """An alert that cannot fire would be trusted."""
    prod = values("prod")
    changed = values("prod", nodeExporter="false", kubeStateMetrics="false")
    for component in ("nodeExporter", "kubeStateMetrics"):
        assert (prod[component]["enabled"], changed[component]["enabled"]) == (True, False)
    assert set(prod["defaultRules"]["rules"].values()) == {True}
    assert set(changed["defaultRules"]["rules"].values()) == {False}
    without = values("prod", nodeExporter="false")["defaultRules"]["rules"]
    assert {name for name, there in without.items() if not there} == {
        "nodeExporterAlerting",
        "nodeExporterRecording",
        "network",
    }


def test_there_are_no_dashboards_of_nodes_that_cannot_be() -> None:
    systems = values("prod")["nodeExporter"]["operatingSystems"]
    assert systems == {"aix": {"enabled": False}, "darwin": {"enabled": False}}


def test_grafana_keeps_its_volume_and_never_waits_for_itself() -> None:
    grafana = values("prod")["grafana"]
    assert grafana["enabled"] is True
    assert grafana["persistence"] == {
        "enabled": True,
        "storageClassName": "csi-cinder-high-speed",
        "accessModes": ["ReadWriteOnce"],
        "size": "10Gi",
    }
    # The volume can be attached to one pod only: a rolling update never ends.
    assert grafana["deploymentStrategy"] == {"type": "Recreate"}


def test_grafanas_password_comes_from_a_secret_of_the_cluster() -> None:
    grafana = values("prod")["grafana"]
    assert grafana["admin"] == {
        "existingSecret": "grafana-admin",
        "userKey": "admin-user",
        "passwordKey": "admin-password",
    }
    assert "adminPassword" not in grafana


def test_grafana_speaks_https_and_so_does_everybody_who_asks_it() -> None:
    grafana = values("prod")["grafana"]
    (mount,) = grafana["extraSecretMounts"]
    server = grafana["grafana.ini"]["server"]
    assert server["protocol"] == "https"
    assert server["cert_file"] == f"{mount['mountPath']}/tls.crt"
    assert server["cert_key"] == f"{mount['mountPath']}/tls.key"
    assert mount["secretName"] == "grafana-tls"
    for probe in ("readinessProbe", "livenessProbe"):
        assert grafana[probe]["httpGet"] == {"path": "/api/health", "port": "grafana", "scheme": "HTTPS"}
    assert grafana["serviceMonitor"] == {"scheme": "https", "tlsConfig": {"insecureSkipVerify": True}}


def test_a_new_certificate_restarts_grafana() -> None:
    assert values("prod")["grafana"]["podAnnotations"] == {"checksum/tls": "digest"}


@pytest.mark.parametrize("kind", ["dashboards", "datasources"])
def test_datasource_and_dashboards_are_provisioned_over_https(kind: str) -> None:
    sidecar = values("prod")["grafana"]["sidecar"][kind]
    assert sidecar["enabled"] is True
    assert sidecar["reloadURL"] == f"https://localhost:3000/api/admin/provisioning/{kind}/reload"
    # The certificate may be a self-signed one.
    assert sidecar["env"] == {"REQ_SKIP_TLS_VERIFY": "true"}


def test_a_load_balancer_lets_in_the_given_ranges_only() -> None:
    assert values("prod")["grafana"]["service"] == {
        "type": "LoadBalancer",
        "port": 443,
        "annotations": {"loadbalancer.ovhcloud.com/flavor": "small"},
        "loadBalancerSourceRanges": ["192.0.2.0/24"],
    }


def test_a_reserved_address_is_given_to_the_load_balancer_and_outlives_it() -> None:
    service = values("prod", ADDRESS, grafanaLoadBalancerFlavor="medium")["grafana"]["service"]
    assert service["loadBalancerIP"] == ADDRESS
    assert service["annotations"] == {
        "loadbalancer.ovhcloud.com/flavor": "medium",
        "loadbalancer.openstack.org/keep-floatingip": "true",
    }


def test_dev_has_no_load_balancer() -> None:
    assert values("dev")["grafana"]["service"] == {"type": "ClusterIP", "port": 443}


def paths(value: Any, prefix: str = "") -> Iterator[str]:
    """Paths of all leaves; a list is a leaf."""
    if not isinstance(value, dict) or not value:
        yield prefix
        return
    for key, item in value.items():
        yield from paths(item, f"{prefix}.{key}" if prefix else key)


# The chart's list shows what has a default. It has none for these, or they are handed on as they are written.
UNLISTED = (
    "grafana.persistence.storageClassName",
    "grafana.podAnnotations",
    "grafana.grafana.ini.server",
    "grafana.readinessProbe",
    "grafana.livenessProbe",
)


@pytest.mark.parametrize("receivers", [{}, RECEIVERS], ids=["alone", "with receivers"])
@pytest.mark.parametrize("stack", ["dev", "prod", "sandbox"])
def test_the_chart_knows_every_value(stack: str, receivers: dict[str, str]) -> None:
    lines = shared.fixture("kube-prometheus-stack-88.5.3-value-keys.tsv").read_text().splitlines()
    table = csv.reader((line for line in lines if not line.startswith("#")), delimiter="\t")
    defaults = {key: default for key, _, default in table}

    def known(path: str) -> bool:
        # A map that is empty by default takes any key.
        parents = [path[:index] for index, letter in enumerate(path) if letter == "."]
        return path in defaults or "{}" in map(defaults.get, parents) or path.startswith(UNLISTED)

    sent = values(stack, ADDRESS, prometheusExternalUrl="https://prometheus.example", **receivers)
    assert [path for path in paths(sent) if not known(path)] == []

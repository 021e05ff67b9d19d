"""Helm releases in the kubernetes stand-in: inputs and state as the real plugin's, records as Helm's."""

from __future__ import annotations

import base64
import gzip
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sandbox.plugins.kubernetes import changes, chart, helm, records, release
from sandbox.plugins.kubernetes.records import Record
from sandbox.plugins.values import UNKNOWN, Secret, reveal_object

RECORDED = json.loads((Path(__file__).parents[1] / "fixtures/pulumi-kubernetes-state.json").read_text())
REPOSITORY = "https://prometheus-community.github.io/helm-charts"


def recorded_release() -> dict[str, Any]:
    found: dict[str, Any] = next(item for item in RECORDED["resources"] if item["type"] == release.TOKEN)
    return found


def program_inputs() -> dict[str, Any]:
    """What the recorded program gave: the inputs without what the plugin filled in."""
    inputs = recorded_release()["inputs"]
    return {key: inputs[key] for key in ("chart", "name", "namespace", "values", "version")}


def record(inputs: dict[str, Any], status: str = records.DEPLOYED) -> Record:
    rendered = chart.render(inputs["values"], inputs["name"], inputs["namespace"])
    return Record(
        name=inputs["name"],
        namespace=inputs["namespace"],
        revision=1,
        status=status,
        description="",
        values=inputs["values"],
        manifest=rendered.manifest,
        hooks=rendered.hooks,
        first_deployed="2026-11-22T14:04:08Z",
        last_deployed="2026-11-22T14:04:08Z",
    )


def complete(**more: Any) -> dict[str, Any]:
    return release.complete(program_inputs() | more, "unused", "unused")


def test_inputs_are_filled_in_as_recorded() -> None:
    assert complete() == recorded_release()["inputs"]


def test_state_has_the_recorded_keys_values_and_secrets() -> None:
    state = release.state(complete(), record(complete()))
    recorded = recorded_release()["outputs"]
    assert state.keys() == recorded.keys()
    hidden = state["__inputs"]
    assert isinstance(hidden, Secret)
    assert hidden.value == json.loads(recorded["__inputs"]["plaintext"])
    for key in recorded.keys() - {"__inputs", "resourceNames"}:
        assert state[key] == recorded[key], key


def test_resource_names_are_as_many_as_recorded() -> None:
    """The recording kept the length only. Neither hooks nor CRDs are among the names."""
    names = records.resource_names(record(complete()).manifest)
    recorded = recorded_release()["outputs"]["resourceNames"]
    assert recorded == f"<{len(json.dumps(names))} characters>"
    assert names["PersistentVolumeClaim/v1"] == ["monitoring/monitoring-grafana"]
    assert (
        "monitoring-operator" in names["ClusterRole.rbac.authorization.k8s.io/rbac.authorization.k8s.io/v1"]
    )


def test_secret_values_are_secret_in_inputs_and_state() -> None:
    values: dict[str, Any] = {
        "grafana": {"admin": {"existingSecret": Secret("x")}},
        "list": [Secret("y"), "z"],
    }
    inputs = release.complete(program_inputs() | {"values": values}, "", "")
    assert inputs["values"] == {
        "grafana": {"admin": {"existingSecret": Secret("x")}},
        "list": Secret(["y", "z"]),
    }
    plain: dict[str, Any] = dict(reveal_object(inputs))
    state = release.state(inputs, replace(record(complete()), values=plain["values"]))
    assert state["values"] == inputs["values"]
    assert state["__inputs"] == Secret(plain)


def test_repository_options_are_kept_with_the_fields_of_the_real_struct() -> None:
    inputs = complete(repositoryOpts={"repo": REPOSITORY})
    assert inputs["repositoryOpts"] == {
        "repo": REPOSITORY,
        "caFile": "",
        "certFile": "",
        "keyFile": "",
        "password": "",
        "username": "",
    }


def diff(new: dict[str, Any]) -> dict[str, tuple[str, bool]]:
    state = release.state(complete(), record(complete()))
    found = release.changes(state, new, ())
    return {changes.format_path(path): (change.kind, change.replace) for path, change in found.items()}


def test_same_inputs_are_no_change() -> None:
    assert diff(complete()) == {}


def test_changed_and_removed_values_update_in_place() -> None:
    values = json.loads(json.dumps(program_inputs()["values"]))
    values["prometheus"]["prometheusSpec"]["retention"] = "30d"
    del values["kubeEtcd"]
    assert diff(complete(values=values)) == {
        "values.prometheus.prometheusSpec.retention": ("update", False),
        "values.kubeEtcd": ("delete", False),
    }


@pytest.mark.parametrize("key", ["name", "namespace"])
def test_identity_replaces(key: str) -> None:
    assert diff(complete(**{key: "other"})) == {key: ("update", True)}


def test_an_unknown_value_is_a_change_and_left_out_of_the_check() -> None:
    values = program_inputs()["values"] | {"fullnameOverride": UNKNOWN}
    assert diff(complete(values=values)) == {"values.fullnameOverride": ("update", False)}
    assert "fullnameOverride" not in release.known(values)


@pytest.mark.parametrize(
    ("name", "version", "repository", "wrong"),
    [
        ("nginx", "88.5.3", REPOSITORY, "nginx"),
        ("kube-prometheus-stack", "1.0.0", REPOSITORY, "1.0.0"),
        ("kube-prometheus-stack", "88.5.3", "https://charts.example.com", "charts.example.com"),
        ("kube-prometheus-stack", "88.5.3", "", "repository ''"),
    ],
)
def test_charts_that_are_not_modelled_are_refused(
    name: str, version: str, repository: str, wrong: str
) -> None:
    with pytest.raises(chart.ChartError, match="the sandbox") as error:
        chart.locate(name, version, repository)
    assert wrong in str(error.value)


@pytest.mark.parametrize(
    ("name", "repository"),
    [
        ("kube-prometheus-stack", REPOSITORY),
        ("oci://ghcr.io/prometheus-community/charts/kube-prometheus-stack", ""),
    ],
)
def test_the_modelled_chart_is_found_in_both_its_places(name: str, repository: str) -> None:
    chart.locate(name, "88.5.3", repository)


def test_a_record_is_coded_as_helm_codes_it() -> None:
    kept = record(complete(), status=records.FAILED)
    secret = records.encode(kept)
    assert secret["metadata"]["name"] == "sh.helm.release.v1.monitoring.v1"
    assert secret["metadata"]["labels"] == {
        "name": "monitoring",
        "owner": "helm",
        "status": "failed",
        "version": "1",
    }
    stored = json.loads(gzip.decompress(base64.b64decode(base64.b64decode(secret["data"]["release"]))))
    assert stored["chart"]["metadata"]["appVersion"] == "v0.93.1"
    assert records.decode(secret) == kept


def test_the_text_forms_of_a_release_show_no_values() -> None:
    inputs = complete(values={"grafana": {"adminPassword": "hunter2"}})
    assert "hunter2" not in f"{release.order(inputs)!r} {record(inputs)!r}"


def test_an_uninstall_removes_custom_objects_last() -> None:
    kinds = [item["kind"] for item in helm.in_uninstall_order(record(complete()).manifest)]
    assert kinds.index("Deployment") < kinds.index("ServiceAccount") < kinds.index("Prometheus")


def test_an_object_of_somebody_else_is_not_taken_over() -> None:
    marks = {"meta.helm.sh/release-name": "other", "meta.helm.sh/release-namespace": "monitoring"}
    live = {"metadata": {"labels": {"app.kubernetes.io/managed-by": "Helm"}, "annotations": marks}}
    assert helm.foreign(live, "other", "monitoring") is None
    assert 'current value is "other"' in str(helm.foreign(live, "monitoring", "monitoring"))

"""The sandbox's model of the chart makes what the chart makes, down to the fields."""

from __future__ import annotations

import configparser
from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase
from typing import Any

import pytest
import yaml

from sandbox.cluster import chart as stand_in
from tests.chart.conftest import Render
from tests.chart.helm import Object, Rendering, decoded, identity
from tests.chart.variants import VARIANTS

Leaf = tuple[str, str]
"""Path of a field, `<kind>/<name>/<keys>`, and its value. Of a list of texts each one is a leaf."""

_POD = "*/spec.template.spec"
_NO_PODS = "the sandbox runs no containers"
_OTHER_WORDS = "texts are the chart's own, the model has its own"
ADDITIONS = {
    f"{_POD}.*ontainers.*.args": _NO_PODS,
    f"{_POD}.*ontainers.*Probe.*": _NO_PODS,
    f"{_POD}.*ontainers.*.imagePullPolicy": _NO_PODS,
    f"{_POD}.*ontainers.*.mountPropagation": _NO_PODS,
    f"{_POD}.*securityContext.*": _NO_PODS,
    f"{_POD}.affinity.*": _NO_PODS,
    f"{_POD}.automountServiceAccountToken": _NO_PODS,
    f"{_POD}.dnsPolicy": _NO_PODS,
    f"{_POD}.enableServiceLinks": _NO_PODS,
    f"{_POD}.host*": _NO_PODS,
    f"{_POD}.shareProcessNamespace": _NO_PODS,
    f"{_POD}.containers.node-exporter.env.HOST_IP.*": _NO_PODS,
    f"{_POD}.containers.grafana.env.*": "paths inside of the container",
    f"{_POD}.containers.grafana.ports.*": "ports that no Service leads to",
    f"{_POD}.containers.grafana-sc-*.env.REQ_SKIP_TLS_VERIFY.*": _NO_PODS,
    f"{_POD.removesuffix('spec')}metadata.annotations.checksum/*": _OTHER_WORDS,
    "ConfigMap/*/data.*.json": _OTHER_WORDS,
    "PrometheusRule/*/spec.groups.*": _OTHER_WORDS,
    "ServiceMonitor/monitoring-apiserver/*.metricRelabelings.*": "series that the sandbox's cluster has not",
    "ServiceMonitor/monitoring-kubelet/*": "the sandbox has no kubelet",
    "CustomResourceDefinition/*": "test_crds compares them",
}
"""What the chart has and the model has not, by pattern, and why that is fine."""
DEVIATIONS = {
    f"{_POD}.containers.node-exporter.args": "the chart's has the host's address, which a kubelet fills in",
    "Service/monitoring-coredns/spec.type": "the default, which an API server fills in",
    "ConfigMap/*/data.*.json": _OTHER_WORDS,
    "PrometheusRule/monitoring-general.rules/*": _OTHER_WORDS,
    "CustomResourceDefinition/*": "test_crds compares them",
}
"""What the model says and the chart does not, by pattern, and why that is fine."""


def modelled(name: str) -> Rendering:
    """What the sandbox makes of a variant's values."""
    return Rendering(list(stand_in.render(VARIANTS[name].values(), "monitoring", "monitoring")))


def leaves(value: Any, path: str = "") -> Iterator[Leaf]:
    """Every field that is set; null, and empty maps and lists, are nothing."""
    match value:
        case dict():
            for key, item in value.items():
                yield from leaves(item, f"{path}.{key}" if path else str(key))
        case list() if all(isinstance(item, dict) for item in value):
            for index, item in enumerate(value):
                yield from leaves(item, f"{path}.{item.get('name', index)}")
        case list():
            for item in value:
                yield path, str(item)
        case None:
            return
        case _:
            yield path, str(value)


def fields(item: Object) -> Iterator[Leaf]:
    """The fields of an object in a form that can be compared."""
    kind, _, name = identity(item)
    contents = {key: value for key, value in item.items() if key not in ("kind", "metadata", "rules")}
    if kind == "Secret":
        contents["data"] = {key: parsed(key, text) for key, text in decoded(item).items()}
    if kind == "ConfigMap":
        contents["data"] = {key: parsed(key, text) for key, text in item["data"].items()}
    contents["metadata"] = {
        key: {label: text for label, text in (item["metadata"].get(key) or {}).items() if not owned(label)}
        for key in ("labels", "annotations")
    }
    for path, text in leaves(contents):
        yield f"{kind}/{name}/{path}", text
    for rule in item.get("rules") or ():
        for right in rights(rule):
            yield f"{kind}/{name}/rules", right


def owned(label: str) -> bool:
    """Whether helm puts this mark on everything while it installs."""
    return label.startswith("meta.helm.sh/") or label == "app.kubernetes.io/managed-by"


def parsed(name: str, text: str) -> Any:
    """The contents of a file."""
    if name.endswith(".ini"):
        document = configparser.ConfigParser(interpolation=None)
        document.read_string(text)
        # An empty domain is quoted by the chart.
        return {part: {key: value.strip("'") for key, value in document[part].items()} for part in document}
    return yaml.safe_load(text) if name.endswith(".yaml") else text


def rights(rule: Mapping[str, Any]) -> Iterator[str]:
    """What a rule of a role allows, one by one: how they are grouped means nothing."""
    for group in rule.get("apiGroups", [""]):
        for thing in rule.get("resources") or rule["nonResourceURLs"]:
            for verb in rule["verbs"]:
                yield f"{verb} {group}/{thing}"


def left(found: set[Leaf], accepted: Mapping[str, str]) -> list[Leaf]:
    """Differences for which there is no reason."""
    return sorted(leaf for leaf in found if not any(fnmatchcase(leaf[0], pattern) for pattern in accepted))


@pytest.mark.parametrize("name", VARIANTS)
def test_the_model_has_the_objects_of_the_chart(render: Render, name: str) -> None:
    assert modelled(name).identities() == render(name).identities()


@pytest.mark.parametrize("name", VARIANTS)
def test_the_objects_of_the_model_say_what_those_of_the_chart_say(render: Render, name: str) -> None:
    real = {leaf for item in render(name).objects for leaf in fields(item)}
    model = {leaf for item in modelled(name).objects for leaf in fields(item)}
    assert left(model - real, DEVIATIONS) == []
    assert left(real - model, ADDITIONS) == []


def test_every_accepted_difference_is_one(render: Render) -> None:
    real = {leaf for item in render("prod").objects for leaf in fields(item)}
    model = {leaf for item in modelled("prod").objects for leaf in fields(item)}
    for accepted, found in ((ADDITIONS, real - model), (DEVIATIONS, model - real)):
        unused = [key for key in accepted if not any(fnmatchcase(path, key) for path, _ in found)]
        assert unused == []

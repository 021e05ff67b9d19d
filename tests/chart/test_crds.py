"""What the program makes is taken by an API server that has the chart's own definitions."""

from __future__ import annotations

import runpy
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from sandbox.cluster.crds import monitoring_crds
from sandbox.cluster.errors import ApiError
from sandbox.cluster.storage import ObjectStore
from tests.chart.conftest import Render
from tests.chart.helm import Object, Rendering
from tests.chart.variants import DIGEST, SECRETS, VARIANTS
from tests.components.mocks import RELEASE, Deployment, Secret, deploy
from tests.components.stacks import CHECKOUT, SERVICE, configuration

PROGRAM = ("dev", "prod", "sandbox", "all-receivers")


def run(name: str) -> Deployment:
    """The whole program in a variant of a stack."""
    variant = VARIANTS[name]
    return deploy(
        lambda: runpy.run_path(str(CHECKOUT / "__main__.py"), run_name="__main__"),
        config={
            **configuration(variant.stack),
            **variant.changes,
            "serviceName": SERVICE,
            "huggingFaceToken": "canary",
        },
        secrets=["huggingFaceToken", *(SECRETS.keys() & variant.changes.keys())],
        stack=variant.stack,
    )


def plain(value: Any) -> Any:
    """A wire value as the cluster gets it: secrets in clear, whole numbers as such."""
    match value:
        case Secret():
            return plain(value.value)
        case dict():
            return {key: plain(item) for key, item in value.items() if item is not None}
        case list():
            return [plain(item) for item in value]
        case float() if value.is_integer():
            return int(value)
        case _:
            return value


def objects(deployment: Deployment) -> list[Object]:
    """The objects that the program makes in the cluster, besides the release."""
    return [
        plain(resource.inputs)
        for resource in deployment.resources
        if resource.type.startswith("kubernetes:") and "metadata" in resource.inputs
    ]


def cluster(rendering: Rendering, kubernetes: str) -> ObjectStore:
    """A strict API server that has the chart's definitions."""
    store = ObjectStore(kubernetes)
    store.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "monitoring"}}, "test")
    for definition in rendering.of("CustomResourceDefinition"):
        store.create(definition, "helm")
    return store


@pytest.mark.parametrize("name", PROGRAM)
def test_an_api_server_with_the_charts_definitions_takes_every_object(render: Render, name: str) -> None:
    store = cluster(render(name), VARIANTS[name].kubernetes)
    made = [item for item in objects(run(name)) if item["kind"] != "Namespace"]
    for item in made:
        store.create(item, "pulumi")
    assert {"ConfigMap", "Secret", "ScrapeConfig"} <= {item["kind"] for item in made}


@pytest.mark.parametrize("name", PROGRAM)
def test_the_release_gets_the_values_that_are_rendered_here(name: str) -> None:
    values = plain(run(name).one(RELEASE).inputs["values"])
    values["grafana"]["podAnnotations"]["checksum/tls"] = DIGEST
    assert values == VARIANTS[name].values()


def test_definitions_are_strict(render: Render) -> None:
    store = cluster(render("prod"), VARIANTS["prod"].kubernetes)
    wrong = {
        "apiVersion": "monitoring.coreos.com/v1alpha1",
        "kind": "ScrapeConfig",
        "metadata": {"name": "wrong", "namespace": "monitoring"},
    }
    with pytest.raises(ApiError, match="scrapeIntervall"):
        store.create({**wrong, "spec": {"scrapeIntervall": "5s"}}, "pulumi")
    with pytest.raises(ApiError, match="scrapeInterval"):
        store.create({**wrong, "spec": {"scrapeInterval": "5"}}, "pulumi")


def test_the_sandbox_knows_no_field_that_the_definitions_do_not(render: Render) -> None:
    """What the sandbox takes, a cluster takes."""
    real = {field for item in render("prod").of("CustomResourceDefinition") for field in known(item)}
    model = {field for item in monitoring_crds() for field in known(item)}
    assert sorted(model - real) == []


def known(definition: Mapping[str, Any]) -> Iterator[str]:
    """All fields of a definition, by path."""

    def below(schema: Mapping[str, Any], path: str) -> Iterator[str]:
        yield path
        for key, field in schema.get("properties", {}).items():
            yield from below(field, f"{path}.{key}")
        for key in ("items", "additionalProperties"):
            if isinstance(schema.get(key), Mapping):
                yield from below(schema[key], path)

    (version,) = definition["spec"]["versions"]
    yield from below(version["schema"]["openAPIV3Schema"], definition["spec"]["names"]["kind"])

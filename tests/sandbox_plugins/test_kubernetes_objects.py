"""The pure half of the kubernetes stand-in: names, normal form, secrets in state, what replaces."""

from __future__ import annotations

import base64
import ssl
from typing import Any

import pytest
import yaml

from sandbox.plugins.framework import PluginError
from sandbox.plugins.kubernetes import changes, kubeconfig, objects, readiness
from sandbox.plugins.kubernetes.objects import Kind
from sandbox.plugins.values import UNKNOWN, Secret
from sandbox.tls import Authority

SECRET: dict[str, Any] = {
    "apiVersion": "v1",
    "kind": "Secret",
    "metadata": {"name": "vllm-auth-token", "namespace": "monitoring"},
    "data": {"token": "YWJj"},
}


@pytest.mark.parametrize(
    ("token", "api_version", "kind"),
    [
        ("kubernetes:core/v1:Secret", "v1", "Secret"),
        ("kubernetes:apps/v1:Deployment", "apps/v1", "Deployment"),
        (
            "kubernetes:monitoring.coreos.com/v1alpha1:ScrapeConfig",
            "monitoring.coreos.com/v1alpha1",
            "ScrapeConfig",
        ),
    ],
)
def test_type_token_names_api_version_and_kind(token: str, api_version: str, kind: str) -> None:
    assert Kind.of(token) == Kind(api_version, kind)


@pytest.mark.parametrize("token", ["kubernetes:core/v1:SecretList", "kubernetes:core/v1:NamespacePatch"])
def test_types_that_are_not_modelled_say_so(token: str) -> None:
    with pytest.raises(PluginError, match=r"cannot be created directly|not modelled"):
        Kind.of(token)


def test_string_data_becomes_data_as_the_server_keeps_it() -> None:
    secret = {key: value for key, value in SECRET.items() if key != "data"} | {"stringData": {"token": "abc"}}
    assert objects.normal(secret)["data"] == SECRET["data"]
    assert "stringData" not in objects.normal(secret)


def test_data_of_a_secret_is_secret_even_when_the_program_did_not_mark_it() -> None:
    state = objects.state(SECRET, SECRET | {"type": "Opaque"}, dict(SECRET), "v1", "pulumi-kubernetes-0")
    assert state["data"] == Secret({"token": "YWJj"})
    inputs = state["__inputs"]
    assert isinstance(inputs, dict)
    assert inputs["data"] == Secret({"token": "YWJj"})
    assert state["metadata"] == SECRET["metadata"]


def test_a_secret_input_is_secret_in_the_live_object_and_nothing_else_is() -> None:
    live: Any = {"kind": "ConfigMap", "data": {"a": "1", "b": "2"}, "list": ["x", "y"]}
    given: Any = {"kind": "ConfigMap", "data": {"a": Secret("1")}, "list": [Secret("x"), "y"]}
    assert objects.with_secrets(live, given) == {
        "kind": "ConfigMap",
        "data": {"a": Secret("1"), "b": "2"},
        "list": Secret(["x", "y"]),
    }


def test_messages_do_not_show_the_data_of_a_secret() -> None:
    text = 'Secret "vllm-auth-token" is invalid: data[token]: Invalid value: "YWJjZGVm"'
    assert "YWJj" not in objects.masked(text, SECRET | {"data": {"token": "YWJjZGVm"}})
    assert "vllm-auth-token" in objects.masked(text, dict(SECRET))
    both = SECRET | {"data": {"a": "YWJjZGVm", "b": "YWJjZGVmLWFuZC1tb3Jl"}}
    assert objects.masked("it is YWJjZGVmLWFuZC1tb3Jl", both) == "it is [secret]"


def test_live_state_is_compared_only_where_inputs_speak() -> None:
    live = {
        "spec": {"replicas": 2, "paused": False, "ports": [{"port": 80, "nodePort": 30000}]},
        "status": {"ready": 1},
    }
    assert objects.pruned(live, {"spec": {"replicas": 1, "ports": [{"port": 80}]}}) == {
        "spec": {"replicas": 2, "ports": [{"port": 80}]}
    }


def diff(old: dict[str, Any], new: dict[str, Any], mutable: bool = False) -> dict[str, tuple[str, bool]]:
    force_new = changes.replacing(new, mutable, mutable)
    found = changes.compare(old, new, force_new)
    return {changes.format_path(path): (change.kind, change.replace) for path, change in found.items()}


def test_new_data_replaces_a_secret_unless_secrets_are_mutable() -> None:
    new = SECRET | {"data": {"token": "ZGVm"}}
    assert diff(SECRET, new) == {"data.token": ("update", True)}
    assert diff(SECRET, new, mutable=True) == {"data.token": ("update", False)}
    assert diff(SECRET, new | {"immutable": True}, mutable=True)["data.token"] == ("update", True)


def test_identity_replaces_and_labels_do_not() -> None:
    named = SECRET | {"metadata": SECRET["metadata"] | {"name": "other", "labels": {"a.b/c": "d"}}}
    assert diff(SECRET, named) == {
        "metadata.name": ("update", True),
        "metadata.labels": ("add", False),
    }


def test_a_replacing_field_inside_an_added_part_replaces() -> None:
    old = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {}, "spec": {"replicas": 1}}
    new = old | {"spec": {"replicas": 2, "selector": {"matchLabels": {"a": "b"}}}}
    assert diff(old, new) == {"spec.replicas": ("update", False), "spec.selector": ("add", True)}


def test_an_image_of_a_pod_replaces_it_by_any_container() -> None:
    old: dict[str, Any] = {"apiVersion": "v1", "kind": "Pod", "metadata": {}}
    old["spec"] = {"containers": [{"name": "a", "image": "x:1"}, {"name": "b", "image": "x:1"}]}
    new = old | {"spec": {"containers": [{"name": "a", "image": "x:1"}, {"name": "b", "image": "x:2"}]}}
    assert diff(old, new) == {"spec.containers[1].image": ("update", True)}


def test_an_unknown_value_is_a_change() -> None:
    old: dict[str, Any] = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {}, "data": {"a": "1"}}
    assert diff(old, old | {"data": {"a": UNKNOWN, "b": UNKNOWN}}) == {
        "data.a": ("update", True),
        "data.b": ("add", True),
    }


def test_ignored_paths_cover_what_lies_below_them() -> None:
    old: dict[str, Any] = {"apiVersion": "v1", "kind": "Service", "metadata": {"annotations": {"a.b/c": "1"}}}
    new = old | {"metadata": {"annotations": {"a.b/c": "2"}, "labels": {"x": "y"}}}
    found = changes.compare(old, new, [])
    left = changes.without_ignored(found, ['metadata.annotations["a.b/c"]'])
    assert [changes.format_path(path) for path in left] == ["metadata.labels"]


@pytest.mark.parametrize("text", ["spec", 'metadata.labels["a.b/c"]', "spec.ports[0].port", 'data["x"].y'])
def test_property_paths_survive_parsing(text: str) -> None:
    assert changes.parse_path(changes.format_path(changes.parse_path(text))) == changes.parse_path(text)


def test_merge_patch_of_two_objects_removes_and_changes() -> None:
    old = {"a": 1, "b": {"c": 1, "d": 2}, "e": [1]}
    assert changes.merge_patch(old, {"b": {"c": 1, "d": 3}, "e": [1, 2]}) == {
        "a": None,
        "b": {"d": 3},
        "e": [1, 2],
    }


def test_fields_created_by_post_are_taken_over_before_an_apply() -> None:
    created = {
        "manager": "pulumi-kubernetes",
        "operation": "Update",
        "fieldsV1": {"f:data": {"f:token": {}}},
    }
    status = {
        "manager": "controller",
        "operation": "Update",
        "subresource": "status",
        "fieldsV1": {"f:status": {}},
    }
    taken = objects.taken_over([created, status], "pulumi-kubernetes-1")
    assert taken == [created | {"manager": "pulumi-kubernetes-1", "operation": "Apply"}, status]
    assert objects.taken_over(taken, "pulumi-kubernetes-1") is None


def deployment(**status: Any) -> dict[str, Any]:
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "grafana", "generation": 2},
        "spec": {"replicas": 1},
        "status": status,
    }


def test_a_deployment_is_ready_when_the_new_replicas_are_available() -> None:
    done = {"observedGeneration": 2, "updatedReplicas": 1, "availableReplicas": 1}
    assert readiness.pending(deployment(**done)) is None
    assert "not seen" in str(readiness.pending(deployment(**done | {"observedGeneration": 1})))
    assert "0 of 1" in str(readiness.pending(deployment(**done | {"availableReplicas": 0})))


def test_a_load_balancer_waits_for_its_address() -> None:
    service: dict[str, Any] = {"apiVersion": "v1", "kind": "Service", "metadata": {}}
    service["spec"] = {"type": "LoadBalancer"}
    assert "IP address" in str(readiness.pending(service | {"status": {"loadBalancer": {}}}))
    assert (
        readiness.pending(service | {"status": {"loadBalancer": {"ingress": [{"ip": "127.0.64.1"}]}}}) is None
    )


def config(server: str = "https://127.0.0.1:6443", **user: str) -> str:
    return yaml.safe_dump(
        {
            "current-context": "admin",
            "contexts": [
                {"name": "admin", "context": {"cluster": "mks", "user": "admin", "namespace": "apps"}}
            ],
            "clusters": [{"name": "mks", "cluster": {"server": server}}],
            "users": [{"name": "admin", "user": user}],
        }
    )


def test_a_kubeconfig_gives_a_client_certificate_without_a_file() -> None:
    pair = Authority().client("admin", "system:masters")
    encoded = {
        "client-certificate-data": base64.b64encode(pair.certificate).decode(),
        "client-key-data": base64.b64encode(pair.key).decode(),
    }
    access = kubeconfig.access(kubeconfig.load(config(**encoded)))
    assert access.namespace == "apps"
    assert access.ssl_context().verify_mode is ssl.CERT_REQUIRED
    assert "PRIVATE" not in repr(access)


def test_an_authority_that_is_no_certificate_is_an_error_of_the_kubeconfig() -> None:
    pair = Authority().client("admin", "system:masters")
    access = kubeconfig.Access("https://127.0.0.1:1", "default", b"s3cr3t", pair.certificate, pair.key)
    with pytest.raises(kubeconfig.KubeconfigError, match="certificate-authority") as error:
        access.ssl_context()
    assert "s3cr3t" not in str(error.value)


def test_a_real_cluster_is_never_talked_to() -> None:
    with pytest.raises(kubeconfig.KubeconfigError, match="not on this machine"):
        kubeconfig.access(kubeconfig.load(config("https://x.c3.gra.k8s.ovh.net")))


@pytest.mark.parametrize("text", ["a: [s3cr3t", "s3cr3t", config(**{"client-key-data": "s3cr3t!"})])
def test_errors_of_a_kubeconfig_do_not_show_it(text: str) -> None:
    with pytest.raises(kubeconfig.KubeconfigError) as error:
        kubeconfig.access(kubeconfig.load(text))
    assert "s3cr3t" not in str(error.value)

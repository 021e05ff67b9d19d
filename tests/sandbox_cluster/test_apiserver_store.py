"""What the API server accepts, refuses, adds and keeps, without HTTP."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable
from typing import Any

import pytest

from sandbox.cluster.crds import monitoring_crds
from sandbox.cluster.errors import ApiError
from sandbox.cluster.storage import ObjectStore, owner_reference
from tests.sandbox_cluster.clusters import balancer_service, claim, scrape_config, thing, workload

Object = dict[str, Any]


@pytest.fixture
def store() -> ObjectStore:
    store = ObjectStore("1.34")
    store.create(thing("Namespace", "default", None), "test")
    return store


@pytest.fixture
def custom(store: ObjectStore) -> ObjectStore:
    for definition in monitoring_crds():
        store.create(definition, "test")
    return store


def refusal(call: Callable[[], object]) -> ApiError:
    with pytest.raises(ApiError) as caught:
        call()
    return caught.value


def changed(value: Object, path: str, new: Any) -> Object:
    """`value` with `new` at a dotted path; None removes the field."""
    *parents, last = path.split(".")
    target: Any = value
    for part in parents:
        target = target[int(part)] if part.isdecimal() else target[part]
    if new is None:
        del target[last]
    else:
        target[last] = new
    return value


REFUSED: list[tuple[str, Object, int, str, str]] = [
    ("unknown field", thing("ConfigMap", "x", dat={}), 400, "BadRequest", 'unknown field "dat"'),
    (
        "unknown nested field",
        balancer_service("x", loadbalancerSourceRanges=[]),
        400,
        "BadRequest",
        'unknown field "spec.loadbalancerSourceRanges"',
    ),
    (
        "wrong type",
        balancer_service("x", ports=[{"port": "80"}]),
        400,
        "BadRequest",
        "cannot unmarshal string",
    ),
    ("float for integer", balancer_service("x", ports=[{"port": 80.0}]), 400, "BadRequest", "number 80.0"),
    (
        "number for text",
        thing("ConfigMap", "x", data={"a": 1}),
        400,
        "BadRequest",
        "cannot unmarshal number 1",
    ),
    ("bad name", thing("ConfigMap", "X_y"), 422, "Invalid", "metadata.name: Invalid value: "),
    (
        "name with dots",
        thing("Service", "a.b", spec={"ports": [{"port": 1}]}),
        422,
        "Invalid",
        "a DNS-1035 label",
    ),
    ("long name", thing("Namespace", "a" * 64, None), 422, "Invalid", "no more than 63 characters"),
    (
        "no name",
        {"apiVersion": "v1", "kind": "ConfigMap"},
        422,
        "Invalid",
        "name or generateName is required",
    ),
    (
        "bad label",
        thing("ConfigMap", "x", metadata={"labels": {"a": "b c"}}),
        422,
        "Invalid",
        "metadata.labels",
    ),
    ("no base64", thing("Secret", "x", data={"a": "%hunter2%"}), 400, "BadRequest", "illegal base64 data"),
    (
        "certificate without key",
        thing("Secret", "x", type="kubernetes.io/tls", data={"tls.crt": ""}),
        422,
        "Invalid",
        "data[tls.key]: Required value",
    ),
    (
        "too big",
        thing("ConfigMap", "x", data={"a": "é" * 524289}),
        422,
        "Invalid",
        "may not be more than 1048576",
    ),
    ("bad key", thing("ConfigMap", "x", data={"a/b": ""}), 422, "Invalid", "a valid config key"),
    ("key that leads out", thing("ConfigMap", "x", data={"..": ""}), 422, "Invalid", "must not be '..'"),
    (
        "path that leads out",
        workload(
            "Deployment",
            "x",
            {"volumes": [{"name": "v", "secret": {"items": [{"key": "a", "path": "b/../../c"}]}}]},
        ),
        422,
        "Invalid",
        "volumes[0].secret.items[0].path: Invalid value: \"b/../../c\": must not contain '..'",
    ),
    (
        "bad range",
        balancer_service("x", loadBalancerSourceRanges=["1.2.3.4/40"]),
        422,
        "Invalid",
        "spec.loadBalancerSourceRanges[0]: Invalid value",
    ),
    (
        "range without load balancer",
        balancer_service("x", type="ClusterIP", loadBalancerSourceRanges=["1.2.3.4/32"]),
        422,
        "Invalid",
        "may only be used when `type` is 'LoadBalancer'",
    ),
    ("bad service type", balancer_service("x", type="Loadbalancer"), 422, "Invalid", "supported values"),
    (
        "unnamed ports",
        balancer_service("x", ports=[{"port": 1}, {"port": 2}]),
        422,
        "Invalid",
        "ports[1].name",
    ),
    (
        "claim without size",
        claim("x", resources={}),
        422,
        "Invalid",
        "spec.resources[storage]: Required value",
    ),
    ("claim with bad size", claim("x", "10Gig"), 400, "BadRequest", "quantities must match"),
    ("claim without mode", claim("x", accessModes=[]), 422, "Invalid", "at least 1 access mode is required"),
    (
        "selector of other pods",
        workload("Deployment", "x", selector={"matchLabels": {"app": "y"}}),
        422,
        "Invalid",
        "`selector` does not match template `labels`",
    ),
    ("no spec", thing("Deployment", "x", api="apps/v1"), 422, "Invalid", "spec: Required value"),
    ("other version", thing("Deployment", "x", api="apps/v1beta1"), 404, "NotFound", "could not find"),
    ("no such namespace", thing("ConfigMap", "x", "nope"), 404, "NotFound", 'namespaces "nope" not found'),
]


@pytest.mark.parametrize(
    ("value", "code", "reason", "text"), [item[1:] for item in REFUSED], ids=[i[0] for i in REFUSED]
)
def test_what_a_real_api_server_refuses_is_refused(
    store: ObjectStore, value: Object, code: int, reason: str, text: str
) -> None:
    error = refusal(lambda: store.create(value, "test"))
    assert (error.code, error.reason) == (code, reason)
    assert text in error.message
    assert "hunter2" not in error.message


REFUSED_CUSTOM: list[tuple[str, Object, int, str]] = [
    ("unknown field", scrape_config("x", interval="5s"), 400, 'unknown field "spec.interval"'),
    ("scheme", scrape_config("x", scheme="ftp"), 422, 'spec.scheme: Unsupported value: "ftp"'),
    ("duration", scrape_config("x", scrapeInterval="5 s"), 422, "spec.scrapeInterval in body should match"),
    (
        "timeout over interval",
        scrape_config("x", scrapeTimeout="6s"),
        422,
        "must not be greater than scrapeInterval",
    ),
    ("type", scrape_config("x", enableHTTP2="no"), 422, "must be of type boolean"),
    ("no targets", scrape_config("x", staticConfigs=[{"targets": []}]), 422, "at least 1 items"),
    (
        "same target twice",
        scrape_config("x", staticConfigs=[{"targets": ["a:1", "b:1", "a:1"]}]),
        422,
        'spec.staticConfigs[0].targets[2]: Duplicate value: "a:1"',
    ),
    ("no relabelings", scrape_config("x", metricRelabelings=[]), 422, "at least 1 items"),
    ("two methods", scrape_config("x", basicAuth={}), 422, "at most one of authorization, basicAuth, oauth2"),
    (
        "relabeling action",
        scrape_config("x", metricRelabelings=[{"action": "substitute"}]),
        422,
        "spec.metricRelabelings[0].action: Unsupported value",
    ),
    (
        "rule without expression",
        thing(
            "PrometheusRule",
            "x",
            api="monitoring.coreos.com/v1",
            spec={"groups": [{"name": "a", "rules": [{"alert": "A"}]}]},
        ),
        422,
        "spec.groups[0].rules[0].expr: Required value",
    ),
    (
        "rule that records and alerts",
        thing(
            "PrometheusRule",
            "x",
            api="monitoring.coreos.com/v1",
            spec={"groups": [{"name": "a", "rules": [{"alert": "A", "record": "b", "expr": "1"}]}]},
        ),
        422,
        "exactly one of record and alert",
    ),
    (
        "group twice",
        thing(
            "PrometheusRule",
            "x",
            api="monitoring.coreos.com/v1",
            spec={"groups": [{"name": "a"}, {"name": "a"}]},
        ),
        422,
        "Duplicate value",
    ),
    (
        "retention size",
        thing("Prometheus", "x", api="monitoring.coreos.com/v1", spec={"retentionSize": "40Gi"}),
        422,
        "spec.retentionSize in body should match",
    ),
    (
        "Alertmanager retention in days",
        thing("Alertmanager", "x", api="monitoring.coreos.com/v1", spec={"retention": "5d"}),
        422,
        "spec.retention in body should match",
    ),
    (
        "monitor without selector",
        thing("ServiceMonitor", "x", api="monitoring.coreos.com/v1", spec={"endpoints": [{"port": "http"}]}),
        422,
        "spec.selector: Required value",
    ),
    (
        "no spec",
        thing("ScrapeConfig", "x", api="monitoring.coreos.com/v1alpha1"),
        422,
        "spec: Required value",
    ),
]


@pytest.mark.parametrize(
    ("value", "code", "text"), [item[1:] for item in REFUSED_CUSTOM], ids=[i[0] for i in REFUSED_CUSTOM]
)
def test_custom_objects_are_held_to_the_schemas_of_the_operator(
    custom: ObjectStore, value: Object, code: int, text: str
) -> None:
    error = refusal(lambda: custom.create(value, "test"))
    assert error.code == code
    assert text in error.message


def test_all_mistakes_come_in_one_answer_with_causes(store: ObjectStore) -> None:
    value = balancer_service("x", ports=[{"port": 0}], loadBalancerSourceRanges=["a"])
    error = refusal(lambda: store.create(value, "test"))
    fields = [cause["field"] for cause in error.status()["details"]["causes"]]
    assert fields == ["spec.ports[0].port", "spec.loadBalancerSourceRanges[0]"]


def test_a_custom_kind_is_there_from_its_definition_to_the_end_of_it(store: ObjectStore) -> None:
    before = refusal(lambda: store.create(scrape_config("x"), "test"))
    assert before.code == 404
    assert "could not find the requested resource" in before.message
    assert store.list("ScrapeConfig") == []
    for definition in monitoring_crds():
        stored = store.create(definition, "test")
        conditions = {item["type"]: item["status"] for item in stored["status"]["conditions"]}
        assert conditions == {"NamesAccepted": "True", "Established": "True"}
    store.create(scrape_config("x"), "test")
    store.delete("CustomResourceDefinition", "", "scrapeconfigs.monitoring.coreos.com")
    assert not store.serves("ScrapeConfig")
    assert store.get("ScrapeConfig", "default", "x") is None


def test_a_definition_cannot_take_a_kind_that_is_served(store: ObjectStore) -> None:
    definition = monitoring_crds()[0]
    taken = definition | {
        "spec": definition["spec"] | {"names": definition["spec"]["names"] | {"kind": "Service"}}
    }
    assert "serves this kind already" in refusal(lambda: store.create(taken, "test")).message


def test_defaults_of_a_custom_schema_are_set(custom: ObjectStore) -> None:
    value = thing("Prometheus", "x", api="monitoring.coreos.com/v1", spec={})
    assert custom.create(value, "test")["spec"] == {"scrapeInterval": "30s", "evaluationInterval": "30s"}


IMMUTABLE: list[tuple[str, Object, str, Any, str]] = [
    ("cluster IP", balancer_service("x"), "spec.clusterIP", "10.3.9.9", "may not change once set"),
    ("claim", claim("x"), "spec.storageClassName", "csi-cinder-classic", "spec is immutable after creation"),
    ("claim smaller", claim("x"), "spec.resources.requests.storage", "5Gi", "can not be less"),
    ("secret type", thing("Secret", "x"), "type", "kubernetes.io/tls", "type: Invalid value"),
    (
        "claim templates",
        workload("StatefulSet", "x", serviceName="x", volumeClaimTemplates=[claim("data")]),
        "spec.volumeClaimTemplates.0.spec.resources.requests.storage",
        "20Gi",
        "updates to statefulset spec for fields other than",
    ),
    ("frozen data", thing("ConfigMap", "x", immutable=True, data={"a": "1"}), "data.a", "2", "immutable"),
]


@pytest.mark.parametrize(
    ("value", "path", "new", "text"), [item[1:] for item in IMMUTABLE], ids=[item[0] for item in IMMUTABLE]
)
def test_immutable_fields_cannot_change(
    store: ObjectStore, value: Object, path: str, new: Any, text: str
) -> None:
    stored = store.create(value, "test")
    error = refusal(lambda: store.update(changed(stored, path, new), "test"))
    assert error.code == 422
    assert text in error.message


def test_a_service_keeps_its_addresses_and_node_ports_in_a_replace(store: ObjectStore) -> None:
    stored = store.create(balancer_service("x"), "test")
    again = store.update(balancer_service("x", loadBalancerSourceRanges=["1.2.3.4/32"]), "test")
    assert again["spec"]["clusterIP"] == stored["spec"]["clusterIP"]
    assert again["spec"]["ports"] == stored["spec"]["ports"]


def test_a_write_from_an_old_version_is_a_conflict(store: ObjectStore) -> None:
    stored = store.create(thing("ConfigMap", "x", data={"a": "1"}), "test")
    store.update(changed(store.get("ConfigMap", "default", "x") or {}, "data.a", "2"), "test")
    error = refusal(lambda: store.update(changed(stored, "data.a", "3"), "test"))
    assert (error.code, error.reason) == (409, "Conflict")
    assert "the object has been modified" in error.message


def test_a_write_that_changes_nothing_is_no_new_version(store: ObjectStore) -> None:
    stored = store.create(workload("Deployment", "x"), "test")
    revision = store.revision
    assert store.update(workload("Deployment", "x"), "other")["metadata"] == stored["metadata"]
    assert store.revision == revision


def test_generation_counts_changes_of_what_is_wanted_only(store: ObjectStore) -> None:
    store.create(workload("Deployment", "x"), "test")
    status = {"replicas": 1, "observedGeneration": 1}
    labelled = store.set_status("Deployment", "default", "x", status, "test")
    assert labelled["metadata"]["generation"] == 1
    scaled = store.update(workload("Deployment", "x", replicas=2), "test")
    assert scaled["metadata"]["generation"] == 2
    assert scaled["status"] == status


def test_status_is_written_through_its_subresource_only(store: ObjectStore) -> None:
    stored = store.create(
        balancer_service("x") | {"status": {"loadBalancer": {"ingress": [{"ip": "1.2.3.4"}]}}}, "test"
    )
    assert stored["status"] == {"loadBalancer": {}}


def test_apply_removes_what_its_manager_gives_up_and_leaves_the_rest(store: ObjectStore) -> None:
    store.apply(thing("ConfigMap", "x", data={"mine": "1", "dropped": "1"}), "one")
    store.apply(thing("ConfigMap", "x", data={"theirs": "1"}), "two")
    stored = store.apply(thing("ConfigMap", "x", data={"mine": "2"}), "one")
    assert stored["data"] == {"mine": "2", "theirs": "1"}


def test_apply_gives_up_entries_of_lists_by_key(store: ObjectStore) -> None:
    ports = [{"name": "a", "port": 80}, {"name": "b", "port": 81}]
    store.apply(balancer_service("x", ports=ports), "one")
    stored = store.apply(balancer_service("x", ports=ports[:1]), "one")
    assert [port["port"] for port in stored["spec"]["ports"]] == [80]


def test_apply_without_force_does_not_take_what_another_set(store: ObjectStore) -> None:
    store.apply(thing("ConfigMap", "x", data={"a": "1"}), "one")
    error = refusal(lambda: store.apply(thing("ConfigMap", "x", data={"a": "2"}), "two", force=False))
    assert error.code == 409
    assert error.message == 'Apply failed with 1 conflict: conflict with "one" using v1: .data.a'
    store.apply(thing("ConfigMap", "x", data={"a": "1"}), "two", force=False)  # the same value is shared
    taken = store.apply(thing("ConfigMap", "x", data={"a": "2"}), "two")
    owners = [entry["manager"] for entry in taken["metadata"]["managedFields"]]
    assert owners == ["two"]


def test_a_volume_without_a_source_is_an_empty_folder(store: ObjectStore) -> None:
    stored = store.create(workload("Deployment", "x", {"volumes": [{"name": "v"}]}), "test")
    assert stored["spec"]["template"]["spec"]["volumes"] == [{"name": "v", "emptyDir": {}}]


def test_secret_text_becomes_data(store: ObjectStore) -> None:
    stored = store.create(thing("Secret", "x", stringData={"token": "abc"}), "test")
    assert stored["data"] == {"token": base64.b64encode(b"abc").decode()}
    assert "stringData" not in stored


def test_a_namespace_that_is_going_takes_nothing_new(store: ObjectStore) -> None:
    store.create(thing("Namespace", "going", None), "test")
    store.delete("Namespace", "", "going")
    error = refusal(lambda: store.create(thing("ConfigMap", "x", "going"), "test"))
    assert (error.code, error.reason) == (403, "Forbidden")
    assert "because it is being terminated" in error.message
    assert error.status()["details"]["causes"][0]["reason"] == "NamespaceTerminating"


def test_a_finalizer_holds_an_object_until_it_is_removed(store: ObjectStore) -> None:
    store.create(thing("ConfigMap", "x", metadata={"finalizers": ["example.com/held"]}), "test")
    assert "deletionTimestamp" in store.delete("ConfigMap", "default", "x")["metadata"]
    held = store.get("ConfigMap", "default", "x")
    assert held is not None
    store.update(changed(held, "metadata.finalizers", []), "test")
    assert store.get("ConfigMap", "default", "x") is None


def test_orphaned_dependents_lose_their_owner(store: ObjectStore) -> None:
    owner = store.create(thing("ConfigMap", "owner"), "test")
    store.create(thing("ConfigMap", "owned", metadata={"ownerReferences": [owner_reference(owner)]}), "test")
    store.delete("ConfigMap", "default", "owner", propagation="Orphan")
    owned = store.get("ConfigMap", "default", "owned")
    assert owned is not None
    assert owned["metadata"]["ownerReferences"] == []


def test_a_deletion_with_the_wrong_uid_is_a_conflict(store: ObjectStore) -> None:
    store.create(thing("ConfigMap", "x"), "test")
    error = refusal(lambda: store.delete("ConfigMap", "default", "x", preconditions={"uid": "other"}))
    assert error.code == 409


def test_a_dry_run_stores_nothing(store: ObjectStore) -> None:
    revision = store.revision
    assert store.create(thing("ConfigMap", "x"), "test", dry_run=True)["metadata"]["uid"]
    assert (store.get("ConfigMap", "default", "x"), store.revision) == (None, revision)


def test_what_is_handed_out_is_a_copy(store: ObjectStore) -> None:
    store.create(thing("ConfigMap", "x", data={"a": "1"}), "test")["data"]["a"] = "changed"
    store.list("ConfigMap")[0]["data"]["a"] = "changed"
    assert (store.get("ConfigMap", "default", "x") or {})["data"] == {"a": "1"}


def test_repeated_events_count_up_and_wake_no_controller(store: ObjectStore) -> None:
    about = store.create(thing("ConfigMap", "x"), "test")
    revision = store.revision
    for _ in range(3):
        store.event(about, "Warning", "Broken", "it is broken", "test")
    (event,) = store.list("Event")
    assert event["count"] == 3
    assert re.fullmatch(r"x\.[0-9a-f]{16}", event["metadata"]["name"])
    assert store.revision == revision


def test_generated_names_differ(store: ObjectStore) -> None:
    value = thing("ConfigMap", "")
    value["metadata"] = {"generateName": "x-", "namespace": "default"}
    names = {store.create(value, "test")["metadata"]["name"] for _ in range(5)}
    assert len(names) == 5
    assert all(name.startswith("x-") for name in names)

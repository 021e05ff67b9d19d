"""Field ownership and patches, as pure functions."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandbox.cluster import fields
from sandbox.cluster.crds import monitoring_crds
from sandbox.cluster.kinds import BUILT_IN
from sandbox.cluster.schemas import Schemas, schema_version
from sandbox.cluster.storage import ObjectStore
from tests import shared

KINDS = {kind.kind: kind for kind in BUILT_IN}
SCHEMAS = Schemas("1.34")

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text("ab/~", max_size=2), inner, max_size=3)
    ),
    max_leaves=8,
)
ELEMENTS = st.sampled_from(["f:a", "f:b", 'k:{"name":"x"}', 'v:"y"'])


def node(kind: str) -> fields.Node:
    return SCHEMAS.node(KINDS[kind])


@given(st.sets(st.lists(ELEMENTS, min_size=1, max_size=4).map(tuple)))
def test_encoded_field_sets_decode_to_themselves(owned: set[fields.Path]) -> None:
    assert fields.decode(fields.encode(owned)) == owned


@given(JSON, JSON)
def test_a_merge_patch_applied_twice_changes_nothing_more(live: Any, patch: Any) -> None:
    once = fields.merge_patch(live, patch)
    assert fields.merge_patch(once, patch) == once


@given(JSON)
def test_a_json_patch_of_a_copy_leaves_the_original_alone(live: Any) -> None:
    before = json.dumps(live)
    fields.json_patch(live, [{"op": "replace", "path": "", "value": 1}])
    assert json.dumps(live) == before


def test_json_patch_operations() -> None:
    live = {"a": [1, 2], "b": {"c/d": 1}}
    patched = fields.json_patch(
        live,
        [
            {"op": "test", "path": "/a/0", "value": 1},
            {"op": "add", "path": "/a/-", "value": 3},
            {"op": "remove", "path": "/a/0"},
            {"op": "move", "from": "/b/c~1d", "path": "/e"},
            {"op": "copy", "from": "/e", "path": "/f"},
        ],
    )
    assert patched == {"a": [2, 3], "b": {}, "e": 1, "f": 1}


@pytest.mark.parametrize(
    "operation",
    [
        {"op": "test", "path": "/password", "value": "hunter2"},
        {"op": "replace", "path": "/missing", "value": "hunter2"},
        {"op": "add", "path": "/a/b/c", "value": "hunter2"},
        {"op": "grow", "path": "/password", "value": "hunter2"},
    ],
)
def test_a_refused_json_patch_does_not_show_its_value(operation: dict[str, Any]) -> None:
    with pytest.raises(fields.PatchError) as refusal:
        fields.json_patch({"password": "other", "a": {}}, [operation])
    assert "hunter2" not in str(refusal.value)


def test_a_strategic_merge_patch_merges_lists_by_their_key() -> None:
    live = {
        "spec": {"ports": [{"port": 80, "name": "a"}, {"port": 81, "name": "b"}, {"port": 82, "name": "c"}]}
    }
    patch = {
        "spec": {
            "$setElementOrder/ports": [{"port": 82}, {"port": 80}],
            "ports": [{"port": 80, "name": "z"}, {"port": 81, "$patch": "delete"}],
        }
    }
    patched = fields.strategic_merge_patch(node("Service"), live, patch)
    assert patched == {"spec": {"ports": [{"port": 82, "name": "c"}, {"port": 80, "name": "z"}]}}


def test_a_strategic_merge_patch_drops_what_is_not_retained() -> None:
    live = {"spec": {"strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1}}}}
    patch = {"spec": {"strategy": {"$retainKeys": ["type"], "type": "Recreate"}}}
    patched = fields.strategic_merge_patch(node("Deployment"), live, patch)
    assert patched == {"spec": {"strategy": {"type": "Recreate"}}}


def test_a_strategic_merge_patch_replaces_lists_without_a_key() -> None:
    live = {"spec": {"loadBalancerSourceRanges": ["1.2.3.4/32"]}}
    patch = {"spec": {"loadBalancerSourceRanges": ["5.6.7.8/32"]}}
    assert fields.strategic_merge_patch(node("Service"), live, patch) == patch


def test_a_strategic_merge_patch_handles_sets_of_scalars() -> None:
    live = {"metadata": {"finalizers": ["a", "b"]}}
    patch = {"metadata": {"finalizers": ["c"], "$deleteFromPrimitiveList/finalizers": ["a"]}}
    patched = fields.strategic_merge_patch(node("Service"), live, patch)
    assert sorted(patched["metadata"]["finalizers"]) == ["b", "c"]


@pytest.mark.parametrize(
    ("cluster", "schema"),
    [("1.34.2-1", "1.34.0"), ("1.36", "1.34.0"), ("1.31.9", "1.31.0"), ("1.20", "1.25.0")],
)
def test_the_nearest_shipped_schema_serves_a_cluster_version(cluster: str, schema: str) -> None:
    assert schema_version(cluster) == schema


def recorded() -> list[Any]:
    state = json.loads(shared.fixture("pulumi-kubernetes-state.json").read_text())
    return [item for item in state["resources"] if item["type"] != "kubernetes:helm.sh/v3:Release"]


def test_objects_come_out_as_a_real_api_server_recorded_them() -> None:
    """Defaults, managedFields, generation, status: all but what is random and what a load balancer adds."""
    store = ObjectStore("1.34")
    for definition in monitoring_crds():
        store.create(definition, "helm")
    compared = 0
    for item in recorded():
        real = {key: value for key, value in item["outputs"].items() if not key.startswith("__")}
        if real["kind"] == "Secret":
            real["data"] = json.loads(real["data"]["plaintext"])
        written = json.loads(json.dumps(item["inputs"] or real))
        written["data"] = real.get("data")
        if item["inputs"] is None:  # read, not written: what a writer would have sent
            written["metadata"] = {
                key: real["metadata"][key] for key in ("name", "namespace", "labels", "annotations")
            }
            for field in ("clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"):
                del written["spec"][field]
            del written["spec"]["ports"][0]["nodePort"]
        stored = store.create(written, "pulumi-kubernetes")
        assert comparable(stored) == comparable(real), item["id"]
        compared += 1
    assert compared >= 7


def comparable(value: Any) -> Any:
    value = json.loads(json.dumps(value))
    metadata = value["metadata"]
    for field in ("uid", "creationTimestamp", "resourceVersion"):
        assert metadata.pop(field)
    metadata["managedFields"] = [entry for entry in metadata["managedFields"] if "subresource" not in entry]
    for entry in metadata["managedFields"]:
        assert entry.pop("time")
        entry.pop("manager")
    if value["kind"] == "Service":
        value["status"] = {"loadBalancer": {}}
        spec = value["spec"]
        assert spec["clusterIPs"] == [spec["clusterIP"]]
        del spec["clusterIP"], spec["clusterIPs"]
        assert 30000 <= spec["ports"][0].pop("nodePort") <= 32767
    return value

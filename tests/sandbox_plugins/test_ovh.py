"""The stand-in for pulumi-ovh makes the recorded requests and leaves the recorded state."""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from pulumi.runtime.proto import provider_pb2

from sandbox.plugins.framework import PluginError
from sandbox.plugins.ovh.client import ApiError, credentials
from sandbox.plugins.ovh.kube import require_next_minor
from sandbox.plugins.values import UNKNOWN, Object, Secret
from tests.sandbox_plugins.engine import FIXTURES, Engine, partial_state, plugin, recorded_state
from tests.sandbox_plugins.recorded import Call, Recording, recording

HTTP = json.loads((FIXTURES / "pulumi-ovh-http.json").read_text())["calls"]
STATE = json.loads((FIXTURES / "pulumi-ovh-state.json").read_text())["resources"]

KUBE = "ovh:CloudProject/kube:Kube"
POOL = "ovh:CloudProject/kubeNodePool:KubeNodePool"
IPS = "ovh:CloudProject/kubeIpRestrictions:KubeIpRestrictions"
USER = "ovh:CloudProject/user:User"

PROGRAM: dict[str, Object] = {
    USER: {
        "serviceName": "p",
        "description": "grafana address",
        "roleNames": ["network_operator", "load-balancer_operator"],
        "roleName": None,
    },
    KUBE: {"serviceName": "p", "name": "prometheus-vllm", "region": "GRA11", "version": "1.34"},
    IPS: {"serviceName": "p", "kubeId": "k-1", "ips": ["10.42.0.0/16"]},
    POOL: {
        "serviceName": "p",
        "kubeId": "k-1",
        "name": "monitoring",
        "flavorName": "b2-15",
        "desiredNodes": 3,
        "minNodes": 3,
        "maxNodes": 3,
        "autoscale": False,
    },
}
"""The program that was recorded, in an order that its dependencies allow."""


def phase(name: str) -> list[dict[str, Any]]:
    return [entry for entry in HTTP if entry["phase"] == name]


def expected(entries: list[dict[str, Any]]) -> list[Call]:
    return [Call.of(entry) for entry in entries]


def of(calls: list[Call], pattern: str) -> list[Call]:
    return [call for call in calls if re.search(pattern, call.path)]


RESOURCE_PATHS = (
    r"/1\.0/auth/",
    r"/(role|user)\b",
    r"/kube(/k-1)?(/kubeconfig|/updatePolicy)?$",
    r"/nodepool",
    r"/ipR",
)


def assert_same_requests(made: list[Call], recorded: list[Call], but: str = "^$") -> None:
    """The same requests, and for each resource in the same order (resources run side by side)."""
    made, recorded = ([call for call in calls if not re.search(but, call.path)] for calls in (made, recorded))
    assert Counter(made) == Counter(recorded)
    for pattern in RESOURCE_PATHS:
        assert of(made, pattern) == of(recorded, pattern)


@pytest.fixture
def api() -> Iterator[Recording]:
    with recording() as server:
        yield server


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    with plugin("sandbox.plugins.ovh") as running:
        yield running


def configure(engine: Engine, api: Recording) -> None:
    engine.configure(
        {
            "endpoint": f"{api.address}/1.0",
            "applicationKey": "ak",
            "applicationSecret": Secret("as"),
            "consumerKey": "ck",
            "version": "2.22.0",
        }
    )


def deploy(engine: Engine, api: Recording) -> dict[str, tuple[Object, str, Object]]:
    """The program's first `up`: inputs, id and outputs by type."""
    api.load(phase("up"))
    configure(engine, api)
    made = {}
    for type, news in PROGRAM.items():
        inputs, failures = engine.check(type, "c", news)
        assert failures == []
        made[type] = (inputs, *engine.create(type, "c", inputs))
    return made


def changed_program() -> dict[str, Object]:
    return {
        **PROGRAM,
        KUBE: {**PROGRAM[KUBE], "updatePolicy": "NEVER_UPDATE"},
        POOL: {**PROGRAM[POOL], "desiredNodes": 4, "minNodes": 4, "maxNodes": 4},
    }


def test_up_preview_change_refresh_and_destroy_equal_the_recording(engine: Engine, api: Recording) -> None:
    made = deploy(engine, api)
    assert_same_requests(api.calls, expected(phase("up")))

    # A second preview asks the API who it is and nothing else, and finds nothing to do.
    api.load(phase("preview"))
    configure(engine, api)
    for type, (old_inputs, id, outputs) in made.items():
        inputs, _ = engine.check(type, "c", PROGRAM[type], old_inputs)
        assert inputs == old_inputs
        assert engine.diff(type, "c", id, outputs, inputs).changes == provider_pb2.DiffResponse.DIFF_NONE
    assert_same_requests(api.calls, expected(phase("preview")))

    api.load(phase("scale-and-policy"))
    configure(engine, api)
    for type, news in changed_program().items():
        old_inputs, id, outputs = made[type]
        inputs, _ = engine.check(type, "c", news, old_inputs)
        if engine.diff(type, "c", id, outputs, inputs).changes == provider_pb2.DiffResponse.DIFF_SOME:
            outputs = engine.update(type, "c", id, outputs, inputs)
        made[type] = (inputs, id, outputs)
    assert_same_requests(api.calls, expected(phase("scale-and-policy")))

    for resource in STATE:
        inputs, id, outputs = made[resource["type"]]
        assert id == resource["id"]
        assert inputs == recorded_state(resource["inputs"])
        assert outputs == recorded_state(resource["outputs"])

    # A refresh reads everything twice: once to show, once to do.
    once = phase("refresh")[: len(phase("refresh")) // 2]
    api.load(phase("refresh"))
    for _ in range(2):
        configure(engine, api)
        for type, (inputs, id, outputs) in made.items():
            read_id, read_inputs, read_outputs = engine.read(type, "c", id, inputs, outputs)
            assert read_id == id
            assert {**read_inputs, "__defaults": []} == inputs
            emptied: Object = {"availabilityZones": []} if type == POOL else {}  # null until read once
            assert read_outputs == {**outputs, **emptied}
    assert Counter(api.calls) == Counter(expected(phase("refresh")))
    assert Counter(api.calls) == Counter(expected(once) * 2)

    # The recorded engine was interrupted while it configured one more plugin: not compared.
    api.load(phase("destroy"))
    configure(engine, api)
    for type in (IPS, POOL, KUBE, USER):
        _, id, outputs = made[type]
        engine.delete(type, "c", id, outputs)
    assert_same_requests(api.calls, expected(phase("destroy")), but="/auth/")


def test_an_interrupt_waits_for_what_the_cloud_has_begun(api: Recording) -> None:
    """Ctrl-C asks every plugin to stop; a cluster or pool that was given up would be lost to the state."""
    with plugin("sandbox.plugins.ovh") as engine:  # of its own, since it is asked to stop
        engine.cancel()
        assert deploy(engine, api)


def test_requests_are_signed_as_go_ovh_signs_them(engine: Engine, api: Recording) -> None:
    deploy(engine, api)
    for call, (headers, body) in zip(api.calls, api.sent, strict=True):
        assert headers["X-Ovh-Application"] == "ak"
        if call.path != "/1.0/auth/time":
            text = f"as+ck+{call.method}+{api.address}{call.path}+{body}+{headers['X-Ovh-Timestamp']}"
            digest = hashlib.sha1(text.encode()).hexdigest()  # noqa: S324 (the API's own scheme)
            assert headers["X-Ovh-Signature"] == f"$1${digest}"


def test_a_missing_name_becomes_the_logical_name_with_a_suffix_that_lasts(engine: Engine) -> None:
    news: Object = {"serviceName": "p", "region": "GRA11"}
    inputs, _ = engine.check(KUBE, "cluster", news)
    assert re.fullmatch(r"cluster-[0-9a-f]{7}", str(inputs["name"]))
    assert inputs["__defaults"] == ["name"]
    assert engine.check(KUBE, "cluster", news)[0] == inputs
    assert engine.check(KUBE, "cluster", news, inputs, seed=b"another")[0] == inputs
    assert engine.check(KUBE, "cluster", news, seed=b"another")[0]["name"] != inputs["name"]


def test_the_project_comes_from_the_environment_and_is_a_default() -> None:
    with plugin("sandbox.plugins.ovh", {"OVH_CLOUD_PROJECT_SERVICE": "abc"}) as engine:
        inputs, failures = engine.check(KUBE, "c", {"region": "GRA11", "name": "n"})
    assert failures == []
    assert inputs["serviceName"] == "abc"
    assert inputs["__defaults"] == ["serviceName"]


def test_arguments_that_terraform_would_refuse_are_named(engine: Engine) -> None:
    _, failures = engine.check(
        KUBE, "c", {"serviceName": "p", "plan": "gold", "nodesSubnetId": "s", "flavour": "x", "version": {}}
    )
    assert sorted(failures) == [
        "Invalid or unknown key. Examine values at 'c.flavour'.",
        'Missing required argument. "nodes_subnet_id": all of `nodes_subnet_id,private_network_id` must be '
        "specified. Examine values at 'c.nodesSubnetId'.",
        'Missing required argument. The argument "region" is required, but no definition was found.. '
        "Examine values at 'c.region'.",
        "Value gold is not among valid values ([standard free]). Examine values at 'c.plan'.",
        "expected string, got an object. Examine values at 'c.version'.",
    ]


def test_a_block_of_a_node_template_must_be_complete(engine: Engine) -> None:
    template: Object = {"metadata": {"annotations": {}, "finalizers": [], "labels": {"a": "b"}}, "spec": {}}
    inputs, failures = engine.check(POOL, "c", {**PROGRAM[POOL], "template": template})
    assert [failure.split(". ")[1] for failure in failures] == [
        'The argument "template.0.spec.0.taints" is required, but no definition was found.',
        'The argument "template.0.spec.0.unschedulable" is required, but no definition was found.',
    ]
    assert inputs["template"] == {
        "__defaults": [],
        "metadata": {"__defaults": [], "annotations": {}, "finalizers": [], "labels": {"a": "b"}},
        "spec": {"__defaults": []},
    }


def test_a_preview_shows_what_is_unknown_and_calls_nothing(engine: Engine, api: Recording) -> None:
    inputs, failures = engine.check(POOL, "c", {**PROGRAM[POOL], "kubeId": UNKNOWN})
    assert failures == []
    assert inputs["kubeId"] == UNKNOWN
    id, outputs = engine.create(POOL, "c", inputs, preview=True)
    assert id == ""
    assert outputs["kubeId"] == outputs["status"] == outputs["antiAffinity"] == outputs["id"] == UNKNOWN
    assert (outputs["desiredNodes"], outputs["name"], outputs["template"]) == (3, "monitoring", None)
    _, outputs = engine.create(KUBE, "c", engine.check(KUBE, "c", PROGRAM[KUBE])[0], preview=True)
    assert outputs["kubeconfig"] == Secret(UNKNOWN)
    assert outputs["privateNetworkConfiguration"] is None
    assert api.calls == []


def test_a_region_replaces_and_an_own_name_means_delete_first(engine: Engine, api: Recording) -> None:
    _, id, outputs = deploy(engine, api)[KUBE]

    def diff(news: Object) -> provider_pb2.DiffResponse:
        return engine.diff(KUBE, "c", id, outputs, engine.check(KUBE, "c", news)[0])

    moved = diff({**PROGRAM[KUBE], "region": "GRA9"})
    assert list(moved.replaces) == ["region"]
    assert moved.detailedDiff["region"].kind == provider_pb2.PropertyDiff.UPDATE_REPLACE
    assert moved.deleteBeforeReplace
    assert "region" not in moved.stables
    assert "serviceName" in moved.stables

    unnamed = diff({"serviceName": "p", "region": "GRA9", "version": "1.34"})
    assert not unnamed.deleteBeforeReplace

    renamed = diff({**PROGRAM[KUBE], "name": "other", "privateNetworkId": UNKNOWN})
    assert {path: change.kind for path, change in renamed.detailedDiff.items()} == {
        "name": provider_pb2.PropertyDiff.UPDATE,
        "privateNetworkId": provider_pb2.PropertyDiff.UPDATE_REPLACE,
    }
    assert not any(change.inputDiff for change in renamed.detailedDiff.values())


def test_drift_that_a_refresh_found_shows_and_ignored_changes_do_not(engine: Engine, api: Recording) -> None:
    inputs, id, outputs = deploy(engine, api)[POOL]
    path = "/1.0/cloud/project/p/kube/k-1/nodepool/np-1"
    pool = json.loads(api.next("GET", path)[1])
    api.replace("GET", path, 200, {**pool, "desiredNodes": 5})
    _, drifted_inputs, drifted = engine.read(POOL, "c", id, inputs, outputs)
    assert drifted_inputs["desiredNodes"] == drifted["desiredNodes"] == 5
    diff = engine.diff(POOL, "c", id, drifted, inputs)
    assert dict(diff.detailedDiff) == {
        "desiredNodes": provider_pb2.PropertyDiff(kind=provider_pb2.PropertyDiff.UPDATE)
    }
    assert not engine.diff(POOL, "c", id, drifted, inputs, ignore=("desiredNodes",)).detailedDiff


def test_restrictions_are_a_set(engine: Engine, api: Recording) -> None:
    _, id, outputs = deploy(engine, api)[IPS]
    old: Object = {**outputs, "ips": ["10.0.0.0/8", "192.0.2.0/24"]}
    news, _ = engine.check(IPS, "c", {**PROGRAM[IPS], "ips": ["192.0.2.0/24", "10.0.0.0/8"]})
    assert engine.diff(IPS, "c", id, old, news).changes == provider_pb2.DiffResponse.DIFF_NONE
    news, _ = engine.check(IPS, "c", {**PROGRAM[IPS], "ips": ["192.0.2.0/24", "10.0.0.0/8", "0.0.0.0/0"]})
    assert list(engine.diff(IPS, "c", id, old, news).detailedDiff) == ["ips[2]"]


def test_a_resource_that_is_gone_reads_as_gone_and_deletes_without_error(
    engine: Engine, api: Recording
) -> None:
    inputs, id, outputs = deploy(engine, api)[KUBE]
    missing = {"class": "Client::NotFound", "message": "gone"}
    api.replace("GET", "/1.0/cloud/project/p/kube/k-1", 404, missing)
    api.replace("DELETE", "/1.0/cloud/project/p/kube/k-1", 404, missing)
    assert engine.read(KUBE, "c", id, inputs, outputs) == ("", {}, {})
    engine.delete(KUBE, "c", id, outputs)


def test_an_import_reads_inputs_from_the_api(engine: Engine, api: Recording) -> None:
    deploy(engine, api)
    id, inputs, outputs = engine.read(KUBE, "c", "p/k-1", {}, {})
    assert id == "k-1"
    assert inputs == {
        "__defaults": [],
        "customizationApiservers": outputs["customizationApiservers"],
        "kubeProxyMode": "iptables",
        "name": "prometheus-vllm",
        "plan": "free",
        "region": "GRA11",
        "serviceName": "p",
        "updatePolicy": "ALWAYS_UPDATE",
        "version": "1.34",
    }
    assert isinstance(outputs["kubeconfig"], Secret)
    with pytest.raises(grpc.RpcError, match="import Id is not service_name/kubeid formatted"):
        engine.read(KUBE, "c", "k-1", {}, {})


def test_a_refusal_shows_class_and_message_and_no_traceback(engine: Engine, api: Recording) -> None:
    api.load(phase("up"))
    configure(engine, api)
    refusal = {
        "class": "Client::Forbidden",
        "message": "This call has not been granted",
        "details": {"unauthorizedActionsByIAM": "publicCloudProject:apiovh:kube/create"},
    }
    api.replace("POST", "/1.0/cloud/project/p/kube", 403, refusal)
    with pytest.raises(grpc.RpcError) as refused:
        engine.create(KUBE, "c", engine.check(KUBE, "c", PROGRAM[KUBE])[0])
    assert refused.value.details() == (
        "1 error occurred:\n\t* calling Post /cloud/project/p/kube "
        "with params prometheus-vllm (GRA11): 1.34:\n\t "
        'OVHcloud API error (status code 403): Client::Forbidden: "This call has not been granted '
        '(missing IAM permissions: publicCloudProject:apiovh:kube/create)"\n\n'
    )


def test_an_api_that_does_not_answer_is_named_with_a_hint(engine: Engine) -> None:
    with pytest.raises(grpc.RpcError) as failed:
        engine.configure({"endpoint": "http://127.0.0.1:1/1.0", "accessToken": "t"})
    details = str(failed.value.details())
    assert details.startswith(
        'OVH client seems to be misconfigured: Get "http://127.0.0.1:1/1.0/auth/details"'
    )
    assert details.endswith("(is the sandbox running?)")


def test_a_state_that_nobody_waits_for_ends_the_wait(engine: Engine, api: Recording) -> None:
    api.load(phase("up"))
    configure(engine, api)
    api.replace("GET", "/1.0/cloud/project/p/kube/k-1", 200, {"status": "USER_QUOTA_ERROR"})
    with pytest.raises(grpc.RpcError, match="unexpected state 'USER_QUOTA_ERROR', wanted target 'READY'"):
        engine.create(KUBE, "c", engine.check(KUBE, "c", PROGRAM[KUBE])[0])


def test_a_user_that_does_not_come_up_stays_in_state_with_its_password(
    engine: Engine, api: Recording
) -> None:
    api.load(phase("up"))
    configure(engine, api)
    api.replace("GET", "/1.0/cloud/project/p/user/1234", 200, {"status": "error"})
    with pytest.raises(grpc.RpcError) as failed:
        engine.create(USER, "u", engine.check(USER, "u", PROGRAM[USER])[0])
    id, outputs, reasons = partial_state(failed.value)
    assert (id, outputs["password"], outputs["username"]) == ("1234", Secret("s3cret"), None)
    assert "waiting for user" in reasons[0]
    assert "unexpected state 'error'" in reasons[0]


def test_a_role_that_the_project_does_not_offer_is_refused_before_the_user_is_made(
    engine: Engine, api: Recording
) -> None:
    api.load(phase("up"))
    configure(engine, api)
    inputs, _ = engine.check(USER, "u", {**PROGRAM[USER], "roleNames": ["emperor"]})
    with pytest.raises(grpc.RpcError, match='role "emperor" does not exist'):
        engine.create(USER, "u", inputs)
    assert not [call for call in api.calls if call.method == "POST"]


@pytest.mark.parametrize(
    ("news", "calls"),
    [
        ({"name": "other"}, [("PUT", "", {"name": "other"})]),
        ({"version": "1.35"}, [("POST", "/update", {"strategy": "NEXT_MINOR"}), ("GET", "", None)]),
        (
            {"customizationApiservers": [{"admissionplugins": [{"enableds": ["NodeRestriction"]}]}]},
            [
                (
                    "PUT",
                    "/customization",
                    {"apiServer": {"admissionPlugins": {"enabled": ["NodeRestriction"], "disabled": []}}},
                ),
                ("GET", "", None),
            ],
        ),
        (
            {
                "privateNetworkConfiguration": {
                    "defaultVrackGateway": "10.0.0.1",
                    "privateNetworkRoutingAsDefault": True,
                }
            },
            [
                (
                    "PUT",
                    "/privateNetworkConfiguration",
                    {"defaultVrackGateway": "10.0.0.1", "privateNetworkRoutingAsDefault": True},
                ),
                ("GET", "", None),
            ],
        ),
    ],
)
def test_each_change_of_a_cluster_is_one_call(
    engine: Engine, api: Recording, news: Object, calls: list[tuple[str, str, Any]]
) -> None:
    inputs, id, outputs = deploy(engine, api)[KUBE]
    path = "/1.0/cloud/project/p/kube/k-1"
    api.calls.clear()
    for method, suffix, _ in calls:
        if method != "GET":
            api.replace(method, path + suffix, 200, None)
    news, failures = engine.check(KUBE, "c", {**PROGRAM[KUBE], **news}, inputs)
    assert failures == []
    updated = engine.update(KUBE, "c", id, outputs, news)
    assert [(call.method, call.path, json.loads(call.body)) for call in api.calls] == [
        (method, path + suffix, body) for method, suffix, body in calls
    ]
    assert engine.diff(KUBE, "c", id, updated, news).changes == provider_pb2.DiffResponse.DIFF_NONE


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("1.34", "1.33", "cannot downgrade cluster from 1.34 to 1.33"),
        ("1.32", "1.34", "cannot upgrade cluster from 1.32 to 1.34, only next minor version is authorized"),
        ("1.34", "2.0", "the only supported major version is 1"),
        ("1.34", "latest", "version latest does not match a semver"),
    ],
)
def test_a_version_can_only_rise_by_one_minor(old: str, new: str, message: str) -> None:
    with pytest.raises(PluginError, match=re.escape(message)):
        require_next_minor(old, new)


def test_functions_find_a_cluster_and_a_pool_by_name(engine: Engine, api: Recording) -> None:
    deploy(engine, api)
    found = engine.invoke("ovh:CloudProject/getKube:getKube", {"serviceName": "p", "kubeId": "k-1"})
    assert (found["id"], found["status"]) == ("k-1", "READY")
    assert "client-key-data" in str(found["kubeconfig"])
    pools = "/1.0/cloud/project/p/kube/k-1/nodepool"
    api.replace("GET", pools, 200, [json.loads(api.next("GET", f"{pools}/np-1")[1])])
    args: Object = {"serviceName": "p", "kubeId": "k-1", "name": "monitoring"}
    assert engine.invoke("ovh:CloudProject/getKubeNodePool:getKubeNodePool", args)["desiredNodes"] == 3
    with pytest.raises(grpc.RpcError, match="the nodepool named other cannot be found"):
        engine.invoke("ovh:CloudProject/getKubeNodePool:getKubeNodePool", {**args, "name": "other"})


def test_what_is_not_there_says_so(engine: Engine) -> None:
    with pytest.raises(grpc.RpcError, match="kubeOidc:KubeOidc is not implemented in the sandbox's stand-in"):
        engine.check("ovh:CloudProject/kubeOidc:KubeOidc", "o", {})
    with pytest.raises(grpc.RpcError, match="getFlavors is not implemented in the sandbox's stand-in"):
        engine.invoke("ovh:CloudProject/getFlavors:getFlavors", {})


@pytest.mark.parametrize(
    ("config", "environment", "message"),
    [
        ({"accessToken": "t", "applicationKey": "k"}, {}, "can't use multiple authentication methods"),
        ({"accessToken": "t"}, {"OVH_CLIENT_ID": "c"}, "client_id/client_secret, access_token"),
        ({}, {}, "missing authentication information"),
        ({"applicationKey": "k"}, {}, "both application_key and application_secret must be given"),
        ({"accessToken": "t", "endpoint": "http://127.0.0.1:1/1.0/"}, {}, "cannot have a trailing slash"),
        ({"accessToken": "t", "endpoint": "ovh-eu"}, {}, "local sandbox"),
        ({"accessToken": "t", "endpoint": "https://eu.api.ovh.com/1.0"}, {}, "local sandbox"),
        ({"clientId": "c", "clientSecret": "s"}, {}, "oauth2 authentication is not compatible"),
    ],
)
def test_credentials_that_go_ovh_would_refuse(
    config: dict[str, Any], environment: dict[str, str], message: str
) -> None:
    environment = {"OVH_ENDPOINT": "http://127.0.0.1:1/1.0", **environment}
    with pytest.raises(PluginError, match=message):
        credentials(config, environment)


def test_configuration_beats_the_environment() -> None:
    environment = {"OVH_ENDPOINT": "http://127.0.0.1:1/1.0", "OVH_ACCESS_TOKEN": "from environment"}
    assert credentials({}, environment).access_token == "from environment"
    assert credentials({"accessToken": "configured"}, environment).access_token == "configured"


def test_an_answer_that_is_not_json_is_the_message() -> None:
    assert str(ApiError(502, "Bad Gateway", "EU.1")) == (
        'OVHcloud API error (status code 502): "Bad Gateway" (X-OVH-Query-Id: EU.1)'
    )

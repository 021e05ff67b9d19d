"""The stand-in for pulumi-openstack makes the recorded requests and leaves the recorded state."""

from __future__ import annotations

import json
from collections.abc import Iterator

import grpc
import pytest
from pulumi.runtime.proto import provider_pb2

from sandbox.plugins.framework import PluginError
from sandbox.plugins.openstack import NetworkClient
from sandbox.plugins.values import Object, Secret, from_struct, to_struct
from tests.sandbox_plugins.engine import FIXTURES, Engine, plugin, recorded_state
from tests.sandbox_plugins.recorded import Call, Recording, recording

RECORDED = json.loads((FIXTURES / "pulumi-openstack.json").read_text())
CALLS = RECORDED["calls"]
PROVIDER, ADDRESS = RECORDED["resources"]
TYPE = "openstack:networking/floatingIp:FloatingIp"
NEWS: Object = {"description": "grafana", "pool": "Ext-Net"}

# The recording names no phases: a login starts each process but that of the clean preview, which asks none.
UP, REFRESH, SECOND_REFRESH, DESTROY = CALLS[:6], CALLS[6:9], CALLS[9:12], CALLS[12:]


@pytest.fixture
def api() -> Iterator[Recording]:
    with recording() as server:
        yield server


def configure(engine: Engine, api: Recording) -> None:
    config = {key: value for key, value in recorded_state(PROVIDER["inputs"]).items() if key != "__internal"}
    engine.configure({**config, "authUrl": f"{api.address}/v3"})


def test_up_preview_refresh_and_destroy_equal_the_recording(api: Recording) -> None:
    def same(entries: list[dict[str, object]]) -> None:
        assert api.calls == [Call.of(entry) for entry in entries]

    with plugin("sandbox.plugins.openstack") as engine:
        api.load(UP)
        configure(engine, api)
        assert api.calls == []
        inputs, failures = engine.check(TYPE, "ip", NEWS)
        assert failures == []
        id, outputs = engine.create(TYPE, "ip", inputs)
        same(UP)

    with plugin("sandbox.plugins.openstack") as engine:
        api.load([])
        configure(engine, api)
        inputs, _ = engine.check(TYPE, "ip", NEWS, inputs)
        assert engine.diff(TYPE, "ip", id, outputs, inputs).changes == provider_pb2.DiffResponse.DIFF_NONE
        same([])

    for entries in (REFRESH, SECOND_REFRESH):
        with plugin("sandbox.plugins.openstack") as engine:
            api.load(entries)
            configure(engine, api)
            id, inputs, outputs = engine.read(TYPE, "ip", id, inputs, outputs)
            same(entries)

    assert id == ADDRESS["id"]
    assert inputs == recorded_state(ADDRESS["inputs"])
    assert outputs == recorded_state(ADDRESS["outputs"])

    with plugin("sandbox.plugins.openstack") as engine:
        api.load(DESTROY)
        configure(engine, api)
        engine.delete(TYPE, "ip", id, outputs)
        same(DESTROY)


@pytest.fixture(scope="module")
def process() -> Iterator[Engine]:
    with plugin("sandbox.plugins.openstack") as running:
        yield running


@pytest.fixture
def engine(process: Engine, api: Recording) -> Engine:
    api.load(CALLS[:9])
    configure(process, api)
    return process


def test_the_provider_keeps_its_configuration_as_given(engine: Engine) -> None:
    config = recorded_state(PROVIDER["inputs"])
    response = engine.stub.CheckConfig(
        provider_pb2.CheckRequest(
            urn="urn:pulumi:dev::rec::pulumi:providers:openstack::network", news=to_struct(config)
        )
    )
    assert from_struct(response.inputs) == config
    assert config["password"] == Secret("s3cret")


def test_an_attached_address_is_no_change_once_it_is_ignored(engine: Engine, api: Recording) -> None:
    """A load balancer binds the address: port and fixed IP are the cluster's business, not the program's."""
    inputs, _ = engine.check(TYPE, "ip", NEWS)
    id, outputs = engine.create(TYPE, "ip", inputs)
    bound: Object = {**outputs, "portId": "port-1", "fixedIp": "10.0.0.9"}
    # Neither is set by the program, and both are computed: nothing to change, ignored or not.
    assert not engine.diff(TYPE, "ip", id, bound, inputs).detailedDiff
    news, _ = engine.check(TYPE, "ip", {**NEWS, "portId": "port-2"})
    assert list(engine.diff(TYPE, "ip", id, bound, news).detailedDiff) == ["portId"]
    assert not engine.diff(TYPE, "ip", id, bound, news, ignore=("portId", "fixedIp")).detailedDiff


def test_an_expired_token_is_renewed_once(engine: Engine, api: Recording) -> None:
    path = "/network/v2.0/networks?name=Ext-Net"
    status, found = api.next("GET", path)
    api.replace("GET", path, 401, {"error": {"message": "expired"}})
    api.answer("GET", path, status, json.loads(found))
    engine.create(TYPE, "ip", engine.check(TYPE, "ip", NEWS)[0])
    logins = [call for call in api.calls if call.path == "/v3/auth/tokens"]
    assert len(logins) == 2


def test_a_refusal_shows_status_and_reason(engine: Engine, api: Recording) -> None:
    quota = {"NeutronError": {"type": "OverQuota", "message": "Quota exceeded for floatingip", "detail": ""}}
    api.replace("POST", "/network/v2.0/floatingips", 409, quota)
    with pytest.raises(grpc.RpcError) as refused:
        engine.create(TYPE, "ip", engine.check(TYPE, "ip", NEWS)[0])
    details = str(refused.value.details())
    assert "but got 409 instead" in details
    assert "Quota exceeded for floatingip" in details
    assert "Traceback" not in details


def test_an_unknown_pool_is_named(engine: Engine, api: Recording) -> None:
    api.answer("GET", "/network/v2.0/networks?name=Inner-Net", 200, {"networks": []})
    with pytest.raises(grpc.RpcError, match="No network found with name: Inner-Net"):
        engine.create(TYPE, "ip", engine.check(TYPE, "ip", {"pool": "Inner-Net"})[0])


def test_a_description_changes_in_place_and_a_pool_replaces(engine: Engine, api: Recording) -> None:
    inputs, _ = engine.check(TYPE, "ip", NEWS)
    id, outputs = engine.create(TYPE, "ip", inputs)
    news, _ = engine.check(TYPE, "ip", {"pool": "Other"})
    diff = engine.diff(TYPE, "ip", id, outputs, news)
    assert list(diff.replaces) == ["pool"]
    assert diff.detailedDiff["description"].kind == provider_pb2.PropertyDiff.DELETE

    path = f"/network/v2.0/floatingips/{id}"
    found = json.loads(api.next("GET", path)[1])["floatingip"]
    api.replace("PUT", path, 200, {"floatingip": found})
    api.replace("GET", path, 200, {"floatingip": {**found, "description": "other"}})
    api.calls.clear()
    news, _ = engine.check(TYPE, "ip", {**NEWS, "description": "other"}, inputs)
    assert engine.update(TYPE, "ip", id, outputs, news)["description"] == "other"
    assert api.calls[0].body == '{"floatingip": {"description": "other"}}'


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"authUrl": "http://127.0.0.1:1/v3"}, "missing userName, password, tenantId"),
        (
            {"authUrl": "https://auth.cloud.ovh.net/v3", "userName": "u", "password": "x", "tenantId": "p"},
            "local sandbox",
        ),
    ],
)
def test_a_configuration_that_cannot_work_is_refused(config: dict[str, str], message: str) -> None:
    with pytest.raises(PluginError, match=message):
        NetworkClient(config)

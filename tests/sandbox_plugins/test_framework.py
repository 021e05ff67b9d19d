"""The plugin framework keeps what the engine sends, reports errors as text, and ends with its engine."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator

import grpc
import pytest
from google.protobuf import empty_pb2
from pulumi.runtime.proto import plugin_pb2, provider_pb2

from sandbox.plugins.values import UNKNOWN, Object, Secret, from_struct, has_secret, has_unknown, reveal
from tests.sandbox_plugins.engine import CHECKOUT, Engine, partial_state, plugin

MODULE = "tests.sandbox_plugins.example_plugin"
TYPE = "example:index:Thing"


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    with plugin(MODULE) as running:
        yield running


def test_values_survive_the_way_there_and_back(engine: Engine) -> None:
    sent: Object = {
        "null": None,
        "bool": True,
        "integer": 8000,
        "float": 0.5,
        "text": "ä",
        "secret": Secret({"nested": Secret("x"), "unknown": UNKNOWN}),
        "unknown": UNKNOWN,
        "list": [1, [], {}, UNKNOWN],
        "asset": {"4dabf18193072939515e22adb298388d": "c44067f5952c0a294b673a41bacd8c17", "text": "hi"},
    }
    inputs, _ = engine.check(TYPE, "n", sent)
    assert inputs == {**sent, "type": TYPE, "name": "n"}
    assert isinstance(inputs["integer"], int)
    assert engine.create(TYPE, "n", inputs, preview=True) == ("id-1", inputs)


def test_whole_numbers_are_integers(engine: Engine) -> None:
    outputs = engine.update(TYPE, "n", "id-1", {}, {}, preview=True)
    assert repr(outputs["integer"]) == "4"
    assert outputs == {"float": 0.5, "integer": 4, "preview": True}


def test_every_kind_of_unknown_is_recognised() -> None:
    kinds = ("1c4a061d-8072-4f0a-a4cb-0ff528b18fe7", "6a19a0b0-7e62-4c92-b797-7f8e31da9cc2")
    struct = provider_pb2.CheckRequest().news
    for kind in kinds:
        struct[kind] = kind
    assert list(from_struct(struct).values()) == [UNKNOWN, UNKNOWN]


def test_secrets_and_unknowns_are_found_at_any_depth() -> None:
    value: Object = {"a": [{"b": Secret([UNKNOWN])}]}
    assert has_secret(value)
    assert has_unknown(value)
    assert reveal(value) == {"a": [{"b": [UNKNOWN]}]}
    assert "hidden" not in repr(Secret("hidden"))


def test_a_diff_names_replaced_properties_and_their_paths(engine: Engine) -> None:
    diff = engine.diff(TYPE, "n", "id-1", {}, {})
    kinds = provider_pb2.PropertyDiff
    assert dict(diff.detailedDiff) == {
        'spec.ports[0]["a.b"]': kinds(kind=kinds.ADD, inputDiff=True),
        "name": kinds(kind=kinds.UPDATE_REPLACE),
        '["odd.key"].x': kinds(kind=kinds.DELETE_REPLACE, inputDiff=True),
    }
    assert list(diff.replaces) == ["name", "odd.key"]
    assert list(diff.diffs) == ["name", "odd.key", "spec"]
    assert diff.deleteBeforeReplace


def test_the_engine_learns_version_and_features(engine: Engine) -> None:
    assert engine.stub.GetPluginInfo(empty_pb2.Empty()).version == "1.2.3"
    engine.stub.Attach(plugin_pb2.PluginAttach(address="127.0.0.1:1"))
    handshake = engine.stub.Handshake(provider_pb2.ProviderHandshakeRequest(engine_address="127.0.0.1:1"))
    assert handshake.accept_secrets
    configured = engine.stub.Configure(provider_pb2.ConfigureRequest())
    assert configured.acceptSecrets
    assert configured.supportsPreview


def test_a_provider_without_a_diff_of_its_own_leaves_it_to_the_engine(engine: Engine) -> None:
    urn = "urn:pulumi:dev::rec::pulumi:providers:example::p"
    response = engine.stub.DiffConfig(provider_pb2.DiffRequest(urn=urn))
    assert response.changes == provider_pb2.DiffResponse.DIFF_UNKNOWN


def test_an_error_arrives_as_its_text(engine: Engine) -> None:
    with pytest.raises(grpc.RpcError) as refused:
        engine.create(TYPE, "refused", {})
    assert (refused.value.code(), refused.value.details()) == (grpc.StatusCode.UNKNOWN, "no quota for it")


def test_a_bug_is_called_one_and_shows_no_traceback(engine: Engine) -> None:
    with pytest.raises(grpc.RpcError) as failed:
        engine.create(TYPE, "buggy", {})
    assert failed.value.details() == "bug in the sandbox's stand-in for example: KeyError: 'absent'"


def test_a_resource_that_does_not_come_up_is_kept(engine: Engine) -> None:
    with pytest.raises(grpc.RpcError) as failed:
        engine.create(TYPE, "half-made", {})
    assert partial_state(failed.value) == ("id-1", {"made": True}, ["it does not start"])


def test_a_resource_that_is_gone_has_no_id(engine: Engine) -> None:
    assert engine.read(TYPE, "n", "id-1", {}, {}) == ("", {}, {})


def test_cancel_ends_waits() -> None:
    with plugin(MODULE) as engine:
        operation = engine.stub.Create.future(provider_pb2.CreateRequest(urn=engine.urn(TYPE, "slow")))
        engine.cancel()
        with pytest.raises(grpc.RpcError, match="the operation was cancelled"):
            operation.result(30)


def ended(pid: int) -> bool:
    """Whether the process ends within 30 s."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([descriptor], [], [], 30)[0])
    finally:
        os.close(descriptor)


def test_a_plugin_ends_when_its_engine_closes_the_pipe() -> None:
    with plugin(MODULE) as engine:
        assert engine.process.stdin is not None
        engine.process.stdin.close()
        assert engine.process.wait(30) == 0


@pytest.mark.parametrize("stdin", ["subprocess.PIPE", "subprocess.DEVNULL"])
def test_a_plugin_ends_when_its_engine_is_killed(stdin: str) -> None:
    """Also in the middle of an operation, and when the engine gave it no pipe to watch."""
    program = f"""
import subprocess, sys, time
plugin = subprocess.Popen([sys.executable, "-m", "{MODULE}"], stdin={stdin}, stdout=subprocess.PIPE)
print(plugin.pid, plugin.stdout.readline().decode(), flush=True)
time.sleep(600)
"""
    parent = subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, cwd=CHECKOUT
    )
    assert parent.stdout is not None
    pid, port = map(int, parent.stdout.readline().split())
    running = Engine(parent, port)
    request = provider_pb2.CreateRequest(urn=running.urn(TYPE, "slow"))
    operation = running.stub.Create.future(request)
    running.stub.GetPluginInfo(empty_pb2.Empty())
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    parent.stdout.close()
    assert ended(pid)
    with pytest.raises(grpc.RpcError, match="UNAVAILABLE"):
        operation.result(30)

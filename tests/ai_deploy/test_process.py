"""The provider as the engine runs it: a process of its own, asked over gRPC, that talks back to it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent import futures
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf import empty_pb2, json_format, struct_pb2
from pulumi.dynamic.dynamic import PROVIDER_KEY, serialize_provider
from pulumi.runtime.proto import engine_pb2, engine_pb2_grpc, provider_pb2, provider_pb2_grpc

from components.ai_deploy.engine import address_of_engine
from components.ai_deploy.providers import AppProvider, ReadinessProvider
from tests.ai_deploy.clouds import MODEL, Sky, inputs
from tests.sandbox_cloud.fakes import CREDENTIALS, PROJECT

ROOT = Path(__file__).resolve().parents[2]


class FakeEngine(engine_pb2_grpc.EngineServicer):
    """Takes messages."""

    def __init__(self) -> None:
        self.messages: list[tuple[int, str]] = []

    def Log(self, request: engine_pb2.LogRequest, context: grpc.ServicerContext) -> empty_pb2.Empty:  # noqa: N802
        self.messages.append((request.severity, request.message))
        return empty_pb2.Empty()


@dataclass
class Process:
    """A running provider."""

    engine: FakeEngine
    end_engine: Any
    stub: Any
    config: dict[str, str] = field(default_factory=dict)

    def create(self, provider: Any, props: dict[str, Any]) -> provider_pb2.CreateResponse:
        with_code = {**props, PROVIDER_KEY: serialize_provider(provider)}
        answer: provider_pb2.CreateResponse = self.stub.Create(
            provider_pb2.CreateRequest(urn="urn:x", properties=_struct(with_code)), timeout=60
        )
        return answer


def _struct(value: dict[str, Any]) -> struct_pb2.Struct:
    return json_format.ParseDict(value, struct_pb2.Struct())


@contextmanager
def running(sky: Sky) -> Iterator[Process]:
    engine = FakeEngine()
    server = grpc.server(futures.ThreadPoolExecutor(2))
    engine_pb2_grpc.add_EngineServicer_to_server(engine, server)
    address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    process = subprocess.Popen(
        [sys.executable, "-u", "-m", "pulumi.dynamic", "--logtostderr", "-v=3", address],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        env={**os.environ, "PULUMI_PROJECT": "ovh-vllm"},
        text=True,
    )
    try:
        assert process.stdout is not None
        port = int(process.stdout.readline())
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            stub = provider_pb2_grpc.ResourceProviderStub(channel)
            config = {
                "ovh:endpoint": sky.url,
                "ovh:applicationKey": CREDENTIALS.application_key,
                "ovh:applicationSecret": CREDENTIALS.application_secret,
                "ovh:consumerKey": CREDENTIALS.consumer_key,
            }
            stub.Configure(provider_pb2.ConfigureRequest(args=_struct(config)))
            yield Process(engine, lambda: server.stop(None).wait(), stub, config)
    finally:
        process.kill()
        process.wait()
        server.stop(None)


def test_progress_reaches_the_user_and_every_change_is_announced(sky: Sky) -> None:
    with running(sky) as process:
        app = process.create(AppProvider(), inputs())
        token = sky.api.create_token({"name": "t", "region": "GRA", "role": "ai_training_read"})
        gate = {
            "service_name": PROJECT,
            "app_id": app.id,
            "app_resource": "vllm",
            "identity": "0123456789abcdef",
            "starts": 0,
            "resource": "vllm",
            "token": token["status"]["value"],
            "model": "no such model",
            "timeout_seconds": 1,
        }
        with pytest.raises(grpc.RpcError) as caught:
            process.create(ReadinessProvider(), gate)
        process.create(ReadinessProvider(), {**gate, "model": MODEL, "timeout_seconds": 60})
    path = f"/cloud/project/{PROJECT}/ai/app"
    debug = [text for severity, text in process.engine.messages if severity == engine_pb2.DEBUG]
    info = [text for severity, text in process.engine.messages if severity == engine_pb2.INFO]
    # One label of each gate's first act, one of the second gate's success.
    assert debug == [f"POST {path}", f"PUT {path}/{app.id}/label", f"PUT {path}/{app.id}/label"]
    assert any("waiting for model no such model to be listed" in text for text in info)
    assert "is not ready: gave up after 1 s" in str(caught.value)
    for text in (*info, *debug, str(caught.value)):
        assert gate["token"] not in text
        assert "hf_canary" not in text


def test_nothing_is_changed_for_an_engine_that_has_ended(sky: Sky) -> None:
    """A killed engine leaves its providers behind; an app that one of them makes then is known to nobody."""
    with running(sky) as process:
        process.end_engine()
        with pytest.raises(grpc.RpcError, match=r"the Pulumi engine has ended, POST .* was not done"):
            process.create(AppProvider(), inputs())
    assert sky.apps == []
    assert "POST /app" not in sky.calls()


@pytest.mark.parametrize(
    ("arguments", "address"),
    [
        (["/x/pulumi/dynamic/__main__.py", "127.0.0.1:4711"], "127.0.0.1:4711"),
        (
            ["/x/pulumi/dynamic/__main__.py", "-v=9", "--tracing", "http://h:1/x", "127.0.0.1:4711"],
            "127.0.0.1:4711",
        ),
        (["/x/pulumi/dynamic/__main__.py"], None),
        (["/x/pytest", "127.0.0.1:4711"], None),
        ([], None),
    ],
)
def test_the_address_of_the_engine_is_found_in_its_own_plugin_only(
    arguments: list[str], address: str | None
) -> None:
    assert address_of_engine(arguments) == address

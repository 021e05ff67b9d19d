"""The engine's side of the plugin protocol, for tests: starts a plugin as the engine does and talks to it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
from google.protobuf import empty_pb2
from pulumi.runtime.proto import provider_pb2, provider_pb2_grpc, status_pb2

from sandbox.plugins.values import Object, Secret, from_struct, reveal_object, to_struct

CHECKOUT = Path(__file__).resolve().parents[2]
FIXTURES = CHECKOUT / "tests" / "fixtures"
_SECRET = "4dabf18193072939515e22adb298388d"


class Engine:
    """A running plugin process that does not accept secrets: state is sent without their wrappers."""

    def __init__(self, process: subprocess.Popen[str], port: int) -> None:
        self.process = process
        channel = grpc.insecure_channel(f"127.0.0.1:{port}")
        self.stub = provider_pb2_grpc.ResourceProviderStub(channel)

    def urn(self, type: str, name: str) -> str:
        return f"urn:pulumi:dev::rec::my:component:Parent${type}::{name}"

    def configure(self, args: Object) -> None:
        self.stub.Configure(provider_pb2.ConfigureRequest(args=to_struct(args), acceptSecrets=True))

    def check(
        self, type: str, name: str, news: Object, olds: Object | None = None, seed: bytes = b"seed"
    ) -> tuple[Object, list[str]]:
        """Completed inputs and reasons of failures."""
        response = self.stub.Check(
            provider_pb2.CheckRequest(
                urn=self.urn(type, name), news=to_struct(news), olds=to_struct(olds or {}), randomSeed=seed
            )
        )
        return from_struct(response.inputs), [failure.reason for failure in response.failures]

    def diff(
        self, type: str, name: str, id: str, old: Object, news: Object, ignore: tuple[str, ...] = ()
    ) -> provider_pb2.DiffResponse:
        """Compares outputs `old` with inputs `news`."""
        response: provider_pb2.DiffResponse = self.stub.Diff(
            provider_pb2.DiffRequest(
                urn=self.urn(type, name),
                id=id,
                olds=to_struct(reveal_object(old)),
                news=to_struct(news),
                ignoreChanges=list(ignore),
            )
        )
        return response

    def create(self, type: str, name: str, inputs: Object, preview: bool = False) -> tuple[str, Object]:
        """Id and outputs."""
        response = self.stub.Create(
            provider_pb2.CreateRequest(
                urn=self.urn(type, name), properties=to_struct(inputs), preview=preview
            )
        )
        return response.id, from_struct(response.properties)

    def read(
        self, type: str, name: str, id: str, inputs: Object, outputs: Object
    ) -> tuple[str, Object, Object]:
        """Id (empty if gone), inputs and outputs."""
        response = self.stub.Read(
            provider_pb2.ReadRequest(
                urn=self.urn(type, name),
                id=id,
                inputs=to_struct(inputs),
                properties=to_struct(reveal_object(outputs)),
            )
        )
        return response.id, from_struct(response.inputs), from_struct(response.properties)

    def update(
        self, type: str, name: str, id: str, old: Object, news: Object, preview: bool = False
    ) -> Object:
        """Outputs."""
        response = self.stub.Update(
            provider_pb2.UpdateRequest(
                urn=self.urn(type, name),
                id=id,
                olds=to_struct(reveal_object(old)),
                news=to_struct(news),
                preview=preview,
            )
        )
        return from_struct(response.properties)

    def delete(self, type: str, name: str, id: str, outputs: Object) -> None:
        self.stub.Delete(
            provider_pb2.DeleteRequest(
                urn=self.urn(type, name), id=id, properties=to_struct(reveal_object(outputs))
            )
        )

    def invoke(self, token: str, args: Object) -> Object:
        response = self.stub.Invoke(provider_pb2.InvokeRequest(tok=token, args=to_struct(args)))
        return from_struct(getattr(response, "return"))

    def cancel(self) -> None:
        self.stub.Cancel(empty_pb2.Empty())


@contextmanager
def plugin(module: str, environment: Mapping[str, str] | None = None) -> Iterator[Engine]:
    """Starts `python -m <module> <engine address>` without the caller's OVH_* variables."""
    inherited = {key: value for key, value in os.environ.items() if not key.startswith("OVH_")}
    process = subprocess.Popen(
        [sys.executable, "-m", module, "127.0.0.1:1"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        cwd=CHECKOUT,
        env={**inherited, "OVH_VLLM_SANDBOX_POLL_SECONDS": "0.01", **(environment or {})},
    )
    assert process.stdout is not None
    try:
        yield Engine(process, int(process.stdout.readline()))
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def partial_state(error: grpc.RpcError) -> tuple[str, Object, list[str]]:
    """Id, outputs and reasons that an error hands to the engine."""
    metadata: dict[str, bytes] = dict(error.trailing_metadata())  # type: ignore[arg-type]
    status = status_pb2.Status.FromString(metadata["grpc-status-details-bin"])
    failed = provider_pb2.ErrorResourceInitFailed()
    assert status.details[0].Unpack(failed)
    return failed.id, from_struct(failed.properties), list(failed.reasons)


def recorded_state(value: Any) -> Any:
    """Properties as a stack export shows them, with secrets in `Secret`."""
    if isinstance(value, dict) and _SECRET in value:
        return Secret(recorded_state(json.loads(value["plaintext"])))
    if isinstance(value, dict):
        return {key: recorded_state(item) for key, item in value.items()}
    if isinstance(value, list):
        return [recorded_state(item) for item in value]
    return value

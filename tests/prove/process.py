"""One provider process and the engine's end of the wire: gRPC both ways, everything that was said is kept."""

from __future__ import annotations

import functools
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from concurrent import futures
from pathlib import Path
from typing import Any

import grpc
from google.protobuf import empty_pb2, json_format, struct_pb2
from pulumi.dynamic import ResourceProvider
from pulumi.dynamic.dynamic import PROVIDER_KEY, serialize_provider
from pulumi.runtime.proto import engine_pb2, engine_pb2_grpc, provider_pb2, provider_pb2_grpc

from tests.ai_deploy.clouds import floats
from tests.prove import provider

ROOT = Path(__file__).resolve().parents[2]
PATIENCE = 60.0
"""Wall-clock seconds after which an operation is taken for hung: 100 minutes on the provider's clock."""

Props = dict[str, Any]


class OperationError(Exception):
    """An operation that failed; the text is what the engine would show."""


class ProviderGoneError(Exception):
    """The process, or the engine that asked, has ended in the middle of an operation."""


class HungError(Exception):
    """An operation did not end."""


class _Engine(engine_pb2_grpc.EngineServicer):
    """Takes messages."""

    def __init__(self) -> None:
        self.messages: list[str] = []

    def Log(self, request: engine_pb2.LogRequest, context: grpc.ServicerContext) -> empty_pb2.Empty:  # noqa: N802
        self.messages.append(request.message)
        return empty_pb2.Empty()


class Process:
    """A running provider, started at once and waited for when it is asked first; `end` ends it."""

    def __init__(self, config: Mapping[str, str], sabotage: str | None = None) -> None:
        self._engine = _Engine()
        self.engine_ended = False
        self._server = grpc.server(futures.ThreadPoolExecutor(2))
        engine_pb2_grpc.add_EngineServicer_to_server(self._engine, self._server)
        address = f"127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"
        self._server.start()
        environment = {**os.environ, "PULUMI_PROJECT": "ovh-vllm"}
        if sabotage is not None:
            environment[provider.SABOTAGE] = sabotage
        self._stderr = tempfile.TemporaryFile("w+")  # noqa: SIM115 - closed by `end`
        self._process = subprocess.Popen(
            [sys.executable, "-u", "-m", provider.__name__, "--logtostderr", "-v=3", address],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            env=environment,
            text=True,
        )
        self._config = config

    @functools.cached_property
    def _channel(self) -> grpc.Channel:
        assert self._process.stdout is not None
        return grpc.insecure_channel(f"127.0.0.1:{int(self._process.stdout.readline())}")

    @functools.cached_property
    def _stub(self) -> Any:
        stub: Any = provider_pb2_grpc.ResourceProviderStub(self._channel)
        stub.Configure(provider_pb2.ConfigureRequest(args=_struct(self._config)), timeout=PATIENCE)
        return stub

    @property
    def messages(self) -> list[str]:
        """What the engine was told, at every level."""
        return self._engine.messages

    @property
    def log(self) -> str:
        """What the process wrote to standard error."""
        self._stderr.seek(0)
        return self._stderr.read()

    @property
    def alive(self) -> bool:
        """Whether the process still runs."""
        return self._process.poll() is None

    def kill(self) -> None:
        """`kill -9`."""
        self._process.kill()
        self._process.wait()

    def end_engine(self) -> None:
        """The engine is gone, the provider lives on; what it answers from now on reaches nobody."""
        self.engine_ended = True
        self._server.stop(None).wait()

    def end(self) -> None:
        """Ends everything."""
        self.kill()
        if "_channel" in self.__dict__:
            self._channel.close()
        self._server.stop(None).wait()
        if self._process.stdout is not None:
            self._process.stdout.close()
        self._stderr.close()

    def check(self, kind: type[ResourceProvider], olds: Props | None, news: Props) -> Props:
        """The checked inputs; raises OperationError."""
        request = provider_pb2.CheckRequest(
            urn="urn:x", olds=_with_code(kind, olds) if olds else None, news=_with_code(kind, news)
        )
        answer = self._ask("Check", request)
        if answer.failures:
            reasons = "; ".join(f"{failure.property}: {failure.reason}" for failure in answer.failures)
            raise OperationError(f"inputs are refused: {reasons}")
        return _props(answer.inputs)

    def diff(
        self, kind: type[ResourceProvider], id_: str, outputs: Props, news: Props
    ) -> tuple[bool, list[str]]:
        """Whether anything changes, and what of it replaces the resource."""
        request = provider_pb2.DiffRequest(
            id=id_, urn="urn:x", olds=_with_code(kind, outputs), news=_with_code(kind, news)
        )
        answer = self._ask("Diff", request)
        return answer.changes == provider_pb2.DiffResponse.DIFF_SOME, list(answer.replaces)

    def create(self, kind: type[ResourceProvider], inputs: Props) -> tuple[str, Props]:
        """Id and outputs."""
        request = provider_pb2.CreateRequest(urn="urn:x", properties=_with_code(kind, inputs))
        answer = self._ask("Create", request)
        return str(answer.id), _props(answer.properties)

    def update(self, kind: type[ResourceProvider], id_: str, outputs: Props, news: Props) -> Props:
        """The new outputs."""
        request = provider_pb2.UpdateRequest(
            id=id_, urn="urn:x", olds=_with_code(kind, outputs), news=_with_code(kind, news)
        )
        return _props(self._ask("Update", request).properties)

    def read(
        self, kind: type[ResourceProvider], id_: str, inputs: Props, outputs: Props
    ) -> tuple[Props, Props] | None:
        """Inputs and outputs as they are now; None when the resource is gone."""
        request = provider_pb2.ReadRequest(
            id=id_, urn="urn:x", inputs=_with_code(kind, inputs), properties=_with_code(kind, outputs)
        )
        answer = self._ask("Read", request)
        if not answer.id:
            return None
        # An answer without inputs leaves those of before.
        return (_props(answer.inputs) if answer.HasField("inputs") else inputs), _props(answer.properties)

    def delete(self, kind: type[ResourceProvider], id_: str, outputs: Props) -> None:
        """Deletes the resource."""
        request = provider_pb2.DeleteRequest(id=id_, urn="urn:x", properties=_with_code(kind, outputs))
        self._ask("Delete", request)

    def _ask(self, method: str, request: Any) -> Any:
        try:
            answer = getattr(self._stub, method)(request, timeout=PATIENCE)
        except grpc.RpcError as error:
            code, details = error.code(), str(error.details())
            if code == grpc.StatusCode.DEADLINE_EXCEEDED:
                raise HungError(details) from None
            if code != grpc.StatusCode.UNKNOWN:
                raise ProviderGoneError(details) from None
            if self.engine_ended:
                raise ProviderGoneError(details) from None
            raise OperationError(details) from None
        if self.engine_ended:
            raise ProviderGoneError("the answer came after the engine had ended")
        return answer


def _with_code(kind: type[ResourceProvider], props: Props) -> struct_pb2.Struct:
    return _struct({**floats(props), PROVIDER_KEY: serialize_provider(kind())})


def _struct(value: Mapping[str, Any]) -> struct_pb2.Struct:
    return json_format.ParseDict(dict(value), struct_pb2.Struct())


def _props(value: struct_pb2.Struct) -> Props:
    props: Props = floats(json_format.MessageToDict(value))
    props.pop(PROVIDER_KEY, None)
    return props

"""Drives the plugin `kubernetes` as the engine does: a process of its own, spoken to over gRPC."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import grpc
from pulumi.runtime.proto import provider_pb2, provider_pb2_grpc

from sandbox.plugins.values import Object, from_struct, to_struct
from tests.sandbox_plugins.engine import partial_state

POLL_SECONDS = 0.02


class Failure(Exception):  # noqa: N818 (an answer, not a bug)
    """The plugin refused; `state` is what it kept of a resource that came up half."""

    def __init__(self, error: grpc.aio.AioRpcError, state: State | None) -> None:
        super().__init__(error.details())
        self.state = state


class CheckFailed(Exception):  # noqa: N818
    """Inputs were refused, for the reasons in the message."""


@dataclass(frozen=True)
class State:
    """A resource in Pulumi's state."""

    token: str
    name: str
    id: str
    inputs: Object
    outputs: Object


@dataclass
class Engine:
    """The engine's side of the protocol."""

    stub: Any

    async def configure(self, kubeconfig: str, **args: Any) -> None:
        """Configures the provider."""
        given = to_struct({"kubeconfig": kubeconfig, **args})
        await self.stub.Configure(provider_pb2.ConfigureRequest(args=given, acceptSecrets=True))

    async def check(self, token: str, name: str, inputs: Object, olds: Object | None = None) -> Object:
        """Checked inputs; raises CheckFailed."""
        answer = await self.stub.Check(
            provider_pb2.CheckRequest(
                urn=urn(token, name), news=to_struct(inputs), olds=to_struct(olds or {}), randomSeed=b"seed"
            )
        )
        if answer.failures:
            raise CheckFailed("; ".join(failure.reason for failure in answer.failures))
        return from_struct(answer.inputs)

    async def create(
        self, token: str, name: str, inputs: Object, preview: bool = False, seconds: float = 10
    ) -> State:
        """Checks and creates; raises Failure with the state that an InitFailed leaves."""
        checked = await self.check(token, name, inputs)
        request = provider_pb2.CreateRequest(
            urn=urn(token, name), properties=to_struct(checked), preview=preview, timeout=seconds
        )
        try:
            answer = await self.stub.Create(request)
        except grpc.aio.AioRpcError as error:
            raise _failure(error, token, name, checked) from error
        return State(token, name, answer.id, checked, from_struct(answer.properties))

    async def diff(
        self, state: State, inputs: Object, ignore: tuple[str, ...] = ()
    ) -> provider_pb2.DiffResponse:
        """Checks and compares."""
        checked = await self.check(state.token, state.name, inputs, state.inputs)
        answer: provider_pb2.DiffResponse = await self.stub.Diff(
            provider_pb2.DiffRequest(
                urn=urn(state.token, state.name),
                id=state.id,
                olds=to_struct(state.outputs),
                old_inputs=to_struct(state.inputs),
                news=to_struct(checked),
                ignoreChanges=ignore,
            )
        )
        return answer

    async def update(
        self,
        state: State,
        inputs: Object,
        preview: bool = False,
        seconds: float = 10,
        ignore: tuple[str, ...] = (),
    ) -> State:
        """Checks and updates in place."""
        checked = await self.check(state.token, state.name, inputs, state.inputs)
        request = provider_pb2.UpdateRequest(
            urn=urn(state.token, state.name),
            id=state.id,
            olds=to_struct(state.outputs),
            old_inputs=to_struct(state.inputs),
            news=to_struct(checked),
            preview=preview,
            timeout=seconds,
            ignoreChanges=ignore,
        )
        try:
            answer = await self.stub.Update(request)
        except grpc.aio.AioRpcError as error:
            raise _failure(error, state.token, state.name, checked) from error
        return State(state.token, state.name, state.id, checked, from_struct(answer.properties))

    async def refresh(self, state: State) -> State | None:
        """Reads what is in state; None when it is gone."""
        return await self._read(state.token, state.name, state.id, state.inputs, state.outputs)

    async def get(self, token: str, id: str) -> State | None:
        """Reads by id, as `.get()` does."""
        return await self._read(token, "read", id, {}, {})

    async def _read(self, token: str, name: str, id: str, inputs: Object, outputs: Object) -> State | None:
        request = provider_pb2.ReadRequest(
            urn=urn(token, name), id=id, inputs=to_struct(inputs), properties=to_struct(outputs)
        )
        try:
            answer = await self.stub.Read(request)
        except grpc.aio.AioRpcError as error:
            raise _failure(error, token, name, inputs) from error
        if not answer.id:
            return None
        return State(token, name, answer.id, from_struct(answer.inputs), from_struct(answer.properties))

    async def delete(self, state: State, seconds: float = 10) -> None:
        """Deletes."""
        request = provider_pb2.DeleteRequest(
            urn=urn(state.token, state.name),
            id=state.id,
            properties=to_struct(state.outputs),
            old_inputs=to_struct(state.inputs),
            timeout=seconds,
        )
        try:
            await self.stub.Delete(request)
        except grpc.aio.AioRpcError as error:
            raise _failure(error, state.token, state.name, state.inputs) from error


def urn(token: str, name: str) -> str:
    """URN of a resource of no parent."""
    return f"urn:pulumi:sandbox::ovh-vllm::{token}::{name}"


def _failure(error: grpc.aio.AioRpcError, token: str, name: str, inputs: Object) -> Failure:
    if "grpc-status-details-bin" not in dict(error.trailing_metadata() or ()):
        return Failure(error, None)
    id, outputs, _ = partial_state(error)
    return Failure(error, State(token, name, id, inputs, outputs))


@asynccontextmanager
async def engine() -> AsyncIterator[Engine]:
    """A plugin process; it ends with the block."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "sandbox.plugins.kubernetes",
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        env=os.environ | {"OVH_VLLM_SANDBOX_POLL_SECONDS": str(POLL_SECONDS)},
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        port = int(await process.stdout.readline())
        # The engine, written in Go, takes 16 MiB; state that came up half travels as metadata.
        options = [("grpc.max_metadata_size", 16 << 20), ("grpc.absolute_max_metadata_size", 16 << 20)]
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=options) as channel:
            yield Engine(provider_pb2_grpc.ResourceProviderStub(channel))
    finally:
        process.stdin.close()  # what tells a plugin that its engine is gone
        await asyncio.wait_for(process.wait(), 10)

"""Serves a plugin to the engine that started it: the gRPC protocol of Pulumi's resource providers."""

from __future__ import annotations

import os
import stat
import sys
import threading
import traceback
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final, NoReturn, TypedDict, TypeVar

import grpc
from google.protobuf import any_pb2, empty_pb2
from pulumi.runtime.proto import plugin_pb2, provider_pb2, provider_pb2_grpc, status_pb2

from sandbox.plugins.framework import (
    CheckRequest,
    CheckResult,
    ConfigureRequest,
    CreateRequest,
    DeleteRequest,
    Diff,
    DiffRequest,
    InitFailed,
    InvokeRequest,
    Plugin,
    PluginError,
    ReadRequest,
    UpdateRequest,
    root_of,
)
from sandbox.plugins.values import from_struct, to_struct

_MESSAGE_LIMIT: Final = 400 * 1024 * 1024
"""Bytes of the largest message, as in Pulumi's own hosts; gRPC's default is 4 MiB."""
_THREADS: Final = 64
_ENGINE_WATCH_SECONDS: Final = 0.5


_KINDS: Final = {
    ("add", False): provider_pb2.PropertyDiff.ADD,
    ("add", True): provider_pb2.PropertyDiff.ADD_REPLACE,
    ("delete", False): provider_pb2.PropertyDiff.DELETE,
    ("delete", True): provider_pb2.PropertyDiff.DELETE_REPLACE,
    ("update", False): provider_pb2.PropertyDiff.UPDATE,
    ("update", True): provider_pb2.PropertyDiff.UPDATE_REPLACE,
}


def _diff_response(diff: Diff | None) -> provider_pb2.DiffResponse:
    if diff is None:
        return provider_pb2.DiffResponse(changes=provider_pb2.DiffResponse.DIFF_UNKNOWN)
    changed = provider_pb2.DiffResponse.DIFF_SOME if diff.changes else provider_pb2.DiffResponse.DIFF_NONE
    return provider_pb2.DiffResponse(
        changes=changed,
        diffs=sorted({root_of(path) for path in diff.changes}),
        replaces=sorted({root_of(path) for path, change in diff.changes.items() if change.replace}),
        detailedDiff={
            path: provider_pb2.PropertyDiff(
                kind=_KINDS[change.kind, change.replace], inputDiff=change.input_diff
            )
            for path, change in diff.changes.items()
        },
        hasDetailedDiff=True,
        deleteBeforeReplace=diff.delete_before_replace,
        stables=list(diff.stables),
    )


class _Named(TypedDict):
    urn: str
    type: str
    name: str


def _named(urn: str) -> _Named:
    """Type and name of a resource out of its URN `urn:pulumi:<stack>::<project>::<parents$type>::<name>`."""
    _, _, qualified_type, name = urn.split("::", 3)
    return {"urn": urn, "type": qualified_type.rpartition("$")[2], "name": name}


_Answer = TypeVar("_Answer")
_DiffOrNone = Diff | None  # inside the class below, `Diff` is the method


class _Servicer(provider_pb2_grpc.ResourceProviderServicer):
    """Translates between the protocol and a `Plugin`."""

    def __init__(self, plugin: Plugin) -> None:
        self._plugin = plugin

    def _call(self, context: grpc.ServicerContext, hook: Callable[[], _Answer]) -> _Answer:
        """Runs a hook; what it raises ends the call with a message and no traceback."""
        try:
            return hook()
        except InitFailed as error:
            _abort_init_failed(context, error)
        except PluginError as error:
            # UNKNOWN is what an error of a provider written in Go arrives as.
            context.abort(grpc.StatusCode.UNKNOWN, str(error))
        except Exception as error:
            traceback.print_exc()  # shown by the engine in its debug log only
            context.abort(
                grpc.StatusCode.INTERNAL,
                f"bug in the sandbox's stand-in for {self._plugin.name}: {type(error).__name__}: {error}",
            )

    def Handshake(
        self, request: provider_pb2.ProviderHandshakeRequest, context: grpc.ServicerContext
    ) -> provider_pb2.ProviderHandshakeResponse:
        """Says which features of the protocol are used."""
        self._plugin.attach(request.engine_address)
        return provider_pb2.ProviderHandshakeResponse(accept_secrets=self._plugin.accepts_secrets)

    def Attach(self, request: plugin_pb2.PluginAttach, context: grpc.ServicerContext) -> empty_pb2.Empty:
        """Takes the engine's address when the plugin was started by hand (`PULUMI_DEBUG_PROVIDERS`)."""
        self._plugin.attach(request.address)
        return empty_pb2.Empty()

    def GetPluginInfo(self, request: empty_pb2.Empty, context: grpc.ServicerContext) -> plugin_pb2.PluginInfo:
        """Reports the version."""
        return plugin_pb2.PluginInfo(version=self._plugin.version)

    def CheckConfig(
        self, request: provider_pb2.CheckRequest, context: grpc.ServicerContext
    ) -> provider_pb2.CheckResponse:
        """Validates provider configuration."""
        return self._check(request, context, self._plugin.check_config)

    def Check(
        self, request: provider_pb2.CheckRequest, context: grpc.ServicerContext
    ) -> provider_pb2.CheckResponse:
        """Validates inputs of a resource."""
        return self._check(request, context, self._plugin.check)

    def _check(
        self,
        request: provider_pb2.CheckRequest,
        context: grpc.ServicerContext,
        hook: Callable[[CheckRequest], CheckResult],
    ) -> provider_pb2.CheckResponse:
        result = self._call(
            context,
            lambda: hook(
                CheckRequest(
                    **_named(request.urn),
                    news=from_struct(request.news),
                    olds=from_struct(request.olds),
                    random_seed=request.randomSeed,
                )
            ),
        )
        return provider_pb2.CheckResponse(
            inputs=to_struct(result.inputs),
            failures=[
                provider_pb2.CheckFailure(property=failure.property, reason=failure.reason)
                for failure in result.failures
            ],
        )

    def DiffConfig(
        self, request: provider_pb2.DiffRequest, context: grpc.ServicerContext
    ) -> provider_pb2.DiffResponse:
        """Compares provider configuration."""
        return self._diff(request, context, self._plugin.diff_config)

    def Diff(
        self, request: provider_pb2.DiffRequest, context: grpc.ServicerContext
    ) -> provider_pb2.DiffResponse:
        """Compares a resource."""
        return self._diff(request, context, self._plugin.diff)

    def _diff(
        self,
        request: provider_pb2.DiffRequest,
        context: grpc.ServicerContext,
        hook: Callable[[DiffRequest], _DiffOrNone],
    ) -> provider_pb2.DiffResponse:
        diff = self._call(
            context,
            lambda: hook(
                DiffRequest(
                    **_named(request.urn),
                    id=request.id,
                    old_inputs=from_struct(request.old_inputs),
                    old_outputs=from_struct(request.olds),
                    news=from_struct(request.news),
                    ignore_changes=tuple(request.ignoreChanges),
                )
            ),
        )
        return _diff_response(diff)

    def Configure(
        self, request: provider_pb2.ConfigureRequest, context: grpc.ServicerContext
    ) -> provider_pb2.ConfigureResponse:
        """Configures the provider."""
        self._call(context, lambda: self._plugin.configure(ConfigureRequest(from_struct(request.args))))
        return provider_pb2.ConfigureResponse(
            acceptSecrets=self._plugin.accepts_secrets, supportsPreview=True
        )

    def Create(
        self, request: provider_pb2.CreateRequest, context: grpc.ServicerContext
    ) -> provider_pb2.CreateResponse:
        """Creates a resource."""
        created = self._call(
            context,
            lambda: self._plugin.create(
                CreateRequest(
                    **_named(request.urn),
                    inputs=from_struct(request.properties),
                    timeout=request.timeout,
                    preview=request.preview,
                )
            ),
        )
        return provider_pb2.CreateResponse(id=created.id, properties=to_struct(created.outputs))

    def Read(
        self, request: provider_pb2.ReadRequest, context: grpc.ServicerContext
    ) -> provider_pb2.ReadResponse:
        """Looks a resource up; an answer without id says that it is gone."""
        found = self._call(
            context,
            lambda: self._plugin.read(
                ReadRequest(
                    **_named(request.urn),
                    id=request.id,
                    inputs=from_struct(request.inputs),
                    outputs=from_struct(request.properties),
                )
            ),
        )
        if found is None:
            return provider_pb2.ReadResponse()
        return provider_pb2.ReadResponse(
            id=found.id, properties=to_struct(found.outputs), inputs=to_struct(found.inputs)
        )

    def Update(
        self, request: provider_pb2.UpdateRequest, context: grpc.ServicerContext
    ) -> provider_pb2.UpdateResponse:
        """Updates a resource in place."""
        outputs = self._call(
            context,
            lambda: self._plugin.update(
                UpdateRequest(
                    **_named(request.urn),
                    id=request.id,
                    old_inputs=from_struct(request.old_inputs),
                    old_outputs=from_struct(request.olds),
                    news=from_struct(request.news),
                    timeout=request.timeout,
                    ignore_changes=tuple(request.ignoreChanges),
                    preview=request.preview,
                )
            ),
        )
        return provider_pb2.UpdateResponse(properties=to_struct(outputs))

    def Delete(self, request: provider_pb2.DeleteRequest, context: grpc.ServicerContext) -> empty_pb2.Empty:
        """Deletes a resource."""
        self._call(
            context,
            lambda: self._plugin.delete(
                DeleteRequest(
                    **_named(request.urn),
                    id=request.id,
                    inputs=from_struct(request.old_inputs),
                    outputs=from_struct(request.properties),
                    timeout=request.timeout,
                )
            ),
        )
        return empty_pb2.Empty()

    def Invoke(
        self, request: provider_pb2.InvokeRequest, context: grpc.ServicerContext
    ) -> provider_pb2.InvokeResponse:
        """Calls a function."""
        invocation = InvokeRequest(request.tok, from_struct(request.args))
        result = self._call(context, lambda: self._plugin.invoke(invocation))
        response = provider_pb2.InvokeResponse()
        getattr(response, "return").CopyFrom(to_struct(result))  # `return` is a keyword of Python
        return response

    def Cancel(self, request: empty_pb2.Empty, context: grpc.ServicerContext) -> empty_pb2.Empty:
        """Asks operations in flight to stop."""
        self._plugin.cancel()
        return empty_pb2.Empty()


def _abort_init_failed(context: grpc.ServicerContext, error: InitFailed) -> NoReturn:
    """Ends a call with the details from which the engine keeps the half-made resource."""
    detail = any_pb2.Any()
    detail.Pack(
        provider_pb2.ErrorResourceInitFailed(
            id=error.id,
            properties=to_struct(error.outputs),
            reasons=error.reasons,
            inputs=None if error.inputs is None else to_struct(error.inputs),
        )
    )
    code = grpc.StatusCode.UNKNOWN
    status = status_pb2.Status(code=code.value[0], message=str(error), details=[detail])
    context.set_trailing_metadata((("grpc-status-details-bin", status.SerializeToString()),))
    context.abort(code, str(error))


def serve(plugin: Plugin) -> NoReturn:
    """Runs the plugin for the engine that started it: prints the port first, ends when the engine does.

    The last command-line argument, if there is one, is the engine's address; flags before it are ignored.
    """
    arguments = sys.argv[1:]
    if arguments and not arguments[-1].startswith("-"):
        plugin.attach(arguments[-1])
    server = grpc.server(
        ThreadPoolExecutor(max_workers=_THREADS),
        options=[
            ("grpc.max_receive_message_length", _MESSAGE_LIMIT),
            ("grpc.max_send_message_length", _MESSAGE_LIMIT),
        ],
    )
    provider_pb2_grpc.add_ResourceProviderServicer_to_server(_Servicer(plugin), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    sys.stdout.write(f"{port}\n")
    sys.stdout.flush()
    _wait_for_end_of_engine()
    # Not sys.exit: operations in flight must not go on for an engine that is gone.
    os._exit(0)


def _wait_for_end_of_engine() -> None:
    """Returns when the parent process is another one or the pipe that the engine keeps on stdin is closed.

    PR_SET_PDEATHSIG would be wrong here: it fires when the parent's thread ends, as those of Go programs do.
    """
    ended = threading.Event()
    if stat.S_ISFIFO(os.fstat(0).st_mode):
        threading.Thread(target=_drain_stdin, args=(ended,), daemon=True).start()
    parent = os.getppid()
    while os.getppid() == parent and not ended.wait(_ENGINE_WATCH_SECONDS):
        pass


def _drain_stdin(ended: threading.Event) -> None:
    while os.read(0, 4096):
        pass
    ended.set()

"""A Pulumi resource provider in Python, directly on the gRPC protocol of the engine.

The SDK's own provider classes leave out what a stand-in needs: unknown values of a preview, secrets, old
inputs, detailed diffs, resources that were made but failed to come up. A plugin here derives `Plugin` and
works on plain Python values: None, bool, int, float, str, list, dict, and wrappers, `Secret` and `Unknown`.

    class Example(Plugin):
        name, version = "example", "1.0.0"
        def create(self, request: CreateRequest) -> Created: ...

    if __name__ == "__main__":
        serve(Example())

Hooks are called from several threads at once, one per resource operation in flight.
"""

from __future__ import annotations

import os
import stat
import sys
import threading
import traceback
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Final, NoReturn, TypedDict, TypeVar

import grpc
from google.protobuf import any_pb2, empty_pb2, struct_pb2
from pulumi.runtime.proto import (
    engine_pb2,
    engine_pb2_grpc,
    plugin_pb2,
    provider_pb2,
    provider_pb2_grpc,
    status_pb2,
)

# Signatures and sentinels of Pulumi's wire format (sdk/go/common/resource: plugin/rpc.go, properties.go).
_SIGNATURE: Final = "4dabf18193072939515e22adb298388d"
_SECRET: Final = "1b47061264138c4ac30d75fd1eb44270"  # noqa: S105 (a marker, not a password)
_UNKNOWN_STRING: Final = "04da6b54-80e4-46f7-96ec-b56ff0331ba9"
_UNKNOWNS: Final = frozenset(
    {
        _UNKNOWN_STRING,
        "1c4a061d-8072-4f0a-a4cb-0ff528b18fe7",  # bool
        "3eeb2bf0-c639-47a8-9e75-3b44932eb421",  # number
        "6a19a0b0-7e62-4c92-b797-7f8e31da9cc2",  # array
        "030794c1-ac77-496b-92df-f27374a8bd58",  # asset
        "e48ece36-62e2-4504-bad9-02848725956a",  # archive
        "dd056dcd-154b-4c76-9bd3-c8f88648b5ff",  # object
    }
)

_MESSAGE_LIMIT: Final = 400 * 1024 * 1024
"""Bytes of the largest message, as in Pulumi's own hosts; gRPC's default is 4 MiB."""
_THREADS: Final = 64
_ENGINE_WATCH_SECONDS: Final = 0.5


@dataclass(frozen=True)
class Secret:
    """A value that Pulumi encrypts in state and masks in output; its text form does not show the value."""

    value: Value = field(repr=False)


class Unknown:
    """A value that a preview does not know yet; all instances are equal, `UNKNOWN` is one."""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Unknown)

    def __hash__(self) -> int:
        return hash(Unknown)

    def __repr__(self) -> str:
        return "UNKNOWN"


UNKNOWN: Final = Unknown()

Value = None | bool | int | float | str | Secret | Unknown | list["Value"] | dict[str, "Value"]
"""A property value."""
Object = dict[str, Value]
"""A property map: inputs, outputs or provider configuration."""


class PluginError(Exception):
    """An error for the user: its text reaches Pulumi's output as it is, so it must hold no secret."""


class Cancelled(PluginError):  # noqa: N818 (a state of the operation, named as users see it)
    """The engine asked to stop; raised by `Plugin.pause`."""


class InitFailed(PluginError):  # noqa: N818 (Pulumi's name for it)
    """The resource exists but did not come up: state keeps it, the operation fails, the next one tries again.

    `reasons` are shown to the user. May be raised by create, update and read. `outputs` (and, for read,
    `inputs`) go into state as those of a success would.
    """

    def __init__(self, id: str, outputs: Object, reasons: list[str], inputs: Object | None = None) -> None:
        super().__init__("; ".join(reasons))
        self.id = id
        self.outputs = outputs
        self.reasons = reasons
        self.inputs = inputs


@dataclass(frozen=True)
class Resource:
    """What every request on a resource says about it."""

    urn: str
    type: str
    """Type token, such as `ovh:CloudProject/kube:Kube`."""
    name: str
    """Logical name, the last part of the URN."""


@dataclass(frozen=True)
class ConfigureRequest:
    """Configuration of one provider instance; what is not a string travels as its JSON text."""

    args: Object


@dataclass(frozen=True)
class CheckRequest(Resource):
    """Inputs to validate and complete."""

    news: Object
    olds: Object
    """Inputs of the last update, empty for a new resource or a provider's configuration."""
    random_seed: bytes
    """Same bytes for the same resource in preview and update; empty for a provider's configuration."""


@dataclass(frozen=True)
class CheckFailure:
    """One thing wrong with the inputs."""

    reason: str
    property: str = ""


@dataclass(frozen=True)
class CheckResult:
    """Inputs with defaults added, or what is wrong with them."""

    inputs: Object
    failures: list[CheckFailure] = field(default_factory=list)


@dataclass(frozen=True)
class DiffRequest(Resource):
    """State to compare with new inputs; `id` is the resource's (for a provider's configuration too)."""

    id: str
    old_inputs: Object
    old_outputs: Object
    news: Object
    ignore_changes: tuple[str, ...]


@dataclass(frozen=True)
class PropertyChange:
    """How one property changes: `kind` is "add", "delete" or "update"."""

    kind: str = "update"
    replace: bool = False
    """Whether the change makes a new resource."""
    input_diff: bool = True
    """True: old inputs against new inputs. False: old outputs against new inputs."""


@dataclass(frozen=True)
class Diff:
    """Changes by property path (`spec.ports[0].port`); none means that the resource is up to date."""

    changes: Mapping[str, PropertyChange] = field(default_factory=dict)
    delete_before_replace: bool = False
    stables: Iterable[str] = ()
    """Outputs that an update in place does not change, so that a preview keeps their values."""


@dataclass(frozen=True)
class CreateRequest(Resource):
    """Checked inputs of a new resource; unknown values only if `preview`."""

    inputs: Object
    timeout: float
    """Seconds that the user allows (`custom_timeouts`), 0 for the default."""
    preview: bool


@dataclass(frozen=True)
class Created:
    """The new resource; `id` may be empty in a preview."""

    id: str
    outputs: Object


@dataclass(frozen=True)
class ReadRequest(Resource):
    """Resource to look up; for an import `inputs` and `outputs` are empty."""

    id: str
    inputs: Object
    outputs: Object


@dataclass(frozen=True)
class ReadResult:
    """The resource as it is now."""

    id: str
    inputs: Object
    outputs: Object


@dataclass(frozen=True)
class UpdateRequest(Resource):
    """A change in place; unknown values only if `preview`."""

    id: str
    old_inputs: Object
    old_outputs: Object
    news: Object
    timeout: float
    ignore_changes: tuple[str, ...]
    preview: bool


@dataclass(frozen=True)
class DeleteRequest(Resource):
    """A resource to remove."""

    id: str
    inputs: Object
    outputs: Object
    timeout: float


@dataclass(frozen=True)
class InvokeRequest:
    """A function call."""

    token: str
    """Such as `ovh:CloudProject/getKube:getKube`."""
    args: Object
    preview: bool


class Plugin(ABC):
    """A provider plugin. Hooks raise `PluginError` for what the user should read."""

    name: str
    """Package name: the plugin stands in for `pulumi-resource-<name>`."""
    version: str
    """Version of the SDK that it serves, reported to the engine (which warns about a lower one)."""
    accepts_secrets: bool = True
    """False: the engine unwraps secrets in requests, and wraps properties of the same names in answers."""

    def __init__(self) -> None:
        self._cancelled = threading.Event()
        self._engine: engine_pb2_grpc.EngineStub | None = None

    def check_config(self, request: CheckRequest) -> CheckResult:
        """Validates a provider's configuration; unknown values are possible in a preview."""
        return CheckResult(request.news)

    def diff_config(self, request: DiffRequest) -> Diff | None:
        """Compares a provider's configuration; None: the engine compares, any change is an update."""
        return None

    @abstractmethod
    def configure(self, request: ConfigureRequest) -> None:
        """Takes the configuration; called once, before all resource operations, if all of it is known."""

    @abstractmethod
    def check(self, request: CheckRequest) -> CheckResult:
        """Validates inputs and adds defaults; must give the same answer in preview and update."""

    @abstractmethod
    def diff(self, request: DiffRequest) -> Diff:
        """Compares state with new inputs."""

    @abstractmethod
    def create(self, request: CreateRequest) -> Created:
        """Makes the resource; in a preview only foretells its outputs."""

    @abstractmethod
    def read(self, request: ReadRequest) -> ReadResult | None:
        """Looks the resource up; None if it is gone."""

    @abstractmethod
    def update(self, request: UpdateRequest) -> Object:
        """Changes the resource in place; returns its outputs. In a preview only foretells them."""

    @abstractmethod
    def delete(self, request: DeleteRequest) -> None:
        """Removes the resource; one that is gone is no error."""

    def invoke(self, request: InvokeRequest) -> Object:
        """Calls a function of the package."""
        raise PluginError(f"{request.token} is not implemented in the sandbox's stand-in for {self.name}")

    def pause(self, seconds: float | None = None) -> None:
        """Waits one poll interval (`OVH_VLLM_SANDBOX_POLL_SECONDS`, default 0.2 s) or `seconds`.

        The real plugins poll every 3 to 5 s. Raises `Cancelled` when the engine asked to stop.
        """
        if self._cancelled.wait(poll_seconds() if seconds is None else seconds):
            raise Cancelled("the operation was cancelled")

    def warn(self, urn: str, message: str) -> None:
        """Shows a warning next to the resource in Pulumi's output."""
        if self._engine is not None:
            self._engine.Log(
                engine_pb2.LogRequest(severity=engine_pb2.WARNING, message=message, urn=urn, ephemeral=False)
            )

    def cancel(self) -> None:
        """Ends all waits, as the engine asks when the user interrupts it."""
        self._cancelled.set()

    def attach(self, engine_address: str) -> None:
        """Takes the address (`host:port`) of the engine, for `warn`."""
        self._engine = engine_pb2_grpc.EngineStub(grpc.insecure_channel(engine_address))


def poll_seconds() -> float:
    """Seconds between two polls of a wait."""
    return float(os.environ.get("OVH_VLLM_SANDBOX_POLL_SECONDS", "0.2"))


def reveal(value: Value) -> Value:
    """The value without `Secret` wrappers, at any depth."""
    match value:
        case Secret():
            return reveal(value.value)
        case list():
            return [reveal(item) for item in value]
        case dict():
            return {key: reveal(item) for key, item in value.items()}
        case _:
            return value


def reveal_object(properties: Object) -> Object:
    """`reveal` of a property map."""
    return {key: reveal(value) for key, value in properties.items()}


def has_unknown(value: Value) -> bool:
    """Whether the value or a part of it is unknown."""
    match value:
        case Unknown():
            return True
        case Secret():
            return has_unknown(value.value)
        case list():
            return any(has_unknown(item) for item in value)
        case dict():
            return any(has_unknown(item) for item in value.values())
        case _:
            return False


def has_secret(value: Value) -> bool:
    """Whether the value or a part of it is a secret."""
    match value:
        case Secret():
            return True
        case list():
            return any(has_secret(item) for item in value)
        case dict():
            return any(has_secret(item) for item in value.values())
        case _:
            return False


def to_struct(properties: Object) -> struct_pb2.Struct:
    """Wire form of a property map."""
    return struct_pb2.Struct(fields={key: _to_wire(value) for key, value in properties.items()})


def from_struct(struct: struct_pb2.Struct) -> Object:
    """Property map of a wire form; numbers without a fraction become int."""
    return {key: _from_wire(value) for key, value in struct.fields.items()}


def _to_wire(value: Value) -> struct_pb2.Value:
    match value:
        case None:
            return struct_pb2.Value(null_value=struct_pb2.NULL_VALUE)
        case bool():
            return struct_pb2.Value(bool_value=value)
        case int() | float():
            return struct_pb2.Value(number_value=value)
        case str():
            return struct_pb2.Value(string_value=value)
        case Unknown():
            return struct_pb2.Value(string_value=_UNKNOWN_STRING)
        case Secret():
            return struct_pb2.Value(struct_value=to_struct({_SIGNATURE: _SECRET, "value": value.value}))
        case list():
            items = struct_pb2.ListValue(values=[_to_wire(item) for item in value])
            return struct_pb2.Value(list_value=items)
        case dict():
            return struct_pb2.Value(struct_value=to_struct(value))


def _from_wire(value: struct_pb2.Value) -> Value:
    match value.WhichOneof("kind"):
        case "bool_value":
            return value.bool_value
        case "number_value":
            number = value.number_value
            return int(number) if number.is_integer() else number
        case "string_value":
            return UNKNOWN if value.string_value in _UNKNOWNS else value.string_value
        case "list_value":
            return [_from_wire(item) for item in value.list_value.values]
        case "struct_value":
            properties = from_struct(value.struct_value)
            # Assets and resource references carry other signatures and pass through as they are.
            return Secret(properties["value"]) if properties.get(_SIGNATURE) == _SECRET else properties
        case _:
            return None


_KINDS: Final = {
    ("add", False): provider_pb2.PropertyDiff.ADD,
    ("add", True): provider_pb2.PropertyDiff.ADD_REPLACE,
    ("delete", False): provider_pb2.PropertyDiff.DELETE,
    ("delete", True): provider_pb2.PropertyDiff.DELETE_REPLACE,
    ("update", False): provider_pb2.PropertyDiff.UPDATE,
    ("update", True): provider_pb2.PropertyDiff.UPDATE_REPLACE,
}


def root_of(path: str) -> str:
    """First segment of a property path: `spec` of `spec.ports[0]`, `x` of `["x"].y`."""
    if path.startswith('["'):
        return path[2 : path.index('"]')]
    return path.partition(".")[0].partition("[")[0]


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
        invocation = InvokeRequest(request.tok, from_struct(request.args), request.preview)
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

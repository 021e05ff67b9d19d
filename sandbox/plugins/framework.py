"""A Pulumi resource provider in Python, directly on the gRPC protocol of the engine.

The SDK's own provider classes leave out what a stand-in needs: unknown values of a preview, secrets, old
inputs, detailed diffs, resources that were made but failed to come up. A plugin here derives `Plugin`, works
on plain values (`sandbox.plugins.values`) and is served by `sandbox.plugins.serving`.

    class Example(Plugin):
        name, version = "example", "1.0.0"
        def create(self, request: CreateRequest) -> Created: ...

    if __name__ == "__main__":
        serve(Example())

Hooks are called from several threads at once, one per resource operation in flight.
"""

from __future__ import annotations

import os
import threading
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import grpc
from pulumi.runtime.proto import engine_pb2, engine_pb2_grpc

from sandbox.plugins.values import Object


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


def root_of(path: str) -> str:
    """First segment of a property path: `spec` of `spec.ports[0]`, `x` of `["x"].y`."""
    if path.startswith('["'):
        return path[2 : path.index('"]')]
    return path.partition(".")[0].partition("[")[0]

"""A plugin for the tests of the framework: its logical name says how a resource behaves."""

from __future__ import annotations

from sandbox.plugins.framework import (
    CheckRequest,
    CheckResult,
    ConfigureRequest,
    Created,
    CreateRequest,
    DeleteRequest,
    Diff,
    DiffRequest,
    InitFailed,
    Plugin,
    PluginError,
    PropertyChange,
    ReadRequest,
    ReadResult,
    UpdateRequest,
)
from sandbox.plugins.serving import serve
from sandbox.plugins.values import Object


class Example(Plugin):
    name = "example"
    version = "1.2.3"

    def configure(self, request: ConfigureRequest) -> None:
        """Takes anything."""

    def check(self, request: CheckRequest) -> CheckResult:
        return CheckResult({**request.news, "type": request.type, "name": request.name})

    def diff(self, request: DiffRequest) -> Diff:
        return Diff(
            {
                'spec.ports[0]["a.b"]': PropertyChange("add"),
                "name": PropertyChange("update", replace=True, input_diff=False),
                '["odd.key"].x': PropertyChange("delete", replace=True),
            },
            delete_before_replace=True,
        )

    def create(self, request: CreateRequest) -> Created:
        match request.name:
            case "refused":
                raise PluginError("no quota for it")
            case "half-made":
                raise InitFailed("id-1", {"made": True}, ["it does not start"])
            case "buggy":
                return Created("id-1", {"value": request.inputs["absent"]})
            case "slow":
                self.pause(3600)
        return Created("id-1", request.inputs)

    def read(self, request: ReadRequest) -> ReadResult | None:
        return None

    def update(self, request: UpdateRequest) -> Object:
        return {"float": 0.5, "integer": 4.0, "preview": request.preview}

    def delete(self, request: DeleteRequest) -> None:
        """Removes nothing."""


if __name__ == "__main__":
    serve(Example())

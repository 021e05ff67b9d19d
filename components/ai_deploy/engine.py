"""The Pulumi engine that started this process: tells the user something, and whether it is still there.

A dynamic provider is a process of its own (`python -m pulumi.dynamic <engine address>`) and is not told when
the engine dies; it would go on creating what nobody remembers. `pulumi.log` does not reach the engine from
there, because the SDK hands the address on to programs only: hence the few lines of gRPC.
"""

from __future__ import annotations

import functools
import re
import sys
from collections.abc import Sequence
from pathlib import Path

import grpc
from pulumi.runtime.proto import engine_pb2, engine_pb2_grpc

_TIMEOUT = 60.0
"""Seconds within which a living engine takes a message, however busy it is; a dead one fails at once."""


class EngineGoneError(Exception):
    """The engine that asked for this has ended; nothing further must be changed on its behalf."""

    def __init__(self, action: str) -> None:
        super().__init__(
            f"the Pulumi engine has ended, {action} was not done. To recover: `pulumi cancel`, "
            "`pulumi refresh --clear-pending-creates`, `pulumi up`."
        )


class Engine:
    """One engine, by the address (`127.0.0.1:port`) at which it takes messages from its plugins.

    Without an address, in a process that no engine started, messages go to standard error.
    """

    def __init__(self, address: str | None) -> None:
        self._address = address

    def say(self, message: str) -> None:
        """Shows `message` to the user at once; raises EngineGoneError."""
        if self._address is None:
            sys.stderr.write(f"{message}\n")
        else:
            self._log(engine_pb2.INFO, message, "the message")

    def require(self, action: str) -> None:
        """Raises EngineGoneError when the engine has ended; shows `action` to users of `--debug`."""
        if self._address is not None:
            self._log(engine_pb2.DEBUG, action, action)

    def _log(self, severity: engine_pb2.LogSeverity.ValueType, message: str, action: str) -> None:
        try:
            self._stub.Log(engine_pb2.LogRequest(severity=severity, message=message), timeout=_TIMEOUT)
        except grpc.RpcError as error:
            raise EngineGoneError(action) from error

    @functools.cached_property
    def _stub(self) -> engine_pb2_grpc.EngineStub:
        return engine_pb2_grpc.EngineStub(grpc.insecure_channel(self._address or ""))


def address_of_engine(arguments: Sequence[str]) -> str | None:
    """The engine's address in the command line of a dynamic provider; None in any other process."""
    if not arguments or Path(arguments[0]).parts[-3:] != ("pulumi", "dynamic", "__main__.py"):
        return None
    addresses = [argument for argument in arguments[1:] if re.fullmatch(r"[\w.\-\[\]:]+:\d+", argument)]
    return addresses[-1] if addresses else None


ENGINE = Engine(address_of_engine(sys.argv))
"""The engine of this process."""

"""The Python language host of a Pulumi CLI that was built from Go modules (the official release brings one).

The engine starts it as `pulumi-language-python <engine address>`, reads its port from the first line of its
output and asks it to run the program, or a policy pack or plugin written in Python. This file is copied
beside the CLI and runs under the interpreter that the launching script finds, so it imports nothing of ours.
"""

from __future__ import annotations

import os
import queue
import runpy
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent import futures
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import IO, Any

import grpc
from pulumi.automation._server import LanguageServer
from pulumi.runtime.proto import language_pb2, language_pb2_grpc, plugin_pb2

_MESSAGE_LIMIT = 400 * 1024 * 1024
"""Bytes of one gRPC message, as in the official host: gRPC's own limit of 4 MiB is too low for big stacks."""


class PythonHost(LanguageServer):
    """Runs one program in this process; policy packs and plugins in processes of their own."""

    def __init__(self, engine_address: str) -> None:
        super().__init__(self._run_program)
        self._engine_address = engine_address
        self._program = Path()
        self._children: list[subprocess.Popen[bytes]] = []

    def _run_program(self) -> None:
        runpy.run_path(str(self._program), run_name="__main__")

    def Run(
        self, request: language_pb2.RunRequest, context: grpc.ServicerContext
    ) -> language_pb2.RunResponse:
        """Runs the program in `request.pwd`, its own folder first on the module path."""
        self._program = Path(request.info.program_directory, request.info.entry_point)
        os.chdir(request.pwd)
        sys.path.insert(0, request.info.program_directory)
        sys.argv = [str(self._program), *request.args]
        # The inline server takes from the arguments where log messages go.
        request.args[:] = [self._engine_address]
        response: language_pb2.RunResponse = super().Run(request, context)  # type: ignore[no-untyped-call]
        # The error has been logged by now: with "bail" the engine does not show it a second time.
        response.bail = bool(response.error)
        return response

    def RunPlugin(
        self, request: language_pb2.RunPluginRequest, context: grpc.ServicerContext
    ) -> Iterator[language_pb2.RunPluginResponse]:
        """Runs a folder with a `__main__.py`: streams what it writes, ends with its exit status."""
        process = subprocess.Popen(
            [sys.executable, "-u", request.info.program_directory, *request.args],
            cwd=request.pwd,
            env={name: value for name, _, value in (entry.partition("=") for entry in request.env)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        self._children.append(process)
        context.add_callback(process.terminate)  # the engine ends a plugin by cancelling the call
        responses: queue.SimpleQueue[language_pb2.RunPluginResponse | None] = queue.SimpleQueue()

        def pump(stream: IO[bytes], wrap: Callable[[bytes], language_pb2.RunPluginResponse]) -> None:
            while chunk := os.read(stream.fileno(), 65536):
                responses.put(wrap(chunk))
            responses.put(None)

        assert process.stdout and process.stderr
        pumps = (
            (process.stdout, lambda chunk: language_pb2.RunPluginResponse(stdout=chunk)),
            (process.stderr, lambda chunk: language_pb2.RunPluginResponse(stderr=chunk)),
        )
        for arguments in pumps:
            threading.Thread(target=pump, args=arguments, daemon=True).start()
        for _ in pumps:
            yield from iter(responses.get, None)
        yield language_pb2.RunPluginResponse(exitcode=process.wait())

    def GetPluginInfo(self, request: Any, context: grpc.ServicerContext) -> plugin_pb2.PluginInfo:
        """The version of the SDK that programs run with."""
        return plugin_pb2.PluginInfo(version=metadata.version("pulumi"))

    def close(self) -> None:
        """Ends the plugins that still run."""
        for process in self._children:
            process.kill()


def serve(engine_address: str) -> None:
    """Answers the engine until it interrupts us or is gone, which closes our standard input."""
    options = [("grpc.max_receive_message_length", _MESSAGE_LIMIT), ("grpc.max_send_message_length", -1)]
    server = grpc.server(futures.ThreadPoolExecutor(), options=options)
    host = PythonHost(engine_address)
    language_pb2_grpc.add_LanguageRuntimeServicer_to_server(host, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    # A shell has its background jobs ignore interrupts, and their children inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    # From the moment that the engine knows the port it may interrupt.
    with suppress(KeyboardInterrupt):
        sys.stdout.write(f"{port}\n")
        sys.stdout.flush()
        sys.stdin.buffer.read()
    host.close()
    # A program that waits for an engine that is gone would keep an ordinary exit from happening.
    os._exit(0)


if __name__ == "__main__":
    serve(sys.argv[-1])

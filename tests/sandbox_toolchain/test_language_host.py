"""Programs run on the real engine, and nothing of them stays when it is gone."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import grpc
import pytest
from google.protobuf import empty_pb2
from pulumi.runtime.proto import language_pb2, language_pb2_grpc

from sandbox import processes
from sandbox.toolchain import language_host
from sandbox.toolchain.chain import installed
from sandbox.toolchain.progress import UnavailableError
from sandbox.toolchain.tools import PULUMI
from tests.waiting import gone, until

_PROGRAM = """
import pulumi
from parts.thing import Thing

print("printed by the program")
pulumi.log.warn("logged by the program")
thing = Thing("thing", pulumi.Config().get("wait_for"))
pulumi.export("where", thing.where)
if pulumi.Config().get_bool("fail"):
    raise ValueError("raised by the program")
"""

_PROVIDER = """
import os
import time
from pathlib import Path
import pulumi
from pulumi import dynamic


class Provider(dynamic.ResourceProvider):
    serialize_as_secret_always = False

    def create(self, props):
        if props.get("wait_for"):
            Path(props["wait_for"]).touch()
            time.sleep(3600)
        return dynamic.CreateResult("an-id", {**props, "where": os.getcwd()})

    def diff(self, _id, _olds, _news):
        return dynamic.DiffResult(changes=False)


class Thing(dynamic.Resource):
    where: pulumi.Output[str]

    def __init__(self, name, wait_for):
        super().__init__(Provider(), name, {"wait_for": wait_for, "where": None})
"""


class Stack:
    """A stack of a program that lies in another folder than its Pulumi.yaml."""

    def __init__(self, directory: Path, pulumi: Path) -> None:
        self.program = directory / "program"
        self.sandbox = directory / "sandbox"
        project = directory / "project"
        for folder in (self.program / "parts", project, directory / "state"):
            folder.mkdir(parents=True)
        (project / "Pulumi.yaml").write_text("name: demo\nruntime: python\nmain: ../program\n")
        (self.program / "__main__.py").write_text(_PROGRAM)
        (self.program / "parts" / "__init__.py").touch()
        (self.program / "parts" / "thing.py").write_text(_PROVIDER)
        self._pulumi = pulumi
        self._directory = directory
        self._environ = {
            **{name: value for name, value in os.environ.items() if not name.startswith("PULUMI_")},
            **processes.mark(self.sandbox),
            "PATH": os.pathsep.join([str(Path(sys.executable).parent), str(pulumi.parent), "/bin:/usr/bin"]),
            "PULUMI_HOME": str(directory / "home"),
            "PULUMI_BACKEND_URL": f"file://{directory / 'state'}",
            "PULUMI_CONFIG_PASSPHRASE": "of a test",
            "PULUMI_OPTION_CWD": str(project),
            "PULUMI_SKIP_UPDATE_CHECK": "true",
            "PULUMI_DISABLE_AUTOMATIC_PLUGIN_ACQUISITION": "true",
        }
        assert self.run("stack", "init", "test")[0] == 0

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [self._pulumi, *arguments, "--non-interactive", "--color=never"],
            cwd=self._directory,  # neither the program's folder nor the project's
            env=self._environ,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def run(self, *arguments: str) -> tuple[int, str]:
        with self.start(*arguments) as process:
            said = process.communicate()[0]
        return process.returncode, said


@pytest.fixture
def stack(tmp_path: Path) -> Stack:
    try:
        pulumi = installed(PULUMI).binaries["pulumi"]
    except UnavailableError as error:
        pytest.skip(f"needs the Pulumi CLI (python -m sandbox.toolchain): {error}")
    return Stack(tmp_path, pulumi)


def test_life_of_a_stack(stack: Stack) -> None:
    status, said = stack.run("up", "--yes", "--skip-preview")
    assert status == 0, said
    assert "printed by the program" in said
    assert "warning: logged by the program" in said
    # The dynamic provider runs in the program's folder, where it finds its modules.
    outputs = json.loads(stack.run("stack", "output", "--json")[1])
    assert outputs == {"where": str(stack.program)}

    status, said = stack.run("preview", "--expect-no-changes")
    assert status == 0, said

    stack.run("config", "set", "fail", "true")
    status, said = stack.run("preview")
    assert status != 0
    assert said.count("ValueError: raised by the program") == 1, said

    status, said = stack.run("destroy", "--yes", "--skip-preview")
    assert status == 0, said
    assert processes.find(stack.sandbox) == []


def test_nothing_survives_an_engine_that_was_killed(stack: Stack, tmp_path: Path) -> None:
    created = tmp_path / "creating"
    stack.run("config", "set", "wait_for", str(created))
    with stack.start("up", "--yes", "--skip-preview") as engine:
        until(created.exists, "the provider creates")
        names = {Path(word).name for process in processes.find(stack.sandbox) for word in process.command}
        assert {"pulumi", "pulumi-resource-pulumi-python", "pulumi.dynamic"} <= names
        engine.kill()
    # The provider waits for the end of its `create`: nobody has told it that its engine is gone.
    assert processes.find(stack.sandbox)
    processes.terminate(stack.sandbox)
    assert processes.find(stack.sandbox) == []


class TestHostItself:
    """The host that a self-built CLI gets, asked over gRPC as the engine asks it."""

    @pytest.fixture
    def host(self) -> Iterator[subprocess.Popen[str]]:
        with subprocess.Popen(
            [sys.executable, language_host.__file__, "127.0.0.1:1"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        ) as process:
            yield process
            process.kill()

    @pytest.fixture
    def client(self, host: subprocess.Popen[str]) -> Iterator[language_pb2_grpc.LanguageRuntimeStub]:
        assert host.stdout is not None
        with grpc.insecure_channel(f"127.0.0.1:{int(host.stdout.readline())}") as channel:
            yield language_pb2_grpc.LanguageRuntimeStub(channel)

    def plugin(self, directory: Path, code: str) -> language_pb2.RunPluginRequest:
        """The request to run a plugin with this program in a folder of its own."""
        folder = directory / "plugin"
        folder.mkdir()
        (folder / "__main__.py").write_text("import os, signal, sys\n" + code)
        return language_pb2.RunPluginRequest(
            pwd=str(directory),
            args=["127.0.0.1:1"],
            env=["GREETING=a=b"],
            info=language_pb2.ProgramInfo(program_directory=str(folder), root_directory=str(folder)),
        )

    def test_ends_with_its_engine(
        self, host: subprocess.Popen[str], client: language_pb2_grpc.LanguageRuntimeStub
    ) -> None:
        assert client.GetPluginInfo(empty_pb2.Empty()).version == metadata.version("pulumi")
        assert host.stdin is not None
        host.stdin.close()  # what the kernel does to the pipe of a killed engine
        assert host.wait(60) == 0

    def test_interrupt_of_the_engine_ends_it_quietly(
        self, host: subprocess.Popen[str], client: language_pb2_grpc.LanguageRuntimeStub
    ) -> None:
        client.GetPluginInfo(empty_pb2.Empty())
        host.send_signal(signal.SIGINT)
        assert host.wait(60) == 0

    def test_output_and_exit_status_of_a_plugin_are_streamed(
        self, client: language_pb2_grpc.LanguageRuntimeStub, tmp_path: Path
    ) -> None:
        code = "print(os.environ['GREETING'], os.getcwd(), *sys.argv[1:])\nsys.exit('bad')"
        *chunks, last = client.RunPlugin(self.plugin(tmp_path, code))
        assert b"".join(chunk.stdout for chunk in chunks) == f"a=b {tmp_path} 127.0.0.1:1\n".encode()
        assert b"".join(chunk.stderr for chunk in chunks) == b"bad\n"
        assert last.exitcode == 1

    @pytest.mark.parametrize("end", ["the call is cancelled", "the engine is gone"])
    def test_plugin_ends_when(
        self,
        host: subprocess.Popen[str],
        client: language_pb2_grpc.LanguageRuntimeStub,
        tmp_path: Path,
        end: str,
    ) -> None:
        call = client.RunPlugin(self.plugin(tmp_path, "print(os.getpid())\nsignal.pause()"))
        process = int(next(iter(call)).stdout)
        assert not gone(process)
        if end == "the call is cancelled":
            call.cancel()
        else:
            assert host.stdin is not None
            host.stdin.close()
        until(lambda: gone(process), "the plugin ends")

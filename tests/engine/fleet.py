"""Any number of endpoints in one small Pulumi project, deployed by the real engine to a cloud in a thread.

One run of the engine costs seconds, whatever it deploys: tests therefore put many cases, an endpoint each,
into one fleet, and arm what happens to each of them by its name.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from sandbox import processes
from sandbox.cloud.settings import Delays
from sandbox.engine import Engine
from sandbox.project import CHECKOUT, Folder
from sandbox.toolchain import Toolchain
from tests.ai_deploy.clouds import Sky, clouds
from tests.sandbox_cloud.fakes import CREDENTIALS, PROJECT
from tests.waiting import until

CANARY = "hf_canary_of_the_fleet"
"""Hugging Face token of every endpoint; must be found nowhere in clear."""
STACK = "fleet"

SPEED = 100
"""Platform seconds per second: apps start and stop in a fraction of a second, and probing thirty costs
little."""
DELAYS = Delays(queued=1, initializing=1, image_pull=1, app_deletion=1)

_APP = "pulumi-python:dynamic/ai-deploy:App"
_TOKEN = "pulumi-python:dynamic/ai-deploy:Token"
_PROGRAM = "from tests.engine import fleet_program\n\nfleet_program.main()\n"
_FASTER = """
import time

from components.ai_deploy import waiting

waiting.WALL_CLOCK = waiting.Clock(
    lambda: time.monotonic() * {pace}, lambda seconds: time.sleep(seconds / {pace})
)
"""
"""What Python imports at its start, as `sitecustomize`, in a fleet whose providers wait on a faster clock."""


_WITH_INTERRUPTS = """
import os, signal, sys
signal.signal(signal.SIGINT, signal.SIG_DFL)
os.execv(sys.argv[1], sys.argv[1:])
"""
"""A shell has its background jobs ignore interrupts, and their children inherit that."""


@dataclass(frozen=True)
class Run:
    """An engine at work."""

    process: subprocess.Popen[bytes]
    output: Path

    @property
    def said(self) -> str:
        """What it has said so far."""
        return self.output.read_text()

    def kill(self) -> None:
        """`kill -9`."""
        self.process.kill()
        self.process.wait()

    def interrupt(self) -> None:
        """Ctrl-C."""
        self.process.send_signal(signal.SIGINT)


@dataclass
class Fleet:
    """The endpoints as they should be, the cloud they are deployed to, and the engine.

    The commands return what the engine said, and raise EngineError with it when it fails.
    """

    sky: Sky
    folder: Folder
    engine: Engine = field(repr=False)
    endpoints: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Per name: fields of its app, and of `fleet_program.ENDPOINT`. What is not there gets deleted."""

    def up(self, *arguments: str) -> str:
        """Deploys the endpoints; one that fails does not keep the others from being deployed."""
        return self.command("up", "--yes", "--skip-preview", "--continue-on-error", *arguments)

    def preview(self, *arguments: str) -> str:
        return self.command("preview", *arguments)

    def refresh(self, *arguments: str) -> str:
        return self.command("refresh", "--yes", "--skip-preview", *arguments)

    def destroy(self, *arguments: str) -> str:
        return self.command("destroy", "--yes", "--skip-preview", "--continue-on-error", *arguments)

    def cancel(self) -> str:
        """Releases the lock of an engine that was killed."""
        return self.command("cancel", "--yes")

    def recover(self) -> str:
        """What `make recover` does."""
        self.cancel()
        self.refresh("--clear-pending-creates")
        return self.up()

    def command(self, *arguments: str) -> str:
        """Runs any command on the stack."""
        self._write()
        return self.engine.capture(*arguments, "-s", STACK)

    def start(self, *arguments: str) -> Run:
        """Starts a command on the stack that is not to come to its end undisturbed."""
        self._write()
        output = self.folder.root / "output.txt"
        command = [sys.executable, "-c", _WITH_INTERRUPTS, str(self.engine.pulumi), *arguments, "-s", STACK]
        with output.open("w") as file:
            process = subprocess.Popen(
                command,
                env={**os.environ, **self.engine.environment},
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
            )
        return Run(process, output)

    def _write(self) -> None:
        Path(self.engine.environment["FLEET"]).write_text(json.dumps(self.endpoints))

    def export(self) -> dict[str, Any]:
        """The state, secrets encrypted."""
        state: dict[str, Any] = json.loads(self.engine.capture("stack", "export", "-s", STACK))
        return state

    def apps_in_state(self) -> dict[str, list[str]]:
        """Ids of the apps that state holds, per name of the resource; two while one replaces the other."""
        return _ids(self.export(), _APP)

    def tokens_in_state(self) -> dict[str, list[str]]:
        """Ids of the tokens that state holds, per name of the resource."""
        return _ids(self.export(), _TOKEN)

    def pending(self) -> list[str]:
        """Names of the resources of which state knows that something began with them, and not its end."""
        return _pending(self.export())

    def converged(self, resting: Collection[str] = ()) -> None:
        """Asserts that the cloud holds what state says, and state what the program says: nothing twice.

        Every app runs, but those whose endpoint is named in `resting`. Nothing is billed that state does not
        know, and a preview finds nothing to do.
        """
        state = self.export()
        assert _pending(state) == []
        apps = {name: _one(name, ids) for name, ids in _ids(state, _APP).items()}
        tokens = {name: _one(name, ids) for name, ids in _ids(state, _TOKEN).items()}
        assert sorted(apps) == sorted(self.endpoints)
        assert sorted(tokens) == sorted(f"{name}-token" for name in self.endpoints)
        assert sorted(self.sky.apps) == sorted(apps.values())
        assert sorted(self.sky.tokens) == sorted(tokens.values())
        awaited = {id_ for name, id_ in apps.items() if name not in resting}
        until(lambda: awaited <= self.sky.in_states("RUNNING"), "every app runs")
        known = tuple(apps.values())
        assert [id_ for id_ in self.sky.billed if not id_.startswith(known)] == []
        self.preview("--expect-no-changes")

    def running(self) -> list[processes.Process]:
        """Engines, providers and language hosts of this fleet that run now."""
        return processes.find(self.folder.root)


def _pending(state: Mapping[str, Any]) -> list[str]:
    return [
        operation["resource"]["urn"].rpartition("::")[2]
        for operation in state["deployment"].get("pending_operations") or ()
    ]


def _ids(state: Mapping[str, Any], type_: str) -> dict[str, list[str]]:
    ids: dict[str, list[str]] = {}
    for resource in state["deployment"].get("resources") or ():
        if resource["type"] == type_:
            ids.setdefault(resource["urn"].rpartition("::")[2], []).append(resource["id"])
    return ids


def _one(name: str, ids: list[str]) -> str:
    assert len(ids) == 1, f"{name} is in state as {ids}"
    return ids[0]


@contextmanager
def fleets(
    toolchain: Toolchain, directory: Path, *, pace: int = 1, checkpoints: bool = True, **settings: Any
) -> Iterator[Fleet]:
    """A fleet without endpoints yet, in a folder of its own; `settings` are those of the cloud.

    The project's quota of GPUs is no obstacle unless `gpu_quota` is given. `pace` is how many seconds of
    waiting pass for the providers in one. Without `checkpoints` the engine writes its state when it ends, not
    after each step, which for many endpoints takes most of its time. Whatever the engine has left running is
    ended afterwards.
    """
    folder = Folder(directory / "fleet")
    settings = {"speed": SPEED, "delays": DELAYS, "gpu_quota": 1000, **settings}
    with clouds(directory / "cloud", **settings) as sky:
        folder.project.mkdir(parents=True)
        folder.state.mkdir()
        project = {"name": "ovh-vllm", "runtime": {"name": "python", "options": {"virtualenv": sys.prefix}}}
        (folder.project / "Pulumi.yaml").write_text(yaml.safe_dump(project))
        (folder.project / "__main__.py").write_text(_PROGRAM)
        environment = _environment(toolchain, folder, sky)
        if pace != 1:
            (folder.root / "clock").mkdir()
            (folder.root / "clock" / "sitecustomize.py").write_text(_FASTER.format(pace=pace))
            environment["PYTHONPATH"] += f"{os.pathsep}{folder.root / 'clock'}"
        if not checkpoints:
            environment |= {"PULUMI_EXPERIMENTAL": "true", "PULUMI_SKIP_CHECKPOINTS": "true"}
        fleet = Fleet(sky, folder, Engine(toolchain.pulumi, environment))
        fleet.engine.capture("stack", "init", STACK)
        try:
            yield fleet
        finally:
            processes.terminate(folder.root)


def _environment(toolchain: Toolchain, folder: Folder, sky: Sky) -> dict[str, str]:
    path = [Path(sys.executable).parent, *toolchain.directories]
    return {
        **processes.mark(folder.root),
        "PATH": os.pathsep.join([*map(str, path), os.environ["PATH"]]),
        "PYTHONPATH": str(CHECKOUT),
        "PULUMI_PYTHON_CMD": sys.executable,
        "PULUMI_HOME": str(folder.pulumi_home),
        # Killed while it writes metadata beside the state, an engine leaves a stack that no command reads.
        "PULUMI_BACKEND_URL": f"{folder.state.as_uri()}?metadata=skip",
        "PULUMI_CONFIG_PASSPHRASE": "passphrase",
        "PULUMI_OPTION_CWD": str(folder.project),
        "PULUMI_SKIP_UPDATE_CHECK": "true",
        "PULUMI_DISABLE_AUTOMATIC_PLUGIN_ACQUISITION": "true",
        "OVH_ENDPOINT": sky.url,
        "OVH_APPLICATION_KEY": CREDENTIALS.application_key,
        "OVH_APPLICATION_SECRET": CREDENTIALS.application_secret,
        "OVH_CONSUMER_KEY": CREDENTIALS.consumer_key,
        "OVH_CLOUD_PROJECT_SERVICE": PROJECT,
        "no_proxy": "127.0.0.1,localhost",
        "NO_PROXY": "127.0.0.1,localhost",
        "HF_TOKEN": CANARY,
        "FLEET": str(folder.root / "endpoints.json"),
    }

"""Whatever happened before, ending a sandbox leaves no process, and no other sandbox is touched."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import httpx

from components.ai_deploy.client import OvhClient
from components.ai_deploy.credentials import find_credentials
from sandbox import processes
from sandbox.engine import Engine
from sandbox.project import Folder
from sandbox.sandbox import Sandbox
from sandbox.toolchain import Toolchain
from tests.engine.command_lines import command_lines
from tests.engine.conftest import Deployment, at_speed
from tests.waiting import until


def programs(folder: Folder) -> list[str]:
    """The command lines of a sandbox's processes."""
    return [" ".join(process.command) for process in processes.find(folder.root)]


def test_a_killed_engine_leaves_nothing_that_down_does_not_end(
    toolchain: Toolchain, tmp_path: Path, deployment: Deployment
) -> None:
    sandbox = Sandbox(Folder(tmp_path / "killed"))
    # Slow enough for the engine to be killed while the cluster and the app are being made.
    sandbox.start(at_speed(20, sandbox.folder.root))
    engine = sandbox.engine(toolchain)
    update = subprocess.Popen(
        [toolchain.pulumi, "up", "-s", "sandbox", "--yes", "--skip-preview"],
        env={**os.environ, **engine.environment},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    until(
        lambda: any(
            "pulumi-resource-ovh" in line or "sandbox.plugins.ovh" in line
            for line in programs(sandbox.folder)
        ),
        "plugin of ovh",
    )
    until(lambda: any(thing["kind"] == "ai-app" for thing in sandbox.resources()), "an app")
    update.send_signal(signal.SIGKILL)
    update.wait()
    others = programs(deployment.sandbox.folder)
    locks = sandbox.folder.state / ".pulumi" / "locks"
    assert list(locks.rglob("*.json")) != []
    sandbox.engine(toolchain)
    assert list(locks.rglob("*.json")) == []

    # Plugins of the dead engine end, the local cloud goes on.
    sandbox.interrupt()
    assert not any(
        "plugins" in line or "pulumi" in Path(line.split()[0]).name for line in programs(sandbox.folder)
    )
    assert sandbox.runs

    assert sandbox.remove() > 0
    assert programs(sandbox.folder) == []
    assert not sandbox.folder.root.exists()
    assert programs(deployment.sandbox.folder) == others
    assert deployment.sandbox.runs


def test_down_ends_the_children_of_a_killed_cloud(toolchain: Toolchain, tmp_path: Path) -> None:
    sandbox = Sandbox(Folder(tmp_path / "crashed"))
    sandbox.start(at_speed(1000, sandbox.folder.root))
    engine = sandbox.engine(toolchain)
    engine.capture("up", "-s", "dev", "--yes", "--skip-preview", "--continue-on-error")
    cloud = next(p for p in processes.find(sandbox.folder.root) if "sandbox.server" in p.command)
    os.kill(cloud.id, signal.SIGKILL)
    until(lambda: not sandbox.runs, "the cloud has ended")
    assert any("prometheus" in line for line in programs(sandbox.folder))

    # Starting again sweeps up what the crash left, and the engine finds an empty cloud and an empty state.
    sandbox.start(at_speed(1000, sandbox.folder.root))
    assert not any("--config.file" in line for line in programs(sandbox.folder))
    assert sandbox.engine(toolchain).stacks()["dev"] == 0
    sandbox.remove()
    assert programs(sandbox.folder) == []
    assert mentioning(sandbox.folder) == []


def mentioning(folder: Folder) -> list[str]:
    """Command lines with the path of the folder, whether or not the sandbox takes the process for its own."""
    return [line for line in command_lines() if str(folder.root) in line]


def test_a_cluster_deleted_first_leaves_what_it_caused_behind(toolchain: Toolchain, tmp_path: Path) -> None:
    sandbox = Sandbox(Folder(tmp_path / "reversed"))
    sandbox.start(at_speed(1000, sandbox.folder.root))
    try:
        engine = sandbox.engine(toolchain)
        engine.capture("up", "-s", "sandbox", "--yes", "--skip-preview", "--continue-on-error")
        client = OvhClient(find_credentials({}, engine.environment))
        cluster = engine.outputs("sandbox")["cluster_id"]
        client.request("DELETE", f"/cloud/project/{sandbox.connection.service_name}/kube/{cluster}")
        until(
            lambda: "cluster" not in [thing["kind"] for thing in sandbox.resources()], "the cluster is gone"
        )
        left = [thing["kind"] for thing in sandbox.resources()]
        assert left.count("volume") == 3
        assert {"load-balancer", "gateway", "floating-ip"} <= set(left)
    finally:
        sandbox.remove()


def test_two_sandboxes_run_side_by_side(deployment: Deployment, toolchain: Toolchain, tmp_path: Path) -> None:
    sandbox = Sandbox(Folder(tmp_path / "second"))
    sandbox.start(at_speed(1000, sandbox.folder.root))
    try:
        assert sandbox.connection.api != deployment.sandbox.connection.api
        assert sandbox.resources() == []
        assert deployment.sandbox.resources() != []
        engine: Engine = sandbox.engine(toolchain)
        assert set(engine.stacks()) == {"sandbox", "dev", "prod"}
    finally:
        sandbox.remove()
    assert httpx.get(f"{deployment.sandbox.connection.api}/sandbox/resources").status_code == 200

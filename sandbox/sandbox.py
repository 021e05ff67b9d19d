"""One sandbox: its local cloud, and the Pulumi engine set up to deploy to it."""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

import httpx

from sandbox import processes, project
from sandbox.connection import Addresses, Connection
from sandbox.engine import Engine
from sandbox.files import write_private
from sandbox.plugin_scripts import install_plugins
from sandbox.project import Folder
from sandbox.settings import defaults, read
from sandbox.toolchain import Toolchain
from sandbox.toolchain.tools import PULUMI, TOOLS

PLUGINS = {"ovh": "2.22.0", "kubernetes": "4.34.2", "openstack": "5.5.3"}
"""Stand-in plugins, with the versions of the SDKs that ask for them."""

_START_SECONDS = 60.0
_CHILDREN = frozenset(name for tool in TOOLS if tool is not PULUMI for name in tool.binaries)
"""Programs that the local cloud starts."""


class Sandbox:
    """The sandbox in a folder, whether it runs or not."""

    def __init__(self, folder: Folder) -> None:
        self.folder = folder
        self._cloud = processes.Daemon("the local cloud", folder.root / "cloud.lock", folder.log)

    @property
    def runs(self) -> bool:
        """Whether the local cloud answers, or will as soon as it has started."""
        return self._cloud.running()

    @property
    def connection(self) -> Connection:
        """How to reach the local cloud, which must run."""
        return Connection.read(self.folder.connection)

    def start(self, settings: Path | None = None) -> None:
        """Starts the local cloud and waits until it listens; `settings` is a file of `sandbox.settings`.

        What an earlier cloud left goes away: its state describes objects that ended with it.
        """
        content = None if settings is None else settings.read_bytes()
        self.remove()
        environment = {**os.environ, **processes.mark(self.folder.root)}
        command = [sys.executable, "-m", "sandbox.server", str(self.folder.root)]
        if content is not None:
            write_private(self.folder.settings, content)
            command += ["--settings", str(self.folder.settings.resolve())]
        self._cloud.start(command, environment, project.CHECKOUT)
        self.wait()

    def check(self, settings: Path) -> None:
        """Raises what is wrong with starting the local cloud with this file, or with going on with it.

        SandboxSettingsError tells mistakes in the file, ProcessError that the cloud runs with other settings.
        """
        base = defaults()
        wanted, kept = read(settings, base), self.folder.settings
        if self.runs and wanted != (read(kept, base) if kept.exists() else base):
            raise processes.ProcessError(
                f"the local cloud runs already, with other settings than those of {settings}: "
                "`make sandbox-down` first"
            )

    def wait(self) -> None:
        """Waits until the local cloud, which has been started, listens; raises ProcessError."""
        self._cloud.wait_until(self.folder.connection.exists, _START_SECONDS)

    def commands(self) -> list[processes.Process]:
        """Other `make sandbox` and `make sandbox-down` at work on this sandbox."""
        return [process for process in processes.find(self.folder.root) if _is_command(process)]

    def interrupt(self) -> None:
        """Ends other commands, engines and their plugins, whoever started them; the local cloud stays."""
        processes.terminate(self.folder.root, choice=lambda process: not _is_cloud(process))

    def remove(self) -> int:
        """Ends every process of the sandbox and removes its folder; returns how many there were."""
        ended = processes.terminate(self.folder.root)
        if self.folder.root.exists():
            shutil.rmtree(self.folder.root)
        return len(ended)

    def engine(self, toolchain: Toolchain) -> Engine:
        """Writes project, plugins and `env` as they should be now, and makes sure that the stacks exist."""
        folder = self.folder
        project.sync(folder)
        project.write_wrapper(folder, toolchain.pulumi)
        install_plugins(folder.pulumi_home, PLUGINS)
        folder.state.mkdir(parents=True, exist_ok=True, mode=0o700)
        engine = Engine(folder.bin / "pulumi", self.write_environment(toolchain))
        self._release_locks()
        known = engine.stacks()
        for stack in project.STACKS:
            if stack not in known:
                # The first one stays selected: it is what a plain `pulumi preview` is about.
                engine.capture("stack", "init", stack, *(["--no-select"] if known else []))
                known[stack] = 0
        return engine

    def write_environment(self, toolchain: Toolchain) -> dict[str, str]:
        """Writes `env` with the addresses that are known now; returns what it makes of this environment."""
        path = [self.folder.bin, Path(sys.executable).parent, *toolchain.directories]
        variables = self._variables()
        project.write_environment(self.folder, variables, path)
        return variables | {"PATH": os.pathsep.join([*map(str, path), os.environ["PATH"]])}

    def _release_locks(self) -> None:
        """Removes the locks of engines that were killed; Pulumi would wait for them for ever."""
        running = {process.id for process in processes.find(self.folder.root)}
        for lock in (self.folder.state / ".pulumi" / "locks").rglob("*.json"):
            try:
                owner = json.loads(lock.read_text())["pid"]
            except ValueError:
                owner = None  # killed while it wrote the lock
            if owner not in running:
                lock.unlink()

    def addresses(self) -> list[Addresses]:
        """Where the API and, per cluster whose monitoring runs, Prometheus and Alertmanager listen."""
        return [
            Addresses(self.connection.api, links["prometheus"], links["alertmanager"])
            for links in self._monitoring().values()
        ]

    def dashboards(self) -> list[dict[str, str]]:
        """What is provisioned for Grafana (JSON by name), in the order of `addresses`.

        Those of the chart are left out: in the sandbox they are titles without panels.
        """
        texts = self._get("dashboards")
        return [
            {name: text for name, text in texts[cluster].items() if json.loads(text).get("panels")}
            for cluster in self._monitoring()
        ]

    def resources(self) -> list[dict[str, Any]]:
        """What exists in the local cloud: kind, id, name, eurPerHour (None: unknown), detail."""
        resources: list[dict[str, Any]] = self._get("resources")
        return resources

    def _monitoring(self) -> dict[str, dict[str, str]]:
        """Cluster id to the addresses there, of clusters whose monitoring runs."""
        links: dict[str, dict[str, str]] = self._get("monitoring")
        return {
            cluster: found
            for cluster, found in links.items()
            if found.keys() >= {"prometheus", "alertmanager"}
        }

    def _get(self, what: str) -> Any:
        url = f"{self.connection.api}/sandbox/{what}"
        return httpx.get(url, trust_env=False).raise_for_status().json()

    def _variables(self) -> dict[str, str]:
        connection = self.connection
        # The sandbox is not behind the user's proxy.
        known = os.environ.get("no_proxy") or os.environ.get("NO_PROXY") or ""
        direct = ",".join(dict.fromkeys([*filter(None, known.split(",")), "127.0.0.1", "localhost"]))
        variables = {
            **processes.mark(self.folder.root),
            "PULUMI_PYTHON_CMD": sys.executable,
            "PULUMI_HOME": str(self.folder.pulumi_home),
            # Without the file of attributes beside each state, which a kill leaves empty and unreadable.
            "PULUMI_BACKEND_URL": f"{self.folder.state.as_uri()}?metadata=skip",
            "PULUMI_CONFIG_PASSPHRASE": connection.passphrase,
            "PULUMI_OPTION_CWD": str(self.folder.project),
            "PULUMI_SKIP_UPDATE_CHECK": "true",
            "PULUMI_DISABLE_AUTOMATIC_PLUGIN_ACQUISITION": "true",
            "OVH_ENDPOINT": f"{connection.api}/1.0",
            "OVH_APPLICATION_KEY": connection.application_key,
            "OVH_APPLICATION_SECRET": connection.application_secret,
            "OVH_CONSUMER_KEY": connection.consumer_key,
            "OVH_CLOUD_PROJECT_SERVICE": connection.service_name,
            "OVH_AI_URL": connection.ai_api,
            "SSL_CERT_FILE": connection.ca_bundle,
            "REQUESTS_CA_BUNDLE": connection.ca_bundle,
            "CURL_CA_BUNDLE": connection.ca_bundle,
            "no_proxy": direct,
            "NO_PROXY": direct,
            "SANDBOX_API_URL": connection.api,
        }
        for addresses in self.addresses()[:1]:
            variables["SANDBOX_PROMETHEUS_URL"] = addresses.prometheus
            variables["SANDBOX_ALERTMANAGER_URL"] = addresses.alertmanager
        return variables


def _is_command(process: processes.Process) -> bool:
    return process.command[1:4] in (("-m", "sandbox", "up"), ("-m", "sandbox", "down"))


def _is_cloud(process: processes.Process) -> bool:
    """Whether it is the local cloud or a child of it."""
    return "sandbox.server" in process.command or Path(process.command[0]).name in _CHILDREN

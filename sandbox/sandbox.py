"""One sandbox: its local cloud, and the Pulumi engine set up to deploy to it."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from typing import Any

import httpx

from sandbox import processes, project
from sandbox.connection import Connection
from sandbox.engine import Engine
from sandbox.project import Folder
from sandbox.smoke import Addresses
from sandbox.toolchain import Toolchain, install_plugins

PLUGINS = {"ovh": "2.22.0", "kubernetes": "4.34.2", "openstack": "5.5.3"}
"""Stand-in plugins, with the versions of the SDKs that ask for them."""

_START_SECONDS = 60.0


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
        self.remove()
        environment = {**os.environ, **processes.mark(self.folder.root)}
        command = [sys.executable, "-m", "sandbox.server", str(self.folder.root)]
        if settings is not None:
            command += ["--settings", str(settings.resolve())]
        self._cloud.start(command, environment, project.CHECKOUT)
        self._cloud.wait_until(self.folder.connection.exists, _START_SECONDS)

    def remove(self) -> int:
        """Ends every process of the sandbox and removes its folder; returns how many there were."""
        ended = processes.terminate(self.folder.root)
        if self.folder.root.exists():
            shutil.rmtree(self.folder.root)
        return len(ended)

    def engine(self, toolchain: Toolchain) -> Engine:
        """Writes project, plugins and `env` as they should be now, and makes sure that the stacks exist."""
        folder, python = self.folder, Path(sys.executable)
        project.sync(folder)
        project.write_wrapper(folder, toolchain.pulumi, python)
        install_plugins(folder.pulumi_home, PLUGINS)
        folder.state.mkdir(parents=True, exist_ok=True, mode=0o700)
        path = [folder.bin, python.parent, *toolchain.directories]
        variables = self._variables(python)
        project.write_environment(folder, variables, path)
        search = os.pathsep.join([*map(str, path), os.environ["PATH"]])
        engine = Engine(folder.bin / "pulumi", variables | {"PATH": search})
        known = engine.stacks()
        for stack in project.STACKS:
            if stack not in known:
                engine.capture("stack", "init", stack)
        return engine

    def addresses(self) -> list[Addresses]:
        """Where the API and, per cluster whose monitoring runs, Prometheus and Alertmanager listen."""
        return [
            Addresses(self.connection.api, links["prometheus"], links["alertmanager"])
            for links in self._get("monitoring").values()
            if links.keys() >= {"prometheus", "alertmanager"}
        ]

    def resources(self) -> list[dict[str, Any]]:
        """What exists in the local cloud: kind, id, name, eurPerHour (None: unknown), detail."""
        resources: list[dict[str, Any]] = self._get("resources")
        return resources

    def _get(self, what: str) -> Any:
        return httpx.get(f"{self.connection.api}/sandbox/{what}").raise_for_status().json()

    def _variables(self, python: Path) -> dict[str, str]:
        connection = self.connection
        variables = {
            **processes.mark(self.folder.root),
            "PULUMI_PYTHON_CMD": str(python),
            "PULUMI_HOME": str(self.folder.pulumi_home),
            "PULUMI_BACKEND_URL": self.folder.state.as_uri(),
            "PULUMI_CONFIG_PASSPHRASE": connection.passphrase,
            "PULUMI_OPTION_CWD": str(self.folder.project),
            "PULUMI_SKIP_UPDATE_CHECK": "true",
            "PULUMI_DISABLE_AUTOMATIC_PLUGIN_ACQUISITION": "true",
            "OVH_ENDPOINT": f"{connection.api}/1.0",
            "OVH_APPLICATION_KEY": connection.application_key,
            "OVH_APPLICATION_SECRET": connection.application_secret,
            "OVH_CONSUMER_KEY": connection.consumer_key,
            "OVH_CLOUD_PROJECT_SERVICE": connection.service_name,
            "SSL_CERT_FILE": connection.ca_bundle,
            "REQUESTS_CA_BUNDLE": connection.ca_bundle,
            "CURL_CA_BUNDLE": connection.ca_bundle,
            "SANDBOX_API_URL": connection.api,
        }
        for addresses in self.addresses()[:1]:
            variables["SANDBOX_PROMETHEUS_URL"] = addresses.prometheus
            variables["SANDBOX_ALERTMANAGER_URL"] = addresses.alertmanager
        return variables

"""The local cloud: API emulator, gateway, replicas and clusters in one process, on one event loop.

`python -m sandbox.server` listens until it gets SIGTERM; once it listens it writes how to reach it.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import secrets
import signal
import ssl
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from aiohttp import web

from sandbox import processes
from sandbox.clock import Clock
from sandbox.cloud.cloud import Cloud
from sandbox.cluster.cluster import KubeCluster
from sandbox.cluster.controllers.grafana_page import provisioned
from sandbox.cluster.monitoring import Binaries, Monitoring
from sandbox.cluster.programs import Program, Programs
from sandbox.cluster.storage import Controller, ObjectStore
from sandbox.connection import Connection
from sandbox.files import write_private
from sandbox.inference.gateway import Gateway
from sandbox.inference.replica import VllmReplicas
from sandbox.interfaces import Cluster, ClusterFactory, Infrastructure
from sandbox.project import Folder
from sandbox.servers import listen
from sandbox.settings import SandboxSettings, SandboxSettingsError, defaults, read
from sandbox.tls import Authority, server_context
from sandbox.toolchain import ensure

_SYSTEM_BUNDLES = (
    Path("/etc/ssl/certs/ca-certificates.crt"),
    Path("/etc/pki/tls/certs/ca-bundle.crt"),
    Path("/etc/ssl/ca-bundle.pem"),
    Path("/etc/ssl/cert.pem"),
)
"""Where distributions keep the certificate authorities; a Python of another origin may not know."""


class Clusters:
    """Makes the Kubernetes clusters, each with its own authority and monitoring."""

    def __init__(
        self,
        settings: SandboxSettings,
        clock: Clock,
        binaries: Binaries,
        programs: Mapping[str, Program],
        environment: Mapping[str, str],
    ) -> None:
        self._settings = settings
        self._clock = clock
        self._binaries = binaries
        self._images = programs
        self._environment = environment
        self._monitoring: dict[str, Monitoring] = {}
        self._stores: dict[str, ObjectStore] = {}

    def factory(self, infrastructure: Infrastructure) -> ClusterFactory:
        """The factory of clusters that cause `infrastructure`."""

        def make(cluster_id: str, name: str, version: str, directory: Path) -> Cluster:
            return KubeCluster(
                cluster_id,
                name,
                version,
                directory,
                clock=self._clock,
                infrastructure=infrastructure,
                authority=Authority(f"cluster {cluster_id}"),
                settings=replace(
                    self._settings.cluster,
                    programs=self._programs,
                    controllers=self._operator,
                    links=self.links,
                ),
            )

        return make

    def links(self, cluster_id: str) -> dict[str, str]:
        """Addresses of the real Prometheus and Alertmanager of a cluster, as far as they run."""
        monitoring = self._monitoring.get(cluster_id)
        if monitoring is None:
            return {}
        urls = {"prometheus": monitoring.prometheus_url, "alertmanager": monitoring.alertmanager_url}
        return {name: url for name, url in urls.items() if url is not None}

    async def monitoring(self, _request: web.Request) -> web.Response:
        """`GET /sandbox/monitoring`: cluster id to the addresses of its Prometheus and Alertmanager."""
        return web.json_response({cluster: self.links(cluster) for cluster in self._monitoring})

    async def dashboards(self, _request: web.Request) -> web.Response:
        """`GET /sandbox/dashboards`: cluster id to the dashboards provisioned there, JSON by name."""
        return web.json_response(
            {cluster: provisioned(self._stores[cluster]) for cluster in self._monitoring}
        )

    def _programs(self, cluster: KubeCluster) -> Programs:
        return Programs(
            cluster.directory / "programs",
            self._images,
            self._clock,
            self._environment,
            mount_delay_seconds=self._settings.secret_delay_seconds,
        )

    def _operator(self, cluster: KubeCluster) -> list[Controller]:
        programs = cluster.programs
        monitoring = Monitoring(
            cluster.directory,
            self._binaries,
            self._clock,
            self._environment,
            pods=lambda: programs.pods if programs else (),
            config_delay_seconds=self._settings.config_delay_seconds,
            secret_delay_seconds=self._settings.secret_delay_seconds,
        )
        self._monitoring[cluster.id] = monitoring
        self._stores[cluster.id] = cluster.store
        return [monitoring]


async def serve(folder: Folder, settings: SandboxSettings) -> None:
    """Runs the local cloud until SIGTERM or SIGINT."""
    clock, authority = Clock(settings.speed), Authority()
    bundle = _write_bundle(folder.root, authority)
    toolchain = ensure(logging.getLogger(__name__).info)
    clusters = Clusters(
        settings,
        clock,
        Binaries(toolchain.prometheus, toolchain.promtool, toolchain.alertmanager),
        {"json-exporter": Program(toolchain.json_exporter, port=7979)},
        {"PATH": os.defpath, "SSL_CERT_FILE": str(bundle), **processes.mark(folder.root)},
    )
    cloud = Cloud(
        settings.cloud,
        clock,
        replicas=VllmReplicas(clock, settings.replicas),
        clusters=clusters.factory,
        directory=folder.root,
    )
    application = cloud.application()
    application.router.add_get("/sandbox/monitoring", clusters.monitoring)
    application.router.add_get("/sandbox/dashboards", clusters.dashboards)
    application.router.add_get("/sandbox/login", _login)
    server, api = await listen(application)
    certificate = server_context(authority.server(["127.0.0.1", "localhost"]), folder.root / "tls")
    ai_server, ai_api = await listen(cloud.native_ai(), certificate)
    login = f"{api}/sandbox/login"
    gateway = Gateway(cloud.apps, authority, folder.root / "tls", login, settings.balancing)
    cloud.connect(gateway)
    credentials = settings.cloud.credentials
    Connection(
        api=api,
        ai_api=ai_api,
        service_name=settings.cloud.project,
        application_key=credentials.application_key,
        application_secret=credentials.application_secret,
        consumer_key=credentials.consumer_key,
        passphrase=secrets.token_hex(16),
        ca_bundle=str(bundle),
    ).write(folder.connection)

    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    await stopped.wait()
    await ai_server.cleanup()
    await server.cleanup()
    await gateway.stop()


async def _login(request: web.Request) -> web.Response:
    app = request.query.get("redirect", "the app")
    return web.Response(text=f"Here OVHcloud would ask you to log in before it leads you to {app}.\n")


def _write_bundle(directory: Path, authority: Authority) -> Path:
    """The system's certificate authorities and the sandbox's own in one file, as SSL_CERT_FILE takes it."""
    default = ssl.get_default_verify_paths().cafile  # SSL_CERT_FILE, else where this Python looks
    candidates = [Path(default)] if default else []
    system = next((file for file in [*candidates, *_SYSTEM_BUNDLES] if file.exists()), None)
    known = system.read_text() if system else ""
    path = directory / "ca-bundle.pem"
    write_private(path, f"{known}\n{authority.certificate.decode()}")
    return path


def main() -> None:
    """Parses the command line and serves."""
    parser = argparse.ArgumentParser(prog="python -m sandbox.server", description=__doc__)
    parser.add_argument("folder", type=Path, help="where the sandbox keeps its files")
    parser.add_argument("--settings", type=Path, help="TOML file, see sandbox.settings")
    arguments = parser.parse_args()
    settings = defaults()
    if arguments.settings is not None:
        try:
            settings = read(arguments.settings, settings)
        except SandboxSettingsError as error:
            sys.exit(str(error))
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(levelname)s %(message)s")
    asyncio.run(serve(Folder(arguments.folder), settings))


if __name__ == "__main__":
    main()

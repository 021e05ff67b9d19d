"""The real json_exporter as a container of a cluster: its files, its pod, and Prometheus that asks it."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from sandbox.cluster.chart import render
from sandbox.cluster.cluster import ClusterSettings, KubeCluster
from sandbox.cluster.controllers.workloads import is_ready
from sandbox.cluster.monitoring import Binaries, Monitoring
from sandbox.cluster.programs import Program, Programs
from sandbox.servers import listen
from sandbox.tls import Authority, server_context
from sandbox.toolchain.chain import installed
from sandbox.toolchain.progress import UnavailableError
from sandbox.toolchain.tools import JSON_EXPORTER
from tests.sandbox_cluster import test_monitoring
from tests.sandbox_cluster.clusters import Object, eventually, running, thing, workload

binaries = test_monitoring.binaries

IMAGE = "quay.io/prometheuscommunity/json-exporter:v0.7.0"
MODULE: Object = {
    "http_client_config": {
        "authorization": {"type": "Bearer", "credentials_file": "/etc/exporter/token/token"},
        "follow_redirects": False,
    },
    "valid_status_codes": [200, 401],
    "metrics": [
        {
            "name": "ai_deploy_app",
            "type": "object",
            "path": "{.status}",
            "valuetype": "gauge",
            "values": {"available_replicas": "{.availableReplicas}"},
        },
        {
            "name": "ai_deploy_app",
            "type": "object",
            "path": "{.status}",
            "valuetype": "gauge",
            "labels": {"state": "{.state}"},
            "values": {"state": "1"},
        },
    ],
}


@pytest.fixture(scope="module")
def json_exporter() -> Program:
    """The program as this machine has it."""
    try:
        return Program(installed(JSON_EXPORTER).binaries["json_exporter"], port=7979)
    except UnavailableError as error:
        pytest.skip(f"json_exporter is not there yet (make sandbox gets it): {error}")


def config_map(name: str = "exporter", config: Object | None = None) -> Object:
    text = json.dumps({"modules": {"app": MODULE}} if config is None else config)
    return thing("ConfigMap", name, "monitoring", data={"config.yml": text})


def secret(token: str) -> Object:
    return thing("Secret", "token", "monitoring", data={"token": base64.b64encode(token.encode()).decode()})


def deployment(**container: Any) -> Object:
    mounts = [
        {"name": "config", "mountPath": "/etc/exporter/config", "readOnly": True},
        {"name": "token", "mountPath": "/etc/exporter/token", "readOnly": True},
    ]
    item = workload(
        "Deployment",
        "exporter",
        {
            "containers": [
                {
                    "name": "exporter",
                    "image": IMAGE,
                    "args": ["--config.file=/etc/exporter/config/config.yml"],
                    "ports": [{"name": "http", "containerPort": 7979}],
                    "volumeMounts": mounts,
                    **container,
                }
            ],
            "volumes": [
                {"name": "config", "configMap": {"name": "exporter"}},
                {"name": "token", "secret": {"secretName": "token"}},
            ],
        },
    )
    item["metadata"]["namespace"] = "monitoring"
    return item


def service() -> Object:
    ports = [{"name": "http", "port": 80, "targetPort": "http"}]
    spec = {"selector": {"app": "exporter"}, "ports": ports}
    return thing("Service", "exporter", "monitoring", spec=spec)


@dataclass
class Api:
    """A platform's API over HTTPS: says who asked, and answers an app to those with the right token."""

    token: str
    url: str = ""
    seen: list[str] = field(default_factory=list)

    async def app(self, request: web.Request) -> web.Response:
        token = request.headers.get("Authorization", "").removeprefix("Bearer ")
        self.seen.append(token)
        if token != self.token:
            return web.json_response({"message": "no"}, status=401)
        return web.json_response({"id": "1", "status": {"availableReplicas": 3, "state": "RUNNING"}})


@asynccontextmanager
async def api(authority: Authority, directory: Path, token: str) -> AsyncIterator[Api]:
    served = Api(token)
    application = web.Application()
    application.router.add_get("/v1/app/1", served.app)
    context = server_context(authority.server(["127.0.0.1"]), directory)
    runner, url = await listen(application, context)
    served.url = f"{url}/v1/app/1"
    try:
        yield served
    finally:
        await runner.cleanup()


@dataclass
class Scene:
    """A cluster in which json_exporter can run, and an API that it is to ask."""

    cluster: KubeCluster
    api: Api
    client: aiohttp.ClientSession
    monitoring: list[Monitoring]

    @property
    def programs(self) -> Programs:
        assert self.cluster.programs is not None
        return self.cluster.programs

    def deploy(self, *items: Object) -> None:
        for item in items or (config_map(), secret("first"), deployment(), service()):
            self.cluster.store.create(item, "test")

    async def address(self) -> str:
        """Where the exporter really serves, once it does."""
        (pod,) = await eventually(self.cluster, lambda: self.programs.pods, "a pod that serves")
        return str(pod.ports[7979])

    async def probe(self, module: str = "app") -> tuple[int, str]:
        """What the exporter makes of the API's answer."""
        url = f"http://{await self.address()}/probe"
        async with self.client.get(url, params={"module": module, "target": self.api.url}) as answer:
            return answer.status, await answer.text()

    async def query(self, expression: str) -> list[Any]:
        """Result of an instant query; nothing while Prometheus does not answer."""
        found: list[Any] = []
        with contextlib.suppress(aiohttp.ClientError):
            url = f"{self.monitoring[0].prometheus_url}/api/v1/query"
            async with self.client.get(url, params={"query": expression}) as answer:
                found = (await answer.json())["data"]["result"]
        return found

    def pod(self) -> Object:
        (pod,) = self.cluster.store.list("Pod", "monitoring")
        return pod

    def available(self) -> int:
        """Replicas of the Deployment that are available."""
        item = self.cluster.store.get("Deployment", "monitoring", "exporter")
        return int((item or {"status": {}})["status"].get("availableReplicas", 0))

    def events(self) -> str:
        return "\n".join(event["message"] for event in self.cluster.store.list("Event", "monitoring"))


def pid_of(address: str) -> int:
    """Id of the process that listens at an address."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                if f"={address}".encode() in (entry / "cmdline").read_bytes():
                    return int(entry.name)
    raise AssertionError(address)


@asynccontextmanager
async def scene(
    directory: Path, json_exporter: Program, binaries: Binaries | None = None
) -> AsyncIterator[Scene]:
    """With `binaries` Prometheus and Alertmanager can run, too."""
    authority = Authority()
    bundle = directory / "ca.pem"
    bundle.write_bytes(authority.certificate)

    def programs(cluster: KubeCluster) -> Programs:
        environment = {"SSL_CERT_FILE": str(bundle)}
        known = {"json-exporter": json_exporter}
        return Programs(directory / "programs", known, cluster.clock, environment, mount_delay_seconds=300)

    running_monitoring: list[Monitoring] = []

    def controllers(cluster: KubeCluster) -> list[Monitoring]:
        served = cluster.programs
        if binaries is not None and served is not None:
            made = Monitoring(directory / "run", binaries, cluster.clock, {}, pods=lambda: served.pods)
            running_monitoring.append(made)
        return running_monitoring

    settings = ClusterSettings(programs=programs, controllers=controllers)
    async with (
        running(directory / "cluster", settings=settings) as cluster,
        api(authority, directory, "first") as served,
        aiohttp.ClientSession() as client,
    ):
        cluster.store.create(thing("Namespace", "monitoring", None), "test")
        yield Scene(cluster, served, client, running_monitoring)


async def test_a_container_of_the_image_really_runs_with_its_mounted_files(
    tmp_path: Path, json_exporter: Program
) -> None:
    async with scene(tmp_path, json_exporter) as world:
        world.deploy()
        status, text = await world.probe()
        assert (status, world.api.seen) == (200, ["first"])
        lines = [line for line in text.splitlines() if not line.startswith("#")]
        assert lines == ["ai_deploy_app_available_replicas 3", 'ai_deploy_app_state{state="RUNNING"} 1']
        await eventually(world.cluster, lambda: world.available() == 1, "the Deployment is available")
        files = [path for path in (tmp_path / "programs").rglob("*") if path.is_file()]
        assert {path.stat().st_mode & 0o777 for path in files} == {0o600}
        assert [path.read_text() for path in files if path.name == "token"] == ["first"]


async def test_an_answer_without_the_app_leaves_the_metrics_out_and_an_unknown_module_is_refused(
    tmp_path: Path, json_exporter: Program
) -> None:
    async with scene(tmp_path, json_exporter) as world:
        world.deploy()
        world.api.token = "other"
        assert await world.probe() == (200, "")  # 401 is one of the valid codes
        world.api.url += "23"
        status, text = await world.probe()
        assert (status, "404 Not Found" in text) == (503, True)
        assert (await world.probe("nobody"))[0] == 400


async def test_a_changed_secret_reaches_the_process_after_the_kubelets_delay(
    tmp_path: Path, json_exporter: Program
) -> None:
    async with scene(tmp_path, json_exporter) as world:
        world.deploy()
        await world.probe()
        old = world.cluster.store.get("Secret", "monitoring", "token")
        assert old is not None
        changed_at = asyncio.get_running_loop().time()
        world.cluster.store.update({**old, "data": secret("second")["data"]}, "test")
        while "second" not in world.api.seen:
            await world.probe()
        assert asyncio.get_running_loop().time() - changed_at >= 300 / world.cluster.clock.speed
        world.cluster.store.delete("Secret", "monitoring", "token")
        world.api.seen.clear()
        await world.probe()
        assert world.api.seen == ["second"]  # what is mounted stays


async def test_a_configuration_that_the_program_refuses_keeps_the_deployment_from_being_available(
    tmp_path: Path, json_exporter: Program
) -> None:
    async with scene(tmp_path, json_exporter) as world:
        world.deploy(config_map(config={"modules": ["hunter2"]}), secret("first"), deployment(), service())
        await eventually(world.cluster, lambda: "Back-off restarting failed" in world.events(), "an event")
        (container,) = world.pod()["status"]["containerStatuses"]
        assert container["state"] == {"waiting": {"reason": "CrashLoopBackOff"}}
        assert container["restartCount"] >= 1
        assert (world.available(), world.programs.pods) == (0, [])


async def test_a_killed_process_makes_its_pod_unready_until_it_is_back(
    tmp_path: Path, json_exporter: Program
) -> None:
    async with scene(tmp_path, json_exporter) as world:
        world.deploy()
        before = await world.address()
        os.kill(pid_of(before), signal.SIGKILL)
        await eventually(world.cluster, lambda: "exporter: status -9" in world.events(), "an event")
        (container,) = world.pod()["status"]["containerStatuses"]
        assert (container["ready"], container["lastState"]["terminated"]["exitCode"]) == (False, 137)
        assert (is_ready(world.pod()), world.programs.pods) == (False, [])
        assert await world.address() == before
        await eventually(world.cluster, lambda: world.available() == 1, "available again")


@pytest.mark.parametrize(
    ("container", "volumes", "reason"),
    [
        ({"command": ["sh"]}, [], "container exporter with another command than its image's"),
        ({}, [{"name": "config", "hostPath": {"path": "/"}}], "volume config of type hostPath"),
        ({"readinessProbe": {"tcpSocket": {"port": 7979}}}, [], "readinessProbe of container exporter other"),
        (
            {"livenessProbe": {"httpGet": {"path": "/", "port": "metrics"}}},
            [],
            "livenessProbe of container exporter at port metrics, where its program is not",
        ),
    ],
)
async def test_what_the_sandbox_cannot_give_a_container_is_told_and_the_pod_is_never_ready(
    tmp_path: Path, json_exporter: Program, container: Object, volumes: list[Object], reason: str
) -> None:
    async with scene(tmp_path, json_exporter) as world:
        item = deployment(**container)
        spec = item["spec"]["template"]["spec"]
        spec["volumes"] = [*volumes, *spec["volumes"][len(volumes) :]]
        world.deploy(config_map(), secret("first"), item)
        await eventually(world.cluster, lambda: reason in world.events(), "an event")
        assert (world.available(), world.programs.pods) == (0, [])


PLAIN = {"httpGet": {"path": "/", "port": "http"}}


@pytest.mark.parametrize("kind", ["readinessProbe", "livenessProbe"])
async def test_a_probe_that_the_program_refuses_keeps_its_pod_and_no_other_from_being_ready(
    tmp_path: Path, json_exporter: Program, kind: str
) -> None:
    async with scene(tmp_path, json_exporter) as world:
        probes = {"readinessProbe": PLAIN, "livenessProbe": PLAIN}
        probes[kind] = {"httpGet": {"path": "/nothing", "port": "http"}}
        world.deploy(config_map(), secret("first"), deployment(**probes))
        expected = "Probe of /nothing failed: HTTP probe failed with statuscode: 404"
        await eventually(world.cluster, lambda: expected in world.events(), "an event")
        other = deployment(readinessProbe=PLAIN, livenessProbe=PLAIN)
        other["metadata"]["name"] = "other"
        world.deploy(other)
        (pod,) = await eventually(world.cluster, lambda: world.programs.pods, "the other pod serves")
        assert pod.name.startswith("other-")
        assert world.available() == 0


async def test_a_pod_that_runs_already_starts_nothing_until_what_it_mounts_is_there(
    tmp_path: Path, json_exporter: Program
) -> None:
    """As after a restart of the sandbox; a kubelet keeps its container in ContainerCreating."""
    async with scene(tmp_path, json_exporter) as world:

        def pod(name: str, *volumes: str) -> None:
            spec = deployment()["spec"]["template"]["spec"]
            for part, items in ((spec, "volumes"), (spec["containers"][0], "volumeMounts")):
                part[items] = [item for item in part[items] if item["name"] in volumes]
            world.deploy(thing("Pod", name, "monitoring", spec=spec))
            container = {"name": "exporter", "image": IMAGE, "imageID": "", "ready": False, "restartCount": 0}
            status = {"phase": "Running", "conditions": [], "containerStatuses": [container]}
            world.cluster.store.set_status("Pod", "monitoring", name, status, "test")

        world.deploy(config_map())
        pod("first", "config", "token")
        pod("second", "config")
        await world.address()
        assert [served.name for served in world.programs.pods] == ["second"]
        world.deploy(secret("first"))
        await eventually(world.cluster, lambda: len(world.programs.pods) == 2, "both serve")
        assert [path.read_text() for path in (tmp_path / "programs").rglob("token/token")] == ["first"]


async def test_a_deleted_deployment_ends_its_process(tmp_path: Path, json_exporter: Program) -> None:
    async with scene(tmp_path, json_exporter) as world:
        world.deploy()
        await world.address()
        world.cluster.store.delete("Deployment", "monitoring", "exporter")
        await eventually(world.cluster, lambda: not list((tmp_path / "programs").iterdir()), "no folder left")
        assert world.programs.pods == []


async def test_other_images_still_do_not_run(tmp_path: Path, json_exporter: Program) -> None:
    async with scene(tmp_path, json_exporter) as world:
        world.deploy(config_map(), secret("first"), deployment(image="example/json-exporter-2:v1"))
        await eventually(world.cluster, lambda: world.available() == 1, "available all the same")
        assert world.programs.pods == []


async def test_prometheus_reaches_it_by_the_name_of_its_service_while_it_runs(
    tmp_path: Path, json_exporter: Program, binaries: Binaries
) -> None:
    async with scene(tmp_path, json_exporter, binaries) as world:
        for item in render(test_monitoring.VALUES, "monitoring", "monitoring"):
            world.deploy(item)
        for name, address in (("named", "exporter.monitoring:80"), ("nobody", "empty.monitoring.svc:80")):
            config = test_monitoring.scrape_config(name, address)
            params = {"module": ["app"], "target": [world.api.url]}
            config["spec"] |= {"scheme": "HTTP", "metricsPath": "/probe", "params": params}
            world.deploy(config)
        nobody = {"selector": {"app": "nobody"}, "ports": [{"port": 80}]}
        world.deploy(thing("Service", "empty", "monitoring", spec=nobody))

        world.deploy()
        (sample,) = await test_monitoring.until(lambda: world.query("ai_deploy_app_available_replicas"))
        assert sample["value"][1] == "3"
        labels = sample["metric"]
        assert (labels["instance"], labels["job"]) == ("exporter.monitoring:80", "named")
        await test_monitoring.until(lambda: world.query('up{job="nobody"} == 0'))
        world.cluster.store.delete("Deployment", "monitoring", "exporter")
        await test_monitoring.until(lambda: world.query('up{job="named"} == 0'))

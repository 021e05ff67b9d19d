"""The real Prometheus and Alertmanager, run as the cluster's objects say."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import yaml
from aiohttp import web

from sandbox.clock import Clock
from sandbox.cluster.chart import render
from sandbox.cluster.monitoring import Binaries, Monitoring
from sandbox.cluster.storage import ObjectStore
from sandbox.servers import listen
from sandbox.tls import Authority, server_context
from sandbox.toolchain.chain import installed
from sandbox.toolchain.progress import UnavailableError
from sandbox.toolchain.tools import ALERTMANAGER, PROMETHEUS

MARKER = "SANDBOX_TEST_MARKER"
RESOURCE = ("Prometheus", "monitoring", "monitoring-prometheus")
VALUES: dict[str, Any] = {
    "nameOverride": "monitoring",
    "fullnameOverride": "monitoring",
    "grafana": {"enabled": False},
    "nodeExporter": {"enabled": False},
    "kubeStateMetrics": {"enabled": False},
    "kubernetesServiceMonitors": {"enabled": False},
    "alertmanager": {"config": {"route": {"group_wait": "100ms"}}},
    "prometheus": {
        "prometheusSpec": {
            "scrapeInterval": "500ms",
            "evaluationInterval": "500ms",
            "additionalArgs": [
                # Alerts are lost until the Alertmanager is discovered (5 s); the next try is a minute later.
                {"name": "rules.alert.resend-delay", "value": "500ms"},
                # Else new targets wait up to 5 s here, after as long in the discovery, which cannot be set.
                {"name": "scrape.discovery-reload-interval", "value": "100ms"},
            ],
            "scrapeConfigSelectorNilUsesHelmValues": False,
            "ruleSelectorNilUsesHelmValues": False,
        }
    },
}


@pytest.fixture(scope="module")
def binaries() -> Binaries:
    """The programs as this machine has them."""
    try:
        prometheus, alertmanager = installed(PROMETHEUS), installed(ALERTMANAGER)
    except UnavailableError as error:
        pytest.skip(f"Prometheus or Alertmanager is not there yet (make sandbox gets them): {error}")
    return Binaries(
        prometheus.binaries["prometheus"],
        prometheus.binaries["promtool"],
        alertmanager.binaries["alertmanager"],
    )


@dataclass
class Running:
    """A cluster with the stack installed, whose monitoring runs."""

    store: ObjectStore
    monitoring: Monitoring
    directory: Path
    client: aiohttp.ClientSession
    authority: Authority = field(default_factory=Authority)

    async def query(self, expression: str) -> list[Any]:
        """Result of an instant query; nothing while Prometheus does not answer."""
        try:
            async with self.client.get(
                f"{self.monitoring.prometheus_url}/api/v1/query", params={"query": expression}
            ) as answer:
                found: list[Any] = (await answer.json())["data"]["result"]
                return found
        except aiohttp.ClientError:
            return []

    async def loaded_jobs(self) -> list[str]:
        """Jobs of the configuration that Prometheus has loaded."""
        async with self.client.get(f"{self.monitoring.prometheus_url}/api/v1/status/config") as answer:
            document = yaml.safe_load((await answer.json())["data"]["yaml"])
            return [job["job_name"] for job in document["scrape_configs"]]

    def events(self, name: str) -> list[str]:
        """Texts of the events about an object."""
        return [
            event["message"] for event in self.store.list("Event") if event["involvedObject"]["name"] == name
        ]

    def condition(self, kind: str) -> str:
        """A condition of the Prometheus resource."""
        resource = self.store.get(*RESOURCE) or {}
        conditions = resource.get("status", {}).get("conditions", [])
        return next((item["status"] for item in conditions if item["type"] == kind), "Unknown")

    def pid(self) -> int:
        """Id of the Prometheus process."""
        command = f"--storage.tsdb.path={self.directory}/"
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                try:
                    if command.encode() in (entry / "cmdline").read_bytes():
                        return int(entry.name)
                except OSError:
                    continue
        return 0


def environment_of(pid: int) -> list[str]:
    """Variables of a process, `NAME=value`."""
    return Path(f"/proc/{pid}/environ").read_text().split("\0")


async def until(condition: Callable[[], Awaitable[Any] | Any]) -> Any:
    """Waits until the condition holds and returns what it gave; the test's time limit ends it."""
    while True:
        found = condition()
        if isinstance(found, Awaitable):
            found = await found
        if found:
            return found
        await asyncio.sleep(0.05)


async def drive(store: ObjectStore, monitoring: Monitoring, clock: Clock) -> None:
    """Calls the controller as a cluster does."""
    while True:
        seen = store.revision
        wait = await monitoring.reconcile(store)
        # Not wait_for, which before Python 3.12 may lose a cancellation that meets a change.
        with contextlib.suppress(TimeoutError):
            async with clock.timeout(wait):
                await store.changed(seen)


@asynccontextmanager
async def running(
    binaries: Binaries, directory: Path, *, speed: float = 100, values: Any = VALUES, **delays: Any
) -> AsyncIterator[Running]:
    """The chart installed with `values`, and its processes ready."""
    store = ObjectStore("1.34")
    store.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "monitoring"}}, "test")
    authority = Authority()
    authorities = directory / "ca.pem"
    authorities.write_bytes(authority.certificate)
    clock = Clock(speed)
    environment = {"SSL_CERT_FILE": str(authorities), MARKER: "yes"}
    monitoring = Monitoring(directory / "run", binaries, clock, environment, **delays)
    assert monitoring.prometheus_url is None
    objects: list[Any] = list(render(values, "monitoring", "monitoring"))
    for item in objects:
        store.create(item, "helm")
    task = asyncio.create_task(drive(store, monitoring, clock))
    async with aiohttp.ClientSession() as client:
        cluster = Running(store, monitoring, directory / "run", client, authority)
        try:
            await until(lambda: task.done() or cluster.condition("Available") == "True")
            yield cluster
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            await monitoring.stop()
    assert not (task.done() and not task.cancelled() and task.exception()), task


def scrape_config(name: str, address: str, **spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "monitoring.coreos.com/v1alpha1",
        "kind": "ScrapeConfig",
        "metadata": {"name": name, "namespace": "monitoring"},
        "spec": {
            "jobName": name,
            "scheme": "HTTPS",
            "staticConfigs": [{"targets": [address], "labels": {"service": "vllm"}}],
            **spec,
        },
    }


def bearer(token: str) -> dict[str, Any]:
    data = {"token": base64.b64encode(token.encode()).decode()}
    metadata = {"name": "vllm-auth-token", "namespace": "monitoring"}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "data": data}


def rule(name: str, expression: str) -> dict[str, Any]:
    return {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PrometheusRule",
        "metadata": {"name": name, "namespace": "monitoring"},
        "spec": {"groups": [{"name": name, "rules": [{"record": f"test:{name}", "expr": expression}]}]},
    }


@dataclass
class Target:
    """A local HTTPS target that asks for a bearer token."""

    accepted: set[str]
    seen: list[str] = field(default_factory=list)
    address: str = ""

    async def metrics(self, request: web.Request) -> web.Response:
        """Answers 401 without an accepted token."""
        token = request.headers.get("Authorization", "").removeprefix("Bearer ")
        self.seen.append(token)
        if token not in self.accepted:
            return web.Response(status=401)
        return web.Response(text="vllm_up 1\n", content_type="text/plain")


@asynccontextmanager
async def target(authority: Authority, directory: Path, *tokens: str) -> AsyncIterator[Target]:
    served = Target(set(tokens))
    application = web.Application()
    application.router.add_get("/metrics", served.metrics)
    context = server_context(authority.server(["127.0.0.1"]), directory)
    runner, url = await listen(application, context)
    served.address = url.removeprefix("https://")
    try:
        yield served
    finally:
        await runner.cleanup()


async def test_a_target_is_scraped_with_the_token_of_a_secret_which_then_changes(
    binaries: Binaries, tmp_path: Path
) -> None:
    delays = {"config_delay_seconds": 0.0, "secret_delay_seconds": 60.0}
    async with (
        running(binaries, tmp_path, speed=100, **delays) as cluster,
        target(cluster.authority, tmp_path, "first-token") as served,
    ):
        cluster.store.create(bearer("first-token"), "test")
        authorization = {"credentials": {"name": "vllm-auth-token", "key": "token"}}
        config = scrape_config("vllm-ministral", served.address, authorization=authorization)
        cluster.store.create(config, "test")
        samples = await until(lambda: cluster.query('up{job="vllm-ministral"} == 1'))
        assert samples[0]["metric"]["service"] == "vllm"
        folder = cluster.directory / "prometheus-monitoring-monitoring-prometheus"
        assert (folder.stat().st_mode & 0o777, cluster.directory.stat().st_mode & 0o777) == (0o700, 0o700)
        files = [path for path in (folder / "current").resolve().rglob("*") if path.is_file()]
        assert any(b"first-token" in path.read_bytes() for path in files)
        assert {path.stat().st_mode & 0o777 for path in files} == {0o600}
        assert f"{MARKER}=yes" in environment_of(cluster.pid())

        served.accepted.add("second-token")
        old = cluster.store.get("Secret", "monitoring", "vllm-auth-token")
        assert old is not None
        cluster.store.update({**old, **{"data": bearer("second-token")["data"]}}, "test")
        changed_at = asyncio.get_running_loop().time()
        await until(lambda: "second-token" in served.seen)
        assert asyncio.get_running_loop().time() - changed_at >= 60 / 100  # not before the kubelet's delay
        assert await until(lambda: cluster.query('up{job="vllm-ministral"} == 1'))
    assert cluster.pid() == 0
    assert cluster.monitoring.prometheus_url is None  # else somebody would ask what has ended


async def test_the_watchdog_reaches_the_alertmanager_and_both_watch_themselves(
    binaries: Binaries, tmp_path: Path
) -> None:
    async with running(binaries, tmp_path, config_delay_seconds=0) as cluster:

        async def alerts() -> list[Any]:
            async with cluster.client.get(f"{cluster.monitoring.alertmanager_url}/api/v2/alerts") as answer:
                found: list[Any] = await answer.json()
                return found

        (watchdog,) = await until(alerts)
        assert watchdog["labels"] == {
            "alertname": "Watchdog",
            "prometheus": "monitoring/monitoring-prometheus",
            "severity": "none",
        }
        async with cluster.client.get(f"{cluster.monitoring.alertmanager_url}/-/ready") as answer:
            assert answer.status == 200
        for component in ("prometheus", "alertmanager"):
            expression = f'up{{job="monitoring-{component}"}} == 1'
            (sample,) = await until(partial(cluster.query, expression))
            labels = sample["metric"]
            assert labels["pod"] == f"{component}-monitoring-{component}-0"
            assert (labels["namespace"], labels["endpoint"]) == ("monitoring", "http-web")
        # What the operator makes of the resources is there to be looked at, and claims cause volumes.
        stateful = cluster.store.get("StatefulSet", "monitoring", "prometheus-monitoring-prometheus")
        assert stateful is not None
        assert stateful["spec"]["serviceName"] == "prometheus-operated"
        assert cluster.store.get("Secret", "monitoring", "prometheus-monitoring-prometheus") is not None


HOOK = {
    "alertmanagerSpec": {"secrets": ["hook"]},
    "config": {
        "route": {
            "receiver": "hook",
            "group_by": ["alertname"],
            "group_wait": "100ms",
            "group_interval": "100ms",
            "routes": [{"receiver": "null", "matchers": ['alertname = "Watchdog"']}],
        },
        "receivers": [
            {"name": "null"},
            {
                "name": "hook",
                "webhook_configs": [
                    {"url_file": "/etc/alertmanager/secrets/hook/url", "send_resolved": True}
                ],
            },
        ],
    },
}


def hook(url: str) -> dict[str, Any]:
    data = {"url": base64.b64encode(url.encode()).decode()}
    return {"kind": "Secret", "metadata": {"name": "hook", "namespace": "monitoring"}, "data": data}


@asynccontextmanager
async def receiver() -> AsyncIterator[tuple[str, list[tuple[str, str, str]]]]:
    """A local webhook: its base URL, and the path, alert and status of each notification so far."""
    got: list[tuple[str, str, str]] = []

    async def take(request: web.Request) -> web.Response:
        message = await request.json()
        got.append((request.path, message["groupLabels"]["alertname"], message["status"]))
        return web.Response()

    application = web.Application()
    application.router.add_post("/{path}", take)
    runner, url = await listen(application)
    try:
        yield url, got
    finally:
        await runner.cleanup()


async def test_notifications_go_to_the_address_in_a_mounted_secret_which_then_changes(
    binaries: Binaries, tmp_path: Path
) -> None:
    values = {**VALUES, "alertmanager": HOOK}
    async with (
        running(binaries, tmp_path, values=values, config_delay_seconds=0) as cluster,
        target(cluster.authority, tmp_path, "") as served,
        receiver() as (url, got),
    ):
        cluster.store.create({"apiVersion": "v1", **hook(f"{url}/first")}, "test")
        cluster.store.create(scrape_config("vllm", served.address), "test")
        down = rule("down", "")
        down["spec"]["groups"][0]["rules"] = [{"alert": "Down", "expr": 'up{job="vllm"} == 0'}]
        cluster.store.create(down, "test")
        await until(lambda: cluster.query('up{job="vllm"} == 1'))
        served.accepted.clear()
        await until(lambda: ("/first", "Down", "firing") in got)

        old = cluster.store.get("Secret", "monitoring", "hook")
        assert old is not None
        cluster.store.update({**old, "data": hook(f"{url}/second")["data"]}, "test")
        (mounted,) = cluster.directory.glob("alertmanager-*/current/secrets/hook/url")
        await until(lambda: mounted.read_text().endswith("/second"))
        served.accepted.add("")
        await until(lambda: ("/second", "Down", "resolved") in got)
    assert {name for _, name, _ in got} == {"Down"}


async def test_what_prometheus_would_refuse_is_kept_out_and_the_rest_goes_on(
    binaries: Binaries, tmp_path: Path
) -> None:
    async with running(binaries, tmp_path, config_delay_seconds=0) as cluster:
        before = await until(cluster.loaded_jobs)
        broken = [{"sourceLabels": ["a"], "targetLabel": "b", "regex": "("}]
        cluster.store.create(scrape_config("bad", "127.0.0.1:1", relabelings=broken), "test")
        cluster.store.create(scrape_config("good", "127.0.0.1:1"), "test")
        cluster.store.create(rule("broken", "sum("), "test")
        cluster.store.create(rule("fine", "vector(7)"), "test")
        good = "scrapeConfig/monitoring/good"

        async def good_is_loaded() -> bool:
            return good in await cluster.loaded_jobs()

        await until(good_is_loaded)
        assert await cluster.loaded_jobs() == [*before, good]
        (sample,) = await until(lambda: cluster.query("test:fine"))
        assert sample["value"][1] == "7"
        (event,) = await until(lambda: cluster.events("bad"))
        assert event.startswith('"monitoring/bad" was rejected due to invalid configuration: ')
        (event,) = cluster.events("broken")
        assert "unclosed left parenthesis" in event
        assert cluster.condition("Reconciled") == "True"


async def test_a_configuration_that_is_refused_as_a_whole_leaves_the_old_one(
    binaries: Binaries, tmp_path: Path
) -> None:
    async with running(binaries, tmp_path, config_delay_seconds=0) as cluster:
        before = await until(cluster.loaded_jobs)
        jobs = base64.b64encode(b"- job_name: a\n  scrape_interval: hunter2\n").decode()
        metadata = {"name": "jobs", "namespace": "monitoring"}
        secret = {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "data": {"jobs.yaml": jobs}}
        cluster.store.create(secret, "test")
        resource = cluster.store.get(*RESOURCE)
        assert resource is not None
        resource["spec"]["additionalScrapeConfigs"] = {"name": "jobs", "key": "jobs.yaml"}
        cluster.store.update(resource, "test")
        await until(lambda: cluster.condition("Reconciled") == "False")
        (event,) = cluster.events("monitoring-prometheus")
        assert "promtool refuses the configuration" in event
        assert "hunter2" not in event
        assert await cluster.loaded_jobs() == before

        broken = base64.b64encode(b"route: {receiver: nobody}\nreceivers: []\n").decode()
        config = cluster.store.get("Secret", "monitoring", "alertmanager-monitoring-alertmanager")
        assert config is not None
        cluster.store.update({**config, "data": {"alertmanager.yaml": broken}}, "test")
        (event,) = await until(lambda: cluster.events("monitoring-alertmanager"))
        assert "Alertmanager refuses the configuration" in event
        async with cluster.client.get(f"{cluster.monitoring.alertmanager_url}/-/ready") as answer:
            assert answer.status == 200


async def test_a_new_configuration_arrives_after_the_kubelets_delay(
    binaries: Binaries, tmp_path: Path
) -> None:
    async with running(binaries, tmp_path, speed=100, config_delay_seconds=50) as cluster:
        started = asyncio.get_running_loop().time()
        cluster.store.create(scrape_config("later", "127.0.0.1:1"), "test")

        async def is_loaded() -> bool:
            return "scrapeConfig/monitoring/later" in await cluster.loaded_jobs()

        await until(is_loaded)
        assert asyncio.get_running_loop().time() - started >= 50 / 100


async def test_a_killed_prometheus_comes_back_with_its_data(binaries: Binaries, tmp_path: Path) -> None:
    async with running(binaries, tmp_path, config_delay_seconds=0) as cluster:
        (sample,) = await until(lambda: cluster.query("ALERTS"))
        first = cluster.pid()
        os.kill(first, signal.SIGKILL)
        (event,) = await until(lambda: cluster.events("monitoring-prometheus"))
        assert event.startswith("Back-off restarting failed container prometheus: status -9")
        await until(lambda: cluster.condition("Available") == "True" and cluster.pid() not in (0, first))
        moment = f"{float(sample['value'][0]):.3f}"
        assert await until(lambda: cluster.query(f"ALERTS @ {moment}"))


async def test_a_deleted_resource_ends_its_process(binaries: Binaries, tmp_path: Path) -> None:
    async with running(binaries, tmp_path) as cluster:
        assert cluster.pid()
        cluster.store.delete(*RESOURCE)
        await until(lambda: not cluster.pid() and cluster.monitoring.prometheus_url is None)
        await until(lambda: not list(cluster.directory.glob("prometheus-*")))
        assert cluster.monitoring.alertmanager_url is not None

"""prometheus-operator and the kubelet for the real Prometheus and Alertmanager: one process per resource.

    monitoring = Monitoring(directory, binaries, clock, environment)     a Controller of the cluster
    monitoring.prometheus_url, monitoring.alertmanager_url               "http://127.0.0.1:41234", None before

Each instance has a folder of its own below `directory` (modes 700 and 600, the configuration holds tokens):

    prometheus-monitoring-monitoring-prometheus/
        current -> config-3            what the process has loaded; replaced as a whole, as a kubelet does
        config-3/prometheus.yml, rules/, secrets/<name>/<key>, certs/
        data/, log

A new configuration is loaded `config_delay_seconds` after the operator made it, and a changed Secret is seen
`secret_delay_seconds` after the change (platform seconds; a real kubelet takes 0 to 90). What is there when
an instance starts is there at once.

A configuration that promtool refuses is not loaded: a ScrapeConfig or PrometheusRule that is to blame is left
out, with an Event on it; if none is, an Event on the Prometheus tells why, and the old configuration stays.
One process runs whatever `replicas` and `shards` say, none for `replicas: 0`.
"""

from __future__ import annotations

import asyncio
import logging
import re
import shutil
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import yaml

from sandbox.clock import Clock
from sandbox.cluster import operated
from sandbox.cluster.daemon import Daemon, free_port
from sandbox.cluster.discovery import Pod
from sandbox.cluster.kinds import Object
from sandbox.cluster.mounts import Delayed, redacted, secret_data
from sandbox.cluster.operator import (
    ETC,
    Configuration,
    OperatorError,
    Rejected,
    SecretData,
    alertmanager_arguments,
    alertmanager_files,
    prometheus_arguments,
    prometheus_config,
)
from sandbox.cluster.storage import ObjectStore, now
from sandbox.files import write_private

_LOG = logging.getLogger(__name__)

_MANAGER = "prometheus-operator"
Files = Mapping[str, bytes]


@dataclass(frozen=True)
class Binaries:
    """The programs."""

    prometheus: Path
    promtool: Path
    alertmanager: Path


class Monitoring:
    """Runs what the Prometheus and Alertmanager resources of a cluster ask for.

    `environment` is the whole environment of the processes; by `SSL_CERT_FILE` they trust the sandbox's CA.
    `pods` are others that really serve metrics.
    """

    def __init__(
        self,
        directory: Path,
        binaries: Binaries,
        clock: Clock,
        environment: Mapping[str, str],
        *,
        pods: Callable[[], Iterable[Pod]] = tuple,
        config_delay_seconds: float = 5.0,
        secret_delay_seconds: float = 5.0,
    ) -> None:
        self._directory = directory
        self._binaries = binaries
        self._clock = clock
        self._environment = dict(environment)
        self._pods = pods
        self._config_delay = config_delay_seconds
        self._secret_delay = secret_delay_seconds
        self._instances: dict[tuple[str, str, str], _Instance] = {}
        self._secrets: dict[tuple[str, str], Delayed[SecretData]] = {}
        self._reported: set[tuple[str, str]] = set()
        self._checked: dict[str, str | None] = {}
        self._client: aiohttp.ClientSession | None = None

    @property
    def prometheus_url(self) -> str | None:
        """Address of the first Prometheus; None while none runs."""
        return self._url("Prometheus")

    @property
    def alertmanager_url(self) -> str | None:
        """Address of the first Alertmanager; None while none runs."""
        return self._url("Alertmanager")

    async def reconcile(self, store: ObjectStore) -> float | None:
        """Makes processes and their files be as the objects say; returns when a delayed change is due."""
        if self._client is None:
            self._client = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=10))
        wanted = {
            _key(item): item
            for kind in ("Alertmanager", "Prometheus")  # in this order: the one is a target of the other
            for item in store.list(kind)
            if item["spec"].get("replicas", 1) and not _going(store, item)
        }
        for key in [key for key in self._instances if key not in wanted]:
            await self._instances.pop(key).remove()
        reports: list[Rejected] = []
        for key, resource in wanted.items():
            if resource["spec"].get("paused"):
                continue
            instance = self._instances.get(key) or self._new_instance(store, resource)
            if resource["kind"] == "Prometheus":
                reports += await self._reconcile_prometheus(store, resource, instance)
            else:
                reports += await self._reconcile_alertmanager(store, resource, instance)
        self._report(store, reports)
        for key in wanted:
            self._write_status(store, key)
        delayed: list[Delayed[Any]] = [
            *(item.files for item in self._instances.values()),
            *self._secrets.values(),
        ]
        due = [item.due for item in delayed if item.due is not None]
        return max(0.0, min(due) - self._clock.monotonic()) if due else None

    async def stop(self) -> None:
        """Ends all processes; their data stays."""
        await asyncio.gather(*(instance.daemon.stop() for instance in self._instances.values()))
        self._instances.clear()
        if self._client is not None:
            await self._client.close()
            self._client = None

    async def _reconcile_prometheus(
        self, store: ObjectStore, resource: Object, instance: _Instance
    ) -> list[Rejected]:
        arguments = prometheus_arguments(resource)
        self._apply(store, operated.workload(resource, arguments))
        pods = [
            operated.pod(item, self._instances[_key(item)].address)
            for kind in ("Alertmanager", "Prometheus")
            for item in store.list(kind)
            if _key(item) in self._instances
        ]
        pods += [pod for pod in self._pods() if store.get("Pod", pod.namespace, pod.name) is not None]
        secrets = self._secrets_of(store)
        try:
            configuration = prometheus_config(resource, store, secrets, pods)
        except OperatorError as error:
            return [Rejected(resource, str(error))]
        bad_rules = await self._bad_rules(configuration)
        configuration = configuration.without(bad_rules)
        document = yaml.safe_dump(configuration.document, sort_keys=False)
        self._apply(store, operated.generated(resource, document.encode(), configuration.rules))
        candidate = _Candidate(_prometheus_files(configuration), configuration)
        arrived = instance.files.see(candidate, self._clock.monotonic())
        refused = list(configuration.rejected)
        if arrived.files not in (instance.loaded, instance.refused):
            refused += await self._load_prometheus(resource, instance, arrived)
        else:
            refused += instance.rejected
        command = [
            str(self._binaries.prometheus),
            f"--config.file={instance.directory / 'current' / 'prometheus.yml'}",
            f"--storage.tsdb.path={instance.directory / 'data'}",
            f"--web.listen-address={instance.address}",
            *arguments,
        ]
        if instance.loaded is not None and instance.daemon.command != tuple(command):
            await instance.daemon.run(command)
        return refused

    async def _load_prometheus(
        self, resource: Object, instance: _Instance, candidate: _Candidate
    ) -> list[Rejected]:
        """Checks and loads files; returns what Prometheus refuses of them."""
        instance.rejected = []
        configuration = candidate.configuration
        assert configuration is not None  # only that of an Alertmanager has none
        folder = instance.write(candidate.files)
        reason = await self._check_config(folder / "prometheus.yml")
        if reason is not None:
            for source, job in configuration.jobs:
                probe = folder / "probe.yml"
                write_private(probe, _relative(yaml.safe_dump({"scrape_configs": [job]})))
                if (why := await self._check_config(probe)) is not None:
                    instance.rejected.append(Rejected(source, why))
            if instance.rejected:
                shutil.rmtree(folder)
                configuration = configuration.without(instance.rejected)
                folder = instance.write(_prometheus_files(configuration))
                reason = await self._check_config(folder / "prometheus.yml")
        if reason is not None:
            shutil.rmtree(folder)
            instance.refused = candidate.files
            instance.rejected.append(Rejected(resource, f"promtool refuses the configuration: {reason}"))
            return instance.rejected
        why = await self._switch(instance, folder, candidate.files)
        if why is not None:
            instance.rejected.append(Rejected(resource, f"Prometheus refuses the configuration: {why}"))
        return instance.rejected

    async def _reconcile_alertmanager(
        self, store: ObjectStore, resource: Object, instance: _Instance
    ) -> list[Rejected]:
        arguments = alertmanager_arguments(resource)
        self._apply(store, operated.workload(resource, arguments))
        files = alertmanager_files(resource, self._secrets_of(store))
        # Paths of receivers are relative to where the process runs, so they have to be complete.
        here = f"{instance.directory / 'current'}/".encode()
        config = files.pop("config/alertmanager.yaml").replace(b"/etc/alertmanager/", here)
        arrived = instance.files.see(
            _Candidate({**files, "alertmanager.yaml": config}), self._clock.monotonic()
        )
        if arrived.files not in (instance.loaded, instance.refused):
            instance.rejected = []
            why = await self._switch(instance, instance.write(arrived.files), arrived.files)
            if why is not None:
                instance.rejected.append(Rejected(resource, f"Alertmanager refuses the configuration: {why}"))
        command = [
            str(self._binaries.alertmanager),
            f"--config.file={instance.directory / 'current' / 'alertmanager.yaml'}",
            f"--storage.path={instance.directory / 'data'}",
            f"--web.listen-address={instance.address}",
            *arguments,
        ]
        if instance.daemon.command != tuple(command):
            await instance.daemon.run(command)
        merged = [
            Rejected(item, "the sandbox's operator does not merge AlertmanagerConfigs; use the Secret")
            for item in store.list("AlertmanagerConfig", resource["metadata"]["namespace"])
        ]
        return instance.rejected + merged

    async def _switch(self, instance: _Instance, folder: Path, files: Files) -> str | None:
        """Makes `folder` the current one and has a running process load it; why not, if it refuses."""
        before = instance.point_to(folder)
        if instance.daemon.command:
            await instance.daemon.settled()
        if instance.daemon.ready:
            why = await self._reload(instance)
            if why is not None:
                if before is not None:
                    instance.point_to(before)
                shutil.rmtree(folder)
                instance.refused = files
                return why
        elif instance.daemon.command:
            await instance.daemon.run(instance.daemon.command)  # no back-off: there is something new to try
        if before is not None:
            shutil.rmtree(before)
        instance.loaded, instance.refused = files, None
        return None

    async def _reload(self, instance: _Instance) -> str | None:
        assert self._client is not None
        async with self._client.post(f"{instance.url}/-/reload") as answer:
            return None if answer.status == 200 else self._redacted(await answer.text())

    async def _check_config(self, path: Path) -> str | None:
        """Why promtool refuses a configuration with its rule files; None when it does not."""
        return await self._promtool("check", "config", "--lint=none", str(path))

    async def _bad_rules(self, configuration: Configuration) -> list[Rejected]:
        """PrometheusRules whose groups Prometheus would not load."""
        new = {name: text for name, text in configuration.rules.items() if text not in self._checked}
        if new:
            folder = self._directory / "rules"
            for name, text in new.items():
                write_private(folder / name, text.encode())
            arguments = ("check", "rules", "--lint=none")
            together = await self._promtool(*arguments, *(str(folder / name) for name in new))
            for name, text in new.items():
                alone = None if together is None else await self._promtool(*arguments, str(folder / name))
                self._checked[text] = alone
            shutil.rmtree(folder)
        current = set(configuration.rules.values())
        self._checked = {text: reason for text, reason in self._checked.items() if text in current}
        return [
            Rejected(configuration.rule_sources[name], reason)
            for name, text in configuration.rules.items()
            if (reason := self._checked[text]) is not None
        ]

    async def _promtool(self, *arguments: str) -> str | None:
        process = await asyncio.create_subprocess_exec(
            str(self._binaries.promtool),
            *arguments,
            env=self._environment,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        output, _ = await process.communicate()
        if process.returncode == 0:
            return None
        lines = [line.strip() for line in output.decode(errors="replace").splitlines()]
        told = [line for line in lines if line and not line.startswith(("Checking", "SUCCESS", "FAILED:"))]
        return self._redacted(" ".join(told))

    def _redacted(self, text: str) -> str:
        """A program's message without its folders and without anything that is in a Secret."""
        text = text.replace(f"{self._directory}/", "")
        values = (value for delayed in self._secrets.values() for value in (delayed.value or {}).values())
        text = redacted(text, values)
        return re.sub("`[^`]*`", "`…`", text)[:1000].strip()  # YAML errors quote values

    def _secrets_of(self, store: ObjectStore) -> Callable[[str, str], SecretData | None]:
        """The contents of Secrets as they have arrived; a deleted one is gone at once."""

        def read(namespace: str, name: str) -> SecretData | None:
            key = (namespace, name)
            secret = store.get("Secret", namespace, name)
            if secret is None:
                self._secrets.pop(key, None)
                return None
            delayed = self._secrets.setdefault(key, Delayed(self._secret_delay))
            return delayed.see(secret_data(secret), self._clock.monotonic())

        return read

    def _new_instance(self, store: ObjectStore, resource: Object) -> _Instance:
        key = _key(resource)
        kind, namespace, name = key
        directory = self._directory / f"{kind.lower()}-{namespace}-{name}"
        shutil.rmtree(directory, ignore_errors=True)
        for path in (self._directory, directory):
            path.mkdir(parents=True, exist_ok=True, mode=0o700)
        prefix = (resource["spec"].get("routePrefix") or "/").rstrip("/")
        url = f"http://127.0.0.1:{free_port()}{prefix}"

        async def is_ready() -> bool:
            assert self._client is not None
            try:
                async with self._client.get(f"{url}/-/ready") as answer:
                    return answer.status == 200
            except (aiohttp.ClientError, TimeoutError):
                return False

        def changed(status: int | None) -> None:
            current = store.get(kind, namespace, name)
            if current is not None and key in self._instances:
                if status is not None:
                    line = self._redacted(daemon.last_line())
                    text = f"Back-off restarting failed container {kind.lower()}: status {status}: {line}"
                    store.event(current, "Warning", "BackOff", text, "kubelet")
                self._write_status(store, key)

        daemon = Daemon(directory / "log", self._environment, self._clock, is_ready, changed)
        self._instances[key] = _Instance(directory, url, daemon, Delayed(self._config_delay))
        return self._instances[key]

    def _apply(self, store: ObjectStore, objects: Iterable[Object]) -> None:
        for item in objects:
            store.apply(item, _MANAGER)

    def _report(self, store: ObjectStore, rejected: Iterable[Rejected]) -> None:
        """An Event for each refusal that was not there before."""
        found = set()
        for item in rejected:
            mark = (item.object["metadata"]["uid"], item.message)
            if mark not in self._reported and mark not in found:
                _LOG.warning("%s %s", item.object["kind"], item.message)
                store.event(item.object, "Warning", "InvalidConfiguration", item.message, _MANAGER)
            found.add(mark)
        self._reported = found

    def _write_status(self, store: ObjectStore, key: tuple[str, str, str]) -> None:
        resource, instance = store.get(*key), self._instances.get(key)
        if resource is None or instance is None:
            return
        ready = instance.daemon.ready
        refused = next((item for item in instance.rejected if _key(item.object) == key), None)
        conditions = [
            _condition(resource, "Available", ready, "" if ready else "NoPodReady", ""),
            _condition(
                resource,
                "Reconciled",
                refused is None,
                "" if refused is None else "InvalidConfiguration",
                "" if refused is None else refused.reason,
            ),
        ]
        status = {
            "paused": resource["spec"].get("paused", False),
            "replicas": 1,
            "updatedReplicas": 1,
            "availableReplicas": int(ready),
            "unavailableReplicas": int(not ready),
            "conditions": conditions,
        }
        if resource.get("status") != status:
            store.set_status(*key, status, _MANAGER)

    def _url(self, kind: str) -> str | None:
        return next((item.url for key, item in sorted(self._instances.items()) if key[0] == kind), None)


@dataclass(frozen=True, repr=False)
class _Candidate:
    """Files to load, and for Prometheus what they were made of."""

    files: Files
    configuration: Configuration | None = field(default=None, compare=False)


@dataclass(repr=False)
class _Instance:
    """One process with its folder."""

    directory: Path
    url: str
    daemon: Daemon
    files: Delayed[_Candidate]
    loaded: Files | None = None
    """What the process runs with."""
    refused: Files | None = None
    """What it was last offered in vain."""
    rejected: list[Rejected] = field(default_factory=list)
    """What the last offer was refused for."""
    _number: int = 0

    @property
    def address(self) -> str:
        """Host and port."""
        return self.url.removeprefix("http://").partition("/")[0]

    def write(self, files: Files) -> Path:
        """A new folder with the files."""
        self._number += 1
        folder = self.directory / f"config-{self._number}"
        for path, data in files.items():
            write_private(folder / path, data)
        return folder

    def point_to(self, folder: Path) -> Path | None:
        """Makes `folder` the current one in one step; returns the one before."""
        link = self.directory / "current"
        before = link.resolve() if link.is_symlink() else None
        new = self.directory / "next"
        new.symlink_to(folder.name)
        new.replace(link)
        return before

    async def remove(self) -> None:
        """Ends the process and removes its folder."""
        await self.daemon.stop()
        shutil.rmtree(self.directory)


def _key(resource: Object) -> tuple[str, str, str]:
    return resource["kind"], resource["metadata"]["namespace"], resource["metadata"]["name"]


def _going(store: ObjectStore, resource: Object) -> bool:
    """Whether a resource, or its namespace, is being deleted: nothing can be made for it any more."""
    metadata = resource["metadata"]
    namespace = store.get("Namespace", "", metadata["namespace"]) or {"metadata": {"deletionTimestamp": ""}}
    return "deletionTimestamp" in metadata or "deletionTimestamp" in namespace["metadata"]


def _prometheus_files(configuration: Configuration) -> dict[str, bytes]:
    return {
        "prometheus.yml": _relative(yaml.safe_dump(configuration.document, sort_keys=False)),
        **{f"rules/{name}": text.encode() for name, text in configuration.rules.items()},
        **configuration.files,
    }


def _relative(document: str) -> bytes:
    """A configuration whose paths below /etc/prometheus start at its own folder instead."""
    return document.replace(f"{ETC}/", "").encode()


def _condition(resource: Object, kind: str, holds: bool, reason: str, message: str) -> Object:
    """A condition of the status; its time is that of the last change."""
    status = "True" if holds else "False"
    conditions: list[Object] = resource.get("status", {}).get("conditions", [])
    old = next((item for item in conditions if item["type"] == kind), None)
    since = old["lastTransitionTime"] if old and old["status"] == status else now()
    return {
        "type": kind,
        "status": status,
        "reason": reason,
        "message": message,
        "lastTransitionTime": since,
        "observedGeneration": resource["metadata"].get("generation", 1),
    }

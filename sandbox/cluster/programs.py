"""Containers that really run: programs that the sandbox has, in place of images.

    programs = Programs(directory, {"json-exporter": Program(binary, port=7979)}, clock, environment)
    programs.runs(container)     whether the image of a container is one of them; the kubelet leaves it alone
    programs.pods                pods that serve, with their real addresses

The process of each container has a folder of its own below `directory` (modes 700 and 600). The files that
its volumes have lie there, and paths below their mount paths are replaced in its arguments and in files from
ConfigMaps. What changes in a ConfigMap or Secret arrives `mount_delay_seconds` later (platform seconds; a
real kubelet takes 0 to 90). A pod is Ready once its process answers all its HTTP probes, `/metrics` if it has
none, and one that ends is started again; a liveness probe that fails later on restarts nothing.
"""

from __future__ import annotations

import asyncio
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp

from sandbox.clock import Clock
from sandbox.cluster.daemon import Daemon, free_port
from sandbox.cluster.discovery import Pod
from sandbox.cluster.kinds import Object
from sandbox.cluster.mounts import Delayed, redacted, secret_data
from sandbox.cluster.storage import ObjectStore, now
from sandbox.files import write_private

_KUBELET = "kubelet"
_LISTEN = "--web.listen-address="
_TEXTS = "configMap/"
Files = Mapping[str, bytes]

NOT_READY = "ContainersNotReady"
"""Why a pod is not ready while a process of it does not answer."""


@dataclass(frozen=True)
class Program:
    """An exporter that takes the flag `--web.listen-address`, as those of the Prometheus project do."""

    binary: Path
    port: int
    """Where it listens unless it is told otherwise."""


class Programs:
    """Runs the containers whose image is known: by the last part of its name, whatever registry and tag.

    `environment` is the whole environment of the processes.
    """

    def __init__(
        self,
        directory: Path,
        programs: Mapping[str, Program],
        clock: Clock,
        environment: Mapping[str, str],
        *,
        mount_delay_seconds: float = 5.0,
    ) -> None:
        self._directory = directory
        self._programs = programs
        self._clock = clock
        self._environment = dict(environment)
        self._delay = mount_delay_seconds
        self._running: dict[tuple[str, str], _Running] = {}
        self._refused: set[tuple[str, str]] = set()
        self._client: aiohttp.ClientSession | None = None

    def runs(self, container: Object) -> bool:
        """Whether this is a container that really runs."""
        return _repository(container) in self._programs

    @property
    def pods(self) -> list[Pod]:
        """The pods whose process answers."""
        return [item.pod for item in self._running.values() if item.daemon.ready]

    async def reconcile(self, store: ObjectStore) -> float | None:
        """Makes processes and files be as the pods say; returns when a delayed change is due."""
        if self._client is None:
            self._client = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=10))
        wanted = {
            (pod["metadata"]["uid"], container["name"]): (pod, container)
            for pod in store.list("Pod")
            if pod["status"]["phase"] == "Running" and "deletionTimestamp" not in pod["metadata"]
            for container in pod["spec"]["containers"]
            if self.runs(container)
        }
        for key in [key for key in self._running if key not in wanted]:
            await self._running.pop(key).remove()
        self._refused &= wanted.keys()
        for key, (pod, container) in wanted.items():
            if key in self._refused:
                continue
            running = self._running.get(key)
            try:
                files, complete = _files(store, pod, container)
                command = None if running else _Command.of(container, self._programs[_repository(container)])
            except _UnsupportedError as error:
                self._refused.add(key)
                store.event(
                    pod, "Warning", "Failed", f"Error: not implemented in the sandbox: {error}", _KUBELET
                )
                continue
            if running is not None:
                running.write(running.files.see(files, self._clock.monotonic()))
            elif command is not None and complete:
                await self._start(store, key, pod, container, command, files)
        due = [item.files.due for item in self._running.values() if item.files.due is not None]
        return max(0.0, min(due) - self._clock.monotonic()) if due else None

    async def stop(self) -> None:
        """Ends all processes."""
        await asyncio.gather(*(item.daemon.stop() for item in self._running.values()))
        self._running.clear()
        if self._client is not None:
            await self._client.close()
            self._client = None

    async def _start(
        self,
        store: ObjectStore,
        key: tuple[str, str],
        pod: Object,
        container: Object,
        command: _Command,
        files: Files,
    ) -> None:
        metadata = pod["metadata"]
        folder = self._directory / f"{metadata['name']}-{container['name']}"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True, mode=0o700)
        address = f"127.0.0.1:{free_port()}"

        refused = asyncio.Event()

        async def is_ready() -> bool:
            assert self._client is not None
            for path in command.probes:
                try:
                    async with self._client.get(f"http://{address}{path}", allow_redirects=False) as answer:
                        status = answer.status
                except (aiohttp.ClientError, TimeoutError):
                    return False
                if not 200 <= status < 400:
                    if not refused.is_set():
                        text = f"Probe of {path} failed: HTTP probe failed with statuscode: {status}"
                        store.event(pod, "Warning", "Unhealthy", text, _KUBELET)
                    refused.set()
                    return False
            return True

        def changed(status: int | None) -> None:
            current = store.get("Pod", metadata["namespace"], metadata["name"])
            if current is None or current["metadata"]["uid"] != key[0]:
                return
            if status is not None:
                line = redacted(running.daemon.last_line(), running.secrets())
                text = f"Back-off restarting failed container {container['name']}: status {status}: {line}"
                store.event(current, "Warning", "BackOff", text, _KUBELET)
            _write_status(store, current, container["name"], status)

        daemon = Daemon(folder / "log", self._environment, self._clock, is_ready, changed)
        ports: dict[str | int, str] = {command.port: address}
        for port in container.get("ports", ()):
            if port["containerPort"] == command.port and "name" in port:
                ports[port["name"]] = address
        seen = Pod(
            metadata["namespace"], metadata["name"], container["name"], metadata.get("labels", {}), ports
        )
        running = _Running(seen, container, folder, daemon, Delayed(self._delay))
        self._running[key] = running
        running.write(running.files.see(files, self._clock.monotonic()))
        arguments = [running.localized(argument) for argument in command.arguments]
        # A process whose probe is refused runs on and is never ready; others must not wait for it.
        waits: list[asyncio.Task[object]] = [
            asyncio.create_task(daemon.run([str(command.binary), *arguments, f"{_LISTEN}{address}"])),
            asyncio.create_task(refused.wait()),
        ]
        try:
            finished, _ = await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
        for wait in finished:
            wait.result()


class _UnsupportedError(ValueError):
    """A container needs something that does not exist here."""


@dataclass(frozen=True)
class _Command:
    """How a container starts its program, without the address that it listens on."""

    binary: Path
    arguments: Sequence[str]
    port: int
    probes: Sequence[str]
    """Paths that say whether it is ready."""

    @classmethod
    def of(cls, container: Object, program: Program) -> _Command:
        if "command" in container:
            raise _UnsupportedError(f"container {container['name']} with another command than its image's")
        arguments, port = [], program.port
        for argument in container.get("args", ()):
            if argument.startswith(_LISTEN):
                port = int(argument.rpartition(":")[2])
            else:
                arguments.append(argument)
        return cls(program.binary, arguments, port, list(_probes(container, port)) or ["/metrics"])


def _probes(container: Object, port: int) -> Iterator[str]:
    """Paths that a container's probes ask at the port where its program listens."""
    names = {item["name"]: item["containerPort"] for item in container.get("ports", ()) if "name" in item}
    for kind in ("startupProbe", "livenessProbe", "readinessProbe"):
        if kind not in container:
            continue
        asked = container[kind].get("httpGet", {})
        if asked.get("scheme") != "HTTP" or asked.keys() - {"scheme", "path", "port"}:
            raise _UnsupportedError(f"{kind} of container {container['name']} other than a plain httpGet")
        if names.get(asked["port"], asked["port"]) != port:
            raise _UnsupportedError(
                f"{kind} of container {container['name']} at port {asked['port']}, where its program is not"
            )
        yield asked["path"]


@dataclass(repr=False)
class _Running:
    """A process with its folder."""

    pod: Pod
    container: Object
    folder: Path
    daemon: Daemon
    files: Delayed[Files]
    written: dict[str, bytes] = field(default_factory=dict)

    def localized(self, text: str) -> str:
        """The text with the folder's paths in place of those of the container."""
        for mount in self.container.get("volumeMounts", ()):
            inside = mount["mountPath"].rstrip("/")
            text = text.replace(f"{inside}/", f"{self.folder / 'volumes' / mount['name']}/")
        return text

    def write(self, files: Files) -> None:
        """Makes the folder hold these files, which are named `<kind>/<volume>/<key>`; those before stay."""
        for name, data in files.items():
            if self.written.get(name) != data:
                # Files of a Secret stay as they are, byte for byte.
                local = self.localized(data.decode()).encode() if name.startswith(_TEXTS) else data
                write_private(self.folder / "volumes" / name.partition("/")[2], local)
        self.written |= files

    def secrets(self) -> list[bytes]:
        """Values that no message may show."""
        return [data for name, data in self.written.items() if not name.startswith(_TEXTS)]

    async def remove(self) -> None:
        """Ends the process and removes its folder."""
        await self.daemon.stop()
        shutil.rmtree(self.folder)


def _repository(container: Object) -> str:
    """`json-exporter` for `quay.io/prometheuscommunity/json-exporter:v0.7.0@sha256:…`."""
    return re.split("[@:]", str(container["image"]).rpartition("/")[2])[0]


def _files(store: ObjectStore, pod: Object, container: Object) -> tuple[Files, bool]:
    """The files that a container mounts, `<kind>/<volume>/<key>`, and whether all their objects exist."""
    mounts = {mount["name"]: mount for mount in container.get("volumeMounts", ())}
    files: dict[str, bytes] = {}
    complete = True
    for volume in pod["spec"].get("volumes", ()):
        name = volume["name"]
        if name not in mounts:
            continue
        if unknown := mounts[name].keys() & {"subPath", "subPathExpr"}:
            raise _UnsupportedError(f"volume {name} mounted with {', '.join(unknown)}")
        kind = next(key for key in volume if key != "name")
        if kind == "emptyDir":
            continue
        if kind == "configMap":
            found = store.get("ConfigMap", pod["metadata"]["namespace"], volume[kind]["name"])
            data = {key: text.encode() for key, text in (found or {}).get("data", {}).items()}
        elif kind == "secret":
            found = store.get("Secret", pod["metadata"]["namespace"], volume[kind]["secretName"])
            data = secret_data(found or {})
        else:
            raise _UnsupportedError(f"volume {name} of type {kind}")
        complete = complete and (found is not None or volume[kind].get("optional", False))
        items = volume[kind].get("items")
        paths = {item["key"]: item["path"] for item in items} if items else {key: key for key in data}
        files |= {f"{kind}/{name}/{paths[key]}": text for key, text in data.items() if key in paths}
    return files, complete


def _write_status(store: ObjectStore, pod: Object, container: str, ended: int | None) -> None:
    """Says in a pod's status that the process of a container is ready, or has ended with an exit status."""
    moment, status = now(), pod["status"]
    for item in status["containerStatuses"]:
        if item["name"] != container:
            continue
        item["ready"] = item["started"] = ended is None
        if ended is None:
            item["state"] = {"running": {"startedAt": moment}}
        else:
            code = ended if ended >= 0 else 128 - ended  # of a signal
            item["restartCount"] += 1
            item["state"] = {"waiting": {"reason": "CrashLoopBackOff"}}
            item["lastState"] = {
                "terminated": {"exitCode": code, "reason": "Error", "startedAt": moment, "finishedAt": moment}
            }
    ready = all(item["ready"] for item in status["containerStatuses"])
    for condition in status["conditions"]:
        value = "True" if ready else "False"
        if condition["type"] in ("Ready", "ContainersReady") and condition["status"] != value:
            condition |= {"status": value, "lastTransitionTime": moment}
            condition.pop("reason", None)
            if not ready:
                condition["reason"] = NOT_READY
    metadata = pod["metadata"]
    store.set_status("Pod", metadata["namespace"], metadata["name"], status, _KUBELET)

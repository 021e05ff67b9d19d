"""Where a tool comes from: PATH, the cache, the official release, a build from Go modules, in this order."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from sandbox.toolchain import cache
from sandbox.toolchain.build import build, fingerprint
from sandbox.toolchain.progress import Progress, ToolchainError, UnavailableError
from sandbox.toolchain.release import ReleaseServer
from sandbox.toolchain.tools import TOOLS, Tool, find_version

_RELEASE = "official release"
_BUILD = "built from Go modules"


@dataclass(frozen=True)
class Found:
    """A tool that is ready to run."""

    tool: Tool
    version: str
    source: str
    """Where it came from, in words for the user."""
    directory: Path
    """Where its first binary is."""
    binaries: Mapping[str, Path]
    on_path: bool
    """Whether the user had it on PATH already."""


@dataclass(frozen=True)
class Toolchain:
    """All tools of the sandbox."""

    found: tuple[Found, ...]

    @property
    def pulumi(self) -> Path:
        """The Pulumi CLI."""
        return self._binary("pulumi")

    @property
    def prometheus(self) -> Path:
        """The Prometheus server."""
        return self._binary("prometheus")

    @property
    def promtool(self) -> Path:
        """Prometheus' checking tool."""
        return self._binary("promtool")

    @property
    def alertmanager(self) -> Path:
        """The Alertmanager."""
        return self._binary("alertmanager")

    @property
    def json_exporter(self) -> Path:
        """The exporter that makes metrics of JSON."""
        return self._binary("json_exporter")

    @property
    def directories(self) -> tuple[Path, ...]:
        """What to put first on PATH; empty when the user had everything there."""
        return tuple(found.directory for found in self.found if not found.on_path)

    def _binary(self, name: str) -> Path:
        return next(found.binaries[name] for found in self.found if name in found.binaries)


def ensure(
    progress: Progress, tools: Iterable[Tool] = TOOLS, environ: Mapping[str, str] = os.environ
) -> Toolchain:
    """Finds, downloads or builds the tools; `progress` takes a line now and then while that takes long.

    Raises ToolchainError when no source has a tool (it says what was tried and what to install), or when a
    download is not what was released.
    """
    server = ReleaseServer(environ)
    return Toolchain(tuple(_ensure(tool, server, progress, environ) for tool in tools))


def installed(tool: Tool, environ: Mapping[str, str] = os.environ) -> Found:
    """The tool as this machine has it, on PATH or in the cache; UnavailableError says what is missing."""
    root = cache.root(environ)
    try:
        return _on_path(tool, root, environ)
    except UnavailableError as error:
        missing = f"on PATH: {error}"
    for source, folder in _folders(tool, root).items():
        if folder.exists():
            return _at(tool, folder, f"{source}, cached")
    raise UnavailableError(f"{missing}; in {root}: no {tool.name}-{tool.version}")


def _ensure(tool: Tool, server: ReleaseServer, progress: Progress, environ: Mapping[str, str]) -> Found:
    try:
        return installed(tool, environ)
    except UnavailableError as error:
        tried = [str(error)]
    root = cache.root(environ)
    with cache.locked(root, tool.name, progress):
        with suppress(UnavailableError):
            return installed(tool, environ)  # made by the process that had the lock
        for source, folder in _folders(tool, root).items():
            try:
                with cache.staged(folder) as directory:
                    if source == _RELEASE:
                        server.fetch(tool, directory, progress)
                    else:
                        build(tool, directory, progress)
                    _check(tool, directory)
            except UnavailableError as error:
                tried.append(f"{source}: {error}")
                progress(f"{tool.name} {tool.version}, {tried[-1]}")
            else:
                return _at(tool, folder, source)
    raise ToolchainError(
        f"{tool.name} cannot be had:\n"
        + "".join(f"  - {line}\n" for line in tried)
        + f"Install {tool.name} {tool.minimum_text} ({tool.website}) or Go (https://go.dev/dl/), "
        f"or let this machine reach {server.base}."
    )


def _folders(tool: Tool, root: Path) -> dict[str, Path]:
    """The sources besides PATH, in their order, and where in the cache each puts the tool."""
    base = root / f"{tool.name}-{tool.version}"
    return {_RELEASE: Path(f"{base}-release"), _BUILD: Path(f"{base}-go-{fingerprint(tool)}")}


def _on_path(tool: Tool, root: Path, environ: Mapping[str, str]) -> Found:
    """The tool as the user has installed it; raises UnavailableError, saying what is missing of it."""
    # A shell that sourced `.sandbox/env` has the cache (an outdated build, maybe) and a sandbox's own folder
    # on its PATH: what lies there is ours and not the user's.
    entries = (Path(entry) for entry in environ.get("PATH", "").split(os.pathsep) if entry)
    theirs = (entry for entry in entries if not entry.is_relative_to(root) and ".sandbox" not in entry.parts)
    path = os.pathsep.join(map(str, theirs))
    binaries: dict[str, Path] = {}
    versions: list[str] = []
    for name in tool.binaries:
        found = shutil.which(name, path=path)
        if found is None:
            raise UnavailableError(f"no {name}")
        said = _version_output(tool, Path(found))
        version = find_version(said)
        if version is None:
            raise UnavailableError(f"{found} does not tell its version")
        versions.append(".".join(map(str, version)))
        if version < tool.minimum or version[0] != tool.minimum[0]:
            raise UnavailableError(f"{found} is {versions[-1]}, needed is {tool.minimum_text}")
        binaries[name] = Path(found)
    first = binaries[tool.binaries[0]]
    for name in tool.companions:
        if not (first.resolve().parent / name).exists() and shutil.which(name, path=path) is None:
            raise UnavailableError(f"{first} comes without {name}")
    return Found(tool, versions[0], "on PATH", first.parent, binaries, on_path=True)


def _at(tool: Tool, folder: Path, source: str) -> Found:
    binaries = {name: folder / name for name in tool.binaries}
    return Found(tool, tool.version, source, folder, binaries, on_path=False)


def _check(tool: Tool, directory: Path) -> None:
    """Refuses a folder whose binaries do not run here or are of another version."""
    for name in tool.binaries:
        said = _version_output(tool, directory / name)
        if find_version(said) != find_version(tool.version):
            raise UnavailableError(f"{name} says it is {said.strip()[:200]!r} instead of {tool.version}")


def _version_output(tool: Tool, binary: Path) -> str:
    # The Pulumi CLI would ask its maker's server for a newer version.
    environ = {**os.environ, "PULUMI_SKIP_UPDATE_CHECK": "true"}
    try:
        result = subprocess.run(
            [binary, tool.version_argument],
            env=environ,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise UnavailableError(f"{binary} does not run: {error}") from error
    if result.returncode != 0:
        raise UnavailableError(f"{binary} {tool.version_argument} ends with status {result.returncode}")
    return result.stdout + result.stderr

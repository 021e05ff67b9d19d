"""Official releases: downloaded, checked against the release's own SHA-256 sums, and only then unpacked."""

from __future__ import annotations

import fnmatch
import hashlib
import http.client
import os
import platform
import shutil
import tarfile
import tempfile
import threading
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import IO
from urllib.parse import urlsplit

from sandbox.toolchain.progress import Progress, ToolchainError, UnavailableError, elapsed
from sandbox.toolchain.tools import Tool

MIRROR = "OVH_VLLM_TOOLCHAIN_MIRROR"
"""Environment variable: base URL (http, https) of a mirror that keeps release files under GitHub's paths."""

_PATIENCE_S = 10.0
"""Seconds for an answer to begin, and between two pieces of it: without internet nobody waits for long."""


class ReleaseServer:
    """Where the official releases are. Once it could not be reached, it is not asked again."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self.base = environ.get(MIRROR, "https://github.com").rstrip("/")
        if urlsplit(self.base).scheme not in ("http", "https") or not urlsplit(self.base).netloc:
            raise ToolchainError(f"{MIRROR} is {self.base!r}: it must be an http or https URL")
        self._unreachable = ""

    def fetch(self, tool: Tool, directory: Path, progress: Progress) -> None:
        """Puts the binaries of the tool into `directory`.

        Raises UnavailableError when the release cannot be had (no network, no such file, not for this kind of
        machine), ToolchainError when it is not what its checksums file says, or is made to write elsewhere.
        """
        architecture = tool.release.architectures.get(platform.machine())
        if architecture is None:
            raise UnavailableError(f"there is none for {platform.machine()}")

        def fill(pattern: str) -> str:
            return pattern.format(version=tool.version, arch=architecture)

        archive_url = f"{self.base}/{fill(tool.release.archive)}"
        checksums_url = f"{self.base}/{fill(tool.release.checksums)}"
        name = archive_url.rpartition("/")[2]
        with self._open(checksums_url) as answer:
            expected = _expected_checksum(_read(answer, checksums_url), name, checksums_url)
        with tempfile.TemporaryFile(dir=directory) as file:
            with elapsed(progress, f"downloading {archive_url}"), self._open(archive_url) as answer:
                actual = _download(answer, file, archive_url)
            if actual != expected:
                raise ToolchainError(
                    f"{archive_url} is not what was released: its SHA-256 is {actual}, {checksums_url} says "
                    f"{expected}. Nothing of it was unpacked or run; look for what altered it on its way."
                )
            file.seek(0)
            _unpack(file, name, fill(tool.release.folder), tool, directory)

    def _open(self, url: str) -> http.client.HTTPResponse:
        if self._unreachable:
            raise UnavailableError(self._unreachable)
        outcome: list[http.client.HTTPResponse | Exception] = []

        def connect() -> None:
            try:
                outcome.append(urllib.request.urlopen(url, timeout=_PATIENCE_S))  # noqa: S310  scheme checked above
            except Exception as error:
                outcome.append(error)

        # Looking up a host name knows no time limit of its own and may take a minute without a network.
        thread = threading.Thread(target=connect, daemon=True)
        thread.start()
        thread.join(_PATIENCE_S)
        result = outcome[0] if outcome else TimeoutError(f"no answer within {_PATIENCE_S:.0f} s")
        if isinstance(result, urllib.error.HTTPError):
            result.close()
            raise UnavailableError(f"{url} answers {result.code} {result.reason}")
        if isinstance(result, Exception):
            self._unreachable = f"cannot reach {self.base}: {getattr(result, 'reason', result)}"
            raise UnavailableError(self._unreachable)
        return result


def _read(answer: http.client.HTTPResponse, url: str) -> bytes:
    try:
        return answer.read()
    except (OSError, http.client.HTTPException) as error:
        raise UnavailableError(f"the download of {url} broke off: {error!r}") from error


def _expected_checksum(checksums: bytes, name: str, url: str) -> str:
    for line in checksums.decode(errors="replace").splitlines():
        digest, _, file = line.partition(" ")
        if file.strip().lstrip("*") == name:
            return digest.lower()
    # Such as the login page of a hotel's network: no release, but no forgery either.
    raise UnavailableError(f"{url} holds no checksum of {name}")


def _download(answer: http.client.HTTPResponse, file: IO[bytes], url: str) -> str:
    """Writes the answer's body to the file; returns its SHA-256 in hex."""
    digest = hashlib.sha256()
    while True:
        try:
            chunk = answer.read(1 << 20)
        except (OSError, http.client.HTTPException) as error:
            raise UnavailableError(f"the download of {url} broke off: {error!r}") from error
        if not chunk:
            break
        digest.update(chunk)
        file.write(chunk)
    # Reading in pieces, http.client takes a connection closed too early for the end of the body.
    if answer.length:
        raise UnavailableError(f"the download of {url} broke off {answer.length} bytes before its end")
    return digest.hexdigest()


def _unpack(file: IO[bytes], name: str, folder: str, tool: Tool, directory: Path) -> None:
    """Writes the wanted files of the archive into `directory`, each under its own plain name.

    Nothing is left to tarfile's extraction: early patch releases of Python 3.11 lack its safe filters.
    """
    patterns = (*tool.binaries, *tool.companions, *tool.release.extras)
    try:
        with tarfile.open(fileobj=file, mode="r:gz") as archive:
            members = archive.getmembers()
            for member in members:
                path = PurePosixPath(member.name)
                if path.is_absolute() or ".." in path.parts:
                    raise ToolchainError(
                        f"{name} holds {member.name!r}, a path that leads out of it: not unpacked"
                    )
            for member in members:
                path = PurePosixPath(member.name)
                wanted = any(fnmatch.fnmatchcase(path.name, pattern) for pattern in patterns)
                content = archive.extractfile(member) if member.isreg() and wanted else None
                if content is not None and path.parent == PurePosixPath(folder):
                    with (directory / path.name).open("wb") as target:
                        shutil.copyfileobj(content, target)
                        os.fchmod(target.fileno(), 0o755)
    except (tarfile.TarError, EOFError, OSError) as error:
        raise UnavailableError(f"{name} cannot be unpacked: {error}") from error
    for required in (*tool.binaries, *tool.companions):
        if not (directory / required).exists():
            raise UnavailableError(f"{name} holds no {folder}/{required}")

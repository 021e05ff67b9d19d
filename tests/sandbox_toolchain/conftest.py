"""A machine of its own for each test: empty cache, empty PATH, a release server on this host."""

from __future__ import annotations

import hashlib
import http.server
import io
import os
import platform
import tarfile
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

import pytest

from sandbox.toolchain.release import MIRROR
from sandbox.toolchain.tools import Tool


def script(said: str) -> bytes:
    """A program that prints `said` and nothing else."""
    return f"#!/bin/sh\necho '{said}'\n".encode()


def executable(path: Path, content: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    path.chmod(0o755)
    return path


def archive(files: Mapping[str, bytes]) -> bytes:
    """A .tar.gz with these members."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


@dataclass
class Machine:
    """What a test arranges: files on PATH, releases on the server."""

    directory: Path
    server: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    """URL path to content."""
    cut: set[str] = field(default_factory=set)
    """URL paths whose connection closes half-way."""
    asked: list[str] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)
    """What was reported as progress."""

    @property
    def bin(self) -> Path:
        return self.directory / "bin"

    @property
    def cache(self) -> Path:
        return self.directory / "cache" / "ovh-vllm" / "toolchain"

    @property
    def environ(self) -> dict[str, str]:
        """PATH holds what the test put into `bin`, and a shell for scripts."""
        return {
            "PATH": f"{self.bin}:/bin:/usr/bin",
            "XDG_CACHE_HOME": str(self.directory / "cache"),
            MIRROR: self.server,
        }

    def install(self, name: str, said: str) -> None:
        executable(self.bin / name, script(said))

    def install_go(self, said: str) -> None:
        """A Go that builds every package to a program that prints `said`."""
        fake = f"""#!/bin/sh
echo "$@" >> {self.directory}/go.log
[ "$1" = list ] && echo {self.directory}/module && exit
while [ "$1" != -o ]; do shift; done
out=$2; shift 2
for package; do
    printf '#!/bin/sh\\necho "{said}"\\n' > "$out${{package##*/}}"
    chmod 755 "$out${{package##*/}}"
done
"""
        executable(self.bin / "go", fake.encode())
        executable(self.directory / "module/python/dist/pulumi-resource-pulumi-python", b"#!/bin/sh\n")

    def slow_down_go(self) -> IO[bytes]:
        """Makes each call of Go wait for a line that is written to the pipe returned."""
        fifo = self.directory / "fifo"
        os.mkfifo(fifo)
        go = self.bin / "go"
        go.write_text(go.read_text().replace("\n", f"\nread line < {fifo}\n", 1))
        # Open for reading as well, it neither blocks nor loses a line when no Go is waiting.
        return os.fdopen(os.open(fifo, os.O_RDWR), "wb", buffering=0)

    def release(self, tool: Tool, files: Mapping[str, bytes], checksum: str | None = None) -> str:
        """Publishes an archive with these files in its top folder; returns the URL path of the archive."""
        folder = self._fill(tool, tool.release.folder)
        return self.publish(
            tool, archive({f"{folder}/{name}": data for name, data in files.items()}), checksum
        )

    def publish(self, tool: Tool, content: bytes, checksum: str | None = None) -> str:
        """Publishes `content` as the tool's archive, with its true checksum unless another is given."""
        path = "/" + self._fill(tool, tool.release.archive)
        digest = checksum or hashlib.sha256(content).hexdigest()
        lines = f"{'0' * 64}  another.tar.gz\n{digest}  {path.rpartition('/')[2]}\n"
        self.files |= {path: content, "/" + self._fill(tool, tool.release.checksums): lines.encode()}
        return path

    def _fill(self, tool: Tool, pattern: str) -> str:
        return pattern.format(version=tool.version, arch=tool.release.architectures[platform.machine()])


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Machine]:
    result = Machine(tmp_path)

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            result.asked.append(self.path)
            content = result.files.get(self.path)
            self.send_response(404 if content is None else 200)
            self.send_header("Content-Length", str(len(content or b"")))
            self.end_headers()
            self.wfile.write(
                (content or b"")[: len(content or b"") // 2 if self.path in result.cut else None]
            )

        def log_message(self, format: str, *args: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        result.server = f"http://127.0.0.1:{server.server_address[1]}"
        threading.Thread(target=server.serve_forever, args=[0.01], daemon=True).start()
        for name, value in result.environ.items():
            monkeypatch.setenv(name, value)
        yield result
        server.shutdown()

"""The sandbox's Pulumi project: a folder of its own, so that the CLI never writes a tracked file.

Even `pulumi preview` writes an encryption salt into the stack file. The folder holds copies of the stack
files and a project file whose `main` points back to the checkout. A copy follows its original.
"""

from __future__ import annotations

import hashlib
import json
import os
import shlex
import stat
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

CHECKOUT = Path(__file__).resolve().parents[1]
"""The checkout that holds the program."""
STACKS = ("sandbox", "dev", "prod")
"""Stacks that a sandbox initializes."""


@dataclass(frozen=True)
class Folder:
    """Where a sandbox keeps everything that it writes, but for the toolchain. One folder is one sandbox."""

    root: Path = CHECKOUT / ".sandbox"

    @property
    def project(self) -> Path:
        """The Pulumi project: a project file and copies of the stack files."""
        return self.root / "project"

    @property
    def state(self) -> Path:
        """Pulumi's backend."""
        return self.root / "state"

    @property
    def pulumi_home(self) -> Path:
        """PULUMI_HOME with the stand-in plugins."""
        return self.root / "pulumi"

    @property
    def bin(self) -> Path:
        """Holds `pulumi`, which brings the copies up to date before it runs the real one."""
        return self.root / "bin"

    @property
    def environment(self) -> Path:
        """Shell exports for the plain CLI."""
        return self.root / "env"

    @property
    def connection(self) -> Path:
        """How to reach the local cloud, see `sandbox.connection`."""
        return self.root / "connection.json"

    @property
    def log(self) -> Path:
        """Log of the local cloud."""
        return self.root / "log" / "cloud.log"


def write_private(path: Path, text: str, mode: int = 0o600) -> None:
    """Replaces a file in one step, with `mode` from its first byte on."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
    temporary.rename(path)


def sync(folder: Folder) -> None:
    """Writes the project file, and the copy of each stack file whose original changed since the last copy."""
    project = yaml.safe_load((CHECKOUT / "Pulumi.yaml").read_text())
    project["main"] = os.path.relpath(CHECKOUT, folder.project)
    project["runtime"]["options"]["virtualenv"] = str(CHECKOUT / ".venv")
    _write_if_different(folder.project / "Pulumi.yaml", yaml.safe_dump(project, sort_keys=False))
    # Digest of each original at the time of its last copy.
    record = folder.project / ".copied.json"
    copied: dict[str, str] = json.loads(record.read_text()) if record.exists() else {}
    for original in CHECKOUT.glob("Pulumi.*.yaml"):
        copy = folder.project / original.name
        text = original.read_text()
        digest = hashlib.sha256(text.encode()).hexdigest()
        if not copy.exists() or copied.get(original.name) != digest:
            write_private(copy, _merge(text, copy.read_text() if copy.exists() else ""))
            copied[original.name] = digest
    _write_if_different(record, json.dumps(copied))


_ENCRYPTION = ("encryptionsalt", "secretsprovider", "encryptedkey")
"""What a stack file says about the encryption of its secrets."""


def _merge(original: str, previous: str) -> str:
    """The original without what another passphrase encrypted, and with the salt and secrets of the copy."""
    content: dict[str, Any] = yaml.safe_load(original) or {}
    old: dict[str, Any] = yaml.safe_load(previous) or {}
    config = {key: value for key, value in (content.get("config") or {}).items() if not _is_secret(value)}
    secrets = {key: value for key, value in (old.get("config") or {}).items() if _is_secret(value)}
    merged = {key: value for key, value in content.items() if key not in _ENCRYPTION}
    merged |= {key: old[key] for key in _ENCRYPTION if key in old}
    return yaml.safe_dump(merged | {"config": secrets | config}, sort_keys=False, allow_unicode=True)


def _is_secret(value: Any) -> bool:
    """Whether a configuration value is encrypted, or holds something that is."""
    match value:
        case dict():
            return "secure" in value or any(map(_is_secret, value.values()))
        case list():
            return any(map(_is_secret, value))
        case _:
            return False


def _write_if_different(path: Path, text: str) -> None:
    if not path.exists() or path.read_text() != text:
        write_private(path, text)


def write_wrapper(folder: Folder, pulumi: Path, python: Path) -> None:
    """Puts a `pulumi` into the folder's `bin` that calls `sync` before it runs the real one."""
    checkout, root = shlex.quote(str(CHECKOUT)), shlex.quote(str(folder.root))
    script = f"""#!/bin/sh
PYTHONPATH={checkout} {shlex.quote(str(python))} -m sandbox.project {root} || exit
exec {shlex.quote(str(pulumi))} "$@"
"""
    path = folder.bin / "pulumi"
    if not path.exists() or path.read_text() != script:
        write_private(path, script, mode=stat.S_IRWXU)


def write_environment(folder: Folder, variables: Mapping[str, str], path: list[Path]) -> None:
    """Writes `env`: shell exports of the variables, with `path` put first on PATH; mode 600."""
    lines = [f"export {name}={shlex.quote(value)}" for name, value in variables.items()]
    lines.append(f"export PATH={shlex.quote(os.pathsep.join(map(str, path)))}:$PATH")
    write_private(folder.environment, "\n".join(lines) + "\n")


if __name__ == "__main__":
    sync(Folder(Path(sys.argv[1])))

"""The sandbox's Pulumi project: a folder of its own, so that the CLI never writes a tracked file.

Even `pulumi preview` writes an encryption salt into the stack file. The folder holds copies of the stack
files and a project file whose `main` points back to the checkout. A copy follows its original.
"""

from __future__ import annotations

import hashlib
import json
import os
import shlex
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from sandbox.files import write_if_different, write_private

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
    def dashboards(self) -> Path:
        """The dashboards as a page, when somebody has asked for them."""
        return self.root / "dashboards.html"

    @property
    def settings(self) -> Path:
        """What the local cloud was started with, see `sandbox.settings`; none if it was given no file."""
        return self.root / "settings.toml"

    @property
    def connection(self) -> Path:
        """How to reach the local cloud, see `sandbox.connection`."""
        return self.root / "connection.json"

    @property
    def log(self) -> Path:
        """Log of the local cloud."""
        return self.root / "log" / "cloud.log"


class ProjectError(Exception):
    """The plain CLI cannot run on the sandbox's project; the text says why and what to do."""


def sync(folder: Folder) -> None:
    """Writes the project file, and the copy of each stack file whose original changed since the last copy."""
    project = _load(CHECKOUT / "Pulumi.yaml")
    project["main"] = os.path.relpath(CHECKOUT, folder.project)
    project["runtime"]["options"]["virtualenv"] = str(CHECKOUT / ".venv")
    write_if_different(folder.project / "Pulumi.yaml", yaml.safe_dump(project, sort_keys=False))
    # Digest of each original at the time of its last copy.
    record = folder.project / ".copied.json"
    copied: dict[str, str] = json.loads(record.read_text()) if record.exists() else {}
    for original in CHECKOUT.glob("Pulumi.*.yaml"):
        copy = folder.project / original.name
        digest = hashlib.sha256(original.read_bytes()).hexdigest()
        if not copy.exists() or copied.get(original.name) != digest:
            merged = _merge(_load(original), _load(copy) if copy.exists() else {})
            write_private(copy, yaml.safe_dump(merged, sort_keys=False, allow_unicode=True))
            copied[original.name] = digest
    write_if_different(record, json.dumps(copied))


_ENCRYPTION = ("encryptionsalt", "secretsprovider", "encryptedkey")
"""What a stack file says about the encryption of its secrets."""


def _load(path: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ProjectError(f"{path} is not valid YAML: {error}") from error
    if not isinstance(content, dict) or not isinstance(content.get("config") or {}, dict):
        raise ProjectError(f"{path}: a file of keys with values is needed, and such a section `config`")
    return content


def _merge(original: Mapping[str, Any], previous: Mapping[str, Any]) -> dict[str, Any]:
    """The original without what another passphrase encrypted, and with the salt and secrets of the copy."""
    config = {key: value for key, value in (original.get("config") or {}).items() if not _is_secret(value)}
    secrets = {key: value for key, value in (previous.get("config") or {}).items() if _is_secret(value)}
    merged = {key: value for key, value in original.items() if key not in _ENCRYPTION}
    merged |= {key: previous[key] for key in _ENCRYPTION if key in previous}
    return merged | {"config": secrets | config}


def _is_secret(value: Any) -> bool:
    """Whether a configuration value is encrypted, or holds something that is."""
    match value:
        case dict():
            return "secure" in value or any(map(_is_secret, value.values()))
        case list():
            return any(map(_is_secret, value))
        case _:
            return False


def write_wrapper(folder: Folder, pulumi: Path) -> None:
    """Puts a `pulumi` into the folder's `bin` that calls `sync` before it runs the real one."""
    checkout, root = shlex.quote(str(CHECKOUT)), shlex.quote(str(folder.root))
    script = f"""#!/bin/sh
PYTHONPATH={checkout} {shlex.quote(sys.executable)} -m sandbox.project {root} || exit
exec {shlex.quote(str(pulumi))} "$@"
"""
    write_if_different(folder.bin / "pulumi", script, mode=0o700)


def write_environment(folder: Folder, variables: Mapping[str, str], path: list[Path]) -> None:
    """Writes `env`: shell exports of the variables, with `path` put first on PATH; mode 600."""
    lines = [f"export {name}={shlex.quote(value)}" for name, value in variables.items()]
    lines.append(f"export PATH={shlex.quote(os.pathsep.join(map(str, path)))}:$PATH")
    write_private(folder.environment, "\n".join(lines) + "\n")


def main() -> int:
    """`python -m sandbox.project FOLDER`: what has to be right before each command of the plain CLI."""
    folder = Folder(Path(sys.argv[1]))
    try:
        # An older shell has the ports and the passphrase of a local cloud that has ended.
        if os.environ.get("SANDBOX_API_URL") != json.loads(folder.connection.read_text())["api"]:
            raise ProjectError(
                "this shell does not know the sandbox that runs now, or knows the one before: "
                f"run `. {shlex.quote(str(folder.environment))}`"
            )
        sync(folder)
    except ProjectError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

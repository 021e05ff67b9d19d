"""How the commands, the Pulumi engine and the user reach the local cloud."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Self

from sandbox.files import write_private


@dataclass(frozen=True)
class Connection:
    """Address and credentials of a running local cloud; the cloud writes it, mode 600, once it listens."""

    api: str
    """Base URL of the emulator without path, `http://127.0.0.1:<port>`."""
    ai_api: str
    """Base URL of AI Deploy's native API without path, `https://127.0.0.1:<port>`."""
    service_name: str
    application_key: str
    application_secret: str = field(repr=False)
    consumer_key: str = field(repr=False)
    passphrase: str = field(repr=False)
    """Encrypts the secrets in the state of the sandbox's stacks."""
    ca_bundle: str
    """File with the system's certificate authorities and the sandbox's own."""

    @classmethod
    def read(cls, path: Path) -> Self:
        """Reads what `write` wrote."""
        return cls(**json.loads(path.read_text()))

    def write(self, path: Path) -> None:
        """Replaces the file in one step."""
        write_private(path, json.dumps(asdict(self)))


@dataclass(frozen=True)
class Addresses:
    """Where the API and the monitoring of a cluster listen (base URLs without trailing slash)."""

    api: str
    prometheus: str
    alertmanager: str

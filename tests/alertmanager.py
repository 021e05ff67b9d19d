"""A real Alertmanager with a configuration of ours, and alerts that are sent to it."""

from __future__ import annotations

import contextlib
import json
import re
import subprocess
import time
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

import pytest
import yaml

from sandbox.toolchain import ensure
from sandbox.toolchain.tools import ALERTMANAGER

MOUNTED = "/etc/alertmanager/secrets"
"""Where the operator mounts the Secrets that the Alertmanager resource names."""

_SECONDS = 30
"""How long an alert may take to be known, on a machine that is busy."""


def leaves(value: Any, key: str = "") -> Iterator[tuple[str, str]]:
    """Texts of a document with the keys they stand under."""
    match value:
        case dict():
            for name, item in value.items():
                yield from leaves(item, name)
        case list():
            for item in value:
                yield from leaves(item, key)
        case _:
            yield key, str(value)


def files(config: Any) -> set[PurePosixPath]:
    """The files that a configuration reads secrets from."""
    return {PurePosixPath(text) for key, text in leaves(config) if key.endswith("_file")}


class Alertmanager:
    """One that runs."""

    def __init__(self, url: str) -> None:
        self._url = url

    def receivers(self) -> set[str]:
        """The names of all receivers."""
        return {receiver["name"] for receiver in self._get("receivers")}

    def send(self, *alerts: Mapping[str, str]) -> None:
        """Makes alerts with these labels fire."""
        body = json.dumps([{"labels": labels} for labels in alerts]).encode()
        request = urllib.request.Request(
            f"{self._url}/api/v2/alerts", body, {"Content-Type": "application/json"}
        )
        urllib.request.urlopen(request, timeout=10).close()

    def alerts(self) -> dict[str, Any]:
        """What fires, by label `id`."""
        return {alert["labels"]["id"]: alert for alert in self._get("alerts")}

    def silent(self) -> set[str]:
        """Label `id` of those that fire and that nobody is told of, because another one fires."""
        # Alerts are looked at one after another, some time after they came: once this one silences the other,
        # all are known that were sent before.
        known = {"alertname": "InfoInhibitor", "namespace": "sent-last", "id": "sent-last"}
        self.send(known, {"severity": "info", "namespace": "sent-last", "id": "last"})
        give_up = time.monotonic() + _SECONDS
        while not (alerts := self.alerts())["last"]["status"]["inhibitedBy"]:
            if time.monotonic() > give_up:
                pytest.fail(f"InfoInhibitor silences nothing within {_SECONDS} s")
            time.sleep(0.02)
        return {key for key, alert in alerts.items() if alert["status"]["inhibitedBy"]} - {
            "sent-last",
            "last",
        }

    def _get(self, what: str) -> Any:
        with urllib.request.urlopen(f"{self._url}/api/v2/{what}", timeout=10) as answer:
            return json.load(answer)


@contextlib.contextmanager
def running(config: str, directory: Path) -> Iterator[Alertmanager]:
    """Alertmanager when it has loaded the configuration, with the files that this names."""
    secrets = directory / "secrets"
    for path in files(yaml.safe_load(config)):
        file = secrets / path.relative_to(MOUNTED)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("http://127.0.0.1:9/nobody")
    file = directory / "alertmanager.yaml"
    file.write_text(config.replace(MOUNTED, str(secrets)))
    process = subprocess.Popen(
        [
            ensure(lambda line: None, [ALERTMANAGER]).alertmanager,
            f"--config.file={file}",
            f"--storage.path={directory}/data",
            "--web.listen-address=127.0.0.1:0",
            "--cluster.listen-address=",
        ],
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    try:
        said = ""
        for line in process.stderr:  # it ends when the configuration is refused
            said += line
            if "Listening on" in line:
                (address,) = re.findall(r"address=(\S+)", line)
                break
        else:
            pytest.fail(f"Alertmanager refuses the configuration:\n{said}")
        yield Alertmanager(f"http://{address}")
    finally:
        process.terminate()
        process.communicate()

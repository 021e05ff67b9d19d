"""A Pulumi CLI of a test's own."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from components.settings import PROJECT
from tests.components.stacks import configuration


def install(directory: Path, script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes the shell script the `pulumi` that is found first; it need not know its version."""
    directory.mkdir(exist_ok=True)
    program = directory / "pulumi"
    program.write_text(f'#!/bin/sh\nif [ "$1" = version ]; then echo v3.999.0; exit; fi\n{script}\n')
    program.chmod(0o700)
    monkeypatch.setenv("PATH", f"{directory}{os.pathsep}{os.environ['PATH']}")


def know(
    directory: Path,
    monkeypatch: pytest.MonkeyPatch,
    outputs: Mapping[str, Any],
    resources: Sequence[Mapping[str, Any]] = (),
    **changes: str,
) -> None:
    """A CLI that knows one stack, `prod`, with the tracked settings but for `changes`."""
    values = {f"{PROJECT}:{key}": value for key, value in (configuration("prod") | changes).items()}
    answers = {
        "config": {key: {"value": value, "secret": False} for key, value in values.items()},
        "output": outputs,
        "export": {"version": 3, "deployment": {"resources": resources}},
    }
    directory.mkdir(exist_ok=True)
    for name, answer in answers.items():
        (directory / f"{name}.json").write_text(json.dumps(answer))
    install(
        directory,
        f"""case "$*" in *"-s prod "*) ;; *) echo "error: no stack named '…' found" >&2; exit 255;; esac
case "$1" in config) cat "{directory}/config.json";; *) cat "{directory}/$2.json";; esac""",
        monkeypatch,
    )

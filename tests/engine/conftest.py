"""A sandbox of the test run's own, so that the one of the user is left alone."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from sandbox.engine import Engine
from sandbox.project import CHECKOUT, Folder
from sandbox.sandbox import Sandbox
from sandbox.toolchain import Toolchain, ensure

CANARY = "hf_canary0123456789"
"""Hugging Face token of the test run; must be found nowhere in clear."""


def at_speed(speed: int, folder: Path) -> Path:
    """A settings file for a local cloud of that speed, beside its folder."""
    path = folder.with_suffix(".toml")
    path.write_text(f"speed = {speed}\n")
    return path


def loud(directory: Path, handler: str) -> dict[str, str]:
    """Environment variables that make every Python process log at DEBUG, from its start on.

    `handler` is the argument of `logging.basicConfig` that says where to, as source code.
    """
    directory.mkdir()
    script = f"import logging, os, sys\nlogging.basicConfig(level=logging.DEBUG, {handler})\n"
    (directory / "sitecustomize.py").write_text(script)
    return {"PYTHONPATH": os.pathsep.join([str(directory), *filter(None, [os.environ.get("PYTHONPATH")])])}


def git_status() -> str:
    """What git thinks of the checkout."""
    command = ["git", "status", "--porcelain"]
    return subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, check=True).stdout


@dataclass(frozen=True)
class Deployment:
    """A running sandbox and its engine."""

    sandbox: Sandbox
    engine: Engine
    git_status_before: str

    def kinds(self) -> list[str]:
        """Kinds of everything that exists in the local cloud, sorted."""
        return sorted(thing["kind"] for thing in self.sandbox.resources())

    def state(self) -> list[dict[str, Any]]:
        """The resources in the state of the stack `sandbox`, secrets shown."""
        exported = self.engine.capture("stack", "export", "-s", "sandbox", "--show-secrets")
        resources: list[dict[str, Any]] = _shown(json.loads(exported)["deployment"]["resources"])
        return resources


def _shown(value: Any) -> Any:
    """A value of an exported state without what marks secrets."""
    match value:
        case {"plaintext": str(text)}:
            return _shown(json.loads(text))
        case dict():
            return {key: _shown(item) for key, item in value.items()}
        case list():
            return [_shown(item) for item in value]
        case _:
            return value


@pytest.fixture(scope="session")
def toolchain() -> Toolchain:
    return ensure(lambda line: None)


@pytest.fixture(scope="session")
def deployment(toolchain: Toolchain, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    """A running sandbox to which the stack `sandbox` has been deployed."""
    before = git_status()
    folder = tmp_path_factory.mktemp("deployment") / "sandbox"
    sandbox = Sandbox(Folder(folder))
    with pytest.MonkeyPatch.context() as environment:
        # So that what its log does not hold is in it at no level.
        for name, value in loud(folder.with_name("loud"), "stream=sys.stderr").items():
            environment.setenv(name, value)
        sandbox.start(at_speed(300, folder))
    try:
        engine = sandbox.engine(toolchain)
        engine = Engine(engine.pulumi, {**engine.environment, "HF_TOKEN": CANARY})
        engine.capture("up", "-s", "sandbox", "--yes", "--skip-preview", "--continue-on-error")
        yield Deployment(sandbox, engine, before)
    finally:
        sandbox.remove()

"""A sandbox of the test run's own, so that the one of the user is left alone."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

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


@pytest.fixture(scope="session")
def toolchain() -> Toolchain:
    return ensure(lambda line: None)


@pytest.fixture(scope="session")
def deployment(toolchain: Toolchain, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    """A running sandbox to which the stack `sandbox` has been deployed."""
    before = git_status()
    folder = tmp_path_factory.mktemp("deployment") / "sandbox"
    sandbox = Sandbox(Folder(folder))
    sandbox.start(at_speed(1000, folder))
    try:
        engine = sandbox.engine(toolchain)
        engine = Engine(engine.pulumi, {**engine.environment, "HF_TOKEN": CANARY})
        engine.capture("up", "-s", "sandbox", "--yes", "--skip-preview", "--continue-on-error")
        yield Deployment(sandbox, engine, before)
    finally:
        sandbox.remove()

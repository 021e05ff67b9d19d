"""The virtual environment: what an interrupted installation left is never taken for finished."""

from __future__ import annotations

import signal
import subprocess
import venv
from collections.abc import Callable
from pathlib import Path

import pytest

from sandbox.toolchain import environment

Pip = Callable[[], int]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the environment is made, by a `venv` that makes nothing."""
    folder = tmp_path / ".venv"
    monkeypatch.setattr(environment, "_ENVIRONMENT", folder)
    monkeypatch.setattr(environment, "_UNFINISHED", folder / ".unfinished")
    monkeypatch.setattr(venv, "create", lambda *_, **__: None)
    return folder


@pytest.fixture
def install(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Pip], int]:
    """Runs the module with such a pip; returns its exit status."""

    def run(pip: Pip) -> int:
        monkeypatch.setattr(subprocess, "run", lambda words: subprocess.CompletedProcess(words, pip()))
        return environment.main()

    return run


def test_after_an_interruption_the_next_run_begins_anew(
    folder: Path, install: Callable[[Pip], int], capsys: pytest.CaptureFixture[str]
) -> None:
    package = folder / "lib" / "half-1.0.dist-info" / "METADATA"

    def interrupted() -> int:
        package.parent.mkdir(parents=True)
        package.touch()
        raise KeyboardInterrupt

    assert install(interrupted) == 128 + signal.SIGINT
    assert capsys.readouterr().err == "\ninterrupted: run the command again to go on\n"
    # 7: what was half installed is there still when pip begins.
    assert install(lambda: 7 if package.exists() else 0) == 0
    assert list(folder.iterdir()) == []


def test_a_pip_that_was_killed_has_not_finished_either(folder: Path, install: Callable[[Pip], int]) -> None:
    assert install(lambda: -signal.SIGKILL) != 0
    (folder / "half").touch()
    assert install(lambda: 0) == 0
    assert not (folder / "half").exists()


@pytest.mark.parametrize("status", [0, 1])
def test_what_a_run_that_ended_left_is_kept(folder: Path, install: Callable[[Pip], int], status: int) -> None:
    assert install(lambda: status) == status
    (folder / "tool").touch()
    assert install(lambda: 0) == 0
    assert (folder / "tool").exists()

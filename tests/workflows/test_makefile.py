"""The make targets say what they lack in make's own words, and work on what the user means."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from sandbox.__main__ import environment
from sandbox.processes import ProcessError
from sandbox.project import Folder
from sandbox.sandbox import Sandbox

ROOT = Path(__file__).resolve().parents[2]


def make(*arguments: str) -> subprocess.CompletedProcess[str]:
    variables = {
        name: value
        for name, value in os.environ.items()
        if name not in ("STACK", "URL", "CHART", "MAKEFLAGS")
    }
    command = ["make", "--no-print-directory", *arguments]
    return subprocess.run(command, cwd=ROOT, env=variables, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("arguments", "missing"),
    [
        *(([target], "STACK") for target in ("rehearse", "doctor", "preview", "deploy", "drift", "recover")),
        (["calibrate"], "RESULT"),
        (["verify-chart"], "CHART"),
        (["issue", "STACK=dev"], "COMMENT"),
        (["comment", "COMMENT=file.md", "PULL_REQUEST=1"], "STACK"),
        (["comment", "STACK=dev", "COMMENT=file.md"], "PULL_REQUEST"),
    ],
    ids=lambda value: value if isinstance(value, str) else "-".join(value),
)
def test_what_a_target_cannot_do_without_is_named(arguments: list[str], missing: str) -> None:
    said = make(*arguments)
    assert said.returncode == 2
    assert said.stderr.startswith(f"{missing} is missing: make {arguments[0]} ")
    assert f" {missing}=" in said.stderr
    assert said.stdout == ""


@pytest.mark.parametrize(
    ("arguments", "variable"), [(["rehearse", "STACK=prod"], "SWEEP"), (["loadtest", "STACK=prod"], "STREAM")]
)
def test_what_is_neither_yes_nor_no_is_refused(arguments: list[str], variable: str) -> None:
    said = make(*arguments, "RUN=echo", f"{variable}=maybe")
    assert (said.returncode, said.stdout) == (2, "")
    assert said.stderr.startswith(f"{variable}=maybe: yes or no is needed\n")
    option = f"--no-{variable.lower()}"
    for given, wanted in ((f"{variable}=no", True), (f"{variable}=yes", False), (f"{variable}=", False)):
        said = make(*arguments, "RUN=echo", given)
        assert (said.returncode, option in said.stdout) == (0, wanted)


def executable(path: Path, script: str) -> Path:
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o700)
    return path


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ([], "the sandbox's -m loadtest --stack sandbox"),
        (["STACK=prod"], "this shell's -m loadtest --stack prod"),
        (["URL=https://host/v1", "MODEL=m"], "this shell's -m loadtest --url https://host/v1 --model m"),
    ],
    ids=str,
)
def test_a_load_test_of_nothing_else_is_one_of_the_sandbox(
    tmp_path: Path, given: list[str], wanted: str
) -> None:
    exports = tmp_path / "env"
    exports.write_text('export WHOSE="the sandbox\'s"\n')
    sandbox = executable(tmp_path / "sandbox", f'[ "$1" = environment ] && echo {exports}')
    run = executable(tmp_path / "run", 'echo "${WHOSE:-this shell\'s} $*"')
    said = make("loadtest", f"SANDBOX={sandbox}", f"RUN={run}", *given)
    assert (said.returncode, said.stdout) == (0, f"{wanted}\n")


def test_without_a_sandbox_a_load_test_says_what_can_be_tested(tmp_path: Path) -> None:
    with pytest.raises(ProcessError, match="no sandbox runs: start one with `make sandbox`"):
        environment(Sandbox(Folder(tmp_path)))
    said = make("loadtest", "SANDBOX=false", "RUN=false")
    assert said.returncode != 0
    assert said.stderr.startswith("or say what to test: STACK=prod or URL=https://host/v1\n")


def test_a_sandbox_that_has_ended_is_not_tested(tmp_path: Path) -> None:
    """A machine that went down leaves the folder, with the state of the stack in it."""
    folder = Folder(tmp_path)
    folder.environment.write_text("export SANDBOX_API_URL=http://127.0.0.1:9\n")
    with pytest.raises(ProcessError, match="no sandbox runs"):
        environment(Sandbox(folder))

"""The CLI that works on a stack is the one that the user means, and says why it does not."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from sandbox.toolchain import ToolchainError
from stacks import cli
from stacks.cli import Cli, NoCliError, PulumiError, secrets
from tests.stacks.programs import install

CANARY = "canary-passphrase"


def refusal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> str:
    install(tmp_path, script, monkeypatch)
    with pytest.raises(PulumiError) as error:
        Cli.find().query("stack", "output")
    return str(error.value)


def test_the_cli_of_path_runs_the_program_with_this_python(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(tmp_path, 'echo "[\\"$PATH\\"]"', monkeypatch)
    found = Cli.find()
    assert found.program == str(tmp_path / "pulumi")
    assert found.query("stack", "output")[0].split(os.pathsep)[0] == str(Path(sys.executable).parent)


def test_without_one_it_is_the_toolchain_s(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def nowhere(*_: object) -> None:
        raise ToolchainError("pulumi cannot be had: install it")

    monkeypatch.setattr(cli, "ensure", nowhere)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(NoCliError, match="install it"):
        Cli.find()


def test_a_cli_that_refuses_to_run_is_not_replaced_by_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That of a sandbox refuses a shell of the sandbox before it; the toolchain's would work elsewhere."""
    install(tmp_path, "", monkeypatch)
    (tmp_path / "pulumi").write_text("#!/bin/sh\necho 'the sandbox was started anew' >&2; exit 1\n")
    with pytest.raises(PulumiError, match="pulumi: the sandbox was started anew"):
        Cli.find()


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("echo 'error: no stack named x' >&2; exit 255", "no stack named x"),
        ("echo warning >&2; printf 'error: one\\n  two\\n' >&2; exit 1", "one two"),
        ("printf 'first\\nlast\\n' >&2; exit 1", "last"),
        ("exit 3", "status 3"),
        ("echo no JSON", "`pulumi stack output` did not answer with JSON"),
    ],
)
def test_an_error_is_told_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, said: str
) -> None:
    assert refusal(tmp_path, monkeypatch, script) == said


def test_no_secret_is_repeated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PULUMI_CONFIG_PASSPHRASE", CANARY)
    assert secrets({"PULUMI_CONFIG_PASSPHRASE": CANARY, "PULUMI_HOME": "/home", "HF_TOKEN": ""}) == [CANARY]
    said = refusal(tmp_path, monkeypatch, 'echo "error: $PULUMI_CONFIG_PASSPHRASE is wrong" >&2; exit 1')
    assert CANARY not in repr(Cli.find())
    assert said == "*** is wrong"


def test_the_news_of_a_newer_version_are_not_taken_for_the_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = (
        "echo 'error: no stack' >&2; [ -n \"$PULUMI_SKIP_UPDATE_CHECK\" ] || echo 'warning: new' >&2; exit 1"
    )
    assert refusal(tmp_path, monkeypatch, script) == "no stack"

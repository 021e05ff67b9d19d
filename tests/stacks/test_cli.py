"""The CLI that works on a stack is the one that the user means, and says why it does not."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from sandbox.toolchain import ToolchainError
from stacks import cli
from stacks.cli import Cli, NoCliError, PulumiError, UnknownStackError, secrets, without_backend
from tests.stacks.programs import install

CANARY = "canary-passphrase"
NOWHERE = "no backend is chosen: `. .sandbox/env` for the sandbox, docs/going-live.md step 5 for the cloud"


@pytest.fixture(autouse=True)
def a_backend(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine whose user has chosen a backend by its variable, and by nothing else."""
    for name in ("PULUMI_ACCESS_TOKEN", "PULUMI_CREDENTIALS_PATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PULUMI_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("PULUMI_BACKEND_URL", "file:///state")


def refusal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> str:
    install(tmp_path, script, monkeypatch)
    with pytest.raises(PulumiError) as error:
        Cli.find("prod").query("stack", "output")
    return str(error.value)


def test_the_cli_of_path_runs_the_program_with_this_python(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(tmp_path, 'echo "[\\"$PATH\\"]"', monkeypatch)
    found = Cli.find("prod")
    assert found.program == str(tmp_path / "pulumi")
    assert found.query("stack", "output")[0].split(os.pathsep)[0] == str(Path(sys.executable).parent)


def test_without_one_it_is_the_toolchain_s(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def nowhere(*_: object) -> None:
        raise ToolchainError("pulumi cannot be had: install it")

    monkeypatch.setattr(cli, "ensure", nowhere)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(NoCliError, match="install it"):
        Cli.find("prod")


def test_a_cli_that_refuses_to_run_is_not_replaced_by_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That of a sandbox refuses a shell of the sandbox before it; the toolchain's would work elsewhere."""
    install(tmp_path, "", monkeypatch)
    (tmp_path / "pulumi").write_text("#!/bin/sh\necho 'the sandbox was started anew' >&2; exit 1\n")
    with pytest.raises(PulumiError, match="pulumi: the sandbox was started anew"):
        Cli.find("prod")


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("echo 'error: no stack named x' >&2; exit 255", "no stack named x"),
        ("echo warning >&2; printf 'error: one\\n  two\\n' >&2; exit 1", "one two"),
        ("printf 'first\\nlast\\n  ^\\n' >&2; exit 1", "first last ^"),
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
    assert CANARY not in repr(Cli.find("prod"))
    assert said == "*** is wrong"


def test_the_news_of_a_newer_version_are_not_taken_for_the_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = (
        "echo 'error: no stack' >&2; [ -n \"$PULUMI_SKIP_UPDATE_CHECK\" ] || echo 'warning: new' >&2; exit 1"
    )
    assert refusal(tmp_path, monkeypatch, script) == "no stack"


def test_where_no_backend_is_chosen_a_failure_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = "echo 'error: PULUMI_ACCESS_TOKEN must be set' >&2; exit 1"
    assert refusal(tmp_path, monkeypatch, script) == "PULUMI_ACCESS_TOKEN must be set"
    monkeypatch.delenv("PULUMI_BACKEND_URL")
    assert refusal(tmp_path, monkeypatch, script) == f"PULUMI_ACCESS_TOKEN must be set; {NOWHERE}"
    assert without_backend({**os.environ, "PULUMI_ACCESS_TOKEN": CANARY}) == ""
    login = tmp_path / "home" / "credentials.json"
    login.parent.mkdir()
    login.write_text('{"current": "https://api.pulumi.com"}')
    assert without_backend() == ""
    login.write_text('{"current": ""}')
    assert without_backend() == NOWHERE


def test_a_stack_without_a_file_is_told_before_there_is_a_cli(monkeypatch: pytest.MonkeyPatch) -> None:
    def build(*_: object) -> None:
        raise AssertionError("a toolchain is made for a slip of the pen")

    monkeypatch.setattr(cli, "ensure", build)
    monkeypatch.setenv("PATH", "")
    with pytest.raises(UnknownStackError, match=r"no Pulumi\.nope\.yaml; the stacks are dev, prod, sandbox$"):
        Cli.find("nope")


def test_a_stack_may_be_named_with_its_organization(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path, "", monkeypatch)
    assert Cli.find("organization/ovh-vllm/prod").program == str(tmp_path / "pulumi")

"""The sandbox's Pulumi project follows the tracked files and never writes one."""

from __future__ import annotations

import json
import stat
import sys
from pathlib import Path

import pytest
import yaml

from sandbox import project
from sandbox.files import write_private
from sandbox.project import Folder, ProjectError, sync, write_environment


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout with a project file and one stack."""
    path = tmp_path / "checkout"
    path.mkdir()
    (path / "Pulumi.yaml").write_text("name: p\nruntime: {name: python, options: {virtualenv: .venv}}\n")
    (path / "Pulumi.dev.yaml").write_text("config:\n  p:model: small\n")
    monkeypatch.setattr(project, "CHECKOUT", path)
    return path


def test_the_project_file_points_back_to_the_program(checkout: Path, tmp_path: Path) -> None:
    folder = Folder(tmp_path / "elsewhere")
    sync(folder)
    content = yaml.safe_load((folder.project / "Pulumi.yaml").read_text())
    assert (folder.project / content["main"]).resolve() == checkout
    assert content["runtime"]["options"]["virtualenv"] == str(checkout / ".venv")


def test_an_edited_stack_file_reaches_the_copy_which_keeps_its_salt_and_secrets(checkout: Path) -> None:
    folder = Folder(checkout / ".sandbox")
    sync(folder)
    copy = folder.project / "Pulumi.dev.yaml"
    copy.write_text("config:\n  p:model: small\n  p:token: {secure: v1:abc}\nencryptionsalt: v1:salt\n")
    (checkout / "Pulumi.dev.yaml").write_text("config:\n  p:model: large\n")
    sync(folder)
    assert yaml.safe_load(copy.read_text()) == {
        "config": {"p:model": "large", "p:token": {"secure": "v1:abc"}},
        "encryptionsalt": "v1:salt",
    }


def test_secrets_of_the_real_cloud_stay_out_of_the_copy(checkout: Path) -> None:
    """Their passphrase is not the sandbox's: Pulumi would refuse the whole file."""
    (checkout / "Pulumi.dev.yaml").write_text(
        "secretsprovider: passphrase\nencryptionsalt: v1:real\n"
        "config:\n  p:model: small\n  p:token: {secure: v1:real}\n  p:list: [{secure: v1:real}]\n"
    )
    folder = Folder(checkout / ".sandbox")
    sync(folder)
    copy = yaml.safe_load((folder.project / "Pulumi.dev.yaml").read_text())
    assert copy == {"config": {"p:model": "small"}}


def test_what_is_set_on_the_copy_stays_while_the_original_does_not_change(checkout: Path) -> None:
    folder = Folder(checkout / ".sandbox")
    sync(folder)
    copy = folder.project / "Pulumi.dev.yaml"
    copy.write_text("config:\n  p:model: mine\n")
    sync(folder)
    assert yaml.safe_load(copy.read_text()) == {"config": {"p:model": "mine"}}
    assert yaml.safe_load((checkout / "Pulumi.dev.yaml").read_text()) == {"config": {"p:model": "small"}}


def test_exports_survive_any_value_and_are_private(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    write_environment(folder, {"A": "it's $HOME; `x`"}, [Path("/a b")])
    assert stat.S_IMODE(folder.environment.stat().st_mode) == 0o600
    assert folder.environment.read_text().splitlines() == [
        "export A='it'\"'\"'s $HOME; `x`'",
        "export PATH='/a b':$PATH",
    ]


def test_a_private_file_is_replaced_in_one_step(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    path.write_text("old")
    path.chmod(0o644)
    write_private(path, "new")
    assert path.read_text() == "new"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("text", ["config: [", "- a list", "config: text"])
def test_a_stack_file_that_cannot_be_read_is_named(checkout: Path, text: str) -> None:
    (checkout / "Pulumi.dev.yaml").write_text(text)
    with pytest.raises(ProjectError, match=r"Pulumi\.dev\.yaml"):
        sync(Folder(checkout / ".sandbox"))


@pytest.mark.parametrize("known", [None, "http://127.0.0.1:1", "http://127.0.0.1:2"])
def test_a_shell_of_no_sandbox_or_an_earlier_one_is_told_what_to_do(
    checkout: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], known: str | None
) -> None:
    folder = Folder(checkout / ".sandbox")
    write_private(folder.connection, json.dumps({"api": "http://127.0.0.1:2"}))
    monkeypatch.setattr(sys, "argv", ["sandbox.project", str(folder.root)])
    monkeypatch.delenv("SANDBOX_API_URL", raising=False)
    if known is not None:
        monkeypatch.setenv("SANDBOX_API_URL", known)
    current = known == "http://127.0.0.1:2"
    assert project.main() == (0 if current else 1)
    assert (f"run `. {folder.environment}`" in capsys.readouterr().err) != current

"""What the commands of the sandbox say when something goes wrong."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

import sandbox.__main__ as commands
from sandbox.connection import Addresses
from sandbox.console import Console
from sandbox.processes import Daemon, ProcessError
from sandbox.project import Folder
from sandbox.sandbox import Sandbox
from sandbox.settings import SandboxSettingsError


def test_an_error_of_the_local_cloud_is_told_with_its_address(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object) -> None:
        request = httpx.Request("GET", "http://127.0.0.1:1/sandbox/resources")
        httpx.Response(500, request=request).raise_for_status()

    monkeypatch.setattr(commands, "status", fail)
    monkeypatch.setattr(sys, "argv", ["sandbox", "status"])
    assert commands.main() == 1
    assert "http://127.0.0.1:1/sandbox/resources" in capsys.readouterr().err


class EngineStartedError(Exception):
    """The command went on to the Pulumi engine."""


@pytest.fixture
def stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Sandbox:
    """A sandbox that does not run, of commands that end where they ask for the tools."""

    def end(*_: object) -> None:
        raise EngineStartedError

    monkeypatch.setattr(commands, "ensure", end)
    return Sandbox(Folder(tmp_path / ".sandbox"))


@pytest.fixture
def running(stopped: Sandbox) -> Iterator[Sandbox]:
    """The same while its local cloud runs, started with `speed = 50`."""
    root = stopped.folder.root
    cloud = Daemon("the local cloud", root / "cloud.lock", root / "log").start(
        ["sleep", "60"], os.environ, root.parent
    )
    stopped.folder.settings.write_text("speed = 50\n")
    yield stopped
    cloud.kill()
    cloud.wait()


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "slow.toml"
    path.write_text(text)
    return path


def test_settings_with_mistakes_start_nothing(stopped: Sandbox, tmp_path: Path) -> None:
    with pytest.raises(SandboxSettingsError, match=r"missing\.toml: No such file"):
        commands.up(stopped, Console(), tmp_path / "missing.toml")
    with pytest.raises(SandboxSettingsError, match="did you mean speed"):
        commands.up(stopped, Console(), written(tmp_path, "sped = 50"))
    assert not stopped.folder.root.exists()


def test_settings_with_mistakes_are_told_while_a_sandbox_runs(running: Sandbox, tmp_path: Path) -> None:
    with pytest.raises(SandboxSettingsError, match="slow"):
        commands.up(running, Console(), written(tmp_path, "speed ="))


@pytest.mark.parametrize("text", ["speed = 60", ""])
def test_a_sandbox_that_runs_takes_no_other_settings(running: Sandbox, tmp_path: Path, text: str) -> None:
    with pytest.raises(ProcessError, match="`make sandbox-down` first"):
        commands.up(running, Console(), written(tmp_path, text))


def test_a_sandbox_without_settings_takes_none_later(running: Sandbox, tmp_path: Path) -> None:
    running.folder.settings.unlink()
    with pytest.raises(ProcessError, match="`make sandbox-down` first"):
        commands.up(running, Console(), written(tmp_path, "speed = 50"))


def test_a_sandbox_that_runs_goes_on_with_the_settings_of_its_start(running: Sandbox, tmp_path: Path) -> None:
    for settings in (None, written(tmp_path, "speed = 50.0  # platform seconds per second\n")):
        with pytest.raises(EngineStartedError):
            commands.up(running, Console(), settings)


@pytest.mark.parametrize(
    ("option", "value", "said"),
    [
        ("--output", "/nowhere/page.html", "/nowhere/page.html: there is no folder /nowhere"),
        ("--range", "foo", "'foo' is no duration; write it as 90s, 15m, 1h30m or 7d"),
    ],
)
def test_a_page_that_cannot_be_made_is_told_before_anything_is_asked(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    option: str,
    value: str,
    said: str,
) -> None:
    addresses = [Addresses("http://127.0.0.1:9", "http://127.0.0.1:9", "http://127.0.0.1:9")]
    monkeypatch.setattr(commands, "Folder", lambda: Folder(tmp_path))
    monkeypatch.setattr(Sandbox, "runs", True)
    monkeypatch.setattr(Sandbox, "addresses", lambda _: addresses)
    monkeypatch.setattr(sys, "argv", ["sandbox", "dashboards", option, value])
    assert commands.main() == 1
    assert capsys.readouterr().err == f"no page of the dashboards: {said}\n"


def test_one_process_is_not_many(capsys: pytest.CaptureFixture[str]) -> None:
    for number in (0, 1, 2):
        Console().gone("the sandbox", number)
    said = [line.partition("gone, ")[2] for line in capsys.readouterr().out.splitlines()]
    assert said == ["0 processes ended", "1 process ended", "2 processes ended"]

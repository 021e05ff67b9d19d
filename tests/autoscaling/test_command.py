"""`python -m autoscaling`, as `make rehearse` calls it."""

from __future__ import annotations

import json
import subprocess
import sys
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import pytest

from autoscaling.__main__ import main
from autoscaling.stack import CHECKOUT

SHORT = "constant:rate=2,for=30s"


def rehearse(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "autoscaling", *arguments]
    environment = {"PYTHONPATH": str(CHECKOUT), "PATH": ""}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


def test_it_prints_the_answer_and_writes_both_files_where_it_stands(tmp_path: Path) -> None:
    done = rehearse(tmp_path, "--stack", "prod", "--traffic", SHORT, "--no-sweep")
    assert done.returncode == 0, done.stderr
    assert "never asks for more than 1 of 3 replicas" in done.stdout
    assert "rehearsal-prod.html and rehearsal-prod.json written" in done.stdout
    written = json.loads((tmp_path / "rehearsal-prod.json").read_text(encoding="utf-8"))
    assert (written["stack"], written["traffic"], written["seed"]) == ("prod", SHORT, 1)
    assert written["modes"]["Value"]["requests"] == 60
    assert (tmp_path / "rehearsal-prod.html").read_text(encoding="utf-8").startswith("<!doctype html>")


WRONG: dict[str, tuple[list[str], list[str]]] = {
    "stack": (["--stack", "staging"], ["no Pulumi.staging.yaml", "dev, prod, sandbox"]),
    "traffic": (["--stack", "prod", "--traffic", "storm"], ["'storm'", "one of article, poisson"]),
    "number": (["--stack", "prod", "--traffic", "poisson:rate=no,for=1h"], ["rate=no", "number above 0"]),
    "recording": (["--stack", "prod", "--traffic", "csv:/nowhere.csv"], ["/nowhere.csv"]),
    "page": (
        ["--stack", "prod", "--output", "/nowhere/a.html"],
        ["/nowhere/a.html: there is no folder /nowhere"],
    ),
    "one file": (["--stack", "prod", "--output", "a", "--json", "a"], ["--output and --json are both a"]),
    "numbers": (
        ["--stack", "prod", "--json", "/nowhere/a.json"],
        ["/nowhere/a.json: there is no folder /nowhere"],
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_mistake_is_one_message_without_traceback(
    name: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    arguments, parts = WRONG[name]
    assert main(arguments) == 1
    captured = capsys.readouterr()
    assert all(part in captured.err for part in parts), captured.err
    assert captured.out == ""
    assert list(tmp_path.iterdir()) == []


def test_a_process_that_was_ended_from_outside_is_one_message(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def ended(*_: object) -> None:
        raise BrokenProcessPool

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("autoscaling.rehearsal.rehearse", ended)
    assert main(["--stack", "prod", "--traffic", SHORT]) == 1
    assert "for want of memory" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_an_interrupt_leaves_nothing_behind(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("autoscaling.rehearsal.rehearse", interrupted)
    assert main(["--stack", "prod", "--traffic", SHORT]) == 130
    assert "nothing was written" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("arguments", [["--stack", "prod", "--seed", "one"], []])
def test_the_parser_refuses_what_it_cannot_read(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == 2
    assert "--seed" in capsys.readouterr().err or not arguments

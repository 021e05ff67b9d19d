"""The engine is run so that it can end an update in its own way."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ci import pulumi
from ci.__main__ import main
from ci.pulumi import RefusedError
from tests.stacks.programs import install

ROOT = Path(__file__).resolve().parents[2]

ENGINE = """
trap 'sleep 1; echo the steps under way have ended; exit 255' INT
echo begun
while :; do sleep 0.05; done
"""
"""Takes longer to end than `subprocess` leaves to what it has begun."""


def test_ctrl_c_leaves_the_engine_the_time_that_it_needs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PULUMI_BACKEND_URL", "file:///state")
    install(tmp_path, ENGINE, monkeypatch)
    update = subprocess.Popen(
        [sys.executable, "-m", "ci", "deploy", "dev"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    assert update.stdout is not None
    assert update.stdout.readline() == "begun\n"
    os.killpg(update.pid, signal.SIGINT)
    said, _ = update.communicate(timeout=60)
    assert said == "the steps under way have ended\n"
    assert update.returncode == 255


def test_what_an_engine_has_done_before_it_is_killed_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = '{"diagnosticEvent": {"severity": "error", "message": "no memory"}}'
    log = 'for log; do :; done; printf "%s\\n" \'' + said + "' '{\"half a li' > \"$log\""
    install(tmp_path, f"{log}; kill -KILL $$", monkeypatch)
    outcome = pulumi.preview("dev")
    assert (outcome.status, outcome.run.errors) == (-signal.SIGKILL, ("no memory",))


@pytest.mark.parametrize("option", ["--text", "--plan"])
def test_a_file_that_cannot_be_written_is_named_before_the_engine_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], option: str
) -> None:
    install(tmp_path, f"touch {tmp_path}/ran", monkeypatch)
    file = tmp_path / "nowhere" / "file"
    monkeypatch.setattr(sys, "argv", ["ci", "deploy", "dev", option, str(file)])
    with pytest.raises(SystemExit, match="2"):
        main()
    assert f"there is no folder {file.parent}" in capsys.readouterr().err
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("text", ["no JSON", "[]"])
def test_what_is_no_plan_is_not_followed(tmp_path: Path, text: str) -> None:
    plan = tmp_path / "plan.json"
    plan.write_text(text)
    with pytest.raises(RefusedError, match=r"plan.json is no plan: .*; make one with"):
        pulumi.deploy("dev", plan)


def step(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    """The exit status of a step."""
    monkeypatch.setattr(sys, "argv", ["ci", *arguments])
    return main()


RECOVERY = [
    "cancel -s dev --yes --non-interactive",
    "refresh -s dev --yes --skip-preview --clear-pending-creates --non-interactive",
    "up -s dev --yes --skip-preview --continue-on-error --non-interactive",
]


@pytest.mark.parametrize(
    ("fails", "status", "run"), [("none", 0, 3), ("cancel", 0, 3), ("refresh", 7, 2), ("up", 7, 3)]
)
def test_the_way_back_after_a_killed_update(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails: str, status: int, run: int
) -> None:
    install(tmp_path, f'echo "$*" >> {tmp_path}/ran; [ "$1" != {fails} ] || exit 7', monkeypatch)
    assert step(monkeypatch, "recover", "dev") == status
    ran = (tmp_path / "ran").read_text().splitlines()
    assert [line.partition(" --event-log ")[0] for line in ran] == RECOVERY[:run]


def test_a_run_that_fails_for_want_of_a_backend_says_where_there_is_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("PULUMI_BACKEND_URL", "PULUMI_ACCESS_TOKEN", "PULUMI_CREDENTIALS_PATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PULUMI_HOME", str(tmp_path))
    install(tmp_path, "exit 255", monkeypatch)
    assert step(monkeypatch, "preview", "dev") == 255
    assert capsys.readouterr().err.startswith("no backend is chosen: `. .sandbox/env` for the sandbox")
    install(tmp_path, _logging({"preludeEvent": {}}) + "; exit 255", monkeypatch)
    assert step(monkeypatch, "preview", "dev") == 255
    assert capsys.readouterr().err == ""


def _logging(event: dict[str, Any]) -> str:
    """A script that writes an event into the log, its last argument."""
    return f"for log; do :; done; echo '{json.dumps(event)}' > \"$log\""


@pytest.mark.parametrize(
    ("changed", "arguments", "said"),
    [
        (False, [], "no drift\n"),
        (True, [], "1 resource not as deployed: `make drift STACK=dev COMMENT=file.md` lists what differs\n"),
        (True, ["--text", "drift.md"], "1 resource not as deployed: drift.md lists what differs\n"),
    ],
)
def test_a_drift_check_ends_with_what_it_has_found(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    changed: bool,
    arguments: list[str],
    said: str,
) -> None:
    metadata = {"op": "delete", "urn": "urn:pulumi:dev::ovh-vllm::ovh:CloudProject/kube:Kube::monitoring"}
    script = _logging({"resourcePreEvent": {"metadata": metadata}}) + "; exit 255" if changed else ""
    install(tmp_path, script, monkeypatch)
    monkeypatch.chdir(tmp_path)
    assert step(monkeypatch, "drift", "dev", *arguments) == (255 if changed else 0)
    assert capsys.readouterr().out == said


@pytest.mark.parametrize(("name", "writer"), [("comment", "preview"), ("issue", "drift")])
def test_what_is_to_be_put_on_github_is_written_first(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    name: str,
    writer: str,
) -> None:
    file = tmp_path / "x.md"
    number = ["--pull-request", "1"] if name == "comment" else []
    assert step(monkeypatch, name, "dev", "--text", str(file), *number) == 1
    assert f"`make {writer} STACK=dev COMMENT={file}` writes it" in capsys.readouterr().err


def test_a_stack_that_there_is_not_is_told_before_anything_runs(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("preview", "deploy", "drift", "recover"):
        assert step(monkeypatch, name, "nope") == 1
        assert capsys.readouterr().err == "there is no Pulumi.nope.yaml; the stacks are dev, prod, sandbox\n"

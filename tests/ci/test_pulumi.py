"""The engine is run so that it can end an update in its own way."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

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

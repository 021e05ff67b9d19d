"""How the Pulumi CLI is run."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from sandbox.engine import Engine, EngineError

CHECKOUT = Path(__file__).parents[2]


def stand_in(path: Path, script: str) -> Path:
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o700)
    return path


def test_a_failing_command_tells_its_status_and_what_it_said(tmp_path: Path) -> None:
    engine = Engine(stand_in(tmp_path / "pulumi", "echo no such stack >&2; exit 3"), {})
    with pytest.raises(EngineError, match="pulumi preview ended with status 3"):
        engine.run("preview")
    with pytest.raises(EngineError, match=r"ended with status 3:\nno such stack"):
        engine.capture("preview")


def test_ctrl_c_lets_the_engine_finish_and_then_goes_on(tmp_path: Path) -> None:
    # The engine answers Ctrl-C after more than the 0.25 s that subprocess.run would give it.
    pulumi = stand_in(
        tmp_path / "pulumi",
        f"trap 'sleep 0.5; touch {tmp_path}/finished; exit 1' INT; echo ready; while :; do sleep 0.05; done",
    )
    code = (
        # A test run in the background of a shell would hand on that interrupts are ignored.
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        f"from sandbox.engine import Engine; Engine({str(pulumi)!r}, {{}}).run()"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=CHECKOUT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    os.killpg(process.pid, signal.SIGINT)
    try:
        _, errors = process.communicate(timeout=60)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        raise
    assert (tmp_path / "finished").exists()
    assert "KeyboardInterrupt" in errors

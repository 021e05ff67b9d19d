"""The engine is run so that it can end an update in its own way."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

ENGINE = """#!/bin/sh
if [ "$1" = version ]; then echo v3.999.0; exit; fi
trap 'sleep 1; echo the steps under way have ended; exit 255' INT
echo begun
while :; do sleep 0.05; done
"""
"""Takes longer to end than `subprocess` leaves to what it has begun."""


def test_ctrl_c_leaves_the_engine_the_time_that_it_needs(tmp_path: Path) -> None:
    engine = tmp_path / "pulumi"
    engine.write_text(ENGINE)
    engine.chmod(0o755)
    update = subprocess.Popen(
        [sys.executable, "-m", "ci", "deploy", "dev"],
        cwd=ROOT,
        env={**os.environ, "PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}"},
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

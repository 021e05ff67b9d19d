"""`make drill` in small: the whole story happens by itself, and leaves nothing behind."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from sandbox import processes
from sandbox.project import CHECKOUT

pytestmark = pytest.mark.timeout(600)

_PROGRAM = """
import signal, sys
from sandbox import drill
from sandbox.console import Console
sys.argv[0] = "sandbox"
# A shell ignores interrupts for what it starts in the background, and that is handed down to here.
signal.signal(signal.SIGINT, signal.default_int_handler)
drill.run(drill.Plan(speed={speed}, window_seconds=6, settled_seconds=8), Console())
"""


@contextmanager
def drill(directory: Path, speed: int) -> Iterator[subprocess.Popen[str]]:
    """A drill of its own process, in a folder below `directory`."""
    environment = {**os.environ, "TMPDIR": str(directory)}
    with subprocess.Popen(
        [sys.executable, "-c", _PROGRAM.format(speed=speed)],
        cwd=CHECKOUT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def left_over(directory: Path) -> list[str]:
    """Files, and command lines of processes, of drills in this directory."""
    found = [str(path) for path in directory.iterdir()]
    for entry in Path("/proc").iterdir():
        try:
            environ = (entry / "environ").read_bytes() if entry.name.isdecimal() else b""
        except OSError:
            continue
        if f"{processes.MARK}={directory}".encode() in environ:
            found.append((entry / "cmdline").read_text())
    return found


def test_the_story_happens_by_itself(tmp_path: Path) -> None:
    with drill(tmp_path, speed=80) as process:
        said, _ = process.communicate()
    assert process.returncode == 0, said
    timeline = re.split(r"timeline:\n", said)[1]
    steps = (
        r"1 replica serves",
        r"load: 240 requests at a time",
        r"1 replica is saturated: 1\d\d requests running, \d+ waiting",
        r"3 replicas: available [\d.]+ s after the load began, asked for after [\d.]+ s",
        r"p95 TTFT: [\d.]+ s with 1 replica, [\d.]+ s with 3",
        r"Prometheus saw each replica: fleet:vllm:replicas_seen reached 3",
        r"the load ends: \d+ requests answered, none failed",
        r"back to 1 replica",
    )
    assert re.search(".*".join(steps), timeline, flags=re.DOTALL), said
    assert left_over(tmp_path) == []


def test_an_interrupt_in_the_middle_leaves_nothing_behind(tmp_path: Path) -> None:
    with drill(tmp_path, speed=1000) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if "load: 240 requests" in line:
                process.send_signal(signal.SIGINT)
                break
        said, _ = process.communicate()
    assert "the drill's sandbox is gone" in said
    assert process.returncode == -signal.SIGINT, said
    assert left_over(tmp_path) == []

"""Waiting for what comes true some time later."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")


def until(condition: Callable[[], T], what: str, seconds: float = 60) -> T:
    """The first true result of `condition`; AssertionError says what stayed away."""
    deadline = time.monotonic() + seconds
    while not (result := condition()):
        assert time.monotonic() < deadline, f"{what}: not within {seconds:.0f} s"
        time.sleep(0.01)
    return result


def gone(id_: int) -> bool:
    """Whether the process has ended; one whose parent has not asked for its status yet has."""
    try:
        return Path("/proc", str(id_), "stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True

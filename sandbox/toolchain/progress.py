"""Telling the user what takes long, and what went wrong with one source of a tool."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

Progress = Callable[[str], None]
"""Takes one line about what is going on."""

INTERVAL_S = 15.0
"""Seconds between two signs of life of a long step."""


def say(line: str) -> None:
    """The progress of a command: on standard output, at once."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


class UnavailableError(Exception):
    """One source cannot give a tool, the message says why; the next source is asked."""


class ToolchainError(Exception):
    """No source gives a tool, or one gave something that must not be run."""


@contextmanager
def elapsed(progress: Progress, what: str) -> Iterator[None]:
    """Reports `what` now and, with the seconds gone, again and again until the block ends."""
    started = time.monotonic()
    ended = threading.Event()

    def report() -> None:
        while not ended.wait(INTERVAL_S):
            progress(f"{what}: {time.monotonic() - started:.0f} s")

    progress(what)
    thread = threading.Thread(target=report, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()

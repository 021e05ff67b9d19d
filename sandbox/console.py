"""What the sandbox tells its user: steps with elapsed time, on standard output."""

from __future__ import annotations

import sys
import time


class Console:
    """Prints lines with the seconds since the command started."""

    def __init__(self) -> None:
        self._started = time.monotonic()

    def step(self, text: str) -> None:
        """A step that begins, or news of one that takes long."""
        self._line(f"[{time.monotonic() - self._started:5.1f} s] {text}")

    def detail(self, text: str) -> None:
        """A line below the step."""
        self._line(f"          {text}")

    def gone(self, what: str, processes: int) -> None:
        """The last step of a sandbox, with how many processes it ended."""
        self.step(f"{what} is gone, {processes} process{'' if processes == 1 else 'es'} ended")

    def _line(self, text: str) -> None:
        sys.stdout.write(f"{text}\n")
        sys.stdout.flush()

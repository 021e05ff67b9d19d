"""Waiting for something that takes seconds to an hour, with a clock that tests can replace."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

FIRST_PAUSE = 0.5
"""Seconds between the first two looks at something awaited."""
LONGEST_PAUSE = 10.0
"""Seconds between two looks at something that takes long; pauses grow by half up to this."""


@dataclass(frozen=True)
class Clock:
    """Wall-clock seconds: what time it is (from any origin), and how to wait."""

    now: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep

    def polls(self, timeout: float) -> Iterator[float]:
        """Yields the seconds waited so far, now and then after growing pauses; ends after `timeout` seconds.

        The last look happens at the deadline, so that something which takes exactly that long is seen.
        """
        start = self.now()
        pause = FIRST_PAUSE
        while True:
            elapsed = self.now() - start
            yield elapsed
            left = start + timeout - self.now()
            if left <= 0:
                return
            self.sleep(min(pause, left))
            pause = min(pause * 1.5, LONGEST_PAUSE)


WALL_CLOCK = Clock()
"""The machine's clock."""


def duration(seconds: float) -> str:
    """`95` as `1 min 35 s`."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"

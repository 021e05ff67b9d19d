"""Time of the simulated platform, which may run faster than the wall clock."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Clock:
    """Converts between platform seconds and wall-clock seconds.

    Every duration that OVHcloud documents (a probe delay of 300 s, a cluster installed in 240 s) is kept
    in the sandbox as it is and shortened here, in one place. Timestamps shown to users stay wall-clock time.
    """

    speed: float = 1.0
    """Platform seconds that pass in one wall-clock second."""
    _start: float = field(default_factory=time.monotonic)

    def monotonic(self) -> float:
        """Platform seconds since the clock was made."""
        return (time.monotonic() - self._start) * self.speed

    async def sleep(self, seconds: float) -> None:
        """Waits for `seconds` of platform time."""
        await asyncio.sleep(max(0.0, seconds) / self.speed)

    def timeout(self, seconds: float | None) -> asyncio.Timeout:
        """Ends a block with TimeoutError after `seconds` of platform time; None: never."""
        return asyncio.timeout(None if seconds is None else max(0.0, seconds) / self.speed)

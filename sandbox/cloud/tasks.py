"""Things that go on in the background of the emulator."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine

from sandbox.trace import trace

_log = logging.getLogger(__name__)


class Tasks:
    """Background tasks that end together; one that fails is logged."""

    def __init__(self) -> None:
        self._running: set[asyncio.Task[None]] = set()

    def spawn(self, work: Coroutine[None, None, None], name: str) -> asyncio.Task[None]:
        """Runs `work`; `name` is for the log."""
        task = asyncio.create_task(work, name=name)
        self._running.add(task)
        task.add_done_callback(self._done)
        return task

    async def close(self) -> None:
        """Cancels what still runs and waits for it."""
        running = list(self._running)
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.error("%s failed: %s", task.get_name(), trace(error))


def cancel(task: asyncio.Task[None] | None) -> None:
    """Ends a task, if there is one."""
    if task is not None:
        task.cancel()

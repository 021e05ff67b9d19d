"""Things that go on in the background of the emulator."""

from __future__ import annotations

import asyncio
import logging
import traceback
from collections.abc import Coroutine

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


def trace(error: BaseException) -> str:
    """Type of an error and the lines that led to it, for the log.

    Its text stays out: it may hold what a client has sent, such as the values of environment variables.
    """
    return f"{type(error).__name__} in\n{''.join(traceback.format_tb(error.__traceback__))}"

"""A child process that runs on and on, as a container of a pod does."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path

from sandbox.clock import Clock

_LOG = logging.getLogger(__name__)

_BACK_OFF = 10.0
"""Platform seconds before the first restart; doubles up to _BACK_OFF_MAX (kubelet's CrashLoopBackOff)."""
_BACK_OFF_MAX = 300.0
_BACK_OFF_RESET = 600.0
"""Platform seconds after which a running process has lived down its earlier ends."""
_GRACE_SECONDS = 10.0
"""Wall-clock seconds between the request to end and the kill."""
_POLL_SECONDS = 0.05


class Daemon:
    """Starts a command again whenever it ends.

    Its output goes to the file `log` (mode 600). `is_ready` is asked until it says yes after each start;
    `changed` is called when the process has become ready, and when it has ended, then with the exit status.
    """

    def __init__(
        self,
        log: Path,
        environment: Mapping[str, str],
        clock: Clock,
        is_ready: Callable[[], Awaitable[bool]],
        changed: Callable[[int | None], None],
    ) -> None:
        self._log = log
        self._environment = dict(environment)
        self._clock = clock
        self._is_ready = is_ready
        self._changed = changed
        self._command: tuple[str, ...] = ()
        self._task: asyncio.Task[None] | None = None
        self._settled = asyncio.Event()
        self.ready = False
        """Whether the process answers."""

    @property
    def command(self) -> tuple[str, ...]:
        """What runs; empty before the first start."""
        return self._command

    async def run(self, command: Sequence[str]) -> None:
        """Ends what runs, starts `command`, and waits until it is ready or has ended."""
        await self.stop()
        self._command = tuple(command)
        self._settled.clear()
        self._task = asyncio.create_task(self._supervise())
        await self._settled.wait()

    async def settled(self) -> None:
        """Waits until the process is ready or waits for its restart."""
        await self._settled.wait()

    async def stop(self) -> None:
        """Ends the process, with force when it does not end within ten seconds."""
        if self._task is not None:
            self._task.cancel()
            # Not `await self._task`: who waits may be cancelled meanwhile, and has to notice.
            await asyncio.wait([self._task])
            self._task = None
        self.ready = False

    def last_line(self) -> str:
        """The end of the output, to tell why the process ended."""
        lines = self._log.read_text(errors="replace").splitlines() if self._log.exists() else []
        return next((line.strip()[:500] for line in reversed(lines) if line.strip()), "no output")

    async def _supervise(self) -> None:
        wait = _BACK_OFF
        while True:
            started = self._clock.monotonic()
            status = await self._run_once()
            self.ready = False
            _LOG.warning("%s ended with status %s", self._command[0], status)
            self._changed(status)
            self._settled.set()
            if self._clock.monotonic() - started > _BACK_OFF_RESET:
                wait = _BACK_OFF
            await self._clock.sleep(wait)
            wait = min(_BACK_OFF_MAX, wait * 2)
            self._settled.clear()

    async def _run_once(self) -> int:
        """Runs the process until it ends; a cancelled wait ends it."""
        output = os.open(self._log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            process = await asyncio.create_subprocess_exec(
                *self._command,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=self._environment,
            )
        finally:
            os.close(output)
        watch = asyncio.create_task(self._watch_readiness())
        try:
            return await process.wait()
        finally:
            watch.cancel()
            await self._end(process)

    async def _watch_readiness(self) -> None:
        while not await self._is_ready():  # noqa: ASYNC110 - another process is asked
            await asyncio.sleep(_POLL_SECONDS)
        self.ready = True
        self._settled.set()
        self._changed(None)

    @staticmethod
    async def _end(process: asyncio.subprocess.Process) -> None:
        if process.returncode is not None:
            return
        process.terminate()
        try:
            async with asyncio.timeout(_GRACE_SECONDS):
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()


def free_port() -> int:
    """A port of the loopback address that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port

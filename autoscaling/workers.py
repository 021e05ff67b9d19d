"""The same function on many inputs, on all cores."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from types import TracebackType
from typing import Self, TypeVar

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


class Workers:
    """Processes that start when there is work for them, and end with the `with` block.

    `count` None means one for each core; with 1 all is done in this process. An error or an interrupt ends
    them at once, whatever they do.
    """

    def __init__(self, count: int | None = None) -> None:
        self._count = count or os.cpu_count() or 1
        self._executor: ProcessPoolExecutor | None = None

    def each(self, function: Callable[[_Item], _Result], items: Sequence[_Item]) -> Iterator[_Result]:
        """Results in the order of `items`, each as soon as it and those before it are there.

        Function and items must be picklable: processes are spawned.
        """
        if self._count == 1:
            return map(function, items)
        if self._executor is None:
            context = multiprocessing.get_context("spawn")
            self._executor = ProcessPoolExecutor(self._count, context, _leave_interrupts)
        return self._executor.map(function, items)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._executor is None:
            return
        if error is not None:
            # The pool would wait for what is under way.
            for process in multiprocessing.active_children():
                process.terminate()
        self._executor.shutdown(cancel_futures=True)


def _leave_interrupts() -> None:
    """Ctrl-C reaches every process of the terminal: the one that shares out the work ends the others."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)

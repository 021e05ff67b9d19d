"""Something that goes on in a thread while a test does something else."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def meanwhile(act: Callable[[], object], pause: float) -> Iterator[None]:
    """Calls `act` again and again, `pause` seconds apart, while the block runs.

    An exception of `act` ends the calls and is raised where the block ends.
    """
    over = threading.Event()
    trouble: list[BaseException] = []

    def repeat() -> None:
        try:
            while not over.wait(pause):
                act()
        except BaseException as error:
            trouble.append(error)

    thread = threading.Thread(target=repeat)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
    if trouble:
        raise trouble[0]

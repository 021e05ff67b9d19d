"""Files that containers get from objects: private, and some time after the objects have changed."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Generic, TypeVar

_T = TypeVar("_T")


class Delayed(Generic[_T]):
    """A value that is seen some time after it has changed; the first one is seen at once.

    Like a kubelet that looks at intervals: what changed again in the meantime arrives with the rest.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self.value: _T | None = None
        self.due: float | None = None
        """When a change will be seen, platform seconds of the clock."""

    def see(self, value: _T, at: float) -> _T:
        """What is seen at the time `at` when the value is `value` by now."""
        if self.value is None or self.value == value:
            self.value, self.due = value, None
        elif self.due is None:
            self.due = at + self._seconds
        if self.due is not None and at >= self.due:
            self.value, self.due = value, None
        return self.value


def write_private(path: Path, data: bytes) -> None:
    """Replaces a file in one step; mode 600, in folders with mode 700."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    temporary = path.with_name(f".{path.name}.new")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
    temporary.replace(path)


def redacted(text: str, secrets: Iterable[bytes]) -> str:
    """The text of a program without what Secrets hold."""
    for value in secrets:
        secret = value.decode(errors="replace").strip()
        if len(secret) > 3:  # a shorter one would eat common words
            text = text.replace(secret, "<secret>")
    return text

"""What containers get from objects, some time after these have changed."""

from __future__ import annotations

import base64
from collections.abc import Iterable
from typing import Generic, TypeVar

from sandbox.cluster.kinds import Object

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


def secret_data(secret: Object) -> dict[str, bytes]:
    """The decoded contents of a Secret object."""
    return {key: base64.b64decode(value) for key, value in secret.get("data", {}).items()}


def redacted(text: str, secrets: Iterable[bytes]) -> str:
    """The text of a program without what Secrets hold."""
    words = {value.decode(errors="replace").strip() for value in secrets}
    for secret in sorted(words, key=len, reverse=True):  # one may be part of another
        if len(secret) > 3:  # a shorter one would eat common words
            text = text.replace(secret, "<secret>")
    return text

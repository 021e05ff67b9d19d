"""A streamed answer, looked at as bytes: only what is not a plain token is decoded.

A client that decodes each chunk measures itself when thousands of streams are under way.
"""

from __future__ import annotations

import json
from array import array
from collections.abc import Mapping
from typing import Any

_CONTENT = (b'"choices":[{', b'"choices": [{')
"""What each event with an answer holds, and no other one does: quotes of a text inside it are escaped."""

_PARTS = ("content", "reasoning_content", "reasoning", "tool_calls", "refusal", "text")
"""Where the content of a chunk may be: vLLM's names, old and new, and the one of completions."""


class StreamError(Exception):
    """The stream holds what is no part of an answer."""


class ErrorInStreamError(StreamError):
    """The server says in the stream that it failed."""


class Stream:
    """One event stream, fed with bytes as they arrive; times are seconds of any one clock."""

    __slots__ = ("_tail", "done", "first", "gaps", "last", "usage")

    def __init__(self) -> None:
        self._tail = b""
        self.first: float | None = None
        """When the first chunk with content was there."""
        self.last = 0.0
        """When the newest event was there."""
        self.gaps = array("d")
        """Seconds between the chunks from the first one on."""
        self.usage: Mapping[str, Any] = {}
        """What the server counted."""
        self.done = False
        """Whether the stream said that it is complete."""

    @property
    def chunks(self) -> int:
        """Chunks from the first one with content on."""
        return 0 if self.first is None else len(self.gaps) + 1

    def feed(self, data: bytes, now: float) -> None:
        """Takes what has arrived; raises StreamError for what is no part of an answer."""
        if self._tail:
            data = self._tail + data
        if b"\r" in data:  # inside of JSON it would be escaped
            data = data.replace(b"\r\n", b"\n")
        end = data.rfind(b"\n\n") + 2
        if end == 1:
            self._tail = data
            return
        self._tail = data[end:]
        if self._tail:
            data = data[:end]
        if self.first is not None:
            count = data.count(b"\n\n")
            if data.count(_CONTENT[0]) == count or data.count(_CONTENT[1]) == count:
                self._add(count, now)
                return
        for event in data.split(b"\n\n"):
            self._event(event, now)

    def _add(self, chunks: int, now: float) -> None:
        """Counts chunks that have arrived together, after the first one."""
        self.gaps.append(now - self.last)
        if chunks > 1:
            self.gaps.extend((0.0,) * (chunks - 1))
        self.last = now

    def _event(self, event: bytes, now: float) -> None:
        data = b"\n".join(
            line[5:].removeprefix(b" ") for line in event.split(b"\n") if line.startswith(b"data:")
        )
        if not data:
            return  # a comment: some servers send them to keep the connection
        if data == b"[DONE]":
            self.done = True
            return
        try:
            value = json.loads(data)
        except ValueError:
            value = None
        if not isinstance(value, dict):
            raise StreamError(f"an event that is no JSON object: {_shown(data)}")
        if value.get("error"):
            raise ErrorInStreamError(error_text(value) or _shown(data))
        usage, choices = value.get("usage"), value.get("choices") or []
        if not isinstance(choices, list) or not isinstance(usage or {}, dict):
            raise StreamError(f"choices or usage of another type: {_shown(data)}")
        self.usage = usage or self.usage
        for choice in choices:
            if self.first is not None:
                self._add(1, now)
            elif has_content(choice):
                self.first = now
        self.last = now


def has_content(choice: object) -> bool:
    """Whether a choice of an answer, streamed or not, has any content; raises StreamError if it is none."""
    if isinstance(choice, dict):
        part = choice.get("delta") or choice.get("message") or choice
        if isinstance(part, dict):
            return any(part.get(name) for name in _PARTS)
    raise StreamError(f"a choice that is none: {json.dumps(choice)}")


def counted(usage: Mapping[str, Any], name: str) -> int:
    """A count of `usage`, 0 where the server gives no number."""
    value = usage.get(name)
    return value if isinstance(value, int) else 0


def error_text(body: object) -> str:
    """The message of an error of OpenAI's API, FastAPI or OVHcloud's gateway, "" if there is none."""
    if not isinstance(body, dict):
        return ""
    error = body.get("error") or body.get("detail") or body
    message = error.get("message") if isinstance(error, dict) else error
    return str(message) if message else ""


def _shown(data: bytes) -> str:
    return data.decode(errors="replace")

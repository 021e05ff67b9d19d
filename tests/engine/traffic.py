"""Clients that call an endpoint all the time, while a test changes things."""

from __future__ import annotations

import datetime
import ssl
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx

from tests.engine.meanwhile import meanwhile
from tests.waiting import until


def now() -> str:
    """The time as the API writes it."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


@dataclass(frozen=True)
class Answer:
    """What a call has met."""

    when: str
    url: str
    """Output `endpoint_url` that the caller knew."""
    token: str = field(repr=False)
    status: int | str
    """Why there was no answer, if there was none."""


@dataclass
class Callers:
    """Callers who know the outputs of the stack that they were told last."""

    trusted: ssl.SSLContext
    outputs: Mapping[str, Any] = field(repr=False)
    answers: list[Answer] = field(default_factory=list)

    @contextmanager
    def calling(self, count: int) -> Iterator[None]:
        """Lets that many of them call meanwhile."""
        with ExitStack() as stack:
            client = stack.enter_context(httpx.Client(verify=self.trusted, timeout=30, trust_env=False))
            for _ in range(count):
                stack.enter_context(meanwhile(lambda: self._call(client), 0.05))
            yield

    def told(self, outputs: Mapping[str, Any]) -> None:
        """They switch to these outputs; waits until one of them has been answered."""
        self.outputs = outputs
        self.served()

    def served(self) -> None:
        """Waits until somebody has been answered who knows the present address and token."""
        known, present = len(self.answers), (self.outputs["endpoint_url"], self.outputs["client_token"])
        until(
            lambda: any((answer.url, answer.token) == present for answer in self.answers[known:]),
            "an answer to a caller",
        )

    def status(self, token: str) -> int:
        """What one call with that token is answered."""
        with httpx.Client(verify=self.trusted, trust_env=False) as client:
            return self._ask(client, self.outputs, token)

    def _call(self, client: httpx.Client) -> None:
        outputs = self.outputs
        token = outputs["client_token"]
        answer: int | str
        try:
            answer = self._ask(client, outputs, token)
        except httpx.HTTPError as error:
            answer = repr(error)
        self.answers.append(Answer(now(), outputs["endpoint_url"], token, answer))

    def _ask(self, client: httpx.Client, outputs: Mapping[str, Any], token: str) -> int:
        question = {
            "model": outputs["model"],
            "messages": [{"role": "user", "content": "Hi"}],
            "max_tokens": 4,
        }
        url, bearer = f"{outputs['openai_base_url']}/chat/completions", {"Authorization": f"Bearer {token}"}
        return client.post(url, json=question, headers=bearer).status_code

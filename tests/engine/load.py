"""Many requests at a time to one endpoint, so that its replicas, its scaler and its monitoring have work."""

from __future__ import annotations

import asyncio
import random
import ssl
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import httpx

_WORDS = ("scale", "queue", "token", "cache", "replica", "latency", "batch", "prefill")


@dataclass
class Answered:
    """What the answers so far add up to."""

    requests: int = 0
    tokens: int = 0
    """Generated ones."""


@contextmanager
def load(outputs: Mapping[str, Any], trusted: ssl.SSLContext, concurrency: int) -> Iterator[Answered]:
    """Keeps `concurrency` chat requests of different lengths under way while the block runs.

    A request that is refused ends the test; one whose replica goes away (an error of the gateway, or a
    connection that breaks) is asked anew.
    """
    answered = Answered()
    loop = asyncio.new_event_loop()
    work: asyncio.Task[None] = loop.create_task(_callers(outputs, trusted, concurrency, answered))
    trouble: list[BaseException] = []

    def run() -> None:
        try:
            loop.run_until_complete(work)
        except asyncio.CancelledError:
            pass
        except BaseException as error:
            trouble.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield answered
    finally:
        loop.call_soon_threadsafe(work.cancel)
        thread.join()
        loop.close()
    if trouble:
        raise trouble[0]


async def _callers(
    outputs: Mapping[str, Any], trusted: ssl.SSLContext, concurrency: int, answered: Answered
) -> None:
    limits = httpx.Limits(max_connections=concurrency)
    headers = {"Authorization": f"Bearer {outputs['client_token']}"}
    async with (
        httpx.AsyncClient(
            base_url=outputs["openai_base_url"],
            verify=trusted,
            headers=headers,
            timeout=60,
            limits=limits,
            trust_env=False,
        ) as client,
        asyncio.TaskGroup() as group,
    ):
        for seed in range(concurrency):
            chance = random.Random(seed)  # noqa: S311
            group.create_task(_caller(client, outputs["model"], chance, answered))


async def _caller(client: httpx.AsyncClient, model: str, chance: random.Random, answered: Answered) -> None:
    while True:
        question = " ".join(chance.choices(_WORDS, k=chance.randint(5, 400)))
        body = {
            "model": model,
            "messages": [{"role": "user", "content": question}],
            "max_tokens": chance.randint(20, 300),
        }
        try:
            answer = await client.post("/chat/completions", json=body)
        except httpx.TransportError:
            continue
        if not answer.is_server_error:
            answered.requests += 1
            answered.tokens += answer.raise_for_status().json()["usage"]["completion_tokens"]

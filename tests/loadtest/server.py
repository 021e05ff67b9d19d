"""An OpenAI-compatible server that answers as a test wants it to, over real HTTP."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

TOKEN = "a-token-that-nobody-may-see"
MODEL = "tiny"

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def event(choices: list[Any], **more: Any) -> bytes:
    """An event in vLLM's form."""
    body = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "choices": choices, **more}
    return f"data: {json.dumps(body, separators=(',', ':'))}\n\n".encode()


def chunk(content: str, **delta: Any) -> bytes:
    """An event with content."""
    return event([{"index": 0, "delta": {"content": content, **delta}, "finish_reason": None}])


OPENING = chunk("", role="assistant")
DONE = b"data: [DONE]\n\n"


def usage(completion_tokens: int, prompt_tokens: int = 7) -> dict[str, int]:
    return {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": completion_tokens,
        "total_tokens": prompt_tokens + completion_tokens,
    }


def closing(completion_tokens: int) -> bytes:
    """The events that end a stream."""
    return event([], usage=usage(completion_tokens)) + DONE


def streaming(*parts: bytes, pause: float = 0.0) -> Handler:
    """A stream of these pieces, each a write of its own."""

    async def handle(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream; charset=utf-8"})
        response.enable_chunked_encoding()
        await response.prepare(request)
        for part in parts:
            await response.write(part)
            await asyncio.sleep(pause)
        return response

    return handle


def whole(content: str, completion_tokens: int) -> Handler:
    """An answer that is not streamed."""

    async def handle(_request: web.Request) -> web.StreamResponse:
        message = {"role": "assistant", "content": content}
        choices = [{"index": 0, "message": message, "finish_reason": "stop"}]
        return web.json_response({"choices": choices, "usage": usage(completion_tokens)})

    return handle


def plain(text: str, status: int = 200, content_type: str = "application/json", **headers: str) -> Handler:
    """Any other answer."""

    async def handle(_request: web.Request) -> web.StreamResponse:
        return web.Response(text=text, status=status, content_type=content_type, headers=headers)

    return handle


async def cut(request: web.Request) -> web.StreamResponse:
    """The connection breaks before there is an answer."""
    assert request.transport is not None
    request.transport.abort()
    return web.Response()


async def cut_in_stream(request: web.Request) -> web.StreamResponse:
    """The connection breaks after the first token."""
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
    response.enable_chunked_encoding()
    await response.prepare(request)
    await response.write(OPENING + chunk("a"))
    assert request.transport is not None
    await asyncio.sleep(0.05)
    request.transport.abort()
    return response


async def silent(_request: web.Request) -> web.StreamResponse:
    """Nothing comes, until the client gives up."""
    await asyncio.Event().wait()
    raise AssertionError


async def login_page(request: web.Request) -> web.StreamResponse:
    """What a browser without a token gets."""
    return await plain("<html>Please log in</html>", content_type="text/html")(request)


GOOD = streaming(OPENING + chunk("Hello"), chunk(" there"), chunk(" you"), closing(3))


@dataclass
class Server:
    """A server that runs; `answer` may be changed at any time."""

    base_url: str
    answer: Handler
    models: Handler
    requests: list[dict[str, Any]] = field(default_factory=list)
    """Bodies of the requests so far."""
    tokens: set[str] = field(default_factory=set)
    """Bearer tokens that were seen."""


def models(owner: str = "vllm") -> Handler:
    return plain(json.dumps({"object": "list", "data": [{"id": MODEL, "owned_by": owner}]}))


@asynccontextmanager
async def serving(answer: Handler = GOOD, *, owner: str = "vllm") -> AsyncIterator[Server]:
    """A server on a free port that accepts `TOKEN` only."""
    server = Server("", answer, models(owner))

    async def handle(request: web.Request) -> web.StreamResponse:
        server.tokens.add(request.headers.get("Authorization", ""))
        if request.headers.get("Authorization") != f"Bearer {TOKEN}":
            return web.json_response({"message": "a Bearer token is needed"}, status=401)
        if request.path == "/v1/models":
            return await server.models(request)
        server.requests.append(await request.json())
        return await server.answer(request)

    app = web.Application()
    app.router.add_route("*", "/v1/{path:.*}", handle)
    runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, backlog=4096).start()
    server.base_url = f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
    try:
        yield server
    finally:
        await runner.cleanup()

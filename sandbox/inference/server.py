"""The HTTP API of a vLLM process that listens: routes, answers, streams, and the metrics about them."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from aiohttp import web

from sandbox.inference import openai
from sandbox.inference.engine import EngineLoop, Generation
from sandbox.inference.metrics import CONTENT_TYPE, VERSION, ServerMetrics
from sandbox.interfaces import JsonObject

_METHODS: Mapping[str, Sequence[str]] = {
    "/health": ("GET",),
    "/load": ("GET",),
    "/metrics": ("GET",),
    "/ping": ("GET", "POST"),
    "/tokenize": ("POST",),
    "/v1/chat/completions": ("POST",),
    "/v1/completions": ("POST",),
    "/v1/models": ("GET",),
    "/version": ("GET",),
}
"""The paths that are served, of the many that vLLM has."""

_PROBE_SECONDS = 0.001  # what a probe's request takes; assumed


@dataclass(frozen=True)
class _Plain:
    """An answer that is there at once."""

    status: int
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def json(cls, body: JsonObject, status: int = 200, **headers: str) -> _Plain:
        return cls(status, openai.dump(body).encode(), {"Content-Type": "application/json", **headers})


class VllmServer:
    """One process of vLLM, from the moment it listens."""

    def __init__(
        self,
        model: str,
        served_model_names: Sequence[str],
        max_model_len: int,
        median_answer_tokens: int,
        metrics: ServerMetrics,
        engine: EngineLoop,
    ) -> None:
        """`model` is the repository of the weights; the first of the served names is in every answer."""
        self._model = model
        self._served = served_model_names
        self._max_model_len = max_model_len
        self._median_answer_tokens = median_answer_tokens
        self._metrics = metrics
        self.engine = engine

    def exposition(self) -> str:
        """The text of `/metrics`."""
        return self._metrics.expose(self.engine.counts())

    def probe(self, path: str) -> int:
        """HTTP status of a GET; it is counted like any other request."""
        answer = _refusal("GET", path) or self._get(path)
        self._metrics.http(_handler(path), "GET", answer.status, 0, len(answer.body), _PROBE_SECONDS)
        return answer.status

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Answers a request; raises EngineStoppedError when the process ends meanwhile."""
        begin = time.monotonic()
        # What a request counts as whose client goes away before the answer: vLLM's endpoint returns then.
        status, size = 200, 0
        try:
            response = await self._respond(request)
            status, size = response.status, response.content_length or 0
        finally:
            self._metrics.http(
                _handler(request.path),
                request.method,
                status,
                request.content_length or 0,
                size,
                time.monotonic() - begin,
            )
        return response

    async def _respond(self, request: web.Request) -> web.StreamResponse:
        answer = _refusal(request.method, request.path)
        if answer is None:
            try:
                match request.path:
                    case "/v1/chat/completions":
                        chat = await _parse(openai.ChatRequest, request, "create_chat_completion")
                        return await self._generate(request, chat)
                    case "/v1/completions":
                        completion = await _parse(openai.CompletionRequest, request, "create_completion")
                        return await self._generate(request, completion)
                    case "/tokenize":
                        tokenize = await _parse(openai.TokenizeRequest, request, "tokenize")
                        answer = self._tokenize(tokenize)
                    case path:
                        answer = self._get(path)
            except openai.ApiError as error:
                answer = _Plain.json(error.body, error.status)
        return web.Response(status=answer.status, body=answer.body, headers=answer.headers)

    def _get(self, path: str) -> _Plain:
        match path:
            case "/metrics":
                return _Plain(200, self.exposition().encode(), {"Content-Type": CONTENT_TYPE})
            case "/version":
                return _Plain.json({"version": VERSION})
            case "/load":
                # Always 0 without --enable-server-load-tracking.
                return _Plain.json({"server_load": 0})
            case "/v1/models":
                created = int(time.time())
                return _Plain.json(
                    openai.models_body(self._served, self._model, self._max_model_len, created)
                )
            case _:  # /health and /ping
                return _Plain(200)

    def _tokenize(self, request: openai.TokenizeRequest) -> _Plain:
        openai.check_model(request.model, self._served)
        return _Plain.json(openai.tokenize_body(request.tokens(), self._max_model_len))

    async def _generate(
        self, request: web.Request, asked: openai.ChatRequest | openai.CompletionRequest
    ) -> web.StreamResponse:
        """Answers a request for text; aborts it in the engine when the client goes away."""
        openai.check_model(asked.model, self._served)
        prompts = asked.prompts()
        limits = [openai.check_length(asked, prompt, self._max_model_len) for prompt in prompts]
        asked.check_sampling()
        answers = [
            (
                prompt,
                openai.plan_answer(asked, prompt, index, limit, self._median_answer_tokens),
                limit,
            )
            for prompt, limit in zip(prompts, limits, strict=True)
            for index in range(asked.n or 1)
        ]
        prompt_tokens = sum(prompt.tokens for prompt in prompts)
        writer = openai.Writer.of(asked, self._served[0], int(time.time()), prompt_tokens)
        texts = [answer for _, answer, _ in answers]
        generation = self.engine.submit(answers, bool(asked.stream))
        try:
            if asked.stream:
                return await self._stream(request, generation, writer, texts, asked.include_usage)
            while not await self.engine.wait(generation):
                pass
        finally:
            self.engine.abort(generation)
        answer = _Plain.json(writer.body(texts))
        return web.Response(body=answer.body, headers=answer.headers)

    async def _stream(
        self,
        request: web.Request,
        generation: Generation,
        writer: openai.Writer,
        answers: Sequence[openai.Answer],
        include_usage: bool,
    ) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream; charset=utf-8"})
        response.enable_chunked_encoding()
        await response.prepare(request)
        writers = [writer.token_events(index, answer) for index, answer in enumerate(answers)]
        written = [0] * len(answers)
        complete = False
        while not complete:
            complete = await self.engine.wait(generation)
            produced = self.engine.produced(generation)
            events = []
            if any(produced) and not any(written):
                events += [writer.opening_event(index) for index in range(len(answers))]
            for index, (before, now) in enumerate(zip(written, produced, strict=True)):
                events += [writers[index](position) for position in range(before, now)]
            written = produced
            if complete:
                events.append(writer.closing_events(sum(produced), include_usage))
            if events:
                await response.write("".join(events).encode())
        await response.write_eof()
        return response


def _refusal(method: str, path: str) -> _Plain | None:
    """The answer to a path or method that is not served."""
    allowed = _METHODS.get(path)
    if allowed is None:
        return _Plain.json({"detail": "Not Found"}, 404)
    if method not in allowed:
        return _Plain.json({"detail": "Method Not Allowed"}, 405, Allow=", ".join(allowed))
    return None


def _handler(path: str) -> str:
    """The label `handler` of the HTTP metrics: the route, `none` for a path without one."""
    return path if path in _METHODS else "none"


async def _parse(kind: type[openai.RequestT], request: web.Request, endpoint: str) -> openai.RequestT:
    content_type = request.headers.get("Content-Type", "")
    return openai.parse(kind, content_type, await request.read(), request.path, endpoint)

"""Each way in which an endpoint can fail is told from the others, and a good answer is measured."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest

from autoscaling.engine import Prefix
from autoscaling.traffic import ARTICLE_MAX_TOKENS, Request
from loadtest.client import Answer, Client, Endpoint, RefusedError, TargetError, look, session
from loadtest.prompts import Prompts
from tests.loadtest import server
from tests.loadtest.server import MODEL, TOKEN, Handler, Server, serving

REQUEST = Request(0.0, prompt_tokens=30, output_tokens=3)


@asynccontextmanager
async def client(
    running: Server, *, stream: bool = True, patience: float = 30.0, token: str = TOKEN
) -> AsyncIterator[Client]:
    endpoint = Endpoint(running.base_url, token, MODEL, stream, patience)
    async with session(endpoint) as http:
        listed = await look(http, endpoint)
        yield Client(http, replace(endpoint, ignore_eos=listed.vllm), Prompts(1))


async def ask(handler: Handler, **options: object) -> Answer:
    async with serving(handler) as running, client(running, **options) as asking:  # type: ignore[arg-type]
        return await asking.ask(REQUEST)


async def test_a_streamed_answer_is_measured() -> None:
    pause = 0.05
    answer = await ask(
        server.streaming(
            server.OPENING + server.chunk("a"),
            server.chunk("b"),
            server.chunk("c") + server.closing(3),
            pause=pause,
        )
    )
    assert answer.error == ""
    assert (answer.prompt_tokens, answer.output_tokens) == (7, 3)
    assert answer.ttft is not None
    assert len(answer.gaps) == 2
    # A pause is at least as long as asked for; arrival may be late for one and in time for the next.
    assert answer.latency - answer.ttft >= 2 * pause * 0.9
    assert answer.ttft + sum(answer.gaps) == pytest.approx(answer.latency)
    assert answer.tpot == pytest.approx((answer.latency - answer.ttft) / 2)


async def test_an_answer_that_is_not_streamed_has_an_end_only() -> None:
    answer = await ask(server.whole("Hello there you", 3), stream=False)
    assert answer.error == ""
    assert (answer.ttft, answer.tpot, list(answer.gaps)) == (None, None, [])
    assert answer.latency > 0
    assert answer.output_tokens == 3


FAILURES: dict[str, tuple[Handler, str, str]] = {
    "status": (server.plain('{"message": "no replica of the app is ready"}', 503), "HTTP 503", "no replica"),
    "rate limit": (server.plain('{"error": {"message": "slow down"}}', 429), "HTTP 429", "slow down"),
    "connection": (server.cut, "connection", ""),
    "cut off": (server.cut_in_stream, "cut off", "before the end of the answer"),
    "no end": (server.streaming(server.OPENING, server.chunk("a")), "cut off", "without [DONE]"),
    "timeout": (server.silent, "timeout", "within 0.5 s"),
    "stuck stream": (server.streaming(server.chunk("a"), pause=60), "timeout", "within 0.5 s"),
    "error in the stream": (
        server.streaming(
            server.chunk("a"), b'data: {"error": {"message": "out of memory"}}\n\n', server.DONE
        ),
        "error in the stream",
        "out of memory",
    ),
    "login page": (server.login_page, "not the API", "Please log in"),
    "login elsewhere": (
        server.plain("", 302, Location="https://login.example/?redirect=app"),
        "not the API",
        "login page",
    ),
    "no events": (server.streaming(b"data: <html>\n\n"), "not the API", "<html>"),
    "empty": (server.streaming(server.OPENING, server.closing(0)), "empty answer", "no content"),
}


@pytest.mark.parametrize("case", FAILURES)
async def test_failures_are_told_apart(case: str) -> None:
    handler, kind, text = FAILURES[case]
    answer = await ask(handler, patience=0.5 if kind == "timeout" else 30.0)
    assert answer.kind == kind
    assert text in answer.error
    assert answer.output_tokens == 0


WHOLE_FAILURES: dict[str, tuple[Handler, str]] = {
    "login page": (server.login_page, "not the API"),
    "other JSON": (server.plain('{"status": "ok"}'), "not the API"),
    "no object": (server.plain("[]"), "not the API"),
    "other choices": (server.plain('{"choices": [1]}'), "not the API"),
    "other usage": (server.plain('{"choices": [], "usage": [1]}'), "not the API"),
    "no JSON": (server.plain("ok"), "not the API"),
    "empty": (server.whole("", 1), "empty answer"),
    "stream": (server.GOOD, "not the API"),
}


@pytest.mark.parametrize("case", WHOLE_FAILURES)
async def test_failures_of_whole_answers_are_told_apart(case: str) -> None:
    handler, kind = WHOLE_FAILURES[case]
    assert (await ask(handler, stream=False)).kind == kind


@pytest.mark.parametrize("status", [401, 403])
async def test_a_refused_token_ends_the_test_with_a_hint(status: int) -> None:
    with pytest.raises(RefusedError, match=f"HTTP {status}.*does not accept the token.*client_token"):
        await ask(server.plain("{}", status))


async def test_a_wrong_token_is_found_before_the_load() -> None:
    async with serving() as running:
        with pytest.raises(RefusedError, match="does not accept the token"):
            async with client(running, token="another-token-of-somebody"):
                pass
        with pytest.raises(RefusedError, match="none was given"):
            async with client(running, token=""):
                pass
        assert running.requests == []


@pytest.mark.parametrize("before", range(270, 300, 5))
async def test_an_error_that_is_cut_off_does_not_show_half_of_the_token(before: int) -> None:
    answer = await ask(server.plain(json.dumps({"message": f"{'x' * before} {TOKEN}"}), 400))
    assert TOKEN[:6] not in answer.error
    for status in (400, 200):
        answer = await ask(server.plain(f"{'x' * before} {TOKEN}", status, "text/html"))
        assert answer.kind
        assert TOKEN[:6] not in answer.error


async def test_an_error_does_not_repeat_the_token() -> None:
    answer = await ask(server.plain(f'{{"message": "bad header Bearer {TOKEN}"}}', 400))
    assert answer.kind == "HTTP 400"
    assert TOKEN not in answer.error


async def test_vllm_is_asked_for_answers_of_the_length_of_the_traffic() -> None:
    async with serving() as running, client(running) as asking:
        await asking.ask(REQUEST)
        body = running.requests[0]
        assert (body["max_tokens"], body["ignore_eos"], body["stream"]) == (3, True, True)
        assert body["stream_options"] == {"include_usage": True}
        assert len(body["messages"][0]["content"].split()) == 30
    async with serving(owner="somebody") as running, client(running) as asking:
        await asking.ask(REQUEST)
        assert "ignore_eos" not in running.requests[0]


async def test_the_article_s_prompts_are_asked_as_the_article_does() -> None:
    async with serving(server.whole("a", 1)) as running, client(running, stream=False) as asking:
        await asking.ask(Request(0.0, 5, 300, Prefix("x", 5), "What is a token?"))
        assert running.requests == [
            {
                "model": MODEL,
                "messages": [{"role": "user", "content": "What is a token?"}],
                "max_tokens": ARTICLE_MAX_TOKENS,
                "temperature": 0.7,
            }
        ]


class TestLook:
    async def look(self, handler: Handler, model: str = "") -> tuple[str, bool]:
        async with serving() as running:
            running.models = handler
            endpoint = Endpoint(running.base_url, TOKEN, model)
            async with session(endpoint) as http:
                listed = await look(http, endpoint)
                return listed.model, listed.vllm

    async def test_the_first_model_is_taken(self) -> None:
        assert await self.look(server.models()) == (MODEL, True)

    async def test_an_unknown_model_is_said_with_those_there_are(self) -> None:
        with pytest.raises(TargetError, match=f"'huge' is not listed; there are: {MODEL}"):
            await self.look(server.models(), "huge")

    async def test_a_login_page_is_no_api(self) -> None:
        with pytest.raises(TargetError, match=r"Please log in.*login page instead of the API"):
            await self.look(server.login_page)

    async def test_an_address_that_sends_elsewhere_is_no_api(self) -> None:
        with pytest.raises(TargetError, match=r"HTTP 308, sent elsewhere.*http:// to https://"):
            await self.look(server.plain("", 308, Location="https://host/v1/models"))

    async def test_a_server_without_a_list_is_tested_when_the_model_is_named(self) -> None:
        assert await self.look(server.plain("{}", 404), MODEL) == (MODEL, False)
        with pytest.raises(TargetError, match="without a list of models"):
            await self.look(server.plain("{}", 404))

    async def test_nothing_listens(self) -> None:
        endpoint = Endpoint("http://127.0.0.1:9/v1", TOKEN)
        async with session(endpoint) as http:
            with pytest.raises(TargetError, match="no answer: ClientConnectorError"):
                await look(http, endpoint)


class TestPrompts:
    def test_a_text_has_as_many_words_as_the_request_has_tokens(self) -> None:
        prompts = Prompts(1)
        for tokens in (1, 5, 100, 70_000):
            assert len(prompts.text(Request(0.0, tokens, 1)).split()) == tokens

    def test_a_shared_part_is_shared_and_the_rest_is_not(self) -> None:
        request = Request(0.0, 150, 1, Prefix("system prompt", 100))
        prompts = Prompts(1)
        texts = [prompts.text(request).split() for _ in range(50)]
        assert {len(text) for text in texts} == {150}
        assert len({tuple(text[:100]) for text in texts}) == 1
        # A block of the prefix cache has 16 tokens.
        assert len({tuple(text[100:116]) for text in texts}) == 50

    def test_the_seed_decides(self) -> None:
        request = Request(0.0, 50, 1)
        assert Prompts(1).text(request) == Prompts(1).text(request) != Prompts(2).text(request)

"""What the load test costs its machine, beside other clients: `python -m tests.prove.loadtest_overhead`.

Writes `docs/proof/loadtest-overhead.md`; the exit status is 1 when another client is ahead, or when 2,000
streams at a time are not held.
"""

from __future__ import annotations

import argparse
import asyncio
import datetime
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from aiohttp import web
from openai import AsyncOpenAI, OpenAI
from openai.types.chat import ChatCompletionMessageParam

from autoscaling.traffic import ARTICLE_MAX_TOKENS, ARTICLE_TEMPERATURE, ClosedLoop
from loadtest import load, results
from loadtest.client import Client, Endpoint, look, session
from loadtest.load import Recording
from loadtest.prompts import Prompts
from tests.prove.commit import commit

ROOT = Path(__file__).resolve().parents[2]
RESULT = ROOT / "docs" / "proof" / "loadtest-overhead.md"
MODULE = "tests.prove.loadtest_overhead"
TOKENS = 200
"""Of each answer."""
GAP_SECONDS = 0.04
"""Between two tokens of a stream."""
WORKERS, REQUESTS = 100, 2
"""Of the comparison; the clients take turns, `ROUNDS` times."""
ROUNDS = 3
MANY = 2000
"""Streams at a time that have to be held, `REQUESTS_OF_MANY` one after the other each."""
REQUESTS_OF_MANY = 2
GAP_OF_MANY = 0.08
"""An H100 that decodes 667 sequences needs about so long for a step."""


# --- the server: a process of its own, which does as little as a server can ---------------------------------
CODE = ("loadtest", "tests/prove/loadtest_overhead.py")
"""What the result depends on."""


def _event(choices: list[Any], **more: Any) -> bytes:
    head = {"id": "chatcmpl-0123456789abcdef", "object": "chat.completion.chunk", "created": 1764000000}
    body = {**head, "model": "model", "choices": choices, **more}
    return f"data: {json.dumps(body, separators=(',', ':'))}\n\n".encode()


_USAGE = {"prompt_tokens": 20, "total_tokens": 20 + TOKENS, "completion_tokens": TOKENS}
_OPENING = _event([{"index": 0, "delta": {"role": "assistant", "content": ""}, "finish_reason": None}])
_TOKEN = _event(
    [
        {
            "index": 0,
            "delta": {"content": " harbour"},
            "logprobs": None,
            "finish_reason": None,
            "token_ids": None,
        }
    ]
)
_END = _event([], usage=_USAGE) + b"data: [DONE]\n\n"
_WHOLE: Any = {
    "id": "chatcmpl-0123456789abcdef",
    "object": "chat.completion",
    "created": 1764000000,
    "model": "model",
    "choices": [
        {
            "index": 0,
            "message": {"role": "assistant", "content": " harbour" * TOKENS, "tool_calls": []},
            "finish_reason": "length",
        }
    ],
    "usage": _USAGE,
}


async def _chat(request: web.Request) -> web.StreamResponse:
    """Tokens in vLLM's form at a fixed pace, each written by itself; or all at once."""
    asked = await request.json()
    gap: float = request.app[_GAP]
    if not asked.get("stream"):
        await asyncio.sleep(TOKENS * gap)
        return web.json_response(_WHOLE)
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream; charset=utf-8"})
    response.enable_chunked_encoding()
    await response.prepare(request)
    begin = time.monotonic()
    await response.write(_OPENING)
    # Past aiohttp's writer, which costs more than the socket.
    chunk = b"%x\r\n%s\r\n" % (len(_TOKEN), _TOKEN)
    for number in range(TOKENS):
        if request.transport is None:
            break
        request.transport.write(chunk)
        await asyncio.sleep(begin + (number + 1) * gap - time.monotonic())
    await response.write(_END)
    return response


_GAP = web.AppKey("gap", float)


async def _models(_request: web.Request) -> web.Response:
    return web.json_response({"object": "list", "data": [{"id": "model", "owned_by": "vllm"}]})


async def _serve(gap: float) -> None:
    app = web.Application()
    app[_GAP] = gap
    app.router.add_get("/v1/models", _models)
    app.router.add_post("/v1/chat/completions", _chat)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, backlog=4096).start()
    sys.stdout.write(f"http://127.0.0.1:{runner.addresses[0][1]}/v1\n")
    sys.stdout.flush()
    await asyncio.Event().wait()


# --- the clients: a process each ----------------------------------------------------------------------------


async def _load_test(url: str, workers: int, requests: int, *, stream: bool) -> dict[str, float]:
    endpoint = Endpoint(url, "token", "model", stream)
    recording = Recording()
    async with session(endpoint) as http:
        await look(http, endpoint)
        client = Client(http, endpoint, Prompts(1))
        await load.run(client, ClosedLoop("article", workers, requests), 1, recording, asyncio.Event())
    outcome = results.result(recording, {})
    return {
        "tokens": outcome.output_tokens,
        "failed": len(outcome.answers) - outcome.completed,
        "in_flight": recording.most_in_flight,
        "cpu": max(sample.cpu for sample in recording.samples),
        "loop_lag": statistics.median(sample.loop_lag for sample in recording.samples),
        "tpot": outcome.summaries["tpot"].mean if stream else 0.0,
        "ttft": outcome.summaries["ttft"].percentiles[99.0] if stream else 0.0,
        "seconds": recording.duration,
    }


def _messages(worker: int) -> Iterator[list[ChatCompletionMessageParam]]:
    for request in ClosedLoop("article", WORKERS, REQUESTS).requests(1, worker):
        yield [{"role": "user", "content": request.prompt or ""}]


def _article_script(url: str) -> dict[str, float]:
    """What the article describes: threads that ask, each one request after the other, not streamed."""
    client = OpenAI(base_url=url, api_key="token")
    latencies = []

    def work(worker: int) -> int:
        tokens = 0
        for messages in _messages(worker):
            begin = time.perf_counter()
            answer = client.chat.completions.create(
                model="model",
                messages=messages,
                max_tokens=ARTICLE_MAX_TOKENS,
                temperature=ARTICLE_TEMPERATURE,
            )
            latencies.append(time.perf_counter() - begin)
            assert answer.usage is not None
            tokens += answer.usage.completion_tokens
        return tokens

    with ThreadPoolExecutor(WORKERS) as pool:
        return {"tokens": sum(pool.map(work, range(WORKERS)))}


async def _openai_stream(url: str) -> dict[str, float]:
    """The plain client of OpenAI, asynchronous, with the times of its chunks."""
    tokens = 0

    async def work(client: AsyncOpenAI, worker: int) -> None:
        nonlocal tokens
        for messages in _messages(worker):
            times = []
            stream = await client.chat.completions.create(
                model="model",
                messages=messages,
                max_tokens=ARTICLE_MAX_TOKENS,
                temperature=ARTICLE_TEMPERATURE,
                stream=True,
                stream_options={"include_usage": True},
            )
            async for chunk in stream:
                if chunk.choices and chunk.choices[0].delta.content:
                    times.append(time.perf_counter())
                if chunk.usage is not None:
                    tokens += chunk.usage.completion_tokens

    async with AsyncOpenAI(base_url=url, api_key="token") as client:
        await asyncio.gather(*(work(client, worker) for worker in range(WORKERS)))
    return {"tokens": tokens}


def _run_client(name: str, url: str) -> dict[str, float]:
    match name:
        case "loadtest":
            return asyncio.run(_load_test(url, WORKERS, REQUESTS, stream=True))
        case "loadtest --no-stream":
            return asyncio.run(_load_test(url, WORKERS, REQUESTS, stream=False))
        case "many":
            return asyncio.run(_load_test(url, MANY, REQUESTS_OF_MANY, stream=True))
        case "openai":
            return asyncio.run(_openai_stream(url))
        case _:
            return _article_script(url)


def _measured(name: str, url: str) -> dict[str, float]:
    """A client's figures and the CPU seconds that it needed after its imports."""
    before = resource.getrusage(resource.RUSAGE_SELF)
    figures = _run_client(name, url)
    after = resource.getrusage(resource.RUSAGE_SELF)
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {**figures, "cpu_seconds": used}


# --- the comparison -----------------------------------------------------------------------------------------


@contextmanager
def _server(gap: float) -> Iterator[str]:
    command = [sys.executable, "-m", MODULE, "--serve", str(gap)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().strip()
        finally:
            process.terminate()


def _client(name: str, url: str) -> dict[str, float]:
    command = [sys.executable, "-m", MODULE, "--client", name, "--url", url]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    figures: dict[str, float] = json.loads(done.stdout)
    _say(f"{name}: {figures['tokens'] / figures['cpu_seconds']:,.0f} tokens per CPU second")
    return figures


_PAIRS = (("loadtest --no-stream", "the article's script"), ("loadtest", "openai"))
_WHAT = {
    "loadtest --no-stream": "`loadtest --no-stream`",
    "the article's script": "the article's script: 100 threads, `openai.OpenAI`",
    "loadtest": "`loadtest`",
    "openai": "`openai.AsyncOpenAI`, `stream=True`",
}


def main() -> int:
    """Measures and writes the page; the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--serve", type=float, metavar="GAP", help=argparse.SUPPRESS)
    parser.add_argument("--client", help=argparse.SUPPRESS)
    parser.add_argument("--url", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve is not None:
        asyncio.run(_serve(arguments.serve))
    if arguments.client is not None:
        sys.stdout.write(json.dumps(_measured(arguments.client, arguments.url)))
        return 0
    rates: dict[str, list[float]] = {name: [] for pair in _PAIRS for name in pair}
    with _server(GAP_SECONDS) as url:
        for _ in range(ROUNDS):
            for name, measured in rates.items():
                figures = _client(name, url)
                assert figures["tokens"] == WORKERS * REQUESTS * TOKENS, figures
                measured.append(figures["tokens"] / figures["cpu_seconds"])
    with _server(GAP_OF_MANY) as url:
        many = _client("many", url)
    medians = {name: statistics.median(measured) for name, measured in rates.items()}
    RESULT.write_text(_page(rates, medians, many))
    ahead = all(medians[ours] > medians[other] for ours, other in _PAIRS)
    held = many["in_flight"] == MANY and not many["failed"]
    return 0 if ahead and held else 1


def _page(rates: dict[str, list[float]], medians: dict[str, float], many: dict[str, float]) -> str:
    rows = [
        f"| {'not streamed' if pair == _PAIRS[0] else 'streamed'} | {_WHAT[name]} | {medians[name]:,.0f} | "
        f"{', '.join(f'{rate:,.0f}' for rate in rates[name])} | {medians[name] / medians[pair[1]]:.1f} |"
        for pair in _PAIRS
        for name in pair
    ]
    rate = many["tokens"] / many["seconds"]
    return f"""# What the load test costs its own machine

A client that is busy measures itself. How many output tokens each client takes in a second of its CPU time,
from the same server in the same run: a process of its own that sends answers of {TOKENS} tokens as vLLM does
over plain HTTP, each token a write of its own, every {GAP_SECONDS * 1000:g} ms. (A minimal server rather
than the sandbox's replica, which bundles the tokens of many streams and would be the bottleneck.) {WORKERS}
requests at a time, {WORKERS * REQUESTS} in all, the article's prompts; clients take turns, {ROUNDS} times.
Imports are not counted.

{datetime.datetime.now(datetime.UTC):%Y-%m-%d}, commit {commit(*CODE)}, `python -m {MODULE}`,
{os.cpu_count()} cores, Python {platform.python_version()}.

| | Client | Tokens per CPU second (median) | Rounds | Ratio |
| --- | --- | ---: | ---: | ---: |
{chr(10).join(rows)}

The article's script measures no token, but the end of each answer only; the load test does so with
`--no-stream`.

## {MANY:,} streams at a time

{MANY} workers, {REQUESTS_OF_MANY} answers each, a token every {GAP_OF_MANY * 1000:g} ms in each one, server
and client on the same {os.cpu_count()} cores:

| | |
| --- | ---: |
| Streams at a time, at most | {many["in_flight"]:,.0f} |
| Failed requests | {many["failed"]:.0f} |
| Output tokens/s; {MANY / GAP_OF_MANY:,.0f} at that pace, less the time of the connections | {rate:,.0f} |
| Output tokens per CPU second of the client | {many["tokens"] / many["cpu_seconds"]:,.0f} |
| Most CPU of the client within a second | {many["cpu"]:.0%} of a core |
| Event loop late by, median of the worst of each second | {many["loop_lag"] * 1000:.0f} ms |
| Mean TPOT that the client saw | {many["tpot"] * 1000:.1f} ms |
| p99 TTFT that the client saw | {many["ttft"] * 1000:.0f} ms |

TTFT holds {MANY:,} connections that are all made at the same moment, and their first tokens.
"""


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())

"""One request to an endpoint and what became of it."""

from __future__ import annotations

import asyncio
import json
import ssl
import time
from array import array
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import aiohttp

from autoscaling.traffic import ARTICLE_MAX_TOKENS, ARTICLE_TEMPERATURE, Request
from components.ai_deploy.redact import redact
from loadtest.prompts import Prompts
from loadtest.stream import ErrorInStreamError, Stream, StreamError, counted, error_text, has_content

CONNECTION = "connection"
TIMEOUT = "timeout"
CUT_OFF = "cut off"
IN_STREAM = "error in the stream"
NOT_THE_API = "not the API"
EMPTY = "empty answer"
# Kinds of errors; an HTTP status is one of its own, such as `HTTP 503`.

_KEEP_ALIVE_SECONDS = 4.0
"""Below the 5 s after which vLLM closes a connection that is idle (VLLM_HTTP_TIMEOUT_KEEP_ALIVE): a request
on one that the server closes in this moment would fail, and not for the load."""
_READ_OF_ERRORS = 4096
"""Bytes of an answer that is an error: more than are shown, so that no token is cut before it is found."""
_LONGEST_MESSAGE = 300
_LISTED_SECONDS = 30.0


class RefusedError(Exception):
    """The endpoint does not accept the token; the text says what to do."""


class TargetError(Exception):
    """The endpoint cannot be tested; the text says why, and what to do."""


class _FailedError(Exception):
    def __init__(self, kind: str, text: str) -> None:
        super().__init__(text)
        self.kind = kind


@dataclass(slots=True)
class Answer:
    """A request that has ended; times are seconds since the test began, durations seconds."""

    start: float
    """When it was to be sent; in a closed loop, when it was sent."""
    lag: float
    """How much later the client sent it."""
    prompt_tokens: int
    """As the server counted them, else as the traffic has them."""
    output_tokens: int = 0
    latency: float = 0.0
    """E2E, from `start`."""
    ttft: float | None = None
    """From `start`; None without a stream."""
    gaps: array[float] = field(default_factory=lambda: array("d"))
    kind: str = ""
    """Of the error; "" for a request that succeeded."""
    error: str = ""

    @property
    def end(self) -> float:
        """When it ended."""
        return self.start + self.latency

    @property
    def tpot(self) -> float | None:
        """Time per output token after the first one; None without stream or for a single token."""
        if self.ttft is None or self.output_tokens < 2:
            return None
        return (self.latency - self.ttft) / (self.output_tokens - 1)


@dataclass(frozen=True)
class Endpoint:
    """Where the requests go, and how."""

    base_url: str
    """Up to and with `/v1`, without trailing slash."""
    token: str = field(default="", repr=False)
    model: str = ""
    """"" for the first one that is listed."""
    stream: bool = True
    timeout: float = 600.0
    """Seconds from sending a request to its end."""
    ignore_eos: bool = False
    """Whether the server knows vLLM's parameter of that name, which makes answers as long as asked for."""

    @property
    def headers(self) -> dict[str, str]:
        """Headers of each request. Compressed chunks would wait for each other."""
        headers = {"Accept-Encoding": "identity", "User-Agent": "ovh-vllm-loadtest"}
        return headers | ({"Authorization": f"Bearer {self.token}"} if self.token else {})


@asynccontextmanager
async def session(
    endpoint: Endpoint, *, trusted: ssl.SSLContext | None = None, proxy: str | None = None
) -> AsyncIterator[aiohttp.ClientSession]:
    """As many connections as there are requests; `trusted` None means the system's authorities."""
    connector = aiohttp.TCPConnector(
        limit=0, ssl=trusted or ssl.create_default_context(), keepalive_timeout=_KEEP_ALIVE_SECONDS
    )
    # Times are limited for a request as a whole, which costs less than for each read.
    async with aiohttp.ClientSession(
        connector=connector, headers=endpoint.headers, proxy=proxy, timeout=aiohttp.ClientTimeout(total=None)
    ) as opened:
        yield opened


def environment_proxy(base_url: str) -> str | None:
    """The proxy that the environment has for an address; aiohttp would look it up for each request."""
    address = urlsplit(base_url)
    return None if proxy_bypass(address.netloc) else getproxies().get(address.scheme)


@dataclass(frozen=True)
class Listed:
    """What an endpoint says about its models."""

    model: str
    vllm: bool


async def look(http: aiohttp.ClientSession, endpoint: Endpoint) -> Listed:
    """Asks for the endpoint's models, so that a wrong address or token is found before the load.

    Raises RefusedError and TargetError.
    """
    url = f"{endpoint.base_url}/models"
    try:
        async with asyncio.timeout(_LISTED_SECONDS), http.get(url, allow_redirects=False) as response:
            status, body = response.status, await response.read()
    except TimeoutError:
        raise TargetError(f"{url}: no answer within {_LISTED_SECONDS:g} s") from None
    except aiohttp.ClientConnectorCertificateError as error:
        raise TargetError(
            f"{url}: the certificate is not trusted: {error.certificate_error}. If the server is yours, set "
            "SSL_CERT_FILE to the file of the authority that signed it"
        ) from None
    except (aiohttp.ClientError, OSError, ValueError) as error:
        raise TargetError(f"{url}: no answer: {_named(error)}") from None
    if status in (401, 403):
        raise RefusedError(_refused(url, status, bool(endpoint.token)))
    try:
        listed = json.loads(body)["data"]
        models = {str(model["id"]): model.get("owned_by") for model in listed}
    except (ValueError, KeyError, TypeError, AttributeError):
        if endpoint.model and status in (404, 405, 501):
            return Listed(endpoint.model, vllm=False)  # not every server lists its models
        if 300 <= status < 400:
            raise TargetError(
                f"{url}: HTTP {status}, sent elsewhere: to a login page, because the token is missing or not "
                "accepted, or from http:// to https://"
            ) from None
        raise TargetError(
            f"{url}: HTTP {status} without a list of models: {_excerpt(body, endpoint)}. "
            "Is it the base URL of an OpenAI-compatible API, such as https://host/v1? "
            "A login page instead of the API means that the token is missing or not accepted"
        ) from None
    model = endpoint.model or next(iter(models), "")
    if model not in models:
        raise TargetError(f"{url}: model {model!r} is not listed; there are: {', '.join(models) or 'none'}")
    return Listed(model, vllm=models[model] == "vllm")


class Client:
    """Sends requests to an endpoint; `tokens` and `in_flight` may be read at any time."""

    def __init__(
        self,
        http: aiohttp.ClientSession,
        endpoint: Endpoint,
        prompts: Prompts,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._http = http
        self._endpoint = endpoint
        self._prompts = prompts
        self._clock = clock
        self._url = f"{endpoint.base_url}/chat/completions"
        self.began = clock()
        """When the test began, on the client's clock."""
        self._starts: dict[int, float] = {}
        """When the requests under way were to be sent, by their numbers."""
        self.most_in_flight = 0
        self.sent = 0
        self.tokens = 0
        """Chunks of streams so far, and tokens of whole answers."""

    def now(self) -> float:
        """Seconds since the test began."""
        return self._clock() - self.began

    @property
    def in_flight(self) -> int:
        """Requests under way."""
        return len(self._starts)

    def waits(self) -> list[float]:
        """How long the requests under way have taken so far, in seconds from when they were to be sent."""
        now = self.now()
        return [now - start for start in self._starts.values()]

    async def ask(self, request: Request, start: float | None = None) -> Answer:
        """Sends a request that was to be sent at `start` (None: now) and waits for the end of its answer.

        Raises RefusedError when the token is not accepted.
        """
        body = json.dumps(self._body(request)).encode()
        sent = self.now()
        begin = sent if start is None else start
        answer = Answer(begin, sent - begin, request.prompt_tokens)
        self.sent += 1
        number = self.sent
        self._starts[number] = begin
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            async with asyncio.timeout(self._endpoint.timeout):
                await self._exchange(body, answer)
        except TimeoutError:
            self._fail(answer, TIMEOUT, f"no complete answer within {self._endpoint.timeout:g} s")
        except _FailedError as error:
            self._fail(answer, error.kind, str(error))
        except ErrorInStreamError as error:
            self._fail(answer, IN_STREAM, str(error))
        except StreamError as error:
            self._fail(answer, NOT_THE_API, str(error))
        except (aiohttp.ClientConnectionError, OSError) as error:
            self._fail(answer, CONNECTION, _named(error))
        except (aiohttp.ClientError, ValueError) as error:
            self._fail(answer, NOT_THE_API, _named(error))
        finally:
            del self._starts[number]
        return answer

    def _body(self, request: Request) -> Mapping[str, Any]:
        body: dict[str, Any] = {
            "model": self._endpoint.model,
            "messages": [{"role": "user", "content": self._prompts.text(request)}],
        }
        if request.prompt is not None:
            # The article's: how long an answer becomes is for the model to say.
            body |= {"max_tokens": ARTICLE_MAX_TOKENS, "temperature": ARTICLE_TEMPERATURE}
        else:
            body["max_tokens"] = request.output_tokens
            if self._endpoint.ignore_eos:
                body["ignore_eos"] = True
        if self._endpoint.stream:
            body |= {"stream": True, "stream_options": {"include_usage": True}}
        return body

    async def _exchange(self, body: bytes, answer: Answer) -> None:
        async with self._http.post(
            self._url, data=body, headers={"Content-Type": "application/json"}, allow_redirects=False
        ) as response:
            if response.status != 200:
                raise await self._unsuccessful(response)
            content_type = response.headers.get("Content-Type", "")
            wanted = "text/event-stream" if self._endpoint.stream else "application/json"
            if not content_type.lower().startswith(wanted):
                beginning = _excerpt(await response.content.read(_READ_OF_ERRORS), self._endpoint)
                raise _FailedError(
                    NOT_THE_API, f"HTTP 200 with {content_type or 'no content type'}: {beginning}"
                )
            try:
                if self._endpoint.stream:
                    await self._stream(response.content, answer)
                else:
                    self._whole(await response.read(), answer)
            except (aiohttp.ClientPayloadError, aiohttp.ClientConnectionError, OSError) as error:
                missing = f"the connection broke before the end of the answer ({type(error).__name__})"
                raise _FailedError(CUT_OFF, missing) from None

    async def _stream(self, content: aiohttp.StreamReader, answer: Answer) -> None:
        stream, clock, read = Stream(), self._clock, content.readany
        begin = self.began + answer.start
        known = 0
        try:
            while data := await read():
                stream.feed(data, clock())
                chunks = stream.chunks
                self.tokens += chunks - known
                known = chunks
        finally:
            if stream.first is not None:
                answer.ttft = stream.first - begin
                answer.latency = stream.last - begin
                answer.gaps = stream.gaps
                self._count(answer, stream.usage, stream.chunks)
        if not stream.done:
            raise _FailedError(CUT_OFF, "the stream ended without [DONE]")
        if stream.first is None:
            raise _FailedError(EMPTY, "the stream held no content")

    def _whole(self, data: bytes, answer: Answer) -> None:
        answer.latency = self.now() - answer.start
        body = json.loads(data)
        usage = (body.get("usage") or {}) if isinstance(body, dict) else None
        if not isinstance(usage, dict) or not isinstance(body.get("choices"), list):
            raise _FailedError(NOT_THE_API, f"no choices in the answer: {_excerpt(data, self._endpoint)}")
        if not any(map(has_content, body["choices"])):
            raise _FailedError(EMPTY, "the answer held no content")
        self._count(answer, usage, 1)
        self.tokens += answer.output_tokens

    def _count(self, answer: Answer, usage: Mapping[str, Any], least: int) -> None:
        answer.output_tokens = counted(usage, "completion_tokens") or least
        answer.prompt_tokens = counted(usage, "prompt_tokens") or answer.prompt_tokens

    async def _unsuccessful(self, response: aiohttp.ClientResponse) -> Exception:
        status = response.status
        if status in (401, 403):
            return RefusedError(_refused(self._url, status, bool(self._endpoint.token)))
        if 300 <= status < 400:
            # Where a platform sends browsers that have no valid token.
            return _FailedError(NOT_THE_API, f"HTTP {status}: sent elsewhere, as to a login page")
        body = await response.content.read(_READ_OF_ERRORS)
        return _FailedError(f"HTTP {status}", _excerpt(body, self._endpoint))

    def _fail(self, answer: Answer, kind: str, text: str) -> None:
        answer.kind = kind
        # Cut afterwards: half a token would not be found.
        answer.error = redact(f"{kind}: {text}", (self._endpoint.token,))[:_LONGEST_MESSAGE]
        answer.latency = self.now() - answer.start
        answer.output_tokens = 0


def _refused(url: str, status: int, token: bool) -> str:
    what = "does not accept the token" if token else "needs a token, and none was given"
    return (
        f"HTTP {status}: {url} {what}. A token comes from the stack's output client_token (STACK=…), or from "
        "LOADTEST_TOKEN or OPENAI_API_KEY in the environment; one of AI Deploy must be of the app's region, "
        "with a label selector that matches the app"
    )


def _excerpt(body: bytes, endpoint: Endpoint) -> str:
    """The error's message in an answer, else how it begins."""
    try:
        text = error_text(json.loads(body))
    except ValueError:
        text = ""
    text = text or " ".join(body.decode(errors="replace").split()) or "an empty answer"
    return redact(text, (endpoint.token,))[:_LONGEST_MESSAGE]


def _named(error: Exception) -> str:
    return f"{type(error).__name__} {error}".strip()

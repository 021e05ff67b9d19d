"""vLLM's OpenAI-compatible API as data: requests, answers, stream events and errors, without any I/O.

Keys, their order and their nulls are those that vLLM 0.13.0 was seen to answer. The text is made of harmless
words that depend on the prompt only; logprobs, tool calls, stop strings and structured output are not
modelled: a request for them is answered as if they had not been asked for.
"""

from __future__ import annotations

import json
import math
import random
import re
import secrets
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from autoscaling.engine import Prefix
from sandbox.interfaces import JsonObject, JsonValue

_TOKEN = re.compile(r"\w+|[^\w\s]")
_CHARACTERS_PER_TOKEN = 6  # longer words are cut, as a tokenizer does; assumed
_TEMPLATE_TOKENS = 10  # of a chat template, per conversation and per message; assumed
_MESSAGE_TOKENS = 4
_SHORTEST_ANSWER = 16  # tokens
_ANSWER_SPREAD = 0.6  # of the logarithm of an answer's length; assumed
_WORDS = (
    *("the", "cloud", "drifts", "over", "a", "quiet", "harbour", "while", "small", "boats", "carry", "light"),
    *("from", "one", "shore", "to", "another", "and", "every", "wave", "tells", "an", "old", "story", "of"),
    *("rain", "wind", "stone", "river", "forest", "morning", "garden", "lantern", "window", "song", "bridge"),
)
# Where FastAPI says that the endpoint is defined: vLLM's decorator of every endpoint.
_ENDPOINT_FILE = "/usr/local/lib/python3.12/dist-packages/vllm/entrypoints/utils.py"
_ENDPOINT_LINE = 477


RequestT = TypeVar("RequestT", bound=BaseModel)


class ApiError(Exception):
    """A request that vLLM refuses; `status` and `body` are the HTTP answer."""

    def __init__(self, status: int, kind: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.body: JsonObject = {"error": {"message": message, "type": kind, "param": None, "code": status}}


def bad_request(message: str) -> ApiError:
    """A request that is well-formed but asks for what the model cannot do."""
    return ApiError(400, "BadRequestError", message)


class _StreamOptions(BaseModel):
    include_usage: bool | None = True


class GenerationRequest(BaseModel):
    """What both endpoints take; keys that vLLM knows and this stand-in does not heed are let through."""

    model_config = ConfigDict(extra="allow")

    model: str | None = None
    n: int | None = 1
    temperature: float | None = None
    top_p: float | None = None
    max_tokens: int | None = None
    min_tokens: int = 0
    ignore_eos: bool = False
    stream: bool | None = False
    stream_options: _StreamOptions | None = None

    @property
    def include_usage(self) -> bool:
        """Whether a stream ends with an event that holds the usage."""
        return self.stream_options is not None and bool(self.stream_options.include_usage)

    def check_sampling(self) -> None:
        """Raises ApiError for sampling parameters out of range, with vLLM's texts."""
        if self.n is not None and self.n < 1:
            raise bad_request(f"n must be at least 1, got {self.n}.")
        if self.temperature is not None and self.temperature < 0:
            raise bad_request(f"temperature must be non-negative, got {self.temperature}.")
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise bad_request(f"top_p must be in (0, 1], got {self.top_p}.")
        if self.max_tokens is not None and self.max_tokens < 1:
            raise bad_request(f"max_tokens must be at least 1, got {self.max_tokens}.")


class ChatRequest(GenerationRequest):
    """`POST /v1/chat/completions`."""

    messages: list[dict[str, Any]]
    max_completion_tokens: int | None = None

    @model_validator(mode="after")
    def _prefer_max_completion_tokens(self) -> Self:
        if self.max_completion_tokens is not None:
            self.max_tokens = self.max_completion_tokens
        return self

    def prompts(self) -> list[Prompt]:
        """The conversation as one prompt."""
        texts = [_content_text(message.get("content")) for message in self.messages]
        counts = [count_tokens(text) + _MESSAGE_TOKENS for text in texts]
        tokens, text = _TEMPLATE_TOKENS + sum(counts), "\n".join(texts)
        # vLLM's cache finds any beginning that two prompts share. Only the likeliest is looked for here: the
        # system message, and where there is none the whole prompt.
        if texts and self.messages[0].get("role") == "system":
            shared = Prefix(("system", texts[0]), counts[0])
        else:
            shared = Prefix(("chat", text), tokens)
        return [Prompt(tokens, _seed(text), shared)]


class CompletionRequest(GenerationRequest):
    """`POST /v1/completions`."""

    prompt: str | list[str] | list[int] | list[list[int]] | None = None
    max_tokens: int | None = 16

    @model_validator(mode="after")
    def _need_prompt(self) -> Self:
        if not self.prompt:
            raise ValueError("Either prompt or prompt_embeds must be provided and non-empty.")
        return self

    def prompts(self) -> list[Prompt]:
        """Each prompt of the request; one given as token ids counts its ids."""
        assert self.prompt is not None
        parts: list[str | list[int]] = []
        for part in [self.prompt] if isinstance(self.prompt, str) else self.prompt:
            if isinstance(part, int):
                return [_prompt(len(self.prompt), repr(self.prompt))]
            parts.append(part)
        return [
            _prompt(count_tokens(part), part) if isinstance(part, str) else _prompt(len(part), repr(part))
            for part in parts
        ]


class TokenizeRequest(BaseModel):
    """`POST /tokenize`, of a text or of a conversation."""

    model_config = ConfigDict(extra="allow")

    model: str | None = None
    prompt: str | None = None
    messages: list[dict[str, Any]] = Field(default_factory=list)

    def tokens(self) -> list[int]:
        """Invented token ids, one per token."""
        if self.prompt is None:
            prompt = ChatRequest(messages=self.messages).prompts()[0]
            return [(prompt.seed + index) % 32000 for index in range(prompt.tokens)]
        return [_seed(piece) % 32000 for piece in _pieces(self.prompt)]


@dataclass(frozen=True)
class Prompt:
    """A prompt as the engine sees it."""

    tokens: int
    seed: int
    """What the answer depends on."""
    shared: Prefix
    """What other prompts may begin with, too."""


@dataclass(frozen=True)
class Answer:
    """What the model says to a prompt."""

    seed: int
    tokens: int
    finish_reason: Literal["stop", "length"]

    def word(self, index: int) -> str:
        """Text of the token at `index`; the token that ends an answer has none."""
        if self.finish_reason == "stop" and index == self.tokens - 1:
            return ""
        word = _WORDS[zlib.crc32(b"%d:%d" % (self.seed, index)) % len(_WORDS)]
        return word if index == 0 else f" {word}"

    def text(self) -> str:
        """All of it."""
        return "".join(self.word(index) for index in range(self.tokens))


def count_tokens(text: str) -> int:
    """Tokens of a text, near enough: words, pieces of long words, punctuation."""
    return len(_pieces(text))


def check_length(request: GenerationRequest, prompt: Prompt, max_model_len: int) -> int:
    """The most tokens that the answer to a prompt may have; raises ApiError when it does not fit."""
    # "None" at the end of both messages is vLLM's.
    if prompt.tokens >= max_model_len:
        raise bad_request(
            f"This model's maximum context length is {max_model_len} tokens. However, your request has "
            f"{prompt.tokens} input tokens. Please reduce the length of the input messages. None"
        )
    if request.max_tokens is None:
        return max_model_len - prompt.tokens
    if prompt.tokens + request.max_tokens > max_model_len:
        raise bad_request(
            f"'max_tokens' or 'max_completion_tokens' is too large: {request.max_tokens}. "
            f"This model's maximum context length is {max_model_len} tokens and your request has "
            f"{prompt.tokens} input tokens ({request.max_tokens} > {max_model_len} - {prompt.tokens}). None"
        )
    return request.max_tokens


def plan_answer(
    request: GenerationRequest, prompt: Prompt, index: int, max_tokens: int, median_tokens: int
) -> Answer:
    """The answer `index` (of `n`) to a prompt: its length is drawn around `median_tokens`, log-normally."""
    seed = prompt.seed + index
    draw = random.Random(seed).gauss(math.log(median_tokens), _ANSWER_SPREAD)  # noqa: S311
    natural = max(_SHORTEST_ANSWER, request.min_tokens, round(math.exp(draw)))
    if request.ignore_eos or natural >= max_tokens:
        return Answer(seed, max_tokens, "length")
    return Answer(seed, natural, "stop")


def parse(kind: type[RequestT], content_type: str, body: bytes, path: str, endpoint: str) -> RequestT:
    """The request in an HTTP body; raises ApiError with the text of FastAPI's validation.

    `path` and `endpoint` (name of vLLM's function) are part of that text.
    """
    if content_type.lower().partition(";")[0].strip() != "application/json":
        # Raised by vLLM itself, so without FastAPI's fields.
        raise _invalid(["Unsupported Media Type: Only 'application/json' is allowed"], path, endpoint)
    if not body:
        missing = {"type": "missing", "loc": ("body",), "msg": "Field required", "input": None}
        raise _invalid([missing], path, endpoint)
    try:
        value = json.loads(body)
    except json.JSONDecodeError as error:
        problem = {
            "type": "json_invalid",
            "loc": ("body", error.pos),
            "msg": "JSON decode error",
            "input": {},
            "ctx": {"error": error.msg},
        }
        raise _invalid([problem], path, endpoint) from None
    except (UnicodeDecodeError, RecursionError):
        # FastAPI's words for what its parser does not tell more about.
        raise ApiError(400, "Bad Request", "There was an error parsing the body") from None
    try:
        return kind.model_validate(value, from_attributes=True)
    except ValidationError as error:
        problems = [{**one, "loc": ("body", *one["loc"])} for one in error.errors(include_url=False)]
        raise _invalid(problems, path, endpoint) from None


def _invalid(problems: Sequence[object], path: str, endpoint: str) -> ApiError:
    count = f"{len(problems)} validation error{'' if len(problems) == 1 else 's'}"
    lines = "".join(f"  {problem}\n" for problem in problems)
    place = f'  File "{_ENDPOINT_FILE}", line {_ENDPOINT_LINE}, in {endpoint}\n    POST {path}'
    return ApiError(400, "Bad Request", f"{count}:\n{lines}\n{place} {list(problems)}")


def check_model(model: str | None, served: Sequence[str]) -> None:
    """Raises ApiError when a request names a model that is not served."""
    if model and model not in served:
        raise ApiError(404, "NotFoundError", f"The model `{model}` does not exist.")


def dump(value: JsonValue) -> str:
    """JSON as vLLM writes it: no spaces, no escapes beyond the necessary."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def models_body(served: Sequence[str], model: str, max_model_len: int, created: int) -> JsonObject:
    """Answer of `GET /v1/models`."""
    return {
        "object": "list",
        "data": [
            {
                "id": name,
                "object": "model",
                "created": created,
                "owned_by": "vllm",
                "root": model,
                "parent": None,
                "max_model_len": max_model_len,
                "permission": [
                    {
                        "id": f"modelperm-{secrets.token_hex(8)}",
                        "object": "model_permission",
                        "created": created,
                        "allow_create_engine": False,
                        "allow_sampling": True,
                        "allow_logprobs": True,
                        "allow_search_indices": False,
                        "allow_view": True,
                        "allow_fine_tuning": False,
                        "organization": "*",
                        "group": None,
                        "is_blocking": False,
                    }
                ],
            }
            for name in served
        ],
    }


def tokenize_body(tokens: Sequence[int], max_model_len: int) -> JsonObject:
    """Answer of `POST /tokenize`."""
    return {
        "count": len(tokens),
        "max_model_len": max_model_len,
        "tokens": list(tokens),
        "token_strs": None,
    }


@dataclass(frozen=True)
class Writer:
    """Writes the answers of one request in the form of its endpoint."""

    chat: bool
    id: str
    created: int
    model: str
    prompt_tokens: int
    """Of all prompts together."""

    @classmethod
    def of(cls, request: GenerationRequest, model: str, created: int, prompt_tokens: int) -> Writer:
        """A writer for `request`, with a new id; `created` is Unix time."""
        chat = isinstance(request, ChatRequest)
        prefix = "chatcmpl" if chat else "cmpl"
        return cls(chat, f"{prefix}-{secrets.token_hex(8)}", created, model, prompt_tokens)

    def body(self, answers: Sequence[Answer]) -> JsonObject:
        """The answer of a request that does not stream."""
        choices: list[JsonValue] = [self._choice(index, answer) for index, answer in enumerate(answers)]
        usage = self._usage(sum(answer.tokens for answer in answers))
        body: JsonObject = {
            **self._head("chat.completion" if self.chat else "text_completion"),
            "choices": choices,
            "service_tier": None,
            "system_fingerprint": None,
            "usage": {**usage, "prompt_tokens_details": None},
        }
        if self.chat:
            body |= {"prompt_logprobs": None, "prompt_token_ids": None}
        return {**body, "kv_transfer_params": None}

    def opening_event(self, index: int) -> str:
        """The first event of a choice, with the role; a completion has none."""
        if not self.chat:
            return ""
        choice: JsonObject = {
            "index": index,
            "delta": {"role": "assistant", "content": "", "reasoning_content": None},
            "logprobs": None,
            "finish_reason": None,
        }
        head = self._head("chat.completion.chunk")
        return _event({**head, "choices": [choice], "prompt_token_ids": None})

    def token_events(self, index: int, answer: Answer) -> Callable[[int], str]:
        """A function that writes the event of one token, given its index.

        Events of one stream differ in a word only: all else is put together once, since a busy server
        writes tens of thousands of them in a second.
        """
        mark = secrets.token_hex(8)
        before, after = self._token_event(index, mark, None).split(f'"{mark}"')
        last_before, last_after = self._token_event(index, mark, answer.finish_reason).split(f'"{mark}"')

        def write(position: int) -> str:
            word = answer.word(position)  # of letters only: needs no escape
            if position == answer.tokens - 1:
                return f'{last_before}"{word}"{last_after}'
            return f'{before}"{word}"{after}'

        return write

    def closing_events(self, completion_tokens: int, include_usage: bool) -> str:
        """What ends a stream."""
        if not include_usage:
            return "data: [DONE]\n\n"
        head = self._head("chat.completion.chunk" if self.chat else "text_completion")
        usage = self._usage(completion_tokens)
        return _event({**head, "choices": [], "usage": usage}) + "data: [DONE]\n\n"

    def _head(self, kind: str) -> JsonObject:
        return {"id": self.id, "object": kind, "created": self.created, "model": self.model}

    def _usage(self, completion_tokens: int) -> JsonObject:
        return {
            "prompt_tokens": self.prompt_tokens,
            "total_tokens": self.prompt_tokens + completion_tokens,
            "completion_tokens": completion_tokens,
        }

    def _choice(self, index: int, answer: Answer) -> JsonObject:
        ending: JsonObject = {
            "logprobs": None,
            "finish_reason": answer.finish_reason,
            "stop_reason": None,
            "token_ids": None,
        }
        if not self.chat:
            nulls: JsonObject = {"prompt_logprobs": None, "prompt_token_ids": None}
            return {"index": index, "text": answer.text(), **ending, **nulls}
        message: JsonObject = {
            "role": "assistant",
            "content": answer.text(),
            "refusal": None,
            "annotations": None,
            "audio": None,
            "function_call": None,
            "tool_calls": [],
            "reasoning": None,
            "reasoning_content": None,
        }
        return {"index": index, "message": message, **ending}

    def _token_event(self, index: int, text: str, finish_reason: str | None) -> str:
        choice: JsonObject = {"index": index}
        if not self.chat:
            choice |= {"text": text, "logprobs": None, "finish_reason": finish_reason, "stop_reason": None}
            choice |= {"prompt_token_ids": None, "token_ids": None}
            return _event({**self._head("text_completion"), "choices": [choice], "usage": None})
        choice |= {"delta": {"content": text, "reasoning_content": None}, "logprobs": None}
        choice["finish_reason"] = finish_reason
        if finish_reason is not None:
            choice["stop_reason"] = None
        choice["token_ids"] = None
        return _event({**self._head("chat.completion.chunk"), "choices": [choice]})


def _event(value: Mapping[str, JsonValue]) -> str:
    return f"data: {dump(dict(value))}\n\n"


def _pieces(text: str) -> list[str]:
    pieces = []
    for word in _TOKEN.findall(text):
        pieces += [
            word[start : start + _CHARACTERS_PER_TOKEN]
            for start in range(0, len(word), _CHARACTERS_PER_TOKEN)
        ]
    return pieces


def _seed(text: str) -> int:
    return zlib.crc32(text.encode(errors="replace"))  # JSON may hold half a character


def _prompt(tokens: int, text: str) -> Prompt:
    """A prompt that is all that others may share."""
    tokens = max(1, tokens)
    return Prompt(tokens, _seed(text), Prefix(("completion", text), tokens))


def _content_text(content: object) -> str:
    """Text of a message's content, which is a string or a list of parts."""
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else []
    return " ".join(str(part.get("text", "")) for part in parts if isinstance(part, dict))

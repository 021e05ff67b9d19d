"""The arguments of a vLLM server that decide how it batches, how fast it is and what it is called."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import TypeVar

DEFAULT_PORT = 8000
"""vLLM's own default; AI Deploy's default port is 8080."""

_FLAG = re.compile(r"--?[A-Za-z]")
_HUMAN_READABLE = re.compile(r"(\d+(?:\.\d+)?)([kKmMgGtT])")
_THOUSANDS = "kmgt"

_UNHEEDED = {
    "--pipeline-parallel-size",
    "-pp",
    "--data-parallel-size",
    "-dp",
    "--enable-expert-parallel",
    "--speculative-config",
    "--enforce-eager",
    "--cpu-offload-gb",
    "--kv-cache-memory-bytes",
    "--num-gpu-blocks-override",
    "--scheduling-policy",
    "--no-enable-chunked-prefill",
}
"""Arguments of vLLM 0.13.0 that change speed, memory or the order of requests, and are not modelled."""

NumberT = TypeVar("NumberT", int, float)


class ArgumentsError(ValueError):
    """vLLM ends at once; the text is what it prints."""


@dataclass(frozen=True)
class ServerArguments:
    """What is heeded of vLLM 0.13.0's arguments; all others are taken for granted. None: vLLM chooses."""

    model: str
    served_model_names: tuple[str, ...]
    """Never empty; the first one labels the metrics and is in every answer."""
    port: int = DEFAULT_PORT
    max_model_len: int | None = None
    max_num_seqs: int | None = None
    max_num_batched_tokens: int | None = None
    tensor_parallel_size: int = 1
    gpu_memory_utilization: float = 0.9
    block_size: int = 16
    """Tokens; vLLM's default on CUDA."""
    kv_cache_dtype: str = "auto"
    quantization: str | None = None
    enable_prefix_caching: bool = True
    """On by default for models that generate text."""

    def non_default(self) -> dict[str, object]:
        """The arguments that were given, as vLLM prints them when it starts."""
        given: dict[str, object] = {"model": self.model}
        if self.served_model_names != (self.model,):
            given["served_model_name"] = list(self.served_model_names)
        for field in fields(self)[2:]:
            value = getattr(self, field.name)
            if value != field.default:
                given[field.name] = value
        return given


def parse(words: Sequence[str]) -> ServerArguments:
    """The arguments in the words after `vllm serve` or `python3 -m vllm.entrypoints.openai.api_server`.

    Raises ArgumentsError for what vLLM refuses: no model, a value that is no number.
    """
    values: dict[str, list[str]] = {}
    positional: list[str] = []
    for flag, given in _flags(words):
        if flag is None:
            positional += given
        else:
            values[flag] = given
    model = positional[0] if positional else _one(values, "--model")
    if model is None:
        raise ArgumentsError(
            "api_server.py: error: no model was given (--model); vLLM would load its tiny default model"
        )
    return ServerArguments(
        model=model,
        served_model_names=tuple(values.get("--served-model-name", ())) or (model,),
        port=_value(values, "--port", int) or DEFAULT_PORT,
        max_model_len=_value(values, "--max-model-len", _human_readable_int),
        max_num_seqs=_value(values, "--max-num-seqs", int),
        max_num_batched_tokens=_value(values, "--max-num-batched-tokens", _human_readable_int),
        tensor_parallel_size=_value(values, "--tensor-parallel-size", int) or _value(values, "-tp", int) or 1,
        gpu_memory_utilization=_value(values, "--gpu-memory-utilization", float)
        or ServerArguments.gpu_memory_utilization,
        block_size=_value(values, "--block-size", int) or ServerArguments.block_size,
        kv_cache_dtype=_one(values, "--kv-cache-dtype") or ServerArguments.kv_cache_dtype,
        quantization=_one(values, "--quantization") or _one(values, "-q"),
        enable_prefix_caching="--no-enable-prefix-caching" not in values,
    )


def unheeded(words: Sequence[str]) -> list[str]:
    """The arguments among the words with which a real server is faster or slower than what is modelled."""
    return sorted({flag for flag, _ in _flags(words) if flag in _UNHEEDED})


def _flags(words: Sequence[str]) -> Iterator[tuple[str | None, list[str]]]:
    """Flags with the words after them; words before the first flag come with None.

    vLLM takes `--max_model_len` for `--max-model-len`. Words after a flag without a value would be
    positional: only the first words of a command are taken as such here.
    """
    flag: str | None = None
    given: list[str] = []
    for word in words:
        if _FLAG.match(word) is None:
            given.append(word)
            continue
        yield flag, given
        name, equals, value = word.partition("=")
        flag, given = name.replace("_", "-"), [value] if equals else []
    yield flag, given


def _one(values: Mapping[str, list[str]], flag: str) -> str | None:
    if flag not in values:
        return None
    if len(values[flag]) != 1:
        raise ArgumentsError(f"api_server.py: error: argument {flag}: expected one argument")
    return values[flag][0]


def _value(values: Mapping[str, list[str]], flag: str, read: Callable[[str], NumberT]) -> NumberT | None:
    text = _one(values, flag)
    if text is None:
        return None
    try:
        return read(text)
    except ValueError:
        kind = "float" if read is float else "int"
        raise ArgumentsError(
            f"api_server.py: error: argument {flag}: invalid {kind} value: {text!r}"
        ) from None


def _human_readable_int(text: str) -> int:
    """A number as vLLM reads it for lengths: `16k` is 16,000, `16K` is 16,384, `25.6k` is 25,600."""
    found = _HUMAN_READABLE.fullmatch(text)
    if found is None:
        return int(text)
    power = _THOUSANDS.index(found[2].lower()) + 1
    if found[2].islower():
        return round(float(found[1]) * 1e3**power)
    return int(found[1]) << 10 * power

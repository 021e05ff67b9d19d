"""vLLM's arguments are read as vLLM 0.13.0 reads them."""

from __future__ import annotations

import pytest

from autoscaling.arguments import ArgumentsError, ServerArguments, parse


@pytest.mark.parametrize(
    ("words", "field", "value"),
    [
        (["--port=9000"], "port", 9000),
        (["--max_model_len", "4096"], "max_model_len", 4096),
        (["--max-model-len", "16k"], "max_model_len", 16000),
        (["--max-model-len", "16K"], "max_model_len", 16384),
        (["--max-model-len", "25.6k"], "max_model_len", 25600),
        (["--max-num-seqs", "8"], "max_num_seqs", 8),
        (["--max-num-batched-tokens", "8k"], "max_num_batched_tokens", 8000),
        (["--tensor-parallel-size", "2"], "tensor_parallel_size", 2),
        (["-tp", "2"], "tensor_parallel_size", 2),
        (["--gpu-memory-utilization", "0.95"], "gpu_memory_utilization", 0.95),
        (["--block-size", "32"], "block_size", 32),
        (["--kv-cache-dtype", "fp8"], "kv_cache_dtype", "fp8"),
        (["--quantization", "fp8"], "quantization", "fp8"),
        (["-q", "awq"], "quantization", "awq"),
        (["--enable-prefix-caching"], "enable_prefix_caching", True),
        (["--no-enable-prefix-caching"], "enable_prefix_caching", False),
        (["--served-model-name", "a", "b", "--seed", "1"], "served_model_names", ("a", "b")),
    ],
)
def test_what_a_flag_means(words: list[str], field: str, value: object) -> None:
    arguments = parse(["--model", "m", *words])
    assert getattr(arguments, field) == value
    assert parse(["m", *words]) == arguments


def test_what_is_not_given_is_left_to_vllm() -> None:
    assert parse(["m", "--enable-auto-tool-choice", "--tool-call-parser", "mistral"]) == ServerArguments(
        "m", ("m",)
    )


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        ([], "no model was given"),
        (["--model", "a", "b"], "--model: expected one argument"),
        (["m", "--port", "http"], "--port: invalid int value: 'http'"),
        (["m", "--max-num-seqs", "8k"], "--max-num-seqs: invalid int value: '8k'"),
        (["m", "--max-model-len", "1.5K"], "--max-model-len: invalid int value: '1.5K'"),
        (["m", "--gpu-memory-utilization", "most"], "invalid float value: 'most'"),
    ],
)
def test_what_vllm_refuses(words: list[str], problem: str) -> None:
    with pytest.raises(ArgumentsError, match=problem):
        parse(words)


def test_what_vllm_prints_of_its_arguments_holds_no_secret() -> None:
    printed = parse(
        ["m", "--api-key", "secret", "--port", "9000", "--no-enable-prefix-caching"]
    ).non_default()
    assert printed == {"model": "m", "port": 9000, "enable_prefix_caching": False}

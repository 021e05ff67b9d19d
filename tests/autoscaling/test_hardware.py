"""A model on a GPU: what is published of both, what fits, and what others measured with vLLM."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass
from pathlib import Path

import pytest

from autoscaling import hardware
from autoscaling.arguments import parse
from autoscaling.engine import Engine, EngineParameters
from autoscaling.hardware import (
    GPUS,
    OutOfMemoryError,
    engine_parameters,
    max_model_len,
    parameter_count,
    weights_bytes,
)
from components.flavors import FLAVORS

MINISTRAL = "mistralai/Ministral-3-14B-Instruct-2512"
QWEN = "Qwen/Qwen3-14B"


def parameters(model: str, flavor: str, *words: str) -> EngineParameters:
    return engine_parameters(parse([model, *words]), flavor)


@pytest.mark.parametrize(
    ("model", "count"),
    [
        (MINISTRAL, 13.9e9),
        ("facebook/opt-125m", 125e6),
        ("Qwen/Qwen3-0.6B", 0.6e9),
        ("mistralai/Mixtral-8x7B-Instruct", 56e9),
        ("Qwen/Qwen3-30B-A3B", 30.5e9),
        ("tiny", 7e9),
    ],
)
def test_parameters_are_published_or_in_the_name(model: str, count: float) -> None:
    assert parameter_count(model) == pytest.approx(count)


@pytest.mark.parametrize(
    ("model", "gigabytes"),
    [
        (MINISTRAL, 13.9),  # published in FP8
        ("mistralai/Ministral-3-14B-Instruct-2512-BF16", 27.8),
        ("mistralai/Ministral-3-14B-Reasoning-2512", 27.8),
        (QWEN, 29.6),
        ("Qwen/Qwen3-14B-FP8", 14.8),
        ("Qwen/Qwen3-14B-AWQ", 7.4),
        ("tiny", 14),
    ],
)
def test_bytes_to_download(model: str, gigabytes: float) -> None:
    assert weights_bytes(model) == pytest.approx(gigabytes * 1e9)


def test_context_lengths() -> None:
    assert max_model_len(parse([MINISTRAL])) == 262144
    assert max_model_len(parse([MINISTRAL, "--max-model-len", "16k"])) == 16000
    assert max_model_len(parse(["tiny"])) == 32768


def test_every_figure_names_its_source() -> None:
    table = json.loads(Path(hardware.__file__).with_suffix(".json").read_text())
    records = [*table["efficiencies"].values(), *table["gpus"].values(), *table["models"]]
    assert all(len(record["source"]) > 20 for record in records)


def test_the_gpus_of_the_catalogue_are_known_as_far_as_vllm_runs_on_them() -> None:
    missing = {flavor for flavor, known in FLAVORS.items() if known.is_gpu} - set(GPUS)
    assert all(flavor.startswith("ai1-") for flavor in missing), missing  # V100: too old


def test_kv_bytes_are_those_of_the_architecture() -> None:
    """2 x 40 layers x 8 heads x 128 x 2 bytes: 160 KiB a token, half of it in FP8."""
    whole = parameters(QWEN, "h100-1-gpu", "--max-model-len", "4096")
    half = parameters(QWEN, "h100-1-gpu", "--max-model-len", "4096", "--kv-cache-dtype", "fp8")
    memory = 79.6 * 2**30 * 0.9 - 3e9 - 29.6e9
    assert whole.kv_tokens == pytest.approx(memory / (160 * 1024), rel=1e-3)
    assert half.kv_tokens == pytest.approx(2 * whole.kv_tokens, rel=1e-3)
    assert half.context_token_seconds == whole.context_token_seconds / 2


def test_defaults_follow_vllm() -> None:
    h100 = parameters(MINISTRAL, "h100-1-gpu")
    assert (h100.max_num_seqs, h100.max_num_batched_tokens) == (1024, 8192)
    for flavor in ("a100-1-gpu", "l40s-1-gpu"):
        other = parameters(MINISTRAL, flavor, "--max-model-len", "8192")
        assert (other.max_num_seqs, other.max_num_batched_tokens) == (256, 2048)
    few = parameters(MINISTRAL, "h100-1-gpu", "--max-num-seqs", "7", "--max-model-len", "100")
    assert (few.max_num_seqs, few.max_num_batched_tokens) == (7, 700)
    small = parameters(MINISTRAL, "h100-1-gpu", "--max-num-batched-tokens", "512")
    assert (small.max_num_seqs, small.max_num_batched_tokens) == (512, 512)
    assert h100.prefix_caching
    assert not parameters(MINISTRAL, "h100-1-gpu", "--no-enable-prefix-caching").prefix_caching


def test_what_does_not_fit_is_refused_as_vllm_refuses_it() -> None:
    with pytest.raises(OutOfMemoryError, match=r"28 GB of weights do not fit into 1 x L4 \(22 GiB\)"):
        parameters("a-14B", "l4-1-gpu")
    assert parameters("a-14B", "l4-1-gpu", "-tp", "2").kv_blocks > 0
    with pytest.raises(ValueError, match=r"max seq len \(262144\), 26.00 GiB KV cache is needed"):
        parameters("mistralai/Ministral-3-3B-Instruct-2512", "l4-1-gpu")
    assert parameters("mistralai/Ministral-3-3B-Instruct-2512", "l4-1-gpu", "--max-model-len", "16384")
    with pytest.raises(ValueError, match=r"gpuFlavor b2-7: no figures .*; known are h100-1-gpu"):
        parameters(MINISTRAL, "b2-7")
    with pytest.raises(ValueError, match="must be greater than or equal to max_num_seqs"):
        parameters(MINISTRAL, "h100-1-gpu", "--max-num-seqs", "64", "--max-num-batched-tokens", "32")


def test_8_bits_are_computed_faster_where_the_gpu_can() -> None:
    for flavor, factor in (("h100-1-gpu", 1513 / 756), ("a100-1-gpu", 1.0)):
        sixteen = parameters(QWEN, flavor)
        for eight in (parameters(f"{QWEN}-FP8", flavor), parameters(QWEN, flavor, "--quantization", "fp8")):
            faster = eight.prefill_tokens_per_second / sixteen.prefill_tokens_per_second
            assert faster == pytest.approx(factor)
            assert eight.step_seconds == pytest.approx((sixteen.step_seconds + 0.001) / 2)


def test_experts_that_do_not_take_part_are_read_but_not_computed() -> None:
    dense, experts = (
        parameters(model, "h100-1-gpu", "--max-model-len", "8192")
        for model in ("Qwen/Qwen3-32B", "Qwen/Qwen3-30B-A3B")
    )
    assert experts.step_seconds == pytest.approx(dense.step_seconds, rel=0.1)
    ratio = experts.prefill_tokens_per_second / dense.prefill_tokens_per_second
    assert ratio == pytest.approx(32.8 / 3.3)


def shared_gpt(requests: int, prompt: int, output: int) -> list[tuple[int, int]]:
    """Lengths with the published means; vLLM's benchmark leaves out prompts and answers above 1024 tokens."""
    draw = random.Random(1)  # noqa: S311

    def lengths(mean: int) -> list[int]:
        drawn = [min(1024, round(draw.lognormvariate(0, 0.9) * mean * 0.75) + 4) for _ in range(requests)]
        return [max(2, round(value * mean * requests / sum(drawn))) for value in drawn]

    return list(zip(lengths(prompt), lengths(output), strict=True))


@dataclass(frozen=True)
class Measured:
    """`vllm bench serve` as published: all requests at once, or so many at a time."""

    model: str
    flavor: str
    lengths: list[tuple[int, int]]
    concurrency: int | None = None
    duration: float | None = None
    tpot_ms: float | None = None
    """Mean time per token after the first."""
    median_itl_ms: float | None = None
    within: float = 0.1


PUBLISHED = {
    # github.com/gpustack/gpustack, docs/performance-lab/qwen3-14b and qwen3-8b: vLLM 0.11.0, bfloat16.
    "H100 SXM, 14B, 2000 to 100": Measured(
        QWEN, "h100-sxm", [(1996, 100)] * 500, None, duration=98.91, tpot_ms=206.51, median_itl_ms=46.01
    ),
    "H100 SXM, 14B, 4000 to 200": Measured(
        QWEN, "h100-sxm", [(3996, 200)] * 500, None, duration=227.57, tpot_ms=132.45, median_itl_ms=43.93
    ),
    "H100 SXM, 14B, 32000 to 100": Measured(
        QWEN, "h100-sxm", [(32000, 99)] * 100, None, duration=386.80, tpot_ms=277.44
    ),
    "H100 SXM, 14B, ShareGPT": Measured(
        QWEN, "h100-sxm", shared_gpt(1000, 217, 202), None, duration=63.53, within=0.25
    ),
    "H100 SXM, 8B, ShareGPT, 4 at a time": Measured(
        "Qwen/Qwen3-8B", "h100-sxm", shared_gpt(100, 233, 221), 4, duration=44.40, tpot_ms=7.38
    ),
    "A100, 14B, 2000 to 100": Measured(
        QWEN, "a100-1-gpu", [(1996, 100)] * 500, None, duration=175.66, tpot_ms=301.73, median_itl_ms=333.99
    ),
    "A100, 14B, 4000 to 200": Measured(
        QWEN, "a100-1-gpu", [(3996, 200)] * 500, None, duration=407.05, tpot_ms=254.61, median_itl_ms=369.00
    ),
    "A100, 14B, 32000 to 100": Measured(
        QWEN, "a100-1-gpu", [(32000, 99)] * 100, None, duration=724.56, tpot_ms=445.58, median_itl_ms=448.05
    ),
    "A100, 14B, ShareGPT": Measured(
        QWEN, "a100-1-gpu", shared_gpt(1000, 217, 202), None, duration=106.82, within=0.25
    ),
    # InferenceBench (yobitelcomm.github.io/bench), recipe "concurrency sweep", 2026-05-16: vLLM 0.21.0.
    "H100 SXM, Llama 8B, 1 at a time": Measured(
        "meta-llama/Llama-3.1-8B-Instruct", "h100-sxm", [(128, 128)] * 8, 1, tpot_ms=6.48
    ),
    "H100 SXM, Llama 8B, 4 at a time": Measured(
        "meta-llama/Llama-3.1-8B-Instruct", "h100-sxm", [(128, 128)] * 32, 4, tpot_ms=6.59
    ),
}


def served(case: Measured) -> tuple[float, float, float]:
    """Duration, mean time per token after the first and median gap, the last two in milliseconds."""
    engine = Engine(parameters(case.model, case.flavor))
    now, sent = 0.0, 0
    first: dict[int, float] = {}
    per_token: list[float] = []
    gaps: list[tuple[float, int]] = []
    while True:
        while sent < len(case.lengths) and engine.running + engine.waiting < (case.concurrency or 10**6):
            engine.add(sent, *case.lengths[sent])
            sent += 1
        step = engine.schedule()
        if step is None:
            break
        now += step.seconds
        completed = engine.complete()
        gaps.append((step.seconds * 1000, completed.decoded))
        first |= dict.fromkeys(completed.first, now)
        per_token += [
            (now - first[index]) / (case.lengths[index][1] - 1) * 1000 for index in completed.finished
        ]
    middle = sum(count for _, count in gaps) / 2
    for gap, count in sorted(gaps):
        middle -= count
        if middle <= 0:
            return now, sum(per_token) / len(per_token), gap
    raise AssertionError("nothing was decoded")


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_model_agrees_with_published_measurements(name: str) -> None:
    case = PUBLISHED[name]
    for ours, theirs in zip(served(case), (case.duration, case.tpot_ms, case.median_itl_ms), strict=True):
        if theirs is not None:
            assert ours == pytest.approx(theirs, rel=case.within)


def test_two_gpus_are_twice_as_fast_but_for_what_a_step_takes_anyway() -> None:
    """Communication between them is not modelled."""
    one, two = parameters(QWEN, "h100-1-gpu"), parameters(QWEN, "h100-1-gpu", "-tp", "2")
    assert two.prefill_tokens_per_second == pytest.approx(2 * one.prefill_tokens_per_second)
    assert two.step_seconds - 0.001 == pytest.approx((one.step_seconds - 0.001) / 2)

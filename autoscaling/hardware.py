"""How fast a model is on a GPU and how much it can hold there, from published figures (`hardware.json`).

A step of the engine reads all weights and the KV of all contexts once; it computes two operations per
parameter and token, and four per layer, width of the heads and pair of tokens that attend to each other.
What GPUs reach of their data sheets is fitted to published measurements of vLLM, against which
`tests/autoscaling/test_hardware.py` holds the model; a load test of one's own endpoint tells better
(`autoscaling.calibrate`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from autoscaling.arguments import ServerArguments
from autoscaling.engine import EngineParameters

_GIB = 2**30
_DEFAULT_PARAMETERS = 7e9  # assumed where the name of a model tells nothing
_DEFAULT_KV_BYTES = 160 * 1024  # assumed: 40 layers x 8 KV heads x 128 x 2 x bfloat16
_DEFAULT_CONTEXT = 32768  # assumed
_PARAMETER_COUNT = re.compile(r"(?:(\d+)x)?(\d+(?:\.\d+)?)([BM])(?![a-z0-9])", re.IGNORECASE)
_EIGHT_BITS = re.compile(r"fp8|w8a8|int8|8bit", re.IGNORECASE)
_FOUR_BITS = re.compile(r"awq|gptq|w4a16|int4|4bit|nvfp4|mxfp4", re.IGNORECASE)

_Positive = Annotated[float, Field(gt=0)]


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Figure(_Record):
    """A number and where it is from."""

    value: _Positive
    source: str


class Gpu(_Record):
    """A GPU as its data sheet publishes it."""

    name: str
    memory_gib: _Positive
    """What the driver reports, less than the data sheet's."""
    bandwidth: _Positive
    """Bytes per second from and to its memory."""
    bfloat16_flops: _Positive
    """Dense operations per second."""
    fp8_flops: _Positive | None = None
    """None where it has no such arithmetic: 8-bit weights are then computed in 16 bits."""
    compute_efficiency: Figure | None = None
    """Share of the operations that it reaches; None: as other GPUs."""
    source: str


class Model(_Record):
    """A model as its card and its `config.json` publish it."""

    names: str
    """Regular expression, found in the ids of its repositories; of several entries the first one counts."""
    parameters: _Positive
    active_parameters: _Positive | None = None
    """Parameters that compute a token; None: all."""
    bytes_per_parameter: _Positive = 2
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    context: int
    """Tokens of prompt and answer that it allows."""
    source: str


class _Efficiencies(_Record):
    bandwidth: Figure
    """Share of the data sheet's that reading weights reaches."""
    kv_bandwidth: Figure
    """The same for reading KV."""
    compute: Figure
    """Share of the data sheet's operations."""
    step_seconds: Figure
    """Added to every step: scheduling, sampling, launching kernels."""
    activation_bytes: Figure
    """GPU memory that holds neither weights nor KV."""


class _Hardware(_Record):
    efficiencies: _Efficiencies
    gpus: dict[str, Gpu]
    models: tuple[Model, ...]


_HARDWARE = _Hardware.model_validate_json(Path(__file__).with_suffix(".json").read_text(encoding="utf-8"))

GPUS: Mapping[str, Gpu] = _HARDWARE.gpus
"""By id of AI Deploy's flavor."""


class OutOfMemoryError(ValueError):
    """The weights do not fit into the GPU."""


def known_model(model: str) -> Model | None:
    """The published figures of a model, by the id of its repository; None for one not in the table."""
    return next((one for one in _HARDWARE.models if re.search(one.names, model)), None)


def parameter_count(model: str) -> float:
    """Parameters of a model: published, else what its name tells (`…-14B-…`, `8x7B`, `125m`), else 7e9."""
    known = known_model(model)
    if known is not None:
        return known.parameters
    found = _PARAMETER_COUNT.search(model)
    if found is None:
        return _DEFAULT_PARAMETERS
    unit = 1e9 if found[3].upper() == "B" else 1e6
    return int(found[1] or 1) * float(found[2]) * unit


def weights_bytes(model: str) -> float:
    """Bytes of a model's weights, to download and to load: as published, else by its name, else 16 bits."""
    return parameter_count(model) * _bytes_per_parameter(model)


def max_model_len(arguments: ServerArguments) -> int:
    """Tokens that prompt and answer may have together: as asked for, else what the model allows."""
    known = known_model(arguments.model)
    return arguments.max_model_len or (_DEFAULT_CONTEXT if known is None else known.context)


def engine_parameters(arguments: ServerArguments, flavor: str) -> EngineParameters:
    """The engine that `arguments` start on `arguments.tensor_parallel_size` GPUs of an AI Deploy `flavor`.

    Raises OutOfMemoryError when the weights do not fit, ValueError for a flavor that is not in the table, and
    when vLLM does not start: fewer tokens in the KV cache than a request may have, a step with room for
    fewer tokens than sequences.
    """
    gpu = GPUS.get(flavor)
    if gpu is None:
        raise ValueError(
            f"gpuFlavor {flavor}: no figures in autoscaling/hardware.json; known are {', '.join(GPUS)}"
        )
    gpus, given = arguments.tensor_parallel_size, _HARDWARE.efficiencies
    known = known_model(arguments.model)
    width = _bytes_per_parameter(arguments.model, arguments.quantization)
    weights = parameter_count(arguments.model) * width
    memory = gpus * (gpu.memory_gib * _GIB * arguments.gpu_memory_utilization - given.activation_bytes.value)
    if weights >= memory:
        raise OutOfMemoryError(
            f"{weights / 1e9:.0f} GB of weights do not fit into {gpus} x {gpu.name} ({gpu.memory_gib:g} GiB)"
        )
    kv_bytes = _kv_bytes_per_token(known, arguments.kv_cache_dtype)
    kv_blocks = int((memory - weights) / (arguments.block_size * kv_bytes))
    longest = max_model_len(arguments)
    if kv_blocks * arguments.block_size < longest and (known is not None or arguments.max_model_len):
        raise ValueError(
            f"To serve at least one request with the models's max seq len ({longest}), "
            f"{longest * kv_bytes / _GIB:.2f} GiB KV cache is needed, which is larger than the available KV "
            f"cache memory ({(memory - weights) / _GIB:.2f} GiB). Try increasing `gpu_memory_utilization` or "
            "decreasing `max_model_len` when initializing the engine."
        )
    bandwidth = gpus * gpu.bandwidth
    efficiency = (gpu.compute_efficiency or given.compute).value
    sixteen_bits = gpus * gpu.bfloat16_flops * efficiency
    eight_bits = gpus * (gpu.fp8_flops or gpu.bfloat16_flops) * efficiency
    prefill = (eight_bits if width <= 1 else sixteen_bits) / (2 * _active_parameters(arguments.model))
    sequences, tokens = _batch(arguments, gpu)
    return EngineParameters(
        kv_blocks=max(1, kv_blocks),
        step_seconds=weights / (bandwidth * given.bandwidth.value) + given.step_seconds.value,
        sequence_seconds=1 / prefill,
        prefill_tokens_per_second=prefill,
        context_token_seconds=kv_bytes / (bandwidth * given.kv_bandwidth.value),
        attention_pair_seconds=_attention_operations(known) / sixteen_bits,
        max_num_seqs=sequences,
        max_num_batched_tokens=tokens,
        block_size=arguments.block_size,
        prefix_caching=arguments.enable_prefix_caching,
    )


def _batch(arguments: ServerArguments, gpu: Gpu) -> tuple[int, int]:
    """`max_num_seqs` and `max_num_batched_tokens` as vllm/engine/arg_utils.py chooses them."""
    large = gpu.memory_gib >= 70 and "A100" not in gpu.name
    default_sequences, default_tokens = (1024, 8192) if large else (256, 2048)
    sequences = arguments.max_num_seqs or default_sequences
    tokens = arguments.max_num_batched_tokens or min(sequences * max_model_len(arguments), default_tokens)
    return (arguments.max_num_seqs or min(sequences, tokens)), tokens


def _bytes_per_parameter(model: str, quantization: str | None = None) -> float:
    text = f"{model} {quantization or ''}"
    if _FOUR_BITS.search(text):
        return 0.5
    if _EIGHT_BITS.search(text):
        return 1
    known = known_model(model)
    return 2 if known is None else known.bytes_per_parameter


def _active_parameters(model: str) -> float:
    known = known_model(model)
    if known is None or known.active_parameters is None:
        return parameter_count(model)
    return known.active_parameters


def _attention_operations(model: Model | None) -> float:
    """Operations for one token that attends to another: a score and a weighted sum, in all layers."""
    return 0.0 if model is None else 4 * model.layers * model.heads * model.head_dim


def _kv_bytes_per_token(model: Model | None, dtype: str) -> float:
    both = _DEFAULT_KV_BYTES if model is None else 2 * 2 * model.layers * model.kv_heads * model.head_dim
    return both / 2 if dtype.startswith("fp8") else both

"""A vLLM replica as a pure model: how long a cold start takes, and how an engine batches requests.

Nothing here knows a clock: `Engine` says how long a step takes and what came out of it, the caller makes
that time pass, on the wall clock (sandbox) or a virtual one (rehearsals).

Numbers are marked as published (data sheets, vLLM's source) or assumed. Not modelled: the prefix cache
(every prompt is computed in full), preemption (a sequence is admitted when the KV cache holds all of it),
the growth of attention cost with the length of the context.
"""

from __future__ import annotations

import math
import re
from collections import deque
from dataclasses import dataclass

_BYTES_PER_PARAMETER = 2  # bfloat16
_DEFAULT_PARAMETERS = 7e9  # assumed where the name of a model tells nothing
_PARAMETER_COUNT = re.compile(r"(?:(\d+)x)?(\d+(?:\.\d+)?)([BM])(?![a-z0-9])", re.IGNORECASE)
_DEFAULT_CONTEXT = 32768  # assumed
_CONTEXTS = {  # published model cards; by a part of the name
    "Ministral-3": 262144,
    "Mistral-Small-3": 131072,
    "Llama-3": 131072,
    "Qwen3": 40960,
}
_KV_BYTES_PER_TOKEN = (
    160 * 1024
)  # 40 layers x 8 KV heads x 128 x 2 x bfloat16: Ministral 3 14B; assumed for all
_GPU_MEMORY_UTILIZATION = 0.9  # vLLM's default
_ACTIVATION_BYTES = 3e9  # assumed: activations and CUDA graphs
_BANDWIDTH_EFFICIENCY = 0.7  # assumed share of the data sheet that decoding reaches
_COMPUTE_EFFICIENCY = 0.5  # assumed share of the data sheet that prefill reaches
_STEP_OVERHEAD_SECONDS = 0.002  # assumed: scheduling and sampling
_MEAN_CONTEXT_TOKENS = 1000  # assumed length over which a decoding sequence attends


@dataclass(frozen=True)
class Gpu:
    """A GPU as its data sheet publishes it."""

    memory_bytes: float
    bytes_per_second: float
    """Memory bandwidth."""
    flops: float
    """Dense bfloat16 operations per second."""


GPUS: dict[str, Gpu] = {
    "h100-1-gpu": Gpu(80e9, 2.0e12, 756e12),  # PCIe
    "a100-1-gpu": Gpu(80e9, 1.94e12, 312e12),
    "l40s-1-gpu": Gpu(48e9, 0.864e12, 362e12),
    "a10-1-gpu": Gpu(24e9, 0.6e12, 125e12),
    "l4-1-gpu": Gpu(24e9, 0.3e12, 121e12),
}
"""By id of AI Deploy's flavor."""


def parameter_count(model: str) -> float:
    """Number of parameters that the name of a model tells (`…-14B-…`, `8x7B`, `125m`), else 7 billion."""
    found = _PARAMETER_COUNT.search(model)
    if found is None:
        return _DEFAULT_PARAMETERS
    unit = 1e9 if found[3].upper() == "B" else 1e6
    return int(found[1] or 1) * float(found[2]) * unit


def weights_bytes(model: str) -> float:
    """Bytes to download for a model, at 16 bit per parameter; one published in fewer bits is smaller."""
    return parameter_count(model) * _BYTES_PER_PARAMETER


def context_length(model: str) -> int:
    """Tokens that a model allows for prompt and answer when `--max-model-len` does not say."""
    return next((length for part, length in _CONTEXTS.items() if part in model), _DEFAULT_CONTEXT)


@dataclass(frozen=True)
class ColdStart:
    """What passes between the start of a container and its first answer; all assumed.

    With the defaults 28 GB (14 billion parameters) take 400 s to download and 480 s in all: longer than a
    liveness probe allows that starts after 300 s and fails three times in 30 s.
    """

    process_seconds: float = 20.0
    """Python, CUDA and the model's configuration."""
    download_bytes_per_second: float = 70e6
    load_bytes_per_second: float = 1.5e9
    """From disk to GPU."""
    warmup_seconds: float = 40.0
    """torch.compile, profiling and CUDA graphs."""

    def download_seconds(self, size: float) -> float:
        """Seconds to download `size` bytes of weights."""
        return size / self.download_bytes_per_second

    def load_seconds(self, size: float) -> float:
        """Seconds to load `size` bytes of weights into the GPU."""
        return size / self.load_bytes_per_second


@dataclass(frozen=True)
class EngineParameters:
    """What decides how an engine batches and how fast it is."""

    kv_blocks: int
    step_seconds: float
    """Time of a step that computes next to nothing: reading the weights once."""
    sequence_seconds: float
    """What each decoding sequence adds to a step."""
    prefill_tokens_per_second: float
    max_num_seqs: int = 256
    """Sequences that run at once; vLLM's default below 70 GB of GPU memory."""
    max_num_batched_tokens: int = 2048
    """Tokens of one step; vLLM's default below 70 GB of GPU memory."""
    block_size: int = 16
    """Tokens of a KV block."""


def engine_parameters(
    parameters: float, gpu: Gpu, gpus: int = 1, max_num_seqs: int | None = None
) -> EngineParameters:
    """Parameters of an engine for a model of so many `parameters` on `gpus` GPUs (tensor parallel).

    `max_num_seqs` None means vLLM's default for the GPU. Raises ValueError when the model does not fit.
    """
    size = parameters * _BYTES_PER_PARAMETER
    free = gpus * (gpu.memory_bytes * _GPU_MEMORY_UTILIZATION - _ACTIVATION_BYTES) - size
    block_size = EngineParameters.block_size
    if free < block_size * _KV_BYTES_PER_TOKEN:
        raise ValueError(
            f"{size / 1e9:.0f} GB of weights do not fit into {gpus} x {gpu.memory_bytes / 1e9:.0f} GB"
        )
    bandwidth = gpus * gpu.bytes_per_second * _BANDWIDTH_EFFICIENCY
    prefill = gpus * gpu.flops * _COMPUTE_EFFICIENCY / (2 * parameters)
    # vLLM's rule (engine/arg_utils.py): large GPUs except the A100 get larger defaults.
    large = gpu.memory_bytes >= 70e9 and gpu is not GPUS["a100-1-gpu"]
    return EngineParameters(
        kv_blocks=int(free / (block_size * _KV_BYTES_PER_TOKEN)),
        step_seconds=size / bandwidth + _STEP_OVERHEAD_SECONDS,
        sequence_seconds=_MEAN_CONTEXT_TOKENS * _KV_BYTES_PER_TOKEN / bandwidth + 1 / prefill,
        prefill_tokens_per_second=prefill,
        max_num_seqs=max_num_seqs or (1024 if large else EngineParameters.max_num_seqs),
        max_num_batched_tokens=8192 if large else EngineParameters.max_num_batched_tokens,
        block_size=block_size,
    )


def step_seconds(parameters: EngineParameters, prefill_tokens: int, decoding: int) -> float:
    """Duration of one engine step with so many prompt tokens and decoding sequences."""
    return (
        parameters.step_seconds
        + parameters.sequence_seconds * decoding
        + prefill_tokens / parameters.prefill_tokens_per_second
    )


@dataclass(frozen=True)
class Scheduled:
    """A step that has begun."""

    seconds: float
    admitted: tuple[int, ...]
    """Sequences that left the queue with this step."""


@dataclass(frozen=True)
class Completed:
    """What a step brought: one token for each sequence in `first` and for `decoded` others."""

    first: tuple[int, ...]
    """Sequences whose prompt was completed: their first token."""
    decoded: int
    """Sequences that got one more token."""
    finished: tuple[int, ...]
    """Sequences that have all their tokens now and are gone."""


@dataclass
class _Sequence:
    id: int
    prompt_tokens: int
    output_tokens: int
    computed_tokens: int = 0
    first_step: int = 0


class Engine:
    """Continuous batching with chunked prefill: decoding sequences first, then prompts, oldest first.

    The caller alternates `schedule` and `complete`; `add` and `abort` are allowed at any time between. A
    step costs no work per decoding sequence.
    """

    def __init__(self, parameters: EngineParameters) -> None:
        self.parameters = parameters
        self._waiting: deque[_Sequence] = deque()
        self._prefilling: dict[int, _Sequence] = {}
        self._decoding: dict[int, _Sequence] = {}
        self._ending: dict[int, list[int]] = {}  # by the step that brings the last token
        self._chunks: list[tuple[_Sequence, int]] = []  # prompt tokens of the step under way
        self._reserved_blocks = 0
        self._steps = 0

    @property
    def running(self) -> int:
        """Sequences in the batch."""
        return len(self._prefilling) + len(self._decoding)

    @property
    def waiting(self) -> int:
        """Sequences in the queue."""
        return len(self._waiting)

    @property
    def kv_usage(self) -> float:
        """Share of the KV cache that holds tokens, 0 to 1."""
        held = sum(self._blocks(sequence.computed_tokens) for sequence in self._prefilling.values())
        held += sum(
            self._blocks(sequence.prompt_tokens + self.produced(sequence.id))
            for sequence in self._decoding.values()
        )
        return min(1.0, held / self.parameters.kv_blocks)

    def add(self, sequence_id: int, prompt_tokens: int, output_tokens: int) -> None:
        """Queues a sequence that will produce `output_tokens` (≥ 1) tokens after its prompt (≥ 1)."""
        self._waiting.append(_Sequence(sequence_id, prompt_tokens, output_tokens))

    def abort(self, sequence_id: int) -> None:
        """Takes a sequence out, wherever it is."""
        sequence = self._prefilling.pop(sequence_id, None) or self._decoding.pop(sequence_id, None)
        if sequence is not None:
            self._reserved_blocks -= self._reservation(sequence)
        else:
            self._waiting = deque(queued for queued in self._waiting if queued.id != sequence_id)

    def produced(self, sequence_id: int) -> int:
        """Tokens that a sequence of the engine has so far."""
        sequence = self._decoding.get(sequence_id)
        return 0 if sequence is None else self._steps - sequence.first_step + 1

    def schedule(self) -> Scheduled | None:
        """Begins the next step; None when there is nothing to do."""
        decoding = len(self._decoding)
        budget = self.parameters.max_num_batched_tokens - decoding
        self._chunks = []
        for sequence in self._prefilling.values():
            budget -= self._chunk(sequence, budget)
        admitted = []
        while self._waiting and budget > 0 and self._fits(self._waiting[0]):
            sequence = self._waiting.popleft()
            self._reserved_blocks += self._reservation(sequence)
            self._prefilling[sequence.id] = sequence
            admitted.append(sequence.id)
            budget -= self._chunk(sequence, budget)
        if not decoding and not self._chunks:
            return None
        prefill_tokens = sum(tokens for _, tokens in self._chunks)
        return Scheduled(step_seconds(self.parameters, prefill_tokens, decoding), tuple(admitted))

    def complete(self) -> Completed:
        """Ends the step that `schedule` began."""
        self._steps += 1
        decoded = len(self._decoding)
        first = []
        for sequence, tokens in self._chunks:
            sequence.computed_tokens += tokens
            if sequence.id in self._prefilling and sequence.computed_tokens == sequence.prompt_tokens:
                self._decoding[sequence.id] = self._prefilling.pop(sequence.id)
                sequence.first_step = self._steps
                self._ending.setdefault(self._steps + sequence.output_tokens - 1, []).append(sequence.id)
                first.append(sequence.id)
        self._chunks = []
        # An aborted sequence stays in the list of its last step.
        finished = [entry for entry in self._ending.pop(self._steps, ()) if entry in self._decoding]
        for entry in finished:
            self._reserved_blocks -= self._reservation(self._decoding.pop(entry))
        return Completed(tuple(first), decoded, tuple(finished))

    def _chunk(self, sequence: _Sequence, budget: int) -> int:
        tokens = min(sequence.prompt_tokens - sequence.computed_tokens, max(0, budget))
        if tokens:
            self._chunks.append((sequence, tokens))
        return tokens

    def _fits(self, sequence: _Sequence) -> bool:
        if self.running == 0:
            return True  # one that is larger than the cache would otherwise block the queue for good
        free = self.parameters.kv_blocks - self._reserved_blocks
        return self.running < self.parameters.max_num_seqs and self._reservation(sequence) <= free

    def _reservation(self, sequence: _Sequence) -> int:
        return self._blocks(sequence.prompt_tokens + sequence.output_tokens)

    def _blocks(self, tokens: int) -> int:
        return math.ceil(tokens / self.parameters.block_size)

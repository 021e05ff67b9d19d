"""The replica model batches as vLLM does, and costs what its parameters say."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoscaling.replica import (
    GPUS,
    ColdStart,
    Engine,
    EngineParameters,
    context_length,
    engine_parameters,
    parameter_count,
    step_seconds,
    weights_bytes,
)

SMALL = EngineParameters(
    kv_blocks=100,
    step_seconds=0.01,
    sequence_seconds=0.001,
    prefill_tokens_per_second=1000,
    max_num_seqs=4,
    max_num_batched_tokens=64,
    block_size=16,
)
MINISTRAL = "mistralai/Ministral-3-14B-Instruct-2512"


def drain(engine: Engine) -> tuple[float, list[int]]:
    """Seconds until the engine is idle, and the sequences in the order in which they finished."""
    seconds = 0.0
    finished: list[int] = []
    while (step := engine.schedule()) is not None:
        seconds += step.seconds
        finished += engine.complete().finished
    return seconds, finished


@pytest.mark.parametrize(
    ("model", "parameters"),
    [
        (MINISTRAL, 14e9),
        ("facebook/opt-125m", 125e6),
        ("Qwen/Qwen3-0.6B", 0.6e9),
        ("mistralai/Mixtral-8x7B-Instruct", 56e9),
        ("Qwen/Qwen3-30B-A3B", 30e9),
        ("tiny", 7e9),
    ],
)
def test_the_name_of_a_model_tells_its_size(model: str, parameters: float) -> None:
    assert parameter_count(model) == pytest.approx(parameters)


def test_known_context_lengths() -> None:
    assert context_length(MINISTRAL) == 262144
    assert context_length("tiny") == 32768


def test_a_cold_start_is_longer_than_the_bare_liveness_probe_allows() -> None:
    cold, size = ColdStart(), weights_bytes(MINISTRAL)
    assert 6 * 60 <= cold.download_seconds(size) <= 7 * 60
    total = cold.process_seconds + cold.download_seconds(size) + cold.load_seconds(size) + cold.warmup_seconds
    assert 300 + 3 * 10 < total < 300 + 120 * 10


def test_a_model_that_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="28 GB of weights do not fit into 1 x 24 GB"):
        engine_parameters(14e9, GPUS["l4-1-gpu"])
    assert engine_parameters(14e9, GPUS["l4-1-gpu"], gpus=2).kv_blocks > 0


def test_engine_defaults_follow_vllm() -> None:
    h100 = engine_parameters(14e9, GPUS["h100-1-gpu"])
    assert (h100.max_num_seqs, h100.max_num_batched_tokens) == (1024, 8192)
    for flavor in ("a100-1-gpu", "l40s-1-gpu"):
        other = engine_parameters(14e9, GPUS[flavor])
        assert (other.max_num_seqs, other.max_num_batched_tokens) == (256, 2048)
    assert engine_parameters(14e9, GPUS["h100-1-gpu"], max_num_seqs=7).max_num_seqs == 7


def test_a_lone_sequence_takes_one_prefill_and_a_step_per_further_token() -> None:
    engine = Engine(SMALL)
    engine.add(1, prompt_tokens=50, output_tokens=10)
    seconds, finished = drain(engine)
    assert finished == [1]
    assert seconds == pytest.approx(step_seconds(SMALL, 50, 0) + 9 * step_seconds(SMALL, 0, 1))


def test_batching_is_cheaper_than_one_after_the_other() -> None:
    engine = Engine(SMALL)
    for sequence in range(4):
        engine.add(sequence, 10, 20)
    alone = Engine(SMALL)
    alone.add(0, 10, 20)
    assert drain(engine)[0] < 2 * drain(alone)[0]


def test_a_long_prompt_is_computed_in_chunks_between_decodes() -> None:
    engine = Engine(SMALL)
    engine.add(1, 10, 100)
    engine.schedule()
    engine.complete()
    engine.add(2, 200, 1)
    steps = 0
    while True:
        assert engine.schedule() is not None
        result = engine.complete()
        assert result.decoded == 1  # the running sequence is never held up
        steps += 1
        if result.finished:
            break
    assert steps == 4  # 200 tokens at 63 a step


def test_the_queue_is_served_in_order_and_within_max_num_seqs() -> None:
    engine = Engine(SMALL)
    for sequence in range(10):
        engine.add(sequence, 5, 3)
    step = engine.schedule()
    assert step is not None
    assert step.admitted == (0, 1, 2, 3)
    assert (engine.running, engine.waiting) == (4, 6)
    assert drain(engine)[1] == list(range(10))


def test_a_full_kv_cache_makes_sequences_wait() -> None:
    engine = Engine(SMALL)  # 1600 tokens
    engine.add(1, 30, 1000)
    engine.add(2, 30, 1000)
    engine.schedule()
    assert (engine.running, engine.waiting) == (1, 1)


def test_a_sequence_larger_than_the_cache_does_not_block_the_queue() -> None:
    engine = Engine(SMALL)
    engine.add(1, 30, 5000)
    engine.add(2, 30, 5)
    assert drain(engine)[1] == [1, 2]


def test_an_abort_frees_the_place_wherever_the_sequence_is() -> None:
    engine = Engine(SMALL)
    for sequence in range(6):
        engine.add(sequence, 40, 50)
    engine.schedule()
    engine.abort(0)  # in the middle of its prefill
    engine.complete()
    engine.abort(5)  # in the queue
    assert engine.produced(0) == 0
    assert drain(engine)[1] == [1, 2, 3, 4]
    assert (engine.running, engine.waiting, engine.kv_usage) == (0, 0, 0.0)


@given(
    st.lists(st.tuples(st.integers(1, 300), st.integers(1, 60)), min_size=1, max_size=30),
    st.sets(st.integers(0, 29)),
)
def test_every_token_is_produced_once(sequences: list[tuple[int, int]], aborted: set[int]) -> None:
    engine = Engine(SMALL)
    for index, (prompt, output) in enumerate(sequences):
        engine.add(index, prompt, output)
    tokens = 0
    finished: list[int] = []
    step = 0
    while engine.schedule() is not None:
        assert engine.running <= SMALL.max_num_seqs
        assert 0 <= engine.kv_usage <= 1
        result = engine.complete()
        tokens += len(result.first) + result.decoded
        finished += result.finished
        if step in aborted and step not in finished:
            engine.abort(step)
        step += 1
    survivors = {index for index in range(len(sequences)) if index in finished}
    assert tokens >= sum(sequences[index][1] for index in survivors)
    if not aborted:
        assert tokens == sum(output for _, output in sequences)
        assert sorted(finished) == list(range(len(sequences)))
    assert engine.kv_usage == 0

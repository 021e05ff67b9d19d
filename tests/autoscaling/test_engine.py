"""The engine schedules as vLLM does, costs what its parameters say, and a jump is as good as its steps."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autoscaling.engine import Completed, Engine, EngineParameters, Prefix
from tests.autoscaling.reference_engine import ReferenceEngine

SMALL = EngineParameters(
    kv_blocks=100,
    step_seconds=0.01,
    sequence_seconds=0.001,
    context_token_seconds=1e-5,
    prefill_tokens_per_second=1000,
    attention_pair_seconds=1e-6,
    max_num_seqs=4,
    max_num_batched_tokens=64,
    block_size=16,
)
WIDE = replace(SMALL, max_num_seqs=64, max_num_batched_tokens=1024)


def drain(engine: Engine) -> tuple[float, list[int]]:
    """Seconds until the engine is idle, and the sequences in the order in which they finished."""
    seconds = 0.0
    finished: list[int] = []
    while (step := engine.schedule()) is not None:
        seconds += step.seconds
        finished += engine.complete().finished
    return seconds, finished


def prefilled(parameters: EngineParameters, *sequences: tuple[int, int]) -> Engine:
    """An engine whose sequences have their first token."""
    engine = Engine(parameters)
    for index, (prompt, output) in enumerate(sequences):
        engine.add(index, prompt, output)
    first: set[int] = set()
    while len(first) < len(sequences):
        engine.schedule()
        first |= set(engine.complete().first)
    return engine


def test_a_lone_sequence_takes_one_prefill_and_a_step_per_further_token() -> None:
    engine = Engine(SMALL)
    engine.add(1, prompt_tokens=50, output_tokens=10)
    first = engine.schedule()
    assert first is not None
    assert first.seconds == pytest.approx(0.01 + 50 / 1000 + 1e-6 * 50 * 51 / 2)
    assert engine.complete() == Completed([1], 0, ())
    seconds, finished = drain(engine)
    assert finished == [1]
    assert seconds == pytest.approx(9 * 0.011 + 1e-5 * sum(range(51, 60)))


@pytest.mark.parametrize("count", [2, 10])
def test_equal_sequences_share_every_step(count: int) -> None:
    engine = Engine(WIDE)
    for index in range(count):
        engine.add(index, 50, 10)
    seconds, finished = drain(engine)
    assert finished == list(range(count))
    prefill = 0.01 + count * (50 / 1000 + 1e-6 * 50 * 51 / 2)
    decode = 9 * (0.01 + 0.001 * count) + 1e-5 * count * sum(range(51, 60))
    assert seconds == pytest.approx(prefill + decode)


def test_a_long_prompt_is_computed_in_chunks_between_decodes() -> None:
    engine = prefilled(SMALL, (10, 100))
    engine.add(1, 200, 1)
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
    assert list(step.admitted) == [0, 1, 2, 3]
    assert (engine.running, engine.waiting) == (4, 6)
    engine.complete()
    assert drain(engine)[1] == list(range(10))


def test_blocks_are_taken_as_tokens_come() -> None:
    engine = prefilled(SMALL, (30, 40))
    held = []
    for _ in range(39):
        engine.schedule()
        held.append(round(engine.kv_usage * SMALL.kv_blocks))
        engine.complete()
    # Step n computes token 30 + n: 31 and 32 are in the second block of 16.
    assert held == [2] * 2 + [3] * 16 + [4] * 16 + [5] * 5
    assert engine.kv_usage == 0


def test_the_sequence_that_was_admitted_last_makes_room_and_is_computed_again() -> None:
    engine = prefilled(replace(WIDE, kv_blocks=6, prefix_caching=False), (40, 20), (40, 20))
    preempted: list[int] = []
    steps: list[tuple[list[int], int, int]] = []
    while (step := engine.schedule()) is not None:
        preempted += step.preempted
        steps.append((list(step.admitted), engine.running, engine.waiting))
        engine.complete()
        if step.preempted:
            assert engine.produced(1) == 9  # its tokens are kept
    assert preempted == [1]
    assert engine.preemptions == 1
    # Both have 3 blocks for 48 tokens; the ninth step would need a fourth for each.
    assert steps[7] == ([], 2, 0)
    assert steps[8] == ([], 1, 1)
    again = next(index for index, (admitted, _, _) in enumerate(steps) if admitted == [1])
    assert again == 19  # when the other one has ended: 49 tokens do not fit into 2 blocks
    assert engine.kv_usage == 0


def test_a_sequence_that_never_fits_is_refused() -> None:
    engine = Engine(SMALL)
    engine.add(1, 1000, 601)  # its last token is never computed
    with pytest.raises(ValueError, match=r"sequence 2: 1000 \+ 602 tokens .* holds \(1600\)"):
        engine.add(2, 1000, 602)
    with pytest.raises(ValueError, match="at least one token"):
        engine.add(3, 0, 1)
    with pytest.raises(ValueError, match="prefix of 9 tokens is longer than its prompt"):
        engine.add(4, 8, 1, Prefix("p", 9))
    assert drain(engine)[1] == [1]


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        (
            {"max_num_seqs": 65},
            r"max_num_batched_tokens \(64\) must be greater than or equal to max_num_seqs",
        ),
        ({"kv_blocks": 0}, "kv_blocks: must be above 0, not 0"),
        ({"step_seconds": 0.0}, "step_seconds"),
    ],
)
def test_parameters_that_make_no_engine(changes: dict[str, float], problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        replace(SMALL, **changes)  # type: ignore[arg-type]


def test_an_abort_frees_the_place_wherever_the_sequence_is() -> None:
    engine = Engine(SMALL)
    for sequence in range(6):
        engine.add(sequence, 40, 50)
    engine.schedule()
    engine.abort(0)  # in the middle of its prefill
    engine.complete()
    engine.abort(5)  # in the queue
    engine.abort(5)
    assert engine.produced(0) == 0
    assert drain(engine)[1] == [1, 2, 3, 4]
    assert (engine.running, engine.waiting, engine.kv_usage) == (0, 0, 0.0)


class TestPrefixCache:
    def test_whole_blocks_are_found_while_they_are_used_and_afterwards(self) -> None:
        engine = Engine(WIDE)
        shared = Prefix("system", 40)
        for index in range(3):
            engine.add(index, 60, 5, shared)
        first = engine.schedule()
        assert first is not None
        # The first computes 60 tokens, the others find 2 blocks of 16 that are scheduled with it.
        assert first.seconds == pytest.approx(
            0.01 + (60 + 28 + 28) / 1000 + 1e-6 * (60 * 61 / 2 + 2 * (60 * 61 - 32 * 33) / 2)
        )
        assert round(engine.kv_usage * WIDE.kv_blocks) == 2 + 3 * 2  # shared blocks are held once
        engine.complete()
        assert (engine.prefix_queries, engine.prefix_hits) == (180, 64)
        drain(engine)
        engine.add(9, 60, 5, shared)
        engine.schedule()
        assert engine.cached_tokens(9) == 32
        assert (engine.prefix_queries, engine.prefix_hits) == (240, 96)

    def test_the_last_token_of_a_prompt_is_always_computed(self) -> None:
        engine = Engine(WIDE)
        for index in range(2):
            engine.add(index, 48, 2, Prefix("all of it", 48))
        engine.schedule()
        assert (engine.cached_tokens(0), engine.cached_tokens(1)) == (0, 32)

    @pytest.mark.parametrize(("key", "hits"), [("old", 32), ("new", 64)])
    def test_the_prefix_that_was_unused_longest_goes_first_from_its_end(self, key: str, hits: int) -> None:
        engine = Engine(replace(WIDE, kv_blocks=10))
        for prefix in ("old", "new"):
            engine.add(0, 65, 1, Prefix(prefix, 64))  # 4 blocks, and one of its own
            drain(engine)
        engine.add(1, 33, 1)  # takes the free block that nobody can hit, and 2 of the old prefix
        drain(engine)
        engine.add(2, 65, 1, Prefix(key, 64))
        engine.schedule()
        assert engine.cached_tokens(2) == hits

    def test_a_preempted_sequence_finds_what_is_left_of_its_own(self) -> None:
        engine = prefilled(replace(WIDE, kv_blocks=6), (40, 20), (40, 20))
        again = 0.0
        while (step := engine.schedule()) is not None:
            if step.admitted:
                again = step.seconds
            engine.complete()
        assert engine.preemptions == 1
        # Of 49 tokens it finds the first 2 blocks: the other one took the block at the end.
        assert again == pytest.approx(0.01 + 17 / 1000 + 1e-6 * (49 * 50 - 32 * 33) / 2)
        assert engine.prefix_hits == 0  # vLLM counts no recomputations

    def test_it_can_be_switched_off(self) -> None:
        engine = Engine(replace(WIDE, prefix_caching=False))
        for index in range(2):
            engine.add(index, 60, 5, Prefix("system", 40))
        engine.schedule()
        assert (engine.prefix_queries, engine.prefix_hits, engine.cached_tokens(1)) == (0, 0, 0)


def generated(seed: int) -> tuple[EngineParameters, random.Random]:
    """An engine with little room, so that everything happens."""
    draw = random.Random(seed)  # noqa: S311
    return (
        replace(
            SMALL,
            kv_blocks=draw.choice([8, 12, 20, 40, 100]),
            max_num_seqs=draw.choice([2, 4, 16]),
            max_num_batched_tokens=draw.choice([16, 64, 300]),
            block_size=draw.choice([4, 16]),
            prefix_caching=draw.random() < 0.8,
        ),
        draw,
    )


def sequence(parameters: EngineParameters, draw: random.Random) -> tuple[int, int, Prefix | None]:
    room, size = parameters.kv_tokens, parameters.block_size
    prompt = draw.randint(1, room // 2)
    output = draw.randint(1, min(60, room - prompt))
    key = draw.randrange(4)
    tokens = (5 * size, 3 * size + 1, 2 * size, room)[key]
    # vLLM also finds copies: blocks that a sequence computed though the cache had them. Only a prompt that
    # ends with its prefix makes some.
    return prompt, output, Prefix(key, tokens) if tokens < prompt else None


@settings(max_examples=150)
@given(st.integers(0, 10**9))
def test_every_step_is_what_vllm_s_scheduler_does(seed: int) -> None:
    parameters, draw = generated(seed)
    engine, reference = Engine(parameters), ReferenceEngine(parameters)
    alive: set[int] = set()
    added = 0
    for _ in range(150):
        for _ in range(draw.choice([0, 0, 0, 1, 2, 3])):
            entry = sequence(parameters, draw)
            engine.add(added, *entry)
            reference.add(added, *entry)
            alive.add(added)
            added += 1
        if alive and draw.random() < 0.05:
            victim = draw.choice(sorted(alive))
            alive.discard(victim)
            engine.abort(victim)
            reference.abort(victim)
        step, expected = engine.schedule(), reference.step()
        if step is None or expected is None:
            assert step is None
            assert expected is None
            continue
        assert (list(step.admitted), list(step.preempted)) == (expected.admitted, expected.preempted)
        assert step.seconds == pytest.approx(expected.seconds)
        completed = engine.complete()
        assert (list(completed.first), completed.decoded) == (expected.first, expected.decoded)
        assert sorted(completed.finished) == sorted(expected.finished)
        alive -= set(completed.finished)
        assert (engine.running, engine.waiting) == (len(reference.running), len(reference.waiting))
        assert engine.kv_usage == pytest.approx(reference.kv_usage)
        assert engine.preemptions == reference.preemptions
        for request in (*reference.running, *reference.waiting):
            assert engine.produced(request.id) == request.produced
        if parameters.prefix_caching:
            assert engine.prefix_queries == reference.queries
            # A head of the queue that waits for blocks is looked up once here, in each step there.
            assert engine.prefix_hits >= reference.hits


@settings(max_examples=150)
@given(st.integers(0, 10**9))
def test_a_jump_is_as_good_as_its_steps(seed: int) -> None:
    parameters, draw = generated(seed)
    now, arrivals = 0.0, []
    for index in range(40):
        now += draw.expovariate(2)
        arrivals.append((now, index, *sequence(parameters, draw)))
    outcomes = []
    for jump in (False, True):
        engine, now, due = Engine(parameters), 0.0, 0
        first: dict[int, float] = {}
        finished: dict[int, float] = {}
        tokens = steps = calls = 0
        while True:
            while due < len(arrivals) and arrivals[due][0] <= now:
                engine.add(*arrivals[due][1:])
                due += 1
            until = arrivals[due][0] if due < len(arrivals) else 1e9
            step = engine.schedule(until - now if jump else 0.0)
            if step is None:
                if due == len(arrivals):
                    break
                now = until
                continue
            now += step.seconds
            completed = engine.complete()
            tokens += len(completed.first) + completed.decoded
            steps += step.steps
            calls += 1
            first |= dict.fromkeys(completed.first, now)
            finished |= dict.fromkeys(completed.finished, now)
            assert engine.kv_usage <= 1
        assert engine.kv_usage == 0
        outcomes.append((first, finished, tokens, steps, engine.preemptions, engine.prefix_queries))
        assert tokens == sum(output for _, _, _, output, _ in arrivals)
        if not jump:
            assert calls == steps
    single, jumps = outcomes
    assert single[2:] == jumps[2:]
    for ours, theirs in zip(single[:2], jumps[:2], strict=True):
        assert list(ours) == list(theirs)
        assert list(ours.values()) == pytest.approx(list(theirs.values()))


@given(
    st.lists(st.tuples(st.integers(1, 300), st.integers(1, 60)), min_size=1, max_size=30),
    st.dictionaries(st.integers(0, 200), st.integers(0, 29)),
    st.sampled_from([0.0, 0.05, 10.0]),
)
def test_every_sequence_gets_all_its_tokens_unless_it_is_aborted(
    sequences: list[tuple[int, int]], aborts: dict[int, int], within: float
) -> None:
    engine = Engine(replace(SMALL, kv_blocks=24))  # 384 tokens: few at once, many preemptions
    for index, (prompt, output) in enumerate(sequences):
        engine.add(index, prompt, output)
    tokens, finished = 0, set[int]()
    aborted = dict[int, int]()
    call = 0
    while engine.schedule(within) is not None:
        victim = aborts.get(2 * call)  # while steps are under way
        if victim is not None and victim < len(sequences) and victim not in finished:
            aborted.setdefault(victim, engine.produced(victim))
            engine.abort(victim)
        completed = engine.complete()
        tokens += len(completed.first) + completed.decoded
        assert not finished & set(completed.finished)
        finished |= set(completed.finished)
        victim = aborts.get(2 * call + 1)  # and between them
        if victim is not None and victim < len(sequences) and victim not in finished:
            aborted.setdefault(victim, engine.produced(victim))
            engine.abort(victim)
        assert engine.running <= SMALL.max_num_seqs
        assert 0 <= engine.kv_usage <= 1
        call += 1
    assert finished == set(range(len(sequences))) - set(aborted)
    assert tokens == sum(sequences[index][1] for index in finished) + sum(aborted.values())
    assert (engine.running, engine.waiting, engine.kv_usage) == (0, 0, 0.0)


def test_little_s_law_holds() -> None:
    """Sequences in the engine = arrivals per second x seconds that each spends there, over a long time."""
    draw = random.Random(7)  # noqa: S311
    engine = Engine(replace(WIDE, kv_blocks=30))
    now, index, area, spent = 0.0, 0, 0.0, 0.0
    arrived: dict[int, float] = {}
    due = draw.expovariate(3)
    while index < 3000 or arrived:
        while due <= now and index < 3000:
            engine.add(index, draw.randint(1, 100), draw.randint(1, 40))
            arrived[index] = now
            index += 1
            due += draw.expovariate(3)
        step = engine.schedule()
        if step is None:
            now = due
            continue
        area += step.seconds * (engine.running + engine.waiting)
        now += step.seconds
        for done in engine.complete().finished:
            spent += now - arrived.pop(done)
    assert area == pytest.approx(spent)
    assert engine.preemptions > 0  # it was busy

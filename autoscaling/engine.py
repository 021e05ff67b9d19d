"""vLLM's engine as a pure model: which sequences each step computes, how long it takes, what comes out of it.

Nothing here knows a clock: `Engine` says how long a step takes and what it brought, the caller makes that
time pass, on the wall clock (sandbox) or a virtual one (rehearsals).

The scheduling is that of vLLM 0.13.0 (vllm/v1/core/sched/scheduler.py) for the policy `fcfs`: sequences that
run come first, then the queue in its order while tokens, places and KV blocks last; prompts are computed in
chunks; blocks are taken as tokens come; when they run out, the sequence that was admitted last goes back to
the head of the queue and is computed again. Which blocks are free, and what of them can be hit, is in
`autoscaling.blocks`.

Not modelled: the front end (HTTP and tokenizing, which limit it to some tens of short requests a second),
speculative decoding, LoRA, encoder inputs, several KV cache groups (sliding windows, Mamba), and hits on what
other sequences generated.
"""

from __future__ import annotations

import heapq
import math
from collections import deque
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

from autoscaling.blocks import BlockPool, Chain, Segment


@dataclass(frozen=True, slots=True)
class Prefix:
    """What a prompt shares with others: prompts with the same key have the same first `tokens` tokens."""

    key: Hashable
    tokens: int


@dataclass(frozen=True)
class EngineParameters:
    """What decides how an engine batches and how fast it is. A step takes

        step_seconds + sequence_seconds * decoding sequences + context_token_seconds * their tokens
        + prompt tokens / prefill_tokens_per_second + attention_pair_seconds * pairs of prompt tokens

    Raises ValueError when the numbers of sequences, tokens or blocks make no engine.
    """

    kv_blocks: int
    """KV blocks that sequences can have; vLLM's `num_gpu_blocks` counts one more that it never gives."""
    step_seconds: float
    """Time of a step that computes next to nothing: reading the weights once. Above 0."""
    sequence_seconds: float
    """What each decoding sequence adds to a step."""
    prefill_tokens_per_second: float
    context_token_seconds: float = 0.0
    """What each token over which a decoding sequence attends adds to a step: reading its KV."""
    attention_pair_seconds: float = 0.0
    """What each token adds to a step over which a prompt token attends: matters for prompts of 10,000s."""
    max_num_seqs: int = 256
    """Sequences that run at once; vLLM's default below 70 GiB of GPU memory."""
    max_num_batched_tokens: int = 2048
    """Tokens of one step; vLLM's default below 70 GiB of GPU memory."""
    block_size: int = 16
    """Tokens of a KV block."""
    prefix_caching: bool = True
    """vLLM's default."""

    def __post_init__(self) -> None:
        for name in ("kv_blocks", "step_seconds", "prefill_tokens_per_second", "max_num_seqs", "block_size"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name}: must be above 0, not {getattr(self, name)}")
        if self.max_num_batched_tokens < self.max_num_seqs:  # vllm/config/scheduler.py
            raise ValueError(
                f"max_num_batched_tokens ({self.max_num_batched_tokens}) must be greater than or equal to "
                f"max_num_seqs ({self.max_num_seqs})."
            )

    def seconds(
        self, prefill_tokens: int, decoding: int, context_tokens: int = 0, attention_pairs: int = 0
    ) -> float:
        """Duration of one step.

        `context_tokens` are those of all decoding sequences together; `attention_pairs` are the tokens over
        which each prompt token of the step attends, itself included, added up.
        """
        return (
            self.step_seconds
            + self.sequence_seconds * decoding
            + self.context_token_seconds * context_tokens
            + prefill_tokens / self.prefill_tokens_per_second
            + self.attention_pair_seconds * attention_pairs
        )

    @property
    def kv_tokens(self) -> int:
        """Tokens that the KV cache holds."""
        return self.kv_blocks * self.block_size


@dataclass(slots=True)
class Scheduled:
    """Steps that have begun: one, or several in which nothing but decoding happens."""

    seconds: float
    """All of them together."""
    steps: int
    admitted: Sequence[int] = ()
    """Sequences that left the queue, for the first time or after a preemption."""
    preempted: Sequence[int] = ()
    """Sequences that are back at the head of the queue."""


@dataclass(slots=True)
class Completed:
    """What the steps brought: one token for each sequence in `first`, and `decoded` for others."""

    first: Sequence[int]
    """Sequences whose prompt was completed: their first token."""
    decoded: int
    """Tokens of all other sequences."""
    finished: Sequence[int]
    """Sequences that have all their tokens now and are gone."""


class _Sequence:
    __slots__ = (
        "cached_tokens",
        "chain",
        "computed",
        "first_step",
        "id",
        "last_step",
        "output_tokens",
        "own",
        "preempted",
        "prefix",
        "produced",
        "prompt_tokens",
        "shared",
        "target",
    )

    def __init__(self, sequence_id: int, prompt_tokens: int, output_tokens: int, prefix: Prefix | None):
        self.id = sequence_id
        self.prompt_tokens = prompt_tokens
        self.output_tokens = output_tokens
        self.prefix = prefix
        self.produced = 0  # tokens before the last preemption
        self.target = prompt_tokens  # tokens to compute before the next one comes
        self.computed = 0  # of the target, with what the step under way computes
        self.first_step = 0  # that completed the target; 0: not yet
        self.last_step = 0
        self.shared = 0  # blocks of the prefix's chain that it uses
        self.chain: Chain | None = None
        self.own: Segment | None = None  # after a preemption: full blocks of its own, still in the cache
        self.cached_tokens = -1  # of the prompt, when it was admitted first
        self.preempted = False


class Engine:
    """Continuous batching, step by step or in jumps over steps in which only decoding happens.

    The caller alternates `schedule` and `complete`; `add` and `abort` are allowed at any time between. A
    step costs no work per decoding sequence: sequences leave a list of their last step, and of the blocks
    that they will need it is only known how many fall on each of `block_size` consecutive steps.

    Prefix cache: whole blocks of a resident prefix are hit, at least one token is always computed. A prefix
    is resident as soon as its blocks are scheduled, and until they are taken for something else.
    """

    def __init__(self, parameters: EngineParameters) -> None:
        self.parameters = parameters
        self.preemptions = 0
        """Preemptions so far."""
        self.prefix_queries = 0
        """Prompt tokens looked up in the prefix cache; a head of the queue that finds no blocks is looked
        up again in every step, and recomputations do not count, as in vLLM 0.13.0."""
        self.prefix_hits = 0
        """Those of them that were found."""
        self._sequences: dict[int, _Sequence] = {}
        self._queue: deque[_Sequence] = deque()  # may hold aborted ones
        self._queued = 0
        self._blocked = True  # whether the queue has to wait until a sequence leaves
        self._stuck = (0, 0)  # queries and hits of each step, while its head waits for KV blocks
        self._running: dict[int, _Sequence] = {}  # in the order of their admission
        self._partial: _Sequence | None = None  # whose target is not yet scheduled in full: the last one
        self._chunks: list[_Sequence] = []  # that the step under way computes
        self._pairs = 0  # of their prompt tokens and those before them
        self._decoding = 0
        self._offset = 0  # context tokens of the decoding sequences in a step: this + decoding * step
        self._phases = [0] * (2 * parameters.block_size)  # sequences that take a block, by step; twice
        self._ending: dict[int, list[_Sequence]] = {}  # by the step that brings the last token
        self._ends: list[int] = []  # heap of its keys
        self._steps = 0  # completed
        self._ahead = 0  # under way
        self._pool = BlockPool(parameters.kv_blocks)

    @property
    def running(self) -> int:
        """Sequences in the batch."""
        return len(self._running)

    @property
    def waiting(self) -> int:
        """Sequences in the queue."""
        return self._queued

    @property
    def kv_usage(self) -> float:
        """Share of the KV cache that sequences use, 0 to 1."""
        return 1.0 - self._pool.free / self.parameters.kv_blocks

    def add(
        self, sequence_id: int, prompt_tokens: int, output_tokens: int, prefix: Prefix | None = None
    ) -> None:
        """Queues a sequence that will produce `output_tokens` (≥ 1) tokens after its prompt (≥ 1).

        Raises ValueError when the tokens make no sense, and when the sequence could not end even with the
        whole KV cache: vLLM does not start with a `--max-model-len` that allows such a sequence.
        """
        parameters = self.parameters
        if prompt_tokens < 1 or output_tokens < 1:
            raise ValueError(f"sequence {sequence_id}: needs at least one token of prompt and of output")
        if self._blocks(prompt_tokens + output_tokens - 1) > parameters.kv_blocks:
            raise ValueError(
                f"sequence {sequence_id}: {prompt_tokens} + {output_tokens} tokens are more than the KV "
                f"cache holds ({parameters.kv_tokens})"
            )
        if prefix is not None and prefix.tokens > prompt_tokens:
            raise ValueError(
                f"sequence {sequence_id}: its prefix of {prefix.tokens} tokens is longer than its prompt"
            )
        sequence = _Sequence(
            sequence_id, prompt_tokens, output_tokens, prefix if parameters.prefix_caching else None
        )
        self._sequences[sequence_id] = sequence
        self._queue.append(sequence)
        if not self._queued:
            self._blocked = False
        self._queued += 1

    def abort(self, sequence_id: int) -> None:
        """Takes a sequence out, wherever it is; harmless for one that is gone."""
        sequence = self._sequences.pop(sequence_id, None)
        if sequence is None:
            return
        if sequence_id in self._running:
            self._leave(sequence)
            sequence.first_step = 0
            if sequence is self._partial:
                self._partial = None
            return
        sequence.target = 0  # marks it in the queue
        self._queued -= 1
        self._unblock()
        if sequence.own is not None:
            self._pool.forget(sequence.own)

    def produced(self, sequence_id: int) -> int:
        """Tokens that a sequence of the engine has so far; those of steps under way are still to come."""
        sequence = self._sequences.get(sequence_id)
        if sequence is None:
            return 0
        if not sequence.first_step:
            return sequence.produced
        return sequence.produced + self._steps - sequence.first_step + 1

    def cached_tokens(self, sequence_id: int) -> int:
        """Prompt tokens that a sequence found in the prefix cache when it was first admitted."""
        sequence = self._sequences.get(sequence_id)
        return 0 if sequence is None else max(0, sequence.cached_tokens)

    def schedule(self, within: float = 0.0) -> Scheduled | None:
        """Begins the next step, and with it those that begin less than `within` seconds from now.

        Only as long as nothing but decoding happens in them: no admission, prompt, first token or
        preemption; the last of them may finish sequences. 0: exactly one step. None: nothing to do.
        """
        tried = self._partial is not None or not self._blocked
        if tried:
            scheduled = self._schedule_prompts()
            if scheduled is not None:
                return scheduled
        decoding = self._decoding
        if not decoding:
            return None
        parameters = self.parameters
        step = self._steps + 1
        grow = parameters.context_token_seconds * decoding
        seconds = first = (
            parameters.step_seconds
            + parameters.sequence_seconds * decoding
            + parameters.context_token_seconds * (self._offset + decoding * step)
        )
        size = parameters.block_size
        at = step % size
        steps = 1
        if within > first:
            steps = self._steps_within(within, first, grow, self._ends[0] - self._steps)
            cycles, rest = divmod(steps, size)
            blocks = cycles * decoding + sum(self._phases[at : at + rest])
        else:
            blocks = self._phases[at]
        if tried:
            blocks -= self._phases[at]  # of the first step: there already
        if blocks > self._pool.free:
            if not tried and self._phases[at] > self._pool.free:
                preempted = self._preempt_for_decoding()
                return self._begin(0, (), preempted)
            steps, blocks = self._steps_of_free_blocks(at, tried)
        if steps > 1:
            seconds = steps * first + grow * (steps * (steps - 1) // 2)
        self._pool.take(blocks)
        self._ahead = steps
        queries, hits = self._stuck
        if queries:
            self.prefix_queries += queries * (steps - tried)
            self.prefix_hits += hits * (steps - tried)
        return Scheduled(seconds, steps)

    def complete(self) -> Completed:
        """Ends the steps that `schedule` began."""
        ahead, self._ahead = self._ahead, 0
        step = self._steps = self._steps + ahead
        decoded = self._decoding * ahead
        first: list[int] = []
        if self._chunks:
            for sequence in self._chunks:
                if sequence.computed == sequence.target and sequence.id in self._running:
                    if sequence.produced:
                        decoded += 1
                    else:
                        first.append(sequence.id)
                    self._decode(sequence)
            self._chunks = []
        ends = self._ends
        if not ends or ends[0] != step:
            return Completed(first, decoded, ())
        heapq.heappop(ends)
        finished = []
        for sequence in self._ending.pop(step):
            # Aborted and preempted sequences stay in the list of what was their last step.
            if sequence.first_step and sequence.last_step == step:
                self._leave(sequence)
                del self._sequences[sequence.id]
                finished.append(sequence.id)
        return Completed(first, decoded, finished)

    def _steps_within(self, within: float, first: float, grow: float, most: int) -> int:
        """Steps that begin in less than `within` seconds, up to `most`; the n-th takes first + (n-1) grow."""

        def seconds(steps: int) -> float:
            return steps * first + grow * (steps * (steps - 1) // 2)

        if most == 1 or seconds(most - 1) < within:
            return most
        slope = first - grow / 2
        steps = int(2 * within / (slope + math.sqrt(slope * slope + 2 * grow * within))) + 1
        # The root may be off by one where a step begins just at the end.
        while seconds(steps - 1) >= within:
            steps -= 1
        while seconds(steps) < within:
            steps += 1
        return steps

    def _steps_of_free_blocks(self, at: int, tried: bool) -> tuple[int, int]:
        """Decoding steps for which free blocks suffice, fewer than asked for, and what they take.

        `at` is the phase of the first one; with `tried` its blocks are there already.
        """
        there = self._phases[at] if tried else 0
        free = self._pool.free + there
        cycles = free // self._decoding
        steps, blocks = cycles * self.parameters.block_size, cycles * self._decoding
        while blocks + self._phases[at] <= free:
            blocks += self._phases[at]
            steps += 1
            at += 1
        return steps, blocks - there

    def _schedule_prompts(self) -> Scheduled | None:
        """A step with prompt tokens or a preemption; None when neither is due."""
        parameters = self.parameters
        preempted = self._preempt_for_decoding()
        budget = parameters.max_num_batched_tokens - self._decoding
        tokens = 0
        partial = self._partial
        if partial is not None:
            chunk = min(partial.target - partial.computed, budget)
            needed = self._blocks(partial.computed + chunk) - self._blocks(partial.computed)
            if needed <= self._pool.free:
                self._pool.take(needed)
                self._chunk(partial, chunk)
                tokens = chunk
            else:
                self._preempt(partial)
                preempted.append(partial.id)
        admitted: Sequence[int] = ()
        if not preempted and self._queued and tokens < budget:
            admitted, admitted_tokens = self._admit(budget - tokens)
            tokens += admitted_tokens
        return self._begin(tokens, admitted, preempted) if tokens or preempted else None

    def _begin(self, prefill_tokens: int, admitted: Sequence[int], preempted: Sequence[int]) -> Scheduled:
        parameters, step, decoding = self.parameters, self._steps + 1, self._decoding
        self._ahead = 1
        context = self._offset + decoding * step
        seconds = parameters.seconds(prefill_tokens, decoding, context, self._pairs)
        self._pairs = 0
        return Scheduled(seconds, 1, admitted, preempted)

    def _admit(self, budget: int) -> tuple[list[int], int]:
        """Admits from the queue what `budget` tokens, places and blocks allow; returns it and its tokens."""
        parameters = self.parameters
        size = parameters.block_size
        admitted: list[int] = []
        tokens = 0
        while self._queued and budget > 0:
            if len(self._running) == parameters.max_num_seqs:
                self._blocked = True
                break
            sequence = self._queue[0]
            if not sequence.target:
                self._queue.popleft()
                continue
            shared, own = self._hits(sequence)
            hits = (shared + own) * size
            chunk = min(sequence.target - hits, budget)
            chain = sequence.chain
            unused = own if chain is None else own + max(0, shared - chain.used)
            new = self._blocks(hits + chunk) - shared - own
            looked_up = (sequence.target, hits) if self._counts_lookup(sequence) else (0, 0)
            self.prefix_queries += looked_up[0]
            self.prefix_hits += looked_up[1]
            if new + unused > self._pool.free:
                self._blocked = True
                self._stuck = looked_up
                break
            if sequence.cached_tokens < 0:
                sequence.cached_tokens = hits
            self._queue.popleft()
            self._queued -= 1
            self._find(sequence, shared, own)
            self._pool.take(new)
            self._running[sequence.id] = sequence
            sequence.computed = hits
            self._chunk(sequence, chunk)
            admitted.append(sequence.id)
            tokens += chunk
            budget -= chunk
        if not self._queued:
            self._blocked = True
        return admitted, tokens

    def _counts_lookup(self, sequence: _Sequence) -> bool:
        return self.parameters.prefix_caching and not sequence.preempted

    def _chunk(self, sequence: _Sequence, tokens: int) -> None:
        """Has the step compute the next tokens of a sequence whose blocks are there."""
        self._pairs += tokens * (2 * sequence.computed + tokens + 1) // 2
        sequence.computed += tokens
        self._partial = sequence if sequence.computed < sequence.target else None
        self._chunks.append(sequence)
        chain, prefix = sequence.chain, sequence.prefix
        if chain is None or prefix is None:
            return
        full = min(sequence.computed, prefix.tokens) // self.parameters.block_size
        if chain.free:
            self._pool.settle()
        # Whoever computes the block that the cache lacks next shares it; others have a copy of their own.
        if full > sequence.shared == chain.blocks():
            chain.drop(sequence.shared)
            chain.hold(full)
            sequence.shared = full

    def _decode(self, sequence: _Sequence) -> None:
        """The step that ends now completed the target of a sequence: it decodes from now on."""
        step = self._steps
        sequence.first_step = step
        sequence.last_step = step + sequence.output_tokens - sequence.produced - 1
        self._count(sequence, 1)
        ending = self._ending.get(sequence.last_step)
        if ending is None:
            self._ending[sequence.last_step] = [sequence]
            heapq.heappush(self._ends, sequence.last_step)
        else:
            ending.append(sequence)

    def _count(self, sequence: _Sequence, sign: int) -> None:
        """Counts a sequence among the decoding ones, or no more."""
        offset = sequence.target - sequence.first_step
        size = self.parameters.block_size
        # In step s it computes its token number offset + s: the first of a block takes that block.
        phase = (1 - offset) % size
        self._phases[phase] += sign
        self._phases[phase + size] += sign
        self._decoding += sign
        self._offset += sign * offset

    def _leave(self, sequence: _Sequence, keep: bool = False) -> None:
        """Takes a sequence out of the batch and frees its blocks; `keep` lets it find them again."""
        del self._running[sequence.id]
        tokens = sequence.computed
        if sequence.first_step:
            tokens = sequence.target + self._steps + self._ahead - sequence.first_step
            self._count(sequence, -1)
        private = self._blocks(tokens) - sequence.shared
        # Blocks are freed from the end of a sequence to its beginning.
        kept = tokens // self.parameters.block_size - sequence.shared if keep else 0
        self._pool.give_back(private - kept)
        if kept:
            sequence.own = self._pool.keep(kept)
        if sequence.chain is not None:
            self._pool.let_go(sequence.chain, sequence.shared)
            sequence.chain = None
        self._unblock()

    def _preempt_for_decoding(self) -> list[int]:
        """Takes the blocks of the next step's decoding; preempts until the rest finds them, returns whom."""
        at = (self._steps + 1) % self.parameters.block_size
        preempted = []
        while self._phases[at] > self._pool.free:
            sequence = next(reversed(self._running.values()))
            self._preempt(sequence)
            preempted.append(sequence.id)
        self._pool.take(self._phases[at])
        return preempted

    def _preempt(self, sequence: _Sequence) -> None:
        self._leave(sequence, keep=self.parameters.prefix_caching)
        if sequence is self._partial:
            self._partial = None
        if sequence.first_step:
            sequence.produced += self._steps - sequence.first_step + 1
            sequence.target = sequence.prompt_tokens + sequence.produced
            sequence.first_step = 0
        sequence.computed = 0
        sequence.preempted = True
        self.preemptions += 1
        self._queue.appendleft(sequence)
        self._queued += 1
        self._blocked = False

    def _unblock(self) -> None:
        """A sequence left: the queue is looked at again in the next step."""
        self._blocked = not self._queued
        self._stuck = (0, 0)

    def _blocks(self, tokens: int) -> int:
        return -(-tokens // self.parameters.block_size)

    def _hits(self, sequence: _Sequence) -> tuple[int, int]:
        """Blocks that a queued sequence would find: of its prefix, and of its own before a preemption."""
        size = self.parameters.block_size
        most = (sequence.target - 1) // size  # the last token is always computed
        shared = 0
        prefix = sequence.prefix
        if prefix is None and sequence.own is None:
            return 0, 0
        self._pool.settle()
        if prefix is not None:
            sequence.chain = self._pool.chain(prefix.key)
            if sequence.chain is not None:
                shared = min(most, prefix.tokens // size, sequence.chain.blocks())
        own = sequence.own
        if own is None or not own.blocks or shared < sequence.shared:
            return shared, 0
        return shared, max(0, min(most, sequence.shared + own.blocks) - shared)

    def _find(self, sequence: _Sequence, shared: int, own: int) -> None:
        """Has a sequence use the blocks that it hits."""
        if sequence.own is not None:
            self._pool.use(sequence.own, own)
            self._pool.forget(sequence.own)
            sequence.own = None
        sequence.shared = shared
        if sequence.prefix is not None:
            sequence.chain = self._pool.hold(sequence.prefix.key, shared)

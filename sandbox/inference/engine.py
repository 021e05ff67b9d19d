"""Runs the model of an engine on the wall clock: one task per replica advances it, wakes its requests."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field

from autoscaling.engine import Engine, EngineParameters
from sandbox.inference.metrics import EngineCounts, FinishedSequence, ServerMetrics
from sandbox.inference.openai import Answer, Prompt

_LONGEST_LAG_SECONDS = 0.25
"""How far the engine may fall behind the clock before it gives up to catch up."""


@dataclass(eq=False)
class _Sequence:
    id: int
    generation: Generation
    prompt_tokens: int
    answer: Answer
    max_tokens: int
    scheduled: float | None = None
    """When it left the queue for the first time."""
    first_token: float | None = None
    cached_tokens: int = 0
    """Of its prompt."""
    tokens: int = 0
    """Tokens that it had in the end."""
    done: bool = False


@dataclass(eq=False)
class Generation:
    """A request in the engine: one sequence per answer."""

    arrived: float
    streaming: bool
    sequences: list[_Sequence] = field(default_factory=list)
    pending: int = 0
    """Sequences that are not done."""
    progress: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when a stream has something to write, and at the end of any request."""


class EngineStoppedError(ConnectionError):
    """The replica was killed while it worked on a request."""


class EngineLoop:
    """Paces an `Engine`: each step takes the time that the model says.

    A token costs nothing until it is written: streams are woken together, at most so often that a replica
    writes `writes_per_second` times, and then write all their new tokens at once. Few streams are woken at
    every token.
    """

    def __init__(
        self, parameters: EngineParameters, metrics: ServerMetrics, speed: float, writes_per_second: float
    ) -> None:
        """`speed` is seconds of the model per wall-clock second."""
        self._engine = Engine(parameters)
        self._metrics = metrics
        self._speed = speed
        self._writes_per_second = writes_per_second
        self._ids = itertools.count()
        self._sequences: dict[int, _Sequence] = {}
        self._streams: set[Generation] = set()
        self._requests: set[Generation] = set()
        self._work = asyncio.Event()
        self._stopped = False
        self._stepped = 0.0  # when the last step ended
        self._next_wake = 0.0

    def counts(self) -> EngineCounts:
        """What `/metrics` tells of the engine now."""
        engine = self._engine
        return EngineCounts(
            engine.running,
            engine.waiting,
            engine.kv_usage,
            engine.prefix_queries,
            engine.prefix_hits,
            engine.preemptions,
        )

    def submit(self, answers: Sequence[tuple[Prompt, Answer, int]], streaming: bool) -> Generation:
        """Queues a request for answers, each with its prompt and its most tokens."""
        generation = Generation(asyncio.get_running_loop().time(), streaming, pending=len(answers))
        for prompt, answer, max_tokens in answers:
            sequence = _Sequence(next(self._ids), generation, prompt.tokens, answer, max_tokens)
            generation.sequences.append(sequence)
            self._sequences[sequence.id] = sequence
            self._engine.add(sequence.id, prompt.tokens, answer.tokens, prompt.shared)
        self._requests.add(generation)
        if streaming:
            self._streams.add(generation)
        self._work.set()
        return generation

    def produced(self, generation: Generation) -> list[int]:
        """Tokens that each answer of a request has now."""
        return [
            sequence.tokens if sequence.done else self._engine.produced(sequence.id)
            for sequence in generation.sequences
        ]

    async def wait(self, generation: Generation) -> bool:
        """Waits for progress of a request; says whether it is complete.

        Raises EngineStoppedError when the replica is killed meanwhile.
        """
        await generation.progress.wait()
        if self._stopped:
            raise EngineStoppedError("the replica was stopped")
        generation.progress.clear()
        return generation.pending == 0

    def abort(self, generation: Generation) -> None:
        """Ends what is left of a request whose client has gone; harmless for a complete one."""
        for sequence in generation.sequences:
            if not sequence.done:
                self._end(sequence, self._engine.produced(sequence.id))
                self._engine.abort(sequence.id)

    def stop(self) -> None:
        """Fails all requests; `run` is to be cancelled."""
        self._stopped = True
        for generation in self._requests:
            generation.progress.set()

    async def run(self) -> None:
        """Advances the batch until it is cancelled."""
        loop = asyncio.get_running_loop()
        due = 0.0
        while True:
            scheduled = self._engine.schedule()
            if scheduled is None:
                self._work.clear()
                await self._work.wait()
                due = loop.time()
                continue
            now = loop.time()
            for sequence_id in scheduled.admitted:
                sequence = self._sequences[sequence_id]
                if sequence.scheduled is None:
                    sequence.scheduled = now
                    sequence.cached_tokens = self._engine.cached_tokens(sequence_id)
            due = max(due, now - _LONGEST_LAG_SECONDS) + scheduled.seconds / self._speed
            await asyncio.sleep(max(0.0, due - now))
            self._complete(loop.time())

    def _complete(self, now: float) -> None:
        step = self._engine.complete()
        prompt_tokens = 0
        for sequence_id in step.first:
            sequence = self._sequences[sequence_id]
            sequence.first_token = now
            prompt_tokens += sequence.prompt_tokens
            self._metrics.first_token(now - sequence.generation.arrived)
            if sequence.generation.streaming:
                sequence.generation.progress.set()
        if step.first or step.decoded:
            # Decoding sequences never skip a step, so all of them had their last token one step ago (but for
            # those that a preemption sent back).
            self._metrics.step(prompt_tokens, len(step.first), step.decoded, now - self._stepped)
        self._stepped = now
        for sequence_id in step.finished:
            self._finish(self._sequences[sequence_id], now)
        if now >= self._next_wake:
            self._next_wake = now + len(self._streams) / self._writes_per_second
            for generation in self._streams:
                generation.progress.set()

    def _finish(self, sequence: _Sequence, now: float) -> None:
        """A sequence has all its tokens."""
        assert sequence.scheduled is not None
        assert sequence.first_token is not None
        generation = sequence.generation
        self._metrics.finished(
            FinishedSequence(
                reason=sequence.answer.finish_reason,
                prompt_tokens=sequence.prompt_tokens,
                generation_tokens=sequence.answer.tokens,
                max_tokens=sequence.max_tokens,
                arrived=generation.arrived,
                scheduled=sequence.scheduled,
                first_token=sequence.first_token,
                ended=now,
                cached_tokens=sequence.cached_tokens,
            )
        )
        self._end(sequence, sequence.answer.tokens)
        if generation.pending == 0:
            most_tokens = max(one.tokens for one in generation.sequences)
            self._metrics.request_finished(len(generation.sequences), most_tokens)

    def _end(self, sequence: _Sequence, tokens: int) -> None:
        """Nothing more comes of a sequence, which has so many tokens."""
        generation = sequence.generation
        sequence.done = True
        sequence.tokens = tokens
        del self._sequences[sequence.id]
        generation.pending -= 1
        if generation.pending == 0:
            self._requests.discard(generation)
            self._streams.discard(generation)
            generation.progress.set()

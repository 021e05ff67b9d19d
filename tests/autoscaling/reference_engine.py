"""vLLM 0.13.0's scheduler again, slowly: real blocks, one step at a time, told by its source.

`vllm/v1/core/sched/scheduler.py` (schedule, policy fcfs), `kv_cache_manager.py` (get_computed_blocks,
allocate_slots, free) and `block_pool.py` (the queue of free blocks). It knows nothing of phases, jumps,
segments or chains: what `autoscaling.engine` counts, it does.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Hashable
from dataclasses import dataclass, field

from autoscaling.engine import EngineParameters, Prefix


@dataclass(eq=False)
class Block:
    users: int = 0
    hash: Hashable = None


@dataclass(eq=False)
class Request:
    id: int
    prompt_tokens: int
    output_tokens: int
    prefix: Prefix | None
    computed: int = 0
    produced: int = 0
    preemptions: int = 0
    decodes: bool = False
    hashed: int = 0
    blocks: list[Block] = field(default_factory=list)

    @property
    def tokens(self) -> int:
        return self.prompt_tokens + self.produced

    def hash(self, index: int, size: int) -> Hashable:
        """Of a full block: the same for all prompts that begin with the same tokens."""
        shared = self.prefix is not None and (index + 1) * size <= self.prefix.tokens
        return (self.prefix.key if shared and self.prefix else ("own", self.id), index)


@dataclass
class Step:
    """What one step did."""

    seconds: float
    admitted: list[int]
    preempted: list[int]
    first: list[int] = field(default_factory=list)
    decoded: int = 0
    finished: list[int] = field(default_factory=list)


class ReferenceEngine:
    def __init__(self, parameters: EngineParameters) -> None:
        self.parameters = parameters
        self.free: OrderedDict[Block, None] = OrderedDict(
            (Block(), None) for _ in range(parameters.kv_blocks)
        )
        self.cached: dict[Hashable, list[Block]] = {}
        self.waiting: deque[Request] = deque()
        self.running: list[Request] = []
        self.queries = 0
        self.hits = 0
        self.preemptions = 0

    @property
    def kv_usage(self) -> float:
        return 1 - len(self.free) / self.parameters.kv_blocks

    def add(self, request_id: int, prompt: int, output: int, prefix: Prefix | None) -> None:
        self.waiting.append(Request(request_id, prompt, output, prefix))

    def abort(self, request_id: int) -> None:
        for request in [one for one in self.running if one.id == request_id]:
            self.running.remove(request)
            self.release(request)
        self.waiting = deque(one for one in self.waiting if one.id != request_id)

    def step(self) -> Step | None:
        """Schedules a step and ends it."""
        parameters = self.parameters
        budget = parameters.max_num_batched_tokens
        scheduled: list[tuple[Request, int]] = []
        preempted: list[Request] = []
        admitted: list[Request] = []
        index = 0
        while index < len(self.running) and budget > 0:
            request = self.running[index]
            new = min(request.tokens - request.computed, budget)
            while not self.allocate(request, request.computed + new, []):
                last = self.running.pop()
                self.release(last)
                last.computed = 0
                last.decodes = False
                last.preemptions += 1
                self.preemptions += 1
                self.waiting.appendleft(last)
                preempted.append(last)
                if last is request:
                    break
            if request in preempted:
                break
            scheduled.append((request, new))
            budget -= new
            index += 1
        while not preempted and self.waiting and budget > 0 and len(self.running) < parameters.max_num_seqs:
            request = self.waiting[0]
            hit = self.find(request)
            cached = len(hit) * parameters.block_size
            new = min(request.tokens - cached, budget)
            if not self.allocate(request, cached + new, hit):
                break
            self.waiting.popleft()
            self.running.append(request)
            request.computed = cached
            scheduled.append((request, new))
            admitted.append(request)
            budget -= new
        if not scheduled and not preempted:
            return None
        return self.compute(scheduled, admitted, preempted)

    def compute(
        self, scheduled: list[tuple[Request, int]], admitted: list[Request], preempted: list[Request]
    ) -> Step:
        decoding = [one for one, _ in scheduled if one.decodes]
        prefill = sum(new for one, new in scheduled if not one.decodes)
        context = sum(one.tokens for one in decoding)
        pairs = sum(
            one.computed + token for one, new in scheduled if not one.decodes for token in range(1, new + 1)
        )
        seconds = self.parameters.seconds(prefill, len(decoding), context, pairs)
        step = Step(seconds, [one.id for one in admitted], [one.id for one in preempted])
        for request, new in scheduled:
            request.computed += new
            if request.computed < request.tokens:
                continue
            if request.produced:
                step.decoded += 1
            else:
                step.first.append(request.id)
            request.produced += 1
            request.decodes = True
            if request.produced == request.output_tokens:
                step.finished.append(request.id)
                self.running.remove(request)
                self.release(request)
        return step

    def find(self, request: Request) -> list[Block]:
        if not self.parameters.prefix_caching:
            return []
        size = self.parameters.block_size
        hit = []
        for index in range((request.tokens - 1) // size):
            blocks = self.cached.get(request.hash(index, size))
            if not blocks:
                break
            hit.append(blocks[0])
        if not request.preemptions:
            self.queries += request.tokens
            self.hits += len(hit) * size
        return hit

    def allocate(self, request: Request, tokens: int, hit: list[Block]) -> bool:
        size = self.parameters.block_size
        new = -(-tokens // size) - len(request.blocks) - len(hit)
        if new + sum(not block.users for block in hit) > len(self.free):
            return False
        for block in hit:
            if not block.users:
                del self.free[block]
            block.users += 1
        request.blocks += hit
        for _ in range(new):
            block, _ = self.free.popitem(last=False)
            if block.hash is not None:
                self.cached[block.hash].remove(block)
                block.hash = None
            block.users = 1
            request.blocks.append(block)
        if self.parameters.prefix_caching:
            full = min(tokens, request.tokens) // size
            for index in range(request.hashed + len(hit), full):
                block = request.blocks[index]
                block.hash = request.hash(index, size)
                self.cached.setdefault(block.hash, []).append(block)
            request.hashed = max(request.hashed, full)
        return True

    def release(self, request: Request) -> None:
        for block in reversed(request.blocks):
            block.users -= 1
            if not block.users:
                self.free[block] = None
        request.blocks = []
        request.hashed = 0

"""The blocks of a vLLM engine's KV cache: which are free, in which order they are taken, what can be hit.

As in vLLM 0.13.0 (vllm/v1/core/block_pool.py, kv_cache_manager.py): blocks that nobody uses stay in the queue
of free ones and can be hit until they are taken from its head. So those go first that were unused longest,
and the end of a prefix before its beginning.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable


class Segment:
    """Neighbours in the queue of free blocks: the rest of something that may be hit, or what nobody can."""

    __slots__ = ("blocks", "chain", "hittable")

    def __init__(self, blocks: int, hittable: bool = False, chain: Chain | None = None) -> None:
        self.blocks = blocks
        self.hittable = hittable
        self.chain = chain


class Chain:
    """The blocks of one prefix that the cache holds, always from its first token on."""

    __slots__ = ("free", "holders", "key", "used")

    def __init__(self, key: Hashable) -> None:
        self.key = key
        self.holders: dict[int, int] = {}  # number of sequences, by how many of the blocks they use
        self.used = 0  # blocks that some sequence uses
        self.free: list[Segment] = []  # the blocks after those, in order: unused, the last ones for longest

    def blocks(self) -> int:
        """All of them, used or not; after `BlockPool.settle`."""
        return self.used + sum(segment.blocks for segment in self.free)

    def hold(self, blocks: int) -> None:
        """A sequence uses so many, from the first one on."""
        self.holders[blocks] = self.holders.get(blocks, 0) + 1
        self.used = max(self.used, blocks)

    def drop(self, blocks: int) -> int:
        """A sequence that used so many goes; returns how many of them nobody uses any more."""
        left = self.holders[blocks] - 1
        if left:
            self.holders[blocks] = left
            return 0
        del self.holders[blocks]
        before, self.used = self.used, max(self.holders, default=0)
        return before - self.used


class BlockPool:
    """All blocks of an engine.

    It takes no work per block: while anything in the queue of free blocks can be hit, the segments of the
    queue hold the free blocks and those already taken from its head; `settle` makes that good before anyone
    looks.
    """

    def __init__(self, blocks: int) -> None:
        self.free = blocks
        """Blocks that no sequence uses."""
        self._chains: dict[Hashable, Chain] = {}
        self._queue: deque[Segment] = deque()  # empty while it holds nothing that can be hit
        self._hittable = 0  # segments of it that can be hit
        self._taken = 0  # blocks that are still to be taken from its head

    def take(self, blocks: int) -> None:
        """Takes free blocks from the head of their queue; there must be so many."""
        self.free -= blocks
        self._taken += blocks

    def give_back(self, blocks: int) -> None:
        """Appends blocks that nobody can hit to the queue of free ones."""
        if self._hittable:
            last = self._queue[-1]
            if last.hittable:
                self._queue.append(Segment(blocks))
            else:
                last.blocks += blocks
        self.free += blocks

    def keep(self, blocks: int, chain: Chain | None = None) -> Segment:
        """Appends blocks that can be hit, those of a chain or a sequence's own, to the queue of free ones."""
        segment = Segment(blocks, hittable=True, chain=chain)
        if not self._hittable:
            self._taken = 0
            self._queue.clear()
            self._queue.append(Segment(self.free))
        self._hittable += 1
        self._queue.append(segment)
        self.free += blocks
        return segment

    def use(self, segment: Segment, blocks: int) -> None:
        """Takes blocks that are hit out of the middle of the queue, after `settle`."""
        segment.blocks -= blocks
        self.free -= blocks
        if not segment.blocks:
            self.forget(segment)

    def forget(self, segment: Segment) -> None:
        """A segment can no more be hit; harmless for one that is forgotten."""
        if not segment.hittable:
            return
        segment.hittable = False
        self._hittable -= 1
        chain = segment.chain
        if chain is not None:
            chain.free.remove(segment)
            self._drop_empty(chain)

    def settle(self) -> None:
        """Takes from the head of the queue what was taken; what could be hit there is gone."""
        queue = self._queue
        while self._taken and self._hittable:
            head = queue[0]
            if head.blocks > self._taken:
                head.blocks -= self._taken
                self._taken = 0
            else:
                self._taken -= head.blocks
                head.blocks = 0
                queue.popleft()
                self.forget(head)

    def chain(self, key: Hashable) -> Chain | None:
        """The chain of a prefix; None while the cache holds none of its blocks."""
        return self._chains.get(key)

    def hold(self, key: Hashable, blocks: int) -> Chain:
        """Has a sequence use so many blocks of a prefix, all of which are there, after `settle`."""
        chain = self._chains.get(key)
        if chain is None:
            chain = self._chains[key] = Chain(key)
        unused = blocks - chain.used
        chain.hold(blocks)
        while unused > 0:
            segment = chain.free[0]
            hit = min(segment.blocks, unused)
            self.use(segment, hit)
            unused -= hit
        return chain

    def let_go(self, chain: Chain, blocks: int) -> None:
        """A sequence that used so many blocks of a chain is gone."""
        unused = chain.drop(blocks)
        if unused:
            chain.free.insert(0, self.keep(unused, chain))
        else:
            self._drop_empty(chain)

    def _drop_empty(self, chain: Chain) -> None:
        if not chain.holders and not chain.free:
            del self._chains[chain.key]

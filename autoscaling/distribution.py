"""Quantiles of any number of values in constant memory."""

from __future__ import annotations

import math

_GROWTH = 1.01 / 0.99
"""Width of a bucket: its middle is at most 1 % away from every value in it."""
_SMALLEST, _LARGEST = 1e-6, 1e8  # what is outside counts as the outermost bucket
_LOG_GROWTH = math.log(_GROWTH)
_OFFSET = 1 - math.floor(math.log(_SMALLEST) / _LOG_GROWTH)
_BUCKETS = _OFFSET + math.ceil(math.log(_LARGEST) / _LOG_GROWTH) + 1


class Distribution:
    """Values from 0 on, such as seconds, counted in buckets that grow by 2 %.

    Quantiles of values between 1e-6 and 1e8 are at most 1 % off, mean, least and largest value are exact.
    The method is that of DDSketch (https://arxiv.org/abs/1908.10693).
    """

    __slots__ = ("_counts", "_total", "count", "maximum", "minimum")

    def __init__(self) -> None:
        self._counts = [0] * _BUCKETS
        self._total = 0.0
        self.count = 0
        """How many values there are."""
        self.minimum = math.inf
        self.maximum = -math.inf

    def add(self, value: float, count: int = 1) -> None:
        """Counts `value` (0 or more) `count` times; ValueError for one below 0 or not a number."""
        if value < _SMALLEST:
            if value < 0:
                raise ValueError(f"a value of {value}: 0 or more is needed")
            index = 0
        elif value < _LARGEST:
            index = math.ceil(math.log(value) / _LOG_GROWTH) + _OFFSET
        else:
            if math.isnan(value):
                raise ValueError("a value that is not a number")
            index = _BUCKETS - 1
        self._counts[index] += count
        self._total += value * count
        self.count += count
        if value < self.minimum:
            self.minimum = value
        if value > self.maximum:
            self.maximum = value

    @property
    def mean(self) -> float | None:
        """The mean; None when there is no value."""
        return self._total / self.count if self.count else None

    def quantile(self, q: float) -> float | None:
        """The value that the share `q` (0 to 1) of all values does not exceed; None when there is none."""
        if not 0 <= q <= 1:
            raise ValueError(f"quantile {q}: 0 to 1 is needed")
        if not self.count:
            return None
        rank = max(1, math.ceil(q * self.count - 1e-9))
        if rank == self.count:
            return self.maximum
        seen = 0
        for index, count in enumerate(self._counts):
            seen += count
            if seen >= rank:
                return min(max(_middle(index), self.minimum), self.maximum)
        raise AssertionError("counts and their sum disagree")


def _middle(index: int) -> float:
    """The value that is equally far, in percent, from both ends of a bucket."""
    return 0.0 if index == 0 else 2 * _GROWTH ** (index - _OFFSET) / (1 + _GROWTH)

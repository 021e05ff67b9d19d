"""Quantiles keep their promise of 1 %, whatever the values are, in constant memory."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoscaling.distribution import Distribution

VALUES = st.lists(st.one_of(st.just(0.0), st.floats(1e-6, 1e8)), min_size=1, max_size=200)
SHARES = st.floats(0, 1)


def of(values: list[float]) -> Distribution:
    distribution = Distribution()
    for value in values:
        distribution.add(value)
    return distribution


@given(VALUES, SHARES)
def test_a_quantile_is_one_percent_off_at_most(values: list[float], q: float) -> None:
    exact = sorted(values)[max(0, math.ceil(q * len(values) - 1e-9) - 1)]
    assert of(values).quantile(q) == pytest.approx(exact, rel=0.01001, abs=1e-9)


@given(VALUES)
def test_mean_count_and_extremes_are_exact(values: list[float]) -> None:
    distribution = of(values)
    assert distribution.count == len(values)
    assert distribution.mean == pytest.approx(sum(values) / len(values))
    assert distribution.quantile(0) == pytest.approx(min(values), rel=0.01001)
    assert (distribution.minimum, distribution.quantile(1)) == (min(values), max(values))


@given(VALUES, VALUES)
def test_merged_is_as_if_all_had_been_added(left: list[float], right: list[float]) -> None:
    merged, both = of(left), of(left + right)
    merged.merge(of(right))
    assert merged.count == both.count
    assert merged.mean == pytest.approx(both.mean)
    assert [merged.quantile(q / 20) for q in range(21)] == [both.quantile(q / 20) for q in range(21)]


@given(st.floats(0, 1e8), st.integers(1, 1000))
def test_a_weight_counts_as_many_values(value: float, count: int) -> None:
    weighted = Distribution()
    weighted.add(value, count)
    assert weighted.count == count
    assert weighted.mean == pytest.approx(value)


def test_the_share_below_a_bound_lies_within_one_bucket() -> None:
    chance = random.Random(1)  # noqa: S311
    values = [chance.expovariate(1) for _ in range(20000)]
    distribution = of(values)
    for bound in (0.01, 0.5, 1, 2.5, 8):
        exact = sum(value <= bound for value in values) / len(values)
        assert distribution.share_below(bound) == pytest.approx(exact, abs=0.005)
    assert distribution.share_below(distribution.maximum) == 1
    assert distribution.share_below(distribution.minimum / 2) == 0


def test_nothing_has_no_quantile() -> None:
    empty = Distribution()
    assert (empty.quantile(0.5), empty.mean, empty.share_below(1)) == (None, None, None)


@pytest.mark.parametrize("value", [-1.0, math.nan])
def test_what_is_no_duration_is_refused(value: float) -> None:
    with pytest.raises(ValueError, match="value"):
        Distribution().add(value)

"""Quantiles keep their promise of 1 %, whatever the values are, in constant memory."""

from __future__ import annotations

import math

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


@given(st.floats(0, 1e8), st.integers(1, 1000))
def test_a_weight_counts_as_many_values(value: float, count: int) -> None:
    weighted = Distribution()
    weighted.add(value, count)
    assert weighted.count == count
    assert weighted.mean == pytest.approx(value)


def test_nothing_has_no_quantile() -> None:
    empty = Distribution()
    assert (empty.quantile(0.5), empty.mean) == (None, None)


@pytest.mark.parametrize("value", [-1.0, math.nan])
def test_what_is_no_duration_is_refused(value: float) -> None:
    with pytest.raises(ValueError, match="value"):
        Distribution().add(value)

"""The scaler decides as Kubernetes' HPA and KEDA do, whatever it is fed.

Cases named after a Go test hold its numbers. `TestReplicaCalc*` are in `replica_calculator_test.go`, the
others of Kubernetes in `horizontal_test.go`, both in `pkg/controller/podautoscaler`; those of KEDA are in
`pkg/scaling/executor/scale_scaledobjects_test.go` and `pkg/scalers/metrics_api_scaler_test.go`. Left out is
what AI Deploy has no setting for: metrics other than one external one, policies other than the default.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from autoscaling.platform import PlatformTimes
from autoscaling.policy import (
    Aggregation,
    Sample,
    ScalerSettings,
    ScalerState,
    TargetType,
    decide,
    read_metric,
)

EXPOSITION = (Path(__file__).parents[1] / "fixtures" / "vllm-0.13.0-metrics.txt").read_text()
KEDAS = """# HELP backend_queue_size Total number of items
	# TYPE backend_queue_size counter
	backend_queue_size{queueName="zero"} 0
	backend_queue_size{queueName="one"} 1
	backend_queue_size{queueName="two", instance="random"} 2
	backend_queue_size{queueName="two", instance="zero"} 20
	# HELP random_metric Random metric generate to include noise
	# TYPE random_metric counter
	random_metric 10"""
POLLING = PlatformTimes.polling_interval
ARTICLE = ScalerSettings(replicas_min=1, replicas_max=3, target_value=50)
WIDE = ScalerSettings(replicas_min=1, replicas_max=100, target_value=50, scale_down_stabilization_seconds=0)


def wishing(lowest: int, highest: int) -> ScalerSettings:
    """Settings with which `wish` says how many replicas the metric asks for."""
    return ScalerSettings(
        lowest,
        highest,
        target_value=1,
        aggregation="SUM",
        target_type="AverageValue",
        scale_down_stabilization_seconds=0,
    )


def wish(replicas: int) -> Sample:
    """A poll at second 0."""
    return Sample(0, (float(replicas),))


def run(
    settings: ScalerSettings, replicas: int, polls: Sequence[tuple[float, Sequence[float | None]]]
) -> list[int]:
    """The decisions on a sequence of (seconds, values)."""
    state = ScalerState(replicas)
    decisions = []
    for time, values in polls:
        decided, state = decide(state, Sample(time, tuple(values)), settings)
        decisions.append(decided)
    return decisions


@pytest.mark.parametrize(
    ("replicas", "values", "expected"),
    [
        (1, [120], 3),  # the formula's example: ceil(120 / 50 x 1)
        (1, [50], 1),
        (1, [55], 1),  # exactly 10 % off: within the tolerance
        (1, [55.1], 2),
        (2, [45, 45], 2),
        (2, [25, 25], 1),
        (2, [50, 50], 2),
        (2, [120], 3),  # only ready replicas are multiplied: ceil(2.4 x 1)
        (3, [130, 130], 6),
        (2, [120, None], 5),  # one that failed is left out of the average, but is a ready replica
        (3, [0, 0, 0], 1),
    ],
)
def test_value_mode_multiplies_the_ready_replicas(
    replicas: int, values: list[float | None], expected: int
) -> None:
    assert run(WIDE, replicas, [(0, values)]) == [expected]


@pytest.mark.parametrize(("aggregation", "expected"), [("AVERAGE", 4), ("MIN", 2), ("MAX", 6), ("SUM", 8)])
def test_aggregations(aggregation: Aggregation, expected: int) -> None:
    settings = replace(WIDE, aggregation=aggregation)
    assert run(settings, 2, [(0, [50, 150])]) == [min(expected, 6)]  # 2 + 4 pods is the most in one step


@pytest.mark.parametrize(
    ("aggregation", "values", "expected"),
    [
        # Why AVERAGE goes badly with AverageValue: the app is scaled down while it is at its target.
        ("AVERAGE", [50, 50], 1),
        ("SUM", [50, 50], 2),
        ("SUM", [100, 80], 4),
    ],
)
def test_average_value_mode_ignores_the_replica_count(
    aggregation: Aggregation, values: list[float], expected: int
) -> None:
    mode: TargetType = "AverageValue"
    assert run(replace(WIDE, aggregation=aggregation, target_type=mode), 2, [(0, values)]) == [expected]


@pytest.mark.parametrize(
    ("source", "mode", "replicas", "ready", "value", "target", "expected"),
    [
        # In TestReplicaCalcScaleUpCMExternal the metric is one per pod, which is the same with one pod.
        ("TestReplicaCalcScaleUpCMExternal", "Value", 1, 1, 8600, 4400, 2),
        ("TestReplicaCalcScaleUpCMExternalIgnoresUnreadyPods", "Value", 3, 1, 8600, 4400, 2),
        ("TestReplicaCalcScaleUpCMObjectIgnoresUnreadyPods", "Value", 3, 1, 50000, 10000, 5),
        ("TestReplicaCalcScaleDownCMExternal", "Value", 5, 5, 8600, 14334, 3),
        ("TestReplicaCalcScaleDownCMObject", "Value", 5, 5, 12000, 20000, 3),
        ("TestReplicaCalcToleranceCMExternal", "Value", 3, 3, 8600, 8888, 3),
        ("TestReplicaCalcToleranceCMObject", "Value", 3, 3, 20666, 20000, 3),
        ("TestReplicaCalcScaleUpPerPodCMExternal", "AverageValue", 3, 3, 8600, 2150, 4),
        ("TestReplicaCalcScaleUpPerPodCMObject", "AverageValue", 3, 3, 20000, 5000, 4),
        ("TestReplicaCalcScaleDownPerPodCMExternal", "AverageValue", 5, 5, 8600, 2867, 3),
        ("TestReplicaCalcScaleDownPerPodCMObject", "AverageValue", 5, 5, 6000, 2000, 3),
        ("TestReplicaCalcTolerancePerPodCMExternal", "AverageValue", 3, 3, 8600, 2900, 3),
        ("TestReplicaCalcTolerancePerPodCMObject", "AverageValue", 4, 4, 20166, 5000, 4),
        ("TestScaleUpCMExternal", "Value", 3, 3, 8600, 6666, 4),
        ("TestScaleUpCMObject", "Value", 3, 3, 20000, 15000, 4),
        ("TestScaleDownCMExternal", "Value", 5, 5, 8600, 14400, 3),
        ("TestToleranceCMExternal", "Value", 4, 4, 8600, 8666, 4),
        ("TestScaleUpPerPodCMExternal", "AverageValue", 3, 3, 8600, 2222, 4),
        ("TestScaleUpPerPodCMObject", "AverageValue", 3, 3, 40000, 10000, 4),
        ("TestScaleDownPerPodCMExternal", "AverageValue", 5, 5, 8600, 3000, 3),
        ("TestTolerancePerPodCMExternal", "AverageValue", 4, 4, 8600, 2200, 4),
    ],
)
def test_recommends_what_the_hpa_recommends(
    source: str, mode: TargetType, replicas: int, ready: int, value: int, target: int, expected: int
) -> None:
    # Values and targets in thousandths, as there; one value for all stands for what KEDA has aggregated.
    settings = replace(WIDE, target_value=target / 1000, target_type=mode, aggregation="MAX")
    assert run(settings, replicas, [(0, [value / 1000] * ready)]) == [expected]


@pytest.mark.parametrize(
    ("replicas", "desired", "lowest", "highest", "expected"),
    [
        # TestScalingWithRules, the cases with the default behavior
        pytest.param(5, 7, 3, 8, 7, id="prenormalized desired replicas within range"),
        pytest.param(3, 1, 2, 8, 2, id="prenormalized desired replicas < minReplicas"),
        pytest.param(20, 1000, 1, 10, 10, id="maxReplicas is the limit because maxReplicas < scaleUpLimit"),
        pytest.param(100, 1000, 100, 150, 150, id="desired is more than the maximum replica count"),
        pytest.param(10, 50, 1, 1000, 20, id="scaleUp with default behavior"),
        pytest.param(10, 5, 1, 1000, 5, id="scaleDown with default policy"),
        pytest.param(10, 0, 1, 1000, 1, id="scaleDown with spec MinReplicas=nil limitation"),
        pytest.param(10, 2, 5, 1000, 5, id="scaleDown with spec MinReplicas, large percent policy"),
        # whatever the metric says
        pytest.param(2, 4, 3, 5, 3, id="TestTooFewReplicas"),
        pytest.param(10, 4, 3, 5, 5, id="TestTooManyReplicas"),
    ],
)
def test_bounds_and_default_policies_are_those_of_the_hpa(
    replicas: int, desired: int, lowest: int, highest: int, expected: int
) -> None:
    decided, _ = decide(ScalerState(replicas), wish(desired), wishing(lowest, highest))
    assert decided == expected


@pytest.mark.parametrize(
    ("replicas", "changes", "expected"),
    [
        # The events of TestScalingWithRules, at the default policies: the larger of +4 and +100 % in 15 s.
        pytest.param(100, (1, 5, 9), 170, id="previous scale up events"),  # (100 - 15) + 100 %
        pytest.param(6, (4, -2), 8, id="previous scale up and down events"),  # (6 - 4 + 2) + 4 and + 100 %
        pytest.param(100, (-1, -5, -9), 230, id="previous scale down events"),  # (100 + 15) + 100 %
        # Limited to less than there is: nothing is taken away for that.
        pytest.param(100, (10, 40, 45), 100, id="a lot of recent scale up events"),
    ],
)
def test_what_was_changed_in_the_last_15_seconds_counts(
    replicas: int, changes: tuple[int, ...], expected: int
) -> None:
    scalings = tuple((-14.0 + index, change) for index, change in enumerate(changes))
    state = ScalerState(replicas, scalings=((-15.0, 50), *scalings))  # 15 s ago is outside
    decided, _ = decide(state, wish(1000), wishing(1, 1000))
    assert decided == expected


@pytest.mark.parametrize(
    ("replicas", "up", "down", "recommendations", "desired", "expected", "remembered"),
    [
        pytest.param(100, 0, 0, [], 5, 5, {5}, id="empty recommendations for scaling down"),
        pytest.param(100, 0, 3, [(2, 4), (1, 5)], 3, 5, {4, 5, 3}, id="simple scale down stabilization"),
        pytest.param(1, 5, 0, [(2, 4), (1, 5)], 7, 4, {4, 5, 7}, id="simple scale up stabilization"),
        pytest.param(100, 5, 0, [(2, 1), (1, 2)], 3, 3, {1, 2, 3}, id="no scale down stabilization"),
        pytest.param(1, 0, 5, [(2, 4), (1, 5)], 3, 3, {4, 5, 3}, id="no scale up stabilization"),
        pytest.param(100, 0, 0, [(10, 10), (9, 9)], 3, 3, {3}, id="no scale down, reuse"),
        # Desired are 100; here the rate limit, which the Go test leaves out, makes them 5.
        pytest.param(1, 0, 0, [(10, 10), (9, 9)], 100, 5, {100}, id="no scale up, reuse"),
        pytest.param(
            100, 0, 3, [(10, 10), (1, 4), (2, 5), (9, 9)], 3, 5, {4, 5, 3}, id="scale down, obsolete ones"
        ),
        pytest.param(
            1, 5, 0, [(100, 10), (1, 6), (2, 5), (3, 9)], 100, 5, {6, 5, 9, 100}, id="scale up, obsolete ones"
        ),
    ],
)
def test_windows_are_those_of_the_hpa(
    replicas: int,
    up: int,
    down: int,
    recommendations: list[tuple[int, int]],
    desired: int,
    expected: int,
    remembered: set[int],
) -> None:
    """TestNormalizeDesiredReplicasWithBehavior: windows and ages in minutes."""
    settings = replace(
        wishing(1, 1000),
        scale_up_stabilization_seconds=60 * up,
        scale_down_stabilization_seconds=60 * down,
    )
    state = ScalerState(
        replicas, recommendations=tuple((-60.0 * age, count) for age, count in recommendations)
    )
    decided, state = decide(state, wish(desired), settings)
    assert decided == expected
    assert {count for _, count in state.recommendations} == remembered


@pytest.mark.parametrize(
    ("source", "lowest", "replicas", "values", "expected"),
    [
        ("TestScaleToMinReplicasWhenNotActive", 0, 10, [0.0] * 10, 0),  # never active: without a cooldown
        ("TestScaleToMinReplicasFromLowerInitialReplicaCount", 5, 1, [0.0], 5),
        ("TestScaleFromMinReplicasWhenActive", 0, 0, [100.0], 1),  # one, however much there is to do
        ("TestNoScaleDownOneMetricEmpty", 2, 5, [None] * 5, 5),
        ("TestAggregateMetricsFromMultipleEndpoints_AverageAllEndpointsFail", 0, 2, [None, None], 2),
        ("TestAggregateMetricsFromMultipleEndpoints_AveragePartialSuccess", 1, 2, [20.0, None], 2),
        ("TestAggregateMetricsFromMultipleEndpoints_NoEndpoints", 0, 2, [], 2),
    ],
)
def test_activity_and_failed_endpoints_are_those_of_keda(
    source: str, lowest: int, replicas: int, values: list[float | None], expected: int
) -> None:
    settings = replace(WIDE, replicas_min=lowest, target_value=20)
    assert run(settings, replicas, [(0, values)]) == [expected]


def test_all_endpoints_failing_keeps_the_count() -> None:
    polls: list[tuple[float, list[float | None]]] = [(0, [None, None]), (15, []), (30, [float("nan")])]
    assert run(ARTICLE, 2, polls) == [2, 2, 2]


def test_a_count_outside_the_bounds_is_put_right_without_a_metric() -> None:
    assert run(ARTICLE, 5, [(0, [None])]) == [3]
    assert run(replace(ARTICLE, replicas_min=2), 1, [(0, [])]) == [2]


def test_scale_up_is_limited_to_four_pods_or_double_in_15_seconds() -> None:
    busy = [10_000.0]
    assert run(WIDE, 1, [(0, busy), (14, busy * 5), (15, busy * 5), (30, busy * 10)]) == [5, 5, 10, 20]


def test_the_highest_recommendation_of_the_window_holds_replicas() -> None:
    polls = [(0, [120.0]), *((15.0 * step, [10.0] * 3) for step in range(1, 24))]
    decisions = run(ARTICLE, 1, polls)
    held = decisions.index(1)
    assert set(decisions[:held]) == {3}
    assert polls[held][0] == 300  # the recommendation of second 0 leaves the window


def test_the_count_at_the_start_is_a_recommendation() -> None:
    assert run(ARTICLE, 3, [(0, [0, 0, 0]), (285, [0, 0, 0]), (300, [0, 0, 0])]) == [3, 3, 1]


def test_the_lowest_recommendation_of_the_scale_up_window_wins() -> None:
    settings = replace(ARTICLE, scale_up_stabilization_seconds=60)
    polls = [(15.0 * step, [120.0]) for step in range(6)]
    assert run(settings, 1, polls) == [1, 1, 1, 1, 3, 3]


def test_a_spike_shorter_than_the_scale_up_window_is_ignored() -> None:
    settings = replace(ARTICLE, scale_up_stabilization_seconds=60)
    polls = [(0.0, [10.0]), (15.0, [500.0]), (30.0, [10.0]), (90.0, [10.0])]
    assert run(settings, 1, polls) == [1, 1, 1, 1]


def test_scale_to_zero_waits_for_the_cooldown_and_load_wakes_the_app() -> None:
    settings = replace(ARTICLE, replicas_min=0, cooldown_seconds=120)
    polls = [(0.0, [5.0]), (60.0, [0.0]), (119.0, [0.0]), (120.0, [0.0]), (135.0, []), (150.0, [1.0])]
    assert run(settings, 1, polls) == [1, 1, 1, 0, 0, 1]


def test_the_least_load_keeps_the_last_replica() -> None:
    # KEDA compares the value itself with zero, not the thousandths that the HPA gets to see.
    settings = replace(ARTICLE, replicas_min=0, scale_down_stabilization_seconds=0, cooldown_seconds=60)
    assert run(settings, 2, [(0, [0.0004, 0]), (600, [0.0001])]) == [1, 1]


def test_waking_and_falling_asleep_are_no_changes_of_the_hpa() -> None:
    settings = replace(ARTICLE, replicas_min=0, replicas_max=10, cooldown_seconds=60)
    polls = [(0.0, [0.0] * 9), (5.0, [1.0]), (10.0, [1000.0])]
    assert run(settings, 9, polls) == [0, 1, 5]  # one replica 15 s ago, or nine, would allow 4, or 10


def test_with_a_minimum_of_one_no_load_never_means_zero() -> None:
    assert run(ARTICLE, 1, [(0, [0]), (10_000, [0])]) == [1, 1]


@pytest.mark.parametrize(
    ("settings", "key"),
    [
        ({"replicas_min": 3, "replicas_max": 2}, "replicas_min 3"),
        ({"replicas_min": 0, "replicas_max": 0}, "replicas_max 0"),
        ({"target_value": 0}, "target_value 0"),
        ({"aggregation": "MEDIAN"}, "'MEDIAN'"),
        ({"target_type": "Utilization"}, "'Utilization'"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings: dict[str, object], key: str) -> None:
    with pytest.raises(ValueError, match=key):
        ScalerSettings(**{"replicas_min": 1, "replicas_max": 3, "target_value": 50, **settings})  # type: ignore[arg-type]


SETTINGS = st.builds(
    lambda low, more, **rest: ScalerSettings(replicas_min=low, replicas_max=max(1, low + more), **rest),
    low=st.integers(0, 5),
    more=st.integers(0, 20),
    target_value=st.floats(0.01, 1000),
    aggregation=st.sampled_from(["AVERAGE", "MIN", "MAX", "SUM"]),
    target_type=st.sampled_from(["Value", "AverageValue"]),
    scale_up_stabilization_seconds=st.integers(0, 600),
    scale_down_stabilization_seconds=st.integers(0, 600),
    cooldown_seconds=st.integers(0, 600),
)
VALUES = st.lists(st.one_of(st.none(), st.floats(0, 1e6)), max_size=8)


@given(SETTINGS, st.integers(0, 30), st.lists(VALUES, min_size=1, max_size=40))
def test_every_decision_is_within_the_bounds_and_the_rate(
    settings: ScalerSettings, replicas: int, polls: list[list[float | None]]
) -> None:
    state = ScalerState(replicas)
    for index, values in enumerate(polls):
        before = state.replicas
        decided, state = decide(state, Sample(index * POLLING, tuple(values)), settings)
        assert settings.replicas_min <= decided <= settings.replicas_max
        assert state.replicas == decided
        if before >= settings.replicas_min:
            assert decided <= max(before + 4, 2 * before)
        if all(value is None for value in values) and before <= settings.replicas_max:
            assert decided == max(before, settings.replicas_min)


HISTORY = st.lists(st.tuples(st.integers(-700, 0), st.integers(0, 30)), max_size=20)


@st.composite
def states(draw: st.DrawFn) -> ScalerState:
    """A state with any past: what was recommended, what was changed, when there was load."""
    changes = st.lists(st.tuples(st.integers(-30, 0), st.integers(-5, 5)), max_size=4)
    return ScalerState(
        draw(st.integers(1, 30)),
        recommendations=tuple((float(time), count) for time, count in sorted(draw(HISTORY))),
        scalings=tuple((float(time), change) for time, change in sorted(draw(changes))),
        last_active=draw(st.one_of(st.none(), st.integers(-700, 0).map(float))),
    )


def within(settings: ScalerSettings, state: ScalerState) -> ScalerSettings:
    """The settings with bounds that hold the state's replicas, so that the metric decides."""
    return replace(
        settings,
        replicas_min=min(settings.replicas_min, state.replicas),
        replicas_max=max(settings.replicas_max, state.replicas),
    )


@given(SETTINGS, states(), st.floats(0.901, 1.099))
def test_a_value_within_the_tolerance_changes_nothing(
    settings: ScalerSettings, state: ScalerState, ratio: float
) -> None:
    settings = replace(within(settings, state), target_value=10, aggregation="MAX")
    at_target = 1 if settings.target_type == "Value" else state.replicas
    sample = Sample(0, (10 * ratio * at_target,) * state.replicas)
    assert decide(state, sample, settings)[0] == state.replicas


@given(SETTINGS, states(), st.lists(st.tuples(st.integers(0, 300), st.integers(0, 300)), min_size=1))
def test_a_higher_metric_never_means_fewer_replicas(
    settings: ScalerSettings, state: ScalerState, values: list[tuple[int, int]]
) -> None:
    # All ready: with some that are not, staying within the tolerance can mean more than leaving it upwards.
    state = replace(state, replicas=len(values))
    settings = replace(within(settings, state), target_value=max(settings.target_value, 1))
    lower, _ = decide(state, Sample(0, tuple(float(min(pair)) for pair in values)), settings)
    higher, _ = decide(state, Sample(0, tuple(float(max(pair)) for pair in values)), settings)
    assert lower <= higher


POLLS = st.lists(
    st.tuples(st.integers(1, 90), st.one_of(st.none(), st.integers(1, 60))), min_size=1, max_size=40
)
"""Seconds since the poll before, and how many replicas the metric asks for."""


@given(SETTINGS, st.integers(1, 30), POLLS)
def test_windows_and_rates_hold_over_every_history(
    settings: ScalerSettings, replicas: int, polls: list[tuple[int, int | None]]
) -> None:
    settings = replace(
        within(settings, ScalerState(replicas)),
        target_type="AverageValue",
        aggregation="SUM",
        target_value=1,
    )
    state, now = ScalerState(replicas), 0
    asked: list[tuple[int, int]] = []
    counts = [(-math.inf, replicas)]
    for pause, wanted in polls:
        now += pause
        before = state.replicas
        decided, state = decide(state, Sample(now, (None if wanted is None else float(wanted),)), settings)
        if not asked:
            asked.append((now, replicas))
        if wanted is not None:
            asked.append((now, before if 0.9 <= wanted / before <= 1.1 else wanted))
        if decided < before:
            window = [count for at, count in asked if at > now - settings.scale_down_stabilization_seconds]
            assert decided >= min(max([*window, settings.replicas_min]), settings.replicas_max)
        if decided > before:
            window = [count for at, count in asked if at > now - settings.scale_up_stabilization_seconds]
            assert decided <= min([*window, asked[-1][1]])
            at_start = [count for at, count in counts if at <= now - 15][-1]
            assert decided <= max(at_start + 4, 2 * at_start)
        counts.append((now, decided))


@given(SETTINGS, states(), st.integers(1, 8), st.integers(0, 300), st.integers(0, 300), st.integers(1, 5))
def test_a_failed_endpoint_counts_as_the_others_do_and_never_as_zero(
    settings: ScalerSettings, state: ScalerState, pairs: int, value: int, spread: int, failed: int
) -> None:
    assume(settings.aggregation != "SUM")
    settings = within(settings, state)
    readable = [float(value), float(value + 2 * spread)] * pairs
    others = {"AVERAGE": value + spread, "MIN": value, "MAX": value + 2 * spread}[settings.aggregation]
    without = decide(state, Sample(0, (*readable, *[None] * failed)), settings)
    alike = decide(state, Sample(0, (*readable, *[float(others)] * failed)), settings)
    assert without == alike


@given(SETTINGS, states(), st.floats(0, 1e4))
def test_both_target_types_agree_on_one_replica(
    settings: ScalerSettings, state: ScalerState, load: float
) -> None:
    state = replace(state, replicas=1)
    settings = within(settings, state)
    modes: tuple[TargetType, TargetType] = ("Value", "AverageValue")
    first, second = (decide(state, Sample(0, (load,)), replace(settings, target_type=mode)) for mode in modes)
    assert first == second


@given(SETTINGS, states(), st.lists(st.one_of(st.none(), st.integers(0, 300)), max_size=8), st.randoms())
def test_the_order_of_the_endpoints_and_the_hour_do_not_matter(
    settings: ScalerSettings, state: ScalerState, values: list[int | None], random: Random
) -> None:
    shuffled = random.sample(values, len(values))
    later = 3600.0 * random.randrange(10_000)
    moved = ScalerState(
        state.replicas,
        tuple((time + later, count) for time, count in state.recommendations),
        tuple((time + later, change) for time, change in state.scalings),
        None if state.last_active is None else state.last_active + later,
    )
    here, _ = decide(state, Sample(0, tuple(values)), settings)
    there, _ = decide(moved, Sample(later, tuple(shuffled)), settings)
    assert here == there


@given(SETTINGS, st.integers(1, 10), st.lists(st.tuples(st.integers(1, 400), st.booleans()), min_size=1))
def test_none_but_an_idle_app_is_scaled_to_zero(
    settings: ScalerSettings, replicas: int, polls: list[tuple[int, bool]]
) -> None:
    settings = replace(settings, replicas_min=0)
    state, now, active = ScalerState(replicas), 0, -math.inf
    for pause, load in polls:
        now += pause
        active = now if load else active
        before = state.replicas
        decided, state = decide(state, Sample(now, (float(load),) * max(before, 1)), settings)
        assert (decided == 0) <= (now - active >= settings.cooldown_seconds)
        assert decided > 0 or not load


@given(st.lists(st.floats(0, 1e4), min_size=1, max_size=60))
def test_memory_does_not_grow_with_time(loads: list[float]) -> None:
    state = ScalerState(1)
    for index, load in enumerate(loads * 5):
        _, state = decide(state, Sample(index * POLLING, (load,)), ARTICLE)
    assert len(state.recommendations) <= 300 / POLLING + 2
    assert len(state.scalings) <= 2


@pytest.mark.parametrize(
    ("location", "value"),
    [
        ("vllm:num_requests_running", 0.0),
        ('vllm:generation_tokens_total{engine="0"}', 178.0),
        ('vllm:request_success_total{finished_reason="length",}', 3.0),
        # KEDA compares for equality whatever the operator says.
        ('vllm:request_success_total{finished_reason!="length"}', 3.0),
        ("vllm:request_success_total{finished_reason=~'length'}", 3.0),
        ('{__name__="vllm:request_success_total"}', 2.0),  # the first series of the family
        ("vllm:iteration_tokens_total_created", 1.7953531880021598e09),
        (" process_open_fds { } ", 34.0),
    ],
)
def test_reads_what_keda_reads_from_a_real_exposition(location: str, value: float) -> None:
    assert read_metric(EXPOSITION, location) == value


@pytest.mark.parametrize(
    "location",
    [
        "sum(vllm:num_requests_running)",
        "vllm:num_requests_running[5m]",
        "vllm:num_requests_running{engine=0}",
        'vllm:num_requests_running{engine="1"}',
        "vllm:unknown",
        "vllm:e2e_request_latency_seconds",  # a histogram has no value
        "vllm:e2e_request_latency_seconds_count",  # and its parts are no families
        "vllm:iteration_tokens_total",  # looks like a counter, is a histogram
        "http_request_size_bytes_sum",
        "{}",
        "",
    ],
)
def test_refuses_what_keda_finds_no_value_for(location: str) -> None:
    with pytest.raises(ValueError, match="valueLocation"):
        read_metric(EXPOSITION, location)


@pytest.mark.parametrize("line", ["<html>", 'm{a="b} 1', "m one", "m{a=b} 1", 'm{a="b"}'], ids=range(5))
def test_a_malformed_exposition_is_an_error(line: str) -> None:
    with pytest.raises(ValueError, match="line 1"):
        read_metric(f"{line}\n", "m")


@pytest.mark.parametrize(
    ("location", "value"),
    [
        ("random_metric", 10),
        ('backend_queue_size{queueName="one"}', 1),
        ('backend_queue_size{queueName="two"}', 2),
        ('backend_queue_size{queueName="two", instance="zero"}', 20),
    ],
    ids=["no labels", "one label", "multiple labels not queried", "multiple labels queried"],
)
def test_reads_the_exposition_of_kedas_own_test(location: str, value: float) -> None:
    """TestGetValueFromResponse."""
    assert read_metric(KEDAS, location) == value
    with pytest.raises(ValueError, match="valueLocation"):
        read_metric(KEDAS, "backend_queue_size{invalid=test}")


def test_text_details() -> None:
    text = '# TYPE m gauge\r\nm{a="x\\"y\\\\",b="}"} 1.5 1700000000000\r\nm{a="z"} +Inf'
    assert read_metric(text, 'm{a="x\\"y\\\\"}') == 1.5
    assert read_metric(text, 'm{a="z"}') == float("inf")
    assert read_metric("untyped_metric 3", "untyped_metric") == 3

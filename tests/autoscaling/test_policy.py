"""The scaler decides as Kubernetes' HPA and KEDA do, whatever it is fed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoscaling.policy import (
    SYNC_SECONDS,
    Aggregation,
    Sample,
    ScalerSettings,
    ScalerState,
    TargetType,
    decide,
    read_metric,
)

EXPOSITION = (Path(__file__).parents[1] / "fixtures" / "vllm-0.13.0-metrics.txt").read_text()
ARTICLE = ScalerSettings(replicas_min=1, replicas_max=3, target_value=50)
WIDE = ScalerSettings(replicas_min=1, replicas_max=100, target_value=50, scale_down_stabilization_seconds=0)


def run(
    settings: ScalerSettings, replicas: int, polls: Sequence[tuple[float, Sequence[float | None]]]
) -> list[int]:
    """The decisions on a sequence of (seconds, values)."""
    state = ScalerState.initial(replicas)
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
        (
            "AVERAGE",
            [50, 50],
            1,
        ),  # why OVHcloud's AVERAGE cannot be AverageValue: it would scale down at target
        ("SUM", [50, 50], 2),
        ("SUM", [100, 80], 4),
    ],
)
def test_average_value_mode_ignores_the_replica_count(
    aggregation: Aggregation, values: list[float], expected: int
) -> None:
    mode: TargetType = "AverageValue"
    assert run(replace(WIDE, aggregation=aggregation, target_type=mode), 2, [(0, values)]) == [expected]


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
    state = ScalerState.initial(replicas)
    for index, values in enumerate(polls):
        before = state.replicas
        decided, state = decide(state, Sample(index * SYNC_SECONDS, tuple(values)), settings)
        assert settings.replicas_min <= decided <= settings.replicas_max
        assert state.replicas == decided
        if before >= settings.replicas_min:
            assert decided <= max(before + 4, 2 * before)
        if all(value is None for value in values) and before <= settings.replicas_max:
            assert decided == max(before, settings.replicas_min)


@given(SETTINGS, st.integers(1, 10), st.floats(0, 1e4))
def test_a_steady_load_at_the_target_changes_nothing(
    settings: ScalerSettings, replicas: int, load: float
) -> None:
    at_target = replace(settings, replicas_min=1, replicas_max=10, target_type="Value", aggregation="AVERAGE")
    polls = [(15.0 * step, [at_target.target_value] * replicas) for step in range(50)]
    assert set(run(at_target, replicas, polls)) == {replicas}


@given(st.lists(st.floats(0, 1e4), min_size=1, max_size=60))
def test_memory_does_not_grow_with_time(loads: list[float]) -> None:
    state = ScalerState.initial(1)
    for index, load in enumerate(loads * 5):
        _, state = decide(state, Sample(index * SYNC_SECONDS, (load,)), ARTICLE)
    assert len(state.recommendations) <= 300 / SYNC_SECONDS + 2
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


def test_text_details() -> None:
    text = '# TYPE m gauge\r\nm{a="x\\"y\\\\",b="}"} 1.5 1700000000000\r\nm{a="z"} +Inf'
    assert read_metric(text, 'm{a="x\\"y\\\\"}') == 1.5
    assert read_metric(text, 'm{a="z"}') == float("inf")
    assert read_metric("untyped_metric 3", "untyped_metric") == 3

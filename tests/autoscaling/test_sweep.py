"""Other settings: the grid stays within what may be deployed, the best is the best, the front is a front."""

from __future__ import annotations

import dataclasses
import multiprocessing
import os
import signal
from time import sleep

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoscaling import sweep
from autoscaling.policy import TargetType
from autoscaling.rehearsal import MODES
from autoscaling.sweep import Candidate, Result, Score, Sweep
from autoscaling.traffic import parse
from autoscaling.workers import Workers
from tests.autoscaling import rehearsals
from tests.autoscaling.rehearsals import ALONE, stack

OWN = Candidate(1, 3, 50, "AVERAGE", 0, 300)


def score(minutes: int, attainment: float, *missed: str) -> Score:
    return Score(minutes, minutes / 10, attainment, missed, 0.1, 0.1, 1.0, 0)


def result(candidate: Candidate, value: Score, average: Score | None = None) -> Result:
    return Result(candidate, {"Value": value, "AverageValue": average or value})


def candidate(target: float) -> Candidate:
    return dataclasses.replace(OWN, target=target)


scores = st.builds(
    lambda minutes, attainment, missed: score(minutes, attainment, *missed),
    st.integers(1, 20),
    st.sampled_from([0.5, 0.9, 0.95, 0.99, 1.0]),
    st.sampled_from([(), ("success",)]),
)


@st.composite
def sweeps(draw: st.DrawFn) -> Sweep:
    pairs = draw(st.lists(st.tuples(scores, scores), min_size=1, max_size=12))
    return Sweep(OWN, [result(candidate(50 + index), *pair) for index, pair in enumerate(pairs)])


def beats(one: Result, other: Result) -> bool:
    """Whether it is at least as good in both, and better in one."""
    cheaper = other.gpu_minutes - one.gpu_minutes
    better = one.attainment - other.attainment
    return cheaper >= 0 and better >= 0 and (cheaper > 0 or better > 0)


@given(sweeps())
def test_nothing_beats_what_is_on_the_front(found: Sweep) -> None:
    for shown in found.pareto:
        assert not any(beats(other, shown) for other in found.results)


@given(sweeps())
def test_everything_else_is_beaten_or_equalled_by_the_front(found: Sweep) -> None:
    points = {(shown.gpu_minutes, shown.attainment) for shown in found.pareto}
    assert len(points) == len(found.pareto)
    for other in found.results:
        assert (other.gpu_minutes, other.attainment) in points or any(
            beats(shown, other) for shown in found.pareto
        )


@given(sweeps())
def test_the_front_costs_more_and_serves_better_from_row_to_row(found: Sweep) -> None:
    front = [(shown.gpu_minutes, shown.attainment) for shown in found.pareto]
    assert front == sorted(front)
    assert [attained for _, attained in front] == sorted({attained for _, attained in front})


@given(sweeps(), st.sampled_from([None, *MODES]))
def test_the_best_meets_the_objectives_and_nothing_that_meets_them_is_cheaper(
    found: Sweep, mode: TargetType | None
) -> None:
    modes = MODES if mode is None else (mode,)
    meeting = [one for one in found.results if not any(one.scores[each].missed for each in modes)]
    best = found.best(mode)
    if not meeting:
        assert best is None
        return
    assert best is not None
    assert best.candidate in {one.candidate for one in meeting}
    costs = [max(one.scores[each].gpu_minutes for each in modes) for one in meeting]
    assert best.gpu_minutes == min(costs)


def test_what_one_mode_misses_is_missed() -> None:
    found = Sweep(OWN, [result(OWN, score(10, 1.0), score(20, 0.8, "success"))])
    only = found.results[0]
    assert not only.meets
    assert (only.gpu_minutes, only.attainment) == (20, 0.8)
    assert found.best() is None
    assert found.best("Value") is not None
    assert found.best("AverageValue") is None


def test_of_equal_settings_the_stacks_own_are_kept() -> None:
    same = score(10, 1.0)
    found = Sweep(OWN, [result(candidate(30), same), result(OWN, same), result(candidate(70), same)])
    best = found.best()
    assert best is not None
    assert best.candidate == OWN
    assert best.candidate.lines(OWN) == []


def test_without_settings_that_meet_them_the_one_that_serves_best_is_named() -> None:
    poor = result(candidate(30), score(10, 0.6, "success"))
    rich = result(candidate(40), score(99, 0.8, "success"))
    assert Sweep(OWN, [poor, rich]).most_attained("Value").candidate == rich.candidate


def test_lines_for_the_stack_file_are_what_differs() -> None:
    other = Candidate(2, 4, 30, "SUM", 60, 900)
    assert other.lines(OWN) == [
        "ovh-vllm:minReplicas: 2",
        "ovh-vllm:maxReplicas: 4",
        'ovh-vllm:scalingTarget: "30"',
        "ovh-vllm:scalingAggregation: SUM",
        "ovh-vllm:scaleUpStabilizationSeconds: 60",
        "ovh-vllm:scaleDownStabilizationSeconds: 900",
    ]
    assert candidate(30.5).lines(OWN) == ['ovh-vllm:scalingTarget: "30.5"']


def test_a_fixed_number_needs_no_other_lines() -> None:
    assert Candidate(2, 2, 30, "SUM", 60, 900).lines(OWN) == [
        "ovh-vllm:minReplicas: 2",
        "ovh-vllm:maxReplicas: 2",
    ]


@pytest.fixture(scope="module")
def swept() -> Sweep:
    found = rehearsals.swept().sweep
    assert found is not None
    return found


def test_the_grid_stays_within_what_may_be_deployed(swept: Sweep) -> None:
    for one in swept.results:
        assert 1 <= one.candidate.min_replicas <= one.candidate.max_replicas <= 3


def test_the_stacks_own_settings_are_among_those_that_were_tried(swept: Sweep) -> None:
    assert swept.stack == Candidate(1, 3, 4, "AVERAGE", 0, 60)
    assert swept.stack in {one.candidate for one in swept.results}


def test_targets_windows_bounds_and_aggregations_are_varied(swept: Sweep) -> None:
    tried = [one.candidate for one in swept.results]
    assert len(tried) == len(set(tried))
    for name in ("min_replicas", "max_replicas", "target", "aggregation", "up_window", "down_window"):
        assert len({getattr(one, name) for one in tried}) > 1, name


def test_more_replicas_from_the_start_cost_more_and_serve_no_worse(swept: Sweep) -> None:
    fixed = sorted(
        (one for one in swept.results if one.candidate.fixed), key=lambda one: one.candidate.min_replicas
    )
    assert [one.candidate.min_replicas for one in fixed] == [1, 2, 3]
    minutes = [one.gpu_minutes for one in fixed]
    assert minutes == sorted(minutes)
    assert fixed[0].attainment <= fixed[-1].attainment


def test_progress_is_told() -> None:
    told: list[tuple[str, int, int]] = []
    load = parse("constant:rate=1,for=10s")
    sweep.sweep(stack(replicas_max=1), load, 1, ALONE, lambda *news: told.append(news))
    for what in {news[0] for news in told}:
        of = next(total for name, _, total in told if name == what)
        assert [done for name, done, _ in told if name == what] == list(range(of + 1))


def square(number: int) -> int:
    return number * number


def refuse(number: int) -> int:
    raise ValueError(f"no {number}")


@pytest.mark.parametrize("count", [1, 2])
def test_results_keep_the_order_of_the_work(count: int) -> None:
    with Workers(count) as workers:
        assert list(workers.each(square, range(6))) == [0, 1, 4, 9, 16, 25]
        assert list(workers.each(square, [])) == []


def test_an_error_in_one_process_is_that_of_all() -> None:
    with pytest.raises(ValueError, match="no 0"), Workers(2) as workers:
        list(workers.each(refuse, range(3)))


def interrupted(number: int) -> int:
    os.kill(os.getpid(), signal.SIGINT)
    return number


def test_an_interrupt_is_for_the_process_that_shares_out_the_work() -> None:
    with Workers(2) as workers:
        assert list(workers.each(interrupted, range(2))) == [0, 1]


def test_an_interrupt_ends_what_is_under_way() -> None:
    with pytest.raises(KeyboardInterrupt), Workers(2) as workers:
        workers.each(sleep, [10_000.0] * 4)
        raise KeyboardInterrupt
    assert not multiprocessing.active_children()

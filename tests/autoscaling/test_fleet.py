"""A rehearsed app loses no request, keeps to its bounds and its quota, and costs what the bill would say."""

from __future__ import annotations

import dataclasses
import tracemalloc
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autoscaling.engine import EngineParameters
from autoscaling.fleet import METRICS, Fleet, run
from autoscaling.outcome import Outcome
from autoscaling.platform import PlatformTimes
from autoscaling.policy import ScalerSettings
from autoscaling.traffic import ClosedLoop, Request, Traffic
from components.ai_deploy.spec import Probe
from dashboards.target import Latency, Objectives
from tests.autoscaling.fleets import PROBE, Drawn, Listed, engine, fixed, fleet, polled

SLO = Objectives(Latency(2.5, 0.95), Latency(0.1, 0.95), 0.99, 0.995)
ARTICLE = ScalerSettings(1, 3, 50)
READY = 60 + 100 + 10
"""Seconds from the allocation of a replica: image, cold start, and the probe's look 110 s after the start."""


def busy(rate: float, duration: float, seconds: float = 12.0) -> Drawn:
    """So many requests per second, each of which runs for `seconds` on an engine with a step of 20 ms."""
    return Drawn(rate, duration, lambda chance: round(seconds / 0.02))


def plain(outcome: Outcome) -> dict[str, Any]:
    """All that can be compared of an outcome."""
    fields = {field.name: getattr(outcome, field.name) for field in dataclasses.fields(outcome)}
    spread = ("ttft", "itl", "tpot", "e2e")
    quantiles = {name: [fields[name].quantile(q / 10) for q in range(11)] for name in spread}
    return {**fields, **quantiles}


def test_a_lone_request_takes_what_its_steps_take() -> None:
    parameters = EngineParameters(
        kv_blocks=1000,
        step_seconds=0.02,
        sequence_seconds=0.001,
        context_token_seconds=0,
        prefill_tokens_per_second=1000,
        max_num_batched_tokens=1024,
    )
    lone = Listed((Request(5.0, 1500, 100),))
    found = run(fleet(parameters), lone, after=0)
    first = 2 * 0.02 + 1500 / 1000  # two chunks
    assert found.ttft.mean == pytest.approx(first)
    assert [found.itl.mean, found.tpot.mean] == pytest.approx([0.021, 0.021])
    assert found.itl.count == 99
    assert found.e2e.mean == pytest.approx(first + 99 * 0.021)
    assert found.seconds == pytest.approx(5 + first + 99 * 0.021)


def test_a_request_waits_from_its_intended_start() -> None:
    """The second one comes while the only place is taken: what it waits counts."""
    two = Listed((Request(0.0, 1, 100), Request(1.0, 1, 100)))
    found = run(fleet(engine(0.1, slots=1)), two)
    assert found.ttft.maximum == pytest.approx(10 - 1 + 0.1)


# The scaler


def test_50_average_reaches_three_replicas_and_stays_there_by_value() -> None:
    """120 requests run: one replica has 2.4 times its target, three have 0.8 times theirs."""
    found = run(fleet(engine(0.02), ARTICLE), busy(10, 3600), slo=SLO)
    assert [(up.before, up.after) for up in found.scale_ups] == [(1, 3)]
    assert all(down.time > 3600 for down in found.scale_downs)
    settled = [row for row in found.timeline if 400 < row.time < 3600]
    assert {row.ready for row in settled} == {3}
    assert sum(row.metric or 0 for row in settled) / len(settled) == pytest.approx(40, rel=0.05)


def test_50_average_flaps_by_average_value() -> None:
    """Three replicas with 40 each need one replica, by that formula: then it has 120."""
    scaler = dataclasses.replace(ARTICLE, target_type="AverageValue")
    found = run(fleet(engine(0.02), scaler), busy(10, 3600), slo=SLO)
    flaps = [down for down in found.scale_downs if down.time < 3600]
    assert len(flaps) >= 3
    assert all(down.hurt and down.up_again is not None for down in flaps)


def test_a_scale_up_is_split_into_what_it_waited_for() -> None:
    found = run(fleet(engine(0.02), ARTICLE), busy(10, 900))
    (up,) = found.scale_ups
    assert up.decided % 15 == 0
    assert up.decided - 15 < up.crossed < up.decided
    names = ["decision", "quota", "image pull", "download", "load", "readiness probe"]
    assert [name for name, _ in up.parts] == names
    assert [seconds for _, seconds in up.parts[1:]] == [0, 60, 80, 20, 0]
    assert up.ready == up.decided + 160
    assert up.seconds == pytest.approx(sum(seconds for _, seconds in up.parts))
    before, after = (
        next(row for row in found.timeline if row.time >= up.ready - 15),
        next(row for row in found.timeline if row.time >= up.ready),
    )
    assert (before.ready, before.starting, after.ready, after.starting) == (1, 2, 3, 0)


def test_a_scale_up_whose_first_replica_goes_again_is_served_by_its_second() -> None:
    """Three are asked for at once and then two, while both still start: the one that is left serves."""
    scaler = ScalerSettings(1, 3, 50, scale_down_stabilization_seconds=0)
    many = [Request(10.0, 1, 3_000) for _ in range(40)] + [Request(10.0, 1, 10**5) for _ in range(80)]
    found = run(fleet(engine(0.02), scaler), Listed(tuple(many)))
    (up,) = found.scale_ups
    assert (found.scale_downs[0].before, found.scale_downs[0].after) == (3, 2)
    assert found.scale_downs[0].time < 15 + 60 + 100
    assert max(row.ready for row in found.timeline) == 2
    assert up.ready == 175
    assert up.seconds == pytest.approx(sum(seconds for _, seconds in up.parts))


def test_a_request_that_is_longer_than_the_model_takes_is_refused() -> None:
    """vLLM answers 400; the others are served."""
    found = run(fleet(engine(0.02), longest=100), Listed((Request(0.0, 90, 11), Request(0.0, 90, 10))))
    assert (found.requests, found.completed, found.refused, found.too_long) == (2, 1, 1, 1)


def test_the_crossing_is_found_between_two_polls() -> None:
    """Requests come one second apart and stay: 55 of them, 10 % more than 50, run from the 54th second on."""
    steady = Listed(tuple(Request(float(at), 1, 10_000) for at in range(70)))
    (up,) = run(fleet(engine(0.02), ScalerSettings(1, 2, 50)), steady).scale_ups
    assert up.crossed == pytest.approx(54, abs=1.01)
    assert up.decided == 60


def test_replicas_that_wait_for_quota_come_when_others_have_gone() -> None:
    """The quota allows two; one that is in its grace period still counts."""
    found = run(fleet(engine(0.02), ARTICLE, gpus_per_replica=2, gpu_quota=5), busy(10, 900))
    assert [(up.before, up.after) for up in found.scale_ups] == [(1, 3)]
    assert max(row.ready + row.starting + row.leaving for row in found.timeline) == 2
    assert found.gpu_minutes == 2 * found.billed_minutes


def test_an_app_without_replicas_refuses_until_it_has_woken() -> None:
    """As the gateway does; requests that found nobody wake it at the next poll."""
    scaler = ScalerSettings(0, 2, 50, cooldown_seconds=300)
    calls = Listed(tuple(Request(at, 1, 10) for at in (7.0, 20.0, 190.0, 191.0)))
    found = run(fleet(engine(0.02), scaler), calls, after=1000)
    assert (found.refused, found.completed) == (2, 2)
    (up,) = found.scale_ups
    assert (up.before, up.after, up.crossed, up.decided, up.ready) == (0, 1, 7.0, 15.0, 175.0)
    (down,) = found.scale_downs
    assert (down.before, down.after) == (1, 0)
    assert found.timeline[-1].ready == 0


def test_what_is_not_done_after_the_grace_period_fails() -> None:
    """Load ends, but each replica has an answer of a quarter of an hour, which only one can finish."""
    scaler = ScalerSettings(1, 3, 1, scale_down_stabilization_seconds=60)
    start = tuple(Request(at / 10, 1, 600) for at in range(60))
    late = tuple(Request(300 + at / 10, 1, 45_000) for at in range(3))
    turns = fleet(engine(0.02), scaler, balancing="round-robin", metric="vllm:num_requests_waiting")
    assert run(turns, Listed((*start, *late))).killed == 0  # nothing ever waits, so nothing is scaled
    found = run(dataclasses.replace(turns, metric="vllm:num_requests_running"), Listed((*start, *late)))
    assert found.requests == found.completed + found.killed
    assert found.killed == sum(down.killed for down in found.scale_downs)


# Bounds, quota, conservation


@st.composite
def fleets(draw: st.DrawFn) -> Fleet:
    least = draw(st.integers(0, 3))
    scaler = ScalerSettings(
        least,
        draw(st.integers(max(1, least), 6)),
        draw(st.sampled_from([0.3, 1, 4, 20])),
        draw(st.sampled_from(["AVERAGE", "SUM", "MAX", "MIN"])),
        draw(st.sampled_from(["Value", "AverageValue"])),
        draw(st.sampled_from([0, 30])),
        draw(st.sampled_from([0, 60, 300])),
        60,
    )
    return fleet(
        engine(draw(st.sampled_from([0.01, 0.1])), draw(st.sampled_from([1, 4, 64]))),
        scaler,
        metric=draw(st.sampled_from(sorted(METRICS))),
        platform=PlatformTimes(
            image_pull=draw(st.sampled_from([0, 7, 60])),
            polling_interval=draw(st.sampled_from([5, 15])),
            grace=draw(st.sampled_from([0, 3, 30])),
        ),
        readiness=Probe(path="/", port=8000, initial_delay_seconds=draw(st.sampled_from([0, 30]))),
        gpu_quota=draw(st.integers(max(1, least), 5)),
        balancing=draw(st.sampled_from(["random", "round-robin"])),
    )


TRAFFIC = st.one_of(
    st.builds(
        Drawn,
        st.sampled_from([0.05, 1, 5]),
        st.just(400),
        st.sampled_from([lambda chance: 1, lambda chance: chance.randint(1, 400)]),
    ),
    st.builds(ClosedLoop, st.just("article"), st.sampled_from([1, 20]), st.sampled_from([1, 5])),
)


@settings(max_examples=60, deadline=None)
@given(fleets(), TRAFFIC, st.integers(0, 100))
def test_whatever_the_settings_bounds_quota_and_requests_are_kept(
    rehearsed: Fleet, traffic: Traffic, seed: int
) -> None:
    found = run(rehearsed, traffic, seed=seed, slo=SLO, after=400)
    scaler = rehearsed.scaler
    assert found.requests == found.completed + found.refused + found.killed
    assert (found.ttft.count >= found.completed) and (found.e2e.count == found.completed)
    assert found.itl.count >= found.output_tokens - found.completed
    for row in found.timeline:
        assert scaler.replicas_min <= row.asked <= scaler.replicas_max
        assert 0 <= row.ready + row.starting + row.leaving <= rehearsed.gpu_quota
        assert row.ready + row.starting == min(row.asked, row.ready + row.starting)
    assert sum(row.requests for row in found.timeline) <= found.requests
    assert [row.time for row in found.timeline] == sorted({row.time for row in found.timeline})
    for up in found.scale_ups:
        assert all(seconds >= 0 for _, seconds in up.parts)
        if up.seconds is not None:
            assert up.seconds == pytest.approx(sum(seconds for _, seconds in up.parts))
    for lifetime in found.lifetimes:
        assert 0 <= lifetime.allocated <= lifetime.released <= found.seconds
    assert len(found.lifetimes) >= scaler.replicas_min
    assert plain(found) == plain(run(rehearsed, traffic, seed=seed, slo=SLO, after=400))


def test_other_seeds_are_other_days() -> None:
    traffic = Drawn(5, 600, lambda chance: chance.randint(1, 400))
    assert (
        run(fleet(engine(0.02)), traffic, seed=1).requests
        != run(fleet(engine(0.02)), traffic, seed=2).requests
    )


def test_a_closed_loop_has_its_workers_requests_under_way() -> None:
    """All places are free, so 40 workers keep 40 requests running on two replicas until they are through."""
    found = run(fleet(engine(0.02), fixed(2)), ClosedLoop("article", 40, 10))
    assert (found.requests, found.completed) == (400, 400)
    assert found.timeline[2].running == 40


# The bill


def run_for(duration: float, scaler: ScalerSettings | None = None, **changes: Any) -> Outcome:
    quiet = Listed((Request(0.0, 1, 1),), duration)
    return run(fleet(engine(0.02), scaler or fixed(2), **changes), quiet, after=0)


@pytest.mark.parametrize(
    ("seconds", "minutes"), [(1, 1), (59, 1), (60, 1), (60.5, 2), (3600, 60), (3601, 61)]
)
def test_each_started_minute_of_each_replica_is_billed(seconds: float, minutes: int) -> None:
    assert run_for(seconds).billed_minutes == 2 * minutes
    assert run_for(seconds, gpus_per_replica=4).gpu_minutes == 8 * minutes


def test_a_replica_is_billed_from_its_allocation_to_the_end_of_its_grace_period() -> None:
    """80 answers of 6 minutes: asked for at 15 s, let go when the window of 5 minutes has passed."""
    rush = Listed(tuple(Request(0.0, 1, 18_000) for _ in range(80)), 2000)
    found = run(fleet(engine(0.02), ScalerSettings(1, 2, 50)), rush, after=0)
    (down,) = found.scale_downs
    assert down.time == 660  # the first poll more than 300 s after the last one that saw load, at 345 s
    first, second = found.lifetimes
    assert (first.allocated, first.released) == (0, 2000)
    assert (second.allocated, second.released) == (15, 690)
    assert found.billed_minutes == 34 + 12  # 33:20 and 11:15
    assert found.replica_seconds == 2000 + 675


def test_a_replica_that_still_pulls_its_image_goes_at_once() -> None:
    """At the second poll the load has gone, and no window holds the replica."""
    scaler = ScalerSettings(1, 2, 50, scale_down_stabilization_seconds=0)
    rush = Listed(tuple(Request(10.0, 1, 500) for _ in range(80)), 120)
    found = run(fleet(engine(0.02), scaler), rush, after=0)
    assert [(one.allocated, one.released) for one in found.lifetimes] == [(0, 120), (15, 30)]
    assert found.scale_ups[0].ready is None
    assert found.billed_minutes == 2 + 1


# Attainment


def test_attainment_counts_what_users_got() -> None:
    """One place: of three requests at once the first is in time, the second late, the third has slow gaps."""
    slo = Objectives(Latency(1.0, 0.95), Latency(0.2, 0.9), 0.99, 0.995)
    three = Listed((Request(0.0, 1, 5), Request(0.0, 1, 15), Request(0.0, 1, 1)))
    found = run(fleet(engine(0.1, slots=1)), three, slo=slo)
    attained = found.attainment
    assert attained is not None
    assert attained.time_to_first_token == pytest.approx(2 / 3)
    assert attained.inter_token_latency == attained.success == 1
    assert attained.requests == pytest.approx(2 / 3)
    assert attained.missed(slo) == ["time_to_first_token"]


def test_a_refused_request_is_outside_the_objectives() -> None:
    found = run(fleet(engine(0.1), ScalerSettings(0, 1, 50)), Listed((Request(1.0, 1, 5),)), slo=SLO)
    assert found.attainment is not None
    assert (found.attainment.success, found.attainment.requests) == (0, 0)


# Mistakes


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (
            lambda: fleet(engine(0.1), metric="vllm:nothing"),
            "scalingMetric 'vllm:nothing': only vllm:num_requests",
        ),
        (
            lambda: fleet(engine(0.1), fixed(3), gpus_per_replica=2, gpu_quota=4),
            "gpuQuota 4: minReplicas 3 needs 6",
        ),
        (
            lambda: fleet(engine(0.1), liveness=Probe(port=8000, initial_delay_seconds=60)),
            r"kills each container before it listens, 100 s.*initialDelaySeconds \(60\)",
        ),
    ],
)
def test_an_app_that_could_not_run_is_refused(make: Callable[[], Fleet], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        make()


def test_a_patient_liveness_probe_is_fine() -> None:
    assert fleet(engine(0.1), liveness=Probe(port=8000, initial_delay_seconds=70)).readiness == PROBE


def test_the_polling_interval_is_the_platforms() -> None:
    found = run(fleet(engine(0.1), platform=polled(7.0)), Listed((Request(1.0, 1, 5),), 30), after=0)
    assert [row.time for row in found.timeline] == [7, 14, 21, 28]


def test_what_is_kept_does_not_grow_with_the_requests() -> None:
    """Ten times as many requests in the same time need no more memory: 50 bytes for each would be 540 kB."""

    def peak(rate: float) -> int:
        steady = Drawn(rate, 300, lambda chance: chance.randint(1, 20))
        tracemalloc.start()
        found = run(fleet(engine(0.001)), steady, slo=SLO)
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert found.completed > rate * 250
        return most

    few, many = peak(4), peak(40)
    assert many - few < 200_000

"""The answer of a rehearsal: its numbers are those of the outcome, in words that say what happened."""

from __future__ import annotations

import dataclasses

import pytest

from autoscaling.distribution import Distribution
from autoscaling.outcome import Attainment, Lifetime, Outcome, Row, ScaleDown, ScaleUp
from autoscaling.policy import ScalerSettings
from autoscaling.rehearsal import answer, assumptions, rehearse, span
from autoscaling.traffic import parse
from tests.autoscaling.rehearsals import ALONE, stack


def spread(*values: float) -> Distribution:
    found = Distribution()
    for value in values:
        found.add(value)
    return found


def row(time: float, ready: int, asked: int, *, waiting: int = 0, metric: float | None = 1.0) -> Row:
    return Row(
        time=time,
        ready=ready,
        starting=asked - ready,
        leaving=0,
        asked=asked,
        running=4 * ready,
        waiting=waiting,
        kv_usage=0.5,
        metric=metric,
        requests=10,
        failed=0,
        first_tokens=10,
        late=1,
        ttft_p95=0.5,
    )


OUTCOME = Outcome(
    seconds=90.0,
    requests=99,
    completed=97,
    refused=0,
    killed=2,
    prompt_tokens=5000,
    output_tokens=200_000,
    preemptions=7,
    ttft=spread(*[0.1] * 94, *[2.0] * 6),
    itl=spread(0.05),
    tpot=spread(0.05),
    e2e=spread(3.0),
    attainment=Attainment(0.94, 1.0, 0.97, 0.91),
    timeline=[
        row(15, 1, 1),
        row(30, 1, 3, waiting=6, metric=12.0),
        row(45, 3, 3, waiting=2),
        row(60, 3, 3),
        row(75, 2, 2),
    ],
    scale_ups=[ScaleUp(1, 3, 20.0, 30.0, 45.0, (("decision", 10.0), ("quota", 0.0), ("download", 15.0)))],
    scale_downs=[ScaleDown(75.0, 3, 2, 2, None, False)],
    lifetimes=[Lifetime(0.0, 90.0), Lifetime(30.0, 90.0), Lifetime(30.0, 75.5)],
    gpus_per_replica=2,
)
PLAN = stack()
SCALER = PLAN.fleet.scaler


def test_the_bill_counts_started_minutes_of_each_replica() -> None:
    bill = answer(OUTCOME, PLAN, SCALER).cost
    # 90 s are two started minutes, 60 s one, 45.5 s one.
    assert bill.replica_minutes == 4
    assert bill.gpu_minutes == 8
    # A replica costs 6 € per hour here.
    assert bill.eur == pytest.approx(0.40)
    assert bill.eur_per_million_output_tokens == pytest.approx(2.00)


def test_an_unknown_price_is_never_nothing() -> None:
    bill = answer(OUTCOME, dataclasses.replace(PLAN, eur_per_replica_hour=None), SCALER).cost
    assert (bill.replica_minutes, bill.eur, bill.eur_per_million_output_tokens) == (4, None, None)


def test_without_output_there_is_no_price_of_it() -> None:
    silent = dataclasses.replace(OUTCOME, output_tokens=0)
    assert answer(silent, PLAN, SCALER).cost.eur_per_million_output_tokens is None


def test_objectives_that_are_not_met_are_named() -> None:
    found = answer(OUTCOME, PLAN, SCALER)
    assert found.missed == ["time_to_first_token", "success"]
    assert found.attainment["requests"] == 0.91
    assert found.failed == 2


def test_latencies_are_quantiles_of_all_requests() -> None:
    ttft = answer(OUTCOME, PLAN, SCALER).ttft
    assert ttft.p50 == pytest.approx(0.1, rel=0.01)
    assert ttft.p95 == pytest.approx(2.0, rel=0.01)
    assert ttft.max == 2.0
    assert ttft.mean == pytest.approx(0.214)


def test_the_queue_is_what_the_scaler_saw() -> None:
    queue = answer(OUTCOME, PLAN, SCALER).queue
    assert (queue.mean, queue.max, queue.share_of_time) == (8 / 5, 6, 2 / 5)


def test_replicas_over_time() -> None:
    replicas = answer(OUTCOME, PLAN, SCALER).replicas
    assert (replicas.max_asked, replicas.max_ready) == (3, 3)
    assert replicas.reaches_max
    assert replicas.seconds_until_max == 45
    assert replicas.seconds_at_max == 30
    assert replicas.mean == pytest.approx((90 + 60 + 45.5) / 90)


def test_a_scale_up_is_split_into_its_parts() -> None:
    up = answer(OUTCOME, PLAN, SCALER).scale_ups[0]
    assert up["seconds"] == 25
    assert up["parts"] == {"decision": 10.0, "quota": 0.0, "download": 15.0}
    assert sum(up["parts"].values()) == up["seconds"]


def test_a_scale_down_that_killed_requests_hurt() -> None:
    down = answer(OUTCOME, PLAN, SCALER).scale_downs[0]
    assert (down["time"], down["before"], down["after"], down["killed"]) == (75.0, 3, 2, 2)
    assert down["hurt"]


def test_the_verdict_when_all_replicas_serve() -> None:
    assert answer(OUTCOME, PLAN, SCALER).verdict == (
        "reaches 3 replicas, 45 s after the traffic began, and has them for 30 s; 1 of 1 scale-downs hurt"
    )


def test_the_verdict_when_they_are_asked_for_in_vain() -> None:
    outcome = dataclasses.replace(OUTCOME, timeline=[row(15, 1, 3), row(30, 2, 3)])
    assert answer(outcome, PLAN, SCALER).verdict == (
        "asks for 3 replicas after 15 s, but never has more than 2 ready at once: "
        "the scaler took some back before they were ready, or the run was over"
    )


def test_the_verdict_when_the_quota_is_too_small() -> None:
    outcome = dataclasses.replace(OUTCOME, timeline=[row(15, 2, 3)])
    plan = dataclasses.replace(PLAN, fleet=dataclasses.replace(PLAN.fleet, gpu_quota=2))
    assert answer(outcome, plan, SCALER).verdict.endswith("the quota has room for 2")


def test_the_verdict_when_they_are_never_asked_for() -> None:
    outcome = dataclasses.replace(OUTCOME, timeline=[row(15, 1, 1), row(30, 2, 2, metric=5.5)])
    assert answer(outcome, PLAN, SCALER).verdict == (
        "never asks for more than 2 of 3 replicas: vllm:num_requests_running (AVERAGE) rises to 5.5 at most, "
        "with a target of 4"
    )


def test_requests_that_found_nobody_are_not_the_metric() -> None:
    woken = [row(15, 0, 1, metric=47), row(30, 1, 1, metric=2)]
    verdict = answer(dataclasses.replace(OUTCOME, timeline=woken), PLAN, SCALER).verdict
    assert "rises to 2 at most" in verdict


def test_requests_that_are_too_long_are_told() -> None:
    plan = dataclasses.replace(PLAN, fleet=dataclasses.replace(PLAN.fleet, longest=2048))
    found = answer(dataclasses.replace(OUTCOME, refused=7, too_long=5), plan, SCALER)
    assert (found.refused, found.too_long) == (7, 5)
    assert "; 5 requests are refused, since they are longer than the 2,048 tokens" in found.verdict


def test_requests_that_found_no_replica_are_told() -> None:
    verdict = answer(dataclasses.replace(OUTCOME, refused=7), PLAN, SCALER).verdict
    assert verdict.endswith("; 7 of 99 requests are refused, since no replica is ready")


def test_the_verdict_on_a_fixed_number() -> None:
    scaler = ScalerSettings(2, 2, 4)
    found = answer(dataclasses.replace(OUTCOME, timeline=[row(15, 2, 2)]), PLAN, scaler)
    assert found.verdict == "fixed at 2 replicas: nothing scales"
    assert found.replicas.reaches_max
    assert found.replicas.seconds_until_max == 0


def test_the_timeline_has_a_list_for_each_column() -> None:
    timeline = answer(OUTCOME, PLAN, SCALER).timeline
    assert timeline["time"] == [15, 30, 45, 60, 75]
    assert timeline["asked"] == [1, 3, 3, 3, 2]
    assert {len(column) for column in timeline.values()} == {5}


SPANS = {
    0: "0 s",
    59.4: "59 s",
    59.6: "1 min",
    60: "1 min",
    75: "1 min 15 s",
    3600: "1 h 0 min",
    12000: "3 h 20 min",
}


@pytest.mark.parametrize("seconds", SPANS)
def test_lengths_of_time_in_words(seconds: float) -> None:
    assert span(seconds) == SPANS[seconds]


def test_both_target_modes_are_rehearsed_under_the_same_traffic() -> None:
    # Eight sequences: an average of 8 asks for 2 replicas at a target of 4; two replicas with 4 each are
    # what Value wants, and what AverageValue takes for one too many.
    load = parse("article:workers=8,requests=20")
    told: list[tuple[str, int, int]] = []
    plan = stack(scale_down_stabilization_seconds=0)
    outcomes = rehearse(plan, load, 1, ALONE, lambda *news: told.append(news))
    assert list(outcomes) == ["Value", "AverageValue"]
    assert told == [("both target modes", done, 2) for done in range(3)]
    assert len({outcome.requests for outcome in outcomes.values()}) == 1
    assert outcomes["Value"].prompt_tokens == outcomes["AverageValue"].prompt_tokens
    hurt = {mode: sum(down.hurt for down in outcome.scale_downs) for mode, outcome in outcomes.items()}
    assert hurt["AverageValue"] > hurt["Value"]


def test_assumptions_name_what_is_unknown() -> None:
    listed = {one.name: one.value for one in assumptions(stack(), parse("article"))}
    assert listed["polling interval"] == "15 s"
    assert listed["image pull"] == "5 s"
    assert listed["cold start"] == "download 20 s, warm-up 10 s"
    assert listed["balancing"] == "random"
    assert listed["target mode"] == "Value and AverageValue"
    assert "answers" in listed
    plain = {one.name for one in assumptions(stack(), parse("poisson:rate=1,for=1m"))}
    assert not plain & {"answers", "waking", "size of the model", "vllmArguments"}
    guessed = assumptions(
        dataclasses.replace(stack(replicas_min=0), known_model=False), parse("poisson:rate=1,for=1m")
    )
    named = {one.name: one.value for one in guessed}
    assert named["size of the model"] == "2 GB of weights, before quantization"
    assert "waking" in named

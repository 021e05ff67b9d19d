"""Ratios are exact for several replicas, alerts fire at the speeds that are cited, nonsense is refused."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from dashboards import objectives
from dashboards.objectives import LOWEST, TIERS
from dashboards.rules import Alert, Recording
from dashboards.target import Latency, Objectives
from tests.dashboards.scenes import (
    OF_TARGET,
    TARGET,
    Miss,
    Question,
    Scene,
    Values,
    now_and_then,
    other,
    parts,
    play,
    rising,
    series,
)

HOUR = 60
"""Steps of a minute."""
DAY = 720
"""Steps of two minutes."""


def of_replica(name: str, replica: str, **labels: str) -> str:
    return series(f"replica:{name}", replica=replica, **labels)


def latencies(
    histogram: str, bound: str, good: Sequence[float], bad: Sequence[float]
) -> Mapping[str, Values]:
    """Events per step within the bound and beyond it, of two replicas of which the first has half of each."""
    found: dict[str, Values] = {}
    for replica in ("1795.1", "1795.2"):
        bucket = of_replica(f"{histogram}_bucket", replica, engine="0", le=bound)
        found[bucket] = rising(event / 2 for event in good)
        count = of_replica(f"{histogram}_count", replica, engine="0")
        found[count] = rising((one + another) / 2 for one, another in zip(good, bad, strict=True))
        found[of_replica(f"{histogram}_bucket", replica, engine="0", le="+Inf")] = found[count]
    return found


def first_tokens(good: Sequence[float], bad: Sequence[float]) -> Mapping[str, Values]:
    return latencies("vllm:time_to_first_token_seconds", "1.0", good, bad)


def gaps(good: Sequence[float], bad: Sequence[float]) -> Mapping[str, Values]:
    return latencies("vllm:inter_token_latency_seconds", "0.1", good, bad)


def finished(reason: str, steps: Sequence[float]) -> Mapping[str, Values]:
    name = of_replica("vllm:request_success_total", "1795.1", engine="0", finished_reason=reason)
    return {name: rising(steps)}


def answered(handler: str, method: str, status: str, steps: Sequence[float]) -> Mapping[str, Values]:
    labels = {"handler": handler, "method": method, "status": status}
    return {of_replica("http_requests_total", "1795.1", **labels): rising(steps)}


def scrapes(*samplers: Values) -> Mapping[str, Values]:
    return {series("up", sampler=str(number)): values for number, values in enumerate(samplers)}


COMPLETIONS = "/v1/chat/completions"
READY = series("fleet:vllm:replicas_ready")

FAILING = {
    # 4 of 94 per minute, where 3.5 % are enough.
    **finished("stop", [60] * 8 * HOUR),
    **finished("length", [30] * 8 * HOUR),
    **finished("error", [2] * 8 * HOUR),
    **finished("abort", [50] * 8 * HOUR),
    **answered(COMPLETIONS, "POST", "2xx", [92] * 8 * HOUR),
    **answered(COMPLETIONS, "POST", "5xx", [2] * 8 * HOUR),
}

SCENES = (
    Scene(
        "VllmTimeToFirstTokenBurnsFast",
        # 8 % of the budget in an hour, after a good night: too little for the six hours.
        first_tokens([10] * 12 * HOUR + [0] * HOUR, [0] * 12 * HOUR + [10] * HOUR),
        before="12h40m",
        at="12h50m",
        summary="85.42% of first tokens came later than 1 s",
        labels={"slo": "time_to_first_token"},
        misses={
            "two of three, and not a bit more": Miss(
                first_tokens([10] * 12 * HOUR + [3.3] * HOUR, [0] * 12 * HOUR + [6.7] * HOUR), at=("13h",)
            ),
            "it is over": Miss(
                first_tokens([10] * 12 * HOUR + [0] * 50 + [10] * 10, [0] * 12 * HOUR + [10] * 50 + [0] * 10),
                at=("12h55m", "13h"),
            ),
            "hardly any request": Miss(
                first_tokens([10] * 12 * HOUR + [0] * HOUR, [0] * 12 * HOUR + [0.2] * 45 + [0] * 15)
            ),
        },
        later="13h",
        step="1m",
        evaluated="5m",
    ),
    Scene(
        "VllmTimeToFirstTokenBurnsFast",
        # 12.5 % of the budget in six hours: too little for one hour.
        first_tokens([10] * 12 * HOUR + [8] * 6 * HOUR, [0] * 12 * HOUR + [2] * 6 * HOUR),
        before="17h10m",
        at="17h25m",
        summary="18.13% of first tokens came later than 1 s",
        labels={"slo": "time_to_first_token"},
        misses={
            "17 % of them": Miss(
                first_tokens([10] * 12 * HOUR + [8.3] * 6 * HOUR, [0] * 12 * HOUR + [1.7] * 6 * HOUR),
                at=("18h",),
            ),
            "it is over": Miss(
                first_tokens(
                    [10] * 12 * HOUR + [8] * 5 * HOUR + [8] * 25 + [10] * 35,
                    [0] * 12 * HOUR + [2] * 5 * HOUR + [2] * 25 + [0] * 35,
                ),
                at=("17h45m", "18h"),
            ),
        },
        later="18h",
        step="1m",
        evaluated="5m",
        name="over six hours",
    ),
    Scene(
        "VllmTimeToFirstTokenBurnsSlowly",
        # 20 % of the budget in a day, after three good ones.
        first_tokens([20] * 3 * DAY + [18.4] * DAY, [0] * 3 * DAY + [1.6] * DAY),
        before="92h",
        at="94h",
        summary="7.375% of first tokens came later than 1 s",
        labels={"slo": "time_to_first_token"},
        misses={
            "6.9 % of them": Miss(
                first_tokens([20] * 3 * DAY + [18.62] * DAY, [0] * 3 * DAY + [1.38] * DAY), at=("96h",)
            ),
            "it is over": Miss(
                first_tokens(
                    [20] * 3 * DAY + [18.4] * 660 + [20] * 60, [0] * 3 * DAY + [1.6] * 660 + [0] * 60
                ),
                at=("96h",),
            ),
        },
        later="96h",
        step="2m",
        evaluated="15m",
    ),
    Scene(
        "VllmTimeToFirstTokenBurnsSlowly",
        # 42 % of the budget in three days: too little for one day.
        first_tokens([20] * 3 * DAY + [18.96] * 3 * DAY, [0] * 3 * DAY + [1.04] * 3 * DAY),
        before="138h",
        at="142h",
        summary="5.065% of first tokens came later than 1 s",
        labels={"slo": "time_to_first_token"},
        misses={
            "4.8 % of them": Miss(
                first_tokens([20] * 3 * DAY + [19.04] * 3 * DAY, [0] * 3 * DAY + [0.96] * 3 * DAY),
                at=("144h",),
            )
        },
        later="144h",
        step="2m",
        evaluated="15m",
        name="over three days",
    ),
    Scene(
        "VllmInterTokenLatencyBurnsFast",
        gaps([800] * 8 * HOUR, [200] * 8 * HOUR),
        before="6m",
        at="12m",
        summary="20% of gaps between tokens were longer than 0.1 s",
        labels={"slo": "inter_token_latency"},
        misses={
            "17 % of them": Miss(gaps([830] * 8 * HOUR, [170] * 8 * HOUR)),
            "one long answer": Miss(gaps([0] * 8 * HOUR, [0, 400, 500, *[0] * 477])),
        },
        later="7h",
        step="1m",
        evaluated="5m",
    ),
    Scene(
        "VllmInterTokenLatencyBurnsSlowly",
        gaps([945] * 8 * HOUR, [55] * 8 * HOUR),
        before="15m",
        at="40m",
        summary="5.5% of gaps between tokens were longer than 0.1 s",
        labels={"slo": "inter_token_latency"},
        misses={
            "4.8 % of them": Miss(gaps([952] * 8 * HOUR, [48] * 8 * HOUR)),
            "one long answer": Miss(gaps([0] * 8 * HOUR, [0, 400, 500, *[0] * 477])),
        },
        later="7h",
        step="1m",
        evaluated="5m",
    ),
    Scene(
        "VllmSuccessBurnsFast",
        FAILING,
        before="3m",
        at="15m",
        summary="4.255% of requests failed",
        labels={"slo": "success"},
        misses={
            "errors are half of them": Miss(answered(COMPLETIONS, "POST", "5xx", [0] * 8 * HOUR)),
            "answers of 5xx are half of them": Miss(finished("error", [0] * 8 * HOUR)),
            "requests are refused": Miss(
                {
                    **answered(COMPLETIONS, "POST", "5xx", [0] * 8 * HOUR),
                    **answered(COMPLETIONS, "POST", "4xx", [50] * 8 * HOUR),
                }
            ),
            "probes fail": Miss(
                {
                    **answered(COMPLETIONS, "POST", "5xx", [0] * 8 * HOUR),
                    **answered("/v1/models", "GET", "5xx", [50] * 8 * HOUR),
                    **answered("/tokenize", "POST", "5xx", [50] * 8 * HOUR),
                }
            ),
            "hardly any request": Miss(
                {
                    **dict.fromkeys(FAILING),
                    **finished("stop", [0] * 8 * HOUR),
                    **finished("error", [0, *[1] * 9, *[0] * 470]),
                }
            ),
        },
        later="7h",
        step="1m",
        evaluated="5m",
    ),
    Scene(
        "VllmSuccessBurnsSlowly",
        {
            **finished("stop", [98] * 8 * HOUR),
            **finished("error", [2] * 8 * HOUR),
            **finished("abort", [20] * 8 * HOUR),
        },
        before="15m",
        at="40m",
        summary="2% of requests failed",
        labels={"slo": "success"},
        misses={"one of 105": Miss({**finished("stop", [208] * 8 * HOUR)})},
        later="7h",
        step="1m",
        evaluated="5m",
    ),
    Scene(
        "VllmAvailabilityBurnsFast",
        # 1 of 4 samplers meets a refusal each tenth time: 2.5 %, where 1.75 % are enough.
        scrapes(*[[1] * 8 * HOUR] * 3, now_and_then(1, 0, 10, 8 * HOUR)),
        before="30m",
        at="6h30m",
        summary="2.5% of scrapes of the public address were not answered",
        labels={"slo": "availability"},
        misses={
            "a few": Miss(scrapes(*[[1] * 8 * HOUR] * 3, now_and_then(1, 0, 16, 8 * HOUR))),
            "nobody scrapes": Miss(dict.fromkeys(scrapes([], [], [], []))),
        },
        later="7h",
        step="1m",
        evaluated="5m",
    ),
    Scene(
        "VllmAvailabilityBurnsFast",
        {**scrapes(*[[1] * (6 * HOUR + 1) + [0] * HOUR + [1] * HOUR] * 4), READY: [1] * 8 * HOUR},
        before="6h",
        at="6h15m",
        summary="25% of scrapes of the public address were not answered",
        labels={"slo": "availability"},
        misses={
            "scaled to zero and back": Miss(
                # The platform is asked now and then, so what it says may come late.
                {READY: [1] * (6 * HOUR + 2) + [0] * (HOUR - 2) + [1] * (HOUR + 1)},
                at=("6h5m", "6h15m", "6h30m", "6h55m", "7h", "7h5m", "7h15m"),
            ),
        },
        later="7h",
        step="1m",
        evaluated="5m",
        name="of an endpoint that may have no replica",
        target=replace(TARGET, min_replicas=0),
    ),
    Scene(
        "VllmAvailabilityBurnsSlowly",
        # 1.25 %
        scrapes(*[[1] * 32 * HOUR] * 3, now_and_then(1, 0, 20, 32 * HOUR)),
        before="1h",
        at="30h",
        summary="1.25% of scrapes of the public address were not answered",
        labels={"slo": "availability"},
        misses={"a few": Miss(scrapes(*[[1] * 32 * HOUR] * 3, now_and_then(1, 0, 56, 32 * HOUR)))},
        later="31h",
        step="1m",
        evaluated="5m",
    ),
)


def lowest(
    alert: str, slo: str, summary: str, bad: Mapping[str, Values], nearly: Mapping[str, Values]
) -> Scene:
    """Everything bad for an hour, after a good night, at the lowest objective that is allowed."""
    latency = Latency(1.0, LOWEST)
    return Scene(
        alert,
        bad,
        before="13h",
        at="13h10m",
        summary=f"100% of {summary}",
        labels={"slo": slo},
        misses={"99.9 % of them": Miss(nearly)},
        later="13h25m",
        step="1m",
        evaluated="5m",
        name="at the lowest objective",
        target=replace(TARGET, objectives=Objectives(latency, replace(latency, seconds=0.1), LOWEST, LOWEST)),
    )


NIGHT, MORNING = 12 * HOUR, HOUR + 30

LOWEST_SCENES = (
    lowest(
        "VllmTimeToFirstTokenBurnsFast",
        "time_to_first_token",
        "first tokens came later than 1 s",
        first_tokens([10] * NIGHT + [0] * MORNING, [0] * NIGHT + [10] * MORNING),
        first_tokens([10] * NIGHT + [0.01] * MORNING, [0] * NIGHT + [9.99] * MORNING),
    ),
    lowest(
        "VllmInterTokenLatencyBurnsFast",
        "inter_token_latency",
        "gaps between tokens were longer than 0.1 s",
        gaps([1000] * NIGHT + [0] * MORNING, [0] * NIGHT + [1000] * MORNING),
        gaps([1000] * NIGHT + [1] * MORNING, [0] * NIGHT + [999] * MORNING),
    ),
    lowest(
        "VllmSuccessBurnsFast",
        "success",
        "requests failed",
        {
            **finished("stop", [10] * NIGHT + [0] * MORNING),
            **finished("error", [0] * NIGHT + [10] * MORNING),
        },
        {
            **finished("stop", [10] * NIGHT + [0.01] * MORNING),
            **finished("error", [0] * NIGHT + [9.99] * MORNING),
        },
    ),
    lowest(
        "VllmAvailabilityBurnsFast",
        "availability",
        "scrapes of the public address were not answered",
        scrapes([1] * NIGHT + [0] * MORNING),
        scrapes([1.0] * NIGHT + now_and_then(0, 1, 50, MORNING)),
    ),
)

TIMES = {"slo": "time_to_first_token"}
STEADY = first_tokens([9] * 8 * HOUR, [1] * 8 * HOUR)
QUESTIONS = (
    Question(
        "the ratio counts both replicas",
        STEADY,
        'round(fleet:slo_errors:ratio5m{slo="time_to_first_token"}, 1e-9)',
        "10m",
        {other("", **OF_TARGET, **TIMES): 0.1},
    ),
    Question(
        "windows are tiled without gap or overlap",
        STEADY,
        'sum_over_time(fleet:slo_total:increase5m{slo="time_to_first_token"}[1h:5m])',
        "3h",
        {other("", **OF_TARGET, **TIMES): 600},
    ),
    Question(
        "a ratio over a window weighs by events",
        # An hour with 1 of 10, one with 1 of 100: 2 of 110.
        first_tokens([9] * 50 + [0] * 20 + [99] * 50, [1] * 50 + [0] * 20 + [1] * 50),
        'round(fleet:slo_errors:ratio2h{slo="time_to_first_token"}, 0.001)',
        "2h",
        {other("", **OF_TARGET, **TIMES): 0.018},
    ),
    Question(
        "no events, no ratio",
        first_tokens([0] * HOUR, [0] * HOUR),
        '{__name__=~"fleet:slo_errors:.+",slo="time_to_first_token"}',
        "30m",
        {},
    ),
    Question(
        "the budget that is left",
        # 10 % are bad, 5 % may.
        STEADY,
        'round(1000 * fleet:slo_budget_left:ratio7d{slo="time_to_first_token"})',
        "2h",
        {other("", **OF_TARGET, **TIMES): -1000},
    ),
    Question(
        "objectives are there without traffic",
        {},
        "fleet:slo_objective:ratio",
        "5m",
        {
            series("fleet:slo_objective:ratio", slo="time_to_first_token"): 0.95,
            series("fleet:slo_objective:ratio", slo="inter_token_latency"): 0.95,
            series("fleet:slo_objective:ratio", slo="success"): 0.99,
            series("fleet:slo_objective:ratio", slo="availability"): 0.995,
        },
    ),
    Question(
        "aborted requests are no events",
        {**finished("stop", [10] * HOUR), **finished("abort", [10] * HOUR)},
        'fleet:slo_total:increase5m{slo="success"}',
        "30m",
        {series("fleet:slo_total:increase5m", slo="success"): 50},
    ),
    Question(
        "scrapes of all samplers count",
        scrapes([1] * HOUR, [1, 0] * 30, [0] * HOUR, [1] * HOUR),
        'fleet:slo_errors:ratio30m{slo="availability"}',
        "50m",
        {series("fleet:slo_errors:ratio30m", slo="availability"): 0.375},
    ),
)


@pytest.fixture(scope="module")
def played(promtool: Path, tmp_path_factory: pytest.TempPathFactory) -> Mapping[tuple[str, str], str]:
    folder = tmp_path_factory.mktemp("objectives")
    return play(promtool, folder, objectives.groups, (*SCENES, *LOWEST_SCENES), QUESTIONS)


@pytest.mark.parametrize(("scene", "part"), parts((*SCENES, *LOWEST_SCENES), QUESTIONS))
def test_it_is_as_promised(played: Mapping[tuple[str, str], str], scene: str, part: str) -> None:
    assert played[scene, part] == ""


def test_every_alert_has_a_scene_in_which_it_fires_and_one_that_comes_near() -> None:
    named = {
        rule.name for group in objectives.groups(TARGET) for rule in group.rules if isinstance(rule, Alert)
    }
    assert len(named) == 8
    assert {scene.alert for scene in SCENES if scene.misses} == named


def test_burn_rates_are_those_of_the_windows_that_are_cited() -> None:
    speeds = [(tier.severity, tier.long, tier.short, tier.factor) for tier in TIERS]
    assert speeds == [
        ("critical", "1h", "5m", 13.44),
        ("critical", "6h", "30m", 3.5),
        ("warning", "1d", "2h", 1.4),
        ("warning", "3d", "6h", 0.98),
    ]


def test_bounds_are_written_as_vllm_prints_them() -> None:
    text = (Path(__file__).parents[1] / "fixtures" / "vllm-0.13.0-metrics.txt").read_text()
    for seconds, gap in ((1, 0.1), (2.5, 0.025), (10, 1), (160.0, 80)):
        target = replace(
            TARGET, objectives=Objectives(Latency(seconds, 0.95), Latency(gap, 0.95), 0.99, 0.99)
        )
        read = [
            match
            for group in objectives.groups(target)
            for rule in group.rules
            if isinstance(rule, Recording)
            for match in re.findall(r'replica:(\S+?_bucket)\{.*?(le="[^"]+")', rule.expr)
        ]
        assert len(read) == 2
        for series_name, bound in read:
            assert re.search(rf"^{series_name}\{{[^}}]*{re.escape(bound)}", text, re.MULTILINE), bound


def test_sensible_objectives_have_no_problems() -> None:
    assert objectives.problems(TARGET.objectives) == []
    lowest_of_all = Objectives(Latency(40, LOWEST), Latency(0.01, LOWEST), LOWEST, LOWEST)
    assert objectives.problems(lowest_of_all) == []


def test_a_threshold_that_no_bucket_counts_is_refused_with_the_ones_near_it() -> None:
    ((field, message),) = objectives.problems(
        replace(TARGET.objectives, time_to_first_token=Latency(3, 0.95))
    )
    assert field == "time_to_first_token.seconds"
    assert message.startswith("3 s is no bucket bound of vLLM's histogram vllm:time_to_first_token_seconds")
    assert "such as 0.75, 1, 2.5, 5 (all: 0.001, " in message
    ((field, message),) = objectives.problems(
        replace(TARGET.objectives, inter_token_latency=Latency(float("nan"), 0.95))
    )
    assert field == "inter_token_latency.seconds"


@pytest.mark.parametrize("ratio", [0.0, 1.0, 95.0, -0.5, float("nan"), float("inf")])
def test_a_ratio_that_is_no_share_is_refused(ratio: float) -> None:
    found = objectives.problems(
        Objectives(Latency(1.0, ratio), Latency(0.1, ratio), success=ratio, availability=ratio)
    )
    fields = [field for field, _ in found]
    assert fields == ["time_to_first_token.ratio", "inter_token_latency.ratio", "success", "availability"]
    for _, message in found:
        assert message.startswith(f"{100 * ratio:g} % is no share: take one above 0 % and below 100 %")


def test_an_objective_that_can_never_alert_is_refused_with_the_lowest_that_can() -> None:
    assert LOWEST == 0.9256
    for ratio in (0.9255, 0.9, 0.5):
        ((field, message),) = objectives.problems(replace(TARGET.objectives, success=ratio))
        assert field == "success"
        assert message.startswith(f"{100 * ratio:g} % is too low")
        assert "take 92.56 % or more" in message

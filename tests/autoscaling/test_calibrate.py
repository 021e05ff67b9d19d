"""An engine's costs are found again in what the clients of a load test saw of it."""

from __future__ import annotations

import itertools
import json
import random
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from autoscaling.calibrate import CalibrationError, calibrate, main, read
from autoscaling.engine import Engine, EngineParameters

TRUTH = EngineParameters(
    kv_blocks=20_000,
    step_seconds=0.012,
    sequence_seconds=60e-6,
    context_token_seconds=1.2e-7,
    prefill_tokens_per_second=14_000,
    max_num_seqs=256,
    max_num_batched_tokens=4096,
)
Arrival = tuple[float, int, int]


def mixed_load(count: int = 600, seed: int = 1) -> Iterator[Arrival]:
    """Short and long, at a rate that rises from next to nothing to more than the engine can do."""
    draw = random.Random(seed)  # noqa: S311
    now = 0.0
    for index in range(count):
        now += draw.expovariate(0.5 + 30 * index / count)
        yield now, round(draw.lognormvariate(5.5, 1.2)) + 1, round(draw.lognormvariate(4.8, 0.7)) + 2


def measured(
    arrivals: Iterator[Arrival], parameters: EngineParameters = TRUTH, jitter: float = 0.0
) -> dict[str, Any]:
    """What `make loadtest` would write; each event may be late by up to `jitter` seconds."""
    draw = random.Random(2)  # noqa: S311
    engine, now = Engine(parameters), 0.0
    requests = list(arrivals)
    times: dict[int, list[float]] = {index: [] for index in range(len(requests))}
    due, active = 0, set[int]()
    while True:
        while due < len(requests) and requests[due][0] <= now:
            engine.add(due, *requests[due][1:])
            due += 1
        step = engine.schedule()
        if step is None:
            if due == len(requests):
                break
            now = requests[due][0]
            continue
        now += step.seconds
        completed = engine.complete()
        for index in (*active, *completed.first):
            times[index].append(now + draw.uniform(0, jitter))
        active |= set(completed.first)
        active -= set(completed.finished)
    return {
        "date": "20261123-010203",
        "model_id": "a-model",
        "start_times": [start for start, _, _ in requests],
        "input_lens": [prompt for _, prompt, _ in requests],
        "output_lens": [output for _, _, output in requests],
        "ttfts": [times[index][0] - start for index, (start, _, _) in enumerate(requests)],
        "itls": [
            [max(0.0, after - before) for before, after in itertools.pairwise(seen)]
            for seen in times.values()
        ],
    }


@pytest.fixture(scope="module")
def result() -> Mapping[str, Any]:
    return measured(mixed_load())


def test_known_costs_are_found_again(result: Mapping[str, Any]) -> None:
    found = calibrate(result, "result.json")
    assert found.step_seconds == pytest.approx(TRUTH.step_seconds, rel=0.03)
    assert found.sequence_seconds == pytest.approx(TRUTH.sequence_seconds, rel=0.03)
    assert found.context_token_seconds == pytest.approx(TRUTH.context_token_seconds, rel=0.03)
    assert found.prefill_tokens_per_second == pytest.approx(TRUTH.prefill_tokens_per_second, rel=0.03)
    assert found.error < 0.01
    assert (found.source, found.model, found.date) == ("result.json", "a-model", "20261123-010203")


def test_events_that_are_late_by_some_milliseconds_cost_little_precision() -> None:
    found = calibrate(measured(mixed_load(), jitter=0.005), "result.json")
    ours = found.applied(TRUTH)
    for step in ((0, 1, 500), (200, 30, 20_000), (400, 100, 60_000)):
        assert ours.seconds(*step) == pytest.approx(TRUTH.seconds(*step), rel=0.05)


def test_failed_requests_and_events_of_several_tokens_do_no_harm(result: Mapping[str, Any]) -> None:
    paired = {
        **result,
        "itls": [[sum(gaps[i : i + 2]) for i in range(0, len(gaps), 2)] for gaps in result["itls"]],
    }
    for name, value in (
        ("start_times", 1.0),
        ("input_lens", 10),
        ("output_lens", 0),
        ("ttfts", 0.0),
        ("itls", []),
    ):
        paired[name] = [*paired[name], value]
    found = calibrate(paired, "result.json")
    assert found.step_seconds == pytest.approx(TRUTH.step_seconds, rel=0.1)
    assert found.prefill_tokens_per_second == pytest.approx(TRUTH.prefill_tokens_per_second, rel=0.1)


@pytest.mark.parametrize("missing", ["start_times", "ttfts", "itls", "input_lens", "output_lens"])
def test_a_result_without_details_is_refused(result: Mapping[str, Any], missing: str) -> None:
    with pytest.raises(CalibrationError, match=f"lacks {missing}"):
        calibrate({**result, missing: None}, "result.json")


@pytest.mark.parametrize(
    ("arrivals", "problem"),
    [
        ([(20.0 * index, 100, 50) for index in range(100)], "leaves sequence_seconds open"),
        ([(0.1 * index, 100, 30) for index in range(5)], "only . spans of 16 steps, 50 are needed"),
    ],
    ids=["one after the other", "too few"],
)
def test_a_load_that_says_too_little_is_refused(arrivals: list[Arrival], problem: str) -> None:
    with pytest.raises(CalibrationError, match=problem):
        calibrate(measured(iter(arrivals)), "result.json")


def test_more_than_one_replica_is_refused(result: Mapping[str, Any]) -> None:
    looks = [{"time": 1.0, "state": "RUNNING", "available": count} for count in (1, 3)]
    with pytest.raises(CalibrationError, match="up to 3 replicas: test with minReplicas and maxReplicas 1"):
        calibrate({**result, "replicas": looks}, "result.json")


def test_the_printed_lines_are_a_calibration(
    result: Mapping[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "result.json").write_text(json.dumps(result))
    assert main([str(tmp_path / "result.json")]) == 0
    printed = capsys.readouterr()
    assert "make rehearse STACK=prod CALIBRATION=" in printed.err
    (tmp_path / "calibration.json").write_text(printed.out)
    found = read(tmp_path / "calibration.json")
    assert found == calibrate(result, "result.json")
    parameters = found.applied(EngineParameters(100, 1.0, 1.0, 1.0, attention_pair_seconds=1.0))
    assert parameters.step_seconds == found.step_seconds
    assert (parameters.kv_blocks, parameters.attention_pair_seconds) == (100, 0.0)


def test_details_that_are_no_numbers_are_told(result: Mapping[str, Any]) -> None:
    for changes in ({"ttfts": ["soon", *result["ttfts"][1:]]}, {"itls": [1.0] * len(result["itls"])}):
        with pytest.raises(CalibrationError, match="request 0 of those with an answer has no numbers"):
            calibrate({**result, **changes}, "result.json")
    assert calibrate({**result, "replicas": 1}, "result.json") == calibrate(result, "result.json")


def test_a_calibration_that_makes_no_sense_is_told_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / "file.json"
    path.write_text('{"step_seconds": -1}')
    with pytest.raises(CalibrationError) as error:
        read(path)
    assert "\n" not in str(error.value)
    assert "pydantic" not in str(error.value)


@pytest.mark.parametrize("text", ["", "[]", '{"step_seconds": 1}'])
def test_a_file_that_is_none_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str) -> None:
    path = tmp_path / "file.json"
    path.write_text(text)
    with pytest.raises(CalibrationError, match="no calibration, make one with"):
        read(path)
    assert main([str(path)]) == 1
    assert capsys.readouterr().err.startswith(f"{path}: ")
    with pytest.raises(CalibrationError, match=r"nothing\.json: no calibration.*No such file"):
        read(tmp_path / "nothing.json")
    assert main([str(tmp_path / "nothing.json")]) == 1

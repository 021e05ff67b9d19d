"""`/metrics` cannot be told from that of a real vLLM 0.13.0 by families, help, labels and buckets."""

from __future__ import annotations

import math
import re
import time
from pathlib import Path

import pytest

from autoscaling.policy import read_metric
from sandbox.inference.metrics import (
    FAMILIES,
    EngineCounts,
    FinishedSequence,
    Registry,
    ServerMetrics,
    format_float,
    one_two_five,
)
from sandbox.interfaces import JsonObject
from tests import shared
from tests.exposition import differences, families
from tests.sandbox_inference.support import FIXTURES, PACED, TINY_SPEC, deployed, wait_until

RECORDED = FIXTURES / "vllm-0.13.0-metrics.txt"
OF_THE_MACHINE = {
    *("minor", "patchlevel", "version"),  # Python in the image
    *("block_size", "cpu_kvcache_space_bytes", "num_gpu_blocks"),  # a CPU instead of a GPU
}


def differences_from_the_recording(exposition: str) -> list[str]:
    real = families(RECORDED.read_text())
    return [*differences(families(exposition), real, lambda label: label not in OF_THE_MACHINE)]


def server_metrics(max_model_len: int = 1024) -> ServerMetrics:
    cache = {"num_gpu_blocks": "8192"}
    return ServerMetrics("tiny", max_model_len, cache, weights_bytes=1e9, started=time.time())


def test_the_recording_is_the_reference() -> None:
    assert RECORDED.read_bytes() == shared.fixture(RECORDED.name).read_bytes()


def test_every_family_is_that_of_the_recording() -> None:
    metrics = server_metrics()
    metrics.http("/v1/chat/completions", "POST", 200, 149, 600, 0.2)
    metrics.http("/v1/models", "GET", 200, 0, 442, 0.004)
    assert differences_from_the_recording(metrics.expose(EngineCounts())) == []


def test_labels_are_sorted_as_in_the_recording() -> None:
    """Some consumers compare lines, and the client library sorts."""
    for line in server_metrics().expose(EngineCounts()).splitlines():
        labels = re.findall(r'(\w+)="', line) if not line.startswith("#") else []
        assert labels == sorted(labels), line


@pytest.mark.parametrize(
    ("pattern", "replacement", "difference"),
    [
        (r"(?m)^.*vllm:num_preemptions_total.*\n", "", "vllm:num_preemptions_total is missing"),
        (r"vllm:kv_cache", "vllm:gpu_cache", "vllm:gpu_cache_usage_perc is not in the real one"),
        (r"(kv_cache_usage_perc) gauge", r"\1 counter", "type of vllm:kv_cache_usage_perc"),
        (r"Number of generation tokens", "Tokens", "help of vllm:generation_tokens_total"),
        (r"finished_reason=", "reason=", "labels of vllm:request_success_total"),
        (r'(?m)^.*time_to_first_token.*le="0.25".*\n', "", "buckets of vllm:time_to_first_token_seconds"),
        (r'le="1.0"', 'le="1"', "buckets of vllm:request_queue_time_seconds"),
        (r'(?m)^.*request_success_total.*"abort".*\n', "", "series of vllm:request_success_total"),
    ],
)
def test_a_difference_from_the_recording_is_told(pattern: str, replacement: str, difference: str) -> None:
    changed, count = re.subn(pattern, replacement, RECORDED.read_text())
    assert count
    found = differences_from_the_recording(changed)
    assert any(line.startswith(difference) for line in found), found


async def test_a_served_exposition_has_the_families_of_the_recording(tmp_path: Path) -> None:
    async with deployed(tmp_path) as app:
        body: JsonObject = {"messages": [{"role": "user", "content": "hello"}], "max_tokens": 8}
        for _ in range(3):
            assert (await app.post("/v1/chat/completions", body))[0] == 200
        async with app.client.get(f"{app.url}/v1/models", headers=app.headers()) as response:
            assert response.status == 200
        async with app.client.get(f"{app.url}/metrics", headers=app.headers()) as response:
            assert response.headers["Content-Type"].startswith("text/plain; version=")
            exposition = await response.text()
    assert differences_from_the_recording(exposition) == []
    assert read_metric(exposition, "vllm:generation_tokens_total") == 24
    assert read_metric(exposition, "vllm:prompt_tokens_total") == 3 * 15
    assert read_metric(exposition, 'vllm:request_success_total{finished_reason="length"}') == 3
    assert read_metric(exposition, 'http_requests_total{handler="/v1/chat/completions"}') == 3
    assert 'vllm:request_generation_tokens_bucket{engine="0",le="5.0",model_name="tiny"} 0.0' in exposition
    assert 'vllm:request_generation_tokens_bucket{engine="0",le="10.0",model_name="tiny"} 3.0' in exposition
    assert 'vllm:inter_token_latency_seconds_count{engine="0",model_name="tiny"} 21.0' in exposition


@pytest.mark.parametrize(
    ("longest", "count", "last"),
    [(1024, 10, 1000), (32768, 14, 20000), (131072, 16, 100000), (262144, 17, 200000)],
)
def test_token_buckets_reach_up_to_the_longest_sequence(longest: int, count: int, last: int) -> None:
    assert (len(one_two_five(longest)), one_two_five(longest)[-1]) == (count, last)
    lines = server_metrics(longest).expose(EngineCounts()).splitlines()
    buckets = [line for line in lines if line.startswith("vllm:request_prompt_tokens_bucket")]
    assert len(buckets) == count + 1
    assert f'le="{format_float(last)}"' in buckets[-2]


@pytest.mark.parametrize(
    ("value", "printed"),
    [
        (0, "0.0"),
        (1, "1.0"),
        (999_999, "999999.0"),
        (1_000_000, "1e+06"),
        (1_048_576, "1.048576e+06"),
        (928608256, "9.28608256e+08"),
        (1795353188.0019178, "1.7953531880019178e+09"),
        (1795353153.51, "1.79535315351e+09"),
        (0.00013743999988946598, "0.00013743999988946598"),
        (1e-07, "1e-07"),
        (-2.5, "-2.5"),
        (math.inf, "+Inf"),
        (-math.inf, "-Inf"),
        (math.nan, "NaN"),
    ],
)
def test_floats_are_printed_as_the_client_library_prints_them(value: float, printed: str) -> None:
    assert format_float(value) == printed


def test_values_of_a_finished_sequence() -> None:
    metrics = server_metrics()
    metrics.step(30, 1, 0, 0.0)
    metrics.first_token(3.0)
    metrics.step(0, 0, 7, 0.02)
    times = {"arrived": 100.0, "scheduled": 101.0, "first_token": 103.0, "ended": 110.0}
    metrics.finished(FinishedSequence("length", 30, 8, 40, **times, cached_tokens=16))
    metrics.request_finished(1, 8)
    lines = metrics.expose(EngineCounts(1, 2, 0.5, 30, 16, 4)).splitlines()
    for sample in (
        'num_requests_running{engine="0",model_name="tiny"} 1.0',
        'num_requests_waiting{engine="0",model_name="tiny"} 2.0',
        'kv_cache_usage_perc{engine="0",model_name="tiny"} 0.5',
        'prefix_cache_queries_total{engine="0",model_name="tiny"} 30.0',
        'prefix_cache_hits_total{engine="0",model_name="tiny"} 16.0',
        'num_preemptions_total{engine="0",model_name="tiny"} 4.0',
        'request_prefill_kv_computed_tokens_sum{engine="0",model_name="tiny"} 14.0',
        'prompt_tokens_total{engine="0",model_name="tiny"} 30.0',
        'generation_tokens_total{engine="0",model_name="tiny"} 8.0',
        'iteration_tokens_total_sum{engine="0",model_name="tiny"} 38.0',
        'iteration_tokens_total_count{engine="0",model_name="tiny"} 2.0',
        'time_to_first_token_seconds_sum{engine="0",model_name="tiny"} 3.0',
        'inter_token_latency_seconds_bucket{engine="0",le="0.01",model_name="tiny"} 0.0',
        'inter_token_latency_seconds_bucket{engine="0",le="0.025",model_name="tiny"} 7.0',
        'e2e_request_latency_seconds_sum{engine="0",model_name="tiny"} 10.0',
        'e2e_request_latency_seconds_bucket{engine="0",le="10.0",model_name="tiny"} 1.0',
        'request_queue_time_seconds_sum{engine="0",model_name="tiny"} 1.0',
        'request_prefill_time_seconds_sum{engine="0",model_name="tiny"} 2.0',
        'request_decode_time_seconds_sum{engine="0",model_name="tiny"} 7.0',
        'request_inference_time_seconds_sum{engine="0",model_name="tiny"} 9.0',
        'request_time_per_output_token_seconds_sum{engine="0",model_name="tiny"} 1.0',
        'request_params_max_tokens_sum{engine="0",model_name="tiny"} 40.0',
        'request_max_num_generation_tokens_sum{engine="0",model_name="tiny"} 8.0',
    ):
        assert f"vllm:{sample}" in lines


def test_http_metrics_group_statuses_and_leave_out_what_vllm_leaves_out() -> None:
    metrics = server_metrics()
    for path, status in (("/v1/models", 200), ("/v1/models", 404), ("none", 404), ("/health", 200)):
        metrics.http(path, "GET", status, 0, 0, 0.1)
    text = metrics.expose(EngineCounts())
    assert 'http_requests_total{handler="/v1/models",method="GET",status="4xx"} 1.0' in text
    assert 'http_requests_total{handler="none",method="GET",status="4xx"} 1.0' in text
    assert "http_request_duration_highr_seconds_count 3.0" in text
    assert "/health" not in text


def test_label_values_are_escaped() -> None:
    registry = Registry(FAMILIES, 1024)
    registry.number("http_requests_total", handler='a"b\\c\nd', method="GET", status="2xx")
    assert 'handler="a\\"b\\\\c\\nd"' in registry.expose()


def test_a_family_that_is_not_in_the_table_is_a_mistake() -> None:
    with pytest.raises(KeyError):
        Registry(FAMILIES, 1024).number("vllm:gpu_cache_usage_perc", engine="0", model_name="tiny")


async def test_each_start_has_its_own_birth_times(tmp_path: Path) -> None:
    async with deployed(tmp_path, replicas=2) as app:
        births = [birth_times(replica.metrics()) for replica in app.directory.replicas]
        first = app.directory.replicas[0]
        await first.stop()
        first.start()
        await wait_until(lambda: first.probe("/health") == 200)
        births.append(birth_times(first.metrics()))
    for family in births[0]:
        assert len({birth[family] for birth in births}) == 3, family


def birth_times(exposition: str) -> dict[str, float]:
    lines = [line for line in exposition.splitlines() if "_created{" in line and line.startswith("vllm:")]
    return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines)}


async def test_gauges_show_what_runs_now_and_a_client_that_goes_away_leaves_no_trace(tmp_path: Path) -> None:
    """vLLM 0.13.0 does not count aborted requests: https://github.com/vllm-project/vllm/issues/31503."""
    spec: JsonObject = {**TINY_SPEC, "command": ["vllm", "serve", "tiny", "--max-num-seqs", "2"]}
    async with deployed(tmp_path, settings=PACED, spec=spec) as app:
        replica = app.directory.replicas[0]

        def value(name: str) -> float:
            return read_metric(replica.metrics(), f"vllm:{name}")

        body = {"prompt": "hello", "max_tokens": 4000, "ignore_eos": True, "n": 5, "stream": True}
        async with app.client.post(f"{app.url}/v1/completions", json=body, headers=app.headers()) as response:
            await response.content.readline()
            assert (value("num_requests_running"), value("num_requests_waiting")) == (2, 3)
            assert 0 < value("kv_cache_usage_perc") < 1
        await wait_until(lambda: value("num_requests_running") == 0)
        assert value("num_requests_waiting") == 0
        assert value("kv_cache_usage_perc") == 0
        assert value("generation_tokens_total") > 0
        for reason in ("abort", "stop", "length"):
            assert value(f'request_success_total{{finished_reason="{reason}"}}') == 0
        assert "vllm:e2e_request_latency_seconds_count{" in replica.metrics()
        assert 'vllm:e2e_request_latency_seconds_count{engine="0",model_name="tiny"} 0.0' in replica.metrics()


@pytest.mark.parametrize(
    ("flags", "hits", "label"),
    [([], 2 * 32, "True"), (["--no-enable-prefix-caching"], 0, "False")],
)
async def test_the_prefix_cache_finds_whole_blocks_of_a_prompt_that_was_there_before(
    tmp_path: Path, flags: list[str], hits: int, label: str
) -> None:
    spec: JsonObject = {**TINY_SPEC, "command": ["vllm", "serve", "tiny", *flags]}
    async with deployed(tmp_path, spec=spec) as app:
        for last in ("a", "b", "c"):
            messages: JsonObject = {
                "messages": [
                    {"role": "system", "content": "be kind " * 15},  # 30 + 4 tokens: 2 blocks of 16
                    {"role": "user", "content": last},
                ],
                "max_tokens": 2,
            }
            assert (await app.post("/v1/chat/completions", messages))[0] == 200
        text = app.directory.replicas[0].metrics()
    assert read_metric(text, "vllm:prefix_cache_hits_total") == hits
    assert read_metric(text, "vllm:prefix_cache_queries_total") == (3 * 49 if hits else 0)
    assert read_metric(text, "vllm:prompt_tokens_total") == 3 * 49
    computed = "vllm:request_prefill_kv_computed_tokens_sum"
    assert f'{computed}{{engine="0",model_name="tiny"}} {float(3 * 49 - hits)}' in text
    assert f'enable_prefix_caching="{label}"' in text

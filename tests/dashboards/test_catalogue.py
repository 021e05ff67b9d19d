"""The catalogue is what a real vLLM exposes, and what the rules record."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from dashboards import bundle, catalogue, check
from dashboards.catalogue import METRICS, OTHERS, RECORDED, REPLICA, exposed, find, series
from dashboards.metric import FIRST, NEWEST, UnknownVersionError, version
from dashboards.rules import Recording
from tests.dashboards.targets import PROD
from tests.exposition import families

REAL = families((Path(__file__).parents[1] / "fixtures" / "vllm-0.13.0-metrics.txt").read_text())
"""`/metrics` of a real vLLM 0.13.0 without flags, whose longest sequence is 1024 tokens."""
OURS = {metric.name: metric for metric in exposed("0.13.0")}


def test_the_families_are_those_of_the_recording_in_its_order() -> None:
    assert list(OURS) == [name for name in REAL if not name.endswith("_created")]


@pytest.mark.parametrize("name", OURS)
def test_a_family_is_that_of_the_recording(name: str) -> None:
    ours, real = OURS[name], REAL[name]
    assert (ours.type, ours.help) == (real.type, real.help)
    assert set(ours.labels) == real.labels
    bounds = [bound for bound in real.bounds if bound != "+Inf"]
    assert bool(bounds) == (ours.type == "histogram")
    if ours.buckets == "model length":
        assert bounds[:4] == ["1.0", "2.0", "5.0", "10.0"]
    else:
        assert bounds == [repr(bound) for bound in ours.buckets]
    has_birth_time = ours.created and ours.type != "gauge"
    assert (f"{ours.base}_created" in REAL) == has_birth_time


@pytest.mark.parametrize("name", [name for family in REAL.values() for name, _ in family.series])
def test_every_series_of_the_recording_is_found(name: str) -> None:
    found = find(name)
    assert found is not None
    assert found.exists("0.13")
    assert found.flag is None


def test_parts_of_a_family_count_other_things_than_it_measures() -> None:
    seen = {
        name: (found.counts, found.unit)
        for name in (
            "vllm:time_to_first_token_seconds_bucket",
            "vllm:time_to_first_token_seconds_sum",
            "vllm:time_to_first_token_seconds_created",
            "vllm:iteration_tokens_total_count",
            "vllm:iteration_tokens_total_sum",
            "vllm:generation_tokens_total",
            "vllm:generation_tokens_created",
            "vllm:kv_cache_usage_perc",
        )
        if (found := series(name)) is not None
    }
    assert seen == {
        "vllm:time_to_first_token_seconds_bucket": (True, "requests"),
        "vllm:time_to_first_token_seconds_sum": (True, "seconds"),
        "vllm:time_to_first_token_seconds_created": (False, "unix seconds"),
        "vllm:iteration_tokens_total_count": (True, "items"),
        "vllm:iteration_tokens_total_sum": (True, "tokens"),
        "vllm:generation_tokens_total": (True, "tokens"),
        "vllm:generation_tokens_created": (False, "unix seconds"),
        "vllm:kv_cache_usage_perc": (False, "ratio"),
    }


def test_a_series_of_a_replica_is_the_one_of_the_scrape_but_for_the_sampler() -> None:
    raw, ours = series("vllm:num_requests_running"), series("replica:vllm:num_requests_running")
    assert raw is not None
    assert ours is not None
    assert ours.metric == raw.metric
    assert raw.labels("0.13") - ours.labels("0.13") == {"sampler"}
    assert ours.labels("0.13") - raw.labels("0.13") == {"replica"}


@pytest.mark.parametrize(
    "name",
    [
        "vllm:num_preemptions",  # the counter has an ending
        "vllm:generation_tokens_total_created",  # and its birth time has not
        "vllm:kv_cache_usage_perc_created",
        "vllm:time_to_first_token_seconds_total",
        "python_gc_collections_created",
        "replica:up",
        "replica:fleet:vllm:replicas_seen",
        "replica:",
        "",
    ],
)
def test_what_nobody_exposes_is_not_found(name: str) -> None:
    assert find(name) is None


def test_names_are_unique() -> None:
    every = [metric.name for metric in (*METRICS, *OTHERS, *RECORDED)]
    assert len(set(every)) == len(every)
    parts = {f"{name}{part}" for name in every for part in ("_bucket", "_sum", "_count")}
    assert not parts & set(every)


def test_every_family_belongs_to_some_version_and_says_what_takes_its_place() -> None:
    for metric in METRICS:
        assert version(metric.since) <= version(NEWEST), metric.name
        if metric.until is None:
            assert metric.exists(NEWEST), metric.name
            assert metric.help or metric.flag, metric.name
        else:
            assert version(metric.since) < version(metric.until) <= version(NEWEST), metric.name
            assert metric.replacement or version(metric.since) > version(FIRST), metric.name
        for since in metric.changes:
            assert version(FIRST) < version(since) <= version(NEWEST), metric.name


def test_units_agree_with_names() -> None:
    for metric in METRICS:
        name = metric.base
        if name.endswith(("_time_seconds", "_latency_seconds", "_duration_seconds", "_gap_seconds")):
            assert metric.unit == ("unix seconds" if "start_time" in name else "seconds"), name
        if name.endswith("_bytes"):
            assert metric.unit == "bytes", name
        if name.endswith(("_perc", "_rate")):
            assert metric.unit == "ratio", name


@pytest.mark.parametrize(
    ("name", "until", "replacement"),
    [
        ("vllm:gpu_cache_usage_perc", "0.12", "vllm:kv_cache_usage_perc"),
        ("vllm:gpu_prefix_cache_hits_total", "0.12", "vllm:prefix_cache_hits_total"),
        ("vllm:gpu_prefix_cache_queries_total", "0.12", "vllm:prefix_cache_queries_total"),
        ("vllm:time_per_output_token_seconds_bucket", "0.15", "vllm:inter_token_latency_seconds"),
        ("vllm:num_requests_finished", "0.13", "vllm:request_success_total"),
    ],
)
def test_retired_names_say_what_to_use(name: str, until: str, replacement: str) -> None:
    retired = find(name)
    assert retired is not None
    assert (retired.until, retired.replacement) == (until, replacement)
    assert not retired.exists(until)
    assert find(replacement) in exposed(NEWEST)


def test_versions_decide_what_is_exposed() -> None:
    def names(vllm: str) -> set[str]:
        return {metric.name for metric in exposed(vllm)}

    assert names("0.16") - names("0.13") == {
        "vllm:prompt_tokens_by_source_total",
        "vllm:prompt_tokens_cached_total",
        "vllm:prompt_tokens_recomputed_total",
    }
    assert names("0.19") - names("0.20") == {"vllm:prompt_tokens_recomputed_total"}
    assert names("0.13") < names(NEWEST)


def test_labels_that_came_or_went_are_those_of_the_version() -> None:
    def labels(vllm: str) -> set[str]:
        return next({*metric.labels} for metric in exposed(vllm) if metric.name == "vllm:cache_config_info")

    assert labels("0.17") - labels("0.18") == {"cpu_offload_gb", "cpu_offload_params", "swap_space"}
    assert {"kv_cache_size_tokens", "kv_cache_max_concurrency"} == labels("0.24") - labels("0.23")


@pytest.mark.parametrize("text", ["0.13", "0.13.0", "v0.13.0", "0.13.1.post1", "0.13.0rc2", "0.13.0-cu128"])
def test_a_version_is_its_first_two_numbers(text: str) -> None:
    assert version(text) == (0, 13)


@pytest.mark.parametrize("text", ["latest", "", "0", "0.x", "sha256:0.13"])
def test_what_is_no_version_is_refused(text: str) -> None:
    with pytest.raises(UnknownVersionError, match="is no version of vLLM"):
        version(text)


def test_of_the_series_of_others_it_has_those_that_are_read() -> None:
    words = {word for item in check.provisioned(PROD) for word in re.findall(r"[\w:]+", item.text)}
    assert [metric.name for metric in OTHERS if metric.name not in words] == []


@pytest.mark.parametrize(
    ("name", "label", "later"),
    [
        ("vllm:request_success_total", "finished_reason", {"repetition"}),
        ("vllm:engine_sleep_state", "sleep_state", set[str]()),
    ],
)
def test_a_closed_label_has_the_values_of_the_recording(name: str, label: str, later: set[str]) -> None:
    real = {labels[label] for _, labels in REAL[name].series}
    assert {*OURS[name].values[label]} == real | later


def test_only_labels_that_a_family_has_are_closed() -> None:
    for metric in (*METRICS, *OTHERS, *RECORDED):
        assert metric.values.keys() <= {*metric.labels}, metric.name


def test_the_rules_record_exactly_what_the_catalogue_has() -> None:
    recorded = [
        rule.record
        for group in bundle.groups(PROD)
        for rule in group.rules
        if isinstance(rule, Recording) and not rule.record.startswith(REPLICA)
    ]
    assert sorted(set(recorded)) == sorted(metric.name for metric in RECORDED)


def test_without_platform_metrics_nothing_says_how_many_replicas_are_ready() -> None:
    silent = replace(PROD, platform_metrics=False)
    rules = [rule for group in bundle.groups(silent) for rule in group.rules]
    recorded = {rule.record for rule in rules if isinstance(rule, Recording)}
    assert {metric.name for metric in RECORDED} - recorded == {"fleet:vllm:replicas_ready"}


def test_every_name_leads_back_to_its_family() -> None:
    for name in catalogue.names():
        found = series(name)
        assert found is not None
        assert found.name == name
        assert name.startswith(found.metric.base)

"""Every kind of mistake in an expression is found, and its right counterpart passes.

Many of the wrong expressions are from dashboards and alerts that others published for vLLM.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dashboards import bundle, catalogue, check
from dashboards.check import __main__ as command
from dashboards.check import news
from dashboards.check.expressions import Expression, of_dashboard, of_rules, without_macros
from dashboards.check.meaning import Problem, Surroundings, mistakes
from dashboards.check.reading import readers
from dashboards.metric import NEWEST
from dashboards.rules import Alert, Group, Recording
from tests.dashboards.targets import PROD

JOB = 'job="vllm-ministral"'
TTFT = "replica:vllm:time_to_first_token_seconds"
TOKENS = "replica:vllm:generation_tokens_total"
FINISHED = "replica:vllm:request_success_total"
RUNNING = "replica:vllm:num_requests_running"


class Everything(frozenset[str]):
    """As if rules recorded whatever is read."""

    def __contains__(self, name: object) -> bool:
        return True


def found(text: str, vllm: str = "0.13", **place: Any) -> list[Problem]:
    expression = Expression("here", without_macros(text, {}), **place)
    return mistakes(expression, Surroundings(vllm, PROD.job, Everything()))


def kinds(text: str, vllm: str = "0.13", **place: Any) -> list[str]:
    return [problem.kind for problem in found(text, vllm, **place)]


@pytest.mark.parametrize(
    ("kind", "wrong", "right"),
    [
        pytest.param(
            "syntax", f"sum(increase({TOKENS}[5m])", f"sum(increase({TOKENS}[5m]))", id="a bracket is missing"
        ),
        pytest.param("syntax", f"increase({TOKENS})", f"increase({TOKENS}[5m])", id="rate of an instant"),
        pytest.param(
            "unknown",
            "sum(last_over_time(replica:vllm_num_requests_running[1m]))",
            f"sum(last_over_time({RUNNING}[1m]))",
            id="vllm_ for vllm:",
        ),
        pytest.param(
            "unknown",
            "increase(replica:vllm:num_preemptions[5m])",
            "increase(replica:vllm:num_preemptions_total[5m])",
            id="llm-d: a counter without _total",
        ),
        pytest.param("unknown", '{job="x"}', 'up{job="x"}', id="no name at all"),
        pytest.param(
            "version",
            "max(last_over_time(replica:vllm:gpu_cache_usage_perc[1m]))",
            "max(last_over_time(replica:vllm:kv_cache_usage_perc[1m]))",
            id="AIBrix: a retired name",
        ),
        pytest.param(
            "version",
            "sum(increase(replica:vllm:prompt_tokens_cached_total[5m]))",
            "sum(increase(replica:vllm:prefix_cache_hits_total[5m]))",
            id="OVH's MKS dashboard: not in 0.13",
        ),
        pytest.param(
            "flag",
            "sum(increase(replica:vllm:kv_block_lifetime_seconds_sum[5m]))",
            "sum(increase(replica:vllm:request_queue_time_seconds_sum[5m]))",
            id="there only with a flag",
        ),
        pytest.param(
            "label",
            f"sum by (pod) (increase({TOKENS}[5m]))",
            f"sum by (replica) (increase({TOKENS}[5m]))",
            id="OVH's MKS dashboard: by (pod)",
        ),
        pytest.param(
            "label",
            f'sum(increase({FINISHED}{{status="200"}}[5m]))',
            f'sum(increase({FINISHED}{{finished_reason="stop"}}[5m]))',
            id="a matcher on a label of others",
        ),
        pytest.param(
            "label",
            f'sum(increase({TOKENS}{{sampler="0"}}[5m]))',
            f'sum(increase({TOKENS}{{instance="x"}}[5m]))',
            id="the sampler is gone from recorded series",
        ),
        pytest.param(
            "label",
            f"sum without (sampler) (increase({TOKENS}[5m]))",
            f"sum without (replica) (increase({TOKENS}[5m]))",
            id="without",
        ),
        pytest.param(
            "label",
            "fleet:vllm:replicas_seen < on (replica) fleet:vllm:replicas_ready",
            "fleet:vllm:replicas_seen < on (job) fleet:vllm:replicas_ready",
            id="on",
        ),
        pytest.param(
            "label",
            "fleet:slo_errors:ratio1h * on (job) group_left (replica) fleet:vllm:replicas_seen",
            "fleet:slo_errors:ratio1h * on (job) group_left (model) fleet:vllm:replicas_seen",
            id="group_left",
        ),
        pytest.param(
            "label",
            f"sum by (le) (sum by (replica) (increase({TTFT}_bucket[5m])))",
            f"sum by (le) (sum by (le, replica) (increase({TTFT}_bucket[5m])))",
            id="a label that was aggregated away before",
        ),
        pytest.param(
            "value",
            f'sum(increase({FINISHED}{{finished_reason="eror"}}[5m]))',
            f'sum(increase({FINISHED}{{finished_reason="error"}}[5m]))',
            id="a reason that no request ends with",
        ),
        pytest.param(
            "value",
            f'sum(increase({FINISHED}{{finished_reason!="aborted"}}[5m]))',
            f'sum(increase({FINISHED}{{finished_reason!="abort"}}[5m]))',
            id="nothing is left out",
        ),
        pytest.param(
            "value",
            'sum(increase(replica:http_requests_total{status=~"4xx|5x"}[5m]))',
            'sum(increase(replica:http_requests_total{status=~"4xx|5.."}[5m]))',
            id="one of several values",
        ),
        pytest.param(
            "value",
            'max(last_over_time(replica:vllm:engine_sleep_state{sleep_state="asleep"}[1m]))',
            'max(last_over_time(replica:vllm:engine_sleep_state{sleep_state="awake"}[1m]))',
            id="no such state",
        ),
        pytest.param(
            "value",
            'fleet:slo_errors:ratio1h{slo="ttft"}',
            'fleet:slo_errors:ratio1h{slo="time_to_first_token"}',
            id="no such objective",
        ),
        pytest.param(
            "value",
            'ALERTS{alertstate="fires"}',
            'ALERTS{alertstate="firing"}',
            id="no such state of an alert",
        ),
        pytest.param(
            "job",
            f'sum(last_over_time({RUNNING}{{job="vllm-other"}}[1m]))',
            f"sum(last_over_time({RUNNING}{{{JOB}}}[1m]))",
            id="replicas of another endpoint",
        ),
        pytest.param(
            "job",
            'fleet:vllm:replicas_ready{job="vllm-ministral-platform"}',
            'ai_deploy_app_available_replicas{job="vllm-ministral-platform"}',
            id="the rules put what the platform says under the endpoint's job",
        ),
        pytest.param(
            "bucket",
            f'sum(increase({TTFT}_bucket{{le="1"}}[5m]))',
            f'sum(increase({TTFT}_bucket{{le="1.0"}}[5m]))',
            id="bounds are printed with a point",
        ),
        pytest.param(
            "bucket",
            f'sum(increase({TTFT}_bucket{{le="2.0"}}[5m]))',
            f'sum(increase({TTFT}_bucket{{le="+Inf"}}[5m]))',
            id="no such bound",
        ),
        pytest.param(
            "histogram",
            f"histogram_quantile(0.95, sum by (replica) (increase({TTFT}_bucket[5m])))",
            f"histogram_quantile(0.95, sum by (le, replica) (increase({TTFT}_bucket[5m])))",
            id="OVH's MKS dashboard: a quantile without le",
        ),
        pytest.param(
            "histogram",
            f"histogram_quantile(0.95, sum(increase({TTFT}_sum[5m])))",
            f"histogram_quantile(0.95, sum by (le) (increase({TTFT}_bucket[5m])))",
            id="a quantile of a sum",
        ),
        pytest.param(
            "histogram",
            "sum(increase(replica:vllm:iteration_tokens_total[5m]))",
            "sum(increase(replica:vllm:iteration_tokens_total_sum[5m]))",
            id="looks like a counter and is a histogram",
        ),
        pytest.param(
            "counter",
            f"sum(last_over_time({TTFT}_sum[1m])) / sum(last_over_time({TTFT}_count[1m]))",
            f"sum(increase({TTFT}_sum[5m])) / sum(increase({TTFT}_count[5m]))",
            id="production-stack: a mean since the process began",
        ),
        pytest.param(
            "counter",
            "prometheus_rule_evaluation_failures_total > 0",
            "increase(prometheus_rule_evaluation_failures_total[5m]) > 0",
            id="once above, always above",
        ),
        pytest.param(
            "counter",
            'process_cpu_seconds_total{job="monitoring-prometheus"}',
            'rate(process_cpu_seconds_total{job="monitoring-prometheus"}[5m])',
            id="a counter of another process",
        ),
        pytest.param(
            "counter", f"sum(delta({TOKENS}[5m]))", f"sum(increase({TOKENS}[5m]))", id="delta of a counter"
        ),
        pytest.param(
            "gauge",
            "rate(replica:vllm:kv_cache_usage_perc[5m])",
            "avg_over_time(replica:vllm:kv_cache_usage_perc[5m])",
            id="rate of a gauge",
        ),
        pytest.param(
            "gauge",
            "increase(fleet:vllm:generation_tokens:increase5m[5m])",
            "sum_over_time(fleet:vllm:generation_tokens:increase5m[1h:5m])",
            id="increased already",
        ),
        pytest.param(
            "gauge", f"sum(deriv({RUNNING}[5m]))", f"sum(delta({RUNNING}[5m]))", id="deriv counts the dead"
        ),
        pytest.param(
            "raw",
            f"sum(rate(vllm:generation_tokens_total{{{JOB}}}[5m]))",
            f"sum(rate({TOKENS}{{{JOB}}}[5m]))",
            id="everybody: counters of all replicas mixed",
        ),
        pytest.param(
            "raw",
            f"sum(vllm:num_requests_running{{{JOB}}})",
            f"sum(last_over_time({RUNNING}{{{JOB}}}[1m]))",
            id="everybody: one replica taken for all",
        ),
        pytest.param(
            "raw",
            f"rate(http_requests_total{{{JOB}}}[5m])",
            f"rate(replica:http_requests_total{{{JOB}}}[5m])",
            id="HTTP counters of all replicas mixed",
        ),
        pytest.param(
            "raw",
            "process_resident_memory_bytes",
            'process_resident_memory_bytes{job="monitoring-prometheus"}',
            id="of our processes, or of another one",
        ),
        pytest.param("sight", f"sum({RUNNING})", f"sum(last_over_time({RUNNING}[1m]))", id="who was met now"),
        pytest.param(
            "sight",
            f"max_over_time(sum({RUNNING})[10m:1m])",
            f"sum(max_over_time({RUNNING}[10m:5s]))",
            id="who was met now, again and again",
        ),
        pytest.param(
            "window",
            f"sum(rate({TOKENS}[$__rate_interval]))",
            f"sum(rate({TOKENS}[5m]))",
            id="shorter than it takes to meet all replicas",
        ),
        pytest.param(
            "match",
            f"increase({TOKENS}[5m]) / increase({FINISHED}[5m])",
            f"increase({TOKENS}[5m]) / sum without (finished_reason) (increase({FINISHED}[5m]))",
            id="OVH's MKS dashboard: tokens per request",
        ),
        pytest.param(
            "match",
            f"sum(increase({TOKENS}[5m])) / fleet:vllm:replicas_seen",
            f"sum(increase({TOKENS}[5m])) / sum(fleet:vllm:replicas_seen)",
            id="an aggregate has no labels",
        ),
        pytest.param(
            "match",
            "fleet:vllm:num_requests_waiting > 1 unless fleet:slo_objective:ratio",
            "fleet:vllm:num_requests_waiting > 1 unless ignoring (slo) fleet:slo_objective:ratio",
            id="unless that never takes anything away",
        ),
    ],
)
def test_a_mistake_is_found_and_its_counterpart_passes(kind: str, wrong: str, right: str) -> None:
    assert set(kinds(wrong)) == {kind}
    assert kinds(right) == []


QUANTILE = f"histogram_quantile(0.95, sum by (le) (increase({TTFT}_bucket[5m])))"
HITS = "sum(increase(replica:vllm:prefix_cache_hits_total[5m]))"
QUERIES = "sum(increase(replica:vllm:prefix_cache_queries_total[5m]))"
CPU = "sum(increase(replica:process_cpu_seconds_total[5m]))"
BIRTH = "replica:vllm:generation_tokens_created"
KV_USAGE = "max(last_over_time(replica:vllm:kv_cache_usage_perc[1m]))"


@pytest.mark.parametrize(
    ("text", "right", "wrong"),
    [
        (QUANTILE, "s", "ms"),  # vLLM's own query_statistics.json
        (f"{QUANTILE} * 1000", "ms", "s"),
        (f"1000 * {QUANTILE}", "ms", "s"),
        (f"sum(increase({TTFT}_sum[5m])) / sum(increase({TTFT}_count[5m]))", "s", "short"),
        (f"sum(rate({TTFT}_sum[5m])) / sum(rate({TTFT}_count[5m]))", "s", "percentunit"),
        (KV_USAGE, "percentunit", "percent"),
        (f"{KV_USAGE} * 100", "percent", "percentunit"),
        (f"{HITS} / {QUERIES}", "percentunit", "s"),
        (f"1 - {HITS} / ({QUERIES} > 0)", "percentunit", "reqps"),
        (f"sum(increase({FINISHED}[5m])) / 300", "reqps", "s"),
        (f"sum by (finished_reason) (rate({FINISHED}[5m]))", "reqps", "percentunit"),
        (f"sum(increase({TOKENS}[5m])) / 300", "cps", "reqps"),
        (f"sum(increase({TOKENS}[5m]))", "short", "reqps"),
        (f"sum(increase({TOKENS}[5m])) / sum(increase({FINISHED}[5m]))", "none", "percentunit"),
        (f"sum(last_over_time({RUNNING}[1m]))", "short", "s"),
        ("fleet:vllm:replicas_seen or vector(0)", "none", "bytes"),
        ("max(prometheus_tsdb_wal_storage_size_bytes)", "bytes", "short"),
        ("avg(avg_over_time(up[5m]))", "percentunit", "s"),
        ("time() - max(timestamp(up))", "s", "short"),
        ("max(last_over_time(replica:vllm:generation_tokens_created[1m])) * 1000", "dateTimeAsIso", "s"),
        (f"{HITS} / {QUERIES}", "none", "short"),
        ("fleet:slo_errors:ratio1h / fleet:slo_objective:ratio", "none", "short"),
        ("sum(fleet:vllm:generation_tokens:increase5m) / 300", "short", "reqps"),
        ("sum(fleet:vllm:requests:increase5m) / 300", "reqps", "s"),
        ("max(count_over_time(up[5m])) / max(count_over_time(up[5m]))", "percentunit", "short"),
        (f"{CPU} / 300", "short", "s"),
        (f"{CPU} / clamp_max(time() - min(last_over_time({BIRTH}[1m])), 300)", "short", "s"),
        (f"{CPU} or 0 * max(prometheus_tsdb_head_series)", "s", "short"),
        (f"sum(increase({TOKENS}[5m])) * 0.5", "currencyEUR", ""),  # nothing is known: nothing is said
    ],
)
def test_the_unit_of_a_panel_is_that_of_its_values(text: str, right: str, wrong: str) -> None:
    assert kinds(text, unit=right) == []
    assert not wrong or kinds(text, unit=wrong) == ["unit"]


def test_the_unit_of_a_heatmap_is_that_of_its_buckets() -> None:
    buckets = f"sum by (le) (increase({TTFT}_bucket[5m]))"
    assert kinds(buckets, heatmap=True, unit="s") == []
    assert kinds(buckets, heatmap=True, unit="short") == ["unit"]


@pytest.mark.parametrize(
    ("record", "wrong", "right"),
    [
        pytest.param(
            "fleet:vllm:num_requests_running",
            f"sum by (job) (last_over_time({RUNNING}[1m]))",
            f"sum by (job, service, model, environment) (last_over_time({RUNNING}[1m]))",
            id="labels that are missing",
        ),
        pytest.param(
            "fleet:vllm:num_requests_running",
            f"last_over_time({RUNNING}[1m])",
            f"sum by (job, service, model, environment) (last_over_time({RUNNING}[1m]))",
            id="labels too many",
        ),
        pytest.param(
            "fleet:vllm:generation_tokens:increase5m",
            f"sum by (job, service, model, environment) (increase({FINISHED}[5m]))",
            f"sum by (job, service, model, environment) (increase({TOKENS}[5m]))",
            id="something else is counted",
        ),
        pytest.param(
            "fleet:vllm:tokens", "fleet:vllm:generation_tokens:increase5m", "", id="not in the catalogue"
        ),
    ],
)
def test_a_rule_records_what_the_catalogue_says(record: str, wrong: str, right: str) -> None:
    assert kinds(wrong, records=record) == ["record"]
    assert not right or kinds(right, records=record) == []


def test_labels_that_a_rule_adds_are_counted_in() -> None:
    text = "sum by (job, service, model, environment) (count_over_time(up[5m]))"
    assert kinds(text, records="fleet:slo_total:increase5m") == ["record"]
    assert kinds(text, records="fleet:slo_total:increase5m", adds={"slo": "success"}) == []


def test_only_the_rules_of_the_replicas_read_what_was_scraped() -> None:
    text = (
        f"max without (sampler) (vllm:generation_tokens_total{{{JOB}}} * on (instance, sampler) group_left "
        '(replica) count_values by (instance, sampler) ("replica", vllm:generation_tokens_created))'
    )
    assert kinds(text, records=TOKENS) == []
    assert kinds(f"count by (job) (vllm:generation_tokens_created{{{JOB}}})") == ["raw"]


def test_what_every_replica_says_alike_may_be_read_of_any() -> None:
    assert kinds(f"vllm:cache_config_info{{{JOB}}}") == []


def test_a_series_that_no_rule_records_is_empty() -> None:
    text = f"sum(last_over_time({RUNNING}[1m]))"
    expression = Expression("here", text)
    assert mistakes(expression, Surroundings("0.13", PROD.job, frozenset({RUNNING}))) == []
    (problem,) = mistakes(expression, Surroundings("0.13", PROD.job, frozenset()))
    assert "no rule records it" in problem.message


@pytest.mark.parametrize(
    ("text", "vllm", "remedy"),
    [
        ("rate(vllm:num_preemptions[5m])", "0.13", "use vllm:num_preemptions_total"),
        ("vllm_num_requests_waiting", "0.13", "use vllm:num_requests_waiting"),
        ("num_requests_waiting", "0.13", "use vllm:num_requests_waiting"),
        ("rate(vllm_generation_tokens[5m])", "0.13", "use vllm:generation_tokens_total"),
        ("replica:vllm:kv_cache_usage", "0.13", "use replica:vllm:kv_cache_usage_perc"),
        ("vllm_gpu_cache_usage_perc", "0.13", "use vllm:kv_cache_usage_perc"),
        ("vllm:gpu_cache_usage_perc", "0.13", "gone since vLLM 0.12: use vllm:kv_cache_usage_perc"),
        (
            "sum(rate(vllm:time_per_output_token_seconds_sum[5m]))",
            "0.15",
            "gone since vLLM 0.15: use vllm:inter_token_latency_seconds",
        ),
        (
            "rate(vllm:prompt_tokens_cached_total[5m])",
            "0.13",
            "vllm:prompt_tokens_cached_total comes with vLLM 0.16",
        ),
        ("rate(vllm:prompt_tokens_recomputed_total[5m])", "0.20", "nothing takes its place"),
        ("vllm:lora_requests_info", "0.13", "only there with --enable-lora"),
        ("sum by (pod) (up)", "0.13", ""),
        (f"sum(increase({FINISHED}{{reason='x'}}[5m]))", "0.13", "take one of engine, environment, finished"),
        (f"increase({TTFT}_bucket{{le='0.3'}}[5m])", "0.13", "use one of 0.001, 0.005,"),
        (f"sum({RUNNING})", "0.13", f"use last_over_time({RUNNING}[1m])"),
        ("sum(vllm:num_requests_running)", "0.13", f"use {RUNNING}"),
    ],
)
def test_a_problem_says_where_it_is_and_what_to_do(text: str, vllm: str, remedy: str) -> None:
    if not remedy:
        assert found(text, vllm) == []
        return
    problem = found(text, vllm)[0]
    assert remedy in problem.message
    assert str(problem).startswith("here: ")
    assert text in str(problem)


@pytest.mark.parametrize(
    ("text", "before", "since"),
    [
        ("sum(increase(replica:vllm:prompt_tokens_cached_total[5m]))", "0.15", "0.16"),
        ("sum(last_over_time(replica:vllm:num_requests_waiting_by_reason[1m]))", "0.19", "0.20"),
        ("max(vllm:cache_config_info{kv_cache_size_tokens!=''})", "0.23", "0.24"),
    ],
)
def test_what_a_version_brings_is_there_from_it_on(text: str, before: str, since: str) -> None:
    # `!=''` asks for a label, which is a mistake where it cannot be.
    text = text.replace("!=''", "=~'.+'")
    assert set(kinds(text, before)) <= {"version", "label"}
    assert kinds(text, before)
    assert kinds(text, since) == []


def panel(**fields: Any) -> dict[str, Any]:
    config = {"defaults": {"unit": fields.pop("unit", "short")}, "overrides": fields.pop("overrides", [])}
    return {"type": "timeseries", "title": "Tokens", "fieldConfig": config, **fields}


def dashboard(*panels: Mapping[str, Any], **fields: Any) -> list[Expression]:
    return [*of_dashboard("a.json", json.dumps({"panels": panels, **fields}))]


def test_expressions_of_a_dashboard_are_found_wherever_they_are() -> None:
    tokens = panel(targets=[{"refId": "A", "expr": "a"}, {"refId": "B", "expr": "b"}])
    row = {"type": "row", "title": "More", "panels": [panel(targets=[{"refId": "A", "expr": "c"}])]}
    annotations = {"list": [{"name": "Born", "expr": "d"}, {"name": "built in"}]}
    variables = [
        {"name": "model", "query": {"query": 'label_values(e{job="x"}, model_name)'}},
        {"name": "replica", "query": "query_result(f)"},
        {"name": "window", "type": "interval", "query": "5m,1h", "current": {"value": "5m"}},
    ]
    seen = dashboard(
        tokens,
        row,
        {"type": "text"},
        annotations=annotations,
        templating={"list": variables},
    )
    assert [(item.place, item.text, item.keeps) for item in seen] == [
        ("a.json / Tokens / A", "a", None),
        ("a.json / Tokens / B", "b", None),
        ("a.json / Tokens / A", "c", None),
        ("a.json / annotation Born", "d", None),
        ("a.json / variable model", 'e{job="x"}', "model_name"),
        ("a.json / variable replica", "f", None),
    ]


@pytest.mark.parametrize(
    ("matcher", "unit"),
    [
        ({"id": "byFrameRefID", "options": "A"}, "s"),
        ({"id": "byName", "options": "p95"}, "s"),
        ({"id": "byName", "options": "Value #A"}, "s"),
        ({"id": "byName", "options": "p50"}, "short"),
    ],
)
def test_an_override_sets_the_unit_of_a_query(matcher: dict[str, str], unit: str) -> None:
    override = {
        "matcher": matcher,
        "properties": [{"id": "decimals", "value": 1}, {"id": "unit", "value": "s"}],
    }
    target = {"refId": "A", "expr": "a", "legendFormat": "p95"}
    (seen,) = dashboard(panel(targets=[target], overrides=[override]))
    assert seen.unit == unit


@pytest.mark.parametrize("factor", ["{} * 2", "2 * {}", "{} > 0", "{} + {}", "{} or {}"])
def test_buckets_stay_buckets_in_an_expression(factor: str) -> None:
    buckets = factor.replace("{}", f"sum by (le) (increase({TTFT}_bucket[5m]))")
    assert kinds(f"histogram_quantile(0.95, {buckets})", unit="s") == []


def test_a_variable_asks_for_a_label_that_is_there() -> None:
    assert kinds(f"{RUNNING}{{{JOB}}}", keeps="model_name") == []
    assert kinds(f"{RUNNING}{{{JOB}}}", keeps="pod") == ["label"]


@pytest.mark.parametrize(
    ("text", "filled"),
    [
        ("rate(a[$__rate_interval])", "rate(a[1m])"),
        ("a[$__range:$__interval]", "a[1h:15s]"),
        ("a * $__range_s", "a * 3600"),
        ("a[${window}]", "a[10m]"),
        ('a{model=~"$model", replica=~"${replica:regex}"}', 'a{model=~"model", replica=~"replica"}'),
        ('label_replace(a, "b", "$1", "c", "(.*)")', 'label_replace(a, "b", "$1", "c", "(.*)")'),
    ],
)
def test_macros_are_filled_in_as_grafana_does(text: str, filled: str) -> None:
    assert without_macros(text, {"window": "10m"}) == filled


def test_expressions_of_rules_say_what_they_record() -> None:
    rules: list[Recording | Alert] = [
        Recording("fleet:slo_objective:ratio", "vector(0.9)", {"slo": "success"}),
        Alert("Down", "critical", "up == 0", "1m", "it is down", "look"),
    ]
    assert [*of_rules([Group("a", rules)])] == [
        Expression(
            "a / fleet:slo_objective:ratio",
            "vector(0.9)",
            records="fleet:slo_objective:ratio",
            adds={"slo": "success"},
        ),
        Expression("a / Down", "up == 0"),
    ]


TARGETS = {
    "everything": PROD,
    "as little as possible": replace(
        PROD,
        min_replicas=0,
        max_replicas=1,
        running_target=None,
        replica_eur_per_hour=None,
        platform_metrics=False,
    ),
}


@pytest.mark.parametrize("vllm", ["0.13", "0.16", "0.20", "0.24", NEWEST])
@pytest.mark.parametrize("name", TARGETS)
def test_what_is_provisioned_is_right_for_every_version(name: str, vllm: str) -> None:
    target = TARGETS[name]
    problems = check.problems(check.provisioned(target), target, vllm)
    assert not problems, "\n".join(map(str, problems))


def test_all_that_is_provisioned_is_checked() -> None:
    rules = [rule for group in bundle.groups(PROD) for rule in group.rules]
    texts = "".join(bundle.dashboards(PROD).values())
    variables = texts.count('"query": "label_values(')
    assert len(check.provisioned(PROD)) == len(rules) + texts.count('"expr":') + variables


def test_every_rule_and_panel_asks_for_the_endpoint() -> None:
    """A second endpoint on the same Prometheus is not counted in."""
    other = replace(PROD, job="vllm-other")
    ours, theirs = check.provisioned(PROD), check.provisioned(other)
    for mine, their in zip(ours, theirs, strict=True):
        if re.search(r"(replica|fleet):|vllm:", mine.text):
            assert mine.text != their.text, mine.place
            assert "job" in {problem.kind for problem in check.problems([mine], other, "0.13")}, mine.place


def test_the_command_says_what_would_break(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    breaks = Expression("a.json / TPOT / A", f"sum(increase({TTFT}_sum[5m]))")
    monkeypatch.setattr(check, "provisioned", lambda target: [breaks])
    assert command.main(["--vllm", "0.16"]) == 1
    first, _, *rest = capsys.readouterr().out.splitlines()
    assert first.startswith(
        "a.json / TPOT / A: replica:vllm:time_to_first_token_seconds_sum: no rule records"
    )
    assert rest == ["vLLM 0.16: 1 problems in 1 expressions"]


def test_the_command_is_content_with_the_version_of_the_image(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main([]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith("vLLM 0.13.0: 0 problems in ")


def test_its_example_is_an_endpoint_with_the_settings_that_stacks_begin_with() -> None:
    example = command.example(command.defaults(command.PROJECT))
    assert (example.objectives, example.prometheus_bytes) == (PROD.objectives, PROD.prometheus_bytes)
    assert len(check.provisioned(example)) == len(check.provisioned(PROD))


WAITING = "replica:vllm:num_requests_waiting"
CHAIN = [
    Expression("rules / of replicas", "vllm:num_requests_waiting", records=WAITING),
    Expression(
        "rules / fleet", f"sum(last_over_time({WAITING}[1m]))", records="fleet:vllm:num_requests_waiting"
    ),
    Expression("rules / Queue", "min_over_time(fleet:vllm:num_requests_waiting[5m]) > 1"),
    Expression("a.json / Running / A", f"sum(last_over_time({RUNNING}[1m]))"),
    Expression("a.json / Waiting / A", f"(sum(last_over_time({WAITING}[1m])) or vector(0)) * 1"),
]


def test_a_change_of_what_is_read_names_the_panels_and_rules_that_read_it() -> None:
    assert [*news.changes("0.19", "0.20", CHAIN)] == [
        "other in 0.20: vllm:num_requests_waiting counts requests that are deferred as well; "
        "num_requests_waiting_by_reason tells them apart",
        "    rules / fleet",
        "    rules / Queue",
        "    a.json / Waiting / A",
    ]


@pytest.mark.parametrize(("old", "new"), [("0.13", "0.19"), ("0.20", "0.33"), ("0.20", "0.20")])
def test_a_change_outside_of_the_step_or_that_nobody_reads_is_not_told(old: str, new: str) -> None:
    assert [*news.changes(old, new, CHAIN)] == []
    assert [*news.changes("0.13", "0.33", CHAIN[3:4])] == []


def test_changes_are_told_in_the_order_of_versions() -> None:
    told = [line for line in news.changes("0.13", "0.33", check.provisioned(PROD)) if line[0] != " "]
    assert [line.split(":")[0] for line in told] == ["other in 0.17", "other in 0.20", "other in 0.23"]


def test_only_the_objective_that_reads_a_family_is_named() -> None:
    metric = catalogue.find("vllm:request_success_total")
    assert metric is not None
    alerts = {place.rpartition(" / ")[2] for place in readers(metric, check.provisioned(PROD))}
    assert {"VllmSuccessBurnsFast", "VllmManyAborts", "fleet:slo_good:increase5m"} <= alerts
    assert not alerts & {"VllmTimeToFirstTokenBurnsFast", "VllmAvailabilityBurnsFast"}


def test_what_an_older_version_does_not_do_yet_is_told() -> None:
    assert next(news.changes("0.20", "0.13", CHAIN)).startswith(
        "not yet before 0.20: vllm:num_requests_waiting counts requests"
    )
    assert [*news.families("0.16", "0.13")][:3] == [
        "missing before 0.16: vllm:prompt_tokens_by_source_total",
        "missing before 0.16: vllm:prompt_tokens_cached_total",
        "missing before 0.16: vllm:prompt_tokens_recomputed_total",
    ]
    assert any(
        line.startswith("there before 0.20: vllm:prompt_tokens_recomputed_total: ")
        for line in news.families("0.20", "0.19")
    )


def test_families_that_came_or_went_are_told_when_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["--vllm", "0.20"]) == 0
    assert "new in" not in capsys.readouterr().out
    assert command.main(["--vllm", "0.20", "--all"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert (
        "new in 0.16: vllm:prompt_tokens_cached_total: Number of cached prompt tokens (local + external)."
        in lines
    )
    assert (
        "gone, even with --show-hidden-metrics-for-version 0.12: vllm:time_per_output_token_seconds" in lines
    )
    assert next(news.families("0.19", "0.20")) == "gone in 0.20: vllm:prompt_tokens_recomputed_total"
    assert [*news.families("0.13", "0.13")] == []


@pytest.mark.parametrize(
    ("argument", "message"),
    [("latest", "'latest' is no version of vLLM"), ("0.12", "knows vLLM 0.13 to"), ("9.9", "not 9.9")],
)
def test_a_version_that_is_not_known_is_refused(
    argument: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as exit_:
        command.main(["--vllm", argument])
    assert exit_.value.code == 2
    assert message in capsys.readouterr().err


def test_what_is_deployed_does_not_need_the_parser() -> None:
    """It is a requirement of development only."""
    program = (
        "import sys; sys.modules['promql_parser'] = None; import dashboards.bundle; "
        "sys.exit('dashboards.check' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], cwd=Path(__file__).parents[2], check=True)

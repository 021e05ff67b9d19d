"""The dashboard shows the metrics of the reference architecture, and each expression means something."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import promql_parser as promql
import pytest

from dashboards import vllm

JOB = "vllm-ministral"
EXPOSITION = (Path(__file__).parents[1] / "fixtures" / "vllm-0.13.0-metrics.txt").read_text()
"""`/metrics` of a real vLLM 0.13.0."""
TYPES = dict(re.findall(r"^# TYPE (\S+) (\w+)$", EXPOSITION, re.MULTILINE))
"""Type of each metric family."""
SERIES = set(re.findall(r"^([a-zA-Z_:][\w:]*)", EXPOSITION, re.MULTILINE))
"""Names of all series."""

ARTICLE = {
    "vllm:time_to_first_token_seconds",
    "vllm:inter_token_latency_seconds",
    "vllm:e2e_request_latency_seconds",
    "vllm:request_success_total",
    "vllm:kv_cache_usage_perc",
    "vllm:num_requests_running",
    "vllm:num_requests_waiting",
    "vllm:num_preemptions_total",
    "vllm:prompt_tokens_total",
    "vllm:generation_tokens_total",
}
"""The ten metrics of the reference architecture."""


@pytest.fixture(scope="module")
def dashboard() -> dict[str, Any]:
    built: dict[str, Any] = json.loads(vllm.build(JOB))
    return built


def panels(dashboard: dict[str, Any]) -> list[dict[str, Any]]:
    return [panel for panel in dashboard["panels"] if panel["type"] != "row"]


def parse(expression: str) -> promql.Expr:
    """Grafana fills in its interval when it asks Prometheus."""
    return promql.parse(expression.replace("$__rate_interval", "1m"))


def parts(expression: promql.Expr) -> list[promql.Expr]:
    """All nodes of an expression, outer ones first."""
    found: list[promql.Expr] = []
    promql.walk(expression, found.append)
    return found


def expressions(dashboard: dict[str, Any]) -> Iterator[promql.Expr]:
    for panel in panels(dashboard):
        for target in panel["targets"]:
            yield parse(target["expr"])


def selectors(expression: promql.Expr) -> list[promql.VectorSelector]:
    """Selectors of series; a range is the selector inside it."""
    return [
        node.vector_selector if isinstance(node, promql.MatrixSelector) else node
        for node in parts(expression)
        if isinstance(node, promql.MatrixSelector | promql.VectorSelector)
    ]


def series(expression: promql.Expr) -> set[str]:
    """Names of the series that an expression reads."""
    return {selector.name or "" for selector in selectors(expression)}


def calls(expression: promql.Expr, name: str) -> list[promql.Call]:
    return [node for node in parts(expression) if isinstance(node, promql.Call) and node.func.name == name]


def family(name: str) -> str:
    """The metric family of a series: those of a histogram have an ending."""
    return name if name in TYPES else re.sub("_(bucket|count|sum)$", "", name)


def test_the_address_is_that_of_the_reference_architecture(dashboard: dict[str, Any]) -> None:
    assert dashboard["uid"] == vllm.UID == "vllm-ministral-monitoring"
    assert vllm.SLUG == "ministral-14b-vllm-metrics-monitoring"
    # Grafana makes the slug from the title.
    assert re.sub(r"[^a-z0-9]+", "-", dashboard["title"].lower()) == vllm.SLUG


def test_it_is_stable_and_of_the_classic_schema(dashboard: dict[str, Any]) -> None:
    """A text that changes by itself would change the ConfigMap in every preview."""
    assert vllm.build(JOB) == vllm.build(JOB)
    assert dashboard["schemaVersion"] >= 36
    assert "id" not in dashboard or dashboard["id"] is None


def test_it_shows_the_ten_metrics_of_the_reference_architecture(dashboard: dict[str, Any]) -> None:
    shown = {family(name) for tree in expressions(dashboard) for name in series(tree)}
    assert shown == ARTICLE


def test_every_series_exists_in_vllm(dashboard: dict[str, Any]) -> None:
    for tree in expressions(dashboard):
        assert series(tree) <= SERIES


def test_every_label_that_is_kept_exists_in_vllm(dashboard: dict[str, Any]) -> None:
    for tree in expressions(dashboard):
        names = series(tree)
        for node in parts(tree):
            if isinstance(node, promql.AggregateExpr) and node.modifier is not None:
                for label in node.modifier.labels:
                    assert all(re.search(rf"^{name}{{[^}}]*\b{label}=", EXPOSITION, re.M) for name in names)


def test_every_selector_is_of_the_scrape_job(dashboard: dict[str, Any]) -> None:
    """Another vLLM in the cluster, or a second job of the same one, must not be counted in."""
    for tree in expressions(dashboard):
        for selector in selectors(tree):
            matchers = [(item.name, str(item.op), item.value) for item in selector.matchers.matchers]
            assert ("job", str(promql.MatchOp.Equal), JOB) in matchers


def test_another_job_gets_a_dashboard_of_its_own() -> None:
    assert vllm.build("vllm-other") == vllm.build(JOB).replace(JOB + '\\"', 'vllm-other\\"')


def test_counters_are_rated_and_gauges_are_not(dashboard: dict[str, Any]) -> None:
    for tree in expressions(dashboard):
        rated = {name for call in calls(tree, "rate") for name in series(call)}
        for name in series(tree):
            assert (name in rated) == (TYPES[family(name)] != "gauge")


def test_quantiles_keep_the_bounds_of_the_buckets(dashboard: dict[str, Any]) -> None:
    """Without `le` a quantile is NaN, and the panel empty."""
    quantiles = [call for tree in expressions(dashboard) for call in calls(tree, "histogram_quantile")]
    assert len(quantiles) == 9
    for call in quantiles:
        aggregation = call.args[1]
        assert isinstance(aggregation, promql.AggregateExpr)
        assert aggregation.modifier is not None
        assert aggregation.modifier.type == promql.AggModifierType.By
        assert "le" in aggregation.modifier.labels
        assert all(name.endswith("_bucket") for name in series(call))


def test_the_rate_interval_is_grafanas(dashboard: dict[str, Any]) -> None:
    """A fixed range shows nothing once the scrape interval is longer than half of it."""
    for panel in panels(dashboard):
        for target in panel["targets"]:
            assert target["expr"].count("rate(") == target["expr"].count("[$__rate_interval]")
            assert target["expr"].count("[") == target["expr"].count("[$__rate_interval]")


def test_units_fit_what_is_shown(dashboard: dict[str, Any]) -> None:
    for panel in panels(dashboard):
        defaults = panel["fieldConfig"]["defaults"]
        shown = {family(name) for target in panel["targets"] for name in series(parse(target["expr"]))}
        match sorted(shown):
            case [name] if name.endswith("_seconds"):
                assert defaults["unit"] == "s"
            case ["vllm:kv_cache_usage_perc"]:
                # vLLM's 1 is 100 %.
                assert (defaults["unit"], defaults["max"]) == ("percentunit", 1)
            case ["vllm:request_success_total"]:
                assert defaults["unit"] == "reqps"
            case _:
                assert defaults["unit"] == "short"
        assert defaults["min"] == 0


def test_every_panel_has_title_description_and_the_provisioned_datasource(dashboard: dict[str, Any]) -> None:
    shown = panels(dashboard)
    assert len({panel["title"] for panel in shown}) == len(shown)
    for panel in shown:
        assert len(panel["description"]) > 20
        # The uid that the chart gives its datasource.
        assert panel["datasource"] == {"type": "prometheus", "uid": "prometheus"}


def test_queries_of_a_panel_can_be_told_apart(dashboard: dict[str, Any]) -> None:
    for panel in panels(dashboard):
        targets = panel["targets"]
        for key in ("refId", "legendFormat"):
            assert len({target[key] for target in targets}) == len(targets)
            assert all(target[key] for target in targets)


def test_panels_do_not_overlap(dashboard: dict[str, Any]) -> None:
    taken: set[tuple[int, int]] = set()
    for panel in dashboard["panels"]:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken
        assert max(x for x, _ in cells) < 24
        taken |= cells

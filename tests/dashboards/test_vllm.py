"""The dashboard can be read: it shows what it should, says how to take it, and is laid out whole."""

from __future__ import annotations

import json
import re
import subprocess
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import promql_parser as promql
import pytest
import yaml

from dashboards import bundle, vllm
from dashboards.target import Latency, Target
from tests.dashboards.golden import FOLDER, TARGET

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

ROWS = {
    "Verdict: are the users well served?": 8,
    "Requests, errors, durations": 9,
    "Why is TTFT slow?": 6,
    "Saturation: how close to the limits?": 7,
    "Throughput and cost": 7,
    "Capacity and scaling": 5,
    "Caches": 3,
    "Monitoring of the monitoring": 10,
}
"""Panels of each row."""

SHARES = "percentunit"

Json = dict[str, Any]


def board(target: Target) -> Json:
    built: Json = json.loads(vllm.build(target))
    return built


@pytest.fixture(scope="module")
def dashboard() -> Json:
    return board(TARGET)


def panels(dashboard: Json) -> list[Json]:
    return [panel for panel in dashboard["panels"] if panel["type"] != "row"]


def rows(dashboard: Json) -> dict[str, list[Json]]:
    """The panels below each row."""
    found: dict[str, list[Json]] = {}
    for panel in dashboard["panels"]:
        if panel["type"] == "row":
            found[panel["title"]] = []
        else:
            found[list(found)[-1]].append(panel)
    return found


def panel(dashboard: Json, title: str) -> Json:
    (found,) = (panel for panel in panels(dashboard) if panel["title"] == title)
    return found


def expressions(panel: Json) -> list[str]:
    return [target["expr"] for target in panel.get("targets", ())]


def all_expressions(dashboard: Json) -> Iterator[str]:
    for shown in panels(dashboard):
        yield from expressions(shown)
    for annotation in dashboard["annotations"]["list"]:
        yield annotation["expr"]


def selectors(expression: str) -> list[promql.VectorSelector]:
    """The selectors of an expression; a range is the selector inside it."""
    found: list[promql.VectorSelector] = []

    def visit(node: promql.Expr) -> None:
        if isinstance(node, promql.MatrixSelector):
            found.append(node.vector_selector)
        elif isinstance(node, promql.VectorSelector):
            found.append(node)

    promql.walk(promql.parse(expression.replace("$__interval", "1m")), visit)
    return found


def matchers(selector: promql.VectorSelector) -> dict[str, str]:
    return {matcher.name: matcher.value for matcher in selector.matchers.matchers}


def limits(panel: Json) -> list[float]:
    """Numbers at which a panel's colours change."""
    steps = panel["fieldConfig"]["defaults"]["thresholds"]["steps"]
    return [step["value"] for step in steps[1:]]


def test_the_address_is_that_of_the_reference_architecture(dashboard: Json) -> None:
    assert dashboard["uid"] == vllm.UID == "vllm-ministral-monitoring"
    assert vllm.SLUG == "ministral-14b-vllm-metrics-monitoring"
    # Grafana makes the slug from the title.
    assert re.sub(r"[^a-z0-9]+", "-", dashboard["title"].lower()) == vllm.SLUG


def test_it_is_stable_and_of_the_classic_schema(dashboard: Json) -> None:
    """A text that changes by itself would change the ConfigMap in every preview."""
    assert vllm.build(TARGET) == vllm.build(TARGET)
    assert dashboard["schemaVersion"] >= 36
    assert "id" not in dashboard or dashboard["id"] is None


@pytest.mark.parametrize("name", sorted(bundle.dashboards(TARGET)))
def test_nothing_changes_unseen(name: str) -> None:
    golden, built = (FOLDER / name).read_text(), f"{bundle.dashboards(TARGET)[name]}\n"
    assert golden == built, (
        f"{name} changed: `python -m tests.dashboards.golden` writes it, git diff shows it"
    )


def test_every_dashboard_has_a_golden_file() -> None:
    assert {path.name for path in FOLDER.glob("*.json")} == set(bundle.dashboards(TARGET))


def test_it_fits_into_a_config_map() -> None:
    """Kubernetes takes 1 MiB for a ConfigMap, keys and labels included."""
    texts = bundle.dashboards(replace(TARGET, job="j" * 253, max_replicas=10)).values()
    assert sum(len(text.encode()) for text in texts) < 1_000_000


def test_it_shows_the_ten_metrics_of_the_reference_architecture(dashboard: Json) -> None:
    shown = {selector.name or "" for text in all_expressions(dashboard) for selector in selectors(text)}
    for family in ARTICLE:
        assert any(name.startswith(f"replica:{family}") for name in shown), family


def test_the_rows_go_from_the_verdict_to_the_monitoring_itself(dashboard: Json) -> None:
    found = rows(dashboard)
    assert list(found) == list(ROWS)
    assert {title: len(below) for title, below in found.items()} == ROWS
    assert sum(ROWS.values()) >= 36


def test_only_recorded_series_and_the_monitoring_itself_are_read(dashboard: Json) -> None:
    """A counter of the scrapes mixes up the replicas: its rate is wrong by factors."""
    known = re.compile(r"replica:|fleet:|up$|scrape_|prometheus_|alertmanager_|ALERTS$")
    for text in all_expressions(dashboard):
        for selector in selectors(text):
            assert known.match(selector.name or ""), text


def test_every_series_about_the_endpoint_is_of_its_job(dashboard: Json) -> None:
    """A second endpoint in the same Prometheus must not be counted in."""
    for text in all_expressions(dashboard):
        for selector in selectors(text):
            if re.match(r"replica:|fleet:|up$|scrape_", selector.name or ""):
                assert matchers(selector)["job"] in (TARGET.job, TARGET.platform_job), text
            if "rule" in (selector.name or ""):
                assert TARGET.job in matchers(selector)["rule_group"]


def test_windows_do_not_follow_the_zoom_below_a_minute(dashboard: Json) -> None:
    """A window of four scrapes, which `$__rate_interval` may be, misses replicas."""
    asked = [
        (target["expr"], target.get("interval")) for one in panels(dashboard) for target in one["targets"]
    ]
    asked += [(mark["expr"], mark["step"]) for mark in dashboard["annotations"]["list"]]
    for text, least in asked:
        allowed = {"$model", "$replica"} | ({"$__interval"} if least == "1m" else set())
        assert set(re.findall(r"\$[a-z_]\w*", text)) <= allowed
        assert set(re.findall(r"(?<=increase\()[^()]*\[(\w+)\]", text)) <= {"5m"}


def test_the_variables_choose_models_and_replicas(dashboard: Json) -> None:
    model, replica = dashboard["templating"]["list"]
    for variable, label in ((model, "model_name"), (replica, "replica")):
        assert variable["type"] == "query"
        assert re.fullmatch(rf"label_values\(replica:.+\{{.+\}}, {label}\)", variable["query"])
        assert TARGET.selector in variable["query"]
        assert (variable["multi"], variable["includeAll"]) == (True, True)
        assert variable["current"]["value"] == ["$__all"]
        # With All, a replica that is born after the page was opened is shown as well.
        assert variable["allValue"] == ".*"
        assert variable["datasource"]["uid"] == "prometheus"
    assert (model["name"], replica["name"]) == ("model", "replica")
    assert '"$model"' in replica["query"]


def test_the_verdict_is_on_the_whole_fleet(dashboard: Json) -> None:
    verdict, *others = rows(dashboard).values()
    assert not any("$" in text for shown in verdict for text in expressions(shown))
    for below in others[:3]:
        assert any("$replica" in text for shown in below for text in expressions(shown))


def test_what_is_shown_by_replica_follows_the_variables(dashboard: Json) -> None:
    for shown in panels(dashboard):
        if shown["title"] == "Replicas that came and went":
            continue
        for text in expressions(shown):
            # Whether a replica is there at all does not depend on what is chosen.
            for selector in selectors(text.split(" and on (replica) ")[0]):
                name = selector.name or ""
                if name.startswith("replica:"):
                    chosen = matchers(selector)
                    assert chosen["replica"] == "$replica", text
                    # Without a label to match, choosing a model would empty the panel.
                    assert ("model_name" in chosen) == name.startswith("replica:vllm:"), text


@pytest.mark.parametrize(
    "title", ["Time to first token", "Inter-token latency", "Time per output token", "End-to-end latency"]
)
def test_latencies_have_their_quantiles_and_their_mean(dashboard: Json, title: str) -> None:
    shown = panel(dashboard, title)
    assert [target["legendFormat"] for target in shown["targets"]] == ["p50", "p95", "p99", "mean"]
    for quantile, text in zip((0.5, 0.95, 0.99), expressions(shown), strict=False):
        assert text.startswith(f"histogram_quantile({quantile}, ")
    assert re.search(r"_sum\{.+/ \(.+_count\{", expressions(shown)[3])


def test_every_panel_says_how_to_read_it(dashboard: Json) -> None:
    shown = panels(dashboard)
    assert len({one["title"] for one in shown}) == len(shown)
    for one in shown:
        assert re.fullmatch(r".{80,}\.", one["description"]), one["title"]
        # The uid that the chart gives its datasource.
        assert one["datasource"] == {"type": "prometheus", "uid": "prometheus"}
        assert one["fieldConfig"]["defaults"]["unit"]
        assert one["fieldConfig"]["defaults"]["noValue"]


def test_panels_have_numbers_for_their_addresses(dashboard: Json) -> None:
    assert [panel["id"] for panel in dashboard["panels"]] == list(range(1, len(dashboard["panels"]) + 1))


def test_all_kinds_of_panels_are_used_where_they_fit(dashboard: Json) -> None:
    kinds = Counter(panel["type"] for panel in panels(dashboard))
    assert set(kinds) == {
        *("timeseries", "stat", "gauge", "bargauge", "heatmap", "table"),
        "state-timeline",
    }
    assert [one["title"] for one in panels(dashboard) if one["type"] == "heatmap"] == [
        "Time to first token, distribution"
    ]


def test_legends_are_shown(dashboard: Json) -> None:
    """The library hides them if it is not told."""
    for shown in panels(dashboard):
        if shown["type"] in ("timeseries", "state-timeline"):
            assert shown["options"]["legend"]["showLegend"] is True
        if shown["type"] == "heatmap":
            assert shown["options"]["legend"]["show"] is True


def test_queries_of_a_panel_can_be_told_apart(dashboard: Json) -> None:
    for shown in panels(dashboard):
        targets = shown["targets"]
        for key in ("refId", "legendFormat"):
            assert len({target[key] for target in targets}) == len(targets), shown["title"]
            assert all(target[key] for target in targets)


def test_a_legend_names_labels_that_the_query_keeps(dashboard: Json) -> None:
    """Others would be empty, and all series have the same name."""
    for shown in panels(dashboard):
        for target in shown["targets"]:
            for label in re.findall(r"{{(\w+)}}", target["legendFormat"]):
                kept = rf'by \([^)]*\b{label}\b[^)]*\)|label_replace\(.+"{label}"'
                assert re.search(kept, target["expr"]), shown["title"]


def test_single_values_ask_for_now_and_lines_for_the_range(dashboard: Json) -> None:
    for shown in panels(dashboard):
        instant = {bool(target.get("instant")) for target in shown["targets"]}
        match shown["type"]:
            case "gauge" | "bargauge" | "table":
                assert instant == {True}
            case "timeseries" | "heatmap" | "state-timeline":
                assert instant == {False}


def test_panels_do_not_overlap_and_rows_are_full(dashboard: Json) -> None:
    taken: set[tuple[int, int]] = set()
    for shown in dashboard["panels"]:
        place = shown["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken
        assert max(x for x, _ in cells) < 24
        taken |= cells
    height = max(y for _, y in taken) + 1
    assert len(taken) == 24 * height


def test_colours_are_never_grafanas_own(dashboard: Json) -> None:
    """Without thresholds it turns red at 80, whatever the unit."""
    for shown in panels(dashboard):
        first, *others = shown["fieldConfig"]["defaults"]["thresholds"]["steps"]
        assert first["value"] is None
        assert limits(shown) == sorted(set(limits(shown)))
        style = shown["fieldConfig"]["defaults"].get("custom", {}).get("thresholdsStyle", {}).get("mode")
        if shown["type"] == "timeseries":
            assert style == ("dashed" if others else "off")


def test_dashed_lines_are_within_the_axis(dashboard: Json) -> None:
    """An axis does not grow to its thresholds: a line that descriptions speak of would be out of sight."""
    for shown in panels(dashboard):
        if shown["type"] == "timeseries" and limits(shown):
            defaults = shown["fieldConfig"]["defaults"]
            assert (defaults.get("max") or defaults["custom"]["axisSoftMax"]) >= limits(shown)[0]
    burns = panel(dashboard, "Burn rate, 1 hour")
    assert burns["fieldConfig"]["defaults"]["custom"]["axisSoftMax"] == limits(burns)[-1]


def test_every_dashed_line_is_explained(dashboard: Json) -> None:
    for title in ("Time to first token", "Inter-token latency", "Time to first token p95 by replica"):
        assert limits(panel(dashboard, title))
        assert "dashed line is the objective" in panel(dashboard, title)["description"]
    # It is another quantity than the objective's gaps.
    assert not limits(panel(dashboard, "Time per output token"))


def test_axes_of_shares_are_not_left_to_the_data(dashboard: Json) -> None:
    """Else 0.1 % fills the panel as 90 % would."""
    for shown in panels(dashboard):
        defaults = shown["fieldConfig"]["defaults"]
        if defaults["unit"] == SHARES:
            top = defaults.get("max") or defaults["custom"]["axisSoftMax"]
            assert defaults["min"] == 0, shown["title"]
            assert 0 < top <= 1, shown["title"]
            assert all(0 < value <= 1 for value in limits(shown))


def test_single_shares_have_limits(dashboard: Json) -> None:
    for shown in panels(dashboard):
        if shown["fieldConfig"]["defaults"]["unit"] == SHARES and shown["type"] != "timeseries":
            assert limits(shown), shown["title"]


def test_objectives_are_drawn_where_they_count() -> None:
    objectives = replace(
        TARGET.objectives,
        time_to_first_token=Latency(2.5, 0.9),
        inter_token_latency=Latency(0.05, 0.99),
        success=0.97,
    )
    built = board(replace(TARGET, objectives=objectives))
    assert limits(panel(built, "Time to first token")) == [2.5]
    assert limits(panel(built, "Queue and prefill against TTFT, p95")) == [2.5]
    assert limits(panel(built, "Inter-token latency")) == [0.05]
    assert limits(panel(built, "Failed share")) == [0.03]
    attained = panel(built, "Objectives attained, 7 days")
    promised = {
        override["matcher"]["options"]: override["properties"][0]["value"]["steps"][1]["value"]
        for override in attained["fieldConfig"]["overrides"]
    }
    assert promised == {
        "time_to_first_token": 0.9,
        "inter_token_latency": 0.99,
        "success": 0.97,
        "availability": 0.995,
    }


@pytest.mark.parametrize(("seconds", "bound"), [(1, "1.0"), (0.5, "0.5"), (2.5, "2.5"), (40, "40.0")])
def test_goodput_asks_for_the_bucket_as_prometheus_names_it(seconds: float, bound: str) -> None:
    """`le="1"` matches nothing: Prometheus 3 writes bounds as floats."""
    objectives = replace(TARGET.objectives, time_to_first_token=Latency(seconds, 0.95))
    in_time, _ = expressions(panel(board(replace(TARGET, objectives=objectives)), "Goodput"))
    assert matchers(selectors(in_time)[0])["le"] == bound


def test_the_scalers_bounds_are_drawn() -> None:
    built = board(replace(TARGET, min_replicas=2, max_replicas=6, running_target=40))
    assert limits(panel(built, "Running requests by replica")) == [40]
    assert {"vector(2)", "vector(6)"} <= set(expressions(panel(built, "Replicas")))
    assert expressions(panel(built, "Load of the largest fleet"))[0].endswith("/ 240")
    assert limits(panel(built, "Replicas seen and ready")) == [2]


def test_no_target_is_drawn_that_is_not_of_running_requests() -> None:
    """A target of 0.8 (of the KV cache) among 50 running requests would say that all is lost."""
    built = board(replace(TARGET, running_target=None))
    assert limits(panel(built, "Running requests by replica")) == []
    assert "Load of the largest fleet" not in [one["title"] for one in panels(built)]
    test_panels_do_not_overlap_and_rows_are_full(built)


def test_births_and_deaths_are_marked_and_counted(dashboard: Json) -> None:
    marks = {annotation["name"]: annotation for annotation in dashboard["annotations"]["list"]}
    assert list(marks) == ["Replica appeared", "Replica gone", "Alert"]
    assert marks["Replica appeared"]["expr"] != marks["Replica gone"]["expr"]
    assert [mark["enable"] for mark in marks.values()] == [True, True, False]
    assert all(mark["datasource"]["uid"] == "prometheus" for mark in marks.values())
    appeared, gone = expressions(panel(dashboard, "Replicas that came and went"))
    assert appeared.startswith("count(")
    assert gone.startswith("-count(")


def test_costs_are_those_of_the_price() -> None:
    hour, generated, _ = (
        expressions(shown)[index]
        for shown, index in (
            (panel(board(replace(TARGET, replica_eur_per_hour=1.55)), title), index)
            for title, index in (
                ("Cost per hour", 0),
                ("Cost per million tokens", 0),
                ("Cost per million tokens", 1),
            )
        )
    )
    assert hour.endswith("* 1.55")
    # Euro per hour, by what is generated in an hour: twelve times five minutes.
    assert "* 1.55 * 1e6 / (clamp_min(" in generated
    assert generated.endswith("* 12)")


def test_an_unknown_price_is_said_in_words() -> None:
    """A query with a price of None would be an error in the panel."""
    built = board(replace(TARGET, replica_eur_per_hour=None))
    assert '"currencyEUR"' not in json.dumps(built)
    (text,) = (one for one in panels(built) if one["type"] == "text")
    assert "price" in text["options"]["content"]
    assert not text.get("targets")
    assert not any("None" in expression for expression in all_expressions(built))
    test_panels_do_not_overlap_and_rows_are_full(built)


def test_a_platform_that_is_not_asked_is_not_shown() -> None:
    built = board(replace(TARGET, platform_metrics=False))
    for text in all_expressions(built):
        assert "replicas_ready" not in text
        assert TARGET.platform_job not in text
    assert "replicas_ready" in vllm.build(TARGET)


def never_zero(node: object) -> bool:
    """Whether it is seen that an expression has no value that is 0."""
    match node:
        case promql.ParenExpr():
            return never_zero(node.expr)
        case promql.NumberLiteral():
            return node.val != 0
        case promql.Call():
            return node.func.name in ("clamp", "clamp_min")
        case promql.BinaryExpr() if str(node.op) == "*":
            return never_zero(node.lhs) and never_zero(node.rhs)
        case promql.BinaryExpr():
            return (str(node.op), getattr(node.rhs, "val", None)) == (">", 0)
        case promql.VectorSelector():
            return node.name == "prometheus_rule_group_interval_seconds"
    return False


def test_no_division_by_nothing(dashboard: Json) -> None:
    """0 / 0 is NaN, which a stat shows and a table sorts by: of nothing there is no share and no mean."""

    def visit(node: promql.Expr) -> None:
        if isinstance(node, promql.BinaryExpr) and str(node.op) == "/":
            assert never_zero(node.rhs), node.rhs.prettify()

    for text in all_expressions(dashboard):
        promql.walk(promql.parse(text.replace("$__interval", "1m")), visit)


@pytest.mark.parametrize(("runbooks", "links"), [("https://example.com/runbooks", 1), ("docs/runbooks", 0)])
def test_only_an_address_is_linked(runbooks: str, links: int) -> None:
    """A path of the repository leads nowhere from Grafana."""
    found = board(replace(TARGET, runbooks=runbooks)).get("links") or []
    assert [link["url"] for link in found] == [runbooks] * links


def test_a_row_of_the_table_is_a_replica_that_lives(dashboard: Json) -> None:
    """Counters tell of the last five minutes, so of replicas that are gone: rows of nothing else."""
    for text in expressions(panel(dashboard, "Replicas one by one")):
        assert "[1m]" in text
        assert ("[5m]" in text) == (" and on (replica) count by (replica)" in text)


def test_replicas_are_in_the_order_of_their_births(dashboard: Json) -> None:
    """Prometheus has no order of its own: rows would change places with every refresh."""
    table = panel(dashboard, "Replicas one by one")
    born = table["targets"][0]
    assert (born["legendFormat"], table["options"]["sortBy"]) == (
        "born",
        [{"displayName": "born", "desc": False}],
    )
    assert born["expr"].startswith("sort(1000 * ")
    assert expressions(panel(dashboard, "Age of the replicas"))[0].startswith("sort_desc(")


def test_whole_replicas_have_no_slopes(dashboard: Json) -> None:
    custom = panel(dashboard, "Replicas")["fieldConfig"]["defaults"]["custom"]
    assert custom["lineInterpolation"] == "stepAfter"


def test_legends_of_tokens_have_a_unit(dashboard: Json) -> None:
    """A label of the axis is not in the legend, which would say `459`."""
    units = {one["title"]: one["fieldConfig"]["defaults"]["unit"] for one in panels(dashboard)}
    assert {title: unit for title, unit in units.items() if "okens" in title and unit != "currencyEUR"} == {
        "Prompt tokens computed": "count:tokens/s",
        "Tokens per engine step by replica": "count:tokens",
        "Tokens per second": "count:tokens/s",
        "Generated tokens per second by replica": "count:tokens/s",
        "Prompt tokens per second by replica": "count:tokens/s",
        "Tokens per request": "count:tokens",
    }


def test_the_description_names_the_model(dashboard: Json) -> None:
    """The title is that of the reference architecture, whatever the stack serves."""
    assert "model ministral" in dashboard["description"]
    other = board(replace(TARGET, labels={**TARGET.labels, "model": "small"}))
    assert "model small" in other["description"]


def test_colours_of_the_heatmap_follow_the_counts(dashboard: Json) -> None:
    """With the library's exponent of 0 every cell has the colour of the highest."""
    assert panel(dashboard, "Time to first token, distribution")["options"]["color"]["exponent"] == 0.5


# --- What Prometheus makes of the expressions ------------------------------------------------------------

COMMON = 'job="vllm-ministral",model_name="m"'
HTTP = 'job="vllm-ministral",handler="/v1/chat/completions",method="POST"'
HEAD = "prometheus_tsdb_head_series"


def evaluate(
    promtool: Path,
    folder: Path,
    series: Mapping[str, str],
    expected: list[tuple[int, str, Mapping[str, float]]],
) -> None:
    """Fails unless expressions have these values (by labels) at their minutes.

    Series are in promtool's notation, a sample each 5 s; a point is each 5 minutes, and time begins at 0.
    """
    tests = [
        {
            "expr": re.sub(r"\$(model|replica)\b", ".*", expression).replace("$__interval", "5m"),
            "eval_time": f"{minute}m",
            "exp_samples": [{"labels": labels, "value": value} for labels, value in values.items()],
        }
        for minute, expression, values in expected
    ]
    inputs = [{"series": name, "values": values} for name, values in series.items()]
    document = {
        "evaluation_interval": "5s",
        "fuzzy_compare": True,
        "tests": [{"interval": "5s", "input_series": inputs, "promql_expr_test": tests}],
    }
    (folder / "test.yml").write_text(yaml.safe_dump(document, width=10**9))
    command = [str(promtool), "test", "rules", "test.yml"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_young_replica_is_as_fast_as_an_old_one(promtool: Path, tmp_path: Path, dashboard: Json) -> None:
    """Its tokens of one minute, spread over five, look as if it did a fifth of its work."""
    tokens, born = "replica:vllm:generation_tokens_total", "replica:vllm:generation_tokens_created"
    running = "replica:vllm:num_requests_running"
    (generated,) = expressions(panel(dashboard, "Generated tokens per second by replica"))
    column = expressions(panel(dashboard, "Replicas one by one"))[5]
    rates = {f'{{replica="{name}"}}': 10.0 for name in ("old", "young", "silent")}
    evaluate(
        promtool,
        tmp_path,
        {
            f'{tokens}{{{COMMON},replica="old"}}': "1000+50x240",
            f'{born}{{{COMMON},replica="old"}}': "-9000x240",
            f'{tokens}{{{COMMON},replica="young"}}': "_x108 0+50x131",
            f'{born}{{{COMMON},replica="young"}}': "_x108 540x131",
            # One that does not say when it was born.
            f'{tokens}{{{COMMON},replica="silent"}}': "1000+50x240",
            **{f'{running}{{{COMMON},replica="{name}"}}': "1x240" for name in ("old", "young", "silent")},
        },
        [(minute, text, rates) for minute in (10, 20) for text in (generated, column)],
    )


def test_an_idle_endpoint_has_no_latency_and_no_share(
    promtool: Path, tmp_path: Path, dashboard: Json
) -> None:
    """Not 0 s and 0 %, as if they were measured."""
    counters = {
        **{
            f'replica:vllm:time_to_first_token_seconds_{part}{{{COMMON},replica="1"{le}}}': "100x240"
            for part, le in (("sum", ""), ("count", ""), ("bucket", ',le="1.0"'), ("bucket", ',le="+Inf"'))
        },
        f'replica:vllm:prefix_cache_queries_total{{{COMMON},replica="1"}}': "100x240",
        f'replica:vllm:prefix_cache_hits_total{{{COMMON},replica="1"}}': "100x240",
        f'replica:vllm:request_success_total{{{COMMON},replica="1",finished_reason="error"}}': "5x240",
        f'replica:http_requests_total{{{HTTP},replica="1",status="2xx"}}': "100x240",
        HEAD: "5x240",
    }
    titles = ("Time to first token", "Prefix cache hit rate", "Failed share")
    idle = [text for title in titles for text in expressions(panel(dashboard, title))]
    assert len(idle) == 8
    evaluate(promtool, tmp_path, counters, [(10, text, {}) for text in idle])


def test_probes_do_not_hide_failures(promtool: Path, tmp_path: Path, dashboard: Json) -> None:
    """A quiet endpoint is asked for its models more often than for answers."""
    probes = HTTP.replace("POST", "GET").replace("/chat/completions", "/models")
    finished = f'replica:vllm:request_success_total{{{COMMON},replica="1",finished_reason'
    error, server, caller = expressions(panel(dashboard, "Failed share"))
    evaluate(
        promtool,
        tmp_path,
        {
            f'replica:http_requests_total{{{probes},replica="1",status="2xx"}}': "1000+50x240",
            f'replica:http_requests_total{{{HTTP},replica="1",status="2xx"}}': "1000+3x240",
            f'replica:http_requests_total{{{HTTP},replica="1",status="5xx"}}': "1000+1x240",
            f'{finished}="stop"}}': "1000+6x240",
            f'{finished}="error"}}': "1000+2x240",
            f'{finished}="abort"}}': "1000+8x240",
            HEAD: "5x240",
        },
        [
            (10, error, {"{}": 0.25}),
            (10, server, {"{}": 0.25}),
            (10, caller, {"{}": 0}),
        ],
    )


def test_nothing_is_0_but_an_outage_of_prometheus_is_a_gap(
    promtool: Path, tmp_path: Path, dashboard: Json
) -> None:
    """No alert, no replica and no change are 0; of a time when nothing was evaluated nobody knows."""
    asked = {
        **dict.fromkeys(expressions(panel(dashboard, "Firing alerts")), "{}"),
        **dict.fromkeys(expressions(panel(dashboard, "Replicas that came and went")), "{}"),
        expressions(panel(dashboard, "Replicas seen and ready"))[0]: "{}",
        expressions(panel(dashboard, "Replicas"))[0]: "{}",
        expressions(panel(dashboard, "Scrapes of unknown replicas"))[0]: "{}",
        expressions(panel(dashboard, "Alerts"))[0]: '{alertname="nothing fires"}',
    }
    evaluate(
        promtool,
        tmp_path,
        {HEAD: "5x60 _x180"},
        [
            *((2, text, {labels: 0}) for text, labels in asked.items()),
            *((15, text, {}) for text in asked),
        ],
    )


def test_no_zoom_misses_a_birth_or_a_death(promtool: Path, tmp_path: Path, dashboard: Json) -> None:
    """A point each 5 minutes, as over some days, sees each exactly once, of a short life as well."""
    marks = {annotation["name"]: annotation["expr"] for annotation in dashboard["annotations"]["list"]}
    appeared, gone = marks["Replica appeared"], marks["Replica gone"]
    counted = expressions(panel(dashboard, "Replicas that came and went"))
    one = {'{replica="1"}': 1.0}
    evaluate(
        promtool,
        tmp_path,
        # From 6:00 to 8:00.
        {f'replica:vllm:num_requests_running{{{COMMON},replica="1"}}': "_x72 1x24 _x200", HEAD: "5x300"},
        [
            *((5, text, {}) for text in (appeared, gone)),
            (10, appeared, one),
            (10, gone, {}),
            (15, appeared, {}),
            (15, gone, one),
            *((20, text, {}) for text in (appeared, gone)),
            *((10, text, {"{}": value}) for text, value in zip(counted, (1, 0), strict=True)),
            *((15, text, {"{}": value}) for text, value in zip(counted, (0, -1), strict=True)),
        ],
    )

"""What a rehearsal leaves behind: JSON with names that stay, a page that a browser draws, a text."""

from __future__ import annotations

import dataclasses
import io
import json
from typing import Any

import pytest
from rich.console import Console

from autoscaling import report as tables
from autoscaling import report_page, report_terminal
from autoscaling.report import Report, to_json
from autoscaling.sweep import Sweep
from autoscaling.workers import Workers
from tests.autoscaling import rehearsals
from tests.autoscaling.rehearsals import TRAFFIC, report, stack
from tests.browser import Rendered, find


@pytest.fixture(scope="module")
def swept() -> Report:
    return rehearsals.swept()


@pytest.fixture(scope="module")
def content(swept: Report) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(to_json(swept))
    return loaded


def shown(found: Report) -> str:
    out = io.StringIO()
    report_terminal.show(found, Console(file=out, width=200))
    return out.getvalue()


def test_the_same_rehearsal_gives_the_same_bytes() -> None:
    assert to_json(report(TRAFFIC)) == to_json(report(TRAFFIC))
    assert to_json(report(TRAFFIC)) != to_json(report(TRAFFIC, seed=2))


def test_a_sweep_on_all_cores_gives_the_same_bytes(swept: Report) -> None:
    with Workers() as workers:
        assert to_json(report(TRAFFIC, swept=True, workers=workers)) == to_json(swept)


NAMES = {
    "": "assumptions cold_start engine eur_per_replica_hour gpu_flavor gpus_per_replica model modes "
    "objectives scaling_metric seed settings stack sweep traffic",
    "settings": "aggregation down_window max_replicas min_replicas target up_window",
    "modes": "AverageValue Value",
    "modes.Value": "attainment completed cost e2e failed itl killed missed output_tokens preemptions "
    "prompt_tokens queue refused replicas requests scale_downs scale_ups seconds timeline too_long "
    "tpot ttft verdict",
    "modes.Value.attainment": "inter_token_latency requests success time_to_first_token",
    "modes.Value.ttft": "max mean p50 p95 p99",
    "modes.Value.queue": "max mean share_of_time",
    "modes.Value.replicas": "max_asked max_ready mean reaches_max seconds_at_max seconds_until_max",
    "modes.Value.cost": "eur eur_per_million_output_tokens gpu_minutes replica_minutes",
    "modes.Value.scale_ups.0": "after before crossed decided parts ready seconds",
    "modes.Value.scale_downs.0": "after before hurt killed missed time up_again",
    "modes.Value.timeline": "asked failed first_tokens kv_usage late leaving metric ready requests running "
    "starting time ttft_p95 waiting",
    "assumptions.0": "name value why",
    "sweep": "best best_by_mode pareto runs",
    "sweep.runs.0": "meets_objectives modes settings",
    "sweep.runs.0.modes.Value": "attainment e2e_p95 eur failed gpu_minutes itl_p95 missed ttft_p95",
    "sweep.best": "lines settings",
}


@pytest.mark.parametrize("path", NAMES)
def test_names_of_the_json_stay(path: str, content: dict[str, Any]) -> None:
    place: Any = content
    for part in filter(None, path.split(".")):
        place = place[int(part)] if part.isdigit() else place[part]
    assert sorted(place) == NAMES[path].split()


def test_json_knows_no_infinite_numbers(swept: Report) -> None:
    assert not {"NaN", "Infinity", "-Infinity"} & set(to_json(swept).replace(",", " ").split())


def test_without_a_sweep_there_is_none_in_the_json() -> None:
    assert json.loads(to_json(report("constant:rate=1,for=10s")))["sweep"] is None


def test_the_terminal_has_both_modes_side_by_side_and_what_happened(swept: Report) -> None:
    text = shown(swept)
    for part in (
        "Value",
        "AverageValue",
        "first token within 1 s",
        "TTFT p50 / p95 / p99",
        "GPU-minutes billed",
        "cost of a million output tokens",
        "Reaction time of each scale-up",
        "readiness probe",
        "polling interval: 15 s",
        "Cost against attainment",
    ):
        assert part in text, part
    for mode in swept.modes.values():
        assert mode.verdict in text


def test_the_terminal_draws_a_bar_for_every_part_of_the_run(swept: Report) -> None:
    mode = swept.modes["Value"]
    replicas, waiting = report_terminal.curves(mode, 3)
    assert "█" in replicas
    assert len(replicas.split("  ")[1]) == min(72, len(mode.timeline["time"]))
    assert waiting.endswith(f"0 to {mode.queue.max}")


def test_a_share_of_nothing_is_none() -> None:
    """All requests are refused before the app has woken: no first token, and so none in time."""
    refused = report("article:workers=5,requests=2", plan=stack(replicas_min=0))
    assert "none to count (95 % wanted)" in shown(refused)
    rows = {row[0]: row[1] for row in tables.summary(refused).rows}
    assert rows["first token within 1 s"] == rows["gap between tokens within 0.1 s"]
    assert rows["requests that did not fail"] == "0.00 % ✗ (99 % wanted)"
    assert "; 10 of 10 requests are refused, since no replica is ready" in refused.modes["Value"].verdict
    assert "after a refusal" in {one.name for one in refused.assumptions}


def test_a_metric_with_matchers_is_shown_as_it_is() -> None:
    metric = 'vllm:num_requests_running{model_name=~"[a-z]+[/x]"}'
    plan = stack()
    plan = dataclasses.replace(plan, fleet=dataclasses.replace(plan.fleet, metric=metric))
    assert shown(report("constant:rate=1,for=10s", plan=plan)).count(metric) == 3


def test_a_table_without_rows_says_so() -> None:
    quiet = report("constant:rate=1,for=10s,output=5")
    assert "nothing was scaled up" in shown(quiet)


def test_an_unknown_price_is_named() -> None:
    plan = dataclasses.replace(stack(), eur_per_replica_hour=None)
    found = report("constant:rate=1,for=10s", plan=plan)
    assert "price unknown" in shown(found)
    assert json.loads(to_json(found))["modes"]["Value"]["cost"]["eur"] is None


def test_the_advice_ends_with_lines_for_the_stack_file(swept: Report) -> None:
    assert swept.sweep is not None
    best = swept.sweep.best()
    assert best is not None
    said = tables.advice(swept)
    lines = best.candidate.lines(swept.sweep.stack)
    assert [line.strip() for line in said[1:]] == lines
    assert "Pulumi.small.yaml" in said[0]


def test_the_advice_says_when_no_settings_meet_the_objectives(swept: Report) -> None:
    assert swept.sweep is not None
    hopeless = [
        dataclasses.replace(
            one,
            scores={
                mode: dataclasses.replace(score, missed=("success",)) for mode, score in one.scores.items()
            },
        )
        for one in swept.sweep.results
    ]
    said = tables.advice(dataclasses.replace(swept, sweep=Sweep(swept.sweep.stack, hopeless)))
    assert said[0] == "No settings of the sweep meet the objectives in both target modes."
    assert sum("those that serve best" in line for line in said) == 2


@pytest.mark.parametrize(("share", "text"), [(1.0, "100.00 %"), (0.999999, "99.99 %"), (0.5, "50.00 %")])
def test_a_share_is_never_rounded_up_to_all(share: float, text: str) -> None:
    assert tables.percent(share) == text


@pytest.fixture(scope="module")
def drawn(swept: Report, tmp_path_factory: pytest.TempPathFactory) -> Rendered:
    folder = tmp_path_factory.mktemp("page")
    path = folder / "rehearsal.html"
    path.write_text(report_page.page(swept, made=0).html, encoding="utf-8")
    return find(folder / "profile").render(path)


def test_a_browser_draws_the_page_without_errors(swept: Report, drawn: Rendered) -> None:
    made = report_page.page(swept, made=0)
    assert made.remarks() == []
    assert "data-failures" not in drawn.body
    assert drawn.body["data-errors"] == "0"
    assert drawn.body["data-drawn"] == str(made.panels)
    titles = [element.attributes["data-title"] for element in drawn.having("data-title")]
    assert titles[:4] == [
        "Replicas",
        "p95 of the time to first token",
        "Running per replica",
        "Waiting per replica",
    ]
    texts = {element.text for element in drawn.elements if element.tag == "td"}
    for table in (tables.summary(swept), tables.scale_ups(swept)):
        assert {cell for line in table.rows for cell in line} <= texts


def test_the_page_tells_times_since_the_traffic_began(swept: Report, drawn: Rendered) -> None:
    up = swept.modes["Value"].scale_ups[0]
    flags = [element.attributes["title"] for element in drawn.having("class", "mark")]
    assert any(flag.startswith(f"scale-up, Value\n{up['before']} → {up['after']}\n0:0") for flag in flags), (
        flags
    )
    assert drawn.having("class", "range")[0].attributes["title"].startswith("0:00:00 to 0:")


def test_a_page_without_scaling_has_no_errors_either() -> None:
    assert report_page.page(report("constant:rate=1,for=10s,output=5"), made=0).errors == {}

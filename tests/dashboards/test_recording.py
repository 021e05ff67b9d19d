"""The recording rules in promtool: what they make of scrapes as Prometheus stores them, in 5 s steps."""

from __future__ import annotations

import json
import random
import re
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import yaml

from dashboards import bundle, recording
from dashboards.rules import Alert, spec
from dashboards.target import Target
from tests.dashboards.scrapes import (
    MINUTE,
    SAMPLERS,
    STATIC,
    STEP,
    TARGET,
    Replica,
    Scrapes,
    text,
)


def evaluate(
    promtool: Path,
    folder: Path,
    scrapes: Scrapes,
    expected: Sequence[tuple[int, str, Mapping[str, float]]],
    target: Target = TARGET,
) -> None:
    """Fails unless each expression has these values (labels as text) at its step, and no rule failed."""
    (folder / "rules.json").write_text(json.dumps(spec(scrapes.fed(recording.groups(target)), "")))
    tests = [
        {
            "expr": expression,
            "eval_time": f"{step * STEP}s",
            "exp_samples": [{"labels": labels, "value": value} for labels, value in values.items()],
        }
        for step, expression, values in expected
    ]
    document = {
        "rule_files": ["rules.json"],
        "evaluation_interval": f"{STEP}s",
        "fuzzy_compare": True,
        "tests": [
            {"interval": f"{STEP}s", "input_series": scrapes.series(), "promql_expr_test": tests},
        ],
    }
    (folder / "test.json").write_text(json.dumps(document))
    done = subprocess.run(
        [promtool, "test", "rules", "test.json"], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def near(expression: str, value: float, tolerance: float) -> tuple[str, dict[str, float]]:
    """That the only value of the expression is this one but for a share of it."""
    return f"abs(sum({expression}) / {value} - 1) <= bool {tolerance}", {"{}": 1}


def by_replica(expression: str) -> str:
    return f"sum by (replica) ({expression})"


def of(replica: Replica, **labels: str) -> str:
    return text("", {"replica": replica.label, **labels})


OLD, MIDDLE, YOUNG = (
    Replica(1795000000.25, born=-100_000, tokens=5000, running=20),
    Replica(1795353188.0018203, born=-9000, tokens=9000, running=30),
    Replica(1795400000.125, born=-50, tokens=2000, running=7),
)
SEEN = "fleet:vllm:replicas_seen"
RUNNING = "fleet:vllm:num_requests_running"
TOKENS = "fleet:vllm:generation_tokens:increase5m"
ENDPOINT = {"job": TARGET.job, **STATIC}


def test_promtool_accepts_the_rules(promtool: Path, tmp_path: Path) -> None:
    for target in (TARGET, replace(TARGET, platform_metrics=False)):
        path = tmp_path / "rules.yml"
        path.write_text(yaml.safe_dump(spec(recording.groups(target), target.runbooks)))
        command = [str(promtool), "check", "rules", "--lint=all", "--lint-fatal", str(path)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


def test_samplers_that_meet_replicas_at_random_measure_the_fleet(promtool: Path, tmp_path: Path) -> None:
    chance = random.Random(7)  # noqa: S311
    steps = 25 * MINUTE
    joins = replace(YOUNG, birth=1795999999.5, born=8 * MINUTE)
    leaves = 14 * MINUTE
    scrapes = Scrapes(steps)
    for step in range(steps):
        fleet = [OLD, YOUNG, *([MIDDLE] if step < leaves else []), *([joins] if step >= joins.born else [])]
        for sampler in range(SAMPLERS):
            scrapes.scrape(step, sampler, chance.choice(fleet))

    def made(step: int) -> float:
        """Tokens of the 5 minutes before the step."""
        since = step - 5 * MINUTE
        return (
            (OLD.tokens + YOUNG.tokens) * 5 * MINUTE
            + MIDDLE.tokens * max(0, min(step, leaves) - since)
            + joins.tokens * max(0, step - max(since, joins.born))
        )

    selector = '{job="vllm-test"}'
    naive = f"sum(increase(vllm:generation_tokens_total{selector}[5m])) / {SAMPLERS}"
    median = (
        "histogram_quantile(0.5, sum by (le) "
        f"(increase(replica:vllm:time_to_first_token_seconds_bucket{selector}[5m])))"
    )
    looks = [step for step in range(6 * MINUTE, steps, MINUTE // 2) if not 13 * MINUTE < step < 16 * MINUTE]
    evaluate(
        promtool,
        tmp_path,
        scrapes,
        [
            *((step, *near(TOKENS, made(step), 0.03)) for step in looks),
            *((step, *near(median, 0.375, 0.01)) for step in looks),
            *((step, f"{naive} > bool {3 * made(step)}", {"{}": 1}) for step in looks),
            (7 * MINUTE, SEEN, {text(SEEN, ENDPOINT): 3}),
            (10 * MINUTE, SEEN, {text(SEEN, ENDPOINT): 4}),
            (20 * MINUTE, SEEN, {text(SEEN, ENDPOINT): 3}),
            (20 * MINUTE, RUNNING, {text(RUNNING, ENDPOINT): 20 + 7 + 7}),
        ],
    )


def test_what_older_scrapes_said_is_nobodys_after_a_restart_of_prometheus(
    promtool: Path, tmp_path: Path
) -> None:
    failing = replace(OLD, errors=400)
    renamed = replace(MIDDLE, model_name="m2")
    scrapes = Scrapes(10 * MINUTE)
    for step in range(MINUTE):
        scrapes.scrape(step, 0, failing)
        scrapes.scrape(step, 1, renamed)
    scrapes.restart()
    for step in range(MINUTE + 4, 10 * MINUTE):
        scrapes.scrape(step, 0, renamed)
        scrapes.scrape(step, 1, renamed)
    errors = by_replica('replica:http_requests_total{status="5xx"}')
    models = "count by (replica, model_name) (replica:vllm:num_requests_running)"
    later = 2 * MINUTE + 6
    evaluate(
        promtool,
        tmp_path,
        scrapes,
        [
            (MINUTE - 1, errors, {of(failing): 400, of(renamed): 0}),
            (MINUTE + 3, "replica:vllm:num_requests_running", {}),
            (MINUTE + 5, errors, {of(renamed): 0}),
            (MINUTE + 5, models, {of(renamed, model_name="m2"): 1}),
            (later, SEEN, {text(SEEN, ENDPOINT): 1}),
            (later, RUNNING, {text(RUNNING, ENDPOINT): 30}),
            (9 * MINUTE, *near(TOKENS, MIDDLE.tokens * 5 * MINUTE, 0.001)),
        ],
    )


def test_during_a_roll_each_model_name_is_its_replicas_own(promtool: Path, tmp_path: Path) -> None:
    new = replace(YOUNG, model_name="m2")
    scrapes = Scrapes(8 * MINUTE)
    for step in range(8 * MINUTE):
        for sampler in range(4):
            scrapes.scrape(step, sampler, (OLD, new)[(step + sampler) % 2])
    tokens = (
        "sum by (replica, model_name) (increase(replica:vllm:generation_tokens_total[5m])) > 0"
        " and on (replica, model_name) replica:vllm:generation_tokens_total"
    )
    expected = {
        of(OLD, model_name="m"): OLD.tokens * 5 * MINUTE,
        of(new, model_name="m2"): new.tokens * 5 * MINUTE,
    }
    evaluate(
        promtool,
        tmp_path,
        scrapes,
        [(7 * MINUTE, tokens, expected), (7 * MINUTE, SEEN, {text(SEEN, ENDPOINT): 2})],
    )


def test_a_scrape_without_birth_time_falls_back_to_the_start_of_its_process(
    promtool: Path, tmp_path: Path
) -> None:
    without = replace(YOUNG, created=False)
    scrapes = Scrapes(8 * MINUTE)
    for step in range(8 * MINUTE):
        for sampler in range(4):
            scrapes.scrape(step, sampler, (OLD, without)[(step + sampler) % 2])
    fallback = replace(without, birth=round(without.birth - 40, 2))
    unidentified = "fleet:vllm:unidentified_scrapes"
    evaluate(
        promtool,
        tmp_path,
        scrapes,
        [
            (
                7 * MINUTE,
                by_replica("increase(replica:vllm:generation_tokens_total[5m])"),
                {of(OLD): OLD.tokens * 5 * MINUTE, of(fallback): without.tokens * 5 * MINUTE},
            ),
            (
                7 * MINUTE,
                by_replica("increase(replica:http_requests_total[5m])"),
                {of(OLD): OLD.tokens / 100 * 5 * MINUTE, of(fallback): without.tokens / 100 * 5 * MINUTE},
            ),
            (7 * MINUTE, unidentified, {text(unidentified, ENDPOINT): 0}),
        ],
    )


def test_a_scrape_without_any_identity_is_counted_as_such_and_as_nobodys(
    promtool: Path, tmp_path: Path
) -> None:
    nameless = replace(YOUNG, created=False, process=False)
    scrapes = Scrapes(3 * MINUTE)
    for step in range(3 * MINUTE):
        if step == MINUTE:
            scrapes.restart()
        scrapes.scrape(step, 0, OLD)
        scrapes.scrape(step, 1, nameless)
        scrapes.scrape(step, 2, OLD if step < MINUTE else nameless)
        scrapes.scrape(step, 3, None)
    unidentified = "fleet:vllm:unidentified_scrapes"
    evaluate(
        promtool,
        tmp_path,
        scrapes,
        [
            (MINUTE + 1, unidentified, {text(unidentified, ENDPOINT): 2}),
            (MINUTE + 1, by_replica("replica:vllm:num_requests_running"), {of(OLD): 20}),
            (2 * MINUTE, unidentified, {text(unidentified, ENDPOINT): 2}),
            (2 * MINUTE, by_replica("replica:vllm:num_requests_running"), {of(OLD): 20}),
            (2 * MINUTE, SEEN, {text(SEEN, ENDPOINT): 1}),
        ],
    )


def test_the_engines_of_a_process_are_one_replica(promtool: Path, tmp_path: Path) -> None:
    parallel = replace(MIDDLE, engines=4, running=32)
    scrapes = Scrapes(8 * MINUTE)
    for step in range(8 * MINUTE):
        scrapes.scrape(step, 0, parallel)
        scrapes.scrape(step, 1, (OLD, parallel)[step % 2])
    evaluate(
        promtool,
        tmp_path,
        scrapes,
        [
            (
                7 * MINUTE,
                "count by (replica) (last_over_time(replica:vllm:num_requests_running[1m]))",
                {of(parallel): 4, of(OLD): 1},
            ),
            (7 * MINUTE, SEEN, {text(SEEN, ENDPOINT): 2}),
            (7 * MINUTE, RUNNING, {text(RUNNING, ENDPOINT): 32 + 20}),
            (
                7 * MINUTE,
                by_replica("increase(replica:vllm:generation_tokens_total[5m])"),
                {of(parallel): MIDDLE.tokens * 5 * MINUTE, of(OLD): OLD.tokens * 5 * MINUTE},
            ),
        ],
    )


def test_a_sampler_that_fails_is_stood_in_for_by_the_others(promtool: Path, tmp_path: Path) -> None:
    chance = random.Random(3)  # noqa: S311
    scrapes = Scrapes(12 * MINUTE)
    for step in range(12 * MINUTE):
        for sampler in range(5):
            fails = step > 3 * MINUTE if sampler == 0 else sampler == 1 and step % 3 == 0
            scrapes.scrape(step, sampler, None if fails else chance.choice((OLD, MIDDLE)))
    evaluate(
        promtool,
        tmp_path,
        scrapes,
        [
            (step, *near(TOKENS, (OLD.tokens + MIDDLE.tokens) * 5 * MINUTE, 0.03))
            for step in range(6 * MINUTE, 12 * MINUTE, MINUTE)
        ],
    )


def test_the_first_error_of_a_replica_is_counted(promtool: Path, tmp_path: Path) -> None:
    scrapes = Scrapes(8 * MINUTE)
    for step in range(8 * MINUTE):
        replicas = (OLD, replace(MIDDLE, errors=3 if step > 4 * MINUTE else 0))
        for sampler in range(3):
            scrapes.scrape(step, sampler, replicas[(step + sampler) % 2])
    errors = by_replica('increase(replica:http_requests_total{status="5xx"}[5m])')
    expected = {of(OLD): 0, of(MIDDLE): 3}
    evaluate(promtool, tmp_path, scrapes, [(7 * MINUTE, f"round({errors})", expected)])


def test_two_samplers_of_one_replica_count_once(promtool: Path, tmp_path: Path) -> None:
    scrapes = Scrapes(MINUTE)
    for step in range(MINUTE):
        scrapes.scrape(step, 0, OLD)
        scrapes.scrape(step, 1, replace(OLD, running=22))
    tokens = by_replica("increase(replica:vllm:generation_tokens_total[30s])")
    evaluate(
        promtool,
        tmp_path,
        scrapes,
        [
            (10, by_replica("replica:vllm:num_requests_running"), {of(OLD): (20 + 22) / 2}),
            (10, tokens, {of(OLD): OLD.tokens * 30 / STEP}),
        ],
    )


def test_a_late_scrape_makes_no_counter_fall(promtool: Path, tmp_path: Path) -> None:
    # The second sampler hangs after it met the same replica as the first one, which then meets another one.
    scrapes = Scrapes(MINUTE)
    for step in range(MINUTE):
        scrapes.scrape(step, 0, OLD if step % 4 < 2 else MIDDLE)
        if step % 4 == 0:
            scrapes.scrape(step, 1, OLD)
    resets = by_replica("resets(replica:vllm:generation_tokens_total[1m])")
    evaluate(promtool, tmp_path, scrapes, [(MINUTE - 1, resets, {of(OLD): 0, of(MIDDLE): 0})])


def test_a_replaced_app_is_another_fleet_and_no_jump(promtool: Path, tmp_path: Path) -> None:
    """The samplers move to another address, for ten seconds they are at both."""
    new = replace(YOUNG, born=5 * MINUTE, tokens=OLD.tokens)
    moves = 7 * MINUTE
    scrapes = Scrapes(15 * MINUTE)
    for step in range(15 * MINUTE):
        for sampler in range(2):
            if step <= moves + 2:
                scrapes.scrape(step, sampler, OLD)
            elif step == moves + 3:
                scrapes.leave(step, sampler, "app:443")
            if step >= moves:
                scrapes.scrape(step, sampler, new, "new:443")
    steady = OLD.tokens * 5 * MINUTE
    unidentified = "fleet:vllm:unidentified_scrapes"
    evaluate(
        promtool,
        tmp_path,
        scrapes,
        [
            (moves - 1, SEEN, {text(SEEN, ENDPOINT): 1}),
            (moves + MINUTE // 2, SEEN, {text(SEEN, ENDPOINT): 2}),
            (moves + 2 * MINUTE, SEEN, {text(SEEN, ENDPOINT): 1}),
            *((step, unidentified, {text(unidentified, ENDPOINT): 0}) for step in range(moves, moves + 6)),
            # What the new one did before the move is not counted; what both did at the time is, some 4 %.
            *((step, *near(TOKENS, steady, 0.08)) for step in range(6 * MINUTE, 15 * MINUTE, 3)),
        ],
    )


def test_the_platforms_count_is_the_endpoints_and_absent_without_it(promtool: Path, tmp_path: Path) -> None:
    ready = "fleet:vllm:replicas_ready"
    scrapes = Scrapes(MINUTE)
    labels = {"job": "vllm-test-platform", "instance": "exporter:7979", **STATIC}
    for step in range(MINUTE // 2):
        scrapes.put(step, text("ai_deploy_app_available_replicas", labels), 3)
    scrapes.put(MINUTE // 2, text("ai_deploy_app_available_replicas", labels), "stale")
    expected = [(5, ready, {text(ready, ENDPOINT): 3.0}), (MINUTE - 1, ready, {})]
    evaluate(promtool, tmp_path, scrapes, expected)
    evaluate(promtool, tmp_path, scrapes, [(5, ready, {})], replace(TARGET, platform_metrics=False))


def test_what_is_read_is_recorded_and_what_is_recorded_is_read() -> None:
    rules = [rule for group in bundle.groups(TARGET) for rule in group.rules]
    # A rule that reads what it has recorded itself is no reader.
    expressions = [rule.expr for rule in rules if isinstance(rule, Alert) or "replica:" not in rule.record]
    dashboards = bundle.dashboards(TARGET).values()
    read = set(re.findall(r"replica:[a-z0-9_:]+", "\n".join([*expressions, *dashboards])))
    recorded = {
        rule.record for rule in rules if not isinstance(rule, Alert) and rule.record.startswith("replica:")
    }
    assert read <= recorded
    families = {re.sub("_(bucket|sum|count)$", "", name) for name in read}
    assert families == {f"replica:{name}" for name in recording.FAMILIES}
    # Most series are buckets, so they are not recorded for nothing either.
    assert {name for name in recorded - read if name.endswith("_bucket")} == set()


def test_a_scrape_keeps_one_birth_time_and_nothing_of_python() -> None:
    def kept(name: str) -> bool:
        labels = {"__name__": name}
        for step in recording.METRIC_RELABELINGS:
            value = ";".join(labels.get(label, "") for label in step.get("sourceLabels", []))
            match step.get("action", "replace"):
                case "replace" if re.fullmatch(step["regex"], value):
                    labels[step["targetLabel"]] = step["replacement"]
                case "drop" if re.fullmatch(step["regex"], value):
                    return False
                case "labeldrop":
                    labels = {label: text for label, text in labels.items() if label != step["regex"]}
        assert labels == {"__name__": name}
        return True

    exposition = Path(__file__).parents[1] / "fixtures" / "vllm-0.13.0-metrics.txt"
    names = set(re.findall(r"^[a-z_:]+", exposition.read_text(), re.MULTILINE))
    dropped = {name for name in names if not kept(name)}
    assert {name for name in names if name.endswith("_created")} - dropped == {recording.IDENTITY}
    assert all(name.endswith("_created") or name.startswith("python_") for name in dropped)
    assert not any(name.startswith("python_") for name in names - dropped)

"""The small form of the measurement, its own arithmetic, and all rules in a real Prometheus."""

from __future__ import annotations

import asyncio
import math
import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from dashboards import recording
from dashboards.rules import spec
from sandbox.toolchain import ensure
from tests.prove.accuracy import fleet
from tests.prove.accuracy.measure import Errors, Plan, Result, Run, measure
from tests.prove.accuracy.prometheus import faster, faster_ranges, running, target
from tests.prove.accuracy.report import report
from tests.prove.accuracy.scenarios import MANY, TIGHT, Scenario, waves

EXPOSITION = Path(__file__).parents[2] / "fixtures" / "vllm-0.13.0-metrics.txt"
HTTP = """
http_requests_total{handler="/v1/chat/completions",method="POST",status="2xx"} 7.0
"""


@pytest.fixture(scope="module")
def prometheus() -> Path:
    return ensure(lambda line: None).prometheus


async def test_a_fleet_is_measured_where_plain_rate_is_lost(prometheus: Path) -> None:
    scenarios = [
        Scenario("3 random", "steady", fleet.steady(3), 3, "random", TIGHT),
        Scenario("1 to 3", "restless", fleet.restless(3, 1, 900, (90, 200)), 3, "random", TIGHT),
    ]
    run = await measure(prometheus, scenarios, Plan(None, 660), lambda line: None)
    assert run.failed_rules == 0
    for result in run.results:
        # A busy machine scrapes late, and a second is fifteen here.
        assert result.tokens.median < 0.1, result
        assert result.plain.median > 2, result
        assert result.buckets <= 1, result
        assert result.looks > 10, result
    assert run.results[0].most_seen == 3


async def test_all_rules_find_their_series_in_a_real_prometheus(prometheus: Path, tmp_path: Path) -> None:
    # Two processes that say what a real server said, but for the time when they were made.
    original = EXPOSITION.read_text() + HTTP
    texts = [original, re.sub(r"(_created(?:{.*})? 1\.7953)5", r"\g<1>4", original)]
    turn = 0

    async def metrics(request: web.Request) -> web.Response:
        nonlocal turn
        turn += 1
        return web.Response(text=texts[turn % 2])

    application = web.Application()
    application.router.add_get("/metrics", metrics)
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    address = "{}:{}".format(*runner.addresses[0])
    wanted = target("vllm-test", 2)
    document = spec(recording.groups(wanted), wanted.runbooks)
    for group in document["groups"]:
        group["interval"] = "1s"
    rules = document["groups"][0]["rules"]
    jobs = [
        {
            "job_name": f"sampler-{number}",
            "scrape_interval": "1s",
            "static_configs": [{"targets": [address], "labels": {**wanted.labels, "sampler": str(number)}}],
            "relabel_configs": [{"target_label": "job", "replacement": wanted.job}],
            "metric_relabel_configs": [_native(step) for step in recording.METRIC_RELABELINGS],
        }
        for number in range(recording.samplers(wanted))
    ]
    config = {"scrape_configs": jobs, "rule_files": ["rules/*.yml"]}
    try:
        async with running(prometheus, tmp_path, config, {"replicas": document}) as server:
            await _until(partial(server.query, "fleet:vllm:replicas_seen == 2"))
            for rule in rules:
                # Raises if there is as much as a hint.
                await _until(partial(server.query, rule["expr"]))
                await _until(partial(server.query, rule["record"]))
            kept = await server.query('count by (__name__) ({__name__=~".*_created|python_.*|.*tmp.*"})')
            names = {dict(labels)["__name__"] for labels in kept}
            assert names == {recording.IDENTITY, f"replica:{recording.IDENTITY}"}
            assert await server.number("count(vllm:num_requests_running{__tmp_keep!=''})") == 0
            assert await server.metric("prometheus_rule_evaluation_failures_total") == 0
    finally:
        await runner.cleanup()


async def _until(found: Callable[[], Awaitable[Any]]) -> None:
    while True:
        if await found():
            return
        await asyncio.sleep(0.1)


def _native(step: Mapping[str, Any]) -> dict[str, Any]:
    """A relabeling in Prometheus' own words, as the operator translates it."""
    return {re.sub("[A-Z]", lambda match: f"_{match[0].lower()}", key): value for key, value in step.items()}


def test_durations_shrink_and_names_stay() -> None:
    assert [faster(text) for text in ("5s", "1m", "5m")] == ["333ms", "4000ms", "20000ms"]
    expression = "sum(increase(a:increase5m[5m])) + b[15s] offset 5s"
    assert faster_ranges(expression) == "sum(increase(a:increase5m[20000ms])) + b[1000ms] offset 333ms"


def test_counters_of_a_replica_only_rise_and_end_with_it() -> None:
    replica = fleet.Replica(3, born=-100, died=400)
    moments = [float(moment) for moment in range(-100, 600, 7)]
    tokens = [replica.tokens(moment) for moment in moments]
    assert tokens == sorted(tokens)
    assert tokens[0] == 0 < tokens[-1] == replica.tokens(400)
    buckets = [replica.first_tokens(moment) for moment in moments]
    for earlier, later in pairwise(buckets):
        assert all(a <= b for a, b in zip(earlier, later, strict=True))
        assert later == sorted(later)
    assert fleet.tokens([replica], 0, 200) == replica.tokens(200) - replica.tokens(0)


def test_every_fleet_has_a_replica_at_any_time_and_never_too_many() -> None:
    for scenario in (scenario for wave in waves() for scenario in wave):
        for moment in range(0, 2400, 5):
            alive = sum(replica.alive(moment) for replica in scenario.replicas)
            # During a roll the new one is there before the old one goes.
            assert 1 <= alive <= scenario.most + ("rolled" in scenario.name), scenario.name


def test_quantiles_are_compared_by_bucket() -> None:
    counts = [0] * len(fleet.BOUNDS) + [100]
    counts[8:] = [40] * 3 + [100] * (len(counts) - 11)
    assert fleet.bucket(0.3, counts) == 8
    assert fleet.bucket(0.5, counts) == 11
    assert fleet.bucket_of(0.25) == 8
    assert fleet.bucket_of(0.8) == 11
    assert fleet.bucket_of(math.inf) == len(fleet.BOUNDS)


def test_a_missed_target_is_in_the_page() -> None:
    scenario = waves()[0][2]
    errors = Errors.of([(1.5, 1), (1.0, 1), (1.0, 1)])
    assert errors == Errors(0, 0, 0.5)
    good = Result(scenario, "Steady fleets", MANY, 3, errors, errors, 0, 4, 1.0, 3)
    assert not good.misses
    bad = replace(good, limits=TIGHT, buckets=2)
    assert bad.misses == ["worst 0.5, allowed 0.1", "buckets 2, allowed 1"]
    page = report([Run([good, bad], 0, 1, 1000, 2)], 300)
    assert "**2 measurements of 6 values, 1 off target. 0 evaluations failed, 1 were missed;" in page
    assert "| 3 random | 3 | 0.00 % | 0.00 % | 50.00 % |" in page
    assert "worst 0.5, allowed 0.1; buckets 2, allowed 1 |" in page

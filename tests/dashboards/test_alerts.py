"""Each operational alert fires when it should, not a moment before, and of nothing that only comes near."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from dashboards import alerts, bundle, check, objectives
from dashboards.check.expressions import Expression, of_rules
from dashboards.rules import Alert, spec
from dashboards.target import Target
from tests.dashboards.scenes import (
    OF_TARGET,
    TARGET,
    Miss,
    Scene,
    now_and_then,
    other,
    parts,
    play,
    rising,
    series,
)

RUNBOOKS = Path(__file__).parents[2] / "docs" / "runbooks"

README = RUNBOOKS / "README.md"
PROJECT = RUNBOOKS.parents[1] / "Pulumi.yaml"
PARTS = {"failureThreshold"}
"""Words in camel case that are not keys, but parts of their values."""

MINUTE = 4
"""Steps of 15 s."""
HOUR = 60 * MINUTE

UP_0, UP_1 = series("up", sampler="0"), series("up", sampler="1")
OF_PLATFORM = {**TARGET.labels, "job": "vllm-ministral-platform"}
UP_PLATFORM = other("up", **OF_PLATFORM)
SEEN, READY = series("fleet:vllm:replicas_seen"), series("fleet:vllm:replicas_ready")
RUNNING, WAITING = series("fleet:vllm:num_requests_running"), series("fleet:vllm:num_requests_waiting")
TOKENS = series("fleet:vllm:generation_tokens:increase5m")


def state(value: str) -> str:
    return other("ai_deploy_app_state", **OF_PLATFORM, state=value)


def requests(reason: str) -> str:
    return series("fleet:vllm:requests:increase5m", finished_reason=reason)


BEGUN = series("fleet:slo_total:increase5m", slo="time_to_first_token")


def of_replica(name: str, replica: str, *, engine: str = "0", **labels: str) -> str:
    return series(f"replica:{name}", engine=engine, replica=replica, **labels)


def answers(replica: str) -> str:
    labels = {"handler": "/v1/chat/completions", "method": "POST", "status": "2xx"}
    return series("replica:http_requests_total", replica=replica, **labels)


def rule_group(name: str, group: str) -> str:
    return other(name, job="monitoring-prometheus", rule_group=f"/etc/prometheus/rules/vllm.yaml;{group}")


DROPS = other("prometheus_tsdb_size_retentions_total", job="monitoring-prometheus")
KV, PREEMPTIONS = "vllm:kv_cache_usage_perc", "vllm:num_preemptions_total"
REPLICA_RUNNING, GENERATED = "vllm:num_requests_running", "vllm:generation_tokens_total"

SCENES = (
    Scene(
        "VllmScrapeDown",
        {UP_0: [*[1] * 12, *[0] * HOUR], UP_1: [*[1] * 12, *[0] * HOUR]},
        before="5m30s",
        at="5m45s",
        summary="no scrape of the public address has been answered for 3 minutes",
        misses={
            "one sampler is answered now and then": Miss({UP_1: now_and_then(0, 1, 7, HOUR)}),
            "two minutes": Miss({UP_1: [*[1] * 12, *[0] * 8, *[1] * HOUR]}),
        },
        later="30m",
    ),
    Scene(
        "VllmScrapeDown",
        {
            UP_0: [*[1] * 12, *[0] * HOUR],
            # The platform says one replica, so that it is no scaling to zero.
            READY: [1] * HOUR,
        },
        before="5m30s",
        at="5m45s",
        summary="no scrape of the public address has been answered for 3 minutes",
        misses={
            "scaled to zero": Miss({READY: [*[1] * 12, *[0] * HOUR]}),
            "scaled to zero and back": Miss(
                {UP_0: [*[1] * 12, *[0] * 100, *[1] * HOUR], READY: [*[1] * 12, *[0] * 98, *[1] * HOUR]},
                at=("5m45s", "27m30s", "28m", "29m"),
            ),
        },
        later="30m",
        name="of an endpoint that may have no replica",
        target=replace(TARGET, min_replicas=0),
    ),
    Scene(
        "VllmScrapeFlapping",
        {UP_0: now_and_then(1, 0, 6, HOUR), UP_1: now_and_then(1, 0, 6, HOUR)},
        before="8m",
        at="12m",
        summary="scrapes of the public address fail again and again",
        misses={
            "one failure in eight minutes": Miss(
                {UP_0: now_and_then(1, 0, 32, HOUR), UP_1: now_and_then(1, 0, 32, HOUR)}
            ),
            "one sampler of two fails four times": Miss(
                {UP_0: now_and_then(1, 0, 16, HOUR), UP_1: [1] * HOUR}
            ),
            "one outage": Miss({UP_0: [*[1] * 20, *[0] * 40, *[1] * HOUR], UP_1: [1] * HOUR}),
        },
        later="45m",
    ),
    Scene(
        "VllmScrapeMissing",
        {other("up", job="vllm-other"): [1] * HOUR},
        before="4m45s",
        at="5m",
        summary="Prometheus does not scrape the endpoint at all",
        misses={"it scrapes in vain": Miss({UP_0: [0] * HOUR})},
        later="30m",
    ),
    Scene(
        "VllmReplicaIdentityMissing",
        {
            # One of three replicas has no birth time, and few samplers meet it at a time.
            series("fleet:vllm:unidentified_scrapes"): now_and_then(0, 1, 3, HOUR),
            SEEN: [2] * HOUR,
            UP_0: [1] * HOUR,
        },
        before="5m15s",
        at="5m30s",
        summary="scrapes are answered, but do not say which replica they met",
        misses={"all say it": Miss({series("fleet:vllm:unidentified_scrapes"): [0] * HOUR})},
        later="30m",
    ),
    Scene(
        "VllmReplicaIdentityMissing",
        {UP_0: [1] * HOUR, UP_1: [1] * HOUR},
        before="4m45s",
        at="5m",
        summary="scrapes are answered, but do not say which replica they met",
        misses={
            "replicas are seen": Miss({SEEN: [1] * HOUR}),
            "scrapes fail": Miss({UP_0: [0] * HOUR, UP_1: [0] * HOUR}),
        },
        later="30m",
        name="without any metric of vLLM",
    ),
    Scene(
        "VllmMetricsBlind",
        {SEEN: [1] * HOUR, READY: [*[1] * (10 * MINUTE), *[2] * HOUR]},
        before="24m30s",
        at="25m",
        summary="metrics show 1 replicas, but the platform runs more",
        misses={
            "the other one is seen now and then": Miss({SEEN: now_and_then(1, 2, 16, HOUR)}),
            "the other one is seen after 13 minutes": Miss({SEEN: [*[1] * (23 * MINUTE), *[2] * HOUR]}),
            "the platform answers now and then": Miss({READY: [1] * HOUR}),
        },
        later="50m",
    ),
    Scene(
        "VllmTokenRejected",
        {
            UP_0: [*[1] * (5 * MINUTE), *[0] * HOUR],
            UP_1: [*[1] * (5 * MINUTE), *[0] * HOUR],
            UP_PLATFORM: [1] * HOUR,
            state("RUNNING"): [1] * (5 * MINUTE),
        },
        before="7m30s",
        at="7m45s",
        summary="the platform refuses the token of Prometheus",
        misses={
            "the platform knows the app": Miss({state("RUNNING"): [1] * HOUR}),
            "the app was stopped": Miss({state("STOPPED"): [*[None] * (5 * MINUTE), *[1] * HOUR]}),
            "the platform never answered the token": Miss({state("RUNNING"): None}),
            "the exporter does not answer": Miss({UP_PLATFORM: [0] * HOUR}),
            "the app is scraped": Miss({UP_1: [1] * HOUR}),
        },
        later="30m",
    ),
    Scene(
        "VllmPlatformStatusUnknown",
        {READY: [2] * (10 * MINUTE + 1)},
        before="24m45s",
        at="25m",
        summary="the platform has not said how many replicas run",
        misses={"it is said every eight minutes": Miss({READY: ([2] + [None] * (8 * MINUTE - 1)) * 8})},
        later="50m",
    ),
    Scene(
        "VllmAppNotRunning",
        {state("RUNNING"): [1] * (5 * MINUTE), state("FAILED"): [*[None] * (5 * MINUTE), *[1] * HOUR]},
        before="19m45s",
        at="20m",
        summary="the app is FAILED",
        labels={"state": "FAILED"},
        misses={
            "it scales": Miss({state("FAILED"): None, state("SCALING"): [1] * HOUR}),
            "it runs again after ten minutes": Miss(
                {
                    state("FAILED"): [*[None] * (5 * MINUTE), *[1] * (10 * MINUTE)],
                    state("RUNNING"): [*[None] * (15 * MINUTE), *[1] * HOUR],
                }
            ),
        },
        later="40m",
    ),
    Scene(
        "VllmAtMaxReplicasWithQueue",
        {WAITING: [4] * HOUR, READY: [4] * HOUR},
        before="4m45s",
        at="5m",
        summary="4 requests wait although all 4 replicas run",
        misses={
            "one more replica is allowed": Miss({READY: [3] * HOUR}),
            "a queue now and then": Miss({WAITING: now_and_then(0, 4, 5, HOUR)}),
        },
        later="45m",
    ),
    Scene(
        "VllmAtMaxReplicasWithQueue",
        {WAITING: [4] * HOUR, SEEN: [4] * HOUR},
        before="4m45s",
        at="5m",
        summary="4 requests wait although all 4 replicas run",
        misses={"one more replica is allowed": Miss({SEEN: [3] * HOUR})},
        later="45m",
        name="without the platform's word",
        target=replace(TARGET, platform_metrics=False),
    ),
    Scene(
        "VllmScalerNotReacting",
        {WAITING: [4] * HOUR, READY: [3] * HOUR},
        before="29m45s",
        at="30m",
        summary="4 requests wait, and fewer than 4 replicas run",
        misses={
            "the fourth comes after 28 minutes": Miss({READY: [*[3] * (28 * MINUTE), *[4] * HOUR]}),
            "one comes after the other": Miss(
                {READY: [*[1] * (12 * MINUTE), *[2] * (12 * MINUTE), *[3] * HOUR]}, at=("30m", "50m")
            ),
            "no queue": Miss({WAITING: now_and_then(0, 4, 5, HOUR)}),
        },
        later="45m",
    ),
    Scene(
        "VllmBelowMinReplicas",
        {READY: [1] * HOUR},
        before="9m45s",
        at="10m",
        summary="1 replicas are ready, 2 should be",
        misses={
            "both are": Miss({READY: [2] * HOUR}),
            "one is restarted again and again": Miss({READY: now_and_then(1, 2, 16, HOUR)}),
        },
        later="45m",
    ),
    Scene(
        "VllmIdleReplicas",
        {READY: [3] * (2 * HOUR), RUNNING: [79] * (2 * HOUR)},
        before="59m45s",
        at="1h",
        summary="3 replicas (3.10 €/h each) run, and one fewer would have been enough for an hour",
        misses={
            "the load needs them": Miss({RUNNING: [81] * (2 * HOUR)}),
            "the load needs them every 50 minutes": Miss({RUNNING: now_and_then(79, 81, 200, 2 * HOUR)}),
            "no more than the fewest": Miss({READY: [2] * (2 * HOUR)}),
        },
        later="2h",
    ),
    Scene(
        "VllmIdleReplicas",
        {READY: [3] * (2 * HOUR), RUNNING: [0] * (2 * HOUR)},
        before="59m45s",
        at="1h",
        summary="3 replicas (3.10 €/h each) run, and none has had a request for an hour",
        misses={"one has": Miss({RUNNING: now_and_then(0, 1, 200, 2 * HOUR)})},
        later="2h",
        name="that are scaled on something else",
        target=replace(TARGET, running_target=None),
    ),
    Scene(
        "VllmNoTraffic",
        {TOKENS: [0] * 144, READY: [2] * 144},
        before="5h55m",
        at="6h",
        summary="no token has been generated for 6 hours, by replicas that cost money (3.10 €/h each)",
        misses={
            "a request every five hours": Miss({TOKENS: now_and_then(0, 100, 60, 144)}),
            "no replica": Miss({READY: [0] * 144}),
        },
        later="11h",
        step="5m",
    ),
    Scene(
        "VllmKvCacheFull",
        {
            # Each is met by some evaluations only.
            of_replica(KV, "1795.1"): [None, 0.97, 0.97, None] * HOUR,
            of_replica(KV, "1795.2"): [0.5, None, 0.5, 0.5] * HOUR,
        },
        before="5m",
        at="5m15s",
        summary="the KV cache of a replica is 97% full",
        misses={
            "nearly": Miss({of_replica(KV, "1795.1"): [None, 0.94, 0.94, None] * HOUR}),
            "for moments": Miss({of_replica(KV, "1795.1"): [None, 1.0, 0.85, None] * HOUR}),
        },
        later="30m",
    ),
    Scene(
        "VllmPreemptions",
        {
            of_replica(PREEMPTIONS, "1795.1"): rising([0.25] * HOUR),
            of_replica(PREEMPTIONS, "1795.2"): rising([0.25] * HOUR),
            requests("stop"): [60] * HOUR,
            requests("length"): [20] * HOUR,
        },
        before="13m",
        at="15m",
        summary="10 requests were preempted in 5 minutes",
        misses={
            "of many requests": Miss({requests("stop"): [100] * HOUR}),
            "of one replica": Miss({of_replica(PREEMPTIONS, "1795.2"): [9000] * HOUR}),
        },
        later="45m",
    ),
    Scene(
        "VllmManyAborts",
        {
            BEGUN: [100] * HOUR,
            requests("stop"): [60] * HOUR,
            requests("length"): [10] * HOUR,
            requests("abort"): [0] * HOUR,
            RUNNING: [40] * HOUR,
        },
        before="34m45s",
        at="35m",
        summary="30% of answers that had begun never came to their end",
        misses={
            "a few": Miss({requests("stop"): [75] * HOUR}),
            "hardly any request": Miss(
                {BEGUN: [3] * HOUR, requests("stop"): [0] * HOUR, requests("length"): [0] * HOUR}
            ),
            # 30 more in 5 minutes
            "they still run": Miss({RUNNING: rising([1.5] * HOUR)}),
        },
        later="45m",
    ),
    Scene(
        "VllmManyAborts",
        {
            BEGUN: [100] * HOUR,
            requests("stop"): [70] * HOUR,
            requests("abort"): [30] * HOUR,
            RUNNING: [40] * HOUR,
        },
        before="34m45s",
        at="35m",
        summary="30% of answers that had begun never came to their end",
        misses={},
        later="45m",
        name="of a vLLM that counts them",
    ),
    Scene(
        "VllmTruncatedAnswers",
        {requests("length"): [60] * HOUR, requests("stop"): [40] * HOUR},
        before="4m45s",
        at="5m",
        summary="60% of answers were cut off",
        misses={
            "a third": Miss({requests("stop"): [120] * HOUR}),
            "hardly any request": Miss({requests("length"): [3] * HOUR, requests("stop"): [0] * HOUR}),
        },
        later="45m",
    ),
    Scene(
        "VllmRestartLoop",
        {
            SEEN: [2] * 180,
            of_replica(REPLICA_RUNNING, "1795.0"): [5] * 180,
            # Three in a row, ten minutes each.
            of_replica(REPLICA_RUNNING, "1795.1"): [5] * 10,
            of_replica(REPLICA_RUNNING, "1795.2"): [*[None] * 10, *[5] * 10],
            of_replica(REPLICA_RUNNING, "1795.3"): [*[None] * 20, *[5] * 10],
            of_replica(REPLICA_RUNNING, "1795.4"): [*[None] * 30, *[5] * 150],
        },
        before="31m",
        at="32m",
        summary="3 replicas came up and died within the last hour",
        misses={
            # Prometheus has not been there for as long.
            "they were born more than an hour ago": Miss(
                {
                    of_replica("vllm:generation_tokens_created", "1795.1"): [-5000] * 10,
                    of_replica("vllm:generation_tokens_created", "1795.2"): [*[None] * 10, *[-5000] * 10],
                    of_replica("vllm:generation_tokens_created", "1795.3"): [*[None] * 20, *[-5000] * 10],
                }
            ),
            "the fourth is the third again": Miss({of_replica(REPLICA_RUNNING, "1795.3"): None}),
            "the scaler took one and gave it back": Miss({SEEN: [*[2] * 10, *[3] * 5, *[2] * 165]}),
            "they had served for more than an hour": Miss(
                {
                    of_replica(REPLICA_RUNNING, "1795.1"): [5] * 62,
                    of_replica(REPLICA_RUNNING, "1795.2"): [5] * 64,
                    of_replica(REPLICA_RUNNING, "1795.3"): [5] * 66,
                },
                at=("64m", "69m"),
            ),
        },
        later="50m",
        step="1m",
    ),
    Scene(
        "VllmEngineStuck",
        {
            of_replica(REPLICA_RUNNING, "1795.1"): [None, 3, 3, None] * HOUR,
            of_replica(GENERATED, "1795.1"): rising([100] * (5 * MINUTE) + [0] * HOUR),
            # The other engine of the same process, and one that has nothing to do with it.
            of_replica(REPLICA_RUNNING, "1795.1", engine="1"): [5] * HOUR,
            of_replica(GENERATED, "1795.1", engine="1"): rising([100] * HOUR),
            of_replica(REPLICA_RUNNING, "1795.2"): [5] * HOUR,
            of_replica(GENERATED, "1795.2"): rising([100] * HOUR),
            answers("1795.1"): rising(now_and_then(0, 1, 8, HOUR)),
            answers("1795.2"): rising([1] * HOUR),
        },
        before="12m15s",
        at="12m30s",
        summary="an engine has requests, and has generated nothing for 5 minutes",
        labels={"replica": "1795.1", "engine": "0"},
        misses={
            # What a vLLM shows whose last callers have all left at once.
            "nobody asks it": Miss(
                {
                    answers("1795.1"): rising([1] * (5 * MINUTE) + [0] * HOUR),
                    of_replica(GENERATED, "1795.1", engine="1"): rising([100] * (5 * MINUTE) + [0] * HOUR),
                }
            ),
            "a token every four minutes": Miss(
                {of_replica(GENERATED, "1795.1"): rising(now_and_then(0, 1, 16, HOUR))}
            ),
            "nothing to do at times": Miss(
                {of_replica(REPLICA_RUNNING, "1795.1"): now_and_then(3, 0, 12, HOUR)}
            ),
            "a replica that went": Miss(
                {
                    of_replica(REPLICA_RUNNING, "1795.1"): [3] * 4,
                    of_replica(GENERATED, "1795.1"): [7000, 7100, 7200, 7300],
                }
            ),
        },
        later="30m",
    ),
    Scene(
        "VllmEngineAsleep",
        {
            of_replica("vllm:engine_sleep_state", "1795.1", sleep_state="awake"): [0] * HOUR,
            of_replica("vllm:engine_sleep_state", "1795.1", sleep_state="discard_all"): [1] * HOUR,
            of_replica("vllm:engine_sleep_state", "1795.2", sleep_state="awake"): [1] * HOUR,
            of_replica("vllm:engine_sleep_state", "1795.2", sleep_state="discard_all"): [0] * HOUR,
        },
        before="4m45s",
        at="5m",
        summary="1 engines sleep",
        misses={
            "it is woken for each request": Miss(
                {
                    of_replica("vllm:engine_sleep_state", "1795.1", sleep_state="awake"): now_and_then(
                        0, 1, 16, HOUR
                    )
                }
            )
        },
        later="30m",
    ),
    Scene(
        "VllmPrometheusDropsSamples",
        {DROPS: [*[7] * 12, *[8] * (26 * 12)]},
        before="55m",
        at="1h",
        summary="Prometheus drops samples before prometheusRetention is over",
        misses={
            "in former times": Miss({DROPS: [8] * (27 * 12)}),
            "it was restarted": Miss({DROPS: [*[7] * 12, *[0] * (26 * 12)]}),
            "a day ago": Miss({}, at=("25h15m", "26h")),
        },
        later="2h",
        step="5m",
    ),
    Scene(
        "VllmRulesFailing",
        {
            rule_group("prometheus_rule_evaluation_failures_total", "vllm-ministral-replicas"): rising(
                [1] * HOUR
            ),
            rule_group("prometheus_rule_evaluation_failures_total", "vllm-ministral-slo"): [3] * HOUR,
        },
        before="5m",
        at="5m15s",
        summary="rules of the group vllm-ministral-replicas fail",
        labels={"rule_group": "/etc/prometheus/rules/vllm.yaml;vllm-ministral-replicas"},
        misses={
            "in former times": Miss(
                {
                    rule_group("prometheus_rule_evaluation_failures_total", "vllm-ministral-replicas"): [9]
                    * HOUR
                }
            ),
            "other people's rules": Miss(
                {
                    rule_group("prometheus_rule_evaluation_failures_total", "vllm-ministral-replicas"): None,
                    rule_group("prometheus_rule_evaluation_failures_total", "node.rules"): rising([1] * HOUR),
                }
            ),
        },
        later="30m",
    ),
    Scene(
        "VllmRulesLate",
        {
            rule_group("prometheus_rule_group_iterations_total", "vllm-ministral-replicas"): rising(
                [3] * HOUR
            ),
            rule_group("prometheus_rule_group_iterations_missed_total", "vllm-ministral-replicas"): rising(
                [0.3] * HOUR
            ),
        },
        before="5m",
        at="15m",
        summary="10% of the evaluations of vllm-ministral-replicas were left out",
        labels={"rule_group": "/etc/prometheus/rules/vllm.yaml;vllm-ministral-replicas"},
        misses={
            "a few": Miss(
                {
                    rule_group(
                        "prometheus_rule_group_iterations_missed_total", "vllm-ministral-replicas"
                    ): rising([0.1] * HOUR)
                }
            )
        },
        later="45m",
    ),
)


def rules(target: Target) -> dict[str, Alert]:
    """All alerts, also those of the objectives, by name."""
    groups = [*objectives.groups(target), *alerts.groups(target)]
    found = [rule for group in groups for rule in group.rules if isinstance(rule, Alert)]
    assert len({alert.name for alert in found}) == len(found)
    return {alert.name: alert for alert in found}


@pytest.fixture(scope="module")
def played(promtool: Path, tmp_path_factory: pytest.TempPathFactory) -> Mapping[tuple[str, str], str]:
    return play(promtool, tmp_path_factory.mktemp("alerts"), alerts.groups, SCENES)


@pytest.mark.parametrize(("scene", "part"), parts(SCENES))
def test_it_fires_then_and_only_then(played: Mapping[tuple[str, str], str], scene: str, part: str) -> None:
    assert played[scene, part] == ""


def test_every_alert_has_a_scene_in_which_it_fires_and_one_that_comes_near() -> None:
    named = {rule.name for group in alerts.groups(TARGET) for rule in group.rules if isinstance(rule, Alert)}
    assert {scene.alert for scene in SCENES if scene.misses} == named


def test_there_are_enough_alerts_and_promtool_finds_nothing_odd_in_them(
    promtool: Path, tmp_path: Path
) -> None:
    assert len(rules(TARGET)) >= 24
    path = tmp_path / "rules.json"
    groups = [*objectives.groups(TARGET), *alerts.groups(TARGET)]
    path.write_text(json.dumps(spec(groups, TARGET.runbooks)))
    command = [str(promtool), "check", "rules", "--lint=all", "--lint-fatal", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_no_alert_relies_on_a_label_that_the_endpoint_does_not_have() -> None:
    for alert in rules(TARGET).values():
        assert not re.search(r"\b(namespace|pod|container|node)\b", alert.expr), alert.name
        assert alert.labels.items() >= OF_TARGET.items(), alert.name


def test_only_the_summary_has_templates_and_it_names_the_endpoint() -> None:
    for alert in rules(TARGET).values():
        assert "{{" not in alert.description, alert.name
        assert alert.summary.startswith(f"{TARGET.job}: "), alert.name


def test_counters_are_read_per_replica_and_gauges_over_time() -> None:
    raw = re.compile(r"(?<!replica:)(?<!fleet:)\b(vllm:|http_)\w+")
    bare = re.compile(r"(?<!\w\()(replica:[\w:]+\{[^}]*\})(?!\[)")
    for alert in rules(TARGET).values():
        assert not raw.search(alert.expr), alert.name
        assert not bare.search(alert.expr), alert.name
        assert not re.search(r"\b(rate|irate|deriv)\(", alert.expr), alert.name


def test_what_cannot_be_known_or_happen_has_no_alert() -> None:
    all_names = set(rules(TARGET))
    silent = set(rules(replace(TARGET, platform_metrics=False)))
    assert all_names - silent == {
        "VllmMetricsBlind",
        "VllmTokenRejected",
        "VllmPlatformStatusUnknown",
        "VllmAppNotRunning",
    }
    assert "ai_deploy" not in str(rules(replace(TARGET, platform_metrics=False)))
    fixed = set(rules(replace(TARGET, min_replicas=2, max_replicas=2)))
    assert all_names - fixed == {"VllmScalerNotReacting", "VllmIdleReplicas"}
    assert all_names - set(rules(replace(TARGET, min_replicas=0))) == {"VllmBelowMinReplicas"}


def test_an_unknown_price_is_not_mentioned() -> None:
    summary = rules(replace(TARGET, replica_eur_per_hour=None))["VllmNoTraffic"].summary
    assert summary.endswith("by replicas that cost money")


ALERTS = sorted(rules(TARGET))
TITLES = ["What it means", "Confirm", "Likely causes", "What to do", "False alarm"]


@pytest.mark.parametrize("name", ALERTS)
def test_every_alert_has_a_runbook_that_says_what_the_others_say(name: str) -> None:
    text = (RUNBOOKS / f"{name}.md").read_text()
    assert text.startswith(f"# {name}\n\nSeverity: {rules(TARGET)[name].severity}.\n")
    assert re.findall(r"^## (.+)$", text, re.MULTILINE) == TITLES
    assert all(part.strip() for part in re.split(r"^#.+$", text, flags=re.MULTILINE)[1:])
    assert "```promql\n" in text


def test_no_runbook_is_about_nothing() -> None:
    pages = [path.name for path in RUNBOOKS.iterdir()]
    assert sorted(pages) == sorted(f"{name}.md" for name in (*ALERTS, "README"))


def test_the_table_of_runbooks_agrees_with_the_alerts() -> None:
    rows = re.findall(r"^\| \[(\w+)\]\((\w+)\.md\) \| (\w+) \|", README.read_text(), re.MULTILINE)
    expected = [(name, name, alert.severity) for name, alert in rules(TARGET).items()]
    assert rows == expected


@pytest.mark.parametrize("page", sorted(RUNBOOKS.glob("*.md")), ids=lambda page: str(page.stem))
def test_what_a_runbook_names_exists(page: Path) -> None:
    text = page.read_text()
    prose = re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)
    for link in re.findall(r"\]\(([^)\s]+)\)", re.sub(r"\s+", " ", prose)):
        file, _, anchor = link.partition("#")
        if "://" not in link:
            destination = (page.parent / file).resolve()
            assert destination.exists(), link
            headings = re.findall(r"^#+ (.+)$", destination.read_text(), re.MULTILINE)
            assert not anchor or anchor in {heading.lower().replace(" ", "-") for heading in headings}, link
    panels = {panel["title"] for panel in json.loads(bundle.dashboards(TARGET)["vllm.json"])["panels"]}
    named = {" ".join(name.split()) for name in re.findall(r"\*\*(.+?)\*\*", prose, re.DOTALL)}
    assert named <= panels
    keys = {key.rpartition(":")[2] for key in yaml.safe_load(PROJECT.read_text())["config"]}
    assert set(re.findall(r"pulumi config set (?:--\w+ )*(\w+)", text)) <= keys
    assert set(re.findall(r"`([a-z]+(?:[A-Z]\w*)+)`", prose)) - PARTS <= keys


@pytest.mark.parametrize("page", sorted(RUNBOOKS.glob("Vllm*.md")), ids=lambda page: str(page.stem))
def test_expressions_of_a_runbook_mean_something(page: Path) -> None:
    expressions = re.findall(r"^```promql\n(.+?)^```$", page.read_text(), re.MULTILINE | re.DOTALL)
    asked = [Expression(page.stem, expression) for expression in expressions]
    found = check.problems([*of_rules(bundle.groups(TARGET)), *asked], TARGET, "0.13.0")
    assert [str(problem) for problem in found if problem.place == page.stem] == []

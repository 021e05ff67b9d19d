"""All rules and all alerts on scrapes as Prometheus stores them: of what happens every day nobody is told.

The scenes of the alerts begin with what the rules record; here the alerts run on what the rules make of it.
"""

from __future__ import annotations

import json
import random
import subprocess
from dataclasses import replace
from pathlib import Path

from dashboards import bundle
from dashboards.rules import spec
from tests.dashboards.scrapes import MINUTE, STATIC, STEP, TARGET, Replica, Scrapes, text

SAMPLERS = 3
MINUTES = 16
GAP = range(3 * MINUTE, 3 * MINUTE + 8)
"""Prometheus restarts. It evaluates nothing meanwhile, but promtool does: so a minute more is left out."""


def fleet(step: int) -> list[Replica]:
    """Two replicas are rolled over one after the other, then a third one comes and goes."""
    lives = (
        (Replica(1795000000.25), 0, 6 * MINUTE),
        (Replica(1795000007.25), 0, 8 * MINUTE),
        (Replica(1795390000.5, born=6 * MINUTE - 6), 6 * MINUTE - 6, MINUTES * MINUTE),
        (Replica(1795390007.5, born=8 * MINUTE - 6), 8 * MINUTE - 6, MINUTES * MINUTE),
        (Replica(1795399000.5, born=10 * MINUTE), 10 * MINUTE, 12 * MINUTE),
    )
    return [replica for replica, begin, end in lives if begin <= step < end]


def test_a_restart_of_prometheus_a_roll_and_scaling_fire_nothing(promtool: Path, tmp_path: Path) -> None:
    chance = random.Random(1)  # noqa: S311
    target = replace(TARGET, min_replicas=2, max_replicas=4)
    platform = {"job": target.platform_job, "instance": "exporter:7979", **STATIC}
    scrapes = Scrapes(MINUTES * MINUTE)
    for step in range(MINUTES * MINUTE):
        if step in GAP:
            scrapes.restart()
            continue
        running = fleet(step)
        for sampler in range(SAMPLERS):
            scrapes.scrape(step, sampler, chance.choice(running))
        scrapes.put(step, text("ai_deploy_app_available_replicas", platform), len(running))
        scrapes.put(step, text("ai_deploy_app_state", {**platform, "state": "RUNNING"}), 1)
        scrapes.put(step, text("up", platform), 1)
    asked = [step for step in range(MINUTE, MINUTES * MINUTE, 3) if not GAP.start <= step < GAP.stop + MINUTE]
    questions = [
        {"expr": 'ALERTS{alertstate="firing"}', "eval_time": f"{step * STEP}s", "exp_samples": []}
        for step in asked
    ]
    # That there is something to fire of at all
    seen = {"labels": text("fleet:vllm:replicas_seen", {"job": target.job, **STATIC}), "value": 3}
    eleven = {"expr": "fleet:vllm:replicas_seen", "eval_time": "11m30s", "exp_samples": [seen]}
    (tmp_path / "rules.json").write_text(json.dumps(spec(scrapes.fed(bundle.groups(target)), "")))
    document = {
        "rule_files": ["rules.json"],
        "evaluation_interval": f"{STEP}s",
        "tests": [
            {
                "interval": f"{STEP}s",
                "input_series": scrapes.series(),
                "promql_expr_test": [eleven, *questions],
            }
        ],
    }
    (tmp_path / "test.json").write_text(json.dumps(document))
    done = subprocess.run(
        [promtool, "test", "rules", "test.json"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr

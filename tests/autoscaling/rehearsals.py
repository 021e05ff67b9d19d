"""A small stack for tests: an engine with round numbers, quick to start and quick to scale."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

from autoscaling import rehearsal
from autoscaling.engine import EngineParameters
from autoscaling.fleet import Fleet
from autoscaling.platform import PlatformTimes
from autoscaling.policy import ScalerSettings
from autoscaling.report import Report
from autoscaling.stack import Stack
from autoscaling.sweep import sweep
from autoscaling.traffic import parse
from autoscaling.workers import Workers
from components.ai_deploy.spec import Probe
from dashboards.target import Latency, Objectives

ENGINE = EngineParameters(
    kv_blocks=4000,
    step_seconds=0.02,
    sequence_seconds=0.001,
    prefill_tokens_per_second=10000,
    max_num_seqs=64,
)


def stack(**changes: Any) -> Stack:
    """1 to 3 replicas, target 4; `changes` are fields of the scaler."""
    scaler = ScalerSettings(
        **{
            "replicas_min": 1,
            "replicas_max": 3,
            "target_value": 4,
            "scale_down_stabilization_seconds": 60,
            **changes,
        }
    )
    return Stack(
        name="small",
        fleet=Fleet(
            parameters=ENGINE,
            cold_start=(("download", 20.0), ("warm-up", 10.0)),
            readiness=Probe(port=8000),
            scaler=scaler,
            platform=PlatformTimes(image_pull=5),
        ),
        objectives=Objectives(Latency(1.0, 0.95), Latency(0.1, 0.95), success=0.99, availability=0.99),
        model="acme/Small-1B",
        gpu_flavor="l4-1-gpu",
        eur_per_replica_hour=6.0,
        most_replicas=3,
        speed="round numbers",
        known_model=True,
    )


TRAFFIC = "steps:rates=0.5/4/0.5,each=2m,prompt=200,output=60"

ALONE = Workers(1)
"""No other processes: tests are short, the start of a process is not."""


def report(
    traffic: str,
    *,
    swept: bool = False,
    seed: int = 1,
    plan: Stack | None = None,
    workers: Workers = ALONE,
) -> Report:
    """A whole rehearsal."""
    plan = plan or stack()
    load = parse(traffic)
    scaler = plan.fleet.scaler
    return Report(
        stack=plan,
        traffic=load.name,
        seed=seed,
        modes={
            mode: rehearsal.answer(outcome, plan, dataclasses.replace(scaler, target_type=mode))
            for mode, outcome in rehearsal.rehearse(plan, load, seed, workers).items()
        },
        assumptions=rehearsal.assumptions(plan, load),
        sweep=sweep(plan, load, seed, workers) if swept else None,
    )


@functools.cache
def swept() -> Report:
    """One with the search for better settings: it takes longest, and several files look at it."""
    return report(TRAFFIC, swept=True)

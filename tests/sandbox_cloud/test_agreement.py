"""A rehearsal finds what the sandbox shows: replicas over time and p95 of the time to first token.

In small: `tests/prove/agreement.py` compares them on the wall clock and for longer.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from autoscaling.cold_start import ColdStart
from autoscaling.platform import PlatformTimes
from autoscaling.policy import ScalerSettings, TargetType
from autoscaling.traffic import parse
from components.ai_deploy.spec import Probe
from tests.sandbox_cloud.emulated import MOST_APART, Compared, Scene, emulate_virtually


def scene(target_type: TargetType) -> Scene:
    """One replica saturates at less than half the load: the queue grows until the others are there."""
    return Scene.of(
        target_type,
        "mistralai/Mistral-Small-3.2-24B-Instruct-2506 --max-num-seqs 8 --max-model-len 4096",
        "h100-1-gpu",
        parse("steps:rates=1/8/1,each=80s,prompt=100,output=30"),
        120,
        ColdStart(5, 4.8e9, 4.8e9, 5),
        readiness=Probe(path="/health", port=8000, initial_delay_seconds=10, period_seconds=5),
        scaler=ScalerSettings(1, 3, 5, target_type=target_type, scale_down_stabilization_seconds=60),
        platform=PlatformTimes(image_pull=10, polling_interval=5, grace=10),
        balancing="random",
    )


@pytest.mark.parametrize("target_type", ["Value", "AverageValue"])
def test_rehearsal_and_sandbox_agree(
    target_type: TargetType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    acted = scene(target_type)
    seen = emulate_virtually(acted, tmp_path, lambda bundle: monkeypatch.setenv("SSL_CERT_FILE", str(bundle)))
    compared = Compared(acted.rehearse(), seen)
    assert not seen.errors
    assert len(seen.waits) == compared.outcome.requests
    assert max(seen.ready) == max(row.ready for row in compared.outcome.timeline) > 1
    assert compared.over_time <= MOST_APART
    assert compared.replica_seconds <= MOST_APART
    assert compared.p95 <= MOST_APART

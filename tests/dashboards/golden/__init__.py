"""The dashboards of one endpoint as they should be: a change shows as a diff of these files.

`python -m tests.dashboards.golden` writes them anew.
"""

from __future__ import annotations

from pathlib import Path

from dashboards.target import Latency, Objectives, Target

FOLDER = Path(__file__).parent

TARGET = Target(
    job="vllm-ministral",
    min_replicas=1,
    max_replicas=3,
    running_target=50,
    replica_eur_per_hour=3.1,
    prometheus_bytes=50 * 2**30,
    objectives=Objectives(Latency(2.5, 0.95), Latency(0.1, 0.95), 0.99, 0.995),
    runbooks="https://example.com/runbooks",
    labels={"service": "vllm", "model": "ministral", "environment": "production"},
)

"""One endpoint for all tests of rules and dashboards; what is special about theirs is a `replace` of it."""

from __future__ import annotations

from dashboards.target import Latency, Objectives, Target

PROD = Target(
    job="vllm-ministral",
    labels={"service": "vllm", "model": "ministral", "environment": "production"},
    min_replicas=1,
    max_replicas=3,
    running_target=50.0,
    replica_eur_per_hour=3.1,
    prometheus_bytes=50 * 2**30,
    objectives=Objectives(
        time_to_first_token=Latency(2.5, 0.95),
        inter_token_latency=Latency(0.1, 0.95),
        success=0.99,
        availability=0.995,
    ),
    runbooks="docs/runbooks",
)
"""The endpoint of `Pulumi.prod.yaml`; tests/components/test_endpoint_monitoring.py holds it to that."""

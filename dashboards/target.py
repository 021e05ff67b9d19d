"""What dashboards and rules know of the endpoint that they are about."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

ENDPOINT_LABELS = ("job", "service", "model", "environment")
"""Labels that tell endpoints apart; everything that is recorded of an endpoint keeps them."""
ENDPOINT = ", ".join(ENDPOINT_LABELS)
"""The same, for the inside of `by (…)`."""
API_CALLS = 'handler=~"/v1/.+",method="POST"'
"""Matchers of `http_requests_total` for what callers ask of the model: probes ask for GET /v1/models."""


@dataclass(frozen=True)
class Latency:
    """That this share of events is at most this slow."""

    seconds: float
    """A bound of the histogram's buckets."""
    ratio: float
    """0.95 for 95 %."""


@dataclass(frozen=True)
class Objectives:
    """What users may expect, over seven days."""

    time_to_first_token: Latency
    inter_token_latency: Latency
    success: float
    """Share of requests that do not fail by a fault of the service."""
    availability: float
    """Share of scrapes of the public address that are answered."""


@dataclass(frozen=True)
class Target:
    """One endpoint as Prometheus sees it."""

    job: str
    """Label `job` of its scrapes, for example `vllm-ministral`."""
    min_replicas: int
    max_replicas: int
    running_target: float | None
    """Running requests per replica that the scaler aims at; None if it scales on something else."""
    replica_eur_per_hour: float | None
    """What a replica costs; None while the price is unknown."""
    prometheus_bytes: int
    """Size of Prometheus' volume."""
    objectives: Objectives
    runbooks: str
    """Address of the folder with a page for each alert, without trailing slash."""
    labels: Mapping[str, str]
    """The static labels of its scrapes besides `job`: service, model, environment."""
    platform_metrics: bool = True
    """Whether the platform is asked how many replicas it runs."""

    @property
    def platform_job(self) -> str:
        """Label `job` of what the platform says about the app."""
        return f"{self.job}-platform"

    @property
    def selector(self) -> str:
        """Matcher of the endpoint's series, for the inside of braces."""
        return f'job="{self.job}"'

    @property
    def rule_groups(self) -> str:
        """Matcher of its rule groups in what Prometheus says of itself; before the `;` is their file."""
        return f'rule_group=~".+;{self.job}-.+"'

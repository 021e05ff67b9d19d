"""What is assumed about AI Deploy, where neither its documentation nor its API says it; all in seconds.

The emulator of the sandbox and rehearsals take their defaults from here.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from components.ai_deploy.spec import Probe


@dataclass(frozen=True)
class PlatformTimes:
    """How long the platform takes."""

    queued: float = 5
    """An app that was created or started waits so long for its turn."""
    initializing: float = 10
    """After that, until its first replicas are made."""
    image_pull: float = 60
    """For every replica: each starts on a machine without the image."""
    polling_interval: float = 15
    """Between two samples of the scaler; the sync period of Kubernetes' controller is taken."""
    grace: float = 30
    """Between the end of the traffic to a replica and its kill: `terminationGracePeriodSeconds`, where the
    documented default is 30."""


def first_ready(started: float, listens: float, probe: Probe) -> float:
    """When a readiness probe makes a replica ready whose container started at `started`.

    `listens` is when it begins to answer. Kubernetes looks every period, at a phase of its own, once the
    initial delay is over: the first look falls up to one period after the delay. The whole period is taken.
    """
    first = started + probe.initial_delay_seconds + probe.period_seconds
    looks = max(0, math.ceil((listens - first) / probe.period_seconds))
    return first + (looks + probe.success_threshold - 1) * probe.period_seconds


def killed_before_listening(cold_start: float, liveness: Probe) -> bool:
    """Whether a liveness probe kills each container before it answers, `cold_start` after its start.

    The API has no startup probe, so one that gives up too early restarts a replica for ever.
    """
    patience = liveness.initial_delay_seconds + liveness.failure_threshold * liveness.period_seconds
    return cold_start > patience

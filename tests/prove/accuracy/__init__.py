"""How true the recorded series are: one real Prometheus, simulated fleets whose counters are known exactly.

    fleet.py        replicas: what each one has counted at any moment
    scenarios.py    the fleets that are measured, and how far off they may be
    gateway.py      one address per fleet, which balances over its replicas
    prometheus.py   the process, its configuration with the rules of `dashboards.recording`, its answers
    measure.py      a run, and the errors against the truth
    report.py       the result as Markdown

Time runs SPEED times as fast: all numbers here are seconds of the real thing, counted from the start of the
run, and only durations and timestamps that Prometheus is given or gives are divided or multiplied.
"""

from __future__ import annotations

SPEED = 15
"""Seconds that pass for the fleets in one second of the wall clock."""

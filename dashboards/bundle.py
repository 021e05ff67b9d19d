"""Everything that is provisioned for an endpoint: its rules and its dashboards."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from dashboards import alerts, objectives, recording, vllm
from dashboards.rules import Group
from dashboards.target import Target


def groups(target: Target) -> Sequence[Group]:
    """All rule groups of the endpoint; the first ones are what the others read."""
    return [*recording.groups(target), *objectives.groups(target), *alerts.groups(target)]


def dashboards(target: Target) -> Mapping[str, str]:
    """The dashboards of the endpoint: file name to JSON of Grafana's classic schema."""
    return {"vllm.json": vllm.build(target)}

"""Checks of every expression that is provisioned, and of what another version of vLLM would change.

`python -m dashboards.check --vllm 0.20` says which panels and rules would break if the image were that
version of vLLM, and which read something that means something else there. Only for development: it needs
`promql-parser`.
"""

from __future__ import annotations

from collections.abc import Sequence

from dashboards import bundle
from dashboards.check.expressions import Expression, of_dashboard, of_rules
from dashboards.check.meaning import Problem, Surroundings, mistakes
from dashboards.target import Target


def provisioned(target: Target) -> list[Expression]:
    """Every expression that is provisioned for the endpoint."""
    found = [*of_rules(bundle.groups(target))]
    for name, text in bundle.dashboards(target).items():
        found += of_dashboard(name, text)
    return found


def problems(found: Sequence[Expression], target: Target, vllm: str) -> list[Problem]:
    """What is wrong with these expressions of the endpoint, if its image is that version of vLLM."""
    recorded = frozenset(expression.records for expression in found if expression.records)
    surroundings = Surroundings(vllm, target.job, recorded)
    return [problem for expression in found for problem in mistakes(expression, surroundings)]

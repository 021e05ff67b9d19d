"""Checks of every expression that is provisioned, and of what another version of vLLM would change.

`python -m dashboards.check --vllm 0.20` says which panels and rules would break if the image were that
version of vLLM, and what it brings. Only for development: it needs `promql-parser`.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import yaml

from dashboards import bundle
from dashboards.catalogue import METRICS
from dashboards.expressions import Expression, of_dashboard, of_rules
from dashboards.meaning import Problem, Surroundings, mistakes
from dashboards.metric import FIRST, NEWEST, UnknownVersionError, version
from dashboards.target import Latency, Objectives, Target

EXAMPLE = Target(
    job="vllm-ministral",
    min_replicas=1,
    max_replicas=3,
    running_target=50,
    replica_eur_per_hour=2.8,
    prometheus_bytes=50 * 2**30,
    objectives=Objectives(Latency(1.0, 0.95), Latency(0.1, 0.95), success=0.99, availability=0.99),
    runbooks="https://runbooks.example",
    labels={"service": "vllm", "model": "ministral", "environment": "production"},
)
"""An endpoint with everything that may be provisioned."""


def expressions(target: Target) -> list[Expression]:
    """Everything that is provisioned for the endpoint."""
    found = [*of_rules(bundle.groups(target))]
    for name, text in bundle.dashboards(target).items():
        found += of_dashboard(name, text)
    return found


def problems(found: Sequence[Expression], target: Target, vllm: str) -> list[Problem]:
    """What is wrong with these expressions of the endpoint, if its image is that version of vLLM."""
    recorded = frozenset(expression.records for expression in found if expression.records)
    surroundings = Surroundings(vllm, target.job, recorded)
    return [problem for expression in found for problem in mistakes(expression, surroundings)]


def news(old: str, new: str) -> Iterator[str]:
    """What changes in vLLM's metrics from one version to another one, a line each."""
    with_flag: dict[str, list[str]] = {}
    for metric in METRICS:
        if metric.exists(new) and not metric.exists(old):
            if metric.flag is None:
                yield f"new in {metric.since}: {metric.name}: {metric.help}"
            else:
                with_flag.setdefault(metric.flag, []).append(metric.name)
        elif metric.exists(old) and not metric.exists(new):
            instead = f": use {metric.replacement}" if metric.replacement else ""
            yield f"gone in {metric.until}: {metric.name}{instead}"
        if metric.exists(new):
            for since, change in metric.changes.items():
                if version(old) < version(since) <= version(new):
                    yield f"other in {since}: {metric.name} {change}"
    for flag, names in with_flag.items():
        yield f"new with {flag}: {', '.join(names)}"


def image_version(pulumi: Path) -> str:
    """The version of vLLM in the image that `Pulumi.yaml` has as its default."""
    image: str = yaml.safe_load(pulumi.read_text())["config"]["image"]["default"]
    return image.rpartition(":")[2].removeprefix("v")


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints the problems and the news; the exit status is 1 if there are problems."""
    ours = image_version(Path(__file__).parents[1] / "Pulumi.yaml")
    parser = argparse.ArgumentParser(prog="python -m dashboards.check", description=__doc__)
    parser.add_argument(
        "--vllm", default=ours, metavar="VERSION", help=f"{FIRST} to {NEWEST} (default: {ours}, the image's)"
    )
    vllm = parser.parse_args(arguments).vllm
    try:
        known = version(FIRST) <= version(vllm) <= version(NEWEST)
    except UnknownVersionError as error:
        parser.error(str(error))
    if not known:
        parser.error(f"the catalogue knows vLLM {FIRST} to {NEWEST}, not {vllm}: read its loggers.py first")
    found = expressions(EXAMPLE)
    wrong = problems(found, EXAMPLE, vllm)
    lines = [
        *(str(problem) for problem in wrong),
        f"vLLM {vllm}: {len(wrong)} problems in {len(found)} expressions",
        *news(ours, vllm),
    ]
    sys.stdout.write("".join(f"{line}\n" for line in lines))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())

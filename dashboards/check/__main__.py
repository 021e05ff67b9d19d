"""The command line of the checks."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from dashboards import check
from dashboards.check import news
from dashboards.metric import FIRST, NEWEST, UnknownVersionError, version
from dashboards.target import Latency, Objectives, Target

PROJECT = Path(__file__).parents[2] / "Pulumi.yaml"


def defaults(project: Path) -> dict[str, Any]:
    """The settings that `Pulumi.yaml` has for every stack."""
    declared: Mapping[str, Mapping[str, Any]] = yaml.safe_load(project.read_text())["config"]
    return {key: item["default"] for key, item in declared.items() if "default" in item}


def image_version(settings: Mapping[str, Any]) -> str:
    """The version of vLLM in the image."""
    image: str = settings["image"]
    return image.rpartition(":")[2].removeprefix("v")


def example(settings: Mapping[str, Any]) -> Target:
    """An endpoint with these settings that scales and costs something, so that nothing is left out for it."""
    objectives = settings["serviceLevelObjectives"]

    def share(name: str) -> float:
        percent: float = objectives[name]["percent"]
        return round(percent / 100, 9)

    def latency(name: str) -> Latency:
        return Latency(objectives[name]["seconds"], share(name))

    return Target(
        job="vllm-example",
        labels={"service": "vllm", "model": "example", "environment": settings["environment"]},
        min_replicas=1,
        max_replicas=2,
        running_target=float(settings["scalingTarget"]),
        replica_eur_per_hour=3.1,
        prometheus_bytes=settings["prometheusStorageGiB"] * 2**30,
        objectives=Objectives(
            latency("timeToFirstToken"),
            latency("interTokenLatency"),
            share("success"),
            share("availability"),
        ),
        runbooks="docs/runbooks",
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints the problems and the news; the exit status is 1 if there are problems."""
    settings = defaults(PROJECT)
    ours = image_version(settings)
    parser = argparse.ArgumentParser(prog="python -m dashboards.check", description=check.__doc__)
    parser.add_argument(
        "--vllm", default=ours, metavar="VERSION", help=f"{FIRST} to {NEWEST} (default: {ours}, the image's)"
    )
    parser.add_argument(
        "--all", action="store_true", help="also name the families that came or went, whoever reads them"
    )
    options = parser.parse_args(arguments)
    vllm = options.vllm
    try:
        known = version(FIRST) <= version(vllm) <= version(NEWEST)
    except UnknownVersionError as error:
        parser.error(str(error))
    if not known:
        parser.error(f"the catalogue knows vLLM {FIRST} to {NEWEST}, not {vllm}: read its loggers.py first")
    target = example(settings)
    found = check.provisioned(target)
    wrong = check.problems(found, target, vllm)
    lines = [
        *(str(problem) for problem in wrong),
        f"vLLM {vllm}: {len(wrong)} problems in {len(found)} expressions",
        *news.changes(ours, vllm, found),
        *(news.families(ours, vllm) if options.all else ()),
    ]
    sys.stdout.write("".join(f"{line}\n" for line in lines))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())

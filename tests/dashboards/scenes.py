"""Scenes for promtool: series over time, when an alert fires of them, and what comes near and does not."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from dashboards.rules import Alert, Group, Recording, spec
from dashboards.target import Latency, Target
from tests.dashboards.targets import PROD

Values = Sequence[float | None]
"""One sample per step; None is none."""

TARGET = replace(
    PROD,
    min_replicas=2,
    max_replicas=4,
    objectives=replace(PROD.objectives, time_to_first_token=Latency(1.0, 0.95)),
    runbooks="https://example.com/runbooks",
)
OF_TARGET = {"job": TARGET.job, **TARGET.labels}


def series(name: str, **labels: str) -> str:
    """A series of the endpoint, as promtool writes it."""
    return other(name, **OF_TARGET, **labels)


def other(name: str, **labels: str) -> str:
    """A series with these labels alone."""
    return f"{name}{{{','.join(f'{key}={json.dumps(value)}' for key, value in labels.items())}}}"


def rising(steps: Iterable[float]) -> list[float]:
    """A counter that rises by so much per step."""
    return list(accumulate(steps))


def now_and_then(usual: float, once: float, every: int, length: int) -> list[float]:
    """A gauge with another value at each so-manieth step."""
    return [once if step % every == every - 1 else usual for step in range(length)]


@dataclass(frozen=True)
class Miss:
    """Near the scene in which the alert fires, but it stays silent."""

    changed: Mapping[str, Values | None]
    """Series with other values; None takes a series away."""
    at: tuple[str, ...] = ()
    """When to look; by default when the alert fires in the scene, and later."""


@dataclass(frozen=True)
class Scene:
    """When an alert fires."""

    alert: str
    series: Mapping[str, Values]
    before: str
    """It does not fire yet."""
    at: str
    """It fires."""
    summary: str
    """What it says then, without the job's name at the beginning."""
    misses: Mapping[str, Miss]
    later: str
    """When the misses are silent as well."""
    labels: Mapping[str, str] = field(default_factory=dict)
    """Those that not all alerts have."""
    step: str = "15s"
    """Between two samples."""
    evaluated: str = ""
    """Between two evaluations, if that is not the same."""
    name: str = ""
    target: Target = TARGET

    @property
    def id(self) -> str:
        return f"{self.alert} {self.name}".strip()


@dataclass(frozen=True)
class Question:
    """What an expression gives."""

    name: str
    series: Mapping[str, Values]
    expr: str
    at: str
    samples: Mapping[str, float]
    step: str = "1m"


def _inputs(given: Mapping[str, Values]) -> list[dict[str, str]]:
    return [
        {"series": name, "values": " ".join("_" if value is None else f"{value:.12g}" for value in values)}
        for name, values in given.items()
    ]


def _tests(scene: Scene, alert: Alert) -> list[dict[str, Any]]:
    fired = {
        "exp_labels": {"severity": alert.severity, **OF_TARGET, **scene.labels},
        "exp_annotations": {
            "summary": f"{TARGET.job}: {scene.summary}",
            "description": alert.description,
            "runbook_url": f"{TARGET.runbooks}/{alert.name}.md",
        },
    }
    found = [
        {
            "name": "fires",
            "interval": scene.step,
            "input_series": _inputs(scene.series),
            "alert_rule_test": [
                {"alertname": alert.name, "eval_time": scene.before, "exp_alerts": []},
                {"alertname": alert.name, "eval_time": scene.at, "exp_alerts": [fired]},
            ],
        }
    ]
    for name, miss in scene.misses.items():
        changed = {**scene.series, **miss.changed}
        found.append(
            {
                "name": name,
                "interval": scene.step,
                "input_series": _inputs({key: given for key, given in changed.items() if given is not None}),
                "alert_rule_test": [
                    {"alertname": alert.name, "eval_time": time, "exp_alerts": []}
                    for time in miss.at or (scene.at, scene.later)
                ],
            }
        )
    return found


def _needed(alert: Alert, rules: Sequence[Recording | Alert]) -> list[Recording | Alert]:
    """The alert, and what is recorded for it: all the others take time."""
    expressions = {alert.expr}
    found: list[Recording | Alert] = []
    for rule in reversed(rules):
        if rule == alert:
            found.append(rule)
        elif (
            isinstance(rule, Recording)
            and any(rule.record in expr for expr in expressions)
            and rule.labels.get("slo") in (None, alert.labels.get("slo"))
        ):
            found.append(rule)
            expressions.add(rule.expr)
    return found[::-1]


def play(
    promtool: Path,
    folder: Path,
    groups: Callable[[Target], Sequence[Group]],
    scenes: Sequence[Scene],
    questions: Sequence[Question] = (),
) -> Mapping[tuple[str, str], str]:
    """Runs promtool once; what was not as promised ("" is well), by scene or question and part of it."""
    suites: list[str] = []

    def write(name: str, rules: Sequence[Group], step: str, tests: list[dict[str, Any]]) -> None:
        number = len(suites)
        (folder / f"rules-{number}.json").write_text(json.dumps(spec(rules, TARGET.runbooks)))
        document = {"rule_files": [f"rules-{number}.json"], "evaluation_interval": step, "tests": tests}
        (folder / f"test-{number}.json").write_text(json.dumps(document))
        suites.append(name)

    for scene in scenes:
        rules = groups(scene.target)
        (alert,) = (
            rule
            for group in rules
            for rule in group.rules
            if isinstance(rule, Alert) and rule.name == scene.alert
        )
        needed = [
            Group(f"{TARGET.job}-test", _needed(alert, [rule for group in rules for rule in group.rules]))
        ]
        write(scene.id, needed, scene.evaluated or scene.step, _tests(scene, alert))
    for question in questions:
        test = {
            "name": "answers",
            "interval": question.step,
            "input_series": _inputs(question.series),
            "promql_expr_test": [
                {
                    "expr": question.expr,
                    "eval_time": question.at,
                    "exp_samples": [
                        {"labels": labels, "value": value} for labels, value in question.samples.items()
                    ],
                }
            ],
        }
        # What is recorded alone: the alerts take most of the time.
        recorded = [
            replace(group, rules=[rule for rule in group.rules if isinstance(rule, Recording)])
            for group in groups(TARGET)
        ]
        write(question.name, recorded, question.step, [test])
    files = [f"test-{number}.json" for number in range(len(suites))]
    run = subprocess.run(
        [promtool, "test", "rules", "--junit", "junit.xml", *files],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    report = folder / "junit.xml"
    assert report.exists(), run.stderr
    results: dict[tuple[str, str], str] = {}
    for name, suite in zip(suites, ElementTree.parse(report).getroot(), strict=True):  # noqa: S314
        assert suite.get("errors") == "0", run.stderr + run.stdout
        for case in suite:
            failure = case.find("failure")
            results[name, str(case.get("name"))] = "" if failure is None else str(failure.text)
    return results


def parts(scenes: Sequence[Scene], questions: Sequence[Question] = ()) -> list[tuple[str, str]]:
    """What `play` will have a result for."""
    return [
        *((scene.id, part) for scene in scenes for part in ("fires", *scene.misses)),
        *((question.name, "answers") for question in questions),
    ]

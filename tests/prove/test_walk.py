"""The walk itself: it finds nothing where nothing is wrong, and what is wrong in a broken provider."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pulumi
import pytest
from pulumi.runtime import mocks

from components.ai_deploy import resources
from tests.ai_deploy.clouds import MODEL
from tests.prove import faults, program
from tests.prove.engine import Resource
from tests.prove.process import ROOT
from tests.prove.scene import Point
from tests.prove.walk import PHASES, SIEGES, Outcome, Stage, points, shortened, stage, troubles
from tests.sandbox_cloud.fakes import PROJECT

CREATE = PHASES[0]
TROUBLES = {trouble.name: trouble for trouble in troubles()}


Call = tuple[str, str, str]
"""Step, method and path."""


def struck(ready: Stage, recorded: list[Point], trouble: str, call: Call) -> Outcome:
    """What became of the first such call."""
    found = [point for point in recorded if (point.step, point.method, point.path) == call]
    return ready.strike(found[0], TROUBLES[trouble])


@pytest.fixture(scope="module")
def whole() -> Iterator[tuple[Stage, list[Point]]]:
    """A provider that is as it should be, and the calls of a create."""
    with stage(CREATE) as ready:
        yield ready, ready.record()


@pytest.mark.parametrize(
    ("trouble", "call"),
    [
        ("429, Retry-After 20 s", ("create vllm-client-token-1", "POST", "/token")),
        ("lost answer", ("create vllm-scraper-token-1", "POST", "/token")),
        ("502 with HTML", ("create vllm-token-sweep", "GET", "/token")),
        ("lost answer", ("create vllm", "POST", "/app")),
        ("reset connection", ("create vllm", "POST", "/app")),
        ("missing right", ("create vllm", "POST", "/app")),
        ("kill -9 of the provider, call carried out", ("create vllm", "POST", "/app")),
        ("end of the engine", ("create vllm", "GET", "/app?labelSelector=deploy-identity")),
        ("400 that echoes secrets", ("create vllm", "POST", "/app")),
        ("app answers with the login page, three times", ("create vllm-ready", "GET", "app/v1/models")),
    ],
)
def test_nothing_is_lost_at_a_sample_of_points(
    whole: tuple[Stage, list[Point]], trouble: str, call: Call
) -> None:
    outcome = struck(*whole, trouble, call)
    assert outcome.met
    assert (outcome.lost, outcome.wrong) == ([], [])


@pytest.mark.parametrize(
    ("sabotage", "trouble", "call", "finding"),
    [
        ("forgetful", "lost answer", ("create vllm", "POST", "/app"), "app that state does not know"),
        (
            "talkative",
            "400 that echoes secrets",
            ("create vllm", "POST", "/app"),
            "a secret was told",
        ),
        (
            "deaf",
            "end of the engine",
            ("create vllm", "GET", "/app?labelSelector=deploy-identity"),
            "an engine that had ended",
        ),
    ],
)
def test_a_broken_provider_is_found_out(sabotage: str, trouble: str, call: Call, finding: str) -> None:
    with stage(CREATE, sabotage) as ready:
        outcome = struck(ready, ready.record(), trouble, call)
    assert any(finding in text for text in (*outcome.lost, *outcome.wrong)), outcome


def test_every_phase_has_the_calls_that_it_is_about() -> None:
    """A recording that misses the replacement or the restart would prove nothing."""
    destroy = PHASES[-1]
    found = {(point.method, point.path) for point in points(destroy, records=1)}
    assert {("PUT", "/app/{id}/stop"), ("DELETE", "/app/{id}"), ("DELETE", "/token/{id}")} <= found


def test_the_walk_deploys_what_a_program_declares() -> None:
    """Types and names of all inputs are those that the resources hand to the engine."""
    declared: dict[str, set[str]] = {}
    computed = {"value": "x", "url": "x", "starts": 0, "failure": ""}

    class Engine(mocks.Mocks):
        def new_resource(self, args: mocks.MockResourceArgs) -> tuple[str | None, dict[str, Any]]:
            declared[args.name] = {key for key, value in args.inputs.items() if value is not None}
            return args.name, {**args.inputs, **computed}

        def call(self, args: mocks.MockCallArgs) -> tuple[dict[str, Any], list[tuple[str, str]]]:
            return {}, []

    settings = program.Settings(adopt="x")

    def declare() -> pulumi.Output[str]:
        identity = resources.Identity(program.IDENTITY, service_name=PROJECT).value
        made = [
            resources.Token(name, service_name=PROJECT, identity=identity, region="GRA")
            for name in program.tokens(settings)
        ]
        ids = [token.id for token in made]
        resources.TokenSweep(program.SWEEP, service_name=PROJECT, identity=identity, token_ids=ids)
        app = resources.App(
            program.APP,
            service_name=PROJECT,
            identity=identity,
            name="vllm",
            region="GRA",
            image="x",
            flavor="h100-1-gpu",
            gpu=1,
            env={"A": "b"},
            labels={"a": "b"},
            readiness_probe={"path": "/", "port": 8000},
            scaling_strategy={"fixed": {"replicas": 1}},
            deployment_strategy=program.ROLLOUT,
            adopt="x",
        )
        return resources.Readiness(program.READY, app=app, token=made[0].value, model=MODEL).url

    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    try:
        mocks.set_mocks(Engine(), project="ovh-vllm", stack="test")
        test: Any = pulumi.runtime.test
        test(declare)()
    finally:
        asyncio.set_event_loop(None)
        loop.close()
    known: dict[str, Resource] = {}
    built = {}
    for goal in program.program(settings):
        inputs = goal.inputs(known)
        built[goal.name] = {key for key, value in inputs.items() if value is not None}
        known[goal.name] = Resource(
            goal.name, goal.kind, goal.name, inputs, {**inputs, **computed}, goal.depends
        )
    assert built == {name: keys - {"__provider"} for name, keys in declared.items()}


def test_the_result_says_for_each_phase_and_trouble_what_was_found() -> None:
    outcomes = [
        Outcome("create", "429", "a", met=True, survived=True, ended_with="success"),
        Outcome("create", "429", "b", met=True, ended_with="x | y"),
        Outcome("create", "429", "c", met=True, ended_with="z", lost=["app that state does not know"]),
        Outcome("create", "429", "d"),
    ]
    text = faults.report(outcomes, 60)
    assert "4 points walked (1 not met), 1 survived, 1 recovered by the way back, 1 lost" in text
    row = next(line for line in text.splitlines() if line.startswith("| 429 "))
    assert row.startswith("| 429 | 4 | 1 | 1 | 1 | 1 | 1 × app that state does not know | 1 × success<br>")
    assert r"x \| y" in row


def test_the_result_names_no_path_of_the_machine() -> None:
    assert shortened(f'File "{ROOT}/components/x.py", line 1') == 'File "components/x.py", line 1'


def test_every_siege_names_phases_that_there_are() -> None:
    assert {name for siege in SIEGES for name in siege.phases} <= {phase.name for phase in PHASES}

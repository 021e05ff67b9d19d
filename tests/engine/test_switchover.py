"""The whole program moves to another app while it is called and scraped.

Callers ask the address that they were told last: that of the update that has returned.
"""

from __future__ import annotations

import datetime
import ssl
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from sandbox.engine import EngineError
from tests.engine.cluster import kubernetes_client
from tests.engine.conftest import Deployment
from tests.engine.meanwhile import meanwhile
from tests.engine.traffic import Answer, Callers, now
from tests.waiting import until

NAME = "vllm-next"
"""Name of the new app: no call changes the name of a living one."""
IMAGE = "vllm/vllm-openai:v0.13.1"
SCRAPE_CONFIGS = "/apis/monitoring.coreos.com/v1alpha1/namespaces/monitoring/scrapeconfigs"


@dataclass(frozen=True)
class Step:
    """What there was after an update."""

    outputs: dict[str, Any]
    targets: set[str]
    """What the objects in the cluster tell Prometheus to scrape."""
    apps: dict[str, str]
    """State of each app that exists."""
    calls: list[tuple[str, str, Any]]
    """When which call of the update has changed an app, and its body."""
    returned: str
    """When the update was over."""
    said: str = field(repr=False)

    @property
    def host(self) -> str:
        """Where callers find the endpoint."""
        return str(urlsplit(self.outputs["endpoint_url"]).netloc)

    def called(self, end: str, **body: Any) -> str:
        """When the one call whose method and path end so was made."""
        [when] = [
            time
            for time, call, given in self.calls
            if call.endswith(end) and body.items() <= (given or {}).items()
        ]
        return when


@dataclass(frozen=True)
class Moves:
    """The updates in their order, and what callers and Prometheus met meanwhile."""

    before: Step
    failed: Step
    """The new app has not become ready."""
    completed: Step
    back: Step
    """The program is as before again."""
    answers: list[Answer]
    moved: dict[str, str]
    """When which target was first seen in the cluster."""


def test_a_failed_replacement_leaves_callers_and_prometheus_at_the_app_that_serves(moves: Moves) -> None:
    before, failed = moves.before, moves.failed
    assert "is not ready" in failed.said
    assert sorted(failed.apps.values()) == ["FAILED", "RUNNING"]
    assert failed.outputs == before.outputs
    assert failed.targets == before.targets == {before.host}


@pytest.mark.parametrize("step", ["completed", "back"])
def test_a_replacement_moves_outputs_and_scrape_target_in_one_update(moves: Moves, step: str) -> None:
    after: Step = getattr(moves, step)
    assert after.apps == {after.outputs["app_id"]: "RUNNING"}
    assert after.targets == {after.host}


@pytest.mark.parametrize(("step", "previous"), [("completed", "failed"), ("back", "completed")])
def test_the_old_app_goes_last(moves: Moves, step: str, previous: str) -> None:
    """After the gate, which the scrape target follows, too."""
    after: Step = getattr(moves, step)
    ready = after.called(f"{after.outputs['app_id']}/label", name="deploy-ready", value="true")
    stopped = after.called(f"{getattr(moves, previous).outputs['app_id']}/stop")
    assert ready < moves.moved[after.host]
    assert ready < stopped < after.returned


def test_nobody_is_turned_away_until_the_old_app_goes(moves: Moves) -> None:
    """Nor at the new address, from the first call on; in between callers still have the old address."""
    addresses = [step.outputs["endpoint_url"] for step in (moves.before, moves.completed, moves.back)]
    ends = {
        addresses[0]: moves.completed.called(f"{moves.before.outputs['app_id']}/stop"),
        addresses[1]: moves.back.called(f"{moves.completed.outputs['app_id']}/stop"),
        addresses[2]: now(),
    }
    for url, end in ends.items():
        statuses = {answer.status for answer in moves.answers if answer.url == url and answer.when < end}
        assert statuses == {200}


@pytest.fixture(scope="module")
def moves(deployment: Deployment, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Moves]:
    sandbox, engine = deployment.sandbox, deployment.engine
    api = sandbox.connection.api
    prometheus = sandbox.addresses()[0].prometheus
    outputs = engine.outputs("sandbox")
    trusted = ssl.create_default_context(cafile=sandbox.connection.ca_bundle)
    kubernetes = kubernetes_client(outputs["kubeconfig"], tmp_path_factory.mktemp("kubernetes"))

    def targets() -> set[str]:
        items = kubernetes.get(SCRAPE_CONFIGS).raise_for_status().json()["items"]
        return {
            target
            for item in items
            for static in item["spec"]["staticConfigs"]
            for target in static["targets"]
            if "sampler" in static["labels"]
        }

    def recorded() -> list[tuple[str, str, Any]]:
        calls = httpx.get(f"{api}/sandbox/calls").raise_for_status().json()
        return [
            (call["time"], f"{call['method']} {call['path'].partition('?')[0]}", call["body"])
            for call in calls
            if "/ai/app" in call["path"] and call["method"] != "GET"
        ]

    def scraped(host: str) -> None:
        """Waits for a scrape that begins from now on, and succeeds."""
        since = datetime.datetime.now(datetime.UTC)

        def seen() -> bool:
            pools = httpx.get(f"{prometheus}/api/v1/targets", params={"state": "active"}).json()["data"]
            return any(
                host in target["scrapeUrl"]
                and target["health"] == "up"
                and datetime.datetime.fromisoformat(target["lastScrape"]) > since
                for target in pools["activeTargets"]
            )

        until(seen, f"a scrape of {host}")

    def update() -> Step:
        known = len(recorded())
        try:
            said = engine.capture("up", "-s", "sandbox", "--yes", "--skip-preview", "--continue-on-error")
        except EngineError as error:
            said = str(error)
        returned = now()
        apps = {
            thing["id"]: thing["detail"]["state"]
            for thing in sandbox.resources()
            if thing["kind"] == "ai-app"
        }
        return Step(engine.outputs("sandbox"), targets(), apps, recorded()[known:], returned, said)

    def settle(step: Step) -> Step:
        """Callers switch to what the update has put out."""
        callers.told(step.outputs)
        scraped(step.host)
        return step

    def configure(**settings: str) -> None:
        values = [f"--plaintext={key}={value}" for key, value in settings.items()]
        engine.capture("config", "set-all", "-s", "sandbox", *values)

    name = engine.capture("config", "get", "appName", "-s", "sandbox").strip()
    callers = Callers(trusted, outputs)
    moved: dict[str, str] = {}
    before = Step(outputs, targets(), {}, [], now(), "")
    try:
        with watching(lambda: [moved.setdefault(target, now()) for target in targets()]), callers.calling(2):
            settle(before)
            configure(appName=NAME)
            with watching(lambda: end(api)):
                failed = settle(update())
            configure(image=IMAGE)
            completed = settle(update())
            configure(appName=name)
            engine.capture("config", "rm", "image", "-s", "sandbox")
            back = settle(update())
        yield Moves(before, failed, completed, back, callers.answers, moved)
    finally:
        kubernetes.close()


def end(api: str) -> None:
    """Lets the new app fail as soon as it exists."""
    fault = {"name": f"^{NAME}$", "state": "FAILED", "message": "out of memory"}
    httpx.post(f"{api}/sandbox/end", json=fault).raise_for_status()


def watching(look: Callable[[], object]) -> AbstractContextManager[None]:
    """Does something again and again meanwhile; what is not there yet or any more is no matter."""

    def once() -> None:
        with suppress(httpx.TransportError):
            look()

    return meanwhile(once, 0.05)

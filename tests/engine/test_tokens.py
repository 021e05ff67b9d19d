"""Tokens change while the endpoint is called and scraped, and nobody is turned away for it."""

from __future__ import annotations

import datetime
import json
import re
import ssl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from components.ai_deploy.api import AiDeploy
from components.ai_deploy.client import OvhClient
from components.ai_deploy.credentials import find_credentials
from sandbox.connection import Addresses
from tests.engine.cluster import kubernetes_client
from tests.engine.conftest import Deployment
from tests.engine.meanwhile import meanwhile
from tests.engine.traffic import Answer, Callers
from tests.waiting import until

# Several updates belong to one fixture, and other tests run at the same time.
pytestmark = pytest.mark.timeout(900)

MONITORING = "/apis/monitoring.coreos.com"
PROMETHEUS = f"{MONITORING}/v1/namespaces/monitoring/prometheuses/monitoring-prometheus"
SCRAPE = f"{MONITORING}/v1alpha1/namespaces/monitoring/scrapeconfigs/vllm-ministral-0"


@dataclass
class Scrapes:
    """What Prometheus does with the endpoint."""

    addresses: Addresses
    folder: Path
    """Of the sandbox."""
    seen: dict[datetime.datetime, str] = field(default_factory=dict)
    """When a scrape began, and the error that it ended with, "" for none."""

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Looks at every scrape meanwhile."""
        with (
            httpx.Client(base_url=self.addresses.prometheus) as client,
            meanwhile(lambda: self._look(client), 0.1),
        ):
            yield

    def another(self) -> None:
        """Waits for a scrape that begins from now on."""
        now = datetime.datetime.now(datetime.UTC)
        until(lambda: any(time > now for time in list(self.seen)), "another scrape")

    def arrived(self, token: str) -> None:
        """Waits until Prometheus runs with a configuration that holds the token."""
        until(lambda: self._uses(token), "the token has arrived at Prometheus")

    def _uses(self, token: str) -> bool:
        changed = self._configuration().stat().st_mtime
        metrics = httpx.get(f"{self.addresses.prometheus}/metrics").text
        loaded = re.search(r"^prometheus_config_last_reload_success_timestamp_seconds (\S+)", metrics, re.M)
        assert loaded is not None
        return self.holds(token) and float(loaded[1]) >= changed

    def holds(self, token: str) -> bool:
        """Whether the configuration that has arrived last holds the token."""
        return token in self._configuration().read_text()

    def samples(self, seconds: float) -> list[str]:
        """All values of `up` that the endpoint's job had in the last seconds."""
        query = {"query": f'up{{service="vllm"}}[{int(seconds * 1000)}ms]'}
        answer = httpx.get(f"{self.addresses.prometheus}/api/v1/query", params=query).raise_for_status()
        return [value for series in answer.json()["data"]["result"] for _, value in series["values"]]

    def _configuration(self) -> Path:
        # Of the cluster whose Prometheus this is; other stacks have their own.
        port = self.addresses.prometheus.rpartition(":")[2]
        [file] = [
            folder / "current" / "prometheus.yml"
            for folder in self.folder.glob("clusters/*/prometheus-*")
            if f"127.0.0.1:{port}" in (folder / "current" / "prometheus.yml").read_text()
        ]
        return file

    def _look(self, client: httpx.Client) -> None:
        pools = client.get("/api/v1/targets", params={"state": "active"}).json()["data"]
        for target in pools["activeTargets"]:
            if target["labels"].get("service") == "vllm":
                began = datetime.datetime.fromisoformat(target["lastScrape"])
                self.seen[began] = target["lastError"]


@dataclass
class Step:
    """What there is after an update."""

    tokens: dict[str, str]
    """Values of the tokens that state holds, by the name of the resource."""
    ids: set[str]
    """Ids of the same."""
    names: dict[str, str]
    """Names of all tokens that exist in the cloud, by their id."""
    client_token: str
    """The stack's output."""
    calls: list[str]
    """Calls that the update made."""
    statuses: dict[str, int]
    """What a caller with each of the client tokens is answered that there were before or are now."""
    scraper: str
    """Name of the token that Prometheus uses when the update has returned."""


@dataclass
class Rotation:
    """The updates in their order, and what callers and Prometheus met meanwhile."""

    steps: dict[str, Step]
    strangers: dict[str, str]
    """Tokens, id and name, that others made in the same project."""
    left_over: dict[str, str]
    """Tokens, id and name, that a killed update of this deployment made."""
    answers: list[Answer]
    errors: list[str]
    """How each scrape ended."""
    samples: list[str]
    """Values of `up`."""


@pytest.fixture(scope="module")
def rotation(deployment: Deployment, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rotation]:
    """Raises the generation with traffic and scrapes running: at once, and while Prometheus lags behind.

    A kubelet brings a changed Secret to Prometheus within 90 s. Here Prometheus gets the first change while
    the update still runs, and the second one as late as the test says, by the operator's own `paused`: that
    needs no clock. The third update revokes a token at once; nobody calls then.
    """
    sandbox, engine = deployment.sandbox, deployment.engine
    outputs = engine.outputs("sandbox")
    trusted = ssl.create_default_context(cafile=sandbox.connection.ca_bundle)
    callers = Callers(trusted, outputs)
    scrapes = Scrapes(sandbox.addresses()[0], sandbox.folder.root)
    kubernetes = kubernetes_client(outputs["kubeconfig"], tmp_path_factory.mktemp("kubernetes"))
    api = AiDeploy(OvhClient(find_credentials({}, engine.environment)), sandbox.connection.service_name)
    values: dict[str, str] = {}

    def look(calls: list[str]) -> Step:
        resources = [item for item in deployment.state() if item["type"].endswith("ai-deploy:Token")]
        tokens = {item["urn"].rpartition("::")[2]: item["outputs"]["value"] for item in resources}
        values.update(tokens)
        return Step(
            tokens=tokens,
            ids={item["id"] for item in resources},
            names={token["id"]: token["spec"]["name"] for token in api.tokens()},
            client_token=engine.outputs("sandbox")["client_token"],
            calls=calls,
            statuses={name: callers.status(value) for name, value in values.items() if "client" in name},
            scraper=next((name for name, value in values.items() if scrapes.holds(value)), ""),
        )

    def update(*settings: str) -> Step:
        before = len(calls_of(deployment))
        engine.capture("config", "set-all", "-s", "sandbox", *(f"--plaintext={item}" for item in settings))
        engine.capture("up", "-s", "sandbox", "--yes", "--skip-preview", "--continue-on-error")
        return look(calls_of(deployment)[before:])

    left_over, strangers = others(api, deployment)
    steps = {"before": look([])}
    patch(kubernetes, SCRAPE, {"scrapeInterval": "2s", "scrapeTimeout": "2s"})
    try:
        scrapes.arrived(steps["before"].tokens["vllm-scraper-token-1"])
        begin = time.monotonic()
        with scrapes.watched(), callers.calling(4):
            scrapes.another()
            callers.served()

            steps["raised"] = update("tokenGeneration=2")
            callers.told({**outputs, "client_token": steps["raised"].client_token})
            scrapes.arrived(steps["raised"].tokens["vllm-scraper-token-2"])
            scrapes.another()

            patch(kubernetes, PROMETHEUS, {"paused": True})
            steps["raised again"] = update("tokenGeneration=3")
            scrapes.another()
            callers.told({**outputs, "client_token": steps["raised again"].client_token})
            scrapes.another()
            patch(kubernetes, PROMETHEUS, {"paused": None})
            scrapes.arrived(steps["raised again"].tokens["vllm-scraper-token-3"])
            scrapes.another()
        samples = scrapes.samples(time.monotonic() - begin)
        steps["revoked"] = update("tokenGeneration=4", "keepPreviousTokens=false")
        yield Rotation(steps, strangers, left_over, callers.answers, list(scrapes.seen.values()), samples)
    finally:
        patch(kubernetes, PROMETHEUS, {"paused": None})
        patch(kubernetes, SCRAPE, {"scrapeInterval": "5s", "scrapeTimeout": "5s"})
        engine.capture("config", "rm-all", "-s", "sandbox", "tokenGeneration", "keepPreviousTokens")
        engine.capture("up", "-s", "sandbox", "--yes", "--skip-preview", "--continue-on-error")
        for token in strangers:
            api.delete_token(token)
        kubernetes.close()


def patch(client: httpx.Client, path: str, spec: dict[str, Any]) -> None:
    """Changes fields of an object in the cluster by hand."""
    headers = {"Content-Type": "application/merge-patch+json"}
    client.patch(path, content=json.dumps({"spec": spec}), headers=headers).raise_for_status()


def calls_of(deployment: Deployment) -> list[str]:
    """Calls that the API got, without the path to the project."""
    calls = httpx.get(f"{deployment.sandbox.connection.api}/sandbox/calls").raise_for_status().json()
    return [f"{call['method']} {re.sub('.*/cloud/project/[^/]+', '', call['path'])}" for call in calls]


def others(api: AiDeploy, deployment: Deployment) -> tuple[dict[str, str], dict[str, str]]:
    """Makes tokens of this deployment that no state holds, and tokens of others whose names look alike."""
    [identity] = [item["id"] for item in deployment.state() if item["type"].endswith("ai-deploy:Identity")]
    nonce = "0123456789abcdef"
    ours = [f"vllm-client-token-3-{identity}-{nonce}", f"vllm-scraper-token-3-{identity}-{nonce}"]
    theirs = [
        f"vllm-client-token-3-fedcba9876543210-{nonce}",
        f"vllm-client-token-3-{identity}",
        f"vllm-client-token-3-{identity}-{nonce}-mine",
        f"vllm-client-token-3-{identity}-{nonce[1:]}",
        f"vllm-client-token-3-{identity}-{nonce.upper()}",
        f"copy of {identity}",
    ]

    def make(name: str) -> str:
        selector = f"deploy-identity={identity}"
        body = {"name": name, "region": "GRA", "role": "ai_training_read", "labelSelector": selector}
        return str(api.create_token(body)["id"])

    return {make(name): name for name in ours}, {make(name): name for name in theirs}


def test_nobody_is_turned_away_while_tokens_change(rotation: Rotation) -> None:
    assert {answer.status for answer in rotation.answers} == {200}
    used = {rotation.steps[name].client_token for name in ("before", "raised", "raised again")}
    assert {answer.token for answer in rotation.answers} == used

    assert [error for error in rotation.errors if "401" in error] == []
    # A machine that is busy may cost a scrape its two seconds.
    assert rotation.samples.count("0") <= len(list(filter(None, rotation.errors)))
    assert rotation.samples.count("1") >= 4


def test_prometheus_lagged_behind_the_second_change(rotation: Rotation) -> None:
    assert rotation.steps["raised again"].scraper == "vllm-scraper-token-2"


@pytest.mark.parametrize(
    ("step", "generations"),
    [("before", [1]), ("raised", [1, 2]), ("raised again", [2, 3]), ("revoked", [4])],
)
def test_the_present_and_the_previous_generation_exist_and_nothing_else(
    rotation: Rotation, step: str, generations: list[int]
) -> None:
    after = rotation.steps[step]
    names = {f"vllm-{user}-token-{number}" for user in ("client", "scraper") for number in generations}
    assert after.tokens.keys() == names
    assert after.client_token == after.tokens[f"vllm-client-token-{generations[-1]}"]
    assert {id_ for id_ in after.names if id_ not in {*rotation.strangers, *rotation.left_over}} == after.ids
    assert {name for name, status in after.statuses.items() if status == 200} == names & after.statuses.keys()
    assert {status for name, status in after.statuses.items() if name not in names} <= {401}


def test_a_revoked_generation_is_refused_when_the_update_returns(rotation: Rotation) -> None:
    again, revoked = rotation.steps["raised again"].statuses, rotation.steps["revoked"].statuses
    assert again == {"vllm-client-token-1": 401, "vllm-client-token-2": 200, "vllm-client-token-3": 200}
    assert revoked == {f"vllm-client-token-{number}": 200 if number == 4 else 401 for number in range(1, 5)}


def test_left_over_tokens_are_swept_up_and_those_of_others_are_not(rotation: Rotation) -> None:
    assert rotation.left_over.items() <= rotation.steps["before"].names.items()
    for step in ("raised", "raised again", "revoked"):
        assert not rotation.left_over.keys() & rotation.steps[step].names.keys()
        assert rotation.strangers.items() <= rotation.steps[step].names.items()


@pytest.mark.parametrize(("step", "deleted"), [("raised", 2), ("raised again", 2), ("revoked", 4)])
def test_the_app_is_not_touched_and_the_gate_does_not_run(
    rotation: Rotation, step: str, deleted: int
) -> None:
    calls = [re.sub("(?<=/ai/token/).*", "id", call) for call in rotation.steps[step].calls]
    assert [call for call in calls if "/ai/app" in call] == []
    made = [call for call in calls if "/ai/" in call and not call.startswith("GET ")]
    assert sorted(made) == ["DELETE /ai/token/id"] * deleted + ["POST /ai/token"] * 2

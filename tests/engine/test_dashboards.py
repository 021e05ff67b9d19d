"""What Grafana would show of an endpoint under load: every query has an answer, and the answers are true."""

from __future__ import annotations

import math
import os
import re
import ssl
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from dashboards.page import Page, render
from tests import browser
from tests.engine.cluster import kubernetes_client
from tests.engine.conftest import Deployment
from tests.engine.load import Answered, load
from tests.waiting import until

pytestmark = pytest.mark.timeout(1200)

REPLICAS = 3
CALLERS = 160
"""More than 50 for each replica: the scaler goes to its maximum and stays there."""

SECONDS = 320 if "SCREENSHOTS" in os.environ else 65
"""What the page shows: bars come at full minutes, of which one has to be in it. For a picture more than the 5
minutes that rates are of."""


@dataclass(frozen=True)
class Loaded:
    """A deployment whose replicas have worked for a while."""

    prometheus: httpx.Client
    dashboards: dict[str, str]
    """What the sidecar finds in the cluster, by file name."""
    page: Page
    answered: Answered
    """What the callers have been answered so far."""

    def ask(self, expression: str) -> list[float]:
        """Values of an expression now."""
        answer = self.prometheus.get("/api/v1/query", params={"query": expression}).raise_for_status()
        return [float(series["value"][1]) for series in answer.json()["data"]["result"]]


@pytest.fixture(scope="module")
def loaded(deployment: Deployment, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Loaded]:
    outputs = deployment.engine.outputs("sandbox")
    trusted = ssl.create_default_context(cafile=deployment.sandbox.connection.ca_bundle)
    address = deployment.sandbox.addresses()[0].prometheus
    with (
        kubernetes_client(outputs["kubeconfig"], tmp_path_factory.mktemp("kubernetes")) as kubernetes,
        httpx.Client(base_url=address) as prometheus,
        load(outputs, trusted, CALLERS) as answered,
    ):
        maps = kubernetes.get("/api/v1/configmaps", params={"labelSelector": "grafana_dashboard=1"})
        ours = [item for item in maps.raise_for_status().json()["items"] if "vllm.json" in item["data"]]
        dashboards: dict[str, str] = ours[0]["data"]
        seen = Loaded(prometheus, dashboards, Page("", 0, (), {}), answered)
        until(lambda: seen.ask("fleet:vllm:replicas_seen") == [REPLICAS], "every replica seen", 120)
        until(lambda: seen.ask("fleet:vllm:replicas_ready") == [REPLICAS], "every replica ready", 60)
        until(lambda: len(seen.ask("fleet:slo_budget_left:ratio7d")) == 4, "four objectives", 60)
        # A line has points every 15 s, as Grafana asks for them.
        history = f'count_over_time(fleet:slo_budget_left:ratio7d{{slo="success"}}[1h]) * 5 >= {SECONDS}'
        until(lambda: seen.ask(history), "a history to draw", SECONDS + 120)
        yield replace(seen, page=render(dashboards, address, seconds=max(300, SECONDS)))


def test_no_panel_is_empty(loaded: Loaded) -> None:
    assert loaded.page.errors == {}
    assert list(loaded.page.empty) == []
    assert loaded.page.panels >= 36


def test_no_query_answers_nan(loaded: Loaded) -> None:
    """A ratio of nothing to nothing is drawn as a gap, and a stat shows NaN."""
    answers = loaded.page.answers
    assert {name for name, values in answers.items() if not values} == set()
    assert {name for name, values in answers.items() if any(map(math.isnan, values))} == set()


def test_replicas_are_counted_and_each_has_its_own_series(loaded: Loaded) -> None:
    # Not each evaluation sees each replica.
    births = loaded.ask("last_over_time(replica:vllm:generation_tokens_created[1m])")
    assert len(set(births)) == len(births) >= REPLICAS
    assert all(time.time() - 3600 < birth < time.time() for birth in births)


def test_the_fleet_is_said_to_generate_what_callers_get(loaded: Loaded) -> None:
    """The plain rate says many times that: each change from one replica to another counts as a reset."""
    expression = "sum(increase({}vllm:generation_tokens_total{{job='vllm-ministral'}}[40s]))"
    before = loaded.answered.tokens
    begin = time.monotonic()
    until(lambda: time.monotonic() - begin >= 40, "40 seconds of load", 50)
    tokens = loaded.answered.tokens - before
    [ours], plain = loaded.ask(expression.format("replica:")), loaded.ask(expression.format(""))
    # Scrapes are 5 s apart, and answers that are under way are in the one number only: where work comes in
    # bursts, that is much of a shorter time.
    assert ours == pytest.approx(tokens, rel=0.4)
    assert max(plain) > 2 * tokens


def test_nothing_is_wrong_with_an_endpoint_that_works(loaded: Loaded) -> None:
    answer = loaded.prometheus.get("/api/v1/query", params={"query": 'ALERTS{alertstate="firing"}'})
    firing = [series["metric"] for series in answer.raise_for_status().json()["data"]["result"]]
    ours = [alert for alert in firing if alert["alertname"].startswith("Vllm")]
    # The callers are more than three replicas are meant for, which is said after some minutes. How late
    # tokens come, and scrapes, is up to the machine that plays the replicas.
    expected = re.compile(
        "VllmAtMaxReplicasWithQueue|Vllm(TimeToFirstToken|InterTokenLatency|Availability)Burns.+"
    )
    assert [alert for alert in ours if not expected.fullmatch(alert["alertname"])] == []


def test_rules_are_evaluated_in_time(loaded: Loaded) -> None:
    groups = loaded.prometheus.get("/api/v1/rules").raise_for_status().json()["data"]["groups"]
    ours = [group for group in groups if group["name"].startswith("vllm-ministral")]
    assert ours
    wrong: list[Any] = [
        (rule["name"], rule.get("lastError"))
        for group in ours
        for rule in group["rules"]
        if rule["health"] != "ok"
    ]
    assert wrong == []


def test_a_browser_draws_every_panel(loaded: Loaded, tmp_path: Path) -> None:
    """With SCREENSHOTS=docs/images the picture is the one of the documentation."""
    chromium = browser.find(tmp_path / "profile")
    page = tmp_path / "dashboards.html"
    page.write_text(loaded.page.html)
    body = chromium.render(page).body
    assert (body["data-empty"], body["data-errors"]) == ("0", "0")
    assert "data-failures" not in body
    assert body["data-drawn"] == body["data-panels"] == str(loaded.page.panels)
    directory = Path(os.environ.get("SCREENSHOTS", tmp_path))
    chromium.screenshot(page, directory / "dashboard.png", width=1400, height=6000)

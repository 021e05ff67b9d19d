"""What one `pulumi up` on the sandbox leaves behind."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import httpx
import pytest

from sandbox import smoke
from sandbox.engine import EngineError
from tests.engine.conftest import Deployment, git_status


@pytest.fixture(scope="module")
def outputs(deployment: Deployment) -> dict[str, Any]:
    return deployment.engine.outputs("sandbox")


def test_the_smoke_test_proves_endpoint_and_monitoring(
    deployment: Deployment, outputs: dict[str, Any]
) -> None:
    bundle = Path(deployment.sandbox.connection.ca_bundle)
    samplers = smoke.samplers(deployment.engine.resources("sandbox"))
    assert samplers == 6
    assert len(list(smoke.checks(outputs, deployment.sandbox.addresses()[0], bundle, samplers))) == 7


def test_everything_of_the_architecture_is_there(deployment: Deployment) -> None:
    assert deployment.kinds() == [
        "ai-app",
        "ai-token",
        "ai-token",
        "cluster",
        "floating-ip",
        "gateway",
        "load-balancer",
        "node-pool",
        "user",
        "volume",
        "volume",
        "volume",
    ]


def test_a_second_preview_and_update_change_nothing(deployment: Deployment) -> None:
    deployment.engine.capture("preview", "-s", "sandbox", "--expect-no-changes")
    deployment.engine.capture("up", "-s", "sandbox", "--yes", "--skip-preview", "--expect-no-changes")


def test_a_refresh_finds_no_drift(deployment: Deployment) -> None:
    deployment.engine.capture("refresh", "-s", "sandbox", "--yes", "--skip-preview")
    deployment.engine.capture("preview", "-s", "sandbox", "--expect-no-changes")


def test_mistakes_of_a_stack_are_shown_without_a_traceback(deployment: Deployment) -> None:
    engine = deployment.engine
    changes = {"minReplicas": "9", "clusterRegion": "GRA"}
    for key, value in changes.items():
        engine.capture("config", "set", "-s", "dev", key, value)
    try:
        with pytest.raises(EngineError) as error:
            engine.capture("preview", "-s", "dev")
    finally:
        for key in changes:
            engine.capture("config", "rm", "-s", "dev", key)
    said = str(error.value)
    assert "2 mistakes in the configuration (Pulumi.dev.yaml)" in said
    assert "minReplicas = 9: must not exceed maxReplicas (1)" in said
    assert "Traceback" not in said


def test_grafana_s_address_is_the_reserved_one_and_leads_somewhere(
    deployment: Deployment, outputs: dict[str, Any]
) -> None:
    assert outputs["grafana_url"] == f"https://{outputs['grafana_reserved_address']}:8443"
    # Grafana's certificate is self-signed.
    page = httpx.get(outputs["grafana_url"], verify=False)  # noqa: S501
    assert "This is the sandbox" in page.text
    assert "vllm-ministral-monitoring" in page.text


def test_a_changed_threshold_is_one_call_and_waits_for_nothing(deployment: Deployment) -> None:
    engine, api = deployment.engine, deployment.sandbox.connection.api
    before = len(httpx.get(f"{api}/sandbox/calls").json())
    engine.capture("config", "set", "-s", "sandbox", "scalingTarget", "40")
    said = engine.capture("up", "-s", "sandbox", "--yes", "--skip-preview")
    assert said.partition("Diagnostics:")[2].count("Costs 3.51 to 9.71 EUR per hour without VAT:") == 1
    calls = httpx.get(f"{api}/sandbox/calls").json()[before:]
    changing = [
        f"{call['method']} {call['path'].rpartition('/')[2]}" for call in calls if call["method"] != "GET"
    ]
    assert changing == ["PUT scalingstrategy"]
    engine.capture("preview", "-s", "sandbox", "--expect-no-changes")


def test_a_preview_shows_what_a_change_does_to_the_bill(
    deployment: Deployment, outputs: dict[str, Any]
) -> None:
    engine = deployment.engine
    engine.capture("config", "set", "-s", "sandbox", "maxReplicas", "2")
    try:
        said = engine.capture("preview", "-s", "sandbox")
    finally:
        engine.capture("config", "set", "-s", "sandbox", "maxReplicas", "3")
    assert (outputs["cost_eur_per_hour_min"], outputs["cost_eur_per_hour_max"]) == (3.5098, 9.7098)
    assert re.search(r"~ cost_eur_per_hour_max *: 9\.7098 => 6\.6098$", said, flags=re.MULTILINE)
    assert "cost_eur_per_hour_min" not in said
    diagnostics = said.partition("Diagnostics:")[2]
    assert diagnostics.count("Costs 3.51 to 6.61 EUR per hour without VAT:") == 1
    assert "    sum                            3.5098  6.6098    2562.15    4825.15\n" in diagnostics


def test_state_refers_to_providers_and_holds_no_pickled_code(deployment: Deployment) -> None:
    references = {
        resource["urn"]: resource["inputs"]["__provider"]
        for resource in deployment.engine.resources("sandbox")
        if "dynamic" in resource["type"]
    }
    assert len(references) == 9
    # A reference is a module and a class name; code would be kilobytes.
    assert {urn for urn, reference in references.items() if len(reference) > 200} == set()


def test_no_tracked_file_is_written(deployment: Deployment) -> None:
    assert git_status() == deployment.git_status_before
